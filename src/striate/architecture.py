"""A network on paper: a frozen graph of named nodes, each with the operation that it performs. No tensors here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from operator import index
from typing import Any, ClassVar

from . import cost
from .errors import GeometryError, OptionError
from .geometry import Geometry
from .taps import require_real_reads

Shape = tuple[int, ...]
PerAxis = int | tuple[int, ...]
DEFAULTS: dict[str, Any] = {"input": (3, 32, 32), "filters": 32, "hidden": 128, "classes": 10}


@dataclass(frozen=True, slots=True)
class Operation:
    """What a node does to a feature map of shape ``(C, *spatial)``; the defaults are those of an elementwise one.

    ``in_place``: it may overwrite its input. ``output_is_kept``: the backward pass, or the caller, needs its output,
    or it is at times the input itself.
    """

    word: ClassVar[str] = ""
    in_place: ClassVar[bool] = False
    output_is_kept: ClassVar[bool] = False

    def window(self, shape: Shape) -> Geometry | None:
        """The sliding window, if there is one."""
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        return shape

    def parameters(self, shape: Shape) -> int:
        """Learned numbers."""
        return 0

    def multiply_adds(self, shape: Shape) -> int:
        """Multiply-adds for one example; only convolutions and fully connected layers count, as in the literature."""
        return 0


@dataclass(frozen=True, slots=True)
class Input(Operation):
    """Where the examples come in."""

    word: ClassVar[str] = "INPUT"
    output_is_kept: ClassVar[bool] = True
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Conv(Operation):
    """Convolution; what a text does not say is 3 wide, stride 1, same padding."""

    word: ClassVar[str] = "CONV"
    kernel: PerAxis = 3
    filters: int | None = None
    stride: PerAxis = 1
    padding: Any = "same"
    dilation: PerAxis = 1
    groups: int = 1
    bias: bool = True

    def window(self, shape: Shape) -> Geometry:
        """The sliding window over this input."""
        spatial = _spatial(shape, "CONV")
        return Geometry.window(
            len(spatial),
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            size=spatial,
        )

    def output_shape(self, shape: Shape) -> Shape:
        """``(filters, *window positions)``."""
        return (_filled(self.filters), *self.window(shape).output_size(shape[1:]))

    def parameters(self, shape: Shape) -> int:
        """Weights shared by all positions, and one bias per filter."""
        return cost.parameters(self.window(shape), shape[0], _filled(self.filters), bias=self.bias)

    def multiply_adds(self, shape: Shape) -> int:
        """One for each weight and window position, padding counted."""
        return cost.multiply_adds(self.window(shape), shape[0], _filled(self.filters), shape[1:])


@dataclass(frozen=True, slots=True)
class Pool(Operation):
    """Max pooling; what a text does not say is 2 wide with stride 2."""

    word: ClassVar[str] = "POOL"
    kernel: PerAxis = 2
    stride: PerAxis | None = None
    padding: Any = 0

    def window(self, shape: Shape) -> Geometry:
        """The sliding window over this input."""
        spatial = _spatial(shape, self.word)
        window = Geometry.window(
            len(spatial), self.kernel, stride=self.stride or self.kernel, padding=self.padding, size=spatial
        )
        require_real_reads(window, spatial)
        return window

    def output_shape(self, shape: Shape) -> Shape:
        """``(C, *window positions)``."""
        return (shape[0], *self.window(shape).output_size(shape[1:]))


@dataclass(frozen=True, slots=True)
class AvgPool(Pool):
    """Mean pooling."""

    word: ClassVar[str] = "AVGPOOL"


@dataclass(frozen=True, slots=True)
class FC(Operation):
    """Fully connected: every output reads the whole input."""

    word: ClassVar[str] = "FC"
    features: int | None = None
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        """``(features,)``."""
        return (_filled(self.features),)

    def parameters(self, shape: Shape) -> int:
        """One weight for each pair of input and output, and the biases."""
        return _filled(self.features) * (prod(shape) + self.bias)

    def multiply_adds(self, shape: Shape) -> int:
        """One for each weight."""
        return _filled(self.features) * prod(shape)


@dataclass(frozen=True, slots=True)
class ReLU(Operation):
    """``max(x, 0)``."""

    word: ClassVar[str] = "RELU"
    in_place: ClassVar[bool] = True
    output_is_kept: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Tanh(Operation):
    """Hyperbolic tangent."""

    word: ClassVar[str] = "TANH"
    output_is_kept: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Sigmoid(Operation):
    """``1 / (1 + exp(-x))``."""

    word: ClassVar[str] = "SIGMOID"
    output_is_kept: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class BatchNorm(Operation):
    """Batch normalisation of each channel, with a learned scale and shift."""

    word: ClassVar[str] = "BN"

    def parameters(self, shape: Shape) -> int:
        """A scale and a shift per channel."""
        return 2 * shape[0]


@dataclass(frozen=True, slots=True)
class Dropout(Operation):
    """Sets each value to zero with probability ``p`` while training, and passes its input on otherwise."""

    word: ClassVar[str] = "DROPOUT"
    output_is_kept: ClassVar[bool] = True
    p: float = 0.5


OPERATIONS: dict[str, type[Operation]] = {
    kind.word: kind for kind in (Input, Conv, Pool, AvgPool, FC, ReLU, Tanh, Sigmoid, BatchNorm, Dropout)
}


@dataclass(frozen=True, slots=True)
class Node:
    """One named operation of a network, and which nodes it reads."""

    name: str
    operation: Operation
    inputs: tuple[str, ...] = ()
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network as named nodes in the order of computation, the input first.

    What a text leaves open (the input's shape, filters, features) is None until :meth:`bind` fills it.
    """

    nodes: tuple[Node, ...]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def input_shape(self) -> Shape | None:
        """``(C, *spatial)`` of an example, or None if still open."""
        first = self.nodes[0].operation
        return first.shape if isinstance(first, Input) else None

    @property
    def classes(self) -> int | None:
        """Features of the last fully connected layer, or None if there is none or it is open."""
        last = self._classifier()
        operation = None if last is None else last.operation
        return operation.features if isinstance(operation, FC) else None

    def overwrites(self, node: Node) -> bool:
        """Whether the node can put its output where its input was: nobody else needs that input."""
        return node.name in self.overwriting()

    def overwriting(self) -> frozenset[str]:
        """Names of all nodes that can put their output where their input was."""
        readers = Counter(name for node in self.nodes for name in set(node.inputs))
        free = {n.name: readers[n.name] == 1 and not n.operation.output_is_kept for n in self.nodes}
        able = (n for n in self.nodes if n.operation.in_place and n.inputs)
        return frozenset(n.name for n in able if all(free[name] for name in n.inputs))

    @property
    def open(self) -> tuple[str, ...]:
        """Names of the variables that :meth:`bind` would fill: input, filters, hidden, classes."""
        return tuple(name for name in DEFAULTS if any(self._variable(node) == name for node in self.nodes))

    def bind(
        self,
        *,
        input: Sequence[int] | None = None,
        filters: int | None = None,
        hidden: int | None = None,
        classes: int | None = None,
    ) -> Architecture:
        """Fill what the text leaves open; a variable that is None stays open.

        Args:
            input: ``(C, *spatial)`` of an INPUT without a size.
            filters: Of every CONV without a number.
            hidden: Features of every FC without a number, but the last.
            classes: Features of the last FC if it has no number.

        Raises:
            OptionError: A value is no whole number of at least 1, or the text leaves nothing of that name open and
                says otherwise.
        """
        given = {"input": input, "filters": filters, "hidden": hidden, "classes": classes}
        values = {name: _variable_value(name, value) for name, value in given.items() if value is not None}
        for name, value in values.items():
            fixed = {"input": self.input_shape, "classes": self.classes}.get(name)
            if name not in self.open and fixed != value:
                raise OptionError(
                    f"{name}={value!r} was given, but this network leaves no {name} open"
                    + (f": it says {fixed!r}." if fixed else ".")
                )
        return Architecture(tuple(self._fill(node, values) for node in self.nodes))

    def adapted(self, input_shape: Shape, classes: int) -> Architecture:
        """The same network for examples of another shape and another number of classes.

        Raises:
            OptionError: A value is no whole number of at least 1.
        """
        first, last = self.nodes[0], self._classifier()
        changed = {first.name: replace(first, operation=Input(_variable_value("input", input_shape)))}
        if last is not None and isinstance(last.operation, FC):
            features = _variable_value("classes", classes)
            changed[last.name] = replace(last, operation=replace(last.operation, features=features))
        return Architecture(tuple(changed.get(node.name, node) for node in self.nodes))

    def _classifier(self) -> Node | None:
        return next((node for node in reversed(self.nodes) if isinstance(node.operation, FC)), None)

    def _variable(self, node: Node) -> str | None:
        """Which variable fills this node's open number."""
        match node.operation:
            case Input(shape=None):
                return "input"
            case Conv(filters=None):
                return "filters"
            case FC(features=None):
                return "classes" if node is self._classifier() else "hidden"
        return None

    def _fill(self, node: Node, values: dict[str, Any]) -> Node:
        variable = self._variable(node)
        if variable not in values:
            return node
        name = {"input": "shape", "filters": "filters"}.get(variable, "features")
        return replace(node, operation=replace(node.operation, **{name: values[variable]}))


def whole_numbers(value: Any) -> tuple[int, ...] | None:
    """A whole number of at least 1, or a sequence of such, as a tuple of int; None for anything else.

    >>> whole_numbers([3, 8, 8]), whole_numbers(5), whole_numbers("3x8x8"), whole_numbers((3, 0))
    ((3, 8, 8), (5,), None, None)
    """
    entries = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if any(isinstance(entry, bool) or not hasattr(type(entry), "__index__") for entry in entries):
        return None
    numbers = tuple(index(entry) for entry in entries)
    return numbers if all(number >= 1 for number in numbers) else None


def options(operation: Operation) -> dict[str, Any]:
    """The settings of an operation that differ from the default of its kind."""
    plain = type(operation)()
    settings = {f.name: getattr(operation, f.name) for f in fields(operation)}
    return {name: value for name, value in settings.items() if value != getattr(plain, name)}


def _variable_value(name: str, value: Any) -> Any:
    """The value of a variable as whole numbers: ``(C, *spatial)`` for the input, else one."""
    numbers = whole_numbers(value)
    if numbers is None:
        raise OptionError(f"{name}={value!r}: every number must be a whole number of at least 1.")
    if name == "input" and len(numbers) < 2:
        raise OptionError(f"input={value!r} must be (channels, *spatial), as in (3, 32, 32).")
    if name != "input" and isinstance(value, Sequence):
        raise OptionError(f"{name}={value!r} must be one number.")
    return numbers if name == "input" else numbers[0]


def _filled(number: int | None) -> int:
    if number is None:
        raise OptionError("the network still leaves numbers open; bind them first, as in bind(filters=32, classes=10).")
    return number


def _spatial(shape: Shape, word: str) -> Shape:
    if len(shape) < 2:
        raise GeometryError(
            f"{word} slides over spatial axes, but its input {shape} has none left; put it before any FC."
        )
    return shape[1:]
