"""How the axes of a tensor are made of the axes of a feature map: split, merged, exchanged, repeated. No tensors here.

A tensor axis is a product of factors, the outermost first; each factor runs through an axis of ``(C, *spatial)`` in
steps of its stride. So a model may merge rows and columns to tokens, or deal channels into groups, and every later
reader still knows which position of which axis a value belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from .relations import Relation
from .windows import (
    Shape,
)

BATCH, REPEAT = -1, -2


@dataclass(frozen=True, slots=True)
class Factor:
    """A part of a tensor axis.

    Args:
        axis: Of the feature map: 0 for the channels, 1 and up for the spatial ones; or BATCH, or REPEAT, whose values
            are all the same.
        size: How many steps it takes.
        stride: How far one step goes.
    """

    axis: int
    size: int
    stride: int = 1


Axis = tuple[Factor, ...]
Layout = tuple[Axis, ...]


def single(axis: int, size: int, stride: int = 1) -> Axis:
    """A tensor axis that runs through one axis of the feature map; one value needs no factor."""
    return () if size == 1 else (Factor(axis, size, stride),)


def plain(shape: Shape, batch: int) -> Layout:
    """The layout ``(batch, C, *spatial)``.

    >>> plain((3, 5), 2)[2]
    (Factor(axis=1, size=5, stride=1),)
    """
    return (single(BATCH, batch), *(single(axis, n) for axis, n in enumerate(shape)))


def size_of(axis: Iterable[Factor]) -> int:
    """Entries of a tensor axis."""
    return prod(factor.size for factor in axis)


def merged(factors: Iterable[Factor]) -> Axis:
    """The same run with as few factors as possible.

    >>> merged([Factor(1, 2, 4), Factor(1, 4, 1)])
    (Factor(axis=1, size=8, stride=1),)
    """
    found: list[Factor] = []
    for factor in factors:
        last = found[-1] if found else None
        if last and last.axis == factor.axis and (
            factor.axis == REPEAT or last.stride == factor.size * factor.stride
        ):  # fmt: skip
            found[-1] = Factor(factor.axis, last.size * factor.size, factor.stride)
        elif factor.size > 1:
            found.append(factor)
    return tuple(found)


def viewed(layout: Layout, sizes: Sequence[int]) -> Layout | None:
    """The layout after a view as other sizes; None where that cuts through a factor that does not divide.

    >>> viewed(plain((6, 4), 2), (2, 2, 3, 4))[1:3]
    ((Factor(axis=0, size=2, stride=3),), (Factor(axis=0, size=3, stride=1),))
    """
    rest = [factor for axis in layout for factor in axis]
    axes: list[Axis] = []
    for size in reversed(sizes):
        taken: list[Factor] = []
        while size > 1:
            if not rest:
                return None
            factor = rest.pop()
            if size % factor.size and factor.size % size:
                return None
            if factor.size > size:
                rest.append(Factor(factor.axis, factor.size // size, factor.stride * size))
                factor = Factor(factor.axis, size, factor.stride)
            taken.append(factor)
            size //= factor.size
        axes.append(merged(reversed(taken)))
    return None if rest else tuple(reversed(axes))


@dataclass(eq=False, frozen=True, slots=True)
class Slot:
    """A factor of an output axis, and which factor of each input it follows; None: all its values read the same.

    Args:
        size: How many steps it takes.
        sources: For each input.
    """

    size: int
    sources: tuple[Factor | None, ...]

    @staticmethod
    def of(factor: Factor) -> Slot:
        """The slot that follows a factor of the only input."""
        return Slot(factor.size, (None if factor.axis == REPEAT else factor,))


def settled(axes: Sequence[Sequence[Slot]]) -> tuple[Shape, dict[Slot, Factor]]:
    """The shape of a new feature map whose axes are these slots, and which factor each slot is from now on."""
    factors: dict[Slot, Factor] = {}
    for number, slots in enumerate(axes):
        stride = 1
        for slot in reversed(slots):
            factors[slot] = Factor(number, slot.size, stride)
            stride *= slot.size
    return tuple(prod(slot.size for slot in slots) for slots in axes), factors


Reads = tuple[int | None, Relation]


def follow(
    axes: Sequence[Sequence[Slot]], number: int, layout: Layout, shape: Shape, start: int = 0
) -> tuple[Reads, ...] | str:
    """Which positions of one input the outputs read: what a slot follows, and all of what none does.

    Args:
        axes: Of the output, channels first.
        number: Of the input.
        layout: Of the input.
        shape: Of the input's feature map.
        start: Where the slots begin in the input, for a part of it.
    """
    reading: list[Reads] = []
    factors = [factor for axis in layout for factor in axis]
    for axis, n in enumerate(shape[1:], start=1):
        slots = {s: k for k, row in enumerate(axes[1:]) for s in row if _on(s.sources[number], axis)}
        followed = {slot.sources[number] for slot in slots}
        free = [factor for factor in factors if factor.axis == axis and factor not in followed]
        places = set(slots.values())
        if len(places) > 1:
            return f"spatial axis {axis} of its input is split into several axes"
        if not places and size_of(free) == n:
            reading.append((None, Relation.everything(n)))
            continue
        place = places.pop() if places else None
        row = [] if place is None else axes[place + 1]
        runs = tuple((s.size, s.sources[number].stride if s in slots else 0) for s in row)  # type: ignore[union-attr]
        reading.append((place, _relation(runs, tuple((f.size, f.stride) for f in free), n, start)))
    return tuple(reading)


def _on(factor: Factor | None, axis: int) -> bool:
    return factor is not None and factor.axis == axis


@lru_cache(maxsize=1024)
def _relation(
    runs: tuple[tuple[int, int], ...], free: tuple[tuple[int, int], ...], inputs: int, start: int
) -> Relation:
    """Outputs that step through ``inputs`` in these ``(size, stride)`` runs, and read all of the free ones."""
    outputs = prod(size for size, _ in runs)
    joined = _joined(runs)
    while joined and joined[0][1] == 0:  # an outer run that reads the same again
        joined = joined[1:]
    period = prod(size for size, _ in joined)
    shift = 0
    if joined and period == outputs:
        period //= joined[0][0]
        shift, joined = joined[0][1], joined[1:]
    taps = _sums(joined, start)
    spread = _sums(free, 0)
    return Relation(inputs, outputs, tuple(tuple(sorted(t + s for s in spread)) for t in taps), shift)


def _joined(runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for size, stride in runs:
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        elif size > 1:
            found.append((size, stride))
    return found


def _sums(runs: Sequence[tuple[int, int]], start: int) -> list[int]:
    """Where the steps lead, the innermost run fastest."""
    places = [start]
    for size, stride in runs:
        places = [place + step * stride for place in places for step in range(size)]
    return places
