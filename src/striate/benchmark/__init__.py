"""The benchmark: published layers, Striate against the best of PyTorch, right before fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import OptionError
from .contest import Effort, limits, measure
from .machine import best, ceilings, describe, quiet, told
from .page import write
from .results import summary, text
from .suite import MEASUREMENTS, SUITE, Case, register, selected
from .truth import gate

__all__ = ["MEASUREMENTS", "QUICK", "SUITE", "Case", "Effort", "register", "run", "selected", "text", "write"]

Progress = Callable[[int, int, str], object]
QUICK = Effort(rounds=5, seconds=0.25)


def run(
    cases: Sequence[Case],
    *,
    threads: Sequence[int] = (1,),
    measurements: Sequence[str] = MEASUREMENTS,
    dtype: torch.dtype = torch.float32,
    effort: Effort | None = None,
    compiled: bool = False,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Check the cases, then measure them: plain values, for JSON, the table and the page.

    JAX, where it is installed, keeps for good the threads that it starts with, so it joins the first number only.

    Args:
        cases: The layers, as :func:`selected` finds them.
        threads: Numbers of threads, one whole run for each.
        measurements: Of "forward", "input_gradient", "weight_gradient", "step".
        dtype: Type of all tensors.
        effort: How long to measure.
        compiled: Let ``torch.compile`` take part with the best of PyTorch's ways.
        progress: Called with cases done, cases in all, and a word.

    Raises:
        OptionError: No such measurement.
        WrongResultError: A result is wrong; no speed is measured then.
    """
    for name in measurements:
        if name not in MEASUREMENTS:
            raise OptionError(f"--directions {name}: expected some of {', '.join(MEASUREMENTS)}, joined by commas.")
    effort = effort or Effort()
    runs = [
        _one(cases, count, measurements, dtype, effort, progress, compiled=compiled, jax=number == 0)
        for number, count in enumerate(threads)
    ]
    options = {
        "dtype": str(dtype).removeprefix("torch."), "rounds": effort.rounds, "seconds": effort.seconds,
        "clock": effort.clock.__name__, "compiled": compiled, "measurements": list(measurements),
    }  # fmt: skip
    return {"options": options, "runs": runs}


def _one(
    cases: Sequence[Case],
    threads: int,
    measurements: Sequence[str],
    dtype: torch.dtype,
    effort: Effort,
    progress: Progress,
    *,
    compiled: bool,
    jax: bool,
) -> dict[str, Any]:
    """A run with one number of threads. The machine's limits are the best seen before and after."""
    with quiet(threads):
        errors = gate(cases, dtype, lambda done, total, what: progress(done, 2 * total, what))
        bounds = ceilings(threads, dtype, effort.clock)
        rows = []
        for number, case in enumerate(cases):
            progress(len(cases) + number, 2 * len(cases), f"measuring {case.name}")
            rows.append(measure(case, errors[case.name], dtype, measurements, effort, compiled=compiled, jax=jax))
        bounds = best(bounds, ceilings(threads, dtype, effort.clock))
    for case, row in zip(cases, rows, strict=True):
        for name, found in row["measurements"].items():
            found["limit"] = limits(case, name, bounds, dtype, found["best_seconds"]["striate"])
    return {"machine": describe(threads), "ceilings": told(bounds, dtype), "cases": rows, "summary": summary(rows)}
