"""From an image file's bytes to an upright RGB image, within bounds."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from resnetd_cli.errors import ErrorKind, InputError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 200_000_000
_USUAL = ("JPEG", "PNG", "GIF", "BMP", "PPM")
# EPS needs an external program to draw it; the others are formats that Pillow only names.
_NOT_DECODED = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
# These hold no greys of more than 16 bits, and Pillow may give them as 32-bit ones.
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
_GREY_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class DecodeOptions:
    """Bounds and rules of decoding.

    Attributes:
        max_pixels: width x height beyond which an image is `too_large`, decided from its header.
        timeout: seconds that decoding may take.
        ignore_exif: leave the image as it is stored instead of turning it upright.
        allow_truncated: fill the missing part of a truncated file with grey instead of failing.
    """

    max_pixels: int = MAX_PIXELS
    timeout: float = 60.0
    ignore_exif: bool = False
    allow_truncated: bool = False


def decode(data: bytes, options: DecodeOptions = DecodeOptions()) -> Image.Image:
    """Return the image in mode RGB: upright, alpha on white, 16-bit and float greys scaled, first frame.

    Raises:
        InputError: of kind `undecodable` or `too_large`.
        MemoryError: there is not enough for it.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    # Pillow keeps both for the whole process. Its bound stops what a header did not tell, as in an icon.
    ImageFile.LOAD_TRUNCATED_IMAGES = options.allow_truncated
    Image.MAX_IMAGE_PIXELS = options.max_pixels
    try:
        with _open(data) as image:
            width, height = image.size
            if width * height > options.max_pixels:
                raise _too_large(width * height, options)
            # First, and not within the reading of EXIF, whose errors do not count: a second attempt may give
            # black for damaged pixels.
            image.load()
            if not options.ignore_exif:
                _turn_upright(image)
            return _to_rgb(image)
    except (InputError, MemoryError):  # the second says nothing of the image
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(_pixels_in(str(error)), options) from error
    except UnidentifiedImageError as error:
        raise InputError(
            ErrorKind.UNDECODABLE, f"not an image{_looks_like(data)}", hint="convert it to JPEG or PNG"
        ) from error
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(ErrorKind.UNDECODABLE, f"damaged image: {reason}", hint=_damage_hint(reason)) from error


@lru_cache
def import_pillow() -> None:
    """Prepare Pillow for the process: the usual formats, no warnings. `decode` does it when need be."""
    from PIL import Image, ImageOps  # noqa: F401

    Image.preinit()
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _open(data: bytes) -> Image.Image:
    """Open an image of the usual formats, or else of any: importing all of Pillow's takes longer than decoding."""
    from PIL import Image, UnidentifiedImageError

    import_pillow()
    try:
        return Image.open(io.BytesIO(data), formats=_USUAL)
    except UnidentifiedImageError:
        return Image.open(io.BytesIO(data), formats=_all_formats())


@lru_cache
def _all_formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in tuple(Image.OPEN) if name not in _NOT_DECODED)


def _too_large(pixels: int, options: DecodeOptions) -> InputError:
    message = f"{pixels:,} pixels, more than {options.max_pixels:,}"
    return InputError(ErrorKind.TOO_LARGE, message, hint="--max-pixels raises the bound")


def _pixels_in(message: str) -> int:
    """Return the count in Pillow's own complaint about too many pixels."""
    found = re.search(r"\((\d+) pixels\)", message)
    return int(found[1]) if found else 0


def _turn_upright(image: Image.Image) -> None:
    from PIL import ImageOps

    # A damaged EXIF block says nothing of the picture, which may be sound: that shows when it is loaded.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _GREY_MODES:
        return _scale_grey(image).convert("RGB")
    if image.has_transparency_data:
        _match_depth(image)
        return _on_white(image)
    return image.convert("RGB")


def _match_depth(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG of 16 bits to the 8 bits that Pillow keeps of its pixels."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    # Of a large image each copy counts: one that is RGBA already is taken as it is, and nothing holds the white.
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """Bring greys of more than 8 bits to mode L, by the range of their type, or of their values."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image), posinf=0.0, neginf=0.0).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or image.format in _SIXTEEN_BIT_FORMATS:
        low, high = 0.0, 65535.0
    elif image.mode == "F" and low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    elif low >= 0.0 and high <= 255.0:
        low, high = 0.0, 255.0
    elif low >= 0.0 and high <= 65535.0:
        low, high = 0.0, 65535.0
    if isinstance(transparent := image.info.get("transparency"), int):
        values[values == transparent] = high
    # In place: of a large image each copy counts.
    values -= low
    values *= 255.0 / max(high - low, 1e-12)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


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
