"""What operators make of a traced model's tensors, as nodes: joins, parts, reductions, products. No tensors here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

from .drafting import Drafting
from .drafts import Value
from .errors import GeometryError
from .factors import BATCH, REPEAT, Axis, Factor, Layout, Slot, follow, merged, settled, single, size_of
from .rearranging import channels_of, cropped
from .relations import Relation
from .windows import Operation, Reading, Shape, all_positions, same_positions


class Sketch(Drafting):
    """The graph while it grows, with the ways in which operators put tensors together and take them apart."""

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
        rows = _rows(cut.factors, len(old))
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
        chosen = _chosen(value, axes)
        shape = value.draft.shape
        rows = _rows(value.factors, len(shape))
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
        chosen = _chosen(value, axes)
        old = value.draft.shape
        rows = _rows((f for f in value.factors if f not in chosen), len(old))
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
        apart = _follows(channels, positions=True)
        picks = any(_follows(row, positions=False) for row in spatial)
        draft = self.node(kind, None, values, shape, reading, macs=macs, apart=apart, picks=picks)
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
        _chosen(value, [axis])
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
        for number, row_of_map in enumerate(_rows(kept, len(shape))):
            slots = [kept[f] for f in row_of_map]
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


def _chosen(value: Value, axes: Iterable[int]) -> set[Factor]:
    """The factors of some tensor axes, none of which may be the batch."""
    chosen = {factor for axis in axes for factor in value.layout[axis]}
    if any(factor.axis == BATCH for factor in chosen):
        raise GeometryError("it mixes the examples of a batch")
    return chosen


def _rows(factors: Iterable[Factor], axes: int) -> list[list[Factor]]:
    """The factors of each axis of a feature map, the outermost first."""
    found = list(factors)
    return [sorted((f for f in found if f.axis == axis), key=lambda f: -f.stride) for axis in range(axes)]


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


def _follows(slots: Sequence[Slot], *, positions: bool) -> bool:
    """Whether slots of a product step through positions of an operand, or else through its channels."""
    sources = (f for slot in slots if slot.size > 1 for f in slot.sources if f is not None)
    return any(f.axis >= 1 if positions else f.axis == 0 for f in sources)


def _ranked(sources: Sequence[Factor | None], lead: int) -> list[tuple[int, Factor]]:
    """The factors that a slot follows, the leader's first."""
    found = [(k, factor) for k, factor in enumerate(sources) if factor is not None]
    return sorted(found, key=lambda entry: entry[0] != lead)
