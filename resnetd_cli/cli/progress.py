"""The progress bar of the commands that go through images."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table

_BAR = 20
_BAR_FROM = 70
"""Narrower terminals show the words alone."""


def image_progress(console: Console) -> Progress:
    """Return a display of the images done, their rate and the time left. It vanishes at the end."""
    return Progress(_Images(console), console=console, transient=True)


class _Images(ProgressColumn):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> RenderableType:
        width = self._console.width  # now: the terminal may have been resized
        if width < _BAR_FROM:
            return in_words(task, width)
        row = Table.grid(padding=(0, 2))
        row.add_row(ProgressBar(task.total, task.completed, _BAR), in_words(task, width))
        return row


def in_words(task: Task, width: int) -> str:
    """Return how many images are done, how quickly, and the time left: as much of it as there is room for."""
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
