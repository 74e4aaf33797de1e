"""Strip PNG files to the chunks that the picture needs, detect truncated ones, and find PNGs inside icons."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import ImageFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ICONS = (b"\0\0\1\0", b"\0\0\2\0")
_HEADER, _PALETTE = 13, 3
_TRANSPARENCY_BYTES = {0: (2,), 2: (6,), _PALETTE: range(1, 257)}
"""Maximum length of the transparency chunk, by colour type."""
_SAMPLES = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
# Adam7 interlacing: start and step of each pass, across and down.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_READ, _UNPACKED = 2**16, 2**20
_MARK = (173, 82, 201, 97)


class _Chunk(NamedTuple):
    """A chunk: its name, and the start and end of its content."""

    name: bytes
    start: int
    end: int


def bare(data: bytes, tick: Callable[[], object] = lambda: None) -> bytes:
    """Return a PNG with only the chunks its first picture needs: header, palette, transparency, EXIF and pixels.

    As in browsers, nothing else can prevent decoding: texts and profiles of any size (they are not decompressed),
    broken or misplaced ancillary chunks, animation frames. Transparency and EXIF are dropped if their checksum is
    wrong.

    Args:
        data: the file.
        tick: called for each chunk; it may stop the work by raising, as there can be millions.
    """
    view, kept = memoryview(data), io.BytesIO()
    seen: set[bytes] = set()
    colours, done, at = None, 0, len(SIGNATURE)  # bytes between `done` and `at` are to be copied
    for chunk in _chunks(data):
        tick()
        if chunk.name == b"IHDR" and colours is None and chunk.end - chunk.start >= _HEADER:
            colours = data[chunk.start + 9]
        if _is_needed(data, chunk, colours, seen):
            seen.add(chunk.name)
        else:
            kept.write(view[done:at])
            done = chunk.end + 4
        at = chunk.end + 4
    if not done and at >= len(data):
        return data
    kept.write(view[done:at])
    return kept.getvalue()


def inside_icon(data: bytes) -> bytes | None:
    """Return the largest picture in an icon or cursor if it is a PNG; otherwise None."""
    if data[:4] not in _ICONS or len(data) < 6:
        return None
    largest, place = 0, 0
    for entry in range(6, 6 + 16 * min(data[4] | data[5] << 8, 256), 16):
        if entry + 16 > len(data):
            break
        area = (data[entry] or 256) * (data[entry + 1] or 256)
        if area > largest:
            largest, place = area, entry
    if not largest:
        return None
    size, offset = struct.unpack_from("<II", data, place + 8)
    picture = data[offset : offset + size]
    return picture if picture.startswith(SIGNATURE) else None


class LastPixel:
    """Detects at almost no cost that an image's last row may be missing: Pillow does not write such rows."""

    def __init__(self, image: ImageFile.ImageFile) -> None:
        """Arrange for the last pixel to be marked before decoding; the image must not be loaded yet."""
        width, height = image.size
        row = height - 1
        if image.info.get("interlace") and height > 1:
            row -= height % 2  # the last pass contains the odd rows
        self._image, self._place = image, (width - 1, row)
        self._mark: object = None
        self._prepare = image.load_prepare
        image.load_prepare = self._prepare_and_mark  # type: ignore[method-assign]

    def is_as_marked(self) -> bool:
        """Return, after loading, whether the pixel still has its mark. A real pixel may equal it by chance."""
        return self._image.getpixel(self._place) == self._mark

    def _prepare_and_mark(self) -> None:
        self._prepare()
        (x, y), core = self._place, self._image.im
        bands = len(self._image.getbands())
        core.paste(_MARK[0] if bands == 1 else _MARK[:bands], (x, y, x + 1, y + 1))
        self._mark = core.getpixel(self._place)


def has_all_rows(data: bytes, tick: Callable[[], object] = lambda: None) -> bool:
    """Return whether the pixel data decompresses to as many bytes as the header declares.

    Args:
        data: the PNG.
        tick: called for each part; it may stop the work by raising.
    """
    view = memoryview(data)
    left, unpacker = None, zlib.decompressobj()
    for chunk in _chunks(data):
        tick()
        if chunk.name == b"IHDR":
            left = _unpacked_size(data[chunk.start : chunk.end])
        if chunk.name != b"IDAT" or left is None:
            continue
        for start in range(chunk.start, chunk.end, _READ):
            packed = bytes(view[start : min(start + _READ, chunk.end)])
            while left > 0 and packed and not unpacker.eof:
                tick()
                left -= len(unpacker.decompress(packed, _UNPACKED))
                packed = unpacker.unconsumed_tail
            if left <= 0 or unpacker.eof:
                return left <= 0
    return False


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield the chunks up to the end of the picture; the last one may be truncated."""
    at, name = len(SIGNATURE), b""
    while name != b"IEND" and at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if not name.isalnum():
            return
        yield _Chunk(name, at + 8, min(at + 8 + length, len(data)))
        at += 12 + length


def _is_needed(data: bytes, chunk: _Chunk, colours: int | None, seen: set[bytes]) -> bool:
    if chunk.name in (b"IDAT", b"IEND"):
        return True
    if chunk.name == b"eXIf":
        return chunk.name not in seen and _is_intact(data, chunk)
    if chunk.name in seen or b"IDAT" in seen:
        return False
    if chunk.name == b"tRNS":
        fits = chunk.end - chunk.start in _TRANSPARENCY_BYTES.get(colours or 0, ())
        return fits and (colours != _PALETTE or b"PLTE" in seen) and _is_intact(data, chunk)
    return chunk.name in (b"IHDR", b"PLTE")


def _is_intact(data: bytes, chunk: _Chunk) -> bool:
    return data[chunk.end : chunk.end + 4] == struct.pack(">I", zlib.crc32(data[chunk.start - 4 : chunk.end]))


def _unpacked_size(header: bytes) -> int:
    """Return the number of bytes of all rows, each with a filter byte in front."""
    width, height, depth, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", header)
    bits = depth * _SAMPLES.get(colours, 1)
    total = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
