"""Data sets: the bundled one, and what was found in folders, archives, index files and arrays, split and decoded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import arrays, decoding, hub, indexes, listings, series, shards
from . import images as pictures
from .arrays import Arrays, out_of_range, read_idx
from .decoding import Wanted
from .errors import DataError, OptionError, unknown_name
from .listings import EXPECTED, IDX_FILES, TEST, TRAIN, VALIDATION, Listing
from .members import Entry, File, Member, naming
from .moments import Normalisation
from .readers import AXES, EXTENSIONS, Reader, by, centred, kind_of
from .splits import IGNORED, Progress, Split, Stored
from .storage import Tree, at_home, tree, with_shards

__all__ = ["BUNDLED", "IDX_FILES", "Dataset", "Normalisation", "Split", "Stored", "check_images", "load", "read_idx"]

BUNDLED = ("fashion-mnist-mini",)
IDX_ENDINGS = ("-ubyte", "-ubyte.gz")
TABLES = (".ts", ".txt", *indexes.ENDINGS)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Inputs to learn from, and others of the same shape and classes to be judged by.

    Args:
        name: What it is called.
        classes: Their names, in the order of their numbers.
        train: What is learned from.
        test: What the outcome is judged by.
        validation: What choices during training are made by, if there is such a part.
        reader: How a file becomes an input, for prediction; None if nothing was read from files.
        task: "classes" if every input has one, "masks" if every pixel has.
        skipped: Messages about the files that were left out, each with its name.
        held_out: The parts that :func:`load` chose from examples that lay in no part, or in the training part.

    Raises:
        DataError: Fewer than two classes, inputs of two shapes, or a label that names no class.

    >>> part = Split(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    >>> Dataset("blank", ("cat", "dog"), train=part, test=part).shape
    (1, 8, 8)
    """

    name: str
    classes: tuple[str, ...]
    train: Split | Stored
    test: Split | Stored
    validation: Split | Stored | None = None
    reader: Reader | None = None
    task: str = "classes"
    skipped: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in ("classes", "masks"):
            raise OptionError(f"{self.name}: a data set's task is classes or masks, got task={self.task!r}.")
        if len(self.classes) < 2:
            raise DataError(f"{self.name}: a classifier needs at least 2 classes, got {len(self.classes)}.")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise DataError(f"{self.name}: the class {twice!r} is named more than once; each needs its own name.")
        for part, split in self.parts.items():
            if split.shape != self.shape or split.dtype != self.train.dtype:
                raise DataError(f"{self.name}: the shapes differ: train is {self.train!r}, {part} is {split!r}.")
            if wrong := _wrong_target(split, len(self.classes), self.task):
                raise DataError(f"{self.name}, {part}: {wrong}.")

    def __repr__(self) -> str:
        named = {"train": self.train, "test": self.test, "validation": self.validation}
        parts = "".join(f", {name}={split!r}" for name, split in named.items() if split is not None)
        return f"Dataset(name={self.name!r}, classes={self.classes!r}{parts})"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *spatial)`` of every input."""
        return self.train.shape

    @property
    def parts(self) -> dict[str, Split | Stored]:
        """The parts that there are, by name, in order."""
        found = {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}
        return {name: split for name, split in found.items() if split is not None}


def _wrong_target(split: Split | Stored, classes: int, task: str) -> str | None:
    targets = split.labels if isinstance(split, Stored) else split.targets
    if (task == "masks") != (not isinstance(targets, Tensor) or targets.dtype == torch.uint8):
        return f"its targets are {'classes' if task == 'masks' else 'masks'}, the task is {task}"
    if not isinstance(targets, Tensor):
        return None
    if task == "classes":
        return out_of_range(targets, classes, "image" if len(split.shape) == 3 else "input")
    highest = max((int(chunk[chunk != IGNORED].max(initial=0)) for chunk in targets.cpu().numpy()), default=0)
    if highest >= classes:
        return f"a mask holds {highest}; there are {classes} classes, 0 to {classes - 1}, and {IGNORED} is ignored"
    return None


def check_images(images: Tensor) -> None:
    """Raise a :class:`DataError` unless the tensor is uint8 ``(N, C, H, W)`` and has something in it.

    >>> check_images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or not images.numel():
        raise DataError(
            f"Images are a uint8 tensor (N, C, H, W) with nothing zero-sized, got {images.dtype} {tuple(images.shape)}."
        )


def load(
    source: str | os.PathLike[str],
    *,
    channels: int | None = None,
    size: int | tuple[int, ...] | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    stream: bool | None = None,
    validation: float = 0.0,
    progress: Progress | None = None,
) -> Dataset:
    """A data set by its name, or from its files. The result does not depend on the order of the file system.

    The layouts are a folder for each class, ``images/`` with ``masks/``, an index file (CSV, TSV, Parquet), shards of
    samples (``train-{000..009}.tar``), the IDX files of MNIST, arrays (NPZ, NPY), UCR and UEA series, ``hf:NAME`` of
    the Hugging Face hub, and the bundled "fashion-mnist-mini"; docs/data.md explains each. Files are pictures, sound
    files or volumes. A folder may also be a ``.zip`` or ``.tar`` archive, which is read in place, or a folder in one.

    With no test part, one in six examples of each class, and at least one, is held out: those with the smallest hash
    of ``seed`` and path, so few change sides when others come or go.

    Args:
        source: The name, or the path.
        channels: Of every input; of pictures 1 or 3, and None is 3 if any picture is coloured, else 1.
        size: The spatial size to bring every input to, one number for all axes or one for each: ``(H, W)`` for
            pictures, by the rule of :func:`striate.images.fit`; None if all have one.
        seed: Chooses the held-out examples.
        skip_bad: Leave out files that cannot be read, and keep their names in :attr:`Dataset.skipped`.
        stream: Leave the inputs in their files and decode them a batch at a time; None does so with what would take
            more than 2 GB, or a quarter of the free memory.
        validation: The share of the training part that becomes a validation part, if there is none.
        progress: Called with ``(done, total, what)`` as files are read.

    Raises:
        UnknownNameError: There is neither a data set nor a folder of this name.
        DataError: The data cannot be used; the message names the file or folder.
        OptionError: ``channels``, ``size`` or ``validation`` is not as above.

    >>> data = load("fashion-mnist-mini")
    >>> data.shape, len(data.train), len(data.test), data.classes[9]
    ((1, 28, 28), 10000, 2000, 'Ankle boot')
    """
    if not 0 <= validation < 1:
        raise OptionError(f"validation is a share of the training part, from 0 to below 1, got {validation!r}.")
    report = progress or (lambda done, total, what: None)
    found, wanted = _found(source, Wanted(channels, None, skip_bad, stream), size, report)
    if isinstance(found, Arrays):
        return from_arrays(found, wanted, seed, validation)
    decoded = decoding.decode(_settled(found, seed, validation, skip_bad), wanted, report)
    return _dataset(found, decoded.classes, decoded.parts, decoded.reader, decoded.skipped)


def _found(
    source: str | os.PathLike[str], wanted: Wanted, size: int | tuple[int, ...] | None, report: Progress
) -> tuple[Listing | Arrays, Wanted]:
    """What the source is, and what is wanted of it with a size for each axis that it has."""
    given = (size,) if isinstance(size, int) else size
    wanted = replace(wanted, size=None if given is None else tuple(given))
    is_bundled = isinstance(source, str) and source in BUNDLED
    found = bundled(str(source)) if is_bundled else look(source, wanted, report)
    if isinstance(size, int):
        wanted = replace(wanted, size=(size,) * AXES[found.kind])
    if is_bundled:
        pictures.check_options(wanted.channels, wanted.size)
    return found, wanted


def _settled(found: Listing, seed: int, validation: float, skip_bad: bool) -> Listing:
    """The listing with every example in a part; what is missing comes before what only seems wrong without it."""
    try:
        return listings.settle(found, seed, validation)
    except DataError:
        if found.missing and not skip_bad:
            raise decoding.unusable(found, found.missing) from None
        raise


def look(source: str | os.PathLike[str], wanted: Wanted, report: Progress, *, strict: bool = True) -> Listing | Arrays:
    """What lies at a place: arrays, or a list of files, of which none but index files has been opened.

    Args:
        source: A path.
        wanted: What is asked for; only what settles the meaning of arrays is looked at.
        report: Called with ``(done, total, what)``.
        strict: Refuse what cannot be learned from: class folders without files, series of several shapes.

    Raises:
        UnknownNameError: There is neither a data set nor a folder of this name.
        DataError: There is no data, or its layout is not known.
    """
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        return hub.hub_listing(source)
    root, file = _place(source, strict=strict and not wanted.skip_bad)
    return _in_files(source, root, file, wanted, report, strict) or _in_folders(root, wanted, strict)


def _in_files(
    source: str | os.PathLike[str], root: Tree, file: str | None, wanted: Wanted, report: Progress, strict: bool
) -> Listing | Arrays | None:
    """What the files directly in a folder say, or a table in it that is named; archives beside them do not matter."""
    if file is not None and file not in root.loose:
        raise DataError(f"{source}: files whose names begin with a dot are left out; rename it.")
    if file is not None and indexes.is_index(root.loose[file]):
        return _indexed(root, {file: root.loose[file]})
    if file is None and (found := _of_arrays(root, wanted, report, strict=strict)):
        return found
    if file is None and (tables := indexes.index_files(root)):
        return _indexed(root, tables)
    if timed := series.series_files(root, file or ""):
        decoding.check_options("series", wanted, files=False)
        return series.series_arrays(root, timed, wanted.size, skip_bad=wanted.skip_bad, strict=strict)
    if file is not None:
        raise DataError(f"{source}: {series.ALONE if file.lower().endswith('.ts') else indexes.EXPECTED}")
    return None


def _indexed(root: Tree, tables: Mapping[str, Entry]) -> Listing:
    """The files that tables name; archives are looked into if there are some that lie nowhere else."""
    found = indexes.index_listing(root, tables)
    if not found.missing or not root.ending(".tar"):
        return found
    whole = with_shards(root, strict=False)
    found = indexes.index_listing(whole, tables)
    return replace(found, missing=(*found.missing, *whole.damaged)) if found.missing else found


def _in_folders(root: Tree, wanted: Wanted, strict: bool) -> Listing:
    """What the folders in a folder are, and the archives, which are read as such."""
    root = with_shards(root, strict=strict and not wanted.skip_bad)
    found = shards.sample_listing(root) or listings.mask_pairs(root)
    if found is None:
        if kind_of(root.files) is None:
            _refuse_sets_within(root)
        arrays.refuse_names(root)
        try:
            found = _class_folders(root, strict)
        except DataError:
            if root.damaged:
                raise DataError(root.damaged[0]) from None
            raise
    return replace(found, missing=(*found.missing, *root.damaged))


def _class_folders(root: Tree, strict: bool) -> Listing:
    """A folder or an archive for each class, but none beside the other, where one could be a copy."""
    mixed = _mixed(root)
    if strict and mixed:
        raise DataError(mixed)
    found = listings.class_folders(root, strict=strict)
    return replace(found, refused=found.refused or mixed)


def _mixed(root: Tree) -> str:
    """Why an archive may hold examples that lie beside it once more; empty if none does. Parts may be of both sorts."""
    beside: dict[str, dict[str, Entry]] = {}
    examples = root.ending(*EXTENSIONS[kind_of(root.files) or "picture"]) if root.shards else []
    packed = {file.archive for file in examples if isinstance(file, Member)}
    for file in examples:
        *folders, _ = root.below(file).split("/")
        for depth, name in enumerate([*folders, ""] if folders and isinstance(file, File) else ()):
            beside.setdefault("/".join(folders[:depth]), {}).setdefault(name, file)
    for shard, archive in root.shards.items():
        folder, _, own = shard.rpartition("/")
        for name, file in beside.get(folder, {}).items() if archive in packed else ():
            if not (listings.part_called(own) and listings.part_called(name)):
                return (
                    f"{archive}: examples that are not packed lie beside it ({file}), and it may hold them once more. "
                    f"Move it away, or give it alone: {archive}"
                )
    return ""


def _refuse_sets_within(root: Tree) -> None:
    """Raise a :class:`DataError` if the folders in it are data sets of series or IDX files, of which one is meant."""
    folders = root.children.values()
    if found := [folder.where for folder in folders if series.series_files(folder) or arrays.has_idx(folder)]:
        raise DataError(
            f"{root.where}: the folders in it are data sets of their own; give one of them:{listings.shown(found)}"
        )


def _of_arrays(root: Tree, wanted: Wanted, report: Progress, *, strict: bool) -> Arrays | None:
    """IDX files, or arrays of NumPy."""
    found = arrays.idx_folder(root, wanted.size is not None or not strict, report)
    return found or arrays.numpy_files(root, wanted.channels)


def _place(source: str | os.PathLike[str], *, strict: bool) -> tuple[Tree, str | None]:
    """The folder or archive; and the name of a table in it, if that is the source."""
    path = at_home(source)
    with naming(source):
        table = path.name.lower().endswith(TABLES) and path.is_file()
        if path.name.lower().endswith(IDX_ENDINGS) and path.is_file():
            raise DataError(
                f"{path}: one IDX file is images or labels; give the folder that holds all four: {path.parent}"
            )
        if path.suffix.lower() == ".npy" and path.is_file():
            raise DataError(
                f"{path}: one array is inputs or targets; give the folder that holds both, x.npy and y.npy."
            )
    return (_tree(path.parent, strict), path.name) if table else (_tree(source, strict), None)


def _tree(source: str | os.PathLike[str], strict: bool) -> Tree:
    root = at_home(source)
    with naming(source):
        there = any(one.exists() for one in (root, *root.parents[:-1])) and _reached(root)
    if there or "{" in str(source):
        return tree(source, strict=strict, shards=False)
    if isinstance(source, str) and root.name == source:
        raise unknown_name("data set or folder", source, BUNDLED)
    raise DataError(f"{root}: there is no such folder. {EXPECTED} Data sets known by name: {', '.join(BUNDLED)}.")


def _reached(path: Path) -> bool:
    """Whether there is such a file or folder, or a file on the way, which may be an archive."""
    return path.exists() or any(one.is_file() for one in path.parents)


def bundled(name: str) -> Arrays:
    """A data set that comes with the package."""
    with (resources.files("striate") / "data" / f"{name}.npz").open("rb") as file:
        held = np.load(file, allow_pickle=False)
        parts: dict[str | None, tuple[Tensor, Tensor]] = {
            part: (torch.from_numpy(held[f"{part}_images"][:, None]), torch.from_numpy(held[f"{part}_labels"]).long())
            for part in (TRAIN, TEST)
        }
        return Arrays(name, name, "picture", tuple(map(str, held["classes"])), parts, layout="bundled")


def from_arrays(found: Arrays, wanted: Wanted, seed: int, validation: float) -> Dataset:
    """The data set of some arrays, split if they are not.

    Raises:
        DataError: The arrays cannot be brought to what is wanted.
        OptionError: What is wanted does not fit this kind.
    """
    if wanted.stream:
        raise OptionError(f"{found.where}: stream=True is for data sets of files; {found.layout} are read into memory.")
    decoding.check_options(found.kind, wanted, files=False)
    check_learnable(found)
    parts = _assigned(
        found, {name: _brought_to(found, Split(*pair), wanted) for name, pair in found.parts.items()}, seed, validation
    )
    shape = parts[TRAIN].shape
    dtype = str(parts[TRAIN].dtype).removeprefix("torch.")
    kind = "series" if found.kind == "picture" and dtype != "uint8" else found.kind
    reader = Reader(kind, shape, dtype=dtype) if len(shape) == AXES[kind] + 1 else None
    return _dataset(found, found.classes, parts, reader, found.missing)


def check_learnable(found: Arrays) -> None:
    """Raise a :class:`DataError` if a class has a single example to be split, or none to learn from."""
    classes = found.classes if found.task == "classes" else None
    labels = {part: y.tolist() if classes else [0] * len(y) for part, (_, y) in found.parts.items()}
    if not {TEST, VALIDATION} & labels.keys():
        listings.refuse_single(
            found.where, "example in the classes", classes, [one for y in labels.values() for one in y]
        )
    elif classes:
        listings.refuse_unlearned(found.where, classes, _labels(found), labels.get(TRAIN, []))


def _assigned(found: Arrays, splits: Mapping[str | None, Split], seed: int, validation: float) -> dict[str, Split]:
    """The parts that :func:`striate.listings.assigned` puts the rows of arrays into; their names are their numbers."""
    classes = found.classes if found.task == "classes" else None
    labels = [label for split in splits.values() for label in (split.targets.tolist() if classes else [0] * len(split))]
    given = [part for part, split in splits.items() for _ in range(len(split))]
    names = [str(row) for split in splits.values() for row in range(len(split))]
    parts = iter(listings.assigned(found.where, given, labels, names, seed, validation))
    chosen: dict[str, Split] = {}
    for split in splits.values():
        rows: dict[str, list[int]] = {}
        for row in range(len(split)):
            rows.setdefault(next(parts), []).append(row)
        chosen |= {part: split if len(one) == len(split) else split.select(one) for part, one in rows.items()}
    return chosen


def _brought_to(found: Arrays, split: Split, wanted: Wanted) -> Split:
    """The same inputs with this many channels and this size; pictures are scaled, others cropped or padded."""
    inputs, size = split.inputs, wanted.size
    channels = wanted.channels or split.shape[0]
    if (channels, *(size or split.shape[1:])) == split.shape:
        return split
    if found.task == "masks":
        raise DataError(f"{found.where}: its inputs are {by(split.shape)}; arrays with masks keep their size.")
    if found.kind == "picture" and split.dtype == torch.uint8 and {channels, split.shape[0]} <= {1, 3}:
        if (size or split.shape[1:]) != split.shape[1:] or channels < split.shape[0]:
            inputs = torch.stack([_redrawn(picture, channels, size or split.shape[1:]) for picture in inputs])
        return Split(inputs.repeat(1, 3, 1, 1) if channels > inputs.shape[1] else inputs, split.targets)
    if channels != split.shape[0]:
        raise DataError(f"{found.where}: its inputs have {split.shape[0]} channels; channels={channels} was asked for.")
    if found.kind == "picture":
        raise DataError(
            f"{found.where}: its inputs are {by(split.shape)} {split.dtype}; only uint8 pictures are scaled."
        )
    return Split(torch.stack([centred(one, size or split.shape[1:]) for one in inputs]), split.targets)


def _redrawn(picture: Tensor, channels: int, size: tuple[int, ...]) -> Tensor:
    return pictures.from_pillow(pictures.to_pillow(picture), channels=channels, size=(size[0], size[1]))


def _dataset(
    found: Listing | Arrays,
    classes: tuple[str, ...],
    parts: Mapping[str, Split | Stored],
    reader: Reader | None,
    skipped: tuple[str, ...],
) -> Dataset:
    if TRAIN not in parts or TEST not in parts:
        lacking = TEST if TRAIN in parts else TRAIN
        raise DataError(f"{found.name}: nothing is left in its {lacking} part.")
    data = Dataset(
        name=found.name,
        classes=classes,
        train=parts[TRAIN],
        test=parts[TEST],
        validation=parts.get(VALIDATION),
        reader=reader,
        task=found.task,
        skipped=skipped,
        held_out=_held_out(found, parts),
    )
    if found.task == "classes":
        listings.refuse_unlearned(found.where, classes, _labels(found), data.train.targets.tolist(), skipped)
    return data


def _held_out(found: Listing | Arrays, parts: Mapping[str, Split | Stored]) -> tuple[str, ...]:
    """The parts that :func:`striate.listings.assigned` had to make; a validation part alone became the test part."""
    given = found.parts.keys() if isinstance(found, Arrays) else {e.part for e in found.examples}
    own = {TEST, VALIDATION} & given
    made = {VALIDATION: len(own) < 2, TEST: not own}
    return tuple(part for part in parts if made.get(part))


def _labels(found: Listing | Arrays) -> set[int]:
    """The classes that occur, before anything is left out."""
    if isinstance(found, Arrays):
        return {label for _, targets in found.parts.values() for label in targets.tolist()}
    return {e.target for e in found.examples if isinstance(e.target, int)}
