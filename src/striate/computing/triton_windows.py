"""Convolution on graphics processors by kernels in Triton, as one operator of PyTorch's.

Triton is loaded when the first of them runs. Where ``TRITON_INTERPRET=1`` stood in the environment before that, the
kernels run on the CPU, one program after the other: slow, for tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.utils.flop_counter import register_flop_formula

from ..geometry import Axis
from .im2col import Im2col
from .interface import Base, Problem, register
from .native import (
    AXES,
    as_numbers,
    derivatives,
    empty_result,
    five_strides,
    from_numbers,
    operations,
    posed,
    shape_and_window,
)
from .reference import accumulator

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CAPABILITY = (8, 0)
WIDE = 2**31  # a tensor that spans as many numbers is indexed with 64 bits
PROGRAMS, CHUNK = 1024, 512  # sums of weight gradients are split into so many programs, of so many rows at least
FEW = 32  # result channels of a group that float32 sums without tensor cores
UNROLLED = 16  # taps of the last axis
TF32 = 7e-4  # expected error over the output's root mean square: ten bits, of which the cores cut off the rest
SCALARS = 4  # pairs of channels of a group whose weight gradients are summed without products of matrices


Launch = Callable[[Any, Callable[[Any], int], tuple[Tensor, ...], dict[str, Any]], None]


class Kernels(Base):
    """Every window on up to three axes, in all directions, with float32 sums for the 16-bit types.

    Depthwise windows, and float32 ones with few channels in a group, are multiply-adds on positions by channels; the
    others, and all weights that repeat with a period, are products of matrices gathered on the way. See
    :mod:`striate.computing.triton_kernels`.
    """

    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.size)
        if find_spec("triton") is None:
            return "Triton is not installed; it comes with PyTorch for graphics processors, or as the package triton."
        if problem.device != "cuda" and not (problem.device == "cpu" and interpreted()):
            return (
                f"the tensors are on {problem.device}; Triton's kernels run on cuda, or on the CPU for tests where "
                "TRITON_INTERPRET=1 is set before Python starts."
            )
        if problem.dtype not in TYPES:
            return f"the tensors are {problem.dtype}; Triton's kernels take {', '.join(map(str, TYPES))}."
        if 0 in (problem.in_channels, problem.out_channels):
            return f"there are {problem.in_channels} input and {problem.out_channels} output channels; it needs both."
        if axes > AXES:
            return f"the window has {axes} spatial axes; Triton's kernels have {AXES}."
        if problem.device == "cuda" and (found := _capability()) is not None and found < CAPABILITY:
            return f"the device has compute capability {found[0]}.{found[1]}; Triton's kernels need 8.0."
        return None

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        operator: Any = torch.ops.striate.triton_convolution
        return operator(
            first, second, problem.direction, as_numbers(problem), rounds(problem), problem.policy.deterministic
        )

    def error(self, problem: Problem) -> float:
        return TF32 if rounds(problem) else 0.0


def rounds(problem: Problem) -> bool:
    """Whether float32 is multiplied as TF32: where PyTorch allows its convolutions to, and the policy's tolerance too.

    Sums of 16-bit numbers use the same cores and lose nothing; without them float32 is summed as it is.
    """
    setting: Any = torch.backends.cudnn
    allowed = setting.conv.fp32_precision == "tf32" and problem.policy.tolerance >= TF32
    return problem.dtype == torch.float32 and allowed


def interpreted() -> bool:
    """Whether Triton's interpreter was asked for."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _capability() -> tuple[int, int] | None:
    """Of NVIDIA's current device; None where there is none, as when a plan is made for another machine."""
    if torch.version.hip is not None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability()


@lru_cache(maxsize=4096)
def _line(axis: Axis, *, forward: bool, folded: bool) -> tuple[int, ...]:
    """One axis as the kernels take it; ``folded`` where the results of a class share their weights too."""
    common, period = gcd(axis.stride, axis.dilation), axis.period if folded else 1
    own = (axis.kernel, axis.stride, axis.dilation, axis.period, common)
    if forward:
        return axis.kernel, 1, axis.dilation, axis.stride * period, period, *own, 0
    step = axis.stride // common
    inverse = pow(axis.dilation // common, -1, step) if step > 1 else 0
    return -(-axis.kernel // step), step, -(axis.dilation // common), period, axis.stride * period, *own, inverse


@lru_cache(maxsize=4096)
def _lines(numbers: tuple[int, ...], *, forward: bool, folded: bool) -> dict[str, Any]:
    """All three axes, and the rows before each as whole strides and a rest."""
    axes = from_numbers(numbers)[0].axes
    padded = (*[Axis(1)] * (AXES - len(axes)), *axes)
    told: dict[str, Any] = {f"AXIS{i}": _line(axis, forward=forward, folded=folded) for i, axis in enumerate(padded)}
    for i, axis in enumerate(padded):
        told[f"q{i}"], told[f"e{i}"] = divmod(axis.before, axis.stride)
    return told


def _compute(
    first: Tensor, second: Tensor, direction: str, numbers: list[int], tf32: bool, deterministic: bool
) -> Tensor:
    shape, _ = shape_and_window(direction, tuple(numbers))
    result = empty_result(first, direction, shape)
    if first.shape[0] == 0 or 0 in result.shape:
        return result.zero_()
    launch = partial(_launch, deterministic)
    with torch.cuda.device_of(first):
        if direction == "weight_gradient":
            return _weights(launch, first, second, result, tuple(numbers), tf32=tf32)
        _maps(launch, first, second.contiguous(), result, tuple(numbers), tf32=tf32, forward=direction == "forward")
    return result


def _maps(
    launch: Launch, source: Tensor, weight: Tensor, result: Tensor, numbers: tuple[int, ...], *,
    tf32: bool, forward: bool,
) -> None:  # fmt: skip
    """The output, or the input gradient."""
    from . import triton_kernels as kernels

    geometry, groups = from_numbers(numbers)[0], numbers[2]
    each, depth = result.shape[1] // groups, source.shape[1] // groups
    shared, last = prod(geometry.period) == 1, _channels_last(source)
    outer = shared and 1 < each <= FEW and groups > 1 and depth > 1 and not (tf32 or source.dtype.itemsize == 2)
    by_channel = outer or (groups > 1 and min(each, depth) == 1)
    told = _lines(numbers, forward=forward, folded=not by_channel) | _tensors(kernels, source, result, weight)
    told |= {"channels": result.shape[1], "each": each, "DEPTH": depth, "FORWARD": forward}
    axes, rows = _rows(told)
    told["bucket"] = _bucket(source.shape[0] * prod(rows), last)
    if by_channel:
        block = _power(each if outer else min(64, result.shape[1]) if last else 1)
        parts = groups * -(-each // block) if outer else -(-result.shape[1] // block)
        told |= {"PERIODIC": not shared, "OUTER": outer, "ROWS_LAST": not last, "BLOCK_C": block}
        told["UNROLL"] = axes[-1][0] <= UNROLLED
        programs = source.shape[0] * parts * prod(axis[4] for axis in axes)
        launch(
            kernels.channelwise, lambda meta: programs * -(-prod(rows) // (meta["TILE"] // block)),
            (source, weight, result), told,
        )  # fmt: skip
        return
    many = source.shape[0] * prod(rows)
    told |= _products(kernels, source, many, each, told, tf32=tf32) | {"AXES": len(geometry.axes)}
    programs = told["m0"] * told["m1"] * told["m2"] * groups * -(-each // told["BLOCK_C"])
    launch(
        kernels.products, lambda meta: programs * -(-many // min(meta["TILE_M"], told["MOST"])),
        (source, weight, result), told,
    )  # fmt: skip


def _weights(
    launch: Launch, image: Tensor, output: Tensor, result: Tensor, numbers: tuple[int, ...], *, tf32: bool
) -> Tensor:
    """The weight gradient: the sums of each chunk of the rows, and then their sum."""
    from . import triton_kernels as kernels

    geometry, groups = from_numbers(numbers)[0], numbers[2]
    depth, each, taps = numbers[0] // groups, numbers[1] // groups, prod(geometry.kernel)
    last = _channels_last(image)
    by_channel = prod(geometry.period) == 1 and groups > 1 and depth * each <= SCALARS
    told = _lines(numbers, forward=True, folded=not by_channel) | _tensors(kernels, image, output, result)
    told |= {"channels": numbers[1], "each": each, "DEPTH": depth}
    axes, rows = _rows(told)
    many = image.shape[0] * prod(rows)
    kernel, programs = kernels.channelwise_weights, 0
    if by_channel:
        told |= {"BLOCK_C": _power(min(32, numbers[1])) if last else 1, "BLOCK_T": min(32, _power(taps))}
        programs = depth * -(-taps // told["BLOCK_T"]) * -(-numbers[1] // told["BLOCK_C"])
    else:
        kernel = kernels.products_weights
        told |= _products(kernels, image, many, each, told, tf32=tf32) | {"AXES": len(geometry.axes)}
        programs = told["m0"] * told["m1"] * told["m2"] * groups * -(-each // told["BLOCK_C"])
    told["CHUNK"] = max(16, min(_power(many), _power(max(CHUNK, many * programs // PROGRAMS))))
    told["bucket"], chunks = _bucket(many, last), -(-many // told["CHUNK"])
    sums = result if chunks == 1 else result.new_empty((chunks, *result.shape), dtype=accumulator(image.dtype))
    if any(axis[8] > told[f"R{i}"] for i, axis in enumerate(axes)):
        sums.zero_()  # no position reads the last weights
    launch(
        kernel, lambda meta: programs * chunks * (1 if by_channel else -(-depth * taps // meta["TILE_K"])),
        (image, output, sums), told,
    )  # fmt: skip
    return result if chunks == 1 else sums.sum(0).to(result.dtype)


def _rows(told: dict[str, Any]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The axes, and the results of a class along each."""
    axes = [told[f"AXIS{i}"] for i in range(AXES)]
    return axes, [-(-told[f"R{i}"] // axis[4]) for i, axis in enumerate(axes)]


def _tensors(kernels: Any, source: Tensor, result: Tensor, *others: Tensor) -> dict[str, Any]:
    """Sizes, strides and the types to compute with."""
    spans = [1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) for t in (source, result, *others)]
    tl = kernels.tl
    told: dict[str, Any] = {"batch": source.shape[0], "INDEX": tl.int32 if max(spans) < WIDE else tl.int64}
    told["ACC"] = tl.float64 if source.dtype == torch.float64 else tl.float32
    for name, letter, tensor in (("n", "x", source), ("R", "y", result)):
        sizes = (*[1] * (AXES + 2 - tensor.dim()), *tensor.shape[2:])
        told |= {f"{name}{i}": n for i, n in enumerate(sizes)}
        told |= {f"{letter}{place}": step for place, step in zip("nc012", five_strides(tensor), strict=True)}
    return told


def _products(
    kernels: Any, source: Tensor, many: int, each: int, told: dict[str, Any], *, tf32: bool
) -> dict[str, Any]:
    """Classes that occur, orders of loading, and how a matrix product multiplies."""
    axes, rows = _rows(told)
    last, tl = _channels_last(source), kernels.tl
    exact = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}.get(source.dtype, told["ACC"])
    return {
        **{f"m{i}": min(axis[4], told[f"R{i}"]) for i, axis in enumerate(axes)},
        "ROWS_LAST": not last and prod(rows) > 1,
        "TAPS_LAST": not last,
        "BLOCK_C": max(16, min(64, _power(each))),
        "MOST": max(16, min(128, _power(many))),
        "OPERAND": told["ACC"] if kernels.INTERPRETED else exact,  # the interpreter multiplies bits of bfloat16
        "PRECISION": "tf32" if tf32 else "ieee",
    }


def _channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1 and x.shape[1] > 1


def _power(n: int) -> int:
    """The smallest power of two that is not below a number."""
    return 1 << (n - 1).bit_length()


def _bucket(rows: int, last: bool) -> int:
    """What tuned sizes depend on besides the window: the order of magnitude of the rows, and the layout."""
    return 2 * rows.bit_length() + last


def _launch(
    deterministic: bool,
    kernel: Any,
    programs: Callable[[Any], int],
    tensors: tuple[Tensor, ...],
    told: dict[str, Any],
) -> None:
    """Run with the fastest sizes, or with the first where results must be the same in every process."""

    def grid(meta: Any) -> tuple[int]:
        return (programs(meta),)

    if deterministic:
        kernel.fn[grid](*tensors, **told, **kernel.configs[0].all_kwargs())
    else:
        kernel[grid](*tensors, **told)


def _fake(first: Tensor, second: Tensor, direction: str, numbers: list[int], *_: bool) -> Tensor:
    return empty_result(first, direction, shape_and_window(direction, tuple(numbers))[0])


def _decomposed(first: Tensor, second: Tensor, direction: str, numbers: list[int], *_: bool) -> Tensor:
    return Im2col().run(first, second, posed(int(first.shape[0]), first.dtype, direction, tuple(numbers)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    first, second, ctx.direction, *ctx.told = inputs
    ctx.save_for_backward(first, second)


def _derive(ctx: Any, gradient: Tensor) -> Any:
    operator: Any = torch.ops.striate.triton_convolution
    told = ctx.told
    solved = derivatives(ctx, gradient, lambda one, other, direction: operator(one, other, direction, *told))
    return *solved, None, None, None, None


def _operations(first: Any, second: Any, direction: str, numbers: list[int], *_: bool, **__: Any) -> int:
    return operations(first[0], numbers)


LIBRARY = torch.library.Library("striate", "FRAGMENT")
LIBRARY.define(
    "triton_convolution(Tensor first, Tensor second, str direction, int[] numbers, bool tf32, bool deterministic) "
    "-> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
)
NAME = "striate::triton_convolution"
LIBRARY.impl("triton_convolution", _compute, "CPU")
LIBRARY.impl("triton_convolution", _compute, "CUDA")
torch.library.register_fake(NAME, _fake, lib=LIBRARY)
torch.library.register_autograd(NAME, _derive, setup_context=_keep, lib=LIBRARY)
register_flop_formula(torch.ops.striate.triton_convolution)(_operations)
register_decomposition(torch.ops.striate.triton_convolution.default)(_decomposed)

register("convolution", "triton", Kernels())
