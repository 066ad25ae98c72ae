"""The table of a network: published numbers, brute force, and laws that torch itself judges."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import striate
from striate.analysis import Description, Row, analyse, describe
from striate.architecture import Architecture, Node
from striate.errors import GeometryError, NotationError, OptionError, UnknownNameError
from striate.networks import Network, network
from striate.notation import parse
from striate.operations import NO_VALUES, Conv, Input
from striate.support import LONGEST_AXIS

# ------------------------------------------------------------------------------------------------ published networks

# CS231n, "VGGNet in detail", as the notes print it: the layer, its volume, its values in memory, its weights. Lines
# that the stored copy of the notes lost at a page break are filled in from the rule next to them.
VGG16 = """
    layer      volume       memory       weights
    INPUT      224x224x3    224*224*3    0
    CONV3-64   224x224x64   224*224*64   (3*3*3)*64=1,728
    CONV3-64   224x224x64   224*224*64   (3*3*64)*64=36,864
    POOL2      112x112x64   112*112*64   0
    CONV3-128  112x112x128  112*112*128  (3*3*64)*128=73,728
    CONV3-128  112x112x128  112*112*128  (3*3*128)*128=147,456
    POOL2      56x56x128    56*56*128    0
    CONV3-256  56x56x256    56*56*256    (3*3*128)*256=294,912
    CONV3-256  56x56x256    56*56*256    (3*3*256)*256=589,824
    CONV3-256  56x56x256    56*56*256    (3*3*256)*256=589,824
    POOL2      28x28x256    28*28*256    0
    CONV3-512  28x28x512    28*28*512    (3*3*256)*512=1,179,648
    CONV3-512  28x28x512    28*28*512    (3*3*512)*512=2,359,296
    CONV3-512  28x28x512    28*28*512    (3*3*512)*512=2,359,296
    POOL2      14x14x512    14*14*512    0
    CONV3-512  14x14x512    14*14*512    (3*3*512)*512=2,359,296
    CONV3-512  14x14x512    14*14*512    (3*3*512)*512=2,359,296
    CONV3-512  14x14x512    14*14*512    (3*3*512)*512=2,359,296
    POOL2      7x7x512      7*7*512      0
    FC         1x1x4096     4096         7*7*512*4096=102,760,448
    FC         1x1x4096     4096         4096*4096=16,777,216
    FC         1x1x1000     1000         4096*1000=4,096,000
"""


def product(factors: str) -> int:
    return prod(int(factor) for factor in factors.replace("(", "").replace(")", "").replace(",", "").split("*"))


def test_vgg16_row_by_row_as_the_course_notes_print_it() -> None:
    table = [line.split() for line in VGG16.strip().splitlines()[1:]]
    rows = [row for row in describe("vgg16").rows if not row.kind.startswith(("RELU", "DROPOUT"))]
    names = {"INPUT 3x224x224": "INPUT", "POOL": "POOL2"}
    assert len(rows) == len(table) == 22
    for row, (layer, volume, memory, weights) in zip(rows, table, strict=True):
        *size, channels = map(int, volume.split("x"))
        factors, _, printed = weights.partition("=")
        learned = product(printed or factors)
        assert names.get(row.kind, row.kind.split(" ")[0]) == layer
        assert row.output_shape == ((channels,) if size == [1, 1] else (channels, *size))
        assert row.activation_bytes == 4 * product(memory)
        assert product(factors) == learned
        assert row.parameters == (learned + channels if learned else 0)  # the notes leave out the biases
        assert row.flops == 2 * (row.macs or 0)


def test_the_totals_of_vgg16_that_the_course_notes_print() -> None:
    """138M parameters, as printed. Slip of the notes: their rows hold 15.2M values, not the 24M of their last line."""
    table = describe("vgg16")
    values = sum(row.activation_bytes for row in table.rows if not row.kind.startswith(("RELU", "DROPOUT"))) // 4
    assert table.totals.parameters == 138_357_544
    assert values == 15_237_608
    assert table.totals.activation_bytes == 4 * (15_237_608 + 2 * 4096)  # and the two dropouts keep their own


# shared/zoo.md: counted with forward hooks on torch from the papers' definitions; torchvision's own figures agree.
ZOO = [
    ("lenet5", 61_706, 416_520),
    ("vgg11", 132_863_336, 7_609_090_048),
    ("vgg13", 133_047_848, 11_308_466_176),
    ("vgg16", 138_357_544, 15_470_264_320),
    ("vgg19", 143_667_240, 19_632_062_464),
]


@pytest.mark.parametrize(("name", "parameters", "macs"), ZOO)
def test_totals_of_the_zoo(name: str, parameters: int, macs: int) -> None:
    totals = describe(name).totals
    assert (totals.parameters, totals.macs, totals.flops) == (parameters, macs, 2 * macs)


def test_lenet5_on_32x32_without_padding_has_the_same_counts() -> None:
    text = striate.zoo.text("lenet5").replace("1x28x28", "1x32x32").replace("padding=2", "padding=0")
    totals = describe(text).totals
    assert (totals.parameters, totals.macs) == (61_706, 416_520)


# -------------------------------------------------------------------------------------------- known receptive fields


def last(text: str, input_size: Sequence[int] | None = None) -> Row:
    return describe(text, input_size).rows[-1]


FIELDS = [
    ("INPUT 1x32x32 -> [CONV3-1]*3", (7, 7), (1, 1), (-3, -3), 1.0),
    ("INPUT 1x32x32 -> [CONV3-1 padding=valid]*3", (7, 7), (1, 1), (0, 0), 1.0),
    ("INPUT 1x32x32 -> [CONV3-1 dilation=2]*3", (13, 13), (1, 1), (-6, -6), 49 / 169),  # 7 of 13: 29 %
    ("INPUT 1x32x32 -> CONV3-1 -> CONV3-1 dilation=2 -> CONV3-1 dilation=5", (17, 17), (1, 1), (-8, -8), 1.0),
    ("INPUT 1x32x32 -> CONV 1x7x1 -> CONV 7x1x1", (7, 7), (1, 1), (-3, -3), 1.0),
    ("INPUT 1x32x32 -> CONV 1x7x1", (1, 7), (1, 1), (0, -3), 1.0),
    ("INPUT 1x32x32 -> [POOL2]*3", (8, 8), (8, 8), (0, 0), 1.0),
    ("INPUT 1x32x32 -> CONV3-1 stride=2 padding=1 -> CONV3-1 stride=2 padding=1", (7, 7), (4, 4), (-3, -3), 1.0),
    ("INPUT 1x32x32 -> POOL 3 stride=1 -> BN -> RELU -> DROPOUT", (3, 3), (1, 1), (0, 0), 1.0),
    ("INPUT 1x32x32 -> POOL 1 stride=2 -> POOL 2", (3, 3), (4, 4), (0, 0), 4 / 9),
]


@pytest.mark.parametrize(("text", "box", "jump", "offset", "coverage"), FIELDS)
def test_a_known_receptive_field(
    text: str, box: tuple[int, ...], jump: tuple[int, ...], offset: tuple[int, ...], coverage: float
) -> None:
    row = last(text)
    assert (row.receptive_field, row.jump, row.offset, row.coverage) == (box, jump, offset, coverage)


def test_the_table_says_29_percent_where_three_dilations_of_two_leave_gaps() -> None:
    lines = str(describe("INPUT 1x32x32 -> [CONV3-1 dilation=2]*3")).splitlines()
    assert lines[5].startswith("conv3 ")
    assert lines[5].endswith(" 13x13   1x1   29%       0")


def test_the_receptive_fields_of_vgg16() -> None:
    """212 with jump 32 and 90 positions of padding: Araujo, Norris and Sim, Distill 2019. 196: one pooling before."""
    rows = {row.name: row for row in describe("vgg16").rows}
    assert rows["conv13"].receptive_field == (196, 196)
    assert rows["pool5"].receptive_field == (212, 212)
    assert (rows["pool5"].jump, rows["pool5"].offset) == ((32, 32), (-90, -90))
    assert rows["fc1"].receptive_field == (224, 224)
    assert all(row.coverage == 1 and row.unread == 0 for row in rows.values())


# --------------------------------------------------------------------------------------------------- unread pixels


def brute_unread(size: int, windows: list[tuple[int, int]]) -> int:
    """Pixels of a square picture that no output of a stack of (kernel, stride) windows can see, marked one by one."""
    sizes = [size]
    for kernel, stride in windows:
        sizes.append((sizes[-1] - kernel) // stride + 1)
    seen = torch.ones(sizes[-1], sizes[-1], dtype=torch.bool)
    for (kernel, stride), n in zip(reversed(windows), reversed(sizes[:-1]), strict=True):
        below = torch.zeros(n, n, dtype=torch.bool)
        for row, column in seen.nonzero().tolist():
            below[row * stride : row * stride + kernel, column * stride : column * stride + kernel] = True
        seen = below
    return int((~seen).sum())


UNREAD = [
    pytest.param("INPUT 1x224x224 -> CONV3-1 stride=2 padding=valid", [(3, 2)], 447, id="3x3 stride 2 on 224"),
    pytest.param(
        "INPUT 1x100x100 -> [CONV3-1 padding=valid -> POOL 2]*4", [(3, 1), (2, 2)] * 4, 1164, id="4 blocks on 100"
    ),
    pytest.param("INPUT 1x9x9 -> CONV1-1 stride=2", [(1, 2)], 56, id="1x1 stride 2"),
    pytest.param("INPUT 1x7x7 -> POOL 2", [(2, 2)], 13, id="2x2 on 7"),
]


@pytest.mark.parametrize(("text", "windows", "unread"), UNREAD)
def test_unread_pixels_are_those_that_brute_force_does_not_reach(
    text: str, windows: list[tuple[int, int]], unread: int
) -> None:
    assert brute_unread(describe(text).rows[0].output_shape[1], windows) == unread
    assert last(text).unread == unread
    assert describe(text + " -> FC 2").rows[-1].unread == unread


def test_four_unpadded_blocks_on_100_lose_12_percent() -> None:
    unread = last("INPUT 1x100x100 -> [CONV3-1 padding=valid -> POOL 2]*4").unread
    assert unread is not None
    assert f"{unread / 100**2:.1%}" == "11.6%"


def test_padding_is_no_pixel_that_could_be_lost() -> None:
    """``(W - F + 2P) % S`` is not 0 here, and yet only padding stays unread."""
    assert last("INPUT 1x224x224 -> CONV7-1 stride=2 padding=3").unread == 0


# ------------------------------------------------------------------- the law: the table is the support of the gradient

few = st.integers(1, 3)
spans = st.integers(0, 2)


def words(axes: int) -> st.SearchStrategy[str]:
    """Layers whose gradient, with positive weights, is positive wherever there is a path."""
    several = few.map(str) | st.lists(few, min_size=axes, max_size=axes).map(lambda n: "x".join(map(str, n)))
    pairs = st.lists(st.tuples(spans, spans), min_size=axes, max_size=axes)
    rows = pairs.map(lambda p: "x".join(f"{before}:{after}" for before, after in p))
    padding = st.sampled_from(["valid", "same", "same_lower", "full", "causal", "1", "2"]) | rows
    conv = st.builds(
        "CONV kernel={} stride={} dilation={} padding={} groups={}".format,
        several, several, several, padding, st.integers(1, 2),
    )  # fmt: skip
    pool = st.builds("AVGPOOL kernel={} stride={} padding={}".format, several, several, padding)
    return conv | pool | st.sampled_from(["RELU", "BN", "DROPOUT", "FC 2"])


def size_of(axes: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 12 if axes == 1 else 6), min_size=axes, max_size=axes)


def chains_of(axes: int) -> st.SearchStrategy[tuple[list[int], list[str]]]:
    return st.tuples(size_of(axes), st.lists(words(axes), min_size=1, max_size=4))


chains = st.integers(1, 2).flatmap(chains_of)


def filled(size: Sequence[int], layers: Sequence[str]) -> Architecture:
    """The network of these layers, two filters each."""
    architecture = parse(" -> ".join(["INPUT " + "x".join(map(str, (2, *size))), *layers]))
    return architecture.bind(filters=2) if "filters" in architecture.open else architecture


def fitting(size: Sequence[int], layers: Sequence[str]) -> Architecture:
    """The network of as many of the layers as fit."""
    fits = filled(size, [])
    for count in range(1, len(layers) + 1):
        try:
            describe(longer := filled(size, layers[:count]))
        except GeometryError:
            break
        fits = longer
    return fits


def positive(net: Network) -> Network:
    """The network in evaluation mode, in float64, with every learned number positive."""
    net = net.double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    return net


def outputs_of(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The output of every layer, in order."""
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, output: found.append(output)) for layer in net.children()]
    net(x)
    for hook in hooks:
        hook.remove()
    return found


def supports(output: Tensor, x: Tensor) -> dict[tuple[int, ...], set[tuple[int, ...]]]:
    """For every position of an output, the input positions with a gradient: one backward pass for each."""
    found = {}
    first = output[0, 0]
    for position in torch.cartesian_prod(*map(torch.arange, first.shape)).reshape(first.numel(), -1).tolist():
        (gradient,) = torch.autograd.grad(first[tuple(position)], x, retain_graph=True)
        found[tuple(position)] = {tuple(pixel) for pixel in gradient[0].sum(0).nonzero().tolist()}
    return found


def span(pixels: set[tuple[int, ...]], axis: int) -> int:
    places = [pixel[axis] for pixel in pixels]
    return max(places) - min(places) + 1 if places else 0


def check_row(row: Row, reads: dict[tuple[int, ...], set[tuple[int, ...]]], size: Sequence[int]) -> None:
    axes = range(len(size))
    boxes = {position: tuple(span(pixels, axis) for axis in axes) for position, pixels in reads.items()}
    assert row.receptive_field == tuple(max(box[axis] for box in boxes.values()) for axis in axes)
    assert row.unread == prod(size) - len(set().union(*reads.values()))
    most = max(map(len, reads.values()))
    if most == 0:
        assert (row.coverage, row.unknown["coverage"]) == (None, "no output reads any input position")
    else:  # where several outputs read as many, any of their boxes may be meant
        assert row.coverage in [most / prod(boxes[p]) for p, pixels in reads.items() if len(pixels) == most]
    if row.jump is None or row.offset is None:
        assert len(row.output_shape) == 1
        return
    for position, pixels in reads.items():
        begin = [o + p * j for o, p, j in zip(row.offset, position, row.jump, strict=True)]
        first = [min(pixel[axis] for pixel in pixels) for axis in axes] if pixels else begin
        assert all(f == b if b >= 0 else f >= 0 or not pixels for f, b in zip(first, begin, strict=True))


@settings(deadline=None, max_examples=120)
@given(chain=chains)
@example(chain=([1, 1], ["CONV kernel=1 stride=2 padding=1"]))  # no output reads anything
@example(chain=([1, 3], ["CONV kernel=1 stride=2x1 padding=1x0", "FC 2"]))
@example(chain=([5], ["CONV kernel=2 dilation=3 padding=2"]))  # the borders see less, with other gaps
@example(chain=([5], ["CONV kernel=3 dilation=2 padding=2", "CONV kernel=2 dilation=3 padding=0:2"]))  # wide, few
@example(chain=([7, 7], ["CONV kernel=3 stride=2 padding=valid", "AVGPOOL", "FC 2"]))
def test_the_table_is_the_support_of_the_gradient(chain: tuple[list[int], list[str]]) -> None:
    size, layers = chain
    architecture = fitting(size, layers)
    net = positive(network(architecture))
    x = torch.ones(1, 2, *size, dtype=torch.float64, requires_grad=True)
    rows = describe(net).rows
    assert rows[0].receptive_field == (1,) * len(size)
    for row, output in zip(rows[1:], outputs_of(net, x), strict=True):
        assert tuple(output.shape) == (1, *row.output_shape)
        reads = supports(output.reshape(1, row.output_shape[0], *(row.output_shape[1:] or (1,))), x)
        check_row(row, reads, size)


@settings(deadline=None, max_examples=100)
@given(chain=chains)
def test_what_the_table_refuses_the_network_refuses_with_the_same_words(chain: tuple[list[int], list[str]]) -> None:
    architecture = filled(*chain)
    refusals = []
    for make in (describe, network):
        try:
            make(architecture)
        except GeometryError as error:
            refusals.append(str(error))
    assert refusals in ([], refusals[:1] * 2)


# --------------------------------------------------------------------------------------- the law: memory is measured

memory_words = st.sampled_from(
    [
        *("CONV3-4", "CONV 3x3x2 stride=2", "CONV3-4 padding=0:2x1", "CONV3-4 dilation=2 groups=2", "CONV3-4 bias=no"),
        *("POOL", "POOL 3 stride=1 padding=1", "POOL 3 padding=same", "POOL 1", "AVGPOOL", "AVGPOOL 3 padding=1"),
        *("AVGPOOL 1", "AVGPOOL 2 padding=0:1x1:0", "RELU", "RELU", "RELU", "TANH", "SIGMOID", "BN", "DROPOUT"),
        *("DROPOUT 0.1", "DROPOUT 0", "FC 6", "FC 6 bias=no"),
    ]
)


@settings(deadline=None, max_examples=120)
@given(layers=st.lists(memory_words, min_size=1, max_size=7), size=st.tuples(st.integers(4, 9), st.integers(4, 9)))
@example(layers=["CONV3-4", "RELU", "RELU", "FC 6", "RELU"], size=(5, 6))
@example(layers=["DROPOUT 0", "RELU", "DROPOUT", "RELU", "TANH", "RELU"], size=(5, 6))
@example(layers=["RELU"], size=(4, 4))
def test_activation_bytes_are_the_storages_of_a_network_in_training(layers: list[str], size: tuple[int, int]) -> None:
    architecture = fitting(size, layers)
    net = network(architecture).train()
    x = torch.randn(2, 2, *size)
    outputs = [x, *outputs_of(net, x)]
    storages = {output.untyped_storage().data_ptr(): output.untyped_storage().nbytes() for output in outputs}
    table = describe(net)
    assert sum(storages.values()) == len(x) * table.totals.activation_bytes
    for row, before, after in zip(table.rows[1:], outputs, outputs[1:], strict=False):
        shared = after.untyped_storage().data_ptr() == before.untyped_storage().data_ptr()
        assert row.activation_bytes == (0 if shared else 4 * prod(row.output_shape))


def test_lenet5_in_training_holds_what_its_table_says() -> None:
    net, x = network("lenet5").train(), torch.randn(3, 1, 28, 28)
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in [x, *outputs_of(net, x)]}
    values = 28 * 28 + 6 * 28 * 28 + 6 * 14 * 14 + 16 * 10 * 10 + 16 * 5 * 5 + 120 + 84 + 10
    assert describe("lenet5").totals.activation_bytes == 4 * values == 35_512
    assert sum(kept.values()) == 3 * 35_512


# ------------------------------------------------------------------------------------------------------ other inputs


def test_one_and_three_axes() -> None:
    """A 1-D and a 3-D network, every number by hand."""
    conv, pool = describe("INPUT 2x100 -> CONV 5x4 stride=2 padding=valid -> POOL 4").rows[1:]
    assert (conv.output_shape, conv.parameters, conv.macs) == ((4, 48), 2 * 5 * 4 + 4, 48 * 2 * 5 * 4)
    assert (conv.receptive_field, conv.jump, conv.offset, conv.unread) == ((5,), (2,), (0,), 1)
    assert (pool.output_shape, pool.receptive_field, pool.jump) == ((4, 12), (11,), (8,))
    conv, pool, fc = describe("INPUT 1x6x8x10 -> CONV3-2 -> POOL 1x2x2 -> FC 3").rows[1:]
    assert (conv.output_shape, conv.parameters, conv.macs) == ((2, 6, 8, 10), 27 * 2 + 2, 480 * 27 * 2)
    assert (pool.output_shape, pool.receptive_field, pool.jump) == ((2, 6, 4, 5), (3, 4, 4), (1, 2, 2))
    assert (fc.parameters, fc.macs, fc.receptive_field) == (3 * 241, 3 * 240, (6, 8, 10))


def test_five_axes_are_described_though_no_layer_has_so_many() -> None:
    row = last("INPUT 1x4x4x4x4x4 -> CONV3-2")
    assert (row.parameters, row.receptive_field) == (2 * 3**5 + 2, (3,) * 5)


def test_after_a_fully_connected_layer_there_are_no_positions() -> None:
    reason = "after a fully connected layer there are no positions any more"
    rows = describe("INPUT 1x4x5 -> FC 3 -> RELU -> BN -> FC 2").rows
    assert rows[0].unknown == {}
    for row in rows[1:]:
        assert (row.jump, row.offset, row.unknown) == (None, None, dict.fromkeys(("endless", "jump", "offset"), reason))
        assert (row.receptive_field, row.coverage, row.unread) == ((4, 5), 1.0, 0)


TOO_LONG = "not derived for axes longer than 1,048,576"
LONG = [
    pytest.param("INPUT 1x1048577 -> CONV 3x1", 0, id="a long input"),
    pytest.param("INPUT 1x3x1048577 -> CONV3-1", 0, id="one long axis of two"),
    pytest.param("INPUT 1x1048576 -> CONV 1x1 padding=0:1", 1, id="padding makes the output one too long"),
    pytest.param("INPUT 1x4 -> CONV 3x1 padding=2000000", 1, id="padding makes the output long"),
    pytest.param("INPUT 1x1 -> CONV 2x1 padding=2000000", 1, id="padding makes one position long"),
    pytest.param("INPUT 1x1 -> CONV 999999999x1 padding=999999999", 1, id="as long as numbers get"),
]


@pytest.mark.parametrize(("text", "known"), LONG)
def test_axes_over_the_limit_are_unknown_in_words(text: str, known: int) -> None:
    rows = describe(text).rows
    assert LONGEST_AXIS == 2**20
    for row in rows[known:]:
        assert (row.receptive_field, row.coverage, row.unread, row.jump) == (None, None, None, None)
        names = ("receptive_field", "endless", "jump", "offset", "coverage", "unread")
        padded = {} if row.padding_share is not None else {"padding_share": "an axis has more than 1,048,576 positions"}
        assert row.unknown == dict.fromkeys(names, TOO_LONG) | padded
    assert all(row.unknown == {} for row in rows[:known])
    assert str(describe(text)).count("unknown") == 2 * len(rows[known:]) + sum(row.unread is None for row in rows)


def test_a_long_axis_before_a_fully_connected_layer_is_unknown_too() -> None:
    row = last("INPUT 1x1048577 -> FC 2")
    assert set(row.unknown) == {"endless", "jump", "offset", "receptive_field", "coverage", "unread"}
    assert (row.parameters, row.macs) == (2 * 1_048_578, 2 * 1_048_577)


AT_THE_LIMIT = [
    ("INPUT 1x1048576 -> POOL 1024", (1, 1024), (1024,)),
    ("INPUT 1x1048575 -> CONV 1x1 padding=0:1", (1, 1_048_576), (1,)),
    ("INPUT 1x1 -> CONV 999999999x1 padding=0:999999998", (1, 1), (1,)),
]


@pytest.mark.parametrize(("text", "shape", "box"), AT_THE_LIMIT)
def test_an_axis_at_the_limit_is_derived(text: str, shape: tuple[int, ...], box: tuple[int, ...]) -> None:
    row = last(text)
    assert (row.output_shape, row.receptive_field, row.unread, row.unknown) == (shape, box, 0, {})


def test_a_network_of_ten_thousand_layers_is_described() -> None:
    table = describe("INPUT 1x4x4 -> [CONV1-1 bias=no -> RELU]*4999 -> FC 1")
    assert len(table.rows) == 10_000
    assert table.totals.parameters == 4999 + 17
    assert table.totals.activation_bytes == 4 * (16 + 4999 * 16 + 1)


# ------------------------------------------------------------------------------------------------ filling in, sources


def test_what_a_text_leaves_open_is_filled_in_and_said() -> None:
    table = describe("INPUT -> CONV -> FC -> FC")
    assert [row.output_shape for row in table.rows] == [(3, 32, 32), (32, 32, 32), (128,), (10,)]
    note = "Filled in, because the text leaves it open: input 3x32x32, filters 32, hidden 128, classes 10."
    assert table.notes == (note,)
    assert str(table).splitlines()[-6] == note


def test_variables_and_the_input_size_take_their_place() -> None:
    table = describe("INPUT -> CONV -> FC -> FC", [1, 5, 6], filters=2, hidden=7, classes=None)
    assert [row.output_shape for row in table.rows] == [(1, 5, 6), (2, 5, 6), (7,), (10,)]
    assert table.notes == ("Filled in, because the text leaves it open: classes 10.",)
    assert describe("INPUT -> FC 3", (1, 4)).notes == ()


def test_an_input_size_replaces_that_of_the_text() -> None:
    assert describe("lenet5", (3, 32, 32)).rows[1].output_shape == (6, 32, 32)
    assert describe("INPUT 3x8x8 -> CONV3-2", (1, 5)).rows[1].output_shape == (2, 5)


SOURCES = ["lenet5", "INPUT 2x9x8 -> [CONV3-4 groups=2 -> BN -> RELU -> AVGPOOL]*2 -> DROPOUT 0.1 -> FC 4 -> TANH"]


@pytest.mark.parametrize("source", SOURCES)
def test_text_architecture_and_network_have_one_table(source: str) -> None:
    table = describe(source)
    assert describe(striate.zoo.architecture(source)) == table
    assert describe(network(source)) == table
    assert analyse(striate.zoo.architecture(source)) == table


def test_a_network_with_numbers_filled_in_has_the_rows_of_its_text() -> None:
    text = "INPUT -> CONV -> RELU -> FC -> FC"
    table = describe(text, (1, 6, 6), filters=3, hidden=4, classes=5)
    assert describe(network(text, input=(1, 6, 6), filters=3, hidden=4, classes=5)) == table
    assert describe(network(text)).rows == describe(text).rows


def test_to_dict_is_json_and_complete() -> None:
    table = describe("INPUT 1x4x4 -> CONV3-2 -> FC 3")
    found = json.loads(json.dumps(table.to_dict()))
    assert found["totals"] == {
        "parameters": 20 + 99,
        "macs": 288 + 96,
        "flops": 768,
        "activation_bytes": 4 * (16 + 32 + 3),
        "saved_bytes": 4 * (16 + 32),  # the inputs of the convolution and of the fully connected layer
        "inference_bytes": 4 * (119 + 16 + 32),
        "training_bytes": 4 * (2 * 119 + 16 + 32 + 3 + 32),  # both maps, the scores, their gradient and the map's
        "seconds": None,
        "unknown": {},
    }
    assert found["notes"] == []
    assert [row["name"] for row in found["rows"]] == ["input", "conv1", "fc1"]
    reason = "after a fully connected layer there are no positions any more"
    assert found["rows"][2] == {
        "name": "fc1",
        "kind": "FC 3",
        "line": 1,
        "source": "",
        "inputs": ["conv1"],
        "output_shape": [3],
        "parameters": 99,
        "macs": 96,
        "flops": 192,
        "activation_bytes": 12,
        "saved_bytes": 128,
        "moved_bytes": 4 * (32 + 99 + 3),
        "intensity": 192 / (4 * 134),
        "receptive_field": [4, 4],
        "endless": None,
        "jump": None,
        "offset": None,
        "padding_share": 0.0,
        "seconds": None,
        "algorithm": None,
        "coverage": 1.0,
        "unread": 0,
        "unknown": {"endless": reason, "jump": reason, "offset": reason},
    }


# By hand: parameters and multiply-adds are those of LeCun et al. 1998 with all maps connected; 35,512 bytes as above.
# Saved: what a layer's backward pass reads (a ReLU its output, a pooling its input and 8 bytes for each switch).
LENET5 = """\
name   layer                        output  parameters  multiply-adds    memory     saved   sees  jump  read  unread
--------------------------------------------------------------------------------------------------------------------
input  INPUT 1x28x28               1x28x28           0              0   3.1 KiB       0 B    1x1   1x1  100%       0
conv1  CONV 5x5x6 padding=2        6x28x28         156        117,600  18.4 KiB   3.1 KiB    5x5   1x1  100%       0
relu1  RELU                        6x28x28           0              0       0 B  18.4 KiB    5x5   1x1  100%       0
pool1  POOL                        6x14x14           0              0   4.6 KiB   9.2 KiB    6x6   2x2  100%       0
conv2  CONV 5x5x16 padding=valid  16x10x10       2,416        240,000   6.2 KiB   4.6 KiB  14x14   2x2  100%       0
relu2  RELU                       16x10x10           0              0       0 B   6.2 KiB  14x14   2x2  100%       0
pool2  POOL                         16x5x5           0              0   1.6 KiB   3.1 KiB  16x16   4x4  100%       0
fc1    FC 120                          120      48,120         48,000     480 B   1.6 KiB  28x28     -  100%       0
relu3  RELU                            120           0              0       0 B     480 B  28x28     -  100%       0
fc2    FC 84                            84      10,164         10,080     336 B       0 B  28x28     -  100%       0
relu4  RELU                             84           0              0       0 B     336 B  28x28     -  100%       0
fc3    FC 10                            10         850            840      40 B       0 B  28x28     -  100%       0
--------------------------------------------------------------------------------------------------------------------
total                                           61,706        416,520  34.7 KiB  47.0 KiB
Peak memory for one example: 264.0 KiB to predict, 540.3 KiB to train (weights, their gradients, feature maps).
Multiply-adds: convolutions and fully connected layers, one example, padding counted, biases not;
FLOPs are twice as many. Memory: float32 outputs of one example while training; ReLU works in place.
Saved: what the backward pass needs; a feature map counts where it is first needed.
Sees: the largest box of input positions that can change one output value; read: the share of them
that is really read; unread: input positions that no output sees."""


def test_the_table_of_lenet5_as_text() -> None:
    assert str(describe("lenet5")) == LENET5


BYTES = [
    ("INPUT 1x1x1", "4 B"),
    ("INPUT 1x1x255", "1020 B"),
    ("INPUT 1x1x256", "1.0 KiB"),
    ("INPUT 1x512x512", "1.0 MiB"),
    ("INPUT 3x224x224", "588.0 KiB"),
    ("INPUT 1x16384x16384", "1.0 GiB"),
]


@pytest.mark.parametrize(("text", "memory"), BYTES)
def test_bytes_are_written_in_powers_of_1024(text: str, memory: str) -> None:
    assert [row["memory"] for row in describe(text).cells()] == [memory, memory]


# ----------------------------------------------------------------------------------------------------------- messages

MISFITS = [
    (
        "INPUT 3x8x8 -> POOL 9",
        (
            "In pool1 (line 1, column 16: POOL 9) with input 3x8x8: On spatial axis 0: the window spans 9 inputs "
            "(kernel=9, dilation=1), but input and padding have 8 + 0 + 0 = 8; "
            "give a larger input, more padding or a smaller kernel."
        ),
    ),
    (
        "INPUT 1x28x28 ->\n  [CONV3-8 -> RELU -> POOL]*5 -> FC 10",
        (
            "In pool5 (line 2, column 23: POOL) with input 8x1x1: On spatial axis 0: the window spans 2 inputs "
            "(kernel=2, dilation=1), but input and padding have 1 + 0 + 0 = 1; "
            "give a larger input, more padding or a smaller kernel."
        ),
    ),
    (
        "INPUT 1x9x4 -> CONV3-2 dilation=2 padding=0",
        (
            "In conv1 (line 1, column 16: CONV3-2 padding=0 dilation=2) with input 1x9x4: On spatial axis 1: the "
            "window spans 5 inputs (kernel=3, dilation=2), but input and padding have 4 + 0 + 0 = 4; "
            "give a larger input, more padding or a smaller kernel."
        ),
    ),
    (
        "INPUT 3x8x8 -> CONV3-8 groups=2",
        (
            "In conv1 (line 1, column 16: CONV3-8 groups=2) with input 3x8x8: groups=2 does not divide the 3 input "
            "channels; both channel counts must be multiples of the groups."
        ),
    ),
    (
        "INPUT 4x8x8 -> CONV3-9 groups=2",
        (
            "In conv1 (line 1, column 16: CONV3-9 groups=2) with input 4x8x8: groups=2 does not divide the 9 output "
            "channels; both channel counts must be multiples of the groups."
        ),
    ),
    (
        "INPUT 3x8x8 -> FC 2 -> CONV3-4",
        (
            "In conv1 (line 1, column 24: CONV3-4) with input 2: CONV slides over spatial axes, but its input (2,) has "
            "none left; put it before any FC."
        ),
    ),
    (
        "INPUT 3x8x8 -> POOL 2x2x2",
        (
            "In pool1 (line 1, column 16: POOL 2x2x2) with input 3x8x8: kernel=(2, 2, 2) has 3 entries; "
            "this window has 2 spatial axes."
        ),
    ),
    (
        "INPUT 3x8 -> CONV 3x3x4",
        (
            "In conv1 (line 1, column 14: CONV 3x3x4) with input 3x8: kernel=(3, 3) has 2 entries; "
            "this window has 1 spatial axis."
        ),
    ),
    (
        "INPUT 3x8x8 -> CONV3-4 padding=1x2x3",
        (
            "In conv1 (line 1, column 16: CONV3-4 padding=1x2x3) with input 3x8x8: padding=(1, 2, 3) has 3 entries; "
            "this window has 2 spatial axes."
        ),
    ),
    (
        "INPUT 3x8x8 -> AVGPOOL 2 padding=0:2x0",
        (
            "In avgpool1 (line 1, column 16: AVGPOOL padding=0:2x0) with input 3x8x8: On spatial axis 0: the window at "
            "output 4 would read only padding (size=8, Axis(kernel=2, stride=2, dilation=1, before=0, after=2, "
            "period=1)); give less padding or a larger input."
        ),
    ),
]


@pytest.mark.parametrize(("text", "message"), MISFITS, ids=[text[:40] for text, _ in MISFITS])
def test_a_layer_that_does_not_fit_is_named_with_its_place(text: str, message: str) -> None:
    for make in (describe, network):
        with pytest.raises(GeometryError) as caught:
            make(text)
        assert str(caught.value) == message


def test_a_layer_that_no_text_holds_is_named_without_a_place() -> None:
    architecture = Architecture((Node("input", Input((3, 8, 8))), Node("eye", Conv(9, 2, padding=0), ("input",))))
    with pytest.raises(GeometryError) as caught:
        describe(architecture)
    assert str(caught.value).startswith("In eye (CONV9-2 padding=0) with input 3x8x8: On spatial axis 0: the window")


REFUSED: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (
        "INPUT 3x8x8",
        None,
        {"foo": 3},
        OptionError,
        "the network has no variable 'foo'; it uses no names and leaves nothing open.",
    ),
    (
        "INPUT -> FC 4",
        None,
        {"classes": 7},
        OptionError,
        "classes=7 was given, but this network leaves no classes open: it says 4.",
    ),
    (
        "INPUT -> FC",
        None,
        {"classes": 0},
        OptionError,
        "classes=0: every number must be a whole number of at least 1.",
    ),
    *(
        (
            "INPUT -> FC",
            size,
            {},
            OptionError,
            f"input_size={size!r} must be (channels, *spatial), whole numbers of at least 1.",
        )
        for size in ((3,), (), 3, "3x8x8", (3, 0, 8), (3, 8.0), (3, True), None.__class__)
    ),
    (
        "lenet6",
        None,
        {},
        UnknownNameError,
        f"No network (nor a file) is called 'lenet6'. Did you mean 'lenet5'? Known: {', '.join(striate.zoo.names())}.",
    ),
]


@pytest.mark.parametrize(("source", "size", "variables", "kind", "message"), REFUSED)
def test_what_describe_refuses(
    source: Any, size: Any, variables: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        describe(source, size, **variables)
    assert str(caught.value) == message


def test_an_unreadable_text_is_a_notation_error() -> None:
    with pytest.raises(NotationError):
        describe("INPUT -> CNOV")


def test_a_description_is_a_value() -> None:
    assert isinstance(describe("lenet5"), Description)
    assert describe("lenet5") == describe("lenet5")
    assert describe("lenet5") != describe("lenet5", (1, 32, 32))


# ------------------------------------------------------------------------------------------------- the law: any graph


def brute_reads(architecture: Architecture) -> dict[str, dict[tuple[int, ...], set[tuple[int, ...]]]]:
    """For each node and each of its positions the input positions read: the definition, position by position."""
    shapes = architecture.shapes()
    found: dict[str, dict[tuple[int, ...], set[tuple[int, ...]]]] = {}
    for node in architecture:
        places = list(itertools.product(*map(range, shapes[node.name][1:])))
        if not node.inputs:
            found[node.name] = {place: {place} for place in places}
            continue
        found[node.name] = {place: set() for place in places}
        readings = node.operation.reads(*(shapes[name] for name in node.inputs))
        for name, reading in zip(node.inputs, readings, strict=True):
            if reading == NO_VALUES:
                continue
            assert not isinstance(reading, str)
            for place in places:
                axes = [range(r.inputs) if axis is None else r.reads(place[axis]) for axis, r in reading]
                for source in itertools.product(*axes):
                    found[node.name][place] |= found[name][source]
    return found


PARTS = [
    *("CONV3-4 padding=1", "CONV3-4 padding=0", "CONV 2x3x4 stride=2x1 padding=0:1x1", "CONV3-4 dilation=2 padding=2"),
    *("CONV1-4 stride=2", "CONV3-4 dilation=3 padding=3", "DWCONV 3 stride=2 padding=1", "POOL 3 stride=2 padding=1"),
    *("DECONV2-4", "DECONV3-4 stride=2 padding=1", "DECONV2-4 stride=3", "UPSAMPLE 2", "UPSAMPLE 2 mode=linear"),
    *("UPSAMPLE 3x2 mode=linear", "RELU", "BN", "CROP 1", "PAD 1", "PAD 1:0x2", "POOL", "AVGPOOL 3 stride=1 padding=1"),
    *(
        "SUM[IDENTITY | CONV3-4]",
        "CONCAT[CONV 1x5x2 | CONV 5x1x2]",
        "SUM[CONV1-4 stride=2 | CONV3-4 stride=2 padding=1]",
    ),
    *("CONCAT[POOL 3 stride=1 padding=1 | CONV 1x3x2 | CONV3-2 dilation=2]", "PIXELUNSHUFFLE 1", "SHUFFLE 2"),
    *("SUM[CONV3-4 stride=2 padding=1 -> UPSAMPLE 2 | IDENTITY]", "PRODUCT[IDENTITY | GLOBALAVGPOOL -> SIGMOID]"),
    *("ADAPTIVEAVGPOOL 3x4", "CONCAT[CONV 1x3x2 -> CONV 3x1x2 | CONV1-2]", "RESIZE 5x7 mode=linear", "IN"),
    "SUM[POOL 2 -> DECONV2-4 | IDENTITY]",
]


@settings(deadline=None, max_examples=150)
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
)
@example(size=(9, 9), parts=["CONV3-4 padding=0", "PAD 1", "CONV3-4 dilation=2 padding=2"])
@example(size=(9, 9), parts=["DECONV2-4 stride=3", "CONV3-4 dilation=2 padding=2"])
@example(size=(8, 8), parts=["CONCAT[CONV 1x5x2 | CONV 5x1x2]", "CONCAT[CONV 1x5x2 | CONV 5x1x2]"])
def test_the_table_of_any_graph_is_its_brute_force(size: tuple[int, int], parts: list[str]) -> None:
    text = " -> ".join([f"INPUT 4x{size[0]}x{size[1]}", *parts])
    try:
        table = describe(text)
    except GeometryError:
        return
    reads = brute_reads(table.architecture or Architecture(()))
    for row in table.rows:
        check_graph_row(row, reads[row.name], size)


def check_graph_row(row: Row, reads: dict[tuple[int, ...], set[tuple[int, ...]]], size: tuple[int, ...]) -> None:
    boxes = {place: tuple(span(pixels, axis) for axis in range(2)) for place, pixels in reads.items()}
    assert row.receptive_field == tuple(max(box[axis] for box in boxes.values()) for axis in range(2))
    assert row.unread == prod(size) - len(set().union(*reads.values()))
    most = max(map(len, reads.values()))
    if row.coverage is None:
        assert most == 0
    else:
        assert row.coverage in {most / prod(boxes[place]) for place, pixels in reads.items() if len(pixels) == most}


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=3))
def test_on_an_endless_input_the_middle_sees_what_endless_says(parts: list[str]) -> None:
    """On an input that is large enough, the largest box is that of an endless one."""
    try:
        table = describe(" -> ".join(["INPUT 4x61x59", *parts]))
    except GeometryError:
        return
    for row in table.rows:
        if row.endless is not None and "ADAPTIVE" not in str(parts) and "RESIZE" not in str(parts):
            assert row.endless == row.receptive_field


# -------------------------------------------------------------------------------------------- the evidence page's cases

EVIDENCE = [
    ("INPUT 4x32x32 -> DECONV4-8 stride=2 padding=1", 16 * 4 * 8 * 32 * 32, (4, 4)),  # not stride^2 times as many
    ("INPUT 4x32x32 -> DECONV4-8 stride=4", 16 * 4 * 8 * 32 * 32, (1, 1)),
    ("INPUT 8x32x32 -> DECONV4-8 stride=2 padding=1 groups=8", 16 * 8 * 32 * 32, (2, 2)),
    ("INPUT 4x32x32 -> SUM[CONV3-4 -> CONV3-4 -> CONV3-4 -> CONV3-4 | CONV5-4]", (4 * 9 + 25) * 16 * 1024, (9, 9)),
    ("INPUT 4x32x32 -> CONV 1x7x4 -> CONV 7x1x4", 2 * 7 * 16 * 1024, (7, 7)),
]


@pytest.mark.parametrize(("text", "macs", "field"), EVIDENCE)
def test_what_other_tools_get_wrong(text: str, macs: int, field: tuple[int, int]) -> None:
    table = describe(text)
    assert table.totals.macs == macs
    assert table.rows[-1].receptive_field == (field if "DECONV" not in text else table.rows[-1].endless)


def test_an_8k_picture_is_described() -> None:
    table = describe("vgg16", (3, 8192, 8192))
    assert table["pool5"].receptive_field == (212, 212)
    assert table["pool5"].coverage == 1.0
    assert table["pool5"].output_shape == (512, 256, 256)


# ----------------------------------------------------------------------------- the law: the support of the gradient

# Operations whose gradient, with positive weights, is positive wherever there is a path.
POSITIVE = [
    *("CONV3-4 padding=1", "CONV3-4 padding=0", "CONV 2x3x4 stride=2x1 padding=0:1x1", "CONV3-4 dilation=2 padding=2"),
    *("CONV1-4 stride=2", "DWCONV 3 stride=2 padding=1", "DECONV2-4", "DECONV3-4 stride=2 padding=1", "LOCAL3-4"),
    *("DECONV2-4 stride=3", "DECONV3-4 dilation=2 stride=2 groups=2", "DECONV3-4 stride=2 padding=1 output_padding=1"),
    *("UPSAMPLE 2", "UPSAMPLE 2 mode=linear", "UPSAMPLE 3x2 mode=linear align_corners=yes", "RESIZE 5x7 mode=linear"),
    *("RELU", "BN", "CROP 1", "PAD 1:0x2", "AVGPOOL", "AVGPOOL 3 stride=1 padding=1", "AVGPOOL 2 ceil=yes", "SCALE"),
    *("SUM[IDENTITY | CONV3-4]", "CONCAT[CONV 1x5x2 | CONV 5x1x2]", "SUM[AVGPOOL 2 -> DECONV2-4 | IDENTITY]"),
    *("CONCAT[AVGPOOL 3 stride=1 padding=1 | CONV 1x3x2 | CONV3-2 dilation=2]", "ADAPTIVEAVGPOOL 3x4", "FC 4"),
    *("PRODUCT[IDENTITY | GLOBALAVGPOOL -> CONV1-4]", "PIXELSHUFFLE 2 -> CONV3-4", "TILED3-4 stride=2", "GAUSSPOOL 3"),
]


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    parts=st.lists(st.sampled_from(POSITIVE), min_size=1, max_size=3),
)
def test_the_table_of_any_graph_is_the_support_of_its_gradient(size: tuple[int, int], parts: list[str]) -> None:
    text = " -> ".join([f"INPUT 4x{size[0]}x{size[1]}", *parts])
    try:
        table = describe(text)
    except GeometryError:
        return
    net = positive(network(text))
    x = torch.ones(1, 4, *size, dtype=torch.float64, requires_grad=True)
    outputs = dict(zip((name for name, _ in net.named_children()), outputs_of(net, x), strict=True))
    for row in table.rows[1:]:
        output = outputs[row.name]
        assert tuple(output.shape) == (1, *row.output_shape)
        places = output.reshape(1, row.output_shape[0], *(row.output_shape[1:] or (1,)))
        check_graph_row(row, supports(places.sum(1, keepdim=True), x), size)
