"""What the contenders work on: photographs, weights and models compiled for them, in a temporary folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from benchmarks.measure import ROOT, run_process

IMAGES = 200
_CALIBRATION_IMAGES = 64
_SIZE = (500, 375)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_CONTENDERS = Path(__file__).parent / "contenders"


@dataclass(frozen=True)
class Material:
    """Makes what the contenders need, each thing once.

    Attributes:
        folder: an empty one.
        given: a folder of the user's images; by default photographs are made from the project's samples.
    """

    folder: Path
    given: Path | None = None
    _made: dict[str, Path] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment of the contenders: a cache of their own, no network, and no choice of an engine."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RESNETD_")}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {**kept, "PYTHONPATH": path, "RESNETD_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}

    def images(self) -> list[Path]:
        """Return the user's images, or photographs made from the samples."""
        if self.given is None:
            return sorted(self._photographs().iterdir())
        found = sorted(path for path in self.given.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise SystemExit(f"no images in {self.given}")
        return found

    def list_of(self, count: int) -> Path:
        """Return a list of so many images, one a line; where there are fewer they come again."""
        path = self.folder / f"{count}.txt"
        path.write_text("".join(f"{image.resolve()}\n" for image in islice(cycle(self.images()), count)))
        return path

    def weights(self, model: str) -> Path:
        """Return a file with the seeded weights of a timm model."""
        path = self.folder / f"{model}.safetensors"
        if not path.exists():
            run_process(python(_CONTENDERS / "seeded.py", model, path), self.env)
        return path

    def gflops(self, model: str) -> float:
        """Return the floating-point operations that one image takes, in thousands of millions."""
        run = run_process(resnetd("info", model, "-f", "json"), self.env)
        return float(json.loads(run.output)["gflops"])

    def compiled(self, model: Sequence[str | Path]) -> None:
        """Let resnetd compile a model, given by its options, so that no timed run does."""
        run_process(resnetd("predict", "--files-from", self.list_of(2), *model), self.env)

    def calibrated(self, model: str, *options: str | Path) -> None:
        """Let resnetd make the int8 form of a model."""
        folder = self.folder / "calibration"
        if not folder.exists():
            folder.mkdir()
            for number, image in enumerate(islice(cycle(self.images()), _CALIBRATION_IMAGES)):
                shutil.copy(image, folder / f"{number:03}{image.suffix}")
        run_process(resnetd("pull", model, *options, "--precision", "int8", "--calibrate", folder), self.env)

    def _photographs(self) -> Path:
        folder = self.folder / "photographs"
        if not folder.exists():
            folder.mkdir()
            _make_photographs(folder, IMAGES)
        return folder


def python(*arguments: str | Path) -> list[str | Path]:
    """Return the command line that runs Python as it runs now."""
    return [sys.executable, *arguments]


def contender(name: str, *arguments: str | Path) -> list[str | Path]:
    """Return the command line of a script among the contenders."""
    return python(_CONTENDERS / f"{name}.py", *arguments)


def resnetd(*arguments: str | Path) -> list[str | Path]:
    """Return the command line of resnetd."""
    return python("-m", "resnetd_cli", *arguments)


def _make_photographs(folder: Path, count: int) -> None:
    """Cut seeded pieces from the samples, some of them mirrored, and keep each as a JPEG of a usual size."""
    choose = random.Random(0)  # noqa: S311
    samples = [Image.open(path) for path in sorted((ROOT / "samples").glob("*.jpg"))]
    for number in range(count):
        sample = samples[number % len(samples)]
        scale = choose.uniform(0.7, 1.0) * min(sample.width / _SIZE[0], sample.height / _SIZE[1])
        width, height = scale * _SIZE[0], scale * _SIZE[1]
        left, top = choose.uniform(0, sample.width - width), choose.uniform(0, sample.height - height)
        piece = sample.resize(_SIZE, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
        if choose.random() < 0.5:
            piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        piece.save(folder / f"{number:04}.jpg", quality=90)
