"""Costs of one window layer: parameters, multiply-adds, bytes. All exact, from integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from .geometry import Geometry
from .taps import reads


@dataclass(frozen=True, slots=True)
class Cost:
    """What one layer costs.

    Args:
        parameters: Weights and biases.
        multiply_adds: Multiplications with their additions, padding counted as everywhere in the field;
            bias additions are not counted. FLOPs are twice as many.
        real_multiply_adds: Those of them that read a real input, not padding.
        input_bytes: Bytes of the input.
        parameter_bytes: Bytes of the parameters.
        output_bytes: Bytes of the output.
    """

    parameters: int
    multiply_adds: int
    real_multiply_adds: int
    input_bytes: int
    parameter_bytes: int
    output_bytes: int

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-add."""
        return 2 * self.multiply_adds

    @property
    def intensity(self) -> float:
        """Floating-point operations for each byte that has to move at least once."""
        return self.flops / (self.input_bytes + self.parameter_bytes + self.output_bytes)


def parameters(geometry: Geometry, in_channels: int, out_channels: int, *, bias: bool = True) -> int:
    """Learned numbers: ``prod(period) * (O * C / groups * prod(K) + O)``.

    >>> parameters(Geometry.window(2, 11, stride=4), 3, 96)
    34944
    """
    biases = out_channels * prod(geometry.period) if bias else 0
    return prod(geometry.weight_shape(in_channels, out_channels)) + biases


def multiply_adds(geometry: Geometry, in_channels: int, out_channels: int, size: Sequence[int]) -> int:
    """Multiply-adds for one picture: ``positions * O * C / groups * prod(K)``, padding counted.

    The positions are the outputs; of a transposed window, the inputs.

    >>> multiply_adds(Geometry.window(2, 5, padding=2), 100, 100, (64, 64))
    1024000000
    """
    outputs = geometry.output_size(size)
    pairs = prod(geometry.weight_shape(in_channels, out_channels)[-len(size) - 2 :])
    return prod(size if geometry.transposed else outputs) * pairs


def real_multiply_adds(geometry: Geometry, in_channels: int, out_channels: int, size: Sequence[int]) -> int:
    """Multiply-adds that read a real input rather than padding (or write a position that is kept).

    >>> real_multiply_adds(Geometry.window(1, 3, padding=1), 1, 1, (5,))
    13
    """
    outputs = geometry.output_size(size)
    geometry.weight_shape(in_channels, out_channels)
    spans = outputs if geometry.transposed else tuple(size)
    pairs = prod(reads(axis, n) for axis, n in zip(geometry.axes, spans, strict=True))
    return pairs * (in_channels // geometry.groups) * out_channels


def cost(
    geometry: Geometry,
    in_channels: int,
    out_channels: int,
    size: Sequence[int],
    *,
    batch: int = 1,
    bias: bool = True,
    element_bytes: int = 4,
) -> Cost:
    """All costs of one layer.

    Args:
        geometry: The window.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        size: Input positions per axis.
        batch: Pictures.
        bias: Whether there is a bias.
        element_bytes: Bytes of one number; 4 for float32.

    Raises:
        GeometryError: The window does not fit the size, or the groups do not divide the channels.

    >>> cost(Geometry.window(2, 3, padding=1), 3, 64, (224, 224)).parameters
    1792
    """
    learned = parameters(geometry, in_channels, out_channels, bias=bias)
    return Cost(
        parameters=learned,
        multiply_adds=batch * multiply_adds(geometry, in_channels, out_channels, size),
        real_multiply_adds=batch * real_multiply_adds(geometry, in_channels, out_channels, size),
        input_bytes=element_bytes * batch * in_channels * prod(size),
        parameter_bytes=element_bytes * learned,
        output_bytes=element_bytes * batch * out_channels * prod(geometry.output_size(size)),
    )
