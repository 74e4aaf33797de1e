"""Compile a network whose graph is shipped, without torch: bind its weights to the graph.

The weights stay in their file, mapped into memory; `.onnx` files in the cache hold a copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from resnetd_cli.compiled import build, bundles
from resnetd_cli.compiled.bundles import Bundle, BundleKey
from resnetd_cli.compiled.open_bundle import finish_optimised, no_memory
from resnetd_cli.errors import first_line
from resnetd_cli.models.plain_network import PlainNetwork
from resnetd_cli.models.shipped_graphs import GRAPH_TENSOR
from resnetd_cli.pipeline.decode.image import import_pillow
from resnetd_cli.pipeline.engines.base import EngineOptions
from resnetd_cli.pipeline.engines.onnx import BoundGraph, OnnxEngine
from resnetd_cli.system.files import sha256
from resnetd_cli.system.memory import is_shortage
from resnetd_cli.system.protobuf import bytes_field, bytes_header, varint_field

# Field numbers of onnx.proto's tensors.
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_KEY, _VALUE = 1, 2
_FLOAT, _EXTERNAL = 1, 1


def compile_plain(key: BundleKey, network: PlainNetwork, options: EngineOptions) -> tuple[Bundle, OnnxEngine]:
    """Compile a network into the cache.

    The session that optimises the graph for this machine can also answer, so a first use takes hardly longer.

    Args:
        key: the key of the bundle.
        network: the graph and its weights.
        options: how the engine runs.

    Returns:
        The bundle, and an engine that runs it. The engine's weights are mapped from the network's file.

    Raises:
        CacheError: the cache cannot be written.
        ModelError: there is not enough memory.
    """
    engines: list[OnnxEngine] = []

    def make(folder: Path) -> Bundle:
        with ThreadPoolExecutor(2) as pool:
            engine = pool.submit(open_bound, network, replace(options, keep=bundles.optimised_in(folder)))
            stamps = pool.submit(build.stamps_of, key, network.file)
            graph_sha256 = pool.submit(_write, network, folder / bundles.GRAPH)
            import_pillow()  # which is needed next
            engines.append(engine.result())
            finish_optimised(folder)
            sources = stamps.result()
            card = replace(build.card_of(network, network.parameters, sources), any_size=True)
            return Bundle(folder, card, graph_sha256.result(), sources)

    return bundles.write(key, make), engines[0]


def open_bound(network: PlainNetwork, options: EngineOptions) -> OnnxEngine:
    """Return an engine that runs a network.

    If it keeps no optimised graph it may run for long, so it copies the weights from their file, which may change.

    Raises:
        ModelError: there is not enough memory.
        OSError: the optimised graph cannot be written.
    """
    options = replace(options, size=network.preprocessing.input_size[1:])
    try:
        if options.keep is None:
            network = replace(network, weights={name: array.copy() for name, array in network.weights.items()})
        return OnnxEngine(_bind(network), options)
    except Exception as error:  # ONNX Runtime raises any kind
        if is_shortage(error):
            raise no_memory() from error
        if options.keep is None:
            raise
        raise OSError(first_line(error)) from error


def _bind(network: PlainNetwork) -> BoundGraph:
    """Return a network's graph with its weights, which stay where they are."""
    # ONNX Runtime asks for a place, and never looks there.
    place = bytes_field(_EXTERNAL_DATA, bytes_field(_KEY, b"location") + bytes_field(_VALUE, b"memory"))
    external = place + varint_field(_DATA_LOCATION, _EXTERNAL)
    tensors = [
        bytes_field(GRAPH_TENSOR, _described(name, weights.shape) + external)
        for name, weights in network.weights.items()
    ]
    return BoundGraph(b"".join(network.graph.with_tensors(tensors)), network.weights)


def _write(network: PlainNetwork, path: Path) -> str:
    """Write a network's graph with its weights as one `.onnx` file, and return its hash."""
    tensors: list[bytes | memoryview] = []
    for name, weights in network.weights.items():
        described = _described(name, weights.shape) + bytes_header(_RAW_DATA, weights.nbytes)
        tensors += [
            bytes_header(GRAPH_TENSOR, len(described) + weights.nbytes) + described,
            weights.data.cast("B"),
        ]
    with path.open("wb") as stream:
        stream.writelines(network.graph.with_tensors(tensors))
    return sha256(path)


def _described(name: str, shape: Iterable[int]) -> bytes:
    """Return the fields of a float32 tensor without its numbers."""
    sides = b"".join(varint_field(_DIMS, side) for side in shape)
    return sides + varint_field(_DATA_TYPE, _FLOAT) + bytes_field(_NAME, name.encode())
