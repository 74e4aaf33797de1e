"""Rich's console, as everything here uses it, and texts cut to its width."""

from __future__ import annotations

import locale
import os
from contextlib import suppress
from typing import IO
from unicodedata import east_asian_width

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions

_LEAST_WIDTH = 20
_USUAL_WIDTH, _USUAL_HEIGHT = 80, 25


class _Console(Console):
    @property
    def size(self) -> ConsoleDimensions:
        """The size of the terminal that it writes to, which need not be one of the descriptors that Rich asks."""
        if self._width is None and "COLUMNS" not in os.environ:
            with suppress(OSError, ValueError):
                width, height = os.get_terminal_size(self.file.fileno())
                return ConsoleDimensions(width or _USUAL_WIDTH, height or _USUAL_HEIGHT)
        return super().size

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the caller, where Rich would exit."""
        raise BrokenPipeError

    @property
    def encoding(self) -> str:
        """The encoding of what is shown, from which Rich knows whether rules must be ASCII."""
        return "ascii" if self.is_terminal and not _shows_unicode() else super().encoding


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


def bar(share: float, width: int, console: Console) -> str:
    """Return a bar for a share from 0 to 1; a full one has so many characters."""
    return ("━" if console.encoding.startswith("utf") else "=") * round(share * width)


def columns(text: str) -> int:
    """Return the most columns of a terminal that a printable text takes.

    Terminals differ about characters that change the one before: some draw an emoji with its skin tone as two.
    """
    return sum(max(cell_len(char), 2 * (east_asian_width(char) in "FW")) for char in text) + text.count("\ufe0f")


def fit_name(name: str, width: int) -> str:
    """Return a file's name or URL in so many columns: cut at the left, or if need be in the middle of its end."""
    folders, _, last = name.replace(os.sep, "/").rpartition("/")
    if columns(name) <= width or not folders:
        return fit(name, width, keep_left=1 / 3)
    if columns(last) + 2 > width:
        return fit(last, width, keep_left=1 / 3)
    end = name[len(name) - len(_start(name[::-1], width - 1)) :]
    return fit(_mark() + end[end.index("/") :], width)


def fit(text: str, width: int, *, keep_left: float = 1 / 2) -> str:
    """Return a text in so many columns, padded with spaces, or with a mark for what is cut.

    Args:
        text: it is printable.
        width: in columns, of which some characters take two or none.
        keep_left: share of what is left that stands before the cut.
    """
    if columns(text) > width:
        left = int((width - 1) * keep_left)
        text = f"{_start(text, left)}{_mark()}{_start(text[::-1], width - 1 - left)[::-1]}"
    return text + " " * (width - columns(text))


def _start(text: str, width: int) -> str:
    """Return as much of the start of a text as so many columns hold."""
    end = min(len(text), width)
    while columns(text[:end]) > width:
        end -= 1
    return text[:end]


def _mark() -> str:
    """Return what stands for what is cut."""
    return "…" if _shows_unicode() else "~"


def _shows_unicode() -> bool:
    """Tell whether terminals here show more than ASCII. What is written is UTF-8 all the same.

    The locale's encoding counts, even where Python is in its UTF-8 mode; as for Python, the C locale is UTF-8.
    """
    if os.name == "nt":
        return True
    encoding = locale.nl_langinfo(locale.CODESET).lower()
    return encoding.startswith("utf") or encoding in ("", "ansi_x3.4-1968", "us-ascii", "646")
