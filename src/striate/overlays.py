"""Masks laid over what they belong to: what each pixel is, what the network called it, and where the two differ."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from .metrics import MaskEvaluation
from .portraits import PHOTO_PIXELS, curve, is_curve, middle, note, photo, plural, scale_of
from .sheets import BLUE, INK, LINE, MUTED, NOTE, Sheet, extent, extremes, fit, names_width, percent, wrapped
from .splits import IGNORED

Pixels = np.ndarray[Any, Any]

# Pixels of a picture keep their colour on a dark page, so that none of these is one of the theme.
WRONG = "#d8581c"
LEFT_OUT = "#9aa3aa"
_COLORS = ("#2f80c6", "#2a9d74", "#c19a10", "#8e5bb8", "#45b3d6", "#cf66a2", "#7c8f28", "#3d4296")
_GOLDEN = (math.sqrt(5) - 1) / 2
_CHIPS = 24
_PANELS = ("truth", "network", "wrong")
_STRIP = 0.13  # inches
_STRIP_PIXELS = 800


@dataclass(frozen=True)
class Overlap:
    """One example with its true and its predicted mask.

    Args:
        number: Which example of its part it is.
        inputs: ``(C, *spatial)``.
        truth: True class of every pixel, uint8 ``(*spatial)``; 255 is ignored.
        said: Predicted class of every pixel, uint8 ``(*spatial)``.
        found: How the two overlap.
    """

    number: int
    inputs: Tensor
    truth: Tensor
    said: Tensor
    found: MaskEvaluation

    @classmethod
    def of(cls, number: int, inputs: Tensor, truth: Tensor, said: Tensor, classes: Sequence[str]) -> Overlap:
        """One example, with its overlap counted.

        >>> import torch
        >>> two = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)
        >>> one = Overlap.of(0, torch.zeros(1, 2, 2), two, torch.ones_like(two), ("sky", "tree"))
        >>> one.found.iou, one.wrong.tolist()
        ({'sky': 0.0, 'tree': 0.75}, [[True, False], [False, False]])
        """
        return cls(number, inputs, truth, said, MaskEvaluation.of(classes).add(said[None], truth[None]))

    @property
    def wrong(self) -> Tensor:
        """Which pixels were called something else than they are; those that are ignored are not."""
        return (self.said != self.truth) & (self.truth != IGNORED)

    @property
    def badness(self) -> float:
        """One minus the mean IoU; what has no labelled pixels is below all others."""
        return -1.0 if self.found.mean_iou is None else 1 - self.found.mean_iou


def dots(shape: Sequence[int]) -> str:
    """What a mask of inputs ``(C, *spatial)`` says the class of.

    >>> dots((1, 8000)), dots((3, 32, 32)), dots((1, 9, 32, 32))
    ('samples', 'pixels', 'voxels')
    """
    return {2: "samples", 3: "pixels", 4: "voxels"}.get(len(shape), "positions")


def color_of(number: int) -> str | None:
    """The colour of a class in overlays: class 0 has none, what is ignored is grey, and none is the orange of mistakes.

    >>> color_of(0), color_of(1), color_of(255)
    (None, '#2f80c6', '#9aa3aa')
    """
    if number in (0, IGNORED):
        return LEFT_OUT if number else None
    if number <= len(_COLORS):
        return _COLORS[number - 1]
    hue = 0.15 + 0.75 * (number * _GOLDEN % 1)  # from yellow over green and blue to purple
    red, green, blue = colorsys.hls_to_rgb(hue, (0.35, 0.53, 0.7)[number % 3], 0.51)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def overlap_per_class(evaluation: MaskEvaluation, *, width: float = 10.0, unit: str = "pixels") -> Figure:
    """IoU and Dice coefficient of each class as bars, best first; a class that stands nowhere says so."""
    ranking = sorted(evaluation.per_class.items(), key=lambda row: 1.0 if row[1].iou is None else -row[1].iou)
    rows, left_out = extremes(ranking)
    roomy, pitch, top = width >= 6, 0.34, 0.42
    total = max(1, int(evaluation.confusion.sum()))
    names = names_width(evaluation.classes, width)
    start, end = names + 0.15, width - (2.85 if roomy else 1.5)
    sheet = _headed(Sheet(width, top + pitch * (len(rows) + bool(left_out))), end, unit, roomy=roomy)
    _mean_line(sheet, evaluation, start, end)
    for row, (name, figures) in enumerate(rows):
        y = top + pitch * (row + (0.5 if row < len(rows) / 2 or not left_out else 1.5))
        sheet.write(names, y, fit(name, names, 9.0), ha="right")
        if figures.iou is None or figures.f1 is None:
            sheet.write(start, y, "neither there nor predicted", color=MUTED, fontstyle="italic")
            continue
        for share, color, above, tall in ((figures.iou, BLUE, -0.085, 0.13), (figures.f1, MUTED, 0.065, 0.055)):
            sheet.box(start, y + above, end - start, tall, LINE, alpha=0.4)
            sheet.box(start, y + above, share * (end - start), tall, color)
        sheet.write(end + 0.72, y, percent(figures.iou), ha="right")
        sheet.write(end + 1.48, y, percent(figures.f1), ha="right", color=MUTED)
        if roomy:
            sheet.write(width, y, percent(figures.support / total), color=MUTED, fontsize=7.5, ha="right")
    if left_out:
        y = top + pitch * (len(rows) // 2 + 0.5)
        sheet.write(start, y, f"… {left_out:,} classes in between …", color=MUTED, fontstyle="italic")
    return sheet.figure


def _headed(sheet: Sheet, end: float, unit: str, *, roomy: bool) -> Sheet:
    """What the numbers on the right are."""
    sheet.write(end + 0.72, 0.12, "IoU", fontsize=8.5, color=BLUE, ha="right", fontweight="bold")
    sheet.write(end + 1.48, 0.12, "Dice", fontsize=8.5, color=MUTED, ha="right", fontweight="bold")
    if roomy:
        sheet.write(sheet.figure.get_figwidth(), 0.12, f"of all {unit}", fontsize=8.5, color=MUTED, ha="right")
    return sheet


def _mean_line(sheet: Sheet, evaluation: MaskEvaluation, start: float, end: float) -> None:
    mean = evaluation.mean_iou
    if mean is not None:
        place = start + mean * (end - start)
        sheet.line([place, place], [0.24, sheet.figure.get_figheight()], INK, linestyle=(0, (1, 2)), zorder=3)
        sheet.write(
            place, 0.12, f"mean IoU {percent(mean)}", fontsize=8.5, color=MUTED, ha="right" if mean > 0.5 else "left"
        )


def masks(overlaps: Sequence[Overlap], classes: Sequence[str], *, noun: str = "picture", width: float = 10.0) -> Figure:
    """Examples with their true mask, the predicted one, and in orange the pixels in which the two differ.

    Of signals and series the masks are strips below the curve.

    Args:
        overlaps: At least one; their inputs have one shape.
        classes: Names, in the order of their numbers.
        noun: What the inputs are.
        width: Inches; two examples stand side by side if it is at least 8.
    """
    across = 2 if width >= 8 else 1
    room = (width - 0.4 * (across - 1)) / across
    shape = tuple(overlaps[0].inputs.shape)
    scale = scale_of(one.inputs for one in overlaps)
    said = note(shape, scale) + (f" Figures are of whole {plural(noun)}." if len(shape) > 3 else "")
    left_out = wrapped(said, width)
    chips = _chips(overlaps, classes)
    top = 0.1 + 0.24 * len(_lines(chips, width)) + (0.0 if is_curve(shape) else 0.22)
    tall = _tall(shape, room) + 0.42
    rows = math.ceil(len(overlaps) / across)
    sheet = Sheet(width, top + rows * tall + NOTE * len(left_out))
    _legend(sheet, chips, width)
    for place, one in enumerate(overlaps):
        x, y = place % across * (room + 0.4), top + place // across * tall
        if is_curve(shape):
            strips(sheet, one, x, y, room)
        else:
            _panels(sheet, one, x, y, room, scale, noun if place < across else "")
        _figures(sheet, one, x, y + _tall(shape, room) + 0.12, room, noun)
    sheet.notes(top + rows * tall + 0.02, left_out)
    return sheet.figure


def _tall(shape: Sequence[int], room: float) -> float:
    """Inches of one example without its line of figures."""
    if is_curve(shape):
        return 0.5 + 3 * (_STRIP + 0.03)
    rows, columns = shape[-2:]
    return _side(room) * rows / max(rows, columns)


def _side(room: float) -> float:
    return (room - 3 * 0.08) / 4


def _panels(sheet: Sheet, one: Overlap, x: float, y: float, room: float, scale: tuple[float, float], noun: str) -> None:
    """The input and its three panels, side by side, named if there is a noun."""
    side = _side(room)
    tall = _tall(one.inputs.shape, room)
    size = side * one.inputs.shape[-1] / max(one.inputs.shape[-2:]), tall
    for place, name in enumerate(("input", *_PANELS)):
        left = x + place * (side + 0.08)
        sheet.tile(left, y, *size, panel(one, name, side, scale))
        if noun:
            sheet.write(left, y - 0.13, noun if name == "input" else name, fontsize=8, color=MUTED)


def panel(one: Overlap, name: str, inches: float, scale: tuple[float, float]) -> Pixels:
    """One of "input", "truth", "network" and "wrong" as pixels ``(H, W, 3)``."""
    shown = photo(one.inputs, inches, scale)
    rows, columns = shown.shape[:2]
    larger = max(1, int(inches * PHOTO_PIXELS) // max(rows, columns))
    size = rows * larger, columns * larger
    base = _nearest(shown, size).astype(np.float32)
    grey = base.mean(2, keepdims=True).repeat(3, 2)
    truth, said = (_nearest(middle(mask[None])[0].cpu().numpy(), size) for mask in (one.truth, one.said))
    if name == "truth":
        base = _tinted(grey, truth)
    elif name == "network":
        base = _tinted(grey, said)
    elif name == "wrong":
        base = 0.7 * 255 + 0.3 * grey
        base[(said != truth) & (truth != IGNORED)] = _rgb(WRONG)
        base[truth == IGNORED] = _rgb(LEFT_OUT)
    return base.round().astype(np.uint8)


def _nearest(values: Pixels, size: tuple[int, int]) -> Pixels:
    """``(H, W, ...)`` at another size, each pixel the nearest one."""
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(size, values.shape, strict=False))
    return values[rows][:, columns]


def _rgb(color: str) -> Pixels:
    return 255 * np.array(to_rgb(color), np.float32)


def _tinted(base: Pixels, mask: Pixels) -> Pixels:
    """Regions in the colours of their classes over grey, which mixes with none, with an outline within each."""
    tinted, outlines = base.copy(), _outlines(mask)
    for number in np.unique(mask).tolist():
        color = color_of(number)
        if color is not None:
            here = mask == number
            strength = 0.9 if number == IGNORED else 0.5
            tinted[here] = (1 - strength) * base[here] + strength * _rgb(color)
            tinted[here & outlines] = _rgb(color)
    return tinted


def _outlines(mask: Pixels) -> Pixels:
    """The pixels with a neighbour of another class."""
    found = np.zeros(mask.shape, bool)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found


def strips(sheet: Sheet, one: Overlap, x: float, y: float, room: float) -> None:
    """The first channel of a signal, and its masks as strips below it."""
    names = extent("network", 7.5) + 0.05
    left, across = x + names, room - names
    curve(sheet, one.inputs[0], left, y, across, 0.46)
    for row, name in enumerate(_PANELS):
        top = y + 0.5 + row * (_STRIP + 0.03)
        sheet.write(left - 0.06, top + _STRIP / 2, name, fontsize=7.5, color=MUTED, ha="right")
        sheet.box(left, top, across, _STRIP, LINE, alpha=0.4, zorder=-1)  # below the picture
        sheet.tile(left, top, across, _STRIP, strip(one, name))


def strip(one: Overlap, name: str) -> Pixels:
    """One of "truth", "network" and "wrong" of a signal as pixels ``(1, columns, 4)``, transparent without a colour.

    A column of several samples shows the class of the one in its middle, and is wrong if any of them is.
    """
    numbers = (one.said if name == "network" else one.truth).cpu().numpy()
    count = min(len(numbers), _STRIP_PIXELS)
    shown = _nearest(numbers[None], (1, count))[0]
    pixels = np.zeros((1, count, 4), np.uint8)
    for number in np.unique(shown).tolist():
        color = LEFT_OUT if name == "wrong" and number == IGNORED else None if name == "wrong" else color_of(number)
        if color is not None:
            pixels[0, shown == number] = (*_rgb(color).round(), 255)
    if name == "wrong":
        wrong = np.logical_or.reduceat(one.wrong.cpu().numpy(), np.arange(count) * len(numbers) // count)
        pixels[0, wrong] = (*_rgb(WRONG).round(), 255)
    return pixels.repeat(_STRIP_PIXELS // count, 1)


def _figures(sheet: Sheet, one: Overlap, x: float, y: float, room: float, noun: str) -> None:
    """How good the example's mask is."""
    shape = tuple(one.inputs.shape)
    mean, right = one.found.mean_iou, one.found.pixel_accuracy
    if mean is None or right is None:
        sheet.write(x, y, f"{noun} {one.number:,}, no labelled {dots(shape)}", fontsize=8, color=MUTED)
        return
    text = f"IoU {percent(mean)}"
    sheet.write(x, y, text, fontsize=8.5)
    at = extent(text, 8.5) + 0.08
    rest = f"{noun} {one.number:,}, {percent(1 - right)} of its {dots(shape)} wrong"
    sheet.write(x + at, y, fit(rest, room - at + 0.1, 8.0), fontsize=8, color=MUTED)


def _chips(overlaps: Sequence[Overlap], classes: Sequence[str]) -> list[tuple[str | None, str]]:
    """Colour and meaning of all that is shown: classes, what is ignored, and what is wrong."""
    seen = set()
    for one in overlaps:
        seen |= set(one.truth.unique().tolist()) | set(one.said.unique().tolist())
    numbers = sorted(seen - {IGNORED})
    found = [(color_of(number), classes[number]) for number in numbers[:_CHIPS]]
    if len(numbers) > _CHIPS:
        found.append((None, f"and {len(numbers) - _CHIPS} more"))
    found += [(LEFT_OUT, "not labelled")] if IGNORED in seen else []
    return [*found, (WRONG, "wrong")]


def _lines(chips: Sequence[tuple[str | None, str]], width: float) -> list[list[tuple[float, str | None, str]]]:
    """The chips in as many lines as they need: place, colour, text."""
    lines: list[list[tuple[float, str | None, str]]] = [[]]
    at = 0.0
    for color, text in chips:
        text = fit(text, min(2.2, width - 0.3), 8.5)
        needed = 0.2 + extent(text, 8.5) + 0.15
        if at + needed > width + 0.15 and lines[-1]:
            lines.append([])
            at = 0.0
        lines[-1].append((at, color, text))
        at += needed
    return lines


def _legend(sheet: Sheet, chips: Sequence[tuple[str | None, str]], width: float) -> None:
    for row, line in enumerate(_lines(chips, width)):
        y = 0.1 + 0.24 * row
        for x, color, text in line:
            sheet.box(x, y - 0.065, 0.13, 0.13, color or LINE, 1.0 if color else 0.4)
            if color is None:
                sheet.line(
                    [x, x + 0.13, x + 0.13, x, x], [y - 0.065, y - 0.065, y + 0.065, y + 0.065, y - 0.065], MUTED
                )
            sheet.write(x + 0.2, y, text, fontsize=8.5)
