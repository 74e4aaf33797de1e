"""Tar files with an image and its label side by side, as WebDataset writes them and timm's `wds/` reads them.

`a/0001.jpg` belongs with `a/0001.cls`, which holds the class's number or name, or with `a/0001.json`, whose
`label` does. The tars are read once, to find the offset of each image; then any image can be read on its own.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.datasets.class_labels import Labeller
from resnetd_cli.datasets.examples import ALL, ORDER, Dataset, Examples
from resnetd_cli.datasets.first_few import Few, shown
from resnetd_cli.datasets.folders import SPLIT_NAMES
from resnetd_cli.datasets.packed_texts import TextsBuilder
from resnetd_cli.datasets.tar_samples import Shards, image_of, label_of, samples
from resnetd_cli.errors import DataError, first_line
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.files import expand_user

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREFIX = "wds/"
_INFO, _CLASS_NAMES = "_info.json", "classnames.txt"
_MAX_INFO = 2**26
"""Bytes of a file with splits or names of classes."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_MAX_SHARDS = 1_000_000
_LAYOUT = "each image needs its label beside it, as in 0001.jpg and 0001.cls"


def open_shards(location: str) -> Dataset:
    """Return the images in the tar files that `wds/FOLDER`, `wds/FILE.tar` or `wds/part-{000..123}.tar` names.

    The splits come from the folder's `_info.json`, or from the names of the files. The names of numbered classes
    come from `_info.json`, or from `classnames.txt` with one a line.

    Raises:
        DataError: there are no tar files, one of them is damaged or compressed, or there are no images in them.
    """
    place = str(expand_user(location[len(PREFIX) :]))
    folder = place if os.path.isdir(place) else str(Path(place).parent)
    info = _info(folder)
    splits = _from_info(folder, info) if folder == place and "splits" in info else _from_names(place)
    if not splits:
        raise DataError(
            f"no tar files in {printable(place)}", hint="wds/ takes a folder with .tar files, or one of them"
        )
    return _Index(location, folder).dataset(splits, _class_names(folder, info))


class _Index:
    """The offsets and labels of the images, tar by tar."""

    def __init__(self, location: str, folder: str) -> None:
        self._location, self._folder = location, folder
        self._members, self._labels = TextsBuilder(), Labeller()
        self._of, self._offsets, self._sizes = array("i"), array("q"), array("q")
        self._unlabelled = Few()
        self._without_labels: set[str] = set()
        self._notes: list[str] = []

    def dataset(self, splits: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> Dataset:
        """Read the tars' headers.

        Raises:
            DataError: one of them is damaged, or they hold no labelled images.
        """
        import numpy as np

        ends, tars = [], [tar for split in splits.values() for tar in split]
        number = 0
        for name, split in splits.items():
            before = len(self._members)
            for tar in split:
                self._add(number, tar)
                number += 1
            self._check_labelled(name, len(self._members) - before)
            ends.append(len(self._members))
        if not ends[-1]:
            raise DataError(f"{printable(self._location)} has no labelled images", hint=_LAYOUT)
        store = Shards(
            tuple(tars),
            self._members.build(),
            np.array(self._of, np.int32),
            np.array(self._offsets, np.int64),
            np.array(self._sizes, np.int64),
        )
        labels, names = self._labels.build()
        if class_names:
            labels, names = self._named(labels, names, class_names)
        rows = np.split(np.arange(ends[-1]), ends[:-1])
        found = {
            split: Examples(store, at, labels[at], names)
            for split, at in zip(splits, rows, strict=True)
            if len(at) or split not in self._without_labels
        }
        return Dataset(self._location, found, tuple(self._notes), top=self._folder)

    def _check_labelled(self, split: str, labelled: int) -> None:
        """Check that either all images of a split have labels or none: those of some test splits are secret.

        Raises:
            DataError: some have.
        """
        if self._unlabelled.count and labelled:
            raise DataError(f"images without a label beside others with labels: {self._unlabelled}", hint=_LAYOUT)
        if self._unlabelled.count:
            self._without_labels.add(split)
            self._notes.append(f"{split} is left out: its {self._unlabelled.count:,} images have no labels")
        self._unlabelled = Few()

    def _named(
        self, labels: NDArray[np.int64], numbers: tuple[str, ...], names: Sequence[str]
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        import numpy as np

        known = {name: position for position, name in enumerate(names)}
        by_name = all(number in known for number in numbers)
        unknown = [number for number in numbers if not number.isdecimal() or int(number) >= len(names)]
        if by_name and (unknown or all(known[number] == int(number) for number in numbers)):
            return np.array([known[number] for number in numbers], np.int64)[labels], tuple(names)
        if by_name:
            message = f"labels that are both names of classes and numbers of others: {shown(numbers)}"
            raise DataError(message, hint=f"leave out {_CLASS_NAMES}, or number the classes from 0")
        if unknown:
            message = f"labels for which {len(names):,} class names have no place: {shown(unknown)}"
            raise DataError(message, hint=f"look at {_CLASS_NAMES} and {_INFO}: the first name is that of label 0")
        return np.array([int(number) for number in numbers], np.int64)[labels], tuple(names)

    def _add(self, number: int, tar: str) -> None:
        for members in samples(tar):
            image, label = image_of(members), label_of(members, tar)
            if image is None:
                if label is not None:
                    names = ", ".join(printable(member.name) for member in members.values())
                    raise DataError(f"{printable(tar)}: a label without an image: {names[:200]}", hint=_LAYOUT)
                continue
            if label is None:
                self._unlabelled.add(f"{Path(tar).name}/{image.name}")
                continue
            self._members.append(image.name)
            self._labels.append(label)
            self._of.append(number)
            self._offsets.append(image.offset)
            self._sizes.append(image.size)


def _info(folder: str) -> Mapping[str, Any]:
    path = Path(folder, _INFO)
    try:
        info = json.loads(_bounded(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else first_line(error)
        message = f"cannot read {printable(str(path))}: {reason}"
        raise DataError(message, hint="it is JSON, with the splits and the tar files of each") from error
    return info if isinstance(info, dict) else {}


def _from_info(folder: str, info: Mapping[str, Any]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    try:
        for name, split in info["splits"].items():
            if (known := SPLIT_NAMES.get(name.lower())) is not None:
                splits[known] = [os.path.join(folder, filename) for filename in split["filenames"]]
    except (TypeError, KeyError, AttributeError) as error:
        message = f"{printable(os.path.join(folder, _INFO))} does not tell the tar files of each split"
        raise DataError(message, hint='it holds {"splits": {"train": {"filenames": [...]}}}') from error
    return _ordered(splits)


def _from_names(place: str) -> dict[str, list[str]]:
    if os.path.isdir(place):
        tars = sorted(entry.path for entry in os.scandir(place) if entry.name.endswith(".tar"))
    else:
        tars = _expanded(place)
    splits: dict[str, list[str]] = {}
    for tar in tars:
        splits.setdefault(_split_of(Path(tar).name), []).append(tar)
    if ALL in splits and len(splits) > 1:
        message = f"tar files with and without a split in their names: {shown(splits[ALL])}"
        raise DataError(message, hint="call them train-0000.tar, val-0000.tar, ...")
    return _ordered(splits)


def _split_of(name: str) -> str:
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), ALL)


def _ordered(splits: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {split: splits[split] for split in ORDER if split in splits}


def _expanded(pattern: str) -> list[str]:
    """Expand `part-{000..123}.tar` and `{a,b}.tar`."""
    parts = _BRACES.split(pattern)
    choices = [[part] if at % 2 == 0 else _choices(part) for at, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MAX_SHARDS:
        raise DataError(f"{printable(pattern)} stands for {count:,} files", hint="name the folder they are in")
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inside: str) -> list[str]:
    first, dots, last = inside.partition("..")
    if dots and first.isdecimal() and last.isdecimal() and int(last) - int(first) < _MAX_SHARDS:
        return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return inside.split(",")


def _class_names(folder: str, info: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes 0, 1, ...; empty if they have none."""
    if isinstance(names := info.get("class_names"), list) and all(isinstance(name, str) for name in names):
        return names
    try:
        lines = _bounded(Path(folder, _CLASS_NAMES)).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        message = f"cannot read {printable(os.path.join(folder, _CLASS_NAMES))}: {first_line(error)}"
        raise DataError(message, hint="it holds the name of a class on each line") from error
    return [line.strip() for line in lines if line.strip()]


def _bounded(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as file:
        data = file.read(_MAX_INFO + 1)
    if len(data) > _MAX_INFO:
        raise ValueError(f"more than {_MAX_INFO:,} bytes")
    return data
