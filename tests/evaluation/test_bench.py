"""`bench`: what is measured, what is concluded from it, and what the command prints. No test asserts seconds."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_pipeline import FakeEngine
from helpers.paths import ROOT
from numpy.typing import NDArray
from PIL import Image

from resnetd_cli.class_names import shipped
from resnetd_cli.classifier import Classifier
from resnetd_cli.cli.app import run
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError, ModelError, ResnetdError, UsageError
from resnetd_cli.evaluation import bench
from resnetd_cli.evaluation.bench import BenchReport, Trial
from resnetd_cli.loading import Loader
from resnetd_cli.pipeline.engines import table
from resnetd_cli.pipeline.engines.base import Outputs
from resnetd_cli.pipeline.options import Parallelism
from resnetd_cli.pipeline.sources.expand import Source, expand
from resnetd_cli.results import Preprocessing
from resnetd_cli.views.bench import write_ranking, write_report

HOW = Preprocessing((3, 32, 32), 1.0, "center", "bilinear", (0.0,) * 3, (1.0,) * 3)
COFFEE = str(ROOT / "samples" / "coffee.jpg")
TRIAL_KEYS = ["workers", "threads", "batch_size", "images_per_second", "images", "runs"]
REPORT_KEYS = [
    "model",
    "engine",
    "precision",
    "why",
    "cpus",
    "images",
    "stages_ms",
    "bottleneck",
    "default",
    "best",
    "gain",
]


class Engine(FakeEngine):
    """Takes a time of its own for each number of images, and runs one batch at a time."""

    name = "fake"

    def __init__(self, seconds: Callable[[int], float], most: int = 99) -> None:
        super().__init__()
        self.takes = seconds
        self.most = most
        self.lock = threading.Lock()

    def run(self, images: NDArray[Any]) -> Outputs:
        if len(images) > self.most:
            raise MemoryError
        with self.lock:
            threading.Event().wait(self.takes(len(images)))
        return super().run(images)


def loader(seconds: Callable[[int | None, int], float], most: int = 99) -> Callable[[int | None], Classifier]:
    """Return what loads a model that takes these seconds, by the threads and the size of the batch."""
    names = shipped.unnamed(FakeEngine.classes)

    def load(threads: int | None) -> Classifier:
        engine = Engine(lambda size: seconds(threads, size), most)
        return Classifier("fake", engine, HOW, names, parallelism=Parallelism(2, threads or 1), why="it is a fake")

    return load


def sample() -> bench.Sample:
    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "PNG")
    return bench.Sample((Source("x.png", picture.getvalue),))


def trial(rate: float, runs: int = 1, **settings: int | None) -> Trial:
    return Trial(Parallelism(**{"workers": 2, "threads": 1, "batch_size": 1, **settings}), rate, 10 * runs, runs)  # type: ignore[arg-type]


def report(*trials: Trial, **stages: float) -> BenchReport:
    stages = {"read": 0.001, "decode": 0.004, "preprocess": 0.002, "model": 0.033, **stages}
    return BenchReport("fake", "onnx", "fp32", "it is compiled", 2, 32, stages, trials[0], trials)


@pytest.mark.parametrize("stage", bench.STAGES)
def test_the_bottleneck_is_the_stage_that_takes_longest(stage: str) -> None:
    assert report(trial(1), **{stage: 1.0}).bottleneck == stage


def test_a_slow_model_is_found_to_be_the_bottleneck() -> None:
    measured = bench.measure(loader(lambda *_: 0.02), sample(), cpus=1, seconds=0.2)
    assert measured.bottleneck == "model"
    assert measured.stages["model"] > 0.02
    assert list(measured.stages) == list(bench.STAGES)


def test_a_slow_source_is_found_to_be_the_bottleneck() -> None:
    def read() -> bytes:
        threading.Event().wait(0.05)
        return Path(COFFEE).read_bytes()

    slow = bench.read_sample([Source("slow.jpg", read)], "fake")
    assert bench.measure(loader(lambda *_: 0.0), slow, cpus=1, seconds=0.1).bottleneck == "read"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "attribute", "value"),
    [
        (lambda threads, size: size * (0.004 if threads == 2 else 0.02), "threads", 2),
        (lambda threads, size: 0.02, "batch_size", 4),
    ],
    ids=["threads", "batch"],
)
def test_the_best_settings_are_the_quickest_that_were_tried(
    seconds: Callable[[int | None, int], float], attribute: str, value: int
) -> None:
    measured = bench.measure(loader(seconds), sample(), cpus=2, seconds=5.0)
    assert getattr(measured.best.settings, attribute) == value
    assert measured.default.settings == Parallelism(workers=2, threads=1, batch_size=1)
    assert measured.default in measured.trials
    assert measured.gain > 1.5
    ranks = [(trial.runs, trial.images_per_second) for trial in measured.trials]
    assert ranks == sorted(ranks, reverse=True)
    assert measured.best == measured.trials[0]
    assert {trial.settings for trial in measured.trials} <= {*bench.candidates(2, [1, 2, 4])}


@pytest.mark.slow
def test_a_given_batch_size_is_the_only_one_tried() -> None:
    load = loader(lambda *_: 0.001)
    measured = bench.measure(
        lambda threads: replace(load(threads), parallelism=Parallelism(2, threads or 1, 3)),
        sample(),
        cpus=2,
        seconds=1,
        batch_size=3,
    )
    assert {trial.settings.batch_size for trial in measured.trials} == {3}
    assert len(measured.trials) > 1


def test_the_default_is_measured_even_without_time() -> None:
    measured = bench.measure(loader(lambda *_: 0.001), sample(), cpus=2, seconds=0)
    assert [trial.settings for trial in measured.trials] == [Parallelism(2, 1, 1)]
    assert measured.gain == 1
    assert measured.best.images >= 2


@pytest.mark.slow
def test_settings_that_fail_are_left_out() -> None:
    measured = bench.measure(loader(lambda *_: 0.001, most=2), sample(), cpus=2, seconds=2)
    assert {trial.settings.batch_size for trial in measured.trials} == {1, 2}


def test_a_model_that_fails_by_default_is_an_error() -> None:
    with pytest.raises(MemoryError):
        bench.measure(loader(lambda *_: 0.0, most=0), sample(), cpus=2, seconds=1)


def test_a_single_lucky_run_does_not_beat_the_median_of_many() -> None:
    lucky, steady, default = trial(30, workers=3), trial(25, 5, threads=2), trial(20, 5)
    measured = replace(report(lucky, steady, default), default=default)
    assert measured.best == steady
    assert measured.gain == 1.25


@pytest.mark.parametrize(
    ("cpus", "shapes"),
    [
        (1, {(1, 1), (2, 1)}),
        (2, {(2, 1), (3, 1), (1, 2), (2, 2)}),
        (6, {(6, 1), (7, 1), (3, 2), (4, 2), (1, 4), (2, 4), (1, 6), (2, 6)}),
    ],
)
def test_candidates_keep_every_processor_busy(cpus: int, shapes: set[tuple[int, int]]) -> None:
    found = bench.candidates(cpus, [1, 8])
    assert {(settings.workers, settings.threads) for settings in found} == shapes
    assert len(found) == len(set(found)) == 2 * len(shapes)


def test_the_sample_is_read_once_and_lists_failures_separately(tmp_path: Path) -> None:
    reads: list[str] = []

    def read() -> bytes:
        reads.append("x")
        return Path(COFFEE).read_bytes()

    (tmp_path / "x.txt").write_text("text")
    taken = bench.read_sample([*expand([str(tmp_path / "x.txt"), "gone.jpg"]), Source("ok", read)], "fake")
    assert [failure.kind for failure in taken.failures] == [ErrorKind.UNDECODABLE, ErrorKind.NOT_FOUND]
    assert [image.name for image in taken.images] == ["ok"]
    assert taken.images[0].read() == taken.images[0].read() == Path(COFFEE).read_bytes()
    assert reads == ["x"]


def test_a_sample_of_an_endless_list_ends() -> None:
    def endless() -> Iterator[Source]:
        while True:
            yield Source("ok", Path(COFFEE).read_bytes)

    assert len(bench.read_sample(endless(), "fake").images) == 32


def test_no_sample_is_an_error() -> None:
    def fail() -> bytes:
        raise InputError(ErrorKind.EMPTY, "zero bytes", hint="look at it")

    with pytest.raises(ResnetdError, match=r"^no image to measure with: a: zero bytes$") as raised:
        bench.read_sample([Source("a", fail), Source("b", fail)], "fake")
    assert hint_of(raised.value) == "look at it"
    with pytest.raises(UsageError, match="no input"):
        bench.read_sample([], "fake")


@pytest.mark.slow
def test_the_synthetic_sample_is_always_the_same_and_photograph_like() -> None:
    first, second = bench.synthetic_sample(), bench.synthetic_sample()
    assert [image.read() for image in first.images] == [image.read() for image in second.images]
    assert len({image.read() for image in first.images}) == 8
    for source in first.images:
        picture = Image.open(io.BytesIO(source.read()))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (500, 375))
        assert 50_000 < len(source.read()) < 150_000


def test_the_record_has_documented_keys() -> None:
    measured = report(trial(20.123), trial(25, threads=None))
    record = measured.record()
    assert list(record) == [*REPORT_KEYS, "trials"]
    assert record["stages_ms"] == {"read": 1.0, "decode": 4.0, "preprocess": 2.0, "model": 33.0}
    assert record["default"] == {
        "workers": 2,
        "threads": 1,
        "batch_size": 1,
        "images_per_second": 20.12,
        "images": 10,
        "runs": 1,
    }
    assert record["best"] == record["trials"][1]
    assert record["gain"] == 1.242
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in page for key in [*record, *TRIAL_KEYS])


def written(measured: BenchReport, format_name: str) -> str:
    stream = io.StringIO()
    write_report(measured, stream, format_name)
    return stream.getvalue()


def test_every_format_says_what_was_measured() -> None:
    measured = report(trial(20, 3), trial(25, 3, threads=2, workers=1))
    assert json.loads(written(measured, "json")) == measured.record()
    assert json.loads(written(measured, "jsonl")) == measured.record()
    assert written(measured, "tsv") == "\t".join(TRIAL_KEYS) + "\n2\t1\t1\t20\t30\t3\n1\t2\t1\t25\t30\t3\n"
    assert written(measured, "csv").splitlines()[0] == ",".join(TRIAL_KEYS)
    table = written(measured, "table")
    assert table.startswith("fake on onnx in fp32 (it is compiled), 2 processors\n")
    (bottleneck,) = [line for line in table.splitlines() if "the bottleneck" in line]
    assert bottleneck.split() == ["model", "33.00", "82%", "the", "bottleneck"]
    assert "25.0 images/s with workers 1, threads 2, batch 1 (median of 3, 30 images): 1.25 times" in table


def test_a_gain_within_the_noise_is_not_reported() -> None:
    assert "nothing that was tried is clearly faster" in written(report(trial(25), trial(26)), "table")


def form(engine: str, precision: str, rate: float) -> BenchReport:
    return replace(report(trial(rate)), engine=engine, precision=precision)


def test_ranking_lists_the_fastest_first_and_what_was_left_out() -> None:
    rates = {("onnx", "fp32"): 20.0, ("openvino", "bf16"): 50.0, ("torch", "fp32"): 10.0}
    asked = []

    def measure_form(engine: str, precision: str, seconds: float) -> BenchReport:
        asked.append(seconds)
        if precision == "int8":
            raise ModelError("there is no int8 form")
        return form(engine, precision, rates[engine, precision])

    ranking = bench.rank([*rates, ("onnx", "int8")], measure_form, 40.0)
    assert asked == [10.0] * 4
    assert [(each.engine, each.precision) for each in ranking.reports] == [
        ("openvino", "bf16"),
        ("onnx", "fp32"),
        ("torch", "fp32"),
    ]
    record = ranking.record()
    assert [each["engine"] for each in record["reports"]] == ["openvino", "onnx", "torch"]
    assert record["left_out"] == [{"engine": "onnx", "precision": "int8", "reason": "there is no int8 form"}]
    stream = io.StringIO()
    write_ranking(ranking, stream, "table")
    lines = stream.getvalue().splitlines()
    assert [line.split() for line in lines if line.startswith(" o")] == [
        ["openvino", "bf16", "50.0", "5.00", "2", "1", "1"],
        ["onnx", "fp32", "20.0", "2.00", "2", "1", "1"],
    ]
    assert lines[-2:] == [
        "int8 on onnx was left out: there is no int8 form",
        "fastest  --engine openvino --precision bf16 --workers 2 --threads 1 --batch-size 1",
    ]
    stream = io.StringIO()
    write_ranking(ranking, stream, "tsv")
    header, first, *_ = stream.getvalue().splitlines()
    assert header.split("\t") == ["engine", "precision", *TRIAL_KEYS]
    assert first.split("\t")[:5] == ["openvino", "bf16", "2", "1", "1"]


def test_ranking_of_nothing_that_runs_is_the_first_error() -> None:
    def measure_form(engine: str, precision: str, seconds: float) -> BenchReport:
        raise ModelError(f"{engine} is broken")

    with pytest.raises(ModelError, match="onnx is broken"):
        bench.rank([("onnx", "fp32"), ("torch", "fp32")], measure_form, 1.0)


@pytest.mark.parametrize(
    ("gpu", "has_bf16", "expected"),
    [
        (False, False, {"onnx fp32", "onnx int8", "torch fp32"}),
        (False, True, {"onnx fp32", "onnx int8", "torch fp32", "torch bf16"}),
        (True, False, {"onnx fp32", "onnx int8", "torch fp32", "torch bf16", "torch fp16"}),
    ],
)
def test_only_forms_that_the_machine_computes_in_are_ranked(
    gpu: bool, has_bf16: bool, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "multiplies_bf16", lambda: has_bf16)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert {" ".join(each) for each in table.runnable(gpu=gpu)} == expected
    assert table.runnable("onnx", gpu=gpu) == [("onnx", "fp32"), ("onnx", "int8")]


class TestCommand:
    @pytest.fixture(autouse=True)
    def _setup(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.setup()
        self.capsys = capsys
        self.loaded: list[Loader] = []

        def load(given: Loader) -> Classifier:
            self.loaded.append(given)
            classifier = loader(lambda *_: 0.001)(given.runtime.threads)
            parallelism = replace(classifier.parallelism, batch_size=given.runtime.batch_size or 1)
            return replace(classifier, name=given.model.text, parallelism=parallelism)

        monkeypatch.setattr(Loader, "load", load)
        monkeypatch.setattr("resnetd_cli.system.cpus.usable_cpus", lambda: 2)

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        code = run(["bench", *map(str, arguments)])
        return (code, *self.capsys.readouterr())

    @pytest.mark.slow
    def test_needs_no_input_and_writes_json(self) -> None:
        code, stdout, stderr = self.run("-m", "resnet18d", "--seconds", 1, "-f", "json")
        assert (code, stderr) == (0, "")
        record = json.loads(stdout)
        assert (record["model"], record["engine"], record["cpus"], record["images"]) == ("resnet18d", "fake", 2, 8)

    @pytest.mark.slow
    def test_passes_its_options_to_the_loader(self, tmp_path: Path) -> None:
        output = tmp_path / "bench.json"
        options = ["--weights", "w.pth", "--image-size", "288", "--engine", "torch", "--device", "cpu", "-b", "2"]
        assert self.run(COFFEE, "--seconds", 1, "--offline", "-o", output, *options) == (0, "", "")
        first = self.loaded[0]
        assert (first.choice.weights, first.choice.image_size) == (Path("w.pth"), "288")
        assert (first.runtime.engine, first.runtime.device, first.runtime.batch_size) == ("torch", "cpu", 2)
        assert first.downloads.offline
        assert first.runtime.threads is None
        assert {each.runtime.threads for each in self.loaded[1:]} <= {1, 2}
        assert {trial["batch_size"] for trial in json.loads(output.read_text())["trials"]} == {2}
        code, _, stderr = self.run("-o", output)
        assert code == 2
        assert "bench.json" in stderr

    @pytest.mark.slow
    def test_all_compares_the_engine_s_precisions(self) -> None:
        code, stdout, _ = self.run("--all", "--engine", "onnx", "--seconds", 1, "-f", "json")
        assert code == 0
        assert len(json.loads(stdout)["reports"]) == 2
        assert {(each.runtime.engine, each.runtime.precision) for each in self.loaded} == {
            ("onnx", "fp32"),
            ("onnx", "int8"),
        }
        code, _, stderr = self.run("--all", "--precision", "int8")
        assert (code, stderr) == (2, "error: --all measures every precision\nhint: leave out --precision\n")

    @pytest.mark.slow
    def test_reports_inputs_that_fail_and_continues(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").write_text("text")
        code, stdout, stderr = self.run(tmp_path / "x.jpg", COFFEE, "--seconds", 1, "-f", "jsonl")
        assert code == 3
        assert stderr.startswith(f"error: {tmp_path / 'x.jpg'}: not an image\nhint: ")
        assert json.loads(stdout)["images"] == 1

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["gone.jpg"], 1, "no image to measure with: gone.jpg: no such file or folder"),
            (["--seconds", "0.5"], 2, "--seconds"),
            (["--seconds", "4000"], 2, "--seconds"),
            (["--seconds", "nan"], 2, "--seconds"),
            (["-b", "0"], 2, "--batch-size"),
            (["-0"], 2, "--null requires --files-from"),
            (["--files-from", "gone.txt"], 2, "cannot read the list gone.txt"),
            (["--files-from", "/dev/null"], 2, "no input"),
            (["-o", "no/such/folder.json"], 1, "no/such"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_options_are_refused(self, arguments: list[str], code: int, words: str) -> None:
        ended, stdout, stderr = self.run(*arguments)
        assert (ended, stdout) == (code, "")
        assert words in stderr
        assert not self.loaded


@pytest.mark.slow
def test_a_real_model_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", COFFEE, "-m", "embedded", "--engine", "onnx", "--seconds", "3", "-f", "json", "-q"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["model"], record["engine"], record["why"]) == ("embedded", "onnx", "it is compiled")
    assert all(milliseconds > 0 for milliseconds in record["stages_ms"].values())
    assert record["default"] in record["trials"]
