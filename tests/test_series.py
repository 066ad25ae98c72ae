"""Series: .ts files and the older tables come back as written, and a bad line is named by its number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import striate
from striate.datasets import load
from striate.errors import DataError
from striate.indexes import EXPECTED
from striate.members import Memory
from striate.series import parse
from striate.surveys import survey

from .test_storage import write_zip

UCR = Path(__file__).parents[2] / "shared" / "data" / "series" / "ucr.zip"
HEADER = "# by hand\n@problemName Waves\n@timeStamps false\n@univariate true\n@classLabel true up down\n@data\n"


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


def write(root: Path, train: str, test: str = "", ending: str = "ts") -> Path:
    (root / f"Waves_TRAIN.{ending}").write_text(train)
    (root / f"Waves_TEST.{ending}").write_text(test or train)
    return root


def test_series_come_back(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "1,2,3:down\n4,5,6:up\n", HEADER + "7,8,9:up\n")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for source in (
        tmp_path,
        tmp_path / "Waves_TRAIN.ts",
        tmp_path / "Waves_TEST.ts",
        write_zip(tmp_path / "a.zip", files),
    ):
        data = load(source)
        assert (data.name, data.classes, data.shape) == ("Waves", ("up", "down"), (1, 3))
        assert data.train.inputs.tolist() == [[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]
        assert (data.train.targets.tolist(), data.test.targets.tolist()) == ([1, 0], [0])
        assert data.reader is not None
        assert (data.reader.kind, data.reader.dtype) == ("series", "float32")


def test_channels_are_separated_by_colons(tmp_path: Path) -> None:
    data = load(write(tmp_path, HEADER + "1,2:3,4:5,6:up\n1,1:2,2:3,3:down\n"))
    assert data.train.inputs[0].tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize(("ending", "mark"), [("tsv", "\t"), ("csv", ","), ("txt", "   ")])
def test_the_older_tables_begin_with_the_class(tmp_path: Path, ending: str, mark: str) -> None:
    lines = [["10", "1", "2"], ["-1", "3", "4"], ["9.0", "5", "6"]]
    data = load(write(tmp_path, "".join(mark.join(line) + "\n" for line in lines), ending=ending))
    assert data.classes == ("-1", "9", "10")
    assert data.train.targets.tolist() == [2, 0, 1]
    assert data.train.inputs[:, 0].tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


def test_one_file_is_split(tmp_path: Path) -> None:
    text = HEADER + "".join(f"{n},{n}:{'up' if n % 2 else 'down'}\n" for n in range(12))
    (tmp_path / "Waves.ts").write_text(text)
    for source in (tmp_path, tmp_path / "Waves.ts"):
        data = load(source)
        assert (data.name, len(data.train), data.test.targets.bincount().tolist()) == ("Waves", 10, [1, 1])


def test_lengths_that_differ_need_one_for_all(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "1,2,3:up\n4,5,6,7,8:down\n")
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: the series have 2 lengths, 3 to 5. "
        "Give one length for all: --size 100 on the command line, size=(100,) in Python."
    )
    found = load(tmp_path, size=(4,)).train.inputs[:, 0]
    assert torch.equal(found, torch.tensor([[1.0, 2, 3, 0], [4, 5, 6, 7]]))


FILL = "missing values must be filled in first."
REPAIR = "Repair or remove them, or leave them out (--skip-bad on the command line, skip_bad=True in Python)"
BAD = [
    ("1,x:down", f"could not convert string to float: 'x'; {FILL}"),
    ("1,?:up", f"could not convert string to float: '?'; {FILL}"),
    ("1,,3:up", f"could not convert string to float: ''; {FILL}"),
    ("1,nan:up", f"it holds nan, no finite float32; {FILL}"),
    ("1,1e300:up", f"it holds 1e+300, no finite float32; {FILL}"),
    ("1,2:left", "'left' is none of its classes, up, down."),
    ("1,2", "expected the values, a colon and then the class, got '1,2'."),
    ("1,2:1:up", "its channels have lengths 2, 1; all need the same."),
]
GOOD = "1,2:up\n3,4:down\n"


@pytest.mark.parametrize(("line", "text"), BAD)
def test_a_bad_line_is_named_and_may_be_left_out(tmp_path: Path, line: str, text: str) -> None:
    write(tmp_path, HEADER + GOOD + line + "\n", HEADER + GOOD)
    bad = f"{tmp_path / 'Waves_TRAIN.ts'}, line 9: {text}"
    assert message(lambda: load(tmp_path)) == f"{tmp_path}: 1 of 5 series cannot be used. {REPAIR}:\n  {bad}"
    data = load(tmp_path, skip_bad=True)
    assert (data.skipped, data.train.targets.tolist()) == ((bad,), [0, 1])
    found = survey(tmp_path)
    assert (found.unreadable, found.counts["train"]) == ((bad,), {"up": 1, "down": 1})
    write(tmp_path, HEADER + line, HEADER + GOOD)
    assert message(lambda: load(tmp_path, skip_bad=True)).startswith(f"{tmp_path}: 1 of 3 series cannot be used. ")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_an_empty_cell_of_a_table_does_not_move_the_others(tmp_path: Path, mark: str) -> None:
    good = "1,1,2,3\n2,1,2,3\n".replace(",", mark)
    write(tmp_path, good + "1,1,,3\n?,1,2,3\n".replace(",", mark) + f"{mark}1{mark}2\n", good, "csv")
    where = tmp_path / "Waves_TRAIN.csv"
    assert load(tmp_path, skip_bad=True).skipped == (
        f"{where}, line 3: could not convert string to float: ''; {FILL}",
        f"{where}, line 4: '?' says no class.",
        f"{where}, line 5: '' says no class.",
    )


def test_classes_of_tables_are_compared_as_numbers(tmp_path: Path) -> None:
    write(tmp_path, "  1.0000000e+00 1 2\n  2.0000000e+00 3 4\n", "2 1 2\n01 3 4\n", "txt")
    data = load(tmp_path)
    assert (data.classes, data.train.targets.tolist(), data.test.targets.tolist()) == (("1", "2"), [0, 1], [1, 0])


def test_classes_of_headers_are_compared_as_numbers(tmp_path: Path) -> None:
    header = HEADER.replace("up down", "1 2.0 x")
    write(tmp_path, header + "1,2:1.0\n3,4:02\n5,6: x\n", HEADER.replace("up down", "2 1.0 x") + "1,2:2.0000000e+00\n")
    data = load(tmp_path)
    assert (data.classes, data.train.targets.tolist(), data.test.targets.tolist()) == (("1", "2", "x"), [0, 1, 2], [1])


def test_many_classes_take_little_time_and_few_words(tmp_path: Path) -> None:
    """Every line of a part has a class of its own, and every other line one that the header lacks.

    Comparing each with each other would take many minutes.
    """
    count = 100_000
    header = HEADER.replace("up down", " ".join(f"c{n}" for n in range(count)))
    good, bad = ("".join(f"{n}:{kind}{n}\n" for n in range(count)) for kind in "cx")
    found = parse(Memory("a.ts", f"{header}{good}{bad}".encode()))
    assert (len(found.rows), len(found.bad)) == (count, count)
    named = ", ".join(f"c{n}" for n in range(10))
    assert found.bad[0] == f"a.ts, line 100007: 'x0' is none of its classes, {named} and 99,990 more."
    write(tmp_path, header + good, header.replace(" c", " d") + good.replace(":c", ":d"))
    strange = ", ".join(repr(name) for name in sorted(f"d{n}" for n in range(count))[:10])
    assert message(lambda: load(tmp_path)).endswith(
        f"_TRAIN.ts has no classes {strange} and 99,990 more; it has {named} and 99,990 more."
    )


UNLABELLED = [
    ("a.ts", HEADER + "1,2:3,4:?\n5,6:7,8:left\n9,9:9,9:\n"),
    ("a.ts", "@classLabel false\n@data\n1,2:3,4\n5,6:7,8\n9,9:9,9\n"),
    ("a.ts", "@univariate false\n@data\n1,2:3,4\n5,6:7,8\n9,9:9,9\n"),
]


@pytest.mark.parametrize(("name", "content"), UNLABELLED)
def test_classes_that_are_not_looked_at_may_be_anything(name: str, content: str) -> None:
    found = parse(Memory(name, content.encode()), labelled=False)
    assert ([row.tolist() for row in found.rows], found.bad) == (
        [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]], [[9.0, 9.0], [9.0, 9.0]]],
        (),
    )


def test_series_without_classes_are_predicted(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "1,2:up\n3,4:down\n5,6:up\n7,8:down\n")
    run = striate.train("INPUT -> FC", tmp_path, out=tmp_path / "run", epochs=1, report=False)
    (tmp_path / "new.tsv").write_text("?\t1\t2\nnan\t3\t4\n\t5\t6\n")
    (tmp_path / "new.ts").write_text("@classLabel false\n@data\n1,2\n3,4\n5,6\n")
    table, headed = (
        [one.probabilities for one in striate.predict(run.folder, tmp_path / f"new.{e}")] for e in ("tsv", "ts")
    )
    assert (len(table), table) == (3, headed)
    (tmp_path / "new.ts").write_text("@classLabel true up down\n@data\n1,2\n")
    assert message(lambda: striate.predict(run.folder, tmp_path / "new.ts")) == (
        f"{tmp_path / 'new.ts'}, line 3: expected the values, a colon and then the class, got '1,2'."
    )


def test_a_class_that_the_first_header_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path, HEADER + GOOD, HEADER.replace("up down", "up left") + "1,2:up\n")
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path / 'Waves_TEST.ts'}: {tmp_path / 'Waves_TRAIN.ts'} has no classes 'left'; it has up, down."
    )


def test_a_survey_takes_series_of_several_shapes(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "1,2,3:up\n4,5,6,7,8:down\n1,2:3,4:up\n")
    found = survey(tmp_path)
    assert found.sizes == {"smallest": [2], "median": [3], "largest": [5], "different": 3}
    assert (dict(found.channels), found.mean) == ({1: 4, 2: 2}, ((36 + 3) / 10, (36 + 7) / 10))
    assert message(lambda: load(tmp_path)) == f"{tmp_path}: the series have 1, 2 channels; all need the same."


def test_a_class_that_only_the_test_part_has_is_refused(tmp_path: Path) -> None:
    for ending, train, test in (
        ("tsv", "1\t1\t2\n2\t3\t4\n", "1\t1\t2\n3\t3\t4\n"),
        ("ts", HEADER.replace("up", "1").replace("down", "2 3") + "1,2:1\n3,4:2\n", HEADER + "1,2:3\n"),
    ):
        folder = tmp_path / ending
        folder.mkdir()
        write(folder, train, test.replace("up", "1").replace("down", "2 3"), ending)
        unlearned = f"{folder}: the classes '3' are not in the training part, so nothing can learn them."
        assert message(partial(load, folder)) == unlearned
        assert survey(folder).refused == unlearned


def test_a_folder_of_several_sets_is_refused_by_their_names(tmp_path: Path) -> None:
    for name in ("Tides", "Winds"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, HEADER + "1,2:up\n3,4:down\n")
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: the folders in it are data sets of their own; give one of them:"
        f"\n  {tmp_path / 'Tides'}\n  {tmp_path / 'Winds'}"
    )
    files = {f"all/{path.relative_to(tmp_path)}": path.read_bytes() for path in tmp_path.rglob("*.ts")}
    path = write_zip(tmp_path / "all.zip", files)
    *_, tides, winds = message(lambda: load(path)).split("\n")
    assert [tides, winds] == [f"  {path}/Tides", f"  {path}/Winds"]
    assert [load(source).classes for source in (tides.strip(), f"{path}/all/Winds")] == [("up", "down")] * 2


def test_messages_for_headers_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "Waves_TRAIN.ts"
    write(tmp_path, "@classLabel false\n@data\n1,2\n")
    assert message(lambda: load(tmp_path)) == (
        f"{path}: its header has no @classLabel true with the classes, and nothing else can be learned."
    )
    write(tmp_path, HEADER.replace("Stamps false", "Stamps true") + "(1,2):up\n")
    assert (
        message(lambda: load(tmp_path)) == f"{path}: its values have time stamps; only evenly spaced series are read."
    )
    path.write_bytes(b"\xff")
    assert message(lambda: load(tmp_path)) == (
        f"{path}: it cannot be read as UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 0: "
        "invalid start byte."
    )
    (tmp_path / "Other_TRAIN.ts").write_text(HEADER)
    assert message(lambda: load(tmp_path)) == (
        f"{tmp_path}: there are several data sets, Other, Waves; name a file of one."
    )


def write_several(root: Path) -> Path:
    """Sets that each have their own classes, and tables that are none."""
    for name in ("Foo", "Foo_Two", "A"):
        for part in ("TRAIN", "TEST"):
            (root / f"{name}_{part}.ts").write_text(f"@classLabel true {name} other\n@data\n1,2:{name}\n3,4:other\n")
    for name in ("bar_train.tsv", "bar_test.tsv", "A_TRAIN.txt", "A_TEST.txt"):
        (root / name).write_text(f"{name[:3]}\t1\t2\nother\t3\t4\n")
    for name in ("B.ts", "C.ts"):
        (root / name).write_text(f"@classLabel true {name[0]} other\n@data\n" + f"1,2:{name[0]}\n3,4:other\n" * 6)
    (root / "notes.csv").write_text("date,note\n")
    return root


@pytest.mark.parametrize(
    ("file", "name", "first"),
    [
        ("Foo_TRAIN.ts", "Foo", "Foo"),
        ("Foo_Two_TRAIN.ts", "Foo_Two", "Foo_Two"),
        ("Foo_Two_TEST.ts", "Foo_Two", "Foo_Two"),
        ("bar_train.tsv", "bar", "bar"),
        ("A_TEST.ts", "A", "A"),
        ("A_TRAIN.txt", "A", "A_T"),
        ("B.ts", "B", "B"),
        ("C.ts", "C", "C"),
    ],
)
def test_the_set_of_the_file_that_is_named_is_loaded(tmp_path: Path, file: str, name: str, first: str) -> None:
    data = load(write_several(tmp_path) / file)
    assert (data.name, sorted(data.classes)) == (name, sorted([first, "other"]))


def test_a_file_that_is_named_and_no_set_is_refused(tmp_path: Path) -> None:
    folder = write_several(tmp_path)
    assert message(lambda: load(folder / "notes.csv")) == f"{folder / 'notes.csv'}: {EXPECTED}"
    (folder / "Foo_TRAIN.ts").unlink()
    assert message(lambda: load(folder / "Foo_TEST.ts")) == (
        f"{folder / 'Foo_TEST.ts'}: there is no NAME_TRAIN.ts to learn from beside this NAME_TEST.ts."
    )


@pytest.mark.skipif(not UCR.is_file(), reason=f"the UCR and UEA series are not at {UCR}")
def test_real_series() -> None:
    motions, guns = load(f"{UCR}/BasicMotions"), load(f"{UCR}/GunPoint")
    assert (motions.shape, motions.classes) == ((6, 100), ("Standing", "Running", "Walking", "Badminton"))
    assert (guns.shape, len(guns.train), len(guns.test)) == ((1, 150), 50, 150)
