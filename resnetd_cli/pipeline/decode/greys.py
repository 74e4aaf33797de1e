"""Convert greyscale images of 16 or 32 bits or floats to 8 bits: scaled, never clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of such images."""

# These have at most 16 bits, though Pillow may return 32.
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the image in mode L, scaled from the range of its type, or else of its values.

    Integers of up to 16 bits are scaled from the range of their type, so a photograph equals its 8-bit version.
    Floats within 0 to 1, and other numbers within 0 to 255 or 0 to 65535, are scaled from these ranges; anything
    else from its minimum to its maximum. NaN and infinity become black.
    """
    import numpy as np
    from PIL import Image

    values = _values(image)
    low, high = _range(image, values)
    if isinstance(transparent := image.info.get("transparency"), int):
        values[values == transparent] = high
    # In place: copies of a large image are expensive.
    values -= low
    values *= 255.0 / max(high - low, 1e-12)
    if _tag(image, _TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode.startswith("I;16"):
        np.subtract(255.0, values, out=values)  # Pillow does this for 8 bits only
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


def _values(image: Image.Image) -> NDArray[np.float64]:
    import numpy as np

    stored = np.asarray(image)
    if image.mode == "I" and _tag(image, _TIFF_BITS) == 32 and _tag(image, _TIFF_SAMPLE_FORMAT) != _SIGNED:
        stored = stored.view(np.uint32)  # Pillow has no such mode
    values = stored.astype(np.float64)
    if image.mode == "F":
        np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
    return values


def _range(image: Image.Image, values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        bits = _tag(image, _TIFF_BITS)
        return 0.0, 2.0 ** (bits if bits is not None and 8 < bits < 16 else 16) - 1
    if image.format in _SIXTEEN_BIT_FORMATS:
        return 0.0, 65535.0
    if image.mode == "F" and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    for bound in (255.0, 65535.0):
        if low >= 0.0 and high <= bound:
            return 0.0, bound
    return low, high


def _tag(image: Image.Image, number: int) -> int | None:
    """Return the first value of a TIFF tag; None without this tag, or if it is not a TIFF."""
    value = getattr(image, "tag_v2", {}).get(number)
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else None
