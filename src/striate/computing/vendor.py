"""What PyTorch itself offers, brought to every window that it can express after padding or cropping."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..borders import LAYOUTS, layout_of, pad
from ..geometry import Axis, Geometry
from .interface import Base, Problem, register

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def even(axes: tuple[Axis, ...]) -> tuple[list[int], tuple[tuple[int, int], ...]]:
    """Padding as PyTorch takes it, the same on both sides, and the rows to pad or crop before that."""
    both = [max(0, min(axis.before, axis.after)) for axis in axes]
    return both, tuple((axis.before - p, axis.after - p) for axis, p in zip(axes, both, strict=True))


class Convolution(Base):
    """``torch.nn.functional.conv1d`` to ``conv3d``, their transposed kin, and PyTorch's own gradients."""

    def refuses(self, problem: Problem) -> str | None:
        axes, period = len(problem.geometry.axes), problem.geometry.period
        if prod(period) > 1:
            return f"the weights repeat with period {period}; PyTorch's convolutions share them with period 1."
        if not (problem.dtype.is_floating_point or problem.dtype.is_complex):
            return f"the tensors are {problem.dtype}; PyTorch convolves whole numbers on some devices only."
        if 0 in (problem.in_channels, problem.out_channels):
            return (
                f"there are {problem.in_channels} input and {problem.out_channels} output channels; PyTorch needs both."
            )
        return None if axes <= 3 else f"the window has {axes} spatial axes; PyTorch has kernels for 1 to 3."

    def bind(self, problem: Problem) -> Solve:
        return _solver(problem)

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return _solver(problem)(first, first if second is None else second)


Solve = Callable[[Tensor, Tensor], Tensor]


@lru_cache(maxsize=4096)
def _solver(problem: Problem) -> Solve:
    if problem.direction == "weight_gradient":
        return _weight_gradient(problem)
    call = bind(problem.window)
    if problem.direction == "input_gradient" and not any(map(any, even(problem.geometry.axes)[1])):
        return _input_gradient(problem, call)
    return lambda first, second: call(first, second, None)


def _backward(window: Geometry, asked: list[bool]) -> Callable[[Tensor, Tensor, Tensor], Any]:
    """PyTorch's backward kernels: ``(y, x, weight)`` to the gradients asked for."""
    steps, (both, _) = _steps(window), even(window.axes)
    stride, dilation, groups = steps.values()
    options = (None, stride, both, dilation, False, [0] * len(both), groups, asked)
    function = torch.ops.aten.convolution_backward
    return lambda y, x, weight: function(y, x, weight, *options)


def _input_gradient(problem: Problem, transposed: Call) -> Solve:
    """PyTorch's backward kernel, which for channels-last groups is far faster than its transposed convolution.

    It asks for an input of which it reads the shape and the layout alone: y's memory stands for it, or on the CPU room
    that nobody touches. Over one axis PyTorch would copy an input with the channels last.
    """
    shape = (problem.in_channels, *problem.size)
    numbers, outputs = prod(shape), problem.out_channels * prod(problem.output_size)
    backward = _backward(problem.geometry, [True, False, False])

    def solve(y: Tensor, weight: Tensor) -> Tensor:
        lying = layout_of(y) == LAYOUTS[1]
        dense = (y.movedim(1, -1) if lying else y).is_contiguous() and not (lying and len(shape) == 2)
        room = numbers <= outputs or (y.device.type == "cpu" and not torch.are_deterministic_algorithms_enabled())
        if not (dense and room) or y.is_complex() or y.shape[0] == 0:
            return transposed(y, weight, None)
        last = lying or (len(shape) > 2 and layout_of(weight) == LAYOUTS[1])  # as PyTorch will want it
        memory = y if numbers <= outputs else y.new_empty(y.shape[0] * numbers)
        found: Tensor = backward(y, memory.as_strided((y.shape[0], *shape), _strides(shape, last)), weight)[0]
        return found

    return solve


def _weight_gradient(problem: Problem) -> Solve:
    """PyTorch's backward kernel, which asks for weights of which it reads the shape alone."""
    geometry = problem.geometry
    uneven = even(geometry.axes)[1]
    shape = geometry.weight_shape(problem.in_channels, problem.out_channels)
    steps, padded = (0,) * len(shape), any(map(any, uneven))
    backward = _backward(geometry, [False, True, False])

    def solve(x: Tensor, y: Tensor) -> Tensor:
        if x.is_complex():  # PyTorch's kernel takes real numbers only
            a, b, c, d = (solve(p, q) for p in (x.real, x.imag) for q in (y.real, y.imag))
            return torch.complex(a - d, b + c)
        if x.shape[0] == 0:
            return x.new_zeros(shape)
        plain = type(x) is Tensor
        weight = x.as_strided(shape, steps) if plain else x.new_zeros(1).expand(shape)
        found: Tensor = backward(y, pad(x, uneven) if padded else x, weight)[1]
        return found

    return solve


@lru_cache(maxsize=4096)
def _strides(shape: tuple[int, ...], last: bool) -> tuple[int, ...]:
    """Those of dense maps of this shape, from example to example first."""
    steps, step = [0] * len(shape), 1
    for dim in (0, *reversed(range(1, len(shape)))) if last else reversed(range(len(shape))):
        steps[dim], step = step, step * shape[dim]
    return step, *steps


Call = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


@lru_cache(maxsize=4096)
def bind(window: Geometry) -> Call:
    """One call of PyTorch's for a window, transposed or not, differentiated by PyTorch: ``(x, weight, bias (O,))``."""
    axes = window.axes
    steps = _steps(window)
    if window.transposed:
        return _bind_transposed(window, steps)
    both, uneven = even(axes)
    function = CONV[len(axes)]
    groups = steps["groups"]
    stride, dilation, padding = map(_brief, (steps["stride"], steps["dilation"], both))
    given = [stride, padding, dilation, groups]
    while given and given[-1] == (1, 0, 1, 1)[len(given) - 1]:
        given.pop()  # what PyTorch takes anyway need not be read
    if any(map(any, uneven)):
        return lambda x, weight, bias: function(pad(x, uneven), weight, bias, *given)
    if not given:
        return function
    return lambda x, weight, bias: function(x, weight, bias, *given)


def _bind_transposed(window: Geometry, steps: dict[str, Any]) -> Call:
    axes, function = window.axes, CONV_TRANSPOSE[len(window.axes)]
    stride, dilation, groups = steps.values()
    padding = [axis.before for axis in axes]
    extra = [axis.before - axis.after for axis in axes]
    if all(axis.before >= 0 and 0 <= e < max(axis.stride, axis.dilation) for axis, e in zip(axes, extra, strict=True)):
        return lambda x, weight, bias: function(x, weight, bias, stride, padding, extra, groups, dilation)
    crop = tuple((-axis.before, -axis.after) for axis in axes)

    def cropped(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        whole = pad(function(x, weight, None, stride, 0, 0, groups, dilation), crop)
        return whole if bias is None else whole + bias.view(-1, *(1 for _ in axes))

    return cropped


def _brief(numbers: list[int]) -> int | list[int]:
    """One number where all axes have the same: PyTorch reads it in less time."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _steps(window: Geometry) -> dict[str, Any]:
    axes = window.axes
    return {"stride": [a.stride for a in axes], "dilation": [a.dilation for a in axes], "groups": window.groups}


register("convolution", "vendor", Convolution())
