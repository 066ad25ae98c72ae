"""Images per second of training LeNet-5 on data in memory: Striate's loop beside plain PyTorch loops.

Every contender sees the same tensors, batches and number of steps, in one process, epoch by epoch in turn, so that a
machine whose speed drifts is unfair to nobody. The figure is each contender's median over the rounds; the ratio is the
median of the ratios within a round.

    python benchmarks/training.py --rounds 9 --threads 1 2 --json result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate import datasets, zoo
from striate.datasets import Normalisation
from striate.networks import Network
from striate.options import Options
from striate.training import Trainer

BATCH = 128
Epoch = Callable[[], object]


def plain_network() -> nn.Module:
    """LeNet-5 of torch.nn's own layers."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def plain(
    x: Tensor, y: Tensor, *, fused: bool | None = None, channels_last: bool = False, compiled: bool = False
) -> Epoch:
    """The loop of every tutorial, over tensors that are normalised beforehand."""
    torch.manual_seed(0)
    network = plain_network()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fused)
    model = torch.compile(network) if compiled else network

    def epoch() -> None:
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def contenders(data: datasets.Dataset, *, compiled: bool) -> dict[str, Epoch]:
    """Name -> a function that trains one epoch."""
    normalisation = Normalisation.of(data.train)
    inputs, y = data.train.take(range(len(data.train)))
    x = normalisation(inputs)
    options = Options(batch_size=BATCH, schedule="constant", learning_rate=1e-3, epochs=10**6)
    alone = datasets.Dataset(
        data.name, data.classes, data.train, datasets.Split(*data.test.take([0]))
    )
    trainer = Trainer(Network(zoo.architecture("lenet5")), alone, normalisation, options, [])
    found: dict[str, Epoch] = {
        "striate": lambda: trainer.epoch(lambda done, total, what: None),
        "torch, plain": plain(x, y),
        "torch, fused optimiser": plain(x, y, fused=True),
        "torch, fused, channels-last": plain(x, y, fused=True, channels_last=True),
    }
    if compiled:
        found["torch, fused, compiled"] = plain(x, y, fused=True, compiled=True)
    return found


def measure(threads: int, rounds: int, data: datasets.Dataset, *, compiled: bool) -> list[dict[str, object]]:
    """One row for each contender: images per second, and the ratio of Striate's to it."""
    torch.set_num_threads(threads)
    entries = contenders(data, compiled=compiled)
    times: dict[str, list[float]] = {name: [] for name in entries}
    for number in range(rounds + 1):
        for name, epoch in entries.items():
            began = time.perf_counter()
            epoch()
            if number:
                times[name].append(time.perf_counter() - began)
    return [
        {
            "threads": threads,
            "contender": name,
            "images_per_second": round(len(data.train) / statistics.median(seconds)),
            "striate_is_faster_by": round(
                statistics.median(theirs / ours for ours, theirs in zip(times["striate"], seconds, strict=True)), 3
            ),
        }
        for name, seconds in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--compiled", action="store_true", help="also torch.compile, which needs a C++ compiler")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    data = datasets.load("fashion-mnist-mini")
    rows = [
        row
        for threads in dict.fromkeys(arguments.threads)
        for row in measure(threads, arguments.rounds, data, compiled=arguments.compiled)
    ]
    print(f"{'threads':>7}  {'contender':<28} {'images/s':>9}  striate / it")
    for row in rows:
        name, speed, ratio = row["contender"], row["images_per_second"], row["striate_is_faster_by"]
        print(f"{row['threads']:>7}  {name:<28} {speed:>9,}  {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
