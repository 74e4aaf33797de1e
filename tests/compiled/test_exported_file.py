"""Exported files: what they say of themselves, that they are whole, and what their model was trained on."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from helpers.hub import timm_files
from helpers.loaders import loader_for
from helpers.onnx_models import CARD, tiny
from helpers.paths import ROOT

from resnetd_cli import pull
from resnetd_cli.about import describe
from resnetd_cli.cli.commands.info import _in_words
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.compiled import bundles, exported_file
from resnetd_cli.compiled.bundles import BundleKey
from resnetd_cli.compiled.to_onnx import convert
from resnetd_cli.errors import ModelError, UsageError
from resnetd_cli.evaluation.temperature import store_temperature
from resnetd_cli.models import trained_on
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.sources.expand import expand
from resnetd_cli.results import Classified, FittedTemperature

COFFEE, CAT = (str(ROOT / "samples" / name) for name in ("coffee.jpg", "cat.jpg"))
TINY = "test_resnet"
MARKS = np.random.default_rng(3).integers(0, 256, (5, 16), dtype=np.uint8)
IN_ORDER = sorted(bytes(mark) for mark in MARKS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))


def write(path: Path, marks: np.ndarray | None = None) -> Path:
    """Write the tiny graph as `resnetd export` does."""
    graph = path.with_suffix(".graph")
    onnx.save(tiny(), str(graph))
    with path.open("wb") as stream:
        exported_file.write_file(graph, CARD, stream, marks)
    graph.unlink()
    return path


def marks_in(path: Path) -> list[bytes]:
    marks = exported_file.read_trained_on(path)
    assert marks is not None
    return [bytes(mark) for mark in marks]


def append(path: Path, key: str, text: str) -> None:
    """Add a text to a file's metadata, and give it the hash that it then should have."""
    model = onnx.load(str(path))
    texts = {item.key: item.value for item in model.metadata_props if item.key != exported_file.SHA256_KEY}
    onnx.helper.set_model_props(model, {**texts, key: text})
    digest = hashlib.sha256(model.SerializeToString()).hexdigest()
    model.metadata_props.add(key=exported_file.SHA256_KEY, value=digest)
    path.write_bytes(model.SerializeToString())


# --- whole, or not ---


def test_the_hash_is_of_the_file_without_it(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    stored = model.metadata_props.pop()
    assert stored.key == "resnetd-sha256"
    assert hashlib.sha256(model.SerializeToString()).hexdigest() == stored.value


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_the_weights_is_noticed(bit: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    sound = path.read_bytes()
    weights = onnx.load(str(path)).graph.initializer[0].raw_data
    start = sound.index(weights)
    for position in range(start + bit, start + len(weights), 11):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"m\.onnx is damaged, or was changed by another program") as caught:
            loader_for(str(path), engine="auto").load()
        assert hint_of(caught.value) == "export it again"
    path.write_bytes(sound)
    assert loader_for(str(path), engine="auto").load().name == "tiny"


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    """Harmless: in the name of the hash, which then is not looked for."""
    path = write(tmp_path / "m.onnx", MARKS)
    sound = path.read_bytes()
    weights = onnx.load(str(path)).graph.initializer[0].raw_data
    unnoticed = []
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            exported_file.read_card(path)
        except ModelError as error:
            assert "\n" not in error.message
        else:
            assert weights in bytes(damaged)
            unnoticed.append(position)
    assert all(position > len(sound) - 100 for position in unnoticed)


def test_damage_after_the_first_use_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    assert isinstance(next(iter(loader_for(str(path), engine="auto").load().predict(COFFEE))), Classified)
    data = bytearray(path.read_bytes())
    data[data.index(onnx.load(str(path)).graph.initializer[0].raw_data) + 5] ^= 4
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is damaged"):
        loader_for(str(path), engine="auto").load()


def test_a_file_without_a_hash_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(tiny(), str(path))
    assert exported_file.read_card(path) == CARD
    assert exported_file.read_trained_on(path) is None


def test_a_file_that_another_program_saved_unchanged_is_still_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    onnx.save(onnx.load(str(path)), str(path))
    assert exported_file.read_card(path) == CARD
    assert marks_in(path) == IN_ORDER


# --- what it was trained on ---


def test_marks_come_back_in_order_and_each_once(tmp_path: Path) -> None:
    assert marks_in(write(tmp_path / "m.onnx", np.concatenate([MARKS, MARKS[:2]]))) == IN_ORDER


def test_a_model_of_unknown_training_has_no_marks(tmp_path: Path) -> None:
    assert exported_file.read_trained_on(write(tmp_path / "m.onnx")) is None
    assert marks_in(write(tmp_path / "m.onnx", MARKS[:0])) == []


def test_marks_can_be_read_with_onnx_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    texts = {item.key: item.value for item in onnx.load(str(path)).metadata_props}
    assert base64.b64decode(texts["resnetd-trained-on"]) == b"".join(IN_ORDER)


def test_a_new_temperature_leaves_marks_and_hash_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    hashed: list[Path] = []
    once = exported_file.sha256_without
    monkeypatch.setattr(exported_file, "sha256_without", lambda path, key: hashed.append(path) or once(path, key))
    store_temperature(path, FittedTemperature.at(1.7, CARD.preprocessing, "fp32"))
    assert hashed == [path]
    assert exported_file.read_card(path) == replace(CARD, temperature=1.7)
    assert marks_in(path) == IN_ORDER


def test_later_starts_do_not_load_the_marks(tmp_path: Path) -> None:
    many = np.random.default_rng(4).integers(0, 256, (20_000, 16), dtype=np.uint8)
    path = write(tmp_path / "m.onnx", many)
    first = next(iter(loader_for(str(path), engine="auto").load().predict(COFFEE)))
    bundle = bundles.find(BundleKey(ModelChoice.of(str(path))))
    assert bundle is not None
    assert path.stat().st_size > 16 * len(many) > 10 * bundle.optimised.stat().st_size
    assert not onnx.load(str(bundle.optimised)).metadata_props
    assert next(iter(loader_for(str(path), engine="auto").load().predict(COFFEE))) == first
    assert len(marks_in(path)) == len(many)


@pytest.mark.parametrize("text", ["!", "AAAA", "A" * 21, base64.b64encode(bytes(17)).decode(), "\u00e9"])
def test_damaged_marks_are_an_error(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    append(path, exported_file.TRAINED_ON_KEY, text)
    assert exported_file.read_card(path) == CARD
    with pytest.raises(ModelError, match="does not say what the model was trained on"):
        exported_file.read_trained_on(path)


def test_more_marks_than_are_kept_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    monkeypatch.setattr("resnetd_cli.models.trained_on.MOST", 4)
    with pytest.raises(ModelError, match="does not say"):
        exported_file.read_trained_on(path)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ten classes as a run leaves it, with a checkpoint and marks."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    for name, content in timm_files(f"{TINY}.r160_in1k", seed=1, num_classes=10).items():
        (folder / name).write_bytes(content)
    (folder / "checkpoints" / "best.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    trained_on.write(folder, MARKS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", ["folder", "checkpoint", "weights", "weights of a checkpoint"])
def test_export_takes_the_marks_along(how: str, run_folder: Path, tmp_path: Path) -> None:
    checkpoint = run_folder / "checkpoints" / "best.safetensors"
    loader = {
        "folder": loader_for(str(run_folder)),
        "checkpoint": loader_for(str(checkpoint)),
        "weights": loader_for(TINY, weights=run_folder / "model.safetensors"),
        "weights of a checkpoint": loader_for(TINY, weights=checkpoint),
    }[how]
    for _ in range(2):  # compiled now, and compiled before
        pull.export(loader, tmp_path / "m.onnx")
        assert marks_in(tmp_path / "m.onnx") == IN_ORDER


@pytest.mark.slow
def test_export_takes_no_marks_from_weights_of_elsewhere(run_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes((run_folder / "model.safetensors").read_bytes())
    pull.export(loader_for(str(run_folder), weights=other), tmp_path / "m.onnx")
    assert exported_file.read_trained_on(tmp_path / "m.onnx") is None


# --- images of other sizes ---


def axes(path: Path) -> list[int | str]:
    return [
        each.dim_param or each.dim_value for each in onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim
    ]


def answers(model: Path, **options: Any) -> np.ndarray:
    """Return the probabilities of the samples, shape (2, 10)."""
    classifier = loader_for(str(model), **{"engine": "auto", **options}).load()
    return np.array(list(classifier.probabilities(expand([CAT, COFFEE]))))


@pytest.fixture
def free(run_folder: Path, tmp_path: Path) -> Path:
    """The model of ten classes as a file."""
    pull.export(loader_for(str(run_folder)), tmp_path / "free.onnx")
    return tmp_path / "free.onnx"


@pytest.mark.slow
def test_height_and_width_are_free_in_a_convolutional_network(free: Path) -> None:
    assert axes(free) == ["n", 3, "height", "width"]
    assert exported_file.read_card(free).any_size
    assert exported_file.read_card(free).preprocessing.input_size == (3, 160, 160)


@pytest.mark.slow
def test_info_shows_whether_any_size_works(free: Path, tmp_path: Path) -> None:
    facts = describe(ModelChoice.of(str(free)))
    assert facts["any_size"]
    assert _in_words(facts)["preprocessing"].startswith("160 x 160 or --image-size N, ")
    assert not describe(ModelChoice.of(str(write(tmp_path / "m.onnx"))))["any_size"]


@pytest.mark.slow
def test_the_graph_of_a_start_is_of_one_size(run_folder: Path) -> None:
    """So it is as quick as if nothing were free."""
    bundle = loader_for(str(run_folder), image_size=96).compile()
    assert axes(bundle.graph) == ["n", 3, "height", "width"]
    assert axes(bundle.optimised) == ["n", 3, 96, 96]


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 160, 203])
def test_a_file_answers_at_other_sizes_as_the_network_does(size: int, run_folder: Path, free: Path) -> None:
    expected = answers(run_folder, image_size=size, engine="torch")
    assert np.abs(answers(free, image_size=size) - expected).max() < 1e-5
    assert np.abs(answers(free, image_size=size) - expected).max() < 1e-5  # from the cache
    if size != 160:
        assert np.abs(answers(free) - expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(160, 160), (96, 224), (131, 77)])
def test_onnxruntime_alone_takes_any_height_and_width(
    height: int, width: int, run_folder: Path, free: Path
) -> None:
    network = loader_for(str(run_folder), engine="torch").load().engine.network
    images = np.random.default_rng(1).standard_normal((3, 3, height, width), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(free), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images})
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.abs(expected).max() > 0.1
    assert np.abs(logits - expected).max() < 1e-4


FIXED = {
    "positions": ("test_vit", {}),
    "padding as in TensorFlow": ("test_efficientnet", {"pad_type": "same"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), FIXED.values(), ids=FIXED)
def test_a_network_that_is_right_at_one_size_only_stays_at_it(
    name: str, arguments: dict[str, str], tmp_path: Path
) -> None:
    network = timm.create_model(name, num_classes=4, **arguments).eval()
    how = replace(CARD.preprocessing, input_size=(3, 160, 160))
    assert not convert(network, how, tmp_path / "m.onnx")
    assert axes(tmp_path / "m.onnx") == ["n", 3, 160, 160]


@pytest.mark.slow
def test_a_branch_on_the_size_is_noticed(tmp_path: Path) -> None:
    """A trace keeps one side of it: the graph would be wrong at the other sizes."""
    network = timm.create_model("test_resnet", num_classes=4).eval()
    pool = network.global_pool
    network.global_pool = Branching(pool)
    how = replace(CARD.preprocessing, input_size=(3, 160, 160))
    assert not convert(network, how, tmp_path / "m.onnx")
    network.global_pool = pool
    assert convert(network, how, tmp_path / "m.onnx")


class Branching(torch.nn.Module):
    """Halves what comes of large images."""

    def __init__(self, pool: torch.nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.pool(images)
        return pooled / 2 if int(images.shape[-1]) >= 5 else pooled


def test_a_file_of_one_size_refuses_others(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"m\.onnx takes images of 8 x 8 pixels and no others") as caught:
        loader_for(str(path), engine="auto", image_size=16).load()
    assert hint_of(caught.value) == "resnetd export MODEL --image-size 16 -o FILE.onnx makes one for 16"
    with pytest.raises(UsageError, match="has no test size"):
        loader_for(str(path), engine="auto", image_size="test").load()
    with pytest.raises(UsageError, match="contains its own weights"):
        loader_for(str(path), engine="auto", weights="w.pth").load()


@pytest.mark.slow
def test_a_temperature_is_used_at_its_size_only(free: Path) -> None:
    plain = {size: answers(free, image_size=size) for size in ("train", 96)}
    own = exported_file.read_card(free).preprocessing
    store_temperature(free, FittedTemperature.at(2.0, own, "fp32"))
    notes: list[str] = []
    assert np.allclose(answers(free), sharpened(plain["train"], 2.0), atol=1e-6)
    assert np.allclose(answers(free, image_size=160), sharpened(plain["train"], 2.0), atol=1e-6)
    for _ in range(2):  # read from the file, and from the cache
        assert np.allclose(answers(free, image_size=96, note=notes.append), plain[96], atol=1e-6)
    said = f"{free} has a temperature for 160 x 160 in fp32, not for 96 x 96 in fp32: no temperature is used; "
    assert [note.startswith(said) for note in notes] == [True, True]
    store_temperature(free, FittedTemperature.at(0.5, replace(own, input_size=(3, 96, 96)), "fp32"))
    assert np.allclose(answers(free, image_size=96), sharpened(plain[96], 0.5), atol=1e-6)
    assert np.allclose(answers(free), sharpened(plain["train"], 2.0), atol=1e-6)
    assert exported_file.read_card(free).temperature == 2.0


def sharpened(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of the same logits, divided by a temperature."""
    powers = probabilities.astype(np.float64) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.slow
def test_an_int8_export_takes_the_marks_along(run_folder: Path, tmp_path: Path) -> None:
    loader = loader_for(str(run_folder), precision="int8")
    pull.pull(loader, list(expand([COFFEE])))
    card = pull.export(loader, tmp_path / "m.onnx")
    assert card.precision == "int8"
    assert axes(tmp_path / "m.onnx") == ["n", 3, "height", "width"]
    assert np.abs(answers(tmp_path / "m.onnx", image_size=96) - answers(run_folder, image_size=96)).max() < 0.1
    assert marks_in(tmp_path / "m.onnx") == IN_ORDER
