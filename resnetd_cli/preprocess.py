"""From an RGB image to the array a model reads, equal to timm's evaluation transform.

The geometry follows `timm.data.transforms_factory.transforms_imagenet_eval` and the torchvision transforms it
is made of, to the pixel; a test compares both on every crop mode and interpolation of timm's configurations.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from resnetd_cli.results import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_LARGEST_RESIZE = 2**26
"""Pixels of a resized image; a quarter of a gigabyte in Pillow."""
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

    height, width = resized_size((image.height, image.width), how)
    resample = Image.Resampling[how.interpolation.upper()]
    fill = tuple(round(255 * value) for value in how.mean) if how.crop_mode == "border" else (0, 0, 0)
    size, crop = (height, width), how.input_size[1:]
    resize = _resize if height * width <= _LARGEST_RESIZE else _resize_visible
    return _center_crop(resize(image, size, crop, resample), crop, fill)


def _resize(image: Image.Image, size: Size, crop: Size, resample: int) -> Image.Image:
    return image.resize((size[1], size[0]), resample)


def _resize_visible(image: Image.Image, size: Size, crop: Size, resample: int) -> Image.Image:
    """Resize only what the crop keeps of an image so long and thin that the whole would not fit in memory.

    Pillow may resample the two sides in the other order, which differs by a few grey levels.
    """
    height, width = min(size[0], crop[0]), min(size[1], crop[1])
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    scale = image.height / size[0], image.width / size[1]
    box = (left * scale[1], top * scale[0], (left + width) * scale[1], (top + height) * scale[0])
    return image.resize((width, height), resample, box=box)


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
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def _normalise(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    import numpy as np

    pixels = np.asarray(image)
    table = _normalised_values(mean, std)
    return np.stack([np.take(table[channel], pixels[..., channel]) for channel in range(3)])


@lru_cache
def _normalised_values(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return what each of the 256 grey levels becomes in each channel: float32, shape (3, 256).

    Looking the value up is quicker than computing it, and the same to the bit as torchvision's
    `ToTensor` and `Normalize`: x / 255, less the mean, over the standard deviation, each in float32.
    """
    import numpy as np

    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    means, stds = np.asarray(mean, np.float32)[:, None], np.asarray(std, np.float32)[:, None]
    return (levels - means) / stds
