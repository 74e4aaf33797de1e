"""Build messages: counts with plurals, system error reasons, shortened texts, suggestions for misspelt names."""

from __future__ import annotations

import re
from collections.abc import Collection
from textwrap import shorten

from resnetd_cli.errors import first_line
from resnetd_cli.system.escaping import printable

_LONGEST_REASON = 160
_ALIKE = 0.85
"""The least similarity of a misspelling, by difflib's ratio: goldfsh and goldfish 0.93, dog and dough 0.75."""
_WORD = re.compile(r"[^\W\d_]{3,}")


def counted(count: int, noun: str, form: str = "") -> str:
    """Return `1 image` or `2 images`. `form`: the format specification of the number."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:{form}} {noun if count == 1 else plural}"


def system_reason(error: OSError) -> str:
    """Return the system's message for an error, in lower case: `no space left on device`."""
    return (error.strerror or str(error)).lower()


def shortened(text: str) -> str:
    """Return a library's or a file's own message, cut to a length that fits an error message."""
    return shorten(text, _LONGEST_REASON, placeholder=" ...")


def short_reason(error: BaseException) -> str:
    """Return the first line of an exception's message, printable and `shortened`."""
    return shortened(printable(first_line(error)))


def near(text: str, known: Collection[str], most: int = 3) -> list[str]:
    """Return the known names most similar to a text, or else those that share a word with it."""
    import difflib

    if alike := difflib.get_close_matches(text, known, n=most, cutoff=_ALIKE):
        return alike
    words = set(_WORD.findall(text))
    return [name for name in known if not words.isdisjoint(_WORD.findall(name))][:most]
