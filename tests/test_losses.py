"""Losses: each is its formula, written out; parts of a batch add up to the whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.errors import OptionError
from striate.losses import Loss, balanced, mean

torch.manual_seed(0)
SCORES = torch.randn(7, 4, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 0])
MAPS = torch.randn(3, 4, 5, 6, dtype=torch.float64)
MASKS = torch.randint(0, 4, (3, 5, 6)).byte()
MASKS[0, :2] = 255
MASKS[2] = 255
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)


def test_softmax_is_pytorchs_mean_with_weights_and_smoothing() -> None:
    for weights in (None, WEIGHTS):
        for smoothing in (0.0, 0.1):
            ours = Loss("softmax", weights, smoothing)(SCORES, LABELS)
            torch.testing.assert_close(ours, F.cross_entropy(SCORES, LABELS, weights, label_smoothing=smoothing))


def test_softmax_of_probabilities_is_the_weighted_mean_of_the_classes() -> None:
    """For one-hot rows as for labels; between two labels in proportion."""
    one_hot = F.one_hot(LABELS, 4).double()
    for weights in (None, WEIGHTS):
        torch.testing.assert_close(Loss("softmax", weights)(SCORES, one_hot), Loss("softmax", weights)(SCORES, LABELS))
    mixed = 0.3 * one_hot + 0.7 * one_hot.roll(1, 0)
    expected = 0.3 * F.cross_entropy(SCORES, LABELS) + 0.7 * F.cross_entropy(SCORES, LABELS.roll(1))
    torch.testing.assert_close(Loss("softmax")(SCORES, mixed), expected)


def test_softmax_of_masks_leaves_pixels_of_255_out() -> None:
    counting = MASKS != 255
    chosen = MAPS.movedim(1, -1)[counting]
    expected = F.cross_entropy(chosen, MASKS[counting].long())
    torch.testing.assert_close(Loss("softmax")(MAPS, MASKS), expected)
    weighed = F.cross_entropy(chosen, MASKS[counting].long(), WEIGHTS)
    torch.testing.assert_close(Loss("softmax", WEIGHTS)(MAPS, MASKS), weighed)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_svm_is_the_sum_of_the_margins(weights: Tensor | None) -> None:
    total, count = 0.0, 0.0
    for s, y in zip(SCORES.tolist(), LABELS.tolist(), strict=True):
        w = 1.0 if weights is None else float(weights[y])
        total += w * sum(max(0.0, s[j] - s[y] + 1) for j in range(4) if j != y)
        count += w
    assert Loss("svm", weights)(SCORES, LABELS).item() == pytest.approx(total / count)


def test_mse_is_pytorchs_on_one_hot_targets() -> None:
    torch.testing.assert_close(Loss("mse")(SCORES, LABELS), F.mse_loss(SCORES, F.one_hot(LABELS, 4).double()))
    smooth = F.one_hot(LABELS, 4).double() * 0.9 + 0.1 / 4
    torch.testing.assert_close(Loss("mse", smoothing=0.1)(SCORES, LABELS), F.mse_loss(SCORES, smooth))


def test_dice_is_its_definition_picture_by_picture() -> None:
    values = []
    for scores, mask in zip(MAPS.softmax(1), MASKS, strict=True):
        counting = mask != 255
        per_class = []
        for c in range(4):
            said, truth = scores[c][counting], (mask[counting] == c).double()
            per_class.append((2 * (said * truth).sum() + 1) / (said.sum() + truth.sum() + 1))
        values.append(1 - torch.stack(per_class).mean())
    torch.testing.assert_close(Loss("dice")(MAPS, MASKS), torch.stack(values).mean())
    both = Loss("softmax")(MAPS, MASKS) + Loss("dice")(MAPS, MASKS)
    torch.testing.assert_close(Loss("softmax+dice")(MAPS, MASKS), both)


CASES: list[tuple[str, Tensor, Tensor]] = [
    *((name, SCORES, LABELS) for name in ("softmax", "svm", "mse")),
    *((name, MAPS, MASKS) for name in ("softmax", "dice", "softmax+dice")),
]


@pytest.mark.parametrize(("name", "scores", "targets"), CASES)
def test_parts_of_a_batch_add_up_to_the_whole(name: str, scores: Tensor, targets: Tensor) -> None:
    loss = Loss(name, WEIGHTS if "dice" not in name and name != "mse" else None)
    parts = [(scores[s], targets[s]) for s in (slice(0, 2), slice(2, None))]
    totals = [sum(column) for column in zip(*(loss.totals(*part) for part in parts), strict=True)]
    counts = [sum(column) for column in zip(*(loss.counts(y) for _, y in parts), strict=True)]
    torch.testing.assert_close(mean(totals, counts), loss(scores, targets))


def test_a_batch_without_a_pixel_that_counts_teaches_nothing() -> None:
    scores = MAPS.clone().requires_grad_()
    empty = torch.full_like(MASKS, 255)
    value = Loss("softmax")(scores, empty)
    value.backward()
    assert value.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.abs().max() == 0


def test_balanced_weights() -> None:
    assert balanced([10, 30]) == pytest.approx((2.0, 2 / 3))
    with pytest.raises(OptionError) as caught:
        balanced([3, 0, 1])
    assert str(caught.value) == "class 1 has no training examples, so it cannot be balanced."


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *(
        (
            name,
            {"masks": True, "mixed": False},
            f"loss={name} is for one label an example; for masks take softmax, dice or both.",
        )
        for name in ("svm", "mse")
    ),
    (
        "softmax+dice",
        {"masks": False, "mixed": False},
        "loss=softmax+dice is for masks, and this data has labels; take softmax, svm or mse.",
    ),
    (
        "svm",
        {"masks": False, "mixed": True},
        "mixup and cutmix make two labels of one, which the svm loss has no place for.",
    ),
]


@pytest.mark.parametrize(("name", "given", "message"), REFUSED)
def test_losses_that_do_not_fit_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Loss(name).check(**given)
    assert str(caught.value) == message
    assert math.isfinite(Loss("softmax")(SCORES, LABELS).item())
