"""Decoding: files become splits of one shape, in memory or stored; what cannot be read is listed or left out."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from striate import decoding
from striate.datasets import Dataset, Split, Stored, load
from striate.errors import DataError, OptionError

from .test_datasets import REPAIR, paint, paint_split, paint_whole
from .test_signals import by_soundfile, wav
from .test_storage import write_zip
from .test_volumes import npy

CLOTHING = Path(__file__).parents[2] / "shared" / "data" / "clothing" / "clothing-160.zip"
NUCLEI = CLOTHING.parents[1] / "nuclei" / "nuclei.zip"


def message(work: Callable[[], object]) -> str:
    with pytest.raises((DataError, OptionError)) as caught:
        work()
    return str(caught.value)


def everything(split: Split | Stored) -> tuple[Any, Any]:
    inputs, targets = split.take(range(len(split)))
    return inputs.tolist(), targets.tolist()


def zipped(root: Path) -> Path:
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return write_zip(root.with_suffix(".zip"), files)


# In memory and stored


def test_stored_data_are_what_is_in_memory(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    paint_split(root)
    paint(root / "validation" / "cat" / "8.png", 18)
    for source in (root, zipped(root)):
        memory, stored = load(source), load(source, stream=True)
        for part, split in memory.parts.items():
            other = stored.parts[part]
            assert (isinstance(split, Split), isinstance(other, Stored)) == (True, True)
            assert everything(split) == everything(other)
        assert (memory.classes, memory.shape, memory.reader) == (stored.classes, stored.shape, stored.reader)
        assert list(memory.parts) == ["train", "validation", "test"]


def test_what_memory_cannot_hold_stays_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint_split(tmp_path)
    monkeypatch.setattr(decoding, "RESIDENT", 7 * 24 - 1)
    assert isinstance(load(tmp_path).train, Stored)
    monkeypatch.setattr(decoding, "RESIDENT", 7 * 24)
    assert isinstance(load(tmp_path).train, Split)
    monkeypatch.setattr(decoding, "free_memory", lambda: 4 * 7 * 24 - 4)
    assert isinstance(load(tmp_path).train, Stored)
    assert isinstance(load(tmp_path, stream=False).train, Split)


def test_the_system_says_how_much_memory_is_free() -> None:
    free = decoding.free_memory()
    assert free is None or free > 10**7


# What cannot be read


@pytest.mark.parametrize("stream", [False, True])
def test_bad_files_can_be_left_out(tmp_path: Path, stream: bool) -> None:
    """One has no header, one stops in the middle of its pixels."""
    root = tmp_path / "pets"
    paint_split(root)
    (root / "train" / "cat" / "a.png").touch()
    noise = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    Image.fromarray(noise).save(root / "test" / "dog" / "c.bmp")
    (root / "test" / "dog" / "c.bmp").write_bytes((root / "test" / "dog" / "c.bmp").read_bytes()[:-8])
    data = load(root, skip_bad=True, stream=stream)
    assert data.skipped == (
        (
            f"{root / 'test' / 'dog' / 'c.bmp'}: it cannot be decoded, because it is damaged or cut short: "
            "image file is truncated (0 bytes not processed)."
        ),
        f"{root / 'train' / 'cat' / 'a.png'}: the file is empty.",
    )
    assert [data.train.targets.tolist(), data.test.targets.tolist()] == [[0, 0, 0, 1, 1], [0, 1]]
    inputs, _ = data.test.take([0, 1])
    assert inputs[:, 0, 0, 0].tolist() == [19, 29]


def test_messages_when_too_much_is_left_out(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", "test/cat/1.png"):
        paint(tmp_path / name, 1)
    (tmp_path / "test" / "cat" / "1.png").write_bytes(b"")
    assert message(lambda: load(tmp_path, skip_bad=True)) == f"{tmp_path.name}: nothing is left in its test part."
    for name in ("train/cat/1.png", "train/dog/1.png"):
        (tmp_path / name).write_bytes(b"")
    expected = f"{tmp_path}: 3 of 3 pictures cannot be used. {REPAIR}:"
    assert message(lambda: load(tmp_path, skip_bad=True)).splitlines()[0] == expected
    for stream in (False, True):
        found = message(lambda stream=stream: load(tmp_path, channels=1, size=(4, 4), skip_bad=True, stream=stream))  # type: ignore[misc]
        assert found.splitlines()[0] == expected


def test_a_stored_set_with_bad_files_is_refused(tmp_path: Path) -> None:
    paint_split(tmp_path)
    (tmp_path / "train" / "cat" / "a.png").touch()
    assert message(lambda: load(tmp_path, stream=True)) == (
        f"{tmp_path}: 1 of 8 pictures cannot be used. {REPAIR}:\n"
        f"  {tmp_path / 'train' / 'cat' / 'a.png'}: the file is empty."
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_class_that_is_broken_in_train_is_not_tested(tmp_path: Path, stream: bool) -> None:
    paint_split(tmp_path)
    paint(tmp_path / "train" / "emu" / "1.png", 30)
    paint(tmp_path / "test" / "emu" / "9.png", 39)
    (tmp_path / "train" / "emu" / "1.png").write_bytes(b"")
    left_out = f"{tmp_path / 'train' / 'emu' / '1.png'}: the file is empty."
    expected = (
        f"{tmp_path}: the classes 'emu' are not in the training part, so nothing can learn them. Left out:\n"
        f"  {left_out}"
    )
    assert message(lambda: load(tmp_path, skip_bad=True, stream=stream)) == expected
    (tmp_path / "test" / "emu" / "9.png").unlink()
    assert message(lambda: load(tmp_path, skip_bad=True, stream=stream)) == expected


def test_missing_mates_come_before_what_they_lead_to(tmp_path: Path) -> None:
    paint_masks(tmp_path, (1, 1))
    (tmp_path / "masks" / "01.png").unlink()
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: 1 of 2 pictures cannot be used. {REPAIR}:\n"
        f"  {tmp_path / 'images' / '01.png'}: no file of its name in {tmp_path / 'masks'}."
    )


# Masks


def paint_masks(root: Path, values: tuple[int, ...], mode: str = "L") -> Path:
    """Pictures of 4x6 with value 10, 20, ...; their masks have one of the values above and 0 below."""
    for number, value in enumerate(values):
        name = f"{number:02}.png"
        paint(root / "images" / name, 10 * (number + 1))
        mask = Image.new(mode, (6, 4))
        mask.paste(value, (0, 0, 6, 2))
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / name)
    return root


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("values", "mode", "classes", "expected"),
    [
        ((1, 2, 1, 2), "L", ("0", "1", "2"), {0, 1, 2}),
        ((255, 255, 255, 255), "L", ("0", "1"), {0, 1}),
        ((1, 1, 1, 1), "1", ("0", "1"), {0, 1}),
    ],
)
def test_values_of_masks_are_classes(
    tmp_path: Path, stream: bool, values: tuple[int, ...], mode: str, classes: tuple[str, ...], expected: set[int]
) -> None:
    data = load(paint_masks(tmp_path, values, mode), stream=stream)
    assert (data.task, data.classes, len(data.train), len(data.test)) == ("masks", classes, 3, 1)
    found: set[int] = set()
    for split in (data.train, data.test):
        inputs, masks = split.take(range(len(split)))
        assert (masks.dtype, tuple(masks.shape[1:])) == (torch.uint8, (4, 6))
        found |= set(masks.flatten().tolist())
        above = [values[int(value) // 10 - 1] for value in inputs[:, 0, 0, 0]]
        wanted = [(1 if expected == {0, 1} else value) for value in above]
        assert masks[:, 0, 0].tolist() == wanted
    assert found == expected


@pytest.mark.parametrize("stream", [False, True])
def test_255_is_ignored_beside_classes(tmp_path: Path, stream: bool) -> None:
    paint_masks(tmp_path, (1, 1, 1, 1))
    border = Image.new("L", (6, 4), 1)
    border.paste(255, (0, 0, 6, 1))
    border.save(tmp_path / "masks" / "01.png")
    data = load(tmp_path, stream=stream)
    assert data.classes == ("0", "1")
    found = torch.cat([split.take(range(len(split)))[1] for split in (data.train, data.test)])
    assert found.unique(return_counts=True)[1].tolist() == [3 * 12, 3 * 12 + 18, 6]


@pytest.mark.parametrize(("first", "others"), [(1, 255), (255, 1)])
def test_message_for_masks_in_which_255_seems_a_class(tmp_path: Path, first: int, others: int) -> None:
    """Foreground is 255 in some masks and 1 in others, be it a pixel or a part; classes.txt settles it."""
    paint_masks(tmp_path, (first, *[others] * 5))
    number, count = ("00", 5) if first == 1 else ("01", 1)
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: 255 lies beside nothing but 0 in {count} of {count} mask{'s' * (count > 1)} with it, as a class "
        f"does, and would be ignored because {tmp_path / 'masks' / number}.png holds 1. Write the numbers of classes "
        "into all masks; or, if 255 is to be ignored, name the classes in a file classes.txt."
    )
    (tmp_path / "classes.txt").write_text("ground\ncat\n")
    assert load(tmp_path).classes == ("ground", "cat")


def test_message_for_masks_of_greys(tmp_path: Path) -> None:
    paint_masks(tmp_path, (255, 127, 128, 255))
    (tmp_path / "images" / "02.png").unlink()
    (tmp_path / "masks" / "02.png").unlink()
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: the masks hold evenly spaced greys, 0, 127, 255; expected the numbers of classes, 0, 1, 2, ..."
    )


def test_palettes_keep_their_indices_and_classes_may_be_named(tmp_path: Path) -> None:
    paint_masks(tmp_path, (1, 2, 1, 2))
    for path in (tmp_path / "masks").iterdir():
        with Image.open(path) as mask:
            indexed = Image.fromarray(np.array(mask))
        indexed.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10])
        indexed.save(path)
    (tmp_path / "classes.txt").write_text("ground\ncat\ndog\nnever seen\n")
    data = load(tmp_path)
    assert data.classes == ("ground", "cat", "dog", "never seen")
    assert set(data.train.targets.flatten().tolist()) == {0, 1, 2}
    (tmp_path / "classes.txt").write_text("ground\ncat\n")
    assert f"{tmp_path / 'masks' / '01.png'}: the mask's value 2 is out of range: there are 2 classes" in message(
        lambda: load(tmp_path)
    )


def test_masks_are_scaled_as_their_pictures_but_never_mixed(tmp_path: Path) -> None:
    paint_masks(tmp_path, (1, 7, 1, 7))
    data = load(tmp_path, size=(8, 8))
    assert tuple(data.train.targets.shape) == (3, 8, 8)
    assert set(data.train.targets.flatten().tolist()) <= {0, 1, 7}


def test_message_for_masks_that_do_not_fit(tmp_path: Path) -> None:
    paint_masks(tmp_path, (1, 1, 1, 1))
    Image.new("L", (6, 5)).save(tmp_path / "masks" / "00.png")
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "masks" / "01.png")
    (tmp_path / "masks" / "02.png").unlink()
    expected = [
        f"  {tmp_path / 'images' / '02.png'}: no file of its name in {tmp_path / 'masks'}.",
        f"  {tmp_path / 'masks' / '00.png'}: the mask is 5x6, its picture 4x6.",
        (
            f"  {tmp_path / 'masks' / '01.png'}: a mask has one channel of class numbers (mode L or P), and this has "
            "mode RGB. Save the class numbers themselves, in grey or with a palette."
        ),
    ]
    first = f"{tmp_path}: 3 of 4 pictures cannot be used. {REPAIR}:"
    assert message(lambda: load(tmp_path)).splitlines() == [first, *expected]
    paint_masks(tmp_path, (1, 1))
    Image.new("L", (6, 5)).save(tmp_path / "masks" / "00.png")
    paint(tmp_path / "images" / "04.png", 1)
    paint(tmp_path / "masks" / "04.png", 1)
    data = load(tmp_path, skip_bad=True)
    assert data.skipped == tuple(line.strip() for line in expected[:2])
    assert len(data.train) + len(data.test) == 3


# Signals and volumes


def tones(root: Path, lengths: tuple[int, ...], **options: Any) -> Path:
    for name in ("no", "yes"):
        (root / name).mkdir(parents=True)
        for number, length in enumerate(lengths):
            content = wav(struct.pack(f"<{length}h", *([number] * length)), **options)
            (root / name / f"{number}.wav").write_bytes(content)
    return root


def test_signals_come_back(tmp_path: Path) -> None:
    data = load(tones(tmp_path, (5, 5, 5)))
    assert (data.shape, data.classes, data.train.dtype) == ((1, 5), ("no", "yes"), torch.int16)
    assert data.reader is not None
    assert data.reader.to_dict() == {"kind": "signal", "shape": [1, 5], "rate": 8000, "dtype": "int16"}
    assert sorted(data.train.inputs[:, 0, 0].tolist() + data.test.inputs[:, 0, 0].tolist()) == [0, 0, 1, 1, 2, 2]


def test_signals_of_two_types_become_floating_point_numbers(tmp_path: Path) -> None:
    tones(tmp_path, (4, 4))
    (tmp_path / "no" / "2.wav").write_bytes(by_soundfile([0.5] * 4, "FLOAT"))
    data = load(tmp_path)
    assert data.train.dtype == torch.float32
    assert {0.5, 1 / 32768} <= {x for s in data.parts.values() for x in s.inputs.flatten().tolist()}


def test_messages_for_signals_that_differ(tmp_path: Path) -> None:
    tones(tmp_path, (5, 9))
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: the signals have 2 sizes, from 5 ({tmp_path / 'yes' / '0.wav'}) to 9 "
        f"({tmp_path / 'yes' / '1.wav'}). Give one length for all: --size 8000 on the command line, size=(8000,) in "
        "Python."
    )
    assert load(tmp_path, size=(7,)).shape == (1, 7)
    (tmp_path / "no" / "2.wav").write_bytes(wav(bytes(8), rate=16000))
    assert message(lambda: load(tmp_path, size=(7,))) == (
        f"{tmp_path}: the signals have 8,000, 16,000 samples a second. Resample them to one rate."
    )
    (tmp_path / "no" / "2.wav").write_bytes(wav(bytes(8), channels=2))
    assert message(lambda: load(tmp_path, size=(7,))) == (
        f"{tmp_path}: the signals have 1, 2 channels; all need the same."
    )
    assert message(lambda: load(tmp_path, size=(7, 7))) == (
        "the size of a signal is 1 whole number, at least 1; got size=(7, 7)."
    )
    assert message(lambda: load(tmp_path, channels=0)) == (
        "channels must be a whole number, at least 1, got channels=0."
    )


def test_volumes_come_back(tmp_path: Path) -> None:
    for name, value in (("ill", 1), ("well", 2)):
        (tmp_path / name).mkdir()
        for number in range(3):
            array = np.full((2, 3, 4 + number), value, np.uint8)
            (tmp_path / name / f"{number}.npy").write_bytes(npy(array))
    data = load(tmp_path, size=(2, 2, 2))
    assert (data.shape, data.train.dtype, data.train.targets.tolist()) == ((1, 2, 2, 2), torch.uint8, [0, 0, 1, 1])
    assert data.train.inputs.flatten(1).unique(dim=1).flatten().tolist() == [1, 1, 2, 2]
    assert message(lambda: load(tmp_path)).endswith(
        "Give one size for all: --size 32x64x64 on the command line, size=(32, 64, 64) in Python."
    )


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"cat": 6, "dog": 6})
    assert message(lambda: load(tmp_path, validation=1.0)) == (
        "validation is a share of the training part, from 0 to below 1, got 1.0."
    )
    part = load(tmp_path)
    assert message(lambda: Dataset("d", ("a", "b"), part.train, part.test, task="boxes")) == (
        "d: a data set's task is classes or masks, got task='boxes'."
    )
    assert message(lambda: Dataset("d", ("a", "b"), part.train, part.test, task="masks")) == (
        "d, train: its targets are classes, the task is masks."
    )
    masks = Split(part.train.inputs, torch.full((len(part.train), 4, 6), 2, dtype=torch.uint8))
    assert message(lambda: Dataset("d", ("a", "b"), masks, masks)) == (
        "d, train: its targets are masks, the task is classes."
    )
    assert message(lambda: Dataset("d", ("a", "b"), masks, masks, task="masks")) == (
        "d, train: a mask holds 2; there are 2 classes, 0 to 1, and 255 is ignored."
    )


# Real data


@pytest.mark.skipif(not CLOTHING.is_file(), reason=f"the clothing photos are not at {CLOTHING}")
def test_real_photos_in_a_zip_stay_in_it() -> None:
    data = load(CLOTHING, size=(64, 64), channels=3, stream=True)
    assert {name: len(split) for name, split in data.parts.items()} == {"train": 3068, "validation": 341, "test": 372}
    inputs, targets = data.train.take([0, 3067])
    assert (tuple(inputs.shape), targets.tolist()) == ((2, 3, 64, 64), [0, 9])


@pytest.mark.skipif(not NUCLEI.is_file(), reason=f"the fluorescence images are not at {NUCLEI}")
def test_real_masks_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(NUCLEI) as archive:
        names = [name.partition("/")[2] for name in sorted(archive.namelist())[:6]]
        chosen = {
            f"{folder}/{name}": archive.read(f"{folder}/{name}") for folder in ("images", "masks") for name in names
        }
    data = load(write_zip(tmp_path / "nuclei.zip", chosen))
    assert (data.classes, data.shape) == (("0", "1"), (1, 520, 696))
    assert data.train.targets.unique().tolist() == [0, 1]
