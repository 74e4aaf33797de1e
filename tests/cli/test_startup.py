"""A cold interpreter: what may not be imported before it is needed, and that every command is documented."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.paths import ROOT
from helpers.program import Resnetd
from typer.main import get_command

from resnetd_cli import __version__
from resnetd_cli.cli.app import app

COMMANDS = sorted(get_command(app).commands)
HEAVY = ("torch", "torchvision", "timm", "numpy", "PIL")
RUN = """
import sys
from resnetd_cli.cli.app import run
code = run(sys.argv[1:])
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


def test_the_report_sees_a_heavy_import(run_resnetd: Resnetd) -> None:
    assert imported(cold(run_resnetd, "import sys, numpy\ncode = 0" + REPORT)) == ["numpy"]


def test_the_package_imports_nothing_heavy(run_resnetd: Resnetd) -> None:
    code = "import sys, resnetd_cli\nprint(resnetd_cli.__version__)\ncode = 0" + REPORT
    finished = cold(run_resnetd, code)
    assert imported(finished) == []
    assert finished.stdout == f"{__version__}\n"


def test_the_package_gives_its_api_on_first_use(run_resnetd: Resnetd) -> None:
    code = "import sys, resnetd_cli\nprint(resnetd_cli.load.__module__)\ncode = 0" + REPORT
    finished = cold(run_resnetd, code)
    assert finished.stdout == "resnetd_cli.loading\n"
    assert "timm" not in imported(finished)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--help"], "What is in this picture?", id="--help"),
        pytest.param(["-h"], "What is in this picture?", id="-h"),
        pytest.param(["--version"], f"resnetd {__version__}", id="--version"),
        pytest.param(["info", "resnet50d"], "resnet50d.ra2_in1k", id="info"),
        pytest.param(["info", "resnet50d", "-f", "table"], "224 x 224", id="info-table"),
        pytest.param(["info", "resnet50d", "--bibtex"], "@inproceedings{he2019bag,", id="bibtex"),
        pytest.param(["list-models"], "resnet200d.ra2_in1k", id="list-models"),
        pytest.param(["list-models", "-f", "table"], "resnet200d.ra2_in1k", id="list-models-table"),
        pytest.param(["labels", "terrier"], "n02085936", id="labels"),
        *(pytest.param([command, "--help"], "Usage: resnetd " + command, id=command) for command in COMMANDS),
    ],
)
def test_answers_without_a_heavy_import(run_resnetd: Resnetd, arguments: list[str], words: str) -> None:
    finished = cold(run_resnetd, RUN + REPORT, *arguments)
    assert imported(finished) == []
    assert finished.returncode == 0
    assert words in finished.stdout
    assert finished.stderr.count("\n") == 1  # the report alone


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["predict"],
        ["predict", "x.jpg", "-k", "0"],
        ["predict", "x.jpg", "-o", "no/such/folder.csv"],
        ["features", "x.jpg"],
        ["bogus"],
        ["list-models", "bogus"],
        ["labels", "bogus"],
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_refuses_without_a_heavy_import(run_resnetd: Resnetd, arguments: list[str]) -> None:
    finished = cold(run_resnetd, RUN + REPORT, *arguments)
    assert imported(finished) == []
    assert finished.returncode in (1, 2)
    assert finished.stdout == ""


def test_nothing_named_shows_the_help_as_wrong_usage(run_resnetd: Resnetd) -> None:
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
