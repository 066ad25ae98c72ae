"""Whole batches of maps moved, mirrored and cropped, each example in its own way, without a loop over examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import OptionError

REFLECT = "reflect"


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

    Rows of the result are windows of the rows that are there, extended at both ends and, where examples are mirrored,
    followed by their mirror images: one copy of whole rows, wherever they begin.

    Raises:
        OptionError: A reflection reaches further than the map.
    """
    last = x.movedim(1, -1)
    channels_last = last.is_contiguous() and not x.is_contiguous()
    rows = last if channels_last else x.contiguous().unsqueeze(-1)
    moved = _moved(rows, placement, lead=1 if channels_last else 2)
    return moved.movedim(-1, 1) if channels_last else moved.squeeze(-1)


def _moved(rows: Tensor, placement: Placement, lead: int) -> Tensor:
    """:func:`move` on contiguous ``(B, *lead, *spatial, unit)``; ``lead`` dimensions come before the spatial ones."""
    sizes = rows.shape[lead:-1]
    extended = _extended(rows, placement, lead)
    mirrored = placement.mirrored[-1]
    beyond = extended.numel()
    unit, width = rows.shape[-1], extended.shape[-2]
    if mirrored is not None:
        extended = torch.cat([extended, extended.flip(-2)])
    starts = torch.arange(rows.shape[:lead].numel(), device=rows.device).view(rows.shape[:lead])
    for axis in range(len(sizes) - 1):
        source = _source(sizes[axis], placement, axis)
        starts = starts.unsqueeze(-1) * extended.shape[lead + axis] + _beside(source, starts)
    starts = starts * (width * unit)
    if placement.offsets is not None:
        starts = starts + _beside((placement.offsets[-1] + placement.reach).mul(unit), starts)
    if mirrored is not None:
        starts = starts + _beside(mirrored * beyond, starts)
    length = sizes[-1] * unit
    windows = extended.as_strided((extended.numel() - length + 1, length), (1, 1))
    return windows.index_select(0, starts.flatten()).view(rows.shape)


def _beside(values: Tensor, starts: Tensor) -> Tensor:
    """``(B,)`` or ``(B, n)`` for each example, shaped to be added to ``starts`` (with an axis more for n)."""
    if values.dim() == 1:
        return values.view(-1, *[1] * (starts.dim() - 1))
    return values.view(len(values), *[1] * (starts.dim() - 1), -1)


def _source(size: int, placement: Placement, axis: int) -> Tensor:
    """Which row of the extended axis each row of the result is: ``(B, size)``, or ``(1, size)``."""
    mirrored = placement.mirrored[axis]
    device = next((t.device for t in (placement.offsets, *placement.mirrored) if t is not None), None)
    places = torch.arange(size, device=device).unsqueeze(0)
    end = size - 1
    if placement.offsets is not None:
        places = places + placement.offsets[axis].unsqueeze(1)
        if placement.fill == REFLECT:
            places = end - (end - places.abs()).abs()
        else:
            places, end = places + placement.reach, end + 2 * placement.reach
    return places if mirrored is None else torch.where(mirrored.unsqueeze(1), end - places, places)


def _extended(rows: Tensor, placement: Placement, lead: int) -> Tensor:
    """Rows with ``reach`` positions more at both ends; zeros also around the other axes, which else reflect later."""
    reach = placement.reach
    if placement.offsets is None or reach == 0:
        return rows
    if placement.fill != REFLECT:
        spatial = rows.dim() - lead - 1
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
        """Where the centre of each position of the result lies on the map: ``(B, size)``, 0 is a first centre."""
        steps = (torch.arange(size, device=self.starts.device) + 0.5) / size
        return torch.addcmul(self.starts[axis].unsqueeze(1), self.lengths[axis].unsqueeze(1), steps) - 0.5


def crop(x: Tensor, boxes: Boxes) -> Tensor:
    """The boxes of a batch ``(B, C, *spatial)``, brought to the size of the map, linear between pixels; in float32.

        out(o) = (1 - part) * x[below] + part * x[below + 1]        below + part = lower edge + (o + 1/2) * scale - 1/2

    One axis after another; beyond the map its edge goes on. Rows are taken whole; the last axis is turned into rows
    for it. Boxes are never larger than the map, so nothing has to be smoothed. Double precision stays.
    """
    channels_last = not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
    size = x.shape
    for axis in range(x.dim() - 3):
        x = _stretched(x.contiguous(), 2 + axis, boxes.places(size[2 + axis], axis))
    x = _stretched(x.movedim(-1, 2).contiguous(), 2, boxes.places(size[-1], x.dim() - 3)).movedim(2, -1)
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x.contiguous()


def _stretched(x: Tensor, dim: int, places: Tensor) -> Tensor:
    """A contiguous batch read along one dimension at ``places`` ``(B, size)``, linear between neighbours."""
    before, size, after = x.shape[1:dim].numel(), x.shape[dim], x.shape[dim + 1 :].numel()
    places = places.clamp_(0, size - 1)
    below = places.floor()
    rows = torch.arange(len(x) * before, device=x.device).view(-1, before, 1) * size
    values = [
        x.view(-1, after).index_select(0, (rows + row.long().unsqueeze(1)).flatten())
        for row in (below, (below + 1).clamp_(max=size - 1))
    ]
    part = (places - below).unsqueeze(1).expand(-1, before, -1).reshape(-1, 1)
    kind = torch.promote_types(x.dtype, torch.float32)
    return torch.lerp(values[0].to(kind), values[1].to(kind), part.to(kind)).view(x.shape)


def nearest(mask: Tensor, boxes: Boxes) -> Tensor:
    """The boxes of masks ``(B, *spatial)``, brought to the size of the mask: each position takes the nearest one."""
    places = []
    for axis, size in enumerate(mask.shape[1:]):
        near = boxes.places(size, axis).round_().clamp_(0, size - 1).long()
        places.append(near.view(len(mask), *[1] * axis, size, *[1] * (mask.dim() - 2 - axis)))
    examples = torch.arange(len(mask), device=mask.device).view(-1, *[1] * (mask.dim() - 1))
    return mask[(examples, *places)]
