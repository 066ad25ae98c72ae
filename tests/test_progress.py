"""A bar that comes when one would begin to wonder."""

from __future__ import annotations

import pytest

from striate import progress
from striate.progress import Progress


def test_what_is_quick_shows_no_bar() -> None:
    with Progress("quick") as shown:
        shown.tell(0.5)
        assert shown.bar is None


def test_what_is_slow_shows_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with Progress("slow") as shown:
        for share in (-0.5, 0.5, 1.5):
            shown.tell(share)
            assert 0 <= shown.bar.tasks[0].completed <= 1
        assert shown.bar.tasks[0].description == "slow"
    with Progress("slow", total=3) as shown:
        for done in (1, 2, 3, 3):
            shown.advance()
            assert shown.bar.tasks[0].completed == done
    assert capsys.readouterr() == ("", "")  # no terminal here
