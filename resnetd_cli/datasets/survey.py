"""The first pass over labelled images: unreadable images, copies, leaks between splits, tiny classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resnetd_cli.datasets import survey_notes
from resnetd_cli.datasets.examples import ORDER, Dataset, Examples
from resnetd_cli.datasets.groups import ALONE as NO_GROUP
from resnetd_cli.datasets.groups import united
from resnetd_cli.datasets.near_copies import near_copies
from resnetd_cli.datasets.scan import Scan, Sharing
from resnetd_cli.errors import DataError
from resnetd_cli.models import trained_on
from resnetd_cli.pipeline.decode.content import numbered
from resnetd_cli.results import Failure
from resnetd_cli.system.threads import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_UNREADABLE = 0.05
"""The share of a split's images that may be unreadable."""
ALONE = Sharing()
"""One process scans all images."""
OnProgress = Callable[[int, int], object]


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first pass found.

    Attributes:
        dataset: the data set without what was left out; its images have `marks`.
        unreadable: the images that cannot be read or decoded, and why.
        notes: lines for the user, those of the data set first.
        fingerprint: SHA-256 over the split, class, name, mark and group of each image, in hexadecimal.
    """

    dataset: Dataset
    unreadable: tuple[Failure, ...]
    notes: tuple[str, ...]
    fingerprint: str


def survey(
    dataset: Dataset,
    *,
    workers: int = 4,
    progress: OnProgress = lambda done, total: None,
    tell: Callable[[Failure], object] = lambda failure: None,
    sharing: Sharing = ALONE,
) -> Survey:
    """Decode every image once; leave out images that cannot be decoded, and images that a later split has as well.

    Train gives way to val and test, val to test, both for images and for groups of images. Images are the same if
    their pixels are; see `content`.

    Args:
        dataset: the images.
        workers: threads.
        progress: called with the number of images scanned so far, and of all.
        tell: called with each image that cannot be read, even if there are too many.
        sharing: with other processes that survey the same images.

    Raises:
        DataError: more than 5 % of a split cannot be read.
    """
    import numpy as np

    with Pool(workers, thread_name_prefix="resnetd-survey") as pool:
        try:
            scans = _scans(dataset, pool, progress, tell, sharing)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    failures = {split: tuple(found.failures.values()) for split, found in scans.items()}
    notes = [*dataset.notes]
    for split in scans:
        notes += survey_notes.unreadable(dataset, split, failures[split])
    thumbnails, readable = _readable(dataset, scans)
    notes += survey_notes.contradictions(dataset, [*readable.values()])
    for is_in, note in ((_same, survey_notes.leaks), (_of_one_group, survey_notes.group_leaks)):
        for split, elsewhere in _leaks(readable, is_in).items():
            notes += note(dataset, split, readable[split], elsewhere)
            readable[split] = readable[split].without(elsewhere)
            thumbnails[split] = np.delete(thumbnails[split], elsewhere, axis=0)
    cleaned = replace(dataset, splits=readable)
    pairs = _near_copies(cleaned, thumbnails)
    cleaned = _clustered(cleaned, pairs)
    notes += [*survey_notes.copies(cleaned), *survey_notes.near_copies(cleaned, pairs)]
    notes += survey_notes.classes(cleaned)
    return Survey(
        dataset=cleaned,
        unreadable=tuple(failure for split in scans for failure in failures[split]),
        notes=tuple(notes),
        fingerprint=_fingerprint(cleaned),
    )


def _scans(
    dataset: Dataset,
    pool: Pool,
    progress: OnProgress,
    tell: Callable[[Failure], object],
    sharing: Sharing,
) -> dict[str, Scan]:
    """Scan each split.

    Raises:
        DataError: too many images of one cannot be read.
    """
    found = {}
    done, end, total = 0, 0, sum(map(len, dataset.splits.values()))

    def looked(count: int) -> None:
        nonlocal done
        done += count * sharing.count
        if sharing.count == 1 or done < end:
            progress(done, total)

    for split, examples in dataset.splits.items():
        end += len(examples)
        reporting = {"tell": tell} if sharing.count == 1 else {}
        found[split] = sharing.scan_images(examples, pool, looked=looked, **reporting)
        if sharing.count > 1:
            done = end
            progress(done, total)
        failures = tuple(found[split].failures.values())
        if not reporting:
            for failure in failures:
                tell(failure)
        if len(failures) > MAX_UNREADABLE * len(examples):
            raise _too_many(dataset, split, failures)
    return found


def _readable(
    dataset: Dataset, scans: Mapping[str, Scan]
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, Examples]]:
    """Return the thumbnails and the images with their marks, without those that cannot be read, by split."""
    import numpy as np

    thumbnails, readable = {}, {}
    for split, examples in dataset.splits.items():
        failed = [*scans[split].failures]
        thumbnails[split] = np.delete(scans[split].thumbnails, failed, axis=0)
        readable[split] = replace(examples, marks=scans[split].marks).without(failed)
    return thumbnails, readable


def _too_many(dataset: Dataset, split: str, failures: tuple[Failure, ...]) -> DataError:
    (message,) = survey_notes.unreadable(dataset, split, failures)
    return DataError(message, hint=f"repair or remove them: up to {MAX_UNREADABLE:.0%} of a split is left out")


def _leaks(
    readable: Mapping[str, Examples], is_in: Callable[[Examples, Sequence[Examples]], NDArray[np.bool_]]
) -> dict[str, NDArray[np.int64]]:
    """Return the positions of the images of each split that a later split has as well, in some way."""
    import numpy as np

    splits = sorted(readable, key=ORDER.index)
    found = {}
    for index, split in enumerate(splits[:-1]):
        later = [readable[name] for name in splits[index + 1 :]]
        if len(positions := np.flatnonzero(is_in(readable[split], later))):
            found[split] = positions
    return found


def _same(examples: Examples, others: Sequence[Examples]) -> NDArray[np.bool_]:
    """Return which images have the same pixels as one of the others: shape (N,)."""
    import numpy as np

    return trained_on.contains(np.concatenate([each.known_marks() for each in others]), examples.known_marks())


def _of_one_group(examples: Examples, others: Sequence[Examples]) -> NDArray[np.bool_]:
    """Return which images are in the group of one of the others: shape (N,)."""
    import numpy as np

    if examples.groups is None:
        return np.zeros(len(examples), bool)
    taken = np.concatenate([each.groups for each in others if each.groups is not None])
    return np.isin(examples.groups, taken[taken != NO_GROUP])


def _near_copies(dataset: Dataset, thumbnails: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Return pairs of near copies by their positions in all splits together, the first of each set of copies."""
    import numpy as np

    marks = np.concatenate([examples.known_marks() for examples in dataset.splits.values()])
    _, first = np.unique(numbered(marks), return_index=True)
    first.sort()
    return first[near_copies(np.concatenate([thumbnails[split] for split in dataset.splits])[first])]


def _clustered(dataset: Dataset, pairs: NDArray[np.int64]) -> Dataset:
    """Return the data set with its clusters: images linked by copies, near copies and groups."""
    import numpy as np

    parts = dataset.splits.values()
    ends = np.cumsum([len(examples) for examples in parts])
    numbers = [numbered(np.concatenate([examples.known_marks() for examples in parts]))]
    if all(examples.groups is not None for examples in parts):
        numbers.append(np.concatenate([examples.groups for examples in parts if examples.groups is not None]))
    clusters = np.split(united(int(ends[-1]), pairs, numbers), ends[:-1])
    named = zip(dataset.splits.items(), clusters, strict=True)
    return replace(dataset, splits={split: replace(part, clusters=own) for (split, part), own in named})


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for split, examples in dataset.splits.items():
        marks = examples.known_marks()
        for position in range(len(examples)):
            name = dataset.place(examples.name(position))
            parts = [split, examples.class_name(position), name, marks[position].tobytes().hex()]
            if (group := examples.group_name(position)) is not None:
                parts.append(group)
            digest.update(("\0".join(parts) + "\n").encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
