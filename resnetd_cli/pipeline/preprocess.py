"""From an RGB image to the array a model reads, equal to timm's evaluation transform.

The geometry follows `timm.data.transforms_factory.transforms_imagenet_eval` and the torchvision transforms it
is made of, to the pixel; a test compares both on every crop mode and interpolation of timm's configurations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from resnetd_cli.results import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_LARGEST_RESIZE = 2**26
"""Pixels of a resized image; a quarter of a gigabyte in Pillow."""
_LARGEST_COPY = 2**22
"""Pixels of an image beyond which a copy of its rows costs more than it spares."""
_LONGEST_REACH = 3
"""Pixels on each side that the widest filter, Lanczos, looks at: of the larger of image and resized image."""
Size = tuple[int, int]
"""Height and width, in pixels."""


def preprocess(image: Image.Image, how: Preprocessing) -> NDArray[np.float32]:
    """Resize, crop and normalise an RGB image.

    Returns:
        float32, shape (3, H, W), H and W as in `how.input_size`.
    """
    return _normalise(_resize_and_crop(image, how), how.mean, how.std)


def resized_size(size: Size, how: Preprocessing) -> Size:
    """Return the size an image of this size is resized to before the crop."""
    _, crop_height, crop_width = how.input_size
    target = (math.floor(crop_height / how.crop_pct), math.floor(crop_width / how.crop_pct))
    if how.crop_mode == "squash":
        return target
    if how.crop_mode == "border":
        return _fit(size, target, longest=True)
    if target[0] == target[1]:
        return _shortest_edge(size, target[0])
    return _fit(size, target, longest=False)


def _resize_and_crop(image: Image.Image, how: Preprocessing) -> Image.Image:
    from PIL import Image

    size, crop = resized_size((image.height, image.width), how), how.input_size[1:]
    resample = Image.Resampling[how.interpolation.upper()]
    fill = tuple(round(255 * value) for value in how.mean) if how.crop_mode == "border" else (0, 0, 0)
    return _center_crop(_resize(image, size, crop, resample), crop, fill)


def _resize(image: Image.Image, size: Size, crop: Size, resample: int) -> Image.Image:
    """Resize the image, or as much of it as `_center_crop` keeps."""
    height, width = size
    if height * width > _LARGEST_RESIZE:
        return _resize_visible(image, size, crop, resample)
    # Pillow resizes along the rows, rounds, then along the columns; from version 13 on the other way round
    # where that is less work, as it is here. Its rounding belongs to the result, so the order is left to it.
    columns_first = image.height - height > 2 * (image.width - width)
    if columns_first or image.width * image.height > _LARGEST_COPY:
        return image.resize((width, height), resample)
    return _resize_kept(image, size, crop, resample)


def _resize_kept(image: Image.Image, size: Size, crop: Size, resample: int) -> Image.Image:
    """Resize along the rows, then the columns: only rows that the crop depends on, only columns that it keeps.

    Each side is resized at its full length, to have Pillow's weights to the bit: a `box` would have its edges
    rounded to float32. What is left out is black in between and not looked at.
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
    """Resize only what the crop keeps of an image so long and thin that the whole would not fit in memory.

    Pillow may resample the two sides in the other order, which differs by a few grey levels.
    """
    left, right = _kept(size[1], crop[1])
    top, bottom = _kept(size[0], crop[0])
    scale = image.height / size[0], image.width / size[1]
    box = (left * scale[1], top * scale[0], right * scale[1], bottom * scale[0])
    return image.resize((right - left, bottom - top), resample, box=box)


def _kept(length: int, crop: int) -> tuple[int, int]:
    """Return where along a side the crop begins and ends, in pixels."""
    start = max(0, round((length - crop) / 2))
    return start, min(length, start + crop)


def _shortest_edge(size: Size, edge: int) -> Size:
    """Scale so that the shorter side is `edge`, the longer one cut to a whole pixel, as torchvision does."""
    height, width = size
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _fit(size: Size, target: Size, *, longest: bool) -> Size:
    """Scale by one ratio so that the image lies inside (`longest`) or covers the target, as timm does."""
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


def _normalise(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return the same to the bit as torchvision's `ToTensor` and `Normalize`: float32, shape (3, H, W)."""
    import numpy as np

    array = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
    array /= np.float32(255)
    array -= np.asarray(mean, np.float32)[:, None, None]
    array /= np.asarray(std, np.float32)[:, None, None]
    return array
