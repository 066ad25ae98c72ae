"""Makes the pictures of docs/operators.md: each is computed by calling the operator that it explains.

python tools/make_operator_pictures.py [NAME ...]

Blue is what is read, orange what is written or wins; weights that are equal have equal colours; padding is hatched.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from PIL import Image
from torch import Tensor

import striate
from striate import blocks, files
from striate.geometry import Axis, Geometry
from striate.padding import sources
from striate.receptive_field import dilated_coverage
from striate.sheets import BLUE, INK, LINE, MUTED, ORANGE, PAPER
from striate.taps import counts, taps, window_at

TARGET = Path(__file__).parents[1] / "docs" / "images" / "operators"
DPI = 150
COLORS = 64  # of the palette of a file: few flat colours, and the edges of letters between them

BLUES = LinearSegmentedColormap.from_list("blues", [PAPER, BLUE])
ORANGES = LinearSegmentedColormap.from_list("oranges", [PAPER, ORANGE])
PALE_BLUE, PALE_ORANGE, GREY = "#cfe2f3", "#f8d9c4", "#eef1f4"
# Light enough to write on; the first four are told apart with every kind of colour vision.
HUES = ["#f5b78f", "#9cc7ec", "#f4e08a", "#a9d6bb", "#d3b8e6", "#e3e7eb", "#f2a7b5", "#c8b597", "#8fd6d9"]

Cell = tuple[int, ...]


class Sheet:
    """A figure with one axes that is measured in inches from the top left corner."""

    def __init__(self, height: float, width: float = 7.0) -> None:
        self.figure = Figure(figsize=(width, height), facecolor=PAPER)
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0.0, width), ylim=(height, 0.0), autoscale_on=False)

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        given: dict[str, Any] = {"fontsize": 9.5, "color": INK, "va": "center", "ha": "left"} | style
        self.axes.text(x, y, text, fontfamily=given.pop("family", "DejaVu Sans"), parse_math=False, **given)

    def title(self, x: float, y: float, text: str, note: str = "", **style: Any) -> None:
        """What is drawn below, with a second line in grey."""
        self.write(x, y, text, fontweight="bold", **style)
        if note:
            self.write(x, y + 0.19, note, color=MUTED, fontsize=8.5, **style)

    def box(self, x: float, y: float, width: float, height: float, color: str, **style: Any) -> None:
        given: dict[str, Any] = {"facecolor": color, "edgecolor": "none", "linewidth": 0.0} | style
        self.axes.add_patch(Rectangle((x, y), width, height, **given))

    def frame(self, x: float, y: float, width: float, height: float, color: str, **style: Any) -> None:
        given: dict[str, Any] = {"linewidth": 2.2, "zorder": 4} | style
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor="none", edgecolor=color, **given))

    def line(self, xs: Sequence[float], ys: Sequence[float], color: str = LINE, **style: Any) -> None:
        given: dict[str, Any] = {"linewidth": 1.0, "solid_capstyle": "butt"} | style
        self.axes.plot(xs, ys, color=color, **given)

    def ring(self, x: float, y: float, radius: float, color: str, **style: Any) -> None:
        given: dict[str, Any] = {"facecolor": "none", "linewidth": 2.0, "zorder": 5} | style
        self.axes.add_patch(Circle((x, y), radius, edgecolor=color, **given))

    def arrow(self, x: float, y: float, length: float = 0.34, color: str = MUTED) -> None:
        self.point((x, y), (x + length, y), color)

    def point(self, start: tuple[float, float], end: tuple[float, float], color: str = MUTED, **style: Any) -> None:
        given: dict[str, Any] = {"arrowstyle": "-|>", "color": color, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", end, start, arrowprops=given | style, zorder=6)


class Grid:
    """A rectangle of cells on a sheet.

    Args:
        sheet: What to draw on.
        x: Left edge, inches.
        y: Top edge.
        shape: Rows and columns.
        cell: Side of a cell.
        size: Points of the numbers in it.
    """

    def __init__(self, sheet: Sheet, x: float, y: float, shape: Cell, cell: float, size: float = 9.5) -> None:
        self.sheet, self.x, self.y, self.shape, self.cell, self.size = sheet, x, y, shape, cell, size
        self.width, self.height = shape[1] * cell, shape[0] * cell

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    def centre(self, at: Cell) -> tuple[float, float]:
        return self.x + (at[1] + 0.5) * self.cell, self.y + (at[0] + 0.5) * self.cell

    def cells(self) -> Iterable[Cell]:
        return product(*map(range, self.shape))

    def draw(
        self,
        fill: Callable[[Cell], str | None] = lambda at: None,
        text: Callable[[Cell], object] = lambda at: "",
        ink: Callable[[Cell], str] = lambda at: INK,
        padding: Callable[[Cell], bool] = lambda at: False,
    ) -> Grid:
        for at in self.cells():
            left, top = self.x + at[1] * self.cell, self.y + at[0] * self.cell
            hatched = {"hatch": "////", "hatch_linewidth": 0.7} if padding(at) else {}
            edge = "#c4ced6"
            color = fill(at) or PAPER
            self.sheet.box(left, top, self.cell, self.cell, color, edgecolor=edge, linewidth=0.8, zorder=1, **hatched)
            if (shown := str(text(at))) != "":
                self.sheet.write(*self.centre(at), shown, ha="center", fontsize=self.size, color=ink(at), zorder=5)
        return self

    def outline(self, corner: Cell, shape: Cell, color: str, **style: Any) -> None:
        left, top = self.x + corner[1] * self.cell, self.y + corner[0] * self.cell
        self.sheet.frame(left, top, shape[1] * self.cell, shape[0] * self.cell, color, **style)

    def ring(self, at: Cell, color: str, **style: Any) -> None:
        self.sheet.ring(*self.centre(at), 0.4 * self.cell, color, **style)


def number(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if digits else f"{round(value)}".replace("-", "−")


def plane(values: Sequence[Sequence[float]]) -> Tensor:
    """Rows of numbers as a batch of one picture of one channel."""
    return torch.tensor(values, dtype=torch.float64)[None, None]


def ramp(colors: LinearSegmentedColormap, share: float) -> str:
    return to_hex(colors(min(max(share, 0.0), 1.0)))


def readable(color: str) -> str:
    """Ink on light colours, paper on dark ones."""
    red, green, blue = to_rgb(color)
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 else PAPER


PICTURE = [[1, 0, 2, 1, 0], [0, 3, 1, 0, 2], [2, 1, 0, 1, 1], [0, 2, 1, 3, 0], [1, 0, 0, 2, 1]]
EDGE = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]


def conv() -> Sheet:
    sheet = Sheet(3.35)
    x, weight, window = plane(PICTURE), plane(EDGE), Geometry.window(2, 3, stride=2, padding=1)
    y, at, cell = striate.conv(x, weight, stride=2, padding=1)[0, 0], (1, 0), 0.33
    reads = {read: tap for tap, read in window_at(window, (5, 5), at)}
    sheet.title(0.15, 0.2, "input 5×5", "padding 1 (hatched), stride 2")
    image = Grid(sheet, 0.15, 0.58, (7, 7), cell)
    image.draw(
        fill=lambda c: PALE_BLUE if (c[0] - 1, c[1] - 1) in reads else None,
        text=lambda c: number(float(x[0, 0, c[0] - 1, c[1] - 1])) if _inside(c, 1, 5) else "",
        padding=lambda c: not _inside(c, 1, 5),
    )
    corner = (at[0] * 2, at[1] * 2)
    image.outline(corner, (3, 3), BLUE)
    sheet.write(image.right + 0.22, image.middle, "⊙", ha="center", fontsize=15)
    sheet.title(3.0, 0.88, "kernel 3×3", "nine taps")
    kernel = Grid(sheet, 3.0, 1.26, (3, 3), cell).draw(
        fill=lambda c: PALE_BLUE if c in reads.values() else GREY, text=lambda c: number(EDGE[c[0]][c[1]])
    )
    kernel.outline((0, 0), (3, 3), BLUE)
    sheet.arrow(kernel.right + 0.2, image.middle, 0.4)
    sheet.title(4.85, 0.88, "output 3×3", "one number per window")
    out = Grid(sheet, 4.85, 1.26, (3, 3), cell).draw(
        fill=lambda c: PALE_ORANGE if c == at else None, text=lambda c: number(float(y[c]))
    )
    out.outline(at, (1, 1), ORANGE)
    terms = [
        f"{number(float(x[0, 0, read[0], read[1]]))}·{_signed(EDGE[tap[0]][tap[1]])}"
        for read, tap in sorted(reads.items())
        if EDGE[tap[0]][tap[1]]
    ]
    total = f"{' + '.join(terms)} = {number(float(y[at]))}"
    sheet.write(0.15, 3.13, f"out[{at[0]}, {at[1]}] = {total}      (zeros of kernel and padding add nothing)")
    return sheet


def _signed(value: float) -> str:
    return number(value) if value >= 0 else f"({number(value)})"


def _inside(cell: Cell, before: int, size: int) -> bool:
    return all(before <= n < before + size for n in cell)


def conv_dilation() -> Sheet:
    sheet = Sheet(3.1)
    for column, dilation in enumerate((1, 2, 3)):
        left, cell = 0.15 + column * 2.3, 0.29
        window = Geometry.window(2, 3, dilation=dilation)
        extent = window.extent[0]
        corner = ((7 - extent) // 2,) * 2
        read = {place for _, place in window_at(window, (7, 7), corner)}
        sheet.title(left, 0.2, f"dilation={dilation}", f"spans {extent}×{extent}, reads {len(read)}")
        grid = Grid(sheet, left, 0.6, (7, 7), cell).draw(fill=_among(read, PALE_BLUE), text=_among(read, "w"))
        grid.outline(corner, (extent, extent), BLUE)
    sheet.write(0.15, 2.9, "The window spans dilation · (K − 1) + 1 inputs; the holes between its taps are not read.")
    return sheet


def _among(cells: Iterable[Cell], value: str) -> Callable[[Cell], str]:
    held = set(cells)
    return lambda cell: value if cell in held else ""


def conv_padding() -> Sheet:
    sheet = Sheet(3.55)
    size, kernel, stride = 6, 4, 1
    sheet.title(0.15, 0.2, "padding words", f"6 inputs, kernel {kernel}, stride {stride}")
    sheet.title(3.8, 0.2, "padding modes", "what 3 rows on each side hold")
    for row, word in enumerate(("valid", "same", "same_lower", "full", "causal")):
        axis = Geometry.window(1, kernel, padding=word, size=(size,)).axes[0]
        y, cell = 0.68 + row * 0.56, 0.19
        sheet.write(0.15, y + cell / 2, f'"{word}"', family="DejaVu Sans Mono", fontsize=8.5)
        _strip(sheet, 1.2 + (3 - axis.before) * cell, y, cell, axis, size)
        outputs = axis.output_size(size)
        sheet.write(
            1.2, y + cell + 0.13, f"{axis.before} + 6 + {axis.after} → {outputs} outputs", fontsize=8, color=MUTED
        )
    for row, mode in enumerate(("zeros", "reflect", "replicate", "circular")):
        y, cell = 0.68 + row * 0.56, 0.19
        held: list[int | None] = [None, None, None, *range(5), None, None, None]
        if mode != "zeros":
            held = [*sources(mode, 5, 3, 3)]
        shades = [GREY if i is None else ramp(BLUES, 0.15 + 0.18 * i) for i in held]
        letters = ["0" if i is None else "abcde"[i] for i in held]
        sheet.write(3.8, y + cell / 2, f'"{mode}"', family="DejaVu Sans Mono", fontsize=8.5)
        grid = Grid(sheet, 4.72, y, (1, 11), cell, 7.5).draw(
            fill=lambda c, shades=shades: shades[c[1]],  # type: ignore[misc]
            text=lambda c, letters=letters: letters[c[1]],  # type: ignore[misc]
            ink=lambda c, shades=shades: readable(shades[c[1]]),  # type: ignore[misc]
        )
        grid.outline((0, 3), (1, 5), INK, linewidth=1.4)
    return sheet


def _strip(sheet: Sheet, x: float, y: float, cell: float, axis: Axis, size: int) -> None:
    """One axis with its padding; the first window stands over it."""
    total = axis.before + size + axis.after
    strip = Grid(sheet, x, y, (1, total), cell)
    strip.draw(
        fill=lambda c: PALE_BLUE if 0 <= c[1] - axis.before < size else None,
        padding=lambda c: not 0 <= c[1] - axis.before < size,
    )
    strip.outline((0, 0), (1, axis.extent), ORANGE, linewidth=1.8)


def conv_groups() -> Sheet:
    sheet = Sheet(2.75)
    kinds = [("groups=1", 6, 6, 1), ("groups=2", 6, 6, 2), ("groups=3: depthwise", 3, 6, 3)]
    for column, (name, channels, outputs, groups) in enumerate(kinds):
        left, width = 0.35 + column * 2.3, 1.75
        shape = Geometry.window(2, 3, groups=groups).weight_shape(channels, outputs)
        sheet.title(left - 0.2, 0.2, name, f"weight {shape[0]}×{shape[1]}×3×3")
        top, bottom = 0.95, 2.1
        places = [[left + (n + 0.5) * width / count for n in range(count)] for count in (outputs, channels)]
        each = channels // groups
        for o, block in enumerate(_blocks(outputs, groups)):
            for c in range(block * each, (block + 1) * each):
                color = [ORANGE, BLUE, MUTED][block % 3] if groups > 1 else MUTED
                sheet.line([places[0][o], places[1][c]], [top, bottom], color, linewidth=1.1, zorder=1)
        for y, xs, count in ((top, places[0], outputs), (bottom, places[1], channels)):
            for n, x in enumerate(xs):
                color = [ORANGE, BLUE, MUTED][_blocks(count, groups)[n] % 3] if groups > 1 else MUTED
                sheet.ring(x, y, 0.1, color, facecolor=PAPER)
        sheet.write(left + width / 2, top - 0.22, f"{outputs} output channels", ha="center", fontsize=8.5)
        sheet.write(left + width / 2, bottom + 0.24, f"{channels} input channels", ha="center", fontsize=8.5)
    sheet.write(0.15, 2.6, "Each line is one 3×3 kernel.", fontsize=8.5, color=MUTED)
    return sheet


def _blocks(count: int, groups: int) -> list[int]:
    return [n // (count // groups) for n in range(count)]


def conv_transpose() -> Sheet:
    sheet = Sheet(3.45)
    window = Geometry.window(2, 3, stride=2, transposed=True)
    size, sources_ = (3, 3), ((0, 0), (1, 1))
    shape = window.output_size(size)
    reads = {at: {i for _, i in window_at(window, size, at)} for at in product(*map(range, shape))}
    cell = 0.34
    sheet.title(0.15, 0.2, "input 3×3", "two of its positions")
    tints: dict[Cell, str] = {sources_[0]: PALE_BLUE, sources_[1]: PALE_ORANGE}
    names: dict[Cell, str] = {sources_[0]: "a", sources_[1]: "b"}
    image = Grid(sheet, 0.15, 1.25, size, cell).draw(fill=lambda c: tints.get(c), text=lambda c: names.get(c, ""))
    for source, color in zip(sources_, (BLUE, ORANGE), strict=True):
        image.outline(source, (1, 1), color)
    sheet.title(1.75, 0.2, "kernel 3×3", "the same for all")
    kernel = Grid(sheet, 1.75, 1.25, (3, 3), cell).draw(fill=lambda c: GREY, text=lambda c: f"w{_low(c[0] * 3 + c[1])}")
    sheet.write(image.right + 0.28, image.middle, "×", ha="center", fontsize=13)
    sheet.arrow(kernel.right + 0.15, image.middle)
    sheet.title(3.5, 0.2, f"output {shape[0]}×{shape[1]}", "stride 2: each input writes a whole kernel, two apart")
    out = Grid(sheet, 3.5, 0.58, shape, cell, 8)
    taps_of = {(at, i): tap for at in reads for tap, i in window_at(window, size, at)}

    def text(at: Cell) -> str:
        return "+".join(
            f"{name}w{_low(tap[0] * 3 + tap[1])}"
            for name, source in zip("ab", sources_, strict=True)
            if (tap := taps_of.get((at, source))) is not None
        )

    def fill(at: Cell) -> str | None:
        hit = [s for s in sources_ if s in reads[at]]
        return None if not hit else tints[hit[0]] if len(hit) == 1 else "#e3d6da"

    out.size = 7.2
    out.draw(fill=fill, text=lambda at: text(at) if "+" not in text(at) else "", ink=lambda at: INK)
    for source, color in zip(sources_, (BLUE, ORANGE), strict=True):
        corner = min(at for at in reads if source in reads[at])
        out.outline(corner, (3, 3), color)
    both = next(at for at in reads if "+" in text(at))
    sheet.point((out.right + 0.27, out.y + 0.2), out.centre(both), INK, linewidth=1.0)
    sheet.write(out.right + 0.2, out.y + 0.05, text(both), fontsize=8.5)
    sheet.write(
        0.15, 3.25, "Where footprints overlap, the products are added: it is the input gradient of the convolution."
    )
    return sheet


def _low(digit: int) -> str:
    return "₀₁₂₃₄₅₆₇₈₉"[digit]


def _sharing(sheet: Sheet, period: tuple[int, int], title: str, note: str) -> None:
    """Input, the kernels that there are, and which output position uses which."""
    window = Geometry.window(2, 2, period=period)
    size, cell = (5, 5), 0.36
    outputs = window.output_size(size)
    shades = _shades(math.prod(period))
    sheet.title(0.15, 0.2, "input 5×5", "two windows")
    image = Grid(sheet, 0.15, 0.62, size, cell).draw(fill=lambda c: None)
    places = [(0, 0), (2, 1)]
    kind = {at: (at[0] % period[0]) * period[1] + at[1] % period[1] for at in product(*map(range, outputs))}
    for at in places:
        for _, place in window_at(window, size, at):
            sheet.box(
                image.x + place[1] * cell,
                image.y + place[0] * cell,
                cell,
                cell,
                shades[kind[at]],
                zorder=2,
                edgecolor="#c4ced6",
                linewidth=0.8,
            )
        image.outline(at, (2, 2), INK, linewidth=1.5)
    sheet.title(2.6, 0.2, title, note)
    small = 0.17 if period[0] > 2 else 0.22
    pitch = 2 * small + 0.14
    for n, (row, column) in enumerate(product(*map(range, period))):
        mini = Grid(sheet, 2.6 + column * pitch, 0.66 + row * pitch, (2, 2), small)
        mini.draw(fill=lambda c, n=n: shades[n])  # type: ignore[misc]
        sheet.write(mini.x + small, mini.y + small, str(n), ha="center", fontsize=8.5)
    sheet.title(5.15, 0.2, "output 4×4", "colour: the kernel it uses")
    out = Grid(sheet, 5.15, 0.8, outputs, cell).draw(fill=lambda c: shades[kind[c]], text=lambda c: kind[c])
    for at in places:
        out.outline(at, (1, 1), INK, linewidth=1.5)
    sheet.arrow(4.7, 1.5, 0.3)


def _shades(count: int) -> list[str]:
    if count <= len(HUES):
        return HUES[:count]
    wheel = mpl.colormaps["hsv"]
    bright = (wheel((7 * n % count) / count)[:3] for n in range(count))
    return [to_hex((0.6 + 0.4 * red, 0.6 + 0.4 * green, 0.6 + 0.4 * blue)) for red, green, blue in bright]


def conv_local() -> Sheet:
    sheet = Sheet(2.95)
    _sharing(sheet, (4, 4), "sixteen kernels", "one for each output position")
    sheet.write(0.15, 2.75, "Local like a convolution, but nothing is shared: another place, other weights.")
    return sheet


def conv_tiled() -> Sheet:
    sheet = Sheet(2.95)
    _sharing(sheet, (2, 2), "four kernels", "period 2×2")
    sheet.write(
        0.15, 2.75, "Neighbours differ, and after two steps the kernels repeat: kernel (row mod 2, column mod 2)."
    )
    return sheet


POOLED = [[1, 5, 2, 0, 3, 1], [4, 2, 7, 1, 0, 6], [0, 3, 1, 1, 8, 2], [2, 6, 4, 9, 5, 3]]


def max_pool() -> Sheet:
    sheet = Sheet(2.6)
    x, cell = plane(POOLED), 0.38
    values, switches = striate.max_pool(x, 2, return_switches=True)
    winners = {divmod(int(place), 6) for place in switches.flatten()}
    sheet.title(0.15, 0.2, "input 4×6", "windows of 2×2; ringed: the switches")
    image = Grid(sheet, 0.15, 0.58, (4, 6), cell).draw(
        fill=_among(winners, PALE_ORANGE), text=lambda c: POOLED[c[0]][c[1]]
    )
    for corner in product((0, 2), (0, 2, 4)):
        image.outline(corner, (2, 2), BLUE, linewidth=1.6)
    for at in winners:
        image.ring(at, ORANGE)
    sheet.arrow(image.right + 0.15, image.middle)
    _two_by_three(sheet, 3.1, "output", "the largest values", values[0, 0], cell, PALE_ORANGE)
    _two_by_three(sheet, 5.0, "switches", "place in the flattened input", switches[0, 0], cell, GREY)
    sheet.write(0.15, 2.38, "The gradient of each output goes to its ringed input alone.")
    return sheet


def _two_by_three(sheet: Sheet, x: float, title: str, note: str, values: Tensor, cell: float, color: str) -> Grid:
    sheet.title(x, 0.58, title, note)
    shape = (values.shape[0], values.shape[1])
    return Grid(sheet, x, 0.96, shape, cell).draw(fill=lambda c: color, text=lambda c: number(float(values[c])))


def avg_pool() -> Sheet:
    sheet = Sheet(2.95)
    rows, cell = [[4, 2, 6, 0], [1, 5, 3, 2], [0, 4, 8, 2], [6, 1, 0, 4]], 0.33
    window = Geometry.window(2, 3, padding=1)
    y = striate.avg_pool(plane(rows), 3, stride=1, padding=1)[0, 0]
    divided = [[a * b for b in counts(window.axes[1], 4)] for a in counts(window.axes[0], 4)]
    at = (0, 1)
    reads = {place for _, place in window_at(window, (4, 4), at)}
    sheet.title(0.15, 0.2, "input 4×4", "window 3×3, padding 1")
    image = Grid(sheet, 0.15, 0.58, (6, 6), cell).draw(
        fill=lambda c: PALE_BLUE if (c[0] - 1, c[1] - 1) in reads else None,
        text=lambda c: rows[c[0] - 1][c[1] - 1] if _inside(c, 1, 4) else "",
        padding=lambda c: not _inside(c, 1, 4),
    )
    image.outline(at, (3, 3), BLUE)
    sheet.title(2.75, 0.2, "divided by", "real values in the window")
    Grid(sheet, 2.75, 0.91, (4, 4), cell).draw(
        fill=lambda c: ramp(BLUES, divided[c[0]][c[1]] / 22), text=lambda c: divided[c[0]][c[1]]
    ).outline(at, (1, 1), BLUE)
    sheet.arrow(4.3, image.middle)
    sheet.title(4.9, 0.2, "output 4×4", "means of real values")
    Grid(sheet, 4.9, 0.91, (4, 4), 0.42, 8.5).draw(
        fill=lambda c: PALE_ORANGE if c == at else None, text=lambda c: number(float(y[c]), 1)
    ).outline(at, (1, 1), ORANGE)
    total = sum(rows[r][c] for r, c in reads)
    terms = " + ".join(str(rows[r][c]) for r, c in sorted(reads))
    sheet.write(
        0.15,
        2.76,
        f"out[{at[0]}, {at[1]}] = ({terms}) / {len(reads)} = {total / len(reads):.1f}: no zeros from the padding.",
    )
    return sheet


def lp_pool() -> Sheet:
    sheet = Sheet(3.1)
    signal = [0, 1, -4, 2, 1, 0, 0, 0, 0, 3, -3, 3, 0, 0, -5, 0]
    x = torch.tensor(signal, dtype=torch.float64)[None, None]
    powers: list[tuple[str, float]] = [
        ("p = 1: sum of |x|", 1.0),
        ("p = 2: length", 2.0),
        ("p = ∞: largest |x|", math.inf),
    ]
    left, pitch = 2.05, 0.3
    sheet.title(0.15, 0.2, "lp_pool(x, 4, p=...)", "windows of 4 side by side")
    base, unit = 0.72, 0.075
    sheet.write(0.15, base, "x", ha="left")
    for n, value in enumerate(signal):
        color = ORANGE if value > 0 else BLUE
        sheet.box(left + n * pitch + 0.05, base, pitch - 0.1, -value * unit, color)
        if value:
            sheet.write(
                left + (n + 0.5) * pitch,
                base - value * unit - math.copysign(0.1, value),
                number(value),
                ha="center",
                fontsize=8,
            )
    sheet.line([left, left + 16 * pitch], [base, base], MUTED)
    for row, (name, p) in enumerate(powers):
        y, base = striate.lp_pool(x, 4, p=p)[0, 0], 1.85 + row * 0.5
        sheet.write(0.15, base - 0.12, name)
        sheet.line([left, left + 16 * pitch], [base, base], MUTED)
        for n, value in enumerate(y.tolist()):
            height = value * 0.04
            sheet.box(left + 4 * n * pitch + 0.1, base, 4 * pitch - 0.2, -height, "#e9a27c")
            level = base - height / 2 if height > 0.14 else base - height - 0.09
            sheet.write(left + (4 * n + 2) * pitch, level, f"{value:.3g}", ha="center", fontsize=9)
    for n in range(5):
        sheet.line([left + 4 * n * pitch] * 2, [0.4, 2.9], LINE, zorder=0, linestyle=(0, (2, 2)))
    return sheet


def gaussian_pool() -> Sheet:
    sheet = Sheet(3.0)
    cell, size = 0.4, 5

    def weights(at: Cell) -> Tensor:
        x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        striate.gaussian_pool(x, 5, stride=1, padding=2)[0, 0, at[0], at[1]].backward()
        return torch.zeros(size, size) if x.grad is None else x.grad[0, 0]

    for column, (at, name) in enumerate((((2, 2), "in the middle"), ((2, 0), "at an edge"), ((0, 0), "in a corner"))):
        held, left = weights(at), 0.15 + column * 2.32
        real = int((held > 0).sum())
        sheet.title(left, 0.2, name, f"{real} real values share weight 1")
        grid = Grid(sheet, left, 0.58, (size, size), cell, 8).draw(
            fill=lambda c, held=held: ramp(BLUES, float(held[c]) * 3.6),  # type: ignore[misc]
            text=lambda c, held=held: f"{100 * float(held[c]):.0f}" if held[c] else "",  # type: ignore[misc]
            ink=lambda c, held=held: readable(ramp(BLUES, float(held[c]) * 3.6)),  # type: ignore[misc]
        )
        grid.ring(at, ORANGE)
        spans = [(max(n - 2, 0), min(n + 3, size)) for n in at]
        grid.outline((spans[0][0], spans[1][0]), (spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]), BLUE)
    sheet.write(0.15, 2.8, "Weights in percent, 5×5 window, sigma 5/4; ringed: the window's centre.")
    return sheet


def adaptive() -> Sheet:
    sheet = Sheet(3.65)
    for row, (size, outputs) in enumerate(((6, 3), (7, 3), (3, 5))):
        x = torch.arange(1.0, size + 1, dtype=torch.float64).view(1, 1, size).requires_grad_()
        y = striate.adaptive_avg_pool(x, outputs)[0, 0]
        held = [torch.autograd.grad(value, x, retain_graph=True)[0][0, 0] > 0 for value in y]
        top, left, width = 0.48 + row * 1.06 + (0.08 if row == 2 else 0), 1.6, 5.1
        even = size % outputs == 0
        sheet.title(
            0.15,
            top + 0.1,
            f"{size} → {outputs}",
            "equal bins" if even else "repeated" if outputs > size else "shared ends",
        )
        step = width / size
        for n in range(size):
            sheet.box(left + n * step, top + 0.42, step, 0.26, PALE_BLUE, edgecolor="#c4ced6", linewidth=0.8)
            sheet.write(left + (n + 0.5) * step, top + 0.55, f"{n}", ha="center")
        ends: list[float] = []  # of the last bracket on each level
        for o, mask in enumerate(held):
            places = [n for n in range(size) if mask[n]]
            level = next((n for n, end in enumerate(ends) if end < places[0]), len(ends))
            ends[level : level + 1] = [places[-1]]
            inset, color = 0.05 + 0.05 * level, ORANGE if o % 2 == 0 else BLUE
            start, end = left + places[0] * step + inset, left + (places[-1] + 1) * step - inset
            y0 = top + 0.28 - 0.18 * level
            sheet.line([start, start, end, end], [top + 0.38, y0, y0, top + 0.38], color, linewidth=1.6)
            white = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
            sheet.write((start + end) / 2, y0 - 0.01, f" {o} ", ha="center", fontsize=8.5, color=color, bbox=white)
    sheet.write(0.15, 0.2, "adaptive poolings: which inputs (boxes) each output (brackets) reads", fontweight="bold")
    return sheet


def max_unpool() -> Sheet:
    sheet = Sheet(2.6)
    x, cell = plane(POOLED), 0.36
    values, switches = striate.max_pool(x, 2, return_switches=True)
    back = striate.max_unpool(values, switches, (4, 6))[0, 0]
    winners = {divmod(int(place), 6) for place in switches.flatten()}
    sheet.title(0.15, 0.58, "pooled", "by 2×2")
    pooled = Grid(sheet, 0.15, 0.96, (2, 3), cell).draw(
        fill=lambda c: PALE_ORANGE, text=lambda c: number(float(values[0, 0][c]))
    )
    sheet.title(1.75, 0.58, "switches", "of the pooling")
    kept = Grid(sheet, 1.75, 0.96, (2, 3), cell).draw(fill=lambda c: GREY, text=lambda c: int(switches[0, 0][c]))
    sheet.arrow(kept.right + 0.17, pooled.middle)
    sheet.title(3.6, 0.2, "output 4×6", "each value at its switch, zeros elsewhere")
    out = Grid(sheet, 3.6, 0.58, (4, 6), cell).draw(
        fill=_among(winners, PALE_ORANGE),
        text=lambda c: number(float(back[c])),
        ink=lambda c: INK if c in winners else "#9aa7b2",
    )
    for at in winners:
        out.ring(at, ORANGE)
    sheet.write(0.15, 2.38, "The places are counted row by row: switch 8 is row 1, column 2 of the 6 columns.")
    return sheet


def maxout() -> Sheet:
    sheet = Sheet(2.75)
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 10, (1, 6, 3, 3), generator=generator).double()
    y = striate.maxout(x, 3)[0]
    tints = [(ORANGE, PALE_ORANGE), (BLUE, PALE_BLUE)]
    sheet.title(0.15, 0.2, "six channels", "pieces=3: three channels compete at each position")
    for channel in range(6):
        left = 0.15 + channel * 1.13
        best = y[channel // 3]
        strong, pale = tints[channel // 3]
        grid = Grid(sheet, left, 0.6, (3, 3), 0.28, 8.5).draw(
            fill=lambda c, n=channel, best=best, pale=pale: pale if x[0, n][c] == best[c] else None,  # type: ignore[misc]
            text=lambda c, n=channel: number(float(x[0, n][c])),  # type: ignore[misc]
        )
        grid.outline((0, 0), (3, 3), strong, linewidth=1.6)
        sheet.point(
            (left + 0.42, 1.48), (1.7 + (channel // 3) * 3.39 + (channel % 3 - 1) * 0.16, 1.76), strong, linewidth=1.1
        )
    for group in range(2):
        strong, pale = tints[group]
        Grid(sheet, 1.28 + group * 3.39, 1.8, (3, 3), 0.28, 8.5).draw(
            fill=lambda c, pale=pale: pale,  # type: ignore[misc]
            text=lambda c, group=group: number(float(y[group][c])),  # type: ignore[misc]
        ).outline((0, 0), (3, 3), strong, linewidth=1.6)
        sheet.write(1.28 + group * 3.39 - 0.12, 2.22, f"channel {group}", ha="right", fontsize=9)
    return sheet


def local_response_norm() -> Sheet:
    sheet = Sheet(3.2)
    values = [1.0, 2.0, 6.0, 1.0, 2.0, 1.0, 1.0, 5.0, 1.0, 2.0]
    x = torch.tensor(values, dtype=torch.float64).view(1, -1, 1)
    options: dict[str, Any] = {"alpha": 1.0, "beta": 0.75, "k": 1.0}
    y = striate.local_response_norm(x, 5, **options)[0, :, 0]
    left, pitch, size, chosen = 1.0, 0.57, 5, 3
    axis = Axis(size, before=size // 2, after=(size - 1) // 2)
    read = [i for o, _, i in taps(axis, len(values)) if o == chosen]
    sheet.write(
        0.15,
        0.2,
        f"one position: channel {chosen} is divided by what channels {read[0]} to {read[-1]} hold",
        fontweight="bold",
    )
    for name, heights, base, unit, color in (
        ("in", values, 1.55, 0.16, "#7fb2de"),
        ("out", y.tolist(), 2.62, 0.55, "#e9a27c"),
    ):
        sheet.write(0.15, base - 0.12, name)
        sheet.line([left, left + pitch * len(values)], [base, base], MUTED)
        for n, value in enumerate(heights):
            strong = (name == "in" and n in read) or (name == "out" and n == chosen)
            shade = {True: BLUE if name == "in" else ORANGE, False: color}[strong]
            sheet.box(left + n * pitch + 0.08, base, pitch - 0.16, -value * unit, shade)
            sheet.write(
                left + (n + 0.5) * pitch,
                base - value * unit - 0.1,
                f"{value:.3g}" if name == "in" else f"{value:.2f}",
                ha="center",
                fontsize=8.5,
            )
    start, end = left + read[0] * pitch + 0.03, left + (read[-1] + 1) * pitch - 0.03
    sheet.line([start, start, end, end], [1.6, 1.68, 1.68, 1.6], BLUE, linewidth=1.6)
    target = left + (chosen + 0.5) * pitch
    sheet.point((target, 1.7), (target, 2.62 - float(y[chosen]) * 0.55 - 0.2), BLUE)
    for n in range(len(values)):
        sheet.write(left + (n + 0.5) * pitch, 2.74, f"{n}", ha="center", fontsize=8, color=MUTED)
    sheet.write(0.15, 2.74, "channel", fontsize=8, color=MUTED)
    sheet.write(0.15, 3.02, "size 5, alpha 1, beta 0.75, k 1: a loud channel keeps its neighbours quiet.")
    return sheet


def unfold() -> Sheet:
    sheet = Sheet(3.5)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    columns = striate.unfold(x, 3).flatten(2, 3).flatten(-2)[0, 0]
    cell = 0.3
    sheet.title(0.15, 0.2, "input 4×4", "window 3×3: four positions")
    at = (0, 1)
    read = {place for _, place in window_at(Geometry.window(2, 3), (4, 4), at)}
    image = Grid(sheet, 0.15, 1.3, (4, 4), 0.36).draw(
        fill=_among(read, PALE_BLUE), text=lambda c: number(float(x[0, 0][c]))
    )
    image.outline(at, (3, 3), BLUE)
    sheet.arrow(image.right + 0.2, image.middle, 0.45)
    sheet.title(2.75, 0.2, "columns 9×4", "a column per window")
    grid = Grid(sheet, 2.75, 0.58, (9, 4), cell, 8.5).draw(
        fill=lambda c: PALE_BLUE if c[1] == 1 else None, text=lambda c: number(float(columns[c]))
    )
    grid.outline((0, 1), (9, 1), BLUE)
    sheet.title(4.6, 1.3, "a convolution is", "one matrix product:")
    row = Grid(sheet, 4.6, 1.75, (1, 9), 0.18).draw(fill=lambda c: PALE_ORANGE)
    sheet.write(row.right, row.middle, " · columns", fontsize=9)
    sheet.write(4.6, 2.08, "weight 1×9", fontsize=8.5, color=MUTED)
    return sheet


def fold() -> Sheet:
    sheet = Sheet(3.5)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    held = striate.unfold(x, 3)
    columns, back = held.flatten(2, 3).flatten(-2)[0, 0], striate.fold(held, 4)[0, 0]
    times = striate.fold(torch.ones_like(held), 4)[0, 0]
    sheet.title(0.15, 0.2, "columns 9×4", "of a 3×3 window")
    grid = Grid(sheet, 0.15, 0.58, (9, 4), 0.3, 8.5).draw(
        fill=lambda c: PALE_BLUE if c[1] == 1 else None, text=lambda c: number(float(columns[c]))
    )
    grid.outline((0, 1), (9, 1), BLUE)
    sheet.arrow(grid.right + 0.2, 1.85, 0.45)
    sheet.title(2.45, 0.62, "output 4×4", "columns added back")
    out = Grid(sheet, 2.45, 1.1, (4, 4), 0.4).draw(
        fill=_among({p for _, p in window_at(Geometry.window(2, 3), (4, 4), (0, 1))}, PALE_BLUE),
        text=lambda c: number(float(back[c])),
    )
    out.outline((0, 1), (3, 3), BLUE)
    sheet.write(out.right + 0.22, out.middle, "=", ha="center", fontsize=13)
    sheet.title(4.6, 0.62, "input × times read", "fold(unfold(x))")
    Grid(sheet, 4.6, 1.1, (4, 4), 0.46, 8.5).draw(
        fill=lambda c: ramp(ORANGES, float(times[c]) / 12),
        text=lambda c: f"{number(float(x[0, 0][c]))}·{number(float(times[c]))}",
    )
    sheet.write(2.45, 3.28, "fold adds; it is the adjoint of unfold, not its inverse.")
    return sheet


def matrix() -> Sheet:
    sheet = Sheet(3.75)
    line = torch.tensor([[[1.0, 2.0, 3.0]]])
    square = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    circles: dict[str, Any] = {"flip": True, "padding": "causal", "padding_mode": "circular"}
    panels: list[tuple[str, str, Tensor, float]] = [
        ("Toeplitz", '3 taps over 5, "full"', striate.matrix(line, 5, flip=True, padding="full"), 0.2),
        ("circulant", "padding circles", striate.matrix(line, 6, **circles), 0.24),
        ("doubly block circulant", "2×2 kernel over 4×4", striate.matrix(square, (4, 4), **circles), 0.165),
    ]
    left = 0.15
    for title, note, held, cell in panels:
        shape = (held.shape[0], held.shape[1])
        sheet.title(left, 0.2, title, f"{note}: {shape[0]}×{shape[1]}")
        grid = Grid(sheet, left, 0.58, shape, cell, 8).draw(
            fill=lambda c, held=held: HUES[int(held[c]) - 1] if held[c] else None,  # type: ignore[misc]
            text=lambda c, held=held, cell=cell: "abcd"[int(held[c]) - 1] if held[c] and cell > 0.19 else "",  # type: ignore[misc]
        )
        if shape == (16, 16):
            for block in product(range(4), range(4)):
                grid.outline((4 * block[0], 4 * block[1]), (4, 4), MUTED, linewidth=1.0)
        left += grid.width + 0.9 if title == "Toeplitz" else 1.95
    sheet.write(0.15, 2.75, "Equal weights, equal colours;", fontsize=9)
    sheet.write(0.15, 2.95, "white is zero. One row per output,", fontsize=9)
    sheet.write(0.15, 3.15, "one column per input.", fontsize=9)
    return sheet


def hybrid_dilated() -> Sheet:
    sheet = Sheet(2.95)
    size = 17
    for column, rates in enumerate(((2, 2, 2), (3, 3, 2), (1, 2, 5))):
        left, cell = 0.15 + column * 2.32, 0.124
        x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        y: Tensor = x
        for rate in rates:
            y = striate.conv(y, torch.ones(1, 1, 3, 3, dtype=torch.float64), dilation=rate, padding="same")
        held = torch.autograd.grad(y[0, 0, size // 2, size // 2], x)[0][0, 0]
        (read, span), most = dilated_coverage(rates), float(held.max())
        sheet.title(
            left, 0.2, f"rates {', '.join(map(str, rates))}", f"reads {(read / span) ** 2:.0%} of {span}×{span}"
        )
        grid = Grid(sheet, left, 0.58, (size, size), cell).draw(
            fill=lambda c, held=held, most=most: ramp(BLUES, 0.9 * (float(held[c]) / most) ** 0.5)  # type: ignore[misc]
        )
        corner = ((size - span) // 2,) * 2
        grid.outline(corner, (span, span), BLUE, linewidth=1.8)
        grid.outline((size // 2, size // 2), (1, 1), ORANGE, linewidth=1.8)
    return sheet


def rotation_pool() -> Sheet:
    sheet = Sheet(2.75)
    block = blocks.RotationPool(1, 1, 3, bias=False, padding="valid")
    edge, cell = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]]), 0.3
    with torch.no_grad():
        block.bank.get_parameter("weight").copy_(edge[None, None])
        kernels = block.rotated()[0, :, 0]
        picture = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        answers = [float((kernel * picture).sum()) for kernel in kernels]
        best = float(block(picture[None, None]))
    sheet.title(0.15, 0.2, "input", "a vertical edge")
    window = Grid(sheet, 0.15, 0.75, (3, 3), cell).draw(
        fill=lambda c: PALE_BLUE, text=lambda c: number(float(picture[c]))
    )
    window.outline((0, 0), (3, 3), BLUE)
    sheet.title(1.65, 0.2, "one learned kernel, turned", "and what each answers")
    for n, (kernel, angle) in enumerate(zip(kernels, block.angles, strict=True)):
        wins = answers[n] == best
        grid = Grid(sheet, 1.65 + n * 1.12, 0.75, (3, 3), cell, 8.5).draw(
            fill=lambda c, kernel=kernel: [PALE_BLUE, GREY, PALE_ORANGE][int(kernel[c]) + 1],  # type: ignore[misc]
            text=lambda c, kernel=kernel: number(float(kernel[c])),  # type: ignore[misc]
        )
        if wins:
            grid.outline((0, 0), (3, 3), ORANGE)
        middle = grid.x + grid.width / 2
        sheet.write(middle, grid.bottom + 0.17, f"{angle}°", ha="center", fontsize=8.5, color=MUTED)
        sheet.write(middle, grid.bottom + 0.42, number(answers[n]), ha="center", color=ORANGE if wins else INK)
    sheet.write(0.15, window.bottom + 0.42, "answers")
    sheet.write(0.15, 2.53, f"out = {number(best)}, the largest: the edge is found whichever way it runs.")
    return sheet


PICTURES: dict[str, Callable[[], Sheet]] = {
    function.__name__: function
    for function in (
        conv, conv_dilation, conv_padding, conv_groups, conv_transpose, conv_local, conv_tiled, max_pool, avg_pool,
        lp_pool, gaussian_pool, adaptive, max_unpool, maxout, local_response_norm, unfold, fold, matrix,
        hybrid_dilated, rotation_pool,
    )
}  # fmt: skip


def encoded(figure: Figure) -> bytes:
    """The figure as a PNG of few colours, with nothing of the machine or the moment in it."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()  # type: ignore[no-untyped-call]
    raw = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    pixels = Image.frombuffer("RGBA", canvas.get_width_height(), raw).convert("RGB")
    few = pixels.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    held = io.BytesIO()
    few.save(held, "PNG", optimize=True)
    return held.getvalue()


def main(names: Sequence[str]) -> None:
    for name in names or PICTURES:
        content = encoded(PICTURES[name]().figure)
        files.write(TARGET / f"{name}.png", content)
        print(f"{TARGET / name}.png: {len(content):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
