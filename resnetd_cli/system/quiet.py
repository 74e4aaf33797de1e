"""Keep messages of libraries off the terminal and out of the data."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

_STDOUT, _STDERR = 1, 2
_NAMES_STDERR = re.compile(r"/dev/stderr|/fd/2$")


def own_stderr(arguments: Sequence[str] = ()) -> None:
    """Let nothing but this program's own lines reach standard error, until `share_stderr`.

    What libraries in C and C++ print goes to descriptor 2, and so do the words of processes that they start: it
    leads nowhere from now on. `sys.stderr` writes to a copy of it. Warnings, log messages and tracebacks of other
    threads, which Python prints to `sys.stderr`, are left out.

    Args:
        arguments: of the command line: one may name descriptor 2 as a file.
    """
    global _kept  # noqa: PLW0603
    if any(map(_NAMES_STDERR.search, arguments)):
        return
    if sys.stderr is None:  # closed: the next file that is opened would take its place
        with suppress(OSError):
            _redirect(_STDERR, os.devnull)
        return
    with suppress(OSError, ValueError):
        _kept = os.dup(sys.stderr.fileno())
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        stream = open(_kept, "w", 1, encoding, errors, closefd=False)  # noqa: SIM115  # until the process ends
        sys.stderr.flush()
        _redirect(_STDERR, os.devnull)
        sys.stderr = stream
    logging.disable(logging.CRITICAL)
    warnings.showwarning = _ignore
    threading.excepthook = _ignore
    sys.unraisablehook = _ignore


def share_stderr() -> None:
    """Let libraries print to standard error again, as `-v` wants it."""
    if _kept is not None:
        os.dup2(_kept, _STDERR)
    if warnings.showwarning is _ignore:
        logging.disable(logging.NOTSET)
        warnings.showwarning = _showwarning
        threading.excepthook = threading.__excepthook__
        sys.unraisablehook = sys.__unraisablehook__


@contextmanager
def sharing_stderr() -> Iterator[None]:
    """Let processes that are started meanwhile have standard error: they own it as this one does."""
    if _kept is None:
        yield
        return
    os.dup2(_kept, _STDERR)
    try:
        yield
    finally:
        _redirect(_STDERR, os.devnull)


_kept: int | None = None
"""A copy of descriptor 2, where libraries are kept from it."""
_showwarning = warnings.showwarning


def _ignore(*_: object, **__: object) -> None:
    """Print nothing."""


def _redirect(descriptor: int, path: str) -> None:
    target = os.open(path, os.O_WRONLY)
    if target != descriptor:
        os.dup2(target, descriptor)
        os.close(target)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, log messages and what is printed to standard output, by Python code and by C++."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.ERROR))
    try:
        with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            with _redirected(_STDOUT, nowhere.fileno()):
                yield
    finally:
        logging.disable(level)


@contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    """Let a file descriptor lead elsewhere; one that is closed stays so."""
    try:
        kept = os.dup(descriptor)
    except OSError:
        yield
        return
    try:
        os.dup2(target, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
