"""Preparing models ahead of use: download, compile, quantise to int8, export and verify them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.class_names import files
from resnetd_cli.classifier import Classifier
from resnetd_cli.compiled import build, bundles, exported_file
from resnetd_cli.compiled.bundles import Bundle
from resnetd_cli.compiled.card import Card
from resnetd_cli.compiled.open_bundle import find_intact
from resnetd_cli.errors import CacheError, InputError, ModelError, Reason, UsageError
from resnetd_cli.evaluation.agreement import measure_agreement
from resnetd_cli.loading import Loader
from resnetd_cli.models import trained_on
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.engines.base import FP32, INT8, LAYER_POOLED, Wanted
from resnetd_cli.pipeline.engines.table import graph_engine, network_engine
from resnetd_cli.pipeline.run import prepare
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Agreement, Failure
from resnetd_cli.system.files import open_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CALIBRATION_IMAGES = 256
"""Most images to calibrate with: more hardly change the ranges of the activations."""
OnFailure = Callable[[Failure], None]


def pull(
    loader: Loader, calibration: Sequence[Source] | None = None, *, on_failure: OnFailure = lambda _: None
) -> Bundle:
    """Return a model's bundle, after compiling or quantising it if necessary.

    Args:
        loader: the model, and the precision: `fp32`, `int8`, or `bf16` if this machine runs it.
        calibration: images to quantise with; an existing int8 model is replaced.
        on_failure: called with the failure of each unreadable calibration image.

    Raises:
        ResnetdError: see `errors`.
    """
    if loader.model.is_exported:
        raise UsageError(f"{loader.model} is already compiled", reason=Reason.COMPILED_ALREADY)
    loader.check()
    precision = loader.runtime.precision
    if precision != INT8 and graph_engine(precision=precision).can_run(precision):
        return loader.compile()
    if precision != INT8:
        raise UsageError(f"{precision} runs on torch, without compiling", reason=Reason.NOT_COMPILED)
    if calibration is None:
        if bundle := find_intact(loader.bundle_key):
            return bundle
        raise UsageError("int8 needs calibration images", reason=Reason.NEEDS_CALIBRATION)
    return _quantise(loader, calibration, on_failure)


def export(loader: Loader, path: Path, *, overwrite: bool = True) -> Card:
    """Write a model as one `.onnx` file, with everything needed to run it, and return the file's card.

    Args:
        loader: the model, the precision, and class names that replace its own.
        path: the file, which is written atomically.
        overwrite: replace an existing file.

    Raises:
        ResnetdError: see `errors`.
    """
    bundle = pull(loader)
    if bundle.failure:
        raise ModelError(f"{bundle.card.name}: {bundle.failure}", hint="choose another model")
    card = bundle.card
    if loader.class_names:
        card = replace(card, class_names=files.load(loader.class_names, len(card.class_names.names)))
    # A file has one precision, and one image size unless its graph accepts any.
    others = tuple(
        each
        for each in card.temperatures
        if card.any_size and each.precision == card.precision and not each.fits(card.preprocessing, card.precision)
    )
    card = replace(card, temperature=loader.temperature_of(card), temperatures=others)
    home = trained_on.home(loader.choice)
    marks = None if home is None else trained_on.read(home)
    with open_atomic(path, overwrite=overwrite) as stream:
        exported_file.write_file(bundle.graph, card, stream, marks)
    return card


def verify(loader: Loader, sources: Iterable[Source], *, on_failure: OnFailure) -> Agreement:
    """Compare a compiled model with the form it was made from, and store the figures in its bundle.

    Args:
        loader: the model, and the precision: int8 and bf16 are compared with fp32, and fp32 with torch.
        sources: images to compare on.
        on_failure: called with the failure of each unreadable image.
    """
    precision = loader.runtime.precision
    candidate = _run_by(loader, graph_engine(precision=precision).name).load()
    agreement = measure_agreement(_reference(loader), candidate, sources, on_failure=on_failure)
    bundle = bundles.find(loader.bundle_key)
    if bundle and bundle.card.precision == precision:
        try:
            bundles.describe_anew(bundle, replace(bundle.card, agreement=agreement))
        except CacheError as error:
            loader.note(error.message)
    return agreement


def verify_file(loader: Loader, path: Path, sources: Iterable[Source], *, on_failure: OnFailure) -> Agreement:
    """Compare an exported file with the network it came from, or an int8 file with the fp32 form.

    Args:
        loader: the model that was exported.
        path: the file.
        sources: images to compare on.
        on_failure: called with the failure of each unreadable image.
    """
    candidate = _run_by(Loader(ModelChoice.of(str(path)), inputs=loader.inputs), graph_engine().name).load()
    return measure_agreement(_reference(loader), candidate, sources, on_failure=on_failure)


def _reference(loader: Loader) -> Classifier:
    """Return the form that a compiled form is compared with."""
    engine = (network_engine() if loader.runtime.precision == FP32 else graph_engine()).name
    return _run_by(loader, engine, FP32).load()


def _run_by(loader: Loader, engine: str, precision: str | None = None) -> Loader:
    """Return a loader for a comparison: without a temperature, because one form's does not fit the other."""
    runtime = replace(loader.runtime, engine=engine, precision=precision or loader.runtime.precision)
    return replace(loader, runtime=runtime, temperature=1.0)


def _quantise(loader: Loader, calibration: Sequence[Source], on_failure: OnFailure) -> Bundle:
    # Loading the fp32 form repairs a damaged one. Load features, as not every model has a classifier.
    loader_fp32 = replace(loader, runtime=replace(loader.runtime, engine=graph_engine().name, precision=FP32))
    reference = replace(loader_fp32, wanted=Wanted(logits=False, layer=LAYER_POOLED)).load()
    bundle = bundles.find(loader_fp32.bundle_key)
    if bundle is None:
        raise ModelError(f"{reference.name} has no compiled form", hint="RESNETD_CACHE names another folder")
    chosen = _spread(calibration, CALIBRATION_IMAGES)
    of = f" of {len(calibration)}" if len(calibration) > len(chosen) else ""
    loader.note(f"calibrating {reference.name} with {len(chosen)}{of} images")
    return build.quantise(loader.bundle_key, bundle, _images(reference, chosen, on_failure))


def _images(
    classifier: Classifier, sources: Iterable[Source], on_failure: OnFailure
) -> Iterator[NDArray[np.float32]]:
    """Yield the readable images, preprocessed for the model: float32, (3, H, W)."""
    for source in sources:
        try:
            yield prepare(source, classifier.inputs.decoding, classifier.preprocessing)
        except InputError as error:
            on_failure(Failure.of(source.name, classifier.name, error))


def _spread(sources: Sequence[Source], count: int) -> list[Source]:
    """Return at most `count` sources, evenly spread, because folders are sorted, often by class."""
    if len(sources) <= count:
        return list(sources)
    return [sources[index * len(sources) // count] for index in range(count)]
