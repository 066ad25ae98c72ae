"""Who computes a layer: Striate in both layouts, and every way that PyTorch (and JAX, where installed) is known for.

Each contender holds the operands in the layout that it likes best, made beforehand; what it computes stays in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import convolution, pooling
from ..convolution import conv_tiled
from .suite import Case

STRIATE = ("striate NCHW", "striate channels-last")
DEFAULT = "torch NCHW"
ROOM = 256 * 1024 * 1024
"""Bytes that a formulation may need for its largest intermediate; those that need more are left out."""

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
NORM: dict[int, Callable[..., Tensor]] = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
STRIATE_LAYERS: dict[str, Callable[..., Tensor]] = {
    "conv": convolution.conv,
    "conv_transpose": convolution.conv_transpose,
    "conv_local": convolution.conv_local,
    "conv_tiled": conv_tiled,
    "max_pool": pooling.max_pool,
    "avg_pool": pooling.avg_pool,
    "lp_pool": pooling.lp_pool,
}

Action = Callable[[], Any]
Layer = Callable[..., Tensor]
Relay = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Operands:
    """What all contenders of a case are given: ``(N, C, *size)``, weights or None, and the gradient of the output."""

    x: Tensor
    weight: Tensor | None
    gradient: Tensor


class Contender(Protocol):
    """One way to compute a case."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    def action(self, measurement: str) -> Action:
        """A function without arguments that does what is measured, and returns its result in the contender's layout."""

    def canonical(self, measurement: str, result: Any) -> Tensor:
        """The result of a direction in PyTorch's default layout, for comparison."""


def same(tensor: Tensor) -> Tensor:
    """The layout that the operands are in already."""
    return tensor


def channels_last(tensor: Tensor) -> Tensor:
    """The same tensor with its channels next to each other in memory, on any number of axes."""
    last = LAST.get(tensor.dim() - 2)
    return tensor.to(memory_format=last) if last else tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def as_2d(tensor: Tensor) -> Tensor:
    """A 1-D map or kernel as a 2-D one of height 1, channels last."""
    return tensor.unsqueeze(-2).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Entry:
    """What every contender is told.

    Args:
        name: What it is called in tables.
        case: What it computes.
        given: The operands in PyTorch's default layout.
    """

    name: str
    case: Case
    given: Operands


@dataclass(frozen=True)
class Way(Entry):
    """A contender that is a differentiable function of the input and the weights (of the input alone for a pooling).

    Args:
        layer: The function.
        lay: How it likes its maps.
        lay_weight: How it likes its weights; None is as its maps.
        unlay_weight: Back to the order of dimensions of the case's weights.
    """

    layer: Layer
    lay: Relay = same
    lay_weight: Relay | None = None
    unlay_weight: Relay = same

    @cached_property
    def operands(self) -> tuple[Tensor, ...]:
        """Input and weights, laid once, and its own: what another has just read is in the caches."""
        given = [tensor.clone() for tensor in (self.given.x, self.given.weight) if tensor is not None]
        return self.lay(given[0]), *map(self.lay_weight or self.lay, given[1:])

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient of the output, as the next layer would hand it back: laid like the maps, or like the output."""
        if self.lay is not same:
            return self.lay(self.given.gradient.clone())
        y = self._forward()
        return torch.empty_like(y).copy_(self.given.gradient.reshape(y.shape))

    def action(self, measurement: str) -> Action:
        """A gradient alone is taken on a graph in which only that operand needs one: nothing else is computed."""
        if measurement == "forward":
            return self._forward
        gradient = self.gradient
        if measurement == "step":
            learned = [i for i in range(len(self.operands)) if i or not self.case.first]
            return lambda: torch.autograd.grad(*self._graph(learned), gradient)
        y, needing = self._graph([("input_gradient", "weight_gradient").index(measurement)])
        return lambda: torch.autograd.grad(y, needing, gradient, retain_graph=True)[0]

    def canonical(self, measurement: str, result: Tensor) -> Tensor:
        """What may be laid otherwise, in the order and shape of the case."""
        case = self.case
        shapes = {"forward": case.output_shape, "input_gradient": case.shape, "weight_gradient": case.weight_shape}
        unlaid = self.unlay_weight(result) if measurement == "weight_gradient" else result
        return unlaid.detach().reshape(shapes[measurement])

    def compiled(self) -> Way:
        """The same with a layer that ``torch.compile`` has taken."""
        return replace(self, name=f"{self.name}, compiled", layer=torch.compile(self.layer, dynamic=False))

    def _forward(self) -> Tensor:
        with torch.no_grad():
            return self.layer(*self.operands)

    def _graph(self, wanted: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        leaves = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(self.operands)]
        return self.layer(*leaves), [leaves[i] for i in wanted]


def striate(case: Case, given: Operands) -> list[Way]:
    """Striate's public function for the layer, in both layouts.

    Local and tiled weights have one order of dimensions only; shared ones lie in memory as the maps do.
    """
    options = dict(case.options)
    function = STRIATE_LAYERS[case.layer]

    def layer(x: Tensor, *weight: Tensor) -> Tensor:
        return function(x, *weight, **options) if weight else function(x, case.kernel, **options)

    in_order = same if case.layer in ("conv_local", "conv_tiled") else None
    return [
        Way(STRIATE[0], case, given, layer),
        Way(STRIATE[1], case, given, layer, channels_last, in_order),
    ]


def torch_ways(case: Case, given: Operands) -> list[Way]:
    """PyTorch's own ways, the default layout first (of a layer that PyTorch lacks, the first formulation)."""
    ways = {"conv_local": local_ways, "conv_tiled": tiled_ways}
    return ways.get(case.layer, vendor_ways)(case, given)


def vendor_ways(case: Case, given: Operands) -> list[Way]:
    """PyTorch's kernel in the default layout and channels-last (1-D as 2-D of height 1), and poolings in passes."""
    axes = len(case.size)
    layer = vendor_layer(case, axes)
    found = [Way(DEFAULT, case, given, layer)]
    if axes == 1:
        found.append(Way("torch channels-last", case, given, vendor_layer(case, 2), as_2d))
    else:
        found.append(Way("torch channels-last", case, given, layer, channels_last))
        if case.layer in ("max_pool", "avg_pool"):
            passes = one_axis_after_another(case)
            found.append(Way("torch passes", case, given, passes))
            found.append(Way("torch passes, channels-last", case, given, passes, channels_last))
    if case.layer == "lp_pool":
        found.append(Way("torch root of mean square", case, given, root_of_mean_square(case)))
    if case.layer == "avg_pool" and case.geometry.output_size(case.size) == (1,) * axes:
        positions = tuple(range(2, 2 + axes))
        found.append(Way("torch mean", case, given, lambda x: x.mean(positions, keepdim=True)))
    return found


def window_options(case: Case, axes: int) -> dict[str, Any]:
    """Stride, padding and dilation of the case, with a leading axis of one tap where a 1-D layer is computed in 2-D."""
    lead = axes - len(case.size)
    window = case.geometry.axes
    return {
        "stride": (1,) * lead + tuple(a.stride for a in window),
        "padding": (0,) * lead + tuple(a.before for a in window),
        "dilation": (1,) * lead + tuple(a.dilation for a in window),
    }


def vendor_layer(case: Case, axes: int) -> Layer:
    """PyTorch's function for a layer that it has; poolings pad with nothing, as Striate's do."""
    options = window_options(case, axes)
    kernel = (1,) * (axes - len(case.size)) + case.kernel
    stride, padding, dilation = options.values()
    if case.layer == "max_pool":
        return lambda x: MAX[axes](x, kernel, stride, padding, dilation)
    if case.layer == "avg_pool":
        return lambda x: MEAN[axes](x, kernel, stride, padding, count_include_pad=False)
    if case.layer == "lp_pool":
        return lambda x: NORM[axes](x, 2.0, kernel, stride)
    function = (CONV_TRANSPOSE if case.layer == "conv_transpose" else CONV)[axes]
    groups = case.geometry.groups
    return lambda x, weight: function(x, weight, None, **options, groups=groups)


def one_axis_after_another(case: Case) -> Layer:
    """A maximum or mean over a box as one pooling for each axis."""
    axes, window = len(case.size), case.geometry.axes

    def layer(x: Tensor) -> Tensor:
        for number, axis in enumerate(window):
            kernel, stride, padding = (
                tuple(value if i == number else rest for i in range(axes))
                for value, rest in ((axis.kernel, 1), (axis.stride, 1), (axis.before, 0))
            )
            if case.layer == "max_pool":
                x = MAX[axes](x, kernel, stride, padding)
            else:
                x = MEAN[axes](x, kernel, stride, padding, count_include_pad=False)
        return x

    return layer


def root_of_mean_square(case: Case) -> Layer:
    """The 2-norm of each window from the mean of squares."""
    options, taps = window_options(case, len(case.size)), prod(case.kernel)
    return lambda x: MEAN[x.dim() - 2](x.square(), case.kernel, options["stride"]).mul(taps).sqrt()


def windows(x: Tensor, case: Case) -> Tensor:
    """``(positions, N, C * taps)``: what each output position reads."""
    axes = case.geometry.axes
    x = F.pad(x, [rows for a in reversed(axes) for rows in (a.before, a.after)])
    for number, a in enumerate(axes):
        x = x.unfold(2 + number, a.extent, a.stride)[..., :: a.dilation]
    order = (*range(2, 2 + len(axes)), 0, 1, *range(2 + len(axes), 2 + 2 * len(axes)))
    return x.permute(order).reshape(prod(case.output_shape[2:]), case.shape[0], -1)


def columns(x: Tensor, case: Case) -> Tensor:
    """``(N, C * taps, positions)`` by PyTorch's unfold, which knows two axes: a 1-D map has height 1."""
    one = len(case.size) == 1
    options = window_options(case, 2)
    kernel = (1, *case.kernel) if one else case.kernel
    axes = case.geometry.axes
    if any(a.before != a.after for a in axes):
        x = F.pad(x, [rows for a in reversed(axes) for rows in (a.before, a.after)])
        options["padding"] = (0, 0)
    return F.unfold(x.unsqueeze(2) if one else x, kernel, **options)


def local_ways(case: Case, given: Operands) -> list[Way]:
    """Formulations of a locally connected layer, each with its weights stored as it likes them."""
    positions, outputs, batch = prod(case.output_shape[2:]), case.outputs, case.shape[0]
    taps = prod(case.weight_shape) // positions // outputs
    axes = len(case.size)
    places = tuple(case.output_shape[2:])

    def for_bmm(weight: Tensor) -> Tensor:
        return weight.reshape(positions, outputs, taps).transpose(1, 2).contiguous()

    def for_broadcast(weight: Tensor) -> Tensor:
        return weight.reshape(positions, outputs, taps).permute(1, 2, 0).contiguous()

    def from_bmm(weight: Tensor) -> Tensor:
        return weight.transpose(1, 2)

    def from_broadcast(weight: Tensor) -> Tensor:
        return weight.permute(2, 0, 1)

    def shaped(y: Tensor) -> Tensor:
        return y.unflatten(-1, places)

    def unfold_bmm(x: Tensor, weight: Tensor) -> Tensor:
        return shaped(torch.bmm(columns(x, case).permute(2, 0, 1), weight).permute(1, 2, 0))

    def windows_bmm(x: Tensor, weight: Tensor) -> Tensor:
        return shaped(torch.bmm(windows(x, case), weight).permute(1, 2, 0))

    def unfold_einsum(x: Tensor, weight: Tensor) -> Tensor:
        return shaped(torch.einsum("nkl,lko->nol", columns(x, case), weight))

    def broadcast(x: Tensor, weight: Tensor) -> Tensor:
        return shaped((columns(x, case).unsqueeze(1) * weight).sum(2))

    ways: list[tuple[str, Layer, Relay, Relay]] = [
        ("torch unfold+bmm", unfold_bmm, for_bmm, from_bmm),
        ("torch windows+bmm", windows_bmm, for_bmm, from_bmm),
        ("torch unfold+einsum", unfold_einsum, for_bmm, from_bmm),
    ]
    if batch * outputs * taps * positions * given.x.element_size() <= ROOM:
        ways.append(("torch broadcast", broadcast, for_broadcast, from_broadcast))
    return [
        Way(name, case, given, layer, same, lay, back) for name, layer, lay, back in (ways if axes < 3 else ways[1:2])
    ]


def tiled_ways(case: Case, given: Operands) -> list[Way]:
    """Formulations of a tiled layer; the periods divide the outputs."""
    ways: dict[str, Layer] = {"torch strided convolutions": interleaved(case)}
    found = [Way(name, case, given, layer) for name, layer in ways.items()]
    if len(case.size) in LAST:
        found.append(
            Way("torch strided convolutions, channels-last", case, given, interleaved(case), channels_last, same)
        )
    found.append(Way("torch windows+bmm", case, given, residues_together(case)))
    if len(case.size) == 2:
        found.append(Way("torch pixel shuffle", case, given, shuffled(case)))
    repeated = prod(case.output_shape[1:]) * prod(case.weight_shape[-len(case.size) - 1 :])
    if repeated * given.x.element_size() <= ROOM:
        found.append(Way("torch repeated weights", case, given, repeated_weights(case)))
    return found


def _residues(case: Case) -> list[tuple[int, ...]]:
    """Output positions modulo the period, last axis fastest."""
    return [tuple(int(i) for i in row) for row in torch.cartesian_prod(*map(torch.arange, case.period)).reshape(
        -1, len(case.period))]  # fmt: skip


def _padded(x: Tensor, case: Case) -> Tensor:
    return F.pad(x, [rows for a in reversed(case.geometry.axes) for rows in (a.before, a.after)])


def interleaved(case: Case) -> Layer:
    """One convolution for each residue, ``period`` times as strided, their outputs interleaved."""
    axes, period, groups = case.geometry.axes, case.period, case.geometry.groups
    counts = tuple(n // t for n, t in zip(case.output_shape[2:], period, strict=True))
    stride = [a.stride * t for a, t in zip(axes, period, strict=True)]
    dilation = [a.dilation for a in axes]
    residues = _residues(case)
    order = [0, 1] + [i for pair in zip(range(2 + len(axes), 2 + 2 * len(axes)), range(2, 2 + len(axes)), strict=True)
                      for i in pair]  # fmt: skip

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        x = _padded(x, case)
        parts = []
        for residue in residues:
            image = x
            for number, (r, a, n, s) in enumerate(zip(residue, axes, counts, stride, strict=True)):
                image = image.narrow(2 + number, r * a.stride, (n - 1) * s + a.extent)
            parts.append(CONV[len(axes)](image, weight[residue], None, stride, 0, dilation, groups))
        together = torch.stack(parts, 2).unflatten(2, period)
        return together.permute(order).reshape(case.output_shape)

    return layer


def residues_together(case: Case) -> Layer:
    """The positions that share weights, of all examples, in one matrix product for each residue."""
    axes, period, batch = len(case.size), case.period, case.shape[0]
    counts = tuple(n // t for n, t in zip(case.output_shape[2:], period, strict=True))
    split = [n for pair in zip(counts, period, strict=True) for n in pair]
    residue_first = (*range(1, 2 * axes, 2), *range(0, 2 * axes, 2), 2 * axes, 2 * axes + 1)
    back = [2 * axes, 2 * axes + 1] + [i for pair in zip(range(axes, 2 * axes), range(axes), strict=True) for i in pair]

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        rows = windows(x, case).reshape(*split, batch, -1).permute(residue_first)
        products = torch.bmm(
            rows.reshape(prod(period), prod(counts) * batch, -1),
            weight.reshape(prod(period), case.outputs, -1).transpose(1, 2),
        )
        return products.reshape(*period, *counts, batch, case.outputs).permute(back).reshape(case.output_shape)

    return layer


def shuffled(case: Case) -> Layer:
    """One strided convolution whose channels are the residues (2-D), their kernels set into a larger one of zeros."""
    rows, cols = case.geometry.axes
    high, wide = case.period
    reach = [a.extent + (t - 1) * a.stride for a, t in zip((rows, cols), case.period, strict=True)]
    stride = (rows.stride * high, cols.stride * wide)

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        big = weight.new_zeros(case.outputs, high * wide, weight.shape[3], *reach)
        for number, (i, j) in enumerate(_residues(case)):
            top, left = i * rows.stride, j * cols.stride
            big[:, number, :, top : top + rows.extent : rows.dilation, left : left + cols.extent : cols.dilation] = (
                weight[i, j]
            )
        y = F.conv2d(_padded(x, case), big.flatten(0, 1), None, stride)
        y = y[..., : case.output_shape[2] // high, : case.output_shape[3] // wide]
        y = y.unflatten(1, (case.outputs, high, wide)).permute(0, 1, 4, 2, 5, 3)
        return y.reshape(case.output_shape)

    return layer


def repeated_weights(case: Case) -> Layer:
    """A locally connected layer whose weights repeat."""
    axes, places = len(case.size), case.output_shape[2:]
    times = [n // t for n, t in zip(places, case.period, strict=True)]

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        everywhere = weight.repeat(*times, *[1] * (axes + 2)).reshape(prod(places), case.outputs, -1)
        return torch.bmm(windows(x, case), everywhere.transpose(1, 2)).permute(1, 2, 0).unflatten(-1, places)

    return layer
