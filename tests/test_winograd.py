"""Winograd's minimal filtering: exact matrices, equal to the definition in every direction, on one to three axes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import striate
from striate.computing import DIRECTIONS, Problem, find
from striate.computing.winograd import F11, F23, F43, Filtering, products
from striate.errors import AlgorithmError
from striate.geometry import Axis, Geometry

from .test_tiles import asked, axes_of, citizen, error, in_three, posed_cases, problems

NAMES = ("winograd2", "winograd4")
LIMITS = {"winograd2": 1e-5, "winograd4": 1e-4}  # of the output's root mean square, in float32
by_name = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("filtering", [F11, F23, F43], ids=repr)
def test_the_matrices_are_the_convolution_exactly(filtering: Filtering) -> None:
    """``sum over p of out[o][p] kernel[p][t] image[p][i]`` is 1 where ``i = o + t``, and else 0, in fractions."""
    assert filtering.points == filtering.outputs + filtering.taps - 1
    for o in range(filtering.outputs):
        for t in range(filtering.taps):
            for i in range(filtering.points):
                terms = (
                    a[p] * filtering.kernel[p][t] * filtering.image[p][i]
                    for a in [filtering.out[o]]
                    for p in range(filtering.points)
                )
                assert sum(terms, Fraction()) == (i == o + t)


def refused(name: str, problem: Problem) -> bool:
    return find("convolution", name).refuses(problem) is not None


@by_name
@pytest.mark.parametrize("problem", [p for p in posed_cases() if not refused("winograd4", p.values[0])])
def test_every_case_is_its_definition(name: str, problem: Problem) -> None:
    assert error(name, problem) < 1e-12
    assert error(name, replace(problem, dtype=torch.complex128)) < 1e-12
    assert error(name, replace(problem, dtype=torch.float32)) < LIMITS[name]


OWN = {
    "one axis": asked((23,), 3, padding=((2, 5),)),
    "two axes": asked((13, 10), 3, (3, 4), padding=1),
    "three axes": asked((6, 5, 7), 3, padding=1),
    "four axes": asked((3, 4, 3, 5), (3, 1, 3, 3), padding=1),
    "groups": asked((9, 9), 3, (4, 6), groups=2, padding="same"),
    "depthwise": asked((9, 9), 3, (4, 4), groups=4),
    "depthwise, two for each": asked((9, 9), 3, (4, 8), groups=4, padding="full"),
    "3x1": asked((9, 8), (3, 1), padding=((1, 1), (0, 2))),
    "1x3, dilated where one tap makes it mean nothing": asked((9, 8), (1, 3), dilation=(4, 1)),
    "smaller than a tile": asked((1, 2), 3, padding=1),
    "one output": asked((3, 3), 3),
    "no example": asked((9, 9), 3, batch=0),
    "no channel": asked((9, 9), 3, (0, 0)),
    "a crop": Problem(
        "convolution", Geometry((Axis(3, 1, 1, -1, -2), Axis(3, 1, 1, 4, -3))), 2, 3, 4, (9, 8), torch.float64
    ),
}


@by_name
@pytest.mark.parametrize("problem", in_three(OWN))
def test_all_axes_groups_and_paddings(name: str, problem: Problem) -> None:
    assert error(name, problem) < 1e-12
    assert error(name, replace(problem, dtype=torch.float32)) < LIMITS[name]


@by_name
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 3e-2), (torch.float16, 4e-3), (torch.complex64, 1e-4)])
def test_16_bit_numbers_are_computed_in_32_bits(name: str, dtype: torch.dtype, limit: float, direction: str) -> None:
    assert error(name, replace(asked((14, 9), 3, (3, 4), dtype), direction=direction)) < limit


@by_name
@given(problem=problems(axes_of(st.sampled_from([1, 3, 3]), 1, 1)))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_window_of_three_taps_is_its_definition(name: str, problem: Problem) -> None:
    if refused(name, problem):
        assert set(problem.geometry.kernel) == {1}
    else:
        assert error(name, problem) < 1e-12


@by_name
def test_it_is_a_citizen_of_pytorch(name: str) -> None:
    citizen(name)


@by_name
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("channels", [(3, 4), (64, 8), (8, 64)])
@pytest.mark.parametrize("size", [(200,), (30, 30), (10, 9, 11)])
def test_plans_are_told_no_less_than_the_error(
    name: str, size: tuple[int, ...], channels: tuple[int, int], direction: str
) -> None:
    problem = replace(asked(size, 3, channels, torch.float32, padding=1), direction=direction)
    assert error(name, problem) < find("convolution", name).error(problem)


@pytest.mark.parametrize(("name", "limit"), [("winograd2", 5e-6), ("winograd4", 1e-4)])
def test_the_error_of_float32_at_128_channels(name: str, limit: float) -> None:
    """F(2,3) rounds like the direct sum, F(4,3) an order of magnitude worse: why there is a name for each."""
    problem = asked((24, 24), 3, (128, 32), torch.float32, batch=1, padding=1)
    assert 1e-7 < error(name, problem) < limit
    assert error("winograd4", problem) > 2 * error("winograd2", problem)


# ----------------------------------------------------------------------------------------------- refusals and the work

REFUSALS = [
    (asked((9,), 3, period=7), "the weights repeat with period (7,); F(4,3) shares them with period 1."),
    (asked((9,), 3, dtype=torch.int32), "the tensors are torch.int32; F(4,3) takes floating-point or complex numbers."),
    (asked((9, 9), (3, 5)), "the kernel is (3, 5); F(4,3) needs 3 taps on at least one axis, and 3 or 1 on each."),
    (asked((9, 9), 1), "the kernel is (1, 1); F(4,3) needs 3 taps on at least one axis, and 3 or 1 on each."),
    (
        asked((9, 9), 3, stride=(1, 2)),
        "the stride is (1, 2); F(4,3) computes neighbouring outputs together, so it needs stride 1.",
    ),
    (
        asked((9, 9), 3, dilation=2),
        "the dilation is (2, 2); F(4,3) reads neighbouring inputs, so it needs dilation 1.",
    ),
    (asked((9, 9), (3, 1), dilation=(1, 2), groups=1, padding=9), None),
]


@pytest.mark.parametrize(("problem", "sentence"), REFUSALS)
def test_refusals_are_sentences(problem: Problem, sentence: str | None) -> None:
    for direction in DIRECTIONS:
        asking = replace(problem, direction=direction)
        assert find("convolution", "winograd4").refuses(asking) == sentence
        assert find("convolution", "winograd2").refuses(asking) == (sentence and sentence.replace("(4,3)", "(2,3)"))


def test_a_user_reads_the_refusal() -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.conv(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 5, 5), algorithm="winograd2")
    assert str(caught.value) == (
        "algorithm='winograd2' cannot serve this convolution: "
        "the kernel is (5, 5); F(2,3) needs 3 taps on at least one axis, and 3 or 1 on each."
    )


def test_the_estimate_counts_products_and_transforms() -> None:
    """8x8 outputs are 2x2 tiles of 4x4: 36 products of a tile against 144, and per tile and map the transforms."""
    problem = asked((8, 8), 3, (3, 5), batch=2, padding=1)
    image, out, kernel = 6 * 6 * 6 * 2, 4 * 6 * 6 + 4 * 4 * 6, 6 * 3 * 3 + 6 * 6 * 3
    assert (products([F43.image] * 2), products([F43.out] * 2), products([F43.kernel] * 2)) == (image, out, kernel)
    work = 2 * 4 * (15 * 36 + 3 * image + 5 * out) + 15 * kernel
    for direction in DIRECTIONS:
        assert find("convolution", "winograd4").estimate(replace(problem, direction=direction)) == work


def test_the_estimate_is_below_the_definition_s_where_channels_are_many() -> None:
    problem = asked((56, 56), 3, (256, 256), padding=1)
    estimates = [find("convolution", name).estimate(problem) or 0 for name in NAMES]
    assert problem.work / 2.25 < estimates[0] < problem.work / 2
    assert problem.work / 4 < estimates[1] < problem.work / 3


def test_they_say_what_they_are() -> None:
    assert [repr(find("convolution", name)) for name in NAMES] == ["F(2,3)", "F(4,3)"]
    assert [find("convolution", name).exact for name in NAMES] == [False, False]
