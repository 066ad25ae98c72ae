"""Windows: sizes against torch, laws of adjoints, what a person may write down, and every refusal."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import numpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from striate.errors import GeometryError
from striate.geometry import Axis, Geometry, per_axis

few = settings(deadline=None, max_examples=40)
rows = st.integers(0, 4)
axes = st.builds(
    Axis, kernel=st.integers(1, 5), stride=st.integers(1, 4), dilation=st.integers(1, 3), before=rows, after=rows
)
sizes = st.integers(13, 24)  # at least the widest extent, so that every axis fits

# ---------------------------------------------------------------------------------------------------- sizes

# output = (size + before + after - extent) // stride + 1;   unread = the remainder of that division
OUTPUT_SIZES = """
    size kernel stride dilation before after   output extent unread
      7     3      1       1       1     1        7      3      0
      7     3      2       1       1     1        4      3      0
      8     3      2       1       1     1        4      3      1
      8     3      2       2       0     0        2      5      1
      5     2      3       1       0     1        2      2      1
     10     3      2       1       0     0        4      3      1
     10     3      5       1       0     0        2      3      2
    227    11      4       1       0     0       55     11      0
    224     7      2       1       3     3      112      7      1
      5     3      1       1      -1    -1        1      3      0
"""


@pytest.mark.parametrize("row", [tuple(map(int, line.split())) for line in OUTPUT_SIZES.strip().splitlines()[1:]])
def test_output_size_table(row: tuple[int, ...]) -> None:
    size, *numbers, output, extent, unread = row
    axis = Axis(*numbers)
    assert (axis.output_size(size), axis.extent, axis.unread_tail(size)) == (output, extent, unread)


def meta(channels: int, size: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(1, channels, *size, device="meta")


@few
@given(axis=axes, size=sizes)
def test_output_size_is_torchs(axis: Axis, size: int) -> None:
    padded = functional.pad(meta(1, (size,)), (axis.before, axis.after))
    weight = torch.empty(1, 1, axis.kernel, device="meta")
    output = functional.conv1d(padded, weight, stride=axis.stride, dilation=axis.dilation)
    assert axis.output_size(size) == output.shape[-1]


@few
@given(axis=axes, size=sizes)
def test_unread_tail_is_what_lies_behind_the_last_window(axis: Axis, size: int) -> None:
    last_read = (axis.output_size(size) - 1) * axis.stride + axis.extent - 1
    assert axis.unread_tail(size) == size + axis.before + axis.after - 1 - last_read
    assert 0 <= axis.unread_tail(size) < axis.stride


@few
@given(axis=axes, size=sizes, extra=st.integers(0, 3))
def test_transposed_size_is_torchs(axis: Axis, size: int, extra: int) -> None:
    extra = min(extra, max(axis.stride, axis.dilation) - 1)
    options: dict[str, Any] = dict(
        stride=axis.stride, padding=axis.before, dilation=axis.dilation, output_padding=extra
    )
    geometry = Geometry.window(1, axis.kernel, transposed=True, **options)
    weight = torch.empty(1, 1, axis.kernel, device="meta")
    output = functional.conv_transpose1d(meta(1, (size,)), weight, **options)
    assert geometry.output_size((size,)) == output.shape[2:]


@few
@given(axis=axes, size=sizes)
def test_the_transposed_window_writes_what_the_window_reads(axis: Axis, size: int) -> None:
    """Only the rows behind the last window are lost on the way there and back."""
    there = axis.output_size(size)
    assert axis.transposed_size(there) == size - axis.unread_tail(size)
    geometry = Geometry((axis,))
    assert geometry.adjoint().output_size((there,)) == (axis.transposed_size(there),)
    assert geometry.adjoint().adjoint() == geometry


MANY_AXES: list[tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    (dict(axes=2, kernel=(3, 5), stride=(2, 1), padding=(4, 2)), (50, 100), (28, 100)),
    (dict(axes=2, kernel=(3, 5), stride=(2, 1), padding=(4, 2), dilation=(3, 1)), (50, 100), (26, 100)),
    (dict(axes=3, kernel=3, stride=(1, 2, 2), padding=1), (16, 112, 112), (16, 56, 56)),
    (dict(axes=2, kernel=3, stride=2, padding="same", size=(7, 8)), (7, 8), (4, 4)),
    (dict(axes=2, kernel=3, stride=2, padding=((0, 1), (2, 0))), (8, 9), (4, 5)),
    (dict(axes=2, kernel=4, stride=2, padding=1, transposed=True), (7, 9), (14, 18)),
    (dict(axes=2, kernel=3, stride=2, padding=1, output_padding=(1, 0), transposed=True), (7, 7), (14, 13)),
    (dict(axes=4, kernel=2), (3, 4, 5, 6), (2, 3, 4, 5)),
]


@pytest.mark.parametrize(("written", "size", "output"), MANY_AXES)
def test_output_size_of_many_axes(written: dict[str, Any], size: tuple[int, ...], output: tuple[int, ...]) -> None:
    assert Geometry.window(**written).output_size(size) == output


@pytest.mark.parametrize("word", ["same", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_transposed_same_writes_stride_times_as_many(kernel: int, stride: int, word: str) -> None:
    """Keras documents this of ``Conv2DTranspose(padding="same")``; it undoes "same" on any multiple of the stride."""
    up = Geometry.window(1, kernel, stride=stride, padding=word, transposed=True)
    assert up.output_size((6,)) == (6 * stride,)
    down = Geometry.window(1, kernel, stride=stride, padding=word, size=(6 * stride,))
    assert down.output_size((6 * stride,)) == (6,)


# written = (n - 1) * stride + extent - before - after, here with n = 5, kernel 3 and stride 2
@pytest.mark.parametrize(("word", "written"), [("valid", 11), ("full", 7), ("causal", 9)])
def test_transposed_words_name_the_padding_of_the_convolution(word: str, written: int) -> None:
    assert Geometry.window(1, 3, stride=2, padding=word, transposed=True).output_size((5,)) == (written,)


# ------------------------------------------------------------------------------------- what may be written


def test_single_values_are_repeated_and_pairs_are_kept() -> None:
    geometry = Geometry.window(2, 3, stride=(1, 2), padding=(1, (0, 2)), dilation=2, period=4, groups=2, flip=True)
    first, second = Axis(3, 1, 2, 1, 1, period=4), Axis(3, 2, 2, 0, 2, period=4)
    assert geometry == Geometry((first, second), groups=2, flip=True)
    assert (geometry.kernel, geometry.period, geometry.extent) == ((3, 3), (4, 4), (5, 5))


EQUAL_WAYS: list[dict[str, Any]] = [
    dict(kernel=[3, 3]),
    dict(kernel=torch.Size([3, 3])),
    dict(kernel=numpy.int64(3)),
    dict(kernel=(numpy.int32(3), 3)),
    dict(kernel=3, padding=[[1, 1], [1, 1]]),
    dict(kernel=3, padding=((1, 1), 1)),
    dict(kernel=3, padding="same"),
    dict(kernel=3, padding="same_lower", size=(5, 6)),
]


@pytest.mark.parametrize("written", EQUAL_WAYS, ids=str)
def test_lists_and_foreign_integers_describe_the_same_value(written: dict[str, Any]) -> None:
    geometry = Geometry.window(2, **{"padding": 1, **written})
    expected = Geometry((Axis(3, before=1, after=1),) * 2)
    assert geometry == expected
    assert hash(geometry) == hash(expected)


def test_values_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Axis(3).kernel = 5  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Geometry.window(1, 3).groups = 5  # type: ignore[misc]


def test_per_axis_repeats_a_value_and_keeps_a_sequence() -> None:
    assert per_axis("stride", 2, 3) == (2, 2, 2)
    assert per_axis("stride", [1, 2], 2) == (1, 2)
    assert per_axis("padding", "same", 2) == ("same", "same")


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_weight_shape_is_torchs(groups: int) -> None:
    conv = torch.nn.Conv2d(8, 12, (3, 5), groups=groups, device="meta")
    assert Geometry.window(2, (3, 5), groups=groups).weight_shape(8, 12) == conv.weight.shape
    back = torch.nn.ConvTranspose2d(8, 12, (3, 5), groups=groups, device="meta")
    transposed = Geometry.window(2, (3, 5), groups=groups, transposed=True)
    assert transposed.weight_shape(8, 12) == back.weight.shape


def test_weights_that_are_not_shared_have_one_kernel_for_each_position_of_the_period() -> None:
    assert Geometry.window(2, 3, period=(28, 1), groups=2).weight_shape(8, 12) == (28, 1, 12, 4, 3, 3)
    assert Geometry.window(1, 5, period=2, transposed=True).weight_shape(8, 12) == (2, 8, 12, 5)


# ------------------------------------------------------------------------------------------------- messages

BAD_AXES: list[tuple[dict[str, Any], str]] = [
    (dict(kernel=0), "kernel must be at least 1, got kernel=0."),
    (dict(kernel=3, stride=0), "stride must be at least 1, got stride=0."),
    (dict(kernel=3, dilation=-1), "dilation must be at least 1, got dilation=-1."),
    (dict(kernel=3, period=0), "period must be at least 1, got period=0."),
    (dict(kernel=3.0), "kernel must be an integer, got kernel=3.0."),
    (dict(kernel=True), "kernel must be an integer, got kernel=True."),
    (dict(kernel=3, before=0.5), "before must be an integer, got before=0.5."),
    (dict(kernel=3, after=None), "after must be an integer, got after=None."),
]


@pytest.mark.parametrize(("numbers", "message"), BAD_AXES)
def test_axis_message(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        Axis(**numbers)
    assert str(caught.value) == message


WORDS = "'valid', 'same', 'same_lower', 'full', 'causal'"
BAD_WINDOWS: list[tuple[dict[str, Any], str]] = [
    (dict(axes=2, kernel=0), "kernel must be at least 1, got kernel=0."),
    (dict(axes=1, kernel="3"), "kernel must be an integer, got kernel='3'."),
    (dict(axes=2, kernel=(3, 3, 3)), "kernel=(3, 3, 3) has 3 entries; this window has 2 spatial axes."),
    (dict(axes=2, kernel=3, stride=(2,)), "stride=(2,) has 1 entry; this window has 2 spatial axes."),
    (dict(axes=1, kernel=3, padding=(1, 2)), "padding=(1, 2) has 2 entries; this window has 1 spatial axis."),
    (dict(axes=1, kernel=3, size=(8, 9)), "size=(8, 9) has 2 entries; this window has 1 spatial axis."),
    (dict(axes=0, kernel=3), "a window needs at least one spatial axis, got none."),
    (dict(axes=1, kernel=3, groups=0), "groups must be an integer of at least 1, got groups=0."),
    (dict(axes=1, kernel=3, groups=2.0), "groups must be a whole number or consist of them, got groups=2.0."),
    (dict(axes=1, kernel=3, padding=1.5), "padding must be a whole number or consist of them, got padding=1.5."),
    (dict(axes=1.0, kernel=3), "axes must be a whole number or consist of them, got axes=1.0."),
    (dict(axes=1, kernel={}), "kernel must be a whole number or consist of them, got kernel={}."),
    (dict(axes=1, kernel=3, stride=True), "stride must be a whole number or consist of them, got stride=True."),
    (
        dict(axes=2, kernel=3, padding=("same", 0)),
        f"padding='same' is neither a number nor a (before, after) pair of numbers; the words are {WORDS}.",
    ),
    (
        dict(axes=1, kernel=3, padding=((1, 2, 3),)),
        f"padding=(1, 2, 3) is neither a number nor a (before, after) pair of numbers; the words are {WORDS}.",
    ),
    (dict(axes=1, kernel=3, padding=-1), "padding must be at least 0, got padding=-1; slice the input to crop it."),
    (
        dict(axes=1, kernel=3, padding=((1, -1),)),
        "padding must be at least 0, got padding=(1, -1); slice the input to crop it.",
    ),
    (
        dict(axes=1, kernel=3, padding="smae"),
        "No padding is called 'smae'. Did you mean 'same'? Known: causal, full, same, same_lower, valid.",
    ),
    (
        dict(axes=1, kernel=3, stride=2, padding="same"),
        "padding='same' with stride=2 depends on the input size; give size=(...) too, or write the padding as numbers.",
    ),
    (
        dict(axes=2, kernel=3, stride=2, output_padding=(0, 1)),
        "output_padding=(0, 1) belongs to a transposed window only; leave it out.",
    ),
    (
        dict(axes=1, kernel=3, stride=2, dilation=3, output_padding=3, transposed=True),
        "output_padding must be at least 0 and less than the larger of stride and dilation (3), got output_padding=3.",
    ),
    (
        dict(axes=1, kernel=3, stride=2, output_padding=-1, transposed=True),
        "output_padding must be at least 0 and less than the larger of stride and dilation (2), got output_padding=-1.",
    ),
]


@pytest.mark.parametrize(("written", "message"), BAD_WINDOWS)
def test_window_message(written: dict[str, Any], message: str) -> None:
    with pytest.raises((GeometryError, LookupError)) as caught:
        Geometry.window(**written)
    assert str(caught.value) == message


def test_geometry_without_axes_is_refused() -> None:
    with pytest.raises(GeometryError) as caught:
        Geometry(())
    assert str(caught.value) == "a window needs at least one spatial axis, got none."


BAD_SIZES: list[tuple[dict[str, Any], tuple[int, ...], str]] = [
    (dict(axes=2, kernel=3), (5, 5, 5), "size=(5, 5, 5) has 3 entries; this window has 2 spatial axes."),
    (dict(axes=1, kernel=3), (5, 5), "size=(5, 5) has 2 entries; this window has 1 spatial axis."),
    (
        dict(axes=2, kernel=(3, 5), dilation=2, padding=((1, 1), (1, 0))),
        (5, 7),
        (
            "On spatial axis 1: the window spans 9 inputs (kernel=5, dilation=2), "
            "but input and padding have 7 + 1 + 0 = 8; give a larger input, more padding or a smaller kernel."
        ),
    ),
    (
        dict(axes=1, kernel=3, stride=2, padding=((2, 3),), transposed=True),
        (2,),
        (
            "On spatial axis 0: the transposed window writes 0 positions from 2 inputs (kernel=3, stride=2, "
            "dilation=1, padding=2+3); at least 1 is needed: give less padding or a larger input."
        ),
    ),
]


@pytest.mark.parametrize(("written", "size", "message"), BAD_SIZES)
def test_size_message(written: dict[str, Any], size: tuple[int, ...], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        Geometry.window(**written).output_size(size)
    assert str(caught.value) == message


def test_one_axis_alone_says_the_same_without_a_number() -> None:
    with pytest.raises(GeometryError) as caught:
        Axis(3).output_size(2)
    assert str(caught.value) == (
        "the window spans 3 inputs (kernel=3, dilation=1), but input and padding have 2 + 0 + 0 = 2; "
        "give a larger input, more padding or a smaller kernel."
    )


@pytest.mark.parametrize(("channels", "wrong"), [((3, 4), "3 input"), ((4, 3), "3 output")])
def test_groups_that_do_not_divide_the_channels_are_refused(channels: tuple[int, int], wrong: str) -> None:
    with pytest.raises(GeometryError) as caught:
        Geometry.window(2, 3, groups=2).weight_shape(*channels)
    assert str(caught.value) == (
        f"groups=2 does not divide the {wrong} channels; both channel counts must be multiples of the groups."
    )


def test_a_float_is_refused_whatever_was_asked_before() -> None:
    """2.0 == 2 and True == 1, so a cache could take one for the other."""
    Geometry.window(2, (2, 1))
    for kernel in ((2.0, 1.0), (2, True)):
        with pytest.raises(GeometryError, match="kernel must be a whole number or consist of them"):
            Geometry.window(2, kernel)  # type: ignore[arg-type]


def test_foreign_whole_numbers_are_taken() -> None:
    number = np.int64(2)
    expected = Geometry.window(2, 2, groups=2)
    assert Geometry.window(2, np.array([2, 2]), groups=number) == expected  # type: ignore[arg-type]
    assert Geometry.window(2, number) == Geometry.window(2, 2)  # type: ignore[arg-type]


def test_sizes_without_a_position_are_refused() -> None:
    for size in (0, -1):
        with pytest.raises(GeometryError) as caught:
            Axis(1, before=3).output_size(size)
        assert str(caught.value) == f"the input needs at least 1 position, got size={size}."
    with pytest.raises(GeometryError) as caught:
        Geometry.window(1, 3).output_size((5.0,))  # type: ignore[arg-type]
    assert str(caught.value) == "size must be a whole number or consist of them, got size=5.0."
