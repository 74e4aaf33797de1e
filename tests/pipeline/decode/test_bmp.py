"""BMP files of every order and number of bits."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode

PIXELS = np.random.default_rng(8).integers(0, 256, (70, 13, 4), dtype=np.uint8)
HEIGHT, WIDTH = PIXELS.shape[:2]
LAYOUTS = {
    "4 bits, alpha": (16, (0x0F00, 0x00F0, 0x000F, 0xF000), 56),
    "4 bits": (16, (0x0F00, 0x00F0, 0x000F, 0), 40),
    "2, 3 and 1 bits": (16, (0x0600, 0x00E0, 0x0001, 0), 52),
    "5, 6 and 5 bits, blue first": (16, (0x001F, 0x07E0, 0xF800, 0), 56),
    "RGBX": (32, (0x0000FF, 0x00FF00, 0xFF0000, 0), 56),
    "10 bits": (32, (0x3FF00000, 0x000FFC00, 0x000003FF, 0), 108),
    "11 bits, alpha of 2": (32, (0x3FF00000, 0x000FFC00, 0x000003FF, 0xC0000000), 124),
}


def bmp(
    bits: int, masks: tuple[int, ...], header: int, *, height: int = HEIGHT, pixels: np.ndarray = PIXELS
) -> bytes:
    """Write the pixels with as many bits as the masks have room for."""
    words = np.zeros(pixels.shape[:2], np.uint32)
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1 if mask else 0
        most = mask >> shift
        words |= (np.rint(pixels[..., channel] / 255 * most).astype(np.uint32) << shift) if mask else 0
    stored = words.astype("<u2" if bits == 16 else "<u4")
    rows = [row.tobytes().ljust((WIDTH * bits + 31) // 32 * 4, b"\0") for row in stored]
    body = b"".join(rows if height < 0 else rows[::-1])
    info = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, bits, 3, len(body), 0, 0, 0, 0)
    info = (info + struct.pack("<4I", *masks)[: 12 if header < 56 else 16]).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(info)) + info + body


def rounded(masks: tuple[int, ...]) -> np.ndarray:
    """Return the pixels with as many levels as the masks allow, on white."""
    levels = [2 ** mask.bit_count() - 1 for mask in masks]
    colours = np.stack([np.rint(PIXELS[..., n] / 255 * levels[n]) / levels[n] * 255 for n in range(3)], axis=2)
    if not masks[3]:
        return colours
    opacity = (np.rint(PIXELS[..., 3] / 255 * levels[3]) / levels[3])[..., None]
    return colours * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", [1, -1], ids=["bottom up", "top down"])
def test_channels_are_read_wherever_they_lie(layout: str, direction: int) -> None:
    bits, masks, header = LAYOUTS[layout]
    data = bmp(bits, masks, header, height=direction * HEIGHT)
    assert np.abs(np.asarray(decode(data)) - rounded(masks)).max() <= 1.01
    assert np.array_equal(np.asarray(decode(data, DecodeOptions(guard="all"))), np.asarray(decode(data)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bounds_hold_and_a_cut_file_is_truncated(layout: str) -> None:
    data = bmp(*LAYOUTS[layout])
    for cut in (data[:-60], data[: len(data) // 2]):
        with pytest.raises(InputError, match="truncated") as caught:
            decode(cut)
        assert caught.value.kind is ErrorKind.UNDECODABLE
        assert decode(cut, DecodeOptions(allow_truncated=True)).size == (WIDTH, HEIGHT)
    huge = data[:18] + struct.pack("<ii", 60_000, 60_000) + data[26:]
    with pytest.raises(InputError) as caught:
        decode(huge)
    assert caught.value.kind is ErrorKind.TOO_LARGE


@pytest.mark.slow
def test_damaged_headers_raise_nothing_else() -> None:
    dice = np.random.default_rng(9)
    for layout in LAYOUTS.values():
        for _ in range(60):
            damaged = bytearray(bmp(*layout))
            for place in dice.integers(0, 80, 3):
                damaged[place] = dice.integers(0, 256)
            try:
                assert decode(bytes(damaged), DecodeOptions(max_pixels=10**6)).mode == "RGB"
            except InputError as error:
                assert error.kind in (ErrorKind.UNDECODABLE, ErrorKind.TOO_LARGE)
