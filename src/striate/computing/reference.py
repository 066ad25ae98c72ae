"""The definition, one tap at a time. Slow on purpose: every other algorithm is judged by these."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..taps import tap_slices
from .interface import Base, Problem, register


def tap_windows(problem: Problem) -> Iterator[tuple[Any, Any, Any]]:
    """Every tap of the kernel with the outputs and the inputs that it connects, as indices into the last axes."""
    geometry = problem.geometry
    spans = problem.output_size if geometry.transposed else problem.size
    for tap in product(*(range(axis.kernel) for axis in geometry.axes)):
        pairs = [tap_slices(axis, n, t) for axis, n, t in zip(geometry.axes, spans, tap, strict=True)]
        outputs, inputs = ((..., *side) for side in zip(*pairs, strict=True))
        index = (..., *tap)
        yield (index, inputs, outputs) if geometry.transposed else (index, outputs, inputs)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are kept in: float32 for the 16-bit types, else the type itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class Convolution(Base):
    """``out[o] += weight[tap] @ x[i]`` for every read ``(o, tap, i)``."""

    def refuses(self, problem: Problem) -> str | None:
        period = problem.geometry.period
        return None if prod(period) == 1 else f"the weights repeat with period {period}; it needs period 1."

    def run(self, x: Tensor, prepared: Tensor | None, problem: Problem) -> Tensor:
        weight = x.new_zeros(0) if prepared is None else prepared
        groups, wide = problem.geometry.groups, accumulator(x.dtype)
        grouped = x.to(wide).unflatten(1, (groups, -1))
        blocks = weight.to(wide).unflatten(0, (groups, -1))
        out = grouped.new_zeros(len(x), groups, problem.out_channels // groups, *problem.output_size)
        equation = "ngc...,gco->ngo..." if problem.geometry.transposed else "ngc...,goc->ngo..."
        for tap, outputs, inputs in tap_windows(problem):
            out[outputs] += torch.einsum(equation, grouped[inputs], blocks[tap])
        return out.flatten(1, 2).to(x.dtype)


register("convolution", "reference", Convolution())
