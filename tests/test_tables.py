"""Tables as text, CSV and a page: aligned, quoted, escaped."""

from __future__ import annotations

import csv
import io

from striate import tables
from striate.analysis import describe

CELLS = [{"layer": "conv<1>", "size": "5"}, {"layer": "total", "size": "1,024"}]


def test_an_aligned_table_with_a_sum() -> None:
    assert tables.aligned(CELLS, ["layer"], total=True) == [
        "layer     size",
        "--------------",
        "conv<1>      5",
        "--------------",
        "total    1,024",
    ]


def test_a_page_shows_what_was_given_and_nothing_else() -> None:
    page = tables.as_page("A <title>", CELLS, ["layer"], ["Notes & more"], [{"size": 'why "5"'}], total=True)
    assert "<title>A &lt;title&gt;</title>" in page
    assert '<td class="left">conv&lt;1&gt;</td><td title="why &quot;5&quot;">5</td>' in page
    assert '<tr class="total"><td class="left">total</td><td>1,024</td></tr>' in page
    assert "<p>Notes &amp; more</p>" in page
    assert "http" not in page


def test_names_of_nodes_stay_apart_in_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(describe("INPUT 1x4x4 -> SUM[CONV3-2 | CONV1-2]").csv())))
    assert rows[-1]["inputs"] == "conv1 conv2"


def test_csv_is_read_back() -> None:
    rows = list(csv.DictReader(io.StringIO(describe("INPUT 1x4x4 -> CONV3-2 -> FC 3").csv())))
    assert [row["name"] for row in rows] == ["input", "conv1", "fc1"]
    assert rows[1]["output_shape"] == "2x4x4"
    assert rows[2]["jump"] == ""
    assert (rows[1]["inputs"], rows[2]["inputs"]) == ("input", "conv1")
    assert rows[2]["unknown"].startswith("endless: after a fully connected layer")
