"""The OpenVINO engine against the ONNX engine, on the compiled embedded model."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.onnx_models import tiny, write_onnx
from helpers.paths import CAT, COFFEE
from helpers.program import Cli

from resnetd_cli.errors import ModelError
from resnetd_cli.loading import load
from resnetd_cli.pipeline.engines.base import EngineOptions, Wanted
from resnetd_cli.pipeline.engines.onnx import OnnxEngine
from resnetd_cli.pipeline.engines.openvino import OpenVinoEngine
from resnetd_cli.pipeline.options import Runtime
from resnetd_cli.results import Classified

pytest.importorskip("openvino")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled")]


@pytest.fixture(scope="module")
def graph(without_torch: dict[str, str]) -> Path:
    (path,) = Path(without_torch["RESNETD_CACHE"]).glob("bundles/embedded*/model.onnx")
    return path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 224, 224)).astype(np.float32)


@pytest.mark.parametrize(
    ("logits", "layer"), [(True, None), (True, "pooled"), (True, "logits"), (False, "pooled"), (False, "logits")]
)
def test_outputs_equal_those_of_onnx_runtime(
    graph: Path, images: np.ndarray, logits: bool, layer: str | None
) -> None:
    options = EngineOptions(Wanted(logits, layer), size=(224, 224))
    ours, theirs = (kind(graph, options).run(images) for kind in (OpenVinoEngine, OnnxEngine))
    for name in ("logits", "features"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None)
        if other is not None:
            assert mine.dtype == np.float32
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_answers_stay_when_the_engine_runs_again(graph: Path, images: np.ndarray) -> None:
    engine = OpenVinoEngine(graph, EngineOptions(size=(224, 224)))
    first = engine.run(images[:1]).logits
    assert first is not None
    before = first.copy()
    engine.run(images[1:2])
    assert np.array_equal(first, before)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads_may_call_it_at_once(graph: Path, images: np.ndarray, threads: int | None) -> None:
    engine = OpenVinoEngine(graph, EngineOptions(threads=threads, size=(224, 224)))
    alone = [engine.run(images[[number]]).logits for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(lambda number: engine.run(images[[number % 3]]).logits, range(12)))
    for number, logits in enumerate(at_once):
        np.testing.assert_allclose(logits, alone[number % 3], rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]


def test_size_and_classes_are_the_graphs(graph: Path) -> None:
    engine = OpenVinoEngine(graph, EngineOptions(size=(224, 224)))
    assert (engine.classes, engine.input_size, engine.name) == (1000, (3, 224, 224), "openvino")


def test_graph_of_another_input_is_refused(tmp_path: Path) -> None:
    model = tiny()
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    path = write_onnx(tmp_path / "other.onnx", model)
    with pytest.raises(ValueError, match="does not take images"):
        OpenVinoEngine(path)


def test_images_of_another_size_are_one_error(graph: Path, images: np.ndarray) -> None:
    engine = OpenVinoEngine(graph, EngineOptions(size=(224, 224)))
    with pytest.raises(ModelError, match=r"the model's graph cannot be run: "):
        engine.run(images[:, :, :64, :64])


def test_predictions_equal_those_of_onnx_runtime(cli: Cli) -> None:
    ours, theirs = (
        next(iter(load("embedded", runtime=Runtime(engine)).predict([COFFEE]))) for engine in ("openvino", "onnx")
    )
    assert isinstance(ours, Classified) and isinstance(theirs, Classified)
    for mine, other in zip(ours.predictions, theirs.predictions, strict=True):
        assert mine.label == other.label
        assert mine.probability == pytest.approx(other.probability, abs=1e-5)
    finished = cli("predict", COFFEE, "--engine", "openvino", "-v", "-f", "tsv")
    assert finished.stderr.splitlines()[0] == "embedded runs on openvino: it is compiled"
    assert finished.code == 0


def test_engine_that_is_not_installed_names_the_package(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    finished = cli("predict", COFFEE, "--engine", "openvino")
    assert finished.code == 2
    assert finished.stderr.splitlines() == [
        "error: the openvino engine is not installed",
        "hint: pip install 'resnetd[openvino]'",
    ]


def test_precision_that_it_lacks_is_refused(cli: Cli) -> None:
    finished = cli("predict", COFFEE, "--engine", "openvino", "--precision", "fp16")
    assert finished.code == 2
    assert finished.stderr.startswith("error: embedded cannot run on the openvino engine: the precision is fp16\n")


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that computes in bf16, as far as the program can tell. OpenVINO knows better, and takes fp32."""
    for module in ("table", "openvino"):
        monkeypatch.setattr(f"resnetd_cli.pipeline.engines.{module}.multiplies_bf16", lambda: True)


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("table", "openvino"):
        monkeypatch.setattr(f"resnetd_cli.pipeline.engines.{module}.multiplies_bf16", lambda: False)


def test_bf16_runs_on_openvino_where_the_processor_has_it(cli: Cli, with_bf16: None) -> None:
    finished = cli("predict", COFFEE, "--precision", "bf16", "-v", "-k", "1", "-f", "tsv", "--no-header")
    assert finished.stderr.splitlines()[0] == "embedded runs on openvino in bf16: it is compiled"
    assert finished.stdout.split("\t")[5] == "espresso"


def test_bf16_runs_on_torch_without_openvino(cli: Cli, with_bf16: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    finished = cli("predict", COFFEE, "--precision", "bf16", "-v", "-k", "1")
    assert finished.stderr.splitlines()[0] == "embedded runs on torch in bf16: the precision is bf16"


def test_processor_without_bf16_is_a_clear_error(cli: Cli, without_bf16: None) -> None:
    finished = cli("predict", COFFEE, "--precision", "bf16", "--engine", "openvino")
    assert finished.code == 2
    assert finished.stderr.splitlines() == [
        "error: this processor does not compute in bf16",
        "hint: it takes one with AVX512_BF16 or AMX",
    ]
    assert cli("pull", "embedded", "--precision", "bf16").code == 2


def test_pull_compares_bf16_with_fp32(cli: Cli, with_bf16: None) -> None:
    finished = cli("pull", "embedded", "--precision", "bf16", "--verify", COFFEE, CAT, "-f", "json")
    assert finished.code == 0, finished.stderr
    (row,) = json.loads(finished.stdout)
    assert (row["precision"], row["engine"], row["images"], row["top1_agreement"]) == ("bf16", "openvino", 2, 1.0)
    assert row["folder"] == json.loads(cli("pull", "embedded", "-f", "json").stdout)[0]["folder"]
    assert json.loads(cli("pull", "embedded", "-f", "json").stdout)[0]["images"] is None
