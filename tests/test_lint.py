"""The linter: every rule with numbers from hand or brute force, its near misses, and the published networks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import entry_points
from io import StringIO
from math import e, log, prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate import lint, zoo
from striate.architecture import Architecture, Node
from striate.errors import GeometryError, NotationError, OptionError, UnknownNameError
from striate.facts import Facts
from striate.field_rules import nearest_rates
from striate.findings import RULES, Finding, exit_code, percent, sarif, summary, text, to_json
from striate.inspection import check
from striate.lint import check_paper, findings, path_of
from striate.networks import network
from striate.operations import Conv, Foreign, Input, ReLU
from striate.pytest_plugin import assert_clean
from striate.receptive_field import dilated_coverage, largest_gap
from striate.relations import Relation
from striate.tracing import trace

from .work import calls

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "lint"


def of(code: str, found: Sequence[Finding]) -> list[Finding]:
    return [one for one in found if one.code == code]


def only(code: str, *arguments: Any, **options: Any) -> Finding:
    (found,) = of(code, check_paper(*arguments, **options))
    return found


# ------------------------------------------------------------------------------------- STR001, STR002: unread positions


def rows_read(layers: Sequence[tuple[int, int]], size: int) -> int:
    """Rows of the input that stacked windows (kernel, stride) without padding read: position by position."""
    sizes = [size]
    for kernel, stride in layers:
        sizes.append((sizes[-1] - kernel) // stride + 1)
    read = set(range(sizes[-1]))
    for kernel, stride in reversed(layers):
        read = {o * stride + tap for o in read for tap in range(kernel)}
    return len(read)


def test_three_by_three_with_stride_two_loses_447_pixels_of_224() -> None:
    assert 224**2 - rows_read([(3, 2)], 224) ** 2 == 447
    found = only("STR001", "INPUT 3x224x224 -> CONV3-8 stride=2 padding=0 -> RELU -> FC 10")
    assert found.message == (
        "conv1 never reads 447 of the 50,176 positions of input (0.9 %); 447 input pixels (0.9 %) are lost here."
    )
    assert found.evidence == {"positions": 447, "share": 447 / 50176, "pixels": 447, "pixel_share": 447 / 50176}
    assert (found.severity, found.node, found.line, found.column) == ("info", "conv1", 1, 20)
    assert found.fix == "padding=0:1x0:1 on conv1: one more window reads the rest."
    assert of("STR001", check_paper("INPUT 3x224x224 -> CONV3-8 stride=2 padding=0:1x0:1 -> RELU -> FC 10")) == []


def test_four_times_convolution_and_pooling_lose_a_tenth_of_100() -> None:
    rows = [100 - rows_read([(3, 1), (2, 2)] * times, 100) for times in (1, 2, 3, 4)]
    assert rows == [0, 2, 6, 6]
    pixels = [100**2 - (100 - lost) ** 2 for lost in rows]
    first, second = sorted(
        of("STR001", check_paper("INPUT 3x100x100" + " -> CONV3-8 padding=0 -> RELU -> POOL2" * 4 + " -> FC 10")),
        key=lambda one: one.column,
    )
    assert (first.node, second.node) == ("pool2", "pool3")
    assert (first.evidence["pixels"], second.evidence["pixels"]) == (pixels[1], pixels[2] - pixels[1]) == (396, 768)
    assert first.evidence["positions"] == 47**2 - 46**2
    assert second.evidence["positions"] == 21**2 - 20**2
    assert second.evidence["network_pixels"] == pixels[3] == 1164
    assert second.evidence["network_pixel_share"] == 0.1164
    assert second.message == (
        "pool3 never reads 41 of the 441 positions of conv3 (9.3 %); 768 input pixels (7.7 %) are lost here, "
        "1,164 (11.6 %) in the whole network."
    )
    assert {first.severity, second.severity} == {"warning"}
    assert first.fix == "ceil=yes on pool2: one more window reads the rest."


def test_a_shortcut_is_judged_with_its_sibling() -> None:
    chain = "INPUT 3x32x32 -> CONV3-16 -> RELU -> {} -> RELU -> FC 10"
    alone = only("STR002", chain.format("CONV1-32 stride=2"))
    assert alone.message == (
        "conv2 steps over 768 of the 1,024 positions of conv1 (75.0 %), and no other layer reads them."
    )
    assert alone.evidence == {"positions": 768, "share": 0.75, "stride": 2, "extent": 1}
    assert alone.severity == "warning"
    assert check_paper(chain.format("SUM[CONV1-32 stride=2 | CONV3-32 stride=2 padding=1]")) == []
    assert check_paper(chain.format("SUM[CONV1-32 stride=2 | RELU -> BN -> CONV3-32 stride=2 padding=1]")) == []
    both = only("STR002", chain.format("SUM[CONV1-32 stride=2 | CONV1-32 stride=2]"))
    assert both.message == (
        "conv2 and conv3 step over 768 of the 1,024 positions of conv1 (75.0 %), and no other layer reads them."
    )


UNREAD = [
    ("CONV3-4 stride=2 dilation=2 padding=0", "STR002", 10 * 10 - 25),  # rows 0, 2, 4, 6, 8
    ("POOL 3", "STR001", 10 * 10 - 81),
    ("CONV3-4 stride=2 padding=1", None, 0),  # the row that is left over is padding
    ("CONV2-4 stride=2 padding=1", None, 0),
    ("POOL 3 ceil=yes", None, 0),
    ("CROP 1", None, 0),  # what is cut off on purpose
    ("CONCAT[CROP 0:1x0:1 | CROP 1:0x1:0]", None, 0),
    ("AVGPOOL 3 stride=1", None, 0),
]


@pytest.mark.parametrize(("layers", "code", "count"), UNREAD)
def test_positions_that_nobody_reads(layers: str, code: str | None, count: int) -> None:
    found = [one for one in check_paper(f"INPUT 2x10x10 -> {layers}") if one.code in ("STR001", "STR002")]
    assert [(one.code, one.evidence["positions"]) for one in found] == ([(code, count)] if code else [])


def test_holes_are_told_apart_from_what_is_left_over() -> None:
    """Rows 0, 1, 4, 5, 8, 9 of 10 and of 11 columns: the last column is no gap between windows."""
    chain = "INPUT 3x10x11 -> CONV2-8 stride=4 padding=0 -> RELU -> FC 2"
    hole, tail = only("STR002", chain), only("STR001", chain)
    assert (hole.evidence["positions"], tail.evidence["positions"]) == (10 * 10 - 36, 10)
    assert tail.evidence["pixels"] == 10
    assert tail.evidence["network_pixels"] == 110 - 36
    assert tail.fix == "a kernel of at least 4 for conv1, or its stride in a layer that has one."  # column 12 is none
    pool = "INPUT 2x10x10 -> POOL 2 stride=3 -> CONV3-4"  # its third window and the gap behind that end at row 8
    assert only("STR002", pool).evidence["positions"] == 81 - 36
    assert only("STR001", pool).evidence["positions"] == 100 - 81
    behind = only("STR001", "INPUT 2x12x12 -> CONV3-4 padding=0 -> RELU -> POOL 2 stride=3 -> CONV3-4")
    assert (behind.evidence["positions"], behind.severity) == (100 - 81, "info")
    assert "pixels" not in behind.evidence  # those of the holes and those of the rest are not told apart


@pytest.mark.parametrize(
    ("layers", "lost"),
    [
        ("CONV3-8 stride=2 padding=1 -> RELU -> CONV1-2", 0),  # 225 is odd, and all of it is read
        ("POOL 2 -> CONV1-2", 225**2 - 224**2),
        ("CONV1-8 -> RELU -> [POOL 2]*3 -> CONV1-2", 225**2 - 224**2),
        ("CONV3-8 stride=2 padding=1 -> RELU -> POOL 2 -> CONV1-2", 225**2 - 224**2),
    ],
)
def test_a_stride_that_does_not_divide_is_a_finding_where_pixels_are_lost(layers: str, lost: int) -> None:
    found = check_paper(f"INPUT 3x225x225 -> {layers}")
    assert sum(one.evidence["pixels"] for one in of("STR001", found)) == lost
    assert of("STR005", found) == []


def test_a_map_that_is_also_an_output_is_read() -> None:
    chain = "INPUT 3x32x32 -> CONV3-16 -> RELU -> {} CONV1-32 stride=2"
    assert of("STR002", check_paper(chain.format(""))) != []
    assert of("STR002", check_paper(chain.format("AUX[IDENTITY] ->"))) == []


def test_resnet_with_its_stride_in_the_1x1_has_holes() -> None:
    found = only("STR002", "resnet50", paper=1)
    assert (found.evidence["share"], found.repeats) == (0.75, 2)
    assert of("STR002", check_paper("resnet50")) == []


def test_complementary_readers_are_counted_as_a_union() -> None:
    """Two windows that read half of the map each, and a corner that neither does."""
    found = only(
        "STR001", "INPUT 1x9x9 -> SUM[CONV2-4 stride=2 padding=0 | CROP 0:1x0:1 -> CONV2-4 stride=2 padding=0] -> FC 2"
    )
    assert found.evidence["positions"] == 81 - 64


# ---------------------------------------------------------------------------------------------- STR003, STR004: padding


def test_taps_that_only_meet_padding() -> None:
    found = only("STR003", "INPUT 3x8x8 -> [CONV3-8 -> RELU -> POOL2]*3 -> CONV3-16 -> RELU -> FC 10")
    assert found.message == (
        "8 of the 9 taps of conv4 meet nothing but padding on an input of 1x1: 1,024 of its 1,152 weights never learn."
    )
    assert found.evidence == {
        "dead_taps": 8, "taps": 9, "dead_weights": 8 * 8 * 16, "dead_share": 8 / 9, "size": (1, 1),
    }  # fmt: skip
    assert found.fix == "kernel=1x1 on conv4."


def test_the_dead_taps_get_no_gradient() -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1)
    layer(torch.randn(2, 8, 1, 1)).square().sum().backward()
    assert layer.weight.grad is not None
    assert int((layer.weight.grad == 0).sum()) == 1024


PADDING = [
    ("INPUT 1x14x14 -> CONV3-4 dilation=18", "STR003", 8),
    ("INPUT 1x14x14 -> CONV3-4 dilation=13", "STR004", None),  # the outermost taps meet the outermost positions
    ("INPUT 1x2x2 -> CONV3-4", "STR004", None),
    ("INPUT 1x3x3 -> CONV3-4", None, None),
    ("INPUT 1x2x2 -> CONV3-4 border=reflect", None, None),
    ("INPUT 1x2x2 -> DWCONV3", "STR004", None),
    ("INPUT 1x7x7 -> CONV 3x1x4", None, None),
    ("INPUT 1x1x7 -> CONV 3x1x4", "STR003", 2),
]


@pytest.mark.parametrize(("layers", "code", "dead"), PADDING)
def test_padding(layers: str, code: str | None, dead: int | None) -> None:
    found = [one for one in check_paper(layers) if one.code in ("STR003", "STR004")]
    assert [one.code for one in found] == ([code] if code else [])
    if dead:
        assert found[0].evidence["dead_taps"] == dead


def test_a_dilated_branch_next_to_a_dense_one_may_meet_padding() -> None:
    chain = "INPUT 3x14x14 -> CONCAT[{} | CONV3-8 dilation=12] -> RELU -> CONV1-2"
    assert of("STR004", check_paper(chain.format("CONV1-8"))) == []
    assert of("STR004", check_paper(chain.format("CONV3-8"))) == []
    assert only("STR004", chain.format("CONV3-8 dilation=6")).node == "conv2"
    assert only("STR004", "INPUT 3x2x2 -> CONCAT[CONV1-8 | CONV3-8] -> RELU -> CONV1-2").node == "conv2"


def test_the_share_of_padding_is_counted() -> None:
    found = only("STR004", "INPUT 1x2x2 -> CONV3-4")
    real = sum(0 <= o + t < 2 for o in range(2) for t in (-1, 0, 1))
    assert found.evidence["padding_share"] == pytest.approx(1 - (real / 6) ** 2)
    assert found.message == "55.6 % of what conv1 reads is padding: its kernel is 3x3, its input 2x2."


# -------------------------------------------------------------------------------------------------------- STR005: sizes

LADDER = (
    "INPUT 1x{}x{} -> CONV3-8 -> RELU as a -> POOL -> CONV3-8 -> RELU as b -> POOL -> CONV3-8 -> RELU"
    " -> UPSAMPLE 2 -> CONCAT[IDENTITY | from b] -> CONV3-8 -> RELU"
    " -> UPSAMPLE 2 -> CONCAT[IDENTITY | from a] -> CONV1-1"
)


def test_a_size_that_the_skips_do_not_survive() -> None:
    (found,) = check_paper(LADDER.format(30, 30))
    assert found.message == (
        "concat1 cannot join 8x14x14 and 8x15x15: the total stride 4 in front of it does not fit the input 1x30x30."
    )
    assert found.evidence == {"total_stride": 4, "input": (1, 30, 30), "fitting": ["1x28x28", "1x32x32"]}
    assert (found.code, found.severity, found.node) == ("STR005", "error", "concat1")
    assert found.fix == "an input of 1x28x28 or 1x32x32, or CROP or RESIZE in front of concat1."
    assert exit_code([found]) == 1
    for size in found.evidence["fitting"]:
        assert of("STR005", check_paper(LADDER.format(*size.split("x")[1:]))) == []


def test_axes_are_rounded_by_themselves_where_they_differ() -> None:
    (found,) = check_paper(LADDER.format(30, 33))
    assert found.evidence["fitting"] == ["1x28x32", "1x32x36"]


def test_what_no_size_mends_is_an_error_of_sizes() -> None:
    with pytest.raises(GeometryError, match="SUM needs branches of one size"):
        check_paper("INPUT 1x8x8 -> SUM[CONV3-4 padding=0 | CONV3-4]")
    with pytest.raises(GeometryError, match="the window spans 5 inputs"):
        check_paper("INPUT 1x4x4 -> CONV5-4 padding=0")


def test_the_error_of_a_size_can_be_ignored_like_any_other() -> None:
    assert check_paper(LADDER.format(30, 30) + " # striate: ignore[STR005]") == []


# ----------------------------------------------------------------------------------------------------- STR011: gridding


def places(rates: Sequence[int], kernel: int) -> set[int]:
    """What one output reads on one axis, by trying every choice of taps."""
    found = {0}
    for rate in rates:
        found = {place + tap * rate for place in found for tap in range(kernel)}
    return found


GRIDS = [
    ((2, 2, 2), 3),
    ((1, 2, 9), 3),
    ((2, 4, 6), 3),
    ((4, 4), 3),
    ((3, 3), 3),
    ((1, 4), 3),
    ((2, 2), 5),
    ((5, 7), 4),
]


@pytest.mark.parametrize(("rates", "kernel"), GRIDS)
def test_gridding_is_counted(rates: tuple[int, ...], kernel: int) -> None:
    layers = "".join(f" -> CONV{kernel}-1 dilation={rate} -> RELU" for rate in rates)
    found = only("STR011", f"INPUT 1x99x99{layers}")
    read, span = len(places(rates, kernel)), max(places(rates, kernel)) + 1
    assert (found.evidence["read"], found.evidence["span"]) == (read**2, span**2)
    assert (found.evidence["rates"], found.evidence["kernel"]) == (rates, kernel)
    better = found.evidence["better"]
    assert len(places(better, kernel)) == max(places(better, kernel)) + 1


def test_the_numbers_of_the_evidence() -> None:
    found = only("STR011", "INPUT 1x64x64 -> [CONV3-1 dilation=2 -> RELU]*3")
    assert found.message == (
        "conv1, conv2 and conv3 with dilations 2, 2, 2 read 49 of the 169 positions that they span (29.0 %)."
    )
    assert found.fix == "dilations 1, 2, 3: they read all 13 positions that they span on an axis."
    assert found.evidence["coverage"] == 49 / 169


DENSE = [
    "CONV3-1 -> RELU -> CONV3-1 dilation=2 -> RELU -> CONV3-1 dilation=5 -> RELU",
    "CONV3-1 dilation=2 -> RELU -> CONV3-1 -> RELU",  # the dense layer fills the gaps
    "CONV3-1 dilation=2 -> RELU",  # one layer is no stack
    "CONV3-1 dilation=2 -> RELU -> POOL2 -> CONV3-1 dilation=2 -> RELU -> POOL 2",
    "CONV3-1 -> RELU -> [CONV3-1 dilation=2 -> RELU]*3",
    "[CONV 2-1 dilation=1 padding=1:0x1:0 -> RELU -> CONV 2-1 dilation=2 padding=2:0x2:0 -> RELU]",
    "SUM[CONV3-1 dilation=2 -> RELU -> CONV3-1 dilation=2 | CONV5-1 -> RELU -> CONV5-1] -> RELU",
    "[CONV1-1 dilation=2 -> RELU]*3",
]


@pytest.mark.parametrize("layers", DENSE)
def test_no_gridding(layers: str) -> None:
    assert of("STR011", check_paper(f"INPUT 1x64x64 -> {layers}")) == []


def test_gridding_is_seen_behind_a_strided_stem_and_along_one_axis() -> None:
    stem = "INPUT 3x64x64 -> CONV7-8 stride=2 padding=3 -> RELU -> POOL 2"
    assert only("STR011", f"{stem} -> [CONV3-8 dilation=2 -> RELU]*3").evidence["coverage"] == 49 / 169
    assert only("STR011", f"{stem} -> [CONV3-8 dilation=2x1 -> RELU]*3").evidence["coverage"] == 7 / 13
    residual = f"{stem} -> [SUM[CONV3-8 dilation=2 -> RELU | IDENTITY]]*3"
    assert only("STR011", residual).evidence["read"] == 49


PYRAMIDS = [
    ("CONV3-8", "CONCAT[CONV1-8 | CONV3-8 dilation=6 | CONV3-8 dilation=12]", []),
    ("CONV3-8", "CONCAT[CONV1-8 | CONV3-8 dilation=6 | CONV3-8 dilation=12] -> CONV3-4", []),
    ("CONV3-8", "CONCAT[CONV1-8 | CONV3-8 dilation=6 | CONV3-8 dilation=12 | GLOBALAVGPOOL -> RESIZE 64x64]", []),
    ("CONV3-8", "CONCAT[CONV3-8 dilation=6 | CONV3-8 dilation=12 | GLOBALAVGPOOL -> RESIZE 64x64]", []),
    ("CONV3-8", "SUM[CONV3-8 dilation=6 | CONV3-8 dilation=12]", ["conv2"]),
    ("CONV3-8 dilation=2", "CONCAT[CONV1-8 | CONV3-8 dilation=2 | CONV3-8 dilation=4]", ["conv3"]),
    ("CONV3-8 dilation=2", "PRODUCT[GLOBALAVGPOOL -> CONV1-8 -> SIGMOID | CONV3-8 dilation=2]", ["conv3"]),
]


@pytest.mark.parametrize(("stem", "branches", "nodes"), PYRAMIDS)
def test_dilated_branches_are_judged_together(stem: str, branches: str, nodes: list[str]) -> None:
    found = of("STR011", check_paper(f"INPUT 3x64x64 -> {stem} -> RELU -> {branches} -> RELU -> CONV1-2"))
    assert [one.node for one in found] == nodes


def test_branches_without_a_dense_one_read_their_union() -> None:
    found = only("STR011", "INPUT 1x64x64 -> CONV3-1 -> RELU -> SUM[CONV3-1 dilation=6 | CONV3-1 dilation=12] -> RELU")
    pairs = [{(a, b) for a in places((1, rate), 3) for b in places((1, rate), 3)} for rate in (6, 12)]
    moved = {(a + 12 - 6, b + 12 - 6) for a, b in pairs[0]} | pairs[1]
    assert (found.evidence["read"], found.evidence["span"]) == (len(moved), 27 * 27)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(2, 7))
def test_the_nearest_rates_have_no_holes(rates: list[int], kernel: int) -> None:
    better = nearest_rates(rates, kernel)
    assert len(better) == len(rates)
    read, span = dilated_coverage(better, kernel)
    assert read == span
    for first in range(0, len(rates), 3):
        assert largest_gap(better[first : first + 3]) <= kernel


@given(st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_no_valid_rates_span_more_nearly_as_much(rates: list[int]) -> None:
    valid = [
        (a, b, c)
        for a in range(1, 13)
        for b in range(a, 13)
        for c in range(b, 13)
        if largest_gap((a, b, c)) <= 3 and len(places((a, b, c), 3)) == 2 * (a + b + c) + 1
    ]
    assert abs(sum(nearest_rates(rates)) - sum(rates)) == min(abs(sum(one) - sum(rates)) for one in valid)


# ------------------------------------------------------------------------------------------------- STR012: checkerboard


def profile(kernel: int, stride: int, dilation: int) -> set[int]:
    """How often a transposed convolution writes its interior outputs: ones through a kernel of ones."""
    layer = nn.ConvTranspose1d(1, 1, kernel, stride=stride, dilation=dilation, bias=False)
    layer.weight.data.fill_(1.0)
    extent = dilation * (kernel - 1) + 1
    whole = layer(torch.ones(1, 1, 40)).flatten().int().tolist()
    return set(whole[extent : len(whole) - extent])


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6])
def test_the_overlap_is_that_of_ones(kernel: int, stride: int, dilation: int) -> None:
    written = f"INPUT 2x16x16 -> DECONV {kernel}-4 stride={stride} dilation={dilation} -> RELU -> CONV3-1"
    found = of("STR012", check_paper(written))
    counts = profile(kernel, stride, dilation)
    assert bool(found) == (len(counts) > 1)
    if found:
        assert set(found[0].evidence["profile"]) == counts


def test_the_checkerboard_of_three_by_two() -> None:
    found = only("STR012", "INPUT 8x16x16 -> DECONV3-8 -> RELU -> CONV3-1")
    assert found.message == (
        "deconv1 sums 2-1-2-1 inputs at neighbouring outputs: its kernel 3 overlaps unevenly at stride 2."
    )
    assert found.evidence == {"profile": (2, 1), "kernel": 3, "stride": 2, "dilation": 1}
    assert found.fix == "kernel=4 with stride=2 and dilation=1, or UPSAMPLE 2 -> CONV3."


def test_a_stride_that_divides_the_kernel_is_not_enough() -> None:
    found = only("STR012", "INPUT 8x16x16 -> DECONV4-8 dilation=2 -> RELU -> CONV3-1")
    assert found.evidence["profile"] == (4, 0)


# ------------------------------------------------------------------------------------ STR013, STR014: fields and images


def test_vgg16_on_small_images() -> None:
    found = only("STR013", "vgg16", (3, 32, 32))
    # Conv (3, 1) and pool (2, 2), as the field grows: 5, 6, 14, 16, 40, 44 after the third pooling.
    size, jump = 1, 1
    for layers in (2, 2, 3):
        size += layers * 2 * jump + jump
        jump *= 2
    assert (size, found.evidence["field"]) == (44, (44, 44))
    parameters = 256 * 512 * 9 + 512 + 5 * (512 * 512 * 9 + 512)
    assert found.evidence["parameters"] == parameters == 12_979_200
    assert (found.evidence["layers"], found.evidence["all_layers"], found.severity) == (6, 13, "warning")
    assert found.message == (
        "the input of conv8 already sees 44x44, the image has 32x32: 6 of 13 convolutions wider than 1 stand behind "
        "that, with 12,979,200 parameters."
    )
    assert of("STR013", check_paper("vgg16", (3, 44, 44))) != []
    assert of("STR013", check_paper("vgg16")) == []


UNPRODUCTIVE = [
    ("[CONV3-4 -> RELU]*4", None),  # the input of the last sees 7 of 8
    ("[CONV3-4 -> RELU]*5", "info"),  # 9 of 8: the last one
    ("[CONV3-4 -> RELU]*6", "warning"),
    ("[CONV3-4 -> RELU]*4 -> [CONV1-4 -> RELU]*9", None),  # 1x1 windows see nothing more anyway
    ("CONV3-4 -> [SUM[CONV3-4 -> RELU | IDENTITY]]*9", None),  # the shortest way decides
    ("CONV3-4 -> RELU -> [CONCAT[CONV1-4 | CONV3-4] -> RELU]*9", None),
    ("[CONV3-4 -> RELU]*5 -> GLOBALAVGPOOL -> FC 10", "info"),
]


@pytest.mark.parametrize(("layers", "severity"), UNPRODUCTIVE)
def test_unproductive_layers(layers: str, severity: str | None) -> None:
    found = of("STR013", check_paper(f"INPUT 3x8x8 -> {layers}"))
    assert [one.severity for one in found] == ([severity] if severity else [])


def test_a_field_must_be_larger_on_every_axis() -> None:
    assert of("STR013", check_paper("INPUT 3x8x64 -> [CONV3-4 -> RELU]*6")) == []
    assert of("STR013", check_paper("INPUT 3x8x1 -> [CONV 3x1x4 -> RELU]*6")) != []


def test_objects_larger_than_the_field() -> None:
    small = "INPUT 1x64x64 -> [CONV3-8 -> RELU]*2 -> {}"
    found = only("STR014", small.format("GLOBALAVGPOOL -> FC 2"), object_size=20)
    assert found.message == "relu2 sees 5x5 input positions, the objects have 20x20."
    assert found.evidence == {"field": (5, 5), "object": (20, 20)}
    assert of("STR014", check_paper(small.format("GLOBALAVGPOOL -> FC 2"), object_size=5)) == []
    assert of("STR014", check_paper(small.format("GLOBALAVGPOOL -> FC 2"), object_size=(5, 6))) != []
    assert of("STR014", check_paper(small.format("GLOBALAVGPOOL -> FC 2"))) == []
    assert of("STR014", check_paper(small.format("FC 2"), object_size=20)) == []
    assert of("STR014", check_paper(small.format("CONV1-2"), object_size=20)) != []


@pytest.mark.parametrize("size", [0, "3", (3, 3, 3), 1.5])
def test_an_object_size_is_whole_numbers(size: Any) -> None:
    with pytest.raises(OptionError) as caught:
        check_paper("lenet5", object_size=size)
    assert str(caught.value) == (f"object_size={size!r} must be a whole number of at least 1, or one for each axis.")


@pytest.mark.parametrize("layer", ["POOL 2 stride=4", "CONV2-4 stride=4 padding=0", "CONV2-4 stride=4 padding=0:0x0:0"])
def test_one_more_window_is_proposed_only_where_it_reads_something(layer: str) -> None:
    """Of 7 positions, windows at 0 and 4 leave the last; the next would begin at 8."""
    words = "a kernel of at least 4 for {}, or its stride in a layer that has one."
    found = check_paper(f"INPUT 1x7x7 -> {layer} -> FC 3")
    name = "pool1" if layer.startswith("POOL") else "conv1"
    assert [of(code, found)[0].fix for code in ("STR001", "STR002")] == [words.format(name)] * 2


# -------------------------------------------------------------------------------------------- STR015, STR016: alignment

SHIFTS = [
    ("CONV2-8 -> RELU -> CONV1-1", "info", 0.5, 0.5),
    ("[CONV2-8 -> RELU]*2 -> CONV1-1", "warning", 1.0, 1.0),
    ("[CONV2-8 -> RELU]*2 -> FC 2", "info", 1.0, 1.0),  # it takes all positions together anyway
    ("POOL2 -> [CONV4-8 -> RELU]*2 -> CONV1-1", "warning", 2.0, 1.0),  # each half of a jump of 2
    ("CONV2-8 -> RELU -> CONV2-8 padding=same_lower -> RELU -> CONV1-1", None, 0, 0),
    ("CONV3-8 -> RELU -> CONV1-1", None, 0, 0),
    ("CONV2-8 padding=causal -> RELU -> CONV1-1", None, 0, 0),
    ("CONV4-8 padding=3:0x3:0 -> RELU -> CONV1-1", None, 0, 0),
    ("POOL 2 -> CONV3-8 -> RELU -> CONV1-1", None, 0, 0),  # a pooling's blocks are where they are
    ("POOL 2 stride=1 padding=0:1x0:1 -> CONV1-1", "info", 0.5, 0.5),
    ("CONV3-8 dilation=2 -> RELU -> CONV1-1", None, 0, 0),
    ("CONV5-8 padding=1:3x1:3 -> RELU -> CONV1-1", None, 0, 0),  # wanted: an odd kernel has a middle
]


@pytest.mark.parametrize(("layers", "severity", "shift", "positions"), SHIFTS)
def test_even_kernels_shift(layers: str, severity: str | None, shift: float, positions: float) -> None:
    found = of("STR015", check_paper(f"INPUT 3x64x64 -> {layers}"))
    assert [(one.severity, one.evidence["shift"], one.evidence["positions"]) for one in found] == (
        [(severity, shift, positions)] if severity else []
    )


def test_the_shift_in_words() -> None:
    found = only("STR015", "INPUT 3x64x64 -> [CONV2-8 -> RELU]*2 -> CONV1-1")
    assert found.message == (
        "2 layers from conv1 to conv2 have an even extent and same padding: the map moves by 1 input position "
        "(1 of its own)."
    )
    single = only("STR015", "INPUT 3x64x64 -> CONV2-8 -> RELU -> CONV1-1")
    assert single.message == (
        "conv1 has an even extent and same padding: the map moves by 0.5 input positions (0.5 of its own)."
    )


BRANCHES = [
    ("SUM[CONV3-8 padding=2 -> CROP 0:2x0:2 | CONV3-8]", "warning", 1.0),
    ("SUM[CONV3-8 padding=2 -> CROP 1 | CONV3-8]", None, 0),
    ("SUM[CONV1-8 stride=2 | CONV3-8 stride=2]", "info", 1.0),  # same padding of an even size is all behind
    ("SUM[CONV1-8 stride=2 | CONV3-8 stride=2 padding=1]", None, 0),
    ("CONCAT[CONV1-8 | CONV3-8 | CONV 1x7x8 | POOL 3 stride=1 padding=1]", None, 0),
    ("CONCAT[IDENTITY | POOL 2 -> CONV3-8 -> DECONV2-8]", None, 0),  # on average over the two phases
    ("CONCAT[IDENTITY | CONV3-8 stride=2 padding=1 -> RELU -> UPSAMPLE 2]", "info", 0.5),
    ("SUM[CONV2-8 padding=causal | IDENTITY]", None, 0),
    ("SUM[CONV2-8 padding=4:0x4:0 dilation=4 | IDENTITY]", None, 0),
    ("PRODUCT[IDENTITY | GLOBALAVGPOOL -> CONV1-8 -> SIGMOID]", None, 0),
]


@pytest.mark.parametrize(("join", "severity", "distance"), BRANCHES)
def test_branches_that_look_elsewhere(join: str, severity: str | None, distance: float) -> None:
    found = of("STR016", check_paper(f"INPUT 3x32x32 -> CONV3-8 -> RELU -> {join} -> RELU -> CONV1-1"))
    assert [(one.severity, one.evidence["distance"]) for one in found] == ([(severity, distance)] if severity else [])


FPN = (
    "INPUT 3x64x64 -> {0} -> RELU -> {0} -> RELU as a -> {0} -> RELU as b -> {0} -> RELU -> CONV1-8"
    " -> UPSAMPLE 2 -> SUM[IDENTITY | from b -> CONV1-8] -> UPSAMPLE 2 -> SUM[IDENTITY | from a -> CONV1-8] -> CONV1-2"
)


def test_the_half_steps_of_a_pyramid_are_no_warning() -> None:
    first, second = of("STR016", check_paper(FPN.format("CONV3-8 stride=2 padding=1")))
    # Half of a step of 8, and half of one of 4 on top of it.
    assert (first.evidence["distance"], second.evidence["distance"]) == (4.0, 4.0 + 2.0)
    assert {first.severity, second.severity} == {"info"}
    assert first.fix == (
        "a kernel as even or odd as its stride, as CONV4 stride=2 padding=1: upsampling meets its centres."
    )
    assert of("STR016", check_paper(FPN.format("CONV4-8 stride=2 padding=1"))) == []
    more = "CONCAT[CONV3-8 padding=3 -> CROP 0:4x0:4 | CONV3-8 stride=2 padding=1 -> RELU -> UPSAMPLE 2]"
    found = only("STR016", f"INPUT 3x40x40 -> CONV3-8 -> RELU -> {more} -> CONV1-2")
    assert (found.evidence["distance"], found.severity) == (1.5, "warning")  # a whole one is not the strides'


def test_misaligned_branches_in_words() -> None:
    found = only(
        "STR016", "INPUT 3x32x32 -> CONV3-8 -> RELU -> SUM[CONV1-8 stride=2 | CONV3-8 stride=2] -> RELU -> FC 2"
    )
    assert found.message == ("sum1 joins conv2 and conv3, whose centres are 1 input position apart (0.5 of its own).")
    assert found.evidence == {"distance": 1.0, "positions": 0.5, "jump": 2.0}


# ----------------------------------------------------------------------------------------------- STR021, STR026: biases

BIASES = [
    ("CONV3-16 -> BN -> RELU", 16),
    ("CONV3-16 -> IN -> RELU", 16),
    ("CONV3-16 bias=no -> BN -> RELU", None),
    ("CONV3-16 -> LN -> RELU", None),  # over the channels: a bias differs from channel to channel
    ("CONV3-16 -> GN 4 -> RELU", None),
    ("CONV3-16 -> RELU -> BN", None),
    ("LOCAL3-4 -> BN -> RELU", None),  # a bias for each position is more than the mean of its channel
    ("TILED3-4 tile=2 -> BN -> RELU", None),
    ("CONV3-16 -> SUM[BN | IDENTITY]", None),
    ("DECONV2-5 -> BN -> RELU", 5),
    ("FC 7 -> BN -> RELU", 7),
]


@pytest.mark.parametrize(("layers", "biases"), BIASES)
def test_biases_in_front_of_a_normalisation(layers: str, biases: int | None) -> None:
    found = of("STR021", check_paper(f"INPUT 3x8x8 -> {layers} -> FC 2"))
    assert [one.evidence["biases"] for one in found] == ([biases] if biases else [])


def test_a_bias_in_words() -> None:
    found = only("STR021", "INPUT 3x8x8 -> CONV3-16 -> BN -> RELU -> FC 2")
    assert found.message == "conv1 has 16 biases, and bn1 takes the mean of every channel away."
    assert (found.severity, found.fix) == ("info", "bias=no on conv1.")


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_loss_behind_a_softmax_has_a_floor(classes: int) -> None:
    found = only("STR026", f"INPUT 3x8x8 -> FC {classes} -> SOFTMAX")
    best = torch.zeros(1, classes, dtype=torch.float64)
    best[0, 0] = 1.0  # all probability on the right class
    floor = nn.functional.cross_entropy(best, torch.tensor([0])).item()
    assert found.evidence["least_loss"] == pytest.approx(floor) == log(1 + (classes - 1) / e)
    assert found.evidence["classes"] == classes


def test_softmax_in_words_and_elsewhere() -> None:
    found = only("STR026", "INPUT 3x8x8 -> FC 10 -> SOFTMAX")
    assert found.message == (
        "softmax1 gives probabilities of 10 classes, and cross-entropy applies a softmax again: the loss cannot fall "
        "below 1.461."
    )
    assert of("STR026", check_paper("INPUT 3x8x8 -> CONV1-4 -> SOFTMAX -> FC 10")) == []
    assert of("STR026", check_paper("INPUT 3x8x8 -> FC 10 -> SIGMOID")) == []


# -------------------------------------------------------------------------------------------------- STR022: bottlenecks

NARROW = [
    ("INPUT 1x28x28 -> FC 400 -> RELU -> FC 20 -> RELU -> FC 400 -> RELU -> FC 10", (20, 400, 400)),
    ("INPUT 1x28x28 -> FC 400 -> RELU -> FC 50 -> RELU -> FC 400 -> RELU -> FC 10", None),  # an eighth
    ("INPUT 1x28x28 -> FC 400 -> RELU -> FC 49 -> RELU -> FC 400 -> RELU -> FC 10", (49, 400, 400)),
    ("INPUT 1x28x28 -> FC 400 -> RELU -> FC 20 -> RELU -> FC 10", None),  # it never widens again
    ("INPUT 1x28x28 -> FC 400 -> RELU -> SUM[FC 20 -> RELU -> FC 400 | IDENTITY] -> RELU -> FC 10", None),
    ("INPUT 3x8x8 -> CONV3-64 -> RELU -> CONV1-3 -> RELU -> CONV3-64 -> RELU -> FC 10", None),  # 192 of 192 dimensions
    ("INPUT 64x8x8 -> CONV3-64 -> RELU -> CONV1-3 -> RELU -> CONV3-64 -> RELU -> FC 10", (192, 4096, 4096)),
    ("INPUT 3x16x16 -> CONV3-8 -> RELU -> GLOBALAVGPOOL -> FC 100", None),  # the mean is a pooling's
    ("INPUT 3x64x64 -> CONV3-64 -> RELU -> CONV3-64 stride=4 -> RELU -> CONV1-2 -> RESIZE 64x64 mode=linear", None),
    (
        "INPUT 3x64x64 -> CONV3-64 -> RELU -> CONV1-2 stride=8 -> DECONV4-2 -> RELU -> DECONV4-1 stride=8 -> CROP 1",
        None,
    ),
    ("INPUT 1x8x8 -> FC 2 -> RELU -> FC 64", (2, 64, 64)),  # an autoencoder: worth knowing
    ("INPUT 1x8x8 -> FC 2 -> RELU -> FC 4 -> FC 64", (2, 64, 4)),
]


@pytest.mark.parametrize(("written", "numbers"), NARROW)
def test_bottlenecks(written: str, numbers: tuple[int, int, int] | None) -> None:
    found = of("STR022", check_paper(written))
    given_numbers = [(one.evidence["numbers"], one.evidence["dimensions"], one.evidence["after"]) for one in found]
    assert given_numbers == ([numbers] if numbers else [])


def test_a_bottleneck_in_words() -> None:
    found = only("STR022", NARROW[0][0])
    assert found.message == (
        "everything passes through the 20 numbers of fc2: of up to 400 dimensions in front of it, 380 are lost, and "
        "the 400 numbers of fc3 cannot bring them back."
    )
    assert found.fix == "at least 50 features for fc2, or a skip around it with SUM or CONCAT."
    assert found.severity == "info"


def test_what_passes_a_bottleneck_has_its_dimensions_at_most() -> None:
    """The rank of the derivative, for random weights: with a layer of 4 numbers in between it is 4."""
    torch.manual_seed(0)
    model = network("INPUT 1x6x6 -> FC 40 -> TANH -> FC 4 -> TANH -> FC 40").double()
    found = torch.autograd.functional.jacobian(lambda x: model(x), torch.randn(1, 1, 6, 6, dtype=torch.float64))
    assert torch.linalg.matrix_rank(found.reshape(40, 36)) == 4


# ----------------------------------------------------------------------------------------------- STR023: one layer owns


def test_what_pooling_would_leave_is_not_claimed_of_weights_that_are_made_of_others() -> None:
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(64 * 1024, 64))
    convolutions = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(
        *convolutions, nn.Flatten(), normed, nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    found = check(model, (3, 32, 32))
    assert [(one.code, one.evidence.get("after_pooling"), one.fix) for one in found if one.code == "STR023"] == [
        ("STR023", None, "fewer features, in this layer or in front of it.")
    ]


def test_the_first_fully_connected_layer_of_vgg16() -> None:
    found = only("STR023", "vgg16")
    assert found.message == "fc1 has 102,764,544 of the 138,357,544 parameters (74.3 %)."
    assert found.evidence["parameters"] == 7 * 7 * 512 * 4096 + 4096
    assert found.evidence["after_pooling"] == 512 * 4096 + 4096
    assert found.fix == "GLOBALAVGPOOL in front of fc1 leaves 2,101,248 of its parameters."
    assert found.severity == "info"


OWNERS = [
    ("[CONV3-64 -> RELU]*3 -> FC 1000 -> RELU -> FC 10", "parameters"),
    ("[CONV3-4 -> RELU]*3 -> FC 10", None),  # too few to count
    ("CONV3-64 -> RELU -> FC 1000", None),  # two layers: one of them has most
    ("[CONV3-64 -> RELU]*3 -> GLOBALAVGPOOL -> FC 100000", None),  # nothing smaller makes as many scores
    ("CONV3-512 -> RELU -> CONV 11x11x512 -> RELU -> [CONV3-8 -> RELU]*3 -> CONV1-1", "parameters"),
]


@pytest.mark.parametrize(("layers", "what"), OWNERS)
def test_one_layer_owns_most(layers: str, what: str | None) -> None:
    found = of("STR023", check_paper(f"INPUT 3x32x32 -> {layers}"))
    assert [what in one.evidence for one in found] == ([True] if what else [])


def test_one_layer_takes_most_time() -> None:
    layers = "CONV3-32 -> RELU -> CONV7-32 -> RELU -> POOL2 -> [CONV3-32 -> RELU]*3 -> CONV1-1"
    found = only("STR023", f"INPUT 3x224x224 -> {layers}")
    assert found.evidence["multiply_adds"] == 224 * 224 * 7 * 7 * 32 * 32
    assert found.message.startswith("conv2 has 2,517,630,976 of the ")
    assert of("STR023", check_paper(f"INPUT 3x64x64 -> {layers}")) == []


# ---------------------------------------------------------------------------------------------- STR024: groups that mix

GROUPED = [
    ("[CONV3-8 groups=2 -> RELU]*2 -> FC 2", ["conv2"]),
    ("[CONV3-8 groups=2 -> RELU]*3 -> FC 2", ["conv2"]),  # and one more from the same place
    ("CONV3-8 groups=2 -> RELU -> SHUFFLE 2 -> CONV3-8 groups=2 -> RELU -> FC 2", []),
    ("CONV3-8 groups=2 -> RELU -> CONV1-8 -> CONV3-8 groups=2 -> RELU -> FC 2", []),
    ("CONV3-8 groups=2 -> RELU -> CONV3-8 groups=4 -> RELU -> FC 2", ["conv2"]),
    ("CONV3-8 groups=4 -> RELU -> CONV3-8 groups=2 -> RELU -> FC 2", []),  # it mixes pairs
    ("CONV3-8 groups=2 -> RELU -> DWCONV3 -> RELU -> CONV3-8 groups=2 -> RELU -> FC 2", ["conv2"]),
    ("DWCONV3 -> RELU -> DWCONV5 -> RELU -> CONV1-8 -> FC 2", []),
    ("CONV3-8 groups=2 -> SUM[CONV3-8 groups=2 | IDENTITY] -> RELU -> FC 2", ["conv2"]),
    ("CONV3-8 groups=2 -> CONCAT[CHANNELS 1/2 | CHANNELS 2/2] -> RELU -> CONV3-8 groups=2 -> FC 2", ["conv2"]),
    ("CONV3-8 groups=2 -> LN -> CONV3-8 groups=2 -> FC 2", []),  # it mixes in its way
    ("DWCONV3", ["dwconv1"]),
    ("DWCONV3 -> RELU -> CONV1-4", []),
    ("CONV1-8 -> DWCONV3", []),
    ("CONV3-8 groups=2 -> RELU", ["conv1"]),
]


@pytest.mark.parametrize(("layers", "nodes"), GROUPED)
def test_groups_that_never_mix(layers: str, nodes: list[str]) -> None:
    assert [one.node for one in of("STR024", check_paper(f"INPUT 4x16x16 -> {layers}"))] == nodes


def test_groups_in_words() -> None:
    found = only("STR024", "INPUT 4x16x16 -> CONV3-8 groups=2 -> RELU -> CONV3-8 groups=2 -> RELU -> FC 2")
    assert found.message == "conv2 keeps apart the same 2 groups of channels as conv1: nothing in between mixes them."
    assert found.fix == "SHUFFLE 2 or a CONV1 between conv1 and conv2."
    assert found.evidence == {"towers": 2, "groups": 2}
    apart = only("STR024", "INPUT 4x16x16 -> DWCONV3")
    assert apart.message == "the 4 channels of dwconv1 come from 4 parts of the input's channels that never meet."


# -------------------------------------------------------------------------------------------------- STR025: activations

LINEAR = [
    ("CONV3-16 -> CONV3-16 -> RELU", True),
    ("CONV3-16 -> BN -> DROPOUT -> AVGPOOL 2 -> CONV3-16 -> RELU", True),
    ("CONV3-16 -> RELU -> CONV3-16 -> RELU", False),
    ("CONV3-16 -> POOL 2 -> CONV3-16 -> RELU", False),  # a maximum is not linear
    ("CONV3-16 -> LN -> CONV3-16 -> RELU", False),
    ("DWCONV3 -> BN -> CONV1-16 -> RELU", False),  # Xception, MobileNet
    ("CONV1-16 -> BN -> DWCONV3 -> RELU", False),
    ("CONV1-4 -> BN -> CONV1-64 -> RELU", False),  # from 16 to 4 to 64: a linear bottleneck
    ("CONV1-16 -> BN -> CONV1-64 -> RELU", False),  # it keeps the width and the next one widens: MobileNetV3
    ("CONV1-16 -> BN -> CONV1-16 -> RELU", True),
    ("CONV1-24 -> BN -> CONV1-64 -> RELU", True),
    ("DWCONV3 -> BN -> RELU -> CONV1-24 -> BN -> CONV1-64 -> RELU", False),
    ("DWCONV3 -> PRODUCT[IDENTITY | GLOBALAVGPOOL -> CONV1-16 -> SIGMOID] -> CONV1-24 -> CONV1-64 -> RELU", False),
    ("CONV3-16 groups=4 -> RELU -> CONV1-24 -> CONV1-64 -> RELU", False),
    ("DWCONV3 -> RELU -> CONV3-16 -> CONV3-64 -> RELU", True),
    ("DWCONV3 -> CONV1-16 -> RELU -> CONV1-24 -> CONV1-64 -> RELU", True),
    ("FC 1024 -> FC 1100 -> RELU", True),
    ("CONV 1x7x16 -> CONV 7x1x16 -> RELU", False),
    ("CONV 1x7x16 -> CONV 1x7x16 -> RELU", True),
    ("CONV3-16 -> DECONV2-16 -> RELU", False),
    ("CONV3-16 -> PIXELSHUFFLE 2 -> CONV3-16 -> RELU", False),
    ("CONV3-16 -> UPSAMPLE 2 -> CONV3-16 -> RELU", False),
    ("CONV3-16 groups=2 -> CONV1-16 -> RELU", False),
    ("CONV3-16 -> SUM[CONV3-16 | IDENTITY] -> RELU", False),  # a shortcut leads around
    ("CONV3-16 -> AUX[IDENTITY] -> CONV3-16 -> RELU", False),
    ("CONV3-16 -> GLOBALAVGPOOL -> FC 16 -> RELU", True),
    ("FC 50 -> FC 40 -> RELU", True),
    ("FC 20 -> FC 40 -> RELU", False),  # of rank 20: fewer than both
]


@pytest.mark.parametrize(("layers", "fires"), LINEAR)
def test_missing_activations(layers: str, fires: bool) -> None:
    end = "" if "FC" in layers else " -> FC 2"
    assert bool(of("STR025", check_paper(f"INPUT 16x8x8 -> {layers}{end}"))) is fires


def test_a_missing_activation_in_words() -> None:
    found = only("STR025", "INPUT 3x8x8 -> CONV3-16 -> CONV3-8 -> RELU -> FC 2")
    assert found.message == "conv1 and conv2 are one linear layer together: there is no activation between them."
    assert found.evidence == {"numbers_in": 192, "numbers_between": 1024, "numbers_out": 512}
    assert found.fix == "RELU between conv1 and conv2."


# --------------------------------------------------------------------------------------------------- published networks

AS_PUBLISHED = {
    ("alexnet", "STR023"): "the first fully connected layer",
    ("alexnet", "STR024"): "two towers, one on each graphics card",
    ("alexnet_torchvision", "STR023"): "the first fully connected layer",
    ("context_net", "STR013"): "its last 3x3 window sees 67 of 64",
    ("fcn16s", "STR004"): "the first padding of 100, which CROP takes away again",
    ("fcn16s", "STR023"): "VGG-16's first fully connected layer as a 7x7 convolution",
    ("fcn32s", "STR004"): "the first padding of 100, which CROP takes away again",
    ("fcn32s", "STR023"): "VGG-16's first fully connected layer as a 7x7 convolution",
    ("fcn8s", "STR004"): "the first padding of 100, which CROP takes away again",
    ("fcn8s", "STR023"): "VGG-16's first fully connected layer as a 7x7 convolution",
    ("m11", "STR001"): "poolings of 4 on 125 moments",
    ("m5", "STR001"): "poolings of 4 on 125 and 31 moments",
    ("mobilenet_v1", "STR013"): "the input of its last depthwise layer sees 251 of 224",
    ("replknet31b", "STR004"): "large kernels on small maps are its point (guideline 5)",
    ("squeezenet1_0", "STR001"): "its first layer leaves one row of 224",
    ("squeezenet1_1", "STR001"): "its first layer leaves one row of 224",
    ("unet3d", "STR021"): "biases in front of batch normalisation",
    ("vgg11", "STR023"): "the first fully connected layer",
    ("vgg13", "STR023"): "the first fully connected layer",
    ("vgg16", "STR023"): "the first fully connected layer",
    ("vgg16_bn", "STR021"): "biases in front of batch normalisation, as torchvision has them",
    ("vgg16_bn", "STR023"): "the first fully connected layer",
    ("vgg19", "STR023"): "the first fully connected layer",
    ("zfnet", "STR023"): "the first fully connected layer",
}


@pytest.mark.parametrize("name", zoo.names())
def test_published_networks_have_no_other_findings(name: str) -> None:
    codes = {one.code for one in check_paper(name)}
    assert codes == {code for network_name, code in AS_PUBLISHED if network_name == name}


def test_only_networks_of_the_zoo_are_admitted() -> None:
    assert {name for name, _ in AS_PUBLISHED} <= set(zoo.names())


def test_the_work_grows_with_the_layers_alone() -> None:
    shallow, deep = zoo.bound("resnet50", {})[0], zoo.bound("resnet152", {})[0]
    assert (findings(shallow), findings(deep)) == ((), ())
    assert calls(lambda: findings(deep)) < 4 * calls(lambda: findings(shallow))


# --------------------------------------------------------------------------------------------- ignoring, order, merging


def test_comments_rule_codes_out_on_their_line() -> None:
    lines = "INPUT 3x8x8\n-> CONV3-16 -> BN -> RELU{}\n-> CONV3-16 -> BN -> RELU\n-> FC 2"
    assert [one.line for one in check_paper(lines.format(""))] == [2, 3]
    assert [one.line for one in check_paper(lines.format("  # striate: ignore[STR021]"))] == [3]
    assert [one.line for one in check_paper(lines.format("  # striate: ignore[STR001, str021]"))] == [3]
    assert [one.line for one in check_paper(lines.format("  # striate: ignore"))] == [3]
    assert [one.line for one in check_paper(lines.format("  # striate: ignore[STR002]"))] == [2, 3]
    assert [one.line for one in check_paper(lines.format("  # striate: ignore[]"))] == [2, 3]
    assert [one.line for one in check_paper(lines.format("  # Striate: IGNORE [ str021 ]"))] == [3]


def test_what_one_place_writes_several_times_is_told_once() -> None:
    (found,) = check_paper("INPUT 3x8x8 -> [CONV3-16 -> BN -> RELU]*3 -> FC 2")
    assert (found.node, found.repeats) == ("conv1", 2)
    assert "(and 2 more from the same place)" in text([found])


def test_the_worst_of_one_place_is_told() -> None:
    (found,) = of("STR001", check_paper("INPUT 1x31x31 -> [POOL 2 stride=2]*4 -> FC 2"))
    assert found.repeats == 3
    assert found.severity == "warning"


# ---------------------------------------------------------------------------------------------------------- the ways in


def test_ways_in() -> None:
    architecture, _ = zoo.bound("vgg16", {})
    model = network("INPUT 3x32x32 -> CONV3-8 -> BN -> RELU -> FC 10")
    assert check_paper(architecture) == list(findings(architecture)) == check_paper("vgg16")
    assert [one.code for one in check_paper(model)] == ["STR021"]
    assert check_paper("INPUT -> CONV -> BN -> FC", filters=7)[0].evidence == {"biases": 7}
    with pytest.raises(NotationError):
        check_paper("INPUT 3x8x8 -> CONF3")
    with pytest.raises(UnknownNameError):
        check_paper("vgg61")


def test_what_a_network_is_called(tmp_path: Path) -> None:
    assert path_of(tmp_path / "net.txt") == str(tmp_path / "net.txt")
    assert path_of("nets/net.txt") == "nets/net.txt"
    assert path_of(zoo.architecture("lenet5")) == "Architecture"


def test_every_check_is_made() -> None:
    assert len(set(lint.CHECKS)) == len(lint.CHECKS) == 14


# -------------------------------------------------------------------------------------------------------- traced models


class Model(nn.Module):
    """Layers with findings, and an operation without a word in the notation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2)
        self.scores = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.erf(self.up(x)).cumsum(-1).mean((-1, -2))
        return self.scores(x).softmax(-1)


def test_traced_models_are_told_in_the_words_of_pytorch() -> None:
    found = {one.code: one for one in findings(trace(Model(), (3, 32, 32)).architecture)}
    assert set(found) == {"STR001", "STR012", "STR021", "STR026"}
    assert found["STR001"].fix == "functional.pad(x, (0, 1, 0, 1)) in front of it: one more window reads the rest."
    assert found["STR021"].fix == "bias=False"
    assert found["STR012"].fix.startswith("kernel_size=4, dilation=1, or nn.Upsample(scale_factor=2)")
    assert found["STR026"].fix == "leave it out: nn.CrossEntropyLoss takes scores."
    assert found["STR012"].place("Model") == "Model: up (ConvTranspose2d)"
    assert text([found["STR012"]]).startswith("up (ConvTranspose2d): STR012 up sums")
    assert re.fullmatch(r"Model: softmax \(test_lint\.py:\d+\)", found["STR026"].place("Model"))


def foreign(reading: Any, shape: tuple[int, ...] = (3, 8, 8)) -> Architecture:
    return Architecture(
        (
            Node("input", Input((3, 8, 8))),
            Node("other", Foreign("other", shape, 5, None, (reading,), "nobody knows"), ("input",)),
            Node("conv", Conv(3, 4, stride=2, padding=0), ("other",), source="conv (Conv2d)"),
            Node("relu", ReLU(), ("conv",)),
        )
    )


def test_what_is_unknown_is_no_finding_of_its_own() -> None:
    known = findings(foreign(((0, Relation.identity(8)), (1, Relation.identity(8)))))
    assert [(one.code, one.evidence["pixels"]) for one in known] == [("STR001", 64 - 49)]
    (unknown,) = findings(foreign("it looks around"))
    assert unknown.message == "conv never reads 15 of the 64 positions of other (23.4 %)."
    assert unknown.severity == "info"


def test_a_foreign_reader_may_read_everything() -> None:
    nodes = foreign("it looks around").nodes
    aside = Node("aside", Foreign("aside", (2,), 0, 0, ("it looks around",), ""), ("other",))
    assert findings(Architecture((*nodes, aside), ("relu", "aside"))) == ()


# -------------------------------------------------------------------------------------------------------- never a crash

few = st.integers(1, 3)
windows = st.builds(
    "CONV kernel={} filters={} stride={} padding={} dilation={} groups={}".format,
    few, st.sampled_from([2, 4]), few, st.sampled_from(["valid", "same", "causal", "full", "1"]), few,
    st.sampled_from([1, 1, 2]),
)  # fmt: skip
plain_layers = st.sampled_from(
    ["RELU", "BN", "POOL 2", "POOL 3 stride=1 padding=1", "AVGPOOL 2 stride=3", "DECONV3-4", "DWCONV3", "UPSAMPLE 2",
     "CROP 1", "PAD 1", "SHUFFLE 2", "CHANNELS 1/2", "LN", "SOFTMAX", "GLOBALAVGPOOL", "FC 3", "FLATTEN", "LOCAL3-2",
     "RESIZE 5", "RESIZE 7 mode=linear", "PIXELSHUFFLE 2", "AUX[CONV3-2]"]
)  # fmt: skip
layers = windows | plain_layers
chains = st.lists(layers, min_size=1, max_size=4).map(" -> ".join)
joins = st.builds(
    "{}[{} | {}]".format, st.sampled_from(["SUM", "CONCAT", "PRODUCT"]), chains | st.just("IDENTITY"), chains
)
networks_of = st.lists(layers | joins | joins.map(lambda one: f"[{one}]*2"), min_size=1, max_size=6).map(" -> ".join)


@settings(max_examples=300)
@given(networks_of, st.sampled_from(["2x9x9", "4x16x12", "2x7", "4x5x6x4"]))
def test_any_network_is_checked(written: str, size: str) -> None:
    try:
        architecture, _ = zoo.bound(f"INPUT {size} -> {written}", {})
        found = findings(architecture, object_size=5)
    except (GeometryError, NotationError):
        return
    for one in found:
        assert one.code in RULES
        assert one.message.endswith(".")
        assert "None" not in one.message + one.fix
        json.dumps(one.to_dict())
        if one.code in ("STR001", "STR002"):
            assert one.evidence["positions"] > 0
            assert 0 < one.evidence["share"] <= 1
    json.dumps(sarif(found))


@settings(max_examples=150)
@given(networks_of, st.sampled_from(["2x9x9", "4x12x9"]))
def test_no_pixel_is_lost_without_a_finding(written: str, size: str) -> None:
    """If the result sees fewer pixels than there are, some layer dropped positions (or was made to)."""
    if "CROP" in written or "RESIZE" in written or "DECONV" in written:
        return  # they leave positions out on purpose
    try:
        architecture, _ = zoo.bound(f"INPUT {size} -> {written}", {})
        facts = Facts(architecture)
    except (GeometryError, NotationError):
        return
    unread = [facts.support.unread(name) for name in architecture.results]
    if len(unread) == 1 and isinstance(unread[0], int) and unread[0] > 0:
        assert {one.code for one in findings(architecture)} & {"STR001", "STR002", "STR003"}


@pytest.mark.parametrize(
    "written",
    [
        "INPUT 1x1048577 -> CONV 3x1 stride=2",
        "INPUT 1x1048576 -> CONV 3x1 stride=3 padding=0",
        "INPUT 1x4 -> CONV 3x1 padding=2000000",
        "INPUT 1x2000000 -> CONV 1000000x1 dilation=1",
        "INPUT 2x8x8" + " -> CONV3-2 dilation=3 -> RELU" * 1000,
        "INPUT 999999999x8x8 -> SHUFFLE 3 -> CONV1-9",
        "INPUT 16384x2x2 -> CONV3-16384 groups=16 -> SHUFFLE 16 -> CONV3-16384 groups=16 -> CONV1-3",
        "INPUT 3x8x8 -> [CONV3-8 -> RELU]*4990",
        "INPUT 1x15 -> DECONV kernel=60001 filters=1 stride=65537",
        "INPUT 2x8x8" + " -> SUM[CONV3-2 groups=2 -> RELU | IDENTITY]" * 300,
    ],
)
def test_extremes_take_little_work(written: str) -> None:
    assert calls(lambda: check_paper(written)) < 2e7


# -------------------------------------------------------------------------------------------------------------- formats

ONE = Finding("STR012", "deconv1", 3, 7, "warning", "It is uneven.", {"profile": (2, 1), "coverage": 0.5}, "kernel=4")
TWO = Finding("STR005", "sum1", 0, 0, "error", "It does not fit.", {"fitting": ["1x8x8", "1x9x9"]}, source="net.py:4")


def test_text() -> None:
    assert text([ONE, TWO], "net.txt") == (
        "net.txt:3:7: STR012 It is uneven.\n"
        "    warning: profile 2-1, coverage 50.0 %\n"
        "    fix: kernel=4\n"
        "net.txt: sum1 (net.py:4): STR005 It does not fit.\n"
        "    error: fitting 1x8x8 or 1x9x9\n"
        "Found 2 findings: 1 error, 1 warning."
    )
    assert text([]) == summary([]) == "No findings."
    assert summary([ONE, ONE, replace(ONE, severity="info")]) == "Found 3 findings: 2 warnings, 1 info."
    assert percent(1.0) == "100.0 %"


def test_exit_codes() -> None:
    assert (exit_code([]), exit_code([ONE]), exit_code([ONE, TWO])) == (0, 0, 1)


def test_json() -> None:
    first, second = json.loads(to_json([ONE, TWO]))
    assert first == {
        "code": "STR012", "name": "checkerboard", "node": "deconv1", "line": 3, "column": 7, "severity": "warning",
        "message": "It is uneven.", "evidence": {"profile": [2, 1], "coverage": 0.5}, "fix": "kernel=4", "source": "",
        "repeats": 0,
    }  # fmt: skip
    assert second["source"] == "net.py:4"


def test_sarif() -> None:
    log_file = json.loads(json.dumps(sarif([ONE, TWO], "nets/net.txt", "1.0.0")))
    assert (log_file["version"], log_file["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    (run,) = log_file["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("striate", "1.0.0")
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    assert driver["semanticVersion"] == "1.0.0"
    assert "semanticVersion" not in sarif([], version="1.0")["runs"][0]["tool"]["driver"]
    assert "version" not in sarif([])["runs"][0]["tool"]["driver"]
    for rule in driver["rules"]:
        assert "helpUri" not in rule  # it would have to be absolute
        assert RULES[rule["id"]].page in rule["help"]["text"]
        assert all(rule[name]["text"].endswith(".") for name in ("shortDescription", "fullDescription", "help"))
        assert re.fullmatch("[A-Za-z0-9]+", rule["name"])
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    first, second = run["results"]
    assert driver["rules"][first["ruleIndex"]]["id"] == first["ruleId"] == "STR012"
    assert (first["level"], second["level"]) == ("warning", "error")
    assert first["message"]["text"] == "It is uneven. Fix: kernel=4"
    (place,) = first["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "nets/net.txt"}, "region": {"startLine": 3, "startColumn": 7},
    }  # fmt: skip
    assert place["logicalLocations"] == [{"name": "deconv1", "kind": "member"}]
    assert "physicalLocation" not in second["locations"][0]
    assert "physicalLocation" not in sarif([ONE])["runs"][0]["results"][0]["locations"][0]
    uris = {"a b/net.txt": "a%20b/net.txt", "/a b/net.txt": "file:///a%20b/net.txt"}
    for path, uri in uris.items():
        (result,) = sarif([ONE], path)["runs"][0]["results"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": uri}
    assert sarif([replace(ONE, severity="info")])["runs"][0]["results"][0]["level"] == "note"


# ---------------------------------------------------------------------------------------------------------------- pages

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert sorted(RULES) == sorted(path.stem for path in PAGES.glob("*.md"))
    assert all((ROOT / rule.page).is_file() for rule in RULES.values())


def test_the_index_lists_every_rule_as_it_is() -> None:
    index = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
    for code, rule in RULES.items():
        assert f"| [{code}](lint/{code}.md) | {rule.name} | {rule.severity} | {rule.sentence} |" in index
    rows = re.findall(r"^\| `(\w+)` \| \[(STR\d+)\]\(lint/\2\.md\) \| (.*) \|$", index, re.MULTILINE)
    assert {(name, code): reason for name, code, reason in rows} == AS_PUBLISHED


def shown(path: Path) -> Iterator[tuple[str, str]]:
    yield from ((found[1], found[2]) for found in FENCE.finditer(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("code", RULES)
def test_a_page_is_true(code: str) -> None:
    page = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    rule = RULES[code]
    assert page.startswith(f"# {code}: {rule.name}\n\n{rule.sentence} Severity: {rule.severity}.\n")
    assert re.findall("^## (.*)$", page, re.MULTILINE) == ["What", "Why", "Example", "Fix", "When to ignore it"]
    namespace: dict[str, Any] = {}
    printed = ""
    blocks = Counter[str]()
    for language, source in shown(PAGES / f"{code}.md"):
        blocks[language] += 1
        if language == "text":
            assert source == printed
            assert f": {code} " in source
        else:
            with redirect_stdout(StringIO()) as out:
                exec(source, namespace)
            printed = out.getvalue()
    assert blocks == {"python": 2, "text": 1}


def test_links_of_the_pages_lead_somewhere() -> None:
    for path in PAGES.glob("*.md"):
        for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


# --------------------------------------------------------------------------------------------------------------- pytest


def test_assert_clean_lists_what_it_found() -> None:
    assert_clean("vgg16")  # what is only worth knowing passes
    written = "INPUT 3x8x8 -> CONV3-8 -> BN -> RELU -> FC 10 -> SOFTMAX"
    with pytest.raises(AssertionError) as caught:
        assert_clean(written)
    assert str(caught.value).splitlines() == [
        "<text>:1:50: " + str(only("STR026", written)),
        "    warning: classes 10, least loss 1.461",
        "    fix: leave softmax1 out: training and prediction of Striate take scores.",
        "Found 1 finding: 1 warning.",
    ]
    assert "assert_clean" not in [entry.name for entry in caught.traceback.filter(caught)]  # __tracebackhide__
    assert_clean("INPUT 3x8x8 -> FC 10 -> SOFTMAX", ignore=["STR026"])
    assert_clean("INPUT 3x8x8 -> FC 10 -> SOFTMAX", ignore="STR026")
    for unknown in (["STR999"], "STR999"):
        with pytest.raises(UnknownNameError, match="No rule is called 'STR999'"):
            assert_clean("lenet5", ignore=unknown)


def test_assert_clean_takes_modules() -> None:
    assert_clean(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)), (3, 8, 8))
    with pytest.raises(AssertionError, match=r"^Sequential: 1 \(Conv2d\): STR025 0 and 1 are one linear layer"):
        assert_clean(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)), (3, 8, 8))


def test_the_fixture_is_found_and_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\n"
        "def test_it(assert_clean):\n    assert_clean('lenet5')\n    assert 'torch' not in sys.modules\n"
    )
    # An installation has it as an entry point; a checkout that was installed before there was one has not.
    known = any(entry.value == "striate.pytest_plugin" for entry in entry_points(group="pytest11"))
    named = [] if known else ["-p", "striate.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", *named, "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_sizes_are_positions_times_positions() -> None:
    """The shares of the evidence are of whole maps, not of one axis."""
    found = only("STR001", "INPUT 1x7x5 -> POOL 2 -> FC 2")
    assert found.evidence["positions"] == prod((7, 5)) - 6 * 4
