"""Right before fast: every layer of the suite, in all directions, against float64. A red gate shows no speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from .. import planning
from ..computing import Problem, find, layout_of
from ..errors import WrongResultError
from .peers import Contender, Operands, striate, torch_ways
from .suite import Case

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2, torch.float64: 1e-10}
"""Largest error over the root mean square of the true values."""
EXACT = {torch.float32: 2e-5}
"""The same for algorithms that only sum the products of the definition."""
FACTOR = 4.0  # long sums round: an exact algorithm may be off by so many times what PyTorch's own kernel is
EXAMPLES, BLOCKS = 3, 7  # no divisors of any number of lanes, so that what a kernel confuses is not the same

Truth = dict[str, Tensor]


@dataclass(frozen=True)
class Pattern:
    """How a layer's operands repeat: examples, and blocks of channels that do not mix.

    So the float64 truth of a few is the truth of all, at the layer's true shape.

    Args:
        few: The layer with only those that differ.
        examples: For each example the one that it repeats.
        blocks: For each block of channels the one that it repeats.
    """

    few: Case
    examples: Tensor
    blocks: Tensor

    @classmethod
    def of(cls, case: Case) -> Pattern:
        """The pattern of a layer: pooled channels are blocks of one."""
        groups = case.shape[1] if case.pooling else case.geometry.groups
        batch, blocks = min(case.shape[0], EXAMPLES), min(groups, BLOCKS)
        options = tuple((name, blocks if name == "groups" else value) for name, value in case.options)
        shape = (batch, case.shape[1] // groups * blocks, *case.size)
        few = replace(case, shape=shape, outputs=case.outputs // groups * blocks, options=options)
        return cls(few, torch.arange(case.shape[0]) % batch, torch.arange(groups) % blocks)

    def maps(self, few: Tensor) -> Tensor:
        """All examples and channels of an input or output."""
        return self._channels(few[self.examples], 1)

    def weight(self, few: Tensor) -> Tensor:
        """All weights."""
        return few if len(self.blocks) == 1 else self._channels(few, 0)

    def _channels(self, few: Tensor, dim: int) -> Tensor:
        split = few.unflatten(dim, (int(self.blocks.max()) + 1, -1))
        return split.index_select(dim, self.blocks).flatten(dim, dim + 1)


def operands(case: Case, dtype: torch.dtype = torch.float32) -> Operands:
    """Random operands with :class:`Pattern`, the same on every machine."""
    pattern = Pattern.of(case)
    few = _distinct(pattern.few, dtype)
    weight = None if few.weight is None else pattern.weight(few.weight)
    return Operands(pattern.maps(few.x), weight, pattern.maps(few.gradient))


def _distinct(case: Case, dtype: torch.dtype) -> Operands:
    generator = torch.Generator().manual_seed(0)

    def random(shape: Sequence[int], scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator)).to(dtype)

    fan_in = prod(case.weight_shape[-len(case.size) - 1 :])
    weight = random(case.weight_shape, fan_in**-0.5) if case.weight_shape else None
    return Operands(random(case.shape), weight, random(case.output_shape))


def truth(case: Case, dtype: torch.dtype) -> Truth:
    """What each direction gives in float64: the output, the gradient of the input and that of the weights.

    The operands are the numbers that they are in their own type.
    """
    pattern = Pattern.of(case)
    few, given = pattern.few, _distinct(pattern.few, dtype)
    weight = None if given.weight is None else given.weight.double()
    repeats = torch.bincount(pattern.examples).double().view(-1, *[1] * (len(case.size) + 1))
    found = {}
    for direction in case.measurements[:-1]:
        summed = repeats if direction == "weight_gradient" else 1.0  # over all examples
        exact = Operands(given.x.double(), weight, given.gradient.double() * summed)
        way = torch_ways(few, exact)[0]
        result = way.canonical(direction, way.action(direction)())
        found[direction] = pattern.weight(result) if direction == "weight_gradient" else pattern.maps(result)
    return found


def error(contender: Contender, direction: str, true: Tensor) -> float:
    """Largest difference from the truth over the truth's root mean square; infinite where a value is no number."""
    got = contender.canonical(direction, contender.action(direction)()).double()
    found = float((got - true).abs().max() / true.square().mean().sqrt())
    return found if found == found else float("inf")


def plans(case: Case, dtype: torch.dtype, layout: str) -> dict[str, str]:
    """The algorithm that the plan chooses in a memory layout, for each direction."""
    if case.pooling:
        operation = "maximum" if case.layer == "max_pool" else "sum"
        sizes = (case.shape[0], case.shape[1], case.shape[1], case.size)
        problem = Problem(operation, case.geometry, *sizes, dtype, layout=layout)
        if case.layer == "lp_pool" and find("sum", "native").refuses(problem) is None:
            return dict.fromkeys(("forward", "input_gradient"), "native")
        turned = replace(problem, operation="switches" if operation == "maximum" else "sum", direction="input_gradient")
        return {"forward": planning.choose(problem).algorithm, "input_gradient": planning.choose(turned).algorithm}
    posed = planning.pose(case.geometry, case.shape[0], case.shape[1], case.outputs, case.size, dtype, "cpu", layout)
    chosen = planning.choose_all(posed)
    return {d: getattr(chosen, planning.turn(posed.direction, d)).algorithm for d in case.measurements[:-1]}


def exact(case: Case, direction: str, algorithm: str) -> bool:
    """Whether an algorithm only sums the products of the definition."""
    if not case.pooling:
        return find("convolution", algorithm).exact
    operation = "sum" if case.layer != "max_pool" else "maximum" if direction == "forward" else "switches"
    return find(operation, algorithm).exact


def gate(
    cases: Sequence[Case], dtype: torch.dtype, progress: Callable[[int, int, str], object] = lambda *_: None
) -> dict[str, dict[str, Any]]:
    """The errors of Striate and of PyTorch, by case and direction, at the layers' true shapes.

    Raises:
        WrongResultError: Striate is off in at least one; the message says which and by how much.
    """
    found: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for number, case in enumerate(cases):
        progress(number, len(cases), f"checking {case.name}")
        errors = found[case.name] = _errors(case, dtype)
        for direction, by in errors.items():
            wrong += [
                f"{case.name}, {direction.replace('_', ' ')}, {layout}: off by {off:.1e} of the values' "
                f"root mean square, the limit is {by['limit'][layout]:.1e} (planned: {by['planned'][layout]})"
                for layout, off in by["striate"].items()
                if not off <= by["limit"][layout]
            ]
    if wrong:
        raise WrongResultError("No speed is measured, because results are wrong.\n  " + "\n  ".join(wrong))
    return found


def _errors(case: Case, dtype: torch.dtype) -> dict[str, Any]:
    true, given = truth(case, dtype), operands(case, dtype)
    ours, theirs = striate(case, given), torch_ways(case, given)[:2]
    chosen = {contender.name: plans(case, dtype, layout_of(contender.operands[0])) for contender in ours}
    found = {}
    for direction, expected in true.items():
        off = {contender.name: error(contender, direction, expected) for contender in ours}
        planned = {name: chosen[name][direction] for name in off}
        summing = {name: exact(case, direction, algorithm) for name, algorithm in planned.items()}
        known, strict = error(theirs[0], direction, expected), EXACT.get(dtype, TOLERANCE[dtype])
        if any(off[name] > max(strict, FACTOR * known) for name in off if summing[name]):
            known = max(known, *(error(way, direction, expected) for way in theirs[1:]))  # it rounds otherwise there
        limit = {name: max(strict, FACTOR * known) if summing[name] else TOLERANCE[dtype] for name in off}
        first = next(iter(planned))
        found[direction] = {
            "algorithm": planned[first], "exact": summing[first], "striate": off, "torch": known, "limit": limit,
            "planned": planned,
        }  # fmt: skip
    return found
