"""Building bundles: compiling a network, quantising a bundle to int8, and taking in an exported file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import Bundle, BundleKey, Stamp
from resnetd_cli.compiled.card import Card, GraphOrigin
from resnetd_cli.compiled.open_bundle import optimise_for_this_machine
from resnetd_cli.errors import CacheError, ModelError
from resnetd_cli.models import checkpoints
from resnetd_cli.system.files import sha256

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resnetd_cli.models.network import Network
    from resnetd_cli.models.plain_network import PlainNetwork


def compile_network(key: BundleKey, network: Network) -> Bundle:
    """Compile a network into the cache. One that cannot be converted leaves a bundle that says why.

    Args:
        key: the key of the bundle.
        network: the network, on the CPU, in evaluation mode.

    Raises:
        CacheError: the cache cannot be written.
    """
    sources = stamps_of(key, network.file)
    card = card_of(network, sum(parameter.numel() for parameter in network.module.parameters()), sources)

    def make(folder: Path) -> Bundle:
        from resnetd_cli.compiled.to_onnx import convert

        graph = folder / bundles.GRAPH
        try:
            any_size = convert(network.module, network.preprocessing, graph)
        except ModelError as error:
            return Bundle(folder, card, "", sources, failure=error.message)
        return Bundle(folder, replace(card, any_size=any_size), sha256(graph), sources)

    return _keep(key, make)


def card_of(network: Network | PlainNetwork, parameters: int, sources: Mapping[str, Stamp]) -> Card:
    """Return the card of a network.

    Args:
        network: the network.
        parameters: how many numbers it has learnt.
        sources: the stamps of the files it came from.
    """
    files = checkpoints.parts(network.file)
    known = sources.get(str(files[0].absolute())) if len(files) == 1 else None
    return Card(
        name=network.name,
        preprocessing=network.preprocessing,
        class_names=network.class_names,
        origin=GraphOrigin(
            parameters=parameters,
            weights_sha256=known.sha256 if known else sha256(*files),
            versions=bundles.current_versions(),
        ),
        temperatures=network.temperatures,
    )


def stamps_of(key: BundleKey, file: Path) -> dict[str, Stamp]:
    """Return the stamps of the files that a bundle comes from: the weights, and what selects them."""
    return {str(path): bundles.stamp(path) for path in _sources(key, file)}


def quantise(key: BundleKey, compiled: Bundle, images: Iterable[NDArray[np.float32]]) -> Bundle:
    """Make the int8 form of a compiled model.

    Args:
        key: the key of the int8 bundle.
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
    """Store the optimised form of an exported file, so that the next start is faster.

    Raises:
        CacheError: the cache cannot be written.
    """
    return _keep(key, lambda folder: replace(describe_file(key, card), folder=folder))


def describe_file(key: BundleKey, card: Card) -> Bundle:
    """Return the bundle of an exported file, without storing it in the cache."""
    path = Path(key.choice.model.resolved.location).absolute()
    return Bundle(key.folder(), card, sha256(path), {str(path): bundles.stamp(path)}, exported=str(path))


def _keep(key: BundleKey, make: Callable[[Path], Bundle]) -> Bundle:
    bundle = bundles.write(key, make)
    if bundle.failure is None:
        with suppress(CacheError):
            optimise_for_this_machine(bundle)
    return bundle


def _sources(key: BundleKey, file: Path) -> list[Path]:
    """Return the files whose change invalidates a bundle: the weights, and what selects them."""
    folder = key.choice.model.folder
    config = [folder / "config.json"] if folder else []
    weights = [part.absolute() for part in checkpoints.parts(file)]
    return [*weights, *filter(Path.is_file, config), *_revisions(file.absolute())]


def _revisions(file: Path) -> list[Path]:
    """Return the files that select a revision of a hub repository, such as REPO/refs/main."""
    revision = file.parent
    if revision.parent.name != "snapshots":
        return []
    names = (path for path in (revision.parents[1] / "refs").rglob("*") if path.is_file())
    return [path for path in names if path.read_text(encoding="utf-8").strip() == revision.name]
