"""The first pass over labelled images: which can be read, and what users should know of them before they train."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resnetd_cli.datasets import remarks
from resnetd_cli.datasets.copies import contents_of, mark_of
from resnetd_cli.datasets.examples import ORDER, Dataset, Examples
from resnetd_cli.decode import DecodeOptions, check_header
from resnetd_cli.errors import DataError, InputError
from resnetd_cli.results import Failure
from resnetd_cli.threads import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_UNREADABLE = 0.05
"""The share of a split's images that may be unreadable."""
_CHUNK = 64
"""Images that a thread looks at in one go."""
_DECODING = DecodeOptions()
Progress = Callable[[int, int], object]


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first pass found.

    Attributes:
        dataset: the data set without what is left out; its images know their `contents`.
        unreadable: the images that cannot be read, and why.
        notes: what users should know, a line each, those of the data set first.
        fingerprint: SHA-256 over the name, class, split and size of each image, in hexadecimal.
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
    """Look at every image once; leave out those that cannot be read, and those that are in a later split too.

    An image that val or test has as well is left out of train, one that test has as well, out of val.

    Args:
        dataset: the images.
        workers: threads.
        decoding: the bounds on an image's size.
        progress: is told how many images were looked at, and of how many.
        tell: is told of each image that cannot be read, also where there are too many.

    Raises:
        DataError: more than 5 % of a split cannot be read.
    """
    with Pool(workers, thread_name_prefix="resnetd-survey") as pool:
        try:
            readable = _readable(dataset, pool, decoding, progress, tell)
            contents = contents_of([(part.examples, part.sizes, part.marks) for part in readable.values()], pool)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for (split, part), numbers in zip(readable.items(), contents, strict=True):
        readable[split] = replace(part, examples=replace(part.examples, contents=numbers))
    notes = [*dataset.notes]
    for split, part in readable.items():
        notes += remarks.unreadable(dataset, split, part.failures)
    notes += remarks.contradictions(dataset, [part.examples for part in readable.values()])
    for split, elsewhere in _leaks(readable).items():
        notes += remarks.leaks(dataset, split, readable[split].examples, elsewhere)
        readable[split] = readable[split].without(elsewhere)
    cleaned = replace(dataset, splits={split: part.examples for split, part in readable.items()})
    notes += [*remarks.copies(cleaned), *remarks.classes(cleaned)]
    return Survey(
        dataset=cleaned,
        unreadable=tuple(failure for part in readable.values() for failure in part.failures),
        notes=tuple(notes),
        fingerprint=_fingerprint(cleaned, {split: part.sizes for split, part in readable.items()}),
    )


@dataclass(frozen=True, eq=False)
class _Readable:
    """The images of a split that can be read, their sizes in bytes, and the `mark_of` each; and the others."""

    examples: Examples
    sizes: NDArray[np.int64]
    marks: NDArray[np.int64]
    failures: tuple[Failure, ...]

    def without(self, positions: NDArray[np.int64]) -> _Readable:
        import numpy as np

        kept = np.delete(np.arange(len(self.examples)), positions)
        return _Readable(self.examples.select(kept), self.sizes[kept], self.marks[kept], self.failures)


def _readable(
    dataset: Dataset,
    pool: Pool,
    decoding: DecodeOptions,
    progress: Progress,
    tell: Callable[[Failure], object],
) -> dict[str, _Readable]:
    import numpy as np

    found = {}
    done, total = 0, sum(map(len, dataset.splits.values()))
    for split, examples in dataset.splits.items():
        seen = np.zeros((2, len(examples)), np.int64)
        failures: dict[int, Failure] = {}
        starts = range(0, len(examples), _CHUNK)
        looks = pool.map(lambda start, of=examples: _look(of, start, decoding), starts)
        for start, look in zip(starts, looks, strict=True):
            for position, result in enumerate(look, start):
                if isinstance(result, Failure):
                    failures[position] = result
                    tell(result)
                else:
                    seen[:, position] = result
            done += len(look)
            progress(done, total)
        if len(failures) > MAX_UNREADABLE * len(examples):
            raise _too_many(dataset, split, tuple(failures.values()))
        part = _Readable(examples, seen[0], seen[1], tuple(failures.values()))
        found[split] = part.without(np.array([*failures], np.int64))
    return found


def _look(examples: Examples, start: int, decoding: DecodeOptions) -> list[tuple[int, int] | Failure]:
    """Return the size and the mark of some images, or why there are none."""
    found: list[tuple[int, int] | Failure] = []
    for position in range(start, min(start + _CHUNK, len(examples))):
        try:
            found.append(_look_at(examples, position, decoding))
        except InputError as error:
            found.append(Failure.of(examples.name(position), "", error))
    return found


def _look_at(examples: Examples, position: int, decoding: DecodeOptions) -> tuple[int, int]:
    with examples.open(position) as stream:
        check_header(stream, decoding)
        size = stream.seek(0, io.SEEK_END)
        return size, mark_of(stream, size)


def _too_many(dataset: Dataset, split: str, failures: tuple[Failure, ...]) -> DataError:
    (message,) = remarks.unreadable(dataset, split, failures)
    return DataError(message, hint=f"repair or remove them: up to {MAX_UNREADABLE:.0%} of a split is left out")


def _leaks(readable: Mapping[str, _Readable]) -> dict[str, NDArray[np.int64]]:
    """Return the images of each split that a later one has too, by position."""
    import numpy as np

    splits = sorted(readable, key=ORDER.index)
    found = {}
    for index, split in enumerate(splits[:-1]):
        later = np.concatenate([readable[name].examples.known_contents() for name in splits[index + 1 :]])
        if len(positions := np.flatnonzero(np.isin(readable[split].examples.known_contents(), later))):
            found[split] = positions
    return found


def _fingerprint(dataset: Dataset, sizes: Mapping[str, NDArray[np.int64]]) -> str:
    digest = hashlib.sha256()
    for split, examples in dataset.splits.items():
        for position in range(len(examples)):
            name = dataset.place(examples.name(position))
            line = "\0".join([split, examples.class_name(position), name, f"{sizes[split][position]}\n"])
            digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
