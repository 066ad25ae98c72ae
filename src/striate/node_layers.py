"""Layers of a network's text that PyTorch has no module for: sums and joins of branches, borders, sizes, channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import borders
from .adaptive import max_unpool
from .graphs import fixed, whole
from .operations import Shape


def joined(combine: Callable[[Tensor, Tensor], Tensor], branches: Sequence[Tensor]) -> Tensor:
    """Branches combined from the left; a vector ``(N, C)`` beside maps is repeated at all positions."""
    axes = max(branch.dim() for branch in branches)
    first, *others = (branch[(...,) + (None,) * (axes - branch.dim())] for branch in branches)
    return reduce(combine, others, first) if others else first.clone()


class Sum(nn.Module):
    """The sum of the branches.

    >>> Sum()(torch.zeros(1, 2, 3), torch.tensor([[1.0, 5.0]]))
    tensor([[[1., 1., 1.],
             [5., 5., 5.]]])
    """

    def forward(self, *branches: Tensor) -> Tensor:
        """Branches ``(N, C, *spatial)`` to one such tensor."""
        return joined(torch.add, branches)


class Product(nn.Module):
    """The product of the branches.

    >>> Product()(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[3.0]]))
    tensor([[[3., 6.]]])
    """

    def forward(self, *branches: Tensor) -> Tensor:
        """Branches ``(N, C, *spatial)`` to one such tensor."""
        return joined(torch.mul, branches)


class Concat(nn.Module):
    """The branches' channels, one branch after the other.

    >>> Concat()(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)).shape
    torch.Size([1, 5, 4])
    """

    def forward(self, *branches: Tensor) -> Tensor:
        """Branches ``(N, C, *spatial)`` to ``(N, sum of all C, *spatial)``."""
        return torch.cat(branches, 1)


class Scale(nn.Module):
    """Each channel times a learned number, ``start`` at first, plus another one, 0 at first.

    >>> Scale(3)(torch.ones(1, 3, 2)).shape
    torch.Size([1, 3, 2])
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, bias: bool = True, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to the same shape."""
        per_channel = (-1, *(1 for _ in x.shape[2:]))
        weight = self.weight.view(per_channel)
        return x * weight if self.bias is None else torch.addcmul(self.bias.view(per_channel), x, weight)

    def extra_repr(self) -> str:
        """The channels."""
        return f"{len(self.weight)}, bias={self.bias is not None}"


class LayerNorm(nn.LayerNorm):
    """Normalisation of each position over its channels, which come second.

        out[n, c, *p] = (x[n, c, *p] - mean) / sqrt(variance + eps) * weight[c] + bias[c],  both over all c

    >>> LayerNorm(2, 0.0)(torch.tensor([[[1.0, 5.0], [3.0, 9.0]]])).detach()
    tensor([[[-1., -1.],
             [ 1.,  1.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class RBF(nn.Module):
    """Nearness to fixed codes: minus the squared distance to each, so that the largest output is the nearest code.

        out[n, k] = -sum over i of (x[n, i] - codes[k, i])^2,  codes of +1 and -1

    The codes are drawn, always the same ones for the same numbers. Y. LeCun, L. Bottou, Y. Bengio and P. Haffner,
    "Gradient-Based Learning Applied to Document Recognition", 1998, section II.B, drew theirs by hand.

    Args:
        in_features: Numbers of an example.
        out_features: Codes.

    >>> rbf = RBF(84, 10)
    >>> rbf(rbf.codes).argmax(1)
    tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    codes: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        with torch.device("cpu"):
            draw = torch.rand(out_features, in_features, generator=torch.Generator().manual_seed(0))
        self.register_buffer("codes", (draw < 0.5).float().mul(2).sub(1).to(torch.empty(0).device))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, out_features)``."""
        flat = x.flatten(1)
        return 2 * F.linear(flat, self.codes) - flat.square().sum(1, keepdim=True) - flat.shape[1]

    def extra_repr(self) -> str:
        """Numbers and codes."""
        return f"{self.codes.shape[1]}, {self.codes.shape[0]}"


class Channels(nn.Module):
    """Some of the channels, in a given order.

    >>> Channels([0, 1, 3])(torch.tensor([[5.0, 6.0, 7.0, 8.0]]))
    tensor([[5., 6., 8.]])
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        breaks = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
        self.runs = [(numbers[i], numbers[j - 1] + 1) for i, j in pairwise([0, *breaks, len(numbers)])]

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, ...)`` to ``(N, len(numbers), ...)``: a view where the channels are neighbours."""
        parts = [x[:, first:end] for first, end in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def extra_repr(self) -> str:
        """The channels, as ranges."""
        return ", ".join(f"{first}:{end}" for first, end in self.runs)


class PixelShuffle(nn.Module):
    """Channels become positions, on any number of axes, in the order of ``torch.nn.PixelShuffle``.

    >>> PixelShuffle(2)(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[1., 3., 2., 4.]]])
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C * scale^axes, *n)`` to ``(N, C, *(scale * n))``."""
        if x.dim() == 4:
            return F.pixel_shuffle(x, self.scale)
        axes = x.dim() - 2
        order = [place for axis in range(axes) for place in (2 + axes + axis, 2 + axis)]
        blocks = x.unflatten(1, (-1, *[self.scale] * axes)).permute(0, 1, *order)
        return blocks.clone(memory_format=torch.contiguous_format).view(
            len(x), -1, *(n * self.scale for n in x.shape[2:])
        )

    def extra_repr(self) -> str:
        """The scale."""
        return f"{self.scale}"


class PixelUnshuffle(PixelShuffle):
    """Positions become channels: the way back through :class:`PixelShuffle`.

    >>> PixelUnshuffle(2)(torch.tensor([[[1.0, 3.0, 2.0, 4.0]]]))
    tensor([[[1., 2.],
             [3., 4.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *(scale * n))`` to ``(N, C * scale^axes, *n)``."""
        if x.dim() == 4:
            return F.pixel_unshuffle(x, self.scale)
        axes, size = x.dim() - 2, [n // self.scale for n in x.shape[2:]]
        blocks = x.view(*x.shape[:2], *(k for n in size for k in (n, self.scale)))
        order = [1, *(3 + 2 * axis for axis in range(axes)), *(2 + 2 * axis for axis in range(axes))]
        return blocks.permute(0, *order).clone(memory_format=torch.contiguous_format).view(len(x), -1, *size)


class Resize(nn.Module):
    """Interpolation to a size, or to a multiple of the input's.

    >>> Resize(scale=(2,))(torch.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 1., 2., 2.]]])
    """

    def __init__(
        self,
        size: Shape | None = None,
        scale: Shape = (),
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scale, self.mode, self.align_corners = size, scale, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *spatial)`` to ``(N, C, *size)``."""
        size = [n * s for n, s in zip(x.shape[2:], self.scale, strict=True)] if self.size is None else list(self.size)
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)

    def extra_repr(self) -> str:
        """Size or scale, and how values between positions are found."""
        goal = f"scale={self.scale}" if self.size is None else f"size={self.size}"
        return f"{goal}, mode={self.mode!r}" + (", align_corners=True" if self.align_corners else "")


@whole
def padded(x: Tensor, rows: tuple[tuple[int, int], ...], border: str) -> Tensor:
    """Rows added on the sides of each axis: zeros, or copies of what is inside.

    >>> padded(torch.tensor([[[1.0, 2.0, 3.0]]]), ((1, 2),), "circular")
    tensor([[[3., 1., 2., 3., 1., 2.]]])
    """
    if border == "zeros":
        return F.pad(x, [n for pair in reversed(rows) for n in pair])
    size = fixed("PAD", x.shape[2:])
    return borders.extend(x, [(border, n, *pair) for n, pair in zip(size, rows, strict=True)])


class Pad(nn.Module):
    """Rows added on the sides of each axis: zeros, or what the border finds.

    >>> Pad(((1, 0),), "replicate")(torch.tensor([[[4.0, 5.0]]]))
    tensor([[[4., 4., 5.]]])
    """

    def __init__(self, rows: tuple[tuple[int, int], ...], border: str = "zeros") -> None:
        super().__init__()
        self.rows, self.border = rows, border

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *n)`` to ``(N, C, *(n + before + after))``."""
        return padded(x, self.rows, self.border)

    def extra_repr(self) -> str:
        """Rows before and after on each axis, and what they hold."""
        return f"{self.rows}, {self.border!r}"


class Crop(nn.Module):
    """Rows taken away from the sides of each axis: a view of the rest.

    >>> Crop(((1, 2),))(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    tensor([[[2.]]])
    """

    def __init__(self, rows: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *n)`` to ``(N, C, *(n - before - after))``."""
        return x[(slice(None), slice(None), *(slice(before, -after or None) for before, after in self.rows))]

    def extra_repr(self) -> str:
        """Rows before and after on each axis."""
        return f"{self.rows}"


class Unpool(nn.Module):
    """Each value back where a max pooling found it, zeros elsewhere.

    >>> Unpool()(torch.tensor([[[5.0]]]), (torch.tensor([[[1]]]), (3,)))
    tensor([[[0., 5., 0.]]])
    """

    def forward(self, x: Tensor, found: tuple[Tensor, Sequence[int]]) -> Tensor:
        """``(N, C, *out)``, and the pooling's switches and input size, to ``(N, C, *size)``."""
        switches, size = found
        return max_unpool(x, switches, tuple(size))
