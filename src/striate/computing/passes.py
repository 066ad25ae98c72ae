"""Windows over one axis at a time: how values that merge associatively are merged over every window.

A window over several axes is one pass after another. A pass only merges values (by addition, by maximum, or by a
maximum that remembers its place) and never takes one back: no digits are lost by cancellation, sums of whole numbers
are exact, and a NaN or infinity reaches those windows alone that hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, reduce
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import Axis, Geometry

Values = tuple[Tensor, ...]
Merge = Callable[[Values, Values], Values]


def reach(axis: Axis, outputs: int) -> int:
    """Positions from the first window's start to the last one's."""
    return (outputs - 1) * axis.stride + 1


def extended(x: Tensor, dim: int, axis: Axis, outputs: int, value: float = 0.0) -> Tensor:
    """The rows from the first window's first tap to the last one's last, with a value on the padding."""
    after = reach(axis, outputs) + axis.extent - 1 - x.shape[dim] - axis.before
    return filled(x, dim, axis.before, after, value)


def filled(x: Tensor, dim: int, before: int, after: int, value: float = 0.0) -> Tensor:
    """Rows of a value before and after one dimension; negative numbers crop."""
    return F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [before, after], value=value) if before or after else x


@lru_cache(maxsize=1024)
def nearest(axis: Axis, size: int, outputs: int) -> tuple[int, ...]:
    """For each row of :func:`extended` the position itself, or on padding the first or last that its window reads.

    In a maximum the padding may hold any value that the window reads anyway: whatever the type, it never wins.

    >>> nearest(Axis(3, before=2, after=1), 4, 5)
    (0, 0, 0, 1, 2, 3, 3)
    """
    positions = range(-axis.before, -axis.before + reach(axis, outputs) + axis.extent - 1)
    step = axis.dilation
    inside = (i % step if i < 0 else min(i, i - -(-(i - size + 1) // step) * step) for i in positions)
    return tuple(min(max(i, 0), size - 1) for i in inside)


def every(values: Values, dim: int, start: int, stop: int, step: int = 1) -> Values:
    """The same slice of each tensor."""
    index = (slice(None),) * dim + (slice(start, stop, step),)
    return tuple(value[index] for value in values)


def slide(values: Values, dim: int, axis: Axis, outputs: int, merge: Merge) -> Values:
    """Merge the taps of every window, earlier ones first, over rows that are :func:`extended` already.

    Tap by tap, or, where that is less work, by doubling: windows of 1, 2, 4, ... taps at every position, each merged
    from two of the last, and then those that the binary digits of the kernel name.
    """
    span = reach(axis, outputs)
    if axis.kernel * outputs <= _doubling(axis, outputs):
        starts = range(0, axis.extent, axis.dilation)
        return reduce(merge, (every(values, dim, start, start + span, axis.stride) for start in starts))
    merged: list[Values] = []
    done, width = 0, 1
    while True:
        if axis.kernel & width:
            start = done * axis.dilation
            merged.append(every(values, dim, start, start + span, axis.stride))
            done += width
        if done == axis.kernel:
            return reduce(merge, merged)
        rows, step = values[0].shape[dim], width * axis.dilation
        values = merge(every(values, dim, 0, rows - step), every(values, dim, step, rows))
        width *= 2


def slide_work(axis: Axis, outputs: int) -> int:
    """Merges of :func:`slide` along one line."""
    return min(axis.kernel * outputs, _doubling(axis, outputs))


def _doubling(axis: Axis, outputs: int) -> int:
    rows = reach(axis, outputs) + axis.extent - 1
    return (axis.kernel.bit_length() - 1) * rows + axis.kernel.bit_count() * outputs


def scan(
    x: Tensor, dim: int, axis: Axis, outputs: int, running: Callable[[Tensor, int], Tensor], merge: Merge, value: float
) -> Tensor:
    """Every window by running values over blocks as long as the kernel; the work does not depend on the kernel.

        window = (its first block, from the window's start on) merged with (the next block, before the window's end)

    M. van Herk, "A fast algorithm for local minimum and maximum filters on rectangular and octagonal kernels", 1992;
    J. Gil and M. Werman, "Computing 2-D min, median, and max filters", 1993. With addition for the maximum it sums.
    Taps ``dilation`` apart stand in the same column of a table that has ``dilation`` columns.

    Args:
        x: Any tensor.
        dim: The dimension of the axis.
        axis: The window.
        outputs: Its positions.
        running: Along one dimension, all values up to each one merged: ``cumsum``, ``cummax``.
        merge: The same of two.
        value: What changes nothing when merged.
    """
    kernel, columns = axis.kernel, axis.dilation
    span = reach(axis, outputs)
    block = kernel * columns
    rows = -(-(span + block) // block) * block
    table = filled(x, dim, axis.before, rows - x.shape[dim] - axis.before, value)
    table = table.unflatten(dim, (rows // block, kernel, columns))
    onward = running(table.flip(dim + 1), dim + 1).flip(dim + 1).flatten(dim, dim + 2)
    before = filled(running(table, dim + 1), dim + 1, 1, -1, value).flatten(dim, dim + 2)
    head = every((onward,), dim, 0, span, axis.stride)
    return merge(head, every((before,), dim, block, block + span, axis.stride))[0]


def scan_work(axis: Axis, outputs: int) -> int:
    """What running sums cost along one line, in merges of :func:`slide` on a CPU; running maxima cost 2.5 times that.

    PyTorch's scans step from value to value, where a merge is one instruction for many.
    """
    return 10 * (reach(axis, outputs) + axis.extent) + outputs


def backward_axis(axis: Axis) -> Axis:
    """The dense window over the outputs, set ``stride`` apart, that adds to each input what its windows were given."""
    return replace(axis, stride=1, before=axis.extent - 1 - axis.before, after=0, period=1)


def set_apart(x: Tensor, dim: int, stride: int) -> Tensor:
    """Zeros between neighbours, so that they stand ``stride`` apart."""
    if stride == 1:
        return x
    apart = x.new_zeros((*x.shape[:dim], (x.shape[dim] - 1) * stride + 1, *x.shape[dim + 1 :]))
    apart[(slice(None),) * dim + (slice(None, None, stride),)] = x
    return apart


def work(
    geometry: Geometry, size: tuple[int, ...], along: Callable[[Axis, int], int], *, backward: bool = False
) -> int:
    """Merges of all passes, the last axis first; ``along`` counts those of one line."""
    shape, total = list(geometry.output_size(size) if backward else size), 0
    for number in reversed(range(len(size))):
        axis = geometry.axes[number]
        outputs = size[number] if backward else axis.output_size(size[number])
        lines = prod(shape) // shape[number]
        total += lines * along(backward_axis(axis) if backward else axis, outputs)
        shape[number] = outputs
    return total


def maximum(a: Values, b: Values) -> Values:
    """The larger of two; a NaN is larger than all."""
    return (torch.maximum(a[0], b[0]),)


def addition(a: Values, b: Values) -> Values:
    """The sum of two."""
    return (a[0] + b[0],)


def first_largest(a: Values, b: Values) -> Values:
    """The larger of two (value, place) pairs, the first on a tie; a NaN is larger than all."""
    wins = (b[0] > a[0]) | (b[0].isnan() & ~a[0].isnan())
    return torch.where(wins, b[0], a[0]), torch.where(wins, b[1], a[1])


def largest_so_far(x: Tensor, dim: int) -> Tensor:
    """The running maximum."""
    return x.cummax(dim).values
