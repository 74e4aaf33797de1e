"""Compiled models: the same answers without torch and timm, and what happens when the cache is not well."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.hub import timm_files
from helpers.loaders import loader_for
from helpers.paths import ROOT
from helpers.program import Resnetd, ResnetdHere

from resnetd_cli.compiled import bundles
from resnetd_cli.compiled.bundles import Bundle, BundleKey
from resnetd_cli.compiled.open_bundle import open_engine
from resnetd_cli.errors import ModelError, UsageError
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.engines.base import EngineOptions
from resnetd_cli.pipeline.engines.onnx import OnnxEngine
from resnetd_cli.pipeline.engines.table import graph_engine
from resnetd_cli.pipeline.options import Parallelism
from resnetd_cli.results import Classified
from resnetd_cli.system.files import sha256

pytestmark = pytest.mark.slow

SAMPLES = [str(ROOT / "samples" / name) for name in ("cat.jpg", "coffee.jpg")]
REQUEST = BundleKey(ModelChoice.of("embedded"))
HEAVY = "torch timm torchvision huggingface_hub requests onnx safetensors tqdm"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filled(cache: Path, without_torch: dict[str, str]) -> Path:
    """A cache with the compiled embedded model, for this test to change."""
    shutil.copytree(without_torch["RESNETD_CACHE"], cache)
    return cache


def answers(engine: str, **options: object) -> list[Classified]:
    options = {"model": "embedded", **options}
    classifier = loader_for(engine=engine, **options).load()  # type: ignore[arg-type]
    results = list(classifier.predict(SAMPLES))
    assert classifier.engine.name == ("torch" if engine == "torch" else "onnx")
    return [result for result in results if isinstance(result, Classified)]


@pytest.fixture(scope="module")
def by_torch() -> list[Classified]:
    return answers("torch")


def assert_same(results: list[Classified], expected: list[Classified]) -> None:
    assert len(results) == len(expected) == 2
    for result, wanted in zip(results, expected, strict=True):
        assert [item.index for item in result.predictions] == [item.index for item in wanted.predictions]
        assert [item.label for item in result.predictions] == [item.label for item in wanted.predictions]
        assert np.allclose(
            [item.probability for item in result.predictions],
            [item.probability for item in wanted.predictions],
            rtol=0,
            atol=1e-5,
        )


def test_compiled_answers_are_the_networks(cache: Path, by_torch: list[Classified]) -> None:
    notes: list[str] = []
    assert_same(answers("auto", note=notes.append), by_torch)
    assert_same(answers("auto", note=notes.append), by_torch)
    assert notes == ["compiling embedded once, so that later starts are faster"]
    bundle = bundles.find(REQUEST)
    assert bundle is not None
    assert bundle.card.class_names.names[967] == "espresso"
    assert bundle.card.origin.parameters == 4_652_008
    assert bundle.card.origin.weights_sha256.startswith("579344248a93e230")
    assert bundle.optimised.is_file()


def test_features_of_the_graph_are_the_networks(filled: Path) -> None:
    features = {}
    for engine in ("torch", "onnx"):
        classifier = loader_for("embedded", engine=engine, layer="pooled", logits=False).load()
        features[engine] = np.stack([result.embedding for result in classifier.embed(SAMPLES)])  # type: ignore[union-attr]
    assert features["onnx"].shape == (2, 1280)
    assert np.allclose(features["onnx"], features["torch"], atol=1e-4)


IN_TURN = """
import json, os, sys
from resnetd_cli.cli.app import run
for words in json.loads(sys.argv[1]):
    code = run(words)
    sys.stdout.flush()
    os.write(1, b"\\0")
    print(code, *sorted(set(sys.argv[2].split()) & set(sys.modules)), file=sys.stderr)
"""


def test_later_runs_import_neither_torch_nor_timm(filled: Path, tmp_path: Path) -> None:
    model = ["-m", "embedded", "--engine", "auto"]
    shown = {
        ("predict", SAMPLES[1], "-k1", "--no-header", *model): "espresso",
        ("predict", *SAMPLES, "-k1", "--no-header", *model): "espresso",
        ("predict", SAMPLES[1], "-f", "table", *model): "espresso",
        ("features", *SAMPLES, "-o", "x.npy", *model): "",
        ("pull", "--no-header", "embedded"): "onnx",
    }
    finished = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps([*shown]), HEAVY],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert finished.returncode == 0
    assert [line for line in finished.stderr.splitlines() if "x.npy" not in line] == ["0"] * len(shown)
    *printed, rest = finished.stdout.split("\0")
    assert rest == ""
    for text, wanted in zip(printed, shown.values(), strict=True):
        assert wanted in text
    assert np.load(tmp_path / "x.npy").shape == (2, 1280)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def change_card(bundle: Bundle, change: Callable[[dict[str, Any]], object], *, sign: bool = False) -> None:
    path = bundle.folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content["bundle"])
    if sign:
        content["sha256"] = bundles._digest(content["bundle"])
    path.write_text(json.dumps(content))


DAMAGES: dict[str, Callable[[Bundle], object]] = {
    "optimised": lambda bundle: flip(bundle.optimised),
    "weights": lambda bundle: flip(bundle.optimised.with_suffix(".bin")),
    "no-weights": lambda bundle: bundle.optimised.with_suffix(".bin").unlink(),
    "empty-weights": lambda bundle: bundle.optimised.with_suffix(".bin").write_bytes(b""),
    "graph": lambda bundle: (bundle.optimised.unlink(), flip(bundle.graph)),
    "both": lambda bundle: (flip(bundle.optimised), flip(bundle.graph)),
    "cut": lambda bundle: bundle.graph.write_bytes(bundle.graph.read_bytes()[:1000]) and bundle.optimised.unlink(),
    "gone": lambda bundle: (bundle.graph.unlink(), bundle.optimised.unlink()),
    "mean": lambda bundle: change_card(
        bundle, lambda fields: fields["card"]["preprocessing"].update(mean=[0.9] * 3)
    ),
    "name": lambda bundle: change_card(bundle, lambda fields: fields["card"]["class_names"]["names"].pop()),
    "failure": lambda bundle: change_card(bundle, lambda fields: fields.update(failure="bzzt")),
    "sources": lambda bundle: change_card(bundle, lambda fields: fields.update(sources={"x": 3}), sign=True),
    "versions": lambda bundle: change_card(bundle, lambda fields: fields["card"].update(versions=3), sign=True),
    "json": lambda bundle: (bundle.folder / "bundle.json").write_text("{"),
    "list": lambda bundle: (bundle.folder / "bundle.json").write_text("[]"),
    "no-json": lambda bundle: (bundle.folder / "bundle.json").unlink(),
}


class Small(NamedTuple):
    """A small model in a folder, a cache that has it compiled, and what its network answers."""

    folder: str
    cache: Path
    by_torch: list[Classified]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder, cache = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("small-cache")
    for name, content in timm_files("test_resnet", label_names=tuple(map(str, range(1000)))).items():
        (folder / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETD_CACHE", str(cache))
        loader_for(str(folder)).compile()
    return Small(str(folder), cache, answers("torch", model=str(folder)))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_bundle_is_rebuilt_and_never_used(
    cache: Path, small: Small, damage: Callable[[Bundle], object]
) -> None:
    shutil.copytree(small.cache, cache)
    key = BundleKey(ModelChoice.of(small.folder))
    bundle = bundles.find(key)
    assert bundle is not None
    damage(bundle)
    assert_same(answers("auto", model=small.folder), small.by_torch)
    mended = bundles.find(key)
    assert mended is not None
    assert sha256(mended.graph) == mended.graph_sha256
    open_engine(mended, graph_engine(), EngineOptions(threads=1))
    assert [path.name for path in mended.folder.parent.iterdir()] == [mended.folder.name]


def test_changed_weights_are_compiled_again(cache: Path, tmp_path: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    probabilities = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(timm.create_model("resnet18d", num_classes=7).state_dict(), path)
        first = answers("onnx", model="resnet18d", weights=path)[0]
        assert first.model == "resnet18d:w.safetensors"
        assert first.predictions[0].label.startswith("class ")
        probabilities.append(first.predictions[0].probability)
    assert probabilities[0] != probabilities[1]
    assert answers("onnx", model="resnet18d", weights=path)[0].predictions[0].probability == probabilities[1]


@pytest.mark.parametrize("model", ["./model", "local-dir:model", "model"])
def test_folders_of_one_name_in_two_places_are_two_models(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    import timm
    import torch
    from timm.models._hub import save_for_hf

    probabilities = []
    for seed in (0, 1, 0):
        place = tmp_path / str(seed)
        if not place.exists():
            torch.manual_seed(seed)
            network = timm.create_model("test_resnet", num_classes=7).eval()
            save_for_hf(network, place / "model", safe_serialization=True)
        monkeypatch.chdir(place)
        probabilities.append(answers("onnx", model=model)[0].predictions[0].probability)
    assert probabilities[0] == probabilities[2] != probabilities[1]
    # A changed configuration is another model, too.
    config = Path("model/config.json")
    config.write_text(config.read_text().replace('"crop_pct": 0.95', '"crop_pct": 0.5'))
    assert answers("onnx", model=model)[0].predictions[0].probability != probabilities[0]


def test_other_versions_are_compiled_again(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundles.find(REQUEST) is not None
    versions = bundles.current_versions()
    monkeypatch.setattr(bundles, "current_versions", lambda: {**versions, "timm": "0.0"})
    assert bundles.find(REQUEST) is None
    monkeypatch.setattr(bundles, "current_versions", lambda: {"resnetd": versions["resnetd"]})
    assert bundles.find(REQUEST) is not None  # timm is not installed any more


def test_a_read_only_cache_does_not_prevent_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_torch: list[Classified]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "file"))
    notes: list[str] = []
    classifier = loader_for("embedded", engine="auto", note=notes.append).load()
    assert_same([result for result in classifier.predict(SAMPLES) if isinstance(result, Classified)], by_torch)
    assert len(notes) == 1 and notes[0].startswith("the compiled model cannot be kept: ")


def test_a_model_that_cannot_be_exported_stays_with_torch_and_says_so_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, by_torch: list[Classified]
) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("it cannot be exported: no such operator")

    monkeypatch.setattr("resnetd_cli.models.plain_network.load_plain", lambda *_: None)  # as for other models
    monkeypatch.setattr("resnetd_cli.compiled.to_onnx.convert", refuse)
    notes: list[str] = []
    for engine in ("onnx", "auto", "onnx"):
        if engine == "onnx":
            with pytest.raises(ModelError, match="cannot run on the onnx engine: it cannot be exported"):
                loader_for("embedded", engine=engine, note=notes.append, single=True).load()
            continue
        classifier = loader_for("embedded", engine="auto", note=notes.append).load()
        assert classifier.engine.name == "torch"
        assert classifier.why == "it cannot be exported: no such operator"
        results = [result for result in classifier.predict(SAMPLES) if isinstance(result, Classified)]
        assert_same(results, by_torch)
    assert notes[1:] == ["embedded runs on the torch engine: it cannot be exported: no such operator"]
    with pytest.raises(ModelError, match="cannot run on the onnx engine"):
        loader_for("embedded", engine="onnx").load()


IN_TURN_AS_PROGRAM = """
import json, os, sys
from resnetd_cli.system.quiet import own_stderr
own_stderr(sys.argv)
from resnetd_cli.cli.app import run
for words in json.loads(sys.argv[1]):
    code = run(words)
    for stream in (sys.stdout, sys.stderr):
        print(code, end="\\0", file=stream, flush=True)
os._exit(0)
"""


def test_torchs_messages_about_an_export_stay_out_of_the_output(
    tmp_path: Path, run_resnetd: Resnetd, run_here: ResnetdHere
) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    command_lines = []
    for architecture in ("volo_d1_224", "halonet_h1"):
        path = tmp_path / f"{architecture}.safetensors"
        save_file(timm.create_model(architecture).state_dict(), path)
        options = ("-m", architecture, "--weights", str(path), "-k", "1", "--no-header")
        command_lines.append(("predict", SAMPLES[1], *options))
    program = ("-c", IN_TURN_AS_PROGRAM, json.dumps(command_lines))
    finished = run_resnetd.finish(run_resnetd.start(program=program, RESNETD_ENGINE="auto"))
    assert finished.returncode == 0, finished.stderr
    *answers, rest = finished.stdout.split("0\0")
    *notes, rest_of_notes = finished.stderr.split("0\0")
    assert (len(answers), len(notes), rest, rest_of_notes) == (2, 2, "", "")
    for words, answer, note in zip(command_lines, answers, notes, strict=True):
        assert answer.count("\n") == 1
        compiling, failed = note.splitlines()
        assert compiling.startswith("compiling ")
        assert "runs on the torch engine: it cannot be exported: " in failed
        assert len(failed) < 300
        again = run_here(*words, RESNETD_ENGINE="auto")
        assert (again.stdout, again.stderr) == (answer, "")


def test_a_network_with_weights_of_five_dimensions_runs(cache: Path, tmp_path: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("lambda_resnet26t").eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    by_engine = [
        answers(engine, model="lambda_resnet26t", weights=tmp_path / "w.safetensors")
        for engine in ("torch", "onnx")
    ]
    assert_same(*by_engine)


def test_writers_of_one_bundle_do_not_disturb_each_other(filled: Path) -> None:
    compiled = bundles.find(REQUEST)
    assert compiled is not None
    card = compiled.card

    def make(folder: Path) -> Bundle:
        (folder / bundles.GRAPH).write_bytes(b"graph")
        return Bundle(folder, card, "ab", {})

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: bundles.write(REQUEST, make), range(200)))
    assert {bundle.folder for bundle in written} == {REQUEST.folder()}
    assert bundles.find(REQUEST) == written[0]
    assert list((filled / "bundles").iterdir()) == [REQUEST.folder()]


def test_a_first_use_with_stdout_closed_ends_well(run_resnetd: Resnetd, small: Small, tmp_path: Path) -> None:
    words = ["predict", SAMPLES[1], "-m", small.folder, "-o", str(tmp_path / "o.csv")]
    command = [sys.executable, "-m", "resnetd_cli", *words]
    finished = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command],
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=run_resnetd.env(RESNETD_ENGINE="auto"),
    )
    notes = f"compiling {small.folder} once, so that later starts are faster\n{tmp_path / 'o.csv'}: 1 input\n"
    assert (finished.returncode, finished.stderr) == (0, notes)
    rows = (tmp_path / "o.csv").read_text().splitlines()
    assert rows[1].split(",")[5] == small.by_torch[1].predictions[0].label
    assert list((run_resnetd.home / "resnetd" / "bundles").iterdir())


def test_the_first_answer_about_a_single_image_is_that_of_later_runs(cache: Path) -> None:
    first, later = (loader_for("embedded", engine="auto", single=True).load() for _ in range(2))
    assert (first.engine.name, later.engine.name) == ("onnx", "onnx")
    assert list(first.predict([SAMPLES[0]])) == list(later.predict([SAMPLES[0]]))


def test_layers_that_a_graph_lacks_run_on_torch(filled: Path) -> None:
    classifier = loader_for("embedded", engine="auto", layer="blocks.1", logits=False).load()
    assert (classifier.engine.name, classifier.why) == ("torch", "a compiled model has no blocks.1")
    with pytest.raises(UsageError, match=r"a compiled model has no blocks\.1"):
        loader_for("embedded", engine="onnx", layer="blocks.1").load()
    with pytest.raises(UsageError, match="no engine called"):
        loader_for("embedded", engine="fast").load()


def test_two_processes_that_compile_at_once_both_end_well(run_resnetd: Resnetd, small: Small) -> None:
    words = ("predict", *SAMPLES, "-m", small.folder, "-k", "1", "--no-header", "--engine", "onnx")
    both = [run_resnetd.finish(process) for process in [run_resnetd.start(*words) for _ in range(2)]]
    assert [process.returncode for process in both] == [0, 0]
    assert both[0].stdout == both[1].stdout
    assert [line.split("\t")[5] for line in both[0].stdout.splitlines()] == [
        result.predictions[0].label for result in small.by_torch
    ]
    (folder,) = (run_resnetd.home / "resnetd" / "bundles").iterdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETD_CACHE", str(run_resnetd.home / "resnetd"))
        bundle = bundles.find(BundleKey(ModelChoice.of(small.folder)))
    assert bundle is not None
    assert bundle.folder == folder
    assert sha256(bundle.graph) == bundle.graph_sha256


def test_any_batch_size_gives_each_image_its_own_answer(filled: Path) -> None:
    bundle = bundles.find(REQUEST)
    assert bundle is not None
    images = np.random.default_rng(0).standard_normal((5, 3, 224, 224), dtype=np.float32)
    engine = OnnxEngine(bundle.graph)
    together = engine.run(images)
    assert together.logits is not None
    assert together.logits.shape == (5, 1000)
    for row in range(5):
        alone = engine.run(images[row : row + 1]).logits
        assert alone is not None
        assert np.allclose(alone[0], together.logits[row], atol=1e-4)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_model_without_a_classifier_gives_features_only(cache: Path, tmp_path: Path, engine: str) -> None:
    import timm
    import torch
    from timm.models._hub import save_for_hf

    torch.manual_seed(0)
    folder = tmp_path / "model"
    save_for_hf(timm.create_model("test_resnet", num_classes=0).eval(), folder, safe_serialization=True)
    features = loader_for(str(folder), engine=engine, layer="pooled", logits=False).load()
    assert features.engine.name == engine
    first, second = features.embed(SAMPLES)
    assert not np.array_equal(first.embedding, second.embedding)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="no classifier"):
        loader_for(str(folder), engine=engine).load()


def test_workers_and_threads_are_as_given(filled: Path, by_torch: list[Classified]) -> None:
    from resnetd_cli.system.cpus import usable_cpus

    for single, expected in ((True, (1, None)), (False, (usable_cpus(), 1))):
        classifier = loader_for("embedded", engine="torch", single=single).load()
        assert (classifier.parallelism.workers, classifier.parallelism.threads) == expected
    classifier = loader_for("embedded", engine="onnx", workers=3, threads=2, batch_size=2).load()
    assert classifier.parallelism == Parallelism(3, 2, 2)
    assert_same([result for result in classifier.predict(SAMPLES) if isinstance(result, Classified)], by_torch)


def test_one_input_needs_no_list(cache: Path) -> None:
    classifier = loader_for("embedded", engine="torch", layer="pooled", image_size=224).load()
    for inputs in (SAMPLES[1], Path(SAMPLES[1]), [Path(SAMPLES[1])]):
        (result,) = classifier.predict(inputs, top_k=1)
        assert isinstance(result, Classified)
        assert result.predictions[0].label == "espresso"
    with pytest.raises(ModelError, match="without features"):
        list(loader_for("embedded", engine="torch").load().embed(SAMPLES))
