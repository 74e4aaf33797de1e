"""Atomic file writes (`NAME.partial`, then rename), checks that outputs are writable, the cache folder, hashes."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import itertools
import mmap
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from resnetd_cli.errors import OutputError, OutputExists, Reason, ResnetdError
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.wording import system_reason

PARTIAL = ".partial"
"""The suffix of files that are not complete."""
_LONGEST_NAME = 255
_MOST_LINKS = 40
_STANDARD_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?P<process>self|\d+))/fd/(?P<number>\d+)")
_BLOCK = 2**20


def cache_dir() -> Path:
    """Return the folder for class names and compiled models: `RESNETD_CACHE`, or the platform's cache folder."""
    if override := os.environ.get("RESNETD_CACHE"):
        return expand_user(override)
    import platformdirs

    try:
        return Path(platformdirs.user_cache_dir("resnetd", appauthor=False))
    except RuntimeError:  # no home folder: cache nothing, rather than in a folder that others can write to
        return Path(os.devnull, "resnetd")


def has_cache() -> bool:
    """Return whether there is a cache folder."""
    return Path(os.devnull) not in cache_dir().parents


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Check before the work starts that its output can be written.

    Raises:
        OutputExists: the file exists and `overwrite` is not set.
        OutputError: the folder does not exist, or the file or folder is not writable.
    """
    if is_stream(path):
        return
    target = followed(path)
    if target.is_symlink():
        raise OutputError(f"{path} is a link that leads back to itself", reason=Reason.OUTPUT_NOT_WRITABLE)
    if target.is_dir():
        raise OutputError(f"{path} is a folder", hint="name a file to write to")
    if target.exists() and not overwrite:
        raise OutputExists(f"{path} exists", reason=Reason.OUTPUT_EXISTS)
    if target.exists() and not os.access(target, os.W_OK):
        hint = f"chmod u+w {shell_word(path)} makes it writable"
        raise OutputError(f"{path} is write-protected", hint=hint)
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder", hint=f"make it first: mkdir -p {shell_word(folder)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: permission denied", reason=Reason.OUTPUT_NOT_WRITABLE)


def followed(path: Path) -> Path:
    """Return the target of a symbolic link, which need not exist; any other path unchanged."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def is_stream(path: Path) -> bool:
    """Return whether the path is a pipe, a device or an open descriptor, which a rename cannot replace."""
    if descriptor_of(path) is not None:
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def descriptor_of(path: Path) -> int | None:
    """Return the file descriptor that a path such as `/dev/fd/3` stands for; None for other paths."""
    for _ in range(_MOST_LINKS):
        path = Path(os.path.normpath(path))
        if str(path) in _STANDARD_STREAMS:
            return _STANDARD_STREAMS[str(path)]
        if match := _DESCRIPTOR.fullmatch(str(path)):
            return int(match["number"]) if match["process"] in (None, "self", str(os.getpid())) else None
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


class OutputFile:
    """A file named `NAME.partial` until it is complete. If the process is killed, the partial file remains.

    A replaced file passes on its permissions, and its owner where the system allows that. Other hard links to it
    keep the old content.

    Args:
        path: the final name.
        overwrite: replace an existing file. Otherwise a file created under this name meanwhile is kept.
        suffix: added to the name of the partial file if that is in another format.
        follow: if the name is a symbolic link, write its target; otherwise the link is replaced.

    Attributes:
        partial: the path while it is incomplete.

    Raises:
        OutputError: the partial file cannot be created.
    """

    def __init__(self, path: Path, *, overwrite: bool, suffix: str = "", follow: bool = True) -> None:
        self.path = path
        self._overwrite = overwrite
        self._target = followed(path) if follow else path
        replaced = _status(self._target) if overwrite else None
        # The replacement of a private file must not be public, even while it is written.
        mode = 0o600 if replaced else 0o666
        try:
            self.partial, descriptor = _create_beside(self._target, f"{suffix}{PARTIAL}", mode)
        except OSError as error:
            raise write_error(path, error) from error
        if replaced:
            _copy_owner_and_permissions(descriptor, replaced)
        self._raw = _Raw(descriptor, "w")
        self._file: IO[Any] = io.BufferedWriter(self._raw)
        self._complete = 0, 0
        self._settled = False

    def open(self, mode: str = "wb", **kwargs: Any) -> IO[Any]:
        """Return the stream to write to. `mode`: `wb` or `w`; `kwargs`: options of `io.TextIOWrapper`."""
        if "b" not in mode:
            self._file = io.TextIOWrapper(self._file, **kwargs)
        return self._file

    @property
    def records(self) -> int:
        """The number of records at the last `mark`."""
        return self._complete[1]

    @property
    def is_settled(self) -> bool:
        """Whether it has its final name, or is kept as a partial file."""
        return self._settled

    def mark(self, records: int) -> None:
        """Mark everything written so far as complete, with its number of records, for `rewind` and `keep`."""
        with self.reporting():
            self._file.flush()
        # In one assignment: an interrupt could come between two.
        self._complete = os.lseek(self._raw.fileno(), 0, os.SEEK_CUR), records

    def publish(self) -> None:
        """Flush the file to disk and give it its final name.

        Raises:
            OutputError: the system refused, or another file took the name: then the partial file is kept.
        """
        with self.reporting():
            self._file.flush()
            os.fsync(self._raw.fileno())
            self._file.close()
            if self._overwrite:
                self.partial.replace(self._target)
                self._settled = True
                return
            try:
                self._take_name()
            except FileExistsError as error:
                self._settled = True
                hint = f"the result of this one is in {shell_word(self.partial)}"
                raise OutputError(
                    f"{self.path} was created by another program in the meantime", hint=hint
                ) from error

    def rewind(self) -> None:
        """Discard everything written after the last `mark`."""
        with self._raw.discarding_writes(), suppress(OSError, ValueError):
            self._file.flush()
        with suppress(OSError, ValueError):
            os.ftruncate(self._raw.fileno(), self._complete[0])
            os.lseek(self._raw.fileno(), self._complete[0], os.SEEK_SET)

    def keep(self) -> bool:
        """Keep the partial file, and return whether it exists."""
        self._settled = True
        with suppress(OSError, ValueError):
            self._file.flush()
            os.fsync(self._raw.fileno())
        with self._raw.discarding_writes(), suppress(OSError):  # the disk may be full
            self._file.close()
        return self.partial.exists()

    def discard(self) -> None:
        """Remove the partial file, unless it was published or kept."""
        if self._settled:
            return
        with self._raw.discarding_writes(), suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.partial.unlink()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn OSErrors about this file into `OutputError`; errors about other files and closed pipes pass."""
        with _as_output_error(self.path, self.path, self._target, self.partial):
            yield

    def _take_name(self) -> None:
        """Rename the partial file without replacing another.

        Raises:
            FileExistsError: a file has the name already.
        """
        try:
            os.link(self.partial, self._target)
        except FileExistsError:
            raise
        except OSError:  # no hard links on this file system: reserve the name with an empty file
            os.close(os.open(self._target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            self.partial.replace(self._target)
            self._settled = True
        else:
            self._settled = True
            with suppress(OSError):
                self.partial.unlink()


@contextmanager
def open_atomic(
    path: Path, mode: str = "wb", *, overwrite: bool = True, follow: bool = True, **kwargs: Any
) -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when it is complete and on disk.

    Pipes and devices are written to directly. After an exception, including an interrupt, nothing remains.

    Raises:
        OutputError: the system refused (no space, no permission, ...), or the name was taken meanwhile.
    """
    if is_stream(path):
        with open_stream(path, mode, **kwargs) as stream:
            yield stream
        return
    file = OutputFile(path, overwrite=overwrite, follow=follow)
    try:
        with file.reporting():
            yield file.open(mode, **kwargs)
        file.publish()
    finally:
        file.discard()


@contextmanager
def open_stream(path: Path, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Open a pipe, a device or a descriptor, which is written to directly.

    Raises:
        OutputError: the system refused.
    """
    number = descriptor_of(path)
    with (
        _as_output_error(path, path),
        path.open(mode, **kwargs) if number is None else os.fdopen(os.dup(number), mode, **kwargs) as stream,
    ):
        yield stream


TEXT: Mapping[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
"""How text is written: bytes of file names that are not UTF-8 pass through."""


def open_atomic_text(path: Path, *, overwrite: bool = True) -> AbstractContextManager[IO[str]]:
    """Open a UTF-8 file as `open_atomic` does; bytes of file names that are not UTF-8 pass through."""
    return open_atomic(path, "w", overwrite=overwrite, **TEXT)


def write_atomic(path: Path, data: bytes) -> None:
    """Write the bytes to the path atomically, creating its folder if needed.

    A symbolic link is replaced, as its target may be shared, for example in the hub's cache.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with open_atomic(path, follow=False) as file:
        file.write(data)


def sha256(*paths: Path) -> str:
    """Return the SHA-256 of the concatenated files, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:  # nothing to map
                continue
            # In one call: after each call a thread has to wait for the interpreter lock.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                digest.update(content)
    return digest.hexdigest()


def hash_file(path: Path, digest: Any) -> str:
    """Add a file's content to a hashlib digest and return it in hexadecimal."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def write_error(path: Path | str, error: OSError) -> OutputError:
    """Return the error to show when the system refuses a write."""
    message, hint = f"cannot write {path}: {system_reason(error)}", too_many_files_hint(error)
    return OutputError(message, hint=hint, reason=None if hint else Reason.OUTPUT_NOT_WRITABLE)


def too_many_files_hint(error: OSError) -> str | None:
    """Return the hint for a process that may not open more files; None for other errors."""
    return "ulimit -n 1024 allows more" if error.errno in (errno.EMFILE, errno.ENFILE) else None


@contextmanager
def _as_output_error(path: Path, *ours: Path) -> Iterator[None]:
    """Turn OSErrors that name no file, or one of `ours`, into `OutputError`; closed pipes pass."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)) in ours:
            raise write_error(path, error) from error
        raise


class _Raw(io.FileIO):
    """A descriptor that can discard writes, for buffers that flush when they are closed."""

    _drops = False

    @contextmanager
    def discarding_writes(self) -> Iterator[None]:
        self._drops = True
        try:
            yield
        finally:
            self._drops = False

    def write(self, data: Any, /) -> int:
        return len(data) if self._drops else super().write(data)


def _create_beside(target: Path, suffix: str, mode: int) -> tuple[Path, int]:
    """Create a file beside the target with a similar name, and return its path and a descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    for count in itertools.count(1):
        ending = suffix if count == 1 else f".{count}{suffix}"
        stem = target.name
        while len(os.fsencode(stem + ending)) > _LONGEST_NAME:
            stem = stem[:-1]
        path = target.with_name(stem + ending)
        with suppress(FileExistsError):
            return path, os.open(path, flags, mode)
    raise AssertionError


def partial_files(path: Path) -> Iterator[Path]:
    """Yield the partial files that killed processes left of a file."""
    name = glob.escape(path.name)
    for pattern in (f"{name}{PARTIAL}", f"{name}.[0-9]*{PARTIAL}"):
        yield from path.parent.glob(pattern)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _copy_owner_and_permissions(descriptor: int, status: os.stat_result) -> None:
    """Copy another file's permissions to a new one, and its owner as far as the system allows."""
    if not hasattr(os, "fchmod"):  # Windows
        return
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except OSError:
        with suppress(OSError):
            os.fchown(descriptor, -1, status.st_gid)
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o777)


def umask() -> int:
    """Return the process's umask: the permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def expand_user(path: str | Path) -> Path:
    """Return a path with `~` expanded; unchanged if the home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def current_folder() -> Path:
    """Return the current folder.

    Raises:
        ResnetdError: it was removed.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise ResnetdError("the current folder is gone", hint="cd to an existing folder") from error


def name_temporary_folder() -> None:
    """Give `tempfile` a folder even if none is writable, as on a full disk.

    Libraries ask for its name when they are imported, and may never write to it.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.environ.get("TMPDIR") or os.sep + "tmp"


def name_user() -> None:
    """Set a user name if the system has none: libraries name folders after it."""
    import getpass

    try:
        getpass.getuser()
    except (OSError, KeyError, ImportError):  # which of them depends on Python's version
        os.environ["USER"] = "nobody"
