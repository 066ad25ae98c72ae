"""A plan is a value that can be printed: which algorithm was chosen for a problem, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from .computing import ALGORITHMS, DIRECTIONS, Problem, find
from .errors import AlgorithmError, GeometryError, unknown_name
from .geometry import Geometry


@dataclass(frozen=True)
class Plan:
    """The decision for one problem. Print it to see why.

    Args:
        algorithm: Name of the chosen algorithm.
        problem: What it computes.
    """

    algorithm: str
    problem: Problem

    @property
    def refusals(self) -> tuple[tuple[str, str], ...]:
        """``(name, sentence)`` of each algorithm that cannot serve."""
        return _considered(self.problem, _registered(self.problem))[1]

    @property
    def estimates(self) -> tuple[tuple[str, int | None], ...]:
        """``(name, work)`` of each that can, in the order of preference.

        Work is counted in multiply-adds (reads, for a pooling), and None where it depends on the values of the weights.
        """
        return _considered(self.problem, _registered(self.problem))[0]

    def __str__(self) -> str:
        problem = self.problem
        unit = "multiply-adds" if problem.operation == "convolution" else "reads"
        towards = "" if problem.direction == "forward" else f", {problem.direction.replace('_', ' ')}"
        work = {name: "known once it sees the weights" if n is None else f"{n:,} {unit}" for name, n in self.estimates}
        lines = [f"{self.algorithm}: {problem.operation}{towards}, {work[self.algorithm]}"]
        lines += [f"  or {name}: {words}" for name, words in work.items() if name != self.algorithm]
        return "\n".join(lines + [f"  not {name}: {reason}" for name, reason in self.refusals])

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return {
            "operation": self.problem.operation,
            "direction": self.problem.direction,
            "algorithm": self.algorithm,
            "estimates": dict(self.estimates),
            "refusals": dict(self.refusals),
        }


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of one convolution, one for each of its tensors that may be solved for.

    Args:
        forward: For the output.
        input_gradient: For the input.
        weight_gradient: For the weights.
        algorithm: The name that was asked for, if any.
    """

    forward: Plan
    input_gradient: Plan
    weight_gradient: Plan
    algorithm: str | None


def choose(problem: Problem, algorithm: str | None = None) -> Plan:
    """The plan for a problem: the best that does not refuse, or the algorithm asked for.

    The vendor's comes first, then the exact ones by their work and name, then the reference. The others, whose rounding
    differs or whose work depends on the values, serve when asked for by name.

    Raises:
        UnknownNameError: No algorithm carries the name asked for.
        AlgorithmError: The algorithm asked for refuses, or all do; their sentences say why.
    """
    return _choose(problem, algorithm, _registered(problem))


def choose_all(problem: Problem, algorithm: str | None = None) -> Plans:
    """The plans of a convolution and of its two gradients, each chosen by itself.

    An algorithm asked for by name must serve the problem's own direction. It serves the other two where it can; where
    it refuses, they are planned as if no name had been given.

    Raises:
        UnknownNameError: No algorithm carries the name asked for.
        AlgorithmError: The algorithm asked for refuses.
    """
    own = choose(problem, algorithm)
    plans = {problem.direction: own}
    for direction in DIRECTIONS:
        if direction not in plans:
            turned = replace(problem, direction=direction)
            able = algorithm is None or find(problem.operation, algorithm).refuses(turned) is None
            plans[direction] = choose(turned, algorithm if able else None)
    return Plans(**plans, algorithm=algorithm)


@lru_cache(maxsize=4096)
def _choose(problem: Problem, algorithm: str | None, registered: tuple[str, ...]) -> Plan:
    """The plan among the algorithms registered by now, so that one registered later is not missed."""
    operation = problem.operation
    if algorithm is not None:
        if reason := find(operation, algorithm).refuses(problem):
            raise AlgorithmError(f"algorithm={algorithm!r} cannot serve this {operation}: {reason}")
        return Plan(algorithm, problem)
    if "vendor" in registered and find(operation, "vendor").refuses(problem) is None:
        return Plan("vendor", problem)  # it comes first, whatever the others would say
    estimates, refusals = _considered(problem, registered)
    if not estimates:
        sentences = " ".join(f"{name}: {reason}" for name, reason in refusals)
        raise AlgorithmError(f"no algorithm serves this {operation}. {sentences}")
    return Plan(estimates[0][0], problem)


def _registered(problem: Problem) -> tuple[str, ...]:
    return tuple(sorted(ALGORITHMS[problem.operation]))


@lru_cache(maxsize=1024)
def _considered(problem: Problem, registered: tuple[str, ...]) -> tuple[Any, Any]:
    """Who can serve, in the order of preference and with their work, and who cannot, with their sentences."""
    reasons = {name: find(problem.operation, name).refuses(problem) for name in registered}
    works = {name: find(problem.operation, name).estimate(problem) for name in registered if reasons[name] is None}
    able = sorted(works, key=lambda name: _rank(problem.operation, name, works[name]))
    refusals = tuple((name, reason) for name, reason in reasons.items() if reason)
    return tuple((name, works[name]) for name in able), refusals


def _rank(operation: str, name: str, work: int | None) -> tuple[bool, bool, bool, int]:
    on_request = work is None or not find(operation, name).exact
    return name != "vendor", on_request, name == "reference", work or 0


def plan(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    direction: str = "forward",
    algorithm: str | None = None,
) -> Plan:
    """The plan of a convolution, before there is any tensor.

    Args:
        x_shape: ``(N, C, *spatial)`` of the input.
        weight_shape: ``(O, C/groups, *K)`` of the weights; transposed ``(C, O/groups, *K)``; local or tiled
            ``(*period, O, C/groups, *K)``.
        stride: As in :func:`striate.conv`, likewise padding, dilation and groups.
        padding: See :func:`striate.conv`.
        dilation: See :func:`striate.conv`.
        groups: See :func:`striate.conv`.
        transposed: Plan :func:`striate.conv_transpose`.
        output_padding: See :func:`striate.conv_transpose`.
        dtype: Of the tensors.
        device: Of the tensors.
        direction: "forward", "input_gradient" or "weight_gradient" of the call; each is planned by itself.
        algorithm: Ask for one by name. As in a call, it must serve the forward direction; a gradient that it refuses is
            planned without it.

    Raises:
        GeometryError: The shapes do not fit each other or the window.
        UnknownNameError: No such direction or algorithm.
        AlgorithmError: The algorithm asked for refuses.

    >>> found = plan((2, 3, 9, 9, 9, 9), (4, 3, 3, 3, 3, 3))
    >>> found.algorithm, dict(found.refusals)["vendor"]
    ('im2col', 'the window has 4 spatial axes; PyTorch has kernels for 1 to 3.')
    """
    axes = len(x_shape) - 2
    if axes < 1 or len(weight_shape) not in (axes + 2, 2 * axes + 2) or (transposed and len(weight_shape) > axes + 2):
        raise GeometryError(
            f"x_shape={tuple(x_shape)} and weight_shape={tuple(weight_shape)} must be (N, C, *spatial) "
            "and (O, C/groups, *K), or (*period, O, C/groups, *K), with the same number of spatial axes, at least one."
        )
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    *period, first, second = weight_shape[:-axes]
    size = tuple(x_shape[2:])
    window = Geometry.window(
        axes, tuple(weight_shape[-axes:]), stride=stride, padding=padding, dilation=dilation, groups=groups,
        period=tuple(period) or 1, transposed=transposed, output_padding=output_padding,
        size=None if transposed else size,
    )  # fmt: skip
    channels, outputs = (first, second * groups) if transposed else (second * groups, first)
    window.weight_shape(channels, outputs)
    if channels != x_shape[1] and period:
        raise GeometryError(
            f"x_shape={tuple(x_shape)} has {axes} spatial {'axis' if axes == 1 else 'axes'}, so weight_shape="
            f"{tuple(weight_shape)} is that of a tiled layer with period {tuple(period)}, which takes {channels} "
            f"channels; x has {x_shape[1]}."
        )
    if channels != x_shape[1]:
        raise GeometryError(f"weight_shape={tuple(weight_shape)} takes {channels} channels, x has {x_shape[1]}.")
    window.output_size(size)
    asked = pose(window, x_shape[0], channels, outputs, size, dtype, torch.device(device).type)
    return getattr(choose_all(asked, algorithm), turn(asked.direction, direction))


def pose(
    window: Geometry,
    batch: int,
    channels: int,
    outputs: int,
    size: tuple[int, ...],
    dtype: torch.dtype,
    device: str,
) -> Problem:
    """The problem of a call: a transposed window asks for the input of the convolution that it is the adjoint of."""
    if not window.transposed:
        return Problem("convolution", window, batch, channels, outputs, size, dtype, device)
    return Problem(
        "convolution", window.adjoint(), batch, outputs, channels, window.output_size(size), dtype, device,
        direction="input_gradient",
    )  # fmt: skip


def turn(own: str, direction: str) -> str:
    """The direction of the problem that is the given direction of a call.

    >>> turn("input_gradient", "forward"), turn("input_gradient", "input_gradient")
    ('input_gradient', 'forward')
    """
    if own == "forward" or direction == "weight_gradient":
        return direction
    return {"forward": own, "input_gradient": "forward"}[direction]
