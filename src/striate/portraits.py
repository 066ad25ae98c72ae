"""Portraits: one input of a network as a person can look at it, whatever it is.

Pictures are shown as they are, of volumes the middle slice, of signals and series the curve of each channel. What a
portrait leaves out, and which numbers its black and white stand for, :func:`note` says in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sheets import BLUE, INK, LINE, ORANGE, Sheet, contained, sample, shrink

LANES = 4
"""Of more channels than this, the first are drawn as curves."""
PER_INCH = 72  # columns of pixels of a curve
PHOTO_PIXELS = 90  # for each inch: a dozen photographs then take about a megabyte
WHOLE = (0.0, 255.0)
_SEEN = 100_000  # numbers of one input by which its range is found


def plural(noun: str) -> str:
    """Several of them.

    >>> plural("volume"), plural("series")
    ('volumes', 'series')
    """
    return noun if noun.endswith("s") else f"{noun}s"


def is_curve(shape: Sequence[int]) -> bool:
    """Whether an input ``(C, *spatial)`` is drawn as curves: it has one spatial axis."""
    return len(shape) == 2


def scale_of(inputs: Iterable[Tensor]) -> tuple[float, float]:
    """The numbers that black and white stand for in some inputs, the same for all of them.

    They are 0 and 255 for bytes, and 0 and 1 for fractions; else all but the lowest and the highest 0.5 % of the
    numbers lie between them.

    >>> scale_of([torch.zeros(1, 2, 2, dtype=torch.uint8)]), scale_of([torch.tensor([[[0.0, 0.5]]])])
    ((0.0, 255.0), (0.0, 1.0))
    >>> scale_of([torch.tensor([[[-2.0, 3.0]]]), torch.tensor([[[7.0, float("nan")]]])])
    (-2.0, 7.0)
    """
    given = list(inputs)
    if all(one.dtype == torch.uint8 for one in given):
        return WHOLE
    known = [sample(one.detach().cpu().float().flatten(), _SEEN) for one in given]
    numbers = torch.cat([one[one.isfinite()] for one in known])
    if not len(numbers) or (numbers.min() >= 0 and numbers.max() <= 1):
        return 0.0, 1.0
    cut = int(0.005 * len(numbers))
    ordered = numbers.sort().values
    return ordered[cut].item(), ordered[len(numbers) - 1 - cut].item()


def middle(values: Tensor) -> Tensor:
    """``(C, H, W)`` of more spatial axes: the middle of each of the first ones.

    >>> middle(torch.arange(3).view(1, 3, 1, 1)).item()
    1
    """
    while values.ndim > 3:
        values = values[:, values.shape[1] // 2]
    return values


def note(shape: Sequence[int], scale: tuple[float, float] = WHOLE) -> str:
    """What the portraits of inputs ``(C, *spatial)`` leave out, and what their colours mean; nothing if all is shown.

    >>> note((3, 32, 32)), note((6, 8000))
    ('', 'The first 4 of 6 channels, each on its own scale.')
    >>> note((1, 9, 32, 32), (-1000, 2300.5))
    'The middle slice, 5 of 9. Black is −1,000, white 2,300.5.'
    """
    channels, *spatial = shape
    if is_curve(shape):
        first = f"The first {LANES} of {channels} channels, each" if channels > LANES else "Each channel"
        return f"{first if channels > 1 else 'Each curve'} on its own scale."
    said = [f"The middle slice, {n // 2 + 1} of {n}." for n in spatial[:-2]]
    if channels == 2 or channels > 3:
        said.append("The mean of 2 channels." if channels == 2 else f"The first 3 of {channels} channels as colours.")
    if scale != WHOLE:
        said.append(f"Black is {_number(scale[0])}, white {_number(scale[1])}.")
    return " ".join(said)


def _number(value: float) -> str:
    """Three significant digits, and all those before the point.

    >>> _number(-0.012345), _number(2300.5), _number(1e-9)
    ('−0.0123', '2,300.5', '1e−09')
    """
    text = f"{value:,.6g}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def photo(values: Tensor, inches: float, scale: tuple[float, float] = WHOLE) -> np.ndarray[Any, Any]:
    """``(C, *spatial)`` of two axes or more as ``(H, W, 3)`` uint8, not more pixels than can be seen at this size."""
    pixels = middle(values.detach().cpu()).float()
    pixels = pixels[:3] if len(pixels) >= 3 else pixels.mean(0, keepdim=True).expand(3, -1, -1)
    if scale != WHOLE:
        low, high = scale
        pixels = (pixels.nan_to_num(low) - low) * (255 / ((high - low) or 1.0))
    shown = shrink(pixels, int(inches * PHOTO_PIXELS)).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(shown.permute(1, 2, 0).numpy())


def height(shape: Sequence[int], side: float) -> float:
    """Inches of the box in which portraits ``side`` wide stand: a square, or less for few curves.

    >>> height((3, 32, 32), 1.5), height((1, 8000), 1.5)
    (1.5, 0.75)
    """
    return side * min(1.0, 0.5 + 0.25 * (shape[0] - 1)) if is_curve(shape) else side


def portrait(sheet: Sheet, values: Tensor, x: float, y: float, side: float, scale: tuple[float, float]) -> None:
    """One input in a box ``side`` wide, on its lower edge."""
    tall = height(values.shape, side)
    if not is_curve(values.shape):
        pixels = photo(values, side, scale)
        across, down = contained(pixels.shape, side)
        sheet.tile(x, y + tall - down, across, down, pixels)
        return
    shown = values[:LANES].detach().cpu().float()
    for lane, one in enumerate(shown):
        curve(sheet, one, x, y + lane * tall / len(shown), side, tall / len(shown) - 0.03)


def curve(sheet: Sheet, values: Tensor, x: float, y: float, width: float, tall: float) -> None:
    """The curve of ``(T,)`` between its lowest and its highest number, with a line at zero if that lies between.

    Of many more numbers than the box has columns of pixels, the band between the lowest and the highest of each column
    is filled.
    """
    numbers = values.detach().cpu().float().numpy()
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    known = numbers[~np.isnan(numbers)]
    bottom, top = (known.min(), known.max()) if len(known) else (-1.0, 1.0)
    if bottom == top:
        bottom, top = bottom - 1, top + 1

    def down(value: Any) -> Any:
        return y + tall * (top - value) / (top - bottom)

    if bottom <= 0 <= top:
        sheet.line([x, x + width], [down(0.0)] * 2, LINE, linewidth=0.6)
    if len(numbers) <= 4 * _columns(width):
        sheet.line(x + (np.arange(len(numbers)) + 0.5) / len(numbers) * width, down(numbers), INK, linewidth=0.8)
        return
    low, high = (np.nan_to_num(part) for part in envelope(values, width))
    places = x + (np.arange(len(low)) + 0.5) / len(low) * width
    band = [*places, *places[::-1]], [*down(high), *down(low)[::-1]]
    sheet.area(*band, INK, edge=0.5)  # which is seen where the band is thinner than a pixel


def _columns(width: float) -> int:
    """Columns of pixels of a curve."""
    return max(1, int(width * PER_INCH))


def envelope(values: Tensor, width: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The lowest and the highest number in each column of pixels, of ``(T,)`` drawn ``width`` inches wide.

    >>> low, high = envelope(torch.arange(288.0), 2.0)
    >>> len(low), low[:2].tolist(), high[:2].tolist()
    (144, [0.0, 2.0], [1.0, 3.0])
    """
    numbers = values.detach().cpu().float().numpy()
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    count = min(len(numbers), _columns(width))
    starts = np.arange(count) * len(numbers) // count
    return np.fmin.reduceat(numbers, starts), np.fmax.reduceat(numbers, starts)


def relief(sheet: Sheet, values: Tensor, x: float, y: float, width: float, tall: float, scale: float) -> None:
    """The area between ``(T,)`` and zero, orange above and blue below, ``scale`` as high as half the box."""
    low, high = (np.nan_to_num(part) for part in envelope(values, width))
    zero, unit = y + tall / 2, tall / 2 / (scale or 1.0)
    places = x + (np.arange(len(low)) + 0.5) / len(low) * width
    outline = [x, *places, x + width]
    for part, color in ((high.clip(0, scale), ORANGE), (low.clip(-scale, 0), BLUE)):
        if part.any():
            sheet.area(outline, [zero, *(zero - unit * part), zero], color)
    sheet.line([x, x + width], [zero] * 2, LINE, linewidth=0.6)
