"""Open labelled images by location: a folder, a table, `hfds/NAME` or `wds/FOLDER`."""

from __future__ import annotations

import os

from resnetd_cli.datasets import hugging_face, webdataset
from resnetd_cli.datasets.class_spelling import with_one_spelling
from resnetd_cli.datasets.examples import Dataset
from resnetd_cli.datasets.folders import open_folder
from resnetd_cli.datasets.tables import is_table, open_table
from resnetd_cli.errors import DataError
from resnetd_cli.net import fetch
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.files import expand_user

_WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
_HINT = "name a folder, a .csv, .tsv or .parquet file, hfds/NAME or wds/FOLDER"


def open_dataset(location: str, *, offline: bool = False) -> Dataset:
    """Find the labelled images that a name stands for. No image is read.

    Args:
        location: a folder of images by class, a table of paths and labels, `hfds/NAME` or `wds/FOLDER`.
        offline: ask no hub.

    Raises:
        DataError: there are none, or they are not laid out in a way that is known.
    """
    return with_one_spelling(_open(location, offline=offline))


def _open(location: str, *, offline: bool) -> Dataset:
    if fetch.is_url(location):
        raise DataError(f"{printable(location)} is a URL", hint=f"download it first; {_HINT}")
    prefix = location[: location.find("/") + 1].lower()
    if prefix == webdataset.PREFIX:
        return webdataset.open_shards(location)
    if prefix == hugging_face.PREFIX:
        return hugging_face.open_hugging_face(location, offline=offline)
    path = str(expand_user(location))
    if os.path.isdir(path):
        return open_folder(location)
    if not os.path.exists(path):
        raise DataError(f"no folder or file {printable(location)}", hint=_HINT)
    if not os.path.isfile(path):  # a table is read more than once
        message = f"{printable(location)} is a pipe or a device, not a folder or a file"
        raise DataError(message, hint="write it to a file first, and name that")
    if is_table(path):
        return open_table(location)
    if os.path.splitext(path)[1].lower() in _WORKBOOKS:
        message = f"{printable(location)} is a workbook, not a table in a text file"
        raise DataError(message, hint='open it, save it as "CSV UTF-8", and name that')
    raise DataError(f"{printable(location)} is not labelled images", hint=_HINT)
