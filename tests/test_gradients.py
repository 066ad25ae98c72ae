"""Gradients as geometries: their sizes, and the sums that they describe against torch's autograd."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from striate.errors import GeometryError
from striate.geometry import Axis, Geometry
from striate.gradients import input_gradient, weight_gradient
from striate.taps import window_at

few = settings(deadline=None, max_examples=40)
rows = st.integers(0, 4)
axes = st.builds(
    Axis, kernel=st.integers(1, 5), stride=st.integers(1, 4), dilation=st.integers(1, 3), before=rows, after=rows
)
windows = st.builds(
    Geometry, axes=st.lists(axes, min_size=1, max_size=3).map(tuple), flip=st.booleans(), transposed=st.booleans()
)
wide = st.integers(13, 20)  # at least the widest extent, so that every axis fits


@few
@given(geometry=windows, sizes=st.tuples(wide, wide, wide))
def test_the_input_gradient_has_the_size_of_the_input(geometry: Geometry, sizes: tuple[int, ...]) -> None:
    size = sizes[: len(geometry.axes)]
    backward = input_gradient(geometry, size)
    assert backward.output_size(geometry.output_size(size)) == size
    assert backward.transposed is not geometry.transposed
    assert (backward.kernel, backward.groups, backward.flip) == (geometry.kernel, geometry.groups, geometry.flip)


@few
@given(geometry=windows, sizes=st.tuples(wide, wide, wide))
def test_the_weight_gradient_has_the_size_of_the_kernel(geometry: Geometry, sizes: tuple[int, ...]) -> None:
    size = sizes[: len(geometry.axes)]
    read, slid = size, geometry.output_size(size)
    if geometry.transposed:
        read, slid = slid, read
    backward = weight_gradient(geometry, size)
    assert backward.kernel == slid
    assert backward.output_size(read) == geometry.kernel
    assert not backward.transposed


# Rows behind the last window are cropped (after < 0), so that the sizes come out exactly.
#   kernel stride dilation padding size | kernel stride dilation before after
WEIGHT_GRADIENTS = """
       3      1       1       0      5      3      1       1       0     0
       3      1       1       1      5      5      1       1       1     1
       3      2       1       0      8      3      1       2       0    -1
       3      2       1       1      8      4      1       2       1     0
       3      1       2       2      9      9      2       1       2     2
       2      3       2       0      9      3      2       3       0     0
      11      4       1       0    227     55      1       4       0     0
"""


@pytest.mark.parametrize("row", [tuple(map(int, line.split())) for line in WEIGHT_GRADIENTS.strip().splitlines()])
def test_stride_and_dilation_change_places_in_the_weight_gradient(row: tuple[int, ...]) -> None:
    kernel, stride, dilation, padding, size, *expected = row
    forward = Geometry.window(1, kernel, stride=stride, dilation=dilation, padding=padding)
    assert weight_gradient(forward, (size,)).axes == (Axis(*expected),)


def test_the_groups_of_both_gradients_are_the_windows_own() -> None:
    forward = Geometry.window(2, 3, padding=1, groups=4)
    assert input_gradient(forward, (8, 8)).groups == weight_gradient(forward, (8, 8)).groups == 4


# ------------------------------------------------------------------------------------------- against autograd


def some(*shape: int) -> Tensor:
    """Different whole numbers, so that sums are exact and no two reads look alike."""
    return torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float64).square().reshape(shape)


def computed(geometry: Geometry, x: Tensor, weight: Tensor) -> Tensor:
    """The window's whole output for one channel, as the sums that the taps describe."""
    outputs = geometry.output_size(x.shape)
    values = [
        sum(float(weight[w] * x[i]) for w, i in window_at(geometry, x.shape, position))
        for position in numpy.ndindex(*outputs)
    ]
    return torch.tensor(values, dtype=torch.float64).reshape(outputs)


FORWARD: list[dict[str, Any]] = [
    dict(kernel=3),
    dict(kernel=3, padding=1),
    dict(kernel=3, stride=2),
    dict(kernel=(2, 3), stride=(3, 2), padding=1),
    dict(kernel=(3, 2), stride=(2, 1), padding=(0, 2), dilation=(2, 3)),
    dict(kernel=2, stride=3),
]


@pytest.mark.parametrize("transposed", [False, True], ids=["window", "transposed"])
@pytest.mark.parametrize("options", FORWARD, ids=str)
def test_both_gradients_are_autograds(options: dict[str, Any], transposed: bool) -> None:
    geometry = Geometry.window(2, transposed=transposed, **options)
    x, weight = some(6, 7).requires_grad_(), some(*geometry.kernel).requires_grad_()
    layer = functional.conv_transpose2d if transposed else functional.conv2d
    given_to_torch = {name: value for name, value in options.items() if name != "kernel"}
    output = layer(x[None, None], weight[None, None], **given_to_torch)[0, 0]
    g = some(*output.shape) + 1
    input_side, weight_side = torch.autograd.grad(output, (x, weight), g)

    with torch.no_grad():
        assert computed(input_gradient(geometry, (6, 7)), g, weight).equal(input_side)
        read, slid = (g, x) if transposed else (x, g)
        assert computed(weight_gradient(geometry, (6, 7)), read, slid).equal(weight_side)


def test_the_gradient_of_a_turned_window_is_that_of_the_turned_kernel() -> None:
    geometry = Geometry.window(1, 3, stride=2, padding=1, flip=True)
    x, weight = some(8).requires_grad_(), some(3).requires_grad_()
    output = functional.conv1d(x[None, None], weight.flip(0)[None, None], stride=2, padding=1)[0, 0]
    g = some(*output.shape) + 1
    input_side, weight_side = torch.autograd.grad(output, (x, weight), g)

    with torch.no_grad():
        assert computed(input_gradient(geometry, (8,)), g, weight).equal(input_side)
        assert computed(weight_gradient(geometry, (8,)), x, g).equal(weight_side.flip(0))


def test_output_padding_has_a_gradient_of_the_right_size_too() -> None:
    up = Geometry.window(2, 3, stride=2, padding=1, output_padding=1, transposed=True)
    assert input_gradient(up, (7, 7)).output_size((14, 14)) == (7, 7)
    assert weight_gradient(up, (7, 7)).output_size((14, 14)) == (3, 3)


# --------------------------------------------------------------------------------------------------- messages


def test_weights_that_are_not_shared_have_no_gradient_that_is_one_convolution() -> None:
    with pytest.raises(GeometryError) as caught:
        weight_gradient(Geometry.window(2, 3, period=(1, 2)), (8, 8))
    assert str(caught.value) == (
        "the weights repeat with period (1, 2); "
        "only the gradient of weights that all positions share (period 1) is one convolution."
    )


@pytest.mark.parametrize("gradient", [input_gradient, weight_gradient])
def test_a_window_that_does_not_fit_has_no_gradient(gradient: Any) -> None:
    with pytest.raises(GeometryError) as caught:
        gradient(Geometry.window(2, 3), (8, 2))
    assert str(caught.value) == (
        "On spatial axis 1: the window spans 3 inputs (kernel=3, dilation=1), but input and padding have "
        "2 + 0 + 0 = 2; give a larger input, more padding or a smaller kernel."
    )
