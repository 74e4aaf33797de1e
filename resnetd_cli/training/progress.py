"""How far a run is: the counters that a checkpoint holds, and the rows of `metrics.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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
EpochRow = dict[str, Any]
"""A row of `metrics.csv`: `COLUMNS`, with None for validation if there is none.

lr          the classifier's rate in the last step of the epoch
val_top5    None for five classes or fewer as well
seconds     wall time of the run up to here; time between resumptions does not count
"""


@dataclass
class EpochSums:
    """Sums over the images of the current epoch.

    Attributes:
        loss: of their losses.
        correct: number of images that were classified correctly.
        seen: number of images.
    """

    loss: float = 0.0
    correct: int = 0
    seen: int = 0

    @property
    def mean_loss(self) -> float:
        """The mean loss so far."""
        return self.loss / max(1, self.seen)

    @property
    def top1(self) -> float:
        """The accuracy so far, 0 to 1."""
        return self.correct / max(1, self.seen)


@dataclass
class Progress:
    """How far a run is: all that a checkpoint holds except tensors.

    Attributes:
        step: number of updates of the weights so far.
        epoch: sums over the current epoch.
        images_seen: number of images the weights were trained on so far, repetitions included.
        seconds: wall time so far, as of the last checkpoint.
        rows: of the finished epochs.
        best_epoch: the epoch whose weights are the model; 0: the weights that the run started with.
        unreadable: names of images that could not be read, and why.
        resumed: how often the run was resumed.
    """

    step: int = 0
    epoch: EpochSums = field(default_factory=EpochSums)
    images_seen: int = 0
    seconds: float = 0.0
    rows: list[EpochRow] = field(default_factory=list)
    best_epoch: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    resumed: int = 0

    @property
    def best(self) -> EpochRow | None:
        """The row of the best epoch."""
        return next((row for row in self.rows if row["epoch"] == self.best_epoch), None)

    def to_record(self) -> dict[str, Any]:
        """Return it as a checkpoint holds it: in one level."""
        record = asdict(self)
        sums: dict[str, Any] = record.pop("epoch")
        return {**record, **sums}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Progress:
        """Return what `to_record` returned.

        Raises:
            TypeError, KeyError: it is something else.
        """
        sums = {name: record[name] for name in ("loss", "correct", "seen")}
        others = {name: value for name, value in record.items() if name not in sums}
        return cls(epoch=EpochSums(**sums), **others)
