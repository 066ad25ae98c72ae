"""Index files: CSV, TSV and Parquet tables of one data set give the same listing; what they misname is said by row."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from striate.datasets import load
from striate.errors import DataError
from striate.indexes import index_files, index_listing
from striate.storage import tree
from striate.surveys import survey

from .test_datasets import paint, paint_split
from .test_decoding import paint_masks
from .test_storage import write_zip

pyarrow = pytest.importorskip("pyarrow", reason="the extra 'tables' is not installed")

ROWS = [
    ("a/1.png", "dog", "train"),
    ("./a/2.png", "cat", "train"),
    ("b\\3.png", "cat", "val"),
    ("b/4.png", "dog", "test"),
]


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


def paint_rows(root: Path) -> Path:
    for number, (name, _, _) in enumerate(ROWS):
        paint(root / name.replace("\\", "/"), 10 * number + 10)
    return root


def write_index(root: Path, name: str, rows: list[tuple[Any, ...]], header: tuple[str, ...]) -> Path:
    path = root / name
    if name.endswith(".parquet"):
        from pyarrow import parquet

        columns = {column: [row[i] for row in rows] for i, column in enumerate(header)}
        parquet.write_table(pyarrow.table(columns), path)
    else:
        mark = "\t" if name.endswith(".tsv") else ","
        path.write_text("".join(mark.join(map(str, line)) + "\n" for line in (header, *rows)), encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("name", ["index.csv", "index.tsv", "index.parquet"])
@pytest.mark.parametrize("header", [("file", "label", "split"), ("Path", "CLASS", "set"), ("image", "target", "part")])
@pytest.mark.parametrize("way", ["file", "folder", "zip"])
def test_tables_name_files_classes_and_parts(tmp_path: Path, name: str, header: tuple[str, ...], way: str) -> None:
    root = paint_rows(tmp_path / "pets")
    path = write_index(root, name, ROWS, header)
    files = {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    source = {"file": path, "folder": root, "zip": write_zip(tmp_path / "pets.zip", files)}[way]
    data = load(source)
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    found = {part: [t.tolist() for t in split.take(range(len(split)))] for part, split in data.parts.items()}
    values = {part: [row[0][0][0] for row in inputs] for part, (inputs, _) in found.items()}
    assert values == {"train": [10, 20], "validation": [30], "test": [40]}
    assert {part: labels for part, (_, labels) in found.items()} == {"train": [1, 0], "validation": [0], "test": [1]}


def test_several_tables_say_the_part_by_their_names(tmp_path: Path) -> None:
    root = paint_rows(tmp_path)
    for part in ("train", "val", "test"):
        rows = [row[:2] for row in ROWS if row[2] == part]
        write_index(root, f"{part}.csv", rows, ("file", "label"))
    data = load(root)
    assert {part: split.targets.tolist() for part, split in data.parts.items()} == {
        "train": [1, 0],
        "validation": [0],
        "test": [1],
    }
    (root / "val.csv").rename(root / "more.csv")
    assert message(lambda: load(root)) == (
        f"{root}: there are several index files, more.csv, test.csv, train.csv; name the one that is meant."
    )


def test_masks_may_be_named_and_files_may_lie_in_an_archive(tmp_path: Path) -> None:
    root = paint_masks(tmp_path / "x", (1, 1, 1, 1))
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}
    write_zip(tmp_path / "a.zip", files)
    rows = [(f"a.zip/images/{i:02}.png", f"a.zip/masks/{i:02}.png") for i in range(4)]
    data = load(write_index(tmp_path, "index.csv", rows, ("image", "mask")))
    assert (data.task, data.classes, len(data.train)) == ("masks", ("0", "1"), 3)


def test_numbers_are_classes_in_their_own_order(tmp_path: Path) -> None:
    root = paint_rows(tmp_path)
    numbers = [(name, number, part) for (name, _, part), number in zip(ROWS, (10, 9, 9, 10), strict=True)]
    path = write_index(root, "index.parquet", numbers, ("file", "label", "split"))
    assert load(path).classes == ("9", "10")
    (root / "classes.txt").write_text("\n".join(f"name {n}" for n in range(11)))
    data = load(path)
    assert (data.classes[9], data.train.targets.tolist()) == ("name 9", [10, 9])
    (root / "classes.txt").write_text("cat\ndog\n")
    assert message(lambda: load(path)) == f"{root}: classes.txt has no classes '10', '9'; it has cat, dog."


def test_missing_files_are_named_by_row(tmp_path: Path) -> None:
    root = paint_rows(tmp_path)
    rows = [*ROWS, ("../secret.png", "cat", "train"), ("b/5.png", "dog", "test")]
    path = write_index(root, "index.csv", rows, ("file", "label", "split"))
    listing = index_listing(tree(root), index_files(tree(root)))
    missing = (
        f"{path}, row 5: '../secret.png' leads elsewhere; paths begin at {root} and stay inside.",
        f"{path}, row 6: there is no file 'b/5.png' in {root}.",
    )
    assert listing.missing == missing
    assert message(lambda: load(path)).splitlines()[1:] == [f"  {line}" for line in missing]
    assert load(path, skip_bad=True).skipped == missing


BAD = [
    ("file,label\na/1.png\n", ", row 1: it has 1 fields, the header has 2."),
    ("file,label\n", ": it has no rows."),
    (
        "file,label,split\na/1.png,dog,holdout\n",
        ": the parts are train, validation and test, and some rows say:\n  {path}, row 1: 'holdout'",
    ),
    (
        "name,label\na/1.png,dog\n",
        (
            ": it is no index file: expected a header with a column of files (image, file, path, filename, file_name) "
            "and one of classes (label, class, target) or masks (mask)."
        ),
    ),
]


@pytest.mark.parametrize(("content", "text"), BAD)
def test_message_for_a_table_that_cannot_be_used(tmp_path: Path, content: str, text: str) -> None:
    path = paint_rows(tmp_path) / "index.csv"
    path.write_text(content)
    assert message(lambda: load(path)) == f"{path}{text}".replace("{path}", str(path))


def test_rows_with_nothing_in_a_column_are_named(tmp_path: Path) -> None:
    root = paint_rows(tmp_path)
    path = write_index(
        root, "index.csv", [*ROWS, ("a/1.png", " ", "train"), ("", "", "test")], ("file", "class", "set")
    )
    missing = (
        f"{path}, row 5: there is nothing under class.",
        f"{path}, row 6: there is nothing under file and class.",
    )
    assert survey(path).unreadable == missing
    assert message(lambda: load(path)).splitlines()[1:] == [f"  {line}" for line in missing]
    assert load(path, skip_bad=True).skipped == missing


def test_paths_may_be_absolute_and_turn_inside_the_folder(tmp_path: Path) -> None:
    root = paint_rows(tmp_path)
    names = [str(root / "a/1.png"), "b/../a/2.png", " .//b/3.png", "b/4.png "]
    rows = [(name, f" {label}", part) for name, (_, label, part) in zip(names, ROWS, strict=True)]
    data = load(write_index(root, "index.csv", rows, ("file", "label", "split")))
    assert data.classes == ("cat", "dog")
    assert data.train.inputs[:, 0, 0, 0].tolist() == [10, 20]
    path = write_index(root, "index.csv", [*rows, ("/etc/" + "x" * 200, "cat", "test")], ("file", "label", "split"))
    assert load(path, skip_bad=True).skipped == (
        f"{path}, row 5: '/etc/{'x' * 75}'... leads elsewhere; paths begin at {root} and stay inside.",
    )


def test_absolute_paths_lead_through_links_and_turns(tmp_path: Path) -> None:
    root = paint_rows(tmp_path / "real")
    rows = [(str(root / name), label, part) for name, label, part in ROWS]
    write_index(root, "index.csv", rows, ("file", "label", "split"))
    (tmp_path / "link").symlink_to(root)
    for way in (root / "a" / ".." / "index.csv", tmp_path / "link" / "index.csv"):
        assert load(way).train.inputs[:, 0, 0, 0].tolist() == [10, 20]


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = write_index(tmp_path, "index.csv", [("1.png", "a", "x")], ("file", "label", " Label"))
    assert message(lambda: load(path)) == f"{path}: 2 columns are called 'label'; rename all but one."


def test_an_index_comes_before_series(tmp_path: Path) -> None:
    """The names alone could be those of the UCR archive."""
    root = paint_rows(tmp_path)
    for part in ("train", "test"):
        write_index(
            root,
            f"pets_{part}.csv",
            [(n, c) for n, c, p in ROWS if (p == "train") == (part == "train")],
            ("file", "label"),
        )
    assert {part: len(split) for part, split in load(root).parts.items()} == {"train": 2, "test": 2}


def test_tables_that_cannot_be_read_are_no_index_unless_they_are_named(tmp_path: Path) -> None:
    paint_split(tmp_path)
    (tmp_path / "notes.csv").write_bytes("größe,wer\n3,ä\n".encode("latin-1"))
    (tmp_path / "rest.parquet").write_bytes(b"PAR1 no table")
    assert load(tmp_path).classes == ("cat", "dog")
    files = {str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*.png")}
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in [*files.items(), ("notes.csv", b"file,label\n1.png,a\n")]:
            archive.writestr(name, content)
    whole = packed.read_bytes()
    packed.write_bytes(whole.replace(b"file,label", b"file,LABEL"))  # its checksum is wrong now
    assert load(packed).classes == ("cat", "dog")
    assert message(lambda: load(tmp_path / "rest.parquet")).startswith(f"{tmp_path / 'rest.parquet'}: it is no Parquet")


def test_message_for_a_table_that_holds_the_files(tmp_path: Path) -> None:
    rows = [({"bytes": b"x" * 9999, "path": "1.png"}, "cat")]
    path = write_index(tmp_path, "index.parquet", rows, ("image", "label"))
    assert message(lambda: load(path)) == (
        f"{path}: its column image holds files, not their paths; give its folder as one of the Hugging Face hub: "
        f"hf:{tmp_path}"
    )


def test_messages_for_damaged_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes(b"file,label\n\xff,x\n")
    assert message(lambda: load(path)) == (
        f"{path}: it cannot be read as a table in UTF-8 text: "
        "'utf-8' codec can't decode byte 0xff in position 11: invalid start byte."
    )
    path.write_text('file,label\n"' + "x" * 200_000 + '",1\n')
    assert message(lambda: load(path)) == (
        f"{path}: it cannot be read as a table in UTF-8 text: field larger than field limit (131072)."
    )
    table = tmp_path / "index.parquet"
    table.write_bytes(b"PAR1 no table")
    assert message(lambda: load(table)).startswith(f"{table}: it is no Parquet file, or a damaged one: ")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert message(lambda: load(table)) == f"{table}: to read Parquet files: pip install 'striate[tables]'"


def test_a_class_that_only_the_test_part_has_cannot_be_learned(tmp_path: Path) -> None:
    root = paint_rows(tmp_path)
    rows = [(name, "emu" if part == "test" else label, part) for name, label, part in ROWS]
    path = write_index(root, "index.csv", rows, ("file", "label", "split"))
    assert message(lambda: load(path)) == (
        f"{root}: the classes 'emu' are not in the training part, so nothing can learn them."
    )
