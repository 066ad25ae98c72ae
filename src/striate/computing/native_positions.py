"""Small and local layers by the compiled kernels whose lanes are examples and strips of positions."""

from __future__ import annotations

from .interface import register
from .native import Native


class Positions(Native):
    """``out[o] += weight[o mod period][tap] * x[i]`` for as many examples, or strips of them, as a register has lanes.

    The weights are broadcast, so that any period and any number of channels fill the register: local layers read every
    weight once, tiled layers and convolutions keep the kernels of a residue close. All directions, all windows.
    """

    def __init__(self) -> None:
        super().__init__("positions", sums=8)


register("convolution", "native_positions", Positions())
