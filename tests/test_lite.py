"""resnetd-lite: the distribution without torch, built from `lite/` and run in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from helpers.hub import timm_files
from helpers.loaders import loader_for
from helpers.paths import CAT, COFFEE, ROOT

from resnetd_cli import pull
from resnetd_cli.cli.app import COMMANDS
from resnetd_cli.results import Classified

IMAGES = [str(CAT), str(COFFEE)]
MEGABYTES = 280
LEFT_OUT = ("torch", "torchvision", "timm", "accelerate", "matplotlib", "pyarrow", "onnx")
FULL = "pip uninstall resnetd-lite, then pip install resnetd"
PAGE = (ROOT / "docs" / "exported-models.md").read_text(encoding="utf-8")
slow = pytest.mark.slow


class Lite:
    """An environment with the built wheel, and a folder to run its `resnetd` in.

    The folder holds `embedded.onnx`, the model folder `mine` with two classes, and their images in `photos`.
    """

    def __init__(self, shared: Path, top: Path) -> None:
        self.bin, self.folder = shared / "lite" / "bin", top / "work"
        with FileLock(shared / "lite.lock"):  # the first of the suite's workers makes it for all
            if not (shared / "dist").is_dir():
                self._install(shared)
        (self.wheel,) = (shared / "dist").iterdir()
        self._fill()

    def _install(self, shared: Path) -> None:
        self._pip("wheel", "--no-deps", "--wheel-dir", str(shared / "dist"), str(ROOT / "lite"))
        (wheel,) = (shared / "dist").iterdir()
        venv.create(self.bin.parent, symlinks=True)
        self._pip("--python", str(self.bin / "python"), "install", str(wheel))

    def _pip(self, *words: str) -> None:
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"}
        command = [sys.executable, "-m", "pip", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

    def _fill(self) -> None:
        for name, image in (("cup", COFFEE), ("cat", CAT)):
            (self.folder / "photos" / name).mkdir(parents=True)
            shutil.copy(image, self.folder / "photos" / name)
        (self.folder / "mine").mkdir()
        files = timm_files("resnet18d.ra2_in1k", num_classes=2, label_names=("cup", "cat"))
        for name, content in files.items():
            (self.folder / "mine" / name).write_bytes(content)
        shutil.copy(self.folder / "mine" / "model.safetensors", self.folder / "other.safetensors")
        (self.folder / "table.parquet").touch()
        (self.folder / "samples").symlink_to(ROOT / "samples")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RESNETD_CACHE", str(self.folder / "cache-of-export"))
            pull.export(loader_for("embedded"), self.folder / "embedded.onnx")

    def python(self, *words: object) -> subprocess.CompletedProcess[str]:
        return self._run("python", *words)

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        return self._run("resnetd", *words)

    def _run(self, program: str, *words: object) -> subprocess.CompletedProcess[str]:
        hidden = ("PYTHONPATH", "RESNETD_ENGINE", "RESNETD_MODEL", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        return subprocess.run(
            [str(self.bin / program), *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**environment, "RESNETD_CACHE": str(self.folder / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"},
        )


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Lite:
    if sys.platform == "win32":
        pytest.skip("environments have other folders there")
    base = tmp_path_factory.getbasetemp()
    return Lite(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base, tmp_path_factory.mktemp("lite"))


def test_it_needs_the_same_versions_as_the_full_distribution() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    ours, full = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")) for folder in ("lite", "")
    )
    project, whole = ours["project"], full["project"]
    assert set(project["dependencies"]) < set(whole["dependencies"])
    for name, packages in project["optional-dependencies"].items():
        assert packages == whole["optional-dependencies"][name]
    assert project["scripts"] == whole["scripts"]
    assert project["requires-python"] == whole["requires-python"]
    assert ours["build-system"] == full["build-system"]
    left_out = {re.split(r"[<>=]", line)[0] for line in set(whole["dependencies"]) - set(project["dependencies"])}
    assert left_out == {*LEFT_OUT, "filelock"}


@slow
def test_wheel_holds_the_package_and_its_data(lite: Lite) -> None:
    package = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "resnetd_cli").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    labels = {
        f"resnetd_cli/class_names/labels/{path.name}": path.read_bytes() for path in (ROOT / "labels").iterdir()
    }
    with zipfile.ZipFile(lite.wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert held == package | labels
    assert len(licences) == 1
    assert len([name for name in held if "/graphs/" in name]) == 8


@slow
def test_environment_is_small_and_has_no_heavy_package(lite: Lite) -> None:
    code = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    assert lite.python("-c", code, *LEFT_OUT).stdout == "[]\n"
    size = sum(path.lstat().st_blocks * 512 for path in lite.bin.parent.rglob("*"))
    assert size < MEGABYTES * 2**20


@slow
@pytest.mark.parametrize("model", ["embedded", "mine", "embedded.onnx"])
def test_answers_are_those_of_the_full_distribution(
    model: str, lite: Lite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path))
    monkeypatch.chdir(lite.folder)
    classifier = loader_for(model, engine="auto", layer="pooled").load()
    expected = [result for result in classifier.predict(IMAGES, embeddings=True) if isinstance(result, Classified)]
    finished = lite("predict", *IMAGES, "-m", model, "-f", "jsonl")
    assert finished.returncode == 0, finished.stderr
    for line, wanted in zip(finished.stdout.splitlines(), expected, strict=True):
        given = json.loads(line)["predictions"]
        assert [item["label"] for item in given] == [item.label for item in wanted.predictions]
        probabilities = [item.probability for item in wanted.predictions]
        assert np.allclose([item["probability"] for item in given], probabilities, rtol=0, atol=1e-5)
    assert lite("features", *IMAGES, "-m", model, "-o", f"{tmp_path}/x.npy").returncode == 0
    embeddings = np.stack([result.embedding for result in expected if result.embedding is not None])
    assert np.allclose(np.load(tmp_path / "x.npy"), embeddings, rtol=1e-5, atol=1e-5)


WORKS = {
    "list-models": (["list-models", "resnet50d"], "resnet50d.ra2_in1k"),
    "labels": (["labels", "airplane"], "n02690373"),
    "pull": (["pull", "mine"], "mine\tfp32\tonnx"),
    "evaluate": (["evaluate", "photos", "-m", "mine"], "cat"),
    "bench": (["bench", "-m", "embedded", "--seconds", "1"], "images_per_second"),
    "bench --all": (["bench", "-m", "embedded", "--all", "--seconds", "1"], "onnx\tfp32"),
    "recipe": (["finetune", "--print-recipe"], "epochs:"),
    "weights": (["predict", *IMAGES, "-m", "resnet18d", "--weights", "mine/model.safetensors", "-k1"], "ok"),
}


@slow
@pytest.mark.parametrize(("words", "shown"), WORKS.values(), ids=WORKS)
def test_command_works(words: list[str], shown: str, lite: Lite) -> None:
    finished = lite(*words)
    assert finished.returncode == 0, finished.stderr
    assert shown in finished.stdout


@slow
@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["embedded"], (1000, 4.65, 0.39, "apache-2.0")),
        (["resnet50d"], (1000, 25.58, 4.35, "apache-2.0")),
        (["mine"], (2, 11.2, 2.05, "apache-2.0")),
        (["resnet18d", "--weights", "other.safetensors"], (2, 11.2, 2.05, None)),
    ],
)
def test_info_describes_a_model(words: list[str], facts: tuple[object, ...], lite: Lite) -> None:
    finished = lite("info", *words, "-f", "json")
    assert finished.returncode == 0, finished.stderr
    given = json.loads(finished.stdout)
    assert tuple(given[name] for name in ("classes", "params_m", "gmacs", "license")) == facts


HELP = """
import io, json, sys
from contextlib import redirect_stdout
from resnetd_cli.cli.app import run
shown = {}
for command in sys.argv[1:]:
    with redirect_stdout(io.StringIO()) as out:
        code = run([command, "--help"])
    shown[command] = [code, out.getvalue()]
print(json.dumps(shown))
"""


@slow
def test_every_command_has_help(lite: Lite) -> None:
    shown = json.loads(lite.python("-c", HELP, *COMMANDS).stdout)
    assert {command: code for command, (code, _) in shown.items()} == dict.fromkeys(COMMANDS, 0)
    assert all(f"Usage: resnetd {command}" in text for command, (_, text) in shown.items())


LACKS = {
    "a model of timm": (["predict", CAT, "-m", "resnet50"], 2, "timm"),
    "all models": (["list-models", "--all"], 1, "timm"),
    "the torch engine": (["predict", CAT, "-m", "embedded", "--engine", "torch"], 1, "timm"),
    "its bench": (["bench", "-m", "embedded", "--engine", "torch", "--all", "--seconds", "1"], 1, "timm"),
    "fp16": (["predict", CAT, "-m", "embedded", "--precision", "fp16"], 1, "timm"),
    "a GPU": (["predict", CAT, "-m", "embedded", "--device", "cuda"], 1, "torch"),
    "finetune": (["finetune", "photos", "-o", "run", "-m", "embedded"], 1, "torch"),
    "train": (["train", "photos", "-o", "run", "-m", "resnet18d"], 1, "torch"),
    "export": (["export", "embedded", "-o", "e.onnx"], 1, "onnx"),
    "int8": (["pull", "embedded", "--precision", "int8", "--calibrate", CAT], 1, "onnx"),
    "reading Parquet": (["evaluate", "table.parquet", "-m", "embedded"], 1, "pyarrow"),
    "writing Parquet": (["evaluate", "photos", "-m", "mine", "--per-image", "x.parquet"], 1, "pyarrow"),
    "weights that do not fit": (
        ["predict", CAT, "-m", "resnet34d", "--weights", "mine/model.safetensors"],
        1,
        "timm",
    ),
}


@slow
@pytest.mark.parametrize(("words", "code", "package"), LACKS.values(), ids=LACKS)
def test_what_needs_the_full_distribution_names_the_missing_package(
    words: list[object], code: int, package: str, lite: Lite
) -> None:
    before = set(lite.folder.iterdir())
    finished = lite(*words)
    assert (finished.returncode, finished.stdout) == (code, "")
    *notes, error, hint = finished.stderr.splitlines()
    assert re.match(rf"error: .*\bthe package {package}\b.* is not installed", error)
    assert hint.partition(";")[0] == f"hint: {FULL}"
    assert not any(note.startswith(("error", "Traceback")) for note in notes)
    assert set(lite.folder.iterdir()) == before


@slow
def test_missing_extra_is_one_of_its_own(lite: Lite) -> None:
    finished = lite("predict", CAT, "-m", "embedded", "--engine", "openvino")
    assert finished.returncode == 2
    assert finished.stderr == (
        "error: the openvino engine is not installed\nhint: pip install 'resnetd-lite[openvino]'\n"
    )


@slow
def test_example_with_onnxruntime_alone_prints_the_class(lite: Lite) -> None:
    (code,) = re.findall(r"```python\n(import json\n.*?)```", PAGE, flags=re.DOTALL)
    finished = lite.python("-c", code)
    assert (finished.stdout, finished.stderr) == ("espresso 95.46%\n", "")
