"""The ONNX graphs in `graphs/`: the ResNet-D networks and EfficientNet-Lite0, without weights.

With one of them and a file of weights, a model runs with neither torch nor timm. A graph takes the weights of its
network as inputs, under the names of the state dict. `scripts/make_graphs.py` writes the graphs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnetd_cli.system.protobuf import BYTES, bytes_header, fields

IMAGES = "images"
"""The input that is no weight."""
_STATISTICS = (".running_mean", ".running_var")
"""The endings of weights that are not learnt."""
_FOLDER = Path(__file__).parent / "graphs"
_SUFFIX = ".onnx.gz"
_GZIP = 31  # zlib's code for gzip's format, without importing gzip

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INPUT, GRAPH_TENSOR = 11, 5
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE = 1, 2, 1, 1

CONVOLUTION_MACS = {
    "resnet18d": 41_902_080,
    "resnet26d": 52_649_984,
    "resnet34d": 79_650_816,
    "resnet50d": 88_301_568,
    "resnet101d": 164_061_184,
    "resnet152d": 239_820_800,
    "resnet200d": 311_123_968,
    "tf_efficientnet_lite0": 7_834_848,
}
"""Multiply-adds of a network's convolutions for each 32 x 32 pixels, if the sides are multiples of 32."""

Shape = tuple[int | None, ...]
"""The sides of a tensor; None stands for the number of classes."""


@dataclass(frozen=True)
class ShippedGraph:
    """A network's graph without its weights.

    Attributes:
        shapes: the shape of each weight, by its name in the state dict.
        model: the fields of the ONNX model other than its graph.
        graph: the fields of its graph without the inputs for weights.
    """

    shapes: Mapping[str, Shape]
    model: bytes
    graph: bytes

    def parameters(self, classes: int) -> int:
        """Return how many numbers the network learns, for a number of classes."""
        return sum(
            math.prod(side or classes for side in shape)
            for name, shape in self.shapes.items()
            if not name.endswith(_STATISTICS)
        )

    def classifier_weights(self, classes: int) -> int:
        """Return how many weights the classifier has without its bias, for a number of classes."""
        return sum(
            classes * (shape[1] or 0) for shape in self.shapes.values() if shape[0] is None and len(shape) == 2
        )

    def with_tensors(self, tensors: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
        """Return the ONNX model with weights, in parts that follow each other.

        Args:
            tensors: the weights, as fields of the number `GRAPH_TENSOR`, in parts.
        """
        length = len(self.graph) + sum(map(len, tensors))
        return [self.model, bytes_header(_MODEL_GRAPH, length), self.graph, *tensors]


def architectures() -> frozenset[str]:
    """Return timm's names of the networks whose graphs are shipped."""
    return frozenset(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


def read(architecture: str) -> ShippedGraph:
    """Return the graph of an architecture, which must be shipped."""
    content = zlib.decompress((_FOLDER / f"{architecture}{_SUFFIX}").read_bytes(), _GZIP)
    shapes: dict[str, Shape] = {}
    model, graph = [], []
    for number, start, value, stop in _fields(content, 0, len(content)):
        if number != _MODEL_GRAPH:
            model.append(content[start:stop])
            continue
        for inner, inner_start, inner_value, inner_stop in _fields(content, value, stop):
            if inner == _GRAPH_INPUT:
                name = _name(content, inner_value, inner_stop)
                if name != IMAGES:
                    shapes[name] = _shape(content, inner_value, inner_stop)
                    continue
            graph.append(content[inner_start:inner_stop])
    return ShippedGraph(shapes, b"".join(model), b"".join(graph))


def _fields(content: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, start, value and end of each field of a message."""
    for number, _, value, end in fields(content, start, stop):
        yield number, start, value, end
        start = end


def _name(content: bytes, start: int, stop: int) -> str:
    return next(
        content[value:end].decode()
        for number, _, value, end in fields(content, start, stop)
        if number == _VALUE_NAME
    )


def _shape(content: bytes, start: int, stop: int) -> Shape:
    for wanted in (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE):
        start, stop = next(
            (value, end) for number, _, value, end in fields(content, start, stop) if number == wanted
        )
    sides: list[int | None] = []
    for number, kind, value, end in fields(content, start, stop):
        assert (number, kind) == (_SHAPE_DIM, BYTES)
        side = next(iter(fields(content, value, end)))
        sides.append(side[2] if side[0] == _DIM_VALUE else None)
    return tuple(sides)
