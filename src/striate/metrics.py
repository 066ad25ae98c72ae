"""What a network did on labelled examples: right and wrong by class, how sure it was, and how masks overlap.

What a set of examples does not determine is None, with the reason in words. The precision of a class that was never
predicted is 0 / 0: nobody was wrong about it, and nobody was right, so that neither 0 nor 1 would be true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import tables
from .errors import DataError, OptionError
from .splits import IGNORED

MOST_CLASSES = 20
"""Of a confusion matrix that is printed."""


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is recognised, from counts of examples (or of pixels).

        precision = right / predicted        recall = right / support        f1 = 2 right / (predicted + support)

    C. J. van Rijsbergen, "Information Retrieval", 1979, chapter 7; f1 is also called the Dice coefficient.

    Args:
        support: Examples that are of the class.
        predicted: Examples that were called so.
        right: Examples of the class that were called so.

    >>> ClassFigures(support=4, predicted=3, right=2).f1
    0.5714285714285714
    >>> never = ClassFigures(support=4, predicted=0, right=0)
    >>> never.recall, never.precision, never.unknown
    (0.0, None, {'precision': 'the class was never predicted'})
    """

    support: int
    predicted: int
    right: int

    @property
    def precision(self) -> float | None:
        """Of what was called so, the share that is; None if nothing was called so."""
        return _share(self.right, self.predicted)

    @property
    def recall(self) -> float | None:
        """Of what is of the class, the share that was called so; None if nothing is."""
        return _share(self.right, self.support)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both, which is also the Dice coefficient; None if the class stands nowhere."""
        return _share(2 * self.right, self.predicted + self.support)

    @property
    def iou(self) -> float | None:
        """Intersection over union: right among all that is of the class or called so; None if the class stands nowhere.

        P. Jaccard, "The Distribution of the Flora in the Alpine Zone", 1912.
        """
        return _share(self.right, self.predicted + self.support - self.right)

    @property
    def unknown(self) -> dict[str, str]:
        """For each figure that is None, why."""
        reasons = {
            "precision": "the class was never predicted",
            "recall": "there are no examples of the class",
            "f1": "there are no examples of the class, and it was never predicted",
            "iou": "there are no examples of the class, and it was never predicted",
        }
        return {name: why for name, why in reasons.items() if getattr(self, name) is None}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _figures(classes: tuple[str, ...], confusion: Tensor) -> dict[str, ClassFigures]:
    """Of each class, from counts whose rows are true and whose columns are predicted classes."""
    counts = zip(confusion.sum(1).tolist(), confusion.sum(0).tolist(), confusion.diagonal().tolist(), strict=True)
    return {name: ClassFigures(*row) for name, row in zip(classes, counts, strict=True)}


@dataclass(frozen=True)
class Bin:
    """The examples whose most probable class has a probability in ``(low, high]``.

    Args:
        low: Where the bin begins.
        high: Where it ends.
        count: Its examples.
        confidence: Mean probability of the most probable class; None without examples.
        accuracy: Share of them that were right; None without examples.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The outcome of a classifier on a set of labelled examples.

    Args:
        classes: Names, in the order of the network's outputs.
        labels: True class of each example, ``(N,)`` int64.
        probabilities: Softmax of the scores, ``(N, classes)``.
        loss: Mean loss over the examples.

    Raises:
        DataError: A probability is not a number, so that no class is the most probable one.

    >>> e = Evaluation(("cat", "dog"), torch.tensor([0, 1]), torch.tensor([[0.9, 0.1], [0.8, 0.2]]), 0.5)
    >>> e.accuracy, e.confusion.tolist(), e.confident_mistakes(3)
    (0.5, [[1, 0], [1, 0]], [1])
    >>> e.per_class["cat"].precision, e.per_class["dog"].precision, round(e.calibration_error(), 3)
    (0.5, None, 0.45)
    """

    classes: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor
    loss: float

    def __post_init__(self) -> None:
        _refuse_nan(self.probabilities, "examples")

    @property
    def predictions(self) -> Tensor:
        """The most probable class of each example, ``(N,)``."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Share of the examples whose most probable class is the true one."""
        return (self.predictions == self.labels).double().mean().item()

    def top_k(self, k: int) -> float:
        """Share of the examples whose true class is among the ``k`` most probable ones; of equals the first counts.

        Raises:
            OptionError: k is no number of classes.

        >>> e = Evaluation(("a", "b", "c"), torch.tensor([1]), torch.tensor([[0.5, 0.3, 0.2]]), 0.0)
        >>> e.top_k(1), e.top_k(2)
        (0.0, 1.0)
        """
        if not 1 <= k <= len(self.classes):
            raise OptionError(f"top_k({k}): there are {len(self.classes)} classes; give a number from 1 to that.")
        best = self.probabilities.argsort(dim=1, descending=True, stable=True)[:, :k]
        return (best == self.labels[:, None]).any(1).double().mean().item()

    @property
    def confusion(self) -> Tensor:
        """``(classes, classes)`` counts: row = true class, column = predicted class."""
        count = len(self.classes)
        return torch.bincount(self.labels * count + self.predictions, minlength=count * count).view(count, count)

    @property
    def per_class(self) -> dict[str, ClassFigures]:
        """Support, precision, recall and F1 of each class."""
        return _figures(self.classes, self.confusion)

    @property
    def support(self) -> dict[str, int]:
        """How many examples there are of each class."""
        return {name: figures.support for name, figures in self.per_class.items()}

    @property
    def accuracy_per_class(self) -> dict[str, float | None]:
        """Accuracy on the examples of each class (recall); None for a class without examples."""
        return {name: figures.recall for name, figures in self.per_class.items()}

    @property
    def macro(self) -> dict[str, float | None]:
        """Mean precision, recall and F1 over the classes, each over those for which it is defined."""
        figures = self.per_class.values()
        return {name: _mean(getattr(one, name) for one in figures) for name in ("precision", "recall", "f1")}

    def reliability(self, bins: int = 15) -> list[Bin]:
        """How often it was right when it was so sure: examples by the probability of their most probable class.

        C. Guo, G. Pleiss, Y. Sun and K. Weinberger, "On Calibration of Modern Neural Networks", 2017, section 2.

        Args:
            bins: Equal parts of 0 to 1; each holds its upper end, and the first one also 0.

        Raises:
            OptionError: There are no bins.
        """
        if bins < 1:
            raise OptionError(f"reliability({bins}): give at least 1 bin.")
        confidence = self.probabilities.amax(1).double()
        edges = torch.arange(1, bins + 1, dtype=torch.float64) / bins
        place = torch.bucketize(confidence, edges).clamp(max=bins - 1)
        right = (self.predictions == self.labels).double()
        count, sure, hits = (torch.bincount(place, w, bins).tolist() for w in (None, confidence, right))
        return [
            Bin(i / bins, (i + 1) / bins, int(n), s / n if n else None, h / n if n else None)
            for i, (n, s, h) in enumerate(zip(count, sure, hits, strict=True))
        ]

    def calibration_error(self, bins: int = 15) -> float:
        """Expected calibration error: how far confidence and accuracy are apart, on average over the examples.

            sum over bins of count / N * |accuracy - confidence|

        C. Guo et al., 2017, equation 3, with the bins of :meth:`reliability`.

        Raises:
            OptionError: There are no bins.
        """
        gaps = [b.count * abs((b.accuracy or 0) - (b.confidence or 0)) for b in self.reliability(bins)]
        return sum(gaps) / len(self.labels) if len(self.labels) else math.nan

    def confident_mistakes(self, count: int) -> list[int]:
        """Indices of the wrong predictions with the highest probability, worst first."""
        confidence = self.probabilities.amax(1).masked_fill(self.predictions == self.labels, -1.0)
        order = confidence.argsort(descending=True, stable=True)[:count]
        return [i for i in order.tolist() if confidence[i] >= 0]

    def __str__(self) -> str:
        return text(self)

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values, ready for JSON; what is not defined is None."""
        return {
            "examples": len(self.labels),
            "accuracy": _finite(self.accuracy),
            "top_5": _finite(self.top_k(5)) if len(self.classes) >= 5 else None,
            "loss": _finite(self.loss),
            "macro": self.macro,
            "calibration_error": _finite(self.calibration_error()),
            "classes": _described(self.per_class, ("support", "predicted", "precision", "recall", "f1")),
            "confusion": self.confusion.tolist(),
        }


def _finite(value: float | None) -> float | None:
    """The value as JSON can write it."""
    return value if value is not None and math.isfinite(value) else None


def _refuse_nan(outputs: Tensor, what: str) -> None:
    """PyTorch calls the first NaN of a row its largest value, which would credit the network with that class."""
    lost = outputs.isnan().any(1)
    if lost.any():
        raise DataError(
            f"the network's outputs are not numbers (NaN) for {int(lost.sum()):,} of {lost.numel():,} {what}, so they "
            "say no class: its weights ran away, or its inputs are not finite. A lower learning rate may help."
        )


def _described(figures: Mapping[str, ClassFigures], names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {
        one: {name: getattr(values, name) for name in names}
        | {"unknown": {name: why for name, why in values.unknown.items() if name in names}}
        for one, values in figures.items()
    }


@dataclass(frozen=True, eq=False)
class MaskEvaluation:
    """How masks that were predicted overlap with the true ones, counted in pixels and added up over batches.

    Args:
        classes: Names, in the order of the network's output maps.
        confusion: ``(classes, classes)`` int64 counts of pixels: row = true class, column = predicted class.
        loss: Mean loss over the labelled pixels; None if it was not told for all of them.
        pictures: How many were added.

    >>> e = MaskEvaluation.of(("sky", "tree"))
    >>> e = e.add(torch.tensor([[[0, 1], [1, 1]]]), torch.tensor([[[0, 0], [1, 255]]]))
    >>> e.pixel_accuracy, e.iou, e.dice["tree"]
    (0.6666666666666666, {'sky': 0.5, 'tree': 0.5}, 0.6666666666666666)
    """

    classes: tuple[str, ...]
    confusion: Tensor
    loss: float | None = None
    pictures: int = 0

    @classmethod
    def of(cls, classes: Iterable[str]) -> MaskEvaluation:
        """One to which no picture was added yet."""
        names = tuple(classes)
        return cls(names, torch.zeros(len(names), len(names), dtype=torch.int64))

    def add(
        self, predicted: Tensor, masks: Tensor, loss: float | None = None, *, ignored: int = IGNORED
    ) -> MaskEvaluation:
        """The evaluation with some pictures more; this one stays as it is.

        Args:
            predicted: Scores or probabilities ``(N, classes, *spatial)``, or class numbers ``(N, *spatial)``.
            masks: True class of every pixel, whole numbers ``(N, *spatial)``.
            loss: Mean over the labelled pixels of these pictures.
            ignored: Pixels whose mask has this number do not count.

        Raises:
            DataError: The shapes differ, a number is no class, or a score of a labelled pixel is not a number.
        """
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        self._check(predicted, masks, ignored)
        if predicted.is_floating_point():
            _refuse_nan(predicted.movedim(1, -1)[masks != ignored], "labelled pixels")
        counts = multiclass_confusion_matrix(
            predicted.detach(), masks.long(), len(self.classes), ignore_index=ignored, validate_args=False
        )
        return replace(
            self,
            confusion=self.confusion + counts.to(self.confusion),
            loss=self._mean_loss(loss, int(counts.sum())),
            pictures=self.pictures + len(masks),
        )

    def _mean_loss(self, loss: float | None, pixels: int) -> float | None:
        """Of the pixels so far and those to come; None if there are any whose loss was not told."""
        before = int(self.confusion.sum())
        told = [(mean, n) for mean, n in ((self.loss, before), (loss, pixels)) if n]
        known = [mean * n for mean, n in told if mean is not None]
        return sum(known) / (before + pixels) if known and len(known) == len(told) else None

    def _check(self, predicted: Tensor, masks: Tensor, ignored: int) -> None:
        count, floating = len(self.classes), predicted.is_floating_point()
        wanted = (len(masks), count, *masks.shape[1:]) if floating else tuple(masks.shape)
        if masks.is_floating_point() or tuple(predicted.shape) != wanted:
            raise DataError(
                f"masks {tuple(masks.shape)} of whole numbers are compared with scores (N, {count}, *spatial) or class "
                f"numbers (N, *spatial); got {masks.dtype} and {predicted.dtype} {tuple(predicted.shape)}."
            )
        if 0 <= ignored < count:
            raise DataError(f"ignored={ignored} is the number of the class {self.classes[ignored]!r}; give another.")
        for name, numbers in (("masks", masks[masks != ignored]), *([] if floating else [("predictions", predicted)])):
            wrong = numbers[(numbers < 0) | (numbers >= count)]
            if len(wrong):
                raise DataError(f"the {name} hold the class {int(wrong[0])}; there are {count}, from 0 to {count - 1}.")

    @property
    def per_class(self) -> dict[str, ClassFigures]:
        """Pixels, IoU and Dice of each class."""
        return _figures(self.classes, self.confusion)

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of the labelled pixels that got their class; None if there are none."""
        return _share(int(self.confusion.trace()), int(self.confusion.sum()))

    @property
    def accuracy(self) -> float:
        """The pixel accuracy; not a number if there are no labelled pixels."""
        found = self.pixel_accuracy
        return math.nan if found is None else found

    @property
    def iou(self) -> dict[str, float | None]:
        """Intersection over union of each class; None if it stands neither in the masks nor in the predictions."""
        return {name: figures.iou for name, figures in self.per_class.items()}

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over the classes for which it is defined; None if it is for none."""
        return _mean(self.iou.values())

    @property
    def dice(self) -> dict[str, float | None]:
        """Dice coefficient of each class, ``2 |A ∩ B| / (|A| + |B|)``; None where the IoU is.

        L. R. Dice, "Measures of the Amount of Ecologic Association Between Species", 1945.
        """
        return {name: figures.f1 for name, figures in self.per_class.items()}

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice coefficient over the classes for which it is defined; None if it is for none."""
        return _mean(self.dice.values())

    def __str__(self) -> str:
        return text(self)

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values, ready for JSON; what is not defined is None."""
        described = {
            name: {
                "support": one.support,
                "predicted": one.predicted,
                "iou": one.iou,
                "dice": one.f1,
                "unknown": {} if one.iou is not None else {"iou": one.unknown["iou"], "dice": one.unknown["f1"]},
            }
            for name, one in self.per_class.items()
        }
        return {
            "pictures": self.pictures,
            "pixels": int(self.confusion.sum()),
            "pixel_accuracy": self.pixel_accuracy,
            "loss": None if self.loss is None else _finite(self.loss),
            "mean_iou": self.mean_iou,
            "mean_dice": self.mean_dice,
            "classes": described,
            "confusion": self.confusion.tolist(),
        }


def text(found: Any, top_k: int | None = None) -> str:
    """An evaluation as a person reads it: the whole in a line, a row for each class, and what was taken for what.

    Args:
        found: The evaluation.
        top_k: Also say how often the class is among so many; None is 5 if there are 10 classes or more.
    """
    masks = hasattr(found, "mean_iou")
    names: tuple[str, ...] = ("iou", "dice") if masks else ("precision", "recall", "f1")
    if masks:
        means = {"iou": found.mean_iou, "dice": found.mean_dice}
        head = (
            f"Mean IoU {_figure(found.mean_iou)}, pixel accuracy {_figure(found.pixel_accuracy)} "
            f"of {found.pictures:,} pictures, loss {_figure(found.loss)}"
        )
    else:
        means = found.macro
        k = top_k or (5 if len(found.classes) > 9 else None)
        top = "" if k is None else f", top {k} {100 * found.top_k(k):.2f} %"
        head = (
            f"Accuracy {100 * found.accuracy:.2f} %{top} of {len(found.labels):,} examples, loss {found.loss:.4f}, "
            f"calibration error {found.calibration_error():.4f}"
        )
    figures = [*((name, one["support"], one) for name, one in found.to_dict()["classes"].items())]
    figures.append(("mean of the classes", sum(support for _, support, _ in figures), means))
    rows = [
        {"class": name, "support": f"{support:,}", **{one: _figure(values[one]) for one in names}}
        for name, support, values in figures
    ]
    return "\n".join([head, "", *tables.aligned(rows, ["class"], total=True), *_confusion_text(found)])


def _confusion_text(found: Any) -> list[str]:
    """A row for each true class, a column for each predicted one; nothing if there are too many."""
    if len(found.classes) > MOST_CLASSES:
        return []
    rows = [
        {"true \\ predicted": f"{number} {name}", **{str(column): f"{count:,}" for column, count in enumerate(counts)}}
        for number, (name, counts) in enumerate(zip(found.classes, found.confusion.tolist(), strict=True))
    ]
    return ["", *tables.aligned(rows, ["true \\ predicted"])]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
