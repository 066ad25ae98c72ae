"""The kernels with examples and strips in the lanes: any period, window, layout and batch, in every direction."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from striate.computing import DIRECTIONS, Problem, find
from striate.computing.native import compiled
from striate.geometry import Axis, Geometry
from striate.trilinear import ROLES

pytestmark = pytest.mark.skipif(compiled is None, reason="the compiled kernels are not installed")
SETS = ("v3", "v4")
LAYOUTS = ("contiguous", "last", "expanded", "sliced", "transposed", "flat")


def integers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def laid(tensor: Tensor, layout: str) -> Tensor:
    """The same values in memory in another way; "expanded" and "flat" are other values, which repeat."""
    if layout == "last":
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "expanded":
        return tensor[:1].expand(tensor.shape)
    if layout == "flat":
        return tensor[..., :1].expand(tensor.shape)
    if layout == "sliced":
        return torch.stack([tensor, -tensor], -1)[..., 0]
    return tensor.transpose(0, -1).contiguous().transpose(0, -1) if layout == "transposed" else tensor


def tensors(problem: Problem, layout: str = "contiguous") -> dict[str, Tensor]:
    shape = (problem.batch, problem.in_channels, *problem.size)
    maps = (problem.batch, problem.out_channels, *problem.output_size)
    weight = problem.geometry.weight_shape(problem.in_channels, problem.out_channels)
    dtype = problem.dtype
    return {
        "input": laid(integers(shape, 1, dtype), layout),
        "weight": integers(weight, 2, dtype),
        "output": laid(integers(maps, 3, dtype), layout),
    }


def solved(name: str, problem: Problem, direction: str, roles: dict[str, Tensor]) -> Tensor:
    first, second = (roles[role] for role in ROLES[direction][:2])
    return find("convolution", name).run(first, second, turned(problem, direction, first.dtype))


def turned(problem: Problem, direction: str, dtype: torch.dtype) -> Problem:
    return Problem(
        "convolution", problem.geometry, problem.batch, problem.in_channels, problem.out_channels, problem.size,
        dtype, direction=direction,
    )  # fmt: skip


@st.composite
def problems(draw: Any) -> Problem:
    axes, size = [], []
    number = draw(st.integers(1, 3))
    for _ in range(number):
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        before, after = draw(st.integers(-2, 3)), draw(st.integers(-2, 3))
        n = draw(st.integers(1, 22 if number == 1 else 9))
        n = max(n, (kernel - 1) * dilation + 1 - before - after, 1)
        outputs = Axis(kernel, stride, dilation, before, after).output_size(n)
        period = draw(st.sampled_from([1, 1, 2, 3, outputs, outputs, max(1, outputs - 1)]))
        axes.append(Axis(kernel, stride, dilation, before, after, period))
        size.append(n)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 9))
    batch = draw(st.sampled_from([1, 2, 3, 8, 16, 17, 33]))
    return Problem("convolution", Geometry(tuple(axes), groups), batch, channels, outputs, tuple(size), torch.float64)


@pytest.fixture
def restored() -> Iterator[None]:
    chosen = compiled.instruction_set()
    yield
    compiled.use_instruction_set(chosen)


@settings(max_examples=120, deadline=None)
@given(problem=problems(), layout=st.sampled_from(LAYOUTS), best=st.sampled_from(SETS))
def test_every_direction_is_the_definition_bit_for_bit(problem: Problem, layout: str, best: str) -> None:
    chosen = compiled.instruction_set()
    roles = tensors(problem, layout)
    if chosen in SETS:
        compiled.use_instruction_set(min(best, chosen))
    try:
        for direction in DIRECTIONS:
            got = solved("native_positions", problem, direction, roles)
            wanted = solved("reference", problem, direction, roles)
            torch.testing.assert_close(got, wanted, rtol=0, atol=0, msg=direction)
    finally:
        compiled.use_instruction_set(chosen)


def posed(
    size: tuple[int, ...],
    kernel: int,
    channels: tuple[int, int],
    batch: int,
    period: Any = 1,
    stride: int = 1,
    padding: int = 1,
    dtype: torch.dtype = torch.float32,
    groups: int = 1,
) -> Problem:
    """A layer; a period of None is a local one."""
    axes = []
    for n in size:
        outputs = Axis(kernel, stride, 1, padding, padding).output_size(n)
        axes.append(Axis(kernel, stride, 1, padding, padding, outputs if period is None else period))
    return Problem("convolution", Geometry(tuple(axes), groups), batch, *channels, size, dtype)


LAYERS = [
    pytest.param(posed((28, 28), 3, (8, 12), 16, None), id="local"),
    pytest.param(posed((28, 28), 3, (8, 12), 35, 2), id="tiled"),
    pytest.param(posed((64, 64), 7, (3, 16), 4, stride=2, padding=3), id="stem"),
    pytest.param(posed((28, 28), 5, (1, 6), 64, padding=2), id="LeNet"),
    pytest.param(posed((200,), 9, (3, 5), 3, padding=4), id="1-D"),
    pytest.param(posed((6, 9, 10), 3, (4, 6), 5, None), id="3-D local"),
    pytest.param(posed((13, 12), 3, (12, 24), 19, groups=4), id="groups"),
]


@pytest.mark.parametrize("problem", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_types_agree_with_float64(problem: Problem, dtype: torch.dtype, restored: None) -> None:
    generator = torch.Generator().manual_seed(0)
    roles = {k: torch.randn(v.shape, generator=generator).to(dtype) for k, v in tensors(problem).items()}
    limit = {torch.float32: 2e-5, torch.bfloat16: 8e-3}[dtype]
    known = SETS[: SETS.index(compiled.instruction_set()) + 1] if compiled.instruction_set() in SETS else ()
    for direction in DIRECTIONS:
        wanted = solved("im2col", problem, direction, {k: v.double() for k, v in roles.items()})
        for name in known or (compiled.instruction_set(),):
            compiled.use_instruction_set(name)
            got = solved("native_positions", problem, direction, roles)
            assert got.dtype == dtype
            assert (got - wanted).abs().max() <= limit * wanted.abs().max(), (direction, name)


WEIGHTS = [
    pytest.param(posed((11, 9), 3, (3, 17), 2, None, stride=2), id="local, few examples"),
    pytest.param(posed((7, 5), 3, (5, 33), 40, None), id="local, many examples"),
    pytest.param(posed((7, 6), 3, (20, 1), 1, None), id="local, one output channel"),
    pytest.param(posed((6, 20), 2, (5, 18), 5, None, padding=0), id="local, even kernel"),
    pytest.param(posed((40,), 3, (4, 24), 17, None, groups=2), id="local, groups"),
    pytest.param(posed((13, 12), 3, (6, 21), 17, 3), id="tiled, periods that leave a rest"),
    pytest.param(posed((12, 12), 8, (3, 48), 1, 2, padding=0), id="tiled, three vectors"),
    pytest.param(posed((9, 70), 3, (20, 2), 3, 2, stride=2), id="tiled, reads in the lanes"),
    pytest.param(posed((5, 6, 7), 3, (2, 16), 2, 2), id="tiled, 3-D"),
    pytest.param(posed((30, 31), 3, (21, 20), 6, stride=2), id="dense"),
    pytest.param(posed((70, 64), 3, (40, 17), 1), id="dense, boxes"),
    pytest.param(posed((14, 14), 5, (6, 16), 33, padding=0), id="dense, short runs"),
]


def spread(problem: Problem, dilation: int) -> Problem:
    """The same with holes between the taps, and padded unevenly."""
    axes = []
    for n, a in zip(problem.size, problem.geometry.axes, strict=True):
        before, after = dilation * (a.kernel - 1), a.after
        outputs = Axis(a.kernel, a.stride, dilation, before, after).output_size(n)
        period = outputs if a.period not in (1, 2, 3) else a.period
        axes.append(Axis(a.kernel, a.stride, dilation, before, after, period))
    geometry = Geometry(tuple(axes), problem.geometry.groups)
    channels = problem.in_channels, problem.out_channels
    return Problem("convolution", geometry, problem.batch, *channels, problem.size, problem.dtype)


@pytest.mark.parametrize("problem", WEIGHTS)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_gradients_of_weights_are_the_definition(
    problem: Problem, dilation: int, dtype: torch.dtype, restored: None
) -> None:
    """Sums of small integers are exact; a narrow type rounds each once."""
    problem = problem if dilation == 1 else spread(problem, dilation)
    roles = {role: tensor.double() for role, tensor in tensors(problem).items()}
    wanted = solved("im2col", problem, "weight_gradient", roles).to(dtype)
    known = SETS[: SETS.index(compiled.instruction_set()) + 1] if compiled.instruction_set() in SETS else ()
    for layout in ("contiguous", "last", "sliced"):
        laid_out = {role: laid(tensor.to(dtype), layout) for role, tensor in roles.items()}
        for name in known or (compiled.instruction_set(),):
            compiled.use_instruction_set(name)
            assert torch.equal(solved("native_positions", problem, "weight_gradient", laid_out), wanted), (layout, name)


@pytest.mark.parametrize("problem", [*LAYERS, *WEIGHTS])
def test_any_number_of_threads_gives_the_same_bits(problem: Problem) -> None:
    roles = {name: torch.randn(tensor.shape) for name, tensor in tensors(problem).items()}
    before = torch.get_num_threads()
    try:
        for direction in DIRECTIONS:
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(solved("native_positions", problem, direction, roles))
            assert all(torch.equal(found[0], other) for other in found[1:]), direction
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("period", [1, 2, None])
def test_no_examples_give_nothing_or_zeros(direction: str, period: int | None) -> None:
    problem = posed((5, 6), 3, (2, 3), 0, period)
    roles = tensors(problem)
    got = solved("native_positions", problem, direction, roles)
    assert got.shape == solved("reference", problem, direction, roles).shape
    assert not got.any()


@pytest.mark.parametrize("period", [1, 2, None])
def test_what_is_not_finite_stays_where_it_is_read(period: int | None) -> None:
    """A NaN in one example reaches what reads it and nothing else, in no other example."""
    problem = posed((9, 9), 3, (3, 4), 17, period, dtype=torch.float64)
    for direction in ("forward", "input_gradient"):
        roles = tensors(problem)
        roles[ROLES[direction][0]][3, 1, 4, 4] = torch.nan
        got, wanted = (solved(name, problem, direction, roles) for name in ("native_positions", "reference"))
        assert torch.equal(got.isnan(), wanted.isnan())
        assert 0 < int(got.isnan().sum()) <= prod(got.shape[1:])
