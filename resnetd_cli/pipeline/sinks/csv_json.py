"""Output formats for programs: tsv, csv, json, jsonl; and `pairs`, for the facts of one thing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from resnetd_cli.pipeline.sinks.base import Listing
from resnetd_cli.results import Classified, Failure
from resnetd_cli.system.escaping import csv_line, json_safe, tsv_line, without_formulas

COLUMNS = ("input", "status", "rank", "index", "id", "label", "probability", "error")


def rows(result: Classified | Failure) -> Iterator[tuple[Any, ...]]:
    """Yield a row per prediction of an input, or one row if it has none."""
    if isinstance(result, Failure):
        yield result.input, "error", None, None, None, None, None, f"{result.kind.value}: {result.message}"
        return
    for item in result.predictions:
        probability = in_digits(item.probability)
        yield result.input, "ok", item.rank, item.index, item.id, item.label, probability, None
    if result.abstained:
        yield result.input, "abstained", None, None, None, None, None, None


def in_digits(probability: float) -> str:
    """Return a probability with six significant digits; float32 has about seven."""
    return f"{probability:.6g}"


def row_writer(
    format_name: str, stream: IO[str], *, escape_formulas: bool = False
) -> Callable[[Iterable[object]], str]:
    """Return a function that turns the cells of a row into a line of `tsv` or `csv`.

    Args:
        format_name: `tsv` or `csv`.
        stream: the output; a terminal gets no control characters.
        escape_formulas: put an apostrophe before texts that a spreadsheet might run as a formula.
    """
    line = tsv_line if format_name == "tsv" else csv_line
    terminal = stream.isatty()
    if escape_formulas:
        return lambda cells: line(without_formulas(cells), terminal=terminal)
    return lambda cells: line(cells, terminal=terminal)


class RowSink:
    """One line per row."""

    format_name: str

    def __init__(self, stream: IO[str], *, header: bool = True, escape_formulas: bool = False, **_: Any) -> None:
        self._stream = stream
        self._line = row_writer(self.format_name, stream, escape_formulas=escape_formulas)
        if header:
            stream.write(self._line(COLUMNS))

    def write(self, result: Classified | Failure) -> None:
        """Write the rows of one result in one call, so that an interrupt cannot leave it half written."""
        self._stream.write("".join(map(self._line, rows(result))))

    def close(self) -> None:
        """Do nothing: the format has no end."""

    @classmethod
    def write_listing(cls, listing: Listing, stream: IO[str], *, header: bool, escape_formulas: bool) -> None:
        """Write a line per row."""
        line = row_writer(cls.format_name, stream, escape_formulas=escape_formulas)
        if header and listing.columns:
            stream.write(line(listing.columns))
        stream.writelines(map(line, listing.rows))


class TsvSink(RowSink):
    """Tab-separated values: each row is one line, whatever characters a file name has."""

    format_name = "tsv"


class CsvSink(RowSink):
    """Comma-separated values."""

    format_name = "csv"


class JsonLinesSink:
    """One JSON object per line."""

    def __init__(self, stream: IO[str], **_: Any) -> None:
        self._stream = stream

    def write(self, result: Classified | Failure) -> None:
        """Write one record."""
        self._stream.write(to_json(result.record()) + "\n")

    def close(self) -> None:
        """Do nothing: the format has no end."""

    @staticmethod
    def write_listing(listing: Listing, stream: IO[str], **_: bool) -> None:
        """Write the record on one line; if it is a list, one line per item."""
        records = listing.record if isinstance(listing.record, list) else [listing.record]
        stream.writelines(to_json(record) + "\n" for record in records)


class JsonSink:
    """One JSON array, valid even if it is closed early."""

    def __init__(self, stream: IO[str], **_: Any) -> None:
        self._stream = stream
        self._separator = "\n"
        stream.write("[")

    def write(self, result: Classified | Failure) -> None:
        """Write one record."""
        self._stream.write(f"{self._separator}{to_json(result.record())}")
        self._separator = ",\n"

    def close(self) -> None:
        """End the array."""
        self._stream.write("\n]\n")

    @staticmethod
    def write_listing(listing: Listing, stream: IO[str], **_: bool) -> None:
        """Write the record, indented."""
        stream.write(to_json(listing.record, indent=1) + "\n")


class PairsFormat:
    """The facts of one thing: lines of key, tab and value, escaped as in tsv. It cannot write results."""

    @staticmethod
    def write_listing(listing: Listing, stream: IO[str], **_: bool) -> None:
        """Write a line per column of the single row."""
        line = row_writer("tsv", stream)
        for row in listing.rows:
            stream.writelines(map(line, zip(listing.columns, row, strict=True)))


def to_json(value: object, *, indent: int | None = None) -> str:
    """Return the value as JSON, on one line unless indented; printable text is kept, the rest escaped."""
    return json_safe(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))
