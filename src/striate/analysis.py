"""The exact table of a network before it runs: shapes, costs, memory and receptive fields, from integers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from math import prod
from typing import Any

from . import tables, zoo
from .architecture import Architecture, Node, placed
from .errors import unknown_name
from .memory import is_view, memory
from .operations import BYTES, Operation, Shape, written
from .spelling import text
from .support import LONGEST_AXIS, Sight, Support
from .taps import counts, reads

NO_POSITIONS = "after a fully connected layer there are no positions any more"
AS_WHOLE = "its positions see the input as a whole"
DIFFERENT = "its branches advance differently"


@dataclass(frozen=True)
class Row:
    """What is known of one node. Sizes per axis are tuples; what cannot be derived is None, and ``unknown`` says why.

    Args:
        name: Of the node; the built network's layer has the same.
        kind: The layer as the notation writes it.
        line: Of the text, from 1; 0 if there is none.
        source: Where a traced model computes it.
        inputs: Names of the nodes that it reads.
        output_shape: ``(C, *spatial)``.
        parameters: Learned numbers.
        macs: Multiply-adds for one example: convolutions and fully connected layers, padding counted, biases not.
        flops: ``2 * macs``.
        activation_bytes: Bytes of new memory for the output in float32; 0 where it overwrites its input (ReLU).
        saved_bytes: What it adds to what the backward pass needs; a feature map counts once, where it is first needed.
        moved_bytes: Inputs, parameters and output: what has to move at least once.
        receptive_field: Input positions that can change one output value: the largest box over all outputs, per axis.
        endless: The same on an endless input: larger where the input is too small for it.
        jump: Input positions between neighbouring outputs, per axis; a fraction after upsampling.
        offset: First input position that output 0 can see, per axis; negative where it begins in padding.
        padding_share: Share of the window's reads that fall on padding; 0 where there is no window, None beyond 2^20
            positions.
        seconds: Least time on this machine for one example in float32, if asked for: what its matrix products or its
            memory allow at best.
        algorithm: Of the convolution's plan, if asked for.
        unknown_costs: Field name -> why it is None, for all but coverage and unread.
        support: What it reads, for what is derived when first asked for.
    """

    name: str
    kind: str
    line: int
    source: str
    inputs: tuple[str, ...]
    output_shape: Shape
    parameters: int
    macs: int | None
    flops: int | None
    activation_bytes: int
    saved_bytes: int | None
    moved_bytes: int
    receptive_field: tuple[int, ...] | None
    endless: tuple[int, ...] | None
    jump: tuple[int | Fraction, ...] | None
    offset: tuple[int, ...] | None
    padding_share: float | None
    seconds: float | None = None
    algorithm: str | None = None
    unknown_costs: Mapping[str, str] = field(default_factory=dict)
    support: Support | None = field(default=None, repr=False, compare=False)

    @property
    def intensity(self) -> float | None:
        """Floating-point operations for each byte that has to move at least once."""
        return None if self.flops is None or not self.moved_bytes else self.flops / self.moved_bytes

    @property
    def coverage(self) -> float | None:
        """Share of the positions in its box that are really read, for the output that reads most."""
        found = self._coverage
        return None if isinstance(found, str) else found[0] / found[1]

    @property
    def unread(self) -> int | None:
        """Real input positions that no output of this node can see."""
        found = self._unread
        return None if isinstance(found, str) else found

    @property
    def unknown(self) -> dict[str, str]:
        """Field name -> why it is None."""
        found = dict(self.unknown_costs)
        late = {"coverage": self._coverage, "unread": self._unread}
        return found | {name: why for name, why in late.items() if isinstance(why, str)}

    @property
    def _coverage(self) -> tuple[int, int] | str:
        return "not traced" if self.support is None else self.support.coverage(self.name)

    @property
    def _unread(self) -> int | str:
        return "not traced" if self.support is None else self.support.unread(self.name)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, ready for JSON; fractions as decimal numbers."""
        hidden = ("unknown_costs", "support")
        found = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in hidden}
        late = ("intensity", "coverage", "unread", "unknown")
        found |= {name: getattr(self, name) for name in late}
        return {name: list(map(_plain, value)) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True)
class Totals:
    """Sums over all rows, and the memory that a network needs. What cannot be summed is None, and ``unknown`` says why.

    Args:
        parameters: Learned numbers.
        macs: Multiply-adds for one example.
        flops: ``2 * macs``.
        activation_bytes: Sum over the rows: bytes in float32 of all outputs that take memory of their own.
        saved_bytes: Bytes that the backward pass needs, weights not counted.
        inference_bytes: Weights, and the most feature maps that live at any time of a prediction of one example.
        training_bytes: Weights, their gradients, and the most that lives at any time of a training step of one
            example: feature maps, their gradients, masks and the like. An optimiser's own numbers come on top
            (AdamW: two for each weight).
        seconds: Least time on this machine to predict one example, if asked for.
        unknown: Field name -> why it is None.
    """

    parameters: int
    macs: int | None
    flops: int | None
    activation_bytes: int
    saved_bytes: int | None
    inference_bytes: int
    training_bytes: int | None
    seconds: float | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """The table of a network. ``str()`` of it is the table as text.

    Args:
        rows: One for each node, in the order of computation.
        totals: Sums over the rows.
        notes: Sentences that a reader of the table should know, such as which numbers were filled in.
        architecture: The network.
    """

    rows: tuple[Row, ...]
    totals: Totals
    notes: tuple[str, ...] = ()
    architecture: Architecture | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> Row:
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            raise unknown_name("layer", name, (row.name for row in self.rows))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, ready for JSON."""
        totals = {entry.name: getattr(self.totals, entry.name) for entry in fields(self.totals)}
        return {"rows": [row.to_dict() for row in self.rows], "totals": totals, "notes": list(self.notes)}

    def cells(self, *, wide: bool = False) -> list[dict[str, str]]:
        """The table as text cells, the totals last; with ``wide`` every column that there is."""
        body = [_cells(row) | (_wide_cells(row) if wide else {}) for row in self.rows]
        total = dict.fromkeys(body[0], "") | {
            "name": "total",
            "parameters": count_text(self.totals.parameters),
            "multiply-adds": count_text(self.totals.macs),
            "memory": bytes_text(self.totals.activation_bytes),
            "saved": "unknown" if self.totals.saved_bytes is None else bytes_text(self.totals.saved_bytes),
        }
        if self.totals.seconds is not None:
            total["time"] = seconds_text(self.totals.seconds)
        return [*body, total]

    @property
    def result(self) -> Row:
        """The row of the network's main output."""
        return self.rows[-1] if self.architecture is None else self[self.architecture.results[0]]

    def csv(self) -> str:
        """The rows as CSV."""
        return tables.as_csv([row.to_dict() for row in self.rows])

    def page(self, title: str = "A network on paper") -> str:
        """The table as a page for a browser; what is unknown says why when the pointer rests on it."""
        columns = {"sees": "receptive_field", "jump": "jump", "read": "coverage", "unread": "unread"}
        columns |= {"parameters": "parameters", "multiply-adds": "macs"}
        hints = [{key: row.unknown.get(name, "") for key, name in columns.items()} for row in self.rows]
        notes = [*self.summary(), *self.notes, CONVENTION.replace("\n", " ")]
        return tables.as_page(title, self.cells(wide=True), LEFT, notes, hints, total=True)

    def __str__(self) -> str:
        return self.text()

    def text(self, *, wide: bool = False) -> str:
        """The table as text; with ``wide`` every column that there is."""
        lines = tables.aligned(self.cells(wide=wide), LEFT, total=True)
        return "\n".join([*lines, *self.summary(), *self.notes, CONVENTION])

    def summary(self) -> list[str]:
        """What the network needs, in sentences."""
        totals = self.totals
        sentences = [f"Unknown: {name}, because {why}." for name, why in totals.unknown.items()]
        needs = {"predict": totals.inference_bytes, "train": totals.training_bytes}
        known = ", ".join(f"{bytes_text(count)} to {what}" for what, count in needs.items() if count is not None)
        if known:
            counted = "weights, their gradients, feature maps" if totals.training_bytes is not None else "weights, maps"
            sentences.append(f"Peak memory for one example: {known} ({counted}).")
        return sentences


LEFT = ("name", "layer", "by", "source")
CONVENTION = (
    "Multiply-adds: convolutions and fully connected layers, one example, padding counted, biases not;\n"
    "FLOPs are twice as many. Memory: float32 outputs of one example while training; ReLU works in place.\n"
    "Saved: what the backward pass needs; a feature map counts where it is first needed.\n"
    "Sees: the largest box of input positions that can change one output value; read: the share of them\n"
    "that is really read; unread: input positions that no output sees."
)


def describe(network: Any, input_size: Sequence[int] | None = None, **variables: Any) -> Description:
    """The exact table of a network on paper, before it runs: no tensors, no weights.

    Args:
        network: Notation text, a zoo name, a file with a text, or a network made by :func:`striate.network`.
        input_size: ``(C, *spatial)``; replaces the size that the text gives.
        **variables: Values of the names that the text uses, and what it leaves open: filters, hidden, classes.

    Raises:
        NotationError: The text cannot be read.
        GeometryError: A window does not fit its input; the message names the layer and where it stands.
        OptionError: A variable does not fit.

    >>> d = describe("lenet5")
    >>> d.totals.parameters, d["conv2"].receptive_field, d["conv2"].coverage
    (61706, (14, 14), 1.0)
    """
    return analyse(*on_paper(network, input_size, variables))


def on_paper(
    network: Any, input_size: Sequence[int] | None, variables: Mapping[str, Any]
) -> tuple[Architecture, tuple[str, ...]]:
    """The architecture that is meant, every number known, and a sentence on what was filled in.

    Raises:
        NotationError: The text cannot be read.
        OptionError: A variable does not fit.
    """
    bound, filled = zoo.bound(getattr(network, "architecture", network), variables, input_size)
    words = ", ".join(f"{name} {written(value) if name == 'input' else value}" for name, value in filled.items())
    return bound, (f"Filled in, because the text leaves it open: {words}.",) if filled else ()


def analyse(architecture: Architecture, notes: tuple[str, ...] = ()) -> Description:
    """The table of a network whose every number is known.

    Raises:
        GeometryError: A window does not fit its input; the message names the layer and where it stands.
    """
    shapes = architecture.shapes()
    support = Support(architecture, shapes)
    needs = memory(architecture, shapes)
    rows = tuple(
        _row(node, [shapes[name] for name in node.inputs], support, needs.made[node.name], needs.saved[node.name])
        for node in architecture
    )
    return Description(rows, _totals(rows, needs.inference, needs.training), notes, architecture)


def _row(node: Node, given: Sequence[Shape], support: Support, made: int, saved: int | None) -> Row:
    operation, shape = node.operation, support.shapes[node.name]
    with placed(node, given):
        parameters = operation.parameters(*given) if given else 0
        macs = operation.multiply_adds(*given) if given else 0
    unknown: dict[str, str] = {}
    if macs is None:
        unknown |= dict.fromkeys(("macs", "flops"), operation.unknown)
    if saved is None:
        unknown["saved_bytes"] = f"what {text(operation)} keeps for its backward pass is not known"
    moved = 0 if is_view(node) or not given else BYTES * (sum(map(prod, given)) + parameters + prod(shape))
    if (padding := _padding_share(operation, given)) is None:
        unknown["padding_share"] = f"an axis has more than {LONGEST_AXIS:,} positions"
    seen, reasons = _seen(support.sights[node.name], shape)
    return Row(
        node.name, text(operation), node.line, node.source, node.inputs, shape,
        parameters, macs, None if macs is None else 2 * macs, made, saved, moved,
        **seen,
        padding_share=padding, unknown_costs=unknown | reasons, support=support,
    )  # fmt: skip


def _seen(sights: tuple[Sight, ...] | str, shape: Shape) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a row that tell what it sees of the input, and why some are not known."""
    names = ("receptive_field", "endless", "jump", "offset")
    if isinstance(sights, str):
        return dict.fromkeys(names), dict.fromkeys(names, sights)
    box = tuple(sight.size for sight in sights)
    if 0 in box:  # what reads nothing on one axis reads nothing at all
        box = (0,) * len(box)
    moving = [sight.field for sight in sights]
    if None in moving or any(one is not None and one.offset is None for one in moving):
        whole = NO_POSITIONS if len(shape) == 1 else DIFFERENT if all(s.axis is not None for s in sights) else AS_WHOLE
        return dict.fromkeys(names) | {"receptive_field": box}, dict.fromkeys(names[1:], whole)
    known = [one for one in moving if one is not None]
    return {
        "receptive_field": box,
        "endless": tuple(one.size for one in known),
        "jump": tuple(_whole(one.jump) for one in known),
        "offset": tuple(one.offset for one in known),
    }, {}


def _whole(number: Fraction) -> int | Fraction:
    return number.numerator if number.denominator == 1 else number


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Fraction) else value


def _padding_share(operation: Operation, given: Sequence[Shape]) -> float | None:
    """Share of the reads of a window that fall on padding; None for axes that are too long to count."""
    window = operation.window(given[0]) if given else None
    if window is None or window.transposed:
        return 0.0
    real = total = 1
    for axis, n in zip(window.axes, given[0][1:], strict=True):
        outputs = axis.output_size(n)
        if outputs > LONGEST_AXIS:
            return None
        total *= outputs * axis.kernel
        real *= reads(axis, n) if axis.kernel <= outputs else sum(counts(axis, n))
    return 1 - real / total


def _totals(rows: Sequence[Row], inference: int, training: int | None) -> Totals:
    unknown: dict[str, str] = {}
    sums: dict[str, int | None] = {}
    for name in ("macs", "flops", "saved_bytes"):
        values = [getattr(row, name) for row in rows]
        if None in values:
            row = rows[values.index(None)]
            unknown[name] = f"in {row.name} {row.unknown_costs.get(name, 'it is unknown')}"
        sums[name] = None if None in values else sum(values)
    if training is None:
        unknown["training_bytes"] = unknown["saved_bytes"]
    parameters = sum(row.parameters for row in rows)
    weights = BYTES * parameters
    return Totals(
        parameters, sums["macs"], sums["flops"],
        sum(row.activation_bytes for row in rows), sums["saved_bytes"],
        weights + inference,
        None if training is None else 2 * weights + training,
        unknown=unknown,
    )  # fmt: skip


def _cells(row: Row) -> dict[str, str]:
    coverage, unread = row.coverage, row.unread
    timed = {} if row.seconds is None else {"time": seconds_text(row.seconds), "by": row.algorithm or ""}
    return {
        "name": row.name,
        "layer": row.kind,
        "output": written(row.output_shape),
        "parameters": count_text(row.parameters),
        "multiply-adds": count_text(row.macs),
        "memory": bytes_text(row.activation_bytes),
        "saved": "unknown" if row.saved_bytes is None else bytes_text(row.saved_bytes),
        "sees": "unknown" if row.receptive_field is None else written(row.receptive_field),
        "jump": "-" if row.jump is None else written(row.jump),
        "read": "unknown" if coverage is None else f"{100 * coverage:.0f}%",
        "unread": count_text(unread),
        **timed,
    }


def _wide_cells(row: Row) -> dict[str, str]:
    """What the plain table leaves to JSON and CSV."""
    return {
        "FLOPs": count_text(row.flops),
        "FLOPs/byte": "-" if row.intensity is None else f"{row.intensity:.2f}",
        "endless": "-" if row.endless is None else written(row.endless),
        "offset": "-" if row.offset is None else ",".join(map(str, row.offset)),
        "padding": "-" if row.padding_share is None else f"{100 * row.padding_share:.1f}%",
        "line": str(row.line or ""),
        "source": row.source,
    }


def count_text(number: int | None) -> str:
    """A number as people read it, or "unknown".

    >>> count_text(61706), count_text(None)
    ('61,706', 'unknown')
    """
    return "unknown" if number is None else f"{number:,}"


def seconds_text(seconds: float) -> str:
    """A time in the largest unit that leaves at least 1.

    >>> seconds_text(0.0025), seconds_text(3e-8)
    ('2.5 ms', '0.0 µs')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds * 1e6:.1f} µs"


def bytes_text(count: int) -> str:
    """Bytes in the largest unit that leaves at least 1, in powers of 1,024.

    >>> bytes_text(3136), bytes_text(100)
    ('3.1 KiB', '100 B')
    """
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
