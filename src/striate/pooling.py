"""Poolings: the same sliding window, with a maximum, a mean or a norm in place of the sum of products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, isfinite, prod
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .borders import laid_like
from .computing import ALGORITHMS, Problem, find, layout_of, native_pools, passes, pools
from .computing.reference import accumulator
from .errors import GeometryError
from .geometry import Axis, Geometry, frozen, per_axis
from .graphs import fixed, whole
from .planning import choose, state
from .reductions import Planned, by_marks, largest, norm, places, select, total
from .taps import counts, require_real_reads

POOLINGS = tuple(ALGORITHMS[operation] for operation in ("maximum", "switches", "sum"))
GAIN = 1.25  # times the vendor's maximum one with marks may take, whose gradient makes up for it
MAX_POOL = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}


@whole
def max_pool(
    x: Tensor,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    ceil: bool = False,
    return_switches: bool = False,
) -> Any:
    """The largest value of each window; padding never wins.

        out[n, c, *o] = max over t of x[n, c, *(o * stride + t * dilation - before)]

    The gradient of a window goes to its switch, the place of its largest value (the first on a tie), and is the same on
    every run and every device.

    Args:
        x: ``(N, C, *spatial)``, or ``(C, *spatial)`` when ``kernel`` names as many axes as that has.
        kernel: Window size, one number per axis; a single number needs x with a batch.
        stride: Step between windows; None is the kernel itself.
        padding: A number, one number or ``(before, after)`` pair per axis, or a word; as wide as you like, as long as
            every window reads at least one real value.
        dilation: Step between taps.
        ceil: Also keep a last window that is only partly inside.
        return_switches: Also return where each value came from.

    Returns:
        The pooled values; with ``return_switches`` the pair of values and switches, the int64 positions in the
        flattened spatial axes of x (the first on a tie; among several NaNs, any of them).

    Raises:
        GeometryError: The window does not fit x, one of its positions would read only padding, or x is complex.

    >>> x = torch.tensor([[[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]]])
    >>> max_pool(x, 2, stride=1)
    tensor([[[[4., 5.],
              [7., 8.]]]])
    """
    kernel, stride, padding, dilation = _numbers(kernel, stride, padding, dilation)
    if not return_switches and (bound := own("max_pool", x, kernel, stride, padding, dilation, ceil, False)):
        return bound(x)
    if x.is_complex():
        raise GeometryError(f"max_pool: x is {x.dtype}; complex numbers have no largest, pool x.abs() instead.")
    facts, batched = _enter("max_pool", x, kernel, stride, padding, dilation, ceil, "maximum", return_switches)
    if not return_switches:
        return _leave(_largest(batched, facts), x, batched)
    call = _bind(*facts)
    switches = places(batched.detach(), replace(call.problem, operation="switches"))
    values = select(batched, switches, Planned(call.problem))
    return _leave(values, x, batched), _leave(switches, x, batched)


@whole
def avg_pool(
    x: Tensor,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    ceil: bool = False,
    count_padding: bool = False,
    divisor: int | None = None,
) -> Tensor:
    """The mean of the real values in each window.

        out[n, c, *o] = sum over real t of x[n, c, *(o * stride + t * dilation - before)] / number of real t

    Args:
        x: ``(N, C, *spatial)``, or ``(C, *spatial)`` when ``kernel`` names as many axes as that has.
        kernel: Window size, one number per axis; a single number needs x with a batch.
        stride: Step between windows; None is the kernel itself.
        padding: As in :func:`max_pool`.
        dilation: Step between taps.
        ceil: Also keep a last window that is only partly inside.
        count_padding: Divide by the padded positions too, as PyTorch does by default.
        divisor: Divide by this number instead; 1 gives sums.

    Raises:
        GeometryError: The window does not fit x, one of its positions would read only padding, or x holds integers.

    >>> avg_pool(torch.tensor([[[1.0, 2.0, 6.0]]]), 3, stride=1, padding=1)
    tensor([[[1.5000, 3.0000, 4.0000]]])
    """
    kernel, stride, padding, dilation = _numbers(kernel, stride, padding, dilation)
    if divisor is None and (bound := own("avg_pool", x, kernel, stride, padding, dilation, ceil, count_padding)):
        return bound(x)
    _require_fractions("avg_pool", x, "a mean")
    facts, batched = _enter("avg_pool", x, kernel, stride, padding, dilation, ceil)
    require_divisor("avg_pool", "divisor", divisor)
    if divisor is not None:
        return _leave(_sum(batched, _bind(*facts), divisor), x, batched)
    return _leave(_mean(batched, facts, count_padding), x, batched)


@whole
def lp_pool(
    x: Tensor,
    kernel: int | Sequence[int],
    *,
    p: float = 2.0,
    stride: int | Sequence[int] | None = None,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    ceil: bool = False,
) -> Tensor:
    """The p-norm of each window.

        out[n, c, *o] = (sum over real t of |x[n, c, *(o * stride + t * dilation - before)]| ** p) ** (1 / p)

    p = 1 is the sum of the absolute values, infinity the largest of them (P. Sermanet, S. Chintala and Y. LeCun,
    "Convolutional Neural Networks Applied to House Numbers Digit Classification", 2012, section 2.2). Unlike
    ``torch.nn.functional.lp_pool2d`` it takes the absolute value first, so that an odd p is a norm too, and where a
    window holds zeros alone its gradient is 0, not NaN.

    The powers are summed with more digits than x has (float16 in float32, bfloat16 and float32 in float64; in an
    exported graph all three in float32), and must fit there.

    Args:
        x: ``(N, C, *spatial)``, or ``(C, *spatial)`` when ``kernel`` names as many axes as that has; complex too.
        kernel: Window size, one number per axis; a single number needs x with a batch.
        p: The exponent, at least 1; ``math.inf`` is the largest absolute value.
        stride: Step between windows; None is the kernel itself.
        padding: As in :func:`max_pool`.
        dilation: Step between taps.
        ceil: Also keep a last window that is only partly inside.

    Returns:
        Real numbers, also of a complex x.

    Raises:
        GeometryError: p is no number of at least 1, x holds integers, or the window does not fit x.

    >>> lp_pool(torch.tensor([[[3.0, -4.0, 0.0, 0.0]]]), 2)
    tensor([[[5., 0.]]])
    """
    _require_fractions("lp_pool", x, "a norm")
    require_exponent("lp_pool", "p", p)
    if p == 2 and (facts_of_x := _native_norm(x, kernel, stride, padding, dilation, ceil)):
        facts, batched = facts_of_x
        return _leave(norm(batched, _bind(*facts).problem), x, batched)
    # ONNX Runtime has no poolings of float64: an exported graph keeps to float32.
    wide = x.to(accumulator(x.dtype) if torch.compiler.is_exporting() else WIDER.get(x.dtype, x.dtype))
    if p == 2:
        powers = torch.view_as_real(wide).square().sum(-1) if x.is_complex() else wide.square()
    else:
        powers = wide.abs() if p == inf else _power(wide.abs(), p)
    operation = "maximum" if p == inf else "sum"
    facts, batched = _enter("lp_pool", powers, kernel, stride, padding, dilation, ceil, operation)
    pooled = _largest(batched, facts) if p == inf else _power(_sum(batched, _bind(*facts), 1), 1 / p)
    return _leave(pooled, powers, batched).to(x.real.dtype)


def _native_norm(x: Tensor, *options: Any) -> tuple[tuple[Any, ...], Tensor] | None:
    """What the compiled 2-norm is bound by, which reads x once; None where it does not serve.

    Its gradient is made of norms as they are rounded, for which bfloat16 has too few digits.
    """
    traced = torch.compiler.is_exporting() or torch._C._is_tracing()
    derived = torch.is_grad_enabled() and x.requires_grad
    if traced or (derived and x.dtype.itemsize < 4):
        return None
    facts, batched = _enter("lp_pool", x, *options)
    return None if "native" in dict(choose(_bind(*facts).problem).refusals) else (facts, batched)


WIDER = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


def _power(x: Tensor, p: float) -> Tensor:
    """A power of numbers that are not negative, whose derivatives at 0 are all taken to be 0."""
    zero = x == 0
    return torch.where(zero, 0, torch.where(zero, 1, x) ** p)


@whole
def gaussian_pool(
    x: Tensor,
    kernel: int | Sequence[int],
    *,
    sigma: float | Sequence[float] | None = None,
    stride: int | Sequence[int] | None = None,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    ceil: bool = False,
) -> Tensor:
    """The mean of each window's real values, weighted by their distance from its centre.

        out[n, c, *o] = sum over real t of w[t] x[n, c, *(o * stride + t * dilation - before)] / sum over real t of w[t]
        w[t] = exp(-d ** 2 / (2 sigma ** 2)),  d the distance of tap t from the middle of the taps, in input positions

    The weighted average of I. Goodfellow, Y. Bengio and A. Courville, "Deep Learning", 2016, section 9.3. One axis
    after another is averaged, which for a Gaussian is the same.

    Args:
        x: ``(N, C, *spatial)``, or ``(C, *spatial)`` when ``kernel`` names as many axes as that has.
        kernel: Window size, one number per axis; a single number needs x with a batch.
        sigma: Standard deviation in input positions, one number or one per axis. None is a quarter of the window's
            extent, ``(dilation * (kernel - 1) + 1) / 4``: the window then spans two deviations on both sides.
        stride: Step between windows; None is the kernel itself.
        padding: As in :func:`max_pool`.
        dilation: Step between taps.
        ceil: Also keep a last window that is only partly inside.

    Raises:
        GeometryError: A sigma is not positive and finite, x holds integers, or the window does not fit x.

    >>> gaussian_pool(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), 3, stride=1, sigma=0.5)
    tensor([[[0.1065, 0.7870, 0.1065]]])
    """
    _require_fractions("gaussian_pool", x, "a mean")
    facts, batched = _enter("gaussian_pool", x, kernel, stride, padding, dilation, ceil)
    axes = _bind(*facts).problem.geometry.axes
    try:
        given = per_axis("sigma", sigma, len(axes))
    except GeometryError as error:
        raise GeometryError(f"gaussian_pool: {error}") from None
    mean = batched.to(accumulator(x.dtype))
    for dim, (axis, deviation) in enumerate(zip(axes, given, strict=True), start=2):
        mean = _gaussian(mean, dim, axis, _deviation(deviation, axis))
    return _leave(mean.to(x.dtype), x, batched)


def _deviation(sigma: Any, axis: Axis) -> float:
    if sigma is None:
        return axis.extent / 4
    require_deviation("gaussian_pool", "sigma", sigma)
    return float(sigma)


def served_by(
    operation: str,
    x: Tensor,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    ceil: bool = False,
) -> tuple[str, str]:
    """The algorithms that pool x and give its gradient.

    Args:
        operation: "maximum" or "sum".
        x: As in :func:`max_pool`, likewise the options.
        kernel: See :func:`max_pool`.
        stride: See :func:`max_pool`.
        padding: See :func:`max_pool`.
        dilation: See :func:`max_pool`.
        ceil: See :func:`max_pool`.

    Raises:
        GeometryError: The window does not fit x.
    """
    name, backward = {"maximum": ("max_pool", "switches"), "sum": ("avg_pool", "sum")}[operation]
    call = _bind(*_enter(name, x, kernel, stride, padding, dilation, ceil, operation)[0])
    turned = replace(call.problem, operation=backward, direction="input_gradient")
    return choose(call.problem).algorithm, choose(turned).algorithm


def require_divisor(where: str, word: str, value: Any) -> None:
    """Refuse what a sum cannot be divided by; None is the window's own."""
    if value is not None and (type(value) is not int or value == 0):
        raise GeometryError(f"{where}: {word} must be a whole number other than 0, got {word}={value!r}.")


def require_exponent(where: str, word: str, value: Any) -> None:
    """Refuse what is no exponent of a norm."""
    if type(value) not in (int, float) or not value >= 1:
        raise GeometryError(f"{where}: {word} must be a number of at least 1, or math.inf, got {word}={value!r}.")


def require_deviation(where: str, word: str, value: Any) -> None:
    """Refuse what is no standard deviation."""
    if type(value) not in (int, float) or not (isfinite(value) and value > 0):
        raise GeometryError(f"{where}: {word} must be a positive, finite number, got {word}={value!r}.")


def require_count(where: str, word: str, value: Any) -> None:
    """Refuse what is no number of channels or groups."""
    if type(value) is not int or value < 1:
        raise GeometryError(f"{where}: {word} must be a whole number of at least 1, got {word}={value!r}.")


def _gaussian(x: Tensor, dim: int, axis: Axis, sigma: float) -> Tensor:
    """One axis: each tap's slice times its weight at each position, where the weights of the real taps sum to 1."""
    size = int(x.shape[dim])
    outputs = axis.output_size(size)
    weights = _weights(axis, size, outputs, sigma, x.device).to(x.real.dtype)
    rows = passes.extended(x, dim, axis, outputs)
    mean = x.new_zeros(())
    for tap in range(axis.kernel):
        start = tap * axis.dilation
        (values,) = passes.every((rows,), dim, start, start + passes.reach(axis, outputs), axis.stride)
        mean = mean + values * weights[:, tap].view(-1, *[1] * (x.dim() - 1 - dim))
    return mean


def _weights(axis: Axis, size: int, outputs: int, sigma: float, device: torch.device) -> Tensor:
    """``(outputs, kernel)``; relative to the nearest real tap, so that not all of them underflow to 0."""
    steps = torch.arange(axis.kernel, device=device) * axis.dilation
    positions = torch.arange(outputs, device=device)[:, None] * axis.stride + steps - axis.before
    distance = steps.double() - (axis.extent - 1) / 2
    exponent = (-0.5 * (distance / sigma).square()).expand(outputs, axis.kernel)
    return exponent.masked_fill((positions < 0) | (positions >= size), -inf).softmax(1)


@dataclass(frozen=True, slots=True)
class _Window:
    """A pooling window, checked: the geometry (ceil made explicit) and what its means are divided by, per axis."""

    declared: Geometry
    geometry: Geometry
    real_counts: tuple[tuple[int, ...], ...]
    padded_counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """One pooling call, checked: everything but the tensors.

    Args:
        problem: The forward problem.
        vendor: Whether PyTorch's own call, with its own derivatives, is what the plans of all directions say.
        options: Kernel, stride, padding, dilation and ceil of PyTorch's call as the caller declared the window; None
            where PyTorch would not take it.
        real_counts: Real values that the windows read, per axis.
        padded_counts: The same with the padding that the caller declared.
    """

    problem: Problem
    vendor: bool
    options: tuple[Any, ...] | None
    real_counts: tuple[tuple[int, ...], ...]
    padded_counts: tuple[tuple[int, ...], ...]


def _largest(x: Tensor, facts: tuple[Any, ...]) -> Tensor:
    options = _bind(*facts).options
    if options is None:
        return largest(x, _bind(*facts).problem)
    kernel, stride, padding, dilation, ceil = options
    image = x.contiguous() if len(kernel) == 3 else x  # else a window of nothing but -inf is pointed out of
    return MAX_POOL[len(kernel)](image, kernel, stride, padding, dilation, ceil)


def _sum(x: Tensor, call: _Call, divisor: int) -> Tensor:
    problem = replace(call.problem, divisor=divisor)
    return find("sum", "vendor").run(x, None, problem) if call.vendor else total(x, problem)


def _mean(x: Tensor, facts: tuple[Any, ...], count_padding: bool) -> Tensor:
    options = _bind(*facts).options
    if options is not None:
        kernel, stride, padding, _, ceil = options
        return pools.AVG_POOL[len(kernel)](x, kernel, stride, padding, ceil, count_padding)
    call = _bind(*facts)
    divisors = call.padded_counts if count_padding else call.real_counts
    if all(len(set(axis)) == 1 for axis in divisors):
        return _sum(x, call, prod([axis[0] for axis in divisors]))
    plain = type(x) is Tensor and torch._C._functorch.peek_interpreter_stack() is None
    if plain and not count_padding and _by_native(call.problem):
        return native_pools.mean(x, call.problem)
    wide = accumulator(x.dtype)
    sums = _sum(x.to(wide), replace(call, problem=replace(call.problem, dtype=wide)), 1)
    windows = torch.ones((), dtype=wide, device=x.device)
    for axis in divisors:
        windows = windows.unsqueeze(-1) * torch.tensor(axis, dtype=wide, device=x.device)
    return (sums / windows).to(x.dtype)


def _by_native(problem: Problem) -> bool:
    """Whether the compiled kernels sum in a direction or both, dividing by the real values of windows as they go."""
    directions = (problem, replace(problem, direction="input_gradient"))
    return forward_ad._current_level < 0 and any(choose(one).algorithm == "native" for one in directions)


def _numbers(*given: Any) -> tuple[Any, ...]:
    """Options as they are looked up: 2 is not to be found as 2.0, nor in a tuple."""
    if {*map(type, given)} <= {int, NoneType}:
        return given
    return tuple(map(frozen, ("kernel", "stride", "padding", "dilation"), given))


Own = Callable[[Tensor], Tensor]


def own(name: str, x: Tensor, *options: Any) -> Own | None:
    """PyTorch's own call with PyTorch's own derivatives, bound to its options, where the plans say so: one look-up."""
    if type(x) is not Tensor or torch._C._is_tracing():
        return None
    now = (*state(), *map(len, POOLINGS))
    derived = torch.is_grad_enabled() and x.requires_grad
    try:
        return _owned(name, x.shape, x.dtype, x.device, layout_of(x), derived, now, *options)
    except TypeError:  # a compiler leaves a size open
        return None


@lru_cache(maxsize=1024, typed=True)
def _owned(
    name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device, layout: str, derived: bool, now: Any,
    kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: Any, count_padding: Any,
) -> Own | None:  # fmt: skip
    """Whatever does not fit is None here, and an error in its own words on the long way."""
    axes = len(shape) - 2
    fits = axes >= 1 and (not isinstance(kernel, tuple) or len(kernel) == axes)
    if not (fits and dtype.is_floating_point):
        return None
    x = torch.empty(shape, dtype=dtype, device="meta", requires_grad=derived)
    operation = "maximum" if name == "max_pool" else "sum"
    try:
        facts, _ = _enter(
            name, x, kernel, stride, padding, dilation, ceil, operation, device=device.type, layout=layout
        )
        call = _bind(*facts)
    except GeometryError:
        return None
    if call.options is None or call.problem.batch != shape[0]:
        return None
    window = [n[0] if isinstance(n, list) and len(set(n)) == 1 else n for n in call.options[:4]]
    size, step, rows, holes, up = *window, bool(ceil)
    if name == "avg_pool":
        mean, padded = pools.AVG_POOL[len(call.problem.size)], bool(count_padding)
        return lambda x: mean(x, size, step, rows, up, padded)
    largest_of = MAX_POOL[len(call.problem.size)]
    if len(call.problem.size) == 3:  # in another memory, a window of nothing but -inf is pointed out of
        return lambda x: largest_of(x.contiguous(), size, step, rows, holes, up)
    return lambda x: largest_of(x, size, step, rows, holes, up)


def _require_fractions(name: str, x: Tensor, what: str) -> None:
    if not (x.is_floating_point() or x.is_complex()):
        raise GeometryError(f"{name}: x is {x.dtype}; {what} needs floating-point numbers, as in x.float().")


def _enter(
    name: str,
    x: Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil: bool,
    operation: str = "sum",
    return_switches: bool = False,
    device: str | None = None,
    layout: str | None = None,
) -> tuple[tuple[Any, ...], Tensor]:
    """What a call is bound by, and x with a batch; device and layout are those of x, unless others are given."""
    kernel = frozen("kernel", kernel)
    axes = len(kernel) if isinstance(kernel, tuple) else x.dim() - 2
    if axes < 1 or x.dim() not in (axes + 1, axes + 2):
        raise GeometryError(
            f"{name}: kernel={kernel!r} and x of shape {tuple(x.shape)} do not fit: x must be (N, C, *spatial), or "
            "(C, *spatial) with one kernel number for each of its spatial axes."
        )
    stride = kernel if stride is None else frozen("stride", stride)
    options = (kernel, stride, frozen("padding", padding), frozen("dilation", dilation))
    batched = x if x.dim() == axes + 2 else x.unsqueeze(0)
    sizes: Sequence[Any] = batched.shape
    planes = tuple(1 if isinstance(n, torch.SymInt) else int(n) for n in sizes[:2])
    derived = torch.is_grad_enabled() and x.requires_grad
    now = (*state(), torch.compiler.is_compiling(), _registered(), derived)
    where = (x.dtype, device or x.device.type, layout or layout_of(batched), planes, now)
    whole_call = (name, operation, axes, tuple(x.shape[-axes:]), *options, bool(ceil), *where)
    return _known(whole_call, return_switches), batched


def _known(facts: tuple[Any, ...], return_switches: bool) -> tuple[Any, ...]:
    """The facts with sizes in place of what a traced graph leaves open.

    Where PyTorch's own call pools, its options do not depend on the sizes: those of one window stand for all.
    """
    name, operation, axes, size, kernel, stride, padding, dilation, *rest = facts
    if not any(isinstance(n, torch.SymInt) for n in size):
        return facts
    if name in ("max_pool", "avg_pool") and not return_switches and not isinstance(padding, str):
        window = Geometry.window(axes, kernel, stride=stride, padding=padding, dilation=dilation)
        some = (name, operation, axes, window.extent, kernel, stride, padding, dilation, *rest)
        if _bind(*some).options is not None:
            return some
    return (name, operation, axes, fixed(name, size), kernel, stride, padding, dilation, *rest)


def _leave(y: Tensor, x: Tensor, batched: Tensor) -> Tensor:
    return laid_like(y, x) if x.dim() == batched.dim() else y.squeeze(0)


def _registered() -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, POOLINGS))


@lru_cache(maxsize=512, typed=True)
def _bind(
    name: str,
    operation: str,
    axes: int,
    size: tuple[int, ...],
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil: bool,
    dtype: torch.dtype,
    device: str,
    layout: str,
    planes: tuple[int, int],
    now: tuple[Any, ...],
) -> _Call:
    """The call as it is checked and planned, among the algorithms registered by now; ``now`` is what plans go by."""
    window = _window(name, axes, size, kernel, stride, padding, dilation, ceil)
    batch, channels = planes
    problem = Problem(
        operation, window.geometry, batch, channels, channels, size, dtype, device, layout=layout, policy=now[0]
    )
    backward = {"maximum": "switches", "sum": "sum"}[operation]
    turned = [replace(problem, operation=backward, direction="input_gradient")] if now[-1] else []
    asked = [problem, *turned]
    vendor = {choose(one).algorithm for one in asked} == {"vendor"}
    if operation == "maximum" and now[-1]:
        vendor = _vendor_with_gradient(problem, vendor)
    # PyTorch's gradient of a maximum on other devices refuses to run where the caller wants determinism.
    vendor = vendor and not (now[0].deterministic and operation == "maximum" and device not in pools.ORDERED)
    declared = window.declared.axes
    options = tuple([getattr(a, field) for a in declared] for field in ("kernel", "stride", "before", "dilation"))
    plain = vendor and pools.plain_padding(declared)
    plain = plain and (operation == "maximum" or pools.fits_inside(declared, size))
    return _Call(problem, vendor, (*options, ceil) if plain else None, window.real_counts, window.padded_counts)


def _vendor_with_gradient(problem: Problem, vendor: bool) -> bool:
    """Whether PyTorch's maximum, whose switches come with it, is the fastest when a gradient will be asked for."""
    if by_marks(problem):
        seconds = dict(choose(problem).estimates)
        vendors, natives = seconds.get("vendor"), seconds.get("native")
        return vendor if vendors is None or natives is None else vendors * GAIN < natives
    switches = replace(problem, operation="switches")
    maximum, found, spread = map(choose, (problem, switches, replace(switches, direction="input_gradient")))
    own = [dict(one.estimates).get("vendor") for one in (maximum, spread)]
    other = [dict(one.estimates).get(one.algorithm) for one in (found, spread)]
    known = [each for each in (*own, *other) if each is not None]
    return vendor if len(known) < 4 else known[0] + known[1] <= known[2] + known[3]


@lru_cache(maxsize=512, typed=True)
def _window(
    name: str, axes: int, size: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> _Window:
    try:
        declared = Geometry.window(axes, kernel, stride=stride, padding=padding, dilation=dilation, size=size)
        stretched = tuple(_ceil(a, n) if ceil else a for a, n in zip(declared.axes, size, strict=True))
        window = replace(declared, axes=stretched)
        require_real_reads(window, size)
    except GeometryError as error:
        raise GeometryError(f"{name} over spatial size {size}: {error}") from None
    padded = tuple(_padded_counts(a, s, n) for a, s, n in zip(declared.axes, stretched, size, strict=True))
    real = tuple(counts(axis, n) for axis, n in zip(stretched, size, strict=True))
    return _Window(declared, window, real, padded)


def _ceil(axis: Axis, size: int) -> Axis:
    """The axis with rows added after, so that a last partial window counts if it starts inside input or padding before.

    The rule is PyTorch's.
    """
    room = size + axis.before + axis.after - axis.extent
    outputs = -(-room // axis.stride) + 1
    if outputs < 1:
        return axis
    if (outputs - 1) * axis.stride >= size + axis.before:
        outputs -= 1
    needed = (outputs - 1) * axis.stride + axis.extent - size - axis.before
    return replace(axis, after=max(axis.after, needed))


def _padded_counts(declared: Axis, stretched: Axis, size: int) -> tuple[int, ...]:
    """Taps of each window on input or declared padding; rows that only ``ceil`` added are not counted."""
    whole = Axis(declared.kernel, declared.stride, declared.dilation, 0, stretched.after - declared.after)
    return counts(whole, size + declared.before + declared.after)
