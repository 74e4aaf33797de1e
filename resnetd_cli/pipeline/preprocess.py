"""Preprocess an RGB image for a model: resize, centre crop and normalise, exactly as timm's evaluation transform.

The geometry follows `timm.data.transforms_factory.transforms_imagenet_eval` and its torchvision transforms to the
pixel; a test compares them for every crop mode and interpolation in timm's configurations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from resnetd_cli.results import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

LARGEST_RESIZE = 2**26
"""The most pixels to resize an image to before cropping; they take a quarter of a gigabyte in Pillow."""
_LARGEST_COPY = 2**22
"""Above this many pixels, copying an image's rows costs more than it saves."""
_LONGEST_REACH = 3
"""Radius of the widest filter, Lanczos, in pixels of the image or the resized image, whichever is smaller."""
Size = tuple[int, int]
"""Height and width, in pixels."""


def preprocess(image: Image.Image, how: Preprocessing) -> NDArray[np.float32]:
    """Resize, crop and normalise an RGB image.

    Returns:
        float32, shape (3, H, W), H and W as in `how.input_size`.
    """
    return normalise(resize_and_crop(image, how), how)


def resized_size(size: Size, how: Preprocessing) -> Size:
    """Return the size to which an image of this size is resized before the crop."""
    target = resize_target(how)
    if how.crop_mode == "squash":
        return target
    if how.crop_mode == "border":
        return _fit(size, target, longest=True)
    if target[0] == target[1]:
        return _shortest_edge(size, target[0])
    return _fit(size, target, longest=False)


def resize_target(how: Preprocessing) -> Size:
    """Return the size that the resized image fits, covers or is stretched to, depending on the crop mode."""
    _, crop_height, crop_width = how.input_size
    return math.floor(crop_height / how.crop_pct), math.floor(crop_width / how.crop_pct)


def resize_and_crop(image: Image.Image, how: Preprocessing) -> Image.Image:
    """Return the part of an RGB image that a model sees, in its input size."""
    from PIL import Image

    size, crop = resized_size((image.height, image.width), how), how.input_size[1:]
    resample = Image.Resampling[how.interpolation.upper()]
    fill = tuple(round(255 * value) for value in how.mean) if how.crop_mode == "border" else (0, 0, 0)
    return _center_crop(_resize(image, size, crop, resample), crop, fill)


def _resize(image: Image.Image, size: Size, crop: Size, resample: int) -> Image.Image:
    """Resize the image, or at least the part that `_center_crop` keeps."""
    height, width = size
    if height * width > LARGEST_RESIZE:
        return _resize_visible(image, size, crop, resample)
    # Pillow resizes along the rows, rounds, then along the columns; from version 13, the other way round if that
    # is less work, as it is here. The order affects rounding, so Pillow has to choose it.
    columns_first = image.height - height > 2 * (image.width - width)
    if columns_first or image.width * image.height > _LARGEST_COPY:
        return image.resize((width, height), resample)
    return _resize_kept(image, size, crop, resample)


def _resize_kept(image: Image.Image, size: Size, crop: Size, resample: int) -> Image.Image:
    """Resize along the rows, then the columns: only the rows the crop depends on, only the columns it keeps.

    Each side is resized at full length so that Pillow's weights are identical: the edges of a `box` would be
    rounded to float32. The parts left out are black in between, and never used.
    """
    height, width = size
    left, right = _kept(width, crop[1])
    top, bottom = _kept(height, crop[0])
    scale = image.height / height
    reach = _LONGEST_REACH * max(scale, 1.0)
    first = max(0, math.floor(top * scale - reach))
    last = min(image.height, math.ceil(bottom * scale + reach))
    rows = image if last - first == image.height else image.crop((0, first, image.width, last))
    resized = rows.resize((width, rows.height), resample)
    return resized.crop((left, -first, right, image.height - first)).resize((right - left, height), resample)


def _resize_visible(image: Image.Image, size: Size, crop: Size, resample: int) -> Image.Image:
    """Resize only the part that the crop keeps, for images too long and thin to fit in memory whole.

    Pillow may resample the two sides in the other order, which changes the result by a few grey levels.
    """
    left, right = _kept(size[1], crop[1])
    top, bottom = _kept(size[0], crop[0])
    scale = image.height / size[0], image.width / size[1]
    box = (left * scale[1], top * scale[0], right * scale[1], bottom * scale[0])
    return image.resize((right - left, bottom - top), resample, box=box)


def _kept(length: int, crop: int) -> tuple[int, int]:
    """Return where the crop starts and ends along a side, in pixels."""
    start = max(0, round((length - crop) / 2))
    return start, min(length, start + crop)


def _shortest_edge(size: Size, edge: int) -> Size:
    """Scale so that the shorter side is `edge`; the longer one is rounded down, as in torchvision."""
    height, width = size
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _fit(size: Size, target: Size, *, longest: bool) -> Size:
    """Scale both sides by one ratio so that the image fits inside (`longest`) or covers the target, as in timm."""
    ratios = size[0] / target[0], size[1] / target[1]
    ratio = max(ratios) if longest else min(ratios)
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


def _center_crop(image: Image.Image, size: Size, fill: tuple[int, ...]) -> Image.Image:
    from PIL import Image

    height, width = size
    if width > image.width or height > image.height:
        padded = Image.new("RGB", (max(width, image.width), max(height, image.height)), fill)
        padded.paste(image, ((padded.width - image.width) // 2, (padded.height - image.height) // 2))
        image = padded
    left, right = _kept(image.width, width)
    top, bottom = _kept(image.height, height)
    return image.crop((left, top, right, bottom))


def normalise(image: Image.Image, how: Preprocessing) -> NDArray[np.float32]:
    """Return what torchvision's `ToTensor` and `Normalize` return, bit for bit: float32, shape (3, H, W)."""
    import numpy as np

    array = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
    array /= np.float32(255)
    array -= np.asarray(how.mean, np.float32)[:, None, None]
    array /= np.asarray(how.std, np.float32)[:, None, None]
    return array
