"""Samples in tar files: images with their labels next to them, located by offset and read one at a time."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.datasets.class_labels import label_text
from resnetd_cli.datasets.packed_texts import Texts
from resnetd_cli.errors import DataError, ErrorKind, InputError, first_line
from resnetd_cli.pipeline.sources.companions import is_companion
from resnetd_cli.pipeline.sources.folders import image_extensions
from resnetd_cli.pipeline.sources.reading import DEFAULT_READING, ReadOptions, open_file
from resnetd_cli.system.escaping import printable, shell_word
from resnetd_cli.system.wording import system_reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES = ("jpg", "jpeg", "png", "webp")
"""Suffixes of images; of several images in one sample, the first of these counts."""
_LABELS = ("cls", "json")
_MAX_LABEL = 2**20
"""Bytes of a label, or of the description that holds it."""
_END = bytes(tarfile.BLOCKSIZE)
_WRITE_AGAIN = "fetch or write it again"


@dataclass(frozen=True, eq=False)
class Shards:
    """Images that are parts of uncompressed tar files.

    Attributes:
        tars: the files.
        members: the images' names in them.
        of: the tar of each image, by position: int32, shape (N,).
        offsets: where the image starts in its tar, in bytes: int64, shape (N,).
        sizes: of the image, in bytes: int64, shape (N,).
    """

    tars: tuple[str, ...]
    members: Texts
    of: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def name(self, row: int) -> str:
        """Return an image's name, with its tar file in front."""
        return f"{self.tars[self.of[row]]}/{self.members[row]}"

    def read(self, row: int, options: ReadOptions = DEFAULT_READING) -> bytes:
        """Return an image's bytes.

        Raises:
            InputError: the tar file cannot be read, or has changed.
        """
        size = int(self.sizes[row])
        if not size:
            raise InputError(ErrorKind.EMPTY, "zero bytes", hint="the program that made it may have failed")
        if size > options.max_bytes:
            message = f"{size:,} bytes, more than {options.max_bytes:,}"
            raise InputError(ErrorKind.TOO_LARGE, message, hint="store it smaller")
        tar = self.tars[self.of[row]]
        try:
            with open_file(tar) as file:
                file.seek(int(self.offsets[row]))
                data = file.read(size)
        except OSError as error:
            raise InputError(
                ErrorKind.UNREADABLE, system_reason(error), hint=f"ls -l {shell_word(tar)}"
            ) from error
        if len(data) < size:
            raise InputError(ErrorKind.UNREADABLE, "the tar file ends early", hint=_WRITE_AGAIN)
        return data


@dataclass(frozen=True)
class Member:
    """A file in a tar. `data`: its content, for labels only."""

    name: str
    offset: int
    size: int
    data: bytes | None


def samples(tar: str) -> Iterator[dict[str, Member]]:
    """Yield the files of each sample, by the suffixes of their names in lower case.

    A name ends at the first dot, as in WebDataset: `1.jpg` and `1.depth.png` belong together. Where there is no
    image under such a name, it ends at the last dot: `v1.2.jpg` belongs with `v1.2.cls`, or with `v1.cls` if it is
    alone.

    Raises:
        DataError: the tar file is damaged.
    """
    try:
        for _, members in groupby(_members(tar), key=lambda member: _key(member.name)):
            yield from _samples({_ending(member.name): member for member in members})
    except OSError as error:
        message = f"cannot read {printable(tar)}: {system_reason(error)}"
        raise DataError(message, hint=f"look at it: ls -l {shell_word(tar)}") from error
    # The standard library raises others than its own on damaged headers.
    except (tarfile.TarError, ValueError, OverflowError) as error:
        message = f"{printable(tar)} is not an uncompressed tar file, or damaged: {first_line(error)}"
        raise DataError(message, hint=_WRITE_AGAIN) from error


def _samples(members: dict[str, Member]) -> Iterator[dict[str, Member]]:
    images = [ending for ending in members if _last(ending) in image_endings()]
    if not images or any("." not in ending for ending in images):
        yield members
        return
    by_stem: dict[str, dict[str, Member]] = {}
    for ending, member in members.items():
        by_stem.setdefault(ending.rpartition(".")[0], {})[_last(ending)] = member
    alone = by_stem.pop("", {})
    if len(images) == 1 and not any(label in by_stem[images[0].rpartition(".")[0]] for label in _LABELS):
        by_stem[images[0].rpartition(".")[0]].update(alone)
    yield from by_stem.values()


def image_of(members: Mapping[str, Member]) -> Member | None:
    """Return the image of a sample; None if there is none."""
    endings = (*IMAGES, *sorted(ending for ending in members if ending in image_endings()))
    return next((members[ending] for ending in endings if ending in members), None)


@cache
def image_endings() -> frozenset[str]:
    """Return the suffixes of images, without their dots."""
    return frozenset(ending[1:] for ending in image_extensions()) | {*IMAGES}


def _members(tar: str) -> Iterator[Member]:
    if os.path.exists(tar) and not os.path.isfile(tar):  # a pipe would be waited for
        raise OSError("not a file")
    with Path(tar).open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        kept: list[tarfile.TarInfo] = vars(archive)["members"]
        while (member := archive.next()) is not None:
            kept.clear()  # of a million it would take a gigabyte
            if member.isreg() and not any(map(is_companion, member.name.split("/"))):
                yield Member(member.name, member.offset_data, member.size, _data_of_label(archive, member))
        # The standard library takes a damaged header for the end.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != _END:
            raise tarfile.ReadError(f"there is no file, and no end, at byte {archive.offset:,}")


def _data_of_label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    if _last(_ending(member.name)) not in _LABELS or member.size > _MAX_LABEL:
        return None
    content = archive.extractfile(member)
    return None if content is None else content.read()


def _last(ending: str) -> str:
    return ending.rpartition(".")[2]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _key(name: str) -> str:
    base = _base(name)
    return name[: len(name) - len(base)] + base.partition(".")[0]


def _ending(name: str) -> str:
    return _base(name).partition(".")[2].lower()


def label_of(members: Mapping[str, Member], tar: str) -> str | None:
    """Return the label of an image; None if there is none.

    Raises:
        DataError: it is not one text or integer.
    """
    for ending in _LABELS:
        if (member := members.get(ending)) is None:
            continue
        if member.data is None:
            raise _bad_label(tar, member, f"more than {_MAX_LABEL:,} bytes for a label")
        try:
            value = member.data.decode() if ending == "cls" else _in_json(member.data)
            if value is not None:
                return label_text(value)
        except RecursionError as error:
            raise _bad_label(tar, member, "nested too deep") from error
        except ValueError as error:
            raise _bad_label(tar, member, first_line(error)) from error
    return None


def _in_json(data: bytes) -> object:
    description = json.loads(data)
    return description.get("label") if isinstance(description, dict) else None


def _bad_label(tar: str, member: Member, reason: str) -> DataError:
    message = f"{printable(tar)}/{printable(member.name)}: {printable(reason)}"
    return DataError(message, hint="each image needs one label, a text or an integer")
