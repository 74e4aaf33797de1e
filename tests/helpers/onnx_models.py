"""A tiny exported model, made without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from resnetd_cli.class_names.shipped import unnamed
from resnetd_cli.compiled.card import Card, GraphOrigin
from resnetd_cli.compiled.exported_file import METADATA_KEY
from resnetd_cli.results import Preprocessing

SIDE, CLASSES = 8, 10
HOW = Preprocessing((3, SIDE, SIDE), 0.9, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CARD = Card("tiny", HOW, unnamed(CLASSES), GraphOrigin(30, "ab" * 32, {"resnetd": "1"}))


def tiny(card: object = None) -> onnx.ModelProto:
    """A graph as `export` writes it, but for its size."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3]),
    ]
    weights = np.random.default_rng(0).standard_normal((3, CLASSES), dtype=np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "w"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: json.dumps(CARD.to_json() if card is None else card)})
    return model


def write_onnx(path: Path, model: onnx.ModelProto) -> Path:
    """Write a graph to a file."""
    path.write_bytes(model.SerializeToString())
    return path
