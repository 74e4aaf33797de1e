"""Evaluating a model on labelled images: its answers are collected, and summed up in a report.

Only a few numbers are kept for each image, whatever the number of classes, unless a temperature is to be fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from resnetd_cli.class_names import real_labels
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.classifier import Classifier
from resnetd_cli.errors import DataError, Reason, UsageError
from resnetd_cli.evaluation import metrics
from resnetd_cli.evaluation.image_rows import ImageRow, RowMaker
from resnetd_cli.evaluation.images import NO_LABEL, LabelledImages
from resnetd_cli.evaluation.records import (
    ClassRow,
    Evaluated,
    EvaluatedModel,
    EvaluationReport,
    ImageCounts,
    Mistake,
    RealScores,
    Scores,
    TemperatureFit,
)
from resnetd_cli.evaluation.temperature import fit_temperature
from resnetd_cli.pipeline import postprocess
from resnetd_cli.pipeline.decode.exif_orientation import TURNED
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Failure, shortest
from resnetd_cli.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_MOST_MISTAKES = 10


class Track(Protocol):
    """Follows answers as they pass, for a progress bar."""

    def __call__(self, answers: Iterable[Any], /) -> Iterator[Any]:
        """Yield the answers, one by one."""
        ...


@dataclass(frozen=True)
class ImageAnswers:
    """A model's answers for N images: arrays of shape (N,), or (N, C) where C is named.

    Attributes:
        predicted: the most probable class; -1 where the image could not be read.
        confidence: its probability.
        in_top5: the right class is among the five most probable.
        loss: the negative log-likelihood of the right class.
        logits: float32, (N, C), where they were kept.
    """

    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    in_top5: NDArray[np.bool_]
    loss: NDArray[np.float64]
    logits: NDArray[np.float32] | None = None

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Whether the image could be read."""
        return self.predicted >= 0


class _Observer:
    """Records facts about the images on their way to the model.

    Attributes:
        failures: why images could not be read, by position.
    """

    def __init__(self) -> None:
        self.failures: dict[int, str] = {}
        self._turned: list[bool] = []
        self._digests: list[bytes] = []

    @property
    def turned(self) -> int:
        """How many images were turned upright."""
        return sum(self._turned)

    @property
    def repeated(self) -> int:
        """How many images are copies of others, byte for byte."""
        return len(self._digests) - len(set(self._digests))

    def watch(self, source: Source) -> Source:
        """Return the source of an image; its bytes are recorded when they are read."""

        def read() -> bytes:
            data = source.read()
            self._digests.append(hashlib.blake2b(data, digest_size=16).digest())
            return data

        return replace(source, read=read)

    def decoded(self, image: Image.Image) -> None:
        """Record whether a decoded image was turned."""
        self._turned.append(bool(image.info.get(TURNED)))


def check(classifier: Classifier, images: LabelledImages, *, real: bool = False) -> str | None:
    """Check that a model can be evaluated on these images, before any work is done.

    Returns:
        a note on how the classes were matched with the model's, if users should know.

    Raises:
        DataError: the classes are not the model's.
        UsageError: the model has a single output; real labels are not of this model's classes.
    """
    if len(classifier.class_names) == 1:
        raise UsageError(
            f"{classifier.name} has a single output, a yes or no, and cannot be measured by classes",
            reason=Reason.SINGLE_OUTPUT,
        )
    if real:
        real_labels.check(classifier.class_names)
    return images.note_on(classifier.class_names)


def evaluate(
    classifier: Classifier,
    images: LabelledImages,
    *,
    fit: bool = False,
    real: bool = False,
    mistakes: int = _MOST_MISTAKES,
    trained_on: int | None = None,
    on_row: Callable[[ImageRow], object] | None = None,
    on_failure: Callable[[Failure], None] = lambda _: None,
    track: Track = iter,
) -> Evaluated:
    """Evaluate a model.

    Args:
        classifier: the model.
        images: the images.
        fit: fit a temperature, and report with it.
        real: judge by ImageNet's real labels too.
        mistakes: how many mistakes to list.
        trained_on: how many of the images the model was trained on, if known.
        on_row: called with the model's answer for each image, in order.
        on_failure: called with each image that cannot be read.
        track: follows the answers.

    Raises:
        DataError: the classes are not the model's; not one image could be read; see `fit_temperature`.
        UsageError: real labels are not of this model's classes.
        ModelError: its answers are not numbers.
    """
    check(classifier, images, real=real)
    shown = real_labels.of_images(images.names()) if real else None
    targets = images.targets(classifier.class_names)
    if fit and (targets == NO_LABEL).any():
        raise UsageError(
            "a temperature cannot be fitted to images without labels", hint="lay the images out as DIR/CLASS/IMAGE"
        )
    observer = _Observer()
    rows = None if on_row is None else RowMaker(classifier, images, targets, shown, on_row)
    answers = _collect(
        classifier,
        images,
        targets,
        observer,
        keep=fit,
        rows=None if fit else rows,
        on_failure=on_failure,
        track=track,
    )
    answered = answers.answered
    if not answered.any():
        raise DataError(f"0 of {counted(len(images), 'image')} could be read", hint="the lines above say why")
    fitted, temperature = None, classifier.temperature
    if fit:
        fitted, answers = _fit_temperature(answers, targets)
        temperature = fitted.temperature
        if rows:
            _write_rows(rows, answers, observer.failures, temperature)
        answers = replace(answers, logits=None)
    by_real = None if shown is None else _by_real(answers.predicted, shown)
    verdict = _verdict(answers, targets) if by_real is None or images.classes else by_real
    if not (verdict >= 0).any():
        raise DataError("none of the images that could be read has a real label", reason=Reason.NO_REAL_LABEL)
    judged = verdict >= 0
    right, confidence = verdict[judged] == 1, answers.confidence[judged]
    names = classifier.class_names
    failed = int((~answered).sum())
    report = EvaluationReport(
        EvaluatedModel(classifier.name, classifier.engine.name, classifier.precision, temperature, names.titles),
        ImageCounts(int(answered.sum()), failed, trained_on, observer.turned, observer.repeated),
        Scores(metrics.calibration_error(confidence, right)),
        coverage=metrics.coverage(confidence, right),
        real=None if by_real is None else _real_scores(by_real),
        fit=fitted,
    )
    if images.classes:
        report = replace(
            _with_labels(report, answers, targets, names),
            mistakes=tuple(_mistakes(images, answers, targets, names, mistakes)),
        )
    return Evaluated(report, verdict)


def _collect(
    classifier: Classifier,
    images: LabelledImages,
    targets: NDArray[np.int64],
    observer: _Observer,
    *,
    keep: bool,
    rows: RowMaker | None,
    on_failure: Callable[[Failure], None],
    track: Track,
) -> ImageAnswers:
    """Run the model on all images. `keep` keeps the raw logits, to fit a temperature to."""
    import numpy as np

    count = len(images)
    answers = ImageAnswers(
        predicted=np.full(count, -1, np.int32),
        confidence=np.zeros(count, np.float32),
        in_top5=np.zeros(count, np.bool_),
        loss=np.zeros(count),
        logits=np.zeros((count, len(classifier.class_names)), np.float32) if keep else None,
    )
    temperature = 1.0 if keep else classifier.temperature
    results = classifier.logits(map(observer.watch, images.sources()), decoded=observer.decoded)
    for position, result in enumerate(track(results)):
        if isinstance(result, Failure):
            observer.failures[position] = f"{result.kind.value}: {result.message}"
            on_failure(result)
            if rows:
                rows.failed(position, observer.failures[position])
        else:
            _judge(answers, position, result, int(targets[position]), temperature)
            if rows:
                rows.answered(position, result, temperature)
    return answers


def _judge(
    answers: ImageAnswers, position: int, logits: NDArray[np.float32], target: int, temperature: float
) -> None:
    """Keep what is needed of one image's logits."""
    import numpy as np

    probabilities = postprocess.probabilities(logits, temperature)
    predicted = int(probabilities.argmax())
    answers.predicted[position] = predicted
    answers.confidence[position] = probabilities[predicted]
    if answers.logits is not None:
        answers.logits[position] = logits
    if target == NO_LABEL:
        return
    # Ties go to the lower index, as in a top-k list.
    likely = probabilities[target]
    before = np.count_nonzero(probabilities > likely) + np.count_nonzero(probabilities[:target] == likely)
    answers.in_top5[position] = before < metrics.TOP5
    answers.loss[position] = metrics.negative_log_likelihood(logits, target, temperature)


def _write_rows(rows: RowMaker, answers: ImageAnswers, failures: dict[int, str], temperature: float) -> None:
    """Write the rows of all images from the logits that were kept."""
    assert answers.logits is not None
    for position, logits in enumerate(answers.logits):
        if position in failures:
            rows.failed(position, failures[position])
        else:
            rows.answered(position, logits, temperature)


def _fit_temperature(answers: ImageAnswers, targets: NDArray[np.int64]) -> tuple[TemperatureFit, ImageAnswers]:
    """Fit a temperature to raw logits, and return the answers that it gives."""
    assert answers.logits is not None
    answered = answers.answered
    temperature = fit_temperature(answers.logits[answered], targets[answered])
    after = replace(
        answers, confidence=answers.confidence.copy(), loss=answers.loss.copy(), in_top5=answers.in_top5.copy()
    )
    for position in answered.nonzero()[0].tolist():
        _judge(after, position, answers.logits[position], int(targets[position]), temperature)
    right = (answers.predicted == targets)[answered]
    (loss_before, ece_before), (loss, ece) = (
        (float(each.loss[answered].mean()), metrics.calibration_error(each.confidence[answered], right))
        for each in (answers, after)
    )
    return TemperatureFit(temperature, loss_before, loss, ece_before, ece), after


def _verdict(answers: ImageAnswers, targets: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return for each image whether its most probable class is its label; -1 where it has none or failed."""
    import numpy as np

    judged = (targets != NO_LABEL) & answers.answered
    return np.where(judged, answers.predicted == targets, -1).astype(np.int8)


def _by_real(predicted: NDArray[np.int32], shown: list[frozenset[int]]) -> NDArray[np.int8]:
    """Return for each image whether its most probable class is one of its real labels; -1 where it has none."""
    import numpy as np

    pairs = zip(predicted.tolist(), shown, strict=True)
    return np.array([one in real if real and one >= 0 else -1 for one, real in pairs], np.int8)


def _real_scores(by_real: NDArray[np.int8]) -> RealScores:
    judged = by_real[by_real >= 0]
    return RealScores(len(judged), float(judged.mean()) if len(judged) else None)


def _with_labels(
    report: EvaluationReport, answers: ImageAnswers, targets: NDArray[np.int64], names: ClassNames
) -> EvaluationReport:
    """Add the metrics that need labels."""
    answered = answers.answered
    actual, predicted = targets[answered], answers.predicted[answered].astype(targets.dtype)
    by_class = metrics.class_scores(actual, predicted, len(names))
    with_images = by_class.support > 0
    right = int((actual == predicted).sum())
    scores = replace(
        report.scores,
        top1=right / len(actual),
        top1_interval=metrics.interval(right, len(actual)),
        top5=float(answers.in_top5[answered].mean()) if len(names) > metrics.TOP5 else None,
        loss=float(answers.loss[answered].mean()),
        macro_precision=float(by_class.precision[with_images].mean()),
        macro_recall=float(by_class.recall[with_images].mean()),
        macro_f1=float(by_class.f1[with_images].mean()),
    )
    classes = tuple(_class_rows(by_class, names))
    return replace(report, scores=scores, classes=classes, confusion=metrics.confusion(actual, predicted))


def _class_rows(scores: metrics.ClassScores, names: ClassNames) -> Iterator[ClassRow]:
    for index in ((scores.support > 0) | (scores.predicted > 0)).nonzero()[0].tolist():
        yield ClassRow(
            index,
            names.ids[index],
            names.names[index],
            int(scores.support[index]),
            int(scores.predicted[index]),
            float(scores.precision[index]),
            float(scores.recall[index]),
            float(scores.f1[index]),
        )


def _mistakes(
    images: LabelledImages, answers: ImageAnswers, targets: NDArray[np.int64], names: ClassNames, most: int
) -> Iterator[Mistake]:
    """Yield the most confident mistakes first; equally confident ones in the order of the images."""
    import numpy as np

    wrong = (answers.answered & (answers.predicted != targets)).nonzero()[0]
    order = np.argsort(-answers.confidence[wrong], kind="stable")[:most]
    for position in wrong[order].tolist():
        actual, predicted = int(targets[position]), int(answers.predicted[position])
        yield Mistake(
            images.name(position),
            actual,
            names.names[actual],
            predicted,
            names.names[predicted],
            shortest(answers.confidence[position]),
        )
