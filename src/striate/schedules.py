"""How the learning rate goes over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from .options import Options

LOWEST = 1 / 25  # of the peak, where one cycle begins
RISE = 0.25  # share of one cycle, unless ``warmup`` says otherwise


def rate(options: Options, step: int, steps: int) -> float:
    """Learning rate of a step, from 0 to ``steps``.

    In the first ``warmup`` of all steps the rate rises to its peak, then it falls:

        one-cycle   along a cosine from 1/25 of the peak, and along another to zero
                    (L. N. Smith and N. Topin, "Super-Convergence", 2018)
        cosine      in a straight line from zero, and along a cosine to zero
                    (I. Loshchilov and F. Hutter, "SGDR", 2016, without restarts)
        step        likewise; divided by 10 at each of the milestones (K. He et al., 2015, section 3.4)
        constant    likewise; it stays

    >>> [round(rate(Options(learning_rate=1.0), step, 8), 2) for step in range(9)]
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    one_cycle = options.schedule == "one-cycle"
    share = options.warmup if options.warmup is not None else RISE if one_cycle else 0.0
    top = steps * share
    if step < top:
        low = LOWEST if one_cycle else 0.0
        return options.rate * (low + (1 - low) * (_rise(step / top) if one_cycle else (step + 1) / (top + 1)))
    return options.rate * FALLS[options.schedule](options, step, top, steps)


def _rise(share: float) -> float:
    """From 0 to 1 along half a cosine."""
    return (1 - math.cos(math.pi * share)) / 2


def _cosine(options: Options, step: int, top: float, steps: int) -> float:
    return _rise((steps - step) / (steps - top))


def _steps(options: Options, step: int, top: float, steps: int) -> float:
    return float(0.1 ** sum(step >= milestone * steps for milestone in options.milestones))


def _constant(options: Options, step: int, top: float, steps: int) -> float:
    return 1.0


FALLS: dict[str, Callable[[Options, int, float, int], float]] = {
    "one-cycle": _cosine,
    "cosine": _cosine,
    "step": _steps,
    "constant": _constant,
}
