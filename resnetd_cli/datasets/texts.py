"""Many short texts in little memory, and lists of them for people."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from resnetd_cli.system.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN = 3
_SHOWN_LABEL = 80
_MAX_LABEL = 1_000
"""Characters of the name of a class."""
_ERRORS = frozenset({"#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!", "#spill!", "#calc!"})
"""What spreadsheets write in place of a value, in lower case."""
_MISSING = frozenset({"nan", "-nan", "<na>", "null"})
"""What data frames and databases write where there is none, in lower case."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts that lie one after the other in two blocks, which processes can share; a list of them cannot be.

    Attributes:
        data: all of them.
        ends: where in `data` each one ends: int64, shape (N,).
    """

    data: bytes
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, position: int) -> str:
        start = int(self.ends[position - 1]) if position else 0
        # Bytes of file names that are not UTF-8 are lone surrogates in a text.
        return self.data[start : int(self.ends[position])].decode("utf-8", "surrogatepass")


class TextsBuilder:
    """Packs texts."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, text: str) -> None:
        """Add a text."""
        self._data += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._data))

    def extend(self, texts: Iterable[str]) -> None:
        """Add several."""
        for text in texts:
            self.append(text)

    def build(self) -> Texts:
        """Return all of them."""
        import numpy as np

        return Texts(bytes(self._data), np.array(self._ends, np.int64))


class Labeller:
    """Numbers the classes of images as their names come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._labels = array("q")

    def __len__(self) -> int:
        return len(self._labels)

    def append(self, name: str) -> None:
        """Add an image's class."""
        self._labels.append(self._numbers.setdefault(name, len(self._numbers)))

    def build(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return each image's index in the classes, and their names: sorted, as numbers if all of them are."""
        import numpy as np

        names = sorted(self._numbers)
        if all(name.isdecimal() for name in names):
            names.sort(key=int)
        moved = np.zeros(len(names), np.int64)
        for index, name in enumerate(names):
            moved[self._numbers[name]] = index
        return moved[np.array(self._labels, np.int64)], tuple(names)


def label_text(value: object) -> str:
    """Return the name of a class from what a table, a shard or a data set holds for an image.

    Raises:
        UnicodeError: it is not UTF-8.
        ValueError: there is none, or it is not one name.
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
    """Tell what stands for a missing value in a table."""
    return text.lower() in _MISSING


@dataclass
class Few:
    """The first of many names, and how many there are."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str) -> None:
        """Count a name."""
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(name)

    def __str__(self) -> str:
        return shown(self.first, self.count)


def shown(names: Iterable[str], count: int | None = None) -> str:
    """Return the first few of some names, in one line. `count`: how many there are, if not all are given."""
    names = iter(names)
    first = list(islice(names, _SHOWN))
    total = len(first) + sum(1 for _ in names) if count is None else count
    text = ", ".join(printable(name) for name in first)
    return f"{text}, ... ({total:,} in all)" if total > len(first) else text
