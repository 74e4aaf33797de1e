"""Write files whole or not at all; check outputs before the work; find the cache folder."""

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
"""What the name of a file ends in that is not complete."""
_LONGEST_NAME = 255
_MOST_LINKS = 40
_STANDARD_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?P<process>self|\d+))/fd/(?P<number>\d+)")
_BLOCK = 2**20


def cache_dir() -> Path:
    """Return the folder for downloaded class names and the like: `RESNETD_CACHE`, or the platform's own."""
    if override := os.environ.get("RESNETD_CACHE"):
        return expand_user(override)
    import platformdirs

    try:
        return Path(platformdirs.user_cache_dir("resnetd", appauthor=False))
    except RuntimeError:  # no home folder: nothing is kept, least of all in a folder that others may write to
        return Path(os.devnull, "resnetd")


def has_cache() -> bool:
    """Tell whether there is a place for a cache."""
    return Path(os.devnull) not in cache_dir().parents


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Find out before the work, not after it, that the result cannot be written.

    Raises:
        OutputExists: the file is there and `overwrite` is not set.
        OutputError: the folder is missing or may not be written to.
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
    """Return the file that a link leads to, which may be missing; any other path is returned as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def is_stream(path: Path) -> bool:
    """Tell whether the path is a pipe, a device or an open descriptor, which no rename can replace."""
    if descriptor_of(path) is not None:
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def descriptor_of(path: Path) -> int | None:
    """Return the number of this process's descriptor that a path names, as `/dev/fd/3` does; None for others."""
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
    """A file that is `NAME.partial` until all of it is written. What a killed process wrote is found there.

    A link leads to the file that is meant, which may be missing. A file that takes another's place gets its
    permissions, and its owner where the system allows that. Other hard links to the one replaced
    keep what it held.

    Args:
        path: its name.
        overwrite: replace what has this name. Otherwise a file that turns up there meanwhile stays.
        suffix: added to the name of the partial file, which is in another format.
        follow: where the name is a link, write the file that it leads to; otherwise the link is replaced.

    Attributes:
        partial: where it is for now.

    Raises:
        OutputError: it cannot be made.
    """

    def __init__(self, path: Path, *, overwrite: bool, suffix: str = "", follow: bool = True) -> None:
        self.path = path
        self._overwrite = overwrite
        self._target = followed(path) if follow else path
        replaced = _status(self._target) if overwrite else None
        # What replaces a private file must not be public, not even while it is written.
        mode = 0o600 if replaced else 0o666
        try:
            self.partial, descriptor = _create_beside(self._target, f"{suffix}{PARTIAL}", mode)
        except OSError as error:
            raise write_error(path, error) from error
        if replaced:
            _dress(descriptor, replaced)
        self._raw = _Raw(descriptor, "w")
        self._file: IO[Any] = io.BufferedWriter(self._raw)
        self._complete = 0, 0
        self._settled = False

    def open(self, mode: str = "wb", **kwargs: Any) -> IO[Any]:
        """Return the stream to write to, as `wb` or `w`, with the options of `io.TextIOWrapper`."""
        if "b" not in mode:
            self._file = io.TextIOWrapper(self._file, **kwargs)
        return self._file

    @property
    def records(self) -> int:
        """How many records there were at the last `mark`."""
        return self._complete[1]

    @property
    def is_settled(self) -> bool:
        """Whether it has its name, or is kept without it."""
        return self._settled

    def mark(self, records: int) -> None:
        """Say that what was written so far is complete in itself, and how many records that is."""
        with self.reporting():
            self._file.flush()
        # Both in one step, for an interrupt may come between two.
        self._complete = os.lseek(self._raw.fileno(), 0, os.SEEK_CUR), records

    def publish(self) -> None:
        """Give the file its name, now that all is written.

        Raises:
            OutputError: the system refuses; or another file has the name now: then this one stays where it is.
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
        """Forget what was written after the last `mark`."""
        with self._raw.deaf(), suppress(OSError, ValueError):
            self._file.flush()
        with suppress(OSError, ValueError):
            os.ftruncate(self._raw.fileno(), self._complete[0])
            os.lseek(self._raw.fileno(), self._complete[0], os.SEEK_SET)

    def keep(self) -> bool:
        """Leave what was written under its partial name, and tell whether it is there."""
        self._settled = True
        with suppress(OSError, ValueError):
            self._file.flush()
            os.fsync(self._raw.fileno())
        with self._raw.deaf(), suppress(OSError):  # the disk may be full
            self._file.close()
        return self.partial.exists()

    def discard(self) -> None:
        """Remove what was written, unless it has its name or is kept."""
        if self._settled:
            return
        with self._raw.deaf(), suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.partial.unlink()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn the system's refusals to write into `OutputError`.

        An error that names another file is not ours, nor is a closed pipe an error.
        """
        with _as_output_error(self.path, self.path, self._target, self.partial):
            yield

    def _take_name(self) -> None:
        """Take a name that no file has.

        Raises:
            FileExistsError: one has.
        """
        try:
            os.link(self.partial, self._target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: an empty file keeps the name until it is replaced
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
    """Open a file that takes its name only when all of it is written and on the disk.

    A pipe or a device is written to directly. On any exception, an interrupt too, nothing remains.

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
    """Open a pipe, a device or a descriptor, which is written to where it stands.

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
    """Write the bytes to the path, whole or not at all, making its folder if needed.

    A link is replaced: what it leads to, as in a cache of the hub's, may be shared.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with open_atomic(path, follow=False) as file:
        file.write(data)


def sha256(*paths: Path) -> str:
    """Return the SHA-256 of the files' contents, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:  # nothing to map
                continue
            # In one call, for after each a thread waits its turn to run Python.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                digest.update(content)
    return digest.hexdigest()


def hash_file(path: Path, digest: Any) -> str:
    """Return a hashlib digest, in hexadecimal, that goes on with a file's content."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def write_error(path: Path | str, error: OSError) -> OutputError:
    """Return the error users read when the system refuses a write."""
    message, hint = f"cannot write {path}: {system_reason(error)}", too_many_files_hint(error)
    return OutputError(message, hint=hint, reason=None if hint else Reason.OUTPUT_NOT_WRITABLE)


def too_many_files_hint(error: OSError) -> str | None:
    """Return the hint for a process that may not open more files; None for other errors."""
    return "ulimit -n 1024 allows more" if error.errno in (errno.EMFILE, errno.ENFILE) else None


@contextmanager
def _as_output_error(path: Path, *ours: Path) -> Iterator[None]:
    """Turn the system's refusals to write into `OutputError`.

    An error that names a file which is not ours is not ours, nor is a closed pipe an error.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)) in ours:
            raise write_error(path, error) from error
        raise


class _Raw(io.FileIO):
    """A descriptor that can be made to drop what is written, for buffers that would write when they are closed."""

    _drops = False

    @contextmanager
    def deaf(self) -> Iterator[None]:
        self._drops = True
        try:
            yield
        finally:
            self._drops = False

    def write(self, data: Any, /) -> int:
        return len(data) if self._drops else super().write(data)


def _create_beside(target: Path, suffix: str, mode: int) -> tuple[Path, int]:
    """Return the path of a new file with a name like the target's, and a descriptor of it."""
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
    """Yield what killed processes left of a file."""
    name = glob.escape(path.name)
    for pattern in (f"{name}{PARTIAL}", f"{name}.[0-9]*{PARTIAL}"):
        yield from path.parent.glob(pattern)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _dress(descriptor: int, status: os.stat_result) -> None:
    """Give a new file another's owner, as far as the system allows, and its permissions."""
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
    """Return the permissions that new files are made without."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def expand_user(path: str | Path) -> Path:
    """Return a path with `~` as the home folder; one whose home folder nobody knows stays as it is."""
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
        raise ResnetdError("the current folder is gone", hint="cd to one that is there") from error


def name_temporary_folder() -> None:
    """Let `tempfile` have a folder also where none can be written to, as on a full disk.

    Libraries ask for its name while they are imported, long before they write to it, if ever.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.environ.get("TMPDIR") or os.sep + "tmp"


def name_user() -> None:
    """Give this user a name where the system knows none: libraries name folders of theirs after it."""
    import getpass

    try:
        getpass.getuser()
    except (OSError, KeyError, ImportError):  # which of them depends on Python's version
        os.environ["USER"] = "nobody"
