"""Decode an image file into an upright RGB image, within limits on pixels, time and memory."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from resnetd_cli.errors import ErrorKind, InputError, Reason
from resnetd_cli.pipeline.decode import bmp, greys, isolated, jpeg, png
from resnetd_cli.pipeline.decode.exif_orientation import TURNED, turn_upright
from resnetd_cli.pipeline.preprocess import resize_and_crop
from resnetd_cli.system.deadline import Deadline
from resnetd_cli.system.distribution import how_to_install

if TYPE_CHECKING:
    from PIL import Image, ImageFile

    from resnetd_cli.results import Preprocessing

MAX_PIXELS = 200_000_000
_JPEGS = ("JPEG", "MPO")
USUAL = ("JPEG", "PNG", "GIF", "BMP", "PPM")
# EPS needs an external program; for the others Pillow has only stubs.
_NOT_DECODED = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
# The message for a file that no decoder accepts, by its first bytes in lower case.
_KNOWN = {
    (b"<!doctype html", b"<html"): "not an image but a web page",
    (b"%pdf",): "not an image but a PDF",
    (b"<svg", b"<?xml"): "not an image but an SVG or XML text",
    (b"%!ps",): "not an image that is decoded here, but PostScript",
    (b"ii*\0", b"mm\0*"): "a TIFF that is damaged, or of a kind that is not decoded",
    (b"8bps",): "a PSD that is damaged, or of a kind that is not decoded",
    (b"bm",): "a BMP that is damaged, or of a kind that is not decoded",
    (b"\xff\xd8\xff",): "a JPEG that is damaged, or of a kind that is not decoded",
    (b"\x89png",): "a damaged PNG",
    (b"gif8",): "a damaged GIF",
    (b"riff",): "a WebP that is damaged, or not an image",
    (b"\xff\x0a", b"\0\0\0\x0cjxl "): "a JPEG XL image, which is not decoded",
    (b"\0\0\1\0", b"icns"): "an icon that is damaged, or of a kind that is not decoded",
}
_APPLE_DOUBLE = b"\0\5\x16\7"
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_IMAGE_INSIDE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff[\xdb\xe0-\xef]|GIF8[79]a")
_HEAD = 512
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_CONVERT = "convert it to JPEG or PNG"
_FETCH = "fetch or export it again"
_LARGE, _SMALL_BLOCK = 4_000_000, 2**11
"""Images of more pixels are read in blocks of this many bytes: a progressive JPEG may take long for each byte."""
_BAND = 256
_AMPLE = 2
"""How many times the size that a model needs a JPEG keeps on either side when it is decoded at a smaller scale."""
GUARD_SUSPECT = "suspect"
GUARD_ALL = "all"


@dataclass(frozen=True)
class DecodeOptions:
    """Limits and rules of decoding.

    Attributes:
        max_pixels: the most pixels, width x height; a larger image is `too_large`, judged by its header.
        timeout: seconds that decoding may take.
        guard: what to decode in a separate process: `suspect`, all but the usual formats; or `all`.
        ignore_exif: leave the image as stored instead of turning it upright.
        allow_truncated: fill the missing part of a truncated file with grey instead of failing.
        shrink_for: the size in pixels that a model needs: JPEGs at least four times as large on both sides are
            decoded at a half, a quarter or an eighth of their size; None to decode every pixel.
    """

    max_pixels: int = MAX_PIXELS
    timeout: float = 60.0
    guard: str = GUARD_SUSPECT
    ignore_exif: bool = False
    allow_truncated: bool = False
    shrink_for: int | None = None


def decode(
    data: bytes, options: DecodeOptions = DecodeOptions(), crop_for: Preprocessing | None = None
) -> Image.Image:
    """Return the image in mode RGB: upright, alpha on white, 16-bit and float greys scaled, first frame.

    The usual formats are decoded in this process, the others in a separate one that a hostile file may crash.

    Args:
        data: the file.
        options: limits and rules.
        crop_for: resize and crop the image for a model, so that the separate process sends back less.

    Raises:
        InputError: of kind `undecodable`, `too_large` or `timeout`.
    """
    if options.guard != GUARD_ALL:
        with suppress(_NotUsual):
            image = decode_here(data, options, formats=USUAL)
            return crop(image, crop_for) if crop_for else image
    from PIL import Image

    answer = isolated.decode(data, asdict(options), asdict(crop_for) if crop_for else None)
    image = Image.frombuffer("RGB", answer.size, answer.pixels, "raw", "RGB", 0, 1)
    image.info[TURNED] = answer.turned
    return image


def decode_here(
    data: bytes,
    options: DecodeOptions,
    *,
    formats: tuple[str, ...] | None = None,
    on_size: Callable[[int], None] = lambda pixels: None,
) -> Image.Image:
    """Decode in this process, as `decode` does.

    Args:
        data: the file.
        options: limits and rules.
        formats: Pillow's names of the formats to try; None for all.
        on_size: called with the number of pixels before any is decoded.

    Raises:
        InputError: as `decode`.
        MemoryError: a decoder ran out of memory.
    """
    from PIL import Image, ImageFile

    import_pillow()
    # Both are global in Pillow. Its own limit catches sizes that the header did not declare, as in an icon.
    ImageFile.LOAD_TRUNCATED_IMAGES = options.allow_truncated
    Image.MAX_IMAGE_PIXELS = options.max_pixels
    decoding = _Decoding(options, formats, on_size)
    data = _picture_in(data, decoding.check_time)
    try:
        return decoding.attempt(data)
    except (InputError, _NotUsual) as error:
        if isinstance(error, InputError) and error.kind is not ErrorKind.UNDECODABLE:
            raise
        repaired = _repaired(data, decoding.check_time)
        if repaired is None:
            raise
        if repaired.startswith(jpeg.START):
            decoding.check_end(repaired)
        return decoding.attempt(repaired)


def crop(image: Image.Image, how: Preprocessing) -> Image.Image:
    """Return the part of a decoded image that a model sees, in its input size."""
    seen = resize_and_crop(image, how)
    seen.info[TURNED] = image.info[TURNED]
    return seen


def _repaired(data: bytes, check_time: Callable[[], None]) -> bytes | None:
    """Return a file that could not be decoded in a repaired form; None if it cannot be repaired."""
    return jpeg.repaired(data, check_time) or bmp.repaired(data)


class _Decoding:
    """The attempts to decode one file, which share its limits and its deadline."""

    def __init__(
        self, options: DecodeOptions, formats: tuple[str, ...] | None, on_size: Callable[[int], None]
    ) -> None:
        self._options = options
        self._formats = formats
        self._on_size = on_size
        self._deadline = Deadline(options.timeout)
        self.check_time = partial(_check, self._deadline)
        """Raises the error of a file that takes too long, once the deadline has passed."""

    def attempt(self, data: bytes) -> Image.Image:
        """Decode the file, or raise what `decode_here` does, or `_NotUsual`."""
        strict = not self._options.allow_truncated
        with self._opened(data) as image:
            last_pixel = png.LastPixel(image) if strict and image.format == "PNG" else None
            if image.width * image.height > _LARGE:
                image.decodermaxblock = _SMALL_BLOCK
            if self._options.shrink_for and image.format in _JPEGS:
                # The decoder leaves out the finest details of each block, which takes it a fraction of the time.
                image.draft(image.mode, (_AMPLE * self._options.shrink_for,) * 2)
            if strict and image.format == "TIFF" and not _tiles_cover(image):
                raise _truncated()
            # Before EXIF is read, where errors are ignored: a second attempt to load may return black for
            # damaged pixels.
            image.load()
            if last_pixel and last_pixel.is_as_marked() and not png.has_all_rows(data, self.check_time):
                raise _truncated()
            if strict and image.format in _JPEGS:
                self._check_blocks(image, data)
            turned = not self._options.ignore_exif and turn_upright(image)
            rgb = _to_rgb(image)
            rgb.info[TURNED] = turned
            return rgb

    def check_end(self, data: bytes) -> None:
        """Raise the error of a truncated file if a JPEG's coded pixels end early, unless that is allowed."""
        if not self._options.allow_truncated:
            self._compare(data, jpeg.continued(data), shrink=1)

    def _check_blocks(self, image: Image.Image, data: bytes) -> None:
        """Raise the error of a truncated file if a JPEG ends early, which libjpeg hides by filling in blocks.

        Missing blocks are grey at any scale. If a progressive JPEG lacks a scan, its blocks are blurred.
        """
        if image.info.get("progressive") and jpeg.may_lack_scans(data, self.check_time):
            shrink = 1
        elif _ends_grey(image) or jpeg.is_padded(data):
            shrink = 8
        else:
            return
        continued = jpeg.continued(data)
        if continued is not None:
            self._compare(data, continued, shrink=shrink)

    def _compare(self, data: bytes, other: bytes | None, *, shrink: int) -> None:
        if other is None or self._fingerprint(data, shrink) != self._fingerprint(other, shrink):
            raise _truncated()

    def _fingerprint(self, data: bytes, shrink: int) -> int:
        """Return a checksum of a JPEG's pixels, decoded at a smaller scale if that is allowed."""
        checksum = 0
        with self._opened(data) as image:
            if shrink > 1:
                image.draft(image.mode, (max(1, image.width // shrink), max(1, image.height // shrink)))
            image.load()
            for top in range(0, image.height, _BAND):
                band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
                checksum = zlib.crc32(band.tobytes(), checksum)
        return checksum

    def _file(self, data: bytes) -> _Timed:
        return _Timed(data, self._deadline)

    @contextmanager
    def _opened(self, data: bytes) -> Iterator[ImageFile.ImageFile]:
        """Open the file within limits. Until the end of the block, exceptions are turned into our errors."""
        from PIL import Image

        with (
            _our_errors(self._options, self._formats, lambda: data),
            Image.open(self._file(data), formats=self._formats or _all_formats()) as image,
        ):
            pixels = image.width * image.height
            if pixels > self._options.max_pixels:
                raise _too_large(pixels, self._options)
            self._on_size(pixels)
            yield image


@contextmanager
def _our_errors(
    options: DecodeOptions, formats: tuple[str, ...] | None, head: Callable[[], bytes]
) -> Iterator[None]:
    """Turn Pillow's errors into ours."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (InputError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(_pixels_in(str(error)), options) from error
    except UnidentifiedImageError as error:
        raise _NotUsual if formats else _no_image(head()) from error
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise _damaged(error, head()) from error


def _picture_in(data: bytes, check_time: Callable[[], None]) -> bytes:
    """Return the part of a file to decode: the picture in an icon, the necessary chunks of a PNG."""
    data = png.inside_icon(data) or data
    return png.bare(data, check_time) if data.startswith(png.SIGNATURE) else data


class _NotUsual(Exception):
    """The file is not in one of the usual formats."""


class _Timed(io.BytesIO):
    """A file in memory that raises after a deadline: decoders read a block at a time."""

    def __init__(self, data: bytes, deadline: Deadline) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        _check(self._deadline)
        return super().read(size)


def _check(deadline: Deadline) -> None:
    if deadline.passed:
        raise isolated.too_late(deadline.seconds)


@lru_cache
def import_pillow() -> None:
    """Import Pillow with the usual formats and silence its warnings, except about size. Decoding calls it."""
    from PIL import Image, ImageOps  # noqa: F401

    Image.preinit()
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Pillow only warns about up to twice the pixels that it may allow.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@lru_cache
def _all_formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    with suppress(ImportError):  # an optional package
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in tuple(Image.OPEN) if name not in _NOT_DECODED)


def _too_large(pixels: int, options: DecodeOptions) -> InputError:
    message = f"{pixels:,} pixels, more than {options.max_pixels:,}"
    return InputError(ErrorKind.TOO_LARGE, message, reason=Reason.TOO_MANY_PIXELS)


def _pixels_in(message: str) -> int:
    """Return the number of pixels in Pillow's own error about too many of them."""
    found = re.search(r"\((\d+) pixels\)", message)
    return int(found[1]) if found else 0


def is_heif(data: bytes) -> bool:
    """Return whether the first bytes are those of a HEIC or HEIF image."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in greys.MODES:
        return greys.to_eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        _match_depth(image)
        return _on_white(image)
    return image.convert("RGB")


def _match_depth(image: Image.Image) -> None:
    """Scale the transparent colour of a 16-bit PNG to the 8 bits that Pillow keeps of its pixels."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    # Copies of a large image are expensive: RGBA is used as it is, and the white is not kept in a variable.
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if rgba.getbbox() is None:  # fully transparent: show the colours underneath
        return rgba.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _no_image(data: bytes) -> InputError:
    """Return the error for a file that no decoder accepts, and say what it is if its first bytes show that."""
    message, hint = "not an image", _CONVERT
    head = data[:_HEAD].lower()
    known = next((said for beginnings, said in _KNOWN.items() if head.lstrip().startswith(beginnings)), None)
    if is_heif(data):
        message, hint = "a HEIC image, which needs another package", how_to_install("heif")
    elif data.startswith(_APPLE_DOUBLE):
        message, hint = (
            "not an image, but metadata that macOS keeps beside a file",
            "the image is the file without ._",
        )
    elif data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS:
        message = "an AVIF that is damaged, or of a kind that is not decoded"
    elif found := _IMAGE_INSIDE.search(data, 1, _HEAD) if known is None or head[:1].isspace() else None:
        before = found.start()
        others = "1 other byte" if before == 1 else f"{before:,} other bytes"
        message = f"not an image: {_named(found[0])} begins after {others}"
        hint = f"remove what is before it: tail -c +{before + 1} FILE > NEW"
    elif known is not None:
        message, hint = known, _FETCH if known.startswith("a damaged") else _CONVERT
    return InputError(ErrorKind.UNDECODABLE, message, hint=hint)


def _named(signature: bytes) -> str:
    return "a JPEG" if signature.startswith(jpeg.START) else "a PNG" if signature == png.SIGNATURE else "a GIF"


def _tiles_cover(image: ImageFile.ImageFile) -> bool:
    """Return whether an image's tiles, as listed in its header, cover all of it."""
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for _, box, *_ in image.tile if box)
    return area >= image.width * image.height


def _ends_grey(image: Image.Image) -> bool:
    """Return whether the last pixel has the grey with which libjpeg fills missing blocks."""
    pixel = image.getpixel((image.width - 1, image.height - 1))
    return all(value in (127, 128) for value in (pixel if isinstance(pixel, tuple) else (pixel,)))


def _truncated() -> InputError:
    return _damaged(OSError("image file is truncated: rows are missing"))


def _damaged(error: Exception, head: bytes = b"") -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    message = f"damaged image: {reason}"
    # Pillow's only message for a JPEG 2000 image that ends early.
    if "truncated" in reason or ("broken data stream" in reason and head.startswith(_JPEG_2000)):
        return InputError(ErrorKind.UNDECODABLE, message, reason=Reason.TRUNCATED)
    return InputError(ErrorKind.UNDECODABLE, message, hint=_FETCH)
