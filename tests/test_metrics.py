"""Figures of networks, checked by hand, against loops that follow the definitions, and against torchmetrics."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torchmetrics.functional import classification, segmentation

from striate.errors import DataError, OptionError
from striate.metrics import ClassFigures, Evaluation, MaskEvaluation

# True and predicted class of six examples, with the probability of the prediction.
EXAMPLES = [(0, 0, 0.9), (0, 1, 0.8), (1, 1, 0.6), (1, 0, 0.95), (1, 1, 0.7), (0, 1, 0.8)]


def evaluation() -> Evaluation:
    probabilities = torch.zeros(6, 3)
    for row, (_, said, share) in zip(probabilities, EXAMPLES, strict=True):
        row[said], row[2] = share, 1 - share
    return Evaluation(("cat", "dog", "owl"), torch.tensor([truth for truth, *_ in EXAMPLES]), probabilities, 0.25)


def drawn(count: int, classes: int, seed: int = 0) -> Evaluation:
    """Random probabilities that lean to the true class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    scores = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    scores[torch.arange(count), labels] += 1
    return Evaluation(tuple(map(str, range(classes))), labels, (2 * scores).softmax(1), 0.5)


def test_accuracy_and_confusion() -> None:
    e = evaluation()
    assert e.predictions.tolist() == [0, 1, 1, 0, 1, 1]
    assert e.accuracy == 3 / 6
    assert e.confusion.tolist() == [[1, 2, 0], [1, 2, 0], [0, 0, 0]]


def test_a_class_without_examples_has_no_accuracy() -> None:
    found = evaluation().accuracy_per_class
    assert found == {"cat": pytest.approx(1 / 3), "dog": pytest.approx(2 / 3), "owl": None}


def test_mistakes_come_most_confident_first_and_ties_in_order() -> None:
    assert evaluation().confident_mistakes(10) == [3, 1, 5]
    assert evaluation().confident_mistakes(2) == [3, 1]


def test_no_mistakes() -> None:
    e = Evaluation(("a", "b"), torch.tensor([1]), torch.tensor([[0.0, 1.0]]), 0.0)
    assert e.confident_mistakes(5) == []


# ------------------------------------------------------------------------------------------------------------ by class


def test_precision_recall_and_f1_of_each_class_by_hand() -> None:
    found = evaluation().per_class
    assert found["cat"] == ClassFigures(support=3, predicted=2, right=1)
    assert (found["cat"].precision, found["cat"].recall, found["cat"].f1) == (1 / 2, 1 / 3, 2 / 5)
    assert (found["dog"].precision, found["dog"].recall, found["dog"].f1) == (2 / 4, 2 / 3, 4 / 7)
    assert evaluation().support == {"cat": 3, "dog": 3, "owl": 0}


def test_what_is_not_defined_is_none_with_its_reason_and_not_in_the_mean() -> None:
    e = evaluation()
    owl = e.per_class["owl"]
    assert (owl.precision, owl.recall, owl.f1, owl.iou) == (None, None, None, None)
    assert owl.unknown == {
        "precision": "the class was never predicted",
        "recall": "there are no examples of the class",
        "f1": "there are no examples of the class, and it was never predicted",
        "iou": "there are no examples of the class, and it was never predicted",
    }
    assert e.macro == {
        "precision": pytest.approx((1 / 2 + 2 / 4) / 2),
        "recall": pytest.approx((1 / 3 + 2 / 3) / 2),
        "f1": pytest.approx((2 / 5 + 4 / 7) / 2),
    }


def test_a_class_that_is_there_and_never_predicted_has_recall_and_f1_of_0_and_no_precision() -> None:
    missed = ClassFigures(support=5, predicted=0, right=0)
    assert (missed.precision, missed.recall, missed.f1, missed.iou) == (None, 0.0, 0.0, 0.0)
    assert missed.unknown == {"precision": "the class was never predicted"}


def test_by_class_as_torchmetrics_says_where_all_is_defined() -> None:
    e = drawn(300, 5)
    for name in ("precision", "recall", "f1_score"):
        function = getattr(classification, f"multiclass_{name}")
        wanted = function(e.probabilities, e.labels, 5, average=None).tolist()
        figure = name.removesuffix("_score")
        assert [getattr(one, figure) for one in e.per_class.values()] == pytest.approx(wanted, abs=1e-6)
        macro = function(e.probabilities, e.labels, 5, average="macro").item()
        assert e.macro[figure] == pytest.approx(macro, abs=1e-6)
    wanted = classification.multiclass_jaccard_index(e.probabilities, e.labels, 5, average=None).tolist()
    assert [one.iou for one in e.per_class.values()] == pytest.approx(wanted, abs=1e-6)


# --------------------------------------------------------------------------------------------------------------- top k


def test_top_k_by_hand() -> None:
    e = evaluation()
    assert e.top_k(1) == e.accuracy
    # The wrong answers of the last three mistakes give the rest to the owl: the truth comes third.
    assert e.top_k(2) == 3 / 6
    assert e.top_k(3) == 1.0


def test_of_equal_probabilities_the_first_counts() -> None:
    e = Evaluation(("a", "b", "c"), torch.tensor([0, 1, 2]), torch.full((3, 3), 1 / 3), 1.1)
    assert [e.top_k(k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_top_k_by_its_definition_and_by_torchmetrics(k: int) -> None:
    e = drawn(200, 7)
    hits = 0
    for label, row in zip(e.labels.tolist(), e.probabilities.tolist(), strict=True):
        hits += sum(value > row[label] for value in row) < k
    assert e.top_k(k) == hits / 200
    wanted = classification.multiclass_accuracy(e.probabilities, e.labels, 7, average="micro", top_k=k).item()
    assert e.top_k(k) == pytest.approx(wanted, abs=1e-6)


# --------------------------------------------------------------------------------------------------------- calibration


def test_reliability_by_hand() -> None:
    e = Evaluation(
        ("a", "b"),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.7, 0.3], [0.0, 1.0]], dtype=torch.float64),
        0.5,
    )
    rows = [(b.low, b.high, b.count, b.confidence, b.accuracy) for b in e.reliability(4)]
    assert rows == [
        (0.0, 0.25, 0, None, None),
        (0.25, 0.5, 0, None, None),
        (0.5, 0.75, 3, pytest.approx(2 / 3), pytest.approx(2 / 3)),
        (0.75, 1.0, 1, 1.0, 1.0),
    ]
    assert e.calibration_error(4) == pytest.approx(0)
    # Five bins part 0.6 from 0.7: (1 * |1 - 0.6| + 2 * |1/2 - 0.7| + 1 * 0) / 4.
    assert e.calibration_error(5) == pytest.approx((0.4 + 2 * 0.2) / 4)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_by_its_definition_and_by_torchmetrics(bins: int) -> None:
    e = drawn(400, 4)
    total = 0.0
    for i in range(bins):
        inside = [
            (max(row), row.index(max(row)) == label)
            for row, label in zip(e.probabilities.tolist(), e.labels.tolist(), strict=True)
            if i / bins < max(row) <= (i + 1) / bins
        ]
        if inside:
            sure, right = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            total += len(inside) / 400 * abs(right - sure)
    assert e.calibration_error(bins) == pytest.approx(total, rel=1e-12)
    wanted = classification.multiclass_calibration_error(e.probabilities, e.labels, 4, n_bins=bins).item()
    assert e.calibration_error(bins) == pytest.approx(wanted, abs=1e-6)


def test_full_certainty_belongs_to_the_last_bin() -> None:
    """As in the paper's definition, ``(low, high]``; torchmetrics gives probability 1 a bin of its own."""
    probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.95, 0.05], [0.95, 0.05]], dtype=torch.float64)
    e = Evaluation(("a", "b"), torch.tensor([0, 1, 0, 0]), probabilities, 0.1)
    assert e.calibration_error(10) == pytest.approx(abs(3 / 4 - 0.975))
    alone = classification.multiclass_calibration_error(probabilities, e.labels, 2, n_bins=10).item()
    assert alone == pytest.approx(0.5 * abs(1 / 2 - 1) + 0.5 * abs(1 - 0.95))


def test_without_examples_there_is_nothing_to_say() -> None:
    e = Evaluation(("a", "b"), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), math.nan)
    assert math.isnan(e.top_k(1))
    assert math.isnan(e.calibration_error())
    assert [b.count for b in e.reliability(3)] == [0, 0, 0]
    found = e.to_dict()
    assert [found[name] for name in ("examples", "accuracy", "loss", "calibration_error")] == [0, None, None, None]
    assert found["macro"] == {"precision": None, "recall": None, "f1": None}


WRONG_NUMBERS = [
    (lambda: evaluation().top_k(0), "top_k(0): there are 3 classes; give a number from 1 to that."),
    (lambda: evaluation().top_k(4), "top_k(4): there are 3 classes; give a number from 1 to that."),
    (lambda: evaluation().reliability(0), "reliability(0): give at least 1 bin."),
    (lambda: evaluation().calibration_error(-1), "reliability(-1): give at least 1 bin."),
]


@pytest.mark.parametrize(("call", "message"), WRONG_NUMBERS)
def test_numbers_that_ask_for_nothing_are_refused(call: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        call()
    assert str(caught.value) == message


def test_an_evaluation_as_json_holds_every_figure() -> None:
    e = evaluation()
    found = json.loads(json.dumps(e.to_dict(), allow_nan=False))
    assert found["classes"]["cat"] == {
        "support": 3, "predicted": 2, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "unknown": {},
    }  # fmt: skip
    assert found["classes"]["owl"]["precision"] is None
    assert sorted(found["classes"]["owl"]["unknown"]) == ["f1", "precision", "recall"]
    assert found["confusion"] == [[1, 2, 0], [1, 2, 0], [0, 0, 0]]
    assert (found["examples"], found["accuracy"], found["loss"]) == (6, 0.5, 0.25)
    assert found["calibration_error"] == e.calibration_error()


# --------------------------------------------------------------------------------------------------------------- masks

CLASSES = ("sky", "tree", "road", "car")


def scenes(count: int, *size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random scores, and masks with some pixels of no class; no pixel is of the class "car" or called so."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (count, *size), generator=generator, dtype=torch.uint8)
    masks[torch.rand(count, *size, generator=generator) < 0.2] = 255
    scores = torch.randn(count, 4, *size, generator=generator)
    scores[:, 3] = -9.0
    return scores, masks


def counted(scores: torch.Tensor, masks: torch.Tensor) -> list[list[int]]:
    counts = [[0] * 4 for _ in range(4)]
    for truth, said in zip(masks.flatten().tolist(), scores.argmax(1).flatten().tolist(), strict=True):
        if truth != 255:
            counts[truth][said] += 1
    return counts


@pytest.mark.parametrize("size", [(9,), (6, 5), (3, 4, 5)], ids=["1-D", "2-D", "3-D"])
def test_masks_are_counted_pixel_by_pixel_and_added_up(size: tuple[int, ...]) -> None:
    (one, one_masks), (two, two_masks) = scenes(2, *size), scenes(3, *size, seed=1)
    e = MaskEvaluation.of(CLASSES).add(one, one_masks).add(two.argmax(1), two_masks.long())
    assert e.confusion.tolist() == counted(torch.cat([one, two]), torch.cat([one_masks, two_masks]))
    assert e.pictures == 5


def test_overlap_by_its_definition() -> None:
    scores, masks = scenes(3, 6, 5)
    e = MaskEvaluation.of(CLASSES).add(scores, masks)
    valid = masks != 255
    said = scores.argmax(1)
    for number, name in enumerate(CLASSES[:3]):
        a, b = (masks == number) & valid, (said == number) & valid
        assert e.iou[name] == (a & b).sum().item() / (a | b).sum().item()
        assert e.dice[name] == 2 * (a & b).sum().item() / (a.sum() + b.sum()).item()
    known = [value for value in e.iou.values() if value is not None]
    assert e.mean_iou == pytest.approx(sum(known) / 3)
    assert e.pixel_accuracy == (said == masks)[valid].sum().item() / valid.sum().item()


def test_overlap_as_torchmetrics_says() -> None:
    scores, masks = scenes(3, 6, 5)
    e = MaskEvaluation.of(CLASSES).add(scores, masks)
    wanted = classification.multiclass_jaccard_index(scores, masks.long(), 4, average=None, ignore_index=255).tolist()
    assert [e.iou[name] for name in CLASSES[:3]] == pytest.approx(wanted[:3], abs=1e-6)
    clean = masks.where(masks != 255, 0).long()
    whole = MaskEvaluation.of(CLASSES).add(scores, clean)
    dice = segmentation.dice_score(
        scores.argmax(1), clean, 4, input_format="index", average="none", aggregation_level="global"
    )
    assert [whole.dice[name] for name in CLASSES[:3]] == pytest.approx(dice.flatten()[:3].tolist(), abs=1e-6)


def test_a_class_that_stands_nowhere_has_no_overlap_and_does_not_lower_the_mean() -> None:
    e = MaskEvaluation.of(CLASSES).add(*scenes(2, 4, 4))
    assert (e.iou["car"], e.dice["car"]) == (None, None)
    nothing = MaskEvaluation.of(CLASSES)
    assert (nothing.pixel_accuracy, nothing.mean_iou, nothing.mean_dice, nothing.loss) == (None, None, None, None)


def test_the_loss_is_the_mean_over_all_labelled_pixels() -> None:
    masks = torch.tensor([[[0, 1, 1, 255]]])
    e = MaskEvaluation.of(CLASSES).add(masks.clamp(max=3), masks, 1.0)  # 3 pixels
    assert e.loss == 1.0
    e = e.add(masks[..., :1], masks[..., :1], 5.0)  # one more
    assert e.loss == (3 * 1.0 + 1 * 5.0) / 4
    nobody = torch.full((1, 1, 2), 255)
    assert e.add(torch.zeros_like(nobody), nobody, math.nan).loss == e.loss  # the mean over no pixels tells nothing
    assert e.add(masks[..., :1], masks[..., :1]).loss is None


def test_adding_makes_a_new_evaluation() -> None:
    empty = MaskEvaluation.of(CLASSES)
    empty.add(*scenes(1, 3, 3))
    assert (empty.confusion.sum().item(), empty.pictures) == (0, 0)


def test_another_number_may_mark_what_does_not_count() -> None:
    masks = torch.tensor([[-100, 0, 1]])
    e = MaskEvaluation.of(("a", "b")).add(torch.tensor([[1, 0, 0]]), masks, ignored=-100)
    assert e.confusion.tolist() == [[1, 0], [1, 0]]


def test_masks_as_json_hold_every_figure() -> None:
    e = MaskEvaluation.of(("a", "b", "c")).add(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]), 0.5)
    assert json.loads(json.dumps(e.to_dict(), allow_nan=False)) == {
        "pictures": 1,
        "pixels": 3,
        "pixel_accuracy": 2 / 3,
        "loss": 0.5,
        "mean_iou": 1 / 2,
        "mean_dice": 2 / 3,
        "classes": {
            "a": {"support": 1, "predicted": 2, "iou": 1 / 2, "dice": 2 / 3, "unknown": {}},
            "b": {"support": 2, "predicted": 1, "iou": 1 / 2, "dice": 2 / 3, "unknown": {}},
            "c": {
                "support": 0,
                "predicted": 0,
                "iou": None,
                "dice": None,
                "unknown": dict.fromkeys(
                    ("iou", "dice"), "there are no examples of the class, and it was never predicted"
                ),
            },
        },
        "confusion": [[1, 0, 0], [1, 1, 0], [0, 0, 0]],
    }


M = torch.zeros(2, 3, 3, dtype=torch.int64)
COMPARED = (
    "masks (2, 3, 3) of whole numbers are compared with scores (N, 4, *spatial) or class numbers (N, *spatial); got "
)
BAD_MASKS = [
    ((torch.zeros(2, 5, 3, 3), M), f"{COMPARED}torch.int64 and torch.float32 (2, 5, 3, 3)."),
    ((M, M.float()), f"{COMPARED}torch.float32 and torch.int64 (2, 3, 3)."),
    ((M, M + 7), "the masks hold the class 7; there are 4, from 0 to 3."),
    ((M - 1, M), "the predictions hold the class -1; there are 4, from 0 to 3."),
]


@pytest.mark.parametrize(("given", "message"), BAD_MASKS)
def test_masks_that_do_not_fit_are_refused(given: tuple[torch.Tensor, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError) as caught:
        MaskEvaluation.of(CLASSES).add(*given)
    assert str(caught.value) == message


def test_what_does_not_count_cannot_be_a_class() -> None:
    with pytest.raises(DataError) as caught:
        MaskEvaluation.of(CLASSES).add(M, M, ignored=3)
    assert str(caught.value) == "ignored=3 is the number of the class 'car'; give another."


NAN = math.nan
LOST = ", so they say no class: its weights ran away, or its inputs are not finite. A lower learning rate may help."


def test_outputs_that_are_not_numbers_are_no_class() -> None:
    """PyTorch's argmax of a row of NaN is 0, which would be right wherever the truth is 0."""
    with pytest.raises(DataError) as caught:
        Evaluation(("a", "b"), torch.tensor([0, 0, 1]), torch.tensor([[NAN, NAN], [0.5, 0.5], [0.2, 0.8]]), NAN)
    assert str(caught.value) == f"the network's outputs are not numbers (NaN) for 1 of 3 examples{LOST}"
    scores, masks = torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 1, 255]]])
    scores[0, 1, 0] = torch.tensor([NAN, 0.0, NAN])
    with pytest.raises(DataError) as caught:
        MaskEvaluation.of(("a", "b")).add(scores, masks)
    assert str(caught.value) == f"the network's outputs are not numbers (NaN) for 1 of 2 labelled pixels{LOST}"
    masks[0, 0, 0] = 255
    assert MaskEvaluation.of(("a", "b")).add(scores, masks).pixel_accuracy == 0.0


def test_evaluations_are_compared_as_objects() -> None:
    """They hold tensors, of which a comparison of fields cannot make one truth value."""
    assert evaluation() != evaluation()
    assert MaskEvaluation.of("ab") != MaskEvaluation.of("ab")
