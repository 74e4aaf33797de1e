"""Decode images in a separate process, which may hang, crash or run out of memory without harming the run.

A child is started when needed, and serves one thread at a time. If it does not answer in time it is killed; if it
dies it is replaced. `worker` is the child's side. `multiprocessing` is no option, as it imports the user's own
script again.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, NamedTuple

from resnetd_cli.errors import ErrorKind, InputError, Reason
from resnetd_cli.system.deadline import FOREVER
from resnetd_cli.system.wording import system_reason

GRACE = 0.5
"""Extra seconds in which the child may report a timeout itself."""
_PIPE_SIZE = 2**20
"""Size of a pipe's buffer, where it can be set: fewer switches between the processes are faster."""
_HINT = "convert it to JPEG or PNG"
_idle: deque[_Child] = deque()


class Answer(NamedTuple):
    """An image: its width and height, its pixels, and whether EXIF orientation turned it."""

    size: tuple[int, int]
    pixels: bytearray
    turned: bool


def decode(data: bytes, options: Mapping[str, Any], crop_for: Mapping[str, Any] | None = None) -> Answer:
    """Decode a file in a child process; the pixels are RGB, 3 bytes each, row by row.

    Args:
        data: the file.
        options: the fields of `DecodeOptions`.
        crop_for: the fields of `Preprocessing`, to resize and crop the image for a model.

    Raises:
        InputError: of kind `undecodable`, `too_large` or `timeout`; `unreadable` if no process can be started.
    """
    return _ask(data, {"options": dict(options), "crop_for": crop_for and dict(crop_for)})


def too_late(seconds: float) -> InputError:
    """Return the error for a file that took longer than this to decode."""
    return InputError(ErrorKind.TIMEOUT, f"not decoded in {seconds:g} seconds", reason=Reason.TOO_SLOW)


@atexit.register
def close() -> None:
    """Stop the idle children."""
    while _idle:
        _idle.pop().close()


def _ask(data: bytes, question: Mapping[str, Any]) -> Answer:
    child = _take()
    answer = child.ask(question, data)
    _idle.append(child)
    if isinstance(answer, InputError):
        raise answer
    return answer


def _take() -> _Child:
    with suppress(IndexError):
        while True:
            child = _idle.pop()
            if child.is_alive:
                return child
            child.close()
    return _Child()


class _Child:
    """A child process, which decodes one file after the other."""

    def __init__(self) -> None:
        # The child has this process's sys.path, so it imports from the current folder only if this process does.
        serve = "from resnetd_cli.pipeline.decode.worker import serve; serve()"
        code = f"import sys; sys.path[:] = {sys.path!r}; {serve}"
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pipesize=_PIPE_SIZE,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads would only take memory
                start_new_session=True,  # no Ctrl-C: it ends when its input does
            )
        except OSError as error:
            message = f"the process that would decode it cannot be started: {system_reason(error)}"
            raise InputError(ErrorKind.UNREADABLE, message, reason=Reason.NO_MORE_PROCESSES) from error

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it is running: the system may have killed it."""
        return self._process.poll() is None

    def ask(self, question: Mapping[str, Any], data: bytes) -> Answer | InputError:
        """Send a question and a file, and return its size and pixels, or the error.

        Raises:
            InputError: the child did not answer in time, or died. It is gone now.
        """
        timeout = question["options"]["timeout"]
        clock = _Clock(min(timeout, FOREVER) + GRACE, self._process.kill)
        try:
            answer = self._exchange({**question, "bytes": len(data)}, data)
            clock.stop()
            return answer
        # It died, perhaps in the middle of the answer, or the answer is malformed.
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.close()
            raise _died(self._process.returncode, timeout, timed_out=clock.has_rung) from error
        except BaseException:
            self.close()
            raise
        finally:
            clock.cancel()

    def close(self) -> None:
        """Kill it."""
        self._process.kill()  # does not change the exit code if it is dead already
        with suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._process.wait()

    def _exchange(self, question: Mapping[str, Any], data: bytes) -> Answer | InputError:
        self._stdin.write(json.dumps(question).encode() + b"\n")
        self._stdin.write(data)
        self._stdin.flush()
        answer = json.loads(self._stdout.readline())
        if "kind" in answer:
            reason = Reason[answer["reason"]] if answer["reason"] else None
            return InputError(ErrorKind(answer["kind"]), answer["message"], hint=answer["hint"], reason=reason)
        width, height = answer["size"]
        pixels = bytearray(3 * width * height)
        if self._stdout.readinto(pixels) != len(pixels):  # type: ignore[attr-defined]
            raise ValueError("the answer ends early")
        return Answer((width, height), pixels, bool(answer.get("turned")))

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout


class _Clock:
    """Calls a function once after some seconds, unless stopped before; never if no thread can be started."""

    def __init__(self, seconds: float, ring: Callable[[], object]) -> None:
        self.has_rung = False
        self._is_stopped = False
        self._ring = ring
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        with suppress(RuntimeError):  # the child has its own alarm
            self._timer.start()

    def stop(self) -> None:
        """Stop it.

        Raises:
            ValueError: the time is already over.
        """
        with self._lock:
            self._is_stopped = True
            if self.has_rung:
                raise ValueError("the time is over")

    def cancel(self) -> None:
        """Stop it, even if the time is over."""
        self._timer.cancel()

    def _end(self) -> None:
        with self._lock:
            if not self._is_stopped:
                self.has_rung = True
                self._ring()


def _died(code: int, timeout: float, *, timed_out: bool) -> InputError:
    if timed_out or code == -getattr(signal, "SIGALRM", 0):
        return too_late(timeout)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return InputError(ErrorKind.UNDECODABLE, f"the decoder crashed on it ({how})", hint=_HINT)
