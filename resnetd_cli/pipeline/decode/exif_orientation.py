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
    """Turn an image as its EXIF orientation says, and return whether that changed it."""
    from PIL import ImageOps

    # The picture may be sound although its EXIF block is damaged; loading it shows that.
    with suppress(Exception):
        turns = image.getexif().get(_ORIENTATION) in _TURNING
        ImageOps.exif_transpose(image, in_place=True)
        return turns
    return False
