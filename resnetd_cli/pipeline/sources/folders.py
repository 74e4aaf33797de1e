"""Find the images in folders, by extension or by magic bytes (`--all-files`), and count the files skipped."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from resnetd_cli.errors import Reason
from resnetd_cli.pipeline.sources.companions import is_companion
from resnetd_cli.system.escaping import printable

# Pillow lists these as openable, but has only stubs for them that cannot decode.
_STUB_FORMATS = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
# Pillow opens these through another format's plug-in.
_ADOPTED_FORMATS = frozenset({"MPO"})
# Decoded with an optional package; without it, each is a failure that says so.
_OPTIONAL_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
# Not decoded, or with the same magic bytes as Office documents.
_NOT_DETECTED_BY_BYTES = _STUB_FORMATS | {"EPS", "WMF", "FPX", "MIC"}
# Stricter than Pillow, which accepts "P" and one of several letters, or any C file with a `#define`.
_TEXTUAL = {"PPM": re.compile(rb"P[1-7fF]\s"), "XBM": re.compile(rb"\s*#define\s+\S+_width\s")}
_HEIF = re.compile(rb".{4}ftyp(hei[cfmsx]|hev[cx]|mif1|msf1|avi[fs])", re.DOTALL)
_HEAD = 64
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS_SHOWN = 6
_LONGEST_KIND = 12


class Found(NamedTuple):
    """A result of a walk: a file to read, or a folder that cannot be listed, with the error."""

    path: str
    error: OSError | None = None


@dataclass
class Skipped:
    """What walks skipped.

    Attributes:
        files: their number by kind: the extension in lower case without its dot, "" without one.
        links: the number of links to folders.
        hidden: the number of hidden and companion files and folders, not counting what is in them.
    """

    files: Counter[str] = field(default_factory=Counter)
    links: int = 0
    hidden: int = 0

    def add_file(self, path: str) -> None:
        """Count a file that is not an image."""
        self.files[kind_of(path)] += 1

    def add_link(self, path: str) -> None:
        """Count a link to a folder."""
        self.links += 1

    def since(self, before: Skipped) -> Skipped:
        """Return what was added since an earlier copy."""
        return Skipped(self.files - before.files, self.links - before.links, self.hidden - before.hidden)

    def copy(self) -> Skipped:
        """Return a copy of the current counts."""
        return Skipped(Counter(self.files), self.links, self.hidden)

    @property
    def files_in_words(self) -> str:
        """The files by kind, most frequent first: `7 files: 3 cr2, 2 mp4, 2 without extension`."""
        total = self.files.total()
        kinds = sorted(self.files.items(), key=lambda item: (-item[1], not item[0], item[0]))
        parts = [f"{count:,} {printable(kind) or 'without extension'}" for kind, count in kinds[:_KINDS_SHOWN]]
        if rest := sum(count for _, count in kinds[_KINDS_SHOWN:]):
            parts.append(f"{rest:,} others")
        return f"{total:,} {'file' if total == 1 else 'files'}: {', '.join(parts)}"

    @property
    def links_in_words(self) -> str:
        """The links: `2 links to folders`."""
        return f"{self.links:,} {'link to a folder' if self.links == 1 else 'links to folders'}"


class Note(NamedTuple):
    """A sentence about what was skipped in folders, and the reason that selects its hint."""

    text: str
    reason: Reason | None


class Walker:
    """Finds the images in folders, and counts what it skips.

    Args:
        all_files: also find files with an image's magic bytes, whatever their name.
        follow: follow links to folders. Each folder is visited once, so cycles are harmless.
        skipped: the counts to add to.
    """

    def __init__(
        self,
        *,
        all_files: bool = False,
        follow: bool = False,
        skipped: Skipped | None = None,
    ) -> None:
        self.all_files = all_files
        self.follow = follow
        self.skipped = Skipped() if skipped is None else skipped

    def images(self, folder: str) -> Iterator[Found]:
        """Yield the images in a folder and its subfolders, sorted by name.

        Links to files are followed. Hidden and companion files are skipped, but the folder itself may be one.
        """
        visited = {_identity(folder)} if self.follow else set()
        levels = []
        try:
            levels.append(self._entries(folder))
        except OSError as error:
            yield Found(folder, error)
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
            elif is_folder(entry):
                if self._enters(entry, visited):
                    try:
                        levels.append(self._entries(entry.path))
                    except OSError as error:
                        yield Found(entry.path, error)
            elif is_named_like_image(entry.name) or (self.all_files and begins_like_image(entry.path)):
                yield Found(entry.path)
            else:
                self.skipped.add_file(entry.path)

    def notes(self) -> Iterator[Note]:
        """Yield a sentence for each kind of thing skipped, except hidden and companion files."""
        if self.skipped.files:
            reason = None if self.all_files else Reason.NOT_NAMED_LIKE_IMAGES
            yield Note(f"skipped {self.skipped.files_in_words}", reason)
        if self.skipped.links:
            yield Note(f"skipped {self.skipped.links_in_words}", Reason.LINKS_SKIPPED)

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        entries, hidden = listed(folder)
        self.skipped.hidden += hidden
        return iter(entries)

    def _enters(self, entry: os.DirEntry[str], visited: set[object]) -> bool:
        if not self.follow:
            if entry.is_symlink():
                self.skipped.add_link(entry.path)
            return not entry.is_symlink()
        identity = _identity(entry.path)
        if identity in visited:
            return False
        visited.add(identity)
        return True


def listed(folder: str) -> tuple[list[os.DirEntry[str]], int]:
    """Return a folder's entries, sorted by name, and the number of hidden and companion files left out.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as scan:
        entries = list(scan)
    kept = sorted((entry for entry in entries if not is_companion(entry.name)), key=lambda entry: entry.name)
    return kept, len(entries) - len(kept)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


@lru_cache
def image_extensions() -> frozenset[str]:
    """Return every file extension (`.jpg`, lower case) of the formats Pillow can open."""
    from PIL import Image

    extensions = Image.registered_extensions()
    opened = (Image.OPEN.keys() | _ADOPTED_FORMATS) - _STUB_FORMATS
    opened_here = frozenset(extension.lower() for extension, name in extensions.items() if name in opened)
    return opened_here | _OPTIONAL_EXTENSIONS


def is_named_like_image(name: str) -> bool:
    """Return whether a file has the extension of an image."""
    return os.path.splitext(name)[1].lower() in image_extensions()


def begins_like_image(path: str) -> bool:
    """Return whether a regular, readable file begins with an image's magic bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_WAIT)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and are_image_bytes(os.read(descriptor, _HEAD))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def are_image_bytes(head: bytes) -> bool:
    """Return whether the first bytes of a file (64 are enough) are those of an image that can be decoded."""
    from PIL import Image

    Image.init()
    for name, (_, accept) in Image.OPEN.items():
        if name in _TEXTUAL:
            if _TEXTUAL[name].match(head):
                return True
        elif name not in _NOT_DETECTED_BY_BYTES and accept is not None:
            with suppress(Exception):  # there may be too few bytes
                if accept(head[:16]):
                    return True
    return _HEIF.match(head) is not None


def kind_of(path: str) -> str:
    """Return the kind of a skipped file for the counts: its extension, `jpg.1` for `x.jpg.1`, "" without one."""
    stem, extension = os.path.splitext(path)
    kind = extension[1:].lower()
    if kind.isdecimal() and (before := os.path.splitext(stem)[1]):
        kind = before[1:].lower() + extension
    return kind if len(kind) <= _LONGEST_KIND else "with a long extension"


def _identity(folder: str) -> object:
    """Return what identifies a folder whatever path leads to it: device and inode."""
    try:
        status = Path(folder).stat()
    except OSError:
        return folder
    return status.st_dev, status.st_ino
