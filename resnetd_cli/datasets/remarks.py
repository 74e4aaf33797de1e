"""What the first pass tells users of their images, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from resnetd_cli.content import numbered
from resnetd_cli.datasets.examples import ALL, ORDER, TRAIN, Dataset, Examples
from resnetd_cli.datasets.texts import shown
from resnetd_cli.labels import folded
from resnetd_cli.results import Failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def unreadable(dataset: Dataset, split: str, failures: Sequence[Failure]) -> Iterator[str]:
    """Yield which images of a split cannot be read, and why."""
    if failures:
        names = (f"{dataset.place(failure.input)} ({failure.message})" for failure in failures)
        total = f"{len(failures):,} of {len(dataset.splits[split]):,} images{_in(split)}"
        yield f"{total} cannot be read: {shown(names, len(failures))}"


def contradictions(dataset: Dataset, splits: Sequence[Examples]) -> Iterator[str]:
    """Yield which images are in several classes."""
    import numpy as np

    contents = numbered(np.concatenate([examples.known_marks() for examples in splits]))
    labels = np.concatenate([examples.labels for examples in splits])
    order = np.lexsort((labels, contents))
    # Of one content, a label is followed by another.
    differ = (np.diff(contents[order]) == 0) & (np.diff(labels[order]) != 0)
    pairs = list(zip(order[:-1][differ], order[1:][differ], strict=True))
    if pairs:

        def name(number: int) -> str:
            for examples in splits:
                if number < len(examples):
                    return dataset.place(examples.name(number))
                number -= len(examples)
            raise IndexError(number)

        texts = (f"{name(int(first))} = {name(int(second))}" for first, second in pairs)
        yield f"the same image is in two classes: {shown(texts, len(pairs))}"


def leaks(dataset: Dataset, split: str, examples: Examples, positions: NDArray[np.int64]) -> Iterator[str]:
    """Yield which images of a split are left out because a later split has them too."""
    later = " or ".join(ORDER[ORDER.index(split) + 1 : ORDER.index(ALL)])
    names = _names(dataset, examples, positions)
    yield f"images of {split} that {later} has too are left out: {shown(names, len(positions))}"


def copies(dataset: Dataset) -> Iterator[str]:
    """Yield which images of a split are there several times."""
    import numpy as np

    for split, examples in dataset.splits.items():
        _, first = np.unique(numbered(examples.known_marks()), return_index=True)
        if len(again := np.delete(np.arange(len(examples)), first)):
            names = _names(dataset, examples, again)
            yield f"copies of other images{_in(split)}, which count several times: {shown(names, len(again))}"


def classes(dataset: Dataset) -> Iterator[str]:
    """Yield which classes have few images, or none, or are not in train."""
    counts = {split: examples.counts() for split, examples in dataset.splits.items()}
    learnt = counts.get(TRAIN, counts.get(ALL))
    if learnt is None:
        return
    names = dataset.classes
    if alike := list(_spelled_alike(names)):
        yield f"different classes whose names differ in spelling only: {shown(alike)}"
    where = TRAIN if TRAIN in counts else "the data set"
    if single := [name for name, count in zip(names, learnt, strict=True) if count == 1]:
        yield f"classes with a single image in {where}, too few to learn from: {shown(single)}"
    if none := [name for name, *have in zip(names, *counts.values(), strict=True) if not any(have)]:
        yield f"classes of which no image is left: {shown(none)}"
    for split, have in counts.items():
        if lacking := [name for name, n, known in zip(names, have, learnt, strict=True) if n and not known]:
            yield f"classes of {split} that train lacks: {shown(lacking)}"
        if missing := [name for name, n, known in zip(names, have, learnt, strict=True) if known and not n]:
            yield f"classes without an image in {split}: {shown(missing)}"


def _spelled_alike(names: Sequence[str]) -> Iterator[str]:
    by_spelling: dict[str, list[str]] = {}
    for name in names:
        by_spelling.setdefault(folded(name), []).append(name)
    return (" and ".join(alike) for alike in by_spelling.values() if len(alike) > 1)


def _names(dataset: Dataset, examples: Examples, positions: NDArray[np.int64]) -> Iterator[str]:
    return (dataset.place(examples.name(int(position))) for position in positions)


def _in(split: str) -> str:
    return "" if split == ALL else f" in {split}"
