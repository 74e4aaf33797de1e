"""Compiling a network into a bundle, quantising one, and opening a bundle as an engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import Bundle, BundleKey
from resnetd_cli.compiled.card import Card, GraphOrigin
from resnetd_cli.compiled.onnx_check import drop_metadata
from resnetd_cli.errors import CacheError, ModelError, first_line
from resnetd_cli.models import checkpoints
from resnetd_cli.pipeline.decode.image import import_pillow
from resnetd_cli.pipeline.engines.base import EngineOptions, GraphEngine
from resnetd_cli.pipeline.engines.onnx import WEIGHTS_SUFFIX, import_onnxruntime, optimise
from resnetd_cli.pipeline.engines.table import EngineSpec
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.files import sha256, write_atomic
from resnetd_cli.system.memory import is_shortage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnetd_cli.models.network import Network


class DamagedBundleError(Exception):
    """The bundle's graph is not the one that was compiled."""


def open_engine(bundle: Bundle, spec: EngineSpec, options: EngineOptions) -> GraphEngine:
    """Return an engine that runs a bundle, having checked that its graph is as it was written.

    Raises:
        DamagedBundleError: it is not; the bundle must be made again.
    """

    def load(path: Path, *, optimised: bool = False) -> GraphEngine:
        size = bundle.card.preprocessing.input_size[1:]
        engine: GraphEngine = spec.build(path, replace(options, size=size, optimised=optimised))
        _check_fit(engine, bundle.card)
        return engine

    if not spec.takes_optimised:
        return _checked([bundle.graph], bundle.graph_sha256, load)
    with suppress(OSError, DamagedBundleError):
        expected = _hash_file(bundle).read_text(encoding="ascii")
        return _checked(_optimised_files(bundle.optimised), expected, partial(load, optimised=True))
    engine = _checked([bundle.graph], bundle.graph_sha256, load)
    with suppress(CacheError):  # costs time at the next start, not answers
        optimise_for_this_machine(bundle)
    return engine


def find_intact(key: BundleKey) -> Bundle | None:
    """Return the bundle of a key, if there is one whose graph is as it was written."""
    bundle = bundles.find(key)
    if bundle is None or bundle.failure:
        return bundle
    with suppress(OSError):
        if sha256(bundle.graph) == bundle.graph_sha256:
            return bundle
    return None


def optimise_for_this_machine(bundle: Bundle) -> None:
    """Keep the graph in the form that loads quickest here.

    Raises:
        CacheError: the cache cannot be written.
    """
    bundles.sweep(bundle.folder)
    with bundles.writing_cache(), tempfile.TemporaryDirectory(prefix=".making-", dir=bundle.folder) as folder:
        temporary = Path(folder) / bundle.optimised.name
        optimise(bundle.graph, temporary, bundle.card.preprocessing.input_size[1:])
        drop_metadata(temporary)  # the card is in the bundle, and marks take longer to load than the graph
        digest = sha256(*_optimised_files(temporary))
        for file in _optimised_files(temporary):
            file.replace(bundle.folder / file.name)
        write_atomic(_hash_file(bundle), digest.encode())


def compile_network(key: BundleKey, network: Network) -> Bundle:
    """Export the network into the cache. One that cannot be exported leaves a bundle that says why.

    Args:
        key: what the user asked for, which finds the bundle again.
        network: on the CPU, in evaluation mode.

    Raises:
        CacheError: the cache cannot be written.
    """
    card = Card(
        name=network.name,
        preprocessing=network.preprocessing,
        class_names=network.class_names,
        origin=GraphOrigin(
            parameters=sum(parameter.numel() for parameter in network.module.parameters()),
            weights_sha256=sha256(*checkpoints.parts(network.file)),
            versions=bundles.current_versions(),
        ),
        temperatures=network.temperatures,
    )
    sources = {str(path): bundles.stamp(path) for path in _sources(key, network.file)}

    def make(folder: Path) -> Bundle:
        from resnetd_cli.compiled.to_onnx import convert

        graph = folder / bundles.GRAPH
        try:
            any_size = convert(network.module, network.preprocessing, graph)
        except ModelError as error:
            return Bundle(folder, card, "", sources, failure=error.message)
        return Bundle(folder, replace(card, any_size=any_size), sha256(graph), sources)

    return _keep(key, make)


def quantise(key: BundleKey, compiled: Bundle, images: Iterable[NDArray[np.float32]]) -> Bundle:
    """Make the int8 form of a compiled model.

    Args:
        key: what the user asked for, which finds the int8 bundle again.
        compiled: the fp32 bundle.
        images: the calibration images, preprocessed: float32, each (3, H, W).

    Raises:
        CacheError: the cache cannot be written.
        ModelError: it cannot be quantised.
    """

    def make(folder: Path) -> Bundle:
        from resnetd_cli.compiled.to_int8 import quantise_graph

        graph = folder / bundles.GRAPH
        count = quantise_graph(compiled.graph, graph, images)
        origin = replace(compiled.card.origin, calibration_images=count)
        card = replace(compiled.card, origin=origin, precision="int8", agreement=None)
        return replace(compiled, folder=folder, card=card, graph_sha256=sha256(graph))

    return _keep(key, make)


def import_file(key: BundleKey, card: Card) -> Bundle:
    """Keep the optimised form of a file that `export` wrote, so that the next start is quicker.

    Raises:
        CacheError: the cache cannot be written.
    """
    return _keep(key, lambda folder: replace(describe_file(key, card), folder=folder))


def describe_file(key: BundleKey, card: Card) -> Bundle:
    """Return a file that `export` wrote as a bundle that need not be in the cache."""
    path = Path(key.choice.model.resolved.location).absolute()
    return Bundle(key.folder(), card, sha256(path), {str(path): bundles.stamp(path)}, exported=str(path))


def _keep(key: BundleKey, make: Callable[[Path], Bundle]) -> Bundle:
    bundle = bundles.write(key, make)
    if bundle.failure is None:
        with suppress(CacheError):
            optimise_for_this_machine(bundle)
    return bundle


def _sources(key: BundleKey, file: Path) -> list[Path]:
    """Return the files whose change makes a bundle stale: the weights, and what chose them."""
    folder = key.choice.model.folder
    config = [folder / "config.json"] if folder else []
    weights = [part.absolute() for part in checkpoints.parts(file)]
    return [*weights, *filter(Path.is_file, config), *_revisions(file.absolute())]


def _revisions(file: Path) -> list[Path]:
    """Return the files that name a hub repository's revision as the one in use: REPO/refs/main and the like."""
    revision = file.parent
    if revision.parent.name != "snapshots":
        return []
    names = (path for path in (revision.parents[1] / "refs").rglob("*") if path.is_file())
    return [path for path in names if path.read_text(encoding="utf-8").strip() == revision.name]


def _optimised_files(graph: Path) -> list[Path]:
    """Return the files of an optimised graph; a small one has no weights file."""
    weights = graph.with_suffix(WEIGHTS_SUFFIX)
    return [graph, weights] if weights.exists() else [graph]


def _hash_file(bundle: Bundle) -> Path:
    return bundle.optimised.with_suffix(".sha256")


def _checked(paths: Sequence[Path], expected: str, load: Callable[[Path], GraphEngine]) -> GraphEngine:
    """Load a graph, the first of its files, having checked them while Python imports what it needs next."""
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256, *paths)
        import_onnxruntime()
        import_pillow()
        try:
            if digest.result() == expected:
                return load(paths[0])
        except Exception as error:  # of whatever kind ONNX Runtime raises on a graph that it does not read
            if is_shortage(error):
                hint = "close other programs, or choose a smaller model"
                raise ModelError("there is not enough memory to load the model", hint=hint) from error
            raise DamagedBundleError(shorten(printable(first_line(error)), 200)) from error
    raise DamagedBundleError("it is not the file it was")


def _check_fit(engine: GraphEngine, card: Card) -> None:
    """Make sure that a graph takes and gives what its card says.

    Raises:
        ValueError: it does not.
    """
    size = card.preprocessing.input_size
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(engine.input_size, size, strict=True)):
        raise ValueError(f"the graph takes images of {engine.input_size}, its card tells {size}")
    if engine.classes != len(card.class_names):
        raise ValueError(f"the graph has {engine.classes} classes, its card names {len(card.class_names)}")
