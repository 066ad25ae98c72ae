"""Layers of torch.nn that compute by plans: the same objects and parameters, of a class just below their own.

A layer changes its class and nothing else, so that ``isinstance``, state dicts, hooks, optimizers and copies see what
they saw before. Whatever a plan does not serve is left to the layer's own class, with its own errors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .adaptive import adaptive_avg_pool, adaptive_max_pool
from .computing import ALGORITHMS, DIRECTIONS, Problem, as_given, autocasts, find, layout_of, vendor
from .convolution import Bound, Kept, by_plans
from .errors import AlgorithmError, GeometryError, StriateError
from .geometry import Geometry, per_axis
from .graphs import whole
from .planning import Plan, Plans, _plain, barred, choose_all, pose, state
from .pooling import avg_pool, lp_pool, max_pool, served_by

Window = tuple[Any, Any, Any, int, Any]  # stride, padding, dilation, groups; output padding, None if not transposed
Facts = tuple[
    tuple[int, ...], torch.dtype, str, tuple[int, ...], str
]  # shape, type, device of x; of the weight; layout
Choice = tuple[tuple[str, ...], tuple[int, ...], torch.dtype]  # names per direction, and the size and type they are for

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
NORMS = (nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)
ADAPTIVE_MAXIMA = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
ADAPTIVE_MEANS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
FAMILIES = (CONVOLUTIONS, TRANSPOSED, MAXIMA, MEANS, NORMS, ADAPTIVE_MAXIMA, ADAPTIVE_MEANS)
LAYERS = tuple(kind for family in FAMILIES for kind in family)
MARK = "_striate_"


# ------------------------------------------------------------------------------------------------------ another class


class Changed:
    """What stands before a layer's own class while it computes otherwise."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles name the own class and what stands before it, which are found again by name."""
        made: Any = super().__reduce_ex__(protocol)
        own, before = vars(type(self))[f"{MARK}class"]
        return (_made, (own, before), *made[2:])


def _made(own: type, before: tuple[type, ...]) -> Any:
    changed: Any = below(own, before)
    return changed.__new__(changed)


@lru_cache(maxsize=1024)
def below(own: type, before: tuple[type, ...]) -> type:
    """The class with others before it, under its own name."""
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (*before, own), {**names, f"{MARK}class": (own, before)})


def _parts(cls: type) -> tuple[type, tuple[type, ...]]:
    """A class and what was put before it by :func:`change`."""
    return vars(cls).get(f"{MARK}class", (cls, ()))


def _set_class(module: nn.Module, parts: tuple[type, tuple[type, ...]], parametrized: type | None) -> None:
    """A parametrized layer has a class of its own, made for it alone: that is made again upon the other one."""
    own, before = parts
    changed = below(own, before) if before else own
    if parametrized is not None:
        kept = {name: value for name, value in vars(parametrized).items() if name not in ("__dict__", "__weakref__")}
        first = module.__dict__.setdefault(f"{MARK}parametrized", parametrized)
        again = not before and vars(first).keys() - {"__dict__", "__weakref__"} == kept.keys()
        changed = first if again else type(parametrized.__name__, (changed,), kept)
    module.__class__ = changed


def _layer_class(module: nn.Module) -> tuple[type, type | None]:
    """The layer's class without its parametrization, and the class that this has made."""
    cls = type(module)
    return (cls.__bases__[0], cls) if parametrize.is_parametrized(module) else (cls, None)


def change(module: nn.Module, before: type, **marks: Any) -> None:
    """Put a class before the layer's own, and keep what it needs in the layer."""
    cls, parametrized = _layer_class(module)
    own, others = _parts(cls)
    module.__dict__.update({f"{MARK}{name}": value for name, value in marks.items()})
    _set_class(module, (own, (before, *others)), parametrized)


def change_back(module: nn.Module) -> bool:
    """Give the layer its own class again; whether it had another."""
    cls, parametrized = _layer_class(module)
    own, others = _parts(cls)
    if others:
        _set_class(module, (own, ()), parametrized)
    for name in [name for name in module.__dict__ if name.startswith(MARK)]:
        del module.__dict__[name]
    return bool(others)


def own_class(module: nn.Module) -> type:
    """The layer's class, as it was before anything was put before it."""
    return _parts(_layer_class(module)[0])[0]


def kind_of(module: nn.Module) -> type | None:
    """The layer of torch.nn that this computes as, or None if it computes otherwise."""
    kind = next((kind for kind in LAYERS if isinstance(module, kind)), None)
    methods = [name for name in ("forward", "_conv_forward", "_output_padding") if hasattr(kind, name)]
    own = own_class(module)
    touched = any(getattr(own, name) is not getattr(kind, name) or name in vars(module) for name in methods)
    return None if touched else kind


def axes_of(module: nn.Module) -> int:
    """Spatial axes of a layer."""
    return next(axes for family in FAMILIES for axes, kind in enumerate(family, 1) if isinstance(module, kind))


# ------------------------------------------------------------------------------------------------------- convolutions


class PlannedConvolution(Changed):
    """A convolution of torch.nn by the plans that its mark names."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """As the layer's own."""
        return self._conv_forward(x, self.weight, self.bias)

    def _conv_forward(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        window = (self.stride, padding, self.dilation, self.groups, None)
        return planned_convolution(x, weight, bias, window, self._striate_choice)


class PlannedTransposed(Changed):
    """A transposed convolution of torch.nn by the plans that its mark names."""

    def forward(self: Any, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As the layer's own."""
        if output_size is not None:
            return super().forward(x, output_size)  # type: ignore[misc]
        return self._conv_forward(x, self.weight, self.bias)

    def _conv_forward(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        window = (self.stride, self.padding, self.dilation, self.groups, self.output_padding)
        return planned_convolution(x, weight, bias, window, self._striate_choice)


@whole
def planned_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, choice: Choice) -> Tensor:
    """A convolution as torch.nn's layers call it, by chosen algorithms where they serve, else by PyTorch's own."""
    if not _plain():
        return by_vendor(x, weight, bias, window)
    device = x.device.type
    as_is = x.dtype == weight.dtype and not autocasts(device)
    kinds = (_computed(x, device), device, weight.shape, _computed(weight, device), weight.device.type)
    now = (state(), len(ALGORITHMS["convolution"]), torch._C._are_functorch_transforms_active())
    facts = (x.shape, x.stride(), kinds, window, choice, as_is, now)
    try:
        kept = facts in _CALLS
    except TypeError:  # a traced graph leaves sizes open: they cannot be looked up
        return by_vendor(x, weight, bias, window)
    call = _CALLS.get(facts) if kept else _bound(x, *kinds, window, choice, as_is)
    if not kept:
        _CALLS.keep(facts, call)
    return by_vendor(x, weight, bias, window) if call is None else call(x, weight, bias)


_CALLS = Kept()


def _computed(tensor: Tensor, device: str) -> torch.dtype:
    """The type that is computed in: autocast's, where that is on and applies."""
    lowered = autocasts(device) and tensor.dtype.is_floating_point and tensor.dtype != torch.float64
    return torch.get_autocast_dtype(device) if lowered else tensor.dtype


def by_vendor(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """PyTorch's own call."""
    stride, padding, dilation, groups, extra = window
    axes = weight.dim() - 2
    if extra is None:
        return vendor.CONV[axes](x, weight, bias, stride, padding, dilation, groups)
    return vendor.CONV_TRANSPOSE[axes](x, weight, bias, stride, padding, extra, groups, dilation)


def _bound(
    x: Tensor,
    dtype: torch.dtype,
    device: str,
    weight: tuple[int, ...],
    weight_dtype: torch.dtype,
    weight_device: str,
    window: Window,
    choice: Choice,
    as_is: bool,
) -> Bound | None:
    """The plans of a call, bound, or None where PyTorch's own call serves: also where it has words of its own.

    ``as_is`` says that the tensors have the type to compute in.
    """
    if (dtype, device) != (weight_dtype, weight_device) or x.dim() != len(weight) or 0 in (*x.shape, *weight):
        return None
    try:
        plans = choose_all(posed((x.shape, dtype, device, weight, layout_of(x)), window))
    except (GeometryError, AlgorithmError):
        return None
    names, size, example_dtype = choice
    if (x.shape[2:], dtype) == (size, example_dtype):
        plans = named(plans, names)
    if set(algorithms_of(plans)) == {"vendor"}:
        return None
    direction, problem = "forward" if window[4] is None else "input_gradient", plans.forward.problem
    planned = by_plans(plans, direction, x)

    def lowered(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with as_given(device):
            return planned(x.to(problem.dtype), weight.to(problem.dtype), bias)

    return planned if as_is else lowered


def posed(facts: Facts, window: Window) -> Problem:
    """The problem of a call.

    Raises:
        GeometryError: The shapes do not fit each other.
    """
    x, dtype, device, weight, layout = facts
    stride, padding, dilation, groups, extra = window
    axes, transposed, size = len(weight) - 2, extra is not None, tuple(x[2:])
    geometry = Geometry.window(
        axes, tuple(weight[2:]), stride=stride, padding=padding, dilation=dilation, groups=groups,
        transposed=transposed, output_padding=extra or 0, size=None if transposed else size,
    )  # fmt: skip
    first, second = weight[:2]
    channels, outputs = (first, second * groups) if transposed else (second * groups, first)
    geometry.weight_shape(channels, outputs)
    if channels != x[1]:
        raise GeometryError(f"x has {x[1]} channels, but the weight with groups={groups} takes {channels}.")
    geometry.output_size(size)
    return pose(geometry, x[0], channels, outputs, size, dtype, device, layout)


def problem_facts(module: Any, x: Tensor) -> tuple[Facts, Window]:
    """What :func:`posed` asks of a layer that is called with x."""
    shape, device, padding = tuple(x.shape), x.device.type, module.padding
    if module.padding_mode != "zeros":
        around = module._reversed_padding_repeated_twice
        rows = [around[i] + around[i + 1] for i in reversed(range(0, len(around), 2))]
        shape, padding = (*shape[:2], *(n + more for n, more in zip(shape[2:], rows, strict=True))), 0
    extra = module.output_padding if isinstance(module, TRANSPOSED) else None
    window = (module.stride, padding, module.dilation, module.groups, extra)
    return (shape, _computed(x, device), device, tuple(module.weight.shape), layout_of(x)), window


def algorithms_of(plans: Plans) -> tuple[str, ...]:
    """The names of the algorithms, in the order of the directions."""
    return tuple(getattr(plans, direction).algorithm for direction in DIRECTIONS)


def named(plans: Plans, names: tuple[str, ...]) -> Plans:
    """The plans with other algorithms, where these do not refuse and the policy admits them."""
    chosen: dict[str, Any] = {}
    for direction, name in zip(DIRECTIONS, names, strict=True):
        plan: Plan = getattr(plans, direction)
        chosen[direction] = Plan(name, plan.problem) if _serves(name, plan.problem) else plan
    return replace(plans, **chosen)


def _serves(name: str, problem: Problem) -> bool:
    if name not in ALGORITHMS["convolution"] or find("convolution", name).refuses(problem) is not None:
        return False
    return barred(problem, name) is None


# ----------------------------------------------------------------------------------------------------------- poolings


class PlannedPooling(Changed):
    """A pooling of torch.nn by its plan."""

    def forward(self: Any, x: Tensor) -> Any:
        """As the layer's own; what has no batch, or more to return, is left to that."""
        axes = self._striate_axes
        if x.dim() != axes + 2 or getattr(self, "return_indices", False):
            return super().forward(x)  # type: ignore[misc]
        try:
            return pool(self, x)
        except StriateError:  # PyTorch's own call has words of its own for it
            return super().forward(x)  # type: ignore[misc]


def pool(module: Any, x: Tensor) -> Tensor:
    """What a pooling of torch.nn computes, by its plan."""
    if isinstance(module, ADAPTIVE_MAXIMA + ADAPTIVE_MEANS):
        size: Any = module.output_size
        return adaptive_max_pool(x, size) if isinstance(module, ADAPTIVE_MAXIMA) else adaptive_avg_pool(x, size)
    options: dict[str, Any] = {"stride": module.stride, "ceil": module.ceil_mode}
    if isinstance(module, NORMS):
        return lp_pool(x, module.kernel_size, p=float(module.norm_type), **options)
    options["padding"] = module.padding
    if isinstance(module, MAXIMA):
        return max_pool(x, module.kernel_size, dilation=module.dilation, **options)
    divisor = getattr(module, "divisor_override", None)
    return avg_pool(x, module.kernel_size, count_padding=module.count_include_pad, divisor=divisor, **options)


def pooling_algorithms(module: Any, x: Tensor) -> tuple[str, str]:
    """Who computes the pooling of a batch, forward and backward.

    Raises:
        GeometryError: The window does not fit x.
    """
    size = tuple(x.shape[2:])
    operation = "maximum" if isinstance(module, MAXIMA + ADAPTIVE_MAXIMA) else "sum"
    if isinstance(module, ADAPTIVE_MAXIMA + ADAPTIVE_MEANS):
        outputs = per_axis("output_size", module.output_size, len(size))
        lengths = [(n, n if o is None else o) for n, o in zip(size, outputs, strict=True)]
        if any(n % o for n, o in lengths):
            return "vendor", "vendor"
        return served_by(operation, x, tuple(n // o for n, o in lengths))
    steps = {name: getattr(module, name, default) for name, default in (("padding", 0), ("dilation", 1))}
    return served_by(operation, x, module.kernel_size, stride=module.stride, ceil=module.ceil_mode, **steps)
