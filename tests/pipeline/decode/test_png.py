"""PNG files: nothing beside the pixels stands in their way, and a picture that lacks rows is truncated."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from helpers.paths import ROOT
from PIL import Image

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode import png
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode

WIDTH, HEIGHT = 40, 30
PIXELS = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
BIG = b" " * 2_000_000
TRUNCATED = "damaged image: image file is truncated: rows are missing"
ORIENTATION_6 = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
XMP_6 = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PACKED = zlib.compress(BIG)


def chunk(name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def header(
    width: int = WIDTH, height: int = HEIGHT, *, depth: int = 8, colours: int = 2, interlaced: int = 0
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced))


def file(*before: bytes, rows: bytes = ROWS, head: bytes = header(), after: bytes = b"") -> bytes:
    return b"".join(
        [png.SIGNATURE, head, *before, chunk(b"IDAT", zlib.compress(rows)), after, chunk(b"IEND", b"")]
    )


def adam7(pixels: np.ndarray) -> list[bytes]:
    """Return the rows of each of the passes."""
    passes = []
    for left, top, across, down in png._PASSES:
        part = pixels[top::down, left::across]
        passes += [b"\0" + row.tobytes() for row in part if row.size]
    return passes


def error_of(data: bytes, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        decode(data, DecodeOptions(**options))  # type: ignore[arg-type]
    return caught.value


def assert_shown(data: bytes, expected: np.ndarray = PIXELS) -> None:
    np.testing.assert_array_equal(np.asarray(decode(data)), expected)


# --- beside the pixels ---


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(os.urandom(1_200_000))),
        chunk(b"iCCP", b"profile\0\5" + zlib.compress(b"unknown method")),
        chunk(b"iCCP", b"no end of name"),
        chunk(b"iCCP", b""),
        chunk(b"zTXt", b"workflow\0\0" + PACKED),
        chunk(b"zTXt", b"workflow\0\5" + PACKED),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PACKED),
        b"".join(chunk(b"tEXt", b"k%d\0" % number + b"x" * 1_000_000) for number in range(70)),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0"),
        chunk(b"sRGB", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"tRNS", b"\0"),
        chunk(b"tRNS", bytes(8)),
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"acTL", b"\0"),
        chunk(b"acTL", struct.pack(">II", 2, 0))
        + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 7, 9, 9, 0, 0, 1, 9, 0, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, WIDTH + 1, HEIGHT, 0, 0, 1, 9, 0, 0)),
    ],
    ids=[
        *["large profile", "profile, method", "profile, name", "profile, empty", "large text", "text, method"],
        *["large XMP", "much text", "gAMA", "cHRM", "sRGB", "pHYs", "tRNS, short", "tRNS, long", "eXIf"],
        *["acTL", "animation, order", "animation, frame"],
    ],
)
def test_chunks_beside_the_pixels_do_not_matter(extra: bytes) -> None:
    assert_shown(file(extra))
    assert_shown(file(after=extra))


@pytest.mark.parametrize("name", [b"pHYs", b"iCCP", b"tEXt", b"tIME", b"prVt", b"eXIf", b"tRNS"])
def test_a_chunk_beside_the_pixels_may_have_a_wrong_checksum(name: bytes) -> None:
    content = {b"eXIf": ORIENTATION_6, b"tRNS": struct.pack(">3H", *PIXELS[0, 0])}.get(name, bytes(9))
    data = file(chunk(name, content, checksum=1))
    assert_shown(data)
    np.testing.assert_array_equal(np.asarray(decode(data, DecodeOptions(guard="all"))), PIXELS)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE"])
def test_the_checksums_of_header_and_palette_count(name: bytes) -> None:
    buffer = io.BytesIO()
    Image.new("P", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    at = data.index(name)
    data[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 1
    error = error_of(bytes(data))
    assert (error.kind, error.message) == (ErrorKind.UNDECODABLE, "a damaged PNG")
    assert hint_of(error) == "fetch or export it again"


def test_orientation_in_exif_counts_and_that_in_texts_does_not() -> None:
    """As in browsers."""
    upright = np.rot90(PIXELS, -1)
    assert_shown(file(chunk(b"eXIf", ORIENTATION_6)), upright)
    assert_shown(file(after=chunk(b"eXIf", ORIENTATION_6)), upright)
    assert_shown(file(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_6)))


def test_transparency_counts_between_palette_and_pixels_only() -> None:
    palette, first = chunk(b"PLTE", bytes(range(6))), chunk(b"tRNS", b"\0\xff")
    parts = {"head": header(2, 1, colours=3), "rows": b"\0\0\1"}
    assert_shown(file(palette, first, **parts), np.uint8([[[255, 255, 255], [3, 4, 5]]]))
    assert_shown(file(first, palette, **parts), np.uint8([[[0, 1, 2], [3, 4, 5]]]))
    assert_shown(file(palette, after=first, **parts), np.uint8([[[0, 1, 2], [3, 4, 5]]]))


def test_pixels_in_several_chunks_with_others_between() -> None:
    packed = zlib.compress(ROWS)
    parts = [
        chunk(b"IDAT", packed[:900]),
        chunk(b"tEXt", b"a\0b"),
        chunk(b"IDAT", b""),
        chunk(b"IDAT", packed[900:]),
    ]
    assert_shown(png.SIGNATURE + header() + b"".join(parts) + chunk(b"IEND", b""))


def test_what_follows_the_picture_does_not_matter() -> None:
    data = file()
    for end in (b"", os.urandom(3000), b"\0" * 100, data):
        assert_shown(data + end)
        assert_shown(data[:-12] + end)


def test_the_file_itself_is_taken_where_nothing_is_to_be_left_out() -> None:
    data = file()
    assert png.bare(data) is data


# --- missing rows ---


@pytest.mark.parametrize("guard", ["suspect", "all"])
@pytest.mark.parametrize("rows", [1, 2, HEIGHT - 1])
def test_rows_that_are_missing_from_a_properly_ended_stream(rows: int, guard: str) -> None:
    data = file(rows=ROWS[: rows * (1 + 3 * WIDTH)])
    error = error_of(data, guard=guard)
    assert (error.kind, error.message) == (ErrorKind.UNDECODABLE, TRUNCATED)
    assert hint_of(error) == "--allow-truncated classifies what could be read"
    shown = np.asarray(decode(data, DecodeOptions(guard=guard, allow_truncated=True)))
    np.testing.assert_array_equal(shown[:rows], PIXELS[:rows])
    assert not shown[rows:].any()


@pytest.mark.parametrize("height", [1, 2, 3, 8, 9, HEIGHT])
def test_rows_that_are_missing_from_an_interlaced_picture(height: int) -> None:
    rows = adam7(PIXELS[:height])
    head = header(WIDTH, height, interlaced=1)
    assert_shown(file(head=head, rows=b"".join(rows)), PIXELS[:height])
    for missing in range(1, len(rows)) if height > 1 else ():
        assert error_of(file(head=head, rows=b"".join(rows[:-missing]))).message == TRUNCATED


@pytest.mark.parametrize(
    ("depth", "colours", "row"),
    [(1, 0, b"\xaa"), (8, 0, bytes([173] * 8)), (16, 0, bytes(range(16))), (8, 4, bytes(16)), (8, 6, bytes(32))],
)
def test_rows_are_counted_in_every_kind_of_pixels(depth: int, colours: int, row: bytes) -> None:
    head = header(8, 4, depth=depth, colours=colours)
    assert decode(file(head=head, rows=(b"\0" + row) * 4)).size == (8, 4)
    assert error_of(file(head=head, rows=(b"\0" + row) * 3)).message == TRUNCATED


def test_a_last_pixel_that_looks_unread_is_not_missing() -> None:
    pixels = PIXELS.copy()
    pixels[-1, -1] = png._MARK[:3]
    assert_shown(file(rows=b"".join(b"\0" + row.tobytes() for row in pixels)), pixels)


@pytest.mark.slow
def test_counting_rows_stops_where_the_picture_ends() -> None:
    """However much more the stream unpacks to."""
    data = file(rows=bytes(50 * 2**20), head=header(64, 64))
    ticks: list[int] = []
    assert png.has_all_rows(data, lambda: ticks.append(0))
    assert len(ticks) < 10
    assert not png.has_all_rows(file(rows=bytes(5000), head=header(64, 64)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [b"tEXt", b"IDAT", b"teSt"])
def test_many_chunks_take_no_memory_and_end_in_time(name: bytes) -> None:
    data = png.SIGNATURE + header() + (chunk(name, b"") + chunk(b"IDAT", b"")) * 10_000 + file()[33:]
    tracemalloc.start()
    try:
        png.bare(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data)
    finally:
        tracemalloc.stop()
    assert error_of(data, timeout=0.002).kind is ErrorKind.TIMEOUT


# --- icons ---


def icon(picture: bytes, kind: int = 1) -> bytes:
    entry = struct.pack("<BBBBHHII", WIDTH, HEIGHT, 0, 0, 3, 5, len(picture), 22)
    return struct.pack("<HHH", 0, kind, 1) + entry + picture


@pytest.mark.parametrize("kind", [1, 2], ids=["icon", "cursor"])
def test_a_png_in_an_icon_is_as_good_as_by_itself(kind: int) -> None:
    assert_shown(icon(file(), kind))
    assert_shown(icon(file(chunk(b"pHYs", bytes(9), checksum=1)), kind))
    assert error_of(icon(file(rows=ROWS[:-121]), kind)).message == TRUNCATED


def test_an_icon_whose_directory_leads_nowhere_is_no_png() -> None:
    for data in (b"\0\0\1\0", b"\0\0\1\0\xff\xff", icon(b"")[:-10], b"\0\0\1\0\1\0" + b"\xff" * 16):
        assert png.inside_icon(data) is None


@pytest.mark.slow
def test_damaged_files_raise_nothing_else() -> None:
    dice = np.random.default_rng(6)
    whole = file(chunk(b"tRNS", bytes(6)), chunk(b"eXIf", ORIENTATION_6))
    for data in (whole, icon(whole)):
        for _ in range(300):
            damaged = bytearray(data)
            for place in dice.integers(0, 150, 3):
                damaged[place] = dice.integers(0, 256)
            try:
                assert decode(bytes(damaged), DecodeOptions(max_pixels=10**6)).mode == "RGB"
            except InputError as error:
                assert error.kind in (ErrorKind.UNDECODABLE, ErrorKind.TOO_LARGE)


def test_samples_stay_as_pillow_reads_them() -> None:
    for path in (ROOT / "samples").glob("*.jpg"):
        photo = Image.open(path).convert("RGB").resize((90, 70))
        for mode in ("RGB", "L", "P", "1"):
            buffer = io.BytesIO()
            photo.convert(mode).save(buffer, "PNG", dpi=(72, 72))
            np.testing.assert_array_equal(
                np.asarray(decode(buffer.getvalue())), np.asarray(Image.open(buffer).convert("RGB"))
            )
