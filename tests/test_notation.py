"""The notation: texts and what they mean, the way back, every message with its caret, and hostile texts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from striate.analysis import describe
from striate.architecture import (
    FC,
    OPERATIONS,
    Architecture,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Input,
    Node,
    Operation,
    Pool,
    ReLU,
    Sigmoid,
    Tanh,
)
from striate.errors import NotationError
from striate.notation import format, layer_text, parse

IMAGE = Input((3, 32, 32))


def chain(*operations: Operation) -> Architecture:
    """A chain of operations under the names that a text gives: the word and its running number."""
    nodes: list[Node] = []
    for number, operation in enumerate(operations):
        before = sum(other.word == operation.word for other in operations[:number])
        name = operation.word.lower() + ("" if isinstance(operation, Input) else str(before + 1))
        nodes.append(Node(name, operation, (nodes[-1].name,) if nodes else ()))
    return Architecture(tuple(nodes))


# ------------------------------------------------------------------------------------------------ what texts mean

LAYERS: list[tuple[str, Operation]] = [
    ("CONV", Conv(kernel=3, filters=None, stride=1, padding="same", dilation=1, groups=1, bias=True)),
    ("CONV3-64", Conv(3, 64)),
    ("CONV 3-64", Conv(3, 64)),
    ("CONV 3x3x64", Conv((3, 3), 64)),
    ("CONV3x3x64", Conv((3, 3), 64)),
    ("CONV 7x64", Conv((7,), 64)),
    ("CONV 1x7x3x64", Conv((1, 7, 3), 64)),
    ("CONV kernel=5", Conv(5)),
    ("CONV kernel=5x3", Conv((5, 3))),
    ("CONV3-8 stride=2", Conv(3, 8, stride=2)),
    ("CONV3-8 stride=2x1", Conv(3, 8, stride=(2, 1))),
    ("CONV3-8 dilation=4", Conv(3, 8, dilation=4)),
    ("CONV3-8 dilation=1x2x3", Conv(3, 8, dilation=(1, 2, 3))),
    ("CONV3-8 groups=8", Conv(3, 8, groups=8)),
    ("CONV3-8 bias=no", Conv(3, 8, bias=False)),
    ("CONV3-8 bias=yes", Conv(3, 8)),
    ("CONV3-8 padding=0", Conv(3, 8, padding=0)),
    ("CONV3-8 padding=2", Conv(3, 8, padding=2)),
    ("CONV3-8 padding=1x2", Conv(3, 8, padding=(1, 2))),
    ("CONV3-8 padding=0:1", Conv(3, 8, padding=((0, 1),))),
    ("CONV3-8 padding=0:1x2", Conv(3, 8, padding=((0, 1), 2))),
    ("CONV3-8 padding=0:1x2:3", Conv(3, 8, padding=((0, 1), (2, 3)))),
    ("CONV3-8 padding=valid", Conv(3, 8, padding="valid")),
    ("CONV3-8 padding=same", Conv(3, 8)),
    ("CONV3-8 padding=same_lower", Conv(3, 8, padding="same_lower")),
    ("CONV3-8 padding=full", Conv(3, 8, padding="full")),
    ("CONV3-8 padding=causal", Conv(3, 8, padding="causal")),
    ("CONV stride=2 padding=1 dilation=3 groups=2 bias=no", Conv(3, None, 2, 1, 3, 2, False)),
    ("POOL", Pool(kernel=2, stride=None, padding=0)),
    ("POOL2", Pool(2)),
    ("POOL 3", Pool(3)),
    ("POOL 3x2", Pool((3, 2))),
    ("POOL kernel=3", Pool(3)),
    ("POOL 3 stride=2 padding=1", Pool(3, 2, 1)),
    ("POOL 3 padding=same", Pool(3, padding="same")),
    ("AVGPOOL", AvgPool(2)),
    ("AVGPOOL7", AvgPool(7)),
    ("AVGPOOL 7x1 stride=1", AvgPool((7, 1), 1)),
    ("FC", FC(features=None, bias=True)),
    ("FC 10", FC(10)),
    ("FC10", FC(10)),
    ("FC 10 bias=no", FC(10, bias=False)),
    ("RELU", ReLU()),
    ("TANH", Tanh()),
    ("SIGMOID", Sigmoid()),
    ("BN", BatchNorm()),
    ("DROPOUT", Dropout(0.5)),
    ("DROPOUT 0.25", Dropout(0.25)),
    ("DROPOUT 0", Dropout(0.0)),
    ("DROPOUT 0.00001", Dropout(1e-5)),
]


@pytest.mark.parametrize(("written", "operation"), LAYERS, ids=[text for text, _ in LAYERS])
def test_a_layer(written: str, operation: Operation) -> None:
    assert parse(f"INPUT 3x32x32 -> {written}") == chain(IMAGE, operation)


@pytest.mark.parametrize(("written", "operation"), LAYERS, ids=[text for text, _ in LAYERS])
def test_a_layer_in_any_letter_case(written: str, operation: Operation) -> None:
    for spelled in (written.lower(), written.upper(), written.title(), written.swapcase()):
        assert parse(f"input 3X32x32 -> {spelled}") == chain(IMAGE, operation)


def test_every_word_stands_in_the_table() -> None:
    assert {type(operation) for _, operation in LAYERS} == set(OPERATIONS.values()) - {Input}


INPUTS = [("INPUT", None), ("INPUT 3x32x32", (3, 32, 32)), ("INPUT2x5", (2, 5)), ("INPUT 1x2x3x4x5", (1, 2, 3, 4, 5))]


@pytest.mark.parametrize(("written", "shape"), INPUTS)
def test_an_input(written: str, shape: tuple[int, ...] | None) -> None:
    assert parse(written) == chain(Input(shape))


TEXTS = [
    ("INPUT->FC", [Input(), FC()]),
    ("INPUT → FC", [Input(), FC()]),
    ("INPUT\n-> FC\n", [Input(), FC()]),
    ("INPUT ->\r\n\tFC\r\n", [Input(), FC()]),
    ("# a title\nINPUT -> # the pictures\n FC # 10 classes", [Input(), FC()]),
    ("INPUT #-> CONV\n -> FC", [Input(), FC()]),
    ("[INPUT -> FC]", [Input(), FC()]),
    ("INPUT -> [FC]", [Input(), FC()]),
    ("INPUT -> [FC]*1", [Input(), FC()]),
    ("INPUT -> [FC]*0", [Input()]),
    ("INPUT -> [FC]*00", [Input()]),
    ("INPUT -> [FC]*3", [Input(), FC(), FC(), FC()]),
    ("INPUT -> [FC] * 2", [Input(), FC(), FC()]),
    ("INPUT -> [FC -> RELU]*2 -> FC 3", [Input(), FC(), ReLU(), FC(), ReLU(), FC(3)]),
    ("INPUT -> [[FC]*2 -> RELU]*2", [Input(), FC(), FC(), ReLU(), FC(), FC(), ReLU()]),
    ("INPUT -> [[FC]*0 -> RELU]*2", [Input(), ReLU(), ReLU()]),
    ("INPUT -> [[FC -> TANH]*2 -> RELU]*0 -> BN", [Input(), BatchNorm()]),
    ("[INPUT]*0 -> INPUT -> FC", [Input(), FC()]),
    ("INPUT -> " + "[" * 50 + "FC" + "]" * 50, [Input(), FC()]),
]


@pytest.mark.parametrize(("text", "operations"), TEXTS, ids=[repr(text)[:60] for text, _ in TEXTS])
def test_a_text(text: str, operations: list[Operation]) -> None:
    assert parse(text) == chain(*operations)


def test_names_count_each_kind_and_inputs_are_the_layer_before() -> None:
    found = parse("INPUT -> [CONV -> RELU -> AVGPOOL]*2 -> POOL -> FC -> BN")
    names = ["input", "conv1", "relu1", "avgpool1", "conv2", "relu2", "avgpool2", "pool1", "fc1", "bn1"]
    assert [node.name for node in found] == names
    assert [node.inputs for node in found] == [(), *((name,) for name in names[:-1])]


def test_nodes_know_where_they_stand() -> None:
    text = "# two blocks\nINPUT 3x8x8 ->\n  [CONV3-4 ->\tRELU]*2 -> FC 2"
    places = [(node.name, node.line, node.column) for node in parse(text)]
    repeated = [(kind, line, column) for _ in range(2) for kind, line, column in (("conv", 3, 4), ("relu", 3, 15))]
    numbered = [(f"{kind}{1 + at // 2}", line, column) for at, (kind, line, column) in enumerate(repeated)]
    assert places == [("input", 2, 1), *numbered, ("fc1", 3, 26)]


# ------------------------------------------------------------------------------- the patterns of the course notes

# CS231n, "Layer patterns", verbatim. The notes' settings: filters 3x3 with stride 1 and padding that keeps the size,
# pooling 2x2 with stride 2. The picture (3x32x32) and the counts (32 filters, 128 hidden, 10 classes) are filled in.
CONV, RELU, POOL = Conv(3, None, 1, "same"), ReLU(), Pool(2)
PATTERNS: list[tuple[str, list[Operation], list[tuple[int, ...]]]] = [
    ("INPUT -> FC", [FC()], [(10,)]),
    ("INPUT -> CONV -> RELU -> FC", [CONV, RELU, FC()], [(32, 32, 32), (32, 32, 32), (10,)]),
    (
        "INPUT -> [CONV -> RELU -> POOL]*2 -> FC -> RELU -> FC",
        [CONV, RELU, POOL, CONV, RELU, POOL, FC(), RELU, FC()],
        [*[(32, 32, 32)] * 2, *[(32, 16, 16)] * 3, (32, 8, 8), (128,), (128,), (10,)],
    ),
    (
        "INPUT -> [CONV -> RELU -> CONV -> RELU -> POOL]*3 -> [FC -> RELU]*2 -> FC",
        [*[CONV, RELU, CONV, RELU, POOL] * 3, *[FC(), RELU] * 2, FC()],
        [
            *[(32, 32, 32)] * 4,
            *[(32, 16, 16)] * 5,
            *[(32, 8, 8)] * 5,
            (32, 4, 4),
            *[(128,)] * 4,
            (10,),
        ],
    ),
]


@pytest.mark.parametrize(("text", "operations", "shapes"), PATTERNS, ids=[text for text, _, _ in PATTERNS])
def test_a_pattern_of_the_course_notes(text: str, operations: list[Operation], shapes: list[tuple[int, ...]]) -> None:
    assert parse(text) == chain(Input(), *operations)
    assert [row.output_shape for row in describe(text).rows] == [(3, 32, 32), *shapes]


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("m", [0, 1, 2])
@pytest.mark.parametrize("k", [0, 2])
def test_the_general_pattern_of_the_course_notes(n: int, m: int, k: int) -> None:
    """``INPUT -> [[CONV -> RELU]*N -> POOL?]*M -> [FC -> RELU]*K -> FC`` for every count, zero too."""
    for pool in ("", " -> POOL"):
        text = f"INPUT -> [[CONV -> RELU]*{n}{pool}]*{m} -> [FC -> RELU]*{k} -> FC"
        block = [CONV, RELU] * n + [POOL] * bool(pool)
        assert parse(text) == chain(Input(), *block * m, *[FC(), RELU] * k, FC())


# ------------------------------------------------------------------------------------------------------ and back

FORMATTED = [
    ("input->conv->pool->avgpool->fc", "INPUT -> CONV -> POOL -> AVGPOOL -> FC"),
    ("INPUT 1x2 -> [CONV 3x4 -> RELU]*2", "INPUT 1x2 -> CONV 3x4 -> RELU -> CONV 3x4 -> RELU"),
    ("INPUT -> CONV3-4 stride=1 bias=yes padding=same", "INPUT -> CONV3-4"),
    ("INPUT -> CONV kernel=3 dilation=2", "INPUT -> CONV dilation=2"),
    ("INPUT -> CONV kernel=3x5", "INPUT -> CONV kernel=3x5"),
    ("INPUT -> CONV bias=no groups=2 padding=0:1x2", "INPUT -> CONV padding=0:1x2 groups=2 bias=no"),
    ("INPUT -> POOL 3 stride=3", "INPUT -> POOL 3 stride=3"),
    ("INPUT -> POOL2 -> AVGPOOL 3X3 -> BN", "INPUT -> POOL -> AVGPOOL 3x3 -> BN"),
    ("INPUT -> DROPOUT 0.500 -> TANH -> SIGMOID", "INPUT -> DROPOUT 0.5 -> TANH -> SIGMOID"),
    ("INPUT -> DROPOUT 0.00001", "INPUT -> DROPOUT 0.00001"),
    ("INPUT -> FC 007 bias=no", "INPUT -> FC 7 bias=no"),
]


@pytest.mark.parametrize(("text", "written"), FORMATTED)
def test_format_writes_the_shortest_plain_text(text: str, written: str) -> None:
    assert format(parse(text)) == written


@pytest.mark.parametrize(("written", "operation"), LAYERS, ids=[text for text, _ in LAYERS])
def test_layer_text_is_read_back(written: str, operation: Operation) -> None:
    assert parse(f"INPUT -> {layer_text(operation)}") == chain(Input(), operation)


number = st.integers(1, 999_999_999)
several = st.lists(number, min_size=2, max_size=4).map(tuple)
per_axis = number | several
rows = st.integers(0, 999_999_999)
entry = rows | st.tuples(rows, rows)
padding = (
    st.sampled_from(["valid", "same", "same_lower", "full", "causal"])
    | rows
    | st.tuples(st.tuples(rows, rows))
    | st.lists(entry, min_size=2, max_size=4).map(tuple)
)
convolutions = st.builds(
    Conv,
    kernel=per_axis,
    filters=st.none() | number,
    stride=per_axis,
    padding=padding,
    dilation=per_axis,
    groups=number,
    bias=st.booleans(),
) | st.builds(Conv, kernel=number.map(lambda kernel: (kernel,)), filters=number)
pooling: Callable[[type[Pool]], st.SearchStrategy[Pool]] = lambda kind: st.builds(  # noqa: E731
    kind, kernel=per_axis, stride=st.none() | per_axis, padding=padding
)
operations = (
    convolutions
    | pooling(Pool)
    | pooling(AvgPool)
    | st.builds(FC, features=st.none() | number, bias=st.booleans())
    | st.builds(Dropout, p=st.floats(0, 1, exclude_max=True))
    | st.sampled_from([ReLU(), Tanh(), Sigmoid(), BatchNorm()])
)
inputs = st.builds(Input, shape=st.none() | several)
architectures = st.tuples(inputs, st.lists(operations, max_size=6)).map(lambda parts: chain(parts[0], *parts[1]))


@settings(deadline=None)
@given(architecture=architectures)
@example(architecture=chain(Input(), Dropout(1e-7), Dropout(5e-324), Dropout(1 - 2**-53)))
def test_format_and_parse_are_inverse(architecture: Architecture) -> None:
    assert parse(format(architecture)) == architecture


space = st.sampled_from([" ", "  ", "\t", "\n", "\r\n", " # [CONV]*3 -> ?!\n", " #\n\n  "])
arrow = st.sampled_from(["->", "→"])


@settings(deadline=None)
@given(architecture=architectures, data=st.data())
def test_layout_and_letter_case_mean_nothing(architecture: Architecture, data: st.DataObject) -> None:
    layers = []
    for node in architecture:
        words = layer_text(node.operation).split(" ")
        cased = [data.draw(st.sampled_from([word, word.lower(), word.upper(), word.swapcase()])) for word in words]
        layers.append("".join(word + data.draw(space) for word in cased))
    text = layers[0] + "".join(data.draw(arrow) + data.draw(space) + layer for layer in layers[1:])
    assert parse(text) == architecture


Tree = Any  # the text of a layer, or (trees, how often)
plain_layers = st.sampled_from(["CONV3-8", "RELU", "POOL 2", "FC 3"])
trees = st.recursive(plain_layers, lambda inner: st.tuples(st.lists(inner, min_size=1, max_size=3), st.integers(0, 3)))


def written_out(tree: Tree) -> list[str]:
    return [tree] if isinstance(tree, str) else [layer for part in tree[0] for layer in written_out(part)] * tree[1]


def bracketed(tree: Tree) -> str:
    return tree if isinstance(tree, str) else f"[{' -> '.join(map(bracketed, tree[0]))}]*{tree[1]}"


@settings(deadline=None)
@given(tree=trees)
def test_a_block_means_its_layers_written_out(tree: Tree) -> None:
    flat = " -> ".join(["INPUT 1x9x9", *written_out(tree)])
    assert parse(f"INPUT 1x9x9 -> {bracketed(tree)}") == parse(flat)


# ------------------------------------------------------------------------------------------------------ messages

A_LAYER = "a layer (INPUT, CONV, POOL, AVGPOOL, FC, RELU, TANH, SIGMOID, BN, DROPOUT) or '['"
KNOWN = "Known: AVGPOOL, BN, CONV, DROPOUT, FC, INPUT, POOL, RELU, SIGMOID, TANH."
AFTER_WORD = "'->' or a size such as 3x3x64 or an option such as stride=2 or the end"
AFTER_SIZE = "'->' or an option such as stride=2 or the end"
ROWS = "expected a number, before:after, one of these for each axis (1x2), or valid, same, same_lower, full, causal."

MESSAGES = [
    ("", 1, 1, f"found the end of the text, expected {A_LAYER}."),
    ("  \n ", 1, 1, f"found the end of the text, expected {A_LAYER}."),
    ("# only a comment", 1, 1, f"found the end of the text, expected {A_LAYER}."),
    ("-> FC", 1, 1, f"found '->', expected {A_LAYER}."),
    ("INPUT ->  # the end\n\n", 1, 9, f"found the end of the text, expected {A_LAYER}."),
    ("INPUT ->\n-> FC", 2, 1, f"found '->', expected {A_LAYER}."),
    ("INPUT FC", 1, 7, f"found 'FC', expected {AFTER_WORD}."),
    ("INPUT - > FC", 1, 7, f"found '-', expected {AFTER_WORD}."),
    ("INPUT => FC", 1, 7, f"found '=', expected {AFTER_WORD}."),
    ("INPUT -> FC*2", 1, 12, f"found '*', expected {AFTER_WORD}."),
    ("INPUT -> POOL?", 1, 14, f"found '?', expected {AFTER_WORD}."),
    ("INPUT -> FC -3", 1, 13, f"found '-', expected {AFTER_WORD}."),
    ("INPUT -> FC ٣", 1, 13, f"found '٣', expected {AFTER_WORD}."),
    ("INPUT -> FC 1 1", 1, 15, f"found '1', expected {AFTER_SIZE}."),
    ("INPUT -> FC 1.", 1, 14, f"found '.', expected {AFTER_SIZE}."),
    ("INPUT -> CONV3-4-5", 1, 17, f"found '-', expected {AFTER_SIZE}."),
    ("INPUT -> FC bias = no", 1, 13, f"found 'bias', expected {AFTER_WORD}."),
    ("INPUT -> CONV stride=²", 1, 22, f"found '²', expected {AFTER_SIZE}."),
    ("INPUT -> []", 1, 11, f"found ']', expected {A_LAYER}."),
    ("INPUT -> [FC", 1, 13, "found the end of the text, expected ']'."),
    ("INPUT -> FC]", 1, 12, "found ']', expected the end."),
    ("INPUT -> [FC] 2", 1, 15, "found '2', expected '->' or '*' and a number or the end."),
    ("INPUT -> [[FC] ! ]", 1, 16, "found '!', expected ']' or '->' or '*' and a number."),
    ("INPUT -> [FC]*", 1, 15, "found the end of the text, expected a number of repetitions."),
    ("INPUT -> [FC]*-1", 1, 15, "found '-', expected a number of repetitions."),
    ("INPUT -> [FC]*N", 1, 15, "found 'N', expected a number of repetitions."),
    ("INPUT -> [FC]*2.5", 1, 16, "found '.', expected '->' or the end."),
    ("INPUT -> [FC]*2x3", 1, 16, "found 'x', expected '->' or the end."),
    ("FC 10", 1, 1, "a network starts with INPUT, as in INPUT 3x32x32 -> FC 10."),
    ("\n [FC]", 2, 3, "a network starts with INPUT, as in INPUT 3x32x32 -> FC 10."),
    ("[INPUT]*0", 1, 1, "a network starts with INPUT, as in INPUT 3x32x32 -> FC 10."),
    ("INPUT -> INPUT", 1, 10, "INPUT stands only once, at the start."),
    ("[INPUT]*2", 1, 2, "INPUT stands only once, at the start."),
    ("INPUT -> CNOV", 1, 10, f"No layer is called 'CNOV'. Did you mean 'CONV'? {KNOWN}"),
    ("INPUT -> maxpool", 1, 10, f"No layer is called 'MAXPOOL'. Did you mean 'POOL'? {KNOWN}"),
    ("INPUT -> xyz", 1, 10, f"No layer is called 'XYZ'. {KNOWN}"),
    ("INPUT 3 -> FC", 1, 7, "INPUT cannot be given '3'; write INPUT 3x32x32."),
    ("INPUT 3x0x3", 1, 7, "'0' is not a whole number of at least 1."),
    ("INPUT 3x3-3", 1, 7, "INPUT cannot be given '3x3-3'; write INPUT 3x32x32."),
    ("INPUT 1x3 stride=2", 1, 11, "INPUT has no option 'stride'; it takes none."),
    ("INPUT -> CONV 3", 1, 15, "CONV cannot be given '3'; write CONV 3x3x64 or CONV3-64."),
    ("INPUT -> CONV3x3-8", 1, 14, "CONV cannot be given '3x3-8'; write CONV 3x3x64 or CONV3-64."),
    ("INPUT -> CONV3-0", 1, 14, "'0' is not a whole number of at least 1."),
    ("INPUT -> CONV0-3", 1, 14, "'0' is not a whole number of at least 1."),
    ("INPUT -> CONV 3x0x8", 1, 15, "'0' is not a whole number of at least 1."),
    ("INPUT -> POOL 1.5", 1, 15, "POOL cannot be given '1.5'; write POOL 2."),
    ("INPUT -> POOL 0", 1, 15, "'0' is not a whole number of at least 1."),
    ("INPUT -> AVGPOOL2-2", 1, 17, "AVGPOOL cannot be given '2-2'; write AVGPOOL 2."),
    ("INPUT -> FC 1x2", 1, 13, "FC cannot be given '1x2'; write FC 10."),
    ("INPUT -> FC 2.5", 1, 13, "FC cannot be given '2.5'; write FC 10."),
    ("INPUT -> FC 0", 1, 13, "'0' is not a whole number of at least 1."),
    ("INPUT -> RELU 0.1", 1, 15, "RELU cannot be given '0.1'; RELU takes no number."),
    ("INPUT -> BN 3", 1, 13, "BN cannot be given '3'; BN takes no number."),
    ("INPUT -> DROPOUT 1", 1, 18, "DROPOUT takes a probability from 0 up to but not including 1, got '1'."),
    ("INPUT -> DROPOUT 0x0", 1, 18, "DROPOUT takes a probability from 0 up to but not including 1, got '0x0'."),
    ("INPUT -> DROPOUT 0-1", 1, 18, "DROPOUT takes a probability from 0 up to but not including 1, got '0-1'."),
    ("INPUT -> DROPOUT p=0", 1, 18, "DROPOUT has no option 'p'; it takes none."),
    (
        "INPUT -> CONV strid=2",
        1,
        15,
        "CONV has no option 'strid'; it takes kernel, stride, padding, dilation, groups, bias.",
    ),
    ("INPUT -> POOL dilation=2", 1, 15, "POOL has no option 'dilation'; it takes kernel, stride, padding."),
    ("INPUT -> FC stride=2", 1, 13, "FC has no option 'stride'; it takes bias."),
    ("INPUT -> CONV stride=0", 1, 15, "stride=0: '0' is not a whole number of at least 1."),
    ("INPUT -> CONV stride=", 1, 15, "stride=: '' is not a whole number of at least 1."),
    ("INPUT -> CONV dilation=-1", 1, 15, "dilation=-1: '-1' is not a whole number of at least 1."),
    ("INPUT -> CONV kernel=3x", 1, 15, "kernel=3x: '' is not a whole number of at least 1."),
    ("INPUT -> CONV groups=2x2", 1, 15, "groups=2x2: '2x2' is not a whole number of at least 1."),
    ("INPUT -> FC bias=true", 1, 13, "bias=true: expected yes or no."),
    ("INPUT -> CONV padding=sane", 1, 15, f"padding=sane: {ROWS}"),
    ("INPUT -> CONV padding=-1", 1, 15, f"padding=-1: {ROWS}"),
    ("INPUT -> CONV padding=1:2:3", 1, 15, f"padding=1:2:3: {ROWS}"),
    ("INPUT -> CONV padding=", 1, 15, f"padding=: {ROWS}"),
    ("INPUT -> CONV padding=1x", 1, 15, f"padding=1x: {ROWS}"),
    ("INPUT -> POOL padding=:", 1, 15, f"padding=:: {ROWS}"),
    ("INPUT -> CONV stride=2 stride=2", 1, 24, "stride is given twice."),
    ("INPUT -> CONV3-8 kernel=5", 1, 18, "kernel is given twice."),
    ("INPUT -> FC 1234567890", 1, 13, "a number has at most 9 digits, this one 10."),
    (
        "INPUT -> CONV padding=1x1234567890:1",
        1,
        15,
        "padding=1x1234567890:1: a number has at most 9 digits, this one 10.",
    ),
    ("INPUT -> [FC]*1234567890", 1, 15, "a number has at most 9 digits, this one 10."),
    ("INPUT -> [FC]*10000", 1, 10, "a network has at most 10,000 layers, this one more."),
    ("INPUT -> [FC]*999999999", 1, 15, "a network has at most 10,000 layers, this one more."),
    ("INPUT -> [[FC -> RELU]*101 -> BN]*50", 1, 35, "a network has at most 10,000 layers, this one more."),
    ("INPUT ->\n" + "[" * 51 + "FC" + "]" * 51, 2, 51, "brackets stand inside each other at most 50 deep."),
]


@pytest.mark.parametrize(("text", "line", "column", "what"), MESSAGES, ids=[repr(row[0])[:50] for row in MESSAGES])
def test_a_message_and_its_caret(text: str, line: int, column: int, what: str) -> None:
    with pytest.raises(NotationError) as caught:
        parse(text)
    shown, caret = text.split("\n")[line - 1], " " * (column - 1) + "^"
    assert str(caught.value) == f"Line {line}, column {column}: {what}\n  {shown}\n  {caret}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # the user reads one error, not two


CARETS = [
    (
        "INPUT 3x32x32 -> [CONV3-8 -> RELO -> POOL]*2 -> FC 10",
        (
            f"Line 1, column 30: No layer is called 'RELO'. Did you mean 'RELU'? {KNOWN}\n"
            "  INPUT 3x32x32 -> [CONV3-8 -> RELO -> POOL]*2 -> FC 10\n"
            "                               ^"
        ),
    ),
    (
        "INPUT ->\r\nFC @\r\n",
        f"Line 2, column 4: found '@', expected {AFTER_WORD}.\n  FC @\n     ^",
    ),
    (
        "INPUT\t-> FC\t@",
        f"Line 1, column 13: found '@', expected {AFTER_WORD}.\n  INPUT\t-> FC\t@\n       \t     \t^",
    ),
    (
        "INPUT ->\x0cFC @",
        f"Line 1, column 13: found '@', expected {AFTER_WORD}.\n  INPUT ->\x0cFC @\n              ^",
    ),
]


@pytest.mark.parametrize(("text", "message"), CARETS)
def test_a_caret_stands_under_what_it_means(text: str, message: str) -> None:
    with pytest.raises(NotationError) as caught:
        parse(text)
    assert str(caught.value) == message


# --------------------------------------------------------------------------------------------- whatever is typed

TOKENS = [
    *("INPUT", "INPUT 3x8x8", "CONV", "CONV3-8", "pool 2", "AVGPOOL", "FC", "FC 3", "RELU", "BN", "DROPOUT 0.1", "x"),
    *(
        "->",
        " -> ",
        "→",
        "-> ",
        "[",
        "]",
        "]*2",
        "*",
        "*3",
        "*0",
        "*999999999",
        "-",
        "=",
        ":",
        ".",
        "?",
        "#",
        "# note\n",
    ),
    *("3", "3x3x8", "0", "1.5", "2-3", "9" * 12, "9" * 5000, "stride=2", "padding=1:2", "padding=same", "bias=no"),
    *("groups=", "kernel=0", " ", "  ", "\n", "\t", "\r\n", "\x0c", "\u2028", "ß", "ı", "٣", "²", "[" * 60, "]" * 60),
]
pieces = st.lists(st.sampled_from(TOKENS), max_size=14).map("".join)
networks = st.lists(st.sampled_from(TOKENS), max_size=8).map(lambda tokens: "INPUT -> " + " ".join(tokens))
MESSAGE = re.compile(r"Line (\d+), column (\d+): (.+)\n  (.*)\n  ([ \t]*)\^", re.DOTALL)


def read(text: str) -> tuple[Architecture | None, str]:
    """The network, or why there is none. Only a :class:`NotationError` is an answer; all else fails the test."""
    try:
        return parse(text), ""
    except NotationError as error:
        return None, str(error)


@settings(deadline=None, max_examples=300)
@given(text=pieces | networks | st.text(max_size=40) | st.text(alphabet="INPUTFCxX[]*->=#.:0159 \n\t", max_size=40))
@example(text="\ud800")
@example(text="INPUT\x00")
def test_any_text_is_read_or_refused_at_a_place_inside_it(text: str) -> None:
    found, message = read(text)
    if found is not None:
        assert parse(format(found)) == found
        return
    matched = MESSAGE.fullmatch(message)
    assert matched is not None, message
    line, column, lines = int(matched[1]), int(matched[2]), text.split("\n")
    assert 1 <= line <= len(lines)
    assert matched[4] == lines[line - 1].rstrip("\r")
    assert 1 <= column <= len(matched[4]) + 1
    assert len(matched[5]) == column - 1


HOSTILE = [
    pytest.param("INPUT -> " + "[" * 20_000 + "FC" + "]" * 20_000, id="deep brackets"),
    pytest.param("[" * 50_000, id="brackets that stay open"),
    pytest.param("INPUT -> " + "[" * 40 + "FC" + "]*9" * 40, id="a power of layers"),
    pytest.param("INPUT -> [[[FC]*99999]*99999]*0", id="a power of layers, not one of them kept"),
    pytest.param("INPUT -> " + " -> ".join(["[FC]*9999"] * 5000), id="many large blocks"),
    pytest.param("INPUT -> [FC]*" + "9" * 5000, id="repeated a number of 5,000 digits"),
    pytest.param("INPUT -> FC " + "9" * 5000, id="a number of 5,000 digits"),
    pytest.param("INPUT -> DROPOUT " + "9" * 5000, id="a probability of 5,000 digits"),
    pytest.param("INPUT 1x1" + "x" + "9" * 100_000, id="a size of 100,000 digits"),
    pytest.param("INPUT -> CONV padding=" + "9" * 5000, id="padding of 5,000 digits"),
    pytest.param("INPUT -> " + "C" * 100_000, id="a word of 100,000 letters"),
    pytest.param("INPUT" + " -> FC" * 12_000, id="12,000 layers written out"),
    pytest.param("#" * 200_000, id="a long comment"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_refused_soon(text: str) -> None:
    start = time.process_time()
    with pytest.raises(NotationError):
        parse(text)
    assert time.process_time() - start < 10


def test_the_largest_network_and_number_are_read() -> None:
    assert len(parse("INPUT -> [FC]*9999").nodes) == 10_000
    assert parse("INPUT -> FC 999999999") == chain(Input(), FC(999_999_999))
