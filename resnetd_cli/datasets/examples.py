"""The types of labelled images, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN, VAL, TEST, ALL = "train", "val", "test", "all"
"""The names of splits; `all` is that of images which lie in none."""


class Store(Protocol):
    """Where images lie, each under a number. Can be pickled, for processes that load images."""

    def name(self, row: int) -> str:
        """Return what the user calls an image."""
        ...

    def read(self, row: int) -> bytes:
        """Return its bytes.

        Raises:
            InputError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Examples:
    """N labelled images, none of them read yet.

    Attributes:
        store: where they lie.
        rows: their numbers in the store: int64, shape (N,).
        labels: the index of each one's class in `classes`: int64, shape (N,).
        classes: the names of the classes, all of the data set's, in order.
    """

    store: Store
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, position: int) -> str:
        """Return what the user calls the image at a position, from 0 to N - 1."""
        return self.store.name(int(self.rows[position]))

    def read(self, position: int) -> bytes:
        """Return the bytes of the image at a position, from 0 to N - 1.

        Raises:
            InputError: it cannot be read.
        """
        return self.store.read(int(self.rows[position]))

    def class_name(self, position: int) -> str:
        """Return the name of the class of the image at a position."""
        return self.classes[int(self.labels[position])]

    def select(self, positions: Sequence[int] | NDArray[np.int64]) -> Examples:
        """Return those at some positions, in that order."""
        import numpy as np

        chosen = np.asarray(positions, np.int64)
        return replace(self, rows=self.rows[chosen], labels=self.labels[chosen])

    def counts(self) -> NDArray[np.int64]:
        """Return how many images each class has: int64, shape (C,)."""
        import numpy as np

        return np.bincount(self.labels, minlength=len(self.classes))


@dataclass(frozen=True)
class Dataset:
    """Labelled images in splits, all with the same classes.

    Attributes:
        location: what the user named.
        splits: by name, of `train`, `val` and `test`; or `all` alone.
    """

    location: str
    splits: Mapping[str, Examples]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return next(iter(self.splits.values())).classes
