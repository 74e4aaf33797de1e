"""Options of a run, in groups: reading and decoding inputs; engine, precision and device; parallelism."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.decode.image import DecodeOptions
from resnetd_cli.pipeline.engines.base import AUTO, FP32
from resnetd_cli.pipeline.engines.table import ENGINES, precisions
from resnetd_cli.pipeline.preprocess import resize_target
from resnetd_cli.pipeline.sources.reading import ReadOptions
from resnetd_cli.results import Preprocessing
from resnetd_cli.system.cpus import usable_cpus

DECODE_EXACT = "exact"
DECODE_FAST = "fast"


@dataclass(frozen=True)
class InputOptions:
    """How inputs are read and decoded, with their limits.

    Attributes:
        reading: limits of reading.
        decoding: limits and rules of decoding.
        decode: `exact`, every pixel, as timm does; or `fast`, large JPEGs at a smaller scale.
    """

    reading: ReadOptions = ReadOptions()
    decoding: DecodeOptions = DecodeOptions()
    decode: str = DECODE_EXACT

    def decoding_for(self, how: Preprocessing) -> DecodeOptions:
        """Return how to decode an image that will be prepared for a model."""
        if self.decode == DECODE_EXACT:
            return self.decoding
        return replace(self.decoding, shrink_for=max(resize_target(how)))


@dataclass(frozen=True)
class Parallelism:
    """How much runs at once.

    Attributes:
        workers: threads that decode images and run the network.
        threads: threads that one run of the network may use; None for all cores.
        batch_size: images in one run of the network.
    """

    workers: int = 1
    threads: int | None = None
    batch_size: int = 1


@dataclass(frozen=True)
class Runtime:
    """How to run a model: the user's choices.

    Attributes:
        engine: `auto`, or an engine's name; by default the value of `RESNETD_ENGINE`.
        precision: `fp32`; `int8`, after `pull` has quantised the model; `bf16`, on OpenVINO or torch; `fp16`,
            on torch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        batch_size: images in one run of the network; None for the engine's default.
        workers: threads that decode images and run the network; None for one per core, or one if `single`.
        threads: threads that one run of the network may use; None for one, or all cores if `single`.
        single: there is only one image, so all cores work on it; otherwise each core works on its own image.
    """

    engine: str = field(default_factory=lambda: os.environ.get("RESNETD_ENGINE") or AUTO)
    precision: str = FP32
    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    threads: int | None = None
    single: bool = False

    def check(self) -> None:
        """Check the names of engine, precision and device.

        Raises:
            UsageError: one of them is unknown.
        """
        if self.engine not in (AUTO, *ENGINES):
            raise UsageError(f"no engine called {self.engine!r}", hint=", ".join((AUTO, *ENGINES)))
        if self.precision not in precisions():
            raise UsageError(f"no precision called {self.precision!r}", hint=", ".join(precisions()))
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", self.device):
            raise UsageError(f"no device called {self.device!r}", hint="auto, cpu, cuda, cuda:N or mps")

    def parallelism(self, batch_size: int = 1) -> Parallelism:
        """Return the numbers of workers and threads, and the batch size.

        Args:
            batch_size: the engine's default.
        """
        return Parallelism(
            workers=self.workers or (1 if self.single else usable_cpus()),
            threads=self.engine_threads,
            batch_size=self.batch_size or batch_size,
        )

    @property
    def engine_threads(self) -> int | None:
        """Threads that one run of the network may use; None for all cores."""
        return self.threads or (None if self.single else 1)
