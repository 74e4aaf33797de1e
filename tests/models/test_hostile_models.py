"""Hostile models: whatever a file claims, no code runs, memory stays bounded, and the error is one line."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.hub import Hub, timm_files
from helpers.loaders import loader_for
from helpers.onnx_models import CARD, CLASSES, SIDE, tiny, write_onnx
from helpers.paths import COFFEE, ROOT
from helpers.program import Cli, ResnetdHere
from onnx import TensorProto, helper, numpy_helper

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import BundleKey
from resnetd_cli.compiled.exported_file import METADATA_KEY
from resnetd_cli.errors import LabelsError, ModelError, ResnetdError, UnknownModel, WeightsError
from resnetd_cli.models import checkpoints, network
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.plain_tensors import NeedsTorchError
from resnetd_cli.results import Classified, Failure

TINY = "test_resnet"
TENSORS = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}
BEYOND = b"\x8a\x05\x00\x00\x00\x00\x04"  # 2**34 in a pickle


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A separate cache for the test; torch's threads are restored."""
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield tmp_path / "cache"
    torch.set_num_threads(threads)


def refused(path: Path) -> str:
    """Read a checkpoint that must be refused, first without torch, and return the message."""
    with pytest.raises(NeedsTorchError):
        checkpoints.read_plain(path)
    with pytest.raises(WeightsError) as caught:
        checkpoints.read(path)
    return one_line(caught.value)


def one_line(error: ResnetdError) -> str:
    assert "\n" not in error.message
    assert len(error.message) < 500
    assert hint_of(error)
    return error.message


# --- pickles that would run code ---


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def archive(path: Path, content: object, protocol: int) -> None:
    torch.save(content, path, pickle_protocol=protocol)


def legacy(path: Path, content: object, protocol: int) -> None:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)


def bare(path: Path, content: object, protocol: int) -> None:
    assert isinstance(content, dict)
    path.write_bytes(pickle.dumps(content["args"], protocol))


def tar(path: Path, content: object, protocol: int) -> None:
    with tarfile.open(path, "w") as file:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(content, protocol)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("write", [archive, legacy, bare, tar])
def test_code_in_a_pickle_does_not_run_and_is_named(
    write: Callable[[Path, object, int], None], protocol: int, tmp_path: Path
) -> None:
    path, marker = tmp_path / "w.pth", tmp_path / "it-ran"
    write(path, {"state_dict": TENSORS, "args": Payload(marker)}, protocol)
    message = refused(path)
    assert not marker.exists()
    if write is not tar:
        assert "it asks for posix.system: loading it could run code" in message


def test_payload_runs_when_unpickled_without_protection(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "it-ran")))
    assert (tmp_path / "it-ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("where", "protocol"), [("--weights", 2), ("folder", 4), ("bin", 2)])
def test_refused_pickle_prints_one_error_only(
    where: str, protocol: int, tmp_path: Path, run_here: ResnetdHere, thousand: dict[str, bytes]
) -> None:
    marker, folder = tmp_path / "it-ran", tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes(thousand["config.json"])
    path = folder / ("pytorch_model.bin" if where == "bin" else "model.pth")
    archive(path, {"state_dict": TENSORS, "args": Payload(marker)}, protocol)
    model = ["-m", TINY, "--weights", path] if where == "--weights" else ["-m", folder]
    finished = run_here("predict", COFFEE, *model)
    assert (finished.returncode, finished.stdout) == (1, "")
    error, hint = finished.stderr.splitlines()
    assert "it asks for posix.system" in error
    assert "safetensors" in hint
    assert not marker.exists()


@pytest.mark.slow
def test_pickle_from_the_hub_is_refused_too(
    hub: Hub, tmp_path: Path, run_here: ResnetdHere, thousand: dict[str, bytes]
) -> None:
    marker = tmp_path / "it-ran"
    archive(tmp_path / "w", {"state_dict": TENSORS, "args": Payload(marker)}, 2)
    files = {"config.json": thousand["config.json"], "pytorch_model.bin": (tmp_path / "w").read_bytes()}
    hub.add("stranger/model", files)
    finished = run_here("predict", COFFEE, "-m", "hf-hub:stranger/model", endpoint=hub.endpoint)
    assert finished.returncode == 1
    assert "it asks for posix.system" in finished.stderr
    assert not marker.exists()


@pytest.mark.slow
def test_hub_configuration_cannot_name_file_outside_repository(
    hub: Hub, run_here: ResnetdHere, thousand: dict[str, bytes]
) -> None:
    config = json.loads(thousand["config.json"])
    config["pretrained_cfg"]["hf_hub_filename"] = "../../../../secret"
    hub.add("stranger/model", {**thousand, "config.json": json.dumps(config).encode()})
    finished = run_here("predict", COFFEE, "-m", "hf-hub:stranger/model", endpoint=hub.endpoint)
    assert finished.returncode == 1
    assert "its hf_hub_filename is '../../../../secret'" in finished.stderr
    assert not [request for request in hub.requests if "secret" in request.path]


def test_newer_pickle_protocol_is_not_reported_as_code(tmp_path: Path) -> None:
    archive(tmp_path / "w.pth", TENSORS, 4)
    assert "newer protocol" in refused(tmp_path / "w.pth")


def test_torchscript_program_is_an_error_that_names_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as file:
        for name in ("w/data.pkl", "w/constants.pkl", "w/code/__torch__.py"):
            file.writestr(name, b"\x80\x02}.")
    with pytest.raises(WeightsError, match="TorchScript") as caught:
        checkpoints.read(tmp_path / "w.pth")
    assert "torch.save(model.state_dict()" in (hint_of(caught.value) or "")


def test_numpy_objects_are_not_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    kernel = np.array([Payload(marker)], dtype=object)
    np.savez(tmp_path / "w.npz", **{"embedding/kernel": kernel, "opt/target/embedding/kernel": kernel})
    with pytest.raises(WeightsError) as caught:
        loader_for("vit_tiny_patch16_224", weights=tmp_path / "w.npz", engine="torch", single=True).load()
    one_line(caught.value)
    assert not marker.exists()


# --- files that claim more than they hold ---


def repacked(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Write a file as `torch.save` does, but with other content in some records."""
    stream = io.BytesIO()
    torch.save(TENSORS, stream)
    with zipfile.ZipFile(stream) as saved, zipfile.ZipFile(path, "w", compression) as file:
        for name in saved.namelist():
            file.writestr(name, records.get(name.partition("/")[2]) or saved.read(name))
    return path


def pickled() -> bytes:
    stream = io.BytesIO()
    torch.save(TENSORS, stream)
    with zipfile.ZipFile(stream) as saved:
        return saved.read("archive/data.pkl")


def reshaped(sizes: bytes, strides: bytes = b"K\x04K\x01\x86") -> bytes:
    """Return a pickle whose first tensor has a shape that its storage cannot fill."""
    before, _, after = pickled().partition(b"QK\x00K\x03K\x04\x86")
    assert after
    return before + b"QK\x00" + sizes + after.replace(b"K\x04K\x01\x86", strides, 1)


def whole(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


CLAIMS = {
    "sizes": lambda: reshaped(BEYOND + b"K\x04\x86"),
    "strides": lambda: reshaped(BEYOND + b"K\x04\x86", b"K\x00K\x00\x86"),
    "storage": lambda: reshaped(BEYOND + b"K\x04\x86").replace(b"K\x0ct", BEYOND + b"t", 1),
    "bytearray": lambda: whole(b"cbuiltins\nbytearray\n" + BEYOND + b"\x85R"),
    "tensor": lambda: whole(b"}X\x01\x00\x00\x00wctorch\nFloatTensor\n" + BEYOND + b"\x85Rs"),
    "meta": lambda: whole(
        b"}X\x01\x00\x00\x00wctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n"
        + BEYOND
        + b"\x85K\x01\x85\x89tRs"
    ),
    "nesting": lambda: whole(b"]" * 100_000 + b"a" * 99_999),
}


@pytest.mark.slow
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_pickle_that_claims_more_than_file_holds_is_refused(claim: Callable[[], bytes], tmp_path: Path) -> None:
    refused(repacked(tmp_path / "w.pth", {"data.pkl": claim()}))


def test_state_dict_without_tensors_is_one_line_error(tmp_path: Path) -> None:
    itself = whole(b"}q\x00X\x01\x00\x00\x00wh\x00s")  # a dictionary that contains itself
    path = repacked(tmp_path / "w.pth", {"data.pkl": itself})
    with pytest.raises(WeightsError) as caught:
        loader_for(TINY, weights=path, engine="torch", single=True).load()
    one_line(caught.value)


def test_repacked_honest_archive_is_read(tmp_path: Path) -> None:
    tensors = checkpoints.read(repacked(tmp_path / "w.pth", {}))[0].tensors
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "fc.weight": (3, 4),
        "fc.bias": (3,),
    }


def test_legacy_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    legacy(tmp_path / "w.pth", TENSORS, 2)
    data = (tmp_path / "w.pth").read_bytes()
    assert b"K\x0cNt" in data
    (tmp_path / "w.pth").write_bytes(data.replace(b"K\x0cNt", BEYOND + b"Nt"))
    refused(tmp_path / "w.pth")


MEASURE = """
import os, resource, sys
from pathlib import Path
import torch
from resnetd_cli.models import checkpoints
from resnetd_cli.errors import WeightsError
from resnetd_cli.models.plain_tensors import NeedsTorchError
for path in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    try:
        checkpoints.read_plain(Path(path))
    except NeedsTorchError:
        pass
    try:
        print(len(checkpoints.read(Path(path))), end="\\t")
    except WeightsError as error:
        print(error.message, end="\\t")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
    os._exit(0)
"""
KINDS = {"deflated": 50, "dicts": 700, "copies": 700}
"""Kinds of bombs, and how much memory more than for an honest file each may take, in MB."""


def bomb(path: Path, kind: str) -> Path:
    text = 2**23
    encode = b"c_codecs\nencode\nh\x00X\x05\x00\x00\x00utf-8\x86R"
    bodies = {
        "dicts": b"(" + b"}" * 15_000_000 + b"l",
        "copies": b"](X" + struct.pack("<I", text) + b"a" * text + b"q\x00" + encode * 200 + b"e",
    }
    if kind == "deflated":
        return repacked(path, {"data/0": bytes(2**27)}, zipfile.ZIP_DEFLATED)
    return repacked(path, {"data.pkl": whole(bodies[kind])})


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float]]:
    """What reading each bomb and an honest file says, and its peak memory in MB; each in a process of its own."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = [repacked(folder / "honest.pth", {}), *(bomb(folder / f"{kind}.pth", kind) for kind in KINDS)]
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=240)
    lines = [line.rpartition("\t") for line in finished.stdout.splitlines()]
    return {path.stem: (said, int(most) / 1024) for path, (said, _, most) in zip(paths, lines, strict=True)}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound a process's memory")
@pytest.mark.parametrize("kind", KINDS)
def test_pickle_bomb_takes_little_memory(kind: str, peaks: dict[str, tuple[str, float]]) -> None:
    """Without limits these take 130 MB, 1 GB and 1.6 GB more than an honest file."""
    said, most = peaks[kind]
    assert most - peaks["honest"][1] < KINDS[kind]
    assert f"{kind}.pth" in said
    assert ("compressed archive" in said) == (kind == "deflated")


@pytest.mark.slow
def test_numpy_bomb_is_refused_before_reading(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros(2**25, np.float32))
    with pytest.raises(WeightsError, match="far beyond its size"):
        loader_for("vit_tiny_patch16_224", weights=tmp_path / "w.npz", engine="torch").load()


# --- safetensors ---

SOUND = {"w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}
HEADERS: dict[str, Any] = {
    "not-json": b"{nope",
    "list": b"[]",
    "nested": b'{"a":' * 50_000,
    "no-tensors": {},
    "beyond": {"w": {**SOUND["w"], "data_offsets": [0, 480]}},
    "backwards": {"w": {**SOUND["w"], "data_offsets": [48, 0]}},
    "overlap": {**SOUND, "v": SOUND["w"]},
    "shape": {"w": {**SOUND["w"], "shape": [2**40, 4]}},
    "overflow": {"w": {**SOUND["w"], "shape": [2**62, 4]}},
    "none-of-many": {"w": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}},
    "negative": {"w": {**SOUND["w"], "shape": [-3, 4]}},
    "dtype": {"w": {**SOUND["w"], "dtype": "X9"}},
    "types": {"w": 3},
}


def safetensors_file(path: Path, header: Any, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(48))
    return path


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_hostile_safetensors_header_is_one_line_error(header: Any, tmp_path: Path) -> None:
    message = refused(safetensors_file(tmp_path / "w.safetensors", header))
    assert "is not a weights file, or a damaged one: " in message


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**60, 2**64 - 1])
def test_safetensors_header_with_wrong_length_is_an_error(length: int, tmp_path: Path) -> None:
    assert checkpoints.read(safetensors_file(tmp_path / "w.safetensors", SOUND))[0].tensors["w"].shape == (3, 4)
    assert "header" in refused(safetensors_file(tmp_path / "w.safetensors", SOUND, length))


def test_integer_tensor_in_safetensors_is_an_error(tmp_path: Path) -> None:
    header = {"fc.weight": {"dtype": "I8", "shape": [48], "data_offsets": [0, 48]}}
    with pytest.raises(WeightsError, match="does not fit"):
        loader_for(TINY, weights=safetensors_file(tmp_path / "w.safetensors", header), engine="torch").load()


# --- config.json ---


@pytest.fixture(scope="module")
def thousand() -> dict[str, bytes]:
    return timm_files(f"{TINY}.r160_in1k", seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with ten classes, as written by timm."""
    path = tmp_path / "model"
    path.mkdir()
    for name, content in timm_files(f"{TINY}.r160_in1k", seed=1, num_classes=10).items():
        (path / name).write_bytes(content)
    return path


def configure(folder: Path, changes: dict[str, Any], pretrained: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    if pretrained:
        config["pretrained_cfg"] |= pretrained
    (folder / "config.json").write_text(json.dumps(config))


def load_folder(folder: Path) -> Any:
    return loader_for(str(folder), engine="torch", single=True, device="cpu", offline=True).load()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        *({"architecture": name} for name in ("../../x", "hf-hub:o/n", "local-dir:/etc", "test_resnet/../x", 3)),
        *({"architecture": name} for name in ("test_resnet\n", "x" * 10**6, None, ["test_resnet"])),
        *({"num_classes": count} for count in (10**9, -1, "10", 1.5, True, float("nan"), [10])),
        *({"label_names": names} for names in (["a"], "abcdefghij", 3, {"x": "a"}, [None] * 10, [[["a"]]] * 10)),
        *({"pretrained_cfg": value} for value in (3, [], "x", None)),
        *({"model_args": value} for value in (3, [1], "x")),
        {"model_args": {"checkpoint_path": "/etc/passwd"}},
        {"model_args": {"pretrained_strict": False}},
        {"model_args": {"channels": [10**6] * 4}},
        {"model_args": {"stem_width": 10**9}},
        {"model_args": {"in_chans": 10**8}},
        {"model_args": {"act_layer": "os.system"}},
    ],
    ids=lambda changes: ascii(changes)[:60],
)
def test_hostile_configuration_is_one_line_error(changes: dict[str, Any], folder: Path) -> None:
    configure(folder, changes, {})
    with pytest.raises((ModelError, LabelsError, WeightsError)) as caught:
        load_folder(folder)
    one_line(caught.value)


@pytest.mark.parametrize(
    "pretrained",
    [
        *(
            {"input_size": size}
            for size in ([3, 10**5, 10**5], [3, "a", 9], [3, 1.5, 9], {}, [3, True, 9], [3, -1, 9])
        ),
        *({"mean": mean} for mean in ([0.5, 0.5], [1e300] * 3, [[]] * 3, "abc", [float("nan")] * 3)),
        *({"std": std} for std in ([float("nan")] * 3, [0, 0, 0], [1e-300] * 3, [0.5] * 4, [True] * 3)),
        *({"crop_pct": crop} for crop in (-1, 1e-9, 50, float("inf"), float("nan"), "x", [1])),
        *({"interpolation": how} for how in ("best", 3, ["bicubic"])),
        *({"crop_mode": how} for how in ("best", 3)),
        *({"classifier": name} for name in (3, {"a": 1}, [1])),
        *({"label_offset": count} for count in ("x", 10**9, -1)),
        *({"hf_hub_filename": name} for name in ("../../x", "/etc/passwd", "a/../../b", ["x"], "a\0b", ".x")),
        {"num_classes": 10**7, "classifier": None},
        {"unheard_of": 1},
    ],
    ids=lambda changes: ascii(changes)[:60],
)
def test_hostile_pretrained_configuration_is_one_line_error(pretrained: dict[str, Any], folder: Path) -> None:
    configure(
        folder, {"num_classes": pretrained["num_classes"]} if "num_classes" in pretrained else {}, pretrained
    )
    with pytest.raises((ModelError, WeightsError)) as caught:
        load_folder(folder)
    one_line(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"a":' * 200_000, b'{"a": ' + b"9" * 10_000 + b"}", b" " * (2**24 + 1)],
    ids=["lists", "objects", "digits", "long"],
)
def test_endless_configuration_is_one_line_error(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json is not a timm model's") as caught:
        load_folder(folder)
    one_line(caught.value)


@pytest.mark.parametrize(
    "pretrained",
    [
        {"file": "/etc/passwd"},
        {"url": "http://127.0.0.1:9/x.pth"},
        {"source": "hf-hub", "hf_hub_id": "o/n"},
        {"state_dict": {"fc.weight": 1}},
        {"custom_load": True},
        {"custom_load": "hf", "hf_hub_filename": "x.pth"},
    ],
    ids=ascii,
)
def test_configuration_cannot_choose_where_weights_come_from(pretrained: dict[str, Any], folder: Path) -> None:
    weight = checkpoints.read(folder / "model.safetensors")[0].tensors["fc.weight"]
    configure(folder, {}, pretrained)
    assert torch.equal(load_folder(folder).engine.network.fc.weight, weight)


@pytest.mark.slow
def test_endless_network_is_stopped_while_built(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert network._MOST_MODULES <= 100_000  # which takes 20 seconds
    monkeypatch.setattr(network, "_MOST_MODULES", 2000)
    configure(folder, {"model_args": {"layers": [10**6] * 4}}, {})
    for words, reason in (
        (("predict", COFFEE, "-m", folder), "building the network takes more memory than there is, or than its"),
        (("info", folder), "it has more than 2,000 modules"),
    ):
        finished = cli(*words)
        assert finished.code == 1
        error, _ = finished.stderr.splitlines()
        assert reason in error


# --- exported files ---

Change = Callable[[onnx.ModelProto], object]


def answer(path: Path) -> Classified | Failure:
    (result,) = loader_for(str(path), engine="auto", single=True).load().predict(COFFEE, top_k=1)
    return result


def elsewhere(location: str, name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3, CLASSES])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(tensor: TensorProto) -> onnx.NodeProto:
    shape = helper.make_tensor_value_info("c", TensorProto.FLOAT, [3, CLASSES])
    graph = helper.make_graph([constant(tensor)], "branch", [], [shape])
    inner = helper.make_node("If", ["condition"], ["d"], then_branch=graph, else_branch=graph)
    outer = helper.make_graph([inner], "outer", [], [helper.make_tensor_value_info("d", TensorProto.FLOAT, None)])
    return helper.make_node("If", ["condition"], ["e"], then_branch=outer, else_branch=outer)


def unmarked(location: str) -> TensorProto:
    tensor = elsewhere(location)
    tensor.data_location = TensorProto.DEFAULT
    return tensor


LOCATIONS = ["../../../../../../etc/passwd", "/etc/passwd", "beside.bin", "*/_ORT_MEM_ADDR_/*", ""]
EXTERNAL: dict[str, Change] = {
    **{
        f"initializer {location}": lambda m, at=location: m.graph.initializer[0].CopyFrom(elsewhere(at))
        for location in LOCATIONS
    },
    "unmarked": lambda m: m.graph.initializer[0].CopyFrom(unmarked("beside.bin")),
    "marked": lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL),
    "attribute": lambda m: m.graph.node.append(constant(elsewhere("beside.bin"))),
    "subgraph": lambda m: m.graph.node.append(branch(elsewhere("beside.bin"))),
    "function": lambda m: m.functions.append(
        helper.make_function("", "f", [], ["c"], [constant(elsewhere("x"))], [helper.make_opsetid("", 17)])
    ),
    "training": lambda m: m.training_info.add().algorithm.initializer.append(elsewhere("x")),
}


@pytest.mark.parametrize("change", EXTERNAL.values(), ids=EXTERNAL)
def test_graph_with_weights_outside_file_is_refused_before_opening(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.bin").write_bytes(np.ones(3 * CLASSES, np.float32).tobytes())
    model = tiny()
    change(model)
    path = write_onnx(tmp_path / "m.onnx", model)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match="is refused: its weights lie in another file") as caught:
        answer(path)
    one_line(caught.value)


def sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40]))


def nested(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(30):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["d"], then_branch=graph)], "g", [], [])
    model.graph.node.extend(graph.node)


REFUSED: dict[str, tuple[Change, str]] = {
    "custom operator": (lambda m: m.graph.node.append(helper.make_node("F", [], ["x"], domain="evil")), "evil"),
    "huge": (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40), "larger than the file"),
    "product": (lambda m: m.graph.initializer[0].dims.extend([2**31] * 4), "larger than the file"),
    "negative": (lambda m: m.graph.initializer[0].dims.__setitem__(0, -3), "larger than the file"),
    "sparse": (sparse, "sparse"),
    "nested": (nested, "nested too deep"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_unneeded_onnx_feature_is_refused(change: Change, words: str, tmp_path: Path) -> None:
    model = tiny()
    change(model)
    with pytest.raises(ModelError, match=f"is refused: .*{words}") as caught:
        answer(write_onnx(tmp_path / "m.onnx", model))
    one_line(caught.value)


def test_unmodified_graph_runs(tmp_path: Path) -> None:
    for _ in range(2):
        result = answer(write_onnx(tmp_path / "m.onnx", tiny()))
        assert isinstance(result, Classified)
        assert result.model == "tiny"


def retype(info: onnx.ValueInfoProto, kind: int, shape: list[Any] | None) -> None:
    info.CopyFrom(helper.make_tensor_value_info(info.name, kind, shape))


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for info in (*model.graph.input, *model.graph.output):
        info.name = new if info.name == old else info.name
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def widened() -> TensorProto:
    return numpy_helper.from_array(np.ones((3, CLASSES + 1), np.float32), "w")


def any_width(model: onnx.ModelProto) -> None:
    """Make the number of logits known only when the graph runs."""
    model.graph.node[2].output[0] = "some"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(CLASSES, bool), "chosen"))
    model.graph.node.append(helper.make_node("Compress", ["some", "chosen"], ["logits"], axis=1))
    retype(model.graph.output[0], TensorProto.FLOAT, None)


FLOAT = TensorProto.FLOAT
MISFITS: dict[str, Change] = {
    "input rank": lambda m: retype(m.graph.input[0], FLOAT, ["n", 3, SIDE]),
    "input type": lambda m: retype(m.graph.input[0], TensorProto.DOUBLE, ["n", 3, SIDE, SIDE]),
    "input size": lambda m: retype(m.graph.input[0], FLOAT, ["n", 3, SIDE, SIDE + 1]),
    "input channels": lambda m: retype(m.graph.input[0], FLOAT, ["n", 4, SIDE, SIDE]),
    "input name": lambda m: rename(m, "images", "pictures"),
    "second input": lambda m: m.graph.input.append(helper.make_tensor_value_info("x", FLOAT, [1])),
    "no logits": lambda m: rename(m, "logits", "scores"),
    "no outputs": lambda m: m.graph.ClearField("output"),
    "logits width": lambda m: m.graph.initializer[0].CopyFrom(widened()),
    "logits of any width": any_width,
    "no nodes": lambda m: m.graph.ClearField("node"),
    "no graph": lambda m: m.ClearField("graph"),
    "no opset": lambda m: m.ClearField("opset_import"),
    "future opset": lambda m: setattr(m.opset_import[0], "version", 9999),
    "future format": lambda m: setattr(m, "ir_version", 2**31),
    "unknown operator": lambda m: setattr(m.graph.node[0], "op_type", "Frobnicate"),
    "too little data": lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"),
    "no data": lambda m: m.graph.initializer[0].ClearField("raw_data"),
    "data type": lambda m: setattr(m.graph.initializer[0], "data_type", 99),
    "cycle": lambda m: m.graph.node[0].input.__setitem__(0, "logits"),
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_graph_that_is_no_classifier_is_one_line_error(change: Change, tmp_path: Path, cache: Path) -> None:
    model = tiny()
    change(model)
    with pytest.raises(ModelError, match=r"m\.onnx") as caught:
        answer(write_onnx(tmp_path / "m.onnx", model))
    one_line(caught.value)


def test_logits_with_wrong_number_of_rows_are_an_error(tmp_path: Path) -> None:
    """A wrong row would be a neighbour's prediction."""
    model = tiny()
    node = helper.make_node("Concat", ["features", "features"], ["twice"], axis=0)
    model.graph.node.insert(2, node)
    model.graph.node[3].input[0] = "twice"
    retype(model.graph.output[0], FLOAT, ["m", CLASSES])
    with pytest.raises(ModelError, match="outputs of the wrong shape"):
        answer(write_onnx(tmp_path / "m.onnx", model))


def grow(model: onnx.ModelProto, count: int) -> None:
    """Make the graph fill this many numbers when it runs."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([count]), "count"))
    nodes = [
        helper.make_node("ConstantOfShape", ["count"], ["many"]),
        helper.make_node("ReduceMean", ["many"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["features", "w"], ["some"]),
        helper.make_node("Add", ["some", "mean"], ["logits"]),
    ]
    del model.graph.node[2]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize("count", [2**38, 2**45, 2**62])
def test_graph_that_needs_all_memory_fails_without_ending_process(count: int, tmp_path: Path) -> None:
    model = tiny()
    grow(model, count)
    try:
        result = answer(write_onnx(tmp_path / "m.onnx", model))
    except ModelError as error:
        one_line(error)
    else:
        assert isinstance(result, Failure)
        assert (result.kind.value, result.message) == ("too_large", "not enough memory for it")


CARDS: list[dict[str, Any]] = [
    *(
        {"preprocessing": {**CARD.to_json()["preprocessing"], "input_size": size}}
        for size in ([3, 10**6, 10**6], [3, 16, 16], 3, [])
    ),
    *(
        {"preprocessing": {**CARD.to_json()["preprocessing"], "crop_pct": crop}}
        for crop in (0, 1e-12, float("nan"), "x")
    ),
    *(
        {"preprocessing": {**CARD.to_json()["preprocessing"], "mean": mean}}
        for mean in ([0.5], [float("inf")] * 3, "abc")
    ),
    *(
        {"preprocessing": {**CARD.to_json()["preprocessing"], "interpolation": how}}
        for how in ("best", [[]], None)
    ),
    *({"preprocessing": value} for value in (3, None, [], {}, {"more": 1})),
    *({"class_names": value} for value in (3, None, [], {}, {"names": 3, "ids": [], "source": "x"})),
    *(
        {"class_names": {"names": names, "ids": [None] * CLASSES, "source": "x"}}
        for names in ([1] * CLASSES, ["a"], "a" * 9)
    ),
    {"class_names": {"names": ["a"], "ids": [None], "source": "x"}},
    {"class_names": {"names": ["a"] * CLASSES, "ids": [3] * CLASSES, "source": "x"}},
    *({"format": value} for value in (0, 2, "1", None)),
    *({"name": value} for value in (3, None, ["x"])),
    *({"precision": value} for value in ("fp64", 3, None)),
    *({"parameters": value} for value in ("many", None)),
    *({"agreement": value} for value in (3, "x", {"images": 1}, [1])),
    *({"versions": value} for value in (3, [], {"resnetd": 1})),
    {"more": 1},
]


@pytest.mark.parametrize("change", CARDS, ids=lambda change: ascii(change)[:60])
def test_hostile_card_is_one_line_error(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx") as caught:
        answer(write_onnx(tmp_path / "m.onnx", tiny({**CARD.to_json(), **change})))
    one_line(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1' + ', "a": [' * 50_000, "\0", "\ud83d"[:0], "NaN"])
def test_card_that_is_not_json_is_one_line_error(text: str, tmp_path: Path) -> None:
    model = tiny()
    helper.set_model_props(model, {METADATA_KEY: text})
    with pytest.raises(ModelError, match="another version of resnetd, or damaged") as caught:
        answer(write_onnx(tmp_path / "m.onnx", model))
    one_line(caught.value)


FLIPS = """
import random, sys, warnings
from pathlib import Path
sys.path.insert(0, "tests")
from helpers.loaders import loader_for
from resnetd_cli.errors import ResnetdError
sound, path, image = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), sys.argv[3]
random = random.Random(7)
counts = {}
for turn in range(250):
    data = bytearray(sound)
    if turn % 5 == 4:
        del data[random.randrange(len(data)):]
    else:
        for _ in range(1 + turn % 3):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)
    try:
        for result in loader_for(str(path), engine="auto", single=True).load().predict(image):
            outcome = type(result).__name__
    except ResnetdError as error:
        assert "\\n" not in error.message
        outcome = type(error).__name__
    counts[outcome] = counts.get(outcome, 0) + 1
print(counts)
"""


@pytest.mark.slow
def test_flipped_bits_do_not_crash_process(tmp_path: Path) -> None:
    """Flip bits in the graph and the card, which are nearly the whole file."""
    sound = write_onnx(tmp_path / "sound.onnx", tiny())
    command = [sys.executable, "-c", FLIPS, str(sound), str(tmp_path / "flipped.onnx"), str(COFFEE)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (finished.returncode, finished.stderr) == (0, "")
    counts = ast.literal_eval(finished.stdout)
    assert sum(counts.values()) == 250
    assert counts["ModelError"] > 50
    assert counts["Classified"] > 5


# --- bundles in the cache ---


@pytest.mark.parametrize("how", ["another file", "no text", "nested"])
def test_bundle_that_links_elsewhere_is_not_followed(how: str, tmp_path: Path) -> None:
    path, other = write_onnx(tmp_path / "m.onnx", tiny()), write_onnx(tmp_path / "other.onnx", tiny())
    assert isinstance(answer(path), Classified)
    bundle = bundles.find(BundleKey(ModelChoice.of(str(path))))
    assert bundle is not None
    card = bundle.folder / "bundle.json"
    content = json.loads(card.read_text())
    if how == "another file":
        content["bundle"] |= {"exported": str(other), "sources": {str(other): bundles.stamp(other)}}
    elif how == "no text":
        content["bundle"]["failure"] = {"a": 1}
    content["sha256"] = bundles._digest(content["bundle"])
    card.write_text("[" * 100_000 if how == "nested" else json.dumps(content))
    assert bundles.find(BundleKey(ModelChoice.of(str(path)))) is None
    assert isinstance(answer(path), Classified)
    mended = bundles.find(BundleKey(ModelChoice.of(str(path))))
    assert mended is not None
    assert mended.exported == str(path)


def test_lack_of_memory_does_not_count_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(tmp_path / "m.onnx", tiny())
    answer(path)
    monkeypatch.setattr(
        "onnxruntime.InferenceSession",
        lambda *_, **__: (_ for _ in ()).throw(RuntimeError("std::bad_alloc")),
    )
    with pytest.raises(ModelError, match="not enough memory"):
        answer(path)
    assert bundles.find(BundleKey(ModelChoice.of(str(path)))) is not None


# --- names ---

NAMES = [
    "../../x",
    "/etc/passwd",
    "/etc",
    "..",
    "hf-hub:../../etc/passwd",
    "hf-hub:a/../../b",
    "hf-hub:a/b@../../c",
    "hf-hub:a/b@/etc",
    "hf-hub:a/b@.x",
    "hf-hub:a\\b/c",
    "hf-hub:%2e%2e/%2e%2e",
    "hf-hub:",
    "local-dir:",
    "local-dir:../../etc",
    "local-dir:hf-hub:a/b",
    "resnet50d/../x",
    "resnet50d.ra2_in1k/..",
    "resnet50d.../..",
    "resnet50d\n",
    "resnet50d\0",
    "..\\..\\x",
    "%2e%2e/x",
    "~nobody-of-this-name/x",
    "~nobody-of-this-name.onnx",
    "a" * 5000,
    "/" + "a" * 5000,
    "hf-hub:" + "a" * 5000 + "/b",
    "a" * 5000 + ".onnx",
    "\x1b[31mred",
    "a\nb.onnx",
    "a\0b.onnx",
    "/dev/null.onnx",
    "\udcff",
    "\udcff/x.onnx",
    "",
    ".onnx",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:40])
def test_model_name_reaches_no_other_file(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnknownModel) as caught:
        loader_for(name, engine="auto", single=True, offline=True).load()
    assert hint_of(caught.value)
    assert [path for path in sorted(tmp_path.rglob("*")) if cache not in (path, *path.parents)] == before


@pytest.mark.parametrize("name", ["../../x", "~nobody-of-this-name/w.pth", "a" * 5000, "a\0b", "\udcff", ""])
def test_weights_with_hostile_names_are_not_found(name: str) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        loader_for(TINY, weights=name, engine="auto", single=True).load()


def test_pickle_that_imports_endless_name_is_refused_at_once(tmp_path: Path) -> None:
    """torch searches the name with a pattern that takes quadratic time."""
    file = tmp_path / "endless.pth"
    file.write_bytes(b"\x80\x02c" + b"A" * 1_000_000 + b"\nsystem\n(tR.")
    assert "an endless name" in refused(file)
