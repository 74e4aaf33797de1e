"""Near copies: which pictures count as the same one, saved again, and which do not."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from helpers.pictures import photograph
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from resnetd_cli.datasets.near_copies import THUMBNAIL_BYTES, near_copies, thumbnail


def saved(image: Image.Image, format: str, **options: Any) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return Image.open(stream).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def pairs_of(*images: Image.Image) -> list[list[int]]:
    data = b"".join(map(thumbnail, images))
    found: list[list[int]] = near_copies(np.frombuffer(data, np.uint8).reshape(-1, THUMBNAIL_BYTES)).tolist()
    return found


@cache
def photographs() -> list[Image.Image]:
    return [photograph(seed) for seed in range(60)]


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 60": lambda image: saved(image, "JPEG", quality=60),
    "JPEG, quality 90": lambda image: saved(image, "JPEG", quality=90),
    "WebP": lambda image: saved(image, "WEBP", quality=60),
    "half the size": halved,
    "half the size, JPEG": lambda image: saved(halved(image), "JPEG", quality=75),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", COPIES)
def test_a_photograph_saved_again_is_a_near_copy(how: str) -> None:
    count = len(photographs())
    expected = [[number, count + number] for number in range(count)]
    assert pairs_of(*photographs(), *map(COPIES[how], photographs())) == expected


def sign(text: str, colour: str = "red") -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, 61, 61), outline=colour, width=6)
    draw.text((32, 32), text, fill="black", anchor="mm", font=ImageFont.load_default(28))
    return image


def page(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    image = Image.new("L", (310, 440), "white")
    draw = ImageDraw.Draw(image)
    for y in range(30, 410, 12):
        x = 30.0
        while x < 270:  # words as bars
            width = generator.integers(8, 40)
            draw.rectangle((x, y, min(x + width, 280), y + 5), fill=60)
            x += width + 6
    return image.convert("RGB")


def digit(array: np.ndarray[Any, Any], side: int) -> Image.Image:
    image = Image.fromarray((array * 15.9375).astype(np.uint8)).convert("RGB")
    return image.resize((side, side), Image.Resampling.BICUBIC)


@cache
def digits() -> list[np.ndarray[Any, Any]]:
    from sklearn.datasets import load_digits

    return list(load_digits().images)


ALIKE: dict[str, Callable[[], list[Image.Image]]] = {
    "photographs": photographs,
    "signs": lambda: [sign(str(number)) for number in range(5, 131, 5)],
    "signs of several colours": lambda: [
        sign("50", colour) for colour in ("red", "blue", "green", "orange", "black")
    ],
    "pages": lambda: [page(seed) for seed in range(40)],
    "digits of 8 x 8": lambda: [digit(array, 8) for array in digits()],
    "digits of 28 x 28": lambda: [digit(array, 28) for array in digits()[:900]],
    "flat colours": lambda: [Image.new("RGB", (20, 20), (red, 0, 0)) for red in range(256)],
    "brightness alone": lambda: [Image.eval(photographs()[0], lambda v, k=k: v // k) for k in (1, 2, 4)],  # type: ignore[misc]
    "turned": lambda: [photographs()[0].rotate(angle, expand=True) for angle in (0, 90, 180, 270)],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ALIKE)
def test_pictures_that_are_only_similar_are_not_near_copies(what: str) -> None:
    assert pairs_of(*ALIKE[what]()) == []


@pytest.mark.slow
def test_all_of_many_near_copies_are_linked() -> None:
    same = [ImageEnhance.Brightness(photographs()[0]).enhance(1 + number / 2000) for number in range(60)]
    pairs = pairs_of(*same)
    reached = {0}
    for _ in same:
        reached |= {number for pair in pairs if {*pair} & reached for number in pair}
    assert reached == {*range(60)}
    assert len(pairs) < 60 * 59 / 2


def test_few_pictures_have_no_near_copies() -> None:
    assert pairs_of() == []
    assert pairs_of(photographs()[0]) == []


def test_a_thumbnail_is_of_greys_and_colour_differences() -> None:
    data = np.frombuffer(thumbnail(Image.new("RGB", (100, 50), (255, 0, 0))), np.uint8)
    # JPEG's red: 0.299 of 255, 128 - 0.168736 * 255, and the most there is.
    assert {*data[:256]} == {76}
    assert {*data[256:272].tolist()} <= {84, 85}
    assert {*data[272:]} == {255}
    half = Image.new("RGB", (320, 320))
    half.paste("white", (160, 0, 320, 320))
    greys = np.frombuffer(thumbnail(half), np.uint8)[:256].reshape(16, 16)
    assert (greys[:, :7] == 0).all() and (greys[:, 9:] == 255).all()
