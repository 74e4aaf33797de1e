"""Reading `.pth` files without torch: the tensors that torch reads, and nothing that could run code."""

from __future__ import annotations

import argparse
import io
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnetd_cli.models import checkpoints, embedded, torch_files
from resnetd_cli.models.plain_tensors import DTYPES, NeedsTorchError, PlainTensor

TENSORS = {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.ones(3)}
WRITERS: dict[str, Callable[[object, Path], None]] = {
    "archive": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
}


@pytest.fixture(params=WRITERS.values(), ids=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[object], Path]:
    """Save content as torch does, in both of its formats, and return the file."""

    def _write(content: object) -> Path:
        request.param(content, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return _write


def assert_same(given: object, expected: object) -> None:
    if isinstance(expected, torch.Tensor):
        assert isinstance(given, PlainTensor)
        assert f"torch.{given.dtype}" == str(expected.dtype)
        assert given.shape == tuple(expected.shape)
        assert np.array_equal(given.float32(), expected.detach().float().numpy(), equal_nan=True)
    elif isinstance(expected, dict):
        assert isinstance(given, dict)
        assert list(given) == list(expected)
        for key, value in expected.items():
            assert_same(given[key], value)
    elif isinstance(expected, (list, tuple)):
        assert type(given) is type(expected)
        for one, other in zip(given, expected, strict=True):  # type: ignore[call-overload]
            assert_same(one, other)
    elif isinstance(expected, argparse.Namespace):
        assert vars(given) == vars(expected)
    else:
        assert given == expected


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


SHARED = torch.arange(20.0)
CONTENTS: dict[str, Callable[[], Any]] = {
    "plain": lambda: TENSORS,
    "state dict of a module": lambda: network().state_dict(),
    "parameters": lambda: dict(network().named_parameters()),
    "training script": lambda: {
        "epoch": 3, "arch": "resnet18d", "metric": 0.5, "done": True, "none": None, "big": 2**40, "negative": -7,
        "args": argparse.Namespace(model="resnet18d", lr=0.1), "state_dict": OrderedDict(TENSORS),
        "optimizer": {"state": {0: {"step": torch.tensor(3)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
    },
    "shared storage": lambda: {"a": SHARED, "b": SHARED[5:9], "c": SHARED.view(4, 5)},
    "not contiguous": lambda: {
        "a": SHARED.view(4, 5).t(), "b": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    },
    "numbers of any type": lambda: {name: torch.tensor([0, 1, 1], dtype=getattr(torch, name)) for name in DTYPES},
    "bfloat16 that rounds": lambda: {"a": torch.tensor([3.14159, -1e30, 1e-30], dtype=torch.bfloat16)},
    "single numbers and nothing": lambda: {"a": torch.tensor(3.5), "b": torch.zeros(0, 4), "c": torch.zeros(0)},
    "not numbers": lambda: {"a": torch.tensor([float("nan"), float("inf")])},
}  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_content_is_what_torch_reads(content: Callable[[], Any], write: Callable[[object], Path]) -> None:
    value = content()
    assert_same(torch_files.read(write(value)), value)


@pytest.mark.slow
def test_embedded_models_own_file_is_what_torch_reads() -> None:
    path = embedded.weights_file()
    expected = torch.load(path, weights_only=True)
    assert len(expected) == 296
    assert_same(torch_files.read(path), dict(expected))


def test_numbers_of_archive_stay_in_the_file(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pth")
    given = torch_files.read(tmp_path / "w.pth")
    assert isinstance(given, dict)
    weights = given["fc.weight"].float32()
    assert not weights.flags.owndata
    assert not weights.flags.writeable


class Call:
    """Unpickling it calls something with some arguments."""

    def __init__(self, called: object, *arguments: object) -> None:
        self.reduced = called, arguments

    def __reduce__(self) -> Any:
        return self.reduced


REFUSED: dict[str, Callable[[], Any]] = {
    "a function": lambda: {"a": Call(print, "ran")},
    "a class": lambda: {"a": Path("x")},
    "a set": lambda: {"a": {1, 2}},
    "a whole module": network,
    "a sparse tensor": lambda: {"a": torch.eye(3).to_sparse()},
    "an expanded tensor": lambda: {"a": torch.ones(1).expand(10**9)},
    "complex numbers": lambda: {"a": torch.ones(3, dtype=torch.complex64)},
    "8-bit floats": lambda: {"a": torch.ones(3).to(torch.float8_e4m3fn)},
    "keys that are tuples": lambda: {(1, 2): torch.ones(3)},
    "an ordered dictionary from pairs": lambda: {"a": Call(OrderedDict, [("a", 1)])},
    "a namespace with arguments": lambda: {"a": Call(argparse.Namespace)},
    "no tensors": lambda: {"a": 1},
    "a number": lambda: 3,
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_left_to_torch(
    content: Callable[[], Any], write: Callable[[object], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NeedsTorchError):
        checkpoints.read_plain(write(content()))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_pickle_protocols_are_left_to_torch_if_their_opcodes_differ(protocol: int, tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pth", pickle_protocol=protocol)
    if protocol == 3:
        assert_same(torch_files.read(tmp_path / "w.pth"), TENSORS)
    else:
        with pytest.raises(NeedsTorchError):
            torch_files.read(tmp_path / "w.pth")


def archive(path: Path, changes: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """Write a file as `torch.save` does, with other content in some records, or without them."""
    stream = io.BytesIO()
    torch.save(TENSORS, stream)
    with zipfile.ZipFile(stream) as saved, zipfile.ZipFile(path, "w", compression) as file:
        records = {name.partition("/")[2]: saved.read(name) for name in saved.namelist()} | changes
        for name, content in records.items():
            if content is not None:
                file.writestr(f"archive/{name}", content)
    return path


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def storage(key: bytes, count: int) -> bytes:
    """Return opcodes that push a storage of float32 numbers."""
    words = (b"storage", None, key, b"cpu")
    texts = [
        b"ctorch\nFloatStorage\n" if word is None else b"X" + struct.pack("<I", len(word)) + word for word in words
    ]
    return b"(" + b"".join(texts) + b"J" + struct.pack("<i", count) + b"tQ"


def tensor(held: bytes, offset: int, shape: list[int], strides: list[int]) -> bytes:
    sizes = b"".join(
        b"(" + b"".join(b"J" + struct.pack("<i", n) for n in each) + b"t" for each in (shape, strides)
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + held + b"J" + struct.pack("<i", offset) + sizes + b"\x89NtR"


def held_in(value: bytes) -> dict[str, bytes | None]:
    return {"data.pkl": pickled(b"}X\x01\x00\x00\x00a" + value + b"s")}


DOUBLED = b"K\x01K\x02\x86" + b"q\x00h\x00h\x00\x86" * 60
CHANGES: dict[str, dict[str, bytes | None]] = {
    "sound": held_in(tensor(storage(b"0", 12), 0, [3, 4], [4, 1])),
    "storage larger than its record": held_in(tensor(storage(b"0", 13), 0, [3], [1])),
    "storage smaller than its record": held_in(tensor(storage(b"0", 11), 0, [3], [1])),
    "storage of another record": held_in(tensor(storage(b"7", 12), 0, [3], [1])),
    "storage above the archive": held_in(tensor(storage(b"../0", 12), 0, [3], [1])),
    "negative storage": held_in(tensor(storage(b"0", -12), 0, [3], [1])),
    "more numbers than its storage": held_in(tensor(storage(b"0", 12), 0, [13], [1])),
    "offset beyond its storage": held_in(tensor(storage(b"0", 12), 10, [3], [1])),
    "strides beyond its storage": held_in(tensor(storage(b"0", 12), 0, [2, 2], [100, 1])),
    "negative offset": held_in(tensor(storage(b"0", 12), -3, [3], [1])),
    "negative strides": held_in(tensor(storage(b"0", 12), 5, [3], [-1])),
    "negative shape": held_in(tensor(storage(b"0", 12), 0, [-1, -12], [1, 1])),
    "strides without sides": held_in(tensor(storage(b"0", 12), 0, [3], [1, 1])),
    "number in place of a storage": held_in(tensor(b"K\x05", 0, [3], [1])),
    "tensor as a storage": held_in(tensor(tensor(storage(b"0", 12), 0, [3], [1]), 0, [3], [1])),
    "hash that takes forever, of a key": {"data.pkl": pickled(b"}" + DOUBLED + b"K\x01s")},
    "hash that takes forever, of a type": held_in(
        b"(X\x07\x00\x00\x00storage" + DOUBLED + b"X\x01\x00\x00\x000K\x00K\x01tQ"
    ),
    "nesting": {"data.pkl": pickled(b"]" * 50_000 + b"a" * 49_999)},
    "no end": {"data.pkl": b"\x80\x02}"},
    "empty stack": {"data.pkl": pickled(b"0")},
    "absent memo": {"data.pkl": pickled(b"h\x05")},
    "no pickle": {"data.pkl": None},
    "another byte order": {"byteorder": b"big"},
    "a program": {"constants.pkl": b"x"},
    "setting a function's code": held_in(b"ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb"),
    "state of a dictionary": held_in(b"}}X\x01\x00\x00\x00bK\x01sb"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_archive_that_claims_more_than_it_holds_is_left_to_torch(
    changes: dict[str, bytes | None], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = archive(tmp_path / "w.pth", changes)
    name = request.node.callspec.id
    if name == "sound":
        assert_same(torch_files.read(path), {"a": TENSORS["fc.weight"]})
    elif name == "state of a dictionary":
        assert torch_files.read(path) == {"a": {}}
    else:
        with pytest.raises(NeedsTorchError):
            checkpoints.read_plain(path)


def test_endless_pickle_is_left_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_files, "_MOST_OPCODES", 1000)
    path = archive(tmp_path / "w.pth", {"data.pkl": pickled(b"]" * 990 + b"a" * 989)})
    with pytest.raises(NeedsTorchError, match="no end"):
        torch_files.read(path)


def test_compressed_archive_is_left_to_torch(tmp_path: Path) -> None:
    with pytest.raises(NeedsTorchError):
        torch_files.read(archive(tmp_path / "w.pth", {}, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02.", b"text", pickle.dumps(3), bytes(1000)], ids=repr
)
def test_file_that_is_no_checkpoint_is_left_to_torch(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(NeedsTorchError):
        torch_files.read(tmp_path / "w.pth")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["archive", "legacy"])
def test_damaged_files_are_read_or_left_to_torch(kind: str, tmp_path: Path) -> None:
    """Flip bits and cut off ends: there is no other error, and no numbers from outside the file."""
    path, draw, outcomes = tmp_path / "w.pth", random.Random(3), {"read": 0, "left": 0}
    WRITERS[kind](TENSORS, path)
    sound = path.read_bytes()
    for turn in range(3000):
        data = bytearray(sound)
        if turn % 10 == 9:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(1 + turn % 3):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            for state_dict in checkpoints.read_plain(path):
                for each in state_dict.tensors.values():
                    assert each.float32().shape == each.shape
            outcomes["read"] += 1
        except NeedsTorchError:
            outcomes["left"] += 1
    assert min(outcomes.values()) > 300
