"""The ResNet-D table compared with timm, and resolving a MODEL."""

from __future__ import annotations

import re
import shutil
from functools import lru_cache
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import UnknownModel
from resnetd_cli.models import names
from resnetd_cli.models.names import (
    DEFAULT_MODEL,
    Kind,
    ModelRef,
    ResolvedModel,
    matches,
    resolve,
    timm_names,
)
from resnetd_cli.models.table import TableEntry, entries, find_entry

ARCHITECTURES = tuple(f"resnet{depth}d" for depth in (18, 26, 34, 50, 101, 152, 200))
every_card = pytest.mark.parametrize("card", entries(), ids=lambda card: card.name)


# --- the table ---


def test_table_has_all_timm_weights_of_the_seven_models() -> None:
    of_timm = [name for name in timm.list_pretrained() if name.partition(".")[0] in ARCHITECTURES]
    assert len(of_timm) == 15
    assert sorted(card.name for card in entries()) == sorted(of_timm)
    assert {card.architecture for card in entries()} == set(ARCHITECTURES)


def test_default_weights_are_timm_defaults() -> None:
    defaults = {card.architecture: card.name for card in entries() if card.default}
    assert defaults == {
        name: f"{name}.{timm.get_pretrained_cfg(name, allow_unregistered=False).tag}" for name in ARCHITECTURES
    }
    assert sum(card.default for card in entries()) == 7


@every_card
def test_table_row_equals_timm_configuration(card: TableEntry) -> None:
    config = timm.get_pretrained_cfg(card.name)
    test_size = config.test_input_size or config.input_size
    test_crop = (config.test_crop_pct or config.crop_pct) if config.test_input_size else config.crop_pct
    assert (3, card.train.size, card.train.size) == config.input_size
    assert card.train.preprocessing.crop_pct == config.crop_pct
    assert (3, card.test.size, card.test.size) == test_size
    assert card.test.preprocessing.crop_pct == test_crop
    assert card.train.preprocessing.mean == config.mean
    assert card.train.preprocessing.std == config.std
    assert card.train.preprocessing.interpolation == config.interpolation
    assert card.license == config.license
    # timm writes `timm/` for "the repository of this very name".
    assert card.hub_id == config.hf_hub_id or (config.hf_hub_id == "timm/" and card.hub_id == f"timm/{card.name}")


@lru_cache
def on_meta(architecture: str) -> nn.Module:
    """Build a network without memory for its weights."""
    with torch.device("meta"):
        return timm.create_model(architecture).eval()


@lru_cache
def gmacs(architecture: str, size: int) -> float:
    """Count the multiply-adds per image, in billions: torch counts each as two operations."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        on_meta(architecture)(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2 / 1e9


@pytest.mark.slow
@every_card
def test_table_parameters_equal_the_network(card: TableEntry) -> None:
    count = sum(parameter.numel() for parameter in on_meta(card.architecture).parameters())
    assert card.params_m == pytest.approx(count / 1e6, abs=0.005)


@pytest.mark.slow
@every_card
def test_table_multiply_adds_equal_the_network_at_both_sizes(card: TableEntry) -> None:
    assert card.train.gmacs == pytest.approx(gmacs(card.architecture, card.train.size), rel=0.02)
    assert card.test.gmacs == pytest.approx(gmacs(card.architecture, card.test.size), rel=0.02)


@every_card
def test_accuracies_are_plausible_percentages(card: TableEntry) -> None:
    assert 70 < card.train.top1 < card.train.top5 < 97
    assert card.train.top1 <= card.test.top1 < card.test.top5 < 97
    if card.train.size == card.test.size:
        assert (card.train.top1, card.train.top5) == (card.test.top1, card.test.top5)


def test_card_is_found_by_full_name_or_default_architecture() -> None:
    for card in entries():
        assert find_entry(card.name) is card
    found = find_entry("resnet50d")
    assert found is not None
    assert found.name == "resnet50d.ra2_in1k"
    for name in ("resnet50", "resnet50d.", "resnet50d.ra2", "RESNET50D", "", "resnest50d"):
        assert find_entry(name) is None


# --- resolve ---


def test_default_model_is_in_the_table() -> None:
    assert resolve(DEFAULT_MODEL) == ResolvedModel("resnet50d.ra2_in1k", Kind.TIMM, "resnet50d.ra2_in1k")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("resnet18d", "resnet18d.ra2_in1k"),
        ("resnet50d.gluon_in1k", "resnet50d.gluon_in1k"),
        ("resnet18", "resnet18.a1_in1k"),
        ("resnet18.tv_in1k", "resnet18.tv_in1k"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"),
    ],
)
def test_timm_name_gets_the_tag_of_its_weights(model: str, name: str) -> None:
    assert resolve(model) == ResolvedModel(name, Kind.TIMM, name)


def test_timm_name_without_weights_resolves() -> None:
    trained = {name.partition(".")[0] for name in timm.list_pretrained()}
    model = next(name for name in timm.list_models() if name not in trained)
    ref = resolve(model)
    assert (ref.kind, ref.location.partition(".")[0]) == (Kind.TIMM, model)
    assert timm.get_pretrained_cfg(ref.location) == timm.get_pretrained_cfg(model)


def test_embedded_resolves_to_installed_network() -> None:
    assert resolve("embedded") == ResolvedModel("embedded", Kind.EMBEDDED, "tf_efficientnet_lite0.in1k")


def test_resnet_d_names_resolve_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetd_cli.models.names._timm", lambda name: pytest.fail(f"timm was asked about {name}"))
    full_names = [entry.name for entry in entries()]
    for model in ("embedded", "hf-hub:timm/resnet50d.ra2_in1k", *full_names, *ARCHITECTURES):
        resolve(model)


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
@pytest.mark.parametrize("location", ["owner/name", "timm/resnet50d.ra2_in1k", "owner/name@v1.0", "o/n@abc123"])
def test_hub_repository_resolves_with_its_owner(prefix: str, location: str) -> None:
    assert resolve(prefix + location) == ResolvedModel(f"hf-hub:{location}", Kind.HUB, location)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "name",
        "/",
        "/name",
        "owner/",
        "owner/name/file",
        "../name",
        "owner/..",
        "../../etc/passwd",
        "@v1",
        "owner/name@../../../secrets",
        "https://host/owner/name",
        "ow ner/name",
        "owner\\..\\x/name",
        "owner/name?x=1",
        "owner/name#x",
        "ö/name",
        "-owner/name",
        "owner/na--me",
        "owner/name.",
        "owner/name.git",
    ],
)
def test_malformed_hub_repository_is_an_error(location: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve(f"hf-hub:{location}")
    assert "hf-hub:OWNER/NAME" in (hint_of(caught.value) or "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder `runs/mine` under the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.json").write_text("{}")
    return tmp_path / "runs" / "mine"


def test_model_folder_resolves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("runs/mine", "./runs/mine", "runs/mine/", str(folder), "local-dir:runs/mine"):
        ref = resolve(text)
        assert ref.kind is Kind.FOLDER
        assert Path(ref.location).resolve() == folder
        assert ref.name == text.removeprefix("local-dir:")
    monkeypatch.chdir(folder.parent)
    assert resolve("mine") == ResolvedModel("mine", Kind.FOLDER, "mine")
    assert resolve(".." + "/runs/mine").kind is Kind.FOLDER


def test_folder_under_home_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert Path(resolve("~/mine").location) == folder


def test_model_name_wins_over_folder_with_that_name(folder: Path) -> None:
    for name in ("resnet18d", "resnet18", "embedded"):
        (folder.parent.parent / name).mkdir()
        assert resolve(name).kind is not Kind.FOLDER
        with pytest.raises(UnknownModel, match=r"config\.json"):
            resolve(f"./{name}")


@pytest.mark.parametrize("name", ["mine", "my-run", "Run_3", "2026"])
def test_folder_that_timm_cannot_know_resolves_without_timm(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnetd_cli.models.names._timm", lambda _: pytest.fail("timm was asked"))
    assert resolve(name) == ResolvedModel(name, Kind.FOLDER, name)


@pytest.mark.slow
def test_source_code_of_timm_tells_its_names() -> None:
    deprecated = [name.partition(".")[0] for name in timm.models.get_deprecated_models()]
    for name in (
        *timm.list_models()[::7],
        *deprecated,
        "resnet50d.ra2_in1k",
        "vit_base_patch16_224.augreg_in21k",
    ):
        assert names._may_be_timms(name), name
    assert not names._may_be_timms("no_such_network")


@pytest.mark.parametrize("model", ["../../etc/passwd", "/gone/model", "./gone", "~/gone-model", "local-dir:gone"])
def test_missing_folder_is_an_error(model: str, folder: Path) -> None:
    with pytest.raises(UnknownModel, match="no model folder"):
        resolve(model)


def test_folder_without_a_configuration_is_no_model(folder: Path) -> None:
    with pytest.raises(UnknownModel, match=r"has no config\.json"):
        resolve("runs/")


def test_hub_name_without_prefix_gets_hint_with_it(folder: Path) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve("google/vit-base-patch16-224")
    assert "hf-hub:google/vit-base-patch16-224" in (hint_of(caught.value) or "")


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("resnet50_d", "resnet50d"),
        ("resnet-50d", "resnet50d"),
        ("RESNET50D", "resnet50d"),
        ("resnet50d.gluon", "resnet50d.gluon_in1k"),
        ("embeded", "embedded"),
        ("efficientnetb0", "efficientnet_b0"),
    ],
)
def test_misspelt_name_gets_similar_names(model: str, near: str) -> None:
    with pytest.raises(UnknownModel, match="unknown model") as caught:
        resolve(model)
    names = (hint_of(caught.value) or "").removeprefix("similar names: ").split(", ")
    assert near in names


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gluon_resnet50_v1d", "resnet50d.gluon_in1k"),
        ("swsl_resnet50", "resnet50.fb_swsl_ig1b_ft_in1k"),
        ("tf_efficientnet_b0_ns", "tf_efficientnet_b0.ns_jft_in1k"),
        ("vit_base_patch16_224_in21k", "vit_base_patch16_224.augreg_in21k"),
        ("resnetv2_50x1_bitm", "resnetv2_50x1_bit.goog_in21k_ft_in1k"),
        ("ig_resnext101_32x8d", "resnext101_32x8d.fb_wsl_ig1b_ft_in1k"),
        ("efficientnet_b2a", "efficientnet_b2.ra_in1k"),
        # timm's own table maps these to weights for another size or other classes.
        ("ig_resnext101_32x16d", "resnext101_32x16d.fb_wsl_ig1b_ft_in1k"),
        ("ig_resnext101_32x32d", "resnext101_32x32d.fb_wsl_ig1b_ft_in1k"),
        ("mixer_b16_224_in21k", "mixer_b16_224.goog_in21k"),
        ("resmlp_12_224_dino", "resmlp_12_224.fb_dino"),
    ],
)
def test_deprecated_timm_name_resolves_to_current_one(model: str, name: str) -> None:
    assert resolve(model) == ResolvedModel(name, Kind.TIMM, name, former=model)


@pytest.mark.slow
def test_deprecated_name_never_resolves_to_other_weights() -> None:
    for former in timm.models.get_deprecated_models():
        try:
            ref = resolve(former)
        except UnknownModel:
            assert former in ("ig_resnext101_32x48d", "vit_base_patch16_224_sam", "vit_base_patch32_224_sam")
        else:
            assert ref.former == former
            assert timm.is_model_pretrained(ref.name)
            sizes = re.findall(r"[0-9]+x[0-9]+d", former)
            assert all(size in ref.name for size in sizes)
            assert ("in21k" in former and "ft" not in former) <= ("in1k" not in ref.name)


@pytest.mark.parametrize("model", ["timm/resnet50d.ra2_in1k", "timm/resnet50d"])
def test_timm_repository_resolves_to_timm_model(model: str, folder: Path) -> None:
    assert resolve(model) == ResolvedModel("resnet50d.ra2_in1k", Kind.TIMM, "resnet50d.ra2_in1k")


def test_folder_called_timm_wins_over_timm_repositories(folder: Path) -> None:
    (folder.parent.parent / "timm" / "resnet50d").mkdir(parents=True)
    (folder.parent.parent / "timm" / "resnet50d" / "config.json").write_text("{}")
    assert resolve("timm/resnet50d").kind is Kind.FOLDER


@pytest.mark.parametrize(
    ("page", "location"),
    [
        ("https://huggingface.co/timm/resnet50d.ra2_in1k", "timm/resnet50d.ra2_in1k"),
        ("https://huggingface.co/timm/resnet50d.ra2_in1k/", "timm/resnet50d.ra2_in1k"),
        ("https://huggingface.co/o/n/tree/main", "o/n"),
        ("https://hf.co/o/n/blob/v1.0/config.json", "o/n@v1.0"),
        ("https://huggingface.co/o/n/resolve/abc123/model.safetensors", "o/n@abc123"),
    ],
)
def test_hub_page_resolves_to_its_repository(page: str, location: str) -> None:
    assert resolve(page) == ResolvedModel(f"hf-hub:{location}", Kind.HUB, location)


@pytest.mark.parametrize(
    "url", ["https://example.org/w.pth", "s3://b/w.pth", "https://huggingface.co/datasets/o/n"]
)
def test_other_url_is_an_error(url: str) -> None:
    with pytest.raises(UnknownModel, match="is a URL") as caught:
        resolve(url)
    assert "--weights" in (hint_of(caught.value) or "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tool"),
    [
        ("yolo11n-cls.pt", "Ultralytics"),
        ("yolov8n-cls", "Ultralytics"),
        ("ViT-B/32", "CLIP"),
        ("ViT-B-32", "CLIP"),
        ("RN50x4", "CLIP"),
        ("EfficientNetB0", "Keras"),
        ("ResNet50V2", "Keras"),
        ("mobilenet_v2", "torchvision"),
        ("vit_b_16", "torchvision"),
        ("ResNet50_Weights.IMAGENET1K_V2", "torchvision"),
        ("resnet50_8xb32_in1k", "mmpretrain"),
        ("dinov2_vits14", "DINO"),
        ("best.h5", "Keras"),
        ("out/model.keras", "Keras"),
        ("model.tflite", "TensorFlow Lite"),
        ("model.engine", "TensorRT"),
        ("./model.gguf", "GGUF"),
        ("model.mlmodel", "Core ML"),
        ("model.xml", "OpenVINO"),
        ("export.pkl", "fastai"),
    ],
)
def test_model_of_another_library_is_error_that_names_library(model: str, tool: str, folder: Path) -> None:
    with pytest.raises(UnknownModel, match=tool) as caught:
        resolve(model)
    assert hint_of(caught.value)


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("vit_b_16", "vit_base_patch16_224"),
        ("EfficientNetB0", "efficientnet_b0"),
    ],
)
def test_model_of_another_library_gets_hint_with_timm_name(model: str, near: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve(model)
    assert (hint_of(caught.value) or "").startswith(f"similar names: {near}")


@pytest.mark.parametrize("model", ["ResNet50-D", "ResNet-50d", "ResNet_50D", "RESNET50D", "Resnet 50 d"])
def test_other_spelling_of_name_is_the_first_similar_one(model: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve(model)
    assert (hint_of(caught.value) or "").startswith("similar names: resnet50d,")


# --- weights files, and folders that are not models ---


@pytest.mark.parametrize(
    "name", ["best.pth", "./best.pth", "runs/best.ckpt", "w.safetensors", "a/b.bin", "w.pth.tar"]
)
def test_weights_file_as_model_gets_hint_with_option(name: str, folder: Path) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(b"weights")
    with pytest.raises(UnknownModel, match="is a weights file, not a model") as caught:
        resolve(name)
    assert f"--weights {name}" in (hint_of(caught.value) or "")


@pytest.mark.parametrize("name", ["config.json", "notes.txt"])
def test_other_file_in_model_folder_gets_hint_with_folder(name: str, folder: Path) -> None:
    (folder / "notes.txt").touch()
    with pytest.raises(UnknownModel, match=f"{name} is a file, not a model$") as caught:
        resolve(str(folder / name))
    assert hint_of(caught.value) == f"name its folder as the model: {folder}"


def test_missing_weights_file_is_an_error(folder: Path) -> None:
    with pytest.raises(UnknownModel, match=r"no file best\.pth") as caught:
        resolve("best.pth")
    assert "--weights" in (hint_of(caught.value) or "")


@pytest.mark.parametrize("name", ["model.safetensors", "resnet50d_ra2-464e36ba.pth", "checkpoints/last.pth"])
def test_weights_file_in_model_folder_resolves(name: str, folder: Path) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"weights")
    text = f"runs/mine/{name}"
    assert resolve(text) == ResolvedModel(text, Kind.FOLDER, "runs/mine", file=Path(text))
    assert ModelRef(text).folder == folder
    assert ModelRef(text).path == file


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        (["w.pth"], "has no config.json", "--weights runs/x/w.pth"),
        (["out/config.json", "README.md"], "has no config.json", "runs/x/out has one"),
        (["checkpoint-500/config.json"], "has no config.json", "runs/x/checkpoint-500 has one"),
        (["saved_model.pb"], "holds a model of TensorFlow", "timm's models"),
        (["open_clip_config.json", "open_clip_model.safetensors"], "holds a model of open_clip", "timm's models"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter", "timm's models"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_folder_without_configuration_gets_hint_to_nearby_model(
    files: list[str], message: str, hint: str, folder: Path
) -> None:
    for name in files:
        file = folder.parent / "x" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    with pytest.raises(UnknownModel, match=message) as caught:
        resolve("runs/x")
    assert hint in (hint_of(caught.value) or "")


def test_repository_folder_in_hub_cache_resolves_to_main_snapshot(folder: Path) -> None:
    repo = folder.parent / "models--timm--resnet50d.ra2_in1k"
    for sha in ("aaa", "bbb"):
        (repo / "snapshots" / sha).mkdir(parents=True)
        (repo / "snapshots" / sha / "config.json").write_text("{}")
    with pytest.raises(UnknownModel) as caught:
        resolve(str(repo))
    assert "hf-hub:timm/resnet50d.ra2_in1k" in (hint_of(caught.value) or "")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("bbb")
    assert resolve(str(repo)) == ResolvedModel(str(repo), Kind.FOLDER, str(repo / "snapshots" / "bbb"))
    (repo / "snapshots" / "bbb" / "config.json").unlink()
    with pytest.raises(UnknownModel) as caught:
        resolve(str(repo / "snapshots" / "bbb"))
    assert "hf-hub:timm/resnet50d.ra2_in1k" in (hint_of(caught.value) or "")


@pytest.mark.parametrize("model", ["resnet50d.no_such_tag", "resnet18.ra2_in1k"])
def test_unknown_tag_is_an_error(model: str) -> None:
    with pytest.raises(UnknownModel):
        resolve(model)


@pytest.mark.parametrize("model", ["qqqqqqqq", "", "a\0b", "x" * 300, "/" + "x" * 300, "*"], ids=ascii)
def test_nonsense_is_an_error_with_hint(model: str, folder: Path) -> None:
    (folder.parent.parent / "config.json").write_text("{}")  # an empty name must not resolve to it
    with pytest.raises(UnknownModel) as caught:
        resolve(model)
    assert hint_of(caught.value)


# --- lists ---


def test_every_timm_model_is_listed_once() -> None:
    names = timm_names()
    assert names == sorted(set(names))
    assert set(timm.list_pretrained()) <= set(names)
    assert {name.partition(".")[0] for name in names} >= set(timm.list_models())


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [("resnet50d", True), ("resnet50d.*", True), ("*50d*", True), ("gluon", True), ("resnet101d", False)],
)
def test_pattern_matches_as_glob_or_part_of_name(pattern: str, fits: bool) -> None:
    assert matches("resnet50d.gluon_in1k", pattern) is fits
