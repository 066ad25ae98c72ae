"""Facts: what the linter's rules know of a network, each derived once: its table, who reads what, how to say a fix."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from .analysis import Row, analyse
from .architecture import Architecture, Node
from .findings import RULES, Finding
from .operations import FC, NO_VALUES, Conv, DepthwiseConv, LocalConv, Reading, Shape, TransposedConv
from .relations import Relation
from .support import LONGEST_AXIS, Support

LINEAR_LAYERS = (Conv, DepthwiseConv, TransposedConv, LocalConv, FC)
# Per axis, a set of positions with one bit for each.
Masks = tuple[int, ...]


class Facts:
    """A network whose every number is known, as the rules see it.

    Args:
        architecture: The network.
        object_size: Of the objects that it is to recognise, in input positions per axis; None if nobody said.

    >>> from striate.notation import parse
    >>> facts = Facts(parse("INPUT 1x8x8 -> CONV3-4 stride=2 padding=0 -> RELU -> FC 2"))
    >>> [node.name for node in facts.readers["conv1"]], facts.shapes["relu1"], facts.results
    (['relu1'], (4, 3, 3), ('fc1',))
    """

    def __init__(self, architecture: Architecture, object_size: tuple[int, ...] | None = None) -> None:
        self.architecture = architecture
        self.object_size = object_size
        self.results = architecture.results
        self.nodes: dict[str, Node] = {node.name: node for node in architecture}
        table = analyse(architecture)
        self.rows: dict[str, Row] = {row.name: row for row in table.rows}
        self.totals = table.totals
        self.support = table.rows[0].support or Support(architecture, architecture.shapes())
        self.shapes: Mapping[str, Shape] = self.support.shapes
        self.size = self.support.size
        self._readings: dict[str, list[tuple[str, Reading | str]]] = {}
        self.readers: dict[str, list[Node]] = {node.name: [] for node in architecture}
        for node in architecture:
            for name in dict.fromkeys(node.inputs):
                self.readers[name].append(node)

    def given(self, node: Node) -> Shape:
        """The shape of a node's first input."""
        return self.shapes[node.inputs[0]]

    def readings(self, node: Node) -> list[tuple[str, Reading | str]]:
        """The inputs that carry values, each with how it is read, or why that is unknown."""
        if node.name not in self._readings:
            shapes = [self.shapes[name] for name in node.inputs]
            longest = max((n for shape in (*shapes, self.shapes[node.name]) for n in shape[1:]), default=0)
            found = node.operation.reads(*shapes) if longest <= LONGEST_AXIS else ("too long",) * len(shapes)
            pairs = zip(node.inputs, found, strict=False)  # the input of the network reads nothing
            self._readings[node.name] = [(name, reading) for name, reading in pairs if reading != NO_VALUES]
        return self._readings[node.name]

    def copies(self, node: Node) -> bool:
        """Whether every position of a node reads its own place of its only input, and nothing else."""
        readings = [reading for _, reading in self.readings(node)]
        if len(node.inputs) != 1 or len(readings) != 1 or isinstance(readings[0], str):
            return False
        same = len(self.given(node)) == len(self.shapes[node.name]) > 1
        return same and all(axis == place and one.is_identity for place, (axis, one) in enumerate(readings[0]))

    def final_readers(self, name: str) -> list[tuple[Node, Masks]] | None:
        """Who reads a map, directly or through layers that copy positions, and which positions of it.

        None if something reads all of it, or may.
        """
        found: list[tuple[Node, Masks]] = []
        pending = [name]
        whole = tuple((1 << n) - 1 for n in self.shapes[name][1:])
        while pending:
            here = pending.pop()
            if here in self.results:
                return None
            for node in self.readers[here]:
                if self.copies(node):
                    pending.append(node.name)
                    continue
                for source, reading in self.readings(node):
                    if source == here:
                        masks = None if isinstance(reading, str) else tuple(_read(*one) for one in reading)
                        if masks is None or masks == whole:
                            return None
                        found.append((node, masks))
        return sorted(found, key=lambda one: self.support.order[one[0].name])

    def weights(self, node: Node) -> int:
        """The weights of a convolution or fully connected layer, biases not counted."""
        shape, channels = self.given(node), self.shapes[node.name][0]
        window = node.operation.window(shape)
        return prod(window.weight_shape(shape[0], channels)) if window else prod(shape) * channels

    def is_dense(self, name: str) -> bool:
        """Whether a map has several positions."""
        return prod(self.shapes[name][1:]) > 1

    def linear_layers(self) -> list[Node]:
        """The convolutions and fully connected layers."""
        return [node for node in self.architecture if isinstance(node.operation, LINEAR_LAYERS)]

    def above(self, name: str) -> list[Node]:
        """A node and everything that it depends on, in the order of computation."""
        wanted = {name}
        for node in reversed(self.architecture.nodes):
            if node.name in wanted:
                wanted.update(node.inputs)
        return [node for node in self.architecture if node.name in wanted]


def _read(axis: int | None, relation: Relation) -> int:
    everything = (1 << relation.outputs) - 1
    return (1 << relation.inputs) - 1 if axis is None else relation.back(everything)


def reported(
    code: str, node: Node, message: str, evidence: Mapping[str, Any], fix: str | tuple[str, str], severity: str = ""
) -> Finding:
    """A finding at a node.

    Args:
        code: Of the rule.
        node: Where.
        message: With its numbers.
        evidence: The numbers.
        fix: In the notation's words; or these, and PyTorch's for traced models.
        severity: The rule's own, if not given.
    """
    words = fix if isinstance(fix, str) else fix[bool(node.source)]
    return Finding(
        code, node.name, node.line, node.column, severity or RULES[code].severity, message, dict(evidence), words,
        node.source,
    )  # fmt: skip


def names(nodes: list[Node]) -> str:
    """Names of nodes in a sentence.

    >>> names([Node("conv1", Conv()), Node("conv2", Conv())])
    'conv1 and conv2'
    """
    listed = [node.name for node in nodes]
    if len(listed) > 4:
        listed = [*listed[:3], f"{len(listed) - 3} others"]
    return " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))
