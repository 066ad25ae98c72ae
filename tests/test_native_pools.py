"""The compiled poolings: every instruction set, layout, type and number of threads gives the definition's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from striate.computing import Problem, find, layout_of, native
from striate.computing.native import as_numbers
from striate.computing.native_pools import (
    _decomposed,
    _decomposed_maximum,
    _decomposed_norm_gradient,
    collect,
    largest_and_places,
    marked,
    mean,
    norm,
    norm_gradient,
    switches_of,
)
from striate.geometry import Axis, Geometry
from striate.reductions import largest

compiled: Any = native.compiled
pytestmark = pytest.mark.skipif(compiled is None, reason="installed without a compiler")
LAST: dict[int, Any] = {4: torch.channels_last, 5: torch.channels_last_3d}
TYPES = [torch.float32, torch.float64, torch.bfloat16]
OPERATORS: Any = torch.ops.striate


@pytest.fixture(params=["v3", "v4"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    best = compiled.instruction_set()
    if request.param > best:
        pytest.skip(f"this processor has {best}")
    compiled.use_instruction_set(request.param)
    yield request.param
    compiled.use_instruction_set(best)


def posed(operation: str, geometry: Geometry, size: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Problem:
    return Problem(operation, geometry, 1, 1, 1, size, dtype)


def whole(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, low: int = -4) -> Tensor:
    return torch.randint(low, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layouts(x: Tensor) -> list[Tensor]:
    """The same numbers in memory as they are, with the channels last, and with holes."""
    holes = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)[..., ::2].copy_(x)
    return [x, *([x.contiguous(memory_format=LAST[x.dim()])] if x.dim() in LAST else []), holes]


def same(got: Tensor, wanted: Tensor) -> bool:
    return got.dtype == wanted.dtype and torch.allclose(got, wanted, rtol=0, atol=0, equal_nan=True)


def judge_marks(geometry: Geometry, x: Tensor) -> None:
    """Largest values with their places or marks, and the way back, against the definition."""
    asked = posed("switches", geometry, tuple(x.shape[2:]), x.dtype)
    wanted = find("switches", "reference").run(x, None, asked)
    y = whole(*wanted.shape, dtype=x.dtype, seed=2)
    back = find("switches", "reference").run(y, wanted, replace(asked, direction="input_gradient"))
    for one in layouts(x):
        values, places = largest_and_places(one, asked)
        assert same(values, find("maximum", "reference").run(x, None, asked))
        assert switches_of(places, asked).equal(wanted)
        for gradient in layouts(y):
            assert same(collect(gradient, places, asked), back)


def judge_means(geometry: Geometry, x: Tensor) -> None:
    """Means of what is real, norms, and their gradients, against the definition in float64."""
    asked = posed("sum", geometry, tuple(x.shape[2:]), torch.float64)
    wide = x.double()
    ones = find("sum", "reference").run(torch.ones_like(wide), None, asked)
    roots = find("sum", "reference").run(wide.square(), None, asked).sqrt()
    y = whole(*ones.shape, dtype=x.dtype, seed=3)
    backward = replace(asked, direction="input_gradient")
    means = find("sum", "reference").run(wide, None, asked) / ones
    shares = find("sum", "reference").run(y.double() / ones, None, backward)
    slopes = find("sum", "reference").run(torch.where(roots == 0, 0, y.double() / roots), None, backward)
    about: dict[str, Any] = {"rtol": 4e-2, "atol": 4e-2} if x.dtype.itemsize == 2 else {}
    for one in layouts(x):
        leaf = one.detach().requires_grad_()
        got, norms = mean(leaf, asked), norm(one, asked)
        torch.testing.assert_close(got, means.to(x.dtype))
        torch.testing.assert_close(norms, roots.to(x.dtype))
        for laid in layouts(y):
            (back,) = torch.autograd.grad(got, leaf, laid, retain_graph=True)
            torch.testing.assert_close(back, shares.to(x.dtype), **about)
            back = norm_gradient(laid, norms, one, asked)
            torch.testing.assert_close(back, (wide * slopes).to(x.dtype), **about)


def judge(geometry: Geometry, x: Tensor) -> None:
    """All directions of all operations against the definition, bit for bit."""
    size, dtype = tuple(x.shape[2:]), x.dtype
    for operation in ("maximum", "switches", "sum"):
        asked = posed(operation, geometry, size, dtype)
        wanted = find(operation, "reference").run(x, None, asked)
        for one in layouts(x):
            assert same(find(operation, "native").run(one, None, asked), wanted), operation
    switches = find("switches", "reference").run(x, None, posed("switches", geometry, size, dtype))
    y = whole(*switches.shape, dtype=dtype, seed=1)
    for operation, second in (("sum", None), ("switches", switches)):
        backward = replace(posed(operation, geometry, size, dtype), direction="input_gradient")
        wanted = find(operation, "reference").run(y, second, backward)
        for one in layouts(y):
            assert same(find(operation, "native").run(one, second, backward), wanted), operation


@st.composite
def windows(draw: st.DrawFn) -> tuple[Geometry, tuple[int, ...]]:
    """Windows that all read at least one real value; some long, some apart, some cropping."""
    axes, size = [], []
    for _ in range(draw(st.integers(1, 3))):
        n, dilation = draw(st.integers(1, 21)), draw(st.sampled_from([1, 1, 1, 2, 3]))
        kernel = draw(st.integers(1, max(1, (n - 1) // dilation + 1)))
        before, after = (draw(st.integers(-1 if n > 3 else 0, kernel // 2)) for _ in range(2))
        axis = Axis(kernel, draw(st.integers(1, 4)), dilation, before, after)
        if n + before + after < axis.extent:
            axis = replace(axis, before=0, after=0)
        axes.append(axis)
        size.append(n)
    return Geometry(tuple(axes)), tuple(size)


def reads_something(geometry: Geometry, size: tuple[int, ...]) -> bool:
    asked = posed("sum", geometry, size)
    return bool((find("sum", "reference").run(torch.ones(1, 1, *size), None, asked) > 0).all())


@settings(max_examples=60, deadline=None)
@given(windows(), st.sampled_from(TYPES), st.sampled_from([1, 3, 17]), st.integers(0, 9), st.booleans())
def test_any_window_is_the_definition_s(
    window: tuple[Geometry, tuple[int, ...]], dtype: torch.dtype, channels: int, seed: int, poisoned: bool
) -> None:
    geometry, size = window
    if not reads_something(geometry, size):
        return
    x = whole(1, channels, *size, dtype=dtype, seed=seed)
    if poisoned:
        x[whole(*x.shape, seed=seed + 1) == 4] = (torch.nan, torch.inf, -torch.inf)[seed % 3]
    judge(geometry, x)
    if x.isnan().any():
        return
    judge_marks(geometry, x)
    if not poisoned:
        judge_means(geometry, x)


LONG = [
    ((40,), Geometry.window(1, 17, padding=8)),
    ((700,), Geometry.window(1, 301, padding=150)),
    ((1100,), Geometry.window(1, 301, stride=7, dilation=3)),
    ((700,), Geometry.window(1, 100, stride=100)),
    ((300,), Geometry.window(1, 300)),
    ((24, 23), Geometry.window(2, (21, 17), padding=8)),
    ((28, 25), Geometry.window(2, (9, 11), stride=(1, 2), dilation=(3, 2))),
    ((25, 23), Geometry.window(2, (25, 23))),
    ((1, 1), Geometry.window(2, 13, padding=6)),
    ((1, 1), Geometry.window(2, 5, padding=4)),
    ((9, 70, 8), Geometry.window(3, (9, 12, 1), stride=(1, 3, 1), padding=(4, 0, 0))),
    ((30, 5, 6), Geometry.window(3, (21, 2, 3), padding=(10, 1, 1))),
    ((3, 600), Geometry.window(2, (2, 5), stride=(1, 3))),
]


@pytest.mark.parametrize(("size", "geometry"), LONG, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_long_windows_on_every_instruction_set(
    size: tuple[int, ...], geometry: Geometry, dtype: torch.dtype, instruction_set: str
) -> None:
    assert compiled.instruction_set() == instruction_set
    for channels in (2, 70):
        judge(geometry, whole(1, channels, *size, dtype=dtype, low=0 if dtype == torch.bfloat16 else -4) % 2)


def test_any_number_of_threads_and_every_instruction_set_gives_the_same_bits(instruction_set: str) -> None:
    x = torch.randn(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    for kernel in (3, 33):
        for operation, direction in (("sum", "forward"), ("sum", "input_gradient"), ("maximum", "forward")):
            geometry = Geometry.window(2, kernel, padding=kernel // 2)
            asked = replace(posed(operation, geometry, (33, 47)), direction=direction, divisor=7)
            results = []
            for number, name in ((1, instruction_set), (2, instruction_set), (1, "v3")):
                torch.set_num_threads(number)
                compiled.use_instruction_set(name)
                results.append(find(operation, "native").run(x, None, asked))
            torch.set_num_threads(threads)
            assert results[0].equal(results[1])
            assert results[0].equal(results[2])


def test_sums_of_long_windows_keep_their_digits() -> None:
    x = torch.rand(1, 2, 120, 120, generator=torch.Generator().manual_seed(0))
    for kernel in (120, 61):
        asked = posed("sum", Geometry.window(2, kernel), (120, 120))
        wanted = find("sum", "native").run(x.double(), None, replace(asked, dtype=torch.float64))
        for one in layouts(x):
            torch.testing.assert_close(find("sum", "native").run(one, None, asked).double(), wanted, rtol=1e-6, atol=0)


# -------------------------------------------------------------------------------------------------------- the operators

WINDOW = Geometry.window(2, (3, 2), stride=(2, 1), padding=1)
SIZE = (7, 6)


def samples() -> list[tuple[Any, ...]]:
    numbers = as_numbers(posed("sum", WINDOW, SIZE))
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    _, switches = largest_and_places(x, posed("maximum", WINDOW, SIZE))
    y = torch.randn(switches.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    x.requires_grad_()
    return [
        (x, None, "maximum", "forward", 1, numbers),
        (x.detach(), None, "switches", "forward", 1, numbers),
        (y, switches, "switches", "input_gradient", 1, numbers),
        (x, None, "sum", "forward", 6, numbers),
        (x, None, "sum", "forward", 0, numbers),
        (y, None, "sum", "input_gradient", 6, numbers),
        (x, None, "norm", "forward", 1, numbers),
        (x.detach().contiguous(memory_format=torch.channels_last), None, "sum", "forward", 1, numbers),
    ]


@pytest.mark.parametrize("operands", samples(), ids=lambda operands: "-".join(map(str, operands[2:5])))
def test_the_operator_keeps_pytorch_s_rules(operands: tuple[Any, ...]) -> None:
    torch.library.opcheck(OPERATORS.native_pool.default, operands)
    torch.testing.assert_close(_decomposed(*operands), OPERATORS.native_pool(*operands))


def test_values_and_places_come_together() -> None:
    asked = posed("maximum", WINDOW, SIZE)
    for x in layouts(whole(2, 3, *SIZE)):
        values, places = largest_and_places(x, asked)
        marks = places.dtype == torch.uint8
        assert marks == marked(replace(asked, layout=layout_of(x)))
        assert values.equal(find("maximum", "reference").run(x, None, asked))
        assert switches_of(places, asked).equal(find("switches", "reference").run(x, None, asked))
        assert values.stride() == places.stride()
        torch.library.opcheck(OPERATORS.native_maximum.default, (x.clone().requires_grad_(), as_numbers(asked)))
        for got, wanted in zip(_decomposed_maximum(x, as_numbers(asked)), (values, places), strict=True):
            assert got.equal(wanted)


def test_a_value_at_a_switch_is_the_very_same() -> None:
    """Of -0 and 0 the first is the switch, and keeps its sign."""
    x = torch.tensor([[[-0.0, 0.0, -0.0]]])
    values, places = largest_and_places(x, posed("maximum", Geometry.window(1, 2), (3,)))
    assert places.tolist() == [[[0, 1]]]
    assert values.signbit().tolist() == [[[True, False]]]


def test_derivatives_to_the_second_order() -> None:
    order = torch.randperm(2 * 42, generator=torch.Generator().manual_seed(0))
    x = (order.view(1, 2, *SIZE) / 7 - 2.53).double().requires_grad_()
    asked = posed("maximum", WINDOW, SIZE, torch.float64)
    functions = [
        lambda x: largest_and_places(x, asked)[0],
        lambda x: mean(x, asked),
        lambda x: norm(x, asked),
        lambda x: OPERATORS.native_pool(x, None, "maximum", "forward", 1, as_numbers(asked)),
        lambda x: OPERATORS.native_pool(x, None, "sum", "forward", 3, as_numbers(asked)),
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("window", [WINDOW, Geometry.window(2, 2, stride=2), Geometry.window(2, (2, 3), dilation=2)])
@pytest.mark.parametrize("channels", [3, 20])
def test_marks_have_derivatives_of_every_order_and_kind(window: Geometry, channels: int) -> None:
    order = torch.randperm(2 * channels * 42, generator=torch.Generator().manual_seed(0))
    x = (order.view(2, channels, *SIZE) / 7 - 2.53).double().contiguous(memory_format=torch.channels_last)
    asked = replace(posed("maximum", window, SIZE, torch.float64), layout="channels_last")
    assert marked(asked)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: largest(x, asked), x, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: largest(x, asked), x, fast_mode=True)
    slope = torch.func.grad(lambda x: largest(x, asked).square().sum())
    torch.testing.assert_close(torch.vmap(lambda image: slope(image[None])[0])(x), slope(x))
    assert torch.func.vmap(lambda image: slope(image[None])[0])(x.detach()).equal(slope(x.detach()))


@pytest.mark.parametrize("channels", [3, 20])
def test_operators_of_marks_and_norms_keep_pytorch_s_rules(channels: int) -> None:
    x = torch.randn(2, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    asked = replace(posed("maximum", WINDOW, SIZE), layout="channels_last")
    values, marks = largest_and_places(x, asked)
    numbers, y = as_numbers(asked), torch.randn_like(values)
    torch.library.opcheck(OPERATORS.native_maximum.default, (x.clone().requires_grad_(), numbers))
    for got, wanted in zip(_decomposed_maximum(x, numbers), (values, marks), strict=True):
        assert got.equal(wanted)
    samples: list[tuple[Any, ...]] = [
        (OPERATORS.native_pool.default, (y, marks, "switches", "input_gradient", 1, numbers), _decomposed),
        (OPERATORS.native_pool.default, (y, None, "sum", "input_gradient", 0, numbers), _decomposed),
        (OPERATORS.native_norm_gradient.default, (y, norm(x, asked), x, numbers), _decomposed_norm_gradient),
    ]
    for operator, operands, decomposed in samples:
        torch.library.opcheck(operator, operands)
        torch.testing.assert_close(decomposed(*operands), operator(*operands))


def test_means_count_real_values_and_norms_are_those_of_the_definition() -> None:
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    for dtype in TYPES:
        asked = posed("sum", WINDOW, SIZE, torch.float64)
        rounded = x.to(dtype)
        real = find("sum", "reference").run(torch.ones_like(x).double(), None, asked)
        means = find("sum", "reference").run(rounded.double(), None, asked) / real
        norms = find("sum", "reference").run(rounded.double().square(), None, asked).sqrt()
        for one in layouts(rounded):
            torch.testing.assert_close(mean(one, asked), means.to(dtype))
            torch.testing.assert_close(norm(one, asked), norms.to(dtype))
    zero = torch.zeros(1, 1, *SIZE, requires_grad=True)
    norm(zero, asked).sum().backward()
    assert zero.grad is not None
    assert not zero.grad.any()


def test_operations_are_counted() -> None:
    asked = posed("maximum", Geometry.window(2, 3), (9, 9))
    x = torch.ones(2, 5, 9, 9)
    for function in (largest_and_places, norm):
        with FlopCounterMode(display=False) as counter:
            function(x, asked)
        assert counter.get_total_flops() == 2 * 5 * 7 * 7 * 9


def test_a_switch_outside_the_map_is_left_out_and_empty_tensors_stay_empty() -> None:
    asked = replace(posed("switches", Geometry.window(1, 2), (3,)), direction="input_gradient")
    switches = torch.tensor([[[-1, 5]]])
    assert find("switches", "native").run(torch.ones(1, 1, 2), switches, asked).tolist() == [[[0, 0, 0]]]
    empty = find("maximum", "native").run(torch.ones(0, 4, 3), None, posed("maximum", Geometry.window(1, 2), (3,)))
    assert empty.shape == (0, 4, 2)


REFUSALS = [
    (
        posed("switches", Geometry.window(2, 2), (2**16, 2**15)),
        "the map has 2147483648 places; the compiled kernels know 2147483647.",
    ),
    (posed("switches", Geometry.window(2, 2), (2**16, 2**15 - 1)), None),
    (posed("maximum", Geometry.window(2, 2), (2**16, 2**15)), None),
    (
        replace(posed("maximum", WINDOW, SIZE), direction="input_gradient"),
        "the direction is input_gradient; it computes forward only.",
    ),
    (
        posed("sum", Geometry.window(4, 2), (3, 3, 3, 3)),
        "the window has 4 spatial axes; the compiled kernels have 3.",
    ),
    (
        replace(posed("sum", WINDOW, SIZE), device="cuda"),
        "the tensors are on cuda; the compiled kernels are for the CPU.",
    ),
]


@pytest.mark.parametrize(("asked", "sentence"), REFUSALS)
def test_refusals_are_sentences(asked: Problem, sentence: str | None) -> None:
    assert find(asked.operation, "native").refuses(asked) == sentence
