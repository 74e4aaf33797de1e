"""Images that are files."""

from __future__ import annotations

import os
from dataclasses import dataclass

from resnetd_cli.datasets.packed_texts import Texts
from resnetd_cli.pipeline.sources.reading import DEFAULT_READING, ReadOptions, read_regular_file


@dataclass(frozen=True, eq=False)
class Files:
    """Images that are files.

    Attributes:
        folder: what their paths are relative to.
        paths: of the images.
    """

    folder: str
    paths: Texts

    def name(self, row: int) -> str:
        """Return an image's path."""
        return os.path.join(self.folder, self.paths[row])

    def read(self, row: int, options: ReadOptions = DEFAULT_READING) -> bytes:
        """Return a file's bytes.

        Raises:
            InputError: it cannot be read, or is a pipe or a device.
        """
        return read_regular_file(self.name(row), options)
