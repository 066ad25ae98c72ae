"""Lazily sized layers: the first input says how many channels it has, and the layer becomes an ordinary one.

They follow torch.nn's: run a batch through before counting parameters or making an optimizer; a state dict may be
loaded before that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from . import layers
from .errors import describing
from .layers import Padding, PerAxis


class LazyConvolution(LazyModuleMixin):
    """What the lazy convolutions share: how the first input fills them in."""

    lazy = True

    def initialize_parameters(self: Any, x: Tensor, *_: Any) -> None:
        """Take the channels (and a local layer's size) from the first input.

        Raises:
            GeometryError: The input has another number of axes, or its channels do not suit the groups.
        """
        shape = tuple(self.check(x).shape)
        self.in_channels = shape[-self.axes - 1]
        self.settle(shape[-self.axes :])
        if not self.has_uninitialized_params():
            return
        try:
            with describing(f"sizing {type(self).__name__} for x of shape {shape}"):
                weight, bias = self.parameter_shapes()
        except ValueError:
            self.in_channels = 0
            raise
        with torch.no_grad():
            for parameter, known in ((self.weight, weight), (self.bias, bias)):
                if isinstance(parameter, UninitializedParameter):
                    parameter.materialize(known)
            self.reset_parameters()

    def settle(self, size: tuple[int, ...]) -> None:
        """Take what depends on the spatial size: nothing, where weights are shared."""

    def reset_parameters(self: Any) -> None:
        """First values, as soon as there is something to fill."""
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()  # type: ignore[misc]


class LazyConv(LazyConvolution, layers.Conv):
    """:class:`Conv` that takes ``in_channels`` from its first input.

    Args:
        out_channels: Channels of the output.
        kernel_size: Taps, one number or one per axis.
        stride: As in :class:`Conv`, likewise all that follow.
        padding: See :class:`Conv`.
        dilation: See :class:`Conv`.
        groups: See :class:`Conv`.
        bias: See :class:`Conv`.
        padding_mode: See :class:`Conv`.
        device: See :class:`Conv`.
        dtype: See :class:`Conv`.

    Raises:
        GeometryError: As :class:`Conv` does; the channels are compared with the groups at the first input.

    >>> import striate
    >>> layer = striate.nn.LazyConv2d(8, 3)
    >>> layer(torch.zeros(1, 3, 9, 8)).shape, type(layer).__name__, layer.weight.shape
    (torch.Size([1, 8, 7, 6]), 'Conv2d', torch.Size([8, 3, 3, 3]))
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            0, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )


class LazyConvTranspose(LazyConvolution, layers.ConvTranspose):
    """:class:`ConvTranspose` that takes ``in_channels`` from its first input; see :class:`LazyConv`.

    >>> import striate
    >>> layer = striate.nn.LazyConvTranspose1d(8, 4, stride=2)
    >>> layer(torch.zeros(1, 3, 9)).shape, layer.weight.shape
    (torch.Size([1, 8, 20]), torch.Size([3, 8, 4]))
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        output_padding: PerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: PerAxis = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        first = (stride, padding, output_padding, groups, bias, dilation, padding_mode, device, dtype)
        super().__init__(0, out_channels, kernel_size, *first)


class LazyConvLocal(LazyConvolution, layers.ConvLocal):
    """:class:`ConvLocal` that takes ``in_channels`` and ``input_size`` from its first input.

    >>> import striate
    >>> layer = striate.nn.LazyConvLocal1d(8, 3)
    >>> layer(torch.zeros(1, 2, 9)).shape, layer.weight.shape
    (torch.Size([1, 8, 7]), torch.Size([7, 8, 2, 3]))
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        shared_bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        first = (stride, padding, dilation, groups, bias, padding_mode, shared_bias, device, dtype)
        unknown: Any = None
        super().__init__(0, out_channels, kernel_size, unknown, *first)

    def settle(self, size: tuple[int, ...]) -> None:
        """Take the input size."""
        self.input_size = size


class LazyConvTiled(LazyConvolution, layers.ConvTiled):
    """:class:`ConvTiled` that takes ``in_channels`` from its first input.

    >>> import striate
    >>> layer = striate.nn.LazyConvTiled1d(8, 3, period=2)
    >>> layer(torch.zeros(1, 4, 9)).shape, layer.weight.shape
    (torch.Size([1, 8, 7]), torch.Size([2, 8, 4, 3]))
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: PerAxis,
        period: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        shared_bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        first = (stride, padding, dilation, groups, bias, padding_mode, shared_bias, device, dtype)
        super().__init__(0, out_channels, kernel_size, period, *first)


class LazyFullyConnected(nn.LazyLinear, layers.FullyConnected):
    """:class:`FullyConnected` that takes ``in_features`` from its first feature map.

    >>> LazyFullyConnected(5)(torch.zeros(2, 3, 2, 2)).shape
    torch.Size([2, 5])
    """

    cls_to_become = layers.FullyConnected

    def initialize_parameters(self, x: Tensor) -> None:
        """Count the numbers of one flattened example."""
        super().initialize_parameters(x.flatten(1))


class LazyConv1d(LazyConv, axes=1):
    """:class:`LazyConv` with one spatial axis."""

    cls_to_become = layers.Conv1d


class LazyConv2d(LazyConv, axes=2):
    """:class:`LazyConv` with two spatial axes."""

    cls_to_become = layers.Conv2d


class LazyConv3d(LazyConv, axes=3):
    """:class:`LazyConv` with three spatial axes."""

    cls_to_become = layers.Conv3d


class LazyConvTranspose1d(LazyConvTranspose, axes=1):
    """:class:`LazyConvTranspose` with one spatial axis."""

    cls_to_become = layers.ConvTranspose1d


class LazyConvTranspose2d(LazyConvTranspose, axes=2):
    """:class:`LazyConvTranspose` with two spatial axes."""

    cls_to_become = layers.ConvTranspose2d


class LazyConvTranspose3d(LazyConvTranspose, axes=3):
    """:class:`LazyConvTranspose` with three spatial axes."""

    cls_to_become = layers.ConvTranspose3d


class LazyConvLocal1d(LazyConvLocal, axes=1):
    """:class:`LazyConvLocal` with one spatial axis."""

    cls_to_become = layers.ConvLocal1d


class LazyConvLocal2d(LazyConvLocal, axes=2):
    """:class:`LazyConvLocal` with two spatial axes."""

    cls_to_become = layers.ConvLocal2d


class LazyConvLocal3d(LazyConvLocal, axes=3):
    """:class:`LazyConvLocal` with three spatial axes."""

    cls_to_become = layers.ConvLocal3d


class LazyConvTiled1d(LazyConvTiled, axes=1):
    """:class:`LazyConvTiled` with one spatial axis."""

    cls_to_become = layers.ConvTiled1d


class LazyConvTiled2d(LazyConvTiled, axes=2):
    """:class:`LazyConvTiled` with two spatial axes."""

    cls_to_become = layers.ConvTiled2d


class LazyConvTiled3d(LazyConvTiled, axes=3):
    """:class:`LazyConvTiled` with three spatial axes."""

    cls_to_become = layers.ConvTiled3d
