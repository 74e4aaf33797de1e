"""Keeping libraries' remarks off the terminal and out of the data."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

_STDOUT = 1


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, log messages and what is printed to standard output, by Python code and by C++."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
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
