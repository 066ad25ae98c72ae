"""The learning rate over the steps, from each schedule's formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from striate.options import Options
from striate.schedules import rate


def rates(steps: int = 100, **given: Any) -> list[float]:
    options = Options(learning_rate=0.8, **given)
    return [rate(options, step, steps) for step in range(steps + 1)]


def test_one_cycle_rises_to_its_peak_and_falls_to_zero() -> None:
    found = rates()
    assert found[0] == pytest.approx(0.8 / 25)
    assert max(found) == found[25] == pytest.approx(0.8)
    assert found[:26] == sorted(found[:26])
    assert found[25:] == sorted(found[25:], reverse=True)
    assert found[62] == pytest.approx(0.8 * (1 + math.cos(math.pi * 37 / 75)) / 2)
    assert found[100] == pytest.approx(0.0, abs=1e-12)
    assert max(rates(warmup=0.5)) == rates(warmup=0.5)[50]


def test_cosine_is_pytorchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    expected = []
    for _ in range(100):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert rates(schedule="cosine")[:100] == pytest.approx(expected, abs=1e-9)


def test_a_warm_up_rises_in_a_straight_line_to_the_peak() -> None:
    found = rates(schedule="cosine", warmup=0.1)
    assert found[:10] == pytest.approx([0.8 * (step + 1) / 11 for step in range(10)])
    assert found[10] == pytest.approx(0.8)
    assert rates(schedule="constant", warmup=0.1)[10:] == [0.8] * 91


def test_steps_divide_by_ten_at_the_milestones() -> None:
    assert rates(schedule="step") == pytest.approx([0.8] * 50 + [0.08] * 25 + [0.008] * 26)
    assert rates(schedule="step", milestones=(0.9,)) == pytest.approx([0.8] * 90 + [0.08] * 11)
    assert rates(schedule="constant") == [0.8] * 101
