"""Everything that can go wrong, and the exit code each ends with.

    ResnetdError                1  failed
    ├── UsageError              2  the command line asks for something that cannot be
    │   ├── UnknownModel           no such model (the hint names near ones)
    │   └── OutputExists           the output is there already
    ├── WeightsError               the weights cannot be had, or do not fit
    │   └── HubError               the hub did not give them
    ├── LabelsError                the class names cannot be had, or do not fit
    ├── ModelError                 the model cannot do what was asked of it
    ├── DataError                  the labelled images cannot be trained on, or measured with
    ├── OutputError                the output cannot be written
    ├── CacheError                 the cache cannot be written; answers do not need it
    └── InputError              3  one input failed; the run goes on and gives it a row

The library raises these and never prints or exits; `cli/app.py` holds the one handler.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class ExitCode(IntEnum):
    """What the process ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    """Finished; some inputs failed, and each has a row that says why."""
    INTERRUPTED = 130


class ErrorKind(str, Enum):
    """Why one input failed: the closed set of `error.kind` in the records."""

    NOT_FOUND = "not_found"
    UNREADABLE = "unreadable"
    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    EMPTY = "empty"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    HTTP_STATUS = "http_status"
    BLOCKED = "blocked"

    @property
    def meaning(self) -> str:
        """What the kind stands for, as the README lists it."""
        return _MEANINGS[self]


_MEANINGS = {
    ErrorKind.NOT_FOUND: "no such file or folder, or a pattern that matches nothing",
    ErrorKind.UNREADABLE: "the file is there but cannot be read (permissions, a device, an I/O error)",
    ErrorKind.UNDECODABLE: "the bytes are not an image Pillow can decode, or the image is damaged",
    ErrorKind.TOO_LARGE: "more pixels or bytes than allowed",
    ErrorKind.EMPTY: "zero bytes, or a folder without images",
    ErrorKind.TIMEOUT: "it was not read, or not decoded, in time",
    ErrorKind.CONNECTION: "the server could not be reached, or the connection broke",
    ErrorKind.HTTP_STATUS: "the server answered with an error status",
    ErrorKind.BLOCKED: "a URL that is not fetched: malformed, not http(s), or leading to a private address",
}


class ResnetdError(Exception):
    """Base of all errors that users are meant to read.

    Args:
        message: what happened, one line.
        hint: what to try next, one line.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Let it cross to another process, hint and all."""
        return _remade, (type(self), self.__dict__)


def _remade(kind: type[ResnetdError], state: dict[str, object]) -> ResnetdError:
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


class UsageError(ResnetdError):
    """The command line asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class UnknownModel(UsageError):
    """No model has this name."""


class OutputExists(UsageError):
    """The output is there already and may not be overwritten."""


class WeightsError(ResnetdError):
    """The weights cannot be had, or do not fit the model."""


class HubError(WeightsError):
    """The hub did not give the weights."""


class LabelsError(ResnetdError):
    """The class names cannot be had, or do not fit the model."""


class ModelError(ResnetdError):
    """The model cannot do what was asked of it."""


class DataError(ResnetdError):
    """The labelled images cannot be trained on, or measured with."""


class OutputError(ResnetdError):
    """The output cannot be written."""


class CacheError(ResnetdError):
    """The cache cannot be written."""


class InputError(ResnetdError):
    """One input failed.

    Args:
        kind: the reason, from the closed set.
        message: what happened, one line.
        hint: what to try next, one line.
    """

    exit_code = ExitCode.PARTIAL

    def __init__(self, kind: ErrorKind, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or else its name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__).rstrip(".")


def innermost(error: BaseException) -> BaseException:
    """Return what an error began with: network libraries wrap it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
