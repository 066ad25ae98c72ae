"""Kernels that are sums of few products of one-axis kernels: a pass along each axis instead of the whole window."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import permutations
from math import prod

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ..errors import AlgorithmError
from ..geometry import Axis, Geometry
from .interface import Base, Problem, register
from .reference import accumulator
from .vendor import Convolution

VENDOR = Convolution()


class Separable(Base):
    """``weight[o, c] = sum over r <= R of a[r, o, c] (x) b[r, o, c]``, the terms of the singular value decomposition.

    Each term is a pass along one axis and then along the next, so that a window of ``K x K`` taps costs ``2 K R``
    multiply-adds instead of ``K^2``. ``R`` is the largest rank of any filter and channel; over more than two axes the
    right singular vectors are decomposed again. Source: R. Rigamonti et al., "Learning Separable Filters", 2013; the
    decomposition: C. Eckart and G. Young, 1936.

    Terms below the rounding of the weights' type are dropped, and what a kernel computes at its zeros is rounding too:
    sums of whole numbers are not exact, and a NaN reaches the outputs whose window reads its row or column.
    """

    exact = False
    by_name = True

    def refuses(self, problem: Problem) -> str | None:
        axes = len(problem.size)
        if problem.direction == "weight_gradient":
            return "the output's gradient, which takes the place of the weights, is not separable."
        if not (problem.dtype.is_floating_point or problem.dtype.is_complex):
            return f"the tensors are {problem.dtype}; singular values need floating-point or complex numbers."
        if (reason := VENDOR.refuses(problem)) or axes == 1:
            return reason or "the window has 1 spatial axis; there is nothing to separate."
        one = replace(problem, batch=1)
        cost = sum(step.work for _, step in passes(one, 1))
        if cost < one.work:
            return None
        return f"even one separable term takes {cost:,} multiply-adds an example; the whole window takes {one.work:,}."

    def estimate(self, problem: Problem) -> int | None:
        """The number of terms stands in the values of the weights."""
        return None

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        """The factors ``(R, O, C/g, sum(K))``, those of the axes side by side.

        Raises:
            AlgorithmError: The kernels need so many terms that no work is saved, or have no finite values to look at.
        """
        factors = decompose(second, len(problem.size))
        terms, one = len(factors), replace(problem, batch=1)
        most = (one.work - 1) // sum(step.work for _, step in passes(one, 1))
        if terms > most:
            raise AlgorithmError(
                f"algorithm='separable' cannot serve these weights: the kernels need up to {terms} separable terms; "
                f"with kernel {problem.geometry.kernel} only {most} or fewer save multiply-adds over this input."
            )
        return factors.to(accumulator(second.dtype))

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        factors = first.new_zeros(0) if second is None else second
        parts, steps = factors.split(problem.geometry.kernel, dim=-1), passes(problem, len(factors))
        weights = [_pass_weight(parts[axis], number, problem) for number, (axis, _) in enumerate(steps)]
        calls = list(zip(weights, (step for _, step in steps), strict=True))
        solved, groups = first.to(factors.dtype), problem.geometry.groups
        channels, filters = problem.in_channels // groups, problem.out_channels // groups
        if problem.direction == "forward":
            solved = _swapped(VENDOR.run(solved, *calls[0]), groups, channels, filters)
            for weight, step in calls[1:]:
                solved = VENDOR.run(solved, weight, step)
        else:
            for weight, step in reversed(calls[1:]):
                solved = VENDOR.run(solved, weight, step)
            solved = VENDOR.run(_swapped(solved, groups, filters, channels), *calls[0])
        return solved.to(first.dtype)


def ranks(weight: Tensor) -> Tensor:
    """Separable terms that each filter and channel needs: for two axes the rank of its kernel.

    Args:
        weight: ``(O, C/groups, *K)`` with at least two axes.

    Raises:
        AlgorithmError: The weights have no values, as under a compiler.

    >>> ranks(torch.tensor([[[[1.0, 2.0], [2.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]]]))
    tensor([[1, 2]])
    """
    return (decompose(weight, weight.dim() - 2) != 0).flatten(3).any(-1).sum(0)


def decompose(weight: Tensor, axes: int) -> Tensor:
    """The terms ``(R, O, C/g, sum(K))`` of every filter, those of the axes side by side, zeros where it needs fewer.

    Singular values count above ``eps * max(K)`` times the largest, eps being that of the weights' type.
    """
    if weight.is_meta or isinstance(weight, FakeTensor) or torch.compiler.is_compiling():
        raise AlgorithmError(
            "algorithm='separable' cannot serve these weights: it looks at their values, and meta tensors and those "
            "that a compiler traces have none; choose another algorithm there."
        )
    kernel = weight.shape[-axes:]
    exact = weight.detach().to(torch.complex128 if weight.is_complex() else torch.float64)
    if not exact.isfinite().all():
        raise AlgorithmError(
            "algorithm='separable' cannot serve these weights: some are NaN or infinite, which has no singular values."
        )
    filters = exact.reshape(1, prod(weight.shape[:-axes]), *kernel)
    largest = torch.linalg.svdvals(filters.flatten(3))[..., :1]
    limit = largest[0] * torch.finfo(weight.dtype).eps * max(kernel)
    terms = _compact(_terms(filters, limit))
    return terms.view(len(terms), *weight.shape[:-axes], sum(kernel))


def _terms(kernels: Tensor, limit: Tensor) -> Tensor:
    """``(R, F, K1, ...)`` as ``(R', F, K1 + ...)``: the left singular vectors, each with the terms of its right one."""
    if kernels.dim() == 3:
        return kernels
    left, values, right = torch.linalg.svd(kernels.flatten(3), full_matrices=False)
    weighted = torch.where(values > limit, values, 0).unsqueeze(-1) * right
    rest = weighted.unflatten(-1, kernels.shape[3:]).movedim(2, 0).flatten(0, 1)
    inner = _terms(rest, limit)
    outer = left.permute(3, 0, 1, 2).flatten(0, 1)
    repeated = outer.repeat(len(inner) // len(outer), 1, 1)
    kept = inner.ne(0).any(-1, keepdim=True)
    return torch.cat((torch.where(kept, repeated, 0), inner), -1)


def _compact(terms: Tensor) -> Tensor:
    """Each filter's own terms first, and no more places than the longest list needs; one even for zero kernels."""
    there = terms.ne(0).any(-1)
    order = there.to(torch.int8).argsort(dim=0, descending=True, stable=True)
    longest = max(1, int(there.sum(0).max())) if there.shape[1] else 1
    return terms.take_along_dim(order[:longest].unsqueeze(-1), 0)


@lru_cache(maxsize=1024)
def passes(problem: Problem, terms: int) -> tuple[tuple[int, Problem], ...]:
    """The axis and the problem of each pass, in the order that takes the least work.

    The first pass makes, of every input channel, a map for each term of each filter that reads it; the last one adds
    the maps of a filter up; those between keep them apart.
    """
    orders = (_passes(problem, terms, order) for order in permutations(range(len(problem.size))))
    return min(orders, key=lambda steps: sum(step.work for _, step in steps))


def _passes(problem: Problem, terms: int, order: tuple[int, ...]) -> tuple[tuple[int, Problem], ...]:
    maps = terms * problem.out_channels * problem.in_channels // problem.geometry.groups
    size, steps = list(problem.size), []
    for number, axis in enumerate(order):
        inputs = problem.in_channels if number == 0 else maps
        outputs = problem.out_channels if number == len(order) - 1 else maps
        axes = tuple(a if place == axis else Axis(1) for place, a in enumerate(problem.geometry.axes))
        step = replace(
            problem,
            geometry=Geometry(axes, groups=max(1, min(inputs, outputs))),
            in_channels=inputs,
            out_channels=outputs,
            size=tuple(size),
        )
        size[axis] = step.output_size[axis]
        steps.append((axis, step))
    return tuple(steps)


def _pass_weight(part: Tensor, number: int, problem: Problem) -> Tensor:
    """The factors ``(R, O, C/g, K)`` of one axis as the weights of its pass, in the order of that pass's maps.

    The first pass orders the maps by channel, filter and term, the others by filter, channel and term.
    """
    axes, groups = len(problem.size), problem.geometry.groups
    split = part.unflatten(1, (groups, problem.out_channels // groups))
    ordered = split.permute(1, 3, 2, 0, 4) if number == 0 else split.permute(1, 2, 3, 0, 4)
    last = number == axes - 1
    rows = ordered.flatten(0, 1).flatten(1, 2) if last else ordered.flatten(0, 3).unsqueeze(1)
    axis = passes(problem, len(part))[number][0]
    return rows.view(*rows.shape[:2], *(rows.shape[2] if place == axis else 1 for place in range(axes)))


def _swapped(maps: Tensor, groups: int, first: int, second: int) -> Tensor:
    """Maps ordered by (group, first, second, term), ordered by (group, second, first, term)."""
    terms = maps.shape[1] // max(1, groups * first * second)
    return maps.unflatten(1, (groups, first, second, terms)).transpose(2, 3).flatten(1, 4)


register("convolution", "separable", Separable())
