"""The memory layout of a whole network: its kernels re-laid in place, its inputs at the door."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .borders import LAST
from .observing import Call
from .planned_layers import CONVOLUTIONS, TRANSPOSED

GIVEN, LAST_CHANNELS, FIRST_CHANNELS = "as given", "channels_last", "contiguous"
LAID = "_laid_before_striate"


def _to_last(value: Any) -> Any:
    """Maps of two and three axes in channels-last memory."""
    is_map = isinstance(value, Tensor) and value.dim() in LAST and value.is_floating_point()
    return value.to(memory_format=LAST[value.dim()]) if is_map else value


def _to_first(value: Any) -> Any:
    is_map = isinstance(value, Tensor) and value.dim() in LAST and value.is_floating_point()
    return value.contiguous() if is_map else value


def _relaid(value: Any, to: Callable[[Any], Any]) -> Any:
    """A tensor, or tuples, lists and dicts of some, laid otherwise; the same object if all lie so already."""
    if isinstance(value, Tensor):
        return to(value)
    if not isinstance(value, (tuple, list, dict)):
        return value
    names = list(value) if isinstance(value, dict) else list(range(len(value)))
    parts = {name: _relaid(value[name], to) for name in names}
    if all(parts[name] is value[name] for name in names):
        return value
    if isinstance(value, tuple):
        return value._make(parts.values()) if hasattr(value, "_make") else type(value)(parts.values())
    if type(value) in (dict, list):  # which the compiler follows
        return parts if isinstance(value, dict) else list(parts.values())
    made: Any = copy.copy(value)
    for name, part in parts.items():
        made[name] = part
    return made


def enter_last(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Lay the inputs channels-last; containers are the caller's own, who may look for what the model writes there."""
    return tuple(map(_to_last, args)), {name: _to_last(value) for name, value in kwargs.items()}


def enter_first(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Lay the inputs channels-first."""
    return tuple(map(_to_first, args)), {name: _to_first(value) for name, value in kwargs.items()}


def leave_last(module: nn.Module, args: Any, output: Any) -> Any:
    """Lay the outputs channels-last."""
    return _relaid(output, _to_last)


def leave_first(module: nn.Module, args: Any, output: Any) -> Any:
    """Lay the outputs channels-first."""
    return _relaid(output, _to_first)


ENTER = {LAST_CHANNELS: enter_last, FIRST_CHANNELS: enter_first}
HOOKS = (enter_last, enter_first, leave_last, leave_first)


def others(model: nn.Module, calls: Sequence[Call]) -> list[str]:
    """The layouts worth a trial: that in which the maps do not lie."""
    lying = Counter(call.is_last for call in calls if len(call.shape) in LAST)
    if not lying or not any(True for _ in _kernels(model)):
        return []
    return [FIRST_CHANNELS if lying[True] > lying[False] else LAST_CHANNELS]


def _kernels(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Parameter]]:
    """The convolutions whose kernels lie in memory of their own, so that they may be re-laid."""
    every: set[Tensor] = {*model.parameters(), *model.buffers()}
    users = Counter(t.untyped_storage().data_ptr() for t in every if t.layout == torch.strided)
    for module in model.modules():
        weight = module._parameters.get("weight")
        if not isinstance(module, CONVOLUTIONS + TRANSPOSED) or type(weight) is not nn.Parameter:
            continue
        own = weight.untyped_storage().nbytes() == weight.numel() * weight.element_size()
        tied = users[weight.untyped_storage().data_ptr()] > 1
        if weight.dim() in LAST and own and not tied and not weight.is_shared():
            yield module, weight


def lay(model: nn.Module, layout: str, outputs: Sequence[Tensor]) -> None:
    """Re-lay kernels in place, and inputs and outputs at the door; the outputs lie as they did."""
    if layout == GIVEN:
        return
    strides: dict[Tensor, tuple[int, ...]] = {}  # a parameter of two modules is re-laid once
    for module, weight in list(_kernels(model)):
        module.__dict__[LAID] = strides.setdefault(weight, weight.stride())
        weight.data = weight.data.to(
            memory_format=LAST[weight.dim()] if layout == LAST_CHANNELS else torch.contiguous_format
        )
    model.register_forward_pre_hook(ENTER[layout], with_kwargs=True)
    maps = [t for t in outputs if t.dim() in LAST and t.is_floating_point()]
    if maps and all(t.is_contiguous() for t in maps):
        model.register_forward_hook(leave_first)
    elif maps and all(t.is_contiguous(memory_format=LAST[t.dim()]) for t in maps):
        model.register_forward_hook(leave_last)


def lay_back(module: Any) -> None:
    """Undo :func:`lay` for one module."""
    for table in (module._forward_pre_hooks, module._forward_hooks):
        for number in [number for number, hook in table.items() if hook in HOOKS]:
            del table[number]
            module._forward_pre_hooks_with_kwargs.pop(number, None)
    strides = module.__dict__.pop(LAID, None)
    if strides is not None and len(strides) == module.weight.dim() and strides != module.weight.stride():
        weight = module.weight
        weight.data = torch.empty_strided(weight.shape, strides, dtype=weight.dtype, device=weight.device).copy_(
            weight.data
        )
