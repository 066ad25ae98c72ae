"""Sweeps: a space is searched, shared by processes, and goes on where it was."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from striate import cli, commands, runs, sweeps  # noqa: F401  (the verbs of cli join those of commands)
from striate.errors import DataError, OptionError, UnknownNameError
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
    assert len(found.trials) == 3
    assert all(trial.state in ("complete", "pruned") for trial in found.trials)
    assert {trial.folder.name for trial in found.trials} == {"trial-0000", "trial-0001", "trial-0002"}


def test_a_sweep_that_goes_on_draws_what_it_would_have_drawn_at_once(bars_folder: Path, tmp_path: Path) -> None:
    space = {"learning_rate": "1e-3..1e-2:log", "label_smoothing": "0.0..0.5"}
    given: dict[str, Any] = {"steps": 1, "batch_size": 16, "seed": 3}
    for trials in (2, 3, 6):
        parts = sweeps.search("INPUT -> FC", bars_folder, space, trials=trials, out=tmp_path / "parts", **given)
    whole = sweeps.search("INPUT -> FC", bars_folder, space, trials=6, out=tmp_path / "whole", **given)
    first, second = ({trial.number: trial.values for trial in found.trials} for found in (parts, whole))
    assert first == second
    assert len({values["learning_rate"] for values in first.values()}) == 6


def test_processes_that_share_a_sweep_draw_different_values(tmp_path: Path) -> None:
    choice = Choice.of("learning_rate", "1e-4..1e-1:log")
    claims = [sweeps._claimed(sweeps._study(tmp_path), tmp_path, 9, 0) for _ in range(4)]
    assert len({choice.drawn("learning_rate", claim[0]) for claim in claims if claim is not None}) == 4


TOGETHER = [
    {"WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1"},
    {"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
]


@pytest.mark.parametrize("environment", TOGETHER, ids=["torchrun", "srun"])
def test_processes_of_one_run_do_not_begin_a_sweep(
    bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError) as caught:
        sweeps.search("INPUT -> FC", bars_folder, {"learning_rate": "0.01,0.1"}, out=tmp_path / "sweep")
    assert str(caught.value) == (
        "a sweep shares out trials, not steps: this is one of 3 processes that torchrun or srun started for one run; "
        "start striate sweep once on each machine, with --jobs for several processes of it."
    )
    assert not (tmp_path / "sweep").exists()


LISTS = [
    ("16,32,64", (16, 32, 64)),
    ("cuda:0,cuda:1", ("cuda:0", "cuda:1")),
    ("cpu", ("cpu",)),
    ("hf:one/a, hf:two/b", ("hf:one/a", "hf:two/b")),
]


@pytest.mark.parametrize(("written", "values"), LISTS)
def test_lists_are_taken_as_they_are_written(written: str, values: tuple[Any, ...]) -> None:
    assert Choice.of("name", written) == Choice(values=values)


def test_a_list_has_no_logarithms() -> None:
    with pytest.raises(OptionError) as caught:
        Choice.of("hidden", "16,32:log")
    assert str(caught.value) == ("hidden=16,32:log: :log is for ranges such as 1e-4..1e-1:log; leave it out of a list.")


@pytest.mark.parametrize("written", ["3..1", "1..", "a..b", "1..b", "0..1:log", "1..2:cubic", "", ","])
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
    with pytest.raises(UnknownNameError) as unknown:
        sweeps.search("INPUT -> [FC 8]*N -> FC", "fashion-mnist-mini", {"M": "1..2", "N": "1..2"}, out=tmp_path)
    assert str(unknown.value).startswith("No training option or name of the text is called 'M'. Known: N, accumulate, ")
    with pytest.raises(UnknownNameError, match=r" is called 'lr'\. Did you mean 'learning_rate'\? Known: "):
        sweeps.search("INPUT -> FC", "fashion-mnist-mini", {"lr": "0.1,0.2"}, out=tmp_path)


def test_a_sweep_is_never_judged_by_the_test_part(bars_folder: Path, tmp_path: Path) -> None:
    space = {"learning_rate": "0.01,0.1"}
    with pytest.raises(OptionError) as caught:
        sweeps.search("INPUT -> FC", bars_folder, space, out=tmp_path / "sweep", validation=0)
    assert str(caught.value) == (
        "validation=0 leaves bars without a validation part, and a sweep is never judged by the test part; "
        "leave it out, or give a share such as 0.1."
    )
    for name, values in (("validation", "0,0.1"), ("seed", "0..3")):
        with pytest.raises(OptionError) as caught:
            sweeps.search("INPUT -> FC", bars_folder, {**space, name: values}, out=tmp_path / "sweep")
        assert str(caught.value) == (
            f"{name} says which examples trials are judged by, so it must be the same for all; give it one value."
        )
    assert not (tmp_path / "sweep").exists()


def test_a_validation_part_of_the_data_judges(bars_folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(bars_folder, whole)
    shutil.copytree(bars_folder / "test", whole / "validation")
    given: dict[str, Any] = {"out": tmp_path / "sweep", "epochs": 1, "validation": 0, "trials": 1}
    assert sweeps.search("INPUT -> FC", whole, {"learning_rate": "0.01,0.1"}, **given).best.number == 0


def test_what_no_trial_could_use_is_told_before_the_first(bars_folder: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(DataError) as data:
        sweeps.search("INPUT -> FC", nowhere, {"learning_rate": "0.01,0.1"}, out=tmp_path / "sweep")
    assert str(data.value).startswith(f"{nowhere}: there is no such folder.")
    with pytest.raises(OptionError) as option:
        sweeps.search("INPUT -> FC", bars_folder, {"optimizer": "adamw,sgdd"}, out=tmp_path / "sweep")
    assert str(option.value) == (
        "training cannot use\n  optimizer='sgdd': input should be 'adamw', 'momentum' or 'sgd'."
    )
    assert not (tmp_path / "sweep").exists()


def test_trials_that_fail_say_why(bars_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pictures of 8x8 can be halved three times."""
    given: dict[str, Any] = {"out": tmp_path / "sweep", "epochs": 1, "trials": 2}
    found = sweeps.search("INPUT -> [POOL]*N -> FC", bars_folder, {"N": "4,5"}, **given)
    assert [(one.state, one.score) for one in found.trials] == [("fail", None)] * 2
    assert [len(one.error or "") > 9 for one in found.trials] == [True] * 2
    assert str(found).splitlines()[3].startswith(f"trial {found.trials[0].number} failed: ")
    with pytest.raises(OptionError) as caught:
        _ = found.best
    last = max(found.trials, key=lambda one: one.number)
    assert str(caught.value) == f"{tmp_path / 'sweep'}: no trial was completed. The last error: {last.error}"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "told"),
    [(RuntimeError("CUDA out of memory."), "CUDA out of memory."), (MemoryError(), "MemoryError")],
)
def test_a_trial_that_needs_too_much_memory_fails_alone(
    bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    train = runs.train

    def failing(*arguments: Any, **options: Any) -> runs.Run:
        if options["out"].name == "trial-0000":
            raise error
        return train(*arguments, **options)

    monkeypatch.setattr(runs, "train", failing)
    given: dict[str, Any] = {"out": tmp_path / "sweep", "epochs": 1, "trials": 2}
    found = sweeps.search("INPUT -> FC", bars_folder, {"learning_rate": "0.01,0.1"}, **given)
    assert [(one.number, one.state, one.error) for one in found.trials] == [(1, "complete", None), (0, "fail", told)]


def test_a_trial_that_is_broken_off_does_not_count_and_the_sweep_goes_on(
    bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = runs.train

    def stopping(*arguments: Any, on_epoch: Any, **options: Any) -> runs.Run:
        def stop(figures: Any) -> None:
            if options["out"].name == "trial-0001":
                os.kill(os.getpid(), signal.SIGINT)
            on_epoch(figures)

        return train(*arguments, on_epoch=stop, **options)

    folder = tmp_path / "my sweep"
    given: dict[str, Any] = {"trials": 2, "epochs": 2, "size": (8, 8), "augment": "shift 1, flip"}
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", stopping)
        with pytest.raises(KeyboardInterrupt) as caught:
            sweeps.search("INPUT -> FC", bars_folder, {"learning_rate": "1e-3..1e-2:log"}, out=folder, **given)
    command = (
        f"striate sweep 'INPUT -> FC' learning_rate=1e-3..1e-2:log --data {bars_folder} --out '{folder}' --trials 2 "
        "--augment 'shift 1, flip' --epochs 2 --size 8x8"
    )
    assert str(caught.value) == f"Stopped after 1 of 2 trials, which are kept in {folder}; go on with: {command}"
    done = CliRunner().invoke(commands.app, [*shlex.split(command)[1:], "--json"])
    assert done.exit_code == 0, done.output
    states = {one["number"]: (one["state"], one["error"]) for one in json.loads(done.stdout)["trials"]}
    assert states == {0: ("complete", None), 1: ("stopped", None), 2: ("complete", None)}


def test_processes_never_run_more_trials_than_asked(tmp_path: Path) -> None:
    """A trial that a process has in hand counts, and one that a killed process left does not."""
    study = sweeps._study(tmp_path)
    study.ask()  # a process that was killed
    claims = [sweeps._claimed(study, tmp_path, 2, 0) for _ in range(3)]
    assert [claim is None for claim in claims] == [False, False, True]
    assert claims[0] is not None
    claims[0][1].release()  # another one
    assert sweeps._claimed(study, tmp_path, 2, 0) is not None


def test_a_sweep_needs_a_folder_of_its_own(bars_folder: Path) -> None:
    before = sorted(bars_folder.rglob("*"))
    with pytest.raises(OptionError) as caught:
        sweeps.search("INPUT -> FC", bars_folder, {"epochs": "1..2"}, trials=1, out=bars_folder)
    assert str(caught.value) == f"{bars_folder}: is not empty; a sweep needs a folder of its own."
    assert sorted(bars_folder.rglob("*")) == before
