"""Words of messages: numbers of things, and names that may have been meant."""

from __future__ import annotations

import re
from collections.abc import Collection

_ALIKE = 0.85
"""How alike a misspelling is, by difflib's ratio: goldfsh and goldfish 0.93, dog and dough 0.75."""
_WORD = re.compile(r"[^\W\d_]{3,}")


def counted(count: int, noun: str, form: str = "") -> str:
    """Return `1 image` or `2 images`. `form`: how the number is formatted."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:{form}} {noun if count == 1 else plural}"


def near(text: str, known: Collection[str], most: int = 3) -> list[str]:
    """Return the names that a text may be a misspelling of, or else those that have a word in common with it."""
    import difflib

    if alike := difflib.get_close_matches(text, known, n=most, cutoff=_ALIKE):
        return alike
    words = set(_WORD.findall(text))
    return [name for name in known if not words.isdisjoint(_WORD.findall(name))][:most]
