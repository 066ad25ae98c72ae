"""The exact table of a network before it runs: shapes, costs, memory and receptive fields, from integers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from . import zoo
from .architecture import DEFAULTS, FC, Architecture, Dropout, Input, Node, Operation, Shape, whole_numbers
from .errors import GeometryError, OptionError
from .geometry import Axis, Geometry
from .notation import layer_text
from .receptive_field import Reads, ReceptiveField

BYTES = 4
LONGEST_AXIS = 16384


@dataclass(frozen=True)
class Row:
    """What is known of one node. Sizes per axis are tuples; what cannot be derived is None, and ``unknown`` says why.

    Args:
        name: Of the node; the built network's layer has the same.
        kind: The layer as the notation writes it.
        output_shape: ``(C, *spatial)``.
        parameters: Learned numbers.
        macs: Multiply-adds for one example: convolutions and fully connected layers, padding counted, biases not.
        flops: ``2 * macs``.
        activation_bytes: Bytes of new memory for the output in float32; 0 where it overwrites its input (ReLU).
        receptive_field: Input positions that can change one output value: the largest box over all outputs, per axis.
        jump: Input positions between neighbouring outputs, per axis.
        offset: First input position that output 0 can see, per axis; negative where it begins in padding.
        coverage: Share of the positions in that box which are really read, for the output that reads most.
        unread: Real input positions that no output of this node can see.
        unknown: Field name -> why it is None.
    """

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int
    flops: int
    activation_bytes: int
    receptive_field: tuple[int, ...] | None
    jump: tuple[int, ...] | None
    offset: tuple[int, ...] | None
    coverage: float | None
    unread: int | None
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Totals:
    """Sums over all rows."""

    parameters: int
    macs: int
    flops: int
    activation_bytes: int


@dataclass(frozen=True)
class Description:
    """The table of a network. ``str()`` of it is the table as text.

    Args:
        rows: One for each node, in the order of computation.
        totals: Sums over the rows.
        notes: Sentences that a reader of the table should know, such as which numbers were filled in.
    """

    rows: tuple[Row, ...]
    totals: Totals
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, ready for JSON."""
        return asdict(self)

    def cells(self) -> list[dict[str, str]]:
        """The table as text cells, the totals last."""
        body = [_cells(row) for row in self.rows]
        total = dict.fromkeys(body[0], "") | {
            "name": "total",
            "parameters": f"{self.totals.parameters:,}",
            "multiply-adds": f"{self.totals.macs:,}",
            "memory": _bytes(self.totals.activation_bytes),
        }
        return [*body, total]

    def __str__(self) -> str:
        cells = self.cells()
        widths = {key: max(len(key), *(len(row[key]) for row in cells)) for key in cells[0]}
        left = ("name", "layer")
        lines = [
            "  ".join(row[k].ljust(w) if k in left else row[k].rjust(w) for k, w in widths.items()).rstrip()
            for row in [{key: key for key in widths}, *cells]
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *self.notes, CONVENTION])


CONVENTION = (
    "Multiply-adds: convolutions and fully connected layers, one example, padding counted, biases not;\n"
    "FLOPs are twice as many. Memory: float32 outputs of one example while training; ReLU works in place.\n"
    "Sees: the largest box of input positions that can change one output value; read: the share of them\n"
    "that is really read; unread: input positions that no output sees."
)


def describe(network: Any, input_size: Sequence[int] | None = None, **variables: Any) -> Description:
    """The exact table of a network, before it runs: no tensors, no weights.

    Args:
        network: Notation text, a zoo name, a file with a text, or a network made by :func:`striate.network`.
        input_size: ``(C, *spatial)``; replaces the size that the text gives.
        **variables: What the text leaves open: filters, hidden, classes.

    Raises:
        NotationError: The text cannot be read.
        GeometryError: A window does not fit its input; the message names the layer and where it stands.
        OptionError: A variable does not fit.

    >>> d = describe("lenet5")
    >>> d.totals.parameters, d.rows[4].name, d.rows[4].receptive_field
    (61706, 'conv2', (14, 14))
    """
    source = getattr(network, "architecture", network)
    if not isinstance(source, Architecture):
        source = zoo.architecture(source)
    bound, notes = _bound(source, input_size, variables)
    return analyse(bound, notes)


def _bound(
    source: Architecture, input_size: Sequence[int] | None, variables: Mapping[str, Any]
) -> tuple[Architecture, tuple[str, ...]]:
    if unknown := set(variables) - (set(DEFAULTS) - {"input"}):
        raise OptionError(f"describe has no variable {min(unknown)!r}; a text can leave filters, hidden, classes open.")
    if input_size is not None:
        first, *rest = source.nodes
        shape = whole_numbers(input_size)
        if shape is None or len(shape) < 2:
            raise OptionError(f"input_size={input_size!r} must be (channels, *spatial), whole numbers of at least 1.")
        source = Architecture((Node(first.name, Input(shape), (), first.line, first.column), *rest))
    source = source.bind(**{name: value for name, value in variables.items() if value is not None})
    filled = {name: DEFAULTS[name] for name in source.open}
    words = ", ".join(f"{name} {_size(value) if name == 'input' else value}" for name, value in filled.items())
    return source.bind(**filled), ((f"Filled in, because the text leaves it open: {words}.",) if filled else ())


def analyse(architecture: Architecture, notes: tuple[str, ...] = ()) -> Description:
    """The table of a network whose every number is known."""
    state = _State.of_input(architecture.input_shape or ())
    rows = []
    overwriting = architecture.overwriting()
    for node in architecture:
        row, state = _row(node, state, overwrites=node.name in overwriting)
        rows.append(row)
    totals = (sum(getattr(row, name) for row in rows) for name in ("parameters", "macs", "flops", "activation_bytes"))
    return Description(tuple(rows), Totals(*totals), notes)


@dataclass(frozen=True)
class _State:
    """A feature map on the way through the network: its shape, and what its positions see of the input, per axis."""

    shape: Shape
    reads: tuple[Reads | None, ...]
    fields: tuple[ReceptiveField, ...] | None
    inputs: Shape

    @staticmethod
    def of_input(shape: Shape) -> _State:
        spatial = shape[1:]
        known: dict[int, Reads | None] = {n: Reads.of_input(n) if n <= LONGEST_AXIS else None for n in spatial}
        return _State(shape, tuple(known[n] for n in spatial), tuple(ReceptiveField() for _ in spatial), spatial)

    def after(self, operation: Operation) -> _State:
        shape = operation.output_shape(self.shape)
        if isinstance(operation, FC):
            return _State(shape, tuple(None if r is None else r.together() for r in self.reads), None, self.inputs)
        window = operation.window(self.shape)
        if window is None:
            return _State(shape, self.reads, self.fields, self.inputs)
        fields = tuple(f.then(a) for f, a in zip(self.fields or (), window.axes, strict=True))
        return _State(shape, self._through(window), fields, self.inputs)

    def _through(self, window: Geometry) -> tuple[Reads | None, ...]:
        done: dict[tuple[int, Axis], Reads | None] = {}
        for reads, axis in zip(self.reads, window.axes, strict=True):
            key = (id(reads), axis)
            if key not in done:
                done[key] = None if reads is None or _is_long(reads, axis) else reads.through(axis)
        return tuple(done[id(reads), axis] for reads, axis in zip(self.reads, window.axes, strict=True))


def _is_long(reads: Reads, axis: Axis) -> bool:
    return max(axis.kernel, axis.output_size(len(reads.sets))) > LONGEST_AXIS


def _row(node: Node, before: _State, *, overwrites: bool) -> tuple[Row, _State]:
    operation = node.operation
    try:
        after = before.after(operation)
        parameters, macs = operation.parameters(before.shape), operation.multiply_adds(before.shape)
    except GeometryError as error:
        where = f"line {node.line}, column {node.column}: " if node.line else ""
        raise GeometryError(
            f"In {node.name} ({where}{layer_text(operation)}) with input {_size(before.shape)}: {error}"
        ) from None
    seen, unknown = _seen(after)
    passes_on = overwrites or operation == Dropout(0.0)
    memory = 0 if passes_on else BYTES * prod(after.shape)
    row = Row(
        node.name, layer_text(operation), after.shape, parameters, macs, 2 * macs, memory, **seen, unknown=unknown
    )
    return row, after


def _seen(state: _State) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a row that tell what it sees of the input, and why some are not known."""
    unknown: dict[str, str] = {}
    if state.fields is None:
        unknown |= dict.fromkeys(("jump", "offset"), "after a fully connected layer there are no positions any more")
    exact = [reads for reads in state.reads if reads is not None]
    if len(exact) < len(state.reads):
        long = f"not derived for axes longer than {LONGEST_AXIS:,}"
        unknown |= dict.fromkeys(("receptive_field", "coverage", "unread"), long)
        return _fields(state) | dict.fromkeys(("receptive_field", "coverage", "unread")), unknown
    box = tuple(reads.size for reads in exact)
    if 0 in box:
        unknown["coverage"] = "no output reads any input position"
        blind = {"receptive_field": (0,) * len(box), "coverage": None, "unread": prod(state.inputs)}
        return _fields(state) | blind, unknown
    most = [reads.coverage for reads in exact]
    return _fields(state) | {
        "receptive_field": box,
        "coverage": prod(count for count, _ in most) / prod(span for _, span in most),
        "unread": prod(state.inputs) - prod(reads.ever_read for reads in exact),
    }, unknown


def _fields(state: _State) -> dict[str, Any]:
    if state.fields is None:
        return {"jump": None, "offset": None}
    return {"jump": tuple(f.jump for f in state.fields), "offset": tuple(f.offset for f in state.fields)}


def _cells(row: Row) -> dict[str, str]:
    return {
        "name": row.name,
        "layer": row.kind,
        "output": _size(row.output_shape),
        "parameters": f"{row.parameters:,}",
        "multiply-adds": f"{row.macs:,}",
        "memory": _bytes(row.activation_bytes),
        "sees": "unknown" if row.receptive_field is None else _size(row.receptive_field),
        "jump": "-" if row.jump is None else _size(row.jump),
        "read": "unknown" if row.coverage is None else f"{100 * row.coverage:.0f}%",
        "unread": "unknown" if row.unread is None else f"{row.unread:,}",
    }


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _bytes(count: int) -> str:
    """Bytes in the largest unit that leaves at least 1, in powers of 1,024."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
