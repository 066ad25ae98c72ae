"""Rules about structure: what is lost, doubled, kept apart or missing between the layers of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import e, log, prod

from .architecture import Node
from .facts import LINEAR_LAYERS, Facts, names, reported
from .findings import Finding, percent
from .operations import (
    FC,
    Activation,
    Adaptive,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Channels,
    Concat,
    Crop,
    DepthwiseConv,
    Dropout,
    Flatten,
    GaussianPool,
    GlobalAvgPool,
    InstanceNorm,
    Interpolation,
    Operation,
    Pad,
    Pool,
    Product,
    Resize,
    Scale,
    Shape,
    Shuffle,
    Softmax,
    Sum,
    TransposedConv,
    Upsample,
)
from .support import union_of

# SqueezeNet's layers squeeze eightfold at most, the tightest of the published networks here that classify.
BOTTLENECK = 8
# Channels of which each is followed; a set of them is a number with a bit for each, so that 16,384 take 32 MB.
MOST_CHANNELS = 16_384
# "Most" is more than half.
MOST = 0.5
# In a network of few layers one of them always has most.
FEW_LAYERS = 4
# Below a million parameters or a billion multiply-adds nobody pays for them.
PARAMETERS_THAT_COUNT = 1_000_000
MACS_THAT_COUNT = 1_000_000_000

# What is linear in its input, besides the layers themselves; poolings that choose a maximum are not. Upsampling is
# left out: a layer in front of it and one behind it work at two resolutions, and are no doubled layer.
LINEAR = (
    *(BatchNorm, Dropout, Scale, Flatten, Pad, Crop, Shuffle, Channels),
    *(AvgPool, GaussianPool, GlobalAvgPool, AdaptiveAvgPool),
)
# What leaves every channel to itself.
CHANNELWISE = (BatchNorm, Scale, Dropout, Activation, Pool, Adaptive, InstanceNorm, Pad, Crop, Upsample, Resize)
# What only enlarges or rescales what is there: behind a layer of scores it claims to tell nothing new.
ENLARGING = (Interpolation, TransposedConv, Activation, Crop, Pad, Dropout, BatchNorm, Scale, Flatten)
# What may stand between a depthwise layer and its 1x1 projection: also the gates of MobileNetV3.
BEFORE_PROJECTION = (*LINEAR, Activation, Product)


# ------------------------------------------------------------------------------------ STR021, STR026: one too many


def bias_before_norm(facts: Facts) -> Iterator[Finding]:
    """STR021: a bias right in front of a normalisation that takes each channel's mean away."""
    for node in facts.linear_layers():
        readers = facts.readers[node.name]
        if not getattr(node.operation, "bias", False) or not readers or node.name in facts.results:
            continue
        if all(isinstance(reader.operation, BatchNorm | InstanceNorm) for reader in readers):
            window = node.operation.window(facts.given(node))
            if window is not None and prod(window.period) > 1:
                continue  # biases that differ from position to position are more than a channel's mean
            biases = facts.shapes[node.name][0]
            message = f"{node.name} has {biases:,} biases, and {names(readers)} takes the mean of every channel away."
            fix = (f"bias=no on {node.name}.", "bias=False")
            yield reported("STR021", node, message, {"biases": biases}, fix)


def softmax_before_loss(facts: Facts) -> Iterator[Finding]:
    """STR026: a softmax at the end; cross-entropy applies one itself."""
    for name in facts.results:
        node = facts.nodes[name]
        while isinstance(node.operation, Flatten | Dropout):
            node = facts.nodes[node.inputs[0]]
        classes = facts.shapes[node.name][0]
        if isinstance(node.operation, Softmax) and classes > 1:
            least = log(1 + (classes - 1) / e)
            message = (
                f"{node.name} gives probabilities of {classes:,} classes, and cross-entropy applies a softmax again: "
                f"the loss cannot fall below {least:.3f}."
            )
            fix = (
                f"leave {node.name} out: training and prediction of Striate take scores.",
                "leave it out: nn.CrossEntropyLoss takes scores.",
            )
            yield reported("STR026", node, message, {"classes": classes, "least_loss": least}, fix)


# ------------------------------------------------------------------------------------------- STR022: bottlenecks


def bottleneck(facts: Facts) -> Iterator[Finding]:
    """STR022: one layer that everything passes through, far narrower than what comes before and after.

    A continuous map of d numbers to fewer than d takes different ones to the same place; nothing behind it tells them
    apart again, however wide it is.
    """
    dimensions = _dimensions(facts)
    only = _only_ways(facts)
    behind = _wider_behind(facts, only)
    place = facts.support.order
    last = max(place[one.name] for one in facts.above(facts.results[0]) if not isinstance(one.operation, ENLARGING))
    for node in only:
        numbers = prod(facts.shapes[node.name])
        wider = behind[node.name]
        if not isinstance(node.operation, LINEAR_LAYERS) or wider is None or place[node.name] >= last:
            continue
        before = dimensions[node.inputs[0]]
        if before <= BOTTLENECK * numbers:
            continue
        after = prod(facts.shapes[wider.name])
        message = (
            f"everything passes through the {numbers:,} numbers of {node.name}: of up to {before:,} dimensions in "
            f"front of it, {before - numbers:,} are lost, and the {after:,} numbers of {wider.name} cannot bring them "
            "back."
        )
        evidence = {"numbers": numbers, "dimensions": before, "lost": before - numbers, "after": after}
        fix = (
            f"at least {_enough(facts, node, before)} {'features' if isinstance(node.operation, FC) else 'filters'} "
            f"for {node.name}, or a skip around it with SUM or CONCAT."
        )
        yield reported("STR022", node, message, evidence, fix)


def _wider_behind(facts: Facts, nodes: list[Node]) -> dict[str, Node | None]:
    """For each of some nodes in order, the next one with more numbers."""
    found: dict[str, Node | None] = {}
    wider: list[tuple[int, Node]] = []  # each has more numbers than the one behind it in this list
    for node in reversed(nodes):
        numbers = prod(facts.shapes[node.name])
        while wider and wider[-1][0] <= numbers:
            wider.pop()
        found[node.name] = wider[-1][1] if wider else None
        wider.append((numbers, node))
    return found


def _enough(facts: Facts, node: Node, dimensions: int) -> int:
    """Channels with which a layer is no bottleneck."""
    positions = prod(facts.shapes[node.name][1:])
    return -(-dimensions // (BOTTLENECK * positions))


def _dimensions(facts: Facts) -> dict[str, int]:
    """The most dimensions that each node's values can have, as the input varies."""
    found: dict[str, int] = {}
    for node in facts.architecture:
        numbers = prod(facts.shapes[node.name])
        found[node.name] = min(numbers, sum(found[name] for name in set(node.inputs))) if node.inputs else numbers
    return found


def _only_ways(facts: Facts) -> list[Node]:
    """Nodes that every way from the input to the main result passes, in order."""
    nodes = facts.above(facts.results[0])
    place = {node.name: number for number, node in enumerate(nodes)}
    changes = [0] * (len(nodes) + 1)
    for node in nodes:
        for name in node.inputs:  # a way from here to there goes around all that lies between
            changes[place[name] + 1] += 1
            changes[place[node.name]] -= 1
    return [node for node, around in zip(nodes, accumulate(changes), strict=False) if not around]


# ------------------------------------------------------------------------------------- STR023: one layer owns most


def owner(facts: Facts) -> Iterator[Finding]:
    """STR023: a layer with more than half of all parameters or multiply-adds."""
    layers = facts.linear_layers()
    if len(layers) < FEW_LAYERS:
        return
    for node in layers:
        row = facts.rows[node.name]
        total, macs = facts.totals.parameters, facts.totals.macs
        if total and total >= PARAMETERS_THAT_COUNT and (row.parameters or 0) > MOST * total:
            if not _only_scores(facts, node):
                yield _owns(facts, node, "parameters", row.parameters or 0, total)
        elif macs and macs >= MACS_THAT_COUNT and (row.macs or 0) > MOST * macs:
            yield _owns(facts, node, "multiply-adds", row.macs or 0, macs)


def _only_scores(facts: Facts, node: Node) -> bool:
    """Whether a layer makes the scores from one position: no smaller one would."""
    given = facts.given(node)
    flat = facts.nodes[node.inputs[0]].operation
    whole = len(given) == 1 and isinstance(flat, Flatten) and facts.is_dense(facts.nodes[node.inputs[0]].inputs[0])
    return isinstance(node.operation, FC) and prod(given[1:]) == 1 and not whole and not facts.readers[node.name]


def _owns(facts: Facts, node: Node, what: str, own: int, total: int) -> Finding:
    message = f"{node.name} has {own:,} of the {total:,} {what} ({percent(own / total)})."
    evidence = {what.replace("-", "_"): own, "total": total, "share": own / total}
    shape = facts.given(node)
    known = not hasattr(node.operation, "foreign_note")
    if isinstance(node.operation, FC) and prod(shape[1:]) > 1 and what == "parameters" and known:
        left = node.operation.parameters((shape[0],))
        evidence["after_pooling"] = left
        words = f"in front of {node.name} leaves {left:,} of its parameters."
        fix = (f"GLOBALAVGPOOL {words}", f"nn.AdaptiveAvgPool{len(shape) - 1}d(1) {words}")
        return reported("STR023", node, message, evidence, fix)
    if isinstance(node.operation, FC):
        return reported("STR023", node, message, evidence, "fewer features, in this layer or in front of it.")
    return reported("STR023", node, message, evidence, "a smaller kernel, fewer filters, groups, or a stride earlier.")


# --------------------------------------------------------------------------------------- STR024: groups that never mix


@dataclass(frozen=True, slots=True)
class Towers:
    """Which channels of its root each channel depends on.

    Args:
        root: Name of the last map in front of which everything was mixed.
        channels: Of the map.
        sees: For each channel, the channels of the root with one bit for each; None if each sees its own.
        grouped: Name of the last layer with several channels in a group on the way; empty if there is none.
    """

    root: str
    channels: int
    sees: tuple[int, ...] | None = None
    grouped: str = ""

    @property
    def masks(self) -> tuple[int, ...]:
        """For each channel, the channels of the root with one bit for each."""
        return tuple(1 << one for one in range(self.channels)) if self.sees is None else self.sees

    @property
    def count(self) -> int:
        """Sets of channels that share nothing with each other."""
        if self.sees is None:
            return self.channels
        distinct = set(self.sees)
        if sum(map(int.bit_count, distinct)) == union_of(list(distinct)).bit_count():
            return len(distinct)  # they share nothing at all
        towers: list[int] = []
        for mask in distinct:
            apart = [other for other in towers if not other & mask]
            towers = [*apart, union_of([mask, *(other for other in towers if other & mask)])]
        return len(towers)


def groups_never_mix(facts: Facts) -> Iterator[Finding]:
    """STR024: grouped layers in a row that keep the same channels apart, or channels that stay apart to the end."""
    found: dict[str, Towers] = {}
    for node in facts.architecture:
        towers = _towers(facts, node, found)
        if towers is not None and 1 < _groups(facts, node) < facts.given(node)[0]:
            before = found[node.inputs[0]]
            if before.grouped and 1 < before.count <= towers.count:
                yield _apart(facts, node, before.grouped, towers.count)
            towers = replace(towers, grouped=node.name)
        if towers is None or _is_mixed(facts, towers):
            towers = Towers(node.name, (*facts.shapes[node.name], 1)[0])
        found[node.name] = towers
    yield from _apart_at_the_end(facts, found)


def _groups(facts: Facts, node: Node) -> int:
    """Groups of a layer with a window and weights; 0 of any other node."""
    window = node.operation.window(facts.given(node)) if isinstance(node.operation, LINEAR_LAYERS) else None
    return window.groups if window else 0


def _towers(facts: Facts, node: Node, known: dict[str, Towers]) -> Towers | None:
    """The towers behind a node; None if it mixes, or may."""
    parts = [known[name] for name, _ in facts.readings(node)]
    if not parts or len({part.root for part in parts}) > 1:
        return None
    operation, channels, first = node.operation, (*facts.shapes[node.name], 1)[0], parts[0]
    if max(channels, first.channels) > MOST_CHANNELS:
        return None
    groups = _groups(facts, node)
    passes = isinstance(operation, CHANNELWISE) and not isinstance(operation, Softmax)
    if (passes or groups == first.channels) and channels == first.channels:
        return first
    grouped = next((part.grouped for part in parts if part.grouped), "")
    if groups > 1:
        return Towers(first.root, channels, _in_groups(first, groups, channels), grouped)
    sees = _carried(operation, channels, [part.masks for part in parts])
    return None if sees is None else Towers(first.root, channels, sees, grouped)


def _is_mixed(facts: Facts, towers: Towers) -> bool:
    """Whether every channel depends on all of the root."""
    everything = (1 << (*facts.shapes[towers.root], 1)[0]) - 1
    return towers.sees is not None and all(mask == everything for mask in towers.sees)


def _in_groups(towers: Towers, groups: int, channels: int) -> tuple[int, ...]:
    """What the channels behind a grouped layer depend on."""
    wide, many = towers.channels // groups, channels // groups
    if towers.sees is None:
        each = [((1 << wide) - 1) << group * wide for group in range(groups)]
    else:
        each = [union_of(towers.sees[group * wide : (group + 1) * wide]) for group in range(groups)]
    return tuple(mask for mask in each for _ in range(many))


def _carried(operation: Operation, channels: int, parts: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """What each output channel depends on where channels are only joined and moved; None elsewhere."""
    first = parts[0]
    if isinstance(operation, Concat):
        return tuple(mask for part in parts for mask in part)
    if isinstance(operation, Sum | Product) and len({len(part) for part in parts}) == 1:
        return tuple(union_of(masks) for masks in zip(*parts, strict=True))
    if isinstance(operation, Shuffle):
        width = channels // operation.groups
        return tuple(first[(one % operation.groups) * width + one // operation.groups] for one in range(channels))
    if isinstance(operation, Channels):
        return tuple(first[number] for number in operation.numbers(len(first)))
    return None


def _apart(facts: Facts, node: Node, before: str, count: int) -> Finding:
    message = f"{node.name} keeps apart the same {count} groups of channels as {before}: nothing in between mixes them."
    evidence = {"towers": count, "groups": _groups(facts, node)}
    fix = (
        f"SHUFFLE {count} or a CONV1 between {before} and {node.name}.",
        f"nn.ChannelShuffle({count}) or a 1x1 convolution between {before} and {node.name}.",
    )
    return reported("STR024", node, message, evidence, fix)


def _apart_at_the_end(facts: Facts, found: dict[str, Towers]) -> Iterator[Finding]:
    first = facts.architecture.nodes[0].name
    for name in facts.results:
        towers = found[name]
        layers = [node for node in facts.above(name) if _groups(facts, node)]
        if towers.root == first and towers.count > 1 and layers:
            channels = facts.shapes[name][0]
            message = (
                f"the {channels:,} channels of {name} come from {towers.count} parts of the input's channels that "
                "never meet."
            )
            fix = ("a CONV1 at the end.", "a 1x1 convolution at the end.")
            yield reported("STR024", layers[-1], message, {"towers": towers.count, "channels": channels}, fix)


# ------------------------------------------------------------------------------------ STR025: missing activations


def missing_activation(facts: Facts) -> Iterator[Finding]:
    """STR025: two layers with nothing but linear ones between: together they are one linear layer."""
    for node in facts.linear_layers():
        before = _linear_before(facts, node)
        if before is None or _is_factored(facts, before, node):
            continue
        message = f"{before.name} and {node.name} are one linear layer together: there is no activation between them."
        wide = [prod(facts.given(before)), prod(facts.shapes[before.name]), prod(facts.shapes[node.name])]
        evidence = {"numbers_in": wide[0], "numbers_between": wide[1], "numbers_out": wide[2]}
        fix = (f"RELU between {before.name} and {node.name}.", "nn.ReLU() between them")
        yield reported("STR025", node, message, evidence, fix)


def _linear_before(facts: Facts, node: Node) -> Node | None:
    """The layer in front of this one, if all between is linear and nobody else reads it."""
    while True:
        name = node.inputs[0]
        if len(facts.readers[name]) > 1 or name in facts.results:
            return None
        node = facts.nodes[name]
        if isinstance(node.operation, LINEAR_LAYERS):
            return node
        if not isinstance(node.operation, LINEAR) or len(node.inputs) != 1:
            return None


def _is_factored(facts: Facts, first: Node, second: Node) -> bool:
    """Whether two layers are meant as factors of one: MobileNet, Xception and ConvNeXt leave activations out there.

    Such are a depthwise or grouped layer, its 1x1 projection, an upsampling, a low rank, and 1xk with kx1. A 1x1
    convolution that keeps the width in front of one that widens is taken for such a projection too.
    """
    if any(isinstance(node.operation, DepthwiseConv) or _groups(facts, node) > 1 for node in (first, second)):
        return True
    if any(isinstance(node.operation, TransposedConv) for node in (first, second)):
        return True
    kernels = [_kernel(node.operation, facts.given(node)) for node in (first, second)]
    rank = _vector(facts, first, facts.shapes[first.name])
    widens = rank < _vector(facts, second, facts.shapes[second.name])
    most = _vector(facts, first, facts.given(first)) - isinstance(first.operation, FC)
    if widens and rank <= most and any(max(kernel, default=1) == 1 for kernel in kernels):
        return True
    if max(kernels[0], default=0) == 1 and _is_projection(facts, first):
        return True
    crossed = len(kernels[0]) == len(kernels[1]) and all(1 in pair for pair in zip(*kernels, strict=True))
    return crossed and all(max(kernel, default=1) > 1 for kernel in kernels)


def _is_projection(facts: Facts, node: Node) -> bool:
    """Whether a layer stands right behind a depthwise or grouped one, activations and gates aside."""
    pending, seen = list(node.inputs), set(node.inputs)
    while pending:
        before = facts.nodes[pending.pop()]
        if _groups(facts, before) > 1:
            return True
        if isinstance(before.operation, BEFORE_PROJECTION):
            pending += [name for name in before.inputs if name not in seen]
            seen.update(before.inputs)
    return False


def _kernel(operation: Operation, shape: Shape) -> tuple[int, ...]:
    """The extent of a window; of a fully connected layer nothing: it works on one vector."""
    window = operation.window(shape)
    return window.extent if window else ()


def _vector(facts: Facts, node: Node, shape: Shape) -> int:
    """Length of the vectors that a layer maps: of the whole map for a fully connected one, else of one position."""
    return prod(shape) if isinstance(node.operation, FC) else shape[0]


CHECKS = (bias_before_norm, bottleneck, owner, groups_never_mix, missing_activation, softmax_before_loss)
