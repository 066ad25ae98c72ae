"""Rules about receptive fields: what is left out inside them, where they end, and where they are centred."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm, prod
from typing import cast

from .architecture import Node
from .facts import Facts, names, reported
from .findings import Finding, percent
from .geometry import Axis
from .operations import FC, RBF, Concat, Flatten, Join, Reading, TransposedConv, Weighted, written
from .receptive_field import largest_gap
from .support import Field, area

# One dilated layer between dense ones leaves out what its neighbours read; only a stack can leave holes for good.
SMALLEST_STACK = 2
# Wang et al. 2018 choose rates for groups of three layers.
GROUP = 3
# Sentences list as many numbers; the evidence has all.
LONGEST_LIST = 12
# Rates for a wider kernel are searched as for this one, which it covers too.
WIDEST_KERNEL = 31
# Branches that join in more separate sets than this are followed no further.
MOST_SETS = 64
# A single unproductive layer, or less than this share of all, ends a network that just outgrew its image.
UNPRODUCTIVE = 0.1
# A shift of one whole position can be seen in an output map; less is the half pixel that every even kernel brings.
ONE_POSITION = 1
# Half a position is what every stride-2 window without a centre brings; less comes from rounding in upsampling.
LEAST_MISALIGNMENT = Fraction(1, 2)

# A set of positions relative to an output's own: per axis a first position, and bits counted from there.
Places = frozenset[tuple[tuple[int, int], ...]]

# ------------------------------------------------------------------------------------------------- STR011: gridding


@dataclass(frozen=True, slots=True)
class Stack:
    """Windows wider than one position, one on another; each points to the one before, so that none is copied.

    Args:
        last: Name of the last one.
        before: Those before it.
        length: How many there are.
        dilated: Name of the last dilated one; empty if there is none.
    """

    last: str
    before: Stack | None
    length: int
    dilated: str

    def names(self) -> list[str]:
        """All, the first one first."""
        found, here = [], cast("Stack | None", self)
        while here is not None:
            found.append(here.last)
            here = here.before
        return found[::-1]


@dataclass(frozen=True, slots=True)
class Reach:
    """What one interior position reads of a map of the same resolution, its root.

    Args:
        root: Name of that map.
        places: Which positions, relative to its own.
        stack: Windows on the way, the longest one where there are several.
    """

    root: str
    places: Places
    stack: Stack | None = None

    @property
    def is_dense(self) -> bool:
        """Whether nothing is left out."""
        read, span = self.coverage()
        return read == span

    def coverage(self) -> tuple[int, int]:
        """Positions read, and positions in their box."""
        axes = range(len(next(iter(self.places))))
        lows = [min(one[axis][0] for one in self.places) for axis in axes]
        masks = frozenset(
            tuple(mask << low - least for (low, mask), least in zip(one, lows, strict=True)) for one in self.places
        )
        return area(masks), prod(max(one[axis].bit_length() for one in masks) for axis in axes)


def gridding(facts: Facts) -> Iterator[Finding]:
    """STR011: stacked dilated windows that leave out positions inside what they span."""
    reaches = _reaches(facts)
    told: set[str] = set()
    for node in facts.architecture:
        reach = cast("Reach | None", reaches[node.name])
        stack = reaches[node.name].stack
        if reach is None or stack is None or stack.length < SMALLEST_STACK or stack.dilated in {"", *told}:
            continue
        outside = [reader for reader in facts.readers[node.name] if reaches[reader.name].root != reach.root]
        if len(outside) < len(facts.readers[node.name]):
            continue  # it goes on; it is judged where it ends
        reach = _with_siblings(facts, reach, outside, reaches)
        if reach is None:
            continue
        read, span = _healed(facts, node, reach, outside).coverage()
        if read < span:
            told.add(stack.dilated)
            yield _grid(facts, facts.nodes[stack.dilated], stack.names(), read, span)


def _with_siblings(facts: Facts, reach: Reach, outside: list[Node], known: dict[str, Reach]) -> Reach | None:
    """What a branch reads together with the other dilated ones that it is joined with; None if one of them is dense.

    A sibling that reads a whole axis, as the mean in the pyramids of DeepLab, is dense too.
    """
    if len(outside) != 1 or not isinstance(outside[0].operation, Join):
        return reach
    parts = [known[name] for name in dict.fromkeys(outside[0].inputs)]
    same = [part for part in parts if part.root == reach.root]
    if not _is_pyramid(same):
        return reach
    strangers = [name for name in outside[0].inputs if known[name].root != reach.root]
    if any(part.is_dense for part in same) or any(_reads_all(facts, name, reach.root) for name in strangers):
        return None
    return Reach(reach.root, _absorbed(frozenset().union(*(part.places for part in same))), reach.stack)


def _is_pyramid(parts: Sequence[Reach]) -> bool:
    """Whether several branches have dilated windows of their own."""
    return len({part.stack.dilated for part in parts if part.stack and part.stack.dilated}) > 1


def _reads_all(facts: Facts, name: str, root: str) -> bool:
    """Whether a branch takes a map together over a whole axis."""
    while name != root and facts.nodes[name].inputs:
        readings = [reading for _, reading in facts.readings(facts.nodes[name])]
        if any(not isinstance(reading, str) and any(one.taps is None for _, one in reading) for reading in readings):
            return True
        name = facts.nodes[name].inputs[0]
    return False


def _reaches(facts: Facts) -> dict[str, Reach]:
    found: dict[str, Reach] = {}
    for node in facts.architecture:
        found[node.name] = _reach(facts, node, found) or Reach(
            node.name, frozenset({((0, 1),) * (len(facts.shapes[node.name]) - 1)})
        )
    return found


def _reach(facts: Facts, node: Node, known: dict[str, Reach]) -> Reach | None:
    """What a node reads of its inputs' common root; None if it is the root of what follows."""
    parts = []
    for name, reading in facts.readings(node):
        if isinstance(reading, str) or not _keeps_resolution(reading):
            return None
        parts.append(_widened(known[name], reading))
    if not parts or len({part.root for part in parts}) > 1:
        return None
    if isinstance(node.operation, Join) and _is_pyramid(parts) and any(part.is_dense for part in parts):
        return max((part for part in parts if part.is_dense), key=lambda part: part.coverage())
    places = _absorbed(frozenset().union(*(part.places for part in parts)))
    if len(places) > MOST_SETS:
        return None
    return Reach(parts[0].root, places, _stacked_on(facts, node, [part.stack for part in parts]))


def _stacked_on(facts: Facts, node: Node, parts: list[Stack | None]) -> Stack | None:
    """The longest of the stacks in front of a node, and the node's own window if it is wide."""
    stack = max(parts, key=lambda one: one.length if one else 0)
    window = node.operation.window(facts.given(node))
    if window is None or max(window.extent) == 1:
        return stack
    is_dilated = any(axis.dilation > 1 for axis in window.axes if axis.kernel > 1)
    length, dilated = (stack.length, stack.dilated) if stack else (0, "")
    return Stack(node.name, stack, length + 1, node.name if is_dilated else dilated)


def _keeps_resolution(reading: Reading) -> bool:
    steps = [(axis == place, one) for place, (axis, one) in enumerate(reading)]
    return bool(steps) and all(same and one.shift == 1 and len(one.taps or ()) == 1 for same, one in steps)


def _widened(reach: Reach, reading: Reading) -> Reach:
    if all(one.is_identity for _, one in reading):
        return reach
    taps = [one.taps[0] if one.taps else () for _, one in reading]
    if not all(taps):
        return reach
    places = frozenset(
        tuple((low + tap[0], _spread(mask, tap)) for (low, mask), tap in zip(one, taps, strict=True))
        for one in reach.places
    )
    return Reach(reach.root, places, reach.stack)


def _spread(mask: int, taps: Sequence[int]) -> int:
    """The union of a set moved to every tap; runs of evenly spaced taps are doubled, not walked."""
    if len(taps) > 2 and list(taps) == list(range(taps[0], taps[-1] + 1, taps[1] - taps[0])):
        return _repeated(mask, len(taps), taps[1] - taps[0])
    found = 0
    for tap in taps:
        found |= mask << (tap - taps[0])
    return found


def _repeated(mask: int, times: int, step: int) -> int:
    if times == 1:
        return mask
    half = _repeated(mask, times // 2, step)
    found = half | half << times // 2 * step
    return found if times % 2 == 0 else found | mask << (times - 1) * step


def _absorbed(places: Places) -> Places:
    """The same positions without sets that lie inside another one."""
    if len(places) < 2:
        return places
    largest = sorted(places, key=lambda one: -prod(mask.bit_count() for _, mask in one))
    kept: list[tuple[tuple[int, int], ...]] = []
    for one in largest:
        if not any(all(map(_lies_in, one, other)) for other in kept):
            kept.append(one)
    return frozenset(kept)


def _lies_in(one: tuple[int, int], other: tuple[int, int]) -> bool:
    shift = one[0] - other[0]
    return shift >= 0 and one[1] << shift | other[1] == other[1]


def _healed(facts: Facts, node: Node, reach: Reach, outside: list[Node]) -> Reach:
    """What is read after the next windows, if only windows come next: a strided one may read what is left out."""
    found = []
    for reader in outside:
        readings = [reading for _, reading in facts.readings(reader)]
        if reader.operation.window(facts.given(reader)) is None or len(readings) != 1 or isinstance(readings[0], str):
            return reach
        if any(len(one.taps or ()) != 1 for _, one in readings[0]) or node.name in facts.results:
            return reach
        found.append(_widened(reach, readings[0]))
    return min(found, key=lambda one: Fraction(*one.coverage()), default=reach)


def _grid(facts: Facts, node: Node, stack: list[str], read: int, span: int) -> Finding:
    windows = [facts.nodes[name].operation.window(facts.given(facts.nodes[name])) for name in stack]
    axes = list(zip(*(window.axes for window in windows if window), strict=True))
    worst = min(axes, key=lambda one: Fraction(*_stacked(tuple((a.kernel, a.dilation) for a in one))))
    wide = [axis for axis in worst if axis.kernel > 1]
    rates, kernel = tuple(axis.dilation for axis in wide), min(axis.kernel for axis in wide)
    better = nearest_rates(rates, kernel)
    message = (
        f"{names([facts.nodes[name] for name in stack])} with dilations {_listed(rates)} read {read:,} of the {span:,} "
        f"positions that they span ({percent(read / span)})."
    )
    evidence = {"rates": rates, "kernel": kernel, "read": read, "span": span, "coverage": read / span, "better": better}
    width = 1 + (kernel - 1) * sum(better)
    fix = f"dilations {_listed(better)}: they read all {width} positions that they span on an axis."
    return reported("STR011", node, message, evidence, fix)


def _listed(numbers: Sequence[int]) -> str:
    """Numbers in a sentence; of very many, the first."""
    return ", ".join(map(str, numbers[:LONGEST_LIST])) + (" and so on" if len(numbers) > LONGEST_LIST else "")


def _stacked(windows: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    mask = 1
    for kernel, rate in windows:
        mask = _repeated(mask, kernel, rate)
    return mask.bit_count(), mask.bit_length()


def nearest_rates(rates: Sequence[int], kernel: int = 3) -> tuple[int, ...]:
    """Rates without holes that span as much as these, or as nearly as can be, and differ least from them.

    Every group of three reads all it spans, and its largest gap at the second layer is no more than the kernel
    (P. Wang et al., "Understanding Convolution for Semantic Segmentation", 2018, section 3.2).

    >>> nearest_rates((2, 2, 2)), nearest_rates((1, 2, 9)), nearest_rates((4, 4))
    ((1, 2, 3), (1, 3, 8), (1, 3))
    """
    groups = [tuple(rates[first : first + GROUP]) for first in range(0, len(rates), GROUP)]
    return tuple(rate for group in groups for rate in _nearest_group(group, kernel))


def _nearest_group(rates: tuple[int, ...], kernel: int) -> tuple[int, ...]:
    wanted = sorted(rates)
    return min(
        _valid_groups(len(rates), min(kernel, WIDEST_KERNEL)),
        key=lambda one: (abs(sum(one) - sum(rates)), sum(abs(a - b) for a, b in zip(one, wanted, strict=True)), one),
    )


@lru_cache(maxsize=64)
def _valid_groups(length: int, kernel: int) -> tuple[tuple[int, ...], ...]:
    """Ascending rates without holes: each is no more than what the ones before it span, and the first is 1."""
    groups: list[tuple[int, ...]] = [(1,)]
    for _ in range(length - 1):
        spans = [1 + (kernel - 1) * sum(one) for one in groups]
        groups = [
            (*one, rate)
            for one, span in zip(groups, spans, strict=True)
            for rate in range(one[-1], min(span, kernel + 2 * one[-1]) + 1)  # more would be too large a gap
        ]
    return tuple(one for one in groups if largest_gap(one) <= kernel)


# --------------------------------------------------------------------------------------------- STR012: checkerboard


def checkerboard(facts: Facts) -> Iterator[Finding]:
    """STR012: a transposed convolution that writes to some positions more often than to their neighbours."""
    for node in facts.architecture:
        if not isinstance(node.operation, TransposedConv):
            continue
        window = node.operation.window(facts.given(node))
        profiles = [_overlaps(node, place, facts) for place in range(len(window.axes))]
        uneven = [place for place, profile in enumerate(profiles) if len(set(profile)) > 1]
        if not uneven:
            continue
        place = uneven[0]
        axis, profile = window.axes[place], profiles[place]
        shown = "-".join(map(str, profile * (2 if len(profile) < 4 else 1)))
        message = (
            f"{node.name} sums {shown} inputs at neighbouring outputs: its kernel {axis.kernel} overlaps unevenly at "
            f"stride {axis.stride}."
        )
        evidence = {"profile": profile, "kernel": axis.kernel, "stride": axis.stride, "dilation": axis.dilation}
        kernel = -(-axis.kernel // axis.stride) * axis.stride
        fix = (
            f"kernel={kernel} with stride={axis.stride} and dilation=1, or UPSAMPLE {axis.stride} -> CONV3.",
            f"kernel_size={kernel}, dilation=1, or nn.Upsample(scale_factor={axis.stride}) and a Conv with stride 1.",
        )
        yield reported("STR012", node, message, evidence, fix)


def _overlaps(node: Node, place: int, facts: Facts) -> tuple[int, ...]:
    """How many inputs each phase of the output sums over, away from the borders."""
    for _, reading in facts.readings(node):
        if not isinstance(reading, str):
            return tuple(map(len, reading[place][1].taps or ()))
    return ()


# ------------------------------------------------------------------------- STR013, STR014: fields and what they show


def unproductive(facts: Facts) -> Iterator[Finding]:
    """STR013: convolutions whose input already sees more than the image, even on the shortest way."""
    fields = _least_fields(facts)
    wide, behind = [], []
    for node in facts.architecture:
        if isinstance(node.operation, Weighted) and not isinstance(node.operation, TransposedConv):
            window = node.operation.window(facts.given(node))
            if max(window.extent) > 1:
                wide.append(node)
                seen = fields[node.inputs[0]]
                if seen and all(one.size > n or n == 1 for one, n in zip(seen, facts.size, strict=True)):
                    behind.append(node)
    if behind and max(facts.size) > 1:
        yield _behind(facts, behind, wide, tuple(one.size for one in fields[behind[0].inputs[0]] or ()))


def _least_fields(facts: Facts) -> dict[str, tuple[Field, ...] | None]:
    """What each position sees on the way that sees least; None if that is unknown or the whole input."""
    found: dict[str, tuple[Field, ...] | None] = {facts.architecture.nodes[0].name: (Field(),) * len(facts.size)}
    for node in facts.architecture.nodes[1:]:
        ways = []
        for name, reading in facts.readings(node):
            seen = found[name]
            if seen is None or isinstance(reading, str) or len(reading) != len(seen):
                continue
            through = [
                one.through(relation) if axis == place else None
                for place, (one, (axis, relation)) in enumerate(zip(seen, reading, strict=True))
            ]
            if None not in through:
                ways.append(tuple(one for one in through if one is not None))
        found[node.name] = min(ways, key=lambda way: [one.size for one in way], default=None)
    return found


def _behind(facts: Facts, behind: list[Node], wide: list[Node], sizes: tuple[int, ...]) -> Finding:
    first = behind[0]
    parameters = sum(facts.rows[node.name].parameters or 0 for node in behind)
    total = facts.totals.parameters
    message = (
        f"the input of {first.name} already sees {written(sizes)}, the image has {written(facts.size)}: "
        f"{len(behind)} of {len(wide)} convolutions wider than 1 stand behind that, with {parameters:,} parameters."
    )
    evidence = {
        "field": sizes, "image": facts.size, "layers": len(behind), "all_layers": len(wide), "parameters": parameters,
    }  # fmt: skip
    if total:
        evidence["parameter_share"] = parameters / total
    fix = f"leave out {names(behind)}, use fewer strides in front of them, or larger images."
    few = len(behind) == 1 or len(behind) < UNPRODUCTIVE * len(wide)
    return reported("STR013", first, message, evidence, fix, "info" if few else "")


def object_size(facts: Facts) -> Iterator[Finding]:
    """STR014: outputs that see less than the objects that they are to recognise."""
    if facts.object_size is None:
        return
    for name in facts.results:
        last = _last_map(facts, facts.nodes[name])
        seen = facts.rows[last.name].endless if last else None
        if last and seen and any(a < b for a, b in zip(seen, facts.object_size, strict=True)):
            message = (
                f"{last.name} sees {written(seen)} input positions, the objects have {written(facts.object_size)}."
            )
            evidence = {"field": seen, "object": facts.object_size}
            fix = "more layers, larger or dilated kernels, or a POOL early on."
            yield reported("STR014", last, message, evidence, (fix, fix.replace("POOL", "pooling")))


def _last_map(facts: Facts, node: Node) -> Node | None:
    """The last map of positions before a result; None if a layer between weighs the positions by place."""
    while facts.rows[node.name].endless is None:
        weighs = isinstance(node.operation, FC | RBF | Flatten)
        if len(node.inputs) != 1 or (weighs and facts.is_dense(node.inputs[0])):
            return None
        node = facts.nodes[node.inputs[0]]
    return node


# ----------------------------------------------------------------------------------- STR015, STR016: where they look


@dataclass(frozen=True, slots=True)
class Drift:
    """How far even kernels have moved a map.

    Args:
        by: In input positions, per axis.
        layers: How many.
        first: Name of the first.
        last: Name of the last.
    """

    by: tuple[Fraction, ...]
    layers: int = 0
    first: str = ""
    last: str = ""

    @property
    def largest(self) -> Fraction:
        """The most on any axis."""
        return max(map(abs, self.by), default=Fraction(0))


def half_pixels(facts: Facts) -> Iterator[Finding]:
    """STR015: the shift that windows of even extent add up to when they keep the size."""
    drifts: dict[str, Drift] = {}
    for node in facts.architecture:
        ways = [drifts[name] for name in node.inputs]
        drift = max(ways, key=lambda one: one.largest, default=Drift((Fraction(0),) * len(facts.size)))
        drifts[node.name] = _drifted(facts, node, drift)
    for name in facts.results:
        drift = drifts[name]
        if drift.largest:
            yield _shifted(facts, name, drift)


def _drifted(facts: Facts, node: Node, drift: Drift) -> Drift:
    window = node.operation.window(facts.given(node)) if node.inputs else None
    jump = facts.rows[node.name].jump
    if window is None or window.transposed or jump is None or len(jump) != len(window.axes):
        return drift
    # Padding on one side alone is causal, and that shift is wanted, unless it is the odd row of an even kernel.
    lower = getattr(node.operation, "padding", None) == "same_lower"
    more = [
        (Fraction(axis.extent - 1, 2) - axis.before) * step
        if axis.stride == 1 and axis.extent % 2 == 0 and _keeps_size(axis) and (lower or axis.before < axis.extent - 1)
        else Fraction(0)
        for axis, step in zip(window.axes, jump, strict=True)
    ]
    if not any(more) or len(more) != len(drift.by):
        return drift
    return Drift(
        tuple(a + b for a, b in zip(drift.by, more, strict=True)), drift.layers + 1, drift.first or node.name, node.name
    )


def _keeps_size(axis: Axis) -> bool:
    return axis.before + axis.after == axis.extent - 1


def _shifted(facts: Facts, result: str, drift: Drift) -> Finding:
    jump = max(facts.rows[drift.last].jump or (1,))
    positions = drift.largest / jump
    which = (
        f"{drift.first} has" if drift.layers == 1 else f"{drift.layers} layers from {drift.first} to {drift.last} have"
    )
    message = (
        f"{which} an even extent and same padding: the map moves by {_positions(drift.largest)} "
        f"({_decimal(positions)} of its own)."
    )
    evidence = {"layers": drift.layers, "shift": float(drift.largest), "positions": float(positions)}
    fix = (
        "odd kernels, or padding=same and padding=same_lower in turn.",
        "odd kernels, or the odd row of padding before and after in turn (functional.pad).",
    )
    severe = facts.is_dense(result) and positions >= ONE_POSITION
    return reported("STR015", facts.nodes[drift.first], message, evidence, fix, "" if severe else "info")


def _decimal(number: Fraction) -> str:
    return f"{float(number):g}"


def _positions(number: Fraction) -> str:
    return f"{_decimal(number)} input position" + ("s" if number != 1 else "")


def misaligned(facts: Facts) -> Iterator[Finding]:
    """STR016: branches that join although they are centred at different places of the input."""
    steps = _half_steps(facts)
    for node in facts.architecture:
        if not isinstance(node.operation, Join):
            continue
        distance, jump, excused = _misalignment(facts, node, steps)
        if distance < LEAST_MISALIGNMENT * jump:
            continue
        verb = "stacks" if isinstance(node.operation, Concat) else "joins"
        message = (
            f"{node.name} {verb} {' and '.join(dict.fromkeys(node.inputs))}, whose centres are "
            f"{_positions(distance)} apart ({_decimal(distance / jump)} of its own)."
        )
        evidence = {"distance": float(distance), "positions": float(distance / jump), "jump": float(jump)}
        fix = (
            "the same rows of padding in all branches, or CROP with other numbers.",
            "the same padding in all branches, or another crop.",
        )
        if excused:
            fix = (
                "a kernel as even or odd as its stride, as CONV4 stride=2 padding=1: upsampling meets its centres.",
                "a kernel_size as even or odd as its stride, as 4 for 2 (padding=1): upsampling meets its centres.",
            )
        severe = distance - excused >= ONE_POSITION * jump
        yield reported("STR016", node, message, evidence, fix, "" if severe else "info")


def _half_steps(facts: Facts) -> dict[str, tuple[Fraction, ...]]:
    """What strided windows that cannot be centred on their blocks shift a map by at least, in input positions per axis.

    A 3x3 window with stride 2 is centred on one of two positions, and upsampling comes back between them.
    """
    found: dict[str, tuple[Fraction, ...]] = {}
    nothing = (Fraction(0),) * len(facts.size)
    for node in facts.architecture:
        ways = [found[name] for name in node.inputs]
        by = tuple(map(max, *ways)) if len(ways) > 1 else ways[0] if ways else nothing
        window = node.operation.window(facts.given(node)) if node.inputs else None
        jump = facts.rows[node.name].jump
        if window is not None and not window.transposed and jump is not None and len(jump) == len(window.axes):
            halves = [
                Fraction(step) / axis.stride / 2 if (axis.extent - axis.stride) % 2 and axis.stride > 1 else Fraction(0)
                for axis, step in zip(window.axes, jump, strict=True)
            ]
            by = tuple(a + b for a, b in zip(by, halves, strict=True)) if len(by) == len(halves) else by
        found[node.name] = by
    return found


def _misalignment(
    facts: Facts, node: Node, steps: dict[str, tuple[Fraction, ...]]
) -> tuple[Fraction, Fraction, Fraction]:
    """The largest distance between the centres of two branches on any axis, the map's own step, what is unavoidable."""
    found = (Fraction(0), Fraction(1), Fraction(0))
    for axis in range(len(facts.size)):
        fields = []
        for name in dict.fromkeys(node.inputs):
            seen = facts.support.sights[name]
            if not isinstance(seen, str) and seen[axis].field is not None:
                fields.append(seen[axis].field)
        if len(fields) < 2 or len({one.jump for one in fields if one}) > 1:
            continue
        period = lcm(*(len(one.spans) for one in fields if one))
        spans = [_spans(one, period) for one in fields if one]
        centres = [_centre(one) for one in spans]
        known = [centre for centre in centres if centre is not None]
        if len(known) < len(spans) or _is_causal(spans):
            continue
        jump = next(one.jump for one in fields if one)
        halves = [steps[name][axis] for name in node.inputs]
        distance = max(known) - min(known)
        excused = min(distance, max(halves) - min(halves))
        found = max(found, (distance, jump, excused), key=lambda one: ((one[0] - one[2]) / one[1], one[0] / one[1]))
    return found


def _spans(seen: Field, period: int) -> list[tuple[int, int] | None]:
    """What the positions of several periods see."""
    return [seen.span(place) for place in range(period)]


def _centre(spans: list[tuple[int, int] | None]) -> Fraction | None:
    """The mean place that positions look at: upsampling moves them to either side of it."""
    middles = [Fraction(first + last, 2) for first, last in filter(None, spans)]
    return sum(middles, Fraction(0)) / len(middles) if len(middles) == len(spans) else None


def _is_causal(branches: list[list[tuple[int, int] | None]]) -> bool:
    """Whether all branches see up to the same place: what comes before is the past, and that is wanted."""
    return len({tuple(span[1] if span else None for span in spans) for spans in branches}) == 1


CHECKS = (gridding, checkerboard, unproductive, object_size, half_pixels, misaligned)
