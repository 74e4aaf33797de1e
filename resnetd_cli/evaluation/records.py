"""The report of an evaluation: accuracy, loss, calibration error, per-class metrics, confusion, mistakes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.evaluation.metrics import Coverage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class EvaluatedModel:
    """The model that was evaluated.

    Attributes:
        name: its full name.
        engine: the engine that ran it.
        precision: the precision that it ran in.
        temperature: the divisor of its logits.
        titles: the names of all its classes as people see them, by index; records leave them out.
    """

    name: str
    engine: str
    precision: str
    temperature: float
    titles: tuple[str, ...]


@dataclass(frozen=True)
class ImageCounts:
    """Counts of the images of an evaluation.

    Attributes:
        answered: images that the model answered; those that could not be read are not among them.
        failed: images that could not be read.
        trained_on: images that the model was trained on; None if unknown.
        turned: images that were turned upright, as their EXIF orientation says.
        repeated: images that are copies of earlier ones, byte for byte; they are evaluated too.
    """

    answered: int
    failed: int
    trained_on: int | None = None
    turned: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Scores:
    """The metrics of all images together; None without labels, except for the calibration error.

    Attributes:
        ece: expected calibration error.
        top1: share of the images whose most probable class is right.
        top1_interval: its 95 % interval.
        top5: share of those whose class is among the five most probable; None for five classes or fewer.
        loss: the mean negative log-likelihood.
        macro_precision: mean over the classes that have images.
        macro_recall: likewise.
        macro_f1: likewise.
    """

    ece: float
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    top5: float | None = None
    loss: float | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None


@dataclass(frozen=True)
class RealScores:
    """Accuracy by ImageNet's reassessed labels: how many images have one, and the share of them that is right."""

    images: int
    top1: float | None


@dataclass(frozen=True)
class ClassRow:
    """The metrics of one class, as in `metrics.ClassScores`."""

    index: int
    id: str | None
    label: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class, and how probable that seemed."""

    image: str
    actual_index: int
    actual: str
    predicted_index: int
    predicted: str
    probability: float


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature, and what it changed on the images that it was fitted on; before, it was 1."""

    temperature: float
    loss_before: float
    loss: float
    ece_before: float
    ece: float


@dataclass(frozen=True)
class EvaluationReport:
    """How well a model answers labelled images.

    Attributes:
        model: the model.
        counts: how many images there were.
        scores: the metrics of all images together.
        coverage: how many images are answered, and how well, if the model abstains below a probability.
        real: the accuracy by ImageNet's reassessed labels, if requested.
        classes: the metrics of each class that has images or was predicted.
        confusion: the nonzero cells of the confusion matrix: actual, predicted, count.
        mistakes: the most confident ones, in that order.
        fit: the temperature that was fitted, if requested.
    """

    model: EvaluatedModel
    counts: ImageCounts
    scores: Scores
    coverage: tuple[Coverage, ...]
    real: RealScores | None = None
    classes: tuple[ClassRow, ...] = ()
    confusion: tuple[tuple[int, int, int], ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    fit: TemperatureFit | None = None

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy; by the reassessed labels if there are no others."""
        accuracy = self.real.top1 if self.scores.top1 is None and self.real else self.scores.top1
        assert accuracy is not None
        return accuracy

    def record(self) -> dict[str, Any]:
        """Return the JSON form: one flat object."""
        scores = asdict(self.scores)
        return {
            "model": self.model.name,
            "engine": self.model.engine,
            "precision": self.model.precision,
            "temperature": self.model.temperature,
            "images": self.counts.answered,
            "failed": self.counts.failed,
            **{key: scores[key] for key in ("top1", "top1_interval", "top5", "loss", "ece")},
            **{key: scores[key] for key in ("macro_precision", "macro_recall", "macro_f1")},
            "real_images": self.real.images if self.real else None,
            "real_top1": self.real.top1 if self.real else None,
            "classes": [asdict(row) for row in self.classes],
            "confusion": self.confusion,
            "coverage": [asdict(row) for row in self.coverage],
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
            "calibration": asdict(self.fit) if self.fit else None,
            "trained_on": self.counts.trained_on,
            "turned": self.counts.turned,
            "repeated": self.counts.repeated,
        }


@dataclass(frozen=True)
class Evaluated:
    """A model's report, and what a comparison with another model needs.

    Attributes:
        report: the report.
        verdict: for each image 1 if the answer is right, 0 if wrong, -1 if neither: int8, shape (N,).
    """

    report: EvaluationReport
    verdict: NDArray[np.int8]
