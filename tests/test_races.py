"""Races: fair, short, and on tensors of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from striate import races
from striate.computing import ALGORITHMS, DIRECTIONS, Base, Problem
from striate.geometry import Geometry
from striate.races import seconds

WINDOW = Geometry.window(2, 3, padding=1)
PROBLEM = Problem("convolution", WINDOW, 2, 4, 6, (5, 7), torch.float32)


class Clock:
    """A clock that only moves when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Paced(Base):
    """One that takes a known time, and writes down who ran when."""

    def __init__(self, name: str, seconds: float, clock: Clock, order: list[str]) -> None:
        self.name, self.seconds, self.clock, self.order = name, seconds, clock, order

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        self.order.append(self.name)
        self.clock.now += self.seconds
        return first


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Any:
    clock, order = Clock(), []  # type: ignore[var-annotated]

    def add(**paces: float) -> tuple[Clock, list[str]]:
        for name, n in paces.items():
            monkeypatch.setitem(ALGORITHMS["convolution"], name, Paced(name, n, clock, order))
        return clock, order

    return add


def test_candidates_run_in_turn_and_the_hopeless_once(paced: Any) -> None:
    clock, order = paced(a=0.5, b=0.75, slow=2.0)
    assert seconds(PROBLEM, ["a", "b", "slow"], 100.0, clock, rounds=2) == {"a": 0.5, "b": 0.75, "slow": 2.0}
    assert order == ["a", "a", "b", "b", "slow", "a", "b", "a", "b"]


class Failing(Base):
    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        raise RuntimeError("no memory left")


def test_who_fails_is_out_of_the_race_but_not_the_vendor(paced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, _ = paced(a=0.5, b=0.75)
    monkeypatch.setitem(ALGORITHMS["convolution"], "failing", Failing())
    assert seconds(PROBLEM, ["failing", "a", "b"], 100.0, clock, rounds=1) == {"a": 0.5, "b": 0.75}
    with pytest.raises(RuntimeError, match=r"^no memory left$"):
        seconds(PROBLEM, ["failing"], 100.0, clock)
    monkeypatch.setitem(ALGORITHMS["convolution"], "vendor", Failing())
    with pytest.raises(RuntimeError, match=r"^no memory left$"):
        seconds(PROBLEM, ["a", "vendor"], 100.0, clock)


def test_a_race_ends_at_its_limit_but_all_run_once(paced: Any) -> None:
    clock, order = paced(a=4.0, b=3.0)
    assert seconds(PROBLEM, ["a", "b"], 5.0, clock) == {"a": 4.0, "b": 3.0}
    assert order == ["a", "a", "b"]


def test_short_runs_are_repeated_until_a_clock_can_tell(paced: Any) -> None:
    clock, order = paced(a=0.25e-3, b=0.25e-3)
    seconds(PROBLEM, ["a", "b"], 100.0, clock, rounds=1)
    assert order == ["a", "a", "b", "b", *["a"] * 4, *["b"] * 4]


def test_one_alone_does_not_race(paced: Any) -> None:
    clock, order = paced(a=1.0)
    assert seconds(PROBLEM, ["a"], 100.0, clock) == {"a": 1.0}
    assert order == ["a", "a"]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_operands_have_the_problem_s_shapes_and_layout(direction: str, layout: str) -> None:
    problem = Problem("convolution", WINDOW, 2, 4, 6, (5, 7), torch.bfloat16, direction=direction, layout=layout)
    x, weight, y = (2, 4, 5, 7), (6, 4, 3, 3), (2, 6, 5, 7)
    shapes = {"forward": (x, weight), "input_gradient": (y, weight), "weight_gradient": (x, y)}[direction]
    first, second = races.tensors(problem)
    assert second is not None
    assert (tuple(first.shape), tuple(second.shape)) == shapes
    assert (first.dtype, second.dtype) == (torch.bfloat16, torch.bfloat16)
    assert first.is_contiguous() is (layout == "channels_first")


def test_real_algorithms_race_in_every_operation() -> None:
    for operation, names in ALGORITHMS.items():
        for direction in DIRECTIONS:
            problem = Problem(operation, Geometry.window(2, 2), 1, 2, 2, (4, 4), torch.float32, direction=direction)
            able = [n for n, a in names.items() if a.refuses(problem) is None and not a.by_name and n != "reference"]
            found = seconds(problem, able, 0.0) if able else {}
            assert list(found) == able
            assert all(n > 0 for n in found.values())


def test_a_race_leaves_the_user_s_random_numbers_alone() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    seconds(PROBLEM, ["vendor"], 0.0)
    assert torch.rand(3).equal(wanted)
