"""Decompress what a server sends (gzip, deflate) in bounded steps."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

from resnetd_cli.errors import ErrorKind, InputError

GZIP, DEFLATE = "gzip", "deflate"
_NAMES = {"gzip": GZIP, "x-gzip": GZIP, "deflate": DEFLATE}
_UNKNOWN = frozenset({"br", "zstd", "dcb", "dcz", "compress", "x-compress"})
_MOST_LAYERS = 2
_MOST_EMPTY_MEMBERS = 100
"""Of a gzip file. Each costs time and gives nothing."""
_STEP = 2**16
"""Bytes taken, and given, at once."""
_ZLIB_METHOD = 8
_HINT = "open it in a browser"


def codings(header: str) -> list[str]:
    """Return the compressions that a Content-Encoding names, the outermost first; unknown words are ignored.

    Raises:
        InputError: of kind `connection`: it is compressed in another way, or again and again.
    """
    names = [name.strip().lower() for name in header.split(",")]
    if unknown := _UNKNOWN.intersection(names):
        message = f"the server compressed it with {min(unknown)}, which is not supported"
        raise InputError(ErrorKind.CONNECTION, message, hint=_HINT)
    found = [_NAMES[name] for name in names if name in _NAMES]
    if len(found) > _MOST_LAYERS:
        raise InputError(ErrorKind.CONNECTION, f"the server compressed it {len(found)} times over", hint=_HINT)
    return found[::-1]


def inflate(chunks: Iterable[bytes], coding: str, tick: Callable[[int], None]) -> Iterator[bytes]:
    """Yield what compressed chunks hold, in chunks.

    Args:
        chunks: the compressed bytes.
        coding: `gzip` or `deflate`.
        tick: is called after each step, however little came of it, with the number of bytes that did.

    Raises:
        InputError: of kind `connection`: it is not what it says, or ends early.
    """
    stream: zlib._Decompress | None = None
    members = empty = 0
    for chunk in chunks:
        rest, data = chunk, b""
        while rest or len(data) == _STEP:
            if stream is None:
                stream, members = zlib.decompressobj(_window(coding, rest)), members + 1
            try:
                data = stream.decompress(rest, _STEP)
            except zlib.error as error:
                if members > 1:  # what comes after the end counts for nothing
                    return
                raise _broken(f"the server says that it is {coding}, and it is not") from error
            tick(len(data))
            if data:
                yield data
            if not stream.eof:
                rest = stream.unconsumed_tail
            elif coding == GZIP:  # which may have another member
                empty += not data
                _check_empty(empty)
                rest, data, stream = stream.unused_data, b"", None
            else:
                return
    if stream is not None and members == 1:
        raise _broken(f"the {coding} that the server sent ends early")


def _window(coding: str, start: bytes) -> int:
    """Return zlib's name for the format: `deflate` has zlib's header by the book, and none from some servers."""
    if coding == GZIP:
        return 16 + zlib.MAX_WBITS
    return zlib.MAX_WBITS if start[0] & 15 == _ZLIB_METHOD else -zlib.MAX_WBITS


def _check_empty(members: int) -> None:
    if members > _MOST_EMPTY_MEMBERS:
        raise _broken("the gzip that the server sent has many members with nothing in them")


def _broken(message: str) -> InputError:
    return InputError(ErrorKind.CONNECTION, message, hint=_HINT)
