"""Checkpoints: what is written is read back, and what is not a checkpoint is refused by name."""

from __future__ import annotations

import json
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
TRAINING = Training(
    options={"epochs": 3}, data="somewhere", examples=7, digest="0", history=[{"epoch": 1, "loss": 0.5}]
)


def put(tensors: dict[str, torch.Tensor], path: Path, header: dict[str, str]) -> None:
    """A file of Striate's format with any description."""
    save_file(tensors, path, metadata={"digest": checkpoints.digest(tensors)} | header)


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
        "(its format is None, expected 'striate checkpoint 3')."
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
    assert str(caught.value) == f"{written}: is damaged: its numbers are not those that were written."


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
