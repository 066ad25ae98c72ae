"""Labelled pictures in memory: the bundled set, folders of IDX files, and folders with one folder for each class."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from importlib import resources
from io import BufferedIOBase
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from . import images as pictures
from .errors import DataError, OptionError, unknown_name

BUNDLED = ("fashion-mnist-mini",)
HELD_OUT = ("test", "validation", "valid", "val")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EXPECTED = (
    "Expected a folder for each class with its pictures (cat/1.png, dog/1.png), these under train/ and test/ "
    f"if they are already split, or the four IDX files {', '.join(IDX_FILES)} (each may end in .gz)."
)
ONE_SIZE = "Give one size for all: --size 64x64 on the command line, size=(64, 64) in Python."
LISTED = 10
CHUNK = 32

ByClass = dict[str, list[Path]]
Progress = Callable[[int, int, str], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Pictures and their labels.

    Args:
        inputs: uint8 ``(N, C, H, W)``.
        targets: int64 ``(N,)``.

    Raises:
        DataError: The tensors have other types or shapes.

    >>> Split(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    Split(5 pictures of 1x8x8)
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        check_images(self.inputs)
        if self.targets.dtype != torch.int64 or self.targets.shape != self.inputs.shape[:1]:
            raise DataError(
                f"The labels of {len(self.inputs):,} images are an int64 tensor ({len(self.inputs)},), "
                f"got {self.targets.dtype} {tuple(self.targets.shape)}."
            )

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"Split({len(self)} pictures of {'x'.join(map(str, self.inputs.shape[1:]))})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures to learn from, and others of the same shape and classes to be judged by.

    Raises:
        DataError: Fewer than two classes, pictures of two shapes, or a label that names no class.

    >>> part = Split(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    >>> Dataset("blank", ("cat", "dog"), train=part, test=part).shape
    (1, 8, 8)
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(f"{self.name}: a classifier needs at least 2 classes, got {len(self.classes)}.")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise DataError(f"{self.name}: the class {twice!r} is named more than once; each needs its own name.")
        if self.train.inputs.shape[1:] != self.test.inputs.shape[1:]:
            raise DataError(f"{self.name}: the shapes differ: train is {self.train!r}, test is {self.test!r}.")
        for part, split in (("train", self.train), ("test", self.test)):
            if wrong := _out_of_range(split.targets, len(self.classes)):
                raise DataError(f"{self.name}, {part}: {wrong}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every picture."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class Normalisation:
    """Brings the pixels of each channel to mean 0 and standard deviation 1: ``(x / 255 - mean) / std``.

    Args:
        mean: One for each channel, with black = 0 and white = 1.
        std: Likewise; finite and above 0.

    Raises:
        OptionError: The two have different lengths, or hold a number that cannot be used.

    >>> n = Normalisation.of(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    >>> n, n(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item()
    (Normalisation(mean=(0.5,), std=(0.5,)), 1.0)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        usable = all(map(math.isfinite, self.mean + self.std)) and all(s > 0 for s in self.std)
        if not self.mean or len(self.mean) != len(self.std) or not usable:
            raise OptionError(
                "A normalisation has one finite mean and one finite std above 0 for each channel, "
                f"got mean={self.mean!r} and std={self.std!r}."
            )

    @classmethod
    def of(cls, images: Tensor) -> Normalisation:
        """That of a set of pictures, uint8 ``(N, C, H, W)``, exact: from counts of the 256 values.

            mean = S1 / n / 255        std = sqrt(n * S2 - S1**2) / n / 255

        with S1 and S2 the sums of the values and of their squares. A channel with one value everywhere has
        standard deviation 0 and gets 1.0, so that it becomes 0 everywhere instead of dividing by zero.

        Raises:
            DataError: There are no pictures, or the tensor has another type or shape.
        """
        check_images(images)
        channels = [_moments(_histogram(images[:, c])) for c in range(images.shape[1])]
        return cls(tuple(mean for mean, _ in channels), tuple(std for _, std in channels))

    def __call__(self, images: Tensor) -> Tensor:
        """Uint8 ``(N, C, H, W)`` or ``(C, H, W)`` to float32 of the same shape, on the same device.

        Raises:
            DataError: The pictures are not uint8, or have another number of channels.
        """
        if images.dtype != torch.uint8 or images.dim() not in (3, 4) or images.shape[-3] != len(self.mean):
            raise DataError(
                f"This normalisation takes uint8 pictures of {len(self.mean)} channels, (N, C, H, W) or (C, H, W); "
                f"got {images.dtype} {tuple(images.shape)}."
            )
        mean, std = (images.new_tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (self.mean, self.std))
        return images.float().div_(255).sub_(mean).div_(std)


def check_images(images: Tensor) -> None:
    """Raise a :class:`DataError` unless the tensor is uint8 ``(N, C, H, W)`` and has something in it.

    >>> check_images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or not images.numel():
        raise DataError(
            f"Images are a uint8 tensor (N, C, H, W) with nothing zero-sized, got {images.dtype} {tuple(images.shape)}."
        )


def _histogram(values: Tensor) -> list[int]:
    """How often each of the 256 values occurs; in chunks, because the counting copies its input."""
    chunks = (torch.bincount(chunk.flatten(), minlength=256) for chunk in values.split(1024))
    return [int(count) for count in sum(chunks, torch.zeros(256, dtype=torch.int64, device=values.device))]


def _moments(histogram: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation on the scale 0..1, from whole numbers of any length up to the last step."""
    count = sum(histogram)
    first = sum(value * times for value, times in enumerate(histogram))
    second = sum(value * value * times for value, times in enumerate(histogram))
    spread = count * second - first * first
    return first / count / 255, math.sqrt(spread) / count / 255 if spread else 1.0


def load(
    source: str | os.PathLike[str],
    *,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """A data set by its name, or from a folder. The result does not depend on the order of the file system.

    **A name**: "fashion-mnist-mini", the first 10,000 training and 2,000 test pictures of Fashion-MNIST, 1x28x28.
    A folder of that name is meant by ``./fashion-mnist-mini``.

    **IDX files**: a folder with the four files of MNIST and its successors, as they are or gzipped. The classes are
    called "0", "1", ... up to the highest training label, or as the lines of a file ``classes.txt`` beside them say.

    **A folder for each class**, its pictures anywhere below it; pictures outside class folders are not read. With
    ``train/`` in front there must be class folders under it, and the first of ``test/``, ``validation/``,
    ``valid/`` and ``val/`` that is there becomes the test part (so with both test and validation, validation is not
    read). With no test part, one in six pictures of each class, and at least one, is held out: those with the
    smallest hash of ``seed`` and path, so a picture stays on its side when others come or go. Classes are in the
    order of their names.

    Args:
        source: The name, or the path of the folder.
        channels: 1 or 3; None is 3 if any picture is coloured, else 1.
        size: ``(H, W)`` to bring every picture to, by the rule of :func:`striate.images.fit`; None if all have one.
        seed: Chooses the held-out pictures of a folder that has no test part.
        progress: Called with ``(done, total, what)`` as files are read.

    Raises:
        UnknownNameError: There is neither a data set nor a folder of this name.
        DataError: The data cannot be used; the message names the file or folder.
        OptionError: ``channels`` or ``size`` is not as above.

    >>> data = load("fashion-mnist-mini")
    >>> data.shape, len(data.train), len(data.test), data.classes[9]
    ((1, 28, 28), 10000, 2000, 'Ankle boot')
    """
    pictures.check_options(channels, size)
    report = progress or (lambda done, total, what: None)
    if isinstance(source, str) and source in BUNDLED:
        return _bundled(source, channels, size)
    with _naming(source):
        root = _folder(source)
        idx = any(_variants(root, name) for name in IDX_FILES)
    if idx:
        return _idx_folder(root, channels, size, report)
    return _class_folders(root, channels, size, seed, report)


@contextmanager
def _naming(source: str | os.PathLike[str]) -> Iterator[None]:
    """What the file system says while folders are listed, as a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or source}: it cannot be opened: {error.strerror}.") from None


def _folder(source: str | os.PathLike[str]) -> Path:
    root = Path(source).expanduser()
    if root.is_dir():
        return root
    if root.exists():
        raise DataError(f"{root}: this is a file, not a folder (unpack an archive first). {EXPECTED}")
    if isinstance(source, str) and root.name == source:
        raise unknown_name("data set or folder", source, BUNDLED)
    raise DataError(f"{root}: there is no such folder. {EXPECTED} Data sets known by name: {', '.join(BUNDLED)}.")


def _bundled(name: str, channels: int | None, size: tuple[int, int] | None) -> Dataset:
    with (resources.files("striate") / "data" / f"{name}.npz").open("rb") as file:
        held = np.load(file, allow_pickle=False)
        parts = [(held[f"{part}_images"][:, None], held[f"{part}_labels"]) for part in ("train", "test")]
        classes = tuple(map(str, held["classes"]))
    splits = [Split(torch.from_numpy(images), torch.from_numpy(labels).long()) for images, labels in parts]
    return Dataset(name, classes, *(_brought_to(split, channels, size) for split in splits))


def _brought_to(split: Split, channels: int | None, size: tuple[int, int] | None) -> Split:
    """The same grey pictures with this many channels (repeated) and this size."""
    images = split.inputs
    if size is not None and tuple(size) != tuple(images.shape[2:]):
        images = torch.stack([pictures.from_pillow(pictures.to_pillow(image), size=size) for image in images])
    return Split(images.repeat(1, 3, 1, 1) if channels == 3 else images, split.targets)


def read_idx(path: str | os.PathLike[str], axes: int) -> Tensor:
    """An IDX file of bytes, gzipped or not, as a uint8 tensor: the format of MNIST, Fashion-MNIST and EMNIST.

    Never holds more than the file does, whatever its header declares.

    Args:
        path: The file.
        axes: How many its header must have: 3 for images, 1 for labels.

    Raises:
        DataError: The file is not such a file, or holds more or less than its header declares.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     read_idx(f"{folder}/labels", axes=1).tolist()
    [7, 8, 9]
    """
    path = Path(path)
    with _unzipped(path) as stream:
        dims = _idx_header(path, stream.read(4 + 4 * axes), axes)
        declared = math.prod(dims)
        data = bytearray()
        while len(data) <= declared and (chunk := stream.read(min(1 << 20, declared + 1 - len(data)))):
            data += chunk
    if len(data) != declared:
        follow = f"only {len(data):,} follow" if len(data) < declared else "more than that follow"
        raise DataError(f"{path}: its header declares {'x'.join(map(str, dims))} = {declared:,} bytes; {follow}.")
    return torch.frombuffer(data, dtype=torch.uint8).view(dims)


@contextmanager
def _unzipped(path: Path) -> Iterator[BufferedIOBase]:
    """The bytes of a file, unzipped if they begin as gzip does (browsers unzip and keep the name, or the reverse)."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not zipped:
                yield file
                return
            with gzip.open(file) as stream:
                yield stream
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"damaged or cut short: {error}"
        raise DataError(f"{path}: it cannot be read: {str(reason).rstrip('.')}.") from None


def _idx_header(path: Path, head: bytes, axes: int) -> tuple[int, ...]:
    kind = {1: "labels", 3: "images"}.get(axes, "data")
    magic = bytes([0, 0, 8, axes])
    if head[:3] != magic[:3]:
        start = head[:4].hex(" ") or "nothing"
        raise DataError(
            f"{path}: not an IDX file of bytes: it begins with {start}; expected {magic.hex(' ')} ({kind})."
        )
    if head[3:4] != magic[3:]:
        found = head[3] if len(head) > 3 else "missing"
        raise DataError(f"{path}: the number of axes in its header is {found}; expected {axes} ({kind}).")
    if len(head) < 4 + 4 * axes:
        raise DataError(f"{path}: it ends after {len(head)} of the {4 + 4 * axes} bytes of its header.")
    dims = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4))
    if not all(dims):
        raise DataError(f"{path}: its header declares {'x'.join(map(str, dims))}, so it holds no {kind}.")
    return dims


def _variants(root: Path, name: str) -> list[Path]:
    """The IDX file of this official name: as it is, with the dot that some mirrors write, gzipped or not."""
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz")
    return [root / n for n in names if (root / n).is_file()]


def _idx_folder(root: Path, channels: int | None, size: tuple[int, int] | None, report: Progress) -> Dataset:
    found = {name: _variants(root, name) for name in IDX_FILES}
    if missing := [name for name, paths in found.items() if not paths]:
        raise DataError(f"{root}: IDX data is four files, and {', '.join(missing)} (or the same with .gz) is missing.")
    paths = [variants[0] for variants in found.values()]
    parts = []
    for path, axes in zip(paths, (3, 1, 3, 1), strict=True):
        parts.append(read_idx(path, axes))
        report(len(parts), len(paths), "reading IDX files")
    classes = _idx_classes(root, paths, parts)
    _compare_idx(paths, parts, resized=size is not None)
    splits = (Split(images[:, None], labels.long()) for images, labels in (parts[:2], parts[2:]))
    return Dataset(_name(root), classes, *(_brought_to(split, channels, size) for split in splits))


def _compare_idx(paths: Sequence[Path], parts: Sequence[Tensor], *, resized: bool) -> None:
    for i in (0, 2):
        if len(parts[i]) != len(parts[i + 1]):
            raise DataError(
                f"{paths[i]} holds {len(parts[i]):,} images, but {paths[i + 1]} holds {len(parts[i + 1]):,} labels; "
                "expected one label for each image."
            )
    train, test = (_by(part.shape[1:]) for part in (parts[0], parts[2]))
    if train != test and not resized:
        raise DataError(f"{paths[0]} holds images of {train}, but {paths[2]} of {test}. {ONE_SIZE}")


def _idx_classes(root: Path, paths: Sequence[Path], parts: Sequence[Tensor]) -> tuple[str, ...]:
    """Names from ``classes.txt``, or numbers up to the highest training label; and all labels are within them."""
    labels = parts[1].long()
    if (labels == labels[0]).all():
        raise DataError(
            f"{paths[1]}: all {len(labels):,} labels are {labels[0]}; a classifier needs at least 2 classes."
        )
    listed = root / "classes.txt"
    names = _listed_classes(listed) if listed.exists() else tuple(map(str, range(int(labels.max()) + 1)))
    source = f"the names in {listed.name}" if listed.exists() else "the training labels"
    for i in (1, 3):
        if wrong := _out_of_range(parts[i], len(names)):
            raise DataError(f"{paths[i]}: {wrong} by {source}.")
    return names


def _listed_classes(path: Path) -> tuple[str, ...]:
    """One name a line; empty lines do not count."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as UTF-8 text: {error}.") from None
    names = tuple(stripped for line in lines if (stripped := line.strip()))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: it names {', '.join(map(repr, twice))} more than once.")
    return names


def _out_of_range(labels: Tensor, classes: int) -> str | None:
    """What is wrong with the first label that names no class."""
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if not len(wrong):
        return None
    index = int(wrong[0])
    return (
        f"label {labels[index]} of image {index:,} (of {len(labels):,}, counted from 0) is out of range: "
        f"there are {classes} classes, 0 to {classes - 1}"
    )


def _name(root: Path) -> str:
    return root.resolve().name or str(root.resolve())


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _class_folders(
    root: Path, channels: int | None, size: tuple[int, int] | None, seed: int, report: Progress
) -> Dataset:
    """A data set from one folder of pictures for each class."""
    with _naming(root):
        parts = _listed(root, seed)
    classes = tuple(sorted(parts[0]))
    paths = [path for part in parts for name in classes for path in part.get(name, ())]
    labels = [label for part in parts for label, name in enumerate(classes) for _ in part.get(name, ())]
    images = _read_all(root, paths, channels, size, report)
    cut = sum(map(len, parts[0].values()))
    train, test = (Split(images[s], torch.tensor(labels)[s]) for s in (slice(cut), slice(cut, None)))
    return Dataset(_name(root), classes, train, test)


def _listed(root: Path, seed: int) -> tuple[ByClass, ByClass]:
    """The picture files of each class, to learn from and to test on."""
    first, second = _layout(root)
    train = _by_class(first)
    if empty := [name for name, paths in train.items() if not paths]:
        raise DataError(
            f"{first}: no pictures in the class folders {_quoted(empty)}. Add some or remove the folders; "
            f"a picture's name ends in {', '.join(pictures.EXTENSIONS)}."
        )
    if len(train) < 2:
        raise DataError(f"{first}: {_quoted(train)} is the only class folder; a classifier needs at least 2 classes.")
    if second is None:
        return _held_out(first, train, seed)
    test = {name: paths for name, paths in _by_class(second).items() if paths}
    if not test:
        raise DataError(f"{second}: no pictures in any class folder, so there is nothing to test on.")
    if strange := set(test) - set(train):
        raise DataError(f"{second}: {first} has no class folders {_quoted(strange)} to learn them from.")
    return train, test


def _layout(root: Path) -> tuple[Path, Path | None]:
    """The folder that holds the class folders to learn from, and the one of those to test on, if any.

    A folder called "train" is a class (of vehicles, say) where it has no folders in it but unusual neighbours.
    """
    folders = {folder.name.lower(): folder for folder in _subfolders(root)}
    second = next((folders[name] for name in HELD_OUT if name in folders), None)
    only_parts = folders.keys() <= {"train", *HELD_OUT}
    if "train" in folders and (only_parts or _subfolders(folders["train"])):
        return folders["train"], second
    if second is not None and only_parts:
        raise DataError(f"{root}: there is {second.name}/ but no train/ to learn from. {EXPECTED}")
    return root, None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _by_class(folder: Path) -> ByClass:
    found = {path.name: pictures.find(path) for path in _subfolders(folder)}
    if not found:
        loose = len(pictures.find(folder))
        rest = f", only loose pictures ({loose:,})" if loose else ""
        raise DataError(f"{folder}: there are no class folders in it{rest}. {EXPECTED}")
    return found


def _held_out(folder: Path, found: ByClass, seed: int) -> tuple[ByClass, ByClass]:
    """Moves one in six pictures of each class, at least one, to the test part."""

    def hashed(path: Path) -> bytes:
        return blake2b(f"{seed}/{path.relative_to(folder).as_posix()}".encode(errors="surrogateescape")).digest()

    if single := [name for name, paths in found.items() if len(paths) < 2]:
        raise DataError(
            f"{folder}: only one picture in the class folders {_quoted(single)}; each class needs at least 2, "
            "one to learn from and one to test on."
        )
    chosen = {path for paths in found.values() for path in sorted(paths, key=hashed)[: max(1, len(paths) // 6)]}
    train = {name: [path for path in paths if path not in chosen] for name, paths in found.items()}
    return train, {name: [path for path in paths if path in chosen] for name, paths in found.items()}


def _read_all(
    root: Path, paths: list[Path], channels: int | None, size: tuple[int, int] | None, report: Progress
) -> Tensor:
    """All pictures in one tensor. Headers come first, so that a mistake shows before minutes of decoding."""
    shapes = _shapes(paths, channels, size, report)
    errors = [shape for shape in shapes if isinstance(shape, DataError)]
    good = {path: shape for path, shape in zip(paths, shapes, strict=True) if not isinstance(shape, DataError)}
    if not good:
        raise _unreadable(root, errors, len(paths))
    height, width = size or _one_size(root, good)
    depth = channels or max(shape[0] for shape in good.values())
    images = _room(root, (len(paths), depth, height, width))

    def fill(place: tuple[int, Path]) -> None:
        picture = pictures.read(place[1], channels=depth, size=size)
        if picture.shape[1:] != (height, width):
            raise DataError(f"{place[1]}: it is {_by(picture.shape[1:])} once upright. {ONE_SIZE}")
        images[place[0]] = picture.numpy()

    places = [(i, path) for i, path in enumerate(paths) if path in good]
    errors += [outcome for outcome in _each(fill, places, "reading pictures", report) if outcome]
    if errors:
        raise _unreadable(root, errors, len(paths))
    return torch.from_numpy(images)


def _shapes(
    paths: list[Path], channels: int | None, size: tuple[int, int] | None, report: Progress
) -> list[tuple[int, int, int] | DataError]:
    """The shape of each picture: from its header, unless the options leave no question."""
    if channels and size:
        return [(channels, *size)] * len(paths)
    return _each(pictures.shape, paths, "checking pictures", report)


def _room(root: Path, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        return np.empty(shape, dtype=np.uint8)
    except MemoryError:
        raise DataError(
            f"{root}: {shape[0]:,} pictures of {_by(shape[1:])} need {math.prod(shape) / 1e9:.1f} GB of memory, "
            "more than there is. Give a smaller size."
        ) from None


def _one_size(root: Path, shapes: Mapping[Path, tuple[int, int, int]]) -> tuple[int, int]:
    """The ``(H, W)`` that all pictures have."""
    by_area = sorted(shapes, key=lambda path: (math.prod(shapes[path][1:]), shapes[path]))
    count = len({shape[1:] for shape in shapes.values()})
    if count > 1:
        small, large = by_area[0], by_area[-1]
        raise DataError(
            f"{root}: the pictures have {count} sizes, from {_by(shapes[small][1:])} ({small}) "
            f"to {_by(shapes[large][1:])} ({large}). {ONE_SIZE}"
        )
    return shapes[by_area[0]][1:]


def _each(
    work: Callable[[Item], Result], items: Sequence[Item], what: str, report: Progress
) -> list[Result | DataError]:
    """The outcome of each item, in order, worked out by a few threads (Pillow decodes without holding the GIL)."""

    def outcome(item: Item) -> Result | DataError:
        try:
            return work(item)
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    outcomes: list[Result | DataError] = []
    try:
        for results in pool.map(lambda chunk: [outcome(item) for item in chunk], chunks):
            outcomes += results
            report(len(outcomes), len(items), what)
    finally:
        pool.shutdown(cancel_futures=True)
    return outcomes


def _unreadable(root: Path, errors: Iterable[DataError], total: int) -> DataError:
    messages = sorted(map(str, errors))
    shown = "".join(f"\n  {message}" for message in messages[:LISTED])
    rest = f"\n  and {len(messages) - LISTED:,} more" if len(messages) > LISTED else ""
    return DataError(
        f"{root}: {len(messages):,} of {total:,} pictures cannot be used. Repair or remove them:{shown}{rest}"
    )
