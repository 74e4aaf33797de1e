"""Parsers for numeric options, in every usual notation: `2e8`, `1_000`, `.5`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from resnetd_cli.system.values import Number, Value, Whole

_MOST = 10**15


def whole(low: int, high: int = _MOST) -> Callable[[Any], Any]:
    """Return a parser for whole numbers within bounds."""
    return _parser(Whole(low, high), f"a whole number, {low} or more" if high == _MOST else None)


def number(low: float, high: float) -> Callable[[Any], Any]:
    """Return a parser for numbers within bounds."""
    return _parser(Number(low, high))


def _parser(value: Value, takes: str | None = None) -> Callable[[Any], Any]:
    takes = takes or value.takes

    def parse(text: Any) -> Any:
        try:
            parsed = value.read(str(text))
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is not {takes}" + (f"; {error}" if str(error) else "")) from error
        if not value.is_right(parsed):
            raise typer.BadParameter(f"{text} is not {takes}")
        return parsed

    return parse
