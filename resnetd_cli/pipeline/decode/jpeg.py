"""Repair JPEG files with broken headers or ends, and detect truncated ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

START, END = b"\xff\xd8", b"\xff\xd9"
_MARK = 0xFF
# Except markers without content: restart markers and TEM.
_MARKER = re.compile(rb"\xff[^\xff\0\x01\xd0-\xd7]", re.DOTALL)
_PADDING = bytes(4)
_SCAN = 0xDA
_PROGRESSIVE = 0xC2
_COEFFICIENTS = 64
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE, 0xDC})
# Application segments that affect the picture: their first bytes, and their minimum length.
_NEEDED = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 14), 0xEE: (b"Adobe", 12)}
# With any Huffman tables, these bytes decode to something, and restart markers let decoding continue.
_NOISE = b"".join(
    bytes(n * k % 251 + 1 for k in range(1, 200)) + bytes([0xFF, 0xD0 + n % 8]) for n in range(1, 41)
)


class _Segment(NamedTuple):
    """A segment: its marker's number, and its start and end, including the marker."""

    marker: int
    start: int
    end: int


def repaired(data: bytes, tick: Callable[[], object] = lambda: None) -> bytes | None:
    """Return a JPEG with only the header segments that its picture needs, and with an end marker.

    None if it cannot be repaired: its header is broken, or its coding does not show what is missing.

    Args:
        data: the file.
        tick: called for each segment; it may stop the work by raising, as there can be millions.
    """
    if not data.startswith(START):
        return None
    kept = bytearray(START)
    for segment in _segments(data):
        tick()
        if segment.marker == _SCAN:
            return b"".join([kept, memoryview(data)[segment.start : _end_of_coded(data)], END])
        if segment.marker in _ARITHMETIC:
            return None
        if segment.marker not in _METADATA or _is_needed(data, segment):
            kept += data[segment.start : segment.end]
    return None


def continued(data: bytes) -> bytes | None:
    """Return a JPEG with noise after its coded pixels, which decodes to the same picture only if it was complete.

    None for arithmetic coding, where the bytes that follow affect the picture.
    """
    scan = next((found for found in _segments(data) if found.marker == _SCAN or found.marker in _ARITHMETIC), None)
    if scan is None or scan.marker != _SCAN:
        return None
    end = data.find(END, scan.end)
    return b"".join([memoryview(data)[: _end_of_coded(data, end)], _NOISE, END])


def may_lack_scans(data: bytes, tick: Callable[[], object] = lambda: None) -> bool:
    """Return whether a progressive JPEG may lack scans at its end, so that more than last bits are missing.

    Its scans do not send every coefficient down to its last bit, or the last scan sends first bits. Such a file
    may still be complete: decode `continued` to find out.

    Args:
        data: the file.
        tick: as in `repaired`.
    """
    lowest: dict[int, list[int | None]] = {}
    first_bits = False
    for segment in _segments(data):
        tick()
        content = data[segment.start + 4 : segment.end]
        if segment.marker == _PROGRESSIVE:
            lowest = {component: [None] * _COEFFICIENTS for component in content[6::3]}
        elif segment.marker == _SCAN and len(content) > 3:
            start, end, bits = content[-3:]
            first_bits = not bits >> 4
            for component in content[1:-3:2]:
                if component in lowest and end < _COEFFICIENTS:
                    lowest[component][start : end + 1] = [bits & 15] * (end + 1 - start)
    return bool(lowest) and (first_bits or any(any(bit != 0 for bit in bits) for bits in lowest.values()))


def is_padded(data: bytes) -> bool:
    """Return whether a JPEG ends in zeros instead of an end marker, as after an interrupted transfer."""
    return data.endswith(_PADDING) and not data.rstrip(b"\0").endswith(END)


def _segments(data: bytes) -> Iterator[_Segment]:
    """Yield the segments up to the end of the first picture, skipping garbage between them."""
    at = len(START)
    while found := _MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        end = at + max(2, int.from_bytes(data[at : at + 2], "big"))
        yield _Segment(marker, at - 2, end)
        if marker in (START[1], END[1]):
            return
        at = end


def _is_needed(data: bytes, segment: _Segment) -> bool:
    beginning, least = _NEEDED.get(segment.marker, (b"", 2**16))
    return data.startswith(beginning, segment.start + 4) and segment.end - segment.start - 4 >= least


def _end_of_coded(data: bytes, end_marker: int = -1) -> int:
    """Return where the coded pixels end: before the end marker, padding zeros, or half a marker."""
    end = len(data) if end_marker < 0 else end_marker
    if end_marker < 0 and data.endswith(_PADDING):
        end = len(data.rstrip(b"\0"))
        return end + 1 if data[end - 1] == _MARK else end
    while end and data[end - 1] == _MARK:
        end -= 1
    return end
