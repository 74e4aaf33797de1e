"""From what the user typed to a lazy stream of inputs, each with its name and a way to read its bytes."""

from __future__ import annotations

import errno
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

from resnetd_cli import http
from resnetd_cli.errors import ErrorKind, InputError, UsageError

STDIN = "-"
_BLOCK = 2**16
# Pillow names these as openable, but holds only stubs for them: there is no image to get from them.
_STUB_FORMATS = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
# And it opens these through another format's plug-in.
_ADOPTED_FORMATS = frozenset({"MPO"})


@dataclass(frozen=True)
class Source:
    """One input. `read` returns its bytes or raises `InputError`."""

    name: str
    read: Callable[[], bytes]


def expand(inputs: Iterable[str]) -> Iterator[Source]:
    """Turn command-line INPUTs into sources, in order.

    An INPUT is `-`, an http(s) URL, a file, a folder (its images, recursively, in sorted order) or a glob.
    What does not exist is a source all the same: its `read` raises.
    """
    for text in inputs:
        if text == STDIN:
            yield Source(STDIN, _read_stdin)
        elif glob.has_magic(text) and not http.is_url(text) and not os.path.lexists(text):
            yield from _expand_glob(text)
        else:
            yield from _expand_literal(text)


def expand_list(location: str, *, null: bool = False) -> Iterator[Source]:
    """Turn a list of inputs into sources, as it is read: one a line, or NUL-separated.

    Args:
        location: a file, or `-` for standard input. Entries are taken literally: no globs, no `-`.
        null: entries end with NUL, not with a newline.

    Raises:
        UsageError: the list cannot be read.
    """
    try:
        # `with` not wanted here: the stream is read lazily, and closed when the generator ends.
        stream = _stdin() if location == STDIN else Path(location).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(
            f"cannot read the list {location}: {_strerror(error)}",
            hint="--files-from takes a file, or - for stdin",
        ) from error
    return _expand_entries(stream, null=null)


def is_single(inputs: list[str]) -> bool:
    """Tell, without reading anything, whether these INPUTs are exactly one image."""
    return len(inputs) == 1 and (http.is_url(inputs[0]) or inputs[0] == STDIN or os.path.isfile(inputs[0]))


@lru_cache
def image_extensions() -> frozenset[str]:
    """Return every file extension (`.jpg`, lower case) of the formats Pillow can open."""
    from PIL import Image

    extensions = Image.registered_extensions()
    opened = (Image.OPEN.keys() | _ADOPTED_FORMATS) - _STUB_FORMATS
    return frozenset(extension.lower() for extension, name in extensions.items() if name in opened)


def _expand_literal(text: str) -> Iterator[Source]:
    if http.is_url(text):
        yield Source(text, partial(http.fetch, text))
    elif os.path.isdir(text):
        yield from _expand_folder(text)
    else:
        yield Source(text, partial(_read_file, text))


def _expand_glob(pattern: str) -> Iterator[Source]:
    matches = sorted(glob.iglob(pattern, recursive=True))
    if "**" in pattern:  # which gives folders beside what is in them: nothing may be counted twice
        files = [match for match in matches if not os.path.isdir(match)]
        matches = files or _outermost(matches)
    if not matches:
        yield _failing(pattern, ErrorKind.NOT_FOUND, "the pattern matches nothing", hint=_folder_hint())
    for match in matches:
        yield from _expand_literal(match)


def _outermost(folders: list[str]) -> list[str]:
    """Leave out folders that lie inside another of them."""
    inside = [folder.rstrip(os.sep) + os.sep for folder in folders]
    return [
        folder for folder in folders if not any(folder.startswith(outer) for outer in inside if outer != folder)
    ]


def _expand_folder(folder: str) -> Iterator[Source]:
    paths = _walk(folder)
    first = next(paths, None)
    if first is None:
        yield _failing(
            folder, ErrorKind.EMPTY, "no images in the folder", hint="files are chosen by their extension"
        )
        return
    yield first
    yield from paths


def _walk(folder: str) -> Iterator[Source]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        yield _failing(folder, ErrorKind.UNREADABLE, _strerror(error), hint=f"look at it: ls -ld {folder}")
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in image_extensions():
            yield Source(entry.path, partial(_read_file, entry.path))


def _expand_entries(stream: BinaryIO, *, null: bool) -> Iterator[Source]:
    try:
        for entry in _split_null(stream) if null else _split_lines(stream):
            if entry:
                yield from _expand_literal(os.fsdecode(entry))
    except OSError as error:
        raise UsageError(f"cannot read the list: {_strerror(error)}", hint="--files-from takes a file") from error
    finally:
        if sys.stdin is None or stream is not sys.stdin.buffer:
            stream.close()


def _split_lines(stream: BinaryIO) -> Iterator[bytes]:
    for line in stream:
        yield line.rstrip(b"\r\n")


def _split_null(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    # read1 returns what is there: names that a slow `find` has already printed need not wait for the next.
    while block := stream.read1(_BLOCK) if hasattr(stream, "read1") else stream.read(_BLOCK):
        *entries, rest = (rest + block).split(b"\0")
        yield from entries
    yield rest


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # not Path, to which "" is the current folder
            data = file.read()
    except OSError as error:
        raise _input_error(path, error) from error
    except ValueError as error:  # a NUL inside the name
        raise InputError(
            ErrorKind.NOT_FOUND, f"not a path: {error}", hint="--null reads NUL-separated lists"
        ) from error
    if not data:
        raise InputError(ErrorKind.EMPTY, "zero bytes", hint="the copy or download that made it may have failed")
    return data


def _read_stdin() -> bytes:
    data = sys.stdin.buffer.read() if sys.stdin is not None else b""
    if not data:
        raise InputError(
            ErrorKind.EMPTY, "zero bytes on standard input", hint="pipe one image: cat dog.jpg | resnetd ..."
        )
    return data


def _input_error(path: str, error: OSError) -> InputError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return InputError(ErrorKind.NOT_FOUND, "no such file or folder", hint=_folder_hint())
    return InputError(ErrorKind.UNREADABLE, _strerror(error), hint=f"look at it: ls -l {path}")


def _failing(name: str, kind: ErrorKind, message: str, *, hint: str) -> Source:
    def read() -> bytes:
        raise InputError(kind, message, hint=hint)

    return Source(name, read)


def _folder_hint() -> str:
    try:
        return f"the folder is {Path.cwd()}"
    except OSError:
        return "the current folder is gone"


def _strerror(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
