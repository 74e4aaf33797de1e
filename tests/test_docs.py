"""The Markdown pages: their command lines run, their links lead somewhere, and the names in them exist."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
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

import documents
import numpy as np
import pytest
from documents import DOCS, PAGES, ROOT
from hub import Hub
from PIL import Image
from typer.main import get_command

from resnetd_cli.cli.app import app, run
from resnetd_cli.cli.console import terminal
from resnetd_cli.cli.misread import understood
from resnetd_cli.errors import ErrorKind, ExitCode
from resnetd_cli.models.names import cards
from resnetd_cli.pipeline.sinks.base import ARRAY_FORMATS, RECORD_FORMATS

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
CODE = sorted((ROOT / "resnetd_cli").rglob("*.py"))
FINETUNE = "resnetd finetune photos/ -o mine --model embedded"
SHELL_SYNTAX = ("|", "$(", "<(", ">")
FOREIGN_OPTIONS = {
    "--break-system-packages": "pip",
    "--check": "our scripts",
    "--images": "our benchmarks",
    "--install-completion": "Typer",
    "--json": "our benchmarks",
    "--no-deps": "pip",
    "--runs": "our benchmarks",
    "--shm-size": "Docker",
    "--skip-int8": "our benchmarks",
}


# --- command lines ---


class Shop:
    """A folder with the files that the pages name, a web server and a hub; it runs command lines there.

    What would take minutes is made smaller: a smaller network for a larger one, fewer epochs, fewer seconds.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def stock(self, weights: bytes) -> None:
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

    def smaller(self, line: str) -> str:
        """Return a command line that says the same of smaller things, on this machine."""
        line = re.sub(r"\bresnet(50|101)d\b", "resnet18d", line)
        line = line.replace("https://example.org", self.url)
        line = line.replace("labels --download", f"labels --download --url {self.url}/imagenet_classes.txt")
        if "finetune" in line or ("train" in line and "--print-recipe" not in line):
            line = line.replace("--model embedded", "--model resnet18d")
            line += " --epochs 1 --workers 0 --image-size 32 --no-progress"
        if "bench" in line:
            line += " --seconds 1"
        return line

    def run(self, line: str) -> int:
        """Run a command line of the program in this process, in the folder."""
        terminal.setup()
        return run(shlex.split(self.smaller(line))[1:])

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
            ["bash", "-o", "pipefail", "-c", self.smaller(line)],
            cwd=self.folder,
            env={**environment, "PATH": path, "RESNETD_MODEL": "embedded"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@contextlib.contextmanager
def opened_shop(folder: Path, files: dict[str, bytes]) -> Iterator[Shop]:
    """Open a shop in a folder, with a resnet18d of these files on its hub."""
    import huggingface_hub
    from huggingface_hub import constants

    serving = partial(Quiet, directory=str(folder))
    with (
        Hub() as hub,
        ThreadingHTTPServer(("127.0.0.1", 0), serving) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        hub.add("timm/resnet18d.ra2_in1k", files)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        patch.chdir(folder)
        patch.setenv("RESNETD_MODEL", "resnet18d")
        patch.delenv("RESNETD_ENGINE", raising=False)
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.close_session()
        shop = Shop(folder, f"http://127.0.0.1:{server.server_address[1]}")
        shop.stock(files["model.safetensors"])
        yield shop
        huggingface_hub.close_session()
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Serves the files of a folder and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def shop(tmp_path: Path, resnet18d_files: dict[str, bytes]) -> Iterator[Shop]:
    with opened_shop(tmp_path, resnet18d_files) as shop:
        yield shop


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory, resnet18d_files: dict[str, bytes]) -> Path:
    """The model that the pages train, with the line they do it by."""
    with opened_shop(tmp_path_factory.mktemp("shop"), resnet18d_files) as shop:
        assert shop.run(FINETUNE) == 0
        return shop.folder / "mine"


def is_for_the_shell(line: str) -> bool:
    return any(sign in line for sign in SHELL_SYNTAX)


PROGRAM_LINES = {
    name: [
        line
        for line in documents.command_lines(name)
        if line.startswith("resnetd ") and not is_for_the_shell(line)
    ]
    for name in DOCS
}
SHELL_LINES = [
    (name, line)
    for name in DOCS
    for line in documents.command_lines(name)
    if is_for_the_shell(line) and "resnetd" in line
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, lines in PROGRAM_LINES.items() if lines])
def test_the_command_lines_of_a_page_run_one_after_the_other(
    name: str, shop: Shop, mine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mine, shop.folder / "mine")
    for line in PROGRAM_LINES[name]:
        code = ExitCode.OK if line == FINETUNE else shop.run(line)
        assert code == 0, (line, capfd.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "line"), SHELL_LINES)
def test_a_line_of_the_shell_runs(name: str, line: str, shop: Shop) -> None:
    finished = shop.run_in_bash(line, dict(os.environ))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout


def test_every_line_of_every_console_block_is_run_or_sets_up() -> None:
    run_here = {line for lines in PROGRAM_LINES.values() for line in lines} | {line for _, line in SHELL_LINES}
    others = [line for name in DOCS for line in documents.command_lines(name) if line not in run_here]
    assert len(run_here) > 40
    assert [line.split(" && ")[0] for line in others] == [
        "python3 -m venv .venv",
        "python3 -m venv .venv",
        "python3 -m venv light",  # by test_export
    ]


@pytest.mark.slow
def test_setting_up_ends_with_a_command_that_works(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = [line for line in documents.command_lines("README.md") if ".venv/bin/resnetd" in line]
    assert shop.run(line.rpartition(" && .venv/bin/")[2]) == 0
    assert "espresso" in capfd.readouterr().out


PLACEHOLDERS = {"FILE.onnx": "x.onnx", "MODEL": "embedded", "COMMAND": "predict", "INPUT": "x.jpg", "N": "224"}


@pytest.mark.parametrize(
    "line", sorted({line for name in (*DOCS, "SECURITY.md") for line in documents.commands_in_prose(name)})
)
def test_a_command_in_prose_is_one_that_the_parser_takes(line: str) -> None:
    line = re.sub(r"\[(.*?)\]", r"\1", line).replace("...", "")
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
    if words[0].startswith("--"):
        assert words[0] in FOREIGN_OPTIONS or words[0] in {"--version", "--help"}
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
def test_the_python_on_a_page_runs(name: str, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in documents.blocks(name, "python"):
        exec(code, names)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition("(")[0] for line in printed[:2]] == ["Classified", "Failure"]
    assert "label='espresso'" in printed[0]
    if name == "docs/python.md":
        assert printed[2:] == ["samples/cat.jpg (1280,)", "samples/coffee.jpg (1280,)"]


@pytest.mark.slow
def test_the_records_on_the_page_are_what_predict_prints(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = documents.blocks("docs/formats.md", "json")
    shown = [json.loads(record) for record in re.split(r"\n(?=\{)", block)]
    assert shop.run("resnetd predict samples/coffee.jpg x.jpg -k 1 -f jsonl --model embedded") == ExitCode.PARTIAL
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for record in (*shown, *printed):
        for prediction in record["predictions"]:
            prediction["probability"] = round(prediction["probability"], 5)
    assert printed == shown


@pytest.mark.slow
def test_the_picture_shows_what_the_program_prints() -> None:
    pytest.importorskip("pty")
    checked = [sys.executable, str(ROOT / "scripts" / "make_session.py"), "--check"]
    hidden = ("RESNETD_ENGINE",)
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    finished = subprocess.run(checked, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (finished.returncode, finished.stderr) == (0, "")


# --- links and names ---


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(name: str) -> None:
    for link in documents.links(name):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), link
        if anchor:
            target = path.resolve().relative_to(ROOT.resolve()).as_posix()
            assert anchor in documents.anchors(target), link


def test_every_page_is_in_the_index() -> None:
    pages = {name.removeprefix("docs/") for name in DOCS if name.startswith("docs/")} - {"README.md"}
    assert pages == {link for link in documents.links("docs/README.md") if "/" not in link}


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 200


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_every_option_exists(name: str) -> None:
    known = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    known |= {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in parameter.secondary_opts
    }
    known |= {"--help", "--version", *FOREIGN_OPTIONS}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", PAGES[name])) <= known


def exists(place: str) -> bool:
    """Tell whether a path in the text is one of ours: from the top, or from any folder of the code."""
    if (ROOT / place).exists() or (ROOT / "resnetd_cli" / place).exists():
        return True
    return any(path.as_posix().endswith(f"/{place}") for path in (*CODE, *(ROOT / "tests").rglob("*.py")))


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_every_file_and_module_of_ours_exists(name: str) -> None:
    text = PAGES[name]
    ours = "|".join(
        re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    files = set(re.findall(r"`([\w/-]+\.py)`", text)) | set(re.findall(rf"`((?:{ours})/[\w/.-]*)`", text))
    assert {
        file for file in files if not exists(file) and not (ROOT / name).parent.joinpath(file).exists()
    } == set()
    for module in re.findall(r"`(resnetd_cli(?:\.\w+)+)`", text):
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_every_variable_is_read_by_the_program(name: str) -> None:
    read = "".join(path.read_text(encoding="utf-8") for path in CODE)
    for variable in re.findall(r"\b(?:RESNETD|HF|HUGGINGFACE)_[A-Z_]+\b", PAGES[name]):
        assert re.search(rf"\b{variable}\b", read), variable


def test_docstrings_and_comments_name_files_that_exist() -> None:
    missing = {
        (path.relative_to(ROOT).as_posix(), file)
        for path in (*CODE, *(ROOT / "tests").rglob("*.py"))
        for file in re.findall(r"`([\w/-]+\.py)`", path.read_text(encoding="utf-8"))
        if not exists(file)
    }
    assert missing == set()


def public_without_docstring(path: Path) -> Iterator[str]:
    """Yield the public modules, classes, functions and methods of a file that lack a docstring."""

    def search(node: Any, prefix: str) -> Iterator[str]:
        if not ast.get_docstring(node):
            yield prefix
        for child in getattr(node, "body", []):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                if child.name.startswith("_") or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    continue
                yield from search(child, f"{prefix}.{child.name}")

    text = path.read_text(encoding="utf-8")
    if text:  # not an empty `__init__`
        yield from search(ast.parse(text), path.relative_to(ROOT).as_posix())


def test_everything_public_has_a_docstring() -> None:
    folders = ("resnetd_cli", "benchmarks", "scripts", "fuzz")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    assert [name for path in files for name in public_without_docstring(path)] == []


# --- tables ---


TABLE_ROWS = dict(re.findall(r"^\| `?([\w.-]+)`? \| (.+) \|$", PAGES["docs/exit-codes.md"], flags=re.MULTILINE))


def test_error_kinds_are_documented() -> None:
    kinds = {name for name in TABLE_ROWS if not name.isdigit()} - {"code", "kind", "---"}
    assert kinds == {kind.value for kind in ErrorKind}


def test_exit_codes_are_documented() -> None:
    assert {int(name) for name in TABLE_ROWS if name.isdigit()} == {code.value for code in ExitCode}


@pytest.mark.parametrize("format_name", [*RECORD_FORMATS, *ARRAY_FORMATS])
def test_formats_are_documented(format_name: str) -> None:
    assert re.search(rf"(`|-f ){re.escape(format_name)}\b", PAGES["docs/formats.md"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_in_the_readme(command: str) -> None:
    assert any(line.startswith(f"resnetd {command}") for line in documents.command_lines("README.md"))


def test_the_family_is_named() -> None:
    row = next(line for line in PAGES["docs/models.md"].splitlines() if line.startswith("| `resnet18d`"))
    depths = {card.architecture.removeprefix("resnet") for card in cards()}
    assert {name.removeprefix("resnet") for name in re.findall(r"`([^`]+)`", row)} - {"resnet50d"} == depths


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    rows = [line for line in PAGES["README.md"].splitlines() if re.match(r"\| .* to [\d.]+ \|$", line)]
    assert len(rows) >= 3
    assert set(rows) <= set(PAGES["docs/speed.md"].splitlines())
