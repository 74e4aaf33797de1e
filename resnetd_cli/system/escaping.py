r"""Text that is safe where it goes: names of files and classes, and servers' words, are chosen by others.

A terminal acts on control characters, and characters without a shape of their own let a text look like another.
Here they are written as escapes, of the forms that Python and JSON know: `\x1b`, `\u202e`, `\U000e0041`.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable

# Control, format and surrogate characters, line and paragraph separators.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Unicode's Default_Ignorable_Code_Point, without those of category Cf: fillers and variation selectors. Python
# calls them printable, but nothing is drawn for them.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000\U000e0002-\U000e001f\U000e0080-\U000e0fff]"
)
_TSV_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CSV_SPECIAL = frozenset(',"\r\n')
# What spreadsheets take for the start of a formula, in any width (NFKC); U+2212 is the minus sign.
_FORMULA_SIGNS = frozenset("=+-@\u2212")
# These may stand before it: the apostrophe too, so that a cell which had one is not taken for one that got it.
_QUOTES = frozenset("'\"")
_BREAKS = frozenset("\t\r\n")
# Symbols by category that show nothing all the same: the Braille pattern without dots, the null note head.
_BLANK = frozenset("\u2800\U0001d159")


def printable(text: str) -> str:
    """Return the text with all that is not printable, and what is not UTF-8, written as escapes."""
    if _is_printable(text):
        return text
    return "".join(char if _is_printable(char) else _escape(char) for char in _decoded(text))


def shell_word(path: object) -> str:
    r"""Return a path as it can be pasted into a shell: in one line, quoted, control characters as `$'\x1b'`."""
    text = str(path)
    if text.startswith("-"):
        text = f"./{text}"  # else it is an option
    if _is_printable(text):
        return shlex.quote(text)
    return "$'" + "".join(map(_in_dollar_quotes, text)) + "'"


def json_safe(text: str) -> str:
    r"""Return JSON with characters that JSON allows, but that a terminal acts on or UTF-8 lacks, as `\uXXXX`.

    It means the same. Newlines, which stand only between its values, stay.
    """
    if _is_printable(text):
        return text
    return "".join(_json_escape(char) if _is_unsafe(char) and char != "\n" else char for char in _decoded(text))


def tsv_line(cells: Iterable[object], *, terminal: bool = False) -> str:
    r"""Return one line of tab-separated values, unquoted, with escapes that Python's `unicode_escape` undoes.

    Args:
        cells: None is an empty cell.
        terminal: it goes to a terminal: bytes that are not UTF-8 are escapes too.
    """
    return "\t".join(_tsv_cell(_text(cell), terminal=terminal) for cell in cells) + "\n"


def csv_line(cells: Iterable[object], *, terminal: bool = False) -> str:
    """Return one row of comma-separated values, quoted as in RFC 4180, with a bare newline at its end.

    The standard library's writer leaves a carriage return unquoted unless it ends its own lines with one.

    Args:
        cells: None is an empty cell.
        terminal: it goes to a terminal: what is not printable is written as escapes, which are not undone.
    """
    show = printable if terminal else _encodable
    return ",".join(_csv_cell(show(_text(cell))) for cell in cells) + "\n"


def without_formulas(cells: Iterable[object]) -> list[object]:
    """Return cells that no spreadsheet takes for formulas: texts that begin like one get an apostrophe."""
    return [f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell for cell in cells]


def _is_formula(text: str) -> bool:
    """Tell whether a spreadsheet may take a cell for a formula, or for two cells.

    What stands before the sign and shows nothing, as spaces and marks of byte order, some programs drop.
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
    """Tell whether the text's surrogates, if any, are bytes of a file name. Others have no form in UTF-8."""
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
    """Return the text with those bytes of a name decoded that are UTF-8: in the C locale Python decodes none."""
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
