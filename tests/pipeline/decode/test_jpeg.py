"""JPEG files: metadata and ends that are not as they should be, and pictures that lack blocks."""

from __future__ import annotations

import io
import os
import re
import struct
import tracemalloc

import numpy as np
import pytest
from helpers.paths import ROOT
from PIL import Image

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode import jpeg
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode

SAMPLE = ROOT / "samples" / "coffee.jpg"
TRUNCATED = "damaged image: image file is truncated: rows are missing"
KINDS: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "restart blocks": {"restart_marker_blocks": 3},
}


def photo(mode: str = "RGB") -> Image.Image:
    return Image.open(SAMPLE).convert("RGB").resize((160, 120)).convert(mode)


def encode(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def after_start(data: bytes, *extra: bytes) -> bytes:
    return data[:2] + b"".join(extra) + data[2:]


def shown(data: bytes, **options: object) -> np.ndarray:
    return np.asarray(decode(data, DecodeOptions(**options)))  # type: ignore[arg-type]


def error_of(data: bytes, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        shown(data, **options)
    return caught.value


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE0, b"JFIF"),
        segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + bytes(8)),
        segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x0f\x01\2\0\xff\xff\xff\xff\x1a\0\0\0\0\0\0\0"),
        segment(0xE1, b"Exif\0"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\5\2abc"),
        segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x07\xdb"),
        segment(0xEE, b"Adobe"),
        segment(0xEE, b"Adobe\0d\0\0"),
        b"\xff\xe5\0\0",
        b"\xff\x01",
        b"\xff\xd0",
        b"\xff" * 9,
        b"junk",
        b"\xff\0junk",
    ],
    ids=[
        *["JFIF", "JFIF, shorter", "Exif, short", "Exif, huge length", "Exif, name", "profile", "profile, number"],
        *["MPF", "Photoshop", "Adobe", "Adobe, short", "no length", "TEM", "restart", "fill", "junk", "stuffed"],
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_broken_header_does_not_spoil_a_sound_picture(extra: bytes) -> None:
    data = encode(photo())
    broken = after_start(data, extra)
    np.testing.assert_array_equal(shown(broken), shown(data))
    np.testing.assert_array_equal(shown(broken, guard="all"), shown(data))


def test_what_changes_the_picture_is_kept_from_a_broken_header() -> None:
    broken = segment(0xEE, b"Adobe")
    turned = Image.Exif()
    turned[0x0112] = 6
    for data in (encode(photo("CMYK")), encode(photo(), exif=turned), encode(photo("L"))):
        np.testing.assert_array_equal(shown(after_start(data, broken)), shown(data))


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_marker_that_is_missing_does_not_matter(kind: str) -> None:
    data = encode(photo(), **KINDS[kind])
    whole = shown(data)
    for end in (b"", b"\xff", b"\0" * 300):
        np.testing.assert_array_equal(shown(data[:-2] + end), whole)
    np.testing.assert_array_equal(shown(data[:-2], guard="all"), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_the_picture_does_not_matter(kind: str) -> None:
    data = encode(photo(), **KINDS[kind])
    for end in (os.urandom(3000), b"\0\0\0\x18ftypmp42" + bytes(3000), b"\0" * 300, encode(photo("L"))):
        np.testing.assert_array_equal(shown(data + end), shown(data))


@pytest.mark.parametrize("guard", ["suspect", "all"])
@pytest.mark.parametrize("kind", ["baseline", "optimised", "restarts", "restart blocks"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.98])
def test_blocks_that_are_missing_before_a_proper_end(share: float, kind: str, guard: str) -> None:
    data = encode(photo(), **KINDS[kind])
    cut = data[: int(len(data) * share)].rstrip(b"\xff")
    for end in (b"\xff\xd9", b"\xff\xd9" + bytes(300)):
        error = error_of(cut + end, guard=guard)
        assert (error.kind, error.message) == (ErrorKind.UNDECODABLE, TRUNCATED)
        assert hint_of(error) == "--allow-truncated classifies what could be read"
    assert shown(cut + b"\xff\xd9", guard=guard, allow_truncated=True).shape == (120, 160, 3)


def test_blocks_that_are_missing_of_a_grey_picture() -> None:
    data = encode(photo("L"))
    assert error_of(data[: len(data) // 2] + b"\xff\xd9").message == TRUNCATED
    assert error_of(data[: len(data) // 2]).message == TRUNCATED


def test_a_header_that_tells_more_rows_than_there_are() -> None:
    data = bytearray(encode(photo()))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 2] = struct.pack(">H", 200)
    assert error_of(bytes(data)).message == TRUNCATED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_stays_truncated(share: float, kind: str) -> None:
    data = encode(photo(), **KINDS[kind])
    cut = data[: int(len(data) * share)]
    for end in (b"", b"\0" * 5000):
        error = error_of(cut + end)
        assert (error.kind, error.message) == (ErrorKind.UNDECODABLE, TRUNCATED)


def test_a_progressive_picture_of_fewer_scans_has_all_its_rows() -> None:
    data = encode(photo(), progressive=True)
    last = data.rindex(b"\xff\xda")
    assert np.abs(shown(data[:last] + b"\xff\xd9").astype(int) - shown(data)).mean() < 5


def scans(data: bytes) -> list[tuple[int, int]]:
    """Return where the scans of a JPEG start and end."""
    return [found.span() for found in re.finditer(rb"\xff\xda.*?(?=\xff[\xc4\xda\xd9])", data, re.DOTALL)]


MODES = pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
OPTIONS = pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str)


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["suspect", "all"])
@OPTIONS
@MODES
def test_a_scan_that_is_cut_off_before_a_proper_end(mode: str, options: dict[str, object], guard: str) -> None:
    data = encode(photo(mode), progressive=True, **options)
    cuttable = [
        (start, end) for start, end in scans(data)[:-1] if end - start > 300
    ]  # one of no black has nothing
    assert len(cuttable) >= 2
    for start, end in cuttable:
        error = error_of(data[: (start + 14 + end) // 2].rstrip(b"\xff") + b"\xff\xd9", guard=guard)
        assert (error.kind, error.message) == (ErrorKind.UNDECODABLE, TRUNCATED)
        assert hint_of(error) == "--allow-truncated classifies what could be read"
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(shown(data, guard=guard), whole)


@OPTIONS
@MODES
def test_progressive_pictures_that_end_between_scans_are_whole(mode: str, options: dict[str, object]) -> None:
    data = encode(photo(mode), progressive=True, **options)
    for _, end in scans(data):
        between = data[:end] + b"\xff\xd9"
        np.testing.assert_array_equal(shown(between), np.asarray(Image.open(io.BytesIO(between)).convert("RGB")))


@OPTIONS
@MODES
def test_only_progressive_pictures_of_too_few_scans_are_decoded_again(
    mode: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded_again: list[bytes] = []
    continued = jpeg.continued
    monkeypatch.setattr(jpeg, "continued", lambda data: decoded_again.append(data) or continued(data))
    data = encode(photo(mode), progressive=True, **options)
    shown(data)
    shown(encode(photo(mode), **options))
    assert not decoded_again
    fewer = data[: scans(data)[-2][1]] + b"\xff\xd9"
    shown(fewer)
    assert decoded_again == [fewer]


def test_a_last_scan_of_first_bits_may_be_cut_off() -> None:
    data = bytearray(encode(photo("L"), progressive=True))
    assert not jpeg.may_lack_scans(data)
    last = scans(data)[-1][0]
    assert data[last + 9] == 0x10  # it sends bit 0 after bit 1
    data[last + 9] = 0
    assert jpeg.may_lack_scans(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_picture_whose_end_is_grey_is_not_truncated(mode: str, kind: str) -> None:
    picture = photo()
    picture.paste((128, 128, 128), (0, 60, 160, 120))
    data = encode(picture.convert(mode), **KINDS[kind])
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (expected[-1, -1] == 128).all() or mode == "CMYK"
    np.testing.assert_array_equal(shown(data), expected)


def test_what_no_viewer_shows_is_an_error() -> None:
    data = encode(photo())
    for broken in (data[:2] + data, after_start(data, b"\xff\x02\0\4ab"), data[:300], b"\xff\xd8\xff\xd9"):
        assert error_of(broken).kind is ErrorKind.UNDECODABLE


@pytest.mark.slow
def test_damaged_headers_raise_nothing_else() -> None:
    dice = np.random.default_rng(7)
    data = after_start(encode(photo().resize((32, 24))), segment(0xEE, b"Adobe"))
    for _ in range(300):
        damaged = bytearray(data)
        for place in dice.integers(2, len(data), 3):
            damaged[place] = dice.integers(0, 256)
        try:
            assert decode(bytes(damaged), DecodeOptions(max_pixels=10**6)).mode == "RGB"
        except InputError as error:
            assert error.kind in (ErrorKind.UNDECODABLE, ErrorKind.TOO_LARGE)


@pytest.mark.slow
@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xe5\0\2", b"\xff\xe1\0\x10Exif\0\0" + bytes(8), b"\0"])
def test_many_segments_take_no_memory_and_end_in_time(filler: bytes) -> None:
    data = b"\xff\xd8" + filler * (100_000 // len(filler))
    tracemalloc.start()
    try:
        assert jpeg.repaired(data) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()

    def stop() -> None:
        raise TimeoutError

    if filler[1:]:
        with pytest.raises(TimeoutError):
            jpeg.repaired(data, stop)
