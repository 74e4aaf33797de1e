"""Rich's console, as everything here uses it."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console

_LEAST_WIDTH = 20
_USUAL_WIDTH = 80


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the caller, where Rich would exit."""
        raise BrokenPipeError


def open_console(stream: IO[str]) -> Console:
    """Return a console on the stream. With NO_COLOR it prints plain text, without bold and dim too."""
    if os.environ.get("NO_COLOR"):
        console = _Console(file=stream, highlight=False, color_system=None)
    else:
        console = _Console(file=stream, highlight=False)
    # In none, as COLUMNS=0 says, Rich prints nothing at all; in a few, letters one below the other.
    if console.width < _LEAST_WIDTH:
        console.width = _USUAL_WIDTH
    return console
