"""Labelled images: `Examples`, a `Dataset` of them in splits, and the `Store` that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from resnetd_cli.pipeline.sources.reading import DEFAULT_READING, ReadOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN, VAL, TEST, ALL = "train", "val", "test", "all"
"""The names of splits; `all` is for images without a split."""
ORDER = (TRAIN, VAL, TEST, ALL)


class Store(Protocol):
    """Reads images by their numbers. Can be pickled, for worker processes."""

    def name(self, row: int) -> str:
        """Return what the user calls an image."""
        ...

    def read(self, row: int, options: ReadOptions = DEFAULT_READING) -> bytes:
        """Return its bytes.

        Raises:
            InputError: it cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False)
class Examples:
    """N labelled images, none of them read yet.

    Attributes:
        store: reads them.
        rows: their numbers in the store: int64, shape (N,).
        labels: the index of each one's class in `classes`: int64, shape (N,).
        classes: the names of the classes, all of the data set's, in order.
        marks: of their contents, see `content.mark_of`: uint8, shape (N, 16). None: no survey has looked at them.
        groups: the index of each one's group in `group_names`, -1 for none: int64, shape (N,). None: there are no
            groups.
        group_names: the names of the groups, all of the data set's.
        clusters: numbers, the same for images that stay on one side of a split: int64, shape (N,). They are of one
            group, or copies or near copies of each other. None: no survey has looked at them.
    """

    store: Store
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    marks: NDArray[np.uint8] | None = None
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    clusters: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, position: int) -> str:
        """Return what the user calls the image at a position, from 0 to N - 1."""
        return self.store.name(int(self.rows[position]))

    def read(self, position: int, options: ReadOptions = DEFAULT_READING) -> bytes:
        """Return the bytes of the image at a position, from 0 to N - 1.

        Raises:
            InputError: it cannot be read.
        """
        return self.store.read(int(self.rows[position]), options)

    def class_name(self, position: int) -> str:
        """Return the name of the class of the image at a position."""
        return self.classes[int(self.labels[position])]

    def select(self, positions: Sequence[int] | NDArray[np.int64]) -> Examples:
        """Return the examples at some positions, in that order."""
        import numpy as np

        chosen = np.asarray(positions, np.int64)
        return replace(
            self,
            rows=self.rows[chosen],
            labels=self.labels[chosen],
            marks=None if self.marks is None else self.marks[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            clusters=None if self.clusters is None else self.clusters[chosen],
        )

    def without(self, positions: Sequence[int] | NDArray[np.int64]) -> Examples:
        """Return all but those at some positions."""
        import numpy as np

        return self.select(np.delete(np.arange(len(self)), np.asarray(positions, np.int64)))

    def limited_to(self, classes: tuple[str, ...]) -> Examples:
        """Return the examples of some classes, which become the only classes, in this order."""
        import numpy as np

        index = {name: position for position, name in enumerate(classes)}
        moved = np.array([index.get(name, -1) for name in self.classes], np.int64)
        kept = self.select(np.flatnonzero(moved[self.labels] >= 0))
        return replace(kept, labels=moved[kept.labels], classes=classes)

    def group_name(self, position: int) -> str | None:
        """Return the name of the group of the image at a position; None if it has no group."""
        group = -1 if self.groups is None else int(self.groups[position])
        return None if group < 0 else self.group_names[group]

    def known_marks(self) -> NDArray[np.uint8]:
        """Return `marks`, after a survey."""
        assert self.marks is not None
        return self.marks

    def to_read(self) -> Examples:
        """Return only what is needed to read the images, which is little to send to other processes."""
        return replace(self, marks=None, groups=None, group_names=(), clusters=None)

    def counts(self) -> NDArray[np.int64]:
        """Return how many images each class has: int64, shape (C,)."""
        import numpy as np

        return np.bincount(self.labels, minlength=len(self.classes))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in splits, all with the same classes.

    Attributes:
        location: what the user named.
        splits: by name, of `train`, `val` and `test`; or `all` alone.
        notes: what was left out, a line for the user each.
        top: prefix of the images' names that depends on the place of the data set only, such as its folder.
    """

    location: str
    splits: Mapping[str, Examples]
    notes: tuple[str, ...] = ()
    top: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return next(iter(self.splits.values())).classes

    def place(self, name: str) -> str:
        """Return an image's name without `top`."""
        below = name.removeprefix(self.top)
        return below.lstrip("/\\") if self.top and below != name else name
