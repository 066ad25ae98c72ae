"""Using a trained network: probabilities for pictures, and its evaluation on labelled ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import checkpoint as checkpoints
from . import datasets, images
from .checkpoint import Checkpoint
from .datasets import Dataset, Normalisation, Split
from .errors import DataError, OptionError
from .metrics import Evaluation
from .networks import Network

CHUNK = 500
SPLITS = ("test", "train", "all")


def softmax_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``-log softmax(scores)[label]`` over the examples (cross-entropy)."""
    return F.cross_entropy(scores, labels)


def svm_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over the examples of ``sum over j != y of max(0, s_j - s_y + 1)`` (multiclass hinge, Weston and Watkins).

    >>> round(svm_loss(torch.tensor([[3.2, 5.1, -1.7]]), torch.tensor([0])).item(), 4)  # max(0, 2.9) + max(0, -3.9)
    2.9
    """
    return F.multi_margin_loss(scores, labels) * scores.shape[1]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"softmax": softmax_loss, "svm": svm_loss}


@dataclass(frozen=True)
class Classifier:
    """A trained network with what belongs to it: pictures in, probabilities out.

    Args:
        network: With its weights.
        classes: Names, in the order of the outputs.
        normalisation: What the pictures go through first.
    """

    network: Network
    classes: tuple[str, ...]
    normalisation: Normalisation

    @staticmethod
    def load(checkpoint: str | os.PathLike[str] | Checkpoint) -> Classifier:
        """From a checkpoint, its file, or the folder of its run.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        found = checkpoint if isinstance(checkpoint, Checkpoint) else checkpoints.load(Path(checkpoint))
        return Classifier(found.network(), found.classes, found.normalisation)

    @torch.no_grad()
    def scores(self, pictures: Tensor) -> Tensor:
        """The last layer's outputs for uint8 pictures ``(N, C, H, W)``: ``(N, classes)``, on the CPU."""
        self.network.eval()
        where = next(self.network.parameters(), torch.empty(0)).device
        chunks = (self.normalisation(chunk.to(where)) for chunk in pictures.split(CHUNK))
        return torch.cat([self.network(chunk).float().cpu() for chunk in chunks])

    def evaluate(self, split: Split, loss: str = "softmax") -> Evaluation:
        """Its accuracy, confusion and mean loss on labelled pictures."""
        scores = self.scores(split.inputs)
        return Evaluation(self.classes, split.targets, scores.softmax(1), LOSSES[loss](scores, split.targets).item())


@dataclass(frozen=True)
class Prediction:
    """What a network says about one picture.

    Args:
        picture: The file, or the number of the picture in a tensor.
        label: The most probable class.
        probability: Of that class.
        probabilities: Of every class, most probable first.
    """

    picture: str
    label: str
    probability: float
    probabilities: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def predict(
    checkpoint: str | os.PathLike[str] | Classifier,
    pictures: str | os.PathLike[str] | Tensor | Sequence[str | os.PathLike[str]],
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Prediction]:
    """What a trained network says about pictures.

    Args:
        checkpoint: A run's folder or its checkpoint file.
        pictures: A picture file, a folder of them, several of either, or a uint8 tensor ``(N, C, H, W)``. Files are
            scaled to cover the network's input size and cropped to its centre, exactly as for training.
        progress: Called with ``(done, total, what)`` while pictures are read.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: A picture cannot be read, or there is none; the message names the file.
    """
    classifier = checkpoint if isinstance(checkpoint, Classifier) else Classifier.load(checkpoint)
    if isinstance(pictures, Tensor):
        stack, names = pictures, [str(number) for number in range(len(pictures))]
        datasets.check_images(stack)
    else:
        paths = _paths([pictures] if isinstance(pictures, str | os.PathLike) else pictures)
        stack, names = _read(paths, classifier.network.input_shape, progress), [str(path) for path in paths]
    probabilities = classifier.scores(stack).softmax(1)
    return [_prediction(name, row, classifier.classes) for name, row in zip(names, probabilities, strict=True)]


def _prediction(name: str, probabilities: Tensor, classes: tuple[str, ...]) -> Prediction:
    order = probabilities.argsort(descending=True, stable=True).tolist()
    ranked = {classes[i]: probabilities[i].item() for i in order}
    best = classes[order[0]]
    return Prediction(name, best, ranked[best], ranked)


def _paths(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    found = []
    for source in map(Path, sources):
        inside = images.find(source) if source.is_dir() else [source]
        if not inside:
            raise DataError(f"{source}: there is no picture in this folder ({', '.join(images.EXTENSIONS)}).")
        found += inside
    if not found:
        raise DataError("no picture was given; name a file or a folder.")
    return found


def _read(paths: Sequence[Path], shape: tuple[int, ...], progress: Callable[[int, int, str], None] | None) -> Tensor:
    channels, *size = shape
    if len(size) != 2:
        raise DataError(f"this network reads inputs of shape {shape}, not pictures; give a tensor.")
    stack = []
    for path in paths:
        stack.append(images.read(path, channels=channels, size=(size[0], size[1])))
        if progress is not None:
            progress(len(stack), len(paths), "reading pictures")
    return torch.stack(stack)


def evaluate(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str] | Dataset | None = None,
    *,
    split: str = "test",
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """How a trained network does on labelled pictures.

    Args:
        checkpoint: A run's folder or its checkpoint file.
        data: A data set's name or folder; None is the one it was trained on.
        split: "test", "train" or "all". A folder without a test part is split as for training, so "test" are the
            pictures that training did not see.
        progress: Called with ``(done, total, what)`` while pictures are read.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The data cannot be used, or has other classes than the network.
        OptionError: No such split, or no data is known.
    """
    if split not in SPLITS:
        raise OptionError(f"split={split!r} is not one of {', '.join(SPLITS)}.")
    found = checkpoints.load(Path(checkpoint))
    classifier = Classifier.load(found)
    options = found.training.options if found.training else {}
    source = data if data is not None or found.training is None else found.training.data
    loaded = load_for(classifier.network.input_shape, source, options, progress)
    check_classes(classifier.classes, loaded)
    parts = {"test": loaded.test, "train": loaded.train}
    if split == "all":
        parts["all"] = Split(
            *(torch.cat(pair) for pair in zip(_fields(loaded.train), _fields(loaded.test), strict=True))
        )
    return classifier.evaluate(parts[split], options.get("loss", "softmax"))


def _fields(split: Split) -> tuple[Tensor, Tensor]:
    return split.inputs, split.targets


def load_for(
    shape: tuple[int, ...],
    data: str | os.PathLike[str] | Dataset | None,
    options: dict[str, Any],
    progress: Callable[[int, int, str], None] | None = None,
) -> Dataset:
    """The data set, with its pictures brought to the network's input shape.

    Raises:
        OptionError: No data is named.
        DataError: The data cannot be used, or a data set in memory has another shape.
    """
    if data is None:
        raise OptionError("the checkpoint does not say what it was trained on; name the data too.")
    if isinstance(data, Dataset):
        if data.shape != shape:
            raise DataError(f"{data.name}: its pictures are {data.shape}, the network takes {shape}.")
        return data
    channels, height, width = shape
    seed = int(options.get("seed", 0))
    return datasets.load(data, channels=channels, size=(height, width), seed=seed, progress=progress)


def check_classes(classes: tuple[str, ...], data: Dataset) -> None:
    """Refuse data whose classes are not the network's.

    Raises:
        DataError: A name or the order differs.
    """
    if classes != data.classes:
        raise DataError(
            f"{data.name}: its classes are {', '.join(data.classes)}; the network knows {', '.join(classes)}. "
            "They must be the same, in the same order."
        )
