"""Splits: what is taken is what was put in, from memory and from files, in the order that was asked for."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from striate.errors import DataError
from striate.members import Entry, entry
from striate.readers import Reader
from striate.splits import MaskReader, Split, Stored, each, label_tensor


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


def blank(count: int, side: int = 4) -> Tensor:
    return torch.zeros(count, 1, side, side, dtype=torch.uint8)


INPUTS = "Inputs are a uint8, int16 or float32 tensor (N, C, *spatial) with nothing zero-sized, got"
BAD_SPLITS = [
    (torch.zeros(2, 1, 4, dtype=torch.float64), torch.zeros(2).long(), f"{INPUTS} torch.float64 (2, 1, 4)."),
    (blank(2)[:, 0, 0], torch.zeros(2).long(), f"{INPUTS} torch.uint8 (2, 4)."),
    (blank(0), torch.zeros(0).long(), f"{INPUTS} torch.uint8 (0, 1, 4, 4)."),
    (
        blank(2),
        torch.zeros(3).long(),
        "The labels of 2 inputs are an int64 tensor (2,), got torch.int64 (3,).",
    ),
    (blank(2), torch.zeros(2), "The labels of 2 inputs are an int64 tensor (2,), got torch.float32 (2,)."),
    (
        blank(2),
        blank(2)[:, 0, :3],
        "The masks of 2 inputs are a uint8 tensor (2, 4, 4), got torch.uint8 (2, 3, 4).",
    ),
]


@pytest.mark.parametrize(("inputs", "targets", "text"), BAD_SPLITS)
def test_message_for_a_split_that_is_none(inputs: Tensor, targets: Tensor, text: str) -> None:
    assert message(lambda: Split(inputs, targets)) == text


@pytest.mark.parametrize(
    ("shape", "dtype", "text"),
    [
        ((3, 2, 100), torch.int16, "3 signals of 2x100"),
        ((1, 3, 8, 8), torch.uint8, "1 picture of 3x8x8"),
        ((2, 1, 4, 4, 4), torch.float32, "2 volumes of 1x4x4x4"),
        ((2, 1, 4, 4, 4, 4), torch.float32, "2 inputs of 1x4x4x4x4"),
    ],
)
def test_a_split_says_what_it_holds(shape: tuple[int, ...], dtype: torch.dtype, text: str) -> None:
    split = Split(torch.zeros(shape, dtype=dtype), torch.zeros(shape[0], dtype=torch.int64))
    assert (repr(split), split.shape, split.dtype) == (f"Split({text})", shape[1:], dtype)


def test_indices_keep_their_order() -> None:
    split = Split(torch.arange(5, dtype=torch.int16).view(5, 1, 1), torch.tensor([4, 3, 2, 1, 0]))
    for indices in ([3, 0, 3], torch.tensor([3, 0, 3])):
        inputs, targets = split.take(indices)
        assert (inputs.flatten().tolist(), targets.tolist()) == ([3, 0, 3], [1, 4, 1])
    assert split.select([1]).targets.tolist() == [3]


def test_digests_differ_with_what_is_held() -> None:
    first = Split(blank(2), torch.tensor([0, 1]))
    assert first.digest() == Split(blank(2), torch.tensor([0, 1])).digest()
    assert first.digest() != Split(blank(2), torch.tensor([1, 1])).digest()
    assert first.digest() != Split(blank(2) + 1, torch.tensor([0, 1])).digest()


# Stored


def painted(folder: Path, values: list[int], mode: str = "L") -> tuple[Entry, ...]:
    folder.mkdir(exist_ok=True)
    for number, value in enumerate(values):
        Image.new(mode, (6, 4), value).save(folder / f"{number:02}.png")
    return tuple(entry(folder / f"{number:02}.png") for number in range(len(values)))


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """Twenty pictures, each of one value, ten times its number; the label is the number."""
    files = painted(tmp_path / "images", [10 * i for i in range(20)])
    return Stored(files, label_tensor(range(20)), Reader("picture", (1, 2, 3)))


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_stored_inputs_are_decoded_in_order(stored: Stored, threads: int | None) -> None:
    indices = [19, 0, 7, 7, *range(12)]
    inputs, targets = stored.take(indices, threads)
    assert (tuple(inputs.shape), inputs.dtype) == ((16, 1, 2, 3), torch.uint8)
    assert inputs[:, 0, 0, 0].tolist() == [10 * index for index in indices]
    assert targets.tolist() == indices
    assert (repr(stored), len(stored), stored.shape) == ("Stored(20 pictures of 1x2x3)", 20, (1, 2, 3))
    again = pickle.loads(pickle.dumps(stored))
    assert torch.equal(again.take(indices)[0], inputs)
    part = stored.select([3, 1])
    assert (part.take([0, 1])[1].tolist(), part.targets.tolist()) == ([3, 1], [3, 1])


def test_the_digest_of_stored_inputs_is_that_of_names_sizes_and_labels(stored: Stored, tmp_path: Path) -> None:
    before = stored.digest()
    assert before == pickle.loads(pickle.dumps(stored)).digest()
    assert before != stored.select(range(19)).digest()
    assert before != Stored(stored.sources, label_tensor(reversed(range(20))), stored.reader).digest()
    with (tmp_path / "images" / "03.png").open("ab") as file:
        file.write(b"more")
    assert before != stored.digest()
    (tmp_path / "images" / "03.png").unlink()
    with pytest.raises(DataError) as caught:
        stored.digest()
    assert str(caught.value) == f"{tmp_path / 'images' / '03.png'}: it cannot be opened: No such file or directory."


def test_masks_are_decoded_with_their_pictures(tmp_path: Path) -> None:
    images = painted(tmp_path / "images", [50, 60])
    masks = painted(tmp_path / "masks", [2, 255])
    reader = Reader("picture", (1, 4, 6))
    split = Stored(images, masks, reader, MaskReader((4, 6), classes=3))
    inputs, targets = split.take([1, 0])
    assert (inputs[:, 0, 0, 0].tolist(), targets[:, 0, 0].tolist()) == ([60, 50], [255, 2])
    assert (targets.dtype, tuple(targets.shape)) == (torch.uint8, (2, 4, 6))
    assert split.select([1]).take([0])[1].unique().tolist() == [255]
    few = Stored(images, masks, reader, MaskReader((4, 6), classes=2))
    assert message(lambda: few.take([0])) == (
        f"{masks[0]}: the mask's value 2 is out of range: there are 2 classes, 0 to 1, and 255 is ignored."
    )
    doubled = Stored(images, masks, reader, MaskReader((4, 6), classes=2, doubled=True))
    assert doubled.take([1])[1].unique().tolist() == [1]
    assert message(lambda: split.targets) == (
        "the targets are masks in files, which are decoded a batch at a time; use take."
    )
    assert message(lambda: Stored(images, masks, reader).take([0])) == f"{masks[0]}: nothing says how masks are read."


def test_messages_of_stored_splits(stored: Stored) -> None:
    assert message(lambda: stored.inputs) == (
        "the inputs stay in their files and are decoded a batch at a time; use take."
    )
    assert message(lambda: Stored(stored.sources, label_tensor([1]), stored.reader)) == (
        "20 inputs have 1 targets; expected one for each."
    )
    Path(str(stored.sources[4])).write_bytes(b"")
    assert message(lambda: stored.take([3, 4, 5])) == f"{stored.sources[4]}: the file is empty."


def test_each_outcome_stays_in_its_place() -> None:
    def work(number: int) -> int:
        if number % 3 == 0:
            raise DataError(f"no {number}")
        return number

    seen: list[tuple[int, int, str]] = []
    for threads in (1, 4):
        found = each(work, range(100), threads, lambda *state: seen.append(state), "working")
        assert [str(one) for one in found] == [f"no {n}" if n % 3 == 0 else str(n) for n in range(100)]
    assert seen == [(done, 100, "working") for done in (32, 64, 96, 100)] * 2


def test_threads_share_small_batches() -> None:
    barrier = threading.Barrier(4, timeout=10)
    assert len(each(lambda _: barrier.wait(), range(4), threads=4)) == 4
