"""Folders of images, a folder for each class, with or without one for each split above them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from resnetd_cli.datasets.examples import ALL, TEST, TRAIN, VAL, Dataset, Examples
from resnetd_cli.errors import DataError
from resnetd_cli.files import expand_user
from resnetd_cli.reading import DEFAULT_READING, read_file
from resnetd_cli.sources import image_extensions

_SPLIT_FOLDERS = {"train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}


@dataclass(frozen=True)
class Files:
    """Images that are files."""

    paths: tuple[str, ...]

    def name(self, row: int) -> str:
        """Return an image's path."""
        return self.paths[row]

    def read(self, row: int) -> bytes:
        """Return a file's bytes.

        Raises:
            InputError: it cannot be read.
        """
        return read_file(self.paths[row], DEFAULT_READING)


def open_folder(location: str) -> Dataset:
    """Return the images of `DIR/SPLIT/CLASS/` or `DIR/CLASS/`.

    Raises:
        DataError: there is no such folder, or there are no folders with images in it.
    """
    top = str(expand_user(location))
    if not os.path.isdir(top):
        raise DataError(f"no folder {location}", hint="name a folder with a folder of images for each class")
    folders = {_SPLIT_FOLDERS[name.lower()]: name for name in _subfolders(top) if name.lower() in _SPLIT_FOLDERS}
    tops = {split: os.path.join(top, name) for split, name in folders.items()} if TRAIN in folders else {ALL: top}
    return _dataset(location, {split: dict(_images_by_class(folder)) for split, folder in tops.items()})


def _dataset(location: str, found: dict[str, dict[str, list[str]]]) -> Dataset:
    import numpy as np

    classes = tuple(sorted({name for by_class in found.values() for name in by_class}))
    if not classes:
        raise DataError(f"{location} has no folders with images in them", hint="lay them out as DIR/CLASS/IMAGE")
    index = {name: position for position, name in enumerate(classes)}
    splits = {}
    for split, by_class in found.items():
        paths = tuple(path for paths in by_class.values() for path in paths)
        labels = np.array([index[name] for name, paths in by_class.items() for _ in paths], np.int64)
        splits[split] = Examples(Files(paths), np.arange(len(paths)), labels, classes)
    return Dataset(location, splits)


def _subfolders(folder: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _images_by_class(folder: str) -> Iterator[tuple[str, list[str]]]:
    for name in _subfolders(folder):
        if paths := sorted(_images(os.path.join(folder, name))):
            yield name, paths


def _images(folder: str) -> Iterator[str]:
    for top, _, files in os.walk(folder):
        for file in files:
            if os.path.splitext(file)[1].lower() in image_extensions() and not file.startswith("."):
                yield os.path.join(top, file)
