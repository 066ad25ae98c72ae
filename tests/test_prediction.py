"""Predictions and evaluations of a trained network."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib import format as npy_format
from torch.nn import functional as F

import striate
from striate import datasets, volumes
from striate.datasets import Normalisation, Split
from striate.errors import CheckpointError, DataError, OptionError
from striate.images import to_pillow
from striate.losses import Loss
from striate.prediction import Classifier
from striate.processes import Group

from .test_signals import wav


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
    for wrong, said in (("", "an empty name"), (None, "NoneType"), ([bars.test.inputs], "Tensor")):
        with pytest.raises(DataError) as data:
            striate.predict(bars_run.folder, wrong)
        assert str(data.value) == (f"predict takes files, folders, patterns, or one array of examples, and got {said}.")
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


def test_predictions_come_in_the_order_of_the_input(
    bars_run: Any, bars_folder: Path, bars: Any, tmp_path: Path
) -> None:
    array = tmp_path / "a.npy"
    np.save(array, bars.test.inputs[:2].numpy())
    first, second = sorted((bars_folder / "test" / "lying").iterdir())[:2]
    found = striate.predict(bars_run.folder, [first, array, second])
    assert [one.picture for one in found] == [str(first), f"{array}: 0", f"{array}: 1", str(second)]


def header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of an NPY file that declares so much."""
    file = BytesIO()
    npy_format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "|u1"})
    return file.getvalue()


def test_arrays_that_declare_more_than_they_hold(bars_run: Any, tmp_path: Path) -> None:
    alone, packed = tmp_path / "huge.npy", tmp_path / "huge.npz"
    alone.write_bytes(header((10**12, 1, 8, 8)))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.npy", alone.read_bytes())
    for path, place in ((alone, str(alone)), (packed, f"{packed}: x.npy")):
        with pytest.raises(DataError) as caught:
            striate.predict(bars_run.folder, path)
        assert str(caught.value) == (
            f"{place}: its header declares 1000000000000x1x8x8 uint8 = 64,000,000,000,000 bytes; 0 follow."
        )


def test_a_packed_array_is_not_unfolded_beyond_the_limit(
    bars_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((1000, 1, 8, 8), np.uint8))
    monkeypatch.setattr(volumes.npy, "__defaults__", (50_000,))
    with pytest.raises(DataError) as caught:
        striate.predict(bars_run.folder, tmp_path / "bomb.npz")
    assert str(caught.value) == (
        f"{tmp_path / 'bomb.npz'}: x.npy: it declares 64,128 bytes; at most 50,000 are read of one file."
    )


def test_arrays_of_files_are_read_a_batch_at_a_time(bars_run: Any, bars: Any, tmp_path: Path) -> None:
    many = bars.test.inputs.repeat(20, 1, 1, 1)
    for name, kept in (("c.npy", many.numpy()), ("fortran.npy", np.asfortranarray(many.numpy()))):
        np.save(tmp_path / name, kept)
        assert isinstance(volumes.mapped(tmp_path / name), np.memmap)
        found = striate.predict(bars_run.folder, tmp_path / name)
        expected = striate.predict(bars_run.folder, many)
        assert [one.probabilities for one in found] == [one.probabilities for one in expected]
    np.savez(tmp_path / "two.npz", x=many.numpy(), z=many.numpy())
    with pytest.raises(DataError) as caught:
        striate.predict(bars_run.folder, tmp_path / "two.npz")
    assert str(caught.value) == f"{tmp_path / 'two.npz'}: it holds x, z; expected one array, (N, C, *spatial)."
    np.save(tmp_path / "floats.npy", np.zeros((2, 1, 8, 8), ">f8"))
    with pytest.raises(DataError) as caught:
        striate.predict(bars_run.folder, tmp_path / "floats.npy")
    assert str(caught.value) == (
        f"{tmp_path / 'floats.npy'}: examples are uint8 (N, 1, 8, 8), got float64 (2, 1, 8, 8)."
    )


def test_outputs_that_are_no_numbers_say_no_class() -> None:
    net = striate.network("INPUT 1x4 -> FC 2")
    classifier = Classifier(net, ("a", "b"), Normalisation((0.0,), (1.0,)), dtype=torch.float32)
    with pytest.raises(DataError) as caught:
        striate.predict(classifier, torch.tensor([[[1.0, 2.0, 3.0, 4.0]], [[torch.nan, 0.0, 0.0, 0.0]]]))
    assert str(caught.value) == (
        "1: the network's outputs for it are not numbers (NaN), so they say no class: its values are not finite, or "
        "the network's weights ran away in training."
    )


def test_other_data_without_parts_is_measured_whole(
    bars_run: Any, bars: Any, bars_folder: Path, tmp_path: Path
) -> None:
    """Only what the run was trained on is split as for the run."""
    other = tmp_path / "other"
    shutil.copytree(bars_folder / "test", other)
    assert int(striate.evaluate(bars_run.folder, other).confusion.sum()) == 60
    assert int(striate.evaluate(bars_run.folder, other, split="all").confusion.sum()) == 60
    assert int(striate.evaluate(bars_run.folder, datasets.load(other)).confusion.sum()) == 60
    with pytest.raises(OptionError) as caught:
        striate.evaluate(bars_run.folder, other, split="train")
    assert str(caught.value) == "split=train: other has no parts of its own; give split=all."
    own = striate.train("INPUT -> FC", other, out=tmp_path / "run", epochs=1, report=False, validation=0.2)
    assert (own.evaluation.to_dict()["examples"], own.metrics["loss"]) == (9, striate.evaluate(own.folder).loss)
    assert int(striate.evaluate(own.folder, other).confusion.sum()) == 9
    shutil.move(other, tmp_path / "moved")
    assert int(striate.evaluate(own.folder, tmp_path / "moved").confusion.sum()) == 9
    assert int(striate.evaluate(own.folder, bars_folder, split="train").confusion.sum()) == 180
    with pytest.raises(OptionError) as caught:
        striate.evaluate(own.folder, bars_folder, split="validation")
    assert str(caught.value) == "split=validation: bars has no validation part."


def test_files_that_are_left_out_are_named(bars_run: Any, bars_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bars_folder / "test", tmp_path / "mixed")
    broken = tmp_path / "mixed" / "lying" / "000.png"
    broken.write_bytes(b"no picture")
    said: list[str] = []
    found = striate.predict(bars_run.folder, broken.parent, skip_bad=True, on_skip=said.append)
    assert (len(found), len(said), said[0].startswith(f"{broken}: no reader of BMP")) == (19, 1, True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        striate.predict(bars_run.folder, broken.parent, skip_bad=True)
    assert [str(one.message) for one in caught] == said
    given: dict[str, Any] = {"epochs": 1, "report": False, "skip_bad": True}
    run = striate.train("INPUT -> FC", tmp_path / "mixed", out=tmp_path / "run", **given)
    assert run.skipped == tuple(said)
    again: list[str] = []
    striate.evaluate(run.folder, on_skip=again.append)
    assert again == said


def discs(number: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture with one bright half, and where that is."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[:, : width // 2 + number % 3] = 1
    return (mask * 200 + 20)[None], mask


@pytest.fixture(scope="module")
def halves_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on masks that a threshold finds, of files of 16x24 at 8x8."""
    root = tmp_path_factory.mktemp("halves")
    for folder in ("images", "masks"):
        (root / "data" / folder).mkdir(parents=True)
    for number in range(12):
        picture, mask = discs(number, 16, 24)
        to_pillow(picture).save(root / "data" / "images" / f"{number}.png")
        to_pillow(mask[None]).save(root / "data" / "masks" / f"{number}.png")
    given: dict[str, Any] = {"size": 8, "epochs": 40, "batch_size": 2, "optimizer": "momentum", "report": False}
    return striate.train("INPUT -> CONV 1x1x2", root / "data", out=root / "run", **given)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 16), (8, 8), (5, 9), (61, 40)])
def test_masks_lie_over_the_files_that_they_are_of(halves_run: Any, tmp_path: Path, height: int, width: int) -> None:
    picture, mask = discs(0, height, width)
    to_pillow(picture).save(tmp_path / "a.png")
    (found,) = striate.predict(halves_run.folder, tmp_path / "a.png")
    assert found.mask is not None
    assert found.mask.shape == (height, width)
    side = min(height, width)
    seen = torch.zeros(height, width, dtype=torch.bool)
    top, left = (height - side) / 2, (width - side) / 2
    seen[int(top + 0.5) : int(top + 0.5) + side, int(left + 0.5) : int(left + 0.5) + side] = True
    assert ((found.mask == 255) == ~seen).all()
    near_edge = F.max_pool2d((mask[None, None] != mask[:, [0, *range(width - 1)]][None, None]).float(), 21, 1, 10)[0, 0]
    sure = seen & (near_edge == 0) if side > 8 else seen & False
    assert torch.equal(found.mask[sure], mask[sure])


def test_all_parts_of_masks_weigh_by_their_labelled_pixels() -> None:
    """Two parts of two pictures, of which one has a single labelled pixel: the loss is the mean over pixels."""
    net = striate.network("INPUT 1x2x2 -> CONV 1x1x2")
    classifier = Classifier(net, ("a", "b"), Normalisation((0.0,), (255.0,)), task="masks")
    inputs = torch.arange(16, dtype=torch.uint8).view(4, 1, 2, 2) * 16
    masks = torch.tensor([[[0, 1], [1, 0]], [[1, 1], [0, 0]], [[0, 255], [255, 255]], [[255, 255], [255, 255]]])
    masks = masks.byte()
    parts = [Split(inputs[:2], masks[:2]), Split(inputs[2:], masks[2:])]
    together = classifier.evaluate(parts)
    expected = F.cross_entropy(classifier.scores(inputs), masks.long(), ignore_index=255)
    assert together.loss == pytest.approx(expected.item())
    assert int(together.confusion.sum()) == 9


@dataclass(frozen=True)
class Gathered(Group):
    """A process whose neighbours were there before it."""

    values: list[Any] = field(default_factory=list)

    def gather(self, work: Any) -> list[Any]:
        self.values.append(work())
        return self.values


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("task", ["classes", "masks"])
def test_processes_evaluate_a_share_each(task: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two parts; of seven processes one has nothing to do."""
    monkeypatch.setattr("striate.prediction.CHUNK", 3)
    torch.manual_seed(0)
    end = "CONV1-2" if task == "masks" else "GLOBALAVGPOOL -> FC 2"
    net = striate.network(f"INPUT 1x4x4 -> CONV3-4 -> RELU -> {end}")
    classifier = Classifier(net, ("a", "b"), Normalisation((0.0,), (255.0,)), task=task)
    targets = torch.randint(2, (11, 4, 4), dtype=torch.uint8) if task == "masks" else torch.arange(11) % 2
    inputs = torch.randint(256, (11, 1, 4, 4), dtype=torch.uint8)
    parts = [Split(inputs[:4], targets[:4]), Split(inputs[4:], targets[4:])]
    values: list[Any] = []
    for rank in range(size):
        found: Any = classifier.evaluate(parts, group=Gathered(rank, size, values))
    alone: Any = classifier.evaluate(parts)
    assert found.loss == pytest.approx(alone.loss, rel=1e-6)
    if task == "masks":
        assert torch.equal(found.confusion, alone.confusion)
        assert found.pictures == alone.pictures == 11
    else:
        assert torch.equal(found.labels, alone.labels)
        torch.testing.assert_close(found.probabilities, alone.probabilities)


def test_signals_do_not_run_backwards() -> None:
    net = striate.network("INPUT 1x4 -> FC 2")
    classifier = Classifier(net, ("a", "b"), Normalisation((0.0,), (1.0,)), dtype=torch.float32)
    with pytest.raises(OptionError) as caught:
        striate.predict(classifier, torch.zeros(1, 1, 4), average="flip")
    assert str(caught.value) == (
        "average=flip mirrors pictures and volumes, left for right; signals and series it would let run backwards. "
        "Take none."
    )


def test_a_device_that_is_not_there(bars_run: Any, bars_folder: Path) -> None:
    for call in (
        lambda: striate.predict(bars_run.folder, bars_folder, device="gpu0"),
        lambda: striate.evaluate(bars_run.folder, device="gpu0"),
    ):
        with pytest.raises(OptionError) as caught:
            call()
        assert str(caught.value).startswith("device='gpu0' cannot be used here: ")


def test_arrays_of_one_channel_need_no_axis_for_it(bars_run: Any, bars: Any, tmp_path: Path) -> None:
    flat = bars.test.inputs[:3, 0].numpy()
    np.save(tmp_path / "flat.npy", flat)
    wanted = [one.probabilities for one in striate.predict(bars_run.folder, bars.test.inputs[:3])]
    for examples in (flat, tmp_path / "flat.npy", torch.from_numpy(flat)):
        assert [one.probabilities for one in striate.predict(bars_run.folder, examples)] == wanted


def test_series_are_predicted_from_the_files_that_they_are_learned_from(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n + 1},{5 - n}:{'up' if n % 2 else 'down'}\n" for n in range(6))
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"Waves_{part}.ts").write_text(f"@classLabel true up down\n@data\n{rows}")
    run = striate.train("INPUT -> FC", tmp_path, out=tmp_path / "run", epochs=1, report=False)
    said = striate.predict(run.folder, tmp_path / "Waves_TEST.ts")
    (tmp_path / "one.csv").write_text("3,4,2\n")
    assert [one.picture for one in said] == [f"{tmp_path}/Waves_TEST.ts: {n}" for n in range(6)]
    (same,) = striate.predict(run.folder, tmp_path / "one.csv")
    assert same.probabilities == pytest.approx(said[3].probabilities, rel=1e-6)
    (tmp_path / "Waves_TEST.ts").write_text("@classLabel true up down\n@data\n1,2:up\n1,2,3:up\n")
    with pytest.raises(DataError) as caught:
        striate.predict(run.folder, tmp_path / "Waves_TEST.ts")
    assert str(caught.value) == f"{tmp_path}/Waves_TEST.ts: its series differ in length; predict them one by one."


def test_ten_crops_of_a_network_that_learned_patches_are_as_large_as_files(bars_folder: Path, tmp_path: Path) -> None:
    text = "INPUT -> CONV 3-4 -> RELU -> GLOBALAVGPOOL -> FC"
    run = striate.train(text, bars_folder, out=tmp_path / "run", patch=(6, 6), steps=2, report=False)
    classifier, sizes = Classifier.load(run.folder), set[tuple[int, ...]]()
    classifier.network.register_forward_pre_hook(lambda network, given: sizes.add(tuple(given[0].shape[2:])))
    striate.predict(classifier, bars_folder / "test" / "lying" / "000.png", average="ten-crop")
    striate.evaluate(run.folder, average="ten-crop")
    assert sizes == {(8, 8)}


def test_data_of_another_kind_is_told_what_the_network_takes(bars_run: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.wav").write_bytes(wav(bytes(128)))
    with pytest.raises(OptionError) as caught:
        striate.evaluate(bars_run.folder, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the network was trained on examples of 1x8x8: "
        "the size of a signal is 1 whole number, at least 1; got size=(8, 8)."
    )
