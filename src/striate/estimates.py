"""Seconds that an algorithm will take, from those that it took at problems like it: the shipped table of measurements.

The table holds races. Of each it keeps what kind of problem it was, its size as base-2 logarithms, and for every
algorithm the share of the machine's ceilings that it reached:

    share = least time for the algorithm's own work and the operands' bytes / time taken

An estimate is the least time on this machine over the share, a mean over the nearest races of the same kind. Where none
is near there is no estimate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp, log, log2, prod
from pathlib import Path
from typing import Any

import torch

from . import machine
from .computing import LAYOUTS, Problem, find

TABLE = Path(__file__).parent / "computing" / "table.json"
NEIGHBOURS = 3
RADIUS = 4.0  # weighted doublings
BEHIND = 1.25  # times the vendor's seconds in a race near by: who was so slow is not taken unmeasured
HOPELESS = 100.0  # who did not race at all
WEIGHTS = (1.0, 1.0, 0.5, 1.0, 0.7, 0.5, 2.0, 2.0, 1.5)

Kind = tuple[str, ...]
Place = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Race:
    """One row of the table.

    Args:
        kind: See :func:`kind`.
        place: See :func:`place`.
        shares: Of the ceilings, by algorithm.
        relative: Seconds over those of the vendor, by algorithm; empty where the vendor cannot serve.
    """

    kind: Kind
    place: Place
    shares: Mapping[str, float]
    relative: Mapping[str, float]


def kind(problem: Problem) -> Kind:
    """What must be the same in a race that stands for a problem: all that is no size."""
    dtype = str(problem.dtype).removeprefix("torch.")
    axes = str(len(problem.size))
    return problem.operation, problem.direction, sharing(problem), axes, dtype, problem.device, problem.layout


def sharing(problem: Problem) -> str:
    """How weights are shared among channels and positions."""
    geometry = problem.geometry
    if problem.operation != "convolution":
        return "window"
    if prod(geometry.period) > 1:
        return "local" if geometry.period == problem.output_size else "tiled"
    if geometry.groups == 1:
        return "dense"
    return "depthwise" if geometry.groups == problem.in_channels else "grouped"


def place(problem: Problem) -> Place:
    """Sizes as logarithms: two channel counts, groups, taps, positions, examples, steps, holes and longest axis."""
    geometry = problem.geometry
    pooling = problem.operation != "convolution"
    groups = 1 if pooling else max(1, geometry.groups)
    planes = problem.in_channels if pooling else groups
    kernel, outputs = geometry.kernel, problem.output_size
    sizes = (
        1 if pooling else problem.in_channels // groups,
        1 if pooling else problem.out_channels // groups,
        planes,
        prod(kernel),
        prod(outputs),
        problem.batch,
        prod(axis.stride for axis in geometry.axes),
        max(axis.dilation for axis in geometry.axes),
        max(kernel) / min(kernel),
    )
    return tuple(log2(max(1, n)) for n in sizes)


def least(problem: Problem, work: int, limits: machine.Ceilings) -> float:
    """The least seconds for so much work: arithmetic or the operands' bytes, whichever binds."""
    return limits.limit(problem.dtype, work, operand_bytes(problem))[0]


def operand_bytes(problem: Problem) -> int:
    """Bytes of input, weights and output."""
    maps = problem.batch * problem.in_channels * prod(problem.size)
    pooling = problem.operation != "convolution"
    outputs = problem.in_channels if pooling else problem.out_channels
    results = problem.batch * outputs * prod(problem.output_size)
    weights = 0 if pooling else prod(problem.geometry.weight_shape(problem.in_channels, problem.out_channels))
    return problem.dtype.itemsize * (maps + results + weights)


class Table:
    """Races of many problems, looked up by likeness.

    Args:
        races: The rows.
        halves: The 16-bit arithmetic of the machine that they ran on; on another, those of 16-bit types say nothing.
    """

    def __init__(self, races: Sequence[Race] = (), halves: str | None = None) -> None:
        self.races: dict[Kind, list[Race]] = {}
        for race in races:
            if halves == machine.halves() or not {"float16", "bfloat16"} & set(race.kind):
                self.races.setdefault(race.kind, []).append(race)

    def near(self, problem: Problem) -> list[tuple[float, Race]]:
        """The nearest races and their distances in weighted doublings, nearest first.

        In 16 bits the arithmetic that a processor lacks decides, not the size, and where the vendor does not serve
        there is no one to fall back on: the nearest is near enough.
        """
        races = self.races.get(kind(problem), [])
        here = place(problem)
        half = problem.dtype in (torch.float16, torch.bfloat16)
        if half and not races:
            other = replace(problem, layout=next(name for name in LAYOUTS if name != problem.layout))
            races = self.races.get(kind(other), [])
        found = sorted(((_distance(here, race.place), race) for race in races), key=lambda pair: pair[0])
        return [pair for pair in found[:NEIGHBOURS] if pair[0] <= RADIUS or half or not pair[1].relative]

    def seconds(self, problem: Problem, name: str, limits: machine.Ceilings) -> float | None:
        """The estimate, or None where nothing near is known of the algorithm."""
        known = [(1 / (0.1 + d), race.shares[name]) for d, race in self.near(problem) if name in race.shares]
        work = find(problem.operation, name).estimate(problem)
        if not known or work is None:
            return None
        mean = exp(sum(weight * log(share) for weight, share in known) / sum(weight for weight, _ in known))
        return least(problem, work, limits) / mean

    def promising(self, problem: Problem) -> list[str]:
        """Who was faster than the vendor in the nearest race and on average of those near by, and never far behind.

        Also who raced where the vendor cannot. The vendor's time falls off cliffs, so that of two neighbours one may
        show a tenfold gain and the other a draw: the one that is left out is then worth more than the few percent.
        """
        near = self.near(problem)
        nearest = near[0][1].shares if near else ()
        return [name for name in nearest if _gains(name, near)]


def _gains(name: str, near: Sequence[tuple[float, Race]]) -> bool:
    ratios = [(1 / (0.1 + d), race.relative.get(name, HOPELESS)) for d, race in near if race.relative]
    if not ratios:
        return True
    mean = sum(weight * log(ratio) for weight, ratio in ratios) / sum(weight for weight, _ in ratios)
    return mean < 0 and ratios[0][1] < 1 and max(ratio for _, ratio in ratios) < BEHIND


def _distance(a: Place, b: Place) -> float:
    return sum(weight * abs(x - y) for weight, x, y in zip(WEIGHTS, a, b, strict=True))


def row(problem: Problem, seconds: Mapping[str, float], limits: machine.Ceilings) -> dict[str, Any]:
    """A race as it stands in the table's file."""
    works = {name: find(problem.operation, name).estimate(problem) for name in seconds}
    shares = {
        name: float(f"{least(problem, work, limits) / seconds[name]:.3g}")
        for name, work in works.items()
        if work is not None
    }
    vendor = seconds.get("vendor")
    relative = {} if vendor is None else {name: float(f"{n / vendor:.3g}") for name, n in seconds.items()}
    return {
        "kind": kind(problem),
        "place": [round(n, 2) for n in place(problem)],
        "shares": shares,
        "relative": relative,
    }


def read(path: Path) -> Table:
    """A table from its file."""
    written = json.loads(path.read_text(encoding="utf-8"))
    races = [Race(tuple(r["kind"]), tuple(r["place"]), r["shares"], r["relative"]) for r in written["races"]]
    return Table(races, written["machine"]["halves"])


@lru_cache(maxsize=1)
def shipped() -> Table:
    """The table that comes with the package."""
    return read(TABLE)
