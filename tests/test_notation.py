"""The notation: texts and what they mean, the way back, every message with its caret, and hostile texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from striate import operations as ops
from striate.analysis import describe
from striate.architecture import Architecture, Node
from striate.errors import NotationError, OptionError
from striate.notation import format, parse
from striate.operations import (
    FC,
    OPERATIONS,
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
from striate.spelling import text as layer_text

from .work import calls

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
    ("DROPOUT p=0.25", Dropout(0.25)),
    ("MAXPOOL 3", Pool(3)),
    ("POOL 3 stride=2 ceil=yes", Pool(3, 2, ceil=True)),
    ("POOL 3 dilation=2", Pool(3, dilation=2)),
    ("AVGPOOL 3 padding=1 count_padding=yes", AvgPool(3, padding=1, count_padding=True)),
    ("LPPOOL 2 p=1.5", ops.LpPool(2, p=1.5)),
    ("GAUSSPOOL 5 sigma=1.25", ops.GaussianPool(5, sigma=1.25)),
    ("GLOBALPOOL", ops.GlobalPool()),
    ("GLOBALAVGPOOL", ops.GlobalAvgPool()),
    ("ADAPTIVEPOOL 7", ops.AdaptivePool(7)),
    ("ADAPTIVEAVGPOOL 7x5", ops.AdaptiveAvgPool((7, 5))),
    ("CONV3-8 border=reflect", Conv(3, 8, border="reflect")),
    ("DWCONV 7", ops.DepthwiseConv(7)),
    ("DWCONV 3 stride=2 multiplier=2 bias=no", ops.DepthwiseConv(3, 2, multiplier=2, bias=False)),
    ("DECONV", ops.TransposedConv()),
    ("DECONV4-8 stride=2 padding=1 output_padding=1", ops.TransposedConv(4, 8, 2, 1, 1)),
    ("UPCONV 2x2x8", ops.TransposedConv((2, 2), 8)),
    ("LOCAL3-8", ops.LocalConv(3, 8)),
    ("TILED3-8 tile=2x3", ops.TiledConv(3, 8, tile=(2, 3))),
    ("RBF 10", ops.RBF(10)),
    ("FLATTEN", ops.Flatten()),
    ("RELU6", ops.ReLU6()),
    ("LEAKYRELU 0.2", ops.LeakyReLU(0.2)),
    ("PRELU", ops.PReLU()),
    ("ELU", ops.ELU()),
    ("GELU", ops.GELU()),
    ("SILU", ops.SiLU()),
    ("SWISH", ops.SiLU()),
    ("HARDSWISH", ops.HardSwish()),
    ("HARDSIGMOID", ops.HardSigmoid()),
    ("SOFTMAX", ops.Softmax()),
    ("SCALE", ops.Scale()),
    ("SCALE start=0.000001", ops.Scale(start=1e-6)),
    ("CONV3-8 init=identity", Conv(3, 8, init="identity")),
    ("SCALE bias=no", ops.Scale(bias=False)),
    ("BN eps=0.001", BatchNorm(1e-3)),
    ("BN eps=1e-3", BatchNorm(1e-3)),
    ("LN", ops.LayerNorm()),
    ("GN 8", ops.GroupNorm(8)),
    ("IN", ops.InstanceNorm()),
    ("LRN 5 alpha=0.0005 k=2", ops.LocalResponseNorm(5, alpha=5e-4, k=2.0)),
    ("MAXOUT 3", ops.Maxout(3)),
    ("SHUFFLE 4", ops.Shuffle(4)),
    ("CHANNELS 1/2", ops.Channels(("part", (1, 2)))),
    ("CHANNELS 0,2,5", ops.Channels(("list", (0, 2, 5)))),
    ("PIXELSHUFFLE 2", ops.PixelShuffle(2)),
    ("PIXELUNSHUFFLE 2", ops.PixelUnshuffle(2)),
    ("UPSAMPLE 2", ops.Upsample(scale=2)),
    ("UPSAMPLE 4x2 mode=linear align_corners=yes", ops.Upsample("linear", True, (4, 2))),
    ("RESIZE 7x9", ops.Resize(size=(7, 9))),
    ("PAD 1:2x3", ops.Pad(((1, 2), 3))),
    ("PAD 2 border=circular", ops.Pad(2, "circular")),
    ("CROP 4", ops.Crop(4)),
    ("CROP 5:4", ops.Crop(((5, 4),))),
]
JOINS = {"SUM", "PRODUCT", "CONCAT"}


@pytest.mark.parametrize(("written", "operation"), LAYERS, ids=[text for text, _ in LAYERS])
def test_a_layer(written: str, operation: Operation) -> None:
    assert parse(f"INPUT 3x32x32 -> {written}") == chain(IMAGE, operation)


@pytest.mark.parametrize(("written", "operation"), LAYERS, ids=[text for text, _ in LAYERS])
def test_a_layer_in_any_letter_case(written: str, operation: Operation) -> None:
    for spelled in (written.lower(), written.upper(), written.title(), written.swapcase()):
        assert parse(f"input 3X32x32 -> {spelled}") == chain(IMAGE, operation)


def test_every_word_stands_in_the_table() -> None:
    assert {operation.word for _, operation in LAYERS} == set(OPERATIONS) - {"INPUT", "UNPOOL"} - JOINS


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
    ("INPUT -> [[[FC]*99999]*99999]*0", [Input()]),
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
    ("INPUT -> DROPOUT 0.500 -> TANH -> SIGMOID", "INPUT -> DROPOUT -> TANH -> SIGMOID"),
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


# ------------------------------------------------------------------------------------------------------- graphs

# A text, and its nodes with what they read.
GRAPHS = [
    ("INPUT -> SUM[CONV3-8 | IDENTITY] -> FC", "input conv1(input) sum1(conv1,input) fc1(sum1)"),
    ("INPUT -> PRODUCT[IDENTITY | IDENTITY]", "input product1(input,input)"),
    (
        "INPUT -> CONCAT[CONV1-4 | CONV3-4 -> RELU | POOL 3 stride=1]",
        "input conv1(input) conv2(input) relu1(conv2) pool1(input) concat1(conv1,relu1,pool1)",
    ),
    (
        "INPUT -> SUM[SUM[CONV1-4 | CONV3-4] -> RELU | CONV5-4]",
        "input conv1(input) conv2(input) sum1(conv1,conv2) relu1(sum1) conv3(input) sum2(relu1,conv3)",
    ),
    (
        "INPUT -> CONV3-8 as low -> POOL -> CONV3-8 -> DECONV2-8 -> CONCAT[IDENTITY | from low] -> CONV1-2",
        "input low(input) pool1(low) conv2(pool1) deconv1(conv2) concat1(deconv1,low) conv3(concat1)",
    ),
    (
        "INPUT -> CONV3-8 -> from input -> CONV1-8 -> SUM[from conv1 | IDENTITY]",
        "input conv1(input) conv2(input) sum1(conv1,conv2)",
    ),
    ("INPUT as x -> [CONV3-8 -> SUM[IDENTITY | from x]]*2", "x conv1(x) sum1(conv1,x) conv2(sum1) sum2(conv2,x)"),
    ("INPUT -> [CONV3-8 as a]*2 -> SUM[IDENTITY | from a]", "input a(input) a_2(a) sum1(a_2,a_2)"),
    ("INPUT -> SUM[CONV3-8 | IDENTITY] as s -> RELU", "input conv1(input) s(conv1,input) relu1(s)"),
    (
        "INPUT -> [CONV3-8 -> RELU] as block -> POOL -> UPSAMPLE 2 -> SUM[IDENTITY | from block]",
        "input conv1(input) relu1(conv1) pool1(relu1) upsample1(pool1) sum1(upsample1,relu1)",
    ),
    ("INPUT -> CONV3-8 as layer1.0.conv1 -> RELU", "input layer1.0.conv1(input) relu1(layer1.0.conv1)"),
    (
        "INPUT -> CONV3-8 -> AUX[POOL -> FC 3] -> RELU -> FC 3",
        "input conv1(input) pool1(conv1) fc1(pool1) relu1(conv1) fc2(relu1) : fc2 fc1",
    ),
    ("INPUT -> CONV3-8 -> [AUX[FC 3]]*0 -> FC 3", "input conv1(input) fc1(conv1)"),
    ("INPUT -> CONV3-8 -> AUX[IDENTITY]", "input conv1(input) : conv1 conv1"),
    ("INPUT -> POOL -> UNPOOL of=pool1", "input pool1(input) unpool1(pool1,pool1,input)"),
    ("INPUT -> POOL as p -> RELU -> UNPOOL of=p", "input p(input) relu1(p) unpool1(relu1,p,input)"),
    ("let A = CONV3-8 -> RELU INPUT -> A -> A", "input conv1(input) relu1(conv1) conv2(relu1) relu2(conv2)"),
    (
        "let R = SUM[CONV3-8 | IDENTITY] let S = R -> R INPUT -> S",
        "input conv1(input) sum1(conv1,input) conv2(sum1) sum2(conv2,sum1)",
    ),
]


@pytest.mark.parametrize(("written", "nodes"), GRAPHS, ids=[text for text, _ in GRAPHS])
def test_a_graph(written: str, nodes: str) -> None:
    found = parse(written)
    shown = " ".join(n.name + (f"({','.join(n.inputs)})" if n.inputs else "") for n in found)
    assert shown + (f" : {' '.join(found.outputs)}" if found.outputs else "") == nodes
    assert parse(format(found)) == found


# What a text with names means, by the text without them.
NAMED = [
    ("INPUT -> [FC]*N", {"N": 3}, "INPUT -> [FC]*3"),
    ("INPUT -> [FC]*{N-1}", {"N": 3}, "INPUT -> [FC]*2"),
    ("INPUT -> CONV k-f stride=s padding={k//2}", {"k": 5, "f": 8, "s": 2}, "INPUT -> CONV5-8 stride=2 padding=2"),
    ("INPUT -> CONV 1-{2*(f+1)%7}", {"f": 4}, "INPUT -> CONV1-3"),
    ("INPUT -> CONV {k}x{k}x{-f+9}", {"k": 3, "f": 1}, "INPUT -> CONV 3x3x8"),
    ("INPUT {c}x{n}x{n} -> FC K", {"c": 3, "n": 8, "K": 5}, "INPUT 3x8x8 -> FC 5"),
    ("INPUT -> POOL? -> FC", {"POOL": True}, "INPUT -> POOL -> FC"),
    ("INPUT -> POOL 3? -> FC", {"POOL": "no"}, "INPUT -> FC"),
    ("let N = 2 INPUT -> [FC]*N", {}, "INPUT -> FC -> FC"),
    ("let N = 2 INPUT -> [FC]*N", {"N": 1}, "INPUT -> FC"),
    ("let N = 2 let M = {N+1} INPUT -> [FC]*M", {}, "INPUT -> [FC]*3"),
    ("let A(f, s=1) = CONV3-f stride=s INPUT -> A(8) -> A(4, 2) -> A(s=3, f=2)", {},
     "INPUT -> CONV3-8 -> CONV3-4 stride=2 -> CONV3-2 stride=3"),
    ("let A(f, g=2*f) = CONV3-f -> CONV3-g INPUT -> A(4)", {}, "INPUT -> CONV3-4 -> CONV3-8"),
    ("let f = 5 let A(f) = FC f INPUT -> A(f+1) -> FC f", {}, "INPUT -> FC 6 -> FC 5"),
    ("let A(n) = [FC]*n INPUT -> A((1 + 1) * 2)", {}, "INPUT -> [FC]*4"),
    ("let SE = RELU INPUT -> SE? -> FC", {"SE": "yes"}, "INPUT -> RELU -> FC"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "variables", "plain"), NAMED, ids=[text for text, _, _ in NAMED])
def test_names_and_calculations(written: str, variables: dict[str, Any], plain: str) -> None:
    assert parse(written, variables) == parse(plain)


def test_a_name_that_the_text_does_not_use_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        parse("INPUT -> [FC]*N", {"N": 1, "M": 2})
    assert str(caught.value) == "the text has no variable 'M'; it uses N."
    with pytest.raises(OptionError) as caught:
        parse("INPUT -> FC", {"M": 2})
    assert str(caught.value) == "the text has no variable 'M'; it uses no names."


def test_a_variable_is_a_whole_number() -> None:
    with pytest.raises(NotationError, match=r"^Line 1, column 15: N=2.5: expected a whole number\.\n"):
        parse("INPUT -> [FC]*N", {"N": 2.5})


def test_comments_rule_findings_out() -> None:
    text = "INPUT # Striate: Ignore []\n-> CONV3-8 # striate: ignore [str001, STR7]\n-> FC 3 # striate: ignore"
    assert [sorted(node.ignored) for node in parse(text)] == [[], ["STR001", "STR7"], ["all"]]


def test_a_graph_of_any_form_is_written_and_read_back() -> None:
    found = parse("INPUT -> CONV3-8 as a.b -> SUM[RELU | CONV1-8] -> AUX[FC 2] -> CONCAT[IDENTITY | from a.b] -> FC 2")
    assert format(found) == (
        "INPUT -> CONV3-8 as a.b -> RELU -> from a.b -> CONV1-8 -> SUM[from relu1 | IDENTITY] -> FC 2 -> "
        "CONCAT[from sum1 | from a.b] -> FC 2 -> AUX[from fc1]"
    )


# ------------------------------------------------------------------------------------------------------ messages

A_LAYER = "a layer, such as CONV3-64 or RELU or '['"
AN_INPUT = "INPUT, as in INPUT 3x32x32"
KNOWN = (
    "Known: ADAPTIVEAVGPOOL, ADAPTIVEPOOL, AVGPOOL, BN, CHANNELS, CONCAT, CONV, CROP, DECONV, DROPOUT, DWCONV, ELU, "
    "FC, FLATTEN, GAUSSPOOL, GELU, GLOBALAVGPOOL, GLOBALPOOL, GN, HARDSIGMOID, HARDSWISH, IN, INPUT, LEAKYRELU, LN, "
    "LOCAL, LPPOOL, LRN, MAXOUT, PAD, PIXELSHUFFLE, PIXELUNSHUFFLE, POOL, PRELU, PRODUCT, RBF, RELU, RELU6, RESIZE, "
    "SCALE, SHUFFLE, SIGMOID, SILU, SOFTMAX, SUM, TANH, TILED, UNPOOL, UPSAMPLE."
)
AFTER_WORD = "'->' or a size such as 3x3x64 or an option such as stride=2 or the end"
AFTER_SIZE = "'->' or an option such as stride=2 or the end"
ROWS = "expected a number, before:after, one of these for each axis (1x2), or valid, same, same_lower, full, causal."

MADE_UP = "(names that a text makes up for blocks have letters and _ only)"
NOTHING_READS = "nothing reads conv1; join it with SUM, PRODUCT or CONCAT, or AUX[...]."
WHICH_POOL = "UNPOOL needs the max pooling that it undoes, as in UNPOOL of=pool1."
MESSAGES = [
    ("", 1, 1, f"found the end of the text, expected {AN_INPUT}."),
    ("  \n ", 1, 1, f"found the end of the text, expected {AN_INPUT}."),
    ("# only a comment", 1, 1, f"found the end of the text, expected {AN_INPUT}."),
    ("-> FC", 1, 1, f"found '->', expected {AN_INPUT}."),
    ("INPUT ->  # the end\n\n", 1, 9, f"found the end of the text, expected {A_LAYER}."),
    ("INPUT ->\n-> FC", 2, 1, f"found '->', expected {A_LAYER}."),
    ("INPUT FC", 1, 7, "found 'FC', expected '->' in front of it."),
    ("INPUT - > FC", 1, 7, f"found '-', expected {AFTER_WORD}."),
    ("INPUT => FC", 1, 7, f"found '=', expected {AFTER_WORD}."),
    ("INPUT -> FC*2", 1, 12, f"found '*', expected {AFTER_WORD}."),
    ("INPUT -> POOL?", 1, 14, "POOL? is there or not, as you say: give POOL=yes or POOL=no."),
    ("INPUT -> FC -3", 1, 13, f"found '-', expected {AFTER_WORD}."),
    ("INPUT -> FC ٣", 1, 13, f"found '٣', expected {AFTER_WORD}."),
    ("INPUT -> FC 1 1", 1, 15, f"found '1', expected {AFTER_SIZE}."),
    ("INPUT -> FC 1.", 1, 14, f"found '.', expected {AFTER_SIZE}."),
    ("INPUT -> CONV3-4-5", 1, 17, f"found '-', expected {AFTER_SIZE}."),
    ("INPUT -> FC bias = no", 1, 18, f"found '=', expected {AFTER_SIZE}."),
    ("INPUT -> CONV stride=²", 1, 22, f"found '²', expected {AFTER_SIZE}."),
    ("INPUT -> []", 1, 11, f"found ']', expected {A_LAYER}."),
    ("INPUT -> [FC", 1, 13, "found the end of the text, expected ']' or '->'."),
    ("INPUT -> FC]", 1, 12, "found ']', expected '->' or the end."),
    ("INPUT -> [FC] 2", 1, 15, "found '2', expected '->' or '*' and a number or the end."),
    ("INPUT -> [[FC] ! ]", 1, 16, "found '!', expected ']' or '->' or '*' and a number."),
    ("INPUT -> [FC]*", 1, 15, "found the end of the text, expected a number of repetitions."),
    ("INPUT -> [FC]*-1", 1, 15, "found '-', expected a number of repetitions."),
    ("INPUT -> [FC]*N", 1, 15, "N has no value; give it one, as in N=2, or write: let N = 2"),
    ("INPUT -> [FC]*2.5", 1, 16, "found '.5', expected '->' or the end."),
    ("INPUT -> [FC]*2x3", 1, 16, "found 'x3', expected '->' or the end."),
    ("FC 10", 1, 1, f"found 'FC', expected {AN_INPUT}."),
    ("\n [FC]", 2, 2, f"found '[', expected {AN_INPUT}."),
    ("[INPUT]*0", 1, 1, f"found '[', expected {AN_INPUT}."),
    ("INPUT -> INPUT", 1, 10, "INPUT stands only once, at the start."),
    ("INPUT -> [INPUT]*2", 1, 11, "INPUT stands only once, at the start."),
    ("INPUT -> CNOV", 1, 10, f"No layer is called 'CNOV'. Did you mean 'CONV'? {KNOWN}"),
    ("INPUT -> xyz", 1, 10, f"No layer is called 'xyz'. {KNOWN}"),
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
    ("INPUT -> DROPOUT 0x0", 1, 18, "'0x0' is not a number such as 0.5."),
    ("INPUT -> DROPOUT 0-1", 1, 18, "'0-1' is not a number such as 0.5."),
    ("INPUT -> DROPOUT p=1.5", 1, 18, "DROPOUT takes a probability from 0 up to but not including 1, got '1.5'."),
    (
        "INPUT -> CONV strid=2",
        1,
        15,
        "CONV has no option 'strid'; it takes kernel, filters, stride, padding, dilation, groups, bias, border, init.",
    ),
    ("INPUT -> POOL groups=2", 1, 15, "POOL has no option 'groups'; it takes kernel, stride, padding, dilation, ceil."),
    ("INPUT -> FC stride=2", 1, 13, "FC has no option 'stride'; it takes features, bias."),
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
    ("INPUT -> [FC]*10000", 1, 11, "a network has at most 10,000 layers, this one more."),
    ("INPUT -> [FC]*999999999", 1, 11, "a network has at most 10,000 layers, this one more."),
    ("INPUT -> [[FC -> RELU]*101 -> BN]*50", 1, 12, "a network has at most 10,000 layers, this one more."),
    ("INPUT -> CONV3-8 as a -> from b", 1, 31, "No place is called 'b'. Known: a, input."),
    (
        "INPUT -> CONV3-8 -> from input -> FC 3",
        1,
        10,
        NOTHING_READS,
    ),
    ("INPUT -> SUM", 1, 10, "SUM joins branches, as in SUM[CONV3-64 | IDENTITY]."),
    ("INPUT -> SUM[FC | ]", 1, 19, f"found ']', expected {A_LAYER}."),
    ("INPUT -> CONV k-8", 1, 15, "k has no value; give it one, as in k=2, or write: let k = 2"),
    ("INPUT -> CONV3-{8/2}", 1, 18, "found '/', expected one of + - * // % or the end."),
    ("INPUT -> FC {4 4}", 1, 16, "found '4', expected one of + - * // % or the end."),
    ("INPUT -> FC {}", 1, 14, "found the end of the calculation, expected a number or a name or '('."),
    ("let p = 0.5 INPUT -> FC p", 1, 9, "0.5 is no whole number; names and calculations stand for whole numbers."),
    ("INPUT -> SCALE start=1e999", 1, 16, "start=1e999: '1e999' is too large a number."),
    ("INPUT -> CONV3-{8//0}", 1, 17, "a division by 0."),
    ("INPUT -> CONV3-{8-9}", 1, 14, "'-1' is not a whole number of at least 1."),
    ("INPUT -> [FC]*{1-2}", 1, 15, "{1-2} is -1; a number of repetitions is at least 0."),
    ("INPUT -> CONV(3)", 1, 14, "parentheses belong to blocks; numbers of CONV stand bare behind it."),
    ("let CONV = FC INPUT", 1, 5, "CONV is a word of the notation; take another name."),
    ("let A = FC let A = RELU INPUT -> A", 1, 16, "A is defined twice."),
    ("let N(f) = 3 INPUT -> FC", 1, 6, "a number takes no parameters."),
    ("let A(f, f) = FC f INPUT -> A", 1, 10, "'f' is no name for a parameter, or is there twice."),
    ("let A(2) = FC INPUT -> A", 1, 7, "'2' is no name for a parameter, or is there twice."),
    ("let A(f) = FC f INPUT -> A", 1, 26, "A is written A(f); f is missing."),
    ("let A(f, s=1) = FC f INPUT -> A(1, 2, 3)", 1, 39, "A is written A(f, s=1); it has no place for '3'."),
    ("let A(f) = FC f INPUT -> A(1, g=2)", 1, 31, "A is written A(f); it has no place for 'g=2'."),
    ("let A(f) = FC f INPUT -> A(1, f=2)", 1, 31, "f is given twice."),
    ("let A(f) = FC f INPUT -> A 3", 1, 28, "A is a block, written A(f)."),
    ("let A = B let B = A INPUT -> A", 1, 19, "A uses itself."),
    ("let A = A -> RELU INPUT -> A", 1, 9, "A uses itself."),
    ("let A2 = RELU INPUT -> A", 1, 6, f"found '2', expected '=' or parameters in parentheses {MADE_UP}."),
    ("INPUT 1x8x8 -> UNPOOL of=pool1", 1, 16, "nothing is called pool1; UNPOOL undoes a max pooling above it."),
    ("INPUT " + "x".join("2" * 18), 1, 7, "an input has at most 16 axes, this one 17."),
    ("INPUT 1x8x8 -> UNPOOL", 1, 16, WHICH_POOL),
    (
        "INPUT 1x8x8 -> AVGPOOL -> UNPOOL of=avgpool1",
        1,
        27,
        WHICH_POOL,
    ),
    ("INPUT -> UPSAMPLE mode=cubic", 1, 19, "mode=cubic: expected nearest, linear."),
    ("INPUT -> CONV3-8 border=mirror", 1, 18, "border=mirror: expected zeros, replicate, reflect, circular."),
    ("INPUT -> CHANNELS 3/2", 1, 19, "CHANNELS cannot be given '3/2'; write CHANNELS 1/2 or 0,2,5."),
    ("INPUT -> CROP same", 1, 15, "same has no value; give it one, as in same=2, or write: let same = 2"),
    ("INPUT -> LRN 2x2", 1, 14, "LRN cannot be given '2x2'; write LRN 2."),
    ("INPUT ->\n" + "[" * 51 + "FC" + "]" * 51, 2, 51, "brackets and blocks stand inside each other at most 50 deep."),
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
    shown = lines[line - 1].rstrip("\r")
    assert 1 <= column <= len(shown) + 1
    if len(shown) <= 200:
        assert (matched[4], len(matched[5])) == (shown, column - 1)
    else:  # of a long line, the place and what is around it
        assert matched[4] in shown
        assert len(matched[4]) <= 200
        assert matched[4][len(matched[5]) :] == shown[column - 1 :][: len(matched[4]) - len(matched[5])]


HOSTILE = [
    pytest.param("INPUT -> " + "[" * 20_000 + "FC" + "]" * 20_000, id="deep brackets"),
    pytest.param("[" * 50_000, id="brackets that stay open"),
    pytest.param("INPUT -> " + "[" * 40 + "FC" + "]*9" * 40, id="a power of layers"),
    pytest.param("INPUT -> [[[[FC]*0]*99999]*99999]*9", id="a power of blocks without a layer"),
    pytest.param("INPUT -> [RELU]*1000000000", id="a billion layers"),
    pytest.param(
        "let A = RELU let B = A" + " -> A" * 50 + " let C = B" + " -> B" * 50 + " INPUT -> C -> C -> C -> C",
        id="blocks of blocks",
    ),
    pytest.param("INPUT -> CONV3-{" + "9*" * 40 + "9}", id="a huge product"),
    pytest.param("INPUT -> CONV3-{" + "(" * 5000 + "9" + ")" * 5000 + "}", id="deep parentheses"),
    pytest.param("INPUT 1x1x1" + " -> RELU" * 1_300_000, id="10 MB of text"),
    pytest.param("INPUT -> SUM[" * 100_000, id="joins that stay open"),
    pytest.param("INPUT 3x8x8 -> RELO " + "#" * 190_000, id="a comment of nothing"),
    pytest.param("let B(f) = FC f INPUT -> B(" + "1," * 90_000 + "1)", id="90,000 arguments"),
    pytest.param("INPUT -> " + "[" * 60_000 + "RELU" + "]" * 60_000, id="60,000 brackets"),
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
    def refused() -> None:
        with pytest.raises(NotationError):
            parse(text)

    assert calls(refused) < 5e6


def test_the_largest_network_and_number_are_read() -> None:
    assert len(parse("INPUT -> [FC]*9999").nodes) == 10_000
    assert parse("INPUT -> FC 999999999") == chain(Input(), FC(999_999_999))
