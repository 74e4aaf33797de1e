"""Decoding: upright RGB, transparency on white, deep greys scaled, and bounds that hold."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT
from PIL import Image, ImageFile

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode

SAMPLES = ROOT / "samples"
ORIENTATION = 0x0112
WHITE = [255, 255, 255]
# Pillow warns of damage that it can live with; the suite makes errors of warnings.
QUIET = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
# What the EXIF standard asks a reader to do with the stored pixels to see them upright.
TURN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.fixture(autouse=True)
def pillow_as_it_was() -> Iterator[None]:
    """`allow_truncated` works through a switch of Pillow's that holds for the whole process."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    yield
    ImageFile.LOAD_TRUNCATED_IMAGES = False


def random_pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, format_name, **options)
    return buffer.getvalue()


def pixels(data: bytes, **options: object) -> np.ndarray:
    image = decode(data, DecodeOptions(**options))  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


def png(width: int, height: int, depth: int, colour: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG made by hand: what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    extra = b"".join(chunk(kind, data) for kind, data in chunks)
    data = chunk(b"IDAT", zlib.compress((b"\0" + row) * min(height, 8))) if row else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


def big_endian_tiff(grey: np.ndarray, orientation: int = 1) -> bytes:
    """Return an uncompressed 16-bit grey TIFF in Motorola byte order, which Pillow reads but does not write."""
    height, width = grey.shape
    data = grey.astype(">u2").tobytes()
    short, long = 3, 4
    tags = [
        (256, short, width << 16),
        (257, short, height << 16),
        (258, short, 16 << 16),
        (259, short, 1 << 16),
        (262, short, 1 << 16),
        (273, long, 8),
        (274, short, orientation << 16),
        (277, short, 1 << 16),
        (278, short, height << 16),
        (279, long, len(data)),
    ]
    directory = b"".join(struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (
        b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + struct.pack(">H", len(tags)) + directory + b"\0\0\0\0"
    )


def fails(data: bytes, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        decode(data, DecodeOptions(**options))  # type: ignore[arg-type]
    return caught.value


# --- plain images ---


@pytest.mark.parametrize("name", ["cat.jpg", "coffee.jpg"])
def test_plain_jpeg_is_what_pillow_reads(name: str) -> None:
    path = SAMPLES / name
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(pixels(path.read_bytes()), expected)


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_give_the_pixels_written(format_name: str) -> None:
    written = random_pixels(5, 7)
    assert np.array_equal(pixels(encode(written, format_name)), written)


def test_grey_jpeg_becomes_three_equal_channels() -> None:
    data = encode(random_pixels(16, 24, 1), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        grey = np.asarray(image)
    assert np.array_equal(pixels(data), np.stack([grey] * 3, axis=-1))


# --- orientation ---


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURN)
def test_exif_orientation_is_undone(orientation: int, format_name: str) -> None:
    stored = random_pixels(16, 40)
    as_stored = pixels(encode(stored, format_name))
    turned = pixels(encode(stored, format_name, exif=exif(orientation)))
    assert np.array_equal(turned, TURN[orientation](as_stored))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURN)
def test_ignore_exif_leaves_the_pixels_as_stored(orientation: int, format_name: str) -> None:
    stored = random_pixels(16, 40)
    as_stored = pixels(encode(stored, format_name))
    data = encode(stored, format_name, exif=exif(orientation))
    assert np.array_equal(pixels(data, ignore_exif=True), as_stored)


@pytest.mark.parametrize("orientation", TURN)
def test_deep_grey_is_turned_upright_too(orientation: int) -> None:
    grey = random_pixels(6, 9, 1).astype(np.uint16) * 257
    expected = TURN[orientation](grey // 257)
    for data in (encode(grey, "PNG", exif=exif(orientation)), big_endian_tiff(grey, orientation)):
        assert np.array_equal(pixels(data)[..., 0], expected)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_orientation_outside_the_standard_changes_nothing(orientation: int) -> None:
    stored = random_pixels(4, 6)
    assert np.array_equal(pixels(encode(stored, "PNG", exif=exif(orientation))), stored)


@QUIET
@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0" + bytes(range(64))])
def test_damaged_exif_block_does_not_spoil_a_sound_picture(block: bytes) -> None:
    stored = random_pixels(8, 8)
    assert np.array_equal(pixels(encode(stored, "JPEG", exif=block)), pixels(encode(stored, "JPEG")))


# --- transparency ---


def blend(colour: int, alpha: int) -> float:
    return (colour * alpha + 255 * (255 - alpha)) / 255


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF"])
def test_rgba_is_laid_on_white(format_name: str) -> None:
    rgba = np.array([[[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 128]]], dtype=np.uint8)
    options = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
    row = pixels(encode(rgba, format_name, **options))[0]
    assert row[0].tolist() == WHITE
    assert row[1].tolist() == [200, 100, 0]
    assert row[2] == pytest.approx([blend(value, 128) for value in (200, 100, 0)], abs=1)


def test_grey_with_alpha_is_laid_on_white() -> None:
    image = Image.merge("LA", [Image.new("L", (2, 1), 40), Image.frombytes("L", (2, 1), bytes([0, 255]))])
    assert pixels(encode(image, "PNG"))[0].tolist() == [WHITE, [40, 40, 40]]


def palette_image() -> Image.Image:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return image


def test_palette_without_transparency_gives_its_colours() -> None:
    expected = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    for format_name in ("PNG", "GIF", "BMP", "TIFF"):
        assert pixels(encode(palette_image(), format_name))[0].tolist() == expected


@pytest.mark.parametrize("format_name", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(format_name: str) -> None:
    row = pixels(encode(palette_image(), format_name, transparency=1))[0]
    assert row.tolist() == [[10, 20, 30], WHITE, [70, 80, 90]]


def test_palette_with_an_alpha_for_each_entry_is_laid_on_white() -> None:
    row = pixels(encode(palette_image(), "PNG", transparency=bytes([255, 0, 128])))[0]
    assert row[:2].tolist() == [[10, 20, 30], WHITE]
    assert row[2] == pytest.approx([blend(value, 128) for value in (70, 80, 90)], abs=1)


def test_palette_with_an_alpha_channel_is_laid_on_white() -> None:
    image = palette_image().convert("PA")
    image.putalpha(Image.frombytes("L", (3, 1), bytes([255, 0, 255])))
    data = encode(image, "TIFF")
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "PA"
    assert pixels(data)[0].tolist() == [[10, 20, 30], WHITE, [70, 80, 90]]


def test_transparent_colour_of_an_rgb_png_is_white() -> None:
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)
    assert pixels(encode(rgb, "PNG", transparency=(1, 2, 3)))[0].tolist() == [WHITE, [4, 5, 6]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "expected"),
    [
        (8, 0, bytes([7, 9]), b"\0\7", [WHITE, [9] * 3]),
        (1, 0, b"\x40", b"\0\0", [WHITE, WHITE]),
        (16, 0, struct.pack(">2H", 1000, 40092), struct.pack(">H", 1000), [WHITE, [156] * 3]),
        (
            16,
            2,
            struct.pack(">6H", 1000, 2000, 3000, 257, 514, 771),
            struct.pack(">3H", 1000, 2000, 3000),
            [WHITE, [1, 2, 3]],
        ),
    ],
    ids=["8-bit grey", "1-bit grey", "16-bit grey", "16-bit RGB"],
)
def test_transparent_value_of_a_png_without_alpha_is_white(
    depth: int, colour: int, row: bytes, transparent: bytes, expected: list[list[int]]
) -> None:
    assert pixels(png(2, 1, depth, colour, row, (b"tRNS", transparent)))[0].tolist() == expected


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF", "TGA", "DDS"])
def test_colours_show_where_alpha_is_zero_everywhere(format_name: str) -> None:
    """Programs that do not know alpha, or use it for something else, write it so."""
    colours = random_pixels(8, 12)
    options = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
    rgba = np.dstack([colours, np.zeros((8, 12), np.uint8)])
    assert np.array_equal(pixels(encode(rgba, format_name, **options)), colours)
    rgba[0, 0, 3] = 255
    assert (pixels(encode(rgba, format_name, **options))[1:] == 255).all()


def test_colours_show_where_every_palette_entry_is_transparent() -> None:
    row = pixels(encode(palette_image(), "PNG", transparency=bytes(3)))[0]
    assert row.tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


@pytest.mark.parametrize("header", [56, 108, 124])
def test_a_bmp_whose_alpha_is_never_set_shows_its_colours(header: int) -> None:
    colours = random_pixels(4, 6)
    stored = np.dstack([colours[::-1, :, ::-1], np.zeros((4, 6), np.uint8)]).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = (struct.pack("<IiiHHIIiiII", header, 6, 4, 1, 32, 3, len(stored), 0, 0, 0, 0) + masks).ljust(
        header, b"\0"
    )
    data = b"BM" + struct.pack("<IHHI", 14 + len(info) + len(stored), 0, 0, 14 + len(info)) + info + stored
    assert np.array_equal(pixels(data), colours)


def test_sixteen_bit_grey_with_alpha_is_laid_on_white() -> None:
    row = struct.pack(">4H", 30000, 0, 40092, 65535)
    assert pixels(png(2, 1, 16, 4, row))[0].tolist() == [WHITE, [156] * 3]


# --- greys of other depths ---


def test_one_bit_is_black_and_white() -> None:
    image = Image.frombytes("1", (4, 1), b"\x50")
    for format_name in ("PNG", "TIFF", "BMP"):
        assert pixels(encode(image, format_name))[0, :, 0].tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_equals_its_eight_bit_twin(format_name: str) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)
    deep[0, :2] = 0, 65535
    image = Image.fromarray(deep.astype(np.int32)) if format_name == "PPM" else Image.fromarray(deep)
    twin = np.rint(deep / 257)
    assert np.abs(pixels(encode(image, format_name))[..., 0] - twin).max() <= 1


def test_sixteen_bit_tiff_of_the_other_byte_order_equals_its_eight_bit_twin() -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (20, 30), dtype=np.uint16)
    assert np.abs(pixels(big_endian_tiff(deep))[..., 0] - np.rint(deep / 257)).max() <= 1


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "PPM"])
def test_dark_sixteen_bit_grey_stays_dark(format_name: str) -> None:
    deep = np.full((4, 4), 200, dtype=np.uint16)
    if format_name == "PPM":
        data = b"P5\n4 4\n65535\n" + deep.astype(">u2").tobytes()
    else:
        data = encode(deep, format_name)
    assert pixels(data).max() <= 1  # 200 of 65535


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.2, 0.4, 0.6], [51, 102, 153]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0 * 7, 65535.0], [0, 7, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([1000.0, 51000.0, 101000.0], [0, 128, 255]),
        ([float("nan"), 0.4, 1.0], [0, 102, 255]),
    ],
)
def test_float_tiff_is_scaled_not_clipped(values: list[float], expected: list[int]) -> None:
    data = encode(np.array([values], dtype=np.float32), "TIFF")
    assert pixels(data)[0, :, 0].tolist() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257 * 9, 65535], [0, 9, 255]),
        ([0, 2**30, 2**31 - 1], [0, 128, 255]),
        ([-(2**31), 0, 2**31 - 1], [0, 128, 255]),
    ],
)
def test_thirty_two_bit_integers_are_scaled(values: list[int], expected: list[int]) -> None:
    data = encode(np.array([values], dtype=np.int32), "TIFF")
    assert pixels(data)[0, :, 0].tolist() == pytest.approx(expected, abs=1)


def test_constant_float_image_does_not_divide_by_zero() -> None:
    data = encode(np.full((2, 2), -3.5, dtype=np.float32), "TIFF")
    assert len(np.unique(pixels(data))) == 1


def test_cmyk_jpeg_becomes_rgb() -> None:
    red, cyan = Image.new("CMYK", (16, 16), (0, 255, 255, 0)), Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert pixels(encode(red, "JPEG", quality=95))[8, 8] == pytest.approx([255, 0, 0], abs=6)
    assert pixels(encode(cyan, "JPEG", quality=95))[8, 8] == pytest.approx([0, 255, 255], abs=6)


# --- animations ---


@pytest.mark.parametrize(
    ("format_name", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})]
)
def test_animation_gives_its_first_frame(format_name: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert np.array_equal(pixels(data), np.asarray(frames[0]))


# --- bounds ---


def test_more_pixels_than_allowed_is_told_from_the_header_alone() -> None:
    error = fails(png(100_000, 100_000, 8, 2, b""))
    assert error.kind is ErrorKind.TOO_LARGE
    assert error.message == "10,000,000,000 pixels, more than 200,000,000"
    assert "--max-pixels" in (hint_of(error) or "")


def test_no_pixel_of_a_too_large_image_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loaded.append(self.format))
    assert fails(encode(random_pixels(10, 10), "JPEG"), max_pixels=99).kind is ErrorKind.TOO_LARGE
    assert loaded == []


def test_the_bound_itself_is_allowed() -> None:
    data = encode(random_pixels(10, 10), "PNG")
    assert pixels(data, max_pixels=100).shape == (10, 10, 3)
    assert fails(data, max_pixels=99).kind is ErrorKind.TOO_LARGE


@QUIET
def test_picture_inside_an_icon_is_bound_by_its_own_header() -> None:
    inner = png(100_000, 100_000, 8, 2, b"")
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    assert fails(icon + inner).kind is ErrorKind.TOO_LARGE


def test_deep_grey_is_scaled_in_one_array() -> None:
    side = 400
    data = encode(random_pixels(side, side, 1).astype(np.uint16) * 257, "PNG")
    decode(data)  # what is imported and prepared once does not count
    tracemalloc.start()
    try:
        decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / side**2 < 12  # bytes a pixel: float64, and what it was made from


# --- what is not an image, or not a whole one ---


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_file_is_undecodable(format_name: str, share: float) -> None:
    data = encode(random_pixels(100, 150), format_name)
    assert fails(data[: int(len(data) * share)]).kind is ErrorKind.UNDECODABLE


def test_truncated_jpeg_names_the_option_that_takes_it() -> None:
    data = (SAMPLES / "cat.jpg").read_bytes()
    assert hint_of(fails(data[: len(data) // 2])) == "--allow-truncated classifies what could be read"


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "TIFF"])
def test_allow_truncated_takes_what_is_there(format_name: str) -> None:
    data = encode(random_pixels(100, 150), format_name)
    whole, part = pixels(data), pixels(data[: len(data) // 2], allow_truncated=True)
    assert part.shape == whole.shape
    same = (part == whole).all(axis=(1, 2))
    # BMP begins at the bottom.
    rows = same[::-1] if format_name == "BMP" else same
    assert rows[:30].all()
    assert not rows[70:].any()


def test_a_tiff_that_lists_fewer_strips_than_its_height_needs_is_truncated() -> None:
    data = encode(random_pixels(20, 15), "TIFF")
    directory = struct.unpack_from("<I", data, 4)[0]
    entries = range(directory + 2, directory + 2 + 12 * struct.unpack_from("<H", data, directory)[0], 12)
    height = next(entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == 257)
    taller = data[: height + 8] + struct.pack("<I", 40) + data[height + 12 :]
    for guard in ("suspect", "all"):
        assert fails(taller, guard=guard).message == "damaged image: image file is truncated: rows are missing"
    assert np.array_equal(pixels(taller, allow_truncated=True)[:20], pixels(data))


@pytest.mark.parametrize("format_name", ["JPEG2000", "BMP", "PPM", "TGA", "SGI", "GIF"])
def test_the_option_is_named_where_a_file_is_cut_and_it_helps(format_name: str) -> None:
    data = encode(random_pixels(100, 150), format_name)
    cut = data[: len(data) // 2]
    assert hint_of(fails(cut)) == "--allow-truncated classifies what could be read"
    assert pixels(cut, allow_truncated=True).shape == (100, 150, 3)


def test_allow_truncated_holds_for_its_own_call_only() -> None:
    data = encode(random_pixels(100, 150), "JPEG")
    cut = data[: len(data) // 2]
    assert pixels(cut, allow_truncated=True).shape == (100, 150, 3)
    assert fails(cut).kind is ErrorKind.UNDECODABLE


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"just some text, saved as dog.jpg\n", "not an image"),
        (b"\n <!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"<html></html>", "web page"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<?xml version="1.0"?><svg></svg>', "SVG"),
        (b"", "not an image"),
        (b"\xff\xd8\xff", "a JPEG that is damaged"),
        (b"II*\0", "a TIFF that is damaged"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "not an image, but metadata that macOS keeps beside a file"),
        (np.random.default_rng(3).bytes(5000), "not an image"),
        (b"\0" * 5000, "not an image"),
    ],
    ids=[
        "text",
        "web page",
        "bare html",
        "pdf",
        "svg",
        "nothing",
        "jpeg magic",
        "tiff magic",
        "jpeg xl",
        "AppleDouble",
        "random",
        "zeros",
    ],
)
def test_what_is_no_image_is_undecodable_and_says_what_it_looks_like(data: bytes, said: str) -> None:
    error = fails(data)
    assert error.kind is ErrorKind.UNDECODABLE
    assert said in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("before", "format_name", "said"),
    [
        (b"\n", "PNG", "a PNG begins after 1 other byte"),
        (b"\xef\xbb\xbf", "JPEG", "a JPEG begins after 3 other bytes"),
        (b"\r\n", "GIF", "a GIF begins after 2 other bytes"),
        (b"<br />\n<b>Warning</b>: Undefined index<br />\n", "PNG", "a PNG begins after 45 other bytes"),
    ],
)
def test_bytes_before_an_image_are_named(before: bytes, format_name: str, said: str) -> None:
    """No viewer shows such a file."""
    data = before + encode(random_pixels(8, 8), format_name)
    error = fails(data)
    assert (error.kind, error.message) == (ErrorKind.UNDECODABLE, f"not an image: {said}")
    assert hint_of(error) == f"remove what is before it: tail -c +{len(before) + 1} FILE > NEW"


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["AVIF", "ICO", "ICNS"])
def test_the_format_of_a_damaged_file_is_named(format_name: str) -> None:
    name = "an AVIF" if format_name == "AVIF" else "an icon"
    data = encode(random_pixels(64, 64), format_name)
    assert fails(data[:16]).message == f"{name} that is damaged, or of a kind that is not decoded"


@pytest.mark.slow
@QUIET
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "TGA"])
def test_damaged_bytes_never_raise_anything_else(format_name: str) -> None:
    whole = encode(random_pixels(24, 24), format_name)
    generator = np.random.default_rng(4)
    for _ in range(60):
        data = bytearray(whole)
        for position in generator.integers(0, min(len(data), 400), 4):
            data[position] = generator.integers(0, 256)
        try:
            assert decode(bytes(data), DecodeOptions(max_pixels=10**6)).mode == "RGB"
        except InputError as error:
            assert error.kind in (ErrorKind.UNDECODABLE, ErrorKind.TOO_LARGE)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Ghostscript is a shell script")
def test_postscript_runs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, program = tmp_path / "it-ran", tmp_path / "gs"
    program.write_text(f'#!/bin/sh\n: > {marker}\n[ "$1" = --version ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    error = fails(eps)
    assert error.kind is ErrorKind.UNDECODABLE
    assert "PostScript" in error.message
    assert not marker.exists()
    # Pillow by itself would have run it: the stand-in is where Pillow looks.
    with pytest.raises((OSError, subprocess.CalledProcessError)), Image.open(io.BytesIO(eps)) as image:
        image.load()
    assert marker.exists()


def test_damage_is_not_lost_in_the_reading_of_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Pillow's SGI decoder does: an error the first time, black pixels the second.
    from PIL import ImageFile

    load, calls = ImageFile.ImageFile.load, []

    def load_once_in_vain(image: ImageFile.ImageFile) -> object:
        calls.append(image)
        if len(calls) == 1:
            raise OSError("buffer overrun when reading image file")
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load_once_in_vain)
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    with pytest.raises(InputError, match="buffer overrun") as caught:
        decode(file.getvalue())
    assert caught.value.kind is ErrorKind.UNDECODABLE
