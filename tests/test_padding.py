"""Padding words against their definitions, padding modes against torch and numpy."""

from __future__ import annotations

from typing import Literal

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from striate.errors import GeometryError, UnknownNameError
from striate.geometry import Axis
from striate.padding import WORDS, rows, sources
from striate.taps import taps

few = settings(deadline=None, max_examples=40)
extents, strides, sizes = st.integers(1, 9), st.integers(1, 5), st.integers(1, 40)

# "same" is worked out as: outputs = ceil(size / stride), total = (outputs - 1) * stride + extent - size, at least 0.
ROWS = """
    word        extent stride size   before after
    valid          5      2    10       0     0
    full           5      2    10       4     4
    full           1      1    10       0     0
    causal         5      2    10       4     0
    same           3      1    10       1     1
    same           4      1    10       1     2
    same_lower     4      1    10       2     1
    same           3      2   224       0     1
    same_lower     3      2   224       1     0
    same           7      2   224       2     3
    same           3      2   225       1     1
    same           2      3     8       0     0
    same           1      4    10       0     0
    same          11      4   227       4     4
"""


@pytest.mark.parametrize("row", ROWS.strip().splitlines()[1:], ids=str.split)
def test_rows_table(row: str) -> None:
    word, *numbers = row.split()
    extent, stride, size, before, after = map(int, numbers)
    assert rows(word, extent, stride, size) == (before, after)


@few
@given(extent=extents, stride=strides, size=sizes)
def test_same_is_the_smallest_padding_with_ceil_of_size_over_stride_outputs(
    extent: int, stride: int, size: int
) -> None:
    """TensorFlow's "SAME" and ONNX's SAME_UPPER (and SAME_LOWER, its mirror image)."""
    before, after = rows("same", extent, stride, size)
    wanted = -(-size // stride)
    assert Axis(extent, stride, before=before, after=after).output_size(size) == wanted
    assert after - before in (0, 1)
    if before + after:
        one_less = size + before + after - 1 - extent
        assert one_less // stride + 1 < wanted
    assert rows("same_lower", extent, stride, size) == (after, before)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_same_without_stride_is_that_of_torch_and_needs_no_size(kernel: int, dilation: int) -> None:
    x = torch.arange(1.0, 10.0).reshape(1, 1, 9)
    weight = torch.arange(1.0, kernel + 1).reshape(1, 1, kernel)
    extent = Axis(kernel, dilation=dilation).extent
    padded = functional.pad(x, rows("same", extent, stride=1, size=None))
    expected = functional.conv1d(x, weight, padding="same", dilation=dilation)
    assert functional.conv1d(padded, weight, dilation=dilation).equal(expected)


@few
@given(extent=extents, size=sizes)
def test_full_reads_every_input_through_every_tap(extent: int, size: int) -> None:
    before, after = rows("full", extent, 1, size)
    axis = Axis(extent, before=before, after=after)
    assert axis.output_size(size) == size + extent - 1
    assert sorted((i, t) for _, t, i in taps(axis, size)) == [(i, t) for i in range(size) for t in range(extent)]


@few
@given(kernel=extents, dilation=strides, size=sizes)
def test_causal_never_reads_ahead(kernel: int, dilation: int, size: int) -> None:
    before, after = rows("causal", Axis(kernel, dilation=dilation).extent, 1, size)
    axis = Axis(kernel, dilation=dilation, before=before, after=after)
    assert axis.output_size(size) == size
    assert max(i - o for o, _, i in taps(axis, size)) == 0


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(UnknownNameError) as caught:
        rows("smae", 3, 2, 10)
    assert str(caught.value) == (
        "No padding is called 'smae'. Did you mean 'same'? Known: causal, full, same, same_lower, valid."
    )


@pytest.mark.parametrize("word", ["same", "same_lower"])
def test_same_with_a_stride_needs_the_size(word: str) -> None:
    with pytest.raises(GeometryError) as caught:
        rows(word, 3, 2, None)
    assert str(caught.value) == (
        f"padding='{word}' with stride=2 depends on the input size; "
        "give size=(...) too, or write the padding as numbers."
    )


@pytest.mark.parametrize("word", [word for word in WORDS if not word.startswith("same")])
def test_other_words_need_no_size(word: str) -> None:
    assert rows(word, 3, 2, None) == rows(word, 3, 2, 10)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 1), (0, 3), (4, 4)])
def test_modes_are_those_of_torch(mode: str, before: int, after: int) -> None:
    padded = functional.pad(torch.arange(5.0).reshape(1, 1, 5), (before, after), mode=mode)
    assert sources(mode, 5, before, after) == padded.flatten().int().tolist()


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_negative_padding_crops(mode: str) -> None:
    assert sources(mode, 6, -2, -1) == [2, 3, 4]
    assert sources(mode, 6, -2, 3) == sources(mode, 6, 0, 3)[2:]


NUMPY_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


@few
@given(mode=st.sampled_from(list(NUMPY_MODES)), size=st.integers(1, 6), before=st.integers(0, 20), after=sizes)
def test_padding_wider_than_the_axis_goes_on_as_in_numpy(mode: str, size: int, before: int, after: int) -> None:
    expected = numpy.pad(numpy.arange(size), (before, after), mode=NUMPY_MODES[mode])
    assert sources(mode, size, before, after) == expected.tolist()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UnknownNameError) as caught:
        sources("reflected", 5, 1, 1)
    assert str(caught.value) == (
        "No padding mode is called 'reflected'. Did you mean 'reflect'? Known: circular, reflect, replicate, zeros."
    )


def test_zeros_have_no_source() -> None:
    with pytest.raises(GeometryError) as caught:
        sources("zeros", 5, 1, 1)
    assert str(caught.value) == ("padding_mode='zeros' copies no positions; only reflect, replicate and circular do.")


def test_nothing_cannot_be_padded() -> None:
    with pytest.raises(GeometryError) as caught:
        sources("circular", 0, 1, 1)
    assert str(caught.value) == ("there is nothing to pad from: the input needs at least 1 position, got size=0.")
