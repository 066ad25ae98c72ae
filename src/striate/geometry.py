"""The geometry of a sliding window: which output reads which input through which tap, as plain integers.

Everything else in Striate (sizes, costs, receptive fields, gradients, algorithms) is derived from these two values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from operator import index
from typing import Any

from . import padding as padding_words
from .errors import GeometryError


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a sliding window: integers that are known to be legal.

    Output ``o`` reads input ``o * stride + tap * dilation - before`` through each ``tap`` of the kernel.

    Args:
        kernel: Taps.
        stride: Input positions between neighbouring windows.
        dilation: Input positions between neighbouring taps; 1 is dense. (Texts that count the holes call that 0.)
        before: Rows of padding before the first input; negative crops, which only gradients need.
        after: Rows of padding after the last input; negative crops.
        period: Output positions after which the weights repeat: 1 is convolution, more is tiled convolution,
            the output size is a locally connected layer.

    Raises:
        GeometryError: A number is not an integer, or kernel, stride, dilation or period is below 1.

    >>> Axis(kernel=3, before=1, after=1).output_size(5), Axis(kernel=3, stride=2, before=1, after=1).output_size(5)
    (5, 3)
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    period: int = 1

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not _whole(value):
                raise GeometryError(f"{name} must be an integer, got {name}={value!r}.")
            if name not in ("before", "after") and value < 1:
                raise GeometryError(f"{name} must be at least 1, got {name}={value}.")

    @property
    def extent(self) -> int:
        """Input positions between the first and the last tap, inclusive: ``dilation * (kernel - 1) + 1``.

        >>> Axis(kernel=3, dilation=2).extent
        5
        """
        return self.dilation * (self.kernel - 1) + 1

    def output_size(self, size: int) -> int:
        """Window positions over ``size`` inputs: ``(size + before + after - extent) // stride + 1``.

        Raises:
            GeometryError: There is no input, or the window is wider than the padded input: there would be no output.
        """
        _check_size(size)
        room = size + self.before + self.after - self.extent
        if room < 0:
            padded = f"{size} + {self.before} + {self.after} = {size + self.before + self.after}"
            raise GeometryError(
                f"the window spans {self.extent} inputs (kernel={self.kernel}, dilation={self.dilation}), "
                f"but input and padding have {padded}; give a larger input, more padding or a smaller kernel."
            )
        return room // self.stride + 1

    def transposed_size(self, size: int) -> int:
        """Positions that the transposed window writes: ``(size - 1) * stride + extent - before - after``.

        Raises:
            GeometryError: There is no input, or the padding crops everything away.
        """
        _check_size(size)
        written = (size - 1) * self.stride + self.extent - self.before - self.after
        if written < 1:
            raise GeometryError(
                f"the transposed window writes {written} positions from {size} inputs (kernel={self.kernel}, "
                f"stride={self.stride}, dilation={self.dilation}, padding={self.before}+{self.after}); "
                "at least 1 is needed: give less padding or a larger input."
            )
        return written

    def unread_tail(self, size: int) -> int:
        """Padded input positions after the last window, which no window reaches: always less than the stride."""
        return (size + self.before + self.after - self.extent) % self.stride


@dataclass(frozen=True, slots=True)
class Geometry:
    """A sliding window over any number of spatial axes: the one value from which all else is derived.

    Args:
        axes: One :class:`Axis` for each spatial axis, in the order of the tensor's.
        groups: Independent blocks that the channels are split into; as many as channels is depthwise.
        flip: Whether the kernel is turned around first (the mathematical convolution).
        transposed: Whether inputs and outputs change places (the transposed convolution).

    Raises:
        GeometryError: No axes, or groups below 1.

    >>> Geometry.window(2, kernel=11, stride=4).output_size((227, 227))
    (55, 55)
    """

    axes: tuple[Axis, ...]
    groups: int = 1
    flip: bool = False
    transposed: bool = False

    def __post_init__(self) -> None:
        if not self.axes:
            raise GeometryError("a window needs at least one spatial axis, got none.")
        if not _whole(self.groups) or self.groups < 1:
            raise GeometryError(f"groups must be an integer of at least 1, got groups={self.groups!r}.")

    @staticmethod
    def window(
        axes: int,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int | Sequence[int]] = 0,
        dilation: int | Sequence[int] = 1,
        period: int | Sequence[int] = 1,
        groups: int = 1,
        flip: bool = False,
        transposed: bool = False,
        output_padding: int | Sequence[int] = 0,
        size: Sequence[int] | None = None,
    ) -> Geometry:
        """The geometry that a person writes down: single values, one per axis, pairs, and padding words.

        Args:
            axes: Number of spatial axes.
            kernel: Taps, one number or one per axis; likewise stride, dilation and period.
            stride: Step between windows.
            padding: A number, one number or ``(before, after)`` pair per axis, or a word
                (:data:`striate.padding.WORDS`). For a transposed window: of the convolution it is the adjoint of.
            dilation: Step between taps.
            period: Output positions after which the weights repeat.
            groups: Blocks of channels.
            flip: Turn the kernel around.
            transposed: Inputs and outputs change places.
            output_padding: Transposed only: positions added at the end of the output.
            size: Input positions per axis, needed by "same" with a stride above 1.

        Raises:
            GeometryError: A number is out of range, or there is not one per axis.

        >>> Geometry.window(1, 3, stride=2, padding="same", size=(8,)).axes
        (Axis(kernel=3, stride=2, dilation=1, before=0, after=1, period=1),)
        """
        names = ("axes", "kernel", "stride", "padding", "dilation", "period", "output_padding", "size", "groups")
        values = (axes, kernel, stride, padding, dilation, period, output_padding, size, groups)
        return _window(*map(frozen, names, values), flip, transposed)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(axis.kernel for axis in self.axes)

    @property
    def period(self) -> tuple[int, ...]:
        """Sharing period per axis; all ones is a convolution."""
        return tuple(axis.period for axis in self.axes)

    @property
    def extent(self) -> tuple[int, ...]:
        """Input positions that one window spans, per axis."""
        return tuple(axis.extent for axis in self.axes)

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Output positions per axis.

        Raises:
            GeometryError: The size has another number of axes, or an axis would have no output.

        >>> Geometry.window(2, kernel=3, stride=2, padding=1, transposed=True, output_padding=1).output_size((7, 7))
        (14, 14)
        """
        sizes = per_axis("size", frozen("size", size), len(self.axes))
        return tuple(self._axis_size(number, n) for number, n in enumerate(sizes))

    def _axis_size(self, number: int, size: int) -> int:
        axis = self.axes[number]
        try:
            return axis.transposed_size(size) if self.transposed else axis.output_size(size)
        except GeometryError as error:
            raise GeometryError(f"On spatial axis {number}: {error}") from None

    def adjoint(self) -> Geometry:
        """The same window with inputs and outputs exchanged."""
        return replace(self, transposed=not self.transposed)

    def weight_shape(self, in_channels: int, out_channels: int) -> tuple[int, ...]:
        """Shape of the weights: ``(*period, O, C/groups, *K)``; transposed ``(*period, C, O/groups, *K)``.

        The period is left out where the weights are shared by all positions.

        Raises:
            GeometryError: The groups do not divide the channels.

        >>> Geometry.window(2, 3, groups=4).weight_shape(8, 16)
        (16, 2, 3, 3)
        """
        for name, channels in (("input", in_channels), ("output", out_channels)):
            if channels < 0 or channels % self.groups:
                raise GeometryError(
                    f"groups={self.groups} does not divide the {channels} {name} channels; "
                    f"both channel counts must be multiples of the groups."
                )
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shared = prod(self.period) == 1
        return (*(() if shared else self.period), first, second // self.groups, *self.kernel)


def per_axis(name: str, value: Any, axes: int) -> tuple[Any, ...]:
    """Repeat a single value, or check a sequence; later code only ever sees a tuple of ``axes`` entries.

    Raises:
        GeometryError: The sequence has another length.

    >>> per_axis("stride", 2, 3)
    (2, 2, 2)
    """
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * axes
    if len(values) != axes:
        entries = "1 entry" if len(values) == 1 else f"{len(values)} entries"
        raise GeometryError(f"{name}={value!r} has {entries}; this window has {_axes(axes)}.")
    return values


def _check_size(size: int) -> None:
    if not _whole(size) or size < 1:
        raise GeometryError(f"the input needs at least 1 position, got size={size!r}.")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _axes(axes: int) -> str:
    return "1 spatial axis" if axes == 1 else f"{axes} spatial axes"


def frozen(name: str, value: Any) -> Any:
    """Lists as tuples and foreign integers as int, so that equal windows are looked up, not built again.

    Raises:
        GeometryError: Somewhere in the value stands something else than a whole number, a text or None.

    >>> frozen("padding", [1, [0, 2]])
    (1, (0, 2))
    """
    if type(value) is int or value is None or isinstance(value, str):
        return value
    if isinstance(value, Iterable) and not isinstance(value, Mapping) and getattr(value, "ndim", True):
        return tuple(frozen(name, entry) for entry in value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise GeometryError(f"{name} must be a whole number or consist of them, got {name}={value!r}.")
    return index(value)


@lru_cache(maxsize=4096, typed=True)
def _window(
    axes: int,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    period: Any,
    output_padding: Any,
    size: Any,
    groups: int,
    flip: bool,
    transposed: bool,
) -> Geometry:
    names = ("kernel", "stride", "dilation", "period", "output_padding", "size")
    values = (kernel, stride, dilation, period, output_padding, size)
    kernels, strides, dilations, periods, extras, sizes = (
        per_axis(name, value, axes) for name, value in zip(names, values, strict=True)
    )
    bare = [Axis(k, s, d, period=t) for k, s, d, t in zip(kernels, strides, dilations, periods, strict=True)]
    if extras != (0,) * axes:
        _check_output_padding(extras, bare, transposed)
    pairs = _padding_pairs(padding, bare, sizes, transposed)
    padded = (
        replace(axis, before=before, after=after - extra)
        for axis, (before, after), extra in zip(bare, pairs, extras, strict=True)
    )
    return Geometry(tuple(padded), groups, bool(flip), bool(transposed))


def _padding_pairs(padding: Any, axes: list[Axis], sizes: tuple[Any, ...], transposed: bool) -> list[tuple[int, int]]:
    if isinstance(padding, str) and transposed:
        return [_transposed_rows(padding, axis) for axis in axes]
    if isinstance(padding, str):
        return [padding_words.rows(padding, a.extent, a.stride, n) for a, n in zip(axes, sizes, strict=True)]
    return [_pair(entry) for entry in per_axis("padding", padding, len(axes))]


def _transposed_rows(word: str, axis: Axis) -> tuple[int, int]:
    """The rows of the convolution whose adjoint is meant; "same" then writes ``size * stride`` positions."""
    before, after = padding_words.rows(word, axis.extent, axis.stride, axis.stride)
    missing = min(axis.extent - axis.stride, 0) if word.startswith("same") else 0
    return before, after + missing


def _pair(entry: Any) -> tuple[int, int]:
    pair = entry if isinstance(entry, tuple) else (entry, entry)
    if len(pair) != 2 or not all(_whole(rows) for rows in pair):
        words = ", ".join(repr(word) for word in padding_words.WORDS)
        raise GeometryError(
            f"padding={entry!r} is neither a number nor a (before, after) pair of numbers; the words are {words}."
        )
    if min(pair) < 0:
        raise GeometryError(f"padding must be at least 0, got padding={entry!r}; slice the input to crop it.")
    return pair


def _check_output_padding(extras: tuple[Any, ...], axes: list[Axis], transposed: bool) -> None:
    if not transposed:
        raise GeometryError(f"output_padding={extras!r} belongs to a transposed window only; leave it out.")
    for extra, axis in zip(extras, axes, strict=True):
        limit = max(axis.stride, axis.dilation)
        if not _whole(extra) or not 0 <= extra < limit:
            raise GeometryError(
                f"output_padding must be at least 0 and less than the larger of stride and dilation ({limit}), "
                f"got output_padding={extra!r}."
            )
