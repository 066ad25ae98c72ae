"""Sizes of what PyTorch's most frequent operators give, told without asking PyTorch.

Its own answers for the meta device are Python code that is slow, and that imports the compiler and a computer algebra
system: that takes longer than all else. Where arguments are of no usual kind the answer is None, and PyTorch is asked.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .errors import GeometryError, OptionError

INSIDE = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


def _normed(x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    nothing = torch.empty(0, device="meta")
    return _empty(x, x.shape), nothing, nothing


def _empty(like: Tensor, size: Sequence[int]) -> Tensor:
    return torch.empty(tuple(size), dtype=like.dtype, device="meta")


def _averaged(x: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False, **options: Any) -> Tensor | None:
    axes = {axis % max(x.dim(), 1) for axis in (range(x.dim()) if dim is None or not len(dim) else dim)}
    if options or not x.is_floating_point() or not all(-x.dim() <= axis < x.dim() for axis in dim or ()):
        return None
    return _empty(x, [1 if k in axes else n for k, n in enumerate(x.shape) if keepdim or k not in axes])


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    extra: Any,
    groups: int,
) -> Tensor | None:
    """The output of a convolution, if PyTorch would not refuse it."""
    spatial = weight.dim() - 2
    out, taken = weight.shape[0], weight.shape[1] * groups
    if transposed:
        out, taken = taken, out
    if x.dim() == spatial + 2 and x.shape[1] != taken:
        raise GeometryError(
            f"weights of shape {tuple(weight.shape)} take {taken} channels, but there are {x.shape[1]}."
        )
    if x.dim() != spatial + 2 or x.dtype != weight.dtype or (not transposed and out % groups):
        return None
    rows = zip(x.shape[2:], weight.shape[2:], *map(_each(spatial), (stride, padding, dilation, extra)), strict=True)
    if transposed:
        size = [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, d, e in rows]
    else:
        size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, e in rows]
    return _empty(x, (x.shape[0], out, *size)) if min(size) > 0 else None


def _product(bias: Tensor, one: Tensor, other: Tensor, **options: Any) -> Tensor | None:
    fits = one.dim() == other.dim() == 2 and one.shape[1] == other.shape[0] and one.dtype == other.dtype
    whole = bias.dim() <= 1 and bias.numel() in (1, other.shape[-1]) and bias.dtype == one.dtype
    return _empty(one, (one.shape[0], other.shape[1])) if fits and whole else None


def _pointwise(*args: Any, **options: Any) -> Tensor | None:
    """Floating-point numbers of one type, repeated to one size."""
    tensors = [entry for entry in args if isinstance(entry, Tensor)]
    first = tensors[0]
    if (
        not first.is_floating_point()
        or any(t.dtype != first.dtype for t in tensors)
        or len(tensors) != len([entry for entry in args if not isinstance(entry, int | float | str)])
    ):
        return None
    axes = max(t.dim() for t in tensors)
    rows = list(zip(*((1,) * (axes - t.dim()) + tuple(t.shape) for t in tensors), strict=True))
    if any(len({*row} - {1}) > 1 for row in rows):
        return None
    return _empty(first, [n if (n := max(row)) > 1 else min(row) for row in rows])


def _inplace(*args: Any, **options: Any) -> Tensor | None:
    found = _pointwise(*args)
    return args[0] if found is not None and found.shape == args[0].shape else None


def _pooled(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), ceil: bool = False
) -> tuple[Tensor, Tensor] | None:
    rows = list(zip(x.shape[2:], *map(_each(2), (kernel, stride or kernel, padding, dilation)), strict=True))
    size = []
    for n, k, s, p, d in rows:
        room = n + 2 * p - d * (k - 1) - 1
        m = (room + (s - 1 if ceil else 0)) // s + 1
        size.append(m - 1 if ceil and (m - 1) * s >= n + p else m)
    if x.dim() != 4 or min(size) < 1 or any(2 * p > k for _, k, _, p, _ in rows):
        return None
    out = (*x.shape[:2], *size)
    return _empty(x, out), torch.empty(out, dtype=torch.int64, device="meta")


def _each(spatial: int) -> Callable[[Sequence[int]], Sequence[int]]:
    return lambda values: values if len(values) == spatial else list(values) * spatial


SIZES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_batch_norm.default: _normed,
    torch.ops.aten.convolution.default: _convolved,
    torch.ops.aten.mean.dim: _averaged,
    torch.ops.aten.add.Tensor: _pointwise,
    torch.ops.aten.mul.Tensor: _pointwise,
    torch.ops.aten.relu.default: _pointwise,
    torch.ops.aten.gelu.default: _pointwise,
    torch.ops.aten.silu.default: _pointwise,
    torch.ops.aten.sigmoid.default: _pointwise,
    torch.ops.aten.tanh.default: _pointwise,
    torch.ops.aten.hardtanh.default: _pointwise,
    torch.ops.aten.hardswish.default: _pointwise,
    torch.ops.aten.leaky_relu.default: _pointwise,
    torch.ops.aten.add_.Tensor: _inplace,
    torch.ops.aten.relu_.default: _inplace,
    torch.ops.aten.hardtanh_.default: _inplace,
    torch.ops.aten.silu_.default: _inplace,
    torch.ops.aten.addmm.default: _product,
    torch.ops.aten.max_pool2d_with_indices.default: _pooled,
}


# ------------------------------------------------------------------------------------------- arguments, memory, places


def tensors_of(output: Any) -> Iterator[Tensor]:
    """All tensors of an output, the first one first."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for entry in output.values():
            yield from tensors_of(entry)
    elif isinstance(output, list | tuple):
        for entry in output:
            yield from tensors_of(entry)
    elif is_dataclass(output):
        for entry in fields(output):
            yield from tensors_of(getattr(output, entry.name))


def flattened(entries: Any) -> Iterator[Any]:
    """All entries of lists in lists."""
    for entry in entries:
        if isinstance(entry, list | tuple):
            yield from flattened(entry)
        else:
            yield entry


def mapped(entry: Any, others: dict[int, Tensor]) -> Any:
    """The same with other tensors."""
    if isinstance(entry, list | tuple):
        return type(entry)(mapped(one, others) for one in entry)
    return others.get(id(entry), entry) if isinstance(entry, Tensor) else entry


@lru_cache(maxsize=1024)
def arguments_of(func: Any) -> list[tuple[str, Any, bool]]:
    """Name and default of each argument, and whether the operator writes to it."""
    return [
        (a.name, a.default_value, a.alias_info is not None and a.alias_info.is_write) for a in func._schema.arguments
    ]


def memory_of(tensor: Tensor) -> int:
    """Which memory a tensor lies in."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def caller() -> str:
    """File and line of the code that called PyTorch."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((*INSIDE, "<")):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame is not None else ""


def spot_of(error: BaseException) -> str:
    """File and line of the last code outside of PyTorch that an error went through."""
    found, step = "", error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if not name.startswith((*INSIDE, "<")) and name != contextlib.__file__:
            found = f"{Path(name).name}:{step.tb_lineno}"
        step = step.tb_next
    return found


def require_one_tensor(model: nn.Module) -> None:
    """Insist that a model takes one tensor.

    Raises:
        OptionError: It is none, takes more, or has no weights yet.
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        raise OptionError(f"{type(model).__name__} has lazy layers without weights; call the model once before.")
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    try:
        entries = list(signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # compiled code does not say
        return
    needed = [e.name for e in entries if e.default is Parameter.empty and e.kind in kinds]
    needed += [e.name for e in entries if e.default is Parameter.empty and e.kind == Parameter.KEYWORD_ONLY]
    if len(needed) > 1:
        raise OptionError(
            f"{type(model).__name__}.forward needs {len(needed)} arguments ({', '.join(needed)}), but one tensor is "
            "given; wrap the model in a module that takes one and fills in the others."
        )
