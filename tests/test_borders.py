"""Copied rows and their adjoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import striate
from striate.borders import extend, gather_back, laid_like, layout_of
from striate.computing import lay

MODES = ["reflect", "replicate", "circular"]


def ramp(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel()), dtype=torch.float64).view(shape)


def rules(mode: str) -> Any:
    return (mode, 4, 9, 2), (mode, 3, 0, 5)


@pytest.mark.parametrize("mode", MODES)
def test_the_adjoint_law(mode: str) -> None:
    """<extend(x), y> = <x, gather_back(y)>, with padding wider than the input."""
    x, y = ramp(2, 3, 4, 3), ramp(2, 3, 15, 8)
    assert (extend(x, rules(mode)) * y).sum() == (x * gather_back(y, rules(mode))).sum()


@pytest.mark.parametrize("mode", MODES)
def test_derivatives_of_both_to_any_order_and_in_both_modes(mode: str) -> None:
    x = torch.randn(1, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 1, 15, 8, dtype=torch.float64, requires_grad=True)

    def forth(t: Tensor) -> Tensor:
        return extend(t, rules(mode))

    def back(t: Tensor) -> Tensor:
        return gather_back(t, rules(mode))

    for function, entry in ((forth, x), (back, y)):
        assert torch.autograd.gradcheck(function, entry, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, entry, fast_mode=True)
        mapped = torch.func.vmap(function, in_dims=1, out_dims=1)(entry.detach().unsqueeze(1))
        assert mapped.squeeze(1).equal(function(entry))


def test_a_nan_stays_with_its_copies() -> None:
    x = torch.tensor([[[float("nan"), 1.0, 2.0]]])
    places = [("reflect", 3, 1, 2)]
    assert extend(x, places).isnan().tolist() == [[[False, True, False, False, False, True]]]
    assert gather_back(extend(x, places), places).nan_to_num(-1).tolist() == [[[-1.0, 3.0, 2.0]]]


def test_many_copies_of_few_sources_are_added_at_once() -> None:
    """The gradient of wide padding costs as much as the padding, not as much as the padding times the input."""
    places = [("replicate", 4, 1000, 0)]
    assert gather_back(torch.ones(1, 1, 1004), places).tolist() == [[[1001.0, 1.0, 1.0, 1.0]]]
    assert gather_back(torch.ones(1, 1, 9), [("replicate", 2, 3, 4)]).tolist() == [[[4.0, 5.0]]]


def test_a_lone_channel_says_by_its_stride_how_it_lies() -> None:
    """As PyTorch reads it; every position's stride is the same in both layouts."""
    gray = torch.rand(2, 1, 4, 5)
    assert layout_of(gray) == "channels_first"
    last = gray.to(memory_format=torch.channels_last)
    assert layout_of(last) == "channels_last"
    assert layout_of(torch.rand(2, 9, 1).movedim(-1, 1)) == "channels_last"
    assert layout_of(torch.rand(3, 1, 1, 1).to(memory_format=torch.channels_last)) == "channels_first"
    assert layout_of(torch.rand(2, 3, 1, 1)) == "channels_first"
    weight = torch.rand(6, 1, 3, 3)
    for algorithm in ("vendor", "im2col", "native_positions", None):
        maps = striate.conv(last, weight, algorithm=algorithm)
        assert maps.is_contiguous(memory_format=torch.channels_last), algorithm
        assert striate.conv(gray, weight, algorithm=algorithm).is_contiguous(), algorithm
        torch.testing.assert_close(maps, torch.conv2d(gray, weight))


@pytest.mark.parametrize("shape", [(2, 1, 9), (2, 1, 4, 5), (2, 3, 4, 5), (2, 1, 3, 4, 5), (2, 2, 3)])
def test_what_is_laid_lies_so(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    last = lay(x, "channels_last")
    assert (layout_of(x), layout_of(last)) == ("channels_first", "channels_last")
    assert last.equal(x)
    back = lay(last, "channels_first")
    assert (layout_of(back), back.stride()) == ("channels_first", x.stride())
    if len(shape) > 3:
        for like in (x, last):
            assert {layout_of(laid_like(y, like)) for y in (x, last)} == {layout_of(like)}
