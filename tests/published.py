"""Small faithful copies of published networks, in torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """He et al., 2015."""

    def __init__(self, channels: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or channels != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    """With a max pool after the stem and a mean over all positions at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 12, 2))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.mean(self.blocks(self.pool(self.stem(x)))), 1))


class InvertedResidual(nn.Module):
    """Sandler et al., 2018."""

    def __init__(self, channels: int, outputs: int, stride: int, expand: int = 3) -> None:
        super().__init__()
        hidden = channels * expand
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden)),
            *(nn.ReLU6(inplace=True), nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.residual = stride == 1 and channels == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
            InvertedResidual(8, 8, 1), InvertedResidual(8, 12, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
        )  # fmt: skip


class ConvNeXtBlock(nn.Module):
    """Liu et al., 2022."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


class ConvNeXt(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8), ConvNeXtBlock(8))


class UNet(nn.Module):
    """Ronneberger et al., 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.twice(3, 6), self.twice(6, 8)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.join = self.twice(12, 6)
        self.last = nn.Conv2d(6, 2, 1)

    @staticmethod
    def twice(channels: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.down1(x)
        deep = self.norm(self.up(self.down2(self.pool(first))))
        return {"mask": self.last(self.join(torch.cat([first, deep], 1)))}


class Speech(nn.Sequential):
    """Depthwise convolutions over time, as in QuartzNet (Kriman et al., 2020)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(6, 8, 3, 2, 1), nn.BatchNorm1d(8), nn.ReLU(),
            nn.Conv1d(8, 8, 11, padding="same", groups=8), nn.Conv1d(8, 12, 1), nn.BatchNorm1d(12), nn.SiLU(),
            nn.AvgPool1d(2), nn.Conv1d(12, 5, 1),
        )  # fmt: skip


class SqueezeExcite(nn.Module):
    """Hu et al., 2017, with a pooled skip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.less, self.more = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.more(F.relu(self.less(self.squeeze(y)))))
        return y * gate, gate


class Functional(nn.Module):
    """One convolution is a layer, the other a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.kernel = nn.Parameter(torch.linspace(-1, 1, 6 * 6 * 9).view(6, 6, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.conv2d(self.conv(x), self.kernel, padding=1), 2)


class Shared(nn.Module):
    """One convolution under two names, used on two scales, before two normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.second = self.first
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.second(F.avg_pool2d(F.relu(self.norm1(self.first(x))), 2)))


class Volume(nn.Sequential):
    """Three axes."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2),
            nn.ConvTranspose3d(4, 4, 3, 2, 1, 1, groups=2), nn.BatchNorm3d(4), nn.LeakyReLU(0.1), nn.AvgPool3d(2),
        )  # fmt: skip


class WeightNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3, padding=1)),
            nn.Tanh(),
            nn.utils.parametrizations.spectral_norm(nn.Conv1d(6, 4, 3, padding=2, dilation=2)),
        )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, (2, 3, 32, 32)),
    "mobilenet": (MobileNet, (4, 3, 32, 32)),
    "convnext": (ConvNeXt, (2, 3, 32, 32)),
    "unet": (UNet, (2, 3, 16, 16)),
    "speech": (Speech, (2, 6, 40)),
    "squeeze": (SqueezeExcite, (2, 3, 12, 12)),
    "functional": (Functional, (2, 3, 12, 12)),
    "shared": (Shared, (2, 3, 12, 12)),
    "volume": (Volume, (2, 2, 8, 8, 8)),
    "weight norm": (WeightNorm, (2, 4, 20)),
}


def make(name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Tensor]:
    """A network with numbers that are not those of its beginning, and an input."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model: Any = build().to(dtype)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return model, torch.randn(shape, dtype=dtype)


def leaves(output: Any) -> list[Tensor]:
    """The tensors of an output."""
    return torch.utils._pytree.tree_leaves(output)
