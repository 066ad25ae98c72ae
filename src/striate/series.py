"""Series: the time series of the UCR and UEA archives, one or more channels each, as ``.ts`` files or plain tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import Arrays
from .errors import DataError
from .listings import TEST, TRAIN
from .readers import centred
from .storage import Entry, Tree

NAMED = re.compile(r"(.+)_(TRAIN|TEST)\.(ts|tsv|csv|txt)", re.IGNORECASE)
ONE_LENGTH = "Give one length for all: --size 100 on the command line, size=(100,) in Python."


@dataclass(frozen=True, eq=False)
class Series:
    """The content of one file.

    Args:
        file: Where it was read.
        rows: Each ``(C, T)``, float64.
        labels: The class of each, as the file has it.
        classes: In the order of the header; empty if there is none.
    """

    file: Entry
    rows: list[Any]
    labels: list[str]
    classes: tuple[str, ...] = ()


def series_files(root: Tree) -> dict[str, dict[str, Entry]]:
    """The files ``NAME_TRAIN`` and ``NAME_TEST`` directly in a folder, by name and part."""
    found: dict[str, dict[str, Entry]] = {}
    for name, file in root.loose.items():
        if match := NAMED.fullmatch(name):
            found.setdefault(match[1], {})[TRAIN if match[2].upper() == "TRAIN" else TEST] = file
    whole = {name: file for name, file in root.loose.items() if name.lower().endswith(".ts")}
    if not found and len(whole) == 1:
        ((name, file),) = whole.items()
        found[name[:-3]] = {TRAIN: file}
    return {name: dict(sorted(parts.items(), reverse=True)) for name, parts in found.items() if TRAIN in parts}


def series_arrays(root: Tree, files: Mapping[str, Mapping[str, Entry]], size: Sequence[int] | None) -> Arrays:
    """The series of a folder.

    Args:
        root: The folder.
        files: As :func:`series_files` finds them.
        size: The length that every series is cropped or padded to.

    Raises:
        DataError: There are several data sets, a file is damaged, or the series differ in length.
    """
    if len(files) > 1:
        raise DataError(f"{root.where}: there are several data sets, {', '.join(sorted(files))}; name a file of one.")
    ((name, parts),) = files.items()
    read = {part: parse(file) for part, file in parts.items()}
    given = next((one.classes for one in read.values() if one.classes), ())
    classes = given or tuple(sorted({label for one in read.values() for label in one.labels}, key=_natural))
    order = {label: number for number, label in enumerate(classes)}
    lengths = sorted({row.shape[1] for one in read.values() for row in one.rows})
    if len(lengths) > 1 and size is None:
        raise DataError(
            f"{root.where}: the series have {len(lengths)} lengths, {lengths[0]} to {lengths[-1]}. {ONE_LENGTH}"
        )
    pairs: dict[str | None, tuple[Tensor, Tensor]] = {
        part if len(parts) > 1 else None: _tensors(one, order, size) for part, one in read.items()
    }
    return Arrays(name, root.where, "series", classes, pairs, layout="series of the UCR and UEA archives")


def _natural(label: str) -> tuple[float, str]:
    """Numbers by their size, before all else."""
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label


def _tensors(series: Series, order: Mapping[str, int], size: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    rows = [torch.from_numpy(row).float() for row in series.rows]
    if size is not None:
        rows = [centred(row, size) for row in rows]
    return torch.stack(rows), torch.tensor([order[label] for label in series.labels])


def parse(file: Entry) -> Series:
    r"""One file: ``.ts`` with its header, or a table with the class first and then the values of one channel.

    Raises:
        DataError: The file is no such file; the message says the line.

    >>> from .storage import Memory
    >>> found = parse(Memory("a.ts", b"@classLabel true a b\n@data\n1,2:3,4:a\n5,6:7,8:b\n"))
    >>> found.rows[0].tolist(), found.labels
    ([[1.0, 2.0], [3.0, 4.0]], ['a', 'b'])
    """
    try:
        lines = file.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: it cannot be read as UTF-8 text: {error}.") from None
    found = _parse_ts(file, lines) if file.name.lower().endswith(".ts") else _parse_table(file, lines)
    if not found.rows:
        raise DataError(f"{file}: it holds no series.")
    depths = sorted({len(row) for row in found.rows})
    if len(depths) > 1:
        raise DataError(f"{file}: its series have {', '.join(map(str, depths))} channels; all need the same.")
    return found


def _parse_ts(file: Entry, lines: Sequence[str]) -> Series:
    start = next((number for number, line in enumerate(lines, start=1) if line.lower().startswith("@data")), 0)
    fields = [line[1:].split() for line in lines[:start] if line.startswith("@")]
    header = {words[0].lower(): words[1:] for words in fields if words[1:]}
    labelled, *classes = header.get("classlabel", ["false"])
    if labelled.lower() != "true":
        raise DataError(
            f"{file}: its header has no @classLabel true with the classes, and nothing else can be learned."
        )
    if header.get("timestamps", ["false"])[0].lower() == "true":
        raise DataError(f"{file}: its values have time stamps; only evenly spaced series are read.")
    rows, labels = [], []
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip():
            continue
        *channels, label = line.split(":")
        if label.strip() not in classes or not channels:
            raise DataError(
                f"{file}, line {number}: {label.strip()!r:.40} is none of its classes, {', '.join(classes)}."
            )
        rows.append(_numbers(file, number, [channel.split(",") for channel in channels]))
        labels.append(label.strip())
    return Series(file, rows, labels, tuple(classes))


def _parse_table(file: Entry, lines: Sequence[str]) -> Series:
    rows, labels = [], []
    for number, line in enumerate(lines, start=1):
        if words := line.replace(",", " ").split():
            rows.append(_numbers(file, number, [words[1:]]))
            labels.append(words[0].removesuffix(".0"))
    return Series(file, rows, labels)


def _numbers(file: Entry, number: int, channels: Sequence[Sequence[str]]) -> Any:
    if len({len(channel) for channel in channels}) > 1:
        lengths = ", ".join(str(len(channel)) for channel in channels)
        raise DataError(f"{file}, line {number}: its channels have lengths {lengths}; all need the same.")
    try:
        values = np.array(channels, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{file}, line {number}: {error}; missing values must be filled in first.") from None
    if not values.size or not np.isfinite(values).all():
        raise DataError(f"{file}, line {number}: it has missing or infinite values, which must be filled in first.")
    return values
