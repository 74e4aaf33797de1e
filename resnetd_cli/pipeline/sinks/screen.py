"""Rich console and terminal width for the formats that people read: column widths, truncation, bars, NO_COLOR."""

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
        """The size of the terminal that it writes to; Rich checks only the standard descriptors."""
        if self._width is None and "COLUMNS" not in os.environ:
            with suppress(OSError, ValueError):
                width, height = os.get_terminal_size(self.file.fileno())
                return ConsoleDimensions(width or _USUAL_WIDTH, height or _USUAL_HEIGHT)
        return super().size

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    def on_broken_pipe(self) -> None:
        """Raise an error for a closed pipe, where Rich would exit."""
        raise BrokenPipeError

    @property
    def encoding(self) -> str:
        """The encoding of the terminal, by which Rich decides whether lines must be ASCII."""
        return "ascii" if self.is_terminal and not _shows_unicode() else super().encoding


def open_console(stream: IO[str]) -> Console:
    """Return a console for the stream. With NO_COLOR it prints plain text, without bold or dim."""
    if os.environ.get("NO_COLOR"):
        console = _Console(file=stream, highlight=False, color_system=None)
    else:
        console = _Console(file=stream, highlight=False)
    # With COLUMNS=0 Rich prints nothing, and with very few columns one letter per line.
    if console.width < _LEAST_WIDTH:
        console.width = _USUAL_WIDTH
    return console


def bar(share: float, width: int, console: Console) -> str:
    """Return a bar for a share from 0 to 1; a full bar has `width` characters."""
    return ("━" if console.encoding.startswith("utf") else "=") * round(share * width)


def columns(text: str) -> int:
    """Return the maximum width of a printable text on any terminal, in columns.

    Terminals differ in combining characters: some draw an emoji and its skin tone as two characters.
    """
    return sum(max(cell_len(char), 2 * (east_asian_width(char) in "FW")) for char in text) + text.count("\ufe0f")


def fit_name(name: str, width: int) -> str:
    """Return a file name or URL cut to a width: at the left, or if necessary in the middle of the last part."""
    folders, _, last = name.replace(os.sep, "/").rpartition("/")
    if columns(name) <= width or not folders:
        return fit(name, width, keep_left=1 / 3)
    if columns(last) + 2 > width:
        return fit(last, width, keep_left=1 / 3)
    end = name[len(name) - len(_start(name[::-1], width - 1)) :]
    return fit(_mark() + end[end.index("/") :], width)


def fit(text: str, width: int, *, keep_left: float = 1 / 2) -> str:
    """Return a text with exactly this width: padded with spaces, or cut, with an ellipsis for the rest.

    Args:
        text: a printable text.
        width: in columns; some characters take two or none.
        keep_left: the share of the kept text that comes before the cut.
    """
    if columns(text) > width:
        left = int((width - 1) * keep_left)
        text = f"{_start(text, left)}{_mark()}{_start(text[::-1], width - 1 - left)[::-1]}"
    return text + " " * (width - columns(text))


def _start(text: str, width: int) -> str:
    """Return as much of the start of a text as fits a width."""
    end = min(len(text), width)
    while columns(text[:end]) > width:
        end -= 1
    return text[:end]


def _mark() -> str:
    """Return the ellipsis for text that was cut."""
    return "…" if _shows_unicode() else "~"


def _shows_unicode() -> bool:
    """Return whether terminals show more than ASCII, according to the locale; files are always UTF-8.

    The locale's encoding decides even in Python's UTF-8 mode. As in Python, the C locale counts as UTF-8.
    """
    if os.name == "nt":
        return True
    encoding = locale.nl_langinfo(locale.CODESET).lower()
    return encoding.startswith("utf") or encoding in ("", "ansi_x3.4-1968", "us-ascii", "646")
