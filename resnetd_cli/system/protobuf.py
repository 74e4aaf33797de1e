"""The wire format of protocol buffers, in which ONNX files are written: read and write the fields of a message.

A field has a number, a kind and a value. Messages are nested as values of the kind `BYTES`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
"""The kinds of values: a number of any length, eight bytes, bytes with their length, four bytes."""
_LONGEST_VARINT = 10
_TAGS = 2**32

Content = bytes | mmap.mmap


def fields(content: Content, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, kind and value and end of each field of a message; the value of bytes is their start.

    Raises:
        ValueError: it is not such a message.
    """
    at = start
    while at < stop:
        tag, at = _varint(content, at, stop)
        number, kind = tag >> 3, tag & 7
        if not number or tag >= _TAGS or kind not in (VARINT, EIGHT, BYTES, FOUR):
            raise ValueError("it is not an ONNX file")
        value = at
        if kind == VARINT:
            value, at = _varint(content, at, stop)
        elif kind == BYTES:
            length, value = _varint(content, at, stop)
            at = value + length
        else:
            at += 8 if kind == EIGHT else 4
        if at > stop:
            raise ValueError("it is cut off, or not an ONNX file")
        yield number, kind, value, at


def varints(content: Content, start: int, stop: int) -> list[int]:
    """Return the numbers of a packed field.

    Raises:
        ValueError: it is not such a field.
    """
    values, at = [], start
    while at < stop:
        value, at = _varint(content, at, stop)
        values.append(value)
    return values


def bytes_field(number: int, value: bytes) -> bytes:
    """Return a field that holds bytes, a text or a message."""
    return bytes_header(number, len(value)) + value


def bytes_header(number: int, length: int) -> bytes:
    """Return what precedes the bytes of a field."""
    return _encoded(number << 3 | BYTES) + _encoded(length)


def varint_field(number: int, value: int) -> bytes:
    """Return a field that holds a number."""
    return _encoded(number << 3 | VARINT) + _encoded(value)


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _varint(content: Content, at: int, stop: int) -> tuple[int, int]:
    """Return the number at a position, seven bits a byte, lowest first, and the position after it."""
    if at < stop and content[at] < 128:  # as most are
        return content[at], at + 1
    value = 0
    for index, byte in enumerate(content[at : min(at + _LONGEST_VARINT, stop)]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value % 2**64, at + index + 1
    raise ValueError("it is cut off, or not an ONNX file")
