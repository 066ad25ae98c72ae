"""What is shown of an input is in it: its numbers, its middle, the lowest and the highest of every column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from striate import portraits
from striate.sheets import INK, Sheet


def drawn(values: torch.Tensor, side: float = 1.0) -> Any:
    sheet = Sheet(2.0, 2.0)
    portraits.portrait(sheet, values, 0.0, 0.0, side, portraits.scale_of([values]))
    return sheet.axes


def test_bytes_are_shown_as_they_are() -> None:
    picture = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5)
    np.testing.assert_array_equal(portraits.photo(picture, 1.0), picture.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_other_numbers_are_shown_between_black_and_white(dtype: torch.dtype) -> None:
    picture = torch.linspace(-700, 2300, 4 * 5).view(1, 4, 5).to(dtype)
    low, high = portraits.scale_of([picture])
    assert (low, high) == (picture.min().item(), picture.max().item())
    expected = ((picture[0].double() - low) / (high - low) * 255).round().numpy()
    shown = portraits.photo(picture, 1.0, (low, high))
    np.testing.assert_allclose(shown[..., 0], expected, atol=1)
    assert portraits.note(picture.shape, (low, high)) == "Black is −700, white 2,300."


def test_the_rarest_numbers_do_not_set_the_scale() -> None:
    inputs = torch.zeros(1, 100, 100)
    inputs[0, :50], inputs[0, 0, 0], inputs[0, 0, 1] = 5.0, 1e9, float("inf")
    assert portraits.scale_of([inputs]) == (0.0, 5.0)
    assert portraits.scale_of([torch.full((1, 2, 2), float("nan"))]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 28, 28), ""),
        ((2, 28, 28), "The mean of 2 channels."),
        ((5, 28, 28), "The first 3 of 5 channels as colours."),
        ((1, 8, 6, 4), "The middle slice, 5 of 8."),
        ((1, 3, 8, 6, 4), "The middle slice, 2 of 3. The middle slice, 5 of 8."),
        ((1, 100), "Each curve on its own scale."),
        ((4, 100), "Each channel on its own scale."),
        ((5, 100), "The first 4 of 5 channels, each on its own scale."),
    ],
)
def test_what_is_left_out_is_said(shape: tuple[int, ...], said: str) -> None:
    assert portraits.note(shape) == said


def test_of_a_volume_the_middle_slice_is_shown() -> None:
    volume = torch.arange(2 * 5 * 3 * 4).view(2, 5, 3, 4)
    torch.testing.assert_close(portraits.middle(volume), volume[:, 2])


def test_a_short_signal_is_drawn_sample_by_sample() -> None:
    axes = drawn(torch.tensor([[0.0, 3.0, -1.0]]))
    zero, curve = axes.lines
    heights = zero.get_ydata()[0] - np.asarray(curve.get_ydata())
    np.testing.assert_allclose(heights / heights.max(), [0, 1, -1 / 3], atol=1e-6)
    np.testing.assert_allclose(curve.get_xdata(), [1 / 6, 1 / 2, 5 / 6])


def test_of_a_long_signal_every_column_shows_its_lowest_and_its_highest_sample() -> None:
    signal = torch.randint(-30000, 30000, (1, 7200), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    (band,) = drawn(signal, 1.0).patches  # 72 columns of 100 samples
    corners = band.get_xy()
    tops, bottoms = corners[:72, 1], corners[72:144, 1][::-1]
    columns = signal.view(72, 100).double()
    low, high = signal.min().item(), signal.max().item()
    tall = portraits.height(signal.shape, 1.0) - 0.03
    np.testing.assert_allclose(tops, tall * (high - columns.amax(1)) / (high - low), atol=1e-6)
    np.testing.assert_allclose(bottoms, tall * (high - columns.amin(1)) / (high - low), atol=1e-6)
    assert band.get_facecolor()[:3] == tuple(int(INK[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("values", [torch.zeros(1, 9), torch.full((1, 9), float("nan")), torch.full((1, 900), 7.0)])
def test_a_signal_without_a_shape_is_a_line(values: torch.Tensor) -> None:
    axes = drawn(values)
    for y in (*(line.get_ydata() for line in axes.lines), *(patch.get_xy()[:, 1] for patch in axes.patches)):
        known = np.asarray(y)[~np.isnan(np.asarray(y, dtype=float))]
        assert ((known >= 0) & (known <= 1)).all()


def test_a_relief_is_orange_above_zero_and_blue_below() -> None:
    sheet = Sheet(2.0, 2.0)
    portraits.relief(sheet, torch.tensor([0.0, 2.0, -1.0, float("nan")]), 0.0, 0.0, 1.0, 1.0, 4.0)
    above, below = (patch.get_xy()[1:5, 1] for patch in sheet.axes.patches)  # type: ignore[attr-defined]
    np.testing.assert_allclose(0.5 - above, [0, 0.25, 0, 0], atol=1e-9)
    np.testing.assert_allclose(0.5 - below, [0, 0, -0.125, 0], atol=1e-9)


def test_several_channels_stand_one_below_the_other() -> None:
    axes = drawn(torch.randn(6, 20, generator=torch.Generator().manual_seed(0)))
    curves = [line for line in axes.lines if len(line.get_xdata()) == 20]
    assert len(curves) == 4
    middles = [np.mean(line.get_ydata()) for line in curves]
    assert middles == sorted(middles)
