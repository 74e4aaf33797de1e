"""Apply the EXIF orientation: turn an image upright."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

TURNED = "resnetd_turned"
"""The key in a decoded image's `info` that says whether its EXIF orientation turned it."""
_ORIENTATION = 0x0112
_TURNING = range(2, 9)


def turn_upright(image: Image.Image) -> bool:
    """Turn an image according to its EXIF orientation, and return whether that changed it."""
    from PIL import ImageOps

    # Even if the EXIF block is damaged, the picture may be intact; loading it will show.
    with suppress(Exception):
        turns = image.getexif().get(_ORIENTATION) in _TURNING
        ImageOps.exif_transpose(image, in_place=True)
        return turns
    return False
