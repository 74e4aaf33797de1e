"""Benchmarking a model on this machine: the time of each stage, the throughput, and the fastest settings."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from statistics import median
from typing import Any

from resnetd_cli.classifier import Classifier
from resnetd_cli.errors import InputError, ModelError, ResnetdError, UsageError
from resnetd_cli.pipeline.decode.image import decode
from resnetd_cli.pipeline.options import Parallelism
from resnetd_cli.pipeline.preprocess import preprocess
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Failure

SECONDS = 30.0
STAGES = ("read", "decode", "preprocess", "model")
_SAMPLE = 32
"""Number of inputs read into memory; they are repeated until time is up."""
_SYNTHETIC = 8
_SIZE = (500, 375)
_STAGES_SHARE = 0.2
_LEAST_TIMES = 3
_FINALISTS = 3

Load = Callable[[int | None], Classifier]
"""Loads the model for a number of threads; None for its own default."""


@dataclass(frozen=True)
class Trial:
    """The throughput with some settings.

    Attributes:
        settings: the settings.
        images_per_second: the median of the runs.
        images: the number of images in all runs.
        runs: the number of runs.
    """

    settings: Parallelism
    images_per_second: float
    images: int
    runs: int

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        rate = round(self.images_per_second, 2)
        return {**asdict(self.settings), "images_per_second": rate, "images": self.images, "runs": self.runs}


@dataclass(frozen=True)
class Sample:
    """The images of a benchmark, in memory.

    Attributes:
        images: the inputs that can be decoded.
        failures: the inputs that cannot be read or decoded.
        read_seconds: the median time of reading one.
    """

    images: tuple[Source, ...]
    failures: tuple[Failure, ...] = ()
    read_seconds: float = 0.0


@dataclass(frozen=True)
class BenchReport:
    """The results of a benchmark.

    Attributes:
        model: the model's full name.
        engine: the engine that ran it.
        precision: the precision that it ran in.
        why: why this engine ran it, in a few words.
        cpus: usable processors.
        images: the number of different images.
        stages: the median seconds of each of `STAGES` for one image, on one worker.
        default: the trial of the default settings.
        trials: all trials, with the default: those run most often first, and of them the fastest.
    """

    model: str
    engine: str
    precision: str
    why: str
    cpus: int
    images: int
    stages: dict[str, float]
    default: Trial
    trials: tuple[Trial, ...]

    @property
    def bottleneck(self) -> str:
        """The slowest stage."""
        return max(self.stages, key=self.stages.__getitem__)

    @property
    def best(self) -> Trial:
        """The fastest of the trials run most often; a single run may be lucky."""
        return max(self.trials, key=_rank)

    @property
    def gain(self) -> float:
        """How many times faster the best settings are than the default."""
        return self.best.images_per_second / self.default.images_per_second

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "model": self.model,
            "engine": self.engine,
            "precision": self.precision,
            "why": self.why,
            "cpus": self.cpus,
            "images": self.images,
            "stages_ms": {stage: round(1000 * seconds, 3) for stage, seconds in self.stages.items()},
            "bottleneck": self.bottleneck,
            "default": self.default.record(),
            "best": self.best.record(),
            "gain": round(self.gain, 3),
            "trials": [trial.record() for trial in self.trials],
        }


@dataclass(frozen=True)
class Ranking:
    """The results of several engines and precisions.

    Attributes:
        reports: the fastest first.
        left_out: why others could not be measured, by engine and precision.
    """

    reports: tuple[BenchReport, ...]
    left_out: dict[tuple[str, str], ResnetdError]

    def record(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "reports": [report.record() for report in self.reports],
            "left_out": [
                {"engine": engine, "precision": precision, "reason": error.message}
                for (engine, precision), error in self.left_out.items()
            ],
        }


def rank(
    forms: Sequence[tuple[str, str]], measure_form: Callable[[str, str, float], BenchReport], seconds: float
) -> Ranking:
    """Measure a model with several engines and precisions.

    Args:
        forms: engine and precision of each.
        measure_form: measures one, given its engine, its precision and the seconds for it.
        seconds: the approximate time for all of them.

    Raises:
        ResnetdError: none of them runs.
    """
    reports: list[BenchReport] = []
    left_out: dict[tuple[str, str], ResnetdError] = {}
    for engine, precision in forms:
        try:
            reports.append(measure_form(engine, precision, seconds / len(forms)))
        except ResnetdError as error:
            left_out[engine, precision] = error
    if not reports:
        raise next(iter(left_out.values()))
    fastest_first = sorted(reports, key=lambda report: -report.best.images_per_second)
    return Ranking(tuple(fastest_first), left_out)


def measure(
    load: Load, sample: Sample, *, cpus: int, seconds: float = SECONDS, batch_size: int | None = None
) -> BenchReport:
    """Time the stages and the throughput, and search for better settings until time is up.

    Args:
        load: loads the model.
        sample: the images.
        cpus: usable processors.
        seconds: the approximate time, without loading. The default settings are always measured.
        batch_size: the only batch size to try.
    """
    classifier = load(None)
    end = time.perf_counter() + seconds
    stages = _time_stages(classifier, sample, end - (1 - _STAGES_SHARE) * seconds)
    default = classifier.parallelism
    sizes = [batch_size] if batch_size else [factor * default.batch_size for factor in (1, 2, 4)]
    search = _Search(load, classifier, sample.images, guess=1 / sum(stages.values()))
    search.run(default, [each for each in candidates(cpus, sizes) if each != default], end)
    trials = search.trials()
    return BenchReport(
        model=classifier.name,
        engine=classifier.engine.name,
        precision=classifier.precision,
        why=classifier.why,
        cpus=cpus,
        images=len(sample.images),
        stages=stages,
        default=next(trial for trial in trials if trial.settings == default),
        trials=tuple(sorted(trials, key=_rank, reverse=True)),
    )


def _rank(trial: Trial) -> tuple[int, float]:
    return trial.runs, trial.images_per_second


def candidates(cpus: int, batch_sizes: Sequence[int]) -> list[Parallelism]:
    """Return settings that keep all processors busy, by a worker on each, by all on one image, or in between.

    One more worker may fill the gaps that the others leave.
    """
    threads = {1 << power for power in range(cpus.bit_length())} | {cpus}
    return [
        Parallelism(workers, count, size)
        for count in sorted(threads)
        for workers in (cpus // count, cpus // count + 1)
        for size in batch_sizes
    ]


def read_sample(sources: Iterable[Source], model: str) -> Sample:
    """Read the first few inputs into memory.

    Args:
        sources: the inputs.
        model: the model's name, for failures.

    Raises:
        UsageError: there are no inputs.
        ResnetdError: none of them is an image.
    """
    images, failures, seconds = [], [], []
    for source in islice(sources, _SAMPLE):
        began = time.perf_counter()
        try:
            data = source.read()
            seconds.append(time.perf_counter() - began)
            decode(data)
        except InputError as error:
            failures.append(Failure.of(source.name, model, error))
        else:
            images.append(_in_memory(source.name, data))
    if not images and not failures:
        raise UsageError("no input", hint="without INPUT, synthetic images are used")
    if not images:
        first = failures[0]
        raise ResnetdError(f"no image to measure with: {first.input}: {first.message}", **first.advice)
    return Sample(tuple(images), tuple(failures), median(seconds))


def synthetic_sample() -> Sample:
    """Return seeded JPEGs of 500 x 375 that take as long to decode as photographs."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    images = []
    for number in range(_SYNTHETIC):
        pixels = np.full((_SIZE[1], _SIZE[0], 3), 128, np.float32)
        # As in photographs, finer details are weaker, and the finest have no colour.
        for side, strength in ((4, 60), (16, 30), (64, 15), (256, 20)):
            noise = random.normal(0, strength, (side * 3 // 4, side, 3 if side <= 16 else 1))
            planes = [
                Image.fromarray(plane).resize(_SIZE, Image.Resampling.BICUBIC)
                for plane in np.moveaxis(noise.astype(np.float32), 2, 0)
            ]
            pixels += np.stack([np.asarray(plane) for plane in planes], axis=2)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        images.append(_in_memory(f"synthetic-{number}.jpg", file.getvalue()))
    return Sample(tuple(images))


def _in_memory(name: str, data: bytes) -> Source:
    return Source(name, lambda: data)


def _time_stages(classifier: Classifier, sample: Sample, end: float) -> dict[str, float]:
    """Time the stages on one image after the other, until time is up."""
    import numpy as np

    stages: dict[str, list[float]] = {stage: [] for stage in STAGES[1:]}
    for count, source in enumerate(cycle(sample.images)):
        if count > _LEAST_TIMES and time.perf_counter() > end:
            break
        data = source.read()
        began = time.perf_counter()
        image = decode(data, classifier.inputs.decoding_for(classifier.preprocessing))
        decoded = time.perf_counter()
        pixels = preprocess(image, classifier.preprocessing)
        prepared = time.perf_counter()
        classifier.engine.run(np.stack([pixels] * classifier.parallelism.batch_size))
        ended = time.perf_counter()
        if count:  # the first takes longer: libraries are imported and memory is allocated
            stages["decode"].append(decoded - began)
            stages["preprocess"].append(prepared - decoded)
            stages["model"].append((ended - prepared) / classifier.parallelism.batch_size)
    return {"read": sample.read_seconds, **{stage: median(values) for stage, values in stages.items()}}


class _Search:
    """Runs images through the whole pipeline with different settings, and keeps the rates.

    Only one model is loaded at a time. Its threads are fixed at loading, with torch for the whole process.

    Args:
        load: loads the model.
        classifier: the loaded model.
        images: the images.
        guess: the expected images per second.
    """

    def __init__(self, load: Load, classifier: Classifier, images: Sequence[Source], guess: float) -> None:
        self._load = load
        self._classifier = classifier
        self._images = images
        self._guess = guess
        self._rates: dict[Parallelism, list[float]] = {}
        self._counts: dict[Parallelism, int] = {}

    def run(self, default: Parallelism, others: Sequence[Parallelism], end: float) -> None:
        """Run all settings once, then the best ones again while there is time."""
        slice_seconds = (end - time.perf_counter()) / (2 * (1 + len(others)))
        self._run(default, slice_seconds)
        for settings in others:
            if time.perf_counter() + slice_seconds > end:
                return
            with suppress(ModelError):  # for example not enough memory; the other settings still count
                self._run(settings, slice_seconds)
        best = sorted(self._rates.keys() - {default}, key=lambda settings: -self._rates[settings][0])
        finalists = sorted([default, *best[:_FINALISTS]], key=lambda settings: settings.threads or 0)
        while time.perf_counter() + len(finalists) * slice_seconds < end:
            for settings in finalists:
                self._run(settings, slice_seconds)

    def trials(self) -> list[Trial]:
        """Return the results."""
        return [
            Trial(settings, median(rates), self._counts[settings], len(rates))
            for settings, rates in self._rates.items()
        ]

    def _run(self, settings: Parallelism, seconds: float) -> None:
        if settings.threads != self._classifier.parallelism.threads:
            self._classifier = self._load(settings.threads)
        classifier = replace(self._classifier, parallelism=settings)
        wave = settings.workers * settings.batch_size  # images in progress at once
        if settings not in self._rates:
            self._send(classifier, wave)  # the first run allocates memory for this batch size
        rate = median(self._rates.get(settings, [self._guess]))
        count = wave * max(1, round(rate * seconds / wave))
        began = time.perf_counter()
        self._send(classifier, count)
        rate = count / (time.perf_counter() - began)
        self._rates.setdefault(settings, []).append(rate)
        self._counts[settings] = self._counts.get(settings, 0) + count

    def _send(self, classifier: Classifier, count: int) -> None:
        for result in classifier.predict(islice(cycle(self._images), count)):
            if isinstance(result, Failure):
                raise ModelError(f"{result.input}: {result.message}", **result.advice)
