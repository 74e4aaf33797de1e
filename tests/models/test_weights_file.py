"""Weights from users: valid, foreign, broken and malicious files and folders."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from helpers.hub import timm_files
from helpers.loaders import loader_for
from PIL import Image

from resnetd_cli import about
from resnetd_cli.classifier import Classifier
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.compiled import build
from resnetd_cli.compiled.bundles import BundleKey
from resnetd_cli.errors import LabelsError, ModelError, ResnetdError, UnknownModel, WeightsError
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.preprocess import preprocess

TINY = "test_resnet"  # timm's tiny residual network for tests: files look alike for all sizes
NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibex", "jay")


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def thousand() -> dict[str, bytes]:
    """The tiny network with a thousand classes, as saved by timm."""
    return timm_files(f"{TINY}.r160_in1k", seed=1)


@pytest.fixture(scope="module")
def ten() -> dict[str, bytes]:
    """The tiny network with ten classes, as saved by timm."""
    return timm_files(f"{TINY}.r160_in1k", seed=1, num_classes=10)


def state_dict(files: dict[str, bytes]) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(files["model.safetensors"])


def load_offline(model: str, **options: Any) -> Classifier:
    return loader_for(model, offline=True, single=True, device="cpu", **options).load()


def logits(classifier: Classifier) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8)
    image = preprocess(Image.fromarray(pixels), classifier.preprocessing)
    outputs = classifier.engine.run(image[None])
    assert outputs.logits is not None
    return outputs.logits[0]


def of_timm(
    tensors: dict[str, torch.Tensor], classifier: Classifier, classes: int = 1000, name: str = TINY
) -> np.ndarray:
    network = timm.create_model(name, num_classes=classes).eval()
    network.load_state_dict(tensors)
    pixels = np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8)
    image = preprocess(Image.fromarray(pixels), classifier.preprocessing)
    with torch.inference_mode():
        return network(torch.from_numpy(image[None])).numpy()[0]


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def write_safetensors(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(files["model.safetensors"])
    return path


# --- valid files ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("w.safetensors", None),
        ("w.pth", lambda tensors: tensors),
        ("w.pt", lambda tensors: tensors),
        ("w.pth.tar", lambda tensors: {"state_dict": tensors, "epoch": 3}),
        ("last.pth", lambda tensors: {"model": tensors}),
        ("ddp.pth", lambda tensors: {"state_dict": {f"module.{key}": tensors[key] for key in tensors}}),
    ],
    ids=["safetensors", "pth", "pt", "checkpoint", "model key", "data parallel"],
)
def test_weights_in_any_usual_form_are_loaded(
    name: str, wrap: Any, thousand: dict[str, bytes], tmp_path: Path
) -> None:
    tensors = state_dict(thousand)
    path = tmp_path / name
    if wrap is None:
        write_safetensors(path, thousand)
    else:
        save(path, wrap(tensors))
    classifier = load_offline(TINY, weights=path)
    np.testing.assert_allclose(logits(classifier), of_timm(tensors, classifier), rtol=1e-4, atol=1e-4)
    assert classifier.class_names.names[258] == "Samoyed"
    assert classifier.preprocessing.input_size == (3, 160, 160)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth"])
def test_resnet18d_runs_with_given_weights(name: str, resnet18d_files: dict[str, bytes], tmp_path: Path) -> None:
    path, tensors = tmp_path / name, state_dict(resnet18d_files)
    _ = write_safetensors(path, resnet18d_files) if path.suffix == ".safetensors" else save(path, tensors)
    classifier = load_offline("resnet18d", weights=path)
    expected = of_timm(tensors, classifier, name="resnet18d")
    np.testing.assert_allclose(logits(classifier), expected, rtol=1e-4, atol=1e-4)
    assert classifier.preprocessing.input_size == (3, 224, 224)
    # Predictions of other weights must not appear under the published model's name.
    assert "resnet18d" in classifier.name
    assert classifier.name != "resnet18d.ra2_in1k"


@pytest.mark.parametrize("name", ["ten.safetensors", "ten.pth"])
def test_checkpoint_with_ten_classes_gives_ten_classes(name: str, ten: dict[str, bytes], tmp_path: Path) -> None:
    path, tensors = tmp_path / name, state_dict(ten)
    _ = write_safetensors(path, ten) if path.suffix == ".safetensors" else save(path, tensors)
    classifier = load_offline(TINY, weights=path)
    assert classifier.engine.classes == 10
    assert classifier.class_names.names == tuple(f"class {index}" for index in range(10))
    assert classifier.class_names.ids == (None,) * 10
    np.testing.assert_allclose(logits(classifier), of_timm(tensors, classifier, 10), rtol=1e-4, atol=1e-4)
    assert np.argmax(logits(classifier)) == np.argmax(of_timm(tensors, classifier, 10))


def test_classes_get_given_names(ten: dict[str, bytes], tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "ten.safetensors", ten)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    classifier = load_offline(TINY, weights=path, class_names=str(tmp_path / "names.txt"))
    assert classifier.class_names.names == NAMES
    (tmp_path / "names.txt").write_text("\n".join(NAMES[:9]))
    with pytest.raises(LabelsError):
        load_offline(TINY, weights=path, class_names=str(tmp_path / "names.txt"))


# --- files that do not fit, or are not checkpoints ---


@pytest.mark.slow
def test_checkpoint_of_another_architecture_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "other.pth", timm.create_model("resnet18").state_dict())
    with pytest.raises(WeightsError, match=r"other\.pth does not fit resnet18d") as caught:
        load_offline("resnet18d", weights=path)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert "as MODEL" in (hint_of(caught.value) or "")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["test_vit", "test_efficientnet"])
def test_checkpoint_of_another_family_is_an_error(architecture: str, tmp_path: Path) -> None:
    path = save(tmp_path / "other.pth", timm.create_model(architecture).state_dict())
    with pytest.raises(WeightsError, match=r"other\.pth"):
        load_offline(TINY, weights=path)


def test_checkpoint_with_missing_tensors_is_an_error(thousand: dict[str, bytes], tmp_path: Path) -> None:
    tensors = state_dict(thousand)
    del tensors["layer3.0.conv1.weight"]
    with pytest.raises(WeightsError, match="1 missing"):
        load_offline(TINY, weights=save(tmp_path / "w.pth", tensors))


@pytest.mark.slow
def test_checkpoint_without_classifier_gets_no_random_one(thousand: dict[str, bytes], tmp_path: Path) -> None:
    tensors = {key: tensor for key, tensor in state_dict(thousand).items() if not key.startswith("fc.")}
    path = save(tmp_path / "backbone.pth", tensors)
    with pytest.raises(ModelError, match="no classifier"):
        load_offline(TINY, weights=path)
    assert load_offline(TINY, weights=path, logits=False, layer="pooled").engine.classes == 0
    with pytest.raises(ModelError, match="no classifier"):
        load_offline(TINY, weights=path, logits=False, layer="logits")


@pytest.mark.parametrize("claim", [12, 1000])
def test_number_of_classes_comes_from_file_not_configuration(
    claim: int, folder: Path, ten: dict[str, bytes]
) -> None:
    """timm would drop the classifier and predict at random."""
    configure(folder, num_classes=claim)
    classifier = load_offline(str(folder))
    assert classifier.engine.classes == 10
    np.testing.assert_allclose(logits(classifier), of_timm(state_dict(ten), classifier, 10), rtol=1e-4, atol=1e-4)


def test_folder_with_local_dir_prefix_wins_over_model_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.rename(folder.parent / "resnet50d")
    monkeypatch.chdir(folder.parent)
    assert load_offline("local-dir:resnet50d").engine.classes == 10


def test_features_do_not_need_fitting_class_names(folder: Path) -> None:
    configure(folder, label_names=["only", "three", "names"])
    with pytest.raises(LabelsError):
        load_offline(str(folder))
    assert load_offline(str(folder), logits=False, layer="pooled").engine.classes == 10


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.00001, 0.5, 0.99])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_truncated_file_is_a_weights_error(
    name: str, share: float, thousand: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        save(path, state_dict(thousand))
    else:
        write_safetensors(path, thousand)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match=f"{path.name}") as caught:
        load_offline(TINY, weights=path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w", "w.onnx", "w.npz", "w.jpg"])
def test_other_file_is_a_weights_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not weights at all, but long enough to look at " * 10)
    with pytest.raises(WeightsError, match="w"):
        load_offline(TINY, weights=tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2, 3], {}, {"epoch": 3}, torch.zeros(3), "text", {"state_dict": None}])
def test_harmless_pickle_without_weights_is_a_weights_error(content: object, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        load_offline(TINY, weights=save(tmp_path / "w.pth", content))


def test_missing_file_is_reported_before_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("a network was built"))
    with pytest.raises(WeightsError, match="no weights file") as caught:
        load_offline(TINY, weights=tmp_path / "gone.pth")
    assert ".safetensors" in (hint_of(caught.value) or "")
    with pytest.raises(WeightsError, match="no weights file"):
        load_offline(TINY, weights=tmp_path)


# --- files that would run code ---


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def poisoned(path: Path, marker: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save(path, {"state_dict": tensors, "args": Payload(marker)})
    return path


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "w.pth.tar", "w.safetensors", "w"])
def test_pickle_that_would_run_code_is_refused_and_runs_none(
    name: str, thousand: dict[str, bytes], tmp_path: Path
) -> None:
    marker = tmp_path / "it-ran"
    path = poisoned(tmp_path / name, marker, state_dict(thousand))
    with pytest.raises(WeightsError) as caught:
        load_offline(TINY, weights=path)
    assert not marker.exists()
    if name != "w.safetensors":
        assert "could run code" in caught.value.message
        assert "safetensors" in (hint_of(caught.value) or "")


def test_plain_pickle_is_refused_too(tmp_path: Path) -> None:
    marker, path = tmp_path / "it-ran", tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Payload(marker), protocol=2))
    with pytest.raises(WeightsError):
        load_offline(TINY, weights=path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # without protection, the code runs


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "checkpoint.pth"])
def test_model_folder_with_a_pickle_that_would_run_code_is_refused(
    name: str, thousand: dict[str, bytes], tmp_path: Path
) -> None:
    marker, folder = tmp_path / "it-ran", tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes(thousand["config.json"])
    poisoned(folder / name, marker, state_dict(thousand))
    with pytest.raises(WeightsError, match="could run code"):
        load_offline(str(folder))
    assert not marker.exists()


# --- folders ---


@pytest.fixture
def folder(ten: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder with ten classes, written by timm's `save_for_hf`."""
    path = tmp_path / "model"
    path.mkdir()
    for name, content in ten.items():
        (path / name).write_bytes(content)
    return path


def configure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def configure_pretrained(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    configure(folder, pretrained_cfg={**config.get("pretrained_cfg", {}), **changes})


def test_folder_written_by_timm_loads_the_same_network(folder: Path, ten: dict[str, bytes]) -> None:
    for text in (str(folder), f"local-dir:{folder}"):
        classifier = load_offline(text)
        assert classifier.name == str(folder)
        assert classifier.engine.classes == 10
        assert classifier.class_names.names == tuple(f"class {index}" for index in range(10))
        expected = of_timm(state_dict(ten), classifier, 10)
        np.testing.assert_allclose(logits(classifier), expected, rtol=1e-4, atol=1e-4)


def test_label_names_in_folder_are_used(folder: Path) -> None:
    configure(folder, label_names=list(NAMES), label_descriptions={"cat": "a small carnivore"})
    classifier = load_offline(str(folder))
    assert classifier.class_names.names[0] == "ant"
    assert len(classifier.class_names.names) == 10
    assert classifier.class_names.names[2] in ("cat", "a small carnivore")


def test_label_names_win_over_imagenet_names(thousand: dict[str, bytes], tmp_path: Path) -> None:
    """A thousand classes are not necessarily ImageNet's."""
    for name, content in thousand.items():
        (tmp_path / name).write_bytes(content)
    assert load_offline(str(tmp_path)).class_names.names[258] == "Samoyed"
    configure(tmp_path, label_names=[f"product {index}" for index in range(1000)])
    assert load_offline(str(tmp_path)).class_names.names[258] == "product 258"


def test_wrong_number_of_label_names_is_an_error(folder: Path) -> None:
    configure(folder, label_names=list(NAMES[:9]))
    with pytest.raises(LabelsError):
        load_offline(str(folder))


def test_user_class_names_win_over_folder_names(folder: Path, tmp_path: Path) -> None:
    configure(folder, label_names=list(NAMES))
    (tmp_path / "names.txt").write_text("\n".join(reversed(NAMES)))
    classifier = load_offline(str(folder), class_names=str(tmp_path / "names.txt"))
    assert classifier.class_names.names == tuple(reversed(NAMES))


def test_folder_preprocessing_comes_from_configuration(folder: Path) -> None:
    configure_pretrained(folder, input_size=[3, 96, 128], crop_pct=0.8, mean=[0.1, 0.2, 0.3], crop_mode="squash")
    how = load_offline(str(folder)).preprocessing
    assert how.input_size == (3, 96, 128)
    assert (how.crop_pct, how.crop_mode, how.mean) == (0.8, "squash", (0.1, 0.2, 0.3))


def test_weights_in_folder_are_found_in_timm_order(folder: Path, ten: dict[str, bytes]) -> None:
    (folder / "model.safetensors").rename(folder / "z.safetensors")
    (folder / "a.pth").write_bytes(b"not chosen")
    assert load_offline(str(folder)).engine.classes == 10


def test_folder_without_weights_is_an_error(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights in"):
        load_offline(str(folder))


def test_folder_without_a_configuration_is_no_model(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(UnknownModel, match=r"config\.json"):
        load_offline(str(folder))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b'{"architecture": null}',
        b'{"architecture": ["resnet18d"]}',
        b'{"architecture": "no_such_architecture"}',
        b'{"architecture": "test_resnet", "pretrained_cfg": 3}',
        b'{"architecture": "test_resnet", "model_args": "x"}',
        b'{"architecture": "test_resnet", "num_classes": 10, "model_args": {"no_such_argument": 1}}',
        b"\xff\xfe{}",
        b'{"architecture": "test_resnet", ',
    ],
)
def test_bad_configuration_is_one_line_error(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ResnetdError) as caught:
        load_offline(str(folder))
    assert isinstance(caught.value, (ModelError, WeightsError))
    assert "\n" not in caught.value.message


def test_network_without_rgb_input_is_an_error(tmp_path: Path) -> None:
    timm.models.save_for_hf(timm.create_model(TINY, in_chans=1), str(tmp_path), safe_serialization=True)
    with pytest.raises(ModelError, match="1 channels"):
        load_offline(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"input_size": [3, 224]},
        {"input_size": "224"},
        {"input_size": [3, 0, 224]},
        {"interpolation": "best"},
        {"crop_pct": "much"},
        {"crop_pct": -1},
        {"mean": "grey"},
    ],
    ids=str,
)
def test_nonsensical_preprocessing_is_an_error_on_loading(changes: dict[str, object], folder: Path) -> None:
    """It must not crash on the first image."""
    configure_pretrained(folder, **changes)
    with pytest.raises(ModelError):
        load_offline(str(folder))


@pytest.mark.slow
def test_checkpoint_that_does_not_fit_names_first_tensor_and_both_shapes(
    thousand: dict[str, bytes], tmp_path: Path
) -> None:
    tensors = state_dict(thousand)
    tensors["layer1.0.conv1.weight"] = torch.zeros(7, 5)
    tensors["more.weight"] = torch.zeros(4)
    tensors["even.more"] = torch.zeros(4)
    del tensors["bn1.weight"]
    with pytest.raises(WeightsError) as caught:
        load_offline(TINY, weights=save(tmp_path / "w.pth", tensors))
    shape = " x ".join(map(str, state_dict(thousand)["layer1.0.conv1.weight"].shape))
    assert caught.value.message.endswith(
        "does not fit test_resnet: of its tensors 1 missing (bn1.weight), 2 unexpected (more.weight, ...), "
        f"1 of another shape (layer1.0.conv1.weight: 7 x 5 in the file, {shape} wanted)"
    )


@pytest.mark.parametrize("name", ["lightning.ckpt", "half.pth"])
def test_checkpoint_of_training_framework_gives_same_predictions(
    name: str, ten: dict[str, bytes], tmp_path: Path
) -> None:
    tensors = state_dict(ten)
    if name == "half.pth":
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
        content: dict[str, Any] = {"net": tensors}
    else:
        prefixed = {f"model.{key}": tensors[key] for key in tensors}
        content = {"state_dict": {**prefixed, "loss.weight": torch.ones(10)}, "epoch": 3}
    classifier = load_offline(TINY, weights=save(tmp_path / name, content))
    expected = of_timm(tensors, classifier, 10)
    np.testing.assert_allclose(logits(classifier), expected, rtol=1e-4, atol=1e-4)


# --- files of other tools, and sharded checkpoints ---


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        (
            "w.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "Git LFS",
            "lfs pull",
        ),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS", "lfs pull"),
        ("w.pth", b"<!DOCTYPE html><html>", "a web page", "download the file"),
        ("w.bin", b"GGUF\x03\0\0\0", "GGUF", ".safetensors"),
        ("w.pt", b"\x89HDF\r\n\x1a\n\0\0", "Keras", ".safetensors"),
        ("w.h5", b"other", "Keras", ".safetensors"),
        ("w.onnx", b"\x08\x07\x12\x07pytorch", "ONNX", ".safetensors"),
    ],
)
def test_file_of_another_tool_is_error_that_names_tool(
    name: str, content: bytes, message: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_offline(TINY, weights=tmp_path / name)
    assert hint in (hint_of(caught.value) or "")


@pytest.mark.slow
def test_pickled_module_is_refused_with_hint_how_to_save_it(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pth", timm.create_model(TINY))
    with pytest.raises(WeightsError, match=r"it asks for timm\.models") as caught:
        load_offline(TINY, weights=path)
    assert "torch.save(model.state_dict()" in (hint_of(caught.value) or "")


@pytest.mark.parametrize(
    ("module", "tool"),
    [("ultralytics.nn.tasks", "Ultralytics"), ("fastai.learner", "fastai"), ("fastcore.foundation", "fastai")],
)
def test_pickle_of_another_library_is_error_that_names_library(module: str, tool: str, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"\x80\x02c" + module.encode() + b"\nModel\n)R.")
    with pytest.raises(WeightsError, match=f"asks for {module}.Model of {tool}.*: loading it could run code"):
        load_offline(TINY, weights=path)


def test_folder_in_place_of_weights_is_an_error(folder: Path) -> None:
    with pytest.raises(WeightsError, match="it is a folder") as caught:
        load_offline(TINY, weights=folder)
    assert "as the model" in (hint_of(caught.value) or "")


def split_weights(folder: Path, kind: str = "safetensors") -> Path:
    """Split a folder's weights into two files and an index, as Hugging Face's tools do."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    path.unlink()
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names = list(tensors)
    halves = {
        f"{stem}-0000{1 + index}-of-00002.{kind}": {name: tensors[name] for name in part}
        for index, part in enumerate((names[:40], names[40:]))
    }
    for name, half in halves.items():
        if kind == "safetensors":
            safetensors.torch.save_file(half, folder / name)
        else:
            torch.save(half, folder / name)
    weight_map = {name: file for file, half in halves.items() for name in half}
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_sharded_weights_are_loaded(kind: str, folder: Path, ten: dict[str, bytes]) -> None:
    index = split_weights(folder, kind)
    classifier = load_offline(str(folder))
    expected = of_timm(state_dict(ten), classifier, 10)
    np.testing.assert_allclose(logits(classifier), expected, rtol=1e-4, atol=1e-4)
    assert load_offline(TINY, weights=index).engine.classes == 10


def test_missing_shard_is_an_error(folder: Path) -> None:
    index = split_weights(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names model-00002-of-00002\.safetensors, which is missing"):
        load_offline(str(folder))
    for content in ("{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}'):
        index.write_text(content)
        with pytest.raises(WeightsError, match="index"):
            load_offline(str(folder))
    for name in ("../secret.safetensors", "/etc/passwd", "a/b.bin", ".x.bin", "x.txt"):
        index.write_text(json.dumps({"weight_map": {"fc.weight": name}}))
        with pytest.raises(WeightsError, match="names no weights files beside it"):
            load_offline(str(folder))


def test_folder_with_several_weights_files_is_an_error(folder: Path, ten: dict[str, bytes]) -> None:
    (folder / "model.safetensors").unlink()
    save(folder / "last.pth", state_dict(ten))
    save(folder / "rng_state.pth", {"cpu": torch.zeros(3)})
    assert load_offline(str(folder)).engine.classes == 10
    save(folder / "best.pth", state_dict(ten))
    with pytest.raises(WeightsError, match=r"has 2 weights files: best\.pth, last\.pth") as caught:
        load_offline(str(folder))
    assert "best.pth" in (hint_of(caught.value) or "")
    assert load_offline(str(folder / "last.pth")).engine.classes == 10


# --- configurations of other tools ---


@pytest.mark.parametrize(
    ("config", "library"),
    [
        ({"architectures": ["ViTForImageClassification"], "model_type": "vit"}, r"transformers \(ViTForImage"),
        ({"model_type": "resnet", "id2label": {"0": "cat"}}, r"transformers \(resnet\)"),
        ({"_diffusers_version": "0.30", "_class_name": "UNet"}, "diffusers"),
        ({"keras_version": "3.5", "class_name": "Functional"}, "Keras"),
        ({"model_cfg": {"embed_dim": 512}, "preprocess_cfg": {}}, "open_clip"),
    ],
    ids=["transformers", "model type", "diffusers", "keras", "open_clip"],
)
def test_configuration_of_another_library_is_error_that_names_library(
    config: dict[str, Any], library: str, folder: Path
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"is a model of .*{library}") as caught:
        load_offline(str(folder))
    assert "list-models" in (hint_of(caught.value) or "")


def wrapped_by_transformers(folder: Path, **changes: object) -> None:
    """Rewrite a folder as transformers' `TimmWrapperForImageClassification` saves it."""
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"].pop("num_classes", None)
    config |= {
        "architectures": ["TimmWrapperForImageClassification"],
        "model_type": "timm_wrapper",
        "do_pooling": True,
        "initializer_range": 0.02,
        "model_args": None,
        "torch_dtype": "float32",
        "transformers_version": "4.55.0",
    }
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    prefixed = {f"timm_model.{name}": tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(prefixed, folder / "model.safetensors", metadata={"format": "pt"})


def test_folder_of_transformers_timm_wrapper_loads(folder: Path, ten: dict[str, bytes]) -> None:
    wrapped_by_transformers(folder, label_names=list(NAMES))
    classifier = load_offline(str(folder))
    assert classifier.class_names.names == NAMES
    expected = of_timm(state_dict(ten), classifier, 10)
    np.testing.assert_allclose(logits(classifier), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "names",
    [
        {"id2label": {str(index): name for index, name in enumerate(NAMES)}},
        {"label2id": {name: index for index, name in enumerate(NAMES)}},
        {"class_to_idx": {name: index for index, name in enumerate(NAMES)}},
        {"class_to_idx": {name: str(index) for index, name in enumerate(NAMES)}},
        {"label2id": {name: f"0{index}" for index, name in enumerate(NAMES)}},
        {"label_names": {name: index for index, name in enumerate(NAMES)}},
        {"label_names": {str(index): name for index, name in enumerate(NAMES)}, "id2label": {"0": "x"}},
    ],
    ids="-".join,
)
def test_class_names_in_any_form_are_read(names: dict[str, Any], folder: Path) -> None:
    configure(folder, **names)
    assert load_offline(str(folder)).class_names.names == NAMES


def test_key_of_number_map_decides_which_side_is_the_class(folder: Path) -> None:
    digits = [str((index + 3) % 10) for index in range(10)]
    configure(folder, class_to_idx={name: str(index) for index, name in enumerate(digits)})
    assert load_offline(str(folder)).class_names.names == tuple(digits)
    configure(folder, id2label={str(index): name for index, name in enumerate(digits)})
    assert load_offline(str(folder)).class_names.names == tuple(digits)


def test_transformers_placeholders_are_not_class_names(folder: Path) -> None:
    configure(folder, id2label={str(index): f"LABEL_{index}" for index in range(10)})
    assert load_offline(str(folder)).class_names.names == tuple(f"class {index}" for index in range(10))


@pytest.mark.slow
def test_info_with_other_weights_describes_them(ten: dict[str, bytes], tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "ten.safetensors", ten)
    facts = about.describe(ModelChoice.of(TINY, path))
    assert (facts["model"], facts["classes"], facts["license"]) == (f"{TINY}:ten.safetensors", 10, None)
    assert facts["params_m"] < about.describe(ModelChoice.of(TINY))["params_m"]
    assert (facts["weights"], facts["temperature"]) == (str(path), 1.0)
    resnet = save(tmp_path / "r.pth", timm.create_model("resnet18d", num_classes=2).state_dict())
    facts = about.describe(ModelChoice.of("resnet18d", resnet))
    assert (facts["classes"], facts["params_m"]) == (2, 11.2)
    assert "top1" not in facts
    with pytest.raises(WeightsError, match="no weights file"):
        about.describe(ModelChoice.of(TINY, tmp_path / "gone.pth"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (lambda t: {"arch": "resnet18", "state_dict": t}, "the file says that it is a resnet18"),
        (
            lambda t: {"hyper_parameters": {"model_name": "resnet18.a1_in1k"}, "state_dict": t},
            "a resnet18.a1_in1k",
        ),
        (lambda t: {"args": Namespace(model="resnet18", lr=0.1), "state_dict": t}, "says that it is a resnet18"),
        (lambda t: {"arch": "x" * 1000, "state_dict": t}, "name the architecture"),
        (lambda t: {"model": {f"{n}.{key}": t[key] for n, key in enumerate(t)}}, "fastai"),
        (lambda t: {f"vit.embeddings.{key}": t[key] for key in t}, "transformers"),
        (lambda t: {f"model.{n}.{key}": t[key] for n, key in enumerate(t)}, "Ultralytics"),
    ],
    ids=["arch", "lightning", "args", "nonsense", "fastai", "transformers", "ultralytics"],
)
def test_checkpoint_that_does_not_fit_gets_hint_to_its_origin(content: Any, hint: str, tmp_path: Path) -> None:
    tensors = timm.create_model("resnet18").state_dict()
    with pytest.raises(WeightsError, match="does not fit test_resnet") as caught:
        load_offline(TINY, weights=save(tmp_path / "w.pth", content(tensors)))
    assert hint in (hint_of(caught.value) or "")


# --- bundle keys, info and notes ---


def test_bundle_depends_on_every_weights_file_and_configuration(folder: Path) -> None:
    names = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = split_weights(folder)
    sources = build._sources(BundleKey(ModelChoice.of(str(folder))), index)
    assert sorted(path.name for path in sources) == [*names, "model.safetensors.index.json"]
    part = folder / names[1]
    assert {path.name for path in build._sources(BundleKey(ModelChoice.of(str(part))), part)} == {
        "config.json",
        names[1],
    }


def test_deprecated_timm_name_gets_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("resnetd_cli.loading.load_network", lambda *_, **__: None)
    loader_for("gluon_resnet50_v1d", note=notes.append)._network()
    assert notes == ["timm now calls gluon_resnet50_v1d resnet50d.gluon_in1k"]
    loader_for("resnet50d.gluon_in1k", note=notes.append)._network()
    assert len(notes) == 1
