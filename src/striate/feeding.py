"""Training examples on their way to the network: their order, how a batch is cut, and what happens to them before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from . import streaming
from .augmentation import Augmentation
from .datasets import Normalisation, Split, Stored
from .draws import Chance
from .losses import balanced
from .options import Options
from .processes import Group

RESIDENT = 2**30  # bytes of a set that is normalised beforehand
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Part(NamedTuple):
    """What a process computes at once: a batch, or its share of one.

    Args:
        indices: Of the examples in the training set, or as :func:`order` numbers what is shown again.
        real: Whether they count; a process without examples of its own computes one for the others' sake.
    """

    indices: Tensor
    real: bool = True


class Batch(NamedTuple):
    """A part on the device.

    Args:
        inputs: Augmented and normalised, ``(N, C, *spatial)``.
        targets: Classes, class probabilities or masks.
        real: As :class:`Part` says.
    """

    inputs: Tensor
    targets: Tensor
    real: bool


def key(*numbers: int) -> int:
    """A seed from several whole numbers of at least -1.

    >>> key(0, 1) != key(1, 0)
    True
    """
    found = 0
    for number in numbers:
        found = (found * 1_000_003 + number + 1) % 2**63
    return found


@contextmanager
def randomness(*numbers: int) -> Iterator[None]:
    """Random numbers that depend on these alone; the caller's generators are as before afterwards.

    (seed, -1) is for the first weights.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key(*numbers))
        yield


def order(options: Options, epoch: int, count: int, targets: Tensor | None = None) -> Tensor:
    """The training examples of an epoch, in the order in which they are shown: a function of seed and epoch.

    Balanced sampling shows some examples again. Each time has a number of its own, ``index + times before * count``,
    so that random numbers drawn for it alter the example otherwise each time, however batches are cut.

    Args:
        options: The seed and the sampling.
        epoch: Counted from 0.
        count: Examples in the set.
        targets: Their classes, for balanced sampling.

    >>> numbers = order(Options(sampling="balanced"), 0, 6, torch.tensor([0, 0, 0, 0, 0, 1]))
    >>> numbers.tolist(), (numbers % 6).tolist()
    ([5, 1, 2, 3, 11, 8], [5, 1, 2, 3, 5, 2])
    """
    generator = torch.Generator().manual_seed(key(options.seed, epoch))
    if options.sampling == "shuffled" or targets is None:
        return torch.randperm(count, generator=generator)
    weights = torch.tensor(balanced(targets.bincount().tolist()))
    drawn = torch.multinomial(weights[targets], count, replacement=True, generator=generator)
    return drawn + count * times_before(drawn)


def times_before(numbers: Tensor) -> Tensor:
    """For each number of a sequence, how often it stood there before.

    >>> times_before(torch.tensor([7, 5, 7, 7, 5])).tolist()
    [0, 0, 1, 2, 1]
    """
    ranked, places = numbers.sort(stable=True)
    times = torch.arange(len(ranked)) - torch.searchsorted(ranked, ranked)
    return torch.empty_like(times).scatter_(0, places, times)


def batch_size(options: Options, count: int) -> int:
    """Examples of a step, over all processes."""
    return count if options.batch_size == "full" else min(options.batch_size, count)


def steps_per_epoch(options: Options, count: int) -> int:
    """Steps of the optimiser in an epoch."""
    return math.ceil(count / batch_size(options, count))


def total_steps(options: Options, count: int) -> int:
    """Steps of the optimiser in all."""
    return options.steps or options.epochs * steps_per_epoch(options, count)


def examples_shown(options: Options, count: int, steps: int) -> int:
    """How many of ``count`` examples the first steps showed, one epoch after another.

    >>> examples_shown(Options(batch_size=4), 10, 3), examples_shown(Options(batch_size=4), 10, 5)
    (10, 18)
    """
    epochs, rest = divmod(min(steps, total_steps(options, count)), steps_per_epoch(options, count))
    return epochs * count + rest * batch_size(options, count)


def rows(values: Tensor, indices: Tensor) -> Tensor:
    """``values[indices]``, in the same memory layout.

    >>> rows(torch.tensor([[5], [6], [7]]), torch.tensor([2, 0])).tolist()
    [[7], [5]]
    """
    if values.is_contiguous():
        return values.index_select(0, indices)  # three times as fast as indexing
    last = values.movedim(1, -1)
    return last.index_select(0, indices).movedim(-1, 1) if last.is_contiguous() else values[indices]


def parts(batch: Tensor, group: Group, count: int) -> list[Part]:
    """This process's parts of a batch: neighbours, so that mixing finds the same partners however it is cut.

    >>> parts(torch.arange(5), Group(0, 1), 2)
    [Part(indices=tensor([0, 1, 2, 3]), real=True), Part(indices=tensor([4]), real=True)]
    >>> parts(torch.arange(2), Group(1, 2), 1)
    [Part(indices=tensor([0]), real=False)]
    """
    cut = [batch[group.share(len(batch), count, number)] for number in range(count)]
    if group.size == 1:
        return [Part(indices) for indices in cut if len(indices)]
    return [Part(indices) if len(indices) else Part(batch[:1], False) for indices in cut]


class Feed:
    """The training examples: on the device if they are in memory, else read from files as they are needed.

    Args:
        split: The examples.
        normalisation: What they go through.
        augmentation: What changes them before and after.
        options: Seed, layout, workers.
        device: Where the network is.
        channels_last: Whether maps lie so.
    """

    def __init__(
        self,
        split: Split | Stored,
        normalisation: Normalisation,
        augmentation: Augmentation,
        options: Options,
        device: torch.device,
        channels_last: bool,
    ) -> None:
        self.split, self.normalisation, self.augmentation = split, normalisation, augmentation
        self.options, self.device, self.channels_last = options, device, channels_last
        self.ready: Tensor | None = None
        if isinstance(split, Split):
            self.inputs, self.targets = split.inputs.to(device), split.targets.to(device)
            if not augmentation.steps and split.inputs.numel() * 4 <= RESIDENT:
                self.ready = self._laid(normalisation(self.inputs))

    def __call__(self, epoch: int, wanted: Sequence[Part]) -> Iterator[Batch]:
        """These parts of an epoch, one by one."""
        for part, (inputs, targets) in zip(wanted, self._taken(wanted), strict=True):
            if self.ready is None:
                chance = Chance(self.options.seed, epoch, part.indices.to(self.device))
                inputs, targets = self.augmentation(inputs, targets, chance, self.normalisation)
                inputs = self._laid(inputs)
            yield Batch(inputs, targets, part.real)

    def _taken(self, wanted: Sequence[Part]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets as they are kept."""
        examples = [part.indices % len(self.split) for part in wanted]
        if isinstance(self.split, Split):
            source = self.inputs if self.ready is None else self.ready
            for chosen in examples:
                indices = chosen.to(self.device)
                yield rows(source, indices), self.targets.index_select(0, indices)
            return
        on_gpu = self.device.type == "cuda"
        lists = [chosen.tolist() for chosen in examples]
        for inputs, targets in streaming.batches(self.split, lists, workers=self.options.workers, pin=on_gpu):
            yield inputs.to(self.device, non_blocking=on_gpu), targets.to(self.device, non_blocking=on_gpu)

    def _laid(self, inputs: Tensor) -> Tensor:
        """As the layout wants it."""
        memory = LAST.get(inputs.dim()) if self.channels_last else None
        return inputs if memory is None else inputs.contiguous(memory_format=memory)
