"""Augmentation of whole batches: Striate's steps and recipes beside kornia's, from bytes to normalised float32.

Both sides are given the same uint8 batch, make float32 of it once, and normalise it (not for single steps, where
dividing by 255 is all that is done). kornia does so in the order of its documentation, with another choice for each
example (same_on_batch=False); of its ways (cutting by slices or by resampling, channels-last or contiguous) the
fastest counts. It cannot mix labels that are mixed already, so where it mixes twice it is given the labels twice. The
two take turns within a round; the ratio is the median of the ratios within the rounds.

    python benchmarks/augmentation.py --rounds 7 --json result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from kornia import augmentation as kornia
from torch import Tensor, nn

from striate.augmentation import Augmentation, parse, recipe
from striate.draws import Chance

SHAPES = ((128, 3, 32, 32), (64, 3, 224, 224), (256, 1, 28, 28))
CLASSES = 10
MEAN, DEVIATION = 0.45, 0.25
Way = Callable[[], object]


def to_unit(x: Tensor) -> Tensor:
    """Bytes as 0 to 1."""
    return x.float().div_(255)


def normalised(x: Tensor) -> Tensor:
    """Bytes as normalised values."""
    return to_unit(x).sub_(MEAN).div_(DEVIATION)


def ours(augmentation: Augmentation, x: Tensor, labels: Tensor, finish: Callable[[Tensor], Tensor]) -> Way:
    indices = torch.arange(len(x))
    augmentation = Augmentation(augmentation.steps, CLASSES)
    return lambda: augmentation(x, labels, Chance(0, 0, indices), finish)


class Mixing(nn.Module):
    """kornia's mixing gives labels and weights; probabilities are made of them, as a loss needs them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, found = self.module(x, labels)
        first, second, part = found[0].T if found.dim() == 3 else found.T
        weight = part.unsqueeze(1)
        one, other = (nn.functional.one_hot(kind.long(), CLASSES).float() for kind in (first, second))
        return mixed, one + weight * (other - one)


def theirs(
    before: list[nn.Module], after: list[nn.Module], x: Tensor, labels: Tensor, *, last: bool, normalise: bool
) -> Way:
    layout = torch.channels_last if last else torch.contiguous_format

    def run() -> object:
        y, targets = to_unit(x).to(memory_format=layout), labels
        for module in before:
            y = module(y)
        if normalise:
            y = y.sub(MEAN).div_(DEVIATION)
        for module in after:
            y, targets = module(y, labels) if isinstance(module, Mixing) else (module(y), targets)
        return y, targets

    return run


def contests(shape: tuple[int, ...]) -> dict[str, tuple[Augmentation, list[tuple[list[nn.Module], list[nn.Module]]]]]:
    """Name -> Striate's augmentation, and kornia's ways: modules before the normalisation and after it."""
    _, channels, height, width = shape
    size, reach, hole = (height, width), round(height / 8), round(height / 4)
    ways = ("slice", "resample")
    shifts: list[nn.Module] = [
        kornia.RandomCrop(size, padding=reach, padding_mode="reflect", cropping_mode=way, p=1.0) for way in ways
    ]
    shifts.append(kornia.RandomTranslate((-1 / 8, 1 / 8), (-1 / 8, 1 / 8), p=1.0))
    crops = [kornia.RandomResizedCrop(size, (0.5, 1.0), (3 / 4, 4 / 3), cropping_mode=way, p=1.0) for way in ways]
    flip = kornia.RandomHorizontalFlip(p=0.5)
    colours = [
        kind(0.2, 0.2, 0.2 if channels == 3 else 0.0, 0.0, p=1.0) for kind in (kornia.ColorJitter, kornia.ColorJiggle)
    ]
    part = (hole / height) ** 2
    cutout = kornia.RandomErasing((part, part), (1.0, 1.0), p=1.0)
    mixup, cutmix = (
        Mixing(kind(p=1.0, data_keys=["input", "class"])) for kind in (kornia.RandomMixUpV2, kornia.RandomCutMixV2)
    )
    half_mixup, half_cutmix = (
        Mixing(kind(p=0.5, data_keys=["input", "class"])) for kind in (kornia.RandomMixUpV2, kornia.RandomCutMixV2)
    )
    recipes = {name: recipe(name, "picture", "classes", shape[1:], CLASSES) for name in ("light", "standard", "strong")}
    return {
        "shift": (parse(f"shift {reach}"), [([one], []) for one in shifts]),
        "flip": (parse("flip"), [([flip], [])]),
        "shift, flip": (parse(f"shift {reach}, flip"), [([one, flip], []) for one in shifts]),
        "crop": (parse("crop"), [([one], []) for one in crops]),
        "colour": (parse("colour"), [([one], []) for one in colours]),
        "cutout": (parse(f"cutout {hole}"), [([], [cutout])]),
        "mixup": (parse("mixup 1"), [([], [mixup])]),
        "cutmix": (parse("cutmix 1"), [([], [cutmix])]),
        "light": (recipes["light"], [([one], []) for one in shifts]),
        "standard": (recipes["standard"], [([one, flip], [cutout]) for one in shifts]),
        "strong": (
            recipes["strong"],
            [([one, flip, colour], [cutout, half_mixup, half_cutmix]) for one in crops for colour in colours],
        ),
    }


def seconds(way: Way) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def measure(shape: tuple[int, ...], rounds: int, only: str | None) -> list[dict[str, object]]:
    """One row for each contest of this shape."""
    torch.manual_seed(0)
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, shape[:1])
    rows: list[dict[str, object]] = []
    for name, (augmentation, modules) in contests(shape).items():
        if only and name != only:
            continue
        whole = name in ("light", "standard", "strong")
        mine = ours(augmentation, x, labels, normalised if whole else to_unit)
        others = [theirs(*lists, x, labels, last=last, normalise=whole) for lists in modules for last in (False, True)]
        best = min(others, key=lambda way: min(seconds(way) for _ in range(2)))
        seconds(mine)
        pairs = [(seconds(mine), seconds(best)) for _ in range(rounds)]
        rows.append(
            {
                "batch": "x".join(map(str, shape)),
                "what": name,
                "striate_ms": round(1e3 * statistics.median(pair[0] for pair in pairs), 3),
                "kornia_ms": round(1e3 * statistics.median(pair[1] for pair in pairs), 3),
                "striate_is_faster_by": round(statistics.median(theirs / ours for ours, theirs in pairs), 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="the name of one contest")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [row for shape in SHAPES for row in measure(shape, arguments.rounds, arguments.only)]
    print(f"{'batch':<14} {'what':<12} {'striate ms':>10} {'kornia ms':>10}  kornia / striate")
    for row in rows:
        print(
            f"{row['batch']:<14} {row['what']:<12} {row['striate_ms']:>10.2f} {row['kornia_ms']:>10.2f}"
            f"  {row['striate_is_faster_by']:.2f}"
        )
    slower = [f"{row['what']} at {row['batch']}" for row in rows if float(str(row["striate_is_faster_by"])) < 1]
    print(f"slower than kornia: {', '.join(slower) or 'none'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
