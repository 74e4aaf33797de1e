"""First uses of the ResNet-D networks and of the embedded model: neither torch nor timm, and timm's answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hub import Hub, timm_files
from helpers.loaders import loader_for
from helpers.paths import ROOT
from helpers.program import Resnetd

from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import BundleKey
from resnetd_cli.errors import ModelError, WeightsError
from resnetd_cli.models import shipped_graphs
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.table import entries
from resnetd_cli.results import Classified

pytestmark = pytest.mark.slow

IMAGES = [str(ROOT / "samples" / name) for name in ("cat.jpg", "coffee.jpg")]
ARCHITECTURES = list(dict.fromkeys(entry.architecture for entry in entries()))
HEAVY = ("torch", "timm", "torchvision", "onnx", "safetensors.torch")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def forbid_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it an error to build a network with timm."""
    monkeypatch.setattr("resnetd_cli.loading.load_network", lambda *_: pytest.fail("timm was asked"))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "embedded"])
def test_answers_are_timms_at_any_size(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = None
    if name != "embedded":
        weights = tmp_path / "w.safetensors"
        weights.write_bytes(timm_files(name, seed=3)["model.safetensors"])
    is_deep = name in ("resnet101d", "resnet152d", "resnet200d")
    for size in (96, 128, 161) if is_deep else ("train", 160, 201):
        options: dict[str, Any] = {"weights": weights, "image_size": size, "layer": "pooled"}
        by_timm = loader_for(name, engine="torch", device="cpu", **options).load()
        with monkeypatch.context() as patch:
            forbid_torch(patch)
            first = loader_for(name, engine="auto", device="cpu", **options).load()
            later = loader_for(name, engine="auto", device="cpu", **options).load()
        expected = [
            result for result in by_timm.predict(IMAGES, embeddings=True) if isinstance(result, Classified)
        ]
        for classifier in (first, later):
            assert (classifier.engine.name, classifier.why) == ("onnx", "it is compiled")
            results = list(classifier.predict(IMAGES, embeddings=True))
            for result, wanted in zip(results, expected, strict=True):
                assert isinstance(result, Classified)
                assert [item.index for item in result.predictions] == [item.index for item in wanted.predictions]
                given = [item.probability for item in result.predictions]
                assert np.allclose(given, [item.probability for item in wanted.predictions], rtol=0, atol=1e-5)
                assert result.embedding is not None
                assert wanted.embedding is not None
                scale = np.abs(wanted.embedding).max()
                assert np.abs(result.embedding - wanted.embedding).max() <= 1e-5 * scale
        for one, other in zip(first.probabilities(IMAGES), later.probabilities(IMAGES), strict=True):
            assert np.array_equal(one, other)  # type: ignore[arg-type]
    timm_files.cache_clear()


@pytest.mark.parametrize("size", [16, 17, 31, 33, 49])
@pytest.mark.parametrize("name", ["resnet18d", "resnet26d", "embedded"])
def test_small_images_are_answered_as_timm_does(name: str, size: int, cache: Path, tmp_path: Path) -> None:
    weights = None
    if name != "embedded":
        weights = tmp_path / "w.safetensors"
        weights.write_bytes(timm_files(name, seed=3)["model.safetensors"])
    classifiers = [
        loader_for(name, weights=weights, image_size=size, engine=engine, device="cpu").load()
        for engine in ("torch", "auto")
    ]
    by_timm, ours = (np.stack(list(classifier.probabilities(IMAGES))) for classifier in classifiers)  # type: ignore[arg-type]
    assert np.allclose(ours, by_timm, rtol=0, atol=1e-5)


CHILD = """
import json, sys
from resnetd_cli.cli.app import run
code = run(sys.argv[2:])
heavy = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
print(code, *heavy, file=sys.stderr)
"""


def run_child(*words: object, cwd: Path = ROOT, **env: str) -> tuple[str, str]:
    """Run a command line in a new process; return its output, its exit code and the heavy modules it imported."""
    finished = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(HEAVY), *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "RESNETD_ENGINE": "auto", "PYTHONPATH": str(ROOT), **env},
    )
    return finished.stdout, finished.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resnet18d with two classes."""
    path = tmp_path_factory.mktemp("models") / "model"
    path.mkdir()
    for name, content in timm_files("resnet18d.ra2_in1k", num_classes=2, label_names=("cup", "cat")).items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, source in (("cup", IMAGES[1]), ("cat", IMAGES[0])):
        (tmp_path / "photos" / name).mkdir(parents=True)
        shutil.copy(source, tmp_path / "photos" / name)
    return tmp_path / "photos"


WORDS: dict[str, list[str]] = {
    "embedded": ["predict", *IMAGES, "-m", "embedded", "-k1"],
    "one image": ["predict", IMAGES[0], "-m", "embedded", "-k1"],
    "features": ["features", *IMAGES, "-m", "embedded", "-o", "NPY"],
    "folder": ["predict", IMAGES[0], "-m", "FOLDER", "-k1"],
    "size": ["predict", IMAGES[0], "-m", "FOLDER", "-k1", "--image-size", "96"],
    "safetensors": ["predict", IMAGES[0], "-m", "resnet18d", "--weights", "FOLDER/model.safetensors", "-k1"],
    "pth": ["predict", IMAGES[0], "-m", "resnet18d", "--weights", "PTH", "-k1"],
    "evaluate": ["evaluate", "PHOTOS", "-m", "FOLDER"],
    "pull": ["pull", "FOLDER"],
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_first_use_imports_neither_torch_nor_timm(
    words: list[str], folder: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    if "PTH" in words:
        torch.save({"state_dict": load_file(folder / "model.safetensors")}, tmp_path / "w.pth")
    places = {
        "FOLDER": str(folder),
        "PTH": str(tmp_path / "w.pth"),
        "PHOTOS": str(photos),
        "NPY": str(tmp_path / "x.npy"),
    }
    for place, path in places.items():
        words = [word.replace(place, path) for word in words]
    output, ended = run_child(*words)
    assert ended == "0"
    assert output or np.load(tmp_path / "x.npy").shape == (2, 1280)
    assert len(list(cache.glob("bundles/*/optimised-*.sha256"))) == 1


@pytest.mark.parametrize("model", ["resnet18d", "hf-hub:someone/model"])
def test_first_use_of_hub_model_imports_neither_torch_nor_timm(
    model: str, hub: Hub, folder: Path, run_resnetd: Resnetd
) -> None:
    hub.add("someone/model", {path.name: path.read_bytes() for path in folder.iterdir()})
    env = run_resnetd.env(endpoint=hub.endpoint, RESNETD_ENGINE="auto")
    output, ended = run_child("predict", IMAGES[0], "-m", model, "-k1", **env)
    assert ended == "0"
    assert IMAGES[0] in output


def test_first_use_of_folder_in_current_one_imports_neither_torch_nor_timm(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").symlink_to(folder)
    output, ended = run_child("predict", IMAGES[0], "-m", "mine", "-k1", cwd=tmp_path)
    assert ended == "0"
    assert IMAGES[0] in output


def test_first_use_without_cache_imports_no_torch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("predict", IMAGES[0], "-m", folder, "-k1")
    output, ended = run_child(*words, RESNETD_CACHE=str(tmp_path / "file"))
    assert ended == "0"
    assert IMAGES[0] in output


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_weights_that_change_in_place_do_not_change_answers_of_a_run(
    kept: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / ("cache" if kept else "file")))
    path = Path(shutil.copy(folder / "model.safetensors", tmp_path / "w.safetensors"))
    classifier = loader_for("resnet18d", weights=path, engine="auto", device="cpu").load()
    before = list(classifier.predict(IMAGES))
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert list(classifier.predict(IMAGES)) == before
    assert isinstance(before[0], Classified)


def test_compiled_form_says_where_it_comes_from(folder: Path, cache: Path) -> None:
    bundle = loader_for(str(folder), engine="auto").compile()
    assert bundle == bundles.find(BundleKey(ModelChoice.of(str(folder))))
    assert bundle.card.any_size
    assert bundle.card.class_names.names == ("cup", "cat")
    assert {Path(path).name for path in bundle.sources} == {"config.json", "model.safetensors"}
    assert bundle.card.origin.weights_sha256 == bundle.sources[str(folder / "model.safetensors")].sha256
    assert sorted(path.suffix for path in bundle.folder.iterdir()) == [
        ".bin",
        ".json",
        ".onnx",
        ".onnx",
        ".sha256",
    ]


def test_compiled_form_is_complete_onnx_file(folder: Path, cache: Path) -> None:
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import load_file

    model = onnx.load(loader_for(str(folder), engine="auto").compile().graph)
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in model.graph.input] == ["images"]
    assert [item.name for item in model.graph.output] == ["logits", "features", "feature_map"]
    tensors = load_file(folder / "model.safetensors")
    for tensor in model.graph.initializer:
        assert np.array_equal(numpy_helper.to_array(tensor), tensors[tensor.name])
    assert len(model.graph.initializer) == len(shipped_graphs.read("resnet18d").shapes)


def broken(tensors: dict[str, Any], change: str) -> dict[str, Any]:
    import torch

    if change == "missing":
        del tensors["layer1.0.conv1.weight"]
    elif change == "unexpected":
        tensors["layer9.weight"] = torch.ones(3, 3)
    elif change == "shape":
        tensors["conv1.0.weight"] = torch.ones(32, 1, 3, 3)
    else:
        tensors["layer1.0.conv1.weight"] = tensors["layer1.0.conv1.weight"].to(torch.int8)
    return tensors


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "dtype"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_do_not_fit_give_the_same_error_as_on_torch(
    change: str, suffix: str, folder: Path, cache: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = tmp_path / f"w.{suffix}"
    write: Callable[..., Any] = save_file if suffix == "safetensors" else torch.save
    write(broken(load_file(folder / "model.safetensors"), change), path)
    messages = []
    for engine in ("torch", "auto"):
        with pytest.raises(WeightsError, match="fit") as caught:
            loader_for("resnet18d", weights=path, engine=engine, device="cpu").load()
        messages.append((caught.value.message, caught.value.hint))
    assert messages[0] == messages[1]
    assert not list(cache.glob("bundles/*"))


def test_lack_of_memory_is_one_line_error(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr("onnxruntime.InferenceSession", fail)
    with pytest.raises(ModelError, match="there is not enough memory to load the model"):
        loader_for(str(folder), engine="auto").load()
    assert not list(cache.glob("bundles/*"))
