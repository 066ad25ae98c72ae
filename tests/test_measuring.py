"""Measuring that changes nothing, and what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate.measuring import Budget, Step, copied, distance, error, race, seconds, tensors_of, unchanged


def test_a_race_takes_turns_and_keeps_the_shortest_time() -> None:
    times = {"a": iter([9.0, 3.0, 2.0, 4.0]), "b": iter([4.0, 5.0, 6.0, 7.0])}
    order: list[str] = []

    def timer(work: Callable[[], Any]) -> float:
        name = work()
        order.append(name)
        return next(times[name])

    assert race([lambda: "a", lambda: "b"], timer, lambda: len(order) >= 8) == [
        2.0,
        5.0,
    ]  # the first round is not counted
    assert order == ["a", "b"] * 4


def test_who_fails_is_out_of_the_race() -> None:
    def failing() -> None:
        raise RuntimeError("no")

    found = race([failing, lambda: None], lambda work: (work(), 1.0)[1], lambda: True)
    assert found == [math.inf, 1.0]


def test_seconds_and_budget_follow_the_clock() -> None:
    assert 0 <= seconds(lambda: None) < 1
    now = [0.0]
    budget = Budget(10.0, lambda: now[0])
    now[0] = 4.0
    assert (budget.left(), budget.left(0.5), budget.left(0.2)) == (6.0, 1.0, -2.0)


class Restless(nn.Module):
    """Changes everything that it can reach."""

    place: Tensor
    swapped: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("place", torch.zeros(2))
        self.register_buffer("swapped", torch.zeros(2))
        self.register_buffer("nothing", None)

    def forward(self, x: Tensor) -> Tensor:
        self.place.add_(1)
        self.swapped = self.swapped + 1
        with torch.no_grad():
            self.weight.mul_(2)
        self.frozen.data.mul_(2)
        self.train(not self.training)
        return torch.rand(2) * x


def test_everything_is_brought_back() -> None:
    model = Restless()
    place, swapped, state = model.place, model.swapped, torch.get_rng_state()
    with unchanged(model) as rewind:
        first = model(torch.ones(2))
        rewind()
        assert torch.equal(model(torch.ones(2)), first)
    assert model.place is place
    assert model.swapped is swapped
    assert [t.tolist() for t in (place, swapped, model.weight, model.frozen)] == [[0, 0], [0, 0], [1, 1], [1, 1]]
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_gives_outputs_and_gradients_and_leaves_none_behind() -> None:
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3, requires_grad=True)
    outputs, gradients = Step(model, (x,), {}, gradients=True)()
    assert [y.shape for y in outputs] == [(4, 2)]
    assert sorted(gradients) == ["bias", "input 0", "weight"]
    assert model.weight.grad is None
    again = Step(model, (x,), {}, gradients=True)()[1]
    assert all(torch.equal(again[name], value) for name, value in gradients.items())
    assert Step(model, (x,), {}, gradients=False)()[1] == {}
    assert Step(nn.Identity(), (torch.ones(2),), {}, gradients=True)()[1] == {}


def test_trees_are_copied_and_flattened() -> None:
    tree = {"a": [torch.ones(2, requires_grad=True), 3], "b": (torch.zeros(1),)}
    twin = copied(tree)
    assert twin["a"][0].requires_grad
    assert twin["a"][0] is not tree["a"][0]
    assert twin["a"][1] == 3
    assert [t.tolist() for t in tensors_of(tree)] == [[1, 1], [0]]


ERRORS = [
    ([1.0, 1.0], [1.0, 1.0], 0.0),
    ([1.0, 1.5], [1.0, 1.0], 0.5),
    ([0.0, 0.0], [0.0, 0.0], 0.0),
    ([0.0, 1.0], [0.0, 0.0], math.inf),
    ([math.nan, 1.0], [math.nan, 1.0], 0.0),
    ([math.nan, 1.0], [1.0, 1.0], math.inf),
    ([1.0, 1.0], [math.nan, 1.0], math.inf),
    ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
    ([math.inf, 1.0], [math.inf, 1.0], 0.0),
]


@pytest.mark.parametrize(("actual", "expected", "value"), ERRORS)
def test_errors(actual: list[float], expected: list[float], value: float) -> None:
    assert error(torch.tensor(actual), torch.tensor(expected)) == value
    assert error(torch.tensor(actual).to(torch.complex64), torch.tensor(expected).to(torch.complex64)) == value
    assert (distance([torch.tensor(actual)], [torch.tensor(expected)]) > 0) == (value > 0)


def test_errors_of_other_things() -> None:
    assert error(torch.ones(0), torch.ones(0)) == distance([], []) == 0.0
    assert error(torch.ones(2), torch.ones(3)) == distance([torch.ones(2)], [torch.ones(3)]) == math.inf
    assert error(torch.ones(2).double(), torch.ones(2)) == math.inf
    assert error(torch.tensor([1, 2]), torch.tensor([1, 2])) == 0.0
    assert error(torch.tensor([True, False]), torch.tensor([False, True])) > 1
    assert distance([torch.ones(1), torch.zeros(1)], [torch.ones(1), torch.full((1,), 1e-9)]) < 1e-8


def test_the_hopeless_run_once() -> None:
    runs: list[str] = []

    def timer(work: Callable[[], Any]) -> float:
        runs.append(work())
        return {"slow": 7.0, "quick": 2.0}[runs[-1]]

    assert race([lambda: "slow", lambda: "quick"], timer, lambda: False, most=3) == [7.0, 2.0]
    assert runs == ["slow", "quick", "quick", "quick", "quick"]
    runs.clear()
    race([lambda: "quick", lambda: "quick", lambda: "quick"], timer, lambda: True)
    assert runs == ["quick"] * 3  # a round of six seconds, and the time is up
