"""Softmax, sigmoid and top-k of logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resnetd_cli.class_names import shipped
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.errors import ModelError
from resnetd_cli.pipeline.postprocess import probabilities, sigmoid, softmax, top_k
from resnetd_cli.results import Prediction

FRUIT = ClassNames(("apple", "pear", "plum", "fig"), ("n1", "n2", None, "n4"), "a test")


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, dtype=np.float64)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 10, 1000, 21843])
def test_softmax_equals_torchs(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(0, 5, (3, classes)).astype(np.float32)
    ours, theirs = softmax(logits), torch.from_numpy(logits).double().softmax(dim=-1).numpy()
    assert ours.dtype == np.float32
    assert ours.shape == logits.shape
    np.testing.assert_allclose(ours, theirs, rtol=5e-6, atol=1e-30)
    np.testing.assert_allclose(ours.sum(axis=-1, dtype=np.float64), 1, atol=1e-6)


def test_softmax_of_huge_logits_does_not_overflow() -> None:
    assert softmax(np.array([1e4, 1e4, -1e4], np.float32)).tolist() == [0.5, 0.5, 0.0]


def test_softmax_does_not_modify_its_input() -> None:
    logits = np.array([1.0, 2.0], np.float32)
    softmax(logits)
    assert logits.tolist() == [1.0, 2.0]


def test_sigmoid_equals_torchs_and_does_not_overflow() -> None:
    logits = np.array([-1e4, -30, -2, 0, 0.5, 2, 30, 1e4], np.float32)
    expected = torch.from_numpy(logits).double().sigmoid().numpy()
    assert sigmoid(logits).dtype == np.float32
    np.testing.assert_allclose(sigmoid(logits), expected, rtol=1e-6, atol=1e-30)


def test_single_output_is_a_sigmoid_with_the_temperature() -> None:
    assert probabilities(np.array([2.0], np.float32))[0] == pytest.approx(0.880797, abs=1e-6)
    assert probabilities(np.array([[2.0], [-2.0]], np.float32), 2.0)[:, 0] == pytest.approx(
        [0.731059, 0.268941], abs=1e-6
    )
    defect = ClassNames(("defect",), (None,), "a test")
    (answer,) = top_k(np.array([2.0], np.float32), defect, 5, 0.88)
    assert (answer.label, answer.rank, answer.index) == ("defect", 1, 0)
    assert top_k(np.array([2.0], np.float32), defect, 5, 0.9) == ()


def test_two_outputs_are_a_softmax() -> None:
    assert probabilities(np.array([2.0, 0.0], np.float32)).tolist() == pytest.approx(
        [0.880797, 0.119203], abs=1e-6
    )


def test_top_k_names_the_most_probable_classes_in_order() -> None:
    assert top_k(logits_of(0.125, 0.5, 0.25, 0.125), FRUIT, 3) == (
        Prediction(1, 1, "n2", "pear", 0.5),
        Prediction(2, 2, None, "plum", 0.25),
        Prediction(3, 0, "n1", "apple", 0.125),
    )


def test_duplicate_labels_get_distinct_titles() -> None:
    logits = np.zeros(1000, np.float32)
    logits[[134, 517, 258]] = 30, 20, 10
    predictions = top_k(logits, shipped.imagenet(), 3)
    assert [(item.index, item.label, item.title) for item in predictions] == [
        (134, "crane", "crane (bird)"),
        (517, "crane", "crane (machine)"),
        (258, "Samoyed", "Samoyed"),
    ]
    assert predictions[1].record() == {
        "rank": 2,
        "index": 517,
        "id": "n03126707",
        "label": "crane",
        "probability": predictions[1].probability,
    }


def test_ties_go_to_the_lower_index() -> None:
    predictions = top_k(logits_of(0.125, 0.375, 0.125, 0.375), FRUIT, 4)
    assert [item.index for item in predictions] == [1, 3, 0, 2]
    assert [item.rank for item in predictions] == [1, 2, 3, 4]
    # So many that only a stable sort keeps them in order.
    names = ClassNames(tuple(map(str, range(1000))), (None,) * 1000, "a test")
    logits = np.tile(np.array([0, 1, 2, 1], np.float32), 250)
    assert [item.index for item in top_k(logits, names, 1000)] == [
        index for value in (2, 1, 0) for index in np.flatnonzero(logits == value)
    ]


@pytest.mark.parametrize(("k", "count"), [(1, 1), (4, 4), (5, 4), (1000, 4)])
def test_k_above_the_number_of_classes_returns_all(k: int, count: int) -> None:
    assert len(top_k(logits_of(0.1, 0.2, 0.3, 0.4), FRUIT, k)) == count


@pytest.mark.parametrize(("bound", "labels"), [(0.0, 4), (0.125, 4), (0.2, 2), (0.25, 2), (0.5, 1), (0.9, 0)])
def test_classes_below_min_probability_are_left_out(bound: float, labels: int) -> None:
    predictions = top_k(logits_of(0.125, 0.5, 0.25, 0.125), FRUIT, 4, bound)
    assert len(predictions) == labels
    assert [item.rank for item in predictions] == list(range(1, labels + 1))


def test_predictions_are_plain_python_values() -> None:
    first = top_k(logits_of(0.1, 0.9, 0.0001, 0.0001), FRUIT, 1)[0]
    assert (type(first.index), type(first.rank), type(first.probability)) == (int, int, float)


def test_order_and_probabilities_equal_torchs_topk() -> None:
    logits = np.random.default_rng(7).normal(0, 3, 1000).astype(np.float32)
    names = ClassNames(tuple(map(str, range(1000))), (None,) * 1000, "a test")
    expected = torch.from_numpy(logits).softmax(dim=0).topk(10)
    predictions = top_k(logits, names, 10)
    assert [item.index for item in predictions] == expected.indices.tolist()
    assert [item.label for item in predictions] == [str(index) for index in expected.indices.tolist()]
    np.testing.assert_allclose([item.probability for item in predictions], expected.values, rtol=2e-6)


def test_non_finite_logits_are_an_error() -> None:
    with pytest.raises(ModelError, match="not a number"):
        top_k(np.array([1.0, np.nan, 2.0, 3.0], np.float32), FRUIT, 2)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_an_error(k: int) -> None:
    with pytest.raises(ValueError, match="top_k"):
        top_k(np.zeros(4, np.float32), FRUIT, k)
