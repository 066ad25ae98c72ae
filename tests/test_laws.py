"""The laws: every algorithm agrees with the definition, output and both gradients, on every case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate import gradients
from striate.computing import ALGORITHMS, Problem, find
from striate.convolution import convolve
from striate.geometry import Geometry
from striate.planning import DIRECTIONS, towards

from .cases import CONVOLUTIONS, POOLINGS, TRANSPOSED, Case

CONVOLVERS = sorted(ALGORITHMS["convolution"])


def integers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Small whole numbers, so that sums of products are exact in every order."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tensors(case: Case, transposed: bool = False, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    c, o = case.channels
    first, second = (c, o // case.groups) if transposed else (o, c // case.groups)
    x = integers(2, c, *case.size, dtype=dtype, seed=1)
    weight = integers(first, second, *case.kernel, dtype=dtype, seed=2)
    return x, weight, integers(o, dtype=dtype, seed=3)


def outcome(function: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The output and the gradient of every input, against a fixed whole-number gradient of the output."""
    inputs = tuple(t.clone().requires_grad_() for t in inputs)
    y = function(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad_outputs=integers(*y.shape, dtype=y.dtype, seed=4))]


def definition(x: Tensor, weight: Tensor, bias: Tensor, case: Case) -> Tensor:
    """The convolution written from its formula, through torch's padding and unfolding only; differentiable."""
    options = dict(case.options)
    axes = len(case.size)
    window = Geometry.window(
        axes, case.kernel, size=case.size,
        **{k: v for k, v in options.items() if k in ("stride", "padding", "dilation")},
    )  # fmt: skip
    if options.get("flip"):
        weight = weight.flip(tuple(range(2, 2 + axes)))
    padded = pad_by_rule(x, window, options.get("padding_mode", "zeros"))
    patches = padded
    for number, axis in enumerate(window.axes):
        patches = patches.unfold(2 + number, axis.extent, axis.stride)[..., :: axis.dilation]
    groups = case.groups
    patches = patches.reshape(x.shape[0], groups, -1, *patches.shape[2:])
    kernels = weight.reshape(groups, -1, *weight.shape[1:])
    return torch.stack(
        [
            torch.tensordot(patches[:, g], kernels[g], ([1, *range(2 + axes, 2 + 2 * axes)], list(range(1, 2 + axes))))
            for g in range(groups)
        ],
        1,
    ).movedim(-1, 2).flatten(1, 2) + bias.view(-1, *[1] * axes)


def pad_by_rule(x: Tensor, window: Geometry, mode: str) -> Tensor:
    """Padding value by value: what position ``i`` outside the axis holds, by the mode's own rule."""
    for number, axis in enumerate(window.axes):
        size = x.shape[2 + number]
        rows = []
        for i in range(-axis.before, size + axis.after):
            inside = i
            while mode == "reflect" and not 0 <= inside < size:
                inside = -inside if inside < 0 else 2 * (size - 1) - inside
            while mode == "circular" and not 0 <= inside < size:
                inside += size if inside < 0 else -size
            if mode == "replicate":
                inside = min(max(inside, 0), size - 1)
            row = x.select(2 + number, min(max(inside, 0), size - 1))
            rows.append(row if 0 <= inside < size else torch.zeros_like(row))
        x = torch.stack(rows, 2 + number)
    return x


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("name", CONVOLVERS)
def test_convolution_is_its_definition_bit_for_bit(name: str, case: Case) -> None:
    inputs = tensors(case)
    if len(case.size) > 3 and name == "vendor":
        with pytest.raises(striate.errors.AlgorithmError, match="PyTorch has kernels for 1 to 3"):
            striate.conv(*inputs, **dict(case.options), algorithm=name)
        return
    got = outcome(lambda x, w, b: striate.conv(x, w, b, **dict(case.options), algorithm=name), inputs)
    wanted = outcome(lambda x, w, b: definition(x, w, b, case), inputs)
    for actual, expected in zip(got, wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", TRANSPOSED)
@pytest.mark.parametrize("name", CONVOLVERS)
def test_transposed_convolution_is_the_input_gradient(name: str, case: Case) -> None:
    """The transposed convolution must equal autograd's gradient of the convolution that it is the adjoint of."""
    x, weight, bias = tensors(case, transposed=True)
    if len(case.size) > 3 and name == "vendor":
        return
    options = dict(case.options)

    def by_autograd(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        window = Geometry.window(len(case.size), case.kernel, transposed=True, **options)
        size = window.output_size(case.size)
        rows = tuple((axis.before, axis.after) for axis in window.axes)
        image = torch.zeros(len(x), bias.shape[0], *size, dtype=x.dtype, requires_grad=True)
        forward = torch.nn.functional.pad(image, [n for pair in reversed(rows) for n in pair])
        plain = Case(tuple(forward.shape[2:]), case.kernel, case.channels, tuple(
            (k, v) for k, v in options.items() if k in ("stride", "dilation", "groups")
        ))  # fmt: skip
        y = definition(forward, weight, torch.zeros(weight.shape[0], dtype=x.dtype), plain)
        (adjoint,) = torch.autograd.grad(y, image, x, create_graph=True)
        return adjoint + bias.view(-1, *[1] * len(case.size))

    got = outcome(lambda x, w, b: striate.conv_transpose(x, w, b, **options, algorithm=name), (x, weight, bias))
    wanted = outcome(by_autograd, (x, weight, bias))
    for actual, expected in zip(got, wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", [*CONVOLUTIONS, *TRANSPOSED])
@pytest.mark.parametrize("name", CONVOLVERS)
def test_gradients_by_geometries_equal_autograd_of_the_reference(name: str, case: Case) -> None:
    """Every algorithm serves the gradient geometries too; torch's autograd of the reference's own steps judges them."""
    options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
    transposed = "output_padding" in options or case in [parameter.values[0] for parameter in TRANSPOSED]
    window = Geometry.window(
        len(case.size), case.kernel, transposed=transposed, size=None if transposed else case.size, **options
    )
    problem = Problem("convolution", window, 2, *case.channels, case.size, torch.float64)
    if find("convolution", name).refuses(problem):
        pytest.skip("refused; the refusal is asserted elsewhere")
    x, weight, _ = tensors(case, transposed)
    got = outcome(lambda x, w: convolve(x, w, problem, name), (x, weight))
    wanted = outcome(lambda x, w: find("convolution", "reference").run(x, w, problem), (x, weight))
    for actual, expected in zip(got, wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("name", CONVOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128], ids=str)
def test_other_types_agree_with_float64(name: str, case: Case, dtype: torch.dtype, close: Any) -> None:
    if len(case.size) > 3 and name == "vendor":
        pytest.skip("PyTorch has kernels for 1 to 3 axes; the refusal is asserted elsewhere")
    inputs = tensors(case, dtype=dtype)
    if dtype.is_complex:
        inputs = tuple(torch.complex(t.real, t.real.flip(0)) for t in inputs)  # type: ignore[assignment]
    got = outcome(lambda x, w, b: striate.conv(x, w, b, **dict(case.options), algorithm=name), inputs)
    exact = torch.complex128 if dtype.is_complex else torch.float64
    wanted = outcome(lambda x, w, b: definition(x, w, b, case), tuple(t.to(exact) for t in inputs))
    close(got, [t.to(dtype) for t in wanted])


@pytest.mark.parametrize("name", CONVOLVERS)
@pytest.mark.parametrize("transposed", [False, True])
def test_gradcheck_and_double_backward(name: str, transposed: bool) -> None:
    function = striate.conv_transpose if transposed else striate.conv
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return function(x, w, b, stride=(2, 1), padding=((1, 0), (0, 1)), groups=2, algorithm=name)

    assert torch.autograd.gradcheck(run, (x, weight, bias))
    assert torch.autograd.gradgradcheck(run, (x, weight, bias))


@pytest.mark.parametrize("name", CONVOLVERS)
def test_vmap_over_examples(name: str) -> None:
    x, weight = integers(3, 2, 6, 5), integers(4, 2, 3, 3)
    one_by_one = torch.vmap(lambda image: striate.conv(image, weight, padding=1, algorithm=name))(x)
    torch.testing.assert_close(one_by_one, striate.conv(x, weight, padding=1), rtol=0, atol=0)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolution_is_shift_equivariant(stride: int) -> None:
    """Moving the input by the stride moves the output by one, away from the border."""
    x, weight = integers(1, 2, 20), integers(3, 2, 3)
    moved = striate.conv(x.roll(stride, -1), weight, stride=stride)
    still = striate.conv(x, weight, stride=stride)
    torch.testing.assert_close(moved[..., 1:], still[..., :-1], rtol=0, atol=0)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_transposed_convolution_is_the_adjoint(case: Case) -> None:
    """<conv(x), y> = <x, conv_transpose(y)> for the same weights."""
    options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
    x, weight, _ = tensors(case)
    forward = Geometry.window(len(case.size), case.kernel, size=case.size, **options)
    adjoint = gradients.input_gradient(forward, case.size)
    y = striate.conv(x, weight, **options)
    g = integers(*y.shape, seed=5)
    extra = [axis.unread_tail(n) for axis, n in zip(forward.axes, case.size, strict=True)]
    rows = [(axis.before, axis.after) for axis in forward.axes]
    back = striate.conv_transpose(
        g, weight, padding=rows, output_padding=extra,
        **{k: v for k, v in options.items() if k != "padding"},
    )  # fmt: skip
    assert tuple(back.shape[2:]) == adjoint.output_size(y.shape[2:]) == case.size
    assert (y * g).sum() == (x * back).sum()


def test_planned_gradient_problems_have_the_shapes_of_the_tensors() -> None:
    forward = Problem("convolution", Geometry.window(2, 3, stride=2, groups=2), 5, 4, 6, (9, 8), torch.float32)
    shapes = {d: towards(forward, d) for d in DIRECTIONS}
    assert shapes["input_gradient"].output_size == (9, 8)
    assert shapes["weight_gradient"].output_size == (3, 3)
    assert (shapes["weight_gradient"].batch, shapes["weight_gradient"].in_channels) == (2, 10)
    assert {p.work for p in (forward, shapes["weight_gradient"], shapes["input_gradient"])} == {forward.work}


@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("operation", ["maximum", "switches", "sum"])
def test_every_pooling_algorithm_agrees_with_the_reference(operation: str, case: Case) -> None:
    from striate.pooling import _window

    options = dict(case.options)
    window = _window(
        "pool", len(case.size), case.size, case.kernel, options.get("stride", case.kernel),
        options.get("padding", 0), options.get("dilation", 1), options.get("ceil", False),
    ).geometry  # fmt: skip
    x = integers(2, 3, *case.size)
    problem = Problem(operation, window, 2, 3, 3, case.size, torch.float64, divisor=2)
    expected = find(operation, "reference").run(x, None, problem)
    for name, algorithm in ALGORITHMS[operation].items():
        if algorithm.refuses(problem) is None:
            got = find(operation, name).run(x, None, problem)
            torch.testing.assert_close(got, expected, rtol=0, atol=0)
