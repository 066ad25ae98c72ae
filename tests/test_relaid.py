"""PyTorch's own convolutions with the tensors laid out differently give the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate.computing import Problem, find
from striate.geometry import Axis, Geometry

from .test_im2col import agrees, compiled_agrees, empty_batch_agrees, integers, problems, random_agrees

NAMES = ["channels_last", "as_2d", "dilation_split", "stride_split"]
POSED = problems()
GRID = [
    Problem("convolution", Geometry((Axis(kernel, stride, dilation, before, after),)), 2, 2, 3, (size,))
    for kernel in (1, 2, 3, 5)
    for stride in (1, 2, 3, 4, 6)
    for dilation in (1, 2, 3, 4, 6)
    for before, after, size in ((0, 0, 29), (2, 5, 27), (-3, 9, 21))
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("problem", POSED)
def test_every_direction_is_the_definition_bit_for_bit(name: str, problem: Problem) -> None:
    refused = find("convolution", name).refuses(problem) is not None
    assert agrees(name, problem) == (0 if refused else 3)


@pytest.mark.parametrize("name", ["dilation_split", "stride_split"])
def test_every_stride_meets_every_dilation(name: str) -> None:
    served = sum(agrees(name, problem) for problem in GRID)
    assert served == 3 * len(GRID) * 4 // 5


LIMITS = {torch.float16: 2e-3, torch.bfloat16: 2e-2}
# (name, x, weight, options): a case of each for PyTorch's transformations
CALLS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("channels_last", (3, 4, 6, 5), (4, 2, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}),
    ("as_2d", (3, 4, 8), (4, 2, 3), {"stride": 2, "padding": ((2, 1),), "groups": 2}),
    ("dilation_split", (3, 4, 8, 9), (4, 2, 3, 2), {"dilation": (2, 3), "stride": (1, 2), "padding": 1, "groups": 2}),
    ("stride_split", (3, 4, 8, 9), (4, 2, 3, 2), {"dilation": (2, 1), "stride": (2, 3), "padding": 1, "groups": 2}),
]
calls = pytest.mark.parametrize(("name", "x", "weight", "options"), CALLS, ids=NAMES)


@calls
def test_transformations(name: str, x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]) -> None:
    random_agrees(name, x, weight, **options)


@calls
def test_compiled(name: str, x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]) -> None:
    compiled_agrees(name, x, weight, **options)
    compiled_agrees(name, x, weight, dynamic=True, **options)


def served(name: str) -> list[Problem]:
    return [p.values[0] for p in POSED if find("convolution", name).refuses(p.values[0]) is None]


@pytest.mark.parametrize("name", NAMES)
def test_other_types_and_no_examples(name: str) -> None:
    for problem in served(name)[::3]:
        empty_batch_agrees(name, problem)
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.complex64):
            assert agrees(name, problem, dtype, limit=LIMITS.get(dtype, 0)) == 3


SIXTEEN = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_16_bits_in_float32_are_the_definition_bit_for_bit(dtype: torch.dtype) -> None:
    for parameter in POSED:
        problem = parameter.values[0]
        assert agrees("in_float32", problem, dtype) == (3 if len(problem.size) <= 3 else 0)
    assert agrees("in_float32", POSED[0].values[0], dtype, batch=0) == 3


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_16_bits_in_float32_are_rounded_once(dtype: torch.dtype) -> None:
    """4096 ones and their weights: a sum kept in float16 would stop at 2048, and one in bfloat16 at 256."""
    x, weight = torch.ones(1, 1, 4096, dtype=dtype), torch.ones(1, 1, 4096, dtype=dtype)
    total = striate.conv(x, weight, algorithm="in_float32")
    assert (total.item(), total.dtype) == (4096, dtype)


def test_16_bits_compiled_mapped_and_differentiated() -> None:
    x, weight = integers(3, 2, 7, dtype=torch.bfloat16), integers(4, 2, 3, dtype=torch.bfloat16, seed=1)

    def run(x: Tensor, weight: Tensor, name: str = "in_float32") -> Tensor:
        return striate.conv(x, weight, padding=1, algorithm=name)

    torch._dynamo.reset()
    wanted = run(x, weight, "reference")
    assert torch.compile(run, fullgraph=True, backend="aot_eager")(x, weight).equal(wanted)
    assert torch.vmap(lambda x: run(x, weight))(x).equal(wanted)
    assert torch.func.jvp(lambda x: run(x, weight), (x,), (x,))[1].equal(wanted)
    leaves = x.requires_grad_(), weight.requires_grad_()
    got, definition = (torch.autograd.grad(run(*leaves, name).sum(), leaves) for name in ("in_float32", "reference"))
    assert all(one.equal(other) for one, other in zip(got, definition, strict=True))


def posed(axes: int, dtype: torch.dtype = torch.float32, device: str = "cpu", **window: Any) -> Problem:
    return Problem("convolution", Geometry.window(axes, 3, **window), 2, 4, 4, (9,) * axes, dtype, device)


WHOLE = "the tensors are torch.int64; PyTorch has floating-point and complex kernels for every layout."
FOUR = "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."
TILED = "the weights repeat with period (2, 2); PyTorch's convolutions share them with period 1."
REFUSED = [
    ("channels_last", posed(1), "the window has 1 spatial axis; PyTorch has channels-last memory for 2 and 3."),
    ("channels_last", posed(4), FOUR),
    ("channels_last", posed(2, period=2), TILED),
    ("as_2d", posed(2), "the window has 2 spatial axes; it needs 1."),
    (
        "as_2d",
        posed(1, period=2),
        "the weights repeat with period (2,); PyTorch's convolutions share them with period 1.",
    ),
    (
        "in_float32",
        posed(2),
        "the tensors are torch.float32 on cpu; it needs float16 or bfloat16 on the CPU.",
    ),
    (
        "in_float32",
        posed(2, torch.float16, "cuda"),
        "the tensors are torch.float16 on cuda; it needs float16 or bfloat16 on the CPU.",
    ),
    ("in_float32", posed(4, torch.float16), FOUR),
    ("dilation_split", posed(2), "the window has dilation (1, 1); there are no phases to split into."),
    ("dilation_split", posed(4, dilation=2), FOUR),
    ("dilation_split", posed(2, dilation=2, period=2), TILED),
    ("stride_split", posed(2), "the window has stride (1, 1); there are no phases to split into."),
    ("stride_split", posed(4, stride=2), FOUR),
    ("channels_last", posed(2, torch.int64), WHOLE),
    ("as_2d", posed(1, torch.int64), WHOLE),
    ("dilation_split", posed(2, torch.int64, dilation=2), WHOLE),
    ("stride_split", posed(2, torch.int64, stride=2), WHOLE),
    ("stride_split", posed(2, stride=2, period=2), TILED),
]


@pytest.mark.parametrize(("name", "asked", "sentence"), REFUSED)
def test_refusals_are_sentences(name: str, asked: Problem, sentence: str) -> None:
    assert find("convolution", name).refuses(asked) == sentence


def test_estimates_count_phases_filled_up() -> None:
    """7 outputs in 2 phases are 4 and 3; both are computed as 4."""
    asked = Problem("convolution", Geometry((Axis(3, dilation=2),)), 5, 1, 1, (11,))
    assert asked.output_size == (7,)
    assert find("convolution", "dilation_split").estimate(asked) == 5 * 2 * 4 * 3
    strided = Problem("convolution", Geometry((Axis(3, 2),)), 5, 1, 1, (11,))
    assert find("convolution", "stride_split").estimate(strided) == strided.work


def test_pytorch_stays_the_plan_where_nobody_asks_for_another_layout() -> None:
    for options in ({}, {"stride": 2}, {"dilation": 3}):
        assert striate.plan((2, 4, 9, 9), (4, 4, 3, 3), **options).algorithm == "vendor"  # type: ignore[arg-type]
