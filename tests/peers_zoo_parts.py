"""Parts that the definitions of ``peers_zoo`` share, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Network = tuple[Callable[[], nn.Module], tuple[int, ...]]  # what makes it, and the shape of its input without a batch
Kernel = int | tuple[int, int]


class Branches(nn.Module):
    """Every branch reads the same input; their channels are put side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Sum(nn.Module):
    """Every branch reads the same input; their outputs are added."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class Residual(nn.Module):
    """The body's output plus the shortcut's; the body's weights come first."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class ShuffleChannels(nn.Module):
    """Channel ``i`` of group ``g`` becomes channel ``g`` of group ``i``."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


def same(kernel: Kernel) -> Kernel:
    """The padding that keeps a size."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def max_pool(ceil: bool = False) -> nn.Module:
    """The overlapping pool of 3 with stride 2; Caffe's rounds up."""
    return nn.MaxPool2d(3, 2, ceil_mode=ceil)


def conv_relu(channels: int, outputs: int, kernel: Kernel = 3, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """A convolution with a bias, then ReLU."""
    return nn.Sequential(nn.Conv2d(channels, outputs, kernel, stride, padding), nn.ReLU())


def conv_bn(
    channels: int, outputs: int, kernel: Kernel = 1, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution without a bias that keeps the size where the stride is 1, then a batch normalization."""
    padding = same(kernel) if dilation == 1 else dilation
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_bn_relu(channels: int, outputs: int, kernel: Kernel = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_bn(channels, outputs, kernel, stride, groups), nn.ReLU())


def classifier(channels: int, classes: int = 1000, dropout: float = 0.0) -> nn.Sequential:
    """The mean over all positions, dropout and one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, classes))
