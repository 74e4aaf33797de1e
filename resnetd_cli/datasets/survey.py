"""The first pass over labelled images: which can be read, and what users should know of them before they train."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resnetd_cli import trained_on
from resnetd_cli.datasets import remarks
from resnetd_cli.datasets.examples import ORDER, Dataset, Examples
from resnetd_cli.datasets.looks import look_at
from resnetd_cli.decode import DecodeOptions
from resnetd_cli.errors import DataError
from resnetd_cli.results import Failure
from resnetd_cli.threads import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_UNREADABLE = 0.05
"""The share of a split's images that may be unreadable."""
_DECODING = DecodeOptions()
Progress = Callable[[int, int], object]


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first pass found.

    Attributes:
        dataset: the data set without what is left out; its images have `marks`.
        unreadable: the images that cannot be read or decoded, and why.
        notes: what users should know, a line each, those of the data set first.
        fingerprint: SHA-256 over the split, class, name and mark of each image, in hexadecimal.
    """

    dataset: Dataset
    unreadable: tuple[Failure, ...]
    notes: tuple[str, ...]
    fingerprint: str

    @property
    def counts(self) -> dict[str, NDArray[np.int64]]:
        """How many images each class has in each split: int64, shape (C,)."""
        return {split: examples.counts() for split, examples in self.dataset.splits.items()}


def survey(
    dataset: Dataset,
    *,
    workers: int = 4,
    decoding: DecodeOptions = _DECODING,
    progress: Progress = lambda done, total: None,
    tell: Callable[[Failure], object] = lambda failure: None,
) -> Survey:
    """Decode every image once; leave out those that cannot be decoded, and those that are in a later split too.

    An image that val or test has as well is left out of train, one that test has as well, out of val. Images are
    the same if they show the same; see `content`.

    Args:
        dataset: the images.
        workers: threads.
        decoding: the bounds on an image's size.
        progress: is called with the number of images looked at, and of all.
        tell: is called with each image that cannot be read, also where there are too many.

    Raises:
        DataError: more than 5 % of a split cannot be read.
    """
    with Pool(workers, thread_name_prefix="resnetd-survey") as pool:
        try:
            readable, failures = _readable(dataset, pool, decoding, progress, tell)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    notes = [*dataset.notes]
    for split in readable:
        notes += remarks.unreadable(dataset, split, failures[split])
    notes += remarks.contradictions(dataset, [*readable.values()])
    for split, elsewhere in _leaks(readable).items():
        notes += remarks.leaks(dataset, split, readable[split], elsewhere)
        readable[split] = readable[split].without(elsewhere)
    cleaned = replace(dataset, splits=readable)
    notes += [*remarks.copies(cleaned), *remarks.classes(cleaned)]
    return Survey(
        dataset=cleaned,
        unreadable=tuple(failure for split in readable for failure in failures[split]),
        notes=tuple(notes),
        fingerprint=_fingerprint(cleaned),
    )


def _readable(
    dataset: Dataset,
    pool: Pool,
    decoding: DecodeOptions,
    progress: Progress,
    tell: Callable[[Failure], object],
) -> tuple[dict[str, Examples], dict[str, tuple[Failure, ...]]]:
    """Return the images of each split that can be read, with their marks, and the others."""
    readable, failures = {}, {}
    done, total = 0, sum(map(len, dataset.splits.values()))

    def looked(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for split, examples in dataset.splits.items():
        looks = look_at(examples, pool, decoding=decoding, looked=looked, tell=tell)
        failures[split] = tuple(looks.failures.values())
        if len(looks.failures) > MAX_UNREADABLE * len(examples):
            raise _too_many(dataset, split, failures[split])
        readable[split] = replace(examples, marks=looks.marks).without([*looks.failures])
    return readable, failures


def _too_many(dataset: Dataset, split: str, failures: tuple[Failure, ...]) -> DataError:
    (message,) = remarks.unreadable(dataset, split, failures)
    return DataError(message, hint=f"repair or remove them: up to {MAX_UNREADABLE:.0%} of a split is left out")


def _leaks(readable: Mapping[str, Examples]) -> dict[str, NDArray[np.int64]]:
    """Return the images of each split that a later one has too, by position."""
    import numpy as np

    splits = sorted(readable, key=ORDER.index)
    found = {}
    for index, split in enumerate(splits[:-1]):
        later = np.concatenate([readable[name].known_marks() for name in splits[index + 1 :]])
        if len(positions := np.flatnonzero(trained_on.contains(later, readable[split].known_marks()))):
            found[split] = positions
    return found


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for split, examples in dataset.splits.items():
        marks = examples.known_marks()
        for position in range(len(examples)):
            name = dataset.place(examples.name(position))
            line = "\0".join([split, examples.class_name(position), name, f"{marks[position].tobytes().hex()}\n"])
            digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
