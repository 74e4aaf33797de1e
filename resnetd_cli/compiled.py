"""Compiling a network into a bundle, and opening a bundle as an engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli import bundle as bundles
from resnetd_cli.bundle import Bundle, Request
from resnetd_cli.engines.onnx import OnnxEngine, optimise
from resnetd_cli.errors import ModelError
from resnetd_cli.files import sha256, write_atomic
from resnetd_cli.labels import ClassNames
from resnetd_cli.results import Preprocessing

if TYPE_CHECKING:
    from torch import nn


class DamagedBundleError(Exception):
    """The bundle's graph is not the one that was compiled."""


def open_engine(bundle: Bundle, *, logits: bool, layer: str | None, threads: int | None) -> OnnxEngine:
    """Return an engine that runs a bundle, having checked that its graph is as it was written.

    Raises:
        DamagedBundleError: it is not; the bundle must be made again.
    """
    load = partial(OnnxEngine, logits=logits, layer=layer, threads=threads)
    with suppress(OSError, DamagedBundleError):
        expected = _hash_file(bundle).read_text(encoding="ascii")
        return _checked(bundle.optimised, expected, partial(load, optimised=True))
    engine = _checked(bundle.graph, bundle.graph_sha256, load)
    with suppress(OSError):  # a cache that cannot be written costs time, not answers
        optimise_for_this_machine(bundle)
    return engine


def optimise_for_this_machine(bundle: Bundle) -> None:
    """Keep the graph in the form that loads quickest here.

    Raises:
        OSError: the cache cannot be written.
    """
    temporary = bundle.optimised.with_suffix(".tmp")
    try:
        optimise(bundle.graph, temporary)
        digest = sha256(temporary)
        temporary.replace(bundle.optimised)
        write_atomic(_hash_file(bundle), digest.encode())
    finally:
        temporary.unlink(missing_ok=True)


def compile_network(
    request: Request, name: str, network: nn.Module, file: Path, how: Preprocessing, names: ClassNames
) -> Bundle:
    """Export the network into the cache. One that cannot be exported leaves a bundle that says why.

    Args:
        request: what the user asked for, which finds the bundle again.
        name: the model's name, as the records carry it.
        network: on the CPU, in evaluation mode.
        file: the weights that it was loaded from.
        how: how it wants its images.
        names: the names of its classes.

    Raises:
        OSError: the cache cannot be written.
    """

    def make(folder: Path) -> Bundle:
        from resnetd_cli.export import export

        failure, digest = None, ""
        try:
            export(network, how, folder / bundles.GRAPH)
            digest = sha256(folder / bundles.GRAPH)
        except ModelError as error:
            failure = error.message
        return Bundle(
            folder=folder,
            name=name,
            preprocessing=how,
            class_names=names,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            weights_sha256=sha256(file),
            graph_sha256=digest,
            versions=bundles.current_versions(),
            sources={str(path): bundles.stamp(path) for path in _sources(request, file)},
            failure=failure,
        )

    bundle = bundles.write(request, make)
    if bundle.failure is None:
        with suppress(OSError):
            optimise_for_this_machine(bundle)
    return bundle


def _sources(request: Request, file: Path) -> list[Path]:
    config = Path(request.model) / "config.json"
    return [file.absolute(), *([config.absolute()] if config.is_file() else [])]


def _hash_file(bundle: Bundle) -> Path:
    return bundle.optimised.with_suffix(".sha256")


def _checked(path: Path, expected: str, load: Callable[[Path], OnnxEngine]) -> OnnxEngine:
    """Check a graph and load it. The check goes on in a thread while ONNX Runtime and numpy are imported."""
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256, path)
        import onnxruntime  # noqa: F401

        try:
            is_intact = digest.result() == expected
            engine = load(path) if is_intact else None
        except Exception as error:  # of whatever kind ONNX Runtime raises on a graph that it does not read
            raise DamagedBundleError(path) from error
    if engine is None:
        raise DamagedBundleError(path)
    return engine
