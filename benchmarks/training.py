"""Images per second of training: Striate's trainer beside plain PyTorch loops and the usual input pipeline.

Every contender of a case sees the same examples, batch size and number of steps, in one process, in turn, so that a
machine whose speed drifts is unfair to nobody. The figure is each contender's least time of the rounds; the ratio is
the median of the ratios within a round.

    lenet       LeNet-5, 28x28, data in memory
    mobilenet   MobileNet v1, 3x64x64, data in memory; also in bfloat16 where the processor multiplies it faster
    small       LeNet-5 on PNG files of 28x28: Dataset, DataLoader and Pillow, against the same files loaded by Striate
    photos      LeNet-5 on JPEG files of 320x240, scaled to 32x32 and mirrored at random, likewise

Files that fit into memory are read once by Striate, before the first epoch, which is not charged; a loader of PyTorch
reads them in every epoch.

    python benchmarks/training.py --rounds 9 --threads 1 2 --json result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from striate import datasets, images, zoo
from striate.augmentation import recipe
from striate.datasets import Normalisation, Split
from striate.networks import Network
from striate.options import Options
from striate.training import Trainer, precision

BATCH = 128
CASES = ("lenet", "mobilenet", "small", "photos")
Epoch = Callable[[], int]  # trains, and says on how many examples


def plain_lenet() -> nn.Module:
    """LeNet-5 of torch.nn's own layers."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def plain_mobilenet() -> nn.Module:
    """MobileNet v1 of torch.nn's own layers."""

    def unit(channels: int, filters: int, stride: int = 1) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True), nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters),
            nn.ReLU(inplace=True),
        ]  # fmt: skip

    widths = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    widths += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
    first = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    body = [layer for width in widths for layer in unit(*width)]
    return nn.Sequential(*first, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 10))


def plain(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    batch: int,
    *,
    fused: bool | None = None,
    channels_last: bool = False,
    compiled: bool = False,
    half: bool = False,
) -> Epoch:
    """The loop of every tutorial, over tensors that are normalised beforehand."""
    if channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fused)
    model: Any = torch.compile(network) if compiled else network

    def epoch() -> int:
        for chosen in torch.randperm(len(x)).split(batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                scores = model(x[chosen])
            loss = F.cross_entropy(scores.float(), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(x)

    return epoch


def striate(name: str, train: Split, batch: int, augment: str = "none", **given: Any) -> Epoch:
    """An epoch of Striate's trainer; one picture is judged at its end, which is charged."""
    data = datasets.Dataset("data", tuple("0123456789"), train, Split(*train.take([0])))
    options = Options(batch_size=batch, schedule="constant", learning_rate=1e-3, epochs=10**6, **given)
    paper = zoo.architecture(name).adapted(data.shape, 10)
    steps = recipe(augment, "picture", "classes", data.shape, 10)
    trainer = Trainer(Network(paper), data, Normalisation.of(train), options, [], augmentation=steps)

    def epoch() -> int:
        trainer.epoch(lambda done, total, what: None)
        return len(train)

    return epoch


def in_memory(build: Callable[[], nn.Module], name: str, train: Split, batch: int, compiled: bool) -> dict[str, Epoch]:
    """Contenders on the same tensors, at the same precision."""
    x, y = Normalisation.of(train)(train.inputs), train.targets
    torch.manual_seed(0)
    found = {
        "striate": striate(name, train, batch, precision="float32"),
        "torch, plain": plain(build(), x, y, batch),
        "torch, fused optimiser": plain(build(), x, y, batch, fused=True),
        "torch, fused, channels-last": plain(build(), x, y, batch, fused=True, channels_last=True),
    }
    if compiled:
        found["torch, fused, compiled"] = plain(build(), x, y, batch, fused=True, compiled=True)
    if precision(Options(), torch.device("cpu")) == "bfloat16":
        found["striate, precision auto"] = striate(name, train, batch)
        found["torch, bfloat16, channels-last"] = plain(build(), x, y, batch, fused=True, channels_last=True, half=True)
    return found


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """Picture files, opened one by one, as a data set of PyTorch is usually written."""

    def __init__(self, folder: Path, photos: bool) -> None:
        classes = sorted(path.name for path in folder.iterdir())
        self.files = [(path, classes.index(path.parent.name)) for path in sorted(folder.glob("*/*"))]
        self.photos = photos

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as picture:
            if not self.photos:
                return (torch.from_numpy(np.array(picture.convert("L")))[None].float() / 255 - 0.286) / 0.353, label
            fitted = ImageOps.fit(picture.convert("RGB"), (32, 32), Image.Resampling.BILINEAR)
            if torch.rand(()) < 0.5:
                fitted = ImageOps.mirror(fitted)
            return (torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255 - 0.5) / 0.25, label


def write(folder: Path, photos: bool) -> None:
    """Picture files in class folders: the bundled ones, or photos of smooth noise."""
    train = datasets.load("fashion-mnist-mini").train
    for number in range(2000 if photos else len(train)):
        pixels, label = train.take([number])
        place = folder / str(int(label))
        place.mkdir(exist_ok=True)
        if photos:
            noise = torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(number))
            pixels = F.interpolate(noise, (240, 320), mode="bicubic").mul(255).clamp(0, 255).byte()
        images.to_pillow(pixels[0]).save(place / f"{number:05}.{'jpg' if photos else 'png'}")


def pipeline(folder: Path, photos: bool, threads: int) -> dict[str, Epoch]:
    """LeNet-5 on files: read for every epoch by workers, or once into memory."""
    write(folder, photos)
    loaded = datasets.load(folder, stream=False, size=(32, 32) if photos else None).train
    if not isinstance(loaded, Split):
        raise SystemExit("the pictures do not fit into memory")
    network = plain_lenet()
    if photos:
        network[0], network[7] = nn.Conv2d(3, 6, 5, padding=2), nn.Linear(576, 120)  # type: ignore[operator]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    workers = threads if threads > 1 else 0
    files = Pictures(folder, photos)
    loader = DataLoader(files, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def epoch() -> int:
        for x, y in loader:
            loss = F.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(files)

    return {
        "striate": striate("lenet5", loaded, BATCH, augment="flip" if photos else "none"),
        "torch, DataLoader and Pillow": epoch,
    }


def measure(case: str, threads: int, rounds: int, compiled: bool, folder: Path) -> list[dict[str, Any]]:
    """One row for each contender: examples per second, and the ratio of Striate's speed to its."""
    torch.set_num_threads(threads)
    train = datasets.load("fashion-mnist-mini").train
    if not isinstance(train, Split):
        raise SystemExit("the bundled pictures are not in memory")
    if case == "lenet":
        entries = in_memory(plain_lenet, "lenet5", train, BATCH, compiled)
    elif case == "mobilenet":
        pixels = torch.randint(0, 256, (256, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        entries = in_memory(plain_mobilenet, "mobilenet_v1", Split(pixels, torch.arange(256) % 10), 64, compiled)
    else:
        entries = pipeline(folder, case == "photos", threads)
    times: dict[str, list[float]] = {name: [] for name in entries}
    for number in range(rounds + 1):
        for name, epoch in entries.items():
            began = time.perf_counter()
            count = epoch()
            if number:
                times[name].append((time.perf_counter() - began) / count)
    return [
        {
            "case": case,
            "threads": threads,
            "contender": name,
            "images_per_second": round(1 / min(seconds)),
            "striate_is_faster_by": round(
                statistics.median(theirs / ours for ours, theirs in zip(times["striate"], seconds, strict=True)), 3
            ),
        }
        for name, seconds in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--compiled", action="store_true", help="also torch.compile, which needs a C++ compiler")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for threads in dict.fromkeys(arguments.threads):
        for case in arguments.cases:
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(case, threads, arguments.rounds, arguments.compiled, Path(folder))
    print(f"{'case':<10}  {'threads':>7}  {'contender':<32} {'images/s':>9}  striate / it")
    for row in rows:
        speed, ratio = row["images_per_second"], row["striate_is_faster_by"]
        print(f"{row['case']:<10}  {row['threads']:>7}  {row['contender']:<32} {speed:>9,}  {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
