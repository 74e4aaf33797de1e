"""From an image file's bytes to an upright RGB image, within bounds."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from resnetd_cli.errors import ErrorKind, InputError

if TYPE_CHECKING:
    from PIL import Image

# EPS needs an external program to draw it; the others are formats that Pillow only names.
_NOT_DECODED = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
_GREY_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class DecodeOptions:
    """Bounds and rules of decoding.

    Attributes:
        max_pixels: width x height beyond which an image is `too_large`, decided from its header.
        ignore_exif: leave the image as it is stored instead of turning it upright.
        allow_truncated: fill the missing part of a truncated file with grey instead of failing.
    """

    max_pixels: int = 200_000_000
    ignore_exif: bool = False
    allow_truncated: bool = False


def decode(data: bytes, options: DecodeOptions = DecodeOptions()) -> Image.Image:
    """Return the image in mode RGB: upright, alpha on white, 16-bit and float greys scaled, first frame.

    Raises:
        InputError: of kind `undecodable` or `too_large`.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    if options.allow_truncated:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            width, height = image.size
            if width * height > options.max_pixels:
                raise InputError(
                    ErrorKind.TOO_LARGE,
                    f"{width} x {height} pixels, more than {options.max_pixels:,}",
                    hint="--max-pixels raises the bound",
                )
            return _to_rgb(image if options.ignore_exif else _upright(image))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            ErrorKind.UNDECODABLE, f"not an image{_looks_like(data)}", hint="convert it to JPEG or PNG"
        ) from error
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(ErrorKind.UNDECODABLE, f"damaged image: {reason}", hint=_damage_hint(reason)) from error


@lru_cache
def _formats() -> tuple[str, ...]:
    """Prepare Pillow once for the process and return the formats it may try."""
    from PIL import Image

    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # the bound is `DecodeOptions.max_pixels`
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return tuple(name for name in Image.OPEN if name not in _NOT_DECODED)


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except InputError:
        raise
    except Exception:  # a damaged EXIF block: the picture itself may be sound
        image.load()
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _GREY_MODES:
        return _scale_grey(image).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """Bring greys of more than 8 bits to mode L, by the range of their type, or of their values."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    elif low >= 0.0 and high <= 255.0:
        low, high = 0.0, 255.0
    elif low >= 0.0 and high <= 65535.0:
        low, high = 0.0, 65535.0
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return " but a web page"
    if head.startswith(b"%pdf"):
        return " but a PDF"
    if head.startswith((b"<svg", b"<?xml")):
        return " but an SVG or XML text"
    if head.startswith(b"%!ps"):
        return " that is decoded here, but PostScript"
    return ""


def _damage_hint(reason: str) -> str:
    if "truncated" in reason:
        return "--allow-truncated takes what is there"
    return "fetch or export it again"
