"""The operations on paper: what they refuse, in words; what they make is compared with torch in test_networks."""

from __future__ import annotations

import pytest

from striate.analysis import describe
from striate.errors import GeometryError
from striate.notation import parse
from striate.operations import KINDS, OPERATIONS, Channels, Foreign, GroupNorm, Sum, written

REFUSED = [
    ("INPUT 3x8x8 -> FC 4 -> POOL", ("In pool1 (line 1, column 24: POOL) with input 4: POOL slides over spatial axes, "
     "but its input (4,) has none left; put it before any FC.")),
    ("INPUT 3x8x8 -> SUM[CONV3-4 | IDENTITY]", ("In sum1 (line 1, column 16: SUM) with input 4x8x8 and 3x8x8: "
     "SUM needs branches of as many channels; they give 4x8x8 and 3x8x8.")),
    ("INPUT 3x8x8 -> SUM[CONV3-3 stride=2 | IDENTITY]", ("In sum1 (line 1, column 16: SUM) with input 3x4x4 and 3x8x8: "
     "SUM needs branches of one size; they give 3x4x4 and 3x8x8. "
     "CROP, PAD, UPSAMPLE or another padding or stride brings sizes together.")),
    ("INPUT 3x8x8 -> CONCAT[POOL | IDENTITY]", ("In concat1 (line 1, column 16: CONCAT) with input 3x4x4 and 3x8x8: "
     "CONCAT needs branches of one size; they give 3x4x4 and 3x8x8. "
     "CROP, PAD, UPSAMPLE or another padding or stride brings sizes together.")),
    ("INPUT 3x8x8 -> CROP 4", ("In crop1 (line 1, column 16: CROP 4) with input 3x8x8: "
     "CROP takes 4 + 4 rows away, but there are only 8.")),
    ("INPUT 3x8x8 -> SHUFFLE 2", ("In shuffle1 (line 1, column 16: SHUFFLE) with input 3x8x8: "
     "SHUFFLE needs channels in 2 equal parts, but there are 3.")),
    ("INPUT 3x8x8 -> MAXOUT 2", ("In maxout1 (line 1, column 16: MAXOUT) with input 3x8x8: "
     "MAXOUT needs channels in 2 equal parts, but there are 3.")),
    ("INPUT 3x8x8 -> GN 2", ("In gn1 (line 1, column 16: GN 2) with input 3x8x8: "
     "GN needs channels in 2 equal parts, but there are 3.")),
    ("INPUT 3x8x8 -> CHANNELS 0,3", ("In channels1 (line 1, column 16: CHANNELS 0,3) with input 3x8x8: "
     "CHANNELS asks for channel 3, but there are 3, counted from 0.")),
    ("INPUT 3x8x8 -> PIXELSHUFFLE 2", ("In pixelshuffle1 (line 1, column 16: PIXELSHUFFLE) with input 3x8x8: "
     "PIXELSHUFFLE needs channels in 4 equal parts, but there are 3.")),
    ("INPUT 3x9x8 -> PIXELUNSHUFFLE 2", ("In pixelunshuffle1 (line 1, column 16: PIXELUNSHUFFLE) with input 3x9x8: "
     "PIXELUNSHUFFLE 2 does not divide the size 9x8.")),
    ("INPUT 3x8x8 -> POOL -> RELU -> POOL -> UNPOOL of=pool1",
     ("In unpool1 (line 1, column 40: UNPOOL of=pool1) with input 3x2x2 and 3x4x4 and 3x8x8: "
     "UNPOOL of=pool1 puts 3x4x4 values back, but its input is 3x2x2.")),
    ("INPUT 3x8x8 -> CONV3-8 groups=2", ("In conv1 (line 1, column 16: CONV3-8 groups=2) with input 3x8x8: groups=2 "
     "does not divide the 3 input channels; both channel counts must be multiples of the groups.")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_does_not_fit_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        describe(text)
    assert str(caught.value) == message


def test_every_word_names_its_operation() -> None:
    assert [OPERATIONS[kind.word] for kind in KINDS] == list(KINDS)
    assert all(kind.__doc__ for kind in KINDS)


# By hand: the shape that an operation makes of 12 channels of 6x8, and what it learns.
MADE = [
    ("DWCONV 3 multiplier=2", (24, 6, 8), 24 * 10),
    ("DECONV3-5 stride=2 padding=1 output_padding=1", (5, 12, 16), 12 * 5 * 9 + 5),
    ("LOCAL3-2 padding=0", (2, 4, 6), 24 * (2 * 12 * 9 + 2)),
    ("TILED3-2 tile=2", (2, 6, 8), 4 * (2 * 12 * 9 + 2)),
    ("POOL 3 stride=2 ceil=yes", (12, 3, 4), 0),
    ("POOL 3 stride=2", (12, 2, 3), 0),
    ("ADAPTIVEAVGPOOL 4x5", (12, 4, 5), 0),
    ("GLOBALAVGPOOL", (12, 1, 1), 0),
    ("RBF 10", (10,), 0),
    ("PRELU", (12, 6, 8), 12),
    ("SCALE", (12, 6, 8), 24),
    ("SCALE bias=no", (12, 6, 8), 12),
    ("LN", (12, 6, 8), 24),
    ("GN 3", (12, 6, 8), 24),
    ("IN", (12, 6, 8), 0),
    ("MAXOUT 3", (4, 6, 8), 0),
    ("CHANNELS 2/3", (4, 6, 8), 0),
    ("CHANNELS 0,5,11", (3, 6, 8), 0),
    ("PIXELSHUFFLE 2", (3, 12, 16), 0),
    ("PIXELUNSHUFFLE 2", (48, 3, 4), 0),
    ("UPSAMPLE 2x3", (12, 12, 24), 0),
    ("RESIZE 5", (12, 5, 5), 0),
    ("PAD 1:2x3", (12, 9, 14), 0),
    ("CROP 1:2x3", (12, 3, 2), 0),
    ("FLATTEN", (576,), 0),
    ("CONCAT[IDENTITY | IDENTITY]", (24, 6, 8), 0),
    ("PRODUCT[IDENTITY | GLOBALAVGPOOL]", (12, 6, 8), 0),
    ("SUM[IDENTITY | CHANNELS 3]", (12, 6, 8), 0),
]


@pytest.mark.parametrize(("text", "shape", "learned"), MADE, ids=[text for text, _, _ in MADE])
def test_what_an_operation_makes(text: str, shape: tuple[int, ...], learned: int) -> None:
    row = describe(f"INPUT 12x6x8 -> {text}").rows[-1]
    assert (row.output_shape, row.parameters) == (shape, learned)


def test_what_a_foreign_operation_does_is_as_traced() -> None:
    foreign = Foreign("aten.foo", (3, 4), 7, None, ("it is foreign",), "nobody counts aten.foo")
    assert (foreign.output_shape((1,)), foreign.parameters((1,)), foreign.multiply_adds((1,))) == ((3, 4), 7, None)
    assert (foreign.reads((1,)), foreign.unknown) == (("it is foreign",), "nobody counts aten.foo")


def test_small_things() -> None:
    assert list(Channels(("part", (2, 3))).numbers(6)) == [2, 3]
    assert Sum().output_shape((4,), (4, 2, 2)) == (4, 2, 2)
    assert GroupNorm(2).saved_extra((4, 3)) == 16
    assert written(()) == "1"
    assert parse("INPUT 3x8x8 -> FC 2").shapes() == {"input": (3, 8, 8), "fc1": (2,)}
