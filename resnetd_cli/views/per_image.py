"""The file of `evaluate --per-image`, as csv, JSON Lines or Parquet: a row for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import UsageError
from resnetd_cli.evaluation.image_rows import ImageRow
from resnetd_cli.pipeline.sinks.csv_json import row_writer, to_json
from resnetd_cli.results import shortest
from resnetd_cli.system.files import open_atomic, open_atomic_text

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "model": "string",
    "path": "string",
    "truth_index": "int32",
    "truth": "string",
    "prediction_index": "int32",
    "prediction": "string",
    "probability": "float64",
    "truth_probability": "float64",
    "loss": "float64",
    "margin": "float64",
    "correct": "bool",
    "error": "string",
}
"""The keys of `ImageRow.record`, and their types in Parquet."""
LOGITS = "logits"
Write = Callable[[ImageRow], object]
_GROUP = 1024
"""Rows of a Parquet file that are in memory at once."""


@dataclass(frozen=True)
class RowOptions:
    """How the file is written.

    Attributes:
        overwrite: replace a file that exists.
        logits: write the logits of each image, too.
        header: start csv with the names of the columns.
        escape_formulas: put an apostrophe before texts in csv that begin like a spreadsheet's formula.
    """

    overwrite: bool = False
    logits: bool = False
    header: bool = True
    escape_formulas: bool = False


def check_name(path: Path) -> None:
    """Check that a file's name tells the format.

    Raises:
        UsageError: it does not.
    """
    if path.suffix.lower() not in _FORMATS:
        *others, last = _FORMATS
        hint = f"its name ends in {', '.join(others)} or {last}"
        raise UsageError(f"{path}: the format is not clear from the name", hint=hint)


def open_rows(path: Path, options: RowOptions) -> AbstractContextManager[Write]:
    """Open a file for rows, and give the function that writes one. The file appears when all are written.

    Raises:
        OutputError: it cannot be written.
    """
    return _FORMATS[path.suffix.lower()](path, options)


@contextmanager
def _csv(path: Path, options: RowOptions) -> Iterator[Write]:
    with open_atomic_text(path, overwrite=options.overwrite) as stream:
        line = row_writer("csv", stream, escape_formulas=options.escape_formulas)
        if options.header:
            stream.write(line((*COLUMNS, LOGITS) if options.logits else COLUMNS))
        yield lambda row: stream.write(line(map(_csv_cell, _record(row, options).values())))


@contextmanager
def _json_lines(path: Path, options: RowOptions) -> Iterator[Write]:
    with open_atomic_text(path, overwrite=options.overwrite) as stream:
        yield lambda row: stream.write(to_json(_record(row, options)) + "\n")


@contextmanager
def _parquet(path: Path, options: RowOptions) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    logits = [(LOGITS, pa.list_(pa.float32()))] if options.logits else []
    schema = pa.schema([*COLUMNS.items(), *logits])
    rows: list[ImageRow] = []

    def flush() -> None:
        writer.write_table(_table(rows, schema))
        rows.clear()

    def write(row: ImageRow) -> None:
        rows.append(row)
        if len(rows) == _GROUP:
            flush()

    with open_atomic(path, overwrite=options.overwrite) as stream, pq.ParquetWriter(stream, schema) as writer:
        yield write
        if rows:
            flush()


_FORMATS: dict[str, Callable[[Path, RowOptions], AbstractContextManager[Write]]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
"""By the suffix of the file."""


def _table(rows: list[ImageRow], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    records = [row.record() | {LOGITS: row.logits} for row in rows]
    columns = {name: [_utf8(record[name]) for record in records] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def _utf8(value: Any) -> Any:
    """Return a text as Parquet takes it: bytes of names that are not UTF-8 become escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _record(row: ImageRow, options: RowOptions) -> dict[str, Any]:
    record = row.record()
    if options.logits:
        record[LOGITS] = None if row.logits is None else [shortest(value) for value in row.logits]
    return record


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (bool, list)) else value
