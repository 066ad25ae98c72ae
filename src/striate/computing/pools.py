"""The ways to compute a pooling: the definition first, then what PyTorch offers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .interface import Base, Problem, as_given, register
from .reference import accumulator, tap_windows
from .vendor import CONV, pad

MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL: dict[int, Callable[..., Tensor]] = {2: F.avg_pool2d, 3: F.avg_pool3d}


class ReferenceSwitches(Base):
    """The flat input position of each window's largest value, the first one on a tie; a NaN is larger than all."""

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        positions = torch.arange(prod(problem.size), device=x.device).view(problem.size)
        largest = x.new_zeros(*x.shape[:2], *problem.output_size)
        switches = torch.full(largest.shape, -1, device=x.device)
        for _, outputs, inputs in tap_windows(problem):
            value, seen, best = x[inputs], switches[outputs], largest[outputs]
            wins = (seen < 0) | (value > best) | (value.isnan() & ~best.isnan())
            largest[outputs] = torch.where(wins, value, best)
            switches[outputs] = torch.where(wins, positions[inputs], seen)
        return switches


class ReferenceMaximum(ReferenceSwitches):
    """The largest value of each window: what its switch points to, so that the gradient goes there alone."""

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        switches = super().run(x.detach(), second, problem)
        return x.flatten(2).gather(2, switches.flatten(2)).view(switches.shape)


class ReferenceSum(Base):
    """The sum of each window, divided by the problem's divisor."""

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        total = x.new_zeros(*x.shape[:2], *problem.output_size, dtype=accumulator(x.dtype))
        for _, outputs, inputs in tap_windows(problem):
            total[outputs] += x[inputs]
        return (total / problem.divisor).to(x.dtype)


class _Vendor(Base):
    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.geometry.axes)
        return None if axes <= 3 else f"the window has {axes} spatial axes; PyTorch has kernels for 1 to 3."


class Maximum(_Vendor):
    """``torch.nn.functional.max_pool1d`` to ``max_pool3d``; padding that those refuse is added first, as -infinity."""

    def refuses(self, problem: Problem) -> str | None:
        if not problem.dtype.is_floating_point:
            return f"the input is {problem.dtype}; PyTorch's max poolings take floating-point numbers on all devices."
        return super().refuses(problem)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return self.pool(x, problem, return_indices=False)

    def pool(self, x: Tensor, problem: Problem, *, return_indices: bool) -> Any:
        """Values, or values and positions in the input as padded by :func:`pad`."""
        axes = problem.geometry.axes
        padding, rows = self.split(problem)
        return MAX_POOL[len(axes)](
            pad(x, rows, -torch.inf),
            [axis.kernel for axis in axes],
            [axis.stride for axis in axes],
            padding,
            [axis.dilation for axis in axes],
            return_indices=return_indices,
        )

    def split(self, problem: Problem) -> tuple[list[int], tuple[tuple[int, int], ...]]:
        """Padding left to PyTorch (at most half the kernel, even on both sides), and the rows added before the call."""
        axes = problem.geometry.axes
        if all(axis.before == axis.after and 2 * axis.before <= axis.kernel for axis in axes):
            return [axis.before for axis in axes], tuple((0, 0) for _ in axes)
        return [0] * len(axes), tuple((axis.before, axis.after) for axis in axes)


class Switches(Maximum):
    """The positions that PyTorch returns, counted in the unpadded input.

    A window whose values are all the lowest there is makes PyTorch point at its first tap, which may be padding: then
    the switch is the window's first real tap.
    """

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        rows = self.split(problem)[1]
        positions: Tensor = self.pool(x, problem, return_indices=True)[1]
        flat = torch.zeros_like(positions)
        unit = 1
        for axis, (before, after), size in reversed(list(zip(problem.geometry.axes, rows, problem.size, strict=True))):
            padded = size + before + after
            position = positions % padded - before
            flat += torch.where(position < 0, position % axis.dilation, position) * unit
            positions = positions // padded
            unit *= size
        return flat


class Sum(_Vendor):
    """``torch.nn.functional.avg_pool2d`` and ``avg_pool3d`` with the divisor set; one axis is run as two."""

    def refuses(self, problem: Problem) -> str | None:
        if any(axis.dilation > 1 for axis in problem.geometry.axes):
            return "the window is dilated; PyTorch's mean poolings are not."
        if not problem.dtype.is_floating_point:
            return f"the input is {problem.dtype}; PyTorch's mean poolings take floating-point numbers."
        if len(problem.geometry.axes) == 3 and problem.device == "cpu" and problem.dtype.itemsize == 2:
            return f"the input is {problem.dtype}; PyTorch's mean pooling over 3 axes has no such kernel on the CPU."
        return super().refuses(problem)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        axes = problem.geometry.axes
        padded = pad(x, tuple((axis.before, axis.after) for axis in axes))
        lone = len(axes) == 1
        kernel = [1] * lone + [axis.kernel for axis in axes]
        stride = [1] * lone + [axis.stride for axis in axes]
        pool = AVG_POOL[2 if lone else len(axes)]
        pooled = pool(padded.unsqueeze(2) if lone else padded, kernel, stride, divisor_override=problem.divisor)
        return pooled.squeeze(2) if lone else pooled


class WindowConvolution(_Vendor):
    """Each window's sum as a depthwise convolution with ones, which may be dilated."""

    def refuses(self, problem: Problem) -> str | None:
        if not (problem.dtype.is_floating_point or problem.dtype.is_complex):
            return f"the input is {problem.dtype}; it needs floating-point or complex numbers."
        return super().refuses(problem)

    def run(self, x: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        axes = problem.geometry.axes
        dtype = x.dtype
        x = x.to(accumulator(dtype))
        ones = x.new_full((1, 1, *problem.geometry.kernel), 1.0)
        padded = pad(x, tuple((axis.before, axis.after) for axis in axes)).flatten(0, 1).unsqueeze(1)
        with as_given(problem.device):
            total = CONV[len(axes)](padded, ones, None, [a.stride for a in axes], 0, [a.dilation for a in axes])
        return (total / problem.divisor).view(*x.shape[:2], *total.shape[2:]).to(dtype)


register("maximum", "vendor", Maximum())
register("switches", "vendor", Switches())
register("sum", "vendor", Sum())
register("sum", "convolution", WindowConvolution())
register("switches", "reference", ReferenceSwitches())
register("maximum", "reference", ReferenceMaximum())
register("sum", "reference", ReferenceSum())
