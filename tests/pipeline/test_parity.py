"""Predictions on photographs equal timm's, computed by the plain recipe written out here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.hub import timm_files
from helpers.paths import ROOT
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import load_state_dict

from resnetd_cli.classifier import Classifier
from resnetd_cli.loading import load
from resnetd_cli.models import embedded
from resnetd_cli.pipeline.options import Runtime
from resnetd_cli.results import Classified

SAMPLES = ROOT / "samples"
PHOTOGRAPHS = tuple(sorted(str(path) for path in SAMPLES.glob("*.jpg")))
Top = tuple[list[int], list[float]]


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recipe(name: str, state_dict: dict[str, torch.Tensor], paths: tuple[str, ...]) -> list[Top]:
    """Classify with timm alone, as its documentation shows."""
    model = timm.create_model(name, pretrained=False)
    model.load_state_dict(state_dict)
    model.eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    answers = []
    for path in paths:
        pixels = transform(Image.open(path).convert("RGB")).unsqueeze(0)
        with torch.inference_mode():
            probability = model(pixels).softmax(dim=1)[0]
        top = probability.topk(5)
        answers.append((top.indices.tolist(), top.values.tolist()))
    return answers


def assert_same_answers(classifier: Classifier, expected: list[Top], paths: tuple[str, ...]) -> None:
    results = list(classifier.predict(paths))
    assert [result.input for result in results] == list(paths)
    for result, (index, probability) in zip(results, expected, strict=True):
        assert isinstance(result, Classified)
        assert [item.index for item in result.predictions] == index
        np.testing.assert_allclose([item.probability for item in result.predictions], probability, atol=1e-5)
        assert [item.label for item in result.predictions] == [
            classifier.class_names.names[number] for number in index
        ]


def turned(folder: Path) -> tuple[str, ...]:
    """The photographs upright, as portrait, as PNG, and small: shapes that take other paths through a resize."""
    with Image.open(PHOTOGRAPHS[0]) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "portrait.png")
        image.crop((0, 0, 300, 300)).save(folder / "square.jpg")
        image.resize((90, 40)).save(folder / "small.png")
        image.convert("L").save(folder / "grey.jpg")
    return tuple(str(folder / name) for name in ("portrait.png", "square.jpg", "small.png", "grey.jpg"))


def test_sample_photographs_exist() -> None:
    assert len(PHOTOGRAPHS) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("single", [True, False])
def test_embedded_model_equals_the_plain_recipe(single: bool, tmp_path: Path) -> None:
    state_dict = embedded.to_timm(load_state_dict(str(embedded.weights_file())))
    paths = PHOTOGRAPHS + turned(tmp_path)
    classifier = load("embedded", offline=True, runtime=Runtime(device="cpu", single=single))
    assert_same_answers(classifier, recipe("tf_efficientnet_lite0", state_dict, paths), paths)


@pytest.mark.slow
@pytest.mark.parametrize(("single", "batch_size"), [(True, 1), (False, 1), (False, 4)])
def test_resnet18d_equals_the_plain_recipe(
    single: bool, batch_size: int, resnet18d_files: dict[str, bytes], tmp_path: Path
) -> None:
    weights = tmp_path / "resnet18d.safetensors"
    weights.write_bytes(resnet18d_files["model.safetensors"])
    paths = PHOTOGRAPHS + turned(tmp_path)
    runtime = Runtime(device="cpu", single=single, batch_size=batch_size)
    classifier = load("resnet18d", weights=weights, offline=True, runtime=runtime)
    assert_same_answers(classifier, recipe("resnet18d", load_state_dict(str(weights)), paths), paths)


@pytest.mark.slow
def test_resnet50d_equals_the_plain_recipe(tmp_path: Path) -> None:
    weights = tmp_path / "resnet50d.safetensors"
    weights.write_bytes(timm_files("resnet50d.ra2_in1k")["model.safetensors"])
    paths = PHOTOGRAPHS + turned(tmp_path)
    classifier = load("resnet50d", weights=weights, offline=True, runtime=Runtime(device="cpu"))
    assert_same_answers(classifier, recipe("resnet50d", load_state_dict(str(weights)), paths), paths)


@pytest.mark.parametrize("model", ["resnet50d", "resnet101d", "resnet50d.ra4_e3600_r224_in1k", "embedded"])
@pytest.mark.parametrize("image_size", ["train", "test", "160"])
def test_preprocessing_equals_the_one_timm_resolves(model: str, image_size: str) -> None:
    from resnetd_cli.models.names import resolve
    from resnetd_cli.models.network import define

    ref = resolve(model)
    ours = define(ref).preprocessing(image_size)
    sized = {"img_size": 160} if image_size == "160" else {}
    config = timm.get_pretrained_cfg(ref.location).to_dict()
    theirs = resolve_data_config(sized, pretrained_cfg=config, use_test_size=image_size == "test")
    assert {key: getattr(ours, key) for key in theirs} == theirs
