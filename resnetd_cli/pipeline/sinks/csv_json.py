"""Output formats for programs: tsv, csv, json, jsonl. A prediction becomes a line here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from resnetd_cli.pipeline.sinks.base import Listing
from resnetd_cli.results import Classified, Failure
from resnetd_cli.system.escaping import csv_line, json_safe, tsv_line, without_formulas

COLUMNS = ("input", "status", "rank", "index", "id", "label", "probability", "error")


def rows(result: Classified | Failure) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each prediction of an input, or one row if it has none."""
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
        stream: where the lines will go; a terminal gets no control characters.
        escape_formulas: put an apostrophe before texts that begin like a spreadsheet's formula.
    """
    line = tsv_line if format_name == "tsv" else csv_line
    terminal = stream.isatty()
    if escape_formulas:
        return lambda cells: line(without_formulas(cells), terminal=terminal)
    return lambda cells: line(cells, terminal=terminal)


class RowSink:
    """A line for each row."""

    format_name: str

    def __init__(self, stream: IO[str], *, header: bool = True, escape_formulas: bool = False, **_: Any) -> None:
        self._stream = stream
        self._line = row_writer(self.format_name, stream, escape_formulas=escape_formulas)
        if header:
            stream.write(self._line(COLUMNS))

    def write(self, result: Classified | Failure) -> None:
        """Write the rows of one result at once: an interrupt leaves no result half written."""
        self._stream.write("".join(map(self._line, rows(result))))

    def close(self) -> None:
        """Do nothing: the format has no end."""

    @classmethod
    def write_listing(cls, listing: Listing, stream: IO[str], *, header: bool, escape_formulas: bool) -> None:
        """Write a line for each row."""
        line = row_writer(cls.format_name, stream, escape_formulas=escape_formulas)
        if header and listing.columns:
            stream.write(line(listing.columns))
        stream.writelines(map(line, listing.rows))


class TsvSink(RowSink):
    """Tab-separated values: one line is one row, whatever a file is called."""

    format_name = "tsv"


class CsvSink(RowSink):
    """Comma-separated values."""

    format_name = "csv"


class JsonLinesSink:
    """One JSON object a line."""

    def __init__(self, stream: IO[str], **_: Any) -> None:
        self._stream = stream

    def write(self, result: Classified | Failure) -> None:
        """Write one record."""
        self._stream.write(to_json(result.record()) + "\n")

    def close(self) -> None:
        """Do nothing: the format has no end."""

    @staticmethod
    def write_listing(listing: Listing, stream: IO[str], **_: bool) -> None:
        """Write the record in a line; of a list, a line for each item."""
        records = listing.record if isinstance(listing.record, list) else [listing.record]
        stream.writelines(to_json(record) + "\n" for record in records)


class JsonSink:
    """One JSON array, valid even when it is closed early."""

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
    """The facts of one thing: lines of a key, a tab and a value, escaped as in tsv. It takes no results."""

    @staticmethod
    def write_listing(listing: Listing, stream: IO[str], **_: bool) -> None:
        """Write a line for each column of the one row."""
        line = row_writer("tsv", stream)
        for row in listing.rows:
            stream.writelines(map(line, zip(listing.columns, row, strict=True)))


def to_json(value: object, *, indent: int | None = None) -> str:
    """Return the value as JSON, in one line unless indented; printable text stays, the rest is escaped."""
    return json_safe(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))
