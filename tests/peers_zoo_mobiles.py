"""The networks for telephones: MobileNet and ShuffleNet, each in two versions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .peers_zoo_parts import Network, Residual, ShuffleChannels, classifier, conv_bn, conv_bn_relu


def mobilenet_v1() -> nn.Module:
    """Howard et al. 2017, table 1: a depthwise 3x3 and a 1x1, each with batch normalization and ReLU."""
    layers: list[nn.Module] = [*conv_bn_relu(3, 32, 3, 2)]
    channels = 32
    for outputs in (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024):
        layers += conv_bn_relu(channels, channels, 3, 2 if outputs > max(channels, 64) else 1, channels)
        layers += conv_bn_relu(channels, outputs)
        channels = outputs
    return nn.Sequential(*layers, classifier(1024))


def conv_bn_relu6(channels: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_bn(channels, outputs, kernel, stride, groups), nn.ReLU6())


def inverted(channels: int, outputs: int, stride: int, expand: int) -> nn.Module:
    """Sandler et al. 2018, figure 3b: wide inside, linear at its end; without an expansion one convolution less."""
    hidden = channels * expand
    first = conv_bn_relu6(channels, hidden) if expand > 1 else nn.Sequential()
    body = nn.Sequential(*first, *conv_bn_relu6(hidden, hidden, 3, stride, hidden), *conv_bn(hidden, outputs))
    return Residual(body) if stride == 1 and channels == outputs else body


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018, table 2, as torchvision defines it."""
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    layers: list[nn.Module] = [*conv_bn_relu6(3, 32, 3, 2)]
    channels = 32
    for expand, outputs, count, stride in table:
        for index in range(count):
            layers.append(inverted(channels, outputs, 1 if index else stride, expand))
            channels = outputs
    return nn.Sequential(*layers, *conv_bn_relu6(320, 1280), classifier(1280, dropout=0.2))


class ShuffleUnit(nn.Module):
    """Zhang et al. 2017, figure 2b and 2c: with stride 2 the mean of the input stands beside the new channels."""

    def __init__(self, channels: int, outputs: int, groups: int) -> None:
        super().__init__()
        few, grows = outputs // 4, channels != outputs
        self.body = nn.Sequential(
            *conv_bn_relu(channels, few, groups=1 if channels == 24 else groups), ShuffleChannels(groups),
            *conv_bn(few, few, 3, 2 if grows else 1, few),
            *conv_bn(few, outputs - channels if grows else outputs, groups=groups),
        )  # fmt: skip
        self.mean = nn.AvgPool2d(3, 2, 1) if grows else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.relu(x + y if self.mean is None else torch.cat([y, self.mean(x)], 1))


def shufflenet_v1(groups: int = 3) -> nn.Module:
    """Zhang et al. 2017, table 1, 1x with 3 groups; the first 1x1 of stage 2 has no groups."""
    layers: list[nn.Module] = [*conv_bn_relu(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for count, outputs in ((4, 240), (8, 480), (4, 960)):
        for _ in range(count):
            layers.append(ShuffleUnit(channels, outputs, groups))
            channels = outputs
    return nn.Sequential(*layers, classifier(960))


class SplitUnit(nn.Module):
    """Ma et al. 2018, figure 3c and 3d: half the channels pass, or with stride 2 both branches read all of them."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        half, stride = outputs // 2, 1 if channels == outputs else 2
        reads = half if stride == 1 else channels
        self.left = None
        if stride == 2:
            self.left = nn.Sequential(*conv_bn(reads, reads, 3, 2, reads), *conv_bn_relu(reads, half))
        self.right = nn.Sequential(
            *conv_bn_relu(reads, half), *conv_bn(half, half, 3, stride, half), *conv_bn_relu(half, half)
        )
        self.shuffle = ShuffleChannels(2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.left is None else (self.left(x), x)
        return self.shuffle(torch.cat([left, self.right(right)], 1))


def shufflenet_v2_x1_0() -> nn.Module:
    """Ma et al. 2018, table 5, 1x, as torchvision defines it."""
    layers: list[nn.Module] = [*conv_bn_relu(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for count, outputs in ((4, 116), (8, 232), (4, 464)):
        for _ in range(count):
            layers.append(SplitUnit(channels, outputs))
            channels = outputs
    return nn.Sequential(*layers, *conv_bn_relu(464, 1024), classifier(1024))


NETWORKS: dict[str, Network] = {
    "mobilenet_v1": (mobilenet_v1, (3, 224, 224)),
    "mobilenet_v2": (mobilenet_v2, (3, 224, 224)),
    "shufflenet_v1": (shufflenet_v1, (3, 224, 224)),
    "shufflenet_v2_x1_0": (shufflenet_v2_x1_0, (3, 224, 224)),
}
