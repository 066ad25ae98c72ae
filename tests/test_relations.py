"""Relations: every form against its definition, position by position, and against torch's own operators."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from striate.errors import GeometryError
from striate.geometry import Axis, Geometry
from striate.relations import Relation, of_window
from striate.taps import taps

BORDERS = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect", "circular": "circular"}
axes = st.builds(Axis, st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))


def windows(axis: Axis, size: int, transposed: bool) -> Relation | None:
    try:
        return Relation.window(axis, size, transposed=transposed)
    except GeometryError:
        return None


@settings(deadline=None, max_examples=300)
@given(axis=axes, size=st.integers(1, 14))
def test_a_window_reads_its_taps(axis: Axis, size: int) -> None:
    if (relation := windows(axis, size, transposed=False)) is not None:
        wanted: dict[int, set[int]] = {o: set() for o in range(relation.outputs)}
        for o, _, i in taps(axis, size):
            wanted[o].add(i)
        assert {o: set(relation.reads(o)) for o in wanted} == wanted


@settings(deadline=None, max_examples=300)
@given(axis=axes, size=st.integers(1, 14))
def test_a_transposed_window_reads_what_the_window_writes(axis: Axis, size: int) -> None:
    if (relation := windows(axis, size, transposed=True)) is not None:
        places = {
            (i * axis.stride + t * axis.dilation - axis.before, i) for i in range(size) for t in range(axis.kernel)
        }
        for o in range(relation.outputs):
            assert set(relation.reads(o)) == {i for place, i in places if place == o}
        assert relation.outputs == axis.transposed_size(size)


relations = st.one_of(
    st.builds(lambda axis, n, t: windows(axis, n, t), axes, st.integers(1, 12), st.booleans()),
    st.builds(Relation.cells, st.integers(1, 12), st.integers(1, 12)),
    st.builds(Relation.nearest, st.integers(1, 12), st.integers(1, 12)),
    st.builds(Relation.linear, st.integers(1, 12), st.integers(1, 12), align_corners=st.booleans()),
    st.builds(Relation.everything, st.integers(1, 12), st.integers(1, 4)),
    st.builds(Relation.identity, st.integers(1, 12)),
    st.builds(
        lambda axis, n, border: None if windows(axis, n, False) is None else Relation.window(axis, n, border=border),
        axes, st.integers(1, 12), st.sampled_from(list(BORDERS)),
    ),
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(relation=relations, data=st.data())
def test_sets_are_those_of_the_single_reads(relation: Relation | None, data: st.DataObject) -> None:
    if relation is None:
        return
    outputs = data.draw(st.integers(0, 2**relation.outputs - 1))
    wanted = {i for o in range(relation.outputs) if outputs >> o & 1 for i in relation.reads(o)}
    found = relation.back(outputs)
    assert {i for i in range(relation.inputs) if found >> i & 1} == wanted
    assert found < 2**relation.inputs


@settings(deadline=None, max_examples=150)
@given(axis=axes, size=st.integers(4, 9), border=st.sampled_from(list(BORDERS)))
def test_borders_find_what_torch_pads_with(axis: Axis, size: int, border: str) -> None:
    if windows(axis, size, False) is None:
        return
    relation = Relation.window(axis, size, border=border)
    padded = functional.pad(torch.arange(1.0, size + 1)[None, None], (axis.before, axis.after), BORDERS[border])[0, 0]
    for o in range(relation.outputs):
        found = {int(padded[o * axis.stride + t * axis.dilation]) for t in range(axis.kernel)} - {0}
        assert {i + 1 for i in relation.reads(o)} == found


@pytest.mark.parametrize("inputs", range(1, 8))
@pytest.mark.parametrize("outputs", [*range(1, 10), 16])
def test_sampling_reads_where_torch_carries_an_impulse(inputs: int, outputs: int) -> None:
    eye = torch.eye(inputs, dtype=torch.float64)[:, None]
    cases = {
        "nearest": (functional.interpolate(eye, outputs, mode="nearest-exact"), None),
        "linear": (functional.interpolate(eye, outputs, mode="linear"), Relation.linear(inputs, outputs)),
        "corners": (
            functional.interpolate(eye, outputs, mode="linear", align_corners=True),
            Relation.linear(inputs, outputs, align_corners=True),
        ),
        "cells": (functional.adaptive_avg_pool1d(eye, outputs), Relation.cells(inputs, outputs)),
    }
    if outputs % inputs == 0:
        cases["whole"] = (functional.interpolate(eye, outputs), Relation.nearest(inputs, outputs))
    for reached, relation in cases.values():
        if relation is not None:
            found = [{i for i in range(inputs) if reached[i, 0, o] > 1e-12} for o in range(outputs)]
            assert [set(relation.reads(o)) for o in range(outputs)] == found


def test_no_window_is_too_long_to_be_written() -> None:
    relation = Relation.window(Axis(999_999_999, before=499_999_999, after=499_999_999), 32)
    assert relation.back(1) == 2**32 - 1
    assert Relation.window(Axis(2, stride=10**8), 1, transposed=True).reads(1) == (0,)


def test_a_window_meets_a_border_where_it_reads_beyond() -> None:
    relation = Relation.window(Axis(3, before=1, after=1), 5)
    assert [relation.leaves(1 << o) for o in range(5)] == [True, False, False, False, True]
    assert not Relation.window(Axis(3), 5).leaves(0b111)
    assert not Relation.everything(5).leaves(1)


def test_the_axes_of_a_window() -> None:
    window = Geometry.window(2, (3, 1), stride=(2, 1), padding=(1, 0))
    assert of_window(window, (7, 4)) == (Relation(7, 4, (range(-1, 2),), 2), Relation(4, 4))
