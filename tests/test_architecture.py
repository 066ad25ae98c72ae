"""A network on paper: what is left open and how it is filled, who may overwrite what, and every message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from striate import avg_pool, max_pool
from striate.analysis import describe
from striate.architecture import DEFAULTS, Architecture, Node
from striate.errors import GeometryError, OptionError, UnknownNameError
from striate.notation import format, parse
from striate.operations import (
    FC,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Input,
    Operation,
    Pool,
    ReLU,
    Sigmoid,
    Tanh,
)
from striate.spelling import options

OPEN = "INPUT -> [CONV -> RELU]*2 -> FC -> FC -> FC"

# ------------------------------------------------------------------------------------------------------ what is open

LEFT_OPEN = [
    ("INPUT", ("input",)),
    ("INPUT 3x8x8", ()),
    ("INPUT -> FC", ("input", "classes")),
    ("INPUT 3x8x8 -> FC -> FC 10", ("hidden",)),
    ("INPUT 3x8x8 -> FC 5 -> FC", ("classes",)),
    ("INPUT 3x8x8 -> FC -> RELU", ("classes",)),
    ("INPUT 3x8x8 -> CONV -> CONV3-8 -> FC 2", ("filters",)),
    ("INPUT 3x8x8 -> POOL -> BN -> DROPOUT -> AVGPOOL", ()),
    (OPEN, ("input", "filters", "hidden", "classes")),
]


@pytest.mark.parametrize(("text", "names"), LEFT_OPEN)
def test_open_names_the_variables_that_a_text_leaves(text: str, names: tuple[str, ...]) -> None:
    assert parse(text).open == names


BOUND: list[tuple[str, dict[str, Any], str]] = [
    (OPEN, {}, OPEN),
    (OPEN, {"input": (1, 9)}, "INPUT 1x9 -> [CONV -> RELU]*2 -> FC -> FC -> FC"),
    (OPEN, {"input": [3, 8, 8]}, "INPUT 3x8x8 -> [CONV -> RELU]*2 -> FC -> FC -> FC"),
    (OPEN, {"input": torch.Size([1, 9])}, "INPUT 1x9 -> [CONV -> RELU]*2 -> FC -> FC -> FC"),
    (OPEN, {"filters": 7}, "INPUT -> [CONV3-7 -> RELU]*2 -> FC -> FC -> FC"),
    (OPEN, {"hidden": 7}, "INPUT -> [CONV -> RELU]*2 -> FC 7 -> FC 7 -> FC"),
    (OPEN, {"classes": 7}, "INPUT -> [CONV -> RELU]*2 -> FC -> FC -> FC 7"),
    (OPEN, {"hidden": None, "classes": 7}, "INPUT -> [CONV -> RELU]*2 -> FC -> FC -> FC 7"),
    (
        OPEN,
        {"input": (1, 9), "filters": 2, "hidden": 3, "classes": 4},
        "INPUT 1x9 -> [CONV3-2 -> RELU]*2 -> FC 3 -> FC 3 -> FC 4",
    ),
    ("INPUT 1x9 -> FC 4", {"input": (1, 9), "classes": 4}, "INPUT 1x9 -> FC 4"),
    ("INPUT 1x9 -> CONV3-5 -> CONV kernel=5 bias=no", {"filters": 8}, "INPUT 1x9 -> CONV3-5 -> CONV5-8 bias=no"),
    ("INPUT -> FC 5 -> FC -> RELU", {"classes": 3}, "INPUT -> FC 5 -> FC 3 -> RELU"),
]


@pytest.mark.parametrize(("text", "values", "filled"), BOUND)
def test_bind_fills_what_is_open_and_nothing_else(text: str, values: dict[str, Any], filled: str) -> None:
    architecture = parse(text)
    before = format(architecture)
    assert architecture.bind(**values) == parse(filled)
    assert format(architecture) == before


def test_binding_in_steps_is_binding_at_once() -> None:
    architecture = parse(OPEN)
    stepwise = architecture.bind(classes=4).bind(filters=2).bind(input=(1, 9)).bind(hidden=3)
    assert stepwise == architecture.bind(input=(1, 9), filters=2, hidden=3, classes=4)
    assert stepwise.open == ()


def test_the_defaults_fill_everything() -> None:
    assert DEFAULTS == {"input": (3, 32, 32), "filters": 32, "hidden": 128, "classes": 10}
    filled = parse(OPEN).bind(**DEFAULTS)
    assert filled == parse("INPUT 3x32x32 -> [CONV3-32 -> RELU]*2 -> FC 128 -> FC 128 -> FC 10")


def test_whole_numbers_of_other_kinds_are_taken_as_int() -> None:
    nine: Any = numpy.uint8(9)
    four: Any = numpy.int64(4)
    bound = parse("INPUT -> FC").bind(input=(1, nine), classes=four)
    assert bound == parse("INPUT 1x9 -> FC 4")
    assert (type(bound.classes), format(bound)) == (int, "INPUT 1x9 -> FC 4")


REFUSED_VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("INPUT -> FC", {"classes": 0}, "classes=0: every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"classes": -1}, "classes=-1: every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"classes": 2.0}, "classes=2.0: every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"classes": "3"}, "classes='3': every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"classes": True}, "classes=True: every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"classes": (3, 4)}, "classes=(3, 4) must be one number."),
    ("INPUT -> CONV", {"filters": [8]}, "filters=[8] must be one number."),
    ("INPUT -> CONV", {"filters": ()}, "filters=() must be one number."),
    ("INPUT -> FC", {"input": (3, 0, 8)}, "input=(3, 0, 8): every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"input": (3, 8.0)}, "input=(3, 8.0): every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"input": "3x8"}, "input='3x8': every number must be a whole number of at least 1."),
    ("INPUT -> FC", {"input": 8}, "input=8 must be (channels, *spatial), as in (3, 32, 32)."),
    ("INPUT -> FC", {"input": (8,)}, "input=(8,) must be (channels, *spatial), as in (3, 32, 32)."),
    ("INPUT -> FC", {"input": ()}, "input=() must be (channels, *spatial), as in (3, 32, 32)."),
    (
        "INPUT 1x9 -> FC",
        {"input": (1, 8)},
        "input=(1, 8) was given, but this network leaves no input open: it says (1, 9).",
    ),
    ("INPUT -> FC 4", {"classes": 5}, "classes=5 was given, but this network leaves no classes open: it says 4."),
    ("INPUT -> CONV", {"classes": 5}, "classes=5 was given, but this network leaves no classes open."),
    ("INPUT -> FC", {"hidden": 5}, "hidden=5 was given, but this network leaves no hidden open."),
    ("INPUT -> CONV3-8", {"filters": 8}, "filters=8 was given, but this network leaves no filters open."),
]


@pytest.mark.parametrize(("text", "values", "message"), REFUSED_VALUES)
def test_a_value_that_does_not_fit_is_refused(text: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(text).bind(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize("operation", [Conv(), FC()])
def test_an_open_number_has_no_shape_and_no_cost(operation: Operation) -> None:
    for method in (operation.output_shape, operation.parameters, operation.multiply_adds):
        with pytest.raises(OptionError) as caught:
            method((3, 8, 8))
        assert str(caught.value) == (
            "the network still leaves numbers open; bind them first, as in bind(filters=32, classes=10)."
        )


# -------------------------------------------------------------------------------------------------- facts of a graph


def test_input_shape_and_classes() -> None:
    network = parse("INPUT 3x8x8 -> FC 5 -> FC 2 -> RELU")
    assert (network.input_shape, network.classes) == ((3, 8, 8), 2)
    assert (parse(OPEN).input_shape, parse(OPEN).classes) == (None, None)
    assert parse("INPUT 3x8x8 -> CONV3-5").classes is None
    assert Architecture((Node("relu1", ReLU()),)).input_shape is None


def test_an_architecture_is_a_frozen_value() -> None:
    first, second = parse("INPUT -> FC"), parse("input\n->\nfc")
    assert first == second  # where the words stood is no part of the network
    assert hash(first) == hash(second)
    assert list(first) == list(first.nodes)
    for value, name in ((first, "nodes"), (first.nodes[0], "name"), (Conv(), "kernel")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


ADAPTED = [
    ("INPUT 3x8x8 -> CONV3-4 -> FC 5 -> FC 10", "INPUT 1x9x9 -> CONV3-4 -> FC 5 -> FC 2"),
    ("INPUT -> FC -> RELU", "INPUT 1x9x9 -> FC 2 -> RELU"),
    ("INPUT 3x8x8 -> FC 10 bias=no", "INPUT 1x9x9 -> FC 2 bias=no"),
    ("INPUT 3x8x8 -> CONV3-10", "INPUT 1x9x9 -> CONV3-10"),
]


@pytest.mark.parametrize(("text", "changed"), ADAPTED)
def test_adapted_changes_the_input_and_the_last_fully_connected_layer(text: str, changed: str) -> None:
    assert parse(text).adapted((1, 9, 9), 2) == parse(changed)
    assert [(n.line, n.column) for n in parse(text).adapted((1, 9, 9), 2)] == [(n.line, n.column) for n in parse(text)]


REFUSED_ADAPTIONS: list[tuple[Any, Any, str]] = [
    ((1, 9, 9), 0, "classes=0: every number must be a whole number of at least 1."),
    ((1, 9, 9), -3, "classes=-3: every number must be a whole number of at least 1."),
    ((1, 9, 9), "ten", "classes='ten': every number must be a whole number of at least 1."),
    ((1, 9, 9), (3, 4), "classes=(3, 4) must be one number."),
    ((1, 0, 9), 2, "input=(1, 0, 9): every number must be a whole number of at least 1."),
    ((9,), 2, "input=(9,) must be (channels, *spatial), as in (3, 32, 32)."),
    (9, 2, "input=9 must be (channels, *spatial), as in (3, 32, 32)."),
]


@pytest.mark.parametrize(("shape", "classes", "message"), REFUSED_ADAPTIONS)
def test_adapted_refuses_what_bind_refuses(shape: Any, classes: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse("INPUT 3x8x8 -> FC 10").adapted(shape, classes)
    assert str(caught.value) == message


# ------------------------------------------------------------------------------------------------- who overwrites what

# The backward pass of tanh, sigmoid and ReLU needs their own output; of convolution, pooling, batch norm and fully
# connected layers only the input. Dropout, when it drops nothing, hands on its input: the very same memory.
OVERWRITING = [
    ("INPUT -> RELU -> FC", []),
    ("INPUT -> CONV -> RELU", ["relu1"]),
    ("INPUT -> FC -> RELU", ["relu1"]),
    ("INPUT -> BN -> RELU", ["relu1"]),
    ("INPUT -> POOL -> RELU", ["relu1"]),
    ("INPUT -> AVGPOOL -> RELU", ["relu1"]),
    ("INPUT -> TANH -> RELU", []),
    ("INPUT -> SIGMOID -> RELU", []),
    ("INPUT -> DROPOUT -> RELU", []),
    ("INPUT -> CONV -> DROPOUT -> RELU", []),
    ("INPUT -> TANH -> DROPOUT -> RELU", []),
    ("INPUT -> CONV -> RELU -> RELU", ["relu1"]),
    ("INPUT -> [CONV -> BN -> RELU]*2 -> FC -> RELU", ["relu1", "relu2", "relu3"]),
    ("INPUT -> CONV -> TANH -> SIGMOID -> BN -> POOL -> DROPOUT", []),
]


@pytest.mark.parametrize(("text", "names"), OVERWRITING)
def test_relu_overwrites_its_input_where_nobody_needs_it(text: str, names: list[str]) -> None:
    network = parse(text)
    assert sorted(network.overwriting()) == names


def graph(*nodes: tuple[str, Operation, tuple[str, ...]]) -> Architecture:
    return Architecture(tuple(Node(*node) for node in nodes))


def test_what_two_nodes_read_is_not_overwritten() -> None:
    base = [("input", Input((1, 4)), ()), ("conv1", Conv(3, 2), ("input",))]
    relu, fc = ("relu1", ReLU(), ("conv1",)), ("fc1", FC(2), ("conv1",))
    assert graph(*base, relu).overwriting() == {"relu1"}
    assert graph(*base, relu, fc).overwriting() == frozenset()
    assert graph(*base, fc, relu).overwriting() == frozenset()
    assert graph(*base, relu, ("relu2", ReLU(), ("conv1",))).overwriting() == frozenset()


def test_a_node_without_input_overwrites_nothing() -> None:
    assert graph(("relu1", ReLU(), ())).overwriting() == frozenset()


# --------------------------------------------------------------------------------------------------------- operations

# Operation, input shape, output shape, parameters, multiply-adds; every number by hand.
WORKED: list[tuple[Operation, tuple[int, ...], tuple[int, ...], int, int]] = [
    (Conv(3, 4), (2, 5, 6), (4, 5, 6), 4 * 2 * 9 + 4, 30 * 4 * 2 * 9),
    (Conv((3, 1), 4, padding="valid", bias=False), (2, 5, 6), (4, 3, 6), 4 * 2 * 3, 18 * 4 * 2 * 3),
    (Conv(3, 4, stride=2, padding="same"), (2, 5, 6), (4, 3, 3), 4 * 2 * 9 + 4, 9 * 4 * 2 * 9),
    (Conv(3, 4, stride=(1, 2), padding=0, dilation=2, groups=2), (2, 6, 6), (4, 2, 1), 4 * 9 + 4, 2 * 4 * 9),
    (Conv(2, 3, padding=((0, 1),)), (1, 7), (3, 7), 3 * 2 + 3, 7 * 3 * 2),
    (Conv(2, 3, padding=0), (1, 3, 3, 3), (3, 2, 2, 2), 3 * 8 + 3, 8 * 3 * 8),
    (Pool(), (3, 7, 8), (3, 3, 4), 0, 0),
    (Pool(3, 2, 1), (3, 7, 8), (3, 4, 4), 0, 0),
    (Pool((1, 4)), (3, 7, 8), (3, 7, 2), 0, 0),
    (AvgPool(3, 1, "same"), (3, 7, 8), (3, 7, 8), 0, 0),
    (FC(10), (3, 4, 5), (10,), 10 * 61, 10 * 60),
    (FC(10, bias=False), (60,), (10,), 600, 600),
    (ReLU(), (3, 4, 5), (3, 4, 5), 0, 0),
    (Tanh(), (7,), (7,), 0, 0),
    (Sigmoid(), (3, 4), (3, 4), 0, 0),
    (BatchNorm(), (3, 4, 5), (3, 4, 5), 6, 0),
    (BatchNorm(), (7,), (7,), 14, 0),
    (Dropout(0.1), (3, 4, 5), (3, 4, 5), 0, 0),
    (Input((3, 4)), (3, 4), (3, 4), 0, 0),
]


@pytest.mark.parametrize(
    ("operation", "shape", "output", "parameters", "macs"), WORKED, ids=lambda value: str(value)[:40]
)
def test_an_operation_by_hand(
    operation: Operation, shape: tuple[int, ...], output: tuple[int, ...], parameters: int, macs: int
) -> None:
    assert operation.output_shape(shape) == output
    assert operation.parameters(shape) == parameters
    assert operation.multiply_adds(shape) == macs


def test_options_are_the_settings_that_differ_from_the_default() -> None:
    assert options(Conv()) == {}
    assert options(Conv(3, 8, padding="same")) == {"filters": 8}
    assert options(Conv((3, 3), bias=False, groups=2)) == {"kernel": (3, 3), "bias": False, "groups": 2}
    assert options(Dropout(0.5)) == options(ReLU()) == {}


# ----------------------------------------------------------------------------------------------------------- messages

rows = st.integers(0, 4)
paddings = rows | st.sampled_from(["valid", "same", "same_lower", "full", "causal"]) | st.tuples(st.tuples(rows, rows))


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the sentence of its :class:`GeometryError` without the place in front of it."""
    try:
        return call()
    except GeometryError as error:
        return str(error).rpartition(": ")[2] if "spans" in str(error) else str(error)


@pytest.mark.parametrize(("kind", "pool"), [(Pool, max_pool), (AvgPool, avg_pool)])
@settings(deadline=None, max_examples=150)
@given(kernel=st.integers(1, 4), stride=st.none() | st.integers(1, 4), padding=paddings, size=st.integers(1, 7))
@example(kernel=2, stride=None, padding=2, size=4)  # the first window reads padding only
@example(kernel=2, stride=3, padding=((0, 4),), size=5)  # the last one does
@example(kernel=1, stride=2, padding=1, size=1)  # all do
@example(kernel=3, stride=None, padding=0, size=2)  # there is none
def test_a_pooling_on_paper_agrees_with_the_pooling_itself(
    kind: type[Pool], pool: Callable[..., Any], kernel: int, stride: int | None, padding: Any, size: int
) -> None:
    x = torch.zeros(1, 1, size)
    computed = outcome(lambda: tuple(pool(x, kernel, stride=stride, padding=padding).shape[1:]))
    on_paper = outcome(lambda: kind(kernel, stride, padding).output_shape((1, size)))
    padding_only = isinstance(on_paper, str) and "would read only padding" in on_paper
    assert computed == (f"{pool.__name__} over spatial size ({size},): {on_paper}" if padding_only else on_paper)


def test_the_message_of_a_pooling_window_over_padding_only() -> None:
    with pytest.raises(GeometryError) as caught:
        Pool(2, padding=(0, 2)).output_shape((1, 4, 4))
    assert str(caught.value) == (
        "On spatial axis 1: the window at output 0 would read only padding (size=4, Axis(kernel=2, stride=2, "
        "dilation=1, before=2, after=2, period=1)); give less padding or a larger input."
    )


@pytest.mark.parametrize("operation", [Conv(3, 4), Pool(), AvgPool()])
def test_a_window_needs_spatial_axes(operation: Operation) -> None:
    with pytest.raises(GeometryError) as caught:
        operation.output_shape((10,))
    assert str(caught.value) == (
        f"{operation.word} slides over spatial axes, but its input (10,) has none left; put it before any FC."
    )


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse("INPUT 1x4x4 -> CONV3-2 -> FC 3")["conv2"]
    assert str(caught.value) == "No layer is called 'conv2'. Did you mean 'conv1'? Known: conv1, fc1, input."
    with pytest.raises(UnknownNameError) as caught:
        describe("INPUT 1x4x4 -> FC 3")["conv1"]
    assert str(caught.value) == "No layer is called 'conv1'. Known: fc1, input."
