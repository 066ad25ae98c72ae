"""Compiled kernels for the CPU as one operator of PyTorch's, and what the algorithms that call it share.

The operator knows its shape on fake tensors, its derivatives, its cost in operations and what it is made of in
PyTorch's own operators, so that compiling, exporting and counting need to know nothing else about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.nn import Parameter
from torch.utils.flop_counter import register_flop_formula

from ..borders import layout_of
from ..errors import AlgorithmError
from ..geometry import Axis, Geometry
from .im2col import Im2col
from .interface import Base, Problem

compiled: Any
try:
    from .. import _native as compiled
except ImportError:
    compiled = None
    warnings.warn(
        "Striate was installed without its compiled kernels, so that some convolutions and poolings take many times "
        "longer; install a C++ compiler (such as g++), then Striate again.",
        RuntimeWarning,
        stacklevel=2,
    )


AXES = 3
PAST = 160  # numbers of room past the ends of one packed example
TILES = 2**21  # bytes of packed tiles that one thread holds, at most
TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
FIELDS = ("kernel", "stride", "dilation", "before", "after", "period")
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
DERIVATIVES = {
    "forward": ("input_gradient", "weight_gradient"),
    "input_gradient": ("forward", "weight_gradient"),
    "weight_gradient": ("input_gradient", "forward"),
}


class Native(Base):
    """What the compiled algorithms share; each names the kernels that it calls by what stands in their lanes.

    Args:
        lanes: The name of the kernels.
        sums: Partial sums of a gradient of weights, at most.
    """

    def __init__(self, lanes: str, sums: int = 1) -> None:
        self.lanes, self.sums = lanes, sums

    def refuses(self, problem: Problem) -> str | None:
        """What no compiled kernel takes."""
        axes = len(problem.size)
        if compiled is None:
            return "the compiled kernels are not installed; install Striate where there is a C++ compiler."
        if not compiled.instruction_set():
            return "this processor lacks AVX2, which the compiled kernels need."
        if problem.device != "cpu":
            return f"the tensors are on {problem.device}; the compiled kernels are for the CPU."
        if problem.dtype not in TYPES:
            return f"the tensors are {problem.dtype}; the compiled kernels take {', '.join(map(str, TYPES))}."
        if 0 in (problem.in_channels, problem.out_channels):
            return f"there are {problem.in_channels} input and {problem.out_channels} output channels; it needs both."
        return None if axes <= AXES else f"the window has {axes} spatial axes; the compiled kernels have {AXES}."

    def workspace(self, problem: Problem) -> int:
        """Packed tiles of each thread, packed weights, and as many partial sums of their gradient as there may be.

        Gradients of weights that are used once are summed over all examples at once, at one position at least.
        """
        geometry, itemsize = problem.geometry, max(4, problem.dtype.itemsize)
        shape = geometry.weight_shape(problem.in_channels, problem.out_channels)
        everywhere = geometry.period == problem.output_size and prod(problem.output_size) > 1
        if problem.direction != "weight_gradient" or not everywhere:
            copies = self.sums if problem.direction == "weight_gradient" else 1
            return TILES * torch.get_num_threads() + copies * prod(shape) * itemsize
        read = problem.in_channels // geometry.groups * prod(axis.extent for axis in geometry.axes)
        packed = problem.batch * (read + problem.out_channels // geometry.groups + PAST) * itemsize
        return max(TILES * torch.get_num_threads(), packed) + prod(shape) * itemsize

    def bind(self, problem: Problem) -> Callable[[Tensor, Any], Tensor]:
        return _bound(self.lanes, problem)

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return _bound(self.lanes, problem)(first, second)


def plain(tensor: Tensor) -> bool:
    """Whether the memory holds the values as they are, and nothing records what is done with them."""
    own = type(tensor) is Tensor or type(tensor) is Parameter
    return own and not (tensor.is_neg() or tensor._is_zerotensor())


_modes, _tracing = torch._C._len_torch_dispatch_stack, torch._C._is_tracing  # looked up once


def watched() -> bool:
    """Whether a dispatch mode or a tracer looks on."""
    return _modes() > 0 or _tracing()


@lru_cache(maxsize=4096)
def _bound(lanes: str, problem: Problem) -> Callable[[Tensor, Any], Tensor]:
    """The call of a problem: the operator where something looks on, and else the kernels at once.

    Passing PyTorch's dispatcher takes longer than a small convolution.
    """
    direction, numbers = problem.direction, as_numbers(problem)
    kernels = _kernels(lanes, problem.dtype, direction, tuple(numbers))
    operator: Any = torch.ops.striate.native_convolution.default

    def call(first: Tensor, second: Any) -> Tensor:
        derived = torch.is_grad_enabled() and (first.requires_grad or second.requires_grad)
        if derived or watched() or not (plain(first) and plain(second)):
            return operator(first, second, lanes, direction, numbers)
        return kernels(first, second)

    return call


@lru_cache(maxsize=4096)
def as_numbers(problem: Problem) -> list[int]:
    """The problem without its batch, type and direction, as the operator takes it."""
    geometry = problem.geometry
    numbers = [problem.in_channels, problem.out_channels, geometry.groups]
    for n, axis in zip(problem.size, geometry.axes, strict=True):
        numbers += [n, *(getattr(axis, field) for field in FIELDS)]
    return numbers


def from_numbers(numbers: Sequence[int]) -> tuple[Geometry, tuple[int, ...]]:
    """The geometry and the sizes of :func:`as_numbers`."""
    rows = [numbers[i : i + 1 + len(FIELDS)] for i in range(3, len(numbers), 1 + len(FIELDS))]
    axes = tuple(Axis(**dict(zip(FIELDS, row[1:], strict=True))) for row in rows)
    return Geometry(axes, numbers[2]), tuple(row[0] for row in rows)


@lru_cache(maxsize=4096)
def posed(batch: int, dtype: torch.dtype, direction: str, numbers: tuple[int, ...]) -> Problem:
    """The problem of :func:`as_numbers`."""
    geometry, size = from_numbers(numbers)
    return Problem("convolution", geometry, batch, numbers[0], numbers[1], size, dtype, direction=direction)


@lru_cache(maxsize=4096)
def shape_and_window(direction: str, numbers: tuple[int, ...]) -> tuple[tuple[int, ...], list[int]]:
    """Shape of the result without its batch, and what the kernels take after the batch.

    They know three axes; windows of fewer have leading axes of one position and one tap.
    """
    geometry, size = from_numbers(numbers)
    channels, outputs, groups = numbers[:3]
    out = geometry.output_size(size)
    shape: tuple[int, ...] = {
        "forward": (outputs, *out),
        "input_gradient": (channels, *size),
        "weight_gradient": geometry.weight_shape(channels, outputs),
    }[direction]
    told = [channels, outputs, groups, *[1, 1, 1, 1, 1, 0, 1] * (AXES - len(size))]
    for n, o, axis in zip(size, out, geometry.axes, strict=True):
        told += [n, o, axis.kernel, axis.stride, axis.dilation, axis.before, axis.period]
    return shape, told


def empty_result(first: Tensor, direction: str, shape: tuple[int, ...]) -> Tensor:
    """Room for the result: maps are laid in memory like the first operand, weights in their own order."""
    if direction == "weight_gradient":
        return first.new_empty(shape)
    if layout_of(first) == "channels_last":
        return first.new_empty((first.shape[0], *shape[1:], shape[0])).movedim(-1, 1)
    return first.new_empty((first.shape[0], *shape))


@lru_cache(maxsize=4096)
def _lying(size: torch.Size, strides: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of the result of maps that have this size and these strides."""
    return empty_result(torch.empty_strided(size, strides, device="meta"), "forward", shape).stride()


def five_strides(tensor: Tensor) -> list[int]:
    """Strides of batch, channel and three positions."""
    strides = tensor.stride()
    return [*strides[:2], *[0] * (2 + AXES - len(strides)), *strides[2:]]


@lru_cache(maxsize=4096)
def _kernels(lanes: str, dtype: torch.dtype, direction: str, numbers: tuple[int, ...]) -> Callable[..., Tensor]:
    """The kernels of a problem; they read memory by its numbers, so a tensor that is not theirs is refused."""
    shape, told = shape_and_window(direction, numbers)
    solve = compiled.convolution(lanes, TYPES[dtype], direction, told)
    shapes = {role: shape_and_window(role, numbers)[0] for role in DERIVATIVES}
    of_weights = direction == "weight_gradient"
    inputs, outputs = shapes["input_gradient"], shapes["forward"]
    expected = outputs if direction == "input_gradient" else inputs
    second_shape = ("N", *outputs) if of_weights else shapes["weight_gradient"]

    def kernels(first: Tensor, second: Tensor) -> Tensor:
        batch, *given = first.shape
        if first.dtype != dtype or second.dtype != dtype:
            raise AlgorithmError(f"The kernels for {dtype} were given {first.dtype} and {second.dtype}.")
        if tuple(given) != expected or second.shape != ((batch, *outputs) if of_weights else second_shape):
            wanted = [f"({', '.join(map(str, shape))})" for shape in (("N", *expected), second_shape)]
            raise AlgorithmError(
                f"The kernels take {wanted[0]} and {wanted[1]}; they were given {tuple(first.shape)} and "
                f"{tuple(second.shape)}."
            )
        if of_weights:
            result = first.new_empty(shape)
        else:
            result = first.new_empty_strided((batch, *shape), _lying(first.shape, first.stride(), shape))
        if batch == 0:
            return result.zero_()
        weight = (result if of_weights else second).contiguous()
        maps, results = (result, first) if direction == "input_gradient" else (first, second if of_weights else result)
        solve(batch, maps.data_ptr(), maps.stride(), results.data_ptr(), results.stride(), weight.data_ptr())
        return result

    return kernels


def _compute(first: Tensor, second: Tensor, lanes: str, direction: str, numbers: list[int]) -> Tensor:
    return _kernels(lanes, first.dtype, direction, tuple(numbers))(first, second)


def _fake(first: Tensor, second: Tensor, lanes: str, direction: str, numbers: list[int]) -> Tensor:
    return empty_result(first, direction, shape_and_window(direction, tuple(numbers))[0])


def _decomposed(first: Tensor, second: Tensor, lanes: str, direction: str, numbers: list[int]) -> Tensor:
    return Im2col().run(first, second, posed(int(first.shape[0]), first.dtype, direction, tuple(numbers)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    first, second, ctx.lanes, ctx.direction, ctx.numbers = inputs
    ctx.save_for_backward(first, second)


def derivatives(ctx: Any, gradient: Tensor, solve: Callable[[Tensor, Tensor, str], Tensor]) -> list[Tensor | None]:
    """Each operand is solved for with the gradient in the place of the result: see :mod:`striate.trilinear`.

    Args:
        ctx: What the operator kept: its two operands and its direction.
        gradient: Of its result.
        solve: The operator, given operands and direction.
    """
    first, second = ctx.saved_tensors
    operands = {
        "forward": ((gradient, second), (first, gradient)),
        "input_gradient": ((gradient, second), (gradient, first)),
        "weight_gradient": ((second, gradient), (first, gradient)),
    }[ctx.direction]
    return [
        solve(*pair, direction) if needed else None
        for needed, pair, direction in zip(ctx.needs_input_grad, operands, DERIVATIVES[ctx.direction], strict=False)
    ]


def operations(batch: int, numbers: list[int]) -> int:
    """Two for each multiply-add, whose number is the same in all directions."""
    return 2 * posed(batch, torch.float32, "forward", tuple(numbers)).work


def _derive(ctx: Any, gradient: Tensor) -> Any:
    operator: Any = torch.ops.striate.native_convolution
    lanes, numbers = ctx.lanes, ctx.numbers
    solved = derivatives(ctx, gradient, lambda one, other, direction: operator(one, other, lanes, direction, numbers))
    return *solved, None, None, None


def _operations(first: Any, second: Any, lanes: str, direction: str, numbers: list[int], **_: Any) -> int:
    return operations(first[0], numbers)


LIBRARY = torch.library.Library("striate", "DEF")
LIBRARY.define(
    "native_convolution(Tensor first, Tensor second, str lanes, str direction, int[] numbers) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
)
NAME = "striate::native_convolution"
LIBRARY.impl("native_convolution", _compute, "CPU")
torch.library.register_fake(NAME, _fake, lib=LIBRARY)
torch.library.register_autograd(NAME, _derive, setup_context=_keep, lib=LIBRARY)
register_flop_formula(torch.ops.striate.native_convolution)(_operations)
register_decomposition(torch.ops.striate.native_convolution.default)(_decomposed)
