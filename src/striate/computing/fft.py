"""Convolution by the fast Fourier transform: a product of spectra, tile by tile where the input is much longer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log2, prod
from typing import Any

import torch
from torch import Tensor

from .interface import Problem, register
from .tiles import NUMBERS, Tiled, Tiling


@lru_cache(maxsize=64)
def smooth(limit: int) -> tuple[int, ...]:
    """The lengths whose only prime factors are 2, 3 and 5, which transforms are fast at, in order.

    They go up to the first that is not below the limit.

    >>> smooth(11)
    (1, 2, 3, 4, 5, 6, 8, 9, 10, 12)
    """
    top = 1 << max(0, limit - 1).bit_length()
    twos = [2**n for n in range(top.bit_length())]
    threes = [3**n for n in range(top.bit_length())]
    fives = [5**n for n in range(top.bit_length())]
    lengths = sorted(n for a in twos for b in threes for c in fives if (n := a * b * c) <= top)
    return tuple(n for n, previous in zip(lengths, [0, *lengths], strict=False) if previous < limit)


@lru_cache(maxsize=4096)
def cut(problem: Problem) -> Tiling:
    """Tiles as long as the whole where inputs are short, and else of the length with the least work.

    Each axis is chosen in turn, twice over, among the lengths that transforms are fast at and that are at least twice
    the kernel's, so that a tile overlaps its neighbours only.
    """
    axes, extents = problem.geometry.axes, problem.geometry.extent
    spans = tuple((n - 1) * axis.stride + 1 for n, axis in zip(problem.output_size, axes, strict=True))
    lengths = [smooth(span + extent - 1) for span, extent in zip(spans, extents, strict=True)]
    candidates = [
        [n - extent + 1 for n in reversed(known) if n == known[-1] or n >= max(extent, 2 * extent - 2)]
        for known, extent in zip(lengths, extents, strict=True)
    ]
    best = _tiling(extents, spans, tuple(steps[0] for steps in candidates))
    for number in [*range(len(axes))] * 2:
        tried = (
            _tiling(extents, spans, (*best.steps[:number], step, *best.steps[number + 1 :]))
            for step in candidates[number]
        )
        best = min(tried, key=lambda each: work(each, problem))
    return best


def _tiling(extents: tuple[int, ...], spans: tuple[int, ...], steps: tuple[int, ...]) -> Tiling:
    return Tiling(extents, steps, tuple(-(-span // step) for span, step in zip(spans, steps, strict=True)))


def work(tiles: Tiling, problem: Problem) -> int:
    """Multiply-adds of a convolution over these tiles: of all transforms, and of the products of spectra.

    A transform of ``T`` complex numbers takes ``5 T log2(T)`` operations, of real ones half of that; a complex
    multiply-add is four real ones:

        1.25 T log2(T) * (N J (C + O) + O C/g)  +  4 (T/2) * N J O C/g

    in real multiply-adds for N examples of J tiles each, and a quarter of twice as many complex ones for complex
    numbers. Source: M. Frigo and S. G. Johnson, "The Design and Implementation of FFTW3", 2005, section II.
    """
    length, pairs = prod(tiles.lengths), problem.out_channels * problem.in_channels // problem.geometry.groups
    columns = problem.batch * prod(tiles.counts)
    transforms = columns * (problem.in_channels + problem.out_channels) + pairs
    real = 1.25 * length * log2(length) * transforms + 4 * spectrum(tiles.lengths, real=True) * columns * pairs
    if not problem.dtype.is_complex:
        return round(real)
    return round(0.625 * length * log2(length) * transforms + length * columns * pairs)


def spectrum(lengths: tuple[int, ...], *, real: bool) -> int:
    """Frequencies of a tile; those of real numbers come in conjugate pairs, of which one is kept."""
    return prod(lengths[:-1]) * (lengths[-1] // 2 + 1 if real else lengths[-1])


@dataclass(frozen=True, slots=True)
class Fourier:
    """The discrete Fourier transform of tiles: ``X`` is the matrix F, K is F with the frequencies turned, Z inverse F.

    Turned frequencies make the product of spectra a correlation rather than a convolution. For real numbers that is the
    complex conjugate; for complex ones it is not, because nothing here conjugates the weights.
    """

    tiling: Tiling
    real: bool

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.tiling.steps), 0))

    def image(self, tiles: Tensor) -> Tensor:
        lengths, axes = self.tiling.lengths, self._axes
        whole = torch.fft.rfftn(tiles, lengths, axes) if self.real else torch.fft.fftn(tiles, lengths, axes)
        return whole.flatten(-len(axes)).movedim(-1, 0)

    def maps(self, tiles: Tensor) -> Tensor:
        if self.real:
            return self.image(tiles).conj()
        whole = torch.fft.ifftn(tiles, self.tiling.lengths, self._axes, norm="forward")
        return whole.flatten(-len(self._axes)).movedim(-1, 0)

    kernel = maps

    def from_maps(self, spectrum: Tensor) -> Tensor:
        return self._kept(self._inverse(spectrum), self.tiling.steps)

    def from_kernel(self, spectrum: Tensor) -> Tensor:
        return self._kept(self._inverse(spectrum), self.tiling.extents)

    def from_image(self, spectrum: Tensor) -> Tensor:
        if self.real:
            return self._inverse(spectrum.conj())
        return torch.fft.fftn(self._deep(spectrum), dim=self._axes, norm="forward")

    def _inverse(self, spectrum: Tensor) -> Tensor:
        if self.real:
            return torch.fft.irfftn(self._deep(spectrum), self.tiling.lengths, self._axes)
        return torch.fft.ifftn(self._deep(spectrum), dim=self._axes)

    def _deep(self, spectrum: Tensor) -> Tensor:
        *others, last = self.tiling.lengths
        return spectrum.movedim(0, -1).unflatten(-1, (*others, last // 2 + 1 if self.real else last))

    def _kept(self, tiles: Tensor, rows: tuple[int, ...]) -> Tensor:
        kept: tuple[Any, ...] = (..., *(slice(n) for n in rows))
        return tiles[kept]


class FFT(Tiled):
    """``output = inverse F [ conj(F kernel) * (F image) ]``, and both gradients, on any number of axes.

    A stride is computed densely and sliced, a dilated kernel gets zeros between its taps. Sources: M. Mathieu,
    M. Henaff and Y. LeCun, "Fast Training of Convolutional Networks through FFTs", arXiv 1312.5851; A. V. Oppenheim
    and R. W. Schafer, "Discrete-Time Signal Processing", section 8.7 (overlap-save, overlap-add).
    """

    def refuses(self, problem: Problem) -> str | None:
        period = problem.geometry.period
        if prod(period) > 1:
            return f"the weights repeat with period {period}; a product of spectra shares them with period 1."
        if problem.dtype not in NUMBERS:
            return f"the tensors are {problem.dtype}; a Fourier transform takes floating-point or complex numbers."
        return None

    def estimate(self, problem: Problem) -> int:
        """Transforms and products of spectra; see :func:`work`."""
        return work(self.tiling(problem), problem)

    def tiling(self, problem: Problem) -> Tiling:
        return cut(problem)

    def points(self, problem: Problem) -> int:
        """Frequencies, each two numbers of a real problem's type."""
        real = not problem.dtype.is_complex
        return spectrum(self.tiling(problem).lengths, real=real) * (2 if real else 1)

    def transform(self, tiling: Tiling, dtype: torch.dtype, device: torch.device) -> Fourier:
        return Fourier(tiling, not dtype.is_complex)


register("convolution", "fft", FFT())
