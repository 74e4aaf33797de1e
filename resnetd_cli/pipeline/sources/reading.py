"""Read the bytes of one input, within limits: a file, standard input or a URL."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from resnetd_cli.errors import ErrorKind, InputError, Reason
from resnetd_cli.net import fetch
from resnetd_cli.pipeline.sources.spellings import on_disk
from resnetd_cli.system.deadline import Deadline
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.files import too_many_files_hint
from resnetd_cli.system.wording import system_reason

_BLOCK = 2**16
_LARGEST_BLOCK = 2**24
"""Bytes to read between checks of the deadline: a network drive may be slow."""
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # the second one on Windows only


@dataclass(frozen=True)
class ReadOptions:
    """Limits on reading one input.

    Attributes:
        max_bytes: the most bytes; a larger input is `too_large`.
        timeout: seconds that reading one input may take; standard input has no timeout.
        allow_private_hosts: allow redirects and URLs from lists to private addresses. A URL that the user typed
            is always allowed to.
        connections: the number of URLs to fetch at once.
    """

    max_bytes: int = fetch.MAX_BYTES
    timeout: float = fetch.TIMEOUT
    allow_private_hosts: bool = False
    connections: int = fetch.CONNECTIONS


DEFAULT_READING = ReadOptions()


def read_file(path: str, options: ReadOptions = DEFAULT_READING) -> bytes:
    """Return the bytes of a file, a pipe or a device.

    Raises:
        InputError: of kind `not_found`, `unreadable`, `too_large`, `timeout` or `empty`.
    """
    try:
        descriptor = _open(path)
        try:
            data = _read_to_end(descriptor, options)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _input_error(path, error) from error
    except ValueError as error:  # a NUL inside the name
        raise _no_path(error) from error
    if not data:
        raise _no_bytes()
    return data


def open_file(path: str) -> IO[bytes]:
    """Open a regular file to read parts of it.

    Raises:
        InputError: of kind `not_found`, `unreadable` or `empty`.
    """
    try:
        descriptor = _open(path)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(ErrorKind.UNREADABLE, "not a file", hint=f"look at it: ls -ld {shell_word(path)}")
            if not status.st_size:
                raise _no_bytes()
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise _input_error(path, error) from error
    except ValueError as error:
        raise _no_path(error) from error


def read_regular_file(path: str, options: ReadOptions = DEFAULT_READING) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        InputError: as `read_file`; also of kind `unreadable` for a pipe or a device, which cannot be read twice.
    """
    with open_file(path) as file:
        try:
            return _read_to_end(file.fileno(), options)
        except OSError as error:
            raise _input_error(path, error) from error


def read_stdin(options: ReadOptions = DEFAULT_READING) -> bytes:
    """Return all bytes of standard input, however long that takes.

    Raises:
        InputError: of kind `unreadable`, `too_large` or `empty`.
    """
    try:
        data = sys.stdin.buffer.read(options.max_bytes + 1) if sys.stdin is not None else b""
    except OSError as error:
        raise _input_error("-", error) from error
    if len(data) > options.max_bytes:
        raise fetch.too_many_bytes(options.max_bytes)
    if not data:
        raise InputError(
            ErrorKind.EMPTY, "zero bytes on standard input", hint="pipe one image: cat dog.jpg | resnetd ..."
        )
    return data


def read_url(url: str, options: ReadOptions = DEFAULT_READING, *, typed: bool = True) -> bytes:
    """Return the body of an http(s) URL. `typed`: the user typed it, so it may point to a private address.

    Raises:
        InputError: see `fetch.fetch`.
    """
    return fetch.fetch(
        url,
        max_bytes=options.max_bytes,
        timeout=options.timeout,
        typed=typed,
        allow_private_hosts=options.allow_private_hosts,
    )


def folder_hint() -> str:
    """Return a hint for a path that does not exist: the folder it is relative to."""
    try:
        return f"the folder is {Path.cwd()}"
    except OSError:
        return "the current folder is gone"


def _open(path: str) -> int:
    """Open a file, under its name as written or in the other Unicode composition.

    Non-blocking: opening a named pipe would wait for a writer.
    """
    try:
        return os.open(path, os.O_RDONLY | _NO_WAIT)  # not Path, to which "" is the current folder
    except FileNotFoundError:
        other = on_disk(path)
        if other is None:
            raise
    return os.open(other, os.O_RDONLY | _NO_WAIT)


def _read_to_end(descriptor: int, options: ReadOptions) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > options.max_bytes:
        raise fetch.too_many_bytes(options.max_bytes, size)
    deadline = Deadline(options.timeout)
    blocks: list[bytes] = []
    room = options.max_bytes + 1
    while room and (block := _read_block(descriptor, min(room, size + _BLOCK, _LARGEST_BLOCK), deadline)):
        blocks.append(block)
        room -= len(block)
    if not room:
        raise fetch.too_many_bytes(options.max_bytes)
    return b"".join(blocks)


def _read_block(descriptor: int, size: int, deadline: Deadline) -> bytes:
    """Return the next bytes, waiting for a pipe's writer within the deadline; b"" at the end."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(deadline.left * 1000):
            message = f"no data came in {deadline.seconds:g} seconds"
            raise InputError(ErrorKind.TIMEOUT, message, reason=Reason.TOO_SLOW)
    if deadline.passed:
        raise InputError(ErrorKind.TIMEOUT, f"not read in {deadline.seconds:g} seconds", reason=Reason.TOO_SLOW)
    return os.read(descriptor, size)


def _no_bytes() -> InputError:
    return InputError(ErrorKind.EMPTY, "zero bytes", hint="the copy or download that made it may have failed")


def _no_path(error: ValueError) -> InputError:
    return InputError(ErrorKind.NOT_FOUND, f"not a path: {error}", hint="in a list, NUL may separate names")


def _input_error(path: str, error: OSError) -> InputError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return InputError(ErrorKind.NOT_FOUND, "no such file or folder", hint=folder_hint())
    return InputError(
        ErrorKind.UNREADABLE,
        system_reason(error),
        hint=too_many_files_hint(error) or f"look at it: ls -l {shell_word(path)}",
    )
