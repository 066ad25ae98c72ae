"""Im2col against the definition: every case, every direction, weights of any period, and boxes of any size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate.computing import DIRECTIONS, Problem, find, im2col
from striate.geometry import Axis, Geometry
from striate.planning import pose

from .cases import CONVOLUTIONS, TRANSPOSED, Case


def integers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Small whole numbers, so that sums of products are exact in every order."""
    drawn = [torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed + n)) for n in (0, 100)]
    return torch.complex(*(d.to(dtype.to_real()) for d in drawn)) if dtype.is_complex else drawn[0].to(dtype)


def problems(dtype: torch.dtype = torch.float64) -> list[Any]:
    """The problem of every case, written as the forward window, in its own way of padding but with zeros."""
    found = []
    for transposed, cases in ((False, CONVOLUTIONS), (True, TRANSPOSED)):
        for parameter in cases:
            case: Case = parameter.values[0]
            options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
            size = None if transposed else case.size
            window = Geometry.window(len(case.size), case.kernel, transposed=transposed, size=size, **options)
            problem = replace(pose(window, 2, *case.channels, case.size, dtype, "cpu"), direction="forward")
            found.append(pytest.param(problem, id=f"{'transposed-' * transposed}{parameter.id}"))
    return found


def operands(problem: Problem, dtype: torch.dtype, batch: int = 2) -> dict[str, tuple[Tensor, Tensor]]:
    """The two tensors that each direction is given."""
    shape = problem.geometry.weight_shape(problem.in_channels, problem.out_channels)
    x = integers(batch, problem.in_channels, *problem.size, dtype=dtype, seed=1)
    weight = integers(*shape, dtype=dtype, seed=2)
    y = integers(batch, problem.out_channels, *problem.output_size, dtype=dtype, seed=3)
    return {"forward": (x, weight), "input_gradient": (y, weight), "weight_gradient": (x, y)}


def solved(name: str, first: Tensor, second: Tensor, problem: Problem) -> Tensor:
    algorithm = find("convolution", name)
    return algorithm.run(first, algorithm.prepare(second, problem), problem)


def agrees(name: str, problem: Problem, dtype: torch.dtype = torch.float64, batch: int = 2, limit: float = 0) -> int:
    """Compare with the reference in every direction that is not refused; how many those were."""
    served = 0
    for direction, (first, second) in operands(problem, dtype, batch).items():
        asked = replace(problem, direction=direction, dtype=dtype)
        if find("convolution", name).refuses(asked) is None:
            served += 1
            got, wanted = (solved(n, first, second, asked) for n in (name, "reference"))
            assert got.dtype == dtype
            torch.testing.assert_close(got, wanted, rtol=limit, atol=limit)
    return served


PERIODIC = [
    (Geometry((Axis(3, period=5),)), (7,)),
    (Geometry((Axis(3, 2, period=2, before=1, after=2),)), (8,)),
    (Geometry((Axis(3, period=3, before=1, after=1),)), (8,)),
    (Geometry((Axis(2, period=9),)), (4,)),
    (Geometry((Axis(2, 1, 2, before=-1, after=5, period=3),), groups=2), (6,)),
    (Geometry((Axis(3, 2, before=1, period=3), Axis(2, period=2)), groups=2), (6, 6)),
    (Geometry((Axis(3, period=4), Axis(3, 2, before=2, after=1, period=4))), (6, 7)),
    (Geometry((Axis(2, period=2), Axis(1), Axis(2, 2, 2, 3, 3, period=3))), (4, 2, 5)),
    (Geometry((Axis(2, period=2), Axis(1), Axis(2, period=2), Axis(2))), (3, 2, 4, 2)),
]
EVERY = [*problems(), *(Problem("convolution", geometry, 2, 4, 6, size, torch.float64) for geometry, size in PERIODIC)]
CROPPED = Problem("convolution", Geometry((Axis(2, 2, before=-3, after=9), Axis(1, 1, 1, 4, -4))), 2, 3, 2, (4, 5))


@pytest.mark.parametrize("problem", [*EVERY, CROPPED])
def test_every_direction_is_the_definition_bit_for_bit(problem: Problem) -> None:
    assert agrees("im2col", problem) == 3


@pytest.mark.parametrize("problem", EVERY)
@pytest.mark.parametrize("limit", [1, 300, 2000])
def test_small_boxes_give_the_same_bits(problem: Problem, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(im2col, "COLUMN_BYTES", limit)
    assert agrees("im2col", problem, batch=3) == 3


# -------------------------------------------------------- what the tests of the other algorithms use too

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.complex64, torch.int64)


def types_agree(name: str, problem: Problem) -> int:
    """Small whole numbers are exact in every type; how many types and directions were served."""
    return sum(agrees(name, problem, dtype) for dtype in DTYPES)


def empty_batch_agrees(name: str, problem: Problem) -> None:
    assert agrees(name, problem, batch=0) >= 2


def random_agrees(name: str, *shapes: tuple[int, ...], **options: Any) -> None:
    """A call in PyTorch's transformations: compiled, mapped over examples and weights, forward and double backward."""
    x, weight = (torch.randn(shape, dtype=torch.float64) for shape in shapes)

    def run(x: Tensor, weight: Tensor, name: str = name) -> Tensor:
        return striate.conv(x, weight, **options, algorithm=name)

    def close(got: Tensor, wanted: Tensor) -> None:
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)

    tangents = x.cos(), weight.sin()
    wanted, change, *_ = torch.func.jvp(lambda x, w: run(x, w, "reference"), (x, weight), tangents)
    got = torch.func.jvp(run, (x, weight), tangents)
    torch.testing.assert_close(got, (wanted, change), rtol=1e-10, atol=1e-10)
    close(torch.vmap(lambda x: run(x, weight))(x), wanted)
    many = torch.stack([weight, -weight])
    close(torch.vmap(run, (None, 0))(x, many), torch.stack([wanted, -wanted]))
    operands = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(run, operands, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, operands, fast_mode=True)


def compiled_agrees(name: str, *shapes: tuple[int, ...], dynamic: bool = False, **options: Any) -> None:
    x, weight = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    if dynamic:
        torch._dynamo.mark_dynamic(x, 0)
    torch._dynamo.reset()  # or the options of one case and the next become symbols
    call: Any = partial(striate.conv, **options, algorithm=name)
    got = torch.compile(lambda x, w: call(x, w), fullgraph=True, backend="aot_eager")(x, weight)
    wanted = striate.conv(x, weight, **options, algorithm="reference")
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    y = torch.randn_like(wanted)
    for one, other in zip(*(torch.autograd.grad(out, (x, weight), y) for out in (got, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------- im2col in PyTorch's world


@pytest.mark.parametrize("problem", EVERY[::4])
def test_all_types_agree(problem: Problem) -> None:
    assert types_agree("im2col", problem) == 3 * len(DTYPES)


@pytest.mark.parametrize("problem", EVERY[::6])
def test_an_empty_batch(problem: Problem) -> None:
    empty_batch_agrees("im2col", problem)


def test_transformations() -> None:
    random_agrees("im2col", (3, 4, 6, 5), (4, 2, 3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), groups=2)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(dynamic: bool) -> None:
    compiled_agrees("im2col", (3, 4, 6, 5), (4, 2, 3, 2), dynamic=dynamic, stride=(2, 1), padding=1, groups=2)


@pytest.mark.parametrize("function", [striate.conv_local, striate.conv_tiled])
def test_layers_whose_weights_are_not_shared_compile_map_and_differentiate(function: Any) -> None:
    period = (3, 4) if function is striate.conv_local else (2, 3)
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(*period, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"padding": ((0, 0), (1, 1)), "groups": 2}
    wanted = function(x, weight, **options, algorithm="reference")
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        torch.testing.assert_close(run(x, weight, **options), wanted, rtol=1e-10, atol=1e-10)
    mapped = torch.vmap(lambda x: function(x, weight, **options))(x)
    torch.testing.assert_close(mapped, wanted, rtol=1e-10, atol=1e-10)
    both = torch.vmap(lambda x, w: function(x, w, **options))(x, weight.expand(2, *weight.shape))
    torch.testing.assert_close(both, wanted, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradgradcheck(lambda x, w: function(x, w, **options), (x, weight), fast_mode=True)


# ------------------------------------------------------------------------------------------------ plans and refusals


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_the_plan_for_what_pytorch_has_no_kernel_for(direction: str) -> None:
    four_axes = striate.plan((2, 3, 5, 5, 5, 5), (4, 3, 3, 3, 3, 3), padding=1, direction=direction)
    local = striate.plan((2, 3, 9, 9), (9, 9, 4, 3, 3, 3), padding=1, direction=direction)
    tiled = striate.plan((2, 4, 30), (2, 4, 1, 3), padding=5, groups=4, dilation=2, direction=direction)
    assert [plan.algorithm for plan in (four_axes, local, tiled)] == ["im2col"] * 3
    assert find("convolution", "im2col").estimate(local.problem) == 2 * 9 * 9 * 4 * 3 * 9


def test_it_has_letters_for_sixteen_axes() -> None:
    algorithm = find("convolution", "im2col")
    asked = [Problem("convolution", Geometry((Axis(1),) * n), 1, 2, 2, (1,) * n) for n in (16, 17)]
    assert [algorithm.refuses(problem) for problem in asked] == [
        None,
        "the window has 17 spatial axes; the product has letters for 16.",
    ]
    assert agrees("im2col", asked[0]) == 3
    tiled = replace(asked[0], geometry=Geometry((Axis(1, before=1, period=2),) * 2 + (Axis(1),) * 14))
    assert agrees("im2col", tiled) == 3


def test_boxes_cover_every_output_once_and_hold_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(im2col, "COLUMN_BYTES", 4000)
    geometry = Geometry((Axis(3, 2, before=1, after=1, period=3), Axis(2, period=4)))
    problem = Problem("convolution", geometry, 0, 2, 4, (19, 7))
    seen = torch.zeros(5, 1, *problem.output_size)
    for box in im2col.boxes(problem, 5, 8):
        seen[box.writes] += 1
        examples = seen[box.writes].shape[0]
        assert examples * 2 * 6 * 8 * box.positions[0] * 6 <= 4000
        assert all(n % t == 0 for n, t in zip(box.positions, box.geometry.period, strict=True))
    assert (seen == 1).all()
