"""What `evaluate` finds out, as records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.evaluation.metrics import Coverage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassRow:
    """The figures of one class, as in `metrics.ClassScores`."""

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
    """An image taken for a class that it is not of, and how probable that seemed."""

    image: str
    actual_index: int
    actual: str
    predicted_index: int
    predicted: str
    probability: float


@dataclass(frozen=True)
class ImageRow:
    """What a model says of one image.

    Attributes:
        model: its name.
        path: what the user calls the image.
        truth_index: the model's index of the right class; None for an image without a label.
        truth: the name of that class.
        prediction_index: the most probable class; None for an image that cannot be read, as is what follows.
        prediction: its name.
        probability: its probability.
        truth_probability: that of the right class.
        loss: the negative log-likelihood of the right class.
        margin: the right class's probability, less the highest of the others.
        correct: the prediction is the right class, or for an image without a label one of its real labels.
        error: why the image cannot be read.
        logits: as the network gave them: float32, shape (C,).
    """

    model: str
    path: str
    truth_index: int | None = None
    truth: str | None = None
    prediction_index: int | None = None
    prediction: str | None = None
    probability: float | None = None
    truth_probability: float | None = None
    loss: float | None = None
    margin: float | None = None
    correct: bool | None = None
    error: str | None = None
    logits: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class TemperatureFit:
    """What a temperature changed, on the images that it was fitted on; before it was 1."""

    temperature: float
    loss_before: float
    loss: float
    ece_before: float
    ece: float


@dataclass(frozen=True)
class EvaluationReport:
    """How well a model answers.

    Attributes:
        model: its name.
        engine: what ran it.
        precision: in which.
        temperature: what its logits were divided by.
        images: how many it answered; those that could not be read are not among them.
        failed: how many could not be read.
        top1: share of the images whose most probable class is right; None for images without labels.
        top1_interval: its 95 % interval.
        top5: share of those whose class is among the five most probable; None for five classes or fewer.
        loss: the mean negative log-likelihood.
        ece: expected calibration error.
        macro_precision: mean over the classes that have images.
        macro_recall: likewise.
        macro_f1: likewise.
        real_images: how many have a real label; None where these were not asked for.
        real_top1: share of them whose most probable class is one of their real labels.
        classes: those that have images, or were predicted.
        confusion: actual, predicted, count: the cells that are not 0.
        coverage: what is answered, and how well, if the model abstains below a probability.
        mistakes: the most confident, first.
        calibration: where one was asked for.
        trained_on: how many of the images the model was trained on; None where that is not known.
        turned: how many were turned upright, as their EXIF says.
        repeated: how many are copies of images before them, byte for byte; they count, too.
        titles: the names of all the classes that people see, by index; records do not have them.
    """

    model: str
    engine: str
    precision: str
    temperature: float
    images: int
    failed: int
    top1: float | None
    top1_interval: tuple[float, float] | None
    top5: float | None
    loss: float | None
    ece: float
    macro_precision: float | None
    macro_recall: float | None
    macro_f1: float | None
    real_images: int | None
    real_top1: float | None
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, int, int], ...]
    coverage: tuple[Coverage, ...]
    mistakes: tuple[Mistake, ...]
    calibration: TemperatureFit | None = None
    trained_on: int | None = None
    turned: int = 0
    repeated: int = 0
    titles: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """Top-1; by the real labels where there are no others."""
        accuracy = self.real_top1 if self.top1 is None else self.top1
        assert accuracy is not None
        return accuracy

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        record = asdict(self)
        del record["titles"]
        return record


@dataclass(frozen=True)
class Evaluated:
    """A model's report, and what the comparison with another needs.

    Attributes:
        report: the report.
        verdict: of each image 1 for right, 0 for wrong, -1 for neither: int8, shape (N,).
    """

    report: EvaluationReport
    verdict: NDArray[np.int8]
