"""Index files: tables that name the files of a data set, their classes or masks, and their parts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Any

from .errors import DataError
from .listings import Example, Listing, listed_classes, numbered, part_of, shown
from .members import Entry, File, naming
from .readers import kind_of
from .storage import Tree, entries

ENDINGS = (".csv", ".tsv", ".parquet")
FILES = ("image", "file", "path", "filename", "file_name")
LABELS = ("label", "class", "target")
MASKS = ("mask",)
PARTS = ("split", "part", "set")
EXPECTED = (
    f"it is no index file: expected a header with a column of files ({', '.join(FILES)}) and one of classes "
    f"({', '.join(LABELS)}) or masks ({', '.join(MASKS)})."
)
LONGEST = 80  # characters of a path in a message
LIMIT = 2**20  # bytes of the first line of a table
EXTRA = "pip install 'striate[tables]'"

Table = dict[str, list[str]]


class _DamagedError(DataError):
    """A table that cannot be opened, so that nothing says what it is."""


@dataclass(frozen=True)
class _Row:
    """One row of an index file.

    Args:
        place: Where it stands.
        values: What it says in each column, by our own words for these.
        part: That of its own, or of its file.
        empty: The columns in which there is nothing, as the table calls them.
    """

    place: str
    values: Mapping[str, str]
    part: str | None
    empty: tuple[str, ...]


def index_files(root: Tree) -> dict[str, Entry]:
    """The index files directly in a folder: tables with a column of files, and one of classes or masks."""
    loose = {name: file for name, file in root.loose.items() if name.lower().endswith(ENDINGS)}
    return {name: file for name, file in loose.items() if _may_be_index(file)}


def _may_be_index(file: Entry) -> bool:
    try:
        return is_index(file)
    except _DamagedError:
        return False


def is_index(file: Entry) -> bool:
    """Whether a table has the columns of an index file.

    Raises:
        DataError: It has, and one of them twice.
    """
    names = [name.strip().lower() for name in _header(file)]
    columns = _columns(names)
    if "file" not in columns or not {"label", "mask"} & columns.keys():
        return False
    if twice := next((name for name in columns.values() if names.count(name) > 1), None):
        raise DataError(f"{file}: {names.count(twice)} columns are called {twice!r}; rename all but one.")
    return True


def index_listing(root: Tree, files: Mapping[str, Entry]) -> Listing:
    """The files that index files name, below the folder they lie in.

    Columns: ``image``, ``file``, ``path`` or ``filename``; ``label``, ``class`` or ``target``, or ``mask``; and
    perhaps ``split``, ``part`` or ``set``. Where there are several index files, their names say the part.

    Args:
        root: The folder.
        files: The index files in it, by name.

    Raises:
        DataError: A table cannot be read, or there are several whose names say no part.
    """
    if len(files) > 1 and not all(part_of(name) for name in files):
        raise DataError(f"{root.where}: there are several index files, {', '.join(files)}; name the one that is meant.")
    rows: list[_Row] = []
    for name, file in files.items():
        rows += _rows(file, part_of(name) if len(files) > 1 else None)
    found = _found(root, {row.values[key] for row in rows for key in ("file", "mask") if key in row.values})
    wrong = {row.place: _fault(root, row, found) for row in rows}
    kept = [row for row in rows if wrong[row.place] is None]
    masks = "mask" in rows[0].values
    listed = listed_classes(root)
    labels, classes = (
        numbered(root.where, [row.values["label"] for row in kept], listed) if not masks else ([], listed or ())
    )
    targets: Sequence[int | Entry] = [found[row.values["mask"]] for row in kept] if masks else labels
    sources = [found[row.values["file"]] for row in kept]
    examples = [Example(s, t, row.part) for s, t, row in zip(sources, targets, kept, strict=True)]
    return Listing(
        *(root.name, root.where, kind_of(sources) or "picture", tuple(examples), classes),
        task="masks" if masks else "classes",
        prefix=root.prefix,
        missing=tuple(f"{place}: {fault}" for place, fault in wrong.items() if fault),
        layout=f"index file {', '.join(files)}",
    )


def _found(root: Tree, paths: Iterable[str]) -> dict[str, Entry]:
    """The files that paths lead to, below the folder or in archives there; paths that lead to none are left out."""
    folder = Path(root.where).absolute()
    ways = [f"{way}/" for way in (folder.as_posix(), normpath(folder.as_posix()), folder.resolve().as_posix())]
    straight = {path: _straight(path) for path in paths}
    for way in ways:
        straight = {path: inner.removeprefix(way) for path, inner in straight.items()}
    known = {root.below(file): file for file in root.files}
    for top in {path.partition("/")[0] for path in straight.values()}:
        archive = root.loose.get(top)
        if top.lower().endswith(".zip") and isinstance(archive, File):
            known |= {f"{top}/{member.name}": member for member in entries(archive.path)}
    return {path: known[name] for path, name in straight.items() if name in known}


def _straight(path: str) -> str:
    return normpath(path.replace("\\", "/"))


def _fault(root: Tree, row: _Row, found: Mapping[str, Entry]) -> str | None:
    """Why nothing can be made of a row, or None."""
    if row.empty:
        return f"there is nothing under {' and '.join(row.empty)}."
    path = next((path for key in ("file", "mask") if (path := row.values.get(key)) and path not in found), None)
    if path is None:
        return None
    quoted = repr(path[:LONGEST]) + ("..." if len(path) > LONGEST else "")
    if _straight(path).startswith(("../", "/")):
        return f"{quoted} leads elsewhere; paths begin at {root.where} and stay inside."
    return f"there is no file {quoted} in {root.where}."


def _rows(file: Entry, part: str | None) -> list[_Row]:
    table = _table(file)
    columns = _columns(list(table))
    rows = []
    for number in range(len(next(iter(table.values())))):
        values = {ours: table[theirs][number].strip() for ours, theirs in columns.items()}
        empty = tuple(columns[ours] for ours, value in values.items() if not value and ours != "part")
        rows.append(_Row(f"{file}, row {number + 1}", values, part or _part(values), empty))
    if not rows:
        raise DataError(f"{file}: it has no rows.")
    strange = [f"{row.place}: {row.values['part']!r}" for row in rows if row.values.get("part") and row.part is None]
    if strange:
        raise DataError(f"{file}: the parts are train, validation and test, and some rows say:{shown(strange)}")
    return rows


def _part(row: Mapping[str, str]) -> str | None:
    return part_of(row["part"]) if row.get("part") else None


def _columns(names: Sequence[str]) -> dict[str, str]:
    """Our words for the columns that are known, and theirs."""
    lower = {name.strip().lower(): name for name in names}
    found = {}
    for ours, theirs in (("file", FILES), ("mask", MASKS), ("label", LABELS), ("part", PARTS)):
        if first := next((lower[name] for name in theirs if name in lower), None):
            found[ours] = first
    if "mask" in found:
        found.pop("label", None)
    return found


def _header(file: Entry) -> list[str]:
    if file.name.lower().endswith(".parquet"):
        return [str(name) for name in _parquet(file).schema_arrow.names]
    try:
        with naming(file), file.open() as stream:
            first = stream.readline(LIMIT)
    except DataError as error:
        raise _DamagedError(str(error)) from None
    return next(iter(_split(file, first.decode("utf-8-sig", errors="replace"))), [])


def _table(file: Entry) -> Table:
    if file.name.lower().endswith(".parquet"):
        opened = _parquet(file)
        columns = _columns([str(name) for name in opened.schema_arrow.names])
        names = list(columns.values())
        _refuse_embedded(file, opened.schema_arrow, [columns[key] for key in ("file", "mask") if key in columns])
        try:
            table = opened.read(columns=names)
            return {name: ["" if v is None else str(v) for v in table[name].to_pylist()] for name in names}
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: it is damaged or cut short: {_said(error)}.") from None
    header, *rows = _text_rows(file)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(f"{file}, row {number}: it has {len(row)} fields, the header has {len(header)}.")
    return {name: [row[column] for row in rows] for column, name in enumerate(header)}


def _refuse_embedded(file: Entry, schema: Any, names: Sequence[str]) -> None:
    """Tables of the Hugging Face hub hold the files themselves, as ``{bytes, path}``."""
    if embedded := [name for name in names if schema.field(name).type.num_fields]:
        folder = f": hf:{file.path.parent.absolute()}" if isinstance(file, File) else ""
        raise DataError(
            f"{file}: its column {embedded[0]} holds files, not their paths; give its folder as one of the "
            f"Hugging Face hub{folder}"
        )


def _text_rows(file: Entry) -> list[list[str]]:
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: it cannot be read as a table in UTF-8 text: {error}.") from None
    return _split(file, text)


def _split(file: Entry, text: str) -> list[list[str]]:
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in ("\t", ";") if mark in first and "," not in first), ",")
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise _DamagedError(f"{file}: it cannot be read as a table in UTF-8 text: {error}.") from None


def _parquet(file: Entry) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{file}: to read Parquet files: {EXTRA}") from None
    try:
        return parquet.ParquetFile(pyarrow.BufferReader(file.read()))
    except DataError as error:
        raise _DamagedError(str(error)) from None
    except (OSError, ValueError) as error:
        raise _DamagedError(f"{file}: it is no Parquet file, or a damaged one: {_said(error)}.") from None


def _said(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
