"""How many images each class has."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from resnetd_cli.sinks.listing import Row, write_rows

if TYPE_CHECKING:
    from resnetd_cli.datasets.survey import Survey

_SHOWN = 20
"""Classes that a table shows one by one."""


def write_counts(survey: Survey, stream: IO[str], format_name: str = "table") -> None:
    """Write the number of images of each class in each split.

    Args:
        survey: what the first pass found.
        stream: where to.
        format_name: as in `write_rows`. A table shows the first classes, and sums up the others and all.
    """
    splits = list(survey.counts)
    columns = {"class": "class", **{split: "images" if split == "all" else split for split in splits}}
    counts = [survey.counts[split].tolist() for split in splits]
    rows: list[Row] = [
        dict(zip(columns, (name, *numbers), strict=True))
        for name, *numbers in zip(survey.dataset.classes, *counts, strict=True)
    ]
    if format_name == "table":
        sums = _sums(f"all {len(rows):,} classes", rows, splits)
        if len(rows) > _SHOWN:
            others = _sums(f"{len(rows) - _SHOWN:,} more classes", rows[_SHOWN:], splits)
            rows = [*rows[:_SHOWN], others]
        rows.append(sums)
    write_rows(rows, stream, format_name, columns=columns)


def _sums(title: str, rows: list[Row], splits: list[str]) -> Row:
    return {"class": title, **{split: sum(row[split] for row in rows) for split in splits}}
