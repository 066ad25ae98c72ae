"""Listings: every layout of labelled files becomes the same value, a list of files with their targets and parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TypeVar

from .errors import DataError
from .readers import EXTENSIONS, counted, kind_of
from .storage import Entry, Tree

TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
HELD_OUT = ("test", "validation", "valid", "val")
IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "annotations")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EXPECTED = (
    "Expected a folder for each class with its pictures (cat/1.png, dog/1.png), these under train/ and test/ "
    f"if they are already split, or the four IDX files {', '.join(IDX_FILES)} (each may end in .gz)."
)
LISTED = 10
PART = re.compile(r"(?<![a-z])(?:(train|training)|(val|valid|validation|dev|eval)|(test|testing))(?![a-z])")

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled file.

    Args:
        source: The input.
        target: The number of its class, or the file of its mask.
        part: "train", "validation" or "test"; None if the layout does not say.
    """

    source: Entry
    target: int | Entry
    part: str | None = None


@dataclass(frozen=True, eq=False)
class Listing:
    """All labelled files of a data set, before one of them is opened.

    Args:
        name: What the data set is called.
        where: What messages call its place.
        kind: "picture", "signal" or "volume".
        examples: Sorted by part, class and name, or as the index file has them.
        classes: Their names, in order; empty for masks that no file names the classes of.
        task: "classes" or "masks".
        groups: What messages call the classes.
        prefix: What the names of files to hold out begin with, which does not choose among them.
        held_from: What messages call the place of these.
        missing: Messages about files that are named but not there, or that lack their mate.
        layout: In words.
    """

    name: str
    where: str
    kind: str
    examples: tuple[Example, ...] = field(repr=False)
    classes: tuple[str, ...]
    task: str = "classes"
    groups: str = "classes"
    prefix: str = ""
    held_from: str = ""
    missing: tuple[str, ...] = ()
    layout: str = ""

    def part(self, name: str | None) -> list[Example]:
        """The examples of one part."""
        return [example for example in self.examples if example.part == name]


def class_folders(root: Tree, *, strict: bool = True) -> Listing:
    """A folder for each class, these in folders for each part if there are any.

    Args:
        root: The place.
        strict: Refuse what cannot be learned from: a class without files, a single class, or one that ``train`` lacks.

    Raises:
        DataError: There are no class folders.
    """
    kind = kind_of(root.files) or "picture"
    parts = _parts(root)
    found = {part: _by_class(folder, kind) for part, folder in parts.items()}
    if strict:
        _check_folders(parts, found, kind)
    names = sorted({name for classes in found.values() for name in classes} if not strict else found[TRAIN])
    order = {name: label for label, name in enumerate(names)}
    split = len(parts) > 1
    examples = [
        Example(file, order[name], part if split else None)
        for part in PARTS
        for name, files in found.get(part, {}).items()
        for file in files
    ]
    return Listing(
        *(root.name, root.where, kind, tuple(examples), tuple(names)),
        groups="class folders",
        prefix=parts[TRAIN].prefix,
        held_from=parts[TRAIN].where,
        layout="a folder for each class" + (f" under {', '.join(f'{part}/' for part in parts)}" if split else ""),
    )


def _parts(root: Tree) -> dict[str, Tree]:
    """The folders that hold the class folders of each part; a whole without parts is all "train".

    A folder called "train" is a class (of vehicles, say) where it has no folders in it but unusual neighbours.
    """
    folders = {name.lower(): folder for name, folder in root.children.items()}
    held = [folders[name] for name in HELD_OUT if name in folders]
    only_parts = folders.keys() <= {TRAIN, *HELD_OUT}
    if TRAIN in folders and (only_parts or folders[TRAIN].children):
        found = {TRAIN: folders[TRAIN]} | ({TEST: held[0]} if held else {})
        if TEST in folders and len(held) > 1:
            found[VALIDATION] = held[1]
        return found
    if held and only_parts:
        name = held[0].folder
        raise DataError(f"{root.where}: there is {name}/ but no train/ to learn from. {EXPECTED}")
    return {TRAIN: root}


def _by_class(folder: Tree, kind: str) -> dict[str, list[Entry]]:
    if not folder.children:
        loose = len(folder.ending(*EXTENSIONS[kind]))
        rest = f", only loose {kind}s ({loose:,})" if loose else ""
        raise DataError(f"{folder.where}: there are no class folders in it{rest}. {EXPECTED}")
    return {name: child.ending(*EXTENSIONS[kind]) for name, child in folder.children.items()}


def _check_folders(parts: Mapping[str, Tree], found: Mapping[str, Mapping[str, Sequence[Entry]]], kind: str) -> None:
    first, train = parts[TRAIN].where, found[TRAIN]
    if empty := [name for name, files in train.items() if not files]:
        raise DataError(
            f"{first}: no {kind}s in the class folders {quoted(empty)}. Add some or remove the folders; "
            f"a {kind}'s name ends in {', '.join(EXTENSIONS[kind])}."
        )
    if len(train) < 2:
        raise DataError(f"{first}: {quoted(train)} is the only class folder; a classifier needs at least 2 classes.")
    for part in (TEST, VALIDATION):
        if part not in parts:
            continue
        second, others = parts[part].where, {name for name, files in found[part].items() if files}
        if not others:
            raise DataError(f"{second}: no {kind}s in any class folder, so there is nothing to test on.")
        if strange := others - set(train):
            raise DataError(f"{second}: {first} has no class folders {quoted(strange)} to learn them from.")


def mask_pairs(root: Tree) -> Listing | None:
    """Pictures under ``images/`` and masks of the same names under ``masks/``; None if the layout is another.

    The parts are folders above or below these two.
    """
    pairs: list[tuple[str | None, Tree, Tree]] = []
    for part, folder in [(None, root), *((part_of(name), child) for name, child in root.children.items())]:
        both = [_first(folder, names) for names in (IMAGES, MASKS)]
        if both[0] is not None and both[1] is not None and (folder is root or part is not None):
            pairs.append((part, both[0], both[1]))
    if not pairs:
        return None
    examples: list[Example] = []
    missing: list[str] = []
    for part, images, masks in pairs:
        _match(part, images, masks, examples, missing)
    examples.sort(key=lambda e: (PARTS.index(e.part) if e.part else 0, e.source.name))
    layout = f"{pairs[0][1].folder}/ with {pairs[0][2].folder}/"
    classes = listed_classes(root) or ()
    return Listing(
        *(root.name, root.where, "picture", tuple(examples), classes, "masks"),
        prefix=root.prefix,
        missing=tuple(missing),
        layout=layout,
    )


def _first(folder: Tree, names: Iterable[str]) -> Tree | None:
    found = {name.lower(): child for name, child in folder.children.items()}
    return next((found[name] for name in names if name in found), None)


def _match(part: str | None, images: Tree, masks: Tree, examples: list[Example], missing: list[str]) -> None:
    """Add the pairs of two folders, and a message for each file without a mate."""
    mates: dict[str, list[Entry]] = {}
    for mask in masks.ending(*EXTENSIONS["picture"]):
        mates.setdefault(_stem(masks.below(mask)), []).append(mask)
    for image in images.ending(*EXTENSIONS["picture"]):
        stem = _stem(images.below(image))
        found = mates.pop(stem, [])
        if len(found) == 1:
            inner = part_of(stem.split("/")[0]) if "/" in stem and part is None else part
            examples.append(Example(image, found[0], inner))
        else:
            missing.append(
                f"{image}: {counted(len(found), 'file') if found else 'no file'} of its name in {masks.where}."
            )
    missing += [f"{mask}: no file of its name in {images.where}." for left in mates.values() for mask in left]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def part_of(name: str) -> str | None:
    """The part that a name speaks of.

    >>> part_of("train-0001"), part_of("imagenet_val"), part_of("Test"), part_of("trainstation")
    ('train', 'validation', 'test', None)
    """
    found = PART.search(name.lower())
    return None if found is None else next(part for part, text in zip(PARTS, found.groups(), strict=True) if text)


def listed_classes(root: Tree) -> tuple[str, ...] | None:
    """The names in the file ``classes.txt``, one a line; empty lines do not count. None if there is no such file.

    Raises:
        DataError: It is no text, or names a class twice.
    """
    file = root.loose.get("classes.txt")
    if file is None:
        return None
    try:
        lines = file.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: it cannot be read as UTF-8 text: {error}.") from None
    names = tuple(stripped for line in lines if (stripped := line.strip()))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file}: it names {', '.join(map(repr, twice))} more than once.")
    return names


def numbered(where: str, labels: Sequence[str], listed: tuple[str, ...] | None) -> tuple[list[int], tuple[str, ...]]:
    """Texts that say classes as numbers, with the classes' names.

    Whole numbers count the names in ``classes.txt``, if there is one; else they are names, in their own order.
    Other texts are names, in the order of ``classes.txt`` or the alphabet.

    Raises:
        DataError: A text is none of the listed names.

    >>> numbered("a", ["dog", "cat"], None), numbered("a", ["10", "9"], None), numbered("a", ["1"], ("cat", "dog"))
    (([1, 0], ('cat', 'dog')), ([1, 0], ('9', '10')), ([1], ('cat', 'dog')))
    """
    whole = all(label.isdecimal() for label in labels)
    names = listed or tuple(sorted(set(labels), key=int if whole else str))
    by_number = whole and listed is not None and not set(labels) <= set(listed)
    order = {str(n) if by_number else name: n for n, name in enumerate(names)}
    if unknown := set(labels) - set(order):
        raise DataError(f"{where}: classes.txt has no classes {quoted(unknown)}; it has {', '.join(names)}.")
    return [order[label] for label in labels], names


def settle(listing: Listing, seed: int, validation: float = 0.0) -> Listing:
    """The same listing with every example in a part: what no layout split is split here, by a hash of the names.

    With no test part, the validation part becomes it; with neither, one in six of each class, and at least one, is
    held out. A share ``validation`` of what is left to train on is held out likewise, if there is no such part.

    Raises:
        DataError: A class has a single example.
    """
    parts = {example.part for example in listing.examples}
    found = listing
    if TEST not in parts:
        if VALIDATION in parts:
            found = _renamed(found, {VALIDATION: TEST})
        else:
            _refuse_single(found)
            found = _hold_out(found, TEST, 1 / 6, f"{seed}/")
    found = _renamed(found, {None: TRAIN})
    _refuse_unlearned(found)
    if validation and VALIDATION not in {example.part for example in found.examples}:
        found = _hold_out(found, VALIDATION, validation, f"{seed}/validation/")
    return replace(found, examples=tuple(sorted(found.examples, key=lambda e: PARTS.index(e.part or TRAIN))))


def _renamed(listing: Listing, names: Mapping[str | None, str]) -> Listing:
    return replace(listing, examples=tuple(replace(e, part=names.get(e.part, e.part)) for e in listing.examples))


def _hold_out(listing: Listing, part: str, share: float, salt: str) -> Listing:
    """Moves a share of the training examples of each class to another part."""
    names = [e.source.name.removeprefix(listing.prefix) for e in listing.examples]
    rows = [i for i, e in enumerate(listing.examples) if e.part in (None, TRAIN)]
    labels = [e.target if isinstance(e.target, int) else 0 for e in listing.examples]
    chosen = set(held_out({i: names[i] for i in rows}, {i: labels[i] for i in rows}, share, salt))
    examples = [replace(e, part=part) if i in chosen else e for i, e in enumerate(listing.examples)]
    return replace(listing, examples=tuple(examples))


def held_out(names: Mapping[Key, str], labels: Mapping[Key, int], share: float, salt: str) -> list[Key]:
    """The share of each class, at least one, whose names have the smallest hashes.

    >>> names = {i: f"{i}.png" for i in range(12)}
    >>> len(held_out(names, dict.fromkeys(names, 0), 1 / 6, "0/"))
    2
    """
    groups: dict[int, list[Key]] = {}
    for key in names:
        groups.setdefault(labels[key], []).append(key)

    def hashed(key: Key) -> bytes:
        return blake2b(f"{salt}{names[key]}".encode(errors="surrogateescape")).digest()

    # The sum is for shares such as 0.29, of which 100 times is a little less than 29.
    counts = {label: max(1, int(len(keys) * share + 1e-9)) for label, keys in groups.items()}
    return [key for label, keys in groups.items() for key in sorted(keys, key=hashed)[: counts[label]]]


def _refuse_unlearned(listing: Listing) -> None:
    held = {part: {e.target for e in listing.part(part) if isinstance(e.target, int)} for part in PARTS}
    if strange := (held[TEST] | held[VALIDATION]) - held[TRAIN]:
        names = quoted(listing.classes[label] for label in strange)
        raise DataError(
            f"{listing.where}: the classes {names} are not in the training part, so nothing can learn them."
        )


def _refuse_single(listing: Listing) -> None:
    counts = [0] * max(1, len(listing.classes))
    for example in listing.examples:
        counts[example.target if isinstance(example.target, int) else 0] += 1
    if listing.task == "masks" and len(listing.examples) < 2:
        raise DataError(f"{listing.where}: it needs at least 2 pairs, one to learn from and one to test on.")
    single = [name for name, count in zip(listing.classes, counts, strict=False) if count == 1]
    if listing.task == "classes" and single:
        raise DataError(
            f"{listing.held_from or listing.where}: only one {listing.kind} in the {listing.groups} {quoted(single)}; "
            "each class needs at least 2, one to learn from and one to test on."
        )


def quoted(names: Iterable[str]) -> str:
    """Names in quotation marks, in order."""
    return ", ".join(map(repr, sorted(names)))


def shown(messages: Sequence[str]) -> str:
    """The first few messages, a line each, and how many more there are."""
    lines = "".join(f"\n  {message}" for message in messages[:LISTED])
    return lines + (f"\n  and {len(messages) - LISTED:,} more" if len(messages) > LISTED else "")
