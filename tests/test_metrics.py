"""Figures of a classifier, checked by hand."""

from __future__ import annotations

import pytest
import torch

from striate.metrics import Evaluation

# True and predicted class of six examples, with the probability of the prediction.
EXAMPLES = [(0, 0, 0.9), (0, 1, 0.8), (1, 1, 0.6), (1, 0, 0.95), (1, 1, 0.7), (0, 1, 0.8)]


def evaluation() -> Evaluation:
    probabilities = torch.zeros(6, 3)
    for row, (_, said, share) in zip(probabilities, EXAMPLES, strict=True):
        row[said], row[2] = share, 1 - share
    return Evaluation(("cat", "dog", "owl"), torch.tensor([truth for truth, *_ in EXAMPLES]), probabilities, 0.25)


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
