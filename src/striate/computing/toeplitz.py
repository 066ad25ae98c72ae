"""The layer's own matrix, written out and multiplied with: dense, or with its zeros left out.

Source: I. Goodfellow et al., "Deep Learning", 2016, section 9.1 (convolution as a Toeplitz matrix).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import matrices
from .interface import Base, Problem, register
from .reference import accumulator


class Toeplitz(Base):
    """``out = M x`` and ``x = M^T out`` with the dense matrix of :func:`striate.matrix`.

    A NaN or infinity of the input meets the zeros of the matrix, and so reaches outputs that do not read it.
    """

    exact = False
    by_name = True

    def refuses(self, problem: Problem) -> str | None:
        if problem.direction == "weight_gradient":
            return "the matrix is made of the weights, so that it gives no weight gradient."
        height, width = _layer(problem).shape
        if height * width > matrices.LARGEST:
            return (
                f"the dense matrix would be {height} x {width}, {height * width:,} entries; "
                f"at most {matrices.LARGEST:,} are made."
            )
        return None

    def estimate(self, problem: Problem) -> int | None:
        """Every entry of the matrix once for each example, and once to write it."""
        height, width = _layer(problem).shape
        return height * width * (problem.batch + 1)

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        return matrices.dense(second.to(accumulator(second.dtype)), _layer(problem))

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        prepared = first.new_zeros(_layer(problem).shape) if second is None else second
        forward = problem.direction == "forward"
        rows = first.flatten(1).to(prepared.dtype)
        solved = self.product(prepared if forward else prepared.t(), rows.t()).t()
        shape = (problem.out_channels, *problem.output_size) if forward else (problem.in_channels, *problem.size)
        return solved.reshape(first.shape[0], *shape).to(first.dtype)

    def product(self, matrix: Tensor, examples: Tensor) -> Tensor:
        """The matrix times the examples, one per column."""
        return matrix @ examples


class SparseToeplitz(Toeplitz):
    """The same with the sparse matrix, which holds only what some tap reads."""

    exact = True

    def refuses(self, problem: Problem) -> str | None:
        if problem.direction == "weight_gradient":
            return "the matrix is made of the weights, so that it gives no weight gradient."
        if not (problem.dtype.is_floating_point or problem.dtype.is_complex):
            return f"the tensors are {problem.dtype}; PyTorch's sparse products take floating-point or complex numbers."
        entries = _layer(problem).entries
        if entries > matrices.LARGEST:
            return f"the sparse matrix would hold {entries:,} entries; at most {matrices.LARGEST:,} are made."
        return None

    def estimate(self, problem: Problem) -> int | None:
        """The work of the definition, and every entry once to write it."""
        return problem.work + _layer(problem).entries

    def prepare(self, second: Tensor, problem: Problem) -> Tensor:
        return matrices.stored(second.to(accumulator(second.dtype)), _layer(problem))

    def product(self, matrix: Tensor, examples: Tensor) -> Tensor:
        return torch.sparse.mm(matrix, examples)


def _layer(problem: Problem) -> matrices.Layer:
    return matrices.Layer(problem.geometry, problem.in_channels, problem.out_channels, problem.size)


register("convolution", "toeplitz", Toeplitz())
register("convolution", "toeplitz_sparse", SparseToeplitz())
