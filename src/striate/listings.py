"""Listings: every layout of labelled files becomes the same value, a list of files with their targets and parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TypeVar

from .errors import DataError
from .members import Entry
from .readers import EXTENSIONS, counted, kind_of
from .storage import Tree

TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "annotations")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EXPECTED = (
    "Expected a folder for each class with its pictures (cat/1.png, dog/1.png), these under train/ and test/ "
    f"if they are already split, or the four IDX files {', '.join(IDX_FILES)} (each may end in .gz)."
)
LISTED = 10
DIGITS = 18  # of a number; a longer one is a name
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
        missing: Messages about what cannot become an example: files that are not there, lack their mate or a class, or
            lie in no part.
        layout: In words.
        unread: Files among the others that nothing is made of.
        refused: Why nothing can be learned from it, where it is only to be looked at.
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
    unread: tuple[Entry, ...] = field(default=(), repr=False)
    refused: str = ""

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
    found = {part: _by_class(folder, part, kind) for part, folder in parts.items()}
    refused = _refusal(parts, found, kind)
    if strict and refused:
        raise DataError(refused)
    names = sorted({name for classes in found.values() for name in classes} if not strict else found[TRAIN])
    order = {name: label for label, name in enumerate(names)}
    split = parts[TRAIN] is not root
    examples = [
        Example(file, order[name], part if split else None)
        for part in parts
        for name, files in found[part].items()
        for file in files
    ]
    under = ", ".join(f"{folder.folder}/" for folder in parts.values())
    return Listing(
        *(root.name, root.where, kind, tuple(examples), tuple(names)),
        groups="class folders",
        prefix=parts[TRAIN].prefix,
        held_from=parts[TRAIN].where,
        missing=tuple(_beside(root, kind) if split else ()),
        layout="a folder for each class" + (f" under {under}" if split else ""),
        unread=_unread(root, parts, kind),
        refused=refused,
    )


def _parts(root: Tree) -> dict[str, Tree]:
    """The folders that hold the class folders of each part; a whole without parts is all "train".

    Folders called "train" or "test" are classes (of vehicles, say) where they have no folders in them, but neighbours
    of other names.
    """
    spoken = [(part, folder) for name, folder in root.children.items() if (part := part_called(name))]
    if len(spoken) < len(root.children) and not any(folder.children for _, folder in spoken):
        spoken = []
    found: dict[str, Tree] = {}
    for part, folder in spoken:
        if part in found:
            raise DataError(
                f"{root.where}: {found[part].folder}/ and {folder.folder}/ are both the {part} part; "
                "expected one folder for each part."
            )
        found[part] = folder
    if found and TRAIN not in found:
        name = spoken[0][1].folder
        raise DataError(f"{root.where}: there is {name}/ but no train/ to learn from. {EXPECTED}")
    return {part: found[part] for part in PARTS if part in found} or {TRAIN: root}


def _by_class(folder: Tree, part: str, kind: str) -> dict[str, list[Entry]]:
    if not folder.children:
        loose = len(folder.ending(*EXTENSIONS[kind]))
        rest = f", only loose {kind}s ({loose:,})" if loose else ""
        raise DataError(f"{folder.where}: there are no class folders in it{rest}. {EXPECTED}")
    for name, child in folder.children.items():
        if other := next((inner for inner in child.children if part_called(inner) not in (None, part)), None):
            raise DataError(
                f"{child.where}: {other}/ is a part below a class; expected the classes below the parts, "
                f"{other}/{name}/."
            )
    return {name: child.ending(*EXTENSIONS[kind]) for name, child in folder.children.items()}


def _beside(root: Tree, kind: str) -> list[str]:
    """A message for each file in a folder that lies beside those of the parts."""
    others = [folder for name, folder in root.children.items() if part_called(name) is None]
    return [no_part(file, folder) for folder in others for file in folder.ending(*EXTENSIONS[kind])]


def no_part(file: Entry, folder: Tree) -> str:
    """What is wrong with a file in a folder that is called like no part, where others are."""
    return f"{file}: {folder.folder}/ is no part; the parts are {', '.join(PARTS)}."


def _unread(root: Tree, parts: Mapping[str, Tree], kind: str) -> tuple[Entry, ...]:
    """Files in class folders that are of another kind, and files of this kind that lie outside."""
    endings = EXTENSIONS[kind]
    inside = [file for folder in parts.values() for file in folder.files if "/" in folder.below(file)]
    loose = [file for folder in {root, *parts.values()} for file in folder.loose.values()]
    others = [file for file in inside if not file.name.lower().endswith(endings)]
    outside = [file for file in loose if file.name.lower().endswith(endings)]
    return tuple(sorted([*others, *outside], key=lambda file: file.name))


def _refusal(parts: Mapping[str, Tree], found: Mapping[str, Mapping[str, Sequence[Entry]]], kind: str) -> str:
    """Why nothing can be learned from these folders; empty if it can."""
    first, train = parts[TRAIN].where, found[TRAIN]
    if empty := [name for name, files in train.items() if not files]:
        return (
            f"{first}: no {kind}s in the class folders {quoted(empty)}. Add some or remove the folders; "
            f"a {kind}'s name ends in {', '.join(EXTENSIONS[kind])}."
        )
    if len(train) < 2:
        inner = [child.where for child in parts[TRAIN].children.values() if child.children]
        hint = f" If the folders in it are the classes, give {inner[0]}." if inner else ""
        return f"{first}: {quoted(train)} is the only class folder; a classifier needs at least 2 classes.{hint}"
    for part in (TEST, VALIDATION):
        if part not in parts:
            continue
        second, others = parts[part].where, {name for name, files in found[part].items() if files}
        if not others:
            return f"{second}: no {kind}s in any class folder, so there is nothing to test on."
        if strange := others - set(train):
            return f"{second}: {first} has no class folders {quoted(strange)} to learn them from."
    return ""


def mask_pairs(root: Tree) -> Listing | None:
    """Pictures under ``images/`` and masks of the same names under ``masks/``; None if the layout is another.

    The parts are folders above or below these two.
    """
    examples: list[Example] = []
    missing: list[str] = []
    layout = ""
    for name, folder in [("", root), *root.children.items()]:
        images, masks = _first(folder, IMAGES), _first(folder, MASKS)
        both = images is not None and masks is not None
        part = part_among([name], folder.where) if both and folder is not root else part_called(name)
        if images is not None and masks is not None and (part or folder is root):
            layout = layout or f"{images.folder}/ with {masks.folder}/"
            _match(part, images, masks, examples, missing)
        else:
            missing += _unpaired(folder, part, images, masks)
    if not layout:
        return None
    examples.sort(key=lambda e: (PARTS.index(e.part) if e.part else 0, e.source.name))
    classes = listed_classes(root) or ()
    return Listing(
        *(root.name, root.where, "picture", tuple(examples), classes, "masks"),
        prefix=root.prefix,
        missing=tuple(missing),
        layout=layout,
    )


def _unpaired(folder: Tree, part: str | None, images: Tree | None, masks: Tree | None) -> list[str]:
    """A message for each picture of a folder that lacks ``images/`` or ``masks/``, or has both and is no part."""
    if images is not None and masks is not None:
        return [no_part(file, folder) for file in images.ending(*EXTENSIONS["picture"])]
    lone, lacking = (images, MASKS[0]) if images is not None else (masks, IMAGES[0])
    files = lone.ending(*EXTENSIONS["picture"]) if lone is not None else []
    return [f"{file}: there is no {lacking}/ in {folder.where}." for file in files]


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
            inner = part_among(stem.split("/")[:-1][:1], image) if part is None else part
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
    return _said(PART.search(name.lower()))


def part_called(name: str) -> str | None:
    """The part whose folder is called so.

    >>> part_called("Training"), part_called("val"), part_called("train-0001")
    ('train', 'validation', None)
    """
    return _said(PART.fullmatch(name.lower()))


def part_among(folders: Iterable[str], where: object) -> str | None:
    """The part that one of these folders is called, perhaps with a number.

    Raises:
        DataError: One could be a part and could be none, as ``train_station`` could.

    >>> part_among(["cells", "val"], "a.png"), part_among(["train2017"], "b.png"), part_among(["cells"], "c.png")
    ('validation', 'train', None)
    """
    for name in folders:
        if (spoken := part_of(name)) is not None:
            if not re.search("[^\\W\\d_]", PART.sub("", name.lower())):
                return spoken
            raise DataError(
                f"{where}: the folder {name!r} could be the {spoken} part or not; "
                f"call it {spoken!r}, or give it a name that speaks of no part."
            )
    return None


def _said(found: re.Match[str] | None) -> str | None:
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
        lines = file.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: it cannot be read as UTF-8 text: {error}.") from None
    names = tuple(stripped for line in lines if (stripped := line.strip()))
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise DataError(f"{file}: it names {', '.join(map(repr, twice))} more than once.")
    return names


def numbered(where: str, labels: Sequence[str], listed: tuple[str, ...] | None) -> tuple[list[int], tuple[str, ...]]:
    """Texts that say classes as numbers, with the classes' names.

    Whole numbers count the names in ``classes.txt``, if there is one; else they are names, in their own order.
    Other texts are names, in the order of ``classes.txt`` or the alphabet.

    Raises:
        DataError: A text is none of the listed names, or a number could be another one.

    >>> numbered("a", ["dog", "cat"], None), numbered("a", ["10", "9"], None), numbered("a", ["1"], ("cat", "dog"))
    (([1, 0], ('cat', 'dog')), ([1, 0], ('9', '10')), ([1], ('cat', 'dog')))
    """
    if not all(label.isdecimal() and len(label) <= DIGITS for label in labels):
        return by_name(where, labels, listed or tuple(sorted(set(labels))))
    values = {label: int(label) for label in sorted(set(labels))}
    spellings = Counter(values.values())
    if twice := [label for label, value in values.items() if spellings[value] > 1]:
        raise DataError(f"{where}: the classes {quoted(twice)} are spellings of one number; write each in one way.")
    if listed is None:
        return by_name(where, labels, tuple(sorted(values, key=int)))
    order = {name: n for n, name in enumerate(listed)}
    if double := [label for label in values if order.get(label, values[label]) != values[label]]:
        raise DataError(
            f"{where}: the class {double[0]!r} could be number {double[0]}, counted from 0, in classes.txt, or the one "
            "that is called so. Remove classes.txt, and numbers are names; or write names in it that are no numbers."
        )
    return _placed(where, labels, {label: n for label, n in values.items() if n < len(listed)}, listed)


def by_name(where: str, labels: Sequence[str], names: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """The places of texts among names, with the names.

    Raises:
        DataError: A text is none of them.
    """
    return _placed(where, labels, {name: n for n, name in enumerate(names)}, names)


def _placed(
    where: str, labels: Sequence[str], order: Mapping[str, int], names: tuple[str, ...]
) -> tuple[list[int], tuple[str, ...]]:
    if unknown := set(labels) - order.keys():
        raise DataError(f"{where}: classes.txt has no classes {quoted(unknown)}; it has {', '.join(names)}.")
    return [order[label] for label in labels], names


def settle(listing: Listing, seed: int, validation: float = 0.0) -> Listing:
    """The same listing with every example in a part, by :func:`assigned`.

    Raises:
        DataError: A class has a single example, or none to learn from.
    """
    labels = [e.target if isinstance(e.target, int) else 0 for e in listing.examples]
    if not {TEST, VALIDATION} & {e.part for e in listing.examples}:
        where, classes = listing.held_from or listing.where, listing.classes if listing.task == "classes" else None
        refuse_single(where, f"{listing.kind} in the {listing.groups}", classes, labels)
    parts = planned(listing, seed, validation)
    examples = [replace(e, part=part) for e, part in zip(listing.examples, parts, strict=True)]
    if listing.task == "classes":
        learned = [label for label, part in zip(labels, parts, strict=True) if part == TRAIN]
        refuse_unlearned(listing.where, listing.classes, labels, learned)
    return replace(listing, examples=tuple(sorted(examples, key=lambda e: PARTS.index(e.part or TRAIN))))


def planned(listing: Listing, seed: int, validation: float = 0.0) -> list[str]:
    """The part that each example gets, by :func:`assigned`, also where :func:`settle` refuses."""
    labels = [e.target if isinstance(e.target, int) else 0 for e in listing.examples]
    names = [e.source.name.removeprefix(listing.prefix) for e in listing.examples]
    return assigned(listing.where, [e.part for e in listing.examples], labels, names, seed, validation)


def assigned(
    where: str,
    parts: Sequence[str | None],
    labels: Sequence[int],
    names: Sequence[str],
    seed: int,
    validation: float = 0.0,
) -> list[str]:
    """The part of each example: what no layout split is split here, by a hash of the names.

    With no test part, the validation part becomes it; with neither, one in six of each class, and at least one, is
    held out. A share ``validation`` of what is left to train on is held out likewise, if there is no such part. The
    last example of a class is never held out.

    Raises:
        DataError: Nothing can be held out for the validation part that was asked for.
    """
    found = list(parts)

    def hold_out(part: str, share: float, salt: str) -> None:
        rows = [row for row, one in enumerate(found) if one in (None, TRAIN)]
        for row in held_out({row: names[row] for row in rows}, {row: labels[row] for row in rows}, share, salt):
            found[row] = part

    if TEST not in found and VALIDATION in found:
        found = [TEST if part == VALIDATION else part for part in found]
    elif TEST not in found:
        hold_out(TEST, 1 / 6, f"{seed}/")
    if validation and VALIDATION not in found:
        hold_out(VALIDATION, validation, f"{seed}/validation/")
        if VALIDATION not in found:
            raise DataError(
                f"{where}: no class has 2 examples to train on, so none can be held out for validation={validation}."
            )
    return [part or TRAIN for part in found]


def held_out(names: Mapping[Key, str], labels: Mapping[Key, int], share: float, salt: str) -> list[Key]:
    """The share of each class, at least one and never all, whose names have the smallest hashes.

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
    return [
        key for label, keys in groups.items() for key in sorted(keys, key=hashed)[: min(counts[label], len(keys) - 1)]
    ]


def refuse_unlearned(
    where: str, classes: Sequence[str], labels: Iterable[int], learned: Iterable[int], skipped: Sequence[str] = ()
) -> None:
    """Raise a :class:`DataError` if a class that has examples has none to learn from.

    Args:
        where: The place.
        classes: Their names.
        labels: The classes that occur anywhere.
        learned: Those in the training part.
        skipped: Messages about what was left out, which may be the reason.
    """
    if strange := set(labels) - set(learned):
        reason = f" Left out:{shown(skipped)}" if skipped else ""
        raise DataError(
            f"{where}: the classes {quoted(classes[label] for label in strange)} are not in the training part, "
            f"so nothing can learn them.{reason}"
        )


def refuse_single(where: str, what: str, classes: Sequence[str] | None, labels: Sequence[int]) -> None:
    """Raise a :class:`DataError` if a class has one example, or all masks (``classes`` is None) are one."""
    counts = Counter(labels)
    if classes is None and len(labels) < 2:
        raise DataError(f"{where}: it needs at least 2 pairs, one to learn from and one to test on.")
    if single := [classes[label] for label, count in counts.items() if count == 1] if classes else []:
        raise DataError(
            f"{where}: only one {what} {quoted(single)}; "
            "each class needs at least 2, one to learn from and one to test on."
        )


def quoted(names: Iterable[str]) -> str:
    """Names in quotation marks, in order."""
    return ", ".join(map(repr, sorted(names)))


def shown(messages: Sequence[str]) -> str:
    """The first few messages, a line each, and how many more there are."""
    lines = "".join(f"\n  {message}" for message in messages[:LISTED])
    return lines + (f"\n  and {len(messages) - LISTED:,} more" if len(messages) > LISTED else "")
