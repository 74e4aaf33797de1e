"""Files that appear whole or not at all, and the folder the program keeps its own in."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from resnetd_cli.errors import OutputError, OutputExists, ResnetdError
from resnetd_cli.escaping import shell_word

_TEMPORARY = ".resnetd-"
TEMPORARY_FILES = f"{_TEMPORARY}*.tmp"
"""What matches files that a killed process left half written."""
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


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Find out before the work, not after it, that the result cannot be written.

    Raises:
        OutputExists: the file is there and `overwrite` is not set.
        OutputError: the folder is missing or may not be written to.
    """
    if is_stream(path):
        return
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint="name a file to write to")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists", hint="--overwrite replaces it")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder", hint=f"make it first: mkdir -p {shell_word(folder)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: permission denied", hint="choose another place with -o")


def is_stream(path: Path) -> bool:
    """Tell whether the path is a pipe or a device, which cannot be replaced by a rename."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def open_atomic(path: Path, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Open a file that takes its name only when all of it is written and on the disk.

    A pipe or a device is written to directly. On any exception, an interrupt too, nothing remains.

    Raises:
        OutputError: the system refused (no space, no permission, ...).
    """
    with _as_output_error(path):
        if is_stream(path):
            with path.open(mode, **kwargs) as stream:
                yield stream
            return
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, mode, **kwargs) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~umask())  # mkstemp makes private files
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def open_atomic_text(path: Path) -> AbstractContextManager[IO[str]]:
    """Open a UTF-8 file as `open_atomic` does; bytes of file names that are not UTF-8 pass through."""
    return open_atomic(path, "w", encoding="utf-8", errors="surrogateescape", newline="")


def write_atomic(path: Path, data: bytes) -> None:
    """Write the bytes to the path, whole or not at all, making its folder if needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with open_atomic(path) as file:
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
    reason = error.strerror or str(error)
    hint = too_many_files_hint(error) or "choose another place with -o"
    return OutputError(f"cannot write {path}: {reason.lower()}", hint=hint)


def too_many_files_hint(error: OSError) -> str | None:
    """Return the hint for a process that may not open more files; None for other errors."""
    return "ulimit -n 1024 allows more" if error.errno in (errno.EMFILE, errno.ENFILE) else None


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write into `OutputError`.

    An error that names another file is not ours, nor is a closed pipe an error.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename))
        if named is None or named == path or named.name.startswith(_TEMPORARY):
            raise write_error(path, error) from error
        raise


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
