"""Near copies: one picture saved again with loss, at another size, or a little brighter.

Pictures are compared by thumbnails. Candidates are neighbours in the order of a perceptual hash: the signs of the
thumbnail's lowest frequencies (pHash), sorted from several of its bits on, so that a few that differ do no harm
(Charikar 2002, https://doi.org/10.1145/509907.509965). What counts is then the largest difference of any cell of
the thumbnails: pages, signs and digits have most of their cells in common with others, but not all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_SIDE, _COLOUR_SIDE = 16, 4
_GREYS = _SIDE**2
THUMBNAIL_BYTES = _GREYS + 2 * _COLOUR_SIDE**2
_REDUCING_GAP = 4.0
_FLAT = 4.0
"""Standard deviation of greys, from 0 to 255: a picture with less shows too little to be compared."""
_DIFFERENCE = 0.25
"""The most that a cell may differ, in standard deviations, contrast and brightness made equal."""
_COLOUR_DIFFERENCE = 12
_BRIGHTNESS_DIFFERENCE = 32
_CONTRAST_RATIO = 1.25
_BITS = 128
_BANDS = 8
"""Number of positions in the hash that sorting starts from."""
_WINDOW = 16
"""Number of neighbours that a picture is compared with, in each order."""
_HASH_DIFFERENCE = 40
"""Number of bits of the hash that may differ."""
_CHUNK = 2**14


def thumbnail(image: Image.Image) -> bytes:
    """Return what near copies have in common: 16 x 16 cells of grey, then 4 x 4 of each colour difference.

    Args:
        image: RGB.
    """
    from PIL import Image

    small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    grey, *colours = small.convert("YCbCr").split()
    of_colour = (band.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX) for band in colours)
    return b"".join(band.tobytes() for band in (grey, *of_colour))


def near_copies(thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return pairs of pictures that are near copies of each other, by position: int64, shape (P, 2).

    In a large set of near copies, each is paired with some of the others only. The time is proportional to N.

    Args:
        thumbnails: uint8, shape (N, 288); see `thumbnail`.
    """
    import numpy as np

    means, deviations = _statistics(thumbnails)
    taken = np.flatnonzero(deviations >= _FLAT)
    of_taken = _Pictures(thumbnails[taken], means[taken], deviations[taken])
    hashes = _hashes(of_taken.thumbnails)
    found = [np.zeros((0, 2), np.int64)]
    for band in range(_BANDS):
        order = _order(np.roll(hashes, -band * (_BITS // 8 // _BANDS), axis=1))
        for step in range(1, min(_WINDOW + 1, len(order))):
            pairs = np.stack([order[:-step], order[step:]], axis=1)
            pairs = pairs[of_taken.may_be_alike(pairs)]
            pairs = pairs[_differing_bits(hashes, pairs) <= _HASH_DIFFERENCE]
            found.append(pairs[of_taken.are_alike(pairs)])
    together = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return taken[together]


def _statistics(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and the standard deviation of the greys of each."""
    import numpy as np

    found = np.zeros((2, len(thumbnails)), np.float32)
    for start in range(0, len(thumbnails), _CHUNK):
        greys = thumbnails[start : start + _CHUNK, :_GREYS].astype(np.float32)
        found[:, start : start + _CHUNK] = greys.mean(axis=1), greys.std(axis=1)
    return found[0], found[1]


def _hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the signs of the lowest frequencies, in bytes: uint8, shape (N, 16)."""
    import numpy as np

    frequencies = np.arange(_SIDE)
    cosines = np.cos(np.pi / (2 * _SIDE) * frequencies[:, None] * (2 * frequencies + 1))
    total = frequencies[:, None] ** 2 + frequencies**2
    lowest = np.argsort(total, axis=None, kind="stable")[1 : _BITS + 1]
    # Every band has low frequencies, which say most, and high ones.
    lowest = lowest.reshape(-1, _BANDS).T.ravel()
    rows, columns = np.divmod(lowest, _SIDE)
    waves = (cosines[rows, :, None] * cosines[columns, None, :]).reshape(_BITS, _GREYS).astype(np.float32).T
    hashes = np.zeros((len(thumbnails), _BITS // 8), np.uint8)
    for start in range(0, len(thumbnails), _CHUNK):
        greys = thumbnails[start : start + _CHUNK, :_GREYS].astype(np.float32)
        hashes[start : start + _CHUNK] = np.packbits(greys @ waves > 0, axis=1)
    return hashes


def _order(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    import numpy as np

    words = np.ascontiguousarray(hashes).view(">u8").astype(np.uint64)
    return np.lexsort((words[:, 1], words[:, 0]))


def _differing_bits(hashes: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)
    differing: NDArray[np.int64] = ones[hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]].sum(axis=1, dtype=np.int64)
    return differing


class _Pictures:
    """Thumbnails, with the mean and the standard deviation of the greys of each."""

    def __init__(
        self, thumbnails: NDArray[np.uint8], means: NDArray[np.float32], deviations: NDArray[np.float32]
    ) -> None:
        self.thumbnails, self._means, self._deviations = thumbnails, means, deviations

    def may_be_alike(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which pairs have about the same brightness and contrast."""
        import numpy as np

        first, second = pairs.T
        brightness = np.abs(self._means[first] - self._means[second])
        contrast = np.abs(np.log(self._deviations[first] / self._deviations[second]))
        may: NDArray[np.bool_] = (brightness <= _BRIGHTNESS_DIFFERENCE) & (contrast <= np.log(_CONTRAST_RATIO))
        return may

    def are_alike(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which pairs have the same greys and colours, cell by cell."""
        import numpy as np

        found = np.zeros(len(pairs), bool)
        for start in range(0, len(pairs), _CHUNK):
            first, second = pairs[start : start + _CHUNK].T
            greys = np.abs(self._greys(first) - self._greys(second)).max(axis=1)
            colours = np.abs(self._colours(first) - self._colours(second)).max(axis=1)
            found[start : start + _CHUNK] = (greys <= _DIFFERENCE) & (colours <= _COLOUR_DIFFERENCE)
        return found

    def _greys(self, at: NDArray[np.int64]) -> NDArray[np.float32]:
        import numpy as np

        greys = self.thumbnails[at, :_GREYS].astype(np.float32)
        return (greys - self._means[at, None]) / self._deviations[at, None]

    def _colours(self, at: NDArray[np.int64]) -> NDArray[np.int16]:
        import numpy as np

        return self.thumbnails[at, _GREYS:].astype(np.int16)
