"""The lines in which the first pass reports what is wrong with the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from resnetd_cli.class_names.shipped import folded
from resnetd_cli.datasets.examples import ALL, ORDER, TRAIN, Dataset, Examples
from resnetd_cli.datasets.first_few import shown
from resnetd_cli.pipeline.decode.content import numbered
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
        texts = (" = ".join(dataset.place(_name_at(splits, int(number))) for number in pair) for pair in pairs)
        yield f"the same image is in two classes: {shown(texts, len(pairs))}"


def leaks(dataset: Dataset, split: str, examples: Examples, positions: NDArray[np.int64]) -> Iterator[str]:
    """Yield which images of a split are left out, as a later split has them as well."""
    names = _names(dataset, examples, positions)
    yield f"images of {split} that are also in {_later(split)} are left out: {shown(names, len(positions))}"


def group_leaks(dataset: Dataset, split: str, examples: Examples, positions: NDArray[np.int64]) -> Iterator[str]:
    """Yield which images of a split are left out, as a later split has others of their group."""
    names = _names(dataset, examples, positions)
    which = shown(names, len(positions))
    yield f"images of {split} whose group is also in {_later(split)} are left out: {which}"


def copies(dataset: Dataset) -> Iterator[str]:
    """Yield which images a split has several times."""
    import numpy as np

    for split, examples in dataset.splits.items():
        _, first = np.unique(numbered(examples.known_marks()), return_index=True)
        if len(again := np.delete(np.arange(len(examples)), first)):
            names = _names(dataset, examples, again)
            yield f"copies of other images{_in(split)}, which count several times: {shown(names, len(again))}"


def near_copies(dataset: Dataset, pairs: NDArray[np.int64]) -> Iterator[str]:
    """Yield which images are near copies of others, in different splits and in the same one.

    Args:
        dataset: the images.
        pairs: of near copies, by their positions in all splits together: shape (P, 2).
    """
    import numpy as np

    ends = np.cumsum([len(examples) for examples in dataset.splits.values()])
    sides = np.searchsorted(ends, pairs, side="right")
    apart = sides[:, 0] != sides[:, 1]
    parts = [*dataset.splits.values()]

    def texts(chosen: NDArray[np.int64]) -> Iterator[str]:
        for pair in chosen.tolist():
            yield " = ".join(dataset.place(_name_at(parts, number)) for number in pair)

    what = "near copies in different splits, which may inflate figures"
    for kind, chosen in ((what, pairs[apart]), ("near copies, which count as one group", pairs[~apart])):
        if len(chosen):
            yield f"{kind}: {shown(texts(chosen), len(chosen))}"


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


def _later(split: str) -> str:
    return " or ".join(ORDER[ORDER.index(split) + 1 : ORDER.index(ALL)])


def _names(dataset: Dataset, examples: Examples, positions: NDArray[np.int64]) -> Iterator[str]:
    return (dataset.place(examples.name(int(position))) for position in positions)


def _name_at(splits: Sequence[Examples], number: int) -> str:
    """Return the name of the image at a position in all splits together."""
    for examples in splits:
        if number < len(examples):
            return examples.name(number)
        number -= len(examples)
    raise IndexError(number)


def _in(split: str) -> str:
    return "" if split == ALL else f" in {split}"
