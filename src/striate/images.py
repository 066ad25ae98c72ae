"""Pictures: files that nobody vouches for become uint8 tensors ``(C, H, W)``, or one sentence about what is wrong."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from colorsys import hsv_to_rgb
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from torch import Tensor

from . import files
from .errors import DataError, OptionError
from .members import Entry, Source, entry

# Importing these readers registers them, so Pillow never has to load its forty others to open a file.
READERS = (
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    PpmImagePlugin.PpmImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
FORMATS = tuple(str(reader.format) for reader in READERS)
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 64_000_000

GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


def read(source: Source, *, channels: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """One picture file as a uint8 tensor ``(C, H, W)``, turned upright by its EXIF orientation.

    Formats: BMP, GIF and TIFF (the first picture of the file), JPEG, PNG, PPM and its relatives, WEBP. Colours are
    RGB; colour profiles are not applied. A colour file of 16 bits a channel keeps the upper 8.

    Args:
        source: The file's path, a member of an archive, its bytes, or an open binary file.
        channels: 1 (grey, the luma of ITU-R 601) or 3 (colour); None is 1 for a grey file, else 3.
            A palette is grey if all its entries are.
        size: ``(H, W)`` to scale and crop to, by the rule of :func:`fit`; None keeps the picture's own.

    Raises:
        DataError: The file cannot be opened or decoded, is no picture in one of these formats, declares more than
            :data:`MAX_PIXELS` pixels, or has one channel of more than 8 bits.
        OptionError: ``channels`` or ``size`` is not as above.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_pillow(torch.full((3, 4, 6), 7, dtype=torch.uint8)).save(f"{folder}/a.png")
    ...     read(f"{folder}/a.png").shape, read(f"{folder}/a.png", channels=1, size=(2, 2)).tolist()
    (torch.Size([3, 4, 6]), [[[7, 7], [7, 7]]])
    """
    check_options(channels, size)
    with _opened(entry(source)) as picture:
        return from_pillow(_upright(picture), channels=channels, size=size)


def read_mask(source: Source, *, size: tuple[int, int] | None = None) -> Tensor:
    """One mask file as a uint8 tensor ``(H, W)`` of class numbers, turned upright as :func:`read` turns pictures.

    A palette keeps its indices, black and white is 0 and 255, three channels that are all equal count as one, and grey
    of fewer than 8 bits is what the file holds, not spread over 0 to 255 as in pictures.

    Args:
        source: As in :func:`read`.
        size: ``(H, W)`` to scale and crop to, as :func:`fit` does, but each pixel is the nearest one of the file.

    Raises:
        DataError: As :func:`read`, or the file has colours or transparency, or is GIF, JPEG or lossy WEBP.
        OptionError: ``size`` is not as above.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_pillow(torch.tensor([[[0, 2], [1, 255]]], dtype=torch.uint8)).save(f"{folder}/a.png")
    ...     read_mask(f"{folder}/a.png").tolist()
    [[0, 2], [1, 255]]
    """
    check_options(None, size)
    place = entry(source)
    with _opened(place) as picture:
        if lossy := _lossy(place, picture):
            raise DataError(
                f"{lossy} does not keep numbers as they are, so it cannot hold a mask. "
                "Draw it again and save it as PNG."
            )
        highest = _highest(picture)
        mask = _one_channel(_upright(picture))
        if size is not None:
            mask = ImageOps.fit(mask, (size[1], size[0]), Image.Resampling.NEAREST)
        numbers = np.array(mask)
        if highest != 255 and mask.mode != "P":
            numbers = np.rint(numbers * (highest / 255)).astype(np.uint8)
        return torch.from_numpy(numbers)


def _lossy(place: Entry, picture: Image.Image) -> str | None:
    """What changes a picture's numbers when it is saved, if so: compression, or in GIF new numbers for its colours."""
    if picture.format == "WEBP":
        return "lossy WEBP" if _lossy_webp(place.read()) else None
    if picture.format == "GIF":
        return "GIF"
    return "JPEG" if picture.format == "JPEG" or picture.info.get("compression") == "jpeg" else None


def _lossy_webp(content: bytes) -> bool:
    """Whether the first picture in the chunks of a WEBP file is of the lossy sort (RFC 9649, section 2)."""
    at = 12
    while (name := content[at : at + 4]) not in (b"VP8 ", b"VP8L", b""):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 24 if name == b"ANMF" else 8 + size + size % 2  # the chunks of a frame follow 16 bytes of its own
    return name == b"VP8 "


def _highest(picture: Image.Image) -> int:
    """The highest number that the file's own grey can be, which Pillow makes 255."""
    tiles = getattr(picture, "tile", None)
    codec, _, _, given = tiles[0] if tiles else ("", None, 0, "")
    args = given if isinstance(given, tuple) else (given,)
    if codec in ("ppm", "ppm_plain") and len(args) > 1:
        return int(args[1])
    return {"L;2": 3, "L;4": 15}.get(str(args[0])[:3], 255)


def _one_channel(picture: Image.Image) -> Image.Image:
    """The picture's class numbers: mode L, or P without its palette."""
    if picture.mode == "RGB":
        red, green, blue = picture.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return red
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode not in ("L", "P"):
        raise DataError(
            f"a mask has one channel of class numbers (mode L or P), and this has mode {picture.mode}. "
            "Save the class numbers themselves, in grey or with a palette."
        )
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()
    turn = UPRIGHT.get(_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def shape(source: Source) -> tuple[int, int, int]:
    """The ``(C, H, W)`` that :func:`read` would give, from the file's header (pixels too, if it has a palette).

    One thing can hide from it: an orientation that a PNG file states only after its pixels.

    Raises:
        DataError: As :func:`read`, save for damage beyond the header.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_pillow(torch.zeros(1, 4, 6, dtype=torch.uint8)).save(f"{folder}/a.png")
    ...     shape(f"{folder}/a.png")
    (1, 4, 6)
    """
    with _opened(entry(source)) as picture:
        channels = 1 if _is_grey(picture) else 3
        # Pillow's TIFF reader turns the picture by itself and gives the upright size from the start.
        sideways = picture.format != "TIFF" and _orientation(picture) in SIDEWAYS
        width, height = reversed(picture.size) if sideways else picture.size
        return channels, height, width


def find(folder: str | os.PathLike[str]) -> list[Path]:
    """The picture files in a folder and the folders below it, by their ending, sorted by their path.

    Endings are those of :data:`EXTENSIONS`, in either case. What starts with a dot is left out.

    Raises:
        DataError: There is no such folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.PNG", "a.jpg", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in find(folder)]
    ['a.jpg', 'b.PNG']
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder.")
    inside = {path: path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS}
    seen = [path for path, below in inside.items() if not any(part.startswith(".") for part in below.parts)]
    return sorted((path for path in seen if path.is_file()), key=lambda path: inside[path].as_posix())


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture scaled so that it covers ``size = (H, W)``, its aspect kept, and cropped around its centre.

        scale = max(H / height, W / width)

    Bilinear; when scaling down, every source pixel counts (antialiasing). Scaling and cropping are one step, so the
    crop may begin between two source pixels. Training and prediction both come through here.

    >>> fit(Image.new("L", (300, 200)), (32, 32)).size
    (32, 32)
    """
    height, width = size
    if picture.size == (width, height):
        return picture
    return ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)


def placed(mask: Tensor, size: tuple[int, int], outside: int) -> Tensor:
    """A mask of what :func:`fit` gave, laid over the picture that it was given: each pixel is the nearest one.

    Args:
        mask: ``(H, W)``.
        size: ``(height, width)`` of the picture.
        outside: What stands where the picture was cropped.

    >>> placed(torch.tensor([[1, 2]]), (2, 6), outside=0).tolist()
    [[0, 1, 1, 2, 2, 0], [0, 1, 1, 2, 2, 0]]
    """
    scale = max(has / wanted for has, wanted in zip(mask.shape, size, strict=True))
    rows, columns = (_nearest(wanted, has, scale) for has, wanted in zip(mask.shape, size, strict=True))
    found = mask.new_full(size, outside)
    found[rows[0], columns[0].T] = mask[rows[1], columns[1].T]
    return found


def _nearest(wanted: int, has: int, scale: float) -> tuple[Tensor, Tensor]:
    """Along one axis, as columns: the pixels that a crop shows, and the pixels of the crop that show them."""
    pixels = torch.arange(wanted, dtype=torch.float64) + 0.5 - (wanted - has / scale) / 2
    shown = ((pixels * scale).ceil() - 1).long()  # fit takes the later one of two pixels that are equally near
    inside = ((shown >= 0) & (shown < has)).nonzero()
    return inside, shown[inside]


def from_pillow(picture: Image.Image, *, channels: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """A Pillow picture as a uint8 tensor ``(C, H, W)``; the arguments are those of :func:`read`.

    Transparency is laid on black, ``colour * alpha``: what is fully transparent is 0, as padding is, whatever colour
    is stored there.

    Raises:
        DataError: The picture has one channel of more than 8 bits, which would be clipped.
        OptionError: ``channels`` or ``size`` is not as in :func:`read`.

    >>> from_pillow(Image.new("RGBA", (1, 1), (255, 0, 100, 51))).flatten().tolist()
    [51, 0, 20]
    """
    check_options(channels, size)
    _refuse_deep(picture)
    grey = _is_grey(picture) if channels is None else channels == 1
    flat = _on_black(picture, "L" if grey else "RGB")
    array = np.array(flat if size is None else fit(flat, size))
    return torch.from_numpy(array[None] if grey else np.ascontiguousarray(array.transpose(2, 0, 1)))


def to_pillow(picture: Tensor) -> Image.Image:
    """A uint8 tensor ``(1, H, W)`` or ``(3, H, W)`` as a Pillow picture.

    Raises:
        OptionError: The tensor has another type or shape.

    >>> to_pillow(torch.zeros(3, 4, 6, dtype=torch.uint8)).size
    (6, 4)
    """
    if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] not in (1, 3) or not picture.numel():
        raise OptionError(
            f"A picture is a uint8 tensor (1, H, W) or (3, H, W), got {picture.dtype} {tuple(picture.shape)}."
        )
    array = picture.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def write_mask(path: Path, mask: Tensor) -> None:
    """A mask as a PNG whose pixels are class numbers, with a palette by which people can tell them apart.

    Args:
        path: Where to.
        mask: uint8 ``(H, W)``.

    Raises:
        OutputError: It cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_mask(Path(folder, "a.png"), torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8))
    ...     read_mask(f"{folder}/a.png").tolist()
    [[0, 1], [2, 255]]
    """
    picture = Image.fromarray(mask.cpu().numpy())
    picture.putpalette([round(255 * part) for number in range(256) for part in _colour(number)])
    content = BytesIO()
    picture.save(content, "PNG")
    files.write(path, content.getvalue())


def _colour(number: int) -> tuple[float, float, float]:
    """Black for 0, then hues a golden section apart, so that neighbours differ."""
    return hsv_to_rgb(number * 0.618034 % 1, 0.75, 0.95) if number else (0.0, 0.0, 0.0)


def check_options(channels: object, size: object) -> None:
    """Raise an :class:`OptionError` unless ``channels`` and ``size`` are as :func:`read` takes them.

    >>> check_options(channels=1, size=(28, 28))
    """
    if channels not in (None, 1, 3):
        raise OptionError(f"channels must be 1 (grey) or 3 (colour), got channels={channels!r}.")
    if size is None:
        return
    if not (isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) and n >= 1 for n in size)):
        raise OptionError(f"size must be two whole numbers (height, width), each at least 1, got size={size!r}.")
    if size[0] * size[1] > MAX_PIXELS:
        raise OptionError(f"size={size!r} is {size[0] * size[1]:,} pixels; the limit is {MAX_PIXELS:,}.")


class _Quiet:
    """Silences the warnings of Pillow's own modules while any thread is inside.

    What Pillow warns about here is either an error of ours (a decompression bomb) or metadata that is not read.
    ``warnings.catch_warnings`` alone will not do: two threads that overlap put back each other's filters.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(kind, error, trace)


_QUIET = _Quiet()


@contextmanager
def _opened(source: Entry) -> Iterator[Image.Image]:
    """The picture with its header read and checked; whatever is raised inside becomes a DataError with its place."""
    try:
        with _QUIET, source.open() as file:
            picture = Image.open(file, formats=FORMATS)
            _refuse_bomb(picture.width * picture.height)
            _refuse_deep(picture)
            yield picture
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise DataError(f"{source}: {_reason(source, error)}") from None


def _reason(source: Entry, error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error).removeprefix(f"{source}: ")
    if isinstance(error, FileNotFoundError):
        return "there is no such file."
    if isinstance(error, OSError) and error.errno is not None:
        return f"it cannot be opened: {error.strerror}."
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} Striate reads at most {MAX_PIXELS:,} pixels. Scale it down or cut it up first."
    if isinstance(error, UnidentifiedImageError):
        if source.size == 0:
            return "the file is empty."
        return (
            f"no reader of {', '.join(FORMATS)} recognises it: "
            "it is another kind of file, its header is damaged, or it has no pixels."
        )
    text = str(error).rstrip(".") or type(error).__name__
    return f"it cannot be decoded, because it is damaged or cut short: {text}."


def _refuse_bomb(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise DataError(
            f"its header declares {pixels:,} pixels; Striate reads at most {MAX_PIXELS:,} pixels. "
            "Scale it down or cut it up first."
        )


def _refuse_deep(picture: Image.Image) -> None:
    """Pillow cuts one deep channel down to 8 bits by clipping at 255, without a word."""
    if picture.mode not in (*GREY_MODES, *COLOUR_MODES):
        kind = "floating-point numbers" if picture.mode == "F" else "whole numbers of more than 8 bits"
        raise DataError(
            f"its pixels are {kind} (mode {picture.mode}), which 8 bits cannot hold. "
            "Scale the range that matters to 0..255 and save it with 8 bits a pixel."
        )


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode != "P":
        return picture.mode in GREY_MODES
    palette = picture.getpalette() or []
    return palette[0::3] == palette[1::3] == palette[2::3]


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where the EXIF data is missing or damaged."""
    try:
        # Not picture.getexif(): the PNG reader's own decodes the whole picture in search of a late orientation.
        return int(Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata raises anything, and the pixels are still good
        return 1


def _on_black(picture: Image.Image, mode: str) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert(mode)
    layered = picture.convert("RGBA")
    return Image.composite(layered.convert(mode), Image.new(mode, picture.size), layered.getchannel("A"))
