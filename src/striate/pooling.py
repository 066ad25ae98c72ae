"""Poolings: the same sliding window, with a maximum or a mean in place of the sum of products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from .computing import Problem, find
from .computing.reference import accumulator
from .errors import GeometryError
from .geometry import Axis, Geometry, frozen
from .planning import choose
from .taps import counts, require_real_reads


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
    if x.is_complex():
        raise GeometryError(f"max_pool: x is {x.dtype}; complex numbers have no largest, pool x.abs() instead.")
    call, batched = _enter("max_pool", x, kernel, stride, padding, dilation, ceil)
    if not return_switches:
        return _leave(_compute("maximum", batched, call), x, batched)
    switches = _compute("switches", batched.detach(), call)
    values = batched.flatten(2).gather(2, switches.flatten(2)).view(switches.shape)
    return _leave(values, x, batched), _leave(switches, x, batched)


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
    if not (x.is_floating_point() or x.is_complex()):
        raise GeometryError(f"avg_pool: x is {x.dtype}; a mean needs floating-point numbers, as in x.float().")
    call, batched = _enter("avg_pool", x, kernel, stride, padding, dilation, ceil)
    if divisor is not None:
        if type(divisor) is not int or divisor == 0:
            raise GeometryError(f"avg_pool: divisor must be a whole number other than 0, got divisor={divisor!r}.")
        return _leave(_compute("sum", batched, call, divisor=divisor), x, batched)
    divisors = call.padded_counts if count_padding else call.real_counts
    if all(len(set(axis)) == 1 for axis in divisors):
        return _leave(_compute("sum", batched, call, divisor=prod([axis[0] for axis in divisors])), x, batched)
    total = _compute("sum", batched.to(accumulator(x.dtype)), call)
    windows = torch.ones((), dtype=total.dtype, device=x.device)
    for axis in divisors:
        windows = windows.unsqueeze(-1) * torch.tensor(axis, dtype=total.dtype, device=x.device)
    return _leave((total / windows).to(x.dtype), x, batched)


@dataclass(frozen=True, slots=True)
class _Window:
    """One pooling call, checked: the geometry (ceil made explicit) and what its means are divided by, per axis."""

    geometry: Geometry
    real_counts: tuple[tuple[int, ...], ...]
    padded_counts: tuple[tuple[int, ...], ...]


def _enter(
    name: str, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> tuple[_Window, Tensor]:
    kernel = frozen("kernel", kernel)
    axes = len(kernel) if isinstance(kernel, tuple) else x.dim() - 2
    if axes < 1 or x.dim() not in (axes + 1, axes + 2):
        raise GeometryError(
            f"{name}: kernel={kernel!r} and x of shape {tuple(x.shape)} do not fit: x must be (N, C, *spatial), or "
            "(C, *spatial) with one kernel number for each of its spatial axes."
        )
    stride = kernel if stride is None else frozen("stride", stride)
    options = (kernel, stride, frozen("padding", padding), frozen("dilation", dilation))
    call = _window(name, axes, tuple(x.shape[-axes:]), *options, bool(ceil))
    return call, x if x.dim() == axes + 2 else x.unsqueeze(0)


def _leave(y: Tensor, x: Tensor, batched: Tensor) -> Tensor:
    return y if x.dim() == batched.dim() else y.squeeze(0)


def _compute(operation: str, x: Tensor, call: _Window, divisor: int = 1) -> Tensor:
    batch, channels, *size = x.shape
    problem = Problem(operation, call.geometry, batch, channels, channels, tuple(size), x.dtype, x.device.type, divisor)
    return find(operation, choose(problem).algorithm).run(x, None, problem)


@lru_cache(maxsize=4096, typed=True)
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
    return _Window(window, real, padded)


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
