"""Writing a file so that at every instant it is either the old one or the new one, whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .errors import OutputError


def is_file(path: str | Path) -> bool:
    """Whether there is such a file: what is too long for a name, as a network's text may be, names none.

    >>> is_file("INPUT 1x8x8 -> FC 2" + " -> RELU" * 100)
    False
    """
    return os.path.isfile(path)  # noqa: PTH113  (pathlib's raises for long names)


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder, likewise."""
    return os.path.isdir(path)  # noqa: PTH112


def write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in the same folder, then rename it; missing folders are made.

    Raises:
        OutputError: The disk is full, or the folder cannot be written. An earlier file of the same name is as it
            was, and nothing else is left behind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "runs", "a.txt"), b"whole")
    ...     Path(folder, "runs", "a.txt").read_bytes()
    b'whole'
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        kept = " The file that was there before is unchanged." if path.exists() else ""
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).{kept}") from None


def cache_folder() -> Path:
    """Where Striate keeps what it can find again: ``STRIATE_CACHE``, or ``striate`` in the user's cache folder."""
    if own := os.environ.get("STRIATE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "striate")
