"""Maximum and sum of windows by plan, with derivatives of every order that are the same on every device.

    maximum    y[o] = x[s[o]], where the switch s[o] is the place of the largest value (the first on a tie)
    spread     x[i] = sum of y[o] over the windows with s[o] = i: the adjoint of reading at the switches
    sum        y[o] = sum of x[i] over the reads (o, tap, i), and its adjoint

Each is linear once the switches stand, so that its derivative is its adjoint and the adjoint's derivative itself again.
M. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 2.1, call the places
switches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .computing import Problem, find, native_pools
from .errors import GeometryError
from .graphs import applied
from .planning import choose


def largest(x: Tensor, problem: Problem) -> Tensor:
    """The largest value of each window, by the plan of a "maximum"."""
    derived = torch.is_grad_enabled() and x.requires_grad
    if derived and (by_marks(problem) or choose(replace(problem, operation="switches")).algorithm == "native"):
        return applied(Found)(x, problem)[0]
    return applied(Maximum)(x, problem)


def by_marks(problem: Problem) -> bool:
    """Whether a maximum that will be differentiated may come with marks, whose gradient no scatter equals."""
    return native_pools.marked(problem) and "native" not in dict(choose(problem).refusals)


def places(x: Tensor, problem: Problem) -> Tensor:
    """The flat position of each window's largest value, by the plan of "switches"; it has no derivative."""
    return applied(Switches)(x, problem)


def select(x: Tensor, switches: Tensor, windows: Windows) -> Tensor:
    """What stands at the switches."""
    if isinstance(windows, Planned):
        switches = native_pools.switches_of(switches, windows.problem)
    return applied(Select)(x, switches, windows)


def spread(y: Tensor, switches: Tensor, windows: Windows) -> Tensor:
    """The adjoint of :func:`select`."""
    return applied(Spread)(y, switches, windows)


def total(x: Tensor, problem: Problem) -> Tensor:
    """The sum of each window over the problem's divisor, or the adjoint, by the plan of a "sum"."""
    return applied(Sum)(x, problem)


def norm(x: Tensor, problem: Problem) -> Tensor:
    """The root of each window's sum of squares by the compiled kernels; where it is 0 so is the gradient.

    Args:
        x: What they take.
        problem: The forward problem of its "sum".
    """
    return applied(Norm)(x, problem)


def move(x: Tensor, origin: Tensor, goal: Tensor) -> Tensor:
    """``y[j] = x[origin[j]]``, 0 where the origin is -1, over the last of three dimensions.

    Args:
        x: ``(N, C, M)``.
        origin: ``(N, C, L)``; no two are the same, -1 apart.
        goal: ``(N, C, M)``, the inverse: where each value of x goes, or -1.
    """
    return applied(Move)(x, origin, goal)


def inverse(switches: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What :func:`move` needs to put each value at its switch; of several with one switch the first has it.

    Args:
        switches: ``(N, C, M)``.
        size: Places.

    Returns:
        ``(N, C, size)``, which value each place holds, and ``(N, C, M)``, where each value stands; -1 is nothing.

    Raises:
        GeometryError: A switch is no place.
    """
    return applied(Inverse)(switches, size)


class Windows(Protocol):
    """What switches belong to: it knows how to spread outputs back over the inputs."""

    def spread(self, y: Tensor, switches: Tensor) -> Tensor:
        """``x[i] = sum of y[o] over the windows with switches[o] = i``, in a fixed order."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The windows of a geometry; a plan says how to spread.

    Args:
        problem: The forward problem of its "switches".
        native: Whether the compiled kernels found the switches or marks, and spread them too.
    """

    problem: Problem
    native: bool = False

    def spread(self, y: Tensor, switches: Tensor) -> Tensor:
        """Run the plan of the switches' input gradient."""
        if self.native:
            return native_pools.collect(y, switches, self.problem)
        backward = replace(self.problem, operation="switches", direction="input_gradient", dtype=y.dtype)
        return run(y, switches, backward)


def run(first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
    """By the planned algorithm; a result that is a view (of windows of one value) becomes a tensor of its own."""
    found = find(problem.operation, choose(problem).algorithm).run(first, second, problem)
    return found.clone() if found is first or found._is_view() else found


class Maximum(torch.autograd.Function):
    """:func:`largest`."""

    @staticmethod
    def forward(x: Tensor, problem: Problem) -> Tensor:
        """Run the plan."""
        return run(x, None, problem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the input: the switches are found again when they are needed."""
        x, ctx.problem = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None]:
        """Each gradient goes to its window's switch."""
        return spread(outputs[0], _switches(ctx), Planned(ctx.problem)), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, problem: Problem) -> tuple[Tensor, int]:
        """The mapped dimension is more batch."""
        return _mapped(info, in_dims, (x,), lambda x: largest(x, problem))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """What the tangent has at the switches."""
        return select(tangents[0], _switches(ctx), Planned(ctx.problem))


def _switches(ctx: Any) -> Tensor:
    return places(ctx.saved_tensors[0].detach(), replace(ctx.problem, operation="switches"))


class Found(torch.autograd.Function):
    """:func:`largest` where one pass gives the switches with the values, for the derivatives."""

    @staticmethod
    def forward(x: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """Values and switches, or marks."""
        return native_pools.largest_and_places(x, problem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the switches; the input need not stay."""
        ctx.problem = inputs[1]
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # else there would be zeros for the switches
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor | None, None]:
        """Each gradient goes to its window's switch."""
        if outputs[0] is None:
            return None, None
        return spread(outputs[0], ctx.saved_tensors[0], Planned(ctx.problem, native=True)), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, problem: Problem) -> tuple[Any, tuple[int, int]]:
        """The mapped dimension is more batch."""
        moved = x.movedim(in_dims[0], 0)
        found = applied(Found)(moved.flatten(0, 1), problem)
        return tuple(one.unflatten(0, moved.shape[:2]) for one in found), (0, 0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        """What the tangent has at the switches."""
        return select(tangents[0], ctx.saved_tensors[0], Planned(ctx.problem, native=True)), None


class Switches(torch.autograd.Function):
    """:func:`places`."""

    @staticmethod
    def forward(x: Tensor, problem: Problem) -> Tensor:
        """Run the plan."""
        return run(x, None, problem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Say that places have no derivative."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[None, None]:
        """There is none."""
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, problem: Problem) -> tuple[Tensor, int]:
        """The mapped dimension is more batch."""
        return _mapped(info, in_dims, (x,), lambda x: places(x, problem))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        """There is none."""
        return


class Select(torch.autograd.Function):
    """:func:`select`."""

    @staticmethod
    def forward(x: Tensor, switches: Tensor, windows: Windows) -> Tensor:
        """Gather; channels-last stays so."""
        values = x.flatten(2).gather(2, switches.flatten(2)).view(switches.shape)
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return values.contiguous(memory_format=torch.channels_last) if last else values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the switches."""
        _, switches, ctx.windows = inputs
        ctx.save_for_backward(switches)
        ctx.save_for_forward(switches)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None, None]:
        """The adjoint."""
        return spread(outputs[0], ctx.saved_tensors[0], ctx.windows), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, switches: Tensor, windows: Windows) -> tuple[Tensor, int]:
        """The mapped dimension is more batch."""
        return _mapped(info, in_dims, (x, switches), lambda x, s: select(x, s, windows))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """The same of the tangent."""
        return select(tangents[0], ctx.saved_tensors[0], ctx.windows)


class Spread(Select):
    """:func:`spread`."""

    @staticmethod
    def forward(x: Tensor, switches: Tensor, windows: Windows) -> Tensor:
        """Add each value at its switch."""
        return windows.spread(x, switches)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None, None]:
        """The adjoint."""
        return select(outputs[0], ctx.saved_tensors[0], ctx.windows), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, switches: Tensor, windows: Windows) -> tuple[Tensor, int]:
        """The mapped dimension is more batch."""
        return _mapped(info, in_dims, (x, switches), lambda y, s: spread(y, s, windows))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """The same of the tangent."""
        return spread(tangents[0], ctx.saved_tensors[0], ctx.windows)


class Sum(torch.autograd.Function):
    """:func:`total`."""

    @staticmethod
    def forward(x: Tensor, problem: Problem) -> Tensor:
        """Run the plan."""
        return run(x, None, problem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the window; no tensor is needed."""
        _, ctx.problem = inputs

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None]:
        """The adjoint, planned by itself."""
        other = {"forward": "input_gradient", "input_gradient": "forward"}[ctx.problem.direction]
        return total(outputs[0], replace(ctx.problem, direction=other)), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, problem: Problem) -> tuple[Tensor, int]:
        """The mapped dimension is more batch."""
        return _mapped(info, in_dims, (x,), lambda x: total(x, problem))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """The same of the tangent."""
        return total(tangents[0], ctx.problem)


class Norm(torch.autograd.Function):
    """:func:`norm`."""

    @staticmethod
    def forward(x: Tensor, problem: Problem) -> Tensor:
        """One pass."""
        return native_pools.norm(x, problem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep input and norms."""
        x, ctx.problem = inputs
        ctx.save_for_backward(x, output)
        ctx.save_for_forward(x, output)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None]:
        """``x[i] * sum of gradient[o] / y[o]``; in one pass, if nobody derives it again."""
        x, y = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return native_pools.norm_gradient(outputs[0], y, x, ctx.problem), None
        return x * total(_over(outputs[0], y), replace(ctx.problem, direction="input_gradient")), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, problem: Problem) -> tuple[Tensor, int]:
        """The mapped dimension is more batch."""
        return _mapped(info, in_dims, (x,), lambda x: norm(x, problem))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """``sum of x[i] * tangent[i] / y[o]``."""
        x, y = ctx.saved_tensors
        return _over(total(x * tangents[0], ctx.problem), y)


def _over(x: Tensor, y: Tensor) -> Tensor:
    """The quotient, 0 where the divisor is."""
    return torch.where(y == 0, 0, x / torch.where(y == 0, 1, y))


class Move(torch.autograd.Function):
    """:func:`move`."""

    @staticmethod
    def forward(x: Tensor, origin: Tensor, goal: Tensor) -> Tensor:
        """Gather what has an origin."""
        return torch.where(origin < 0, 0, x.gather(2, origin.clamp(min=0))) if x.shape[2] else x.new_zeros(origin.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep both ways."""
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None, None]:
        """The way back."""
        origin, goal = ctx.saved_tensors
        return move(outputs[0], goal, origin), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *operands: Tensor) -> tuple[Tensor, int]:
        """The mapped dimension is more batch."""
        return _mapped(info, in_dims, operands, move)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """The same of the tangent."""
        return move(tangents[0], *ctx.saved_tensors)


class Inverse(torch.autograd.Function):
    """:func:`inverse`."""

    @staticmethod
    def forward(switches: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The smallest index among those of equal switch: the order in which they are compared does not matter."""
        _require_places(switches, size)
        count = switches.shape[2]
        order = torch.arange(count, device=switches.device).expand_as(switches)
        first = switches.new_full((*switches.shape[:2], size), count).scatter_reduce(2, switches, order, "amin")
        return torch.where(first == count, -1, first), torch.where(first.gather(2, switches) == order, switches, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Say that places have no derivative."""
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[None, None]:
        """There is none."""
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], switches: Tensor, size: int) -> tuple[Any, tuple[int, int]]:
        """The mapped dimension is more batch."""
        moved = switches.movedim(in_dims[0], 0)
        origin, goal = inverse(moved.flatten(0, 1), size)
        return (origin.unflatten(0, moved.shape[:2]), goal.unflatten(0, moved.shape[:2])), (0, 0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, None]:
        """There is none."""
        return None, None


def _require_places(switches: Tensor, size: int) -> None:
    """Values can be looked at only where there are any: neither on meta tensors nor while a graph is traced."""
    if torch.compiler.is_compiling() or switches.is_meta or isinstance(switches, FakeTensor) or not switches.numel():
        return
    low, high = (int(end) for end in switches.aminmax())
    if low < 0 or high >= size:
        raise GeometryError(
            f"max_unpool: the switches reach from {low} to {high}, but the output has the places 0 to {size - 1}; "
            "give the output_size of the map that was pooled."
        )


def _mapped(
    info: Any, in_dims: tuple[Any, ...], tensors: tuple[Tensor, ...], function: Callable[..., Tensor]
) -> tuple[Tensor, int]:
    """Call with the mapped dimension of each tensor folded into its batch, and unfold the result's."""
    moved = [
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, in_dims, strict=False)
    ]
    out = function(*(t.flatten(0, 1) for t in moved))
    return out.unflatten(0, moved[0].shape[:2]), 0
