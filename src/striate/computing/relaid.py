"""Calls of PyTorch's own convolutions with the tensors laid out differently: in memory, in type, or phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..borders import LAYOUTS
from ..geometry import Axis
from .interface import Base, Problem, register
from .vendor import Convolution

VENDOR = Convolution()
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def _refusal(problem: Problem) -> str | None:
    """Why PyTorch's kernels would not take the problem, laid out in one way or another."""
    if not (problem.dtype.is_floating_point or problem.dtype.is_complex):
        return f"the tensors are {problem.dtype}; PyTorch has floating-point and complex kernels for every layout."
    return VENDOR.refuses(problem)


class Relaid(Base):
    """What these share: they copy the operands and the result."""

    def workspace(self, problem: Problem) -> int:
        maps = problem.in_channels * prod(problem.size) + problem.out_channels * prod(problem.output_size)
        weights = prod(problem.geometry.weight_shape(problem.in_channels, problem.out_channels))
        return (problem.batch * maps + weights) * problem.dtype.itemsize


class ChannelsLast(Relaid):
    """The same call with the channels of both operands side by side in memory, which is what oneDNN likes best."""

    def refuses(self, problem: Problem) -> str | None:
        if len(problem.size) == 1:
            return "the window has 1 spatial axis; PyTorch has channels-last memory for 2 and 3."
        return _refusal(problem)

    def same(self, problem: Problem) -> bool:
        return problem.layout == LAYOUTS[1] and len(problem.size) > 1

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        return self._last(second)

    def bind(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        call, last = VENDOR.bind(problem), self._last
        return lambda first, second: call(last(first), last(second))

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return VENDOR.run(self._last(first), second, problem)

    def _last(self, tensor: Tensor) -> Tensor:
        """A lone channel, too, gets the strides by which PyTorch tells layouts apart; contiguous() leaves them."""
        return tensor.to(memory_format=LAST[tensor.dim() - 2])


class As2d(ChannelsLast):
    """One axis as two, the first of height 1, in channels-last memory: PyTorch's kernels for two axes are better."""

    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.size)
        return _refusal(problem) if axes == 1 else f"the window has {axes} spatial axes; it needs 1."

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        return super().prepare(second.unsqueeze(2), _flat(problem))

    def bind(self, problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
        call = super().bind(_flat(problem))
        return lambda first, second: call(first.unsqueeze(2), second.unsqueeze(2)).squeeze(2)

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return super().run(first.unsqueeze(2), second, _flat(problem)).squeeze(2)


class InFloat32(Relaid):
    """16-bit numbers computed in float32 and rounded once: on CPUs without 16-bit units far faster, and closer."""

    def refuses(self, problem: Problem) -> str | None:
        if problem.dtype not in (torch.float16, torch.bfloat16) or problem.device != "cpu":
            return f"the tensors are {problem.dtype} on {problem.device}; it needs float16 or bfloat16 on the CPU."
        return _refusal(problem)

    def workspace(self, problem: Problem) -> int:
        return 2 * super().workspace(problem)

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        return second.float()

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return VENDOR.run(first.float(), second, replace(problem, dtype=torch.float32)).to(first.dtype)


class DilationSplit(Relaid):
    """A dilated window as dense windows over the phases of the input (space to batch).

    With ``q = dilation / gcd(stride, dilation)``, the outputs ``q m + j`` of one phase ``j < q`` read

        input[(q m + j) stride + t dilation] = phase_j[m stride / gcd + t]
        phase_j[i] = input[j stride + i dilation]

    so that each phase is a window of dilation 1 and stride ``stride / gcd``; all are one batch. Source: L.-C. Chen et
    al., "DeepLab", 2016, section 3.1 (efficient computation by subsampling); the rule for strides is ours.
    """

    def refuses(self, problem: Problem) -> str | None:
        dilation = tuple(axis.dilation for axis in problem.geometry.axes)
        if prod(dilation) == 1:
            return f"the window has dilation {dilation}; there are no phases to split into."
        return _refusal(problem)

    def estimate(self, problem: Problem) -> int | None:
        """Phases shorter than the longest are filled up."""
        return _dense(problem).work

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        dense = _dense(problem)
        from_output = problem.direction == "input_gradient"
        phases = _output_phases(first, problem) if from_output else _input_phases(first, problem)
        if problem.direction == "weight_gradient" and second is not None:
            second = _output_phases(second, problem)
        solved = VENDOR.run(phases, second, dense)
        if problem.direction == "weight_gradient":
            return solved
        return _input_of_phases(solved, problem) if from_output else _output_of_phases(solved, problem)


class StrideSplit(Relaid):
    """A strided window as a sum of windows of stride 1 over the phases of the input and of the kernel.

    With ``n = stride / gcd(stride, dilation)``, the taps ``n u + v`` of one phase ``v < n`` read

        input[o stride + (n u + v) dilation] = phase_v[o + u dilation / gcd]
        phase_v[i] = input[v dilation + i stride]

    Source: the polyphase decomposition, P. P. Vaidyanathan, "Multirate Systems and Filter Banks", 1993, section 4.3.
    """

    def refuses(self, problem: Problem) -> str | None:
        stride = tuple(axis.stride for axis in problem.geometry.axes)
        if prod(stride) == 1:
            return f"the window has stride {stride}; there are no phases to split into."
        return _refusal(problem)

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        other = first.new_zeros(0) if second is None else second
        return getattr(self, problem.direction)(first, other, problem)

    def forward(self, x: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        """The sum over the phases."""
        fitted = _fit(x, _rows(problem, problem.output_size))
        return sum(VENDOR.run(fitted[p.inputs], weight[p.taps], p.problem) for p in _phases(problem))  # type: ignore[return-value]

    def input_gradient(self, y: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        """Each phase is given its own sum; together they are the whole input."""
        rows = _rows(problem, problem.output_size)
        size = (n + before + after for n, (before, after) in zip(problem.size, rows, strict=True))
        fitted = y.new_zeros(y.shape[0], problem.in_channels, *size)
        for phase in _phases(problem):
            fitted[phase.inputs] += VENDOR.run(y, weight[phase.taps], phase.problem)
        return _fit(fitted, [(-before, -after) for before, after in rows])

    def weight_gradient(self, x: Tensor, y: Tensor, problem: Problem) -> Tensor:
        """Each phase of the kernel by itself."""
        fitted = _fit(x, _rows(problem, problem.output_size))
        weight = x.new_zeros(problem.geometry.weight_shape(problem.in_channels, problem.out_channels))
        for phase in _phases(problem):
            weight[phase.taps] = VENDOR.run(fitted[phase.inputs], y, phase.problem)
        return weight


@dataclass(frozen=True, slots=True)
class Phase:
    """Some of the taps, and the inputs that they read, as a problem of stride 1.

    Args:
        inputs: Index into the fitted input.
        taps: Index into the weights.
        problem: What is left to compute.
    """

    inputs: Any
    taps: Any
    problem: Problem


def _phases(problem: Problem) -> Iterator[Phase]:
    axes, outputs = problem.geometry.axes, problem.output_size
    shared = [gcd(axis.stride, axis.dilation) for axis in axes]
    steps = [axis.stride // common for axis, common in zip(axes, shared, strict=True)]
    for corner in product(*(range(min(step, axis.kernel)) for step, axis in zip(steps, axes, strict=True))):
        taps = [slice(first, None, step) for first, step in zip(corner, steps, strict=True)]
        windows = tuple(
            Axis(len(range(axis.kernel)[part]), dilation=axis.dilation // common)
            for axis, part, common in zip(axes, taps, shared, strict=True)
        )
        size = tuple(out - 1 + window.extent for out, window in zip(outputs, windows, strict=True))
        inputs = [
            slice(first * axis.dilation, first * axis.dilation + (n - 1) * axis.stride + 1, axis.stride)
            for first, axis, n in zip(corner, axes, size, strict=True)
        ]
        left = replace(problem, geometry=replace(problem.geometry, axes=windows), size=size)
        yield Phase((..., *inputs), (..., *taps), left)


def _rows(problem: Problem, outputs: Sequence[int]) -> list[tuple[int, int]]:
    """Rows before and after the input, such that windows at so many positions read it to its very end."""
    axes = problem.geometry.axes
    return [
        (axis.before, (out - 1) * axis.stride + axis.extent - n - axis.before)
        for axis, out, n in zip(axes, outputs, problem.size, strict=True)
    ]


def _fit(x: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros added, then rows cropped where the number is negative; in this order a crop may be wider than the input."""
    if not any(n for pair in rows for n in pair):
        return x
    padded = F.pad(x, [max(n, 0) for pair in reversed(rows) for n in pair])
    if all(n >= 0 for pair in rows for n in pair):
        return padded
    for axis, (before, after) in enumerate(rows, start=x.dim() - len(rows)):
        first = max(-before, 0)
        padded = padded.narrow(axis, first, padded.shape[axis] - first - max(-after, 0))
    return _owned(padded)


def _owned(part: Tensor) -> Tensor:
    """A tensor that fills its memory: forward-mode derivatives refuse a result that is a part of a larger one."""
    return part.clone(memory_format=torch.contiguous_format)


def _flat(problem: Problem) -> Problem:
    """The problem of one axis with another one of height 1 before it."""
    return replace(
        problem, geometry=replace(problem.geometry, axes=(Axis(1), *problem.geometry.axes)), size=(1, *problem.size)
    )


def _split(axis: Axis, outputs: int) -> tuple[int, int, int]:
    """Phases, outputs of each and inputs of each."""
    common = gcd(axis.stride, axis.dilation)
    phases = axis.dilation // common
    longest = -(-outputs // phases)
    return phases, longest, (longest - 1) * (axis.stride // common) + axis.kernel


def _splits(problem: Problem) -> list[tuple[int, int, int]]:
    return [_split(axis, n) for axis, n in zip(problem.geometry.axes, problem.output_size, strict=True)]


def _dense(problem: Problem) -> Problem:
    """One phase's window, with all phases in the batch."""
    splits = _splits(problem)
    axes = tuple(Axis(a.kernel, a.stride // gcd(a.stride, a.dilation)) for a in problem.geometry.axes)
    return replace(
        problem,
        geometry=replace(problem.geometry, axes=axes),
        batch=problem.batch * prod(phases for phases, _, _ in splits),
        size=tuple(inputs for _, _, inputs in splits),
    )


def _reach(problem: Problem) -> list[tuple[int, int]]:
    """The rows that let every phase have as many outputs as the longest."""
    return _rows(problem, [phases * outputs for phases, outputs, _ in _splits(problem)])


def _strides(axis: Axis, phase: int, inputs: int) -> slice:
    start = phase * axis.stride
    return slice(start, start + (inputs - 1) * axis.dilation + 1, axis.dilation)


def _input_phases(x: Tensor, problem: Problem) -> Tensor:
    """The phases of every axis, the batch innermost: ``(phases * N, C, *size)``."""
    fitted = _fit(x, _reach(problem))
    for number, (axis, (phases, _, inputs)) in enumerate(zip(problem.geometry.axes, _splits(problem), strict=True)):
        place = (slice(None),) * (number + 2)
        fitted = torch.cat([fitted[(*place, _strides(axis, phase, inputs))] for phase in range(phases)])
    return fitted


def _input_of_phases(parts: Tensor, problem: Problem) -> Tensor:
    """The adjoint of :func:`_input_phases`."""
    rows = _reach(problem)
    layout = list(enumerate(zip(problem.geometry.axes, _splits(problem), problem.size, rows, strict=True)))
    for number, (axis, (phases, _, inputs), n, (before, after)) in reversed(layout):
        shape = list(parts.unflatten(0, (phases, parts.shape[0] // phases)).shape[1:])
        shape[number + 2] = n + before + after
        whole = parts.new_zeros(shape)
        place = (slice(None),) * (number + 2)
        for phase, part in enumerate(parts.chunk(phases)):
            whole[(*place, _strides(axis, phase, inputs))] += part
        parts = whole
    return _fit(parts, [(-before, -after) for before, after in rows])


def _output_phases(y: Tensor, problem: Problem) -> Tensor:
    """Outputs ``q m + j`` as position ``m`` of phase ``j``, with zeros where a phase is shorter than the longest."""
    splits = _splits(problem)
    missing = [(0, q * longest - n) for (q, longest, _), n in zip(splits, problem.output_size, strict=True)]
    whole = _fit(y, missing)
    for number, (phases, _, _) in enumerate(splits):
        place = (slice(None),) * (number + 2)
        whole = torch.cat([whole[(*place, slice(phase, None, phases))] for phase in range(phases)])
    return whole


def _output_of_phases(parts: Tensor, problem: Problem) -> Tensor:
    """The inverse of :func:`_output_phases`."""
    for number, (phases, _, _) in reversed(list(enumerate(_splits(problem)))):
        parts = parts.unflatten(0, (phases, parts.shape[0] // phases))
        parts = parts.movedim(0, number + 3).flatten(number + 2, number + 3)
    kept: Any = (..., *(slice(n) for n in problem.output_size))
    return _owned(parts[kept])


register("convolution", "channels_last", ChannelsLast())
register("convolution", "as_2d", As2d())
register("convolution", "in_float32", InFloat32())
register("convolution", "dilation_split", DilationSplit())
register("convolution", "stride_split", StrideSplit())
