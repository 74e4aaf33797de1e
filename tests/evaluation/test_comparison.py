"""Comparing two models: the images counted, and the p-value of McNemar's test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from helpers.scripted_model import LOGITS, model

from resnetd_cli.errors import DataError
from resnetd_cli.evaluation import evaluate
from resnetd_cli.evaluation.comparison import Comparison, compare_models, mcnemar
from resnetd_cli.evaluation.images import open_images


def test_models_are_compared_on_the_images_that_both_answered(pets: Path) -> None:
    images = open_images(str(pets))
    other = LOGITS.copy()
    other[[0, 1, 3]] = [0, 0, 9]  # wrong where the first is right
    other[2] = [9, 0, 0]  # and the other way round
    first, second = evaluate.evaluate(model(), images), evaluate.evaluate(model(other), images)
    compared = compare_models(first, second)
    assert compared == Comparison(8, both=2, only_first=3, only_second=1, neither=2, p=0.625)
    verdict = first.verdict.copy()
    verdict[0] = -1
    compared = compare_models(replace(first, verdict=verdict), second)
    assert (compared.images, compared.only_first, compared.p) == (7, 2, 1.0)


def test_no_image_that_both_answered_is_an_error(pets: Path) -> None:
    result = evaluate.evaluate(model(), open_images(str(pets)))
    nothing = replace(result, verdict=np.full(8, -1, np.int8))
    with pytest.raises(DataError, match="no image that both"):
        compare_models(result, nothing)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (1, 2, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (10, 3, 0.09228515625), (4, 4, 1.0)],
)
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(12, 25), (300, 355), (5000, 5200), (24_000, 26_000)])
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    expected = scipy.stats.binomtest(first, first + second, 0.5).pvalue
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-6)
