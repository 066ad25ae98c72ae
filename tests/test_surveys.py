"""The survey: what was put into a data set is found in it, also in data that training refuses."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate.datasets import Normalisation, load
from striate.errors import DataError
from striate.surveys import survey

from .test_datasets import paint, paint_split, write_idx_folder
from .test_decoding import paint_masks, tones
from .test_signals import wav
from .test_storage import write_zip


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


TEXT = """\
pets: 10 pictures, a folder for each class under train/, test/

class  train  test
------------------
cat        4     3
dog        2     1
------------------
sum        6     4

bytes      {bytes}
sizes      smallest 4x6, median 4x6, largest 8x6; 2 different
channels   1 (10)
imbalance  2.00 (largest class / smallest, to train on)
mean       {mean:.4f}
std        {std:.4f}

! LEAK: 1 group with the same content in several parts; the test says nothing about these:
  {root}/train/cat/0.png = {root}/test/cat/a.png = {root}/test/cat/b.png
! 1 group with the same content and different targets:
  {root}/train/cat/1.png = {root}/train/dog/x.png
! 1 file that cannot be used; --skip-bad leaves them out:
  {root}/train/cat/broken.png: the file is empty.
! 1 group with the same content within a part:
  {root}/train/cat/1.png = {root}/train/dog/x.png"""


def messy(root: Path) -> Path:
    """Copies within train and across the parts, one with another class, a broken file and a larger one."""
    paint_split(root)
    for name in ("a", "b"):
        shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / f"{name}.png")
    shutil.copy(root / "train" / "cat" / "1.png", root / "train" / "dog" / "x.png")
    (root / "train" / "dog" / "1.png").unlink()
    paint(root / "train" / "cat" / "big.png", 200, size=(8, 6))
    (root / "train" / "cat" / "broken.png").touch()
    return root


def test_the_text_says_it_all(tmp_path: Path) -> None:
    root = messy(tmp_path / "pets")
    seen: list[tuple[int, int, str]] = []
    found = survey(root, progress=lambda *state: seen.append(state))
    values = torch.cat([torch.full((24,), v) for v in (10, 11, 12, 20, 11)] + [torch.full((48,), 200)]).double() / 255
    size = sum(path.stat().st_size for path in root.rglob("*.png"))
    mean, std = float(values.mean()), float(values.std(correction=0))
    assert str(found) == TEXT.format(root=root, bytes=f"{size:,}", mean=mean, std=std)
    assert seen == [(11, 11, "reading pictures")]
    assert found.imbalance == 2.0
    assert json.loads(json.dumps(found.to_dict()))["leaks"] == [
        [str(root / "train" / "cat" / "0.png"), *(str(root / "test" / "cat" / f"{n}.png") for n in ("a", "b"))]
    ]
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}
    zipped = survey(write_zip(tmp_path / "pets.zip", files))
    assert (zipped.counts, zipped.sizes, zipped.bytes) == (found.counts, found.sizes, found.bytes)
    assert len(zipped.leaks) == 1


def test_statistics_are_those_of_training(tmp_path: Path) -> None:
    paint_split(tmp_path)
    expected = Normalisation.of(load(tmp_path).train)
    found = survey(tmp_path)
    assert found.mean == pytest.approx(expected.mean, rel=1e-12)
    assert found.std == pytest.approx(expected.std, rel=1e-12)
    assert found.warnings == ()
    paint(tmp_path / "train" / "dog" / "red.png", 22, colour=True)
    mixed, coloured = survey(tmp_path), Normalisation.of(load(tmp_path).train)
    assert mixed.channels == {1: 7, 3: 1}
    assert mixed.mean == pytest.approx(coloured.mean, rel=1e-12)
    assert mixed.std == pytest.approx(coloured.std, rel=1e-12)


def test_data_that_training_refuses_are_surveyed(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        paint(tmp_path / "train" / name, 1)
    (tmp_path / "train" / "emu").mkdir()
    paint(tmp_path / "val" / "bee" / "1.png", 7)
    assert "no pictures in the class folders 'emu'" in message(lambda: load(tmp_path))
    found = survey(tmp_path)
    assert found.counts == {
        "train": {"bee": 0, "cat": 1, "dog": 1, "emu": 0},
        "validation": {"bee": 1, "cat": 0, "dog": 0, "emu": 0},
    }
    assert (found.imbalance, found.notes) == (
        1.0,
        (
            "nothing to learn the classes 'bee', 'emu' from.",
            "there is no test part; the validation part becomes it.",
            "nothing to test the classes 'cat', 'dog' by.",
        ),
    )
    assert found.refused == message(lambda: load(tmp_path))
    assert found.warnings[0] == f"training refuses it: {found.refused}"
    assert "imbalance  1.00 (largest class / smallest that has any, to train on)" in str(found)
    shutil.rmtree(tmp_path / "val")
    shutil.rmtree(tmp_path / "train" / "emu")
    shutil.rmtree(tmp_path / "train" / "dog")
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"")
    lone = survey(tmp_path)
    assert lone.notes == (
        "a classifier needs at least 2 classes, and there is 1.",
        "nothing to learn the classes 'cat' from.",
        "there is no test part; one in six is held out.",
    )
    assert "sum      0" in str(lone)
    assert message(lambda: survey(tmp_path / "train" / "cat")).startswith(
        f"{tmp_path / 'train' / 'cat'}: there are no class folders in it, only loose pictures (1)."
    )


def test_a_lopsided_set_is_warned_about(tmp_path: Path) -> None:
    for number in range(20):
        paint(tmp_path / "train" / "cat" / f"{number}.png", number)
    paint(tmp_path / "train" / "dog" / "1.png", 99)
    paint(tmp_path / "test" / "dog" / "1.png", 98)
    assert survey(tmp_path).warnings == (
        "the largest class has 20.0 times as many examples as the smallest.",
        "nothing to test the classes 'cat' by.",
    )


def test_classes_of_which_a_test_says_little_are_named(tmp_path: Path) -> None:
    """One in six is held out: 5 of 30, 4 of 29 and 1 of 2; how large a given test part is, its makers chose."""
    for name, count in (("cat", 30), ("dog", 29), ("emu", 2)):
        for number in range(count):
            paint(tmp_path / name / f"{number}.png", number)
    few = "fewer than 5 examples to test these classes by, which says little: 'dog' (4), 'emu' (1)."
    found = survey(tmp_path)
    assert found.notes[-1] == few
    assert found.refused == ""
    for number in range(4):
        shutil.copy(tmp_path / "cat" / f"{number}.png", tmp_path / "emu" / f"{30 + number}.png")
    (tmp_path / "emu" / "0.png").unlink()
    assert survey(tmp_path).notes[-1].endswith("'dog' (4), 'emu' (1).")
    (tmp_path / "train").mkdir()
    for name in ("cat", "dog", "emu"):
        shutil.move(tmp_path / name, tmp_path / "train" / name)
        paint(tmp_path / "test" / name / "1.png", 250)
    assert survey(tmp_path).notes == ()


def test_what_a_split_cannot_do_is_said(tmp_path: Path) -> None:
    for name, count in (("cat", 4), ("dog", 1)):
        for number in range(count):
            paint(tmp_path / name / f"{number}.png", number)
    assert survey(tmp_path).refused == message(lambda: load(tmp_path))
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 4, 4), np.uint8), y=[0, 0, 1, 1, 2])
    assert survey(tmp_path / "a.npz").refused == message(lambda: load(tmp_path / "a.npz"))
    x, y = np.zeros((2, 4, 4), np.uint8), [0, 1]
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=[0, 2])
    assert survey(tmp_path / "a.npz").refused == message(lambda: load(tmp_path / "a.npz"))


def test_masks_have_shares_and_misfits(tmp_path: Path) -> None:
    paint_masks(tmp_path, (1, 2, 255, 1))
    Image.new("L", (6, 5), 2).save(tmp_path / "masks" / "03.png")
    (tmp_path / "images" / "01.png").unlink()
    found = survey(tmp_path)
    assert found.unreadable == (
        f"{tmp_path / 'masks' / '01.png'}: no file of its name in {tmp_path / 'images'}.",
        f"{tmp_path / 'masks' / '03.png'}: the mask is 5x6, its picture 4x6.",
    )
    assert found.counts == {"all": {"pairs": 3}}
    assert found.pixel_shares == pytest.approx({"0": 24 / 78, "1": 12 / 78, "2": 30 / 78, "ignored": 12 / 78})
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.array([[0, 255, 255, 255]] * 2, np.uint8)).save(path)
    assert survey(tmp_path).pixel_shares == {"0": 0.25, "1": 0.75}
    assert "pixels    0 25.00 %, 1 75.00 %" in str(survey(tmp_path))


def test_signals_have_rates_and_durations(tmp_path: Path) -> None:
    tones(tmp_path, (800, 1600))
    (tmp_path / "no" / "2.wav").write_bytes(wav(struct.pack("<400h", *range(400)), rate=16000))
    found = survey(tmp_path)
    assert (found.rates, found.seconds) == ({8000: 4, 16000: 1}, (0.025, 0.1, 0.2))
    assert (found.kind, found.sizes["largest"]) == ("signal", [1600])
    assert "samples/s  8,000 (4), 16,000 (1)\nseconds    0.025 to 0.2, median 0.1" in str(found)


def test_arrays_are_surveyed_by_number(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    found = survey(tmp_path)
    assert found.counts == {"train": {"0": 2, "1": 2, "2": 2}, "test": {"0": 1, "1": 0, "2": 1}}
    assert found.leaks == (("train[0]", "test[0]", "test[1]"),)
    assert found.conflicts == (("train[0]", "test[0]", "test[1]"),)
    bundled = survey("fashion-mnist-mini")
    assert bundled.counts["train"]["Trouser"] == 1027
    assert bundled.mean == pytest.approx((0.2863,), abs=1e-4)
    assert str(bundled).startswith("fashion-mnist-mini: 12,000 pictures, bundled\n")


def test_copies_that_training_puts_on_both_sides_are_leaks(tmp_path: Path) -> None:
    """Each picture is there twice, and the survey says of which pairs training sees one and tests the other."""
    for name, value in (("cat", 10), ("dog", 20)):
        for number in range(12):
            paint(tmp_path / name / f"{number:02}.png", value + number // 2)
    data = load(tmp_path)
    train, test = (set(split.inputs[:, 0, 0, 0].tolist()) for split in (data.train, data.test))
    found = survey(tmp_path)
    values = {int(Path(group[0]).stem) // 2 + (10 if "cat" in group[0] else 20) for group in found.leaks}
    assert values == train & test
    assert len(found.leaks) + len(found.duplicates) == 12
    count = "1 group" if len(values) == 1 else f"{len(values)} groups"
    assert found.warnings[0].startswith(
        f"LEAK: {count} with the same content on both sides of the split that training makes with seed 0; "
        "the test says nothing about these:\n"
    )


def test_files_that_nothing_is_made_of_are_counted(tmp_path: Path) -> None:
    paint_split(tmp_path)
    for name in ("train/cat/a.jfif", "train/cat/b.heic", "test/dog/c.heic", "test/dog/noending", "test/stray.png"):
        (tmp_path / name).touch()
    assert survey(tmp_path).notes == (
        (
            "5 files of other endings or outside all classes, .heic (2), .jfif (1), .png (1), no ending (1):\n"
            f"  {tmp_path / 'test/dog/c.heic'}\n"
            f"  {tmp_path / 'test/dog/noending'}\n"
            f"  {tmp_path / 'test/stray.png'}\n"
            f"  {tmp_path / 'train/cat/a.jfif'}\n"
            f"  {tmp_path / 'train/cat/b.heic'}"
        ),
    )


def test_doubts_about_masks_are_noted(tmp_path: Path) -> None:
    paint_masks(tmp_path, (1, 255, 4, 255))
    notes = survey(tmp_path).notes
    assert notes == (
        "there is no test part; one in six is held out.",
        (
            "255 lies beside nothing but 0 in 2 of 2 masks with it, as a class does, and would be ignored because "
            f"{tmp_path / 'images' / '00.png'} holds 1. Write the numbers of classes into all masks; or, if 255 is to "
            "be ignored, name the classes in a file classes.txt."
        ),
        "no mask holds the classes 2, 3.",
    )
