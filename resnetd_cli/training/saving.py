"""What a run writes as it goes: checkpoints, the best model so far, and a row of metrics for each epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from resnetd_cli.training import checkpoint
from resnetd_cli.training.learner import Learner
from resnetd_cli.training.model_files import write_model
from resnetd_cli.training.network import TrainableNetwork
from resnetd_cli.training.progress import Progress
from resnetd_cli.training.run_folder import RunFolder


@dataclass
class Saver:
    """Writes the state of a run into its folder, in the first process only.

    Attributes:
        folder: of the run.
        network: the network, for the model's configuration.
        classes: the names of the classes.
        is_main: this is the first process.
        save_seconds: longest time between checkpoints.
    """

    folder: RunFolder
    network: TrainableNetwork
    classes: Sequence[str]
    is_main: bool
    save_seconds: float

    def __post_init__(self) -> None:
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Return whether it is time for another checkpoint."""
        return time.monotonic() - self._saved > self.save_seconds

    def save(self, learner: Learner, progress: Progress, *, is_best: bool) -> None:
        """Write a checkpoint; with the best weights so far, the model as well."""
        if self.is_main:
            checkpoint.save(self.folder, progress, learner.state(), is_best=is_best)
            if is_best:
                self._write_model(learner)
            self.write_rows(progress)
        self._saved = time.monotonic()

    def finish_best(self, learner: Learner, progress: Progress) -> None:
        """Redo what may be missing if the run was killed just after the checkpoint of its best epoch."""
        if self.is_main and progress.rows:
            last = progress.rows[-1]
            if progress.best_epoch == last["epoch"] and progress.step == last["step"]:
                checkpoint.keep_as_best(self.folder)
                self._write_model(learner)

    def write_rows(self, progress: Progress) -> None:
        """Write `metrics.csv`."""
        if self.is_main:
            self.folder.write_metrics(progress.rows)

    def _write_model(self, learner: Learner) -> None:
        write_model(self.folder, self.network, self.classes, learner.weights())
