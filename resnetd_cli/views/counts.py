"""How many images each class has, as `finetune` and `train` show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from resnetd_cli.system.wording import counted
from resnetd_cli.views.listing import ListingRow, write_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN = 20
"""Classes that a table lists; the others are summed up."""


def write_counts(
    classes: Sequence[str], counts: Mapping[str, NDArray[np.int64]], stream: IO[str], format_name: str = "table"
) -> None:
    """Write the number of images of each class in each split.

    Args:
        classes: the names of the classes.
        counts: the number of images of each class, by split: int64, shape (C,).
        stream: the output.
        format_name: as in `write_rows`. A table lists the first classes, then the sums of the others and of all.
    """
    splits = list(counts)
    columns = {"class": "class", **{split: "images" if split == "all" else split for split in splits}}
    numbers = [counts[split].tolist() for split in splits]
    rows: list[ListingRow] = [dict(zip(columns, row, strict=True)) for row in zip(classes, *numbers, strict=True)]
    if format_name == "table":
        sums = _sums(f"all {counted(len(rows), 'class', ',')}", rows, splits)
        if len(rows) > _SHOWN:
            others = _sums(f"{len(rows) - _SHOWN:,} more classes", rows[_SHOWN:], splits)
            rows = [*rows[:_SHOWN], others]
        rows.append(sums)
    write_rows(rows, stream, format_name, columns=columns)


def _sums(title: str, rows: list[ListingRow], splits: list[str]) -> ListingRow:
    return {"class": title, **{split: sum(row[split] for row in rows) for split in splits}}
