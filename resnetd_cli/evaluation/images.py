"""The labelled images that a model is evaluated on: which split, and which class of the model each image has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from resnetd_cli.class_names import matching
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.datasets.examples import ALL, TEST, TRAIN, VAL, Dataset, Examples
from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.errors import DataError, Reason, UsageError
from resnetd_cli.pipeline.sources.expand import Source, expand
from resnetd_cli.pipeline.sources.folders import Walker
from resnetd_cli.pipeline.sources.reading import DEFAULT_READING, ReadOptions
from resnetd_cli.system.files import expand_user
from resnetd_cli.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLITS = (TEST, VAL, ALL, TRAIN)
"""The default is the first of these that the data set has."""
NO_LABEL = -1


@dataclass(frozen=True)
class LabelledImages:
    """The N labelled images of an evaluation.

    Attributes:
        location: what the user named.
        split: the split, or `all`.
        parts: the images.
        labels: the index of each image's class in `classes`, -1 for none: int64, shape (N,).
        classes: the names that the data set gives its classes; none if the images are not in class folders.
        notes: lines for users about what was left out.
        trained_on: how many images were left out because a model was trained on them.
        unknown: how many images were left out because a model lacks their class.
        reading: limits on reading each image.
    """

    location: str
    split: str
    parts: tuple[Examples, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    trained_on: int = 0
    unknown: int = 0
    reading: ReadOptions = DEFAULT_READING

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: NDArray[np.bool_]) -> LabelledImages:
        """Return the chosen images, in order.

        Args:
            kept: which to choose, shape (N,).
        """
        import numpy as np

        ends = np.cumsum([len(part) for part in self.parts])[:-1]
        pairs = zip(self.parts, np.split(kept, ends), strict=True)
        parts = tuple(part.select(np.flatnonzero(of_part)) for part, of_part in pairs)
        return replace(self, parts=parts, labels=self.labels[kept])

    def known_to(self, models: Sequence[ClassNames]) -> tuple[LabelledImages, list[str]]:
        """Return the images whose classes all the models have, and notes on the images left out.

        Raises:
            DataError: there are none.
        """
        import numpy as np

        present = [self.classes[label] for label in self._present()]
        strangers = dict.fromkeys(name for names in models for name in matching.strangers(present, names))
        if not strangers:
            return self, []
        lacking = np.array([*(name in strangers for name in self.classes), False])  # the last stands for no label
        kept, told = ~lacking[self.labels], matching.some_of(list(strangers))
        if not kept.any():
            message = f"{self.location} has no image of a class that the model has: {told}"
            raise DataError(message, reason=Reason.NO_CLASS_KNOWN)
        left_out = int((~kept).sum())
        verb, model = "is" if left_out == 1 else "are", "the model" if len(models) == 1 else "a model"
        total = counted(len(self), "image", ",")
        note = f"{left_out:,} of {total} {verb} left out, of classes that {model} lacks: {told}"
        return replace(self.select(kept), unknown=left_out), [note]

    def name(self, position: int) -> str:
        """Return the name of the image at a position, from 0 to N - 1."""
        for part in self.parts:
            if position < len(part):
                return part.name(position)
            position -= len(part)
        raise IndexError(position)

    def names(self) -> Iterator[str]:
        """Yield the name of each image."""
        return (part.name(position) for part in self.parts for position in range(len(part)))

    def sources(self) -> Iterator[Source]:
        """Yield the images, in order."""
        for part in self.parts:
            for position in range(len(part)):
                yield Source(part.name(position), partial(part.read, position, self.reading))

    def targets(self, names: ClassNames) -> NDArray[np.int64]:
        """Return the model's index for the class of each image; -1 for none: int64, shape (N,).

        Raises:
            DataError: see `matching.match`.
        """
        import numpy as np

        index = np.full(len(self.classes) + 1, NO_LABEL)  # the last stands for no label
        index[self._present()] = self._match(names).indices
        return index[self.labels]

    def note_on(self, names: ClassNames) -> str | None:
        """Return a line for users on how the classes were matched with a model's, if they should know.

        Raises:
            DataError: see `matching.match`.
        """
        found = self._match(names)
        classes = [self.classes[label] for label in self._present()]
        return matching.in_words(classes, found.indices, names) if found.by_index else None

    def _match(self, names: ClassNames) -> matching.Match:
        present = [self.classes[label] for label in self._present()]
        return matching.match(present, names)

    def _present(self) -> NDArray[np.int64]:
        import numpy as np

        return np.unique(self.labels[self.labels != NO_LABEL])


def open_images(
    location: str,
    split: str | None = None,
    *,
    real: bool = False,
    offline: bool = False,
    reading: ReadOptions = DEFAULT_READING,
) -> LabelledImages:
    """Return the labelled images of a DIR.

    Args:
        location: as `open_dataset` takes it.
        split: one of its splits, or `all`; by default the first of test, val, all, train that it has.
        real: the images need not be in class folders, as real labels say what they show.
        offline: download nothing from the hub.
        reading: limits on reading each image.

    Raises:
        DataError: see `open_dataset`; or the split is empty.
        UsageError: there is no such split.
    """
    try:
        dataset = open_dataset(location, offline=offline)
    except DataError:
        images = _flat(location, reading) if real and split in (None, ALL) else None
        if images is None:
            raise
        return replace(images, reading=reading)
    return replace(_choose(dataset, split), reading=reading)


def _choose(dataset: Dataset, split: str | None) -> LabelledImages:
    import numpy as np

    there = dataset.splits
    name = split or next(name for name in SPLITS if name in there)
    if name != ALL and name not in there:
        message = f"{dataset.location} has no split {name}"
        if set(there) == {ALL}:
            raise UsageError(message, reason=Reason.NO_SPLITS)
        raise UsageError(message, hint=f"available: {', '.join(there)}")
    parts = (there[name],) if name in there else tuple(there.values())
    labels = np.concatenate([part.labels for part in parts])
    if not len(labels):
        raise DataError(f"{dataset.location} has no images in {name}", reason=Reason.EMPTY_SPLIT)
    return LabelledImages(dataset.location, name, parts, labels, dataset.classes, dataset.notes)


@dataclass(frozen=True)
class _Sources:
    """Sources as the store of a data set."""

    found: tuple[Source, ...]

    def name(self, row: int) -> str:
        return self.found[row].name

    def read(self, row: int, options: ReadOptions = DEFAULT_READING) -> bytes:
        return self.found[row].read()  # with the bounds it was made with


def _flat(location: str, reading: ReadOptions) -> LabelledImages | None:
    """Return the images of a folder that has no class folders."""
    import numpy as np

    folder = str(expand_user(location))
    if not os.path.isdir(folder):
        return None
    walker = Walker()
    found = tuple(expand([folder], reading, walker))
    labels = np.full(len(found), NO_LABEL)
    parts = (Examples(_Sources(found), np.arange(len(found)), labels, ()),)
    return LabelledImages(location, ALL, parts, labels, (), tuple(note.text for note in walker.notes()))
