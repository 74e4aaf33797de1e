"""Tables with a row for each image: its path, its class and, if there are such columns, its split and group."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.datasets import text_tables
from resnetd_cli.datasets.class_labels import Labeller, is_missing, label_text
from resnetd_cli.datasets.examples import ALL, ORDER, Dataset, Examples
from resnetd_cli.datasets.first_few import Few
from resnetd_cli.datasets.folders import SPLIT_NAMES
from resnetd_cli.datasets.groups import ALONE
from resnetd_cli.datasets.image_files import Files
from resnetd_cli.datasets.packed_texts import TextsBuilder
from resnetd_cli.datasets.parquet_tables import MAX_ROWS, PARQUET, parquet_cells
from resnetd_cli.datasets.table_columns import (
    COLUMNS_HINT,
    ONE_LABEL_HINT,
    Cells,
    RowReader,
    find_columns,
    is_header,
)
from resnetd_cli.errors import DataError
from resnetd_cli.net import fetch
from resnetd_cli.pipeline.sources import spellings
from resnetd_cli.pipeline.sources.folders import image_extensions
from resnetd_cli.system.escaping import printable, shell_word
from resnetd_cli.system.files import expand_user
from resnetd_cli.system.wording import system_reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PATHS = 2**30
"""Characters of all paths together."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_FLOAT = re.compile(r"[+-]?[0-9]+(\.0+)?")


def is_table(location: str) -> bool:
    """Tell whether a file is a table, by its name."""
    return os.path.splitext(location)[1].lower() in {*text_tables.DELIMITERS, PARQUET}


def open_table(location: str) -> Dataset:
    """Return the images that a `.csv`, `.tsv`, `.txt` or `.parquet` file lists.

    Paths are relative to the table's folder. They may be written as on Windows.

    Raises:
        DataError: the table cannot be read, is too large, lacks a column, or a row lacks a value, is not like the
            header or names a file that is not there.
    """
    path = expand_user(location)
    is_parquet = path.suffix.lower() == PARQUET
    cells = parquet_cells(path) if is_parquet else _text_cells(path)
    return _dataset(location, path, cells, unit="row" if is_parquet else "line")


def _dataset(location: str, table: Path, cells: Iterator[Cells], *, unit: str) -> Dataset:
    import numpy as np

    found = _Images(location, table, unit)
    try:
        for row in cells:
            found.add(*row)
    except OSError as error:
        message = f"cannot read {printable(location)}: {system_reason(error)}"
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
    """Collects the rows of a table."""

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
        """Add a row.

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
            raise DataError(f"{printable(self._location)} lists no images", hint=COLUMNS_HINT)
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
        """Return the path of an existing file: as written, or as another system would write it."""
        if os.path.lexists(os.path.join(self.folder, written)):
            return written
        found = spellings.of_list(spellings.path_of_url(written) or written, self.folder)
        return found and found.removeprefix(self._prefix)

    def _is_folder(self, path: str) -> bool:
        # Checking each file twice takes long for millions.
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
                    hint = f"{ONE_LABEL_HINT}; a class of several words may be written hot_dog"
                    raise DataError(message, hint=hint)

    def _check_twice(self, labels: NDArray[np.int64], names: Sequence[str]) -> None:
        """Check that no file is in two classes."""
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
                raise DataError(message, hint=ONE_LABEL_HINT)

    def _at(self, labels: NDArray[np.int64], names: Sequence[str], name: str) -> str:
        """Return where a label is first used."""
        return self._where(self._numbers[int((labels == names.index(name)).argmax())])


def _as_integers(labels: NDArray[np.int64], names: tuple[str, ...]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels without `.0`, if all are integers that a data frame wrote as floats."""
    import numpy as np

    if not all(map(_FLOAT.fullmatch, names)) or not any("." in name for name in names):
        return labels, names
    integers = [name.partition(".")[0] for name in names]
    classes = sorted(set(integers), key=lambda name: (int(name), name))
    return np.array([classes.index(name) for name in integers], np.int64)[labels], tuple(classes)


def _where_it_may_be(written: str, folder: str) -> str:
    """Return a hint on a missing file."""
    if _DRIVE.match(written):
        return "Windows drives do not exist here: write paths relative to the table"
    if spellings.of_list(written) is not None:
        return "paths are relative to the table's folder, not to the current one: move the table"
    top, name = os.path.split(os.path.join(folder, written.replace("\\", "/")))
    wanted = name.casefold()
    try:
        with os.scandir(top) as entries:
            near = next((entry.name for entry in entries if _is_near(entry.name, wanted)), None)
    except (OSError, ValueError):
        near = None
    return f"did you mean {printable(near)}?" if near else "paths are relative to the table's folder"


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
        raise DataError(f"{where}: {error}", hint=ONE_LABEL_HINT) from error


def _split(value: object, where: str) -> str:
    if value is None:
        return ALL
    name = str(value).strip().lower()
    if name not in SPLIT_NAMES:
        hint = f"a split is one of {', '.join(SPLIT_NAMES)}"
        raise DataError(f"{where}: no split is called {printable(str(value))!r}", hint=hint)
    return SPLIT_NAMES[name]


def _text_cells(table: Path) -> Iterator[Cells]:
    rows = text_tables.rows(table, is_header)
    _, names = next(rows, (1, []))
    if not names:
        raise DataError(f"{printable(str(table))} is empty", hint=COLUMNS_HINT)
    reader = RowReader(names, find_columns(names, table), table, "line")
    for number, row in rows:
        yield reader.cells(number, row)
