"""Silence the libraries' warnings, log messages and prints on stderr and stdout."""

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
    """Keep everything but this program's own lines off standard error, until `share_stderr`.

    Libraries in C and C++, and processes that they start, print to descriptor 2: it is redirected to /dev/null.
    `sys.stderr` writes to a copy of it. Warnings, log messages and tracebacks of other threads, which Python
    prints to `sys.stderr`, are dropped.

    Args:
        arguments: the command line. If it names descriptor 2 as a file, nothing is redirected.
    """
    global _kept  # noqa: PLW0603
    if any(map(_NAMES_STDERR.search, arguments)):
        return
    if sys.stderr is None:  # closed: the next opened file would become descriptor 2
        with suppress(OSError):
            _redirect(_STDERR, os.devnull)
        return
    with suppress(OSError, ValueError):
        _kept = os.dup(sys.stderr.fileno())
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        stream = open(_kept, "w", 1, encoding, errors, closefd=False)  # noqa: SIM115  # open until the process ends
        sys.stderr.flush()
        _redirect(_STDERR, os.devnull)
        sys.stderr = stream
    logging.disable(logging.CRITICAL)
    warnings.showwarning = _ignore
    threading.excepthook = _ignore
    sys.unraisablehook = _ignore


def share_stderr() -> None:
    """Undo `own_stderr`: with `-v`, libraries print to standard error."""
    if _kept is not None:
        os.dup2(_kept, _STDERR)
    if warnings.showwarning is _ignore:
        logging.disable(logging.NOTSET)
        warnings.showwarning = _showwarning
        threading.excepthook = threading.__excepthook__
        sys.unraisablehook = sys.__unraisablehook__


@contextmanager
def sharing_stderr() -> Iterator[None]:
    """Give standard error to processes started meanwhile, which are our own and print only our lines."""
    if _kept is None:
        yield
        return
    os.dup2(_kept, _STDERR)
    try:
        yield
    finally:
        _redirect(_STDERR, os.devnull)


_kept: int | None = None
"""A copy of the original descriptor 2, while libraries are silenced."""
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
    """Silence warnings, log messages and everything that Python or C++ code prints to standard output."""
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
    """Redirect a file descriptor to another; a closed one stays closed."""
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
