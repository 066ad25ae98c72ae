"""Training: one readable loop in plain PyTorch, the same for one process and for many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import count

import torch
from torch import Tensor, nn

from . import synchronised_norms
from .augmentation import Augmentation
from .checkpoint import Sums
from .datasets import Dataset, Normalisation, Split, Stored
from .errors import DataError, OptionError, TrainingError
from .feeding import Batch, Feed, batch_size, key, order, parts, randomness, steps_per_epoch, total_steps
from .layers import Conv
from .losses import NOTHING, Loss, balanced, mean
from .machine import device, halves
from .metrics import Evaluation, MaskEvaluation
from .networks import Network
from .optimizing import Average, optimizer, set_rate
from .options import Options
from .prediction import Classifier
from .processes import ALONE, Engine, Group, Plain, sharded
from .schedules import rate
from .splits import IGNORED

# Weight of the losses of auxiliary outputs: C. Szegedy et al., "Going Deeper with Convolutions", 2014, section 5.
AUXILIARY = 0.3
DIVERGED = 1000  # times the loss of guessing
GLANCE = 0.2  # seconds between two looks at the loss
CHUNK = 500
WIDE = 16  # channels

Watcher = Callable[[int, int, str], None]
Measured = Evaluation | MaskEvaluation


class Trainer:
    """A network in training: its optimiser, and the data on the device.

    Args:
        network: Changed in place.
        data: Training and test examples.
        normalisation: What they go through first.
        options: How to train.
        history: Figures of the epochs that are done.
        augmentation: What changes training examples at random; none if not given.
        engine: What runs a step: PyTorch itself if not given.
        loss: That of the options, if it is known already.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        normalisation: Normalisation,
        options: Options,
        history: list[dict[str, float]],
        *,
        augmentation: Augmentation | None = None,
        engine: Engine | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.options, self.data, self.history = options, data, history
        self.group, self.device = Group.current(), device(options.device)
        self.channels_last = lies_channels_last(network, options, self.device)
        self.half = precision(options, self.device) == "bfloat16"
        self.network = network.to(self.device)
        self.network.pools_first()
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.group.size > 1:
            synchronised_norms.share(self.network)
        if options.parallel == "fsdp":
            sharded(self.network)
        self.optimizer = optimizer(self.network, options)
        self.engine = engine or Plain(options.parallel)
        self.model, self.stepper = self.engine.prepare(self.network, self.optimizer)
        self.average = Average(self.network, options.ema) if options.ema is not None else None
        self.classifier = Classifier(
            self.network, data.classes, normalisation, data.reader, data.task, data.train.dtype
        )
        augmentation = augmentation or Augmentation(())
        self.feed = Feed(data.train, normalisation, augmentation, options, self.device, self.channels_last)
        self.loss = loss or loss_of(options, data)
        self.count = len(data.train)
        self.sums = Sums()

    @property
    def _drawn_by(self) -> Tensor | None:
        """Classes that examples are drawn by, if they are."""
        return self.data.train.targets if self.options.sampling == "balanced" else None

    @property
    def steps(self) -> int:
        """Steps of the present epoch: all examples once, or fewer if ``steps`` ends the run within it."""
        each = steps_per_epoch(self.options, self.count)
        return min(each, total_steps(self.options, self.count) - len(self.history) * each)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping has ended the run."""
        patience = self.options.early_stopping
        best = best_epoch(self.history)
        stale = patience is not None and best is not None and len(self.history) - best >= patience
        return self.steps <= 0 or stale

    def epoch(self, tick: Watcher, pause: Callable[[], bool] | None = None) -> Measured | None:
        """Show the rest of the epoch's training examples, then look at those to judge by; figures go into the history.

        Args:
            tick: Called with ``(done, total, what)``.
            pause: Asked after each step whether to leave the epoch here; the next call goes on.

        Returns:
            How the network does on the examples to judge by; None if the epoch was left.

        Raises:
            TrainingError: The loss ran away.
        """
        number, first = len(self.history), self.sums.step
        batches = order(self.options, number, self.count, self._drawn_by).split(self.batch_size)
        cut = [parts(batch, self.group, self.options.accumulate) for batch in batches[first : self.steps]]
        each = steps_per_epoch(self.options, self.count)
        feed = self.feed(number, [part for batch in cut for part in batch])
        sums = _Running(self.sums, self.loss, self.device, self.group)
        self.model.train()
        began = looked = time.perf_counter()
        with randomness(self.options.seed, number):
            for step, batch in enumerate(cut, first):
                set_rate(
                    self.optimizer, rate(self.options, number * each + step, total_steps(self.options, self.count))
                )
                reseed(self.device, key(self.options.seed, number, step, self.group.rank))
                self._step([next(feed) for _ in batch], sums)
                now = time.perf_counter()
                self.sums.step, ends = step + 1, step + 1 == self.steps
                if step == first or ends or now - looked > GLANCE:
                    looked = now
                    if self.group.size == 1:  # others would wait for this one
                        self._check_loss(number, "training", sums.loss(), math.inf)
                    speed = (step + 1 - first) * self.batch_size / (now - began)
                    tick(step + 1, self.steps, self._told(number, sums, speed))
                if pause is not None and not ends and self.group.agree(pause()):
                    self.sums = sums.fixed(step + 1, time.perf_counter() - began)
                    self._check_loss(number, "training", self.sums.loss if self._finite() else math.nan, math.inf)
                    return None
        done = sums.fixed(self.steps, time.perf_counter() - began)
        return self._finish(number, done)

    def _step(self, batch: Sequence[Batch], sums: _Running) -> None:
        """One step of the optimiser: the gradients of all parts, then the update."""
        counts = self._counts(batch)
        for number, (inputs, targets, real) in enumerate(batch):
            last = number == len(batch) - 1
            with nullcontext() if last else self.engine.unsynchronised(self.model):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                    outputs = self.model(inputs)
                scores, *others = outputs if isinstance(outputs, tuple) else (outputs,)
                scores = scores.float()
                totals = self.loss.totals(scores, targets)
                value = mean(totals, counts)
                for other in others:
                    value = value + AUXILIARY * mean(self.loss.totals(other.float(), targets), counts)
                self.engine.backward(value * self.group.size * real if self.group.size > 1 else value)
            if real:
                sums.add(totals, scores, targets)
        if self.options.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip)
        self.stepper.step()
        self.stepper.zero_grad()
        sums.count(counts)
        if self.average is not None:
            self.average.update()

    def _counts(self, batch: Sequence[Batch]) -> list[Tensor | float]:
        """What the totals of the whole batch, over all parts and processes, are divided by."""
        each = [self.loss.counts(part.targets) for part in batch if part.real]
        counts = [sum(column) for column in zip(*each, strict=True)] if each else [0.0] * len(self.loss.name.split("+"))
        if self.group.size == 1:
            return counts
        return list(self.group.sum(torch.stack([torch.as_tensor(count, dtype=torch.float64) for count in counts])))

    def _told(self, number: int, sums: _Running, speed: float) -> str:
        return (
            f"epoch {number + 1} of {self.epochs}, loss {sums.loss():.4f}, "
            f"{speed:,.0f} {'pictures' if len(self.data.shape) == 3 else 'examples'}/s"
        )

    @property
    def epochs(self) -> int:
        """Epochs in all, the last one perhaps in part."""
        return -(-total_steps(self.options, self.count) // steps_per_epoch(self.options, self.count))

    def _finish(self, number: int, done: Sums) -> Measured:
        loss, guessing = done.loss, math.log(len(self.data.classes))
        figures = {"train_loss": loss, "train_accuracy": done.right[0] / max(done.right[1], 1.0)}
        self._check_loss(number, "training", loss if done.right[1] else None, DIVERGED * guessing)
        evaluation = self.evaluate()
        judging = "test" if self.data.validation is None else "validation"
        judged = summary(evaluation)["loss"] if evaluation.confusion.any() else None
        self._check_loss(number, judging, judged, math.inf)  # it may be large while running statistics are young
        self.sums = Sums()
        self.history.append({"epoch": number + 1, **figures, **summary(evaluation), "seconds": done.seconds})
        return evaluation

    def _finite(self) -> bool:
        """Whether all weights are numbers still, which a loss tells a step later; several processes wait for it."""
        return self.group.size > 1 or all(bool(weight.isfinite().all()) for weight in self.network.parameters())

    def _check_loss(self, number: int, part: str, loss: float | None, limit: float) -> None:
        if loss is None:
            raise DataError(f"{self.data.name}: no pixel of its {part} part has a label: all are {IGNORED}.")
        guessing = math.log(len(self.data.classes))
        if not loss < limit:
            raise TrainingError(
                f"the loss became {loss:.2g} in epoch {number + 1} (guessing would give {guessing:.2g}): "
                f"learning_rate={self.options.rate:g} is too high for this network; try {self.options.rate / 10:g}, or "
                "learning_rate=find."
            )

    @property
    def batch_size(self) -> int:
        """Examples of a step, over all processes."""
        return batch_size(self.options, self.count)

    def losses(self, rate_of: Callable[[int], float]) -> Iterator[float]:
        """The loss of one step after another, without end, with a learning rate for each."""
        self.model.train()
        step = 0
        with randomness(self.options.seed, 0):
            for epoch in count():
                batches = order(self.options, epoch, self.count, self._drawn_by).split(self.batch_size)
                cut = [parts(batch, self.group, self.options.accumulate) for batch in batches]
                feed = self.feed(epoch, [part for batch in cut for part in batch])
                for batch in cut:
                    set_rate(self.optimizer, rate_of(step))
                    sums = _Running(Sums(), self.loss, self.device, self.group)
                    self._step([next(feed) for _ in batch], sums)
                    yield sums.fixed(1, 0.0).loss
                    step += 1

    def evaluate(self, split: Split | Stored | None = None) -> Measured:
        """How the network, or the average of its weights, does; not given, on the examples to judge by.

        The loss is that of ``options.loss`` alone: smoothed labels and class weights are means of learning.
        """
        judging = split or self.data.validation or self.data.test
        group = ALONE if self.options.parallel == "fsdp" else self.group  # who shares weights must keep in step
        with self.average.in_place() if self.average is not None else nullcontext():
            return self.classifier.evaluate(judging, self.options.loss, group=group)


class _Running:
    """The sums of an epoch while it runs, on the device: nothing waits for them."""

    def __init__(self, before: Sums, loss: Loss, where: torch.device, group: Group) -> None:
        self.before, self.group = before, group
        zeros = [0.0] * len(loss.name.split("+"))
        mine = before if group.first else Sums()  # what was done before is counted once
        self.totals = torch.tensor(mine.totals or zeros, dtype=torch.float64).to(where)
        self.counts = torch.tensor(before.counts or zeros, dtype=torch.float64).to(where)
        self.right = torch.tensor(mine.right, dtype=torch.float64).to(where)

    def add(self, totals: Sequence[Tensor], scores: Tensor, targets: Tensor) -> None:
        """The losses of a part, and how many of its examples were recognised."""
        for place, total in enumerate(totals):
            self.totals[place] += total.detach()
        said = scores.detach().argmax(1)
        if targets.dtype == torch.uint8:
            counting = targets != IGNORED
            self.right[0] += ((said == targets) & counting).sum()
            self.right[1] += counting.sum()
        else:
            self.right[0] += (said == (targets.argmax(1) if targets.is_floating_point() else targets)).sum()
            self.right[1] += len(targets)

    def count(self, counts: Sequence[Tensor | float]) -> None:
        """What the losses of a step were divided by."""
        for place, number in enumerate(counts):
            self.counts[place] += number

    def loss(self) -> float:
        """The mean so far, of this process's examples."""
        return float((self.totals * self.group.size / self.counts.clamp(min=NOTHING)).sum())

    def fixed(self, step: int, seconds: float) -> Sums:
        """As plain numbers, over all processes."""
        totals, (right, seen) = (self.group.sum(values.clone()).tolist() for values in (self.totals, self.right))
        return Sums(step, totals, self.counts.tolist(), (right, seen), self.before.seconds + seconds)


def summary(evaluation: Measured) -> dict[str, float]:
    """What goes into the history: loss and accuracy, and for masks the mean IoU."""
    if isinstance(evaluation, Evaluation):
        return {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
    known = {"loss": evaluation.loss, "accuracy": evaluation.pixel_accuracy, "iou": evaluation.mean_iou}
    return {name: math.nan if value is None else value for name, value in known.items()}


def score(figures: Mapping[str, float]) -> float:
    """What an epoch is judged by: the IoU of masks, else the accuracy.

    >>> score({"accuracy": 0.5})
    0.5
    """
    return figures.get("iou", figures.get("accuracy", -math.inf))


def best_epoch(history: Sequence[Mapping[str, float]]) -> int | None:
    """The number of the first epoch with the highest IoU, or accuracy; None if there was no epoch.

    >>> best_epoch([{"accuracy": 0.5}, {"accuracy": 0.7}, {"accuracy": 0.7}])
    2
    """
    scores = list(map(score, history))
    return scores.index(max(scores)) + 1 if scores else None


def loss_of(options: Options, data: Dataset) -> Loss:
    """The loss that the options ask for, with the weights that the training examples give.

    Raises:
        OptionError: It does not fit the data.
    """
    chosen = options.class_weights
    if chosen == "none":
        return Loss(options.loss, None, options.label_smoothing)
    weights = balanced(counts_of(data)) if chosen == "balanced" else chosen
    if len(weights) != len(data.classes):
        raise OptionError(f"class_weights has {len(weights)} numbers; {data.name} has {len(data.classes)} classes.")
    return Loss(options.loss, torch.tensor(weights), options.label_smoothing)


def counts_of(data: Dataset) -> list[int]:
    """Training examples, or pixels of their masks, of each class."""
    found = torch.zeros(256 if data.task == "masks" else len(data.classes), dtype=torch.int64)
    if data.task == "classes":
        return data.train.targets.bincount(minlength=len(found)).tolist()
    for start in range(0, len(data.train), CHUNK):
        _, targets = data.train.take(torch.arange(start, min(start + CHUNK, len(data.train))))
        found += targets.flatten().long().bincount(minlength=len(found))
    return found[: len(data.classes)].tolist()


def precision(options: Options, where: torch.device) -> str:
    """The arithmetic of the network: "auto" is bfloat16 where that is multiplied faster than float32."""
    if options.precision != "auto":
        return options.precision
    if where.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(where) >= (8, 0) else "float32"
    return "bfloat16" if where.type == "cpu" and "AMX BF16" in halves() else "float32"


def lies_channels_last(network: Network, options: Options, where: torch.device) -> bool:
    """Whether maps lie channels-last: where products of matrices are what costs, and kernels read whole pixels.

    That is in bfloat16, and on the CPU for networks in which a convolution has at least 16 channels on either side.

    Raises:
        OptionError: They shall, and each process holds a share of the parameters, which FSDP cuts from contiguous ones.
    """
    if options.parallel == "fsdp":
        if options.layout == "channels-last":
            raise OptionError("parallel=fsdp shares contiguous parameters only; leave layout=channels-last out.")
        return False
    if options.layout != "auto" or len(network.input_shape) not in (3, 4):
        return options.layout == "channels-last"
    wide = any(
        min(layer.weight.shape[:2]) >= WIDE or layer.groups > 1
        for layer in network.modules()
        if isinstance(layer, Conv)
    )
    return wide and (where.type == "cpu" or precision(options, where) == "bfloat16")


def reseed(where: torch.device, seed: int) -> None:
    """Seed the generator that dropout draws from; :func:`torch.manual_seed` costs a hundred times as much."""
    generator = torch.cuda.default_generators[where.index or 0] if where.type == "cuda" else torch.default_generator
    generator.manual_seed(seed)
