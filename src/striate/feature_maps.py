"""The filters that a network has learned and the activations that it computes, as matplotlib figures.

Every function returns a new :class:`matplotlib.figure.Figure`, laid out for ``width`` inches, in the colours of
:mod:`striate.pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .overlays import Overlap, panel, strips
from .portraits import is_curve, middle, note, portrait, relief, scale_of
from .sheets import (
    BLUE,
    INK,
    LINE,
    MUTED,
    NOTE,
    ORANGE,
    Sheet,
    contained,
    extent,
    fit,
    percent,
    sample,
    shrink,
    signed,
    smaller,
    wrapped,
)

_SLICE_PIXELS = 350_000  # of all slices of a figure together, so that a page stays small


def filters(weight: Tensor, title: str, *, width: float = 10.0) -> Figure:
    """The learned filters of one convolution, each scaled to its own largest weight.

    Filters over three channels are colour pictures (grey is zero), those over one channel signed maps. Otherwise each
    filter is a column with one small map for every input channel. Filters over one axis are small curves. Of three
    spatial axes the middle of the first is shown. What does not fit is left out, and the title says so.

    Args:
        weight: ``(O, C, kh, kw)`` or ``(O, C, k)``.
        title: What the convolution is called.
        width: Inches.
    """
    weight = weight.detach().cpu().float().nan_to_num()
    shape = tuple(weight.shape)
    colored = weight.ndim == 4 and weight.shape[1] == 3
    while weight.ndim > 4:
        weight = weight[:, :, weight.shape[2] // 2]
    if weight.shape[1] == 1 or colored:
        return _gallery(weight, title, shape, width, colored=colored)
    return _stacks(weight, title, shape, width)


def _extract(shape: Sequence[int], filters_shown: int, channels_shown: int) -> str:
    """How much of a weight is shown.

    >>> _extract((16, 6, 5, 5), 16, 4)
    'all 16 filters of 5 × 5, first 4 of 6 input channels'
    """

    def part(shown: int, count: int, noun: str) -> str:
        if shown < count:
            return f"first {shown:,} of {count:,} {noun}s"
        return f"the {noun}" if count == 1 else f"all {count:,} {noun}s"

    size = " × ".join(map(str, shape[2:])) if len(shape) > 3 else f"length {shape[2]}"
    text = f"{part(filters_shown, shape[0], 'filter')} of {size}"
    sliced = ", the middle slice of each" if len(shape) > 4 else ""
    return f"{text}{sliced}" if shape[1] == 1 else f"{text}, {part(channels_shown, shape[1], 'input channel')}{sliced}"


def _headline(sheet: Sheet, title: str, extract: str) -> None:
    """A title above a line that says how much is shown."""
    sheet.write(0.0, 0.12, title, fontsize=10, fontweight="bold")
    sheet.write(0.0, 0.34, extract, fontsize=8, color=MUTED)


def _gallery(weight: Tensor, title: str, shape: Sequence[int], width: float, *, colored: bool) -> Figure:
    """Filters that are one picture each, row by row."""
    across = max(1, int(width / 0.8))
    shown = weight[: 8 * across]
    pitch = min(1.1, width / min(across, len(shown)))
    sheet = Sheet(width, 0.6 + math.ceil(len(shown) / across) * pitch)
    _headline(sheet, title, _extract(shape, len(shown), shape[1]))
    for place, kernel in enumerate(shown):
        x, y = place % across * pitch, 0.6 + place // across * pitch
        scale = kernel.abs().max().item()
        if colored:
            pixels = (127.5 + 127.5 * kernel / (scale or 1.0)).round().to(torch.uint8)
            box = contained(pixels.shape[1:], pitch - 0.1)
            sheet.tile(x, y, *box, np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        else:
            _kernel(sheet, kernel[0], x, y, pitch - 0.1, scale)
    return sheet.figure


def _stacks(weight: Tensor, title: str, shape: Sequence[int], width: float) -> Figure:
    """Filters as columns: one small map for every input channel, read from top to bottom."""
    left, top = 0.72, 0.82
    shown = weight[: max(1, int((width - left) / 0.44)), :8]
    pitch = min(0.56, (width - left) / len(shown))
    sheet = Sheet(width, top + shown.shape[1] * pitch)
    _headline(sheet, title, _extract(shape, *shown.shape[:2]))
    sheet.write(left, top - 0.15, "one filter in each column →", fontsize=7.5, color=MUTED)
    for channel in range(shown.shape[1]):
        text = f"channel {channel}" if channel == 0 else str(channel)
        sheet.write(left - 0.1, top + (channel + 0.43) * pitch, text, fontsize=7.5, color=MUTED, ha="right")
    for column, stack in enumerate(shown):
        scale = stack.abs().max().item()
        for row, kernel in enumerate(stack):
            _kernel(sheet, kernel, left + column * pitch, top + row * pitch, pitch - 0.06, scale)
    return sheet.figure


def _kernel(sheet: Sheet, kernel: Tensor, x: float, y: float, side: float, scale: float) -> None:
    """One kernel in a square: a map of ``(kh, kw)``, or the curve of ``(k,)`` around its zero line."""
    if kernel.ndim == 2:
        sheet.tile(x, y, *contained(kernel.shape, side), signed(kernel, scale))
        return
    sheet.line([x, x + side], [y + side / 2] * 2)
    steps = [x + (i + 0.5) / len(kernel) * side for i in range(len(kernel))]
    heights = [y + side / 2 * (1 - 0.92 * value / (scale or 1.0)) for value in kernel.tolist()]
    sheet.line(steps, heights, BLUE, linewidth=1.1, marker="o", markersize=1.6 if len(kernel) <= 16 else 0)


def columns(
    layers: Sequence[tuple[str, Tensor]],
    image: Tensor,
    scores: Sequence[tuple[str, float]],
    *,
    truth: str | None = None,
    overlap: Overlap | None = None,
    noun: str = "picture",
    width: float = 10.0,
) -> Figure:
    """Every activation volume of a network laid out as a column of slices, from the picture to the scores or the mask.

    Slices are taken at even distances through the channels, so none is picked for its looks. Each layer has its own
    scale (the 99.5th percentile of its absolute values), shared by its slices. A vector is a strip of cells, a map
    of one axis the area between its curve and zero, and of more than two axes the middle is shown.

    Args:
        layers: Name and activation of each layer, in order: ``(C, *spatial)``, or ``(C,)`` for a vector.
        image: The input, ``(C, *spatial)``.
        scores: Class names and probabilities, best first; the first five are shown.
        truth: The true class, if it is known.
        overlap: In place of the scores, the masks that a network for masks leads to.
        noun: What the input is.
        width: Inches; layers that do not fit continue in further rows.
    """
    lead, tail = (1.35, 2.2) if width >= 6 else (1.05, 1.6)
    rows, pitch = _rows(len(layers), width, lead, tail)
    slices = min({1: 10, 2: 8}.get(len(rows), 6), max((_slices(volume) for _, volume in layers), default=1))
    side = pitch - 0.1
    step = max((_height(volume, side) for _, volume in layers), default=0.0) or side
    limit = math.isqrt(_SLICE_PIXELS // max(1, slices * len(layers)))
    longest = max((extent(name, 8.0) for name, _ in layers), default=0.0)
    slanted = longest > pitch
    header = 0.55 + (min(longest, 1.5) * 0.6 if slanted else 0.0)
    tall = header + max(slices * (step + 0.05), 2.65 if overlap is None else _masks_height(overlap, tail - 0.12)) + 0.42
    end = width if len(rows) > 1 else min(width, lead + len(layers) * pitch + 0.25 + tail)
    left_out = wrapped(_left_out(image, layers), end)
    sheet = Sheet(end, len(rows) * tall - 0.15 + NOTE * len(left_out))
    sheet.notes(len(rows) * tall - 0.1, left_out)
    position = 0
    for number, length in enumerate(rows):
        x, top = lead if number == 0 else 0.0, number * tall + header
        for name, volume in layers[position : position + length]:
            _layer_name(sheet, name, volume, x, top, pitch, slanted=slanted)
            _column(sheet, volume, x, top, side, step, slices, limit)
            x += pitch
        position += length
        if number == len(rows) - 1 and overlap is not None:
            _masks(sheet, overlap, end - tail + 0.12, top, tail - 0.12)
        elif number == len(rows) - 1:
            _scores(sheet, scores[:5], truth, end - tail + 0.12, top, tail - 0.12)
    _input(sheet, image, header, lead - 0.25, noun)
    return sheet.figure


def _slices(volume: Tensor) -> int:
    """How many slices a volume has; sixteen numbers of a vector take the place of one."""
    return len(volume) if _height(volume, 1.0) else math.ceil(volume.numel() / 16)


def _height(volume: Tensor, side: float) -> float:
    """Inches of one slice of a volume ``side`` wide; a vector has none."""
    if volume.ndim < 2 or volume[0].numel() == 1:
        return 0.0
    return 0.7 * side if volume.ndim == 2 else contained(volume.shape[-2:], side)[1]


def _left_out(image: Tensor, layers: Sequence[tuple[str, Tensor]]) -> str:
    """What the input and the columns leave out."""
    if image.ndim > 3 and any(volume.ndim > 3 for _, volume in layers):
        return f"{note(image.shape, scale_of([image]))} Of the layers, the middle slices, too."
    return note(image.shape, scale_of([image]))


def _rows(count: int, width: float, lead: float, tail: float) -> tuple[list[int], float]:
    """Layers in each row and the distance between them: as few rows as possible, then as wide as possible.

    The first row begins with the picture, the last one ends with the scores.

    >>> _rows(11, 10.0, 1.35, 2.2)
    ([11], 0.58)
    >>> _rows(38, 10.0, 1.35, 2.2)
    ([12, 15, 11], 0.66)
    """
    for rows in range(1, count + 2):
        for hundredths in range(76, 49, -2):
            pitch = hundredths / 100
            room = [width] * rows
            room[0] -= lead
            room[-1] -= tail
            fits = [max(0, int(inches / pitch + 1e-9)) for inches in room]
            if sum(fits) >= count:
                return _balanced(fits, count), pitch
    return [count], 0.5


def _balanced(fits: Sequence[int], count: int) -> list[int]:
    """Take the spare places evenly from all rows."""
    rows, spare = list(fits), sum(fits) - count
    while spare:
        fullest = max(range(len(rows)), key=lambda i: rows[i] / fits[i] if fits[i] else -1.0)
        rows[fullest] -= 1
        spare -= 1
    return rows


def _layer_name(sheet: Sheet, name: str, volume: Tensor, x: float, top: float, pitch: float, *, slanted: bool) -> None:
    """The name of a layer with the shape of its output below it."""
    shape = "×".join(map(str, volume.shape))
    sheet.write(x, top - 0.14, shape, fontsize=smaller(shape, pitch - 0.04, 6.5), color=MUTED)
    text = fit(name, 1.5, 8.0) if slanted else name
    sheet.write(
        x + (0.04 if slanted else 0.0), top - 0.29, text, fontsize=8, rotation=35 if slanted else 0, va="baseline"
    )


def _column(
    sheet: Sheet, volume: Tensor, x: float, top: float, side: float, step: float, slices: int, limit: int
) -> None:
    """One volume: at most ``slices`` of its maps, ``limit`` pixels wide, one below the other, or a strip of values."""
    volume = volume.detach().cpu().float().nan_to_num()
    scale = torch.quantile(sample(volume.abs().flatten(), 100_000), 0.995).item() or volume.abs().max().item()
    pitch = step + 0.05
    if not _height(volume, side):
        cells, full = sample(volume.flatten(), 16 * slices), slices * pitch - 0.05
        height = min(full, len(cells) * (side + 0.05) - 0.05)
        sheet.tile(x, top, 0.6 * side, height, signed(cells[:, None], scale))
        _rest(sheet, x, top + height, side, len(cells), volume.numel())
        return
    maps = sample(volume[:, None] if volume.ndim == 2 else middle(volume), slices)
    for row, values in enumerate(maps if volume.ndim == 2 else shrink(maps, limit)):
        if volume.ndim == 2:
            relief(sheet, values[0], x, top + row * pitch, side, _height(volume, side), scale)
        else:
            sheet.tile(x, top + row * pitch, *contained(values.shape, side), signed(values, scale))
    _rest(sheet, x, top + len(maps) * pitch - 0.05, side, len(maps), len(volume))


def _rest(sheet: Sheet, x: float, bottom: float, side: float, shown: int, count: int) -> None:
    """How many slices or values are not shown, or how many there are."""
    text = f"+ {count - shown:,} more" if count > shown else f"all {count:,}"
    sheet.write(x, bottom + 0.11, text, fontsize=smaller(text, side + 0.06, 6.5), color=MUTED)


def _input(sheet: Sheet, image: Tensor, top: float, side: float, noun: str) -> None:
    """What went in."""
    sheet.write(0.0, top - 0.29, noun, fontsize=8, va="baseline")
    sheet.write(0.0, top - 0.14, "×".join(map(str, image.shape)), fontsize=6.5, color=MUTED)
    # A picture begins at the top, as the slices do.
    down = 0.0 if is_curve(image.shape) else side - contained(image.shape[-2:], side)[1]
    portrait(sheet, image, 0.0, top - down, side, scale_of([image]))


def _masks(sheet: Sheet, overlap: Overlap, x: float, top: float, width: float) -> None:
    """What the network calls each pixel above what it is."""
    if is_curve(overlap.inputs.shape):
        strips(sheet, overlap, x, top, width)
        return
    side = min(width, 1.5)
    size = contained(overlap.inputs.shape[-2:], side)
    scale = scale_of([overlap.inputs])
    for row, name in enumerate(("network", "truth")):
        y = top + row * (size[1] + 0.3)
        sheet.write(x, y - (0.29 if row == 0 else 0.1), name, fontsize=8, va="baseline")
        sheet.tile(x, y, *size, panel(overlap, name, side, scale))


def _masks_height(overlap: Overlap, width: float) -> float:
    """Inches that these take."""
    shape = overlap.inputs.shape
    return 1.0 if is_curve(shape) else 2 * contained(shape[-2:], min(width, 1.5))[1] + 0.3


def _scores(
    sheet: Sheet, scores: Sequence[tuple[str, float]], truth: str | None, x: float, top: float, width: float
) -> None:
    """The best classes as bars, the true one in blue."""
    sheet.write(x, top - 0.29, "top scores", fontsize=8, va="baseline")
    bar = width - 0.68
    for row, (name, share) in enumerate(scores):
        y, true = top + 0.46 * row, name == truth
        color = BLUE if true else ORANGE if row == 0 and truth is not None else MUTED
        label = fit(name, width - (0.5 if true else 0), 8.5)
        sheet.write(
            x, y + 0.07, f"{label} · true" if true else label, fontsize=8.5, color=color if true or row == 0 else INK
        )
        sheet.box(x, y + 0.19, bar, 0.1, LINE, alpha=0.4)
        sheet.box(x, y + 0.19, share * bar, 0.1, color)
        sheet.write(x + width, y + 0.24, percent(share), fontsize=8.5, ha="right", color=color if row == 0 else INK)
    if truth is not None and truth not in [name for name, _ in scores]:
        y = top + 0.46 * len(scores) + 0.08
        sheet.write(x, y, fit(f"truth: {truth}", width, 8.5), fontsize=8.5, color=BLUE)
