"""Any network described, on paper or as a torch model: the door to analysis, lint and the machine's own figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import analysis, lint
from .analysis import Description, Row
from .architecture import Architecture, Node
from .errors import OptionError
from .findings import Finding
from .operations import Weighted


def describe(
    network: Any, input_size: Sequence[int] | None = None, *, time: bool = False, **variables: Any
) -> Description:
    """The exact table of a network, before it runs: shapes, costs, memory and receptive fields.

    A torch model is traced with tensors that hold no numbers: nothing is computed, and the model is left as it was.

    Args:
        network: Notation text, a zoo name, a file with a text, what :func:`striate.network` made, or any torch model.
        input_size: ``(C, *spatial)`` of one example; replaces the size that a text gives, and a torch model needs it.
        time: Also the least time on this machine, and who would compute each convolution; measures the machine once.
        **variables: Values of the names that a text uses, and what it leaves open: filters, hidden, classes.

    Raises:
        NotationError: The text cannot be read.
        GeometryError: A layer does not fit its input; the message names the layer.
        OptionError: A variable does not fit, or a torch model came without an input size.

    >>> d = describe("lenet5")
    >>> d.totals.parameters, d["conv2"].receptive_field, d["conv2"].coverage
    (61706, (14, 14), 1.0)
    >>> from torch import nn
    >>> describe(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (3, 32, 32)).rows[1].macs
    194400
    """
    paper, notes = _on_paper(network, input_size, variables)
    found = analysis.analyse(paper, notes)
    return timed(found) if time else found


def _on_paper(
    network: Any, input_size: Sequence[int] | None, variables: dict[str, Any]
) -> tuple[Architecture, tuple[str, ...]]:
    """The architecture that is meant, and what a reader should know of it."""
    if not _is_model(network):
        return analysis.on_paper(network, input_size, variables)
    if variables:
        raise OptionError(f"a torch model has no variables; {min(variables)!r} was given. Texts have.")
    if input_size is None:
        input_size = getattr(network, "input_shape", None) if hasattr(network, "architecture") else None
    if input_size is None:
        raise OptionError("a torch model needs input_size=(channels, *spatial) of one example, as in (3, 224, 224).")
    from .tracing import trace

    traced = trace(network, input_size)
    return traced.architecture, traced.notes


def _is_model(network: Any) -> bool:
    """Whether it is a torch model that has to be traced, without importing torch for a text."""
    if not (hasattr(network, "state_dict") and hasattr(network, "forward")):
        return False
    paper = getattr(network, "architecture", None)
    return not isinstance(paper, Architecture) or not _is_as_built(network, paper)


def _is_as_built(network: Any, paper: Architecture) -> bool:
    """Whether every layer is still what its text says; layers can be replaced, and then the text is another's."""
    import torch

    from .networks import Network

    with torch.device("meta"):
        return type(network) is Network and repr(network) == repr(Network(paper))


def check(
    network: Any,
    input_size: Sequence[int] | None = None,
    *,
    object_size: int | Sequence[int] | None = None,
    **variables: Any,
) -> list[Finding]:
    """What a good reviewer would say of a network, with numbers and a fix for each: docs/lint.md lists the rules.

    Args:
        network: As in :func:`describe`.
        input_size: As in :func:`describe`.
        object_size: Of the objects to be seen, in input positions: one number, or one per axis.
        **variables: As in :func:`describe`.

    Raises:
        NotationError: The text cannot be read.
        GeometryError: A layer does not fit its input.
        OptionError: A variable does not fit, or a torch model came without an input size.

    >>> [finding.code for finding in check("INPUT 1x32x32 -> [CONV3-8 dilation=2 -> RELU]*3 -> GLOBALAVGPOOL -> FC 10")]
    ['STR011']
    """
    if not _is_model(network):
        return lint.check_paper(network, input_size, object_size=object_size, **variables)
    paper, _ = _on_paper(network, input_size, variables)
    return list(lint.findings(paper, object_size=object_size))


def timed(found: Description) -> Description:
    """The same table with the least time of each node on this machine, and the algorithm of each convolution."""
    import torch

    from . import machine

    ceilings = machine.calibrated()
    shapes = {row.name: row.output_shape for row in found.rows}
    rows = []
    for row in found.rows:
        seconds = None
        if row.macs is not None and row.moved_bytes is not None:
            seconds = ceilings.limit(torch.float32, row.macs, row.moved_bytes)[0] if row.moved_bytes else 0.0
        node = None if found.architecture is None else found.architecture[row.name]
        rows.append(replace(row, seconds=seconds, algorithm=_algorithm(node, row, shapes)))
    times = [row.seconds for row in rows]
    total = None if None in times else sum(seconds for seconds in times if seconds is not None)
    return replace(found, rows=tuple(rows), totals=replace(found.totals, seconds=total))


def _algorithm(node: Node | None, row: Row, shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Who would compute a convolution of one example."""
    if node is None or not isinstance(node.operation, Weighted):
        return None
    import torch

    from .planning import choose_all, pose

    channels, *size = shapes[node.inputs[0]]
    window = node.operation.window((channels, *size))
    problem = pose(window, 1, channels, row.output_shape[0], tuple(size), torch.float32, "cpu", "channels_first")
    return str(choose_all(problem, None).forward.algorithm)
