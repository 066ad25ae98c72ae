"""Networks side by side: the notes' statements come out as shares."""

from __future__ import annotations

import json

import pytest

from striate import tables
from striate.analysis import describe
from striate.comparison import compare, sweep
from striate.errors import OptionError

C = 64
# The notes' statements: what is compared, its share of the parameters and multiply-adds of the other one.
STATEMENTS = [
    ("two 3x3 for a 5x5", f"[CONV3-{C} bias=no]*2", f"CONV5-{C} bias=no", 18 / 25),
    ("three 3x3 for a 7x7", f"[CONV3-{C} bias=no]*3", f"CONV7-{C} bias=no", 27 / 49),
    ("1x3 and 3x1 for a 3x3", f"CONV 1x3x{C} bias=no -> CONV 3x1x{C} bias=no", f"CONV3-{C} bias=no", 6 / 9),
    ("depthwise separable", f"DWCONV 3 bias=no -> CONV1-{C} bias=no", f"CONV3-{C} bias=no", 1 / C + 1 / 9),
    ("a bottleneck of a quarter", "CONV1-16 bias=no -> CONV3-16 bias=no -> CONV1-64 bias=no", f"CONV3-{C} bias=no",
     (64 * 16 + 9 * 16 * 16 + 16 * 64) / (9 * 64 * 64)),
    ("four groups", f"CONV3-{C} groups=4 bias=no", f"CONV3-{C} bias=no", 1 / 4),
]  # fmt: skip


@pytest.mark.parametrize(("name", "one", "other", "share"), STATEMENTS, ids=[row[0] for row in STATEMENTS])
def test_a_statement_of_the_notes(name: str, one: str, other: str, share: float) -> None:
    found = compare({name: describe(f"INPUT {C}x32x32 -> {one}"), "other": describe(f"INPUT {C}x32x32 -> {other}")})
    assert found.shares()[0]["parameters"] == pytest.approx(share, abs=1e-12)
    assert found.shares()[0]["macs"] == pytest.approx(share, abs=1e-12)
    if not name.startswith(("a bottleneck", "four")):
        boxes = {row["receptive_field"] for row in found.figures()}
        assert len(boxes) == 1


def test_the_table_of_two_networks() -> None:
    found = compare({
        "two 3x3": describe("INPUT 64x32x32 -> [CONV3-64 bias=no]*2"),
        "one 5x5": describe("INPUT 64x32x32 -> CONV5-64 bias=no"),
    })  # fmt: skip
    assert str(found) == "\n".join([
        "network  layers      parameters       multiply-adds            memory  to predict  to train    output  sees",
        "-----------------------------------------------------------------------------------------------------------",
        "two 3x3       2   73,728   72 %   75,497,472   72 %  768.0 KiB  150 %   800.0 KiB   1.6 MiB  64x32x32   5x5",
        "one 5x5       1  102,400  100 %  104,857,600  100 %  512.0 KiB  100 %   912.0 KiB   1.3 MiB  64x32x32   5x5",
        "Shares are those of the last network. Sees: the input positions that can change one output value.",
    ])  # fmt: skip
    assert json.loads(json.dumps(found.to_dict()))["shares_of_the_last"][0]["parameters"] == 0.72
    assert found.csv().splitlines()[1].startswith("two 3x3,2,73728,75497472,150994944,")
    assert found.page() == tables.as_page(
        "Networks side by side", found.cells(), ("network",), [str(found).splitlines()[-1]]
    )


def test_a_sweep_tries_every_combination() -> None:
    found = sweep("INPUT 3x16x16 -> [CONV3-8 -> POOL?]*N -> FC 10", {"N": [1, 2], "POOL": ["yes", "no"]})
    assert list(found.descriptions) == ["N=1 POOL=yes", "N=1 POOL=no", "N=2 POOL=yes", "N=2 POOL=no"]
    assert [row["parameters"] for row in found.figures()] == [
        224 + 10 * (8 * 64 + 1),
        224 + 10 * (8 * 256 + 1),
        224 + 584 + 10 * (8 * 16 + 1),
        224 + 584 + 10 * (8 * 256 + 1),
    ]


def test_what_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        compare({})
    assert str(caught.value) == "compare needs at least one network."
    with pytest.raises(OptionError) as caught:
        sweep("INPUT -> [FC]*N -> [FC]*M", {"N": range(100), "M": range(100)})
    assert str(caught.value) == "these values give 10,000 networks; at least 1 and at most 1,000 are compared."
