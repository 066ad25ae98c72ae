"""Ragged batches: images of different sizes through one network in one call, as if each went through alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from . import layers, pooling_layers
from .convolution import conv
from .errors import GeometryError, OptionError, unknown_name
from .geometry import Geometry
from .networks import Network
from .pooling import avg_pool, max_pool

METHODS = ("auto", "group", "mask")
FEW = 4
CONVOLUTIONS = (layers.Conv1d, layers.Conv2d, layers.Conv3d, nn.Conv1d, nn.Conv2d, nn.Conv3d)
MAX_POOLS = (*pooling_layers.MAX_POOL.values(), nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVG_POOLS = (*pooling_layers.AVG_POOL.values(), nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE = (
    *(getattr(pooling_layers, f"Adaptive{kind}Pool{axes}d") for kind in ("Max", "Avg") for axes in (1, 2, 3)),
    *(getattr(nn, f"Adaptive{kind}Pool{axes}d") for kind in ("Max", "Avg") for axes in (1, 2, 3)),
)
POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softsign, nn.Identity),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
)
WHOLE = (nn.Flatten, nn.Linear, layers.FullyConnected, nn.Softmax, nn.LogSoftmax)
Size = tuple[int, ...]


class _SizesError(OptionError):
    """What only the sizes show: this layer needs all images to have one size."""


def ragged(network: nn.Module, images: Sequence[Tensor], *, method: str = "auto") -> list[Tensor]:
    """Images of different sizes through a network in one call, each as if it went through alone.

        ragged(network, images)[i] = network(images[i].unsqueeze(0))[0]

    Two ways. "group" stacks images of equal size and runs the network once per size: right for any network whose
    examples do not mix. "mask" pads all images to one size and runs once; after each window the positions outside of an
    image's own output are set to what padding holds, so that nothing leaks in. It serves chains (a
    :class:`striate.networks.Network`, ``torch.nn.Sequential``, nested) of convolutions with zero padding, max and mean
    poolings, pointwise layers, batch normalization with running statistics, adaptive poolings, and after those Flatten
    and fully connected layers, from torch.nn or :mod:`striate.nn`. "auto" masks where that is possible, there are more
    than 4 sizes, and the padded images hold at most twice the positions of the images; it groups otherwise.

    Both equal one image at a time bit for bit where sums are exact, and to rounding elsewhere. A network needs a
    proportional (adaptive) pooling before its classifier to take any size.

    Args:
        network: Any module from ``(N, C, *spatial)`` to a tensor of N outputs.
        images: Tensors ``(C, *spatial)`` with the same channels, type and device.
        method: "auto", "group" or "mask".

    Returns:
        The outputs in the order of the images.

    Raises:
        GeometryError: The images do not go together, or one of them is too small; the message names it.
        OptionError: There are no images, one is no tensor, batch normalization is training, or the network cannot be
            masked; the message names the layer.
        UnknownNameError: No such method.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)).eval()
    >>> [tuple(y.shape) for y in ragged(network, [torch.zeros(3, 9, 7), torch.zeros(3, 5, 12)])]
    [(5,), (5,)]
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    images = list(images)
    _check(images)
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise OptionError(
                f"ragged: {_called(name, module)} normalizes by the statistics of its batch, "
                "which here would be those of some "
                "of the images; call network.eval(), or give batch normalization running statistics."
            )
    sizes = [tuple(image.shape[1:]) for image in images]
    steps = [] if method == "group" else list(_chain(network))
    refusal = next((reason for reason in map(_refusal, steps) if reason), None)
    if method == "mask" and refusal:
        raise OptionError(f"ragged: {refusal} Use method='group'.")
    if method == "mask" or (method == "auto" and refusal is None and _worth_masking(sizes)):
        try:
            return _masked(steps, images)
        except _SizesError:
            if method == "mask":
                raise
    return _grouped(network, images, sizes)


def _check(images: list[Tensor]) -> None:
    if not images:
        raise OptionError("ragged: there are no images; give a list of one or more tensors (C, *spatial).")
    for number, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise OptionError(
                f"ragged: image {number} is a {type(image).__name__}, not a tensor; give torch.as_tensor(image)."
            )
        if image.dim() < 2:
            raise GeometryError(f"ragged: image {number} has shape {tuple(image.shape)}; it must be (C, *spatial).")
        first = images[0]
        if (image.dim(), image.shape[0]) != (first.dim(), first.shape[0]):
            raise GeometryError(
                f"ragged: image {number} has shape {tuple(image.shape)}, but image 0 has {tuple(first.shape)}; "
                "only spatial sizes may differ, not the number of channels or axes."
            )
        if (image.dtype, image.device) != (first.dtype, first.device):
            raise GeometryError(
                f"ragged: image {number} is {image.dtype} on {image.device}, but image 0 is {first.dtype} on "
                f"{first.device}; convert one, as in image.to(images[0])."
            )


def _called(name: str, module: nn.Module) -> str:
    return f"layer {name!r} ({type(module).__name__})" if name else f"the {type(module).__name__}"


def _numbered(numbers: list[int]) -> str:
    words = ", ".join(map(str, numbers))
    return f"image {words}" if len(numbers) == 1 else f"images {words}"


def _grouped(network: nn.Module, images: list[Tensor], sizes: list[Size]) -> list[Tensor]:
    outputs: dict[int, Tensor] = {}
    for size in dict.fromkeys(sizes):
        numbers = [number for number, other in enumerate(sizes) if other == size]
        who = f"ragged: {_numbered(numbers)} of shape {tuple(images[numbers[0]].shape)}"
        batch = torch.stack([images[number] for number in numbers])
        try:
            y = network(batch)
        except GeometryError as error:
            raise GeometryError(f"{who}, at {_last_entered(network, batch)}: {error}") from None
        except RuntimeError as error:
            error.add_note(f"{who}, at {_last_entered(network, batch)}")
            raise
        if not isinstance(y, Tensor) or y.dim() < 1 or len(y) != len(numbers):
            got = f"a tensor of shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise OptionError(
                f"{who}: the network returned {got}; it must return one tensor with an output for each image."
            )
        outputs |= zip(numbers, y.unbind(), strict=True)
    return [outputs[number] for number in range(len(images))]


def _last_entered(network: nn.Module, batch: Tensor) -> str:
    """The layer at which a batch fails, found by letting it fail again."""
    entered = [_called("", network)]

    def watch(name: str, module: nn.Module) -> Any:
        return module.register_forward_pre_hook(lambda *_: entered.append(_called(name, module)))

    hooks = [watch(name, module) for name, module in network.named_modules() if not list(module.children())]
    try:
        with torch.no_grad():
            network(batch)
    except (GeometryError, RuntimeError):
        return entered[-1]
    finally:
        for hook in hooks:
            hook.remove()
    return entered[0]


def _worth_masking(sizes: list[Size]) -> bool:
    common = prod(map(max, zip(*sizes, strict=True)))
    return len(set(sizes)) > FEW and common * len(sizes) <= 2 * sum(map(prod, sizes))


@dataclass(frozen=True, slots=True)
class _Step:
    """One layer of a chain."""

    name: str
    module: nn.Module

    def __str__(self) -> str:
        return _called(self.name, self.module)


@dataclass(frozen=True, slots=True)
class _Padded:
    """Images side by side in one tensor; image n fills ``sizes[n]`` of its place, and the rest means nothing."""

    values: Tensor
    sizes: tuple[Size, ...]

    @staticmethod
    def of(images: Sequence[Tensor]) -> _Padded:
        """Each at the start of its place."""
        sizes = tuple(tuple(image.shape[1:]) for image in images)
        common = tuple(map(max, zip(*sizes, strict=True)))
        padded = [
            F.pad(image, [p for n, m in zip(size[::-1], common[::-1], strict=True) for p in (0, m - n)])
            for image, size in zip(images, sizes, strict=True)
        ]
        return _Padded(torch.stack(padded), sizes)

    def images(self) -> list[Tensor]:
        """Each by itself."""
        return [x[(slice(None), *map(slice, size))] for x, size in zip(self.values, self.sizes, strict=True)]

    def filled(self, value: float) -> Tensor:
        """The tensor with this value outside of the images."""
        if len(set(self.sizes)) == 1 and self.values.shape[2:] == self.sizes[0]:
            return self.values
        axes = self.values.dim() - 2
        inside = torch.ones((), dtype=torch.bool, device=self.values.device)
        for axis in range(axes):
            ends = torch.tensor([size[axis] for size in self.sizes], device=self.values.device)
            rows = torch.arange(self.values.shape[2 + axis], device=self.values.device) < ends[:, None]
            inside = inside & rows.view(len(ends), 1, *(-1 if other == axis else 1 for other in range(axes)))
        return torch.where(inside, self.values, value)

    def firsts(self) -> dict[Size, int]:
        """The first image of each size."""
        return {size: number for number, size in reversed(list(enumerate(self.sizes)))}

    def through(self, y: Tensor, outputs: dict[Size, Size]) -> _Padded:
        """What came out, without the positions that no image has."""
        common = map(max, zip(*outputs.values(), strict=True))
        return _Padded(y[(slice(None), slice(None), *map(slice, common))], tuple(outputs[size] for size in self.sizes))

    def windows(self, value: float, windows: dict[Size, Geometry], outputs: dict[Size, Size]) -> tuple[Tensor, Any]:
        """The filled tensor and the ``(before, after)`` rows of padding with which one window serves all images.

        A "same" padding with a stride may put different numbers of rows before images of different sizes; then each
        image is moved by what it has more than the least of them.
        """
        x = self.filled(value)
        pairs = []
        for axis in range(x.dim() - 2):
            own = {size: window.axes[axis] for size, window in windows.items()}
            least = min(a.before for a in own.values())
            shifts = [own[size].before - least for size in self.sizes]
            if any(shifts):
                rows = x.new_full((*x.shape[: 2 + axis], max(shifts), *x.shape[3 + axis :]), value)
                wide = torch.cat([x, rows], dim=2 + axis)
                x = torch.stack([image.roll(n, 1 + axis) for image, n in zip(wide, shifts, strict=True)])
            any_axis = next(iter(own.values()))
            needed = (max(size[axis] for size in outputs.values()) - 1) * any_axis.stride + any_axis.extent
            pairs.append((least, max(needed - least - x.shape[2 + axis], 0)))
        return x, tuple(pairs)


def _chain(module: nn.Module, name: str = "") -> Iterator[_Step]:
    """The layers of a chain in order; what is no chain stands for itself."""
    plain = type(module).forward in (nn.Sequential.forward, Network.forward) and not _hooked(module)
    plain = plain and getattr(module, "is_chain", True)
    if not plain:
        yield _Step(name, module)
        return
    for child_name, child in module.named_children():
        yield from _chain(child, f"{name}.{child_name}" if name else child_name)


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def _is(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> TypeGuard[Any]:
    """Whether the module computes what one of the classes does; what others derive from them may compute anything."""
    known = type(module).__module__.startswith(("striate.", "torch.nn.")) and "forward" not in vars(module)
    return known and any(isinstance(module, kind) and type(module).forward is kind.forward for kind in classes)


def _refusal(step: _Step) -> str | None:
    """Why a layer cannot be masked, or None."""
    module = step.module
    if _hooked(module):
        return f"{step} has hooks, which masking would not call."
    if _is(module, CONVOLUTIONS):
        mode = module.padding_mode
        return None if mode == "zeros" else f"{step} pads with {mode!r}, which each image has of its own."
    if _is(module, (*MAX_POOLS, *ADAPTIVE)):
        return f"{step} also returns indices." if getattr(module, "return_indices", False) else None
    if _is(module, (nn.Flatten,)) and module.start_dim < 1:
        return f"{step} begins at dimension {module.start_dim}, where it may take in the batch."
    if _is(module, (nn.Softmax, nn.LogSoftmax)) and module.dim not in (1, -1):
        return f"{step} has dim={module.dim}; only 1 and -1 stay within one image."
    if _is(module, (*AVG_POOLS, *POINTWISE, *WHOLE)):
        return None
    return f"{step} is no layer that can be masked."


def _masked(steps: list[_Step], images: list[Tensor]) -> list[Tensor]:
    batch = _Padded.of(images)
    for step in steps:
        try:
            batch = _through(step, batch)
        except GeometryError as error:
            raise GeometryError(f"ragged: {error}") from None
    return batch.images()


def _through(step: _Step, batch: _Padded) -> _Padded:
    module = step.module
    if _is(module, CONVOLUTIONS):
        return _convolved(step, batch)
    if _is(module, (*MAX_POOLS, *AVG_POOLS)):
        return _pooled(step, batch)
    if _is(module, ADAPTIVE):
        return _Padded.of([_alone(step, number, batch) for number in range(len(batch.sizes))])
    if _is(module, POINTWISE):
        return replace(batch, values=module(batch.values))
    return _read_whole(step, batch)


def _alone(step: _Step, number: int, batch: _Padded, like: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The layer's answer to one image; a complaint names both."""
    image = batch.values[number][(slice(None), *map(slice, batch.sizes[number]))]
    image = image if like is None else like(image)
    try:
        return step.module(image.unsqueeze(0))[0]
    except (GeometryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise GeometryError(f"image {number} reaches {step} as {tuple(image.shape)}: {error}") from None


def _convolved(step: _Step, batch: _Padded) -> _Padded:
    layer: Any = step.module
    options: dict[str, Any] = {name: getattr(layer, name) for name in ("stride", "dilation", "groups")}
    axes, channels = len(layer.kernel_size), batch.values.shape[1]
    if batch.values.dim() != axes + 2 or channels != layer.in_channels:
        raise GeometryError(
            f"image 0 reaches {step} as {(channels, *batch.sizes[0])}; "
            f"the layer takes {layer.in_channels} channels and {axes} spatial axes."
        )
    windows, outputs = {}, {}
    for size, number in batch.firsts().items():
        try:
            windows[size] = Geometry.window(axes, layer.kernel_size, padding=layer.padding, size=size, **options)
            outputs[size] = windows[size].output_size(size)
        except GeometryError as error:
            raise GeometryError(f"image {number} reaches {step} as {(channels, *size)}: {error}") from None
    x, padding = batch.windows(0, windows, outputs)
    return batch.through(conv(x, layer.weight, layer.bias, padding=padding, **options), outputs)


def _pooled(step: _Step, batch: _Padded) -> _Padded:
    pool: Any = step.module
    axes = batch.values.dim() - 2
    kernel, stride, padding = (_each(getattr(pool, name), axes) for name in ("kernel_size", "stride", "padding"))
    options = {"stride": stride, "dilation": _each(getattr(pool, "dilation", 1), axes)}
    firsts = batch.firsts()
    windows = {size: Geometry.window(axes, kernel, padding=padding, size=size, **options) for size in firsts}
    answers = {size: _alone(step, number, batch, _ones) for size, number in firsts.items()}
    outputs = {size: tuple(answer.shape[1:]) for size, answer in answers.items()}
    if _is(pool, MAX_POOLS):
        least = -torch.inf if batch.values.is_floating_point() else torch.iinfo(batch.values.dtype).min
        x, rows = batch.windows(least, windows, outputs)
        return batch.through(max_pool(x, kernel, padding=rows, **options), outputs)
    x, rows = batch.windows(0, windows, outputs)
    sums = batch.through(avg_pool(x, kernel, padding=rows, divisor=1, **options), outputs)
    return replace(sums, values=sums.values / _divisors(pool, batch, answers, kernel, padding, options).to(x.dtype))


def _divisors(pool: Any, batch: _Padded, ones: dict[Size, Tensor], kernel: Any, padding: Any, options: Any) -> Tensor:
    """By what the sums of each image's windows are divided: the layer's answer to ones is a sum over it."""
    divisors = {}
    for size, means in ones.items():
        x = means.new_ones(1, 1, *size)
        counts = avg_pool(x, kernel, padding=padding, divisor=1, ceil=pool.ceil_mode, **options)[0]
        divisors[size] = (counts / means).round()
    shares = _Padded.of([divisors[size] for size in batch.sizes])
    return shares.filled(1)


def _ones(image: Tensor) -> Tensor:
    """One channel of ones: what a pooling answers tells its output size, and for a mean its divisors."""
    return torch.ones_like(image[:1], dtype=torch.float64)


def _each(value: Any, axes: int) -> Any:
    return (value,) * axes if isinstance(value, int) else value


def _read_whole(step: _Step, batch: _Padded) -> _Padded:
    """A layer that reads the whole image, which must then have the same size for all."""
    layer, channels = step.module, batch.values.shape[1]
    if _is(layer, (nn.Linear,)) and batch.sizes[0]:
        raise GeometryError(f"images reach {step} with spatial axes; put Flatten before it, or use FullyConnected.")
    if isinstance(layer, nn.Linear):
        for number, size in enumerate(batch.sizes):
            if channels * prod(size) != layer.in_features:
                shape = "x".join(map(str, (channels, *size)))
                raise GeometryError(
                    f"image {number} reaches {step} as {shape}, {channels * prod(size)} numbers, but the layer takes "
                    f"{layer.in_features}; put an adaptive pooling before it."
                )
    if len(set(batch.sizes)) > 1:
        raise _SizesError(
            f"ragged: images of sizes {', '.join(map(str, sorted(set(batch.sizes))))} reach {step}, "
            "which needs one size; put an adaptive pooling before it, or use method='group'."
        )
    y = layer(batch.values)
    return _Padded(y, (tuple(y.shape[2:]),) * len(y))
