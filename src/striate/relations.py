"""Relations: which input positions each output position of one axis reads, for any operator.

A sliding window, its transpose, interpolation, adaptive pooling, cropping and reading everything are all of one form.
Receptive fields, coverage and unread pixels are derived from it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, gcd

from .geometry import Axis, Geometry

EVERYTHING = None
# The taps of one phase, ascending: a range wherever they are evenly spaced, so that no kernel is too long to write.
Taps = Sequence[int]
LONGEST_PERIOD = 2**16


@dataclass(frozen=True, slots=True)
class Relation:
    """Output ``q * period + phase`` reads the inputs ``q * shift + t`` for each ``t`` of ``taps[phase]``.

    The period is the number of phases. What lies outside the input is padding and no read, unless the border says
    otherwise.

    Args:
        inputs: Input positions.
        outputs: Output positions.
        taps: For each phase, ascending; None if every output reads every input.
        shift: Inputs by which the reads move on in one period.
        border: zeros, replicate, reflect or circular: what a read outside the input finds.

    >>> Relation.window(Axis(3, stride=2, before=1, after=1), 5).reads(1)
    (1, 2, 3)
    """

    inputs: int
    outputs: int
    taps: tuple[Taps, ...] | None = (range(1),)
    shift: int = 1
    border: str = "zeros"

    @staticmethod
    def identity(size: int) -> Relation:
        """Every output reads the input at its own position."""
        return Relation(size, size)

    @staticmethod
    def everything(inputs: int, outputs: int = 1) -> Relation:
        """Every output reads every input, as fully connected layers and means over all positions do."""
        return Relation(inputs, outputs, EVERYTHING)

    @staticmethod
    def window(axis: Axis, size: int, *, transposed: bool = False, border: str = "zeros") -> Relation:
        """A sliding window over ``size`` inputs, or a transposed one.

        >>> Relation.window(Axis(2, stride=2), 3, transposed=True).reads(5)
        (2,)
        """
        return _window(axis, size, transposed, border)

    @staticmethod
    def cells(inputs: int, outputs: int) -> Relation:
        """Output ``o`` of ``m`` reads inputs ``floor(o n / m)`` up to ``ceil((o + 1) n / m)``: adaptive pooling.

        >>> Relation.cells(7, 3).reads(1)
        (2, 3, 4)
        """
        if outputs == 1:
            return Relation.everything(inputs)
        return _sampled(inputs, outputs, lambda o, n, m: range(o * n // m, -(-(o + 1) * n // m)))

    @staticmethod
    def nearest(inputs: int, outputs: int) -> Relation:
        """Output ``o`` of ``m`` reads input ``floor(o n / m)``: the nearest neighbour.

        >>> Relation.nearest(2, 4).reads(3)
        (1,)
        """
        return _sampled(inputs, outputs, lambda o, n, m: range(o * n // m, o * n // m + 1))

    @staticmethod
    def linear(inputs: int, outputs: int, *, align_corners: bool = False) -> Relation:
        """Output ``o`` reads the two inputs next to ``(o + 1/2) n / m - 1/2``, or the one that it falls on.

        With ``align_corners`` the place is ``o (n - 1) / (m - 1)``.

        >>> Relation.linear(2, 4).reads(1), Relation.linear(3, 5, align_corners=True).reads(2)
        ((0, 1), (1,))
        """
        return _linear(inputs, outputs, align_corners)

    @property
    def is_identity(self) -> bool:
        """Whether every output reads the input at its own position and nothing else."""
        return self.taps == (range(1),) and self.shift == 1 and self.inputs == self.outputs

    def reads(self, output: int) -> tuple[int, ...]:
        """The real input positions that one output reads, ascending."""
        if self.taps is None:
            return tuple(range(self.inputs))
        rounds, phase = divmod(output, len(self.taps))
        start = rounds * self.shift
        if self.border == "zeros":
            return tuple(start + tap for tap in within(self.taps[phase], -start, self.inputs - start))
        # What a border gives repeats after two lengths of the input; a replicated one gives its ends.
        taps = self.taps[phase]
        if self.border == "replicate":
            taps = [*taps[:1], *within(taps, -start, self.inputs - start), *taps[-1:]]
        places = (start + tap for tap in taps[: 2 * self.inputs + 2])
        return tuple(sorted({_folded(i, self.inputs, self.border) for i in places}))

    def back(self, outputs: int) -> int:
        """The inputs that a set of outputs reads; a set is an integer with one bit for each position.

        >>> bin(Relation.window(Axis(3, dilation=2), 9).back(0b00001))
        '0b10101'
        """
        return _back(self, outputs)

    def leaves(self, outputs: int) -> bool:
        """Whether one of a set of outputs reads beyond the input."""
        if self.taps is None or self.is_identity or not outputs:
            return False
        period = len(self.taps)
        low, high = (outputs & -outputs).bit_length() - 1, outputs.bit_length() - 1
        if period > 1:
            return any(outputs >> output & 1 for output in _folding(self))
        reads = self.taps[0]
        return bool(reads) and (low * self.shift + reads[0] < 0 or high * self.shift + reads[-1] >= self.inputs)


@lru_cache(maxsize=4096)
def _window(axis: Axis, size: int, transposed: bool, border: str) -> Relation:
    shifts = range(-axis.before, axis.extent - axis.before, axis.dilation)
    if not transposed:
        return Relation(size, axis.output_size(size), (_plain(shifts),), axis.stride, border)
    # Input i writes output i * stride + tap * dilation - before: the taps of output o have (o + before) % stride.
    written, stride, common = axis.transposed_size(size), axis.stride, gcd(axis.stride, axis.dilation)
    endless = stride <= written or stride <= LONGEST_PERIOD
    inverse = pow(axis.dilation // common, -1, stride // common)
    phases = []
    for output in range(stride if endless else written):
        place = output + axis.before
        first = place // common * inverse % (stride // common) if place % common == 0 else axis.kernel
        taps = range(first, axis.kernel, stride // common)
        gap = axis.dilation // common
        high = (place - first * axis.dilation) // stride
        phases.append(_plain(range(high - gap * (len(taps) - 1), high + 1, gap)) if taps else range(0))
    # With fewer outputs than phases the period is cut short, and says nothing of an endless input: no shift.
    return Relation(size, written, tuple(phases), 1 if endless else 0, border)


def _plain(taps: range) -> range:
    """Equal ranges are written alike: one tap has the step 1."""
    return range(taps.start, taps.start + 1) if len(taps) == 1 else taps


def within(taps: Taps, low: int, high: int) -> Taps:
    """The taps from ``low`` up to but not including ``high``."""
    if isinstance(taps, range) and taps:
        first = max(0, -((taps.start - low) // taps.step))
        last = min(len(taps) - 1, (high - 1 - taps.start) // taps.step)
        return taps[first : max(first, last + 1)]
    return [tap for tap in taps if low <= tap < high]


def repeats_late(inputs: int, outputs: int) -> bool:
    """Whether sampling at this ratio has too many phases to be written down."""
    return outputs // max(1, gcd(inputs, outputs)) > LONGEST_PERIOD


def of_window(window: Geometry, size: Sequence[int], border: str = "zeros") -> tuple[Relation, ...]:
    """The relations of a window, one for each axis.

    >>> of_window(Geometry.window(2, 3, padding=1), (8, 8))[0].reads(0)
    (0, 1)
    """
    return tuple(
        Relation.window(axis, n, transposed=window.transposed, border=border)
        for axis, n in zip(window.axes, size, strict=True)
    )


def _sampled(inputs: int, outputs: int, reads: Callable[[int, int, int], range]) -> Relation:
    """A relation that is given for every output, as the period that it has."""
    common = gcd(inputs, outputs)
    taps = tuple(reads(o, inputs, outputs) for o in range(outputs // common))
    return Relation(inputs, outputs, taps, inputs // common)


@lru_cache(maxsize=1024)
def _linear(inputs: int, outputs: int, align_corners: bool) -> Relation:
    if align_corners:
        step = Fraction(inputs - 1, outputs - 1) if outputs > 1 else Fraction(0)
        start = Fraction(0)
    else:
        step = Fraction(inputs, outputs)
        start = (step - 1) / 2
    places = [start + o * step for o in range(step.denominator if step else 1)]
    taps = tuple(range(floor(p), ceil(p) + 1) for p in places)
    return Relation(inputs, outputs, taps, step.numerator, "replicate")


def _folded(place: int, size: int, border: str) -> int:
    """The real input that a read outside the input finds."""
    if border == "circular":
        return place % size
    if border == "reflect" and size > 1:
        place %= 2 * (size - 1)
        return min(place, 2 * (size - 1) - place)
    return min(max(place, 0), size - 1)


@lru_cache(maxsize=16384)
def _back(relation: Relation, outputs: int) -> int:
    everything = (1 << relation.inputs) - 1
    if relation.taps is None:
        return everything if outputs else 0
    if relation.is_identity:
        return outputs
    read = 0
    bits = bin(outputs)[:1:-1]  # the first position first
    period, gap = len(relation.taps), "0" * (relation.shift - 1)
    for phase, taps in enumerate(relation.taps):
        chosen = bits[phase::period]
        if "1" not in chosen:
            continue
        # With shift 0 every round reads the same places.
        spread = int(gap.join(chosen)[::-1], 2) if relation.shift else 1
        low = (spread & -spread).bit_length() - 1
        read |= _shifted(spread, within(taps, 1 - spread.bit_length(), relation.inputs - low))
    read &= everything
    if relation.border != "zeros":
        for output in _folding(relation):
            if outputs >> output & 1:
                for place in relation.reads(output):
                    read |= 1 << place
    return read


def _shifted(mask: int, taps: Taps) -> int:
    """The union of a set moved by each tap; what falls below 0 is lost.

    Unions of 1, 2, 4, ... evenly spaced taps are built from each other, so the work grows with the logarithm.
    """
    if not isinstance(taps, range) or len(taps) < 4:
        moved = 0
        for tap in taps:
            moved |= mask << tap if tap >= 0 else mask >> -tap
        return moved
    step, block, width, merged, done, left = taps.step, mask, 1, 0, 0, len(taps)
    while left:
        if left & 1:
            merged |= block << done * step
            done += width
        block |= block << width * step
        width, left = 2 * width, left >> 1
    return merged << taps.start if taps.start >= 0 else merged >> -taps.start


@lru_cache(maxsize=1024)
def _folding(relation: Relation) -> tuple[int, ...]:
    """The outputs that read outside the input."""
    found: set[int] = set()
    taps = relation.taps or ()
    period, shift, last = len(taps), relation.shift, relation.inputs - 1
    for phase, reads in enumerate(taps):
        if not reads:
            continue
        rounds = len(range(phase, relation.outputs, period))
        if not shift:
            beyond = range(rounds) if reads[0] < 0 or reads[-1] > last else range(0)
            found.update(phase + period * q for q in beyond)
            continue
        low = min(rounds, max(0, -(reads[0] // shift)))  # rounds that begin before the input
        high = max(low, min(rounds, (last - reads[-1]) // shift + 1))  # the first that ends behind it
        found.update(phase + period * q for q in (*range(low), *range(high, rounds)))
    return tuple(sorted(found))
