"""Support: unions of products, phases on an endless input, and what stays unknown; the laws are in test_analysis."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.analysis import describe
from striate.geometry import Axis
from striate.notation import parse
from striate.relations import Relation
from striate.support import Field, Support, area

masks = st.integers(0, 63)


@settings(deadline=None, max_examples=300)
@given(products=st.lists(st.tuples(masks, masks, masks), max_size=6))
def test_the_area_of_a_union_of_products(products: list[tuple[int, int, int]]) -> None:
    places = {
        place
        for one in products
        for place in itertools.product(*([i for i in range(6) if mask >> i & 1] for mask in one))
    }
    assert area(frozenset(products)) == len(places)


# A chain, and on an endless input: the size, the jump, what position 0 sees first, the number of phases.
ENDLESS = [
    ("CONV3-1", 3, 1, -1, 1),
    ("CONV3-1 -> CONV3-1 stride=2 padding=1", 5, 2, -2, 1),
    ("DECONV2-1", 1, Fraction(1, 2), 0, 2),
    ("DECONV4-1 padding=1", 2, Fraction(1, 2), -1, 2),
    ("DECONV2-1 -> CONV3-1", 2, Fraction(1, 2), -1, 2),
    ("DECONV3-1 stride=3 padding=0 -> CONV 3x3x1 stride=2 padding=0", 2, Fraction(2, 3), 0, 3),
    ("UPSAMPLE 2 mode=linear", 2, Fraction(1, 2), -1, 2),
    ("POOL -> UPSAMPLE 2", 2, 1, 0, 2),
    ("POOL -> DECONV2-1 -> POOL", 2, 2, 0, 1),
]


@pytest.mark.parametrize(("text", "size", "jump", "offset", "phases"), ENDLESS)
def test_what_is_seen_on_an_endless_input(text: str, size: int, jump: Fraction, offset: int, phases: int) -> None:
    network = parse(f"INPUT 1x36x36 -> {text}")
    sight = Support(network, network.shapes()).sights[network.nodes[-1].name][0]
    assert not isinstance(sight, str)
    field = sight.field
    assert field is not None
    assert (field.size, field.jump, field.offset, len(field.spans)) == (size, jump, offset, phases)


def test_phases_that_repeat_too_late_are_unknown() -> None:
    field = Field().through(Relation.window(Axis(2, stride=4095), 8, transposed=True))
    assert field is not None
    assert field.through(Relation.window(Axis(2, stride=2), 8)) is not None
    assert field.through(Relation.window(Axis(2, stride=2), 8, transposed=True)) is None


def test_branches_that_advance_differently_are_seen_but_have_no_jump() -> None:
    network = parse("INPUT 1x8x8 -> SUM[POOL | CROP 2]")
    sight = Support(network, network.shapes()).sights["sum1"][0]
    assert not isinstance(sight, str)
    assert (sight.size, sight.field) == (3, None)


def test_a_window_that_skips_positions_covers_less_than_its_box() -> None:
    network = parse("INPUT 1x32x32 -> [CONV3-1 dilation=2 padding=2]*2 -> SUM[IDENTITY | CONV3-1]")
    support = Support(network, network.shapes())
    # 5 of 9 positions on each axis; a window of three over them reads all of eleven.
    assert support.coverage("conv2") == (25, 81)
    assert support.coverage("sum1") == (121, 121)


def test_the_unread_pixels_of_a_shortcut_are_read_by_its_sibling() -> None:
    network = parse("INPUT 1x8x8 -> SUM[CONV1-4 stride=2 | CONV3-4 stride=2 padding=1]")
    support = Support(network, network.shapes())
    assert (support.unread("conv1"), support.unread("sum1")) == (48, 0)


def test_too_many_separate_parts_are_unknown() -> None:
    branches = " | ".join(f"CROP {n}:{299 - n}x{299 - n}:{n}" for n in range(300))
    network = parse(f"INPUT 1x300x300 -> CONCAT[{branches}]")
    support = Support(network, network.shapes())
    assert support.unread("concat1") == "what it reads has more than 256 separate parts"
    assert support.coverage("concat1") == "what it reads has more than 256 separate parts"


# A map whose channels differ, a selection, and whether what it reads is still known.
SELECTIONS = [
    ("CONCAT[CONV3-4 | CONV7-4] -> CHANNELS 1/2", False),
    ("CONCAT[CONV3-4 | CONV7-4] -> SHUFFLE 2 -> CHANNELS 1/2", True),
    ("CONCAT[CONV3-4 | CONV7-4] -> CHANNELS 0,7", True),
    ("CONCAT[CONV3-4 | CONV7-4] -> DWCONV 3 -> BN -> RELU -> CHANNELS 1/2", False),
    ("CONCAT[CONV3-4 | CONV7-4] -> CONV1-4 -> CHANNELS 1/2", True),
    ("CONCAT[CONV3-4 | CONV7-4] -> CONV1-4 groups=2 -> CHANNELS 1/2", False),
    ("CONCAT[CONV3-4 | CONV7-4] -> SUM[CONV1-8 | IDENTITY] -> CHANNELS 1/2", False),
    ("CONV3-4 -> CHANNELS 1/2", True),
    ("PIXELUNSHUFFLE 2 -> CHANNELS 1/4", False),
    ("PIXELUNSHUFFLE 2 -> DWCONV 3 -> PIXELSHUFFLE 2", False),
    ("PIXELUNSHUFFLE 2 -> CONV3-8 -> PIXELSHUFFLE 2", True),
    ("CONCAT[CONV3-4 | CONV7-4] -> GN 2 -> CHANNELS 1/2", False),
    ("CONCAT[CONV3-4 | CONV7-4] -> LN -> CHANNELS 1/2", True),
    ("CONCAT[CONV3-4 | CONV7-4] -> MAXOUT 2 -> CHANNELS 1/2", False),
    ("FLATTEN -> CHANNELS 1/2", False),
    ("GLOBALAVGPOOL -> FLATTEN -> CHANNELS 1/2", True),
    ("FLATTEN -> FC 4 -> CHANNELS 1/2", True),
]


@pytest.mark.parametrize(("text", "known"), SELECTIONS, ids=[text for text, _ in SELECTIONS])
def test_a_selection_of_channels_is_known_where_it_meets_every_kind(text: str, known: bool) -> None:
    row = describe(f"INPUT 2x16x16 -> {text}").rows[-1]
    assert (row.receptive_field is not None) == known
    assert (row.coverage is not None) == (row.unread is not None) == known
    if not known:
        last = row.name
        assert row.unknown["receptive_field"].startswith(f"in {last} it selects channels of a map")


@pytest.mark.parametrize("border", ["circular", "reflect", "replicate", "zeros"])
@pytest.mark.parametrize(
    "layers", ["CONV3-1{b}", "[CONV3-1{b}]*2", "SUM[CONV3-1{b} | CONV3-1{b}]", "SUM[CONV3-1{b} | IDENTITY]"]
)
def test_a_border_does_not_thin_out_what_a_dense_window_covers(layers: str, border: str) -> None:
    row = describe("INPUT 1x16x16 -> " + layers.format(b=f" border={border}")).rows[-1]
    size = 5 if "*2" in layers else 3
    assert (row.receptive_field, row.coverage) == ((size, size), 1.0)


def test_gaps_of_a_dilated_window_are_counted_within_its_box_although_it_wraps() -> None:
    row = describe("INPUT 2x17 -> CONV3-2 dilation=3 border=circular").rows[-1]
    assert (row.receptive_field, row.coverage) == ((7,), 3 / 7)


def test_what_is_seen_as_a_whole_is_not_seen_through_padding() -> None:
    """One position, one row of padding around it, every other window: all of them read padding only."""
    row = describe("INPUT 1x4x4 -> GLOBALAVGPOOL -> CONV1-1 stride=2 padding=1").rows[-1]
    assert (row.receptive_field, row.coverage, row.unread) == ((0, 0), None, 16)
    assert row.unknown["coverage"] == "no output reads any input position"
    row = describe("INPUT 1x4 -> GLOBALAVGPOOL -> CONV1-1 padding=1").rows[-1]
    assert (row.receptive_field, row.coverage, row.unread) == ((4,), 1.0, 0)


def test_interpolation_with_corners_repeats_with_the_sizes_without_them() -> None:
    """(70001 - 1) / (140001 - 1) = 1/2: two phases; (65536 - 1) / (131072 - 1) has 131,071."""
    row = describe("INPUT 1x70001 -> RESIZE 140001 mode=linear align_corners=yes").rows[-1]
    assert (row.receptive_field, row.unread) == ((2,), 0)
    row = describe("INPUT 1x65536 -> RESIZE 131072 mode=linear align_corners=yes").rows[-1]
    assert row.unknown["receptive_field"] == "after resize1: its positions repeat too late to be written down"


def test_sizes_that_hardly_share_a_factor_take_no_square_of_the_work() -> None:
    row = describe("INPUT 1x30000 -> ADAPTIVEAVGPOOL 29999").rows[-1]
    assert (row.receptive_field, row.coverage, row.unread) == ((2,), 1.0, 0)
