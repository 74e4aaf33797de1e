"""The images of a run by use, as a table that `finetune`, `train` and `evaluate` take as their DIR."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import IO

from resnetd_cli.datasets.examples import Examples
from resnetd_cli.datasets.image_files import Files
from resnetd_cli.datasets.splits import TrainValTest

COLUMNS = ("path", "class", "split", "content")
GROUP = "group"


def write_split(data: TrainValTest, file: IO[str]) -> None:
    """Write a row for each image, in the order of the splits: CSV as in RFC 4180.

    Images that are files have absolute paths; images in tars and data sets have the names that users see. The
    content is the image's mark, see `content`, in hexadecimal. If there are groups, they are in a last column.

    Args:
        data: the images, surveyed.
        file: to write to; it must not change line ends.
    """
    writer = csv.writer(file)
    grouped = data.train.groups is not None
    writer.writerow((*COLUMNS, GROUP) if grouped else COLUMNS)
    for split, examples in data.parts.items():
        for position in range(len(examples)):
            group = (examples.group_name(position) or "",) if grouped else ()
            writer.writerow((*_row(examples, position, split), *group))


def _row(examples: Examples, position: int, split: str) -> tuple[str, ...]:
    name = examples.name(position)
    path = str(Path(name).absolute()) if isinstance(examples.store, Files) else name
    return path, examples.class_name(position), split, examples.known_marks()[position].tobytes().hex()
