"""Metrics of labelled answers, checked against scikit-learn, scipy and torchmetrics, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.metrics

from resnetd_cli.errors import DataError
from resnetd_cli.evaluation import metrics
from resnetd_cli.evaluation.temperature import fit_temperature
from resnetd_cli.pipeline.postprocess import softmax


def answers(classes: int, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Return classes of images, and those they are taken for: a third of these by chance."""
    random = np.random.default_rng(classes)
    actual = random.integers(0, classes, n)
    by_chance = random.integers(0, classes, n)
    return actual, np.where(random.random(n) < 0.33, by_chance, actual)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_class_scores_equal_scikit_learns(classes: int) -> None:
    actual, predicted = answers(classes)
    scores = metrics.class_scores(actual, predicted, classes)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        actual, predicted, labels=range(classes), zero_division=0.0
    )
    np.testing.assert_allclose(scores.precision, precision, rtol=1e-12)
    np.testing.assert_allclose(scores.recall, recall, rtol=1e-12)
    np.testing.assert_allclose(scores.f1, f1, rtol=1e-12)
    assert scores.support.tolist() == support.tolist()
    assert scores.predicted.sum() == len(actual)


def test_nothing_to_divide_by_is_zero() -> None:
    scores = metrics.class_scores(np.array([0, 0, 1]), np.array([0, 2, 0]), 4)
    assert scores.precision.tolist() == [0.5, 0, 0, 0]
    assert scores.recall.tolist() == [0.5, 0, 0, 0]
    assert scores.f1.tolist() == [0.5, 0, 0, 0]
    assert (scores.support.tolist(), scores.predicted.tolist()) == ([2, 1, 0, 0], [2, 0, 1, 0])


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_confusion_matrix_equals_scikit_learns(classes: int) -> None:
    actual, predicted = answers(classes)
    matrix = sklearn.metrics.confusion_matrix(actual, predicted, labels=range(classes))
    cells = metrics.confusion(actual, predicted)
    assert {(one, other): count for one, other, count in cells} == {
        (one, other): matrix[one, other] for one, other in zip(*matrix.nonzero(), strict=True)
    }
    assert list(cells) == sorted(cells)


def test_many_classes_take_little_memory() -> None:
    actual, predicted = np.array([21842, 5]), np.array([21842, 6])
    assert metrics.confusion(actual, predicted) == ((5, 6, 1), (21842, 21842, 1))


@pytest.mark.slow  # torchmetrics takes seconds to import
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 10])
def test_figures_equal_torchmetrics(classes: int) -> None:
    import torch
    import torchmetrics.functional.classification as theirs

    random = np.random.default_rng(classes)
    logits = random.normal(0, 2, (600, classes)).astype(np.float32)
    probabilities, actual = softmax(logits), random.integers(0, classes, 600)
    given = torch.from_numpy(probabilities), torch.from_numpy(actual)
    ece = theirs.multiclass_calibration_error(*given, num_classes=classes, n_bins=metrics.BINS, norm="l1")
    right = probabilities.argmax(axis=1) == actual
    assert metrics.calibration_error(probabilities.max(axis=1), right) == pytest.approx(float(ece), abs=1e-6)
    f1 = theirs.multiclass_f1_score(*given, num_classes=classes, average=None)
    scores = metrics.class_scores(actual, probabilities.argmax(axis=1), classes)
    np.testing.assert_allclose(scores.f1, f1.numpy(), rtol=1e-6)


def test_the_calibration_error_by_hand() -> None:
    # Of the bin from 6/15 to 7/15 half are right, of the last one three of four.
    confidence = np.array([0.42, 0.46, 0.96, 0.98, 1.0, 1.0])
    right = np.array([True, False, True, True, True, False])
    expected = (abs(1 - 0.88) + abs(3 - 3.94)) / 6
    assert metrics.calibration_error(confidence, right) == pytest.approx(expected)


def test_a_bin_holds_its_upper_bound() -> None:
    # 0.2 is the bound of the third bin of fifteen: with 0.19 in one bin their errors cancel.
    assert metrics.calibration_error(np.array([0.2, 0.19]), np.array([True, False])) == pytest.approx(0.61 / 2)


def test_coverage_by_hand() -> None:
    confidence = np.array([0.45, 0.55, 0.75, 0.9, 0.97], np.float32)
    rows = metrics.coverage(confidence, np.array([False, True, False, True, True]))
    shown = {row.threshold: (row.images, row.coverage, row.accuracy) for row in rows}
    assert shown == {
        0.0: (5, 1.0, 0.6),
        0.5: (4, 0.8, 0.75),
        0.6: (3, 0.6, pytest.approx(2 / 3)),
        0.7: (3, 0.6, pytest.approx(2 / 3)),
        0.8: (2, 0.4, 1.0),
        0.9: (2, 0.4, 1.0),
        0.95: (1, 0.2, 1.0),
        0.99: (0, 0.0, None),
    }


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (186, 200), (1, 1), (883, 1000)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    assert metrics.interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


# --- temperature ---


def drawn(temperature: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, and classes drawn with the probabilities that these have at a temperature."""
    random = np.random.default_rng(3)
    logits = random.normal(0, 4, (n, 7)).astype(np.float32)
    probabilities = softmax((logits / temperature).astype(np.float32)).astype(np.float64)
    actual = (probabilities.cumsum(axis=1) < random.random((n, 1))).sum(axis=1).clip(max=6)
    return logits, actual


def loss(logits: np.ndarray, actual: np.ndarray, temperature: float) -> float:
    scaled = logits.astype(np.float64) / temperature
    return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(actual)), actual]).mean())


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5, 4.0])
def test_fitting_recovers_a_known_temperature(temperature: float) -> None:
    logits, actual = drawn(temperature)
    fitted = fit_temperature(logits, actual)
    assert fitted == pytest.approx(temperature, rel=0.1)
    found = scipy.optimize.minimize_scalar(
        lambda log: loss(logits, actual, math.exp(log)), bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}
    )
    assert fitted == pytest.approx(math.exp(found.x), rel=1e-4)


def test_the_temperature_of_doubled_logits_is_twice_as_high() -> None:
    logits, actual = drawn(1.0)
    assert fit_temperature(2 * logits, actual) == pytest.approx(2 * fit_temperature(logits, actual), rel=1e-6)


def test_no_temperature_fits_answers_that_are_all_right() -> None:
    logits = 3 * np.eye(5, dtype=np.float32)
    with pytest.raises(DataError, match="of 5 images, too few are classified wrongly"):
        fit_temperature(logits, np.arange(5))


def test_no_temperature_fits_answers_worse_than_chance() -> None:
    logits = -3 * np.eye(5, dtype=np.float32)
    with pytest.raises(DataError, match="no better than chance"):
        fit_temperature(logits, np.arange(5))
