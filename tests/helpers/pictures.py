"""Pictures that look like photographs to a program."""

from __future__ import annotations

import numpy as np
from PIL import Image


def photograph(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Return a picture with the spectrum of a photograph: large shapes, and ever less of ever finer ones."""
    generator = np.random.default_rng(seed)
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    shared = generator.standard_normal((*frequency.shape, 2)) @ [1, 1j]
    bands = []
    for _ in range(3):
        own = generator.standard_normal((*frequency.shape, 2)) @ [1, 1j]
        band = np.fft.irfft2((shared + 0.3 * own) / np.maximum(frequency, 1) ** 1.5, s=(height, width))
        bands.append(127 + 45 * (band - band.mean()) / band.std())
    return Image.fromarray(np.clip(np.stack(bands, axis=2), 0, 255).astype(np.uint8))
