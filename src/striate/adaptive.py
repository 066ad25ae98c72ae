"""Poolings told how many outputs to give, and the way back from switches: windows that are not evenly spaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .borders import laid_like
from .computing import pools
from .computing.reference import accumulator
from .errors import GeometryError
from .geometry import frozen
from .graphs import applied, fixed, whole
from .pooling import avg_pool, max_pool
from .reductions import inverse, move, select

Spans = tuple[tuple[int, int], ...]


@whole
def adaptive_max_pool(x: Tensor, output_size: int | Sequence[int | None], *, return_switches: bool = False) -> Any:
    """The largest value of each of ``output_size`` bins of nearly equal length.

        out[n, c, *o] = max of x[n, c, floor(o n / outputs) : ceil((o + 1) n / outputs)]        (on every axis)

    The bins are PyTorch's; neighbours may share a position, and with more outputs than inputs they repeat some.

    Args:
        x: ``(N, C, *spatial)``, or ``(C, *spatial)`` when ``output_size`` names as many axes as that has.
        output_size: Outputs, one number per axis or None to keep that axis; a single number needs x with a batch.
        return_switches: Also return where each value came from, as :func:`striate.max_pool` does.

    Raises:
        GeometryError: An output size is below 1, there is not one per axis, or x is complex.

    >>> adaptive_max_pool(torch.tensor([[[1.0, 5.0, 2.0, 3.0]]]), 3)
    tensor([[[5., 5., 3.]]])
    """
    if x.is_complex():
        raise GeometryError(
            f"adaptive_max_pool: x is {x.dtype}; complex numbers have no largest, pool x.abs() instead."
        )
    if (native := _native("adaptive_max_pool", x, output_size, ADAPTIVE_MAX)) is not None:
        return native[0](x, native[1], return_indices=return_switches)
    bins = _bins("adaptive_max_pool", x, output_size)
    if (kernel := bins.kernel()) is not None:
        return max_pool(x, kernel, return_switches=return_switches)
    batched = x if x.dim() == len(bins.sizes) + 2 else x.unsqueeze(0)
    switches = bins.switches(batched.detach())
    values = select(batched, switches, bins)
    if x.dim() < batched.dim():
        values, switches = values.squeeze(0), switches.squeeze(0)
    values = laid_like(values, x)
    return (values, switches) if return_switches else values


@whole
def adaptive_avg_pool(x: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """The mean of each of ``output_size`` bins of nearly equal length.

        out[n, c, *o] = mean of x[n, c, floor(o n / outputs) : ceil((o + 1) n / outputs)]        (on every axis)

    Args:
        x: ``(N, C, *spatial)``, or ``(C, *spatial)`` when ``output_size`` names as many axes as that has.
        output_size: Outputs, one number per axis or None to keep that axis; a single number needs x with a batch.

    Raises:
        GeometryError: An output size is below 1, there is not one per axis, or x holds integers.

    >>> adaptive_avg_pool(torch.tensor([[[1.0, 5.0, 2.0, 3.0]]]), 3)
    tensor([[[3.0000, 3.5000, 2.5000]]])
    """
    if not (x.is_floating_point() or x.is_complex()):
        raise GeometryError(f"adaptive_avg_pool: x is {x.dtype}; a mean needs floating-point numbers, as in x.float().")
    if (native := _native("adaptive_avg_pool", x, output_size, ADAPTIVE_MEAN)) is not None:
        return native[0](x, native[1])
    bins = _bins("adaptive_avg_pool", x, output_size)
    if (kernel := bins.kernel()) is not None:
        return avg_pool(x, kernel)
    total = x.to(accumulator(x.dtype))
    first = x.dim() - len(bins.sizes)
    for dim, (size, outputs) in enumerate(zip(bins.sizes, bins.outputs, strict=True), start=first):
        if size != outputs:
            lengths = _lengths(size, outputs, x.device).view(-1, *[1] * (x.dim() - 1 - dim))
            total = _sums(total, dim, size, outputs) / lengths
    return laid_like(total.to(x.dtype), x)


@whole
def max_unpool(x: Tensor, switches: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Each value put back at its switch, zeros elsewhere: what :func:`striate.max_pool` keeps, where it found it.

        out[n, c, switches[n, c, o]] = x[n, c, o]

    The unpooling of M. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 2.1.
    Where overlapping windows share a switch, the value of the first window stands (pooled values are equal there), and
    only that window gets the gradient: the same on every run, unlike ``torch.nn.functional.max_unpool2d``.

    Args:
        x: ``(N, C, *out)``, or ``(C, *out)`` when ``output_size`` names as many axes as that has.
        switches: As ``max_pool(..., return_switches=True)`` gives them: int64, of the shape of x.
        output_size: Positions per axis of the map that was pooled; a single number needs x with a batch.

    Raises:
        GeometryError: The switches are not int64, not of the shape of x, or point outside the output.

    >>> pooled, switches = max_pool(torch.tensor([[[1.0, 5.0, 2.0, 3.0]]]), 2, return_switches=True)
    >>> max_unpool(pooled, switches, 4)
    tensor([[[0., 5., 0., 3.]]])
    """
    size = _output_size("max_unpool", x, output_size)
    if None in size:
        raise GeometryError(f"max_unpool: output_size={output_size!r} must name every axis.")
    if switches.dtype != torch.int64 or switches.shape != x.shape:
        raise GeometryError(
            f"max_unpool: switches must be torch.int64 of the shape of x, {tuple(x.shape)}; got {switches.dtype} of "
            f"shape {tuple(switches.shape)}; max_pool(..., return_switches=True) gives them."
        )
    axes = len(size)
    flat = x.flatten(x.dim() - axes)
    values, where = (t if x.dim() == axes + 2 else t.unsqueeze(0) for t in (flat, switches.flatten(x.dim() - axes)))
    origin, goal = inverse(where, prod(size))
    out = move(values, origin, goal)
    return laid_like((out if x.dim() == axes + 2 else out.squeeze(0)).unflatten(-1, size), x)


@whole
def maxout(x: Tensor, pieces: int) -> Tensor:
    """The largest of each ``pieces`` neighbouring channels.

        out[n, c] = max of x[n, c * pieces : (c + 1) * pieces]

    I. Goodfellow, D. Warde-Farley, M. Mirza, A. Courville and Y. Bengio, "Maxout Networks", 2013, section 3. The
    gradient goes to the first of the largest.

    Args:
        x: ``(N, C, ...)``.
        pieces: Channels that compete; it divides C.

    Returns:
        ``(N, C / pieces, ...)``.

    Raises:
        GeometryError: pieces does not divide the channels, or x is complex.

    >>> maxout(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), 2)
    tensor([[4., 3.]])
    """
    if x.is_complex():
        raise GeometryError(f"maxout: x is {x.dtype}; complex numbers have no largest, give x.abs() instead.")
    if x.dim() < 2:
        raise GeometryError(f"maxout: x must be (N, C, ...), got shape {tuple(x.shape)}.")
    channels = int(x.shape[1])
    if type(pieces) is not int or pieces < 1 or channels % pieces:
        raise GeometryError(
            f"maxout: pieces={pieces!r} does not divide the {channels} channels of x; it must be a whole number that "
            "does."
        )
    return laid_like(x.unflatten(1, (channels // pieces, pieces)).max(2).values, x)


# ----------------------------------------------------------------------------------------------------------------- bins

ADAPTIVE_MAX: dict[int, Any] = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
ADAPTIVE_MEAN: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def _native(name: str, x: Tensor, output_size: Any, functions: dict[int, Any]) -> tuple[Any, Any] | None:
    """PyTorch's own pooling and its output size, for uneven bins, where its gradient is added in a fixed order."""
    outputs = _output_size(name, x, output_size)
    size = x.shape[-len(outputs) :]
    served = len(outputs) in functions and x.device.type in pools.ORDERED and x.is_floating_point()
    is_open = any(isinstance(n, torch.SymInt) for n in size)
    if not served or (not is_open and (0 in x.shape or _bins(name, x, output_size).kernel() is not None)):
        return None
    if torch.compiler.is_exporting() and not is_open:  # ONNX has no node for these
        return None
    wanted = [n if o is None else o for n, o in zip(size, outputs, strict=True)]
    return functions[len(outputs)], wanted[0] if len(wanted) == 1 else wanted


@lru_cache(maxsize=1024)
def spans(size: int, outputs: int) -> Spans:
    """The first input of each bin and the one after its last.

    The bins that hold an input follow by the same formula with inputs and outputs exchanged: ``spans(outputs, size)``.

    >>> spans(4, 3), spans(3, 4)
    (((0, 2), (1, 3), (2, 4)), ((0, 1), (0, 2), (1, 3), (2, 3)))
    """
    return tuple((o * size // outputs, -(-(o + 1) * size // outputs)) for o in range(outputs))


@lru_cache(maxsize=1024)
def reads(size: int, outputs: int) -> tuple[tuple[int, ...], ...]:
    """:func:`spans` written out as positions; bins shorter than the longest repeat their last position.

    >>> reads(3, 4)
    ((0, 0), (0, 1), (1, 2), (2, 2))
    """
    bins = spans(size, outputs)
    longest = max(end - start for start, end in bins)
    return tuple(tuple(min(start + step, end - 1) for step in range(longest)) for start, end in bins)


def _gathered(x: Tensor, dim: int, size: int, outputs: int) -> Tensor:
    """What each bin reads, on a new dimension after ``dim``."""
    index = torch.tensor(reads(size, outputs), device=x.device)
    return x.index_select(dim, index.flatten()).unflatten(dim, index.shape)


def _lengths(size: int, outputs: int, device: torch.device) -> Tensor:
    return torch.tensor([end - start for start, end in spans(size, outputs)], device=device)


def _real(size: int, outputs: int, device: torch.device) -> Tensor:
    """``(bins, longest)``: which of :func:`reads` are not repeated."""
    longest = len(reads(size, outputs)[0])
    return torch.arange(longest, device=device) < _lengths(size, outputs, device)[:, None]


class Sums(torch.autograd.Function):
    """The sum of each bin of one axis; its adjoint is the sum, for each input, over the bins that hold it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dim: int, size: int, outputs: int) -> Tensor:
        """Gather and add, without atomics: the same bits on every device."""
        real = _real(size, outputs, x.device).view(outputs, -1, *[1] * (x.dim() - 1 - dim))
        return torch.where(real, _gathered(x, dim, size, outputs), 0).sum(dim + 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the numbers."""
        _, ctx.dim, ctx.size, ctx.outputs = inputs

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Any, ...]:
        """The adjoint."""
        return _sums(outputs[0], ctx.dim, ctx.outputs, ctx.size), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Linear: the same of the tangent."""
        return _sums(tangents[0], ctx.dim, ctx.size, ctx.outputs)


def _sums(x: Tensor, dim: int, size: int, outputs: int) -> Tensor:
    function: Callable[..., Tensor] = applied(Sums)
    return function(x, dim, size, outputs)


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of every axis.

    Args:
        sizes: Inputs per axis.
        outputs: Bins per axis.
    """

    sizes: tuple[int, ...]
    outputs: tuple[int, ...]

    def kernel(self) -> tuple[int, ...] | None:
        """The common length of the bins, where they are windows side by side."""
        even = all(n % o == 0 for n, o in zip(self.sizes, self.outputs, strict=True))
        return tuple(n // o for n, o in zip(self.sizes, self.outputs, strict=True)) if even else None

    def switches(self, x: Tensor) -> Tensor:
        """The flat position of each bin's largest value, the first on a tie: rows first, then over the rows."""
        values, places, unit = x, torch.zeros((), dtype=torch.int64, device=x.device).expand(x.shape), 1
        for number in reversed(range(len(self.sizes))):
            dim, size, outputs = number + 2, self.sizes[number], self.outputs[number]
            places = places + unit * torch.arange(size, device=x.device).view(-1, *[1] * (x.dim() - 1 - dim))
            values, wins = _gathered(values, dim, size, outputs).max(dim + 1, keepdim=True)
            places = _gathered(places, dim, size, outputs).gather(dim + 1, wins).squeeze(dim + 1)
            values, unit = values.squeeze(dim + 1), unit * size
        return places

    def spread(self, y: Tensor, switches: Tensor) -> Tensor:
        """``x[i] = sum of y[o] over the bins with switches[o] = i``."""
        if y.device.type not in pools.ORDERED:
            return self.spread_by_reads(y, switches)
        zeros = y.new_zeros(*y.shape[:2], prod(self.sizes), dtype=accumulator(y.dtype))
        flat = zeros.scatter_add(2, switches.flatten(2), y.flatten(2).to(zeros.dtype))
        return flat.view(*y.shape[:2], *self.sizes).to(y.dtype)

    def spread_by_reads(self, y: Tensor, switches: Tensor) -> Tensor:
        """The same without atomics: each input asks the few bins that hold it whether their switch says so."""
        device, axes = y.device, list(zip(self.sizes, self.outputs, strict=True))
        tables = [torch.tensor(reads(o, n), device=device) for n, o in axes]
        masks = [_real(o, n, device) for n, o in axes]
        positions = torch.arange(prod(self.sizes), device=device).view(self.sizes)
        total = y.new_zeros(*y.shape[:2], *self.sizes, dtype=accumulator(y.dtype))
        for taps in product(*(range(table.shape[1]) for table in tables)):
            values, places, real = y, switches, torch.ones((), dtype=torch.bool, device=device)
            for dim, (tap, table, mask) in enumerate(zip(taps, tables, masks, strict=True), start=2):
                values, places = (t.index_select(dim, table[:, tap]) for t in (values, places))
                real = real.unsqueeze(-1) & mask[:, tap]
            total += torch.where(real & (places == positions), values, 0)
        return total.to(y.dtype)


def _bins(name: str, x: Tensor, output_size: Any) -> Bins:
    outputs = _output_size(name, x, output_size)
    size = fixed(name, x.shape[-len(outputs) :])
    if 0 in size:
        raise GeometryError(f"{name}: x of shape {tuple(x.shape)} has no inputs to share out; at least 1 is needed.")
    return Bins(size, tuple(n if o is None else o for n, o in zip(size, outputs, strict=True)))


def _output_size(name: str, x: Tensor, output_size: Any) -> tuple[Any, ...]:
    given = frozen("output_size", output_size)
    axes = len(given) if isinstance(given, tuple) else x.dim() - 2
    if axes < 1 or x.dim() not in (axes + 1, axes + 2):
        raise GeometryError(
            f"{name}: output_size={given!r} and x of shape {tuple(x.shape)} do not fit: x must be (N, C, *spatial), or "
            "(C, *spatial) with one output size for each of its spatial axes."
        )
    outputs = given if isinstance(given, tuple) else (given,) * axes
    for n in outputs:
        if n is not None and (type(n) is not int or n < 1):
            raise GeometryError(f"{name}: an output size must be a whole number of at least 1, got {n!r}.")
    return outputs
