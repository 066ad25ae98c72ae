"""Readers: how one file becomes one input of a fixed shape, the same for training and for prediction."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import images, signals, volumes
from .errors import DataError, OptionError
from .members import Entry, Source, entry
from .storage import tree

AXES = {"picture": 2, "signal": 1, "volume": 3, "series": 1}
DTYPES = {"picture": "uint8", "signal": "int16", "volume": "float32", "series": "float32"}
TYPES = {"uint8": torch.uint8, "int16": torch.int16, "float32": torch.float32}
EXTENSIONS = {
    "picture": images.EXTENSIONS,
    "signal": signals.EXTENSIONS,
    "volume": volumes.EXTENSIONS,
    "series": (".csv", ".npy", ".tsv", ".txt"),
}
FULL = 32768  # int16 is the fraction of this that float32 is of 1


@dataclass(frozen=True)
class Probe:
    """What the header of a file says about the input that it holds.

    Args:
        shape: ``(C, *spatial)``.
        dtype: "uint8", "int16" or "float32".
        rate: Samples a second, of a signal.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"
    rate: int | None = None


@dataclass(frozen=True)
class Reader:
    """How one file becomes one input of a network.

    **Pictures** are scaled to cover the size and cropped to its centre (:func:`striate.images.fit`).
    **Signals** (sound files) and **volumes** keep their scale: what is longer is cropped to its middle, what is
    shorter gets zeros on both sides, evenly, the odd one after. A signal of another sample rate is refused.
    **Series** (one to a file, NPY or text with one channel to a line) must have the shape.

    Args:
        kind: "picture", "signal", "volume" or "series".
        shape: ``(C, *spatial)`` of every input.
        rate: Samples a second of a signal; None if it does not matter.
        dtype: "uint8", "int16" or "float32"; None is the kind's own. A signal changes between int16 and float32 by
            the factor 32768; a volume's numbers stay what they are.

    Raises:
        OptionError: The fields do not fit together.

    >>> Reader("signal", (1, 8000), rate=16000).to_dict()
    {'kind': 'signal', 'shape': [1, 8000], 'rate': 16000, 'dtype': 'int16'}
    """

    kind: str
    shape: tuple[int, ...]
    rate: int | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in AXES:
            raise OptionError(f"a reader's kind is one of {', '.join(AXES)}, got kind={self.kind!r}.")
        whole = all(type(n) is int and n >= 1 for n in self.shape)
        if not whole or len(self.shape) != AXES[self.kind] + 1:
            raise OptionError(
                f"a {self.kind} has a shape of {AXES[self.kind] + 1} whole numbers, channels first, "
                f"each at least 1; got shape={self.shape!r}."
            )
        if self.rate is not None and not (type(self.rate) is int and self.rate >= 1 and self.kind == "signal"):
            raise OptionError(f"rate is a signal's samples a second, at least 1; got rate={self.rate!r}.")
        if self.dtype is None:
            object.__setattr__(self, "dtype", DTYPES[self.kind])
        if self.dtype not in TYPES or (self.kind == "picture" and self.dtype != "uint8"):
            raise OptionError(f"a {self.kind} cannot be read as dtype={self.dtype!r}.")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the tensors that it gives."""
        return TYPES[str(self.dtype)]

    @property
    def extensions(self) -> tuple[str, ...]:
        """How the names of files of this kind end."""
        return EXTENSIONS[self.kind]

    def read(self, source: Source) -> Tensor:
        """One file as a tensor of :attr:`shape`.

        Args:
            source: A path, a member of an archive, the file's bytes, or an open binary file.

        Raises:
            DataError: The file cannot be read as this kind; the message names it.
        """
        if self.kind == "picture":
            channels, height, width = self.shape
            if channels not in (1, 3):
                raise DataError(f"{entry(source)}: a picture file has 1 or 3 channels; this reader needs {channels}.")
            return images.read(source, channels=channels, size=(height, width))
        place = entry(source)
        found, rate = self._raw(place)
        if None not in (rate, self.rate) and rate != self.rate:
            raise DataError(f"{place}: it has {rate:,} samples a second; expected {self.rate:,}. Resample it first.")
        if self.kind == "series" and tuple(found.shape) != self.shape:
            raise DataError(f"{place}: it is {by(found.shape)}; expected {by(self.shape)} (channels x length).")
        if len(found) != self.shape[0]:
            raise DataError(f"{place}: it has {counted(len(found), 'channel')}; expected {self.shape[0]}.")
        return centred(self._typed(place, found), self.shape[1:])

    def placed(self, mask: Tensor, source: Source, outside: int) -> Tensor:
        """A mask ``(*spatial)`` of what :meth:`read` gave, laid over the file as it is, which may be larger or smaller.

        Args:
            mask: Class numbers.
            source: The file.
            outside: What stands where the file was cropped.
        """
        size = probe(self.kind, source).shape[1:]
        if self.kind == "picture":
            return images.placed(mask, (size[0], size[1]), outside)
        return centred(mask[None], size, outside)[0]

    def _raw(self, place: Entry) -> tuple[Tensor, int | None]:
        if self.kind == "signal":
            return signals.read(place)
        return (volumes.read(place) if self.kind == "volume" else read_series(place)), None

    def _typed(self, place: Entry, found: Tensor) -> Tensor:
        if found.dtype == self.torch_dtype:
            return found
        numbers = found.float()
        if self.kind == "signal":
            return (
                numbers / FULL if self.dtype == "float32" else (numbers * FULL).round().clamp(-FULL, FULL - 1).short()
            )
        converted = numbers.to(self.torch_dtype)
        if not torch.equal(converted.float(), numbers):
            raise DataError(f"{place}: it holds numbers that {self.dtype} cannot hold, the type of the training data.")
        return converted

    def find(self, source: str | os.PathLike[str]) -> list[Entry]:
        """The files of this kind in a folder or archive, sorted by name; what starts with a dot is left out.

        Raises:
            DataError: There is no such folder.
        """
        return tree(source).ending(*self.extensions)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Any) -> Reader:
        """What :meth:`to_dict` gave.

        Raises:
            OptionError: It did not give that.

        >>> Reader.from_dict({"kind": "picture", "shape": [3, 32, 32], "rate": None, "dtype": "uint8"})
        Reader(kind='picture', shape=(3, 32, 32), rate=None, dtype='uint8')
        """
        names = ("kind", "shape", "rate", "dtype")
        if not isinstance(values, dict) or set(values) != set(names) or not isinstance(values["shape"], list):
            raise OptionError(f"a reader is described by {', '.join(names)}, got {values!r:.200}.")
        return cls(values["kind"], tuple(values["shape"]), values["rate"], values["dtype"])


def reader_of(shape: tuple[int, ...], dtype: torch.dtype) -> Reader | None:
    """The reader whose inputs look like those of an array; None if no file gives such inputs.

    >>> reader_of((1, 8000), torch.int16), reader_of((7, 9, 9), torch.uint8)
    (Reader(kind='signal', shape=(1, 8000), rate=None, dtype='int16'), None)
    """
    name = str(dtype).removeprefix("torch.")
    if len(shape) == 3:
        return Reader("picture", shape) if name == "uint8" and shape[0] in (1, 3) else None
    kinds = {2: {"int16": "signal", "float32": "series"}, 4: dict.fromkeys(TYPES, "volume")}
    kind = kinds.get(len(shape), {}).get(name)
    return None if kind is None else Reader(kind, shape, dtype=name)


def kind_of(files: Iterable[Entry]) -> str | None:
    """The kind that most of these files are of, by their endings; None if they are of none.

    >>> kind_of([entry("a.wav"), entry("b.WAV"), entry("cover.png")]), kind_of([entry("a.svg")])
    ('signal', None)
    """
    names = [file.name.lower() for file in files]
    counts = {kind: sum(name.endswith(EXTENSIONS[kind]) for name in names) for kind in ("picture", "signal", "volume")}
    best = max(counts, key=lambda kind: counts[kind])
    return best if counts[best] else None


def probe(kind: str, source: Source) -> Probe:
    """What a file's header says.

    Raises:
        DataError: It cannot be read.
    """
    if kind == "picture":
        return Probe(images.shape(source))
    if kind == "signal":
        found = signals.heading(source)
        return Probe((found.channels, found.frames), found.dtype, found.rate)
    if kind == "volume":
        return Probe(*volumes.heading(source))
    return Probe(tuple(read_series(source).shape), "float32")


def centred(found: Tensor, spatial: Sequence[int], outside: int = 0) -> Tensor:
    """``(C, *any)`` brought to ``(C, *spatial)``: cropped to its middle, or zeros laid around it, on each axis.

    What lies inside both comes back to its place if the result is brought to the first size again.

    >>> centred(torch.tensor([[1, 2, 3, 4]]), [2]).tolist(), centred(torch.tensor([[7]]), [4]).tolist()
    ([[2, 3]], [[0, 7, 0, 0]])
    """
    for axis, (has, wanted) in enumerate(zip(found.shape[1:], spatial, strict=True), start=1):
        if has > wanted:
            found = found.narrow(axis, (has - wanted) // 2, wanted)
        elif has < wanted:
            shape = [*found.shape[:axis], wanted, *found.shape[axis + 1 :]]
            around = found.new_full(shape, outside)
            around.narrow(axis, (wanted - has) // 2, has).copy_(found)
            found = around
    return found.contiguous()


def read_series(source: Source) -> Tensor:
    r"""One series as float32 ``(C, T)``: an NPY file ``(T,)`` or ``(C, T)``, or text with one channel to a line.

    Raises:
        DataError: The file is neither, its lines differ in length, or a number is missing or not finite.

    >>> read_series(b"1,2,3\n4,5,6\n").tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    place = entry(source)
    content = place.read()
    if content[:6] == b"\x93NUMPY":
        found = volumes.tensor(place, volumes.npy(place)).float()
        found = found[None] if found.dim() == 1 else found
    else:
        found = torch.from_numpy(_text_numbers(place, content))
    if found.dim() != 2:
        raise DataError(f"{place}: it is {by(found.shape)}; a series is (length,) or (channels, length).")
    return found


def _text_numbers(place: Entry, content: bytes) -> Any:
    lines = [(number, line) for number, line in enumerate(text_lines(place, content), start=1) if line.strip()]
    rows = [numbers(f"{place}, line {number}", cells(line)) for number, line in lines]
    if not rows or len({len(row) for row in rows}) > 1:
        lengths = (
            f"its lines hold {', '.join(map(str, sorted({len(row) for row in rows})))} numbers"
            if rows
            else "it is empty"
        )
        raise DataError(f"{place}: {lengths}; expected one channel to a line, all of one length.")
    return np.stack(rows)


def text_lines(place: Entry, content: bytes) -> list[str]:
    """The lines of a text.

    Raises:
        DataError: It is no UTF-8.
    """
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: it cannot be read as UTF-8 text: {error}.") from None


def cells(line: str) -> list[str]:
    """The cells of a line of a table: between semicolons, commas or tabs if it has some, else between blanks.

    >>> cells("1,,3"), cells(" 1  3")
    (['1', '', '3'], ['1', '3'])
    """
    return [cell.strip() for cell in line.split(next((mark for mark in ";,\t" if mark in line), None))]


def numbers(where: str, words: Sequence[str]) -> Any:
    """What some cells say, float32.

    Raises:
        DataError: One is empty, no number, not finite, or beyond float32; the message begins with ``where``.

    >>> numbers("a.csv, line 1", ["1", "2.5"])
    array([1. , 2.5], dtype=float32)
    """
    try:
        found = np.array(words, np.float64)
    except ValueError as error:
        raise DataError(f"{where}: {error}; missing values must be filled in first.") from None
    with np.errstate(over="ignore"):
        kept = found.astype(np.float32)
    if not np.isfinite(kept).all():
        worst = found[~np.isfinite(kept)][0]
        raise DataError(f"{where}: it holds {worst:g}, no finite float32; missing values must be filled in first.")
    return kept


def by(size: Iterable[int]) -> str:
    """Numbers as messages write sizes.

    >>> by((3, 4))
    '3x4'
    """
    return "x".join(map(str, size))


def counted(count: int, thing: str) -> str:
    """A number and its noun.

    >>> counted(1, "picture"), counted(2000, "picture")
    ('1 picture', '2,000 pictures')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
