"""Convolution calls: every refusal word for word, and every number against SciPy, torch, TensorFlow's rule and hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy
import pytest
import scipy.linalg
import scipy.signal
import torch
from torch import Tensor
from torch.nn import functional as F

import striate
from striate.errors import AlgorithmError, GeometryError, StriateError, UnknownNameError

ALGORITHMS = ["vendor", "reference"]
CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def whole(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Small whole numbers, so that sums of products are exact in every order and every type."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(actual: Tensor, expected: Tensor) -> None:
    """Equal shape, type and every bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def image(*rows: list[int]) -> Tensor:
    """One picture with one channel."""
    return torch.tensor(rows, dtype=torch.float32)[None, None]


# ---------------------------------------------------------------------------------------------------------- messages

WORDS = "the words are 'valid', 'same', 'same_lower', 'full', 'causal'"
SMALLER = "give a larger input, more padding or a smaller kernel."


def refused(x: tuple[int, ...], weight: tuple[int, ...], message: str, **options: Any) -> Any:
    words = [f"{name}={value}".replace(" ", "") for name, value in options.items()]
    return pytest.param(x, weight, options, message, id="-".join([str(x), str(weight), *words]).replace(" ", ""))


REFUSED = [
    refused((4, 3), (3, 4), "conv: weight must be (O, C/groups, *K) with at least one spatial axis, got shape (3, 4)."),
    refused((4,), (3,), "conv: weight must be (O, C/groups, *K) with at least one spatial axis, got shape (3,)."),
    refused(
        (9, 9),
        (8, 3, 3, 3),
        "conv: weight (8, 3, 3, 3) has 2 spatial axes, so x needs 4 dimensions, (N, C, *spatial), "
        "or 3 without a batch; got shape (9, 9).",
    ),
    refused(
        (1, 2, 3, 4, 5),
        (8, 3, 3),
        "conv: weight (8, 3, 3) has 1 spatial axis, so x needs 3 dimensions, (N, C, *spatial), "
        "or 2 without a batch; got shape (1, 2, 3, 4, 5).",
    ),
    refused(
        (2, 3, 9),
        (8, 4, 3),
        "conv of x (2, 3, 9) with weight (8, 4, 3): x has 3 channels, but the weight with groups=1 takes 4.",
    ),
    refused(
        (2, 4, 9),
        (8, 4, 3),
        "conv of x (2, 4, 9) with weight (8, 4, 3): x has 4 channels, but the weight with groups=2 takes 8.",
        groups=2,
    ),
    refused(
        (1, 9, 9, 4),
        (8, 4, 3, 3),
        "conv of x (1, 9, 9, 4) with weight (8, 4, 3, 3): x has 9 channels, but the weight with groups=1 takes 4. "
        "x looks channels-last: give x.movedim(-1, 1).",
    ),
    refused(
        (9, 9, 4),
        (8, 4, 3, 3),
        "conv of x (9, 9, 4) with weight (8, 4, 3, 3): x has 9 channels, but the weight with groups=1 takes 4. "
        "x looks channels-last: give x.movedim(-1, 0).",
    ),
    # the last axis is also narrower than the kernel: the layout is the cause, and the message says so first
    refused(
        (1, 32, 32, 3),
        (8, 3, 5, 5),
        "conv of x (1, 32, 32, 3) with weight (8, 3, 5, 5): x has 32 channels, but the weight with groups=1 takes 3. "
        "x looks channels-last: give x.movedim(-1, 1).",
    ),
    refused(
        (1, 4, 8),
        (3, 2, 3),
        "conv of x (1, 4, 8) with weight (3, 2, 3): groups=2 does not divide the 3 output channels; "
        "both channel counts must be multiples of the groups.",
        groups=2,
    ),
    refused(
        (1, 4, 8),
        (3, 4, 3),
        "conv of x (1, 4, 8) with weight (3, 4, 3): groups must be an integer of at least 1, got groups=0.",
        groups=0,
    ),
    refused(
        (1, 4, 2),
        (3, 4, 3),
        "conv of x (1, 4, 2) with weight (3, 4, 3): On spatial axis 0: the window spans 3 inputs (kernel=3, "
        f"dilation=1), but input and padding have 2 + 0 + 0 = 2; {SMALLER}",
    ),
    refused(
        (4, 9, 3),
        (3, 4, 3, 3),
        "conv of x (4, 9, 3) with weight (3, 4, 3, 3): On spatial axis 1: the window spans 5 inputs (kernel=3, "
        f"dilation=2), but input and padding have 3 + 0 + 1 = 4; {SMALLER}",
        dilation=2,
        padding=((0, 0), (0, 1)),
    ),
    # what the mode adds counts as input
    refused(
        (1, 4, 2),
        (3, 4, 9),
        "conv of x (1, 4, 2) with weight (3, 4, 9): On spatial axis 0: the window spans 9 inputs (kernel=9, "
        f"dilation=1), but input and padding have 2 + 1 + 1 = 4; {SMALLER}",
        padding=1,
        padding_mode="circular",
    ),
    refused(
        (1, 4, 3, 0),
        (3, 4, 1, 1),
        "conv of x (1, 4, 3, 0) with weight (3, 4, 1, 1): x has no inputs on spatial axis 1; at least 1 is needed.",
        padding=1,
    ),
    refused(
        (1, 4, 0),
        (3, 4, 1),
        "conv of x (1, 4, 0) with weight (3, 4, 1): x has no inputs on spatial axis 0; at least 1 is needed.",
        padding=1,
        padding_mode="circular",
    ),
    refused(
        (1, 4, 8), (3, 4, 0), "conv of x (1, 4, 8) with weight (3, 4, 0): kernel must be at least 1, got kernel=0."
    ),
    refused(
        (1, 4, 8),
        (3, 4, 3),
        "conv of x (1, 4, 8) with weight (3, 4, 3): stride must be at least 1, got stride=0.",
        stride=0,
    ),
    refused((1, 4, 8), (3, 4, 3), "stride must be a whole number or consist of them, got stride=2.0.", stride=2.0),
    refused(
        (1, 4, 8), (3, 4, 3), "dilation must be a whole number or consist of them, got dilation=True.", dilation=True
    ),
    refused(
        (1, 4, 8, 8),
        (3, 4, 3, 3),
        "conv of x (1, 4, 8, 8) with weight (3, 4, 3, 3): stride=(2, 2, 2) has 3 entries; "
        "this window has 2 spatial axes.",
        stride=(2, 2, 2),
    ),
    refused(
        (1, 4, 8, 8),
        (3, 4, 3, 3),
        "conv of x (1, 4, 8, 8) with weight (3, 4, 3, 3): padding=(1,) has 1 entry; this window has 2 spatial axes.",
        padding=[1],
    ),
    refused(
        (1, 4, 8),
        (3, 4, 3),
        "conv of x (1, 4, 8) with weight (3, 4, 3): padding must be at least 0, got padding=-1; "
        "slice the input to crop it.",
        padding=-1,
    ),
    refused(
        (1, 4, 8),
        (3, 4, 3),
        "conv of x (1, 4, 8) with weight (3, 4, 3): padding=None is neither a number nor a (before, after) pair "
        f"of numbers; {WORDS}.",
        padding=None,
    ),
    refused(
        (1, 4, 8),
        (3, 4, 3),
        "conv of x (1, 4, 8) with weight (3, 4, 3): padding=(1, 2, 3) is neither a number nor a (before, after) pair "
        f"of numbers; {WORDS}.",
        padding=((1, 2, 3),),
    ),
]


@pytest.mark.parametrize(("x", "weight", "options", "message"), REFUSED)
def test_conv_refuses(x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        striate.conv(torch.ones(x), torch.ones(weight), **options)
    assert str(caught.value) == message


REFUSED_TRANSPOSED = [
    refused(
        (4, 3),
        (3, 4),
        "conv_transpose: weight must be (C, O/groups, *K) with at least one spatial axis, got shape (3, 4).",
    ),
    refused(
        (4,),
        (3, 4, 2),
        "conv_transpose: weight (3, 4, 2) has 1 spatial axis, so x needs 3 dimensions, (N, C, *spatial), "
        "or 2 without a batch; got shape (4,).",
    ),
    refused(
        (1, 5, 5, 8),
        (8, 3, 3, 3),
        "conv_transpose of x (1, 5, 5, 8) with weight (8, 3, 3, 3): x has 5 channels, but the weight with groups=1 "
        "takes 8. x looks channels-last: give x.movedim(-1, 1).",
    ),
    refused(
        (1, 3, 8),
        (3, 2, 3),
        "conv_transpose of x (1, 3, 8) with weight (3, 2, 3): groups=2 does not divide the 3 input channels; "
        "both channel counts must be multiples of the groups.",
        groups=2,
    ),
    refused(
        (1, 1, 1),
        (1, 1, 2),
        "conv_transpose of x (1, 1, 1) with weight (1, 1, 2): On spatial axis 0: the transposed window writes "
        "0 positions from 1 inputs (kernel=2, stride=1, dilation=1, padding=1+1); at least 1 is needed: "
        "give less padding or a larger input.",
        padding=1,
    ),
    refused(
        (1, 1, 4, 0),
        (1, 1, 2, 2),
        "conv_transpose of x (1, 1, 4, 0) with weight (1, 1, 2, 2): x has no inputs on spatial axis 1; "
        "at least 1 is needed.",
    ),
    refused(
        (1, 1, 4),
        (1, 1, 2),
        "conv_transpose of x (1, 1, 4) with weight (1, 1, 2): output_padding must be at least 0 and less than "
        "the larger of stride and dilation (2), got output_padding=2.",
        stride=2,
        output_padding=2,
    ),
    refused(
        (1, 1, 4),
        (1, 1, 2),
        "conv_transpose of x (1, 1, 4) with weight (1, 1, 2): output_padding=(0, 0) has 2 entries; "
        "this window has 1 spatial axis.",
        output_padding=(0, 0),
    ),
]


@pytest.mark.parametrize(("x", "weight", "options", "message"), REFUSED_TRANSPOSED)
def test_conv_transpose_refuses(
    x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(GeometryError) as caught:
        striate.conv_transpose(torch.ones(x), torch.ones(weight), **options)
    assert str(caught.value) == message


UNKNOWN = [
    (
        {"padding": "smae"},
        "No padding is called 'smae'. Did you mean 'same'? Known: causal, full, same, same_lower, valid.",
    ),
    (
        {"padding": "SAME_UPPER"},
        "No padding is called 'SAME_UPPER'. Known: causal, full, same, same_lower, valid.",
    ),
    (
        {"padding_mode": "constant"},
        "No padding mode is called 'constant'. Known: circular, reflect, replicate, zeros.",
    ),
    (
        {"padding_mode": "relfect", "padding": 1},
        "No padding mode is called 'relfect'. Did you mean 'reflect'? Known: circular, reflect, replicate, zeros.",
    ),
    (
        {"algorithm": "vendr"},
        f"No algorithm is called 'vendr'. Did you mean 'vendor'? Known: {', '.join(striate.algorithms())}.",
    ),
]


@pytest.mark.parametrize(("options", "message"), UNKNOWN)
def test_unknown_names_are_refused_with_what_is_known(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        striate.conv(torch.ones(1, 1, 8), torch.ones(1, 1, 3), **options)
    assert str(caught.value) == message
    if "padding_mode" not in options:
        with pytest.raises(UnknownNameError) as caught:
            striate.conv_transpose(torch.ones(1, 1, 8), torch.ones(1, 1, 3), **options)
        assert str(caught.value) == message


def test_an_algorithm_that_cannot_serve_says_why() -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.conv(torch.ones(1, 1, 2, 2, 2, 2), torch.ones(1, 1, 1, 1, 1, 1), algorithm="vendor")
    assert str(caught.value) == (
        "algorithm='vendor' cannot serve this convolution: "
        "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."
    )


MISMATCHES = [
    (
        torch.ones(1, 1, 4),
        torch.ones(1, 1, 2, dtype=torch.float64),
        None,
        "conv: x is torch.float32 but weight is torch.float64; convert one, as in x.to(weight.dtype).",
    ),
    (  # torch returns uninitialised memory here
        torch.ones(1, 1, 4),
        torch.ones(1, 1, 2, device="meta"),
        None,
        "conv: x is on cpu but weight is on meta; move one, as in x.to(weight.device).",
    ),
    (
        torch.ones(1, 1, 4),
        torch.ones(1, 1, 2),
        torch.ones(1, dtype=torch.float64),
        "bias is torch.float64 on cpu, but x and weight are torch.float32 on cpu; convert it, as in bias.to(weight).",
    ),
    (  # torch returns uninitialised memory here
        torch.ones(1, 1, 4),
        torch.ones(1, 1, 2),
        torch.ones(1, device="meta"),
        "bias is torch.float32 on meta, but x and weight are torch.float32 on cpu; convert it, as in bias.to(weight).",
    ),
    (
        torch.ones(1, 1, 4),
        torch.ones(3, 1, 2),
        torch.ones(4),
        "bias has shape (4,); expected (3,), one per output channel, or (3, 3), one per output position.",
    ),
    (
        torch.ones(1, 1, 4),
        torch.ones(1, 1, 2),
        torch.ones(()),
        "bias has shape (); expected (1,), one per output channel, or (1, 3), one per output position.",
    ),
    (
        torch.ones(1, 4, 4),
        torch.ones(3, 1, 2, 2),
        torch.ones(3, 1, 1),
        "bias has shape (3, 1, 1); expected (3,), one per output channel, or (3, 3, 3), one per output position.",
    ),
    (
        torch.ones(2, 1, 4),
        torch.ones(3, 1, 2),
        torch.ones(2, 3, 3),
        "bias has shape (2, 3, 3); expected (3,), one per output channel, or (3, 3), one per output position.",
    ),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("x", "weight", "bias", "message"), MISMATCHES)
def test_tensors_that_do_not_belong_together_are_refused(
    x: Tensor, weight: Tensor, bias: Tensor | None, message: str, algorithm: str
) -> None:
    with pytest.raises(GeometryError) as caught:
        striate.conv(x, weight, bias, algorithm=algorithm)
    assert str(caught.value) == message


def test_every_refusal_is_of_the_one_family() -> None:
    assert {AlgorithmError, GeometryError, UnknownNameError} <= set(StriateError.__subclasses__())


def test_a_refusal_does_not_depend_on_what_was_computed_before() -> None:
    """2 == 2.0 == True in Python, so a cache keyed on equality would let the second call pass."""
    x, weight = torch.ones(1, 1, 9), torch.ones(1, 1, 3)
    pairs: list[tuple[Any, Any]] = [(2, 2.0), (1, True), ((2,), (2.0,))]
    for good, bad in pairs:
        striate.conv(x, weight, stride=good)
        with pytest.raises(GeometryError, match="stride must be a whole number or consist of them"):
            striate.conv(x, weight, stride=bad)


def test_foreign_integers_and_lists_are_numbers_too() -> None:
    x, weight = whole(1, 4, 9, 8), whole(6, 2, 3, 3, seed=1)
    options: dict[str, Any] = {"stride": [2, numpy.int64(1)], "padding": [[1, numpy.int32(0)], [0, 2]]}
    got = striate.conv(x, weight, **options, groups=numpy.int64(2))  # type: ignore[arg-type]
    same(got, F.conv2d(F.pad(x, (0, 2, 1, 0)), weight, stride=(2, 1), groups=2))


# ---------------------------------------------------------------------------------------------- the notes' own numbers

PICTURE, KERNEL = image([0, 1, 2], [3, 4, 5], [6, 7, 8]), image([0, 1], [2, 3])
SOBEL_X = image([-1, 0, 1], [-2, 0, 2], [-1, 0, 1])
SOBEL_Y = image([1, 2, 1], [0, 0, 0], [-1, -2, -1])
STEP = image(*[[0, 0, 0, 5, 5, 5]] * 4)
EDGE = image(*[[1, 1, 0, 0, 0]] * 4)
CHECKS = image([1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0])

# what, x, weight, options, result
NOTES: list[tuple[str, Tensor, Tensor, dict[str, Any], Tensor]] = [
    ("first example", PICTURE, KERNEL, {}, image([19, 25], [37, 43])),
    ("the same, the kernel turned", PICTURE, KERNEL, {"flip": True}, image([5, 11], [23, 29])),
    ("padding", PICTURE, KERNEL, {"padding": 1}, image([0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0])),
    ("stride 3 down, 2 across", PICTURE, KERNEL, {"padding": 1, "stride": (3, 2)}, image([0, 8], [6, 8])),
    ("two channels", torch.cat([PICTURE, PICTURE + 1], 1), torch.cat([KERNEL, KERNEL + 1], 1), {},
     image([56, 72], [104, 120])),
    ("vertical edge", EDGE, image([1, -1]), {}, image(*[[0, 1, 0, 0]] * 4)),
    ("no horizontal edge", EDGE, image([1], [-1]), {}, image(*[[0, 0, 0, 0, 0]] * 3)),
    ("the picture turned on its side", EDGE.mT, image([1, -1]), {}, image(*[[0, 0, 0]] * 5)),
    ("Sobel x on a step", STEP, SOBEL_X, {}, image([0, 20, 20, 0], [0, 20, 20, 0])),
    ("Sobel y on a step", STEP, SOBEL_Y, {}, image([0, 0, 0, 0], [0, 0, 0, 0])),
    ("Sobel y on a falling step", STEP.mT, SOBEL_Y, {}, image([0, 0], [-20, -20], [-20, -20], [0, 0])),
    ("Sobel x as a true convolution", STEP, SOBEL_X, {"flip": True}, image([0, -20, -20, 0], [0, -20, -20, 0])),
    ("the animated 5x5", CHECKS, image([1, 0, 1], [0, 1, 0], [1, 0, 1]), {}, image([4, 3, 4], [2, 4, 3], [2, 3, 4])),
]  # fmt: skip


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("x", "weight", "options", "result"), [row[1:] for row in NOTES], ids=[row[0] for row in NOTES]
)
def test_examples_of_the_notes(
    x: Tensor, weight: Tensor, options: dict[str, Any], result: Tensor, algorithm: str
) -> None:
    same(striate.conv(x, weight, algorithm=algorithm, **options), result)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cs231n_one_neuron_slides_over_five_inputs(algorithm: str) -> None:
    """Weights 1, 0, -1 and bias 0 as in the text; the inputs 1, 2, -1, 1, -3 are those of its figure."""
    x, weight = torch.tensor([[[1.0, 2, -1, 1, -3]]]), torch.tensor([[[1.0, 0, -1]]])
    step_one = [0 - 2, 1 - -1, 2 - 1, -1 - -3, 1 - 0]
    got = striate.conv(x, weight, torch.zeros(1), padding=1, algorithm=algorithm)
    assert got.tolist() == [[step_one]] == [[[-2, 2, 1, 2, 1]]]
    assert striate.conv(x, weight, padding=1, stride=2, algorithm=algorithm).tolist() == [[[-2, 1, 1]]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cs231n_numpy_example(algorithm: str) -> None:
    """``V[x, y, d] = np.sum(X[2x:2x+5, 2y:2y+5, :] * Wd) + bd`` on 11x11x4 with two filters."""
    volume, filters, biases = whole(11, 11, 4), whole(2, 5, 5, 4, seed=1), whole(2, seed=2)
    expected = numpy.zeros((4, 4, 2), dtype=numpy.float32)
    for x, y, d in numpy.ndindex(4, 4, 2):
        window = volume.numpy()[2 * x : 2 * x + 5, 2 * y : 2 * y + 5, :]
        expected[x, y, d] = numpy.sum(window * filters[d].numpy()) + biases[d].item()
    got = striate.conv(volume.movedim(-1, 0), filters.movedim(-1, 1), biases, stride=2, algorithm=algorithm)
    same(got.movedim(0, -1).contiguous(), torch.from_numpy(expected))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_1x1_is_a_matrix_product_of_each_pixel(algorithm: str) -> None:
    x, weight = whole(2, 5, 4, 3), whole(7, 5, 1, 1, seed=1)
    product_ = weight[:, :, 0, 0] @ x.flatten(2)
    same(striate.conv(x, weight, algorithm=algorithm), product_.view(2, 7, 4, 3))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_kernel_as_large_as_the_input_is_a_fully_connected_layer(algorithm: str) -> None:
    x, weight, bias = whole(3, 5, 7, 7), whole(10, 5, 7, 7, seed=1), whole(10, seed=2)
    same(
        striate.conv(x, weight, bias, algorithm=algorithm),
        F.linear(x.flatten(1), weight.flatten(1), bias)[..., None, None],
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_volume_is_the_sum_of_its_channels(algorithm: str) -> None:
    """27 products per value: three 2-D convolutions laid on top of each other."""
    x, weight = whole(1, 3, 6, 6), whole(1, 3, 3, 3, seed=1)
    layers = [striate.conv(x[:, [c]], weight[:, [c]], algorithm=algorithm) for c in range(3)]
    same(striate.conv(x, weight, algorithm=algorithm), layers[0] + layers[1] + layers[2])


@pytest.mark.parametrize("n", [1, 4, 7])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_full_convolution_is_a_product_with_a_circulant_matrix(n: int, k: int) -> None:
    """``s = W x_p`` with both sequences filled with zeros up to ``n + k - 1``; ``W[i, j] = w_p[i - j]``."""
    x, w = whole(n), whole(k, seed=1)
    length = n + k - 1
    filled_x, filled_w = numpy.zeros(length), numpy.zeros(length)
    filled_x[:n], filled_w[:k] = x.numpy(), w.numpy()
    expected = scipy.linalg.circulant(filled_w) @ filled_x
    got = striate.conv(x.view(1, 1, n), w.view(1, 1, k), padding="full", flip=True)
    assert got.flatten().tolist() == expected.tolist()


def test_a_full_2d_convolution_is_a_product_with_a_doubly_block_circulant_matrix() -> None:
    x, w = whole(3, 4), whole(2, 3, seed=1)
    m, n = 3 + 2 - 1, 4 + 3 - 1
    filled_x, filled_w = numpy.zeros((m, n)), numpy.zeros((m, n))
    filled_x[:3, :4], filled_w[:2, :3] = x.numpy(), w.numpy()
    blocks = [scipy.linalg.circulant(row) for row in filled_w]
    matrix = numpy.block([[blocks[(i - j) % m] for j in range(m)] for i in range(m)])
    expected = (matrix @ filled_x.flatten()).reshape(m, n)
    got = striate.conv(x[None, None], w[None, None], padding="full", flip=True)
    assert got[0, 0].tolist() == expected.tolist()


# --------------------------------------------------------------------------------------------------------------- SciPy


@pytest.mark.parametrize(("size", "kernel"), [((9,), (3,)), ((8,), (4,)), ((6, 7), (3, 2)), ((4, 5, 4), (2, 3, 3))])
@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_scipy(size: tuple[int, ...], kernel: tuple[int, ...], mode: str) -> None:
    """SciPy's "same" puts the odd row of an even kernel before the input, as "same_lower" does."""
    x, w = whole(*size), whole(*kernel, seed=1)
    padding = "same_lower" if mode == "same" else mode
    for flip, function in ((True, scipy.signal.convolve), (False, scipy.signal.correlate)):
        expected = torch.from_numpy(function(x.numpy(), w.numpy(), mode=mode, method="direct"))
        for algorithm in ALGORITHMS:
            got = striate.conv(x[None, None], w[None, None], padding=padding, flip=flip, algorithm=algorithm)
            same(got[0, 0], expected)


@pytest.mark.parametrize(("size", "kernel"), [((7,), (3,)), ((2,), (5,)), ((4, 5), (3, 2))])
def test_full_convolution_commutes_and_correlation_does_not(size: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    x, w = whole(*size)[None, None], whole(*kernel, seed=1)[None, None]
    same(striate.conv(x, w, padding="full", flip=True), striate.conv(w, x, padding="full", flip=True))
    turned = striate.conv(w, x, padding="full").flip(tuple(range(2, x.dim())))
    same(striate.conv(x, w, padding="full"), turned)
    assert not striate.conv(x, w, padding="full").equal(striate.conv(w, x, padding="full"))


def test_full_convolution_associates() -> None:
    x, v, w = whole(1, 1, 6, 5), whole(1, 1, 3, 2, seed=1), whole(1, 1, 2, 4, seed=2)
    once = striate.conv(x, striate.conv(v, w, padding="full", flip=True), padding="full", flip=True)
    twice = striate.conv(striate.conv(x, v, padding="full", flip=True), w, padding="full", flip=True)
    same(once, twice)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2}], ids=str)
def test_true_convolution_is_correlation_with_the_kernel_turned_by_180_degrees(options: dict[str, Any]) -> None:
    x, weight = whole(2, 4, 7, 8), whole(6, 4 // options.get("groups", 1), 3, 2, seed=1)
    kept = weight.clone()
    same(striate.conv(x, weight, flip=True, **options), F.conv2d(x, weight.rot90(2, (2, 3)), **options))
    same(weight, kept)


# --------------------------------------------------------------------------------------------------------------- torch

OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 1},
    {"padding": 2, "dilation": 2},
    {"padding": 4},
    {"stride": 2, "padding": 1, "groups": 2},
    {"padding": 1, "groups": 4},
    {"padding": "valid", "stride": 2},
    {"padding": "same"},
    {"padding": "same", "dilation": 2, "groups": 2},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_torch_forward_and_gradients_bit_for_bit(axes: int, options: dict[str, Any]) -> None:
    groups = options.get("groups", 1)
    inputs = [whole(2, 4, *(8, 7, 6)[:axes]), whole(8, 4 // groups, *(3, 2, 3)[:axes], seed=1), whole(8, seed=2)]
    expected = with_gradients(CONV[axes], inputs, options)
    for algorithm in (None, "reference"):
        for got, wanted in zip(
            with_gradients(striate.conv, inputs, {**options, "algorithm": algorithm}), expected, strict=True
        ):
            same(got, wanted)


def with_gradients(function: Any, inputs: list[Tensor], options: dict[str, Any]) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    y = function(*leaves, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, whole(*y.shape, seed=9))]


OPTIONS_TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 1, "output_padding": 2},
    {"dilation": 3, "output_padding": 2},
    {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    {"padding": 1, "groups": 4, "dilation": 2},
]


@pytest.mark.parametrize("options", OPTIONS_TRANSPOSED, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_torch_transposed_bit_for_bit(axes: int, options: dict[str, Any]) -> None:
    groups = options.get("groups", 1)
    inputs = [whole(2, 4, *(4, 3, 2)[:axes]), whole(4, 8 // groups, *(3, 2, 3)[:axes], seed=1), whole(8, seed=2)]
    expected = with_gradients(CONV_TRANSPOSE[axes], inputs, options)
    for algorithm in (None, "reference"):
        got = with_gradients(striate.conv_transpose, inputs, {**options, "algorithm": algorithm})
        for actual, wanted in zip(got, expected, strict=True):
            same(actual, wanted)


# word, kernel, stride, size of x, size of out: all by hand, out = (size - 1) * stride + kernel - rows
TRANSPOSED_WORDS = """
    valid         3  2  4   9
    full          3  2  4   5
    causal        3  2  4   7
    same          3  2  4   8
    same_lower    3  2  4   8
    same          3  1  5   5
    same          4  2  3   6
    same          2  3  4  12
"""


@pytest.mark.parametrize("row", TRANSPOSED_WORDS.strip().splitlines(), ids=" ".join)
def test_transposed_words_crop_torch_s_whole_output(row: str) -> None:
    """Every word keeps a window of the unpadded output; where the kernel is short, rows of nothing follow."""
    word, *numbers = row.split()
    kernel, stride, size, out = map(int, numbers)
    x, weight = whole(2, 3, size), whole(3, 4, kernel, seed=1)
    total = {"full": 2 * (kernel - 1), "causal": kernel - 1, "valid": 0}.get(word, max(kernel - stride, 0))
    before = {"full": kernel - 1, "causal": kernel - 1, "valid": 0, "same_lower": total - total // 2}.get(
        word, total // 2
    )
    uncropped = F.pad(F.conv_transpose1d(x, weight, stride=stride), (0, max(stride - kernel, 0)))
    for algorithm in ALGORITHMS:
        got = striate.conv_transpose(x, weight, stride=stride, padding=word, algorithm=algorithm)
        assert got.shape[-1] == out
        same(got, uncropped[..., before : before + out].contiguous())


# ------------------------------------------------------------------------------------------------- "same" with a stride


def by_same_rule(x: list[float], w: list[float], stride: int, dilation: int, *, upper: bool) -> list[float]:
    """TensorFlow's ``SAME`` (ONNX's ``SAME_UPPER``) from its documentation, and ``SAME_LOWER``, in plain Python."""
    span = (len(w) - 1) * dilation + 1
    outputs = -(-len(x) // stride)
    total = max((outputs - 1) * stride + span - len(x), 0)
    before = total // 2 if upper else total - total // 2
    padded = [0.0] * before + x + [0.0] * (total - before)
    return [sum(w[t] * padded[o * stride + t * dilation] for t in range(len(w))) for o in range(outputs)]


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("word", ["same", "same_lower"])
def test_same_with_a_stride_is_tensorflow_s(word: str, kernel: int, stride: int) -> None:
    for size, dilation in product((4, 5, 7, 12), (1, 2)):
        x, w = whole(size), whole(kernel, seed=1)
        got = striate.conv(x.view(1, 1, -1), w.view(1, 1, -1), padding=word, stride=stride, dilation=dilation)
        expected = by_same_rule(x.tolist(), w.tolist(), stride, dilation, upper=word == "same")
        assert got.flatten().tolist() == expected


def test_the_example_in_tensorflow_s_documentation() -> None:
    """13 inputs, kernel 6, stride 5: "VALID" drops 12 and 13, "SAME" pads one zero before and two after."""
    x, ones = torch.arange(1.0, 14).view(1, 1, 13), torch.ones(1, 1, 6)
    assert striate.conv(x, ones, stride=5, padding="valid").tolist() == [[[sum(range(1, 7)), sum(range(6, 12))]]]
    upper = [sum(range(1, 6)), sum(range(5, 11)), 10 + 11 + 12 + 13]
    assert striate.conv(x, ones, stride=5, padding="same").tolist() == [[upper]] == [[[15, 45, 46]]]
    lower = [1 + 2 + 3 + 4, sum(range(4, 10)), sum(range(9, 14))]
    assert striate.conv(x, ones, stride=5, padding="same_lower").tolist() == [[lower]]


def test_same_with_a_stride_on_two_axes_pads_each_by_its_own_rule() -> None:
    x, weight = whole(1, 2, 9, 8), whole(3, 2, 3, 4, seed=1)
    # height: outputs 5, total 4 * 2 + 3 - 9 = 2; width: outputs 3, total 2 * 3 + 4 - 8 = 2
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, stride=(2, 3))
    same(striate.conv(x, weight, padding="same", stride=(2, 3)), expected)
    # height: outputs 3, total 2 * 4 + 3 - 9 = 2; width: outputs 2, total 1 * 4 + 4 - 8 = 0
    same(striate.conv(x, weight, padding="same", stride=4), F.conv2d(F.pad(x, (0, 0, 1, 1)), weight, stride=4))


# -------------------------------------------------------------------------------------------------------------- causal


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (2, 1, 3), (4, 2, 1), (3, 3, 2)])
def test_causal_never_reads_the_future_and_always_the_present(
    kernel: int, stride: int, dilation: int, algorithm: str
) -> None:
    x, weight = torch.ones(1, 1, 12, requires_grad=True), torch.ones(1, 1, kernel)
    y = striate.conv(x, weight, padding="causal", stride=stride, dilation=dilation, algorithm=algorithm)
    assert y.shape[-1] == -(-12 // stride)
    for position in range(y.shape[-1]):
        (gradient,) = torch.autograd.grad(y[0, 0, position], x, retain_graph=True)
        now = position * stride
        past = [now - tap * dilation for tap in range(kernel)]
        assert gradient.nonzero()[:, 2].tolist() == sorted(i for i in past if i >= 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nan_in_the_future_leaves_the_causal_past_as_it_was(algorithm: str) -> None:
    x, weight = whole(2, 3, 10), whole(4, 3, 3, seed=1)
    poisoned = x.clone()
    poisoned[..., 6:] = torch.nan
    clean = striate.conv(x, weight, padding="causal", dilation=2, algorithm=algorithm)
    got = striate.conv(poisoned, weight, padding="causal", dilation=2, algorithm=algorithm)
    same(got[..., :6], clean[..., :6])
    assert got[..., 6:].isnan().all()


# ------------------------------------------------------------------------------------------------------- padding modes


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_modes_are_those_of_torch(axes: int, mode: str, algorithm: str) -> None:
    x, weight = whole(2, 3, *(6, 5, 4)[:axes]), whole(4, 3, *(3, 2, 3)[:axes], seed=1)
    rows = ((2, 1), (0, 3), (1, 2))[:axes]
    flat = [n for pair in reversed(rows) for n in pair]
    expected = CONV[axes](F.pad(x, flat, mode=mode), weight, stride=2)
    same(striate.conv(x, weight, padding=rows, padding_mode=mode, stride=2, algorithm=algorithm), expected)


@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_padding_wider_than_the_input_goes_on_by_the_same_rule(mode: str, numpy_mode: Any) -> None:
    """torch refuses this; NumPy does it."""
    x, weight = whole(1, 1, 3), whole(1, 1, 2, seed=1)
    padded = numpy.pad(x.numpy(), ((0, 0), (0, 0), (7, 5)), mode=numpy_mode)
    got = striate.conv(x, weight, padding=((7, 5),), padding_mode=mode)
    same(got, F.conv1d(torch.from_numpy(padded), weight))


def test_words_and_modes_go_together() -> None:
    x, weight = whole(1, 2, 5, 6), whole(3, 2, 3, 3, seed=1)
    for mode in ("reflect", "replicate", "circular"):
        expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), weight)
        same(striate.conv(x, weight, padding="same", padding_mode=mode), expected)
        same(striate.conv(x, weight, padding="valid", padding_mode=mode), F.conv2d(x, weight))


# ------------------------------------------------------------------------------------------------ batches, layout, bias


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_without_a_batch(axes: int, algorithm: str) -> None:
    size = (7, 6, 5)[:axes]
    x, bias = whole(4, *size), whole(6, seed=2)
    straight, transposed = whole(6, 2, *[3] * axes, seed=1), whole(4, 3, *[3] * axes, seed=1)
    options: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2}
    got = striate.conv(x, straight, bias, algorithm=algorithm, **options)
    same(got, CONV[axes](x[None], straight, bias, **options)[0])
    got = striate.conv_transpose(x, transposed, bias, algorithm=algorithm, **options)
    same(got, CONV_TRANSPOSE[axes](x[None], transposed, bias, **options)[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("batched", [True, False])
def test_a_bias_for_each_position(batched: bool, algorithm: str) -> None:
    x, weight = whole(*([3] if batched else []), 2, 6, 5), whole(4, 2, 3, 3, seed=1)
    bias = whole(4, 3, 3, seed=2).requires_grad_()
    options: dict[str, Any] = {"stride": 2, "padding": ((1, 0), (1, 1))}
    y = striate.conv(x, weight, bias, algorithm=algorithm, **options)
    padded = F.pad(x if batched else x[None], (1, 1, 1, 0))
    expected = F.conv2d(padded, weight, stride=2) + bias.detach()
    same(y.detach(), expected if batched else expected[0])
    weights = whole(*y.shape, seed=3)
    (gradient,) = torch.autograd.grad(y, bias, weights)
    same(gradient, weights.sum(0) if batched else weights)


def test_a_bias_for_each_position_of_a_transposed_convolution() -> None:
    x, weight, bias = whole(2, 3, 4), whole(3, 2, 3, seed=1), whole(2, 9, seed=2)
    for algorithm in ALGORITHMS:
        got = striate.conv_transpose(x, weight, bias, stride=2, algorithm=algorithm)
        same(got, F.conv_transpose1d(x, weight, stride=2) + bias)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_empty_batch_is_a_batch(algorithm: str) -> None:
    x, weight, bias = torch.ones(0, 4, 9, 8), torch.ones(6, 2, 3, 3), torch.ones(6)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = striate.conv(*leaves, stride=2, padding=1, groups=2, algorithm=algorithm)
    assert y.shape == (0, 6, 5, 4)
    gradients = torch.autograd.grad(y, leaves, torch.ones_like(y))
    assert [tuple(g.shape) for g in gradients] == [(0, 4, 9, 8), (6, 2, 3, 3), (6,)]
    assert not any(g.any() for g in gradients)
    up = striate.conv_transpose(x, torch.ones(4, 2, 3, 3), stride=2, algorithm=algorithm)
    assert up.shape == (0, 2, 19, 17)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_layout_in_memory_does_not_matter(algorithm: str) -> None:
    wide, weights = whole(2, 3, 12, 14), whole(4, 3, 6, 5, seed=1)
    views = [
        (wide.mT, weights.mT),
        (wide[:, :, ::2, 1::3], weights[:, :, ::2, ::2]),
        (wide[:, :1].expand(2, 3, 12, 14), weights[:1].expand(4, 3, 6, 5)),
        (wide.unfold(2, 6, 1)[..., 0, :, :].transpose(2, 3), weights),
        (wide.to(memory_format=torch.channels_last), weights.to(memory_format=torch.channels_last)),
    ]
    for x, weight in views:
        convolution = CONV[x.dim() - 2]
        assert not x.is_contiguous()
        got = striate.conv(x, weight, padding=1, algorithm=algorithm)
        torch.testing.assert_close(
            got, convolution(x.contiguous(), weight.contiguous(), padding=1), rtol=0, atol=0, check_stride=False
        )


CHANNELS_LAST: list[dict[str, Any]] = [
    {"padding": 1},
    {"padding": ((0, 1), (2, 0)), "stride": 2},
    {"padding": "same", "stride": 2},
    {"padding": "causal"},
    {"padding": "full", "dilation": 2},
]


@pytest.mark.parametrize("options", CHANNELS_LAST, ids=str)
def test_channels_last_stays_channels_last_on_the_vendor_s_path(options: dict[str, Any]) -> None:
    x, weight = whole(2, 8, 9, 8), whole(16, 8, 3, 3, seed=1)
    assert striate.plan(x.shape, weight.shape, **options).algorithm == "vendor"
    expected = striate.conv(x, weight, algorithm="reference", **options)
    for bias in (None, torch.zeros(16), torch.zeros_like(expected[0])):
        y = striate.conv(x.to(memory_format=torch.channels_last), weight, bias, **options)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert y.equal(expected)
    volume = whole(2, 8, 4, 5, 4).to(memory_format=torch.channels_last_3d)
    y = striate.conv(volume, whole(16, 8, 3, 3, 3), padding=((1, 0), 1, 1))
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "x weight", ""])
def test_only_what_asks_for_a_gradient_gets_one(wanted: str, algorithm: str) -> None:
    tensors = {"x": whole(2, 4, 7, 6), "weight": whole(6, 2, 3, 3, seed=1), "bias": whole(6, seed=2)}
    options: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2}

    def gradients(function: Any, **more: Any) -> dict[str, Tensor | None]:
        leaves = {name: t.clone().requires_grad_(name in wanted.split()) for name, t in tensors.items()}
        y = function(leaves["x"], leaves["weight"], leaves["bias"], **options, **more)
        assert y.requires_grad == bool(wanted)
        if wanted:
            y.backward(whole(*y.shape, seed=3))
        return {name: leaf.grad for name, leaf in leaves.items()}

    got, expected = gradients(striate.conv, algorithm=algorithm), gradients(F.conv2d)
    for name, gradient in expected.items():
        actual = got[name]
        if gradient is None:
            assert actual is None
        else:
            assert actual is not None
            same(actual, gradient)


def test_no_graph_is_kept_without_grad() -> None:
    x, weight = torch.ones(1, 1, 5, requires_grad=True), torch.ones(1, 1, 3, requires_grad=True)
    for algorithm in ALGORITHMS:
        with torch.no_grad():
            assert striate.conv(x, weight, algorithm=algorithm).grad_fn is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_of_complex_numbers(algorithm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 5, dtype=torch.complex128, generator=generator, requires_grad=True)
    weight = torch.randn(4, 1, 3, dtype=torch.complex128, generator=generator, requires_grad=True)
    bias = torch.randn(4, dtype=torch.complex128, generator=generator, requires_grad=True)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return striate.conv(x, weight, bias, stride=2, padding=((2, 1),), groups=2, algorithm=algorithm)

    def run_transposed(x: Tensor, weight: Tensor) -> Tensor:
        return striate.conv_transpose(x, weight, stride=2, padding=((2, 1),), algorithm=algorithm)

    assert torch.autograd.gradcheck(run, (x, weight, bias))
    assert torch.autograd.gradcheck(run_transposed, (x, weight.detach()[:2].requires_grad_()))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_gradients_through_padding_modes(mode: str, algorithm: str) -> None:
    x, weight = whole(1, 2, 5, 4).requires_grad_(), whole(3, 2, 3, 3, seed=1)
    rows = (2, 1, 1, 3)
    expected = F.conv2d(F.pad(x, rows, mode=mode), weight, stride=2)
    got = striate.conv(x, weight, padding=((1, 3), (2, 1)), padding_mode=mode, stride=2, algorithm=algorithm)
    upstream = whole(*expected.shape, seed=2)
    same(torch.autograd.grad(got, x, upstream)[0], torch.autograd.grad(expected, x, upstream)[0])


# ------------------------------------------------------------------------------------------- types, devices, transforms


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64], ids=str)
def test_types(dtype: torch.dtype, algorithm: str) -> None:
    x, weight, bias = whole(2, 4, 7, 6), whole(6, 2, 3, 3, seed=1), whole(6, seed=2)
    options: dict[str, Any] = {"stride": 2, "padding": "same", "groups": 2}
    expected = F.conv2d(F.pad(x, (0, 1, 1, 1)), weight, bias, stride=2, groups=2)  # totals: 3*2+3-7 = 2, 2*2+3-6 = 1
    assert expected.abs().max() < 256  # exact in every one of these types
    if algorithm == "vendor" and not dtype.is_floating_point:
        with pytest.raises(AlgorithmError) as caught:
            striate.conv(x.to(dtype), weight.to(dtype), bias.to(dtype), algorithm=algorithm, **options)
        assert str(caught.value) == (
            f"algorithm='vendor' cannot serve this convolution: the tensors are {dtype}; PyTorch convolves whole "
            "numbers on some devices only."
        )
        algorithm = "im2col"
    got = striate.conv(x.to(dtype), weight.to(dtype), bias.to(dtype), algorithm=algorithm, **options)
    same(got, expected.to(dtype))


def test_float16_sums_are_kept_in_float32_by_the_reference() -> None:
    """4096 ones: in float16 the sum would stop at 2048, where adding 1 changes nothing."""
    ones = torch.ones(1, 1, 4096, dtype=torch.float16)
    assert striate.conv(ones, ones, algorithm="reference").item() == 4096


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_complex_is_four_real_convolutions(algorithm: str) -> None:
    (a, b), (c, d) = whole(2, 1, 3, 7, 6), whole(2, 4, 3, 3, 2, seed=1)
    got = striate.conv(torch.complex(a, b), torch.complex(c, d), padding=1, stride=2, algorithm=algorithm)

    def real(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=1, stride=2)

    same(got, torch.complex(real(a, c) - real(b, d), real(a, d) + real(b, c)))


META: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any], tuple[int, ...]]] = [
    ("conv", (2, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}, (2, 64, 112, 112)),
    ("conv", (3, 227, 227), (96, 3, 11, 11), {"stride": 4}, (96, 55, 55)),
    ("conv", (2, 4, 9), (4, 1, 3), {"groups": 4, "padding": "full"}, (2, 4, 11)),
    ("conv", (2, 4, 9, 10), (6, 4, 3, 3), {"padding": 20, "padding_mode": "circular"}, (2, 6, 47, 48)),
    ("conv", (1, 2, 5, 5, 5, 5), (3, 2, 2, 2, 2, 2), {"stride": 2}, (1, 3, 2, 2, 2, 2)),
    ("conv_transpose", (2, 8, 7, 7), (8, 4, 4, 4), {"stride": 2, "padding": 1}, (2, 4, 14, 14)),
    ("conv_transpose", (2, 8, 7), (8, 4, 3), {"stride": 3, "padding": "same"}, (2, 4, 21)),
]


@pytest.mark.parametrize(("name", "x", "weight", "options", "shape"), META)
@pytest.mark.parametrize("algorithm", [None, "reference"])
def test_meta_tensors_have_the_right_shapes(
    name: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    options: dict[str, Any],
    shape: tuple[int, ...],
    algorithm: str,
) -> None:
    function = getattr(striate, name)
    y = function(torch.ones(x, device="meta"), torch.ones(weight, device="meta"), algorithm=algorithm, **options)
    assert (tuple(y.shape), y.device.type, y.dtype) == (shape, "meta", torch.float32)


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_converts_as_torch_s_own_does(dtype: torch.dtype, name: str) -> None:
    """The second layer of a network under autocast gets a bfloat16 x and float32 weights."""
    x, weight, bias = whole(2, 4, 7, 6).to(dtype), whole(4, 4, 3, 3, seed=1).requires_grad_(), whole(4, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        expected = (F.conv2d if name == "conv" else F.conv_transpose2d)(x, weight, bias, padding=1)
        for algorithm in ALGORITHMS:
            y = getattr(striate, name)(x, weight, bias, padding=1, algorithm=algorithm)
            same(y, expected)
            (gradient,) = torch.autograd.grad(y.float().sum(), weight)
            assert gradient.dtype == torch.float32
        position = torch.ones(4, *expected.shape[2:])
        same(getattr(striate, name)(x, weight, position, padding=1), expected - bias.view(-1, 1, 1).to(expected) + 1)
        for algorithm in ALGORITHMS:  # autocast leaves float64 alone
            doubled = striate.conv(x.double(), weight.double(), algorithm=algorithm)
            same(doubled, F.conv2d(x.double(), weight.double()))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_autocast_lowers_the_numbers_but_not_the_sums(algorithm: str) -> None:
    """256 + 1 + 1 is 258; bfloat16 steps by 2 there, so that adding one by one would stay at 256."""
    x = torch.tensor([[[256.0, 1.0], [1.0, 0.0]]])
    with torch.autocast("cpu", torch.bfloat16):
        y = striate.conv(x, torch.ones(1, 2, 2), algorithm=algorithm)
    assert (y.dtype, y.item()) == (torch.bfloat16, 258)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_of_each_example_by_vmap(algorithm: str) -> None:
    x, weight = whole(3, 2, 6, 5), whole(4, 2, 3, 3, seed=1)

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        return striate.conv(x, weight, padding=1, stride=2, algorithm=algorithm).square().sum()

    got = torch.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    leaf = weight.clone().requires_grad_()
    for example, gradient in zip(x, got, strict=True):
        y = F.conv2d(example[None], leaf, padding=1, stride=2).square().sum()
        same(gradient, torch.autograd.grad(y, leaf)[0])


def test_jacobian_is_the_layer_s_matrix() -> None:
    """Each row of the matrix holds the kernel, shifted: the Toeplitz matrix of the notes."""
    weight = torch.tensor([[[1.0, 2.0, 3.0]]])
    for algorithm in ALGORITHMS:
        matrix = torch.func.jacrev(lambda x, a=algorithm: striate.conv(x, weight, algorithm=a))(torch.zeros(1, 1, 5))
        assert matrix[0, 0, :, 0, 0].tolist() == [[1, 2, 3, 0, 0], [0, 1, 2, 3, 0], [0, 0, 1, 2, 3]]


def test_flops_are_counted_by_torch_s_own_counter() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    x, weight = torch.ones(2, 4, 9, 8), torch.ones(6, 4, 3, 3)
    for algorithm in ALGORITHMS:
        with FlopCounterMode(display=False) as counter:
            striate.conv(x, weight, algorithm=algorithm)
        assert counter.get_total_flops() == 2 * (2 * 6 * 7 * 6) * (4 * 3 * 3)


# ------------------------------------------------------------------------------------------ local and tiled convolution

LOCAL = "conv_local of x (1, 2, 5, 6) with weight"
TILED = "conv_tiled of x (1, 2, 5, 6) with weight"
REPEATING_REFUSED: list[tuple[str, tuple[int, ...], dict[str, Any], str]] = [
    (
        "conv_local",
        (3, 4, 4, 2, 3),
        {},
        (
            "conv_local: weight must be (*out, O, C/groups, *K) with an even number of dimensions, at least 4, "
            "got shape (3, 4, 4, 2, 3)."
        ),
    ),
    (
        "conv_tiled",
        (4, 2),
        {},
        (
            "conv_tiled: weight must be (*period, O, C/groups, *K) with an even number of dimensions, at least 4, "
            "got shape (4, 2)."
        ),
    ),
    (
        "conv_tiled",
        (2, 4, 2, 3),
        {},
        (
            "conv_tiled: weight (2, 4, 2, 3) has 1 spatial axis, so x needs 3 dimensions, (N, C, *spatial), or 2 "
            "without a batch; got shape (1, 2, 5, 6)."
        ),
    ),
    (
        "conv_local",
        (3, 3, 4, 2, 3, 3),
        {},
        (
            f"{LOCAL} (3, 3, 4, 2, 3, 3): the weight is for (3, 3) output positions, but the window makes (3, 4); "
            "give weight of shape (3, 4, 4, 2, 3, 3)."
        ),
    ),
    (
        "conv_local",
        (3, 4, 4, 2, 3, 3),
        {"padding": "same"},
        (
            f"{LOCAL} (3, 4, 4, 2, 3, 3): the weight is for (3, 4) output positions, but the window makes (5, 6); "
            "give weight of shape (5, 6, 4, 2, 3, 3)."
        ),
    ),
    (
        "conv_tiled",
        (2, 0, 4, 2, 3, 3),
        {},
        f"{TILED} (2, 0, 4, 2, 3, 3): period must be at least 1, got period=0.",
    ),
    (
        "conv_tiled",
        (2, 2, 4, 1, 3, 3),
        {},
        f"{TILED} (2, 2, 4, 1, 3, 3): x has 2 channels, but the weight with groups=1 takes 1.",
    ),
    (
        "conv_tiled",
        (2, 2, 4, 6, 3, 3),
        {},
        (
            f"{TILED} (2, 2, 4, 6, 3, 3): x has 2 channels, but the weight with groups=1 takes 6. "
            "x looks channels-last: give x.movedim(-1, 1)."
        ),
    ),
]


@pytest.mark.parametrize(("name", "weight", "options", "message"), REPEATING_REFUSED)
def test_local_and_tiled_refuse(name: str, weight: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        getattr(striate, name)(torch.ones(1, 2, 5, 6), torch.ones(weight), **options)
    assert str(caught.value) == message


REPEATING_BIAS = [
    (
        "conv_local",
        (3, 4, 4, 2, 3, 3),
        (4, 3, 3),
        "bias has shape (4, 3, 3); expected (4,), one per output channel, or (4, 3, 4), one per output position.",
    ),
    (
        "conv_tiled",
        (2, 3, 4, 2, 3, 3),
        (4, 3, 4),
        (
            "bias has shape (4, 3, 4); expected (4,), one per output channel, or (4, 2, 3), "
            "one per position of the period."
        ),
    ),
]


@pytest.mark.parametrize(("name", "weight", "bias", "message"), REPEATING_BIAS)
def test_the_bias_of_local_and_tiled(name: str, weight: tuple[int, ...], bias: tuple[int, ...], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        getattr(striate, name)(torch.ones(1, 2, 5, 6), torch.ones(weight), torch.ones(bias))
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["conv_local", "conv_tiled"])
def test_one_bias_per_channel_and_no_batch(name: str) -> None:
    x, weight, bias = torch.ones(2, 5, 6), torch.ones(3, 4, 4, 2, 3, 3), torch.arange(4.0)
    y = getattr(striate, name)(x, weight, bias)
    assert y.equal(torch.full((4, 3, 4), 18.0) + bias.view(4, 1, 1))


def test_a_name_that_cannot_serve_repeating_weights_says_why() -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.conv_tiled(torch.ones(1, 2, 5), torch.ones(2, 4, 2, 3), algorithm="vendor")
    assert str(caught.value) == (
        "algorithm='vendor' cannot serve this convolution: the weights repeat with period (2,); PyTorch's convolutions "
        "share them with period 1."
    )


def test_whole_numbers_are_convolved_exactly_too() -> None:
    x, weight = torch.arange(30).view(1, 2, 3, 5), torch.arange(16).view(2, 2, 2, 2)
    for dtype in (torch.int32, torch.int64):
        got = striate.conv(x.to(dtype), weight.to(dtype), stride=2, dilation=2)
        assert got.dtype == dtype
        assert got.equal(F.conv2d(x.double(), weight.double(), stride=2, dilation=2).to(dtype))
