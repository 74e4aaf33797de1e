"""Write the photographs in `samples/` from two that scikit-image carries.

    python scripts/make_samples.py

Needs scikit-image and Pillow.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
SOURCES = {"cat": "chelsea.png", "coffee": "coffee.png"}


def main() -> None:
    """Write the files."""
    for name, source in SOURCES.items():
        path = SAMPLES / f"{name}.jpg"
        with (files("skimage") / "data" / source).open("rb") as file:
            image = Image.open(file).convert("RGB")
        image.info.clear()  # only the pixels: no EXIF, XMP, colour profile or resolution
        image.save(path, quality=94, optimize=True)
        print(f"samples/{path.name}: {image.width} x {image.height}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
