"""Runs: from a text and data to a folder; interrupted and resumed they give the same bits."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import striate
from striate import checkpoint as checkpoints
from striate import files
from striate.checkpoint import Sums
from striate.datasets import Split
from striate.errors import CheckpointError, DataError, GeometryError, OptionError, OutputError, TrainingError
from striate.images import to_pillow
from striate.metrics import MaskEvaluation

from . import killed_run

TEXT = "INPUT -> CONV 3x3x4 -> RELU -> DROPOUT 0.2 -> POOL -> FC"


def train(*arguments: Any, **options: Any) -> striate.Run:
    """A run without its report, which takes longer than the training here."""
    given = {} if {"resume", "config"} & options.keys() else {"report": False}
    return striate.train(*arguments, **given | options)


def test_a_run_is_a_folder_with_checkpoint_figures_and_report(bars_run: Any) -> None:
    assert sorted(path.name for path in bars_run.folder.iterdir()) == [
        "best.safetensors",
        "checkpoint.safetensors",
        "config.toml",
        "metrics.jsonl",
        "report.html",
    ]
    lines = [json.loads(line) for line in (bars_run.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(bars_run.history)
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert bars_run.metrics == {"accuracy": lines[-1]["accuracy"], "loss": lines[-1]["loss"]}
    assert bars_run.images_per_second == pytest.approx(180 * 8 / sum(line["seconds"] for line in lines))
    assert bars_run.metrics["accuracy"] >= 0.9
    html = bars_run.report.read_text()
    assert f"striate predict {bars_run.folder.as_posix()}" in html


class StopError(Exception):
    """Raised by a test to leave a run in the middle."""


def until(epochs: int) -> Any:
    def stop(figures: Mapping[str, Any]) -> None:
        if figures["epoch"] == epochs:
            raise StopError

    return stop


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint.safetensors")


WIDE = "INPUT 1x8x8 -> CONV 3-16 -> BN -> RELU -> POOL -> CONV 3-16 -> RELU -> DROPOUT -> FC 3"  # lies channels-last


@pytest.mark.parametrize("text", [TEXT, WIDE])
@pytest.mark.parametrize(("optimizer", "ema"), [("adamw", None), ("momentum", None), ("sgd", None), ("adamw", 0.9)])
def test_a_resumed_run_gives_the_same_bits_as_an_uninterrupted_one(
    bars: Any, tmp_path: Path, text: str, optimizer: str, ema: float | None
) -> None:
    options: dict[str, Any] = {"epochs": 4, "batch_size": 32, "optimizer": optimizer, "seed": 7, "ema": ema}
    whole = train(text, bars, out=tmp_path / "whole", **options)
    with pytest.raises(StopError):
        train(text, bars, out=tmp_path / "broken", on_epoch=until(2), **options)
    assert len((tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()) == 2
    resumed = train(resume=tmp_path / "broken", data=bars)
    first, second = tensors(whole.folder), tensors(resumed.folder)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert without_seconds(whole.history) == without_seconds(resumed.history)


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(bars: Any, tmp_path: Path) -> None:
    def press(done: int, total: int, what: str) -> None:
        if what.startswith("epoch 2 of 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(TEXT, bars, out=tmp_path / "run", epochs=3, progress=press)
    assert str(caught.value) == (
        f"Stopped after 1 of 3 epochs, which are kept in {tmp_path / 'run'}; "
        f"go on with: striate train --resume {tmp_path / 'run'}"
    )
    assert len(train(resume=tmp_path / "run", data=bars).history) == 3


def test_a_full_disk_in_the_middle_keeps_the_last_checkpoint(
    bars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write

    def full(path: Path, content: bytes) -> None:
        if path.name == "checkpoint.safetensors" and b'"epoch\\":2' in content:
            monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
        real(path, content)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OutputError) as caught:
        train(TEXT, bars, out=tmp_path / "run", epochs=3)
    path = tmp_path / "run" / "checkpoint.safetensors"
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left). The file that was there before is unchanged."
    )
    monkeypatch.undo()
    assert len(train(resume=tmp_path / "run", data=bars).history) == 3


KILLS = 20 if os.environ.get("STRIATE_PROVE") else 8


def test_a_run_killed_at_random_moments_comes_to_the_same_end(bars_folder: Path, tmp_path: Path) -> None:
    """SIGKILL again and again, within epochs and between them; what is on disk always goes on to the same end."""
    folder, draw, seen = tmp_path / "run", random.Random(0), []
    command = [sys.executable, str(Path(killed_run.__file__)), str(bars_folder), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        for _ in range(KILLS):
            child, deadline = ask(server), time.monotonic() + 120
            for _ in range(draw.randint(1, 8)):
                before = stamp(folder)
                while time.monotonic() < deadline and stamp(folder) == before:
                    time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            assert int(answer(server)) == -signal.SIGKILL, "the run was over before it could be killed"
            training = checkpoints.load(folder).training
            assert training is not None
            seen.append((len(training.history), training.sums.step))
        server.stdin.close()  # type: ignore[union-attr]
    assert seen == sorted(seen)
    assert len(set(seen)) >= KILLS / 2, "kills came at many places"
    resumed = killed_run.go(str(bars_folder), folder)
    whole = killed_run.go(str(bars_folder), tmp_path / "whole")
    first, second = tensors(whole.folder), tensors(folder)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.folder.iterdir())


def ask(server: Any) -> int:
    """Begin a process; its number."""
    server.stdin.write("\n")
    return int(answer(server))


def answer(server: Any) -> str:
    return cast("str", server.stdout.readline())


def stamp(folder: Path) -> int:
    """When the checkpoint was last written."""
    path = folder / checkpoints.FILE
    return path.stat().st_mtime_ns if path.exists() else 0


def without_seconds(history: Any) -> list[dict[str, float]]:
    return [{name: value for name, value in figures.items() if name != "seconds"} for figures in history]


def test_a_finished_run_is_reported_again(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", epochs=1, report=True)
    assert run.report is not None
    run.report.unlink()
    again = train(resume=run.folder, data=bars)
    assert again.report is not None
    assert again.report.exists()
    assert again.metrics == run.metrics


def test_only_a_constant_schedule_can_be_prolonged(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "cycle", epochs=1)
    with pytest.raises(OptionError) as caught:
        train(resume=run.folder, data=bars, epochs=2)
    assert str(caught.value) == (
        f"{run.folder}: its schedule was laid out for 1 epochs; only a run with the constant schedule "
        f"and without warm-up can be prolonged. A new run can start from its weights: "
        f"weights={run.folder}/checkpoint.safetensors."
    )
    warmed = train(TEXT, bars, out=tmp_path / "warmed", epochs=1, schedule="constant", warmup=0.5)
    with pytest.raises(OptionError, match="without warm-up can be prolonged"):
        train(resume=warmed.folder, data=bars, epochs=2)
    options: dict[str, Any] = {"schedule": "constant", "batch_size": 32}
    whole = train(TEXT, bars, out=tmp_path / "whole", epochs=2, **options)
    short = train(TEXT, bars, out=tmp_path / "short", epochs=1, **options)
    longer = train(resume=short.folder, data=bars, epochs=2)
    for name, tensor in tensors(whole.folder).items():
        assert torch.equal(tensor, tensors(longer.folder)[name]), name


def test_a_data_set_in_memory_is_not_loaded_otherwise(bars: Any) -> None:
    with pytest.raises(OptionError) as caught:
        train(TEXT, bars, validation=0.2, size=14, stream=True)
    assert str(caught.value) == (
        "validation=0.2, size=14, stream=True would change how bars is loaded, and it was given as a Dataset, loaded "
        "already; load it so: striate.datasets.load(..., validation=0.2, size=14, stream=True)."
    )


def test_resume_refuses_what_would_not_be_the_same_run(bars: Any, bars_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(TEXT, bars, out=tmp_path / "run", epochs=3, on_epoch=until(1))
    folder = tmp_path / "run"
    with pytest.raises(CheckpointError) as error:
        train("INPUT 1x8x8 -> FC 3", resume=folder, data=bars)
    assert str(error.value) == (
        f"{folder}: goes on with its own network, INPUT 1x8x8 -> CONV 3x3x4 -> RELU -> DROPOUT 0.2 -> POOL -> FC 3; "
        "leave the network out."
    )
    with pytest.raises(OptionError) as option:
        train(resume=folder, data=bars, learning_rate=0.5)
    assert str(option.value) == f"{folder}: a run goes on with its own learning_rate; start a new run to change that."
    with pytest.raises(OptionError) as option:
        train(resume=folder)
    assert str(option.value) == f"{folder}: was trained on data in memory; give it again."
    fewer = striate.Dataset("fewer", bars.classes, bars.test, bars.test)
    with pytest.raises(CheckpointError) as error:
        train(resume=folder, data=fewer)
    assert str(error.value) == (
        f"{folder}: was trained on 180 examples, fewer has 60 now; a run can only go on with the same data."
    )
    with pytest.raises(CheckpointError) as error:
        train(resume=folder / "checkpoint.safetensors", data=bars)
    assert str(error.value) == f"{folder / 'checkpoint.safetensors'}: resume takes the folder of a run."


def test_what_cannot_be_trained_is_said_before_training(bars: Any, bars_folder: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            {"network": "INPUT -> FC 7", "data": bars},
            OptionError,
            "the network ends in 7 scores, but bars has 3 classes; end it in FC, or FC 3.",
        ),
        (
            {"network": "INPUT -> CONV", "data": bars},
            OptionError,
            "the network has no FC layer to end in, but bars has 3 classes; end it in FC, or FC 3.",
        ),
        (
            {"network": "INPUT 3x8x8 -> FC", "data": bars},
            OptionError,
            "the network takes (3, 8, 8), the pictures of bars are (1, 8, 8).",
        ),
        (
            {"network": "INPUT 3x100 -> FC", "data": bars_folder},
            OptionError,
            "size must be two whole numbers (height, width), each at least 1, got size=(100,).",
        ),
        (
            {"network": "INPUT 1x8x8 -> FC", "data": bars_folder, "size": (9, 9)},
            OptionError,
            "size=(9, 9) contradicts the network's INPUT (1, 8, 8); leave one of them out.",
        ),
        (
            {"network": TEXT},
            OptionError,
            (
                "name a network and a data set to train, as in striate train lenet5 --data fashion-mnist-mini, "
                "or striate.train('lenet5', 'fashion-mnist-mini')."
            ),
        ),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind) as caught:
            train(**arguments, out=tmp_path / "run")
        assert str(caught.value) == message
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(bars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [train("INPUT -> FC", bars, epochs=1).folder for _ in range(2)]
    assert folders == [Path("runs/network-bars"), Path("runs/network-bars-2")]
    with pytest.raises(OptionError) as caught:
        train("INPUT -> FC", bars, epochs=1, out=folders[0])
    assert str(caught.value) == (
        f"{folders[0]}: holds a run already; go on with it by striate train --resume {folders[0]}, "
        "or name another folder."
    )


def test_a_zoo_network_is_adapted_and_pictures_are_brought_to_a_texts_size(
    bars: Any, bars_folder: Path, tmp_path: Path
) -> None:
    adapted = train("lenet5", bars_folder, size=(16, 12), epochs=1, out=tmp_path / "adapted")
    assert striate.predict(adapted.folder, bars_folder / "test" / "lying")[0].label in bars.classes
    weights = tensors(adapted.folder)
    assert (weights["fc1.weight"].shape, weights["fc3.weight"].shape) == ((120, 16 * 2 * 1), (3, 84))
    resized = train("INPUT 3x10x9 -> FC", bars_folder, epochs=1, out=tmp_path / "resized")
    assert tensors(resized.folder)["fc1.weight"].shape == (3, 3 * 10 * 9)


def test_bad_pictures_are_named(bars_folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bars"
    shutil.copytree(bars_folder, copy)
    broken = copy / "train" / "lying" / "000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=str(broken)):
        train(TEXT, copy, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_pictures_of_the_same_number_are_not_the_same_data(bars: Any, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(TEXT, bars, out=tmp_path / "run", epochs=2, on_epoch=until(1))
    inverted = striate.datasets.Split(255 - bars.train.inputs, bars.train.targets)
    other = striate.Dataset("inverted", bars.classes, inverted, bars.test)
    with pytest.raises(CheckpointError) as caught:
        train(resume=tmp_path / "run", data=other)
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: the examples or targets of inverted have changed since it was trained; "
        "a run can only go on with the same data."
    )


def test_resume_refuses_another_folder_and_fewer_epochs(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", epochs=2, schedule="constant")
    with pytest.raises(OptionError) as caught:
        train(resume=run.folder, data=bars, out="elsewhere")
    assert str(caught.value) == f"{run.folder}: a resumed run stays in its folder; leave out='elsewhere' out."
    with pytest.raises(OptionError) as caught:
        train(resume=run.folder, data=bars, epochs=1)
    assert str(caught.value) == f"{run.folder}: 2 epochs are done already, more than 1."


def test_a_run_needs_a_folder_of_its_own(bars: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    for out, reason in ((tmp_path / "photos", "is not empty"), (tmp_path / "photos" / "a.png", "is a file")):
        with pytest.raises(OptionError) as caught:
            train("INPUT -> FC", bars, out=out, epochs=1)
        assert str(caught.value) == f"{out}: {reason}; a run needs a folder of its own."


def test_batch_normalisation_of_one_picture_is_refused_before_training(bars: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        train("INPUT -> FC 8 -> BN -> FC", bars, out=tmp_path / "run", batch_size=179)
    assert str(caught.value) == (
        "bn1 cannot normalise a batch of 1 picture, which batch_size=179 leaves of 180; "
        "give another batch_size, or leave out BN."
    )
    assert train("INPUT -> CONV3-2 -> BN -> FC", bars, out=tmp_path / "maps", batch_size=1, epochs=1).history
    assert train("INPUT -> FC 8 -> BN -> FC", bars, out=tmp_path / "run", batch_size=90, epochs=1).history


def test_a_network_with_weights_is_refused_in_words(bars: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        train(cast("Any", striate.network("INPUT 1x8x8 -> FC 3")), bars, out=tmp_path / "run")
    assert str(caught.value) == (
        "train starts weights of its own, from a text, a zoo name or a file, and got a network that has some; "
        "give striate.notation.format(network.architecture) to train its text anew."
    )


def test_a_graph_with_auxiliary_outputs_is_trained_kept_and_read_back(bars: Any, tmp_path: Path) -> None:
    text = "INPUT -> CONV3-4 -> SUM[CONV3-4 -> RELU | IDENTITY] as low -> AUX[FC] -> POOL -> FC"
    run = train(text, bars, out=tmp_path / "run", epochs=1, batch_size=16)
    found = striate.predict(run.folder, bars.test.inputs[:2])
    assert [one.label in bars.classes for one in found] == [True, True]


def test_a_network_larger_than_memory_is_refused_in_words(bars: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        train("INPUT -> FC 999999999 -> FC", bars, out=tmp_path / "run")
    assert str(caught.value) == "the network's 67,999,999,935 parameters need more memory than there is."


def test_a_folder_is_found_again_from_anywhere(
    bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bars_folder.parent)
    run = train("INPUT -> FC", "bars", out=tmp_path / "run", epochs=1)
    monkeypatch.chdir(tmp_path)
    assert striate.evaluate(run.folder).accuracy == run.metrics["accuracy"]


def test_commands_to_copy_quote_the_folder(bars: Any, tmp_path: Path) -> None:
    run = train("INPUT -> FC", bars, out=tmp_path / "a; echo b", epochs=1, report=True)
    assert run.report is not None
    assert f"striate predict '{tmp_path}/a; echo b' photo.png" in run.report.read_text().replace("&#39;", "'")


# ------------------------------------------------------------------------------------------------------ what runs offer


def test_masks_are_learned_on_patches_and_seen_whole(circles: Any, tmp_path: Path) -> None:
    text = "INPUT -> CONV3-8 -> RELU -> CONV3-8 -> RELU -> CONV"
    given: dict[str, Any] = {"epochs": 12, "batch_size": 8, "patch": (12, 16), "augment": "flip"}
    run = train(text, circles, out=tmp_path / "run", loss="softmax+dice", learning_rate=0.02, **given)
    assert "INPUT 1x12x16" in (run.folder / "config.toml").read_text()
    assert run.metrics["iou"] > 0.8
    assert run.history[-1].keys() >= {"iou", "accuracy", "loss", "train_loss"}
    found = striate.evaluate(run.folder, circles)
    assert isinstance(found, MaskEvaluation)
    assert found.mean_iou == run.metrics["iou"]
    (prediction,) = striate.predict(run.folder, circles.test.inputs[:1])
    assert prediction.mask is not None
    assert prediction.mask.shape == (24, 32)
    assert prediction.to_dict().keys() == {"picture", "label", "probability", "probabilities"}
    best = checkpoints.load(run.best).training
    assert best is not None
    scores = [figures["iou"] for figures in run.history]
    assert len(best.history) == scores.index(max(scores)) + 1


SKIPPING = "INPUT -> CONV3-8 as one -> POOL 2 -> CONV3-8 -> UPSAMPLE 2 -> CONCAT[from one | IDENTITY] -> CONV"


def test_patches_of_files_are_learned_and_whole_files_are_seen(circles: Any, tmp_path: Path) -> None:
    for part, split in (("train", circles.train), ("test", circles.test)):
        for kind, values in (("images", split.inputs), ("masks", split.targets[:, None])):
            (tmp_path / "data" / part / kind).mkdir(parents=True)
            for number, value in enumerate(values):
                to_pillow(value).save(tmp_path / "data" / part / kind / f"{number:03}.png")
    run = train(SKIPPING, tmp_path / "data", out=tmp_path / "run", epochs=1, patch=(12, 16))
    said = striate.predict(run.folder, tmp_path / "data" / "test" / "images")
    same = striate.predict(run.folder, circles.test.inputs)
    assert [one.mask.shape for one in said if one.mask is not None] == [(24, 32)] * 10
    for one, other in zip(said, same, strict=True):
        assert_close(one.mask, other.mask, rtol=0, atol=0)
    assert striate.export(run.folder, tmp_path / "a.pt2").input == "input uint8 (batch, 1, 24, 32)"
    assert striate.export(run.folder, tmp_path / "a.pt2", size=(10, 6)).input == "input uint8 (batch, 1, 10, 6)"
    with pytest.raises(GeometryError, match=r"^In concat1 .*: CONCAT needs branches of one size; they give 8x13x17"):
        striate.export(run.folder, tmp_path / "a.pt2", size=(13, 17))
    with pytest.raises(GeometryError, match=r"^In concat1 "):
        striate.predict(run.folder, circles.test.inputs[:, :, 1:])
    train_part, test_part = (Split(s.inputs[:, :, 1:], s.targets[:, 1:]) for s in (circles.train, circles.test))
    odd = replace(circles, train=train_part, test=test_part)
    with pytest.raises(GeometryError, match=r"^In concat1 "):
        train(SKIPPING, odd, out=tmp_path / "odd", patch=(12, 16))


def test_patches_of_arrays_that_no_picture_file_holds(circles: Any, tmp_path: Path) -> None:
    parts = {"train": circles.train, "test": circles.test}
    inputs = {f"x_{name}": part.inputs.float().numpy() for name, part in parts.items()}
    masks = {f"y_{name}": part.targets.numpy() for name, part in parts.items()}
    np.savez(tmp_path / "a.npz", **inputs, **masks)
    np.save(tmp_path / "x.npy", inputs["x_test"])
    run = train(SKIPPING, tmp_path / "a.npz", out=tmp_path / "run", steps=1, patch=(12, 16), batch_size=8)
    assert striate.evaluate(run.folder).to_dict() == run.evaluation.to_dict()  # of the whole arrays
    said, same = striate.predict(run.folder, tmp_path / "x.npy"), striate.predict(run.folder, inputs["x_test"])
    assert [one.probabilities for one in said] == [one.probabilities for one in same]
    for wrong, message in {
        tmp_path: f"{tmp_path}: the network was trained on arrays; name files of them, .npy or .npz.",
        tmp_path / "a.png": f"{tmp_path}/a.png: the network was trained on arrays; give a file of them, .npy or .npz.",
    }.items():
        with pytest.raises(DataError) as caught:
            striate.predict(run.folder, wrong)
        assert str(caught.value) == message
    assert train(resume=run.folder).history[0]["loss"] == run.history[0]["loss"]


def test_masks_without_a_label_judge_nothing(circles: Any, tmp_path: Path) -> None:
    for part, name in {"train": "training", "test": "test"}.items():
        blank = Split(getattr(circles, part).inputs, torch.full_like(getattr(circles, part).targets, 255))
        with pytest.raises(DataError) as caught:
            train("INPUT -> CONV", replace(circles, **{part: blank}), out=tmp_path / part, epochs=1)
        assert str(caught.value) == f"circles: no pixel of its {name} part has a label: all are 255."


PATCHES = {
    (99, 99): "patch=99x99 does not fit into the examples, which are 24x32.",
    (99,): "patch=99x99 does not fit into the examples, which are 24x32.",
    (9, 9, 9): "patch=9x9x9 does not fit into the examples, which are 24x32.",
}


@pytest.mark.parametrize("patch", PATCHES)
def test_patches_that_cannot_be_cut(circles: Any, tmp_path: Path, patch: tuple[int, ...]) -> None:
    with pytest.raises(OptionError) as caught:
        train("INPUT -> CONV", circles, out=tmp_path / "run", patch=patch)
    assert str(caught.value) == PATCHES[patch]


def test_masks_need_maps_of_all_classes(circles: Any, tmp_path: Path) -> None:
    for text, gives in (
        ("INPUT -> CONV1-5", "(5, 24, 32)"),
        ("INPUT -> FC", "(2,)"),
        ("INPUT -> POOL -> CONV", "(2, 12, 16)"),
    ):
        with pytest.raises(OptionError) as caught:
            train(text, circles, out=tmp_path / "run")
        assert str(caught.value) == (
            f"the network gives {gives}, but the masks of circles need (2, 24, 32): a map for each of 2 classes, as "
            "large as the input; end it in CONV1-2 at full size."
        )


def test_weights_are_taken_over_and_the_head_starts_anew_for_other_classes(bars: Any, tmp_path: Path) -> None:
    first = train(TEXT, bars, out=tmp_path / "first", epochs=2)
    still: dict[str, Any] = {"weights": str(first.checkpoint), "steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    same = train(TEXT, bars, out=tmp_path / "same", **{**still, "weights": str(first.folder)})
    for name in ("conv1.weight", "fc1.weight"):
        torch.testing.assert_close(tensors(same.folder)[name], tensors(first.folder)[name])
    assert same.notes == ()
    two = Split(bars.train.inputs[bars.train.targets < 2], bars.train.targets[bars.train.targets < 2])
    fewer = striate.Dataset("fewer", ("lying", "standing"), two, two)
    told: list[str] = []
    tuned = train(TEXT, fewer, out=tmp_path / "tuned", on_note=told.append, **still)
    assert tuned.notes == (f"fc1 starts anew: the classes of {first.checkpoint} are others.",) == tuple(told)
    torch.testing.assert_close(tensors(tuned.folder)["conv1.weight"], tensors(first.folder)["conv1.weight"])
    assert tensors(tuned.folder)["fc1.weight"].shape == (2, 64)
    with pytest.raises(CheckpointError) as caught:
        train("INPUT -> CONV 5x5x4 -> RELU -> POOL -> FC", bars, out=tmp_path / "other", weights=str(first.checkpoint))
    assert str(caught.value).startswith(f"{first.checkpoint}: its 4 tensors do not fit the network's 4: ")


def test_steps_take_the_place_of_epochs(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", steps=10, batch_size=32)  # 6 steps an epoch
    assert [figures["epoch"] for figures in run.history] == [1, 2]
    assert tensors(run.folder)["optimizer/0/step"].item() == 10
    with pytest.raises(OptionError) as caught:
        train(TEXT, bars, out=tmp_path / "two", steps=10, epochs=3)
    assert str(caught.value) == (
        "training cannot use\n  steps and epochs both say how long to train; leave one of them out."
    )


def test_a_run_whose_time_is_up_is_kept_and_goes_on_to_the_same_end(bars: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"epochs": 4, "batch_size": 16, "ema": 0.9}
    short = train(TEXT, bars, out=tmp_path / "short", minutes=1e-6, **given)
    assert not short.finished
    assert short.notes == (f"Stopped after {len(short.history)} of 4 epochs and 1 step: 1e-06 minutes are over.",)
    assert checkpoints.load(short.folder).training.sums.step == 1  # type: ignore[union-attr]
    done = train(resume=short.folder, data=bars, minutes=60)
    assert done.finished
    whole = train(TEXT, bars, out=tmp_path / "whole", **given)
    for name, tensor in tensors(whole.folder).items():
        assert torch.equal(tensor, tensors(done.folder)[name]), name
    assert without_seconds(done.history) == without_seconds(whole.history)


def test_what_predicts_is_the_average_of_the_weights(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", epochs=2, ema=0.9)
    found = tensors(run.folder)
    assert {name for name in found if name.startswith("raw/")} == {
        "raw/conv1.weight", "raw/conv1.bias", "raw/fc1.weight", "raw/fc1.bias"
    }  # fmt: skip
    assert not torch.equal(found["raw/fc1.weight"], found["fc1.weight"])
    assert striate.evaluate(run.folder, bars).loss == pytest.approx(run.metrics["loss"], rel=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_keeps_it(bars: Any, tmp_path: Path, number: signal.Signals) -> None:
    def send(done: int, total: int, what: str) -> None:
        if what.startswith("epoch 2 of 3"):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    given: dict[str, Any] = {"epochs": 3, "batch_size": 32}
    with pytest.raises(KeyboardInterrupt) as caught:
        train(TEXT, bars, out=tmp_path / "run", progress=send, **given)
    assert str(caught.value) == (
        f"Stopped after 1 of 3 epochs and 1 step, which are kept in {tmp_path}/run; "
        f"go on with: striate train --resume {tmp_path}/run"
    )
    assert signal.getsignal(number) == before
    known = checkpoints.load(tmp_path / "run").training
    assert known is not None
    assert known.sums.step == 1
    done, whole = train(resume=tmp_path / "run", data=bars), train(TEXT, bars, out=tmp_path / "whole", **given)
    assert without_seconds(done.history) == without_seconds(whole.history)
    assert (done.folder / "metrics.jsonl").read_text().count('"epoch": 2,') == 1


def test_the_best_epoch_is_kept_although_the_run_ended_before_it_was_written(
    bars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("striate.runs._Keeper.keep_best", end)
        with pytest.raises(KeyboardInterrupt):
            train(TEXT, bars, out=tmp_path / "run", epochs=2)
    run = train(resume=tmp_path / "run", data=bars)
    whole = train(TEXT, bars, out=tmp_path / "whole", epochs=2)
    for name, tensor in load_file(whole.best).items():
        assert torch.equal(tensor, load_file(run.best)[name]), name


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(
    bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(trainer: Any, tick: Any) -> float:
        raise KeyboardInterrupt

    given: dict[str, Any] = {"epochs": 1, "learning_rate": "find"}
    with monkeypatch.context() as patch:
        patch.setattr("striate.range_test.best_rate", end)
        with pytest.raises(KeyboardInterrupt):
            train(TEXT, bars_folder, out=tmp_path / "run", **given)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.toml"]
    whole = train(TEXT, bars_folder, out=tmp_path / "whole", **given)
    assert re.fullmatch(r"learning_rate=[0-9.e-]+ was found\.", whole.notes[0])
    for again in (train(resume=tmp_path / "run"), train(resume=tmp_path / "run")):
        for name, tensor in tensors(whole.folder).items():
            assert torch.equal(tensor, tensors(again.folder)[name]), name


def test_what_cannot_begin_leaves_no_folder(bars: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        train(TEXT, bars, out=tmp_path / "run", weights="nowhere.pt")
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_cut_within_an_epoch_is_not_prolonged(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", steps=8, batch_size=32, schedule="constant")  # 6 steps an epoch
    with pytest.raises(OptionError) as caught:
        train(resume=run.folder, data=bars, steps=12)
    assert str(caught.value) == (
        f"{run.folder}: its 8 steps ended within an epoch of 6; such a run cannot be prolonged."
    )


@pytest.mark.parametrize(("epochs", "step", "steps"), [(1, 6, 6), (1, 500, 6), (2, 3, 0)])
def test_a_checkpoint_behind_the_end_of_its_epoch_is_refused(
    bars: Any, tmp_path: Path, epochs: int, step: int, steps: int
) -> None:
    folder = train(TEXT, bars, out=tmp_path / "run", epochs=2, batch_size=32).folder  # 6 steps an epoch
    found = checkpoints.load(folder)
    assert found.training is not None
    update = {"history": found.training.history[:epochs], "sums": Sums(step=step, totals=[1.0], counts=[1.0])}
    changed = replace(found, training=found.training.model_copy(update=update))
    checkpoints.save(folder / checkpoints.FILE, changed)
    with pytest.raises(CheckpointError) as caught:
        train(resume=folder, data=bars)
    assert str(caught.value) == (
        f"{folder}: step {step} of epoch {epochs + 1} is done already, and the epoch has {steps}; the checkpoint is "
        "damaged, or more steps must be asked for."
    )


def test_its_own_config_may_be_given_when_a_run_goes_on(bars_folder: Path, tmp_path: Path) -> None:
    run = train(TEXT, bars_folder, out=tmp_path / "run", epochs=1)
    again = train(resume=run.folder, config=run.folder / "config.toml")
    assert again.history == run.history


def test_a_loss_that_is_no_number_ends_the_run_within_the_epoch_and_is_never_kept(bars: Any, tmp_path: Path) -> None:
    seen = []
    with pytest.raises(
        TrainingError, match=r"^the loss became (nan|inf) in epoch 1 .* try 1e\+19, or learning_rate=find\.$"
    ):
        train(
            "INPUT -> FC", bars, out=tmp_path / "run", batch_size=1, learning_rate=1e20, optimizer="sgd",
            checkpoint_minutes=1e-9, progress=lambda done, total, what: seen.append(done),
        )  # fmt: skip
    assert seen[-1] < 180
    for tensor in tensors(tmp_path / "run").values():
        assert torch.isfinite(tensor).all()


def test_figures_that_are_not_defined_are_kept_and_read_again(bars: Any, tmp_path: Path) -> None:
    found = checkpoints.load(train("INPUT -> FC", bars, out=tmp_path / "run", epochs=1).folder)
    assert found.training is not None
    history: list[dict[str, float]] = [found.training.history[0] | {"iou": math.nan, "loss": math.inf}]
    known = found.training.model_copy(update={"history": history})
    checkpoints.save(tmp_path / "a.safetensors", replace(found, training=known))
    again = checkpoints.load(tmp_path / "a.safetensors").training
    assert again is not None
    assert repr(again.history) == repr(history)


def test_the_head_is_not_taken_over_for_classes_of_other_names(bars: Any, tmp_path: Path) -> None:
    first = train("INPUT -> FC", bars, out=tmp_path / "first", epochs=1)
    given: dict[str, Any] = {"weights": str(first.checkpoint), "steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    same = train("INPUT -> FC", bars, out=tmp_path / "same", **given)
    others = replace(bars, classes=("lying", "crossed", "standing"))
    other = train("INPUT -> FC", others, out=tmp_path / "other", **given)
    kept, mine, anew = (tensors(run.folder)["fc1.weight"] for run in (first, same, other))
    assert_close(mine, kept)
    assert not torch.allclose(anew, kept, atol=1e-3)


def test_evaluations_are_of_the_plain_loss_whatever_was_learned_with(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", epochs=1, label_smoothing=0.2, class_weights=(1.0, 2.0, 3.0))
    found = striate.evaluate(run.folder, bars)
    assert found.loss == run.history[-1]["loss"]
    assert isinstance(found, striate.metrics.Evaluation)
    assert_close(found.loss, float(-found.probabilities.double().gather(1, found.labels[:, None]).log().mean()))


def test_early_stopping_ends_a_run_that_no_longer_gets_better(bars: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"epochs": 40, "early_stopping": 2, "learning_rate": 1e-12}
    with pytest.raises(OptionError) as caught:
        train(TEXT, bars, out=tmp_path / "run", **given)
    assert str(caught.value) == (
        "early_stopping judges by a validation part, and bars has none; hold one out: validation=0.1."
    )
    bars = replace(bars, validation=bars.test)
    run = train(TEXT, bars, out=tmp_path / "run", **given)
    scores = [figures["accuracy"] for figures in run.history]
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 2
    assert run.finished
    assert run.notes == (
        f"Stopped early, after {len(scores)} of 40 epochs: 2 without improvement on the validation part.",
    )
    again = train(resume=run.folder, data=bars)
    assert len(again.history) == len(scores)
    assert again.notes[0] == "The run was finished before: nothing was left to train."


def test_choices_are_made_by_the_validation_part_and_the_test_part_is_for_the_end(bars: Any, tmp_path: Path) -> None:
    flipped = Split(bars.test.inputs, (bars.test.targets + 1) % 3)  # so that the two differ
    data = striate.Dataset("three", bars.classes, bars.train, bars.test, validation=flipped)
    run = train(TEXT, data, out=tmp_path / "run", epochs=4, batch_size=16)
    assert run.metrics["accuracy"] == striate.evaluate(run.folder, data).accuracy > 0.5
    assert run.history[-1]["accuracy"] == striate.evaluate(run.folder, data, split="validation").accuracy < 0.5


def test_a_config_file_says_what_flags_say_and_a_run_writes_its_own(bars_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    sources = f'network = "{TEXT}"\ndata = "{bars_folder}"\n'
    config.write_text(sources + 'epochs = 2\nbatch_size = 32\nschedule = "step"\nmilestones = [0.5]\n')
    first = train(config=config, out=tmp_path / "first", seed=5)
    again = train(config=first.folder / "config.toml", out=tmp_path / "again")
    for name, tensor in tensors(first.folder).items():
        assert torch.equal(tensor, tensors(again.folder)[name]), name
    one, two = ((run.folder / "config.toml").read_text() for run in (first, again))
    assert one == two
    config.write_text("epochs = ")
    with pytest.raises(OptionError) as caught:
        train(config=config)
    assert str(caught.value).startswith(f"{config}: cannot be read as TOML: ")
    config.write_text("epoch = 3")
    with pytest.raises(OptionError, match=r"No training option is called 'lr'\. Did you mean 'learning_rate'"):
        train("INPUT -> FC", bars_folder, lr=0.1)
    with pytest.raises(OptionError, match=r"No training option is called 'epoch'\. Did you mean 'epochs'"):
        train("INPUT -> FC", bars_folder, config=config)


def test_figures_are_written_for_spreadsheets_and_tensorboard(bars: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(StopError):
        train(TEXT, bars, out=tmp_path / "run", epochs=3, log=("csv", "tensorboard"), on_epoch=until(2))
    run = train(resume=tmp_path / "run", data=bars)
    with (run.folder / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == list(run.history)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(figures["epoch"], pytest.approx(figures["loss"])) for figures in run.history]


def test_two_processes_do_not_train_in_one_folder(bars: Any, tmp_path: Path) -> None:
    def again(figures: Mapping[str, Any]) -> None:
        with pytest.raises(OptionError) as caught:
            train(resume=tmp_path / "run", data=bars)
        assert str(caught.value) == (
            f"{tmp_path / 'run'}: another process trains in it now; wait for its end, or stop it."
        )

    train(TEXT, bars, out=tmp_path / "run", epochs=1, on_epoch=again)
    assert not (tmp_path / "run" / ".lock").exists()


def test_files_are_streamed_with_the_same_numbers_and_resumed(bars_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"epochs": 2, "batch_size": 32, "augment": "shift 1"}
    held = train(TEXT, bars_folder, out=tmp_path / "held", **given)
    streamed = train(TEXT, bars_folder, out=tmp_path / "streamed", stream=True, workers=0, **given)
    worked = train(TEXT, bars_folder, out=tmp_path / "worked", stream=True, workers=2, **given)
    for name, tensor in tensors(held.folder).items():
        assert torch.equal(tensor, tensors(streamed.folder)[name]), name
        assert torch.equal(tensor, tensors(worked.folder)[name]), name


def test_signals_are_learned(tmp_path: Path) -> None:
    time_ = torch.arange(64) / 64
    labels = torch.arange(60) % 2
    waves = torch.stack([torch.sin(2 * torch.pi * (3 + 5 * y) * time_ + n) for n, y in enumerate(labels.tolist())])
    split = Split(waves[:, None], labels)
    data = striate.Dataset("waves", ("low", "high"), split, split)
    run = train("INPUT -> CONV9-4 -> RELU -> POOL 4 -> FC", data, out=tmp_path / "run", epochs=10, batch_size=10)
    assert run.metrics["accuracy"] == 1.0
    assert [one.label for one in striate.predict(run.folder, waves[:2, None])] == ["low", "high"]
    with pytest.raises(DataError) as caught:
        striate.predict(run.folder, waves[:2, None].double())
    assert str(caught.value) == "examples are float32 (N, 1, 64), got float64 (2, 1, 64)."


def test_a_new_run_is_reproduced_by_the_deterministic_switch(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", epochs=1, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
    other = train(TEXT, bars, out=tmp_path / "other", epochs=1)
    assert all(torch.equal(tensor, tensors(other.folder)[name]) for name, tensor in tensors(run.folder).items())


def test_a_learning_rate_is_found(bars: Any, tmp_path: Path) -> None:
    run = train(TEXT, bars, out=tmp_path / "run", epochs=6, batch_size=32, learning_rate="find", optimizer="momentum")
    training = checkpoints.load(run.folder).training
    assert training is not None
    assert 1e-3 <= training.options["learning_rate"] <= 1.0
    assert run.metrics["accuracy"] > 0.8
    assert f"learning_rate = {training.options['learning_rate']}" in (run.folder / "config.toml").read_text()
