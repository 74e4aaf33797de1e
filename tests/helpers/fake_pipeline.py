"""Pipelines over images of one colour each, with an engine that tells how blue they are."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.net.fetch import CONNECTIONS
from resnetd_cli.pipeline.decode.image import DecodeOptions
from resnetd_cli.pipeline.engines.base import Outputs
from resnetd_cli.pipeline.options import InputOptions, Parallelism
from resnetd_cli.pipeline.run import Pipeline
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.pipeline.sources.reading import ReadOptions
from resnetd_cli.results import Preprocessing

PLAIN = Preprocessing((3, 4, 4), 1.0, "center", "nearest", (0.0,) * 3, (1.0,) * 3)
Answer = tuple[str, int, float]


class FakeEngine:
    """Tells images of one colour apart by how blue they are: 0 to 255 is the class, and the feature.

    Args:
        seconds: how long a call takes, by the class of its first image.
        broken: the class on which the engine itself fails.
    """

    classes = 256

    def __init__(self, seconds: Callable[[int], float] = lambda _: 0.0, *, broken: int | None = None) -> None:
        self.seconds = seconds
        self.broken = broken
        self.batches: list[list[int]] = []

    def run(self, images: NDArray[np.float32]) -> Outputs:
        assert images.dtype == np.float32
        blue = [int(value) for value in np.rint(images[:, 2, 0, 0] * 255)]
        self.batches.append(blue)
        if self.broken in blue:
            raise RuntimeError("the engine broke")
        time.sleep(self.seconds(blue[0]))
        features = np.array(blue, np.float32)[:, None]
        return Outputs(-np.abs(np.arange(self.classes, dtype=np.float32) - features), features)


def picture(blue: int, size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (0, 0, blue)).save(buffer, "PNG")
    return buffer.getvalue()


def source(blue: int, read: Callable[[], bytes] | None = None) -> Source:
    return Source(f"{blue}.png", read or (lambda: picture(blue)))


def failing(blue: int, kind: ErrorKind = ErrorKind.NOT_FOUND) -> Source:
    def read() -> bytes:
        raise InputError(kind, f"no {blue}", hint="look for it")

    return source(blue, read)


def finish(name: str, logits: np.ndarray | None, features: np.ndarray | None) -> Answer:
    assert logits is not None
    assert features is not None
    return name, int(logits.argmax()), float(features[0])


def pipeline(
    engine: FakeEngine,
    *,
    connections: int = CONNECTIONS,
    decoding: DecodeOptions = DecodeOptions(),
    **parallelism: int,
) -> Pipeline[Answer]:
    inputs = InputOptions(ReadOptions(connections=connections), decoding)
    return Pipeline(engine, PLAIN, finish, "fake", inputs, Parallelism(**parallelism))


def answers(numbers: Iterable[int]) -> list[Answer]:
    return [(f"{number}.png", number, float(number)) for number in numbers]


def jitter(seed: int) -> Callable[[int], float]:
    """Random times, so that workers overtake each other."""
    generator = random.Random(seed)
    return lambda _: generator.random() * 0.004
