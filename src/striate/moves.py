"""Whole batches of maps moved, mirrored and cropped, each example in its own way, without a loop over examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import OptionError

REFLECT = "reflect"
SHORT = 64  # rows up to which a matrix product is faster than turning the map twice


@dataclass(frozen=True, eq=False)
class Placement:
    """Where each example of a batch is moved to: first mirrored, then shifted.

        out[b, c, y] = in[b, c, source]     source = y + offset, counted from the other end where mirrored

    Args:
        mirrored: For each spatial axis bool ``(B,)``, or None where nothing is.
        offsets: int64 ``(axes, B)``, in positions; None if nothing is shifted.
        reach: No offset is further from 0.
        fill: What comes in from outside: "reflect", or a number.

    >>> to_the_left = Placement((None,), torch.tensor([[1, 0]]), reach=1, fill=0)
    >>> move(torch.tensor([[[1, 2, 3]], [[4, 5, 6]]]), to_the_left).tolist()
    [[[2, 3, 0]], [[4, 5, 6]]]
    """

    mirrored: tuple[Tensor | None, ...]
    offsets: Tensor | None = None
    reach: int = 0
    fill: str | float = REFLECT

    def then(self, after: Placement) -> Placement | None:
        """Both as one, or None if they are not one placement."""
        if self.offsets is not None and after.offsets is not None:
            return None
        first = self.offsets
        if first is not None:
            turned = [o if m is None else torch.where(m, -o, o) for o, m in zip(first, after.mirrored, strict=True)]
            first = torch.stack(turned)
        mirrored = tuple(map(_either, self.mirrored, after.mirrored))
        source = after if first is None else self
        return Placement(mirrored, after.offsets if first is None else first, source.reach, source.fill)


def _either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return (one if other is None else other) if one is None or other is None else one ^ other


def move(x: Tensor, placement: Placement) -> Tensor:
    """A batch ``(B, C, *spatial)`` moved, of any type; what lies channels-last stays so.

    Raises:
        OptionError: A reflection reaches further than the map.
    """
    last = x.movedim(1, -1)
    channels_last = last.is_contiguous() and not x.is_contiguous()
    rows = last if channels_last else x.contiguous().unsqueeze(-1)
    lead = 1 if channels_last else 2
    for axis, which in enumerate(placement.mirrored):
        if which is not None:
            rows = _mirrored(rows, lead + axis, which)
    if placement.offsets is not None and placement.reach:
        rows = _shifted(rows, placement, placement.offsets, lead)
    return rows.movedim(-1, 1) if channels_last else rows.squeeze(-1)


def _mirrored(rows: Tensor, dim: int, which: Tensor) -> Tensor:
    """Some examples turned around along one dimension; a CPU only copies the others."""
    if rows.device.type != "cpu":
        return torch.where(which.view(-1, *[1] * (rows.dim() - 1)), rows.flip(dim), rows)
    turned = rows.index_select(0, which.nonzero().squeeze(1)).flip(dim)
    source = torch.where(which, len(rows) - 1 + which.cumsum(0), torch.arange(len(rows)))
    return torch.cat([rows, turned]).index_select(0, source)


def _shifted(rows: Tensor, placement: Placement, offsets: Tensor, lead: int) -> Tensor:
    """Contiguous ``(B, *lead, *spatial, unit)`` shifted; ``lead`` dimensions come before the spatial ones.

    Rows of the result are windows of rows that are extended at both ends: one copy of whole rows, wherever they begin.
    """
    sizes, unit = rows.shape[lead:-1], rows.shape[-1]
    extended = _extended(rows, placement, lead)
    starts = torch.arange(rows.shape[:lead].numel(), device=rows.device).view(rows.shape[:lead])
    for axis, size in enumerate(sizes[:-1]):
        source = torch.arange(size, device=rows.device) + offsets[axis].unsqueeze(1)
        reflected = size - 1 - (size - 1 - source.abs()).abs()
        source = reflected if placement.fill == REFLECT else source + placement.reach
        beside = source.view(len(rows), *[1] * (starts.dim() - 1), size)
        starts = starts.unsqueeze(-1) * extended.shape[lead + axis] + beside
    starts = starts * (extended.shape[-2] * unit)
    starts = starts + ((offsets[-1] + placement.reach) * unit).view(-1, *[1] * (starts.dim() - 1))
    length = sizes[-1] * unit
    windows = extended.as_strided((extended.numel() - length + 1, length), (1, 1))
    return windows.index_select(0, starts.flatten()).view(rows.shape)


def _extended(rows: Tensor, placement: Placement, lead: int) -> Tensor:
    """Rows with ``reach`` positions more at both ends; a number also around the other axes, which reflect later."""
    reach = placement.reach
    if placement.fill != REFLECT:
        spatial = rows.dim() - lead - 1
        if reach >= (shortest := min(rows.shape[lead:-1])):
            raise OptionError(f"A shift by up to {reach} may leave nothing of {shortest}; at most {shortest - 1}.")
        return F.pad(rows, (0, 0, *[reach] * (2 * spatial)), value=float(placement.fill))
    if (shortest := min(rows.shape[lead:-1])) <= reach:
        raise OptionError(
            f"A shift by up to {reach} reflects {reach} positions, but an axis has only {shortest}; "
            f"shift by at most {shortest - 1}, or pad with zeros."
        )
    before, after = rows.narrow(-2, 1, reach), rows.narrow(-2, rows.shape[-2] - 1 - reach, reach)
    return torch.cat([before.flip(-2), rows, after.flip(-2)], -2)


@dataclass(frozen=True, eq=False)
class Boxes:
    """A box for each example of a batch, which is to fill the whole map.

    Args:
        starts: float32 ``(axes, B)``: the lower edges, in positions; 0 is the edge of the first position.
        lengths: float32 ``(axes, B)``.
    """

    starts: Tensor
    lengths: Tensor

    def places(self, size: int, axis: int) -> Tensor:
        """Where the centres of the result lie on the map: ``(B, size)``, 0 is the first centre; none is outside."""
        steps = (torch.arange(size, device=self.starts.device) + 0.5) / size
        places = torch.addcmul(self.starts[axis].unsqueeze(1), self.lengths[axis].unsqueeze(1), steps) - 0.5
        return places.clamp_(0, size - 1)


def crop(x: Tensor, boxes: Boxes) -> Tensor:
    """The boxes of a batch ``(B, C, *spatial)``, brought to the size of the map, linear between pixels.

        out(o) = (1 - part) * x[below] + part * x[below + 1]        below + part = lower edge + (o + 1/2) * scale - 1/2

    One axis after another; beyond the map its edge goes on. Boxes are never larger than the map, so nothing has to be
    smoothed. The result is float32, or double as the map is; its dimensions may lie in another order in memory.

    Rows are read whole. Along the last axis short ones are multiplied by a matrix for each example, which has two
    numbers in a column; longer ones are turned, so that they are read whole too.
    """
    x, last = x.contiguous(), x.dim() - 1
    for dim in range(2, last):
        x = _stretched(x, dim, boxes.places(x.shape[dim], dim - 2))
    size = x.shape[last]
    places = boxes.places(size, last - 2)
    if size <= SHORT:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        weights = 1 - (places.unsqueeze(1) - torch.arange(size, device=x.device).unsqueeze(1)).abs_()
        return (x.flatten(1, -2) @ weights.clamp_min_(0).to(x.dtype)).view(x.shape)
    return _stretched(x.movedim(last, 2).contiguous(), 2, places).movedim(2, last)


def _stretched(x: Tensor, dim: int, places: Tensor) -> Tensor:
    """A contiguous batch read along one dimension at ``places`` ``(B, size)``, linear between neighbours."""
    before, size, after = x.shape[1:dim].numel(), x.shape[dim], x.shape[dim + 1 :].numel()
    kind = torch.promote_types(x.dtype, torch.float32)
    below = places.floor()
    first = torch.arange(len(x) * before, device=x.device).view(-1, before, 1) * size
    low, high = (
        x.view(-1, after).index_select(0, (first + row.long().unsqueeze(1)).flatten()).to(kind)
        for row in (below, (below + 1).clamp_(max=size - 1))
    )
    part = (places - below).unsqueeze(1).expand(-1, before, -1).reshape(-1, 1)
    return low.lerp_(high, part.to(kind)).view(x.shape)


def nearest(mask: Tensor, boxes: Boxes) -> Tensor:
    """The boxes of masks ``(B, *spatial)``, brought to the size of the mask: each position takes the nearest one."""
    places = []
    for axis, size in enumerate(mask.shape[1:]):
        near = boxes.places(size, axis).round_().long()
        places.append(near.view(len(mask), *[1] * axis, size, *[1] * (mask.dim() - 2 - axis)))
    examples = torch.arange(len(mask), device=mask.device).view(-1, *[1] * (mask.dim() - 1))
    return mask[(examples, *places)]
