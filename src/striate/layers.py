"""Layers: the operations as ``torch.nn`` modules, with torch.nn's signatures and state dicts, and more paddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .convolution import conv, conv_transpose
from .errors import GeometryError, describing, unknown_name
from .geometry import Geometry, frozen, per_axis
from .padding import MODES, WORDS
from .pooling import avg_pool, max_pool

PerAxis = int | Sequence[int]
Padding = int | str | Sequence[int | Sequence[int]]


class _Window(nn.Module):
    """A layer that slides a window over ``axes`` spatial axes; the numbered classes only fix that number."""

    axes: int

    def __init_subclass__(cls, *, axes: int | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if axes is not None:
            cls.axes = axes


class _Convolution(_Window):
    """What convolution and transposed convolution share: parameters and their first values."""

    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        options: dict[str, Any],
        bias: bool,
        **where: Any,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        name = type(self).__name__
        with describing(f"building {name}({in_channels}, {out_channels}, {kernel_size!r})", **options):
            self.options = {name: frozen(name, value) for name, value in options.items()}
            numbers = {k: v for k, v in self.options.items() if k not in ("padding", "padding_mode")}
            word = self.options["padding"]
            if isinstance(word, str) and word not in WORDS:
                raise unknown_name("padding", word, WORDS)
            known = Geometry.window(
                self.axes,
                kernel_size,
                padding=0 if isinstance(word, str) else word,
                transposed=self.transposed,
                **numbers,
            )
            shape = known.weight_shape(in_channels, out_channels)
        self.kernel_size: tuple[int, ...] = per_axis("kernel_size", frozen("kernel_size", kernel_size), self.axes)
        self.weight = nn.Parameter(torch.empty(shape, **where))
        self.bias = nn.Parameter(torch.empty(out_channels, **where)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ``±1 / sqrt(fan_in)`` for weights and biases, as in torch.nn."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = math.prod(self.weight.shape[1:])
        if self.bias is not None and fan_in > 0:
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        """Channels, kernel and the options."""
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        words += [f"{name}={value!r}" for name, value in self.options.items()]
        return ", ".join(words if self.bias is not None else [*words, "bias=False"])


class Conv(_Convolution):
    """Convolution over ``axes`` spatial axes: :func:`striate.conv` with learned weights.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps, one number or one per axis.
        stride: Step between windows.
        padding: A number, one number or ``(before, after)`` pair per axis, or a word; see :func:`striate.conv`.
        dilation: Step between taps.
        groups: Blocks of channels that do not mix.
        bias: Learn one bias per output channel.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.
        UnknownNameError: No such padding word or mode.

    >>> import striate
    >>> striate.nn.Conv2d(3, 8, 3, stride=2, padding="same")(torch.zeros(1, 3, 9, 8)).shape
    torch.Size([1, 8, 5, 4])
    """

    def __init__(
        self,
        in_channels: int,
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
        if padding_mode not in MODES:
            raise unknown_name("padding mode", padding_mode, MODES)
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode)
        super().__init__(in_channels, out_channels, kernel_size, options, bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``."""
        return conv(x, self.weight, self.bias, **self.options)


class ConvTranspose(_Convolution):
    """Transposed convolution over ``axes`` spatial axes: :func:`striate.conv_transpose` with learned weights.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps, one number or one per axis.
        stride: Step of the convolution that this is the adjoint of.
        padding: As in :class:`Conv`.
        output_padding: Positions added at the end of the output.
        groups: Blocks of channels that do not mix.
        bias: Learn one bias per output channel.
        dilation: Step between taps.
        padding_mode: Only "zeros", as in torch.nn.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.
        UnknownNameError: No such padding word or mode.

    >>> import striate
    >>> striate.nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)(torch.zeros(1, 8, 5, 4)).shape
    torch.Size([1, 3, 10, 8])
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
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
        if padding_mode not in MODES:
            raise unknown_name("padding mode", padding_mode, MODES)
        if padding_mode != "zeros":
            raise GeometryError(
                f"{type(self).__name__}: padding_mode={padding_mode!r} has no transpose here; "
                'its padding crops the output, so leave it at "zeros".'
            )
        options = dict(stride=stride, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups)
        super().__init__(in_channels, out_channels, kernel_size, options, bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``."""
        return conv_transpose(x, self.weight, self.bias, **self.options)


class _Pool(_Window):
    """What the poolings share: the window, checked once."""

    def __init__(self, kernel_size: PerAxis, stride: PerAxis | None, padding: Padding, **rest: Any) -> None:
        super().__init__()
        name = type(self).__name__
        if isinstance(padding, str) and padding not in WORDS:
            raise unknown_name("padding", padding, WORDS)
        with describing(f"building {name}({kernel_size!r})", stride=stride, padding=padding):
            numbers = {"padding": 0 if isinstance(padding, str) else padding, "dilation": rest.get("dilation", 1)}
            Geometry.window(self.axes, kernel_size, stride=kernel_size if stride is None else stride, **numbers)
            self.kernel_size: tuple[int, ...] = per_axis("kernel_size", frozen("kernel_size", kernel_size), self.axes)
        self.options = {"stride": frozen("stride", stride), "padding": frozen("padding", padding), **rest}

    def extra_repr(self) -> str:
        """Kernel and options."""
        return ", ".join([f"kernel_size={self.kernel_size}", *(f"{k}={v!r}" for k, v in self.options.items())])

    def check(self, x: Tensor) -> Tensor:
        """The input, if it has the right number of axes.

        Raises:
            GeometryError: It has not.
        """
        if x.dim() not in (self.axes + 1, self.axes + 2):
            raise GeometryError(
                f"{type(self).__name__} needs {self.axes + 2} dimensions, (N, C, *spatial), or {self.axes + 1} "
                f"without a batch; got shape {tuple(x.shape)}."
            )
        return x


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

    >>> import striate
    >>> striate.nn.MaxPool2d(3, stride=2, padding="same")(torch.zeros(1, 3, 9, 8)).shape
    torch.Size([1, 3, 5, 4])
    """

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(
            kernel_size, stride, padding, dilation=dilation, ceil=ceil_mode, return_switches=return_indices
        )

    def forward(self, x: Tensor) -> Any:
        """``(N, C, *spatial)`` to ``(N, C, *out)``."""
        return max_pool(self.check(x), self.kernel_size, **self.options)


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

    >>> import striate
    >>> striate.nn.AvgPool1d(2, dilation=2)(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[2.]]])
    """

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
        means = {"count_padding": count_include_pad, "divisor": divisor_override}
        super().__init__(kernel_size, stride, padding, dilation=dilation, ceil=ceil_mode, **means)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, C, *out)``."""
        return avg_pool(self.check(x), self.kernel_size, **self.options)


class FullyConnected(nn.Linear):
    """A linear layer that reads the whole feature map: ``(N, C, *spatial)`` is flattened first.

    >>> FullyConnected(12, 5)(torch.zeros(2, 3, 2, 2)).shape
    torch.Size([2, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, features)``."""
        return super().forward(x.flatten(1))


class Conv1d(Conv, axes=1):
    """:class:`Conv` with one spatial axis."""


class Conv2d(Conv, axes=2):
    """:class:`Conv` with two spatial axes."""


class Conv3d(Conv, axes=3):
    """:class:`Conv` with three spatial axes."""


class ConvTranspose1d(ConvTranspose, axes=1):
    """:class:`ConvTranspose` with one spatial axis."""


class ConvTranspose2d(ConvTranspose, axes=2):
    """:class:`ConvTranspose` with two spatial axes."""


class ConvTranspose3d(ConvTranspose, axes=3):
    """:class:`ConvTranspose` with three spatial axes."""


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
