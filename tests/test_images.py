"""Pictures from files: painted pixels come back, and whatever is wrong with a file is said in one sentence."""

from __future__ import annotations

import io
import random
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor

from striate import images
from striate.errors import DataError, OptionError
from striate.storage import entries

ORIENTATION = 0x0112
PAINTED = torch.tensor(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255], [10, 20, 30]]], dtype=torch.uint8
).permute(2, 0, 1)
"""Two rows of three colours, ``(3, 2, 3)``."""

LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    ("BMP", {}),
    ("GIF", {}),
    ("PNG", {}),
    ("PPM", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
]


def saved(path: Path, picture: Image.Image, form: str = "PNG", **options: Any) -> Path:
    picture.save(path, form, **options)
    return path


def painted() -> Image.Image:
    return Image.fromarray(PAINTED.permute(1, 2, 0).contiguous().numpy())


def message(work: Callable[[], object]) -> str:
    with pytest.raises((DataError, OptionError)) as caught:
        work()
    return str(caught.value)


def png(
    width: int, height: int, depth: int, kind: int, rows: bytes = b"", *, early: bytes = b"", late: bytes = b""
) -> bytes:
    """A PNG file by RFC 2083: each row begins with its filter byte, the extra chunks with their name."""

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [chunk for chunk in (header, early, b"IDAT" + zlib.compress(rows), late, b"IEND") if chunk]
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data


# Pixels


@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_painted_pixels_come_back(tmp_path: Path, form: str, options: dict[str, Any]) -> None:
    path = saved(tmp_path / "x", painted(), form, **options)
    assert images.shape(path) == (3, 2, 3)
    torch.testing.assert_close(images.read(path), PAINTED, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF"])
def test_a_grey_file_has_one_channel(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / "x", Image.new("L", (3, 2), 128), form)
    assert images.shape(path) == (1, 2, 3)
    assert images.read(path).tolist() == [[[128] * 3] * 2]
    assert images.read(path, channels=3).tolist() == [[[128] * 3] * 2] * 3


def test_black_and_white_becomes_0_and_255(tmp_path: Path) -> None:
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert images.read(saved(tmp_path / "x", picture)).tolist() == [[[0, 255]]]


def test_a_coloured_palette_has_three_channels(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", painted().quantize(6))
    assert images.shape(path) == (3, 2, 3)
    torch.testing.assert_close(images.read(path), PAINTED, rtol=0, atol=0)


def test_grey_of_colour_is_the_luma_of_itu_r_601(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", painted())
    luma = (PAINTED.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1).double()).sum(0, keepdim=True)
    torch.testing.assert_close(images.read(path, channels=1), luma.round().to(torch.uint8), rtol=0, atol=0)


def test_a_cmyk_jpeg_is_read_as_colour(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert images.shape(path) == (3, 8, 8)
    assert (images.read(path).int() - torch.tensor([255, 0, 0]).view(3, 1, 1)).abs().max() <= 2


def test_16_bit_colour_keeps_the_upper_8(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x1234, 0xFFFF, 0x00FF)))
    assert images.read(path).flatten().tolist() == [0x12, 0xFF, 0x00]


def test_gif_and_tiff_give_their_first_picture(tmp_path: Path) -> None:
    for form in ("GIF", "TIFF"):
        more = [Image.new("L", (3, 2), 200)]
        path = saved(tmp_path / form, Image.new("L", (3, 2), 100), form, save_all=True, append_images=more)
        assert images.read(path, channels=1).tolist() == [[[100] * 3] * 2]


# Transparency is laid on black


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("RGBA", (255, 100, 10, 255), [255, 100, 10]),
        ("RGBA", (255, 100, 10, 51), [51, 20, 2]),
        ("RGBA", (255, 100, 10, 0), [0, 0, 0]),
        ("LA", (200, 255), [200]),
        ("LA", (200, 51), [40]),
        ("LA", (200, 0), [0]),
    ],
)
def test_alpha_multiplies_the_colour(tmp_path: Path, mode: str, pixel: tuple[int, ...], expected: list[int]) -> None:
    assert images.read(saved(tmp_path / "x", Image.new(mode, (1, 1), pixel))).flatten().tolist() == expected


def test_transparent_palette_entries_and_colours_are_black(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 100, 50, 10, 20, 30])
    palette.putpixel((1, 0), 1)
    keyed = Image.new("RGB", (2, 1), (200, 100, 50))
    keyed.putpixel((1, 0), (10, 20, 30))
    for name, picture, transparency in (("p", palette, b"\0\xff"), ("rgb", keyed, (200, 100, 50))):
        path = saved(tmp_path / name, picture, transparency=transparency)
        assert images.read(path).squeeze(1).T.tolist() == [[0, 0, 0], [10, 20, 30]]
        assert images.read(path, channels=1).flatten().tolist() == [0, round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)]


def test_a_transparent_gif_is_black_where_nothing_is(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 1), (200, 100, 50, 0))
    picture.putpixel((1, 0), (10, 20, 30, 255))
    assert images.read(saved(tmp_path / "x", picture, "GIF")).squeeze(1).T.tolist() == [[0, 0, 0], [10, 20, 30]]


# EXIF orientation: which side of the scene the stored row 0 and column 0 are on (EXIF 2.32, tag 0x0112)

TURNS: dict[int, Callable[[Tensor], Tensor]] = {
    1: lambda stored: stored,  # top, left
    2: lambda stored: stored.flip(2),  # top, right
    3: lambda stored: stored.flip(1, 2),  # bottom, right
    4: lambda stored: stored.flip(1),  # bottom, left
    5: lambda stored: stored.mT,  # left, top
    6: lambda stored: stored.mT.flip(2),  # right, top
    7: lambda stored: stored.mT.flip(1, 2),  # right, bottom
    8: lambda stored: stored.mT.flip(1),  # left, bottom
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, form: str, options: dict[str, Any]) -> None:
    path = saved(tmp_path / "x", painted(), form, exif=exif(orientation), **options)
    upright = TURNS[orientation](PAINTED)
    assert images.shape(path) == tuple(upright.shape)
    torch.testing.assert_close(images.read(path), upright, rtol=0, atol=0)


def test_a_phone_photo_lies_on_its_side(tmp_path: Path) -> None:
    stored = Image.new("RGB", (32, 16), (255, 255, 255))
    stored.paste((0, 0, 0), (0, 0, 16, 16))
    path = saved(tmp_path / "x.jpg", stored, "JPEG", exif=exif(6))
    photo = images.read(path)
    assert images.shape(path) == tuple(photo.shape) == (3, 32, 16)
    assert photo[:, :16].max() < 8
    assert photo[:, 16:].min() > 247


def test_an_orientation_after_the_pixels_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(2, 1, 8, 0, b"\0\1\2", late=b"eXIf" + exif(6).tobytes().removeprefix(b"Exif\0\0")))
    assert images.read(path).tolist() == [[[1], [2]]]
    assert images.shape(path) == (1, 1, 2)


@pytest.mark.parametrize(
    "data", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", exif(9).tobytes()]
)
def test_damaged_orientation_leaves_the_picture_as_stored(tmp_path: Path, data: bytes) -> None:
    path = saved(tmp_path / "x", painted(), exif=data)
    torch.testing.assert_close(images.read(path), PAINTED, rtol=0, atol=0)


# Size


def test_a_picture_of_the_right_size_is_left_alone(tmp_path: Path) -> None:
    torch.testing.assert_close(images.read(saved(tmp_path / "x", painted()), size=(2, 3)), PAINTED, rtol=0, atol=0)


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_is_kept(wide: bool) -> None:
    """Eight columns, of which the middle four are 1..4; covering 4x4 needs no scaling, so the crop is exact."""
    row = torch.tensor([9, 9, 1, 2, 3, 4, 9, 9], dtype=torch.uint8)
    picture = row.expand(1, 4, 8) if wide else row.expand(1, 4, 8).mT
    expected = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).expand(1, 4, 4)
    fitted = images.from_pillow(images.to_pillow(picture.contiguous()), size=(4, 4))
    torch.testing.assert_close(fitted, expected if wide else expected.mT, rtol=0, atol=0)


def triangle(values: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Antialiased bilinear scaling of a vector by its definition: a triangle as wide as two output pixels."""
    scale = len(values) / size
    centres = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(len(values)) - centres[:, None]) / max(scale, 1))
    result: np.ndarray[Any, Any] = weights @ values / weights.sum(1)
    return result


@pytest.mark.parametrize("size", [(8, 8), (5, 5), (12, 12), (32, 32)])
def test_scaling_is_the_antialiased_triangle(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    expected = np.apply_along_axis(triangle, 0, np.apply_along_axis(triangle, 1, picture, size[1]), size[0])
    fitted = images.from_pillow(Image.fromarray(picture), size=size)[0].numpy()
    assert np.abs(fitted - expected).max() <= 1.01  # Pillow rounds once after each axis


def test_an_extreme_aspect_needs_no_extreme_memory(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", Image.new("L", (1, 60_000), 7))
    assert images.read(path, size=(64, 64)).unique().tolist() == [7]


# What is refused

NO_READER = (
    "no reader of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP recognises it: "
    "it is another kind of file, its header is damaged, or it has no pixels."
)
DAMAGED = "it cannot be decoded, because it is damaged or cut short: "
DEEP = (
    "its pixels are {}, which 8 bits cannot hold. "
    "Scale the range that matters to 0..255 and save it with 8 bits a pixel."
)
SMALLER = "Striate reads at most 64,000,000 pixels. Scale it down or cut it up first."
PILLOW = "Image size (400000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack."
BAD_FILES = [
    ("empty", b"", "the file is empty."),
    ("text", b"These are not pixels.\n", NO_READER),
    ("pickle", b"\x80\x04N.", NO_READER),
    ("half a PNG header", png(3, 2, 8, 0)[:20], DAMAGED + "Truncated File Read."),
    ("PNG of no width", png(0, 2, 8, 0), NO_READER),
    ("GIF of no width", b"GIF89a\0\0\1\0\0\0\0;", NO_READER),
    ("BMP of no height", b"BM" + struct.pack("<IIIIiiHH24x", 54, 0, 54, 40, 3, 0, 1, 24), NO_READER),
    ("PNG cut short", png(9, 9, 8, 0, bytes(90))[:-26], DAMAGED + "image file is truncated."),
    ("PPM cut short", b"P6 3 2 255\n" + bytes(9), DAMAGED + "image file is truncated (0 bytes not processed)."),
    ("PGM of 16 bits", b"P5 1 1 65535\n\1\2", DEEP.format("whole numbers of more than 8 bits (mode I)")),
    ("PNG of 16 bits", png(1, 1, 16, 0, b"\0\1\2"), DEEP.format("whole numbers of more than 8 bits (mode I;16)")),
    ("PFM of floats", b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5), DEEP.format("floating-point numbers (mode F)")),
    ("bomb that Pillow passes", png(8000, 8001, 1, 0), f"its header declares 64,008,000 pixels; {SMALLER}"),
    ("bomb that Pillow warns of", png(10_000, 10_000, 1, 0), f"its header declares 100,000,000 pixels; {SMALLER}"),
    ("bomb that Pillow refuses", png(20_000, 20_000, 1, 0), f"{PILLOW} {SMALLER}"),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_message_for_a_bad_file(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    assert message(lambda: images.read(path)) == f"{path}: {reason}"


def test_message_for_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert message(lambda: images.read(tmp_path / "x.png")) == f"{tmp_path / 'x.png'}: there is no such file."
    assert message(lambda: images.read(tmp_path)) == f"{tmp_path}: it cannot be opened: Is a directory."


@pytest.mark.parametrize("form", ["ICO", "PCX", "SGI", "TGA", "JPEG2000", "DIB"])
def test_other_formats_of_pillow_are_not_opened(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / "x.png", Image.new("L", (16, 16)), form)
    assert message(lambda: images.read(path)) == f"{path}: {NO_READER}"


def test_deep_pillow_pictures_are_refused() -> None:
    assert message(lambda: images.from_pillow(Image.new("F", (1, 1)))) == DEEP.format("floating-point numbers (mode F)")


def test_the_largest_picture_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 6)
    assert images.read(saved(tmp_path / "x", painted())).shape == (3, 2, 3)


BAD_OPTIONS = [
    (dict(channels=2), "channels must be 1 (grey) or 3 (colour), got channels=2."),
    (dict(size=(0, 3)), "size must be two whole numbers (height, width), each at least 1, got size=(0, 3)."),
    (dict(size=(3,)), "size must be two whole numbers (height, width), each at least 1, got size=(3,)."),
    (dict(size=(3, 2.0)), "size must be two whole numbers (height, width), each at least 1, got size=(3, 2.0)."),
    (dict(size=8), "size must be two whole numbers (height, width), each at least 1, got size=8."),
    (dict(size=(8000, 8001)), "size=(8000, 8001) is 64,008,000 pixels; the limit is 64,000,000."),
]


@pytest.mark.parametrize(("options", "text"), BAD_OPTIONS)
def test_message_for_a_bad_option(options: dict[str, Any], text: str) -> None:
    assert message(lambda: images.read("nothing.png", **options)) == text
    assert message(lambda: images.from_pillow(painted(), **options)) == text


# Untrusted files


def seeds() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8))
    options: dict[str, dict[str, Any]] = {form: {} for form in images.FORMATS}
    options["TIFF"] = {"compression": "tiff_lzw"}
    files = {}
    for form in images.FORMATS:
        buffer = io.BytesIO()
        noise.save(buffer, form, **options[form], **({"exif": exif(6)} if form not in ("BMP", "GIF", "PPM") else {}))
        files[form] = buffer.getvalue()
    return files


@pytest.mark.parametrize("form", images.FORMATS)
def test_a_damaged_file_is_a_picture_or_a_data_error(tmp_path: Path, form: str) -> None:
    """Bytes overwritten at random: no other exception, no warning, never the wrong shape."""
    dice, data, path = random.Random(0), seeds()[form], tmp_path / "x"
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(dice.choice([1, 2, 8])):
            broken[dice.randrange(min(len(broken), dice.choice([64, 400, 10_000])))] = dice.randrange(256)
        path.write_bytes(broken)
        try:
            picture = images.read(path, size=(8, 8), channels=3)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
        else:
            assert picture.shape == (3, 8, 8)


@pytest.mark.parametrize("form", images.FORMATS)
def test_a_file_cut_in_two_is_never_half_a_picture(tmp_path: Path, form: str) -> None:
    data, path = seeds()[form], tmp_path / "x"
    for share in (0.02, 0.3, 0.5, 0.8, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        assert message(lambda: images.read(path)).startswith(f"{path}: ")


def warning_picture(path: Path) -> Path:
    """A PNG that claims to be an animation of no frames, which Pillow warns about."""
    path.write_bytes(png(1, 1, 8, 0, b"\0\7", early=b"acTL" + bytes(8)))
    return path


def test_warnings_of_pillow_do_not_leak(tmp_path: Path) -> None:
    path = warning_picture(tmp_path / "x.png")
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(path) as picture:
        picture.load()
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        assert images.read(path).tolist() == [[[7]]]
    assert not leaked


def test_other_warnings_are_not_silenced_and_the_filters_come_back(tmp_path: Path) -> None:
    path, before = warning_picture(tmp_path / "x.png"), list(warnings.filters)
    together = threading.Barrier(4)

    def work() -> None:
        together.wait()
        for _ in range(50):
            images.read(path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="mine"), images._QUIET:
        warnings.warn("mine", UserWarning, stacklevel=1)


# Folders and tensors


def test_find_lists_pictures_by_path(tmp_path: Path) -> None:
    names = ["b.png", "a.JPG", "c/d.webp", "c/d/e.tiff", "notes.txt", "png", ".hidden.png", ".cache/x.png", "._a.JPG"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert images.find(tmp_path) == [tmp_path / name for name in ["a.JPG", "b.png", "c/d.webp", "c/d/e.tiff"]]
    assert message(lambda: images.find(tmp_path / "x")) == f"{tmp_path / 'x'}: there is no such folder."


@pytest.mark.parametrize("picture", [PAINTED, PAINTED[:1], PAINTED.flip(2), torch.zeros(1, 1, 1, dtype=torch.uint8)])
def test_to_pillow_and_back(picture: Tensor) -> None:
    torch.testing.assert_close(images.from_pillow(images.to_pillow(picture)), picture, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        (torch.zeros(3, 4, 4), "torch.float32 (3, 4, 4)"),
        (torch.zeros(4, 4, dtype=torch.uint8), "torch.uint8 (4, 4)"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), "torch.uint8 (2, 4, 4)"),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), "torch.uint8 (3, 0, 4)"),
    ],
)
def test_message_for_a_tensor_that_is_no_picture(picture: Tensor, found: str) -> None:
    assert message(lambda: images.to_pillow(picture)) == (
        f"A picture is a uint8 tensor (1, H, W) or (3, H, W), got {found}."
    )


# Masks, and pictures that are no files of their own


def test_masks_keep_their_numbers(tmp_path: Path) -> None:
    numbers = torch.tensor([[0, 1, 2], [3, 254, 255]], dtype=torch.uint8)
    grey = Image.fromarray(numbers.numpy())
    palette = Image.fromarray(numbers.numpy())
    palette.putpalette([7, 8, 9] * 256)
    for picture in (grey, palette, Image.merge("RGB", (grey, grey, grey))):
        path = saved(tmp_path / "x", picture)
        torch.testing.assert_close(images.read_mask(path), numbers, rtol=0, atol=0)
    assert images.read_mask(saved(tmp_path / "x", Image.new("1", (2, 1), 1))).tolist() == [[255, 255]]


def test_masks_of_few_bits_keep_their_numbers(tmp_path: Path) -> None:
    """Pictures are spread over 0 to 255: 85 and 17 times as large."""
    path = tmp_path / "x"
    path.write_bytes(png(4, 1, 2, 0, rows=b"\0" + bytes([0b00_01_10_11])))
    assert (images.read_mask(path).tolist(), images.read(path).tolist()) == ([[0, 1, 2, 3]], [[[0, 85, 170, 255]]])
    path.write_bytes(png(4, 1, 4, 0, rows=b"\0" + bytes([0x01, 0x2F])))
    assert (images.read_mask(path).tolist(), images.read(path).tolist()) == ([[0, 1, 2, 15]], [[[0, 17, 34, 255]]])
    path.write_bytes(b"P5 201 1 200\n" + bytes(range(201)))
    assert images.read_mask(path).tolist() == [list(range(201))]
    path.write_bytes(b"P2 4 1 3\n0 1 2 3\n")
    assert images.read_mask(path).tolist() == [[0, 1, 2, 3]]


def test_message_for_a_mask_in_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", Image.new("L", (8, 8)), "JPEG")
    assert message(lambda: images.read_mask(path)) == (
        f"{path}: JPEG does not keep numbers as they are, so it cannot hold a mask. Draw it again and save it as PNG."
    )


def test_message_for_a_mask_in_lossy_webp(tmp_path: Path) -> None:
    mask = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    see_through = Image.merge("RGBA", (mask, mask, mask, mask))
    lossy: list[dict[str, Any]] = [{}, {"exif": exif(1)}, {"save_all": True, "append_images": [mask.rotate(90)]}]
    for picture, options in [*((mask, one) for one in lossy), (see_through, {})]:
        path = saved(tmp_path / "x", picture, "WEBP", **options)
        assert message(partial(images.read_mask, path)) == (
            f"{path}: lossy WEBP does not keep numbers as they are, so it cannot hold a mask. "
            "Draw it again and save it as PNG."
        )
    for options in ({}, {"exif": exif(1)}):
        path = saved(tmp_path / "x", mask, "WEBP", lossless=True, **options)
        assert images.read_mask(path).tolist() == np.array(mask).tolist()


def test_message_for_a_mask_in_gif(tmp_path: Path) -> None:
    """Pillow numbers the greys of each file anew: 0 and 2 would become 0 and 1."""
    path = saved(tmp_path / "x", Image.fromarray(np.array([[0, 2]], dtype=np.uint8)), "GIF")
    assert message(lambda: images.read_mask(path)) == (
        f"{path}: GIF does not keep numbers as they are, so it cannot hold a mask. Draw it again and save it as PNG."
    )


def test_masks_are_turned_and_fitted_as_their_pictures(tmp_path: Path) -> None:
    numbers = torch.arange(24, dtype=torch.uint8).view(4, 6)
    path = saved(tmp_path / "x", Image.fromarray(numbers.numpy()), exif=exif(6))
    assert images.read_mask(path).tolist() == images.read(path)[0].tolist() == numbers.rot90(-1).tolist()
    upright = saved(tmp_path / "y", Image.fromarray(numbers.numpy()))
    assert images.read_mask(upright, size=(2, 3)).tolist() == [[7, 9, 11], [19, 21, 23]]
    assert images.read_mask(upright, size=(4, 4)).tolist() == numbers[:, 1:5].tolist()


def test_message_for_a_mask_with_colours(tmp_path: Path) -> None:
    path = saved(tmp_path / "x", painted())
    assert message(lambda: images.read_mask(path)) == (
        f"{path}: a mask has one channel of class numbers (mode L or P), and this has mode RGB. "
        "Save the class numbers themselves, in grey or with a palette."
    )


def test_pictures_are_read_from_archives_bytes_and_open_files(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", painted())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "x.png")
        archive.writestr("bad.png", b"no picture")
    bad, good = entries(tmp_path / "a.zip")
    with path.open("rb") as file:
        for source in (good, path.read_bytes(), file):
            torch.testing.assert_close(images.read(source), PAINTED, rtol=0, atol=0)
    assert images.shape(good) == (3, 2, 3)
    assert message(lambda: images.read(bad)).startswith(f"{tmp_path / 'a.zip'}: bad.png: no reader of BMP,")
    (tmp_path / "a.zip").write_bytes(b"")
    assert message(lambda: images.read(good)) == f"{good}: the archive is damaged or cut short."


SIDES = st.integers(1, 40)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_mask_that_is_laid_back_over_its_picture(height: int, width: int, rows: int, columns: int) -> None:
    """Of a picture that fit made smaller, fit gives the mask again; of one that it made larger, the picture comes back.

    Both for the nearest pixel, which is how masks are read.
    """

    def nearest(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        picture = Image.fromarray(mask.numpy())
        return torch.from_numpy(np.array(ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.NEAREST)))

    numbers = torch.arange(max(height * width, rows * columns)) % 251
    mask, picture = (numbers[: a * b].view(a, b).byte() for a, b in ((rows, columns), (height, width)))
    if max(rows / height, columns / width) <= 1:
        assert torch.equal(nearest(images.placed(mask, (height, width), 255), (rows, columns)), mask)
    else:
        back = images.placed(nearest(picture, (rows, columns)), (height, width), 255)
        assert torch.equal(back[back != 255], picture[back != 255])
