"""Channels in the lanes: any geometry, layout, type and instruction set gives what the definition gives."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from torch import Tensor

import striate
from striate.computing import DIRECTIONS, Problem, find, native
from striate.errors import GeometryError
from striate.geometry import Axis, Geometry

compiled = pytest.mark.skipif(native.compiled is None, reason="the compiled kernels are not installed")
SETS = ("v3", "v4")
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def runs_here() -> list[str]:
    """The instruction sets up to the one that was chosen for this machine."""
    best = native.compiled.instruction_set() if native.compiled is not None else ""
    return list(SETS[: SETS.index(best) + 1]) if best in SETS else [best]


def axis_of(random: Random, size: int, kernels: list[int]) -> Axis:
    while True:
        axis = Axis(
            random.choice(kernels), random.choice([1, 1, 2, 3, 5]), random.choice([1, 1, 2, 3, 4]),
            random.randint(-2, 9), random.randint(-2, 9),
        )  # fmt: skip
        try:
            axis.output_size(size)
        except GeometryError:
            continue
        return axis


def problem_of(random: Random) -> Problem:
    axes = random.choice([1, 2, 2, 3])
    size = tuple(random.randint(1, 40 if axes < 3 and random.random() < 0.3 else 9) for _ in range(axes))
    kernels = [1, 2, 3, 5, 7, 9, 13] if axes < 3 else [1, 2, 3]
    groups = random.choice([1, 2, 3, 5, 16, 17, 33])
    inward, outward = random.choice([1, 1, 1, 2, 3, 4, 8]), random.choice([1, 1, 1, 2, 3, 4, 8, 16])
    inward = 1 if groups > 5 and inward * outward > 16 else inward
    geometry = Geometry(tuple(axis_of(random, n, kernels) for n in size), groups)
    batch = random.choice([1, 3])
    return Problem("convolution", geometry, batch, groups * inward, groups * outward, size, torch.float64)


def laid(x: Tensor, random: Random) -> Tensor:
    """The same values, or for an expanded tensor those of its first example, in some layout."""
    layout, dims = random.choice(["plain", "last", "sliced", "permuted", "expanded"]), x.dim()
    if layout == "last":
        last = LAST.get(dims - 2)
        return x.contiguous(memory_format=last) if last else x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "sliced":  # what lies between must not be read
        wide = torch.full((x.shape[0], *(2 * n + 1 for n in x.shape[1:])), torch.nan, dtype=x.dtype)
        return wide[(slice(None), *[slice(1, None, 2)] * (dims - 1))].copy_(x)
    if layout == "permuted":
        order = random.sample(range(dims), dims)
        return x.permute(order).contiguous().permute([order.index(d) for d in range(dims)])
    return x[:1].expand(x.shape) if layout == "expanded" else x


def operands(problem: Problem, random: Random) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(random.randint(0, 1 << 30))

    def whole(*shape: int) -> Tensor:
        return torch.randint(-4, 5, shape, generator=generator).to(torch.float64)

    x = laid(whole(problem.batch, problem.in_channels, *problem.size), random)
    y = laid(whole(problem.batch, problem.out_channels, *problem.output_size), random)
    weight = whole(*problem.geometry.weight_shape(problem.in_channels, problem.out_channels))
    return {"forward": (x, weight), "input_gradient": (y, weight), "weight_gradient": (x, y)}


@compiled
@pytest.mark.parametrize("seed", range(60))
def test_sums_of_whole_numbers_are_those_of_the_definition(seed: int) -> None:
    random = Random(seed)
    problem = problem_of(random)
    own = native.compiled.instruction_set()
    for direction, (first, second) in operands(problem, random).items():
        posed = replace(problem, direction=direction)
        wanted = find("convolution", "reference").run(first, second, posed)
        for dtype in native.TYPES:
            for instructions in runs_here():
                native.compiled.use_instruction_set(instructions)
                try:
                    given = replace(posed, dtype=dtype)
                    got = find("convolution", "native_channels").run(first.to(dtype), second.to(dtype), given)
                finally:
                    native.compiled.use_instruction_set(own)
                assert torch.equal(got, wanted.to(dtype)), (direction, dtype, instructions)


@compiled
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("each", [1, 4])
def test_any_number_of_threads_gives_the_same_bits(direction: str, each: int) -> None:
    geometry = Geometry((Axis(3, 1, 1, 1, 1), Axis(5, 1, 1, 2, 2)), 24 // each)
    problem = Problem("convolution", geometry, 5, 24, 24, (30, 31), torch.float32, direction=direction)
    first = torch.randn(5, 24, 30, 31)
    shape = geometry.weight_shape(24, 24)
    second = torch.randn(5, 24, 30, 31) if direction == "weight_gradient" else torch.randn(shape)
    threads, results = torch.get_num_threads(), []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        try:
            results.append(find("convolution", "native_channels").run(first, second, problem))
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    exact = find("convolution", "reference").run(first.double(), second.double(), replace(problem, dtype=torch.float64))
    assert (results[0].double() - exact).abs().max() < 1e-5 * exact.abs().max()


@compiled
def test_an_empty_batch() -> None:
    x = torch.zeros(0, 4, 5, 5, requires_grad=True)
    weight = torch.ones(4, 1, 3, 3, requires_grad=True)
    y = striate.conv(x, weight, groups=4, algorithm="native_channels")
    y.sum().backward()
    assert y.shape == (0, 4, 3, 3)
    assert weight.grad is not None
    assert not weight.grad.any()


@compiled
def test_a_poisoned_value_stays_with_the_outputs_that_read_it() -> None:
    x = torch.ones(1, 17, 9, 20)
    x[0, 3, 4, 10] = torch.nan
    y = striate.conv(x, torch.ones(17, 1, 3, 3), groups=17, padding=1, algorithm="native_channels")
    read = torch.zeros(1, 17, 9, 20, dtype=torch.bool)
    read[0, 3, 3:6, 9:12] = True
    assert torch.equal(y.isnan(), read)


@compiled
def test_refusals() -> None:
    tiled = Problem("convolution", Geometry((Axis(3, period=2),), 4), 1, 4, 4, (8,))
    wide = Problem("convolution", Geometry((Axis(3),), 2), 1, 34, 4, (8,))
    algorithm = find("convolution", "native_channels")
    assert algorithm.refuses(tiled) == (
        "the weights repeat with period (2,); channels in the lanes share them with period 1."
    )
    assert algorithm.refuses(wide) == (
        "a group has 17 input and 2 output channels; channels in the lanes pay off up to 16 of each."
    )
