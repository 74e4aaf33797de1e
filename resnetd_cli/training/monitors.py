"""Monitors of a run, called at each step and epoch: several at once, and TensorBoard's log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resnetd_cli.errors import UsageError
from resnetd_cli.system.distribution import how_to_install, is_installed

if TYPE_CHECKING:
    from resnetd_cli.training.progress import EpochRow, Progress


class Monitor(Protocol):
    """Follows a run."""

    def begin(self, epochs: int, steps_per_epoch: int, images: int, progress: Progress) -> None:
        """Called before the first step, or the next one in a resumed run; `images`: in an epoch."""
        ...

    def step(self, progress: Progress, lr: float) -> None:
        """Called after each step, with its learning rate."""
        ...

    def epoch(self, row: EpochRow, *, is_best: bool) -> None:
        """Called after each epoch, with its row of `metrics.csv`."""
        ...


class Monitors:
    """Calls several monitors, or none."""

    def __init__(self, *monitors: Monitor) -> None:
        self._monitors = monitors

    def begin(self, epochs: int, steps_per_epoch: int, images: int, progress: Progress) -> None:
        """Called before the first step, or the next one in a resumed run; `images`: in an epoch."""
        for monitor in self._monitors:
            monitor.begin(epochs, steps_per_epoch, images, progress)

    def step(self, progress: Progress, lr: float) -> None:
        """Called after each step, with its learning rate."""
        for monitor in self._monitors:
            monitor.step(progress, lr)

    def epoch(self, row: EpochRow, *, is_best: bool) -> None:
        """Called after each epoch, with its row of `metrics.csv`."""
        for monitor in self._monitors:
            monitor.epoch(row, is_best=is_best)


class TensorBoard:
    """Logs each epoch's loss, accuracy and rate for TensorBoard.

    Args:
        folder: of the log.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if not is_installed("tensorboard"):
            raise UsageError("TensorBoard is not installed", hint=how_to_install("tensorboard"))
        self._folder = folder
        self._writer: Any = None

    def begin(self, epochs: int, steps_per_epoch: int, images: int, progress: Progress) -> None:
        """Open the log; what a killed run logged after its checkpoint is purged."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=progress.step + 1 if progress.rows else None)

    def step(self, progress: Progress, lr: float) -> None:
        """Log nothing."""

    def epoch(self, row: EpochRow, *, is_best: bool) -> None:
        """Log an epoch."""
        for name in ("train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "lr"):
            if row[name] is not None:
                self._writer.add_scalar(name.replace("_", "/"), row[name], row["step"])
        self._writer.flush()
