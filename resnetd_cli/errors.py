"""The exceptions, with their exit codes, error kinds and reasons.

    ResnetdError                1  failed
    ├── UsageError              2  the command line is wrong
    │   ├── UnknownModel           no such model (the hint lists similar ones)
    │   └── OutputExists           the output already exists
    ├── WeightsError               the weights are missing or unreadable, or do not fit
    │   └── HubError               the hub did not provide them
    ├── LabelsError                the class names are missing or unreadable, or do not fit
    ├── ModelError                 the model cannot do what was requested
    ├── DataError                  the labelled images cannot be used for training or evaluation
    ├── OutputError                the output cannot be written
    ├── CacheError                 the cache cannot be written; predictions do not need it
    └── InputError              3  one input failed; the run continues and writes a row for it

The library raises these and never prints or exits; `cli/app.py` holds the one handler.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import TypedDict


class ExitCode(IntEnum):
    """The exit codes of the program."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    """Finished, but some inputs failed; each has a row that says why."""
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


class Reason(Enum):
    """Why something failed. `cli/hints.py` turns it into a hint, as command-line options may help."""

    # Inputs: reading and decoding.
    TOO_MANY_BYTES = auto()
    TOO_MANY_PIXELS = auto()
    TOO_SLOW = auto()
    SERVER_TOO_SLOW = auto()
    SERVER_BUSY = auto()
    PRIVATE_HOST = auto()
    TRUNCATED = auto()
    NO_MORE_PROCESSES = auto()
    NO_MORE_THREADS = auto()
    NO_MEMORY = auto()
    NO_MEMORY_FOR_IMAGE = auto()
    NOT_NAMED_LIKE_IMAGES = auto()
    LINKS_SKIPPED = auto()
    ONLY_LINKS = auto()
    LIST_NOT_OPENED = auto()
    LIST_NOT_READ = auto()
    LIST_ENTRIES = auto()
    NOT_A_LIST = auto()

    # Outputs.
    OUTPUT_EXISTS = auto()
    OUTPUT_NOT_WRITABLE = auto()
    FORMAT_UNCLEAR = auto()

    # Class names.
    LABELS_NOT_FOUND = auto()
    LABELS_NOT_READ = auto()
    LABELS_NOT_A_LIST = auto()
    LABELS_UNORDERED = auto()
    MODEL_NAMES_UNFIT = auto()
    CLASSES_UNKNOWN = auto()
    SOME_CLASSES_UNKNOWN = auto()
    CLASSES_MISSPELT = auto()
    NO_CLASS_KNOWN = auto()

    # Models.
    UNKNOWN_MODEL = auto()
    NOT_OF_TIMM = auto()
    MODEL_OF_ANOTHER_TOOL = auto()
    MODEL_AT_URL = auto()
    WEIGHTS_AS_MODEL = auto()
    NO_WEIGHTS_FILE = auto()
    WEIGHTS_NOT_FOUND = auto()
    SEVERAL_WEIGHTS = auto()
    WEIGHTS_INSIDE = auto()
    UNTRAINED = auto()
    WEIGHTS_NOT_FETCHED = auto()
    HUB = auto()
    SIZE_NOT_TAKEN = auto()
    NO_TEST_SIZE = auto()
    FIXED_SIZE = auto()
    NOT_ON_ONNX = auto()
    NO_INT8 = auto()
    NO_INT8_OF_WEIGHTS = auto()
    NOT_QUANTISED = auto()
    NOT_COMPILED = auto()
    COMPILED_ALREADY = auto()
    NEEDS_CALIBRATION = auto()
    NO_CALIBRATION_IMAGE = auto()
    NO_IMAGE_TO_VERIFY = auto()
    NOT_EXPORTED = auto()
    NO_EXPORTED_FILE = auto()
    BAD_TEMPERATURE = auto()

    # Evaluation.
    SINGLE_OUTPUT = auto()
    NO_REAL_LABEL = auto()
    ALL_TRAINED_ON = auto()
    GROUP_BY = auto()
    EMPTY_SPLIT = auto()
    NO_SPLITS = auto()

    # Training.
    OTHER_SETTING = auto()
    SETTING_WITHOUT_VALUE = auto()
    SETTING_WITHOUT_EFFECT = auto()
    NO_TEACHER = auto()
    IMAGES_RUN_ALONE = auto()
    MICRO_BATCH_TOO_LARGE = auto()
    NOT_A_RECIPE = auto()
    RECIPE_INCOMPLETE = auto()
    NOT_A_SETTING = auto()
    LOSS_NOT_A_NUMBER = auto()
    BATCH_NORM = auto()
    BATCH_NORM_PER_PROCESS = auto()
    BATCH_NORM_BATCH_SIZE = auto()
    BATCH_NORM_MICRO_BATCH = auto()
    BATCH_NORM_BOTH_SIZES = auto()
    TOO_MANY_PROCESSES = auto()
    BATCH_BELOW_PROCESSES = auto()
    WORKERS_NOT_STARTED = auto()
    WORKER_DIED = auto()
    WORKER_FAILED = auto()
    SHARED_MEMORY_FULL = auto()
    PROCESS_DIED = auto()
    RUN_EXISTS = auto()
    RUN_DAMAGED = auto()
    RUN_DIFFERS = auto()
    RUN_OF_ONE_SEED = auto()
    RUN_NOT_WRITABLE = auto()
    NOT_A_RUN = auto()
    REPLACES_ITS_ORIGIN = auto()
    IMAGES_CHANGED = auto()
    FILE_CHANGED = auto()
    CHECKPOINT_NOT_WRITTEN = auto()


class Advice(TypedDict):
    """The part of an error that suggests a remedy; see `ResnetdError`."""

    hint: str | None
    reason: Reason | None
    details: tuple[object, ...]


class ResnetdError(Exception):
    """Base of all errors that are shown to users.

    Args:
        message: what happened, in one line.
        hint: what to try next, in one line. It names no option: the library does not know which command runs.
        reason: from which the command line makes a further hint, shown after `hint`.
        details: values for that hint, such as a size that would work.
    """

    exit_code = ExitCode.FAILED

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        reason: Reason | None = None,
        details: tuple[object, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason
        self.details = details

    @property
    def advice(self) -> Advice:
        """Hint, reason and details, as arguments for another error."""
        return {"hint": self.hint, "reason": self.reason, "details": self.details}

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the hint and the reason when the error is sent to another process."""
        return _remade, (type(self), self.__dict__)


def _remade(kind: type[ResnetdError], state: dict[str, object]) -> ResnetdError:
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


class UsageError(ResnetdError):
    """The command line is wrong."""

    exit_code = ExitCode.USAGE


class UnknownModel(UsageError):
    """No model has this name."""


class OutputExists(UsageError):
    """The output already exists and may not be overwritten."""


class WeightsError(ResnetdError):
    """The weights are missing or unreadable, or do not fit the model."""


class HubError(WeightsError):
    """The hub did not provide the weights."""


class LabelsError(ResnetdError):
    """The class names are missing or unreadable, or do not fit the model."""


class ModelError(ResnetdError):
    """The model cannot do what was requested."""


class DataError(ResnetdError):
    """The labelled images cannot be used for training or evaluation."""


class OutputError(ResnetdError):
    """The output cannot be written."""


class CacheError(ResnetdError):
    """The cache cannot be written."""


class InputError(ResnetdError):
    """One input failed.

    Args:
        kind: the kind of failure, from the closed set.
        message: what happened, in one line.
        hint: as for `ResnetdError`.
        reason: as for `ResnetdError`.
        details: as for `ResnetdError`.
    """

    exit_code = ExitCode.PARTIAL

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        hint: str | None = None,
        reason: Reason | None = None,
        details: tuple[object, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, reason=reason, details=details)
        self.kind = kind


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if it has none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__).rstrip(".")


def innermost(error: BaseException) -> BaseException:
    """Return the original cause of an error, which network libraries wrap several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
