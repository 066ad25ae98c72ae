"""Checkpoints: what is written is read back, and what is not a checkpoint is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import striate
from striate import checkpoint as checkpoints
from striate.checkpoint import Checkpoint, Training
from striate.datasets import Normalisation
from striate.errors import CheckpointError
from striate.readers import Reader

TEXT = "INPUT 1x8x8 -> CONV 3x3x2 -> RELU -> FC 3"
FIGURES = {"epoch": 1, "train_loss": 0.7, "train_accuracy": 0.25, "loss": 0.5, "accuracy": 0.5, "seconds": 2.5}
TRAINING = Training(options={"epochs": 3}, data="somewhere", examples=7, digest="0", history=[FIGURES])
CHANGED = "is damaged: its numbers or its description are not those that were written."


def put(tensors: dict[str, torch.Tensor], path: Path, header: dict[str, str]) -> None:
    """A file of Striate's format with any description."""
    save_file(tensors, path, metadata=header | {"digest": checkpoints.digest(tensors, header)})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = striate.network(TEXT)
    state = {"0/step": torch.ones(())}
    normalisation = Normalisation((0.25,), (0.5,))
    content = Checkpoint(
        notation=TEXT,
        classes=("a", "b", "ü<"),
        normalisation=normalisation,
        weights=network.state_dict(),
        reader=Reader("picture", (1, 8, 8)),
        optimizer=state,
        training=TRAINING,
    )
    checkpoints.save(tmp_path / checkpoints.FILE, content)
    return tmp_path / checkpoints.FILE


def test_what_is_written_is_read_back(written: Path) -> None:
    found = checkpoints.load(written)
    torch.manual_seed(0)
    expected = striate.network(TEXT).state_dict()
    assert found.notation == TEXT
    assert found.classes == ("a", "b", "ü<")
    assert found.normalisation == Normalisation((0.25,), (0.5,))
    assert found.training == TRAINING
    assert list(found.optimizer) == ["0/step"]
    for name, tensor in expected.items():
        torch.testing.assert_close(found.network().state_dict()[name], tensor, rtol=0, atol=0)


def test_a_folder_means_the_checkpoint_in_it(written: Path) -> None:
    assert checkpoints.load(written.parent).notation == TEXT


def test_weights_can_be_read_by_safetensors_alone(written: Path) -> None:
    assert {"conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"} <= set(load_file(written))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "none.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'none.safetensors'}: there is no such checkpoint; "
        "train one with: striate train lenet5 --data fashion-mnist-mini"
    )


def test_a_run_of_nearly_that_name(written: Path) -> None:
    folder = written.parent
    asked = folder.with_name(f"{folder.name}s")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(asked)
    assert str(caught.value) == f"{asked}: there is no such checkpoint; did you mean {folder}?"
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(asked / "best.safetensors")
    assert str(caught.value) == f"{asked}/best.safetensors: there is no such checkpoint; did you mean {folder}?"


def test_a_run_without_a_best_epoch(written: Path) -> None:
    with pytest.raises(CheckpointError, match=f"there is no such checkpoint; did you mean {written.parent}\\?"):
        checkpoints.load(written.parent / "best.safetensors")


@pytest.mark.parametrize("name", ["run", "a" * 300, "a\0b"])
def test_no_run_of_nearly_that_name(written: Path, name: str) -> None:
    """A folder that is there was meant, whatever its neighbours are called."""
    for folder in ("run", "runs"):
        (written.parent / folder).mkdir()
    written.rename(written.parent / "runs" / "checkpoint.safetensors")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(written.parent / name)
    text = "there is no such checkpoint; train one with: striate train lenet5 --data fashion-mnist-mini"
    assert str(caught.value).endswith(text)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file(written: Path, keep: int) -> None:
    written.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(written)
    assert str(caught.value).startswith(f"{written}: cannot be read as safetensors (")
    assert str(caught.value).endswith("); it is damaged or of another kind.")


def test_a_pickle_is_never_opened_as_code(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        checkpoints.load(path)


def test_foreign_weights(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert str(caught.value) == (
        f"{path}: holds weights, but not the network, classes and normalisation that a Striate checkpoint holds "
        "(its format is None, expected 'striate checkpoint 4')."
    )


HEADER = {
    "format": checkpoints.FORMAT,
    "notation": TEXT,
    "classes": '["a", "b", "c"]',
    "mean": "[0.5]",
    "std": "[0.5]",
    "task": "classes",
    "dtype": "uint8",
    "reader": "null",
    "training": "null",
}
DAMAGE: list[dict[str, Any]] = [
    {"notation": "INPUT -> NONSENSE"},
    {"classes": "[1, 2]"},
    {"classes": "{"},
    {"classes": "[" * 100_000},
    {"classes": '["a", "b"]'},
    {"classes": '["a", "b", "b"]'},
    {"classes": '{"a": 1, "b": 2, "c": 3}'},
    {"notation": "INPUT 1x8x8 -> CONV 9x9x3 padding=0 -> FC 3"},
    {"training": '{"options": {"loss": "zzz"}, "data": null, "examples": 1, "digest": "", "history": []}'},
    {"mean": '["x"]'},
    {"mean": "[0.5, 0.5]"},
    {"std": "[0.0]"},
    {"training": '{"options": 3}'},
    {"training": '{"options": {}, "data": 7, "examples": 1, "digest": "", "history": []}'},
    {"training": '{"options": {}, "data": null, "examples": 1, "digest": "", "history": [["a"]]}'},
    {"classes": None},
    {"task": "boxes"},
    {"dtype": "int8"},
    {"reader": '{"kind": "picture"}'},
    {"reader": '{"kind": "smell", "shape": [1, 8, 8], "rate": null, "dtype": "uint8"}'},
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: json.dumps(damage)[:60])
def test_a_damaged_description(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = tmp_path / "damaged.safetensors"
    header = {name: value for name, value in (HEADER | damage).items() if value is not None}
    put({"fc1.weight": torch.ones(2)}, path, header)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert str(caught.value).startswith(f"{path}: its description is damaged (")


def test_a_changed_number_is_noticed(written: Path) -> None:
    content = bytearray(written.read_bytes())
    content[-3] ^= 1
    written.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(written)
    assert (
        str(caught.value) == f"{written}: is damaged: its numbers or its description are not those that were written."
    )


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    put({"fc1.weight": torch.ones(2)}, path, HEADER | {"format": "striate checkpoint 3"})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert str(caught.value) == (
        f"{path}: holds weights, but not the network, classes and normalisation that a Striate checkpoint holds "
        "(its format is 'striate checkpoint 3', expected 'striate checkpoint 4')."
    )


CHANGES = [
    (rb"[\"a\", \"b\"", rb"[\"b\", \"a\""),
    (b"[0.25]", b"[0.75]"),
    (b'"task":"classes"', b'"kind":"classes"'),
    (b'"dtype":"uint8"', b'"dtype":"int16"'),
    (rb"\"epochs\":3", rb"\"epochs\":4"),
    (b'"optimizer/0/step":{"dtype":"F32"', b'"optimizer/0/step":{"dtype":"I32"'),
    (b'"conv1.weight":{"dtype":"F32","shape":[2,1,3,3]', b'"conv1.weight":{"dtype":"F32","shape":[1,2,3,3]'),
]


@pytest.mark.parametrize(("before", "after"), CHANGES, ids=[str(after) for _, after in CHANGES])
def test_a_changed_description_is_noticed(written: Path, before: bytes, after: bytes) -> None:
    content = written.read_bytes()
    assert content.count(before) == 1
    written.write_bytes(content.replace(before, after))
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(written)
    assert str(caught.value) == f"{written}: {CHANGED}"


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"examples": -1}, "training.examples: input should be greater than or equal to 0, got -1"),
    ({"updates": -10}, "training.updates: input should be greater than or equal to 0, got -10"),
    ({"sums": {"step": -5}}, "training.sums.step: input should be greater than or equal to 0, got -5"),
    ({"sums": {"step": 1.5}}, "training.sums.step: input should be a valid integer, got 1.5"),
    ({"sums": {"totals": [1.0], "counts": []}}, "training.sums: 1 totals and 0 counts for a loss of 1"),
    ({"sums": {"totals": [1.0] * 2, "counts": [1.0] * 2}}, "training.sums: 2 totals and 2 counts for a loss of 1"),
    ({"history": [{}]}, f"training.history: epoch 1 has no {', '.join(checkpoints.FIGURES)}"),
    ({"history": [FIGURES, {"epoch": 2, "loss": 1.0, "accuracy": 0.5, "train_loss": 0.1, "train_accuracy": 0.5}]},
     "training.history: epoch 2 has no seconds"),
    ({"history": [FIGURES, FIGURES]}, "training.history: epoch 2 is called 1"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), SENSELESS, ids=[json.dumps(given)[:60] for given, _ in SENSELESS])
def test_a_description_without_sense(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    path = tmp_path / "senseless.safetensors"
    training = json.dumps({**TRAINING.model_dump(mode="json"), **given})
    put({"fc1.weight": torch.ones(2)}, path, HEADER | {"training": training})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert str(caught.value) == f"{path}: its description is damaged ({message})."


def test_a_mean_that_is_too_large_for_a_float(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    put({"fc1.weight": torch.ones(2)}, path, HEADER | {"mean": f"[1{'0' * 400}]"})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert str(caught.value) == (
        f"{path}: its description is damaged (A normalisation has one finite mean and one finite std above 0 for each "
        "channel, got mean=(inf,) and std=(0.5,).)."
    )


def test_a_figure_that_is_too_large_for_a_float_is_infinite(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    training = json.dumps(TRAINING.model_dump(mode="json") | {"history": [FIGURES | {"seconds": 10**400}]})
    put({"fc1.weight": torch.ones(2)}, path, HEADER | {"training": training})
    known = checkpoints.load(path).training
    assert known is not None
    assert known.history == [FIGURES | {"seconds": math.inf}]


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    weights = striate.network("INPUT 1x8x8 -> CONV 5x5x2 -> RELU -> FC 3 -> RELU -> FC 3").state_dict()
    put(weights, path, HEADER)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path).network()
    assert str(caught.value) == (
        "the weights belong to another network than INPUT 1x8x8 -> CONV 3x3x2 -> RELU -> FC 3: "
        "conv1.weight is (2, 1, 5, 5) float32 in the file, (2, 1, 3, 3) float32 in the network; "
        "fc2.bias is (3,) float32 in the file, not there in the network; "
        "fc2.weight is (3, 3) float32 in the file, not there in the network."
    )


def test_building_a_network_leaves_the_random_numbers_of_the_caller_alone(written: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    checkpoints.load(written).network()
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_hostile_description_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    text = "INPUT 1x8x8 -> FC 999999999 -> FC 999999999 -> FC 3"
    put({"fc1.weight": torch.ones(2)}, path, HEADER | {"notation": text})
    with pytest.raises(CheckpointError, match="the weights belong to another network"):
        checkpoints.load(path).network()
