"""`resnetd evaluate`, the temperature that it stores, and `predict` that abstains."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hub import OWN_CLASSES, write_model
from helpers.marks import mark_of_file
from helpers.paths import CAT, COFFEE, ROOT
from helpers.program import Cli, Resnetd, ResnetdHere, only
from PIL import Image

from resnetd_cli.class_names import shipped
from resnetd_cli.classifier import Classifier
from resnetd_cli.datasets.examples import Examples
from resnetd_cli.evaluation import evaluate
from resnetd_cli.evaluation.comparison import compare_models
from resnetd_cli.evaluation.images import LabelledImages
from resnetd_cli.evaluation.metrics import Coverage
from resnetd_cli.evaluation.records import Evaluated
from resnetd_cli.loading import load
from resnetd_cli.models import trained_on
from resnetd_cli.models.config_json import write_temperature
from resnetd_cli.pipeline.engines.base import Outputs
from resnetd_cli.pipeline.options import Runtime
from resnetd_cli.results import FittedTemperature, Preprocessing
from resnetd_cli.views.evaluation import COLUMNS, write_reports


@pytest.fixture
def photos(photos: Path, compiled: None) -> Path:
    """Two photographs for the compiled embedded model, which loads in a tenth of the time that torch takes."""
    return photos


@pytest.fixture
def on_torch(compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer with the torch engine all the same."""
    monkeypatch.setenv("RESNETD_ENGINE", "torch")


# --- the report ---


@pytest.mark.slow
def test_one_image_of_one_class_is_in_the_singular(cli: Cli, photos: Path) -> None:
    shutil.rmtree(photos / "espresso")
    ended = cli("evaluate", photos, "-f", "json")
    assert (ended.code, ended.stderr.splitlines()[0]) == (0, f"{photos}, all: 1 image of 1 class")


@pytest.mark.slow
@pytest.mark.usefixtures("on_torch")
def test_json_holds_everything(cli: Cli, photos: Path) -> None:
    ended = cli("evaluate", photos, "-f", "json")
    told = f"{photos}, all: 2 images of 2 classes\nembedded: top-1 50.00 % (9.5 to 90.5); images 2\n"
    assert (ended.code, ended.stderr) == (0, told)
    content = json.loads(ended.stdout)
    assert (content["data"], content["split"], content["comparison"]) == (str(photos), "all", None)
    report = only(ended)
    assert (report["model"], report["engine"], report["precision"]) == ("embedded", "torch", "fp32")
    assert (report["images"], report["failed"], report["top1"], report["top5"]) == (2, 0, 0.5, 1.0)
    assert report["top1_interval"] == pytest.approx([0.0945312, 0.9054688], abs=1e-6)
    assert report["confusion"] == [[285, 282, 1], [967, 967, 1]]
    assert [(row["label"], row["support"], row["f1"]) for row in report["classes"]] == [
        ("tiger cat", 0, 0.0),
        ("Egyptian cat", 1, 0.0),
        ("espresso", 1, 1.0),
    ]
    assert report["macro_recall"] == 0.5
    [mistake] = report["mistakes"]
    assert (mistake["image"], mistake["actual"], mistake["predicted"]) == (
        str(photos / "Egyptian_cat" / "cat.jpg"),
        "Egyptian cat",
        "tiger cat",
    )
    assert mistake["probability"] == pytest.approx(0.6, abs=0.3)
    assert report["coverage"][0] == {"threshold": 0.0, "images": 2, "coverage": 1.0, "accuracy": 0.5}


@pytest.mark.slow
def test_jsonl_is_the_same_in_a_line(cli: Cli, photos: Path) -> None:
    one, other = (cli("evaluate", photos, "-q", "-f", name).stdout for name in ("json", "jsonl"))
    assert json.loads(one) == json.loads(other)
    assert other.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "delimiter"), [("tsv", "\t"), ("csv", ",")])
def test_rows_are_the_classes(cli: Cli, photos: Path, name: str, delimiter: str) -> None:
    ended = cli("evaluate", photos, "-f", name)
    rows = list(csv.DictReader(io.StringIO(ended.stdout), delimiter=delimiter))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["model"], row["index"], row["id"], row["recall"]) for row in rows] == [
        ("embedded", "282", "n02123159", "0.0"),
        ("embedded", "285", "n02124075", "0.0"),
        ("embedded", "967", "n07920052", "1.0"),
    ]
    assert cli("evaluate", photos, "-f", name, "--no-header").stdout == ended.stdout.partition("\n")[2]


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_reported_and_left_out(cli: Cli, photos: Path) -> None:
    (photos / "espresso" / "broken.jpg").write_bytes(b"no image")
    ended = cli("evaluate", photos, "-f", "json")
    record = only(ended, 3)
    assert f"error: {photos / 'espresso' / 'broken.jpg'}: " in ended.stderr
    assert (record["images"], record["failed"], record["top1"]) == (2, 1, 0.5)
    stopped = cli("evaluate", photos, "-f", "json", "--fail-fast")
    assert (stopped.code, stopped.stdout) == (1, "")


@pytest.mark.slow
def test_files_that_the_data_set_leaves_out_are_reported(cli: Cli, photos: Path) -> None:
    shutil.copy(COFFEE, photos / "loose.jpg")
    ended = cli("evaluate", photos, "-f", "json")
    assert (only(ended)["images"], ended.code) == (2, 0)
    assert len(ended.stderr.splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "code"), [("0.5", 0), ("0.51", 1), ("0", 0), ("1", 1)])
def test_fail_under_exits_with_1_below_the_bound(cli: Cli, photos: Path, bound: str, code: int) -> None:
    ended = cli("evaluate", photos, "-f", "json", "--fail-under", bound)
    assert ended.code == code
    assert only(ended, code)["top1"] == 0.5
    assert ("error: embedded: top-1 is 0.5000, below" in ended.stderr) == bool(code)


@pytest.mark.slow
def test_the_report_is_written_even_below_the_bound(cli: Cli, photos: Path) -> None:
    (photos / "espresso" / "broken.jpg").write_bytes(b"no image")
    assert cli("evaluate", photos, "-o", "report.json", "--fail-under", "0.9").code == 1
    assert json.loads(Path("report.json").read_text())["models"][0]["top1"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--fail-under", "93"], 2, "--fail-under 93: not a share from 0 to 1\nhint: 93 % is 0.93"),
        (["--fail-under", "-1"], 2, "--fail-under -1: not a share"),
        (["--fail-under", "nan"], 2, "--fail-under nan: not a share"),
        (["-m", "a", "-m", "b", "-m", "c"], 2, "3 models: at most two can be compared"),
        (["-m", "a", "-m", "a"], 2, "a is named twice"),
        (["-m", "a", "-m", "b", "--weights", "x.pth"], 2, "--weights cannot be used with two models"),
        (["-m", "a", "-m", "b", "--fit-temperature"], 2, "--fit-temperature takes one model"),
        (["--fit-temperature", "--temperature", "2"], 2, "leave out --temperature"),
        (["--temperature", "0"], 2, "0 is not a temperature from 0.01 to 100"),
        (["--temperature", "-1"], 2, "-1 is not a temperature from 0.01"),
        (["--temperature", "nan"], 2, "nan is not a temperature from 0.01"),
        (["--split", "val"], 2, "has no split val\nhint: its images are not split: without --split, "),
        (["--split", "none"], 2, "--split"),
        (["--real-labels"], 1, "none of the images is one of ImageNet's validation set"),
        (["-m", "embedded", "-m", "no-such-model"], 2, "unknown model"),
        (["--mistakes", "-1"], 2, "--mistakes"),
    ],
)
def test_contradictory_options_are_usage_errors(
    cli: Cli, photos: Path, words: list[str], code: int, message: str
) -> None:
    ended = cli("evaluate", photos, *words)
    assert (ended.code, ended.stdout) == (code, "")
    assert message in ended.stderr


@pytest.mark.slow
def test_classes_that_the_model_lacks_are_an_error(cli: Cli, photos: Path) -> None:
    (photos / "espresso").rename(photos / "espreso")
    ended = cli("evaluate", photos)
    assert (ended.code, ended.stdout) == (1, "")
    assert "error: 1 of the 2 classes is not among the model's 1000: espreso\n" in ended.stderr
    assert "hint: near espreso: espresso" in ended.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("on_torch")
def test_two_models_are_shown_side_by_side(cli: Cli, photos: Path) -> None:
    # The same network again, which has another name for each of its classes but one.
    folder = photos.parent / "other"
    write_model(folder, "test_resnet", ("espresso", "Egyptian cat", "Samoyed"))
    ended = cli("evaluate", photos, "-m", "embedded", "-m", folder, "-f", "json")
    content = json.loads(ended.stdout)
    assert [report["model"] for report in content["models"]] == ["embedded", str(folder)]
    compared = content["comparison"]
    assert (
        compared["images"],
        sum(compared[key] for key in ("both", "only_first", "only_second", "neither")),
    ) == (
        2,
        2,
    )
    assert compared["both"] + compared["only_first"] == 1
    shown = cli("evaluate", photos, "-m", "embedded", "-m", folder, "-f", "table")
    assert "A: embedded on torch in fp32" in shown.stdout
    assert f"B: {folder} on torch in fp32" in shown.stdout
    assert "McNemar's exact test, p = 1)" in shown.stdout
    rows = cli("evaluate", photos, "-m", "embedded", "-m", folder, "-f", "tsv", "--no-header").stdout.splitlines()
    assert {row.split("\t")[0] for row in rows} == {"embedded", str(folder)}


# --- what is left out ---


def remember(folder: Path, *images: Path) -> None:
    """Make a model folder that of a run which was trained on some images."""
    (folder / "run.json").write_text("{}")
    marks = b"".join([mark_of_file(image.read_bytes()) for image in images])
    trained_on.write(folder, trained_on.unpack(marks))


@pytest.fixture
def runs(tmp_path: Path, photos: Path, on_torch: None) -> tuple[Path, Path]:
    """Two models: one was trained on the coffee, the other on the cat."""
    for name, image in (("first", COFFEE), ("second", CAT)):
        write_model(tmp_path / name, "test_resnet", ("espresso", "Egyptian cat", "Samoyed"))
        remember(tmp_path / name, image)
    return tmp_path / "first", tmp_path / "second"


@pytest.mark.slow
def test_training_images_are_left_out_and_counted(cli: Cli, photos: Path, runs: tuple[Path, Path]) -> None:
    (photos / "espresso" / "again.jpg").symlink_to(COFFEE)
    ended = cli("evaluate", photos, "-m", runs[0], "-f", "json")
    assert f"2 of 3 images are left out: {runs[0]} was trained on them\n" in ended.stderr
    assert json.loads(ended.stdout)["left_out"] == {"trained_on": 2, "unknown_class": 0}
    assert (only(ended)["images"], only(ended)["trained_on"]) == (1, 0)
    [row, *_] = csv.DictReader(io.StringIO(cli("evaluate", photos, "-m", runs[0], "-f", "csv").stdout))
    assert row["left_out"] == "2"
    table = cli("evaluate", photos, "-m", runs[0], "-f", "table").stdout
    assert table.startswith("left out: 2 images that a model was trained on\n")


@pytest.mark.slow
def test_training_images_are_evaluated_on_request(cli: Cli, photos: Path, runs: tuple[Path, Path]) -> None:
    ended = cli("evaluate", photos, "-m", runs[0], "-f", "json", "--include-training-images")
    told = f"{runs[0]} was trained on 1 of the 2 images measured: figures on such images are inflated\n"
    assert told in ended.stderr
    assert (only(ended)["images"], only(ended)["trained_on"]) == (2, 1)
    assert json.loads(ended.stdout)["left_out"] == {"trained_on": 0, "unknown_class": 0}


def test_a_comparison_without_images_that_both_may_see_is_refused(
    cli: Cli, photos: Path, runs: tuple[Path, Path]
) -> None:
    ended = cli("evaluate", photos, "-m", runs[0], "-m", runs[1])
    assert (ended.code, ended.stdout) == (1, "")
    told = (
        f"error: {photos}, all: {runs[0]} or {runs[1]} was trained on all 2 images\nhint: measure on other images"
    )
    assert told in ended.stderr


@pytest.mark.slow
def test_fitting_leaves_training_images_out(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    paths = sorted(data.rglob("*.png"))
    remember(folder, *paths[::4])
    ended = cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json")
    assert (only(ended)["images"], only(ended)["trained_on"]) == (9, 0)
    for path in paths[::4]:
        path.unlink()
    alone = cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json")
    assert only(ended)["calibration"] == only(alone)["calibration"]
    assert "trained on" not in alone.stderr


@pytest.mark.slow
def test_fitting_on_training_images_is_noted(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    remember(folder, *data.rglob("*.png"))
    words = ["evaluate", data, "-m", folder, "--fit-temperature", "-f", "json"]
    assert cli(*words).code == 1
    ended = cli(*words, "--include-training-images")
    assert (ended.code, only(ended)["trained_on"]) == (0, 12)
    assert "fitted on images that it was trained on, where it is right too often\n" in ended.stderr


@pytest.mark.slow
def test_images_of_classes_that_the_model_lacks_are_skipped_on_request(cli: Cli, photos: Path) -> None:
    shutil.copytree(photos / "espresso", photos / "dress")
    ended = cli("evaluate", photos)
    assert (ended.code, "--skip-unknown leaves their images out\n" in ended.stderr) == (1, True)
    assert "desk" not in ended.stderr
    ended = cli("evaluate", photos, "--skip-unknown", "-f", "json")
    assert "1 of 3 images is left out, of classes that the model lacks: dress\n" in ended.stderr
    assert json.loads(ended.stdout)["left_out"] == {"trained_on": 0, "unknown_class": 1}
    assert (only(ended)["images"], only(ended)["top1"]) == (2, 0.5)
    for name in ("espresso", "Egyptian_cat"):
        shutil.rmtree(photos / name)
    ended = cli("evaluate", photos, "--skip-unknown")
    assert (ended.code, f"{photos} has no image of a class that the model has: dress" in ended.stderr) == (1, True)


# --- the table ---

HOW = Preprocessing((3, 8, 8), 1.0, "center", "bilinear", (0.0,) * 3, (1.0,) * 3)


class Scripted:
    name = "scripted"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def run(self, images: Any) -> Outputs:
        rows = np.random.default_rng(int(images[0, 2, 0, 0] * 255)).normal(0, 3, (len(images), self.classes))
        return Outputs(rows.astype(np.float32), None)


class Pictures:
    """Pictures of one colour each, with long names."""

    def name(self, row: int) -> str:
        return f"/a/folder/somewhere/far/away/\x1b[31m/{'long' * 20}/{row}.png"

    def read(self, row: int, options: object = None) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (0, 0, row % 256)).save(stream, "PNG")
        return stream.getvalue()


def reports(classes: int) -> tuple[LabelledImages, Evaluated]:
    names = shipped.for_class_count(classes) or shipped.ClassNames(
        tuple(f"a rather long name of class {index}" for index in range(classes)), (None,) * classes, "a test"
    )
    actual = np.arange(60) % classes
    parts = (Examples(Pictures(), np.arange(60), actual, names.names),)
    images = LabelledImages("somewhere", "all", parts, actual, tuple(map(str, range(classes))))
    return images, evaluate.evaluate(Classifier("a/model", Scripted(classes), HOW, names), images, fit=False)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("count", [1, 2])
def test_tables_fit_80_columns(monkeypatch: pytest.MonkeyPatch, classes: int, count: int) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    images, result = reports(classes)
    stream = io.StringIO()
    comparison = compare_models(result, result) if count == 2 else None
    write_reports(images, [result.report] * count, comparison, stream, "table")
    lines = stream.getvalue().splitlines()
    text = [line for line in lines if "McNemar" not in line]  # a sentence, which terminals wrap
    assert max(map(len, text)) <= 80
    assert "\x1b" not in stream.getvalue()
    assert f"{100 * (result.report.scores.top1 or 0):.2f} %" in stream.getvalue()
    if count == 1:
        assert ("the 10 worst of 60 classes" in lines) == (classes == 1000)
        assert ("taken for (across)" in lines) == (classes <= 10)
        assert stream.getvalue().count(".png") == 10


@pytest.mark.parametrize("count", [1, 2])
def test_tables_distinguish_classes_of_the_same_name_and_records_keep_the_label(count: int) -> None:
    names = shipped.ClassNames(("crane", "crane", "coot"), ("n02012849", "n03126707", None), "a test")
    classes, actual = ("0", "1", "2"), np.arange(9) % 3
    images = LabelledImages(
        "somewhere", "all", (Examples(Pictures(), np.arange(9), actual, classes),), actual, classes
    )
    result = evaluate.evaluate(Classifier("a/model", Scripted(3), HOW, names), images, fit=False)
    stream = io.StringIO()
    comparison = compare_models(result, result) if count == 2 else None
    write_reports(images, [result.report] * count, comparison, stream, "table")
    for title in ("crane (bird)", "crane (machine)"):
        assert title in stream.getvalue()
    assert [row["label"] for row in result.report.record()["classes"]] == ["crane", "crane", "coot"]
    assert "titles" not in result.report.record()


@pytest.mark.parametrize("name", ["json", "tsv", "csv"])
def test_class_names_cannot_control_the_terminal(name: str) -> None:
    images, result = reports(2)
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    write_reports(images, [result.report], None, stream, name)
    assert "\x1b" not in stream.getvalue()


# --- temperature ---


def stored(folder: Path) -> Any:
    """Return the only temperature that a folder keeps."""
    config = json.loads((folder / "config.json").read_text())
    assert "temperature" not in config
    kept = config.get("temperatures", [])
    assert len(kept) <= 1
    return kept[0]["temperature"] if kept else None


def probabilities(cli: Cli, image: Path, *words: str | Path) -> list[float]:
    record = json.loads(cli("predict", image, "-k", "9", "-f", "jsonl", *words).stdout)
    return [item["probability"] for item in sorted(record["predictions"], key=lambda item: item["index"])]


def divided(values: Sequence[float], temperature: float) -> Any:
    powers = np.array(values) ** (1 / temperature)
    return pytest.approx((powers / powers.sum()).tolist(), abs=1e-4)


@pytest.mark.slow
def test_temperature_divides_the_logits(cli: Cli, own: tuple[Path, Path]) -> None:
    image = next(own[1].rglob("*.png"))
    plain = probabilities(cli, image, "-m", own[0])
    for temperature in ("0.5", "3"):
        shown = probabilities(cli, image, "-m", own[0], "--temperature", temperature)
        assert shown == divided(plain, float(temperature))
    assert probabilities(cli, image, "-m", own[0], "--temperature", "1") == plain


@pytest.mark.slow
def test_a_folders_temperature_is_stored_and_used(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    image = next(data.rglob("*.png"))
    plain = probabilities(cli, image, "-m", folder)
    ended = cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json")
    fitted = only(ended)["calibration"]
    assert fitted["loss"] < fitted["loss_before"]
    assert stored(folder) == fitted["temperature"] == only(ended)["temperature"]
    told = f"{folder / 'config.json'} now has the temperature {fitted['temperature']:.4g} for 160 x 160 in fp32: "
    assert told in ended.stderr
    assert probabilities(cli, image, "-m", folder) == divided(plain, fitted["temperature"])
    assert probabilities(cli, image, "-m", folder, "--temperature", "1") == plain
    again = only(cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json"))
    assert again["calibration"] == fitted
    after = only(cli("evaluate", data, "-m", folder, "-f", "json"))
    assert (after["loss"], after["ece"]) == pytest.approx((fitted["loss"], fitted["ece"]), abs=1e-6)
    facts = json.loads(cli("info", folder, "-f", "json").stdout)
    assert facts["temperature"] == fitted["temperature"]
    assert "temperatures  " in cli("info", folder, "-f", "table").stdout


@pytest.mark.parametrize("indent", [None, 4, "\t"], ids=repr)
def test_config_json_keeps_its_indentation(tmp_path: Path, indent: int | str | None) -> None:
    content = {"architecture": "resnet18d", "pretrained_cfg": {"tag": "caf\u00e9"}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    write_temperature(tmp_path, FittedTemperature(1.5))
    expected = content | {"temperatures": [{"temperature": 1.5, "precision": "fp32"}]}
    assert file.read_text(encoding="utf-8") == json.dumps(expected, indent=indent, ensure_ascii=False) + "\n"


@pytest.mark.slow
def test_calibrate_still_fits_a_temperature_but_help_names_only_the_new_option(
    cli: Cli, own: tuple[Path, Path]
) -> None:
    folder, data = own
    fitted = only(cli("evaluate", data, "-m", folder, "--calibrate", "-f", "json"))
    assert fitted["temperature"] == fitted["calibration"]["temperature"] != 1
    assert (
        json.loads((folder / "config.json").read_text())["temperatures"][0]["temperature"] == fitted["temperature"]
    )
    shown = cli("evaluate", "--help").stdout
    assert "--fit-temperature" in shown and "--calibrate" not in shown


@pytest.mark.slow
def test_timm_loads_a_folder_with_a_temperature(cli: Cli, own: tuple[Path, Path]) -> None:
    import timm
    import torch

    before = timm.create_model(f"local-dir:{own[0]}", pretrained=True).state_dict()
    assert cli("evaluate", own[1], "-m", own[0], "--fit-temperature").code == 0
    assert stored(own[0])
    network = timm.create_model(f"local-dir:{own[0]}", pretrained=True)
    assert network.pretrained_cfg["label_names"] == list(OWN_CLASSES)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def set_temperature(folder: Path, **keys: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))


def figures_of(folder: Path, data: Path, size: int, temperature: float) -> tuple[float, float]:
    """Return loss and calibration error in 15 bins, worked out with numpy from the logits at a size."""
    paths = sorted(data.rglob("*.png"))
    logits = np.array(list(load(str(folder), image_size=size, runtime=Runtime("torch")).logits(paths)), np.float64)
    actual = np.array([OWN_CLASSES.index(path.parent.name) for path in paths])
    powers = np.exp(logits / temperature)
    shares = powers / powers.sum(axis=1, keepdims=True)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == actual
    bins = np.ceil(confidence * 15)
    ece = sum(
        (bins == number).mean() * abs(right[bins == number].mean() - confidence[bins == number].mean())
        for number in np.unique(bins)
    )
    return float(-np.log(shares[np.arange(len(actual)), actual]).mean()), float(ece)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["number", "list"])
def test_a_temperature_is_used_at_its_own_size_alone(cli: Cli, own: tuple[Path, Path], kept: str) -> None:
    folder, data = own
    at = {"temperature": 2.5, "precision": "fp32", "input_size": [3, 160, 160], "crop_pct": 0.95}
    set_temperature(folder, **({"temperature": 2.5} if kept == "number" else {"temperatures": [at]}))
    ended = cli("evaluate", data, "-m", folder, "-f", "json")
    assert "no temperature is used" not in ended.stderr
    assert only(ended)["temperature"] == 2.5
    expected = figures_of(folder, data, 160, 2.5)
    assert (only(ended)["loss"], only(ended)["ece"]) == pytest.approx(expected, abs=1e-5)
    ended = cli("evaluate", data, "-m", folder, "-f", "json", "--image-size", "128")
    assert only(ended)["temperature"] == 1
    assert (only(ended)["loss"], only(ended)["ece"]) == pytest.approx(figures_of(folder, data, 128, 1), abs=1e-5)
    assert only(ended)["loss"] != pytest.approx(figures_of(folder, data, 128, 2.5)[0], abs=1e-3)
    told = f"{folder} has a temperature for 160 x 160 in fp32, not for 128 x 128 in fp32: no temperature is used; "
    assert f"{told}evaluate DIR --model {folder} --image-size 128 --fit-temperature fits one\n" in ended.stderr


@pytest.mark.slow
def test_temperatures_are_kept_side_by_side(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    fitted = {
        words: only(cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json", *words))["temperature"]
        for words in [(), ("--image-size", "128"), ("--precision", "bf16")]
    }
    assert len(set(fitted.values())) == 3
    for words, temperature in fitted.items():
        ended = cli("evaluate", data, "-m", folder, "-f", "json", *words)
        assert (only(ended)["temperature"], "has a temperature for" in ended.stderr) == (temperature, False)
    again = only(cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json", "--image-size", "128"))
    assert again["temperature"] == fitted["--image-size", "128"]
    kept = json.loads((folder / "config.json").read_text())["temperatures"]
    assert [(each["precision"], each["input_size"], each["temperature"]) for each in kept] == [
        ("fp32", [3, 160, 160], fitted[()]),
        ("bf16", [3, 160, 160], fitted["--precision", "bf16"]),
        ("fp32", [3, 128, 128], fitted["--image-size", "128"]),
    ]
    ended = cli("evaluate", data, "-m", folder, "--image-size", "96", "-f", "json")
    assert (
        "a temperature for 160 x 160 in fp32 and 160 x 160 in bf16 and 128 x 128 in fp32, not for 96"
        in ended.stderr
    )
    facts = json.loads(cli("info", folder, "-f", "json", "--image-size", "128").stdout)
    assert (facts["temperature"], facts["temperatures"]) == (fitted["--image-size", "128"], kept)
    assert f"{fitted[()]:.4g} at 160 x 160 in fp32" in cli("info", folder, "-f", "table").stdout.replace("\n", " ")


@pytest.mark.slow
def test_a_temperature_stored_by_an_earlier_version_is_replaced(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    set_temperature(folder, temperature=9.5)
    fitted = only(cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json"))["temperature"]
    assert fitted < 9
    assert only(cli("evaluate", data, "-m", folder, "-f", "json"))["temperature"] == fitted
    facts = json.loads(cli("info", folder, "-f", "json").stdout)
    assert [each["temperature"] for each in facts["temperatures"]] == [fitted]


@pytest.mark.slow
def test_a_temperature_belongs_to_the_folders_own_weights(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    set_temperature(folder, temperature=2.5)
    (folder / "checkpoints").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "checkpoints" / "other.safetensors")
    used = {
        name: only(cli("evaluate", data, "-m", folder / name, "-f", "json"))["temperature"]
        for name in ("model.safetensors", "checkpoints/other.safetensors")
    }
    assert used == {"model.safetensors": 2.5, "checkpoints/other.safetensors": 1}
    ended = cli("evaluate", data, "-m", folder, "--weights", folder / "model.safetensors", "-f", "json")
    assert only(ended)["temperature"] == 1
    assert f"no temperature of {folder} is used with other weights: " in ended.stderr


@pytest.mark.slow
def test_a_temperature_of_another_size_is_noted_without_torch(
    own: tuple[Path, Path], run_resnetd: Resnetd, run_here: ResnetdHere
) -> None:
    folder, data = own
    set_temperature(folder, temperature=2.5)
    image = next(data.rglob("*.png"))
    words = ["predict", image, "-m", folder, "--image-size", "128"]
    assert "compiling" in run_here(*words, RESNETD_ENGINE="auto").stderr
    # A package that cannot be imported stands for none.
    (folder.parent / "none").mkdir()
    (folder.parent / "none" / "torch.py").write_text("raise AssertionError")
    (folder.parent / "none" / "timm.py").write_text("raise AssertionError")
    path = f"{folder.parent / 'none'}{os.pathsep}{os.environ.get('PYTHONPATH', ROOT)}"
    ended = run_resnetd(*words, RESNETD_ENGINE="auto", PYTHONPATH=path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith(
        f"{folder} has a temperature for 160 x 160 in fp32, not for 128 x 128 in fp32: "
    )


@pytest.mark.slow
def test_existing_bundles_get_a_new_temperature(
    cli: Cli, own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = own
    monkeypatch.setenv("RESNETD_CACHE", str(folder.parent / "cache"))
    image = next(data.rglob("*.png"))
    other = folder.parent / "other.safetensors"
    shutil.copy(folder / "model.safetensors", other)
    forms: list[list[str | Path]] = [
        ["-m", folder],
        ["-m", f"{folder}/../run"],
        ["-m", folder, "--precision", "int8"],
        ["-m", folder, "--image-size", "128"],
        ["-m", folder, "--weights", other],
    ]
    assert cli("pull", folder, "--precision", "int8", "--calibrate", data).code == 0
    monkeypatch.setenv("RESNETD_ENGINE", "onnx")
    # Two images, so that they are compiled at once.
    assert [cli("predict", image, image, *form, "-q").code for form in forms] == [0] * 5
    plain = [probabilities(cli, image, *form) for form in forms]
    temperature = only(cli("evaluate", data, "-m", folder, "--fit-temperature", "-f", "json"))["temperature"]
    shown = [(probabilities(cli, image, *form), cli("predict", image, image, *form).stderr) for form in forms]
    assert [values for values, _ in shown[:2]] == [divided(values, temperature) for values in plain[:2]]
    assert [values for values, _ in shown[2:]] == plain[2:]  # another precision, size, and other weights
    # Nothing was compiled again.
    at = f"{folder} has a temperature for 160 x 160 in fp32, not for "
    fits = f"no temperature is used; evaluate DIR --model {folder}"
    assert [notes for _, notes in shown] == [
        "",
        "",
        f"{at}160 x 160 in int8: {fits} --precision int8 --fit-temperature fits one\n",
        f"{at}128 x 128 in fp32: {fits} --image-size 128 --fit-temperature fits one\n",
        f"no temperature of {folder} is used with other weights: "
        f"evaluate DIR --model {folder} --weights {other} --fit-temperature fits one\n",
    ]
    # Each keeps one of its own.
    own_ones = [temperature, temperature]
    for form in forms[2:4]:
        own_ones.append(only(cli("evaluate", data, *form, "--fit-temperature", "-f", "json"))["temperature"])
    assert len(set(own_ones)) == 3
    shown = [(probabilities(cli, image, *form), cli("predict", image, image, *form).stderr) for form in forms[:4]]
    expected = [divided(values, each) for values, each in zip(plain, own_ones, strict=False)]
    assert shown == [(values, "") for values in expected]
    features = cli("features", image, "-m", folder, "--layer", "logits", "-o", "x.npy")
    assert (features.code, features.stderr.count("\n")) == (0, 1)
    powers = np.exp(np.load("x.npy")[0].astype(np.float64))
    assert (powers / powers.sum()).tolist() == pytest.approx(plain[0], abs=1e-5)


@pytest.mark.slow
def test_an_exported_file_keeps_its_temperature(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    image = next(data.rglob("*.png"))
    file = folder.parent / "run.onnx"
    assert cli("export", folder, "-o", file).code == 0
    onnx: list[str | Path] = ["-m", file, "--engine", "auto"]
    plain = probabilities(cli, image, *onnx)
    ended = cli("evaluate", data, *onnx, "--fit-temperature", "-f", "json")
    temperature = only(ended)["temperature"]
    assert f"{file} now has the temperature" in ended.stderr
    assert probabilities(cli, image, *onnx) == divided(plain, temperature)
    assert json.loads(cli("info", file, "-f", "json").stdout)["temperature"] == temperature
    assert only(cli("evaluate", data, *onnx, "--fit-temperature", "-f", "json"))["temperature"] == temperature
    assert stored(folder) is None
    assert cli("evaluate", data, "-m", folder, "--fit-temperature").code == 0
    assert cli("export", folder, "-o", file, "--overwrite").code == 0
    carried = json.loads(cli("info", file, "-f", "json").stdout)["temperature"]
    assert carried == stored(folder) == pytest.approx(temperature, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["name", "weights", "old layout"])
def test_a_note_says_how_to_use_a_temperature_that_cannot_be_stored(
    cli: Cli, own: tuple[Path, Path], where: str
) -> None:
    folder, data = own
    words: list[str | Path] = ["-m", folder]
    if where == "name":
        (folder.parent / "photos" / "espresso").mkdir(parents=True)
        (folder.parent / "photos" / "tabby").mkdir(parents=True)
        shutil.copy(COFFEE, folder.parent / "photos" / "espresso")
        shutil.copy(CAT, folder.parent / "photos" / "tabby")
        data, words = folder.parent / "photos", ["-m", "embedded"]
    elif where == "weights":
        words += ["--weights", folder / "model.safetensors"]
    else:
        content = json.loads((folder / "config.json").read_text())
        old = {**content["pretrained_cfg"], "architecture": content["architecture"], "labels": list(OWN_CLASSES)}
        (folder / "config.json").write_text(json.dumps(old))
    ended = cli("evaluate", data, *words, "--fit-temperature", "-f", "json")
    temperature = only(ended)["temperature"]
    assert "a temperature can be stored only with a model folder's own weights" in ended.stderr
    assert f"--temperature {temperature:.4g}\n" in ended.stderr
    assert stored(folder) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        "1",
        "[1]",
        "{}",
        '[{"precision": "fp32"}]',
        '[{"temperature": 0}]',
        '[{"temperature": 1, "precision": 1}]',
        '[{"temperature": 1, "input_size": 160}]',
        '[{"temperature": 1, "input_size": [3, 160]}]',
        '[{"temperature": 1, "crop_pct": "all"}]',
        '[{"temperature": 1, "other": 1}]',
        f"[{', '.join(['1'] * 1001)}]",
    ],
)
def test_an_invalid_list_of_temperatures_is_refused(cli: Cli, own: tuple[Path, Path], value: str) -> None:
    folder, data = own
    set_temperature(folder, temperatures=json.loads(value))
    ended = cli("predict", next(data.rglob("*.png")), "-m", folder)
    assert (ended.code, ended.stderr.count("\n")) == (1, 2)
    assert f"error: {folder}: config.json has " in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", ["0", "-1", "NaN", "Infinity", '"1"', "true", "null", "[1]", "1e9", "1" + "0" * 400]
)
def test_an_invalid_temperature_is_refused(cli: Cli, own: tuple[Path, Path], value: str) -> None:
    folder, data = own
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(f'{config.rstrip()[:-1]}, "temperature": {value}}}')
    ended = cli("predict", next(data.rglob("*.png")), "-m", folder)
    assert (ended.code, ended.stdout.count("\n")) == (1, 0)
    assert "config.json has the temperature" in ended.stderr
    assert ended.stderr.count("\n") == 2


@pytest.mark.slow
def test_a_read_only_folder_is_an_error_before_the_work(
    cli: Cli, own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: os.path.isfile(path))  # root may write anywhere
    ended = cli("evaluate", own[1], "-m", own[0], "--fit-temperature", "-f", "json")
    assert (ended.code, ended.stdout) == (1, "")
    assert "permission denied" in ended.stderr


@pytest.mark.slow
def test_no_temperature_is_stored_if_all_images_are_right(cli: Cli, photos: Path) -> None:
    shutil.rmtree(photos / "Egyptian_cat")
    ended = cli("evaluate", photos, "--fit-temperature")
    assert ended.code == 1
    assert "of 1 image, too few are classified wrongly" in ended.stderr


# --- abstaining ---


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_predict_abstains_below_the_probability(cli: Cli) -> None:
    words = ["predict", CAT, COFFEE, "--min-probability", "0.9"]
    record, other = map(json.loads, cli(*words, "-f", "jsonl").stdout.splitlines())
    assert record == {
        "input": str(CAT),
        "status": "ok",
        "model": "embedded",
        "predictions": [],
        "abstained": True,
    }
    assert [item["label"] for item in other["predictions"]] == ["espresso"]
    assert "abstained" not in other
    assert cli(*words, "-f", "tsv", "--no-header").stdout.splitlines()[0].split("\t") == [
        str(CAT),
        "abstained",
        *[""] * 6,
    ]
    assert "abstained: no class reaches the minimum probability" in cli(*words, "-f", "table").stdout


@pytest.mark.slow
def test_predict_answers_as_many_images_as_the_coverage_says(cli: Cli, photos: Path) -> None:
    rows = [Coverage(**row) for row in only(cli("evaluate", photos, "-f", "json"))["coverage"]]
    for row in rows:
        ended = cli("predict", photos, "--min-probability", str(row.threshold), "-f", "jsonl")
        answered = ["abstained" not in json.loads(line) for line in ended.stdout.splitlines()]
        assert sum(answered) == row.images
