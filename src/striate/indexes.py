"""Index files: tables that name the files of a data set, their classes or masks, and their parts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import DataError
from .listings import Example, Listing, listed_classes, numbered, part_of, shown
from .readers import kind_of
from .storage import Entry, File, Tree, entries

ENDINGS = (".csv", ".tsv", ".parquet")
FILES = ("image", "file", "path", "filename", "file_name")
LABELS = ("label", "class", "target")
MASKS = ("mask",)
PARTS = ("split", "part", "set")
EXPECTED = (
    f"it is no index file: expected a header with a column of files ({', '.join(FILES)}) and one of classes "
    f"({', '.join(LABELS)}) or masks ({', '.join(MASKS)})."
)
EXTRA = "pip install 'striate[tables]'"

Table = dict[str, list[str]]


def index_files(root: Tree) -> dict[str, Entry]:
    """The index files directly in a folder: tables with a column of files, and one of classes or masks."""
    loose = {name: file for name, file in root.loose.items() if name.lower().endswith(ENDINGS)}
    return {name: file for name, file in loose.items() if is_index(file)}


def is_index(file: Entry) -> bool:
    """Whether a table has the columns of an index file."""
    columns = _columns(_header(file))
    return "file" in columns and bool({"label", "mask"} & columns.keys())


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
    rows: list[tuple[str, dict[str, str], str | None]] = []
    for name, file in files.items():
        rows += _rows(file, part_of(name) if len(files) > 1 else None)
    known = _known(root, [row[key] for _, row, _ in rows for key in ("file", "mask") if key in row])
    masks = "mask" in rows[0][1]
    missing = [
        f"{place}: there is no file {row[key]!r} in {root.where}."
        for place, row, _ in rows
        for key in ("file", "mask")
        if key in row and _clean(row[key]) not in known
    ]
    kept = [(row, part) for _, row, part in rows if all(_clean(row[k]) in known for k in ("file", "mask") if k in row)]
    listed = listed_classes(root)
    labels, classes = (
        numbered(root.where, [row["label"] for row, _ in kept], listed) if not masks else ([], listed or ())
    )
    targets: Sequence[int | Entry] = [known[_clean(row["mask"])] for row, _ in kept] if masks else labels
    sources = [known[_clean(row["file"])] for row, _ in kept]
    examples = [Example(s, t, part) for s, t, (_, part) in zip(sources, targets, kept, strict=True)]
    return Listing(
        *(root.name, root.where, kind_of(sources) or "picture", tuple(examples), classes),
        task="masks" if masks else "classes",
        prefix=root.prefix,
        missing=tuple(missing),
        layout=f"index file {', '.join(files)}",
    )


def _clean(path: str) -> str:
    return path.strip().replace("\\", "/").removeprefix("./")


def _known(root: Tree, paths: Sequence[str]) -> dict[str, Entry]:
    """The files below the folder by their names, with those in the archives that paths lead through."""
    found = {root.below(file): file for file in root.files}
    for top in {_clean(path).partition("/")[0] for path in paths}:
        archive = root.loose.get(top)
        if top.lower().endswith(".zip") and isinstance(archive, File):
            found |= {f"{top}/{member.name}": member for member in entries(archive.path)}
    return found


def _rows(file: Entry, part: str | None) -> list[tuple[str, dict[str, str], str | None]]:
    """Where each row stands, what it says in our own words for the columns, and its part."""
    table = _table(file)
    columns = _columns(list(table))
    count = len(next(iter(table.values())))
    rows = []
    for number in range(count):
        row = {ours: table[theirs][number] for ours, theirs in columns.items()}
        rows.append((f"{file}, row {number + 1}", row, part or _part(row)))
    wrong = [place for place, row, _ in rows if not all(row[key] for key in row if key != "part")]
    if wrong or not rows:
        raise DataError(
            f"{file}: rows with nothing in a column:{shown(wrong)}" if wrong else f"{file}: it has no rows."
        )
    strange = [f"{place}: {row['part']!r}" for place, row, part in rows if row.get("part") and part is None]
    if strange:
        raise DataError(f"{file}: the parts are train, validation and test, and some rows say:{shown(strange)}")
    return rows


def _part(row: Mapping[str, str]) -> str | None:
    return part_of(row["part"]) if row.get("part") else None


def _columns(names: Sequence[str]) -> dict[str, str]:
    """Our words for the columns that are known, and theirs."""
    lower = {name.strip().lower(): name for name in reversed(names)}
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
    rows = _text_rows(file)
    return rows[0] if rows else []


def _table(file: Entry) -> Table:
    if file.name.lower().endswith(".parquet"):
        opened = _parquet(file)
        names = list(_columns([str(name) for name in opened.schema_arrow.names]).values())
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


def _text_rows(file: Entry) -> list[list[str]]:
    try:
        text = file.read().decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = next((mark for mark in ("\t", ";") if mark in first and "," not in first), ",")
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: it cannot be read as a table in UTF-8 text: {error}.") from None


def _parquet(file: Entry) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{file}: to read Parquet files: {EXTRA}") from None
    try:
        return parquet.ParquetFile(pyarrow.BufferReader(file.read()))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: it is no Parquet file, or a damaged one: {_said(error)}.") from None


def _said(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
