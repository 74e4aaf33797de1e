"""Singular and plural in messages."""

from __future__ import annotations

import pytest

from resnetd_cli.system.wording import counted


@pytest.mark.parametrize(
    ("count", "noun", "form", "expected"),
    [
        (1, "image", "", "1 image"),
        (0, "image", "", "0 images"),
        (1, "class", "", "1 class"),
        (2, "class", "", "2 classes"),
        (1200, "image", ",", "1,200 images"),
    ],
)
def test_counted_uses_singular_and_plural(count: int, noun: str, form: str, expected: str) -> None:
    assert counted(count, noun, form) == expected
