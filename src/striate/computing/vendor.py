"""What PyTorch itself offers, brought to every window that it can express after padding or cropping."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import Axis
from .interface import Problem, as_given, register
from .reference import accumulator

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL: dict[int, Callable[..., Tensor]] = {2: F.avg_pool2d, 3: F.avg_pool3d}


def pad(x: Tensor, rows: tuple[tuple[int, int], ...], value: float = 0.0) -> Tensor:
    """Pad (or, where negative, crop) each spatial axis by ``(before, after)`` rows of a value."""
    flat = [n for pair in reversed(rows) for n in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


class _Vendor:
    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.geometry.axes)
        return None if axes <= 3 else f"the window has {axes} spatial axes; PyTorch has kernels for 1 to 3."

    def prepare(self, weight: Tensor, problem: Problem) -> Tensor:
        return weight


class Convolution(_Vendor):
    """``torch.nn.functional.conv1d`` to ``conv3d`` and their transposed kin."""

    def refuses(self, problem: Problem) -> str | None:
        period = problem.geometry.period
        if prod(period) > 1:
            return f"the weights repeat with period {period}; PyTorch's convolutions share them with period 1."
        return super().refuses(problem)

    def run(self, x: Tensor, prepared: Tensor | None, problem: Problem) -> Tensor:
        return self.call(x, prepared, None, problem)

    def call(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, problem: Problem) -> Tensor:
        """The convolution with its bias ``(O,)``, in one call of PyTorch's, differentiated by PyTorch."""
        axes, groups = problem.geometry.axes, problem.geometry.groups
        steps = {"stride": [a.stride for a in axes], "dilation": [a.dilation for a in axes], "groups": groups}
        if problem.geometry.transposed:
            return self._transposed(x, weight, bias, axes, steps)
        common = [max(0, min(axis.before, axis.after)) for axis in axes]
        uneven = tuple((axis.before - p, axis.after - p) for axis, p in zip(axes, common, strict=True))
        return CONV[len(axes)](pad(x, uneven), weight, bias, padding=common, **steps)

    def _transposed(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, axes: tuple[Axis, ...], steps: dict[str, Any]
    ) -> Tensor:
        function = CONV_TRANSPOSE[len(axes)]
        if all(axis.before >= 0 and 0 <= axis.before - axis.after < max(axis.stride, axis.dilation) for axis in axes):
            padding = [axis.before for axis in axes]
            extra = [axis.before - axis.after for axis in axes]
            return function(x, weight, bias, padding=padding, output_padding=extra, **steps)
        whole = function(x, weight, None, **steps)
        kept = pad(whole, tuple((-axis.before, -axis.after) for axis in axes))
        return kept if bias is None else kept + bias.view(-1, *(1 for _ in axes))


class Maximum(_Vendor):
    """``torch.nn.functional.max_pool1d`` to ``max_pool3d``; padding that those refuse is added first, as -infinity."""

    def refuses(self, problem: Problem) -> str | None:
        if not problem.dtype.is_floating_point:
            return f"the input is {problem.dtype}; PyTorch's max poolings take floating-point numbers on all devices."
        return super().refuses(problem)

    def run(self, x: Tensor, prepared: Tensor | None, problem: Problem) -> Tensor:
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

    def run(self, x: Tensor, prepared: Tensor | None, problem: Problem) -> Tensor:
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

    def run(self, x: Tensor, prepared: Tensor | None, problem: Problem) -> Tensor:
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

    def run(self, x: Tensor, prepared: Tensor | None, problem: Problem) -> Tensor:
        axes = problem.geometry.axes
        dtype = x.dtype
        x = x.to(accumulator(dtype))
        ones = x.new_full((1, 1, *problem.geometry.kernel), 1.0)
        padded = pad(x, tuple((axis.before, axis.after) for axis in axes)).flatten(0, 1).unsqueeze(1)
        with as_given(problem.device):
            total = CONV[len(axes)](padded, ones, None, [a.stride for a in axes], 0, [a.dilation for a in axes])
        return (total / problem.divisor).view(*x.shape[:2], *total.shape[2:]).to(dtype)


register("convolution", "vendor", Convolution())
register("maximum", "vendor", Maximum())
register("switches", "vendor", Switches())
register("sum", "vendor", Sum())
register("sum", "convolution", WindowConvolution())
