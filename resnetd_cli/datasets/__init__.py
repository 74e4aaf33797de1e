"""Labelled images: which there are, in which splits, and how to read one."""

from __future__ import annotations

from resnetd_cli.datasets.examples import Dataset, Examples, Store
from resnetd_cli.datasets.folders import open_folder

__all__ = ["Dataset", "Examples", "Store", "open_dataset"]


def open_dataset(location: str) -> Dataset:
    """Find the labelled images that a DIR stands for. No image is read.

    Raises:
        DataError: there are none, or they are not laid out in a way that is known.
    """
    return open_folder(location)
