"""What a classifier did on labelled examples: accuracy, confusion, and its most confident mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """The outcome of a classifier on a set of labelled examples.

    Args:
        classes: Names, in the order of the network's outputs.
        labels: True class of each example, ``(N,)`` int64.
        probabilities: Softmax of the scores, ``(N, classes)``.
        loss: Mean loss over the examples.

    >>> e = Evaluation(("cat", "dog"), torch.tensor([0, 1]), torch.tensor([[0.9, 0.1], [0.8, 0.2]]), 0.5)
    >>> e.accuracy, e.confusion.tolist(), e.confident_mistakes(3)
    (0.5, [[1, 0], [1, 0]], [1])
    """

    classes: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor
    loss: float

    @property
    def predictions(self) -> Tensor:
        """The most probable class of each example, ``(N,)``."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Share of the examples whose most probable class is the true one."""
        return (self.predictions == self.labels).double().mean().item()

    @property
    def confusion(self) -> Tensor:
        """``(classes, classes)`` counts: row = true class, column = predicted class."""
        count = len(self.classes)
        return torch.bincount(self.labels * count + self.predictions, minlength=count * count).view(count, count)

    @property
    def accuracy_per_class(self) -> dict[str, float | None]:
        """Accuracy on the examples of each class (recall); None for a class without examples."""
        rows = self.confusion
        totals = rows.sum(1)
        return {name: (rows[i, i] / totals[i]).item() if totals[i] else None for i, name in enumerate(self.classes)}

    def confident_mistakes(self, count: int) -> list[int]:
        """Indices of the wrong predictions with the highest probability, worst first."""
        confidence = self.probabilities.amax(1).masked_fill(self.predictions == self.labels, -1.0)
        order = confidence.argsort(descending=True, stable=True)[:count]
        return [i for i in order.tolist() if confidence[i] >= 0]
