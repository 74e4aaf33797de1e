"""The torch engine against plain timm."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from helpers.hub import timm_files
from torch import nn

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.engines.base import EngineOptions, Wanted
from resnetd_cli.pipeline.engines.pytorch import TorchEngine, choose_device

STAGES = {"act1": 64, "layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain(resnet18d_files: dict[str, bytes]) -> nn.Module:
    """A seeded resnet18d, as timm builds it."""
    network = timm.create_model("resnet18d", pretrained=False)
    network.load_state_dict(safetensors.torch.load(resnet18d_files["model.safetensors"]))
    return network.eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 96, 96)).astype(np.float32)


def engine_of(network: nn.Module, *, logits: bool = True, layer: str | None = None, **options: Any) -> TorchEngine:
    engine_options = EngineOptions(Wanted(logits, layer), **{"device": "cpu", **options})
    return TorchEngine(copy.deepcopy(network), engine_options)


def close(ours: np.ndarray | None, theirs: torch.Tensor) -> bool:
    assert ours is not None
    assert ours.dtype == np.float32
    assert ours.shape == tuple(theirs.shape)
    scale = float(theirs.abs().max())
    return bool(np.abs(ours - theirs.numpy()).max() <= 1e-5 * max(scale, 1.0))


@pytest.mark.slow
def test_logits_are_plain_timms(plain: nn.Module, images: np.ndarray) -> None:
    outputs = engine_of(plain).run(images)
    with torch.inference_mode():
        assert close(outputs.logits, plain(torch.from_numpy(images)))
    assert outputs.logits is not None
    assert outputs.logits.shape == (3, 1000)
    assert outputs.features is None


@pytest.mark.slow
def test_pooled_features_are_what_the_classifier_sees(plain: nn.Module, images: np.ndarray) -> None:
    outputs = engine_of(plain, layer="pooled", logits=False).run(images)
    with torch.inference_mode():
        maps = plain.forward_features(torch.from_numpy(images))
        expected = plain.forward_head(maps, pre_logits=True)
        assert close(outputs.features, expected)
        assert close(outputs.features, maps.mean(dim=(2, 3)))
        # and what the classifier makes of them are the logits
        logits = plain.fc(torch.from_numpy(outputs.features))
        assert close(logits.numpy(), plain(torch.from_numpy(images)))
    assert expected.shape == (3, 512)
    assert outputs.logits is None


@pytest.mark.slow
def test_logits_may_be_the_features(plain: nn.Module, images: np.ndarray) -> None:
    outputs = engine_of(plain, layer="logits", logits=False).run(images)
    with torch.inference_mode():
        assert close(outputs.features, plain(torch.from_numpy(images)))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "channels"), STAGES.items())
def test_stage_gives_the_mean_of_its_maps(plain: nn.Module, images: np.ndarray, stage: str, channels: int) -> None:
    maps: list[torch.Tensor] = []
    hook = plain.get_submodule(stage).register_forward_hook(lambda *call: maps.append(call[-1].clone()))
    with torch.inference_mode():
        plain(torch.from_numpy(images))
    hook.remove()
    outputs = engine_of(plain, layer=stage, logits=False).run(images)
    assert close(outputs.features, maps[0].mean(dim=(2, 3)))
    assert outputs.features is not None
    assert outputs.features.shape == (3, channels)
    assert outputs.logits is None


@pytest.mark.slow
def test_last_stage_s_mean_is_the_pooled_features(plain: nn.Module, images: np.ndarray) -> None:
    last = engine_of(plain, layer="layer4").run(images).features
    pooled = engine_of(plain, layer="pooled").run(images).features
    assert last is not None
    assert pooled is not None
    np.testing.assert_allclose(last, pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["pooled", "logits", *STAGES])
def test_one_pass_gives_the_same_as_two(plain: nn.Module, images: np.ndarray, layer: str) -> None:
    both = engine_of(plain, layer=layer).run(images)
    logits = engine_of(plain).run(images).logits
    features = engine_of(plain, layer=layer, logits=False).run(images).features
    np.testing.assert_allclose(both.logits, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(both.features, features, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_image_s_answer_does_not_depend_on_its_batch(plain: nn.Module, images: np.ndarray) -> None:
    engine = engine_of(plain, layer="pooled")
    together = engine.run(images)
    for number in range(len(images)):
        alone = engine.run(images[number : number + 1])
        np.testing.assert_allclose(alone.logits[0], together.logits[number], rtol=1e-5, atol=1e-5)  # type: ignore[index]
        np.testing.assert_allclose(alone.features[0], together.features[number], rtol=1e-5, atol=1e-5)  # type: ignore[index]


@pytest.mark.slow
def test_threads_may_call_it_at_once(plain: nn.Module, images: np.ndarray) -> None:
    engine = engine_of(plain, layer="pooled", threads=1)
    one_by_one = [engine.run(images[[number]]) for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(lambda number: engine.run(images[[number % 3]]), range(12)))
    for number, outputs in enumerate(at_once):
        assert np.array_equal(outputs.logits, one_by_one[number % 3].logits)  # type: ignore[arg-type]
        assert np.array_equal(outputs.features, one_by_one[number % 3].features)  # type: ignore[arg-type]


@pytest.mark.slow
def test_images_are_left_as_they_were(plain: nn.Module, images: np.ndarray) -> None:
    before = images.copy()
    engine_of(plain).run(images)
    assert np.array_equal(images, before)


@pytest.mark.slow
def test_threads_of_a_call_are_bounded(plain: nn.Module) -> None:
    torch.set_num_threads(2)
    engine_of(plain, threads=1)
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_classes_are_counted(plain: nn.Module) -> None:
    assert engine_of(plain).classes == 1000
    assert engine_of(timm.create_model("test_resnet", num_classes=7).eval()).classes == 7


def test_network_without_a_classifier_gives_features_only() -> None:
    network = timm.create_model("test_resnet", num_classes=0).eval()
    engine = engine_of(network, logits=False, layer="pooled")
    image = np.ones((1, 3, 64, 64), np.float32)
    assert engine.classes == 0
    with torch.inference_mode():
        assert close(engine.run(image).features, network(torch.from_numpy(image)))


@pytest.mark.slow
def test_resnet50d_has_2048_pooled_features(images: np.ndarray) -> None:
    network = timm.create_model("resnet50d", pretrained=False)
    network.load_state_dict(safetensors.torch.load(timm_files("resnet50d.ra2_in1k")["model.safetensors"]))
    outputs = engine_of(network.eval(), layer="pooled").run(images)
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(torch.from_numpy(images)), pre_logits=True)
        assert close(outputs.features, expected)
    assert expected.shape == (3, 2048)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "test_nfnet", "test_maxvit"]
)
def test_other_families_give_every_stage_they_name(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=7).eval()
    image = np.random.default_rng(1).normal(size=(2, *network.pretrained_cfg["input_size"])).astype(np.float32)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image))
    for stage in network.feature_info:
        outputs = engine_of(network, layer=stage["module"]).run(image)
        assert outputs.features is not None
        assert outputs.features.shape == (2, stage["num_chs"])
        assert close(outputs.logits, logits)


# --- what is not there ---


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layer5", "layer", "fc", "LAYER4", "", "conv1", "pooled "])
def test_unknown_layer_is_refused_with_those_there_are(plain: nn.Module, layer: str) -> None:
    with pytest.raises(UsageError, match=f"no layer called {layer!r}") as caught:
        engine_of(plain, layer=layer)
    assert hint_of(caught.value) == "available: pooled, logits, act1, layer1, layer2, layer3, layer4"


@pytest.mark.parametrize("device", ["tpu", "xla", "meta", "gpu", "", "cuda:x", "cpu:0:0", "vulkan"])
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=f"no device called {device!r}") as caught:
        choose_device(device)
    assert hint_of(caught.value) == "auto, cpu, cuda, cuda:N or mps"


def test_device_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "cuda:0", "mps"):
        with pytest.raises(UsageError, match="not on this machine") as caught:
            choose_device(device)
        assert hint_of(caught.value) == "available: cpu"
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


def test_gpu_that_is_one_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("auto") == torch.device("cuda")
    with pytest.raises(UsageError, match="not on this machine"):
        choose_device("cuda:2")


def test_auto_takes_mps_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
