"""Tables in text files (CSV, TSV): encoding, delimiter, header and rows, as spreadsheets and people write them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TextIO

from resnetd_cli.errors import DataError, first_line
from resnetd_cli.system.encodings import encoding_of, non_text_kind
from resnetd_cli.system.escaping import printable, shell_word

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
"""By the suffix of the file; the header may show another."""
_ALL_DELIMITERS = ",;\t|"
_MAX_LINE = 2**20
"""Characters of a line; `csv` takes up to 131,072 of a cell."""
_HEAD = 2**12
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*')
_SAVE_AS = 'save it as "CSV UTF-8"'
NumberedRow = tuple[int, list[str]]
"""The line that a row ends on, from 1, and its cells, as many as in the header."""


def rows(table: Path, fits: Callable[[Sequence[str]], bool]) -> Iterator[NumberedRow]:
    """Yield the header of a table, and then its rows.

    Blank lines are skipped, and so are empty cells and empty titles at the ends of rows. Spaces around cells are
    removed.

    Args:
        table: the file.
        fits: tells whether a row is a header. Delimiters are tried until one gives a header: that of a line
            `sep=;` first, then the usual one for the file's suffix, then the others.

    Raises:
        DataError: the file is no text or in no known encoding, a quotation mark is not closed, a line is too long
            or a row has not as many cells as the header.
        OSError: it cannot be read.
    """
    with table.open("rb") as file:
        head = file.read(_HEAD)
    if what := non_text_kind(head):
        hint = f"mv {shell_word(table)} {shell_word(table.with_suffix('.parquet'))}"
        message = f"{printable(str(table))} is {what}, not a table in a text file"
        raise DataError(message, hint=hint if head.startswith(b"PAR1") else f"open it, and {_SAVE_AS}")
    encoding = encoding_of(head)
    # Paths need not be UTF-8.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    with table.open(encoding=encoding, errors=errors, newline="") as file:
        try:
            yield from _rows(_lines(file, table), table, fits)
        except UnicodeError as error:
            message = f"{printable(str(table))} is not valid {encoding.upper()}: {first_line(error)}"
            raise DataError(message, hint=_SAVE_AS) from error


def _rows(lines: Iterator[str], table: Path, fits: Callable[[Sequence[str]], bool]) -> Iterator[NumberedRow]:
    first = next(lines, "")
    skipped = 0
    if named := _SEPARATOR_LINE.fullmatch(first):
        delimiter, skipped = named[1], 1
    else:
        delimiter = _delimiter(first, table, fits)
        lines = chain([first], lines)
    # Strictly: what is left of a text after a closing quotation mark would otherwise be joined to it.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    width = None
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            while row and not row[-1] and (width is None or len(row) > width):
                row.pop()
            if not any(row):
                continue
            number = reader.line_num + skipped
            width = len(row) if width is None else width
            if len(row) != width:
                raise _ragged(table, number, len(row), width, delimiter)
            yield number, row
    except csv.Error as error:
        message = f"{printable(str(table))}, line {reader.line_num + skipped:,}: {first_line(error)}"
        raise DataError(message, hint="a quotation mark that is not closed?") from error


def _ragged(table: Path, number: int, cells: int, width: int, delimiter: str) -> DataError:
    found = "1 cell" if cells == 1 else f"{cells:,} cells"
    message = f"{printable(str(table))}, line {number:,}: {found}, but the header has {width:,}"
    if cells > width:
        return DataError(message, hint=f'a cell with a delimiter in it needs quotes: "crane{delimiter} bird"')
    return DataError(message, hint="each row needs as many cells as the header, with the same delimiter")


def _lines(file: TextIO, table: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            message = f"{printable(str(table))}, line {number:,}: more than {_MAX_LINE:,} characters"
            raise DataError(message, hint="each image needs a line with its path and its label")
        yield line


def _delimiter(header: str, table: Path, fits: Callable[[Sequence[str]], bool]) -> str:
    usual = DELIMITERS.get(table.suffix.lower(), ",")
    candidates = sorted(_ALL_DELIMITERS, key=lambda delimiter: delimiter != usual)
    found = [delimiter for delimiter in candidates if fits(header_cells(header, delimiter))]
    # Where none fits, the one that makes most cells says best what is wrong.
    return found[0] if found else max(candidates, key=lambda delimiter: len(header_cells(header, delimiter)))


def header_cells(line: str, delimiter: str) -> list[str]:
    """Return the cells of a header."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:
        return []
