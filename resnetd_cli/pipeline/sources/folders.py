"""Walk through folders for images, and count what is skipped."""

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

# Pillow names these as openable, but holds only stubs for them: there is no image to get from them.
_STUB_FORMATS = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
# And it opens these through another format's plug-in.
_ADOPTED_FORMATS = frozenset({"MPO"})
# Decoded with an extra; without it each gets a row that says so.
_OPTIONAL_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
# Not decoded, or begin like any document of Office.
_NOT_TOLD_BY_BYTES = _STUB_FORMATS | {"EPS", "WMF", "FPX", "MIC"}
# Pillow takes less than this for them: "P" and one of several letters, or any file of C that defines something.
_TEXTUAL = {"PPM": re.compile(rb"P[1-7fF]\s"), "XBM": re.compile(rb"\s*#define\s+\S+_width\s")}
_HEIF = re.compile(rb".{4}ftyp(hei[cfmsx]|hev[cx]|mif1|msf1|avi[fs])", re.DOTALL)
_HEAD = 64
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS_TOLD = 6
_LONGEST_KIND = 12


class Found(NamedTuple):
    """What a walk comes to: a file to read, or a folder that cannot be listed, with the reason."""

    path: str
    error: OSError | None = None


@dataclass
class Skipped:
    """What walks skipped.

    Attributes:
        files: how many of each kind: an extension in lower case without its dot, "" where there is none.
        links: to folders.
        hidden: hidden and companion files and folders, whatever is in them.
    """

    files: Counter[str] = field(default_factory=Counter)
    links: int = 0
    hidden: int = 0

    def add_file(self, path: str) -> None:
        """Count a file that is no image."""
        self.files[kind_of(path)] += 1

    def add_link(self, path: str) -> None:
        """Count a link to a folder."""
        self.links += 1

    def since(self, before: Skipped) -> Skipped:
        """Return what was added to an earlier state."""
        return Skipped(self.files - before.files, self.links - before.links, self.hidden - before.hidden)

    def copy(self) -> Skipped:
        """Return the state now."""
        return Skipped(Counter(self.files), self.links, self.hidden)

    @property
    def files_in_words(self) -> str:
        """The files by kind, the most first: `7 files: 3 cr2, 2 mp4, 2 without extension`."""
        total = self.files.total()
        kinds = sorted(self.files.items(), key=lambda item: (-item[1], not item[0], item[0]))
        parts = [f"{count:,} {printable(kind) or 'without extension'}" for kind, count in kinds[:_KINDS_TOLD]]
        if rest := sum(count for _, count in kinds[_KINDS_TOLD:]):
            parts.append(f"{rest:,} others")
        return f"{total:,} {'file' if total == 1 else 'files'}: {', '.join(parts)}"

    @property
    def links_in_words(self) -> str:
        """The links: `2 links to folders`."""
        return f"{self.links:,} {'link to a folder' if self.links == 1 else 'links to folders'}"


class Note(NamedTuple):
    """What was skipped in folders, and by what the command line chooses a hint about it."""

    text: str
    reason: Reason | None


class Walker:
    """Goes through folders for the images in them, and remembers what it skipped.

    Args:
        all_files: take files whose bytes begin like an image's too, whatever they are called.
        follow: follow links to folders. Each folder is visited once, so that links may lead in circles.
        skipped: where to count.
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
        """Yield the images in a folder and those below it, in the order of their names.

        Links to files are taken. Hidden and companion files are not, though the folder itself may be one.
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
        """Yield what was skipped, in sentences; hidden and companion files are not worth one."""
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
    """Return what is in a folder, sorted by name, and how many hidden and companion files were left out.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as scan:
        entries = list(scan)
    kept = sorted((entry for entry in entries if not is_companion(entry.name)), key=lambda entry: entry.name)
    return kept, len(entries) - len(kept)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell a folder, or a link to one; a link that leads in a circle is none."""
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
    """Tell from a file's name whether it is an image."""
    return os.path.splitext(name)[1].lower() in image_extensions()


def begins_like_image(path: str) -> bool:
    """Tell from a file's first bytes whether it is an image. What cannot be read, or is no file, is none."""
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
    """Tell from the first bytes of a file, 64 at most, whether they begin an image that could be decoded."""
    from PIL import Image

    Image.init()
    for name, (_, accept) in Image.OPEN.items():
        if name in _TEXTUAL:
            if _TEXTUAL[name].match(head):
                return True
        elif name not in _NOT_TOLD_BY_BYTES and accept is not None:
            with suppress(Exception):  # of too few bytes
                if accept(head[:16]):
                    return True
    return _HEIF.match(head) is not None


def kind_of(path: str) -> str:
    """Return what to call a file that was skipped by: its extension, `jpg.1` for `x.jpg.1`; "" if it has none."""
    stem, extension = os.path.splitext(path)
    kind = extension[1:].lower()
    if kind.isdecimal() and (before := os.path.splitext(stem)[1]):
        kind = before[1:].lower() + extension
    return kind if len(kind) <= _LONGEST_KIND else "with a long extension"


def _identity(folder: str) -> object:
    """Return what is the same of a folder by whatever path."""
    try:
        status = Path(folder).stat()
    except OSError:
        return folder
    return status.st_dev, status.st_ino
