"""The taps: the one definition of which output reads which input; all else must agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

from .errors import GeometryError
from .geometry import Axis, Geometry


@lru_cache(maxsize=256)
def taps(axis: Axis, size: int) -> tuple[tuple[int, int, int], ...]:
    """Every ``(output, tap, input)`` read of one axis; reads that fall on padding are left out.

        input = output * stride + tap * dilation - before,   0 <= input < size

    >>> taps(Axis(kernel=3, stride=2, before=1, after=1), 3)
    ((0, 1, 0), (0, 2, 1), (1, 0, 1), (1, 1, 2))
    """
    return tuple(
        (o, t, i)
        for o in range(axis.output_size(size))
        for t in range(axis.kernel)
        if 0 <= (i := o * axis.stride + t * axis.dilation - axis.before) < size
    )


@lru_cache(maxsize=4096)
def tap_slices(axis: Axis, size: int, tap: int) -> tuple[slice, slice]:
    """The reads of one tap as slices ``(outputs, inputs)`` of equal length: the outputs that it serves are neighbours.

    >>> tap_slices(Axis(kernel=3, stride=2, before=1, after=1), 5, 0)
    (slice(1, 3, 1), slice(1, 4, 2))
    """
    shift = tap * axis.dilation - axis.before
    first = max(0, -(shift // axis.stride))
    last = min(axis.output_size(size) - 1, (size - 1 - shift) // axis.stride)
    count = max(0, last - first + 1)
    start = first * axis.stride + shift if count else 0
    stop = start + (count - 1) * axis.stride + 1 if count else 0
    return slice(first, first + count, 1), slice(start, stop, axis.stride)


def reads(axis: Axis, size: int) -> int:
    """How many reads of real inputs there are: the number of :func:`taps`, counted tap by tap.

    >>> reads(Axis(kernel=3, before=1, after=1), 4)
    10
    """
    spans = (tap_slices(axis, size, tap)[0] for tap in range(axis.kernel))
    return sum(outputs.stop - outputs.start for outputs in spans)


@lru_cache(maxsize=256)
def counts(axis: Axis, size: int) -> tuple[int, ...]:
    """How many real inputs the window at each output position reads.

    >>> counts(Axis(kernel=3, before=1, after=1), 4)
    (2, 3, 3, 2)
    """
    return tuple(_count(axis, size, o) for o in range(axis.output_size(size)))


def _count(axis: Axis, size: int, output: int) -> int:
    start = output * axis.stride - axis.before
    first, last = max(0, -(start // axis.dilation)), (size - 1 - start) // axis.dilation
    return max(0, min(last, axis.kernel - 1) - first + 1)


def require_real_reads(geometry: Geometry, size: Sequence[int]) -> None:
    """Refuse a window that somewhere reads nothing but padding, for which a pooling has no value.

    Raises:
        GeometryError: There is such an output position, or the window does not fit the size.
    """
    outputs = geometry.output_size(size)
    for number, (axis, n) in enumerate(zip(geometry.axes, size, strict=True)):
        if (blind := _first_blind(axis, n, outputs[number])) is not None:
            raise GeometryError(
                f"On spatial axis {number}: the window at output {blind} would read only padding "
                f"(size={n}, {axis}); give less padding or a larger input."
            )


def _first_blind(axis: Axis, size: int, outputs: int) -> int | None:
    """The first output whose window reads only padding."""
    # Taps that are no further apart than the input is long cannot step over it: only the ends can miss it.
    if axis.before < axis.extent and (axis.kernel == 1 or axis.dilation <= size):
        behind = -(-(size + axis.before) // axis.stride)
        return behind if behind < outputs else None
    return next((o for o in range(outputs) if not _count(axis, size, o)), None)


def window_at(
    geometry: Geometry, size: Sequence[int], position: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The ``(weight position, input position)`` pairs that one output position sums over.

    The weight position counts from the stored kernel's corner, after any flip; reads of padding are left out.

    Args:
        geometry: The window.
        size: Input positions per axis.
        position: One output position.

    Raises:
        GeometryError: There is no such output position.

    >>> window_at(Geometry.window(1, 3, padding=1), (5,), (0,))
    [((1,), (0,)), ((2,), (1,))]
    """
    outputs = geometry.output_size(size)
    if len(position) != len(outputs) or not all(0 <= o < n for o, n in zip(position, outputs, strict=True)):
        raise GeometryError(f"position={tuple(position)!r} is not an output position; the output is {outputs}.")
    per_axis = (_reads(axis, n, o, geometry) for axis, n, o in zip(geometry.axes, size, position, strict=True))
    return [(tuple(weight for weight, _ in reads), tuple(i for _, i in reads)) for reads in product(*per_axis)]


def _reads(axis: Axis, size: int, position: int, geometry: Geometry) -> list[tuple[int, int]]:
    if geometry.transposed:
        reads = [(t, o) for o, t, i in taps(axis, axis.transposed_size(size)) if i == position]
    else:
        reads = [(t, i) for o, t, i in taps(axis, size) if o == position]
    return [(axis.kernel - 1 - t if geometry.flip else t, i) for t, i in reads]
