"""The laws for the kernels in Triton, in its interpreter: ``test_triton.py`` runs this file in a Python of its own.

The interpreter must be asked for before Triton is loaded, and changes Triton for the rest of the process. It is slow:
every case is for ``make prove``, and every way through the kernels for every run.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

import striate
from striate.computing import DIRECTIONS, Problem, find, triton_windows
from striate.computing.native import as_numbers
from striate.geometry import Geometry
from striate.planning import choose_all
from striate.policy import Policy
from striate.trilinear import ROLES, convolve

from .cases import CONVOLUTIONS, TRANSPOSED, Case
from .test_laws import LIMITS, integers, outcome, tensors

PROVE = bool(os.environ.get("STRIATE_PROVE"))
FITTING = [parameter for parameter in CONVOLUTIONS if len(parameter.values[0].size) <= 3]
PERIODS = ["7-k3-c3to4", "4to4-groups", "6x5-k3x2"]
REPEATING = [
    pytest.param(parameter.values[0], period, id=f"{parameter.id}-{period}")
    for parameter in FITTING
    for period in (2, 99)
    if any(word in str(parameter.id) for word in PERIODS)
    if PROVE or period == 2 or len(parameter.values[0].size) == 1
]
CALL = InterpretedFunction.__call__


@pytest.fixture(autouse=True)
def call_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter prepares Triton's modules anew for each function that a kernel calls; ours need it once."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        ours = self.fn.__module__.startswith("striate.")
        return self.rewrite()(*args, **kwargs) if ours else CALL(self, *args, **kwargs)

    monkeypatch.setattr(InterpretedFunction, "__call__", call)


each_direction = pytest.mark.parametrize("direction", DIRECTIONS)


def pose(case: Case, direction: str, dtype: torch.dtype = torch.float64, period: int = 1, batch: int = 2) -> Problem:
    options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
    window = Geometry.window(len(case.size), case.kernel, size=case.size, **options)
    axes = tuple(
        replace(axis, period=min(period, n + 1))
        for axis, n in zip(window.axes, window.output_size(case.size), strict=True)
    )
    window = replace(window, axes=axes)
    return Problem("convolution", window, batch, *case.channels, case.size, dtype, direction=direction)


def operands(problem: Problem) -> tuple[Tensor, Tensor]:
    channels = (problem.in_channels, problem.out_channels)
    roles = {
        "input": integers(problem.batch, channels[0], *problem.size, seed=1),
        "weight": integers(*problem.geometry.weight_shape(*channels), seed=2),
        "output": integers(problem.batch, channels[1], *problem.output_size, seed=3),
    }
    first, second = (roles[role].to(problem.dtype) for role in ROLES[problem.direction][:2])
    return first, second


def agrees(problem: Problem, first: Tensor, second: Tensor) -> Tensor:
    """What Triton finds, which must be what the reference finds in float64."""
    assert find("convolution", "triton").refuses(problem) is None
    got = find("convolution", "triton").run(first, second, problem)
    wide = replace(problem, dtype=torch.float64)
    wanted = find("convolution", "reference").run(first.double(), second.double(), wide)
    assert (got.shape, got.dtype) == (wanted.shape, problem.dtype)
    limit = LIMITS[problem.dtype] if problem.dtype != torch.float64 else 0
    torch.testing.assert_close(got.double(), wanted, rtol=limit, atol=limit * max(1.0, float(wanted.abs().max())))
    return got


@pytest.mark.parametrize("case", FITTING if PROVE else FITTING[::6])
@each_direction
def test_whole_numbers_are_exact(case: Case, direction: str) -> None:
    problem = pose(case, direction, batch=1 + (case.size == (7,)))
    agrees(problem, *operands(problem))


@pytest.mark.parametrize(("case", "period"), REPEATING)
@each_direction
def test_weights_that_repeat_or_never_do_or_are_never_read(case: Case, period: int, direction: str) -> None:
    problem = pose(case, direction, period=period, batch=1)
    agrees(problem, *operands(problem))


@pytest.mark.parametrize("case", [FITTING[14], FITTING[17]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@each_direction
def test_other_types_agree_with_float64(case: Case, dtype: torch.dtype, direction: str) -> None:
    problem = pose(case, direction, dtype, batch=1)
    agrees(problem, *operands(problem))


DEPTHWISE, DENSE = (4, 4, 4), (4, 4, 2)
LAYOUTS = [(DEPTHWISE, "channels_last"), (DENSE, "channels_last"), (DEPTHWISE, "chunks"), (DENSE, "chunks")]
LAYOUTS += [(DENSE, "strided"), (DEPTHWISE, "wide")] + ([(DEPTHWISE, "strided"), (DENSE, "wide")] if PROVE else [])


@pytest.mark.parametrize(("channels", "layout"), LAYOUTS)
@each_direction
def test_any_layout_and_any_number_of_chunks(
    channels: tuple[int, int, int], layout: str, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Geometry.window(2, 3, stride=2, padding=1, groups=channels[2])
    problem = Problem("convolution", window, 2, *channels[:2], (5, 4), torch.float64, direction=direction)
    first, second = operands(problem)
    if layout == "channels_last":
        first = first.to(memory_format=torch.channels_last)
    elif layout == "strided":
        first = first.repeat_interleave(2, -1)[..., ::2]
    elif layout == "wide":
        monkeypatch.setattr(triton_windows, "WIDE", 0)
    else:
        monkeypatch.setattr(triton_windows, "CHUNK", 16)
    got = agrees(problem, first, second)
    if layout == "channels_last" and direction != "weight_gradient":
        assert got.is_contiguous(memory_format=torch.channels_last)


def test_results_are_the_same_where_determinism_is_asked_for() -> None:
    problem = pose(FITTING[14].values[0], "weight_gradient", torch.float32)
    operator = find("convolution", "triton")
    first, second = (torch.randn(t.shape) for t in operands(problem))
    tuned = operator.run(first, second, problem)
    fixed = replace(problem, policy=Policy(deterministic=True))
    assert operator.run(first, second, fixed).equal(tuned)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_nan_stays_with_its_readers(groups: int) -> None:
    x = torch.zeros(1, 4, 9)
    x[0, 1, 4] = torch.nan
    y = striate.conv(x, torch.ones(4, 4 // groups, 3), padding=1, groups=groups, algorithm="triton")
    read = torch.zeros_like(y, dtype=torch.bool)
    read[0, slice(None) if groups == 1 else 1, 3:6] = True
    assert y.isnan().equal(read)


@pytest.mark.parametrize("case", [TRANSPOSED[3], TRANSPOSED[10]])
def test_calls_and_their_gradients(case: Case) -> None:
    inputs = tensors(case, transposed=True)
    call = partial(striate.conv_transpose, **dict(case.options))
    wanted = outcome(partial(call, algorithm="reference"), inputs)
    for actual, expected in zip(outcome(partial(call, algorithm="triton"), inputs), wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@each_direction
def test_derivatives_of_the_operator_itself(direction: str) -> None:
    problem = pose(FITTING[14].values[0], direction, batch=1)
    first, second = operands(problem)

    def by_operator(a: Tensor, b: Tensor) -> Tensor:
        return find("convolution", "triton").run(a, b, problem)

    wanted = outcome(partial(convolve, plans=choose_all(problem, "reference"), direction=direction), (first, second))
    for actual, expected in zip(outcome(by_operator, (first, second)), wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_the_operator_keeps_its_promises_to_pytorch() -> None:
    problem = pose(Case((5,), (3,), (2, 2), (("groups", 2),)), "forward", torch.float32, batch=1)
    first, second = (t.requires_grad_() for t in operands(problem))
    numbers = as_numbers(problem)
    torch.library.opcheck(
        torch.ops.striate.triton_convolution.default, (first, second, "forward", numbers, False, True)
    )
