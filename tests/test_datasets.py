"""Data sets: what was written into files comes back with its labels, and each fault of a folder has its sentence."""

from __future__ import annotations

import gzip
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from striate import arrays, cli, datasets, images, surveys
from striate.datasets import Dataset, Normalisation, Split, Stored, load, read_idx
from striate.errors import DataError, OptionError, UnknownNameError

from .test_storage import needs_gnu_tar, write_tar, write_zip
from .work import calls

PROJECT = Path(__file__).parents[1]
FASHION = PROJECT.parent / "shared" / "data" / "fashion-mnist"
CLOTHING = PROJECT.parent / "shared" / "data" / "clothing" / "clothing-160.zip"
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = datasets.IDX_FILES
ONE_SIZE = "Give one size for all: --size 64x64 on the command line, size=(64, 64) in Python."
EXPECTED = (
    "Expected a folder for each class with its pictures (cat/1.png, dog/1.png), these under train/ and test/ if they "
    "are already split, or the four IDX files train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (each may end in .gz)."
)
REPAIR = "Repair or remove them, or leave them out (--skip-bad on the command line, skip_bad=True in Python)"
ENDINGS = ".bmp, .gif, .jpeg, .jpg, .pbm, .pgm, .png, .pnm, .ppm, .tif, .tiff, .webp"


def message(work: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        work()
    return str(caught.value)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def blank(count: int, channels: int = 1, side: int = 4) -> Tensor:
    return torch.zeros(count, channels, side, side, dtype=torch.uint8)


# The values


def test_splits_and_data_sets_show_what_they_hold() -> None:
    train, test = Split(blank(3), torch.tensor([0, 1, 0])), Split(blank(2), torch.tensor([1, 1]))
    data = Dataset("blank", ("cat", "dog"), train, test)
    assert (len(train), len(test), data.shape) == (3, 2, (1, 4, 4))
    assert repr(data) == (
        "Dataset(name='blank', classes=('cat', 'dog'), "
        "train=Split(3 pictures of 1x4x4), test=Split(2 pictures of 1x4x4))"
    )


def test_message_for_a_data_set_that_is_none() -> None:
    part, other = Split(blank(2), torch.tensor([0, 1])), Split(blank(2, side=5), torch.tensor([0, 1]))
    assert message(lambda: Dataset("d", ("cat",), part, part)) == "d: a classifier needs at least 2 classes, got 1."
    assert message(lambda: Dataset("d", ("cat", "dog"), part, other)) == (
        "d: the shapes differ: train is Split(2 pictures of 1x4x4), test is Split(2 pictures of 1x5x5)."
    )
    for label in (2, -1):
        wrong = Split(blank(3), torch.tensor([1, label, 0]))
        assert message(lambda wrong=wrong: Dataset("d", ("cat", "dog"), part, wrong)) == (  # type: ignore[misc]
            f"d, test: label {label} of image 1 (of 3, counted from 0) is out of range: there are 2 classes, 0 to 1."
        )


# Names and paths


def test_message_for_a_name_that_nothing_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message(lambda: load("fashion-mnst-mini"), UnknownNameError) == (
        "No data set or folder is called 'fashion-mnst-mini'. "
        "Did you mean 'fashion-mnist-mini'? Known: fashion-mnist-mini."
    )


def test_message_for_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert message(lambda: load(tmp_path / "flowers")) == (
        f"{tmp_path / 'flowers'}: there is no such folder. {EXPECTED} Data sets known by name: fashion-mnist-mini."
    )
    (tmp_path / "flowers.zip").touch()
    assert message(lambda: load(tmp_path / "flowers.zip")) == (
        f"{tmp_path / 'flowers.zip'}: it is neither a folder nor a .zip or .tar archive; unpack other archives first."
    )


def test_the_home_of_nobody_is_a_path_that_is_not_there() -> None:
    assert message(lambda: load("~no-such-user/x")) == (
        f"~no-such-user/x: there is no such folder. {EXPECTED} Data sets known by name: fashion-mnist-mini."
    )
    assert message(lambda: load("~no-such-user"), UnknownNameError) == (
        "No data set or folder is called '~no-such-user'. Known: fashion-mnist-mini."
    )


def test_message_for_a_hidden_table(tmp_path: Path) -> None:
    (tmp_path / ".index.csv").write_text("file,label\n")
    assert message(lambda: load(tmp_path / ".index.csv")) == (
        f"{tmp_path / '.index.csv'}: files whose names begin with a dot are left out; rename it."
    )


def test_names_that_are_no_text_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux lets a name be any bytes; strict UTF-8 cannot say them."""
    name = os.fsdecode(b"caf\xe9")
    paint_whole(tmp_path, {name: 6, "dog": 6})

    def said(*words: str) -> tuple[str, str]:
        streams = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
        with monkeypatch.context() as patch:
            for stream, held in streams.items():
                patch.setattr(sys, stream, io.TextIOWrapper(held, "utf-8", "strict", write_through=True))
            patch.setattr(sys, "argv", ["striate", "data", *words])
            with pytest.raises(SystemExit):
                cli.main()
            return streams["stdout"].getvalue().decode(), streams["stderr"].getvalue().decode()

    assert "caf\\udce9" in said(str(tmp_path))[0]
    assert json.loads(said(str(tmp_path), "--json")[0])["classes"] == [name, "dog"]
    assert said(f"{tmp_path}/{name}")[1].startswith(f"Error: {tmp_path}/caf\\udce9: there are no class folders in it")


def test_what_the_file_system_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", locked)
    assert message(lambda: load(tmp_path)) == f"{tmp_path}: it cannot be opened: Permission denied."
    assert message(lambda: load("x" * 300)) == f"{'x' * 300}: it cannot be opened: File name too long."


def test_options_are_checked_first() -> None:
    text = "channels must be 1 (grey) or 3 (colour), got channels=4."
    assert message(lambda: load("fashion-mnist-mini", channels=4), OptionError) == text
    text = "size must be two whole numbers (height, width), each at least 1, got size=(0, 8)."
    assert message(lambda: load("fashion-mnist-mini", size=(0, 8)), OptionError) == text


# The bundled set


def test_the_bundled_set_loads_at_once() -> None:
    assert calls(lambda: load("fashion-mnist-mini")) < 5 * 12_000, "no picture is decoded by itself"
    data = load("fashion-mnist-mini")
    assert (data.name, data.classes, data.shape) == ("fashion-mnist-mini", FASHION_CLASSES, (1, 28, 28))
    assert (len(data.train), len(data.test)) == (10_000, 2_000)


def test_the_bundled_set_can_be_coloured_and_resized() -> None:
    grey, large = load("fashion-mnist-mini"), load("fashion-mnist-mini", channels=3, size=(32, 32))
    assert large.shape == (3, 32, 32)
    same(large.test.inputs[:, 0], large.test.inputs[:, 2])
    first = images.from_pillow(images.to_pillow(grey.train.inputs[0]), size=(32, 32))
    same(large.train.inputs[0, :1], first)


def official(name: str, header: int, count: int) -> Tensor:
    return torch.from_numpy(np.frombuffer(gzip.open(FASHION / f"{name}.gz").read()[header:], np.uint8)[:count].copy())


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"the official Fashion-MNIST files are not in {FASHION}")
def test_the_bundled_set_is_the_beginning_of_the_official_files() -> None:
    data = load("fashion-mnist-mini")
    same(data.train.inputs, official(TRAIN_IMAGES, 16, 10_000 * 784).view(-1, 1, 28, 28))
    same(data.train.targets, official(TRAIN_LABELS, 8, 10_000).long())
    same(data.test.inputs, official(TEST_IMAGES, 16, 2_000 * 784).view(-1, 1, 28, 28))
    same(data.test.targets, official(TEST_LABELS, 8, 2_000).long())


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"the official Fashion-MNIST files are not in {FASHION}")
def test_the_official_files_have_their_published_mean_and_deviation() -> None:
    data = load(FASHION)
    assert (data.name, data.classes) == ("fashion-mnist", tuple("0123456789"))
    assert (len(data.train), len(data.test), data.shape) == (60_000, 10_000, (1, 28, 28))
    found = Normalisation.of(data.train.inputs)
    assert (round(found.mean[0], 4), round(found.std[0], 4)) == (0.2860, 0.3530)


def test_the_script_writes_the_same_bytes_again(tmp_path: Path) -> None:
    tool = runpy.run_path(str(PROJECT / "tools" / "make_bundled_data.py"))
    assert tool["CLASSES"] == FASHION_CLASSES
    write_idx_folder(tmp_path)
    held = tool["arrays"](tmp_path)
    tool["write"](tmp_path / "a", held)
    tool["write"](tmp_path / "b", held)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with np.load(tmp_path / "a", allow_pickle=False) as made:
        assert made["train_labels"].tolist() == [0, 1, 2, 0, 1, 2]


def test_the_licence_is_beside_the_data() -> None:
    text = (PROJECT / "src" / "striate" / "data" / "LICENSE-fashion-mnist.txt").read_text()
    assert "MIT License" in text
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "https://github.com/zalandoresearch/fashion-mnist" in text


# IDX files


def idx(dims: Sequence[int], data: bytes, *, axes: int | None = None, kind: int = 8) -> bytes:
    """An IDX file as Yann LeCun's page describes it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in dims)
    return bytes([0, 0, kind, len(dims) if axes is None else axes]) + sizes + data


def write_idx_folder(
    root: Path, *, side: int = 4, test_side: int | None = None, train: Sequence[int] = (0, 1, 2, 0, 1, 2)
) -> None:
    """Six (or more) pictures to train on, each filled with its index; two to test on, with labels 2 and 0."""
    other = side if test_side is None else test_side
    pixels = b"".join(bytes([i]) * side * side for i in range(len(train)))
    (root / TRAIN_IMAGES).write_bytes(idx((len(train), side, side), pixels))
    (root / TRAIN_LABELS).write_bytes(idx((len(train),), bytes(train)))
    (root / TEST_IMAGES).write_bytes(idx((2, other, other), bytes(2 * other * other)))
    (root / TEST_LABELS).write_bytes(idx((2,), b"\2\0"))


def test_one_idx_file_leads_to_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    write_idx_folder(folder)
    path = folder / TEST_IMAGES
    assert message(lambda: load(path)) == (
        f"{path}: one IDX file is images or labels; give the folder that holds all four: {folder}"
    )
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: the folders in it are data sets of their own; give one of them:\n  {folder}"
    )


def test_idx_files_come_back(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    seen: list[tuple[int, int, str]] = []
    data = load(tmp_path, progress=lambda *state: seen.append(state))
    assert (data.name, data.classes, data.shape) == (tmp_path.name, ("0", "1", "2"), (1, 4, 4))
    same(data.train.inputs, torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 4, 4))
    assert (data.train.targets.tolist(), data.test.targets.tolist()) == ([0, 1, 2, 0, 1, 2], [2, 0])
    assert seen == [(i, 4, "reading IDX files") for i in (1, 2, 3, 4)]


def test_idx_files_may_be_gzipped_whatever_their_names_say(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    plain = load(tmp_path)
    (tmp_path / TRAIN_IMAGES).rename(tmp_path / f"{TRAIN_IMAGES}.gz")
    (tmp_path / TRAIN_LABELS).write_bytes(gzip.compress((tmp_path / TRAIN_LABELS).read_bytes()))
    (tmp_path / f"{TEST_IMAGES}.gz").write_bytes(gzip.compress((tmp_path / TEST_IMAGES).read_bytes()))
    (tmp_path / TEST_IMAGES).unlink()
    (tmp_path / TEST_LABELS).rename(tmp_path / "t10k-labels.idx1-ubyte")
    zipped = load(tmp_path)
    same(zipped.train.inputs, plain.train.inputs)
    same(zipped.train.targets, plain.train.targets)
    same(zipped.test.inputs, plain.test.inputs)
    same(zipped.test.targets, plain.test.targets)


def test_idx_classes_may_be_named(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    (tmp_path / "classes.txt").write_text(" zebra\nant \n\nbée\nnever seen\n", encoding="utf-8")
    assert load(tmp_path).classes == ("zebra", "ant", "bée", "never seen")


def test_idx_pictures_can_be_coloured_and_resized(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, test_side=6)
    data = load(tmp_path, channels=3, size=(8, 5))
    assert data.shape == (3, 8, 5)
    same(data.train.inputs[5], torch.full((3, 8, 5), 5, dtype=torch.uint8))


BAD_IDX = [
    ("empty", b"", "not an IDX file of bytes: it begins with nothing; expected 00 00 08 03 (images)."),
    ("a PNG", b"\x89PNG\r\n", "not an IDX file of bytes: it begins with 89 50 4e 47; expected 00 00 08 03 (images)."),
    (
        "floats",
        idx((1, 2, 2), bytes(16), kind=0x0D),
        "not an IDX file of bytes: it begins with 00 00 0d 03; expected 00 00 08 03 (images).",
    ),
    ("labels", idx((4,), bytes(4)), "the number of axes in its header is 1; expected 3 (images)."),
    ("three bytes", b"\0\0\10", "the number of axes in its header is missing; expected 3 (images)."),
    ("half a header", idx((4, 2), b"", axes=3), "it ends after 12 of the 16 bytes of its header."),
    ("no images", idx((0, 28, 28), b""), "its header declares 0x28x28, so it holds no images."),
    ("cut short", idx((2, 3, 4), bytes(23)), "its header declares 2x3x4 = 24 bytes; only 23 follow."),
    ("too long", idx((2, 3, 4), bytes(25)), "its header declares 2x3x4 = 24 bytes; more than that follow."),
    (
        "absurd",
        idx((4_000_000_000, 6_000, 6_000), bytes(9)),
        "its header declares 4000000000x6000x6000 = 144,000,000,000,000,000 bytes; at most 1,073,741,824 are read.",
    ),
    (
        "gzip cut short",
        gzip.compress(idx((2, 3, 4), bytes(range(24))))[:-12],
        "it cannot be read: damaged or cut short: Compressed file ended before the end-of-stream marker was reached.",
    ),
    (
        "gzip with a wrong checksum",
        gzip.compress(idx((2, 3, 4), bytes(24)))[:-8] + bytes(8),
        f"it cannot be read: damaged or cut short: CRC check failed 0x0 != {zlib.crc32(idx((2, 3, 4), bytes(24))):#x}.",
    ),
    (
        "gzip of nonsense",
        gzip.compress(b"")[:10] + b"\xff" * 20,
        "it cannot be read: damaged or cut short: Error -3 while decompressing data: invalid block type.",
    ),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in BAD_IDX], ids=[row[0] for row in BAD_IDX])
def test_message_for_a_bad_idx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str) -> None:
    monkeypatch.setattr(arrays, "free_memory", lambda: None)
    write_idx_folder(tmp_path)
    path = tmp_path / TRAIN_IMAGES
    path.write_bytes(data)
    assert message(lambda: load(tmp_path)) == f"{path}: {reason}"


def test_message_for_an_idx_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert message(lambda: read_idx(path, 1)) == f"{path}: it cannot be read: No such file or directory."


@pytest.mark.parametrize(("side", "text"), [(1 << 10, "at most 1,073,741,824 are read."), (1, "only 99 follow.")])
def test_an_absurd_header_costs_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, text: str
) -> None:
    monkeypatch.setattr(arrays, "free_memory", lambda: None)
    path = tmp_path / "x"
    whole = idx((1 << 30, side, side), bytes(99))
    for data in (whole, gzip.compress(whole)):
        path.write_bytes(data)
        tracemalloc.start()
        assert message(lambda: read_idx(path, 3)).endswith(text)
        assert tracemalloc.get_traced_memory()[1] < 4e6
        tracemalloc.stop()


def test_message_for_missing_idx_files(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    (tmp_path / TRAIN_LABELS).unlink()
    (tmp_path / TEST_LABELS).unlink()
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: IDX data is four files, and train-labels-idx1-ubyte, t10k-labels-idx1-ubyte "
        "(or the same with .gz) is missing."
    )


def test_message_for_counts_that_differ(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    (tmp_path / TRAIN_LABELS).write_bytes(idx((5,), b"\0\1\2\0\1"))
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / TRAIN_IMAGES} holds 6 images, but {tmp_path / TRAIN_LABELS} holds 5 labels; "
        "expected one label for each image."
    )


def test_message_for_sizes_that_differ_between_idx_files(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, test_side=5)
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / TRAIN_IMAGES} holds images of 4x4, but {tmp_path / TEST_IMAGES} of 5x5. {ONE_SIZE}"
    )


def test_message_for_labels_out_of_range(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, train=(0, 1, 0, 1, 0, 1))
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / TEST_LABELS}: label 2 of image 0 (of 2, counted from 0) is out of range: "
        "there are 2 classes, 0 to 1 by the training labels."
    )
    write_idx_folder(tmp_path, train=(0, 1, 0, 7, 0, 1))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / TRAIN_LABELS}: label 7 of image 3 (of 6, counted from 0) is out of range: "
        "there are 2 classes, 0 to 1 by the names in classes.txt."
    )


def test_message_for_a_single_idx_class(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, train=(3,) * 6)
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / TRAIN_LABELS}: all 6 labels are 3; a classifier needs at least 2 classes."
    )


def test_message_for_bad_class_names(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    path = tmp_path / "classes.txt"
    path.write_text("cat\ndog\ncat\n")
    assert message(lambda: load(tmp_path)) == f"{path}: it names 'cat' more than once."
    path.write_bytes(b"\xef\xbb\xbfcat\ndog\nemu\n")
    assert load(tmp_path).classes == ("cat", "dog", "emu")
    path.write_bytes(b"\xff\xfe\n")
    assert message(lambda: load(tmp_path)) == (
        f"{path}: it cannot be read as UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 0: "
        "invalid start byte."
    )


# Folders of classes


def paint(path: Path, value: int, *, size: tuple[int, int] = (4, 6), colour: bool = False) -> None:
    """A picture of height and width ``size``, all of one value (in red, if coloured)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB" if colour else "L", size[::-1], (value, 0, 0) if colour else value)
    picture.save(path, "PNG")


def paint_split(root: Path, held_out: str = "test") -> None:
    """Cats are 10, 11, 12 and 19; dogs are 20, 21 and 29; the nines are held out."""
    for name, value in [("cat", 10), ("dog", 20)]:
        for i in range(3 if name == "cat" else 2):
            paint(root / "train" / name / f"{i}.png", value + i)
        paint(root / held_out / name / "9.png", value + 9)


def values(split: Split | Stored) -> list[int]:
    """What each picture is painted with, in the first channel."""
    return split.inputs[:, 0].amin((1, 2)).tolist()


@pytest.mark.parametrize("held_out", ["test", "validation", "valid", "val", "Test", "testing", "dev", "eval"])
def test_a_split_folder_comes_back(tmp_path: Path, held_out: str) -> None:
    paint_split(tmp_path, held_out)
    seen: list[tuple[int, int, str]] = []
    data = load(tmp_path, progress=lambda *state: seen.append(state))
    assert (data.name, data.classes, data.shape) == (tmp_path.name, ("cat", "dog"), (1, 4, 6))
    assert (values(data.train), data.train.targets.tolist()) == ([10, 11, 12, 20, 21], [0, 0, 0, 1, 1])
    assert (values(data.test), data.test.targets.tolist()) == ([19, 29], [0, 1])
    assert seen == [(7, 7, "checking pictures"), (7, 7, "reading pictures")]


def test_with_a_test_part_validation_is_a_part_of_its_own(tmp_path: Path) -> None:
    paint_split(tmp_path)
    paint(tmp_path / "validation" / "cat" / "8.png", 18)
    data = load(tmp_path)
    assert data.validation is not None
    assert (values(data.test), values(data.validation)) == ([19, 29], [18])


def test_pictures_may_lie_deeper_and_other_files_are_left_alone(tmp_path: Path) -> None:
    paint_split(tmp_path)
    paint(tmp_path / "train" / "cat" / "grey" / "old" / "x.PNG", 13)
    paint(tmp_path / "train" / "cat" / ".x.png", 99)
    paint(tmp_path / "train" / ".thumbnails" / "x.png", 99)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("meow")
    data = load(tmp_path)
    assert (data.classes, values(data.train)) == (("cat", "dog"), [10, 11, 12, 13, 20, 21])


def test_a_class_may_be_missing_from_the_test_part(tmp_path: Path) -> None:
    paint_split(tmp_path)
    shutil.rmtree(tmp_path / "test" / "cat")
    (tmp_path / "test" / "bird").mkdir()
    assert load(tmp_path).test.targets.tolist() == [1]


def test_one_coloured_picture_makes_all_coloured(tmp_path: Path) -> None:
    paint_split(tmp_path)
    paint(tmp_path / "train" / "dog" / "2.png", 22, colour=True)
    data = load(tmp_path)
    assert data.shape == (3, 4, 6)
    assert data.train.inputs[:, :, 0, 0].tolist() == [[v] * 3 for v in (10, 11, 12, 20, 21)] + [[22, 0, 0]]
    grey = load(tmp_path, channels=1)
    assert values(grey.train) == [10, 11, 12, 20, 21, round(0.299 * 22)]


def test_pictures_of_many_sizes_are_brought_to_one(tmp_path: Path) -> None:
    paint_split(tmp_path)
    paint(tmp_path / "train" / "dog" / "2.png", 22, size=(90, 30))
    for channels in (None, 3):
        data = load(tmp_path, size=(8, 8), channels=channels)
        assert data.shape == (channels or 1, 8, 8)
        assert values(data.train) == [10, 11, 12, 20, 21, 22]


# Held-out pictures


def paint_whole(root: Path, counts: dict[str, int]) -> None:
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            paint(root / name / f"{i:03}.png", 100 * number + i)


def test_one_in_six_of_each_class_is_held_out(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"cat": 30, "dog": 13, "emu": 2})
    data = load(tmp_path)
    assert data.classes == ("cat", "dog", "emu")
    assert (data.train.targets.bincount().tolist(), data.test.targets.bincount().tolist()) == ([25, 11, 1], [5, 2, 1])
    everything = sorted(values(data.train) + values(data.test))
    assert everything == [*range(30), *range(100, 113), *range(200, 202)]
    for split in (data.train, data.test):
        assert [value // 100 for value in values(split)] == split.targets.tolist()


def test_a_folder_with_train_alone_is_split_too(tmp_path: Path) -> None:
    paint_whole(tmp_path / "train", {"cat": 12, "dog": 6})
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (15, 3)


def test_the_seed_alone_decides_who_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    paint_whole(first, {"cat": 40, "dog": 40})
    paint_whole(second, {"dog": 40, "cat": 40})
    expected = {seed: values(load(first, seed=seed).test) for seed in (0, 1)}
    assert expected[0] != expected[1]
    for name in ("iterdir", "rglob"):
        listed = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda *a, listed=listed: reversed(list(listed(*a))))
    again = load(first, seed=0)
    assert values(again.test) == expected[0]
    assert values(again.train) == sorted(values(again.train))
    renumbered = {(value + 100) % 200 for value in values(load(second, seed=0).test)}
    assert renumbered == set(expected[0])


def test_a_picture_stays_on_its_side_when_others_come(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"cat": 60, "dog": 60})
    before = set(values(load(tmp_path).test))
    paint(tmp_path / "cat" / "new.png", 99)
    after = set(values(load(tmp_path).test))
    assert len(before - after) <= 1


def test_train_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"train": 6, "bus": 6})
    assert load(tmp_path).classes == ("bus", "train")


# Archives beside other files


def packed(root: Path, name: str, *folders: Path) -> Path:
    """A tar of the files in some folders, each under the name of its own."""
    paths = [(path, folder.parent) for folder in folders for path in folder.rglob("*.*")]
    return write_tar(root / name, {str(path.relative_to(above)): path.read_bytes() for path, above in paths})


def test_an_archive_beside_what_was_unpacked_from_it_is_refused(tmp_path: Path) -> None:
    paint_whole(tmp_path / "v" / "train", {"a": 6, "b": 6})
    path = packed(tmp_path / "v", "train.tar", tmp_path / "v/train/a", tmp_path / "v/train/b")
    text = (
        f"{path}: the folder train/ lies beside it; if it was unpacked there, every example would count twice. "
        "Move one of the two away, or give one alone."
    )
    assert message(lambda: load(tmp_path / "v")) == text
    assert [len(load(tmp_path / "v" / name).train) for name in ("train", "train.tar")] == [10, 10]
    data = load(tmp_path / "v", skip_bad=True)
    assert (data.skipped, len(data.train)) == ((text,), 10)
    assert surveys.survey(tmp_path / "v").unreadable == (text,)


MIXED = "and it may hold them once more. Move it away, or give it alone:"


@pytest.mark.parametrize(("place", "example"), [("", "a/000.png"), ("a", "a/000.png")])
def test_an_archive_beside_examples_is_no_class(tmp_path: Path, place: str, example: str) -> None:
    root = tmp_path / "v"
    paint_whole(root, {"a": 6, "b": 6})
    path = packed(root / place, "backup.tar", root / "a", root / "b")
    text = f"{path}: examples that are not packed lie beside it ({root / example}), {MIXED} {path}"
    assert message(lambda: load(root)) == text
    assert load(path).classes == ("a", "b")
    assert surveys.survey(root).refused == text


@pytest.mark.parametrize(
    ("archives", "folders"),
    [
        (("a.tar", "b.tar"), ()),
        (("train/a.tar", "train/b.tar"), ("test/a", "test/b")),
        (("test.tar",), ("train/a", "train/b")),
    ],
)
def test_archives_may_be_classes_or_parts(tmp_path: Path, archives: tuple[str, ...], folders: tuple[str, ...]) -> None:
    paint_whole(tmp_path / "all", {"a": 6, "b": 6})
    root = tmp_path / "v"
    root.mkdir()
    paint(root / "preview.png", 9)
    for name in folders:
        shutil.copytree(tmp_path / "all" / name[-1], root / name)
    for name in archives:
        chosen = "ab" if name == "test.tar" else name[-5]
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        packed(root, name, *(tmp_path / "all" / one for one in chosen))
    data = load(root)
    assert (data.classes, len(data.train), len(data.test)) == (("a", "b"), *((12, 12) if folders else (10, 2)))


def test_a_broken_archive_among_other_files_refuses_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "d"
    paint_whole(root, {"a": 6, "b": 6})
    (root / "sub").mkdir()
    path = root / "sub" / "old.tar"
    path.write_bytes(b"nonsense")
    broken = f"{path}: it is neither a folder nor a .zip or .tar archive; unpack other archives first."
    assert message(lambda: load(root)) == broken
    path.rename(tmp_path / "old.tar")
    (root / "sub").rmdir()
    (tmp_path / "old.tar").rename(path := root / "old.tar")
    broken = broken.replace("/sub/", "/")
    assert (load(root, skip_bad=True).skipped, surveys.survey(root).unreadable) == ((broken,), (broken,))
    rows = [f"{name}/{number:03}.png,{name}" for name in "ab" for number in range(6)]
    (root / "index.csv").write_text("\n".join(["file,label", *rows]))
    for source in (root, root / "index.csv"):
        for skip_bad in (False, True):
            assert load(source, skip_bad=skip_bad).skipped == ()
        assert surveys.survey(source).unreadable == ()
    (root / "index.csv").write_text("\n".join(["file,label", *rows, "old/1.png,a"]))
    bad = (f"{root / 'index.csv'}, row 13: there is no file 'old/1.png' in {root}.", broken)
    assert load(root / "index.csv", skip_bad=True).skipped == bad
    write_idx_folder(root)
    assert load(root).classes == ("0", "1", "2")


def test_an_index_may_lead_into_an_archive(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"a": 6, "b": 6})
    packed(tmp_path, "all.tar", tmp_path / "a", tmp_path / "b")
    rows = [f"all/{name}/{number:03}.png,{name}" for name in "ab" for number in range(6)]
    (tmp_path / "index.csv").write_text("\n".join(["file,label", *rows]))
    data = load(tmp_path / "index.csv")
    assert (len(data.train), len(data.test), data.skipped) == (10, 2, ())


def test_shards_may_be_given_by_a_path_with_braces(tmp_path: Path) -> None:
    paint_whole(tmp_path / "all", {"a": 6, "b": 6})
    for name in "ab":
        packed(tmp_path, f"{name}.tar", tmp_path / "all" / name)
    assert [len(load(kind(tmp_path / "{a,b}.tar")).train) for kind in (str, Path)] == [10, 10]


@needs_gnu_tar
def test_a_sparse_file_in_an_archive_may_be_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "v" / name).mkdir(parents=True)
        for number in range(3):
            np.save(tmp_path / "v" / name / f"{number}.npy", np.full((4, 4, 4), number, np.float32))
        with (tmp_path / "v" / name / "0.npy").open("r+b") as file:
            file.truncate(1 << 20)
    path = tmp_path / "v.tar"
    subprocess.run(["tar", "-cSf", path, "-C", tmp_path / "v", "a", "b"], check=True)
    bad = tuple(f"{path}: {name}/0.npy: it is stored sparsely; pack it without --sparse." for name in "ab")
    assert message(lambda: load(path)) == f"{path}: 2 of 6 volumes cannot be used. {REPAIR}:\n  {bad[0]}\n  {bad[1]}"
    data = load(path, skip_bad=True)
    assert (data.skipped, len(data.train) + len(data.test)) == (bad, 4)


def test_arrays_may_lie_in_the_one_folder_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "x.npy", np.zeros((12, 3), np.float32))
    np.save(tmp_path / "a" / "y.npy", np.arange(12) % 2)
    path = write_zip(tmp_path / "a.zip", {f"a/{name}.npy": (tmp_path / f"a/{name}.npy").read_bytes() for name in "xy"})
    assert [(load(source).name, len(load(source).train)) for source in (path, tmp_path / "a")] == [("a", 10)] * 2


# Folders that cannot be used


def test_message_for_a_folder_without_classes(tmp_path: Path) -> None:
    assert message(lambda: load(tmp_path)) == f"{tmp_path}: there are no class folders in it. {EXPECTED}"
    paint(tmp_path / "a.png", 1)
    paint(tmp_path / "b.png", 1)
    assert (
        message(lambda: load(tmp_path))
        == f"{tmp_path}: there are no class folders in it, only loose pictures (2). {EXPECTED}"
    )
    paint(tmp_path / "train" / "a.png", 1)
    paint(tmp_path / "test" / "b.png", 1)
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / 'train'}: there are no class folders in it, only loose pictures (1). {EXPECTED}"
    )


def test_message_for_a_test_part_without_classes(tmp_path: Path) -> None:
    paint_split(tmp_path)
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test").mkdir()
    assert message(lambda: load(tmp_path)) == f"{tmp_path / 'test'}: there are no class folders in it. {EXPECTED}"
    (tmp_path / "test" / "cat").mkdir()
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / 'test'}: no pictures in any class folder, so there is nothing to test on."
    )


def test_message_for_a_test_part_alone(tmp_path: Path) -> None:
    paint(tmp_path / "val" / "cat" / "a.png", 1)
    assert message(lambda: load(tmp_path)) == f"{tmp_path}: there is val/ but no train/ to learn from. {EXPECTED}"


def test_message_for_classes_without_pictures(tmp_path: Path) -> None:
    paint_split(tmp_path)
    (tmp_path / "train" / "emu").mkdir()
    (tmp_path / "train" / "bee").mkdir()
    (tmp_path / "train" / "bee" / "a.svg").touch()
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / 'train'}: no pictures in the class folders 'bee', 'emu'. Add some or remove the folders; "
        f"a picture's name ends in {ENDINGS}."
    )


def test_message_for_a_class_that_train_lacks(tmp_path: Path) -> None:
    paint_split(tmp_path)
    paint(tmp_path / "test" / "emu" / "a.png", 1)
    paint(tmp_path / "test" / "bee" / "a.png", 1)
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / 'test'}: {tmp_path / 'train'} has no class folders 'bee', 'emu' to learn them from."
    )


def test_message_for_a_single_class(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"cat": 6})
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: 'cat' is the only class folder; a classifier needs at least 2 classes."
    )


def test_message_for_a_folder_around_the_classes(tmp_path: Path) -> None:
    paint_whole(tmp_path / "pets", {"cat": 6, "dog": 6})
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: 'pets' is the only class folder; a classifier needs at least 2 classes. "
        f"If the folders in it are the classes, give {tmp_path / 'pets'}."
    )


def test_message_for_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert message(lambda: load(tmp_path / "x.npy")) == (
        f"{tmp_path / 'x.npy'}: one array is inputs or targets; give the folder that holds both, x.npy and y.npy."
    )


def test_message_for_a_class_of_one_picture(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"cat": 6, "dog": 1})
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: only one picture in the class folders 'dog'; each class needs at least 2, "
        "one to learn from and one to test on."
    )


def test_message_for_sizes_that_differ(tmp_path: Path) -> None:
    paint_split(tmp_path)
    small, large = tmp_path / "train" / "dog" / "small.png", tmp_path / "test" / "cat" / "large.png"
    paint(small, 1, size=(3, 2))
    paint(large, 1, size=(30, 70))
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: the pictures have 3 sizes, from 3x2 ({small}) to 30x70 ({large}). {ONE_SIZE}"
    )


def test_message_for_a_picture_that_turns_out_to_lie_on_its_side(tmp_path: Path) -> None:
    """A PNG that states its orientation after its pixels, which the header pass cannot know."""
    paint_split(tmp_path)
    path = tmp_path / "train" / "cat" / "1.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 4), 11).save(path, exif=exif)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    end = data.index(b"IEND") - 4
    path.write_bytes(data.replace(chunk, b"")[: end - len(chunk)] + chunk + data[end:])
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: 1 of 7 pictures cannot be used. {REPAIR}:\n  {path}: it is 6x4 once upright. {ONE_SIZE}"
    )


def test_message_lists_all_unreadable_pictures(tmp_path: Path) -> None:
    """One has no header, one stops in the middle of its pixels, one is empty: two passes find them, one message."""
    paint_split(tmp_path)
    cats = tmp_path / "train" / "cat"
    (cats / "a.png").touch()
    (cats / "b.jpg").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    Image.fromarray(noise).save(cats / "c.bmp")
    (cats / "c.bmp").write_bytes((cats / "c.bmp").read_bytes()[:-8])
    for size in (None, (4, 6)):
        assert message(lambda size=size: load(tmp_path, size=size, channels=size and 1)) == (  # type: ignore[misc]
            f"{tmp_path}: 3 of 10 pictures cannot be used. {REPAIR}:\n"
            f"  {cats / 'a.png'}: the file is empty.\n"
            f"  {cats / 'b.jpg'}: no reader of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP recognises it: "
            "it is another kind of file, its header is damaged, or it has no pixels.\n"
            f"  {cats / 'c.bmp'}: it cannot be decoded, because it is damaged or cut short: "
            "image file is truncated (0 bytes not processed)."
        )


@pytest.mark.parametrize("size", [None, (4, 6)])
def test_message_lists_ten_and_counts_the_rest(tmp_path: Path, size: tuple[int, int] | None) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(50):
            (tmp_path / name / f"{i:02}.png").touch()
    lines = message(lambda: load(tmp_path, size=size)).split("\n")
    assert lines[0] == f"{tmp_path}: 100 of 100 pictures cannot be used. {REPAIR}:"
    assert lines[1:-1] == [f"  {tmp_path / 'cat' / f'{i:02}.png'}: the file is empty." for i in range(10)]
    assert lines[-1] == "  and 90 more"


def test_message_for_more_pixels_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*shape: Any, **options: Any) -> None:
        raise MemoryError

    paint_split(tmp_path)
    monkeypatch.setattr(np, "empty", full)
    assert message(lambda: load(tmp_path, size=(8000, 8000))) == (
        f"{tmp_path}: 7 pictures of 1x8000x8000 need 0.4 GB of memory, more than there is. Give a smaller size."
    )


def test_an_error_in_progress_stops_the_reading(tmp_path: Path) -> None:
    paint_whole(tmp_path, {"cat": 40, "dog": 40})

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, progress=stop)


# Real photos


@pytest.mark.skipif(not CLOTHING.is_file(), reason=f"the clothing photos are not at {CLOTHING}")
def test_real_photos(tmp_path: Path) -> None:
    with zipfile.ZipFile(CLOTHING) as archive:
        for folder in ("train/hat/", "train/shoes/", "test/hat/", "test/shoes/"):
            for name in [name for name in archive.namelist() if name.startswith(folder)][:4]:
                archive.extract(name, tmp_path)
    assert message(lambda: load(tmp_path)).endswith(ONE_SIZE)
    data = load(tmp_path, size=(64, 64))
    assert (data.classes, data.shape) == (("hat", "shoes"), (3, 64, 64))
    assert (data.train.targets.tolist(), data.test.targets.tolist()) == ([0] * 4 + [1] * 4,) * 2
    first = images.find(tmp_path / "train" / "hat")[0]
    same(data.train.inputs[0], images.read(first, size=(64, 64)))
    with Image.open(first) as photo:
        whole = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    same(images.read(first), whole)
    standard = Normalisation.of(data.train.inputs)(data.train.inputs)
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(standard.std((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-4)


def test_two_classes_of_one_name_are_refused() -> None:
    part = Split(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2]))
    with pytest.raises(DataError) as caught:
        Dataset("pets", ("cat", "cat", "dog"), part, part)
    assert str(caught.value) == "pets: the class 'cat' is named more than once; each needs its own name."


HELD_OUT = [  # parts of the layout, share asked for, parts that loading chose
    ((), 0.0, ("test",)),
    ((), 0.2, ("validation", "test")),
    (("train", "test"), 0.0, ()),
    (("train", "test"), 0.2, ("validation",)),
    (("train", "validation"), 0.0, ()),
    (("train", "validation"), 0.2, ("validation",)),
    (("train", "validation", "test"), 0.2, ()),
]


@pytest.mark.parametrize(("parts", "share", "chosen"), HELD_OUT)
def test_parts_that_loading_chose_are_told(
    tmp_path: Path, parts: tuple[str, ...], share: float, chosen: tuple[str, ...]
) -> None:
    for part in parts or ("",):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(8):
                picture = torch.full((1, 4, 4), number, dtype=torch.uint8)
                images.to_pillow(picture).save(tmp_path / part / label / f"{number}.png")
    assert set(load(tmp_path, validation=share).held_out) == set(chosen)
