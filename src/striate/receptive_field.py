"""Receptive fields: which input positions can change an output value, one axis at a time.

Stacked sliding windows on an endless input are an algebra of three numbers (A. Araujo, W. Norris, J. Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill, 2019); what real positions read, borders included, follows
from their relations. Whole graphs are the matter of :mod:`striate.support`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .geometry import Axis
from .relations import Relation


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


def read_by(outputs: int, relations: Sequence[Relation]) -> int:
    """The input positions that some outputs of operations in a row read; sets are integers, one bit for each position.

    >>> dilated = Relation.window(Axis(3, dilation=2), 9), Relation.window(Axis(3, dilation=2), 5)
    >>> bin(read_by(0b1, dilated))
    '0b101010101'
    """
    for relation in reversed(relations):
        outputs = relation.back(outputs)
    return outputs


def dilated_coverage(rates: Sequence[int], kernel_size: int = 3) -> tuple[int, int]:
    """Positions that one output of stacked dilated convolutions reads, and positions that it spans, on one axis.

    >>> dilated_coverage((1, 2, 5)), dilated_coverage((2, 2, 2)), dilated_coverage((2, 4, 6))
    ((17, 17), (7, 13), (13, 25))
    """
    size = span = 1 + sum(rate * (kernel_size - 1) for rate in rates)
    relations = []
    for rate in rates:
        relations.append(Relation.window(Axis(kernel_size, dilation=rate), size))
        size = relations[-1].outputs
    return read_by(1, relations).bit_count(), span


def largest_gap(rates: Sequence[int]) -> int:
    """``M_2``: the largest distance between nonzero taps at the second layer.

        M_n = r_n,  M_i = max(M_{i+1} - 2 r_i, M_{i+1} - 2 (M_{i+1} - r_i), r_i)

    If the first rate is 1 and this no more than the kernel, there are no holes. P. Wang et al., "Understanding
    Convolution for Semantic Segmentation", 2018, equation 2. Of one rate, that rate.

    >>> largest_gap((1, 2, 5)), largest_gap((1, 2, 9))
    (2, 5)
    """
    gap = rates[-1]
    for rate in rates[-2:0:-1]:
        gap = max(gap - 2 * rate, gap - 2 * (gap - rate), rate)
    return gap
