"""Handle Ctrl-C, SIGTERM and SIGHUP: clean up, then exit with the signal's exit code (128 + number)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NOTES = {"SIGTERM": "terminated", "SIGHUP": "hung up"}  # Windows has only SIGTERM
_ONE_STOP = 1.0
"""Signals within this many seconds count as one: `timeout` and shells signal a process and then its group."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal; a KeyboardInterrupt, so that libraries let it pass.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.note = _NOTES[signal.Signals(number).name]


raised: list[Stopped] = []
"""All that were raised, as C code may have replaced one by another error."""


def install() -> None:
    """Install handlers that raise `Stopped` in the main thread, except for ignored signals, as under nohup."""
    last = float("-inf")

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        previous, last = last, time.monotonic()
        # A second signal would interrupt the clean-up; but if a library swallowed the first, it must count.
        if last - previous > _ONE_STOP:
            raised.append(Stopped(number))
            raise raised[-1]

    for name in _NOTES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


@contextmanager
def requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or a signal asked the run to stop.

    The first signal takes effect when that function is called. A second signal, at least a second later, or a
    signal before the first call stops the run at once.
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
    """Yield a list that collects the signals received, to be forwarded to child processes."""
    stops.clear()
    with _handled(lambda number, _: stops.append(number)):
        yield stops


stops: list[int] = []
"""The signals that asked a run to stop."""


def as_interrupt() -> KeyboardInterrupt:
    """Return the exception that ends the program for the signal received."""
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
