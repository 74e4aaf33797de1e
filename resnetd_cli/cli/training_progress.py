"""Show the progress of training: a bar for the first pass and the steps, and a line per epoch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from resnetd_cli.cli.console import Terminal

if TYPE_CHECKING:
    from resnetd_cli.training.progress import EpochRow, Progress

_REFRESH_SECONDS = 0.2


class Display:
    """Shows loss, accuracy, learning rate and time left: a bar on a terminal, and a line for each epoch."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._bar: Any = None
        self._task: Any = None
        self._epochs = 0
        self._steps_per_epoch = 1
        self._images = 1
        self._began = (0.0, 0)
        self._shown = 0.0
        self._val_top1: float | None = None
        self._is_surveying = False

    def survey(self, done: int, total: int) -> None:
        """Show how many images the first pass has read."""
        if not self._terminal.shows_progress:
            return
        now = time.monotonic()
        if not self._is_surveying:
            self.close()  # of a run before this one
            self._bar, self._task = self._terminal.training_bar(total, 0)
            self._is_surveying = True
            self._began = now, done
        if done == total:
            self.close()
            self._is_surveying = False
        elif now - self._shown >= _REFRESH_SECONDS:
            self._shown = now
            began, first = self._began
            speed = f"{(done - first) / (now - began):.0f}/s" if done > first and now > began else ""
            words = f"first pass: {done:,} of {total:,} images"
            self._bar.update(self._task, completed=done, words=words, speed=speed)

    def begin(self, epochs: int, steps_per_epoch: int, images: int, progress: Progress) -> None:
        """Show the bar of a run that starts, or is resumed; `images`: in an epoch."""
        self.close()
        self._val_top1 = None
        self._epochs, self._steps_per_epoch, self._images = epochs, steps_per_epoch, images
        self._began = (time.monotonic(), progress.step)
        if self._terminal.shows_progress:
            self._bar, self._task = self._terminal.training_bar(epochs * steps_per_epoch, progress.step)

    def step(self, progress: Progress, lr: float) -> None:
        """Show a step, with its learning rate."""
        now = time.monotonic()
        if self._bar is None or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        began, first = self._began
        speed = (progress.step - first) * self._images / self._steps_per_epoch / max(1e-9, now - began)
        val = "" if self._val_top1 is None else f" val {self._val_top1:.1%}"
        epoch = min(self._epochs, progress.step // self._steps_per_epoch + 1)
        loss, top1 = progress.epoch.mean_loss, progress.epoch.top1
        words = f"epoch {epoch}/{self._epochs} loss {loss:.3f} top-1 {top1:.1%}{val}"
        rates = f"{speed:.0f}/s lr {lr:.1g}"
        self._bar.update(self._task, completed=progress.step, words=words, speed=rates)

    def epoch(self, row: EpochRow, *, is_best: bool) -> None:
        """Print the line of an epoch."""
        self._val_top1 = row["val_top1"]
        parts = [f"epoch {row['epoch']}/{self._epochs}:"]
        for split in ("train", "val"):
            if row[f"{split}_loss"] is not None:
                parts.append(f"{split} loss {row[f'{split}_loss']:.3f} top-1 {row[f'{split}_top1']:.2%},")
        parts.append(f"{row['seconds']:.0f} s")
        if is_best and self._val_top1 is not None:
            parts.append("(the best so far)")
        self._terminal.note(" ".join(parts))

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._terminal.close_bar()
            self._bar = None
