"""Poolings by compiled kernels, as operators of PyTorch's: the work does not grow with the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from ..borders import LAYOUTS, layout_of
from ..errors import AlgorithmError
from ..geometry import Geometry
from ..taps import counts
from . import passes, pools
from .interface import Problem, register
from .native import LAST, LIBRARY, TYPES, Native, as_numbers, compiled, from_numbers, plain, shape_and_window, watched
from .reference import accumulator

COMPILED = Native("windows")
PLACES = 2**31
ALONE = (0, 0, 0, 0, 0)  # addresses of values, switches, marks, norms and inputs that a kernel does not need
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
        return _pool(first, second, problem.operation, problem.direction, problem.divisor, as_numbers(problem))


def largest_and_places(x: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Each window's largest value and its place in one pass; the gradient goes to that place.

    Where :func:`marked` says so, a place is told by its mark, a byte: the number of the tap that holds it.
    """
    operator: Any = _maximum if _unseen(x) else torch.ops.striate.native_maximum
    values, places = operator(x, as_numbers(problem))
    return values, places


def marked(problem: Problem) -> bool:
    """Whether largest values come with marks: channels are last, and the taps few.

    What a window marks is then gathered by those inputs that it reads, in one pass.
    """
    return problem.layout == LAYOUTS[1] and len(problem.size) in LAST and _few(problem.geometry)


def switches_of(marks: Tensor, problem: Problem) -> Tensor:
    """The switches that marks stand for; switches stay what they are."""
    return marks if marks.dtype != torch.uint8 else _places(marks, as_numbers(problem))


def collect(y: Tensor, marks: Tensor, problem: Problem) -> Tensor:
    """``x[i] = sum of y[o]`` over the windows whose mark is the tap that reads i."""
    return _pool(y, marks, "switches", "input_gradient", 1, as_numbers(problem))


def mean(x: Tensor, problem: Problem) -> Tensor:
    """The mean of the real values in each window."""
    return _pool(x, None, "sum", "forward", 0, as_numbers(problem))


def norm(x: Tensor, problem: Problem) -> Tensor:
    """The root of the sum of squares in each window, summed in float64; where it is 0 so is the gradient."""
    return _pool(x, None, "norm", "forward", 1, as_numbers(problem))


def norm_gradient(gradient: Tensor, norms: Tensor, x: Tensor, problem: Problem) -> Tensor:
    """X times the sum of gradient / norm over the windows that read it, without those whose norm is 0."""
    unseen = _unseen(gradient, norms, x)
    operator: Any = _norm_gradient if unseen else torch.ops.striate.native_norm_gradient
    result: Tensor = operator(gradient, norms, x, as_numbers(problem))
    return result


def _pool(first: Tensor, second: Tensor | None, *rest: Any) -> Tensor:
    """The operator where something looks on, and else the kernels at once: PyTorch's dispatcher takes its time."""
    if _unseen(first) if second is None else _unseen(first, second):
        return _compute(first, second, *rest)
    operator: Any = torch.ops.striate.native_pool
    result: Tensor = operator(first, second, *rest)
    return result


_grad, _active = torch.is_grad_enabled, torch._C._are_functorch_transforms_active  # looked up once


def _unseen(*tensors: Tensor) -> bool:
    """Whether nothing records what is done with the tensors, which lie in memory as they are."""
    if watched() or _active() or forward_ad._current_level >= 0 or torch.compiler.is_compiling():
        return False
    return all(map(plain, tensors)) and not (_grad() and any(x.requires_grad for x in tensors))


@lru_cache(maxsize=4096)
def _posed(operation: str, direction: str, divisor: int, dtype: torch.dtype, numbers: tuple[int, ...]) -> Problem:
    geometry, size = from_numbers(numbers)
    return Problem(operation, geometry, 1, 1, 1, size, dtype, divisor=divisor, direction=direction)


def _real(numbers: list[int], like: Tensor) -> Tensor:
    """How many real values each window reads."""
    geometry, size = from_numbers(numbers)
    windows = like.new_ones((), dtype=accumulator(like.dtype))
    for n, axis in zip(size, geometry.axes, strict=True):
        windows = windows.unsqueeze(-1) * windows.new_tensor(counts(axis, n))
    return windows


def _layout(first: Tensor) -> torch.memory_format:
    """Channels-last where the operand is laid so and not also the other way."""
    last = LAST.get(first.dim() - 2)
    if last is None or not first.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last if layout_of(first) == LAYOUTS[1] else torch.contiguous_format


def _fake(
    first: Tensor, second: Tensor | None, operation: str, direction: str, divisor: int, numbers: list[int]
) -> Tensor:
    dtype = torch.int64 if _places_of(operation, direction) else first.dtype
    return _room(first, direction, numbers, _layout(first), dtype)


def _compute(
    first: Tensor, second: Tensor | None, operation: str, direction: str, divisor: int, numbers: list[int]
) -> Tensor:
    given = second is not None
    if second is not None and second.shape != first.shape:
        raise AlgorithmError(f"Switches {tuple(second.shape)} are not those of maps {tuple(first.shape)}.")
    if direction == "input_gradient" and (operation in ("maximum", "norm") or (operation == "switches") != bool(given)):
        raise AlgorithmError(f"There is no {direction} of {operation!r} {'with' if given else 'without'} switches.")
    if second is not None and second.dtype not in (torch.int64, torch.uint8):
        raise AlgorithmError(f"Switches are int64, or uint8 where they are marks; these are {second.dtype}.")
    if second is not None and second.dtype == torch.uint8:
        return _collect(first, second, numbers)
    layout = _layout(first)
    first = first.contiguous(memory_format=layout)
    result = _room(first, direction, numbers, layout, torch.int64 if _places_of(operation, direction) else first.dtype)
    if divisor == 0 and direction == "input_gradient" and not _direct(first, numbers):
        first, divisor = _share(first, numbers).contiguous(memory_format=layout), 1
    others = ALONE
    if second is not None:
        second = second.contiguous(memory_format=layout)
        others = (0, second.data_ptr(), 0, 0, 0)
    _kernels(operation, first.dtype, direction, divisor, tuple(numbers), layout)(result, first, others)
    return result


def _places_of(operation: str, direction: str) -> bool:
    """Whether the result is places, not values."""
    return operation == "switches" and direction == "forward"


def _room(
    first: Tensor, direction: str, numbers: Sequence[int], layout: torch.memory_format, dtype: torch.dtype
) -> Tensor:
    """Memory for the result of an operand that lies so."""
    shape = (*first.shape[:2], *shape_and_window(direction, tuple(numbers))[0][1:])
    return torch.empty(shape, dtype=dtype, device=first.device, memory_format=layout)


def _collect(y: Tensor, marks: Tensor, numbers: list[int]) -> Tensor:
    last = LAST[y.dim() - 2]
    y, marks = y.contiguous(memory_format=last), marks.contiguous(memory_format=last)
    result = _room(y, "input_gradient", numbers, last, y.dtype)
    kernels = _kernels("switches", y.dtype, "input_gradient", 1, tuple(numbers), last)
    kernels(result, y, (0, 0, marks.data_ptr(), 0, 0))
    return result


def _direct(first: Tensor, numbers: list[int]) -> bool:
    """Whether the kernels of few taps serve."""
    return _layout(first) is not torch.contiguous_format and _few_taps(tuple(numbers))


@lru_cache(maxsize=4096)
def _few_taps(numbers: tuple[int, ...]) -> bool:
    return _few(from_numbers(numbers)[0])


def _few(geometry: Geometry) -> bool:
    """Whether a byte counts the taps and there are kernels for so few."""
    return compiled is not None and prod(geometry.kernel) <= compiled.direct_taps


def _share(y: Tensor, numbers: list[int]) -> Tensor:
    """What each real value of a window is given of its mean's gradient."""
    return (y / _real(numbers, y)).to(y.dtype)


Kernels = Callable[[Tensor, Tensor, tuple[int, ...]], None]


@lru_cache(maxsize=4096)
def _kernels(
    operation: str,
    dtype: torch.dtype,
    direction: str,
    divisor: int,
    numbers: tuple[int, ...],
    layout: torch.memory_format,
) -> Kernels:
    """The kernels of a pooling, for dense tensors of one layout: ``(result, operand, addresses of others)``."""
    before, after = (shape_and_window(way, numbers)[0][1:] for way in (OTHER[direction], direction))
    window = [1, 1, *shape_and_window(direction, numbers)[1][2:]]
    last = layout is not torch.contiguous_format
    run = compiled.pooling(operation, TYPES[dtype], direction, window, last, divisor)

    def kernels(result: Tensor, first: Tensor, others: tuple[int, ...]) -> None:
        batch, channels, *size = first.shape
        if tuple(size) != before or result.shape != (batch, channels, *after):
            raise AlgorithmError(f"The kernels lead from maps of {before} to {after}, not from {tuple(size)}.")
        if result.numel():
            run(batch, channels, first.data_ptr(), others, result.data_ptr())

    return kernels


def _decomposed(
    first: Tensor, second: Tensor | None, operation: str, direction: str, divisor: int, numbers: list[int]
) -> Tensor:
    asked = _posed(operation, direction, divisor or 1, first.dtype, tuple(numbers))
    if second is not None:
        switches = _places(second, numbers) if second.dtype == torch.uint8 else second
        return pools.Switches().spread(first, switches, asked)
    if operation == "norm":
        return pools.SeparableSum().run(first.double().square(), None, asked).sqrt().to(first.dtype)
    if operation == "maximum":
        return pools.SeparableMaximum().run(first, None, asked)
    if operation == "switches":
        return pools.SeparableSwitches().run(first, None, asked)
    if divisor:
        return pools.SeparableSum().run(first, None, asked)
    wide = first.to(accumulator(first.dtype))
    if direction == "input_gradient":
        return pools.SeparableSum().run(wide / _real(numbers, first), None, asked).to(first.dtype)
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
            switches = _places(kept, ctx.numbers) if kept.dtype == torch.uint8 else kept
            back = gradient.flatten(2).gather(2, switches.flatten(2)).view(kept.shape)
    else:
        back = _pool(gradient, None, "sum", OTHER[ctx.direction], ctx.divisor, ctx.numbers)
    return back, None, None, None, None, None


def _maximum(x: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
    layout, told = _layout(x), tuple(numbers)
    x = x.contiguous(memory_format=layout)
    values = _room(x, "forward", told, layout, x.dtype)
    marked = layout is not torch.contiguous_format and _few_taps(told)
    places = torch.empty_like(values, dtype=torch.uint8 if marked else torch.int64)
    if marked:
        kernels = _kernels("maximum", x.dtype, "forward", 1, told, layout)
        kernels(values, x, (0, 0, places.data_ptr(), 0, 0))
    else:
        kernels = _kernels("switches", x.dtype, "forward", 1, told, layout)
        kernels(places, x, (values.data_ptr(), 0, 0, 0, 0))
    return values, places


def _fake_maximum(x: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
    options: Any = ("forward", 1, numbers)
    values = _fake(x, None, "maximum", *options)
    return values, torch.empty_like(values, dtype=torch.uint8) if _direct(x, numbers) else _fake(
        x, None, "switches", *options
    )


def _decomposed_maximum(x: Tensor, numbers: list[int]) -> tuple[Tensor, Tensor]:
    switches = _decomposed(x, None, "switches", "forward", 1, numbers)
    values = x.flatten(2).gather(2, switches.flatten(2)).view(switches.shape)
    _, places = _fake_maximum(x, numbers)
    return values, switches if places.dtype == torch.int64 else _marks(switches, numbers)


def _places(marks: Tensor, numbers: Sequence[int]) -> Tensor:
    """The places in a map of the taps that marks number."""
    geometry, size = from_numbers(numbers)
    taps, places, unit = marks.long(), torch.zeros_like(marks, dtype=torch.int64), 1
    for axis, n, starts in reversed(list(zip(geometry.axes, size, _starts(marks, geometry), strict=True))):
        places = places + (starts + taps % axis.kernel * axis.dilation) * unit
        taps, unit = taps // axis.kernel, unit * n
    return places


def _marks(switches: Tensor, numbers: Sequence[int]) -> Tensor:
    """The other way around."""
    geometry, size = from_numbers(numbers)
    places, marks, unit = switches, torch.zeros_like(switches), 1
    for axis, n, starts in reversed(list(zip(geometry.axes, size, _starts(switches, geometry), strict=True))):
        marks = marks + (places % n - starts) // axis.dilation * unit
        places, unit = places // n, unit * axis.kernel
    return marks.to(torch.uint8)


def _starts(outputs: Tensor, geometry: Geometry) -> list[Tensor]:
    """Where each window's first tap stands, axis by axis."""
    axes = enumerate(geometry.axes, start=2)
    steps = ((dim, axis, torch.arange(outputs.shape[dim], device=outputs.device)) for dim, axis in axes)
    return [(o * axis.stride - axis.before).view(-1, *[1] * (outputs.dim() - dim - 1)) for dim, axis, o in steps]


def _keep_maximum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.numbers = inputs[1]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _derive_maximum(ctx: Any, gradient: Tensor, _: Any) -> Any:
    return _pool(gradient, ctx.saved_tensors[0], "switches", "input_gradient", 1, ctx.numbers), None


def _norm_gradient(gradient: Tensor, norm: Tensor, x: Tensor, numbers: list[int]) -> Tensor:
    size, windows = (shape_and_window(way, tuple(numbers))[0][1:] for way in ("input_gradient", "forward"))
    if tuple(x.shape[2:]) != size:
        raise AlgorithmError(f"The windows read maps of {size}; x has {tuple(x.shape[2:])}.")
    maps = (*x.shape[:2], *windows)
    if not gradient.shape == norm.shape == maps or not gradient.dtype == norm.dtype == x.dtype:
        raise AlgorithmError(
            f"For x {tuple(x.shape)} of {x.dtype}, gradient and norm are {maps} of the same type; they are "
            f"{tuple(gradient.shape)} of {gradient.dtype} and {tuple(norm.shape)} of {norm.dtype}."
        )
    layout = _layout(x)
    x = x.contiguous(memory_format=layout)
    if not _direct(x, numbers):
        return _decomposed_norm_gradient(gradient, norm, x, numbers)
    gradient, norm = gradient.contiguous(memory_format=layout), norm.contiguous(memory_format=layout)
    result = torch.empty_like(x, memory_format=layout)
    kernels = _kernels("norm", x.dtype, "input_gradient", 1, tuple(numbers), layout)
    kernels(result, gradient, (0, 0, 0, norm.data_ptr(), x.data_ptr()))
    return result


def _fake_norm_gradient(gradient: Tensor, norm: Tensor, x: Tensor, numbers: list[int]) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x))


def _decomposed_norm_gradient(gradient: Tensor, norm: Tensor, x: Tensor, numbers: list[int]) -> Tensor:
    """X times what stands for 1 / norm at its windows, where a norm of 0 gives nothing."""
    slope = torch.where(norm == 0, 0, gradient / norm).contiguous(memory_format=_layout(x))
    back = _pool(slope, None, "sum", "input_gradient", 1, numbers).mul_(x)
    return back.contiguous(memory_format=_layout(x))


def _reads_norm_gradient(gradient: Any, norm: Any, x: Any, numbers: list[int], **_: Any) -> int:
    return _reads(x, None, "norm", "forward", 1, numbers)


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

LIBRARY.define("native_norm_gradient(Tensor gradient, Tensor norm, Tensor x, int[] numbers) -> Tensor", tags=TAGS)
LIBRARY.impl("native_norm_gradient", _norm_gradient, "CPU")
torch.library.register_fake("striate::native_norm_gradient", _fake_norm_gradient, lib=LIBRARY)
register_flop_formula(torch.ops.striate.native_norm_gradient)(_reads_norm_gradient)
register_decomposition(torch.ops.striate.native_norm_gradient.default)(_decomposed_norm_gradient)

register("maximum", "native", NativePool("forward"))
register("switches", "native", NativePool(*pools.BOTH))
register("sum", "native", NativePool(*pools.BOTH))
