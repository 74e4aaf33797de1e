"""The folder that a run leaves behind: a model as timm lays one out, and how it came to be.

config.json         what timm needs to build the network, how it wants its images, the names of its classes
model.safetensors   its weights: the best so far
recipe.yaml         how it was trained; --recipe takes it
run.json            what it was trained from, each file by its SHA-256, and what each start of it ran on
split.csv           which images it learnt from and was measured with
trained-on.npy      the marks of all images that the model learnt from, those of runs before it included
metrics.csv         a row for each epoch
summary.json        how it ended
curves.png          loss, accuracy and rate
checkpoints/        last.pth, from which --resume goes on, and best.pth
seeds.json          of a run of several seeds: their figures, and whose model this is
seeds/SEED/         the run of each, as this one; of their checkpoints only the best one's are kept, above
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resnetd_cli.datasets.split_table import write_split
from resnetd_cli.datasets.splits import Divided
from resnetd_cli.errors import OutputError, OutputExists, UsageError, innermost
from resnetd_cli.models import pickles, trained_on
from resnetd_cli.system.files import (
    PARTIAL,
    expand_user,
    open_atomic,
    open_atomic_text,
    partial_files,
    write_atomic,
    write_error,
)
from resnetd_cli.training.recipe import Recipe, parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnetd_cli.training.network import Start
    from resnetd_cli.training.rates import Rates

FORMAT = 1
SPLIT = "split.csv"
_CHECKPOINT = 2
"""Of a checkpoint: in the first, epochs had other steps, so that a run cannot be resumed from one."""
_ANEW = "--overwrite starts anew"
COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_top1",
    "val_loss",
    "val_top1",
    "val_top5",
    "seconds",
)
Row = dict[str, Any]
"""Of `metrics.csv`: `COLUMNS`, those of validation None where there is none.

lr          the classifier's rate in the last step of the epoch
val_top5    None for five classes or fewer, too
seconds     wall time since the run began, in all, up to here; time between resumptions does not count
"""


@dataclass
class Progress:
    """How far a run is: all that a checkpoint holds beside tensors.

    Attributes:
        step: updates of the weights so far.
        loss, correct, seen: sums over the images of the epoch under way.
        images_seen: by the weights so far, each as often as it was.
        seconds: of wall time so far, with everything that the run does.
        rows: of the epochs that are finished.
        best_epoch: the one whose weights are the model; 0 is what the run began with.
        unreadable: names of images that turned out not to be readable, and why.
        resumed: how often the run was resumed.
    """

    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    resumed: int = 0

    @property
    def best(self) -> Row | None:
        """The row of the best epoch."""
        return next((row for row in self.rows if row["epoch"] == self.best_epoch), None)


def absolute(data: str) -> str:
    """Return where data lie, from wherever it is asked; a name that is no path stays one."""
    path = expand_user(data)
    return str(path.absolute()) if path.exists() else data


class RunFolder:
    """The files of one run.

    Args:
        path: of the folder.
        replacing: is called just before a new run's first files are written.
    """

    def __init__(self, path: Path, *, replacing: Callable[[], object] = lambda: None) -> None:
        self.path = path
        self._replacing = replacing
        self.last = path / "checkpoints" / "last.pth"
        self.best = path / "checkpoints" / "best.pth"
        self._recipe = path / "recipe.yaml"
        self._facts = path / trained_on.RUN
        self._seeds = path / "seeds.json"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from writing to it meanwhile.

        Raises:
            UsageError: one does.
        """
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / ".lock", timeout=0):
                for file in self._files:
                    for left in partial_files(file):
                        with suppress(OSError):  # of a process that was killed
                            left.unlink()
                yield
        except Timeout as error:
            raise UsageError(f"{self.path} is written to by another process", hint="wait until it ends") from error

    def make(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder, unless it is there.

        Raises:
            OutputExists: there is something in it, and it is neither to be resumed nor replaced.
            OutputError: it cannot be made.
        """
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write to {self.path}: permission denied", hint="choose another with -o")
        names = {entry.name for entry in self.path.iterdir() if entry.suffix != PARTIAL}
        # A run that was killed at its very beginning has no facts yet.
        early = {self._recipe.name, SPLIT, trained_on.NAME}
        holds_run = self._facts.is_file() or self._seeds.is_file()
        is_run = holds_run or names <= {"checkpoints", "tensorboard", "seeds", ".lock", *early}
        if not is_run:
            raise OutputExists(f"{self.path} is there and is not a run", hint="name a new folder with -o")
        if holds_run and not (resume or overwrite):
            hint = "--resume continues it, --overwrite starts anew"
            raise OutputExists(f"{self.path} holds a run", hint=hint)

    def clear(self, *, keeping: Collection[int] = ()) -> None:
        """Remove what a run wrote, and nothing else; the folders of the runs of some seeds stay, empty."""
        for path in (*self._files, self._seeds):
            path.unlink(missing_ok=True)
        for path in (self.path / "seeds").glob("[0-9]*"):
            run = RunFolder(path)
            run.clear()
            if path.name not in map(str, keeping):
                with suppress(OSError):  # there is something else in it
                    run.last.parent.rmdir()
                    (path / ".lock").unlink(missing_ok=True)
                    path.rmdir()
        with suppress(OSError):
            (self.path / "seeds").rmdir()

    def clear_checkpoints(self) -> None:
        """Remove what only a resumption needs."""
        for path in (self.last, self.best):
            path.unlink(missing_ok=True)

    def of_seed(self, seed: int) -> RunFolder:
        """Return the folder of the run of one of several seeds."""
        return RunFolder(self.path / "seeds" / str(seed))

    def publish(self, to: RunFolder) -> None:
        """Give another folder what this run left behind: copies, but for the checkpoints, which move there.

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

    def write_seeds(self, record: Mapping[str, Any]) -> None:
        """Write how the runs of several seeds went so far."""
        self._write_json(self._seeds.name, {"format": FORMAT, **record})

    def seeds(self) -> dict[str, Any] | None:
        """Return how the runs of several seeds went so far; None where it is one run, or none.

        Raises:
            UsageError: it cannot be read.
        """
        if not self._seeds.is_file():
            return None
        try:
            record: dict[str, Any] = json.loads(self._seeds.read_text(encoding="utf-8"))
            if record.pop("format") != FORMAT or not all(isinstance(seed, int) for seed in record["seeds"]):
                raise ValueError
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"{self._seeds} is damaged", hint=_ANEW) from error
        return record

    @property
    def _files(self) -> Sequence[Path]:
        """What a run writes. Last what tells that it is a run: one that is half removed can be replaced."""
        results = "summary.json", "metrics.csv", "curves.png", "model.safetensors", "config.json"
        names = *results, SPLIT, trained_on.NAME, self._recipe.name
        return self.last, self.best, *(self.path / name for name in names), self._facts

    def begin(
        self, recipe: Recipe, facts: Mapping[str, Any], data: Divided, marks: NDArray[np.uint8] | None
    ) -> None:
        """Write what the run is, before it begins, in place of the one that may be there.

        Args:
            recipe: how it is trained.
            facts: what it is trained from.
            data: its images.
            marks: of all that the model will have been trained on; None: they are not kept.
        """
        self._replacing()
        self.clear()
        self._write("recipe.yaml", recipe.to_yaml())
        self._write_images(data, marks)
        self._write_json(trained_on.RUN, {"format": FORMAT, **facts})

    def _write_images(self, data: Divided, marks: NDArray[np.uint8] | None) -> None:
        if marks is not None:
            trained_on.write(self.path, marks)
        with open_atomic_text(self.path / SPLIT) as file:
            write_split(data, file)

    def add_start(self, start: Mapping[str, Any], data: Divided, marks: NDArray[np.uint8] | None) -> None:
        """Record what a resumption of the run runs on, and its images as `begin` does if an older version did not.

        Args:
            start: what it runs on.
            data: its images.
            marks: as of `begin`.
        """
        if not (self.path / SPLIT).exists():
            self._write_images(data, marks)
        facts = json.loads(self._facts.read_text(encoding="utf-8"))
        self._write_json(trained_on.RUN, {**facts, "starts": [*facts.get("starts", ()), start]})

    def end_start(self, seconds: float) -> None:
        """Record the wall time of the start, or the resumption, that ends."""
        facts = json.loads(self._facts.read_text(encoding="utf-8"))
        facts["starts"][-1]["seconds"] = round(seconds, 1)
        self._write_json(trained_on.RUN, facts)

    def begun(self) -> tuple[Recipe, dict[str, Any]] | None:
        """Return the recipe and the facts of the run that is there; None where none was started.

        Raises:
            UsageError: they cannot be read.
        """
        if not self._facts.is_file():
            return None
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
            if facts.pop("format") != FORMAT:
                raise ValueError
            return parse(self._recipe.read_text(encoding="utf-8"), str(self._recipe)), facts
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"{self._facts} is damaged", hint=_ANEW) from error

    def save(self, progress: Progress, tensors: Mapping[str, Any], *, is_best: bool) -> None:
        """Write the checkpoint from which a run goes on; the one before stays until this one is whole.

        Raises:
            OutputError: there is no room, or no permission.
        """
        try:
            with open_atomic(self.last) as file:
                _save({"format": _CHECKPOINT, "progress": asdict(progress), **tensors}, file)
            if is_best:
                self.keep_best()
        except OutputError as error:
            error.hint = "the last checkpoint is kept: make room, and go on with --resume"
            raise

    def keep_best(self) -> None:
        """Give the last checkpoint the name of the best, too."""
        link = self.best.with_name(f"{self.best.name}{PARTIAL}")
        try:
            link.unlink(missing_ok=True)
            try:
                os.link(self.last, link)
            except OSError:  # a file system without links
                link.write_bytes(self.last.read_bytes())
            link.replace(self.best)
        except OSError as error:
            raise write_error(self.best, error) from error

    def load(self, path: Path) -> tuple[Progress, dict[str, Any]] | None:
        """Return a checkpoint's progress and tensors; None where there is none.

        Raises:
            UsageError: it is damaged, or of another version.
        """
        import torch

        if not path.is_file():
            return None
        try:
            pickles.check(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content.pop("format") != _CHECKPOINT:
                raise UsageError(f"{path} was written by another version of resnetd", hint=_ANEW)
            return Progress(**content.pop("progress")), content
        except UsageError:
            raise
        except Exception as error:  # of whatever kind torch raises on a file that it does not read
            raise UsageError(f"{path} is damaged", hint=_ANEW) from error

    def write_model(self, start: Start, classes: Sequence[str], weights: Mapping[str, Any]) -> None:
        """Write the model as timm lays it out: first the weights, then what describes them."""
        import safetensors.torch

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        marks = trained_on.read(self.path)
        # A single entry, for safetensors writes several in an order by chance.
        metadata = {trained_on.DIGEST: "" if marks is None else trained_on.digest(marks)}
        write_atomic(self.path / "model.safetensors", safetensors.torch.save(tensors, metadata))
        self._write_json(
            "config.json",
            {
                "architecture": start.architecture,
                "num_classes": len(classes),
                "label_names": list(classes),
                "model_args": dict(start.arguments),
                "pretrained_cfg": dict(start.config),
            },
        )

    def write_metrics(self, rows: Sequence[Row]) -> None:
        """Write a row for each epoch."""
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write("metrics.csv", stream.getvalue())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write how it ended."""
        self._write_json("summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """Return how the run ended; None where it has not, or that cannot be read."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return summary if isinstance(summary, dict) and {"val", "test"} <= summary.keys() else None

    def write_curves(self, rows: Sequence[Row], rates: Rates) -> None:
        """Draw loss and accuracy by epoch, and the rate by step."""
        from resnetd_cli.training.curves import draw

        if rows:
            with open_atomic(self.path / "curves.png") as file:
                draw(rows, rates, file)

    def _write(self, name: str, text: str) -> None:
        write_atomic(self.path / name, text.encode("utf-8", "surrogateescape"))

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self._write(name, json.dumps(value, indent=1, ensure_ascii=True) + "\n")


def _save(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write with torch; what the system refuses is an `OSError` here, which torch makes another error of."""
    import torch

    try:
        torch.save(content, file)
    except RuntimeError as error:
        if isinstance(refused := innermost(error), OSError):
            raise refused from error
        raise
