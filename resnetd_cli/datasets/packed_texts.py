"""Many short texts, such as paths, in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts packed into two blocks of memory, which processes can share, unlike a list.

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
