"""A plan is a value that can be printed: which algorithm was chosen for a problem, what each costs, and why not others.

A measured record decides; where there is none, the table of :mod:`striate.estimates`, and it must show a clear gain
over the vendor, to whom ties go.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from . import estimates, machine, races, wisdom
from .computing import ALGORITHMS, DIRECTIONS, LAYOUTS, Problem, bound, find
from .errors import AlgorithmError, GeometryError, unknown_name
from .geometry import Geometry
from .policy import Policy, current

TIE = 0.95  # of the vendor's measured time: an algorithm that takes more does not replace it
MARGIN = 1.15  # times as fast as the vendor must an algorithm be that was only estimated
VARIANTS = 32  # sizes of one window that are timed; the others are estimated
CALL = 2e-5  # seconds of Python that any other than the vendor's costs, whatever the size
SHARE = 20  # one problem's share of the time budget is a twentieth
FLOAT64 = 2.0**-29  # its rounding over float32's
SPENT = "the time budget is spent"
VARIED = f"{VARIANTS} sizes of this window were timed"

Seconds = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Plan:
    """The decision for one problem. Print it to see why.

    Args:
        algorithm: Name of the chosen algorithm.
        problem: What it computes.
        measured: ``(name, seconds)`` of each that was timed on this machine.
        note: Why nothing was timed although that was asked for.
    """

    algorithm: str
    problem: Problem
    measured: Seconds = ()
    note: str | None = None

    @cached_property
    def solve(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The algorithm, bound to a problem with weights."""
        return bound(self.algorithm, self.problem)

    def __getstate__(self) -> dict[str, Any]:
        """Plans are values: what was bound is made again where it is needed."""
        return {name: value for name, value in vars(self).items() if name != "solve"}

    @property
    def refusals(self) -> tuple[tuple[str, str], ...]:
        """``(name, sentence)`` of each algorithm that cannot serve, or that the policy does not admit."""
        reasons = _reasons(self.problem, _registered(self.problem))
        return tuple((name, reason) for name, reason in reasons.items() if reason)

    @property
    def estimates(self) -> tuple[tuple[str, float | None], ...]:
        """``(name, seconds)`` of each that can, in the order of preference: as measured, or else as estimated.

        None where nothing is known of an algorithm near the problem; its work decides then.
        """
        return tuple((name, seconds) for name, seconds, _ in self._ranked())

    def _ranked(self) -> list[tuple[str, float | None, bool]]:
        problem, timed = self.problem, dict(self.measured)
        reasons = _reasons(problem, _registered(problem))
        able = [name for name, reason in reasons.items() if reason is None]
        limits = machine.ceilings()
        rows = [(n, timed[n] if n in timed else _table().seconds(problem, n, limits), n in timed) for n in able]
        promising = {*timed, *_table().promising(problem)} if "vendor" in able else set(able)
        return sorted(rows, key=lambda row: _rank(problem, row[0], row[1], row[0] in promising))

    def __str__(self) -> str:
        problem = self.problem
        towards = "" if problem.direction == "forward" else f", {problem.direction.replace('_', ' ')}"
        words = {name: _words(problem, name, seconds, timed) for name, seconds, timed in self._ranked()}
        lines = [f"{self.algorithm}: {problem.operation}{towards}, {words[self.algorithm]}"]
        lines += [f"  or {name}: {cost}" for name, cost in words.items() if name != self.algorithm]
        lines += [f"  not {name}: {reason}" for name, reason in self.refusals]
        return "\n".join(lines + ([f"  estimated: {self.note}"] if self.note else []))

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return {
            "operation": self.problem.operation,
            "direction": self.problem.direction,
            "algorithm": self.algorithm,
            "estimates": dict(self.estimates),
            "measured": [name for name, _ in self.measured],
            "refusals": dict(self.refusals),
            "note": self.note,
        }


def _words(problem: Problem, name: str, seconds: float | None, measured: bool) -> str:
    if seconds is not None:
        return f"{'measured' if measured else 'estimated'} {_time(seconds)}"
    work = find(problem.operation, name).estimate(problem)
    unit = "multiply-adds" if problem.operation == "convolution" else "reads"
    return "known once it sees the weights" if work is None else f"{work:,} {unit}"


def _time(seconds: float) -> str:
    """Three digits.

    >>> _time(0.0012), _time(3.21e-5), _time(2)
    ('1.2 ms', '32.1 µs', '2 s')
    """
    unit, size = next((pair for pair in (("s", 1.0), ("ms", 1e-3)) if seconds >= pair[1]), ("µs", 1e-6))
    return f"{seconds / size:.3g} {unit}"


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of one convolution, one for each of its tensors that may be solved for.

    Args:
        forward: For the output.
        input_gradient: For the input.
        weight_gradient: For the weights.
        algorithm: The name that was asked for, if any.
    """

    forward: Plan
    input_gradient: Plan
    weight_gradient: Plan
    algorithm: str | None


def choose(problem: Problem, algorithm: str | None = None) -> Plan:
    """The plan for a problem: the fastest that does not refuse, or the algorithm asked for.

    What was measured decides, with the same number of threads and under the same policy, and with the rigor "measure"
    it is measured now. Else an algorithm takes the vendor's place where the table says that it is clearly faster. Where
    the vendor refuses, the least estimate comes first, then the least work, then the reference.

    Raises:
        UnknownNameError: No algorithm carries the name asked for.
        AlgorithmError: The algorithm asked for refuses, or all do; their sentences say why.
    """
    return _choose(problem, algorithm, _registered(problem), _plain(), *state(problem.policy)[1:])


_threads = torch.get_num_threads  # looked up once, for every call asks


def state(policy: Policy | None = None) -> tuple[Policy, int, int, bool]:
    """What plans depend on besides the problem: policy, what was learned, threads, and whether races may be run now."""
    policy = policy or current()
    if policy.rigor == "estimate":
        return policy, wisdom.CHANGES.count, _threads(), False
    learned = 0 if policy.rigor == "frozen" else wisdom.CHANGES.count
    return policy, learned, _threads(), policy.rigor == "measure" and _may_race()


def choose_all(problem: Problem, algorithm: str | None = None) -> Plans:
    """The plans of a convolution and of its two gradients, each chosen by itself.

    An algorithm asked for by name must serve the problem's own direction. It serves the other two where it can; where
    it refuses, they are planned as if no name had been given.

    Raises:
        UnknownNameError: No algorithm carries the name asked for.
        AlgorithmError: The algorithm asked for refuses.
    """
    own = choose(problem, algorithm)
    plans = {problem.direction: own}
    for direction in DIRECTIONS:
        if direction not in plans:
            turned = replace(problem, direction=direction)
            able = algorithm is None or find(problem.operation, algorithm).refuses(turned) is None
            plans[direction] = choose(turned, algorithm if able else None)
    return Plans(**plans, algorithm=algorithm)


@lru_cache(maxsize=4096)
def _choose(
    problem: Problem,
    algorithm: str | None,
    registered: tuple[str, ...],
    plain: bool,
    changes: int,
    threads: int,
    races_now: bool,
) -> Plan:
    """The plan among the algorithms registered by now, with the wisdom of now."""
    operation = problem.operation
    if algorithm is not None:
        if reason := find(operation, algorithm).refuses(problem):
            raise AlgorithmError(f"algorithm={algorithm!r} cannot serve this {operation}: {reason}")
        return Plan(algorithm, problem)
    vendor = "vendor" in registered and find(operation, "vendor").refuses(problem) is None
    known, note = _known(problem, registered, threads, plain, races_now)
    if known:
        return Plan(_fastest(known), problem, known, note)
    if vendor:
        return Plan(_estimated(problem, registered) if plain else "vendor", problem, (), note)
    reasons = _reasons(problem, registered)
    able = automatic(problem, [name for name, reason in reasons.items() if reason is None])
    if not able:
        sentences = " ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        raise AlgorithmError(f"no algorithm serves this {operation}. {sentences}")
    limits = machine.ceilings()
    costs = {name: _table().seconds(problem, name, limits) if plain else None for name in able}
    return Plan(min(able, key=lambda name: _rank(problem, name, costs[name])), problem, (), note)


def _registered(problem: Problem) -> tuple[str, ...]:
    return tuple(sorted(ALGORITHMS[problem.operation]))


def _plain() -> bool:
    """Whether tensors are what they seem: nothing is exported, whose graph is to hold PyTorch's own operators only."""
    return not (torch.compiler.is_exporting() or torch._C._is_tracing())


@lru_cache(maxsize=1024)
def _reasons(problem: Problem, registered: tuple[str, ...]) -> dict[str, str | None]:
    """Why each algorithm cannot serve, or may not under the policy; None for those that can."""
    return {name: find(problem.operation, name).refuses(problem) or barred(problem, name) for name in registered}


def barred(problem: Problem, name: str) -> str | None:
    """Why the policy does not let plans take an algorithm that could serve, or None if it does."""
    found, policy = find(problem.operation, name), problem.policy
    if name == "vendor":
        return None
    error = found.error(problem)
    if error and problem.dtype.itemsize // (2 if problem.dtype.is_complex else 1) == 8:
        if error * FLOAT64 > 1e-12:
            return f"its expected error is {error * FLOAT64:.1e} of the output's root mean square; 1e-12 is admitted."
    elif error > policy.tolerance and problem.dtype.itemsize > 2:
        return (
            f"its expected error is {error:.1e} of the output's root mean square; "
            f"the tolerance is {policy.tolerance:.0e}."
        )
    if policy.deterministic and not found.deterministic:
        return "its bits change from run to run; the policy asks for determinism."
    room = found.workspace(problem)
    if room > policy.workspace:
        return f"it needs {room:,} bytes of workspace; the policy allows {policy.workspace:,}."
    return None


def automatic(problem: Problem, names: Sequence[str]) -> list[str]:
    """Those that plans take without being asked for by name, and without those that are the vendor's own call."""
    every = {name: find(problem.operation, name) for name in names}
    able = {name: one for name, one in every.items() if not one.by_name and one.estimate(problem) is not None}
    vendor = ALGORITHMS[problem.operation].get("vendor")
    serves = vendor is not None and vendor.refuses(problem) is None
    return [name for name, one in able.items() if not (serves and one.same(problem))]


def _rank(problem: Problem, name: str, seconds: float | None, promising: bool = True) -> tuple[Any, ...]:
    """Known costs first, then the vendor, then the others by their work, those on request and the reference last.

    Estimates without promise stand behind the vendor's, and so do those that do not beat it by the margin.
    """
    found = find(problem.operation, name)
    work = found.estimate(problem)
    cost = (seconds or 0.0) * (1.0 if name != "vendor" else TIE if promising else 1 / MARGIN)
    known = (seconds is None, not promising and name != "vendor", cost)
    return (
        found.by_name or work is None,
        *known,
        name != "vendor",
        not found.exact,
        name == "reference",
        work or 0,
        name,
    )


def _estimated(problem: Problem, registered: Sequence[str]) -> str:
    """The least estimate that is clearly under the vendor's, or the vendor."""
    names = [name for name in _table().promising(problem) if name in registered and name != "vendor"]
    if not names:
        return "vendor"
    limits = machine.ceilings()
    own = _table().seconds(problem, "vendor", limits)
    reasons = _reasons(problem, tuple(registered))
    able = automatic(problem, [name for name in names if reasons[name] is None])
    costs = {name: _table().seconds(problem, name, limits) for name in able}
    clear = {name: cost for name, cost in costs.items() if cost is not None and own and (cost + CALL) * MARGIN <= own}
    return min(clear, key=lambda name: (clear[name], name), default="vendor")


def _fastest(known: Seconds) -> str:
    """The least time; the vendor, if nothing is clearly under its."""
    seconds = dict(known)
    best = min(seconds, key=lambda name: (seconds[name], name))
    return "vendor" if seconds[best] > TIE * seconds.get("vendor", float("inf")) else best


def _known(
    problem: Problem, registered: tuple[str, ...], threads: int, plain: bool, races_now: bool
) -> tuple[Seconds, str | None]:
    """What was measured of those who may serve, now if the rigor says so; else nothing, and why."""
    policy = problem.policy
    record = wisdom.recall(key(problem, threads), policy, policy.wisdom) if plain else None
    races_now = races_now and plain
    if record is None and not races_now:
        return (), None
    reasons = _reasons(problem, registered)
    able = automatic(problem, [name for name, reason in reasons.items() if reason is None])
    if races_now and not set(able) - {"reference"} <= set(record or ()):
        if reason := _stopped(problem):
            return _of(able, record), reason
        record = _raced(problem, able, threads)
    return _of(able, record), None


def _of(able: Sequence[str], record: wisdom.Record | None) -> Seconds:
    """The record without those who may not serve; nothing, if it lacks a vendor who may."""
    found = tuple((name, record[name]) for name in able if name in record) if record else ()
    return found if "vendor" not in able or "vendor" in dict(found) else ()


def _may_race() -> bool:
    """Whether tensors made now are plain ones, and whether they are computed when asked for."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.utils._python_dispatch._get_current_dispatch_mode() is not None
    )


_VARIANTS: OrderedDict[Problem, set[tuple[Any, ...]]] = OrderedDict()


def _stopped(problem: Problem) -> str | None:
    """Why there is no race: the budget is spent, or the same window came with too many sizes."""
    policy = problem.policy
    if policy.account.spent >= policy.budget:
        return SPENT
    window = replace(problem, batch=1, size=problem.geometry.extent)
    seen = _VARIANTS.setdefault(window, set())
    _VARIANTS.move_to_end(window)
    if len(_VARIANTS) > 4096:
        _VARIANTS.popitem(last=False)
    size = (problem.batch, problem.size)
    if size not in seen and len(seen) >= VARIANTS:
        return VARIED
    seen.add(size)
    return None


def _raced(problem: Problem, able: Sequence[str], threads: int) -> wisdom.Record:
    """A race of all who may serve, the vendor first; the reference only where nobody else may."""
    policy = problem.policy
    machine.calibrated()
    names = [name for name in able if name != "reference"] or list(able)
    names.sort(key=lambda name: name != "vendor")
    limit = min(policy.budget / SHARE, policy.budget - policy.account.spent)
    start = perf_counter()
    record = races.seconds(problem, names, limit)
    policy.account.spent += perf_counter() - start
    wisdom.opened(policy.wisdom).keep(key(problem, threads), record)
    return record


def key(problem: Problem, threads: int) -> str:
    """All that a measurement depends on, as a text."""
    geometry = problem.geometry
    axes = [[a.kernel, a.stride, a.dilation, a.before, a.after, a.period] for a in geometry.axes]
    what = [
        problem.operation, problem.direction, problem.batch, problem.in_channels, problem.out_channels,
        problem.size, axes, geometry.groups, problem.divisor, str(problem.dtype), problem.layout,
    ]  # fmt: skip
    there = problem.device == "cuda" and torch.cuda.is_available()
    place = torch.cuda.get_device_name() if there else problem.device
    where = [place, threads, machine.name(), machine.instructions(), machine.versions(), machine.settings()]
    return json.dumps([what, problem.policy.admits, where], separators=(",", ":"))


def _table() -> estimates.Table:
    return estimates.shipped()


def plan(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    layout: str = "channels_first",
    direction: str = "forward",
    algorithm: str | None = None,
) -> Plan:
    """The plan of a convolution, before there is any tensor, with all that was measured by now, by any process.

    Args:
        x_shape: ``(N, C, *spatial)`` of the input.
        weight_shape: ``(O, C/groups, *K)`` of the weights; transposed ``(C, O/groups, *K)``; local or tiled
            ``(*period, O, C/groups, *K)``.
        stride: As in :func:`striate.conv`, likewise padding, dilation and groups.
        padding: See :func:`striate.conv`.
        dilation: See :func:`striate.conv`.
        groups: See :func:`striate.conv`.
        transposed: Plan :func:`striate.conv_transpose`.
        output_padding: See :func:`striate.conv_transpose`.
        dtype: Type of all tensors.
        device: Where the tensors are.
        layout: How the input lies in memory, "channels_first" or "channels_last".
        direction: "forward", "input_gradient" or "weight_gradient" of the call; each is planned by itself.
        algorithm: Ask for one by name. As in a call, it must serve the forward direction; a gradient that it refuses is
            planned without it.

    Raises:
        GeometryError: The shapes do not fit each other or the window.
        UnknownNameError: No such direction, layout or algorithm.
        AlgorithmError: The algorithm asked for refuses.

    >>> found = plan((2, 3, 9, 9, 9, 9), (4, 3, 3, 3, 3, 3))
    >>> found.algorithm, dict(found.refusals)["vendor"]
    ('im2col', 'the window has 4 spatial axes; PyTorch has kernels for 1 to 3.')
    """
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, output_padding=output_padding)
    window, channels, outputs = _window(x_shape, weight_shape, transposed, options)
    asked = pose(window, x_shape[0], channels, outputs, tuple(x_shape[2:]), dtype, torch.device(device).type, layout)
    if asked.policy.rigor != "frozen":
        wisdom.opened(asked.policy.wisdom).refresh()
    return getattr(choose_all(asked, algorithm), turn(asked.direction, direction))


def _window(
    x_shape: Sequence[int], weight_shape: Sequence[int], transposed: bool, options: dict[str, Any]
) -> tuple[Geometry, int, int]:
    """The window of shapes that fit each other, its input channels and its output channels."""
    axes = len(x_shape) - 2
    if axes < 1 or len(weight_shape) not in (axes + 2, 2 * axes + 2) or (transposed and len(weight_shape) > axes + 2):
        raise GeometryError(
            f"x_shape={tuple(x_shape)} and weight_shape={tuple(weight_shape)} must be (N, C, *spatial) "
            "and (O, C/groups, *K), or (*period, O, C/groups, *K), with the same number of spatial axes, at least one."
        )
    *period, first, second = weight_shape[:-axes]
    size, groups = tuple(x_shape[2:]), options["groups"]
    window = Geometry.window(
        axes, tuple(weight_shape[-axes:]), period=tuple(period) or 1, transposed=transposed,
        size=None if transposed else size, **options,
    )  # fmt: skip
    channels, outputs = (first, second * groups) if transposed else (second * groups, first)
    window.weight_shape(channels, outputs)
    if channels != x_shape[1] and period:
        raise GeometryError(
            f"x_shape={tuple(x_shape)} has {axes} spatial {'axis' if axes == 1 else 'axes'}, so weight_shape="
            f"{tuple(weight_shape)} is that of a tiled layer with period {tuple(period)}, which takes {channels} "
            f"channels; x has {x_shape[1]}."
        )
    if channels != x_shape[1]:
        raise GeometryError(f"weight_shape={tuple(weight_shape)} takes {channels} channels, x has {x_shape[1]}.")
    window.output_size(size)
    return window, channels, outputs


def pose(
    window: Geometry,
    batch: int,
    channels: int,
    outputs: int,
    size: tuple[int, ...],
    dtype: torch.dtype,
    device: str,
    layout: str = "channels_first",
) -> Problem:
    """The problem of a call: a transposed window asks for the input of the convolution that it is the adjoint of."""
    if not window.transposed:
        return Problem("convolution", window, batch, channels, outputs, size, dtype, device, layout=layout)
    return Problem(
        "convolution", window.adjoint(), batch, outputs, channels, window.output_size(size), dtype, device,
        direction="input_gradient", layout=layout,
    )  # fmt: skip


def turn(own: str, direction: str) -> str:
    """The direction of the problem that is the given direction of a call.

    >>> turn("input_gradient", "forward"), turn("input_gradient", "input_gradient")
    ('input_gradient', 'forward')
    """
    if own == "forward" or direction == "weight_gradient":
        return direction
    return {"forward": own, "input_gradient": "forward"}[direction]
