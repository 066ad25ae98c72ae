"""Using a trained network: what it says about files and arrays, and its evaluation on labelled examples."""

from __future__ import annotations

import glob
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import checkpoint as checkpoints
from . import datasets, notation, series, storage, views, volumes
from .checkpoint import Checkpoint
from .datasets import Dataset, Normalisation, Split, Stored
from .errors import DataError, OptionError
from .listings import TEST, TRAIN
from .losses import Loss
from .machine import device as device_of
from .members import Entry, File, Memory, entry, naming
from .metrics import Evaluation, MaskEvaluation
from .networks import Network
from .processes import ALONE, Group
from .readers import TYPES, Reader, by
from .splits import IGNORED

CHUNK = 500
LARGEST = 2**26  # numbers in a map
LEAVE_OUT = "Such files are left out by --skip-bad on the command line, skip_bad=True in Python."
SPLITS = ("test", "validation", "train", "all")

Progress = Callable[[int, int, str], None]
Report = Callable[[str], None]
Source = str | os.PathLike[str]


def warn(message: str) -> None:
    """What was left out, as a warning of Python's."""
    warnings.warn(message, stacklevel=3)


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
    def load(checkpoint: Source | Checkpoint, device: str = "cpu") -> Classifier:
        """From a checkpoint, its file, or the folder of its run.

        Args:
            checkpoint: Which.
            device: Where it computes; "auto" is a GPU if there is one.

        Raises:
            CheckpointError: There is none, or it is damaged.
            OptionError: There is no such device.
        """
        where = device_of(device)
        found = checkpoint if isinstance(checkpoint, Checkpoint) else checkpoints.load(Path(checkpoint))
        network, dtype = found.network().to(where), TYPES[found.dtype]
        return Classifier(network, found.classes, found.normalisation, found.reader, found.task, dtype)

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
        seen = [self.scores(view).softmax(1) for view in views.VIEWS[average](inputs, self.shape[1:])]
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
        split: Split | Stored | Sequence[Split | Stored],
        loss: str | Loss = "softmax",
        average: str = "none",
        progress: Progress | None = None,
        group: Group = ALONE,
    ) -> Evaluation | MaskEvaluation:
        """Accuracy, confusion and mean loss on labelled examples; for masks, how they overlap.

        Args:
            split: The examples, or several parts of them, which are one then.
            loss: It is that of one view.
            average: Views whose probabilities are averaged.
            progress: Called with ``(done, total, what)``.
            group: Processes that hold all weights and compute a share each; in the end all know the same.

        Raises:
            GeometryError: The network cannot take examples of this size.
        """
        parts = [split] if isinstance(split, Split | Stored) else split
        for part in parts if average != "ten-crop" else ():
            self.check_size(part.shape)
        loss = Loss(loss) if isinstance(loss, str) else loss
        total = sum(map(len, parts))
        batches = self._batches(parts, group.share(total))
        shares = group.gather(lambda: self._judged(batches, loss, average, progress))
        totals, divisors = torch.cat([share.sums for share in shares]).sum(0)
        value = float((totals / divisors).sum()) if divisors.all() else None
        if self.task == "masks":
            confusion = torch.stack([share.overlap.confusion for share in shares]).sum(0)
            return MaskEvaluation(self.classes, confusion, value, total)
        labels, probabilities = (
            torch.cat(column) for column in zip(*[(share.labels, share.probabilities) for share in shares], strict=True)
        )
        return Evaluation(self.classes, labels, probabilities, math.nan if value is None else value)

    def _batches(self, parts: Sequence[Split | Stored], share: slice) -> list[tuple[Split | Stored, Tensor]]:
        """What is computed at once of a share of all examples: parts, and indices into them."""
        found, before = [], 0
        for part in parts:
            mine = torch.arange(len(part))[max(0, share.start - before) : max(0, share.stop - before)]
            found += [(part, indices) for indices in mine.split(self.chunk(part.shape)) if len(indices)]
            before += len(part)
        return found

    def _judged(
        self,
        batches: Sequence[tuple[Split | Stored, Tensor]],
        loss: Loss,
        average: str,
        progress: Progress | None,
    ) -> _Judged:
        overlap = MaskEvaluation.of(self.classes)
        sums = [torch.zeros(2, len(loss.name.split("+")), dtype=torch.float64)]
        labels: list[Tensor] = []
        probabilities: list[Tensor] = []
        done, total = 0, sum(len(indices) for _, indices in batches)
        for part, indices in batches:
            inputs, targets = part.take(indices)
            scores = self.scores(views.central(average, inputs, self.shape[1:]))
            targets = targets.to(scores.device)
            both = loss.totals(scores, targets), loss.counts(targets)
            sums.append(torch.tensor([[float(value) for value in values] for values in both], dtype=torch.float64))
            said = scores.softmax(1) if average == "none" else self.probabilities(inputs, average)
            if self.task == "masks":
                overlap = overlap.add(said, targets)
            else:
                labels.append(targets.cpu())
                probabilities.append(said.cpu())
            done += len(inputs)
            if progress is not None:
                progress(done, total, "evaluating")
        if not labels:
            labels, probabilities = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, len(self.classes))]
        return _Judged(torch.stack(sums), overlap, torch.cat(labels), torch.cat(probabilities))


@dataclass(frozen=True)
class _Judged:
    """What is known of some examples.

    Args:
        sums: ``(batches, 2, terms)``: the sums of each term of the loss, and what they are divided by.
        overlap: Of their masks.
        labels: ``(N,)``, for classes.
        probabilities: ``(N, classes)``, for classes.
    """

    sums: Tensor
    overlap: MaskEvaluation
    labels: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Prediction:
    """What a network says about one example.

    Args:
        picture: The file, or the number of the example in an array.
        label: The most probable class; of a mask, the one of most pixels.
        probability: Of that class; of a mask, its share of the pixels.
        probabilities: Of every class, most probable first; of a mask, the shares.
        mask: The most probable class of every pixel, uint8 ``(*spatial)``; of a file, laid over all of it, with 255
            where the network saw nothing of it. None for networks that give one class.
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
    device: str = "auto",
    progress: Progress | None = None,
    on_skip: Report = warn,
) -> list[Prediction]:
    """What a trained network says about examples.

    Args:
        checkpoint: A run's folder or its checkpoint file.
        examples: A file, a folder or archive of files, a pattern such as ``"photos/*.jpg"``, several of these; a file
            ``.npy`` or ``.npz`` of arrays; or a tensor or NumPy array ``(N, C, *spatial)`` of the type of the training
            examples. Files are brought to the size of the training examples exactly as these were.
        average: "none", "flip" or "ten-crop": the mean over several views.
        skip_bad: Leave out files that cannot be read.
        device: "auto" takes a GPU if there is one.
        progress: Called with ``(done, total, what)``.
        on_skip: Called with a message that names the file, for each that is left out; not given, it is a warning.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: An example cannot be read, or there is none; the message names the file.
        OptionError: There are no such views of such examples, or no such device.
    """
    given: dict[str, Any] = {"skip_bad": skip_bad, "device": device, "progress": progress, "on_skip": on_skip}
    return list(predictions(checkpoint, examples, average=average, **given))


def predictions(
    checkpoint: Source | Classifier,
    examples: Source | Tensor | Any | Sequence[Source],
    *,
    average: str = "none",
    skip_bad: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    on_skip: Report = warn,
) -> Iterator[Prediction]:
    """As :func:`predict`, one by one: no more than a batch of examples is in memory.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: An example cannot be read, or there is none; the message names the file.
        OptionError: There are no such views of such examples, or no such device.
    """
    classifier = checkpoint if isinstance(checkpoint, Classifier) else Classifier.load(checkpoint, device)
    views.check(average, classifier.network.input_shape, masks=classifier.task == "masks")
    if isinstance(examples, Tensor | np.ndarray):
        yield from _of_array(classifier, examples, average, "")
        return
    shape = views.taken_at(average, classifier.shape)
    reader = None if classifier.reader is None else replace(classifier.reader, shape=shape)
    sources: Any = examples
    if isinstance(examples, str | os.PathLike | Entry) or not isinstance(examples, Iterable):
        sources = [examples]
    found = list(files_of(reader, sources))
    done = 0
    for array, places in groupby(found, lambda place: is_array(place, reader)):
        for chunk in _chunks(list(places), 1 if array else classifier.chunk(shape)):
            if array:
                yield from _of_array(classifier, _array(chunk[0]), average, f"{chunk[0]}: ")
            else:
                yield from _of_files(classifier, reader, chunk, average, on_skip if skip_bad else None)
            done += len(chunk)
            if progress is not None:
                progress(done, len(found), "predicting")


def _chunks(places: Sequence[Entry], size: int) -> list[Sequence[Entry]]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def _of_files(
    classifier: Classifier, reader: Reader | None, places: Sequence[Entry], average: str, on_skip: Report | None
) -> Iterator[Prediction]:
    if reader is None:
        raise DataError(f"{places[0]}: the network was trained on arrays; give a file of them, .npy or .npz.")
    pairs = list(_readable(reader, places, on_skip))
    if not pairs:
        return
    said = classifier.probabilities(torch.stack([inputs for _, inputs in pairs]), average)
    for (place, _), row in zip(pairs, said, strict=True):
        found = prediction(str(place), row, classifier.classes)
        yield found if found.mask is None else replace(found, mask=reader.placed(found.mask, place, IGNORED))


def _readable(reader: Reader, places: Iterable[Entry], on_skip: Report | None) -> Iterator[tuple[Entry, Tensor]]:
    for place in places:
        try:
            yield place, reader.read(place)
        except DataError as error:
            if on_skip is None:
                raise DataError(f"{str(error).removesuffix('.')}. {LEAVE_OUT}") from None
            on_skip(str(error))


def is_array(place: Entry, reader: Reader | None) -> bool:
    """Whether a file holds an array of many examples, rather than one."""
    ending = place.name.lower().rpartition(".")[2]
    if reader is not None and reader.kind == "series" and ending in ("ts", "tsv"):
        return True
    return ending == "npz" or (ending == "npy" and (reader is None or reader.kind in ("picture", "signal")))


def _array(place: Entry) -> Any:
    """The array of a file: the only one of NPZ; that of NPY, which stays there until it is looked at; or all series."""
    if place.name.lower().endswith((".ts", ".tsv")):
        return _series(place)
    if not place.name.lower().endswith(".npz"):
        return volumes.mapped(place)
    if not isinstance(place, File):
        raise DataError(f"{place}: an archive in an archive is not read; unpack it first.")
    with naming(place):
        inside = storage.tree(place.path).files
    if len(inside) != 1:
        names = ", ".join(file.name.removesuffix(".npy") for file in inside) or "nothing"
        raise DataError(f"{place}: it holds {names}; expected one array, (N, C, *spatial).")
    return volumes.npy(inside[0])


def _series(place: Entry) -> Any:
    """``(N, C, T)`` of a file of series, whose classes are not looked at."""
    found = series.parse(place, labelled=False)
    shapes = {row.shape for row in found.rows}
    if found.bad or len(shapes) > 1:
        raise DataError(
            found.bad[0] if found.bad else f"{place}: its series differ in length; predict them one by one."
        )
    return np.stack(found.rows)


def _of_array(classifier: Classifier, inputs: Any, average: str, where: str) -> Iterator[Prediction]:
    axes = len(classifier.network.input_shape)
    if inputs.ndim == axes and classifier.network.input_shape[0] == 1:
        inputs = inputs[:, None]  # one channel needs no axis of its own
    wanted, dtype, shape = classifier.network.input_shape, name_of(classifier.dtype), tuple(inputs.shape)
    fits = len(shape) == len(wanted) + 1 and (average == "ten-crop" or shape[1:] == wanted)
    if classifier.network.any_size and len(shape) == len(wanted) + 1:
        fits = shape[1] == wanted[0]
    if not fits or name_of(inputs.dtype) != dtype or not len(inputs):
        raise DataError(
            f"{where}examples are {dtype} (N, {', '.join(map(str, wanted))}), got {name_of(inputs.dtype)} {shape}."
        )
    if average != "ten-crop":
        classifier.check_size(shape[1:])
    for start in range(0, len(inputs), size := classifier.chunk(shape[1:])):
        chunk = inputs[start : start + size]
        if not isinstance(chunk, Tensor):
            chunk = torch.from_numpy(np.array(chunk, dtype))
        said = classifier.probabilities(chunk, average)
        yield from (prediction(f"{where}{n}", row, classifier.classes) for n, row in enumerate(said, start))


def name_of(dtype: Any) -> str:
    """What messages call a type of PyTorch's or NumPy's, whichever its byte order.

    >>> name_of(torch.int16), name_of(np.dtype(">i2"))
    ('int16', 'int16')
    """
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")


def prediction(name: str, probabilities: Tensor, classes: tuple[str, ...]) -> Prediction:
    """What probabilities of classes, or of the classes of each pixel, say."""
    probabilities = probabilities.cpu()
    if probabilities.isnan().any():
        raise DataError(
            f"{name}: the network's outputs for it are not numbers (NaN), so they say no class: its values are not "
            "finite, or the network's weights ran away in training."
        )
    mask = probabilities.argmax(0).to(torch.uint8) if probabilities.dim() > 1 else None
    if mask is not None:
        probabilities = mask.flatten().long().bincount(minlength=len(classes)) / mask.numel()
    order = probabilities.argsort(descending=True, stable=True).tolist()
    ranked = {classes[i]: probabilities[i].item() for i in order}
    best = classes[order[0]]
    return Prediction(name, best, ranked[best], ranked, mask)


def files_of(reader: Reader | None, sources: Iterable[Any]) -> Iterator[Entry]:
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
        if not isinstance(source, str | os.PathLike) or not str(source):
            said = "an empty name" if isinstance(source, str) else f"{type(source).__name__}"
            raise DataError(f"predict takes files, folders, patterns, or one array of examples, and got {said}.")
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
            yield entry(Path(written))
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
    device: str = "auto",
    progress: Progress | None = None,
    on_skip: Report = warn,
) -> Evaluation | MaskEvaluation:
    """How a trained network does on labelled examples.

    Args:
        checkpoint: A run's folder or its checkpoint file.
        data: A data set's name or path; None is the one it was trained on.
        split: "test", "validation", "train" or "all". The data it was trained on is split as for training, so "test"
            are examples that training did not see. Of other data without parts of its own all is measured.
        average: "none", "flip" or "ten-crop": the mean over several views.
        device: "auto" takes a GPU if there is one.
        progress: Called with ``(done, total, what)``.
        on_skip: Called with a message that names the file, for each that is left out because the run's option
            ``skip_bad`` says so; not given, it is a warning.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The data cannot be used, or has other classes than the network.
        OptionError: No such split, views or device, or no data is known.
    """
    if split not in SPLITS:
        raise OptionError(f"split={split!r} is not one of {', '.join(SPLITS)}.")
    found = checkpoints.load(Path(checkpoint))
    classifier = Classifier.load(found, device)
    options = found.training.options if found.training else {}
    source = data if data is not None or found.training is None else found.training.data
    views.check(average, classifier.network.input_shape, masks=found.task == "masks")
    wanted, any_size = views.taken_at(average, shape_of(found)), classifier.network.any_size
    loaded = load_for(wanted, source, options, progress, any_size=any_size)
    check_classes(classifier.classes, loaded)
    for message in () if isinstance(data, Dataset) else loaded.skipped:
        on_skip(message)
    held_out = () if data is None or _is_own(found, data, loaded) else loaded.held_out
    return classifier.evaluate(_chosen(loaded, split, held_out), options.get("loss", "softmax"), average, progress)


def _is_own(found: Checkpoint, data: Source | Dataset, loaded: Dataset) -> bool:
    """Whether data is what a network was trained on: by its place, or by the training examples if it was moved."""
    if found.training is None:
        return False
    names = () if isinstance(data, Dataset) else (str(data), str(Path(data).expanduser().absolute()))
    return found.training.data in names or found.training.digest == loaded.train.digest()


def _chosen(loaded: Dataset, split: str, held_out: Sequence[str]) -> list[Split | Stored]:
    """The parts that a word means, where those that are held out for a training are no parts of their own."""
    if TEST in held_out and split != "all":
        if split != TEST:
            raise OptionError(f"split={split}: {loaded.name} has no parts of its own; give split=all.")
        split = "all"
    named = {part: TRAIN if part in held_out else part for part in loaded.parts}
    chosen = [loaded.parts[part] for part, name in named.items() if split in (name, "all")]
    if not chosen:
        raise OptionError(f"split={split}: {loaded.name} has no {split} part.")
    return chosen


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
    try:
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
    except OptionError as error:
        raise OptionError(f"{data}: the network was trained on examples of {by(shape)}: {error}") from None


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
