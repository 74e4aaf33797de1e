"""The split into train, val and test: given by the data set, or made class by class from a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnetd_cli.datasets.examples import ALL, TEST, TRAIN, VAL, Dataset, Examples
from resnetd_cli.datasets.first_few import shown
from resnetd_cli.errors import DataError
from resnetd_cli.system.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TrainValTest:
    """The images of a run, all with the classes of `train`.

    Attributes:
        train: to train on.
        val: to choose the best epoch by; None: the last one is taken.
        test: to measure the result with; None: there are none.
        notes: what was left out, a line for the user each.
    """

    train: Examples
    val: Examples | None
    test: Examples | None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Examples]:
        """The parts that exist, by name."""
        parts = {TRAIN: self.train, VAL: self.val, TEST: self.test}
        return {name: part for name, part in parts.items() if part is not None}


DEFAULT_FRACTION = 0.2
"""Share of each class for val."""


def split_dataset(dataset: Dataset, *, fraction: float = DEFAULT_FRACTION, seed: int = 0) -> TrainValTest:
    """Return the splits that a data set has, or else split each class of it.

    If there is neither val nor test, a part of each class becomes val: as close to the fraction as its clusters
    allow, each of which stays on one side. A class of two or more clusters gives at least one, and never all. The
    split depends on the images' names, classes and clusters and on the seed, not on the order of the images.

    Args:
        dataset: the images, after a survey.
        fraction: share of each class for val.
        seed: of the split.

    Raises:
        DataError: there is no train split, or it has fewer than two classes.
    """
    given = dict(dataset.splits)
    whole = given.pop(TRAIN, None) or given.pop(ALL, None)
    if whole is None:
        message = f"{printable(dataset.location)} has no images to train on, only {shown(given)}"
        raise DataError(message, hint="put them into a folder train, or leave out the folders of splits")
    notes = []
    if not given:
        held_out = _held_out(dataset, whole, fraction, seed)
        given[VAL], whole = whole.select(held_out.nonzero()[0]), whole.select((~held_out).nonzero()[0])
        counts = zip(whole.classes, whole.counts(), given[VAL].counts(), strict=True)
        if undivided := [name for name, learnt, held in counts if learnt > 1 and not held]:
            reason = "as their images are one group or near copies"
            notes.append(f"classes without an image in val, {reason}: {shown(undivided)}")
    classes = tuple(name for name, count in zip(whole.classes, whole.counts(), strict=True) if count)
    if len(classes) < 2:
        message = f"{printable(dataset.location)} has images of {shown(classes) or 'no class'} alone"
        raise DataError(message, hint="training needs two classes or more, each a folder or a label")
    kept = {split: examples.limited_to(classes) for split, examples in given.items()}
    for split, examples in given.items():
        if lost := len(examples) - len(kept[split]):
            notes.append(f"images of {split} that are left out, as train lacks their classes: {lost:,}")
    kept = {split: examples for split, examples in kept.items() if len(examples)}
    return TrainValTest(whole.limited_to(classes), kept.get(VAL), kept.get(TEST), tuple(notes))


def _held_out(dataset: Dataset, examples: Examples, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return which images go to val: class by class, the first clusters that fit, in random order."""
    import numpy as np

    keys = _keys(dataset, examples, seed)
    clusters = np.arange(len(examples)) if examples.clusters is None else examples.clusters
    # A cluster has the place of its first image.
    order = np.argsort(keys)
    _, starts, cluster_of = np.unique(clusters[order], return_index=True, return_inverse=True)
    leaders = order[starts]
    places = np.lexsort((keys[leaders], examples.labels[leaders]))
    turn_of = np.argsort(places)[cluster_of]  # of each image, in `order`
    holding = _Holding(turn_of, examples.labels[order], len(examples.classes), fraction)
    held_out = np.zeros(len(examples), bool)
    held_out[order] = holding.chosen()[turn_of]
    return held_out


class _Holding:
    """Chooses which clusters to hold out.

    Args:
        clusters: each image's cluster, numbered in the order in which clusters are considered.
        labels: each image's class.
        classes: number of classes.
        fraction: share of each class to hold out.
    """

    def __init__(
        self, clusters: NDArray[np.int64], labels: NDArray[np.int64], classes: int, fraction: float
    ) -> None:
        import numpy as np

        # How many images of which class each cluster has: one row for each cluster and class.
        found, counts = np.unique(clusters * classes + labels, return_counts=True)
        self._clusters, self._labels = np.divmod(found, classes)
        self._counts = counts.tolist()
        self._starts = np.searchsorted(self._clusters, np.arange(clusters.max(initial=-1) + 2)).tolist()
        total = np.bincount(labels, minlength=classes)
        self._left = total.tolist()
        self._held = [0] * classes
        self._wanted = [max(1, round(fraction * count)) for count in self._left]
        self._chosen = np.zeros(len(self._starts) - 1, bool)

    def chosen(self) -> NDArray[np.bool_]:
        """Return which clusters are held out."""
        import numpy as np

        labels = self._labels.tolist()
        for cluster in range(len(self._chosen)):
            parts = self._parts(cluster, labels)
            if self._gain(parts) > 0 and self._spares(parts):
                self._take(cluster, parts)
        # A class whose clusters are all too large for its share gives the one that fits best.
        for label in [label for label, held in enumerate(self._held) if not held]:
            rest = [
                (self._gain(parts), -cluster, parts)
                for cluster in self._clusters[np.flatnonzero(self._labels == label)].tolist()
                if self._spares(parts := self._parts(cluster, labels))
            ]
            if rest:
                _, negative, parts = max(rest)
                self._take(-negative, parts)
        return self._chosen

    def _parts(self, cluster: int, labels: list[int]) -> list[tuple[int, int]]:
        """Return the classes of a cluster, and how many images of each."""
        rows = range(self._starts[cluster], self._starts[cluster + 1])
        return [(labels[row], self._counts[row]) for row in rows]

    def _gain(self, parts: list[tuple[int, int]]) -> int:
        """Return by how much holding out a cluster reduces the distance to the wanted numbers of images."""
        gain = 0
        for label, count in parts:
            lack = self._wanted[label] - self._held[label]
            gain += abs(lack) - abs(lack - count)
        return gain

    def _spares(self, parts: list[tuple[int, int]]) -> bool:
        """Tell whether each class keeps an image to train on."""
        return all(self._left[label] > count for label, count in parts)

    def _take(self, cluster: int, parts: list[tuple[int, int]]) -> None:
        self._chosen[cluster] = True
        for label, count in parts:
            self._held[label] += count
            self._left[label] -= count


def _keys(dataset: Dataset, examples: Examples, seed: int) -> NDArray[np.int64]:
    """Return a random number for each image, derived from its name and the seed."""
    import numpy as np

    keys = np.empty(len(examples), np.int64)
    for position in range(len(examples)):
        place = dataset.place(examples.name(position)).lstrip("/\\")
        name = f"{seed}\0{place}".encode("utf-8", "surrogatepass")
        keys[position] = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=True)
    return keys
