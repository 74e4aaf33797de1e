"""Parse and validate the values of recipe settings, for recipe files and the command line alike.

YAML's own rules are not used because they read `1e-4` as text, `no` as false, `010` as 8 and `1:30` as 90.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_NUMBER = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?[0-9]+)?")
_WITH_COMMAS = re.compile(r"[+-]?[0-9]*(?:,[0-9]+)+(?:[eE][+-]?[0-9]+)?")
_NOTHING = ("", "~", "null", "none")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Value(ABC):
    """The type of a setting: which values it accepts, and how they are read."""

    @property
    @abstractmethod
    def takes(self) -> str:
        """The values it accepts, in words."""

    @abstractmethod
    def read(self, text: str) -> Any:
        """Parse a text.

        Raises:
            ValueError: it is not valid; the message says what to write instead if that is clear.
        """

    @abstractmethod
    def is_right(self, value: Any) -> bool:
        """Return whether a value is valid."""


@dataclass(frozen=True)
class Whole(Value):
    """A whole number within bounds; `32.0` and `1e3` count as whole."""

    low: int
    high: int

    @property
    def takes(self) -> str:
        """The bounds."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, text: str) -> int | float:
        """Parse it."""
        number = _number(text, without_commas=text.replace(",", ""))
        return int(number) if math.isfinite(number) and number == int(number) else number

    def is_right(self, value: Any) -> bool:
        """Return whether it is valid."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Number(Value):
    """A number within bounds."""

    low: float
    high: float

    @property
    def takes(self) -> str:
        """The bounds."""
        return f"a number from {self.low:g} to {self.high:g}"

    def read(self, text: str) -> int | float:
        """Parse it."""
        return _number(text, without_commas=text.replace(",", "." if text.count(",") == 1 else ""))

    def is_right(self, value: Any) -> bool:
        """Return whether it is valid."""
        return _is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class Pair(Value):
    """Two numbers within bounds, as in `[0.08, 1]`, `(0.08, 1)` and `0.08,1`."""

    low: float
    high: float

    @property
    def takes(self) -> str:
        """The bounds."""
        return f"two numbers from {self.low:g} to {self.high:g}, the smaller first"

    def read(self, text: str) -> list[int | float]:
        """Parse it into a list, as JSON does."""
        numbers = _numbers(text)
        if len(numbers) != 2:
            raise ValueError
        return numbers

    def is_right(self, value: Any) -> bool:
        """Return whether it is valid."""
        return (
            isinstance(value, tuple)
            and len(value) == 2
            and all(map(_is_number, value))
            and self.low <= value[0] <= value[1] <= self.high
        )


@dataclass(frozen=True)
class Shares(Value):
    """One or more numbers between 0 and 1, each larger than the one before, as in `[0.3, 0.6, 0.9]` and `0.5`."""

    most: int = 100

    @property
    def takes(self) -> str:
        """The bounds."""
        return "numbers between 0 and 1 in rising order, such as [0.5, 0.75]"

    def read(self, text: str) -> list[int | float]:
        """Parse them into a list, as JSON does."""
        return _numbers(text)

    def is_right(self, value: Any) -> bool:
        """Return whether they are such numbers."""
        return (
            isinstance(value, tuple)
            and 0 < len(value) <= self.most
            and all(map(_is_number, value))
            and all(one < other for one, other in zip((0, *value), (*value, 1), strict=True))
        )


@dataclass(frozen=True)
class Choice(Value):
    """One of some words."""

    words: tuple[str, ...]

    @property
    def takes(self) -> str:
        """The words."""
        return " or ".join(self.words)

    def read(self, text: str) -> str:
        """Parse it, ignoring case."""
        return text.lower()

    def is_right(self, value: Any) -> bool:
        """Return whether it is one of them."""
        return value in self.words


@dataclass(frozen=True)
class Text(Value):
    """A short text."""

    meaning: str

    @property
    def takes(self) -> str:
        """Its meaning."""
        return self.meaning

    def read(self, text: str) -> str:
        """Return the text unchanged."""
        return text

    def is_right(self, value: Any) -> bool:
        """Return whether it is short, printable ASCII."""
        return isinstance(value, str) and 0 < len(value) <= 100 and value.isascii() and value.isprintable()


@dataclass(frozen=True)
class Flag(Value):
    """Yes or no."""

    @property
    def takes(self) -> str:
        """The two words."""
        return "true or false"

    def read(self, text: str) -> bool:
        """Parse it."""
        if text.lower() not in _YES + _NO:
            raise ValueError
        return text.lower() in _YES

    def is_right(self, value: Any) -> bool:
        """Return whether it is one of them."""
        return isinstance(value, bool)


@dataclass(frozen=True)
class Maybe(Value):
    """Another value, or none."""

    value: Value

    @property
    def takes(self) -> str:
        """The other value's, or null."""
        return f"{self.value.takes}, or null"

    def read(self, text: str) -> Any:
        """Parse it."""
        return None if text.lower() in _NOTHING else self.value.read(text)

    def is_right(self, value: Any) -> bool:
        """Return whether it is valid, or None."""
        return value is None or self.value.is_right(value)


def unquoted(text: str) -> str:
    """Return a text without surrounding white space and quotes."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _numbers(text: str) -> list[int | float]:
    """Parse a list of numbers, with or without brackets."""
    parts = re.split(r"\s*,\s*|\s+", text.strip().strip("[]()").strip())
    return [_number(unquoted(part), without_commas="") for part in parts]


def _number(text: str, without_commas: str) -> int | float:
    """Parse a number.

    Args:
        text: the text as typed.
        without_commas: what to suggest in place of a number with commas.
    """
    plain = text.replace("\N{MINUS SIGN}", "-")  # as papers print it
    if _NUMBER.fullmatch(plain):
        return int(plain) if plain.replace("_", "").lstrip("+-").isdigit() else float(plain)
    if _WITH_COMMAS.fullmatch(plain):
        raise ValueError(f"write {without_commas}: commas do not belong in numbers")
    if plain.endswith("%") and _NUMBER.fullmatch(plain[:-1].rstrip()):
        raise ValueError(f"write {float(plain[:-1]) / 100:g}: shares are written as numbers from 0 to 1")
    raise ValueError


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
