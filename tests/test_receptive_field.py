"""Receptive fields: the algebra against published tables, the exact sets against paths and impulses."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from striate.errors import GeometryError
from striate.geometry import Axis
from striate.receptive_field import ReceptiveField, read_by, receptive_field
from striate.relations import Relation
from striate.taps import taps

few = settings(deadline=None, max_examples=40)
rows = st.integers(0, 3)
axes = st.builds(
    Axis, kernel=st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 3), before=rows, after=rows
)

# --------------------------------------------------------------------------------------------------- the algebra


def same(kernel: int, stride: int = 1) -> Axis:
    return Axis(kernel, stride, before=kernel // 2, after=kernel // 2)


POOL, OVERLAPPING_POOL = Axis(2, stride=2), Axis(3, stride=2)
HALVED = Axis(3, stride=2, before=0, after=1)  # TensorFlow's "SAME" on an even input
ALEXNET = [Axis(11, stride=4), OVERLAPPING_POOL, same(5), OVERLAPPING_POOL, *[same(3)] * 3, OVERLAPPING_POOL]
VGG16 = [axis for convolutions in (2, 2, 3, 3, 3) for axis in (*[same(3)] * convolutions, POOL)]
MOBILENET = [HALVED, *[same(3), HALVED] * 3, *[same(3)] * 5, HALVED, same(3)]
RESNET50 = [same(7, 2), HALVED, *(same(3, s) for s in (1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1))]

# Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019, table of the
# TF-Slim networks: receptive field, effective stride, effective padding (what lies before the first input).
PUBLISHED = [
    pytest.param(ALEXNET, 195, 32, 64, id="AlexNet v2"),
    pytest.param(VGG16, 212, 32, 90, id="VGG-16"),
    pytest.param(MOBILENET, 315, 32, 126, id="MobileNet v1"),
    pytest.param(RESNET50, 483, 32, 239, id="ResNet-50 v1"),
]


@pytest.mark.parametrize(("stack", "size", "jump", "padding"), PUBLISHED)
def test_published_networks(stack: list[Axis], size: int, jump: int, padding: int) -> None:
    assert receptive_field(stack) == ReceptiveField(size, jump, -padding)


STACKS = [
    ([], ReceptiveField(1, 1, 0), 0.0),
    ([Axis(3)], ReceptiveField(3, 1, 0), 1.0),
    ([same(3)], ReceptiveField(3, 1, -1), 0.0),
    ([Axis(3), Axis(3), Axis(3)], ReceptiveField(7, 1, 0), 3.0),
    ([Axis(3, dilation=4)], ReceptiveField(9, 1, 0), 4.0),
    ([Axis(2, stride=2), Axis(2, stride=2)], ReceptiveField(4, 4, 0), 1.5),
    ([same(7, 2), same(3, 2)], ReceptiveField(11, 4, -5), 0.0),
    ([Axis(1, stride=2), Axis(3)], ReceptiveField(5, 2, 0), 2.0),
]


@pytest.mark.parametrize(("stack", "field", "centre"), STACKS)
def test_stacks(stack: list[Axis], field: ReceptiveField, centre: float) -> None:
    assert receptive_field(stack) == field
    assert field.centre == centre


# ------------------------------------------------------------------------------------------------ the exact sets

Stack = list[tuple[Axis, bool]]  # each window, and whether it is transposed
stacks = st.lists(st.tuples(axes, st.booleans()), min_size=1, max_size=3)


def through(stack: Stack, size: int) -> tuple[list[int], Stack]:
    """What each position reads after as many windows of a stack as fit, and these windows."""
    relations, fitting, outputs = [], [], size
    with suppress(GeometryError):
        for axis, transposed in stack:
            relations.append(Relation.window(axis, outputs, transposed=transposed))
            fitting.append((axis, transposed))
            outputs = relations[-1].outputs
    return [read_by(1 << o, relations) for o in range(outputs)], fitting


def bits(positions: int) -> set[int]:
    return {i for i in range(positions.bit_length()) if positions >> i & 1}


def width(positions: int) -> int:
    return max(bits(positions)) - min(bits(positions)) + 1 if positions else 0


@few
@given(stack=stacks, size=st.integers(1, 16))
def test_the_sets_are_those_of_all_paths_through_the_taps(stack: Stack, size: int) -> None:
    reads, fitting = through(stack, size)
    paths = {i: {i} for i in range(size)}
    for axis, transposed in fitting:
        outputs = axis.transposed_size(len(paths)) if transposed else axis.output_size(len(paths))
        after: dict[int, set[int]] = {o: set() for o in range(outputs)}
        for o, _, i in taps(axis, outputs if transposed else len(paths)):
            target, origin = (i, o) if transposed else (o, i)
            after[target] |= paths[origin]
        paths = after
    assert [bits(positions) for positions in reads] == list(paths.values())


@few
@given(stack=stacks, size=st.integers(1, 16))
def test_the_sets_are_where_torch_carries_an_impulse(stack: Stack, size: int) -> None:
    reads, fitting = through(stack, size)
    signal = torch.eye(size, dtype=torch.float64)[:, None]  # one impulse for each input position
    for axis, transposed in fitting:
        ones = torch.ones(1, 1, axis.kernel, dtype=torch.float64)
        if transposed:
            written = functional.conv_transpose1d(signal, ones, stride=axis.stride, dilation=axis.dilation)
            signal = functional.pad(written, (-axis.before, -axis.after))
        else:
            padded = functional.pad(signal, (axis.before, axis.after))
            signal = functional.conv1d(padded, ones, stride=axis.stride, dilation=axis.dilation)
    reached = (signal[:, 0] > 0).T.tolist()
    assert [[bool(positions >> i & 1) for i in range(size)] for positions in reads] == reached


@few
@given(stack=st.lists(axes, min_size=1, max_size=3), size=st.integers(20, 60))
def test_the_algebra_is_exact_where_no_padding_is_seen(stack: list[Axis], size: int) -> None:
    reads, fitting = through([(axis, False) for axis in stack], size)
    field = receptive_field(axis for axis, _ in fitting)
    for o, positions in enumerate(reads):
        first = field.offset + o * field.jump
        last = first + field.size - 1
        if first >= 0 and last < size:
            assert (min(bits(positions)), max(bits(positions))) == (first, last)
        else:
            assert bits(positions) <= set(range(first, last + 1))


# Worked out by hand: what one axis reads after a stack.
#   span: first to last position seen by one output;  coverage: positions read and spanned by the output that
#   reads most;  ever: positions that any output reads
READS = [
    pytest.param(5, [], 1, (1, 1), 5, id="the input itself"),
    pytest.param(5, [Axis(3)], 3, (3, 3), 5, id="one window of three"),
    pytest.param(9, [Axis(3, dilation=2)] * 2, 9, (5, 9), 5, id="two of dilation 2: five of nine"),
    pytest.param(9, [Axis(1, stride=3)], 1, (1, 1), 3, id="a stride wider than the kernel"),
    pytest.param(6, [Axis(3, stride=2)], 3, (3, 3), 5, id="a row behind the last window"),
    pytest.param(4, [same(3)] * 5, 4, (4, 4), 4, id="a field wider than the input"),
    pytest.param(4, [Axis(3, dilation=3, before=3, after=3)], 4, (2, 4), 4, id="borders that see less"),
]


@pytest.mark.parametrize(("size", "stack", "span", "coverage", "ever"), READS)
def test_what_is_read(size: int, stack: list[Axis], span: int, coverage: tuple[int, int], ever: int) -> None:
    reads, _ = through([(axis, False) for axis in stack], size)
    most = max(reads, key=int.bit_count)
    assert max(width(positions) for positions in reads) == span
    assert (most.bit_count(), width(most)) == coverage
    assert len(set().union(*map(bits, reads))) == ever


def test_everything_reads_what_any_position_reads() -> None:
    chain = [Relation.window(Axis(1, stride=4), 9), Relation.everything(3)]
    assert read_by(1, chain) == read_by(0b111, chain[:1]) == 0b100010001


def test_a_position_that_reads_nothing_has_an_empty_set() -> None:
    """A transposed window of kernel 1 and stride 2 leaves every second position unwritten."""
    reads, _ = through([(Axis(1, stride=2), True)], 3)
    assert reads == [0b001, 0, 0b010, 0, 0b100]
