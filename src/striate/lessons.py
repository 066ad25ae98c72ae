"""One step of gradient descent, told number by number.

Activations, the loss, δ of every layer by the recursion of :mod:`striate.derivatives`, gradients and the update. Each
number of the way back stands beside what automatic differentiation says.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import notation, tables
from . import operations as paper
from .arithmetic import written_out
from .backpropagation import Layer
from .derivatives import rule_of
from .errors import GeometryError, OptionError, unknown_name
from .networks import Network, program
from .operations import written
from .spelling import text as spelled
from .splits import IGNORED

LOSSES = {
    "softmax": ("-log softmax(z)[y]", "softmax(z) - y"),
    "svm": ("sum over j ≠ y of max(0, z_j - z_y + 1)", "1 where z_j - z_y + 1 > 0, minus their number at y"),
    "mse": ("mean of (z - t)²", "2 (z - t) / classes"),
}
FEW = 9
"""So many numbers are shown one by one; of more, their mean, least and largest."""
TOLERANCE = 1e-9
NO_FORMULA = "by autograd: no formula in this lesson"
LEGEND = (
    "δ * rot180(W): the kernel, turned by 180°, slides over δ with zeros around it; dilate puts stride - 1 zeros "
    "between its values.\n⋆ slides without turning, ∘ multiplies place by place, upsample repeats."
)


@dataclass(frozen=True)
class Gradient:
    """A learned tensor in the step.

    Args:
        parameter: Its name in the network.
        formula: Of its gradient.
        before: Its values.
        gradient: Of the loss.
        after: ``before - learning rate * gradient``.
        difference: The largest one between this gradient and autograd's.
    """

    parameter: str
    formula: str
    before: Tensor
    gradient: Tensor
    after: Tensor
    difference: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        tensors = {name: _summary(getattr(self, name)) for name in ("before", "gradient", "after")}
        return {"parameter": self.parameter, "formula": self.formula, "difference": self.difference} | tensors


@dataclass(frozen=True)
class Row:
    """A layer in the step.

    Args:
        name: Of the layer.
        text: What it is in the notation.
        formula: What it computes: x is what it reads, z its output.
        reads: Names of the layers that it reads.
        output: z, ``(N, C, *spatial)``.
        delta: δ, the derivative of the loss by z.
        origin: How δ came from the layers behind, or from the loss.
        difference: The largest one between δ and autograd's; None where it is autograd's own.
        gradients: Of its learned tensors.
    """

    name: str
    text: str
    formula: str
    reads: tuple[str, ...]
    output: Tensor
    delta: Tensor
    origin: str
    difference: float | None
    gradients: tuple[Gradient, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain = {name: getattr(self, name) for name in ("name", "text", "formula", "origin", "difference")}
        tensors = {name: _summary(getattr(self, name)) for name in ("output", "delta")}
        gradients = [one.to_dict() for one in self.gradients]
        return plain | tensors | {"reads": [*self.reads], "gradients": gradients}


@dataclass(frozen=True)
class Trace:
    """A step of gradient descent; print it to read it.

    Args:
        network: Its text.
        loss: Which one.
        examples: How many the loss is the mean of.
        value: The loss.
        after: The loss of the same examples after the update.
        learning_rate: Of the update.
        rows: One for each layer, in order, the input first.
        left_out: Auxiliary outputs that have no part in this loss.
        detail: The arithmetic of one δ, if it was asked for.
    """

    network: str
    loss: str
    examples: int
    value: float
    after: float
    learning_rate: float
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()
    detail: str = ""

    def __getitem__(self, name: str) -> Row:
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            raise unknown_name("layer", name, (row.name for row in self.rows))
        return found

    @property
    def gradients(self) -> tuple[Gradient, ...]:
        """Of all learned tensors, in order."""
        return tuple(one for row in self.rows for one in row.gradients)

    @property
    def _checked(self) -> list[tuple[Tensor, float]]:
        """Every tensor of the way back that was compared, and its difference."""
        deltas = [(row.delta, row.difference) for row in self.rows if row.difference is not None]
        return [*deltas, *((one.gradient, one.difference) for one in self.gradients)]

    @property
    def largest_difference(self) -> float:
        """The largest difference between a number of the recursion and autograd's."""
        return max((apart for _, apart in self._checked), default=0.0)

    @property
    def agrees(self) -> bool:
        """Whether the recursion gives what autograd gives, up to rounding in float64."""
        sizes = [(tensor.abs().max().item(), apart) for tensor, apart in self._checked]
        largest = max((size for size, _ in sizes), default=0.0)
        return all(apart <= TOLERANCE * (size + largest / 1000) for size, apart in sizes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; of tensors that are not small, shape and statistics."""
        names = ("network", "loss", "examples", "value", "after", "learning_rate", "largest_difference", "agrees")
        plain = {name: getattr(self, name) for name in names}
        return plain | {
            "rows": [row.to_dict() for row in self.rows],
            "left_out": [*self.left_out],
            "detail": self.detail,
        }

    def __str__(self) -> str:
        formula, _ = LOSSES[self.loss]
        mean = "" if self.examples == 1 else f", mean over {self.examples}"
        parts = [
            f"Forwards: z is what a layer gives, x what it reads\n\n{_table(map(self._forward_cells, self.rows))}",
            f"Loss {self.loss}: L = {formula}{mean} = {self.value:.6g}",
            f"Backwards: δ = ∂L/∂z\n\n{_table(map(self._backward_cells, reversed(self.rows)))}",
            LEGEND,
        ]
        if self.gradients:
            parts.append(
                f"Update: w - {self.learning_rate:g} ∂L/∂w\n\n{_table(map(self._gradient_cells, self.gradients))}"
            )
        return "\n\n".join([*parts, self._verdict(), *([self.detail] if self.detail else [])])

    def _forward_cells(self, row: Row) -> dict[str, str]:
        size = written(row.output.shape[1:])
        return {"layer": row.name, "what": row.text, "formula": row.formula, "output": size, "z": shown(row.output)}

    def _backward_cells(self, row: Row) -> dict[str, str]:
        return {"layer": row.name, "δ is": row.origin, "δ": shown(row.delta), "autograd": _apart(row.difference)}

    def _gradient_cells(self, one: Gradient) -> dict[str, str]:
        w, g, after = (tensor.flatten()[0].item() for tensor in (one.before, one.gradient, one.after))
        return {
            "w": one.parameter,
            "gradient is": one.formula,
            "shape": written(one.gradient.shape),
            "∂L/∂w": shown(one.gradient),
            "the first": f"{w:.4g} - {self.learning_rate:g} * {g:.4g} = {after:.4g}",
            "autograd": _apart(one.difference),
        }

    def _verdict(self) -> str:
        unchecked = [row.name for row in self.rows if row.difference is None]
        what = f"Every gradient, and every δ but of {', '.join(unchecked)}," if unchecked else "Every δ and gradient"
        apart = f"within {self.largest_difference:.1e} of" if self.largest_difference else "exactly that of"
        wrong = "" if self.agrees else ": TOO FAR, one of the two is wrong"
        lines = [
            f"{what} is {apart} automatic differentiation{wrong}.",
            f"After the update the loss of the same examples is {self.after:.6g}.",
        ]
        if self.left_out:
            lines.append(f"The loss is that of the main output; left out: {', '.join(self.left_out)}.")
        return "\n".join(lines)


def shown(values: Tensor) -> str:
    """A few numbers one by one, rows apart; of more, statistics.

    >>> shown(torch.tensor([0.5, -2.0])), shown(torch.tensor([[1, 2], [3, 4]])), shown(torch.arange(11.0))
    ('0.5 -2', '1 2 | 3 4', 'mean 5, from 0 to 10')
    """
    if values.numel() <= FEW:
        rows = values.flatten(1) if values.dim() > 1 else values[None]
        return " | ".join(" ".join(f"{value:.4g}" for value in row) for row in rows.tolist())
    return f"mean {values.mean().item():.3g}, from {values.min().item():.3g} to {values.max().item():.3g}"


def _summary(values: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": [*values.shape]}
    found |= {"mean": values.mean().item(), "min": values.min().item(), "max": values.max().item()}
    return found | ({"values": values.tolist()} if values.numel() <= 8 * 8 else {})


def _apart(difference: float | None) -> str:
    return "its own" if difference is None else f"{difference:.0e}" if difference else "same"


def _table(rows: Any) -> str:
    cells = list(rows)
    return "\n".join(tables.aligned(cells, list(cells[0])))


# ------------------------------------------------------------------------------------------------------------- the step


def trace(
    network: Network,
    x: Tensor,
    target: Tensor,
    loss: str = "softmax",
    learning_rate: float = 0.1,
    *,
    detail: str | None = None,
) -> Trace:
    """One step of gradient descent on some examples, in float64, told layer by layer; the network stays as it is.

        forwards    z of every layer, then the loss L, the mean over the examples
        backwards   δ = ∂L/∂z of every layer, from that of the layers that read it
        gradients   from what a layer reads and its δ
        update      w - learning_rate * ∂L/∂w

    In training, as a network is when it is new, batch normalisation takes its statistics from the examples, and a
    dropout draws one mask, always the same.

    Args:
        network: With its weights.
        x: Examples ``(N, C, *spatial)``.
        target: Class numbers ``(N,)``, or ``(N, *spatial)`` for a network of maps; in uint8, 255 does not count. For
            "mse" also numbers of the shape of the network's output.
        loss: "softmax", "svm" or "mse".
        learning_rate: Of the update.
        detail: A layer of at most 8 positions an axis: the arithmetic of its largest δ is written out.

    Raises:
        GeometryError: The examples do not fit the network.
        OptionError: The target does not fit, or the detail would be too large.
        UnknownNameError: No such loss or layer.

    >>> from striate.networks import network
    >>> net = network("INPUT 1x4x4 -> CONV3-2 -> RELU -> POOL -> FC 2")
    >>> step = trace(net, torch.ones(1, 1, 4, 4), torch.tensor([1]))
    >>> step.agrees, [row.name for row in step.rows], step["pool1"].origin
    (True, ['input', 'conv1', 'relu1', 'pool1', 'fc1'], 'Wᵀ δ(fc1)')
    """
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    wide = _prepared(network, x)
    masks: dict[str, Tensor] = {}
    examples = x.detach().cpu().double()
    values = _run(wide, examples.clone().requires_grad_(), masks)
    result = network.architecture.results[0]
    scores = values[result].output
    goal = _goal(target.detach().cpu(), scores, loss)
    reference = _autograd(wide, values, REFERENCES[loss](goal.counted(scores), goal.rows) / goal.count)
    layers = {name: _detached(layer) for name, layer in values.items()}
    value, delta = _loss(scores.detach(), goal, loss)
    rows = _backwards(layers, (result, delta, goal.origin(loss)), learning_rate, reference)
    arithmetic = "" if detail is None else written_out(layers, {row.name: row.delta for row in rows}, detail)
    with torch.no_grad():
        for one in (one for row in rows for one in row.gradients):
            wide.get_parameter(one.parameter).copy_(one.after)
        after, _ = _loss(_run(wide, examples, masks)[result].output, goal, loss)
    return Trace(
        network=notation.format(network.architecture),
        loss=loss,
        examples=len(x),
        value=value,
        after=after,
        learning_rate=learning_rate,
        rows=rows,
        left_out=network.architecture.results[1:] if network.training else (),
        detail=arithmetic,
    )


def _prepared(network: Network, x: Tensor) -> Network:
    """A copy in float64 in which no layer overwrites what another one needs."""
    wanted = network.input_shape
    if x.dim() != len(wanted) + 1 or x.shape[1] != wanted[0] or not (network.any_size or x.shape[1:] == wanted):
        raise GeometryError(
            f"trace takes examples of shape (N, {', '.join(map(str, wanted))}), got {tuple(x.shape)}; "
            "one example is x.unsqueeze(0)."
        )
    wide = copy.deepcopy(network).cpu().double()
    for module in wide.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010  (not every module has it)
    return wide.requires_grad_()


def _run(network: Network, x: Tensor, masks: dict[str, Tensor]) -> dict[str, Layer]:
    """Every layer's inputs and output, on the way to the main output."""
    architecture = network.architecture
    first = architecture.nodes[0]
    found = {first.name: Layer(first.name, first.operation, network, (), (), x)}
    switches: dict[str, Any] = {}
    for step in program(architecture, architecture.results[:1]):
        node, module = architecture[step.name], network.get_submodule(step.name)
        reads = tuple(name for name in step.inputs if name in found)
        inputs = tuple(found[name].output for name in reads)
        kept: Any = switches[step.inputs[1]] if isinstance(node.operation, paper.Unpool) else None
        if isinstance(node.operation, paper.Dropout) and module.training:
            kept = masks.setdefault(step.name, _mask(inputs[0], node.operation.p))
            output = inputs[0] * kept
        elif isinstance(node.operation, paper.HardSigmoid):
            output = (inputs[0] + 3).clamp(0, 6) / 6  # PyTorch's own derivative has its 1/6 in float32
        else:
            output = _called(step.name, module, [*inputs, *([] if kept is None else [kept])])
        if step.switches:
            switches[step.switches] = (output[1], inputs[0].shape[2:])
            output = output[0]
        # A view, so that a layer that passes its input on has an output of its own to differentiate by.
        found[step.name] = Layer(step.name, node.operation, module, reads, inputs, output.view_as(output), kept)
    return found


def _called(name: str, module: Any, inputs: list[Any]) -> Any:
    try:
        return module(*inputs)
    except ValueError as error:
        if isinstance(error, GeometryError):
            raise
        raise OptionError(f"{name} cannot compute a step: {error}; give more examples, or network.eval().") from None


def _mask(x: Tensor, p: float) -> Tensor:
    draw = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (draw >= p).double() / (1 - p)


def _flat(scores: Tensor) -> Tensor:
    """Scores as rows of classes: one for each example, or for each of its positions."""
    return scores.movedim(1, -1).reshape(-1, scores.shape[1])


@dataclass(frozen=True)
class Goal:
    """What the scores are to become.

    Args:
        counting: Which rows of the scores count.
        rows: Of these, class numbers ``(rows,)``, or the numbers to come near to, ``(rows, classes)``.
    """

    counting: Tensor
    rows: Tensor

    @property
    def count(self) -> int:
        """What the sum over the rows is divided by; where nothing counts, the loss is 0."""
        return max(1, len(self.rows))

    def counted(self, scores: Tensor) -> Tensor:
        """The rows of the scores that count."""
        return _flat(scores)[self.counting]

    def origin(self, loss: str) -> str:
        """Where the δ of the scores comes from."""
        formula = LOSSES[loss][1]
        mean = formula if self.count == 1 else f"({formula}) / {self.count}"
        return mean if self.counting.all() else f"{mean}, 0 where y is {IGNORED}"


def _goal(target: Tensor, scores: Tensor, loss: str) -> Goal:
    if loss == "mse" and target.is_floating_point():
        if target.shape != scores.shape:
            raise OptionError(f"target: mse compares {tuple(scores.shape)} outputs, got {tuple(target.shape)}.")
        rows = _flat(target.double())
        return Goal(torch.ones(len(rows), dtype=torch.bool), rows)
    wanted = (len(scores), *scores.shape[2:])
    if target.is_floating_point() or tuple(target.shape) != wanted:
        raise OptionError(f"target: {loss} takes class numbers {wanted}, got {target.dtype} {tuple(target.shape)}.")
    flat = target.long().flatten()
    counting = flat != IGNORED if target.dtype == torch.uint8 else torch.ones_like(flat, dtype=torch.bool)
    flat = flat[counting]
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < scores.shape[1]:
        outside = int(flat.min()) if flat.min() < 0 else int(flat.max())
        raise OptionError(f"target: there is no class {outside}; the network gives {scores.shape[1]}, from 0.")
    return Goal(counting, F.one_hot(flat, scores.shape[1]).double() if loss == "mse" else flat)


def _loss(scores: Tensor, goal: Goal, loss: str) -> tuple[float, Tensor]:
    """The loss and its derivative by the scores, each by its formula."""
    s, target = goal.counted(scores), goal.rows
    rows = torch.arange(len(s))
    if loss == "mse":
        value, delta = (s - target).square().mean(1), 2 * (s - target) / s.shape[1]
    elif loss == "svm":
        margins = s - s[rows, target][:, None] + 1
        margins[rows, target] = 0
        value, delta = margins.clamp(min=0).sum(1), (margins > 0).double()
        delta[rows, target] = -delta.sum(1)
    else:
        powers = (s - s.amax(1, keepdim=True)).exp()
        delta = powers / powers.sum(1, keepdim=True)
        value = -delta[rows, target].log()
        delta[rows, target] -= 1
    whole = torch.zeros_like(_flat(scores))
    whole[goal.counting] = delta / goal.count
    shape = (len(scores), *scores.shape[2:], scores.shape[1])
    return value.sum().item() / goal.count, whole.view(shape).movedim(-1, 1)


REFERENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": lambda s, target: F.cross_entropy(s, target, reduction="sum"),
    "svm": lambda s, target: F.multi_margin_loss(s, target, reduction="sum") * s.shape[1],
    "mse": lambda s, target: F.mse_loss(s, target, reduction="sum") / s.shape[1],
}


def _autograd(network: Network, layers: dict[str, Layer], loss: Tensor) -> dict[str, Tensor]:
    """The loss's derivative by every layer's output and every parameter."""
    wanted = {name: layer.output for name, layer in layers.items()} | dict(network.named_parameters())
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    given: list[Tensor | None] = list(found)
    return {name: torch.zeros_like(by) if d is None else d for (name, by), d in zip(wanted.items(), given, strict=True)}


def _backwards(
    layers: dict[str, Layer], start: tuple[str, Tensor, str], learning_rate: float, reference: dict[str, Tensor]
) -> tuple[Row, ...]:
    """From δ of the output through all layers; of one that several layers read, δ is the sum of what they give back."""
    deltas = {name: torch.zeros_like(layer.output) for name, layer in layers.items()}
    origins: dict[str, list[str]] = {name: [] for name in layers}
    foreign: set[str] = set()
    name, delta, origin = start
    deltas[name] += delta
    origins[name].append(origin)
    rows = []
    for layer in reversed(layers.values()):
        delta, rule = deltas[layer.name], rule_of(layer)
        origin = f"through {layer.name} {NO_FORMULA}" if rule is None else rule.back.format(me=layer.name)
        backs = _product(layer, delta) if rule is None else rule.pull(layer, delta) if layer.reads else ()
        for source, back in zip(layer.reads, backs, strict=True):
            deltas[source] = deltas[source] + back
            origins[source].append(origin)
            foreign.update([source] if rule is None else [])
        found = {} if rule is None else rule.gradients(layer, delta)
        row = Row(
            name=layer.name,
            text=spelled(layer.operation),
            formula=NO_FORMULA if rule is None else rule.forward,
            reads=layer.reads,
            output=layer.output,
            delta=delta,
            origin=" + ".join(origins[layer.name]),
            difference=None if layer.name in foreign else _difference(delta, reference[layer.name]),
            gradients=tuple(_gradient(layer, own, *one, learning_rate, reference) for own, one in found.items()),
        )
        rows.append(row)
    return tuple(reversed(rows))


def _gradient(
    layer: Layer, own: str, formula: str, gradient: Tensor, learning_rate: float, reference: dict[str, Tensor]
) -> Gradient:
    name, before = f"{layer.name}.{own}", layer.learned(own).clone()
    difference = _difference(gradient, reference[name])
    return Gradient(name, formula, before, gradient, before - learning_rate * gradient, difference)


def _detached(layer: Layer) -> Layer:
    """The layer's numbers without the graph that autograd keeps."""
    return replace(layer, inputs=tuple(x.detach() for x in layer.inputs), output=layer.output.detach())


def _product(layer: Layer, delta: Tensor) -> tuple[Tensor, ...]:
    """δ times the layer's Jacobian, by automatic differentiation."""
    inputs = [x.clone().requires_grad_() for x in layer.inputs]
    return torch.autograd.grad(layer.module(*inputs), inputs, delta)


def _difference(found: Tensor, wanted: Tensor) -> float:
    apart = (found - wanted).abs().max().item()
    return apart if math.isfinite(apart) else math.inf
