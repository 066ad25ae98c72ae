"""The learning-rate range test: how fast a network may learn, found by trying."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import TrainingError
from .training import Trainer, Watcher

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 100
SMOOTH = 0.9  # of the loss of the steps before
WORSE = 4.0  # times the best loss so far


@dataclass(frozen=True)
class RateTest:
    """The losses of a network while its learning rate rose.

    Args:
        rates: One for each step, from low to high, each the same factor above the one before.
        losses: Smoothed, one for each step.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def best(self) -> float:
        """A tenth of the rate at which the loss was lowest: the highest one that is safe.

        >>> RateTest((0.1, 1.0, 10.0), (2.0, 1.0, 7.0)).best
        0.1
        """
        return self.rates[self.losses.index(min(self.losses))] / 10


def rate_test(trainer: Trainer, tick: Watcher) -> RateTest:
    """Train for a hundred steps while the rate rises from 1e-6 to 10, or until the loss runs away.

    L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3. The loss is smoothed
    exponentially, and corrected for the steps before the first. The trainer is used up: its weights are changed.

    Raises:
        TrainingError: The loss is not a number from the first step.
    """
    growth = (HIGHEST / LOWEST) ** (1 / (STEPS - 1))
    rates, losses, smooth = [], [], 0.0
    for step, loss in enumerate(trainer.losses(lambda step: LOWEST * growth**step)):
        if not math.isfinite(loss):
            break
        smooth = SMOOTH * smooth + (1 - SMOOTH) * loss
        corrected = smooth / (1 - SMOOTH ** (step + 1))
        rates.append(LOWEST * growth**step)
        losses.append(corrected)
        tick(step + 1, STEPS, "finding the learning rate")
        if step + 1 == STEPS or corrected > WORSE * min(losses):
            break
    if not losses:
        raise TrainingError("the loss is not a finite number at any learning rate; look at the data with striate data.")
    return RateTest(tuple(rates), tuple(losses))


def best_rate(trainer: Trainer, tick: Watcher) -> float:
    """The rate that :func:`rate_test` finds, to two digits."""
    return float(f"{rate_test(trainer, tick).best:.1e}")
