"""Models are not measured on images that they were trained on, however these are named and stored."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.hub import timm_files
from helpers.program import ResnetdHere
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from resnetd_cli.class_names.shipped import ClassNames
from resnetd_cli.classifier import Classifier
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.compiled import exported_file
from resnetd_cli.compiled.card import Card, GraphOrigin
from resnetd_cli.errors import DataError, ModelError
from resnetd_cli.evaluation import evaluate, held_out
from resnetd_cli.evaluation.held_out import learnt_by, separate
from resnetd_cli.evaluation.images import LabelledImages, open_images
from resnetd_cli.models import trained_on
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.trained_on import Known
from resnetd_cli.pipeline.decode.image import DecodeOptions
from resnetd_cli.pipeline.engines.base import Outputs
from resnetd_cli.pipeline.options import Parallelism
from resnetd_cli.results import Preprocessing

CLASSES = ("blue", "green", "red")
NAMES = ClassNames(CLASSES, (None,) * 3, "a test")
HEIGHT, WIDTH = 6, 10
HOW = Preprocessing((3, HEIGHT, HEIGHT), 1.0, "center", "bilinear", (0.0,) * 3, (1.0,) * 3)
PIXELS = np.random.default_rng(7).integers(0, 256, (12, HEIGHT, WIDTH, 3), np.uint8)
LABELS = np.arange(12) % 3


class Summing:
    """Answers with a class's channel, summed."""

    name = "summing"
    classes = 3

    def run(self, images: NDArray[np.float32]) -> Outputs:
        return Outputs(images.mean(axis=(2, 3)).astype(np.float32) * 20, None)


MODEL = Classifier("summing", Summing(), HOW, NAMES, parallelism=Parallelism(2))


def mark(number: int) -> bytes:
    """Return an image's mark, worked out from its pixels alone."""
    size = WIDTH.to_bytes(4, "little") + HEIGHT.to_bytes(4, "little")
    return hashlib.blake2b(size + PIXELS[number].tobytes(), digest_size=16).digest()


def learnt(model: str, *numbers: int) -> Known:
    return Known(model, trained_on.unpack(b"".join([mark(number) for number in numbers])))


def draw(folder: Path, numbers: Sequence[int] = range(12)) -> Path:
    for number in numbers:
        path = folder / CLASSES[LABELS[number]] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number]).save(path)
    return folder


def numbers_of(images: LabelledImages) -> list[int]:
    """Return which images these are, by what they show."""
    by_pixels = {PIXELS[number].tobytes(): number for number in range(12)}
    found = []
    for source in images.sources():
        with Image.open(io.BytesIO(source.read())) as image:
            from PIL import ImageOps

            upright = ImageOps.exif_transpose(image)
            found.append(by_pixels[upright.convert("RGB").tobytes()])
    return sorted(found)


# --- what is left out ---


def test_images_that_the_model_was_trained_on_are_left_out(tmp_path: Path) -> None:
    images, counts, notes = separate(open_images(str(draw(tmp_path))), [learnt("RUN", *range(9))])
    assert numbers_of(images) == [9, 10, 11]
    assert (counts, images.trained_on) == ([0], 9)
    assert notes == ["9 of 12 images are left out: RUN was trained on them"]
    report = evaluate.evaluate(MODEL, images, trained_on=counts[0]).report
    assert (report.counts.answered, report.counts.trained_on) == (3, 0)


def test_a_comparison_leaves_out_what_either_model_was_trained_on(tmp_path: Path) -> None:
    models = [learnt("A", 0, 1, 2, 3, 4), learnt("B", 3, 4, 5, 6)]
    images, counts, notes = separate(open_images(str(draw(tmp_path))), models)
    assert numbers_of(images) == [7, 8, 9, 10, 11]
    assert counts == [0, 0]
    assert notes == ["7 of 12 images are left out: A was trained on 5 of them, B on 4"]


def test_a_model_without_marks_does_not_hide_the_other_models_marks(tmp_path: Path) -> None:
    images, counts, notes = separate(open_images(str(draw(tmp_path))), [Known("embedded", None), learnt("B", 11)])
    assert numbers_of(images) == list(range(11))
    assert (counts, notes) == ([None, 0], ["1 of 12 images is left out: B was trained on it"])


def test_no_image_left_is_an_error(tmp_path: Path) -> None:
    images = open_images(str(draw(tmp_path)))
    with pytest.raises(DataError, match=r", all: RUN was trained on all 12 images$") as caught:
        separate(images, [learnt("RUN", *range(12))])
    assert "--include-training-images" in (hint_of(caught.value) or "")
    with pytest.raises(DataError, match=r", all: A or B was trained on all 12 images$"):
        separate(images, [learnt("A", *range(6)), learnt("B", *range(4, 12))])


def test_images_that_cannot_be_read_do_not_count_as_left(tmp_path: Path) -> None:
    (draw(tmp_path) / "red" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="RUN was trained on all 13 images"):
        separate(open_images(str(tmp_path)), [learnt("RUN", *range(12))])


def test_images_that_cannot_be_read_fail_when_they_are_measured(tmp_path: Path) -> None:
    (draw(tmp_path) / "red" / "broken.png").write_bytes(b"no image")
    images, _, _ = separate(open_images(str(tmp_path)), [learnt("RUN", *range(6))])
    failures: list[Any] = []
    report = evaluate.evaluate(MODEL, images, on_failure=failures.append).report
    assert (report.counts.answered, report.counts.failed, len(failures)) == (6, 1, 1)


def test_include_training_images_evaluates_on_them(tmp_path: Path) -> None:
    models = [learnt("A", 0, 1, 2), learnt("B", 2)]
    images, counts, notes = separate(open_images(str(draw(tmp_path))), models, include=True)
    assert (len(images), images.trained_on, counts) == (12, 0, [3, 1])
    assert notes == [
        "A was trained on 3 of the 12 images measured, B on 1: figures on such images are inflated",
    ]


def test_without_marks_no_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_images(str(draw(tmp_path)))
    monkeypatch.setattr(held_out, "scan_images", None)
    assert separate(images, [Known("embedded", None)]) == (images, [None], [])


def test_a_run_from_before_marks_were_kept_is_noted(tmp_path: Path) -> None:
    images, counts, (note,) = separate(open_images(str(draw(tmp_path))), [Known("OLD", None, is_run=True)])
    assert (len(images), counts) == (12, [None])
    assert note.startswith("which images OLD was trained on is not known, so none are left out: ")


def test_images_are_matched_without_exif_rotation_too(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 3
    for number in (0, 1, 2):  # 0: stored as it was trained on; 1: the upright one was; 2: neither
        path = tmp_path / CLASSES[LABELS[number]] / f"{number}.png"
        path.parent.mkdir()
        stored = Image.fromarray(PIXELS[number])
        (stored.transpose(Image.Transpose.ROTATE_180) if number == 1 else stored).save(path, exif=turned)
    images, model = open_images(str(tmp_path)), learnt("RUN", 0, 1)
    left = {
        ignore_exif: separate(images, [model], decoding=DecodeOptions(ignore_exif=ignore_exif)).images
        for ignore_exif in (False, True)
    }
    assert [sorted(Path(name).name for name in each.names()) for each in left.values()] == [
        ["0.png", "2.png"],
        ["2.png"],
    ]


@pytest.mark.parametrize("split", ["train", "val", None])
def test_images_of_each_split_are_matched(tmp_path: Path, split: str | None) -> None:
    draw(tmp_path / "train", range(8))
    draw(tmp_path / "val", range(8, 12))
    if split == "train":
        with pytest.raises(DataError, match="train: RUN was trained on all 8 images"):
            separate(open_images(str(tmp_path), split), [learnt("RUN", *range(8))])
    else:
        images, _, notes = separate(open_images(str(tmp_path), split), [learnt("RUN", *range(8))])
        assert (numbers_of(images), notes) == ([8, 9, 10, 11], [])


# --- where marks are looked up ---


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that a run left, as far as marks go."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.json", "run.json", "model.safetensors", "checkpoints/best.pth"):
        (folder / name).write_text("{}")
    trained_on.write(folder, trained_on.unpack(mark(0) + mark(1)))
    return folder


@pytest.mark.parametrize("name", ["", "model.safetensors", "checkpoints/best.pth"])
def test_a_model_folder_and_its_files_have_its_marks(run: Path, name: str) -> None:
    found = learnt_by(ModelChoice.of(str(run / name)))
    assert found.marks is not None and len(found.marks) == 2
    assert found.is_run
    found = learnt_by(ModelChoice.of("embedded", run / (name or "model.safetensors")))
    assert found.marks is not None and len(found.marks) == 2


@pytest.mark.parametrize("kept", [True, False])
def test_an_exported_file_has_the_marks_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    import onnx

    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.save(model, str(tmp_path / "graph.onnx"))
    card = Card("a test", HOW, NAMES, GraphOrigin(0, "", {"resnetd": "0"}))
    with (tmp_path / "run.onnx").open("wb") as stream:
        marks = trained_on.unpack(mark(0) + mark(1)) if kept else None
        exported_file.write_file(tmp_path / "graph.onnx", card, stream, marks)
    monkeypatch.chdir(tmp_path)
    found = learnt_by(ModelChoice.of("run.onnx")).marks
    assert (found is None) != kept
    if found is not None:
        assert trained_on.contains(found, trained_on.unpack(mark(0) + mark(1) + mark(2))).tolist() == [1, 1, 0]


def test_weights_have_their_own_marks_not_the_models(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"")
    found = learnt_by(ModelChoice.of(str(run), other))
    assert (found.marks, found.is_run) == (None, True), "they may be a run's all the same"


def test_a_run_without_marks_differs_from_other_models(run: Path) -> None:
    (run / trained_on.NAME).unlink()
    assert learnt_by(ModelChoice.of(str(run))) == Known(str(run), None, is_run=True)
    (run / "run.json").unlink()
    assert learnt_by(ModelChoice.of(str(run))) == Known(str(run), None)
    assert learnt_by(ModelChoice.of("embedded")) == Known("embedded", None)


def test_damaged_marks_are_an_error(run: Path) -> None:
    (run / trained_on.NAME).write_bytes(b"\x93NUMPY")
    with pytest.raises(ModelError, match="is damaged: it does not say what the model was trained on"):
        learnt_by(ModelChoice.of(str(run)))


# --- whatever the images are called ---

STORAGES = (
    "itself",
    "symlink",
    "hardlink",
    "copy",
    "stored",
    "bmp",
    "tiff",
    "webp",
    "ppm",
    *map(str, range(2, 9)),
)
"""Digits are EXIF's orientations."""
LAYOUTS = ("folder", "nested", "splits", "table", "shards")
# What turns an upright image into one that is stored with an orientation: the inverse of what viewers do.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


class Way(NamedTuple):
    """One way to name the same images: how each is stored, in what order, and where."""

    storages: list[str]
    order: list[int]
    layout: str


WAYS = st.builds(
    Way,
    st.lists(st.sampled_from(STORAGES), min_size=12, max_size=12),
    st.permutations(range(12)),
    st.sampled_from(LAYOUTS),
)


def store(number: int, storage: str, path: Path, original: Path) -> Path:
    """Write one of the images in some way, and return the file."""
    image = Image.fromarray(PIXELS[number])
    path = path.with_suffix(f".{storage}" if storage in ("bmp", "tiff", "webp", "ppm") else ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    if storage == "symlink":
        path.symlink_to(original)
    elif storage == "hardlink":
        os.link(original, path)
    elif storage in ("itself", "copy"):
        path.write_bytes(original.read_bytes())
    elif storage.isdigit():
        exif = Image.Exif()
        exif[0x0112] = int(storage)
        image.transpose(STORED[int(storage)]).save(path, exif=exif)
    elif storage == "stored":
        image.save(path, compress_level=0)
    else:
        image.save(path, **({"lossless": True} if storage == "webp" else {}))
    return path


def lay_out(way: Way, top: Path, originals: Path) -> str:
    """Write the images in some way, and return what names them."""
    files = []
    for place, number in enumerate(way.order):
        label = CLASSES[LABELS[number]]
        folder = {
            "folder": top / label,
            "nested": top / label / f"{place % 2}" / "deep",
            "splits": top / ("train" if place % 2 else "val") / label,
        }.get(way.layout, top / "files")
        original = originals / label / f"{number}.png"
        files.append((store(number, way.storages[number], folder / f"image{place:02}", original), label))
    if way.layout == "table":
        with (top / "table.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(
                [("path", "label"), *((path.relative_to(top), name) for path, name in files)]
            )
        return str(top / "table.csv")
    if way.layout == "shards":
        (top / "shards").mkdir()
        for shard in range(2):
            with tarfile.open(top / "shards" / f"data-{shard}.tar", "w") as tar:
                for path, name in files[shard::2]:
                    add(tar, path.name, path.read_bytes())
                    add(tar, f"{path.stem}.json", json.dumps({"label": CLASSES.index(name)}).encode())
        (top / "shards" / "classnames.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        return f"wds/{top / 'shards'}"
    return str(top)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(WAYS, st.sets(st.integers(0, 11), min_size=1, max_size=10), st.sets(st.integers(0, 11), max_size=3))
def test_the_same_images_are_evaluated_under_any_name(way: Way, first: set[int], second: set[int]) -> None:
    expected = sorted(set(range(12)) - first - second)
    if not expected:
        return
    with tempfile.TemporaryDirectory() as folder:
        originals = draw(Path(folder) / "originals")
        location = lay_out(way, Path(folder) / "data", originals)
        models = [learnt("A", *first), learnt("B", *second)]
        images, _, _ = separate(open_images(location, "all"), models)
        assert numbers_of(images) == expected
        assert images.trained_on == 12 - len(expected)
        report = evaluate.evaluate(MODEL, images).report
    # By hand: the middle square's means are the logits.
    left = (WIDTH - HEIGHT) // 2
    means = PIXELS[expected][:, :, left : left + HEIGHT].reshape(len(expected), -1, 3).mean(axis=1) / 255 * 20
    powers = np.exp(means)
    shares = powers / powers.sum(axis=1, keepdims=True)
    labels = LABELS[expected]
    assert report.scores.top1 == (means.argmax(axis=1) == labels).mean()
    assert report.scores.loss == pytest.approx(-np.log(shares[np.arange(len(labels)), labels]).mean(), abs=1e-4)


@pytest.mark.slow
def test_the_program_evaluates_the_same_images_under_any_name(tmp_path: Path, run_here: ResnetdHere) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file, data in timm_files("test_resnet", num_classes=3, label_names=CLASSES).items():
        (run / file).write_bytes(data)
    trained_on.write(run, trained_on.unpack(b"".join([mark(number) for number in range(5)])))
    originals = draw(tmp_path / "originals")
    (tmp_path / "link").symlink_to(originals)
    mixed = [*STORAGES[1:5], "bmp", "tiff", "webp", "3", "5", "6", "7", "8"]
    ways = {layout: Way(mixed, list(reversed(range(12))), layout) for layout in ("nested", "table", "shards")}
    locations = [str(originals), str(tmp_path / "link")]
    locations += [lay_out(way, tmp_path / layout, originals) for layout, way in ways.items()]
    reports = []
    for location in locations:
        ended = run_here("evaluate", location, "-m", run, "-f", "json")
        assert ended.returncode == 0, ended.stderr
        assert f"5 of 12 images are left out: {run} was trained on them\n" in ended.stderr
        content = json.loads(ended.stdout)
        assert content["left_out"] == {"trained_on": 5, "unknown_class": 0}
        [report] = content["models"]
        assert (report["images"], report["failed"]) == (7, 0)
        reports.append({key: report[key] for key in ("top1", "confusion", "classes")} | {"loss": report["loss"]})
    for report in reports[1:]:
        assert report == reports[0] | {"loss": pytest.approx(reports[0]["loss"], abs=1e-5)}


def test_weights_that_name_their_marks_go_with_no_others(tmp_path: Path) -> None:
    import safetensors.numpy

    marks = trained_on.unpack(mark(0) + mark(1))
    metadata = {
        "format": "pt",
        trained_on.DIGEST: hashlib.sha256(b"".join(sorted([mark(0), mark(1)]))).hexdigest(),
    }
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    safetensors.numpy.save_file({"w": np.zeros(1)}, tmp_path / "model.safetensors", metadata)
    assert learnt_by(ModelChoice.of(str(tmp_path))) == Known(str(tmp_path), None, is_run=True), (
        "copied without them"
    )
    trained_on.write(tmp_path, trained_on.unpack(mark(2)))
    assert learnt_by(ModelChoice.of(str(tmp_path))) == Known(str(tmp_path), None, is_run=True), "beside another's"
    trained_on.write(tmp_path, marks)
    found = learnt_by(ModelChoice.of(str(tmp_path)))
    assert found.is_run and found.marks is not None
    assert sorted(bytes(each) for each in found.marks) == sorted([mark(0), mark(1)])


def test_a_checkpoint_taken_out_of_its_run_is_noted(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for folder in (run, elsewhere):
        folder.mkdir()
    for name in ("config.json", "run.json"):
        (run / name).write_text("{}", encoding="utf-8")
    trained_on.write(run, trained_on.unpack(mark(0)))
    (elsewhere / "best.pth").write_bytes(b"")
    found = learnt_by(ModelChoice.of(str(run), elsewhere / "best.pth"))
    assert (found.marks, found.is_run) == (None, True)
