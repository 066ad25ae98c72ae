"""Kinship of channels: which channels of a feature map read the same input positions.

What a map reads is known as a whole, for all of its channels together. After a concatenation channels differ, and an
operation that selects some of them reads less than the whole map does. Labels tell when a selection still meets every
kind of channel, so that nothing is claimed that is not so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .operations import (
    FC,
    RBF,
    Activation,
    Adaptive,
    BatchNorm,
    Channels,
    Concat,
    Conv,
    DepthwiseConv,
    Dropout,
    Flatten,
    Foreign,
    GroupNorm,
    InstanceNorm,
    Interpolation,
    LayerNorm,
    LocalConv,
    LocalResponseNorm,
    Maxout,
    Operation,
    PixelShuffle,
    PixelUnshuffle,
    Pool,
    Product,
    Rows,
    Scale,
    Shape,
    Shuffle,
    Softmax,
    Sum,
    TransposedConv,
    Unpool,
)

MOST_CHANNELS = 2**16
ALIKE: tuple[int, ...] = ()
UNKNOWN = None
# One label for each channel, ALIKE if all read the same, UNKNOWN if nobody knows.
Labels = tuple[int, ...] | None
SELECTED = "it selects channels of a map whose channels see different places, and those are known only together"
EACH = (Activation, Adaptive, BatchNorm, Dropout, InstanceNorm, Interpolation, Pool, Rows, Scale, Unpool)


def labels(operation: Operation, given: Sequence[Labels], shapes: Sequence[Shape], output: Shape) -> Labels | str:
    """The labels of an operation's output, or why what it reads cannot be told.

    Args:
        operation: Any.
        given: Labels of its inputs.
        shapes: Of its inputs.
        output: Shape of its output.

    >>> labels(Concat(), [ALIKE, ALIKE], [(1, 4), (2, 4)], (3, 4))
    (0, 1, 1)
    >>> labels(Channels(("part", (1, 3))), [(0, 1, 1)], [(3, 4)], (1, 4))[:19]
    'it selects channels'
    """
    if isinstance(operation, Concat):
        return _beside(given, [shape[0] for shape in shapes], output[0])
    if isinstance(operation, PixelUnshuffle):
        return _unshuffled(operation, given[0], shapes[0], output[0])
    if isinstance(operation, Foreign) and operation.picks and any(one != ALIKE for one in given):
        return SELECTED
    if isinstance(operation, Flatten):
        return given[0] if prod(shapes[0][1:]) == 1 else UNKNOWN
    if isinstance(operation, Foreign) and operation.apart:
        return UNKNOWN
    if all(one == ALIKE for one in given):
        return ALIKE
    if isinstance(operation, Channels | PixelShuffle) or None in given:
        return _selected(operation, given, shapes)
    known = [one or (0,) * shape[0] for one, shape in zip(given, shapes, strict=True)]
    if isinstance(operation, Sum | Product):
        rows = [one if len(one) == output[0] else one * output[0] for one in known]
        return _named(list(zip(*rows, strict=True)))
    return _through(operation, known[0], shapes[0][0], output[0])


def _through(operation: Operation, one: tuple[int, ...], channels: int, outputs: int) -> Labels:
    """The labels behind an operation of one map."""
    if isinstance(operation, Softmax | LayerNorm | GroupNorm | LocalResponseNorm | FC | RBF):
        return ALIKE if not isinstance(operation, GroupNorm | LocalResponseNorm) else UNKNOWN
    if isinstance(operation, Conv | LocalConv | TransposedConv):
        return _grouped(one, operation.groups, outputs)
    if isinstance(operation, DepthwiseConv):
        return _grouped(one, channels, outputs)
    if isinstance(operation, Maxout):
        return _grouped(one, outputs, outputs)
    if isinstance(operation, Shuffle):
        width = channels // operation.groups
        return tuple(one[g * width + i] for i in range(width) for g in range(operation.groups))
    return one if isinstance(operation, EACH) and outputs == channels else UNKNOWN


def _selected(operation: Operation, given: Sequence[Labels], shapes: Sequence[Shape]) -> Labels | str:
    """Labels where some are unknown, or channels are taken out; a selection must meet every kind of channel."""
    one = given[0]
    if isinstance(operation, Channels) and one:
        chosen = [one[number] for number in operation.numbers(shapes[0][0])]
        if set(chosen) == set(one):
            return _named(chosen)
        return SELECTED
    if isinstance(operation, Channels | PixelShuffle):
        return SELECTED
    mixes = isinstance(operation, Softmax | LayerNorm | FC | RBF)
    dense = isinstance(operation, Conv | LocalConv | TransposedConv) and operation.groups == 1
    return ALIKE if mixes or dense else UNKNOWN


def _grouped(one: tuple[int, ...], groups: int, outputs: int) -> Labels:
    """Each output channel reads the channels of its group."""
    if groups == 1:
        return ALIKE
    width, each = len(one) // groups, outputs // groups
    kinds = [frozenset(one[g * width : (g + 1) * width]) for g in range(groups)]
    return _named([kind for kind in kinds for _ in range(each)])


def _beside(given: Sequence[Labels], widths: Sequence[int], channels: int) -> Labels:
    if channels > MOST_CHANNELS or None in given:
        return UNKNOWN
    parts = [one or (0,) * width for one, width in zip(given, widths, strict=True)]
    return _named([(number, label) for number, part in enumerate(parts) for label in part])


def _unshuffled(operation: PixelUnshuffle, one: Labels, shape: Shape, channels: int) -> Labels:
    """Each channel becomes one for every place in a block."""
    if channels > MOST_CHANNELS or one is None:
        return UNKNOWN
    places = operation.scale ** (len(shape) - 1)
    known = one or (0,) * shape[0]
    return _named([(label, place) for label in known for place in range(places)])


def _named(kinds: Sequence[object]) -> Labels:
    """Kinds as small numbers; none if there is only one."""
    numbers: dict[object, int] = {}
    found = tuple(numbers.setdefault(kind, len(numbers)) for kind in kinds)
    return found if len(numbers) > 1 else ALIKE
