"""Decoding in a process of its own, which may hang, crash or ask for too much memory without harm to the run.

A child is started when one is needed, and serves one thread at a time. One that does not answer in time is ended;
one that dies is replaced. `guarded` is the child's side. The processes of `multiprocessing` would not do: they
import the user's own script anew.
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
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from resnetd_cli.errors import ErrorKind, InputError

GRACE = 0.5
"""Seconds that the child may take beyond its time to say so itself."""
_PIPE_SIZE = 2**20
"""Bytes that a pipe should hold, where that can be set: the fewer turns, the quicker."""
_HINT = "convert it to JPEG or PNG"
_idle: deque[_Child] = deque()


def decode(data: bytes, options: Mapping[str, Any]) -> tuple[tuple[int, int], bytearray]:
    """Return an image's width and height, and its pixels: 3 bytes each, row by row.

    Args:
        data: the file.
        options: the fields of `DecodeOptions`.

    Raises:
        InputError: of kind `undecodable`, `too_large` or `timeout`.
    """
    child = _take()
    answer, pixels = child.ask(options, data)
    _idle.append(child)
    if "kind" in answer:
        raise InputError(ErrorKind(answer["kind"]), answer["message"], hint=answer["hint"])
    width, height = answer["size"]
    return (width, height), pixels


def too_late(seconds: float) -> InputError:
    """Return the error of a file that took longer than this to decode."""
    return InputError(ErrorKind.TIMEOUT, f"not decoded in {seconds:g} seconds", hint="--timeout raises the bound")


@atexit.register
def close() -> None:
    """End the children that are idle."""
    while _idle:
        _idle.pop().close()


def _take() -> _Child:
    with suppress(IndexError):
        while True:
            child = _idle.pop()
            if child.is_alive:
                return child
            child.close()
    return _Child()


class _Child:
    """One process, which answers one question after the other."""

    def __init__(self) -> None:
        # It imports from where this process imports, and never from the current folder.
        code = f"import sys; sys.path[:] = {sys.path!r}; from resnetd_cli.guarded import serve; serve()"
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pipesize=_PIPE_SIZE,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread takes memory, none has work
                start_new_session=True,  # Ctrl-C is not for it: it ends when its input does
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            message = f"the process that would decode it cannot be started: {reason}"
            raise InputError(ErrorKind.UNDECODABLE, message, hint=_HINT) from error

    @property
    def pid(self) -> int:
        """The system's number of it."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs: the system may have ended it."""
        return self._process.poll() is None

    def ask(self, options: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        """Send a file and return the answer, and its pixels. After an error the child is not there any more.

        Raises:
            InputError: it did not answer in time, or died.
        """
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            self._process.kill()

        timer = threading.Timer(options["timeout"] + GRACE, end)
        timer.daemon = True
        timer.start()
        try:
            return self._exchange({"options": dict(options), "bytes": len(data)}, data)
        except (OSError, ValueError) as error:  # it went away, in the middle of the answer perhaps
            self.close()
            raise _died(self._process.returncode, options, timed_out=timed_out.is_set()) from error
        except BaseException:
            self._process.kill()
            self.close()
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._process.wait()

    def _exchange(self, question: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        self._stdin.write(json.dumps(question).encode() + b"\n")
        self._stdin.write(data)
        self._stdin.flush()
        answer = json.loads(self._stdout.readline())
        pixels = bytearray(answer.get("bytes", 0))
        if self._stdout.readinto(pixels) != len(pixels):  # type: ignore[attr-defined]
            raise ValueError("the answer ends early")
        return answer, pixels

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout


def _died(code: int, options: Mapping[str, Any], *, timed_out: bool) -> InputError:
    if timed_out or code == -getattr(signal, "SIGALRM", 0):
        return too_late(options["timeout"])
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return InputError(ErrorKind.UNDECODABLE, f"the decoder crashed on it ({how})", hint=_HINT)
