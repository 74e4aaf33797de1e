"""Binding weights to a shipped graph: in memory, where they stay in their file, or as a whole `.onnx` file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from resnetd_cli.models.plain_network import PlainNetwork
from resnetd_cli.models.shipped_graphs import GRAPH_TENSOR
from resnetd_cli.pipeline.engines.onnx import BoundGraph
from resnetd_cli.system.protobuf import bytes_field, bytes_header, varint_field

# Field numbers of onnx.proto's tensors.
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_KEY, _VALUE = 1, 2
_FLOAT, _EXTERNAL = 1, 1


def bind(network: PlainNetwork) -> BoundGraph:
    """Return a network's graph with its weights, which stay where they are."""
    # ONNX Runtime asks for a place, and never looks there.
    place = bytes_field(_EXTERNAL_DATA, bytes_field(_KEY, b"location") + bytes_field(_VALUE, b"memory"))
    external = place + varint_field(_DATA_LOCATION, _EXTERNAL)
    tensors = [
        bytes_field(GRAPH_TENSOR, _described(name, weights.shape) + external)
        for name, weights in network.weights.items()
    ]
    return BoundGraph(b"".join(network.graph.with_tensors(tensors)), network.weights)


def write(network: PlainNetwork, path: Path) -> None:
    """Write a network's graph with its weights as one `.onnx` file.

    Raises:
        OSError: it cannot be written.
    """
    tensors: list[bytes | memoryview] = []
    for name, weights in network.weights.items():
        described = _described(name, weights.shape) + bytes_header(_RAW_DATA, weights.nbytes)
        tensors += [
            bytes_header(GRAPH_TENSOR, len(described) + weights.nbytes) + described,
            weights.data.cast("B"),
        ]
    with path.open("wb") as stream:
        stream.writelines(network.graph.with_tensors(tensors))


def _described(name: str, shape: Iterable[int]) -> bytes:
    """Return the fields of a float32 tensor without its numbers."""
    sides = b"".join(varint_field(_DIMS, side) for side in shape)
    return sides + varint_field(_DATA_TYPE, _FLOAT) + bytes_field(_NAME, name.encode())
