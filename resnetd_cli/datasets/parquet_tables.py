"""Tables in Parquet files: the columns that are needed, checked for their types and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.datasets.table_columns import ONE_LABEL_HINT, Cells, RowReader, find_columns
from resnetd_cli.errors import DataError, first_line
from resnetd_cli.system.escaping import printable, shell_word

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PARQUET = ".parquet"
MAX_ROWS = 20_000_000
_BATCH = 10_000
_MAX_COLUMN = 2**31
"""Bytes in a column of a Parquet file, before its compression."""


def parquet_cells(table: Path) -> Iterator[Cells]:
    """Yield the cells of each row.

    Raises:
        DataError: it is no Parquet file, is too large, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            names, chosen = _checked(file, table)
        # As dictionaries: a text that comes a million times is stored once.
        texts = [name for name in chosen if _is_text(file.schema_arrow.field(name).type)]
        with pq.ParquetFile(table, read_dictionary=texts) as file:
            yield from _cells_of_parquet(file, names, chosen, table)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        message = f"{printable(str(table))} is not a Parquet file, or damaged: {first_line(error)}"
        raise DataError(message, hint="write it again") from error


def _checked(file: pq.ParquetFile, table: Path) -> tuple[list[str], list[str]]:
    """Return the names of all columns and of those that are read, after checking their types and sizes."""
    names = file.schema_arrow.names
    path, labels, split, group, flags = find_columns(names, table)
    if _holds_images(file.schema_arrow.field(path).type):
        message = f"{printable(str(table))} holds the images themselves in its column {printable(names[path])}"
        raise DataError(message, hint=f"read it as hfds/{shell_word(table)}")
    chosen = [
        names[at] for at in sorted({path, *labels, *flags, *(at for at in (split, group) if at is not None)})
    ]
    for name in chosen:
        if _is_nested(kind := file.schema_arrow.field(name).type):
            message = f"{printable(str(table))}: the column {printable(name)} holds {printable(str(kind))[:80]}"
            raise DataError(message, hint=ONE_LABEL_HINT)
    meta = file.metadata
    if meta.num_rows > MAX_ROWS:
        raise DataError(
            f"{printable(str(table))} has more than {MAX_ROWS:,} rows", hint="use a table for each part"
        )
    for name in chosen:
        at = names.index(name)
        size = sum(
            meta.row_group(group).column(at).total_uncompressed_size for group in range(meta.num_row_groups)
        )
        if size > _MAX_COLUMN:
            message = f"{printable(str(table))}: the column {printable(name)} has {size:,} bytes"
            raise DataError(message, hint=f"more than {_MAX_COLUMN:,} are not read: use a table for each part")
    return names, chosen


def _cells_of_parquet(
    file: pq.ParquetFile, names: Sequence[str], chosen: Sequence[str], table: Path
) -> Iterator[Cells]:
    reader = RowReader(names, find_columns(names, table), table, "row")
    at = [names.index(name) for name in chosen]
    number = 0
    for batch in file.iter_batches(_BATCH, columns=list(chosen)):
        columns = [_values(batch.column(name)) for name in chosen]
        for values in zip(*columns, strict=True):
            number += 1
            yield reader.cells(number, dict(zip(at, values, strict=True)))  # type: ignore[arg-type]


def _values(column: pa.Array) -> Iterable[Any]:
    """Yield what is in a column; what a dictionary stands for is not made anew for each row."""
    import pyarrow as pa

    if not isinstance(column, pa.DictionaryArray):
        return column.to_pylist()  # type: ignore[no-any-return]
    known = column.dictionary.to_pylist()
    return (None if index is None else known[index] for index in column.indices.to_pylist())


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_nested(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_nested(kind))


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
