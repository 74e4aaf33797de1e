"""From what the user typed to a lazy stream of inputs, each with its name and a way to read its bytes."""

from __future__ import annotations

import errno
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

from resnetd_cli import http
from resnetd_cli.errors import ErrorKind, InputError, UsageError
from resnetd_cli.escaping import shell_word
from resnetd_cli.files import too_many_files_hint
from resnetd_cli.reading import (
    DEFAULT_READING,
    ReadOptions,
    folder_hint,
    read_file,
    read_stdin,
    read_url,
    strerror,
)

STDIN = "-"
_BLOCK = 2**16
# Pillow names these as openable, but holds only stubs for them: there is no image to get from them.
_STUB_FORMATS = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
# And it opens these through another format's plug-in.
_ADOPTED_FORMATS = frozenset({"MPO"})
# Decoded with an extra; without it each gets a row that says so.
_OPTIONAL_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name: what the user calls it.
        read: returns its bytes or raises `InputError`.
        is_remote: reading it is waiting for a server, so that it is worth starting early.
    """

    name: str
    read: Callable[[], bytes]
    is_remote: bool = False


def expand(inputs: Iterable[str], options: ReadOptions = DEFAULT_READING) -> Iterator[Source]:
    """Turn command-line INPUTs into sources, in order.

    An INPUT is `-`, an http(s) URL, a file, a folder (its images, recursively, in sorted order) or a glob.
    What does not exist is a source all the same: its `read` raises.
    """
    for text in inputs:
        if text == STDIN:
            yield Source(STDIN, partial(read_stdin, options))
        elif glob.has_magic(text) and not http.is_url(text) and not os.path.lexists(text):
            yield from _expand_glob(text, options)
        else:
            yield from _expand_literal(text, options)


def expand_list(location: str, *, null: bool = False, options: ReadOptions = DEFAULT_READING) -> Iterator[Source]:
    """Turn a list of inputs into sources, as it is read: one a line, or NUL-separated.

    Args:
        location: a file, or `-` for standard input. Entries are taken literally: no globs, no `-`.
        null: entries end with NUL, not with a newline.
        options: bounds of reading one input.

    Raises:
        UsageError: the list cannot be read.
    """
    try:
        # `with` not wanted here: the stream is read lazily, and closed when the generator ends.
        stream = _stdin() if location == STDIN else Path(location).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(
            f"cannot read the list {location}: {strerror(error)}",
            hint="--files-from takes a file, or - for stdin",
        ) from error
    return _expand_entries(stream, options, null=null)


def is_single(inputs: list[str]) -> bool:
    """Tell, without reading anything, whether these INPUTs are exactly one image."""
    return len(inputs) == 1 and (http.is_url(inputs[0]) or inputs[0] == STDIN or os.path.isfile(inputs[0]))


@lru_cache
def image_extensions() -> frozenset[str]:
    """Return every file extension (`.jpg`, lower case) of the formats Pillow can open."""
    from PIL import Image

    extensions = Image.registered_extensions()
    opened = (Image.OPEN.keys() | _ADOPTED_FORMATS) - _STUB_FORMATS
    opened_here = frozenset(extension.lower() for extension, name in extensions.items() if name in opened)
    return opened_here | _OPTIONAL_EXTENSIONS


def _expand_literal(text: str, options: ReadOptions, *, typed: bool = True) -> Iterator[Source]:
    if http.is_url(text):
        yield Source(text, partial(read_url, text, options, typed=typed), is_remote=True)
    elif os.path.isdir(text):
        yield from _expand_folder(text, options)
    else:
        yield Source(text, partial(read_file, text, options))


def _expand_glob(pattern: str, options: ReadOptions) -> Iterator[Source]:
    matches = sorted(set(_matches(pattern)))
    if "**" in pattern:  # which gives folders beside what is in them: nothing may be counted twice
        files = [match for match in matches if not os.path.isdir(match)]
        matches = files or _outermost(matches)
    if not matches:
        yield _failing(pattern, ErrorKind.NOT_FOUND, "the pattern matches nothing", hint=folder_hint())
    for match in matches:
        yield from _expand_literal(match, options)


def _matches(pattern: str) -> Iterator[str]:
    """Yield what a pattern matches, as `glob.iglob` does; but `**` follows no links, which may lead in circles."""
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    before, after = os.sep.join([*parts[:at], ""]), os.sep.join(parts[at + 1 :])
    for top in glob.iglob(before) if at else [""]:
        for folder in _folders(top):
            if not after and folder:
                yield folder
            if after or at == len(parts) - 1:
                yield from _matches(os.path.join(glob.escape(folder), after or "*"))


def _folders(top: str) -> Iterator[str]:
    """Yield a folder and those in it, neither hidden ones nor links."""
    yield top
    with suppress(OSError), os.scandir(top or os.curdir) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _folders(os.path.join(top, entry.name))


def _outermost(folders: list[str]) -> list[str]:
    """Leave out folders that lie inside another of them."""
    inside = [folder.rstrip(os.sep) + os.sep for folder in folders]
    return [
        folder for folder in folders if not any(folder.startswith(outer) for outer in inside if outer != folder)
    ]


def _expand_folder(folder: str, options: ReadOptions) -> Iterator[Source]:
    paths = _walk(folder, options)
    first = next(paths, None)
    if first is None:
        yield _failing(
            folder, ErrorKind.EMPTY, "no images in the folder", hint="files are chosen by their extension"
        )
        return
    yield first
    yield from paths


def _walk(folder: str, options: ReadOptions) -> Iterator[Source]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        yield _failing(
            folder,
            ErrorKind.UNREADABLE,
            strerror(error),
            hint=too_many_files_hint(error) or f"look at it: ls -ld {shell_word(folder)}",
        )
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, options)
        elif os.path.splitext(entry.name)[1].lower() in image_extensions():
            yield Source(entry.path, partial(read_file, entry.path, options))


def _expand_entries(stream: BinaryIO, options: ReadOptions, *, null: bool) -> Iterator[Source]:
    try:
        for entry in _split_null(stream) if null else _split_lines(stream):
            if entry:
                yield from _expand_literal(os.fsdecode(entry), options, typed=False)
    except OSError as error:
        raise UsageError(f"cannot read the list: {strerror(error)}", hint="--files-from takes a file") from error
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


def _failing(name: str, kind: ErrorKind, message: str, *, hint: str) -> Source:
    def read() -> bytes:
        raise InputError(kind, message, hint=hint)

    return Source(name, read)
