"""Records on disk: whole, bounded, shared, and never in the way."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

from striate import files, wisdom
from striate.errors import DataError
from striate.wisdom import CHANGES, Wisdom


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "wisdom.jsonl"


def reread(path: Path) -> Wisdom:
    found = Wisdom(path)
    found.refresh()
    return found


def test_what_is_kept_is_found_by_others(path: Path) -> None:
    Wisdom(path).keep("a", {"vendor": 0.5, "fft": 0.25})
    other = reread(path)
    assert other.find("a") == {"vendor": 0.5, "fft": 0.25}
    assert other.find("b") is None


def test_the_newest_record_counts_and_a_grown_file_is_read_on(path: Path) -> None:
    first, second = Wisdom(path), Wisdom(path)
    first.keep("a", {"vendor": 1.0})
    second.keep("a", {"vendor": 2.0})
    second.keep("b", {"vendor": 3.0})
    assert first.find("b") is None
    before = CHANGES.count
    first.refresh()
    assert (first.find("a"), first.find("b")) == ({"vendor": 2.0}, {"vendor": 3.0})
    assert CHANGES.count > before
    before = CHANGES.count
    first.refresh()
    assert CHANGES.count == before


def test_threads_read_while_one_of_them_waits_for_another_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wisdom, "PATIENCE", 60.0)
    found = Wisdom(path)
    path.parent.mkdir()
    with FileLock(path.with_name(path.name + ".lock")):
        writer = threading.Thread(target=found.keep, args=("a", {"vendor": 1.0}))
        writer.start()
        while found.find("a") is None:
            writer.join(0.001)
        found.refresh()
        assert writer.is_alive()
    writer.join()
    assert reread(path).find("a") == {"vendor": 1.0}


def write_many(path: Path, writer: int) -> None:
    own = Wisdom(path)
    for number in range(25):
        own.keep(f"{writer}-{number} {'x' * 500}", {"vendor": 1.0 + number})


def test_many_processes_write_at_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    found = reread(path)
    assert len(found) == 100
    assert all(found.find(f"{w}-{n} {'x' * 500}") == {"vendor": 1.0 + n} for w in range(4) for n in range(25))


def test_a_torn_last_line_is_left_out_and_spoils_no_later_one(path: Path) -> None:
    Wisdom(path).keep("a", {"vendor": 1.0})
    with path.open("ab") as file:
        file.write(b'\n{"striate":1,"key":"b","seco')
    assert len(reread(path)) == 1
    Wisdom(path).keep("c", {"vendor": 2.0})
    found = reread(path)
    assert (found.find("a"), found.find("b"), found.find("c")) == ({"vendor": 1.0}, None, {"vendor": 2.0})


SPOILT = (
    b'{"striate":1,"key":"a","seconds":{"vendor":1.0}}\nnot a record\n{"striate":1,"key":"b","seconds":{"fft":-1}}\n'
)


def test_a_corrupt_file_gives_what_it_has_and_one_warning(path: Path) -> None:
    files.write(path, SPOILT)
    found = Wisdom(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.refresh()
        found.keep("c", {"vendor": 1.0})
        found.refresh()
    assert [str(one.message) for one in caught] == [
        f"Wisdom in {path}: line 2 is no record of wisdom, nor may others be; those are left out."
    ]
    assert (found.find("a"), found.find("b")) == ({"vendor": 1.0}, None)


@pytest.mark.parametrize("content", [b"name,score\n1,2\n", b"\x00\xff\n\xfe\n", b'["striate"]\n'])
def test_a_foreign_file_is_left_as_it_is_with_one_warning(path: Path, content: bytes) -> None:
    files.write(path, content)
    found = Wisdom(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.refresh()
        found.keep("a", {"vendor": 1.0})
    assert [str(one.message) for one in caught] == [
        f"Wisdom in {path}: line 1 is no record of wisdom; what is measured is kept in memory only."
    ]
    assert path.read_bytes() == content
    assert found.find("a") == {"vendor": 1.0}


def test_records_of_another_format_are_passed_over(path: Path) -> None:
    files.write(path, b'{"striate":2,"key":"a","seconds":{"vendor":1.0}}\n')
    assert len(reread(path)) == 0


def test_a_folder_that_cannot_be_written_leaves_memory_and_one_warning(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be", encoding="utf-8")
    found = Wisdom(tmp_path / "cache" / "wisdom.jsonl")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.keep("a", {"vendor": 1.0})
        found.keep("b", {"vendor": 2.0})
    assert len(caught) == 1
    assert str(caught[0].message).endswith("; what is measured is kept in memory only.")
    assert (found.find("a"), found.find("b")) == ({"vendor": 1.0}, {"vendor": 2.0})


def test_the_file_stays_within_its_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wisdom, "LIMIT", 20)
    found = Wisdom(path)
    for number in range(100):
        found.keep(f"{number}", {"vendor": 1.0})
        assert path.read_bytes().count(b"striate") <= 20
        assert len(found) <= 20
    again = reread(path)
    assert again.find("99") == {"vendor": 1.0}
    assert again.find("0") is None


def test_a_record_too_long_for_one_write_stays_in_memory(path: Path) -> None:
    found = Wisdom(path)
    found.keep("x" * 5000, {"vendor": 1.0})
    assert found.find("x" * 5000) == {"vendor": 1.0}
    assert len(reread(path)) == 0


def test_files_merge_and_one_s_own_records_stay(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    Wisdom(other).keep("a", {"vendor": 9.0})
    Wisdom(other).keep("b", {"vendor": 2.0})
    Wisdom(path).keep("a", {"vendor": 1.0})
    assert wisdom.merge([other], into=path) == 1
    found = reread(path)
    assert (found.find("a"), found.find("b")) == ({"vendor": 1.0}, {"vendor": 2.0})
    assert wisdom.merge([other], into=path) == 0


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        wisdom.merge([tmp_path / "none"], into=tmp_path / "mine")
    assert str(caught.value) == f"{tmp_path / 'none'}: cannot be read (No such file or directory)."
    (tmp_path / "list.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        wisdom.merge([tmp_path / "list.csv"], into=tmp_path / "mine")
    assert str(caught.value) == f"{tmp_path / 'list.csv'}: holds no records of wisdom."


def test_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path))
    assert wisdom.opened().path == tmp_path / "wisdom.jsonl"
    assert wisdom.opened() is wisdom.opened()
    monkeypatch.delenv("STRIATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg" / "striate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "striate"


def test_nothing_warns_where_there_is_no_file(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(reread(path)) == 0
