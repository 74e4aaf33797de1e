"""The table of output formats, and the interface of a format: a sink for results, and a writer of listings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

from resnetd_cli.errors import Reason, UsageError

if TYPE_CHECKING:
    from resnetd_cli.results import Classified, Failure


@dataclass(frozen=True)
class Listing:
    """Command output other than results for inputs: models, classes, facts, measurements.

    Attributes:
        record: the whole listing as JSON; if it is a list, JSON Lines has a line per item.
        columns: the names of the columns, for formats with rows.
        rows: the cells of each row, in the order of the columns.
        draw: prints it for people.
    """

    record: Any
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]
    draw: Callable[[IO[str]], None]


class Sink(Protocol):
    """A record format. Results are written one by one until `close`; a listing is written in one call."""

    def write(self, result: Classified | Failure) -> None:
        """Write one result."""
        ...

    def close(self) -> None:
        """Write what belongs at the end."""
        ...

    @staticmethod
    def write_listing(listing: Listing, stream: IO[str], *, header: bool, escape_formulas: bool) -> None:
        """Write a listing."""
        ...


class RecordFormat(NamedTuple):
    """An entry of the table of formats: the sink's `module:class`, and the format's file suffixes."""

    sink: str
    suffixes: tuple[str, ...] = ()


RECORD_FORMATS = {
    "table": RecordFormat("resnetd_cli.pipeline.sinks.table:TableSink", (".txt",)),
    "tsv": RecordFormat("resnetd_cli.pipeline.sinks.csv_json:TsvSink", (".tsv",)),
    "csv": RecordFormat("resnetd_cli.pipeline.sinks.csv_json:CsvSink", (".csv",)),
    "json": RecordFormat("resnetd_cli.pipeline.sinks.csv_json:JsonSink", (".json",)),
    "jsonl": RecordFormat("resnetd_cli.pipeline.sinks.csv_json:JsonLinesSink", (".jsonl", ".ndjson")),
}
"""The formats that `--format` names. A new one is a module with a sink, and a line here."""
_ONLY_AUTO = {
    "overview": RecordFormat("resnetd_cli.pipeline.sinks.overview:OverviewSink"),
    "pairs": RecordFormat("resnetd_cli.pipeline.sinks.csv_json:PairsFormat"),
}
"""The formats that only `--format auto` chooses: `overview` for results, `pairs` for the facts of one thing."""


def choose_format(
    wanted: str, output: Path | None, *, terminal: bool, on_terminal: str = "table", elsewhere: str = "tsv"
) -> str:
    """Return the record format to write: the one the user asked for, or the one `auto` stands for.

    Args:
        wanted: the format the user asked for.
        output: a file, whose suffix decides; None for standard output.
        terminal: whether standard output is a terminal.
        on_terminal: the format for a terminal: `table` or `overview`.
        elsewhere: the format for a pipe, and for a file without a suffix: `tsv` or `pairs`.

    Raises:
        UsageError: no format has this suffix.
    """
    if wanted != "auto":
        return wanted
    if output is None:
        return on_terminal if terminal else elsewhere
    if not output.suffix:
        return elsewhere
    for name, entry in RECORD_FORMATS.items():
        if output.suffix.lower() in entry.suffixes:
            return name
    names = ", ".join(RECORD_FORMATS)
    message = f"{output}: the format is not clear from the name"
    raise UsageError(message, reason=Reason.FORMAT_UNCLEAR, details=(names,))


def open_sink(format_name: str, stream: IO[str], **options: Any) -> Sink:
    """Return a sink that writes a record format to the stream."""
    sink: Sink = _sink_class(format_name)(stream, **options)
    return sink


def write_listing(
    listing: Listing, stream: IO[str], format_name: str, *, header: bool = True, escape_formulas: bool = False
) -> None:
    """Write a listing to the stream in a record format.

    Args:
        listing: the listing.
        stream: the output.
        format_name: a key of `RECORD_FORMATS`, or `pairs`.
        header: start tsv and csv with the names of the columns.
        escape_formulas: put an apostrophe before texts in tsv and csv that a spreadsheet might run as a formula.
    """
    _sink_class(format_name).write_listing(listing, stream, header=header, escape_formulas=escape_formulas)


def _sink_class(format_name: str) -> Any:
    module, _, name = (RECORD_FORMATS | _ONLY_AUTO)[format_name].sink.partition(":")
    return getattr(importlib.import_module(module), name)
