"""The optimiser's state on disk, and the moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from striate import optimizing
from striate.optimizing import Average
from striate.options import Options


@pytest.mark.parametrize("name", ["adamw", "momentum", "sgd"])
def test_a_restored_optimizer_takes_the_same_steps(name: str) -> None:
    def made() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        return layer, optimizing.optimizer(layer, Options(optimizer=name))

    def step(layer: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
        layer(torch.full((1, 3), float(number))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    first, its = made()
    for number in range(3):
        step(first, its, number)
    other, others = made()
    other.load_state_dict(first.state_dict())
    optimizing.restore(others, optimizing.state(its))
    step(first, its, 3)
    step(other, others, 3)
    assert torch.equal(first.weight, other.weight)


def test_the_average_is_its_recursion() -> None:
    layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(layer, 0.9)
    expected = {name: tensor.double() for name, tensor in layer.state_dict().items()}
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    for number in range(100):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(number / 100)
        average.update()
        decay = min(0.9, (1 + number) / (10 + number))
        for name, tensor in layer.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    for name, tensor in average.tensors.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-5)
    assert average.updates == 100


def test_a_network_has_its_own_weights_again_after_it_had_the_average() -> None:
    layer = nn.Linear(2, 2)
    own = layer.weight.detach().clone()
    average = Average(layer, 0.5)
    with torch.no_grad():
        layer.weight.add_(1)
    with average.in_place():
        assert torch.equal(layer.weight, own)
    assert torch.equal(layer.weight, own + 1)
