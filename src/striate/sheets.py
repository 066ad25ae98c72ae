"""Sheets to draw on, measured in inches, with text that fits and colours that mean the same everywhere.

One visual language: blue is the test data and what is right, orange is a mistake, grey is context. Numbers with a sign
are blue below zero, white at zero and orange above. Blue and orange differ for every kind of colour vision.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

THEME = {
    "paper": "#ffffff",
    "ink": "#22303c",
    "muted": "#63717d",
    "line": "#d4dbe1",
    "blue": "#1f6fb2",
    "orange": "#c2541b",
}
"""The colours of lines and text by their role. A page may replace them, for a dark background for example."""

SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#08315f", "#2f7fc1", "#bcd7ee", "#f8f8f6", "#f7cfb2", "#d9702a", "#6d2703"], N=511
)
"""Negative, zero and positive numbers; the middle of its 511 colours is exactly zero."""

PAPER, INK, MUTED, LINE, BLUE, ORANGE = THEME.values()
LISTED = 40
"""Of more classes than this, the best and the worst are listed."""

NOTE = 0.17
"""Inches from one line of notes to the next."""

Numbers = Sequence[float] | np.ndarray[Any, Any]
Row = TypeVar("Row")

# Families with East Asian letters, as Linux, macOS and Windows install them; those that are missing are not asked for.
_FALLBACKS = [
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS"),
]


class Sheet:
    """A figure with a single axes that is measured in inches from the top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), facecolor=PAPER)
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0.0, width), ylim=(height, 0.0), autoscale_on=False)

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text that begins at a place, or as ``ha`` and ``va`` say."""
        write(self.axes, x, y, text, **style)

    def box(
        self, x: float, y: float, width: float, height: float, color: str, alpha: float = 1.0, **style: Any
    ) -> None:
        """A filled rectangle without an edge."""
        box = Rectangle((x, y), width, height, facecolor=color, edgecolor="none", alpha=alpha, **style)
        self.axes.add_patch(box)

    def line(self, xs: Numbers, ys: Numbers, color: str = LINE, **style: Any) -> None:
        """A line through some points."""
        self.axes.plot(xs, ys, color=color, **({"linewidth": 0.8} | style))

    def area(self, xs: Numbers, ys: Numbers, color: str, edge: float = 0.0) -> None:
        """A filled polygon, with an edge of so many points in its colour."""
        self.axes.fill(xs, ys, facecolor=color, edgecolor=color if edge else "none", linewidth=edge)

    def notes(self, y: float, lines: Sequence[str]) -> None:
        """Small lines of text below a figure."""
        for row, line in enumerate(lines):
            self.write(0.0, y + NOTE * row, line, fontsize=8, color=MUTED)

    def tile(self, x: float, y: float, width: float, height: float, pixels: np.ndarray[Any, Any]) -> None:
        """Draw ``(H, W, 3 or 4)`` pixels into a box, each source pixel as a sharp rectangle."""
        image = AxesImage(self.axes, extent=(x, x + width, y + height, y), origin="upper", interpolation="none")
        image.set_data(pixels)
        self.axes.add_image(image)


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text exactly as it is given: a ``$`` in a class name starts no formula."""
    given: dict[str, Any] = {"fontsize": 9.0, "color": INK, "va": "center", "rotation_mode": "anchor"} | style
    axes.text(x, y, printable(text), fontfamily=_families(text.isascii()), parse_math=False, **given)


@lru_cache
def _families(ascii_only: bool) -> list[str]:
    """The font, with those that also have Chinese, Japanese and Korean letters if the machine has any."""
    if ascii_only:
        return ["DejaVu Sans"]
    # The list of fonts may be older than the fonts themselves.
    for path in () if set(_FALLBACKS) & set(fontManager.get_font_names()) else findSystemFonts():
        if any(word in path for word in ("CJK", "SourceHan", "wqy")):
            fontManager.addfont(path)
    return ["DejaVu Sans", *(family for family in _FALLBACKS if family in fontManager.get_font_names())]


def printable(text: str) -> str:
    """One line without control characters, which no SVG file may contain."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))


def extent(text: str, size: float) -> float:
    """Estimated width in inches of ``text`` at ``size`` points; East Asian letters are square."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" or letter in "×+→…%mwMW" for letter in text)
    return (0.62 * len(text) + 0.38 * wide) * size / 72


def fit(text: str, inches: float, size: float) -> str:
    """``text``, shortened with an ellipsis until it fits.

    >>> fit("convolution", 0.5, 9), fit("conv", 0.5, 9)
    ('conv…', 'conv')
    """
    if extent(text, size) <= inches:
        return text
    while text and extent(text + "…", size) > inches:
        text = text[:-1]
    return text.rstrip() + "…"


def percent(share: float, digits: int = 1) -> str:
    """A share as it is written everywhere in pictures and reports; only exactly all or nothing is 100 or 0 %.

    >>> percent(0.912), percent(0.9999), percent(0.9999, 0), percent(1.0)
    ('91.2 %', '> 99.9 %', '> 99 %', '100.0 %')
    """
    step, text = 10.0**-digits, f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        return f"> {100 - step:.{digits}f} %"
    return f"< {step:.{digits}f} %" if share > 0 and float(text) == 0 else f"{text} %"


def wrapped(text: str, inches: float, size: float = 8.0) -> list[str]:
    """``text`` in lines that fit, broken between words; none if it is empty.

    >>> wrapped("the middle slice", 0.7), wrapped("", 1.0)
    (['the', 'middle', 'slice'], [])
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and extent(longer, size) <= inches:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def smaller(text: str, inches: float, size: float) -> float:
    """The font size at which ``text`` fits, at most ``size``."""
    return size * min(1.0, inches / extent(text, size))


def sample(values: Tensor, count: int) -> Tensor:
    """At most ``count`` entries of the first axis at even distances, the first and the last among them.

    >>> sample(torch.arange(19), 4).tolist()
    [0, 6, 12, 18]
    """
    if len(values) <= count:
        return values
    return values[torch.linspace(0, len(values) - 1, count, dtype=torch.float64).round().long()]


def shrink(maps: Tensor, limit: int) -> Tensor:
    """``(C, H, W)`` averaged down until the longer side has at most ``limit`` pixels."""
    longer = max(maps.shape[-2:])
    if longer <= limit:
        return maps
    height, width = (max(1, round(side * limit / longer)) for side in maps.shape[-2:])
    return torch.nn.functional.adaptive_avg_pool2d(maps, (height, width))


def contained(shape: Sequence[int], side: float) -> tuple[float, float]:
    """Width and height of an ``(H, W, ...)`` picture that just fits into a square, proportions kept."""
    height, width = shape[:2]
    return side * width / max(height, width), side * height / max(height, width)


def signed(values: Tensor, scale: float) -> np.ndarray[Any, Any]:
    """Colours of ``values`` between ``-scale`` and ``scale``, ``(H, W)`` → ``(H, W, 3)`` uint8."""
    unit = 0.5 + values.detach().cpu().float() / (2 * (scale or 1.0))
    colors = SIGNED(unit.clamp(0, 1 - 1e-7).numpy(), bytes=True)
    return np.ascontiguousarray(np.asarray(colors)[..., :3])


def names_width(names: Sequence[str], width: float, size: float = 9.0) -> float:
    """Inches for a column of names: what the longest needs, at most a fair part of the figure."""
    return min(max(extent(name, size) for name in names) + 0.05, max(0.85, 0.22 * width))


def extremes(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The first and the last of many rows, and how many were left out between them.

    >>> extremes(range(4)), extremes(range(100))[1]
    (([0, 1, 2, 3], 0), 60)
    """
    if len(rows) <= LISTED:
        return list(rows), 0
    half = LISTED // 2
    return [*rows[:half], *rows[-half:]], len(rows) - 2 * half
