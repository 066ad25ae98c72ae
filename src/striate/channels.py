"""What blocks do between channels: dealing them out, and weighting them by what the whole map shows."""

from __future__ import annotations

from torch import Tensor, nn

from .errors import GeometryError
from .layers import FullyConnected
from .pooling import require_count


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels dealt out, so that each of the next groups gets some of every group.

        out[n, j * groups + i] = x[n, i * (C / groups) + j]        (reshape to groups x C/groups, transpose, flatten)

    X. Zhang, X. Zhou, M. Lin and J. Sun, "ShuffleNet", 2018, section 3.1.

    Args:
        x: ``(N, C, ...)``.
        groups: Groups of the convolution before; it divides C.

    Raises:
        GeometryError: The groups do not divide the channels.

    >>> import torch
    >>> channel_shuffle(torch.arange(6).view(1, 6), 2)
    tensor([[0, 3, 1, 4, 2, 5]])
    """
    if x.dim() < 2:
        raise GeometryError(f"channel_shuffle: x must be (N, C, ...), got shape {tuple(x.shape)}.")
    if type(groups) is not int or groups < 1 or x.shape[1] % groups:
        raise GeometryError(f"channel_shuffle: groups={groups!r} does not divide the {x.shape[1]} channels of x.")
    return x.unflatten(1, (groups, x.shape[1] // groups)).transpose(1, 2).flatten(1, 2)


class ChannelShuffle(nn.Module):
    """:func:`channel_shuffle` as a layer, on any number of axes and without parameters.

    >>> import torch
    >>> ChannelShuffle(2)(torch.arange(4).view(1, 4))
    tensor([[0, 2, 1, 3]])
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        require_count("ChannelShuffle", "groups", groups)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, ...)`` to the same shape."""
        return channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        """The groups."""
        return f"{self.groups}"


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map shows: squeeze to means, excite through two layers, reweight.

        out[n, c] = x[n, c] * s[n, c],  s = sigmoid(W2 relu(W1 mean(x) + b1) + b2)

    ``2 C * H + H + C`` parameters, H = max(C // reduction, 1). J. Hu, L. Shen and G. Sun, "Squeeze-and-Excitation
    Networks", 2018, section 3. Works on any number of spatial axes.

    Args:
        channels: Channels of the input, C.
        reduction: By how much the hidden layer is narrower.

    Raises:
        GeometryError: The reduction is below 1, or the input has no spatial axes.

    >>> import torch
    >>> block = SqueezeExcite(64)
    >>> block(torch.zeros(1, 64, 5, 5)).shape, sum(p.numel() for p in block.parameters())
    (torch.Size([1, 64, 5, 5]), 580)
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        require_count("SqueezeExcite", "reduction", reduction)
        hidden = max(channels // reduction, 1)
        self.reduce = FullyConnected(channels, hidden)
        self.activation = nn.ReLU()
        self.expand = FullyConnected(hidden, channels)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to the same shape.

        Raises:
            GeometryError: There are no spatial axes, or another number of channels.
        """
        if x.dim() < 3 or x.shape[1] != self.reduce.in_features:
            raise GeometryError(
                f"SqueezeExcite takes (N, {self.reduce.in_features}, *spatial), got shape {tuple(x.shape)}."
            )
        means = x.flatten(2).mean(2)
        weights = self.gate(self.expand(self.activation(self.reduce(means))))
        return x * weights.view(*weights.shape, *(1 for _ in x.shape[2:]))
