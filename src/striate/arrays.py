"""Arrays: data sets whose examples lie in a few files of numbers: IDX, NPZ, and pairs of NPY files."""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from . import volumes
from .decoding import ONE_SIZE, free_memory, mask_classes, mask_doubt
from .errors import DataError
from .listings import IDX_FILES, LISTED, PARTS, TEST, TRAIN, listed_classes, numbered
from .members import LIMIT, Entry, Source, entry
from .readers import by
from .splits import Progress
from .storage import Tree

INPUTS = ("x", "images", "inputs", "data", "signals", "volumes")
TARGETS = ("y", "labels", "label", "targets", "masks")
KINDS = {1: "series", 2: "picture", 3: "volume"}
LEAST_CLASSES = 1000  # up to here, not every class by number needs an example
CHANNELS = (1, 3, 4)  # what the size of an axis that nobody names must be to be taken for channels

Part = str | None


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set of tensors, before anything is split or resized.

    Args:
        name: What the data set is called.
        where: What messages call its place.
        kind: "picture", "volume" or "series".
        classes: Their names, in order.
        parts: Inputs and targets of each; of None, if they are not split.
        task: "classes" or "masks".
        layout: In words.
        missing: Messages about examples that cannot be read and were left out.
    """

    name: str
    where: str
    kind: str
    classes: tuple[str, ...]
    parts: Mapping[Part, tuple[Tensor, Tensor]] = field(repr=False)
    task: str = "classes"
    layout: str = ""
    missing: tuple[str, ...] = ()


def read_idx(source: Source, axes: int) -> Tensor:
    """An IDX file of bytes, gzipped or not, as a uint8 tensor: the format of MNIST, Fashion-MNIST and EMNIST.

    Never holds more than the file does, whatever its header declares.

    Args:
        source: The file's path, a member of an archive, its bytes, or an open binary file.
        axes: How many its header must have: 3 for images, 1 for labels.

    Raises:
        DataError: The file is not such a file, or holds more or less than its header declares.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), axes=1).tolist()
    [7, 8, 9]
    """
    place = entry(source)
    limit = max(LIMIT, (free_memory() or 0) // 2)
    with _unzipped(place) as stream:
        dims = _idx_header(place, stream.read(4 + 4 * axes), axes)
        declared = math.prod(dims)
        if declared > limit:
            raise DataError(
                f"{place}: its header declares {by(dims)} = {declared:,} bytes; at most {limit:,} are read."
            )
        data = bytearray()
        while len(data) <= declared and (chunk := stream.read(min(1 << 20, declared + 1 - len(data)))):
            data += chunk
    if len(data) != declared:
        follow = f"only {len(data):,} follow" if len(data) < declared else "more than that follow"
        raise DataError(f"{place}: its header declares {by(dims)} = {declared:,} bytes; {follow}.")
    return torch.frombuffer(data, dtype=torch.uint8).view(dims)


@contextmanager
def _unzipped(place: Entry) -> Iterator[BinaryIO]:
    """The bytes of a file, unzipped if they begin as gzip does (browsers unzip and keep the name, or the reverse)."""
    try:
        with place.open() as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not zipped:
                yield file
                return
            with gzip.open(file) as stream:
                yield io.BufferedReader(stream)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"damaged or cut short: {error}"
        raise DataError(f"{place}: it cannot be read: {str(reason).rstrip('.')}.") from None


def _idx_header(place: Entry, head: bytes, axes: int) -> tuple[int, ...]:
    kind = {1: "labels", 3: "images"}.get(axes, "data")
    magic = bytes([0, 0, 8, axes])
    if head[:3] != magic[:3]:
        start = head[:4].hex(" ") or "nothing"
        raise DataError(
            f"{place}: not an IDX file of bytes: it begins with {start}; expected {magic.hex(' ')} ({kind})."
        )
    if head[3:4] != magic[3:]:
        found = head[3] if len(head) > 3 else "missing"
        raise DataError(f"{place}: the number of axes in its header is {found}; expected {axes} ({kind}).")
    if len(head) < 4 + 4 * axes:
        raise DataError(f"{place}: it ends after {len(head)} of the {4 + 4 * axes} bytes of its header.")
    dims = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4))
    if not all(dims):
        raise DataError(f"{place}: its header declares {by(dims)}, so it holds no {kind}.")
    return dims


def _variants(root: Tree, name: str) -> list[Entry]:
    """The IDX file of this official name: as it is, with the dot that some mirrors write, gzipped or not."""
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz")
    return [root.loose[one] for one in names if one in root.loose]


def has_idx(root: Tree) -> bool:
    """Whether one of the four IDX files lies there."""
    return any(_variants(root, name) for name in IDX_FILES)


def idx_folder(root: Tree, resized: bool, report: Progress) -> Arrays | None:
    """The four IDX files of MNIST and its successors; None if there is none of them.

    Raises:
        DataError: One is missing or damaged, or they do not fit together.
    """
    if not has_idx(root):
        return None
    found = {name: _variants(root, name) for name in IDX_FILES}
    if missing := [name for name, files in found.items() if not files]:
        raise DataError(
            f"{root.where}: IDX data is four files, and {', '.join(missing)} (or the same with .gz) is missing."
        )
    files = [variants[0] for variants in found.values()]
    parts = []
    for file, axes in zip(files, (3, 1, 3, 1), strict=True):
        parts.append(read_idx(file, axes))
        report(len(parts), len(files), "reading IDX files")
    classes = _idx_classes(root, files, parts)
    _compare_idx(files, parts, resized=resized)
    splits: dict[Part, tuple[Tensor, Tensor]] = {
        TRAIN: (parts[0][:, None], parts[1].long()),
        TEST: (parts[2][:, None], parts[3].long()),
    }
    return Arrays(root.name, root.where, "picture", classes, splits, layout="IDX files")


def _compare_idx(files: Sequence[Entry], parts: Sequence[Tensor], *, resized: bool) -> None:
    for i in (0, 2):
        if len(parts[i]) != len(parts[i + 1]):
            raise DataError(
                f"{files[i]} holds {len(parts[i]):,} images, but {files[i + 1]} holds {len(parts[i + 1]):,} labels; "
                "expected one label for each image."
            )
    train, test = (by(part.shape[1:]) for part in (parts[0], parts[2]))
    if train != test and not resized:
        raise DataError(f"{files[0]} holds images of {train}, but {files[2]} of {test}. {ONE_SIZE['picture']}")


def _idx_classes(root: Tree, files: Sequence[Entry], parts: Sequence[Tensor]) -> tuple[str, ...]:
    """Names from ``classes.txt``, or numbers up to the highest training label; and all labels are within them."""
    labels = parts[1].long()
    if (labels == labels[0]).all():
        raise DataError(
            f"{files[1]}: all {len(labels):,} labels are {labels[0]}; a classifier needs at least 2 classes."
        )
    listed = listed_classes(root)
    names = listed or tuple(map(str, range(int(labels.max()) + 1)))
    source = "the names in classes.txt" if listed else "the training labels"
    for i in (1, 3):
        if wrong := out_of_range(parts[i], len(names)):
            raise DataError(f"{files[i]}: {wrong} by {source}.")
    return names


def out_of_range(labels: Tensor, classes: int, what: str = "image") -> str | None:
    """What is wrong with the first label that names no class."""
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if not len(wrong):
        return None
    index = int(wrong[0])
    return (
        f"label {labels[index]} of {what} {index:,} (of {len(labels):,}, counted from 0) is out of range: "
        f"there are {classes} classes, 0 to {classes - 1}"
    )


def numpy_files(root: Tree, channels: int | None) -> Arrays | None:
    """The arrays of an NPZ file, or NPY files of the same names in a folder; None if there is no array of inputs.

    Inputs are called ``x``, ``images``, ``inputs`` or ``data`` (or ``signals``, ``volumes``), targets ``y``,
    ``labels`` or ``targets`` (or ``masks``), each with ``train``, ``validation`` or ``test`` before or after, or
    without.

    Raises:
        DataError: An array is damaged, has no partner, or its axes could mean two things.
    """
    inputs, targets = _in_roles(root, INPUTS), _in_roles(root, TARGETS)
    if not inputs or not targets:
        return None
    _check_roles(root, inputs, targets)
    ordered = sorted(inputs, key=lambda part: PARTS.index(part or TRAIN))
    pairs = {part: _pair(inputs[part][0], targets[part][0], channels) for part in ordered}
    first_x, first_y = next(iter(pairs.values()))
    kind = KINDS.get(first_x.dim() - 2, "series")
    task, settled = ("masks", _masks) if first_y.dtype == np.uint8 else ("classes", _classes)
    classes, numbers = settled(root, {part: y for part, (_, y) in pairs.items()})
    tensors = {part: (x, numbers[part]) for part, (x, _) in pairs.items()}
    return Arrays(root.name, root.where, kind, classes, tensors, task, layout="arrays")


def refuse_names(root: Tree) -> None:
    """Raise a :class:`DataError` if there is nothing but arrays whose names do not say what they are."""
    names = [name.removesuffix(".npy") for name in root.loose if name.lower().endswith(".npy")]
    if names and not root.children:
        called = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")
        raise DataError(
            f"{root.where}: its arrays are called {called}; call the inputs x (or {', '.join(INPUTS[1:])}) and their "
            f"targets y (or {', '.join(TARGETS[1:])}), each with its part if they are split: x_train, y_train, x_test, "
            "y_test. Files of one volume each belong into a folder for each class."
        )


def _in_roles(root: Tree, roles: Sequence[str]) -> dict[Part, list[Entry]]:
    """The arrays that are called as one of these, by their parts."""
    found: dict[Part, list[Entry]] = {}
    for name, file in root.loose.items():
        if name.endswith(".npy") and (named := _named(name)) and named[0] in roles:
            found.setdefault(named[1], []).append(file)
    return found


def _check_roles(root: Tree, inputs: Mapping[Part, list[Entry]], targets: Mapping[Part, list[Entry]]) -> None:
    """Each part has one array of inputs and one of targets, and either all say their part or none does."""
    if inputs.keys() != targets.keys():
        parts = ", ".join(str(part) for part in sorted(inputs.keys() ^ targets.keys(), key=str))
        raise DataError(f"{root.where}: inputs and targets must come in pairs, and the part {parts} has only one.")
    if None in inputs and len(inputs) > 1:
        named = next(files[0] for part, files in inputs.items() if part)
        raise DataError(
            f"{root.where}: {_name(named)} says its part by its name, and {_name(inputs[None][0])} does not; "
            "keep arrays of one sort."
        )
    for what, found in (("inputs", inputs), ("targets", targets)):
        if double := next((files for files in found.values() if len(files) > 1), None):
            raise DataError(f"{root.where}: {' and '.join(map(_name, double))} could each be the {what}; keep one.")


def _name(file: Entry) -> str:
    return file.name.rpartition("/")[2]


def _named(file: str) -> tuple[str, Part] | None:
    """What an array is and which part it belongs to, from its name."""
    words = [word for word in re.split(r"[_-]", file.removesuffix(".npy").lower()) if word]
    parts = {"train": TRAIN, "valid": PARTS[1], "validation": PARTS[1], "val": PARTS[1], "test": TEST}
    named = [parts[word] for word in words if word in parts]
    roles = [word for word in words if word not in parts]
    if len(roles) != 1 or len(named) > 1 or roles[0] not in (*INPUTS, *TARGETS):
        return None
    return roles[0], named[0] if named else None


def _pair(inputs: Entry, targets: Entry, channels: int | None) -> tuple[Tensor, Any]:
    """Inputs, and their targets: masks are uint8, and classes int64 or text."""
    limit = max(LIMIT, (free_memory() or 0) // 2)
    x = in_channels(inputs, volumes.npy(inputs, limit), channels)
    y = volumes.npy(targets, limit, texts=True)
    if len(x) != len(y):
        raise DataError(f"{inputs} holds {len(x):,} inputs, but {targets} holds {len(y):,} targets.")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "U" and y.ndim == 1:
        return x, y
    if y.dtype.kind not in "iub" or y.shape not in ((len(x),), (len(x), *x.shape[2:])):
        raise DataError(
            f"{targets}: it is {by(y.shape)} {y.dtype.name}; expected whole numbers, {len(x)} classes"
            f" or masks of {by((len(x), *x.shape[2:]))}."
        )
    if y.ndim == 1:
        return x, y.astype(np.int64)
    masks = (_named(targets.name.rpartition("/")[2]) or ("",))[0] == "masks"
    if y.ndim == 2 and not masks and y.min() == 0 and y.max() == 1 and (y.sum(1) == 1).all():
        raise DataError(
            f"{targets}: each row of {by(y.shape)} holds a single 1, so it could be classes (one-hot) or masks. "
            "Save classes as numbers, y.argmax(1); call masks 'masks'."
        )
    if y.min() < 0 or y.max() > 255:
        raise DataError(f"{targets}: the masks hold {y.min()} to {y.max()}; expected 0 to 255.")
    return x, y.astype(np.uint8)


def in_channels(place: Entry, array: Any, channels: int | None = None) -> Tensor:
    """An array of inputs as ``(N, C, *spatial)``, where its axes can mean only one thing.

    ``(N, T)`` is signals of one channel. ``(N, H, W)`` of bytes is grey pictures; of other numbers, the array's name
    says what it is: ``images``, or ``signals`` for ``(N, C, T)``. Of four axes and more, the last is the channels if
    it is 1, 3 or 4 (or as asked for) and the second is not, and the other way round.

    Raises:
        DataError: It could mean two things, or is no array of inputs.
    """
    shape, role = array.shape, (_named(place.name.rpartition("/")[2]) or ("x", None))[0]
    grey = array.ndim == 3 and (role == "images" or (array.dtype == np.uint8 and role != "signals"))
    if array.ndim == 2 or grey or (array.ndim == 4 and role == "volumes"):
        array = array[:, None]
    elif array.ndim == 3 and role != "signals":
        raise DataError(
            f"{place}: it is {by(shape)}, which could be signals of {shape[1]} channels or grey pictures. "
            "Call the array 'signals' or 'images'."
        )
    elif array.ndim in (4, 5):
        array = _channels_second(place, array, channels)
    elif array.ndim != 3:
        raise DataError(f"{place}: it is {by(shape)}; expected inputs of 1 to 3 axes, (N, C, *spatial).")
    return volumes.tensor(place, array)


def _channels_second(place: Entry, array: Any, channels: int | None) -> Any:
    for known in ((channels,), CHANNELS):
        first, last = array.shape[1] in known, array.shape[-1] in known
        if first != last:
            return array if first else np.moveaxis(array, -1, 1)
    both = "both could be" if first else "neither is"
    raise DataError(
        f"{place}: it is {by(array.shape)}, and of its second and last axes {both} the channels "
        f"({', '.join(map(str, CHANNELS))}). Say how many there are: --channels on the command line, channels in "
        "Python; or save it channels first."
    )


def _classes(root: Tree, targets: Mapping[Part, Any]) -> tuple[tuple[str, ...], dict[Part, Tensor]]:
    """Names from ``classes.txt``, or texts, or numbers up to the highest target; and all targets are within them."""
    listed = listed_classes(root)
    if any(y.dtype.kind == "U" for y in targets.values()):
        numbers, names = numbered(root.where, [str(label) for y in targets.values() for label in y], listed)
        rows = torch.tensor(numbers).split([len(y) for y in targets.values()])
        return names, dict(zip(targets, rows, strict=True))
    highest, count = max(int(y.max()) for y in targets.values()), sum(map(len, targets.values()))
    if listed is None and highest >= max(count, LEAST_CLASSES):
        raise DataError(
            f"{root.where}: the highest class is {highest:,}, and there are only {count:,} targets. Classes count from "
            "0; give names (texts) in place of numbers, or list all classes in classes.txt."
        )
    names = listed or tuple(map(str, range(max(highest, 0) + 1)))
    found = {part: torch.from_numpy(y) for part, y in targets.items()}
    for part, y in found.items():
        if wrong := out_of_range(y, len(names), "input"):
            raise DataError(f"{root.where}{f', {part}' if part else ''}: {wrong}.")
    return names, found


def _masks(root: Tree, targets: Mapping[Part, Any]) -> tuple[tuple[str, ...], dict[Part, Tensor]]:
    """As in files: 255 is ignored, unless it is the only value but 0."""
    listed = listed_classes(root) or ()
    values = {
        f"{part or 'mask'}[{row}]": np.bincount(mask.ravel(), minlength=256)
        for part, y in targets.items()
        for row, mask in enumerate(y)
    }
    if doubt := mask_doubt(listed, values):
        raise DataError(f"{root.where}: {doubt}")
    classes, doubled = mask_classes(listed, sum(values.values()))
    return classes, {part: torch.from_numpy(np.minimum(y, 1) if doubled else y) for part, y in targets.items()}
