"""Plans: what they print, what they refuse, and that a call does what its plan says."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import striate
from striate import estimates, machine, planning, policy, races, wisdom
from striate.computing import ALGORITHMS, DIRECTIONS, Base, Problem, find
from striate.errors import AlgorithmError, GeometryError, UnknownNameError
from striate.geometry import Axis, Geometry
from striate.planning import automatic, choose, choose_all

FOUR_AXES = "the window has 4 spatial axes; PyTorch has kernels for 1 to 3."


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only two algorithms for convolutions, so that a printed plan does not grow with the package."""
    for name in set(ALGORITHMS["convolution"]) - {"vendor", "reference"}:
        monkeypatch.delitem(ALGORITHMS["convolution"], name)


# -------------------------------------------------------------------------------------------------------------- printed


def test_a_plan_prints_what_it_chose_and_what_else_could(few: None) -> None:
    """8 examples of 128 x 56 x 56 values, each a sum of 64 x 3 x 3 products."""
    plan = striate.plan((8, 64, 56, 56), (128, 64, 3, 3), padding=(2, 0))
    assert (plan.problem.output_size, 8 * 128 * 58 * 54 * 64 * 9) == ((58, 54), 1_847_328_768)
    assert str(plan) == (
        "vendor: convolution, 1,847,328,768 multiply-adds\n  or reference: 1,847,328,768 multiply-adds"
    )  # fmt: skip


def test_a_plan_prints_who_refused_and_why(few: None) -> None:
    plan = striate.plan((1, 4, 8, 8, 8, 8), (3, 4, 1, 1, 1, 1))
    assert str(plan) == f"reference: convolution, {3 * 8**4 * 4:,} multiply-adds\n  not vendor: {FOUR_AXES}"
    assert str(plan).startswith("reference: convolution, 49,152 multiply-adds")


def test_a_plan_of_a_pooling_counts_reads() -> None:
    """9 inputs in windows of 2 with stride 2: 4 outputs, each of 2 taps."""
    plain = Problem("maximum", Geometry.window(1, 2, stride=2), 1, 1, 1, (9,), torch.float32)
    assert str(choose(plain)).startswith("vendor: maximum, 8 reads\n")
    dilated = Problem("sum", Geometry.window(2, 3, dilation=2), 2, 3, 3, (9, 9), torch.float32)
    assert "\n  not vendor: the window is dilated; PyTorch's mean poolings are not." in str(choose(dilated))


def test_an_algorithm_asked_for_by_name_is_the_one_and_the_others_stay_visible(few: None) -> None:
    plan = striate.plan((1, 2, 5), (3, 2, 3), algorithm="reference")
    assert plan.algorithm == "reference"
    assert str(plan) == "reference: convolution, 54 multiply-adds\n  or vendor: 54 multiply-adds"
    assert plan.estimates == (("vendor", None), ("reference", None))


# ---------------------------------------------------------------------------------------------------------------- value


def test_a_plan_is_a_frozen_value() -> None:
    plan = striate.plan([1, 2, 5], torch.Size([3, 2, 3]))
    same: Any = striate.plan((1, 2, 5), (3, 2, 3), device=torch.device("cpu"), dtype=torch.float32)
    assert (plan, hash(plan)) == (same, hash(same))
    with pytest.raises(FrozenInstanceError):
        same.algorithm = "reference"
    assert "vendor" not in dict(plan.refusals)
    assert isinstance(plan, striate.Plan)


def test_what_a_plan_is_for_is_in_its_problem() -> None:
    plan = striate.plan(
        (2, 4, 9, 8), (6, 2, 3, 3), stride=(2, 1), padding="same", dilation=2, groups=2,
        dtype=torch.bfloat16, device="meta",
    )  # fmt: skip
    # height: outputs 5, total 4 * 2 + 5 - 9 = 4; width: stride 1, total 5 - 1 = 4
    window = Geometry((Axis(3, 2, 2, 2, 2), Axis(3, 1, 2, 2, 2)), groups=2)
    assert plan.problem == Problem("convolution", window, 2, 4, 6, (9, 8), torch.bfloat16, "meta")


@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda", 2)])
def test_a_plan_needs_no_such_device_and_is_that_of_the_call(device: str | torch.device) -> None:
    """A call names the kind of its device only, so that its plan is found again."""
    assert striate.plan((1, 2, 5), (3, 2, 3), device=device).problem.device == "cuda"


def test_the_order_of_preference() -> None:
    """The vendor first, so that a tie goes to it; the reference after all that work as exactly."""
    for operation, registered in ALGORITHMS.items():
        problem = Problem(operation, Geometry.window(2, 3), 1, 2, 2, (5, 5), torch.float32)
        names = [name for name, _ in choose(problem).estimates]
        exact = [name for name in names if registered[name].exact and not registered[name].by_name]
        assert (names[0], exact[0], exact[-1]) == ("vendor", "vendor", "reference")
        between = [registered[name].estimate(problem) or 0 for name in exact[1:-1]]
        assert between == sorted(between)


# ----------------------------------------------------------------------------------------------------------- directions


def test_directions_share_the_window_and_say_what_is_solved_for() -> None:
    """x is 5x4x9, weights 6x2x3 in two groups, stride 2, padding 1: 5 outputs."""
    shapes: Any = ((5, 4, 9), (6, 2, 3))
    options: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2, "dtype": torch.float64}
    window = Geometry((Axis(3, 2, 1, 1, 1),), 2)
    for direction in DIRECTIONS:
        asked = striate.plan(*shapes, **options, direction=direction).problem
        assert asked == Problem("convolution", window, 5, 4, 6, (9,), torch.float64, "cpu", direction=direction)
        assert asked.output_size == (5,)
    assert striate.plan(*shapes, **options).problem.window == window
    back = striate.plan(*shapes, **options, direction="input_gradient").problem.window
    assert back == Geometry((Axis(3, 2, 1, 1, 1),), 2, transposed=True)


def test_directions_of_a_transposed_convolution() -> None:
    """x is 5x4x3, weights 4x3x2 (2 x 3 outputs in two groups), stride 2: 6 outputs, which are the window's inputs."""
    shapes: Any = ((5, 4, 3), (4, 3, 2))
    problems = [
        striate.plan(*shapes, stride=2, groups=2, transposed=True, direction=direction).problem
        for direction in DIRECTIONS
    ]
    window = Geometry((Axis(2, 2),), 2)
    own = Problem("convolution", window, 5, 6, 4, (6,), torch.float32, direction="input_gradient")
    assert problems == [own, replace(own, direction="forward"), replace(own, direction="weight_gradient")]


def test_output_padding_is_planned() -> None:
    plan = striate.plan((1, 4, 3), (4, 3, 3), stride=2, padding=1, output_padding=1, transposed=True)
    assert plan.problem.size == (6,)
    assert plan.problem.geometry == Geometry((Axis(3, 2, 1, 1, 0),))


def test_weights_with_a_period_are_planned() -> None:
    plan = striate.plan((2, 3, 9, 8), (2, 4, 5, 3, 3, 1))
    assert plan.problem.geometry.period == (2, 4)
    assert dict(plan.refusals)["vendor"] == (
        "the weights repeat with period (2, 4); PyTorch's convolutions share them with period 1."
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_direction_costs_the_same_multiply_adds(direction: str, few: None) -> None:
    """Every product is used once in each of the three."""
    plan = striate.plan((2, 4, 9, 8), (6, 2, 3, 2), stride=(2, 3), groups=2, direction=direction)
    towards = "" if direction == "forward" else f", {direction.replace('_', ' ')}"
    assert str(plan).split("\n") == [
        f"vendor: convolution{towards}, 1,728 multiply-adds",
        "  or reference: 1,728 multiply-adds",
    ]
    assert 2 * 6 * 4 * 3 * 2 * 6 == 1728


class Forward(Base):
    """The reference, but only forward."""

    def refuses(self, problem: Problem) -> str | None:
        return None if problem.direction == "forward" else "it only goes forward."

    def run(self, first: Tensor, second: Tensor | None, problem: Problem) -> Tensor:
        return find("convolution", "reference").run(first, second, problem)


def test_a_name_serves_the_directions_that_it_can_and_leaves_the_others_to_their_plans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ALGORITHMS["convolution"], "ahead", Forward())
    forward = striate.plan((1, 2, 5), (3, 2, 3), algorithm="ahead").problem
    plans = choose_all(forward, "ahead")
    chosen = [plans.forward.algorithm, plans.input_gradient.algorithm, plans.weight_gradient.algorithm]
    assert chosen == ["ahead", "vendor", "vendor"]
    back = striate.plan((1, 2, 5), (3, 2, 3), algorithm="ahead", direction="weight_gradient")
    assert back == plans.weight_gradient
    assert dict(back.refusals)["ahead"] == "it only goes forward."


class Inexact(Forward):
    """One that rounds otherwise."""

    exact = False

    def estimate(self, problem: Problem) -> int | None:
        return 1


class Unsure(Forward):
    """One whose work depends on the values."""

    def estimate(self, problem: Problem) -> int | None:
        return None


def test_who_rounds_otherwise_or_knows_no_estimate_is_not_chosen(monkeypatch: pytest.MonkeyPatch, few: None) -> None:
    monkeypatch.setitem(ALGORITHMS["convolution"], "quick", Inexact())
    monkeypatch.setitem(ALGORITHMS["convolution"], "unsure", Unsure())
    plan = striate.plan((1, 4, 8, 8, 8, 8), (3, 4, 1, 1, 1, 1))
    assert str(plan) == (
        "reference: convolution, 49,152 multiply-adds\n"
        "  or quick: 1 multiply-adds\n"
        "  or unsure: known once it sees the weights\n"
        f"  not vendor: {FOUR_AXES}"
    )


# --------------------------------------------------------------------------------------- a call does what its plan says


class Spy(Base):
    """The reference under another name, which writes down every problem that it is given."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.reference = ALGORITHMS["convolution"]["reference"]

    def run(self, x: Tensor, prepared: Tensor | None, problem: Problem) -> Tensor:
        self.problems.append(problem)
        return self.reference.run(x, prepared, problem)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy = Spy()
    monkeypatch.setitem(ALGORITHMS["convolution"], "spy", spy)
    return spy


OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": (2, 3), "padding": ((1, 0), (0, 2)), "groups": 2},
    {"padding": "same", "stride": 2, "dilation": (1, 2)},
    {"padding": "full", "groups": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_call_solves_the_problems_of_its_three_plans(options: dict[str, Any], spy: Spy) -> None:
    groups = options.get("groups", 1)
    x = torch.ones(2, 4, 7, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(8, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    y = striate.conv(x, weight, algorithm="spy", **options)
    y.sum().backward()
    plans = [
        striate.plan(x.shape, weight.shape, dtype=x.dtype, direction=direction, algorithm="spy", **options)
        for direction in DIRECTIONS
    ]
    assert [plan.algorithm for plan in plans] == ["spy"] * 3
    assert spy.problems == [plan.problem for plan in plans]
    assert tuple(y.shape[2:]) == plans[0].problem.output_size


def test_only_the_gradients_that_are_needed_are_computed(spy: Spy) -> None:
    x, weight = torch.ones(1, 2, 5), torch.ones(3, 2, 3, requires_grad=True)
    striate.conv(x, weight, algorithm="spy").sum().backward()
    assert [problem.direction for problem in spy.problems] == ["forward", "weight_gradient"]
    spy.problems.clear()
    striate.conv(x.requires_grad_(), weight.detach(), algorithm="spy").sum().backward()
    assert [problem.direction for problem in spy.problems] == ["forward", "input_gradient"]


def kernels(run: Callable[[], Any]) -> tuple[Any, list[str]]:
    """The result, and the names of the kernels that PyTorch ran for it."""
    names: list[str] = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(func.overloadpacket.__name__)
            return func(*args, **kwargs or {})

    recording: Any = Calls
    with recording():
        return run(), names


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"padding": "full", "dilation": 2}], ids=str)
def test_a_vendor_s_plan_is_one_call_of_torch_s_own_forward_and_backward(options: dict[str, Any]) -> None:
    x, weight = torch.ones(2, 4, 7, 8, requires_grad=True), torch.ones(8, 4, 3, 3, requires_grad=True)
    bias = torch.ones(8, requires_grad=True)
    assert striate.plan(x.shape, weight.shape, **options).algorithm == "vendor"
    y, names = kernels(lambda: striate.conv(x, weight, bias, **options))
    assert names == ["convolution"]
    _, names = kernels(lambda: y.backward(torch.ones_like(y)))
    assert [name for name in names if "convolution" in name] == ["convolution_backward"]


# ------------------------------------------------------------------------------------------------------------- refusals

SHAPES = (
    "must be (N, C, *spatial) and (O, C/groups, *K), or (*period, O, C/groups, *K), "
    "with the same number of spatial axes, at least one."
)
WIDE = "On spatial axis 0: the window spans 3 inputs (kernel=3, dilation=1), but input and padding have 2 + 0 + 0 = 2;"
GROUPS = "groups=2 does not divide the 3 output channels; both channel counts must be multiples of the groups."

GEOMETRY_REFUSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], str]] = [
    ((1, 4, 8), (3, 4, 3, 3, 3), {}, f"x_shape=(1, 4, 8) and weight_shape=(3, 4, 3, 3, 3) {SHAPES}"),
    ((1, 4), (3, 4), {}, f"x_shape=(1, 4) and weight_shape=(3, 4) {SHAPES}"),
    ((1, 4, 8), (3, 2, 3), {}, "weight_shape=(3, 2, 3) takes 2 channels, x has 4."),
    ((1, 4, 8), (4, 4, 3), {"groups": 2}, "weight_shape=(4, 4, 3) takes 8 channels, x has 4."),
    ((1, 4, 8), (3, 2, 3), {"groups": 2}, GROUPS),
    ((1, 4, 8), (3, 4, 3), {"stride": 0}, "stride must be at least 1, got stride=0."),
    ((1, 4, 8), (3, 4, 3), {"padding": (1, 2)}, "padding=(1, 2) has 2 entries; this window has 1 spatial axis."),
    ((1, 4, 2), (3, 4, 3), {}, f"{WIDE} give a larger input, more padding or a smaller kernel."),
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("x", "weight", "options", "message"), GEOMETRY_REFUSED)
def test_shapes_that_do_not_fit(
    x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], message: str, direction: str
) -> None:
    with pytest.raises(GeometryError) as caught:
        striate.plan(x, weight, direction=direction, **options)
    assert str(caught.value) == message


ALGORITHM_NAMES = f"Known: {', '.join(striate.algorithms())}."
DIRECTION_NAMES = "Known: forward, input_gradient, weight_gradient."
UNKNOWN = [
    ({"direction": "backward"}, f"No direction is called 'backward'. {DIRECTION_NAMES}"),
    ({"direction": "foreward"}, f"No direction is called 'foreward'. Did you mean 'forward'? {DIRECTION_NAMES}"),
    ({"algorithm": "zzz"}, f"No algorithm is called 'zzz'. {ALGORITHM_NAMES}"),
    ({"algorithm": "referense"}, f"No algorithm is called 'referense'. Did you mean 'reference'? {ALGORITHM_NAMES}"),
    ({"padding": "SAME"}, "No padding is called 'SAME'. Known: causal, full, same, same_lower, valid."),
]


@pytest.mark.parametrize(("options", "message"), UNKNOWN)
def test_unknown_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        striate.plan((1, 4, 8), (3, 4, 3), **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_algorithm_that_refuses_says_why_in_every_direction(direction: str) -> None:
    with pytest.raises(AlgorithmError) as caught:
        striate.plan((1, 2, 3, 3, 3, 3), (2, 2, 1, 1, 1, 1), algorithm="vendor", direction=direction)
    assert str(caught.value) == f"algorithm='vendor' cannot serve this convolution: {FOUR_AXES}"


def test_when_all_refuse_all_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(ALGORITHMS["convolution"]):
        monkeypatch.delitem(ALGORITHMS["convolution"], name)
    monkeypatch.setitem(ALGORITHMS["convolution"], "ahead", Forward())
    back = Problem("convolution", Geometry.window(1, 3), 1, 2, 3, (9,), direction="input_gradient")
    with pytest.raises(AlgorithmError) as caught:
        choose(back)
    assert str(caught.value) == "no algorithm serves this convolution. ahead: it only goes forward."


# ------------------------------------------------------------------------------------------- measured and estimated


class Races:
    """Races whose results are written down beforehand."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.problems, self.took = seconds, [], 0.0

    problems: list[Problem]

    def __call__(self, problem: Problem, names: Any, limit: float) -> dict[str, float]:
        self.problems.append(problem)
        return {name: self.seconds[name] for name in names}

    def clock(self) -> float:
        return len(self.problems) * self.took


@pytest.fixture
def timed(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Races:
    """The vendor takes a second, "quick", which rounds, and "late" half of it."""
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "calibrated", machine.ceilings)
    found = Races({"vendor": 1.0, "quick": 0.25, "late": 0.5})
    monkeypatch.setattr(races, "seconds", found)
    monkeypatch.setattr(planning, "perf_counter", found.clock)
    monkeypatch.setitem(ALGORITHMS["convolution"], "quick", Inexact())
    monkeypatch.setitem(ALGORITHMS["convolution"], "late", Late())
    return found


class Late(Forward):
    """One that is neither sure of its bits nor small."""

    deterministic = False

    def workspace(self, problem: Problem) -> int:
        return 1000


SHAPES_OF_A_CALL = ((1, 2, 5), (3, 2, 3))


def test_a_measured_plan_takes_the_fastest_and_says_so(timed: Races) -> None:
    with striate.tuning("measure"):
        plan = striate.plan(*SHAPES_OF_A_CALL)
    assert str(plan) == (
        "quick: convolution, measured 250 ms\n  or late: measured 500 ms\n  or vendor: measured 1 s\n"
        "  or reference: 54 multiply-adds"
    )
    assert plan.estimates == (("quick", 0.25), ("late", 0.5), ("vendor", 1.0), ("reference", None))
    assert plan.to_dict()["measured"] == ["late", "quick", "vendor"]


def test_what_was_measured_is_used_ever_after_and_not_measured_again(timed: Races) -> None:
    with striate.tuning("measure"):
        assert [striate.plan(*SHAPES_OF_A_CALL).algorithm for _ in range(2)] == ["quick", "quick"]
    assert len(timed.problems) == 3  # one for each direction
    assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "quick"
    with striate.tuning("frozen"):
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "quick"
    wisdom._opened.cache_clear()  # as another process would find it
    assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "quick"
    assert len(timed.problems) == 3
    assert striate.plan((2, 2, 5), (3, 2, 3)).algorithm == "vendor"


def test_a_tie_goes_to_the_vendor(timed: Races) -> None:
    timed.seconds |= {"quick": 0.96, "late": 1.0}
    with striate.tuning("measure"):
        plan = striate.plan(*SHAPES_OF_A_CALL)
    assert [name for name, _ in plan.estimates] == ["vendor", "quick", "late", "reference"]


def test_a_new_algorithm_is_raced_and_a_removed_one_forgotten(timed: Races, monkeypatch: pytest.MonkeyPatch) -> None:
    with striate.tuning("measure"):
        striate.plan(*SHAPES_OF_A_CALL)
        monkeypatch.setitem(ALGORITHMS["convolution"], "newer", Inexact())
        timed.seconds["newer"] = 0.125
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "newer"
    monkeypatch.delitem(ALGORITHMS["convolution"], "newer")
    assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "quick"


def learn_elsewhere(plan: striate.Plan) -> None:
    """Another process finds "late" the fastest for the problem of a plan."""
    path = wisdom.opened().path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(wisdom._line(planning.key(plan.problem, torch.get_num_threads()), {"vendor": 1.0, "late": 0.5}))


def test_frozen_never_measures_and_never_changes(timed: Races) -> None:
    with striate.tuning("frozen") as frozen:
        before = striate.plan(*SHAPES_OF_A_CALL)
        assert before.algorithm == "vendor"
        learn_elsewhere(before)
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "vendor"
    assert timed.problems == []
    assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "late"
    with policy.Tuning(frozen):
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "vendor"
        planning._choose.cache_clear()  # as if other problems had taken its place
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "vendor"
    with striate.tuning("frozen"):  # a new call starts from what is known by now
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "late"


def test_frozen_does_not_see_what_this_process_measures_later(timed: Races) -> None:
    with striate.tuning("frozen"):
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "vendor"
        with striate.tuning("measure"):
            assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "quick"
        assert striate.plan(*SHAPES_OF_A_CALL).algorithm == "vendor"
        assert striate.plan((2, 2, 5), (3, 2, 3)).algorithm == "vendor"


def test_what_another_process_learned_is_seen_by_a_new_plan_and_then_by_every_one(timed: Races) -> None:
    known = striate.plan(*SHAPES_OF_A_CALL)
    learn_elsewhere(known)
    assert choose(known.problem).algorithm == "vendor"  # a call of a known problem does not look at the file
    choose(replace(known.problem, batch=7))
    assert choose(known.problem).algorithm == "late"


def test_settings_of_pytorch_that_change_its_kernels_have_records_of_their_own() -> None:
    problem = striate.plan(*SHAPES_OF_A_CALL).problem
    known = planning.key(problem, 1)
    for name, value in (("allow_tf32", False), ("benchmark", True), ("deterministic", True), ("enabled", False)):
        with torch.backends.cudnn.flags(**({"enabled": True, "allow_tf32": True} | {name: value})):
            assert planning.key(problem, 1) != known, name
    assert planning.key(problem, 1) == known


def test_a_spent_budget_leaves_estimates_that_say_so(timed: Races) -> None:
    timed.took = 4.0
    with striate.tuning("measure", budget=10):
        plans = [striate.plan((n, 2, 5), (3, 2, 3)) for n in (1, 2)]
    assert [plan.algorithm for plan in plans] == ["quick", "vendor"]
    assert len(timed.problems) == 3
    assert str(plans[1]).endswith("\n  estimated: the time budget is spent")
    assert plans[1].note == "the time budget is spent"


def test_many_sizes_of_one_window_are_not_timed_for_ever(timed: Races) -> None:
    with striate.tuning("measure"):
        plans = [striate.plan((1, 2, n), (3, 2, 3)) for n in range(5, 5 + planning.VARIANTS + 2)]
    assert [plan.algorithm for plan in plans] == ["quick"] * planning.VARIANTS + ["vendor"] * 2
    assert plans[-1].note == "32 sizes of this window were timed"
    with striate.tuning("measure"):  # a new call starts anew
        assert striate.plan((1, 2, 99), (3, 2, 3)).algorithm == "quick"


def test_a_call_measures_and_a_traced_one_does_not(timed: Races) -> None:
    x, weight = torch.ones(1, 2, 5), torch.ones(3, 2, 3)
    with striate.tuning("measure"):
        with FakeTensorMode() as fake:
            striate.conv(fake.from_tensor(x), fake.from_tensor(weight))
        torch.func.grad(lambda x: striate.conv(x, weight).sum())(x)
        assert timed.problems == []
        striate.conv(x, weight)
    assert [problem.direction for problem in timed.problems] == list(DIRECTIONS)


BARRED = [
    (
        {"tolerance": 1e-7},
        "quick",
        "its expected error is 1.0e-06 of the output's root mean square; the tolerance is 1e-07.",
    ),
    ({"deterministic": True}, "late", "its bits change from run to run; the policy asks for determinism."),
    ({"workspace": 999}, "late", "it needs 1,000 bytes of workspace; the policy allows 999."),
]


@pytest.mark.parametrize(("options", "name", "sentence"), BARRED)
def test_the_policy_is_a_filter_with_sentences(timed: Races, options: Any, name: str, sentence: str) -> None:
    with striate.tuning("measure", **options):
        plan = striate.plan(*SHAPES_OF_A_CALL)
        assert dict(plan.refusals) == {name: sentence}
        assert plan.algorithm == {"quick": "late", "late": "quick"}[name]
        assert striate.plan(*SHAPES_OF_A_CALL, algorithm=name).algorithm == name  # a name is a wish
    assert name in dict(striate.plan(*SHAPES_OF_A_CALL).estimates)


def test_tolerance_is_of_float32() -> None:
    def barred(name: str, dtype: torch.dtype, channels: int = 512) -> str | None:
        window = Geometry.window(2, 3, padding=1)
        problem = Problem("convolution", window, 1, channels, 8, (8, 8), dtype)
        return planning.barred(problem, name)

    assert [barred(name, torch.float32) for name in ("fft", "winograd2", "winograd4")] == [None] * 3
    with striate.tuning("estimate", tolerance=1e-5):
        assert barred("winograd2", torch.float32) is None
        assert barred("winograd4", torch.float32) == (
            "its expected error is 9.6e-05 of the output's root mean square; the tolerance is 1e-05."
        )
        assert barred("winograd4", torch.float16) is None
        assert barred("winograd4", torch.float64) is None
        assert barred("winograd4", torch.complex64) is not None
    assert barred("winograd4", torch.float64, channels=10**9) is not None


def estimated(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], problem: Problem) -> None:
    row = estimates.row(problem, seconds, machine.SHIPPED)
    race = estimates.Race(tuple(row["kind"]), tuple(row["place"]), row["shares"], row["relative"])
    table = estimates.Table([race])
    monkeypatch.setattr(estimates, "shipped", lambda: table)
    planning._choose.cache_clear()


@pytest.mark.parametrize(("quick", "chosen"), [(0.5, "quick"), (0.86, "quick"), (0.88, "vendor"), (1.5, "vendor")])
def test_an_estimate_must_beat_the_vendor_clearly(
    timed: Races, monkeypatch: pytest.MonkeyPatch, quick: float, chosen: str
) -> None:
    problem = striate.plan(*SHAPES_OF_A_CALL).problem
    estimated(monkeypatch, {"vendor": 1.0, "quick": quick}, problem)
    plan = striate.plan(*SHAPES_OF_A_CALL)
    assert plan.algorithm == plan.estimates[0][0] == chosen
    assert str(plan).startswith(f"{chosen}: convolution, estimated ")
    assert striate.plan((1, 2, 10**6), (3, 2, 3)).algorithm == "vendor"  # nothing near is known
    assert timed.problems == []
    planning._choose.cache_clear()


def test_an_exported_graph_keeps_to_pytorch_s_own(timed: Races, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated(monkeypatch, {"vendor": 1.0, "quick": 0.1}, striate.plan(*SHAPES_OF_A_CALL).problem)

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor) -> Tensor:
            return striate.conv(x, weight)

    program = torch.export.export(Layer(), (torch.ones(1, 2, 5), torch.ones(3, 2, 3)))
    assert any("conv1d" in str(node.target) for node in program.graph.nodes)
    planning._choose.cache_clear()


def test_the_layout_of_the_input_is_part_of_the_problem(spy: Spy) -> None:
    x = torch.ones(2, 4, 7, 8).contiguous(memory_format=torch.channels_last)
    striate.conv(x, torch.ones(3, 4, 3, 3), algorithm="spy")
    assert [problem.layout for problem in spy.problems] == ["channels_last"]
    asked = striate.plan(x.shape, (3, 4, 3, 3), layout="channels_last", algorithm="spy").problem
    assert spy.problems == [asked]
    with pytest.raises(UnknownNameError, match="No layout is called 'last'"):
        striate.plan(x.shape, (3, 4, 3, 3), layout="last")


def test_a_plan_that_has_computed_is_still_a_value() -> None:
    plan = striate.plan((1, 4, 8, 8), (4, 4, 3, 3))
    striate.conv(torch.randn(1, 4, 8, 8), torch.randn(4, 4, 3, 3), algorithm="im2col")
    assert callable(plan.solve)
    assert str(pickle.loads(pickle.dumps(plan))) == str(plan)


@pytest.mark.parametrize(("layout", "company"), [("channels_first", True), ("channels_last", False)])
def test_the_vendor_s_own_call_by_another_name_is_no_choice(layout: str, company: bool) -> None:
    problem = Problem(
        "convolution", Geometry.window(2, 3), 1, 4, 4, (8, 8), torch.float32, "cpu", layout=layout
    )  # fmt: skip
    for names in (["vendor", "channels_last"], ["channels_last"]):
        assert ("channels_last" in automatic(problem, names)) is company
