"""Adding an engine, a format and a command, as CONTRIBUTING.md says: one file and one line in a table each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers.paths import COFFEE, ROOT

pytestmark = pytest.mark.slow

ENGINE = """
import numpy as np
from resnetd_cli.pipeline.engines.base import Outputs

class First:
    name, classes, batch_size = "first", 1000, 1

    def __init__(self, path, options):
        assert path.stat().st_size > 0
        self.input_size = (3, *options.size)

    def run(self, images):
        logits = np.zeros((len(images), 1000), np.float32)
        logits[:, 0] = 100
        return Outputs(logits, None)

build = First
"""
FORMAT = """
class WordsSink:
    def __init__(self, stream, **options):
        self.stream = stream

    def write(self, result):
        self.stream.write(f"{result.input.rpartition('/')[2]} is {result.predictions[0].label}\\n")

    def close(self):
        self.stream.write("that is all\\n")

    @staticmethod
    def write_listing(listing, stream, *, header, escape_formulas):
        stream.write(" ".join(listing.columns) + "\\n")
"""
COMMAND = """
from resnetd_cli.cli import options

def say_hello(quiet: options.Quiet = False) -> int:
    \"\"\"Greet.

    resnetd say-hello
    \"\"\"
    print("hello", quiet)
    return 0
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with one of each added."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "resnetd_cli"
    shutil.copytree(ROOT / "resnetd_cli", package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "labels").symlink_to(ROOT / "labels")

    def add(file: str, text: str, table: str, before: str, line: str) -> None:
        (package / file).write_text(text, encoding="utf-8")
        code = (package / table).read_text(encoding="utf-8")
        assert code.count(before) == 1
        (package / table).write_text(code.replace(before, f"{before}    {line},\n"), encoding="utf-8")

    torch = (
        'EngineSpec("torch", f"{_HERE}.pytorch", (FP32, FP16, BF16), ("cpu", "cuda", "mps"), package="timm"),\n'
    )
    add(
        "pipeline/engines/first.py",
        ENGINE,
        "pipeline/engines/table.py",
        torch,
        'EngineSpec("first", f"{_HERE}.first", (FP32,), takes_graph=True)',
    )
    add(
        "pipeline/sinks/words.py",
        FORMAT,
        "pipeline/sinks/base.py",
        "RECORD_FORMATS = {\n",
        '"words": RecordFormat("resnetd_cli.pipeline.sinks.words:WordsSink", (".words",))',
    )
    add("cli/commands/say_hello.py", COMMAND, "cli/app.py", "COMMANDS = {\n", '"say-hello": "Greet."')
    return folder


@pytest.fixture
def run(copy: Path, without_torch: dict[str, str]) -> Callable[..., str]:
    """Run a command line of the copy, with the compiled embedded model in its cache."""
    return partial(_run, copy, without_torch["RESNETD_CACHE"])


def _run(copy: Path, cache: str, *words: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "RESNETD_ENGINE"}
    finished = subprocess.run(
        [sys.executable, "-m", "resnetd_cli", *map(str, words)],
        cwd=copy,
        env={**environment, "PYTHONPATH": str(copy), "RESNETD_CACHE": cache},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_added_engine_runs_compiled_models(run: Callable[..., str]) -> None:
    printed = run("predict", COFFEE, "-m", "embedded", "--engine", "first", "-k", "1", "-f", "tsv", "--no-header")
    assert printed.split("\t")[2:6] == ["1", "0", "n01440764", "tench"]
    assert "--engine auto|onnx|openvino|torch|first" in run("predict", "--help")


def test_added_format_writes_results_and_listings(run: Callable[..., str], tmp_path: Path) -> None:
    words = ("predict", COFFEE, "-m", "embedded")
    assert run(*words, "-f", "words") == "coffee.jpg is espresso\nthat is all\n"
    run(*words, "-o", tmp_path / "out.words")
    assert (tmp_path / "out.words").read_text(encoding="utf-8") == "coffee.jpg is espresso\nthat is all\n"
    assert run("labels", "espresso", "-f", "words").startswith("index id name")


def test_added_command_runs_and_is_listed(run: Callable[..., str]) -> None:
    assert run("say-hello", "-q") == "hello True\n"
    assert "say-hello" in run("--help")
    assert "resnetd say-hello" in run("help", "say-hello")
