"""What labelled answers say of a model, in numpy alone: the same figures as scikit-learn's and torchmetrics'.

torchmetrics takes seconds to import, and wants a matrix of all classes by all classes, which 21,843 do not allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 15
"""Of confidence, for the calibration error, as in Guo et al. 2017."""
TOP5 = 5
"""Classes, the most probable: of so many or fewer, top-5 says nothing."""
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_Z = 1.959963984540054
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Coverage:
    """What a model answers that abstains below a probability.

    Attributes:
        threshold: the probability.
        images: how many it answers.
        coverage: the share of all images that it answers.
        accuracy: the share of these that are right; None where it answers none.
    """

    threshold: float
    images: int
    coverage: float
    accuracy: float | None


@dataclass(frozen=True)
class ClassScores:
    """Figures of C classes, each an array of shape (C,); 0 where there is nothing to divide by.

    Attributes:
        support: images of the class.
        predicted: images taken for it.
        precision: share of those taken for it that are of it.
        recall: share of its images that are taken for it.
        f1: the harmonic mean of the two.
    """

    support: NDArray[np.int64]
    predicted: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def interval(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score, which holds near 0 and 1 too."""
    share, spread = successes / n, _Z * _Z / n
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def class_scores(actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> ClassScores:
    """Return the figures of each class, from the class of each image and the one it was taken for."""
    import numpy as np

    support, taken, right = (
        np.bincount(which, minlength=classes) for which in (actual, predicted, actual[actual == predicted])
    )

    def share(of: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(right, of, out=np.zeros(classes), where=of > 0)

    f1 = np.divide(2 * right, support + taken, out=np.zeros(classes), where=support + taken > 0)
    return ClassScores(support, taken, share(taken), share(support), f1)


def confusion(actual: NDArray[np.int64], predicted: NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    """Return the cells of the confusion matrix that are not 0: actual, predicted, count; in order."""
    import numpy as np

    pairs, counts = np.unique(np.stack([actual, predicted], axis=1), axis=0, return_counts=True)
    return tuple((int(one), int(other), int(count)) for (one, other), count in zip(pairs, counts, strict=True))


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the expected calibration error of top-1 answers (Guo et al. 2017), in bins of equal width.

    It is how far confidence and accuracy lie apart in a bin, averaged over the images.

    Args:
        confidence: the probability of each answer.
        right: whether it is right.
        bins: how many; each holds its upper bound.
    """
    import numpy as np

    which = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    excess = np.bincount(which, weights=right - confidence.astype(np.float64), minlength=bins)
    return math.fsum(np.abs(excess).tolist()) / len(confidence)


def coverage(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> tuple[Coverage, ...]:
    """Return what is answered, and how well, by a model that abstains below each of the thresholds."""
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
