"""The published networks in plain PyTorch have the counts that were published."""

from __future__ import annotations

from collections import Counter
from functools import cache
from zlib import crc32

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from . import counts
from .counts import Counts, dimensions
from .peers_zoo import INPUTS, build
from .peers_zoo_classics import C3_READS

ROWS = [row for row in counts.ROWS if row.peer in INPUTS]
# LeCun's network ends in distances from codes that are not learned; the peer gives what they are measured from.
OUTPUTS = {"lenet5_original": "84"}

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


def test_every_network_is_counted() -> None:
    assert sorted(row.peer for row in ROWS) == sorted(INPUTS)


@pytest.mark.parametrize("row", ROWS, ids=[row.peer for row in ROWS])
def test_the_published_counts(row: Counts) -> None:
    assert dimensions(INPUTS[row.peer]) == row.input
    network, x = on_meta(row.peer), torch.empty(1, *INPUTS[row.peer], device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        scores = network(x)
    every = (scores,) if isinstance(scores, Tensor) else scores
    assert "+".join(dimensions(each.shape[1:]) for each in every) == OUTPUTS.get(row.peer, row.outputs)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert (counted, counter.get_total_flops() / 2) == (row.parameters, row.macs)


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
