"""Depthwise and small groups by the compiled kernels that have channels in the lanes of their vectors."""

from __future__ import annotations

from math import prod

from .interface import Problem, register
from .native import Native

MOST = 16  # channels of a group, on either side


class Channels(Native):
    """``out[o, lane] += weight[tap, lane] * x[i, lane]``: as many channels at once as a vector has lanes."""

    def __init__(self) -> None:
        super().__init__("channels", sums=32)

    def refuses(self, problem: Problem) -> str | None:
        """Weights that differ between positions, and groups too large to be taken channel by channel."""
        if reason := super().refuses(problem):
            return reason
        geometry = problem.geometry
        if prod(geometry.period) > 1:
            return f"the weights repeat with period {geometry.period}; channels in the lanes share them with period 1."
        each = problem.in_channels // geometry.groups, problem.out_channels // geometry.groups
        if max(each) > MOST:
            return (
                f"a group has {each[0]} input and {each[1]} output channels; "
                f"channels in the lanes pay off up to {MOST} of each."
            )
        return None


register("convolution", "native_channels", Channels())
