"""Fixtures of every test: uninitialised memory is poisoned, and tolerances stand in one table."""

from __future__ import annotations

import math
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def poison_uninitialised_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that forgets a border must fail, not pass by luck."""
    if "torch" not in request.module.__dict__:
        return
    import torch

    real, real_like = torch.empty, torch.empty_like

    def poison(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() and not tensor.requires_grad and not tensor.is_meta:
            tensor.fill_(math.nan)
        return tensor

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poison(real(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poison(real_like(*args, **kwargs)))


@pytest.fixture
def close() -> Any:
    """Compare tensors (or lists of them) at the tolerance of their dtype."""
    import torch

    tolerances = {torch.float64: 1e-10, torch.complex128: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2}

    def compare(actual: Any, expected: Any) -> None:
        first = expected[0] if isinstance(expected, list | tuple) else expected
        limit = tolerances[first.dtype]
        torch.testing.assert_close(actual, expected, rtol=limit, atol=limit)

    return compare
