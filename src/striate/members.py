"""Single files: on disk, in memory, or members of archives, which are read in place; all in one way."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError

LIMIT = 2**30
"""Bytes that are read of one file at most, unless the caller says otherwise."""

EAGER = 2**24  # bytes of a packed member that is unpacked at once when it is opened
CHUNK = 2**20
JUMPS = 16  # how often a larger one may begin again


class Entry(ABC):
    """Bytes somewhere, with a name: a file, a member of an archive, or bytes in memory. A value; it can be pickled.

    Attributes:
        name: Its path below the place that was listed, with ``/`` between the parts.
    """

    __slots__ = ()
    name: str

    @property
    @abstractmethod
    def where(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many bytes it has, or declares to have."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """Its bytes as a file that can seek."""

    def read(self, limit: int = LIMIT) -> bytes:
        """All its bytes.

        Raises:
            DataError: There are more than ``limit``, or they cannot be read.
        """
        with naming(self), self.open() as file:
            content = file.read(min(limit, self.size) + 1)
        if len(content) > limit:
            raise DataError(f"{self}: it has more than {limit:,} bytes, the most that is read of one file.")
        return content

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True, slots=True)
class File(Entry):
    """A file of its own."""

    name: str
    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """As the file system says now."""
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """The file itself."""
        return self.path.open("rb")


@dataclass(frozen=True, slots=True)
class Memory(Entry):
    """Bytes that are there already."""

    name: str
    content: bytes = field(repr=False)

    @property
    def where(self) -> str:
        """Its name."""
        return self.name

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.content)

    def open(self) -> BinaryIO:
        """The bytes as a file."""
        return io.BytesIO(self.content)


@dataclass(frozen=True, slots=True)
class Member(Entry):
    """A member of an archive, whose name is only a name: nothing is ever written under it.

    Args:
        name: Below the folder of the archive that was listed.
        archive: The archive.
        member: Its whole name in the archive.
        declared: Its size, as the archive says.
        start: Where it begins: the local header of a zip's member, the first byte of a tar's.
        packed: Its bytes in a zip; None if it lies in a tar, as it is.
        checksum: CRC-32, in a zip.
        method: How a zip packed it.
        refused: Why it cannot be read; nobody needs to know who does not read it.
    """

    name: str
    archive: Path
    member: str
    declared: int
    start: int
    packed: int | None = None
    checksum: int = 0
    method: int = zipfile.ZIP_STORED
    refused: str = ""

    @property
    def where(self) -> str:
        """The archive and the name in it."""
        return f"{self.archive}: {self.member}"

    @property
    def size(self) -> int:
        """As the archive says."""
        return self.declared

    def open(self) -> BinaryIO:
        """Its bytes as a file in memory; of a large one that is packed, as a file that is unpacked as it is read."""
        if self.size <= EAGER or self.method == zipfile.ZIP_STORED:
            return io.BytesIO(self.read())
        self._check(LIMIT)
        with naming(self):
            return io.BufferedReader(_Unpacking(self), CHUNK)

    def read(self, limit: int = LIMIT) -> bytes:
        """All its bytes, from where they lie; never more than the archive declares."""
        self._check(limit)
        with naming(self), self.archive.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.size) if self.packed is None else self._unpacked(file, self.packed)
        if len(content) != self.size:
            raise self.damaged("or cut short")
        return content

    def _check(self, limit: int) -> None:
        if self.refused:
            raise DataError(f"{self}: {self.refused}")
        if self.size > limit:
            raise DataError(f"{self}: it declares {self.size:,} bytes; at most {limit:,} are read of one file.")

    def damaged(self, how: str) -> DataError:
        """The error that says so."""
        return DataError(f"{self}: the archive is damaged{'' if how[0] == ':' else ' '}{how}.")

    def enter(self, file: BinaryIO) -> None:
        """Go to the first packed byte of a zip's member."""
        file.seek(self.start)
        head = file.read(30)
        if head[:4] != b"PK\3\4" or len(head) < 30:
            raise self.damaged("or cut short")
        file.seek(sum(struct.unpack("<HH", head[26:30])), io.SEEK_CUR)

    def _unpacked(self, file: BinaryIO, packed: int) -> bytes:
        self.enter(file)
        content = file.read(packed)
        if self.method == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-15).decompress(content, self.size + 1)
            except zlib.error as error:
                raise self.damaged(f": {error}") from None
        if len(content) == self.size and zlib.crc32(content) != self.checksum:
            raise self.damaged(": its checksum is wrong")
        return content


class _Unpacking(io.RawIOBase):
    """A member that a zip packed by DEFLATE, unpacked as it is read: no more of it is in memory than was asked for.

    It is unpacked once beforehand to compare its size and checksum. To go back, it begins again.
    """

    def __init__(self, member: Member) -> None:
        self.member, self.jumps = member, 0
        self.file = member.archive.open("rb")
        try:
            member.enter(self.file)
            self.start = self.file.tell()
            self._begin()
            self._verify()
        except BaseException:
            self.file.close()
            raise

    def _begin(self) -> None:
        if self.jumps > JUMPS:
            raise DataError(f"{self.member}: it is read to and fro too often for a packed file; unpack the archive.")
        self.file.seek(self.start)
        self.jumps, self.place, self.left = self.jumps + 1, 0, self.member.packed or 0
        self.inflating = zlib.decompressobj(-15)

    def _verify(self) -> None:
        checksum = 0
        while self.place <= self.member.size and (chunk := self.read(CHUNK)):
            checksum = zlib.crc32(chunk, checksum)
        if self.place != self.member.size:
            raise self.member.damaged("or cut short")
        if checksum != self.member.checksum:
            raise self.member.damaged(": its checksum is wrong")
        self._begin()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        found, more = b"", True
        while not found and more:
            packed = self.inflating.unconsumed_tail or self.file.read(min(CHUNK, self.left))
            self.left -= 0 if self.inflating.unconsumed_tail else len(packed)
            more = bool(packed)
            try:
                found = self.inflating.decompress(packed, len(buffer))
            except zlib.error as error:
                raise self.member.damaged(f": {error}") from None
        buffer[: len(found)] = found
        self.place += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        goal = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.member.size}[whence]
        if goal < self.place:
            self._begin()
        while self.place < goal and self.read(min(CHUNK, goal - self.place)):
            pass
        return self.place

    def close(self) -> None:
        self.file.close()
        super().close()


Source = str | os.PathLike[str] | bytes | BinaryIO | Entry


def entry(source: Source) -> Entry:
    """One path, bytes, or an open binary file as an :class:`Entry`; an entry is itself.

    >>> entry(b"abc").size, str(entry("cat/1.png").name)
    (3, '1.png')
    """
    if isinstance(source, Entry):
        return source
    if isinstance(source, bytes):
        return Memory("the bytes given", source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return File(path.name, path)
    name = getattr(source, "name", None)
    return Memory(name if isinstance(name, str) else "the bytes given", _all_of(source))


def _all_of(file: BinaryIO) -> bytes:
    content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise DataError(f"the input has more than {LIMIT:,} bytes, the most that is read of one file.")
    return content


@contextmanager
def naming(source: object) -> Iterator[None]:
    """What the file system says, as a :class:`DataError` that names the file or folder."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or source}: it cannot be opened: {error.strerror or error}.") from None
