"""Minimal filtering of dense 3x3 windows, compiled: the transforms of :mod:`.winograd` without leaving the cache."""

from __future__ import annotations

from math import prod

from .interface import Problem, register
from .native import Native
from .winograd import F23, F43, Filtering, Winograd


class NativeWinograd(Native):
    """``output = A^T [ (G g) * (B^T d) ]`` in tiles along two axes; a NaN spreads over the tiles that read it.

    Args:
        filtering: ``F(2,3)`` or ``F(4,3)``.
    """

    exact = False

    def __init__(self, filtering: Filtering) -> None:
        super().__init__(f"winograd{filtering.outputs}")
        self.plain = Winograd(filtering)

    def __repr__(self) -> str:
        return f"compiled {self.plain}"

    def refuses(self, problem: Problem) -> str | None:
        geometry = problem.geometry
        if geometry.kernel != (3, 3):
            return f"the kernel is {geometry.kernel}; {self} takes (3, 3)."
        if geometry.groups > 1 and prod(geometry.period) == 1:
            return f"there are {geometry.groups} groups; {self} multiplies all channels together."
        return self.plain.refuses(problem) or super().refuses(problem)

    def error(self, problem: Problem) -> float:
        return self.plain.error(problem)

    def workspace(self, problem: Problem) -> int:
        """The transformed weights; what a block of tiles takes stays in the cache."""
        return 36 * max(4, problem.dtype.itemsize) * problem.in_channels * problem.out_channels

    def estimate(self, problem: Problem) -> int:
        return self.plain.estimate(problem)


register("convolution", "native_winograd2", NativeWinograd(F23))
register("convolution", "native_winograd", NativeWinograd(F43))
