"""Decompress HTTP responses (Content-Encoding: gzip, deflate) in bounded steps."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

from resnetd_cli.errors import ErrorKind, InputError

GZIP, DEFLATE = "gzip", "deflate"
_NAMES = {"gzip": GZIP, "x-gzip": GZIP, "deflate": DEFLATE}
_UNKNOWN = frozenset({"br", "zstd", "dcb", "dcz", "compress", "x-compress"})
_MOST_LAYERS = 2
_MOST_EMPTY_MEMBERS = 100
"""Empty members of a gzip file to accept: each costs time and yields nothing."""
_STEP = 2**16
"""Bytes decompressed at once."""
_ZLIB_METHOD = 8
_HINT = "open it in a browser"


def codings(header: str) -> list[str]:
    """Return the compressions named in a Content-Encoding header, outermost first; unknown words are ignored.

    Raises:
        InputError: of kind `connection`: a compression is not supported, or there are too many layers.
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
    """Yield decompressed chunks.

    Args:
        chunks: the compressed bytes.
        coding: `gzip` or `deflate`.
        tick: called after each step with the number of bytes it yielded, which may be 0.

    Raises:
        InputError: of kind `connection`: the data is not in this format, or ends early.
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
                if members > 1:  # garbage after the end is ignored
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
    """Return zlib's `wbits`: by the standard `deflate` has a zlib header, but some servers send none."""
    if coding == GZIP:
        return 16 + zlib.MAX_WBITS
    return zlib.MAX_WBITS if start[0] & 15 == _ZLIB_METHOD else -zlib.MAX_WBITS


def _check_empty(members: int) -> None:
    if members > _MOST_EMPTY_MEMBERS:
        raise _broken("the server sent a gzip with many empty members")


def _broken(message: str) -> InputError:
    return InputError(ErrorKind.CONNECTION, message, hint=_HINT)
