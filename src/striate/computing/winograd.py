"""Convolution with three taps by Winograd's minimal filtering: fewer multiplications for more additions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import torch
from torch import Tensor

from .interface import Problem, register
from .tiles import NUMBERS, Tiled, Tiling

Matrix = tuple[tuple[Fraction, ...], ...]


def exact(text: str) -> Matrix:
    """A matrix from its rows, written out.

    >>> exact("1 0 | 1/2 -1/2")[1]
    (Fraction(1, 2), Fraction(-1, 2))
    """
    return tuple(tuple(map(Fraction, row.split())) for row in text.split("|"))


@dataclass(frozen=True, slots=True)
class Filtering:
    """``F(outputs, taps)``: a tile's outputs are ``out [ (kernel g) * (image d) ]``, one product for each input.

    Args:
        image: B transposed: of a tile's inputs.
        kernel: G: of the taps.
        out: A transposed: to the outputs.
    """

    image: Matrix
    kernel: Matrix
    out: Matrix

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return len(self.kernel[0])

    @property
    def outputs(self) -> int:
        """Outputs of one tile."""
        return len(self.out)

    @property
    def points(self) -> int:
        """Inputs of one tile, and products."""
        return len(self.image)


# A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, sections 4.1 and 4.2: the
# points 0, 1, -1 and infinity; 0, 1, -1, 2, -2 and infinity.
F23 = Filtering(
    image=exact("1 0 -1 0 | 0 1 1 0 | 0 -1 1 0 | 0 1 0 -1"),
    kernel=exact("1 0 0 | 1/2 1/2 1/2 | 1/2 -1/2 1/2 | 0 0 1"),
    out=exact("1 1 1 0 | 0 1 -1 -1"),
)
F43 = Filtering(
    image=exact("4 0 -5 0 1 0 | 0 -4 -4 1 1 0 | 0 4 -4 -1 1 0 | 0 -2 -1 2 1 0 | 0 2 -1 -2 1 0 | 0 4 0 -5 0 1"),
    kernel=exact("1/4 0 0 | -1/6 -1/6 -1/6 | -1/6 1/6 -1/6 | 1/24 1/12 1/6 | 1/24 -1/12 1/6 | 0 0 1"),
    out=exact("1 1 1 1 1 0 | 0 1 -1 2 -2 0 | 0 1 1 4 4 0 | 0 1 -1 8 -8 1"),
)
F11 = Filtering(exact("1"), exact("1"), exact("1"))


@dataclass(frozen=True, slots=True)
class Nested:
    """One filtering for each axis, applied one axis after the other."""

    filterings: tuple[Filtering, ...]
    dtype: torch.dtype
    device: torch.device

    def image(self, tiles: Tensor) -> Tensor:
        return self._points_of(tiles, [f.image for f in self.filterings])

    def kernel(self, weight: Tensor) -> Tensor:
        return self._points_of(weight, [f.kernel for f in self.filterings])

    def maps(self, tiles: Tensor) -> Tensor:
        return self._points_of(tiles, [transposed(f.out) for f in self.filterings])

    def from_image(self, spectrum: Tensor) -> Tensor:
        return self._tiles_of(spectrum, [transposed(f.image) for f in self.filterings])

    def from_kernel(self, spectrum: Tensor) -> Tensor:
        return self._tiles_of(spectrum, [transposed(f.kernel) for f in self.filterings])

    def from_maps(self, spectrum: Tensor) -> Tensor:
        return self._tiles_of(spectrum, [f.out for f in self.filterings])

    def _points_of(self, tiles: Tensor, matrices: list[Matrix]) -> Tensor:
        axes, others = len(matrices), tiles.dim() - len(matrices)
        first = tiles.permute(*range(others, others + axes), *range(others))
        return self._apply(matrices, first).flatten(0, axes - 1)

    def _tiles_of(self, spectrum: Tensor, matrices: list[Matrix]) -> Tensor:
        tiles = self._apply(matrices, spectrum.unflatten(0, [f.points for f in self.filterings]))
        axes = len(matrices)
        return tiles.permute(*range(axes, tiles.dim()), *range(axes))

    def _apply(self, matrices: list[Matrix], x: Tensor) -> Tensor:
        """Each matrix along its axis of x, from the first axis on: what stands behind an axis is one long row."""
        for number, rows in enumerate(matrices):
            entries = [[float(entry) for entry in row] for row in rows]
            matrix = torch.tensor(entries, dtype=self.dtype, device=self.device)
            before, after = prod(x.shape[:number]), prod(x.shape[number + 1 :])
            done = torch.matmul(matrix, x.reshape(before, x.shape[number], after))
            x = done.reshape(*x.shape[:number], len(rows), *x.shape[number + 1 :])
        return x


def transposed(rows: Matrix) -> Matrix:
    """The matrix with rows and columns exchanged."""
    return tuple(zip(*rows, strict=True))


def products(matrices: list[Matrix]) -> int:
    """Multiply-adds of one matrix along each axis, one after the other; an axis left as it is takes none.

    >>> products([F23.image, F23.image]), products([F11.image])
    (128, 0)
    """
    sizes = [len(rows[0]) for rows in matrices]
    total = 0
    for number, rows in enumerate(matrices):
        total += len(rows) * prod(sizes) if len(rows) > 1 or len(rows[0]) > 1 else 0
        sizes[number] = len(rows)
    return total


class Winograd(Tiled):
    """``output = A^T [ (G g) * (B^T d) ]`` along every axis of three taps; both gradients by the same matrices.

    Args:
        filtering: ``F(2,3)`` or ``F(4,3)``.
    """

    def __init__(self, filtering: Filtering) -> None:
        self.filtering = filtering

    def __repr__(self) -> str:
        return f"F({self.filtering.outputs},{self.filtering.taps})"

    def refuses(self, problem: Problem) -> str | None:
        geometry = problem.geometry
        period, kernel, stride = geometry.period, geometry.kernel, tuple(axis.stride for axis in geometry.axes)
        dilation = tuple(axis.dilation for axis in geometry.axes)
        if prod(period) > 1:
            return f"the weights repeat with period {period}; {self} shares them with period 1."
        if problem.dtype not in NUMBERS:
            return f"the tensors are {problem.dtype}; {self} takes floating-point or complex numbers."
        if not {3} <= set(kernel) <= {1, 3}:
            return f"the kernel is {kernel}; {self} needs 3 taps on at least one axis, and 3 or 1 on each."
        if prod(stride) > 1:
            return f"the stride is {stride}; {self} computes neighbouring outputs together, so it needs stride 1."
        if any(axis.dilation > 1 for axis in geometry.axes if axis.kernel > 1):
            return f"the dilation is {dilation}; {self} reads neighbouring inputs, so it needs dilation 1."
        return None

    def error(self, problem: Problem) -> float:
        """Measured for float32 on normal numbers, up to two axes; each axis more transforms everything once more.

        F(2,3) stays near 3e-6; F(4,3) grows with the root of the products that are summed after the transforms: of
        channels, or of tiles for the gradient of the weights.
        """
        further = max(0, sum(axis.kernel > 1 for axis in problem.geometry.axes) - 2)
        if self.filtering.outputs <= 2:
            return 3e-6 * 2.0**further
        groups, tiles = problem.geometry.groups, prod(-(-n // self.filtering.outputs) for n in problem.output_size)
        sums = {
            "forward": problem.in_channels / groups,
            "input_gradient": problem.out_channels / groups,
            "weight_gradient": problem.batch * tiles / 1.5,
        }
        return 1.9e-5 * max(1.0, sums[problem.direction] / 20) ** 0.5 * 6.0**further

    def estimate(self, problem: Problem) -> int:
        """Multiply-adds of N examples of J tiles, of t points each, and of the transforms, one axis after another.

        N J O C/g t  +  N J C (B^T d)  +  N J O (A^T m)  +  O C/g (G g)
        """
        each, tiling = self._filterings(problem), self.tiling(problem)
        pairs = problem.out_channels * problem.in_channels // problem.geometry.groups
        columns = problem.batch * prod(tiling.counts)
        images = problem.in_channels * products([f.image for f in each])
        maps = problem.out_channels * products([f.out for f in each])
        return columns * (pairs * prod(tiling.lengths) + images + maps) + pairs * products([f.kernel for f in each])

    def tiling(self, problem: Problem) -> Tiling:
        steps = tuple(f.outputs for f in self._filterings(problem))
        counts = tuple(-(-n // step) for n, step in zip(problem.output_size, steps, strict=True))
        return Tiling(problem.geometry.extent, steps, counts)

    def points(self, problem: Problem) -> int:
        return prod(f.points for f in self._filterings(problem))

    def transform(self, tiling: Tiling, dtype: torch.dtype, device: torch.device) -> Nested:
        chosen = {f.outputs: f for f in (F11, self.filtering)}
        return Nested(tuple(chosen[step] for step in tiling.steps), dtype, device)

    def _filterings(self, problem: Problem) -> list[Filtering]:
        return [F11 if axis.kernel == 1 else self.filtering for axis in problem.geometry.axes]


register("convolution", "winograd2", Winograd(F23))
register("convolution", "winograd4", Winograd(F43))
