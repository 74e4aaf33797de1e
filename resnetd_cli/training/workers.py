"""The worker processes that load images: shared memory or pipes, and one line when a worker dies."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import Reason, ResnetdError, first_line
from resnetd_cli.system.memory import is_shortage

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from torch.utils.data import DataLoader

    from resnetd_cli.training.batch import Batch

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Linux has it
_AHEAD = 2
"""Batches that each worker loads ahead."""
_FILES = 2
"""Files that a batch in shared memory keeps open: its images and their classes."""
_NOT_SENT = 71
"""Exit code of a worker that could not send a batch."""
_GRACE = 0.5
"""Seconds within which a dead worker has an exit code."""


@dataclass(frozen=True)
class Workers:
    """The processes that load images.

    Attributes:
        count: how many; 0: the training process loads them itself.
        by_pipe: they send batches through a pipe instead of shared memory, which is somewhat slower.
    """

    count: int
    by_pipe: bool = False

    @classmethod
    def fitting(cls, count: int, batches: Sequence[int], processes: int) -> Workers:
        """Return workers that use shared memory if there is enough of it: containers often have 64 MB.

        Each batch in shared memory also takes open files, of which some systems allow 256.

        Args:
            count: number of workers for each training process.
            batches: bytes in a batch of each loader.
            processes: number of training processes.
        """
        needed = processes * sum((_AHEAD * count + 2) * size for size in batches)
        files = len(batches) * (_AHEAD * count + 2) * _FILES
        return cls(count, by_pipe=needed > free_shared_memory() or files > open_files() // 2)


def free_shared_memory() -> float:
    """Return how many bytes of shared memory are free; infinity if the system has no limit."""
    if not sys.platform.startswith("linux"):
        return float("inf")
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize if os.access(_SHARED_MEMORY, os.W_OK) else 0


def open_files() -> float:
    """Return how many files this process may have open; infinity if the system has no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return float("inf")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if allowed == resource.RLIM_INFINITY else allowed


class Batches:
    """Torch's loader, with one line for each way in which its workers fail.

    Raises:
        ResnetdError: on iteration, if a worker died or none could be started.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, as tensors."""
        if not self._loader.num_workers:
            yield from self._loader
            return
        try:
            batches = iter(self._loader)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            message = f"the processes that load images cannot be started: {reason.lower()}"
            raise ResnetdError(message, reason=Reason.WORKERS_NOT_STARTED) from error
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                raise _failure(error, _ended(getattr(batches, "_workers", ()))) from error
            yield batch.unpacked()


@contextmanager
def watched() -> Iterator[None]:
    """Report a worker's death in one line; torch raises it anywhere in the training process.

    Raises:
        ResnetdError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker"):
            raise _failure(error) from error
        raise


def prepare_worker(_: int) -> None:
    """Prepare a worker process.

    Signals that ask for an end often reach the whole process group. They are for the training process, which needs
    this one to finish its step. A batch that cannot be sent ends this process, which the training process notices.
    """
    from multiprocessing.queues import Queue

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # the training process reports what goes wrong here
            os.dup2(2, sys.stderr.fileno())
    # Otherwise the batch is lost, and the training process waits for it forever.
    Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]


def _give_up(_error: Exception, _item: object) -> None:
    os._exit(_NOT_SENT)


def _ended(processes: Sequence[BaseProcess]) -> str:
    """Stop the workers and return what one of them died of, in torch's words; "" if none died."""
    _unwatch()
    deadline = time.monotonic() + _GRACE
    while all(process.exitcode is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    codes = [process.exitcode for process in processes if process.exitcode]
    for process in processes:
        process.kill()
    if not codes:
        return ""
    return f"killed by signal: {signal.strsignal(-codes[0])}" if codes[0] < 0 else f"exit code {codes[0]}"


def _unwatch() -> None:
    """Stop torch from watching its workers: it raises an error for each one that dies, at any moment."""
    if hasattr(signal, "SIGCHLD"):
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _failure(error: Exception, death: str = "") -> ResnetdError:
    """Return the error that users read; what a worker died of is only in torch's message."""
    _unwatch()
    text = f"{death}\n{error}"
    if killed := re.search(r"killed by signal: (.+?)\.? *(\n|$|It is possible)", text):
        reason = Reason.SHARED_MEMORY_FULL if "Bus error" in text else Reason.WORKER_DIED
        return ResnetdError(f"a process that loads images died: {killed[1].lower()}", reason=reason)
    if f"exit code {_NOT_SENT}" in text:
        return ResnetdError("a process that loads images could not send a batch", reason=Reason.SHARED_MEMORY_FULL)
    if death or "exited unexpectedly" in text or isinstance(error, (EOFError, ConnectionError)):
        return ResnetdError("a process that loads images died: it gave no reason", reason=Reason.WORKER_DIED)
    if is_shortage(error):
        return ResnetdError("a process that loads images ran out of memory", reason=Reason.WORKER_DIED)
    last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return ResnetdError(f"a process that loads images failed: {last[0].strip()}", reason=Reason.WORKER_FAILED)
