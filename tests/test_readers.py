"""Readers: one file becomes one input of the shape, the same from a path, an archive, bytes or an open file."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from striate import images
from striate.errors import DataError, OptionError
from striate.members import entry
from striate.readers import Probe, Reader, centred, kind_of, probe, read_series
from striate.storage import entries

from .test_signals import wav
from .test_storage import write_zip
from .test_volumes import npy


def message(work: Callable[[], object]) -> str:
    with pytest.raises((DataError, OptionError)) as caught:
        work()
    return str(caught.value)


def png(width: int = 6, height: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(file, "PNG")
    return file.getvalue()


def samples(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


FILES = [
    (Reader("picture", (3, 8, 8)), "a.png", png()),
    (Reader("signal", (1, 5), rate=8000), "a.wav", wav(samples(1, 2, 3))),
    (Reader("volume", (1, 2, 2, 2), dtype="uint8"), "a.npy", npy(np.ones((3, 1, 2), np.uint8))),
    (Reader("series", (2, 3)), "a.csv", b"1,2,3\n4,5,6\n"),
]


@pytest.mark.parametrize(("reader", "name", "content"), FILES, ids=[row[0].kind for row in FILES])
def test_a_file_is_the_same_input_wherever_it_lies(tmp_path: Path, reader: Reader, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (member,) = entries(write_zip(tmp_path / "a.zip", {name: content}))
    with path.open("rb") as file:
        found = [reader.read(source) for source in (path, str(path), entry(path), member, content, file)]
    assert all(torch.equal(one, found[0]) for one in found)
    assert (tuple(found[0].shape), found[0].dtype) == (reader.shape, reader.torch_dtype)
    assert [str(one) for one in reader.find(tmp_path)] == [str(path)]
    again = Reader.from_dict(json.loads(json.dumps(reader.to_dict())))
    assert again == pickle.loads(pickle.dumps(reader)) == reader
    assert path.suffix in reader.extensions


def test_a_picture_is_fitted() -> None:
    same = torch.equal(Reader("picture", (1, 2, 2)).read(png()), images.read(png(), channels=1, size=(2, 2)))
    assert same
    assert message(lambda: Reader("picture", (4, 2, 2)).read(png())) == (
        "the bytes given: a picture file has 1 or 3 channels; this reader needs 4."
    )


@pytest.mark.parametrize(
    ("length", "expected"),
    [(4, [1, 2, 3, 4]), (2, [2, 3]), (3, [1, 2, 3]), (6, [0, 1, 2, 3, 4, 0]), (7, [0, 1, 2, 3, 4, 0, 0])],
)
def test_a_signal_is_cropped_and_padded_around_its_middle(length: int, expected: list[int]) -> None:
    assert Reader("signal", (1, length)).read(wav(samples(1, 2, 3, 4))).tolist() == [expected]


def test_a_volume_is_cropped_and_padded_on_each_axis() -> None:
    found = centred(torch.arange(1, 7).view(1, 1, 2, 3), (1, 4, 1))
    assert found.tolist() == [[[[0], [2], [5], [0]]]]


def test_signals_change_between_types_by_their_scale() -> None:
    content = wav(samples(-32768, 16384))
    assert Reader("signal", (1, 2), dtype="float32").read(content).tolist() == [[-1.0, 0.5]]
    wide = wav(struct.pack("<3i", -(2**31), 2**30, 2**31 - 1), width=4)
    assert Reader("signal", (1, 3)).read(wide).tolist() == [[-32768, 16384, 32767]]


def test_volumes_keep_their_numbers() -> None:
    assert Reader("volume", (1, 1, 1, 2)).read(npy(np.array([[[-3, 5]]], np.int16))).tolist() == [[[[-3.0, 5.0]]]]
    reader = Reader("volume", (1, 1, 1, 2), dtype="int16")
    assert reader.read(npy(np.array([[[-3.0, 5.0]]]))).tolist() == [[[[-3, 5]]]]
    assert message(lambda: reader.read(npy(np.array([[[0.5, 5.0]]])))) == (
        "the bytes given: it holds numbers that int16 cannot hold, the type of the training data."
    )


REFUSED = [
    (
        Reader("signal", (1, 4), rate=16000),
        wav(samples(1, 2)),
        "it has 8,000 samples a second; expected 16,000. Resample it first.",
    ),
    (Reader("signal", (2, 4)), wav(samples(1, 2)), "it has 1 channel; expected 2."),
    (Reader("series", (1, 4)), b"1 2 3", "it is 1x3; expected 1x4 (channels x length)."),
    (
        Reader("series", (1, 4)),
        b"1 2\n3\n",
        "its lines hold 1, 2 numbers; expected one channel to a line, all of one length.",
    ),
    (Reader("series", (1, 4)), b"\n", "it is empty; expected one channel to a line, all of one length."),
    (Reader("series", (1, 4)), npy(np.zeros((1, 2, 3))), "it is 1x2x3; a series is (length,) or (channels, length)."),
]


@pytest.mark.parametrize(("reader", "content", "text"), REFUSED)
def test_message_for_a_file_that_does_not_fit(reader: Reader, content: bytes, text: str) -> None:
    assert message(lambda: reader.read(content)) == f"the bytes given: {text}"


FILL = "missing values must be filled in first."
BAD_LINES = [
    (b"1 2 x", f", line 1: could not convert string to float: 'x'; {FILL}"),
    (b"1,2,3\n\n1,,3", f", line 3: could not convert string to float: ''; {FILL}"),
    (b"1,2,\n", f", line 1: could not convert string to float: ''; {FILL}"),
    (b"1;;3", f", line 1: could not convert string to float: ''; {FILL}"),
    (b"1\t\t3", f", line 1: could not convert string to float: ''; {FILL}"),
    (b"1,5;2,5", f", line 1: could not convert string to float: '1,5'; {FILL}"),
    (b"1 nan", f", line 1: it holds nan, no finite float32; {FILL}"),
    (b"1 -inf", f", line 1: it holds -inf, no finite float32; {FILL}"),
    (b"1 1e300", f", line 1: it holds 1e+300, no finite float32; {FILL}"),
    (
        b"1 \xff",
        ": it cannot be read as UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 2: invalid start byte.",
    ),
]


@pytest.mark.parametrize(("content", "text"), BAD_LINES)
def test_message_for_a_bad_line_of_a_series(content: bytes, text: str) -> None:
    assert message(lambda: read_series(content)) == f"the bytes given{text}"


def test_a_series_may_be_npy_or_text() -> None:
    assert read_series(npy(np.array([1.0, 2.0]))).tolist() == [[1.0, 2.0]]
    assert read_series(b"1;2\n\n3\t4").tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("picture", png(), Probe((3, 4, 6))),
        ("signal", wav(samples(1, 2, 3)), Probe((1, 3), "int16", 8000)),
        ("volume", npy(np.zeros((2, 3, 4), np.float64)), Probe((1, 2, 3, 4), "float32")),
        ("series", b"1 2 3", Probe((1, 3), "float32")),
    ],
)
def test_headers_say_the_shape(kind: str, content: bytes, expected: Probe) -> None:
    assert probe(kind, content) == expected


def test_most_files_decide_the_kind() -> None:
    assert kind_of([entry("a.nii.gz"), entry("b.npy"), entry("c.wav")]) == "volume"
    assert kind_of([entry("a.jpg"), entry("b.wav")]) == "picture"


BAD_READERS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "video"}, "a reader's kind is one of picture, signal, volume, series, got kind='video'."),
    (
        {"shape": (3, 8)},
        "a picture has a shape of 3 whole numbers, channels first, each at least 1; got shape=(3, 8).",
    ),
    (
        {"shape": (3, 8, 0)},
        "a picture has a shape of 3 whole numbers, channels first, each at least 1; got shape=(3, 8, 0).",
    ),
    ({"rate": 8000}, "rate is a signal's samples a second, at least 1; got rate=8000."),
    ({"dtype": "float32"}, "a picture cannot be read as dtype='float32'."),
    ({"kind": "volume", "shape": (1, 1, 1, 1), "dtype": "int32"}, "a volume cannot be read as dtype='int32'."),
]


@pytest.mark.parametrize(("fields", "text"), BAD_READERS)
def test_message_for_a_reader_that_is_none(fields: dict[str, Any], text: str) -> None:
    assert message(lambda: Reader(**{"kind": "picture", "shape": (3, 8, 8), **fields})) == text


@pytest.mark.parametrize("values", [None, {}, {"kind": "picture", "shape": 3, "rate": None, "dtype": None}])
def test_message_for_a_description_that_is_none(values: Any) -> None:
    assert message(lambda: Reader.from_dict(values)) == (
        f"a reader is described by kind, shape, rate, dtype, got {values!r}."
    )


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=3, max_size=3))
def test_a_mask_of_a_volume_comes_back_to_its_place(sizes: list[tuple[int, int]]) -> None:
    """A volume that is cropped and laid back equals itself wherever it was seen."""
    size, wanted = zip(*sizes, strict=True)
    volume = torch.arange(math.prod(size), dtype=torch.float32).view(1, *size) % 200
    file = io.BytesIO()
    np.save(file, volume[0].numpy())
    reader = Reader("volume", (1, *wanted))
    back = reader.placed(reader.read(file.getvalue())[0], file.getvalue(), 255)
    assert back.shape == size
    assert torch.equal(back[back != 255], volume[0][back != 255])
    assert int((back != 255).sum()) == math.prod(map(min, size, wanted))
