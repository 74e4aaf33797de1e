"""Exported files: what they say of themselves, that they are whole, and what their model was trained on."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hub import timm_files
from test_hostile_models import CARD, tiny

from resnetd_cli import calibrate, exported, pull, trained_on
from resnetd_cli.errors import ModelError
from resnetd_cli.loading import Loader
from resnetd_cli.results import Classified
from resnetd_cli.sources import expand

ROOT = Path(__file__).parents[1]
COFFEE = str(ROOT / "samples" / "coffee.jpg")
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
        exported.write_file(graph, CARD, stream, marks)
    graph.unlink()
    return path


def marks_in(path: Path) -> list[bytes]:
    marks = exported.read_trained_on(path)
    assert marks is not None
    return [bytes(mark) for mark in marks]


def append(path: Path, key: str, text: str) -> None:
    """Add a text to a file's metadata, and give it the hash that it then should have."""
    model = onnx.load(str(path))
    texts = {item.key: item.value for item in model.metadata_props if item.key != exported.SHA256_KEY}
    onnx.helper.set_model_props(model, {**texts, key: text})
    digest = hashlib.sha256(model.SerializeToString()).hexdigest()
    model.metadata_props.add(key=exported.SHA256_KEY, value=digest)
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
            Loader(str(path), engine="auto").load()
        assert caught.value.hint == "export it again"
    path.write_bytes(sound)
    assert Loader(str(path), engine="auto").load().name == "tiny"


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
            exported.read_card(path)
        except ModelError as error:
            assert "\n" not in error.message
        else:
            assert weights in bytes(damaged)
            unnoticed.append(position)
    assert all(position > len(sound) - 100 for position in unnoticed)


def test_damage_after_the_first_use_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    assert isinstance(next(iter(Loader(str(path), engine="auto").load().predict(COFFEE))), Classified)
    data = bytearray(path.read_bytes())
    data[data.index(onnx.load(str(path)).graph.initializer[0].raw_data) + 5] ^= 4
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is damaged"):
        Loader(str(path), engine="auto").load()


def test_a_file_without_a_hash_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(tiny(), str(path))
    assert exported.read_card(path) == CARD
    assert exported.read_trained_on(path) is None


def test_a_file_that_another_program_saved_unchanged_is_still_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    onnx.save(onnx.load(str(path)), str(path))
    assert exported.read_card(path) == CARD
    assert marks_in(path) == IN_ORDER


# --- what it was trained on ---


def test_marks_come_back_in_order_and_each_once(tmp_path: Path) -> None:
    assert marks_in(write(tmp_path / "m.onnx", np.concatenate([MARKS, MARKS[:2]]))) == IN_ORDER


def test_a_model_of_unknown_training_has_no_marks(tmp_path: Path) -> None:
    assert exported.read_trained_on(write(tmp_path / "m.onnx")) is None
    assert marks_in(write(tmp_path / "m.onnx", MARKS[:0])) == []


def test_marks_can_be_read_with_onnx_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    texts = {item.key: item.value for item in onnx.load(str(path)).metadata_props}
    assert base64.b64decode(texts["resnetd-trained-on"]) == b"".join(IN_ORDER)


def test_a_new_temperature_leaves_marks_and_hash_right(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    calibrate.store(path, 1.7)
    assert exported.read_card(path) == replace(CARD, temperature=1.7)
    assert marks_in(path) == IN_ORDER


@pytest.mark.parametrize("text", ["!", "AAAA", "A" * 21, base64.b64encode(bytes(17)).decode(), "\u00e9"])
def test_damaged_marks_are_an_error(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    append(path, exported.TRAINED_ON_KEY, text)
    assert exported.read_card(path) == CARD
    with pytest.raises(ModelError, match="does not tell what the model was trained on"):
        exported.read_trained_on(path)


def test_more_marks_than_are_kept_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", MARKS)
    monkeypatch.setattr("resnetd_cli.trained_on.MOST", 4)
    with pytest.raises(ModelError, match="does not tell"):
        exported.read_trained_on(path)


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


@pytest.mark.parametrize("how", ["folder", "checkpoint", "weights", "weights of a checkpoint"])
def test_export_takes_the_marks_along(how: str, run_folder: Path, tmp_path: Path) -> None:
    checkpoint = run_folder / "checkpoints" / "best.safetensors"
    loader = {
        "folder": Loader(str(run_folder)),
        "checkpoint": Loader(str(checkpoint)),
        "weights": Loader(TINY, weights=run_folder / "model.safetensors"),
        "weights of a checkpoint": Loader(TINY, weights=checkpoint),
    }[how]
    for _ in range(2):  # compiled now, and compiled before
        pull.export(loader, tmp_path / "m.onnx")
        assert marks_in(tmp_path / "m.onnx") == IN_ORDER


def test_export_takes_no_marks_from_weights_of_elsewhere(run_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes((run_folder / "model.safetensors").read_bytes())
    pull.export(Loader(str(run_folder), weights=other), tmp_path / "m.onnx")
    assert exported.read_trained_on(tmp_path / "m.onnx") is None


@pytest.mark.slow
def test_an_int8_export_takes_the_marks_along(run_folder: Path, tmp_path: Path) -> None:
    loader = Loader(str(run_folder), precision="int8")
    pull.pull(loader, list(expand([COFFEE])))
    card = pull.export(loader, tmp_path / "m.onnx")
    assert card.precision == "int8"
    assert marks_in(tmp_path / "m.onnx") == IN_ORDER
