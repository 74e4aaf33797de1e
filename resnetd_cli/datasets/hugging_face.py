"""Hugging Face data sets (`hfds/NAME`): on the hub, in a folder, or in a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.datasets.class_labels import Labeller, label_text
from resnetd_cli.datasets.examples import ORDER, Dataset, Examples
from resnetd_cli.datasets.first_few import shown
from resnetd_cli.datasets.folders import SPLIT_NAMES
from resnetd_cli.datasets.packed_texts import Texts, TextsBuilder
from resnetd_cli.datasets.parquet_tables import PARQUET
from resnetd_cli.datasets.table_columns import LABELS
from resnetd_cli.errors import DataError, ErrorKind, InputError, first_line
from resnetd_cli.models import hub_environment
from resnetd_cli.pipeline.sources.reading import DEFAULT_READING, ReadOptions, read_regular_file
from resnetd_cli.system.distribution import how_to_install
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.files import expand_user
from resnetd_cli.system.quiet import quiet

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray

PREFIX = "hfds/"
_SAVED = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes, for several splits and for one."""


@dataclass(frozen=True, eq=False)
class HuggingFaceImages:
    """The images in one split of a data set.

    Attributes:
        title: what the user calls the split.
        images: the data set with the column of images alone, which are not decoded.
        column: the name of this column.
        paths: names of the images when the data set was made; empty if unknown.
    """

    title: str
    images: datasets.Dataset
    column: str
    paths: Texts

    def name(self, row: int) -> str:
        """Return the path of an image that is a file, or its number."""
        path = self.paths[row]
        return path if path.startswith(os.sep) else f"{self.title}/{row}" + (f"/{path}" if path else "")

    def read(self, row: int, options: ReadOptions = DEFAULT_READING) -> bytes:
        """Return an image's bytes.

        Raises:
            InputError: there is none, or its file cannot be read.
        """
        stored = self._stored(row)
        if data := stored.get("bytes"):
            return bytes(data)
        return read_regular_file(_path(stored), options)

    def _stored(self, row: int) -> Mapping[str, Any]:
        return self.images[row][self.column] or {}


def _path(stored: Mapping[str, Any]) -> str:
    if not stored.get("path"):
        raise InputError(ErrorKind.EMPTY, "no image is stored", hint="the data set lacks it")
    return str(stored["path"])


def open_hugging_face(location: str, *, offline: bool = False) -> Dataset:
    """Return the images of `hfds/NAME`: a data set on the hub, a folder that `datasets` reads, or a Parquet file.

    Raises:
        DataError: `datasets` is not installed or cannot load it, or it has no columns of images and labels.
    """
    name = location[len(PREFIX) :]
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        message = f"{printable(location)} needs another package"
        raise DataError(message, hint=how_to_install("hfds")) from error
    if not (offline or os.path.exists(expand_user(name))):
        hub_environment.connect()
    try:
        with quiet(), _no_bars():
            found = _load(name, offline=offline)
    # It raises whatever its builders, the hub's client and the disk raise.
    except Exception as error:
        message = f"cannot load the data set {printable(name)}: {printable(first_line(error))}"
        raise DataError(
            message, hint="it is the name of one on the hub, or a folder that datasets reads"
        ) from error
    return _dataset(location, found)


def _load(name: str, *, offline: bool) -> Mapping[str, datasets.Dataset]:
    import datasets

    path = str(expand_user(name))
    if os.path.isfile(path) and path.endswith(PARQUET):
        return _by_split(datasets.load_dataset("parquet", data_files=path))
    if any(os.path.isfile(os.path.join(path, file)) for file in _SAVED):
        return _by_split(datasets.load_from_disk(path))
    if os.path.isdir(path):
        return _by_split(datasets.load_dataset(path))
    with _offline(offline):
        return _by_split(datasets.load_dataset(name))


def _by_split(found: Any) -> Mapping[str, datasets.Dataset]:
    """Return the splits; a data set without splits is one."""
    return found if isinstance(found, dict) else {str(found.split or "train"): found}


def _dataset(location: str, found: Mapping[str, datasets.Dataset]) -> Dataset:
    import numpy as np

    named = {SPLIT_NAMES[name.lower()]: name for name in found if name.lower() in SPLIT_NAMES}
    if not named:
        message = f"{printable(location)} has no split train, val or test, only {shown(found)}"
        raise DataError(message, hint="the hub's page of the data set shows its splits")
    parts = {split: found[named[split]] for split in ORDER if split in named}
    image, label = _columns(location, next(iter(parts.values())))
    try:
        names = _class_names(list(parts.values()), label)
        numbered, classes = _labels([part.data.column(label) for part in parts.values()], names)
    except ValueError as error:
        message = f"{printable(location)}, column {printable(label)}: {error}"
        raise DataError(message, hint="each image needs one label, a text or an integer") from error
    splits, notes = {}, []
    for (split, part), labels in zip(parts.items(), numbered, strict=True):
        unlabelled = np.flatnonzero(labels < 0)
        if len(unlabelled) == len(labels) > 0:  # as of tests whose labels are kept secret
            notes.append(f"{split} is left out: its {len(labels):,} images have no labels")
        elif len(unlabelled):
            message = f"{printable(location)}, {split}, row {unlabelled[0] + 1:,}: no label"
            raise DataError(message, hint=f"{len(unlabelled):,} of {len(labels):,} images have none: remove them")
        if len(rows := np.flatnonzero(labels >= 0)):
            store = _store(f"{location}/{named[split]}", part, image)
            splits[split] = Examples(store, rows, labels[rows], classes)
    if others := [name for name in found if name not in named.values()]:
        notes.append(f"other splits are left out: {shown(others)}")
    if not splits:
        raise DataError(f"{printable(location)} has no labelled images", hint="another data set may have")
    return Dataset(location, splits, tuple(notes), top=location)


def _columns(location: str, part: datasets.Dataset) -> tuple[str, str]:
    """Return the names of the columns of images and of labels.

    Raises:
        DataError: there are no such columns.
    """
    import datasets

    images = [name for name, kind in part.features.items() if isinstance(kind, datasets.Image)]
    named = [name for name in part.features if name.lower() in (*LABELS, "labels", "fine_label")]
    classes = [name for name, kind in part.features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = [name for name in classes if name in named] or classes or named
    if not images or not labels:
        what = "images" if not images else "labels"
        message = f"{printable(location)} has no column of {what}, only {shown(part.features, len(part.features))}"
        raise DataError(message, hint="it needs a column of images and one of classes")
    return images[0], labels[0]


def _class_names(parts: Sequence[datasets.Dataset], column: str) -> tuple[str, ...] | None:
    """Return the names of numbered classes; None if the labels are names themselves.

    Raises:
        ValueError: the splits have different classes.
    """
    import datasets

    kinds = [part.features.get(column) for part in parts]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError("the splits do not have the same classes")
    return tuple(kinds[0].names) if isinstance(kinds[0], datasets.ClassLabel) else None


def _labels(
    columns: Sequence[Any], names: tuple[str, ...] | None
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Return the index of each image's class, -1 for none, split by split; and the names of the classes.

    Raises:
        ValueError: a label is neither a text nor an integer, or an empty text.
    """
    import numpy as np

    if names is not None:
        return [column.fill_null(-1).to_numpy().astype(np.int64) for column in columns], names
    labeller = Labeller()
    found = []
    for column in columns:
        labels = np.full(len(column), -1, np.int64)
        known = [row for row, value in enumerate(column) if value.is_valid]
        start = len(labeller)
        for row in known:
            labeller.append(label_text(column[row].as_py()))
        found.append((labels, known, slice(start, len(labeller))))
    numbers, classes = labeller.build()
    for labels, known, part in found:
        labels[known] = numbers[part]
    return [labels for labels, _, _ in found], classes


def _store(title: str, part: datasets.Dataset, column: str) -> HuggingFaceImages:
    import datasets
    import pyarrow.compute as pc

    paths = TextsBuilder()
    paths.extend(path or "" for path in pc.struct_field(part.data.column(column), "path").to_pylist())
    images = part.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return HuggingFaceImages(title, images, column, paths.build())


@contextmanager
def _no_bars() -> Iterator[None]:
    import datasets

    shown_before = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown_before:
            datasets.enable_progress_bars()


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
