"""How far two forms of a model agree: the figures, recomputed in numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest

from resnetd_cli.about import agreement_facts
from resnetd_cli.classifier import Classifier
from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.evaluation.agreement import measure_agreement
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Agreement, Failure
from resnetd_cli.views.agreement import in_words

IMAGES, CLASSES = 70, 5


class Fake:
    """Answers as a table says; `unreadable`: the images that fail."""

    def __init__(self, table: np.ndarray, unreadable: Sequence[int] = ()) -> None:
        self.table = table
        self.unreadable = unreadable

    def probabilities(self, sources: Sequence[Source]) -> Iterator[np.ndarray | Failure]:
        for number in cast("Sequence[int]", sources):
            if number in self.unreadable:
                yield Failure.of(str(number), "m", InputError(ErrorKind.EMPTY, "zero bytes", hint="h"))
            else:
                yield self.table[number]


def table(seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).dirichlet(np.ones(CLASSES), IMAGES)
    return cast("np.ndarray", drawn.astype(np.float32))


def compared(one: Fake, other: Fake, **options: Any) -> Agreement:
    return measure_agreement(
        cast("Classifier", one), cast("Classifier", other), cast("list[Source]", range(IMAGES)), **options
    )


def test_the_mean_difference_is_of_each_images_largest() -> None:
    one, other = table(1), table(2)
    agreement = compared(Fake(one), Fake(other))
    differences = np.abs(one.astype(np.float64) - other)
    assert agreement.mean_difference == pytest.approx(differences.max(axis=1).mean(), rel=1e-6)
    assert agreement.mean_difference > 1.5 * differences.mean()  # which is another number
    assert agreement.largest_difference == pytest.approx(differences.max(), rel=1e-6)
    assert agreement.top1_agreement == (one.argmax(axis=1) == other.argmax(axis=1)).mean()
    assert agreement.images == IMAGES


def test_images_that_either_cannot_read_are_left_out() -> None:
    one, other = table(1), table(2)
    failed: list[Failure] = []
    agreement = compared(Fake(one, [3, 40]), Fake(other, [40, 69]), on_failure=failed.append)
    kept = np.delete(np.arange(IMAGES), [3, 40, 69])
    assert agreement.images == IMAGES - 3
    assert agreement.mean_difference == pytest.approx(np.abs(one - other)[kept].max(axis=1).mean(), rel=1e-6)
    assert [failure.input for failure in failed] == ["3", "40", "69"]


def test_words_say_what_the_mean_is_of() -> None:
    words = in_words(agreement_facts(Agreement(70, 0.98, 0.25, 0.0123, 2.0)))
    assert words["probabilities"] == "the largest difference in an image is 0.012 on average, 0.25 at most"
