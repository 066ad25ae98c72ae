"""Receptive fields: which input positions can change an output value, one axis at a time.

Two views. :class:`ReceptiveField` is the algebra of stacked sliding windows on an endless input (A. Araujo, W. Norris,
J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill, 2019). :class:`Reads` is the exact set
of real positions for a given input size, borders and transposed windows included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .geometry import Axis
from .taps import tap_slices


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """What output ``o`` of a stack can see on one axis: ``size`` inputs from ``offset + o * jump`` on.

    Args:
        size: Input positions from the first to the last that matter, inclusive.
        jump: Input positions between neighbouring outputs.
        offset: First input position that output 0 can see; negative where it begins in the padding.

    >>> ReceptiveField().then(Axis(3)).then(Axis(3)).then(Axis(3)).size
    7
    """

    size: int = 1
    jump: int = 1
    offset: int = 0

    def then(self, axis: Axis) -> ReceptiveField:
        """The field after one more window.

        size   + (extent - 1) * jump
        jump   * stride
        offset - before * jump
        """
        return ReceptiveField(
            self.size + (axis.extent - 1) * self.jump,
            self.jump * axis.stride,
            self.offset - axis.before * self.jump,
        )

    @property
    def centre(self) -> float:
        """Centre of what output 0 sees, in input positions: ``offset + (size - 1) / 2``."""
        return self.offset + (self.size - 1) / 2


def receptive_field(axes: Iterable[Axis]) -> ReceptiveField:
    """The receptive field of windows stacked in this order, on one axis.

    >>> receptive_field([Axis(7, stride=2, before=3, after=3), Axis(3, stride=2, before=1, after=1)])
    ReceptiveField(size=11, jump=4, offset=-5)
    """
    field = ReceptiveField()
    for axis in axes:
        field = field.then(axis)
    return field


@dataclass(frozen=True, slots=True)
class Reads:
    """For every position of a feature map on one axis, the set of input positions that can change it.

    A set is an integer with one bit per input position, so that unions and counts are exact and fast.

    >>> reads = Reads.of_input(9).through(Axis(3, dilation=2)).through(Axis(3, dilation=2))
    >>> reads.size, reads.coverage, reads.ever_read
    (9, (5, 9), 5)
    """

    sets: tuple[int, ...]
    inputs: int

    @staticmethod
    def of_input(size: int) -> Reads:
        """The input itself: every position reads itself."""
        return Reads(tuple(1 << i for i in range(size)), size)

    def through(self, axis: Axis, *, transposed: bool = False) -> Reads:
        """What the next feature map reads, after a window (or a transposed one)."""
        if transposed:
            return self._back_through(axis)
        axis.output_size(len(self.sets))
        last = len(self.sets) + axis.after - axis.extent
        starts = range(-axis.before, last + 1, axis.stride)
        windows = _windows(self.sets, axis, starts[0])
        return Reads(tuple(windows[start - starts[0]] for start in starts), self.inputs)

    def _back_through(self, axis: Axis) -> Reads:
        merged = [0] * axis.transposed_size(len(self.sets))
        for tap in range(axis.kernel):
            origins, targets = tap_slices(axis, len(merged), tap)
            for target, origin in zip(_positions(targets), _positions(origins), strict=True):
                merged[target] |= self.sets[origin]
        return Reads(tuple(merged), self.inputs)

    def together(self) -> Reads:
        """One position that reads the whole map, as a fully connected layer or a global pooling does."""
        union = 0
        for reads in self.sets:
            union |= reads
        return Reads((union,), self.inputs)

    @property
    def size(self) -> int:
        """Input positions between the first and last that can matter, inclusive: the largest over all outputs."""
        return max(reads.bit_length() - _first(reads) for reads in self.sets)

    @property
    def coverage(self) -> tuple[int, int]:
        """``(positions read, positions spanned)`` of the output that reads most."""
        most = max(self.sets, key=int.bit_count)
        return most.bit_count(), most.bit_length() - _first(most)

    @property
    def ever_read(self) -> int:
        """Input positions that at least one output reads."""
        return self.together().sets[0].bit_count()


def _windows(sets: tuple[int, ...], axis: Axis, first: int) -> list[int]:
    """The union over all taps of the window that starts at each position from ``first`` on.

    Unions of 1, 2, 4, ... taps are built from each other, so the work grows with the logarithm of the kernel.
    """
    positions = range(first, len(sets) + max(axis.after, 0))
    block = [sets[i] if 0 <= i < len(sets) else 0 for i in positions]
    merged = [0] * len(block)
    width, done, left = 1, 0, axis.kernel
    while left:
        if left & 1:
            merged = _union(merged, block[done * axis.dilation :])
            done += width
        block = _union(block, block[width * axis.dilation :])
        width, left = 2 * width, left >> 1
    return merged


def _union(longer: list[int], shorter: list[int]) -> list[int]:
    return [a | b for a, b in zip(longer, shorter, strict=False)] + longer[len(shorter) :]


def _positions(positions: slice) -> range:
    return range(positions.start, positions.stop, positions.step)


def _first(reads: int) -> int:
    return (reads & -reads).bit_length() - 1 if reads else 0


def dilated_coverage(rates: Sequence[int], kernel_size: int = 3) -> tuple[int, int]:
    """Positions that one output of stacked dilated convolutions reads, and positions that it spans, on one axis.

    >>> dilated_coverage((1, 2, 5)), dilated_coverage((2, 2, 2)), dilated_coverage((2, 4, 6))
    ((17, 17), (7, 13), (13, 25))
    """
    span = 1 + sum(rate * (kernel_size - 1) for rate in rates)
    reads = Reads.of_input(span)
    for rate in rates:
        reads = reads.through(Axis(kernel_size, dilation=rate))
    return reads.coverage


def largest_gap(rates: Sequence[int]) -> int:
    """``M_2``: the largest distance between nonzero taps at the second layer; no more than the kernel leaves no holes.

        M_n = r_n,  M_i = max(M_{i+1} - 2 r_i, M_{i+1} - 2 (M_{i+1} - r_i), r_i)

    P. Wang et al., "Understanding Convolution for Semantic Segmentation", 2018, equation 2. Of one rate, that rate.

    >>> largest_gap((1, 2, 5)), largest_gap((1, 2, 9))
    (2, 5)
    """
    gap = rates[-1]
    for rate in rates[-2:0:-1]:
        gap = max(gap - 2 * rate, gap - 2 * (gap - rate), rate)
    return gap
