"""Steps in order: fused moves, parts of batches, recipes, and augmentations as text."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate import augmentation
from striate.alterations import (
    AlternatingFlip,
    Colour,
    Crop,
    Cutmix,
    Cutout,
    Flip,
    Foreign,
    Mixup,
    Noise,
    Shift,
    Step,
)
from striate.augmentation import Augmentation, parse, recipe, restored
from striate.draws import Chance
from striate.errors import OptionError, StriateError

SHAPES = {"picture": (3, 32, 32), "grey": (1, 28, 28), "signal": (1, 500), "series": (6, 60), "volume": (1, 8, 12, 12)}
every_recipe = pytest.mark.parametrize("name", augmentation.RECIPES)


def kind_of(shape: tuple[int, ...]) -> str:
    name = next(name for name, other in SHAPES.items() if other == shape)
    return "picture" if name == "grey" else name


def batch(shape: tuple[int, ...], count: int = 24) -> Tensor:
    return (torch.arange(count * math.prod(shape)) * 37 % 251).view(count, *shape).to(torch.uint8)


def halved(x: Tensor) -> Tensor:
    assert x.dtype == torch.uint8
    return x.float() / 128 - 1


CHANCE = Chance(0, 1, torch.arange(24) * 3)
LABELS = torch.arange(24) % 5


def one_by_one(steps: tuple[Step, ...], x: Tensor, targets: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """The steps as they are written, without fusing and in one part."""
    before = [step for step in steps if step.on_pixels]
    seen: list[str] = []
    like = x
    done = False
    for step in [*before, *(step for step in steps if not step.on_pixels)]:
        if not step.on_pixels and not done:
            x, done = halved(restored(x, like)), True
        x, targets = step(x, targets, chance.within(f"{step.name} {seen.count(step.name)}"))
        seen.append(step.name)
    return (x if done else halved(restored(x, like))), targets


CHAINS: dict[str, tuple[Step, ...]] = {
    "shift, flip": (Shift(3), Flip()),
    "flip, shift": (Flip(), Shift(3, "zeros")),
    "flips and shifts": (Flip(), Shift(2), AlternatingFlip(-2), Shift(1), Flip(-2)),
    "crop between": (Shift(2), Crop(), Flip(), Flip()),
    "crop and colour": (Crop(share=0.5), Colour(), Flip()),
    "all": (Mixup(), Flip(), Cutout(5), Shift(2), Noise(0.1), Cutmix(share=0.5)),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("steps", CHAINS.values(), ids=CHAINS)
def test_fused_and_in_parts_it_is_the_same_as_step_by_step(
    steps: tuple[Step, ...], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = batch((3, 12, 10))
    masks = x[:, 1].contiguous()
    targets = masks if not any(step.mixes for step in steps) else torch.eye(5)[LABELS]
    x = x.contiguous(memory_format=torch.channels_last) if layout == "channels-last" else x
    wanted = one_by_one(steps, x, targets, CHANCE)
    for chunk in (10**9, 1, 360 * 8):
        monkeypatch.setattr(augmentation, "CHUNK", chunk)
        found = Augmentation(steps)(x, targets, CHANCE, halved)
        torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=0)
        assert found[0].is_contiguous(memory_format=torch.channels_last) == (layout == "channels-last")


def test_without_steps_it_is_the_normalisation() -> None:
    x = batch((3, 4, 4))
    inputs, targets = Augmentation()(x, LABELS, CHANCE, halved)
    assert inputs.equal(halved(x))
    assert targets is LABELS


@every_recipe
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_recipes_fit_their_inputs(name: str, shape: tuple[int, ...]) -> None:
    made = recipe(name, kind_of(shape), "classes", shape, 5)
    x = batch(shape)
    inputs, targets = made(x, LABELS, CHANCE, halved)
    assert inputs.shape == x.shape
    assert inputs.dtype == torch.float32
    assert inputs.isfinite().all()
    assert inputs.equal(halved(x)) == (name == "none")
    if made.mixes:
        torch.testing.assert_close(targets.sum(1), torch.ones(24))
        assert targets.shape == (24, 5)
    else:
        assert targets is LABELS or targets.equal(LABELS)
    assert parse(str(made)) == replace(made, classes=None)


@every_recipe
def test_recipes_keep_masks_in_step(name: str) -> None:
    """A picture that is its own mask is still so afterwards, where the mask knows."""
    x = torch.tensor([[0, 200], [200, 0]], dtype=torch.uint8).repeat_interleave(8, 0).repeat_interleave(8, 1)
    x = x.expand(24, 1, -1, -1).contiguous()
    made = recipe(name, "picture", "masks", (1, 16, 16))
    inputs, masks = made(x, x[:, 0], CHANCE, halved)
    known = (masks != 255) & ((inputs[:, 0] + 1 - 100 / 128).abs() > 0.3)
    assert ((inputs[:, 0] + 1 > 100 / 128) == (masks > 100))[known].all()
    assert known.float().mean() > 0.5


TEXTS = """
none     picture  3x32x32   none
light    picture  3x32x32   shift 4
standard picture  3x32x32   shift 4, flip, cutout 8
strong   picture  3x32x32   crop, flip, colour, cutout 8, mixup share=0.5, cutmix share=0.5
light    picture  3x512x640 shift 32
standard picture  1x2x2     flip, cutout 1
light    volume   1x16x32x32 shift 2
light    signal   1x8000    shift 1000 zeros
standard signal   1x8000    shift 1000 zeros, gain 6, noise 0.05
strong   series   6x100     shift 12 zeros, gain 6, noise 0.05, cutout 12, mixup
light    signal   1x2       none
"""


@pytest.mark.parametrize("line", TEXTS.strip().splitlines())
def test_recipes_as_text(line: str) -> None:
    name, kind, shape, text = line.split(maxsplit=3)
    assert str(recipe(name, kind, "classes", tuple(map(int, shape.split("x"))))) == text


def test_recipes_for_masks_neither_cut_out_nor_mix() -> None:
    assert str(recipe("strong", "picture", "masks", (3, 32, 32))) == "crop, flip, colour"
    assert str(recipe("strong", "signal", "masks", (1, 80))) == "shift 10 zeros, gain 6, noise 0.05"


CANONICAL = [
    "none",
    "shift 4",
    "shift 4 zeros",
    "shift 4, flip, cutout 8, mixup",
    "flip -2 0.25",
    "flip share=0.25",
    "alternating-flip",
    "crop 0.25..1",
    "crop ratio=0.9..1.1 share=0.5",
    "crop 0.3333333333333333..1",
    "colour 0.4 saturation=0",
    "gain 6, noise 0.05",
    "cutmix share=0.5",
    "kornia RandomRotation degrees=15 p=0.5",
    "kornia RandomRotation degrees=-15..15 same_on_batch=true, flip",
]


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_texts_come_back(text: str) -> None:
    assert str(parse(text)) == text
    assert f"{parse(text)}" == text
    assert parse(str(parse(text))) == parse(text)


LOOSE = [
    ("  shift   pixels=4 ,flip axis=-1", "shift 4, flip"),
    ("cutout 8, shift 4", "shift 4, cutout 8"),
    ("mixup 0.2", "mixup"),
    ("color 0.3", "colour 0.3"),
    ("crop scale=0.5..1.0", "crop"),
    ("noise deviation=1e-2", "noise 0.01"),
]


@pytest.mark.parametrize(("text", "canonical"), LOOSE)
def test_loose_texts_become_canonical(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


STEPS = (
    "alternating-flip, colour, crop, cutmix, cutout, flip, gain, kornia, mixup, noise, shift; "
    "or one of the recipes none, light, standard, strong."
)
WRONG_TEXTS = [
    ("", f"augmentation '': No augmentation step is called ''. Known: {STEPS}"),
    ("shft 4", f"augmentation 'shft 4': No augmentation step is called 'shft'. Did you mean 'shift'? Known: {STEPS}"),
    ("flip,", f"augmentation '': No augmentation step is called ''. Known: {STEPS}"),
    (
        "flip, strong",
        f"augmentation 'strong': No augmentation step is called 'strong'. Known: {STEPS}",
    ),
    ("shift", "augmentation 'shift': it needs its pixels, as in shift 4."),
    ("cutout share=0.5", "augmentation 'cutout share=0.5': it needs its size, as in cutout 4."),
    ("shift 1.5", "augmentation 'shift 1.5': shift: pixels is a whole number of at least 1, got 1.5."),
    (
        "shift 4 zeros 3",
        "augmentation 'shift 4 zeros 3': it has 2 settings (pixels, padding), and '3' is one more.",
    ),
    (
        "shift 4 pading=zeros",
        (
            "augmentation 'shift 4 pading=zeros': No setting is called 'pading'. Did you mean 'padding'? "
            "Known: padding, pixels."
        ),
    ),
    ("shift 4 pixels=3", "augmentation 'shift 4 pixels=3': pixels is given twice."),
    (
        "crop 1..2",
        "augmentation 'crop 1..2': crop: scale is two rising numbers above 0 and at most 1, got (1, 2).",
    ),
    (
        "crop 0.1..0.2..0.3",
        (
            "augmentation 'crop 0.1..0.2..0.3': crop: scale is two rising numbers above 0 and at most 1, "
            "got (0.1, 0.2, 0.3)."
        ),
    ),
    (
        "kornia",
        (
            "augmentation 'kornia': it is followed by the name of one of kornia's augmentations, "
            "as in kornia RandomRotation degrees=15."
        ),
    ),
    (
        "kornia RandomRotation 15",
        (
            "augmentation 'kornia RandomRotation 15': its settings are written with their names, as in degrees=15; "
            "got '15'."
        ),
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG_TEXTS)
def test_message_of_a_wrong_text(text: str, message: str) -> None:
    with pytest.raises(StriateError) as caught:
        recipe(text, "picture", "classes", (3, 32, 32))
    assert str(caught.value) == message


UNFIT = [
    (
        *("shift 40", "picture", "classes", (3, 32, 32)),
        "A shift by up to 40 reflects 40 positions, but an axis has only 32; shift by at most 31, or pad with zeros.",
    ),
    (*("flip -3", "picture", "classes", (3, 32, 32)), "flip: axis is -3, but the spatial axes of the inputs are 2."),
    (*("flip -2", "signal", "classes", (1, 80)), "flip: axis is -2, but the spatial axes of the inputs are 1."),
    (
        *("shift 2, mixup", "picture", "masks", (1, 32, 32)),
        "mixup: masks cannot be mixed: each position has one class; leave mixup out.",
    ),
    (
        *("kornia Resize size=16", "picture", "classes", (3, 32, 32)),
        "kornia: Resize makes (2, 3, 16, 16) of a batch (2, 3, 32, 32); an augmentation keeps the shape.",
    ),
]


@pytest.mark.parametrize(("text", "kind", "task", "shape", "message"), UNFIT)
def test_steps_that_do_not_fit_the_inputs_are_refused_before_the_first_batch(
    text: str, kind: str, task: str, shape: tuple[int, ...], message: str
) -> None:
    if "kornia" in text:
        pytest.importorskip("kornia", reason="the extra 'augment' is not installed")
    before = torch.get_rng_state()
    with pytest.raises(OptionError) as caught:
        recipe(text, kind, task, shape)
    assert str(caught.value) == f"augmentation {text!r}: {message}"
    assert torch.equal(torch.get_rng_state(), before)
    assert recipe("shift 2, mixup", "picture", "classes", (1, 8, 8)).classes is None


WRONG_USES: list[tuple[Any, str]] = [
    (
        lambda: Augmentation((Flip(), "flip")),  # type: ignore[arg-type]
        "An augmentation consists of steps such as Shift(4), or kornia modules; got 'flip'.",
    ),
    (
        lambda: Augmentation((Mixup(),))(batch((1, 4, 4)), LABELS, CHANCE, halved),
        "To mix labels, an augmentation needs to know how many there are: classes=10.",
    ),
    (
        lambda: Augmentation((Mixup(),))(batch((1, 4, 4)), batch((4, 4)), CHANCE, halved),
        "mixup: masks cannot be mixed: each position has one class; leave mixup out.",
    ),
    (
        lambda: Augmentation((Flip(),))(batch((1, 4, 4)), LABELS, CHANCE.part(slice(3)), halved),
        "An augmentation got 24 inputs, 24 targets and random numbers for 3 examples.",
    ),
]


@pytest.mark.parametrize(("mistake", "message"), WRONG_USES)
def test_message_of_a_wrong_use(mistake: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        mistake()
    assert str(caught.value) == message


def test_a_step_draws_the_same_whatever_other_steps_there_are() -> None:
    x = torch.ones(24, 1, 9, 9, dtype=torch.uint8)
    alone, _ = Augmentation((Cutout(3),))(x, LABELS, CHANCE, halved)
    among, _ = Augmentation((Flip(), Cutout(3)))(x, LABELS, CHANCE, halved)
    assert alone.equal(among)


def test_modules_of_kornia_stand_among_the_steps_and_see_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "CHUNK", 1)
    sizes: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x

    made = Augmentation((Flip(), Counting()))  # type: ignore[arg-type]
    x = batch((1, 4, 4))
    inputs, _ = made(x, LABELS, CHANCE, halved)
    assert sizes == [24]
    assert inputs.equal(Augmentation((Flip(),))(x, LABELS, CHANCE, halved)[0])
    assert isinstance(made.steps[1], Foreign)
    assert str(made) == "flip, kornia Counting"


def test_values_of_every_type_and_layout_are_restored() -> None:
    fractions = torch.tensor([-40000.0, 0.5, 1.5, 40000.0])
    assert restored(fractions.clone(), torch.empty(4, dtype=torch.int16)).tolist() == [-32768, 0, 2, 32767]
    assert restored(fractions.clone(), torch.empty(4, dtype=torch.uint8)).tolist() == [0, 1, 2, 255]
    assert restored(fractions, torch.empty(4, dtype=torch.float16)).dtype == torch.float16
    assert restored(fractions, torch.empty(4)) is fractions
    turned = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert restored(torch.rand(2, 3, 4, 5), turned).stride() == turned.stride()
