"""The library's front door: a model ready to answer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli import factory, label_files, models, postprocess, sources
from resnetd_cli.decode import DecodeOptions
from resnetd_cli.engines import Engine
from resnetd_cli.engines.pytorch import TorchEngine
from resnetd_cli.errors import UsageError
from resnetd_cli.labels import ClassNames
from resnetd_cli.pipeline import Pipeline
from resnetd_cli.results import Classified, Embedded, Failure, Preprocessing
from resnetd_cli.sources import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GPU_BATCH = 32
DEFAULT_DECODING = DecodeOptions()


@dataclass(frozen=True)
class Classifier:
    """A loaded model.

    Attributes:
        name: the model's full name, as the records carry it.
        engine: what runs the network.
        preprocessing: how the network wants its images.
        class_names: the names of its classes.
        decoding: bounds and rules of decoding.
        workers: threads that decode and run.
        batch_size: images a thread runs at once.
    """

    name: str
    engine: Engine
    preprocessing: Preprocessing
    class_names: ClassNames
    decoding: DecodeOptions = DEFAULT_DECODING
    workers: int = 1
    batch_size: int = 1

    def predict(
        self,
        inputs: Iterable[str | Source],
        *,
        top_k: int = 5,
        min_probability: float = 0.0,
        embeddings: bool = False,
    ) -> Iterator[Classified | Failure]:
        """Classify each input: paths, folders, globs, URLs, or sources.

        Args:
            inputs: as on the command line.
            top_k: how many classes each answer names.
            min_probability: leave out classes below it.
            embeddings: give each answer its features too; the model must have been loaded with a layer.

        Yields:
            One `Classified` or `Failure` for each image, in order.
        """

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> Classified:
            assert logits is not None
            predictions = postprocess.top_k(logits, self.class_names, top_k, min_probability)
            return Classified(name, self.name, predictions, features if embeddings else None)

        return self._run(inputs, finish)

    def embed(self, inputs: Iterable[str | Source]) -> Iterator[Embedded | Failure]:
        """Give the features of each input, in order, of the layer the model was loaded with."""

        def finish(
            name: str, logits: NDArray[np.float32] | None, features: NDArray[np.float32] | None
        ) -> Embedded:
            assert features is not None
            return Embedded(name, self.name, features)

        return self._run(inputs, finish)

    def _run(self, inputs: Iterable[str | Source], finish: Callable[..., Any]) -> Iterator[Any]:
        pipeline = Pipeline(
            engine=self.engine,
            preprocessing=self.preprocessing,
            finish=finish,
            model=self.name,
            decoding=self.decoding,
            workers=self.workers,
            batch_size=self.batch_size,
        )
        return pipeline.run(_as_sources(inputs))


def load(
    model: str = models.DEFAULT_MODEL,
    *,
    weights: str | Path | None = None,
    class_names: str | None = None,
    image_size: str = "train",
    layer: str | None = None,
    logits: bool = True,
    device: str = "auto",
    offline: bool = False,
    decoding: DecodeOptions = DEFAULT_DECODING,
    batch_size: int | None = None,
    single: bool = False,
    progress: type[Any] | None = None,
) -> Classifier:
    """Load a model: find out what it is, get its weights, build it.

    Args:
        model: a timm name, `embedded`, `hf-hub:OWNER/NAME`, or a folder.
        weights: a checkpoint to load in place of the model's own.
        class_names: a file or URL with the names of the classes, in place of the model's own.
        image_size: `train`, `test`, or pixels.
        layer: the features to give: `pooled`, `logits`, a stage's name; None for none.
        logits: give predictions; without them a model needs no classifier.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        offline: use only what is on this machine.
        decoding: bounds and rules of decoding.
        batch_size: images run at once; by default 1 on a CPU, 32 on a GPU.
        single: one image will come, so all cores work on it; otherwise each works on an image of its own.
        progress: a tqdm class for downloads.

    Raises:
        ResnetdError: see `errors`.
    """
    # Of all that torch and timm import, numpy must come first: torch's start-up in C imports it too, and there
    # swallows an interrupt.
    import numpy as np  # noqa: F401

    _check(image_size, device, class_names)
    ref = models.resolve(model)
    file = Path(weights).expanduser() if weights is not None else None
    # Downloads, and what can go wrong with them, come before the seconds that importing torch and timm takes.
    if file is None:
        factory.prefetch(ref, offline=offline, progress=progress)
    definition = factory.define(ref, offline=offline, progress=progress)
    preprocessing = definition.preprocessing(image_size)
    path = factory.find_weights(definition, file=file, offline=offline, progress=progress)
    network = factory.build(definition, path, own_weights=file is not None, image_size=image_size)
    workers = 1 if single else _usable_cpus()
    engine = TorchEngine(network, device=device, logits=logits, layer=layer, threads=None if single else 1)
    if batch_size is None:
        batch_size = 1 if engine.device.type == "cpu" else GPU_BATCH
    names = (
        label_files.load(class_names, engine.classes) if class_names else definition.class_names(engine.classes)
    )
    # With other weights it is not the model of that name any more.
    name = ref.name if file is None else f"{definition.architecture}:{file.name}"
    return Classifier(name, engine, preprocessing, names, decoding, workers, batch_size)


def _check(image_size: str, device: str, class_names: str | None) -> None:
    """Find out what is wrong with the options before a download, as far as that is possible."""
    if image_size not in ("train", "test"):
        factory.pixels(image_size)
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", device):
        raise UsageError(f"--device {device}: no such device", hint="auto, cpu, cuda, cuda:N or mps")
    if class_names is not None:
        label_files.check_exists(class_names)


def _usable_cpus() -> int:
    """Return how many processors this process may use: under taskset, fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _as_sources(inputs: Iterable[str | Source]) -> Iterator[Source]:
    for item in inputs:
        if isinstance(item, Source):
            yield item
        else:
            yield from sources.expand([item])
