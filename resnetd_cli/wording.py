"""Words of messages that depend on numbers."""

from __future__ import annotations


def counted(count: int, noun: str, form: str = "") -> str:
    """Return `1 image` or `2 images`. `form`: how the number is formatted."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:{form}} {noun if count == 1 else plural}"
