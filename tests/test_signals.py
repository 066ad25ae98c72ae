"""Signals: written samples come back, and whatever is wrong with a sound file is said in one sentence."""

from __future__ import annotations

import io
import struct
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from striate import signals
from striate.errors import DataError
from striate.signals import Heading

soundfile = pytest.importorskip("soundfile", reason="the extra 'audio' is not installed")


def wav(data: bytes, width: int = 2, channels: int = 1, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(data)
    return file.getvalue()


def by_soundfile(samples: Sequence[float], subtype: str, form: str = "WAV", rate: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.array(samples), rate, subtype, format=form)
    return file.getvalue()


def message(work: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


WHOLE = [
    (1, bytes([0, 128, 255]), torch.int16, [-32768, 0, 127 * 256]),
    (2, struct.pack("<3h", -32768, 1, 32767), torch.int16, [-32768, 1, 32767]),
    (3, b"\0\0\x80\1\0\0\xff\xff\x7f", torch.float32, [-1.0, 2.0**-23, 1 - 2.0**-23]),
    (4, struct.pack("<3i", -(2**31), 2**30, 128), torch.float32, [-1.0, 0.5, 2.0**-24]),
]


@pytest.mark.parametrize(("width", "data", "dtype", "expected"), WHOLE)
def test_samples_of_every_width_come_back(
    tmp_path: Path, width: int, data: bytes, dtype: torch.dtype, expected: list[float]
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(data, width))
    samples, rate = signals.read(path)
    assert (samples.dtype, samples.tolist(), rate) == (dtype, [expected], 8000)
    assert signals.heading(path) == Heading(1, 3, 8000, str(dtype).removeprefix("torch."))


def test_channels_come_apart() -> None:
    samples, rate = signals.read(wav(struct.pack("<6h", 1, -1, 2, -2, 3, -3), channels=2, rate=16000))
    assert (samples.tolist(), rate) == ([[1, 2, 3], [-1, -2, -3]], 16000)


@pytest.mark.parametrize(
    ("subtype", "form", "dtype"),
    [
        ("PCM_16", "FLAC", torch.int16),
        ("PCM_24", "FLAC", torch.float32),
        ("FLOAT", "WAV", torch.float32),
        ("VORBIS", "OGG", torch.float32),
        ("PCM_16", "WAVEX", torch.int16),
    ],
)
def test_other_formats_are_read_by_the_extra(subtype: str, form: str, dtype: torch.dtype) -> None:
    content = by_soundfile([0.5, -0.25] * 500, subtype, form)
    samples, rate = signals.read(content)
    assert (samples.dtype, tuple(samples.shape), rate) == (dtype, (1, 1000), 8000)
    found = samples / 32768 if dtype == torch.int16 else samples
    atol = 0.2 if form == "OGG" else 1e-6  # Vorbis is lossy
    torch.testing.assert_close(found.double().mean(), torch.tensor(0.125, dtype=torch.float64), rtol=0, atol=atol)
    assert signals.heading(content) == Heading(1, 1000, 8000, str(dtype).removeprefix("torch."))


def test_message_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    content = by_soundfile([0.5], "PCM_16", "FLAC")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert message(lambda: signals.read(content)) == (
        "the bytes given: it is no WAV file of whole numbers (file does not start with RIFF id); "
        "to read other sound files: pip install 'striate[audio]'"
    )


def test_message_for_a_rate_of_zero() -> None:
    content = wav(bytes(20), rate=8000).replace(struct.pack("<II", 8000, 16000), bytes(8))
    for work in (signals.read, signals.heading):
        assert message(lambda: work(content)) == (  # noqa: B023
            "the bytes given: its header declares 0 samples a second; expected at least 1."
        )


BAD = [
    ("empty", b"", "the file is empty."),
    ("no samples", wav(b""), "it holds no samples."),
    ("cut short", wav(bytes(20))[:-4], "its header declares 20 bytes; only 16 follow."),
    ("not finite", by_soundfile([np.nan, 0.0], "FLOAT"), "it holds samples that are not finite."),
    (
        "sizes that lead outside",
        wav(bytes(20))[:16] + b"\xff\xff\xff\x7f" + wav(bytes(20))[20:],
        "it is no sound file, or a damaged one: Error in WAV file. No 'data' chunk marker.",
    ),
    (
        "samples of 40 bits",
        wav(bytes(20)).replace(struct.pack("<HH", 2, 16), struct.pack("<HH", 5, 40)),
        "it is no sound file, or a damaged one: File contains data in an unimplemented format.",
    ),
    ("text", b"no sound at all", "it is no sound file, or a damaged one: Format not recognised."),
    (
        "half a header",
        wav(bytes(20))[:30],
        "it is no sound file, or a damaged one: Error in WAV file. No 'data' chunk marker.",
    ),
]


@pytest.mark.parametrize(("content", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_message_for_a_bad_sound_file(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert message(lambda: signals.read(path)) == f"{path}: {text}"


def test_message_for_a_damaged_flac(tmp_path: Path) -> None:
    content = by_soundfile(list(np.random.default_rng(0).uniform(-1, 1, 9000)), "PCM_16", "FLAC")
    path = tmp_path / "a.flac"
    path.write_bytes(content[: len(content) // 2])
    assert message(lambda: signals.read(path)) == (
        f"{path}: it cannot be decoded, because it is damaged or cut short: flac decoder lost sync."
    )


def test_an_absurd_header_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = by_soundfile([0.5] * 1000, "PCM_16", "FLAC")
    monkeypatch.setattr(signals, "LIMIT", 2000)
    for work in (signals.read, signals.heading):
        assert message(lambda work=work: work(content)) == (  # type: ignore[misc]
            "the bytes given: its header declares 1,000 samples; at most 500 are read of one file."
        )
