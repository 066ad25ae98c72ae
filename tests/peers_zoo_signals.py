"""The networks of one and three dimensions: raw waveforms and films."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .peers_zoo_parts import Network

# Dai et al. 2016, table 1: the first window of 80 with stride 4, then groups of windows of 3, each group after a pool.
WAVES = {
    "m5": ((128, 1), (128, 1), (256, 1), (512, 1)),
    "m11": ((64, 1), (64, 2), (128, 2), (256, 3), (512, 2)),
}


def wave_unit(channels: int, outputs: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    conv = nn.Conv1d(channels, outputs, kernel, stride, padding, bias=False)
    return [conv, nn.BatchNorm1d(outputs), nn.ReLU()]


def waveform(name: str, classes: int = 10) -> nn.Module:
    """Dai et al. 2016, columns M5 and M11 of table 1, for the 10 classes of UrbanSound8k.

    The padding, which the paper does not print, is the one that divides a length by the strides alone.
    """
    (channels, _), *groups = WAVES[name]
    layers = [*wave_unit(1, channels, 80, 4, 38), nn.MaxPool1d(4)]
    for index, (outputs, count) in enumerate(groups):
        for _ in range(count):
            layers += wave_unit(channels, outputs, 3, 1, 1)
            channels = outputs
        if name == "m5" or index + 1 < len(groups):
            layers.append(nn.MaxPool1d(4))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, classes))


class Causal(nn.Module):
    """A window of 2 that reads the present and one value of the past."""

    def __init__(self, channels: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, outputs, 2, dilation=dilation)
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.dilation, 0)))


class Gated(nn.Module):
    """Van den Oord et al. 2016, figure 4: tanh times sigmoid, then a 1x1 to the next layer and a 1x1 to the output."""

    def __init__(self, channels: int, dilation: int, last: bool) -> None:
        super().__init__()
        self.filter, self.gate = Causal(channels, channels, dilation), Causal(channels, channels, dilation)
        self.residual = None if last else nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))
        return x if self.residual is None else x + self.residual(y), self.skip(y)


class WaveNetStack(nn.Module):
    """Van den Oord et al. 2016: one stack of dilations 1 to 512 and the scores of 256 levels for every moment.

    The last layer has no 1x1 to a next layer, for there is none.
    """

    def __init__(self, channels: int = 32, levels: int = 256) -> None:
        super().__init__()
        self.first = Causal(1, channels)
        self.layers = nn.ModuleList(Gated(channels, 1 << index, last=index == 9) for index in range(10))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv1d(channels, channels, 1), nn.ReLU(), nn.Conv1d(channels, levels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for layer in self.layers:
            x, skip = layer(x)
            skips.append(skip)
        return self.head(torch.stack(skips).sum(0))


def c3d(classes: int = 487) -> nn.Module:
    """Tran et al. 2015, figure 3, for Sports-1M; the last pooling rounds up as Caffe's do, to 512x1x4x4."""
    layers: list[nn.Module] = []
    channels = 3
    for count, outputs in ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)):
        for _ in range(count):
            layers += [nn.Conv3d(channels, outputs, 3, padding=1), nn.ReLU()]
            channels = outputs
        layers.append(nn.MaxPool3d((1, 2, 2) if outputs == 64 else 2, ceil_mode=True))
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(8192, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, classes),
    )  # fmt: skip


NETWORKS: dict[str, Network] = {
    "m5": (partial(waveform, "m5"), (1, 8000)),
    "m11": (partial(waveform, "m11"), (1, 32000)),
    "wavenet": (WaveNetStack, (1, 16000)),
    "c3d": (c3d, (3, 16, 112, 112)),
}
