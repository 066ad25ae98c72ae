"""Moves and crops of whole batches against the same done to one picture after another, one position at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from striate import moves
from striate.errors import OptionError
from striate.moves import REFLECT, Boxes, Placement, crop, move, nearest

SHAPES = {"signal": (5, 2, 9), "picture": (5, 3, 6, 7), "grey": (5, 1, 6, 7), "volume": (5, 2, 4, 5, 6)}
TYPES = (torch.uint8, torch.int16, torch.float32, torch.float64, torch.bfloat16)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_layout = pytest.mark.parametrize("channels_last", [False, True])


def batch(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    numbers = torch.arange(torch.Size(shape).numel()).view(shape) * 7 % 251
    numbers = numbers.to(dtype)
    return numbers.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else numbers


def mirror(position: int, size: int) -> int:
    """Where a position outside comes from, if the edge reflects."""
    while not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


def pixel(number: int, place: Sequence[int]) -> Any:
    """The index of all channels at one place of one example."""
    return (number, slice(None), *place)


def by_hand(x: Tensor, placement: Placement) -> Tensor:
    out = torch.empty_like(x)
    sizes = x.shape[2:]
    for number in range(len(x)):
        for place in product(*map(range, sizes)):
            value: Tensor | float | None = None
            source = []
            for axis, (position, size) in enumerate(zip(place, sizes, strict=True)):
                offset = 0 if placement.offsets is None else int(placement.offsets[axis, number])
                there = position + offset
                flips = placement.mirrored[axis]
                there = size - 1 - there if flips is not None and bool(flips[number]) else there
                if placement.fill == REFLECT:
                    there = mirror(there, size)
                elif not 0 <= there < size:
                    value = float(placement.fill)
                source.append(there)
            out[pixel(number, place)] = x[pixel(number, source)] if value is None else value
    return out


def placements(axes: int) -> list[Placement]:
    flips = [torch.tensor([True, False, True, False, True]), torch.tensor([False, False, True, True, True]), None]
    offsets = torch.tensor([[0, 3, -3, 2, -1], [1, -2, 3, 0, -3], [-3, 3, 0, -1, 2]])[:axes]
    mirrored = tuple(flips[-axes:])
    return [
        Placement(tuple(flips[:axes])),
        Placement(mirrored[::-1]),
        Placement((None,) * axes, offsets, 3),
        Placement((None,) * axes, offsets, 3, 0),
        Placement(mirrored, offsets, 3),
        Placement(mirrored[::-1], offsets, 3, 9),
        Placement((None,) * axes),
    ]


@every_layout
@every_shape
def test_every_placement_is_as_by_hand(shape: tuple[int, ...], channels_last: bool) -> None:
    for dtype in TYPES if shape == SHAPES["picture"] else TYPES[:1]:
        x = batch(shape, dtype, channels_last)
        before = x.clone()
        for placement in placements(len(shape) - 2):
            moved = move(x, placement)
            assert moved.equal(by_hand(x, placement))
            assert moved.dtype == dtype
            assert moved.movedim(1, -1).is_contiguous() if channels_last else moved.is_contiguous()
        assert x.equal(before)


def test_what_lies_neither_way_is_moved_too() -> None:
    x = batch((5, 6, 7, 3), torch.float32, False).permute(0, 3, 2, 1)
    for placement in placements(2):
        assert move(x, placement).equal(by_hand(x, placement))


@every_shape
def test_two_placements_are_one_if_at_most_one_shifts(shape: tuple[int, ...]) -> None:
    x = batch(shape, torch.uint8, False)
    every = placements(len(shape) - 2)
    for first, second in product(every, every):
        both = first.then(second)
        if both is None:
            assert first.offsets is not None
            assert second.offsets is not None
        else:
            assert move(x, both).equal(move(move(x, first), second))


def test_a_shift_by_more_than_the_map_reflects_is_refused() -> None:
    x = torch.zeros(1, 1, 4, 9)
    placement = Placement((None, None), torch.zeros(2, 1, dtype=torch.int64), 4)
    with pytest.raises(OptionError) as caught:
        move(x, placement)
    assert str(caught.value) == (
        "A shift by up to 4 reflects 4 positions, but an axis has only 4; shift by at most 3, or pad with zeros."
    )


def test_a_shift_that_leaves_nothing_is_refused() -> None:
    placement = Placement((None, None), torch.zeros(2, 1, dtype=torch.int64), 100_000, 0)
    with pytest.raises(OptionError) as caught:
        move(torch.zeros(1, 1, 4, 9), placement)
    assert str(caught.value) == "A shift by up to 100000 may leave nothing of 4; at most 3."


# ---------------------------------------------------------------------------------------------------------------- crops


def boxes(axes: int) -> Boxes:
    starts = torch.tensor([[0.0, 1.5, 0.25, 2.0, 1.0], [0.0, 0.75, 2.0, 0.0, 1.5], [0.0, 1.0, 0.5, 1.25, 0.0]])
    lengths = torch.tensor([[4.0, 2.5, 3.5, 1.0, 2.0], [5.0, 2.25, 1.5, 5.0, 3.0], [6.0, 3.0, 4.25, 2.0, 5.0]])
    return Boxes(starts[:axes], lengths[:axes])


def place(boxes: Boxes, axis: int, number: int, position: int, size: int) -> float:
    return float(boxes.starts[axis, number]) + (position + 0.5) * float(boxes.lengths[axis, number]) / size - 0.5


@every_layout
@every_shape
def test_a_crop_is_linear_between_pixels(shape: tuple[int, ...], channels_last: bool) -> None:
    x = batch(shape, torch.uint8, channels_last)
    axes, sizes = len(shape) - 2, shape[2:]
    wanted = torch.zeros(shape)
    for number in range(len(x)):
        for target in product(*map(range, sizes)):
            for corner in product((0, 1), repeat=axes):
                weight, source = 1.0, []
                for axis, size in enumerate(sizes):
                    there = min(max(place(boxes(axes), axis, number, target[axis], size), 0.0), size - 1.0)
                    weight *= there % 1 if corner[axis] else 1 - there % 1
                    source.append(min(int(there) + corner[axis], size - 1))
                wanted[pixel(number, target)] += weight * x[pixel(number, source)]
    found = crop(x, boxes(axes))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(5, 2, 70), (5, 3, 6, 67), (5, 1, 3, 4, 65)])
def test_long_and_short_rows_are_cropped_alike(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x = batch(shape, torch.uint8, False)
    found = crop(x, boxes(len(shape) - 2))
    monkeypatch.setattr(moves, "SHORT", 100)
    torch.testing.assert_close(found, crop(x, boxes(len(shape) - 2)), rtol=0, atol=1e-3)


def test_a_crop_is_what_pytorch_samples() -> None:
    x = batch(SHAPES["picture"], torch.float32, False)
    height, width = x.shape[2:]
    grid = torch.empty(5, height, width, 2)
    for number, row, column in product(range(5), range(height), range(width)):
        there = (place(boxes(2), 1, number, column, width), place(boxes(2), 0, number, row, height))
        grid[number, row, column] = torch.tensor([(2 * there[0] + 1) / width - 1, (2 * there[1] + 1) / height - 1])
    wanted = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(crop(x, boxes(2)), wanted, rtol=0, atol=1e-3)


def test_a_crop_keeps_double_precision() -> None:
    assert crop(batch(SHAPES["picture"], torch.float64, False), boxes(2)).dtype == torch.float64
    assert crop(batch(SHAPES["picture"], torch.bfloat16, False), boxes(2)).dtype == torch.float32


@every_shape
def test_the_crop_of_a_mask_takes_the_nearest_position(shape: tuple[int, ...]) -> None:
    sizes = shape[2:]
    mask = batch((5, 1, *sizes), torch.uint8, False)[:, 0]
    found = nearest(mask, boxes(len(sizes)))
    for number in range(5):
        for target in product(*map(range, sizes)):
            source = [
                min(max(round(place(boxes(len(sizes)), axis, number, target[axis], size)), 0), size - 1)
                for axis, size in enumerate(sizes)
            ]
            assert found[(number, *target)] == mask[(number, *source)]
