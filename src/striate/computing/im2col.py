"""Every window as a column, so that a convolution becomes a matrix product (im2col and col2im).

Source: K. Chellapilla, S. Puri and P. Simard, "High Performance Convolutional Neural Networks for Document Processing",
2006, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from ..geometry import Axis, Geometry
from ..unfolding import columns, images
from .interface import Base, Problem, register
from .reference import accumulator

COLUMN_BYTES = 2**28
EMPTY = slice(0, 0)


class Im2col(Base):
    """The columns of the input times the weights, in any direction and for weights of any period.

        forward           out = weight @ columns(x)
        input_gradient    x = images(weight.T @ out)
        weight_gradient   weight = sum over examples of out @ columns(x).T

    Weights that repeat with a period make one batched product, with the positions of each residue as its columns. The
    columns are many times as large as the input, so the examples, and the positions of the first axis, are worked
    through in boxes whose columns stay under 256 MiB (:data:`COLUMN_BYTES`) or hold a single row of a single example.
    """

    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.size)
        return None if axes <= 16 else f"the window has {axes} spatial axes; the product has letters for 16."

    def workspace(self, problem: Problem) -> int:
        """The columns of one box."""
        columns = problem.batch * problem.in_channels * prod(problem.geometry.kernel) * prod(problem.output_size)
        return min(COLUMN_BYTES, columns * accumulator(problem.dtype).itemsize)

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        wide = accumulator(first.dtype)
        other = first.new_zeros(0) if second is None else second
        return getattr(self, problem.direction)(first.to(wide), other.to(wide), problem).to(first.dtype)

    def forward(self, x: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        """One product for each box of the output."""
        out = x.new_zeros(x.shape[0], problem.out_channels, *problem.output_size)
        kernels = _periodic(weight, problem)
        multiply = _shared_product if prod(problem.geometry.period) == 1 else _periodic_product
        for box in boxes(problem, x.shape[0], x.element_size()):
            out[box.writes] = multiply(kernels[box.weights], columns(x[box.reads], box.geometry), box)
        return out

    def input_gradient(self, y: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        """Each box's columns are added back to the positions that it read."""
        x = y.new_zeros(y.shape[0], problem.in_channels, *problem.size)
        kernels, (weights, reads, writes) = _periodic(weight, problem), _subscripts(len(problem.size))
        for box in boxes(problem, y.shape[0], y.element_size()):
            kernel, maps = _by_group(kernels[box.weights], box), _by_residue(y[box.writes], box)
            found = torch.einsum(f"{weights},{writes}->{reads}", kernel, maps)
            shape = (found.shape[0], problem.in_channels, *box.geometry.kernel, *box.positions)
            x[box.reads] += images(found.reshape(shape), box.geometry, box.size)
        return x

    def weight_gradient(self, x: Tensor, y: Tensor, problem: Problem) -> Tensor:
        """The sum of each box's products."""
        weight = x.new_zeros(problem.geometry.weight_shape(problem.in_channels, problem.out_channels))
        kernels, (weights, reads, writes) = _periodic(weight, problem), _subscripts(len(problem.size))
        for box in boxes(problem, x.shape[0], x.element_size()):
            read = _by_residue(columns(x[box.reads], box.geometry), box)
            found = torch.einsum(f"{reads},{writes}->{weights}", read, _by_residue(y[box.writes], box))
            kernels[box.weights] += found.flatten(len(problem.size), len(problem.size) + 1)
        return weight


@dataclass(frozen=True, slots=True)
class Box:
    """A box of output positions for some examples, as a problem of its own.

    Args:
        geometry: The window over the inputs that the box reads.
        size: How many inputs those are, per axis.
        positions: Output positions per axis, a multiple of the period.
        reads: Where its inputs stand in the input.
        writes: Where its positions stand in the output.
        weights: Where its kernels stand in the weights.
    """

    geometry: Geometry
    size: tuple[int, ...]
    positions: tuple[int, ...]
    reads: Any
    writes: Any
    weights: Any


def boxes(problem: Problem, batch: int, element_bytes: int) -> Iterator[Box]:
    """Split the output so that the columns of each box fit; positions that read only padding are in none.

    A compiler keeps the examples together: their number may be open in its graph.

    Args:
        problem: The whole convolution.
        batch: Examples there are.
        element_bytes: Bytes of one number of the columns.
    """
    outputs, axes = problem.output_size, problem.geometry.axes
    taps = element_bytes * problem.in_channels * prod(problem.geometry.kernel)
    rows = COLUMN_BYTES // max(1, taps * prod(outputs[1:]))
    examples = max(1, rows // outputs[0])
    steps = (min(outputs[0], max(1, rows)), *outputs[1:])
    spans = [list(_spans(n, axis.period, step)) for n, axis, step in zip(outputs, axes, steps, strict=True)]
    whole = torch.compiler.is_compiling() or examples >= batch
    for start in (0,) if whole else range(0, batch, examples):
        part = slice(None) if whole else slice(start, start + examples)
        for corner in product(*spans):
            lines = [_line(axis, n, *span) for axis, n, span in zip(axes, problem.size, corner, strict=True)]
            if all(reads != EMPTY for _, reads, _ in lines):
                windows, reads, weights = zip(*lines, strict=True)
                yield Box(
                    geometry=replace(problem.geometry, axes=windows),
                    size=tuple(span.stop - span.start for span in reads),
                    positions=tuple(last - first for first, last in corner),
                    reads=(part, slice(None), *reads),
                    writes=(part, slice(None), *(slice(*span) for span in corner)),
                    weights=weights,
                )


def _spans(outputs: int, period: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut the positions of an axis: every piece is whole periods, or lies within one.

    >>> list(_spans(8, 3, 8)), list(_spans(8, 3, 2))
    ([(0, 6), (6, 8)], [(0, 2), (2, 3), (3, 5), (5, 6), (6, 8)])
    """
    step = step - step % period if step >= period else step
    block = max(step, period)
    for start in range(0, outputs, block):
        stop = min(start + block, outputs)
        cuts = [*range(start, stop, step), stop]
        if step >= period and 0 < (rest := (stop - start) % period) < stop - start:
            cuts.insert(-1, stop - rest)
        yield from pairwise(cuts)


def _line(axis: Axis, size: int, first: int, last: int) -> tuple[Axis, slice, slice]:
    """One axis of a box: the window over the inputs that positions ``first`` to ``last`` read, and where those are."""
    start = first * axis.stride - axis.before
    stop = (last - 1) * axis.stride + axis.extent - axis.before
    low, high = max(start, 0), min(stop, size)
    residue = first % axis.period
    period = min(axis.period, last - first)
    window = replace(axis, before=low - start, after=stop - high, period=period)
    return window, slice(low, high) if low < high else EMPTY, slice(residue, residue + period)


def _periodic(weight: Tensor, problem: Problem) -> Tensor:
    """The weights as a view ``(*period, O, C/g, *K)``; a period of 1 is there too."""
    return weight.reshape(*problem.geometry.period, *weight.shape[-len(problem.size) - 2 :])


def _subscripts(axes: int) -> tuple[str, str, str]:
    """Letters of weights, columns and output: g group, n example, o and c channels; taps, repeats and residues."""
    letters = iter(letter for letter in ascii_letters if letter not in "gnoc")
    taps, repeats, residues = ("".join(next(letters) for _ in range(axes)) for _ in range(3))
    places = "".join(repeat + residue for repeat, residue in zip(repeats, residues, strict=True))
    return f"{residues}goc{taps}", f"ngc{taps}{places}", f"ngo{places}"


def _by_group(kernels: Tensor, box: Box) -> Tensor:
    """``(*period, g, O/g, C/g, *K)``."""
    axes, groups = len(box.size), box.geometry.groups
    return kernels.unflatten(axes, (groups, kernels.shape[axes] // groups))


def _by_residue(values: Tensor, box: Box) -> Tensor:
    """The channels as ``(g, C/g)``, and each of the last axes, positions, as (repeats, residue of the period)."""
    first, groups = values.dim() - len(box.size), box.geometry.groups
    for axis, (n, period) in reversed(list(enumerate(zip(box.positions, box.geometry.period, strict=True)))):
        values = values.unflatten(first + axis, (n // period, period))
    return values.unflatten(1, (groups, values.shape[1] // groups))


def _shared_product(kernels: Tensor, read: Tensor, box: Box) -> Tensor:
    """One matrix for all positions: the columns are copied once, in the order that the product wants."""
    groups, taps = box.geometry.groups, prod(box.geometry.kernel)
    rows, inner = kernels.shape[len(box.size)], read.shape[1] // groups * taps
    matrices = kernels.reshape(groups, rows // groups, inner)
    product = matrices @ read.reshape(read.shape[0], groups, inner, prod(box.positions))
    return product.reshape(read.shape[0], rows, *box.positions)


def _periodic_product(kernels: Tensor, read: Tensor, box: Box) -> Tensor:
    """One matrix for each residue of the period: a batched product."""
    weights, reads, writes = _subscripts(len(box.size))
    found = torch.einsum(f"{weights},{reads}->{writes}", _by_group(kernels, box), _by_residue(read, box))
    return found.reshape(read.shape[0], kernels.shape[len(box.size)], *box.positions)


register("convolution", "im2col", Im2col())
