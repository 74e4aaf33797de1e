"""Which images are trained on, which choose the best epoch, and which test the result."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnetd_cli.content import numbered
from resnetd_cli.datasets.examples import ALL, TEST, TRAIN, VAL, Dataset, Examples
from resnetd_cli.datasets.texts import shown
from resnetd_cli.errors import DataError
from resnetd_cli.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Divided:
    """The images by use, all with the classes of `train`.

    Attributes:
        train: to learn from.
        val: to choose by while training; None: nothing is chosen.
        test: to measure at the end; None: there are none.
        notes: what users should know of what was left out, a line each.
    """

    train: Examples
    val: Examples | None
    test: Examples | None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Examples]:
        """Those that there are, by name."""
        parts = {TRAIN: self.train, VAL: self.val, TEST: self.test}
        return {name: part for name, part in parts.items() if part is not None}


DEFAULT_FRACTION = 0.2
"""Of each class, for val."""


def divide(dataset: Dataset, *, fraction: float = DEFAULT_FRACTION, seed: int = 0) -> Divided:
    """Return the splits that a data set has, or else split each class of it.

    Where there is neither val nor test, a part of each class becomes val: at least one image of each class that
    has two, and copies, where a survey has found which they are, all on one side. It depends on the images' names
    and the seed alone, not on their order.

    Args:
        dataset: best one that was surveyed.
        fraction: of each class, for val.
        seed: another gives another split.

    Raises:
        DataError: there is no train, or it has images of fewer than two classes.
    """
    given = dict(dataset.splits)
    whole = given.pop(TRAIN, None) or given.pop(ALL, None)
    if whole is None:
        message = f"{printable(dataset.location)} has no images to train on, only {shown(given)}"
        raise DataError(message, hint="put them into a folder train, or leave out the folders of splits")
    if not given:
        held_out = _held_out(dataset, whole, fraction, seed)
        given[VAL], whole = whole.select(held_out.nonzero()[0]), whole.select((~held_out).nonzero()[0])
    classes = tuple(name for name, count in zip(whole.classes, whole.counts(), strict=True) if count)
    if len(classes) < 2:
        message = f"{printable(dataset.location)} has images of {shown(classes) or 'no class'} alone"
        raise DataError(message, hint="training needs two classes or more, each a folder or a label")
    kept = {split: examples.limited_to(classes) for split, examples in given.items()}
    notes = tuple(
        f"images of {split} that are left out, as train lacks their classes: {lost:,}"
        for split, examples in given.items()
        if (lost := len(examples) - len(kept[split]))
    )
    kept = {split: examples for split, examples in kept.items() if len(examples)}
    return Divided(whole.limited_to(classes), kept.get(VAL), kept.get(TEST), notes)


def _held_out(dataset: Dataset, examples: Examples, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return which images go to val: of each class the first ones in an order by chance, but never all."""
    import numpy as np

    keys = _keys(dataset, examples, seed)
    contents = np.arange(len(examples)) if examples.marks is None else numbered(examples.marks)
    # An image and its copies go together, as one of them, the first by chance, would.
    order = np.argsort(keys)
    _, starts, group_of, sizes = np.unique(
        contents[order], return_index=True, return_inverse=True, return_counts=True
    )
    leaders = order[starts]
    held_out = np.zeros(len(leaders), bool)
    by_class = np.lexsort((keys[leaders], examples.labels[leaders]))
    for groups in np.split(by_class, np.flatnonzero(np.diff(examples.labels[leaders[by_class]])) + 1):
        before = np.cumsum(sizes[groups]) - sizes[groups]
        held_out[groups] = before < max(1, round(fraction * int(sizes[groups].sum())))
        held_out[groups[-1:]] = False
    found = np.zeros(len(examples), bool)
    found[order] = held_out[group_of]
    return found


def _keys(dataset: Dataset, examples: Examples, seed: int) -> NDArray[np.int64]:
    """Return a number for each image that only its name and the seed tell."""
    import numpy as np

    keys = np.empty(len(examples), np.int64)
    for position in range(len(examples)):
        name = f"{seed}\0{dataset.place(examples.name(position))}".encode("utf-8", "surrogatepass")
        keys[position] = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=True)
    return keys
