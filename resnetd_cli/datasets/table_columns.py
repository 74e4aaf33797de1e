"""The columns of a table: which one holds paths, labels, splits and groups, and what a row says in them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from resnetd_cli.datasets.examples import TRAIN, VAL
from resnetd_cli.datasets.first_few import shown
from resnetd_cli.errors import DataError
from resnetd_cli.pipeline.sources.folders import image_extensions
from resnetd_cli.system.escaping import printable

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
"""Names of columns, without case, spaces and punctuation; the first that exists counts."""
COLUMNS_HINT = "it needs a column path and a column label, as in: path,label"
ONE_LABEL_HINT = "each image needs one label, a text or an integer"
_ZERO_OR_ONE = re.compile(r"[01](\.0+)?")
_VALIDATION = {"true": VAL, "1": VAL, "1.0": VAL, "false": TRAIN, "0": TRAIN, "0.0": TRAIN}
"""The splits that the values of fastai's column `is_valid` mean."""
Cells = tuple[int, Any, Any, Any, Any]
"""The number of a line or row, from 1, and its path, label, split and group; None without such a column."""


class Columns(NamedTuple):
    """The columns of a table, by position.

    Attributes:
        path: of the paths.
        labels: of the labels; of several the first counts, and the others must agree with it.
        split: of the splits, if there is one.
        group: of the groups, if there is one.
        flags: without labels, a column for each class: 1 in that of the image's class, 0 in the others.
    """

    path: int
    labels: tuple[int, ...]
    split: int | None
    group: int | None
    flags: tuple[int, ...] = ()


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _known(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the positions of the columns with some names, in the order of the names."""
    bare = [_bare(name) for name in names]
    return [at for want in wanted for at, name in enumerate(bare) if name == want]


def find_columns(names: Sequence[str], table: Path) -> Columns:
    """Return the columns of a table.

    Raises:
        DataError: there is no column of paths or labels, or two have the same name.
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
        raise DataError(message, hint=COLUMNS_HINT)
    return Columns(paths[0], tuple(labels), split, group, () if labels else tuple(flags))


def is_header(names: Sequence[str]) -> bool:
    """Tell whether a row is a header."""
    paths, labels = _known(names, PATHS), _known(names, LABELS)
    return bool(paths) and (bool(labels) or len(names) > 2)


def _is_data(names: Sequence[str]) -> bool:
    """Tell whether a row names an image, and so is no header."""
    words = (word for name in names for word in name.split())
    return any(os.path.splitext(word)[1].lower() in image_extensions() for word in words)


class RowReader:
    """Takes path, label, split and group out of rows."""

    def __init__(self, names: Sequence[str], columns: Columns, table: Path, unit: str) -> None:
        self._names, self._columns = names, columns
        self._table, self._unit = table, unit
        self._others: dict[object, tuple[object, ...]] = {}

    def cells(self, number: int, row: Sequence[Any]) -> Cells:
        """Return the cells of a row.

        Raises:
            DataError: its columns of labels do not agree, or not one of its flags is 1.
        """
        path, labels, split, group, flags = self._columns
        label = row[labels[0]] if labels else self._flagged(number, [row[at] for at in flags])
        if len(labels) > 1:
            others = tuple(row[at] for at in labels[1:])
            if self._others.setdefault(label, others) != others:
                names = shown([self._names[at] for at in labels], len(labels))
                message = f"{self._where(number)}: the columns {names} disagree about the classes"
                raise DataError(message, hint="leave out those that are not the class")
        named = None if split is None else self._split(row[split])
        return number, row[path], label, named, None if group is None else row[group]

    def _split(self, value: object) -> object:
        if _bare(self._names[self._columns.split or 0]) == _IS_VALID:
            return _VALIDATION.get(str(value).strip().lower(), value)
        return value or ""

    def _flagged(self, number: int, values: Sequence[object]) -> str:
        names = [self._names[at] for at in self._columns.flags]
        texts = [str(value).strip() for value in values]
        if not all(map(_ZERO_OR_ONE.fullmatch, texts)):
            message = f"{printable(str(self._table))} has no column of labels, only {shown(self._names)}"
            raise DataError(message, hint=COLUMNS_HINT)
        chosen = [name for name, text in zip(names, texts, strict=True) if text.startswith("1")]
        if len(chosen) != 1:
            what = f"several classes are 1: {shown(chosen)}" if chosen else "no class is 1"
            raise DataError(f"{self._where(number)}: {what}", hint="each image needs one class")
        return chosen[0]

    def _where(self, number: int) -> str:
        return f"{printable(str(self._table))}, {self._unit} {number:,}"
