"""Folders of images: a folder for each class, with or without a folder for each split above them.

Links to the folders of splits and classes are followed: large data sets are kept on other disks. Links further
down are not: they may lead in circles.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from resnetd_cli.datasets.examples import ALL, TEST, TRAIN, VAL, Dataset, Examples
from resnetd_cli.datasets.first_few import Few, shown
from resnetd_cli.datasets.image_files import Files
from resnetd_cli.datasets.packed_texts import TextsBuilder
from resnetd_cli.errors import DataError
from resnetd_cli.pipeline.sources.folders import Skipped, Walker, is_folder, is_named_like_image, listed
from resnetd_cli.system.escaping import printable, shell_word
from resnetd_cli.system.files import expand_user
from resnetd_cli.system.wording import system_reason

SPLIT_NAMES = {"train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
"""Usual names of the splits, in lower case."""
_LAYOUT = "lay the images out as DIR/CLASS/IMAGE, or DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE"


def open_folder(location: str) -> Dataset:
    """Return the images of `DIR/SPLIT/CLASS/` or `DIR/CLASS/`.

    Raises:
        DataError: there is no such folder, a folder in it cannot be read, or no folder has images in it.
    """
    top = str(expand_user(location))
    if not os.path.isdir(top):
        raise DataError(f"no folder {printable(location)}", hint="name one with a folder of images for each class")
    listing = _Listing(top)
    splits = listing.splits()
    found = {split: classes for split, folder in splits.items() if (classes := listing.classes(folder))}
    if not found:
        raise DataError(f"{printable(location)} has no folders with images in them", hint=_LAYOUT)
    return Dataset(location, _examples(top, found), notes=tuple(listing.notes()), top=top)


def _examples(top: str, found: Mapping[str, Mapping[str, TextsBuilder]]) -> dict[str, Examples]:
    import numpy as np

    names = tuple(sorted({name for by_class in found.values() for name in by_class}))
    index = {name: position for position, name in enumerate(names)}
    splits = {}
    for split, by_class in found.items():
        paths = TextsBuilder()
        for builder in by_class.values():
            paths.extend(builder.build())
        labels = np.repeat([index[name] for name in by_class], [len(builder) for builder in by_class.values()])
        splits[split] = Examples(Files(top, paths.build()), np.arange(len(paths)), labels, names)
    return splits


class _Others(Skipped):
    """What is skipped in the class folders, with the first few names."""

    def __init__(self, top: str) -> None:
        super().__init__()
        self._top = top
        self.named, self.linked = Few(), Few()

    def add_file(self, path: str) -> None:
        """Record a file that is not an image."""
        super().add_file(path)
        self.named.add(_relative(path, self._top))

    def add_link(self, path: str) -> None:
        """Record a link to a folder."""
        super().add_link(path)
        self.linked.add(_relative(path, self._top))


class _Listing:
    """The content of a folder, and what is left out of it."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._others = _Others(top)
        self._loose, self._beside, self._empty, self._runs = (Few() for _ in range(4))

    def splits(self) -> dict[str, str]:
        """Return the folder of each split, or the one that holds the classes.

        Raises:
            DataError: two folders are the same split, or split and class folders are mixed.
        """
        names = _subfolders(self._top)
        # A class may have the name of a split: a split's folder holds folders.
        found = [name for name in names if name.lower() in SPLIT_NAMES and _subfolders(self._join(name))]
        if not found:
            return {ALL: self._top}
        splits: dict[str, str] = {}
        for name in found:
            if (other := splits.setdefault(SPLIT_NAMES[name.lower()], name)) != name:
                message = f"{shown([other, name])} are folders of the same split"
                raise DataError(message, hint=f"keep one of them in {shell_word(self._top)}")
        beside = [name for name in names if name not in found and not _is_run(self._join(name))]
        if TRAIN not in splits and any(self._has_images(name) for name in beside):
            message = f"folders of splits ({shown(found)}) and of classes ({shown(beside)}) lie side by side"
            raise DataError(message, hint="move the classes into a folder train")
        for name in beside:
            self._beside.add(name)
        self._note_loose(self._top)
        return {split: self._join(splits[split]) for split in (TRAIN, VAL, TEST) if split in splits}

    def classes(self, folder: str) -> dict[str, TextsBuilder]:
        """Return the paths of the images in each class folder that has any, relative to the top."""
        self._note_loose(folder)
        classes = {}
        for name in _subfolders(folder):
            if _is_run(os.path.join(folder, name)):
                self._runs.add(self._relative(os.path.join(folder, name)))
                continue
            paths = TextsBuilder()
            paths.extend(self._relative(path) for path in self._images(os.path.join(folder, name)))
            if paths:
                classes[name] = paths
            else:
                self._empty.add(self._relative(os.path.join(folder, name)))
        return classes

    def notes(self) -> Iterator[str]:
        """Yield what was left out."""
        left_out = {
            "folders beside the splits are left out": self._beside,
            "folders without images": self._empty,
            "folders of training runs are left out": self._runs,
            "images in no class folder are left out": self._loose,
            "files whose names do not end like an image's are left out": self._others.named,
            "links to folders below the classes are not followed": self._others.linked,
        }
        yield from (f"{what}: {few}" for what, few in left_out.items() if few.count)

    def _join(self, name: str) -> str:
        return os.path.join(self._top, name)

    def _relative(self, path: str) -> str:
        return _relative(path, self._top)

    def _has_images(self, name: str) -> bool:
        return next(_Listing(self._top)._images(self._join(name)), None) is not None

    def _note_loose(self, folder: str) -> None:
        for entry in _entries(folder):
            if not is_folder(entry) and is_named_like_image(entry.name):
                self._loose.add(self._relative(entry.path))

    def _images(self, folder: str) -> Iterator[str]:
        runs: dict[str, bool] = {}
        for path, error in Walker(skipped=self._others).images(folder):
            if error is not None:
                raise _unlisted(path, error) from error
            beside, _ = os.path.split(path)
            if beside not in runs:
                runs[beside] = _is_run(beside)
                if runs[beside]:
                    self._runs.add(self._relative(beside))
            if not runs[beside]:
                yield path


def _is_run(folder: str) -> bool:
    """Tell whether `finetune` or `train` wrote a folder: its curves are an image, but not of a class."""
    if os.path.isfile(os.path.join(folder, "seeds.json")):  # runs of several seeds, ended or not
        return os.path.isdir(os.path.join(folder, "seeds"))
    return all(os.path.isfile(os.path.join(folder, name)) for name in ("run.json", "recipe.yaml"))


def _relative(path: str, top: str) -> str:
    return path.removeprefix(top).lstrip(os.sep)


def _subfolders(folder: str) -> list[str]:
    return [entry.name for entry in _entries(folder) if is_folder(entry)]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted, without hidden ones."""
    try:
        return listed(folder)[0]
    except OSError as error:
        raise _unlisted(folder, error) from error


def _unlisted(folder: str, error: OSError) -> DataError:
    message = f"cannot read the folder {printable(folder)}: {system_reason(error)}"
    return DataError(message, hint=f"look at it: ls -ld {shell_word(folder)}")
