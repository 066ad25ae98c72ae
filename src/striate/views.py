"""Several views of one picture, whose probabilities are averaged: its mirror image, or ten crops of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from .errors import DataError, OptionError, unknown_name

LARGER = 8 / 7  # 256 to 224: the size that ten crops are taken from


def alone(inputs: Tensor, size: Sequence[int]) -> list[Tensor]:
    """The inputs as they are."""
    return [inputs]


def flipped(inputs: Tensor, size: Sequence[int]) -> list[Tensor]:
    """The inputs and their mirror images, left for right."""
    return [inputs, inputs.flip(-1)]


def ten_crops(inputs: Tensor, size: Sequence[int]) -> list[Tensor]:
    """The four corners and the centre of each picture, and their mirror images.

    A. Krizhevsky, I. Sutskever and G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
    2012, section 4.1.

    Raises:
        DataError: The pictures are smaller than the crops.

    >>> import torch
    >>> [view.flatten().tolist() for view in ten_crops(torch.tensor([[[[1, 2], [3, 4]]]]), (1, 1))[:5]]
    [[1], [2], [3], [4], [1]]
    """
    (height, width), (rows, columns) = inputs.shape[2:], size
    if height < rows or width < columns:
        raise DataError(f"ten crops of {rows}x{columns} do not fit into pictures of {height}x{width}.")
    bottom, right = height - rows, width - columns
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [inputs[:, :, top : top + rows, left : left + columns] for top, left in corners]
    return crops + [crop.flip(-1) for crop in crops]


def central(average: str, inputs: Tensor, size: Sequence[int]) -> Tensor:
    """The one of the views that is closest to the network's own."""
    return ten_crops(inputs, size)[4] if average == "ten-crop" else inputs


View = Callable[[Tensor, Sequence[int]], list[Tensor]]
VIEWS: dict[str, View] = {"none": alone, "flip": flipped, "ten-crop": ten_crops}


def check(average: str, shape: Sequence[int], *, masks: bool) -> None:
    """Refuse views that the network's input does not have.

    Args:
        average: Name of the views.
        shape: ``(C, *spatial)`` of the network's input.
        masks: Whether its output is a map.

    Raises:
        OptionError: There are no such views, or not of this input.
    """
    if average not in VIEWS:
        raise unknown_name("average", average, VIEWS)
    if average == "flip" and len(shape) == 2:
        raise OptionError(
            "average=flip mirrors pictures and volumes, left for right; signals and series it would let run backwards. "
            "Take none."
        )
    if average == "ten-crop" and (len(shape) != 3 or masks):
        raise OptionError("average=ten-crop is for networks that give pictures a class; take none or flip.")


def taken_at(average: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape at which inputs are read: for ten crops 8/7 of the network's, as 256 is of 224.

    >>> taken_at("ten-crop", (3, 224, 224)), taken_at("flip", (3, 224, 224))
    ((3, 256, 256), (3, 224, 224))
    """
    if average != "ten-crop":
        return tuple(shape)
    return (shape[0], *(round(n * LARGER) for n in shape[1:]))
