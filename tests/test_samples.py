"""PyTorch's own samples of its convolutions, SciPy's convolution, and windows that hypothesis invents."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from torch import Tensor

import striate
from striate.computing import ALGORITHMS, DIRECTIONS, Problem, find
from striate.geometry import Axis, Geometry
from striate.planning import choose_all
from striate.trilinear import ROLES, convolve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

NAMES = [f"nn.functional.{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)]
SAMPLED = [op for op in op_db if op.name in NAMES]
CONVOLVERS = sorted(ALGORITHMS["convolution"])


def settled(tensors: list[Tensor | None]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


def test_the_samples_are_there() -> None:
    assert sorted({op.name for op in SAMPLED}) == sorted(NAMES)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", ["reference", "im2col", None])
@pytest.mark.parametrize("op", SAMPLED, ids=lambda op: op.name)
def test_the_samples_of_pytorch_with_gradients(op: Any, name: str | None, dtype: torch.dtype) -> None:
    function = striate.conv_transpose if "transpose" in op.name else striate.conv
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        weight, bias = sample.args
        inputs = [sample.input, weight, bias]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that "same" with even kernels copies
            wanted = op.op(*inputs, **sample.kwargs)
        got = function(*inputs, **sample.kwargs, algorithm=name)
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
        cotangent = torch.linspace(-1, 1, wanted.numel(), dtype=torch.float64).to(dtype).view(wanted.shape)
        for actual, expected in zip(
            torch.autograd.grad(got, settled(inputs), cotangent),
            torch.autograd.grad(wanted, settled(inputs), cotangent),
            strict=True,
        ):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", CONVOLVERS)
def test_the_true_convolution_is_scipy_s(name: str, mode: str) -> None:
    """SciPy's "same" is centred on the full output: its odd row of an even kernel stands before."""
    x, kernel = np.random.default_rng(1).normal(size=(9, 8)), np.outer([1.0, -2.0, 0.5], [3.0, 1.0, 2.0])
    word = {"full": "full", "same": "same_lower", "valid": "valid"}[mode]
    image, weight = torch.tensor(x)[None, None], torch.tensor(kernel)[None, None]
    try:
        got = striate.conv(image, weight, padding=word, flip=True, algorithm=name)
    except striate.errors.AlgorithmError:
        pytest.skip("refused; the refusal is asserted elsewhere")
    np.testing.assert_allclose(got[0, 0].numpy(), signal.convolve(x, kernel, mode=mode), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(7,), (5, 6), (4, 3, 5)], ids=str)
def test_the_true_convolution_on_any_axes_is_scipy_s(size: tuple[int, ...]) -> None:
    generator = np.random.default_rng(2)
    x, kernel = generator.normal(size=size), generator.normal(size=tuple(2 + n % 2 for n in size))
    got = striate.conv(torch.tensor(x)[None, None], torch.tensor(kernel)[None, None], padding="full", flip=True)
    np.testing.assert_allclose(got[0, 0].numpy(), signal.convolve(x, kernel, mode="full"), rtol=0, atol=1e-12)


AXES = st.builds(
    Axis,
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    before=st.integers(-1, 5),
    after=st.integers(-1, 5),
    period=st.integers(1, 3),
)


@st.composite
def problems(draw: Any) -> Problem:
    """Any window of one to three axes that has an output, with crops and periods."""
    axes = tuple(draw(st.lists(AXES, min_size=1, max_size=3)))
    size = tuple(draw(st.integers(max(1, axis.extent - axis.before - axis.after), axis.extent + 6)) for axis in axes)
    groups = draw(st.integers(1, 3))
    channels = (groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)))
    return Problem("convolution", Geometry(axes, groups), draw(st.integers(1, 2)), *channels, size, torch.float64)


def by_taps(problem: Problem, x: Tensor, weight: Tensor) -> Tensor:
    """One output value at a time, each a sum over its taps in plain Python."""
    axes, groups = problem.geometry.axes, problem.geometry.groups
    kernels = weight.reshape(*problem.geometry.period, *weight.shape[-len(axes) - 2 :])
    per_group = (problem.in_channels // groups, problem.out_channels // groups)
    y = x.new_zeros(x.shape[0], problem.out_channels, *problem.output_size)
    for place in product(*map(range, problem.output_size)):
        residues: Any = tuple(p % axis.period for p, axis in zip(place, axes, strict=True))
        tile = kernels[residues]
        for index, tap in enumerate(product(*(range(axis.kernel) for axis in axes))):
            source: Any = tuple(
                p * axis.stride + t * axis.dilation - axis.before for p, t, axis in zip(place, tap, axes, strict=True)
            )
            if all(0 <= i < n for i, n in zip(source, problem.size, strict=True)):
                for o in range(problem.out_channels):
                    first = o // per_group[1] * per_group[0]
                    spot: Any = (slice(None), o, *place)
                    pixel = x[:, first : first + per_group[0]][(slice(None), slice(None), *source)]
                    y[spot] += pixel @ tile[o].flatten(1)[:, index]
    return y


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_every_algorithm_in_every_direction_on_invented_windows(problem: Problem, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=generator).double()

    x = whole(problem.batch, problem.in_channels, *problem.size).requires_grad_()
    weight = whole(*problem.geometry.weight_shape(problem.in_channels, problem.out_channels)).requires_grad_()
    y = whole(problem.batch, problem.out_channels, *problem.output_size)
    output = by_taps(problem, x, weight) + 0 * (x.sum() + weight.sum())  # a window may read padding only
    to_input, to_weight = torch.autograd.grad(output, (x, weight), y)
    wanted = {"forward": output.detach(), "input_gradient": to_input, "weight_gradient": to_weight}
    roles = {"input": x.detach(), "weight": weight.detach(), "output": y}
    for name, direction in product(CONVOLVERS, DIRECTIONS):
        algorithm = find("convolution", name)
        asked = replace(problem, direction=direction)
        if algorithm.refuses(asked) is not None or algorithm.estimate(asked) is None:
            continue
        first, second = (roles[role] for role in ROLES[direction][:2])
        got = convolve(first, second, choose_all(asked, name), direction)
        scale = max(1.0, float(wanted[direction].abs().max()) if got.numel() else 0.0)
        limit = 0 if algorithm.exact else 1e-10 * scale
        assert (got - wanted[direction]).abs().le(limit).all(), f"{name}, {direction}"
