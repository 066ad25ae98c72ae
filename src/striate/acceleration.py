"""Any model of PyTorch's made faster where it stands, by measurement, and given back as it was.

Layers change their class, never their parameters. Memory layouts, planned layers and fused normalisation are tried on
the model's own step; what is not faster there is not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .acceleration_report import Acceleration, LayerReport
from .computing import DIRECTIONS
from .errors import AlgorithmError, GeometryError, StriateError
from .fusion import TYPES as FOLDABLE
from .fusion import Fold, FoldedActivation, FoldedConvolution, FoldedNormalisation
from .layouts import GIVEN, lay, lay_back, others
from .measuring import Budget, Step, Timer, Work, copied, distance, error, race, seconds, tensors_of, unchanged
from .observing import Call, Observation, observed
from .planned_layers import (
    CONVOLUTIONS,
    LAYERS,
    NORMS,
    TRANSPOSED,
    Choice,
    PlannedConvolution,
    PlannedPooling,
    PlannedTransposed,
    algorithms_of,
    axes_of,
    change,
    change_back,
    kind_of,
    own_class,
    pooling_algorithms,
    posed,
    problem_facts,
)  # fmt: skip
from .planning import SHARE, choose_all, turn
from .policy import tuning
from .progress import Progress

Model = TypeVar("Model", bound=nn.Module)

GAIN = 0.02  # what is faster by less is taken for noise
TOLERANCE = {torch.float64: 1e-9, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of the rms; else:
DEFAULT_TOLERANCE = 1e-4
WHOLE = {torch.float64: 1e-7, torch.float16: 1e-1, torch.bfloat16: 1e-1}  # the same for a whole network; else:
DEFAULT_WHOLE = 5e-3
RACES = 0.7  # of a layer's time are the races of its algorithms, the rest is its own
LEAST = 0.5  # of the time for all layers is divided among them even if the first ones took too long


def accelerate(
    model: Model,
    *example_inputs: Any,
    keywords: Mapping[str, Any] | None = None,
    gradients: bool | None = None,
    budget: float = 30.0,
    timer: Timer | None = None,
) -> tuple[Model, Acceleration]:
    """Make any torch model faster where it stands: planned layers, memory layout and fusion, chosen by measurement.

    The model stays the same object with the same parameters: state dicts, optimizers made before or after, hooks,
    names, modes and ``isinstance`` are as before. Each convolution and pooling of torch.nn whose ``forward`` is
    torch.nn's is given to the plan where that is faster in the model's own step; the network computes in the memory
    layout that is fastest for all of it; and a model in evaluation computes batch normalisation and the activation
    after it together with the convolution, in calls under ``torch.no_grad()``. What is not faster is not kept; if
    nothing is, the model is returned as it was, and the report says so. :func:`striate.restore` undoes everything.

    Measuring changes nothing: example inputs, parameters, buffers, gradients, modes and random generators are bit for
    bit what they were.

    Args:
        model: Any module. What ``torch.compile`` has returned is accelerated inside.
        *example_inputs: Positional inputs of a typical step: the speed of other sizes is not measured.
        keywords: Keyword inputs.
        gradients: Measure forward and backward; None does so if the model is in training mode.
        budget: Seconds to measure in, about; every trial is run a few times however long that takes.
        timer: Runs what it is given and returns seconds, in place of the clock.

    Returns:
        The model, and a report that prints as a table.

    Raises:
        StriateError: This is no module that can run on these inputs; the message says why.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> same, report = accelerate(model, torch.randn(1, 3, 16, 16), budget=0.1)
    >>> same is model, report.after <= report.before
    (True, True)
    """
    inside = _inside(model)
    _require_runnable(inside, example_inputs, keywords or {})
    restore(inside)
    backward = inside.training if gradients is None else gradients
    with torch.inference_mode(False):
        inputs, named = copied((example_inputs, dict(keywords or {})))
        return model, _searched(inside, inputs, named, backward, budget, timer)


def _searched(
    model: nn.Module,
    inputs: tuple[Any, ...],
    keywords: Mapping[str, Any],
    gradients: bool,
    budget: float,
    timer: Timer | None,
) -> Acceleration:
    step = Step(model, inputs, keywords, gradients)
    with unchanged(model) as rewind, Progress(f"accelerating {type(model).__name__}") as progress:
        try:
            search = _Search(step, rewind, Budget(budget), timer or seconds, progress)
            return search.report(search.best())
        except BaseException:
            restore(model)
            raise


def restore(model: Model) -> Model:
    """Undo :func:`striate.accelerate`: classes, memory layout of the parameters and hooks are what they were.

    Values are kept as they are now, trained or not. A model that was not accelerated is returned unchanged. A part of
    an accelerated model may be restored by itself.

    Raises:
        StriateError: This is no module.

    >>> model = nn.Conv2d(3, 8, 3)
    >>> restore(model) is model
    True
    """
    inside = _inside(model)
    for module in inside.modules():
        change_back(module)
        lay_back(module)
    return model


def _inside(model: Any) -> nn.Module:
    """The model that ``torch.compile`` was given, or the model itself."""
    if not isinstance(model, nn.Module):
        raise StriateError(
            f"striate.accelerate needs a torch.nn.Module, got {type(model).__name__}; "
            "give the model itself, not a function or its state dict."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise StriateError("The model is a ScriptModule, whose layers are fixed; accelerate it before torch.jit.")
    inner = model._modules.get("_orig_mod")
    return inner if inner is not None and type(model).__name__ == "OptimizedModule" else model


def _require_runnable(model: nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    tensors = [*model.parameters(), *model.buffers()]
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise StriateError("The model has lazy layers without sizes; run it once on the inputs, then accelerate it.")
    if any(tensor.is_meta for tensor in tensors):
        raise StriateError("The model is on the meta device and has no numbers; give it a place with to_empty().")
    if any(tensor.is_inference() for tensor in tensors):
        raise StriateError("The model was made in torch.inference_mode(), where numbers are frozen; make it outside.")
    if not tensors_of((inputs, keywords)):
        raise StriateError(
            "striate.accelerate needs example inputs to measure with, as in striate.accelerate(model, images)."
        )


# ------------------------------------------------------------------------------------------------------------- a setup


@dataclass(frozen=True)
class _Setup:
    """One way to run the model.

    Args:
        layout: The memory layout.
        planned: The layers that compute by plans.
        fused: The convolutions that take their normalisation with them.
    """

    layout: str = GIVEN
    planned: frozenset[nn.Module] = frozenset()
    fused: frozenset[nn.Module] = frozenset()


@dataclass(frozen=True)
class _Trial:
    """A layer measured alone.

    Args:
        own: Seconds as PyTorch computes it.
        planned: Seconds by plans; infinity if there are none but PyTorch's, or if they are not exact enough.
        marks: What the planned layer keeps.
        algorithms: By direction.
        error: Of the planned layer.
        note: Why it has no plans of its own.
    """

    own: float = inf
    planned: float = inf
    marks: Mapping[str, Any] = field(default_factory=dict)
    algorithms: Mapping[str, str] = field(default_factory=dict)
    error: float | None = None
    note: str = ""

    @property
    def gains(self) -> bool:
        """Whether plans are faster."""
        return self.planned < (1 - GAIN) * self.own


class _Search:
    """The search for the fastest setup of one model."""

    def __init__(self, step: Step, rewind: Work, budget: Budget, timer: Timer, progress: Progress) -> None:
        self.model, self.step, self.rewind = step.model, step, rewind
        self.budget, self.timer, self.progress = budget, timer, progress
        self.trials: dict[tuple[str, nn.Module], _Trial] = {}
        self.known: dict[Any, _Trial] = {}
        self.notes: list[str] = []
        self.seen, self.expected = self._observe()
        self.times: dict[_Setup, float] = {}

    def _observe(self) -> tuple[Observation, Any]:
        try:
            with observed(self.model) as seen:
                expected = self.step()
        except Exception as problem:
            raise StriateError(
                "The model fails on the example inputs, before anything was changed: "
                f"{type(problem).__name__}: {problem}"
            ) from problem
        self.step.renew = self.step.writes
        return seen, expected

    # ------------------------------------------------------------------------------------------------- the whole model

    def best(self) -> _Setup:
        """The fastest setup, the model's own unless another is faster."""
        calls = [call for calls in self.seen.calls.values() for call in calls]
        layouts = [GIVEN, *([] if self.step.writes else others(self.model, calls))]  # written inputs stay
        setups = []
        for number, layout in enumerate(layouts):
            bare = _Setup(layout)
            if number and not self._runs(bare):
                continue
            self.arrange(bare)
            gaining = self._try_layers(layout, (number + 1) / len(layouts) * 0.6)
            setups += [bare, *([replace(bare, planned=gaining)] if gaining else [])]
        if (pairs := self._foldable()) and not self.step.gradients:
            setups += [replace(setup, fused=pairs) for setup in setups]
        self._race(setups, 0.8)
        found = self._pruned(min(setups, key=self._time))
        return self._confirmed(found)

    def arrange(self, setup: _Setup) -> None:
        """Bring the model into the setup."""
        restore(self.model)
        lay(self.model, setup.layout, self.expected[0])
        for module in self.seen.calls:
            if module in setup.planned:
                self._plan(module, self.trials[setup.layout, module])
        partners = self.seen.partners()
        for module in self.seen.calls:
            if module in setup.fused:
                norm, activation = partners[module]
                change(module, FoldedConvolution, fold=Fold(norm, activation))
                change(norm, FoldedNormalisation, activation=activation)
                if activation is not None and not isinstance(activation, FoldedActivation):
                    change(activation, FoldedActivation, kind=own_class(activation))

    def _time(self, setup: _Setup) -> float:
        return self.times.get(setup, inf)

    def _race(self, setups: Sequence[_Setup], share: float, least: int = 2) -> None:
        """Time the model's step in each setup; the shortest time of each is kept."""

        def prepare(place: int) -> None:
            self.progress.tell(1 - self.budget.left() / max(self.budget.seconds, 1e-9))
            self.arrange(setups[place])

        works, until = [self.step] * len(setups), lambda: self.budget.left(share) <= 0
        found = race(works, self.timer, until, prepare=prepare, least=least)
        self.times |= dict(zip(setups, found, strict=True))

    def _runs(self, setup: _Setup) -> bool:
        """Whether the model runs so, and gives the same."""
        try:
            self.arrange(setup)
            found = self._errors()
        except RuntimeError as problem:
            self.notes.append(f"Memory layout {setup.layout}: the model fails in it ({str(problem).splitlines()[0]}).")
            return False
        if not self._admits(found):
            self.notes.append(f"Memory layout {setup.layout}: the model gives something else in it.")
            return False
        return True

    def _errors(self) -> tuple[float, float]:
        """The largest error of the outputs in the present setup, and that of all gradients."""
        self.rewind()
        outputs, gradients = self.step()
        expected, expected_gradients = self.expected
        if len(outputs) != len(expected) or gradients.keys() != expected_gradients.keys():
            return inf, inf
        outside = [error(y, e) for y, e in zip(outputs, expected, strict=True)]
        wrong = distance(list(gradients.values()), [expected_gradients[name] for name in gradients])
        return max(outside, default=0.0), wrong

    def _admits(self, errors: tuple[float, float]) -> bool:
        """Whether it is no more than rounding may do to a whole network, which passes it on from layer to layer.

        Gradients may be wrong by twice as much: rounding also moves values across the corner of a ReLU.
        """
        limit = max((WHOLE.get(t.dtype, DEFAULT_WHOLE) for t in self.expected[0]), default=DEFAULT_WHOLE)
        return errors[0] <= limit and errors[1] <= 2 * limit

    def _pruned(self, setup: _Setup) -> _Setup:
        """Without the planned layers that do not pay in the whole: the least promising first, alike ones together."""
        alike: dict[Any, set[nn.Module]] = {}
        for module in setup.planned:
            alike.setdefault(id(self.trials[setup.layout, module]), set()).add(module)

        def saved(group: set[nn.Module]) -> float:
            return sum(self.trials[setup.layout, m].own - self.trials[setup.layout, m].planned for m in group)

        for group in sorted(alike.values(), key=saved):
            if self.budget.left(0.9) <= 0:
                break
            without = replace(setup, planned=setup.planned - group)
            self._race([setup, without], 0.0)
            if self._time(without) < (1 - GAIN / 4) * self._time(setup):
                setup = without
        return setup

    def _confirmed(self, setup: _Setup) -> _Setup:
        """The setup, if it is still faster than the model as it was and gives the same; else the model as it was."""
        original = _Setup()
        if setup != original:
            self._race([original, setup], 1.0, least=4)
            self.arrange(setup)
            errors = self._errors()
            self.error = max(errors)
            if not self._admits(errors):
                self.notes.append(f"The fastest setup was not kept: its error was {self.error:.0e} of the rms.")
            elif self._time(setup) < (1 - GAIN) * self._time(original):
                return setup
        self.arrange(original)
        self.error = 0.0
        return original

    # ------------------------------------------------------------------------------------------------------ one layer

    def _try_layers(self, layout: str, share: float) -> frozenset[nn.Module]:
        """Measure every layer alone; those that are faster by plans.

        Alike ones are measured once. The time is divided by what they cost, so that each runs about as often, and a
        part of it is kept for the last ones, however long the first ones take.
        """
        keys = {module: (layout, _looks(module), tuple(calls)) for module, calls in self.seen.calls.items()}
        first = {key: module for module, key in reversed(keys.items()) if key not in self.known}
        begun = {key: self._begun(module, self.seen.calls[module], layout) for key, module in first.items()}
        cost = {key: 0.0 if trial.note else trial.own for key, trial in begun.items()}
        least = LEAST * max(self.budget.left(share), 0.0)
        for key in sorted(first, key=lambda key: -cost[key]):
            self.progress.tell(1 - self.budget.left() / max(self.budget.seconds, 1e-9))
            part = cost[key] / max(sum(cost.values()), 1e-12)
            granted = max(self.budget.left(share) * part, least * part / len(first), 0.0)
            self.known[key] = self._tried(begun[key], first[key], self.seen.calls[first[key]], layout, granted)
            cost[key] = 0.0
        self.trials |= {(layout, module): self.known[key] for module, key in keys.items()}
        return frozenset(module for module in self.seen.calls if self.trials[layout, module].gains)

    def _begun(self, module: nn.Module, calls: Sequence[Call], layout: str) -> _Trial:
        """How long the layer takes as it is, roughly, or why it stays so."""
        if note := _kept_as_it_is(module, calls):
            return _Trial(note=note)
        total = 0.0
        for call, times in Counter(calls).items():
            alone = _Alone(module, call, layout, self.step.gradients)
            total += times * race([alone.own], self.timer, lambda: True, least=1)[0]
        if total == inf:
            return _Trial(note="left as it is: it does not run by itself (its weights are made by a hook, perhaps)")
        return _Trial(own=total)

    def _tried(self, begun: _Trial, module: nn.Module, calls: Sequence[Call], layout: str, budget: float) -> _Trial:
        if begun.note:
            return begun
        largest = max(calls, key=lambda call: torch.Size(call.shape).numel())
        trial = self._planned(module, largest, layout, RACES * budget)
        if not trial.marks:
            return replace(trial, own=begun.own)
        until, own, planned, errors = Budget((1 - RACES) * budget), 0.0, 0.0, [0.0]
        for call, times in Counter(calls).items():
            alone = _Alone(module, call, layout, self.step.gradients)
            self._plan(module, trial)
            errors.append(alone.error())
            found = race([alone.own, alone.planned], self.timer, lambda: until.left() <= 0)
            change_back(module)
            own, planned = own + times * found[0], planned + times * found[1]
        exact = max(errors) <= TOLERANCE.get(calls[0].dtype, DEFAULT_TOLERANCE)
        return replace(trial, own=own, planned=planned if exact else inf, error=max(errors))

    def _plan(self, module: nn.Module, trial: _Trial) -> None:
        planned: type = PlannedPooling
        if isinstance(module, CONVOLUTIONS + TRANSPOSED):
            planned = PlannedTransposed if isinstance(module, TRANSPOSED) else PlannedConvolution
        change(module, planned, **trial.marks)

    def _planned(self, module: Any, call: Call, layout: str, budget: float) -> _Trial:
        """What plans would do, not measured yet; or why there are none."""
        try:
            with tuning("measure", budget=SHARE * budget / len(DIRECTIONS)):
                if isinstance(module, CONVOLUTIONS + TRANSPOSED):
                    return self._planned_convolution(module, call, layout)
                return self._planned_pooling(module, call, layout)
        except (GeometryError, AlgorithmError) as reason:
            return _Trial(note=f"left as it is: {reason}")

    def _planned_convolution(self, module: Any, call: Call, layout: str) -> _Trial:
        facts, window = problem_facts(module, call.example(layout))
        problem = posed(facts, window)
        plans = choose_all(problem)
        algorithms = {
            direction: getattr(plans, turn(problem.direction, direction)).algorithm
            for direction in DIRECTIONS
            if self._computes(direction, module, call)
        }
        if set(algorithms.values()) == {"vendor"}:
            return _Trial(algorithms=algorithms)
        choice: Choice = (algorithms_of(plans), facts[0][2:], facts[1])
        return _Trial(algorithms=algorithms, marks={"choice": choice})

    def _planned_pooling(self, module: Any, call: Call, layout: str) -> _Trial:
        if isinstance(module, NORMS) and (module.norm_type % 2 or module.ceil_mode):
            return _Trial(note="left as it is: PyTorch's norm differs for this exponent or with ceil_mode")
        names = dict(zip(DIRECTIONS, pooling_algorithms(module, call.example(layout)), strict=False))
        algorithms = {d: name for d, name in names.items() if self._computes(d, module, call)}
        planned = set(algorithms.values()) != {"vendor"}
        return _Trial(algorithms=algorithms, marks={"axes": len(call.shape) - 2} if planned else {})

    def _computes(self, direction: str, module: Any, call: Call) -> bool:
        if direction == "forward":
            return True
        if direction == "input_gradient":
            return self.step.gradients and call.differentiated
        return self.step.gradients and any(p.requires_grad for p in module.parameters())

    def _foldable(self) -> frozenset[nn.Module]:
        """Convolutions before a batch normalisation, whose weights are few beside what they give: they are compared."""
        found: dict[Any, Any] = dict(self.seen.partners())
        return frozenset(
            conv
            for conv, (norm, _) in found.items()
            if kind_of(conv) is not None
            and type(norm).forward is nn.modules.batchnorm._BatchNorm.forward
            and not norm.training
            and norm.running_mean is not None
            and conv.weight.dtype in FOLDABLE
            and 2 * conv.weight.numel() <= self.seen.outputs[conv]
        )

    # ------------------------------------------------------------------------------------------------------ the report

    def report(self, setup: _Setup) -> Acceleration:
        """What was found, for people."""
        names = {module: name for name, module in self.model.named_modules()}
        rows = [
            self._row(module, name, setup) for name, module in self.model.named_modules() if isinstance(module, LAYERS)
        ]
        before = 1e3 * self._time(_Setup())
        notes = [] if rows or self.seen.functions else ["The model has no convolution and no pooling."]
        return Acceleration(
            layers=tuple(rows),
            before=before,
            after=min(before, 1e3 * self._time(setup)),
            step="training" if self.step.gradients else "inference",
            layout=setup.layout,
            fused=tuple(names[module] for module in self.seen.calls if module in setup.fused),
            error=self.error,
            functions=tuple((place, name, count) for (place, name), count in self.seen.functions.items()),
            notes=(*notes, *self.notes),
        )

    def _row(self, module: nn.Module, name: str, setup: _Setup) -> LayerReport:
        kind = own_class(module).__name__
        if module not in self.seen.calls:
            return LayerReport(name, kind, note="not called on the example inputs")
        first, trial = self.trials[GIVEN, module], self.trials[setup.layout, module]
        planned = module in setup.planned
        vendor = dict.fromkeys(trial.algorithms, "vendor")
        return LayerReport(
            name,
            kind,
            before=_milliseconds(first.own),
            after=_milliseconds(trial.planned if planned else trial.own),
            algorithms=trial.algorithms if planned else vendor,
            error=trial.error if planned else None,
            planned=planned,
            note=trial.note,
        )


def _milliseconds(value: float) -> float | None:
    return None if value == inf else 1e3 * value


def _kept_as_it_is(module: nn.Module, calls: Sequence[Call]) -> str:
    """Why a layer is given no plans."""
    if kind_of(module) is None:
        return "left as it is: its forward is its own"
    if any(len(call.shape) != axes_of(module) + 2 for call in calls):
        return "left as it is: it was called without a batch"
    if getattr(module, "return_indices", False):
        return "left as it is: it returns its switches too"
    return ""


def _looks(module: Any) -> tuple[Any, ...]:
    """What layers that cost the same have in common."""
    names = ("stride", "padding", "dilation", "groups", "output_padding", "padding_mode", "kernel_size", "ceil_mode",
             "output_size", "return_indices", "norm_type", "count_include_pad", "divisor_override")  # fmt: skip
    parameters = tuple((tuple(p.shape), p.dtype, p.requires_grad) for p in module.parameters())
    return (kind_of(module), own_class(module), *(getattr(module, name, None) for name in names), parameters)


class _Alone:
    """A layer by itself, on numbers of the shape that it was called with."""

    def __init__(self, module: Any, call: Call, layout: str, gradients: bool) -> None:
        self.module, self.gradients = module, gradients
        self.x = call.example(layout).requires_grad_(gradients and call.differentiated)
        leaves = [self.x, *module.parameters()]
        self.leaves = [leaf for leaf in leaves if leaf.requires_grad] if gradients else []
        with torch.no_grad():
            self.gradient = torch.randn_like(self._own())

    def _own(self) -> Tensor:
        kind: Any = kind_of(self.module)
        if isinstance(self.module, CONVOLUTIONS):
            return kind._conv_forward(self.module, self.x, self.module.weight, self.module.bias)
        return kind.forward(self.module, self.x)

    def own(self) -> list[Tensor]:
        """The step as PyTorch computes it."""
        return self._step(self._own)

    def planned(self) -> list[Tensor]:
        """The step as the layer computes it now."""
        return self._step(lambda: self.module.forward(self.x))

    def _step(self, forward: Callable[[], Tensor]) -> list[Tensor]:
        if not self.leaves:
            with torch.no_grad():
                return [forward()]
        y = forward()
        return [y, *torch.autograd.grad(y, self.leaves, self.gradient)]

    def error(self) -> float:
        """The largest error of output and gradients."""
        return max(error(a, b) for a, b in zip(self.planned(), self.own(), strict=True))
