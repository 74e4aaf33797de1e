"""Write the graphs in `resnetd_cli/models/graphs/` from timm's networks: ONNX graphs without weights.

    python scripts/make_graphs.py            write the files
    python scripts/make_graphs.py --check    exit 1 if the files differ from what would be written

A graph takes `images` and the network's weights, named as in its state dict, as inputs. The batch, the height, the
width and the number of classes are free. Its outputs are `logits`, `features` and `feature_map`, the last feature
map before pooling. Batch normalisation is kept, and "same" padding is an attribute of the convolution, so that it
is right at any image size. Needs timm, torch and onnx.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import timm
import torch
from onnx import TensorProto, helper
from timm.layers import Conv2dSame
from torch import nn

GRAPHS = Path(__file__).resolve().parent.parent / "resnetd_cli" / "models" / "graphs"

ARCHITECTURES = (
    *(f"resnet{depth}d" for depth in (18, 26, 34, 50, 101, 152, 200)),
    "tf_efficientnet_lite0",  # `embedded`
)
OUTPUTS = ("logits", "features", "feature_map")
_OPSET, _IR_VERSION = 17, 8
_CLASSES = 1000
_AXES = {0: "n", 2: "height", 3: "width"}


class ThreeOutputs(nn.Module):
    """A timm network that returns its logits, its pooled features and its last feature map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the network on images of shape (N, 3, H, W)."""
        feature_map = self.network.forward_features(images)
        features = self.network.forward_head(feature_map, pre_logits=True)
        return self.network.get_classifier()(features), features, feature_map


def build(architecture: str) -> bytes:
    """Return the graph of a network, as an ONNX file."""
    network = timm.create_model(architecture, num_classes=_CLASSES).eval()
    _make_weights_differ(network)
    padded_same = {f"{name}.weight" for name in _replace_same_padding(network)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "exported.onnx"
        torch.onnx.export(
            ThreeOutputs(network).eval(),
            (torch.zeros(2, 3, 224, 224),),
            path,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_axes={"images": _AXES},
            opset_version=_OPSET,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # otherwise batch normalisation is merged into convolutions
        )
        exported = onnx.load(path).graph
    model = helper.make_model(
        helper.make_graph(
            _nodes(exported, padded_same),
            architecture,
            [_value("images", ["n", 3, "height", "width"]), *_weights(exported)],
            [_value(name, shape) for name, shape in zip(OUTPUTS, _output_shapes(network), strict=True)],
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _make_weights_differ(network: nn.Module) -> None:
    """Give every tensor other values: the exporter would use one tensor for all equal ones."""
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.0) if name.endswith("running_var") else tensor.normal_()


def _replace_same_padding(network: nn.Module) -> list[str]:
    """Replace convolutions with TensorFlow's "same" padding by plain ones, and return their names."""
    names = [name for name, module in network.named_modules() if isinstance(module, Conv2dSame)]
    for name in names:
        same = network.get_submodule(name)
        assert isinstance(same, nn.Conv2d)
        plain = nn.Conv2d(
            same.in_channels,
            same.out_channels,
            (same.kernel_size[0], same.kernel_size[1]),
            (same.stride[0], same.stride[1]),
            dilation=(same.dilation[0], same.dilation[1]),
            groups=same.groups,
            bias=same.bias is not None,
        )
        plain.load_state_dict(same.state_dict())
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, plain)
    return names


def _nodes(graph: onnx.GraphProto, padded_same: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes of an exported graph, named after the layer whose weights they use, or numbered."""
    weights = {weight.name for weight in graph.initializer}
    renamed = {"images": "images", **{name: name for name in OUTPUTS}, **{name: _plain(name) for name in weights}}
    constants: dict[bytes, str] = {}
    nodes = []
    for number, node in enumerate(graph.node):
        content = node.attribute[0].SerializeToString() if node.op_type == "Constant" else None
        if content in constants:
            renamed[node.output[0]] = constants[content]
            continue
        layer = next((_plain(name).rpartition(".")[0] for name in node.input if name in weights), None)
        name = layer or f"{node.op_type}_{number}"
        (output,) = node.output
        copy = helper.make_node(
            node.op_type, [renamed[name] for name in node.input], [renamed.setdefault(output, name)], name=name
        )
        copy.attribute.extend(node.attribute)
        if copy.op_type == "Conv" and copy.input[1] in padded_same:
            _pad_same(copy)
        if content is not None:
            constants[content] = renamed[output]
        nodes.append(copy)
    return nodes


def _pad_same(convolution: onnx.NodeProto) -> None:
    kept = [attribute for attribute in convolution.attribute if attribute.name != "pads"]
    del convolution.attribute[:]
    convolution.attribute.extend([*kept, helper.make_attribute("auto_pad", "SAME_UPPER")])


def _weights(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the weights as inputs, in the order of their names."""
    shapes = {_plain(weight.name): list(weight.dims) for weight in graph.initializer}
    (classifier,) = (_plain(node.input[1]).rpartition(".")[0] for node in graph.node if node.op_type == "Gemm")
    for name in (f"{classifier}.weight", f"{classifier}.bias"):
        shapes[name][0] = "classes"
    return [_value(name, shapes[name]) for name in sorted(shapes)]


def _output_shapes(network: Any) -> list[list[int | str]]:
    width = network.num_features
    return [["n", "classes"], ["n", width], ["n", width, "rows", "columns"]]


def _value(name: str, shape: Iterable[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _plain(name: str) -> str:
    return name.removeprefix("network.")


def outdated() -> list[str]:
    """Return the names of the files that are missing or hold another graph than `build` makes."""
    return [file for architecture in ARCHITECTURES if not _is_current(GRAPHS / (file := _file(architecture)))]


def _is_current(path: Path) -> bool:
    # zlib's compressed bytes differ from version to version, what they hold does not.
    return path.is_file() and gzip.decompress(path.read_bytes()) == build(path.name.partition(".")[0])


def _file(architecture: str) -> str:
    return f"{architecture}.onnx.gz"


def main() -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(description="Write resnetd_cli/models/graphs/ from timm's networks.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    if parser.parse_args().check:
        stale = outdated()
        for name in stale:
            print(f"graphs/{name} is not current: run python scripts/make_graphs.py", file=sys.stderr)
        return 1 if stale else 0
    GRAPHS.mkdir(exist_ok=True)
    for architecture in ARCHITECTURES:
        graph = build(architecture)
        packed = gzip.compress(graph, mtime=0)
        (GRAPHS / _file(architecture)).write_bytes(packed)
        print(f"graphs/{_file(architecture)}: {len(graph):,} bytes, compressed {len(packed):,}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
