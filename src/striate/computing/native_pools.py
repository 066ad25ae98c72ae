"""Poolings by compiled kernels, as operators of PyTorch's: the work does not grow with the kernel."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.utils.flop_counter import register_flop_formula

from ..taps import counts
from . import passes, pools
from .interface import Problem, register
from .native import LAST, LIBRARY, TYPES, Native, _numbers, _read, _window, compiled
from .reference import accumulator

COMPILED = Native("windows")
PLACES = 2**31
OTHER = {"forward": "input_gradient", "input_gradient": "forward"}


class NativePool(pools._Pooling):
    """Rows merged from memory into a row that stays in cache, then the neighbours within it; see native/pooling.cpp.

    Args:
        directions: Those that the operation has.
    """

    def __init__(self, *directions: str) -> None:
        self.directions = directions

    def refuses(self, problem: Problem) -> str | None:
        places = prod(problem.size)
        if problem.operation == "switches" and places >= PLACES:
            return f"the map has {places} places; the compiled kernels know {PLACES - 1}."
        return COMPILED.refuses(problem) or super().refuses(problem)

    def estimate(self, problem: Problem) -> int:
        backward = problem.direction == "input_gradient"
        return passes.work(problem.geometry, problem.size, passes.slide_work, backward=backward)

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return _pool(first, second, problem.operation, problem.direction, problem.divisor, _numbers(problem))


def largest_and_places(x: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Each window's largest value and its switch in one pass; the gradient goes where the switches say."""
    operator: Any = torch.ops.striate.native_maximum
    values, switches = operator(x, _numbers(problem))
    return values, switches


def mean(x: Tensor, problem: Problem) -> Tensor:
    """The mean of the real values in each window."""
    return _pool(x, None, "sum", "forward", 0, _numbers(problem))


def norm(x: Tensor, problem: Problem) -> Tensor:
    """The root of the sum of squares in each window, summed in float64; where it is 0 so is the gradient."""
    return _pool(x, None, "norm", "forward", 1, _numbers(problem))


def _pool(*operands: Any) -> Tensor:
    operator: Any = torch.ops.striate.native_pool
    result: Tensor = operator(*operands)
    return result


@lru_cache(maxsize=4096)
def _posed(operation: str, direction: str, divisor: int, dtype: torch.dtype, numbers: tuple[int, ...]) -> Problem:
    geometry, size = _read(numbers)
    return Problem(operation, geometry, 1, 1, 1, size, dtype, divisor=divisor, direction=direction)


def _real(numbers: list[int], like: Tensor) -> Tensor:
    """How many real values each window reads."""
    geometry, size = _read(numbers)
    windows = like.new_ones((), dtype=accumulator(like.dtype))
    for n, axis in zip(size, geometry.axes, strict=True):
        windows = windows.unsqueeze(-1) * windows.new_tensor(counts(axis, n))
    return windows


def _layout(first: Tensor) -> torch.memory_format:
    """Channels-last where the operand is laid so and not also the other way."""
    last = LAST.get(first.dim() - 2)
    is_last = last is not None and not first.is_contiguous() and first.is_contiguous(memory_format=last)
    return last if last is not None and is_last else torch.contiguous_format


def _fake(
    first: Tensor, second: Tensor | None, operation: str, direction: str, divisor: int, numbers: list[int]
) -> Tensor:
    shape = (*first.shape[:2], *_window(direction, tuple(numbers))[0][1:])
    dtype = torch.int64 if operation == "switches" and direction == "forward" else first.dtype
    return torch.empty(shape, dtype=dtype, device=first.device, memory_format=_layout(first))


def _compute(
    first: Tensor, second: Tensor | None, operation: str, direction: str, divisor: int, numbers: list[int]
) -> Tensor:
    first = first.contiguous(memory_format=_layout(first))
    result = _fake(first, second, operation, direction, divisor, numbers)
    switches = None if second is None else second.contiguous(memory_format=_layout(first))
    _fill(result, first, switches, operation, direction, divisor, numbers)
    return result


def _fill(
    result: Tensor,
    first: Tensor,
    second: Tensor | None,
    operation: str,
    direction: str,
    divisor: int,
    numbers: list[int],
) -> None:
    """Call the kernels, for tensors of one layout that is dense."""
    if result.numel() == 0:
        return
    batch, channels = first.shape[:2]
    compiled.pool(
        operation, TYPES[first.dtype], direction,
        [batch, channels, channels, *_window(direction, tuple(numbers))[1][2:]],
        _layout(first) != torch.contiguous_format, divisor,
        first.data_ptr(), 0 if second is None else second.data_ptr(), result.data_ptr(),
    )  # fmt: skip


def _decomposed(
    first: Tensor, second: Tensor | None, operation: str, direction: str, divisor: int, numbers: list[int]
) -> Tensor:
    asked = _posed(operation, direction, divisor or 1, first.dtype, tuple(numbers))
    if second is not None:
        return pools.Switches().spread(first, second, asked)
    if operation == "norm":
        return pools.SeparableSum().run(first.double().square(), None, asked).sqrt().to(first.dtype)
    if operation == "maximum":
        return pools.SeparableMaximum().run(first, None, asked)
    if operation == "switches":
        return pools.SeparableSwitches().run(first, None, asked)
    if divisor:
        return pools.SeparableSum().run(first, None, asked)
    wide = first.to(accumulator(first.dtype))
    return (pools.SeparableSum().run(wide, None, asked) / _real(numbers, first)).to(first.dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    first, second, ctx.operation, ctx.direction, ctx.divisor, ctx.numbers = inputs
    spread = ctx.operation == "switches" and ctx.direction == "input_gradient"
    ctx.save_for_backward(second if spread else first, output if ctx.operation == "norm" else None)


def _derive(ctx: Any, gradient: Tensor) -> Any:
    """The adjoint of what is linear, and of a maximum once its switches are found."""
    kept, output = ctx.saved_tensors
    if ctx.operation == "maximum":
        switches = _pool(kept, None, "switches", "forward", 1, ctx.numbers)
        back = _pool(gradient, switches, "switches", "input_gradient", 1, ctx.numbers)
    elif ctx.operation == "norm":
        slope = torch.where(output == 0, 0, gradient / torch.where(output == 0, 1, output))
        back = kept * _pool(slope, None, "sum", "input_gradient", 1, ctx.numbers)
    elif ctx.operation == "switches":
        back = None
        if ctx.direction == "input_gradient":
            back = gradient.flatten(2).gather(2, kept.flatten(2)).view(kept.shape)
    elif ctx.divisor:
        back = _pool(gradient, None, "sum", OTHER[ctx.direction], ctx.divisor, ctx.numbers)
    else:
        share = (gradient / _real(ctx.numbers, gradient)).to(gradient.dtype)
        back = _pool(share, None, "sum", "input_gradient", 1, ctx.numbers)
    return back, None, None, None, None, None


def _maximum(x: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
    x = x.contiguous(memory_format=_layout(x))
    values, switches = _fake_maximum(x, numbers)
    _fill(switches, x, values, "switches", "forward", 1, numbers)
    return values, switches


def _fake_maximum(x: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
    options: Any = ("forward", 1, numbers)
    return _fake(x, None, "maximum", *options), _fake(x, None, "switches", *options)


def _decomposed_maximum(x: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
    switches = _decomposed(x, None, "switches", "forward", 1, numbers)
    return x.flatten(2).gather(2, switches.flatten(2)).view(switches.shape), switches


def _keep_maximum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.numbers = inputs[1]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _derive_maximum(ctx: Any, gradient: Tensor, _: Any) -> Any:
    return _pool(gradient, ctx.saved_tensors[0], "switches", "input_gradient", 1, ctx.numbers), None


def _reads(first: Any, second: Any, operation: str, direction: str, divisor: int, numbers: list[int], **_: Any) -> int:
    """One operation for each value that a window merges."""
    return int(first[0] * first[1] * _posed("sum", "forward", 1, torch.float32, tuple(numbers)).work)


def _reads_maximum(x: Any, numbers: list[int], **_: Any) -> int:
    return _reads(x, None, "maximum", "forward", 1, numbers)


TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
LIBRARY.define(
    "native_pool(Tensor first, Tensor? second, str operation, str direction, int divisor, int[] numbers) -> Tensor",
    tags=TAGS,
)
LIBRARY.impl("native_pool", _compute, "CPU")
torch.library.register_fake("striate::native_pool", _fake, lib=LIBRARY)
torch.library.register_autograd("striate::native_pool", _derive, setup_context=_keep, lib=LIBRARY)
register_flop_formula(torch.ops.striate.native_pool)(_reads)
register_decomposition(torch.ops.striate.native_pool.default)(_decomposed)

LIBRARY.define("native_maximum(Tensor x, int[] numbers) -> (Tensor values, Tensor switches)", tags=TAGS)
LIBRARY.impl("native_maximum", _maximum, "CPU")
torch.library.register_fake("striate::native_maximum", _fake_maximum, lib=LIBRARY)
torch.library.register_autograd("striate::native_maximum", _derive_maximum, setup_context=_keep_maximum, lib=LIBRARY)
register_flop_formula(torch.ops.striate.native_maximum)(_reads_maximum)
register_decomposition(torch.ops.striate.native_maximum.default)(_decomposed_maximum)

register("maximum", "native", NativePool("forward"))
register("switches", "native", NativePool(*pools.BOTH))
register("sum", "native", NativePool(*pools.BOTH))
