"""Rows around an image: of one value, or copied from inside as the padding modes ask for, and the adjoint of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Sources = tuple[tuple[int, ...], ...]


def pad(x: Tensor, rows: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad (or, where negative, crop) each spatial axis by ``(before, after)`` rows of a value."""
    flat = [n for pair in reversed(rows) for n in pair]
    if min(flat, default=0) < 0 < max(flat):  # first what is added, or a crop may exceed what there is
        return pad(F.pad(x, [max(n, 0) for n in flat], value=value), [(min(a, 0), min(b, 0)) for a, b in rows], value)
    return F.pad(x, flat, value=value) if any(flat) else x


class Copies(torch.autograd.Function):
    """Each position of an axis from its source. The gradient adds without atomics: the same bits on every device."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axis: int, sources: tuple[int, ...]) -> Tensor:
        """Copy."""
        return x.index_select(axis, torch.tensor(sources, device=x.device))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the size, which the sources alone do not tell."""
        x, ctx.axis, ctx.sources = inputs
        ctx.size = x.shape[ctx.axis]

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None, None]:
        """Add what was copied."""
        return _sums(outputs[0], ctx.axis, ctx.sources, ctx.size), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Copy the tangent."""
        return _copies(tangents[0], ctx.axis, ctx.sources)


class Sums(torch.autograd.Function):
    """The adjoint of :class:`Copies`: at each source, the sum over all its copies."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axis: int, sources: tuple[int, ...], size: int) -> Tensor:
        """Add the first copies, then the second ones, and so on."""
        total = None
        for rank in _ranks(sources, size):
            picked = x.index_select(axis, torch.tensor([max(place, 0) for place in rank], device=x.device))
            there = torch.tensor([place >= 0 for place in rank], device=x.device)
            kept = torch.where(there.view(-1, *(1 for _ in x.shape[axis + 1 :])), picked, 0)
            total = kept if total is None else total + kept
        return x.new_zeros(()) if total is None else total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the sources."""
        _, ctx.axis, ctx.sources, ctx.size = inputs

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, None, None, None]:
        """Copy the gradient."""
        return _copies(outputs[0], ctx.axis, ctx.sources), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Add the tangents."""
        return _sums(tangents[0], ctx.axis, ctx.sources, ctx.size)


def extend(x: Tensor, sources: Sources) -> Tensor:
    """``(N, C, *size)`` with each spatial position taken from its source.

    >>> extend(torch.tensor([[[1.0, 2.0, 3.0]]]), ((1, 0, 1, 2, 1),))
    tensor([[[2., 1., 2., 3., 2.]]])
    """
    for axis, positions in enumerate(sources, start=2):
        x = _copies(x, axis, positions)
    return x


def gather_back(x: Tensor, sources: Sources, size: tuple[int, ...]) -> Tensor:
    """The adjoint of :func:`extend`: ``(N, C, *extended)`` to ``(N, C, *size)``, copies added to their sources.

    >>> gather_back(torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]]), ((1, 0, 1, 2, 1),), (3,))
    tensor([[[2., 9., 4.]]])
    """
    for axis, (positions, n) in enumerate(zip(sources, size, strict=True), start=2):
        x = _sums(x, axis, positions, n)
    return x


def _copies(x: Tensor, axis: int, sources: tuple[int, ...]) -> Tensor:
    function: Callable[..., Tensor] = Copies.apply
    return function(x, axis, sources)


def _sums(x: Tensor, axis: int, sources: tuple[int, ...], size: int) -> Tensor:
    function: Callable[..., Tensor] = Sums.apply
    return function(x, axis, sources, size)


def _ranks(sources: tuple[int, ...], size: int) -> list[list[int]]:
    """For each rank, where the copy of that rank of every source stands, -1 where there is none."""
    ranks: list[list[int]] = []
    seen = [0] * size
    for place, source in enumerate(sources):
        if seen[source] == len(ranks):
            ranks.append([-1] * size)
        ranks[seen[source]][source] = place
        seen[source] += 1
    return ranks
