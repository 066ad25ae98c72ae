"""Diagrams of networks on paper: how wide and how large the feature maps are, and how far each layer sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .analysis import Description, Row
from .architecture import Architecture
from .operations import FC, RBF, Activation, Dropout, Input, Join, Operation, Weighted, Windowed, written
from .sheets import BLUE, INK, LINE, MUTED, ORANGE, PAPER

GREEN = "#4a8c5c"
SHOWN_NAMES = 40  # beyond this the names of neighbouring layers would overlap
PER_INCH = 6.0
FOOT = 2.0**-3  # where bars begin, so that the smallest has room for its number


def network(found: Description, title: str = "", *, width: float = 12.0) -> Figure:
    """A network from its input on the left to its output on the right.

    Above, one bar for each layer that is not merely elementwise: its height is the size of the feature map, its label
    the number of channels; arcs are connections that skip layers. Below, the receptive field of each layer and, where
    the input is too small for it, what it would be on an endless one.

    Args:
        found: The network's table.
        title: Above the picture; not given, the input's shape.
        width: In inches, at least; a deep network is wider.

    >>> from striate.analysis import describe
    >>> [axes.get_ylabel() for axes in network(describe("lenet5")).axes]
    ['size of the map', 'sees']
    """
    architecture = found.architecture or Architecture(())
    drawn = [row for row, node in zip(found.rows, architecture, strict=True) if _is_drawn(node.operation)]
    kinds = [architecture[row.name].operation for row in drawn]
    figure = Figure(figsize=(max(width, 1.5 + len(drawn) / PER_INCH), 6.5), facecolor=PAPER, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _maps(above, drawn, kinds)
    links = _links(found.rows, drawn)
    _arcs(above, drawn, links)
    _fields(below, drawn, links, found.rows[0])
    totals = found.totals
    work = "unknown" if totals.macs is None else f"{totals.macs:,}"
    name = title or f"input {written(found.rows[0].output_shape)}"
    above.set_title(
        f"{name}: {totals.parameters:,} parameters, {work} multiply-adds", loc="left", color=INK, fontsize=11
    )
    return figure


def _is_drawn(operation: Operation) -> bool:
    return isinstance(operation, Input | Windowed | FC | RBF | Join) or not (
        isinstance(operation, Activation | Dropout) or operation.word in ("BN", "LN", "GN", "IN", "LRN", "SCALE")
    )


def _color(operation: Operation) -> str:
    if isinstance(operation, Weighted | FC | RBF):
        return BLUE
    if isinstance(operation, Join):
        return GREEN
    return ORANGE if isinstance(operation, Windowed) or "POOL" in operation.word else MUTED


def _side(row: Row) -> float:
    """The size of a map: the geometric mean of its axes; 1 for a vector."""
    spatial = row.output_shape[1:]
    return math.prod(spatial) ** (1 / len(spatial)) if spatial else 1.0


def _maps(axes: Axes, rows: Sequence[Row], kinds: Sequence[Operation]) -> None:
    axes.bar(range(len(rows)), [_side(row) for row in rows], width=0.75, color=[_color(kind) for kind in kinds])
    axes.set_yscale("log", base=2)
    axes.set_ylim(FOOT, max(map(_side, rows)) * 16)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else ""))
    axes.set_ylabel("size of the map", color=INK)
    small = 8 if len(rows) <= SHOWN_NAMES else 6
    last = None
    for number, row in enumerate(rows):
        if row.output_shape[0] != last:  # the width, wherever it changes
            width = f"{row.output_shape[0]:,}"
            axes.text(number, FOOT * 1.15, width, ha="center", va="bottom", fontsize=small, color=PAPER, rotation=90)
        last = row.output_shape[0]
    drawn = set(map(_color, kinds))
    for color, kind in ((BLUE, "weights"), (ORANGE, "pooling"), (GREEN, "join"), (MUTED, "other")):
        if color in drawn:
            axes.bar([0], [0], color=color, label=kind)
    axes.legend(
        loc="upper right",
        ncols=4,
        frameon=False,
        fontsize=8,
        title="numbers: channels, where they change",
        title_fontsize=8,
    )
    _plain(axes)


def _links(rows: Sequence[Row], drawn: Sequence[Row]) -> list[tuple[int, int]]:
    """Which drawn layers read which; what is not drawn stands where its input does."""
    place = {row.name: number for number, row in enumerate(drawn)}
    for row in rows:
        if row.name not in place:
            place[row.name] = place[row.inputs[0]] if row.inputs else 0
    return [(place[name], number) for number, row in enumerate(drawn) for name in row.inputs]


def _arcs(axes: Axes, drawn: Sequence[Row], links: Sequence[tuple[int, int]]) -> None:
    """Connections from one drawn layer to another that is not the next."""
    for start, end in links:
        if end - start > 1:
            bend = min(0.35, 3 / (end - start))
            style = {"arrowstyle": "-|>", "color": MUTED, "lw": 0.6, "connectionstyle": f"arc3,rad={-bend}"}
            tip, tail = ((at, _side(drawn[at]) * 1.02) for at in (end, start))
            axes.annotate("", tip, tail, arrowprops=style, zorder=0)


def _fields(axes: Axes, drawn: Sequence[Row], links: Sequence[tuple[int, int]], first: Row) -> None:
    seen = [_mean(row.receptive_field) for row in drawn]
    endless = [_mean(row.endless) if row.endless != row.receptive_field else None for row in drawn]
    size = _side(first)
    axes.axhline(size, color=LINE, lw=1)
    axes.text(0, size * 1.05, f"the input: {written(first.output_shape[1:])}", color=MUTED, fontsize=8, va="bottom")
    for values, color, style, label in ((seen, BLUE, "-", "sees"), (endless, ORANGE, "--", "on an endless input")):
        known = [(number, value) for number, value in enumerate(values) if value]
        axes.plot(*zip(*known, strict=True) if known else ([], []), ".", color=color, ms=4)
        if known:
            axes.plot([], [], color=color, lw=1.2, ls=style, label=label)
        for start, end in links:
            heights = [value for value in (values[start], values[end]) if value]
            if len(heights) == 2:
                axes.plot((start, end), heights, color=color, lw=1.2, ls=style)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("sees", color=INK)
    step = max(1, math.ceil(len(drawn) / (SHOWN_NAMES * 2)))
    axes.set_xticks(range(0, len(drawn), step), [row.name for row in drawn[::step]], rotation=90, fontsize=7)
    axes.set_xlim(-0.7, len(drawn) - 0.3)
    _plain(axes)


def _mean(sides: Sequence[int] | None) -> float | None:
    """The geometric mean of the sides of a box; None if there is none."""
    return math.prod(sides) ** (1 / len(sides)) if sides else None


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=LINE, lw=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
