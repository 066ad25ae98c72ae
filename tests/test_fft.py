"""The fast Fourier transform: equal to the definition in every direction, in one tile and in many; SciPy agrees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import striate
from striate.computing import DIRECTIONS, Problem, find
from striate.computing.fft import cut, smooth, spectrum, work
from striate.computing.tiles import Tiling
from striate.errors import AlgorithmError
from striate.geometry import Axis, Geometry

from .test_tiles import asked, axes_of, citizen, error, in_three, operands, posed_cases, problems


@pytest.mark.parametrize("problem", posed_cases())
def test_every_case_is_its_definition(problem: Problem) -> None:
    assert find("convolution", "fft").refuses(problem) is None
    assert error("fft", problem) < 1e-13
    assert error("fft", replace(problem, dtype=torch.complex128)) < 1e-13
    assert error("fft", replace(problem, dtype=torch.float32)) < 1e-5


OWN = {
    "a long signal": asked((5000,), 31, padding="same"),
    "a long signal in steps": asked((3001,), 8, stride=3, dilation=2, padding=4),
    "a long signal, depthwise": asked((4000,), 9, (4, 8), groups=4, padding="causal"),
    "many tiles on both axes": asked((150, 130), 5, padding=((4, 0), (1, 3))),
    "many tiles on one of two axes": asked((400, 5), (6, 3), groups=1, padding="same_lower"),
    "many tiles on three axes": asked((40, 33, 37), 3, (1, 2), batch=1),
    "depthwise 31x31": asked((20, 24), 31, (3, 3), groups=3, padding=15),
    "even kernels": asked((11, 10), (4, 6), padding="same", groups=1),
    "stride 3 with dilation 2": asked((17, 15), 3, stride=3, dilation=2, padding=3),
    "a kernel larger than its input": asked((3, 4), 9, padding="full"),
    "four axes": asked((5, 4, 6, 3), (2, 3, 2, 3), padding=1, stride=(1, 2, 1, 1)),
    "five axes": asked((3, 2, 3, 2, 3), (2, 2, 1, 1, 2)),
    "one value": asked((1,), 1),
    "no example": asked((9, 9), 3, batch=0),
    "no channel": asked((9, 9), 3, (0, 0)),
    "a crop": Problem(
        "convolution", Geometry((Axis(3, 2, 1, -1, -2), Axis(2, 1, 2, -3, 1))), 2, 3, 4, (9, 8), torch.float64
    ),
    "padding only": Problem("convolution", Geometry((Axis(1, 4, 1, 10, 0),)), 2, 3, 4, (2,), torch.float64),
}


@pytest.mark.parametrize("problem", in_three(OWN))
def test_long_signals_large_kernels_and_many_axes(problem: Problem) -> None:
    assert error("fft", problem) < 1e-12
    assert error("fft", replace(problem, dtype=torch.float32)) < 1e-5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 3e-2), (torch.float16, 4e-3), (torch.complex64, 1e-5)])
def test_16_bit_numbers_are_computed_in_32_bits(dtype: torch.dtype, limit: float, direction: str) -> None:
    problem = replace(asked((300, 20), 5, (3, 4), dtype), direction=direction)
    assert error("fft", problem) < limit


def test_a_long_sum_in_float16_does_not_overflow_on_the_way() -> None:
    x, weight = torch.full((1, 1, 400), 200.0, dtype=torch.float16), torch.full((1, 1, 300), 1.0, dtype=torch.float16)
    assert striate.conv(x, weight, algorithm="fft").eq(60_000).all()


@given(problem=problems(axes_of(st.integers(1, 5), 3, 3)))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_window_is_its_definition(problem: Problem) -> None:
    assert error("fft", problem) < 1e-12


def test_it_is_a_citizen_of_pytorch() -> None:
    citizen("fft")


def test_it_spreads_what_is_not_a_number() -> None:
    """Why a plan takes it only when asked: a NaN reaches all outputs of its tile, not those alone that read it."""
    x = torch.ones(1, 1, 8)
    x[..., 0] = torch.nan
    assert find("convolution", "fft").exact is False  # type: ignore[comparison-overlap, unused-ignore]
    assert striate.conv(x, torch.ones(1, 1, 3)).isnan().sum() == 1
    assert striate.conv(x, torch.ones(1, 1, 3), algorithm="fft").isnan().sum() > 1
    assert striate.plan((1, 1, 8), (1, 1, 3)).algorithm == "vendor"


# ------------------------------------------------------------------------------------------------- an independent judge


@pytest.mark.parametrize("judge", [scipy.signal.fftconvolve, scipy.signal.oaconvolve])
@pytest.mark.parametrize(
    "shape", [((1000,), (31,)), ((40, 300), (7, 9)), ((9, 30, 11), (4, 3, 12)), ((5,), (9,))], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_the_true_convolution_is_scipy_s(judge: Any, shape: tuple[Any, Any], dtype: torch.dtype) -> None:
    x, kernel = torch.randn(shape[0], dtype=dtype), torch.randn(shape[1], dtype=dtype)
    got = striate.conv(x[None, None], kernel[None, None], flip=True, padding="full", algorithm="fft")[0, 0]
    torch.testing.assert_close(got, torch.from_numpy(judge(x.numpy(), kernel.numpy())), rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------------------------- refusals

REFUSALS = [
    (asked((9,), 3, period=7), "the weights repeat with period (7,); a product of spectra shares them with period 1."),
    (
        asked((9, 9), 3, dtype=torch.int64),
        "the tensors are torch.int64; a Fourier transform takes floating-point or complex numbers.",
    ),
    (
        asked((9, 9), 3, dtype=torch.bool),
        "the tensors are torch.bool; a Fourier transform takes floating-point or complex numbers.",
    ),
    (asked((9, 9, 9, 9), 3, stride=2, dilation=2, padding=3), None),
]


@pytest.mark.parametrize(("problem", "sentence"), REFUSALS)
def test_refusals_are_sentences(problem: Problem, sentence: str | None) -> None:
    for direction in DIRECTIONS:
        assert find("convolution", "fft").refuses(replace(problem, direction=direction)) == sentence


def test_a_user_reads_the_refusal() -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.conv(torch.ones(1, 1, 5, dtype=torch.int64), torch.ones(1, 1, 3, dtype=torch.int64), algorithm="fft")
    assert str(caught.value) == (
        "algorithm='fft' cannot serve this convolution: "
        "the tensors are torch.int64; a Fourier transform takes floating-point or complex numbers."
    )


# ------------------------------------------------------------------------------------------------- lengths and the work


def test_lengths_are_those_that_transforms_are_fast_at() -> None:
    assert smooth(1) == (1,)
    assert smooth(17) == (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 18)
    assert [smooth(n)[-1] for n in (7, 11, 13, 31, 97, 101, 1025)] == [8, 12, 15, 32, 100, 108, 1080]
    for limit in range(1, 200):
        plain = [n for n in range(1, 300) if _without_2_3_5(n) == 1]
        assert smooth(limit) == tuple(plain[: plain.index(next(n for n in plain if n >= limit)) + 1])


def _without_2_3_5(n: int) -> int:
    for factor in (2, 3, 5):
        while n % factor == 0:
            n //= factor
    return n


def test_a_short_input_is_one_tile_and_a_long_one_many() -> None:
    assert cut(asked((20, 24), 31, (3, 3), groups=3, padding=15)).counts == (1, 1)
    long = cut(asked((100_000,), 31))
    assert long.counts[0] > 50
    assert long.lengths == (long.steps[0] + 30,)
    assert long.lengths[0] in smooth(1000)
    large = cut(asked((1000, 1000), 9, (1, 1)))
    assert min(large.counts) > 3


@pytest.mark.parametrize("problem", OWN.values(), ids=OWN)
def test_the_tiles_cover_the_outputs_and_are_the_least_work_on_each_axis(problem: Problem) -> None:
    if 0 in (problem.batch, problem.in_channels):
        pytest.skip("there is no work")
    chosen = cut(problem)
    for number, (axis, n) in enumerate(zip(problem.geometry.axes, problem.output_size, strict=True)):
        span = (n - 1) * axis.stride + 1
        count, step = chosen.counts[number], chosen.steps[number]
        assert (count - 1) * step < span <= count * step
    plan = find("convolution", "fft").estimate(problem)
    assert plan == work(chosen, problem)


def test_the_estimate_counts_transforms_and_products() -> None:
    """A tile of 8 numbers: 1.25 * 8 * 3 = 30 for a transform, 4 * 5 for a product; 2 examples, 3 + 4 maps."""
    problem = asked((6,), 3, (3, 4), padding=((0, 1),))
    tiles = Tiling((3,), (6,), (1,))
    assert work(tiles, problem) == 30 * (2 * 7 + 12) + 20 * 2 * 12
    assert work(tiles, replace(problem, dtype=torch.complex64)) == 15 * (2 * 7 + 12) + 8 * 2 * 12
    assert [spectrum((4, 5), real=real) for real in (True, False)] == [12, 20]


def test_the_estimate_is_far_below_the_definition_s_where_kernels_are_large() -> None:
    large = asked((56, 56), 31, (128, 128), groups=128, padding=15)
    assert find("convolution", "fft").estimate(large) < large.work / 8  # type: ignore[operator]
    small = asked((56, 56), 3, (128, 128), groups=128, padding=1)
    assert find("convolution", "fft").estimate(small) > small.work  # type: ignore[operator]


def test_weights_are_transformed_once_for_forward_and_input_gradient() -> None:
    """Four kernels of 8 numbers, or 5 frequencies: points first, then groups and channels."""
    for direction in DIRECTIONS:
        problem = replace(asked((6,), 3, (2, 4), groups=2, padding=((0, 1),), batch=1), direction=direction)
        second = operands(problem)[1]
        prepared = find("convolution", "fft").prepare(second, problem)
        if direction == "weight_gradient":
            assert prepared is second
        else:
            (length,) = cut(problem).lengths
            assert prepared.shape == (length // 2 + 1, 2, 2, 1)
