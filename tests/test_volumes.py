"""Volumes and NPY files: written numbers come back, and headers are believed only as far as the file goes."""

from __future__ import annotations

import gzip
import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from striate import volumes
from striate.errors import DataError

nibabel = pytest.importorskip("nibabel", reason="the extra 'medical' is not installed")


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def nifti(array: Any, *, slope: float | None = None, kind: Any = None) -> bytes:
    image = (kind or nibabel.Nifti1Image)(array, np.eye(4))
    if slope is not None:
        image.header.set_slope_inter(slope, 1)
    content: bytes = image.to_bytes()
    return content


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


COUNT = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        *[("uint8", torch.uint8), ("bool", torch.uint8), ("int16", torch.int16), ("int8", torch.int16)],
        *[("float32", torch.float32), ("float64", torch.float32), (">f4", torch.float32), ("int64", torch.float32)],
    ],
)
def test_npy_files_come_back(tmp_path: Path, given: str, dtype: torch.dtype) -> None:
    array = COUNT.astype(given)
    for path, content in ((tmp_path / "a.npy", npy(array)), (tmp_path / "b.npy", npy(np.asfortranarray(array)))):
        path.write_bytes(content)
        found = volumes.read(path)
        torch.testing.assert_close(found, torch.from_numpy(array.astype(np.float64))[None].to(dtype), rtol=0, atol=0)
        assert volumes.heading(path) == ((1, 2, 3, 4), str(dtype).removeprefix("torch."))


def test_channels_come_first() -> None:
    assert volumes.read(npy(np.zeros((5, 2, 3, 4), np.uint8))).shape == (5, 2, 3, 4)
    content = nifti(np.zeros((2, 3, 4, 5), np.int16))
    assert volumes.read(content).shape == (5, 2, 3, 4)
    assert volumes.heading(content) == ((5, 2, 3, 4), "int16")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
def test_nifti_files_come_back(tmp_path: Path, zipped: bool, kind: str) -> None:
    path = tmp_path / "a.nii"
    content = nifti(COUNT.astype(np.int16), kind=getattr(nibabel, kind))
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert volumes.read(path).tolist() == [COUNT.tolist()]
    assert volumes.read(path).dtype == torch.int16


def test_scaled_nifti_files_are_scaled() -> None:
    found = volumes.read(nifti(COUNT.astype(np.uint8), slope=0.5))
    torch.testing.assert_close(found, torch.from_numpy(COUNT * 0.5 + 1).float()[None], rtol=0, atol=0)


def test_message_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    content = nifti(COUNT.astype(np.uint8))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert message(lambda: volumes.read(content)) == (
        "the bytes given: to read NIfTI files: pip install 'striate[medical]'"
    )


WHOLE = npy(COUNT.astype(np.float32))


def declaring(shape: str) -> bytes:
    """The same file with another shape in its header."""
    start = WHOLE.index(b"'shape': ") + 9
    end = WHOLE.index(b"\n", start)
    return WHOLE[:start] + f"{shape}, }}".encode().ljust(end - start) + WHOLE[end:]


BAD = [
    ("empty", b"", "it is neither an NPY nor a NIfTI file."),
    ("text", b"no numbers", "it is neither an NPY nor a NIfTI file."),
    (
        "objects",
        npy(np.array([None, {}], dtype=object)),
        "it holds object values; expected numbers. Python objects are never unpickled.",
    ),
    (
        "words",
        npy(np.array(["a", "b"])),
        "it holds str32 values; expected numbers.",
    ),
    ("cut short", WHOLE[:-4], "its header declares 2x3x4 float32 = 96 bytes; 92 follow."),
    ("too long", WHOLE + b"1", "its header declares 2x3x4 float32 = 96 bytes; 97 follow."),
    (
        "absurd",
        declaring("(4000000000, 60000, 60000)"),
        "its header declares 4000000000x60000x60000 float32 = 57,600,000,000,000,000,000 bytes; 96 follow.",
    ),
    ("negative", declaring("(-2, -3, 4)"), "its header declares -2x-3x4 float32 = 96 bytes; 96 follow."),
    ("nothing", npy(np.zeros((0, 3, 4))), "its header declares 0x3x4, so it holds nothing."),
    ("flat", npy(np.zeros((3, 4))), "it is 3x4; a volume has 3 axes, or 4 with channels first."),
    ("not finite", npy(np.full((1, 1, 1), np.inf)), "it holds numbers that are not finite."),
    ("beyond float32", npy(np.full((1, 1, 1), 1e300)), "it holds numbers that are not finite."),
    (
        "large",
        npy(np.full((1, 1, 1), 2**24 + 1)),
        "it holds whole numbers above 16,777,216, which float32 cannot hold exactly.",
    ),
    (
        "bad header",
        WHOLE.replace(b"'shape'", b"'shame'"),
        "it is no NPY file, or its header is damaged: Header does not contain the correct keys: ['descr', "  # noqa: ISC004
        "'fortran_order', 'shame'].",
    ),
    (
        "an open bracket",
        WHOLE.replace(b"(2, 3, 4)", b"(2, 3, (4"),
        "it is no NPY file, or its header is damaged: ('EOF in multi-line statement', (2, 0)).",
    ),
    (
        "no header",
        b"\x93NUMPY\x01\x00",
        "it is no NPY file, or its header is damaged: EOF: reading array header length, expected 2 bytes got 0.",
    ),
    (
        "gzip cut short",
        gzip.compress(bytes(99))[:-9],
        "it is damaged or cut short: Compressed file ended before the end-of-stream marker was reached.",
    ),
    (
        "nifti cut short",
        nifti(np.zeros((9, 9, 9)))[:-9],
        "it is damaged or cut short: Expected 5832 bytes, got 5823 bytes from object.",
    ),
    (
        "nifti absurd",
        nifti(np.zeros((2, 2, 2), np.uint8)).replace(
            struct.pack("<4h", 3, 2, 2, 2), struct.pack("<4h", 3, 9999, 9999, 9999)
        ),
        "its header declares 9999x9999x9999 uint8 = 999,700,029,999 bytes; it has 360.",
    ),
    (
        "nifti of nothing",
        b"\x5c\1\0\0" + bytes(340) + b"n+1\0",
        "it is damaged or cut short: data code 0 not supported.",
    ),
    (
        "nifti complex",
        nifti(np.zeros((2, 2, 2), np.complex64)),
        "it holds complex64 values; expected numbers.",
    ),
]


@pytest.mark.parametrize(("content", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_message_for_a_bad_volume(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    found = message(lambda: volumes.read(path))
    assert found == f"{path}: {text}"


def test_the_header_alone_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(declaring("(4000000000, 60000, 60000)"))
    assert message(lambda: volumes.heading(path)) == message(lambda: volumes.read(path))
    path.write_bytes(npy(np.zeros((3, 4))))
    assert message(lambda: volumes.heading(path)) == message(lambda: volumes.read(path))
    path.unlink()
    assert message(lambda: volumes.heading(path)) == f"{path}: it cannot be opened: No such file or directory."


def test_a_gzip_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "LIMIT", 1000)
    assert message(lambda: volumes.read(gzip.compress(bytes(100_000)))) == (
        "the bytes given: unzipped it has more than 1,000 bytes, the most that is read of one file."
    )
