"""Class names from outside: a checkpoint's own configuration, a user's file, a URL."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from resnetd_cli.errors import InputError, LabelsError
from resnetd_cli.files import write_atomic
from resnetd_cli.http import fetch, is_url, without_secrets
from resnetd_cli.labels import ClassNames, words

SEED_URL = "https://raw.githubusercontent.com/pytorch/hub/master/imagenet_classes.txt"
"""The 1,000 ImageNet names as PyTorch's own examples use them, one a line."""

_SYNSET_ID = re.compile(r"n[0-9]{8}")
_INDEX = re.compile(r"[0-9]{1,9}")
_MAX_BYTES = 16 * 2**20
_FORMS = "one name a line; a JSON list; a JSON map of index to name; or a table (.tsv, .csv) with a column `name`"


def from_checkpoint(
    label_names: Sequence[str] | Mapping[str | int, str],
    label_descriptions: Mapping[str, str] | None,
    n: int,
) -> ClassNames:
    """Return the names that a checkpoint's configuration gives its n classes.

    Args:
        label_names: timm's `label_names`: a label per class, or a map of class index to label. As in timm a
            map may leave classes out; they are called `class 7`.
        label_descriptions: timm's `label_descriptions`, by label. They give the words for WordNet ids.
        n: how many classes the model has.

    Raises:
        LabelsError: a list of another length, an empty map, a class that the model does not have, no text.
    """
    owner, hint = "the checkpoint", "name the classes with --labels FILE"
    if isinstance(label_names, str) or not isinstance(label_names, (Mapping, Sequence)):
        raise LabelsError(f"{owner} has neither a list nor a map of class names", hint=hint)
    if isinstance(label_names, Mapping):
        rows = _rows(label_names.items(), owner, hint)
        rows += _gaps(rows, n, owner, hint)
    else:
        rows = _rows(enumerate(label_names), owner, hint)
    descriptions = label_descriptions if isinstance(label_descriptions, Mapping) else {}
    return _class_names(_in_order(rows, n, owner, hint), descriptions, "checkpoint")


def load(location: str, n: int) -> ClassNames:
    """Return the n class names in a file or at an http(s) URL.

    The forms: one name a line; a JSON list of names; a JSON map of index to name, or to `[id, name]`; a table
    (.tsv or .csv) whose header line has `name` and perhaps `index` and `id`. Where the name is a WordNet id,
    the class gets that id and its word.

    Raises:
        LabelsError: it cannot be had, is not one of the forms, or does not name exactly n classes.
    """
    text = _decoded(_read(location), location)
    suffix = Path(urlsplit(location).path if is_url(location) else location).suffix.lower()
    start = text.lstrip()[:1] + text.rstrip()[-1:]
    header = text.partition("\n")[0].strip().lower().split("\t")
    if suffix == ".json" or start in ("[]", "{}"):
        rows = _json_rows(text, location)
    elif suffix in (".tsv", ".csv") or (len(header) > 1 and "name" in header):
        rows = _table_rows(text, location, "," if suffix == ".csv" else "\t")
    else:
        rows = _rows(enumerate(_lines(text)), location, "one name a line, in class order")
    return _class_names(_in_order(rows, n, location, f"the forms: {_FORMS}"), {}, location)


def check_exists(location: str) -> None:
    """Find out early that a file of names is not there; a URL is taken as it is.

    Raises:
        LabelsError: there is no such file.
    """
    if not is_url(location) and not os.path.exists(location):
        raise _no_such_file(location)


def download(url: str = SEED_URL, *, cache: Path) -> Path:
    """Fetch the list of the 1,000 ImageNet names into the folder and return its path.

    The file appears whole or not at all, and only if it is a list of exactly 1,000 names.

    Raises:
        LabelsError: the server did not give such a list.
        OutputError: it cannot be written.
    """
    data = _fetched(url)
    lines = _lines(_decoded(data, url))
    hint = "the names come with the install too: resnetd labels"
    if lines and lines[0].startswith("<"):
        raise LabelsError(f"{url} is a web page, not a list of class names", hint=hint)
    if len(lines) != 1000 or not all(lines):
        filled = sum(1 for line in lines if line)
        raise LabelsError(f"{url} has {_counted(filled, 'class name')}, not one on each of 1000 lines", hint=hint)
    path = cache / "imagenet_classes.txt"
    write_atomic(path, data)
    return path


# Rows: what the forms have in common.


@dataclass(frozen=True)
class _Row:
    index: int
    id: str | None
    name: str


class _Pairs(list[tuple[str, object]]):
    """A JSON map as it is written, so that a key that comes twice is seen."""


def _rows(items: Iterable[tuple[object, object]], owner: str, hint: str) -> list[_Row]:
    """Return the rows of (index, name) or (index, [id, name]) items; the index may be text."""
    rows = []
    for key, value in items:
        if not _INDEX.fullmatch(str(key)):
            raise LabelsError(f"{owner}: {str(key)[:80]!r} is not a class index", hint=hint)
        index = int(str(key))
        pair = value if isinstance(value, (list, tuple)) and len(value) == 2 else (None, value)
        id, name = pair
        if not isinstance(name, str) or not (id is None or isinstance(id, str)):
            raise LabelsError(f"{owner}: class {index} has no name but {str(value)[:80]!r}", hint=hint)
        if not name.strip():
            raise LabelsError(f"{owner}: the name of class {index} is empty", hint=hint)
        rows.append(_Row(index, (id or "").strip() or None, name.strip()))
    return rows


def _json_rows(text: str, location: str) -> list[_Row]:
    hint = 'a JSON list of names, or a map such as {"0": "tench", ...} or {"0": ["n01440764", "tench"], ...}'
    try:
        value = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise LabelsError(f"{location} is not valid JSON: {reason}", hint=hint) from error
    if not isinstance(value, list):
        raise LabelsError(f"{location} holds neither a JSON list nor a map", hint=hint)
    return _rows(value if isinstance(value, _Pairs) else enumerate(value), location, hint)


def _table_rows(text: str, location: str, delimiter: str) -> list[_Row]:
    hint = "a header line with `name`, and perhaps `index` and `id`, then a line per class"
    lines = _lines(text) or [""]
    # A .tsv quotes nothing, as the shipped ones: WordNet's definitions have quotation marks in them.
    reader = csv.reader(lines) if delimiter == "," else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        header, *body = reader
    except csv.Error as error:
        raise LabelsError(f"{location} is not a table: {error}", hint=hint) from error
    columns = {title.strip().lower(): column for column, title in enumerate(header)}
    if "name" not in columns:
        raise LabelsError(f"{location} has no column `name`", hint=hint)
    items: list[tuple[object, object]] = []
    for position, cells in enumerate(body):
        if len(cells) != len(header):
            found = _counted(len(cells), "column")
            message = f"{location}: line {position + 2} has {found}, the header {len(header)}"
            raise LabelsError(message, hint=hint)
        index = cells[columns["index"]].strip() if "index" in columns else position
        items.append((index, (cells[columns["id"]] if "id" in columns else None, cells[columns["name"]])))
    return _rows(items, location, hint)


def _gaps(rows: list[_Row], n: int, owner: str, hint: str) -> list[_Row]:
    """Return stand-ins for the classes that a map, not an empty one, leaves out."""
    named = {row.index for row in rows}
    stray = [index for index in sorted(named) if index >= n]
    if stray:
        raise LabelsError(f"{owner} names class {stray[0]}, but the model has {_counted(n, 'class')}", hint=hint)
    return [_Row(index, None, f"class {index}") for index in range(n) if named and index not in named]


def _in_order(rows: list[_Row], n: int, owner: str, hint: str) -> list[_Row]:
    """Return the rows by class index, having made sure that they name the classes 0 to n - 1 once each."""
    by_index: dict[int, _Row] = {}
    for row in rows:
        if row.index in by_index:
            raise LabelsError(f"{owner} names class {row.index} twice", hint=hint)
        by_index[row.index] = row
    if len(rows) != n:
        message = f"{owner} has {_counted(len(rows), 'class name')}, but the model has {_counted(n, 'class')}"
        raise LabelsError(message, hint=hint)
    missing = next((index for index in range(n) if index not in by_index), None)
    if missing is not None:
        raise LabelsError(f"{owner} has no name for class {missing}", hint=f"class indices run from 0 to {n - 1}")
    return [by_index[index] for index in range(n)]


def _class_names(rows: list[_Row], descriptions: Mapping[str, str], source: str) -> ClassNames:
    """Put the rows together, with words in place of names that are WordNet ids."""
    synset_ids = {row.name for row in rows if row.id is None and _SYNSET_ID.fullmatch(row.name)}
    if synset_ids:
        known = words(id for id in synset_ids if not descriptions.get(id))
        named = {
            id: str(descriptions.get(id) or "").partition(",")[0].strip() or known.get(id, id) for id in synset_ids
        }
        rows = [
            _Row(row.index, row.name, named[row.name]) if row.name in named and row.id is None else row
            for row in rows
        ]
    return ClassNames(names=tuple(row.name for row in rows), ids=tuple(row.id for row in rows), source=source)


# Bytes and text.


def _read(location: str) -> bytes:
    if is_url(location):
        return _fetched(location)
    try:
        with Path(location).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _no_such_file(location) from error
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise LabelsError(f"{location} cannot be read: {reason}", hint="--labels takes a file") from error
    if len(data) > _MAX_BYTES:
        raise LabelsError(f"{location} has more than {_MAX_BYTES:,} bytes", hint=f"the forms: {_FORMS}")
    return data


def _no_such_file(location: str) -> LabelsError:
    return LabelsError(f"{location}: no such file", hint="--labels takes a file or an http(s) URL")


def _fetched(url: str) -> bytes:
    try:
        return fetch(url, max_bytes=_MAX_BYTES)
    except InputError as error:
        raise LabelsError(f"{without_secrets(url)}: {error.message}", hint=error.hint) from error


def _decoded(data: bytes, location: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsError(f"{location} is not UTF-8 text", hint=f"the forms: {_FORMS}") from error


def _lines(text: str) -> list[str]:
    """Return the lines without the empty ones at the end. One in the middle stays, an error to report."""
    text = text.rstrip(" \r\n")  # not tabs: they are the empty last cells of a table
    # Not splitlines: it also splits at characters that may stand inside a name.
    return [line.strip(" \r") for line in text.split("\n")] if text else []


def _counted(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"
