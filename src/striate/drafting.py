"""The growing graph of a traced model: its nodes, and feature maps made of views. No tensors here.

Views make no nodes. Where an operation needs a feature map as it is, a view that is none becomes a node: a shuffle, a
flattening, or a rearrangement without a name, whose reads are known all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .drafts import Draft, Value
from .errors import GeometryError, StriateError
from .factors import BATCH, Axis, Layout, Slot, follow, merged, plain, settled, single
from .operations import Foreign, Resize
from .rearranging import named
from .relations import LONGEST_PERIOD
from .support import LONGEST_AXIS
from .windows import (
    AdaptiveAvgPool,
    AdaptivePool,
    Operation,
    Reading,
    Shape,
    TransposedConv,
    same_positions,
)

Found = tuple[Reading | str, ...]
UNEVEN = (Resize, AdaptivePool, AdaptiveAvgPool, TransposedConv)  # their reads may repeat late


class Drafting:
    """The graph while it grows.

    Args:
        start: The input.
        batch: Examples.
        placed: Name and source of a node of this kind, computed here and now.
    """

    def __init__(self, start: Draft, batch: int, placed: Callable[[str], tuple[str, str]]) -> None:
        self.batch, self.placed = batch, placed
        self.drafts = [start]
        self.names = {start.name: 1}
        self.kept: dict[tuple[Draft, Layout], Draft] = {}

    # ----------------------------------------------------------------------------------------------------------- nodes

    def node(
        self,
        kind: str,
        operation: Operation | None,
        inputs: Sequence[Value],
        shape: Shape,
        reading: Found,
        *,
        macs: int | None = 0,
        why: str = "",
        origin: tuple[str, str] = ("", ""),
        apart: bool = False,
        picks: bool = False,
    ) -> Draft:
        """A new node: the operation if it gives what was traced, else a foreign one with these reads and costs."""
        drafts = tuple(value.draft for value in inputs)
        if operation is None or not _gives(operation, drafts, shape):
            operation = Foreign(kind, shape, 0, macs, reading, why, apart, picks)
        name, source = origin if origin[0] else self.placed(kind.rpartition("::")[2])
        count = self.names[name] = self.names.get(name, 0) + 1
        while count > 1 and f"{name}_{count}" in self.names:
            count += 1
        unique = name if count == 1 else f"{name}_{count}"
        self.names.setdefault(unique, 1)
        draft = Draft(unique, operation, drafts, shape, source)
        self.drafts.append(draft)
        return draft

    def pointwise(self, kind: str, operation: Operation | None, value: Value) -> Value:
        """Each position of one tensor by itself, in whatever view."""
        shape = value.draft.shape
        draft = self.node(kind, operation, [value], shape, (same_positions(shape),))
        return Value(draft, value.layout)

    def opaque(
        self,
        kind: str,
        inputs: Sequence[Value],
        sizes: Sequence[int],
        reason: str,
        macs: int | None = 0,
        why: str = "",
        origin: tuple[str, str] = ("", ""),
        place: int | None = None,
    ) -> Value:
        """A node whose reads are unknown; ``place``: the tensor axis of the examples, if it is known."""
        shape, layout = self.guessed(sizes, self._placed(inputs, sizes) if place is None else place)
        reading = (reason,) * len(inputs)
        return Value(self.node(kind, None, inputs, shape, reading, macs=macs, why=why, origin=origin), layout)

    def _placed(self, inputs: Sequence[Value], sizes: Sequence[int]) -> int:
        """The tensor axis of an output that the examples stand along, as far as its inputs tell; -1 for none."""
        among = [k for k, n in enumerate(sizes) if n and n % self.batch == 0]
        exact = [k for k in among if sizes[k] == self.batch]
        alike = [value for value in inputs if len(value.layout) == len(sizes)]
        own = [k for value in alike for k, axis in enumerate(value.layout) if any(f.axis == BATCH for f in axis)]
        found = [k for k in own if k in among] or ([0] if 0 in among else exact or among)
        return found[0] if found else -1

    def guessed(self, sizes: Sequence[int], place: int) -> tuple[Shape, Layout]:
        """Shape of one example, and the layout, of a tensor whose size is known, and its axis of examples."""
        if place < 0:
            shape = tuple(sizes) or (1,)
            return shape, plain(shape, 1)[1 : len(sizes) + 1]
        rest, count = [*sizes[:place], *sizes[place + 1 :]], sizes[place] // self.batch
        if count > 1:
            rest.insert(place, count)
        shape = tuple(rest) or (1,)
        first, *axes = plain(shape, self.batch)
        if count > 1:
            axes[place] = merged((*first, *axes[place]))
        elif rest:
            axes.insert(place, first)
        else:
            axes = [first]
        return shape, tuple(axes)

    # ---------------------------------------------------------------------------------------------- feature maps again

    def standard(self, value: Value, spatial: int, droppable: Sequence[bool] = ()) -> tuple[Value, list[int | None]]:
        """The tensor ``(batch, C, *spatial)`` as a node's feature map, and which spatial axis each tensor axis is.

        Axes that stand with the batch, as frames of a film do, become spatial axes too. A tensor axis of one entry that
        is none of the feature map's is None.

        Raises:
            GeometryError: The batch is spread over the axes.
        """
        value = self._whole_batch(value, spatial + 2)
        groups: list[Axis] = [(factor,) for factor in value.layout[0] if factor.axis != BATCH]
        kept = len(groups)
        groups += list(value.layout[2:])
        places: list[int | None] = list(range(len(groups)))
        own = len(value.draft.shape) - 1
        extra = len(groups) - own if own else 0
        for k in range(spatial):
            if extra > 0 and not value.layout[2 + k] and k < len(droppable) and droppable[k]:
                places[kept + k] = None
                extra -= 1
        used = [groups[place] for place in places if place is not None]
        same = self._same(value, value.layout[1], used)
        if same is None:
            draft = self._rearranged(value, [value.layout[1], *used])
            same = list(range(len(used)))
        else:
            draft = value.draft
        order = iter(same)
        found = [None if place is None else next(order) for place in places]
        rest = [() if a is None else single(a + 1, draft.shape[a + 1]) for a in found]
        lead = (*(factor for axis in rest[:kept] for factor in axis),)
        examples = single(BATCH, self.batch)
        first = (*lead, *examples) if value.layout[0][-1:] == examples else (*examples, *lead)
        return Value(draft, (first, single(0, draft.shape[0]), *rest[kept:]), value.origin), found[kept:]

    def _whole_batch(self, value: Value, axes: int) -> Value:
        if len(value.layout) != axes:
            raise GeometryError(f"it has {len(value.layout)} axes where {axes} were expected")
        lead = value.layout[0]
        numbers = [factor.axis for factor in lead]
        if self.batch > 1 and (BATCH not in (numbers[:1] + numbers[-1:]) or numbers.count(BATCH) != 1):
            raise GeometryError("its first axis is not the batch")
        return value

    def _same(self, value: Value, channels: Axis, groups: Sequence[Axis]) -> list[int] | None:
        """Which spatial axes of the node the groups are, if they are just those, in any order."""
        shape = value.draft.shape
        if channels != single(0, shape[0]) or len(groups) > len(shape) - 1:
            return None
        free = [axis for axis in range(1, len(shape)) if shape[axis] == 1]
        found = []
        for group in groups:
            axis = group[0].axis if group else (free.pop(0) if free else 0)
            if axis < 1 or group != single(axis, shape[axis]):
                return None
            found.append(axis - 1)
        rest = set(range(len(shape) - 1)) - set(found)
        return found if all(shape[axis + 1] == 1 for axis in rest) and len(set(found)) == len(found) else None

    def flat(self, value: Value) -> Value:
        """The tensor as a node's feature map with as many axes as the tensor has, for joining it with others."""
        return self.standard(value, len(value.layout) - 2)[0]

    def _rearranged(self, value: Value, groups: Sequence[Axis]) -> Draft:
        key = (value.draft, tuple(groups))
        if key not in self.kept:
            axes = [[Slot.of(factor) for factor in group] for group in groups]
            shape, _ = settled(axes)
            reading = follow(axes, 0, value.layout, value.draft.shape)
            operation = named(value.draft.shape, groups, shape)
            kind = "rearrange" if operation is None else operation.word.lower()
            apart = any(factor.axis >= 1 for factor in groups[0])
            picks = any(factor.axis == 0 for group in groups[1:] for factor in group)
            self.kept[key] = self.node(
                kind, operation, [value], shape, (reading,), origin=value.origin, apart=apart, picks=picks
            )
        return self.kept[key]


def _gives(operation: Operation, inputs: Sequence[Draft], shape: Shape) -> bool:
    """Whether an operation on paper has the shape that was traced, and parameters, costs and reads that are known."""
    shapes = [draft.shape for draft in inputs]
    try:
        operation.parameters(*shapes), operation.multiply_adds(*shapes)
        if max(map(max, (*shapes, shape))) <= (LONGEST_PERIOD if isinstance(operation, UNEVEN) else LONGEST_AXIS):
            operation.reads(*shapes)
        return operation.output_shape(*shapes) == shape
    except (StriateError, ValueError):
        return False
