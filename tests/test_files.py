"""A file is either the old one or the new one, whole; nothing else is left behind."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from striate import files
from striate.errors import OutputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    files.write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        files.write(path, b"new")
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device). The file that was there before is unchanged."
    )
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_ctrl_c_in_the_middle_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    files.write(path, b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OutputError) as caught:
        files.write(tmp_path / "runs" / "a.bin", b"new")
    assert str(caught.value) == f"{tmp_path / 'runs' / 'a.bin'}: cannot be written (File exists)."


def test_a_real_limit_on_the_file_size_is_survived(tmp_path: Path) -> None:
    """The system itself refuses the bytes, as a full disk does."""
    program = f"""
import resource, signal
from pathlib import Path
from striate import files
from striate.errors import OutputError
path = Path({str(tmp_path / "a.bin")!r})
files.write(path, b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write(path, b"x" * 100_000)
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    path = tmp_path / "a.bin"
    assert done.stdout == f"{path}: cannot be written (File too large). The file that was there before is unchanged.\n"
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    files.write(tmp_path / "a.bin", b"x")
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.bin", "plain")]
    assert modes[0] == modes[1]
