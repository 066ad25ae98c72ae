"""The residual families: ResNet, ResNeXt, SE-ResNet, pre-activation, DenseNet, ConvNeXt, RepLKNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .peers_zoo_parts import Network, Residual, Sum, classifier, conv_bn, conv_bn_relu

COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


# -------------------------------------------------------------------------------------------------------------- ResNet


class Excitation(nn.Module):
    """Hu et al. 2017: every channel is weighted by what the means of all channels say."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)
        few = channels // ratio
        self.gate = nn.Sequential(nn.Conv2d(channels, few, 1), nn.ReLU(), nn.Conv2d(few, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.mean(x))


def projection(channels: int, outputs: int, stride: int) -> nn.Module | None:
    return conv_bn(channels, outputs, stride=stride) if stride > 1 or channels != outputs else None


def basic(channels: int, width: int, stride: int) -> nn.Module:
    """He et al. 2015, figure 5 left."""
    body = nn.Sequential(*conv_bn_relu(channels, width, 3, stride), *conv_bn(width, width, 3))
    return nn.Sequential(Residual(body, projection(channels, width, stride)), nn.ReLU())


def bottleneck(
    channels: int, width: int, stride: int, groups: int = 1, group_width: int = 64, excite: bool = False,
    dilation: int = 1,
) -> nn.Module:  # fmt: skip
    """He et al. 2015, figure 5 right, with the stride in the 3x3; as groups, Xie et al. 2016."""
    inner, outputs = width * groups * group_width // 64, 4 * width
    body = nn.Sequential(
        *conv_bn_relu(channels, inner), *conv_bn(inner, inner, 3, stride, groups, dilation), nn.ReLU(),
        *conv_bn(inner, outputs), *([Excitation(outputs)] if excite else []),
    )  # fmt: skip
    return nn.Sequential(Residual(body, projection(channels, outputs, stride)), nn.ReLU())


def stem() -> nn.Sequential:
    return nn.Sequential(*conv_bn_relu(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))


def stages(block: Callable[[int, int, int], nn.Module], depth: int, expansion: int) -> list[nn.Module]:
    """The blocks of all four stages; the first block of each but the first has stride 2."""
    blocks, channels = [], 64
    for stage, count in enumerate(COUNTS[depth]):
        width = 64 << stage
        for index in range(count):
            blocks.append(block(channels, width, 2 if stage and not index else 1))
            channels = expansion * width
    return blocks


def resnet(depth: int, groups: int = 1, group_width: int = 64, excite: bool = False) -> nn.Module:
    """He et al. 2015 as torchvision defines it ("v1.5"); ResNeXt (Xie et al. 2016) and SE (Hu et al. 2017) too."""
    if depth < 50:
        return nn.Sequential(*stem(), *stages(basic, depth, 1), classifier(512))
    block = partial(bottleneck, groups=groups, group_width=group_width, excite=excite)
    return nn.Sequential(*stem(), *stages(block, depth, 4), classifier(2048))


# ------------------------------------------------------------------------------------------------------ pre-activation


class PreActivated(nn.Module):
    """He et al. 2016, figure 1b: the body and a projection read what batch normalization and ReLU make of the input."""

    def __init__(self, channels: int, body: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        return self.body(active) + (x if self.shortcut is None else self.shortcut(active))


def convolution(channels: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, bias=False)


def active_convolution(channels: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), convolution(channels, outputs, kernel, stride))


def pre_shortcut(channels: int, outputs: int, stride: int) -> nn.Module | None:
    return convolution(channels, outputs, 1, stride) if stride > 1 or channels != outputs else None


def pre_basic(channels: int, width: int, stride: int) -> nn.Module:
    body = nn.Sequential(convolution(channels, width, 3, stride), *active_convolution(width, width, 3))
    return PreActivated(channels, body, pre_shortcut(channels, width, stride))


def pre_bottleneck(channels: int, width: int, stride: int, stride_first: bool = False) -> nn.Module:
    first, second = (stride, 1) if stride_first else (1, stride)
    body = nn.Sequential(
        convolution(channels, width, 1, first), *active_convolution(width, width, 3, second),
        *active_convolution(width, 4 * width),
    )  # fmt: skip
    return PreActivated(channels, body, pre_shortcut(channels, 4 * width, stride))


def preresnet(depth: int, stride_first: bool = False) -> nn.Module:
    """He et al. 2016; ``stride_first`` puts the stride in the first 1x1 as the authors' code does.

    The stem is normalized and so is the input of the first block, as pytorchcv has it; timm's resnetv2 leaves out
    the stem's normalization and registers a block's projection before its body.
    """
    block = partial(pre_bottleneck, stride_first=stride_first) if depth >= 50 else pre_basic
    expansion = 4 if depth >= 50 else 1
    end = (nn.BatchNorm2d(512 * expansion), nn.ReLU(), classifier(512 * expansion))
    return nn.Sequential(*stem(), *stages(block, depth, expansion), *end)


# ------------------------------------------------------------------------------------------------------------ DenseNet


class DenseLayer(nn.Module):
    """Huang et al. 2016, DenseNet-B: 32 new channels beside those that are there."""

    def __init__(self, channels: int, growth: int = 32) -> None:
        super().__init__()
        between = 4 * growth
        self.body = nn.Sequential(*active_convolution(channels, between), *active_convolution(between, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet121() -> nn.Module:
    """Huang et al. 2016, table 1: transitions halve channels and size."""
    layers: list[nn.Module] = [*stem()]
    channels = 64
    for count in (6, 12, 24, 16):
        if len(layers) > 4:
            layers += [*active_convolution(channels, channels // 2), nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(count):
            layers.append(DenseLayer(channels))
            channels += 32
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), classifier(channels))


# ------------------------------------------------------------------------------------------------------------ ConvNeXt


class ChannelNorm(nn.LayerNorm):
    """A layer normalization over the channels of every position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NextBlock(nn.Module):
    """Liu et al. 2022, figure 4; the scale is a parameter of the block itself, so it holds the first weights.

    timm orders alike: gamma, conv_dw, norm, mlp.fc1, mlp.fc2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        return x + self.layer_scale * y.permute(0, 3, 1, 2)


def convnext_tiny() -> nn.Module:
    """Liu et al. 2022, as torchvision defines it; timm registers the same weights in the same order."""
    norm = partial(ChannelNorm, eps=1e-6)
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), norm(96)]
    for count, channels in ((3, 96), (3, 192), (9, 384), (3, 768)):
        if channels > 96:
            layers += [norm(channels // 2), nn.Conv2d(channels // 2, channels, 2, 2)]
        layers += [NextBlock(channels) for _ in range(count)]
    head = (nn.AdaptiveAvgPool2d(1), norm(768), nn.Flatten(), nn.Linear(768, 1000))
    return nn.Sequential(*layers, *head)


# ------------------------------------------------------------------------------------------------------------ RepLKNet


def large_kernel(channels: int, kernel: int, merged: bool) -> nn.Module:
    """Ding et al. 2022, section 3: a depthwise kernel; while it trains, a 5x5 beside it, each normalized."""
    if merged:
        return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
    return Sum(conv_bn(channels, channels, kernel, groups=channels), conv_bn(channels, channels, 5, groups=channels))


def large_kernel_block(channels: int, kernel: int, merged: bool) -> list[nn.Module]:
    """Ding et al. 2022, figure 2: the block of the large kernel and the one of two 1x1, each on a residual path."""
    spatial = nn.Sequential(
        nn.BatchNorm2d(channels), *conv_bn_relu(channels, channels), large_kernel(channels, kernel, merged), nn.ReLU(),
        *conv_bn(channels, channels),
    )  # fmt: skip
    wide = nn.Sequential(
        nn.BatchNorm2d(channels), *conv_bn(channels, 4 * channels), nn.GELU(), *conv_bn(4 * channels, channels)
    )
    return [Residual(spatial), Residual(wide)]


def replknet31b(merged: bool = True) -> nn.Module:
    """Ding et al. 2022, RepLKNet-31B: as it is deployed, one biased kernel where the training form has two branches.

    The weights stand in the order in which they are used; the authors' code registers those of a block otherwise.
    """
    layers: list[nn.Module] = [
        *conv_bn_relu(3, 128, 3, 2), *conv_bn_relu(128, 128, 3, 1, 128), *conv_bn_relu(128, 128),
        *conv_bn_relu(128, 128, 3, 2, 128),
    ]  # fmt: skip
    for count, channels, kernel in ((2, 128, 31), (2, 256, 29), (18, 512, 27), (2, 1024, 13)):
        if channels > 128:
            layers += conv_bn_relu(channels // 2, channels)
            layers += conv_bn_relu(channels, channels, 3, 2, channels)
        for _ in range(count):
            layers += large_kernel_block(channels, kernel, merged)
    return nn.Sequential(*layers, nn.BatchNorm2d(1024), classifier(1024))


NETWORKS: dict[str, Network] = {
    **{f"resnet{depth}": (partial(resnet, depth), (3, 224, 224)) for depth in COUNTS},
    "resnext50_32x4d": (partial(resnet, 50, groups=32, group_width=4), (3, 224, 224)),
    "seresnet50": (partial(resnet, 50, excite=True), (3, 224, 224)),
    "preresnet18": (partial(preresnet, 18), (3, 224, 224)),
    "preresnet50": (partial(preresnet, 50), (3, 224, 224)),
    "preresnet50_paper": (partial(preresnet, 50, stride_first=True), (3, 224, 224)),
    "densenet121": (densenet121, (3, 224, 224)),
    "convnext_tiny": (convnext_tiny, (3, 224, 224)),
    "replknet31b": (replknet31b, (3, 224, 224)),
    "replknet31b_training": (partial(replknet31b, merged=False), (3, 224, 224)),
}
