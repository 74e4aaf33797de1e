"""The mark of an image's content, and the marks that a model keeps of the images it was trained on."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.marks import mark_of_file
from PIL import Image

from resnetd_cli.errors import InputError, ModelError
from resnetd_cli.models import trained_on
from resnetd_cli.pipeline.decode.content import mark_of, numbered

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def stored(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def test_the_mark_is_blake2b_of_size_and_pixels() -> None:
    expected = hashlib.blake2b(b"\7\0\0\0\5\0\0\0" + PIXELS.tobytes(), digest_size=16).digest()
    assert mark_of(Image.fromarray(PIXELS)) == expected


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("PNG", {"compress_level": 0}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
    ],
)
def test_a_file_without_loss_has_the_mark_of_its_pixels(format: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(PIXELS)
    assert mark_of_file(stored(image, format, **options)) == mark_of(image)


def test_an_image_turned_by_its_file_has_the_mark_of_the_upright_one() -> None:
    image = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees, clockwise
    turned = stored(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert mark_of_file(turned) == mark_of(image)


def test_a_grey_image_has_the_mark_of_the_same_in_colour() -> None:
    grey = Image.fromarray(PIXELS[:, :, 0])
    assert mark_of_file(stored(grey, "PNG")) == mark_of(grey.convert("RGB"))


def test_other_pixels_or_another_shape_have_other_marks() -> None:
    other = PIXELS.copy()
    other[4, 6, 2] ^= 1
    marks = {mark_of(Image.fromarray(array)) for array in (PIXELS, other, PIXELS.reshape(7, 5, 3))}
    assert len(marks) == 3


def test_a_file_that_is_no_image_has_no_mark() -> None:
    with pytest.raises(InputError):
        mark_of_file(b"text")


MARKS = np.array([[2] * 15 + [0], [0] * 15 + [1], [255] * 16, [2] * 15 + [0], [2] * 14 + [0, 0]], np.uint8)


def test_marks_together_are_sorted_and_each_there_once() -> None:
    expected = sorted({bytes(mark) for mark in MARKS})
    assert [bytes(mark) for mark in trained_on.together(MARKS[:3], MARKS[3:])] == expected
    assert trained_on.together().shape == (0, 16)


def test_marks_are_numbered_by_their_order_and_the_same_alike() -> None:
    assert numbered(MARKS).tolist() == [2, 0, 3, 2, 1]
    assert numbered(MARKS[:0]).tolist() == []


def test_what_is_known_is_found_by_all_of_its_bytes() -> None:
    asked = trained_on.unpack(b"".join([bytes(MARKS[0]), bytes([2] * 16), bytes(MARKS[4]), bytes(16)]))
    assert trained_on.contains(MARKS, asked).tolist() == [True, False, True, False]
    assert trained_on.contains(MARKS[:0], asked).tolist() == [False] * 4
    assert trained_on.contains(MARKS, trained_on.unpack(b"".join([]))).tolist() == []


def test_marks_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert trained_on.read(tmp_path) is None
    trained_on.write(tmp_path, MARKS)
    marks = trained_on.read(tmp_path)
    assert marks is not None
    assert [bytes(mark) for mark in marks] == sorted({bytes(mark) for mark in MARKS})
    assert (tmp_path / trained_on.NAME).stat().st_size <= 128 + 4 * 16


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\1\0", "pickle", "floats", "row"])
def test_damaged_marks_are_an_error(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / trained_on.NAME
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        arrays = {"pickle": np.array([{}]), "floats": np.zeros((2, 16)), "row": np.zeros(16, np.uint8)}
        np.save(path, arrays[content])
    with pytest.raises(ModelError, match="is damaged: it does not say what the model was trained on"):
        trained_on.read(tmp_path)


def test_a_checkpoint_has_the_marks_of_its_run(tmp_path: Path) -> None:
    assert trained_on.beside(tmp_path / "model.safetensors") == tmp_path
    assert trained_on.beside(tmp_path / "checkpoints" / "best.pth") == tmp_path
