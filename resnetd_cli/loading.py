"""From a MODEL to a classifier that is ready: the compiled form if there is one, or else timm's network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resnetd_cli import bundle as bundles
from resnetd_cli import compiled, factory, label_files, labels, models
from resnetd_cli.bundle import Bundle, Request
from resnetd_cli.classifier import DEFAULT_DECODING, Classifier
from resnetd_cli.compiled import DamagedBundleError
from resnetd_cli.decode import DecodeOptions
from resnetd_cli.engines import ENGINES, LAYER_LOGITS, LAYER_POOLED, Engine
from resnetd_cli.engines.pytorch import TorchEngine, choose_device
from resnetd_cli.errors import LabelsError, ModelError, UsageError
from resnetd_cli.labels import ClassNames
from resnetd_cli.results import Preprocessing

GPU_BATCH = 32
_COMPILED_LAYERS = (None, LAYER_POOLED, LAYER_LOGITS)


def load(model: str = models.DEFAULT_MODEL, **options: Any) -> Classifier:
    """Load a model. The options are the fields of `Loader`.

    Raises:
        ResnetdError: see `errors`.
    """
    return Loader(model, **options).load()


@dataclass(frozen=True)
class Loader:
    """How to load a model.

    Attributes:
        model: a timm name, `embedded`, `hf-hub:OWNER/NAME`, or a folder.
        weights: a checkpoint to load in place of the model's own.
        class_names: a file or URL with the names of the classes, in place of the model's own.
        image_size: `train`, `test`, or pixels.
        layer: the features to give: `pooled`, `logits`, a stage's name; None for none.
        logits: give predictions; without them a model needs no classifier.
        engine: `auto`, `onnx` or `torch`; by default what `RESNETD_ENGINE` says.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        offline: use only what is on this machine.
        decoding: bounds and rules of decoding.
        batch_size: images run at once; by default 1 on a CPU, 32 on a GPU.
        single: one image will come, so all cores work on it; otherwise each works on an image of its own.
        workers: threads that decode and run, in place of what `single` tells.
        threads: threads that one run of the network may use, in place of what `single` tells.
        progress: a tqdm class for downloads.
        note: is told, in a line, what takes long.
    """

    model: str
    weights: str | Path | None = None
    class_names: str | None = None
    image_size: str | int = "train"
    layer: str | None = None
    logits: bool = True
    engine: str = field(default_factory=lambda: os.environ.get("RESNETD_ENGINE", "auto"))
    device: str = "auto"
    offline: bool = False
    decoding: DecodeOptions = DEFAULT_DECODING
    batch_size: int | None = None
    single: bool = False
    workers: int | None = None
    threads: int | None = None
    progress: type[Any] | None = None
    note: Callable[[str], None] = lambda _: None

    def load(self) -> Classifier:
        """Load it."""
        # Of all that torch and timm import, numpy must come first: torch's start-up in C imports it too, and
        # there swallows an interrupt.
        import numpy as np  # noqa: F401

        self._check()
        reason = self._why_torch()
        if reason is None and (bundle := bundles.find(self._request)):
            reason = bundle.failure
            if reason is None:
                try:
                    return self._load_compiled(bundle)
                except DamagedBundleError:
                    bundles.discard(bundle)
        if reason is not None and self.engine == "onnx":
            raise ModelError(f"{self.model} cannot run on the onnx engine: {reason}", hint="--engine torch")
        return self._load_network(reason)

    @property
    def _request(self) -> Request:
        return Request(self.model, self._file, self._size)

    @property
    def _file(self) -> Path | None:
        return None if self.weights is None else Path(self.weights).expanduser()

    @property
    def _size(self) -> str:
        return str(self.image_size)

    @property
    def _workers(self) -> int:
        return self.workers or (1 if self.single else usable_cpus())

    @property
    def _threads(self) -> int | None:
        return self.threads or (None if self.single else 1)

    def _check(self) -> None:
        """Find out what is wrong with the options before a download, as far as that is possible."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine}: no such engine", hint=", ".join(ENGINES))
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", self.device):
            raise UsageError(f"--device {self.device}: no such device", hint="auto, cpu, cuda, cuda:N or mps")
        if self._size not in ("train", "test"):
            factory.pixels(self._size)
        if self.class_names is not None:
            label_files.check_exists(self.class_names)

    def _why_torch(self) -> str | None:
        """Return why only torch will do, if so, as far as the options tell."""
        if self.engine == "torch":
            return "it was asked for"
        if self.device not in ("auto", "cpu"):
            return f"the device is {self.device}"
        if self.layer not in _COMPILED_LAYERS:
            return f"a compiled model does not give {self.layer}"
        return None

    def _load_compiled(self, bundle: Bundle) -> Classifier:
        engine = compiled.open_engine(bundle, logits=self.logits, layer=self.layer, threads=self._threads)
        return self._classifier(bundle.name, engine, bundle.preprocessing, bundle.class_names, "it is compiled")

    def _load_network(self, reason: str | None) -> Classifier:
        ref = models.resolve(self.model)
        # Downloads, and what can go wrong with them, come before the seconds that importing torch and timm takes.
        if self._file is None:
            factory.prefetch(ref, offline=self.offline, progress=self.progress)
        definition = factory.define(ref, offline=self.offline, progress=self.progress)
        preprocessing = definition.preprocessing(self._size)
        device = choose_device(self.device)
        path = factory.find_weights(definition, file=self._file, offline=self.offline, progress=self.progress)
        network = factory.build(definition, path, own_weights=self._file is not None, image_size=self._size)
        # With other weights it is not the model of that name any more.
        name = ref.name if self._file is None else f"{definition.architecture}:{self._file.name}"
        classes = int(getattr(network, "num_classes", 0) or 0)
        try:
            names = definition.class_names(classes, own_weights=self._file is not None)
        except LabelsError as error:
            if self.logits:
                raise
            # Features need no names; but a compiled model is for predictions too.
            names, reason = labels.unnamed(classes), reason or error.message
        if device.type != "cpu":
            reason = reason or f"the device is {device}"

        def compile_network() -> Bundle | None:
            self.note(f"compiling {name}, once: the next start is quicker")
            try:
                bundle = compiled.compile_network(self._request, name, network, path, preprocessing, names)
            except OSError as error:
                self.note(f"the compiled model cannot be kept: {error}")
                return None
            if bundle.failure:
                self.note(f"{name} stays with the torch engine: {bundle.failure}")
            return bundle

        # Many images wait for the compiler, which they soon make up for; a single one does not.
        if reason is None and not self.single and (bundle := compile_network()):
            reason = bundle.failure
            if reason is None:
                return self._load_compiled(bundle)
        engine = TorchEngine(
            network, device=self.device, logits=self.logits, layer=self.layer, threads=self._threads
        )
        classifier = self._classifier(name, engine, preprocessing, names, reason or "it is not compiled yet")
        return replace(
            classifier,
            batch_size=self.batch_size or (1 if device.type == "cpu" else GPU_BATCH),
            afterwards=compile_network if reason is None and self.single else None,
        )

    def _classifier(
        self, name: str, engine: Engine, preprocessing: Preprocessing, names: ClassNames, why: str
    ) -> Classifier:
        if (self.logits or self.layer == LAYER_LOGITS) and not engine.classes:
            raise ModelError(f"{name} has no classifier, only features", hint="resnetd features gives them")
        if self.class_names:
            names = label_files.load(self.class_names, engine.classes)
        return Classifier(
            name=name,
            engine=engine,
            preprocessing=preprocessing,
            class_names=names,
            decoding=self.decoding,
            workers=self._workers,
            threads=self._threads,
            batch_size=self.batch_size or 1,
            why=why,
        )


def usable_cpus() -> int:
    """Return how many processors this process may use: under taskset, fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
