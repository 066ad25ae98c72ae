"""Layers without learned weights: the poolings and their kin, with torch.nn's signatures, and more paddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .adaptive import adaptive_avg_pool, adaptive_max_pool, max_unpool, maxout
from .errors import GeometryError, describing
from .geometry import Geometry, frozen, per_axis
from .layers import Padding, PerAxis, SpatialLayer, shown
from .normalization import local_response_norm
from .pooling import (
    avg_pool,
    gaussian_pool,
    lp_pool,
    max_pool,
    own,
    require_count,
    require_deviation,
    require_divisor,
    require_exponent,
)
from .unfolding import fold, unfold


class _Pool(SpatialLayer):
    """What the poolings share: the window, checked once."""

    stride: tuple[int, ...]
    padding: str | tuple[Any, ...]
    dilation: tuple[int, ...]
    option_names: tuple[str, ...] = ("stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None,
        padding: Padding,
        dilation: PerAxis = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        step = kernel_size if stride is None else stride
        with describing(f"building {type(self).__name__}({kernel_size!r})", stride=stride, padding=padding):
            self.bind(kernel_size, {"stride": step, "padding": padding, "dilation": dilation})
        self.ceil_mode = ceil_mode

    def window(self) -> dict[str, Any]:
        """What the operation is called with."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "ceil": self.ceil_mode}

    def extra_repr(self) -> str:
        """Kernel and options."""
        options = (f"{name}={shown(getattr(self, name))}" for name in self.option_names)
        return ", ".join([f"kernel_size={self.kernel_size}", *options])


class MaxPool(_Pool):
    """Max pooling over ``axes`` spatial axes: :func:`striate.max_pool`.

    Args:
        kernel_size: Window size, one number or one per axis.
        stride: Step between windows; None is the kernel itself.
        padding: As in :func:`striate.max_pool`, as wide as you like.
        dilation: Step between taps.
        return_indices: Also return the switches.
        ceil_mode: Also keep a last window that is only partly inside.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.

    >>> import striate, torch
    >>> striate.nn.MaxPool2d(3, stride=2, padding="same")(torch.zeros(1, 3, 9, 8)).shape
    torch.Size([1, 3, 5, 4])
    """

    option_names = (*_Pool.option_names, "return_indices")

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Any:
        """``(N, C, *spatial)`` to ``(N, C, *out)``."""
        if not self.return_indices and not torch.compiler.is_dynamo_compiling():
            window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, False)
            if bound := own("max_pool", x, *window):
                return bound(x)
        return max_pool(self.check(x), self.kernel_size, **self.window(), return_switches=self.return_indices)


class AvgPool(_Pool):
    """Mean pooling over ``axes`` spatial axes: :func:`striate.avg_pool`.

    Args:
        kernel_size: Window size, one number or one per axis.
        stride: Step between windows; None is the kernel itself.
        padding: As in :func:`striate.avg_pool`, as wide as you like.
        ceil_mode: Also keep a last window that is only partly inside.
        count_include_pad: Divide by padded positions too. The default is torch.nn's; the function's is False.
        divisor_override: Divide by this number instead.
        dilation: Step between taps.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.

    >>> import striate, torch
    >>> striate.nn.AvgPool1d(2, dilation=2)(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[2.]]])
    """

    option_names = (*_Pool.option_names, "count_include_pad", "divisor_override")

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        dilation: PerAxis = 1,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        require_divisor(type(self).__name__, "divisor_override", divisor_override)
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, C, *out)``."""
        if self.divisor_override is None and not torch.compiler.is_dynamo_compiling():
            numbers = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
            if bound := own("avg_pool", x, *numbers, self.count_include_pad):
                return bound(x)
        window = self.window() | {"count_padding": self.count_include_pad, "divisor": self.divisor_override}
        return avg_pool(self.check(x), self.kernel_size, **window)


class LPPool(_Pool):
    """p-norm pooling over ``axes`` spatial axes: :func:`striate.lp_pool`.

    Unlike torch.nn's it takes absolute values first, so that odd norms of negative numbers are norms too, and with
    ``ceil_mode`` a last partial window is the norm of what it holds, not scaled up.

    Args:
        norm_type: The exponent p, at least 1.
        kernel_size: Window size, one number or one per axis.
        stride: Step between windows; None is the kernel itself.
        ceil_mode: Also keep a last window that is only partly inside.
        padding: As in :class:`MaxPool`.
        dilation: Step between taps.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.

    >>> import striate, torch
    >>> striate.nn.LPPool1d(2, 2)(torch.tensor([[[3.0, -4.0, 0.0, 0.0]]]))
    tensor([[[5., 0.]]])
    """

    option_names = (*_Pool.option_names, "norm_type")

    def __init__(
        self,
        norm_type: float,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        ceil_mode: bool = False,
        padding: Padding = 0,
        dilation: PerAxis = 1,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        require_exponent(type(self).__name__, "norm_type", norm_type)
        self.norm_type = norm_type

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, C, *out)``."""
        return lp_pool(self.check(x), self.kernel_size, p=self.norm_type, **self.window())


class GaussianPool(_Pool):
    """Mean pooling weighted by the distance from the window's centre: :func:`striate.gaussian_pool`.

    Args:
        kernel_size: Window size, one number or one per axis.
        stride: Step between windows; None is the kernel itself.
        padding: As in :class:`MaxPool`.
        dilation: Step between taps.
        ceil_mode: Also keep a last window that is only partly inside.
        sigma: Standard deviation in input positions, one number or one per axis; None is the function's default.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.

    >>> import striate, torch
    >>> striate.nn.GaussianPool1d(3, stride=1, sigma=0.5)(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]))
    tensor([[[0.1065, 0.7870, 0.1065]]])
    """

    option_names = (*_Pool.option_names, "sigma")

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        ceil_mode: bool = False,
        sigma: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        for deviation in () if sigma is None else per_axis("sigma", sigma, self.axes):
            require_deviation(type(self).__name__, "sigma", deviation)
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, C, *out)``."""
        return gaussian_pool(self.check(x), self.kernel_size, sigma=self.sigma, **self.window())


class _AdaptivePool(SpatialLayer):
    """What the adaptive poolings share: the output size, one number per axis, None to keep that axis."""

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        super().__init__()
        name = type(self).__name__
        with describing(f"building {name}({output_size!r})"):
            given = frozen("output_size", output_size)
            self.output_size: tuple[int | None, ...] = per_axis("output_size", given, self.axes)
            for n in self.output_size:
                if n is not None and (type(n) is not int or n < 1):
                    raise GeometryError(f"an output size must be a whole number of at least 1, got {n!r}.")

    def extra_repr(self) -> str:
        """The output size."""
        return f"output_size={shown(self.output_size)}"


class AdaptiveMaxPool(_AdaptivePool):
    """Max pooling to a fixed number of bins, for inputs of any size: :func:`striate.adaptive_max_pool`.

    Args:
        output_size: Bins per axis, one number or one per axis; None keeps an axis.
        return_indices: Also return the switches.

    Raises:
        GeometryError: A number is below 1, or there is not one per axis.

    >>> import striate, torch
    >>> striate.nn.AdaptiveMaxPool1d(3)(torch.tensor([[[1.0, 5.0, 2.0, 3.0]]]))
    tensor([[[5., 5., 3.]]])
    """

    def __init__(self, output_size: int | Sequence[int | None] | None, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Any:
        """``(N, C, *spatial)`` to ``(N, C, *output_size)``."""
        return adaptive_max_pool(self.check(x), self.output_size, return_switches=self.return_indices)


class AdaptiveAvgPool(_AdaptivePool):
    """Mean pooling to a fixed number of bins, for inputs of any size: :func:`striate.adaptive_avg_pool`.

    Args:
        output_size: Bins per axis, one number or one per axis; None keeps an axis.

    Raises:
        GeometryError: A number is below 1, or there is not one per axis.

    >>> import striate, torch
    >>> striate.nn.AdaptiveAvgPool2d((1, None))(torch.zeros(1, 8, 7, 5)).shape
    torch.Size([1, 8, 1, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, C, *output_size)``."""
        return adaptive_avg_pool(self.check(x), self.output_size)


class MaxUnpool(_Pool):
    """The way back through a max pooling: each value to its switch, zeros elsewhere (:func:`striate.max_unpool`).

        size of out = (size of x - 1) * stride + kernel - before - after, unless output_size says otherwise

    Args:
        kernel_size: That of the pooling, likewise stride and padding.
        stride: None is the kernel itself.
        padding: As in :class:`MaxPool`.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.

    >>> import striate, torch
    >>> values, switches = striate.nn.MaxPool1d(2, return_indices=True)(torch.tensor([[[1.0, 5.0, 7.0, 3.0]]]))
    >>> striate.nn.MaxUnpool1d(2)(values, switches)
    tensor([[[0., 5., 7., 0.]]])
    """

    option_names = ("stride", "padding")

    def __init__(self, kernel_size: PerAxis, stride: PerAxis | None = None, padding: Padding = 0) -> None:
        super().__init__(kernel_size, stride, padding)

    def forward(self, x: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """``(N, C, *out)`` and its switches to ``(N, C, *spatial)``.

        Args:
            x: The pooled values.
            indices: Their switches.
            output_size: Spatial sizes of the map that was pooled (or its whole shape), less than one stride from the
                formula's.

        Raises:
            GeometryError: The pooling of no such map has the size of x, or a switch lies outside of it.
        """
        outputs = self.check(x).shape[-self.axes :]
        window = Geometry.window(self.axes, self.kernel_size, stride=self.stride, padding=self.padding, transposed=True)
        size = window.output_size(outputs)
        if output_size is None:
            return max_unpool(x, indices, size)
        wanted = tuple(frozen("output_size", output_size))
        if len(wanted) not in (self.axes, x.dim()):
            raise GeometryError(
                f"{type(self).__name__}: output_size={wanted} has {len(wanted)} entries; "
                f"give {self.axes}, one per spatial axis, or a whole shape of {x.dim()}."
            )
        wanted = wanted[-self.axes :]
        for number, (n, usual, step) in enumerate(zip(wanted, size, self.stride, strict=True)):
            if abs(n - usual) >= step:
                raise GeometryError(
                    f"{type(self).__name__}: no map of size {n} on spatial axis {number} is pooled to the "
                    f"{outputs[number]} positions of x; sizes from {usual - step + 1} to {usual + step - 1} can be."
                )
        return max_unpool(x, indices, wanted)


class Maxout(nn.Module):
    """The largest of each ``pieces`` neighbouring channels, on any number of axes: :func:`striate.maxout`.

    Args:
        pieces: Channels that compete; it must divide the channels.

    >>> import torch
    >>> Maxout(2)(torch.tensor([[1.0, 5.0, 4.0, 3.0]]))
    tensor([[5., 4.]])
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        require_count("Maxout", "pieces", pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, ...)`` to ``(N, C / pieces, ...)``."""
        return maxout(x, self.pieces)

    def extra_repr(self) -> str:
        """The pieces."""
        return f"{self.pieces}"


class LocalResponseNorm(nn.Module):
    """Division by the energy of neighbouring channels: :func:`striate.local_response_norm`.

    Args:
        size: Channels of the neighbourhood.
        alpha: Factor of the mean square.
        beta: Exponent.
        k: Constant added.

    >>> import torch
    >>> LocalResponseNorm(1, alpha=1.0, beta=0.5, k=0.0)(torch.tensor([[[3.0], [-4.0]]]))
    tensor([[[ 1.],
             [-1.]]])
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        require_count("LocalResponseNorm", "size", size)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, ...)`` to the same shape."""
        return local_response_norm(x, self.size, alpha=self.alpha, beta=self.beta, k=self.k)

    def extra_repr(self) -> str:
        """The numbers."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class Unfold(nn.Module):
    """Every window laid out: :func:`striate.unfold`, on any number of axes.

    The result keeps its axes, ``(N, C, *kernel, *out)``. torch.nn's is the same with those flattened:
    ``y.flatten(1, 1 + axes).flatten(2)``.

    Args:
        kernel_size: Window size, one number or one per axis.
        dilation: Step between taps.
        padding: A number, one number or pair per axis, or a word.
        stride: Step between windows.

    >>> import torch
    >>> Unfold(2)(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[[1., 2.],
              [2., 3.]]]])
    """

    def __init__(self, kernel_size: PerAxis, dilation: PerAxis = 1, padding: Padding = 0, stride: PerAxis = 1) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, C, *kernel, *out)``."""
        return unfold(x, self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def extra_repr(self) -> str:
        """The window."""
        return f"{self.kernel_size}, dilation={self.dilation}, padding={self.padding!r}, stride={self.stride}"


class Fold(nn.Module):
    """The adjoint of :class:`Unfold`: :func:`striate.fold`, on any number of axes.

    It takes ``(N, C, *kernel, *out)``, where torch.nn's takes those axes flattened.

    Args:
        output_size: Spatial size to write, one number or one per axis.
        kernel_size: Window size, as :class:`Unfold` had it.
        dilation: Step between taps.
        padding: A number, one number or pair per axis, or a word.
        stride: Step between windows.

    >>> import torch
    >>> Fold(3, 2)(torch.tensor([[[[1.0, 2.0], [2.0, 3.0]]]]))
    tensor([[[1., 4., 3.]]])
    """

    def __init__(
        self,
        output_size: PerAxis,
        kernel_size: PerAxis,
        dilation: PerAxis = 1,
        padding: Padding = 0,
        stride: PerAxis = 1,
    ) -> None:
        super().__init__()
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, columns: Tensor) -> Tensor:
        """``(N, C, *kernel, *out)`` to ``(N, C, *output_size)``.

        Raises:
            GeometryError: The columns hold another kernel than the layer's.
        """
        axes = (columns.dim() - 1) // 2
        kernel = tuple(columns.shape[-2 * axes : -axes])
        if axes and kernel != per_axis("kernel_size", frozen("kernel_size", self.kernel_size), axes):
            raise GeometryError(
                f"Fold: columns of shape {tuple(columns.shape)} hold the taps of kernel {kernel}, "
                f"not of kernel_size={self.kernel_size!r}."
            )
        return fold(columns, self.output_size, stride=self.stride, padding=self.padding, dilation=self.dilation)

    def extra_repr(self) -> str:
        """The size and the window."""
        window = f"dilation={self.dilation}, padding={self.padding!r}, stride={self.stride}"
        return f"{self.output_size}, {self.kernel_size}, {window}"


class MaxPool1d(MaxPool, axes=1):
    """:class:`MaxPool` with one spatial axis."""


class MaxPool2d(MaxPool, axes=2):
    """:class:`MaxPool` with two spatial axes."""


class MaxPool3d(MaxPool, axes=3):
    """:class:`MaxPool` with three spatial axes."""


class AvgPool1d(AvgPool, axes=1):
    """:class:`AvgPool` with one spatial axis."""


class AvgPool2d(AvgPool, axes=2):
    """:class:`AvgPool` with two spatial axes."""


class AvgPool3d(AvgPool, axes=3):
    """:class:`AvgPool` with three spatial axes."""


class LPPool1d(LPPool, axes=1):
    """:class:`LPPool` with one spatial axis."""


class LPPool2d(LPPool, axes=2):
    """:class:`LPPool` with two spatial axes."""


class LPPool3d(LPPool, axes=3):
    """:class:`LPPool` with three spatial axes."""


class GaussianPool1d(GaussianPool, axes=1):
    """:class:`GaussianPool` with one spatial axis."""


class GaussianPool2d(GaussianPool, axes=2):
    """:class:`GaussianPool` with two spatial axes."""


class GaussianPool3d(GaussianPool, axes=3):
    """:class:`GaussianPool` with three spatial axes."""


class AdaptiveMaxPool1d(AdaptiveMaxPool, axes=1):
    """:class:`AdaptiveMaxPool` with one spatial axis."""


class AdaptiveMaxPool2d(AdaptiveMaxPool, axes=2):
    """:class:`AdaptiveMaxPool` with two spatial axes."""


class AdaptiveMaxPool3d(AdaptiveMaxPool, axes=3):
    """:class:`AdaptiveMaxPool` with three spatial axes."""


class AdaptiveAvgPool1d(AdaptiveAvgPool, axes=1):
    """:class:`AdaptiveAvgPool` with one spatial axis."""


class AdaptiveAvgPool2d(AdaptiveAvgPool, axes=2):
    """:class:`AdaptiveAvgPool` with two spatial axes."""


class AdaptiveAvgPool3d(AdaptiveAvgPool, axes=3):
    """:class:`AdaptiveAvgPool` with three spatial axes."""


class MaxUnpool1d(MaxUnpool, axes=1):
    """:class:`MaxUnpool` with one spatial axis."""


class MaxUnpool2d(MaxUnpool, axes=2):
    """:class:`MaxUnpool` with two spatial axes."""


class MaxUnpool3d(MaxUnpool, axes=3):
    """:class:`MaxUnpool` with three spatial axes."""


MAX_POOL: dict[int, type[MaxPool]] = {1: MaxPool1d, 2: MaxPool2d, 3: MaxPool3d}
AVG_POOL: dict[int, type[AvgPool]] = {1: AvgPool1d, 2: AvgPool2d, 3: AvgPool3d}
