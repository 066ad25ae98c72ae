"""Every step of an augmentation against a slow reference, one example at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate.alterations import (
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
    Shift,
    Step,
)
from striate.draws import Chance
from striate.errors import OptionError, UnknownNameError

COUNT = 64
INDICES = torch.arange(100, 100 + COUNT)
CHANCE = Chance(0, 3, INDICES)
LABELS = torch.arange(COUNT) % 10
SHAPES = {"signal": (2, 31), "picture": (3, 8, 10), "grey": (1, 9, 9), "volume": (2, 5, 6, 7)}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def batch(*shape: int, count: int = COUNT) -> Tensor:
    return (torch.arange(count * math.prod(shape)) * 37 % 251).view(count, *shape).to(torch.uint8)


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


PLAIN: list[Step] = [Shift(2), Shift(2, "zeros"), Flip(), AlternatingFlip(), Crop(), Colour(), Crop(share=0.5)]
AFTER: list[Step] = [Gain(6.0), Noise(0.1), Cutout(4), Cutout(3, share=0.5)]
MIXING: list[Step] = [Mixup(), Mixup(1.0, share=0.5), Cutmix(), Cutmix(0.5, share=0.5)]
every_step = pytest.mark.parametrize("step", [*PLAIN, *AFTER, *MIXING], ids=repr)


def prepared(step: Step, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A batch and targets such as the step gets."""
    x = batch(*shape)
    targets = nn.functional.one_hot(LABELS, 10).float() if step.mixes else LABELS
    return (x if step.on_pixels else x.float() / 64 - 2), targets


@every_shape
@every_step
def test_an_example_changes_alike_whatever_else_is_in_the_batch(step: Step, shape: tuple[int, ...]) -> None:
    """Pairs stay together, as they do when a batch is cut over processes."""
    x, targets = prepared(step, shape)
    whole, wholes = step(x, targets, CHANCE)
    for part in (slice(0, 2), slice(2, 38), slice(38, None)):
        inputs, labels = step(x[part], targets[part], CHANCE.part(part))
        torch.testing.assert_close(inputs, whole[part], rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(labels, wholes[part], rtol=0, atol=0)


@every_shape
@every_step
def test_layouts_agree_and_stay_but_for_crops(step: Step, shape: tuple[int, ...]) -> None:
    x, targets = prepared(step, shape)
    before = x.clone()
    plain, _ = step(x, targets, CHANCE)
    turned, _ = step(channels_last(x), targets, CHANCE)
    torch.testing.assert_close(turned, plain, rtol=1e-5, atol=1e-3)
    assert plain.shape == x.shape
    assert x.equal(before)
    if not isinstance(step, Crop):
        assert plain.is_contiguous()
        assert turned.movedim(1, -1).is_contiguous()


@every_step
def test_every_tensor_of_a_step_is_on_the_device_of_the_batch(step: Step) -> None:
    """The device "meta" has no numbers; a tensor left on the CPU would fail beside it, as beside a GPU's."""
    x, targets = (one.to("meta") for one in prepared(step, (3, 8, 10)))
    inputs, labels = step(x, targets, Chance(0, 0, INDICES.to("meta")))
    assert inputs.device.type == labels.device.type == "meta"
    assert inputs.shape == x.shape


@every_step
def test_an_epoch_changes_what_happens(step: Step) -> None:
    x, targets = prepared(step, (3, 8, 10))
    first, second = (step(x, targets, Chance(0, epoch, INDICES))[0] for epoch in (0, 1))
    assert not first.equal(second)
    assert not first.equal(x)


# ---------------------------------------------------------------------------------------------------------- whole moves


@every_shape
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_a_shift_is_a_window_of_the_padded_picture(shape: tuple[int, ...], padding: str) -> None:
    x = batch(*shape)
    masks = x[:, 0]
    found, moved = Shift(2, padding)(x, masks, CHANCE)
    axes = len(shape) - 1
    offsets = CHANCE.integers("shift", 5, axes) - 2
    pads = (2,) * (2 * axes)
    mode = "reflect" if padding == "reflect" else "constant"
    padded = nn.functional.pad(x.float(), pads, mode=mode).to(torch.uint8)
    around = nn.functional.pad(masks, pads, value=255)
    for number in range(COUNT):
        window: Any = [slice(int(o) + 2, int(o) + 2 + n) for o, n in zip(offsets[:, number], shape[1:], strict=True)]
        assert found[number].equal(padded[number][(slice(None), *window)])
        assert moved[number].equal(around[number][tuple(window)])


def test_every_shift_is_equally_likely() -> None:
    x = torch.zeros(9 * 400, 1, 5, 5)
    x[:, :, 2, 2] = 1
    found, _ = Shift(1, "zeros")(x, torch.zeros(len(x), dtype=torch.int64), Chance(0, 0, torch.arange(len(x))))
    counts = found.sum(0)[0, 1:4, 1:4]
    assert counts.sum() == len(x)
    assert counts.min() > 330
    assert counts.max() < 470


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_flip_mirrors_some_examples_and_their_masks(axis: int) -> None:
    x = batch(3, 8, 10)
    found, masks = Flip(axis, share=0.25)(x, x[:, 0], CHANCE)
    flipped = CHANCE.coin("flip", 0.25)
    assert 0 < flipped.sum() < COUNT / 2
    assert found.equal(torch.where(flipped.view(-1, 1, 1, 1), x.flip(axis), x))
    assert masks.equal(found[:, 0])


def test_an_alternating_flip_shows_each_side_once_in_two_epochs() -> None:
    x = batch(3, 8, 10)
    seen = [AlternatingFlip()(x, LABELS, Chance(0, epoch, INDICES))[0] for epoch in range(4)]
    assert seen[0].flip(-1).equal(seen[1])
    assert seen[0].equal(seen[2])
    assert seen[1].equal(seen[3])
    share = (seen[0] == x).all(-1).all(-1).all(-1).float().mean()
    assert 0.3 < share < 0.7


# ---------------------------------------------------------------------------------------------------------------- crops


def test_boxes_have_the_drawn_volume_and_ratio_and_lie_within() -> None:
    chance = Chance(0, 0, torch.arange(20_000))
    boxes = Crop((0.5, 1.0), (0.75, 4 / 3)).boxes(chance, (20, 40))
    sizes = torch.tensor([[20.0], [40.0]])
    parts = boxes.lengths / sizes
    torch.testing.assert_close(parts.prod(0), chance.between("volume", 0.5, 1.0))
    assert parts.max() <= 1
    assert boxes.starts.min() >= 0
    assert (boxes.starts + boxes.lengths - sizes).max() < 1e-4
    ratio = parts[1] / parts[0]
    drawn = chance.between("ratio", math.log(0.75), math.log(4 / 3), 1)[0].exp()
    fits = (drawn < 1 / parts.prod(0)) & (drawn > parts.prod(0))
    torch.testing.assert_close(ratio[fits], drawn[fits])
    assert 0.5 < fits.float().mean() < 1
    assert ratio.min() > 0.749
    assert ratio.max() < 1.334


@pytest.mark.parametrize("sizes", [(30,), (6, 7, 8)])
def test_boxes_of_signals_and_volumes_have_the_drawn_volume(sizes: tuple[int, ...]) -> None:
    boxes = Crop((0.3, 0.9), share=0.5).boxes(CHANCE, sizes)
    volume = boxes.lengths.prod(0) / math.prod(sizes)
    cropped = CHANCE.coin("crop", 0.5)
    torch.testing.assert_close(volume[cropped], CHANCE.between("volume", 0.3, 0.9)[cropped])
    torch.testing.assert_close(volume[~cropped], torch.ones(int((~cropped).sum())))
    assert boxes.starts[:, ~cropped].abs().max() == 0


def test_a_crop_moves_its_masks_along() -> None:
    """Where a picture of two values is nearer to the upper one, the mask says so."""
    x = torch.tensor([[0, 100], [100, 0]], dtype=torch.uint8).repeat_interleave(8, 0).repeat_interleave(8, 1)
    x = x.expand(COUNT, 1, -1, -1).contiguous()
    found, masks = Crop((0.2, 0.8))(x, x[:, 0], CHANCE)
    sure = (found[:, 0] - 50).abs() > 1
    assert ((found[:, 0] > 50) == (masks > 50))[sure].all()
    assert sure.float().mean() > 0.9


# -------------------------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colour_is_brightness_then_contrast_then_saturation(channels: int) -> None:
    x = batch(channels, 6, 7)
    step = Colour(0.4, 0.3, 0.2, share=0.8)
    found, _ = step(x, LABELS, CHANCE)
    luma = torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1 / channels] * channels).view(-1, 1, 1)
    for number, factors in enumerate(step.factors(CHANCE).T.tolist()):
        picture = x[number].float() * factors[0]
        mean = (picture * luma).sum(0).mean()
        picture = factors[1] * picture + (1 - factors[1]) * mean
        picture = factors[2] * picture + (1 - factors[2]) * (picture * luma).sum(0)
        torch.testing.assert_close(found[number], picture, rtol=1e-5, atol=1e-3)


def test_factors_of_colour_are_within_their_settings() -> None:
    chance = Chance(0, 0, torch.arange(5000))
    factors = Colour(0.4, 0.0, 0.2).factors(chance)
    for row, limit in zip(factors, (0.4, 0.0, 0.2), strict=True):
        assert 1 - limit <= row.min() <= row.max() <= 1 + limit
        assert row.max() - row.min() >= 1.98 * limit
    unchanged = (Colour(share=0.25).factors(chance) == 1).all(0).float().mean()
    assert 0.72 < unchanged < 0.78


# -------------------------------------------------------------------------------------------------- gain, noise, cutout


def test_gain_is_a_factor_of_so_many_decibels() -> None:
    x = batch(2, 31).float() + 1
    found, _ = Gain(6.0)(x, LABELS, CHANCE)
    decibels = 20 * torch.log10(found[:, 1, 5] / x[:, 1, 5])
    torch.testing.assert_close(decibels, CHANCE.between("gain", -6, 6), rtol=1e-4, atol=1e-4)


def test_noise_is_normal_and_another_one_for_each_example() -> None:
    from scipy import stats

    x = torch.ones(COUNT, 1, 40, 40)
    found, _ = Noise(0.5)(x, LABELS, CHANCE)
    values = ((found - 1) / 0.5).flatten(1)
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(values) - torch.eye(COUNT)
    assert correlation.abs().max() < 0.15


@every_shape
def test_a_hole_is_filled_with_zeros(shape: tuple[int, ...]) -> None:
    x = torch.ones(COUNT, *shape)
    found, _ = Cutout(4)(x, LABELS, CHANCE)
    for number in range(COUNT):
        wanted = torch.ones(shape)
        window = []
        for axis, size in enumerate(shape[1:]):
            centre = int(CHANCE.integers(f"centre {axis}", size)[number])
            window.append(slice(max(0, centre - 2), centre + 2))
        wanted[(slice(None), *window)] = 0
        assert found[number].equal(wanted)


def test_only_a_share_gets_holes() -> None:
    found, _ = Cutout(3, share=0.5)(torch.ones(COUNT, 1, 8, 8), LABELS, CHANCE)
    assert ((found == 0).flatten(1).any(1) == CHANCE.coin("cutout", 0.5)).all()


# --------------------------------------------------------------------------------------------------------------- mixing


def partner(number: int, count: int) -> int:
    return min(number ^ 1, count - 1)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_mixup_is_a_weighted_mean_of_neighbours(count: int, share: float) -> None:
    chance = CHANCE.part(slice(0, count))
    x, targets = batch(3, 4, 5, count=count).float(), torch.eye(10)[LABELS[:count]]
    found, mixed = Mixup(0.4, share)(x, targets, chance)
    for number in range(count):
        other = partner(number, count)
        lower = chance.part(slice(min(number, other), min(number, other) + 1))
        weight = lower.beta("weight", 0.4) * (lower.coin("mixed", share) | (share == 1))
        torch.testing.assert_close(found[number], x[number] + weight * (x[other] - x[number]), rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(mixed[number], targets[number] + weight * (targets[other] - targets[number]))


def test_what_a_pair_gets_does_not_depend_on_which_of_them_comes_first() -> None:
    x, targets = torch.rand(2, 1, 4, 4), torch.eye(2)
    turned = Chance(0, 3, torch.tensor([8, 5]))
    for step in (Mixup(1.0), Cutmix()):
        found, mixed = step(x, targets, Chance(0, 3, torch.tensor([5, 8])))
        back, mixed_back = step(x.flip(0), targets.flip(0), turned)
        torch.testing.assert_close(found, back.flip(0))
        torch.testing.assert_close(mixed, mixed_back.flip(0))


@every_shape
def test_cutmix_takes_a_box_from_the_partner_and_as_much_of_its_target(shape: tuple[int, ...]) -> None:
    x = torch.arange(COUNT).float().view(-1, *[1] * len(shape)).expand(COUNT, *shape)
    found, mixed = Cutmix()(x, torch.eye(COUNT), CHANCE)
    own = torch.arange(COUNT)
    for number in range(COUNT):
        pixels = found[number, 0]
        assert set(pixels.unique().int().tolist()) <= {number, number ^ 1}
        part = (pixels == number ^ 1).float().mean()
        torch.testing.assert_close(mixed[number, number ^ 1], part)
        torch.testing.assert_close(mixed[number, number], 1 - part)
        inside = (pixels == number ^ 1).nonzero()
        if len(inside):
            assert math.prod((inside.amax(0) - inside.amin(0) + 1).tolist()) == len(inside)
        assert found[number].equal(found[number, :1].expand(shape))
    assert mixed.sum(1).allclose(torch.ones(COUNT))
    assert 0.15 < 1 - mixed[own, own].mean() < 0.6


def test_targets_that_are_numbers_are_mixed_as_they_are() -> None:
    _, mixed = Mixup(1.0)(torch.zeros(4, 1, 2), torch.tensor([0.0, 1.0, 2.0, 4.0]), CHANCE.part(slice(4)))
    assert mixed[0] + mixed[1] == 1
    torch.testing.assert_close(mixed[2] + mixed[3], torch.tensor(6.0))


# --------------------------------------------------------------------------------------------------------------- kornia


def test_kornia_draws_the_same_for_the_same_batch_and_leaves_the_generator_alone() -> None:
    x = batch(3, 16, 16, count=4)
    step = Foreign("RandomRotation", (("degrees", 15), ("p", 1.0)))
    chance = CHANCE.part(slice(4))
    state = torch.random.get_rng_state()
    first, second = (step(x, LABELS[:4], chance)[0] for _ in range(2))
    assert torch.random.get_rng_state().equal(state)
    assert first.equal(second)
    assert not first.equal(step(x, LABELS[:4], Chance(1, 3, chance.indices))[0])
    assert first.shape == x.shape
    assert 100 < first.max() <= 255


def test_a_module_of_one_s_own_is_a_step() -> None:
    x = batch(3, 8, 8).float()
    step = Foreign(nn.Hardtanh(10.0, 20.0))
    found, _ = step(x, LABELS, CHANCE)
    assert found.min() == 10
    assert found.max() == 20


def test_masks_stay_with_colours_of_kornia() -> None:
    x = batch(3, 8, 8)
    masks = x[:, 0]
    assert Foreign("RandomGamma")(x, masks, CHANCE)[1] is masks


# ------------------------------------------------------------------------------------------------------------- messages

MISTAKES: list[tuple[Any, str]] = [
    (lambda: Shift(0), "shift: pixels is a whole number of at least 1, got 0."),
    (lambda: Shift(1.5), "shift: pixels is a whole number of at least 1, got 1.5."),  # type: ignore[arg-type]
    (lambda: Shift(True), "shift: pixels is a whole number of at least 1, got True."),
    (lambda: Shift(1, "mirror"), "shift: padding is reflect or zeros, got 'mirror'."),
    (lambda: Flip(1), "flip: axis is -1 for the last axis, -2 for the one before it, got 1."),
    (lambda: Flip(share=0), "flip: share is a number above 0 and at most 1, got 0."),
    (lambda: AlternatingFlip(0), "alternating-flip: axis is -1 for the last axis, -2 for the one before it, got 0."),
    (lambda: Crop((0.9, 0.5)), "crop: scale is two rising numbers above 0 and at most 1, got (0.9, 0.5)."),
    (lambda: Crop(0.5), "crop: scale is two rising numbers above 0 and at most 1, got 0.5."),  # type: ignore[arg-type]
    (lambda: Crop(ratio=(0, 1)), "crop: ratio is two rising numbers above 0, got (0, 1)."),
    (lambda: Colour(1.2), "colour: brightness is a number from 0 to 1, got 1.2."),
    (lambda: Gain(math.inf), "gain: decibels is a number above 0, got inf."),
    (lambda: Noise(-1), "noise: deviation is a number above 0, got -1."),
    (lambda: Cutout(0), "cutout: size is a whole number of at least 1, got 0."),
    (lambda: Mixup(0), "mixup: alpha is a number above 0, got 0."),
    (lambda: Cutmix(1, 2), "cutmix: share is a number above 0 and at most 1, got 2."),
    (
        lambda: Flip(-2)(batch(2, 9), LABELS, CHANCE),
        "flip: axis is -2, but the spatial axes of the inputs are 1.",
    ),
    (
        lambda: Mixup()(batch(1, 4, 4).float(), LABELS, CHANCE),
        (
            "mixup: it mixes class probabilities or other floating-point targets, got torch.int64; "
            "one_hot of torch.nn.functional makes probabilities of labels."
        ),
    ),
    (
        lambda: Cutmix()(batch(1, 4, 4).float(), batch(4, 4), CHANCE),
        "cutmix: masks cannot be mixed: each position has one class; leave cutmix out.",
    ),
    (
        lambda: Foreign("RandomRotation", (("degrees", 5),))(batch(3, 4, 4), batch(4, 4), CHANCE),
        "kornia: RandomRotation may move positions, and masks would stay behind.",
    ),
    (
        lambda: Foreign("RandomMixUpV2", (("p", 1.0),))(batch(3, 4, 4), LABELS, CHANCE),
        (
            "kornia: RandomMixUpV2 mixes pictures, and their classes would stay as they are; "
            "take the step mixup or cutmix."
        ),
    ),
    (
        lambda: Foreign("RandomSaturation", (("p", 1.0),))(batch(1, 4, 4), LABELS, CHANCE),
        (
            f"kornia: RandomSaturation does not take a batch ({COUNT}, 1, 4, 4): "
            f"Input size must have a shape of (*, 3, H, W). Got torch.Size([{COUNT}, 1, 4, 4])"
        ),
    ),
    (
        lambda: Foreign(nn.AvgPool2d(2))(batch(3, 4, 4), LABELS, CHANCE),
        f"kornia: AvgPool2d makes ({COUNT}, 3, 2, 2) of a batch ({COUNT}, 3, 4, 4); an augmentation keeps the shape.",
    ),
    (
        lambda: Foreign(3),  # type: ignore[arg-type]
        "kornia: module is the name of an augmentation or a torch module, got 3.",
    ),
    (
        lambda: Foreign("RandomRotation"),
        (
            "kornia: RandomRotation refuses these settings: "
            "RandomRotation.__init__() missing 1 required positional argument: 'degrees'"
        ),
    ),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_message(mistake: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        mistake()
    assert str(caught.value) == message


def test_an_augmentation_that_kornia_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(UnknownNameError) as caught:
        Foreign("RandomRotate")
    message = str(caught.value)
    assert message.startswith(
        "No augmentation of kornia is called 'RandomRotate'. Did you mean 'RandomRotation'? Known: "
    )
    assert "RandomGamma" in message


def test_without_kornia_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(OptionError) as caught:
        Foreign("RandomErasing", (("p", 0.123),))
    assert str(caught.value) == "kornia is not installed: python -m pip install 'striate[augment]'."
