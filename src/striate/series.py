"""Series: the time series of the UCR and UEA archives, one or more channels each, as ``.ts`` files or plain tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import numpy as np
import torch

from .arrays import Arrays, Part
from .decoding import REPAIR
from .errors import DataError
from .listings import LISTED, TEST, TRAIN, shown
from .members import Entry
from .readers import cells, centred, numbers, text_lines
from .storage import Tree

NAMED = re.compile(r"(.+)_(TRAIN|TEST)\.(ts|tsv|csv|txt)", re.IGNORECASE)
ALONE = "there is no NAME_TRAIN.ts to learn from beside this NAME_TEST.ts."
ONE_LENGTH = "Give one length for all: --size 100 on the command line, size=(100,) in Python."
LONGEST = 40  # digits of a class, beyond which it is written with a power of ten
NOTHING = ("", "?", "nan")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


@dataclass(frozen=True, eq=False)
class Series:
    """The content of one file.

    Args:
        file: Where it was read.
        rows: Each ``(C, T)``, float32.
        labels: The class of each, as the file has it.
        classes: In the order of the header; empty if there is none.
        bad: Messages about lines that cannot be read.
    """

    file: Entry
    rows: list[Any]
    labels: list[str]
    classes: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()


def series_files(root: Tree, named: str = "") -> dict[str, dict[str, Entry]]:
    """The files ``NAME_TRAIN`` and ``NAME_TEST`` directly in a folder, by name and part; else its only ``.ts`` file.

    Args:
        root: The folder.
        named: A file in it: only the set that it belongs to, of the file's own ending where there are several.
    """
    found: dict[str, dict[str, Entry]] = {}
    ending = named.lower().rpartition(".")[2]
    for name in sorted(root.loose, key=lambda name: name.lower().endswith(ending)):
        if match := NAMED.fullmatch(name):
            found.setdefault(match[1], {})[TRAIN if match[2].upper() == "TRAIN" else TEST] = root.loose[name]
    if match := NAMED.fullmatch(named):
        found = {name: parts for name, parts in found.items() if name == match[1]}
    elif named or not found:
        whole = [name for name in ([named] if named else root.loose) if name.lower().endswith(".ts")]
        found = {name[:-3]: {TRAIN: root.loose[name]} for name in whole} if len(whole) == 1 else {}
    return {name: dict(sorted(parts.items(), reverse=True)) for name, parts in found.items() if TRAIN in parts}


def series_arrays(
    root: Tree,
    files: Mapping[str, Mapping[str, Entry]],
    size: Sequence[int] | None,
    *,
    skip_bad: bool = False,
    strict: bool = True,
) -> Arrays:
    """The series of a folder.

    Args:
        root: The folder.
        files: As :func:`series_files` finds them.
        size: The length that every series is cropped or padded to.
        skip_bad: Leave out lines that cannot be read.
        strict: Refuse series that differ in length or channels; else the inputs of each part are a list.

    Raises:
        DataError: There are several data sets, a file is damaged, or the series differ in length.
    """
    if len(files) > 1:
        raise DataError(f"{root.where}: there are several data sets, {', '.join(sorted(files))}; name a file of one.")
    ((name, parts),) = files.items()
    read = {part: parse(file) for part, file in parts.items()}
    bad = tuple(message for one in read.values() for message in one.bad)
    if strict:
        if bad and not (skip_bad and all(one.rows for one in read.values())):
            total = sum(len(one.rows) + len(one.bad) for one in read.values())
            raise DataError(f"{root.where}: {len(bad):,} of {total:,} series cannot be used. {REPAIR}:{shown(bad)}")
        _refuse_shapes(root, [row for one in read.values() for row in one.rows], size)
    classes = _classes(list(read.values()))
    order = {label: number for number, label in enumerate(classes)}
    pairs: dict[Part, Any] = {}
    for part, one in read.items():
        rows = [torch.from_numpy(row) for row in one.rows]
        rows = rows if size is None else [centred(row, size) for row in rows]
        labels = torch.tensor([order[label] for label in one.labels])
        pairs[part if len(parts) > 1 else None] = (torch.stack(rows) if strict else rows, labels)
    layout = "series of the UCR and UEA archives"
    return Arrays(name, root.where, "series", classes, pairs, layout=layout, missing=bad)


def _classes(read: Sequence[Series]) -> tuple[str, ...]:
    """In the order of the first header; without one, numbers by their size before all else."""
    first = next((one for one in read if one.classes), None)
    if first is None:
        return tuple(sorted({label for one in read for label in one.labels}, key=_natural))
    for one in read:
        if strange := sorted({*one.classes, *one.labels} - set(first.classes)):
            named, known = _few([repr(label) for label in strange]), _few(first.classes)
            raise DataError(f"{one.file}: {first.file} has no classes {named}; it has {known}.")
    return first.classes


def _few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def _natural(label: str) -> tuple[float, str]:
    return float(label) if NUMBER.fullmatch(label) else float("inf"), label


def _refuse_shapes(root: Tree, rows: Sequence[Any], size: Sequence[int] | None) -> None:
    if len(depths := sorted({len(row) for row in rows})) > 1:
        raise DataError(f"{root.where}: the series have {', '.join(map(str, depths))} channels; all need the same.")
    if len(lengths := sorted({row.shape[1] for row in rows})) > 1 and size is None:
        raise DataError(
            f"{root.where}: the series have {len(lengths)} lengths, {lengths[0]} to {lengths[-1]}. {ONE_LENGTH}"
        )


def parse(file: Entry, *, labelled: bool = True) -> Series:
    r"""One file: ``.ts`` with its header, or a table with the class first and then the values of one channel.

    Lines that cannot be read are told in :attr:`Series.bad`, each by its number.

    Args:
        file: It.
        labelled: Every series needs its class; else none is looked at, and a ``.ts`` file may be without.

    Raises:
        DataError: The file is no such file.

    >>> from .members import Memory
    >>> found = parse(Memory("a.ts", b"@classLabel true a b\n@data\n1,2:3,4:a\n5,6:7,8:b\n1,?:2,3:b\n"))
    >>> found.rows[0].tolist(), found.labels
    ([[1.0, 2.0], [3.0, 4.0]], ['a', 'b'])
    >>> found.bad
    ("a.ts, line 5: could not convert string to float: '?'; missing values must be filled in first.",)
    """
    lines = text_lines(file, file.read())
    headed = file.name.lower().endswith(".ts")
    start, classes = _header(file, lines) if headed else (0, None)
    if headed and labelled and classes is None:
        raise DataError(
            f"{file}: its header has no @classLabel true with the classes, and nothing else can be learned."
        )
    known = frozenset(classes or ())
    unlike = f"is none of its classes, {_few(classes or ())}" if headed else "says no class"
    rows, labels, bad = [], [], []
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.strip():
            where = f"{file}, line {number}"
            try:
                label, channels = _channels(where, line, classes is not None) if headed else _table_row(where, line)
                if labelled and (label not in known if headed else label.lower() in NOTHING):
                    raise DataError(f"{where}: {label!r:.40} {unlike}.")
                row = _stacked(where, channels)
            except DataError as error:
                bad.append(str(error))
            else:
                rows.append(row)
                labels.append(label)
    if not rows and not bad:
        raise DataError(f"{file}: it holds no series.")
    return Series(file, rows, labels, tuple(classes or ()), tuple(bad))


def _header(file: Entry, lines: Sequence[str]) -> tuple[int, list[str] | None]:
    """How many lines the header of a ``.ts`` file has, and the classes that it names; None if the lines have none."""
    start = next((number for number, line in enumerate(lines, start=1) if line.lower().startswith("@data")), 0)
    fields = [line[1:].split() for line in lines[:start] if line.startswith("@")]
    header = {words[0].lower(): words[1:] for words in fields if words[1:]}
    labelled, *classes = header.get("classlabel", ["false"])
    if header.get("timestamps", ["false"])[0].lower() == "true":
        raise DataError(f"{file}: its values have time stamps; only evenly spaced series are read.")
    return start, [_by_value(label) for label in classes] if labelled.lower() == "true" else None


def _channels(where: str, line: str, classed: bool) -> tuple[str, list[list[str]]]:
    """A line of a ``.ts`` file: channels with colons between, and the class."""
    *channels, label = line.split(":") if classed else [*line.split(":"), ""]
    if not channels:
        raise DataError(f"{where}: expected the values, a colon and then the class, got {line!r:.40}.")
    return _by_value(label.strip()), [channel.split(",") for channel in channels]


def _table_row(where: str, line: str) -> tuple[str, list[list[str]]]:
    """A line of a table: the class, and the values of one channel."""
    label, *words = cells(line)
    if not words:
        raise DataError(f"{where}: expected the class and then the values, got {line!r:.40}.")
    return _by_value(label), [words]


def _stacked(where: str, channels: Sequence[Sequence[str]]) -> Any:
    """The channels ``(C, T)`` that some words say."""
    rows = [numbers(where, words) for words in channels]
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(str(len(row)) for row in rows)
        raise DataError(f"{where}: its channels have lengths {lengths}; all need the same.")
    return np.stack(rows)


def _by_value(label: str) -> str:
    """A class that is a number, written in one way, exactly.

    >>> [_by_value(label) for label in ("1.0000000e+00", "01", "-1.0", "2.50", "1_0", "up", "12345678901234567891.0")]
    ['1', '1', '-1', '2.5', '1_0', 'up', '12345678901234567891']
    """
    if not NUMBER.fullmatch(label):
        return label
    value = Decimal(label).normalize(Context(prec=len(label))) or Decimal(0)
    return f"{value:f}" if abs(value.adjusted()) < LONGEST else str(value)
