"""Measuring how well a model answers labelled images.

Of each image a few numbers are kept, whatever the number of classes; only calibration keeps the logits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from resnetd_cli.class_names import real_labels
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.classifier import Classifier
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.evaluation import metrics
from resnetd_cli.evaluation.images import NO_LABEL, LabelledImages
from resnetd_cli.evaluation.records import ClassRow, Evaluated, EvaluationReport, ImageRow, Mistake, TemperatureFit
from resnetd_cli.evaluation.temperature import fit_temperature
from resnetd_cli.pipeline import postprocess
from resnetd_cli.pipeline.decode.image import TURNED
from resnetd_cli.pipeline.sources.inputs import Source
from resnetd_cli.results import Failure, shortest
from resnetd_cli.system.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_MOST_MISTAKES = 10


class Track(Protocol):
    """Follows answers on their way."""

    def __call__(self, answers: Iterable[Any], /) -> Iterator[Any]:
        """Give them on, one by one."""
        ...


@dataclass(frozen=True)
class Answers:
    """What a model says of N images: arrays of shape (N,), or (N, C) where C is named.

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


class _Look:
    """What is found out of the images on their way to the model.

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

    def at(self, source: Source) -> Source:
        """Return an image that is looked at when it is read."""

        def read() -> bytes:
            data = source.read()
            self._digests.append(hashlib.blake2b(data, digest_size=16).digest())
            return data

        return replace(source, read=read)

    def decoded(self, image: Image.Image) -> None:
        """Look at an image that was decoded."""
        self._turned.append(bool(image.info.get(TURNED)))


def check(classifier: Classifier, images: LabelledImages, *, real: bool = False) -> str | None:
    """Find out before the work that a model cannot be measured on these images.

    Returns:
        What users should know of how the classes were found in the model, if anything.

    Raises:
        DataError: the classes are not the model's.
        UsageError: the model has a single output; real labels are not of this model's classes.
    """
    if len(classifier.class_names) == 1:
        raise UsageError(
            f"{classifier.name} has a single output, a yes or no, and cannot be measured by classes",
            hint="predict gives its probability; --min-probability P leaves out what is less likely",
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
    """Measure a model.

    Args:
        classifier: the model.
        images: what to measure it on.
        fit: fit a temperature, and report with that.
        real: measure by ImageNet's real labels too.
        mistakes: how many of the mistakes to name.
        trained_on: how many of the images the model was trained on, where that is known.
        on_row: is called with what the model says of each image, in order.
        on_failure: is told of each image that cannot be read.
        track: follows the answers.

    Raises:
        DataError: the classes are not the model's; not one image could be read; see `calibrate.fit`.
        UsageError: real labels are not of this model's classes.
        ModelError: its answers are no numbers.
    """
    import numpy as np

    check(classifier, images, real=real)
    shown = real_labels.of_images(images.names()) if real else None
    targets = images.targets(classifier.class_names)
    if fit and (targets == NO_LABEL).any():
        raise UsageError("--fit-temperature needs labels", hint="lay the images out as DIR/CLASS/IMAGE")
    look = _Look()
    rows = None if on_row is None else _Rows(classifier, images, targets, shown, on_row)
    answers = _answer(
        classifier, images, targets, look, keep=fit, rows=None if fit else rows, on_failure=on_failure, track=track
    )
    if not (answers.predicted >= 0).any():
        raise DataError(f"of {counted(len(images), 'image')} none could be read", hint="the lines above say why")
    calibration, temperature = None, classifier.temperature
    if fit:
        calibration, answers = _calibrate(answers, targets)
        temperature = calibration.temperature
        if rows:
            rows.write_all(answers, look.failures, temperature)
        answers = replace(answers, logits=None)
    verdict = np.where(targets == NO_LABEL, -1, answers.predicted == targets).astype(np.int8)
    by_real = None if shown is None else _by_real(answers.predicted, shown)
    if by_real is not None and not images.classes:
        verdict = by_real
    verdict[answers.predicted < 0] = -1
    if not (verdict >= 0).any():
        raise DataError("none of the images that could be read has a real label", hint="leave out --real-labels")
    report = _report(classifier, images, answers, targets, verdict, mistakes)
    if by_real is not None:
        judged = by_real[by_real >= 0]
        report = replace(report, real_images=len(judged), real_top1=float(judged.mean()) if len(judged) else None)
    report = replace(
        report,
        trained_on=trained_on,
        turned=look.turned,
        repeated=look.repeated,
        temperature=temperature,
        calibration=calibration,
    )
    return Evaluated(report, verdict)


def _answer(
    classifier: Classifier,
    images: LabelledImages,
    targets: NDArray[np.int64],
    look: _Look,
    *,
    keep: bool,
    rows: _Rows | None,
    on_failure: Callable[[Failure], None],
    track: Track,
) -> Answers:
    import numpy as np

    count = len(images)
    answers = Answers(
        predicted=np.full(count, -1, np.int32),
        confidence=np.zeros(count, np.float32),
        in_top5=np.zeros(count, np.bool_),
        loss=np.zeros(count),
        logits=np.zeros((count, len(classifier.class_names)), np.float32) if keep else None,
    )
    temperature = 1.0 if keep else classifier.temperature
    results = classifier.logits(map(look.at, images.sources()), decoded=look.decoded)
    for position, result in enumerate(track(results)):
        if isinstance(result, Failure):
            look.failures[position] = f"{result.kind.value}: {result.message}"
            on_failure(result)
        else:
            _judge(answers, position, result, int(targets[position]), temperature)
        if rows:
            rows.write(position, look.failures.get(position, result), temperature)
    return answers


@dataclass(frozen=True)
class _Rows:
    """Writes what a model says of each image."""

    classifier: Classifier
    images: LabelledImages
    targets: NDArray[np.int64]
    shown: list[frozenset[int]] | None
    on_row: Callable[[ImageRow], object]

    def write_all(self, answers: Answers, failures: Mapping[int, str], temperature: float) -> None:
        """Write the rows of all images, whose logits were kept."""
        assert answers.logits is not None
        for position, logits in enumerate(answers.logits):
            self.write(position, failures.get(position, logits), temperature)

    def write(self, position: int, answer: NDArray[np.float32] | str, temperature: float) -> None:
        """Write the row of an image.

        Args:
            position: which image.
            answer: its logits, or why it could not be read.
            temperature: what logits are divided by.
        """
        target = int(self.targets[position])
        row = ImageRow(self.classifier.name, self.images.name(position))
        if target != NO_LABEL:
            row = replace(row, truth_index=target, truth=self.classifier.class_names.names[target])
        if isinstance(answer, str):
            self.on_row(replace(row, error=answer))
            return
        probabilities = postprocess.probabilities(answer, temperature)
        predicted = int(probabilities.argmax())
        row = replace(
            row,
            prediction_index=predicted,
            prediction=self.classifier.class_names.names[predicted],
            probability=shortest(probabilities[predicted]),
            logits=answer,
        )
        if target == NO_LABEL:
            real = self.shown[position] if self.shown else frozenset()
            self.on_row(replace(row, correct=predicted in real if real else None))
            return
        likely = probabilities[target]
        probabilities[target] = 0
        self.on_row(
            replace(
                row,
                truth_probability=shortest(likely),
                loss=_loss(answer, target, temperature),
                margin=float(likely) - float(probabilities.max()),
                correct=predicted == target,
            )
        )


def _judge(answers: Answers, position: int, logits: NDArray[np.float32], target: int, temperature: float) -> None:
    """Keep what is to be kept of one image's logits."""
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
    answers.loss[position] = _loss(logits, target, temperature)


def _loss(logits: NDArray[np.float32], target: int, temperature: float) -> float:
    """Return the negative log-likelihood of a class."""
    import numpy as np

    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max()
    return float(np.log(np.exp(scaled).sum()) - scaled[target])


def _calibrate(answers: Answers, targets: NDArray[np.int64]) -> tuple[TemperatureFit, Answers]:
    """Fit a temperature to raw logits, and return what the answers are with it."""
    assert answers.logits is not None
    answered = answers.predicted >= 0
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


def _by_real(predicted: NDArray[np.int32], shown: list[frozenset[int]]) -> NDArray[np.int8]:
    """Return for each image whether its most probable class is one of its real labels; -1 where it has none."""
    import numpy as np

    pairs = zip(predicted.tolist(), shown, strict=True)
    return np.array([one in real if real and one >= 0 else -1 for one, real in pairs], np.int8)


def _report(
    classifier: Classifier,
    images: LabelledImages,
    answers: Answers,
    targets: NDArray[np.int64],
    verdict: NDArray[np.int8],
    mistakes: int,
) -> EvaluationReport:
    answered = answers.predicted >= 0
    judged = verdict >= 0
    right = verdict[judged] == 1
    confidence = answers.confidence[judged]
    report = EvaluationReport(
        model=classifier.name,
        engine=classifier.engine.name,
        precision=classifier.precision,
        temperature=classifier.temperature,
        images=int(answered.sum()),
        failed=int((~answered).sum()),
        top1=None,
        top1_interval=None,
        top5=None,
        loss=None,
        ece=metrics.calibration_error(confidence, right),
        macro_precision=None,
        macro_recall=None,
        macro_f1=None,
        real_images=None,
        real_top1=None,
        classes=(),
        confusion=(),
        coverage=metrics.coverage(confidence, right),
        mistakes=(),
    )
    return _with_labels(report, classifier, images, answers, targets, mistakes) if images.classes else report


def _with_labels(
    report: EvaluationReport,
    classifier: Classifier,
    images: LabelledImages,
    answers: Answers,
    targets: NDArray[np.int64],
    mistakes: int,
) -> EvaluationReport:
    """Add the figures that take the class of each image."""
    names = classifier.class_names
    answered = answers.predicted >= 0
    actual, predicted = targets[answered], answers.predicted[answered].astype(targets.dtype)
    scores = metrics.class_scores(actual, predicted, len(names))
    with_images = scores.support > 0
    right = int((actual == predicted).sum())
    return replace(
        report,
        top1=right / len(actual),
        top1_interval=metrics.interval(right, len(actual)),
        top5=float(answers.in_top5[answered].mean()) if len(names) > metrics.TOP5 else None,
        loss=float(answers.loss[answered].mean()),
        macro_precision=float(scores.precision[with_images].mean()),
        macro_recall=float(scores.recall[with_images].mean()),
        macro_f1=float(scores.f1[with_images].mean()),
        classes=tuple(_class_rows(scores, names)),
        confusion=metrics.confusion(actual, predicted),
        mistakes=tuple(_mistakes(images, answers, targets, names, mistakes)),
        titles=names.titles,
    )


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
    images: LabelledImages, answers: Answers, targets: NDArray[np.int64], names: ClassNames, most: int
) -> Iterator[Mistake]:
    """Yield the most confident mistakes, first; those equally so in the images' order."""
    import numpy as np

    wrong = ((answers.predicted >= 0) & (answers.predicted != targets)).nonzero()[0]
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
