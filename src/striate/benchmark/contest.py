"""Who is faster: contenders take turns in one process, so that a machine whose speed drifts is unfair to nobody."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

import torch
from torch.autograd.profiler import profile

from ..machine import Ceilings
from .jax_ways import jax_ways
from .peers import STRIATE, Action, Contender, Operands, Way, striate, torch_ways
from .suite import DIRECTIONS, Case
from .truth import operands

SAMPLE = 0.002
"""Seconds that a sample lasts at least: a shorter call is repeated within it."""
HOPELESS = 4.0
"""A contender so many times slower than the best of its side is not measured again."""
FEWEST = 3
"""Rounds at least, however slow the case is."""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        rounds: Turns of every contender, at most.
        seconds: After which a measurement takes no further round beyond the fewest.
        clock: What tells the time. Processor time, of one thread, is for machines that others use too.
    """

    rounds: int = 7
    seconds: float = 0.8
    clock: Callable[[], float] = time.perf_counter


def seconds_by_round(actions: Mapping[str, Action], sides: Mapping[str, str], effort: Effort) -> dict[str, list[float]]:
    """Seconds a call of each contender, one for each round; of a hopeless one, a single number.

    The order is the same in every round, so that a call longer than a sample never finds its own data in the caches.

    Args:
        actions: By contender.
        sides: Which side each contender is on.
        effort: How long.
    """
    found: dict[str, list[float]] = {}
    best: dict[str, float] = {}
    for name, action in actions.items():
        first = sample(action, 1, effort.clock)
        slow = first > 1.0 and first > HOPELESS * best.get(sides[name], first)
        found[name] = [first if slow else min(sample(action, 1, effort.clock) for _ in range(2))]
        best[sides[name]] = min(found[name][0], best.get(sides[name], found[name][0]))
    running = [name for name in actions if found[name][0] <= HOPELESS * best[sides[name]]]
    calls = {name: max(1, ceil(SAMPLE / found[name][0])) for name in running}
    spent = sum(calls[name] * found[name][0] for name in running)
    found |= {name: [] for name in running}
    for _ in range(max(min(FEWEST, effort.rounds), min(effort.rounds, int(effort.seconds / spent)))):
        for name in running:
            found[name].append(sample(actions[name], calls[name], effort.clock))
    return found


def sample(action: Action, calls: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call."""
    began = clock()
    for _ in range(calls):
        action()
    return (clock() - began) / calls


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times faster we are: the median of the ratios within rounds, or, without rounds, of the least times.

    >>> ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    2.0
    """
    if len(theirs) == len(ours):
        return median(their / our for their, our in zip(theirs, ours, strict=True))
    return min(theirs) / min(ours)


def contenders(case: Case, given: Operands, *, compiled: bool, jax: bool) -> dict[str, list[Contender]]:
    """Striate's side and the others', PyTorch's default first."""
    theirs: list[Contender] = [*torch_ways(case, given)]
    if compiled:
        torch.compiler.reset()  # what earlier cases were compiled to
        theirs.append(_compiled(torch_ways(case, given)))
    return {"striate": [*striate(case, given)], "torch": theirs, "jax": [*jax_ways(case, given)] if jax else []}


def _compiled(ways: Sequence[Way]) -> Way:
    """The way whose forward pass is quickest, compiled."""

    def seconds(way: Way) -> float:
        action = way.action("forward")
        return min(sample(action, 1) for _ in range(3))

    return min(ways, key=seconds).compiled()


def measure(
    case: Case,
    errors: Mapping[str, Any],
    dtype: torch.dtype,
    wanted: Sequence[str],
    effort: Effort,
    *,
    compiled: bool = False,
    jax: bool = False,
) -> dict[str, Any]:
    """All numbers of one case, as plain values.

    Args:
        case: The layer.
        errors: What the gate found, by direction.
        dtype: Type of all tensors.
        wanted: Measurements.
        effort: How long.
        compiled: Whether ``torch.compile`` takes part.
        jax: Whether JAX does, where it is installed.
    """
    gc.collect()
    sides = contenders(case, operands(case, dtype), compiled=compiled, jax=jax)
    found: dict[str, Any] = {}
    for measurement in (m for m in case.measurements if m in wanted):
        side_of = {c.name: side for side, names in sides.items() for c in names}
        actions = {c.name: c.action(measurement) for names in sides.values() for c in names}
        found[measurement] = _judged(seconds_by_round(actions, side_of, effort), side_of)
        if measurement in errors:
            found[measurement]["error"] = {side: errors[measurement][side] for side in ("striate", "torch")}
    return {
        "name": case.name,
        "family": case.family,
        "source": case.source,
        "shape": list(case.shape),
        "weights": list(case.weight_shape),
        "kinds": sorted(case.kinds),
        "first": case.first,
        "algorithms": {direction: errors[direction]["algorithm"] for direction in errors},
        "memory": {side: peak(sides[side][0].action("step")) for side in ("striate", "torch")},
        "measurements": found,
    }


def _judged(times: Mapping[str, Sequence[float]], side_of: Mapping[str, str]) -> dict[str, Any]:
    """The best of each side by its least time, and how many times faster Striate is."""
    least = {name: min(seconds) for name, seconds in times.items()}
    best: dict[str, str] = {}
    for name, side in side_of.items():
        if side not in best or least[name] < least[best[side]]:
            best[side] = name
    default = next(name for name, side in side_of.items() if side == "torch")
    ours = times[best["striate"]]
    return {
        "ratio": ratio(times[best["torch"]], ours),
        "ratio_default": ratio(times[default], times[STRIATE[0]]),
        **({"ratio_jax": ratio(times[best["jax"]], ours)} if "jax" in best else {}),
        "best": best,
        "best_seconds": {side: least[name] for side, name in best.items()},
        "seconds": least,
        "rounds": len(ours),
    }


def limits(case: Case, measurement: str, bounds: Ceilings, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """The time that no kernel can go below, what binds, and the share of that limit that was reached.

    A step is the sum of its directions.
    """
    passes = [measurement]
    if measurement == "step":
        passes = [d for d in DIRECTIONS if d in case.measurements and not (case.first and d == "input_gradient")]
    size = case.numbers * torch.empty((), dtype=dtype).element_size()
    least, binds = bounds.limit(dtype, case.multiply_adds, size)
    return {"seconds": least * len(passes), "binds": binds, "reached": least * len(passes) / seconds}


def peak(action: Callable[[], object]) -> int | None:
    """Bytes that PyTorch's allocator holds at most above what it holds before; None if the profiler tells nothing.

    Results count; scratch that a kernel takes from elsewhere does not.
    """
    action()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler says that it begins and ends
    with profile(profile_memory=True) as recorded:
        kept = action()
    del kept
    events = [e for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most if events else None
