"""Convolution, transposed, local and tiled, on any number of axes: where tensors meet the geometry, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from . import padding as padding_words
from .borders import Rule, extend, format_of, gather_back, laid, laid_like, plus
from .computing import ALGORITHMS, as_given, autocasts, layout_of, vendor
from .errors import AlgorithmError, GeometryError, unknown_name
from .geometry import Axis, Geometry, frozen, per_axis
from .graphs import whole
from .planning import Plans, choose_all, pose, state
from .trilinear import convolve

OPTIONS = ("stride", "padding", "dilation", "groups", "output_padding")
SHARED = ("conv", "conv_transpose")
WEIGHTS = {
    "conv": "(O, C/groups, *K)",
    "conv_transpose": "(C, O/groups, *K)",
    "conv_local": "(*out, O, C/groups, *K)",
    "conv_tiled": "(*period, O, C/groups, *K)",
}


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, checked: everything but the tensors.

    Args:
        window: The geometry as the caller wrote it, transposed or not, padding modes made explicit.
        outputs: Output channels.
        size: Output positions per axis; None where a traced graph leaves the sizes open.
        by: What computes it: PyTorch's own call with PyTorch's own derivatives, where the plans of all directions say
            so, or else the plans.
        direction: Which of the plans is the call's own.
        dtype: The type to compute in.
        rules: Where the rows of the padded image come from, in the padding modes other than zeros.
        kernels: The shape in which the weights are computed with: without a period that is 1 everywhere.
    """

    window: Geometry
    outputs: int
    size: tuple[int, ...] | None
    by: vendor.Call | Plans
    direction: str
    dtype: torch.dtype
    rules: tuple[Rule, ...] | None
    kernels: tuple[int, ...]


@whole
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    flip: bool = False,
    padding_mode: str = "zeros",
    algorithm: str | None = None,
) -> Tensor:
    """Convolution (cross-correlation, as everywhere in the field) over any number of spatial axes.

        out[n, o, p] = bias[o] + sum over c, t of weight[o, c, t] * x[n, c, p * stride + t * dilation - before]

    Args:
        x: ``(N, C, *spatial)`` or ``(C, *spatial)``.
        weight: ``(O, C/groups, *K)``; its number of dimensions says how many spatial axes there are.
        bias: ``(O,)``, or ``(O, *out)`` with one value per position.
        stride: Step between windows, one number or one per axis.
        padding: A number; one number or ``(before, after)`` pair per axis; or "valid", "same" (output
            ``ceil(n / stride)``, the odd row after), "same_lower" (the odd row before), "full", "causal".
        dilation: Step between taps; 1 is dense.
        groups: Blocks of channels that do not mix.
        flip: Turn the kernel around: the mathematical convolution.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        algorithm: Ask for one of :func:`striate.algorithms` by name; None lets the plan choose.

    Raises:
        GeometryError: The shapes do not fit each other, or the window does not fit the input.
        UnknownNameError: No such padding word, padding mode or algorithm.
        AlgorithmError: The algorithm asked for cannot serve this window.

    >>> x = torch.arange(9.0).view(1, 1, 3, 3)
    >>> conv(x, torch.arange(4.0).view(1, 1, 2, 2))
    tensor([[[[19., 25.],
              [37., 43.]]]])
    """
    if flip:
        weight = weight.flip(tuple(range(2, weight.dim())))
    return apply("conv", x, weight, bias, (*_numbers(stride, padding, dilation, groups, 0), padding_mode, algorithm))


@whole
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    algorithm: str | None = None,
) -> Tensor:
    """Transposed convolution over any number of spatial axes: the input gradient of :func:`conv`.

        size of out = (size of x - 1) * stride + dilation * (K - 1) + 1 - before - after + output_padding

    Args:
        x: ``(N, C, *spatial)`` or ``(C, *spatial)``.
        weight: ``(C, O/groups, *K)``.
        bias: ``(O,)``, or ``(O, *out)`` with one value per position.
        stride: Step of the convolution that this is the adjoint of; likewise padding, dilation and groups.
        padding: As in :func:`conv`; "same" writes ``n * stride`` positions.
        output_padding: Positions added at the end of the output, less than stride or dilation.
        dilation: Step between taps.
        groups: Blocks of channels that do not mix.
        padding_mode: What the padding of that convolution holds. Its adjoint adds what falls on a copied row to the
            position that the row was copied from.
        algorithm: Ask for one of :func:`striate.algorithms` by name.

    Raises:
        GeometryError: The shapes do not fit each other or the window.
        UnknownNameError: No such padding word, padding mode or algorithm.
        AlgorithmError: The algorithm asked for cannot serve this window.

    >>> conv_transpose(torch.ones(1, 1, 2), torch.tensor([[[1.0, 2.0, 3.0]]]), stride=2)
    tensor([[[1., 2., 4., 2., 3.]]])
    """
    numbers = _numbers(stride, padding, dilation, groups, output_padding)
    return apply("conv_transpose", x, weight, bias, (*numbers, padding_mode, algorithm))


@whole
def conv_local(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    algorithm: str | None = None,
) -> Tensor:
    """Locally connected layer: a convolution whose every output position has weights of its own.

        out[n, o, p] = bias[o, p] + sum over c, t of weight[p, o, c, t] * x[n, c, p * stride + t * dilation - before]

    Source: I. Goodfellow et al., "Deep Learning", 2016, section 9.5 (unshared convolution).

    Args:
        x: ``(N, C, *spatial)`` or ``(C, *spatial)``.
        weight: ``(*out, O, C/groups, *K)``, one kernel for each output position.
        bias: ``(O, *out)`` or ``(O,)``.
        stride: As in :func:`conv`; likewise padding, dilation, groups and padding_mode.
        padding: See :func:`conv`.
        dilation: See :func:`conv`.
        groups: See :func:`conv`.
        padding_mode: See :func:`conv`.
        algorithm: Ask for one of :func:`striate.algorithms` by name.

    Raises:
        GeometryError: The shapes do not fit each other, or the weights are for another number of positions.
        UnknownNameError: No such padding word, padding mode or algorithm.
        AlgorithmError: The algorithm asked for cannot serve this window.

    >>> x = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> conv_local(x, torch.tensor([[1.0, 0.0], [0.0, 10.0]]).view(2, 1, 1, 2))
    tensor([[[ 1., 30.]]])
    """
    numbers = _numbers(stride, padding, dilation, groups, 0)
    return apply("conv_local", x, weight, bias, (*numbers, padding_mode, algorithm))


@whole
def conv_tiled(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int | Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    algorithm: str | None = None,
) -> Tensor:
    """Tiled convolution: neighbouring outputs have kernels of their own, which repeat with a period.

        out[n, o, p] = bias[o, p mod t] + sum over c, u of weight[p mod t, o, c, u] * x[n, c, i]
        i = p * stride + u * dilation - before

    Period 1 is :func:`conv`; a period of the output size is :func:`conv_local`. Source: I. Goodfellow et al., "Deep
    Learning", 2016, equation 9.10; K. Gregor and Y. LeCun, arXiv 1006.0448.

    Args:
        x: ``(N, C, *spatial)`` or ``(C, *spatial)``.
        weight: ``(*period, O, C/groups, *K)``.
        bias: ``(O, *period)`` or ``(O,)``.
        stride: As in :func:`conv`; likewise padding, dilation, groups and padding_mode.
        padding: See :func:`conv`.
        dilation: See :func:`conv`.
        groups: See :func:`conv`.
        padding_mode: See :func:`conv`.
        algorithm: Ask for one of :func:`striate.algorithms` by name.

    Raises:
        GeometryError: The shapes do not fit each other.
        UnknownNameError: No such padding word, padding mode or algorithm.
        AlgorithmError: The algorithm asked for cannot serve this window.

    >>> conv_tiled(torch.ones(1, 1, 4), torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    tensor([[[ 1., -1.,  1., -1.]]])
    """
    numbers = _numbers(stride, padding, dilation, groups, 0)
    return apply("conv_tiled", x, weight, bias, (*numbers, padding_mode, algorithm))


def _numbers(*given: Any) -> tuple[Any, ...]:
    """Options as they are looked up: 2 is not to be found as 2.0, nor in a tuple."""
    stride, padding, dilation, groups, extra = given
    if type(stride) is int and type(padding) is int and type(dilation) is int and type(groups) is int is type(extra):
        return given
    return tuple(map(frozen, OPTIONS, given))


Bound = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Recent:
    """The last call of a layer and what computed it: to compare costs less than to look up."""

    __slots__ = ("call",)

    def __init__(self) -> None:
        self.call: tuple[tuple[Any, ...], Bound | None] = ((), None)


class Kept(dict[tuple[Any, ...], Any]):
    """So many calls at most, the latest."""

    most = 4096

    def keep(self, facts: tuple[Any, ...], bound: Any) -> None:
        """Another one."""
        with _LOCK:
            while len(self) >= self.most:
                del self[next(iter(self))]
            self[facts] = bound


_LOCK, _CALLS = Lock(), Kept()
# Looked up once: each dot costs every call as much as a comparison does.
_any_autocast, _transformed = torch._C._is_any_autocast_enabled, torch._C._are_functorch_transforms_active
_tracing, _exporting = torch._C._is_tracing, torch.compiler.is_exporting


def apply(
    name: str, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...], recent: Recent | None = None
) -> Tensor:
    """The function of this name, with its options in order: one look-up, then what was bound when it was first called.

    Args:
        name: "conv", "conv_transpose", "conv_local" or "conv_tiled".
        x: As the function takes it.
        weight: Likewise.
        bias: Likewise.
        options: Stride, padding, dilation, groups and output padding, whole numbers and tuples of them; padding mode
            and algorithm.
        recent: Where a layer keeps its last call.
    """
    if type(x) is not Tensor or _any_autocast() or _tracing() or _transformed() or _exporting():
        return _apply(name, x, weight, bias, options)
    third = None if bias is None else (bias.shape, bias.dtype)
    places = (x.dtype, x.device, weight.dtype, weight.device)
    now = (state(), len(ALGORITHMS["convolution"]))
    facts = (name, x.shape, x.stride(), weight.shape, third, places, now, options)
    if recent is not None:
        known, bound = recent.call
        if bound is not None and known == facts:
            return bound(x, weight, bias)
    try:
        bound = _CALLS.get(facts)
    except TypeError:  # a compiler leaves a size open
        return _apply(name, x, weight, bias, options)
    if bound is None:
        bound = _bound_call(name, x, weight, bias, now, options)
        _CALLS.keep(facts, bound)
    if recent is not None:
        recent.call = facts, bound
    return bound(x, weight, bias)


def _bound_call(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, now: Any, options: tuple[Any, ...]) -> Bound:
    """What computes every call of these shapes, strides, types and options under this policy."""
    device = x.device.type
    call = _checked(
        len(ALGORITHMS["convolution"]), name, x.shape, x.dtype, device, layout_of(x), now,
        weight.shape, weight.dtype, weight.device.type, *options,
    )  # fmt: skip
    if bias is not None:
        _check_bias(name, (bias.shape, bias.dtype, bias.device.type), call, device)
    simple = call.rules is None and x.dim() == len(call.window.axes) + 2 and weight.shape == torch.Size(call.kernels)
    if simple and (bias is None or bias.dim() == 1):
        if not isinstance(call.by, Plans):
            return call.by
        if x.dtype == weight.dtype == call.dtype:
            return by_plans(call.by, call.direction, x)
    return lambda x, weight, bias: _finish(name, x, weight, bias, call, device)


def by_plans(plans: Plans, direction: str, like: Tensor) -> Bound:
    """A call by plans, for operands of the type to compute in, with a batch and no bias but one number per channel.

    Args:
        plans: Of the call.
        direction: Which of them is its own.
        like: The input, or a tensor that lies as it does.
    """
    row = (-1, *(1 for _ in plans.forward.problem.size))
    try:
        wanted = format_of(like)
    except RuntimeError:  # under vmap a tensor does not say how it lies
        wanted = None

    def call(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = convolve(x, weight, plans, direction)
        if wanted is not None:
            y = laid(y, wanted)
        return y if bias is None else plus(y, bias.view(row))

    return call


def _apply(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
    """The same where autocast chooses the types, functions are transformed, or a graph may leave sizes open."""
    shape, dtype, device = _facts(x)
    call = _bind(name, shape, dtype, device, layout_of(x), state(), *_facts(weight), *options)
    if bias is not None:
        _check_bias(name, _facts(bias), call, device)
    return _finish(name, x, weight, bias, call, device)


def _finish(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, call: _Call, device: str) -> Tensor:
    if bias is not None and bias.dim() > 1 and name == "conv_tiled":
        bias = _everywhere(bias, call)
    has_batch = x.dim() == len(call.window.axes) + 2
    batched = x if has_batch else x.unsqueeze(0)
    y = _compute(batched, weight, bias, call, device)
    if call.rules is not None or isinstance(call.by, Plans):
        y = laid_like(y, batched)
    return y if has_batch else y.squeeze(0)


def _compute(x: Tensor, weight: Tensor, bias: Tensor | None, call: _Call, device: str) -> Tensor:
    window, copied_after = call.window, call.rules is not None and call.window.transposed
    if call.rules is not None and not window.transposed:
        x = extend(x, call.rules)
    kernels = weight if weight.dim() == len(call.kernels) else weight.reshape(call.kernels)
    if isinstance(call.by, Plans):
        with as_given(device):
            y = convolve(x.to(call.dtype), kernels.to(call.dtype), call.by, call.direction)
    else:
        given = bias if bias is not None and bias.dim() == 1 and not copied_after else None
        y = call.by(x, kernels, given)
        bias = None if given is bias else bias
    if copied_after and call.rules is not None:
        y = gather_back(y, call.rules)
    if bias is None:
        return y
    return plus(y, bias.view(-1, *(1 for _ in window.axes)) if bias.dim() == 1 else bias)


def _facts(tensor: Tensor) -> tuple[torch.Size, torch.dtype, str]:
    """Shape, the type to compute in (autocast's, where that is on and applies) and kind of device."""
    device = tensor.device.type
    lowered = autocasts(device) and tensor.dtype.is_floating_point and tensor.dtype != torch.float64
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    shape = torch.Size(map(int, tensor.shape)) if tracing else tensor.shape
    return shape, torch.get_autocast_dtype(device) if lowered else tensor.dtype, device


def _bind(name: str, x: Sequence[Any], dtype: Any, device: str, layout: str, now: Any, *rest: Any) -> _Call:
    """The checked call, looked up.

    A traced graph may leave numbers open. The batch may stay so, and the sizes where PyTorch's own call needs none of
    them; otherwise ``torch.compile`` is made to fix them, and ``torch.export``, which may not, is told what to do.
    """
    registered = len(ALGORITHMS["convolution"])
    weight, *rest_ = rest
    exporting = torch.compiler.is_exporting()
    where = (dtype, device, layout, (*now, exporting, torch.compiler.is_compiling()))
    try:
        return _checked(registered, name, x, *where, weight, *rest_)
    except TypeError:  # what is open cannot be looked up
        if not any(isinstance(n, torch.SymInt) for n in (*x, *weight)):
            raise
    kernel = tuple(map(int, weight))
    axes = len(kernel) - 2 if name in SHARED else len(kernel) // 2 - 1
    places = len(x) - axes
    batch = [1 if isinstance(n, torch.SymInt) else n for n in x[: places - 1]]
    known = (*batch, *map(int, x[len(batch) : places]))
    try:
        open_sizes = (None if isinstance(n, torch.SymInt) else n for n in x[places:])
        return _checked(registered, name, (*known, *open_sizes), *where, kernel, *rest_)
    except (GeometryError, AlgorithmError):
        if exporting:
            raise
    return _checked(registered, name, (*known, *map(int, x[places:])), *where, kernel, *rest_)


@lru_cache(maxsize=4096, typed=True)
def _checked(
    registered: int,
    name: str,
    x: tuple[int | None, ...],
    dtype: torch.dtype,
    device: str,
    layout: str,
    now: Any,
    weight: tuple[int, ...],
    weight_dtype: torch.dtype,
    weight_device: str,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    output_padding: Any,
    mode: str,
    algorithm: str | None,
) -> _Call:
    """Compare shapes with the geometry; every later step relies on this.

    ``registered`` counts the algorithms, so that plans made before one was added are not found again; ``now`` is what
    else plans depend on, the policy and what was measured.
    """
    axes = _spatial_axes(name, x, weight)
    _check_kinds(name, (dtype, device), (weight_dtype, weight_device))
    size = tuple(x[-axes:])
    whole = None if None in size else tuple(n for n in size if n is not None)
    transposed = name == "conv_transpose"
    try:
        if whole is None:
            _check_open(padding, stride, mode, transposed)
        window = Geometry.window(
            axes, weight[-axes:], stride=stride, padding=padding, dilation=dilation, groups=groups,
            period=weight[:-axes - 2] or 1, transposed=transposed, output_padding=output_padding,
            size=None if transposed else whole,
        )  # fmt: skip
        channels, outputs = _check_channels(x, weight, window)
        if 0 in size:
            raise GeometryError(f"x has no inputs on spatial axis {size.index(0)}; at least 1 is needed.")
        if mode not in padding_words.MODES:
            raise unknown_name("padding mode", mode, padding_words.MODES)
        if whole is None:
            return _open_call(window, channels, outputs, dtype, algorithm)
        if name == "conv_local":
            _check_positions(weight, window, whole)
        spoken = window.output_size(whole)
        window, rules = _explicit(window, whole, mode, per_axis("output_padding", output_padding, axes))
    except GeometryError as error:
        shape = "(" + ", ".join("?" if n is None else str(n) for n in x) + ")"
        raise GeometryError(f"{name} of x {shape} with weight {tuple(weight)}: {error}") from None
    batch = x[0] if len(x) > axes + 1 else 1
    read = tuple(n + before + after for _, n, before, after in rules) if rules and not transposed else whole
    problem = pose(window, batch or 0, channels, outputs, read, dtype, device, layout)
    plans = choose_all(problem, algorithm)
    vendors = {plans.forward.algorithm, plans.input_gradient.algorithm, plans.weight_gradient.algorithm} == {"vendor"}
    kernels = window.weight_shape(channels, outputs)
    by = vendor.bind(window) if vendors else plans
    return _Call(window, outputs, spoken, by, problem.direction, dtype, rules, kernels)


def _check_kinds(name: str, x: tuple[torch.dtype, str], weight: tuple[torch.dtype, str]) -> None:
    """Compare types and kinds of device."""
    if x[0] != weight[0]:
        raise GeometryError(f"{name}: x is {x[0]} but weight is {weight[0]}; convert one, as in x.to(weight.dtype).")
    if x[0] == torch.bool:
        raise GeometryError(f"{name}: x and weight are torch.bool; convert them, as in x.float().")
    if x[1] != weight[1]:
        raise GeometryError(
            f"{name}: x is on {x[1]} but weight is on {weight[1]}; move one, as in x.to(weight.device)."
        )


def _spatial_axes(name: str, x: Sequence[int | None], weight: tuple[int, ...]) -> int:
    shared = name in SHARED
    axes = len(weight) - 2 if shared else len(weight) // 2 - 1
    if axes < 1 or (not shared and len(weight) % 2):
        least = "at least one spatial axis" if shared else "an even number of dimensions, at least 4"
        raise GeometryError(f"{name}: weight must be {WEIGHTS[name]} with {least}, got shape {tuple(weight)}.")
    if len(x) not in (axes + 1, axes + 2):
        raise GeometryError(
            f"{name}: weight {tuple(weight)} has {axes} spatial {'axis' if axes == 1 else 'axes'}, so x needs "
            f"{axes + 2} dimensions, (N, C, *spatial), or {axes + 1} without a batch; got shape {tuple(x)}."
        )
    return axes


def _check_channels(x: Sequence[int | None], weight: tuple[int, ...], window: Geometry) -> tuple[int, int]:
    """The channels of input and output, if x and weight agree on them."""
    axes, groups = len(window.axes), window.groups
    first, second = weight[-axes - 2 : -axes]
    expected, outputs = (first, second * groups) if window.transposed else (second * groups, first)
    channels = x[-axes - 1]
    if channels != expected:
        batch = "1" if len(x) == axes + 2 else "0"
        hint = f" x looks channels-last: give x.movedim(-1, {batch})." if x[-1] == expected else ""
        raise GeometryError(f"x has {channels} channels, but the weight with groups={groups} takes {expected}.{hint}")
    window.weight_shape(expected, outputs)
    return expected, outputs


def _check_positions(weight: tuple[int, ...], window: Geometry, size: tuple[int, ...]) -> None:
    given, outputs = tuple(weight[: len(size)]), window.output_size(size)
    if given != outputs:
        raise GeometryError(
            f"the weight is for {given} output positions, but the window makes {outputs}; "
            f"give weight of shape {(*outputs, *weight[len(size) :])}."
        )


def _check_open(padding: Any, stride: Any, mode: str, transposed: bool) -> None:
    """Refuse what depends on the sizes, where a traced graph leaves them open."""
    steps = stride if isinstance(stride, tuple) else (stride,)
    if str(padding).startswith("same") and max(steps) > 1 and not transposed:
        raise GeometryError(
            f"padding={padding!r} with stride={stride} depends on the sizes, which this graph leaves open; "
            "write the padding as numbers, or trace with fixed sizes."
        )
    if mode != "zeros" and padding not in (0, "valid"):
        raise GeometryError(
            f"padding_mode={mode!r} needs the sizes, which this graph leaves open; trace with fixed ones."
        )


def _open_call(window: Geometry, channels: int, outputs: int, dtype: torch.dtype, algorithm: str | None) -> _Call:
    """The call of a graph whose sizes are open: PyTorch's own, because there is nothing to plan with."""
    if algorithm not in (None, "vendor"):
        raise AlgorithmError(
            f"algorithm={algorithm!r} needs the sizes, which this graph leaves open; trace with fixed ones."
        )
    if prod(window.period) > 1 or len(window.axes) > 3:
        raise AlgorithmError(
            f"the graph leaves the sizes open, so that only PyTorch's own kernels serve: those share the weights over "
            f"1 to 3 axes, and this window has period {window.period}. Trace with fixed sizes."
        )
    kernels = window.weight_shape(channels, outputs)
    return _Call(window, outputs, None, vendor.bind(window), "forward", dtype, None, kernels)


def _check_bias(name: str, facts: tuple[torch.Size, torch.dtype, str], call: _Call, device: str) -> None:
    """The bias has one value per channel, or per output position."""
    given, dtype, place = facts
    if (dtype, place) != (call.dtype, device):
        raise GeometryError(
            f"bias is {dtype} on {place}, but x and weight are {call.dtype} on {device}; "
            "convert it, as in bias.to(weight)."
        )
    shape, outputs, period = tuple(given), call.outputs, call.window.period
    if shape == (outputs,) or (call.size is not None and shape == (outputs, *call.size) and name != "conv_tiled"):
        return
    if name == "conv_tiled" and shape == (outputs, *period) and call.size is not None:
        return
    per, what = (
        ((outputs, *period), "position of the period")
        if name == "conv_tiled"
        else ((outputs, *(call.size or ())), "output position")
    )
    raise GeometryError(
        f"bias has shape {shape}; expected ({outputs},), one per output channel, or {per}, one per {what}."
    )


def _everywhere(bias: Tensor, call: _Call) -> Tensor:
    """The bias of a period at every output position."""
    for number, (n, t) in enumerate(zip(call.size or (), call.window.period, strict=True), start=1):
        bias = bias.index_select(number, torch.arange(n, device=bias.device) % t)
    return bias


def _explicit(
    window: Geometry, size: tuple[int, ...], mode: str, extra: tuple[int, ...]
) -> tuple[Geometry, tuple[Rule, ...] | None]:
    """For a padding mode other than zeros: the unpadded window, and where each padded position comes from.

    A transposed window then writes the padded image, whose rows are added to their sources afterwards.
    """
    rows = [(axis.before, axis.after + more) for axis, more in zip(window.axes, extra, strict=True)]
    if mode == "zeros" or not any(map(any, rows)):
        return window, None
    image = window.output_size(size) if window.transposed else size
    rules = tuple((mode, n, *pair) for n, pair in zip(image, rows, strict=True))
    bare = tuple(
        Axis(axis.kernel, axis.stride, axis.dilation, 0, -more, axis.period)
        for axis, more in zip(window.axes, extra, strict=True)
    )
    return Geometry(bare, window.groups, window.flip, window.transposed), rules
