"""ImageNet's reassessed labels: every class that a validation image shows (Beyer et al., arXiv 2006.07159)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from resnetd_cli.class_names import shipped
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.system.distribution import how_to_install

_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})(?![0-9])[^/\\]*$", re.IGNORECASE)
_FILE = Path("data", "_info", "imagenet_real_labels.json")


def check(names: ClassNames) -> None:
    """Check that a model's classes are those of the labels.

    Raises:
        UsageError: they are not.
    """
    imagenet = shipped.imagenet()
    if len(names) != len(imagenet) or (any(names.ids) and names.ids != imagenet.ids):
        message = "the real labels are for ImageNet's 1,000 classes, and this model has others"
        raise UsageError(message, hint="leave them out, or choose an ImageNet-1k model")


def of_images(images: Iterable[str]) -> list[frozenset[int]]:
    """Return the classes that each image shows, by the number in its name; none for other images.

    Raises:
        DataError: not one of the images is recognised.
    """
    known = _load()
    numbers = [_number(name, len(known)) for name in images]
    if not any(numbers):
        hint = "the names say which is which: ILSVRC2012_val_00000001.JPEG"
        raise DataError("none of the images is one of ImageNet's validation set", hint=hint)
    return [frozenset(known[number - 1]) if number else frozenset() for number in numbers]


def _number(image: str, count: int) -> int:
    """Return the number of an image in the validation set, from 1; 0 for other images."""
    match = _NAME.search(image)
    number = int(match[1]) if match else 0
    return number if number <= count else 0


def _load() -> list[list[int]]:
    """Read timm's copy of the labels, without importing timm."""
    spec = find_spec("timm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _FILE
        if path.is_file():
            content: list[list[int]] = json.loads(path.read_bytes())
            return content
    raise DataError("timm's file of real labels is not installed", hint=how_to_install())
