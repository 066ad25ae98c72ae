"""The registry, what the built-in algorithms refuse and count, and a user's own algorithm on equal terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import striate
from striate.borders import pad
from striate.computing import ALGORITHMS, Base, Problem, find, register
from striate.computing.reference import accumulator
from striate.errors import AlgorithmError, StriateError, UnknownNameError
from striate.geometry import Axis, Geometry
from striate.planning import choose

from .cases import CONVOLUTIONS, Case
from .test_laws import definition, outcome, tensors

OPERATIONS = {
    "convolution": {"vendor", "reference"},
    "maximum": {"vendor", "separable", "van_herk", "reference"},
    "switches": {"vendor", "separable", "reference"},
    "sum": {"vendor", "convolution", "separable", "running", "reference"},
}


def problem(operation: str, axes: int = 2, dtype: torch.dtype = torch.float32, **window: Any) -> Problem:
    size, device = window.pop("size", (9,) * axes), window.pop("device", "cpu")
    direction = window.pop("direction", "forward")
    geometry = Geometry.window(axes, window.pop("kernel", 3), **window)
    return Problem(operation, geometry, 2, 4, 4, size, dtype, device, direction=direction)


# ------------------------------------------------------------------------------------------------------------- registry


def test_what_is_registered() -> None:
    assert {operation: set(known) & OPERATIONS[operation] for operation, known in ALGORITHMS.items()} == OPERATIONS
    assert striate.algorithms() == tuple(sorted(ALGORITHMS["convolution"]))


def test_the_reference_never_refuses() -> None:
    for operation in OPERATIONS:
        for dtype in (torch.float16, torch.int64, torch.complex64):
            period = 4 if operation == "convolution" else 1
            asked = problem(operation, 5, dtype, stride=2, dilation=3, padding=9, groups=2, period=period)
            assert find(operation, "reference").refuses(asked) is None


REGISTRY_REFUSED = [
    ("convolution", "vendor", "Algorithm 'vendor' is already registered for convolution as "),
    ("sum", "convolution", "Algorithm 'convolution' is already registered for sum as "),
]


@pytest.mark.parametrize(("operation", "name", "message"), REGISTRY_REFUSED)
def test_a_name_is_taken_once(operation: str, name: str, message: str) -> None:
    before = find(operation, name)
    with pytest.raises(AlgorithmError) as caught:
        register(operation, name, Toeplitz())
    assert str(caught.value) == f"{message}{before!r}."
    assert isinstance(caught.value, StriateError)
    assert find(operation, name) is before


def test_an_unknown_operation_is_refused_with_what_is_known() -> None:
    known = "Known: convolution, maximum, sum, switches."
    with pytest.raises(UnknownNameError) as caught:
        register("convolutions", "mine", Toeplitz())
    assert str(caught.value) == f"No operation is called 'convolutions'. Did you mean 'convolution'? {known}"
    with pytest.raises(UnknownNameError) as caught:
        find("median", "vendor")
    assert str(caught.value) == f"No operation is called 'median'. {known}"
    assert set(ALGORITHMS) == set(OPERATIONS)


MISSES = [
    ("convolution", "vendr", "No algorithm is called 'vendr'. Did you mean 'vendor'?"),
    ("maximum", "referents", "No algorithm is called 'referents'. Did you mean 'reference'?"),
    ("sum", "fft", "No algorithm is called 'fft'."),
]


@pytest.mark.parametrize(("operation", "name", "message"), MISSES)
def test_a_miss_suggests_the_nearest_name_and_lists_all(operation: str, name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find(operation, name)
    assert str(caught.value) == f"{message} Known: {', '.join(sorted(ALGORITHMS[operation]))}."
    assert isinstance(caught.value, LookupError)


# ----------------------------------------------------------------------------------------------- a user's own algorithm


class Toeplitz(Base):
    """Convolution over one axis as one matrix product, the matrix written out entry by entry; no weight gradient."""

    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.geometry.axes)
        if problem.direction == "weight_gradient":
            return "the matrix holds the weights and cannot be solved for."
        return None if axes == 1 else f"the window has {axes} spatial axes; a Toeplitz matrix has 1."

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        """(groups, output channels, output positions, input channels, input positions)."""
        (axis,), (inputs,), (outputs,) = problem.geometry.axes, problem.size, problem.output_size
        blocks = second.unflatten(0, (problem.geometry.groups, -1))
        matrix = second.new_zeros(problem.geometry.groups, blocks.shape[1], outputs, blocks.shape[2], inputs)
        for o in range(outputs):
            for tap in range(axis.kernel):
                if 0 <= (i := o * axis.stride + tap * axis.dilation - axis.before) < inputs:
                    matrix[:, :, o, :, i] += blocks[..., tap]
        return matrix

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        grouped = first.unflatten(1, (problem.geometry.groups, -1))
        equation = "goqci,ngci->ngoq" if problem.direction == "forward" else "goqci,ngoq->ngci"
        return torch.einsum(equation, second, grouped).flatten(1, 2)


class Sevens(Base):
    """Claims every window and answers 7 everywhere: a wrong algorithm, easy to recognise."""

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        channels, size = problem.out_channels, problem.output_size
        if problem.direction == "weight_gradient":
            return first.new_full(problem.geometry.weight_shape(problem.in_channels, channels), 7.0)
        if problem.direction == "input_gradient":
            channels, size = problem.in_channels, problem.size
        return first.new_full((len(first), channels, *size), 7.0)


@pytest.fixture
def toeplitz() -> Iterator[Toeplitz]:
    algorithm = Toeplitz()
    register("convolution", "own", algorithm)
    yield algorithm
    del ALGORITHMS["convolution"]["own"]


@pytest.fixture
def sevens() -> Iterator[None]:
    register("convolution", "sevens", Sevens())
    yield
    del ALGORITHMS["convolution"]["sevens"]


def whole(*shape: int, seed: int = 0) -> Tensor:
    """Small whole numbers, so that sums of products are exact in every order."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).double()


def on_one_axis(cases: list[Any]) -> list[Any]:
    return [case for case in cases if len(case.values[0].size) == 1]


@pytest.mark.parametrize("case", on_one_axis(CONVOLUTIONS))
def test_an_algorithm_of_one_s_own_is_judged_by_the_law_of_all(case: Case, toeplitz: Toeplitz) -> None:
    """Output and every gradient, each of which it computes itself, bit for bit the definition's."""
    inputs, options = tensors(case), dict(case.options)
    got = outcome(lambda x, w, b: striate.conv(x, w, b, **options, algorithm="own"), inputs)
    for actual, wanted in zip(got, outcome(lambda x, w, b: definition(x, w, b, case), inputs), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)
    assert "own" in striate.algorithms()


def test_the_law_finds_a_wrong_algorithm_wrong(sevens: None) -> None:
    case = CONVOLUTIONS[0].values[0]
    got, *gradients = outcome(lambda x, w, b: striate.conv(x, w, b, algorithm="sevens"), tensors(case))
    wanted, *others = outcome(lambda x, w, b: definition(x, w, b, case), tensors(case))
    assert not got.equal(wanted)
    assert [a.equal(b) for a, b in zip(gradients, others, strict=True)] == [
        False,
        False,
        True,
    ]  # the bias is not its own


def test_a_call_by_name_reaches_it(sevens: None) -> None:
    x, weight = whole(2, 3, 9, 8), whole(4, 3, 3, 3, seed=1)
    got = striate.conv(x, weight, stride=2, padding=1, algorithm="sevens")
    assert got.equal(torch.full((2, 4, 5, 4), 7.0, dtype=torch.float64))
    assert striate.conv(x, weight, stride=2, padding=1).equal(F.conv2d(x, weight, stride=2, padding=1))


def test_it_may_refuse_in_its_own_words(toeplitz: Toeplitz) -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.conv(whole(1, 1, 5, 5), whole(1, 1, 3, 3), algorithm="own")
    assert str(caught.value) == (
        "algorithm='own' cannot serve this convolution: the window has 2 spatial axes; a Toeplitz matrix has 1."
    )
    plan = striate.plan((1, 1, 5, 5), (1, 1, 3, 3))
    assert ("own", "the window has 2 spatial axes; a Toeplitz matrix has 1.") in plan.refusals


def test_plans_know_it_from_registration_to_removal() -> None:
    """Plans are cached; a plan made before or after must not show through."""

    def names() -> list[str]:
        return [name for name, _ in striate.plan((1, 2, 6), (3, 2, 3)).estimates]

    assert "own" not in names()
    register("convolution", "own", Toeplitz())
    try:
        assert names()[0] == "vendor"
        assert "own" in names()
        assert str(striate.plan((1, 2, 6), (3, 2, 3), algorithm="own")).startswith("own: convolution, 72 multiply-adds")
    finally:
        del ALGORITHMS["convolution"]["own"]
    assert "own" not in names()
    with pytest.raises(UnknownNameError, match="No algorithm is called 'own'"):
        striate.conv(whole(1, 2, 6), whole(3, 2, 3), algorithm="own")


def test_the_vendor_is_preferred_to_it_and_it_to_the_reference(sevens: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(ALGORITHMS["convolution"]) - {"vendor", "sevens", "reference"}:
        monkeypatch.delitem(ALGORITHMS["convolution"], name)
    assert choose(problem("convolution", 2)).algorithm == "vendor"
    assert choose(problem("convolution", 4)).algorithm == "sevens"
    x, weight = whole(1, 1, 2, 2, 2, 2), whole(1, 1, 1, 1, 1, 1)
    assert (striate.conv(x, weight) == 7).all()


def test_a_call_made_before_does_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(ALGORITHMS["convolution"]) - {"vendor", "reference"}:
        monkeypatch.delitem(ALGORITHMS["convolution"], name)
    x, weight = whole(1, 1, 2, 2, 2, 2), torch.ones(1, 1, 1, 1, 1, 1, dtype=torch.float64)
    assert striate.conv(x, weight).equal(x)
    register("convolution", "sevens", Sevens())
    try:
        assert (striate.conv(x, weight) == 7).all()
    finally:
        del ALGORITHMS["convolution"]["sevens"]
    assert striate.conv(x, weight).equal(x)


# ------------------------------------------------------------------------------------------------------------- refusals

REFUSALS: list[tuple[str, Problem, str | None]] = [
    ("vendor", problem("convolution", 3, dilation=2, stride=3, padding=20, groups=4), None),
    ("vendor", problem("convolution", 4), "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."),
    (
        "vendor",
        problem("convolution", 2, period=(1, 7)),
        "the weights repeat with period (1, 7); PyTorch's convolutions share them with period 1.",
    ),
    ("vendor", problem("maximum", 1), None),
    ("vendor", problem("maximum", 5), "the window has 5 spatial axes; PyTorch has kernels for 1 to 3."),
    (
        "vendor",
        problem("maximum", 1, torch.int64),
        "the input is torch.int64; PyTorch's max poolings take floating-point numbers on all devices.",
    ),
    (
        "vendor",
        problem("switches", 2, torch.bool),
        "the input is torch.bool; PyTorch's max poolings take floating-point numbers on all devices.",
    ),
    ("vendor", problem("switches", 4), "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."),
    ("vendor", problem("sum", 1), None),
    ("vendor", problem("sum", 2, dilation=2), "the window is dilated; PyTorch's mean poolings are not."),
    (
        "vendor",
        problem("sum", 2, torch.complex64),
        "the input is torch.complex64; PyTorch's mean poolings take floating-point numbers.",
    ),
    (
        "vendor",
        problem("sum", 3, torch.bfloat16),
        "the input is torch.bfloat16; PyTorch's mean pooling over 3 axes has no such kernel on the CPU.",
    ),
    ("vendor", problem("sum", 3, torch.bfloat16, device="cuda"), None),
    ("vendor", problem("sum", 2, torch.float16), None),
    ("vendor", problem("sum", 4), "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."),
    ("convolution", problem("sum", 3, torch.complex64, dilation=3), None),
    (
        "convolution",
        problem("sum", 2, torch.int32),
        "the input is torch.int32; it needs floating-point or complex numbers.",
    ),
    ("convolution", problem("sum", 4), "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."),
]


@pytest.mark.parametrize(("name", "asked", "sentence"), REFUSALS)
def test_refusals_are_sentences(name: str, asked: Problem, sentence: str | None) -> None:
    assert find(asked.operation, name).refuses(asked) == sentence


# ------------------------------------------------------------------------------------------------- problems and numbers


def test_a_problem_counts_its_own_work() -> None:
    """9x9 by 3x3 with stride 2 is 4x4; 2 examples, 4 channels out of 2 in each of two groups."""
    assert problem("convolution", stride=2, groups=2).output_size == (4, 4)
    assert problem("convolution", stride=2, groups=2).work == (2 * 4 * 4 * 4) * (2 * 3 * 3)
    assert problem("convolution").work == (2 * 4 * 7 * 7) * (4 * 3 * 3)
    assert problem("maximum", stride=2).work == (2 * 4 * 4 * 4) * (3 * 3)
    back = problem("convolution", stride=2, groups=2, direction="input_gradient")
    assert back.work == problem("convolution", stride=2, groups=2).work


def test_a_problem_is_a_value_of_its_own() -> None:
    assert problem("sum") == problem("sum")
    assert hash(problem("sum")) == hash(problem("sum"))
    assert problem("sum") != problem("sum", dtype=torch.float64)
    bare = Problem("sum", Geometry.window(1, 2), 1, 1, 1, (4,))
    assert (bare.dtype, bare.device, bare.divisor) == (torch.get_default_dtype(), "cpu", 1)


def test_sums_of_16_bit_numbers_are_kept_in_32_bits() -> None:
    assert accumulator(torch.float16) == accumulator(torch.bfloat16) == torch.float32
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.int64):
        assert accumulator(dtype) == dtype


@pytest.mark.parametrize("name", ["reference", "convolution"])
def test_every_sum_of_4096_ones_is_4096(name: str) -> None:
    """Added one by one in float16 they would stop at 2048."""
    asked = Problem("sum", Geometry((Axis(4096),)), 1, 1, 1, (4096,), torch.float16)
    total = find("sum", name).run(torch.ones(1, 1, 4096, dtype=torch.float16), None, asked)
    assert (total.item(), total.dtype) == (4096, torch.float16)


def test_pad_pads_and_crops_each_axis_in_order() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert pad(x, ((0, 0), (0, 0))) is x
    assert pad(x, ((1, 0), (0, -2)), -1.0).tolist() == [[[[-1.0], [0.0], [3.0]]]]
    assert pad(x, ((-1, 0), (1, 1))).tolist() == [[[[0.0, 3.0, 4.0, 5.0, 0.0]]]]
    assert pad(x, ((3, -4), (0, 0))).tolist() == [[[[0.0, 0.0, 0.0]]]]


@pytest.mark.parametrize("name", ["vendor", "reference"])
def test_negative_padding_crops_the_input(name: str) -> None:
    """Only gradients ask for it: rows that no window reached get no gradient."""
    x, weight = whole(2, 3, 9, 8), whole(4, 3, 3, 2, seed=1)
    window = Geometry((Axis(3, 2, 1, -1, -2), Axis(2, 1, 2, -3, 1)))
    asked = Problem("convolution", window, 2, 3, 4, (9, 8), x.dtype)
    expected = F.conv2d(F.pad(x[:, :, 1:-2, 3:], (0, 1)), weight, stride=(2, 1), dilation=(1, 2))
    algorithm = find("convolution", name)
    torch.testing.assert_close(algorithm.run(x, algorithm.prepare(weight, asked), asked), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("weights_last", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("deterministic", [False, True])
def test_pytorch_s_gradient_of_an_input_larger_than_the_output(
    dtype: torch.dtype, last: bool, weights_last: bool, axes: int, deterministic: bool
) -> None:
    window = Geometry.window(axes, 3, stride=2, padding=1, groups=2)
    problem = Problem("convolution", window, 2, 4, 4, (9,) * axes, dtype, direction="input_gradient")

    def laid(shape: tuple[int, ...], channels_last: bool) -> torch.Tensor:
        values = torch.randint(-3, 4, shape).to(dtype)
        return values.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else values

    y, weight = laid((2, 4, *(5,) * axes), last), laid((4, 2, *(3,) * axes), weights_last)
    torch.use_deterministic_algorithms(deterministic)
    try:
        found = find("convolution", "vendor").run(y, weight, problem)
    finally:
        torch.use_deterministic_algorithms(False)
    x = torch.zeros(2, 4, *(9,) * axes, dtype=torch.float64, requires_grad=True)
    function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[axes]
    (expected,) = torch.autograd.grad(function(x, weight.double(), None, 2, 1, 1, 2), x, y.double())
    torch.testing.assert_close(found.double(), expected.to(dtype).double(), rtol=0, atol=0)
