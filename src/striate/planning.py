"""A plan is a value that can be printed: which algorithm was chosen for a problem, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from . import gradients
from .computing import ALGORITHMS, Problem, find
from .errors import AlgorithmError, GeometryError, unknown_name
from .geometry import Geometry

PREFERENCE = ("vendor", "convolution", "reference")
DIRECTIONS = ("forward", "input_gradient", "weight_gradient")


@dataclass(frozen=True)
class Plan:
    """The decision for one problem. Print it to see why.

    Args:
        algorithm: Name of the chosen algorithm.
        problem: What it computes.
        refusals: ``(name, sentence)`` of each algorithm that cannot serve.
        estimates: ``(name, work)`` of each that can, in the order of preference; work is counted in multiply-adds
            (reads, for a pooling).
    """

    algorithm: str
    problem: Problem
    refusals: tuple[tuple[str, str], ...]
    estimates: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        unit = "multiply-adds" if self.problem.operation == "convolution" else "reads"
        lines = [f"{self.algorithm}: {self.problem.operation}, {self.problem.work:,} {unit}"]
        lines += [f"  or {name}: {work:,} {unit}" for name, work in self.estimates if name != self.algorithm]
        return "\n".join(lines + [f"  not {name}: {reason}" for name, reason in self.refusals])


def choose(problem: Problem, algorithm: str | None = None) -> Plan:
    """The plan for a problem: the first by preference that does not refuse, or the algorithm asked for.

    Algorithms that :data:`PREFERENCE` does not name come after the vendor's and before the reference.

    Raises:
        UnknownNameError: No algorithm carries the name asked for.
        AlgorithmError: The algorithm asked for refuses, or all do; their sentences say why.
    """
    return _choose(problem, algorithm, tuple(ALGORITHMS[problem.operation]))


@lru_cache(maxsize=4096)
def _choose(problem: Problem, algorithm: str | None, registered: tuple[str, ...]) -> Plan:
    """The plan among the algorithms registered by now, so that one registered later is not missed."""
    candidates = sorted(registered, key=_rank)
    reasons = {name: find(problem.operation, name).refuses(problem) for name in candidates}
    if algorithm is not None:
        find(problem.operation, algorithm)
        if reasons[algorithm]:
            raise AlgorithmError(f"algorithm={algorithm!r} cannot serve this {problem.operation}: {reasons[algorithm]}")
    able = [name for name in candidates if reasons[name] is None]
    if not able:
        sentences = " ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise AlgorithmError(f"no algorithm serves this {problem.operation}. {sentences}")
    return Plan(
        algorithm=algorithm or able[0],
        problem=problem,
        refusals=tuple((name, reason) for name, reason in reasons.items() if reason),
        estimates=tuple((name, problem.work) for name in able),
    )


def _rank(name: str) -> int:
    """Place in the order of preference; the last place is the reference's."""
    return PREFERENCE.index(name) if name in PREFERENCE[:-1] else len(PREFERENCE) + (name == PREFERENCE[-1])


def plan(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    direction: str = "forward",
    algorithm: str | None = None,
) -> Plan:
    """The plan of a convolution, before there is any tensor.

    Args:
        x_shape: ``(N, C, *spatial)`` of the input.
        weight_shape: ``(O, C/groups, *K)`` of the weights.
        stride: As in :func:`striate.conv`, likewise padding, dilation and groups.
        padding: See :func:`striate.conv`.
        dilation: See :func:`striate.conv`.
        groups: See :func:`striate.conv`.
        dtype: Of the tensors.
        device: Of the tensors.
        direction: "forward", "input_gradient" or "weight_gradient"; each is planned by itself.
        algorithm: Ask for one by name.

    Raises:
        GeometryError: The shapes do not fit each other or the window.
        UnknownNameError: No such direction or algorithm.
        AlgorithmError: The algorithm asked for refuses.

    >>> print(plan((8, 64, 56, 56), (128, 64, 3, 3), padding=1, direction="weight_gradient"))
    vendor: convolution, 1,849,688,064 multiply-adds
      or reference: 1,849,688,064 multiply-adds
    """
    if len(x_shape) != len(weight_shape) or len(x_shape) < 3:
        raise GeometryError(
            f"x_shape={tuple(x_shape)} and weight_shape={tuple(weight_shape)} must be (N, C, *spatial) "
            "and (O, C/groups, *K) with the same number of spatial axes, at least one."
        )
    batch, channels, *size = x_shape
    out_channels, per_group, *kernel = weight_shape
    window = Geometry.window(
        len(size), kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, size=tuple(size)
    )
    if window.weight_shape(channels, out_channels)[1] != per_group:
        raise GeometryError(
            f"weight_shape={tuple(weight_shape)} takes {per_group * groups} channels, x has {channels}."
        )
    place = torch.device(device).type
    forward = Problem("convolution", window, batch, channels, out_channels, tuple(size), dtype, place)
    return choose(towards(forward, direction), algorithm)


def towards(forward: Problem, direction: str) -> Problem:
    """The problem that computes the output, or one of the two gradients, of a convolution.

    Raises:
        UnknownNameError: No such direction.
    """
    if direction == "forward":
        return forward
    batch, outputs, channels = forward.batch, forward.out_channels, forward.in_channels
    rest = (forward.dtype, forward.device)
    if direction == "input_gradient":
        adjoint = gradients.input_gradient(forward.geometry, forward.size)
        return Problem("convolution", adjoint, batch, outputs, channels, forward.output_size, *rest)
    if direction == "weight_gradient":
        window = gradients.weight_gradient(forward.geometry, forward.size)
        groups = forward.geometry.groups
        image, kernel, size = channels, outputs, forward.size
        if forward.geometry.transposed:
            image, kernel, size = outputs, channels, forward.output_size
        return Problem("convolution", window, image // groups, batch * groups, kernel, size, *rest)
    raise unknown_name("direction", direction, DIRECTIONS)
