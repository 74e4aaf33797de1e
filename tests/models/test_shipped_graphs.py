"""The graphs without weights: small, with the names of timm's state dicts, and what the script makes of timm."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from helpers.paths import ROOT

from resnetd_cli.models import complexity, shipped_graphs
from resnetd_cli.models.names import Kind, ResolvedModel
from resnetd_cli.models.network import Definition
from resnetd_cli.models.table import entries

ARCHITECTURES = [*dict.fromkeys(entry.architecture for entry in entries()), "tf_efficientnet_lite0"]
GRAPHS = ROOT / "resnetd_cli" / "models" / "graphs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """`scripts/make_graphs.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_graphs", ROOT / "scripts" / "make_graphs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_eight_networks_are_shipped_and_small(generator: ModuleType) -> None:
    assert shipped_graphs.architectures() == set(ARCHITECTURES) == set(generator.ARCHITECTURES)
    assert len(ARCHITECTURES) == 8
    for architecture in ARCHITECTURES:
        assert 1_000 < (GRAPHS / f"{architecture}.onnx.gz").stat().st_size < 15_000


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_those_of_timms_state_dict(architecture: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(architecture, num_classes=7)
    expected = {
        name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if tensor.is_floating_point()
    }
    shapes = shipped_graphs.read(architecture).shapes
    assert {name: tuple(side or 7 for side in shape) for name, shape in shapes.items()} == expected
    free = {name for name, shape in shapes.items() if None in shape}
    classifier = network.pretrained_cfg["classifier"]
    assert free == {f"{classifier}.weight", f"{classifier}.bias"}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet18d", "tf_efficientnet_lite0"])
def test_graph_is_what_the_script_makes(generator: ModuleType, architecture: str) -> None:
    assert gzip.decompress((GRAPHS / f"{architecture}.onnx.gz").read_bytes()) == generator.build(architecture)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["byte", "missing", "none"])
def test_check_names_graph_that_changed(
    generator: ModuleType,
    change: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generator, "ARCHITECTURES", ("resnet18d",))
    content = gzip.decompress((GRAPHS / "resnet18d.onnx.gz").read_bytes())
    if change == "byte":
        content = content.replace(b"Relu", b"Tanh", 1)
    if change != "missing":
        (tmp_path / "resnet18d.onnx.gz").write_bytes(gzip.compress(content, 1))  # compressed otherwise
    monkeypatch.setattr(generator, "GRAPHS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_graphs.py", "--check"])
    assert generator.main() == (0 if change == "none" else 1)
    words = (
        "" if change == "none" else "graphs/resnet18d.onnx.gz is not current: run python scripts/make_graphs.py\n"
    )
    assert capsys.readouterr().err == words


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "size"), [(name, 224) for name in ARCHITECTURES] + [("resnet18d", 96)])
def test_counts_are_those_of_torch(architecture: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"num_classes": 7, "input_size": (3, size, size)}
    ref = ResolvedModel(architecture, Kind.FOLDER, "")
    definition = Definition(ref, architecture, config)
    counted = complexity.count(definition)
    monkeypatch.setattr(shipped_graphs, "CONVOLUTION_MACS", {})
    assert counted == complexity.count(replace(definition, arguments={"num_classes": 7}))


def test_counts_of_an_odd_size_need_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"num_classes": 1000, "input_size": (3, 225, 225)}
    definition = Definition(ResolvedModel("mine", Kind.FOLDER, ""), "resnet18d", config)
    monkeypatch.setattr(complexity, "is_installed", lambda _: False)
    assert complexity.count(definition) == (11.71, None)
