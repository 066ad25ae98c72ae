"""Sweeps: a space is searched, shared by processes, and goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from striate import sweeps
from striate.errors import OptionError
from striate.sweeps import Choice

pytest.importorskip("optuna")


def test_a_sweep_varies_options_and_names_and_goes_on(bars_folder: Path, tmp_path: Path) -> None:
    space = {"learning_rate": "1e-4..1e-1:log", "N": "1..2", "optimizer": "adamw,momentum"}
    given: dict[str, Any] = {"out": tmp_path / "sweep", "epochs": 2, "batch_size": 16}
    text = "INPUT -> [CONV 3x3x4 -> RELU]*N -> POOL -> FC"
    first = sweeps.search(text, bars_folder, space, trials=2, **given)
    assert len(first.trials) == 2
    found = sweeps.search(text, bars_folder, space, trials=4, **given)
    assert sorted(trial.number for trial in found.trials) == [0, 1, 2, 3]
    scores = [trial.score for trial in found.trials if trial.score is not None]
    assert scores == sorted(scores, reverse=True)
    for trial in found.trials:
        assert 1e-4 <= trial.values["learning_rate"] <= 1e-1
        assert trial.values["N"] in (1, 2)
        assert trial.values["optimizer"] in ("adamw", "momentum")
        config = (trial.folder / "config.toml").read_text()
        assert config.count("CONV") == trial.values["N"]
        assert "validation = 0.1" in config
    best = found.best
    lines = [json.loads(line) for line in (best.folder / "metrics.jsonl").read_text().splitlines()]
    assert best.score == max(line["accuracy"] for line in lines)
    assert str(found).splitlines()[0].split() == ["trial", "score", "state", "learning_rate", "N", "optimizer"]
    assert len(str(found).splitlines()) == 5
    with pytest.raises(OptionError) as caught:
        sweeps.search(text, bars_folder, {"N": "1..3"}, trials=4, **given)
    assert str(caught.value) == (
        f"{tmp_path / 'sweep'}: holds another sweep; choose another folder, or give what "
        f"{tmp_path / 'sweep' / 'sweep.json'} says."
    )


@pytest.mark.skipif(not os.environ.get("STRIATE_PROVE"), reason="two more processes load PyTorch: make prove")
def test_two_processes_share_a_sweep(bars_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"out": tmp_path / "sweep", "epochs": 1, "batch_size": 64}
    threads = torch.get_num_threads()
    found = sweeps.search("INPUT -> FC", bars_folder, {"learning_rate": "0.001,0.01,0.1"}, trials=3, jobs=2, **given)
    assert torch.get_num_threads() == threads
    assert len(found.trials) >= 3
    assert all(trial.state in ("complete", "pruned") for trial in found.trials)
    assert {trial.folder.name for trial in found.trials} >= {"trial-0000", "trial-0001", "trial-0002"}


@pytest.mark.parametrize("written", ["3..1", "1..", "a..b", "0..1:log", "1..2:cubic"])
def test_ranges_that_are_none(written: str) -> None:
    with pytest.raises(OptionError) as caught:
        Choice.of("N", written)
    assert str(caught.value) == (
        f"N={written}: expected a range such as 1..3 or 1e-4..1e-1:log, or a list such as 16,32,64."
    )


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        sweeps.search("INPUT -> FC", "fashion-mnist-mini", {}, out=tmp_path)
    assert str(caught.value) == ("a sweep needs something to vary, as in learning_rate=1e-4..1e-1:log or N=1..3.")
    with pytest.raises(OptionError) as caught:
        sweeps.search("INPUT -> [FC 8]*N -> FC", "fashion-mnist-mini", {"M": "1..2", "N": "1..2"}, out=tmp_path)
    assert str(caught.value) == "M is neither an option of training nor a name that the text uses (N)."
