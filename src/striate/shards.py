"""Shards: samples of several files with one name, as WebDataset lays them in tar archives; read in place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from .errors import DataError
from .listings import Example, Listing, listed_classes, numbered, part_of
from .readers import EXTENSIONS
from .storage import Entry, Member, Tree

MASKS = ("seg.png", "mask.png")
LABELS = ("cls", "txt", "json")
KEYS = ("label", "class", "cls", "target")

Sample = Mapping[str, Entry]


def sample_listing(root: Tree) -> Listing | None:
    """Samples whose files have one name up to its first dot, with the class or mask beside the input.

    Inputs are pictures, sound files or volumes by their endings. The class is a number or name in ``.cls`` or
    ``.txt``, or under "label" in ``.json``; a mask is ``.seg.png`` or ``.mask.png``. The names of the archives say
    the parts.

    Returns:
        None, if nothing says that the files are samples.

    Raises:
        DataError: A class cannot be read.
    """
    samples = _samples(root)
    kind = _kind(samples)
    if kind is None or not _are_samples(root, samples, kind):
        return None
    masks = any(mask in sample for sample in samples.values() for mask in MASKS)
    found: list[tuple[Entry, Entry, str | None]] = []
    missing: list[str] = []
    for key, sample in samples.items():
        inputs = _inputs(sample, kind)
        targets = [sample[name] for name in (MASKS if masks else LABELS) if name in sample]
        if len(inputs) > 1:
            missing.append(f"{inputs[0]}: the sample has {len(inputs)} inputs, {', '.join(map(_ending, inputs))}.")
        elif inputs and not targets:
            beside = " or ".join(f".{name}" for name in (MASKS if masks else LABELS))
            missing.append(f"{inputs[0]}: there is no {beside} beside it.")
        elif inputs:
            found.append((inputs[0], targets[0], _part(root, key)))
    listed = listed_classes(root)
    if masks:
        examples, classes = [Example(*row) for row in found], listed or ()
    else:
        labels, classes = numbered(root.where, [_label(target) for _, target, _ in found], listed)
        examples = [Example(row[0], label, row[2]) for row, label in zip(found, labels, strict=True)]
    return Listing(
        *(root.name, root.where, kind, tuple(examples), classes, "masks" if masks else "classes"),
        prefix=root.prefix,
        missing=tuple(missing),
        layout="samples of files with one name (WebDataset)",
    )


def _samples(root: Tree) -> dict[str, dict[str, Entry]]:
    found: dict[str, dict[str, Entry]] = {}
    for file in root.files:
        folder, slash, name = root.below(file).rpartition("/")
        key, _, ending = name.partition(".")
        found.setdefault(f"{folder}{slash}{key}", {})[ending.lower()] = file
    return found


def _kind(samples: Mapping[str, Sample]) -> str | None:
    counts = Counter(
        kind for sample in samples.values() for kind in ("picture", "signal", "volume") if _inputs(sample, kind)
    )
    return counts.most_common(1)[0][0] if counts else None


def _inputs(sample: Sample, kind: str) -> list[Entry]:
    return [file for name, file in sample.items() if f".{name}".endswith(EXTENSIONS[kind]) and name not in MASKS]


def _are_samples(root: Tree, samples: Mapping[str, Sample], kind: str) -> bool:
    """Whether there is a ``.cls`` or a mask; or in a tar, any file that can say a class beside an input."""
    plain = any(name in sample for sample in samples.values() for name in ("cls", *MASKS))
    packed = any(isinstance(file, Member) and file.packed is None for file in root.files)
    return plain or (packed and any(_inputs(s, kind) and any(name in s for name in LABELS) for s in samples.values()))


def _ending(file: Entry) -> str:
    return "." + file.name.rpartition("/")[2].partition(".")[2]


def _part(root: Tree, key: str) -> str | None:
    return part_of(root.name) if root.archive else part_of(key.rpartition("/")[0])


def _label(file: Entry) -> str:
    """The class that a file of a sample says."""
    content = file.read(1 << 20)
    try:
        text = content.decode("utf-8").strip()
        if file.name.lower().endswith(".json"):
            values = json.loads(text)
            text = str(next(values[key] for key in KEYS if key in values))
    except (ValueError, TypeError, RecursionError, StopIteration) as error:
        said = str(error) or f"it has none of {', '.join(KEYS)}"
        raise DataError(f"{file}: it says no class: {said}.") from None
    if not text or "\n" in text:
        raise DataError(f"{file}: it says no class: expected one line of text, got {content[:40]!r}.")
    return text
