"""Local response normalisation: torch's formula, any number of axes, and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import striate
from striate.errors import GeometryError


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 7, 3, 4), (1, 2, 3, 2, 2), (0, 3, 4)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_the_formula_is_torch_s(shape: tuple[int, ...], size: int) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"alpha": 0.3, "beta": 0.6, "k": 1.5}
    y, wanted = striate.local_response_norm(x, size, **options), F.local_response_norm(x, size, **options)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(z.sum(), x)[0] for z in (y, wanted)))


def test_by_hand() -> None:
    """Channels 1, 2, 3 in neighbourhoods of 3, alpha 3 so that the squares are just summed."""
    x = torch.tensor([[1.0, 2.0, 3.0]])
    y = striate.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=0.0)
    torch.testing.assert_close(y, torch.tensor([[1 / 5, 2 / 14, 3 / 13]]))
    even = striate.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=0.0)
    torch.testing.assert_close(even, torch.tensor([[1 / 1, 2 / 5, 3 / 13]]))
    krizhevsky = striate.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(krizhevsky, x / (2 + 1e-4 * 14) ** 0.75)


def test_squares_of_16_bit_numbers_do_not_overflow() -> None:
    x = torch.full((1, 3, 2), 400.0, dtype=torch.float16)
    wanted = striate.local_response_norm(x.double(), 3)
    y = striate.local_response_norm(x, 3)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, wanted.half())


def test_derivatives_and_layout() -> None:
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: striate.local_response_norm(x, 3, alpha=1.0), x, check_forward_ad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(lambda x: striate.local_response_norm(x, 2, alpha=1.0), x, fast_mode=True)
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert striate.local_response_norm(last, 3).is_contiguous(memory_format=torch.channels_last)
    assert striate.local_response_norm(last.to("meta"), 3).shape == last.shape


WHOLE = "local_response_norm: size must be a whole number of at least 1, got size="
REFUSED: list[tuple[torch.Tensor, Any, str]] = [
    (torch.ones(3), 3, "local_response_norm: x must be (N, C, ...), got shape (3,)."),
    (
        torch.ones(1, 3, dtype=torch.int64),
        3,
        "local_response_norm: x is torch.int64; it needs real floating-point numbers.",
    ),
    (torch.ones(1, 3) * 1j, 3, "local_response_norm: x is torch.complex64; it needs real floating-point numbers."),
    (torch.ones(1, 3), 0, f"{WHOLE}0."),
    (torch.ones(1, 3), 2.0, f"{WHOLE}2.0."),
    (torch.ones(1, 3), True, f"{WHOLE}True."),
]


@pytest.mark.parametrize(("x", "size", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(x: torch.Tensor, size: Any, message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        striate.local_response_norm(x, size)
    assert str(caught.value) == message


def test_squares_beyond_the_range_of_float32() -> None:
    """1e30 / (1e60) ** 0.75 = 1e-15."""
    x = torch.full((1, 1, 1), 1e30)
    torch.testing.assert_close(striate.local_response_norm(x, 1, alpha=1.0), torch.full((1, 1, 1), 1e-15))
