"""Both gradients of a convolution are convolutions again; here are their geometries.

For ``y = conv(x, w)`` with ``g = dJ/dy`` (V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep
learning", 2016, sections 4 and 5; for strides, I. Goodfellow et al., "Deep Learning", 2016, section 9.5):

    dJ/dx = the transposed convolution of g with w                  (input gradient)
    dJ/dw = the convolution of x with g as the kernel, stride and dilation exchanged,
            batch and channels exchanged                            (weight gradient)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from .errors import GeometryError
from .geometry import Axis, Geometry


def input_gradient(geometry: Geometry, size: Sequence[int]) -> Geometry:
    """The geometry that turns the output's gradient into the input's, with the same weights.

    It is the adjoint, written so that it yields exactly ``size``: rows after the last window get a zero gradient.

    Args:
        geometry: The forward window.
        size: Input positions per axis of the forward call.

    >>> forward = Geometry.window(1, 3, stride=2)
    >>> input_gradient(forward, (8,)).output_size(forward.output_size((8,)))
    (8,)
    """
    return replace(geometry, axes=_exact(geometry, size), transposed=not geometry.transposed)


def weight_gradient(geometry: Geometry, size: Sequence[int]) -> Geometry:
    """The geometry that turns input and output gradient into the weight's gradient.

    For a transposed window the two change roles: the output's gradient is convolved with the input as the kernel.
    With ``flip`` the result is the gradient of the turned kernel.

    Args:
        geometry: The forward window.
        size: Input positions per axis of the forward call.

    Raises:
        GeometryError: The weights are not shared by all positions, so that this gradient is no single convolution.

    >>> weight_gradient(Geometry.window(1, 3, stride=2), (8,)).axes
    (Axis(kernel=3, stride=1, dilation=2, before=0, after=-1, period=1),)
    """
    if prod(geometry.period) > 1:
        raise GeometryError(
            f"the weights repeat with period {geometry.period}; "
            "only the gradient of weights that all positions share (period 1) is one convolution."
        )
    positions = size if geometry.transposed else geometry.output_size(size)
    axes = tuple(
        Axis(kernel=n, stride=axis.dilation, dilation=axis.stride, before=axis.before, after=axis.after)
        for axis, n in zip(_exact(geometry, size), positions, strict=True)
    )
    return Geometry(axes, groups=geometry.groups)


def _exact(geometry: Geometry, size: Sequence[int]) -> tuple[Axis, ...]:
    """The axes without the padding that no window reaches (a transposed window never has any)."""
    geometry.output_size(size)
    if geometry.transposed:
        return geometry.axes
    return tuple(
        replace(axis, after=axis.after - axis.unread_tail(n)) for axis, n in zip(geometry.axes, size, strict=True)
    )
