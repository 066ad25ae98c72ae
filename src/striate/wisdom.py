"""What was measured, kept: one line of JSON for each record, in a file that all processes of a user share.

A record is a key (a text that says all that a measurement depends on) and seconds by name. Lines are appended whole, a
reader leaves out a torn last one, and what is not a record is left out with one warning. The newest record of a key
counts. Records hold no tensors.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from math import isfinite
from pathlib import Path
from threading import RLock
from typing import Any

from filelock import FileLock, Timeout

from . import files
from .errors import DataError
from .policy import Policy

FORMAT = 1
LIMIT = 10_000  # records of a file
LINE = 4096  # bytes of a record: so much is appended in one piece
PATIENCE = 10.0  # seconds to wait for another process that writes

START = b'{"striate":'

Record = dict[str, float]
IGNORED: tuple[str, Record] = ("", {})


class Changes:
    """Counts what any wisdom has learned: a plan that was made before is looked up anew."""

    def __init__(self) -> None:
        self.count = 0


CHANGES = Changes()


class Wisdom:
    """The records of one file, read when first needed and again when the file has grown.

    Where the file cannot be written, records stay in memory, and one warning says so.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._seen: tuple[int, int] = (0, 0)  # the file's number, and how far it was read
        self._lines = 0
        self._kept_only_here = False
        self._warned = False
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._records)

    def refresh(self) -> None:
        """Read what the file holds by now and was not read before."""
        with self._lock:
            try:
                stat = self.path.stat()
            except OSError:  # there is none, or none that may be looked at
                return
            number, read = self._seen
            if number != stat.st_ino or stat.st_size < read:
                read, self._lines = 0, 0
            if stat.st_size > read:
                self._read(stat.st_ino, read)

    def find(self, key: str) -> Record | None:
        """The newest record of a key, among those read so far."""
        return self._records.get(key)

    def snapshot(self) -> dict[str, Record]:
        """All records of now."""
        self.refresh()
        with self._lock:
            return dict(self._records)

    def keep(self, key: str, seconds: Record) -> None:
        """Add a record, here and in the file."""
        with self._lock:
            self._remember(key, seconds)
        self._append([_line(key, seconds)])

    def merge(self, paths: Iterable[str | Path]) -> int:
        """Add the records of other files whose keys are not known here; how many those were.

        Raises:
            DataError: A file cannot be read, or holds no records.
        """
        self.refresh()
        added = 0
        for path in map(Path, paths):
            try:
                found, _, _ = _parsed(path.read_bytes())
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
            if not found:
                raise DataError(f"{path}: holds no records of wisdom.")
            with self._lock:
                new = {key: seconds for key, seconds in found if key not in self._records}
                for key, seconds in new.items():
                    self._remember(key, seconds)
            self._append([_line(key, seconds) for key, seconds in new.items()])
            added += len(new)
        return added

    def _remember(self, key: str, seconds: Record) -> None:
        before, self._records[key] = self._records.get(key), seconds
        self._records.move_to_end(key)  # the newest stands last
        while len(self._records) > LIMIT:
            self._records.popitem(last=False)
        if before != seconds:
            CHANGES.count += 1

    def _read(self, number: int, start: int) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                content = file.read()
        except OSError as error:
            self._stay_here(f"cannot be read ({error.strerror or error})")
            return
        found, wrong, whole = _parsed(content)
        for key, seconds in found:
            self._remember(key, seconds)
        self._seen = (number, start + whole)
        self._lines += len(found)
        if wrong and start == 0 and not found:
            self._stay_here(f"line {wrong} is no record of wisdom")
        elif wrong and not self._warned:
            self._warn(f"line {wrong} is no record of wisdom, nor may others be; those are left out")

    def _append(self, lines: list[bytes]) -> None:
        """Every record stands between line ends, so that one that is torn spoils no other.

        Other processes are waited for before the lock of this one's threads is taken: they may read meanwhile.
        """
        if self._foreign() or not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(self.path.name + ".lock"), timeout=PATIENCE), self._lock:
                self.refresh()
                if self._foreign():
                    return
                if self._lines + len(lines) > LIMIT:
                    self._compact()
                    return
                descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                try:
                    for line in lines:
                        os.write(descriptor, line)
                finally:
                    os.close(descriptor)
                self.refresh()
        except Timeout:
            return  # others are writing: what is known here will do for now
        except OSError as error:
            self._stay_here(f"cannot be written ({error.strerror or error})")

    def _foreign(self) -> bool:
        """Whether reading has shown that the file is not to be written."""
        return self._kept_only_here

    def _compact(self) -> None:
        """Write the newest records, three quarters of the limit, to a file of their own that takes the old one's place.

        Only the holder of the lock does, after reading all: nothing that others wrote is lost but the oldest.
        """
        newest = list(self._records.items())[-LIMIT * 3 // 4 :]
        content = b"".join(_line(key, seconds) for key, seconds in newest)
        files.write(self.path, content)
        self._seen, self._lines = (self.path.stat().st_ino, len(content)), len(newest)

    def _stay_here(self, why: str) -> None:
        self._kept_only_here = True
        if not self._warned:
            self._warn(f"{why}; what is measured is kept in memory only")

    def _warn(self, why: str) -> None:
        self._warned = True
        warnings.warn(f"Wisdom in {self.path}: {why}.", RuntimeWarning, stacklevel=2)


def _line(key: str, seconds: Record) -> bytes:
    """A record as it stands in the file; one too long to be appended in one piece is left out."""
    written = json.dumps({"striate": FORMAT, "key": key, "seconds": seconds}, separators=(",", ":"))
    line = f"\n{written}\n".encode()
    return line if len(line) <= LINE else b""


def _parsed(content: bytes) -> tuple[list[tuple[str, Record]], int, int]:
    """The records, the number of the first line that is none (0: there is no such), and the bytes of whole lines."""
    whole = content.rfind(b"\n") + 1
    found, wrong = [], 0
    for number, line in enumerate(content[:whole].split(b"\n"), start=1):
        record = _record(line) if line.strip() else IGNORED
        if record is None:
            wrong = wrong or number
        elif record is not IGNORED:
            found.append(record)
    return found, wrong, whole


def _record(line: bytes) -> tuple[str, Record] | None:
    """What a line holds; nothing, if it is torn or of another version of this file; None, if it is foreign."""
    try:
        value = json.loads(line)
    except ValueError:  # bytes that are no text are one, too
        return IGNORED if line.startswith(START) else None
    if not isinstance(value, dict) or type(value.get("striate")) is not int:
        return None
    if value["striate"] != FORMAT:
        return IGNORED
    key, seconds = value.get("key"), value.get("seconds")
    if not isinstance(key, str) or not isinstance(seconds, dict) or not all(map(_sound, seconds.values())):
        return None
    return key, {str(name): float(n) for name, n in seconds.items()}


def _sound(number: Any) -> bool:
    return type(number) in (int, float) and isfinite(number) and number > 0


@lru_cache(maxsize=64)
def _opened(path: Path) -> Wisdom:
    return Wisdom(path)


def opened(path: str | None = None) -> Wisdom:
    """The wisdom of a file, one for the whole process; None is that of the cache folder."""
    return _opened(Path(path) if path else files.cache_folder() / "wisdom.jsonl")


def recall(key: str, policy: Policy, path: str | None = None) -> Record | None:
    """The record of a key that plans under a policy go by: the newest; frozen, that of when it was first asked."""
    kept = opened(path)
    if policy.rigor != "frozen":
        kept.refresh()
        return kept.find(key)
    records = policy.account.records
    if path not in records:
        records.setdefault(path, kept.snapshot())
    return records[path].get(key)


def merge(paths: Iterable[str | Path], into: str | Path | None = None) -> int:
    """Add the records of other files to the cache folder's, or to another file's; how many were new.

    Raises:
        DataError: A file cannot be read, or holds no records.
    """
    return opened(None if into is None else str(into)).merge(paths)
