"""Rearrangements of feature maps that the notation has words for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .factors import REPEAT, Axis, Factor, single
from .operations import Channels, Crop, Flatten, PixelShuffle, PixelUnshuffle, Shuffle, Upsample
from .windows import Operation, Reading, Shape


def squashed(values: Sequence[Any]) -> Any:
    """One number where all axes have the same."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def named(old: Shape, groups: Sequence[Axis], shape: Shape) -> Operation | None:
    """The operation that a rearrangement is, if it has a name."""
    channels, spatial = groups[0], groups[1:]
    if not spatial and channels == tuple(f for k, n in enumerate(old) for f in single(k, n)):
        return Flatten()
    if len(shape) != len(old) or len(old) < 2:
        return Shuffle(channels[1].size) if _dealt(channels) and len(shape) == len(old) else None
    kept = all(group == single(k, old[k]) for k, group in enumerate(spatial, start=1))
    if kept and _dealt(channels):
        return Shuffle(channels[1].size)
    return _scaled(old, groups, shape)


def _dealt(channels: Axis) -> bool:
    """Whether channels are those of groups in turn."""
    return len(channels) == 2 and {f.axis for f in channels} == {0} and channels[0].stride == 1


def _scaled(old: Shape, groups: Sequence[Axis], shape: Shape) -> Operation | None:
    channels, spatial = groups[0], groups[1:]
    if any(n % m and m % n for n, m in zip(shape, old, strict=True)):
        return None
    up, down = (
        [m // n for n, m in zip(old[1:], shape[1:], strict=True)],
        [n // m for n, m in zip(old[1:], shape[1:], strict=True)],
    )
    if channels == single(0, old[0]) and all(
        group == (*single(k, old[k]), *single(REPEAT, s))
        for k, (group, s) in enumerate(zip(spatial, up, strict=True), 1)
    ):
        return Upsample(scale=squashed(up))
    scale = max(up[0], down[0])
    if len({*up}) == 1 and scale == up[0] > 1:
        inner = [scale**k for k in reversed(range(len(up)))]
        wanted = [(*single(k, n), Factor(0, scale, inner[k - 1])) for k, n in enumerate(old[1:], 1)]
        if list(spatial) == wanted and channels == single(0, shape[0], scale ** len(up)):
            return PixelShuffle(scale)
    if len({*down}) == 1 and scale == down[0] > 1:
        blocks = tuple(Factor(k, scale, 1) for k in range(1, len(old)))
        whole = [single(k, n // scale, scale) for k, n in enumerate(old[1:], 1)]
        if list(spatial) == whole and channels == (*single(0, old[0]), *blocks):
            return PixelUnshuffle(scale)
    return None


def channels_of(rows: Sequence[Factor], channels: int, start: int) -> Operation:
    """The channels that factors run through, from ``start`` on."""
    numbers = [start]
    for factor in rows:
        numbers = [n + step * factor.stride for n in numbers for step in range(factor.size)]
    count = len(numbers)
    if numbers == list(range(start, start + count)) and channels % count == 0 and start % count == 0:
        return Channels(("part", (start // count + 1, channels // count)))
    return Channels(("list", tuple(numbers)))


def cropped(reading: Reading, old: Shape, new: Shape) -> Operation | None:
    """The cropping that a reading is, if it is one."""
    rows = []
    if len(old) != len(new) or len(reading) != len(new) - 1:
        return None
    for (_, relation), n, m in zip(reading, old[1:], new[1:], strict=True):
        if (
            relation.taps is None
            or len(relation.taps) > 1
            or (relation.shift != 1 and m > 1)
            or len(relation.taps[0]) > 1
        ):
            return None
        before = relation.taps[0][0]
        rows.append((before, n - m - before))
    return Crop(pairs(rows)) if rows else None


def pairs(rows: Sequence[tuple[int, int]]) -> Any:
    """Rows before and after each axis, as short as the notation takes them."""
    entries = [before if before == after else (before, after) for before, after in rows]
    single_number = len(set(entries)) == 1 and isinstance(entries[0], int)
    return entries[0] if single_number else tuple(entries)
