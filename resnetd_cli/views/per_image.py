"""What a model says of each labelled image, a row each: for bootstraps and the analysis of errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import UsageError
from resnetd_cli.evaluation.records import ImageRow
from resnetd_cli.pipeline.sinks.text import row_writer, to_json
from resnetd_cli.results import shortest
from resnetd_cli.system.files import open_atomic, open_atomic_text

if TYPE_CHECKING:
    import pyarrow as pa

LOGITS = "logits"
COLUMNS = tuple(field.name for field in fields(ImageRow) if field.name != LOGITS)
SUFFIXES = (".csv", ".jsonl", ".parquet")
Write = Callable[[ImageRow], object]
_GROUP = 1024
"""Rows of a Parquet file that are in memory at once."""
_TYPES = {"int": "int32", "str": "string", "float": "float64", "bool": "bool"}


def check_name(path: Path) -> None:
    """Make sure that a file's name tells the format.

    Raises:
        UsageError: it does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        hint = f"its name ends in {SUFFIXES[0]}, {SUFFIXES[1]} or {SUFFIXES[2]}"
        raise UsageError(f"--per-image {path}: the name does not tell the format", hint=hint)


@contextmanager
def open_rows(
    path: Path,
    *,
    overwrite: bool = False,
    logits: bool = False,
    header: bool = True,
    escape_formulas: bool = False,
) -> Iterator[Write]:
    """Open a file for rows, and give what writes one. The file takes its name when all are written.

    Args:
        path: the file, whose name tells the format.
        overwrite: replace a file that is there.
        logits: write the logits of each image, too.
        header: begin csv with the names of the columns.
        escape_formulas: let no text in csv begin like a spreadsheet's formula.

    Raises:
        OutputError: it cannot be written.
    """
    columns = (*COLUMNS, LOGITS) if logits else COLUMNS
    if path.suffix.lower() == ".parquet":
        with _parquet(path, columns, overwrite=overwrite) as write:
            yield write
        return
    with open_atomic_text(path, overwrite=overwrite) as stream:
        if path.suffix.lower() == ".jsonl":
            yield lambda row: stream.write(to_json(_cells(row, columns)) + "\n")
            return
        line = row_writer("csv", stream, escape_formulas=escape_formulas)
        if header:
            stream.write(line(columns))
        yield lambda row: stream.write(line(map(_text, _cells(row, columns).values())))


@contextmanager
def _parquet(path: Path, columns: tuple[str, ...], *, overwrite: bool) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        field.name: _TYPES[field.type.partition(" ")[0]] for field in fields(ImageRow) if field.name != LOGITS
    }
    schema = pa.schema([(name, pa.list_(pa.float32()) if name == LOGITS else types[name]) for name in columns])
    rows: list[ImageRow] = []

    def flush() -> None:
        writer.write_table(_table(rows, schema))
        rows.clear()

    def write(row: ImageRow) -> None:
        rows.append(row)
        if len(rows) == _GROUP:
            flush()

    with open_atomic(path, overwrite=overwrite) as stream, pq.ParquetWriter(stream, schema) as writer:
        yield write
        if rows:
            flush()


def _table(rows: list[ImageRow], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = {name: [_utf8(getattr(row, name)) for row in rows] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def _utf8(value: Any) -> Any:
    """Return a text as Parquet takes it: bytes of names that are not UTF-8 are escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _cells(row: ImageRow, columns: tuple[str, ...]) -> dict[str, Any]:
    cells = {name: getattr(row, name) for name in columns}
    if cells.get(LOGITS) is not None:
        cells[LOGITS] = [shortest(value) for value in cells[LOGITS]]
    return cells


def _text(cell: Any) -> Any:
    """Return a cell as csv holds it."""
    return json.dumps(cell) if isinstance(cell, (bool, list)) else cell
