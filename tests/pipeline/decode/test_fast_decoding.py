"""`--decode fast`: large JPEGs are decoded at a smaller scale, and the answer stays nearly the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import COFFEE, ROOT
from helpers.pictures import photograph
from helpers.program import Cli
from PIL import Image

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.loading import load
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.pipeline.options import DECODE_FAST, InputOptions
from resnetd_cli.pipeline.preprocess import preprocess
from resnetd_cli.results import Classified, Preprocessing


def encode(width: int, height: int, format_name: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    photograph(0).resize((width, height), Image.Resampling.BICUBIC).save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("stored", "decoded"),
    [
        ((399, 399), (399, 399)),
        ((400, 400), (200, 200)),
        ((4000, 399), (4000, 399)),  # both sides must be large
        ((1000, 800), (250, 200)),
        ((1601, 1600), (201, 200)),
        ((2000, 1800), (250, 225)),  # the decoder knows no smaller scale than an eighth
    ],
)
def test_jpeg_is_decoded_at_no_less_than_twice_the_size_needed(
    stored: tuple[int, int], decoded: tuple[int, int]
) -> None:
    assert decode(encode(*stored), DecodeOptions(shrink_for=100)).size == decoded


@pytest.mark.parametrize("guard", ["suspect", "all"])
def test_jpeg_is_decoded_at_a_smaller_scale_in_either_process(guard: str) -> None:
    assert decode(encode(800, 400), DecodeOptions(guard=guard, shrink_for=100)).size == (400, 200)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_coloured_jpegs_are_decoded_at_a_smaller_scale(mode: str) -> None:
    buffer = io.BytesIO()
    photograph(0).resize((800, 400)).convert(mode).save(buffer, "JPEG")
    image = decode(buffer.getvalue(), DecodeOptions(shrink_for=100))
    assert (image.mode, image.size) == ("RGB", (400, 200))


@pytest.mark.slow
def test_other_formats_are_decoded_whole() -> None:
    assert decode(encode(800, 400, "PNG"), DecodeOptions(shrink_for=100)).size == (800, 400)


def test_turned_jpeg_is_decoded_at_a_smaller_scale_and_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encode(800, 400, exif=exif), DecodeOptions(shrink_for=100)).size == (200, 400)


def test_truncated_jpeg_fails_at_a_smaller_scale_too() -> None:
    with pytest.raises(InputError, match="truncated") as raised:
        decode(encode(1600, 1200)[:-4000], DecodeOptions(shrink_for=100))
    assert raised.value.kind is ErrorKind.UNDECODABLE


def test_pixel_limit_applies_to_the_size_in_the_header() -> None:
    with pytest.raises(InputError, match="640,000 pixels") as raised:
        decode(encode(800, 800), DecodeOptions(max_pixels=600_000, shrink_for=100))
    assert raised.value.kind is ErrorKind.TOO_LARGE


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_scale_follows_the_size_to_which_the_model_resizes(crop_mode: str) -> None:
    width = 2 * 222  # 200 / 0.9 is rounded down
    how = Preprocessing((3, 100, 200), 0.9, crop_mode, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert InputOptions().decoding_for(how).shrink_for is None
    decoding = InputOptions(decode=DECODE_FAST).decoding_for(how)
    assert decode(encode(2 * width, 2 * width), decoding).size == (width, width)
    assert decode(encode(2 * width - 1, 2 * width), decoding).size == (2 * width - 1, 2 * width)


@pytest.mark.slow
def test_answers_of_a_large_photograph_hardly_change(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with Image.open(COFFEE) as image:
        image.resize((2400, 1800), Image.Resampling.BICUBIC).save(path, quality=90)
    exact, fast = (
        next(iter(load("embedded", inputs=InputOptions(decode=way)).predict([path], top_k=1)))
        for way in ("exact", "fast")
    )
    assert isinstance(exact, Classified) and isinstance(fast, Classified)
    assert exact.predictions[0].label == fast.predictions[0].label == "espresso"
    assert exact.predictions[0].probability == pytest.approx(fast.predictions[0].probability, abs=0.03)
    how = load("embedded").preprocessing
    shrunk = preprocess(decode(path.read_bytes(), InputOptions(decode=DECODE_FAST).decoding_for(how)), how)
    whole = preprocess(decode(path.read_bytes()), how)
    assert not np.array_equal(shrunk, whole)
    assert np.abs(shrunk - whole).mean() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "features", "evaluate", "bench"])
def test_every_command_that_runs_a_model_on_images_has_the_option(command: str, cli: Cli) -> None:
    data = ROOT / "samples"
    finished = cli(command, data, "--decode", "quick")
    assert finished.code == 2
    assert "'quick' is not one of 'exact', 'fast'" in finished.stderr
