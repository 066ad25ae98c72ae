"""The registered layers: published ones, each with the network it is from, in sizes of milliseconds on one core."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

from .. import cost
from ..errors import OptionError
from ..geometry import Geometry

DIRECTIONS = ("forward", "input_gradient", "weight_gradient")
MEASUREMENTS = (*DIRECTIONS, "step")
POOLINGS = ("max_pool", "avg_pool", "lp_pool")
WEIGHTS_MATTER = ("depthwise", "grouped", "local", "tiled", "1-D", "3-D")
"""Kinds of layers whose weight gradients have a mean of their own."""


@dataclass(frozen=True)
class Case:
    """One layer with the shape of its input.

    Args:
        name: What it is called in tables.
        family: The heading it stands under.
        source: Network and layer, in words.
        layer: The function that computes it: conv, conv_transpose, conv_local, conv_tiled, or one of the poolings.
        shape: ``(N, C, *spatial)`` of the input.
        outputs: Output channels.
        kernel: Taps per axis.
        options: Stride, padding and so on, as that function takes them.
        period: Output positions after which the weights of a tiled layer repeat, per axis.
        first: Whether it is the first layer of its network, whose input needs no gradient in a training step.
        quick: Whether it is one of the few that a quick run measures.
    """

    name: str
    family: str
    source: str
    layer: str
    shape: tuple[int, ...]
    outputs: int
    kernel: tuple[int, ...]
    options: tuple[tuple[str, Any], ...] = ()
    period: tuple[int, ...] = ()
    first: bool = False
    quick: bool = False

    @property
    def size(self) -> tuple[int, ...]:
        """Input positions per axis."""
        return self.shape[2:]

    @property
    def pooling(self) -> bool:
        """Whether it has no weights."""
        return self.layer in POOLINGS

    @property
    def geometry(self) -> Geometry:
        """The window, transposed where the layer is."""
        numbers: dict[str, Any] = {k: v for k, v in self.options if k not in ("p", "ceil")}
        if self.layer == "conv_local":
            numbers["period"] = Geometry.window(len(self.size), self.kernel, **numbers).output_size(self.size)
        elif self.period:
            numbers["period"] = self.period
        if self.pooling:
            numbers.setdefault("stride", self.kernel)
        return Geometry.window(len(self.size), self.kernel, **numbers, transposed=self.layer == "conv_transpose")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """``(N, O, *out)``."""
        return self.shape[0], self.outputs, *self.geometry.output_size(self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights; empty for a pooling."""
        return () if self.pooling else self.geometry.weight_shape(self.shape[1], self.outputs)

    @property
    def measurements(self) -> tuple[str, ...]:
        """What there is to measure: a pooling has no weights, so no gradient of them."""
        return tuple(m for m in MEASUREMENTS if not (self.pooling and m == "weight_gradient"))

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of :data:`WEIGHTS_MATTER` that it is of."""
        groups = dict(self.options).get("groups", 1)
        found = {f"{len(self.size)}-D", self.layer.removeprefix("conv_")}
        found |= {"depthwise"} if 1 < groups == self.shape[1] else {"grouped"} if groups > 1 else set()
        return frozenset(found) & frozenset(WEIGHTS_MATTER)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds with real inputs, of each direction; 0 for a pooling, which only reads and compares."""
        if self.pooling:
            return 0
        return self.shape[0] * cost.real_multiply_adds(self.geometry, self.shape[1], self.outputs, self.size)

    @property
    def numbers(self) -> int:
        """Numbers of input, weights and output together: in every direction two are read and the third is written."""
        return prod(self.shape) + prod(self.output_shape) + (prod(self.weight_shape) if self.weight_shape else 0)


SUITE: dict[str, Case] = {}


def register(case: Case) -> None:
    """Add a layer to the suite.

    Raises:
        OptionError: The name is taken.
    """
    if case.name in SUITE:
        raise OptionError(f"A layer called {case.name!r} is already in the suite: {SUITE[case.name].source}.")
    SUITE[case.name] = case


def selected(only: str | None = None, *, quick: bool = False) -> tuple[Case, ...]:
    """The layers whose name or family a pattern finds, in the order of the suite.

    Raises:
        OptionError: The pattern is none, or finds nothing.

    >>> [case.name for case in selected("deepface")]
    ['deepface-l5', 'deepface-l6']
    """
    try:
        pattern = re.compile(only or "", re.IGNORECASE)
    except re.error as error:
        raise OptionError(f"--only {only}: not a regular expression ({error}).") from None
    able = [case for case in SUITE.values() if case.quick or not quick]
    found = [case for case in able if pattern.search(case.name) or pattern.search(case.family)]
    if not found:
        raise OptionError(f"--only {only}: finds none of the {len(SUITE)} layers; their families are {families()}.")
    return tuple(found)


def families() -> str:
    """The headings of the suite, for a sentence."""
    return ", ".join(dict.fromkeys(case.family for case in SUITE.values()))


def _layers(family: str, layer: str, rows: str) -> None:
    """Register a table: name, input, output channels, kernel, options and source, one layer a line.

    Options are words: ``s2`` stride, ``p1`` padding, ``d2`` dilation, ``g32`` groups, ``t2`` period, one number or one
    per axis joined by x; ``first``, ``quick``.
    """
    names = {"s": "stride", "p": "padding", "d": "dilation", "g": "groups"}
    for row in rows.strip().splitlines():
        name, x, channels, taps, words, source = (part.strip() for part in row.split("|"))
        shape, options = _numbers(x), words.split()
        kernel = _numbers(taps) if "x" in taps else (int(taps),) * (len(shape) - 2)
        written = {names[w[0]]: _value(w[1:]) for w in options if w[0] in names and w[1:2].isdecimal()}
        period = next((int(w[1:]) for w in options if w[0] == "t"), 0)
        register(
            Case(
                name, family, source, layer, shape, int(channels) if channels else shape[1], kernel,
                tuple(written.items()), (period,) * len(kernel) if period else (), "first" in options,
                "quick" in options,
            )
        )  # fmt: skip


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _value(text: str) -> Any:
    """``2`` is 2, ``1x0`` is (1, 0), ``4:3x4:3`` is ((4, 3), (4, 3))."""
    parts = tuple(_numbers(part.replace(":", "x")) for part in text.split("x"))
    entries = tuple(part[0] if len(part) == 1 else part for part in parts)
    return entries if len(entries) > 1 else entries[0]


_layers("dense 3x3", "conv", """
resnet18-conv2            | 4x64x56x56    |   64 | 3 | p1 quick    | ResNet-18, conv2, batch 4
resnet18-conv3            | 4x128x28x28   |  128 | 3 | p1          | ResNet-18, conv3, batch 4
resnet50-conv4            | 4x256x14x14   |  256 | 3 | p1          | ResNet-50, conv4 middle, batch 4
resnet50-conv5            | 4x512x7x7     |  512 | 3 | p1          | ResNet-50, conv5 middle, batch 4
resnet50-conv3-strided    | 4x128x56x56   |  128 | 3 | s2 p1       | ResNet-50, conv3 first block, batch 4
resnet18-conv2-batch-1    | 1x64x56x56    |   64 | 3 | p1          | ResNet-18, conv2, batch 1
resnet50-conv3-batch-32   | 32x128x28x28  |  128 | 3 | p1          | ResNet-50, conv3 middle, batch 32
vgg16-conv1-2             | 1x64x224x224  |   64 | 3 | p1          | VGG-16, second layer, batch 1
vgg16-conv3               | 1x256x56x56   |  256 | 3 | p1          | VGG-16, conv3-2, batch 1
vgg16-conv5               | 1x512x14x14   |  512 | 3 | p1          | VGG-16, conv5-1, batch 1
""")  # fmt: skip

_layers("dense 1x1", "conv", """
resnet50-reduce           | 4x256x56x56   |   64 | 1 | quick       | ResNet-50, conv2 bottleneck, first 1x1
resnet50-expand           | 4x64x56x56    |  256 | 1 |             | ResNet-50, conv2 bottleneck, last 1x1
resnet50-conv4-reduce     | 8x1024x14x14  |  256 | 1 |             | ResNet-50, conv4 bottleneck, first 1x1
resnet50-conv5-expand     | 8x512x7x7     | 2048 | 1 |             | ResNet-50, conv5 bottleneck, last 1x1
resnet50-shortcut         | 4x256x56x56   |  512 | 1 | s2          | ResNet-50, conv3 shortcut, stride 2
mobilenet1-pointwise      | 8x512x14x14   |  512 | 1 |             | MobileNet v1, one of the five middle 1x1
mobilenet2-expand         | 8x24x56x56    |  144 | 1 |             | MobileNet v2, second stage, expansion
mobilenet2-project        | 8x144x56x56   |   24 | 1 |             | MobileNet v2, second stage, projection
""")  # fmt: skip

_layers("stem", "conv", """
resnet-stem               | 4x3x224x224   |   64 | 7  | s2 p3 first quick | ResNet, first layer, 7x7 stride 2
mobilenet2-stem           | 8x3x224x224   |   32 | 3  | s2 p1 first | MobileNet v2, first layer, 3x3 stride 2
convnext-stem             | 8x3x224x224   |   96 | 4  | s4 first    | ConvNeXt-T, first layer, 4x4 stride 4
vit-patches               | 4x3x224x224   |  768 | 16 | s16 first   | ViT-B/16, patches, 16x16 stride 16
alexnet-stem              | 4x3x227x227   |   96 | 11 | s4 first    | AlexNet, first layer, 11x11 stride 4
vgg16-stem                | 2x3x224x224   |   64 | 3  | p1 first    | VGG-16, first layer
""")  # fmt: skip

_layers("grouped", "conv", """
resnext50-conv2           | 8x128x56x56   |  128 | 3 | p1 g32 quick | ResNeXt-50 32x4d, conv2
resnext50-conv3           | 8x256x28x28   |  256 | 3 | p1 g32      | ResNeXt-50 32x4d, conv3
resnext50-conv3-strided   | 8x256x56x56   |  256 | 3 | s2 p1 g32   | ResNeXt-50 32x4d, conv3 first block
resnext50-conv4           | 8x512x14x14   |  512 | 3 | p1 g32      | ResNeXt-50 32x4d, conv4
resnext50-conv5           | 8x1024x7x7    | 1024 | 3 | p1 g32      | ResNeXt-50 32x4d, conv5
regnetx-stage3            | 16x160x14x14  |  160 | 3 | p1 g10      | RegNetX-400MF, stage 3
shufflenet-reduce         | 16x240x28x28  |   60 | 1 | g3          | ShuffleNet v1, 3 groups, stage 2, first 1x1
shufflenet-expand         | 16x60x28x28   |  240 | 1 | g3          | ShuffleNet v1, 3 groups, stage 2, last 1x1
alexnet-conv2             | 4x96x27x27    |  256 | 5 | p2 g2       | AlexNet, second layer, two groups
""")  # fmt: skip

_layers("depthwise", "conv", """
mobilenet1-dw-112         | 8x32x112x112  |   32 | 3 | p1 g32      | MobileNet v1, first depthwise
mobilenet1-dw-112-strided | 8x64x112x112  |   64 | 3 | s2 p1 g64   | MobileNet v1, second depthwise, stride 2
mobilenet1-dw-56          | 8x128x56x56   |  128 | 3 | p1 g128 quick | MobileNet v1, third depthwise
mobilenet1-dw-14          | 16x512x14x14  |  512 | 3 | p1 g512     | MobileNet v1, one of the five middle layers
mobilenet1-dw-7           | 16x1024x7x7   | 1024 | 3 | p1 g1024    | MobileNet v1, last depthwise
mobilenet2-dw-56          | 8x144x56x56   |  144 | 3 | p1 g144     | MobileNet v2, second stage
mobilenet2-dw-56-batch-1  | 1x144x56x56   |  144 | 3 | p1 g144     | MobileNet v2, second stage, batch 1
efficientnet-dw5-28       | 8x240x28x28   |  240 | 5 | p2 g240     | EfficientNet-B0, stage 4, 5x5
efficientnet-dw5-strided  | 8x672x14x14   |  672 | 5 | s2 p2 g672  | EfficientNet-B0, stage 7, 5x5 stride 2
convnext-dw7-56           | 8x96x56x56    |   96 | 7 | p3 g96 quick | ConvNeXt-T, stage 1
convnext-dw7-28           | 8x192x28x28   |  192 | 7 | p3 g192     | ConvNeXt-T, stage 2
convnext-dw7-14           | 8x384x14x14   |  384 | 7 | p3 g384     | ConvNeXt-T, stage 3
convnext-dw7-7            | 8x768x7x7     |  768 | 7 | p3 g768     | ConvNeXt-T, stage 4
replknet-dw13             | 4x1024x7x7    | 1024 | 13 | p6 g1024   | RepLKNet-31B, stage 4, 13x13
replknet-dw27             | 1x512x14x14   |  512 | 27 | p13 g512   | RepLKNet-31B, stage 3, 27x27
replknet-dw31             | 1x128x56x56   |  128 | 31 | p15 g128   | RepLKNet-31B, stage 1, 31x31
slak-dw51x5               | 1x124x56x56   |  124 | 51x5 | p25x2 g124 | SLaK-T, stage 1, 51x5
""")  # fmt: skip

_layers("dilated", "conv", """
deeplab-conv5-d2          | 1x512x28x28   |  512 | 3 | p2 d2       | DeepLab v3, ResNet conv5, dilation 2
deeplab-conv5-d4          | 1x512x28x28   |  512 | 3 | p4 d4       | DeepLab v3, ResNet conv5, dilation 4
deeplab-aspp-d12          | 1x320x33x33   |  256 | 3 | p12 d12     | DeepLab v3 on MobileNet v2, ASPP, dilation 12
context-d4                | 2x21x64x64    |   21 | 3 | p4 d4 quick | Context network (Yu and Koltun), dilation 4
xception-dw-d2            | 2x728x33x33   |  728 | 3 | p2 d2 g728  | DeepLab v3+, Xception middle flow, dilation 2
""")  # fmt: skip

_layers("transposed", "conv_transpose", """
unet-up                   | 1x256x64x64   |  128 | 2  | s2         | U-Net, second up-convolution, 2x2 stride 2
dcgan-up                  | 8x256x16x16   |  128 | 4  | s2 p1 quick | DCGAN generator, third layer, 4x4 stride 2
dcgan-rgb                 | 16x128x32x32  |    3 | 4  | s2 p1      | DCGAN generator, last layer
fcn8-up                   | 2x21x28x28    |   21 | 16 | s8 p4      | FCN-8s, last upsampling, 16x16 stride 8
fcn-bilinear              | 8x21x56x56    |   21 | 4  | s2 p1 g21  | FCN, bilinear 4x4 stride 2, each class alone
""")  # fmt: skip

_layers("1-D", "conv", """
conformer-dw31            | 8x256x512     |  256 | 31  | p15 g256 quick | Conformer, 256 channels, depthwise 31
quartznet-dw33            | 8x256x500     |  256 | 33  | p16 g256  | QuartzNet, block 1, depthwise 33
quartznet-dw51            | 8x512x500     |  512 | 51  | p25 g512  | QuartzNet, block 3, depthwise 51
quartznet-dw75            | 8x512x500     |  512 | 75  | p37 g512  | QuartzNet, block 5, depthwise 75
tasnet-dw3-d8             | 4x512x1000    |  512 | 3   | p8 d8 g512 | Conv-TasNet, fourth block, depthwise, dilation 8
wav2vec-position          | 1x768x250     |  768 | 128 | p64 g16   | wav2vec 2.0, positions, 128 taps, 16 groups
m5-first                  | 4x1x16000     |  128 | 80  | s4 first  | M5 on waveforms, first layer, 80 taps, stride 4
wavenet-d1                | 2x64x4096     |  128 | 2   |           | WaveNet, filter and gate, dilation 1
wavenet-d32               | 2x64x4096     |  128 | 2   | d32       | WaveNet, filter and gate, dilation 32
wavenet-d512              | 2x64x4096     |  128 | 2   | d512      | WaveNet, filter and gate, dilation 512
ecg-resnet                | 4x64x1280     |   64 | 16  | p7        | ECG ResNet (Hannun et al.), 16 taps
""")  # fmt: skip

_layers("3-D", "conv", """
c3d-conv1                 | 1x3x8x112x112 |   64 | 3     | p1 first | C3D, first layer, 8 frames
c3d-conv5                 | 1x512x2x7x7   |  512 | 3     | p1       | C3D, conv5
unet3d-conv2              | 1x32x24x24x24 |   64 | 3     | p1       | 3-D U-Net, first level
x3d-dw-res2               | 1x54x13x40x40 |   54 | 3     | p1 g54 quick | X3D-S, res2, depthwise 3x3x3
x3d-dw-res4               | 4x216x13x10x10 | 216 | 3     | p1 g216  | X3D-S, res4, depthwise 3x3x3
r2plus1d-space            | 1x256x4x14x14 |  460 | 1x3x3 | p0x1x1   | R(2+1)D-18, conv4, in space
r2plus1d-time             | 1x460x4x14x14 |  256 | 3x1x1 | p1x0x0   | R(2+1)D-18, conv4, in time
""")  # fmt: skip

_layers("3-D", "conv_transpose", """
unet3d-up                 | 1x128x16x16x16 | 64  | 2     | s2       | nnU-Net, 3-D up-convolution, 2x2x2 stride 2
""")  # fmt: skip

_layers("local", "conv_local", """
local-28                  | 16x32x28x28   |   32 | 3 | p1 quick    | Locally connected 3x3, 32 to 32 channels on 28x28
deepface-l5               | 8x16x55x55    |   16 | 7 | s2          | DeepFace, L5, 7x7 stride 2
deepface-l6               | 8x16x25x25    |   16 | 5 |             | DeepFace, L6, 5x5
cuda-convnet-local3       | 128x64x6x6    |   64 | 3 | p1          | cuda-convnet on CIFAR-10, local3
local-1d                  | 16x64x100     |   64 | 3 |             | Keras LocallyConnected1D, 64 filters of 3 steps
""")  # fmt: skip

_layers("tiled", "conv_tiled", """
tiled-cifar               | 8x3x32x32     |   48 | 8 | p4:3x4:3 t2 first | Tiled CNN (Le et al.), first layer, 8x8
tiled-2                   | 8x32x28x28    |   32 | 3 | p1 t2 quick | Tiled 3x3, 32 to 32 channels, period 2
tiled-4                   | 8x32x28x28    |   32 | 3 | p1 t4       | Tiled 3x3, 32 to 32 channels, period 4
""")  # fmt: skip

_layers("large dense", "conv", """
dense-31                  | 1x3x128x128   |   16 | 31    | p15      | Bank of 16 colour filters, 31x31
hmax-21                   | 1x1x128x128   |   16 | 21    | p10 quick | HMAX, S1, bank of 16 filters, 21x21
deconvolution-121         | 1x38x96x96    |   38 | 121x1 | p60x0    | Deconvolution CNN (Xu et al.), 121x1
srcnn-first               | 1x1x128x128   |   64 | 9     | p4 first | SRCNN, first layer, 9x9
""")  # fmt: skip

_layers("LeNet", "conv", """
lenet-conv1-batch-1       | 1x1x28x28     |    6 | 5 | p2 first    | LeNet-5, first layer, batch 1
lenet-conv1-batch-64      | 64x1x28x28    |    6 | 5 | p2 first quick | LeNet-5, first layer, batch 64
lenet-conv1-batch-256     | 256x1x28x28   |    6 | 5 | p2 first    | LeNet-5, first layer, batch 256
lenet-conv2-batch-1       | 1x6x14x14     |   16 | 5 |             | LeNet-5, second layer, batch 1
lenet-conv2-batch-64      | 64x6x14x14    |   16 | 5 | quick       | LeNet-5, second layer, batch 64
lenet-conv2-batch-256     | 256x6x14x14   |   16 | 5 |             | LeNet-5, second layer, batch 256
""")  # fmt: skip

_layers("pooling", "max_pool", """
max2-vgg-pool1            | 1x64x224x224  | | 2  | s2            | VGG-16, pool1, maximum 2x2
max2-lenet                | 64x6x28x28    | | 2  | s2            | LeNet-5 with maxima, first pooling, batch 64
max3-resnet               | 4x64x112x112  | | 3  | s2 p1 quick   | ResNet, pooling behind the stem
max3-googlenet            | 4x192x28x28   | | 3  | s1 p1         | GoogLeNet, inception 3a, maximum 3x3
max5-spp                  | 4x512x13x13   | | 5  | s1 p2         | YOLO, spatial pyramid, 5x5
max9-spp                  | 4x512x13x13   | | 9  | s1 p4         | YOLO, spatial pyramid, 9x9
max13-spp                 | 4x512x13x13   | | 13 | s1 p6         | YOLO, spatial pyramid, 13x13
max31                     | 1x8x112x112   | | 31 | s1 p15        | Grey dilation, 31x31
max-c3d-pool2             | 1x64x16x56x56 | | 2  | s2            | C3D, maximum 2x2x2
""")  # fmt: skip

_layers("pooling", "avg_pool", """
avg2-densenet             | 4x128x56x56   | | 2  | s2            | DenseNet-121, first transition
avg3-inception            | 2x288x35x35   | | 3  | s1 p1 quick   | Inception v3, mean 3x3
avg7-global               | 32x2048x7x7   | | 7  | s1            | ResNet-50, global mean
avg31                     | 1x8x112x112   | | 31 | s1 p15        | Box filter of radius 15
""")  # fmt: skip

_layers("pooling", "lp_pool", """
lp2-svhn                  | 16x64x28x28   | | 2  | s2            | Lp pooling (Sermanet et al.), p = 2
""")  # fmt: skip
