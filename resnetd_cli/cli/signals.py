"""Ctrl-C, SIGTERM and SIGHUP: clean up, then exit with the code that names the signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def install() -> None:
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


@contextmanager
def requests() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether the run was asked to stop, by Ctrl-C or a signal.

    The first one waits for it to be asked; a second one, a second later or more, or one before it was ever asked,
    stops at once.
    """
    stops.clear()
    heard, last = False, float("-inf")

    def should_stop() -> bool:
        nonlocal heard
        heard = True
        return bool(stops)

    def remember(number: int, _: FrameType | None) -> None:
        nonlocal last
        previous, last = last, time.monotonic()
        stops.append(number)
        if not heard or (len(stops) > 1 and last - previous > _ONE_STOP):
            raise as_interrupt()

    with _handled(remember):
        yield should_stop


@contextmanager
def left_to_children() -> Iterator[list[int]]:
    """Give the signals that come, as they come, for the children that this process waits for."""
    stops.clear()
    with _handled(lambda number, _: stops.append(number)):
        yield stops


stops: list[int] = []
"""The signals that asked a run to stop."""


def as_interrupt() -> KeyboardInterrupt:
    """Return what ends the program as the signal asked."""
    number = stops[0] if stops else signal.SIGINT
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    numbers = [getattr(signal, name) for name in ("SIGINT", *_NOTES) if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
