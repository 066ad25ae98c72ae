"""The recursion of backpropagation, layer by layer, in plain tensor operations.

δ of a layer is the derivative of the loss by the layer's output. A rule takes δ of a layer to δ of what the layer read,
and to the gradients of its weights. This is the textbook's arithmetic, written to be read and to check others by: it
asks neither automatic differentiation nor the convolutions of this package. (D. Rumelhart, G. Hinton and R. Williams,
"Learning representations by back-propagating errors", 1986; for convolutions, I. Goodfellow, Y. Bengio and
A. Courville, "Deep Learning", 2016, section 9.5.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from .geometry import Axis

Gradients = dict[str, tuple[str, Tensor]]


@dataclass(frozen=True)
class Layer:
    """One layer in the middle of a step.

    Args:
        name: Of its node.
        operation: What it does.
        module: Its weights.
        reads: Names of the layers whose outputs it read.
        inputs: These outputs, each ``(N, C, *spatial)``.
        output: What it gave.
        kept: What else its derivative needs: the mask of a dropout, the switches of an unpooling.
    """

    name: str
    operation: Any
    module: nn.Module
    reads: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    output: Tensor
    kept: Any = None

    @property
    def x(self) -> Tensor:
        """What it read first."""
        return self.inputs[0]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Its sliding window."""
        return self.operation.window(tuple(self.x.shape[1:])).axes

    def learned(self, name: str) -> Tensor:
        """A parameter by its name."""
        return self.module.get_parameter(name).detach()

    @property
    def has_bias(self) -> bool:
        """Whether it adds one."""
        return getattr(self.module, "bias", None) is not None


# -------------------------------------------------------------------------------------------------- windows on any axes


def at(*places: Any) -> Any:
    """An index of the last axes.

    >>> torch.arange(6).view(2, 3)[at(slice(2))]
    tensor([[0, 1],
            [3, 4]])
    """
    return (..., *places)


def sources(size: int, axis: Axis, border: str = "zeros") -> Tensor:
    """Which input position stands at each padded one; -1 where none does.

    >>> sources(3, Axis(1, before=2, after=1)).tolist(), sources(3, Axis(1, before=2, after=1), "reflect").tolist()
    ([-1, -1, 0, 1, 2, -1], [2, 1, 0, 1, 2, 1])
    """
    place = torch.arange(-axis.before, size + axis.after)
    if border == "replicate":
        return place.clamp(0, size - 1)
    if border == "circular":
        return place % size
    if border == "reflect":
        around = place % max(1, 2 * size - 2)
        return around.minimum(2 * size - 2 - around)
    return place.where((place >= 0) & (place < size), -1)


def extended(x: Tensor, axes: Sequence[Axis], border: str = "zeros", fill: float = 0.0) -> Tensor:
    """``(N, C, *n)`` with the rows of padding."""
    for number, axis in enumerate(axes, 2):
        place = sources(x.shape[number], axis, border)
        outside = (place < 0).view(-1, *(1 for _ in x.shape[number + 1 :]))
        x = x.index_select(number, place.clamp(min=0)).masked_fill(outside, fill)
    return x


def folded(delta: Tensor, axes: Sequence[Axis], size: Sequence[int], border: str = "zeros") -> Tensor:
    """δ of the padded input to δ of the input: padding is dropped, copies are added to their originals."""
    for number, (axis, n) in enumerate(zip(axes, size, strict=True), 2):
        place = sources(n, axis, border)
        real = (place >= 0).nonzero().flatten()
        back = delta.new_zeros(*delta.shape[:number], n, *delta.shape[number + 1 :])
        delta = back.index_add_(number, place[real], delta.index_select(number, real))
    return delta


def taps(padded: Tensor, axes: Sequence[Axis], out: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Each tap of the kernel with the view of what it reads at all positions, ``(..., *out)``."""
    for tap in product(*(range(axis.kernel) for axis in axes)):
        begins = [t * axis.dilation for t, axis in zip(tap, axes, strict=True)]
        rows = [slice(b, b + (m - 1) * a.stride + 1, a.stride) for b, a, m in zip(begins, axes, out, strict=True)]
        yield tap, padded[at(*rows)]


def blank(layer: Layer) -> Tensor:
    """Zeros of the shape of the padded input."""
    sizes = [n + a.before + a.after for n, a in zip(layer.x.shape[2:], layer.axes, strict=True)]
    return layer.x.new_zeros(*layer.x.shape[:2], *sizes)


def _groups(layer: Layer) -> int:
    return int(layer.operation.window(tuple(layer.x.shape[1:])).groups)


def border_of(layer: Layer) -> str:
    """What stands in the padding."""
    return str(getattr(layer.operation, "border", "zeros"))


# --------------------------------------------------------------------------------------------------------- convolutions


def rotated(weight: Tensor, groups: int) -> Tensor:
    """``(O, C/G, *K)`` turned by 180 degrees, filters and channels exchanged: ``(G, C/G, O/G, *K)``.

    >>> rotated(torch.arange(4.0).view(1, 1, 2, 2), 1).tolist()
    [[[[[3.0, 2.0], [1.0, 0.0]]]]]
    """
    return weight.flip([*range(2, weight.dim())]).unflatten(0, (groups, -1)).transpose(1, 2)


def spread(delta: Tensor, axes: Sequence[Axis]) -> Tensor:
    """δ with ``stride - 1`` zeros between neighbours."""
    sizes = [(m - 1) * a.stride + 1 for m, a in zip(delta.shape[2:], axes, strict=True)]
    wide = delta.new_zeros(*delta.shape[:2], *sizes)
    wide[at(*(slice(None, None, a.stride) for a in axes))] = delta
    return wide


def conv_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """The rotated kernel slides over δ, which has zeros between its values for a stride and around them (full)."""
    axes, groups = layer.axes, _groups(layer)
    kernel = rotated(layer.learned("weight"), groups)
    around = [Axis(1, before=a.extent - 1, after=a.extent - 1) for a in axes]
    full = extended(spread(delta, axes), around).unflatten(1, (groups, -1))
    reached = [(m - 1) * a.stride + a.extent for m, a in zip(delta.shape[2:], axes, strict=True)]
    dense = [Axis(a.kernel, dilation=a.dilation) for a in axes]
    total: Any = sum(
        torch.einsum("ngo...,gco->ngc...", seen, kernel[at(*tap)]) for tap, seen in taps(full, dense, reached)
    )
    back = blank(layer)
    back[at(*map(slice, reached))] = total.flatten(1, 2)
    return [folded(back, axes, layer.x.shape[2:], border_of(layer))]


def conv_gradients(layer: Layer, delta: Tensor) -> Gradients:
    """The input slides under δ: each weight is multiplied with what its tap reads, at all positions."""
    groups, weight = _groups(layer), layer.learned("weight")
    padded = extended(layer.x, layer.axes, border_of(layer)).unflatten(1, (groups, -1))
    parts = delta.unflatten(1, (groups, -1)).flatten(3)
    gradient = torch.zeros_like(weight)
    for tap, seen in taps(padded, layer.axes, delta.shape[2:]):
        gradient[at(*tap)] = torch.einsum("ngop,ngcp->goc", parts, seen.flatten(3)).flatten(0, 1)
    found = {"weight": ("∂L/∂W = x ⋆ δ", gradient)}
    return found | bias_gradient(layer, delta)


def bias_gradient(layer: Layer, delta: Tensor) -> Gradients:
    """A bias is added at every position."""
    if not layer.has_bias:
        return {}
    formula = "∂L/∂b = δ" if delta.dim() == 2 else "∂L/∂b = sum of δ over positions"
    return {"bias": (formula, delta.flatten(2).sum((0, 2)) if delta.dim() > 2 else delta.sum(0))}


def deconv_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """What was written by each tap is read by it."""
    groups = _groups(layer)
    kernel = layer.learned("weight").unflatten(0, (groups, -1))
    padded = extended(delta, layer.axes).unflatten(1, (groups, -1))
    reads = taps(padded, layer.axes, layer.x.shape[2:])
    total: Any = sum(torch.einsum("ngo...,gco->ngc...", seen, kernel[at(*tap)]) for tap, seen in reads)
    return [total.flatten(1, 2)]


def deconv_gradients(layer: Layer, delta: Tensor) -> Gradients:
    """Each weight is multiplied with what its tap wrote, at all inputs."""
    groups, gradient = _groups(layer), torch.zeros_like(layer.learned("weight"))
    padded = extended(delta, layer.axes).unflatten(1, (groups, -1))
    parts = layer.x.unflatten(1, (groups, -1)).flatten(3)
    for tap, seen in taps(padded, layer.axes, layer.x.shape[2:]):
        gradient[at(*tap)] = torch.einsum("ngcp,ngop->gco", parts, seen.flatten(3)).flatten(0, 1)
    return {"weight": ("∂L/∂W = δ ⋆ x", gradient)} | bias_gradient(layer, delta)


def _phases(layer: Layer) -> list[Tensor]:
    """Which of the repeating kernels each output position uses, on each axis."""
    out = layer.output.shape[2:]
    return [torch.arange(m) % a.period for m, a in zip(out, layer.axes, strict=True)]


def local_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """Each position hands its δ back through its own kernel."""
    groups, kernel = _groups(layer), layer.learned("weight")
    for number, phase in enumerate(_phases(layer)):
        kernel = kernel.index_select(number, phase)
    kernel = kernel.flatten(0, len(layer.axes) - 1).unflatten(1, (groups, -1))
    parts, back = delta.unflatten(1, (groups, -1)).flatten(3), blank(layer)
    for tap, view in taps(back, layer.axes, delta.shape[2:]):
        view += torch.einsum("ngop,pgoc->ngcp", parts, kernel[at(*tap)]).reshape(view.shape)
    return [folded(back, layer.axes, layer.x.shape[2:])]


def local_gradients(layer: Layer, delta: Tensor) -> Gradients:
    """Each weight is multiplied with what it reads, at the positions that share it."""
    groups, weight, out = _groups(layer), layer.learned("weight"), delta.shape[2:]
    padded = extended(layer.x, layer.axes).unflatten(1, (groups, -1))
    parts = delta.unflatten(1, (groups, -1)).flatten(3)
    gradient = weight.new_zeros(*out, *weight.shape[len(out) :])
    for tap, seen in taps(padded, layer.axes, out):
        each = torch.einsum("ngop,ngcp->pgoc", parts, seen.flatten(3)).flatten(1, 2)
        gradient[at(*tap)] = each.unflatten(0, out)
    found = {"weight": ("∂L/∂W = x δ at each position", _by_phase(layer, gradient, 0))}
    if layer.has_bias and layer.learned("bias").dim() > 1:
        return found | {"bias": ("∂L/∂b = δ at each position", _by_phase(layer, delta.sum(0), 1))}
    return found | bias_gradient(layer, delta)


def _by_phase(layer: Layer, values: Tensor, first: int) -> Tensor:
    """Sums over the positions that share a kernel."""
    for number, (phase, axis) in enumerate(zip(_phases(layer), layer.axes, strict=True), first):
        shared = values.new_zeros(*values.shape[:number], axis.period, *values.shape[number + 1 :])
        values = shared.index_add_(number, phase, values)
    return values


# ------------------------------------------------------------------------------------------------------------- poolings


def largest_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """δ of a window goes to the place of its largest value, the first one of equals."""
    axes, out = layer.axes, delta.shape[2:]
    best, chosen = torch.full_like(delta, -math.inf), torch.zeros_like(delta, dtype=torch.int64)
    for number, (_, seen) in enumerate(taps(extended(layer.x, axes, fill=-math.inf), axes, out)):
        larger = seen > best
        best, chosen = seen.where(larger, best), chosen.masked_fill(larger, number)
    back = blank(layer)
    for number, (_, view) in enumerate(taps(back, axes, out)):
        view += delta * (chosen == number)
    return [folded(back, axes, layer.x.shape[2:])]


def mean_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """δ of a window is dealt out in equal parts to the values that it counts."""
    axes, out, operation = layer.axes, delta.shape[2:], layer.operation
    inner = replace(operation, ceil=False).window(tuple(layer.x.shape[1:])).axes
    ones = extended(torch.ones_like(layer.x), inner, fill=float(operation.count_padding))
    late = [Axis(1, after=whole.after - a.after) for whole, a in zip(axes, inner, strict=True)]
    counted = extended(ones, late)
    area: Any = sum(seen for _, seen in taps(counted, axes, out))
    back = blank(layer)
    for _, view in taps(back, axes, out):
        view += delta / area
    return [folded(back, axes, layer.x.shape[2:])]


def _cells(layer: Layer) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each output position with the cell of the input that it reads."""
    sizes = list(zip(layer.x.shape[2:], layer.output.shape[2:], strict=True))
    for place in product(*(range(m) for _, m in sizes)):
        yield place, tuple(slice(i * n // m, -(-(i + 1) * n // m)) for i, (n, m) in zip(place, sizes, strict=True))


def largest_cells_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """δ of a cell goes to the place of its largest value, the first one of equals."""
    back = torch.zeros_like(layer.x)
    for place, cell in _cells(layer):
        part = layer.x[at(*cell)]
        found = part.flatten(2) == part.flatten(2).amax(2, keepdim=True)
        first = found & (found.cumsum(2) == 1)
        back[at(*cell)] += (first * delta[at(*place)][..., None]).view_as(part)
    return [back]


def mean_cells_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """δ of a cell is dealt out in equal parts."""
    back = torch.zeros_like(layer.x)
    for place, cell in _cells(layer):
        view = back[at(*cell)]
        given = delta[at(*place)] / math.prod(view.shape[2:])
        view += given.view(*given.shape, *(1 for _ in cell))
    return [back]


def unpool_delta(layer: Layer, delta: Tensor) -> list[Tensor]:
    """δ is read where the values were put."""
    switches, _ = layer.kept
    return [delta.flatten(2).gather(2, switches.flatten(2)).view_as(layer.x)]
