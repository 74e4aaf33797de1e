"""The README's tables and commands, held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from resnetd_cli import models
from resnetd_cli.cli.app import app
from resnetd_cli.errors import ErrorKind, ExitCode
from resnetd_cli.sinks import ARRAY_FORMATS, RECORD_FORMATS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TABLE_ROWS = dict(re.findall(r"^\| `?([\w.-]+)`? \| (.+) \|$", README, flags=re.MULTILINE))


@pytest.mark.parametrize("kind", ErrorKind)
def test_error_kinds_are_documented_with_their_meaning(kind: ErrorKind) -> None:
    assert TABLE_ROWS[kind.value] == kind.meaning


def test_exit_codes_are_documented() -> None:
    documented = {int(name) for name in TABLE_ROWS if name.isdigit()}
    assert documented == {code.value for code in ExitCode}


def test_every_command_and_its_long_options_exist_where_the_readme_uses_them() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    used = set(re.findall(r"resnetd (?!predicts?\b.*prints)([a-z]+(?:-[a-z]+)?)", README))
    assert set(commands) <= used
    known = {option for command in commands.values() for parameter in command.params for option in parameter.opts}
    known |= {"--install-completion", "--help", "--no-deps", "--shm-size"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README + TROUBLESHOOTING)) <= known


@pytest.mark.parametrize("name", [*RECORD_FORMATS, *ARRAY_FORMATS])
def test_formats_are_documented(name: str) -> None:
    assert re.search(rf"(`|-f ){re.escape(name)}\b", README)


def test_the_family_is_named() -> None:
    row = next(line for line in README.splitlines() if line.startswith("| `resnet18d`"))
    depths = {card.architecture.removeprefix("resnet") for card in models.cards()}
    assert {name.removeprefix("resnet") for name in re.findall(r"`([^`]+)`", row)} == depths
