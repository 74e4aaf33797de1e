"""Monitors of a run beside the one that shows it: none, several, and TensorBoard's log."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import UsageError

if TYPE_CHECKING:
    from resnetd_cli.training.loop import Monitor
    from resnetd_cli.training.run_folder import Progress, Row


class Several:
    """Tells several monitors; none is silence."""

    def __init__(self, *monitors: Monitor) -> None:
        self._monitors = monitors

    def begin(self, epochs: int, steps_per_epoch: int, images: int, progress: Progress) -> None:
        """The first step is about to be made, or the next one, in epochs of so many images."""
        for monitor in self._monitors:
            monitor.begin(epochs, steps_per_epoch, images, progress)

    def step(self, progress: Progress, lr: float) -> None:
        """A step was made, at this rate."""
        for monitor in self._monitors:
            monitor.step(progress, lr)

    def epoch(self, row: Row, *, is_best: bool) -> None:
        """An epoch ended."""
        for monitor in self._monitors:
            monitor.epoch(row, is_best=is_best)


class TensorBoard:
    """Logs each epoch's loss, accuracy and rate for TensorBoard.

    Args:
        folder: where to log to.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError("TensorBoard is not installed", hint="pip install 'resnetd[tensorboard]'")
        self._folder = folder
        self._writer: Any = None

    def begin(self, epochs: int, steps_per_epoch: int, images: int, progress: Progress) -> None:
        """Open the log; what a killed run logged beyond its checkpoint is taken back."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=progress.step + 1 if progress.rows else None)

    def step(self, progress: Progress, lr: float) -> None:
        """A step was made, at this rate."""

    def epoch(self, row: Row, *, is_best: bool) -> None:
        """Log an epoch."""
        for name in ("train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "lr"):
            if row[name] is not None:
                self._writer.add_scalar(name.replace("_", "/"), row[name], row["step"])
        self._writer.flush()
