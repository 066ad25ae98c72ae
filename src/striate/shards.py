"""Shards: samples of several files with one name, as WebDataset lays them in tar archives; read in place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from .errors import DataError
from .listings import Example, Listing, listed_classes, numbered, part_among, part_of
from .members import Entry, Member
from .readers import EXTENSIONS
from .storage import Tree

MASKS = ("seg.png", "mask.png")
LABELS = ("cls", "json", "txt")  # a .txt is often a caption
KEYS = ("label", "class", "cls", "target")

Sample = Mapping[str, Sequence[Entry]]


def sample_listing(root: Tree) -> Listing | None:
    """Samples whose files have one name up to its first dot, with the class or mask beside the input.

    Inputs are pictures, sound files or volumes by their endings. The class is a number or name in ``.cls``, under
    "label" in ``.json``, or in ``.txt``; a mask is ``.seg.png`` or ``.mask.png``. The names of the archives say the
    parts.

    Returns:
        None, if nothing says that the files are samples.

    Raises:
        DataError: A class is none of those in ``classes.txt``.
    """
    samples = _samples(root)
    kind = _kind(samples)
    if kind is None or not _are_samples(root, samples, kind):
        return None
    masks = any(mask in sample for sample in samples.values() for mask in MASKS)
    found: list[tuple[Entry, Entry | str, str | None]] = []
    missing: list[str] = []
    for key, sample in samples.items():
        try:
            pair = _pair(sample, kind, MASKS if masks else LABELS)
            said = None if pair is None else pair[1] if masks else _label(pair[1])
        except DataError as error:
            missing.append(str(error))
            continue
        if pair is not None and said is not None:
            found.append((pair[0], said, _part(root, key)))
    listed = listed_classes(root)
    if masks:
        examples, classes = [Example(file, mask, part) for file, mask, part in found if isinstance(mask, Entry)], listed
    else:
        labels, classes = numbered(root.where, [str(label) for _, label, _ in found], listed)
        examples = [Example(row[0], label, row[2]) for row, label in zip(found, labels, strict=True)]
    return Listing(
        *(root.name, root.where, kind, tuple(examples), classes or (), "masks" if masks else "classes"),
        prefix=root.prefix,
        missing=tuple(missing),
        layout="samples of files with one name (WebDataset)",
    )


def _samples(root: Tree) -> dict[str, dict[str, list[Entry]]]:
    """The files by the name of their sample and by their ending; there should be one of each."""
    found: dict[str, dict[str, list[Entry]]] = {}
    for file in root.files:
        folder, slash, name = root.below(file).rpartition("/")
        key, _, ending = name.partition(".")
        found.setdefault(f"{folder}{slash}{key}", {}).setdefault(ending.lower(), []).append(file)
    return found


def _pair(sample: Sample, kind: str, names: Sequence[str]) -> tuple[Entry, Entry] | None:
    """The input of a sample and the file that says its target; None if it has nothing to do with either.

    Raises:
        DataError: One of them is missing, or there are several.
    """
    inputs = _inputs(sample, kind)
    targets = next((sample[name] for name in names if name in sample), [])
    if not inputs:
        if lone := [file for name in ("cls", *MASKS) for file in sample.get(name, ())]:
            raise DataError(f"{lone[0]}: there is no {kind} beside it.")
        return None
    if len(inputs) > 1:
        raise DataError(f"{inputs[0]}: the sample has {len(inputs)} inputs, {', '.join(map(_ending, inputs))}.")
    if len(targets) != 1:
        beside = " or ".join(f".{name}" for name in names)
        there = f"are {len(targets)} {_ending(targets[0])}" if targets else f"is no {beside}"
        raise DataError(f"{inputs[0]}: there {there} beside it.")
    return inputs[0], targets[0]


def _kind(samples: Mapping[str, Sample]) -> str | None:
    counts = Counter(
        kind for sample in samples.values() for kind in ("picture", "signal", "volume") if _inputs(sample, kind)
    )
    return counts.most_common(1)[0][0] if counts else None


def _inputs(sample: Sample, kind: str) -> list[Entry]:
    endings = [name for name in sample if f".{name}".endswith(EXTENSIONS[kind]) and name not in MASKS]
    return [file for name in endings for file in sample[name]]


def _are_samples(root: Tree, samples: Mapping[str, Sample], kind: str) -> bool:
    """Whether there is a ``.cls`` or a mask; or in a tar, any file that can say a class beside an input."""
    plain = any(name in sample for sample in samples.values() for name in ("cls", *MASKS))
    packed = any(isinstance(file, Member) and file.packed is None for file in root.files)
    return plain or (packed and any(_inputs(s, kind) and any(name in s for name in LABELS) for s in samples.values()))


def _ending(file: Entry) -> str:
    return "." + file.name.rpartition("/")[2].partition(".")[2]


def _part(root: Tree, key: str) -> str | None:
    """The part that the way to an archive speaks of, or that a folder is called."""
    way, inner = root.name if root.archive else "", key.split("/")[:-1]
    for depth in range(len(inner), 0, -1) if not root.archive else ():
        if root.prefix + "/".join(inner[:depth]) in root.shards:
            way, inner = "/".join(inner[:depth]), inner[depth:]
            break
    return part_of(way) or part_among(inner, f"{root.where}, {key}")


def _label(file: Entry) -> str:
    """The class that a file of a sample says."""
    content = file.read(1 << 20)
    try:
        text: object = content.decode("utf-8-sig")
        if file.name.lower().endswith(".json"):
            values = json.loads(str(text))
            text = next(values[key] for key in KEYS if key in values)
    except (ValueError, TypeError, RecursionError, StopIteration) as error:
        said = str(error) or f"it has none of {', '.join(KEYS)}"
        raise DataError(f"{file}: it says no class: {said}.") from None
    return class_name(file, text)


def class_name(where: object, said: object) -> str:
    r"""A class as it is called: text, or a whole number.

    Raises:
        DataError: It is neither, empty, or several lines.

    >>> class_name("a", " cat\n"), class_name("a", 7)
    ('cat', '7')
    """
    name = str(said).strip() if isinstance(said, str) or type(said) is int else ""
    if not name or "\n" in name:
        raise DataError(f"{where}: it says no class: expected one line of text or a whole number, got {said!r:.40}.")
    return name
