"""The laws: every algorithm agrees with the definition, output and both gradients, on every case."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate import gradients
from striate.computing import ALGORITHMS, DIRECTIONS, Problem, find
from striate.geometry import Geometry
from striate.planning import choose_all, plan
from striate.trilinear import ROLES, convolve

from .cases import CONVOLUTIONS, TRANSPOSED, Case

# Judged in files of their own: what depends on the values of the weights, and what needs a device or its interpreter.
ELSEWHERE = {"separable", "triton"}
CONVOLVERS = sorted(set(ALGORITHMS["convolution"]) - ELSEWHERE)


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


def refusal(name: str, case: Case, *, transposed: bool = False, dtype: torch.dtype = torch.float64) -> str | None:
    """What the algorithm's plan says against the case, if anything."""
    c, o = case.channels
    first, second = (c, o // case.groups) if transposed else (o, c // case.groups)
    options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
    size = case.size
    if dict(case.options).get("padding_mode", "zeros") != "zeros":
        window = Geometry.window(len(size), case.kernel, size=size, **options)
        size = tuple(n + axis.before + axis.after for n, axis in zip(size, window.axes, strict=True))
        del options["padding"]
    planned = plan((2, c, *size), (first, second, *case.kernel), transposed=transposed, dtype=dtype, **options)
    return dict(planned.refusals).get(name)


LIMITS = {torch.float64: 1e-10, torch.complex128: 1e-10, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def agree(name: str, got: list[Tensor], wanted: list[Tensor]) -> None:
    """Bit for bit in float64 where the arithmetic is exact; otherwise to the rounding of the type."""
    dtype = got[0].dtype
    exact = find("convolution", name).exact and dtype == torch.float64
    limit = 0 if exact else LIMITS[dtype] * (20 if name in ("winograd4", "native_winograd") else 1)
    for actual, expected in zip(got, wanted, strict=True):
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), name
        scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
        assert (actual - expected).abs().le(limit * scale).all(), name


def by_name(name: str, function: Any, inputs: tuple[Tensor, ...], reason: str | None) -> list[Tensor] | None:
    """The outcome by an algorithm, or None if it refuses, in the words of its plan."""
    if reason is None:
        return outcome(function, inputs)
    assert name not in ALWAYS
    with pytest.raises(striate.errors.AlgorithmError) as caught:
        function(*inputs)
    assert reason in str(caught.value)
    return None


ALWAYS = ("reference", "im2col")


def test_every_algorithm_serves_some_of_the_cases() -> None:
    for name in CONVOLVERS:
        dtype = torch.bfloat16 if name == "in_float32" else torch.float64
        assert any(refusal(name, parameter.values[0], dtype=dtype) is None for parameter in CONVOLUTIONS), name


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_every_algorithm_is_the_definition_bit_for_bit(case: Case) -> None:
    inputs = tensors(case)
    wanted = outcome(lambda x, w, b: definition(x, w, b, case), inputs)
    for name in CONVOLVERS:
        call = partial(striate.conv, **dict(case.options), algorithm=name)
        got = by_name(name, call, inputs, refusal(name, case))
        if got is not None:
            agree(name, got, wanted)


@pytest.mark.parametrize("case", TRANSPOSED)
def test_every_transposed_convolution_is_the_input_gradient(case: Case) -> None:
    """The transposed convolution must equal autograd's gradient of the convolution that it is the adjoint of."""
    inputs = tensors(case, transposed=True)
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

    wanted = outcome(by_autograd, inputs)
    for name in CONVOLVERS:
        call = partial(striate.conv_transpose, **options, algorithm=name)
        got = by_name(name, call, inputs, refusal(name, case, transposed=True))
        if got is not None:
            agree(name, got, wanted)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_direction_and_its_derivatives_equal_autograd_of_the_reference(direction: str, case: Case) -> None:
    """Every algorithm in every direction that it serves; torch's autograd of the reference's own steps judges it."""
    options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
    window = Geometry.window(len(case.size), case.kernel, size=case.size, **options)
    problem = Problem("convolution", window, 2, *case.channels, case.size, torch.float64, direction=direction)
    x, weight, _ = tensors(case)
    roles = {"input": x, "weight": weight, "output": integers(2, case.channels[1], *problem.output_size, seed=6)}
    first, second = (roles[role] for role in ROLES[direction][:2])
    wanted = outcome(lambda a, b: find("convolution", "reference").run(a, b, problem), (first, second))
    for name in CONVOLVERS:
        if find("convolution", name).refuses(problem) is None:
            call = partial(convolve, plans=choose_all(problem, name), direction=direction)
            agree(name, outcome(call, (first, second)), wanted)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex128], ids=str)
def test_other_types_agree_with_float64(case: Case, dtype: torch.dtype) -> None:
    inputs = tensors(case, dtype=dtype)
    if dtype.is_complex:
        inputs = tuple(torch.complex(t.real, t.real.flip(0)) for t in inputs)  # type: ignore[assignment]
    exact = torch.complex128 if dtype.is_complex else torch.float64
    wanted = outcome(lambda x, w, b: definition(x, w, b, case), tuple(t.to(exact) for t in inputs))
    wanted = [t.to(dtype) for t in wanted]
    for name in CONVOLVERS:
        call = partial(striate.conv, **dict(case.options), algorithm=name)
        got = by_name(name, call, inputs, refusal(name, case, dtype=dtype))
        if got is not None:
            agree(name, got, wanted)


MIXED = {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}
PLAIN = {"padding": 1}


def serves(name: str, call: Any, *inputs: Tensor) -> bool:
    """Whether an algorithm takes a call, by its shapes and by the values of its weights."""
    try:
        call(*inputs)
    except striate.errors.AlgorithmError:
        return False
    return True


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("options", [MIXED, PLAIN], ids=["mixed", "plain"])
def test_gradcheck_and_double_backward(transposed: bool, options: dict[str, Any]) -> None:
    function = striate.conv_transpose if transposed else striate.conv
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4 // options.get("groups", 1), 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    for name in CONVOLVERS:
        call = partial(function, **options, algorithm=name)
        if serves(name, call, x, weight):
            assert torch.autograd.gradcheck(call, (x, weight, bias), check_forward_ad=True, fast_mode=True), name
            assert torch.autograd.gradgradcheck(call, (x, weight, bias), fast_mode=True), name


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (1, 3)], ids=str)
def test_vmap_over_examples_and_over_weights(mapped: tuple[int | None, int | None]) -> None:
    """As many calls as there are entries, in one; the gradients too."""
    x, weight = integers(2, 4, 6, 5), torch.ones(4, 2, 3, 3, dtype=torch.float64)
    options: dict[str, Any] = {"padding": 1, "groups": 2}

    def entry(tensor: Tensor, dim: int | None, i: int) -> Tensor:
        return tensor if dim is None else tensor.select(dim, i)

    pairs = zip((x, weight), mapped, strict=True)
    several = [t if dim is None else torch.stack([t, 2 * t, -t], dim) for t, dim in pairs]
    singles = []
    for i in range(3):
        image, kernel = (entry(t, dim, i) for t, dim in zip(several, mapped, strict=True))
        singles.append(outcome_of_squares(image, kernel, options))
    wanted = [torch.stack(parts) for parts in zip(*singles, strict=True)]
    for name in CONVOLVERS:
        call = partial(striate.conv, **options, algorithm=name)
        if serves(name, call, x, weight):
            gradient = torch.func.grad(lambda x, w, call=call: call(x, w).square().sum(), argnums=(0, 1))
            agree(name, list(torch.func.vmap(gradient, in_dims=mapped)(*several)), wanted)


def outcome_of_squares(x: Tensor, weight: Tensor, options: dict[str, Any]) -> list[Tensor]:
    """The gradients of the sum of squares of a convolution by PyTorch."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = torch.nn.functional.conv2d(x, weight, **options).square().sum()
    return list(torch.autograd.grad(loss, (x, weight)))


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


# ------------------------------------------------------------------------------- weights that repeat, or never repeat


def local_definition(x: Tensor, weight: Tensor, bias: Tensor, case: Case) -> Tensor:
    """Each output position as a convolution of its own: all of them are computed, and one position of each is kept."""
    axes = len(case.size)
    period = weight.shape[:axes]
    everywhere = {
        tuple(tile): definition(x, weight[tuple(tile)], torch.zeros(case.channels[1], dtype=x.dtype), case)
        for tile in product(*map(range, period))
    }
    outputs = next(iter(everywhere.values())).shape[2:]
    rows = []
    for position in product(*map(range, outputs)):
        tile: Any = tuple(p % t for p, t in zip(position, period, strict=True))
        place: Any = (slice(None), slice(None), *position)
        rows.append(everywhere[tile][place] + bias[(slice(None), *tile)])
    return torch.stack(rows, -1).unflatten(-1, outputs)


def repeating(case: Case, period: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    c, o = case.channels
    weight = integers(*period, o, c // case.groups, *case.kernel, seed=2)
    return integers(2, c, *case.size, seed=1), weight, integers(o, *period, seed=3)


REPEATING = [parameter for parameter in CONVOLUTIONS if not dict(parameter.values[0].options).get("flip")]


@pytest.mark.parametrize("case", REPEATING)
@pytest.mark.parametrize("name", ["reference", None])
def test_tiled_convolution_is_its_definition(name: str | None, case: Case) -> None:
    period = tuple(2 + number % 2 for number in range(len(case.size)))
    options = dict(case.options)
    inputs = repeating(case, period)
    got = outcome(lambda x, w, b: striate.conv_tiled(x, w, b, **options, algorithm=name), inputs)
    wanted = outcome(lambda x, w, b: local_definition(x, w, b, case), inputs)
    for actual, expected in zip(got, wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", REPEATING)
@pytest.mark.parametrize("name", ["reference", None])
def test_a_period_of_the_output_size_is_a_local_layer_and_period_1_a_convolution(name: str | None, case: Case) -> None:
    options = dict(case.options)
    x, weight, bias = tensors(case)
    shared = outcome(lambda x, w, b: striate.conv(x, w, b, **options), (x, weight, bias))
    out = tuple(shared[0].shape[2:])
    local = repeating(case, out)
    by_local = outcome(lambda x, w, b: striate.conv_local(x, w, b, **options, algorithm=name), local)
    by_tiled = outcome(lambda x, w, b: striate.conv_tiled(x, w, b, **options, algorithm=name), local)
    wanted = outcome(lambda x, w, b: local_definition(x, w, b, case), local)
    for first, second, expected in zip(by_local, by_tiled, wanted, strict=True):
        torch.testing.assert_close(first, expected, rtol=0, atol=0)
        torch.testing.assert_close(second, expected, rtol=0, atol=0)

    def equal_weights(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return striate.conv_local(x, w.expand(*out, *w.shape), b, **options, algorithm=name)

    def period_one(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return striate.conv_tiled(x, w[(None,) * len(out)], b, **options, algorithm=name)

    for function in (equal_weights, period_one):
        for actual, expected in zip(outcome(function, (x, weight, bias)), shared, strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["reference", None])
def test_gradcheck_of_repeating_weights(name: str | None) -> None:
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 4, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return striate.conv_tiled(x, w, b, stride=(2, 1), padding=1, groups=2, algorithm=name)

    assert torch.autograd.gradcheck(run, (x, weight, bias), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, weight, bias), fast_mode=True)
    mapped = torch.func.vmap(run, in_dims=(None, 0, None))(x, torch.stack([weight, 2 * weight]), bias)
    torch.testing.assert_close(mapped, torch.stack([run(x, weight, bias), run(x, 2 * weight, bias)]))


# ------------------------------------------------------------------- padding modes of the transposed convolution


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("case", [parameter for parameter in CONVOLUTIONS if len(parameter.values[0].size) <= 3])
def test_transposed_convolution_with_a_mode_is_the_adjoint_of_the_padded_one(case: Case, mode: str) -> None:
    """<conv(x), g> = <x, conv_transpose(g)>, and its gradients are those of that bilinear form."""
    options = {k: v for k, v in case.options if k not in ("flip", "padding_mode")}
    window = Geometry.window(len(case.size), case.kernel, size=case.size, **options)
    rows = [(axis.before, axis.after) for axis in window.axes]
    rest = {k: v for k, v in options.items() if k != "padding"} | {"padding": rows, "padding_mode": mode}
    x, weight, _ = tensors(case)
    padded = striate.conv(x, weight, **rest)
    extra = [axis.unread_tail(n) for axis, n in zip(window.axes, case.size, strict=True)]
    g = integers(*padded.shape, seed=5)

    def back(g: Tensor, w: Tensor) -> Tensor:
        return striate.conv_transpose(g, w, **rest, output_padding=extra)

    def by_autograd(g: Tensor, w: Tensor) -> Tensor:
        image = torch.zeros_like(x).requires_grad_()
        modal = Case(case.size, case.kernel, case.channels, tuple(rest.items()))
        y = definition(image, w, torch.zeros(w.shape[0], dtype=x.dtype), modal)
        return torch.autograd.grad(y, image, g, create_graph=True)[0]

    for actual, expected in zip(outcome(back, (g, weight)), outcome(by_autograd, (g, weight)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
