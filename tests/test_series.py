"""Series: .ts files and the older tables come back as written, and a bad line is named by its number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from striate.datasets import load
from striate.errors import DataError

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


BAD = [
    ("1,2:up\n1,x:down\n", ", line 8: could not convert string to float: 'x'; missing values must be filled in first."),
    ("1,?:up\n", ", line 7: could not convert string to float: '?'; missing values must be filled in first."),
    ("1,nan:up\n", ", line 7: it has missing or infinite values, which must be filled in first."),
    ("1,2:left\n", ", line 7: 'left' is none of its classes, up, down."),
    ("1,2\n", ", line 7: '1,2' is none of its classes, up, down."),
    ("1,2:1:up\n", ", line 7: its channels have lengths 2, 1; all need the same."),
    ("1,2:up\n1,2:3,4:down\n", ": its series have 1, 2 channels; all need the same."),
    ("\n", ": it holds no series."),
]


@pytest.mark.parametrize(("lines", "text"), BAD)
def test_message_for_a_bad_line(tmp_path: Path, lines: str, text: str) -> None:
    write(tmp_path, HEADER + lines)
    assert message(lambda: load(tmp_path)) == f"{tmp_path / 'Waves_TRAIN.ts'}{text}"


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


@pytest.mark.skipif(not UCR.is_file(), reason=f"the UCR and UEA series are not at {UCR}")
def test_real_series() -> None:
    motions, guns = load(f"{UCR}/BasicMotions"), load(f"{UCR}/GunPoint")
    assert (motions.shape, motions.classes) == ((6, 100), ("Standing", "Running", "Walking", "Badminton"))
    assert (guns.shape, len(guns.train), len(guns.test)) == ((1, 150), 50, 150)
