"""Layers with learned windows, as ``torch.nn`` modules: its signatures and state dicts, and more of the family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .convolution import Recent, apply, conv, conv_local, conv_tiled, conv_transpose
from .errors import GeometryError, describing, unknown_name
from .geometry import Geometry, frozen, per_axis
from .padding import MODES, WORDS

PerAxis = int | Sequence[int]
Padding = int | str | Sequence[int | Sequence[int]]


class SpatialLayer(nn.Module):
    """A layer over ``axes`` spatial axes; the numbered classes only fix that number."""

    axes: int

    def __init_subclass__(cls, *, axes: int | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if axes is not None:
            cls.axes = axes

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

    def bind(self, kernel_size: PerAxis, options: dict[str, Any], **window: Any) -> None:
        """Keep kernel and options as attributes, one number per axis, if they describe a window.

        Raises:
            GeometryError: They do not.
            UnknownNameError: No such padding word.
        """
        options = {name: frozen(name, value) for name, value in options.items()}
        numbers = {name: options[name] for name in ("stride", "dilation", "groups", "output_padding", "period")
                   if name in options}  # fmt: skip
        word = options["padding"]
        if isinstance(word, str) and word not in WORDS:
            raise unknown_name("padding", word, WORDS)
        Geometry.window(self.axes, kernel_size, padding=0 if isinstance(word, str) else word, **numbers, **window)
        self.kernel_size: tuple[int, ...] = per_axis("kernel_size", frozen("kernel_size", kernel_size), self.axes)
        for name, value in options.items():
            single = value is None or isinstance(value, str) or name == "groups"
            setattr(self, name, value if single else per_axis(name, value, self.axes))


def shown(value: Any) -> str:
    """An option as one would type it: one number where all axes have the same."""
    same = isinstance(value, tuple) and value and all(type(n) is int and n == value[0] for n in value)
    return repr(value[0] if same else value)


class _Convolution(SpatialLayer):
    """What all convolutions share: parameters, their shapes and their first values."""

    transposed = False
    lazy = False
    stride: tuple[int, ...]
    padding: str | tuple[Any, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        options: dict[str, Any],
        bias: bool,
        where: dict[str, Any],
        shared_bias: bool = True,
    ) -> None:
        super().__init__()
        self.shared_bias = shared_bias
        self.in_channels, self.out_channels = in_channels, out_channels
        self.output_padding = (0,) * self.axes
        self.option_names = tuple(options)
        if options["padding_mode"] not in MODES:
            raise unknown_name("padding mode", options["padding_mode"], MODES)
        channels = f"{out_channels}" if self.lazy else f"{in_channels}, {out_channels}"
        with describing(f"building {type(self).__name__}({channels}, {kernel_size!r})", **options):
            self.bind(kernel_size, options, transposed=self.transposed)
            weight_shape, bias_shape = self.parameter_shapes()
        self.weight = self._parameter(weight_shape, where)
        self.register_parameter("bias", self._parameter(bias_shape, where) if bias else None)
        self.reset_parameters()

    def _parameter(self, shape: tuple[int, ...], where: dict[str, Any]) -> nn.Parameter:
        lazy: Any = UninitializedParameter(**where) if self.lazy else None
        return lazy if self.lazy else nn.Parameter(torch.empty(shape, **where))

    def parameter_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of weight and bias.

        Raises:
            GeometryError: The groups do not divide the channels.
        """
        window = Geometry.window(self.axes, self.kernel_size, groups=self.groups, transposed=self.transposed)
        repeats = self.repeats()
        weight = (*repeats, *window.weight_shape(self.in_channels, self.out_channels))
        return weight, (self.out_channels,) if self.shared_bias else (self.out_channels, *repeats)

    def repeats(self) -> tuple[int, ...]:
        """Positions with weights of their own: none for a convolution, which shares them all."""
        return ()

    def options(self) -> dict[str, Any]:
        """What the operation is called with."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        return {name: getattr(self, name) for name in names}

    def reset_parameters(self) -> None:
        """Uniform in ``±1 / sqrt(fan_in)`` for weights and biases, as in torch.nn."""
        kernels = self.weight.detach().flatten(0, self.weight.dim() - self.axes - 2)
        nn.init.kaiming_uniform_(kernels, a=math.sqrt(5))
        fan_in = math.prod(kernels.shape[1:])
        if self.bias is not None and fan_in > 0:
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        """Channels, kernel and the options."""
        words = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        words += [f"{name}={shown(getattr(self, name))}" for name in self.option_names]
        words += ["shared_bias=True"] if self.shared_bias and self.repeats() and self.bias is not None else []
        return ", ".join(words if self.bias is not None else [*words, "bias=False"])


@lru_cache(maxsize=256)
def _shadowed(cls: type) -> bool:
    """Whether a class has something of its own under the name of a parameter."""
    return hasattr(cls, "weight") or hasattr(cls, "bias")


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
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode)
        super().__init__(in_channels, out_channels, kernel_size, options, bias, {"device": device, "dtype": dtype})
        self._recent = Recent()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files hold no calls."""
        return {name: value for name, value in self.__dict__.items() if name != "_recent"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._recent = Recent()

    def _learned(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias, without the search for attributes where nothing stands in their place."""
        kept: Any = self._parameters
        own = self.__dict__
        cls: Any = type(self)
        if "weight" in own or "bias" in own or "weight" not in kept or "bias" not in kept or _shadowed(cls):
            return self.weight, self.bias
        return kept["weight"], kept["bias"]

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``."""
        if type(x) is not Tensor or torch.compiler.is_dynamo_compiling():
            return conv(x, self.weight, self.bias, **self.options())
        window = (self.stride, self.padding, self.dilation, self.groups, 0, self.padding_mode, None)
        return apply("conv", x, *self._learned(), window, self._recent)


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
        padding_mode: That of the convolution that this is the adjoint of; torch.nn knows only "zeros".
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
        options = dict(stride=stride, padding=padding, output_padding=output_padding, dilation=dilation,
                       groups=groups, padding_mode=padding_mode)  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, options, bias, {"device": device, "dtype": dtype})

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``.

        Args:
            x: The input.
            output_size: Spatial sizes to write (or a whole shape, whose end counts) in place of ``output_padding``: a
                strided convolution maps several sizes to one, and this says which of them is meant.

        Raises:
            GeometryError: No output padding writes that size.
        """
        extra = self.output_padding if output_size is None else self._missing(x, output_size)
        return conv_transpose(x, self.weight, self.bias, output_padding=extra, **self.options())

    def _missing(self, x: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        axes, wanted = self.axes, tuple(frozen("output_size", output_size))
        if len(wanted) not in (axes, self.check(x).dim()):
            raise GeometryError(
                f"{type(self).__name__}: output_size={wanted} has {len(wanted)} entries; "
                f"give {axes}, one per spatial axis, or a whole shape of {x.dim()}."
            )
        window = Geometry.window(axes, self.kernel_size, stride=self.stride, padding=self.padding,
                                 dilation=self.dilation, transposed=True)  # fmt: skip
        least = window.output_size(x.shape[-axes:])
        extra = tuple(n - m for n, m in zip(wanted[-axes:], least, strict=True))
        most = tuple(m + max(a.stride, a.dilation) - 1 for m, a in zip(least, window.axes, strict=True))
        if any(n < 0 or m + n > limit for n, m, limit in zip(extra, least, most, strict=True)):
            raise GeometryError(
                f"{type(self).__name__} writes sizes from {least} to {most} for x of shape {tuple(x.shape)}; "
                f"got output_size={wanted}."
            )
        return extra


class ConvLocal(_Convolution):
    """Locally connected layer over ``axes`` spatial axes: :func:`striate.conv_local` with learned weights.

    Every output position has a kernel of its own, so that the layer is made for one input size. It has
    ``prod(out) * O * C / groups * prod(K)`` weights and, by default, ``prod(out) * O`` biases.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps, one number or one per axis.
        input_size: Spatial size of the inputs, one number or one per axis.
        stride: Step between windows.
        padding: As in :class:`Conv`.
        dilation: Step between taps.
        groups: Blocks of channels that do not mix.
        bias: Learn biases.
        padding_mode: As in :class:`Conv`.
        shared_bias: One bias per output channel in place of one per channel and position.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        GeometryError: The numbers do not describe a window, or it does not fit the input size.
        UnknownNameError: No such padding word or mode.

    >>> import striate
    >>> layer = striate.nn.ConvLocal2d(3, 8, 3, input_size=(6, 5))
    >>> layer.weight.shape, layer.bias.shape, layer(torch.zeros(1, 3, 6, 5)).shape
    (torch.Size([4, 3, 8, 3, 3, 3]), torch.Size([8, 4, 3]), torch.Size([1, 8, 4, 3]))
    """

    input_size: tuple[int, ...] | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        input_size: PerAxis,
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
        options = dict(input_size=input_size, stride=stride, padding=padding, dilation=dilation, groups=groups,
                       padding_mode=padding_mode)  # fmt: skip
        where = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, kernel_size, options, bias, where, shared_bias)

    def repeats(self) -> tuple[int, ...]:
        """The output positions."""
        if self.input_size is None:
            return ()
        window = Geometry.window(self.axes, self.kernel_size, stride=self.stride, padding=self.padding,
                                 dilation=self.dilation, size=self.input_size)  # fmt: skip
        return window.output_size(self.input_size)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *input_size)`` to ``(N, O, *out)``.

        Raises:
            GeometryError: The input has another size than the layer was made for.
        """
        if tuple(self.check(x).shape[-self.axes :]) != self.input_size:
            raise GeometryError(
                f"{type(self).__name__} has weights for inputs of size {self.input_size}, got x of shape "
                f"{tuple(x.shape)}; resize x, or build the layer with input_size={tuple(x.shape[-self.axes :])}."
            )
        return conv_local(x, self.weight, self.bias, **self.options())


class ConvTiled(_Convolution):
    """Tiled convolution over ``axes`` spatial axes: :func:`striate.conv_tiled` with learned weights.

    Neighbouring positions have kernels of their own, which repeat with a period: ``prod(period)`` times the weights of
    a convolution, whatever the input size. Period 1 is a convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps, one number or one per axis.
        period: Output positions after which the kernels repeat, one number or one per axis.
        stride: Step between windows.
        padding: As in :class:`Conv`.
        dilation: Step between taps.
        groups: Blocks of channels that do not mix.
        bias: Learn biases, which repeat as the kernels do.
        padding_mode: As in :class:`Conv`.
        shared_bias: One bias per output channel in place of one per channel and position of the period.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        GeometryError: The numbers do not describe a window; the message repeats the call.
        UnknownNameError: No such padding word or mode.

    >>> import striate
    >>> layer = striate.nn.ConvTiled2d(3, 8, 3, period=2, padding="same")
    >>> layer.weight.shape, layer.bias.shape, layer(torch.zeros(1, 3, 6, 5)).shape
    (torch.Size([2, 2, 8, 3, 3, 3]), torch.Size([8, 2, 2]), torch.Size([1, 8, 6, 5]))
    """

    period: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
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
        options = dict(period=period, stride=stride, padding=padding, dilation=dilation, groups=groups,
                       padding_mode=padding_mode)  # fmt: skip
        where = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, kernel_size, options, bias, where, shared_bias)

    def repeats(self) -> tuple[int, ...]:
        """The positions of one period."""
        return self.period

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``."""
        return conv_tiled(self.check(x), self.weight, self.bias, **self.options())


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


class ConvLocal1d(ConvLocal, axes=1):
    """:class:`ConvLocal` with one spatial axis."""


class ConvLocal2d(ConvLocal, axes=2):
    """:class:`ConvLocal` with two spatial axes."""


class ConvLocal3d(ConvLocal, axes=3):
    """:class:`ConvLocal` with three spatial axes."""


class ConvTiled1d(ConvTiled, axes=1):
    """:class:`ConvTiled` with one spatial axis."""


class ConvTiled2d(ConvTiled, axes=2):
    """:class:`ConvTiled` with two spatial axes."""


class ConvTiled3d(ConvTiled, axes=3):
    """:class:`ConvTiled` with three spatial axes."""


CONV: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
