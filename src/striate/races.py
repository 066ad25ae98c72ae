"""Candidates timed side by side, on random tensors of a problem's shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import torch
from torch import Tensor

from .computing import Problem, as_given, find, lay
from .progress import Progress

HOPELESS = 3.0  # times the best, after one run
ROUNDS = 7
STINT = 1e-3  # seconds that one candidate runs in one round, or once

Clock = Callable[[], float]


def seconds(
    problem: Problem, names: Sequence[str], limit: float, clock: Clock = perf_counter, rounds: int = ROUNDS
) -> dict[str, float]:
    """Seconds that each algorithm takes: the least of interleaved rounds.

    The first round warms up and is timed once more; who is three times slower than the best then runs no more. The
    others go on in turn until the limit, so that what disturbs the machine disturbs all of them.

    Args:
        problem: What they compute.
        names: Who races; each must serve the problem.
        limit: Seconds for all of it. Every candidate runs at least once, and within the limit once more.
        clock: Tells seconds.
        rounds: At most so many, after the first.

    Returns:
        The seconds of all who ran, in the order of the names.
    """
    start = clock()
    bar = Progress(f"timing {problem.operation}, {problem.direction}", len(names) * (1 + rounds), clock)
    with bar, torch.no_grad(), as_given(problem.device), torch.random.fork_rng(devices=[]):
        operands = tensors(problem)
        runs = {name: _run(name, problem, *operands) for name in names}
        best: dict[str, float] = {}
        for name, run in runs.items():
            bar.advance()
            try:
                best[name] = _timed(run, problem.device, 1, clock)
            except (RuntimeError, MemoryError):  # out of memory, or a compiler that is missing: it is out of the race
                if name == "vendor" or (not best and name == names[-1]):
                    raise
                continue
            if best[name] <= HOPELESS * min(best.values()) and clock() - start < limit:
                best[name] = min(best[name], _timed(run, problem.device, 1, clock))
        fastest = min(best.values())
        racing = [name for name, least in best.items() if least <= HOPELESS * fastest]
        repeats = max(1, int(STINT / max(fastest, 1e-7)))
        for _ in range(rounds if len(racing) > 1 else 0):
            if clock() - start >= limit:
                break
            for name in racing:
                best[name] = min(best[name], _timed(runs[name], problem.device, repeats, clock))
                bar.advance()
    return best


def _run(name: str, problem: Problem, first: Tensor, second: Tensor | None) -> Callable[[], object]:
    algorithm = find(problem.operation, name)
    prepares = problem.operation == "convolution" and second is not None

    def run() -> object:
        prepared = algorithm.prepare(second, problem) if prepares and second is not None else second
        found = algorithm.run(first, prepared, problem)
        return found if problem.direction == "weight_gradient" else like(found, problem)

    return run


def like(found: Tensor, problem: Problem) -> Tensor:
    """A map in the memory layout that the caller is given."""
    return lay(found, problem.layout) if found.dim() > 3 else found


def _timed(run: Callable[[], object], device: str, repeats: int, clock: Clock) -> float:
    _finish(device)
    start = clock()
    for _ in range(repeats):
        run()
    _finish(device)
    return (clock() - start) / repeats


def _finish(device: str) -> None:
    """Wait for a device that computes on while Python goes on."""
    if device == "cuda":
        torch.cuda.synchronize()


def tensors(problem: Problem) -> tuple[Tensor, Tensor | None]:
    """Random operands as the problem says, never a user's own."""
    geometry = problem.geometry
    pooling = problem.operation != "convolution"
    outputs = problem.in_channels if pooling else problem.out_channels
    result = (problem.batch, outputs, *problem.output_size)
    maps = (problem.batch, problem.in_channels, *problem.size)
    if pooling:
        first = _random(result if problem.direction == "input_gradient" else maps, problem)
        switches = problem.operation == "switches" and problem.direction == "input_gradient"
        return first, _switches(problem) if switches else None
    weight = geometry.weight_shape(problem.in_channels, problem.out_channels)
    shapes = {"forward": (maps, weight), "input_gradient": (result, weight), "weight_gradient": (maps, result)}
    first_shape, second_shape = shapes[problem.direction]
    second = _random(second_shape, problem if problem.direction == "weight_gradient" else None, problem.dtype)
    return _random(first_shape, problem), second.to(problem.device)


def _switches(problem: Problem) -> Tensor:
    forward = replace(problem, direction="forward", dtype=torch.float32)
    able = (name for name in ("vendor", "separable", "reference") if find("switches", name).refuses(forward) is None)
    found = find("switches", next(able))
    maps = _random((problem.batch, problem.in_channels, *problem.size), forward)
    return found.run(maps, None, forward)


def _random(shape: Sequence[int], problem: Problem | None, dtype: torch.dtype | None = None) -> Tensor:
    """Uniform numbers; whole ones for types of whole numbers."""
    wanted = dtype if problem is None else problem.dtype
    place = "cpu" if problem is None else problem.device
    values = torch.rand(tuple(shape), device=place).to(wanted or torch.float32)
    return values if problem is None or values.dim() < 3 else lay(values, problem.layout)
