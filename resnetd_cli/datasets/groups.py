"""Groups of images, such as those of one person, which stay on one side of every split (`--group-by`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from resnetd_cli.datasets.examples import Dataset, Examples
from resnetd_cli.errors import DataError, Reason, UsageError, first_line
from resnetd_cli.system.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALONE = -1
"""The group of an image without a group."""


def grouped_by(dataset: Dataset, pattern: str) -> Dataset:
    """Return the data set with groups taken from the images' names; they replace groups that it has.

    Args:
        dataset: the images.
        pattern: a regular expression. An image's group is what the first pair of parentheses matches in its name,
            or the whole match if there are none; an image without a match has no group.

    Raises:
        UsageError: the pattern is empty, or not a regular expression.
        DataError: it matches nothing, the same in all names, or something different in each.
    """
    import numpy as np

    if not pattern:
        raise UsageError("the group pattern is empty", reason=Reason.GROUP_BY)
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        message = f"the group pattern {printable(pattern)} is not a regular expression: {first_line(error)}"
        raise UsageError(message, reason=Reason.GROUP_BY) from error
    numbers: dict[str, int] = {}
    groups = {split: _groups(dataset, examples, expression, numbers) for split, examples in dataset.splits.items()}
    names = tuple(numbers)
    if useless := _why_useless(np.concatenate([*groups.values()]), names):
        first = next(iter(dataset.splits.values()))
        message = f"the group pattern {printable(pattern)} {useless}"
        raise DataError(message, hint=f"they are like {printable(dataset.place(first.name(0)))}")
    splits = {
        split: replace(examples, groups=groups[split], group_names=names)
        for split, examples in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def _why_useless(groups: NDArray[np.int64], names: Sequence[str]) -> str | None:
    """Return why groups are useless; None if they are not.

    Args:
        groups: of all images: shape (N,).
        names: of the groups.
    """
    if not names:
        return "matches no image name"
    if len(names) == 1 and not (groups == ALONE).any():
        return f"finds the same text, {printable(names[0])}, in all image names"
    if len(names) == len(groups):
        return "finds a different text in each image name, so none belong together"
    return None


def _groups(
    dataset: Dataset, examples: Examples, expression: re.Pattern[str], numbers: dict[str, int]
) -> NDArray[np.int64]:
    import numpy as np

    groups = np.full(len(examples), ALONE)
    for position in range(len(examples)):
        if found := expression.search(dataset.place(examples.name(position))):
            name = found[0] if not expression.groups else found[1]
            if name:
                groups[position] = numbers.setdefault(name, len(numbers))
    return groups


def united(count: int, pairs: NDArray[np.int64], numbers: Sequence[NDArray[np.int64]] = ()) -> NDArray[np.int64]:
    """Return a number for each item, the same for items that are linked, directly or through others.

    Args:
        count: number of items.
        pairs: linked items: shape (P, 2).
        numbers: items with the same number in one of these, each of shape (count,), are linked as well, except
            for `ALONE`.
    """
    import numpy as np

    links = [pairs]
    for each in numbers:
        known = np.flatnonzero(each != ALONE)
        _, first, of = np.unique(each[known], return_index=True, return_inverse=True)
        links.append(np.stack([known[first][of], known], axis=1))
    one, other = np.concatenate(links).T
    found = np.arange(count)
    while (found[one] != found[other]).any():
        least = np.minimum(found[one], found[other])
        for ends in (found[one], found[other]):
            np.minimum.at(found, ends, least)
        while not np.array_equal(further := found[found], found):
            found = further
    return found
