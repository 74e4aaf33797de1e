"""How well a model answers labelled images, and how two models compare.

Of each image a few numbers are kept, whatever the number of classes; only calibration keeps the logits.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol

from resnetd_cli import calibrate, matching, metrics, postprocess, real_labels
from resnetd_cli.classifier import Classifier
from resnetd_cli.datasets import Dataset, Examples, open_dataset
from resnetd_cli.datasets.examples import ALL, TEST, TRAIN, VAL
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.files import expand_user
from resnetd_cli.labels import ClassNames
from resnetd_cli.metrics import Coverage
from resnetd_cli.results import Failure, shortest
from resnetd_cli.sources import Source, expand

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLITS = (TEST, VAL, ALL, TRAIN)
"""In the order in which one is taken where none is asked for."""
TOP5 = 5
NO_LABEL = -1
_MOST_MISTAKES = 10


class Track(Protocol):
    """Follows answers on their way."""

    def __call__(self, answers: Iterable[Any], /) -> Iterator[Any]:
        """Give them on, one by one."""
        ...


@dataclass(frozen=True)
class Images:
    """The N labelled images to measure on.

    Attributes:
        location: what the user named.
        split: which of its splits; `all` for all of them.
        parts: the images.
        labels: the index of each one's class in `classes`, -1 for none: int64, shape (N,).
        classes: the data set's names of its classes; none where the images lie in no folders of classes.
    """

    location: str
    split: str
    parts: tuple[Examples, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, position: int) -> str:
        """Return what the user calls the image at a position, from 0 to N - 1."""
        for part in self.parts:
            if position < len(part):
                return part.name(position)
            position -= len(part)
        raise IndexError(position)

    def names(self) -> Iterator[str]:
        """Yield what the user calls each image."""
        return (part.name(position) for part in self.parts for position in range(len(part)))

    def sources(self) -> Iterator[Source]:
        """Yield the images, in order."""
        for part in self.parts:
            for position in range(len(part)):
                yield Source(part.name(position), partial(part.read, position))

    def targets(self, names: ClassNames) -> NDArray[np.int64]:
        """Return the index that each image's class has in a model; -1 for none: int64, shape (N,).

        Raises:
            DataError: see `matching.match`.
        """
        import numpy as np

        present = np.unique(self.labels[self.labels != NO_LABEL])
        index = np.full(len(self.classes) + 1, NO_LABEL)  # the last is of those without a label
        index[present] = matching.match([self.classes[label] for label in present], names)
        return index[self.labels]


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
class Calibration:
    """What a temperature changed, on the images that it was fitted on; before it was 1."""

    temperature: float
    loss_before: float
    loss: float
    ece_before: float
    ece: float


@dataclass(frozen=True)
class Report:
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
    calibration: Calibration | None = None

    @property
    def accuracy(self) -> float:
        """Top-1; by the real labels where there are no others."""
        accuracy = self.real_top1 if self.top1 is None else self.top1
        assert accuracy is not None
        return accuracy

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluated:
    """A model's report, and what the comparison with another needs.

    Attributes:
        report: the report.
        verdict: of each image 1 for right, 0 for wrong, -1 for neither: int8, shape (N,).
    """

    report: Report
    verdict: NDArray[np.int8]


@dataclass(frozen=True)
class Comparison:
    """Two models on the images that both answered.

    Attributes:
        images: how many.
        both: both right.
        only_first: only the first right.
        only_second: only the second right.
        neither: both wrong.
        p: of McNemar's exact test, two-sided.
    """

    images: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def open_images(location: str, split: str | None = None, *, real: bool = False) -> Images:
    """Return the labelled images of a DIR.

    Args:
        location: as `open_dataset` takes it.
        split: one of its splits, or `all`; by default the first there is of test, val, all, train.
        real: they may lie in no folders of classes: real labels will tell what they show.

    Raises:
        DataError: see `open_dataset`; or the split is empty.
        UsageError: there is no such split.
    """
    try:
        dataset = open_dataset(location)
    except DataError:
        images = _flat(location) if real and split in (None, ALL) else None
        if images is None:
            raise
        return images
    return _choose(dataset, split)


def _choose(dataset: Dataset, split: str | None) -> Images:
    import numpy as np

    there = dataset.splits
    name = split or next(name for name in SPLITS if name in there)
    if name != ALL and name not in there:
        hint = f"there is: {', '.join(there)}"
        raise UsageError(f"{dataset.location} has no split {name}", hint=hint)
    parts = (there[name],) if name in there else tuple(there.values())
    labels = np.concatenate([part.labels for part in parts])
    if not len(labels):
        raise DataError(f"{dataset.location} has no images in {name}", hint="--split chooses another")
    return Images(dataset.location, name, parts, labels, dataset.classes)


@dataclass(frozen=True)
class _Sources:
    """Sources as a store."""

    found: tuple[Source, ...]

    def name(self, row: int) -> str:
        return self.found[row].name

    def read(self, row: int) -> bytes:
        return self.found[row].read()

    def open(self, row: int) -> IO[bytes]:
        return io.BytesIO(self.read(row))


def _flat(location: str) -> Images | None:
    """Return the images of a folder without folders of classes."""
    import numpy as np

    folder = str(expand_user(location))
    if not os.path.isdir(folder):
        return None
    found = tuple(expand([folder]))
    labels = np.full(len(found), NO_LABEL)
    return Images(location, ALL, (Examples(_Sources(found), np.arange(len(found)), labels, ()),), labels, ())


def check(classifier: Classifier, images: Images, *, real: bool = False) -> None:
    """Find out before the work that a model cannot be measured on these images.

    Raises:
        DataError: the classes are not the model's.
        UsageError: real labels are not of this model's classes.
    """
    images.targets(classifier.class_names)
    if real:
        real_labels.check(classifier.class_names)


def evaluate(
    classifier: Classifier,
    images: Images,
    *,
    fit: bool = False,
    real: bool = False,
    mistakes: int = _MOST_MISTAKES,
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
        raise UsageError("--calibrate needs labels", hint="lay the images out as DIR/CLASS/IMAGE")
    answers = _answer(classifier, images, targets, keep=fit, on_failure=on_failure, track=track)
    if not (answers.predicted >= 0).any():
        raise DataError(f"none of the {len(images)} images could be read", hint="see what is told of each")
    calibration, temperature = None, classifier.temperature
    if fit:
        calibration, answers = _calibrate(answers, targets)
        temperature = calibration.temperature
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
    return Evaluated(replace(report, temperature=temperature, calibration=calibration), verdict)


def compare(first: Evaluated, second: Evaluated) -> Comparison:
    """Compare two models that were measured on the same images.

    Raises:
        DataError: there is no image that both answered.
    """
    import numpy as np

    shared = (first.verdict >= 0) & (second.verdict >= 0)
    if not shared.any():
        raise DataError("there is no image that both models answered", hint="see what is told of each")
    cells = np.bincount(2 * first.verdict[shared] + second.verdict[shared], minlength=4)
    neither, only_second, only_first, both = map(int, cells)
    p = metrics.mcnemar(only_first, only_second)
    return Comparison(int(shared.sum()), both, only_first, only_second, neither, p)


def _answer(
    classifier: Classifier,
    images: Images,
    targets: NDArray[np.int64],
    *,
    keep: bool,
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
    for position, result in enumerate(track(classifier.logits(images.sources()))):
        if isinstance(result, Failure):
            on_failure(result)
        else:
            _judge(answers, position, result, int(targets[position]), 1.0 if keep else classifier.temperature)
    return answers


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
    answers.in_top5[position] = before < TOP5
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max()
    answers.loss[position] = np.log(np.exp(scaled).sum()) - scaled[target]


def _calibrate(answers: Answers, targets: NDArray[np.int64]) -> tuple[Calibration, Answers]:
    """Fit a temperature to raw logits, and return what the answers are with it."""
    assert answers.logits is not None
    answered = answers.predicted >= 0
    temperature = calibrate.fit(answers.logits[answered], targets[answered])
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
    return Calibration(temperature, loss_before, loss, ece_before, ece), replace(after, logits=None)


def _by_real(predicted: NDArray[np.int32], shown: list[frozenset[int]]) -> NDArray[np.int8]:
    """Return for each image whether its most probable class is one of its real labels; -1 where it has none."""
    import numpy as np

    pairs = zip(predicted.tolist(), shown, strict=True)
    return np.array([one in real if real and one >= 0 else -1 for one, real in pairs], np.int8)


def _report(
    classifier: Classifier,
    images: Images,
    answers: Answers,
    targets: NDArray[np.int64],
    verdict: NDArray[np.int8],
    mistakes: int,
) -> Report:
    answered = answers.predicted >= 0
    judged = verdict >= 0
    right = verdict[judged] == 1
    confidence = answers.confidence[judged]
    report = Report(
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
    report: Report,
    classifier: Classifier,
    images: Images,
    answers: Answers,
    targets: NDArray[np.int64],
    mistakes: int,
) -> Report:
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
        top5=float(answers.in_top5[answered].mean()) if len(names) > TOP5 else None,
        loss=float(answers.loss[answered].mean()),
        macro_precision=float(scores.precision[with_images].mean()),
        macro_recall=float(scores.recall[with_images].mean()),
        macro_f1=float(scores.f1[with_images].mean()),
        classes=tuple(_class_rows(scores, names)),
        confusion=metrics.confusion(actual, predicted),
        mistakes=tuple(_mistakes(images, answers, targets, names, mistakes)),
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
    images: Images, answers: Answers, targets: NDArray[np.int64], names: ClassNames, most: int
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
