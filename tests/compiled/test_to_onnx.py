"""export: one file that answers like the model, in an environment that has neither torch nor timm."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.loaders import loader_for
from helpers.paths import ROOT
from helpers.program import ResnetdHere

from resnetd_cli import pull
from resnetd_cli.class_names.shipped import unnamed
from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import BundleKey
from resnetd_cli.compiled.card import Card, GraphOrigin
from resnetd_cli.compiled.exported_file import read_card
from resnetd_cli.errors import ModelError, UnknownModel, UsageError
from resnetd_cli.evaluation.temperature import store_temperature
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.sources.expand import expand
from resnetd_cli.results import Agreement, Classified, FittedTemperature, Preprocessing

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "exported-models.md").read_text(encoding="utf-8")
IMAGES = [str(ROOT / "samples" / name) for name in ("cat.jpg", "coffee.jpg")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a file."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETD_CACHE", str(folder / "cache"))
        pull.export(loader_for("embedded"), folder / "embedded.onnx")
    return folder / "embedded.onnx"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answers(model: str | Path, engine: str = "auto", **options: object) -> list[Classified]:
    classifier = loader_for(str(model), engine=engine, **options).load()  # type: ignore[arg-type]
    return [result for result in classifier.predict(IMAGES) if isinstance(result, Classified)]


def test_the_file_answers_as_the_network_does(exported: Path, cache: Path) -> None:
    expected, first = answers("embedded", "torch"), answers(exported)
    second = answers(exported)  # from the optimised graph, which the first use kept
    bundle = bundles.find(BundleKey(ModelChoice.of(str(exported))))
    assert bundle is not None
    assert (bundle.graph, bundle.optimised.is_file()) == (exported, True)
    for results in (first, second):
        assert [result.model for result in results] == ["embedded", "embedded"]
        for result, wanted in zip(results, expected, strict=True):
            assert [item.label for item in result.predictions] == [item.label for item in wanted.predictions]
            given = [item.probability for item in result.predictions]
            assert np.allclose(given, [item.probability for item in wanted.predictions], rtol=0, atol=1e-5)


def test_an_exported_file_describes_itself(exported: Path, run_here: ResnetdHere) -> None:
    card = read_card(exported)
    assert (card.name, card.precision, card.origin.parameters) == ("embedded", "fp32", 4_652_008)
    assert card.preprocessing.input_size == (3, 224, 224)
    assert (card.class_names.names[967], card.class_names.ids[967]) == ("espresso", "n07920052")
    assert card.origin.weights_sha256.startswith("579344248a93e230")
    facts = json.loads(run_here("info", exported, "-f", "json").stdout)
    assert (facts["model"], facts["engine"], facts["classes"]) == ("embedded", "onnx", 1000)


def test_a_card_survives_json() -> None:
    how = Preprocessing((3, 8, 9), 0.9, "border", "lanczos", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    agreement = Agreement(7, 0.5, 0.25, 0.125, 2.0)
    card = Card("x", how, unnamed(3), GraphOrigin(12, "ab", {"resnetd": "1"}, 64), "int8", agreement)
    assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert set(card.to_json()) == {  # exported files of other versions have these keys
        "format", "name", "preprocessing", "class_names", "parameters", "weights_sha256", "versions", "precision",
        "calibration_images", "agreement", "any_size", "temperature",
    }  # fmt: skip
    with pytest.raises(ValueError, match="another format"):
        Card.from_json({**card.to_json(), "format": 99})


def test_unsupported_options_are_errors(exported: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains its own weights"):
        answers(exported, weights="w.pth")
    with pytest.raises(UsageError, match="has no test size"):
        answers(exported, image_size="test")
    for options in ({"layer": "blocks.1"}, {"precision": "bf16"}, {"engine": "torch"}):
        with pytest.raises(UsageError, match="an exported file runs on the onnx engine"):
            answers(exported, **options)
    with pytest.raises(UsageError, match="is in fp32"):
        answers(exported, precision="int8")
    with pytest.raises(UnknownModel, match="no model file"):
        answers(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:100_000])
    for name in ("text.onnx", "cut.onnx"):
        with pytest.raises(ModelError, match="is not an ONNX file that can be loaded"):
            answers(tmp_path / name)


def test_a_file_of_another_program_is_refused(exported: Path, cache: Path, tmp_path: Path) -> None:
    import onnx

    graph = onnx.load(str(exported))
    for props, message in (
        ({}, "does not say how to prepare images"),
        ({"resnetd": "{"}, "another version of resnetd, or damaged"),
        ({"resnetd": "[]"}, "another version of resnetd, or damaged"),
        ({"resnetd": '{"format": 99}'}, "another version of resnetd, or damaged"),
    ):
        del graph.metadata_props[:]
        onnx.helper.set_model_props(graph, props)
        onnx.save(graph, str(tmp_path / "other.onnx"))
        with pytest.raises(ModelError, match=message):
            answers(tmp_path / "other.onnx")


def test_a_file_that_changed_is_read_anew(exported: Path, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.read_bytes())
    assert answers(path)[1].predictions[0].label == "espresso"
    (tmp_path / "names.txt").write_text("\n".join(f"name {number}" for number in range(1000)))
    pull.export(loader_for("embedded", class_names=str(tmp_path / "names.txt")), path)
    assert answers(path)[1].predictions[0].label == "name 967"


def test_a_read_only_cache_does_not_prevent_answers(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "file"))
    before = sorted(exported.parent.iterdir())
    notes: list[str] = []
    assert answers(exported, note=notes.append)[1].predictions[0].label == "espresso"
    assert notes == ["the compiled model cannot be kept: Not a directory"]
    assert sorted(exported.parent.iterdir()) == before


def test_a_damaged_bundle_is_not_exported(cache: Path, tmp_path: Path) -> None:
    bundle = loader_for("embedded").compile()
    data = bytearray(bundle.graph.read_bytes())
    data[len(data) // 2] ^= 255
    bundle.graph.write_bytes(data)
    pull.export(loader_for("embedded"), tmp_path / "x.onnx")
    agreement = pull.verify_file(
        loader_for("embedded"),
        tmp_path / "x.onnx",
        expand(IMAGES),
        on_failure=lambda failure: pytest.fail(str(failure)),
    )
    assert (agreement.images, agreement.top1_agreement) == (2, 1.0)
    assert agreement.largest_difference < 1e-5


def test_on_the_command_line(run_here: ResnetdHere, tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    words = ["export", "embedded", "-o", path, "--verify", *IMAGES, ROOT / "LICENSE", "-f", "json"]
    finished = run_here(*words)
    assert finished.returncode == 3, finished.stderr  # the licence is no image
    figures = json.loads(finished.stdout)
    assert (figures["images"], figures["top1_agreement"]) == (2, 1.0)
    assert figures["largest_difference"] < 1e-5
    assert f"{path}: embedded in fp32, 18.8 MB" in finished.stderr
    assert finished.stderr.count("not an image") == 1
    again = run_here(*words)
    assert (again.returncode, again.stdout) == (2, "")
    assert "exists" in again.stderr
    nothing = run_here("export", "embedded", "-o", path, "--overwrite", "--verify", ROOT / "LICENSE")
    assert (nothing.returncode, nothing.stdout) == (3, "")
    assert "no image to compare with" in nothing.stderr
    assert path.is_file()


def test_the_example_with_onnxruntime_gives_what_predict_does_once_a_temperature_is_stored(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    file = Path(shutil.copy(exported, tmp_path / "embedded.onnx"))
    store_temperature(file, FittedTemperature.at(1.7, read_card(file).preprocessing, "fp32"))
    (code,) = re.findall(r"```python\n(import json\n.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    (expected,) = loader_for(str(file), engine="auto").load().probabilities(expand(["samples/coffee.jpg"]))
    assert isinstance(expected, np.ndarray)
    assert np.abs(names["probabilities"] - expected).max() < 1e-5
    # Without it the first class has 95.46 %.
    assert capsys.readouterr().out == f"espresso {expected.max():.2%}\n"
    assert expected.max() < 0.9
