"""What PyTorch itself offers, brought to every window that it can express after padding or cropping."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..geometry import Axis
from .interface import Base, Problem, register

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def pad(x: Tensor, rows: tuple[tuple[int, int], ...], value: float = 0.0) -> Tensor:
    """Pad (or, where negative, crop) each spatial axis by ``(before, after)`` rows of a value."""
    flat = [n for pair in reversed(rows) for n in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


class _Vendor(Base):
    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.geometry.axes)
        return None if axes <= 3 else f"the window has {axes} spatial axes; PyTorch has kernels for 1 to 3."


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


register("convolution", "vendor", Convolution())
