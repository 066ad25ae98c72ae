"""Splits: the inputs and targets of one part of a data set, in memory or decoded from files when asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from . import images
from .errors import DataError
from .members import Entry, naming
from .readers import TYPES, Reader, by, counted

IGNORED = 255
"""The value of a mask's pixels that belong to no class."""

CHUNK = 32
NOUNS = {1: "signal", 2: "picture", 3: "volume"}

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Inputs and their targets, in memory.

    Args:
        inputs: uint8, int16 or float32 ``(N, C, *spatial)``.
        targets: Classes, int64 ``(N,)``; or masks, uint8 ``(N, *spatial)``, in which 255 is ignored.

    Raises:
        DataError: The tensors have other types or shapes.

    >>> Split(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    Split(5 pictures of 1x8x8)
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        check_inputs(self.inputs)
        if self.targets.dtype == torch.uint8:
            wanted, what = (len(self.inputs), *self.inputs.shape[2:]), "masks"
        else:
            wanted, what = (len(self.inputs),), "labels"
        if self.targets.dtype not in (torch.uint8, torch.int64) or self.targets.shape != wanted:
            kind = "a uint8" if what == "masks" else "an int64"
            raise DataError(
                f"The {what} of {len(self.inputs):,} inputs are {kind} tensor {wanted}, "
                f"got {self.targets.dtype} {tuple(self.targets.shape)}."
            )

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"Split({self.summary})"

    @property
    def summary(self) -> str:
        """Its count and shape, in words."""
        return summary(len(self), self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of every input."""
        return tuple(self.inputs.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """The type of the inputs."""
        return self.inputs.dtype

    def take(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets at these indices, in their order."""
        where = torch.as_tensor(indices, dtype=torch.int64, device=self.inputs.device)
        return self.inputs[where], self.targets[where]

    def select(self, indices: Sequence[int] | Tensor) -> Split:
        """The part with these indices."""
        return Split(*self.take(indices))

    def digest(self) -> str:
        """A hash of the inputs and targets."""
        found = sha256(self.inputs.contiguous().cpu().numpy().data)
        found.update(self.targets.contiguous().cpu().numpy().data)
        return found.hexdigest()


@dataclass(frozen=True)
class MaskReader:
    """How one file becomes one mask.

    Args:
        size: ``(H, W)``.
        classes: How many there are.
        doubled: Whether 255 means class 1: in masks of which the only values are 0 and 255.
    """

    size: tuple[int, int]
    classes: int
    doubled: bool = False

    def read(self, source: Entry) -> Tensor:
        """The mask, uint8 ``(H, W)``.

        Raises:
            DataError: The file cannot be read, or a value names no class.
        """
        mask = images.read_mask(source, size=self.size)
        if self.doubled:
            mask = mask.clamp(max=1) if bool(((mask == 0) | (mask == 255)).all()) else mask
        wrong = mask[(mask >= self.classes) & (mask != IGNORED)]
        if len(wrong):
            raise DataError(
                f"{source}: the mask's value {int(wrong[0])} is out of range: there are {self.classes} classes, "
                f"0 to {self.classes - 1}, and {IGNORED} is ignored."
            )
        return mask


@dataclass(frozen=True, eq=False, repr=False)
class Stored:
    """Inputs and their targets, decoded from files when asked; it can be sent to worker processes.

    Args:
        sources: The inputs' files.
        labels: Their classes, int64 ``(N,)``; or the files of their masks.
        reader: How a file becomes an input.
        masks: How a file becomes a mask.

    Raises:
        DataError: The numbers of sources and labels differ, or there are none.
    """

    sources: tuple[Entry, ...]
    labels: Tensor | tuple[Entry, ...]
    reader: Reader
    masks: MaskReader | None = None

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.labels) or not self.sources:
            raise DataError(f"{len(self.sources):,} inputs have {len(self.labels):,} targets; expected one for each.")

    def __len__(self) -> int:
        return len(self.sources)

    def __repr__(self) -> str:
        return f"Stored({self.summary})"

    @property
    def summary(self) -> str:
        """Its count and shape, in words."""
        return summary(len(self), self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of every input."""
        return self.reader.shape

    @property
    def dtype(self) -> torch.dtype:
        """The type of the inputs."""
        return self.reader.torch_dtype

    @property
    def inputs(self) -> Tensor:
        """What only a split in memory has.

        Raises:
            DataError: Always: the inputs stay in their files, and :meth:`take` decodes them.
        """
        raise DataError("the inputs stay in their files and are decoded a batch at a time; use take.")

    @property
    def targets(self) -> Tensor:
        """The classes, int64 ``(N,)``.

        Raises:
            DataError: The targets are masks, which :meth:`take` decodes.
        """
        if not isinstance(self.labels, Tensor):
            raise DataError("the targets are masks in files, which are decoded a batch at a time; use take.")
        return self.labels

    def take(self, indices: Sequence[int] | Tensor, threads: int | None = None) -> tuple[Tensor, Tensor]:
        """Inputs and targets at these indices, in their order, decoded by a few threads.

        Raises:
            DataError: A file cannot be read; the message names it.
        """
        chosen = [int(index) for index in indices]
        pairs = each(self._one, chosen, threads)
        inputs = torch.empty((len(chosen), *self.shape), dtype=self.dtype)
        targets = torch.empty((len(chosen), *(self.masks.size if self.masks else ())), dtype=self._target_dtype)
        for place, pair in enumerate(pairs):
            if isinstance(pair, DataError):
                raise pair
            inputs[place], targets[place] = pair
        return inputs, targets

    @property
    def _target_dtype(self) -> torch.dtype:
        return torch.uint8 if self.masks else torch.int64

    def _one(self, index: int) -> tuple[Tensor, Tensor]:
        found, label = self.reader.read(self.sources[index]), self.labels[index]
        if isinstance(label, Tensor):
            return found, label
        if self.masks is None:
            raise DataError(f"{label}: nothing says how masks are read.")
        return found, self.masks.read(label)

    def select(self, indices: Sequence[int] | Tensor) -> Stored:
        """The part with these indices."""
        chosen = [int(index) for index in indices]
        labels = self.labels[chosen] if isinstance(self.labels, Tensor) else tuple(self.labels[i] for i in chosen)
        return Stored(tuple(self.sources[i] for i in chosen), labels, self.reader, self.masks)

    def digest(self) -> str:
        """A hash of the names and sizes of the files, and of the classes; what the files hold is not read.

        Raises:
            DataError: A file is gone.
        """
        found = sha256(repr(self.reader).encode())
        files = [*self.sources, *(() if isinstance(self.labels, Tensor) else self.labels)]
        for file in files:
            with naming(file):
                found.update(f"{file.name}\0{file.size}\0".encode(errors="surrogateescape"))
        if isinstance(self.labels, Tensor):
            found.update(self.labels.contiguous().numpy().data)
        return found.hexdigest()


def summary(count: int, shape: Sequence[int]) -> str:
    """How many inputs of which shape, in words.

    >>> summary(1, (1, 8000)), summary(2000, (3, 32, 32))
    ('1 signal of 1x8000', '2,000 pictures of 3x32x32')
    """
    return f"{counted(count, NOUNS.get(len(shape) - 1, 'input'))} of {by(shape)}"


def check_inputs(inputs: Tensor) -> None:
    """Raise a :class:`DataError` unless the tensor is uint8, int16 or float32 ``(N, C, *spatial)``, and not empty.

    >>> check_inputs(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    """
    if inputs.dtype not in TYPES.values() or inputs.dim() < 3 or not inputs.numel():
        raise DataError(
            "Inputs are a uint8, int16 or float32 tensor (N, C, *spatial) with nothing zero-sized, "
            f"got {inputs.dtype} {tuple(inputs.shape)}."
        )


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int | None = None,
    report: Progress | None = None,
    what: str = "",
) -> list[Result | DataError]:
    """The outcome of each item, in order, worked out by a few threads (Pillow decodes without holding the GIL).

    Args:
        work: What a :class:`DataError` may come out of.
        items: What it is done to.
        threads: How many; None is one for each core, 8 at most.
        report: Called with ``(done, total, what)``.
        what: What is being done.

    >>> each(lambda n: n * n, [1, 2, 3])
    [1, 4, 9]
    """

    def outcome(item: Item) -> Result | DataError:
        try:
            return work(item)
        except DataError as error:
            return error

    count = min(8, os.cpu_count() or 1) if threads is None else threads
    if count <= 1 or len(items) <= 1:
        outcomes = []
        for item in items:
            outcomes.append(outcome(item))
            if report is not None and (len(outcomes) % CHUNK == 0 or len(outcomes) == len(items)):
                report(len(outcomes), len(items), what)
        return outcomes
    return _each_threaded(outcome, items, count, report, what)


def _each_threaded(
    outcome: Callable[[Item], Result | DataError], items: Sequence[Item], count: int, report: Progress | None, what: str
) -> list[Result | DataError]:
    step = CHUNK if report is not None else max(1, min(CHUNK, len(items) // count))
    chunks = [items[i : i + step] for i in range(0, len(items), step)]
    outcomes: list[Result | DataError] = []
    pool = ThreadPoolExecutor(max_workers=count)
    try:
        for results in pool.map(lambda chunk: [outcome(item) for item in chunk], chunks):
            outcomes += results
            if report is not None:
                report(len(outcomes), len(items), what)
    finally:
        pool.shutdown(cancel_futures=True)
    return outcomes


def label_tensor(labels: Iterable[int]) -> Tensor:
    """Class numbers as an int64 tensor."""
    return torch.from_numpy(np.fromiter(labels, np.int64))
