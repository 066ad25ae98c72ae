"""The matrix of a window layer, entry by entry from the taps: Toeplitz, circulant, doubly block circulant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from . import padding as padding_words
from .errors import GeometryError, unknown_name
from .geometry import Axis, Geometry, frozen
from .graphs import whole
from .taps import reads as count
from .taps import taps

LARGEST = 2**28


@whole
def matrix(
    weight: Tensor,
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    flip: bool = False,
    padding_mode: str = "zeros",
    sparse: bool = False,
) -> Tensor:
    """The matrix M of a layer: ``M @ x.flatten() == conv(x, weight, ...).flatten()`` for one ``x`` without a batch.

        M[(o, p), (c, i)] = sum of weight[o, c, t] over all taps t with p * stride + t * dilation - before = i

    With ``flip=True`` and ``padding="full"`` it is the Toeplitz matrix of the mathematical convolution, and with
    ``padding="causal", padding_mode="circular"`` too the circulant one; over two axes the blocks are arranged in the
    same way (doubly block circulant). Source: I. Goodfellow et al., "Deep Learning", 2016, section 9.1; A. Jain,
    "Fundamentals of Digital Image Processing", 1989, section 2.8.

    Args:
        weight: ``(O, C/groups, *K)``; or ``(*period, O, C/groups, *K)`` of a local or tiled layer, whose weights
            repeat after ``period`` output positions.
        size: Input positions, one number or one per axis. A single number takes the weight as shared.
        stride: As in :func:`striate.conv`; likewise padding, dilation, groups, flip and padding_mode.
        padding: See :func:`striate.conv`.
        dilation: See :func:`striate.conv`.
        groups: See :func:`striate.conv`.
        flip: See :func:`striate.conv`.
        padding_mode: See :func:`striate.conv`.
        sparse: Return a coalesced COO tensor, which holds the entries that some tap writes, even where the weight is
            zero. (COO, because it is differentiable in its values; ``.to_sparse_csr()`` is one call away.)

    Returns:
        ``(O * prod(out), C * prod(size))``, differentiable with respect to the weight.

    Raises:
        GeometryError: The numbers do not fit each other, or the matrix would have more than 2**28 entries.
        UnknownNameError: No such padding word or padding mode.

    >>> matrix(torch.tensor([[[1.0, 2.0, 3.0]]]), 4, flip=True, padding="causal", padding_mode="circular")
    tensor([[1., 0., 3., 2.],
            [2., 1., 0., 3.],
            [3., 2., 1., 0.],
            [0., 3., 2., 1.]])
    """
    names = ("size", "stride", "padding", "dilation", "groups")
    counted, *options = map(frozen, names, (size, stride, padding, dilation, groups))
    sizes = counted if isinstance(counted, tuple) else (counted,) * max(weight.dim() - 2, 1)
    try:
        layer = _layer(tuple(weight.shape), sizes, options, padding_mode)
        _check_entries(layer, sparse)
    except GeometryError as error:
        raise GeometryError(f"matrix of weight {tuple(weight.shape)} over size {sizes}: {error}") from None
    kernels = weight.flip(tuple(range(-len(sizes), 0))) if flip else weight
    return stored(kernels, layer) if sparse else dense(kernels, layer)


@dataclass(frozen=True, slots=True)
class Layer:
    """What the places of a matrix's entries depend on.

    Args:
        geometry: The window over the input, not transposed and not flipped.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        size: Input positions per axis.
        sources: In the padding modes other than zeros, where each position of the padded axes comes from; the geometry
            is then that of the window over the padded input.
    """

    geometry: Geometry
    in_channels: int
    out_channels: int
    size: tuple[int, ...]
    sources: tuple[tuple[int, ...], ...] | None = None

    @property
    def read(self) -> tuple[int, ...]:
        """Positions per axis that the window slides over."""
        return self.size if self.sources is None else tuple(map(len, self.sources))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        outputs = self.geometry.output_size(self.read)
        return self.out_channels * prod(outputs), self.in_channels * prod(self.size)

    @property
    def entries(self) -> int:
        """Reads of real inputs: entries that are not zero by construction, unless padding copies inputs."""
        reads = prod(count(axis, n) for axis, n in zip(self.geometry.axes, self.read, strict=True))
        return self.out_channels * self.in_channels // self.geometry.groups * reads


def dense(weight: Tensor, layer: Layer) -> Tensor:
    """The matrix with all its zeros."""
    rows, columns, chosen = places(layer, weight.device)
    height, width = layer.shape
    values = weight.flatten()[chosen]
    flat = values.new_zeros(height * width).index_put((rows * width + columns,), values, accumulate=True)
    return flat.view(height, width)


def stored(weight: Tensor, layer: Layer) -> Tensor:
    """The matrix as a coalesced sparse tensor in COO format."""
    rows, columns, chosen = places(layer, weight.device)
    values, where = weight.flatten()[chosen], torch.stack((rows, columns))
    return torch.sparse_coo_tensor(where, values, layer.shape, check_invariants=False).coalesce()


def places(layer: Layer, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and flat weight index of every read; the same row and column may come more than once."""
    output, tap, read, residue = _positions(layer, device)
    groups, channels = layer.geometry.groups, layer.in_channels // layer.geometry.groups
    filters = torch.arange(layer.out_channels, device=device).repeat_interleave(channels)
    inner = torch.arange(channels, device=device).repeat(layer.out_channels)
    group = filters // max(layer.out_channels // groups, 1)
    pairs, (height, width) = layer.out_channels * channels, layer.shape
    rows = _mixed(filters, output, height // max(layer.out_channels, 1))
    columns = _mixed(group * channels + inner, read, width // max(layer.in_channels, 1))
    within = _mixed(filters * channels + inner, tap, prod(layer.geometry.kernel))
    step = pairs * prod(layer.geometry.kernel)
    return rows, columns, within + (residue * step).repeat(pairs)


def _positions(layer: Layer, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Flat output position, tap, input position and residue of the period, of every read of one channel pair."""
    geometry, outputs = layer.geometry, layer.geometry.output_size(layer.read)
    found = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(4)]
    for number, (axis, n) in enumerate(zip(geometry.axes, layer.read, strict=True)):
        reads = [(o, t, _source(layer, number, i), o % axis.period) for o, t, i in taps(axis, n)]
        parts = torch.tensor(reads, dtype=torch.int64, device=device).view(-1, 4).unbind(1)
        spans = (outputs[number], axis.kernel, layer.size[number], axis.period)
        found = [_mixed(high, low, span) for high, low, span in zip(found, parts, spans, strict=True)]
    output, tap, read, residue = found
    return output, tap, read, residue


def _mixed(high: Tensor, low: Tensor, span: int) -> Tensor:
    """Every high digit with every low one, as one number."""
    return (high[:, None] * span + low).flatten()


def _source(layer: Layer, number: int, position: int) -> int:
    return position if layer.sources is None else layer.sources[number][position]


def _layer(weight: tuple[int, ...], size: tuple[int, ...], options: list[Any], mode: str) -> Layer:
    """The layer that shapes and options describe."""
    axes = len(size)
    if axes < 1 or len(weight) not in (axes + 2, 2 * axes + 2):
        raise GeometryError(
            f"a size of {axes} {'axis' if axes == 1 else 'axes'} needs weight (O, C/groups, *K) with {axes + 2} "
            f"dimensions, or (*period, O, C/groups, *K) with {2 * axes + 2}; got {len(weight)}."
        )
    stride, padding, dilation, groups = options
    period, (outputs, channels) = weight[: -axes - 2] or 1, weight[-axes - 2 : -axes]
    window = Geometry.window(
        axes, weight[-axes:], stride=stride, padding=padding, dilation=dilation, groups=groups, period=period, size=size
    )
    window.weight_shape(channels * groups, outputs)
    window.output_size(size)
    if mode not in padding_words.MODES:
        raise unknown_name("padding mode", mode, padding_words.MODES)
    if mode == "zeros":
        return Layer(window, channels * groups, outputs, size)
    sources = tuple(
        tuple(padding_words.sources(mode, n, axis.before, axis.after))
        for axis, n in zip(window.axes, size, strict=True)
    )
    bare = tuple(Axis(axis.kernel, axis.stride, axis.dilation, period=axis.period) for axis in window.axes)
    return Layer(Geometry(bare, window.groups), channels * groups, outputs, size, sources)


def _check_entries(layer: Layer, sparse: bool) -> None:
    height, width = layer.shape
    if not sparse and height * width > LARGEST:
        raise GeometryError(
            f"the dense matrix would be {height} x {width}, {height * width:,} entries, and at most {LARGEST:,} are "
            "made; give sparse=True."
        )
    if sparse and layer.entries > LARGEST:
        raise GeometryError(
            f"the sparse matrix would hold {layer.entries:,} entries, and at most {LARGEST:,} are made; "
            "give a smaller size, whose pattern is the same."
        )
