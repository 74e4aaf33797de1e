"""Options that are numbers, as people type them."""

from __future__ import annotations

import pytest
import typer

from resnetd_cli.cli.number_parsers import number, whole


@pytest.mark.parametrize(("text", "value"), [("2e8", 200_000_000), ("1_000", 1000), ("2.0", 2), ("8", 8), (8, 8)])
def test_whole_numbers_are_parsed_in_every_usual_notation(text: object, value: int) -> None:
    parsed = whole(1)(text)
    assert (parsed, type(parsed)) == (value, int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "0 is not a whole number, 1 or more"),
        ("1.5", "1.5 is not a whole number, 1 or more"),
        ("x", "'x' is not a whole number, 1 or more"),
        ("1,000", "'1,000' is not a whole number, 1 or more; write 1000: commas do not belong in numbers"),
    ],
)
def test_invalid_whole_number_is_refused(text: str, message: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        whole(1)(text)
    assert caught.value.message == message


@pytest.mark.parametrize(("text", "value"), [(".5", 0.5), ("1e-1", 0.1), ("1", 1.0)])
def test_numbers_are_parsed_in_every_usual_notation(text: str, value: float) -> None:
    assert number(0, 1)(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "1.1", "-1", "0,5", "50%", ""])
def test_invalid_or_out_of_range_number_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a number from 0 to 1"):
        number(0, 1)(text)
