"""Kernels of low rank as passes along single axes: what is found, what is computed, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate.computing import Problem, find, separable
from striate.errors import AlgorithmError
from striate.geometry import Geometry

from .test_im2col import integers, operands, problems, solved

SEPARABLE = find("convolution", "separable")


def low_rank(problem: Problem, terms: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Weights that are sums of so many products of one-axis kernels."""
    o, c, *kernel = problem.geometry.weight_shape(problem.in_channels, problem.out_channels)
    weight = torch.zeros(o, c, *kernel, dtype=dtype)
    for term in range(terms):
        part = torch.ones(o, c, *(1 for _ in kernel), dtype=dtype)
        for axis, taps in enumerate(kernel):
            shape = [o, c, *(taps if place == axis else 1 for place in range(len(kernel)))]
            part = part * integers(*shape, dtype=dtype, seed=10 * term + axis)
        weight += part
    return weight


def posed(
    kernel: tuple[int, ...], size: tuple[int, ...], channels: tuple[int, int] = (4, 4), **options: Any
) -> Problem:
    geometry = Geometry.window(len(size), kernel, **options)
    return Problem("convolution", geometry, 2, *channels, size, torch.float64)


POSED = [p for p in problems() if SEPARABLE.refuses(p.values[0]) is None]
LARGE = [
    (posed((7, 7), (12, 11), groups=4, padding="same"), 3),
    (posed((7, 5), (12, 11), (2, 4), groups=2, padding=3, stride=(1, 2)), 2),
    (posed((5, 6), (14, 15), (4, 2), groups=2, padding=((2, 0), (0, 5)), stride=(3, 1), dilation=(1, 2)), 1),
    (posed((5, 5), (9, 9), (3, 2), padding=2), 2),
    (posed((5, 5, 5), (6, 7, 8), (2, 4), groups=2, padding="same"), 2),
    (posed((5, 1, 5), (6, 7, 8), (1, 1), stride=(1, 2, 1), padding=1), 1),
]


@pytest.mark.parametrize("problem", POSED)
def test_rank_one_kernels_in_both_directions(problem: Problem) -> None:
    check(problem, 1)


@pytest.mark.parametrize(("problem", "terms"), LARGE)
def test_sums_of_few_terms_in_both_directions(problem: Problem, terms: int) -> None:
    check(problem, terms)


def check(problem: Problem, terms: int) -> None:
    weight = low_rank(problem, terms)
    found = int(separable.ranks(weight).max())
    assert found == terms if len(problem.size) == 2 else found <= terms ** (len(problem.size) - 1)
    for direction in ("forward", "input_gradient"):
        asked = replace(problem, direction=direction)
        first, _ = operands(problem, torch.float64)[direction]
        got, wanted = (solved(name, first, weight, asked) for name in ("separable", "reference"))
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_the_published_filters_are_found_rank_by_rank() -> None:
    sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    laplace = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    bank = torch.stack([sobel, laplace, torch.eye(3), torch.zeros(3, 3)]).unsqueeze(1)
    assert separable.ranks(bank).tolist() == [[1], [2], [3], [0]]
    assert separable.ranks(bank.to(torch.complex64) * 1j).tolist() == [[1], [2], [3], [0]]
    assert separable.ranks(torch.ones(2, 3, 2, 3, 4)).tolist() == [[1] * 3] * 2
    assert separable.ranks(torch.ones(0, 3, 2, 3)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_products_rounded_to_the_type_still_have_rank_one(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    column, row = (torch.rand(8, 1, *shape, generator=generator, dtype=torch.float64) for shape in ((9, 1), (1, 9)))
    assert (separable.ranks((column * row).to(dtype)) == 1).all()
    other = (column - 0.5) * (0.5 - row)
    assert (separable.ranks((column * row + other).to(dtype)) == 2).all()


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2), (torch.complex64, 1e-5)],
    ids=str,
)
def test_other_types(dtype: torch.dtype, limit: float) -> None:
    problem = replace(posed((5, 5), (9, 9), (2, 4), groups=2, padding=2), dtype=dtype)
    for direction in ("forward", "input_gradient"):
        asked = replace(problem, direction=direction)
        first, _ = operands(problem, dtype)[direction]
        weight = low_rank(problem, 1, dtype)
        got, wanted = (solved(name, first, weight, asked) for name in ("separable", "reference"))
        assert got.dtype == dtype
        scale = float(wanted.abs().max())
        torch.testing.assert_close(got, wanted, rtol=limit, atol=limit * scale)


def test_an_empty_batch_and_no_filters() -> None:
    x, weight = integers(0, 2, 9, 9), torch.ones(2, 1, 5, 5, dtype=torch.float64)
    assert striate.conv(x, weight, groups=2, padding=2, algorithm="separable").shape == (0, 2, 9, 9)


OPTIONS: dict[str, Any] = {"groups": 2, "padding": 2, "algorithm": "separable"}


def rank_one(requires_grad: bool = False) -> Tensor:
    weight = torch.rand(2, 1, 5, 1, dtype=torch.float64) * torch.rand(2, 1, 1, 5, dtype=torch.float64)
    return weight.requires_grad_(requires_grad)


def test_gradients_through_a_call() -> None:
    """The gradient of the weights is planned without it, and right where the weights have rank 1."""
    x, weight = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True), rank_one(True)
    got, wanted = (striate.conv(x, weight, groups=2, padding=2, algorithm=name) for name in ("separable", "reference"))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    y = torch.randn_like(got)
    for one, other in zip(*(torch.autograd.grad(out, (x, weight), y) for out in (got, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    fixed = weight.detach()
    assert torch.autograd.gradcheck(lambda x: striate.conv(x, fixed, **OPTIONS), (x,))
    assert torch.autograd.gradgradcheck(lambda x: striate.conv(x, fixed, **OPTIONS), (x,), fast_mode=True)


def test_vmap_and_jvp() -> None:
    x, weight = torch.randn(3, 2, 9, 8, dtype=torch.float64), rank_one()
    wanted = striate.conv(x, weight, groups=2, padding=2)
    mapped = torch.vmap(lambda x: striate.conv(x, weight, **OPTIONS))(x)
    torch.testing.assert_close(mapped, wanted, rtol=1e-10, atol=1e-10)
    over_both = torch.vmap(lambda x, w: striate.conv(x, w, **OPTIONS))(x, weight.expand(3, -1, -1, -1, -1))
    torch.testing.assert_close(over_both, wanted, rtol=1e-10, atol=1e-10)
    _, tangent, *_ = torch.func.jvp(lambda x: striate.conv(x, weight, **OPTIONS), (x,), (x.sin(),))
    torch.testing.assert_close(tangent, striate.conv(x.sin(), weight, groups=2, padding=2), rtol=1e-10, atol=1e-10)


def test_the_estimate_is_known_with_the_weights_and_the_plan_takes_it_only_by_name() -> None:
    asked = posed((31, 31), (56, 56), groups=4, padding=15)
    assert SEPARABLE.estimate(asked) is None
    plan = striate.plan((2, 4, 56, 56), (4, 1, 31, 31), groups=4, padding=15)
    assert plan.algorithm == "vendor"
    assert ("separable", None) in plan.estimates


def test_passes_go_along_the_shrinking_axis_first() -> None:
    """Stride 3 on the last axis leaves the other pass a third of the work."""
    asked = posed((5, 5), (30, 30), (2, 2), groups=2, padding=2, stride=(1, 3))
    (first, one), (second, two) = separable.passes(asked, 1)
    assert (first, second) == (1, 0)
    assert (one.work, two.work) == (2 * 2 * 30 * 10 * 5, 2 * 2 * 30 * 10 * 5)


REFUSED = [
    (posed((5,), (9,)), "the window has 1 spatial axis; there is nothing to separate."),
    (posed((2, 2, 2, 2), (4, 4, 4, 4)), "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."),
    (
        posed((3, 3), (9, 9), period=7),
        "the weights repeat with period (7, 7); PyTorch's convolutions share them with period 1.",
    ),
    (
        replace(posed((5, 5), (9, 9)), direction="weight_gradient"),
        "the output's gradient, which takes the place of the weights, is not separable.",
    ),
    (
        replace(posed((5, 5), (9, 9), padding=2), dtype=torch.int64),
        "the tensors are torch.int64; singular values need floating-point or complex numbers.",
    ),
    (
        posed((2, 2), (9, 9)),
        "even one separable term takes 4,352 multiply-adds an example; the whole window takes 4,096.",
    ),
]


@pytest.mark.parametrize(("asked", "sentence"), REFUSED)
def test_refusals_are_sentences(asked: Problem, sentence: str) -> None:
    assert SEPARABLE.refuses(asked) == sentence


BAD = "algorithm='separable' cannot serve these weights: "
WEIGHTS = [
    (
        torch.eye(5).repeat(2, 1, 1, 1),
        BAD + "the kernels need up to 5 separable terms; with kernel (5, 5) only 2 or fewer save multiply-adds over "
        "this input.",
    ),
    (torch.full((2, 1, 5, 5), torch.nan), BAD + "some are NaN or infinite, which has no singular values."),
]
UNSEEN = (
    BAD + "it looks at their values, and meta tensors and those that a compiler traces have none; choose another "
    "algorithm there."
)


@pytest.mark.parametrize(("weight", "sentence"), WEIGHTS)
def test_weights_are_refused_with_their_ranks(weight: Tensor, sentence: str) -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.conv(torch.ones(1, 2, 9, 9), weight, **OPTIONS)
    assert str(caught.value) == sentence


def test_weights_without_values_are_refused() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with pytest.raises(AlgorithmError) as caught:
        separable.ranks(torch.ones(1, 1, 3, 3, device="meta"))
    assert str(caught.value) == UNSEEN
    with FakeTensorMode(), pytest.raises(AlgorithmError) as caught:
        striate.conv(torch.ones(1, 2, 9, 9), torch.ones(2, 1, 5, 5), **OPTIONS)
    assert str(caught.value) == UNSEEN


def test_a_compiler_is_refused_too() -> None:
    compiled = torch.compile(lambda x, w: striate.conv(x, w, **OPTIONS), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="looks at their values"):
        compiled(torch.ones(1, 2, 9, 9), torch.ones(2, 1, 5, 5))


def test_second_derivatives_by_the_weights_are_planned_without_the_name() -> None:
    """There a gradient stands for the weights, and it need not be separable."""
    x = torch.linspace(-1, 1, 2 * 64, dtype=torch.float64).view(1, 2, 8, 8).requires_grad_()
    column, row = torch.linspace(1, 2, 5, dtype=torch.float64), torch.linspace(-1, 3, 5, dtype=torch.float64)
    weight = torch.outer(column, row).expand(2, 1, 5, 5).clone().requires_grad_()

    def second(algorithm: str) -> list[Tensor]:
        y = striate.conv(x, weight, groups=2, algorithm=algorithm)
        first = torch.autograd.grad(y.pow(3).sum(), (x, weight), create_graph=True)
        return list(torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), (x, weight)))

    for actual, expected in zip(second("separable"), second("reference"), strict=True):
        torch.testing.assert_close(actual, expected)
    _, tangent = torch.func.jvp(
        lambda w: striate.conv(x.detach(), w, groups=2, algorithm="separable"),
        (weight.detach(),),
        (torch.ones_like(weight).triu(),),
    )[:2]
    torch.testing.assert_close(tangent, striate.conv(x.detach(), torch.ones_like(weight).triu(), groups=2))
