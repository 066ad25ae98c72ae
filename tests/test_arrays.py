"""Arrays: NPZ and NPY files come back whatever their names, and axes that could mean two things are asked about."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from striate.datasets import Dataset, load, read_idx
from striate.errors import DataError, OptionError

from .test_storage import write_zip
from .test_volumes import npy

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = np.arange(12) % 2


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


def write(root: Path, way: str, **arrays: Any) -> Path:
    if way == "npz":
        np.savez_compressed(root / "a.npz", **arrays)
        return root / "a.npz"
    folder = root / "a"
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    if way == "zip":
        return write_zip(root / "a.zip", {path.name: path.read_bytes() for path in folder.iterdir()})
    return folder


@pytest.mark.parametrize("way", ["npz", "folder", "zip"])
@pytest.mark.parametrize(
    ("inputs", "targets"), [("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("inputs_{}", "targets_{}")]
)
def test_arrays_come_back_under_all_their_names(tmp_path: Path, way: str, inputs: str, targets: str) -> None:
    """Such as the mnist.npz of Keras: x_train, y_train, x_test, y_test."""
    named = {
        name.format(part): array for part in ("train", "test") for name, array in ((inputs, BYTES), (targets, LABELS))
    }
    data = load(write(tmp_path, way, **named))
    assert (data.name, data.classes, data.shape) == ("a", ("0", "1"), (1, 5, 4))
    for split in (data.train, data.test):
        assert torch.equal(split.inputs, torch.from_numpy(BYTES)[:, None])
        assert split.targets.tolist() == LABELS.tolist()
    assert data.reader is not None
    assert (data.reader.kind, data.reader.shape) == ("picture", (1, 5, 4))


def test_what_is_not_split_is_split_by_class(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], [60, 30])
    inputs = np.arange(90, dtype=np.float32)[:, None] + np.zeros((90, 7), np.float32)
    path = write(tmp_path, "npz", x=inputs, y=labels)
    data = load(path, validation=0.1)
    assert data.validation is not None
    parts = (data.train, data.validation, data.test)
    assert [part.targets.bincount().tolist() for part in parts] == [[45, 23], [5, 2], [10, 5]]
    everything = torch.cat([part.inputs[:, 0, 0] for part in parts])
    assert sorted(everything.tolist()) == list(range(90))
    assert load(path).test.inputs.tolist() == data.test.inputs.tolist()
    assert load(path, seed=1).test.inputs.tolist() != data.test.inputs.tolist()
    assert (data.shape, data.reader and data.reader.kind) == ((1, 7), "series")


def axes(shape: tuple[int, ...], dtype: str = "uint8", name: str = "x", **options: Any) -> Callable[[Path], Dataset]:
    return lambda root: load(write(root, "npz", **{name: np.zeros((12, *shape), dtype), "y": LABELS}), **options)


@pytest.mark.parametrize(
    ("work", "shape"),
    [
        (axes((9,), "float64"), (1, 9)),
        (axes((8, 6)), (1, 8, 6)),
        (axes((8, 6), "float32", "images"), (1, 8, 6)),
        (axes((8, 6), "float32", "signals"), (8, 6)),
        (axes((8, 6), "uint8", "signals"), (8, 6)),
        (axes((8, 6, 3)), (3, 8, 6)),
        (axes((3, 8, 6)), (3, 8, 6)),
        (axes((8, 6, 13), "float32", channels=13), (13, 8, 6)),
        (axes((4, 5, 6), "int16", "volumes"), (1, 4, 5, 6)),
        (axes((8, 5, 6, 1), "int16"), (1, 8, 5, 6)),
        (axes((8, 6, 3), channels=1, size=(4, 4)), (1, 4, 4)),
        (axes((8, 6), channels=3), (3, 8, 6)),
        (axes((9,), "float32", size=(5,)), (1, 5)),
    ],
)
def test_axes_are_told_where_they_can_be(
    tmp_path: Path, work: Callable[[Path], Dataset], shape: tuple[int, ...]
) -> None:
    assert work(tmp_path).shape == shape


def test_channels_last_keep_their_values(tmp_path: Path) -> None:
    array = RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    data = load(write(tmp_path, "npz", x_train=array, y_train=LABELS, x_test=array, y_test=LABELS))
    assert torch.equal(data.train.inputs, torch.from_numpy(array).permute(0, 3, 1, 2))


def test_targets_may_be_masks(tmp_path: Path) -> None:
    masks = (BYTES > 128).astype(np.int64)
    masks[0, 0, 0] = 255
    data = load(write(tmp_path, "npz", x_train=BYTES, y_train=masks, x_test=BYTES, y_test=masks))
    assert (data.task, data.classes) == ("masks", ("0", "1"))
    assert torch.equal(data.train.targets, torch.from_numpy(masks.astype(np.uint8)))


def test_one_hot_targets_are_no_masks(tmp_path: Path) -> None:
    """They fit inputs (N, T) of as many positions as there are classes."""
    path = write(tmp_path, "npz", x=RANDOM.random((12, 2), np.float32), y=np.eye(2, dtype=np.int64)[LABELS % 2])
    assert message(lambda: load(path)) == (
        f"{path}: y.npy: each row of 12x2 holds a single 1, so it could be classes (one-hot) or masks. "
        "Save classes as numbers, y.argmax(1); call masks 'masks'."
    )
    peaks = np.eye(2, dtype=np.uint8)[LABELS % 2]
    assert load(write(tmp_path, "npz", x=RANDOM.random((12, 2), np.float32), masks=peaks)).task == "masks"


def test_numbers_that_count_no_classes_are_refused(tmp_path: Path) -> None:
    """Their names alone would take gigabytes."""
    path = write(tmp_path, "npz", x=BYTES, y=LABELS + 10**9)
    assert message(lambda: load(path)) == (
        f"{path}: the highest class is {int(LABELS.max()) + 10**9:,}, and there are only {len(LABELS)} targets. "
        "Classes count from 0; give names (texts) in place of numbers, or list all classes in classes.txt."
    )


def test_an_idx_file_that_declares_more_than_fits_is_refused_unread() -> None:
    header = bytes([0, 0, 8, 3]) + (10**5).to_bytes(4, "big") * 3
    assert message(lambda: read_idx(gzip.compress(header + bytes(1 << 20)), 3)).startswith(
        "the bytes given: its header declares 100000x100000x100000 = 1,000,000,000,000,000 bytes; at most "
    )


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path) -> None:
    masks = (BYTES > 128).astype(np.uint8)
    data = load(write(tmp_path, "npz", x_train=BYTES, y_train=masks * 255, x_test=BYTES, y_test=masks * 255))
    assert data.classes == ("0", "1")
    assert torch.equal(data.train.targets, torch.from_numpy(masks))
    path = write(tmp_path, "npz", x_train=BYTES, y_train=masks, x_test=BYTES, y_test=masks * 255)
    assert message(lambda: load(path)) == (
        f"{path}: 255 lies beside nothing but 0 in 12 of 12 masks with it, as a class does, and would be ignored "
        "because train[0] holds 1. Write the numbers of classes into all masks; or, if 255 is to be ignored, name the "
        "classes in a file classes.txt."
    )


def test_classes_may_be_texts(tmp_path: Path) -> None:
    names = np.array(["dog", "cat", "café"] * 4)
    data = load(write(tmp_path, "npz", x_train=BYTES, y_train=names, x_test=BYTES[:3], y_test=names[:3, None]))
    assert data.classes == ("café", "cat", "dog")
    assert (data.train.targets.tolist(), data.test.targets.tolist()) == ([2, 1, 0] * 4, [2, 1, 0])


def test_classes_may_be_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "folder", x=BYTES, y=LABELS)
    (folder / "classes.txt").write_text("cat\ndog\n")
    assert load(folder).classes == ("cat", "dog")
    np.save(folder / "y.npy", LABELS + 1)
    assert message(lambda: load(folder)) == (
        f"{folder}: label 2 of input 1 (of 12, counted from 0) is out of range: there are 2 classes, 0 to 1."
    )


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"x": BYTES.astype(np.float32), "y": LABELS},
        (
            ": x.npy: it is 12x5x4, which could be signals of 5 channels or grey pictures. "
            "Call the array 'signals' or 'images'."
        ),
    ),
    (
        {"x": np.zeros((12, 3, 8, 3), np.uint8), "y": LABELS},
        (
            ": x.npy: it is 12x3x8x3, and of its second and last axes both could be the channels (1, 3, 4). "
            "Say how many there are: --channels on the command line, channels in Python; or save it channels first."
        ),
    ),
    (
        {"x": np.zeros((12, 8, 8, 8), np.uint8), "y": LABELS},
        (
            ": x.npy: it is 12x8x8x8, and of its second and last axes neither is the channels (1, 3, 4). "
            "Say how many there are: --channels on the command line, channels in Python; or save it channels first."
        ),
    ),
    ({"x": np.zeros(12), "y": LABELS}, ": x.npy: it is 12; expected inputs of 1 to 3 axes, (N, C, *spatial)."),
    ({"x": BYTES[:5], "y": LABELS}, ": x.npy holds 5 inputs, but {path}: y.npy holds 12 targets."),
    (
        {"x": BYTES, "y": LABELS.astype(np.float32)},
        ": y.npy: it is 12 float32; expected whole numbers, 12 classes or masks of 12x5x4.",
    ),
    (
        {"x": BYTES, "y": LABELS[:, None] * np.ones(3, int)},
        ": y.npy: it is 12x3 int64; expected whole numbers, 12 classes or masks of 12x5x4.",
    ),
    ({"x": BYTES, "y": BYTES.astype(int) - 9}, ": y.npy: the masks hold -9 to 246; expected 0 to 255."),
    (
        {"images": BYTES, "data": BYTES, "labels": LABELS},
        ": data.npy and images.npy could each be the inputs; keep one.",
    ),
    (
        {"images": BYTES, "labels": LABELS, "masks": BYTES},
        ": labels.npy and masks.npy could each be the targets; keep one.",
    ),
    (
        {"x": BYTES, "y": LABELS, "x_train": BYTES, "y_train": LABELS},
        ": x_train.npy says its part by its name, and x.npy does not; keep arrays of one sort.",
    ),
    ({"x": BYTES, "y": np.array([b"a"] * 12)}, ": y.npy: it holds bytes8 values; expected numbers."),
    (
        {"x_train": BYTES, "y_train": LABELS, "x_test": BYTES, "y_validation": LABELS},
        ": inputs and targets must come in pairs, and the part test, validation has only one.",
    ),
    (
        {"x": np.array([{}] * 12), "y": LABELS},
        ": x.npy: it holds object values; expected numbers. Python objects are never unpickled.",
    ),
]


@pytest.mark.parametrize(("arrays", "text"), BAD)
def test_message_for_arrays_that_cannot_be_used(tmp_path: Path, arrays: dict[str, Any], text: str) -> None:
    path = write(tmp_path, "npz", **arrays)
    low = str(BYTES.astype(int).min() - 9), str(BYTES.astype(int).max() - 9)
    assert message(lambda: load(path)) == f"{path}{text}".replace("{path}", str(path)).replace(
        "-9 to 246", " to ".join(low)
    )


def test_an_npz_bomb_is_refused(tmp_path: Path) -> None:
    """A header that declares terabytes in a small member."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 999, 999)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", file.getvalue() + bytes(100))
        archive.writestr("y.npy", npy(LABELS))
    assert message(lambda: load(tmp_path / "a.npz")) == (
        f"{tmp_path / 'a.npz'}: x.npy: its header declares 10000000x999x999 uint8 = 9,980,010,000,000 bytes; "
        "100 follow."
    )


def test_messages_for_what_arrays_cannot_become(tmp_path: Path) -> None:
    path = write(tmp_path, "npz", x=np.zeros((12, 7), np.float32), y=LABELS)
    assert message(lambda: load(path, channels=2)) == f"{path}: its inputs have 1 channels; channels=2 was asked for."
    path = write(tmp_path, "npz", images=np.zeros((12, 7, 7), np.float32), y=LABELS)
    assert message(lambda: load(path, size=(4, 4))) == (
        f"{path}: its inputs are 1x7x7 torch.float32; only uint8 pictures are scaled."
    )
    path = write(tmp_path, "npz", x=BYTES, y=(BYTES > 99).astype(np.uint8))
    assert (
        message(lambda: load(path, size=(4, 4))) == f"{path}: its inputs are 1x5x4; arrays with masks keep their size."
    )


def test_every_class_of_arrays_can_be_learned(tmp_path: Path) -> None:
    path = write(tmp_path, "npz", x=BYTES, y=[0, 1] * 5 + [1, 2])
    assert message(lambda: load(path)) == (
        f"{path}: only one example in the classes '2'; each class needs at least 2, one to learn from and one to test "
        "on."
    )
    path = write(tmp_path, "npz", x_train=BYTES, y_train=LABELS, x_test=BYTES, y_test=LABELS * 7)
    assert message(lambda: load(path)) == (
        f"{path}: the classes '7' are not in the training part, so nothing can learn them."
    )
    path = write(tmp_path, "npz", x=BYTES, y=[0] * 9 + [1] * 3)
    data = load(path, validation=0.9)
    assert data.validation is not None
    parts = (data.train, data.validation, data.test)
    assert [part.targets.bincount().tolist() for part in parts] == [[1, 1], [7, 1], [1, 1]]


@pytest.mark.parametrize("way", ["npz", "folder"])
@pytest.mark.parametrize("second", ["b", "x"])
def test_arrays_of_other_names_are_named(tmp_path: Path, way: str, second: str) -> None:
    path = write(tmp_path, way, a=BYTES, **{second: LABELS})
    assert message(lambda: load(path)) == (
        f"{path}: its arrays are called a, {second}; call the inputs x (or images, inputs, data, signals, volumes) and "
        "their targets y (or labels, label, targets, masks), each with its part if they are split: x_train, y_train, "
        "x_test, y_test. Files of one volume each belong into a folder for each class."
    )


def test_arrays_are_not_streamed(tmp_path: Path) -> None:
    path = write(tmp_path, "npz", x=BYTES, y=LABELS)
    with pytest.raises(OptionError) as caught:
        load(path, stream=True)
    assert str(caught.value) == f"{path}: stream=True is for data sets of files; arrays are read into memory."
