"""The published networks in plain PyTorch have the counts that were published."""

from __future__ import annotations

from collections import Counter
from functools import cache
from zlib import crc32

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .peers_zoo import INPUTS, build
from .peers_zoo_classics import C3_READS

# Parameters, and multiply-adds of convolutions, transposed convolutions and linear layers at batch 1, without biases.
# Behind each stands its source:
#   reference    measured before and apart from these definitions: other definitions from the papers, pytorchcv 0.0.74
#   torchvision  the same count of torchvision 0.29.2
#   timm         the same count of timm 1.0.31
#   paper        printed in the paper, or the sum of what it prints by layer
#   counted      ours: no such number is known to be published
COUNTS = """
    name                  input           outputs          parameters  source            multiply-adds  source
    lenet5                1x28x28         10                   61,706  reference               416,520  reference
    lenet5_original       1x32x32         84                   60,000  paper                   325,680  paper
    alexnet               3x227x227       1000             60,965,224  reference           724,406,816  reference
    alexnet_ungrouped     3x227x227       1000             62,378,344  reference         1,135,256,096  reference
    alexnet_torchvision   3x224x224       1000             61,100,840  reference           714,188,480  reference
    caffenet              3x227x227       1000             60,965,224  reference           724,406,816  reference
    zfnet                 3x224x224       1000             62,357,608  reference         1,168,032,896  reference
    nin                   3x32x32         10                  966,986  reference           222,486,528  reference
    allcnn_a              3x32x32         10                1,254,250  reference           191,520,768  reference
    allcnn_b              3x32x32         10                1,300,618  reference           210,395,136  reference
    allcnn_c              3x32x32         10                1,369,738  reference           281,174,016  reference
    vgg11                 3x224x224       1000            132,863,336  reference         7,609,090,048  reference
    vgg13                 3x224x224       1000            133,047,848  reference        11,308,466,176  reference
    vgg16                 3x224x224       1000            138,357,544  reference        15,470,264,320  reference
    vgg19                 3x224x224       1000            143,667,240  reference        19,632,062,464  reference
    vgg16_bn              3x224x224       1000            138,365,992  reference        15,470,264,320  torchvision
    squeezenet1_0         3x224x224       1000              1,248,424  reference           818,924,576  reference
    squeezenet1_1         3x224x224       1000              1,235,496  reference           349,151,936  reference
    googlenet             3x224x224       1000              6,624,904  reference         1,498,376,192  torchvision
    googlenet_aux         3x224x224       1000+1000+1000   13,004,888  reference         1,506,748,416  counted
    googlenet_paper       3x224x224       1000              6,998,552  reference         1,582,671,872  reference
    googlenet_paper_aux   3x224x224       1000+1000+1000   13,378,280  reference         1,591,044,096  reference
    inception_v3          3x299x299       1000             23,834,568  reference         5,713,216,096  reference
    inception_v3_aux      3x299x299       1000+1000        27,161,264  reference         5,718,899,296  counted
    inception_v4          3x299x299       1000             42,679,816  timm             12,253,974,624  timm
    xception              3x299x299       1000             22,855,952  reference         8,357,403,496  reference
    resnet18              3x224x224       1000             11,689,512  reference         1,814,073,344  reference
    resnet34              3x224x224       1000             21,797,672  reference         3,663,761,408  reference
    resnet50              3x224x224       1000             25,557,032  reference         4,089,184,256  reference
    resnet101             3x224x224       1000             44,549,160  reference         7,801,405,440  reference
    resnet152             3x224x224       1000             60,192,808  reference        11,513,626,624  reference
    resnext50_32x4d       3x224x224       1000             25,028,904  torchvision       4,230,479,872  torchvision
    seresnet50            3x224x224       1000             28,088,024  reference         4,091,699,200  reference
    preresnet18           3x224x224       1000             11,687,848  reference         1,814,073,344  reference
    preresnet50           3x224x224       1000             25,549,480  reference         4,089,184,256  reference
    preresnet50_paper     3x224x224       1000             25,549,480  reference         3,857,973,248  reference
    densenet121           3x224x224       1000              7,978,856  reference         2,834,161,664  reference
    convnext_tiny         3x224x224       1000             28,589,128  reference         4,455,531,264  torchvision
    replknet31b           3x224x224       1000             79,527,272  counted          15,353,525,248  counted
    replknet31b_training  3x224x224       1000             79,864,168  counted          15,431,298,048  counted
    mobilenet_v1          3x224x224       1000              4,231,976  reference           568,740,352  reference
    mobilenet_v2          3x224x224       1000              3,504,872  reference           300,774,272  reference
    shufflenet_v1         3x224x224       1000              1,865,728  reference           137,460,672  reference
    shufflenet_v2_x1_0    3x224x224       1000              2,278,604  reference           144,907,992  reference
    fcn32s                3x224x224       21x224x224      136,152,917  reference        62,787,564,288  counted
    fcn16s                3x224x224       21x224x224      134,815,994  reference        62,826,561,792  counted
    fcn8s                 3x224x224       21x224x224      134,489,759  reference        62,860,657,728  counted
    unet                  1x572x572       2x388x388        31,030,658  counted         150,428,424,448  counted
    unet3d                3x132x132x116   3x44x44x28       19,069,955  paper           266,731,018,496  counted
    context_net           21x64x64        21x64x64             28,392  paper               115,605,504  counted
    hdc_duc               3x544x544       19x544x544      132,158,272  counted         614,651,969,536  counted
    m5                    1x8000          10                  558,090  counted              69,538,816  counted
    m11                   1x32000         10                1,784,202  counted             224,990,208  counted
    wavenet_stack         1x16000         256x16000            71,264  counted           1,115,136,000  counted
    c3d                   3x16x112x112    487              79,991,015  counted          38,548,959,232  counted
"""
ROWS = [line.replace(",", "").split() for line in COUNTS.strip().splitlines()[1:]]

# The shapes of a state_dict, one after another, as a checksum: those of torchvision 0.29.2, timm 1.0.31, pytorchcv
# 0.0.74, whose weights therefore fit by order.
ORDERS = """
    name                 package      shapes
    alexnet_ungrouped    pytorchcv    6b45d0da
    alexnet_torchvision  torchvision  424b9f5c
    zfnet                pytorchcv    996bb6dc
    nin                  pytorchcv    91ae2682
    vgg11                torchvision  8a98e32e
    vgg13                torchvision  71019234
    vgg16                torchvision  4b467ae3
    vgg19                torchvision  e9cc0d51
    vgg16_bn             torchvision  4fe6af07
    squeezenet1_0        torchvision  003165f5
    squeezenet1_1        torchvision  10a9bbc5
    googlenet            torchvision  4a93ca06
    googlenet_aux        torchvision  4954e2bb
    inception_v3         torchvision  ed19c138
    inception_v3_aux     torchvision  53ff52ef
    inception_v4         timm         5cac919e
    xception             timm         634199b5
    resnet18             torchvision  920e0e19
    resnet34             torchvision  8f142aeb
    resnet50             torchvision  e839ad0f
    resnet101            torchvision  ceb4a9b0
    resnet152            torchvision  4c34d217
    resnext50_32x4d      torchvision  09cd312c
    seresnet50           timm         211e8556
    preresnet18          pytorchcv    5d44dd34
    preresnet50          pytorchcv    466dde6c
    preresnet50_paper    pytorchcv    466dde6c
    densenet121          torchvision  e4e83b99
    convnext_tiny        torchvision  143214ae
    mobilenet_v1         pytorchcv    995eedad
    mobilenet_v2         torchvision  a2d651cc
    shufflenet_v1        pytorchcv    706f9733
    shufflenet_v2_x1_0   torchvision  48b36df4
"""
LAYOUTS = [line.split() for line in ORDERS.strip().splitlines()[1:]]


@cache
def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(name).eval()


def dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def test_every_network_is_counted() -> None:
    assert [row[0] for row in ROWS] == list(INPUTS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_published_counts(row: list[str]) -> None:
    name, shape, outputs, parameters, _, macs, _ = row
    assert dimensions(INPUTS[name]) == shape
    network, x = on_meta(name), torch.empty(1, *INPUTS[name], device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        scores = network(x)
    every = (scores,) if isinstance(scores, Tensor) else scores
    assert "+".join(dimensions(each.shape[1:]) for each in every) == outputs
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert (counted, counter.get_total_flops() / 2) == (int(parameters), int(macs))


@pytest.mark.parametrize("row", LAYOUTS, ids=[row[0] for row in LAYOUTS])
def test_weights_stand_in_the_order_of_other_packages(row: list[str]) -> None:
    name, _, checksum = row
    shapes = [tuple(tensor.shape) for tensor in on_meta(name).state_dict().values()]
    assert f"{crc32(repr(shapes).encode()):08x}" == checksum


def test_the_table_of_lenet() -> None:
    """LeCun et al. 1998, table I: six maps read three maps, nine four, one six; every map is read by ten."""
    assert Counter(map(len, C3_READS)) == {3: 6, 4: 9, 6: 1}
    assert set(Counter(index for reads in C3_READS for index in reads).values()) == {10}
    assert len(set(C3_READS)) == 16
