"""The Markdown pages' command lines, Python and pictures: they run, and print what the pages show."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import documents
from helpers.documents import DOCS, ROOT
from helpers.hub import Hub, timm_files
from helpers.training_data import NETWORK
from PIL import Image
from typer.main import get_command

from resnetd_cli.cli.app import app, run
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.mistyped import understood
from resnetd_cli.errors import ExitCode

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
WEIGHTS = f"{NETWORK}.r160_in1k"
FINETUNE = "resnetd finetune photos/ -o mine --model embedded"
SHELL_SYNTAX = ("|", "$(", "<(", ">")


class Workspace:
    """A folder with the files that the pages name, beside a web server and a hub; runs command lines there.

    What would take minutes is scaled down: a smaller network, fewer epochs, fewer seconds.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def write_files(self, weights: bytes) -> None:
        """Make the files."""
        (self.folder / "samples").symlink_to(ROOT / "samples")
        for name in ("dog.jpg", "img.jpg", "new.jpg", "more/a.png"):
            (self.folder / name).parent.mkdir(exist_ok=True)
            Image.open(ROOT / "samples" / "cat.jpg").save(self.folder / name)
        for folder in ("photos", "others", "uploads"):
            for label, sample in (("espresso", "coffee"), ("tiger cat", "cat")):
                self._cut(ROOT / "samples" / f"{sample}.jpg", self.folder / folder / label, 6)
        for part in ("train", "test"):
            for label in ("0", "1"):
                self._cut(ROOT / "samples" / "cat.jpg", self.folder / "digits" / part / label, 6)
        (self.folder / "last.pth").write_bytes(weights)
        rows = (ROOT / "labels" / "imagenet-1k.tsv").read_text(encoding="utf-8").splitlines()[1:]
        names = "".join(row.split("\t")[2] + "\n" for row in rows)
        for name in ("names.txt", "imagenet_classes.txt"):
            (self.folder / name).write_text(names, encoding="utf-8")
        shutil.copy(ROOT / "resnetd_cli" / "training" / "recipes" / "bag-of-tricks.yaml", self.folder / "my.yaml")

    def _cut(self, photo: Path, folder: Path, count: int) -> None:
        """Cut different pictures out of a photograph."""
        generator = np.random.default_rng(sum(map(ord, str(folder.relative_to(self.folder)))))
        folder.mkdir(parents=True)
        for number in range(count):
            image = Image.open(photo)
            left, top = (int(generator.integers(0, side // 3)) for side in image.size)
            right, bottom = (side - int(generator.integers(0, side // 6)) for side in image.size)
            image = image.crop((left, top, right, bottom)).resize((240, 240))
            image.save(folder / f"person{number % 4}_{number}.jpg")

    def scaled_down(self, line: str) -> str:
        """Return a command line that does the same with less work, on this machine."""
        if " info " not in line:  # which needs no weights
            line = re.sub(r"\bresnet\d+d\b(?!\.)", NETWORK, line)
        line = line.replace("https://example.org", self.url)
        line = line.replace("labels --download", f"labels --download --url {self.url}/imagenet_classes.txt")
        if "finetune" in line or ("train" in line and "--print-recipe" not in line):
            line = line.replace("--model embedded", f"--model {NETWORK}")
            line += " --epochs 1 --workers 0 --threads 1 --image-size 32 --no-progress"
        if "bench" in line:
            line += " --seconds 1"
        return line

    def run(self, line: str) -> int:
        """Run a command line of the program in this process, in the folder."""
        terminal.setup()
        return run(shlex.split(self.scaled_down(line))[1:])

    def run_in_bash(self, line: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a line of the shell in the folder, where `resnetd` is a command."""
        command = self.folder / "bin" / "resnetd"
        command.parent.mkdir(exist_ok=True)
        command.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m resnetd_cli "$@"\n', encoding="utf-8"
        )
        command.chmod(0o755)
        path = f"{command.parent}{os.pathsep}{environment['PATH']}"
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", self.scaled_down(line)],
            cwd=self.folder,
            env={**environment, "PATH": path, "RESNETD_MODEL": "embedded"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@contextlib.contextmanager
def open_workspace(folder: Path) -> Iterator[Workspace]:
    """Open a workspace in a folder, with the small network on its hub."""
    import huggingface_hub
    from huggingface_hub import constants

    serving = partial(SilentHandler, directory=str(folder))
    with (
        Hub() as hub,
        ThreadingHTTPServer(("127.0.0.1", 0), serving) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        hub.add_timm_model(WEIGHTS)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        patch.chdir(folder)
        patch.setenv("RESNETD_MODEL", NETWORK)
        patch.delenv("RESNETD_ENGINE", raising=False)
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.close_session()
        workspace = Workspace(folder, f"http://127.0.0.1:{server.server_address[1]}")
        workspace.write_files(timm_files(WEIGHTS)["model.safetensors"])
        yield workspace
        huggingface_hub.close_session()
        server.shutdown()
        thread.join()


class SilentHandler(SimpleHTTPRequestHandler):
    """Serves the files of a folder, without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that the pages train."""
    with open_workspace(tmp_path_factory.mktemp("workspace")) as workspace:
        assert workspace.run(FINETUNE) == 0
        return workspace.folder / "mine"


def needs_a_shell(line: str) -> bool:
    return any(sign in line for sign in SHELL_SYNTAX)


PROGRAM_LINES = {
    name: [
        line for line in documents.command_lines(name) if line.startswith("resnetd ") and not needs_a_shell(line)
    ]
    for name in DOCS
}
SHELL_LINES = [
    (name, line)
    for name in DOCS
    for line in documents.command_lines(name)
    if needs_a_shell(line) and "resnetd" in line
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, lines in PROGRAM_LINES.items() if lines])
def test_command_lines_of_a_page_run_in_order(
    name: str, workspace: Workspace, mine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mine, workspace.folder / "mine")
    for line in PROGRAM_LINES[name]:
        code = ExitCode.OK if line == FINETUNE else workspace.run(line)
        assert code == 0, (line, capfd.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "line"), SHELL_LINES)
def test_pipeline_runs_in_bash(name: str, line: str, workspace: Workspace) -> None:
    finished = workspace.run_in_bash(line, dict(os.environ))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout


def test_every_console_line_is_run_or_sets_up_an_environment() -> None:
    run_here = {line for lines in PROGRAM_LINES.values() for line in lines} | {line for _, line in SHELL_LINES}
    others = [line for name in DOCS for line in documents.command_lines(name) if line not in run_here]
    assert len(run_here) > 40
    assert [line.split(" && ")[0] for line in others] == [
        "python3 -m venv .venv",
        "python3 -m venv .venv",
        "python3 -m venv light",  # by test_lite
    ]


@pytest.mark.slow
def test_set_up_line_ends_with_a_command_that_works(
    workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    (line,) = [line for line in documents.command_lines("README.md") if ".venv/bin/resnetd" in line]
    assert workspace.run(line.rpartition(" && .venv/bin/")[2]) == 0
    assert "espresso" in capfd.readouterr().out


PLACEHOLDERS = {"FILE.onnx": "x.onnx", "MODEL": "embedded", "COMMAND": "predict", "INPUT": "x.jpg", "N": "224"}


@pytest.mark.parametrize(
    "line", sorted({line for name in (*DOCS, "SECURITY.md") for line in documents.commands_in_prose(name)})
)
def test_command_in_prose_is_accepted_by_the_parser(line: str) -> None:
    line = re.sub(r"\[(.*?)\]", r"\1", line).replace("...", "")
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
    if words[0].startswith("--"):
        assert words[0] in {"--version", "--help", "--install-completion"}
        return
    assert words[0] in COMMANDS
    words = understood(words, COMMANDS)
    if words[1:] and not {"MODEL", "--help"} & set(words):
        required = ["x"] if words[0] in ("info", "pull", "evaluate") and len(words) == 2 else []
        with COMMANDS[words[0]].make_context(
            words[0], [*words[1:], *required], resilient_parsing=False
        ) as context:
            assert context.params


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
def test_python_on_a_page_runs(name: str, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in documents.blocks(name, "python"):
        exec(code, names)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition("(")[0] for line in printed[:2]] == ["Classified", "Failure"]
    assert "label='espresso'" in printed[0]
    if name == "docs/python.md":
        assert printed[2:] == ["samples/cat.jpg (1280,)", "samples/coffee.jpg (1280,)"]


@pytest.mark.slow
def test_documented_records_are_what_predict_prints(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = documents.blocks("docs/formats.md", "json")
    shown = [json.loads(record) for record in re.split(r"\n(?=\{)", block)]
    assert (
        workspace.run("resnetd predict samples/coffee.jpg x.jpg -k 1 -f jsonl --model embedded")
        == ExitCode.PARTIAL
    )
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for record in (*shown, *printed):
        for prediction in record["predictions"]:
            prediction["probability"] = round(prediction["probability"], 5)
    assert printed == shown


@pytest.mark.slow
def test_picture_shows_what_the_program_prints() -> None:
    pytest.importorskip("pty")
    checked = [sys.executable, str(ROOT / "scripts" / "make_session.py"), "--check"]
    hidden = ("RESNETD_ENGINE",)
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    finished = subprocess.run(checked, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (finished.returncode, finished.stderr) == (0, "")
