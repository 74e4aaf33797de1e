"""A classifier of three pets that answers by how blue an image is, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetd_cli.class_names import shipped
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.classifier import Classifier
from resnetd_cli.pipeline.engines.base import Outputs
from resnetd_cli.pipeline.options import Parallelism
from resnetd_cli.results import Preprocessing

HOW = Preprocessing((3, 8, 8), 1.0, "center", "bilinear", (0.0,) * 3, (1.0,) * 3)
PETS = ClassNames(("cat", "dog", "Gila monster, Heloderma suspectum"), (None,) * 3, "a test")
# What the model says of each image, by how blue it is; and the class of each.
LOGITS = np.array(
    [[3, 0, 0], [2, 1, 0], [0, 2, 1], [0, 4, 0], [1, 1, 0], [5, 0, 0], [0, 0, 2], [0, 0, 1]], np.float32
)
ACTUAL = np.array([0, 0, 0, 1, 1, 2, 2, 2])
FOLDERS = ("cat", "dog", "gila_monster")


class Scripted:
    """Answers an image with the logits of how blue it is."""

    name = "scripted"

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.logits = logits
        self.classes = logits.shape[1]

    def run(self, images: NDArray[np.float32]) -> Outputs:
        return Outputs(self.logits[np.rint(images[:, 2, 0, 0] * 255).astype(int)], None)


def model(logits: NDArray[np.float32] = LOGITS, names: ClassNames = PETS, temperature: float = 1.0) -> Classifier:
    return Classifier("scripted", Scripted(logits), HOW, names, temperature, parallelism=Parallelism(2))


def draw(path: Path, blue: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (0, 0, blue)).save(path)


def imagenet_model(*classes: int) -> Classifier:
    """Return a model that takes an image of each blueness for a class."""
    logits = np.zeros((len(classes), 1000), np.float32)
    logits[np.arange(len(classes)), classes] = 5
    return model(logits, shipped.imagenet())
