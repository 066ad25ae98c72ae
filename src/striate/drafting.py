"""The growing graph of a traced model: drafts of nodes, and tensors as views of them. No tensors here.

Views make no nodes. Where an operation needs a feature map as it is, a view that is none becomes a node: a shuffle, a
flattening, or a rearrangement without a name, whose reads are known all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from functools import lru_cache
from math import prod
from typing import Any, ClassVar

from .errors import GeometryError, StriateError
from .factors import BATCH, REPEAT, Axis, Factor, Layout, Slot, follow, merged, plain, settled, single, size_of
from .operations import (
    FC,
    Foreign,
    ReLU,
    Resize,
    Shuffle,
)
from .rearranging import channels_of, cropped, named
from .relations import Relation
from .support import LONGEST_AXIS
from .windows import (
    AdaptiveAvgPool,
    AdaptivePool,
    Conv,
    Operation,
    Reading,
    Shape,
    TransposedConv,
    all_positions,
    same_positions,
)

Found = tuple[Reading | str, ...]
LONGEST_PERIOD = 2**16  # positions after which reads repeat, up to which they are written down
UNEVEN = (Resize, AdaptivePool, AdaptiveAvgPool, TransposedConv)  # their reads may repeat late
MINGLED = Factor(0, 0, 0)  # in ``Draft.folded``: some of the channels, nobody knows which
FOLDED = "positions that a product of two computed maps made channels are positions again"


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
        folded: Channels that are positions of what it was computed from, of which each reads only some; see MINGLED.
    """

    name: str
    operation: Operation
    inputs: tuple[Draft, ...]
    shape: Shape
    source: str = ""
    learned: frozenset[int] = frozenset()
    folded: frozenset[Factor] = frozenset()


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


class Sketch:
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
    ) -> Draft:
        """A new node: the operation if it gives what was traced, else a foreign one with these reads and costs."""
        drafts = tuple(value.draft for value in inputs)
        if operation is None or not _gives(operation, drafts, shape):
            operation = Foreign(kind, shape, 0, macs, reading, why)
        name, source = origin if origin[0] else self.placed(kind)
        count = self.names[name] = self.names.get(name, 0) + 1
        while count > 1 and f"{name}_{count}" in self.names:
            count += 1
        unique = name if count == 1 else f"{name}_{count}"
        self.names.setdefault(unique, 1)
        draft = Draft(unique, operation, drafts, shape, source)
        if not isinstance(operation, FC) and not (isinstance(operation, Conv) and operation.groups == 1):
            for given in drafts:
                alike = given.shape == shape and not isinstance(operation, Shuffle)
                draft.folded |= given.folded if alike else frozenset([MINGLED] if given.folded else [])
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
            if value.draft.folded and any(factor.axis == 0 for group in groups[1:] for factor in group):
                reading, operation = FOLDED, None
            kind = "rearrange" if operation is None else operation.word.lower()
            origin = value.origin
            draft = self.kept[key] = self.node(kind, operation, [value], shape, (reading,), origin=origin)
            draft.folded = frozenset([MINGLED] if value.draft.folded else [])
        return self.kept[key]

    # ----------------------------------------------------------------------------------------------------------- joins

    def joined(self, kind: str, make: Callable[[], Operation | None], values: Sequence[Value]) -> Value:
        """Tensors of one size, or that are repeated to it, position by position.

        Raises:
            GeometryError: The axes of one tensor are no axes of the other.
        """
        axes = max(len(value.layout) for value in values)
        padded = [v.relaid(((),) * (axes - len(v.layout)) + tuple(map(_bare, v.layout))) for v in values]
        layout = _common(padded)
        if layout is None:
            padded = [self.flat(v) if any(v.layout[1:]) else v for v in padded]
            layout = _common(padded)
        if layout is None:
            raise GeometryError("the axes of its inputs do not correspond to each other")
        shape = _shape(layout, max(len(value.draft.shape) for value in padded))
        reading = tuple(_broadcast(value.draft.shape, shape) for value in padded)
        draft = self.node(kind, make(), padded, shape, reading)
        return Value(draft, layout)

    def concatenated(
        self, kind: str, make: Callable[[], Operation | None], values: Sequence[Value], axis: int
    ) -> Value:
        """Tensors one after the other along an axis: channels, positions, or an axis of one entry each.

        Raises:
            GeometryError: Along the batch, or the axes do not correspond to each other.
        """
        if any(factor.axis == BATCH for value in values for factor in value.layout[axis]):
            raise GeometryError("examples are put together")
        if not _alike(values, axis):
            values = [self.flat(value) for value in values]
        if not _alike(values, axis):
            raise GeometryError("the axes of its inputs do not correspond to each other")
        first = values[0]
        parts, total = [value.sizes[axis] for value in values], sum(value.sizes[axis] for value in values)
        along = {factor.axis for value in values for factor in value.layout[axis]}
        if (
            not along
            and axis > 1
            and len(first.draft.shape) == len(first.layout) - 1
            and first.draft.shape[axis - 1] == 1
        ):
            along = {axis - 1}
        if along <= {0}:
            return self._stacked(kind, make, values, axis)
        (number,) = along
        shape = _replaced(first.draft.shape, number, total)
        starts = [sum(parts[:k]) for k in range(len(parts))]
        reading = tuple(
            tuple(
                (a - 1, Relation(n, total, ((-start,),), 1) if a == number else Relation.identity(n))
                for a, n in enumerate(value.draft.shape)
                if a
            )
            for value, start in zip(values, starts, strict=True)
        )
        layout = tuple(single(number, total) if k == axis else row for k, row in enumerate(first.layout))
        return Value(self.node(kind, None, values, shape, reading), layout)

    def _stacked(self, kind: str, make: Callable[[], Operation | None], values: Sequence[Value], axis: int) -> Value:
        """Channels one after the other; or each tensor's value beside the others', as further channels."""
        first, channels = values[0], sum(value.draft.shape[0] for value in values)
        shape = _replaced(first.draft.shape, 0, channels)
        layout = list(first.layout)
        whole = all(value.sizes[axis] == value.draft.shape[0] for value in values)
        layout[axis] = single(0, channels) if whole else single(0, len(values), first.draft.shape[0])
        reading = tuple(same_positions(value.draft.shape) for value in values)
        return Value(self.node(kind, make(), values, shape, reading), tuple(layout))

    # ----------------------------------------------------------------------------------------------------------- parts

    def sliced(self, kind: str, value: Value, axis: int, start: int, count: int, step: int = 1) -> Value:
        """Every ``step``-th entry of a tensor axis from ``start`` on, ``count`` of them.

        Raises:
            GeometryError: It takes examples apart, or a part that is no run of positions.
        """
        if (start, count) == (0, value.sizes[axis]):
            return value
        row = value.layout[axis]
        if row[0].axis == BATCH and axis == 0:
            raise GeometryError("it takes examples apart")
        if row[0].axis == REPEAT and len(row) == 1:
            return value.relaid(_replaced(value.layout, axis, single(REPEAT, count)))
        inner = size_of(row[1:])
        if len(row) > 1 and (start % inner or count % inner or step > 1):
            value = self.flat(value)
            row, inner = value.layout[axis], 1
        head, start, count = row[0], start // inner, count // inner
        part = Factor(head.axis, count, head.stride * step)
        layout = _replaced(value.layout, axis, (*((part,) if count > 1 else ()), *row[1:]))
        return self._part(kind, value, layout, start * head.stride, head.axis)

    def _part(self, kind: str, value: Value, layout: Layout, start: int, number: int) -> Value:
        """The positions or channels that a layout covers, from ``start`` on, as a node."""
        old = value.draft.shape
        cut = value.relaid(layout)
        rows = [sorted((f for f in cut.factors if f.axis == a), key=lambda f: -f.stride) for a in range(len(old))]
        slots = [[Slot.of(factor) for factor in row] for row in rows]
        shape, factors = settled(slots)
        renamed = {slot.sources[0]: factor for slot, factor in factors.items()}
        reading = follow(slots, 0, layout, old, start) if number else same_positions(old)
        operation = channels_of(rows[0], old[0], start) if number == 0 else None
        if isinstance(reading, str):
            raise GeometryError(reading)
        if number:  # other axes begin at their own first position
            plainly = same_positions(old)
            reading = tuple(r if k == number - 1 else plainly[k] for k, r in enumerate(reading))
        draft = self.node(kind, operation or cropped(reading, old, shape), [value], shape, (reading,))
        return Value(draft, tuple(merged(renamed.get(f, f) for f in row) for row in layout), value.origin)

    # ------------------------------------------------------------------------------------------------ mixing positions

    def mixed(self, kind: str, make: Callable[[], Operation | None], value: Value, axes: Iterable[int]) -> Value:
        """The same shape, where each output reads all along some tensor axes: softmax, normalisation.

        Raises:
            GeometryError: It mixes examples.
        """
        chosen = {factor for axis in axes for factor in value.layout[axis]}
        if any(factor.axis == BATCH for factor in chosen):
            raise GeometryError("it mixes the examples of a batch")
        shape = value.draft.shape
        rows = [sorted((f for f in value.factors if f.axis == a), key=lambda f: -f.stride) for a in range(len(shape))]
        slots = [[Slot(f.size, (None if f in chosen else f,)) for f in row] for row in rows]
        reading = follow(slots, 0, value.layout, shape)
        return Value(self.node(kind, make(), [value], shape, (reading,)), value.layout)

    def reduced(
        self, kind: str, make: Callable[[], Operation | None], value: Value, axes: Sequence[int], keep: bool
    ) -> Value:
        """One number for all along some tensor axes: means, sums, maxima.

        Raises:
            GeometryError: It mixes examples.
        """
        chosen = {factor for axis in axes for factor in value.layout[axis]}
        if any(factor.axis == BATCH for factor in chosen):
            raise GeometryError("it mixes the examples of a batch")
        old = value.draft.shape
        rows = [
            sorted((f for f in value.factors if f.axis == a and f not in chosen), key=lambda f: -f.stride)
            for a in range(len(old))
        ]
        slots = [[Slot.of(factor) for factor in row] for row in rows]
        shape, factors = settled(slots)
        renamed = {slot.sources[0]: factor for slot, factor in factors.items()}
        reading = follow(slots, 0, value.layout, old)
        draft = self.node(kind, make(), [value], shape, (reading,))
        layout = [
            () if k in axes else merged(renamed.get(f, f) for f in row)
            for k, row in enumerate(value.layout)
            if keep or k not in axes
        ]
        return Value(draft, tuple(layout))

    def product(
        self,
        kind: str,
        operands: Sequence[tuple[Value, Sequence[int]]],
        output: Sequence[tuple[tuple[int, int], ...] | int],
        macs: int | None,
    ) -> Value:
        """Sums of products, as of matrices: each output axis follows axes of the operands, the others are summed over.

        Args:
            kind: Of operation.
            operands: The tensors, and which of their axes are summed over.
            output: For each tensor axis, the ``(operand, axis)`` that it follows, or how many features it has.
            macs: Multiply-adds.

        Raises:
            GeometryError: Axes that should be the same are not.
        """
        rows = [self._row(operands, axis) for axis in output]
        lead = _leader([value for value, _ in operands], rows)
        chosen: dict[tuple[int, int], list[Slot]] = {}
        channels: list[Slot] = []
        for slot in (slot for row in rows for slot in row):
            followed = next(((k, f) for k, f in _ranked(slot.sources, lead) if f.axis >= 1), None)
            if followed is not None and (followed[0] == lead or slot.sources[lead] is not None):
                chosen.setdefault((followed[0], followed[1].axis), []).append(slot)
            elif not any(f is not None and f.axis == BATCH for f in slot.sources):
                channels.append(slot)
        spatial = [sorted(chosen[key], key=lambda s, k=key[0]: -s.sources[k].stride) for key in sorted(chosen)]  # type: ignore[misc]
        shape, factors = settled([channels, *spatial])
        values = [value for value, _ in operands]
        reading = tuple(follow([channels, *spatial], k, v.layout, v.draft.shape) for k, v in enumerate(values))
        draft = self.node(kind, None, values, shape, reading, macs=macs)
        draft.folded = _folded(values, channels, factors)
        layout = tuple(merged(factors.get(s) or Factor(BATCH, s.size) for s in row) for row in rows)
        return Value(draft, layout)

    def _row(self, operands: Sequence[tuple[Value, Any]], axis: tuple[tuple[int, int], ...] | int) -> list[Slot]:
        """The slots of one output axis."""
        count = len(operands)
        if isinstance(axis, int):
            return [Slot(axis, (None,) * count)] if axis > 1 else []
        rows = {k: operands[k][0].layout[number] for k, number in axis}
        longest = max(rows.values(), key=len)
        slots = []
        for position, factor in enumerate(longest):
            sources: list[Factor | None] = [None] * count
            for k, row in rows.items():
                if row and (len(row) <= position or row[position].size != factor.size):
                    raise GeometryError("the axes of its inputs do not correspond to each other")
                found = row[position] if row else None
                sources[k] = None if found is None or found.axis == REPEAT else found
            if len({source.axis == BATCH for source in sources if source}) > 1:
                raise GeometryError("it mixes the examples of a batch")
            slots.append(Slot(factor.size, tuple(sources)))
        return slots

    def connected(self, kind: str, value: Value, axis: int, features: int, whole: Operation, each: Operation) -> Value:
        """Learned weights along a tensor axis: fully connected, or the same at each position.

        Args:
            kind: Of operation.
            value: The tensor.
            axis: That is summed over.
            features: Of the output.
            whole: The operation where it sums over everything.
            each: The operation where it sums over the channels of each position.

        Raises:
            GeometryError: It mixes examples.
        """
        if any(factor.axis == REPEAT for factor in value.layout[axis]):
            value = self.flat(value)
        row, shape = value.layout[axis], value.draft.shape
        if any(factor.axis == BATCH for factor in row):
            raise GeometryError("it mixes the examples of a batch")
        layout = list(value.layout)
        if size_of(row) == prod(shape):
            draft = self.node(kind, whole, [value], (features,), (all_positions(shape),))
            layout[axis] = single(0, features)
            return Value(draft, tuple(layout))
        others = [f for k, r in enumerate(layout) for f in r if k != axis and f.axis != BATCH]
        if size_of(row) == shape[0] and all(factor.axis == 0 for factor in row) and _all_spatial(others):
            draft = self.node(kind, each, [value], (features, *shape[1:]), (same_positions(shape),))
            layout[axis] = single(0, features)
            return Value(draft, tuple(layout))
        return self._mixing(kind, value, axis, features)

    def _mixing(self, kind: str, value: Value, axis: int, features: int) -> Value:
        """Learned weights along positions, or along a part of the channels."""
        shape, row = value.draft.shape, value.layout[axis]
        among = {factor.axis for factor in row}
        if not among and 1 <= axis - 1 < len(shape) and shape[axis - 1] == 1:
            among = {axis - 1}  # a spatial axis of one position
        new = Slot(features, (None,))
        kept = {f: Slot.of(f) for k, r in enumerate(value.layout) for f in r if k != axis and f.axis != BATCH}
        axes: list[list[Slot]] = []
        for number in range(len(shape)):
            slots = [kept[f] for f in sorted((f for f in kept if f.axis == number), key=lambda f: -f.stride)]
            here = number == (0 if not among or 0 in among else min(among))
            if slots or here or number == 0 or number not in among:
                axes.append([*slots, new] if here and features > 1 else slots)
        axes += [[slot] for factor, slot in kept.items() if factor.axis == REPEAT]
        found, factors = settled(axes)
        macs = prod(found) * size_of(row)
        draft = self.node(kind, None, [value], found, (follow(axes, 0, value.layout, shape),), macs=macs)
        layout = [merged(factors[kept[f]] if f in kept else f for f in r) for r in value.layout]
        layout[axis] = (factors[new],) if new in factors else ()
        return Value(draft, tuple(layout))


# ------------------------------------------------------------------------------------------------------------- layouts


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


def _replaced(values: Sequence[Any], place: int, value: Any) -> Any:
    return tuple(value if k == place else old for k, old in enumerate(values))


def _bare(axis: Axis) -> Axis:
    """Without what is only repeated."""
    return () if axis and all(factor.axis == REPEAT for factor in axis) else axis


def _all_spatial(factors: Iterable[Factor]) -> bool:
    return all(factor.axis >= 1 for factor in factors)


def _common(values: Sequence[Value]) -> Layout | None:
    """The layout that all of them have where they are not repeated."""
    layout = []
    for axes in zip(*(value.layout for value in values), strict=True):
        found = set(filter(None, axes))
        if len(found) > 1:
            return None
        layout.append(found.pop() if found else ())
    factors = [factor for axis in layout for factor in axis]
    if any(factor.axis == REPEAT for factor in factors):
        return None
    for number in {factor.axis for factor in factors}:
        here = {factor for factor in factors if factor.axis == number}
        if len(here) != len([f for f in factors if f.axis == number]):
            return None
        for value in values:
            own = {factor for factor in value.factors if factor.axis == number}
            if own and own != here:
                return None
    return tuple(layout)


def _shape(layout: Layout, axes: int) -> Shape:
    """Of the feature map that a layout covers."""
    factors = [factor for axis in layout for factor in axis]
    return tuple(size_of(factor for factor in factors if factor.axis == number) for number in range(axes))


def _broadcast(shape: Shape, whole: Shape) -> Reading:
    return tuple(
        (axis, Relation.identity(n)) if n == whole[axis + 1] else (None, Relation.everything(n))
        for axis, n in enumerate(shape[1:])
    )


def _alike(values: Sequence[Value], axis: int) -> bool:
    """Whether tensors differ along one axis only, and that is one whole axis of their feature maps."""
    first = values[0]
    for value in values:
        rows = list(zip(value.layout, first.layout, strict=True))
        if any(one != other for k, (one, other) in enumerate(rows) if k != axis):
            return False
        numbers = {factor.axis for v in values for factor in v.layout[axis]}
        beside = not numbers
        if len(numbers) > 1 or numbers & {BATCH, REPEAT} or len(value.draft.shape) != len(first.draft.shape):
            return False
        number = numbers.pop() if numbers else 0
        if value.layout[axis] != single(number, value.draft.shape[number]) and value.layout[axis]:
            return False
        if beside and value.draft.shape != first.draft.shape:
            return False
        if any(
            n != m for k, (n, m) in enumerate(zip(value.draft.shape, first.draft.shape, strict=True)) if k != number
        ):
            return False
    return True


def _leader(values: Sequence[Value], rows: Sequence[Sequence[Slot]]) -> int:
    """Whose positions the output has: the first operand that has positions along an axis of its own."""
    own = [
        {k for slot in row for k, f in enumerate(slot.sources) if f is not None and f.axis >= 1}
        for row in rows
        if len({k for slot in row for k, f in enumerate(slot.sources) if f is not None}) == 1
    ]
    return min((k for found in own for k in found), default=0)


def _folded(values: Sequence[Value], channels: Sequence[Slot], factors: dict[Slot, Factor]) -> frozenset[Factor]:
    """Which channels of a product follow positions of an operand, of which it reads all only over all channels."""
    found = set()
    for slot in (slot for slot in channels if slot in factors):
        for value, source in zip(values, slot.sources, strict=True):
            if source is None or slot.size == 1:
                continue
            if source.axis >= 1 or any(_overlap(source, part) for part in value.draft.folded):
                found.add(factors[slot])
    return frozenset(found)


def _overlap(one: Factor, other: Factor) -> bool:
    """Whether two runs of channels may step through the same part of an axis."""
    if other == MINGLED:
        return True
    return one.stride < other.size * other.stride and other.stride < one.size * one.stride


def _ranked(sources: Sequence[Factor | None], lead: int) -> list[tuple[int, Factor]]:
    """The factors that a slot follows, the leader's first."""
    found = [(k, factor) for k, factor in enumerate(sources) if factor is not None]
    return sorted(found, key=lambda entry: entry[0] != lead)


# --------------------------------------------------------------------------------------------------------- costs of it


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
