"""The taps against torch and scipy, which do the same sums; everything else here against the taps."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from striate.errors import GeometryError
from striate.geometry import Axis, Geometry
from striate.taps import counts, require_real_reads, tap_slices, taps, window_at

few = settings(deadline=None, max_examples=40)
rows = st.integers(0, 4)
axes = st.builds(
    Axis, kernel=st.integers(1, 5), stride=st.integers(1, 4), dilation=st.integers(1, 3), before=rows, after=rows
)
cropped_axes = st.builds(Axis, kernel=st.integers(1, 3), stride=st.integers(1, 3), before=st.integers(-3, 0))
sizes = st.integers(13, 20)  # at least the widest extent, so that every axis fits

# Kernel 3, stride 2, one row of padding on both sides, five inputs: P 0 1 2 3 4 P, windows at P, 1 and 3.
READS = """
    output tap input
       0    1    0
       0    2    1
       1    0    1
       1    1    2
       1    2    3
       2    0    3
       2    1    4
"""


def test_taps_table() -> None:
    reads = tuple(tuple(map(int, line.split())) for line in READS.strip().splitlines()[1:])
    assert taps(Axis(3, stride=2, before=1, after=1), 5) == reads


def some(*shape: int) -> Tensor:
    """Different whole numbers, so that sums are exact and no two reads look alike."""
    return torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float64).square().reshape(shape)


@few
@given(axis=axes, size=sizes)
def test_taps_sum_to_torchs_convolution(axis: Axis, size: int) -> None:
    x, weight = some(1, 1, size), some(1, 1, axis.kernel)
    padded = functional.pad(x, (axis.before, axis.after))
    output = torch.zeros(axis.output_size(size), dtype=torch.float64)
    for o, t, i in taps(axis, size):
        output[o] += weight[0, 0, t] * x[0, 0, i]
    assert output.equal(functional.conv1d(padded, weight, stride=axis.stride, dilation=axis.dilation).flatten())


@few
@given(axis=axes, size=sizes)
def test_the_next_output_reads_what_lies_one_stride_further(axis: Axis, size: int) -> None:
    """The rows of the layer's matrix are shifted copies (Toeplitz); shifting the input shifts the output."""
    last, reads = axis.output_size(size) - 1, taps(axis, size)
    shifted = {(o + 1, t, i + axis.stride) for o, t, i in reads if o < last}
    assert {read for read in shifted if read[2] < size} == {
        read for read in reads if read[0] and read[2] >= axis.stride
    }


@few
@given(axis=axes | cropped_axes, size=sizes)
def test_slices_of_one_tap_are_its_reads(axis: Axis, size: int) -> None:
    for tap in range(axis.kernel):
        outputs, inputs = (list(range(100))[positions] for positions in tap_slices(axis, size, tap))
        assert list(zip(outputs, inputs, strict=True)) == [(o, i) for o, t, i in taps(axis, size) if t == tap]


def test_a_tap_that_reads_only_padding_has_empty_slices() -> None:
    only_window = Axis(3, stride=4, before=2)  # over P P 0
    lengths = [
        tuple(len(range(*positions.indices(10))) for positions in tap_slices(only_window, 1, tap)) for tap in range(3)
    ]
    assert lengths == [(0, 0), (0, 0), (1, 1)]


# Real inputs for each window, counted by eye.
COUNTS = [
    (Axis(3, before=1, after=1), 4, (2, 3, 3, 2)),
    (Axis(3, before=2, after=2), 4, (1, 2, 3, 3, 2, 1)),
    (Axis(3, dilation=2, before=2, after=2), 4, (2, 2, 2, 2)),
    (Axis(2, stride=2, before=0, after=1), 3, (2, 1)),
    (Axis(1, stride=1, before=2, after=0), 2, (0, 0, 1, 1)),
]


@pytest.mark.parametrize(("axis", "size", "expected"), COUNTS)
def test_counts_table(axis: Axis, size: int, expected: tuple[int, ...]) -> None:
    assert counts(axis, size) == expected


@few
@given(axis=axes, size=sizes)
def test_counts_are_the_convolution_of_ones(axis: Axis, size: int) -> None:
    ones = functional.pad(torch.ones(1, 1, size), (axis.before, axis.after))
    output = functional.conv1d(ones, torch.ones(1, 1, axis.kernel), stride=axis.stride, dilation=axis.dilation)
    assert counts(axis, size) == tuple(output.flatten().int().tolist())


@settings(max_examples=400)
@given(
    axis=st.builds(
        Axis,
        kernel=st.integers(1, 4), stride=st.integers(1, 5), dilation=st.integers(1, 9),
        before=st.integers(0, 30), after=st.integers(0, 30),
    ),
    size=st.integers(1, 12),
)  # fmt: skip
def test_the_first_output_that_reads_nothing_is_named(axis: Axis, size: int) -> None:
    if axis.extent > size + axis.before + axis.after:
        return
    blind = [o for o, count in enumerate(counts(axis, size)) if count == 0]
    if not blind:
        require_real_reads(Geometry((axis,)), (size,))
        return
    with pytest.raises(GeometryError) as caught:
        require_real_reads(Geometry((axis,)), (size,))
    assert str(caught.value) == (
        f"On spatial axis 0: the window at output {blind[0]} would read only padding "
        f"(size={size}, {axis}); give less padding or a larger input."
    )


def test_impossible_windows_of_a_billion_positions_are_refused_at_once() -> None:
    for axis in (Axis(2, before=5, after=5), Axis(2, dilation=100, before=150, after=150), Axis(1, before=0, after=1)):
        with pytest.raises(GeometryError, match="would read only padding"):
            require_real_reads(Geometry((axis,)), (999_999_999,))


# ------------------------------------------------------------------------------------- one output of a window


def computed(geometry: Geometry, x: Tensor, weight: Tensor) -> Tensor:
    """The window's whole output for one channel, one position after the other."""
    outputs = geometry.output_size(x.shape)
    values = [
        sum(float(weight[w] * x[i]) for w, i in window_at(geometry, x.shape, position))
        for position in numpy.ndindex(*outputs)
    ]
    return torch.tensor(values, dtype=torch.float64).reshape(outputs)


TWO_AXES: list[dict[str, Any]] = [
    dict(kernel=3),
    dict(kernel=(2, 3), stride=(3, 2), padding=1),
    dict(kernel=3, stride=2, padding=(0, 2), dilation=(2, 1)),
    dict(kernel=(1, 4), padding=(0, 3)),
]


@pytest.mark.parametrize("options", TWO_AXES, ids=str)
def test_window_at_is_torchs_convolution(options: dict[str, Any]) -> None:
    geometry = Geometry.window(2, **options)
    x, weight = some(6, 7), some(*geometry.kernel)
    given_to_torch = {name: value for name, value in options.items() if name != "kernel"}
    expected = functional.conv2d(x[None, None], weight[None, None], **given_to_torch)
    assert computed(geometry, x, weight).equal(expected[0, 0])
    back = functional.conv_transpose2d(x[None, None], weight[None, None], **given_to_torch)
    assert computed(geometry.adjoint(), x, weight).equal(back[0, 0])


def test_a_turned_window_is_scipys_convolution() -> None:
    x, weight = some(4, 5), some(2, 3)
    expected = scipy.signal.convolve2d(x.numpy(), weight.numpy(), mode="full")
    turned = Geometry.window(2, (2, 3), padding="full", flip=True)
    assert computed(turned, x, weight).numpy().tolist() == expected.tolist()


def test_a_turned_transposed_window_is_the_transposed_window_of_the_turned_kernel() -> None:
    turned = Geometry.window(2, 3, stride=2, padding=1, flip=True, transposed=True)
    x, weight = some(4, 5), some(3, 3)
    expected = functional.conv_transpose2d(x[None, None], weight.flip(0, 1)[None, None], stride=2, padding=1)
    assert computed(turned, x, weight).equal(expected[0, 0])


def test_window_at_counts_in_three_axes() -> None:
    geometry = Geometry.window(3, 2)
    corner = [(w, i) for w, i in window_at(geometry, (3, 3, 3), (1, 0, 1))]
    assert corner == [((a, b, c), (1 + a, b, 1 + c)) for a in range(2) for b in range(2) for c in range(2)]


BAD_POSITIONS = [
    ((3, 0), "position=(3, 0) is not an output position; the output is (3, 4)."),
    ((0, -1), "position=(0, -1) is not an output position; the output is (3, 4)."),
    ((1,), "position=(1,) is not an output position; the output is (3, 4)."),
    ((0, 0, 0), "position=(0, 0, 0) is not an output position; the output is (3, 4)."),
]


@pytest.mark.parametrize(("position", "message"), BAD_POSITIONS)
def test_window_at_message(position: tuple[int, ...], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        list(window_at(Geometry.window(2, 3), (5, 6), position))
    assert str(caught.value) == message
