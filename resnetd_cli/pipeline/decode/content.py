"""A 16-byte hash of an image's pixels (its mark), which finds duplicates whatever their name or lossless format.

A link, a copy, a PNG made from a BMP, an image in a tar and one already turned upright have the same mark.
Lossy compression, resizing or cropping changes it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MARK_BYTES = 16


def mark_of(image: Image.Image) -> bytes:
    """Return the mark of an upright RGB image: BLAKE2b of its width, height and pixels, 16 bytes.

    Args:
        image: as `decode` returns it with the default options.
    """
    size = b"".join(side.to_bytes(4, "little") for side in image.size)
    return hashlib.blake2b(size + image.tobytes(), digest_size=MARK_BYTES).digest()


def numbered(marks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the marks by sort order from 0, equal marks alike: int64, shape (N,).

    Args:
        marks: uint8, shape (N, 16).
    """
    import numpy as np

    words = np.ascontiguousarray(marks).view(">u8").astype(np.uint64)
    order = np.lexsort((words[:, 1], words[:, 0]))
    numbers = np.zeros(len(words), np.int64)
    numbers[order[1:]] = np.cumsum((np.diff(words[order], axis=0) != 0).any(axis=1))
    return numbers
