"""The blocks that convolutional networks are made of, each from one paper, over 1, 2 or 3 spatial axes.

A block that slides windows takes ``axes``, 2 unless told otherwise; the others take inputs of any number of axes.
Except where said, strides and paddings are "same": the output has ``ceil(n / stride)`` positions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .channels import ChannelShuffle, SqueezeExcite, channel_shuffle
from .errors import GeometryError
from .geometry import frozen
from .layers import CONV, Conv, PerAxis
from .pooling_layers import MAX_POOL
from .receptive_field import dilated_coverage, largest_gap
from .rotation import RotationPool

__all__ = [
    "Bottleneck",
    "ChannelShuffle",
    "DepthwiseSeparable",
    "Factorized",
    "HybridDilated",
    "Inception",
    "MultiSize",
    "Residual",
    "RotationPool",
    "ShuffledGroupedConv",
    "SqueezeExcite",
    "Stacked3x3",
    "channel_shuffle",
]

BATCH_NORM: dict[int, Callable[[int], nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
Activation = Callable[[], nn.Module]


def _convolution(axes: int, *arguments: Any, **options: Any) -> Conv:
    if axes not in CONV:
        raise GeometryError(f"blocks have 1, 2 or 3 spatial axes, got axes={axes!r}.")
    return CONV[axes](*arguments, **{"padding": "same", **options})


def _require_batch(block: nn.Module, axes: int, x: Tensor) -> None:
    if x.dim() != axes + 2:
        raise GeometryError(
            f"{type(block).__name__} needs {axes + 2} dimensions, (N, C, *spatial); got shape {tuple(x.shape)}."
            + (" One example without a batch is x.unsqueeze(0)." if x.dim() == axes + 1 else "")
        )


class DepthwiseSeparable(nn.Sequential):
    """A filter for each channel by itself, then a 1x1 convolution that mixes the channels.

        out = pointwise(depthwise(x))
        C * m * prod(K) + C * m * O weights in place of C * O * prod(K)

    Three variants: depthwise alone (no ``out_channels``), with pointwise, and with batch normalization and ReLU between
    (``between``) and after (``after``). F. Chollet, "Xception", 2017, has nothing between; A. Howard et al.,
    "MobileNets", 2017, has both. A convolution that batch normalization follows has no bias.

    Args:
        in_channels: Channels of the input, C.
        out_channels: Channels of the pointwise convolution, O; None leaves it out.
        kernel_size: Taps of the depthwise convolution.
        stride: Its step.
        dilation: Its step between taps.
        padding: Its padding.
        multiplier: Depthwise filters per channel, m.
        between: Batch normalization and ReLU after the depthwise convolution.
        after: Batch normalization and ReLU after the pointwise convolution.
        bias: Biases where no batch normalization follows.
        axes: Spatial axes.

    Raises:
        GeometryError: The numbers describe no window, or ``after`` without a pointwise convolution.

    >>> block = DepthwiseSeparable(32, 64, between=True, after=True)
    >>> block(torch.zeros(1, 32, 8, 8)).shape, sum(p.numel() for p in block.parameters())  # 288 + 64 + 2048 + 128
    (torch.Size([1, 64, 8, 8]), 2528)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        dilation: PerAxis = 1,
        padding: Any = "same",
        multiplier: int = 1,
        between: bool = False,
        after: bool = False,
        bias: bool = True,
        axes: int = 2,
    ) -> None:
        if after and out_channels is None:
            raise GeometryError(
                "DepthwiseSeparable: after=True belongs to the pointwise convolution, which out_channels=None leaves "
                "out; give out_channels, or between=True."
            )
        hidden = in_channels * multiplier
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["depthwise"] = _convolution(
            axes, in_channels, hidden, kernel_size, stride, padding=padding, dilation=dilation, groups=in_channels,
            bias=bias and not between,
        )  # fmt: skip
        if between:
            parts |= {"norm": BATCH_NORM[axes](hidden), "activation": nn.ReLU()}
        if out_channels is not None:
            parts["pointwise"] = _convolution(axes, hidden, out_channels, 1, bias=bias and not after)
            if after:
                parts |= {"last_norm": BATCH_NORM[axes](out_channels), "last_activation": nn.ReLU()}
        super().__init__(parts)


class ShuffledGroupedConv(nn.Sequential):
    """Grouped convolution, channel shuffle, grouped convolution: every output can see every input channel.

        (C * H * prod(K) + H * O * prod(K)) / groups weights, H the channels between

    With ``depthwise`` the middle of a ShuffleNet unit: a 1x1 grouped convolution, the shuffle, a depthwise one with the
    kernel and the stride, a 1x1 grouped one; ``(C * H + H * O) / groups + H * prod(K)`` weights. X. Zhang et al.,
    "ShuffleNet", 2018, figure 2.

    Args:
        in_channels: Channels of the input, C.
        out_channels: Channels of the output, O.
        groups: Groups of both convolutions. Each output sees every channel where ``hidden / groups >= groups``.
        kernel_size: Taps.
        hidden: Channels between, H; None is ``out_channels``.
        stride: Step of the first convolution, or of the depthwise one.
        depthwise: The form of ShuffleNet.
        bias: Learn biases.
        axes: Spatial axes.

    Raises:
        GeometryError: The groups do not divide the channels.

    >>> block = ShuffledGroupedConv(8, 16, groups=4)
    >>> block(torch.zeros(1, 8, 5, 5)).shape, sum(p.numel() for p in block.parameters())  # 288 + 16 + 576 + 16
    (torch.Size([1, 16, 5, 5]), 896)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        kernel_size: PerAxis = 3,
        hidden: int | None = None,
        stride: PerAxis = 1,
        depthwise: bool = False,
        bias: bool = True,
        axes: int = 2,
    ) -> None:
        hidden = out_channels if hidden is None else hidden
        grouped: dict[str, Any] = {"groups": groups, "bias": bias}
        kernel, step = (1, 1) if depthwise else (kernel_size, stride)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["first"] = _convolution(axes, in_channels, hidden, kernel, step, **grouped)
        parts["shuffle"] = ChannelShuffle(groups)
        if depthwise:
            parts["depthwise"] = _convolution(axes, hidden, hidden, kernel_size, stride, groups=hidden, bias=bias)
        parts["last"] = _convolution(axes, hidden, out_channels, kernel, **grouped)
        super().__init__(parts)
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``."""
        _require_batch(self, self.axes, x)
        for layer in self:
            x = layer(x)
        return x


class _Branches(nn.Module):
    """Branches that read the same input; their outputs stand one after another in the channels."""

    axes: int

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, sum of the branches' channels, *spatial)``."""
        _require_batch(self, self.axes, x)
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class MultiSize(_Branches):
    """Kernels of several sizes side by side, each with its own output channels, concatenated.

        out = [conv1(x), conv3(x), conv5(x)],  sum over k of O_k * (C * k ** axes + 1) parameters

    The naive form of the Inception module (C. Szegedy et al., "Going Deeper with Convolutions", 2015, figure 2a).

    Args:
        in_channels: Channels of the input, C.
        out_channels: Channels of each branch, one number or one per kernel size.
        kernel_sizes: One per branch.
        stride: Step of every branch.
        bias: Learn biases.
        axes: Spatial axes.

    Raises:
        GeometryError: There is not one channel number per kernel size.

    >>> block = MultiSize(4, (2, 3, 1))
    >>> block(torch.zeros(1, 4, 9, 9)).shape, sum(p.numel() for p in block.parameters())  # 10 + 111 + 101
    (torch.Size([1, 6, 9, 9]), 222)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | Sequence[int],
        kernel_sizes: Sequence[int] = (1, 3, 5),
        stride: PerAxis = 1,
        bias: bool = True,
        axes: int = 2,
    ) -> None:
        super().__init__()
        widths = (out_channels,) * len(kernel_sizes) if isinstance(out_channels, int) else tuple(out_channels)
        if len(widths) != len(kernel_sizes) or not widths:
            raise GeometryError(
                f"MultiSize: out_channels={out_channels!r} and kernel_sizes={kernel_sizes!r} do not fit; "
                "give one number of channels for each of one or more kernel sizes."
            )
        self.axes = axes
        for number, (width, kernel) in enumerate(zip(widths, kernel_sizes, strict=True), start=1):
            self.add_module(f"branch{number}", _convolution(axes, in_channels, width, kernel, stride, bias=bias))


class Inception(_Branches):
    """Four branches, concatenated: 1x1; 1x1 then 3x3; 1x1 then 5x5; 3x3 max pooling then 1x1.

    A ReLU follows each convolution. C. Szegedy et al., "Going Deeper with Convolutions", 2015, figure 2b, with its
    numbers in the order of its table 1. Parameters, over two axes: ``C n1 + C r3 + 9 r3 n3 + C r5 + 25 r5 n5 + C
    pool`` and one bias per channel.

    Args:
        in_channels: Channels of the input, C.
        n1: Channels of the 1x1 branch.
        three: ``(r3, n3)``: channels that the input is reduced to, and channels of the 3x3 convolution.
        five: ``(r5, n5)``, likewise for 5x5.
        pool: Channels after the pooling.
        axes: Spatial axes.

    Raises:
        GeometryError: The numbers describe no window.

    >>> block = Inception(192, 64, (96, 128), (16, 32), 32)  # inception 3a of GoogLeNet
    >>> block(torch.zeros(1, 192, 7, 7)).shape, sum(p.numel() for p in block.parameters())
    (torch.Size([1, 256, 7, 7]), 163696)
    """

    def __init__(
        self, in_channels: int, n1: int, three: tuple[int, int], five: tuple[int, int], pool: int, axes: int = 2
    ) -> None:
        super().__init__()

        def chain(*widths: tuple[int, int]) -> nn.Sequential:
            parts: list[nn.Module] = []
            channels = in_channels
            for width, kernel in widths:
                parts += [_convolution(axes, channels, width, kernel), nn.ReLU()]
                channels = width
            return nn.Sequential(*parts)

        self.one = chain((n1, 1))
        self.three = chain((three[0], 1), (three[1], 3))
        self.five = chain((five[0], 1), (five[1], 5))
        self.axes = axes
        self.pool = nn.Sequential(MAX_POOL[axes](3, stride=1, padding="same"), *chain((pool, 1)))


class Bottleneck(nn.Sequential):
    """Reduce with 1x1, convolve in few channels, expand with 1x1; ReLU between.

        C * H + H ** 2 * prod(K) + H * O weights in place of C * O * prod(K)

    K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning", 2016, figure 5 (there inside a shortcut); the 1x1
    convolution is from M. Lin, Q. Chen and S. Yan, "Network In Network", 2014.

    Args:
        in_channels: Channels of the input, C.
        hidden: Channels between, H.
        out_channels: Channels of the output, O.
        kernel_size: Taps of the middle convolution.
        stride: Its step.
        dilation: Its step between taps.
        activation: What stands between; None for nothing.
        bias: Learn biases.
        axes: Spatial axes.

    Raises:
        GeometryError: The numbers describe no window.

    >>> block = Bottleneck(256, 64, 256, bias=False)
    >>> sum(p.numel() for p in block.parameters())  # 16384 + 36864 + 16384, and 589824 without the bottleneck
    69632
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        dilation: PerAxis = 1,
        activation: Activation | None = nn.ReLU,
        bias: bool = True,
        axes: int = 2,
    ) -> None:
        middle = _convolution(axes, hidden, hidden, kernel_size, stride, dilation=dilation, bias=bias)
        parts = {
            "reduce": _convolution(axes, in_channels, hidden, 1, bias=bias),
            "convolve": middle,
            "expand": _convolution(axes, hidden, out_channels, 1, bias=bias),
        }
        super().__init__(_between(parts, activation))


def _between(parts: Mapping[str, nn.Module], activation: Activation | None) -> OrderedDict[str, nn.Module]:
    """The parts with an activation after each but the last."""
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (name, part) in enumerate(parts.items(), start=1):
        named[name] = part
        if activation is not None and number < len(parts):
            named[f"activation{number}"] = activation()
    return named


class Stacked3x3(nn.Sequential):
    """One n x n convolution as (n - 1) / 2 convolutions of 3x3 with the same receptive field.

        n - 1 = 2 * depth,  (C H + (depth - 2) H ** 2 + H O) * 3 ** axes weights in place of C * O * n ** axes

    Two for 5x5 have 72 % of its weights, five for 11x11 37 %, and more nonlinearity. K. Simonyan and A. Zisserman,
    "Very Deep Convolutional Networks", 2015, section 2.3.

    Args:
        in_channels: Channels of the input, C.
        out_channels: Channels of the output, O.
        kernel_size: The n to replace: odd, at least 3.
        hidden: Channels between, H; None is ``out_channels``.
        activation: What stands between; None keeps the stack linear, one convolution with a factored kernel.
        padding: "same", "valid" or another padding for each 3x3.
        bias: Learn biases.
        axes: Spatial axes.

    Raises:
        GeometryError: n is even or below 3.

    >>> block = Stacked3x3(8, 8, 5, bias=False)
    >>> len([p for p in block.parameters()]), sum(p.numel() for p in block.parameters())  # 72 % of 8 * 8 * 25
    (2, 1152)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        hidden: int | None = None,
        activation: Activation | None = nn.ReLU,
        padding: Any = "same",
        bias: bool = True,
        axes: int = 2,
    ) -> None:
        if type(kernel_size) is not int or kernel_size < 3 or kernel_size % 2 == 0:
            raise GeometryError(
                f"Stacked3x3: d windows of 3 span 2 * d + 1 inputs, so that kernel_size must be odd and at least 3; "
                f"got kernel_size={kernel_size!r}."
            )
        depth = (kernel_size - 1) // 2
        widths = [in_channels, *[out_channels if hidden is None else hidden] * (depth - 1), out_channels]
        parts = {
            f"conv{number}": _convolution(axes, *pair, 3, padding=padding, bias=bias)
            for number, pair in enumerate(pairwise(widths), start=1)
        }
        super().__init__(_between(parts, activation))


class Factorized(nn.Sequential):
    """One n x n convolution as a 1 x n and an n x 1 one (three over three axes), with the same receptive field.

        n * (C H + H O) weights in place of n ** 2 * C * O: 2 / n of them where C = H = O

    C. Szegedy et al., "Rethinking the Inception Architecture", 2016, section 3.2. The last axis comes first.

    Args:
        in_channels: Channels of the input, C.
        out_channels: Channels of the output, O.
        kernel_size: n.
        hidden: Channels between, H; None is ``out_channels``.
        activation: What stands between; None keeps it linear: a convolution with separable kernels.
        padding: "same", "valid", or another padding word.
        bias: Learn biases.
        axes: Spatial axes.

    Raises:
        GeometryError: The numbers describe no window.

    >>> block = Factorized(8, 8, 7, bias=False)
    >>> [tuple(p.shape) for p in block.parameters()], sum(p.numel() for p in block.parameters())  # 2 * 7 * 8 * 8
    ([(8, 8, 1, 7), (8, 8, 7, 1)], 896)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        hidden: int | None = None,
        activation: Activation | None = None,
        padding: str = "same",
        bias: bool = True,
        axes: int = 2,
    ) -> None:
        widths = [in_channels, *[out_channels if hidden is None else hidden] * (axes - 1), out_channels]
        parts = {}
        for number, pair in enumerate(pairwise(widths), start=1):
            kernel = [kernel_size if axis == axes - number else 1 for axis in range(axes)]
            parts[f"conv{number}"] = _convolution(axes, *pair, kernel, padding=padding, bias=bias)
        super().__init__(_between(parts, activation))


class HybridDilated(nn.Sequential):
    """Dilated convolutions whose rates differ, so that together they leave few holes, or none: no gridding.

        receptive field 1 + (K - 1) * sum of the rates,  (C O + (n - 1) O ** 2) * K ** axes weights

    Rates with a common divisor d read only every d-th position of their field, whatever the depth; they are refused.
    P. Wang et al., "Understanding Convolution for Semantic Segmentation", 2018, section 3.2, ask for no common divisor,
    for rates that rise like a saw (1, 2, 5, 1, 2, 5), and for ``M_2 <= K`` (:func:`largest_gap`).

    Attributes:
        rates: As given.
        coverage: ``(positions read, positions spanned)`` by one output, per axis: exact, and equal without holes.
        largest_gap: The paper's ``M_2``.

    Args:
        in_channels: Channels of the input, C.
        out_channels: Channels of the output and between, O.
        rates: Dilation of each convolution, 1 is dense.
        kernel_size: Taps per axis, K.
        activation: What follows each convolution; None for nothing.
        bias: Learn biases.
        allow_common_divisor: Build it all the same.
        axes: Spatial axes.

    Raises:
        GeometryError: There are no rates, one is below 1, or they have a common divisor.

    >>> block = HybridDilated(4, 4)
    >>> block.coverage, block.largest_gap, block(torch.zeros(1, 4, 9, 9)).shape
    ((17, 17), 2, torch.Size([1, 4, 9, 9]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int] = (1, 2, 5),
        kernel_size: int = 3,
        activation: Activation | None = nn.ReLU,
        bias: bool = True,
        allow_common_divisor: bool = False,
        axes: int = 2,
    ) -> None:
        self.rates: tuple[int, ...] = tuple(frozen("rates", list(rates)))
        if not self.rates or min(self.rates) < 1:
            raise GeometryError(f"HybridDilated: rates must be one or more numbers of at least 1, got {rates!r}.")
        self.coverage = dilated_coverage(self.rates, kernel_size)
        self.largest_gap = largest_gap(self.rates)
        divisor = math.gcd(*self.rates)
        if divisor > 1 and not allow_common_divisor:
            read, spanned = self.coverage
            share = (read / spanned) ** axes
            raise GeometryError(
                f"HybridDilated: rates {self.rates} have the common divisor {divisor}: one output would read {read} of "
                f"the {spanned} positions that it spans on each axis, {share:.0%} of the pixels, and never the others. "
                "Use rates like (1, 2, 5), or say allow_common_divisor=True."
            )
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for number, rate in enumerate(self.rates, start=1):
            parts[f"conv{number}"] = _convolution(axes, channels, out_channels, kernel_size, dilation=rate, bias=bias)
            if activation is not None:
                parts[f"activation{number}"] = activation()
            channels = out_channels
        super().__init__(parts)


class Residual(nn.Module):
    """What two convolutions add to the input: the basic block of ResNet.

        out = relu(F(x) + S(x))
        F = conv, norm, relu, conv, norm
        S = identity, or 1x1 conv and norm where shapes change

    With ``preactivation`` ``out = F(x) + S(x)``, F = norm, relu, conv, norm, relu, conv, and a 1x1 shortcut reads the
    first norm and relu. K. He et al., "Deep Residual Learning", 2016; "Identity Mappings", 2016. Weights:
    ``(C O + O ** 2) * K ** axes``, ``C O`` for a projection, and two for every normalized channel. The padding is K
    // 2 on both sides, so that the windows of a stride stand where the shortcut's do.

    Args:
        in_channels: Channels of the input, C.
        out_channels: Channels of the output, O; None is ``in_channels``.
        kernel_size: Taps per axis, K, odd.
        stride: Step of the first convolution and of the shortcut.
        preactivation: Normalize before each convolution.
        zero_init: Begin as the identity (or the projection): the last norm's scale is 0 (P. Goyal et al., "Accurate,
            Large Minibatch SGD", 2017). With ``preactivation`` the last convolution's weights are, because a ReLU after
            a norm of scale 0 would never get a gradient.
        axes: Spatial axes.

    Raises:
        GeometryError: The kernel is even, or the numbers describe no window.

    >>> block = Residual(64)
    >>> block(torch.zeros(1, 64, 8, 8)).shape, sum(p.numel() for p in block.parameters())
    (torch.Size([1, 64, 8, 8]), 73984)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        preactivation: bool = False,
        zero_init: bool = False,
        axes: int = 2,
    ) -> None:
        super().__init__()
        if type(kernel_size) is not int or kernel_size % 2 == 0:
            raise GeometryError(
                f"Residual: kernel_size must be odd, so that branch and shortcut line up; got {kernel_size!r}."
            )
        outputs = in_channels if out_channels is None else out_channels
        window: dict[str, Any] = {"padding": kernel_size // 2, "bias": False}
        self.preactivation, self.axes = preactivation, axes
        self.conv1 = _convolution(axes, in_channels, outputs, kernel_size, stride, **window)
        self.norm1 = BATCH_NORM[axes](in_channels if preactivation else outputs)
        self.conv2 = _convolution(axes, outputs, outputs, kernel_size, **window)
        self.norm2 = BATCH_NORM[axes](outputs)
        self.activation = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or outputs != in_channels:
            projection = _convolution(axes, in_channels, outputs, 1, stride, padding=0, bias=False)
            self.shortcut = projection if preactivation else nn.Sequential(projection, BATCH_NORM[axes](outputs))
        if zero_init:
            nn.init.zeros_((self.conv2 if preactivation else self.norm2).get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, O, *out)``."""
        _require_batch(self, self.axes, x)
        if not self.preactivation:
            branch = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
            return self.activation(branch + self.shortcut(x))
        ready = self.activation(self.norm1(x))
        kept = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(ready)
        return kept + self.conv2(self.activation(self.norm2(self.conv1(ready))))
