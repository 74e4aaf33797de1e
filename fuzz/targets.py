"""What is fuzzed: functions that take any bytes, and raise nothing but what they promise."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from resnetd_cli.class_names import files
from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.compiled import exported_file
from resnetd_cli.compiled.card import Card, GraphOrigin
from resnetd_cli.errors import ErrorKind, InputError, LabelsError, ModelError
from resnetd_cli.models import checkpoints, config_json, shipped_graphs
from resnetd_cli.models.plain_tensors import NeedsTorchError
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode_here
from resnetd_cli.results import Preprocessing

_BOUNDS = DecodeOptions(max_pixels=1_000_000, timeout=20.0)
_DECODING_KINDS = (ErrorKind.UNDECODABLE, ErrorKind.TOO_LARGE, ErrorKind.TIMEOUT)
_SUFFIXES = (".txt", ".json", ".csv", ".tsv")


@dataclass(frozen=True)
class Target:
    """One of them.

    Attributes:
        run: takes the bytes.
        seeds: gives inputs to begin with.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def decode(data: bytes) -> None:
    """An image is RGB and within bounds, or an error of a known kind."""
    try:
        image = decode_here(data, _BOUNDS)
    except InputError as error:
        assert error.kind in _DECODING_KINDS, error
        assert "\n" not in error.message
    except MemoryError:
        pass
    else:
        assert image.mode == "RGB"
        assert image.width * image.height <= _BOUNDS.max_pixels


def labels(data: bytes) -> None:
    """A file of class names gives as many as were asked for, or a `LabelsError`. Its first byte tells its kind."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"names{_SUFFIXES[data[0] % len(_SUFFIXES) if data else 0]}"
        file.write_bytes(data[1:])
        with suppress(LabelsError):
            assert len(files.load(str(file), 3).names) == 3


def card(data: bytes) -> None:
    """What a bundle or an exported file says of itself makes a card, or raises one of the errors it names."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        read = Card.from_json(json.loads(data))
        Card.from_json(json.loads(json.dumps(read.to_json())))


def config(data: bytes) -> None:
    """A model folder's configuration is one that timm builds from, or a `ModelError`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes(data)
        with suppress(ModelError):
            config_json.read("a model", Path(folder))
        with suppress(NeedsTorchError):
            config_json.read_plain(Path(folder), shipped_graphs.architectures())


def weights(data: bytes) -> None:
    """A checkpoint holds tensors no larger than itself, or is left to torch. Its first byte tells its kind."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ("w.safetensors" if data[:1] == b"\1" else "w.pth")
        file.write_bytes(data[1:])
        with suppress(NeedsTorchError):
            for found in checkpoints.read_plain(file):
                assert all(
                    tensor.float32().size == tensor.numel() <= len(data) for tensor in found.tensors.values()
                )


def model(data: bytes) -> None:
    """An exported file tells its card, or is refused with a `ModelError`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(data)
        with suppress(ModelError):
            exported_file.read_card(file)


def _pictures() -> Iterator[bytes]:
    """Yield a small picture in each format that Pillow writes, and in each mode."""
    Image.init()
    yield from _mended()
    colours = Image.linear_gradient("L").resize((24, 16))
    for format_name in sorted(Image.SAVE):
        for mode in ("RGB", "P", "L", "RGBA", "LA", "1", "CMYK", "I;16", "F"):
            buffer = io.BytesIO()
            with suppress(Exception):  # not every format has every mode
                colours.convert(mode).save(buffer, format_name)
                yield buffer.getvalue()


def _mended() -> Iterator[bytes]:
    """Yield files whose picture is whole though something beside it is not."""
    picture = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
    jpeg, png = io.BytesIO(), io.BytesIO()
    picture.save(jpeg, "JPEG", progressive=True, restart_marker_rows=1)
    picture.save(png, "PNG", dpi=(72, 72))
    start = jpeg.getvalue()[:2]
    yield start + b"\xff\xee\0\x07Adobe" + jpeg.getvalue()[2:-2]
    yield png.getvalue().replace(b"pHYs", b"zTXt")
    yield b"\0\0\2\0\1\0\x18\x10\0\0\0\0\0\0\xff\xff\0\0\x16\0\0\0" + png.getvalue()


def _names() -> Iterator[bytes]:
    yield b"\0tench\ngoldfish\ngreat white shark\n"
    yield b'\1["tench", "goldfish", "shark"]'
    yield b'\1{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"], "2": ["n01484850", "shark"]}'
    yield b'\2index,id,name\n0,n01440764,tench\n1,n01443537,goldfish\n2,n01484850,"great, white"\n'
    yield b"\3name\tindex\ntench\t0\ngoldfish\t1\nshark\t2\n"


def _cards() -> Iterator[bytes]:
    how = Preprocessing((3, 224, 224), 0.875, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    names = ClassNames(("tench", "goldfish"), ("n01440764", "n01443537"), "imagenet-1k")
    origin = GraphOrigin(25_000_000, "0" * 64, {"resnetd": "1"})
    yield json.dumps(Card("resnet50d", how, names, origin).to_json()).encode()


def _configs() -> Iterator[bytes]:
    how = {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.875}
    how |= {"interpolation": "bicubic", "num_classes": 3, "classifier": "fc", "label_names": ["a", "b", "c"]}
    yield json.dumps({"architecture": "resnet18d", "num_classes": 3, "pretrained_cfg": how}).encode()
    yield json.dumps({"architecture": "resnet18d", "model_args": {"in_chans": 3}, **how}).encode()


def _weights() -> Iterator[bytes]:
    import torch
    from safetensors.torch import save

    tensors = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.ones(2, dtype=torch.float16)}
    for is_archive in (True, False):
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors, "epoch": 3}, buffer, _use_new_zipfile_serialization=is_archive)
        yield b"\0" + buffer.getvalue()
    yield b"\1" + save(tensors)


def _models() -> Iterator[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "weight")
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [None, 3, 4, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 2])
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "graph", [images], [logits], [weight])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(whole, {exported_file.METADATA_KEY: next(_cards()).decode()})
    yield whole.SerializeToString()


TARGETS = {
    "decode": Target(decode, _pictures),
    "labels": Target(labels, _names),
    "card": Target(card, _cards),
    "config": Target(config, _configs),
    "model": Target(model, _models),
    "weights": Target(weights, _weights),
}
