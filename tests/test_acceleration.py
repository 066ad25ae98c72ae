"""A model made faster where it stands: the same numbers, the same object, and everything given back."""

from __future__ import annotations

import copy
import io
import random
import time
import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import striate
from striate import acceleration, layouts
from striate.acceleration import accelerate, restore
from striate.acceleration_report import Acceleration
from striate.computing import DIRECTIONS, Problem, find
from striate.errors import StriateError
from striate.fusion import FoldedConvolution
from striate.measuring import Step, error
from striate.planned_layers import (
    PlannedConvolution,
    PlannedPooling,
    PlannedTransposed,
    algorithms_of,
    change,
    named,
    posed,
)
from striate.planning import Plan, Plans, choose_all
from striate.policy import tuning

from .published import NETWORKS, leaves, make

every_network = pytest.mark.parametrize("name", NETWORKS)
PLANNED = (PlannedConvolution, PlannedTransposed, PlannedPooling)


def by_name(algorithm: str) -> Callable[[Problem], Plans]:
    """Plans that take one algorithm wherever it serves."""

    def plans_for(problem: Problem) -> Plans:
        with tuning("estimate"):  # no race, whatever the caller's rigor
            plans = choose_all(problem)
        turned = {direction: getattr(plans, direction).problem for direction in DIRECTIONS}
        able = {d: find("convolution", algorithm).refuses(p) is None for d, p in turned.items()}
        chosen: dict[str, Any] = {d: Plan(algorithm, turned[d]) for d in DIRECTIONS if able[d]}
        return replace(plans, **chosen)

    return plans_for


@pytest.fixture(autouse=True)
def planned_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution has plans that are not PyTorch's."""
    monkeypatch.setattr(acceleration, "choose_all", by_name("im2col"))


class Prices:
    """A timer by a price list: what a step costs follows from what was changed, not from the clock."""

    def __init__(self, model: nn.Module, *, planned: float = -0.1, laid: float = -1.0, fused: float = -0.1) -> None:
        self.model, self.planned, self.laid, self.fused = model, planned, laid, fused

    def __call__(self, work: Callable[[], Any]) -> float:
        work()
        if not isinstance(work, Step):
            return {"own": 2.0, "planned": 1.0}[work.__name__]
        modules = list(self.model.modules())
        planned = sum(isinstance(m, PLANNED) for m in modules)
        folded = sum(isinstance(m, FoldedConvolution) for m in modules)
        laid = any(hook in layouts.HOOKS for hook in self.model._forward_pre_hooks.values())
        return 100.0 + self.planned * planned + self.fused * folded + self.laid * laid


def faster(model: nn.Module, *inputs: Any, **options: Any) -> Acceleration:
    """The model with everything on."""
    prices = {name: options.pop(name) for name in ("planned", "laid", "fused") if name in options}
    timer = Prices(model, **{"planned": -5.0, "laid": -5.0, "fused": -5.0} | prices)
    return accelerate(model, *inputs, timer=timer, budget=0.0, **options)[1]


def gradients(model: Any, x: Tensor) -> dict[str, Tensor]:
    """Outputs and gradients of all parameters and of the input."""
    x = x.clone().requires_grad_()
    outputs = leaves(model(x))
    torch.manual_seed(5)
    loss = torch.stack([(y * torch.randn_like(y)).sum() for y in outputs]).sum()
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [*(dict(model.named_parameters())[n] for n in names), x])
    return {f"output {i}": y.detach() for i, y in enumerate(outputs)} | dict(zip([*names, "input"], found, strict=True))


def same(actual: dict[str, Tensor], expected: dict[str, Tensor], limit: float) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=limit, atol=limit, msg=name)


def look(model: nn.Module) -> Any:
    """All that restoring must bring back."""
    return [
        (name, type(module), sorted(module.__dict__), list(module._forward_pre_hooks.values()),
         list(module._forward_hooks.values()), module.training,
         [(n, id(p), p.stride(), p.requires_grad) for n, p in module._parameters.items() if p is not None])
        for name, module in model.named_modules()
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- the same numbers


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
            torch.stack([y.square().mean() for y in leaves(one(x))]).sum().backward()
            optimizers[one].step()
    expected = original.state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-9, msg=key)


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


# ------------------------------------------------------------------------------------------------------ the same object


def test_layers_stay_what_they_are() -> None:
    model, x = make("resnet")
    stem: Any = model.stem
    calls: list[int] = []
    stem[0].register_forward_hook(lambda *_: calls.append(1))
    weight = stem[0].weight
    report = faster(model, x)
    assert report.layers[0].planned
    assert isinstance(stem[0], nn.Conv2d)
    assert (type(stem[0]).__name__, repr(stem[0])) == ("Conv2d", repr(copy.deepcopy(restore(copy.deepcopy(stem[0])))))
    assert stem[0].weight is weight
    calls.clear()
    model(x)
    assert calls == [1]
    seen: list[str] = []
    model.apply(lambda m: seen.append(type(m).__name__))
    assert seen.count("Conv2d") == 6


def test_a_shared_layer_stays_shared() -> None:
    model, x = make("shared")
    report = faster(model, x)
    assert model.first is model.second
    assert [layer.name for layer in report.layers] == ["first"]
    assert report.layers[0].before == 4000.0  # two calls on two scales


def test_a_pickle_of_a_whole_model_comes_back() -> None:
    model, x = make("resnet")
    faster(model.eval(), x)
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    again = torch.load(stream, weights_only=False)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x))
    assert type(restore(again).stem[0]) is nn.Conv2d


def test_what_was_compiled_is_accelerated_inside() -> None:
    model, x = make("resnet")
    compiled: Any = torch.compile(model, backend="eager")
    same_one, report = accelerate(compiled, x, timer=Prices(model, planned=-5.0), budget=0.0)
    assert same_one is compiled
    assert report.layers[0].planned
    assert isinstance(model.stem[0], PlannedConvolution)
    restore(compiled)
    assert not isinstance(model.stem[0], PlannedConvolution)


def test_a_part_may_be_restored_alone() -> None:
    model, x = make("resnet")
    faster(model, x, laid=1.0)
    restore(model.blocks)
    assert isinstance(model.stem[0], PlannedConvolution)
    assert not any(isinstance(m, PLANNED) for m in model.blocks.modules())


def test_accelerating_again_decides_anew() -> None:
    model, x = make("resnet")
    faster(model, x)
    report = faster(model, x, planned=5.0, laid=5.0)
    assert not report.changed
    assert not any(isinstance(m, PLANNED) for m in model.modules())


def test_kernels_that_lie_in_foreign_memory_are_not_moved() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    flat = torch.cat([p.detach().flatten() for p in model[0].parameters()])
    model[0].weight.data = flat[: model[0].weight.numel()].view_as(model[0].weight)
    report = faster(model, torch.randn(1, 3, 9, 9))
    assert report.layout == "channels_last"
    assert model[0].weight.data_ptr() == flat.data_ptr()
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_outputs_lie_as_they_did() -> None:
    model, x = make("unet")
    strides = model(x)["mask"].stride()
    assert faster(model, x).layout == "channels_last"
    assert model(x)["mask"].stride() == strides
    last = copy.deepcopy(restore(model)).to(memory_format=torch.channels_last)
    y = x.contiguous(memory_format=torch.channels_last)
    strides = last(y)["mask"].stride()
    report = faster(last, y)
    assert report.layout == "contiguous"
    assert last(y)["mask"].stride() == strides


# ----------------------------------------------------------------------------------------------------------- the choice


def test_what_is_not_faster_is_not_kept() -> None:
    model, x = make("resnet")
    before = look(model)
    report = accelerate(model, x, timer=Prices(model, planned=1.0, laid=1.0), budget=0.0)[1]
    assert not report.changed
    assert (report.before, report.after) == (100_000.0, 100_000.0)
    assert "Nothing tried was faster: the model is as it was." in str(report)
    assert look(model) == before


def test_layers_that_do_not_pay_in_the_whole_are_given_back() -> None:
    model, x = make("mobilenet")

    class Whole(Prices):
        def __call__(self, work: Callable[[], Any]) -> float:
            worst = isinstance(model[0], PLANNED)
            return super().__call__(work) + (50.0 if worst and isinstance(work, Step) else 0.0)

    report = accelerate(model, x, timer=Whole(model, planned=-10.0, laid=0.0), budget=60.0)[1]
    left = [layer.name for layer in report.layers if not layer.planned]
    assert [name for name in left if name != "5"] == ["0"]  # the last one, a mean, is PyTorch's where that won its race


def test_a_wrong_algorithm_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make("speech")
    monkeypatch.setattr(acceleration, "error", lambda a, b: error(1.01 * a, b))
    report = accelerate(model, x, timer=Prices(model, planned=-10.0), budget=0.0)[1]
    assert not report.changed


def test_plans_without_another_algorithm_leave_the_layer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "choose_all", by_name("vendor"))
    model, x = make("speech")
    report = accelerate(model, x, timer=Prices(model, planned=-10.0), budget=0.0)[1]
    assert not report.changed
    assert {name for layer in report.layers for name in layer.algorithms.values()} == {"vendor"}


def test_other_sizes_types_and_shapes_are_served_as_before() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))
    original = copy.deepcopy(model)
    faster(model, torch.randn(2, 3, 8, 8))
    for x in (torch.randn(5, 3, 8, 8), torch.randn(2, 3, 11, 9), torch.randn(3, 8, 8), torch.randn(0, 3, 8, 8)):
        torch.testing.assert_close(model(x), original(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.randn(2, 3, 8, 8)
        assert model(x).dtype == original(x).dtype == torch.bfloat16
        torch.testing.assert_close(model(x), original(x), rtol=3e-2, atol=3e-2)
    double = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model.double()(double), original.double()(double))
    for wrong in (torch.randn(2, 5, 8, 8, dtype=torch.float64), torch.randn(2, 3, 8, 8)):
        with pytest.raises(RuntimeError) as expected:
            original(wrong)
        with pytest.raises(RuntimeError) as caught:
            model(wrong)
        assert str(caught.value) == str(expected.value)


def test_a_changed_window_is_the_new_one() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    x = torch.randn(2, 3, 8, 8)
    faster(model, x)
    model[0].stride, model[0].padding = (2, 2), (0, 0)
    torch.testing.assert_close(model(x), F.conv2d(x, model[0].weight, model[0].bias, 2))


def test_per_sample_gradients_and_ensembles() -> None:
    model, x = make("convnext")
    faster(model, x, laid=1.0)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(given: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(model, given, (one[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    expected = torch.func.grad(loss)(parameters, x[1])
    for name, value in expected.items():
        torch.testing.assert_close(found[name][1], value)


def test_the_first_layers_input_gradient_is_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make("resnet")
    report = faster(model, x)
    assert list(report.layers[0].algorithms) == ["forward", "weight_gradient"]
    assert list(report.layers[2].algorithms) == list(DIRECTIONS)
    directions: list[tuple[int, str]] = []
    algorithm = find("convolution", "im2col")
    real = type(algorithm).run

    def spy(self: Any, first: Tensor, second: Any, problem: Problem) -> Tensor:
        directions.append((problem.in_channels, problem.direction))
        return real(self, first, second, problem)

    monkeypatch.setattr(type(algorithm), "run", spy)
    model(x).sum().backward()
    assert (3, "weight_gradient") in directions
    assert (3, "input_gradient") not in directions


# ----------------------------------------------------------------------------------------------------------- the report


def test_the_report_is_a_table_and_plain_values() -> None:
    model, x = make("functional")
    report = faster(model, x)
    text = str(report)
    assert text.splitlines()[0].split("  ")[0] == "layer"
    assert "Left as it is: convolution, called as a function in the model, 1 a step." in text
    assert "Left as it is: max_pool2d, called as a function in the model, 1 a step." in text
    assert "training step: 100000.00 ms before, 90000.00 ms after (1.11 times as fast)" in text
    values = report.to_dict()
    assert values["changed"]
    assert values["layers"][0] == {
        "name": "conv", "kind": "Conv2d", "before": 2000.0, "after": 1000.0, "planned": True, "note": "",
        "algorithms": {"forward": "im2col", "weight_gradient": "im2col"}, "error": report.layers[0].error,
    }  # fmt: skip
    assert 0 <= report.layers[0].error < 1e-12  # type: ignore[operator]


class Own(nn.Conv2d):
    """A convolution of somebody's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.idle, self.single = Own(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.norm, self.switches = nn.LPPool2d(3, 2), nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> Any:
        return self.switches(self.norm(torch.stack([self.single(one) for one in self.own(x)]).square() + 1))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_weights_that_a_hook_makes_are_left_alone_with_a_reason() -> None:
    made = nn.utils.weight_norm(nn.Conv1d(4, 4, 3, padding=1))
    model, report = accelerate(nn.Sequential(made, nn.Conv1d(4, 4, 3)), torch.randn(2, 4, 20), budget=0.2)
    assert "its weights are made by a hook, perhaps" in str(report)
    assert model(torch.randn(2, 4, 20)).shape == (2, 4, 18)


def test_what_is_left_alone_has_its_reason() -> None:
    torch.manual_seed(0)
    model: Any = Branches()
    report = faster(model, torch.randn(2, 3, 12, 12))
    notes = {layer.name: layer.note for layer in report.layers}
    assert notes == {
        "own": "left as it is: its forward is its own",
        "idle": "not called on the example inputs",
        "single": "left as it is: it was called without a batch",
        "norm": "left as it is: PyTorch's norm differs for this exponent or with ceil_mode",
        "switches": "left as it is: it returns its switches too",
    }
    assert type(model.own) is Own


def test_a_model_without_windows_says_so() -> None:
    report = accelerate(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(2, 3), budget=0.0)[1]
    assert not report.changed
    assert report.notes == ("The model has no convolution and no pooling.",)
    assert report.layers == ()


def test_a_layout_in_which_the_model_fails_is_named() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y.view(y.shape[0], -1)

    report = faster(Viewing(), torch.randn(2, 3, 8, 8))
    assert report.layout == "as given"
    assert report.notes[0].startswith("Memory layout channels_last: the model fails in it (view size is not compatible")


# ------------------------------------------------------------------------------------------------------------ the words


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("boom")


NO_MODULE = (
    "striate.accelerate needs a torch.nn.Module, got builtin_function_or_method; give the model itself, not a function "
    "or its state dict."
)
NO_INPUTS = "striate.accelerate needs example inputs to measure with, as in striate.accelerate(model, images)."
LAZY = "The model has lazy layers without sizes; run it once on the inputs, then accelerate it."
META = "The model is on the meta device and has no numbers; give it a place with to_empty()."
FAILS = "The model fails on the example inputs, before anything was changed: KeyError: 'boom'"
WRONG: list[tuple[Any, tuple[Any, ...], str]] = [
    (torch.relu, (torch.ones(1),), NO_MODULE),
    (nn.Conv2d(1, 1, 1), (), NO_INPUTS),
    (nn.LazyConv2d(1, 1), (torch.ones(1, 1, 1, 1),), LAZY),
    (nn.Conv2d(1, 1, 1, device="meta"), (torch.ones(1, 1, 1, 1),), META),
    (Failing(), (torch.ones(1),), FAILS),
]


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(("model", "inputs", "message"), WRONG, ids=["module", "inputs", "lazy", "meta", "failing"])
def test_messages(model: Any, inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(StriateError) as caught:
        accelerate(model, *inputs, budget=0.0)
    assert str(caught.value) == message


def test_a_stop_in_the_middle_leaves_the_model_as_it_was() -> None:
    model, x = make("resnet")
    before = look(model)
    rounds: list[int] = []

    def stopping(work: Callable[[], Any]) -> float:
        rounds.append(1)
        if isinstance(work, Step) and len(rounds) > 40:
            raise KeyboardInterrupt
        return Prices(model, planned=-5.0)(work)

    with pytest.raises(KeyboardInterrupt):
        accelerate(model, x, timer=stopping, budget=60.0)
    assert look(model) == before


def test_examples_that_the_model_writes_into_are_kept() -> None:
    class Centring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.sub_(0.5))

    x = torch.randn(2, 3, 8, 8)
    given = x.clone()
    assert faster(Centring(), x).error < 1e-5
    assert torch.equal(x, given)


def test_dropout_is_the_same_in_every_trial() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 4, 3))
    report = faster(model, torch.randn(2, 3, 8, 8))
    assert report.changed
    assert report.error < 1e-5


def test_an_accelerated_layer_obeys_the_policy() -> None:
    model: Any = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    x = torch.randn(1, 8, 12, 12)
    exact = copy.deepcopy(model).double()(x.double())
    faster(model, x)
    window = (1, 1, 1, 1, None)
    facts = (x.shape, x.dtype, "cpu", model[0].weight.shape, "channels_first")
    names = ("winograd4", "vendor", "vendor")
    assert algorithms_of(named(choose_all(posed(facts, window)), names))[0] == "winograd4"
    with tuning("estimate", tolerance=1e-7):
        assert algorithms_of(named(choose_all(posed(facts, window)), names))[0] != "winograd4"
    model[0].__dict__["_striate_choice"] = (names, (12, 12), x.dtype)
    loose = error(model(x).double(), exact)
    with tuning("estimate", tolerance=1e-7):
        assert 2 * error(model(x).double(), exact) < loose


def test_what_is_exported_holds_operators_of_pytorch_only() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    assert faster(model, x).layers[0].planned
    expected = model(x).detach()
    exported = torch.export.export(model, (x,))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert targets
    assert all(target.startswith("aten.") for target in targets), targets
    torch.testing.assert_close(exported.module()(x), expected, rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(model, x)
    assert {node.kind() for node in traced.inlined_graph.nodes()} >= {"aten::_convolution", "aten::relu"}
    assert "striate::" not in str(traced.inlined_graph)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_type_admits_another_network(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        wrong = 0.5 if dtype.itemsize == 2 else 0.02
        patch.setattr(acceleration, "distance", lambda actual, expected: wrong)
        report = faster(model, torch.randn(2, 3, 8, 8, dtype=dtype))
    assert not report.changed


class Remembering(nn.Module):
    """Writes into a dict that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, memory: Any) -> Any:
        memory["seen"] = self.conv(x)
        return {"out": memory["seen"], "memory": memory}


@pytest.mark.parametrize("layout", [layouts.LAST_CHANNELS, layouts.FIRST_CHANNELS])
def test_containers_are_the_callers_own(layout: str) -> None:
    model: Any = Remembering()
    layouts.lay(model, layout, [])
    memory: dict[str, Any] = {"old": torch.randn(1, 3, 8, 8)}
    found = model(torch.randn(1, 3, 8, 8), memory)
    assert found["memory"] is memory
    assert memory["seen"] is found["out"]
    memory = {}
    model(torch.randn(1, 3, 8, 8), memory=memory)
    assert "seen" in memory


def test_outputs_are_rebuilt_only_where_something_changes() -> None:
    x = torch.randn(1, 3, 4, 4)
    pair = namedtuple("pair", "one two")
    model: Any = nn.Identity()
    for value in ([x], (x, "word"), {"x": [x]}, pair(x, 1)):
        assert layouts.leave_first(model, (), value) is value
        other: Any = layouts.leave_last(model, (), value)
        assert other is not value
        assert type(other) is type(value)
        assert torch.utils._pytree.tree_leaves(other)[0].is_contiguous(memory_format=torch.channels_last)


def test_a_shared_parameter_gets_its_strides_back() -> None:
    model: Any = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    model[1].weight = model[0].weight
    strides = model[0].weight.stride()
    layouts.lay(model, layouts.LAST_CHANNELS, [])
    assert model[0].weight.stride() != strides
    restore(model)
    assert model[0].weight is model[1].weight
    assert model[0].weight.stride() == strides


def test_weights_tied_by_their_memory_stay_tied() -> None:
    model: Any = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    model[1].weight.data = model[0].weight.data
    layouts.lay(model, layouts.LAST_CHANNELS, [])
    assert model[0].weight.data_ptr() == model[1].weight.data_ptr()
    restore(model)
    assert model[0].weight.data_ptr() == model[1].weight.data_ptr()


def test_accelerating_in_inference_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with torch.inference_mode():
        x = torch.randn(2, 3, 8, 8)
        expected = model(x)
        assert faster(model, x).changed
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        made_there = nn.Conv2d(3, 4, 3)
    with pytest.raises(StriateError, match=r"made in torch\.inference_mode"):
        accelerate(made_there, torch.randn(2, 3, 8, 8))


def test_a_planned_pooling_fails_in_pytorchs_words() -> None:
    model = nn.Sequential(nn.MaxPool2d(2))
    change(model[0], PlannedPooling, axes=2)
    for x in (torch.randn(1, 1, 1, 1), torch.ones(1, 1, 4, 4, dtype=torch.complex64)):
        with pytest.raises((RuntimeError, NotImplementedError), match=r".") as expected:
            nn.MaxPool2d(2)(x)
        with pytest.raises(type(expected.value)) as found:
            model(x)
        assert str(found.value) == str(expected.value)


def test_many_layers_share_the_time_and_all_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    granted: list[float] = []
    tried = acceleration._Search._tried

    def noted(self: Any, begun: Any, module: Any, calls: Any, layout: str, budget: float) -> Any:
        granted.append(budget)
        time.sleep(0.03)  # the first ones take too long
        return tried(self, begun, module, calls, layout, budget)

    monkeypatch.setattr(acceleration._Search, "_tried", noted)
    model = nn.Sequential(*(nn.Conv1d(c, c + 1, 1) for c in range(1, 9)))
    accelerate(model, torch.randn(1, 1, 5), timer=Prices(model), budget=0.2)
    assert len(granted) == 8
    assert min(granted) > 0


def test_public_names() -> None:
    assert striate.accelerate is accelerate
    assert striate.restore is restore
