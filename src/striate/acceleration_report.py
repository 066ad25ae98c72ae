"""What was tried on a model, layer by layer, and what it gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

WORDS = {"forward": "", "input_gradient": "input gradient ", "weight_gradient": "weight gradient "}


@dataclass(frozen=True)
class LayerReport:
    """One layer with a window.

    Args:
        name: Its name in the model.
        kind: Its class.
        before: Milliseconds of its own step, measured alone, in the model's own memory layout; None if not measured.
        after: The same as it is now.
        algorithms: The algorithm of each direction that a step computes.
        error: The largest difference from the layer as it was, over the root mean square, in its output and all its
            gradients; None where nothing was changed.
        planned: Whether plans compute it now.
        note: Why not, or what else there is to say.
    """

    name: str
    kind: str
    before: float | None = None
    after: float | None = None
    algorithms: Mapping[str, str] = field(default_factory=dict)
    error: float | None = None
    planned: bool = False
    note: str = ""


@dataclass(frozen=True)
class Acceleration:
    """What :func:`striate.accelerate` did. ``str()`` of it is a table.

    Args:
        layers: One row for each layer with a window.
        before: Milliseconds of the model's step as it was.
        after: Milliseconds of the step as it is now; never more.
        step: "training", forward and backward, or "inference".
        layout: The memory layout that the network computes in now: "as given", "channels_last" or "contiguous".
        fused: The convolutions that take their batch normalisation with them.
        error: Of the model: the largest difference of its outputs over their root mean square, or the norm of the
            difference of all gradients over their norm, whichever is more.
        functions: What was called as a function and left as it is: module, operation and how often.
        notes: Sentences that a reader should know.
    """

    layers: tuple[LayerReport, ...]
    before: float
    after: float
    step: str
    layout: str
    fused: tuple[str, ...] = ()
    error: float = 0.0
    functions: tuple[tuple[str, str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything of the model was changed."""
        return self.layout != "as given" or bool(self.fused) or any(layer.planned for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, ready for JSON."""
        return asdict(self) | {"changed": self.changed}

    def __str__(self) -> str:
        cells = [_cells(layer) for layer in self.layers]
        lines = []
        if cells:
            widths = {key: max(len(key), *(len(row[key]) for row in cells)) for key in cells[0]}
            left = ("layer", "kind", "algorithms")
            lines = [
                "  ".join(row[k].ljust(w) if k in left else row[k].rjust(w) for k, w in widths.items()).rstrip()
                for row in [{key: key for key in widths}, *cells]
            ]
            lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([*lines, *self._sentences()])

    def _sentences(self) -> list[str]:
        if self.changed:
            ratio = self.before / self.after if self.after else 1.0
            first = (
                f"{self.step} step: {self.before:.2f} ms before, {self.after:.2f} ms after ({ratio:.2f} times as fast)"
            )
            lines = [f"{first}; memory layout: {self.layout}; error {self.error:.0e}."]
        else:
            lines = [f"{self.step} step: {self.before:.2f} ms. Nothing tried was faster: the model is as it was."]
        if self.fused:
            lines.append(f"Batch normalisation fused in inference: {', '.join(self.fused)}.")
        lines += [
            f"Left as it is: {name}, called as a function in {place or 'the model'}, {count} a step."
            for place, name, count in self.functions
        ]
        return [*lines, *self.notes]


def _cells(layer: LayerReport) -> dict[str, str]:
    def time(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    names = list(dict.fromkeys(layer.algorithms.values()))
    if len(names) <= 1:
        algorithms = "".join(names)
    else:
        algorithms = ", ".join(f"{WORDS[direction]}{name}" for direction, name in layer.algorithms.items())
    return {
        "layer": layer.name or "(model)",
        "kind": layer.kind,
        "before ms": time(layer.before),
        "after ms": time(layer.after),
        "error": "-" if layer.error is None else f"{layer.error:.0e}",
        "algorithms": ". ".join(part for part in (algorithms, layer.note) if part),
    }
