"""Metrics of labelled images, in numpy alone: precision, recall, F1, confusion, calibration error, coverage.

The values are those of scikit-learn and torchmetrics. torchmetrics takes seconds to import, and needs a matrix of
all classes by all classes, which is too large for 21,843 classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 15
"""Bins of confidence for the calibration error, as in Guo et al. 2017."""
TOP5 = 5
"""Top-5 says nothing about a model of five classes or fewer."""
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_Z = 1.959963984540054
"""The quantile of the normal distribution for a 95 % interval."""


@dataclass(frozen=True)
class Coverage:
    """How many images are answered, and how well, if the model abstains below a probability.

    Attributes:
        threshold: the probability.
        images: how many are answered.
        coverage: the share of all images that are answered.
        accuracy: the share of the answered ones that are right; None if none is answered.
    """

    threshold: float
    images: int
    coverage: float
    accuracy: float | None


@dataclass(frozen=True)
class ClassScores:
    """Metrics of C classes, each an array of shape (C,); 0 where there is nothing to divide by.

    Attributes:
        support: images of the class.
        predicted: images predicted as the class.
        precision: share of the predicted images that are of the class.
        recall: share of the images of the class that are predicted as it.
        f1: the harmonic mean of precision and recall.
    """

    support: NDArray[np.int64]
    predicted: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share, which is valid near 0 and 1 too."""
    share, spread = successes / n, _Z * _Z / n
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def class_scores(actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> ClassScores:
    """Return the metrics of each class, from the actual and the predicted class of each image."""
    import numpy as np

    support, taken, right = (
        np.bincount(which, minlength=classes) for which in (actual, predicted, actual[actual == predicted])
    )

    def share(of: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(right, of, out=np.zeros(classes), where=of > 0)

    f1 = np.divide(2 * right, support + taken, out=np.zeros(classes), where=support + taken > 0)
    return ClassScores(support, taken, share(taken), share(support), f1)


def confusion(actual: NDArray[np.int64], predicted: NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    """Return the nonzero cells of the confusion matrix, in order: actual, predicted, count."""
    import numpy as np

    pairs, counts = np.unique(np.stack([actual, predicted], axis=1), axis=0, return_counts=True)
    return tuple((int(one), int(other), int(count)) for (one, other), count in zip(pairs, counts, strict=True))


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the expected calibration error of top-1 answers (Guo et al. 2017), in bins of equal width.

    It is the difference between confidence and accuracy in a bin, averaged over the images.

    Args:
        confidence: the probability of each answer.
        right: whether the answer is right.
        bins: the number of bins; each includes its upper bound.
    """
    import numpy as np

    which = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    excess = np.bincount(which, weights=right - confidence.astype(np.float64), minlength=bins)
    return math.fsum(np.abs(excess).tolist()) / len(confidence)


def coverage(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> tuple[Coverage, ...]:
    """Return the coverage at each of the thresholds."""
    rows = []
    for threshold in THRESHOLDS:
        kept = right[confidence >= threshold]
        accuracy = float(kept.mean()) if len(kept) else None
        rows.append(Coverage(threshold, len(kept), len(kept) / len(right), accuracy))
    return tuple(rows)


def negative_log_likelihood(logits: NDArray[np.float32], target: int, temperature: float) -> float:
    """Return the loss of one image: the negative log-likelihood of its class, from logits of shape (C,)."""
    import numpy as np

    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max()
    return float(np.log(np.exp(scaled).sum()) - scaled[target])
