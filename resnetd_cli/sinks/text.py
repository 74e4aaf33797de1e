"""Records as text that programs read: tsv, csv, json, jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from resnetd_cli.escaping import csv_line, tsv_line
from resnetd_cli.results import Classified, Failure

COLUMNS = ("input", "status", "rank", "index", "id", "label", "probability", "error")


def rows(result: Classified | Failure) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each prediction, or one row for an input that has none."""
    if isinstance(result, Failure):
        yield result.input, "error", None, None, None, None, None, f"{result.kind.value}: {result.message}"
        return
    for item in result.predictions:
        yield result.input, "ok", item.rank, item.index, item.id, item.label, item.probability, None
    if not result.predictions:
        yield result.input, "ok", None, None, None, None, None, None


class RowSink:
    """A line for each row, written by `line`."""

    line: Callable[[Iterable[object]], str]

    def __init__(self, stream: IO[str], *, header: bool = True, **_: Any) -> None:
        self._stream = stream
        if header:
            stream.write(self.line(COLUMNS))

    def write(self, result: Classified | Failure) -> None:
        """Write the rows of one result, in one go: an interrupt leaves no input half told."""
        self._stream.write("".join(map(self.line, rows(result))))

    def close(self) -> None:
        """Nothing belongs at the end."""


class TsvSink(RowSink):
    """Tab-separated values: one line is one row, whatever a file is called."""

    line = staticmethod(tsv_line)


class CsvSink(RowSink):
    """Comma-separated values."""

    line = staticmethod(csv_line)


class JsonLinesSink:
    """One JSON object a line."""

    def __init__(self, stream: IO[str], **_: Any) -> None:
        self._stream = stream

    def write(self, result: Classified | Failure) -> None:
        """Write one record."""
        self._stream.write(to_json(result.record()) + "\n")

    def close(self) -> None:
        """Nothing belongs at the end."""


class JsonSink:
    """One JSON array; a valid one too when it is closed early."""

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


def to_json(value: object) -> str:
    """Return the value as one line of JSON, readable where it can be.

    A file name that is not UTF-8 holds surrogates, which only an escape can carry.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text
