"""Whole training steps of small networks: ``striate.accelerate`` beside PyTorch's two layouts.

The networks are re-implementations of published ones with torch.nn's layers only. Every contender starts from the same
parameters, sees the same batch and takes whole steps (forward, backward, optimiser), in one process, step by step in
turn. A ratio is the median of the ratios within a round.

    python benchmarks/accelerate.py --rounds 9 --threads 1 --only resnet --json result.json
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import striate
from striate.benchmark.machine import describe, quiet

CLASSES = 10
Step = Callable[[], object]


@dataclass(frozen=True)
class Entry:
    """A network, the shape of its batch, and how it is usually trained."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    optimizer: Callable[[Any], torch.optim.Optimizer]


class Residual(nn.Module):
    """``x + inner(x)``, or ``shortcut(x) + inner(x)``, with an activation behind it."""

    def __init__(self, inner: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.shortcut = shortcut or nn.Identity()
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.shortcut(x) + self.inner(x))


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position, as ConvNeXt's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def normalized(
    c: int, o: int, kernel: int, *, stride: int = 1, groups: int = 1, after: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch normalisation and an activation."""
    convolution = nn.Conv2d(c, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(o), *([after()] if after else []))


def classifier(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def shortcut(c: int, o: int, stride: int) -> nn.Module | None:
    return None if (c, stride) == (o, 1) else normalized(c, o, 1, stride=stride, after=None)


def resnet() -> nn.Module:
    """ResNet-18."""
    layers: list[nn.Module] = [normalized(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for o, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            inner = nn.Sequential(normalized(c, o, 3, stride=stride), normalized(o, o, 3, after=None))
            layers.append(Residual(inner, shortcut(c, o, stride), nn.ReLU()))
            c = o
    return nn.Sequential(*layers, *classifier(c))


def resnext() -> nn.Module:
    """Bottlenecks of 32 groups, one or two to a stage."""
    layers: list[nn.Module] = [normalized(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for middle, first, blocks in ((128, 1, 2), (256, 2, 2), (512, 2, 1)):
        for stride in (first, *[1] * (blocks - 1)):
            inner = nn.Sequential(
                normalized(c, middle, 1),
                normalized(middle, middle, 3, stride=stride, groups=32),
                normalized(middle, 2 * middle, 1, after=None),
            )
            layers.append(Residual(inner, shortcut(c, 2 * middle, stride), nn.ReLU()))
            c = 2 * middle
    return nn.Sequential(*layers, *classifier(c))


def mobilenet() -> nn.Module:
    """Inverted residuals of MobileNet v2."""
    layers: list[nn.Module] = [normalized(3, 32, 3, stride=2, after=nn.ReLU6)]
    c = 32
    for expansion, o, blocks, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 3, 2), (6, 96, 2, 1)):
        for stride in (first, *[1] * (blocks - 1)):
            wide = c * expansion
            inner = nn.Sequential(
                *([normalized(c, wide, 1, after=nn.ReLU6)] if expansion > 1 else []),
                normalized(wide, wide, 3, stride=stride, groups=wide, after=nn.ReLU6),
                normalized(wide, o, 1, after=None),
            )
            layers.append(Residual(inner) if (stride, c) == (1, o) else inner)
            c = o
    return nn.Sequential(*layers, normalized(c, 320, 1, after=nn.ReLU6), *classifier(320))


def convnext() -> nn.Module:
    """Two stages of ConvNeXt blocks with 48 and 96 channels."""

    def block(c: int) -> nn.Module:
        wide = nn.Sequential(nn.Conv2d(c, 4 * c, 1), nn.GELU(), nn.Conv2d(4 * c, c, 1))
        return Residual(nn.Sequential(nn.Conv2d(c, c, 7, padding=3, groups=c), ChannelNorm(c), wide))

    stem = [nn.Conv2d(3, 48, 4, 4), ChannelNorm(48)]
    between = [ChannelNorm(48), nn.Conv2d(48, 96, 2, 2)]
    return nn.Sequential(*stem, block(48), block(48), *between, block(96), block(96), *classifier(96))


def replknet() -> nn.Module:
    """Depthwise 31x31 between 1x1, at a stride of 4."""

    def block(c: int) -> nn.Module:
        large = nn.Sequential(normalized(c, c, 1), normalized(c, c, 31, groups=c), normalized(c, c, 1, after=None))
        wide = nn.Sequential(normalized(c, 4 * c, 1, after=nn.GELU), normalized(4 * c, c, 1, after=None))
        return nn.Sequential(Residual(large), Residual(wide))

    stem = [
        normalized(3, 64, 3, stride=2),
        normalized(64, 64, 3, groups=64),
        normalized(64, 64, 3, stride=2, groups=64),
    ]
    return nn.Sequential(*stem, block(64), block(64), *classifier(64))


def speech() -> nn.Module:
    """Depthwise 31 along time between 1x1, as in Conformer's convolution module and QuartzNet."""

    def block(c: int) -> nn.Module:
        depthwise = nn.Conv1d(c, c, 31, padding=15, groups=c, bias=False)
        return Residual(nn.Sequential(depthwise, nn.Conv1d(c, c, 1, bias=False), nn.BatchNorm1d(c), nn.ReLU()))

    stem = nn.Sequential(nn.Conv1d(80, 256, 3, 2, 1, bias=False), nn.BatchNorm1d(256), nn.ReLU())
    head: list[nn.Module] = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, CLASSES)]
    return nn.Sequential(stem, *(block(256) for _ in range(4)), *head)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-4)


NETWORKS = {
    "replknet-like": Entry(replknet, (2, 3, 160, 160), adamw),
    "speech-depthwise": Entry(speech, (4, 80, 1000), adamw),
    "convnext-like": Entry(convnext, (4, 3, 224, 224), adamw),
    "resnext-like": Entry(resnext, (4, 3, 160, 160), sgd),
    "mobilenet2-like": Entry(mobilenet, (4, 3, 160, 160), sgd),
    "resnet18": Entry(resnet, (4, 3, 160, 160), sgd),
}


def training_step(model: nn.Module, x: Tensor, entry: Entry) -> Step:
    """Forward, backward and the optimiser's step, as a loop over batches has them."""
    optimizer = entry.optimizer(model.parameters())
    labels = torch.arange(x.shape[0]) % CLASSES

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def contenders(entry: Entry, *, accelerated: bool = True) -> tuple[dict[str, Step], str]:
    """The steps by name, and what ``accelerate`` reports."""
    torch.manual_seed(0)
    network, x = entry.build().train(), torch.randn(entry.shape)
    found = {"torch NCHW": training_step(copy.deepcopy(network), x, entry)}
    if x.dim() == 4:
        last: Any = copy.deepcopy(network)
        last = last.to(memory_format=torch.channels_last)
        found["torch channels-last"] = training_step(last, x.to(memory_format=torch.channels_last), entry)
    if not accelerated:
        return found, ""
    model, report = striate.accelerate(copy.deepcopy(network), x)
    found["striate"] = training_step(model, x, entry)
    return found, str(report)


def measure(entry: Entry, rounds: int, *, accelerated: bool = True) -> dict[str, Any]:
    """Least seconds of each contender, and how many times faster ``accelerate`` is than the others."""
    steps, report = contenders(entry, accelerated=accelerated)
    times: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    for number in range(rounds + 2):  # two of them to warm up
        for name in list(steps) if number % 2 else list(steps)[::-1]:
            began = time.perf_counter()
            steps[name]()
            if number > 1:
                times[name].append(time.perf_counter() - began)
    least = {name: min(seconds) for name, seconds in times.items()}
    found: dict[str, Any] = {"seconds": least, "report": report}
    if accelerated:
        best = min((name for name in times if name != "striate"), key=least.__getitem__)
        for key, other in (("ratio", best), ("ratio_default", "torch NCHW")):
            found[key] = statistics.median(a / b for a, b in zip(times[other], times["striate"], strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="", help="networks whose name this pattern finds")
    parser.add_argument("--plain", action="store_true", help="only PyTorch's two layouts")
    parser.add_argument("--reports", action="store_true", help="print what accelerate reports, layer by layer")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()
    runs = []
    for threads in dict.fromkeys(arguments.threads):
        print(f"{threads} thread{'s' if threads > 1 else ''}, milliseconds a step")
        rows: dict[str, Any] = {}
        for name, entry in NETWORKS.items():
            if not re.search(arguments.only, name):
                continue
            with quiet(threads):
                found = rows[name] = measure(entry, arguments.rounds, accelerated=not arguments.plain)
            words = "   ".join(f"{who} {1000 * seconds:.0f}" for who, seconds in found["seconds"].items())
            ratios = (
                f"   {found['ratio']:.2f}x the best, {found['ratio_default']:.2f}x NCHW" if "ratio" in found else ""
            )
            print(f"  {name:18} {words}{ratios}", flush=True)
            if arguments.reports:
                print(found["report"])
        runs.append({"machine": describe(threads), "networks": rows})
    if arguments.json:
        arguments.json.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
