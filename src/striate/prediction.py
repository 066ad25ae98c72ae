"""Using a trained network: what it says about files and arrays, and its evaluation on labelled examples."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checkpoint as checkpoints
from . import datasets, notation, storage, views
from .checkpoint import Checkpoint
from .datasets import Dataset, Normalisation, Split, Stored
from .errors import DataError, OptionError
from .losses import Loss
from .metrics import Evaluation, MaskEvaluation
from .networks import Network
from .readers import TYPES, Reader
from .storage import Entry, Memory

CHUNK = 500
LARGEST = 2**26  # numbers in a map
SPLITS = ("test", "validation", "train", "all")

Progress = Callable[[int, int, str], None]
Source = str | os.PathLike[str]


@dataclass(frozen=True)
class Classifier:
    """A trained network with what belongs to it: examples in, probabilities out.

    Args:
        network: With its weights.
        classes: Names, in the order of the outputs.
        normalisation: What the examples go through first.
        reader: How a file becomes an example; None if it was trained on arrays that no file gives.
        task: "classes", or "masks" for a class at every pixel.
        dtype: Of the examples.
    """

    network: Network
    classes: tuple[str, ...]
    normalisation: Normalisation
    reader: Reader | None = None
    task: str = "classes"
    dtype: torch.dtype = torch.uint8

    @staticmethod
    def load(checkpoint: Source | Checkpoint) -> Classifier:
        """From a checkpoint, its file, or the folder of its run.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        found = checkpoint if isinstance(checkpoint, Checkpoint) else checkpoints.load(Path(checkpoint))
        dtype = TYPES[found.dtype]
        return Classifier(found.network(), found.classes, found.normalisation, found.reader, found.task, dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of what files become: of the training examples, also if patches of them were learned."""
        return self.network.input_shape if self.reader is None else self.reader.shape

    @torch.no_grad()
    def scores(self, inputs: Tensor) -> Tensor:
        """The last layer's outputs for examples as they are kept, ``(N, C, *spatial)``; on the network's device."""
        self.network.eval()
        where = next(self.network.parameters(), torch.empty(0)).device
        chunks = (self.normalisation(chunk.to(where)) for chunk in inputs.split(self.chunk(inputs.shape[1:])))
        return torch.cat([self.network(chunk).float() for chunk in chunks])

    def probabilities(self, inputs: Tensor, average: str = "none") -> Tensor:
        """Softmax of the scores, or its mean over several views: ``(N, classes)`` or ``(N, classes, *spatial)``.

        Args:
            inputs: Examples as they are kept, ``(N, C, *spatial)``.
            average: "none", "flip", or "ten-crop" of pictures that are larger than the network's input.

        Raises:
            OptionError: There are no such views of such inputs.
            DataError: The pictures are too small for ten crops.
        """
        views.check(average, self.network.input_shape, masks=self.task == "masks")
        seen = [self.scores(view).softmax(1) for view in views.VIEWS[average](inputs, self.network.input_shape[1:])]
        if self.task == "masks" and average == "flip":
            seen[1] = seen[1].flip(-1)
        return torch.stack(seen).mean(0)

    def check_size(self, shape: Sequence[int]) -> None:
        """Refuse examples ``(C, *spatial)`` that a network of any size cannot take all the same.

        Raises:
            GeometryError: Two of its branches would give maps of different sizes, for example.
        """
        if self.network.any_size:
            self.network.architecture.adapted(tuple(shape)).shapes()

    def chunk(self, shape: Sequence[int]) -> int:
        """How many examples of a shape are computed at once: those whose largest map takes a quarter of a gigabyte."""
        paper = self.network.architecture
        largest = max(prod(shape) for shape in paper.shapes().values()) * prod(shape) / prod(self.network.input_shape)
        return max(1, min(CHUNK, int(LARGEST / largest)))

    def evaluate(
        self,
        split: Split | Stored,
        loss: str | Loss = "softmax",
        average: str = "none",
        progress: Progress | None = None,
    ) -> Evaluation | MaskEvaluation:
        """Accuracy, confusion and mean loss on labelled examples; for masks, how they overlap.

        The loss is that of one view; probabilities are averaged over several if ``average`` says so.

        Raises:
            GeometryError: The network cannot take examples of this size.
        """
        if average != "ten-crop":
            self.check_size(split.shape)
        loss = Loss(loss) if isinstance(loss, str) else loss
        found = MaskEvaluation.of(self.classes)
        totals: Any = 0.0
        counts: Any = 0.0
        kept = []
        for indices in torch.arange(len(split)).split(self.chunk(split.shape)):
            inputs, targets = split.take(indices)
            scores = self.scores(views.central(average, inputs, self.network.input_shape[1:]))
            targets = targets.to(scores.device)
            totals = totals + torch.stack(loss.totals(scores, targets)).double().cpu()
            counts = counts + torch.tensor([float(count) for count in loss.counts(targets)], dtype=torch.float64)
            said = scores.softmax(1) if average == "none" else self.probabilities(inputs, average)
            if self.task == "masks":
                found = found.add(said, targets)
            else:
                kept.append((targets.cpu(), said.cpu()))
            if progress is not None:
                progress(int(indices[-1]) + 1, len(split), "evaluating")
        value = float((totals / counts).sum()) if counts.all() else None
        if self.task == "masks":
            return replace(found, loss=value)
        labels, probabilities = (torch.cat(column) for column in zip(*kept, strict=True))
        return Evaluation(self.classes, labels, probabilities, math.nan if value is None else value)


@dataclass(frozen=True)
class Prediction:
    """What a network says about one example.

    Args:
        picture: The file, or the number of the example in an array.
        label: The most probable class; of a mask, the one of most pixels.
        probability: Of that class; of a mask, its share of the pixels.
        probabilities: Of every class, most probable first; of a mask, the shares.
        mask: The most probable class of every pixel, uint8 ``(*spatial)``; None for networks that give one class.
    """

    picture: str
    label: str
    probability: float
    probabilities: dict[str, float]
    mask: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; a mask is a file of its own."""
        names = ("picture", "label", "probability", "probabilities")
        return {name: getattr(self, name) for name in names}


def predict(
    checkpoint: Source | Classifier,
    examples: Source | Tensor | Any | Sequence[Source],
    *,
    average: str = "none",
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> list[Prediction]:
    """What a trained network says about examples.

    Args:
        checkpoint: A run's folder or its checkpoint file.
        examples: A file, a folder or archive of files, a pattern such as ``"photos/*.jpg"``, several of these; a file
            ``.npy`` or ``.npz`` of arrays; or a tensor or NumPy array ``(N, C, *spatial)`` of the type of the training
            examples. Files are brought to the size of the training examples exactly as these were.
        average: "none", "flip" or "ten-crop": the mean over several views.
        skip_bad: Leave out files that cannot be read.
        progress: Called with ``(done, total, what)``.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: An example cannot be read, or there is none; the message names the file.
        OptionError: There are no such views of such examples.
    """
    return list(predictions(checkpoint, examples, average=average, skip_bad=skip_bad, progress=progress))


def predictions(
    checkpoint: Source | Classifier,
    examples: Source | Tensor | Any | Sequence[Source],
    *,
    average: str = "none",
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """As :func:`predict`, one by one: no more than a batch of examples is in memory.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: An example cannot be read, or there is none; the message names the file.
        OptionError: There are no such views of such examples.
    """
    classifier = checkpoint if isinstance(checkpoint, Classifier) else Classifier.load(checkpoint)
    views.check(average, classifier.network.input_shape, masks=classifier.task == "masks")
    if isinstance(examples, Tensor | np.ndarray):
        yield from _of_array(classifier, torch.as_tensor(examples), average, "")
        return
    shape = views.taken_at(average, classifier.shape)
    reader = None if classifier.reader is None else replace(classifier.reader, shape=shape)
    found = list(files_of(reader, [examples] if isinstance(examples, str | os.PathLike) else examples))
    size, done = classifier.chunk(shape), 0
    for start in range(0, len(found), size):
        chunk = found[start : start + size]
        for place in (one for one in chunk if is_array(one, reader)):
            yield from _of_array(classifier, _array(place), average, f"{place}: ")
        pairs = list(_readable(reader, [one for one in chunk if not is_array(one, reader)], skip_bad))
        if pairs:
            said = classifier.probabilities(torch.stack([inputs for _, inputs in pairs]), average)
            yield from (
                prediction(str(place), row, classifier.classes) for (place, _), row in zip(pairs, said, strict=True)
            )
        done += len(chunk)
        if progress is not None:
            progress(done, len(found), "predicting")


def _readable(reader: Reader | None, places: Iterable[Entry], skip_bad: bool) -> Iterator[tuple[Entry, Tensor]]:
    for place in places:
        try:
            if reader is None:
                raise DataError(f"{place}: the network was trained on arrays; give a file of them, .npy or .npz.")
            yield place, reader.read(place)
        except DataError:
            if not skip_bad:
                raise


def is_array(place: Entry, reader: Reader | None) -> bool:
    """Whether a file holds an array of many examples, rather than one."""
    ending = place.name.lower().rpartition(".")[2]
    return ending == "npz" or (ending == "npy" and (reader is None or reader.kind in ("picture", "signal")))


def _array(place: Entry) -> Tensor:
    """The only array of an NPY or NPZ file."""
    with storage.naming(place), place.open() as file:
        try:
            found = np.load(file, allow_pickle=False)
            names = getattr(found, "files", None)
            if names is not None and len(names) != 1:
                raise DataError(f"{place}: it holds the arrays {', '.join(names)}; expected one, (N, C, *spatial).")
            return torch.as_tensor(found if names is None else found[names[0]])
        except (ValueError, EOFError) as error:
            raise DataError(f"{place}: it cannot be read as an array: {error}.") from None


def _of_array(classifier: Classifier, inputs: Tensor, average: str, where: str) -> Iterator[Prediction]:
    wanted, dtype = classifier.network.input_shape, classifier.dtype
    fits = inputs.dim() == len(wanted) + 1 and (average == "ten-crop" or inputs.shape[1:] == wanted)
    if classifier.network.any_size and inputs.dim() == len(wanted) + 1:
        fits = inputs.shape[1] == wanted[0]
    if not fits or inputs.dtype != dtype or not len(inputs):
        raise DataError(
            f"{where}examples are {str(dtype).removeprefix('torch.')} (N, {', '.join(map(str, wanted))}), "
            f"got {str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}."
        )
    if average != "ten-crop":
        classifier.check_size(inputs.shape[1:])
    for start in range(0, len(inputs), size := classifier.chunk(inputs.shape[1:])):
        said = classifier.probabilities(inputs[start : start + size], average)
        yield from (prediction(f"{where}{n}", row, classifier.classes) for n, row in enumerate(said, start))


def prediction(name: str, probabilities: Tensor, classes: tuple[str, ...]) -> Prediction:
    """What probabilities of classes, or of the classes of each pixel, say."""
    mask = probabilities.argmax(0).to(torch.uint8).cpu() if probabilities.dim() > 1 else None
    if mask is not None:
        probabilities = mask.flatten().long().bincount(minlength=len(classes)) / mask.numel()
    order = probabilities.argsort(descending=True, stable=True).tolist()
    ranked = {classes[i]: probabilities[i].item() for i in order}
    best = classes[order[0]]
    return Prediction(name, best, ranked[best], ranked, mask)


def files_of(reader: Reader | None, sources: Iterable[Source | Entry]) -> Iterator[Entry]:
    """The files that sources name, in order: themselves, those in a folder or archive, or those of a pattern.

    Raises:
        DataError: A source names no file.
    """
    empty = True
    for source in sources:
        empty = False
        if isinstance(source, Entry):
            yield source
            continue
        written = os.fspath(source)
        if Path(written).is_dir() or written.lower().endswith(storage.ARCHIVES):
            if reader is None:
                raise DataError(f"{written}: the network was trained on arrays; name files of them, .npy or .npz.")
            inside: Sequence[Entry] = reader.find(written)
            if not inside:
                raise DataError(f"{written}: there is no {reader.kind} in it ({', '.join(reader.extensions)}).")
            yield from inside
        elif glob.has_magic(written) and not Path(written).exists():
            matches = sorted(glob.glob(written, recursive=True))  # noqa: PTH207  (a pattern may be absolute)
            if not matches:
                raise DataError(f"{written}: no file matches this pattern.")
            yield from files_of(reader, matches)
        else:
            yield storage.entry(Path(written))
    if empty:
        raise DataError("nothing to predict was given; name a file or a folder.")


def standard_input(content: bytes) -> list[Source | Entry]:
    r"""What was piped in: the names of files, one on a line, or the content of one file.

    >>> standard_input(b"a.png\nb.png\n")
    ['a.png', 'b.png']
    >>> standard_input(b"\x89PNG\r\n...")
    [Memory(name='standard input')]
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return [Memory("standard input", content)]
    return [line for line in text.splitlines() if line]


def evaluate(
    checkpoint: Source,
    data: Source | Dataset | None = None,
    *,
    split: str = "test",
    average: str = "none",
    progress: Progress | None = None,
) -> Evaluation | MaskEvaluation:
    """How a trained network does on labelled examples.

    Args:
        checkpoint: A run's folder or its checkpoint file.
        data: A data set's name or path; None is the one it was trained on.
        split: "test", "validation", "train" or "all". A folder without a test part is split as for training, so
            "test" are the examples that training did not see.
        average: "none", "flip" or "ten-crop": the mean over several views.
        progress: Called with ``(done, total, what)``.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The data cannot be used, or has other classes than the network.
        OptionError: No such split or views, or no data is known.
    """
    if split not in SPLITS:
        raise OptionError(f"split={split!r} is not one of {', '.join(SPLITS)}.")
    found = checkpoints.load(Path(checkpoint))
    classifier = Classifier.load(found)
    options = found.training.options if found.training else {}
    source = data if data is not None or found.training is None else found.training.data
    views.check(average, classifier.network.input_shape, masks=found.task == "masks")
    wanted, any_size = views.taken_at(average, shape_of(found)), classifier.network.any_size
    loaded = load_for(wanted, source, options, progress, any_size=any_size)
    check_classes(classifier.classes, loaded)
    parts = {name: getattr(loaded, name) for name in ("train", "validation", "test")}
    chosen = [part for name, part in parts.items() if part is not None and split in (name, "all")]
    if not chosen:
        raise OptionError(f"split=validation: {loaded.name} has no validation part.")
    seen = [classifier.evaluate(part, options.get("loss", "softmax"), average, progress) for part in chosen]
    return seen[0] if len(seen) == 1 else together(seen, [len(part) for part in chosen])


def together(seen: Sequence[Any], counts: Sequence[int]) -> Any:
    """Several evaluations as one; the loss is the mean by numbers of examples."""
    loss = sum(one.loss * count for one, count in zip(seen, counts, strict=True)) / sum(counts)
    if isinstance(seen[0], MaskEvaluation):
        confusion = torch.stack([one.confusion for one in seen]).sum(0)
        return replace(seen[0], confusion=confusion, loss=loss, pictures=sum(one.pictures for one in seen))
    labels, probabilities = (torch.cat([getattr(one, name) for one in seen]) for name in ("labels", "probabilities"))
    return replace(seen[0], labels=labels, probabilities=probabilities, loss=loss)


def shape_of(found: Checkpoint) -> tuple[int, ...]:
    """The shape of the examples that it was trained on; ``(C,)`` if it saw patches of arrays as large as they come."""
    if found.reader is not None:
        return found.reader.shape
    shape = notation.parse(found.notation).input_shape or ()
    options = found.training.options if found.training else {}
    if not options.get("patch"):
        return shape
    size = options.get("size") or ()
    return shape[:1] + ((size,) * (len(shape) - 1) if isinstance(size, int) else tuple(size))


def load_for(
    shape: tuple[int, ...],
    data: Source | Dataset | None,
    options: dict[str, Any],
    progress: Progress | None = None,
    *,
    any_size: bool = False,
) -> Dataset:
    """The data set, with its examples brought to a shape.

    Args:
        shape: ``(C, *spatial)``, or ``(C,)`` if files are to keep their size.
        data: A name, a path, or a data set in memory, which is returned as it is.
        options: Those of the training.
        progress: Called with ``(done, total, what)``.
        any_size: A data set in memory may have examples of other sizes.

    Raises:
        OptionError: No data is named.
        DataError: The data cannot be used, or a data set in memory has another shape.
    """
    if data is None:
        raise OptionError("the checkpoint does not say what it was trained on; name the data too.")
    if isinstance(data, Dataset):
        if data.shape[:1] != shape[:1] or (data.shape != shape and not any_size):
            raise DataError(f"{data.name}: its examples are {data.shape}, the network takes {shape}.")
        return data
    channels, *size = shape
    return datasets.load(
        data,
        channels=channels,
        size=tuple(size) or None,
        seed=int(options.get("seed", 0)),
        skip_bad=bool(options.get("skip_bad", False)),
        stream=options.get("stream"),
        validation=float(options.get("validation", 0.0)),
        progress=progress,
    )


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
