"""Fast convolution by tiles: transform the tiles of the image and the kernels, multiply, transform back.

Over tiles that read ``step + extent - 1`` neighbouring inputs each and yield ``step`` outputs, a convolution is

    output tile = Z [ (K kernel) * (X image tile) ]      summed over the input channels

with one matrix for each of the three tensors. So both gradients are ``X^T [ (K kernel) * (Z^T output tile) ]``, added
where tiles overlap, and ``K^T [ (X image tile) * (Z^T output tile) ]``, summed over the tiles. Source: S. Winograd,
"Arithmetic Complexity of Computations", 1980. With Fourier matrices the first is the method of overlap-save and the
second that of overlap-add (A. V. Oppenheim and R. W. Schafer, "Discrete-Time Signal Processing", section 8.7).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .interface import Base, Problem
from .reference import accumulator

# The transformed image, kernels and outputs of one part of the work take at most this much together.
BYTES = 2**28
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
# For each direction: the first and the second operand, the result, and the product of spectra, second times first, over
# points f, groups g, output and input channels o and c, examples and tiles r.
PRODUCTS = {
    "forward": ("image", "kernel", "maps", "fgoc,fgcr->fgor"),
    "input_gradient": ("maps", "kernel", "image", "fgoc,fgor->fgcr"),
    "weight_gradient": ("image", "maps", "kernel", "fgor,fgcr->fgoc"),
}


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the outputs that a stride of 1 would give are cut into tiles.

    Args:
        extents: Inputs that one window spans, per axis.
        steps: Outputs of one tile, per axis.
        counts: Tiles, per axis.
    """

    extents: tuple[int, ...]
    steps: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Inputs that one tile reads, per axis."""
        return tuple(step + extent - 1 for step, extent in zip(self.steps, self.extents, strict=True))


class Transform(Protocol):
    """The three matrices and their transposes, which act on the last axes, one for each spatial axis."""

    def image(self, tiles: Tensor) -> Tensor:
        """``X``: ``(..., *lengths)`` to ``(points, ...)``."""

    def kernel(self, weight: Tensor) -> Tensor:
        """``K``: ``(..., *extents)`` to ``(points, ...)``."""

    def maps(self, tiles: Tensor) -> Tensor:
        """``Z^T``: ``(..., *steps)`` to ``(points, ...)``."""

    def from_image(self, spectrum: Tensor) -> Tensor:
        """``X^T``: ``(points, ...)`` to ``(..., *lengths)``."""

    def from_kernel(self, spectrum: Tensor) -> Tensor:
        """``K^T``: ``(points, ...)`` to ``(..., *extents)``."""

    def from_maps(self, spectrum: Tensor) -> Tensor:
        """``Z``: ``(points, ...)`` to ``(..., *steps)``."""


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the work: examples, tiles along the first axis, groups, output and input channels of a group."""

    n: slice
    j: slice
    g: slice
    o: slice
    c: slice

    def tiles(self, role: str) -> tuple[slice, ...]:
        """Where its tiles, or kernels, stand among all."""
        if role == "kernel":
            return self.g, self.o, self.c
        return self.g, self.c if role == "image" else self.o, self.n, self.j

    def places(self, role: str, tiling: Tiling) -> tuple[slice, ...]:
        """Where its tiles stand once all are joined."""
        if role == "kernel":
            return self.tiles(role)
        step, more = tiling.steps[0], tiling.extents[0] - 1 if role == "image" else 0
        return *self.tiles(role)[:3], slice(self.j.start * step, self.j.stop * step + more)


class Tiled(Base, ABC):
    """A convolution by transformed tiles; how they are cut and transformed is the algorithm's own."""

    exact = False

    def workspace(self, problem: Problem) -> int:
        """The spectra of one part, the transformed kernels, and the tiles joined."""
        tiling, wide = self.tiling(problem), accumulator(problem.dtype).itemsize
        whole = _numbers(problem, tiling, problem.batch)
        pairs = whole["g"] * whole["o"] * whole["c"]
        columns = problem.batch * prod(tiling.counts) * whole["g"] * (whole["o"] + whole["c"])
        wanted = PRODUCTS[problem.direction][2]
        spectra = min(BYTES, (columns + pairs) * self._each(problem))
        return spectra + wide * prod(_joined_shape(wanted, problem.batch, problem, tiling))

    @abstractmethod
    def tiling(self, problem: Problem) -> Tiling:
        """How the problem is cut."""

    @abstractmethod
    def points(self, problem: Problem) -> int:
        """Numbers, of the spectrum's type, that one tile is transformed to."""

    @abstractmethod
    def transform(self, tiling: Tiling, dtype: torch.dtype, device: torch.device) -> Transform:
        """The matrices."""

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        if not self._ahead(problem):
            return second
        kernels = laid("kernel", second.to(accumulator(second.dtype)), problem, self.tiling(problem))
        return self.transform(self.tiling(problem), kernels.dtype, kernels.device).kernel(kernels)

    def run(self, first: Tensor, second: Any, problem: Problem) -> Tensor:
        one, two, wanted, equation = PRODUCTS[problem.direction]
        tiling, wide, ahead = self.tiling(problem), accumulator(first.dtype), self._ahead(problem)
        transform = self.transform(tiling, wide, first.device)
        tiles = laid(one, first.to(wide), problem, tiling)
        others = second if ahead else laid(two, second.to(wide), problem, tiling)
        total = tiles.new_zeros(_joined_shape(wanted, first.shape[0], problem, tiling))
        for part in self.parts(first.shape[0], problem):
            left = _flat(one, getattr(transform, one)(tiles[part.tiles(one)]))
            kept = (
                others[(slice(None), *part.tiles(two))] if ahead else getattr(transform, two)(others[part.tiles(two)])
            )
            spectrum = _deep(wanted, torch.einsum(equation, _flat(two, kept), left), total, part, tiling)
            total[part.places(wanted, tiling)] += joined(wanted, getattr(transform, f"from_{wanted}")(spectrum), tiling)
        return _finished(wanted, total, problem).to(first.dtype)

    def parts(self, examples: Any, problem: Problem) -> Iterator[Part]:
        """Shares of the work that are small enough; a graph under compilation keeps its examples together."""
        together = torch.compiler.is_compiling()
        whole = _numbers(problem, self.tiling(problem), problem.batch if together else examples)
        sizes = share(whole, prod(self.tiling(problem).counts[1:]) * self._each(problem), self._each(problem))
        spans = {
            name: [slice(i, min(i + sizes[name], n)) for i in range(0, n, sizes[name])] for name, n in whole.items()
        }
        if together:
            spans["n"] = [slice(None)]
        return (Part(*slices) for slices in product(*(spans[name] for name in "njgoc")))

    def _each(self, problem: Problem) -> int:
        """Bytes of one transformed tile."""
        return self.points(problem) * accumulator(problem.dtype).itemsize

    def _ahead(self, problem: Problem) -> bool:
        """Whether all kernels are transformed in advance: they are operands, and do not take too much memory."""
        whole = _numbers(problem, self.tiling(problem), 1)
        pairs = whole["g"] * whole["o"] * whole["c"]
        return problem.direction != "weight_gradient" and 0 < pairs * self._each(problem) <= BYTES // 4


def share(whole: dict[str, int], column: int, kernel: int) -> dict[str, int]:
    """Halve the numbers of a part until its spectra fit: those first that shrink the largest of them.

    Args:
        whole: Examples ``n``, tiles along the first axis ``j``, groups ``g``, channels ``o`` and ``c`` of a group.
        column: Bytes of the tiles that stand at one place of the first axis, of one example and channel.
        kernel: Bytes of one transformed kernel.
    """
    sizes = {name: max(1, n) for name, n in whole.items()}
    while True:
        tiles = sizes["n"] * sizes["j"] * sizes["g"] * (sizes["o"] + sizes["c"]) * column
        kernels = sizes["g"] * sizes["o"] * sizes["c"] * kernel
        channels = "oc" if sizes["o"] >= sizes["c"] else "co"
        order = f"g{channels}nj" if kernels > tiles else f"njg{channels}"
        divisible = [name for name in order if sizes[name] > 1]
        if tiles + kernels <= BYTES or not divisible:
            return sizes
        sizes[divisible[0]] = -(-sizes[divisible[0]] // 2)


def place(x: Tensor, before: tuple[int, ...], lengths: tuple[int, ...]) -> Tensor:
    """Rows ``-before`` to ``length - before`` of the last axes; where there are none, zeros."""
    rows = []
    for number, (start, length) in enumerate(zip(before, lengths, strict=True), start=x.dim() - len(lengths)):
        first = min(max(0, -start), x.shape[number])
        last = max(first, min(x.shape[number], length - start))
        left = min(max(0, start), length)
        x = x if last - first == x.shape[number] else x.narrow(number, first, last - first)
        rows.append((left, length - left - (last - first)))
    flat = [n for pair in reversed(rows) for n in pair]
    return F.pad(x, flat) if any(flat) else x


def laid(role: str, tensor: Tensor, problem: Problem, tiling: Tiling) -> Tensor:
    """A tensor as its transform takes it: groups apart, tiles ``(g, channels, n, *counts, *rows)``."""
    geometry, axes = problem.geometry, len(problem.size)
    if role == "kernel":
        kernels = tensor.unflatten(0, (geometry.groups, problem.out_channels // geometry.groups))
        return _spread(kernels, tuple(axis.dilation for axis in geometry.axes), tiling.extents)
    grouped = tensor.unflatten(1, (geometry.groups, tensor.shape[1] // geometry.groups)).movedim(0, 2)
    if role == "maps":
        rows = tiling.steps
        whole = tuple(step * count for step, count in zip(tiling.steps, tiling.counts, strict=True))
        grouped = _spread(grouped, tuple(axis.stride for axis in geometry.axes), whole)
    else:
        rows = tiling.lengths
        before = tuple(axis.before for axis in geometry.axes)
        grouped = place(grouped, before, _joined_shape("image", 0, problem, tiling)[3:])
    for number in range(axes):
        grouped = grouped.unfold(3 + number, rows[number], tiling.steps[number])
    return grouped


def joined(role: str, tiles: Tensor, tiling: Tiling) -> Tensor:
    """Tiles ``(g, channels, n, *counts, *rows)`` side by side; where they overlap, added. Kernels as they are."""
    if role == "kernel":
        return tiles
    axes = len(tiling.steps)
    pairs = tiles.permute(0, 1, 2, *(d for number in range(axes) for d in (3 + number, 3 + axes + number)))
    for number, step in enumerate(tiling.steps):
        pairs = _side_by_side(pairs, 3 + number, step)
    return pairs


def _side_by_side(pairs: Tensor, dim: int, step: int) -> Tensor:
    """``(..., count, rows, ...)`` to one axis of ``(count - 1) * step + rows``."""
    count, rows = pairs.shape[dim : dim + 2]
    if count == 1 or rows == step:
        return pairs.flatten(dim, dim + 1)
    reach = -(-rows // step)
    total = pairs.new_zeros(*pairs.shape[:dim], count + reach - 1, step, *pairs.shape[dim + 2 :])
    for number, piece in enumerate(pairs.split(step, dim + 1)):
        total.narrow(dim, number, count).narrow(dim + 1, 0, piece.shape[dim + 1]).add_(piece)
    return total.flatten(dim, dim + 1).narrow(dim, 0, (count - 1) * step + rows)


def _spread(x: Tensor, steps: tuple[int, ...], lengths: tuple[int, ...]) -> Tensor:
    """The values of x on every ``step``-th place of the last axes, zeros between and after them."""
    if x.shape[-len(lengths) :] == lengths and all(step == 1 or n == 1 for step, n in zip(steps, lengths, strict=True)):
        return x
    wide = x.new_zeros(*x.shape[: -len(lengths)], *lengths)
    wide[_every(steps, x.shape[-len(lengths) :])] = x
    return wide


def _every(steps: tuple[int, ...], counts: tuple[int, ...]) -> tuple[Any, ...]:
    return (..., *(slice(0, (n - 1) * step + 1, step) for step, n in zip(steps, counts, strict=True)))


def _numbers(problem: Problem, tiling: Tiling, examples: int) -> dict[str, int]:
    groups = problem.geometry.groups
    outputs, inputs = problem.out_channels // groups, problem.in_channels // groups
    return {"n": examples, "j": tiling.counts[0], "g": groups, "o": outputs, "c": inputs}


def _joined_shape(role: str, examples: int, problem: Problem, tiling: Tiling) -> tuple[int, ...]:
    whole = _numbers(problem, tiling, examples)
    if role == "kernel":
        return whole["g"], whole["o"], whole["c"], *tiling.extents
    rows = tiling.lengths if role == "image" else tiling.steps
    spans = ((n - 1) * step + r for n, step, r in zip(tiling.counts, tiling.steps, rows, strict=True))
    return whole["g"], whole["c" if role == "image" else "o"], examples, *spans


def _flat(role: str, spectrum: Tensor) -> Tensor:
    """All tiles of all examples as one axis."""
    return spectrum if role == "kernel" else spectrum.flatten(3)


def _deep(role: str, spectrum: Tensor, total: Tensor, part: Part, tiling: Tiling) -> Tensor:
    if role == "kernel":
        return spectrum
    examples = total[:, :, part.n].shape[2]
    return spectrum.unflatten(3, (examples, part.j.stop - part.j.start, *tiling.counts[1:]))


def _finished(role: str, total: Tensor, problem: Problem) -> Tensor:
    """The tensor that is solved for, out of the joined tiles."""
    axes = problem.geometry.axes
    if role == "kernel":
        return total[_every(tuple(axis.dilation for axis in axes), problem.geometry.kernel)].flatten(0, 1).contiguous()
    if role == "maps":
        kept = total[_every(tuple(axis.stride for axis in axes), problem.output_size)]
    else:
        kept = place(total, tuple(-axis.before for axis in axes), problem.size)
    return kept.movedim(2, 0).contiguous().flatten(1, 2)
