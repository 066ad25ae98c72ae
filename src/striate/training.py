"""Training: one readable loop in plain PyTorch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .datasets import Dataset, Normalisation
from .errors import CheckpointError, OptionError, TrainingError
from .metrics import Evaluation
from .networks import Network
from .options import Options
from .prediction import LOSSES, Classifier

RESIDENT = 2**30
# Weight of the losses of auxiliary outputs: C. Szegedy et al., "Going Deeper with Convolutions", 2014, section 5.
AUXILIARY = 0.3
DIVERGED = 1000  # times the loss of guessing

Watcher = Callable[[int, int, str], None]


class Trainer:
    """A network in training: its optimiser, and the data on the device.

    Args:
        network: Changed in place.
        data: Training and test pictures.
        normalisation: What the pictures go through first.
        options: How to train.
        history: Figures of the epochs that are done.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        normalisation: Normalisation,
        options: Options,
        history: list[dict[str, float]],
    ) -> None:
        self.device = device(options.device)
        self.network, self.options, self.data, self.history = network.to(self.device), options, data, history
        self.optimizer = optimizer(self.network, options)
        self.targets = data.train.targets.to(self.device)
        self.pictures = batches(data.train.inputs, normalisation, self.device)
        self.classifier = Classifier(self.network, data.classes, normalisation)

    def epoch(self, tick: Watcher) -> Evaluation:
        """Show every training picture once, then look at the test pictures; the figures go into the history."""
        number, count = len(self.history), len(self.targets)
        size = count if self.options.batch_size == "full" else min(self.options.batch_size, count)
        steps = math.ceil(count / size)
        criterion = LOSSES[self.options.loss]
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        self.network.train()
        began = time.perf_counter()
        with randomness(self.options.seed, number):
            order = torch.randperm(count).to(self.device)
            for step, batch in enumerate(order.split(size)):
                set_rate(self.optimizer, rate(self.options, number * steps + step, self.options.epochs * steps))
                labels = self.targets[batch]
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
                    outputs = self.network(self.pictures(batch))
                scores, *others = (one.float() for one in (outputs if isinstance(outputs, tuple) else (outputs,)))
                loss = criterion(scores, labels)
                for other in others:
                    loss = loss + AUXILIARY * criterion(other, labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total += loss.detach() * len(batch)
                right += (scores.detach().argmax(1) == labels).sum()
                tick(step + 1, steps, f"epoch {number + 1} of {self.options.epochs}")
        figures = {"train_loss": total.item() / count, "train_accuracy": right.item() / count}
        return self._finish(number, figures, time.perf_counter() - began)

    def _finish(self, number: int, figures: dict[str, float], seconds: float) -> Evaluation:
        evaluation = self.classifier.evaluate(self.data.test, self.options.loss)
        guessing = math.log(len(self.data.classes))
        worst = max(
            (figures["train_loss"], evaluation.loss), key=lambda loss: loss if math.isfinite(loss) else math.inf
        )
        if not worst < DIVERGED * guessing:
            raise TrainingError(
                f"the loss became {worst:.2g} in epoch {number + 1} (guessing would give {guessing:.2g}): "
                f"learning_rate={self.options.rate:g} is too high for this network; try {self.options.rate / 10:g}."
            )
        test = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
        self.history.append({"epoch": number + 1, **figures, **test, "seconds": seconds})
        return evaluation


def rate(options: Options, step: int, steps: int) -> float:
    """Learning rate of a step: constant, or one cycle (L. N. Smith and N. Topin, "Super-Convergence", 2018).

    One cycle rises along a cosine from 1/25 of the peak over the first quarter of all steps and falls along another
    to zero.

    >>> [round(rate(Options(learning_rate=1.0), step, 8), 2) for step in range(9)]
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    if options.schedule == "constant":
        return options.rate
    top = steps / 4
    low, share = (1 / 25, step / top) if step < top else (0.0, (steps - step) / (steps - top))
    return options.rate * (low + (1 - low) * (1 - math.cos(math.pi * share)) / 2)


@contextmanager
def randomness(seed: int, epoch: int) -> Iterator[None]:
    """Random numbers that depend on (seed, epoch) alone; the caller's generator is as before afterwards.

    Epoch -1 is for the first weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed * 1_000_003 + epoch + 1) % 2**63)
        yield


def batches(images: Tensor, normalisation: Normalisation, where: torch.device) -> Callable[[Tensor], Tensor]:
    """Batches by index: normalised beforehand if that fits in a gigabyte, else batch by batch."""
    if images.numel() * 4 <= RESIDENT:
        ready = normalisation(images).to(where)
        return lambda batch: ready[batch]
    raw = images.to(where)
    return lambda batch: normalisation(raw[batch])


def device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU if there is one.

    Raises:
        OptionError: It cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None


def optimizer(network: nn.Module, options: Options) -> torch.optim.Optimizer:
    """Stochastic gradient descent, the same with momentum 0.9 (Polyak), or AdamW (Loshchilov and Hutter, 2019)."""
    parameters = list(network.parameters())
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.decay, fused=True)
    momentum = 0.9 if options.optimizer == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=options.rate, momentum=momentum, weight_decay=options.decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


def state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors, named ``parameter number/state name``."""
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if value is not None
    }


def restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors that :func:`state` took from one like it.

    Raises:
        CheckpointError: A tensor fits no parameter.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        known = number.isdecimal() and int(number) < len(parameters)
        if not known or tensor.shape not in ((), parameters[int(number)].shape):
            raise CheckpointError(f"its optimiser holds {key} {tuple(tensor.shape)}, which fits no parameter.")
        entries.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
