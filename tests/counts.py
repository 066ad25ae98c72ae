"""What is published about the networks of the zoo, in one table that judges the texts and the independent networks.

Parameters, and multiply-adds of convolutions, transposed convolutions and fully connected layers at batch 1, without
biases. Behind each stands its source:

    reference  measured before and apart from the texts and the peers: definitions from the papers, pytorchcv 0.0.74
    tv         the same count of torchvision 0.29.2
    timm       the same count of timm 1.0.31
    paper      printed in the paper, or the sum of what it prints by layer
    sum        the paper's 19,069,955, and the scales and shifts of batch normalisation that it leaves out
    counted    by the peers: no such number is known to be published
"""

from __future__ import annotations

from typing import NamedTuple

TABLE = """
    name                 variables   input          outputs          parameters  source       multiply-adds  source
    lenet5               -           1x28x28        10                   61,706  reference          416,520  reference
    lenet5_original      -           1x32x32        10                   60,000  paper              325,680  paper
    alexnet              -           3x227x227      1000             60,965,224  reference      724,406,816  reference
    alexnet_torchvision  -           3x224x224      1000             61,100,840  reference      714,188,480  reference
    zfnet                -           3x224x224      1000             62,357,608  reference    1,168,032,896  reference
    nin                  -           3x32x32        10                  966,986  reference      222,486,528  reference
    allcnn_a             -           3x32x32        10                1,254,250  reference      191,520,768  reference
    allcnn_b             -           3x32x32        10                1,300,618  reference      210,395,136  reference
    allcnn_c             -           3x32x32        10                1,369,738  reference      281,174,016  reference
    vgg11                -           3x224x224      1000            132,863,336  reference    7,609,090,048  reference
    vgg13                -           3x224x224      1000            133,047,848  reference   11,308,466,176  reference
    vgg16                -           3x224x224      1000            138,357,544  reference   15,470,264,320  reference
    vgg19                -           3x224x224      1000            143,667,240  reference   19,632,062,464  reference
    vgg16_bn             -           3x224x224      1000            138,365,992  reference   15,470,264,320  tv
    squeezenet1_0        -           3x224x224      1000              1,248,424  reference      818,924,576  reference
    squeezenet1_1        -           3x224x224      1000              1,235,496  reference      349,151,936  reference
    googlenet            -           3x224x224      1000              6,624,904  reference    1,498,376,192  tv
    googlenet            aux=1       3x224x224      1000+1000+1000   13,004,888  reference    1,506,748,416  counted
    googlenet_paper      -           3x224x224      1000              6,998,552  reference    1,582,671,872  reference
    googlenet_paper      aux=1       3x224x224      1000+1000+1000   13,378,280  reference    1,591,044,096  reference
    inception_v3         -           3x299x299      1000             23,834,568  reference    5,713,216,096  reference
    inception_v3         aux=1       3x299x299      1000+1000        27,161,264  reference    5,718,899,296  counted
    inception_v4         -           3x299x299      1000             42,679,816  timm        12,253,974,624  timm
    xception             -           3x299x299      1000             22,855,952  reference    8,357,403,496  reference
    resnet18             -           3x224x224      1000             11,689,512  reference    1,814,073,344  reference
    resnet34             -           3x224x224      1000             21,797,672  reference    3,663,761,408  reference
    resnet50             -           3x224x224      1000             25,557,032  reference    4,089,184,256  reference
    resnet50             paper=1     3x224x224      1000             25,557,032  reference    3,857,973,248  reference
    resnet101            -           3x224x224      1000             44,549,160  reference    7,801,405,440  reference
    resnet101            paper=1     3x224x224      1000             44,549,160  reference    7,570,194,432  reference
    resnet152            -           3x224x224      1000             60,192,808  reference   11,513,626,624  reference
    resnet152            paper=1     3x224x224      1000             60,192,808  reference   11,282,415,616  reference
    resnext50_32x4d      -           3x224x224      1000             25,028,904  tv           4,230,479,872  tv
    seresnet50           -           3x224x224      1000             28,088,024  reference    4,091,699,200  reference
    seresnet50           paper=1     3x224x224      1000             28,088,024  reference    3,860,488,192  reference
    preresnet18          -           3x224x224      1000             11,687,848  reference    1,814,073,344  reference
    preresnet50          -           3x224x224      1000             25,549,480  reference    4,089,184,256  reference
    preresnet50          paper=1     3x224x224      1000             25,549,480  reference    3,857,973,248  reference
    densenet121          -           3x224x224      1000              7,978,856  reference    2,834,161,664  reference
    convnext_tiny        -           3x224x224      1000             28,589,128  reference    4,455,531,264  tv
    replknet31b          -           3x224x224      1000             79,527,272  counted     15,353,525,248  counted
    replknet31b          training=1  3x224x224      1000             79,864,168  counted     15,431,298,048  counted
    mobilenet_v1         -           3x224x224      1000              4,231,976  reference      568,740,352  reference
    mobilenet_v2         -           3x224x224      1000              3,504,872  reference      300,774,272  reference
    shufflenet_v1        -           3x224x224      1000              1,865,728  reference      137,460,672  reference
    shufflenet_v2_x1_0   -           3x224x224      1000              2,278,604  reference      144,907,992  reference
    fcn32s               -           3x224x224      21x224x224      136,152,917  reference   62,787,564,288  counted
    fcn16s               -           3x224x224      21x224x224      134,815,994  reference   62,826,561,792  counted
    fcn8s                -           3x224x224      21x224x224      134,489,759  reference   62,860,657,728  counted
    unet                 -           1x572x572      2x388x388        31,030,658  counted    150,428,424,448  counted
    unet3d               -           3x132x132x116  3x44x44x28       19,069,955  sum        266,731,018,496  counted
    context_net          -           21x64x64       21x64x64             28,392  paper          115,605,504  counted
    hdc_duc              -           3x544x544      19x544x544      132,158,272  counted    614,651,969,536  counted
    m5                   -           1x8000         10                  558,090  counted         69,538,816  counted
    m11                  -           1x32000        10                1,784,202  counted        224,990,208  counted
    wavenet              -           1x16000        256x16000            71,264  counted      1,115,136,000  counted
    c3d                  -           3x16x112x112   487              79,991,015  counted     38,548,959,232  counted
    alexnet_ungrouped    peer        3x227x227      1000             62,378,344  reference    1,135,256,096  reference
    caffenet             peer        3x227x227      1000             60,965,224  reference      724,406,816  reference
"""


class Counts(NamedTuple):
    """A line of the table; ``variables`` are ``-`` for none, and ``peer`` where only ``peers_zoo`` has the network."""

    name: str
    variables: str
    input: str
    outputs: str
    parameters: int
    macs: int

    @property
    def peer(self) -> str:
        """What the independent network is called, if there is one."""
        return self.name if self.variables in ("-", "peer") else f"{self.name}_{self.variables.partition('=')[0]}"


def _row(line: str) -> Counts:
    name, variables, shape, outputs, parameters, _, macs, _ = line.replace(",", "").split()
    return Counts(name, variables, shape, outputs, int(parameters), int(macs))


ROWS = [_row(line) for line in TABLE.strip().splitlines()[1:]]


def dimensions(shape: tuple[int, ...]) -> str:
    """A shape as the table writes it."""
    return "x".join(map(str, shape))
