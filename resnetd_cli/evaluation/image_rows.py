"""A model's answer for each labelled image, one row per image: the rows of `evaluate --per-image`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetd_cli.classifier import Classifier
from resnetd_cli.evaluation.images import NO_LABEL, LabelledImages
from resnetd_cli.evaluation.metrics import negative_log_likelihood
from resnetd_cli.pipeline import postprocess
from resnetd_cli.results import shortest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PredictedClass:
    """The most probable class of an image: the model's index, its name and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class TrueClass:
    """The right class of an image, and how the model rates it.

    Attributes:
        index: the model's index of the class.
        name: its name.
        probability: its probability; None for an image that cannot be read, as is what follows.
        loss: its negative log-likelihood.
        margin: its probability, less the highest of the others.
    """

    index: int
    name: str
    probability: float | None = None
    loss: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class ImageRow:
    """A model's answer for one image.

    Attributes:
        model: the model's name.
        path: what the user calls the image.
        truth: the right class; None for an image without a label.
        prediction: the most probable class; None for an image that cannot be read.
        correct: the prediction is right; for an image without a label, it is one of its real labels.
        error: why the image cannot be read.
        logits: as the network gave them: float32, shape (C,).
    """

    model: str
    path: str
    truth: TrueClass | None = None
    prediction: PredictedClass | None = None
    correct: bool | None = None
    error: str | None = None
    logits: NDArray[np.float32] | None = None

    def record(self) -> dict[str, Any]:
        """Return the flat form, without the logits: the keys are the columns of a file."""
        truth, prediction = self.truth, self.prediction
        return {
            "model": self.model,
            "path": self.path,
            "truth_index": truth and truth.index,
            "truth": truth and truth.name,
            "prediction_index": prediction and prediction.index,
            "prediction": prediction and prediction.name,
            "probability": prediction and prediction.probability,
            "truth_probability": truth and truth.probability,
            "loss": truth and truth.loss,
            "margin": truth and truth.margin,
            "correct": self.correct,
            "error": self.error,
        }


@dataclass(frozen=True)
class RowMaker:
    """Builds the row of each image from its logits, and passes it on.

    Attributes:
        classifier: the model.
        images: the images.
        targets: the index of each image's class in the model, -1 for none: int64, shape (N,).
        real: the real labels of each image, if requested.
        on_row: called with each row.
    """

    classifier: Classifier
    images: LabelledImages
    targets: NDArray[np.int64]
    real: list[frozenset[int]] | None
    on_row: Callable[[ImageRow], object]

    def failed(self, position: int, error: str) -> None:
        """Pass on the row of an image that cannot be read."""
        target = int(self.targets[position])
        truth = None if target == NO_LABEL else TrueClass(target, self._name(target))
        self.on_row(ImageRow(self.classifier.name, self.images.name(position), truth, error=error))

    def answered(self, position: int, logits: NDArray[np.float32], temperature: float) -> None:
        """Pass on the row of an image that has these logits; they are divided by the temperature."""
        target = int(self.targets[position])
        probabilities = postprocess.probabilities(logits, temperature)
        predicted = int(probabilities.argmax())
        prediction = PredictedClass(predicted, self._name(predicted), shortest(probabilities[predicted]))
        truth: TrueClass | None = None
        if target == NO_LABEL:
            real = self.real[position] if self.real else frozenset()
            correct = predicted in real if real else None
        else:
            correct = predicted == target
            likely = probabilities[target]
            probabilities[target] = 0
            truth = TrueClass(
                target,
                self._name(target),
                probability=shortest(likely),
                loss=negative_log_likelihood(logits, target, temperature),
                margin=float(likely) - float(probabilities.max()),
            )
        name, path = self.classifier.name, self.images.name(position)
        self.on_row(ImageRow(name, path, truth, prediction, correct, logits=logits))

    def _name(self, index: int) -> str:
        return self.classifier.class_names.names[index]
