"""Support: which input positions the nodes of a network read, through any graph of relations.

Forward, one axis at a time, go the hulls: the first and last input position that each position can see, borders
included, and the same on an endless input, where positions repeat with a period. Backward, on demand, go whole sets: a
union of products of sets per axis is exact for any graph whose operations treat the axes apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import product
from math import gcd, lcm, prod

from .architecture import Architecture, Node
from .kinship import ALIKE, Labels, labels
from .operations import NO_VALUES, Reading, Shape
from .relations import Relation, Taps, within

LONGEST_AXIS = 2**20
MOST_PHASES = 4096
MOST_PRODUCTS = 256
NOTHING = "no output reads any input position"
MOST_POSITIONS = 4096
LONG = 2**14  # positions from which arrays pay
MOST_PLACES = 3 * 2**23  # of all feature maps, times the digits of the taps of their windows
MOST_WORK = 2_000_000  # steps of some microseconds, for all that is asked of one network
LONGEST_CHAIN_AXIS = 4096  # beyond this, the sets of all positions of a chain would fill the memory

# A set of positions: the union of products of sets per axis, each an integer with one bit for each position.
Region = frozenset[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Field:
    """What positions see on one axis of an endless input: one ``(first, last)`` for each phase, None if nothing.

    Position ``q * period + phase`` sees the inputs ``q * shift + first`` up to ``q * shift + last``.
    """

    spans: tuple[tuple[int, int] | None, ...] = ((0, 0),)
    shift: int = 1

    @property
    def size(self) -> int:
        """Input positions from the first to the last: the largest over the phases."""
        return max((last - first + 1 for first, last in filter(None, self.spans)), default=0)

    @property
    def jump(self) -> Fraction:
        """Input positions between neighbouring positions."""
        return Fraction(self.shift, len(self.spans))

    @property
    def offset(self) -> int | None:
        """First input position that position 0 sees; None if it sees none."""
        return None if self.spans[0] is None else self.spans[0][0]

    def through(self, relation: Relation) -> Field | None:
        """What is seen after one more operation; None if positions would repeat too late to be written down.

        >>> from striate.geometry import Axis
        >>> Field().through(Relation.window(Axis(2, stride=2), 8)).spans
        ((0, 1),)
        """
        if relation.taps is None or not relation.shift:
            return None
        period, taps = len(self.spans), relation.taps
        rounds = period // gcd(period, relation.shift)
        if rounds * len(taps) > MOST_PHASES:
            return None
        spans = []
        for turn in range(rounds):
            for reads in taps:
                # Of evenly spaced taps, as many as there are phases meet all that there is to meet.
                ends = reads if isinstance(reads, tuple) else (*reads[:period], *reads[-period:])
                spans.append(_hull(self.span(turn * relation.shift + tap) for tap in ends))
        return Field(tuple(spans), self.shift * (rounds * relation.shift // period))

    def union(self, other: Field) -> Field | None:
        """What two branches see together; None if they advance differently."""
        if self.jump != other.jump:
            return None
        period = lcm(len(self.spans), len(other.spans))
        if period > MOST_PHASES:
            return None
        spans = (_hull((self.span(place), other.span(place))) for place in range(period))
        return Field(tuple(spans), self.shift * (period // len(self.spans)))

    def span(self, place: int) -> tuple[int, int] | None:
        """The first and last input position that a position sees; None if it sees none."""
        rounds, phase = divmod(place, len(self.spans))
        span = self.spans[phase]
        return None if span is None else (span[0] + rounds * self.shift, span[1] + rounds * self.shift)


def _hull(spans: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    real = [span for span in spans if span is not None]
    return (min(first for first, _ in real), max(last for _, last in real)) if real else None


@dataclass(frozen=True, slots=True)
class Sight:
    """What a node's positions see on one axis of the input.

    Args:
        axis: The node's axis that it depends on; None if all positions see the same.
        first: First input position seen, for each position of that axis; beyond ``last`` if none is.
        last: Last input position seen.
        field: The same on an endless input, if there positions repeat.
    """

    axis: int | None
    first: tuple[int, ...]
    last: tuple[int, ...]
    field: Field | None

    @property
    def size(self) -> int:
        """The most input positions from the first to the last that any position sees."""
        return max(0, max(b - a for a, b in zip(self.first, self.last, strict=True)) + 1)

    def through(self, axis: int | None, relation: Relation, blind: int) -> Sight:
        """What is seen after one more operation along this axis."""
        if relation.is_identity and axis is not None:
            return self if axis == self.axis else Sight(axis, self.first, self.last, self.field)
        if axis is None:  # the same for all outputs: they read everything
            return Sight(None, (min(self.first),), (max(self.last),), None)
        first, last = [blind] * relation.outputs, [-1] * relation.outputs
        taps = relation.taps or ()
        for phase, reads in enumerate(taps):
            first[phase :: len(taps)] = _over_windows(self.first, relation, reads, phase, min, blind)
            last[phase :: len(taps)] = _over_windows(self.last, relation, reads, phase, max, -1)
        return Sight(axis, tuple(first), tuple(last), None if self.field is None else self.field.through(relation))

    def union(self, other: Sight) -> Sight:
        """What two branches see together; they follow the same axis, or one of them none."""
        if self == other:
            return self
        if self.axis is None and other.axis is not None:
            return other.union(self)
        if other.axis is None:
            first, last = min(other.first), max(other.last)
            firsts, lasts = (min(a, first) for a in self.first), (max(b, last) for b in self.last)
            return Sight(self.axis, tuple(firsts), tuple(lasts), None)
        field = None if self.field is None or other.field is None else self.field.union(other.field)
        return Sight(self.axis, tuple(map(min, self.first, other.first)), tuple(map(max, self.last, other.last)), field)


def _over_windows(
    values: tuple[int, ...], relation: Relation, taps: Taps, phase: int, pick: Callable[[int, int], int], empty: int
) -> list[int]:
    """The least (or largest) value under every window of a phase; ``empty`` under one that reads nothing.

    What another border than zeros adds is left out: it is no interior position's. Windows of 1, 2, 4, ... taps are
    built from each other, so the work grows with the logarithm of the kernel.
    """
    count = len(range(phase, relation.outputs, len(relation.taps or (0,))))
    reach = max(0, count - 1) * relation.shift
    real = within(taps, -reach, relation.inputs)
    if not real or not count:
        return [empty] * count
    if not isinstance(real, range):  # few, and not evenly spaced
        parts = [_over_windows(values, relation, range(tap, tap + 1), phase, pick, empty) for tap in real]
        return [reduce(pick, some) for some in zip(*parts, strict=True)]
    low, high = real[0], reach + real[-1] + 1
    around = [empty] * max(0, -low), [empty] * max(0, high - relation.inputs)
    block = [*around[0], *values[max(0, low) : high], *around[1]]
    found = (_merged_long if len(block) > LONG else _merged)(block, real, pick)
    return found[: reach + 1 : relation.shift] if relation.shift else found[:1] * count


def _merged(block: list[int], taps: range, pick: Callable[[int, int], int]) -> list[int]:
    """For each place the least (or largest) value at as many evenly spaced places from it on as there are taps."""
    merged: list[int] = []
    width, done, left = 1, 0, len(taps)
    while left:
        if left & 1:
            shifted = block[done * taps.step :]
            merged = list(map(pick, merged, shifted)) if done else shifted
            done += width
        left >>= 1
        if left:
            block = list(map(pick, block, block[width * taps.step :]))
            width *= 2
    return merged


def _merged_long(block: list[int], taps: range, pick: Callable[[int, int], int]) -> list[int]:
    """The same for long axes; arrays are faster there, and slower to load than all of a small network takes."""
    import numpy as np

    choose = np.minimum if pick is min else np.maximum
    values = merged = np.array(block)
    width, done, left = 1, 0, len(taps)
    while left:
        if left & 1:
            shifted = values[done * taps.step :]
            merged = choose(merged[: len(shifted)], shifted) if done else shifted
            done += width
        left >>= 1
        if left:
            values = choose(values[: -width * taps.step], values[width * taps.step :])
            width *= 2
    return list(merged.tolist())


class Support:
    """What every node of a network reads of the input.

    Args:
        architecture: Every number known.
        shapes: Of every node's output.

    >>> from striate.notation import parse
    >>> network = parse("INPUT 1x32x32 -> [CONV3-1 dilation=2]*3")
    >>> support = Support(network, network.shapes())
    >>> [sight.size for sight in support.sights["conv3"]], support.coverage("conv3"), support.unread("conv3")
    ([13, 13], (49, 169), 0)
    """

    def __init__(self, architecture: Architecture, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self.size = shapes[architecture.nodes[0].name][1:]
        self.nodes = {node.name: node for node in architecture}
        self.readings: dict[str, tuple[Reading | str, ...]] = {}
        self.order = {node.name: number for number, node in enumerate(architecture)}
        # For each node what it sees on each axis of the input, or why that is unknown.
        self.sights: dict[str, tuple[Sight, ...] | str] = {}
        self._ever: dict[str, Region] = {}
        self._chain: dict[str, tuple[tuple[int, ...], ...] | None] = {}
        self._labels: dict[str, Labels] = {}
        self._left = MOST_WORK
        self._places = MOST_PLACES
        self._coverage: dict[str, tuple[int, int] | str] = {}
        self._blind = max(self.size, default=0) + 1
        for node in architecture:
            self.sights[node.name] = self._seen(node)

    # ------------------------------------------------------------------------------------------------- forward

    def _seen(self, node: Node) -> tuple[Sight, ...] | str:
        if max(self.shapes[node.name][1:], default=0) > LONGEST_AXIS:
            return f"not derived for axes longer than {LONGEST_AXIS:,}"
        if not node.inputs:
            if node.name != next(iter(self.nodes)):
                return f"{node.name} does not come from the input"
            if not self.size:
                return "the input has no positions"
            self._labels[node.name] = ALIKE
            places = [tuple(range(n)) for n in self.size]
            return tuple(Sight(axis, p, p, Field()) for axis, p in enumerate(places))
        if broken := next((seen for name in node.inputs if isinstance(seen := self.sights[name], str)), None):
            return broken
        readings = node.operation.reads(*(self.shapes[name] for name in node.inputs))
        self.readings[node.name] = readings
        sources = zip(node.inputs, readings, strict=True)
        parts = [self._through(node, name, reading) for name, reading in sources]
        kin = labels(node.operation, [self._labels[n] for n in node.inputs], [self.shapes[n] for n in node.inputs],
                     self.shapes[node.name])  # fmt: skip
        if isinstance(kin, str):
            return f"in {node.name} {kin}"
        self._labels[node.name] = kin
        known: list[tuple[Sight, ...]] = []
        for part in parts:
            if isinstance(part, str):
                return part
            if part:
                known.append(part)
        if not known:
            return f"{node.name} reads nothing of the input"
        joined = known[0]
        for other in known[1:]:
            if any(a.axis != b.axis and None not in (a.axis, b.axis) for a, b in zip(joined, other, strict=True)):
                return f"{node.name} joins maps whose axes are exchanged"
            joined = tuple(a.union(b) for a, b in zip(joined, other, strict=True))
        return joined

    def _through(self, node: Node, name: str, reading: Reading | str) -> tuple[Sight, ...] | str:
        """What a node sees through one of its inputs; an empty tuple if that carries no values."""
        seen = self.sights[name]
        if isinstance(seen, str):
            return seen
        if isinstance(reading, str):
            return () if reading == NO_VALUES else f"after {node.name}: {reading}"
        for axis, relation in reading:
            widest = max(map(len, relation.taps or ()), default=0)
            self._places -= relation.outputs * min(widest, relation.inputs).bit_length() if axis is not None else 0
        if self._places < 0:
            return f"after {node.name}: its feature maps and windows together are too long to follow"
        return tuple(
            self._anywhere(sight, reading) if sight.axis is None else sight.through(*reading[sight.axis], self._blind)
            for sight in seen
        )

    def _anywhere(self, sight: Sight, reading: Reading) -> Sight:
        """What all positions see alike is seen after one more operation, but where that reads nothing."""
        for place, relation in reading:
            if place is None or relation.is_identity:
                continue
            same = Sight(place, sight.first * relation.inputs, sight.last * relation.inputs, None)
            found = same.through(place, relation, self._blind)
            if -1 in found.last:
                return found if max(found.last) >= 0 else Sight(None, found.first[:1], found.last[:1], None)
        return sight

    # ------------------------------------------------------------------------------------------------ backward

    def unread(self, name: str) -> int | str:
        """Real input positions that no position of a node reads, or why that is unknown."""
        if isinstance(seen := self.sights[name], str):
            return seen
        try:
            return prod(self.size) - area(self.ever(name))
        except _TooManyError as error:
            return str(error)

    def ever(self, name: str) -> Region:
        """The input positions that any position of a node reads."""
        pending = []
        node = self.nodes[name]
        while name not in self._ever and len(node.inputs) == 1 and self._copies(node):
            pending.append(name)  # what reads every position reads what its input reads
            name = node.inputs[0]
            node = self.nodes[name]
        if name not in self._ever:
            self._ever[name] = self._back(name, _everything(self.shapes[name]))[0]
        for other in pending:
            self._ever[other] = self._ever[name]
        return self._ever[name]

    def _copies(self, node: Node) -> bool:
        reading = self.readings[node.name][0]
        if isinstance(reading, str):
            return False
        whole = _everything(self.shapes[node.name])
        self._spend(_effort(reading))
        return not _is_merged(reading) and _read(whole, reading) == _everything(self.shapes[node.inputs[0]])

    def _back(self, name: str, region: Region) -> tuple[Region, bool]:
        """The input positions that some positions of a node read, and whether a window on the way met a border."""
        regions: dict[str, set[tuple[int, ...]]] = {name: set(region)}
        found: set[tuple[int, ...]] = set()
        clipped = False
        start = next(iter(self.nodes))
        while regions:
            last = max(regions, key=self.order.__getitem__)
            here = self._absorbed(regions.pop(last))
            if last == start:
                found |= here
                continue
            if last in self._ever and here == _everything(self.shapes[last]):
                found |= self._ever[last]
                continue
            node = self.nodes[last]
            for source, reading in zip(node.inputs, self.readings[last], strict=True):
                if isinstance(reading, str):
                    continue
                self._spend(len(here) * _effort(reading))
                if _is_merged(reading):
                    raise _TooManyError(f"in {last} two axes have become one, and sets are known for each axis alone")
                clipped = clipped or _meets_border(here, reading)
                regions.setdefault(source, set()).update(_read(here, reading))
        return self._absorbed(found), clipped

    def _absorbed(self, region: set[tuple[int, ...]] | Region) -> Region:
        """The same set without products that lie inside another one."""
        self._spend(4 + len(region) ** 2 // 2)
        if len(region) == 1:
            return frozenset(region)
        if len(region) > MOST_PRODUCTS:
            raise _TooManyError(f"what it reads has more than {MOST_PRODUCTS} separate parts")
        kept: list[tuple[int, ...]] = []
        for masks in sorted(region, key=lambda masks: -prod(mask.bit_count() for mask in masks)):
            if not any(all(mask | other == other for mask, other in zip(masks, one, strict=True)) for one in kept):
                kept.append(masks)
        return frozenset(kept)

    def _spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise _TooManyError("deriving it for all layers of this network takes too long; a fresh table gives some")

    def coverage(self, name: str) -> tuple[int, int] | str:
        """Input positions that are read, and positions in their box, for the position of a node that reads most.

        A sentence if that is unknown.
        """
        if isinstance(seen := self.sights[name], str):
            return seen
        pending = []
        while name not in self._coverage and self._is_pointwise(name):
            pending.append(name)  # it covers what its input covers
            name = self.nodes[name].inputs[0]
        if name not in self._coverage:
            seen = self.sights[name]
            try:
                self._coverage[name] = seen if isinstance(seen, str) else self._most(name, seen)
            except _TooManyError as error:
                self._coverage[name] = str(error)
        for other in pending:
            self._coverage[other] = self._coverage[name]
        return self._coverage[name]

    def _is_pointwise(self, name: str) -> bool:
        readings = self.readings.get(name, ())
        if len(readings) != 1 or isinstance(readings[0], str):
            return False
        own = len(self.shapes[name]) == len(self.shapes[self.nodes[name].inputs[0]])
        return own and all(axis == place and one.is_identity for place, (axis, one) in enumerate(readings[0]))

    def _most(self, name: str, seen: Sequence[Sight]) -> tuple[int, int] | str:
        if any(sight.size == 0 for sight in seen):
            return NOTHING
        if (sets := self._sets(name)) is not None:
            most = [max(masks, key=lambda mask: (mask.bit_count(), -_width(mask))) for masks in sets]
            span = prod(map(_width, most))
            return (prod(mask.bit_count() for mask in most), span) if span else NOTHING
        box = prod(sight.size for sight in seen)
        # Where positions repeat, one that meets no border on the way back stands for all of its phase.
        best, all_inside = (0, 1), all(sight.field is not None for sight in seen)
        for position in self._candidates(name, seen):
            read, clipped = self._back(name, frozenset({position}))
            best = max(best, (area(read), _box(read)), key=_fullest)
            if best == (box, box):
                return best
            all_inside = all_inside and not clipped
        if all_inside:
            return best
        sizes = self.shapes[name][1:]
        if prod(sizes) > MOST_POSITIONS:
            return f"every position meets a border, and there are more than {MOST_POSITIONS:,}"
        for position in product(*([1 << o for o in range(n)] for n in sizes)):
            read, _ = self._back(name, frozenset({position}))
            best = max(best, (area(read), _box(read)), key=_fullest)
            if best == (box, box):
                break
        return best

    def _sets(self, name: str) -> tuple[tuple[int, ...], ...] | None:
        """What every position of a chain reads, one axis at a time; None if it is no chain, or too long an axis."""
        pending = []
        while name not in self._chain:
            pending.append(name)
            inputs = self.nodes[name].inputs
            if len(inputs) != 1:
                break
            name = inputs[0]
        for other in reversed(pending):
            self._chain[other] = self._next_sets(other)
        return self._chain[pending[0] if pending else name]

    def _next_sets(self, name: str) -> tuple[tuple[int, ...], ...] | None:
        node, sizes = self.nodes[name], self.shapes[name][1:]
        if max(sizes, default=0) > LONGEST_CHAIN_AXIS or len(node.inputs) > 1:
            return None
        if not node.inputs:
            return tuple(tuple(1 << o for o in range(n)) for n in sizes)
        before, reading = self._chain[node.inputs[0]], self.readings[name][0]
        if before is not None and not reading:  # a row of features is one position
            return before
        if before is None or isinstance(reading, str) or len(reading) != len(before):
            return None
        found: list[tuple[int, ...]] = []
        for place, (masks, (axis, relation)) in enumerate(zip(before, reading, strict=True)):
            if axis is None:
                found.append((union_of(masks),) * (sizes[place] if len(sizes) == len(before) else 1))
            elif axis != place or len(sizes) != len(before):
                return None
            elif relation.is_identity:
                found.append(masks)
            else:
                widest = max(map(len, relation.taps or ()), default=0)
                self._spend(relation.outputs * min(widest, relation.inputs) * (1 + relation.inputs // 4096) // 8)
                reads = [relation.reads(o) for o in range(relation.outputs)]
                found.append(tuple(union_of(masks[i] for i in some) for some in reads))
        return tuple(found)

    def _candidates(self, name: str, seen: Sequence[Sight]) -> Iterator[tuple[int, ...]]:
        """One position in the middle for each phase: on an endless input there are no others."""
        sizes = self.shapes[name][1:]
        periods = [1] * len(sizes)
        for sight in seen:
            if sight.axis is not None and sight.field is not None:
                periods[sight.axis] = lcm(periods[sight.axis], len(sight.field.spans))
        if prod(min(p, n) for p, n in zip(periods, sizes, strict=True)) > MOST_POSITIONS:
            raise _TooManyError(f"positions differ in more than {MOST_POSITIONS:,} ways")
        choices = []
        for n, period in zip(sizes, periods, strict=True):
            first = max(0, (n - period) // 2)
            choices.append([1 << o for o in range(first, min(n, first + period))])
        yield from product(*choices)


class _TooManyError(Exception):
    """A set of positions has too many parts to be written down."""


def _everything(shape: Shape) -> Region:
    return frozenset({tuple((1 << n) - 1 for n in shape[1:])})


def _read(region: Region, reading: Reading) -> Region:
    """The positions of an input that positions of the output read."""
    found = set()
    for masks in region:
        read = tuple(
            (1 << relation.inputs) - 1 if axis is None else relation.back(masks[axis]) for axis, relation in reading
        )
        if all(read):
            found.add(read)
    return frozenset(found)


def _effort(reading: Reading) -> int:
    """Steps that it takes to follow sets back through an operation, in proportion to their length."""
    steps = 1
    for axis, relation in reading:
        widest = max(map(len, relation.taps or ()), default=0)
        if axis is not None and not relation.is_identity:
            steps += (relation.inputs + relation.outputs) * min(widest, relation.inputs).bit_length() // 4096
        if axis is not None and relation.border in ("circular", "reflect"):
            steps += relation.outputs * min(widest, 2 * relation.inputs) // 64
    return steps


def _is_merged(reading: Reading) -> bool:
    """Whether two axes of the input follow one axis of the output, as in tokens made of rows and columns."""
    followed = [axis for axis, _ in reading if axis is not None]
    return len(set(followed)) < len(followed)


def _meets_border(region: Region, reading: Reading) -> bool:
    return any(axis is None or relation.leaves(masks[axis]) for masks in region for axis, relation in reading)


def _fullest(read: tuple[int, int]) -> tuple[int, int]:
    """The order of ``(positions, box)``: more positions, and of as many those that stand closer together."""
    return read[0], -read[1]


def union_of(masks: Iterable[int]) -> int:
    """The positions that are in any of some sets, each a number with a bit for each position.

    >>> bin(union_of([0b001, 0b100]))
    '0b101'
    """
    union = 0
    for mask in masks:
        union |= mask
    return union


def _width(mask: int) -> int:
    """Positions from the first to the last of a set."""
    return mask.bit_length() - (mask & -mask).bit_length() + 1 if mask else 0


def area(region: Region) -> int:
    """Positions in a union of products.

    >>> area(frozenset({(0b111, 0b010), (0b010, 0b111)}))
    5
    """
    if len(region) <= 1:
        return sum(prod(mask.bit_count() for mask in masks) for masks in region)
    # The first axis in classes of positions that lie in the same products; each class counts its products' rest.
    classes: dict[int, set[tuple[int, ...]]] = {}
    for first, *rest in region:
        split: dict[int, set[tuple[int, ...]]] = {}
        for mask, members in classes.items():
            if inside := mask & first:
                split[inside] = members | {tuple(rest)}
            if outside := mask & ~first:
                split[outside] = members
        if fresh := first & ~union_of(classes):
            split[fresh] = {tuple(rest)}
        classes = split
    return sum(mask.bit_count() * area(frozenset(members)) for mask, members in classes.items())


def _box(region: Region) -> int:
    """Positions in the smallest box around a set."""
    return prod(_width(union_of(masks)) for masks in zip(*region, strict=True)) if region else 0
