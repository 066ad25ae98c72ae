"""Copied rows and their adjoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from striate import padding
from striate.borders import extend, gather_back

MODES = ["reflect", "replicate", "circular"]


def ramp(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel()), dtype=torch.float64).view(shape)


def sources(mode: str) -> Any:
    return tuple(padding.sources(mode, 4, 9, 2)), tuple(padding.sources(mode, 3, 0, 5))


@pytest.mark.parametrize("mode", MODES)
def test_the_adjoint_law(mode: str) -> None:
    """<extend(x), y> = <x, gather_back(y)>, with padding wider than the input."""
    x, y = ramp(2, 3, 4, 3), ramp(2, 3, 15, 8)
    assert (extend(x, sources(mode)) * y).sum() == (x * gather_back(y, sources(mode), (4, 3))).sum()


@pytest.mark.parametrize("mode", MODES)
def test_derivatives_of_both_to_any_order_and_in_both_modes(mode: str) -> None:
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 2, 15, 8, dtype=torch.float64, requires_grad=True)

    def forth(t: Tensor) -> Tensor:
        return extend(t, sources(mode))

    def back(t: Tensor) -> Tensor:
        return gather_back(t, sources(mode), (4, 3))

    for function, entry in ((forth, x), (back, y)):
        assert torch.autograd.gradcheck(function, entry, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, entry)
        mapped = torch.func.vmap(function, in_dims=1, out_dims=1)(entry.detach().unsqueeze(1))
        assert mapped.squeeze(1).equal(function(entry))


def test_a_nan_stays_with_its_copies() -> None:
    x = torch.tensor([[[float("nan"), 1.0, 2.0]]])
    places = (tuple(padding.sources("reflect", 3, 1, 2)),)
    assert extend(x, places).isnan().tolist() == [[[False, True, False, False, False, True]]]
    assert gather_back(extend(x, places), places, (3,)).nan_to_num(-1).tolist() == [[[-1.0, 3.0, 2.0]]]
