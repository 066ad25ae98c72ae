"""Drafts of nodes, and what a tensor of a traced model is: a view of a draft's feature map, or a constant."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from functools import lru_cache
from typing import Any, ClassVar

from .factors import Factor, Layout, size_of
from .operations import ReLU
from .windows import Operation, Shape


@dataclass(eq=False, slots=True)
class Draft:
    """A node to be.

    Args:
        name: Unlike any other's.
        operation: What it does.
        inputs: The nodes that it reads.
        shape: Of its output.
        source: Where the model computes it.
        learned: Which parameters it reads, by their ids.
    """

    name: str
    operation: Operation
    inputs: tuple[Draft, ...]
    shape: Shape
    source: str = ""
    learned: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that depends on the input: a view of a node's feature map.

    Args:
        draft: The node.
        layout: What the tensor's axes are made of.
        origin: Name and source of the view, for a node that it may become.
    """

    draft: Draft
    layout: Layout
    origin: tuple[str, str] = field(default=("", ""), compare=False)

    @property
    def factors(self) -> list[Factor]:
        """All factors, the outermost first."""
        return [factor for axis in self.layout for factor in axis]

    @property
    def sizes(self) -> Shape:
        """Of the tensor."""
        return tuple(map(size_of, self.layout))

    def relaid(self, layout: Layout) -> Value:
        """Another view of the same node."""
        return Value(self.draft, layout, self.origin)


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that does not depend on the input.

    Args:
        learned: Which parameters it was computed from, by their ids.
    """

    learned: frozenset[int] = frozenset()


Traced = Value | Constant


@dataclass(frozen=True, slots=True)
class KeptReLU(ReLU):
    """``max(x, 0)`` that the model writes to memory of its own."""

    __doc__ = ReLU.__doc__
    in_place: ClassVar[bool] = False


def relearned(operation: Operation, learned: int) -> Operation:
    """The same operation with another number of parameters of its own: shared ones, fixed ones, factored ones.

    >>> from striate.operations import BatchNorm
    >>> plain_norm = relearned(BatchNorm(), 0)
    >>> plain_norm.parameters((8, 4, 4)), isinstance(plain_norm, BatchNorm)
    (0, True)
    """
    values = {entry.name: getattr(operation, entry.name) for entry in fields(operation)}
    kind: Any = type(operation)
    return _relearning(kind)(**values | {"learned": learned})


@lru_cache(maxsize=64)
def _relearning(kind: Any) -> Any:
    """The kind of operation whose field ``learned`` says what it learns."""

    def parameters(self: Any, *shapes: Shape) -> int:
        return int(self.learned)

    def reduce(self: Any) -> Any:
        values = (getattr(self, entry.name) for entry in fields(kind))
        return relearned, (kind(*values), self.learned)

    own = {"parameters": parameters, "__reduce__": reduce, "__doc__": kind.__doc__, "__module__": kind.__module__}
    own["foreign_note"] = "its parameters are not as many as its word says: some are shared, fixed or made of others"
    return make_dataclass(kind.__name__, [("learned", int, 0)], bases=(kind,), namespace=own, frozen=True, slots=True)
