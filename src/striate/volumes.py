"""Volumes, and arrays in NumPy's format: files become arrays whose header was checked before memory was taken."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from .errors import DataError
from .members import LIMIT, Entry, File, Source, entry, naming

EXTENSIONS = (".nii", ".nii.gz", ".npy")
EXTRA = "pip install 'striate[medical]'"
NUMBERS = "biuf"  # the kinds of NumPy's types
EXACT = 2**24  # whole numbers up to this size are exact in float32

Shape = tuple[int, ...]


def read(source: Source) -> Tensor:
    """One volume as a tensor ``(C, D, H, W)``, uint8, int16 or float32.

    NPY files hold ``(D, H, W)`` or ``(C, D, H, W)``; a NIfTI file (``.nii``, ``.nii.gz``; the extra ``medical``)
    holds the axes of its own order, and a fourth one becomes the channels. Other types of numbers become float32.

    Args:
        source: The file's path, a member of an archive, its bytes, or an open binary file.

    Raises:
        DataError: The file is no such file, holds more or less than its header declares, holds Python objects, or
            a number that is not finite or that float32 cannot hold.

    >>> file = io.BytesIO()
    >>> np.save(file, np.zeros((2, 3, 4), np.uint8))
    >>> read(file.getvalue()).shape
    torch.Size([1, 2, 3, 4])
    """
    place = entry(source)
    content = place.read()
    if content[:6] == npy_format.MAGIC_PREFIX:
        return in_channels(place, tensor(place, _npy(place, content)))
    return in_channels(place, tensor(place, _nifti(place, content)))


def in_channels(place: object, found: Tensor) -> Tensor:
    """The same volume with a first axis of channels.

    Raises:
        DataError: It has fewer than three axes or more than four.
    """
    if found.dim() not in (3, 4):
        raise DataError(f"{place}: it is {_by(found.shape)}; a volume has 3 axes, or 4 with channels first.")
    return found if found.dim() == 4 else found[None]


def npy(source: Source, limit: int = LIMIT, *, texts: bool = False) -> Any:
    """An NPY file as an array, never unpickled.

    Args:
        source: As in :func:`read`.
        limit: Bytes that it may have.
        texts: Whether it may hold texts instead of numbers.

    Raises:
        DataError: As :func:`read`.
    """
    place = entry(source)
    return _npy(place, place.read(limit), "biufU" if texts else NUMBERS)


def mapped(source: Source) -> Any:
    """As :func:`npy`, but the numbers of a file of its own stay there, of whatever size, until they are looked at.

    Raises:
        DataError: As :func:`read`.
    """
    place = entry(source)
    if not isinstance(place, File):
        return npy(place)
    with naming(place), place.open() as file:
        shape, dtype, fortran = _header(place, file)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def heading(source: Source) -> tuple[Shape, str]:
    """The shape ``(C, D, H, W)`` and the type that :func:`read` would give; an NPY file from its header alone.

    Raises:
        DataError: As :func:`read`, save for damage beyond the header.
    """
    place = entry(source)
    with naming(place), place.open() as file:
        if file.read(6) != npy_format.MAGIC_PREFIX:
            found = read(place)
            return tuple(found.shape), str(found.dtype).removeprefix("torch.")
        file.seek(0)
        shape, dtype, _ = _header(place, file)
    if len(shape) not in (3, 4):
        in_channels(place, torch.empty(shape, device="meta"))
    return (1, *shape)[-4:], _kept(dtype).name


def tensor(place: object, array: Any) -> Tensor:
    """An array as a tensor of uint8, int16 or float32, whichever holds its numbers.

    Raises:
        DataError: A number is not finite, or is whole and float32 cannot hold it.

    >>> tensor("a", np.array([True])).dtype, tensor("a", np.array([7, 300])).dtype
    (torch.uint8, torch.float32)
    """
    kept = _kept(array.dtype)
    if kept != np.float32:
        return torch.from_numpy(np.require(array, kept, ["C", "W"]))
    whole = array.dtype.kind in "iu"
    if whole and array.size and max(abs(int(array.min())), abs(int(array.max()))) > EXACT:
        raise DataError(f"{place}: it holds whole numbers above {EXACT:,}, which float32 cannot hold exactly.")
    with np.errstate(over="ignore"):
        numbers = np.require(array, np.float32, ["C", "W"])
    if not whole and not np.isfinite(numbers).all():
        raise DataError(f"{place}: it holds numbers that are not finite.")
    return torch.from_numpy(numbers)


def _kept(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that numbers of another type become."""
    whole = {"bool": "uint8", "uint8": "uint8", "int8": "int16", "int16": "int16"}
    return np.dtype(whole.get(dtype.name, "float32"))


def _npy(place: Entry, content: bytes, kinds: str = NUMBERS) -> Any:
    file = io.BytesIO(content)
    shape, dtype, fortran = _header(place, file, kinds)
    array = np.frombuffer(content, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)


def _header(place: Entry, file: Any, kinds: str = NUMBERS) -> tuple[Shape, np.dtype[Any], bool]:
    """Shape, type and order of an NPY file, which holds exactly that much."""
    try:
        version = npy_format.read_magic(file)
        reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
    except Exception as error:  # NumPy parses the header as Python, which raises whatever it stumbles over
        said = str(error).split("\n")[0].rstrip(".")
        raise DataError(f"{place}: it is no NPY file, or its header is damaged: {said}.") from None
    if dtype.hasobject or dtype.kind not in kinds:
        why = " Python objects are never unpickled." if dtype.hasobject else ""
        raise DataError(f"{place}: it holds {dtype.name} values; expected numbers.{why}")
    declared, follow = math.prod(shape) * dtype.itemsize, place.size - file.tell()
    if declared != follow or any(n < 0 for n in shape):
        raise DataError(
            f"{place}: its header declares {_by(shape)} {dtype.name} = {declared:,} bytes; {follow:,} follow."
        )
    if not declared:
        raise DataError(f"{place}: its header declares {_by(shape)}, so it holds nothing.")
    return shape, dtype, fortran


def _nifti(place: Entry, content: bytes) -> Any:
    """The numbers of a NIfTI file, channels first."""
    content = _unzipped(place, content)
    first, second = content[344:348] == b"n+1\0", content[4:12] == b"n+2\0\r\n\x1a\n"
    if not (first or second):
        raise DataError(f"{place}: it is neither an NPY nor a NIfTI file.")
    try:
        import nibabel
    except ImportError:
        raise DataError(f"{place}: to read NIfTI files: {EXTRA}") from None
    kind: Any = nibabel.Nifti1Image if first else nibabel.Nifti2Image
    try:
        image = kind.from_bytes(content)
        shape, dtype = tuple(image.shape), image.get_data_dtype()
        _refuse_short(place, shape, dtype, len(content))
        scaled = image.dataobj.slope not in (None, 1) or image.dataobj.inter not in (None, 0)
        array = image.get_fdata(dtype=np.float32) if scaled else np.asarray(image.dataobj)
    except DataError:
        raise
    except Exception as error:  # a damaged header makes nibabel raise whatever it stumbles over
        said = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{place}: it is damaged or cut short: {said}.") from None
    return np.moveaxis(array, 3, 0) if array.ndim == 4 else array


def _refuse_short(place: Entry, shape: Shape, dtype: np.dtype[Any], size: int) -> None:
    declared = math.prod(shape) * dtype.itemsize
    if dtype.kind not in "biuf":
        raise DataError(f"{place}: it holds {dtype.name} values; expected numbers.")
    if not 0 < declared <= size:
        raise DataError(
            f"{place}: its header declares {_by(shape)} {dtype.name} = {declared:,} bytes; it has {size:,}."
        )


def _unzipped(place: Entry, content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            found = stream.read(LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{place}: it is damaged or cut short: {str(error).rstrip('.')}.") from None
    if len(found) > LIMIT:
        raise DataError(f"{place}: unzipped it has more than {LIMIT:,} bytes, the most that is read of one file.")
    return found


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single number"
