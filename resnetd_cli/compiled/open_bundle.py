"""Opening a bundle as an engine: the hash of its graph is checked first, and a damaged bundle is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import shorten

from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import Bundle, BundleKey
from resnetd_cli.compiled.card import Card
from resnetd_cli.compiled.onnx_check import drop_metadata
from resnetd_cli.errors import CacheError, ModelError, ResnetdError, first_line
from resnetd_cli.pipeline.decode.image import import_pillow
from resnetd_cli.pipeline.engines.base import EngineOptions, GraphEngine
from resnetd_cli.pipeline.engines.onnx import WEIGHTS_SUFFIX, import_onnxruntime, optimise
from resnetd_cli.pipeline.engines.table import EngineSpec
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.files import sha256, write_atomic
from resnetd_cli.system.memory import is_shortage


class DamagedBundleError(Exception):
    """The graph of a bundle is damaged: its hash differs, or it cannot be loaded."""


def open_engine(bundle: Bundle, spec: EngineSpec, options: EngineOptions) -> GraphEngine:
    """Return an engine that runs a bundle, after checking the hash of its graph.

    Raises:
        DamagedBundleError: the graph is damaged; the bundle must be built again.
    """

    def load(path: Path, *, optimised: bool = False) -> GraphEngine:
        size = bundle.card.preprocessing.input_size[1:]
        engine: GraphEngine = spec.build(path, replace(options, size=size, optimised=optimised))
        _check_fit(engine, bundle.card)
        return engine

    if not spec.takes_optimised:
        return _checked([bundle.graph], bundle.graph_sha256, load)
    with suppress(OSError, DamagedBundleError):
        expected = _hash_file(bundle.optimised).read_text(encoding="ascii")
        return _checked(_optimised_files(bundle.optimised), expected, partial(load, optimised=True))
    engine = _checked([bundle.graph], bundle.graph_sha256, load)
    with suppress(CacheError):  # the next start is slower, nothing else
        optimise_for_this_machine(bundle)
    return engine


def find_intact(key: BundleKey) -> Bundle | None:
    """Return the bundle of a key, if there is one and the hash of its graph is right."""
    bundle = bundles.find(key)
    if bundle is None or bundle.failure:
        return bundle
    with suppress(OSError):
        if sha256(bundle.graph) == bundle.graph_sha256:
            return bundle
    return None


def optimise_for_this_machine(bundle: Bundle) -> None:
    """Store the graph in the form that loads fastest on this machine.

    Raises:
        CacheError: the cache cannot be written.
    """
    bundles.sweep(bundle.folder)
    with bundles.writing_cache(), tempfile.TemporaryDirectory(prefix=".making-", dir=bundle.folder) as folder:
        temporary = Path(folder) / bundle.optimised.name
        optimise(bundle.graph, temporary, bundle.card.preprocessing.input_size[1:])
        digest = _finish(temporary)
        for file in _optimised_files(temporary):
            file.replace(bundle.folder / file.name)
        write_atomic(_hash_file(bundle.optimised), digest.encode())


def finish_optimised(folder: Path) -> None:
    """Keep the hash of an optimised graph that an engine wrote into a bundle's folder.

    Raises:
        OSError: it cannot be read or written.
    """
    graph = bundles.optimised_in(folder)
    _hash_file(graph).write_text(_finish(graph), encoding="ascii")


def _finish(graph: Path) -> str:
    """Remove what an optimised graph need not hold, and return its hash."""
    drop_metadata(graph)  # the card is in the bundle, and marks take longer to load than the graph
    return sha256(*_optimised_files(graph))


def _optimised_files(graph: Path) -> list[Path]:
    """Return the files of an optimised graph; a small graph has no weights file."""
    weights = graph.with_suffix(WEIGHTS_SUFFIX)
    return [graph, weights] if weights.exists() else [graph]


def _hash_file(optimised: Path) -> Path:
    return optimised.with_suffix(".sha256")


def no_memory() -> ModelError:
    """Return the error for a model that takes more memory than there is."""
    hint = "close other programs, or choose a smaller model"
    return ModelError("there is not enough memory to load the model", hint=hint)


def _checked(paths: Sequence[Path], expected: str, load: Callable[[Path], GraphEngine]) -> GraphEngine:
    """Load a graph, the first of the paths, after checking their hash while Python imports what it needs next."""
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256, *paths)
        import_onnxruntime()
        import_pillow()
        try:
            if digest.result() == expected:
                return load(paths[0])
        except ResnetdError:  # the engine is not installed
            raise
        except Exception as error:  # ONNX Runtime raises any kind on a graph that it cannot read
            if is_shortage(error):
                raise no_memory() from error
            raise DamagedBundleError(shorten(printable(first_line(error)), 200)) from error
    raise DamagedBundleError("it is not the file it was")


def _check_fit(engine: GraphEngine, card: Card) -> None:
    """Check that the inputs and outputs of a graph are those of its card.

    Raises:
        ValueError: they are not.
    """
    size = card.preprocessing.input_size
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(engine.input_size, size, strict=True)):
        raise ValueError(f"the graph takes images of {engine.input_size}, its card says {size}")
    if engine.classes != len(card.class_names):
        raise ValueError(f"the graph has {engine.classes} classes, its card names {len(card.class_names)}")
