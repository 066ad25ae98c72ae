"""A model made faster where it stands: the same numbers, the same object, and everything given back."""

from __future__ import annotations

import copy
import io
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import striate
from striate import acceleration, layouts
from striate.acceleration import Acceleration, accelerate, restore
from striate.computing import DIRECTIONS, Problem, find
from striate.errors import StriateError
from striate.fusion import FoldedConvolution
from striate.planned_layers import PlannedConvolution, PlannedPooling, PlannedTransposed
from striate.planning import Plan, Plans, choose_all

from .published import NETWORKS, leaves, make

every_network = pytest.mark.parametrize("name", NETWORKS)
PLANNED = (PlannedConvolution, PlannedTransposed, PlannedPooling)


def by_name(algorithm: str) -> Callable[[Problem, float], Plans]:
    """Plans that take one algorithm wherever it serves."""

    def plans_for(problem: Problem, budget: float) -> Plans:
        plans = choose_all(problem)
        turned = {direction: getattr(plans, direction).problem for direction in DIRECTIONS}
        able = {d: find("convolution", algorithm).refuses(p) is None for d, p in turned.items()}
        return replace(plans, **{d: Plan(algorithm, turned[d]) for d in DIRECTIONS if able[d]})

    return plans_for


@pytest.fixture(autouse=True)
def planned_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution has plans that are not PyTorch's."""
    monkeypatch.setattr(acceleration, "plans_for", by_name("im2col"))


class Prices:
    """A timer by a price list: what a step costs follows from what was changed, not from the clock."""

    def __init__(self, model: nn.Module, *, planned: float = -0.1, laid: float = -1.0, fused: float = -0.1) -> None:
        self.model, self.planned, self.laid, self.fused = model, planned, laid, fused

    def __call__(self, work: Callable[[], Any]) -> float:
        work()
        if not isinstance(work, acceleration.Step):
            return {"own": 2.0, "planned": 1.0}[work.__name__]  # type: ignore[attr-defined]
        modules = list(self.model.modules())
        planned = sum(isinstance(m, PLANNED) for m in modules)
        folded = sum(isinstance(m, FoldedConvolution) for m in modules)
        laid = any(hook in layouts.HOOKS for hook in self.model._forward_pre_hooks.values())
        return 100.0 + self.planned * planned + self.fused * folded + self.laid * laid


def faster(model: nn.Module, *inputs: Any, **options: Any) -> Acceleration:
    """The model with everything on."""
    prices = {name: options.pop(name) for name in ("planned", "laid", "fused") if name in options}
    report = accelerate(model, *inputs, timer=Prices(model, **{"planned": -5.0, "laid": -5.0, "fused": -5.0} | prices), budget=0.0, **options)[1]
    return report


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs and gradients of all parameters and of the input."""
    x = x.clone().requires_grad_()
    outputs = leaves(model(x))
    torch.manual_seed(5)
    loss = sum((y * torch.randn_like(y)).sum() for y in outputs)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [*(dict(model.named_parameters())[n] for n in names), x])  # type: ignore[arg-type]
    return {f"output {i}": y.detach() for i, y in enumerate(outputs)} | dict(zip([*names, "input"], found, strict=True))


def same(actual: dict[str, Tensor], expected: dict[str, Tensor], limit: float) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=limit, atol=limit, msg=lambda m, name=name: f"{name}: {m}")


def look(model: nn.Module) -> Any:
    """All that restoring must bring back."""
    return [
        (name, type(module), sorted(module.__dict__), list(module._forward_pre_hooks.values()),
         list(module._forward_hooks.values()), module.training,
         [(n, id(p), p.stride(), p.requires_grad) for n, p in module._parameters.items() if p is not None])
        for name, module in model.named_modules()
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the same numbers


@every_network
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_all_gradients_are_the_models(name: str, dtype: torch.dtype) -> None:
    model, x = make(name, dtype)
    original = copy.deepcopy(model)
    report = faster(model, x)
    assert report.changed
    assert any(layer.planned for layer in report.layers)
    limit = 1e-10 if dtype == torch.float64 else 2e-4
    same(gradients(model, x), gradients(original, x), limit)


@every_network
def test_inference_is_the_models(name: str) -> None:
    model, x = make(name)
    original = copy.deepcopy(model.eval())
    report = faster(model, x)
    assert report.step == "inference"
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            torch.testing.assert_close(leaves(model(x)), leaves(original(x)), rtol=1e-10, atol=1e-10)
    other = torch.cat([x, 2 * x])
    with torch.no_grad():
        torch.testing.assert_close(leaves(model(other)), leaves(original(other)), rtol=1e-10, atol=1e-10)


@every_network
def test_training_goes_on_as_it_would_have(name: str) -> None:
    model, x = make(name)
    original = copy.deepcopy(model)
    optimizers = {}
    for number, one in enumerate((original, model)):
        optimizers[one] = torch.optim.SGD(one.parameters(), lr=0.05, momentum=0.9)
        if number:
            faster(one, x)
        for _ in range(3):
            optimizers[one].zero_grad()
            sum(y.square().mean() for y in leaves(one(x))).backward()  # type: ignore[union-attr]
            optimizers[one].step()
    expected = original.state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")


@every_network
def test_measuring_changes_nothing(name: str) -> None:
    model, x = make(name)
    next(iter(model.parameters())).grad = torch.ones_like(next(iter(model.parameters())))
    before, values = look(model), copy.deepcopy(model.state_dict())
    grads = {n: (None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()}
    given, state, python = x.clone(), torch.get_rng_state(), random.getstate()
    faster(model, x)
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    for key, value in model.state_dict().items():
        assert torch.equal(value, values[key]), key
    for n, p in model.named_parameters():
        expected = grads[n]
        assert (p.grad is None) == (expected is None)
        assert expected is None or (p.grad is not None and torch.equal(p.grad, expected))
    assert restore(model) is model
    assert look(model) == before
    restore(model)
    assert look(model) == before


@every_network
def test_a_state_dict_is_the_same_and_goes_both_ways(name: str) -> None:
    model, x = make(name)
    original = copy.deepcopy(model)
    faster(model, x)
    assert list(model.state_dict()) == list(original.state_dict())
    other = {k: v + 0.125 if v.is_floating_point() else v for k, v in original.state_dict().items()}
    for one in (model, original):
        one.load_state_dict(other)
        one.eval()
    with torch.no_grad():
        torch.testing.assert_close(leaves(model(x)), leaves(original(x)), rtol=1e-9, atol=1e-9)


@every_network
def test_copies_are_accelerated_too_and_stand_alone(name: str) -> None:
    model, x = make(name)
    faster(model.eval(), x)
    twin = copy.deepcopy(model)
    assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()] or name == "weight norm"
    with torch.no_grad():
        expected = [y.clone() for y in leaves(model(x))]
        for p in model.parameters():
            p.zero_()
        torch.testing.assert_close(leaves(twin(x)), expected)
    restore(twin)
    with torch.no_grad():
        torch.testing.assert_close(leaves(twin(x)), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler's own, for hooks of a whole model
@every_network
def test_compiles_whole(name: str) -> None:
    model, x = make(name)
    if name == "weight norm":
        pytest.skip("PyTorch's spectral norm writes its vectors in training")
    faster(model, x)
    torch.compiler.reset()
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    for mode in (True, False):
        model.train(mode)
        torch.testing.assert_close(leaves(compiled(x)), leaves(model(x)))
        with torch.no_grad():
            torch.testing.assert_close(leaves(compiled(x)), leaves(model(x)))


@every_network
def test_is_exported(name: str) -> None:
    model, x = make(name)
    faster(model.eval(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (x,))
    torch.testing.assert_close(leaves(program.module()(x)), leaves(model(x)))


@every_network
def test_parameters_may_be_given_from_outside(name: str) -> None:
    model, x = make(name)
    original = copy.deepcopy(model.eval())
    faster(model, x)
    given = {n: p.detach() * 1.5 for n, p in model.named_parameters()}
    with torch.no_grad():
        actual = torch.func.functional_call(model, given, (x,))
        torch.testing.assert_close(leaves(actual), leaves(torch.func.functional_call(original, given, (x,))))
        torch.testing.assert_close(leaves(model(x)), leaves(original(x)), rtol=1e-9, atol=1e-9)
