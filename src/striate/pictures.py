"""Pictures of a trained network, as matplotlib figures.

Every function returns a new :class:`matplotlib.figure.Figure` and draws nothing on a screen. ``width`` is the width in
inches at which the figure will be shown: the layout follows it, so that text stays readable on a page and on a phone.

One visual language everywhere: blue is the test data and what is right, orange is a mistake, grey is context. Numbers
with a sign are blue below zero, white at zero and orange above. Blue and orange differ for every kind of colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from .metrics import Evaluation, MaskEvaluation
from .portraits import height, note, portrait, scale_of
from .sheets import (
    BLUE,
    INK,
    LINE,
    MUTED,
    NOTE,
    ORANGE,
    PAPER,
    Sheet,
    extent,
    extremes,
    fit,
    names_width,
    percent,
    smaller,
    wrapped,
    write,
)

_CELL_TEXT_CLASSES = 30  # beyond this a count no longer fits into a cell of the confusion matrix
_NAMED_CLASSES = 60  # beyond this the names of neighbouring rows would overlap
_PANELS = (
    ("loss", "loss", ".3f", ""),
    ("accuracy", "accuracy", ".1f", " %"),
    ("mean IoU", "iou", ".1f", " %"),
    ("learning rate", "learning_rate", ".2g", ""),
)
_TALL = 2.4  # inches of the reliability diagram


def curves(history: Sequence[Mapping[str, float | None]], *, judged: str = "test", width: float = 10.0) -> Figure:
    """Loss and accuracy after each epoch, and IoU and learning rate if they are known, the best epoch marked.

    The best epoch is that of the highest IoU, or accuracy where there is none.

    Args:
        history: One mapping per epoch, at least one, with ``epoch``, ``train_loss``, ``loss``, ``accuracy`` and perhaps
            ``train_accuracy``, ``iou``, ``learning_rate``; losses are means, accuracies and IoU shares between 0 and 1.
        judged: What ``loss``, ``accuracy`` and ``iou`` were measured on: "test" or "validation".
        width: Inches; the panels stand side by side if it is at least 6.
    """
    shown = [one for one in _PANELS if one[1] in ("loss", "accuracy") or any(one[1] in row for row in history)]
    across = 1 if width < 6 else 3 if len(shown) == 3 else 2
    room = (width - 0.5 * (across - 1)) / across
    label = 0.85 if across == 3 else 1.05 if judged == "test" else 1.35
    rows = math.ceil(len(shown) / across)
    figure = Figure(figsize=(width, 3.1 * rows + 0.2 * (rows - 1)), facecolor=PAPER)
    scores = _series(history, "iou" if any("iou" in row for row in history) else "accuracy", 100.0)
    best = max(range(len(history)), key=lambda i: (-1.0 if math.isnan(scores[i]) else scores[i], -i))
    epochs = [row["epoch"] or 0 for row in history]
    for number, (name, key, digits, unit) in enumerate(shown):
        axes = _panel(figure, number % across * (room + 0.5), number // across * 3.3, room, 3.1, label)
        values, train = (_series(history, one, 100.0 if unit else 1.0) for one in (key, f"train_{key}"))
        _frame(axes, name, [int(epoch) for epoch in epochs], [*values, *train], unit)
        own = judged if key != "learning_rate" else ""
        _lines(axes, epochs, {"train": train, own: values}, digits, unit, stacked=across == 3)
        if own:
            _mark_best(axes, epochs[best], values[best], f"{values[best]:{digits}}{unit}")
    return figure


def _series(history: Sequence[Mapping[str, float | None]], key: str, factor: float) -> list[float]:
    """One column of the history; what is missing or not finite becomes a gap."""
    values = [row.get(key) for row in history]
    return [math.nan if value is None or not math.isfinite(value) else factor * value for value in values]


def _panel(figure: Figure, left: float, top: float, width: float, height: float, after: float) -> Axes:
    """Axes at a place in inches, with room for numbers on the left, and ``after`` on the right for direct labels."""
    whole_width, whole_height = figure.get_size_inches()
    before, above, below = 0.5, 0.62, 0.5
    box = (
        (left + before) / whole_width,
        1 - (top + height - below) / whole_height,
        (width - before - after) / whole_width,
        (height - above - below) / whole_height,
    )
    axes = figure.add_axes(box)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=LINE, linewidth=0.8)
    axes.tick_params(length=0, labelsize=8, labelcolor=MUTED, labelfontfamily="DejaVu Sans", pad=5)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _frame(axes: Axes, name: str, epochs: Sequence[int], values: Sequence[float], unit: str) -> None:
    """Limits, ticks and the panel's name."""
    finite = [value for value in values if not math.isnan(value)] or [0.0]
    low, high = (min(finite), max(finite)) if unit else (0.0, max(finite))
    margin = 0.08 * (high - low) or (5.0 if unit else 1.0)
    axes.set_ylim(max(0.0, low - margin), min(high + margin, 101.0) if unit else high + margin)
    axes.set_xlim(epochs[0] - (0.5 if len(epochs) == 1 else 0), epochs[-1] + (0.5 if len(epochs) == 1 else 0))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=_ticks(axes), integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    write(axes, 0.0, 1.24, name, transform=axes.transAxes, fontsize=10.5, fontweight="bold")
    write(axes, 1.0, -0.21, "epoch", transform=axes.transAxes, fontsize=8, color=MUTED, ha="right")


def _ticks(axes: Axes) -> int:
    """How many epochs get their number."""
    return 8 if axes.bbox.width / axes.figure.dpi > 2 else 4


def _lines(
    axes: Axes,
    epochs: Sequence[float],
    named: Mapping[str, Sequence[float]],
    digits: str,
    unit: str,
    *,
    stacked: bool,
) -> None:
    """Curves, each with its name and last value written at its end, or ``stacked`` one above the other."""
    ends = []
    for (name, values), color, thickness in zip(named.items(), (MUTED, BLUE), (1.1, 2.0), strict=True):
        marker: dict[str, Any] = {"marker": "o", "markersize": 2.2 + thickness} if len(epochs) <= 12 else {}
        axes.plot(epochs, values, color=color, linewidth=thickness, solid_capstyle="round", clip_on=False, **marker)
        if not math.isnan(values[-1]):
            ends.append((values[-1], [*([name] if name else []), f"{values[-1]:{digits}}{unit}"], color))
    bottom, top = axes.get_ylim()
    beyond = 1 + 0.1 * axes.figure.dpi / axes.bbox.width  # a tenth of an inch to the right of the last point
    ends.sort()
    places = [(value - bottom) / (top - bottom) for value, _, _ in ends]
    apart = 0.17 if stacked else 0.085
    if len(places) == 2 and (overlap := apart - (places[1] - places[0])) > 0:
        places = [places[0] - overlap / 2, places[1] + overlap / 2]
    if stacked and places:  # neither beside the numbers of the epochs nor beside the best one
        places = [place + max(0.0, 0.08 - places[0]) - max(0.0, places[-1] - 0.95) for place in places]
    for place, (_, words, color) in zip(places, ends, strict=True):
        for row, text in enumerate(words if stacked else [" ".join(words)]):
            y = place + (0.0375 - 0.075 * row if stacked and len(words) > 1 else 0.0)
            write(axes, beyond, y, text, transform=axes.transAxes, color=color, fontsize=8.5)


def _mark_best(axes: Axes, epoch: float, value: float, text: str) -> None:
    """A dotted line through the best epoch, its number above the panel where no curve can be."""
    left, right = axes.get_xlim()
    place = (epoch - left) / (right - left)
    axes.axvline(epoch, color=ORANGE, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    axes.plot([epoch], [value], "o", color=PAPER, markeredgecolor=ORANGE, markersize=7, clip_on=False, zorder=5)
    side = "left" if place < 0.3 else "right" if place > 0.7 else "center"
    label = f"best epoch {epoch:g}: {text}"
    write(axes, place, 1.07, label, transform=axes.transAxes, color=ORANGE, fontsize=8.5, ha=side)


def accuracy_per_class(evaluation: Evaluation, *, width: float = 10.0) -> Figure:
    """Accuracy on the examples of each class as bars, best first; a class without examples says so."""
    rows, left_out = _ranking(evaluation)
    size, pitch, names = 9.0, 0.27, names_width(evaluation.classes, width)
    counted = (
        max((extent(f"{right:,} of {total:,}", 7.5) for _, _, right, total in rows), default=0) if width >= 6 else 0
    )
    sheet = Sheet(width, 0.4 + pitch * (len(rows) + bool(left_out)))
    start, end = names + 0.15, width - counted - 0.85
    if len(evaluation.labels):
        overall = start + evaluation.accuracy * (end - start)
        sheet.line([overall, overall], [0.24, sheet.figure.get_size_inches()[1]], INK, linestyle=(0, (1, 2)), zorder=3)
        label = f"all classes {percent(evaluation.accuracy)}"
        sheet.write(
            overall, 0.12, label, fontsize=8.5, color=MUTED, ha="right" if evaluation.accuracy > 0.5 else "left"
        )
    for row, (name, accuracy, right, total) in enumerate(rows):
        y = 0.4 + pitch * (row + (0.5 if row < len(rows) / 2 or not left_out else 1.5))
        sheet.write(names, y, fit(name, names, size), ha="right")
        if accuracy is None:
            sheet.write(start, y, "no examples", color=MUTED, fontstyle="italic")
            continue
        sheet.box(start, y - 0.075, end - start, 0.15, LINE, alpha=0.4)
        sheet.box(start, y - 0.075, accuracy * (end - start), 0.15, BLUE)
        sheet.write(end + 0.72, y, percent(accuracy), ha="right")
        if counted:
            sheet.write(width, y, f"{right:,} of {total:,}", color=MUTED, fontsize=7.5, ha="right")
    if left_out:
        y = 0.4 + pitch * (len(rows) // 2 + 0.5)
        sheet.write(start, y, f"… {left_out:,} classes in between …", color=MUTED, fontstyle="italic")
    return sheet.figure


def _ranking(evaluation: Evaluation) -> tuple[list[tuple[str, float | None, int, int]], int]:
    """``(class, accuracy, right, total)``, best first, and how many were left out between best and worst."""
    confusion = evaluation.confusion
    right, total = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    shares = [None if n == 0 else r / n for r, n in zip(right, total, strict=True)]
    rows = sorted(
        zip(evaluation.classes, shares, right, total, strict=True), key=lambda row: -1.0 if row[1] is None else row[1]
    )[::-1]
    return extremes(rows)


def confusion(evaluation: Evaluation | MaskEvaluation, *, width: float = 10.0) -> Figure:
    """What each class was taken for: row = true class, column = predicted class.

    The text of a cell is its number of examples; for masks, its share of the row's pixels. The stronger a colour, the
    larger the share of the row: opacity = √share. Blue cells are right, orange ones are mistakes. With many classes the
    figure is wider than ``width``, so that its text stays readable.
    """
    count = len(evaluation.classes)
    named = count <= _NAMED_CLASSES
    size = 9.0 if count <= 20 else 7.0 if count <= _CELL_TEXT_CLASSES else 5.5
    names = max(extent("was called →", 8.0), names_width(evaluation.classes if named else ["-"], width, size))
    slant = 0.72 * names + 0.1 if named else 0.2
    fitting = (width - names - slant - 0.1) / count
    cell = min(0.56, max(fitting, 0.25 if count <= _CELL_TEXT_CLASSES else 0.09 if named else 0.0))
    left, top = names + 0.1, slant + 0.25
    sheet = Sheet(left + count * cell + slant, top + count * cell + 0.05)
    counts = evaluation.confusion
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    if count <= _CELL_TEXT_CLASSES:
        _cells(sheet, counts, shares, left, top, cell, as_shares=isinstance(evaluation, MaskEvaluation))
    else:
        _cell_colors(sheet, counts, shares.sqrt(), left, top, cell)
    edge = count * cell
    sheet.line([left, left + edge, left + edge, left, left], [top, top, top + edge, top + edge, top])
    for i, name in enumerate(evaluation.classes if named else ()):
        middle = (i + 0.5) * cell
        sheet.write(left - 0.08, top + middle, fit(name, names, size), fontsize=size, ha="right")
        label = fit(name, names, size)
        sheet.write(left + middle, top - 0.08, label, fontsize=size, rotation=45, va="baseline", ha="left")
    sheet.write(left - 0.08, top - 0.12, "is ↓", fontsize=8, color=MUTED, ha="right")
    sheet.write(left - 0.08, top - 0.3, "was called →", fontsize=8, color=MUTED, ha="right")
    return sheet.figure


def _cells(
    sheet: Sheet, counts: Tensor, shares: Tensor, left: float, top: float, cell: float, *, as_shares: bool
) -> None:
    """One coloured box with its count, or its share of the row, for every cell that is not empty."""
    digits = len("> 99 %") if as_shares else len(str(int(counts.max())))
    size = min(9.0, 72 * 0.88 * cell / (0.6 * max(digits, 2)))
    for row, column in counts.nonzero().tolist():
        share = shares[row, column].item()
        x, y, alpha = left + column * cell, top + row * cell, shares[row, column].sqrt().item()
        sheet.box(x, y, cell, cell, BLUE if row == column else ORANGE, alpha)
        color = PAPER if alpha > 0.75 else INK
        text = percent(share, 0) if as_shares else f"{int(counts[row, column])}"
        sheet.write(x + cell / 2, y + cell / 2, text, fontsize=size, color=color, ha="center")
    for i in range(1, len(counts)):
        edge = len(counts) * cell
        sheet.line([left, left + edge], [top + i * cell] * 2, linewidth=0.4)
        sheet.line([left + i * cell] * 2, [top, top + edge], linewidth=0.4)


def _cell_colors(sheet: Sheet, counts: Tensor, strength: Tensor, left: float, top: float, cell: float) -> None:
    """All cells as one picture, a pixel each: thousands of boxes would make a page heavy."""
    colors = np.tile((255 * np.array(to_rgba(ORANGE))).astype(np.uint8), (*counts.shape, 1))
    colors[np.diag_indices(len(counts))] = (255 * np.array(to_rgba(BLUE))).astype(np.uint8)
    colors[..., 3] = (255 * strength).round().numpy()
    sheet.tile(left, top, len(counts) * cell, len(counts) * cell, colors)


def mistakes(
    inputs: Tensor | Mapping[int, Tensor], evaluation: Evaluation, count: int = 12, *, width: float = 10.0
) -> Figure:
    """The most confident mistakes, most confident first: what the network said, how surely, and what it is.

    Args:
        inputs: ``(N, C, *spatial)`` in the order of the evaluation; or, by their numbers, at least those shown.
        evaluation: What the network said about them.
        count: At most so many.
        width: Inches.
    """
    shown = {index: inputs[index] for index in evaluation.confident_mistakes(count)}
    if not shown:
        sheet = Sheet(width, 0.5)
        sheet.write(0.0, 0.25, f"No mistakes among {len(evaluation.labels):,} examples.", fontsize=11)
        return sheet.figure
    across = max(2, round(width / 1.66)) if width >= 6 else 3
    pitch, side = width / across, width / across - 0.18
    shape, scale = next(iter(shown.values())).shape, scale_of(shown.values())
    tall = height(shape, side) + (0.52 if side > 1.2 else 0.66)
    left_out, bottom = wrapped(note(shape, scale), width), math.ceil(len(shown) / across) * tall
    sheet = Sheet(width, bottom + NOTE * len(left_out))
    for place, (index, one) in enumerate(shown.items()):
        x, y = place % across * pitch, place // across * tall
        portrait(sheet, one, x, y, side, scale)
        _verdict(sheet, evaluation, index, x, y + height(shape, side), side)
    sheet.notes(bottom + 0.05, left_out)
    return sheet.figure


def _verdict(sheet: Sheet, evaluation: Evaluation, index: int, x: float, y: float, side: float) -> None:
    """The two lines below a wrongly classified example; three where it is small."""
    said, truth = (evaluation.classes[int(row[index])] for row in (evaluation.predictions, evaluation.labels))
    sure = percent(evaluation.probabilities[index].max().item(), 0)
    roomy = side > 1.2
    size = 8.0 if roomy else 7.5
    room = side + 0.14 - extent(f" {sure}" if roomy else "", size)
    said = fit(f"said {said}", room, size)
    lines = [f"{said} {sure}"] if roomy else [said, f"{sure} sure"]
    for number, text in enumerate(lines):
        sheet.write(x, y + 0.13 + 0.15 * number, text, fontsize=size, color=ORANGE)
    sheet.write(x, y + 0.13 + 0.16 * len(lines), fit(f"is {truth}", side + 0.1, size), fontsize=size)


def calibration(evaluation: Evaluation, *, width: float = 10.0) -> Figure:
    """How often the network was right when it was so sure: a reliability diagram.

    Blue bars are the accuracy of the examples whose most probable class has about the probability that stands below;
    the tick is their mean probability, and on the dotted line both are the same. Orange is certainty without success.
    Grey bars are how many examples there are.
    """
    left, across, bottom = 0.55, width - 0.65, 3.0
    sheet = Sheet(width, 4.0)
    headline = _calibrated(evaluation)
    sheet.write(0.0, 0.12, headline, fontsize=smaller(headline, width, 9))
    _shares(sheet, left, across, bottom)
    bins = evaluation.reliability()
    most = max(b.count for b in bins)
    for b in bins:
        if b.accuracy is not None and b.confidence is not None:
            x, wide = left + b.low * across + 0.02, (b.high - b.low) * across - 0.04
            right, sure = _TALL * b.accuracy, _TALL * b.confidence
            sheet.box(x, bottom - right, wide, right, BLUE)
            if sure > right:
                sheet.box(x, bottom - sure, wide, sure - right, ORANGE, 0.75)
            sheet.line([x, x + wide], [bottom - sure] * 2, INK, linewidth=1.4)
            sheet.box(x, bottom + 0.08, wide, max(0.01, 0.45 * b.count / most), MUTED, 0.6)
    return sheet.figure


def _shares(sheet: Sheet, left: float, across: float, bottom: float) -> None:
    """The frame of a square of shares, certainty to the right and success upwards, and the line where they are one."""
    sheet.write(0.0, bottom - _TALL - 0.22, "was right ↑", fontsize=8, color=MUTED)
    for share, side in ((0.0, "left"), (0.25, "center"), (0.5, "center"), (0.75, "center"), (1.0, "right")):
        sheet.line([left, left + across], [bottom - share * _TALL] * 2, linewidth=0.6)
        text = percent(share, 0)
        sheet.write(left - 0.08, bottom - share * _TALL, text, fontsize=8, color=MUTED, ha="right")
        sheet.write(left + share * across, bottom + 0.67, text, fontsize=8, color=MUTED, ha=side)
    sheet.line([left, left + across], [bottom, bottom - _TALL], INK, linestyle=(0, (1, 2)))
    sheet.write(
        left - 0.08, bottom + 0.26, "examples", fontsize=smaller("examples", left - 0.08, 8), color=MUTED, ha="right"
    )
    sheet.write(left + across, bottom + 0.87, "was sure →", fontsize=8, color=MUTED, ha="right")


def _calibrated(evaluation: Evaluation) -> str:
    """The mean certainty beside the accuracy, and how far they are apart."""
    if not len(evaluation.labels):
        return "no examples"
    sure = percent(evaluation.probabilities.amax(1).double().mean().item())
    apart = percent(evaluation.calibration_error())
    return f"{sure} sure and {percent(evaluation.accuracy)} right on average; calibration error {apart}"
