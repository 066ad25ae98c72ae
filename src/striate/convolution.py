"""Convolution and transposed convolution on any number of axes: where tensors meet the geometry, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import padding as padding_words
from .computing import Problem, as_given, autocasts, find, vendor
from .errors import GeometryError, unknown_name
from .geometry import Axis, Geometry, frozen
from .planning import choose, towards

OPTIONS = ("stride", "padding", "dilation", "groups", "output_padding")


class Convolution(torch.autograd.Function):
    """A convolution by a planned algorithm, whose gradients are planned convolutions again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, problem: Problem, algorithm: str | None) -> Tensor:
        """Run the forward plan."""
        chosen = find("convolution", choose(problem, algorithm).algorithm)
        return chosen.run(x, chosen.prepare(weight, problem), problem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradients need."""
        x, weight, ctx.problem, ctx.algorithm = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Ask for the geometries of both gradients and run them as convolutions of their own."""
        (gradient,) = outputs
        x, weight = ctx.saved_tensors
        to_input = to_weight = None
        if ctx.needs_input_grad[0]:
            adjoint = towards(ctx.problem, "input_gradient")
            to_input = convolve(gradient, weight.conj(), adjoint, ctx.algorithm)
        if ctx.needs_input_grad[1]:
            image, kernel = (gradient, x.conj()) if ctx.problem.geometry.transposed else (x.conj(), gradient)
            to_weight = _weight_gradient(image, kernel, towards(ctx.problem, "weight_gradient"), ctx.algorithm)
        return to_input, to_weight, None, None


convolve: Callable[..., Tensor] = Convolution.apply


def _weight_gradient(image: Tensor, kernel: Tensor, problem: Problem, algorithm: str | None) -> Tensor:
    """Convolve with batch and channels exchanged, group by group: ``(C/g, g*N, *) * (O, N, *) -> (O, C/g, *K)``."""
    groups = problem.geometry.groups
    images = image.unflatten(1, (groups, -1)).movedim(2, 0).transpose(1, 2).flatten(1, 2)
    kernels = kernel.transpose(0, 1)
    return convolve(images, kernels, problem, algorithm).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class _Call:
    """One convolution call, checked: everything but the tensors."""

    problem: Problem
    sources: tuple[tuple[int, ...], ...] | None
    vendor: bool


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
    window = (*map(frozen, OPTIONS, (stride, padding, dilation, groups, 0)), False)
    call = _bind(*_facts(x), *_facts(weight), *window, padding_mode, algorithm)
    if flip:
        weight = weight.flip(tuple(range(2, weight.dim())))
    return _run(x, weight, bias, call, algorithm)


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
        algorithm: Ask for one of :func:`striate.algorithms` by name.

    Raises:
        GeometryError: The shapes do not fit each other or the window.
        UnknownNameError: No such padding word or algorithm.
        AlgorithmError: The algorithm asked for cannot serve this window.

    >>> conv_transpose(torch.ones(1, 1, 2), torch.tensor([[[1.0, 2.0, 3.0]]]), stride=2)
    tensor([[[1., 2., 4., 2., 3.]]])
    """
    window = (*map(frozen, OPTIONS, (stride, padding, dilation, groups, output_padding)), True)
    call = _bind(*_facts(x), *_facts(weight), *window, "zeros", algorithm)
    return _run(x, weight, bias, call, algorithm)


def _facts(tensor: Tensor) -> tuple[torch.Size, torch.dtype, str]:
    """Shape, the type to compute in (autocast's, where that is on and applies) and kind of device."""
    device = tensor.device.type
    lowered = autocasts(device) and tensor.dtype.is_floating_point and tensor.dtype != torch.float64
    return tensor.shape, torch.get_autocast_dtype(device) if lowered else tensor.dtype, device


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, call: _Call, algorithm: str | None) -> Tensor:
    problem = call.problem
    per_channel = bias is None or bias.dim() == 1
    if bias is not None:
        _check_bias(bias, problem)
    batched = x if x.dim() == weight.dim() else x.unsqueeze(0)
    if call.sources is not None:
        for axis, positions in enumerate(call.sources, start=2):
            batched = batched.index_select(axis, torch.tensor(positions, device=x.device))
    if call.vendor:
        y = vendor.Convolution().call(batched, weight, bias if per_channel else None, problem)
    else:
        with as_given(problem.device):
            y = convolve(batched.to(problem.dtype), weight.to(problem.dtype), problem, algorithm)
    if bias is not None and not (call.vendor and per_channel):
        y = y + (bias.view(-1, *(1 for _ in problem.size)) if per_channel else bias).to(y.dtype)
    return y if x.dim() == weight.dim() else y.squeeze(0)


@lru_cache(maxsize=4096, typed=True)
def _bind(
    x: torch.Size,
    dtype: torch.dtype,
    device: str,
    weight: torch.Size,
    weight_dtype: torch.dtype,
    weight_device: str,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    output_padding: Any,
    transposed: bool,
    mode: str,
    algorithm: str | None,
) -> _Call:
    """Compare shapes with the geometry; every later step relies on this."""
    name = "conv_transpose" if transposed else "conv"
    axes = len(weight) - 2
    _check_dimensions(name, x, weight, axes)
    if dtype != weight_dtype:
        raise GeometryError(
            f"{name}: x is {dtype} but weight is {weight_dtype}; convert one, as in x.to(weight.dtype)."
        )
    if device != weight_device:
        raise GeometryError(
            f"{name}: x is on {device} but weight is on {weight_device}; move one, as in x.to(weight.device)."
        )
    size = tuple(x[-axes:])
    try:
        geometry = Geometry.window(
            axes, weight[2:], stride=stride, padding=padding, dilation=dilation, groups=groups,
            transposed=transposed, output_padding=output_padding, size=None if transposed else size,
        )  # fmt: skip
        outputs = _check_channels(x, weight, geometry)
        if 0 in size:
            raise GeometryError(f"x has no inputs on spatial axis {size.index(0)}; at least 1 is needed.")
        geometry, sources = _explicit(geometry, size, mode)
        size = tuple(len(s) for s in sources) if sources else size
        geometry.output_size(size)
    except GeometryError as error:
        raise GeometryError(f"{name} of x {tuple(x)} with weight {tuple(weight)}: {error}") from None
    channels = x[-axes - 1]
    problem = Problem("convolution", geometry, x[0] if len(x) > axes + 1 else 1, channels, outputs, size, dtype, device)
    plans = {choose(towards(problem, d), algorithm).algorithm for d in ("forward", "input_gradient", "weight_gradient")}
    return _Call(problem, sources, plans == {"vendor"})


def _check_dimensions(name: str, x: torch.Size, weight: torch.Size, axes: int) -> None:
    if axes < 1:
        layout = "(C, O/groups, *K)" if name == "conv_transpose" else "(O, C/groups, *K)"
        raise GeometryError(
            f"{name}: weight must be {layout} with at least one spatial axis, got shape {tuple(weight)}."
        )
    if len(x) not in (axes + 1, axes + 2):
        raise GeometryError(
            f"{name}: weight {tuple(weight)} has {axes} spatial {'axis' if axes == 1 else 'axes'}, so x needs "
            f"{axes + 2} dimensions, (N, C, *spatial), or {axes + 1} without a batch; got shape {tuple(x)}."
        )


def _check_channels(x: torch.Size, weight: torch.Size, geometry: Geometry) -> int:
    """The output channels, if x and weight agree on the channels."""
    axes = len(geometry.axes)
    channels, groups = x[-axes - 1], geometry.groups
    expected, outputs = weight[1] * groups, weight[0]
    if geometry.transposed:
        expected, outputs = weight[0], weight[1] * groups
    if channels != expected:
        batch = "1" if len(x) == axes + 2 else "0"
        hint = f" x looks channels-last: give x.movedim(-1, {batch})." if x[-1] == expected else ""
        raise GeometryError(f"x has {channels} channels, but the weight with groups={groups} takes {expected}.{hint}")
    geometry.weight_shape(channels, outputs)
    return outputs


def _check_bias(bias: Tensor, problem: Problem) -> None:
    _, dtype, device = _facts(bias)
    if (dtype, device) != (problem.dtype, problem.device):
        raise GeometryError(
            f"bias is {dtype} on {device}, but x and weight are {problem.dtype} on {problem.device}; "
            "convert it, as in bias.to(weight)."
        )
    if tuple(bias.shape) == (problem.out_channels,):
        return
    per_position = (problem.out_channels, *problem.output_size)
    if tuple(bias.shape) != per_position:
        raise GeometryError(
            f"bias has shape {tuple(bias.shape)}; expected ({problem.out_channels},), one per output channel, "
            f"or {per_position}, one per output position."
        )


def _explicit(
    geometry: Geometry, size: tuple[int, ...], mode: str
) -> tuple[Geometry, tuple[tuple[int, ...], ...] | None]:
    """For a padding mode other than zeros: the unpadded window, and where each padded position comes from."""
    if mode not in padding_words.MODES:
        raise unknown_name("padding mode", mode, padding_words.MODES)
    if mode == "zeros" or not any(axis.before or axis.after for axis in geometry.axes):
        return geometry, None
    sources = tuple(
        tuple(padding_words.sources(mode, n, axis.before, axis.after))
        for axis, n in zip(geometry.axes, size, strict=True)
    )
    bare = tuple(Axis(axis.kernel, axis.stride, axis.dilation) for axis in geometry.axes)
    return Geometry(bare, geometry.groups, geometry.flip, geometry.transposed), sources
