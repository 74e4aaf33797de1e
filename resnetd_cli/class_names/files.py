"""Class names from a user's file, a URL or a checkpoint's configuration, put in the order of the model's outputs.

The text of a file is parsed in `file_formats`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from resnetd_cli.class_names.file_formats import FORMS, ClassRow, lines_of, read, rows_of
from resnetd_cli.class_names.shipped import ClassNames, finder, for_class_count, words
from resnetd_cli.errors import ErrorKind, InputError, LabelsError, Reason
from resnetd_cli.net.fetch import bare_url, fetch, is_url, without_secrets
from resnetd_cli.pipeline.sources.reading import ReadOptions, read_file
from resnetd_cli.system.encodings import encoding_of, non_text_kind
from resnetd_cli.system.files import write_atomic
from resnetd_cli.system.wording import counted

SEED_URL = "https://raw.githubusercontent.com/pytorch/hub/master/imagenet_classes.txt"
"""The 1,000 ImageNet names of PyTorch's examples, one a line."""

_SYNSET_ID = re.compile(r"n[0-9]{8}")
_MAX_BYTES = 16 * 2**20
_SECONDS = 60.0
"""The time limit for reading, also from a pipe such as the shell's <(...)."""
_BACKGROUND = ("background", "__background__", "dummy")
_MOST_ELSEWHERE = 0.1
"""The share of names that may be out of place in a list that follows the order of a shipped set."""
_HINT = f"the forms: {FORMS}"
_SAY_INDICES = 'give each class its index: {"0": "tench", ...}'


def from_checkpoint(
    label_names: Sequence[str] | Mapping[str | int, str],
    label_descriptions: Mapping[str, str] | None,
    n: int,
) -> ClassNames:
    """Return the names that a checkpoint's configuration gives its n classes.

    Args:
        label_names: timm's `label_names`: a label per class, or a map of class index to label. As in timm, a
            map may leave classes out; they get names such as `class 7`.
        label_descriptions: timm's `label_descriptions`, by label: the words for WordNet ids.
        n: the number of classes of the model.

    Raises:
        LabelsError: a list of another length, an empty map, a class that the model lacks, a name that is no text.
    """
    descriptions = label_descriptions if isinstance(label_descriptions, Mapping) else {}
    try:
        return _class_names(_checkpoint_rows(label_names, n), descriptions, "checkpoint")
    except LabelsError as error:
        error.hint, error.reason = None, Reason.MODEL_NAMES_UNFIT
        raise


def _checkpoint_rows(label_names: object, n: int) -> list[ClassRow]:
    owner, hint = "the model's config.json", ""
    if isinstance(label_names, str) or not isinstance(label_names, (Mapping, Sequence)):
        raise LabelsError(f"{owner} has neither a list nor a map of class names")
    if isinstance(label_names, Mapping):
        rows = rows_of(label_names.items(), owner, hint)
        rows += _gaps(rows, n, owner, hint)
    else:
        rows = rows_of(enumerate(label_names), owner, hint)
    return _in_order(rows, n, owner, hint)


def load(location: str, n: int) -> ClassNames:
    """Return the n class names in a file or at an http(s) URL.

    The formats are those of `file_formats`. A class named by a WordNet id gets that id and its word; names of a
    shipped set get its ids.

    Raises:
        LabelsError: it cannot be read or parsed, has not exactly n names, or leaves open which is which.
    """
    location = location if os.path.exists(location) else bare_url(location)
    text = _decoded(_read(location), location)
    suffix = Path(urlsplit(location).path if is_url(location) else location).suffix.lower()
    return _class_names(_placed(read(text, location, suffix), n, location), {}, location)


def check_exists(location: str) -> None:
    """Check early that a file of names exists; a URL is not checked.

    Raises:
        LabelsError: there is no such file.
    """
    if not is_url(bare_url(location)) and not os.path.exists(location):
        raise _no_such_file(location)


def download(url: str = SEED_URL, *, cache: Path) -> Path:
    """Fetch the list of the 1,000 ImageNet names into the folder and return its path.

    The file appears whole or not at all, and only if it is a list of exactly 1,000 names.

    Raises:
        LabelsError: the server did not give such a list.
        OutputError: it cannot be written.
    """
    url = bare_url(url)
    data = _fetched(url)
    lines = lines_of(_decoded(data, url))
    hint = "the names come with the install too: resnetd labels"
    if lines and lines[0].startswith("<"):
        raise LabelsError(f"{url} is a web page, not a list of class names", hint=hint)
    if len(lines) != 1000 or not all(lines):
        filled = sum(1 for line in lines if line)
        raise LabelsError(f"{url} has {counted(filled, 'class name')}, not one on each of 1000 lines", hint=hint)
    path = cache / "imagenet_classes.txt"
    write_atomic(path, data)
    return path


# Which class of the model a row belongs to.


def _gaps(rows: list[ClassRow], n: int, owner: str, hint: str) -> list[ClassRow]:
    """Return names for the classes that a map leaves out, unless it is empty."""
    named = {row.index for row in rows if row.index is not None}
    stray = [index for index in sorted(named) if index >= n]
    if stray:
        raise LabelsError(f"{owner} names class {stray[0]}, but the model has {counted(n, 'class')}", hint=hint)
    return [ClassRow(index, None, f"class {index}") for index in range(n) if named and index not in named]


def _placed(rows: list[ClassRow], n: int, location: str) -> list[ClassRow]:
    """Return the rows in the order of the model's n classes.

    WordNet ids decide, if the rows have them: a shipped set has a known order, other ids are sorted. Otherwise the
    indices decide, which may count from 1, or the order of the rows. Names of a shipped set must be in its order.

    Raises:
        LabelsError: they do not name n classes, or leave open which class one of them is.
    """
    rows = _without_background(rows, n)
    if rows and all(row.id and _SYNSET_ID.fullmatch(row.id) for row in rows):
        return _by_id(rows, n, location)
    _check_shared_names(rows, n, location)
    if any(row.index is None for row in rows):
        if any(row.id and _SYNSET_ID.fullmatch(row.id) for row in rows):
            raise LabelsError(f"{location}: some classes have a WordNet id, others none", hint=_SAY_INDICES)
        rows = [replace(row, index=position) for position, row in enumerate(rows)]
    elif sorted(row.index or 0 for row in rows) == list(range(1, n + 1)):
        rows = [replace(row, index=(row.index or 0) - 1) for row in rows]
    rows = _in_order(rows, n, location, _HINT)
    return _with_ids(rows, n, location)


def _without_background(rows: list[ClassRow], n: int) -> list[ClassRow]:
    """Return the rows without the background class at the start of TensorFlow's lists."""
    first = min(rows, key=lambda row: row.index or 0, default=None)
    if first is None or len(rows) != n + 1 or first.name.casefold() not in _BACKGROUND:
        return rows
    return [row for row in rows if row is not first]


def _by_id(rows: list[ClassRow], n: int, location: str) -> list[ClassRow]:
    by_id = {str(row.id): row for row in rows}
    if len(by_id) < len(rows):
        twice = next(id for id, count in Counter(row.id for row in rows).items() if count > 1)
        raise LabelsError(f"{location} names class {twice} twice", hint=_HINT)
    if len(rows) != n:
        raise _miscounted(location, len(rows), n, _HINT)
    shipped = for_class_count(n)
    if shipped is not None and set(shipped.ids) == set(by_id):
        return [by_id[str(id)] for id in shipped.ids]
    if sorted(row.index or 0 for row in rows) == list(range(n)):
        return sorted(rows, key=lambda row: row.index or 0)
    numbered = sorted(rows, key=lambda row: row.index or 0)
    if [row.id for row in numbered] != sorted(by_id):
        message = f"{location}: nothing says which class is which, as its WordNet ids are not in order"
        raise LabelsError(message, hint=_SAY_INDICES)
    return numbered


def _with_ids(rows: list[ClassRow], n: int, location: str) -> list[ClassRow]:
    """Return the rows with WordNet ids if their names are those of a shipped set.

    Raises:
        LabelsError: they are, but in another order.
    """
    shipped = for_class_count(n)
    if shipped is None or any(row.id for row in rows):
        return rows
    find = finder(shipped)
    found = [find(row.name) for row in rows]
    is_here = [index in candidates for index, candidates in enumerate(found)]
    here = sum(is_here)
    elsewhere = sum(map(bool, found)) - here
    is_shipped = here >= (1 - _MOST_ELSEWHERE) * n
    # Lists differ in a few words. A name has moved if the class that it belongs to has the name of another, too.
    has_moved = any(
        not is_here[index] and any(found[other] and not is_here[other] for other in candidates)
        for index, candidates in enumerate(found)
    )
    if elsewhere > _MOST_ELSEWHERE * n or (is_shipped and has_moved):
        message = (
            f"{location} has names of {shipped.source}, but in another order: which class is which is not certain"
        )
        raise LabelsError(message, hint=f"{_SAY_INDICES}, with WordNet ids", reason=Reason.LABELS_UNORDERED)
    if not is_shipped:
        return rows
    return [
        replace(row, id=shipped.ids[index] if index in candidates else None)
        for index, (row, candidates) in enumerate(zip(rows, found, strict=True))
    ]


def _check_shared_names(rows: list[ClassRow], n: int, location: str) -> None:
    """Explain why a map of name to index is too short: classes of a shipped set that share a name are lost in it.

    Raises:
        LabelsError: its names are the different names of a shipped set.
    """
    shipped = for_class_count(n)
    if shipped is None or len(rows) == n or len(rows) != len(set(shipped.names)):
        return
    find = finder(shipped)
    if sum(bool(find(row.name)) for row in rows) < (1 - _MOST_ELSEWHERE) * n:
        return
    shared = [name for name, count in Counter(shipped.names).items() if count > 1]
    which = f"the names {' and '.join(shared)}" if len(shared) <= 2 else f"names such as {shared[0]}"
    message = f"{_miscounted(location, len(rows), n, _HINT).message}: two classes share each of {which}"
    raise LabelsError(message, hint='give each class its WordNet id: {"134": ["n02012849", "crane"], ...}')


def _in_order(rows: list[ClassRow], n: int, owner: str, hint: str) -> list[ClassRow]:
    """Return the rows by class index, checking that they name the classes 0 to n - 1 once each."""
    by_index: dict[int, ClassRow] = {}
    for position, row in enumerate(rows):
        index = position if row.index is None else row.index
        if index in by_index:
            raise LabelsError(f"{owner} names class {index} twice", hint=hint)
        by_index[index] = row
    if len(rows) != n:
        raise _miscounted(owner, len(rows), n, hint)
    missing = next((index for index in range(n) if index not in by_index), None)
    if missing is not None:
        raise LabelsError(f"{owner} has no name for class {missing}", hint=f"class indices run from 0 to {n - 1}")
    return [by_index[index] for index in range(n)]


def _miscounted(owner: str, count: int, n: int, hint: str) -> LabelsError:
    message = f"{owner} has {counted(count, 'class name')}, but the model has {counted(n, 'class')}"
    return LabelsError(message, hint=hint)


def _class_names(rows: list[ClassRow], descriptions: Mapping[str, str], source: str) -> ClassNames:
    """Join the rows: a WordNet id without a name gets its word, and of synonyms the first is taken."""
    alone = {str(row.id) for row in rows if not row.name}
    known = words(id for id in alone if not descriptions.get(id)) if alone else {}
    named = {id: str(descriptions.get(id) or "").partition(",")[0].strip() or known.get(id, id) for id in alone}
    names = (
        (row.name.partition(",")[0] if row.id and _SYNSET_ID.fullmatch(row.id) else row.name) or named[str(row.id)]
        for row in rows
    )
    return ClassNames(names=tuple(names), ids=tuple(row.id for row in rows), source=source)


# Bytes and text.


def _read(location: str) -> bytes:
    if is_url(location):
        return _fetched(location)
    try:
        return read_file(location, ReadOptions(_MAX_BYTES, _SECONDS))
    except InputError as error:
        if error.kind is ErrorKind.EMPTY:
            return b""
        if error.kind is ErrorKind.NOT_FOUND:
            raise _no_such_file(location) from error
        if error.kind is ErrorKind.TOO_LARGE:
            raise LabelsError(f"{location} has more than {_MAX_BYTES:,} bytes", hint=_HINT) from error
        raise LabelsError(f"{location} cannot be read: {error.message}", reason=Reason.LABELS_NOT_READ) from error


def _no_such_file(location: str) -> LabelsError:
    return LabelsError(f"{location}: no such file", reason=Reason.LABELS_NOT_FOUND)


def _fetched(url: str) -> bytes:
    try:
        return fetch(url, max_bytes=_MAX_BYTES)
    except InputError as error:
        raise LabelsError(f"{without_secrets(url)}: {error.message}", **error.advice) from error


def _decoded(data: bytes, location: str) -> str:
    if what := non_text_kind(data):
        raise LabelsError(f"{location} is {what}, not a list of class names", hint=f"the forms: {FORMS}")
    try:
        return data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        raise LabelsError(f"{location} is not UTF-8 text", hint="save it as UTF-8") from error
