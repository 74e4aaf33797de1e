"""Labels as tables, shards and data sets hold them: the name of a class, or an error; and their numbers."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from resnetd_cli.system.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN_LABEL = 80
_MAX_LABEL = 1_000
"""Characters in the name of a class."""
_ERRORS = frozenset({"#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!", "#spill!", "#calc!"})
"""What spreadsheets write in place of a value, in lower case."""
_MISSING = frozenset({"nan", "-nan", "<na>", "null"})
"""What data frames and databases write for a missing value, in lower case."""


class Labeller:
    """Numbers classes in the order in which their names appear."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._labels = array("q")

    def __len__(self) -> int:
        return len(self._labels)

    def append(self, name: str) -> None:
        """Add an image's class."""
        self._labels.append(self._numbers.setdefault(name, len(self._numbers)))

    def build(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return the index of each image's class, and the names of the classes, sorted; numbers by their value."""
        import numpy as np

        names = sorted(self._numbers)
        if all(name.isdecimal() for name in names):
            names.sort(key=int)
        moved = np.zeros(len(names), np.int64)
        for index, name in enumerate(names):
            moved[self._numbers[name]] = index
        return moved[np.array(self._labels, np.int64)], tuple(names)


def label_text(value: object) -> str:
    """Return the name of a class from the label that a table, a shard or a data set holds.

    Raises:
        UnicodeError: it is not UTF-8.
        ValueError: there is no label, or it is not one name.
    """
    if isinstance(value, float) and value.is_integer():  # where some are missing, integers are stored so
        value = int(value)
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if value is None or text == "":
        raise ValueError("no label")
    if text is None or (text[0] + text[-1] in ("[]", "{}")) or text.lower() in _ERRORS:
        raise ValueError(f"the label is {printable(str(value))[:_SHOWN_LABEL]}")
    if is_missing(text):
        raise ValueError(f"the label is {text}, which stands for a missing value")
    if len(text) > _MAX_LABEL:
        raise ValueError(f"the label has more than {_MAX_LABEL:,} characters")
    if not text.isprintable():
        if any("\ud800" <= char <= "\udfff" for char in text):  # bytes that are not UTF-8
            data = text.encode("utf-8", "surrogateescape")
            guess = printable(data.decode("cp1252", "replace"))[:_SHOWN_LABEL]
            raise UnicodeError(f"the label is not UTF-8, but perhaps Windows-1252 ({guess})")
        if any(char in "\r\n\0" for char in text):
            raise ValueError(f"the label is of several lines: {printable(text)[:_SHOWN_LABEL]}")
    return text


def is_missing(text: str) -> bool:
    """Tell whether a text stands for a missing value in a table."""
    return text.lower() in _MISSING
