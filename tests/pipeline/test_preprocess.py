"""Preprocessing equals timm's evaluation transform, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform

from resnetd_cli.pipeline.preprocess import preprocess, resized_size
from resnetd_cli.results import Preprocessing

# Widths and heights that exercise the geometry's branches and rounding.
SHAPES = [(150, 100), (100, 151), (129, 129), (31, 17), (301, 260), (1, 3), (4, 1), (1, 1)]
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
# Every interpolation at small, fast sizes; the two that timm's models use also at their own.
SMALL = [(0.875, (3, 64, 64)), (1.0, (3, 61, 61)), (0.95, (3, 96, 72)), (1.15, (3, 64, 64))]
USUAL = [(0.875, (3, 224, 224)), (1.0, (3, 224, 224)), (0.9, (3, 288, 288)), (0.95, (3, 256, 192))]
CASES = [(name, *size) for name in INTERPOLATIONS for size in SMALL]
CASES += [(name, *size) for name in ("bilinear", "bicubic") for size in USUAL]


def noise(width: int, height: int) -> Image.Image:
    """An image of every grey level, whose neighbours differ, so that a shift by one pixel shows."""
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def of_timm(image: Image.Image, how: Preprocessing) -> np.ndarray:
    transform = create_transform(
        input_size=how.input_size,
        is_training=False,
        interpolation=how.interpolation,
        mean=how.mean,
        std=how.std,
        crop_pct=how.crop_pct,
        crop_mode=how.crop_mode,
    )
    return transform(image).numpy()


def assert_equal_to_timm(image: Image.Image, how: Preprocessing) -> None:
    ours, theirs = preprocess(image, how), of_timm(image, how)
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape == how.input_size
    assert ours.tobytes() == theirs.tobytes(), f"{image.size}: differs by {np.abs(ours - theirs).max()}"


@pytest.mark.slow
@pytest.mark.parametrize(("interpolation", "crop_pct", "input_size"), CASES)
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_every_geometry_equals_timm_to_the_bit(
    crop_mode: str, interpolation: str, crop_pct: float, input_size: tuple[int, int, int]
) -> None:
    how = Preprocessing(
        input_size, crop_pct, crop_mode, interpolation, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    )
    for shape in SHAPES:
        assert_equal_to_timm(noise(*shape), how)


def random_case(generator: random.Random) -> tuple[tuple[int, int], Preprocessing]:
    """Return a width and height up to 13 times the other, and a geometry."""
    short, long = sorted(round(2 ** generator.uniform(0, 8)) for _ in range(2))
    shape = (short, min(long, 13 * short))
    height = generator.randint(16, 90)
    input_size = (3, height, height if generator.random() < 0.7 else generator.randint(16, 90))
    how = Preprocessing(
        input_size,
        generator.choice([0.3, 0.5, 0.7, 0.875, 0.9, 0.95, 1.0, 1.15]),
        generator.choice(["center", "center", "squash", "border"]),
        generator.choice(INTERPOLATIONS),
        IMAGENET_DEFAULT_MEAN,
        IMAGENET_DEFAULT_STD,
    )
    return shape[:: generator.choice([1, -1])], how


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_random_sizes_and_geometries_equal_timm_to_the_bit(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(120):
        shape, how = random_case(generator)
        try:
            assert_equal_to_timm(noise(*shape), how)
        except AssertionError as error:
            raise AssertionError(f"{shape} {how}") from error


# Each takes a different path through the resize: rows left out, columns, both, neither; columns first, as
# Pillow 13 does if a tall image loses more than twice as many rows as columns; and images too large to copy.
@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(64, 300), (500, 375), (375, 500), (512, 512), (200, 1200), (40, 900), (2400, 1800), (1800, 2400)]
)
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_resizing_no_more_than_the_crop_needs_equals_timm_to_the_bit(
    shape: tuple[int, int], crop_pct: float
) -> None:
    how = Preprocessing((3, 224, 224), crop_pct, "center", "bicubic", IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert_equal_to_timm(noise(*shape), how)


def timm_configurations() -> list[Preprocessing]:
    """Return each distinct preprocessing of timm's trained models, at train and at test size."""
    found = set()
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        test = config.test_input_size or config.input_size, config.test_crop_pct or config.crop_pct
        for size, crop_pct in ((config.input_size, config.crop_pct), test):
            found.add(
                Preprocessing(size, crop_pct, config.crop_mode, config.interpolation, config.mean, config.std)
            )
    return sorted(found, key=repr)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(250, 180), (64, 97)])
def test_every_timm_configuration_equals_timm(shape: tuple[int, int]) -> None:
    configurations = timm_configurations()
    assert len(configurations) > 150
    image = noise(*shape)
    for how in configurations:
        assert_equal_to_timm(image, how)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ],
)
def test_every_grey_level_of_every_channel_is_normalised_as_torchvision_does(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([levels, levels[::-1], levels.T], axis=-1))
    how = Preprocessing((3, 16, 16), 1.0, "center", "bilinear", mean, std)
    assert_equal_to_timm(image, how)
    expected = (levels.T[3, 5] / 255 - mean[2]) / std[2]
    assert preprocess(image, how)[2, 3, 5] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("crop_mode", "input_size", "crop_pct", "size", "expected"),
    [
        ("center", (3, 224, 224), 0.875, (300, 451), (256, 384)),
        ("center", (3, 224, 224), 0.875, (451, 300), (384, 256)),
        ("center", (3, 224, 224), 0.95, (100, 100), (235, 235)),
        ("center", (3, 256, 192), 1.0, (300, 300), (256, 256)),
        ("squash", (3, 256, 192), 1.0, (300, 451), (256, 192)),
        ("border", (3, 224, 224), 1.0, (300, 600), (112, 224)),
        ("border", (3, 256, 192), 1.0, (300, 300), (192, 192)),
    ],
)
def test_resized_size_matches_hand_computed_values(
    crop_mode: str,
    input_size: tuple[int, int, int],
    crop_pct: float,
    size: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    how = Preprocessing(input_size, crop_pct, crop_mode, "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert resized_size(size, how) == expected


def test_border_mode_fills_with_the_mean() -> None:
    how = Preprocessing((3, 8, 8), 1.0, "border", "bilinear", (0.2, 0.4, 0.6), (1.0, 1.0, 1.0))
    array = preprocess(Image.new("RGB", (8, 4), (255, 0, 0)), how)
    assert np.abs(array[:, [0, 1, 6, 7], :]).max() < 0.003  # a mean, rounded to a grey level, less the mean
    assert array[0, 2:6].min() == np.float32(1) - np.float32(0.2)


def test_preprocess_does_not_modify_the_image() -> None:
    image = noise(40, 30)
    before = image.tobytes()
    how = Preprocessing((3, 32, 32), 0.9, "center", "bicubic", IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    preprocess(image, how)
    assert (image.size, image.tobytes()) == ((40, 30), before)


@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 1.15])
@pytest.mark.parametrize("shape", [(60_000, 1), (1, 60_000)])
def test_extremely_thin_image_is_resized_within_memory(shape: tuple[int, int], crop_pct: float) -> None:
    """Resized whole, as timm would, it is 15 million pixels long and takes 15 GB."""
    how = Preprocessing((3, 224, 224), crop_pct, "center", "bicubic", (0.0,) * 3, (1.0,) * 3)
    array = preprocess(Image.new("RGB", shape, (255, 0, 51)), how)
    assert array.shape == (3, 224, 224)
    assert array[:, 112, 112].tolist() == pytest.approx([1.0, 0.0, 0.2], abs=1e-6)
