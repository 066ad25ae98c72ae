"""Memory: which feature maps of a network live when, while it predicts and while it trains.

Counted are the feature maps, their gradients, switches, masks and statistics of one example in float32, as PyTorch's
kernels keep them; compiled ones of ours keep less for some poolings. Neither the work space of single kernels nor
weights are counted, nor tables that all examples of a batch share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from .architecture import Architecture, Node
from .operations import BYTES, Channels, Crop, Dropout, Flatten, Shape

# Bytes that live from one step of the computation up to another one.
Interval = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of feature maps.

    Args:
        made: New memory that a node takes for its output; 0 if it writes over its input or shows a part of it.
        saved: What a node adds to what the backward pass needs; a feature map counts once, where it is first needed.
            None if that is unknown.
        inference: The most that lives at any time of a prediction.
        training: The most that lives at any time of a training step; None if it is unknown what a node saves.
    """

    made: Mapping[str, int]
    saved: Mapping[str, int | None]
    inference: int
    training: int | None


def memory(architecture: Architecture, shapes: Mapping[str, Shape]) -> Memory:
    """The memory of a network, computed in the order of its nodes and back.

    >>> from striate.notation import parse
    >>> network = parse("INPUT 1x4x4 -> CONV1-2 -> TANH -> FC 3")
    >>> found = memory(network, network.shapes())
    >>> found.saved, found.inference
    ({'input': 0, 'conv1': 64, 'tanh1': 128, 'fc1': 0}, 256)
    """
    nodes = architecture.nodes
    steps = len(nodes)
    place = _places(architecture)
    made = {node.name: BYTES * prod(shapes[node.name]) if place[node.name] == node.name else 0 for node in nodes}
    number = {node.name: step for step, node in enumerate(nodes)}
    last_read = {node.name: step for step, node in enumerate(nodes)}
    needed: dict[str, int] = {}  # the first node whose backward pass needs a place
    saved: dict[str, int | None] = {}
    extras: list[Interval] = []
    for step, node in enumerate(nodes):
        last_read.update(dict.fromkeys((place[name] for name in node.inputs), step))
        given = [shapes[name] for name in node.inputs]
        needs = node.operation.kept(*given) if given else frozenset()
        kept = {place[name] for name in node.inputs} if "inputs" in needs else set()
        kept |= {place[node.name]} if "output" in needs else set()
        extra = node.operation.saved_extra(*given) if given else 0
        fresh = sum(made[name] for name in kept if name not in needed)
        saved[node.name] = None if extra is None else extra + fresh
        for name in kept:
            needed.setdefault(name, step)
        extras.append((step, 2 * steps - 1 - step, extra or 0))
    for name in architecture.results:
        last_read[place[name]] = steps - 1
    own = [name for name in number if place[name] == name]
    forward = [(number[name], last_read[name], made[name]) for name in own]
    kept_longer = [
        (number[name], 2 * steps - 1 - needed[name] if name in needed else last_read[name], made[name]) for name in own
    ]
    gradients = _gradients(architecture, number, shapes)
    training = None if None in saved.values() else _peak([*kept_longer, *extras, *gradients], 2 * steps)
    return Memory(made, saved, _peak(forward, steps), training)


def _gradients(
    architecture: Architecture, number: Mapping[str, int], shapes: Mapping[str, Shape]
) -> Iterable[Interval]:
    """The gradient of each feature map lives from its last reader's backward step up to its own."""
    steps = len(architecture.nodes)
    readers = dict.fromkeys(architecture.results, steps - 1)
    for node in architecture:
        for name in node.inputs:
            readers[name] = max(readers.get(name, 0), number[node.name])
    for node in architecture.nodes[1:]:
        if node.name in readers:
            yield 2 * steps - 1 - readers[node.name], 2 * steps - 1 - number[node.name], BYTES * prod(shapes[node.name])


def _peak(intervals: Iterable[Interval], steps: int) -> int:
    """The most bytes that live at one step."""
    changes = [0] * (steps + 1)
    for first, last, count in intervals:
        changes[first] += count
        changes[last + 1] -= count
    return max(accumulate(changes))


def _places(architecture: Architecture) -> dict[str, str]:
    """The node in whose memory each node's output lies."""
    place: dict[str, str] = {}
    overwriting = architecture.overwriting()
    for node in architecture:
        shares = bool(node.inputs) and (node.name in overwriting or is_view(node))
        place[node.name] = place[node.inputs[0]] if shares else node.name
    return place


def is_view(node: Node) -> bool:
    """Whether its output is its input, or a part of it, in the same memory."""
    operation = node.operation
    part = isinstance(operation, Channels) and operation.chosen[0] == "part"
    return part or isinstance(operation, Flatten | Crop) or operation == Dropout(0.0)
