"""SIGTERM and SIGHUP end a run as Ctrl-C does: what was begun is cleared away; the exit code names the signal."""

from __future__ import annotations

import signal
import time
from types import FrameType

_NOTES = {"SIGTERM": "terminated", "SIGHUP": "hung up"}  # Windows has only the first
_ONE_STOP = 1.0
"""Seconds within which signals are one: `timeout` and shells send theirs to a process and again to its group."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end; to libraries it is an interrupt.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.note = _NOTES[signal.Signals(number).name]


raised: list[Stopped] = []
"""Those that were raised: code in C may have made another error of one."""


def heed() -> None:
    """Raise `Stopped` in the main thread when such a signal comes, unless it is ignored, as under nohup."""
    last = float("-inf")

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        previous, last = last, time.monotonic()
        # A second one would break off the clearing away; but if the first was lost in a library, it must count.
        if last - previous > _ONE_STOP:
            raised.append(Stopped(number))
            raise raised[-1]

    for name in _NOTES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)
