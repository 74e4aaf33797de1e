"""Which images are the same, byte for byte, without reading all of them.

Only files of one size that have a block from their middle in common are read as a whole. One from the beginning
would tell less: what cameras write there is often the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, TypeAlias

from resnetd_cli.errors import InputError
from resnetd_cli.threads import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnetd_cli.datasets.examples import Examples

_BLOCK = 4096
Marked: TypeAlias = "tuple[Examples, NDArray[np.int64], NDArray[np.int64]]"


def mark_of(stream: IO[bytes], size: int) -> int:
    """Return a number that images of one size share if their middle is the same."""
    stream.seek(max(0, (size - _BLOCK) // 2))
    digest = hashlib.blake2b(stream.read(_BLOCK), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def contents_of(splits: Sequence[Marked], pool: Pool) -> list[NDArray[np.int64]]:
    """Return, for each split, the number of each image's content: the same for images that are the same.

    Args:
        splits: the images, their sizes in bytes, and the `mark_of` each.
        pool: the threads that read them.
    """
    import numpy as np

    examples, sizes, marks = zip(*splits, strict=True)
    ends = np.cumsum([len(split) for split in examples])
    contents = np.arange(ends[-1])
    candidates = _alike(np.concatenate(sizes), np.concatenate(marks))

    def digest(number: int) -> bytes | None:
        split = int(np.searchsorted(ends, number, side="right"))
        position = number - (int(ends[split]) - len(examples[split]))
        try:
            return hashlib.sha256(examples[split].read(position)).digest()
        except InputError:  # it was there a moment ago
            return None

    first: dict[bytes, int] = {}
    for number, content in zip(candidates, pool.map(digest, candidates), strict=True):
        if content is not None:
            contents[number] = first.setdefault(content, number)
    return np.split(contents, ends[:-1])


def _alike(sizes: NDArray[np.int64], marks: NDArray[np.int64]) -> list[int]:
    """Return the images that share their size and mark with another, in order."""
    import numpy as np

    order = np.lexsort((marks, sizes))
    same = (np.diff(sizes[order]) == 0) & (np.diff(marks[order]) == 0)
    shared = np.zeros(len(order), bool)
    shared[1:] |= same
    shared[:-1] |= same
    return [int(number) for number in np.sort(order[shared])]
