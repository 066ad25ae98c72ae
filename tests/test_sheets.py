"""Text that is said to fit does; what is left out of long lists is counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate import sheets

WORDS = "Of the layers, the middle slices, too."


@pytest.mark.parametrize("inches", [0.3, 1.0, 2.0, 9.0])
def test_wrapped_lines_fit_and_lose_no_word(inches: float) -> None:
    lines = sheets.wrapped(WORDS, inches)
    assert " ".join(lines) == WORDS
    assert all(sheets.extent(line, 8.0) <= inches or " " not in line for line in lines)


@given(st.integers(0, 200))
def test_the_first_and_the_last_of_many_rows_are_kept(count: int) -> None:
    kept, left_out = sheets.extremes(range(count))
    assert len(kept) + left_out == count
    assert kept == sorted(set(kept))
    assert left_out == max(0, count - 40)
    assert not count or (kept[0], kept[-1]) == (0, count - 1)


def test_notes_stand_one_below_the_other() -> None:
    sheet = sheets.Sheet(2.0, 1.0)
    sheet.notes(0.5, ["one", "two"])
    places = [(text.get_text(), text.get_position()) for text in sheet.axes.texts]
    assert places == [("one", (0.0, 0.5)), ("two", (0.0, 0.5 + sheets.NOTE))]
