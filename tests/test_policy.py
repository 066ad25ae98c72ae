"""Policies: what a block and a process go by, and who is let in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

import striate
from striate import policy
from striate.errors import OptionError, UnknownNameError
from striate.policy import current, tuning


@pytest.fixture(autouse=True)
def own_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_DEFAULTS", policy._DEFAULTS[:1])


def test_the_first_policy_only_estimates() -> None:
    first = current()
    assert (first.rigor, first.tolerance, first.deterministic, first.workspace) == ("estimate", 1e-4, False, 2**28)


def test_a_call_is_the_default_of_the_process_from_then_on() -> None:
    tuning("frozen", tolerance=1e-5)
    assert (current().rigor, current().tolerance) == ("frozen", 1e-5)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(current).result() is current()
    tuning("estimate")
    assert (current().rigor, current().tolerance) == ("estimate", 1e-5)  # what is not given stays


def test_a_block_ends_where_it_ends_also_by_an_error() -> None:
    before = current()
    with tuning("measure", budget=3) as outer:
        with tuning("frozen"):
            assert (current().rigor, current().budget) == ("frozen", 3)
        with pytest.raises(ZeroDivisionError), tuning("frozen"):
            raise ZeroDivisionError
        assert current() is outer
    assert current() is before


def test_a_block_may_be_entered_again_and_within_itself() -> None:
    block = tuning("frozen")
    with block, block:
        assert current().rigor == "frozen"
    assert current().rigor == "estimate"
    with block:
        assert current().rigor == "frozen"
    assert current().rigor == "estimate"


def test_threads_have_blocks_of_their_own() -> None:
    together = Barrier(2)

    def inside(tolerance: float) -> float:
        with tuning("frozen", tolerance=tolerance):
            together.wait()
            found = current().tolerance
            together.wait()
        return found

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(inside, (1e-3, 1e-6))) == [1e-3, 1e-6]
    assert current().rigor == "estimate"


def test_pytorch_s_own_wish_for_determinism_counts() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert current().deterministic
        assert current() is current()
    finally:
        torch.use_deterministic_algorithms(False)
    assert not current().deterministic


def test_wisdom_may_stand_in_a_file_of_one_s_own(tmp_path: Path) -> None:
    with tuning("frozen", wisdom=tmp_path / "mine.jsonl"):
        assert current().wisdom == str(tmp_path / "mine.jsonl")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"budget": -1}, "tuning: budget must be a number of at least 0, got budget=-1."),
    ({"tolerance": float("nan")}, "tuning: tolerance must be a number of at least 0, got tolerance=nan."),
    ({"workspace": "1 GB"}, "tuning: workspace must be a number of at least 0, got workspace='1 GB'."),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        tuning("measure", **options)
    assert str(caught.value) == message
    assert current().rigor == "estimate"


def test_an_unknown_rigor() -> None:
    with pytest.raises(UnknownNameError) as caught:
        striate.tuning("mesure")
    assert str(caught.value) == (
        "No rigor is called 'mesure'. Did you mean 'measure'? Known: estimate, frozen, measure."
    )
