"""Rich's console, as everything here uses it."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console


def open_console(stream: IO[str]) -> Console:
    """Return a console on the stream. With NO_COLOR it prints plain text, without bold and dim too."""
    if os.environ.get("NO_COLOR"):
        return Console(file=stream, highlight=False, color_system=None)
    return Console(file=stream, highlight=False)
