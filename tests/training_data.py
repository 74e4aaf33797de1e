"""Small data sets that a small network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (60, 180, 60), "red": (200, 50, 40)}
NETWORK = "test_resnet"
"""The smallest of timm's ResNets: half a million parameters."""


def write_colours(folder: Path, per_class: int, *, seed: int = 0, size: int = 32) -> Path:
    """Write noisy images of one colour each, in a folder for each colour."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            noise = generator.normal(0, 60, (size, size, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder
