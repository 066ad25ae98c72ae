"""What a model does with its example inputs: which layers compute what, what feeds what, what is no layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._python_dispatch import TorchDispatchMode

from .borders import LAST, LAYOUTS, layout_of
from .fusion import ACTIVATIONS, NORMALISATIONS
from .planned_layers import CONVOLUTIONS, LAYERS, TRANSPOSED

SOURCE = "_striate_source"


@dataclass(frozen=True, slots=True)
class Call:
    """How a layer was called.

    Args:
        shape: Of its input.
        strides: Of its input.
        dtype: Of its input.
        device: Of its input.
        differentiated: Whether the gradient of its input is asked for.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: str
    differentiated: bool

    @property
    def is_last(self) -> bool:
        """Whether it lies channels-last, and not in both ways."""
        x = torch.empty_strided(self.shape, self.strides, device="meta")
        last = LAST.get(x.dim())
        return last is not None and layout_of(x) == LAYOUTS[1] and x.is_contiguous(memory_format=last)

    def example(self, layout: str) -> Tensor:
        """Random numbers that lie as the input did, or in the layout named."""
        x = torch.randn(self.shape, dtype=self.dtype, device=self.device)
        last = LAST.get(len(self.shape))
        if last is not None and (layout == "channels_last" or (layout == "as given" and self.is_last)):
            return x.to(memory_format=last)
        return x


@dataclass
class Observation:
    """What was seen in one step.

    Args:
        calls: Of each layer that has a window, in the order in which they were first called.
        functions: How often an operation with a window was called outside such layers, by module and operation.
        readers: The modules that read what a convolution or batch normalisation gave.
        outputs: Positions that each convolution gave.
    """

    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    functions: Counter[tuple[str, str]] = field(default_factory=Counter)
    readers: dict[nn.Module, set[nn.Module]] = field(default_factory=dict)
    outputs: dict[nn.Module, int] = field(default_factory=dict)

    def partners(self) -> dict[nn.Module, tuple[nn.Module, nn.Module | None]]:
        """Each convolution that one batch normalisation reads, and nobody else; that, and the activation after it."""
        fed: Counter[nn.Module] = Counter(reader for readers in self.readers.values() for reader in readers)
        found: dict[nn.Module, tuple[nn.Module, nn.Module | None]] = {}
        for conv, readers in self.readers.items():
            if isinstance(conv, NORMALISATIONS) or len(readers) != 1 or len(self.calls.get(conv, ())) != 1:
                continue
            (norm,) = readers
            if isinstance(norm, NORMALISATIONS) and fed[norm] == 1:
                last = self.readers.get(norm, set())
                found[conv] = norm, next(iter(last)) if len(last) == 1 else None
        return {
            conv: (norm, act if act is not None and type(act) in ACTIVATIONS else None)
            for conv, (norm, act) in found.items()
        }


@contextmanager
def observed(model: nn.Module) -> Iterator[Observation]:
    """A block in which the calls of the model are noted; its modules are not touched."""
    seen, names = Observation(), {module: name for name, module in model.named_modules()}
    stack: list[nn.Module] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        stack.append(module)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        stack.pop()
        if args and isinstance(args[0], Tensor):
            _note(seen, module, args[0], output)

    before = modules.register_module_forward_pre_hook(enter)
    after = modules.register_module_forward_hook(leave)
    try:
        with _Functions(stack, lambda place, name: seen.functions.update([(names.get(place, ""), name)])):
            yield seen
    finally:
        before.remove()
        after.remove()


def _note(seen: Observation, module: nn.Module, x: Tensor, output: Any) -> None:
    source = getattr(x, SOURCE, None)
    if source is not None:
        seen.readers.setdefault(source, set()).add(module)
    if isinstance(module, LAYERS):
        call = Call(tuple(x.shape), x.stride(), x.dtype, x.device.type, x.requires_grad)
        seen.calls.setdefault(module, []).append(call)
    if isinstance(module, CONVOLUTIONS + TRANSPOSED + NORMALISATIONS) and isinstance(output, Tensor):
        setattr(output, SOURCE, module)
        seen.outputs[module] = output.numel()


class _Functions(TorchDispatchMode):
    """Notes operations with a window that no layer of torch.nn has called."""

    def __init__(self, stack: list[nn.Module], note: Callable[[Any, str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack, self.note = stack, note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note it by the innermost module, and go on."""
        name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        windowed = "convolution" in name or ("pool" in name and "unpool" not in name)
        if windowed and "backward" not in name and not any(isinstance(module, LAYERS) for module in self.stack):
            self.note(self.stack[-1] if self.stack else None, WORDS.get(name, name.lstrip("_")))
        return func(*args, **(kwargs or {}))


WORDS = {"max_pool2d_with_indices": "max_pool2d", "max_pool3d_with_indices": "max_pool3d"}
