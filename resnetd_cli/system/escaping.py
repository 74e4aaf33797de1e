r"""Escape untrusted text (names of files and classes, servers' replies) for terminals, shells, TSV, CSV and JSON.

Terminals act on control characters, and invisible characters make one text look like another. They are written
as escapes in the syntax of Python and JSON: `\x1b`, `\u202e`, `\U000e0041`.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable

# Control, format and surrogate characters, line and paragraph separators.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Unicode's Default_Ignorable_Code_Point, except category Cf: fillers and variation selectors. Python calls them
# printable, but they are invisible.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000\U000e0002-\U000e001f\U000e0080-\U000e0fff]"
)
_TSV_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CSV_SPECIAL = frozenset(',"\r\n')
# Spreadsheets treat these as the start of a formula, in any width (NFKC); U+2212 is the minus sign.
_FORMULA_SIGNS = frozenset("=+-@\u2212")
# They may follow these. The apostrophe is one, so that escaped cells differ from cells that already had it.
_QUOTES = frozenset("'\"")
_BREAKS = frozenset("\t\r\n")
# Symbols by category, but invisible: the Braille pattern without dots, the null note head.
_BLANK = frozenset("\u2800\U0001d159")


def printable(text: str) -> str:
    """Return the text with everything that is not printable or not UTF-8 written as escapes."""
    if _is_printable(text):
        return text
    return "".join(char if _is_printable(char) else _escape(char) for char in _decoded(text))


def shell_word(path: object) -> str:
    r"""Return a path that can be pasted into a shell: on one line, quoted, control characters as `$'\x1b'`."""
    text = str(path)
    if text.startswith("-"):
        text = f"./{text}"  # otherwise it would be an option
    if _is_printable(text):
        return shlex.quote(text)
    return "$'" + "".join(map(_in_dollar_quotes, text)) + "'"


def json_safe(text: str) -> str:
    r"""Return JSON with unsafe characters as `\uXXXX`: those that a terminal acts on or that UTF-8 cannot encode.

    The value stays the same. Newlines occur only between values and are kept.
    """
    if _is_printable(text):
        return text
    return "".join(_json_escape(char) if _is_unsafe(char) and char != "\n" else char for char in _decoded(text))


def tsv_line(cells: Iterable[object], *, terminal: bool = False) -> str:
    r"""Return one line of tab-separated values, unquoted, with escapes that Python's `unicode_escape` decodes.

    Args:
        cells: None is an empty cell.
        terminal: the line goes to a terminal, so bytes that are not UTF-8 are escaped too.
    """
    return "\t".join(_tsv_cell(_text(cell), terminal=terminal) for cell in cells) + "\n"


def csv_line(cells: Iterable[object], *, terminal: bool = False) -> str:
    """Return one row of comma-separated values, quoted as in RFC 4180, ending in a bare newline.

    The standard library's writer quotes a carriage return only if its own line ending contains one.

    Args:
        cells: None is an empty cell.
        terminal: the row goes to a terminal, so what is not printable is escaped. It cannot be decoded again.
    """
    show = printable if terminal else _encodable
    return ",".join(_csv_cell(show(_text(cell))) for cell in cells) + "\n"


def without_formulas(cells: Iterable[object]) -> list[object]:
    """Return the cells with an apostrophe before each text that a spreadsheet might run as a formula."""
    return [f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell for cell in cells]


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet might read a cell as a formula, or as two cells.

    Some programs drop invisible characters before the sign, such as spaces and byte-order marks.
    """
    for char in _decoded(text):
        if char in _BREAKS:
            return True
        if not (char in _QUOTES or _shows_nothing(char)):
            return unicodedata.normalize("NFKC", char)[0] in _FORMULA_SIGNS
    return False


def _shows_nothing(char: str) -> bool:
    return char.isspace() or char in _BLANK or _is_unsafe(char)


def _tsv_cell(text: str, *, terminal: bool) -> str:
    if _is_printable(text) and "\\" not in text:
        return text
    text = _decoded(text)
    bytes_pass = not terminal and _is_name(text)
    return "".join(_tsv_char(char, bytes_pass=bytes_pass) for char in text)


def _tsv_char(char: str, *, bytes_pass: bool) -> str:
    if char in _TSV_ESCAPES:
        return _TSV_ESCAPES[char]
    return _escape(char) if _is_unsafe(char) and not (bytes_pass and _is_surrogate(char)) else char


def _csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _CSV_SPECIAL.intersection(text) else text


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _is_printable(text: str) -> bool:
    return text.isprintable() and (text.isascii() or not _IGNORABLE.search(text))


def _is_unsafe(char: str) -> bool:
    return unicodedata.category(char) in _UNSAFE_CATEGORIES or bool(_IGNORABLE.match(char))


def _is_surrogate(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"


def _is_name(text: str) -> bool:
    """Return whether all surrogates in the text are bytes of a file name. UTF-8 cannot encode any others."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _encodable(text: str) -> str:
    if text.isprintable():
        return text
    text = _decoded(text)
    return text if _is_name(text) else "".join(_escape(char) if _is_surrogate(char) else char for char in text)


def _decoded(text: str) -> str:
    """Return the text with escaped bytes decoded where they are UTF-8: in the C locale Python decodes none."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _in_dollar_quotes(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if _is_printable(char):
        return char
    data = char.encode("utf-8", "surrogateescape" if _is_name(char) else "replace")
    return "".join(f"\\x{byte:02x}" for byte in data)
