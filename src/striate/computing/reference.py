"""The definition, one tap at a time. Slow on purpose: every other algorithm is judged by these."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..taps import tap_slices
from .interface import Base, Problem, register


def tap_windows(problem: Problem) -> Iterator[tuple[Any, Any, Any]]:
    """Every tap of the kernel with the outputs and the inputs that it connects, as indices into the last axes."""
    geometry = problem.geometry
    for tap in product(*(range(axis.kernel) for axis in geometry.axes)):
        pairs = [tap_slices(axis, n, t) for axis, n, t in zip(geometry.axes, problem.size, tap, strict=True)]
        outputs, inputs = ((..., *side) for side in zip(*pairs, strict=True))
        yield (..., *tap), outputs, inputs


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are kept in: float32 for the 16-bit types, else the type itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class Convolution(Base):
    """``out[o] += weight[o mod period][tap] @ x[i]`` for every read ``(o, tap, i)``, solved for any of the three."""

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        wide = accumulator(first.dtype)
        other = first.new_zeros(0) if second is None else second
        return getattr(self, problem.direction)(first.to(wide), other.to(wide), problem).to(first.dtype)

    def forward(self, x: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        """``out[o] += weight @ x[i]``."""
        images, kernels = _grouped(x, problem), _kernels(weight, problem)
        groups, each = problem.geometry.groups, problem.out_channels // problem.geometry.groups
        out = x.new_zeros(x.shape[0], groups, each, *problem.output_size)
        for tap, outputs, inputs in tap_windows(problem):
            out[outputs] += torch.einsum("ngc...,...goc->ngo...", images[inputs], _at(kernels[tap], outputs, problem))
        return out.flatten(1, 2)

    def input_gradient(self, y: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        """``x[i] += weight.T @ out[o]``."""
        maps, kernels = _grouped(y, problem), _kernels(weight, problem)
        groups, each = problem.geometry.groups, problem.in_channels // problem.geometry.groups
        x = y.new_zeros(y.shape[0], groups, each, *problem.size)
        for tap, outputs, inputs in tap_windows(problem):
            x[inputs] += torch.einsum("ngo...,...goc->ngc...", maps[outputs], _at(kernels[tap], outputs, problem))
        return x.flatten(1, 2)

    def weight_gradient(self, x: Tensor, y: Tensor, problem: Problem) -> Tensor:
        """``weight += out[o] x[i].T`` over all examples and all positions that share the weight."""
        images, maps = _grouped(x, problem), _grouped(y, problem)
        shape = problem.geometry.weight_shape(problem.in_channels, problem.out_channels)
        weight = x.new_zeros(shape)
        kernels = _kernels(weight, problem)
        for tap, outputs, inputs in tap_windows(problem):
            pairs = torch.einsum("ngo...,ngc...->...goc", maps[outputs], images[inputs])
            kernels[tap] += _shared(pairs, outputs, problem)
        return weight


def _grouped(x: Tensor, problem: Problem) -> Tensor:
    groups = problem.geometry.groups
    return x.unflatten(1, (groups, x.shape[1] // groups))


def _kernels(weight: Tensor, problem: Problem) -> Tensor:
    """The weights as a view ``(*period, g, O/g, C/g, *K)``; a period of 1 is there too."""
    axes, groups = len(problem.size), problem.geometry.groups
    whole = weight.reshape(*problem.geometry.period, *weight.shape[-axes - 2 :])
    return whole.unflatten(axes, (groups, problem.out_channels // groups))


def _at(kernels: Tensor, outputs: Any, problem: Problem) -> Tensor:
    """The weights of one tap at each output position: ``(*outputs, g, O/g, C/g)``; shared axes keep length 1."""
    for number, (axis, span) in enumerate(zip(problem.geometry.axes, outputs[1:], strict=True)):
        if axis.period > 1:
            positions = torch.arange(span.start, span.stop, device=kernels.device) % axis.period
            kernels = kernels.index_select(number, positions)
    return kernels


def _shared(pairs: Tensor, outputs: Any, problem: Problem) -> Tensor:
    """The adjoint of :func:`_at`: the sum over the positions that share a weight."""
    for number, (axis, span) in enumerate(zip(problem.geometry.axes, outputs[1:], strict=True)):
        firsts = ((residue - span.start) % axis.period for residue in range(axis.period))
        by_residue = [pairs[(slice(None),) * number + (slice(f, None, axis.period),)].sum(number) for f in firsts]
        pairs = torch.stack(by_residue, number)
    return pairs


register("convolution", "reference", Convolution())
