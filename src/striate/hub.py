"""The Hugging Face hub: its data sets by name, and those that its library saved, as listings; the extra ``hub``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError
from .listings import TRAIN, Example, Listing, by_name, numbered, part_called
from .members import LIMIT, Entry
from .shards import class_name

PREFIX = "hf:"
EXTRA = "pip install 'striate[hub]'"
LABELS = ("label", "labels", "class", "target", "fine_label")
MASKS = ("mask", "masks", "annotation", "segmentation", "label")


@dataclass(frozen=True, eq=False)
class Cell(Entry):
    """The encoded file in one cell of a table, which is read from the disk when asked for."""

    name: str
    place: str
    table: Any = field(repr=False)
    row: int
    column: str

    @property
    def where(self) -> str:
        """The data set, the row and the column."""
        return f"{self.place}, row {self.row}, {self.column}"

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.read())

    def open(self) -> BinaryIO:
        """Its bytes as a file in memory."""
        return io.BytesIO(self.read())

    def read(self, limit: int = LIMIT) -> bytes:
        """Its bytes, which the table holds itself.

        Raises:
            DataError: The table only names a file, or there are more than ``limit``.
        """
        cell = self.table[self.row][self.column]
        content = cell["bytes"] if isinstance(cell, Mapping) else None
        if content is None and isinstance(cell, Mapping) and cell.get("path"):
            raise DataError(
                f"{self}: the table holds only the name of a file, {cell['path']!r}; "
                "save the data set with save_to_disk, and give hf:./ and that folder."
            )
        if not isinstance(content, bytes) or len(content) > limit:
            raise DataError(f"{self}: it holds no encoded file of at most {limit:,} bytes.")
        return content


def hub_listing(source: str) -> Listing:
    """A data set of the hub as a listing.

    One column holds pictures or sound files, another the classes (a ``ClassLabel``, or a column called label) or
    masks. Nothing of a data set is ever executed.

    Args:
        source: ``hf:NAME``, ``hf:NAME:CONFIG``; ``hf:./PATH`` is what ``save_to_disk`` wrote, or a folder of Parquet
            files.

    Raises:
        DataError: The extra is missing, the data set cannot be had, or its columns do not say what to learn.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(f"{source}: to read data sets of the Hugging Face hub: {EXTRA}") from None
    tables, others = _tables(datasets, source)
    columns = _columns(datasets, source, next(iter(tables.values())).features)
    rows: list[tuple[Cell, Cell | str, str | None]] = []
    missing: list[str] = []
    for part, table in tables.items():
        rows += _rows(datasets, source, table, columns, part if len(tables) > 1 else None, missing)
    name = source.removeprefix(PREFIX).rstrip("/").rpartition("/")[2].replace(":", "-")
    classes: tuple[str, ...] = ()
    if columns.masks:
        examples = [Example(cell, target, part) for cell, target, part in rows if isinstance(target, Cell)]
    else:
        texts = [str(target) for _, target, _ in rows]
        labels, classes = by_name(source, texts, columns.classes) if columns.classes else numbered(source, texts, None)
        examples = [Example(cell, label, part) for (cell, _, part), label in zip(rows, labels, strict=True)]
    return Listing(
        *(name, source, columns.kind, tuple(examples), classes, "masks" if columns.masks else "classes"),
        missing=tuple(missing),
        layout=f"Hugging Face table, columns {columns.inputs} and {columns.targets}"
        + (f", without the parts {', '.join(others)}" if others else ""),
    )


@dataclass(frozen=True)
class _Columns:
    """Which columns are learned from."""

    inputs: str
    targets: str
    kind: str
    masks: bool
    classes: tuple[str, ...] | None


def _tables(library: Any, source: str) -> tuple[dict[str, Any], list[str]]:
    """The tables by their parts, in order, and the names of those that are no part and left out."""
    rest = source.removeprefix(PREFIX)
    local = rest.startswith((".", "/", "~"))
    try:
        if local:
            path = Path(rest).expanduser().absolute()  # "nope" alone would be a name on the hub
            saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
            found = library.load_from_disk(str(path)) if saved else library.load_dataset(str(path))
        else:
            name, _, config = rest.partition(":")
            found = library.load_dataset(name, config or None)
    except Exception as error:  # the library raises whatever it and the network stumble over
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(f"{source}: it cannot be had: {said}.") from None
    tables = dict(found) if isinstance(found, Mapping) else {TRAIN: found}
    known: dict[str, Any] = {}
    others = [name for name in tables if part_called(name) is None]
    for name in tables:
        if (part := part_called(name)) in known:
            raise DataError(f"{source}: several of its parts {', '.join(tables)} are the {part} part; expected one.")
        if part is not None:
            known[part] = tables[name]
    if not known:
        raise DataError(f"{source}: none of its parts {', '.join(tables)} is called train, validation or test.")
    return known, others


def _columns(library: Any, source: str, features: Mapping[str, Any]) -> _Columns:
    files = [name for name, feature in features.items() if isinstance(feature, library.Image | library.Audio)]
    masks = [name for name in files[1:] if name.lower() in MASKS]
    inputs = [name for name in files if name not in masks]
    if len(inputs) != 1:
        raise DataError(
            f"{source}: expected one column of pictures or sound files, found {', '.join(inputs) or 'none'}."
        )
    kind = "picture" if isinstance(features[inputs[0]], library.Image) else "signal"
    if masks:
        return _Columns(inputs[0], masks[0], kind, True, None)
    named = [name for name, feature in features.items() if isinstance(feature, library.ClassLabel)]
    usual = [name for name in LABELS if name in features]
    targets = named if len(named) == 1 else usual
    if not targets:
        raise DataError(f"{source}: none of its columns {', '.join(features)} is a ClassLabel or called label.")
    feature = features[targets[0]]
    names = tuple(feature.names) if isinstance(feature, library.ClassLabel) else None
    return _Columns(inputs[0], targets[0], kind, False, names)


def _rows(
    library: Any, source: str, table: Any, columns: _Columns, part: str | None, missing: list[str]
) -> list[tuple[Cell, Cell | str, str | None]]:
    """Inputs with their targets; messages about rows without one go to ``missing``."""
    for name in (columns.inputs, *([columns.targets] if columns.masks else [])):
        table = table.cast_column(name, type(table.features[name])(decode=False))
    place = source if part is None else f"{source}, {part}"
    inputs = table.select_columns([columns.inputs])
    cells = [Cell(f"{part}/{row:09}", place, inputs, row, columns.inputs) for row in range(len(table))]
    if columns.masks:
        masks = table.select_columns([columns.targets])
        return [(c, Cell(f"{part}/{c.row:09}", place, masks, c.row, columns.targets), part) for c in cells]
    labels = list(table[columns.targets])
    if all(label in (-1, None) for label in labels):  # how a part without published classes is stored
        return []
    found: list[tuple[Cell, Cell | str, str | None]] = []
    for cell, label in zip(cells, labels, strict=True):
        try:
            found.append((cell, _class(f"{place}, row {cell.row}, {columns.targets}", label, columns.classes), part))
        except DataError as error:
            missing.append(str(error))
    return found


def _class(where: str, label: object, names: tuple[str, ...] | None) -> str:
    if names is None:
        return class_name(where, label)
    if not isinstance(label, int) or not 0 <= label < len(names):
        raise DataError(f"{where}: it says no class: expected a number from 0 to {len(names) - 1}, got {label!r}.")
    return names[label]
