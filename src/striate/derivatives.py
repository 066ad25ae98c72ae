"""Which rule takes δ back through which kind of layer: joins, activations, normalisations, and the table of all.

What the table does not name has no rule here; a lesson says so and asks automatic differentiation instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import operations as paper
from .backpropagation import (
    Gradients,
    Layer,
    bias_gradient,
    border_of,
    conv_delta,
    conv_gradients,
    deconv_delta,
    deconv_gradients,
    folded,
    largest_cells_delta,
    largest_delta,
    local_delta,
    local_gradients,
    mean_cells_delta,
    mean_delta,
    unpool_delta,
)
from .geometry import Axis
from .operations import Operation

Pull = Callable[[Layer, Tensor], list[Tensor]]


@dataclass(frozen=True)
class Rule:
    """How a kind of layer computes, and how δ goes through it.

    Args:
        forward: Its formula: x is what it reads, z what it gives.
        back: δ of what it reads, in words of the notes; ``{me}`` stands for the layer's name.
        pull: The same, computed.
        gradients: For each learned tensor its formula and its gradient.
    """

    forward: str
    back: str
    pull: Pull
    gradients: Callable[[Layer, Tensor], Gradients] = lambda layer, delta: {}


# ----------------------------------------------------------------------------------------------- fully connected, joins


def _fc(layer: Layer, delta: Tensor) -> list[Tensor]:
    return [(delta @ layer.learned("weight")).view_as(layer.x)]


def _fc_gradients(layer: Layer, delta: Tensor) -> Gradients:
    return {"weight": ("∂L/∂W = δ xᵀ", delta.T @ layer.x.flatten(1))} | bias_gradient(layer, delta)


def _rbf(layer: Layer, delta: Tensor) -> list[Tensor]:
    apart = layer.x.flatten(1)[:, None] - layer.module.get_buffer("codes")
    return [(-2 * delta[..., None] * apart).sum(1).view_as(layer.x)]


def shrunk(delta: Tensor, like: Tensor) -> Tensor:
    """δ of a map that was repeated at all positions: the sum over them."""
    shape = (*like.shape, *(1 for _ in delta.shape[like.dim() :]))
    repeated = [number for number, (n, m) in enumerate(zip(delta.shape, shape, strict=True)) if n != m]
    return (delta.sum(repeated, keepdim=True) if repeated else delta).view_as(like)


def _sum(layer: Layer, delta: Tensor) -> list[Tensor]:
    return [shrunk(delta, x) for x in layer.inputs]


def _product(layer: Layer, delta: Tensor) -> list[Tensor]:
    wide = [x.view(*x.shape, *(1 for _ in delta.shape[x.dim() :])) for x in layer.inputs]
    others = [math.prod(wide[:i] + wide[i + 1 :], start=torch.ones_like(delta)) for i in range(len(wide))]
    return [shrunk(delta * other, x) for other, x in zip(others, layer.inputs, strict=True)]


def _concat(layer: Layer, delta: Tensor) -> list[Tensor]:
    return list(delta.split([x.shape[1] for x in layer.inputs], 1))


def _moved(layer: Layer, delta: Tensor) -> list[Tensor]:
    """Layers that only move values are asked where the number of each place goes, and δ goes back there."""
    numbers = torch.arange(layer.x[0].numel(), dtype=torch.float64).view(1, *layer.x.shape[1:])
    with torch.no_grad():
        came_from = layer.module(numbers).long().flatten()
    back = torch.zeros_like(layer.x).flatten(1)
    return [back.index_add_(1, came_from, delta.flatten(1)).view_as(layer.x)]


def _pad(layer: Layer, delta: Tensor) -> list[Tensor]:
    pairs = layer.operation.pairs(tuple(layer.x.shape[1:]))
    axes = [Axis(1, before=before, after=after) for before, after in pairs]
    return [folded(delta, axes, layer.x.shape[2:], border_of(layer))]


# ---------------------------------------------------------------------------------------- activations and normalisation


def _dropout(layer: Layer, delta: Tensor) -> list[Tensor]:
    return [delta if layer.kept is None else delta * layer.kept]


def _softmax(layer: Layer, delta: Tensor) -> list[Tensor]:
    s = layer.output
    return [s * (delta - (s * delta).sum(1, keepdim=True))]


def _maxout(layer: Layer, delta: Tensor) -> list[Tensor]:
    pieces = layer.x.unflatten(1, (-1, layer.operation.pieces))
    found = pieces == pieces.amax(2, keepdim=True)
    return [(delta.unsqueeze(2) * (found & (found.cumsum(2) == 1))).flatten(1, 2)]


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """One number for each channel beside ``(N, C, *spatial)``."""
    return values.view(-1, *(1 for _ in like.shape[2:]))


def _over_all_but_channels(values: Tensor) -> Tensor:
    return values.sum([number for number in range(values.dim()) if number != 1])


def _prelu_gradients(layer: Layer, delta: Tensor) -> Gradients:
    return {"weight": ("∂L/∂W = sum of δ x over x < 0", _over_all_but_channels(delta * layer.x.clamp(max=0)))}


def _scale(layer: Layer, delta: Tensor) -> list[Tensor]:
    return [delta * per_channel(layer.learned("weight"), delta)]


def _scale_gradients(layer: Layer, delta: Tensor) -> Gradients:
    found = {"weight": ("∂L/∂W = sum of δ x", _over_all_but_channels(delta * layer.x))}
    return found | ({"bias": ("∂L/∂b = sum of δ", _over_all_but_channels(delta))} if layer.has_bias else {})


def _nothing(layer: Layer, delta: Tensor) -> Gradients:
    return {}


@dataclass(frozen=True)
class Standard:
    """Values brought to mean 0 and variance 1 over some of the axes; ``fixed`` is the running mean and variance.

    x̂ = (x - mean) / sqrt(variance + eps)
    """

    x: Tensor
    over: tuple[int, ...]
    eps: float
    fixed: tuple[Tensor, Tensor] | None = None

    @property
    def deviation(self) -> Tensor:
        """The square root."""
        variance = self.x.var(self.over, correction=0, keepdim=True) if self.fixed is None else self.fixed[1]
        return (variance + self.eps).sqrt()

    @property
    def values(self) -> Tensor:
        """x̂."""
        mean = self.x.mean(self.over, keepdim=True) if self.fixed is None else self.fixed[0]
        return (self.x - mean) / self.deviation

    def back(self, delta: Tensor) -> Tensor:
        """δ of x̂ to δ of x; mean and variance depend on x, too, unless they are fixed."""
        if self.fixed is not None:
            return delta / self.deviation
        along = (delta * self.values).mean(self.over, keepdim=True)
        return (delta - delta.mean(self.over, keepdim=True) - self.values * along) / self.deviation


def _standard(layer: Layer) -> tuple[Standard, tuple[int, ...]]:
    """How a layer normalises, and the shape in which it does."""
    x, operation, module = layer.x, layer.operation, layer.module
    positions = tuple(range(2, x.dim()))
    if isinstance(operation, paper.LayerNorm):
        return Standard(x, (1,), operation.eps), tuple(x.shape)
    if isinstance(operation, paper.GroupNorm):
        parts = x.unflatten(1, (operation.groups, -1))
        return Standard(parts, tuple(range(2, parts.dim())), float(module.eps)), tuple(parts.shape)  # type: ignore[arg-type]
    if isinstance(operation, paper.InstanceNorm):
        return Standard(x, positions, float(module.eps)), tuple(x.shape)  # type: ignore[arg-type]
    fixed = None
    if not module.training:
        fixed = (per_channel(module.get_buffer("running_mean"), x), per_channel(module.get_buffer("running_var"), x))
    return Standard(x, (0, *positions), operation.eps, fixed), tuple(x.shape)


def _affine(layer: Layer) -> bool:
    return getattr(layer.module, "weight", None) is not None


def _norm(layer: Layer, delta: Tensor) -> list[Tensor]:
    standard, shape = _standard(layer)
    inner = delta * per_channel(layer.learned("weight"), delta) if _affine(layer) else delta
    return [standard.back(inner.view(shape)).view_as(layer.x)]


def _norm_gradients(layer: Layer, delta: Tensor) -> Gradients:
    if not _affine(layer):
        return {}
    values = _standard(layer)[0].values.view_as(layer.x)
    return {
        "weight": ("∂L/∂γ = sum of δ x̂", _over_all_but_channels(delta * values)),
        "bias": ("∂L/∂β = sum of δ", _over_all_but_channels(delta)),
    }


def neighbours(x: Tensor, before: int, after: int) -> Tensor:
    """Sums over neighbouring channels.

    >>> neighbours(torch.tensor([[1.0, 2.0, 4.0]]), 1, 0)
    tensor([[1., 3., 6.]])
    """
    channels = x.shape[1]
    rows = [x[:, max(0, c - before) : c + after + 1].sum(1) for c in range(channels)]
    return torch.stack(rows, 1)


def _lrn(layer: Layer, delta: Tensor) -> list[Tensor]:
    """Of its own power, and of the powers of its neighbours, in which its square stands."""
    o, x = layer.operation, layer.x
    before, after = o.size // 2, (o.size - 1) // 2
    s = o.k + o.alpha / o.size * neighbours(x.square(), before, after)
    others = neighbours(delta * x * s ** (-o.beta - 1), after, before)
    return [delta * s**-o.beta - 2 * o.alpha * o.beta / o.size * x * others]


# ---------------------------------------------------------------------------------------------------------- activations


def _where(condition: Tensor, value: float | Tensor) -> Tensor:
    """1 where the condition holds, the value elsewhere."""
    return torch.ones_like(condition, dtype=torch.float64).where(condition, torch.as_tensor(value, dtype=torch.float64))


def _normal(x: Tensor) -> Tensor:
    """The standard normal distribution's function."""
    return (1 + torch.erf(x / math.sqrt(2))) / 2


def _bell(x: Tensor) -> Tensor:
    """The standard normal distribution's density."""
    return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)


def _hardswish(layer: Layer) -> Tensor:
    ramp = layer.x / 3 + 0.5
    return ramp.where(layer.x <= 3, torch.ones_like(ramp)).masked_fill(layer.x < -3, 0.0)


# For each activation its formula, its derivative in words, and its derivative.
DERIVATIVES: dict[type[Operation], tuple[str, str, Callable[[Layer], Tensor]]] = {
    paper.ReLU: ("max(x, 0)", "[x > 0]", lambda a: _where(a.x > 0, 0.0)),
    paper.ReLU6: ("min(max(x, 0), 6)", "[0 < x < 6]", lambda a: _where((a.x > 0) & (a.x < 6), 0.0)),
    paper.LeakyReLU: ("x, or slope x below 0", "1, or slope", lambda a: _where(a.x > 0, a.operation.slope)),
    paper.PReLU: (
        "x, or w x below 0",
        "1, or w",
        lambda a: _where(a.x > 0, per_channel(a.learned("weight"), a.x).expand_as(a.x)),
    ),
    paper.ELU: ("x, or exp(x) - 1 below 0", "1, or exp(x)", lambda a: _where(a.x > 0, a.x.exp())),
    paper.GELU: ("x Φ(x)", "(Φ(x) + x φ(x))", lambda a: _normal(a.x) + a.x * _bell(a.x)),
    paper.SiLU: (
        "x σ(x)",
        "σ(x) (1 + x (1 - σ(x)))",
        lambda a: a.x.sigmoid() * (1 + a.x * (1 - a.x.sigmoid())),
    ),
    paper.HardSwish: ("x min(max(x + 3, 0), 6) / 6", "(x / 3 + 1 / 2), or 0, or 1", _hardswish),
    paper.HardSigmoid: (
        "min(max(x + 3, 0), 6) / 6",
        "1/6 [-3 < x < 3]",
        lambda a: _where((a.x > -3) & (a.x < 3), 0.0) / 6,
    ),
    paper.Tanh: ("tanh(x)", "(1 - z²)", lambda a: 1 - a.output.square()),
    paper.Sigmoid: ("σ(x)", "z (1 - z)", lambda a: a.output * (1 - a.output)),
}


def _through(derivative: Callable[[Layer], Tensor]) -> Pull:
    return lambda layer, delta: [delta * derivative(layer)]


def _activation(kind: type[Operation]) -> Rule:
    formula, words, derivative = DERIVATIVES[kind]
    gradients = _prelu_gradients if kind is paper.PReLU else _nothing
    return Rule(f"z = {formula}", f"δ({{me}}) ∘ {words}", _through(derivative), gradients)


# ----------------------------------------------------------------------------------------------- the table of all rules

LARGEST = Rule("z = largest of each window", "δ({me}) at the largest of each window", largest_delta)
MEAN = Rule("z = mean of each window", "upsample(δ({me}) / area)", mean_delta)
LARGEST_CELL = Rule("z = largest of each cell", "δ({me}) at the largest of each cell", largest_cells_delta)
MEAN_CELL = Rule("z = mean of each cell", "upsample(δ({me}) / area)", mean_cells_delta)
MOVED = Rule("z = x, in other places", "δ({me}), back in its places", _moved)
CONV = Rule("z = W ⋆ x + b", "δ({me}) * rot180(W)", conv_delta, conv_gradients)
LOCAL = Rule("z = W at each position ⋆ x + b", "Wᵀ δ({me}) at each position", local_delta, local_gradients)
NORM = Rule("z = γ x̂ + β", "(γδ({me}) - mean γδ({me}) - x̂ mean(γδ({me}) x̂)) / deviation", _norm, _norm_gradients)

RULES: dict[type[Operation], Rule] = {
    paper.Input: Rule("z = x", "δ({me})", lambda layer, delta: []),
    **{kind: _activation(kind) for kind in DERIVATIVES},
    paper.Conv: CONV,
    paper.DepthwiseConv: CONV,
    paper.TransposedConv: Rule("z = W written at each x, + b", "W ⋆ δ({me})", deconv_delta, deconv_gradients),
    paper.LocalConv: LOCAL,
    paper.TiledConv: LOCAL,
    paper.Pool: LARGEST,
    paper.AvgPool: MEAN,
    paper.GlobalPool: LARGEST_CELL,
    paper.AdaptivePool: LARGEST_CELL,
    paper.GlobalAvgPool: MEAN_CELL,
    paper.AdaptiveAvgPool: MEAN_CELL,
    paper.Unpool: Rule("z = x where the largest were", "δ({me}) read there", unpool_delta),
    paper.FC: Rule("z = W x + b", "Wᵀ δ({me})", _fc, _fc_gradients),
    paper.RBF: Rule("z = -sum (x - code)²", "sum of -2 (x - code) δ({me})", _rbf),
    paper.Flatten: Rule("z = x in one row", "δ({me}) in the shape of x", _moved),
    paper.Sum: Rule("z = sum of branches", "δ({me})", _sum),
    paper.Product: Rule("z = product of branches", "δ({me}) ∘ the other branches", _product),
    paper.Concat: Rule("z = branches' channels", "channels of δ({me})", _concat),
    paper.Dropout: Rule("z = mask ∘ x", "mask ∘ δ({me})", _dropout),
    paper.Softmax: Rule("z = softmax(x)", "z ∘ (δ({me}) - sum z δ({me}))", _softmax),
    paper.Maxout: Rule("z = largest of the pieces", "δ({me}) at the largest piece", _maxout),
    paper.Scale: Rule("z = w x + b", "w δ({me})", _scale, _scale_gradients),
    paper.BatchNorm: NORM,
    paper.LayerNorm: NORM,
    paper.GroupNorm: NORM,
    paper.InstanceNorm: NORM,
    paper.LocalResponseNorm: Rule(
        "z = x s^-β, s = k + α/n sum x²", "δ({me}) s^-β - 2αβ/n x sum of δ({me}) x s^(-β-1)", _lrn
    ),
    paper.Pad: Rule("z = x with a border", "δ({me}) without it, copies added", _pad),
    **dict.fromkeys((paper.Shuffle, paper.Channels, paper.PixelShuffle, paper.PixelUnshuffle, paper.Crop), MOVED),
}


def rule_of(layer: Layer) -> Rule | None:
    """How δ goes through a layer; None if no formula is known here."""
    operation = layer.operation
    if isinstance(operation, paper.Interpolation):
        return MOVED if operation.mode == "nearest" else None
    if isinstance(operation, paper.BatchNorm) and not layer.module.training:
        return replace(NORM, back="γ δ({me}) / deviation")
    if isinstance(operation, paper.Conv | paper.DepthwiseConv) and any(axis.stride > 1 for axis in layer.axes):
        return replace(CONV, back="dilate(δ({me})) * rot180(W)")
    return RULES.get(type(operation))
