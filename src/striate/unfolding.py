"""Every window laid out as a column (im2col), and the adjoint that adds columns back into an image (col2im)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import borders
from .errors import GeometryError
from .geometry import Axis, Geometry, frozen
from .graphs import fixed, whole


@whole
def unfold(
    x: Tensor,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """What every window reads, over any number of spatial axes: im2col.

        out[n, c, *t, *o] = x[n, c, *(o * stride + t * dilation - before)]        (0 on padding)

    A convolution is the weights times these columns (K. Chellapilla, S. Puri and P. Simard, "High Performance
    Convolutional Neural Networks for Document Processing", 2006, section 3.1). ``torch.nn.functional.unfold`` gives the
    same numbers as ``(N, C * taps, positions)``, over two axes.

    Args:
        x: ``(N, C, *spatial)``, or ``(C, *spatial)`` when ``kernel`` names as many axes as that has.
        kernel: Window size, one number per axis; a single number needs x with a batch.
        stride: Step between windows.
        padding: A number, one number or ``(before, after)`` pair per axis, or a word.
        dilation: Step between taps.

    Returns:
        ``(N, C, *kernel, *out)``, a copy.

    Raises:
        GeometryError: The window does not fit x.

    >>> unfold(torch.tensor([[[1.0, 2.0, 3.0]]]), 2)
    tensor([[[[1., 2.],
              [2., 3.]]]])
    """
    kernel = frozen("kernel", kernel)
    axes = len(kernel) if isinstance(kernel, tuple) else x.dim() - 2
    if axes < 1 or x.dim() not in (axes + 1, axes + 2):
        raise GeometryError(
            f"unfold: kernel={kernel!r} and x of shape {tuple(x.shape)} do not fit: x must be (N, C, *spatial), or "
            "(C, *spatial) with one kernel number for each of its spatial axes."
        )
    size = fixed("unfold", x.shape[-axes:])
    geometry, _ = _fitted("unfold", axes, kernel, stride, padding, dilation, size)
    batched = x if x.dim() == axes + 2 else x.unsqueeze(0)
    out = columns(batched, geometry).clone(memory_format=torch.contiguous_format)
    return out if x.dim() == axes + 2 else out.squeeze(0)


@whole
def fold(
    columns: Tensor,
    output_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """The adjoint of :func:`unfold`, col2im: every column added back where its window read.

        out[n, c, i] = sum of columns[n, c, *t, *o] over all t, o with o * stride + t * dilation - before = i
        <unfold(x), y> = <x, fold(y)>

    The sums run in one fixed order, so that they are the same on every run and every device.

    Args:
        columns: ``(N, C, *kernel, *out)`` or ``(C, *kernel, *out)``; the kernel is read off its shape.
        output_size: Positions per axis of the image, one number or one per axis.
        stride: As :func:`unfold` was given, likewise padding and dilation.
        padding: See :func:`unfold`.
        dilation: See :func:`unfold`.

    Returns:
        ``(N, C, *output_size)``, or without the batch.

    Raises:
        GeometryError: The columns are not those of this window over this size.

    >>> fold(torch.tensor([[[[1.0, 2.0], [2.0, 3.0]]]]), 3)
    tensor([[[1., 4., 3.]]])
    """
    axes = columns.dim() // 2 - (columns.dim() % 2 == 0)
    if axes < 1:
        raise GeometryError(
            f"fold: columns must be (N, C, *kernel, *out) or (C, *kernel, *out), got shape {tuple(columns.shape)}."
        )
    lone = columns.dim() % 2
    spans = fixed("fold", columns.shape[-2 * axes :])
    kernel, outputs = spans[:axes], spans[axes:]
    image = frozen("output_size", output_size)
    image = image if isinstance(image, tuple) else (image,) * axes
    if len(image) != axes:
        raise GeometryError(
            f"fold: output_size={image!r} has {len(image)} entries, but columns of shape {tuple(columns.shape)} "
            f"have {axes} kernel axes; give one number, or one for each."
        )
    geometry, expected = _fitted("fold", axes, kernel, stride, padding, dilation, image)
    if outputs != expected:
        raise GeometryError(
            f"fold: the window of kernel {kernel} has {expected} positions over output_size={image}, but columns of "
            f"shape {tuple(columns.shape)} hold {outputs}; give the options and the size that unfold was given."
        )
    folded = images(columns.unsqueeze(0) if lone else columns, geometry, image)
    return folded.squeeze(0) if lone else folded


def columns(x: Tensor, geometry: Geometry) -> Tensor:
    """The reads of every window, ``(N, C, *size)`` to ``(N, C, *kernel, *out)``: a view where nothing is padded.

    Args:
        x: ``(N, C, *size)``.
        geometry: The window, not transposed; negative padding crops.
    """
    axes = len(geometry.axes)
    patches = pad(x, geometry.axes)
    for dim, axis in enumerate(geometry.axes, start=2):
        patches = patches.unfold(dim, axis.extent, axis.stride)[..., :: axis.dilation]
    return patches.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))


def images(columns: Tensor, geometry: Geometry, size: Sequence[int]) -> Tensor:
    """The adjoint of :func:`columns`: ``(N, C, *kernel, *out)`` to ``(N, C, *size)``, one axis at a time.

    Sums of 16-bit numbers are kept in float32.
    """
    dtype = columns.dtype
    wide = columns.to(torch.float32) if dtype in (torch.float16, torch.bfloat16) else columns
    for axis, n in zip(geometry.axes, size, strict=True):
        wide = _folded(wide, len(geometry.axes) + 1, axis, n)
    return pad(wide, geometry.axes, -1).to(dtype)


def pad(x: Tensor, axes: Sequence[Axis], sign: int = 1) -> Tensor:
    """Zeros before and after each spatial axis; where the number is negative, rows are cropped."""
    return borders.pad(x, [(sign * axis.before, sign * axis.after) for axis in axes])


def _folded(columns: Tensor, dim: int, axis: Axis, size: int) -> Tensor:
    """One axis, padding included: the taps stand on dimension 2, and on ``dim``, once they are gone, the positions."""
    taps = columns.unbind(2)
    shape = list(taps[0].shape)
    reach = (shape[dim] - 1) * axis.stride + 1
    shape[dim] = size + axis.before + axis.after
    image = columns.new_zeros(shape)
    for number, tap in enumerate(taps):
        start = number * axis.dilation
        image[(slice(None),) * dim + (slice(start, start + reach, axis.stride),)] += tap
    return image


def _fitted(
    name: str, axes: int, kernel: Any, stride: Any, padding: Any, dilation: Any, size: tuple[int, ...]
) -> tuple[Geometry, tuple[int, ...]]:
    """The window and its output positions; the message of a refusal begins with who was called over what."""
    try:
        geometry = Geometry.window(axes, kernel, stride=stride, padding=padding, dilation=dilation, size=size)
        return geometry, geometry.output_size(size)
    except GeometryError as error:
        raise GeometryError(f"{name} over spatial size {size}: {error}") from None
