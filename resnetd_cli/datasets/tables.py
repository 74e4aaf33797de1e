"""Tables with a row for each image: its path, its class and, where a column says so, its split."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from resnetd_cli.datasets import sheets
from resnetd_cli.datasets.examples import ALL, ORDER, TRAIN, VAL, Dataset, Examples
from resnetd_cli.datasets.files import Files
from resnetd_cli.datasets.folders import SPLIT_NAMES
from resnetd_cli.datasets.groups import ALONE
from resnetd_cli.datasets.texts import Few, Labeller, TextsBuilder, is_missing, label_text, shown
from resnetd_cli.errors import DataError, first_line
from resnetd_cli.net import fetch
from resnetd_cli.pipeline.sources import spellings
from resnetd_cli.pipeline.sources.folders import image_extensions
from resnetd_cli.pipeline.sources.reading import strerror
from resnetd_cli.system.escaping import printable, shell_word
from resnetd_cli.system.files import expand_user

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

PATHS = (
    "path",
    "file",
    "filename",
    "image",
    "input",
    "filepath",
    "imagepath",
    "imagefile",
    "imagename",
    "img",
    "imgpath",
    "imagefilename",
)
LABELS = ("label", "class", "category", "target", "labels", "classname", "labelname", "categoryname")
_IS_VALID = "isvalid"
SPLITS = ("split", "subset", "set", _IS_VALID)
GROUP = "group"
"""The names of columns, without case, spaces and punctuation; the first that is there counts."""
PARQUET = ".parquet"
MAX_ROWS = 20_000_000
MAX_PATHS = 2**30
"""Characters of all paths together."""
_BATCH = 10_000
_MAX_COLUMN = 2**31
"""Bytes that a column of a Parquet file may hold before its compression."""
_COLUMNS = "it needs a column path and a column label, as in: path,label"
_ONE_LABEL = "each image needs one label, a text or an integer"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_FLOAT = re.compile(r"[+-]?[0-9]+(\.0+)?")
_ZERO_OR_ONE = re.compile(r"[01](\.0+)?")
_VALIDATION = {"true": VAL, "1": VAL, "1.0": VAL, "false": TRAIN, "0": TRAIN, "0.0": TRAIN}
"""The splits that fastai's column `is_valid` tells."""
Cells = tuple[int, Any, Any, Any, Any]
"""The line or row, from 1, and its path, label, split and group; None for one of these that no column tells."""


class Columns(NamedTuple):
    """Where what stands in a table.

    Attributes:
        path: the column of paths.
        labels: those of labels; of several the first counts, and the others have to say the same.
        split: the column of splits, if there is one.
        group: that of groups, if there is one.
        flags: without labels, columns that are called like classes: 1 in that of an image's class, else 0.
    """

    path: int
    labels: tuple[int, ...]
    split: int | None
    group: int | None
    flags: tuple[int, ...] = ()


def is_table(location: str) -> bool:
    """Tell a table by its name."""
    return os.path.splitext(location)[1].lower() in {*sheets.DELIMITERS, PARQUET}


def open_table(location: str) -> Dataset:
    """Return the images that a `.csv`, `.tsv`, `.txt` or `.parquet` file lists.

    Paths are relative to the table's folder. They may be written as on Windows.

    Raises:
        DataError: the table cannot be read, is too large, lacks a column, or a row lacks a value, is not like the
            header or names a file that is not there.
    """
    path = expand_user(location)
    is_parquet = path.suffix.lower() == PARQUET
    cells = _parquet_cells(path) if is_parquet else _text_cells(path)
    return _dataset(location, path, cells, unit="row" if is_parquet else "line")


def _dataset(location: str, table: Path, cells: Iterator[Cells], *, unit: str) -> Dataset:
    import numpy as np

    found = _Images(location, table, unit)
    try:
        for row in cells:
            found.add(*row)
    except OSError as error:
        message = f"cannot read {printable(location)}: {strerror(error)}"
        raise DataError(message, hint=f"look at it: ls -l {shell_word(location)}") from error
    labels, names = found.labels()
    of_split, split_names = found.splits.build()
    store = Files(found.folder, found.paths.build())
    groups, group_names = found.groups()
    rows = {name: np.flatnonzero(of_split == index) for index, name in enumerate(split_names)}
    every = Examples(store, np.arange(len(labels)), labels, names, groups=groups, group_names=group_names)
    parts = {name: every.select(at) for name in ORDER if (at := rows.get(name)) is not None}
    return Dataset(location, parts, top=store.folder)


class _Images:
    """The rows of a table as they come."""

    def __init__(self, location: str, table: Path, unit: str) -> None:
        self._location, self._unit = location, unit
        self.folder = str(table.parent)
        self._prefix = os.path.join(self.folder, "")
        self.paths, self._classes, self.splits = TextsBuilder(), Labeller(), Labeller()
        self._numbers, self._hashes = array("q"), array("q")
        self._groups: dict[str, int] = {}
        self._group_of = array("q")
        self._characters = 0
        self._missing = Few()
        self._first_missing: tuple[int, str] | None = None

    def add(self, number: int, path: object, label: object, split: object, group: object) -> None:
        """Take a row.

        Raises:
            DataError: it lacks a value, or there are too many.
        """
        where = self._where(number)
        written = _path(path, where)
        found = self._on_disk(written)
        if found and self._is_folder(found):
            hint = "name the images in it, each in a row of its own"
            raise DataError(f"{where}: {printable(written)} is a folder, not an image", hint=hint)
        if found is None:
            self._missing.add(written)
            self._first_missing = self._first_missing or (number, written)
        self._classes.append(_label(label, where))
        self.splits.append(_split(split, where))
        self.paths.append(found or written)
        name = "" if group is None else str(group).strip()
        is_named = name and not is_missing(name)
        self._group_of.append(self._groups.setdefault(name, len(self._groups)) if is_named else ALONE)
        self._numbers.append(number)
        self._hashes.append(hash(found or written))
        self._characters += len(written)
        if len(self.paths) > MAX_ROWS or self._characters > MAX_PATHS:
            what = f"{MAX_ROWS:,} rows" if len(self.paths) > MAX_ROWS else f"{MAX_PATHS:,} characters of paths"
            raise DataError(f"{printable(self._location)} has more than {what}", hint="use a table for each part")

    def labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return each image's index in the classes, and their names.

        Raises:
            DataError: there are no images, a file is not there, an image is of several classes.
        """
        if not self.paths:
            raise DataError(f"{printable(self._location)} lists no images", hint=_COLUMNS)
        if self._first_missing:
            raise self._not_there(*self._first_missing)
        labels, names = self._classes.build()
        self._check_several(labels, names)
        self._check_twice(labels, names)
        return _as_integers(labels, names)

    def groups(self) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
        """Return each image's index in the groups, and their names; None: there are none."""
        import numpy as np

        return np.array(self._group_of, np.int64) if self._groups else None, tuple(self._groups)

    def _where(self, number: int) -> str:
        return f"{printable(self._location)}, {self._unit} {number:,}"

    def _on_disk(self, written: str) -> str | None:
        """Return the path of a file that is there: as it is written, else as another system would write it."""
        if os.path.lexists(os.path.join(self.folder, written)):
            return written
        found = spellings.of_list(spellings.path_of_url(written) or written, self.folder)
        return found and found.removeprefix(self._prefix)

    def _is_folder(self, path: str) -> bool:
        # To look at each file twice takes time where there are millions.
        has_suffix = os.path.splitext(path)[1].lower() in image_extensions()
        return not has_suffix and os.path.isdir(os.path.join(self.folder, path))

    def _not_there(self, number: int, written: str) -> DataError:
        more = f", and {self._missing.count - 1:,} more" if self._missing.count > 1 else ""
        folder = str(Path(self.folder).absolute())
        message = f"{self._where(number)}: no file {printable(written)} in {printable(folder)}{more}"
        return DataError(message, hint=_where_it_may_be(written, self.folder))

    def _check_several(self, labels: NDArray[np.int64], names: Sequence[str]) -> None:
        known = set(names)
        for name in names:
            for separator, enough in (("|", any), (";", any), (",", all), (None, all)):
                parts = [part.strip() for part in name.split(separator)]
                if len(parts) > 1 and enough(part in known for part in parts):
                    message = f"{self._at(labels, names, name)}: {printable(name)!r} is several labels"
                    raise DataError(message, hint=f"{_ONE_LABEL}; a class of several words may be written hot_dog")

    def _check_twice(self, labels: NDArray[np.int64], names: Sequence[str]) -> None:
        """Make sure that no file is of two classes."""
        import numpy as np

        hashes = np.array(self._hashes, np.int64)
        order = np.lexsort((labels, hashes))
        differ = (np.diff(hashes[order]) == 0) & (np.diff(labels[order]) != 0)
        paths = self.paths.build() if differ.any() else None
        for one, other in zip(order[:-1][differ].tolist(), order[1:][differ].tolist(), strict=True):
            first, second = sorted((one, other))
            if paths is not None and paths[first] == paths[second]:
                message = (
                    f"{self._where(self._numbers[second])}: {printable(paths[second])} is "
                    f"{printable(names[labels[second]])}, but {printable(names[labels[first]])} in "
                    f"{self._unit} {self._numbers[first]:,}"
                )
                raise DataError(message, hint=_ONE_LABEL)

    def _at(self, labels: NDArray[np.int64], names: Sequence[str], name: str) -> str:
        """Return where a label comes first."""
        return self._where(self._numbers[int((labels == names.index(name)).argmax())])


def _as_integers(labels: NDArray[np.int64], names: tuple[str, ...]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels that are all integers as such, where a data frame has made 1.0 of them."""
    import numpy as np

    if not all(map(_FLOAT.fullmatch, names)) or not any("." in name for name in names):
        return labels, names
    integers = [name.partition(".")[0] for name in names]
    classes = sorted(set(integers), key=lambda name: (int(name), name))
    return np.array([classes.index(name) for name in integers], np.int64)[labels], tuple(classes)


def _where_it_may_be(written: str, folder: str) -> str:
    """Return a hint on a file that is not there."""
    if _DRIVE.match(written):
        return "paths on drives of Windows mean nothing here: write them relative to the table"
    if spellings.of_list(written) is not None:
        return "paths are relative to the table's folder, not to the current one: move the table"
    top, name = os.path.split(os.path.join(folder, written.replace("\\", "/")))
    wanted = name.casefold()
    try:
        with os.scandir(top) as entries:
            near = next((entry.name for entry in entries if _is_near(entry.name, wanted)), None)
    except (OSError, ValueError):
        near = None
    return f"there is {printable(near)}" if near else "paths are relative to the table's folder"


def _is_near(name: str, wanted: str) -> bool:
    stem, ending = os.path.splitext(name.casefold())
    return name.casefold() == wanted or (stem == wanted and ending in image_extensions())


def _path(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: no path", hint="each image needs a path and a label")
    if "\0" in value:
        raise DataError(f"{where}: the path holds a zero byte", hint="save the table as UTF-8")
    if fetch.is_url(value) and spellings.path_of_url(value) is None:
        hint = "download the images first, and name the files"
        raise DataError(f"{where}: {printable(value)} is a URL, not a file", hint=hint)
    return value


def _label(value: object, where: str) -> str:
    try:
        return label_text(value)
    except UnicodeError as error:
        raise DataError(f"{where}: {error}", hint='save the table as "CSV UTF-8"') from error
    except ValueError as error:
        raise DataError(f"{where}: {error}", hint=_ONE_LABEL) from error


def _split(value: object, where: str) -> str:
    if value is None:
        return ALL
    name = str(value).strip().lower()
    if name not in SPLIT_NAMES:
        hint = f"a split is one of {', '.join(SPLIT_NAMES)}"
        raise DataError(f"{where}: no split is called {printable(str(value))!r}", hint=hint)
    return SPLIT_NAMES[name]


# Columns.


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _known(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return where columns of some names stand, in the order of the names."""
    bare = [_bare(name) for name in names]
    return [at for want in wanted for at, name in enumerate(bare) if name == want]


def _columns(names: Sequence[str], table: Path) -> Columns:
    """Return where the path, the labels and the split stand.

    Raises:
        DataError: one of the first two is missing, or there twice under one name.
    """
    paths, labels, splits, groups = (_known(names, wanted) for wanted in (PATHS, LABELS, SPLITS, (GROUP,)))
    for found in (paths, labels, splits, groups):
        if len(found) > 1 and _bare(names[found[0]]) == _bare(names[found[1]]):
            message = f"{printable(str(table))} has two columns {printable(names[found[0]])}"
            raise DataError(message, hint="leave one of them out")
    split, group = next(iter(splits), None), next(iter(groups), None)
    taken = {*paths, *labels, split, group}
    flags = [
        at for at, name in enumerate(names) if at not in taken and name and not _bare(name).startswith("unnamed")
    ]
    if not paths and _is_data(names):
        message = f"{printable(str(table))} has no header: it begins with {shown(names, len(names))}"
        raise DataError(message, hint="the first line names the columns, as in: path,label")
    if not paths or (not labels and len(flags) < 2):
        what = "labels" if paths else "paths"
        message = f"{printable(str(table))} has no column of {what}, only {shown(names, len(names))}"
        raise DataError(message, hint=_COLUMNS)
    return Columns(paths[0], tuple(labels), split, group, () if labels else tuple(flags))


def _fits(names: Sequence[str]) -> bool:
    """Tell a header."""
    paths, labels = _known(names, PATHS), _known(names, LABELS)
    return bool(paths) and (bool(labels) or len(names) > 2)


def _is_data(names: Sequence[str]) -> bool:
    """Tell a row of an image from a header."""
    words = (word for name in names for word in name.split())
    return any(os.path.splitext(word)[1].lower() in image_extensions() for word in words)


class _Reader:
    """Takes the path, the label and the split out of rows."""

    def __init__(self, names: Sequence[str], columns: Columns, table: Path, unit: str) -> None:
        self._names, self._columns = names, columns
        self._table, self._unit = table, unit
        self._others: dict[object, tuple[object, ...]] = {}

    def cells(self, number: int, row: Sequence[Any]) -> Cells:
        """Return what stands in a row.

        Raises:
            DataError: its columns of labels do not agree, or not one of its flags is 1.
        """
        path, labels, split, group, flags = self._columns
        label = row[labels[0]] if labels else self._flagged(number, [row[at] for at in flags])
        if len(labels) > 1:
            others = tuple(row[at] for at in labels[1:])
            if self._others.setdefault(label, others) != others:
                names = shown([self._names[at] for at in labels], len(labels))
                message = f"{self._where(number)}: the columns {names} do not tell the same classes apart"
                raise DataError(message, hint="leave out those that are not the class")
        told = None if split is None else self._split(row[split])
        return number, row[path], label, told, None if group is None else row[group]

    def _split(self, value: object) -> object:
        if _bare(self._names[self._columns.split or 0]) == _IS_VALID:
            return _VALIDATION.get(str(value).strip().lower(), value)
        return value or ""

    def _flagged(self, number: int, values: Sequence[object]) -> str:
        names = [self._names[at] for at in self._columns.flags]
        texts = [str(value).strip() for value in values]
        if not all(map(_ZERO_OR_ONE.fullmatch, texts)):
            message = f"{printable(str(self._table))} has no column of labels, only {shown(self._names)}"
            raise DataError(message, hint=_COLUMNS)
        chosen = [name for name, text in zip(names, texts, strict=True) if text.startswith("1")]
        if len(chosen) != 1:
            what = f"several classes are 1: {shown(chosen)}" if chosen else "no class is 1"
            raise DataError(f"{self._where(number)}: {what}", hint="each image needs one class")
        return chosen[0]

    def _where(self, number: int) -> str:
        return f"{printable(str(self._table))}, {self._unit} {number:,}"


def _text_cells(table: Path) -> Iterator[Cells]:
    rows = sheets.rows(table, _fits)
    _, names = next(rows, (1, []))
    if not names:
        raise DataError(f"{printable(str(table))} is empty", hint=_COLUMNS)
    reader = _Reader(names, _columns(names, table), table, "line")
    for number, row in rows:
        yield reader.cells(number, row)


# Parquet.


def _parquet_cells(table: Path) -> Iterator[Cells]:
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
    """Return the names of the columns, and of those that are read, having made sure of their types and sizes."""
    names = file.schema_arrow.names
    path, labels, split, group, flags = _columns(names, table)
    if _holds_images(file.schema_arrow.field(path).type):
        message = f"{printable(str(table))} holds the images themselves in its column {printable(names[path])}"
        raise DataError(message, hint=f"have it read as hfds/{shell_word(table)}")
    chosen = [
        names[at] for at in sorted({path, *labels, *flags, *(at for at in (split, group) if at is not None)})
    ]
    for name in chosen:
        if _is_nested(kind := file.schema_arrow.field(name).type):
            message = f"{printable(str(table))}: the column {printable(name)} holds {printable(str(kind))[:80]}"
            raise DataError(message, hint=_ONE_LABEL)
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
    reader = _Reader(names, _columns(names, table), table, "row")
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
