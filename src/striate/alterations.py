"""What augmentation does to a batch: each step is a frozen value that changes all its examples at once."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .draws import Chance, mix, shifted
from .errors import OptionError, unknown_name
from .moves import REFLECT, Boxes, Placement, crop, move, nearest
from .splits import IGNORED

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
NOISE = 2**20

Altered = tuple[Tensor, Tensor]


class Step(ABC):
    """One step of an augmentation.

    Steps on pixels come before the normalisation, and may turn whole numbers into float32 on the same scale; the
    others come after it, when 0 is the mean.
    """

    name: ClassVar[str]
    on_pixels: ClassVar[bool] = True
    mixes: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        """The batch, changed.

        Args:
            inputs: ``(B, C, *spatial)`` of any type; not changed in place. The result may lie otherwise in memory.
            targets: Classes int64 ``(B,)``, masks uint8 ``(B, *spatial)``, or floating-point values ``(B, ...)``.
            chance: The random numbers of these examples.
        """

    def _need(self, fine: bool, setting: str, expected: str) -> None:
        if not fine:
            raise OptionError(f"{self.name}: {setting} is {expected}, got {getattr(self, setting)!r}.")

    def _whole(self, setting: str, least: int) -> None:
        value = getattr(self, setting)
        self._need(type(value) is int and value >= least, setting, f"a whole number of at least {least}")

    def _number(self, setting: str, above: float, most: float = math.inf) -> None:
        value = getattr(self, setting)
        limits = f"above {above:g}" + (f" and at most {most:g}" if most < math.inf else "")
        self._need(_real(value) and above < value <= most, setting, f"a number {limits}")

    def _part(self, setting: str) -> None:
        value = getattr(self, setting)
        self._need(_real(value) and 0 <= value <= 1, setting, "a number from 0 to 1")

    def _range(self, setting: str, most: float = math.inf) -> None:
        pair = getattr(self, setting)
        fine = isinstance(pair, tuple) and len(pair) == 2 and all(map(_real, pair)) and 0 < pair[0] <= pair[1] <= most
        limits = f"above 0 and at most {most:g}" if most < math.inf else "above 0"
        self._need(fine, setting, f"two rising numbers {limits}")


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_mask(inputs: Tensor, targets: Tensor) -> bool:
    """Whether targets say a class for every position.

    >>> is_mask(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8))
    True
    """
    return targets.dtype == torch.uint8 and targets.shape[1:] == inputs.shape[2:]


def place(inputs: Tensor, targets: Tensor, placement: Placement) -> Altered:
    """Inputs moved, and masks with them; what comes into a mask from outside is 255."""
    if is_mask(inputs, targets):
        targets = move(targets.unsqueeze(1), replace(placement, fill=IGNORED)).squeeze(1)
    return move(inputs, placement), targets


class Placing(Step):
    """A step that only moves positions; neighbouring ones are done as one."""

    @abstractmethod
    def placement(self, chance: Chance, axes: int) -> Placement:
        """Where each example goes."""

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        return place(inputs, targets, self.placement(chance, inputs.dim() - 2))


@dataclass(frozen=True)
class Shift(Placing):
    """A translation by up to ``pixels`` along every axis, every one of them equally likely.

    Args:
        pixels: At least 1.
        padding: What comes in: "reflect" (the edge itself is not repeated), or "zeros".

    >>> inputs, labels = torch.arange(5).view(1, 1, 5), torch.tensor([0])
    >>> Shift(2)(inputs, labels, Chance(0, 0, torch.tensor([0])))[0]
    tensor([[[2, 1, 0, 1, 2]]])
    """

    name = "shift"
    pixels: int
    padding: str = REFLECT

    def __post_init__(self) -> None:
        self._whole("pixels", 1)
        self._need(self.padding in (REFLECT, "zeros"), "padding", "reflect or zeros")

    def placement(self, chance: Chance, axes: int) -> Placement:
        offsets = chance.integers("shift", 2 * self.pixels + 1, axes) - self.pixels
        return Placement((None,) * axes, offsets, self.pixels, REFLECT if self.padding == REFLECT else 0)


@dataclass(frozen=True)
class Patch(Step):
    """A part of each example, of one size, anywhere in it.

    Args:
        size: Of the part, for each axis.

    >>> inputs, labels = torch.arange(5).view(1, 1, 5), torch.tensor([0])
    >>> Patch((2,))(inputs, labels, Chance(0, 0, torch.tensor([0])))[0]
    tensor([[[3, 4]]])
    """

    name = "patch"
    size: tuple[int, ...]

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        """The batch, cut."""
        last = inputs.movedim(1, -1)
        masks = is_mask(inputs, targets)
        places: list[Tensor] = [torch.arange(len(inputs), device=inputs.device)]
        for axis, (whole, part) in enumerate(zip(inputs.shape[2:], self.size, strict=True)):
            start = chance.integers(f"patch {axis}", whole - part + 1)
            places.append(start[:, None] + torch.arange(part, device=inputs.device))
        for axis, place_ in enumerate(places):
            shape = [len(inputs)] + [1] * len(self.size)
            if axis:
                shape[axis] = self.size[axis - 1]
            places[axis] = place_.view(shape)
        cut = last[tuple(places)].movedim(-1, 1).contiguous()
        return cut, targets[tuple(places)] if masks else targets


@dataclass(frozen=True)
class Flip(Placing):
    """A mirror image along one axis, of some examples.

    Args:
        axis: -1 is the last one, left to right; -2 the one before it.
        share: How likely an example is mirrored.
    """

    name = "flip"
    axis: int = -1
    share: float = 0.5

    def __post_init__(self) -> None:
        self._need(type(self.axis) is int and self.axis < 0, "axis", "-1 for the last axis, -2 for the one before it")
        self._number("share", 0, 1)

    def placement(self, chance: Chance, axes: int) -> Placement:
        return _mirror(self, self.axis, axes, chance.coin("flip", self.share))


@dataclass(frozen=True)
class AlternatingFlip(Placing):
    """A mirror image of half of the examples in even epochs, and of the other half in odd ones.

    Two epochs show every example both ways; an ordinary flip shows half of them the same way twice. K. Jordan, "94% on
    CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.6.

    Args:
        axis: -1 is the last one, left to right; -2 the one before it.
    """

    name = "alternating-flip"
    axis: int = -1

    def __post_init__(self) -> None:
        self._need(type(self.axis) is int and self.axis < 0, "axis", "-1 for the last axis, -2 for the one before it")

    def placement(self, chance: Chance, axes: int) -> Placement:
        first = replace(chance, epoch=0).coin("flip")
        return _mirror(self, self.axis, axes, first if chance.epoch % 2 == 0 else ~first)


def _mirror(step: Step, axis: int, axes: int, mirrored: Tensor) -> Placement:
    if -axis > axes:
        raise OptionError(f"{step.name}: axis is {axis}, but the spatial axes of the inputs are {axes}.")
    return Placement(tuple(mirrored if other == axis else None for other in range(-axes, 0)))


@dataclass(frozen=True)
class Crop(Step):
    """A box of random size and place, brought back to the size of the whole ("random resized crop").

        volume = whole * uniform(scale)        side_1 / side_2 = exp(uniform(log ratio)) * that of the whole

    C. Szegedy et al., "Going Deeper with Convolutions", 2014, section 6. Of shapes that do not fit the whole the
    nearest that does is taken, so the volume is always as drawn. Linear between pixels; masks take the nearest.

    Args:
        scale: Least and largest part of the whole.
        ratio: Least and largest ratio of one side to the side before it, where the whole has 1.
        share: How likely an example is cropped.
    """

    name = "crop"
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    share: float = 1.0

    def __post_init__(self) -> None:
        self._range("scale", 1)
        self._range("ratio")
        self._number("share", 0, 1)

    def boxes(self, chance: Chance, sizes: tuple[int, ...]) -> Boxes:
        """The box of each example, in pixels."""
        axes = len(sizes)
        volume = chance.between("volume", *self.scale)
        if self.share < 1:
            volume = torch.where(chance.coin("crop", self.share), volume, 1.0)
        side = volume.log() / axes
        if axes > 1:
            shape = chance.between("ratio", math.log(self.ratio[0]), math.log(self.ratio[1]), axes - 1).cumsum(0)
            shape = torch.cat([torch.zeros_like(shape[:1]), shape])
            shape = shape - shape.mean(0)
            side = side + shape * (-side / shape.amax(0).clamp_min(1e-9)).clamp_max(1)
        parts = side.exp().expand(axes, -1)
        whole = parts.new_tensor(sizes).unsqueeze(1)
        return Boxes((1 - parts) * chance.uniform("place", axes) * whole, parts * whole)

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        boxes = self.boxes(chance, tuple(inputs.shape[2:]))
        return crop(inputs, boxes), nearest(targets, boxes) if is_mask(inputs, targets) else targets


@dataclass(frozen=True)
class Colour(Step):
    """Brightness, contrast and saturation, each multiplied by a factor between 1 - setting and 1 + setting.

        out = b * (c * (s * x + (1 - s) * grey(x)) + (1 - c) * mean grey)        grey = 0.299 R + 0.587 G + 0.114 B

    That is brightness, then contrast, then saturation as PyTorch's torchvision defines them, in one matrix for each
    example; numbers beyond the range of the type are cut off once, at the end. Inputs with other than three channels
    have their mean for grey.

    Args:
        brightness: From 0 to 1.
        contrast: From 0 to 1.
        saturation: From 0 to 1.
        share: How likely an example is changed.
    """

    name = "colour"
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    share: float = 1.0

    def __post_init__(self) -> None:
        for setting in ("brightness", "contrast", "saturation"):
            self._part(setting)
        self._number("share", 0, 1)

    def factors(self, chance: Chance) -> Tensor:
        """Of brightness, contrast and saturation: float32 ``(3, B)``."""
        settings = torch.tensor([[self.brightness], [self.contrast], [self.saturation]], device=chance.indices.device)
        factors = 1 + settings * (2 * chance.uniform("factors", 3) - 1)
        return factors if self.share == 1 else torch.where(chance.coin("colour", self.share), factors, 1.0)

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        brightness, contrast, saturation = self.factors(chance).unsqueeze(-1).unsqueeze(-1)
        channels = inputs.shape[1]
        grey = torch.tensor(LUMA if channels == 3 else (1 / channels,) * channels, device=inputs.device)
        x = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        last = x.movedim(1, -1)
        channels_last = last.is_contiguous() and not x.is_contiguous()
        flat = last.flatten(1, -2) if channels_last else x.flatten(2)
        means = flat.mean(1 if channels_last else 2).float()
        level = (1 - contrast) * brightness * (means @ grey).view(-1, 1, 1)
        slope = contrast * brightness
        if channels > 1:
            slope = slope * (saturation * torch.eye(channels, device=x.device) + (1 - saturation) * grey)
        out = _channels_mixed(flat, slope.to(x.dtype), channels_last).add_(level.to(x.dtype))
        return (out.view(last.shape).movedim(-1, 1) if channels_last else out.view(x.shape)), targets


def _channels_mixed(flat: Tensor, slope: Tensor, channels_last: bool) -> Tensor:
    """Each pixel's channels times a matrix ``(B, C, C)``; of one channel a product of numbers, which is faster."""
    if slope.shape[-1] == 1:
        return flat * slope
    return torch.bmm(flat, slope.mT) if channels_last else torch.bmm(slope, flat)


@dataclass(frozen=True)
class Gain(Step):
    """Louder or softer by up to some decibels: ``x * 10**(uniform(-decibels, decibels) / 20)``.

    Args:
        decibels: Above 0; 6 doubles or halves.
    """

    name = "gain"
    on_pixels = False
    decibels: float

    def __post_init__(self) -> None:
        self._number("decibels", 0)

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        power = chance.between("gain", -self.decibels / 20, self.decibels / 20) * math.log(10)
        return inputs * _shaped(power.exp(), inputs), targets


@dataclass(frozen=True)
class Noise(Step):
    """Gaussian noise is added: ``x + deviation * N(0, 1)``, after the normalisation.

    Each example takes a stretch of its own out of one long row of normal numbers.

    Args:
        deviation: Above 0; 1 is as strong as the inputs.
    """

    name = "noise"
    on_pixels = False
    deviation: float

    def __post_init__(self) -> None:
        self._number("deviation", 0)

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        length = inputs.shape[1:].numel()
        row = _normal(NOISE + length, inputs.device)
        stretches = row.as_strided((NOISE, length), (1, 1)).index_select(0, chance.integers("noise", NOISE))
        return torch.add(inputs, stretches.view(inputs.shape).to(inputs.dtype), alpha=self.deviation), targets


@lru_cache(maxsize=2)
def _normal(count: int, device: torch.device) -> Tensor:
    """Normal numbers, always the same: the inverse of their distribution at hashed uniform ones."""
    uniform = shifted(mix(torch.arange(count, device=device) * 0x9E3779B97F4A7C1 + 1), 11).double().add_(0.5) * 2.0**-53
    return torch.special.ndtri(uniform).float()


@dataclass(frozen=True)
class Cutout(Step):
    """A square hole at a random place, filled with the mean; the part of it that falls outside is lost.

    T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017. Masks
    stay as they are.

    Args:
        size: Of the hole, along every axis.
        share: How likely an example gets a hole.
    """

    name = "cutout"
    on_pixels = False
    size: int
    share: float = 1.0

    def __post_init__(self) -> None:
        self._whole("size", 1)
        self._number("share", 0, 1)

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        size = torch.full_like(chance.indices, self.size)
        sides = size if self.share == 1 else size * chance.coin("cutout", self.share)
        return inputs * (1 - _hole(inputs.shape[2:], chance, [sides] * (inputs.dim() - 2), inputs.dtype)), targets


def _hole(sizes: tuple[int, ...], chance: Chance, sides: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """1 in a box around a random position of each example, else 0: ``(B, 1, *sizes)``.

    Args:
        sizes: Of the map.
        chance: Says where the centres are.
        sides: Of the boxes along each axis, int64 ``(B,)``.
        dtype: Of the result.
    """
    hole = torch.ones((), dtype=dtype, device=chance.indices.device)
    for axis, (size, side) in enumerate(zip(sizes, sides, strict=True)):
        first = chance.integers(f"centre {axis}", size) - (side >> 1)
        places = torch.arange(size, device=side.device) - first.unsqueeze(1)
        inside = (places >= 0) & (places < side.unsqueeze(1))
        hole = hole * inside.to(dtype).view(-1, 1, *[1] * axis, size, *[1] * (len(sizes) - 1 - axis))
    return hole


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` as ``(B, 1, ...)`` of the type of a batch."""
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


class Mixing(Step):
    """A step that mixes each example with its neighbour in the batch, and their targets alike.

    A batch is a random part of the set, so neighbours are random partners: the first with the second, the third with
    the fourth, and the last of an odd number with itself. What is drawn for a pair depends on the two alone: however
    a batch is cut after even numbers of examples, it is mixed the same.
    """

    on_pixels = False
    mixes = True

    @abstractmethod
    def weights(self, sizes: tuple[int, ...], chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """How much of the partner comes in: for each position ``(P, 1, ...)``, and on the whole ``(P,)``."""

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        if is_mask(inputs, targets):
            raise OptionError(
                f"{self.name}: masks cannot be mixed: each position has one class; leave {self.name} out."
            )
        if not targets.is_floating_point():
            raise OptionError(
                f"{self.name}: it mixes class probabilities or other floating-point targets, got {targets.dtype}; "
                "one_hot of torch.nn.functional makes probabilities of labels."
            )
        pairs = len(chance.indices[1::2])
        if not pairs:
            return inputs, targets
        chance = replace(chance, indices=chance.indices[: 2 * pairs].view(pairs, 2).amin(1))
        weights, parts = self.weights(inputs.shape[2:], chance, inputs.dtype)
        return _blended(inputs, weights), _blended(targets, _shaped(parts, targets))


def _blended(x: Tensor, weights: Tensor) -> Tensor:
    """``(1 - weight) * x + weight * partner``."""
    out = torch.empty_like(x)
    count = 2 * len(weights)
    even, odd = x[0:count:2], x[1:count:2]
    torch.lerp(even, odd, weights, out=out[0:count:2])
    torch.lerp(odd, even, weights, out=out[1:count:2])
    out[count:] = x[count:]
    return out


@dataclass(frozen=True)
class Mixup(Mixing):
    """A weighted mean of two examples and of their targets.

        x = (1 - w) * x + w * partner        t = (1 - w) * t + w * partner's        w ~ Beta(alpha, alpha)

    H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    Args:
        alpha: Above 0: small is mostly one of the two, 1 makes all weights equally likely.
        share: How likely a pair is mixed.
    """

    name = "mixup"
    alpha: float = 0.2
    share: float = 1.0

    def __post_init__(self) -> None:
        self._number("alpha", 0)
        self._number("share", 0, 1)

    def weights(self, sizes: tuple[int, ...], chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        parts = _drawn(chance, self.alpha, self.share)
        return parts.to(dtype).view(-1, *[1] * (len(sizes) + 1)), parts


@dataclass(frozen=True)
class Cutmix(Mixing):
    """A box of each example comes from its partner, and the same part of the targets.

        side = floor(size * w**(1 / axes))        w ~ Beta(alpha, alpha)

    around a random centre; the targets are mixed by the part of the box that lies within. S. Yun et al., "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019.

    Args:
        alpha: Above 0: small is mostly one of the two, 1 makes all volumes equally likely.
        share: How likely a pair is mixed.
    """

    name = "cutmix"
    alpha: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        self._number("alpha", 0)
        self._number("share", 0, 1)

    def weights(self, sizes: tuple[int, ...], chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        side = _drawn(chance, self.alpha, self.share) ** (1 / len(sizes))
        box = _hole(sizes, chance, [(side * size).long() for size in sizes], dtype)
        return box, box.flatten(1).sum(1, dtype=torch.float32) / math.prod(sizes)


def _drawn(chance: Chance, alpha: float, share: float) -> Tensor:
    """Beta(alpha, alpha) for a share of the pairs, else 0."""
    parts = chance.beta("weight", alpha)
    return parts if share == 1 else parts * chance.coin("mixed", share)


@dataclass(frozen=True)
class Foreign(Step):
    """Any augmentation of kornia, or another module that takes a batch of pictures or volumes and returns one like it.

    Whole numbers become 0 to 1 for it. It draws from PyTorch's own generator, which is given a seed made from
    (seed, epoch, all indices of the batch) and is as before afterwards: the same batch always gets the same, but
    what an example gets depends on the rest of its batch, and so on the number of processes.

    Args:
        module: The module, or the name of a class of ``kornia.augmentation``.
        settings: Of that class: pairs of name and value.

    Raises:
        OptionError: kornia is not installed, or refuses the settings.
        UnknownNameError: kornia has no augmentation of this name.
    """

    name = "kornia"
    module: str | nn.Module
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.module, str):
            kornia(self.module, self.settings)
        elif not isinstance(self.module, nn.Module):
            raise OptionError(f"kornia: module is the name of an augmentation or a torch module, got {self.module!r}.")

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance) -> Altered:
        module = kornia(self.module, self.settings) if isinstance(self.module, str) else self.module
        name = type(module).__name__
        if any(_derives(part, "MixAugmentationBase") for part in module.modules()):
            raise OptionError(
                f"kornia: {name} mixes pictures, and their classes would stay as they are; "
                "take the step mixup or cutmix."
            )
        if is_mask(inputs, targets) and not _derives(module, "Intensity"):
            raise OptionError(f"kornia: {name} may move positions, and masks would stay behind.")
        most = 1 if inputs.is_floating_point() else torch.iinfo(inputs.dtype).max
        devices = [inputs.device] if inputs.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(shifted(chance.bits("kornia").sum(), 1)))
            try:
                outputs = module(inputs / most if most > 1 else inputs)
            except (ValueError, TypeError, IndexError, AssertionError) as error:
                raise OptionError(f"kornia: {name} does not take a batch {tuple(inputs.shape)}: {error}") from error
        if not isinstance(outputs, Tensor) or outputs.shape != inputs.shape:
            raise OptionError(
                f"kornia: {name} makes {tuple(getattr(outputs, 'shape', ()))} of a batch "
                f"{tuple(inputs.shape)}; an augmentation keeps the shape."
            )
        return outputs * most if most > 1 else outputs, targets


def _derives(module: nn.Module, name: str) -> bool:
    """Whether a class that it derives from is called so, or begins with it."""
    return any(base.__name__.startswith(name) for base in type(module).__mro__)


@lru_cache(maxsize=64)
def kornia(name: str, settings: tuple[tuple[str, Any], ...]) -> nn.Module:
    """An augmentation of kornia's.

    Raises:
        OptionError: kornia is not installed, or refuses the settings.
        UnknownNameError: It has no augmentation of this name.
    """
    try:
        from kornia import augmentation
    except ImportError:
        raise OptionError("kornia is not installed: python -m pip install 'striate[augment]'.") from None
    known = [
        word
        for word, value in vars(augmentation).items()
        if inspect.isclass(value) and word[0].isupper() and "Base" not in word
    ]
    if name not in known:
        raise unknown_name("augmentation of kornia", name, known)
    try:
        return getattr(augmentation, name)(**dict(settings))
    except Exception as error:  # whatever another library's constructor raises is about these settings
        raise OptionError(f"kornia: {name} refuses these settings: {error}") from None
