"""Rare kinds of images, each against the plain picture it was made from; and sizes that are hard to handle."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from helpers.paths import ROOT
from PIL import Image, ImageCms

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.pipeline.preprocess import preprocess
from resnetd_cli.results import Preprocessing

SAMPLES = ROOT / "samples"
WIDTH, HEIGHT = 120, 90
PLAIN = Preprocessing((3, 224, 224), 0.875, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "coffee.jpg").convert("RGB").resize((WIDTH, HEIGHT)))


@pytest.fixture(scope="module")
def grey(photo: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).convert("L"))


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def tiff(pixels: bytes, bits: int, *, photometric: int = 1, samples: int = 1, sample_format: int = 1) -> bytes:
    """Return an uncompressed TIFF of 120 x 90 made by hand: of kinds that Pillow reads but does not write."""
    entries = {256: (4, 1, WIDTH), 257: (4, 1, HEIGHT), 259: (3, 1, 1), 262: (3, 1, photometric)}
    entries |= {277: (3, 1, samples), 278: (4, 1, HEIGHT), 279: (4, 1, len(pixels)), 339: (3, 1, sample_format)}
    end = 8 + 2 + 12 * (len(entries) + 2) + 4
    depths = struct.pack(f"<{samples}H", *[bits] * samples) if samples > 2 else b""
    entries |= {258: (3, samples, end if depths else bits), 273: (4, 1, end + len(depths))}
    directory = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + depths + pixels


def twelve_bits(grey: np.ndarray) -> bytes:
    """Pack two pixels into three bytes."""
    values = (grey.astype(np.uint32) * 4095 + 127) // 255
    first, second = values[:, 0::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2)
    return packed.astype(np.uint8).tobytes()


def distance(data: bytes, expected: np.ndarray) -> float:
    """Return the mean difference in grey levels."""
    pixels = np.asarray(decode(data)).astype(float)
    assert pixels.shape == (*expected.shape[:2], 3)
    return float(np.abs(pixels - (expected if expected.ndim == 3 else expected[..., None])).mean())


def test_greys_of_more_than_eight_bits_are_their_eight_bit_twin(grey: np.ndarray) -> None:
    wide = grey.astype(np.uint16) * 257
    assert distance(tiff(wide.tobytes(), 16), grey) == 0
    assert distance(tiff(twelve_bits(grey), 12), grey) == 0
    assert distance(tiff((65535 - wide).tobytes(), 16, photometric=0), grey) == 0
    assert distance(encode(Image.fromarray(wide), "JPEG2000"), grey) == 0
    assert distance(encode(Image.fromarray(wide), "PNG"), grey) == 0
    assert distance(b"P5 120 90 65535\n" + wide.astype(">u2").tobytes(), grey) == 0


def test_thirty_two_bit_greys_are_scaled_by_their_values(grey: np.ndarray) -> None:
    stretched = (grey - float(grey.min())) * 255 / float(grey.max() - grey.min())
    assert distance(tiff((grey.astype(np.uint32) * 16843009).tobytes(), 32), stretched) < 0.5
    assert distance(tiff((grey.astype(np.int32) * 8421504).tobytes(), 32, sample_format=2), stretched) < 0.5
    assert distance(tiff((grey / np.float32(255)).astype(np.float32).tobytes(), 32, sample_format=3), grey) < 0.5


def test_sixteen_bits_a_channel_are_the_eight_bit_twin(photo: np.ndarray) -> None:
    wide = (photo.astype(np.uint16) * 257).tobytes()
    assert distance(tiff(wide, 16, photometric=2, samples=3), photo) == 0


def test_what_pillow_does_not_read_is_named() -> None:
    with pytest.raises(InputError) as caught:
        decode(tiff(bytes(WIDTH * HEIGHT * 8), 64, sample_format=3))
    assert caught.value.message == "a TIFF that is damaged, or of a kind that is not decoded"


def test_colour_spaces_that_are_not_rgb_become_rgb(photo: np.ndarray) -> None:
    picture = Image.fromarray(photo)
    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert distance(encode(lab, "TIFF"), photo) < 1
    assert distance(encode(picture.convert("YCbCr"), "TIFF"), photo) < 2
    assert distance(encode(picture.convert("CMYK"), "TIFF"), photo) == 0
    assert distance(encode(picture.convert("CMYK"), "JPEG", quality=95), photo) < 6


def test_a_colour_profile_changes_nothing(photo: np.ndarray) -> None:
    """As in timm, and in the photographs that the networks were trained on; `docs/inputs.md` has the figures."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    plain = encode(Image.fromarray(photo), "PNG")
    told = encode(Image.fromarray(photo), "PNG", icc_profile=profile)
    assert len(told) > len(plain)
    np.testing.assert_array_equal(np.asarray(decode(told)), np.asarray(decode(plain)))


@pytest.mark.parametrize("arguments", [["-arithmetic"], ["-progressive"], ["-progressive", "-arithmetic"]])
def test_every_coding_of_a_jpeg(photo: np.ndarray, arguments: list[str]) -> None:
    """A JPEG's coding changes its size and no pixel."""
    picture = encode(Image.fromarray(photo), "PPM")
    try:
        plain, coded = (
            subprocess.run(["cjpeg", *extra], input=picture, capture_output=True, check=True).stdout
            for extra in ([], arguments)
        )
    except FileNotFoundError:
        pytest.skip("libjpeg-turbo's cjpeg is not installed")
    assert coded != plain
    np.testing.assert_array_equal(np.asarray(decode(coded)), np.asarray(decode(plain)))


@pytest.mark.parametrize("format_name", ["MPO", "GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_of_several_pictures_the_first_is_taken(photo: np.ndarray, format_name: str) -> None:
    first, second = Image.fromarray(photo), Image.fromarray(255 - photo)
    data = encode(first, format_name, save_all=True, append_images=[second])
    with Image.open(io.BytesIO(data)) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    assert distance(data, photo) < 12
    assert distance(data, 255 - photo) > 60


def test_an_icon_gives_its_largest_picture(photo: np.ndarray) -> None:
    data = encode(Image.fromarray(photo).resize((256, 256)), "ICO", sizes=[(16, 16), (64, 64)])
    assert decode(data).size == (64, 64)


def test_heic_is_decoded_with_the_extra(photo: np.ndarray) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(photo)).save(buffer, quality=95)
    assert distance(buffer.getvalue(), photo) < 4
    with pytest.raises(InputError) as caught:
        decode(buffer.getvalue(), DecodeOptions(max_pixels=100))
    assert caught.value.kind is ErrorKind.TOO_LARGE


def test_heic_is_turned_upright_once(photo: np.ndarray) -> None:
    heif = pytest.importorskip("pillow_heif")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = heif.from_pillow(Image.fromarray(photo))
    picture.info["exif"] = turned.tobytes()
    buffer = io.BytesIO()
    picture.save(buffer, quality=95)
    assert distance(buffer.getvalue(), np.rot90(photo, -1)) < 4


@pytest.mark.slow
def test_heic_without_the_extra_says_which() -> None:
    data = b"\0\0\0\x1cftypheic" + bytes(100)
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from resnetd_cli.pipeline.decode.image import DecodeOptions, decode_here\n"
        "from resnetd_cli.errors import InputError\n"
        f"try: decode_here({data!r}, DecodeOptions())\n"
        "except InputError as error: print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "a HEIC image, which needs another package | pip install 'resnetd[heif]'\n"


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (30_000, 10), (2, 3), (1, 65_000), (223, 225)])
def test_sizes_that_are_hard_to_handle(size: tuple[int, int]) -> None:
    """Resized as a whole, 1 x 65,000 pixels would be 256 x 16,640,000 of them."""
    data = encode(Image.new("RGB", size, (10, 200, 30)), "PNG")
    preprocess(decode(data), PLAIN)
    tracemalloc.start()
    try:
        prepared = preprocess(decode(data), PLAIN)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30 * 2**20
    expected = np.array([10, 200, 30], np.float32)[:, None, None] / 255 * 2 - 1
    np.testing.assert_allclose(prepared, np.broadcast_to(expected, (3, 224, 224)), atol=1e-6)
