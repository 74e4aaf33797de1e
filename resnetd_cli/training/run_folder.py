"""The folder of a run: the model as timm lays it out, and how it was trained.

config.json         what timm needs to build the network, how its images are prepared, the names of its classes
model.safetensors   its weights: the best so far
recipe.yaml         how it was trained; --recipe reads it
run.json            what it was trained from, each file with its SHA-256, and what each start of it ran on
split.csv           the images it was trained on and measured with
trained-on.npy      the marks of all images it was trained on, including those of earlier runs
metrics.csv         a row for each epoch
summary.json        how it ended
curves.png          loss, accuracy and learning rate
checkpoints/        last.pth, which --resume starts from, and best.pth
seeds.json          for several seeds: their figures, and which one the model is from
seeds/SEED/         the run of each seed; of their checkpoints only those of the best run are kept, above
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli.errors import OutputError, OutputExists, Reason, UsageError
from resnetd_cli.models import trained_on
from resnetd_cli.system.files import PARTIAL, open_atomic, partial_files, write_atomic, write_error
from resnetd_cli.training.progress import COLUMNS, EpochRow

if TYPE_CHECKING:
    from resnetd_cli.training.learning_rate import LearningRate

FORMAT = 1
"""The version of the JSON files."""
SPLIT = "split.csv"


class RunFolder:
    """The files of one run.

    Args:
        path: of the folder.
        replacing: called just before the first files of a new run are written.
    """

    def __init__(self, path: Path, *, replacing: Callable[[], object] = lambda: None) -> None:
        self.path = path
        self._replacing = replacing
        self.last = path / "checkpoints" / "last.pth"
        self.best = path / "checkpoints" / "best.pth"
        self.recipe = path / "recipe.yaml"
        self.facts = path / trained_on.RUN
        self.seeds = path / "seeds.json"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from writing to the folder, for the duration of the context.

        Raises:
            UsageError: another process is writing to it.
        """
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / ".lock", timeout=0):
                for file in self._files:
                    for left in partial_files(file):
                        with suppress(OSError):  # left by a process that was killed
                            left.unlink()
                yield
        except Timeout as error:
            raise UsageError(f"{self.path} is written to by another process", hint="wait until it ends") from error

    def make(self, *, resume: bool, overwrite: bool) -> None:
        """Create the folder if it does not exist.

        Raises:
            OutputExists: it holds something else, or a run that is to be neither resumed nor replaced.
            OutputError: it cannot be created.
        """
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write to {self.path}: permission denied", reason=Reason.RUN_NOT_WRITABLE)
        names = {entry.name for entry in self.path.iterdir() if entry.suffix != PARTIAL}
        # A run that was killed as it started has no facts yet.
        early = {self.recipe.name, SPLIT, trained_on.NAME}
        holds_run = self.facts.is_file() or self.seeds.is_file()
        is_run = holds_run or names <= {"checkpoints", "tensorboard", "seeds", ".lock", *early}
        if not is_run:
            raise OutputExists(f"{self.path} exists and is not a run", reason=Reason.NOT_A_RUN)
        if holds_run and not (resume or overwrite):
            raise OutputExists(f"{self.path} holds a run", reason=Reason.RUN_EXISTS)

    def clear(self, *, keeping: Collection[int] = ()) -> None:
        """Remove what a run wrote, and nothing else. `keeping`: seeds whose folders stay, empty."""
        for path in (*self._files, self.seeds):
            path.unlink(missing_ok=True)
        for path in (self.path / "seeds").glob("[0-9]*"):
            run = RunFolder(path)
            run.clear()
            if path.name not in map(str, keeping):
                with suppress(OSError):  # something else is in it
                    run.last.parent.rmdir()
                    (path / ".lock").unlink(missing_ok=True)
                    path.rmdir()
        with suppress(OSError):
            (self.path / "seeds").rmdir()

    def clear_checkpoints(self) -> None:
        """Remove the checkpoints, which only a resumption needs."""
        for path in (self.last, self.best):
            path.unlink(missing_ok=True)

    def of_seed(self, seed: int) -> RunFolder:
        """Return the folder of one of several runs, by its seed."""
        return RunFolder(self.path / "seeds" / str(seed))

    def publish(self, to: RunFolder) -> None:
        """Copy the run's files to another folder, and move its checkpoints there.

        Raises:
            OutputError: it cannot be written.
        """
        for path in filter(Path.is_file, self._files):
            target = to.path / path.relative_to(self.path)
            if path.parent == self.path:
                write_atomic(target, path.read_bytes())
            else:
                target.parent.mkdir(exist_ok=True)
                path.replace(target)

    def replace(self) -> None:
        """Make room for a new run: remove the one that may be here."""
        self._replacing()
        self.clear()

    @property
    def _files(self) -> Sequence[Path]:
        """What a run writes. What marks the folder as a run comes last: a half-removed run can be replaced."""
        results = "summary.json", "metrics.csv", "curves.png", "model.safetensors", "config.json"
        names = *results, SPLIT, trained_on.NAME, self.recipe.name
        return self.last, self.best, *(self.path / name for name in names), self.facts

    def write_metrics(self, rows: Sequence[EpochRow]) -> None:
        """Write a row for each epoch."""
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text("metrics.csv", stream.getvalue())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write how the run ended."""
        self.write_json("summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """Return how the run ended; None if it has not, or the summary cannot be read."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return summary if isinstance(summary, dict) and {"val", "test"} <= summary.keys() else None

    def write_curves(self, rows: Sequence[EpochRow], rate: LearningRate) -> None:
        """Draw loss and accuracy by epoch, and the learning rate by step."""
        from resnetd_cli.training.curves import draw

        if rows:
            with open_atomic(self.path / "curves.png") as file:
                draw(rows, rate, file)

    def write_text(self, name: str, text: str) -> None:
        """Write a file, whole or not at all."""
        write_atomic(self.path / name, text.encode("utf-8", "surrogateescape"))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=1, ensure_ascii=True) + "\n")
