"""A convolution ties three tensors, input, weights and output; any two give the third, and all derivatives with it.

``T(x, w, y) = sum over reads (o, tap, i) of y[o] w[tap] x[i]`` is linear in each of the three. Solving for the output,
the input or the weights is the derivative of T by that tensor, so that the derivative of each solution is another
solution of the same geometry, to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .computing import Problem, find
from .graphs import applied
from .planning import Plans, choose_all

ROLES = {
    "forward": ("input", "weight", "output"),
    "input_gradient": ("output", "weight", "input"),
    "weight_gradient": ("input", "output", "weight"),
}
DIRECTION = {roles[-1]: direction for direction, roles in ROLES.items()}


class Convolution(torch.autograd.Function):
    """Any of the three solutions by its plan; the derivatives are the other two by theirs."""

    @staticmethod
    def forward(first: Tensor, second: Tensor, plans: Plans, direction: str) -> Tensor:
        """Run the plan of the direction."""
        solved: Tensor = getattr(plans, direction).solve(first, second)
        return solved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the derivatives need."""
        first, second, ctx.plans, ctx.direction = inputs
        ctx.save_for_backward(first, second)
        ctx.save_for_forward(first, second)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Solve for each operand, with the gradient in the place of the result."""
        (gradient,) = outputs
        first, second = ctx.saved_tensors
        one, two, result = ROLES[ctx.direction]
        plans = _for_any_weights(ctx.plans) if result == "weight" else ctx.plans
        to_first = to_second = None
        if ctx.needs_input_grad[0]:
            to_first = _solve(one, {two: second.conj() if second.is_complex() else second, result: gradient}, plans)
        if ctx.needs_input_grad[1]:
            to_second = _solve(two, {one: first.conj() if first.is_complex() else first, result: gradient}, plans)
        return to_first, to_second, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *operands: Any) -> tuple[Tensor, int]:
        """Fold the mapped dimension into the batch; where weights are mapped or solved for, into the groups."""
        first, second, plans, direction = operands
        weights_are_mapped = in_dims[1] is not None or direction == "weight_gradient"
        fold = _into_groups if weights_are_mapped else _into_batch
        return fold(info.batch_size, in_dims, first, second, plans, direction)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """The product rule."""
        first, second = ctx.saved_tensors
        parts = []
        if tangents[0] is not None:
            parts.append(convolve(tangents[0], second, ctx.plans, ctx.direction))
        if tangents[1] is not None:
            plans = _for_any_weights(ctx.plans) if ROLES[ctx.direction][1] == "weight" else ctx.plans
            parts.append(convolve(first, tangents[1], plans, ctx.direction))
        return sum(parts[1:], parts[0])


_convolution: Callable[..., Tensor] = applied(Convolution)
_grad, _active = torch.is_grad_enabled, torch._C._are_functorch_transforms_active  # looked up once


def convolve(first: Tensor, second: Tensor, plans: Plans, direction: str) -> Tensor:
    """Solve for one tensor of a convolution, differentiably.

    Args:
        first: The input, or for the input gradient the output.
        second: The weights, or for the weight gradient the output.
        plans: From :func:`striate.planning.choose_all`.
        direction: "forward", "input_gradient" or "weight_gradient".
    """
    if (_grad() and (first.requires_grad or second.requires_grad)) or _active() or forward_ad._current_level >= 0:
        return _convolution(first, second, plans, direction)
    solved: Tensor = getattr(plans, direction).solve(first, second)
    return solved


def _solve(wanted: str, tensors: dict[str, Tensor], plans: Plans) -> Tensor:
    direction = DIRECTION[wanted]
    first, second, _ = ROLES[direction]
    return convolve(tensors[first], tensors[second], plans, direction)


def _for_any_weights(plans: Plans) -> Plans:
    """The plans where a gradient or tangent stands for the weights: its values need not be such as the name serves."""
    problem = plans.forward.problem
    by_values = plans.algorithm is not None and find("convolution", plans.algorithm).estimate(problem) is None
    return choose_all(problem) if by_values else plans


def _into_batch(size: int, in_dims: Any, first: Tensor, second: Tensor, plans: Plans, direction: str) -> Any:
    mapped = first.movedim(in_dims[0], 0)
    problem = replace(plans.forward.problem, batch=size * mapped.shape[1])
    solved = convolve(mapped.flatten(0, 1), second, _again(problem, plans, direction), direction)
    return solved.unflatten(0, (size, mapped.shape[1])), 0


def _into_groups(size: int, in_dims: Any, first: Tensor, second: Tensor, plans: Plans, direction: str) -> Any:
    one, two, result = ROLES[direction]
    problem = plans.forward.problem
    axes = len(problem.size)

    def fold(tensor: Tensor, role: str, dim: int | None) -> Tensor:
        whole = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        channels = whole.dim() - 1 - (axes + 2 if role == "weight" else axes + 1)
        return whole.movedim(0, channels).flatten(channels, channels + 1)

    wide = replace(
        problem,
        geometry=replace(problem.geometry, groups=problem.geometry.groups * size),
        in_channels=problem.in_channels * size,
        out_channels=problem.out_channels * size,
    )
    solved = convolve(
        fold(first, one, in_dims[0]), fold(second, two, in_dims[1]), _again(wide, plans, direction), direction
    )
    channels = solved.dim() - (axes + 2 if result == "weight" else axes + 1)
    return solved.unflatten(channels, (size, solved.shape[channels] // size)), channels


def _again(problem: Problem, plans: Plans, direction: str) -> Plans:
    """The plans of a folded problem, by the same name as before, which may now refuse."""
    named = plans.algorithm is not None and getattr(plans, direction).algorithm == plans.algorithm
    return choose_all(replace(problem, direction=direction), plans.algorithm if named else None)
