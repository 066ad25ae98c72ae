"""Writes the table of measurements that plans are estimated by: races of all algorithms on a list of problems.

    python tools/make_plan_table.py [--seconds 400] [--out src/striate/computing/table.json]

One thread; the problems are published layers and smaller and larger kin of theirs, each in every direction and in both
memory layouts. What does not fit into the time is left out, in an order that spares every kind of problem something.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from striate import estimates, files, machine
from striate.computing import ALGORITHMS, DIRECTIONS, LAYOUTS, Problem
from striate.geometry import Geometry
from striate.planning import automatic, barred
from striate.races import seconds

# batch, input channels, output channels, size per axis, axes, kernel, stride, dilation, groups
DENSE = [
    *((8, c, c, size, 2, 3, 1, 1, 1) for c, size in ((16, 56), (64, 56), (128, 28), (256, 14), (512, 7))),
    *((8, c, c, size, 2, 3, 2, 1, 1) for c, size in ((64, 56), (256, 14))),
    *((8, c, 2 * c, size, 2, 1, 1, 1, 1) for c, size in ((64, 56), (256, 14))),
    *((4, c, c, 28, 2, 3, 1, 2, 1) for c in (64, 256)),
    (8, 3, 64, 224, 2, 7, 2, 1, 1), (8, 3, 32, 160, 2, 3, 2, 1, 1), (64, 1, 6, 28, 2, 5, 1, 1, 1),
    (64, 6, 16, 14, 2, 5, 1, 1, 1), (1, 64, 64, 56, 2, 3, 1, 1, 1), (1, 16, 16, 16, 2, 3, 1, 1, 1),
    (2, 3, 16, 112, 2, 31, 1, 1, 1), (2, 16, 16, 56, 2, 15, 1, 1, 1), (4, 32, 32, 56, 2, 7, 1, 1, 1),
    (16, 64, 64, 512, 1, 3, 1, 1, 1), (16, 64, 64, 512, 1, 15, 1, 1, 1), (8, 1, 64, 4096, 1, 63, 4, 1, 1),
    (8, 128, 128, 1024, 1, 3, 1, 8, 1),
    (2, 16, 32, 24, 3, 3, 1, 1, 1), (1, 3, 32, 32, 3, 7, 2, 1, 1), (2, 64, 64, 12, 3, 3, 1, 1, 1),
]  # fmt: skip
GROUPED = [
    *((8, 32 * n, 32 * n, size, 2, 3, 1, 1, 32) for n, size in ((4, 56), (8, 28), (16, 14))),
    (8, 128, 128, 56, 2, 3, 2, 1, 32), (8, 64, 64, 28, 2, 3, 1, 1, 8), (8, 128, 128, 28, 2, 1, 1, 1, 4),
    (4, 96, 96, 28, 2, 3, 1, 1, 3), (4, 64, 64, 28, 2, 7, 1, 1, 16), (8, 64, 64, 1024, 1, 5, 1, 1, 16),
    (2, 32, 32, 16, 3, 3, 1, 1, 8), (1, 64, 64, 16, 2, 3, 1, 1, 16),
]  # fmt: skip
DEPTHWISE = [
    *((8, c, c, size, 2, 3, 1, 1, c) for c, size in ((32, 112), (144, 28), (384, 14), (960, 7))),
    *((8, c, c, size, 2, 3, 2, 1, c) for c, size in ((96, 56), (192, 28))),
    *((8, c, c, size, 2, 5, 1, 1, c) for c, size in ((72, 28), (480, 14))),
    *((8, c, c, size, 2, 7, 1, 1, c) for c, size in ((96, 56), (384, 14))),
    *((2, c, c, size, 2, k, 1, 1, c) for c, size, k in ((64, 56, 13), (128, 28, 21), (128, 56, 31), (64, 28, 51))),
    (4, 64, 64, 28, 2, 3, 1, 4, 64), (1, 32, 32, 16, 2, 3, 1, 1, 32), (1, 96, 96, 56, 2, 7, 1, 1, 96),
    (16, 256, 256, 512, 1, 31, 1, 1, 256), (8, 128, 128, 1000, 1, 9, 1, 1, 128), (8, 64, 64, 2048, 1, 3, 1, 1, 64),
    (8, 256, 256, 400, 1, 17, 1, 1, 256), (4, 512, 512, 400, 1, 63, 1, 1, 512),
    (4, 64, 64, 16, 3, 3, 1, 1, 64), (2, 32, 32, 16, 3, 5, 1, 1, 32), (2, 48, 48, 16, 3, 7, 1, 1, 48),
]  # fmt: skip
UNSHARED = [(8, 16, 16, 16, 2, 3, 1, 1, 1), (16, 3, 16, 28, 2, 5, 1, 1, 1), (8, 16, 16, 128, 1, 5, 1, 1, 1)]
POOLS = [
    *((8, c, c, size, 2, k, s, 1, 1)
      for c, size, k, s in ((64, 56, 2, 2), (64, 112, 3, 2), (64, 28, 5, 1), (32, 56, 13, 1), (16, 112, 31, 1))),
    (8, 64, 64, 1024, 1, 3, 2, 1, 1), (8, 64, 64, 1024, 1, 31, 1, 1, 1), (2, 32, 32, 24, 3, 3, 2, 1, 1),
    (2, 16, 16, 24, 3, 7, 1, 1, 1), (64, 6, 6, 24, 2, 2, 2, 1, 1),
]  # fmt: skip


def problem(numbers: tuple[int, ...], operation: str = "convolution", **more: Any) -> Problem:
    batch, channels, outputs, size, axes, kernel, stride, dilation, groups = numbers
    sizes = (size,) * axes
    pad = dilation * (kernel - 1) // 2
    period = more.pop("period", 1)
    window = Geometry.window(axes, kernel, stride=stride, padding=pad, dilation=dilation, groups=groups, size=sizes)
    if period == "local":
        period = window.output_size(sizes)
    if period != 1:
        window = Geometry.window(axes, kernel, stride=stride, padding=pad, dilation=dilation, period=period, size=sizes)
    return Problem(operation, window, batch, channels, outputs, sizes, **more)


def problems() -> Iterator[Problem]:
    """All of them, forward and float32."""
    for numbers in (*DENSE, *GROUPED, *DEPTHWISE):
        yield problem(numbers)
    for numbers in UNSHARED:
        yield problem(numbers, period="local")
        yield problem(numbers, period=2)
    for numbers in (DENSE[1], DENSE[13], GROUPED[1], DEPTHWISE[1], DEPTHWISE[12], DEPTHWISE[17]):
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            small = (max(1, numbers[0] // 4), *numbers[1:])
            yield problem(small, dtype=dtype)
    for numbers in POOLS:
        for operation in ("maximum", "switches", "sum"):
            yield problem(numbers, operation)


def turned(one: Problem) -> Iterator[Problem]:
    """In every direction and memory layout."""
    directions = {"convolution": DIRECTIONS, "maximum": DIRECTIONS[:1]}.get(one.operation, DIRECTIONS[:2])
    for direction in directions:
        for layout in LAYOUTS if len(one.size) > 1 or one.operation == "convolution" else LAYOUTS[:1]:
            yield replace(one, direction=direction, layout=layout)


def contenders(one: Problem) -> list[str]:
    names = [name for name, found in ALGORITHMS[one.operation].items() if found.refuses(one) is None]
    names = [name for name in automatic(one, names) if name != "reference" and barred(one, name) is None]
    return sorted(names, key=lambda name: name != "vendor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=400.0, help="time for all races")
    parser.add_argument("--out", type=Path, default=estimates.TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    limits = machine.calibrate()
    asked = [each for one in problems() for each in turned(one)]
    random.Random(0).shuffle(asked)
    asked.sort(key=lambda each: each.dtype == torch.float32)  # few races stand for all sizes of the other types
    end, rows = time.perf_counter() + options.seconds, []
    for number, each in enumerate(asked, start=1):
        left = end - time.perf_counter()
        if left <= 0:
            print(f"{len(asked) - number + 1} of {len(asked)} problems did not fit into the time")
            break
        names = contenders(each)
        found = seconds(each, names, min(2.0, 2 * left / (len(asked) - number + 1)))
        rows.append(estimates.row(each, found, limits))
        best = min(found, key=lambda name: found[name])
        print(f"{number}/{len(asked)} {estimates.kind(each)} {best} {found.get('vendor', 0) / found[best]:.2f}x")
    halves = {"halves": machine.halves(), "name": machine.name(), "versions": machine.versions()}
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: (row["kind"], row["place"])))
    text = f'{{"machine": {json.dumps(halves)},\n"races": [\n{lines}\n]}}\n'
    files.write(options.out, text.encode())
    print(f"{options.out}: {len(rows)} races")


if __name__ == "__main__":
    main()
