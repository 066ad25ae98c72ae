"""Kernels turned in the plane, and the pooling over their angles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .convolution import conv
from .errors import GeometryError
from .layers import CONV, PerAxis


class RotationPool(nn.Module):
    """A filter bank turned to several angles, and for each filter the angle that answers most.

        out[n, o, p] = bias[o] + max over angles a of sum over c, t of rotated(weight, a)[o, c, t] * x[n, c, p + t]

    O * C * K ** axes weights whatever the number of angles: only the base bank is learned. I. Goodfellow, Y. Bengio and
    A. Courville, "Deep Learning", 2016, figure 9.9, learns a filter for each angle; here they are one filter, turned
    (D. Marcos, M. Volpi and D. Tuia, "Learning Rotation Invariant Convolutional Filters for Texture
    Classification", 2016).

    Angles are in degrees, counterclockwise, in the plane of the last two axes. Multiples of 90 turn the taps exactly;
    in between, taps are interpolated bilinearly, and what would come from outside the kernel is 0. With all four
    multiples of 90, an odd kernel and stride 1, turning the input by 90 degrees turns the output.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps per axis.
        angles: Degrees.
        stride: Step between windows.
        padding: As in :func:`striate.conv`.
        groups: Blocks of channels that do not mix.
        bias: Learn one bias per output channel.
        axes: Spatial axes, 2 or 3.

    Raises:
        GeometryError: There is no angle, one is no finite number, or fewer than two axes to turn.

    >>> block = RotationPool(3, 8, 3)
    >>> block(torch.zeros(1, 3, 9, 9)).shape, sum(p.numel() for p in block.parameters())  # 8 * 3 * 9 + 8
    (torch.Size([1, 8, 9, 9]), 224)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        angles: Sequence[float] = (0, 90, 180, 270),
        stride: PerAxis = 1,
        padding: Any = "same",
        groups: int = 1,
        bias: bool = True,
        axes: int = 2,
    ) -> None:
        super().__init__()
        if axes not in (2, 3):
            raise GeometryError(
                f"RotationPool: a rotation needs a plane, that of the last 2 of 2 or 3 axes; got {axes!r}."
            )
        if not angles or not all(type(a) in (int, float) and math.isfinite(a) for a in angles):
            raise GeometryError(f"RotationPool: angles must be one or more finite numbers of degrees, got {angles!r}.")
        if type(kernel_size) is not int:
            raise GeometryError(f"RotationPool: kernel_size must be one whole number, got {kernel_size!r}.")
        self.angles = tuple(angles)
        self.bank = CONV[axes](
            in_channels, out_channels, kernel_size, stride, padding=padding, groups=groups, bias=bias
        )
        # No buffers: those would lose digits when the module is moved to fewer and back.
        self.turns = tuple(_turned(kernel_size, angle % 90) if angle % 90 else None for angle in self.angles)

    def rotated(self) -> Tensor:
        """The bank at every angle, ``(O, angles, C/groups, *K)``."""
        weight = self.bank.weight
        return torch.stack([self._rotate(weight, n, angle) for n, angle in enumerate(self.angles)], dim=1)

    def _rotate(self, weight: Tensor, number: int, angle: float) -> Tensor:
        matrix = self.turns[number]
        if matrix is not None:
            turned = weight.flatten(-2) @ matrix.to(weight).T
            weight = turned.unflatten(-1, weight.shape[-2:])
        return weight.rot90(int(angle // 90) % 4, (-2, -1))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``."""
        answers = conv(x, self.rotated().flatten(0, 1), **self.bank.options())
        channels = x.dim() - len(self.bank.kernel_size) - 1
        best = answers.unflatten(channels, (-1, len(self.angles))).amax(channels + 1)
        bias = self.bank.bias
        return best if bias is None else best + bias.view(-1, *(1 for _ in best.shape[channels + 1 :]))

    def extra_repr(self) -> str:
        """The angles."""
        return f"angles={self.angles}"


def _turned(kernel: int, angle: float) -> Tensor:
    """``(taps, taps)``: a square kernel turned counterclockwise is this matrix times the flattened kernel."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    centre = (kernel - 1) / 2
    matrix = torch.zeros(kernel, kernel, kernel, kernel, dtype=torch.float64)
    for row in range(kernel):
        for column in range(kernel):
            x, y = column - centre, centre - row
            from_row, from_column = centre - (y * cosine - x * sine), centre + (x * cosine + y * sine)
            for r in (math.floor(from_row), math.floor(from_row) + 1):
                for c in (math.floor(from_column), math.floor(from_column) + 1):
                    if 0 <= r < kernel and 0 <= c < kernel:
                        matrix[row, column, r, c] += (1 - abs(from_row - r)) * (1 - abs(from_column - c))
    return matrix.view(kernel**2, kernel**2)
