"""Streaming: any number of workers gives the same batches, a failure names its file, and randomness stays outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from striate.errors import DataError
from striate.members import entry
from striate.readers import Reader
from striate.splits import Split, Stored, label_tensor
from striate.streaming import batches

ORDER = [[5, 3, 11], [0, 0], [7, 8, 9, 10], [1], [2, 4, 6]]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    for number in range(12):
        Image.new("L", (6, 4), 20 * number).save(tmp_path / f"{number:02}.png")
    files = tuple(entry(tmp_path / f"{number:02}.png") for number in range(12))
    return Stored(files, label_tensor(range(12)), Reader("picture", (1, 4, 6)))


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_number_of_workers_gives_the_same_batches(stored: Stored, workers: int) -> None:
    before = torch.get_rng_state()
    found = list(batches(stored, map(torch.tensor, ORDER), workers=workers))
    assert [targets.tolist() for _, targets in found] == ORDER
    assert [(inputs[:, 0, 0, 0] // 20).tolist() for inputs, _ in found] == ORDER
    assert torch.equal(torch.get_rng_state(), before)


def test_a_split_in_memory_needs_no_workers() -> None:
    split = Split(torch.arange(12, dtype=torch.uint8).view(12, 1, 1), torch.arange(12))
    assert [targets.tolist() for _, targets in batches(split, ORDER, workers=3)] == ORDER


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_names_the_file(stored: Stored, workers: int) -> None:
    Path(str(stored.sources[9])).write_bytes(b"")
    found = batches(stored, ORDER, workers=workers)
    assert next(found)[1].tolist() == ORDER[0]
    next(found)
    assert message(lambda: next(found)) == f"{stored.sources[9]}: the file is empty."


class Deadly(Stored):
    """Its worker stops without a word."""

    def take(self, indices: object, threads: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        os._exit(3)


def test_message_for_a_worker_that_dies(stored: Stored) -> None:
    deadly = Deadly(stored.sources, stored.labels, stored.reader)
    found = message(lambda: list(batches(deadly, ORDER, workers=1)))
    assert found.startswith("a worker process stopped without a word (DataLoader worker (pid")
    assert found.endswith("); if it ran out of memory, fewer workers or a smaller batch_size need less.")


def test_workers_take_one_thread_and_end_with_the_iterator(stored: Stored) -> None:
    class Counting(Stored):
        def take(self, indices: object, threads: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([torch.get_num_threads(), threads or 0, os.getpid()]), torch.zeros(1)

    found = batches(Counting(stored.sources, stored.labels, stored.reader), [[0], [1]], workers=1)
    threads, inside, pid = next(found)[0].tolist()
    assert (threads, inside) == (1, 1)
    assert pid != os.getpid()
    found.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
