"""Read lists of inputs (`--files-from`) as they arrive: any encoding, lines or NUL-separated, within limits."""

from __future__ import annotations

import codecs
import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from resnetd_cli.errors import Reason, UsageError
from resnetd_cli.pipeline.sources.folders import are_image_bytes
from resnetd_cli.system.encodings import marked, non_text_kind
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.wording import system_reason

STDIN = "-"
MAX_ENTRY = 2**16
"""Bytes of one entry."""
_MAX_EMPTY = 2**20
"""Empty entries in a row: a device gives them without end."""
_BLOCK = 2**16
_LONGEST_MARK = 4


def read_list(location: str, *, null: bool = False) -> Iterator[bytes]:
    r"""Yield the entries of a list, as it is read: lines, without their line feed, or what NUL separates.

    Byte-order marks are dropped. UTF-16 and UTF-32 become UTF-8; all else is bytes, as file names are. A carriage
    return at the end of a line stays: it may belong to the name.

    Args:
        location: a file, or `-` for standard input.
        null: entries end with NUL, not with a line feed.

    Raises:
        UsageError: the list cannot be read, now or later, is an image, or has an entry of more than `MAX_ENTRY`
            bytes.
    """
    try:
        # `with` not wanted here: the stream is read lazily, and closed when the generator ends.
        stream = _stdin() if location == STDIN else Path(location).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(
            f"cannot read the list {location}: {system_reason(error)}",
            reason=Reason.LIST_NOT_OPENED,
        ) from error
    return _entries(stream, location, b"\0" if null else b"\n")


def _entries(stream: BinaryIO, location: str, separator: bytes) -> Iterator[bytes]:
    name = "the list on standard input" if location == STDIN else printable(location)
    number = empty = 0
    try:
        for number, entry in enumerate(_split(_decoded(stream, location, separator), separator), 1):
            if len(entry) > MAX_ENTRY:
                message = f"{name}, entry {number:,}: longer than {MAX_ENTRY:,} bytes"
                raise UsageError(message, reason=Reason.LIST_ENTRIES)
            empty = 0 if entry else empty + 1
            if empty > _MAX_EMPTY:
                raise UsageError(
                    f"{name}: more than {_MAX_EMPTY:,} empty entries in a row", reason=Reason.LIST_ENTRIES
                )
            if entry:
                yield entry
    except UnicodeDecodeError as error:
        message = f"{name}: not valid {error.encoding.upper()}"
        raise UsageError(message, hint="save the list as UTF-8") from error
    except OSError as error:
        raise UsageError(f"cannot read the list: {system_reason(error)}", reason=Reason.LIST_NOT_READ) from error
    finally:
        if sys.stdin is None or stream is not sys.stdin.buffer:
            stream.close()


def _split(blocks: Iterator[bytes], separator: bytes) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *entries, rest = (rest + block).split(separator)
        yield from entries
        if len(rest) > MAX_ENTRY:
            # Lines may end with carriage returns alone. Of shorter ones the caller finds out what they are.
            *entries, rest = rest.split(b"\r") if separator == b"\n" else [rest, b""]
            yield from entries or [rest]
    yield rest


def _decoded(stream: BinaryIO, location: str, separator: bytes) -> Iterator[bytes]:
    """Yield what is in a list, block by block, without a mark, and as UTF-8 if it is UTF-16 or UTF-32."""

    def read() -> bytes:
        # read1 returns what is there: names that a slow `find` has already printed need not wait for the next.
        return stream.read1(_BLOCK) if hasattr(stream, "read1") else stream.read(_BLOCK)

    head = _head(read, separator)
    encoding = marked(head) or (_unmarked(head) if separator == b"\n" else None)
    if encoding is None:
        if what := _what_else(head):
            message = f"{printable(location)} is {what}, not a list of names"
            raise UsageError(message, reason=Reason.NOT_A_LIST)
        while head or (head := read()):
            yield head
            head = b""
        return
    # With a mark or without, what is not UTF-8 in a list of bytes may still be a name.
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding == "utf-8-sig" else "strict")
    while head or (head := read()):
        yield decoder.decode(head).encode("utf-8", "surrogateescape")
        head = b""
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")


def _what_else(head: bytes) -> str | None:
    """Return what a file is, if it is certainly no list: names begin like other files, but hold no NUL."""
    if b"\0" not in head:
        return None
    if are_image_bytes(head):
        return "an image"
    what = non_text_kind(head)
    return None if what == "no text" else what


def _head(read: Callable[[], bytes], separator: bytes) -> bytes:
    """Return enough of the beginning to know the encoding, and no more: the rest may come much later."""
    head = b""
    while len(head) < _BLOCK and not _is_enough(head, separator) and (block := read()):
        head += block
    return head


def _is_enough(head: bytes, separator: bytes) -> bool:
    if separator == b"\n" and b"\0" in head:  # UTF-16, or no list
        return b"\n\0" in head or b"\0\n" in head
    return separator in head or len(head) >= _LONGEST_MARK


def _unmarked(head: bytes) -> str | None:
    """Return the encoding of a list of lines in UTF-16 without a mark, as `cmd /u` writes; None if it is not one.

    No name holds a NUL. Where all of them are every other byte, and a line feed is among the characters they
    are part of, nothing else is possible.
    """
    if b"\0" not in head:
        return None
    whole = head[: len(head) // 2 * 2]
    even, odd = whole[::2], whole[1::2]
    for encoding, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if b"\0" in high and b"\0" not in low:
            text = whole.decode(encoding, "replace")
            if "\n" in text and not text.isspace():
                return encoding
    return None


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer
