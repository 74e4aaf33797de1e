"""Definitions and weights without torch and timm: the same as with them, and what is unusual is left to timm."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers.hub import timm_files
from safetensors.torch import load_file, save_file
from timm.data import resolve_data_config
from timm.models import PretrainedCfg

from resnetd_cli.errors import ModelError, WeightsError
from resnetd_cli.models import config_json, embedded, network, plain_network, shipped_graphs
from resnetd_cli.models.names import Kind, ModelChoice, ResolvedModel, resolve
from resnetd_cli.models.network import Definition
from resnetd_cli.models.plain_network import PlainNetwork, load_plain
from resnetd_cli.models.plain_tensors import NeedsTorchError
from resnetd_cli.models.table import entries

MODEL = "resnet18d.ra2_in1k"
NAMES = [*(entry.name for entry in entries()), "embedded"]
THREE = ("cat", "dog", "cup")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["train", "test", "160"])
def test_preprocessing_of_all_timm_models_is_what_timm_resolves(size: str) -> None:
    count = 0
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        if (config.get("input_size") or (3,))[0] != 3:
            continue
        ours = Definition(ResolvedModel(name, Kind.TIMM, name), name, config).preprocessing(size)
        sized = {"img_size": 160} if size == "160" else {}
        theirs = resolve_data_config(sized, pretrained_cfg=config, use_test_size=size == "test")
        assert all(same(getattr(ours, key), value) for key, value in theirs.items()), name
        count += 1
    assert count > 1000


@pytest.mark.parametrize("name", NAMES)
def test_definition_is_timms(name: str) -> None:
    ref = resolve(name)
    ours, theirs = plain_network._define(ref, None), network.define(ref)  # type: ignore[arg-type]
    assert ours.architecture == theirs.architecture
    for size in ("train", "test", "160"):
        assert ours.preprocessing(size) == theirs.preprocessing(size)
    for key in ("first_conv", "classifier", *(() if name == "embedded" else ("hf_hub_id",))):
        assert ours.config[key] == theirs.config[key]
    assert ours.class_names(1000, own_weights=False) == theirs.class_names(1000, own_weights=False)
    assert ours.temperatures == theirs.temperatures == ()


def test_known_keys_are_those_of_timms_configurations() -> None:
    assert {field.name for field in dataclasses.fields(PretrainedCfg)} >= config_json._PLAIN_KEYS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A resnet18d with three classes, as timm writes it."""
    path = tmp_path / "model"
    path.mkdir()
    for name, content in timm_files(MODEL, num_classes=3, label_names=THREE).items():
        (path / name).write_bytes(content)
    return path


def configure(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def load(model: object, weights: Path | None = None, size: str = "train") -> PlainNetwork | None:
    return load_plain(ModelChoice.of(str(model), weights, size))


def assert_is(given: PlainNetwork | None, tensors: dict[str, torch.Tensor]) -> None:
    assert given is not None
    floats = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert set(given.weights) == set(floats)
    for name, values in given.weights.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, floats[name].float().numpy())


@pytest.mark.slow
def test_folder_of_own_classes_is_loaded(folder: Path) -> None:
    given, expected = load(folder), network.load_network(ModelChoice.of(str(folder)))
    assert given is not None
    assert_is(given, load_file(folder / "model.safetensors"))
    for field in ("name", "file", "preprocessing", "class_names", "temperatures"):
        assert getattr(given, field) == getattr(expected, field)
    assert given.class_names.names == THREE
    assert given.parameters == sum(parameter.numel() for parameter in expected.module.parameters())


def _sharded(tensors: dict[str, torch.Tensor], folder: Path) -> Path:
    places = {name: f"{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name, place in places.items() if place == shard}, folder / shard)
    (folder / "w.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder / "w.safetensors.index.json"


FORMS: dict[str, Callable[[dict[str, torch.Tensor], Path], Path]] = {
    "shards": _sharded,
    "archive": lambda tensors, folder: _saved(tensors, folder / "w.pth"),
    "legacy": lambda tensors, folder: _saved(tensors, folder / "w.pth", _use_new_zipfile_serialization=False),
    "under a key": lambda tensors, folder: _saved({"state_dict": tensors, "epoch": 3}, folder / "w.ckpt"),
    "under a prefix": lambda tensors, folder: _saved(
        {"state_dict": {f"module.model.{name}": tensor for name, tensor in tensors.items()}}, folder / "w.pth"
    ),
    "averaged": lambda tensors, folder: _saved(
        {"state_dict": {name: tensor * 0 for name, tensor in tensors.items()}, "state_dict_ema": tensors},
        folder / "w.pth",
    ),
    "without counters": lambda tensors, folder: _safe(
        {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")},
        folder / "w.safetensors",
    ),
    "another extension": lambda tensors, folder: _safe(tensors, folder / "w.bin"),
}


def _saved(content: object, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def _safe(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    save_file(tensors, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_weights_in_any_form_are_loaded(
    form: Callable[[dict[str, torch.Tensor], Path], Path], folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    file = form(tensors, tmp_path)
    given = load("resnet18d", file)
    assert_is(given, tensors)
    assert given is not None
    assert given.name == f"resnet18d:{file.name}"
    assert given.class_names.names == ("class 0", "class 1", "class 2")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype, folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    assert_is(load("resnet18d", _safe(cast, tmp_path / "w.safetensors")), cast)


@pytest.mark.slow
def test_embedded_model_is_loaded_from_its_own_file() -> None:
    given, expected = load("embedded"), network.load_network(ModelChoice.of("embedded"))
    assert_is(given, expected.module.state_dict())
    assert given is not None
    assert (given.name, given.class_names, given.preprocessing, given.file) == (
        expected.name, expected.class_names, expected.preprocessing, expected.file,
    )  # fmt: skip
    assert given.parameters == 4_652_008


MISFITS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "missing": lambda tensors: tensors.pop("layer1.0.conv1.weight"),
    "unexpected": lambda tensors: tensors.update({"layer9.weight": torch.ones(3)}),
    "another shape": lambda tensors: tensors.update({"conv1.0.weight": torch.ones(32, 1, 3, 3)}),
    "another shape of a bias": lambda tensors: tensors.update({"bn1.bias": torch.ones(1)}),
    "no classifier": lambda tensors: (tensors.pop("fc.weight"), tensors.pop("fc.bias")),
    "classifier of two sizes": lambda tensors: tensors.update({"fc.bias": torch.ones(4)}),
    "large counter": lambda tensors: tensors.update({"bn1.num_batches_tracked": torch.ones(9).long()}),
    "complex numbers": lambda tensors: tensors.update({"bn1.bias": torch.ones(64, dtype=torch.complex64)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_are_left_to_timm(
    change: Callable[[dict[str, torch.Tensor]], object], folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    assert load("resnet18d", _saved(tensors, tmp_path / "w.pth")) is None


@pytest.mark.slow
def test_integer_weights_are_an_error(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["layer1.0.conv1.weight"] = tensors["layer1.0.conv1.weight"].to(torch.int8)
    with pytest.raises(
        WeightsError, match=r"does not fit resnet18d: layer1.0.conv1.weight holds int8, not floating"
    ):
        load("resnet18d", _safe(tensors, tmp_path / "w.safetensors"))


UNUSUAL: dict[str, Callable[[dict[str, Any]], object]] = {
    "another architecture": lambda config: config.update(architecture="resnet50"),
    "architecture with a tag": lambda config: config.update(architecture=MODEL),
    "architecture that is no text": lambda config: config.update(architecture=["resnet18d"]),
    "arguments": lambda config: config.update(model_args={"output_stride": 8}),
    "another pooling": lambda config: config["model_args"].update(global_pool="max"),
    "another number of channels": lambda config: config["model_args"].update(in_chans=1),
    "another number of channels of images": lambda config: config["pretrained_cfg"].update(input_size=[1, 9, 9]),
    "arguments that are none": lambda config: config.update(model_args=[1]),
    "other layers": lambda config: config["pretrained_cfg"].update(classifier="head"),
    "no layers": lambda config: config["pretrained_cfg"].pop("first_conv"),
    "background class": lambda config: config["pretrained_cfg"].update(label_offset=1),
    "fixed size": lambda config: config["pretrained_cfg"].update(fixed_input_size=True),
    "unknown key": lambda config: config["pretrained_cfg"].update(unheard_of=1),
    "file outside": lambda config: config["pretrained_cfg"].update(hf_hub_filename="../x"),
    "too many classes": lambda config: config.update(num_classes=10**9),
    "too few names": lambda config: config.update(label_names=["a"]),
    "names that are none": lambda config: config.update(label_names=3),
    "no configuration": lambda config: config.pop("pretrained_cfg"),
    "another library's": lambda config: (config.pop("architecture"), config.update(model_type="resnet")),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_configuration_is_left_to_timm(change: Callable[[dict[str, Any]], object], folder: Path) -> None:
    configure(folder, change)
    assert load(folder) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"[]", b"{", b"[" * 200_000, b"\xff", b" " * (2**24 + 1)], ids=lambda each: repr(each[:9])
)
def test_configuration_that_is_no_object_is_left_to_timm(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(NeedsTorchError):
        config_json.read_plain(folder, shipped_graphs.architectures())


@pytest.mark.slow
@pytest.mark.parametrize(
    "pretrained",
    [{"crop_pct": -1}, {"mean": "abc"}, {"interpolation": "best"}, {"input_size": [3, 0, 224]}],
    ids=str,
)
def test_preprocessing_that_makes_no_sense_is_an_error(pretrained: dict[str, Any], folder: Path) -> None:
    configure(folder, lambda config: config["pretrained_cfg"].update(pretrained))
    with pytest.raises(ModelError, match="its preprocessing is invalid"):
        load(folder)


@pytest.mark.slow
def test_configuration_cannot_choose_where_weights_come_from(folder: Path) -> None:
    configure(folder, lambda config: config["pretrained_cfg"].update(file="/etc/passwd", hf_hub_id="o/n", url="x"))
    assert_is(load(folder), load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["resnet50", "vit_tiny_patch16_224"])
def test_other_models_are_left_to_timm(name: str) -> None:
    assert load(name) is None


def test_embedded_models_network_has_one_name() -> None:
    assert resolve("embedded").location.partition(".")[0] == embedded.ARCHITECTURE
