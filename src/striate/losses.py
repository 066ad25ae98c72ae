"""Losses: sums over the examples of a batch, and what they are divided by.

Kept apart, the two can be added over parts of a batch and over processes, so that every way to cut a batch gives the
same mean: ``loss = sum over terms of total / weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import OptionError
from .splits import IGNORED

NOTHING = 1e-9


@dataclass(frozen=True)
class Loss:
    """A loss with its settings.

    Targets are class numbers ``(N,)`` int64, probabilities ``(N, classes)``, or masks ``(N, *spatial)`` uint8, in
    which pixels of 255 do not count. Scores are ``(N, classes)`` or ``(N, classes, *spatial)``.

        softmax    -log softmax(s)[y]                     over examples, or over the pixels that count
        svm        sum over j != y of max(0, s[j] - s[y] + 1)       (J. Weston and C. Watkins, 1999)
        mse        mean over classes of (s - t)^2, t = 1 for the class, else 0
        dice       1 - mean over classes of (2 sum p g + 1) / (sum p + sum g + 1), each picture alone
                   (F. Milletari, N. Navab and S.-A. Ahmadi, "V-Net", 2016)

    Args:
        name: "softmax", "svm", "mse", "dice" or "softmax+dice".
        weights: One for each class; None is 1 for all. Examples count by the weight of their class.
        smoothing: Share of a target that is spread evenly over all classes (C. Szegedy et al., "Rethinking the
            Inception Architecture for Computer Vision", 2015, section 7).

    >>> scores = torch.tensor([[3.2, 5.1, -1.7]])
    >>> round(Loss("svm")(scores, torch.tensor([0])).item(), 4)  # max(0, 2.9) + max(0, -3.9)
    2.9
    """

    name: str = "softmax"
    weights: Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return mean(self.totals(scores, targets), self.counts(targets))

    def totals(self, scores: Tensor, targets: Tensor) -> list[Tensor]:
        """One sum for each term."""
        return [TERMS[term][0](self, scores, targets) for term in self.name.split("+")]

    def counts(self, targets: Tensor) -> list[Tensor | float]:
        """What each sum is divided by: examples, or pixels that count, by their weights."""
        return [TERMS[term][1](self, targets) for term in self.name.split("+")]

    def check(self, *, masks: bool, mixed: bool) -> None:
        """Refuse targets that the loss is not defined for.

        Raises:
            OptionError: Masks for a loss of class scores, or the reverse, or mixed labels for the hinge.
        """
        if masks and self.name in ("svm", "mse"):
            raise OptionError(f"loss={self.name} is for one label an example; for masks take softmax, dice or both.")
        if not masks and "dice" in self.name:
            raise OptionError(f"loss={self.name} is for masks, and this data has labels; take softmax, svm or mse.")
        if mixed and self.name == "svm":
            raise OptionError("mixup and cutmix make two labels of one, which the svm loss has no place for.")


def mean(totals: Sequence[Tensor], counts: Sequence[Tensor | float]) -> Tensor:
    """``sum over terms of total / count``; 0 where nothing counts, as in masks of pixels that are all left out.

    >>> mean([torch.tensor(3.0), torch.tensor(1.0)], [2.0, 4.0]).item()
    1.75
    """
    first, *others = (
        total / (count.clamp(min=NOTHING) if isinstance(count, Tensor) else count)
        for total, count in zip(totals, counts, strict=True)
    )
    return sum(others, first)


def _softmax(loss: Loss, scores: Tensor, targets: Tensor) -> Tensor:
    weights = None if loss.weights is None else loss.weights.to(scores)
    if targets.is_floating_point():
        return F.cross_entropy(scores, targets, weights, reduction="sum", label_smoothing=loss.smoothing)
    return F.cross_entropy(
        scores, targets.long(), weights, ignore_index=_ignored(targets), reduction="sum", label_smoothing=loss.smoothing
    )


def _ignored(targets: Tensor) -> int:
    return IGNORED if targets.dtype == torch.uint8 else -100


def _weighed(loss: Loss, targets: Tensor) -> Tensor | float:
    """How many examples or pixels count, each by the weight of its class."""
    if targets.dtype == torch.uint8:
        counting = targets != IGNORED
        weights = None if loss.weights is None else loss.weights.to(targets.device)
        return counting.sum() if weights is None else weights[targets[counting].long()].sum()
    if loss.weights is None:
        return float(len(targets))
    weights = loss.weights.to(targets.device)
    return (targets @ weights.to(targets)).sum() if targets.is_floating_point() else weights[targets].sum()


def _svm(loss: Loss, scores: Tensor, targets: Tensor) -> Tensor:
    weights = None if loss.weights is None else loss.weights.to(scores)
    return F.multi_margin_loss(scores, targets, weight=weights, reduction="sum") * scores.shape[1]


def _mse(loss: Loss, scores: Tensor, targets: Tensor) -> Tensor:
    goal = targets.to(scores) if targets.is_floating_point() else F.one_hot(targets, scores.shape[1]).to(scores)
    goal = goal * (1 - loss.smoothing) + loss.smoothing / scores.shape[1]
    return (scores - goal).square().mean(1).sum()


def _dice(loss: Loss, scores: Tensor, targets: Tensor) -> Tensor:
    counting = (targets != IGNORED).flatten(1)[:, None]
    labels = targets.long().masked_fill(targets == IGNORED, 0).flatten(1)
    truth = F.one_hot(labels, scores.shape[1]).movedim(-1, 1).to(scores) * counting
    said = scores.softmax(1).flatten(2) * counting
    overlap = 2 * (said * truth).sum(2) + 1
    return (1 - overlap / (said.sum(2) + truth.sum(2) + 1)).mean(1).sum()


def _examples(loss: Loss, targets: Tensor) -> Tensor | float:
    return float(len(targets))


Total = Callable[[Loss, Tensor, Tensor], Tensor]
Count = Callable[[Loss, Tensor], Tensor | float]
TERMS: dict[str, tuple[Total, Count]] = {
    "softmax": (_softmax, _weighed),
    "svm": (_svm, _weighed),
    "mse": (_mse, _examples),
    "dice": (_dice, _examples),
}


def balanced(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights by which every class has the same influence: ``examples / (classes * count)``.

    G. King and L. Zeng, "Logistic Regression in Rare Events Data", 2001; the "balanced" weights of scikit-learn.

    Raises:
        OptionError: A class has no examples.

    >>> balanced([30, 10])
    (0.6666666666666666, 2.0)
    """
    if not all(counts):
        raise OptionError(f"class {list(counts).index(0)} has no training examples, so it cannot be balanced.")
    return tuple(sum(counts) / len(counts) / count for count in counts)
