"""The progress bar of commands that process images: images done, rate and time left."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta

from rich.console import Console
from rich.control import Control
from rich.progress import Progress, Task
from rich.progress_bar import ProgressBar
from rich.segment import ControlType
from rich.table import Table

_BAR = 20
_BAR_FROM = 70
"""The terminal width from which the bar is shown beside the words."""
_REFRESH_SECONDS = 0.2
_ERASE = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class ImageBar:
    """One line with the images done, their rate and the time left. It vanishes at the end.

    Rich's own display takes 5 ms of processor time to let one line of output through; there may be 500 a second.
    It also hides the cursor, which stays hidden if the program is suspended or killed.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._numbers = Progress(console=console, auto_refresh=False)
        self._task = self._numbers.add_task("", total=None)
        self._line = ""
        self._lock = threading.RLock()
        self._ended = threading.Event()

    def __enter__(self) -> ImageBar:
        self._refresh()
        threading.Thread(target=self._keep_fresh, name="resnetd-bar", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with self._lock, suppress(OSError):  # the terminal may be gone
            self._console.control(_ERASE)

    def set_total(self, total: int | None) -> None:
        """Set the number of images, once it is known."""
        self._numbers.update(self._task, total=total)

    def advance(self, images: int = 1) -> None:
        """Count some images."""
        self._numbers.advance(self._task, images)

    def stop(self) -> None:
        """Hide the bar until `start`, so that output can be printed."""
        self._lock.acquire()
        self._console.control(_ERASE)

    def start(self) -> None:
        """Show the bar again, below the output."""
        try:
            self._draw()
        finally:
            self._lock.release()

    def _keep_fresh(self) -> None:
        while not self._ended.wait(_REFRESH_SECONDS):
            self._refresh()

    def _refresh(self) -> None:
        with self._lock, suppress(OSError):
            if self._ended.is_set():
                return
            with self._console.capture() as capture:
                self._console.print(self._rendered(), end="")
            self._line = capture.get().removesuffix("\n")
            self._console.control(_ERASE)
            self._draw()

    def _draw(self) -> None:
        self._console.file.write(self._line)
        self._console.file.flush()

    def _rendered(self) -> Table | str:
        (task,) = self._numbers.tasks
        width = self._console.width - 1  # read each time, as the terminal may be resized
        if width < _BAR_FROM:
            return in_words(task, width)
        row = Table.grid(padding=(0, 2))
        row.add_row(ProgressBar(task.total, task.completed, _BAR), in_words(task, width))
        return row


def in_words(task: Task, width: int) -> str:
    """Return the images done, their rate and the time left, or as much of that as fits the width."""
    total = "" if task.total is None else f"/{int(task.total):,}"
    parts = [f"{int(task.completed):,}{total} images"]
    if task.speed:
        parts.append(f"{task.speed:,.{0 if task.speed >= 100 else 1}f} images/s")
    if task.total is None:
        parts.append(f"{_clock(task.elapsed or 0)} elapsed")
    elif task.time_remaining is not None:
        parts.append(f"{_clock(task.time_remaining)} left")
    while len(parts) > 1 and len("  ".join(parts)) > width:
        del parts[1]
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
