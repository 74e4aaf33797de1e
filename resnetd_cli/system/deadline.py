"""Deadlines on a monotonic clock, for timeouts."""

from __future__ import annotations

import time

FOREVER = 1e6
"""Seconds: eleven days. Systems reject waits that are much longer."""


class Deadline:
    """A moment a number of seconds from now.

    Args:
        seconds: how far away it is.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = min(seconds, FOREVER)
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """The seconds left; 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it has passed."""
        return self.left == 0.0
