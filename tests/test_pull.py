"""`pull` and int8: compiling and quantising models ahead of use, and verifying them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.hub import Hub, write_model
from helpers.limits import largest_file
from helpers.loaders import loader_for
from helpers.paths import CAT, COFFEE
from helpers.program import ENDLESS_COMPILATION, Cli, Resnetd, ResnetdHere
from typer.main import get_command

from resnetd_cli import pull
from resnetd_cli.cli.app import app
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.cli.input_arguments import images_of
from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import BundleKey
from resnetd_cli.errors import CacheError, InputError, ModelError, UsageError
from resnetd_cli.loading import Loader
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.engines.base import Wanted
from resnetd_cli.pipeline.sources.expand import Source, expand
from resnetd_cli.results import Classified, Failure

IMAGES = [str(CAT), str(COFFEE)]
SMALL = "test_resnet.r160_in1k"
FP32, INT8 = (loader_for("embedded", engine="auto", precision=precision) for precision in ("fp32", "int8"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the embedded model in fp32 and int8."""
    folder = tmp_path_factory.mktemp("pulled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETD_CACHE", str(folder))
        pull.pull(INT8, list(expand(IMAGES)), on_failure=fail)
    return folder


@pytest.fixture
def with_int8(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETD_CACHE", str(pulled))
    return pulled


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small model in a folder, with which to compile is quick."""
    write_model(tmp_path / "small", SMALL, [str(number) for number in range(1000)])
    return tmp_path / "small"


@pytest.fixture
def small_hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.add_timm_model(SMALL)
        yield hub


def fail(failure: Failure) -> None:
    raise AssertionError(failure)


def top(loader: Loader) -> list[tuple[str, float]]:
    results = list(loader.load().predict(IMAGES, top_k=1))
    return [(r.predictions[0].label, r.predictions[0].probability) for r in results if isinstance(r, Classified)]


# --- parsing the command line ---


@pytest.mark.parametrize(
    ("words", "models", "calibrate", "verify"),
    [
        (["a", "--calibrate", "b", "c", "--verify", "d"], ["a"], ["b", "c"], ["d"]),
        (["a", "b", "--verify", "c", "-q", "--calibrate", "d", "e"], ["a", "b"], ["d", "e"], ["c"]),
        (["--calibrate=b", "a"], ["a"], ["b"], None),
        (["--calibrate", "b", "-f", "json", "a"], ["a"], ["b"], None),
        (["a", "--verify", "b", "--verify", "c", "d"], ["a"], None, ["b", "c", "d"]),
    ],
)
def test_option_takes_all_words_up_to_next_option(
    words: list[str], models: list[str], calibrate: list[str] | None, verify: list[str] | None
) -> None:
    command = get_command(app).commands["pull"]  # type: ignore[attr-defined]
    parameters = command.make_context("pull", words).params
    assert list(parameters["models"]) == models
    assert (parameters["calibrate"] or None) == calibrate
    assert (parameters["verify"] or None) == verify


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pull", "embedded", "--calibrate"], "requires an argument"),
        (["pull", "embedded", "--calibrate", "--precision", "int8"], "requires an argument"),
        (["pull"], "Missing argument 'MODEL...'"),
        (["pull", "embedded", "--calibrate", "x"], "--calibrate requires --precision int8"),
        (["pull", "embedded", "--precision", "int8"], "int8 needs calibration images"),
        (["pull", "embedded", "--precision", "bf16"], "bf16 runs on torch, without compiling"),
        (["pull", "embedded", "--precision", "int4"], "no precision called 'int4'"),
        (["pull", "embedded", "--verify", "-"], "--verify does not read standard input"),
        (["pull", "x.onnx"], "x.onnx is already compiled"),
        (["pull", "embedded", "resnet50q"], "resnet50q"),
        (["export", "embedded"], "the model goes to a file whose name ends in .onnx"),
        (["export", "embedded", "-o", "x.pt"], "the model goes to a file whose name ends in .onnx"),
        (["export", "embedded", "-o", "-"], "the model goes to a file whose name ends in .onnx"),
        (["export", "embedded", "-o", "x.onnx", "--precision", "int8"], "int8 needs calibration images"),
        (["predict", "x.jpg", "-m", "x.onnx", "--engine", "auto"], "no model file x.onnx"),
        (["predict", "x.jpg", "--precision", "int4"], "no precision called 'int4'"),
        (["predict", "x.jpg", "--precision", "int8", "--engine", "torch"], "int8 runs on the onnx engine"),
    ],
)
def test_wrong_usage_is_reported_before_any_work(
    words: list[str],
    message: str,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from resnetd_cli.cli.app import run

    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert not cache.exists()
    assert list(tmp_path.iterdir()) == []


def test_calibration_images_are_spread_over_sorted_folder() -> None:
    sources = [Source(str(number), bytes) for number in range(1000)]
    chosen = [int(source.name) for source in pull._spread(sources, 256)]
    assert len(set(chosen)) == 256
    assert chosen[:3] == [0, 3, 7]
    assert chosen[-1] == 996
    assert pull._spread(sources[:5], 256) == sources[:5]


def test_option_without_words_means_no_images() -> None:
    assert images_of("--verify", None) is None
    assert images_of("--verify", []) is None


# --- int8 ---


@pytest.mark.slow
def test_int8_agrees_with_fp32_at_a_quarter_of_the_size(with_int8: Path) -> None:
    fp32, int8 = (bundles.find(BundleKey(ModelChoice.of("embedded"), precision)) for precision in ("fp32", "int8"))
    assert fp32 is not None
    assert int8 is not None
    assert int8.card.precision == "int8"
    assert int8.card.origin.calibration_images == 2
    assert 0.25 < int8.graph.stat().st_size / fp32.graph.stat().st_size < 0.3
    expected, given = top(FP32), top(INT8)
    assert [label for label, _ in given] == [label for label, _ in expected] == ["tiger cat", "espresso"]
    assert 0 < max(abs(a - b) for (_, a), (_, b) in zip(expected, given, strict=True)) < 0.1


@pytest.mark.slow
def test_int8_graph_has_constant_padding(with_int8: Path) -> None:
    import onnx

    bundle = bundles.find(BundleKey(ModelChoice.of("embedded")))
    assert bundle is not None
    operators = {node.op_type for node in onnx.load(str(bundle.optimised)).graph.node}
    assert "Conv" in operators
    assert not operators & {"Shape", "Ceil", "Div", "Cast"}


@pytest.mark.slow
def test_int8_model_has_features(with_int8: Path) -> None:
    fp32, int8 = (
        np.stack([r.embedding for r in loader.load().embed(IMAGES)])  # type: ignore[union-attr]
        for loader in (replace(each, wanted=Wanted(logits=False, layer="pooled")) for each in (FP32, INT8))
    )
    assert int8.shape == fp32.shape == (2, 1280)
    similarity = (int8 * fp32).sum(1) / np.linalg.norm(int8, axis=1) / np.linalg.norm(fp32, axis=1)
    assert similarity.min() > 0.95
    assert not np.array_equal(int8, fp32)


@pytest.mark.slow
def test_verify_stores_figures_with_model(with_int8: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    failures: list[Failure] = []
    sources = list(expand([*IMAGES, str(tmp_path / "broken.jpg")]))
    agreement = pull.verify(INT8, sources, on_failure=failures.append)
    assert (agreement.images, agreement.top1_agreement) == (2, 1.0)
    assert 0.0 < agreement.mean_difference <= agreement.largest_difference < 0.1
    assert agreement.speed_up > 0
    assert [failure.kind.value for failure in failures] == ["undecodable"]
    bundle = bundles.find(INT8.bundle_key)
    assert bundle is not None
    assert bundle.card.agreement == agreement
    assert top(INT8)[1][0] == "espresso"
    with pytest.raises(InputError, match="no image to compare with"):
        pull.verify(INT8, sources[2:], on_failure=failures.append)


@pytest.mark.slow
def test_missing_int8_form_is_error_with_hint_how_to_make_it(cache: Path) -> None:
    with pytest.raises(ModelError, match="there is no int8 form of embedded on this machine") as caught:
        INT8.load()
    assert hint_of(caught.value) == "resnetd pull embedded --precision int8 --calibrate FOLDER"


@pytest.mark.slow
def test_int8_without_readable_image_is_an_error(with_int8: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    failures: list[Failure] = []
    with pytest.raises(UsageError, match="no image to calibrate with"):
        pull.pull(INT8, list(expand([str(tmp_path)])), on_failure=failures.append)
    assert len(failures) == 1
    assert bundles.find(INT8.bundle_key) is not None  # the existing form is kept
    assert not list(with_int8.glob("bundles/.*"))


@pytest.mark.slow
def test_pull_and_info_report_the_same_int8_form(run_here: ResnetdHere) -> None:
    words = ["pull", "embedded", "--precision", "int8", "--calibrate", *IMAGES, "--verify", *IMAGES, "-f", "json"]
    finished = run_here(*words, RESNETD_ENGINE="auto")
    assert finished.returncode == 0, finished.stderr
    (row,) = json.loads(finished.stdout)
    figures = ("model", "precision", "engine", "failure", "calibration_images", "images", "top1_agreement")
    assert [row[key] for key in figures] == ["embedded", "int8", "onnx", None, 2, 2, 1.0]
    assert finished.stderr.splitlines() == [
        "compiling embedded once, so that later starts are faster",
        "calibrating embedded with 2 images",
    ]
    facts = json.loads(run_here("info", "embedded", "-f", "json", RESNETD_ENGINE="auto").stdout)
    assert (facts["engine"], facts["engine_why"]) == ("onnx", "it is compiled")
    assert facts["int8"] == row["folder"]
    assert (facts["int8_calibration_images"], facts["int8_images"]) == (2, 2)
    assert facts["int8_largest_difference"] == row["largest_difference"] > 0
    by_torch = json.loads(run_here("info", "embedded", "-f", "json", RESNETD_ENGINE="torch").stdout)
    assert (by_torch["engine"], by_torch["engine_why"]) == ("torch", "it was asked for")
    table = run_here("info", "embedded", "-f", "table", RESNETD_ENGINE="auto").stdout
    assert "onnx: it is compiled" in table
    assert "100.0%" in table
    again = run_here("pull", "embedded", "--precision", "int8", "-f", "json", RESNETD_ENGINE="auto")
    assert json.loads(again.stdout) == [row]
    assert again.stderr == ""
    answer = run_here("predict", IMAGES[1], "-m", "embedded", "--precision", "int8", "-v", RESNETD_ENGINE="auto")
    assert "espresso" in answer.stdout
    assert answer.stderr.splitlines()[0] == "embedded runs on onnx in int8: it is compiled"


@pytest.mark.slow
def test_unreadable_images_give_exit_code_3(
    run_here: ResnetdHere, without_torch: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(without_torch["RESNETD_CACHE"], run_here.home / "resnetd")
    words = ["pull", "embedded", "--verify", tmp_path / "absent.jpg", *IMAGES, "-f", "table"]
    finished = run_here(*words)
    assert finished.returncode == 3
    assert "absent.jpg: no such file" in finished.stderr
    for part in ("embedded in fp32, on onnx", "2 images", "100.0%", "times as many images per second"):
        assert part in finished.stdout


@pytest.mark.slow
def test_model_without_classifier_is_quantised(cache: Path, tmp_path: Path) -> None:
    import timm
    import torch
    from timm.models._hub import save_for_hf

    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_resnet", num_classes=0).eval(), tmp_path / "m", safe_serialization=True)
    loader = loader_for(str(tmp_path / "m"), engine="auto", precision="int8", layer="pooled", logits=False)
    pull.pull(loader, list(expand(IMAGES)), on_failure=fail)
    first, second = loader.load().embed(IMAGES)
    assert not np.array_equal(first.embedding, second.embedding)  # type: ignore[union-attr]


@pytest.mark.slow
def test_failed_model_does_not_stop_the_others(
    run_here: ResnetdHere, small_hub: Hub, without_torch: dict[str, str]
) -> None:
    shutil.copytree(without_torch["RESNETD_CACHE"], run_here.home / "resnetd")
    words = ["pull", SMALL, "resnet34d", "embedded", "--no-header", "-f", "tsv"]
    finished = run_here(*words, endpoint=small_hub.endpoint)
    assert finished.returncode == 1
    rows = [line.split("\t")[:3] for line in finished.stdout.splitlines()]
    assert rows == [[SMALL, "fp32", "onnx"], ["embedded", "fp32", "onnx"]]
    assert "error: resnet34d: " in finished.stderr
    # Pulled models need neither compiling nor the hub.
    answer = run_here("predict", IMAGES[0], "-m", SMALL, "-v", RESNETD_ENGINE="auto")
    assert answer.returncode == 0
    assert answer.stderr == f"{SMALL} runs on onnx: it is compiled\n"


@pytest.mark.slow
def test_new_revision_on_hub_is_compiled_again(run_here: ResnetdHere, small_hub: Hub) -> None:
    run_here("pull", SMALL, endpoint=small_hub.endpoint)
    arguments = ("predict", *IMAGES, "-m", SMALL, "-k", "1")
    assert run_here(*arguments, RESNETD_ENGINE="auto").stderr == ""
    (main,) = run_here.hub_cache.glob("*/refs/main")
    (snapshot,) = run_here.hub_cache.glob("*/snapshots/*")
    snapshot.rename(snapshot.with_name("f" * 40))
    main.write_text("f" * 40)
    assert f"compiling {SMALL}" in run_here(*arguments, RESNETD_ENGINE="auto").stderr


# --- 16-bit floats and devices ---


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bit_floats_run_on_torch(cache: Path, precision: str) -> None:
    import torch

    loader = loader_for("embedded", engine="auto", precision=precision)
    classifier = loader.load()
    assert (classifier.engine.name, classifier.why) == ("torch", f"the precision is {precision}")
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    network = classifier.engine.network  # type: ignore[attr-defined]
    assert {parameter.dtype for parameter in network.parameters()} == {wanted}
    (coffee,) = classifier.predict(IMAGES[1], top_k=1)
    assert isinstance(coffee, Classified)
    assert coffee.predictions[0].label == "espresso"
    assert coffee.predictions[0].probability == pytest.approx(0.9546, abs=0.02)
    assert coffee.predictions[0].probability != pytest.approx(0.9546364, abs=1e-6)
    with pytest.raises(UsageError, match=f"the precision is {precision}"):
        loader_for("embedded", engine="onnx", precision=precision).load()


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps"])
def test_missing_device_is_an_error(device: str, cache: Path) -> None:
    import torch

    if getattr(torch, device.partition(":")[0]).is_available():
        pytest.skip("it is there")
    with pytest.raises(UsageError, match=f"the device {device} is not on this machine") as caught:
        loader_for("embedded", device=device, engine="auto").load()
    assert hint_of(caught.value) is not None
    assert "available: cpu" in hint_of(caught.value)


@pytest.mark.slow
def test_torch_looks_for_gpu_only_for_many_images_and_with_driver(
    with_int8: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    asked: list[str] = []

    def choose(name: str) -> torch.device:
        asked.append(name)
        return torch.device("meta")

    monkeypatch.setattr("resnetd_cli.loading.choose_device", choose)
    monkeypatch.setattr("resnetd_cli.loading.gpu_is_likely", lambda: True)
    many = loader_for("embedded", engine="auto")
    assert many._why_network() == "the device is meta"
    assert asked == ["auto"]
    alone = loader_for("embedded", engine="auto", single=True)
    on_cpu = loader_for("embedded", engine="auto", device="cpu")
    for other in (alone, on_cpu, INT8, loader_for("x.onnx", engine="auto")):
        assert other._why_network() is None
    monkeypatch.setattr("resnetd_cli.loading.gpu_is_likely", lambda: False)
    assert many._why_network() is None
    assert asked == ["auto"]


# --- full disk, killed process, unwritable cache ---


def answers_in(rows: str) -> list[tuple[str, float]]:
    """Return label and probability of each row; engines differ in the last digits."""
    return [(cells[5], round(float(cells[6]), 4)) for cells in (line.split("\t") for line in rows.splitlines())]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="file sizes have no limit to set")
@pytest.mark.parametrize("room", [0, 1000, 1_000_000])
def test_full_disk_does_not_stop_predictions_and_leaves_nothing(
    room: int, cli: Cli, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["predict", *IMAGES, "-m", small, "-k", "1", "--no-header"]
    expected = answers_in(cli(*words, "--engine", "torch").stdout)
    assert len(expected) == 2
    # Else the limit would leave the program's own modules half compiled.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with largest_file(room):
        answered = cli(*words, "--engine", "auto")
        refused = cli("pull", small)
    assert answered.code == 0, answered.stderr
    assert answers_in(answered.stdout) == expected
    assert "the compiled model cannot be kept: " in answered.stderr
    assert "runs on the torch engine" not in answered.stderr  # the disk is to blame, not the model
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert refused.code == 1
    assert refused.stderr.splitlines()[-1] == "hint: RESNETD_CACHE names another folder"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_kill_while_compiling_does_not_affect_later_run(
    run_resnetd: Resnetd, cli: Cli, cache: Path, small: Path
) -> None:
    words = ["predict", *IMAGES, "-m", small, "-k", "1", "--no-header", "--engine", "auto"]
    process = run_resnetd.start(*words, program=("-c", ENDLESS_COMPILATION), RESNETD_CACHE=str(cache))
    until(lambda: any(cache.glob("bundles/.making-*/*")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = cache.glob("bundles/.making-*")
    assert bundles.find(BundleKey(ModelChoice.of(str(small)))) is None
    days_ago = time.time() - 3 * 24 * 3600
    os.utime(left, (days_ago, days_ago))
    finished = cli(*words)
    assert finished.code == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 2
    bundle = bundles.find(BundleKey(ModelChoice.of(str(small))))
    assert bundle is not None
    assert list((cache / "bundles").iterdir()) == [bundle.folder]


def test_unwritable_cache_is_an_error_in_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="the compiled model cannot be kept: ") as caught:
        bundles.write(BundleKey(ModelChoice.of("embedded")), lambda folder: pytest.fail(f"made {folder}"))
    assert hint_of(caught.value) == "RESNETD_CACHE names another folder"
