"""The matrix of a layer: what it computes, which famous matrices it is, and the algorithms that multiply with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, signal
from torch import Tensor

import striate
from striate.computing import Problem, find
from striate.errors import GeometryError, UnknownNameError
from striate.geometry import Axis, Geometry

from .cases import CONVOLUTIONS, Case
from .test_im2col import PERIODIC, agrees, compiled_agrees, empty_batch_agrees, integers, problems, random_agrees

POSED = problems()
WRITTEN = [(g, size) for g, size in PERIODIC if min(axis.before for axis in g.axes) >= 0]  # nobody writes cropping


# ---------------------------------------------------------------------------------------------------------- its meaning


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_it_times_the_input_is_the_convolution(case: Case, sparse: bool) -> None:
    c, o = case.channels
    x, weight = integers(c, *case.size, seed=1), integers(o, c // case.groups, *case.kernel, seed=2)
    options = dict(case.options)
    made = striate.matrix(weight, case.size, **options, sparse=sparse)
    wanted = striate.conv(x, weight, **options).flatten()
    assert made.is_sparse == sparse
    assert tuple(made.shape) == (wanted.numel(), x.numel())
    assert (made @ x.flatten()[:, None]).flatten().equal(wanted)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("geometry", "size"), WRITTEN)
def test_local_and_tiled_weights_have_one_too(geometry: Geometry, size: tuple[int, ...], sparse: bool) -> None:
    axes = geometry.axes
    x, weight = integers(4, *size, seed=1), integers(*geometry.weight_shape(4, 6), seed=2)
    options: dict[str, Any] = {
        "stride": [a.stride for a in axes],
        "dilation": [a.dilation for a in axes],
        "padding": [(a.before, a.after) for a in axes],
        "groups": geometry.groups,
    }
    made = striate.matrix(weight, size, sparse=sparse, **options)
    assert (made @ x.flatten()[:, None]).flatten().equal(striate.conv_tiled(x, weight, **options).flatten())


def test_a_flipped_tiled_kernel_is_turned_and_its_period_is_not() -> None:
    weight = integers(2, 1, 1, 3)
    assert striate.matrix(weight, (5,), flip=True).equal(striate.matrix(weight.flip(-1), (5,)))


def test_a_single_number_is_every_axis_of_a_shared_weight() -> None:
    weight = integers(2, 3, 3, 2)
    assert striate.matrix(weight, 5).equal(striate.matrix(weight, (5, 5)))


def test_types_and_places_are_those_of_the_weight() -> None:
    for dtype in (torch.int64, torch.float16, torch.bfloat16, torch.complex64):
        weight = integers(2, 1, 3, dtype=dtype)
        made = striate.matrix(weight, 5, padding=4, padding_mode="circular")
        assert made.dtype == dtype
        wide = torch.complex128 if dtype.is_complex else torch.float64
        assert made.to(wide).equal(striate.matrix(weight.to(wide), 5, padding=4, padding_mode="circular"))
    assert striate.matrix(torch.empty(2, 1, 3, device="meta"), 5).shape == (6, 5)


# --------------------------------------------------------------------------------------------------- famous matrices


def padded(kernel: Tensor, *size: int) -> Any:
    """The kernel with zeros after it."""
    return np.pad(kernel.numpy(), [(0, n - k) for n, k in zip(size, kernel.shape, strict=True)])


@pytest.mark.parametrize(("taps", "inputs"), [(1, 4), (3, 5), (4, 4), (5, 2)])
def test_mathematical_convolution_is_a_toeplitz_matrix(taps: int, inputs: int) -> None:
    kernel, x = integers(taps, seed=1), integers(inputs, seed=2)
    made = striate.matrix(kernel.view(1, 1, -1), inputs, flip=True, padding="full")
    wanted = linalg.toeplitz(padded(kernel, taps + inputs - 1), padded(kernel[:1], inputs))
    assert made.equal(torch.from_numpy(wanted))
    assert (made @ x).equal(torch.from_numpy(signal.convolve(x, kernel, method="direct")))


@pytest.mark.parametrize(("taps", "inputs"), [(1, 4), (3, 5), (4, 4)])
def test_circular_convolution_is_a_circulant_matrix(taps: int, inputs: int) -> None:
    kernel = integers(taps, seed=1)
    made = striate.matrix(kernel.view(1, 1, -1), inputs, flip=True, padding="causal", padding_mode="circular")
    assert made.equal(torch.from_numpy(linalg.circulant(padded(kernel, inputs))))


def test_a_kernel_longer_than_the_circle_goes_round() -> None:
    kernel = torch.tensor([1.0, 20.0, 300.0, 4000.0, 50000.0])
    made = striate.matrix(kernel.view(1, 1, -1), 3, flip=True, padding="causal", padding_mode="circular")
    assert made.equal(torch.from_numpy(linalg.circulant(np.array([4001, 50020, 300], np.float32))))


def doubly_block_circulant(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The course notes' matrix: the circulant matrices of the padded kernel's rows, themselves in a circle."""
    blocks = [linalg.circulant(row) for row in padded(kernel, *size)]
    return torch.from_numpy(np.block([[blocks[i - j] for j in range(size[0])] for i in range(size[0])]))


@pytest.mark.parametrize(("kernel", "size"), [((2, 3), (4, 5)), ((3, 1), (3, 2)), ((2, 2), (2, 3))])
def test_two_axes_give_the_doubly_block_circulant_matrix(kernel: tuple[int, int], size: tuple[int, int]) -> None:
    weight = integers(*kernel, seed=1)
    made = striate.matrix(weight[None, None], size, flip=True, padding="causal", padding_mode="circular")
    assert made.equal(doubly_block_circulant(weight, size))


def test_the_notes_compute_a_whole_2d_convolution_with_it() -> None:
    """Both pictures extended with zeros to M x N = (M_I + M_K - 1) x (N_I + N_K - 1)."""
    image, kernel = integers(3, 4, seed=1), integers(2, 3, seed=2)
    whole = torch.from_numpy(signal.convolve2d(image, kernel))
    size = tuple(whole.shape)
    extended = torch.from_numpy(padded(image, *size))
    made = striate.matrix(kernel[None, None], size, flip=True, padding="causal", padding_mode="circular")
    assert (made @ extended.flatten()).view(size).equal(whole)
    direct = striate.matrix(kernel[None, None], (3, 4), flip=True, padding="full")
    assert (direct @ image.flatten()).view(size).equal(whole)


# -------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_it_is_differentiable_in_the_weight(sparse: bool, dtype: torch.dtype) -> None:
    weight = torch.randn(2, 2, 3, dtype=dtype, requires_grad=True)
    x = torch.randn(2 * 4, 1, dtype=dtype)

    def product(weight: Tensor) -> Tensor:
        made = striate.matrix(weight, 4, padding=5, padding_mode="reflect", stride=2, sparse=sparse)
        return (torch.sparse.mm(made, x) if sparse else made @ x).flatten()

    assert torch.autograd.gradcheck(product, (weight,))
    if not sparse:
        assert torch.autograd.gradgradcheck(product, (weight,))


def test_its_transpose_is_the_transposed_convolution() -> None:
    weight, y = integers(4, 2, 3, 2, seed=1), integers(4, 3, 4, seed=2)
    made = striate.matrix(weight, (7, 5), stride=(2, 1), groups=2)
    back = striate.conv_transpose(y, weight, stride=(2, 1), groups=2)
    assert (made.T @ y.flatten()).equal(back.flatten())


# ----------------------------------------------------------------------------------------------------------- refusals

ONES = torch.ones(1, 1, 3)
REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (
        ONES,
        (5, 5),
        {},
        (
            "matrix of weight (1, 1, 3) over size (5, 5): a size of 2 axes needs weight (O, C/groups, *K) with 4 "
            "dimensions, or (*period, O, C/groups, *K) with 6; got 3."
        ),
    ),
    (
        torch.ones(3),
        5,
        {},
        (
            "matrix of weight (3,) over size (5,): a size of 1 axis needs weight (O, C/groups, *K) with 3 "
            "dimensions, or (*period, O, C/groups, *K) with 4; got 1."
        ),
    ),
    (
        ONES,
        2,
        {},
        (
            "matrix of weight (1, 1, 3) over size (2,): On spatial axis 0: the window spans 3 inputs (kernel=3, "
            "dilation=1), but input and padding have 2 + 0 + 0 = 2; give a larger input, more padding or a smaller "
            "kernel."
        ),
    ),
    (
        ONES,
        5,
        {"groups": 2},
        (
            "matrix of weight (1, 1, 3) over size (5,): groups=2 does not divide the 1 output channels; both channel "
            "counts must be multiples of the groups."
        ),
    ),
    (
        ONES,
        2**15,
        {},
        (
            "matrix of weight (1, 1, 3) over size (32768,): the dense matrix would be 32766 x 32768, 1,073,676,288 "
            "entries, and at most 268,435,456 are made; give sparse=True."
        ),
    ),
    (
        torch.empty(2**10, 2**10, 3, 3, device="meta"),
        9,
        {"sparse": True},
        (
            "matrix of weight (1024, 1024, 3, 3) over size (9, 9): the sparse matrix would hold 462,422,016 entries, "
            "and at most 268,435,456 are made; give a smaller size, whose pattern is the same."
        ),
    ),
]


@pytest.mark.parametrize(("weight", "size", "options", "message"), REFUSED)
def test_refusals_give_the_numbers(weight: Tensor, size: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        striate.matrix(weight, size, **options)
    assert str(caught.value) == message


def test_an_unknown_padding_mode_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"No padding mode is called 'circle'\. Did you mean 'circular'\?"):
        striate.matrix(ONES, 5, padding_mode="circle")


def test_a_large_layer_has_a_sparse_matrix() -> None:
    made = striate.matrix(ONES, 2**15, padding=1, sparse=True)
    assert made.is_coalesced()
    assert (tuple(made.shape), made._nnz()) == ((2**15, 2**15), 3 * 2**15 - 2)


# ---------------------------------------------------------------------------------------------------- the algorithms

BOTH = pytest.mark.parametrize("name", ["toeplitz", "toeplitz_sparse"])


@BOTH
@pytest.mark.parametrize("problem", POSED)
def test_two_directions_are_the_definition_bit_for_bit(name: str, problem: Problem) -> None:
    assert agrees(name, problem) == 2


@BOTH
@pytest.mark.parametrize(("geometry", "size"), PERIODIC)
def test_periodic_weights_too(name: str, geometry: Geometry, size: tuple[int, ...]) -> None:
    assert agrees(name, Problem("convolution", geometry, 2, 4, 6, size)) == 2


@BOTH
def test_transformations_and_compilation(name: str) -> None:
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}
    random_agrees(name, (3, 4, 6, 5), (4, 2, 3, 2), **options)


def test_compiled() -> None:
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}
    compiled_agrees("toeplitz", (3, 4, 6, 5), (4, 2, 3, 2), dynamic=True, **options)


def test_compiled_sparse() -> None:
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "groups": 2}
    compiled_agrees("toeplitz_sparse", (3, 4, 6, 5), (4, 2, 3, 2), **options)


@BOTH
@pytest.mark.parametrize("problem", POSED[::5])
def test_other_types_and_no_examples(name: str, problem: Problem) -> None:
    empty_batch_agrees(name, problem)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.complex64):
        assert agrees(name, problem, dtype) == 2
    assert agrees(name, problem, torch.int64) == (2 if name == "toeplitz" else 0)


GRADIENT = "the matrix is made of the weights, so that it gives no weight gradient."
LONG = Problem("convolution", Geometry((Axis(3),)), 1, 1, 1, (2**15,))
WIDE = Problem("convolution", Geometry((Axis(3),) * 2), 1, 2**10, 2**10, (9, 9))
TURNED = [
    ("toeplitz", replace(LONG, size=(9,), direction="weight_gradient"), GRADIENT),
    ("toeplitz_sparse", replace(LONG, direction="weight_gradient"), GRADIENT),
    (
        "toeplitz",
        LONG,
        "the dense matrix would be 32766 x 32768, 1,073,676,288 entries; at most 268,435,456 are made.",
    ),
    ("toeplitz_sparse", LONG, None),
    (
        "toeplitz_sparse",
        WIDE,
        "the sparse matrix would hold 462,422,016 entries; at most 268,435,456 are made.",
    ),
    (
        "toeplitz_sparse",
        replace(LONG, dtype=torch.int64),
        "the tensors are torch.int64; PyTorch's sparse products take floating-point or complex numbers.",
    ),
]


@pytest.mark.parametrize(("name", "asked", "sentence"), TURNED)
def test_algorithms_refuse_in_sentences(name: str, asked: Problem, sentence: str | None) -> None:
    assert find("convolution", name).refuses(asked) == sentence


def test_estimates_count_the_entries_and_never_undercut_im2col() -> None:
    asked = Problem("convolution", Geometry((Axis(3, before=1, after=1),)), 5, 2, 4, (7,))
    assert find("convolution", "toeplitz").estimate(asked) == (4 * 7) * (2 * 7) * (5 + 1)
    assert find("convolution", "toeplitz_sparse").estimate(asked) == 5 * 7 * 3 * 8 + 8 * (3 * 7 - 2)
    assert [find("convolution", name).exact for name in ("toeplitz", "toeplitz_sparse")] == [False, True]


def test_a_nan_stays_with_its_readers_only_where_zeros_are_not_multiplied() -> None:
    x, weight = torch.tensor([[[torch.nan, 1, 1, 1, 1]]]), torch.ones(1, 1, 2)
    dense, sparse = (striate.conv(x, weight, algorithm=name) for name in ("toeplitz", "toeplitz_sparse"))
    assert dense.isnan().all()
    assert sparse.isnan().tolist() == [[[True, False, False, False]]]
