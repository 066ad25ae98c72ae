"""Any PyTorch model as a network on paper: one forward pass of shapes, in which every operator is seen.

``torch.export`` is not needed: it must prove that its graph can be run again, so it takes fewer models, and several
times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from .architecture import Architecture, Node, whole_numbers
from .combining import Sketch
from .dispatching import Tracer
from .drafts import Draft, Value, relearned
from .errors import GeometryError, OptionError, StriateError
from .factors import BATCH, plain, single
from .operations import Foreign
from .shortcuts import require_one_tensor, tensors_of
from .windows import Shape

LOCK = threading.RLock()  # while a model is traced its weights are on the meta device


@dataclass(frozen=True, slots=True)
class Trace:
    """What was seen of a model.

    Args:
        architecture: The network on paper.
        notes: What its numbers do not show, in sentences.
        unused: Parameters that nothing reads on the way to an output.
    """

    architecture: Architecture
    notes: tuple[str, ...]
    unused: int


def trace(model: nn.Module, input_size: Sequence[int]) -> Trace:
    """The network that a model computes, in evaluation, for examples of one size; the model stays as it is.

    Args:
        model: Any module that takes one tensor ``(N, C, *spatial)``, its weights anywhere, the meta device included.
        input_size: ``(C, *spatial)`` of one example.

    Raises:
        OptionError: The size is none, the model takes more than one tensor, or does something that needs values.
        GeometryError: The model fails; the message says where, and what PyTorch says.

    >>> seen = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), (3, 8000, 8000))
    >>> seen.architecture.shapes()
    {'input': (3, 8000, 8000), '0': (8, 8000, 8000), '1': (8, 8000, 8000), '2': (8, 4000, 4000)}
    """
    shape = whole_numbers(input_size)
    if shape is None:
        raise OptionError(
            f"input_size={input_size!r} must be (channels, *spatial) of one example, as in (3, 224, 224)."
        )
    model = getattr(model, "_orig_mod", model)  # of a compiled model
    require_one_tensor(model)
    try:
        found, tracer = _traced(model, shape, 2)
    except GeometryError as error:
        try:
            return _traced(model, shape, 1)[0]  # it may insist on a batch of one
        except GeometryError as alone:
            raise alone from None  # its sizes are those of one example
        except StriateError:
            raise error from None
    if tracer.sized_by:
        _require_same_work(model, shape, tracer)
    return found


def _traced(model: nn.Module, shape: Shape, batch: int) -> tuple[Trace, Tracer]:
    with LOCK, Tracer(model, shape, batch).running() as tracer:
        given = tracer.start()
        outputs = list(tensors_of(model(given)))
        return _finished(tracer, outputs), tracer


def _require_same_work(model: nn.Module, shape: Shape, two: Tracer) -> None:
    """Insist that a model which reads sizes does the same for one example as for two."""
    try:
        _, one = _traced(model, shape, 1)
    except StriateError:
        return
    if one.work != two.work:
        rows = zip([*one.work, ("", "")], [*two.work, ("", "")], strict=False)
        place = next(max(row)[1] for row in rows if row[0] != row[1])
        raise OptionError(
            f"In {place or type(model).__name__}, {two.sized_by}: the model does one thing for one example and another "
            "for two, so that there is no network of one example; let it not depend on the size of the batch."
        )


# ------------------------------------------------------------------------------------------------- what comes out of it


def _finished(tracer: Tracer, outputs: Sequence[Tensor]) -> Trace:
    """The graph without what leads nowhere, each parameter counted once."""
    values = [found for found in map(tracer.of, outputs) if isinstance(found, Value)]
    if not values:
        raise OptionError(
            f"{type(tracer.model).__name__} gives no tensor that depends on its input; return what it computes."
        )
    results = list(dict.fromkeys(_result(tracer.sketch, value) for value in values))
    alive = _alive(results)
    drafts = [draft for draft in tracer.sketch.drafts if draft in alive]
    counted: dict[int, str] = {}
    shared: dict[tuple[str, ...], list[str]] = {}
    nodes = tuple(_node(draft, tracer, counted, shared) for draft in drafts)
    notes = [_again(names, owners) for owners, names in shared.items()]
    unread = {name: n for key, (name, n) in tracer.parameters.items() if key not in counted}
    unused = sum(unread.values())
    if unread:
        notes.append(f"{unused:,} parameters are never read: {_listed(list(unread))}.")
    names = tuple(draft.name for draft in results)
    return Trace(Architecture(nodes, () if names == (nodes[-1].name,) else names), tuple(notes), unused)


def _result(sketch: Sketch, value: Value) -> Draft:
    """The node that an output is: a view of a feature map becomes one, unless it only leaves axes of one entry out."""
    tidy = [axis for axis in value.layout if axis]
    channels = value.layout[1] if len(value.layout) > 1 else ()
    lone = value.draft.shape[0] == 1 and len(value.layout) == len(value.draft.shape)  # its channel axis is squeezed out
    if (lone or channels == single(0, value.draft.shape[0])) and tidy == [
        axis for axis in plain(value.draft.shape, sketch.batch) if axis
    ]:
        return value.draft
    place = next((k for k, axis in enumerate(value.layout) if axis == single(BATCH, sketch.batch)), 0)
    if place and sketch.batch > 1:
        value = value.relaid((value.layout[place], *value.layout[:place], *value.layout[place + 1 :]))
    try:
        return sketch.flat(value).draft
    except GeometryError as error:
        return sketch.opaque("output", [value], value.sizes, str(error), 0, "").draft


def _alive(results: Sequence[Draft]) -> set[Draft]:
    alive: set[Draft] = set()
    waiting = list(results)
    while waiting:
        draft = waiting.pop()
        if draft not in alive:
            alive.add(draft)
            waiting += draft.inputs
    return alive


def _node(draft: Draft, tracer: Tracer, counted: dict[int, str], shared: dict[tuple[str, ...], list[str]]) -> Node:
    """The node of a draft, which learns what no node before it has counted."""
    again = tuple(sorted({counted[key] for key in draft.learned if key in counted}))
    learned = sum(tracer.parameters[key][1] for key in draft.learned if key not in counted)
    counted.update(dict.fromkeys(draft.learned - counted.keys(), draft.name))
    if again:
        shared.setdefault(again, []).append(draft.name)
    operation = draft.operation
    shapes = [given.shape for given in draft.inputs]
    if isinstance(operation, Foreign):
        operation = replace(operation, learned=learned)
    elif draft.inputs and operation.parameters(*shapes) != learned:
        operation = relearned(operation, learned)
    return Node(draft.name, operation, tuple(given.name for given in draft.inputs), source=draft.source)


def _again(names: Sequence[str], owners: Sequence[str]) -> str:
    use = "uses" if len(names) == 1 else "use"
    return f"{_listed(names)} {use} parameters of {_listed(owners)} again; they are counted there only."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
