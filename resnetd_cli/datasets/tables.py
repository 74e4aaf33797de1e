"""Tables with a row for each image: its path, its class and, where a column says so, its split."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli import http
from resnetd_cli.datasets.examples import ALL, ORDER, Dataset, Examples
from resnetd_cli.datasets.files import Files
from resnetd_cli.datasets.folders import SPLIT_NAMES
from resnetd_cli.datasets.texts import Labeller, TextsBuilder, shown
from resnetd_cli.errors import DataError, first_line
from resnetd_cli.escaping import printable, shell_word
from resnetd_cli.files import expand_user
from resnetd_cli.reading import strerror

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PATHS = ("path", "file", "filename", "file_name", "image", "input")
LABELS = ("label", "class", "category", "target")
SPLITS = ("split",)
"""The names of columns, in lower case; the first that is there counts."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
_BATCH = 10_000
_COLUMNS = "it needs a column path and a column label, as in: path,label"
Cells = tuple[int, Any, Any, Any]
"""The line or row, from 1, and its path, label and split; None for a split where no column tells it."""


def is_table(location: str) -> bool:
    """Tell a table by its name."""
    return os.path.splitext(location)[1].lower() in {*DELIMITERS, PARQUET}


def open_table(location: str) -> Dataset:
    """Return the images that a `.csv`, `.tsv` or `.parquet` file lists; no file is looked for.

    Paths are relative to the table's folder.

    Raises:
        DataError: the table cannot be read, lacks a column, or a row lacks a value.
    """
    path = expand_user(location)
    suffix = path.suffix.lower()
    cells = _parquet_cells(path) if suffix == PARQUET else _text_cells(path, DELIMITERS[suffix])
    return _dataset(location, path, cells, unit="row" if suffix == PARQUET else "line")


def _dataset(location: str, table: Path, cells: Iterator[Cells], *, unit: str) -> Dataset:
    import numpy as np

    paths, classes, splits = TextsBuilder(), Labeller(), Labeller()
    try:
        for number, path, label, split in cells:
            where = f"{printable(location)}, {unit} {number:,}"
            paths.append(_path(path, where))
            classes.append(_label(label, where))
            splits.append(_split(split, where))
    except OSError as error:
        message = f"cannot read {printable(location)}: {strerror(error)}"
        raise DataError(message, hint=f"look at it: ls -l {shell_word(location)}") from error
    if not paths:
        raise DataError(f"{printable(location)} lists no images", hint=_COLUMNS)
    labels, names = classes.build()
    of_split, split_names = splits.build()
    store = Files(str(table.parent), paths.build())
    rows = {name: np.flatnonzero(of_split == index) for index, name in enumerate(split_names)}
    found = {name: Examples(store, at, labels[at], names) for name in ORDER if (at := rows.get(name)) is not None}
    return Dataset(location, found, top=store.folder)


def _path(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: no path", hint="each image needs a path and a label")
    if http.is_url(value):
        hint = "download the images first, and name the files"
        raise DataError(f"{where}: {printable(value)} is a URL, not a file", hint=hint)
    return value


def _label(value: object, where: str) -> str:
    if isinstance(value, float) and value.is_integer():  # where some are missing, integers are stored so
        value = int(value)
    if isinstance(value, (str, int)) and (text := str(value).strip()):
        if not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text):  # a path may have them
            raise DataError(f"{where}: the label is not UTF-8", hint="save the table as UTF-8")
        return text
    what = "no label" if value is None or isinstance(value, str) else f"the label is {shown([str(value)])}"
    raise DataError(f"{where}: {what}", hint="each image needs one label, a text or an integer")


def _split(value: object, where: str) -> str:
    if value is None:
        return ALL
    name = str(value).strip().lower()
    if name not in SPLIT_NAMES:
        hint = f"a split is one of {', '.join(SPLIT_NAMES)}"
        raise DataError(f"{where}: no split is called {printable(str(value))!r}", hint=hint)
    return SPLIT_NAMES[name]


def _columns(names: Sequence[str], table: Path) -> tuple[int, int, int | None]:
    """Return where the path, the label and the split stand.

    Raises:
        DataError: one of the first two is missing.
    """
    known = [name.strip().lower() for name in names]

    def find(wanted: Sequence[str]) -> int | None:
        return next((known.index(name) for name in wanted if name in known), None)

    path, label = find(PATHS), find(LABELS)
    if path is None or label is None:
        what = "paths" if path is None else "labels"
        message = f"{printable(str(table))} has no column of {what}, only {shown(names, len(names))}"
        raise DataError(message, hint=_COLUMNS)
    return path, label, find(SPLITS)


def _text_cells(table: Path, delimiter: str) -> Iterator[Cells]:
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            yield from _cells_of(reader, table)
        except csv.Error as error:
            message = f"{printable(str(table))}, line {reader.line_num:,}: {first_line(error)}"
            raise DataError(message, hint="a quotation mark that is not closed?") from error


def _cells_of(reader: Any, table: Path) -> Iterator[Cells]:
    names: list[str] = next(reader, [])
    path, label, split = _columns(names, table)
    for row in reader:
        if row:  # not a blank line
            cells = [*row, *[""] * (len(names) - len(row))]
            yield reader.line_num, cells[path], cells[label], None if split is None else cells[split]


def _parquet_cells(table: Path) -> Iterator[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            yield from _cells_of_parquet(file, table)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        message = f"{printable(str(table))} is not a Parquet file, or damaged: {first_line(error)}"
        raise DataError(message, hint="write it again") from error


def _cells_of_parquet(file: pq.ParquetFile, table: Path) -> Iterator[Cells]:
    names = file.schema_arrow.names
    path, label, split = _columns(names, table)
    if _holds_images(file.schema_arrow.field(path).type):
        message = f"{printable(str(table))} holds the images themselves in its column {printable(names[path])}"
        raise DataError(message, hint=f"have it read as hfds/{shell_word(table)}")
    chosen = [names[at] for at in (path, label, split) if at is not None]
    number = 0
    for batch in file.iter_batches(_BATCH, columns=chosen):
        columns = [batch.column(name).to_pylist() for name in chosen]
        for values in zip(*columns, strict=True):
            number += 1
            yield number, values[0], values[1], (values[2] or "") if split is not None else None


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
