"""A cold interpreter: what may not be imported before it is needed, and that every command is documented."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

import pytest
from helpers.paths import ROOT
from helpers.program import Resnetd
from typer.main import get_command

from resnetd_cli import __version__
from resnetd_cli.cli.app import app

COMMANDS = sorted(get_command(app).commands)
HEAVY = ("torch", "torchvision", "timm", "numpy", "PIL")
ANSWERED = [
    (["--help"], "What is in this picture?"),
    (["-h"], "What is in this picture?"),
    (["--version"], f"resnetd {__version__}"),
    (["info", "resnet50d"], "resnet50d.ra2_in1k"),
    (["info", "resnet50d", "-f", "table"], "224 x 224"),
    (["info", "resnet50d", "--bibtex"], "@inproceedings{he2019bag,"),
    (["list-models"], "resnet200d.ra2_in1k"),
    (["list-models", "-f", "table"], "resnet200d.ra2_in1k"),
    (["labels", "terrier"], "n02085936"),
    *(([command, "--help"], "Usage: resnetd " + command) for command in COMMANDS),
]
REFUSED = [
    ([], 2),
    (["predict"], 2),
    (["predict", "x.jpg", "-k", "0"], 2),
    (["predict", "x.jpg", "-o", "no/such/folder.csv"], 1),
    (["features", "x.jpg"], 2),
    (["bogus"], 2),
    (["list-models", "bogus"], 2),
    (["labels", "bogus"], 2),
]
# Runs every command line in a copy of one new interpreter: a cold start of each would take half a second.
RUN_EACH = """
import json, os, sys
from resnetd_cli.cli.app import run

lines, heavy, folder = json.loads(sys.argv[1]), set(json.loads(sys.argv[2])), sys.argv[3]
for number, arguments in enumerate(lines):
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"{folder}/{number}.json", "w") as file:
        commands = sorted(name[25:] for name in sys.modules if name.startswith("resnetd_cli.cli.commands."))
        json.dump([code, sorted(heavy & set(sys.modules)), commands], file)
    os._exit(0)
"""
REPORT = f"""
print("imported:", *sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
sys.exit(code)
"""


def cold(run_resnetd: Resnetd, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new interpreter, with no model on the machine and no network."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=run_resnetd.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def imported(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the heavy modules that the last line of stderr names."""
    *_, last = finished.stderr.splitlines()
    title, *modules = last.split()
    assert title == "imported:"
    return modules


class Started(NamedTuple):
    code: int
    stdout: str
    stderr: str
    imported: list[str]
    commands: list[str]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Started]:
    """What each command line did in an interpreter that had run none before."""
    folder = tmp_path_factory.mktemp("started")
    lines = [arguments for arguments, _ in (*ANSWERED, *REFUSED)]
    resnetd = Resnetd(folder / "home")
    finished = cold(resnetd, RUN_EACH, json.dumps(lines), json.dumps(HEAVY), str(folder))
    assert finished.returncode == 0, finished.stderr
    results = {}
    for number, arguments in enumerate(lines):
        code, imported, commands = json.loads((folder / f"{number}.json").read_text())
        stdout, stderr = ((folder / f"{number}.{name}").read_text(encoding="utf-8") for name in ("out", "err"))
        results[" ".join(arguments)] = Started(code, stdout, stderr, imported, commands)
    return results


@pytest.mark.slow
def test_report_detects_a_heavy_import(run_resnetd: Resnetd) -> None:
    assert imported(cold(run_resnetd, "import sys, numpy\ncode = 0" + REPORT)) == ["numpy"]


def test_package_imports_nothing_heavy(run_resnetd: Resnetd) -> None:
    code = "import sys, resnetd_cli\nprint(resnetd_cli.__version__)\ncode = 0" + REPORT
    finished = cold(run_resnetd, code)
    assert imported(finished) == []
    assert finished.stdout == f"{__version__}\n"


@pytest.mark.slow
def test_package_api_is_loaded_on_first_use(run_resnetd: Resnetd) -> None:
    code = "import sys, resnetd_cli\nprint(resnetd_cli.load.__module__)\ncode = 0" + REPORT
    finished = cold(run_resnetd, code)
    assert finished.stdout == "resnetd_cli.loading\n"
    assert "timm" not in imported(finished)


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "words"), ANSWERED)
def test_command_runs_without_heavy_imports(started: dict[str, Started], arguments: list[str], words: str) -> None:
    result = started[" ".join(arguments)]
    assert (result.code, result.stderr, result.imported) == (0, "", [])
    assert words in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code"), REFUSED)
def test_usage_error_needs_no_heavy_imports(started: dict[str, Started], arguments: list[str], code: int) -> None:
    result = started[" ".join(arguments)]
    assert (result.code, result.stdout, result.imported) == (code, "", [])


@pytest.mark.parametrize("line", ["--help", "-h", "--version", "bogus"])
def test_no_command_is_imported_if_none_runs(started: dict[str, Started], line: str) -> None:
    assert started[line].commands == []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_imports_no_other_command(started: dict[str, Started], command: str) -> None:
    assert started[f"{command} --help"].commands == [command.replace("-", "_")]


@pytest.mark.slow
def test_no_command_prints_help_and_exits_with_2(run_resnetd: Resnetd) -> None:
    finished = run_resnetd()
    assert finished.returncode == 2
    assert finished.stdout == ""
    for command in COMMANDS:
        assert f"  {command} " in finished.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    command = get_command(app).commands[name]
    assert command.short_help
    assert command.short_help.endswith(".")
    assert f"resnetd {name}" in (command.help or ""), "an example of the command"
    for parameter in command.params:
        assert parameter.name == "help" or getattr(parameter, "help", None), parameter.name
