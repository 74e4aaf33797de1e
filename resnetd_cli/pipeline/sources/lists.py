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
"""The most bytes in one entry."""
_MAX_EMPTY = 2**20
"""The most empty entries in a row: a device such as /dev/zero yields them endlessly."""
_BLOCK = 2**16
_LONGEST_MARK = 4


def read_list(location: str, *, null: bool = False) -> Iterator[bytes]:
    r"""Yield the entries of a list while it is read: lines without their line feed, or NUL-separated entries.

    Byte-order marks are dropped. UTF-16 and UTF-32 become UTF-8; anything else stays bytes, as file names are. A
    carriage return at the end of a line is kept, as it may be part of the name.

    Args:
        location: a file, or `-` for standard input.
        null: entries end with NUL instead of a line feed.

    Raises:
        UsageError: the list cannot be read, now or later; it is an image; or an entry is longer than `MAX_ENTRY`.
    """
    entries = _entries(location, b"\0" if null else b"\n")
    next(
        entries
    )  # opens the list, so that one that cannot be opened fails here, and one never read is closed, too
    return entries


def _entries(location: str, separator: bytes) -> Iterator[bytes]:
    """Yield nothing once the list is open, and then its entries."""
    try:
        stream = _stdin() if location == STDIN else Path(location).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(
            f"cannot read the list {location}: {system_reason(error)}",
            reason=Reason.LIST_NOT_OPENED,
        ) from error
    name = "the list on standard input" if location == STDIN else printable(location)
    number = empty = 0
    try:
        yield b""
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
            # Lines may end in carriage returns only. The caller splits shorter entries.
            *entries, rest = rest.split(b"\r") if separator == b"\n" else [rest, b""]
            yield from entries or [rest]
    yield rest


def _decoded(stream: BinaryIO, location: str, separator: bytes) -> Iterator[bytes]:
    """Yield a list's bytes in blocks, without byte-order mark, and UTF-16 and UTF-32 converted to UTF-8."""

    def read() -> bytes:
        # read1 returns whatever has arrived: names that a slow `find` has printed need not wait for the next.
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
    # A list of bytes may contain names that are not UTF-8, with or without a byte-order mark.
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding == "utf-8-sig" else "strict")
    while head or (head := read()):
        yield decoder.decode(head).encode("utf-8", "surrogateescape")
        head = b""
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")


def _what_else(head: bytes) -> str | None:
    """Return what a file is if it is certainly not a list: a name may look like magic bytes, but has no NUL."""
    if b"\0" not in head:
        return None
    if are_image_bytes(head):
        return "an image"
    what = non_text_kind(head)
    return None if what == "no text" else what


def _head(read: Callable[[], bytes], separator: bytes) -> bytes:
    """Return just enough of the beginning to detect the encoding: the rest may arrive much later."""
    head = b""
    while len(head) < _BLOCK and not _is_enough(head, separator) and (block := read()):
        head += block
    return head


def _is_enough(head: bytes, separator: bytes) -> bool:
    if separator == b"\n" and b"\0" in head:  # UTF-16, or not a list
        return b"\n\0" in head or b"\0\n" in head
    return separator in head or len(head) >= _LONGEST_MARK


def _unmarked(head: bytes) -> str | None:
    """Return the encoding of lines in UTF-16 without a byte-order mark, as `cmd /u` writes; None for other lists.

    No name contains NUL. If every other byte is NUL, and a line feed is among the characters they belong to, the
    list can only be UTF-16.
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
