"""Predictions and evaluations of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import striate
from striate.datasets import Split
from striate.errors import CheckpointError, DataError, OptionError
from striate.losses import Loss
from striate.prediction import Classifier


def test_pictures_are_recognised_from_files_folders_and_tensors(bars_run: Any, bars_folder: Path, bars: Any) -> None:
    folder = bars_folder / "test" / "standing"
    from_files = striate.predict(bars_run.folder, sorted(folder.iterdir()))
    from_folder = striate.predict(bars_run.checkpoint, folder)
    from_tensor = striate.predict(bars_run.folder, bars.test.inputs[bars.test.targets == 1])
    assert [p.probabilities for p in from_files] == [p.probabilities for p in from_folder]
    assert [p.label for p in from_files] == [p.label for p in from_tensor]
    assert [p.picture for p in from_folder] == [str(path) for path in sorted(folder.iterdir())]
    assert sum(p.label == "standing" for p in from_files) >= 0.9 * len(from_files)


def test_a_prediction_is_a_sorted_distribution(bars_run: Any, bars_folder: Path) -> None:
    (found,) = striate.predict(bars_run.folder, bars_folder / "test" / "lying" / "000.png")
    shares = list(found.probabilities.values())
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-6)
    assert set(found.probabilities) == {"lying", "standing", "crossed"}
    assert found.to_dict() == {
        "picture": str(bars_folder / "test" / "lying" / "000.png"),
        "label": found.label,
        "probability": shares[0],
        "probabilities": found.probabilities,
    }


def test_probabilities_are_the_softmax_of_the_network_on_normalised_pixels(bars_run: Any, bars: Any) -> None:
    """Written out with torch alone, from the file's tensors."""
    from safetensors.torch import load_file

    w = load_file(bars_run.checkpoint)
    pixels = bars.train.inputs.double() / 255
    x = ((bars.test.inputs[:5].double() / 255) - pixels.mean()) / pixels.std(unbiased=False)
    hidden = torch.nn.functional.conv2d(x, w["conv1.weight"].double(), w["conv1.bias"].double(), padding=1).relu()
    scores = torch.nn.functional.max_pool2d(hidden, 2).flatten(1) @ w["fc1.weight"].double().T + w["fc1.bias"].double()
    found = striate.predict(bars_run.folder, bars.test.inputs[:5])
    for prediction, expected in zip(found, scores.softmax(1), strict=True):
        got = [prediction.probabilities[name] for name in ("crossed", "lying", "standing")]
        torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), expected, rtol=1e-4, atol=1e-5)


def test_evaluate_repeats_the_figures_of_the_run(bars_run: Any, bars_folder: Path) -> None:
    again = striate.evaluate(bars_run.folder)
    assert again.accuracy == bars_run.metrics["accuracy"] >= 0.9
    assert again.loss == bars_run.metrics["loss"]
    assert striate.evaluate(bars_run.folder, bars_folder, split="train").confusion.sum() == 180
    assert striate.evaluate(bars_run.folder, split="all").confusion.sum() == 240


def test_messages(bars_run: Any, bars_folder: Path, bars: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as option:
        striate.evaluate(bars_run.folder, split="tset")
    assert str(option.value) == "split='tset' is not one of test, validation, train, all."
    with pytest.raises(DataError) as data:
        striate.predict(bars_run.folder, tmp_path)
    assert str(data.value).startswith(f"{tmp_path}: there is no picture in it (.bmp, ")
    with pytest.raises(DataError) as data:
        striate.predict(bars_run.folder, [])
    assert str(data.value) == "nothing to predict was given; name a file or a folder."
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as data:
        striate.predict(bars_run.folder, tmp_path / "broken.png")
    assert str(data.value).startswith(f"{tmp_path / 'broken.png'}: ")
    with pytest.raises(CheckpointError):
        striate.predict(tmp_path, bars_folder)
    other = striate.Dataset("other", ("x", "y", "z"), bars.train, bars.test)
    with pytest.raises(DataError) as data:
        striate.evaluate(bars_run.folder, other)
    assert str(data.value) == (
        "other: its classes are x, y, z; the network knows crossed, lying, standing. "
        "They must be the same, in the same order."
    )


def test_a_data_set_in_memory_of_another_shape(bars_run: Any, bars: Any) -> None:
    wide = Split(bars.test.inputs.repeat(1, 1, 1, 2), bars.test.targets)
    with pytest.raises(DataError) as caught:
        striate.evaluate(bars_run.folder, striate.Dataset("wide", ("crossed", "lying", "standing"), wide, wide))
    assert str(caught.value) == "wide: its examples are (1, 8, 16), the network takes (1, 8, 8)."


def test_hinge_loss_is_its_definition() -> None:
    """Sum over the wrong classes of max(0, s_j - s_y + 1), averaged over the examples."""
    scores = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    by_hand = [
        sum(max(0.0, (s[j] - s[y] + 1).item()) for j in range(3) if j != y)
        for s, y in zip(scores, labels.tolist(), strict=True)
    ]
    assert by_hand == pytest.approx([2.9, 0.0, 12.9])
    assert Loss("svm")(scores, labels).item() == pytest.approx(sum(by_hand) / 3)


def test_softmax_loss_is_its_definition() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64)
    expected = -torch.log(scores.exp()[0, 2] / scores.exp().sum())
    torch.testing.assert_close(Loss("softmax")(scores, torch.tensor([2])), expected)


def test_large_sets_are_scored_in_chunks_with_the_same_result(bars_run: Any, bars: Any) -> None:
    classifier = Classifier.load(bars_run.folder)
    many = bars.test.inputs.repeat(20, 1, 1, 1)
    torch.testing.assert_close(classifier.scores(many)[-60:], classifier.scores(bars.test.inputs), rtol=1e-5, atol=1e-5)
