"""Signals: sound files become tensors ``(C, T)``, int16 or float32, or one sentence about what is wrong."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import DataError
from .members import LIMIT, Entry, Source, entry

EXTENSIONS = (".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
EXTRA = "pip install 'striate[audio]'"
INT16 = ("PCM_16", "PCM_S8", "PCM_U8")  # what libsndfile calls the formats that int16 holds exactly


@dataclass(frozen=True)
class Heading:
    """What the header of a sound file says.

    Args:
        channels: How many.
        frames: Samples of each channel.
        rate: Samples a second.
        dtype: "int16" if that holds the samples exactly, else "float32".
    """

    channels: int
    frames: int
    rate: int
    dtype: str


def read(source: Source) -> tuple[Tensor, int]:
    r"""One sound file: its samples ``(C, T)`` and how many there are in a second.

    WAV files of whole numbers need nothing else: 8 and 16 bits become int16 (8 bits times 256), 24 and 32 bits
    float32 between -1 and 1. All other formats (FLAC, Ogg, MP3, AIFF, WAV of floating-point numbers) are read by
    the extra ``audio``.

    Args:
        source: The file's path, a member of an archive, its bytes, or an open binary file.

    Raises:
        DataError: The file cannot be opened or decoded, holds more or less than its header declares, or a number
            that is not finite.

    >>> file = io.BytesIO()
    >>> with wave.open(file, "wb") as out:
    ...     out.setnchannels(1), out.setsampwidth(2), out.setframerate(8000)
    ...     out.writeframes(b"\1\0\2\0\xff\xff")
    (None, None, None)
    >>> read(file.getvalue())
    (tensor([[ 1,  2, -1]], dtype=torch.int16), 8000)
    """
    place = entry(source)
    content = place.read()
    found = _wave_heading(place, content)
    if isinstance(found, Heading):
        samples, rate = _wave_samples(place, content), found.rate
    else:
        samples, rate = _by_soundfile(place, content, found)
    if not samples.size:
        raise DataError(f"{place}: it holds no samples.")
    if samples.dtype == np.float32 and not np.isfinite(samples).all():
        raise DataError(f"{place}: it holds samples that are not finite.")
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate


def heading(source: Source) -> Heading:
    """What :func:`read` would give, from the file's header.

    Raises:
        DataError: As :func:`read`, save for damage beyond the header.
    """
    place = entry(source)
    content = place.read()
    found = _wave_heading(place, content)
    if isinstance(found, Heading):
        return found
    with _sound(place, content, found) as file:
        return Heading(file.channels, file.frames, file.samplerate, _dtype(file))


def _wave_heading(place: Entry, content: bytes) -> Heading | str:
    """What the header of a WAV file of whole numbers says, or why it is none."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            width = file.getsampwidth()
            dtype = "int16" if width <= 2 else "float32"
            found = Heading(file.getnchannels(), file.getnframes(), file.getframerate(), dtype)
    except (wave.Error, EOFError, RuntimeError) as error:
        return str(error) or "its header is damaged"
    if found.rate < 1:
        raise DataError(f"{place}: its header declares {found.rate} samples a second; expected at least 1.")
    return found if width <= 4 else f"its samples have {8 * width} bits"


def _wave_samples(place: Entry, content: bytes) -> Any:
    """The samples ``(T, C)`` of a WAV file of whole numbers."""
    with wave.open(io.BytesIO(content)) as file:
        width, channels, frames = file.getsampwidth(), file.getnchannels(), file.getnframes()
        data = file.readframes(frames)
    if len(data) != frames * channels * width:
        raise DataError(f"{place}: its header declares {frames * channels * width:,} bytes; only {len(data):,} follow.")
    return _numbers(data, width).reshape(-1, channels)


def _numbers(data: bytes, width: int) -> Any:
    """Samples of 1 byte without, and of 2 to 4 bytes with a sign, the lowest byte first."""
    raw = np.frombuffer(data, np.uint8)
    if width == 1:
        return (raw.astype(np.int16) - 128) * 256
    if width == 2:
        return raw.view("<i2").astype(np.int16)
    if width == 4:
        return (raw.view("<i4") / 2.0**31).astype(np.float32)
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = raw.reshape(-1, 3)
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def _sound(place: Entry, content: bytes, reason: str) -> Any:
    """The file opened by libsndfile, if it is there and recognises it."""
    if not content:
        raise DataError(f"{place}: the file is empty.")
    try:
        import soundfile
    except ImportError:
        raise DataError(
            f"{place}: it is no WAV file of whole numbers ({reason}); to read other sound files: {EXTRA}"
        ) from None
    try:
        file = soundfile.SoundFile(io.BytesIO(content))
    except (soundfile.SoundFileError, TypeError) as error:
        raise DataError(f"{place}: it is no sound file, or a damaged one: {_said(error)}.") from None
    if file.frames * file.channels * 4 > LIMIT:
        declared = file.frames * file.channels
        file.close()
        raise DataError(
            f"{place}: its header declares {declared:,} samples; at most {LIMIT // 4:,} are read of one file."
        )
    return file


def _by_soundfile(place: Entry, content: bytes, reason: str) -> tuple[Any, int]:
    with _sound(place, content, reason) as file:
        try:
            samples = file.read(dtype=_dtype(file), always_2d=True)
        except RuntimeError as error:  # libsndfile's own
            raise DataError(
                f"{place}: it cannot be decoded, because it is damaged or cut short: {_said(error)}."
            ) from None
        if len(samples) != file.frames:
            raise DataError(f"{place}: its header declares {file.frames:,} samples; only {len(samples):,} follow.")
        return samples, int(file.samplerate)


def _said(error: Exception) -> str:
    return str(error).split(">: ")[-1].removeprefix("Error : ").rstrip(".")


def _dtype(file: Any) -> str:
    return "int16" if file.subtype in INT16 else "float32"
