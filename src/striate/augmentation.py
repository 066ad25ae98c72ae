"""Augmentation: steps in order, by name as recipes, or written as text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .alterations import (
    Altered,
    AlternatingFlip,
    Colour,
    Crop,
    Cutmix,
    Cutout,
    Flip,
    Foreign,
    Gain,
    Mixup,
    Noise,
    Placing,
    Shift,
    Step,
    place,
)
from .draws import Chance
from .errors import OptionError, UnknownNameError, unknown_name
from .moves import Placement
from .readers import DTYPES, TYPES

CHUNK = 2**19  # numbers of a part of a batch that is altered at once on a CPU, so that it stays in the cache
RECIPES = ("none", "light", "standard", "strong")
STEPS: dict[str, type[Step]] = {
    step.name: step for step in (Shift, Flip, AlternatingFlip, Crop, Colour, Gain, Noise, Cutout, Mixup, Cutmix)
}
SPELLINGS = {"color": "colour"}
WHOLE = re.compile(r"[+-]?\d+")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Normalise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """What happens at random to the examples of a batch before training sees them, all at once.

    Steps on pixels come first, then the normalisation, then the other steps, each group in the given order. Every
    example's numbers depend on (seed, epoch, index) alone, but for those of kornia's augmentations.

    Args:
        steps: Of :mod:`striate.alterations`, or modules of kornia.
        classes: How many there are, if labels are to be mixed.

    Raises:
        OptionError: Something is no step.

    >>> light = Augmentation((Shift(1), Flip()))
    >>> pictures, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)
    >>> inputs, targets = light(pictures, labels, Chance(0, 0, torch.arange(4)), lambda x: x / 255)
    >>> str(light), inputs.shape, inputs.dtype
    ('shift 1, flip', torch.Size([4, 3, 8, 8]), torch.float32)
    """

    steps: tuple[Step, ...] = ()
    classes: int | None = None

    def __post_init__(self) -> None:
        given: tuple[object, ...] = self.steps
        steps = [Foreign(step) if isinstance(step, nn.Module) else step for step in given]
        if wrong := [step for step in steps if not isinstance(step, Step)]:
            raise OptionError(
                f"An augmentation consists of steps such as Shift(4), or kornia modules; got {wrong[0]!r}."
            )
        object.__setattr__(self, "steps", tuple(sorted(steps, key=_after_pixels)))

    def __str__(self) -> str:
        return ", ".join(map(written, self.steps)) or "none"

    @property
    def mixes(self) -> bool:
        """Whether labels become class probabilities."""
        return any(step.mixes for step in self.steps)

    def __call__(self, inputs: Tensor, targets: Tensor, chance: Chance, normalise: Normalise) -> Altered:
        """A batch, altered and normalised.

        Args:
            inputs: ``(B, C, *spatial)``, as they are kept.
            targets: Labels int64 ``(B,)``, masks uint8 ``(B, *spatial)``, or floating-point values.
            chance: The random numbers of these examples.
            normalise: Is given inputs of the type they had; must treat every example by itself.

        Returns:
            What ``normalise`` returns, altered; and the targets: probabilities float32 ``(B, classes)`` if labels are
            mixed.

        Raises:
            OptionError: A step does not fit these inputs or targets.
        """
        if not len(inputs) == len(targets) == len(chance):
            raise OptionError(
                f"An augmentation got {len(inputs)} inputs, {len(targets)} targets and random numbers for "
                f"{len(chance)} examples."
            )
        if not self.steps:
            return normalise(inputs), targets
        if self.mixes and targets.dtype == torch.int64 and targets.dim() == 1:
            targets = self._probabilities(targets)
        _keep_freed_memory()
        each = self._examples_at_once(inputs)
        if each >= len(inputs):
            return self._altered(inputs, targets, chance, normalise)
        done = (
            self._altered(inputs[a : a + each], targets[a : a + each], chance.part(slice(a, a + each)), normalise)
            for a in range(0, len(inputs), each)
        )
        return _joined(done, len(inputs))

    def _probabilities(self, labels: Tensor) -> Tensor:
        if self.classes is None:
            raise OptionError("To mix labels, an augmentation needs to know how many there are: classes=10.")
        return F.one_hot(labels, self.classes).float()

    def _examples_at_once(self, inputs: Tensor) -> int:
        whole = inputs.device.type != "cpu" or any(isinstance(step, Foreign) for step in self.steps)
        return len(inputs) if whole else 2 * max(1, round(CHUNK / max(1, inputs.shape[1:].numel()) / 2))

    def _altered(self, inputs: Tensor, targets: Tensor, chance: Chance, normalise: Normalise) -> Altered:
        x = inputs
        waiting: Placement | None = None
        before, after = self._scoped(chance)
        for step, own in before:
            placing = step.placement(own, x.dim() - 2) if isinstance(step, Placing) else None
            joined = placing if waiting is None or placing is None else waiting.then(placing)
            if waiting is not None and (placing is None or joined is None):
                x, targets = place(x, targets, waiting)
            waiting = joined or placing
            if placing is None:
                x, targets = step(x, targets, own)
        if waiting is not None:
            x, targets = place(x, targets, waiting)
        x = normalise(restored(x, inputs))
        for step, own in after:
            x, targets = step(x, targets, own)
        return x, targets

    def _scoped(self, chance: Chance) -> tuple[list[tuple[Step, Chance]], list[tuple[Step, Chance]]]:
        """Steps on pixels and the others, each with streams of its own, which other kinds of steps do not change."""
        names = [step.name for step in self.steps]
        scoped = [
            (step, chance.within(f"{step.name} {names[:number].count(step.name)}"))
            for number, step in enumerate(self.steps)
        ]
        return [pair for pair in scoped if pair[0].on_pixels], [pair for pair in scoped if not pair[0].on_pixels]


@cache
def _keep_freed_memory() -> None:
    """Lets the C library keep up to 64 MB that are freed, which the next step uses, instead of returning them.

    glibc learns this from the largest block that was ever freed, up to 32 MB; new pages cost more than most steps do.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def _after_pixels(step: object) -> bool:
    return isinstance(step, Step) and not step.on_pixels


def restored(x: Tensor, like: Tensor) -> Tensor:
    """What steps have made of a batch, in its type and memory layout again; ``x`` may be changed.

    Whole numbers are rounded (of two equally near, bytes become the upper one, others the even one) and kept within
    the range of the type.

    >>> restored(torch.tensor([-3.0, 7.6, 300.0]), torch.empty(3, dtype=torch.uint8)).tolist()
    [0, 8, 255]
    """
    if x.dtype == like.dtype and x.stride() == like.stride():
        return x
    if x.dtype != like.dtype and not like.is_floating_point():
        limits = torch.iinfo(like.dtype)
        x = x.add_(0.5) if like.dtype == torch.uint8 else x.round()
        x = x.clamp_(limits.min, limits.max)
    return torch.empty_like(like).copy_(x) if x.shape == like.shape else x.to(like.dtype)


def _joined(parts: Iterator[Altered], count: int) -> Altered:
    """The parts of a batch one after another, in the memory layout of the first."""
    x, target = next(parts)
    last = x.movedim(1, -1)
    if last.is_contiguous() and not x.is_contiguous():
        inputs = last.new_empty(count, *last.shape[1:]).movedim(-1, 1)
    else:
        inputs = x.new_empty(count, *x.shape[1:])
    inputs[: len(x)] = x
    targets, filled = [target], len(x)
    for x, target in parts:
        inputs[filled : filled + len(x)] = x
        filled += len(x)
        targets.append(target)
    return inputs, torch.cat(targets)


def recipe(
    text: str,
    kind: str = "picture",
    task: str = "classes",
    shape: tuple[int, ...] = (3, 32, 32),
    classes: int | None = None,
) -> Augmentation:
    """The augmentation of this name for such inputs, or that which a text writes.

    ========  =======================================================  ============================================
    name      pictures and volumes                                     signals and series
    ========  =======================================================  ============================================
    none      nothing                                                  nothing
    light     shift by 1/8 of the size, at most 32                     shift by 1/8 of the length
    standard  the same, flip, cutout of 1/4 of the size                the same, gain of 6 dB, noise of 0.05
    strong    crop, flip, colour, cutout, half mixup and half cutmix   the same, cutout of 1/8 of the length, mixup
    ========  =======================================================  ============================================

    Cutout and mixing are left out for masks. Whether a flip changes what is seen, as it does for digits, is not
    guessed: ``light`` has none.

    Args:
        text: A name, or steps as :func:`parse` reads them.
        kind: "picture", "volume", "signal" or "series".
        task: "masks" if the targets are masks.
        shape: ``(C, *spatial)`` of an input.
        classes: How many there are.

    Raises:
        OptionError: The text cannot be read, or its steps do not fit such inputs; the message says where.
        UnknownNameError: The text cannot be read; the message lists what is known.

    >>> print(recipe("standard", "picture", "classes", (3, 32, 32)))
    shift 4, flip, cutout 8
    """
    if text not in RECIPES:
        made = replace(parse(text), classes=classes)
        _try(text, made, kind, task, shape)
        return made
    level = RECIPES.index(text)
    flat = _signal_steps(level, shape) if kind in ("signal", "series") else _picture_steps(level, shape)
    fits = [step for step in flat if task != "masks" or not (step.mixes or isinstance(step, Cutout))]
    return Augmentation(tuple(fits), classes)


def _try(text: str, made: Augmentation, kind: str, task: str, shape: tuple[int, ...]) -> None:
    """Alter two examples of nothing, so that steps that do not fit show before the first batch."""
    inputs = torch.zeros(2, *shape, dtype=TYPES[DTYPES[kind]])
    masks = torch.zeros(2, *shape[1:], dtype=torch.uint8)
    targets = masks if task == "masks" else torch.zeros(2, dtype=torch.int64)
    try:
        replace(made, classes=made.classes or 2)(inputs, targets, Chance(0, 0, torch.arange(2)), Tensor.float)
    except OptionError as error:
        raise OptionError(f"augmentation {text!r}: {error}") from None


def _picture_steps(level: int, shape: tuple[int, ...]) -> list[Step]:
    size = min(shape[1:])
    reach, hole = min(32, round(size / 8), size - 1), max(1, round(size / 4))
    shift: list[Step] = [Shift(reach)] if reach else []
    if level == RECIPES.index("strong"):
        mixing = [Mixup(share=0.5), Cutmix(share=0.5)]
        return [Crop(), Flip(), Colour(), Cutout(hole), *mixing]
    return [[], shift, [*shift, Flip(), Cutout(hole)]][level]


def _signal_steps(level: int, shape: tuple[int, ...]) -> list[Step]:
    part = round(shape[1] / 8)
    steps: list[list[Step]] = [[], [Shift(part, "zeros")] if part else [], [Gain(6.0), Noise(0.05)]]
    steps.append([Cutout(max(1, part)), Mixup()])
    return [step for group in steps[: level + 1] for step in group]


def parse(text: str) -> Augmentation:
    """The augmentation that a text writes: steps with commas between, each with its settings.

    A setting is written with its name, ``padding=zeros``, or without in the order of the step's settings; two numbers
    are written ``0.5..1``. ``kornia`` is followed by the name of one of its classes. ``str`` of the result is the
    text in its shortest form.

    Raises:
        OptionError: A setting is unknown, missing or not admitted; the message begins with the step.
        UnknownNameError: No step has this name; the message lists all.

    >>> print(parse("shift pixels=4, flip -1, crop 0.25..1 share=0.5, mixup 0.3"))
    shift 4, flip, crop 0.25..1 share=0.5, mixup 0.3
    """
    if text.strip() == "none":
        return Augmentation()
    return Augmentation(tuple(_step(piece.strip()) for piece in text.split(",")))


def _step(piece: str) -> Step:
    name, *words = piece.split() or [""]
    name = SPELLINGS.get(name, name)
    try:
        if name == Foreign.name:
            return _foreign(words)
        if name not in STEPS:
            unknown = str(unknown_name("augmentation step", name, [*STEPS, Foreign.name])).rstrip(".")
            raise UnknownNameError(f"{unknown}; or one of the recipes {', '.join(RECIPES)}.")
        return STEPS[name](**_settings(name, words))
    except (OptionError, UnknownNameError) as error:
        raise type(error)(f"augmentation {piece!r}: {error}") from None


def _foreign(words: list[str]) -> Step:
    if not words:
        raise OptionError(
            "it is followed by the name of one of kornia's augmentations, as in kornia RandomRotation degrees=15."
        )
    if wrong := [word for word in words[1:] if "=" not in word]:
        raise OptionError(f"its settings are written with their names, as in degrees=15; got {wrong[0]!r}.")
    settings = (word.partition("=") for word in words[1:])
    return Foreign(words[0], tuple((name, _value(value)) for name, _, value in settings))


def _settings(name: str, words: list[str]) -> dict[str, Any]:
    """The settings of a step by their names."""
    entries = {entry.name: entry for entry in fields(STEPS[name])}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for number, word in enumerate(words):
        setting, equals, value = word.rpartition("=")
        if not equals and number >= len(entries):
            raise OptionError(f"it has {len(entries)} settings ({', '.join(entries)}), and {word!r} is one more.")
        setting = setting if equals else list(entries)[number]
        if setting not in entries:
            raise unknown_name("setting", setting, entries)
        if setting in found:
            raise OptionError(f"{setting} is given twice.")
        found[setting] = _value(value)
    if missing := [entry for entry, known in entries.items() if known.default is MISSING and entry not in found]:
        raise OptionError(f"it needs its {missing[0]}, as in {name} 4.")
    return found


def _value(text: str) -> Any:
    """What a setting means: numbers, ``(low, high)``, true, false, or a word."""
    if ".." in text:
        return tuple(_value(part) for part in text.split(".."))
    if text in ("true", "false"):
        return text == "true"
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text


def written(step: Step) -> str:
    """A step as text, with the settings that are not the usual ones.

    >>> written(Shift(4, "zeros"))
    'shift 4 zeros'
    """
    if isinstance(step, Foreign):
        name = step.module if isinstance(step.module, str) else type(step.module).__name__
        return " ".join([step.name, name, *(f"{setting}={_text(value)}" for setting, value in step.settings)])
    words, in_order = [step.name], True
    for entry in fields(step):  # type: ignore[arg-type]
        value = getattr(step, entry.name)
        if value == entry.default:
            in_order = False
            continue
        words.append(_text(value) if in_order else f"{entry.name}={_text(value)}")
    return " ".join(words)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "..".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        short = f"{value:g}"
        return short if math.isclose(float(short), value, rel_tol=0, abs_tol=0) else repr(value)
    return str(value)
