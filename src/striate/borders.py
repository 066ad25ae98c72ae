"""Rows around an image: of one value, or copied from inside as the padding modes ask for, and the adjoint of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import padding
from .graphs import applied

Rule = tuple[str, int, int, int]  # padding mode, positions, rows before, rows after


def pad(x: Tensor, rows: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad (or, where negative, crop) each spatial axis by ``(before, after)`` rows of a value."""
    flat = [n for pair in reversed(rows) for n in pair]
    if min(flat, default=0) < 0 < max(flat):  # first what is added, or a crop may exceed what there is
        return pad(F.pad(x, [max(n, 0) for n in flat], value=value), [(min(a, 0), min(b, 0)) for a, b in rows], value)
    return F.pad(x, flat, value=value) if any(flat) else x


LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
LAYOUTS = ("channels_first", "channels_last")


def layout_of(x: Tensor) -> str:
    """How a tensor ``(N, C, *spatial)`` lies in memory; where both would be true, or neither, channels stand first.

    A lone channel says by its stride, as PyTorch reads it: 1, although there is no other channel to step to, where it
    stands last.
    """
    if x.dim() < 3:
        return LAYOUTS[0]
    if x.is_contiguous():
        return LAYOUTS[1] if x.stride(1) == 1 and x.shape[1] == 1 and prod(x.shape[2:]) > 1 else LAYOUTS[0]
    steps = x.stride()
    return LAYOUTS[1] if steps[1] == 1 and min(steps[2:]) > 1 else LAYOUTS[0]


def laid_like(y: Tensor, x: Tensor) -> Tensor:
    """The result in the memory layout of the input: channels-last, or else in its own order."""
    if y.dim() != x.dim():
        return y
    try:
        wanted = format_of(x)
    except RuntimeError:  # under vmap a tensor does not say how it lies
        return y
    return y if wanted is None else laid(y, wanted)


def format_of(x: Tensor) -> torch.memory_format | None:
    """How results of x are to lie; None where PyTorch has no word for it."""
    layout = LAST.get(x.dim())
    last = layout is not None and layout_of(x) == LAYOUTS[1] and x.is_contiguous(memory_format=layout)
    return layout if last or layout is None else torch.contiguous_format


def laid(y: Tensor, wanted: torch.memory_format) -> Tensor:
    """A tensor that lies so."""
    try:
        return y.to(memory_format=wanted) if y.shape[1] == 1 else y.contiguous(memory_format=wanted)
    except RuntimeError:  # under vmap a tensor does not say how it lies
        return y


def plus(y: Tensor, bias: Tensor) -> Tensor:
    """A fresh result and a bias: in the result's memory, unless it is a view or a transform of functions looks on."""
    bias = bias.to(y.dtype)
    own = not y._is_view() and torch._C._functorch.peek_interpreter_stack() is None
    return y.add_(bias) if own else y + bias


class Copies(torch.autograd.Function):
    """Each position of an axis from its source. The gradient adds without atomics: the same bits on every device."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axis: int, rule: Rule) -> Tensor:
        """Copy."""
        return x.index_select(axis, torch.tensor(_sources(rule), device=x.device))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the rule."""
        _, ctx.axis, ctx.rule = inputs

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None, None]:
        """Add what was copied."""
        return _sums(outputs[0], ctx.axis, ctx.rule), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Copy the tangent."""
        return _copies(tangents[0], ctx.axis, ctx.rule)


class Sums(torch.autograd.Function):
    """The adjoint of :class:`Copies`: at each source, the sum over all its copies."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axis: int, rule: Rule) -> Tensor:
        """Add the first copies, then the second ones, and so on; of a source with many, all but the first at once."""
        ranks, crowded = _ranks(rule)
        total = _ranked(x, axis, ranks[0])
        for rank in ranks[1:]:
            total = total + _ranked(x, axis, rank)
        for source, places in crowded:
            rest = x.index_select(axis, torch.tensor(places, device=x.device)).sum(axis, keepdim=True)
            here = torch.arange(rule[1], device=x.device) == source
            total = total + torch.where(here.view(-1, *(1 for _ in x.shape[axis + 1 :])), rest, 0)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the rule."""
        _, ctx.axis, ctx.rule = inputs

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None, None]:
        """Copy the gradient."""
        return _copies(outputs[0], ctx.axis, ctx.rule), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Add the tangents."""
        return _sums(tangents[0], ctx.axis, ctx.rule)


def extend(x: Tensor, rules: Sequence[Rule]) -> Tensor:
    """``(N, C, *size)`` with the rows that each axis' rule asks for.

    >>> extend(torch.tensor([[[1.0, 2.0, 3.0]]]), [("reflect", 3, 1, 1)])
    tensor([[[2., 1., 2., 3., 2.]]])
    """
    for axis, rule in enumerate(rules, start=2):
        x = _copies(x, axis, rule)
    return x


def gather_back(x: Tensor, rules: Sequence[Rule]) -> Tensor:
    """The adjoint of :func:`extend`: ``(N, C, *extended)`` to ``(N, C, *size)``, copies added to their sources.

    >>> gather_back(torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]]), [("reflect", 3, 1, 1)])
    tensor([[[2., 9., 4.]]])
    """
    for axis, rule in enumerate(rules, start=2):
        x = _sums(x, axis, rule)
    return x


def _copies(x: Tensor, axis: int, rule: Rule) -> Tensor:
    function: Callable[..., Tensor] = applied(Copies)
    return function(x, axis, rule)


def _sums(x: Tensor, axis: int, rule: Rule) -> Tensor:
    function: Callable[..., Tensor] = applied(Sums)
    return function(x, axis, rule)


def _ranked(x: Tensor, axis: int, rank: Sequence[int]) -> Tensor:
    """The copies of one rank at their sources, 0 where there is none (-1)."""
    picked = x.index_select(axis, torch.tensor([max(place, 0) for place in rank], device=x.device))
    there = torch.tensor([place >= 0 for place in rank], device=x.device)
    return torch.where(there.view(-1, *(1 for _ in x.shape[axis + 1 :])), picked, 0)


@lru_cache(maxsize=32)
def _sources(rule: Rule) -> tuple[int, ...]:
    mode, size, before, after = rule
    return tuple(padding.sources(mode, size, before, after))


@lru_cache(maxsize=32)
def _ranks(rule: Rule) -> tuple[list[list[int]], list[tuple[int, list[int]]]]:
    """For each rank, where the copy of that rank of every source stands, -1 where there is none.

    If at most two sources have several copies, as the ends do in "replicate", those stand apart: the sources and their
    copies but the first.
    """
    places: list[list[int]] = [[] for _ in range(rule[1])]
    for place, source in enumerate(_sources(rule)):
        places[source].append(place)
    crowded = [(source, copies[1:]) for source, copies in enumerate(places) if len(copies) > 1]
    if len(crowded) <= 2:
        return [[copies[0] if copies else -1 for copies in places]], crowded
    most = max(map(len, places))
    return [[copies[rank] if rank < len(copies) else -1 for copies in places] for rank in range(most)], []
