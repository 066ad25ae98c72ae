"""What a step of a model costs, measured so that nothing of the model or its inputs is changed by it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

HOPELESS = 3.0  # times as long as the best
QUICK = 0.2  # seconds, below which a first run is too cold to count
LONG = 5.0  # seconds of one round, after which the time that is up is up

Work = Callable[[], Any]
Timer = Callable[[Work], float]


def seconds(work: Work) -> float:
    """How long the work takes, until the device is done with it."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass
class Budget:
    """Seconds to measure in.

    Args:
        seconds: How many.
        clock: What tells the time.
    """

    seconds: float
    clock: Callable[[], float] = time.perf_counter
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.clock()

    def left(self, share: float = 1.0) -> float:
        """Seconds left of the first ``share`` of the budget."""
        return self.start + share * self.seconds - self.clock()


def race(
    works: Sequence[Work],
    timer: Timer,
    until: Callable[[], bool],
    *,
    prepare: Callable[[int], None] | None = None,
    least: int = 2,
    most: int = 12,
) -> list[float]:
    """The shortest time of each, in rounds that all of them run in turn, so that a busy moment meets all.

    Args:
        works: What to run. One that raises a RuntimeError is out of the race, at infinity; one that took three times
            as long as the best is not run again.
        timer: Runs and times.
        until: Whether the time is up, after ``least`` rounds.
        prepare: Makes ready for the work at a place, and is not timed; nor is a first run of the work after it.
        least: Rounds, after a first one that counts for those alone that are not run again.
        most: Rounds at most.
    """
    best, first = [inf] * len(works), [inf] * len(works)
    for number in range(most + 1):
        for place, work in enumerate(works):
            if number and first[place] > HOPELESS * min(first):
                continue
            try:
                if prepare is not None:
                    prepare(place)
                    if number and first[place] < QUICK:
                        work()
                spent = timer(work)
            except RuntimeError:
                best[place] = first[place] = inf
                continue
            times = best if number else first
            times[place] = min(times[place], spent)
        if until() and (number >= least or sum(first) > LONG):
            break
    return [once if counted == inf else counted for once, counted in zip(first, best, strict=True)]


# ------------------------------------------------------------------------------------------------------ nothing changes


@contextmanager
def unchanged(model: nn.Module) -> Iterator[Work]:
    """A block after which parameters, buffers, modes and random generators are bit for bit what they were before.

    It gives a function that brings them back to that at any time in between.
    """
    tensors: list[Any] = [
        (table, name, tensor, tensor if tensor is None else (tensor._version, tensor.detach().clone()))
        for module in model.modules()
        for table in (module._parameters, module._buffers)
        for name, tensor in table.items()
    ]
    modes = [(module, module.training) for module in model.modules()]
    generators = _generators()

    def rewind() -> None:
        for table, name, tensor, saved in tensors:
            table[name] = tensor
            if saved is not None and not (tensor.requires_grad and tensor._version == saved[0]):
                with torch.no_grad():
                    tensor.copy_(saved[1])
        for module, training in modes:
            module.training = training
        for setter, state in generators:
            setter(state)

    try:
        yield rewind
    finally:
        rewind()


def _generators() -> list[tuple[Callable[[Any], Any], Any]]:
    """How to set each generator in use back to where it stands."""
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_rng_state, torch.get_rng_state()),
        (random.setstate, random.getstate()),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if (numpy := sys.modules.get("numpy")) is not None:
        states.append((numpy.random.set_state, numpy.random.get_state()))
    return states


# ---------------------------------------------------------------------------------------------------------------- steps


@dataclass
class Step:
    """One step of a model on its example inputs: forward, and backward if it is trained.

    Args:
        model: The model.
        inputs: Its positional inputs, copies of the caller's.
        keywords: Its keyword inputs, copies of the caller's.
        gradients: Whether to go backward too.
        renew: Whether every step gets copies of its own.
        writes: Whether the model was seen to write into them.
        weights: What stands for the gradients of a loss, by the place of the output.
    """

    model: nn.Module
    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    gradients: bool
    renew: bool = True
    writes: bool = False
    weights: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The outputs, and the gradients by the name of the parameter or the place of the input."""
        inputs, keywords = copied((self.inputs, self.keywords)) if self.renew else (self.inputs, self.keywords)
        with nullcontext() if self.gradients else torch.no_grad():
            outputs = self.model(*inputs, **keywords)
        tensors = tensors_of(outputs)
        self.writes |= self.renew and any(t._version for t in tensors_of((inputs, keywords)))
        ends = [t for t in tensors if t.requires_grad]
        if not (self.gradients and ends):
            return tensors, {}
        leaves: dict[str, Tensor] = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        leaves |= {
            f"input {i}": t for i, t in enumerate(tensors_of((inputs, keywords))) if t.requires_grad and t.is_leaf
        }
        found = torch.autograd.grad(
            ends, list(leaves.values()), [self._weight(i, t) for i, t in enumerate(ends)], allow_unused=True
        )
        every: list[Tensor | None] = list(found)  # None where the outputs do not depend on a leaf
        return tensors, {name: g for name, g in zip(leaves, every, strict=True) if g is not None}

    def _weight(self, place: int, output: Tensor) -> Tensor:
        """What stands for the gradient of a loss: always the same, and not constant, which a softmax would hide."""
        if place not in self.weights:
            line = torch.linspace(-1, 1, output.numel(), dtype=torch.float64, device="cpu").cos()
            shuffled = line[torch.randperm(output.numel(), generator=torch.Generator().manual_seed(0))]
            self.weights[place] = shuffled.to(output).view(output.shape).contiguous()
        return self.weights[place]


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists, dicts and whatever else PyTorch knows as a tree."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def copied(tree: Any) -> Any:
    """The same with tensors of its own."""
    return tree_map(lambda t: t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t, tree)


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the root mean square of what is expected; infinity where NaNs differ.

    >>> error(torch.tensor([1.0, 1.5]), torch.tensor([1.0, 1.0]))
    0.5
    """
    found = _finite(actual, expected)
    if found is None:
        return inf
    a, b = found
    largest = float((a - b).abs().max()) if b.numel() else 0.0
    return largest / float(b.abs().square().mean().sqrt()) if bool(b.any()) else (inf if largest else 0.0)


def distance(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The norm of all differences over the norm of all that is expected; infinity where NaNs differ.

    This is how the gradients of a whole network are compared, as the one vector that they are. A single one may be
    zero but for rounding (that of a bias before a batch normalisation), and a value that rounding moves across the
    corner of a ReLU changes some of their entries, visibly but rightly.

    >>> distance([torch.tensor([3.0]), torch.tensor([0.5])], [torch.tensor([3.0]), torch.tensor([0.0])])
    0.16666666666666666
    """
    differences = squares = 0.0
    for one, other in zip(actual, expected, strict=True):
        found = _finite(one, other)
        if found is None:
            return inf
        differences += float((found[0] - found[1]).abs().square().sum())
        squares += float(found[1].abs().square().sum())
    return (differences / squares) ** 0.5 if squares else (inf if differences else 0.0)


def _finite(actual: Tensor, expected: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both in float64 where what is expected is finite; None if they differ in what cannot be subtracted."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return None
    wide = torch.complex128 if expected.is_complex() else torch.float64
    a, b = actual.detach().to(wide), expected.detach().to(wide)
    finite = b.isfinite()
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()) or not bool(a[finite].isfinite().all()):
        return None
    return a[finite], b[finite]
