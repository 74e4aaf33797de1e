"""Rich's console, as everything here uses it."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the caller, where Rich would exit."""
        raise BrokenPipeError


def open_console(stream: IO[str]) -> Console:
    """Return a console on the stream. With NO_COLOR it prints plain text, without bold and dim too."""
    if os.environ.get("NO_COLOR"):
        return _Console(file=stream, highlight=False, color_system=None)
    return _Console(file=stream, highlight=False)
