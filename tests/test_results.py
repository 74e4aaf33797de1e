"""The JSON form of records, and the shortest text of a float32."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from resnetd_cli.errors import ErrorKind
from resnetd_cli.pipeline.sinks.csv_json import rows
from resnetd_cli.results import Classified, Embedded, Failure, Prediction, Preprocessing, shortest

SAMOYED = Prediction(1, 258, "n02111889", "Samoyed", 0.6425)


def test_answer_is_recorded_as_documented() -> None:
    record = Classified("dog.jpg", "resnet50d.ra2_in1k", (SAMOYED,)).record()
    assert json.dumps(record) == (
        '{"input": "dog.jpg", "status": "ok", "model": "resnet50d.ra2_in1k", "predictions": [{"rank": 1, '
        '"index": 258, "id": "n02111889", "label": "Samoyed", "probability": 0.6425}]}'
    )


def test_failure_is_recorded_as_documented() -> None:
    failure = Failure("x.jpg", "resnet50d.ra2_in1k", ErrorKind.UNDECODABLE, "not an image", "convert it")
    assert json.dumps(failure.record()) == (
        '{"input": "x.jpg", "status": "error", "model": "resnet50d.ra2_in1k", "predictions": [], '
        '"error": {"kind": "undecodable", "message": "not an image"}}'
    )


def test_class_without_an_id_is_recorded_with_null() -> None:
    record = Classified("a.jpg", "m", (Prediction(1, 0, None, "class 0", 1.0),)).record()
    assert record["predictions"] == [{"rank": 1, "index": 0, "id": None, "label": "class 0", "probability": 1.0}]


def test_answer_without_predictions_has_an_empty_list() -> None:
    assert Classified("a.jpg", "m", ()).record()["predictions"] == []


def test_embedding_is_in_record_if_present() -> None:
    embedding = np.array([0.1, -2.5, 0.0], np.float32)
    record = Classified("a.jpg", "m", (SAMOYED,), embedding).record()
    assert json.dumps(record["embedding"]) == "[0.1, -2.5, 0.0]"
    assert "embedding" not in Classified("a.jpg", "m", (SAMOYED,)).record()


@pytest.mark.parametrize("kind", ErrorKind)
def test_error_kind_in_the_record_is_its_name_in_lower_case(kind: ErrorKind) -> None:
    assert Failure("a", "m", kind, "why").record()["error"]["kind"] == kind.name.lower()


def test_error_kinds_are_the_closed_set_of_the_records() -> None:
    assert {kind.value for kind in ErrorKind} == {
        "not_found",
        "unreadable",
        "undecodable",
        "too_large",
        "empty",
        "timeout",
        "connection",
        "http_status",
        "blocked",
    }


@pytest.mark.parametrize(
    "record",
    [
        SAMOYED,
        Classified("a", "m", ()),
        Embedded("a", "m", np.zeros(1, np.float32)),
        Failure("a", "m", ErrorKind.EMPTY, "why"),
        Preprocessing((3, 224, 224), 0.875, "center", "bicubic", (0.5,) * 3, (0.5,) * 3),
    ],
)
def test_records_are_frozen(record: object) -> None:
    name = dataclasses.fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def random_float32() -> np.ndarray:
    """Return all kinds of float32: probabilities, random finite bit patterns, and the ends of the range."""
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    limits = np.finfo(np.float32)
    ends = [limits.max, limits.min, limits.tiny, limits.smallest_subnormal, limits.eps, 0, 1, 0.1, 1 / 3, 1e-7]
    numbers = [generator.random(20_000, dtype=np.float32), patterns[np.isfinite(patterns)]]
    return np.concatenate([*numbers, np.array(ends, np.float32)])


def test_shortest_text_denotes_same_float32() -> None:
    values = random_float32()
    assert len(values) > 30_000
    back = np.array([shortest(value) for value in values], np.float64).astype(np.float32)
    assert back.tobytes() == values.tobytes()


def test_shortest_text_survives_json() -> None:
    values = random_float32()[::50]
    back = json.loads(json.dumps([shortest(value) for value in values]))
    assert np.array(back, np.float32).tobytes() == values.tobytes()


def test_shortest_text_has_at_most_nine_digits_and_no_fewer_suffice() -> None:
    for value in random_float32()[::20]:
        digits = f"{shortest(value):.17g}".partition("e")[0].lstrip("-").replace(".", "").strip("0")
        needed = next(n for n in range(1, 10) if np.float32(f"{value:.{n}g}") == value)
        as_printed = repr(shortest(value)).partition("e")[0].lstrip("-").replace(".", "").strip("0")
        assert len(as_printed) <= needed <= 9, (value, digits)


@pytest.mark.parametrize(("value", "text"), [(0.1, "0.1"), (0.6425, "0.6425"), (1 / 3, "0.33333334"), (1, "1.0")])
def test_shortest_text_is_usual_decimal(value: float, text: str) -> None:
    assert repr(shortest(np.float32(value))) == text


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (1.0, "1"),
        (0.95463634, "0.954636"),
        (0.9411939, "0.941194"),
        (0.0080312409, "0.00803124"),
        (3.1249e-05, "3.1249e-05"),
    ],
)
def test_text_formats_have_six_significant_digits(probability: float, text: str) -> None:
    result = Classified("a.jpg", "m", (Prediction(1, 967, "n07920052", "espresso", probability),))
    assert list(rows(result)) == [("a.jpg", "ok", 1, 967, "n07920052", "espresso", text, None)]
