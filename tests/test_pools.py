"""Every algorithm of every pooling is the definition, bit for bit; and what each refuses, in its own words."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate.computing import ALGORITHMS, Problem, find, passes
from striate.computing.pools import overlap
from striate.geometry import Axis, Geometry
from striate.planning import choose
from striate.pooling import _window

from .cases import POOLINGS, Case, case
from .test_computing import problem

LONG = [
    case((40,), (17,), stride=1, padding=8),
    case((40,), (16,), stride=3, padding="full"),
    case((30, 9), (9, 8), stride=1, dilation=(3, 1), padding=((12, 12), (0, 5))),
    case((9, 8), (3, 2), stride=(4, 5)),
    case((9,), (1,), stride=1),
    case((11,), (2,), stride=4, dilation=3, padding=1),
]
ALL = [*POOLINGS, *LONG]
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def posed(operation: str, case: Case, dtype: torch.dtype = torch.float64) -> Problem:
    options = dict(case.options)
    window = _window(
        "pool", len(case.size), case.size, case.kernel, options.get("stride", case.kernel),
        options.get("padding", 0), options.get("dilation", 1), options.get("ceil", False),
    ).geometry  # fmt: skip
    return Problem(operation, window, 1, 1, 1, case.size, dtype, divisor=2 if operation == "sum" else 1)


def whole(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def patches(x: Tensor, asked: Problem, value: Any) -> Tensor:
    """What each window reads, on one last dimension, by padding and ``Tensor.unfold`` alone."""
    axes = asked.geometry.axes
    flat = [n for axis in reversed(axes) for n in (axis.before, axis.after)]
    x = torch.nn.functional.pad(x, flat, value=value)
    for dim, axis in enumerate(axes, start=2):
        x = x.unfold(dim, axis.extent, axis.stride)[..., :: axis.dilation]
    return x.flatten(-len(axes))


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_maximum_is_the_largest_of_its_patch(dtype: torch.dtype, case: Case) -> None:
    asked = posed("maximum", case, dtype)
    x = whole(2, 3, *case.size, dtype=dtype)
    lowest = -torch.inf if dtype.is_floating_point else 0 if dtype == torch.bool else torch.iinfo(dtype).min
    wanted = patches(x, asked, lowest).amax(-1)
    for name, algorithm in ALGORITHMS["maximum"].items():
        if algorithm.refuses(asked) is None:
            got = algorithm.run(x, None, asked)
            assert got.dtype == dtype, name
            assert got.equal(wanted), name


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_switch_is_the_first_of_the_largest(dtype: torch.dtype, case: Case) -> None:
    """The highest score is the largest value's and, among equals, that of the lowest position."""
    asked = posed("switches", case, dtype)
    x = whole(2, 3, *case.size, dtype=dtype)
    many = prod(case.size)
    score = x.to(torch.int64) * many - torch.arange(many).view(case.size)
    wanted = -patches(score, asked, -(2**60)).amax(-1) % many
    for name, algorithm in ALGORITHMS["switches"].items():
        if algorithm.refuses(asked) is None:
            got = algorithm.run(x, None, asked)
            assert got.dtype == torch.int64, name
            assert got.equal(wanted), name


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex128], ids=str)
def test_every_sum_is_that_of_its_patch_and_backwards_its_adjoint(dtype: torch.dtype, case: Case) -> None:
    asked = posed("sum", case, dtype)
    x = whole(2, 3, *case.size, dtype=dtype).requires_grad_()
    wide = (x.double() if dtype == torch.bfloat16 else x).to(torch.complex128 if dtype.is_complex else torch.float64)
    wanted = patches(wide, asked, 0).sum(-1) / 2
    g = whole(2, 3, *asked.output_size, dtype=dtype, seed=1)
    (back,) = torch.autograd.grad(wanted, wide, g.to(wanted.dtype))
    for operand, expected, one in ((x, wanted, asked), (g, back, replace(asked, direction="input_gradient"))):
        for name, algorithm in ALGORITHMS["sum"].items():
            if algorithm.refuses(one) is None:
                assert algorithm.run(operand.detach(), None, one).equal(expected.detach().to(dtype)), name


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_every_spread_adds_each_output_at_its_switch(dtype: torch.dtype, case: Case) -> None:
    asked = posed("switches", case, dtype)
    switches = find("switches", "reference").run(whole(2, 3, *case.size, dtype=dtype), None, asked)
    g = whole(2, 3, *asked.output_size, dtype=dtype, seed=1)
    wanted = torch.zeros(2, 3, *case.size, dtype=torch.float64)
    for n, c in ((n, c) for n in range(2) for c in range(3)):
        for place, value in zip(switches[n, c].flatten().tolist(), g[n, c].flatten().tolist(), strict=True):
            wanted[n, c].view(-1)[place] += value
    backward = replace(asked, direction="input_gradient")
    served = [name for name, algorithm in ALGORITHMS["switches"].items() if algorithm.refuses(backward) is None]
    assert served[:2] == ["vendor", "reference"]
    for name in served:
        assert find("switches", name).run(g, switches, backward).equal(wanted.to(dtype)), name


@pytest.mark.parametrize("kernel", [2, 3, 7, 8, 20])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_reach_the_windows_that_hold_them_and_no_other(
    kernel: int, dilation: int, poison: float
) -> None:
    """A difference of two running sums would give NaN for every later window."""
    x = whole(1, 1, 60)
    x[..., 30] = poison
    window = Geometry.window(1, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
    for operation in ("sum", "maximum"):
        asked = Problem(operation, window, 1, 1, 1, (60,), torch.float64)
        wanted = find(operation, "reference").run(x, None, asked)
        assert wanted.isfinite().sum() >= wanted.numel() - kernel
        for name, algorithm in ALGORITHMS[operation].items():
            if algorithm.refuses(asked) is None and name != "convolution":
                torch.testing.assert_close(algorithm.run(x, None, asked), wanted, rtol=0, atol=0, equal_nan=True)


def test_the_first_nan_is_the_switch_of_a_separable_pass() -> None:
    x = whole(1, 1, 4, 5)
    x[0, 0, 1, 3] = x[0, 0, 2, 1] = torch.nan
    asked = Problem("switches", Geometry.window(2, (3, 4)), 1, 1, 1, (4, 5), torch.float64)
    for name in ("separable", "reference"):
        assert find("switches", name).run(x, None, asked).tolist() == [[[[8, 8], [8, 8]]]]


def test_sums_do_not_cancel() -> None:
    """After 1e16 a running sum in float64 has no digit left for ones; a window beyond it must not notice."""
    x = torch.ones(1, 1, 64, dtype=torch.float64)
    x[..., 0] = 1e17
    asked = Problem("sum", Geometry.window(1, 8), 1, 1, 1, (64,), torch.float64)
    for name in ("running", "separable"):
        assert (find("sum", name).run(x, None, asked)[..., 1:] == 8).all()


REFUSALS: list[tuple[str, Problem, str | None]] = [
    ("van_herk", problem("maximum", 4, torch.bool), None),
    ("separable", problem("switches", 5), None),
    ("running", problem("sum", 2), None),
    ("running", problem("sum", 2, device="meta"), None),
    (
        "running",
        problem("sum", 2, device="cuda"),
        "on cuda PyTorch's running sums are added in an order that changes.",
    ),
    (
        "vendor",
        replace(problem("switches", 2, stride=2, device="cuda"), direction="input_gradient"),
        "the windows overlap, and on cuda PyTorch's scatter adds in an order that changes.",
    ),
    ("vendor", replace(problem("switches", 2, stride=3, device="cuda"), direction="input_gradient"), None),
    ("vendor", replace(problem("switches", 4), direction="input_gradient"), None),
    (
        "vendor",
        replace(problem("sum", 3, device="cuda"), direction="input_gradient"),
        "on cuda PyTorch's gradient of a mean over 3 axes adds in an order that changes.",
    ),
    ("vendor", replace(problem("sum", 2, device="cuda"), direction="input_gradient"), None),
    (
        "van_herk",
        replace(problem("maximum"), direction="input_gradient"),
        "the direction is input_gradient; it computes forward only.",
    ),
    (
        "reference",
        replace(problem("sum"), direction="weight_gradient"),
        "the direction is weight_gradient; it computes forward and input_gradient only.",
    ),
    (
        "convolution",
        replace(problem("sum"), direction="input_gradient"),
        "the direction is input_gradient; it computes forward only.",
    ),
]


@pytest.mark.parametrize(("name", "asked", "sentence"), REFUSALS)
def test_refusals_are_sentences(name: str, asked: Problem, sentence: str | None) -> None:
    assert find(asked.operation, name).refuses(asked) == sentence


def test_plans_take_the_least_work() -> None:
    few, many = (problem("sum", 4, kernel=k, size=(40,) * 4) for k in (2, 33))
    assert choose(few).algorithm == "separable"
    work = {name: find("sum", name).estimate(many) or 0 for name, _ in choose(many).estimates}
    assert work["separable"] < work["running"] < work["reference"] == many.work
    assert choose(problem("maximum", 4)).algorithm == "separable"
    assert choose(replace(problem("switches", 4, device="cuda"), direction="input_gradient")).algorithm == "reference"


def test_passes_count_their_merges() -> None:
    axis = Axis(8)
    assert passes.slide_work(axis, 93) == 3 * 100 + 93
    assert passes.slide_work(Axis(2, stride=2), 50) == 100
    window = Geometry((Axis(2, stride=2), Axis(2, stride=2)))
    assert passes.work(window, (8, 8), passes.slide_work) == 8 * 8 + 4 * 8
    assert passes.work(window, (8, 8), passes.slide_work, backward=True) == 4 * 16 + 8 * 16


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(2, 2), False),
        (Axis(2), True),
        (Axis(2, 3, 3), True),
        (Axis(2, 2, 3), False),
        (Axis(3, 2, 3), True),
        (Axis(3, 3, 1), False),
        (Axis(4, 2, 1), True),
        (Axis(4, 2, 3), True),
        (Axis(1), False),
    ],
    ids=str,
)
def test_overlap_is_counted(axis: Axis, expected: bool) -> None:
    reads = [{o * axis.stride + t * axis.dilation for t in range(axis.kernel)} for o in range(20)]
    assert overlap(Geometry((axis,))) is expected is any(a & b for i, a in enumerate(reads) for b in reads[:i])


def test_padding_repeats_what_the_window_reads_anyway() -> None:
    assert passes.nearest(Axis(3, dilation=2, before=4, after=3), 5, 8) == (0, 1, 0, 1, 0, 1, 2, 3, 4, 3, 4, 3)


def test_an_exported_sum_holds_no_divisor_that_onnx_would_drop() -> None:
    """PyTorch's ONNX exporter turns any mean pooling into an AveragePool, whatever divisor it was given."""

    class Sums(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return striate.avg_pool(x, 2, divisor=1)

    x = whole(1, 2, 4, 4)
    program = torch.export.export(Sums(), (x,))
    (pooling,) = [node for node in program.graph.nodes if "avg_pool" in str(node.target)]
    assert len(pooling.args) < 7 or pooling.args[6] is None
    assert "divisor_override" not in pooling.kwargs
    assert program.module()(x).equal(Sums()(x))
