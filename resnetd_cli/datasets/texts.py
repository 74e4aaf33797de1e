"""Many short texts in little memory, and lists of them for people."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from resnetd_cli.escaping import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN = 3


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
