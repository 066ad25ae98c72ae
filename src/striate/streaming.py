"""Streaming: batches of stored inputs, decoded ahead by worker processes; the same batches for any number of them."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .errors import DataError
from .splits import Split, Stored

AHEAD = 4  # batches that each worker decodes before they are asked for

Pair = tuple[Tensor, Tensor]


def batches(
    split: Split | Stored, index_batches: Iterable[Sequence[int] | Tensor], *, workers: int = 0, pin: bool = False
) -> Iterator[Pair]:
    """The inputs and targets of each list of indices, in order.

    Each batch is the same whoever decodes it: workers only change when. They are processes with one thread each,
    which end when the iterator does, or their parent.

    Args:
        split: In memory, or stored.
        index_batches: The indices of each batch.
        workers: Processes that decode a stored split; 0 decodes in threads of this one.
        pin: Put batches into pinned memory, from which a GPU fetches them while it computes.

    Raises:
        DataError: A file cannot be read (the message names it), or a worker died.

    >>> split = Split(torch.arange(4, dtype=torch.uint8).view(4, 1, 1), torch.tensor([0, 1, 0, 1]))
    >>> [targets.tolist() for _, targets in batches(split, [[3, 0], [2]])]
    [[1, 0], [0]]
    """
    if isinstance(split, Split) or workers == 0:
        for indices in index_batches:
            inputs, targets = split.take(indices)
            yield (inputs.pin_memory(), targets.pin_memory()) if pin else (inputs, targets)
        return
    yield from _by_workers(split, [[int(i) for i in indices] for indices in index_batches], workers, pin)


class _Decoded(Dataset[Pair]):
    """A stored split, as PyTorch's loader asks for it; a failure is handed over as a value, with its message whole."""

    def __init__(self, split: Stored) -> None:
        self.split = split

    def __getitems__(self, indices: list[int]) -> Pair | DataError:
        try:
            return self.split.take(indices, threads=1)
        except DataError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _unconcerned(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal, and the first one decides; SIGTERM ends a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _by_workers(split: Stored, index_batches: list[list[int]], workers: int, pin: bool) -> Iterator[Pair]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
        loader: DataLoader[Any] = DataLoader(
            _Decoded(split),
            batch_sampler=index_batches,
            num_workers=min(workers, max(1, len(index_batches))),
            collate_fn=_as_it_is,
            prefetch_factor=AHEAD,
            pin_memory=pin,
            worker_init_fn=_unconcerned,
            generator=torch.Generator(),  # its own, so that the caller's random numbers do not depend on workers
        )
        found = iter(loader)
    for _ in index_batches:
        try:
            batch = next(found)
        except RuntimeError as error:  # PyTorch's own, of a worker that was killed
            raise DataError(
                f"a worker process stopped without a word ({str(error).splitlines()[0]}); "
                "if it ran out of memory, fewer workers or a smaller batch_size need less."
            ) from None
        if isinstance(batch, DataError):
            del found  # ends the workers now, not when the last trace of the error is gone
            raise batch
        yield batch
