"""A network on paper: a frozen graph of named nodes, each with the operation that it performs. No tensors here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any

from .errors import GeometryError, OptionError, unknown_name
from .operations import (
    FC,
    RBF,
    Activation,
    Adaptive,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Input,
    Operation,
    Shape,
    written,
)
from .spelling import text

DEFAULTS: dict[str, Any] = {"input": (3, 32, 32), "filters": 32, "hidden": 128, "classes": 10}


@dataclass(frozen=True, slots=True)
class Node:
    """One named operation of a network, which nodes it reads, and where it is written.

    Args:
        name: Unlike any other node's.
        operation: What it does.
        inputs: Names of the nodes that it reads, in order.
        line: Of the text, from 1; 0 if there is none.
        column: Of the text, from 1.
        ignored: Codes of findings that its author has ruled out, or "all".
        source: Where a traced model computes it.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...] = ()
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)
    ignored: frozenset[str] = field(default=frozenset(), compare=False)
    source: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """Where it is written, for messages: ``line 3, column 7: ``, or nothing."""
        return f"line {self.line}, column {self.column}: " if self.line else ""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network as named nodes in the order of computation, the input first.

    What a text leaves open (the input's shape, filters, features) is None until :meth:`bind` fills it.

    Args:
        nodes: In the order of computation.
        outputs: Names of the nodes that the network gives, the main one first; not given, it is the last node.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        found = next((node for node in self.nodes if node.name == name), None)
        if found is None:
            raise unknown_name("layer", name, (node.name for node in self.nodes))
        return found

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the nodes that the network gives, the main one first, auxiliary ones behind."""
        return self.outputs or (self.nodes[-1].name,)

    def shapes(self) -> dict[str, Shape]:
        """The shape of every node's output.

        Raises:
            GeometryError: An operation does not fit its inputs; the message names the node.
        """
        found: dict[str, Shape] = {}
        for node in self.nodes:
            given = [found[name] for name in node.inputs]
            with placed(node, given):
                found[node.name] = node.operation.output_shape(*given or [self.input_shape or ()])
        return found

    @property
    def input_shape(self) -> Shape | None:
        """``(C, *spatial)`` of an example, or None if still open."""
        first = self.nodes[0].operation
        return first.shape if isinstance(first, Input) else None

    @property
    def classes(self) -> int | None:
        """Features of the layer that gives the scores, or None if there is none or it is open."""
        last = self._classifier(self.results[0])
        operation = None if last is None else last.operation
        return operation.filters if isinstance(operation, Conv) else getattr(operation, "features", None)

    @property
    def written_for(self) -> tuple[str, int] | None:
        """The first layer whose kernel has a number for each spatial axis, and how many; None if it fits any data."""
        kernels = ((node.name, getattr(node.operation, "kernel", None)) for node in self.nodes)
        return next(((name, len(kernel)) for name, kernel in kernels if isinstance(kernel, tuple)), None)

    def overwriting(self) -> frozenset[str]:
        """Names of all nodes that can put their output where their input was."""
        readers = Counter(name for node in self.nodes for name in set(node.inputs)) + Counter(self.results)
        free = {
            n.name: readers[n.name] == 1 and "output" not in n.operation.saves and not n.operation.passes_on
            for n in self.nodes
        }
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
        return replace(self, nodes=tuple(self._fill(node, values) for node in self.nodes))

    def adapted(
        self, input_shape: Shape | None = None, classes: int | None = None, *, maps: bool = False
    ) -> Architecture:
        """The same network for examples of another shape or another number of classes; None leaves them as they are.

        Args:
            input_shape: ``(C, *spatial)``.
            classes: Scores at the end.
            maps: The scores are maps: their number is that of the filters of the last convolution.

        Raises:
            OptionError: A value is no whole number of at least 1.
        """
        changed = {}
        if input_shape is not None:
            first = self.nodes[0]
            changed[first.name] = replace(first, operation=Input(_variable_value("input", input_shape)))
        if classes is not None:
            for last in filter(None, (self._classifier(output, maps) for output in self.results)):
                field = "filters" if isinstance(last.operation, Conv) else "features"
                number = _variable_value("classes", classes)
                changed[last.name] = replace(last, operation=replace(last.operation, **{field: number}))
        return replace(self, nodes=tuple(changed.get(node.name, node) for node in self.nodes))

    @property
    def ends_open(self) -> bool:
        """Whether the network ends in a convolution whose filters are open, as for maps of classes."""
        return getattr(self.nodes[-1].operation, "filters", 0) is None

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the layers that give the scores, of the output and of auxiliary ones."""
        found = (self._classifier(output) or self._classifier(output, True) for output in self.results)
        return tuple(node.name for node in found if node is not None)

    def _classifier(self, output: str, maps: bool = False) -> Node | None:
        """The layer that gives the scores: fully connected, or a convolution whose map is pooled to one position.

        Args:
            output: The node that it leads to.
            maps: Scores are maps, which need no pooling.
        """
        nodes = {node.name: node for node in self.nodes}
        node, pooled = nodes[output], maps
        while not isinstance(node.operation, FC | RBF) and not (pooled and isinstance(node.operation, Conv)):
            passes = isinstance(node.operation, Activation | Adaptive | BatchNorm | Dropout | Flatten)
            if not passes or len(node.inputs) != 1:
                return None
            pooled |= isinstance(node.operation, Adaptive)
            node = nodes[node.inputs[0]]
        return node

    def _variable(self, node: Node) -> str | None:
        """Which variable fills this node's open number."""
        operation = node.operation
        if isinstance(operation, Input):
            return "input" if operation.shape is None else None
        fills = {"filters": "filters", "features": "hidden"}
        variable = next((fills[name] for name in fills if getattr(operation, name, 1) is None), None)
        if variable and any(node is self._classifier(output) for output in self.results):
            return "classes"
        return variable

    def _fill(self, node: Node, values: dict[str, Any]) -> Node:
        variable = self._variable(node)
        if variable not in values:
            return node
        name = next(name for name in ("shape", "filters", "features") if hasattr(node.operation, name))
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


@contextmanager
def placed(node: Node, shapes: Sequence[Shape]) -> Iterator[None]:
    """Say which node a :class:`GeometryError` is about, where it stands and what it was given."""
    try:
        yield
    except GeometryError as error:
        given = f" with input {' and '.join(map(written, shapes))}" if shapes else ""
        raise GeometryError(f"In {node.name} ({node.place}{text(node.operation)}){given}: {error}") from None
