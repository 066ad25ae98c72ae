"""Windows of a network on paper: convolutions and poolings, and what all its operations have in common. No tensors.

Each operation says which numbers it takes, what it makes of a feature map ``(C, *spatial)``, what it learns and
multiplies, which positions it reads, and what the backward pass needs of it. All else about a network is derived from
that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from . import cost
from .errors import GeometryError, OptionError
from .geometry import Geometry, per_axis
from .relations import Relation, of_window, repeats_late
from .taps import require_real_reads

Shape = tuple[int, ...]
PerAxis = int | tuple[int, ...]
# For each axis of an input: the axis of the output that its reads follow (None: the same for all outputs), and how.
Reading = tuple[tuple[int | None, Relation], ...]
BYTES = 4
NO_VALUES = "switches carry no values"
LATE = "its positions repeat too late to be written down"


@dataclass(frozen=True, slots=True)
class Operation:
    """What a node does to feature maps of shapes ``(C, *spatial)``; the defaults are those of an elementwise one.

    ``word``: in the notation. ``measure``: the fields that a number right behind the word fills. ``in_place``: it may
    overwrite its input. ``saves``: which feature maps the backward pass needs, of "inputs" and "output".
    ``passes_on``: its output is at times the input itself, in the same memory. ``inputs``: how many there are; None for
    any number.
    """

    word: ClassVar[str] = ""
    measure: ClassVar[str] = ""
    in_place: ClassVar[bool] = False
    saves: ClassVar[frozenset[str]] = frozenset()
    passes_on: ClassVar[bool] = False
    inputs: ClassVar[int | None] = 1

    def window(self, shape: Shape) -> Geometry | None:
        """The sliding window, if there is one."""
        return None

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output for inputs of these shapes."""
        return shapes[0]

    def parameters(self, *shapes: Shape) -> int:
        """Learned numbers."""
        return 0

    def multiply_adds(self, *shapes: Shape) -> int | None:
        """Multiply-adds for one example; only convolutions and fully connected layers count, as in the literature."""
        return 0

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """For each input, which positions are read, or why that is unknown."""
        return tuple(same_positions(shape) for shape in shapes)

    def kept(self, *shapes: Shape) -> frozenset[str]:
        """Which feature maps the backward pass needs, of "inputs" and "output", as PyTorch's kernels do."""
        return self.saves

    def saved_extra(self, *shapes: Shape) -> int | None:
        """Bytes that the backward pass needs besides inputs, output and weights: statistics, switches, masks.

        None if that is unknown.
        """
        return 0

    @property
    def unknown(self) -> str:
        """Why costs are unknown; empty if they are known."""
        return ""


INPUTS, OUTPUT = frozenset({"inputs"}), frozenset({"output"})


def same_positions(shape: Shape) -> Reading:
    """Every position reads itself."""
    return tuple((axis, Relation.identity(n)) for axis, n in enumerate(shape[1:]))


def all_positions(shape: Shape) -> Reading:
    """Every output reads every position."""
    return tuple((None, Relation.everything(n)) for n in shape[1:])


def along(relations: Sequence[Relation]) -> Reading:
    """Each axis of the output follows the same axis of the input; what reads everything follows none."""
    return tuple((None if relation.taps is None else axis, relation) for axis, relation in enumerate(relations))


def sampled(
    given: Shape, made: Shape, relate: Callable[[int, int], Relation], *, corners: bool = False
) -> tuple[Reading | str, ...]:
    """What an operation reads that brings each axis to another size; ``corners``: so that the corners meet."""
    sizes = list(zip(given[1:], made[1:], strict=True))
    if any(repeats_late(n - corners, m - corners) for n, m in sizes):
        return (LATE,)
    return (along([relate(n, m) for n, m in sizes]),)


@dataclass(frozen=True, slots=True)
class Input(Operation):
    """Where the examples come in."""

    word: ClassVar[str] = "INPUT"
    measure: ClassVar[str] = "shape"
    passes_on: ClassVar[bool] = True
    inputs: ClassVar[int | None] = 0
    shape: Shape | None = None


# --------------------------------------------------------------------------------------------------------- windows


@dataclass(frozen=True, slots=True)
class Windowed(Operation):
    """An operation of a sliding window; the numbers are those of :class:`striate.Geometry`."""

    kernel: PerAxis = 3
    saves: ClassVar[frozenset[str]] = INPUTS

    def window(self, shape: Shape) -> Geometry:
        """The sliding window over this input."""
        return self._window(shape)

    def _window(self, shape: Shape, **options: Any) -> Geometry:
        spatial = spatial_size(shape, self.word)
        known = self.__dataclass_fields__
        given = {name: getattr(self, name) for name in ("stride", "padding", "dilation") if name in known}
        return Geometry.window(len(spatial), self.kernel, **(given | options), size=spatial)

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(channels, *window positions)``."""
        return (self.channels(shapes[0]), *self.window(shapes[0]).output_size(shapes[0][1:]))

    def channels(self, shape: Shape) -> int:
        """Channels of the output."""
        return shape[0]

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """What the window reads."""
        return (along(of_window(self.window(shapes[0]), shapes[0][1:], getattr(self, "border", "zeros"))),)


@dataclass(frozen=True, slots=True)
class Weighted(Windowed):
    """A window with learned weights, and biases if it has a field ``bias`` that says so."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(channels, *window positions)``; the groups must divide the channels."""
        self.window(shapes[0]).weight_shape(shapes[0][0], self.channels(shapes[0]))
        return Windowed.output_shape(self, *shapes)

    def parameters(self, *shapes: Shape) -> int:
        """Weights, and one bias per filter (for each position or tile where the weights differ there)."""
        return cost.parameters(
            self.window(shapes[0]), shapes[0][0], self.channels(shapes[0]), bias=getattr(self, "bias", False)
        )

    def multiply_adds(self, *shapes: Shape) -> int:
        """One for each weight and window position, padding counted."""
        return cost.multiply_adds(self.window(shapes[0]), shapes[0][0], self.channels(shapes[0]), shapes[0][1:])


@dataclass(frozen=True, slots=True)
class Filtered(Weighted):
    """A window whose text says how many filters it has."""

    measure: ClassVar[str] = "kernel-filters"
    filters: int | None = None

    def channels(self, shape: Shape) -> int:
        """The filters."""
        return filled(self.filters)


@dataclass(frozen=True, slots=True)
class PaddedConv(Weighted):
    """A convolution whose uneven padding, or whose border, PyTorch writes out: the copy is kept, not the input."""

    def kept(self, *shapes: Shape) -> frozenset[str]:
        """The input, unless a padded copy takes its place."""
        return frozenset() if self.saved_extra(*shapes) else INPUTS

    def saved_extra(self, *shapes: Shape) -> int:
        """The padded copy, if there is one."""
        zeros = getattr(self, "border", "zeros") == "zeros"
        rows = [abs(a.after - a.before) if zeros else a.after + a.before for a in self.window(shapes[0]).axes]
        sizes = [n + more for n, more in zip(shapes[0][1:], rows, strict=True)]
        return BYTES * shapes[0][0] * prod(sizes) if any(rows) else 0


@dataclass(frozen=True, slots=True)
class Conv(PaddedConv, Filtered):
    """Convolution; what a text does not say is 3 wide, stride 1, same padding.

    ``init="identity"`` starts it as one: the centre weight of a filter's own channel is 1, all else 0.
    """

    word: ClassVar[str] = "CONV"
    kernel: PerAxis = 3
    stride: PerAxis = 1
    padding: Any = "same"
    dilation: PerAxis = 1
    groups: int = 1
    bias: bool = True
    border: str = "zeros"
    init: str = "random"

    def window(self, shape: Shape) -> Geometry:
        """The sliding window over this input."""
        return self._window(shape, groups=self.groups)


@dataclass(frozen=True, slots=True)
class DepthwiseConv(PaddedConv):
    """Depthwise convolution: each channel has filters of its own, ``multiplier`` many."""

    word: ClassVar[str] = "DWCONV"
    measure: ClassVar[str] = "kernel"
    kernel: PerAxis = 3
    stride: PerAxis = 1
    padding: Any = "same"
    dilation: PerAxis = 1
    multiplier: int = 1
    bias: bool = True
    border: str = "zeros"

    def window(self, shape: Shape) -> Geometry:
        """The sliding window over this input."""
        return self._window(shape, groups=shape[0])

    def channels(self, shape: Shape) -> int:
        """``multiplier`` for each channel."""
        return shape[0] * self.multiplier


@dataclass(frozen=True, slots=True)
class TransposedConv(Filtered):
    """Transposed convolution; what a text does not say is 2 wide with stride 2, which doubles the size."""

    word: ClassVar[str] = "DECONV"
    kernel: PerAxis = 2
    stride: PerAxis = 2
    padding: Any = 0
    output_padding: PerAxis = 0
    dilation: PerAxis = 1
    groups: int = 1
    bias: bool = True

    def window(self, shape: Shape) -> Geometry:
        """The window whose adjoint this is."""
        return self._window(shape, groups=self.groups, transposed=True, output_padding=self.output_padding)


@dataclass(frozen=True, slots=True)
class LocalConv(Filtered):
    """Locally connected: a window with weights of its own at every position."""

    word: ClassVar[str] = "LOCAL"
    kernel: PerAxis = 3
    stride: PerAxis = 1
    padding: Any = "same"
    dilation: PerAxis = 1
    groups: int = 1
    bias: bool = True

    def window(self, shape: Shape) -> Geometry:
        """The sliding window, whose weights never repeat."""
        shared = self._window(shape)
        return self._window(shape, groups=self.groups, period=shared.output_size(shape[1:]))


@dataclass(frozen=True, slots=True)
class TiledConv(LocalConv):
    """Tiled convolution: the weights repeat after ``tile`` positions."""

    word: ClassVar[str] = "TILED"
    tile: PerAxis = 2

    def window(self, shape: Shape) -> Geometry:
        """The sliding window, whose weights repeat after each tile."""
        return self._window(shape, groups=self.groups, period=self.tile)


@dataclass(frozen=True, slots=True)
class Pool(Windowed):
    """Max pooling; what a text does not say is 2 wide with stride 2."""

    word: ClassVar[str] = "POOL"
    measure: ClassVar[str] = "kernel"
    kernel: PerAxis = 2
    stride: PerAxis | None = None
    padding: Any = 0
    dilation: PerAxis = 1
    ceil: bool = False

    def window(self, shape: Shape) -> Geometry:
        """The sliding window over this input; with ``ceil`` padding ends with the last window that begins inside."""
        spatial = spatial_size(shape, self.word)
        window = self._window(shape, stride=self.stride or self.kernel)
        if self.ceil:
            axes = []
            for axis, n in zip(window.axes, spatial, strict=True):
                rest = axis.unread_tail(n)
                more = axis.stride - rest if rest else 0
                begins = axis.output_size(n) * axis.stride - axis.before  # of the window that would be added
                axes.append((axis.before, axis.after + (more if begins < n else 0)))
            window = self._window(shape, stride=self.stride or self.kernel, padding=tuple(axes))
        require_real_reads(window, spatial)
        return window

    def saved_extra(self, *shapes: Shape) -> int:
        """The switches: a 64-bit position for each output."""
        return 8 * prod(self.output_shape(*shapes))


@dataclass(frozen=True, slots=True)
class AvgPool(Pool):
    """Mean pooling; padding counts as zeros only with ``count_padding``."""

    word: ClassVar[str] = "AVGPOOL"
    count_padding: bool = False

    def saved_extra(self, *shapes: Shape) -> int:
        """Nothing."""
        return 0


@dataclass(frozen=True, slots=True)
class LpPool(Pool):
    """``(sum |x|^p)^(1/p)`` over the window."""

    word: ClassVar[str] = "LPPOOL"
    saves: ClassVar[frozenset[str]] = INPUTS | OUTPUT
    p: float = 2.0

    def kept(self, *shapes: Shape) -> frozenset[str]:
        """Input and output; copies of them in float64 where p is not 2."""
        return self.saves if self.p == 2 else frozenset()

    def saved_extra(self, *shapes: Shape) -> int:
        """Where p is not 2: copies of input and output in float64, and masks."""
        return 0 if self.p == 2 else 25 * prod(shapes[0]) + 9 * prod(self.output_shape(*shapes))


@dataclass(frozen=True, slots=True)
class GaussianPool(Pool):
    """Mean under a Gaussian window; sigma is a quarter of the kernel if it is not given."""

    word: ClassVar[str] = "GAUSSPOOL"
    saves: ClassVar[frozenset[str]] = frozenset()  # a fixed linear map
    sigma: float | None = None

    def saved_extra(self, *shapes: Shape) -> int:
        """Nothing."""
        return 0


@dataclass(frozen=True, slots=True)
class Unpool(Operation):
    """Puts each value back where the max pooling ``of`` found it; zeros elsewhere."""

    word: ClassVar[str] = "UNPOOL"
    inputs: ClassVar[int | None] = 3  # the map, the pooling, the pooling's input
    of: str = ""
    kernel: PerAxis = 2
    stride: PerAxis | None = None
    padding: Any = 0

    def output_shape(self, *shapes: Shape) -> Shape:
        """That of the pooling's input."""
        if shapes[0] != shapes[1]:
            raise GeometryError(
                f"UNPOOL of={self.of} puts {written(shapes[1])} values back, but its input is {written(shapes[0])}."
            )
        return shapes[2]

    def saved_extra(self, *shapes: Shape) -> int:
        """Where each value goes, and where each position's value comes from: 64-bit numbers."""
        return 8 * prod(shapes[0]) + 8 * prod(shapes[2])

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Each position reads the windows that may have chosen it."""
        window = Pool(self.kernel, self.stride, self.padding).window(shapes[2])
        axes = zip(window.axes, shapes[0][1:], shapes[2][1:], strict=True)
        relations = []
        for axis, n, whole in axes:
            back = Relation.window(axis, n, transposed=True)
            relations.append(Relation(n, whole, back.taps, back.shift))
        why = NO_VALUES
        return (along(relations), why, why)


@dataclass(frozen=True, slots=True)
class Adaptive(Operation):
    """Pooling to a given size, whatever the input's: to one position, unless a field ``size`` says otherwise."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """``(C, *size)``."""
        spatial = spatial_size(shapes[0], self.word)
        return (shapes[0][0], *per_axis("size", getattr(self, "size", 1), len(spatial)))

    def reads(self, *shapes: Shape) -> tuple[Reading | str, ...]:
        """Cells of nearly equal size, or everything."""
        return sampled(shapes[0], self.output_shape(*shapes), Relation.cells)

    def switches(self, *shapes: Shape) -> int:
        """Bytes of a 64-bit position for each output."""
        return 8 * prod(self.output_shape(*shapes))


@dataclass(frozen=True, slots=True)
class AdaptivePool(Adaptive):
    """Max pooling to a given size."""

    word: ClassVar[str] = "ADAPTIVEPOOL"
    measure: ClassVar[str] = "size"
    saves: ClassVar[frozenset[str]] = INPUTS
    size: PerAxis = 1

    def saved_extra(self, *shapes: Shape) -> int:
        """The switches."""
        return self.switches(*shapes)


@dataclass(frozen=True, slots=True)
class AdaptiveAvgPool(Adaptive):
    """Mean pooling to a given size."""

    word: ClassVar[str] = "ADAPTIVEAVGPOOL"
    measure: ClassVar[str] = "size"
    saves: ClassVar[frozenset[str]] = INPUTS
    size: PerAxis = 1


@dataclass(frozen=True, slots=True)
class GlobalPool(Adaptive):
    """The maximum over all positions: ``(C, 1, 1)``."""

    word: ClassVar[str] = "GLOBALPOOL"
    saves: ClassVar[frozenset[str]] = INPUTS

    def saved_extra(self, *shapes: Shape) -> int:
        """The switches."""
        return self.switches(*shapes)


@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Adaptive):
    """The mean over all positions: ``(C, 1, 1)``; its backward pass needs the size only."""

    word: ClassVar[str] = "GLOBALAVGPOOL"


def filled(number: int | None) -> int:
    """A number that must be known by now.

    Raises:
        OptionError: It is still open.
    """
    if number is None:
        raise OptionError("the network still leaves numbers open; bind them first, as in bind(filters=32, classes=10).")
    return number


def spatial_size(shape: Shape, word: str) -> Shape:
    """The spatial axes of an input that must have some.

    Raises:
        GeometryError: It has none.
    """
    if len(shape) < 2:
        raise GeometryError(
            f"{word} slides over spatial axes, but its input {shape} has none left; put it before any FC."
        )
    return shape[1:]


def divided(word: str, channels: int, parts: int) -> int:
    """Channels of one of ``parts`` equal parts.

    Raises:
        GeometryError: They do not divide.
    """
    if channels % parts:
        raise GeometryError(f"{word} needs channels in {parts} equal parts, but there are {channels}.")
    return channels // parts


def written(shape: Sequence[object]) -> str:
    """A shape as people write it.

    >>> written((3, 224, 224))
    '3x224x224'
    """
    return "x".join(map(str, shape)) or "1"
