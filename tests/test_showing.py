"""The pictures and the report of a run show what the network really does."""

from __future__ import annotations

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import striate
from striate import cli, commands, datasets, showing  # noqa: F401  (the verbs of cli join those of commands)
from striate.datasets import Dataset, Split, Stored
from striate.errors import OptionError
from striate.metrics import MaskEvaluation
from striate.moments import Normalisation
from striate.networks import network
from striate.prediction import Classifier
from striate.readers import Reader


def test_activations_are_those_of_every_layer_although_relu_works_in_place(bars_run: Any) -> None:
    m = showing.material(bars_run.folder)
    x = m.classifier.normalisation(m.data.test.inputs[:1])
    found = dict(showing.activations(m.classifier.network, x))
    w = load_file(bars_run.checkpoint)
    conv = torch.nn.functional.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1)[0]
    torch.testing.assert_close(found["conv1"], conv)
    torch.testing.assert_close(found["relu1"], conv.relu())
    assert (found["conv1"] < 0).any()
    assert list(found) == ["conv1", "relu1", "pool1", "fc1"]
    torch.testing.assert_close(found["fc1"], m.classifier.scores(m.data.test.inputs[:1])[0])


def test_a_pooling_that_is_undone_later_shows_its_values_for_one_example() -> None:
    net = network("INPUT 1x8x8 -> CONV3-4 -> POOL as p -> UNPOOL of=p -> FC 3")
    shapes = {name: tuple(values.shape) for name, values in showing.activations(net, torch.randn(1, 1, 8, 8))}
    assert shapes == {"conv1": (4, 8, 8), "p": (4, 4, 4), "unpool1": (4, 8, 8), "fc1": (3,)}


def test_filters_are_the_learned_weights(bars_run: Any) -> None:
    m = showing.material(bars_run.folder)
    ((name, weight),) = showing.filters(m.classifier.network)
    assert name == "conv1"
    torch.testing.assert_close(weight, load_file(bars_run.checkpoint)["conv1.weight"], rtol=0, atol=0)


def test_every_picture_is_written(bars_run: Any, tmp_path: Path) -> None:
    paths = showing.write_pictures(showing.material(bars_run.folder, example=3), tmp_path / "pictures")
    assert [path.name for path in paths] == [
        "curves.png",
        "accuracy.png",
        "confusion.png",
        "mistakes.png",
        "calibration.png",
        "filters-conv1.png",
        "columns.png",
    ]
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) > 80


def test_only_the_pictures_asked_for(bars_run: Any, tmp_path: Path) -> None:
    paths = showing.write_pictures(showing.material(bars_run.folder), tmp_path, ["filters"])
    assert [path.name for path in paths] == ["filters-conv1.png"] == [entry.name for entry in tmp_path.iterdir()]


def test_an_example_that_is_not_there(bars_run: Any) -> None:
    with pytest.raises(OptionError) as caught:
        showing.material(bars_run.folder, example=60)
    assert str(caught.value) == "example=60: bars has test pictures 0 to 59."


def test_the_report_can_be_written_again_to_the_same_bytes(bars_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bars_run.report.read_bytes()
    assert showing.write_report(showing.material(bars_run.folder)) == bars_run.report
    assert bars_run.report.read_bytes() == before


def trained_again(run: Any, folder: Path) -> str:
    """Train as a run's report says, see that the weights are the same, and return the line."""
    page = html.unescape(run.report.read_text())
    (line,) = re.findall(r"striate train '[^<]*", page)
    words = shlex.split(line)
    done = CliRunner().invoke(commands.app, [*words[1:], "--out", str(folder)])
    assert done.exit_code == 0, done.output
    first, second = load_file(run.checkpoint), load_file(folder / "checkpoint.safetensors")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    return line


def test_the_report_tells_how_to_train_the_same_bits_again(bars_run: Any, tmp_path: Path) -> None:
    trained_again(bars_run, tmp_path / "again")


@pytest.mark.parametrize(("size", "typed"), [(12, "12"), ((12, 10), "12x10")])
def test_the_report_tells_the_size_of_which_patches_were_learned(
    bars_folder: Path, tmp_path: Path, size: Any, typed: str
) -> None:
    text = "INPUT -> CONV3-4 -> RELU -> GLOBALAVGPOOL -> FC"
    run = striate.train(text, bars_folder, out=tmp_path / "run", steps=2, size=size, patch=6)
    assert f" --size {typed} --patch 6x6" in trained_again(run, tmp_path / "again")


# ----------------------------------------------------------------------------------------------- other kinds of data

NETWORKS = {1: "INPUT {} -> CONV3-4 -> RELU -> FC 2", 2: "INPUT {} -> CONV3-4 -> RELU -> FC 2",
            3: "INPUT {} -> CONV3-4 -> RELU -> GLOBALAVGPOOL -> FC 2"}  # fmt: skip
ROW = {"epoch": 1, "train_loss": 0.5, "loss": 0.6, "accuracy": 0.5, "seconds": 2.0}


def material(data: Dataset, text: str, folder: Path, history: Any = (ROW,), **settings: Any) -> showing.Material:
    """A network that learned nothing, and what it says about the test part."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = network(text.format("x".join(map(str, data.shape))))
    known = Normalisation.of(data.train)
    classifier = Classifier(net, data.classes, known, data.reader, data.task, data.train.dtype)
    return showing.Material(classifier, data, classifier.evaluate(data.test), history, settings, folder, None, 1)


def noise(shape: tuple[int, ...], dtype: torch.dtype, **given: Any) -> Dataset:
    inputs = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0)) * 40
    split = Split((inputs.abs() if dtype == torch.uint8 else inputs).to(dtype), torch.arange(8) % 2)
    return Dataset("noise", ("a", "b"), split, split, **given)


KINDS = [
    ((1, 50), torch.int16, "signal", "signal", "sound.wav"),
    ((2, 50), torch.float32, "series", "series", "series.csv"),
    ((1, 6, 7), torch.uint8, "picture", "picture", "photo.png"),
    ((1, 6, 7), torch.float32, None, "picture", "examples.npy"),
    ((1, 5, 6, 7), torch.float32, "volume", "volume", "volume.npy"),
]


@pytest.mark.parametrize(("shape", "dtype", "kind", "noun", "file"), KINDS)
def test_every_kind_of_input_gets_its_report_and_its_pictures(
    shape: tuple[int, ...], dtype: torch.dtype, kind: str | None, noun: str, file: str, tmp_path: Path
) -> None:
    reader = Reader(kind, shape, dtype=str(dtype).removeprefix("torch.")) if kind else None
    m = material(noise(shape, dtype, reader=reader), NETWORKS[len(shape) - 1], tmp_path)
    page = showing.write_report(m).read_text()
    many = noun if noun == "series" else f"{noun}s"
    assert f"<dt>Training {many}</dt><dd>8</dd>" in page
    assert f"<dt>{many.capitalize()} per second</dt><dd>4</dd>" in page
    assert f"striate predict {tmp_path} {file}\n" in page.replace("</span>", "")
    assert f"striate evaluate {tmp_path} --data FOLDER\n" in page.replace("</span>", "")
    names = [path.name for path in showing.write_pictures(m, tmp_path, ["columns", "mistakes"])]
    assert names == ["mistakes.png", "columns.png"]


def test_the_report_of_masks_is_of_the_whole_pictures_although_patches_were_learned(
    circles: Any, tmp_path: Path
) -> None:
    text = "INPUT -> CONV3-4 -> RELU -> CONV1-2"
    run = striate.train(text, circles, out=tmp_path / "run", epochs=1, batch_size=20, patch=(12, 16))
    m = showing.material(run.folder, circles, example=2)
    assert isinstance(m.evaluation, MaskEvaluation)
    worst, among = showing.worst_masks(m)
    found = []
    for number in range(10):
        inputs, truth = circles.test.take([number])
        seen = MaskEvaluation.of(circles.classes).add(m.classifier.scores(inputs), truth)
        found.append((seen.mean_iou, number))
    assert among == 10
    assert [(one.found.mean_iou, one.number) for one in worst] == sorted(found)[:6]
    followed = showing.followed(m)
    assert followed.overlap is not None
    assert torch.equal(followed.overlap.truth, circles.test.targets[2])
    assert next((name, tuple(x.shape)) for name, x in followed.layers) == ("conv1", (4, 24, 32))
    names = [path.name for path in showing.write_pictures(m, tmp_path / "pictures")]
    assert names == [
        "curves.png", "accuracy.png", "confusion.png", "masks.png", "filters-conv1.png", "filters-conv2.png",
        "columns.png",
    ]  # fmt: skip
    page = showing.write_report(m).read_text()
    assert f"{24 * 32 * (9 * 4 + 4 * 2):,}</dd>" in page  # multiply-adds of whole pictures
    assert f"striate predict {run.folder} photo.png --masks masks" in page


def test_a_mask_network_has_no_mistakes_and_others_no_masks(circles: Any, bars: Any, tmp_path: Path) -> None:
    masks = material(circles, "INPUT {} -> CONV1-2", tmp_path)
    pictures = material(bars, "INPUT {} -> FC 3", tmp_path, history=())
    pixels, one = "its network gives every pixel a class", "its network gives every example one class"
    most = "mistakes, calibration"
    for m, name, why, there in (
        (masks, "mistakes", pixels, "curves, accuracy, confusion, masks, filters, columns"),
        (masks, "calibration", pixels, "curves, accuracy, confusion, masks, filters, columns"),
        (pictures, "masks", one, f"accuracy, confusion, {most}, columns"),
        (pictures, "filters", "its network has no convolution", f"accuracy, confusion, {most}, columns"),
        (pictures, "curves", "no epoch was finished", f"accuracy, confusion, {most}, columns"),
    ):
        with pytest.raises(OptionError) as caught:
            showing.write_pictures(m, tmp_path, ["columns", name])
        assert str(caught.value) == f"there is no picture {name!r} of this run: {why}; there are {there}."
    assert list(tmp_path.iterdir()) == []


class Counting(Stored):
    """Files that remember which of them were decoded."""

    taken: list[int] = []  # noqa: RUF012  (of the class, which a frozen value cannot have of its own)

    def take(self, indices: Any, threads: int | None = None) -> tuple[Tensor, Tensor]:
        self.taken.extend(int(index) for index in indices)
        return super().take(indices, threads)


def test_of_files_only_what_is_shown_is_decoded(bars_folder: Path, tmp_path: Path) -> None:
    data = datasets.load(bars_folder, stream=True)
    assert isinstance(data.test, Stored)
    test = Counting(data.test.sources, data.test.labels, data.test.reader)
    m = material(Dataset("bars", data.classes, data.train, test, reader=data.reader), "INPUT {} -> FC 3", tmp_path)
    Counting.taken.clear()
    showing.write_report(m)
    assert isinstance(m.evaluation, striate.Evaluation)
    assert sorted(Counting.taken) == sorted([*m.evaluation.confident_mistakes(12), 1])


def test_without_a_finished_epoch_there_is_no_time_to_tell(bars: Any, tmp_path: Path) -> None:
    m = material(bars, "INPUT {} -> FC 3", tmp_path, history=())
    facts = {"Training pictures": "180", "Parameters": "195", "Multiply-adds": "unknown", "Epochs": "none finished"}
    assert showing._facts(m, 195, None) == facts


def test_files_that_were_left_out_are_named(bars: Any, tmp_path: Path) -> None:
    left = tuple(f"{n}.png: the file is empty." for n in range(7))
    facts = showing._facts(material(replace(bars, skipped=left), "INPUT {} -> FC 3", tmp_path), 1, 1)
    assert facts["Files left out"] == f"7: {'; '.join(left[:5])}; …"


def test_the_speed_counts_the_examples_that_were_seen(bars: Any, tmp_path: Path) -> None:
    rows = [ROW | {"epoch": epoch, "seconds": 1.0} for epoch in (1, 2)]
    facts = showing._facts(material(bars, "INPUT {} -> FC 3", tmp_path, rows, steps=10, batch_size=32), 1, 1)
    # 180 pictures are 6 steps: the second epoch has 4 of 32.
    assert facts["Pictures per second"] == f"{(180 + 4 * 32) / 2:.0f}"


def test_curves_are_named_after_the_part_that_they_were_measured_on(bars: Any, tmp_path: Path) -> None:
    judged = Dataset("bars", bars.classes, bars.train, bars.test, validation=bars.test)
    assert material(bars, "INPUT {} -> FC 3", tmp_path).wording.judges == "test pictures"
    page = showing.write_report(material(judged, "INPUT {} -> FC 3", tmp_path)).read_text()
    assert "blue on the validation pictures" in page
    assert ">validation 0.600<" in page


def test_a_missing_example_is_called_what_it_is(tmp_path: Path) -> None:
    signals = noise((1, 50), torch.float32)
    run = striate.train("INPUT -> FC", signals, out=tmp_path / "run", epochs=1)
    with pytest.raises(OptionError) as caught:
        showing.material(run.folder, signals, example=8)
    assert str(caught.value) == "example=8: noise has test signals 0 to 7."
