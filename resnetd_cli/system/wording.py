"""Words of messages: counts, reasons of system errors, shortened texts, and names that may have been meant."""

from __future__ import annotations

import re
from collections.abc import Collection
from textwrap import shorten

from resnetd_cli.errors import first_line
from resnetd_cli.system.escaping import printable

_LONGEST_REASON = 160
_ALIKE = 0.85
"""How alike a misspelling is, by difflib's ratio: goldfsh and goldfish 0.93, dog and dough 0.75."""
_WORD = re.compile(r"[^\W\d_]{3,}")


def counted(count: int, noun: str, form: str = "") -> str:
    """Return `1 image` or `2 images`. `form`: how the number is formatted."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:{form}} {noun if count == 1 else plural}"


def system_reason(error: OSError) -> str:
    """Return the system's words for an error, in lower case: `no space left on device`."""
    return (error.strerror or str(error)).lower()


def shortened(text: str) -> str:
    """Return a reason that a library or a file gave, cut to a length that fits an error message."""
    return shorten(text, _LONGEST_REASON, placeholder=" ...")


def short_reason(error: BaseException) -> str:
    """Return the first line of what an exception says, printable and `shortened`."""
    return shortened(printable(first_line(error)))


def near(text: str, known: Collection[str], most: int = 3) -> list[str]:
    """Return the names that a text may be a misspelling of, or else those that have a word in common with it."""
    import difflib

    if alike := difflib.get_close_matches(text, known, n=most, cutoff=_ALIKE):
        return alike
    words = set(_WORD.findall(text))
    return [name for name in known if not words.isdisjoint(_WORD.findall(name))][:most]
