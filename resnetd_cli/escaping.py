"""Text that is safe where it goes: names of files are chosen by others."""

from __future__ import annotations

from collections.abc import Iterable

_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_CSV_SPECIAL = frozenset(',"\r\n')


def printable(text: str) -> str:
    """Return the text with control characters, and what is not UTF-8, written as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def tsv_line(cells: Iterable[object]) -> str:
    r"""Return one line of tab-separated values, unquoted: `\t`, `\n`, `\r` and `\\` stand for what would break it.

    None is an empty cell.
    """
    return "\t".join(_text(cell).translate(_TSV_ESCAPES) for cell in cells) + "\n"


def csv_line(cells: Iterable[object]) -> str:
    """Return one row of comma-separated values, quoted as in RFC 4180, with a bare newline at its end.

    The standard library's writer leaves a carriage return unquoted unless it ends its own lines with one.
    """
    return ",".join(_csv_cell(_text(cell)) for cell in cells) + "\n"


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _CSV_SPECIAL.intersection(text) else text
