"""The README's tables and commands, held against the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

from resnetd_cli import pull
from resnetd_cli.cli.app import app
from resnetd_cli.compiled import exported_file
from resnetd_cli.errors import ErrorKind, ExitCode
from resnetd_cli.evaluation import temperature
from resnetd_cli.loading import Loader
from resnetd_cli.models.names import cards
from resnetd_cli.pipeline.sinks.base import ARRAY_FORMATS, RECORD_FORMATS
from resnetd_cli.pipeline.sources.inputs import expand
from resnetd_cli.results import Calibrated

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
    depths = {card.architecture.removeprefix("resnet") for card in cards()}
    assert {name.removeprefix("resnet") for name in re.findall(r"`([^`]+)`", row)} == depths


@pytest.mark.slow
def test_the_example_with_onnxruntime_gives_what_predict_does_once_a_temperature_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    file = tmp_path / "embedded.onnx"
    pull.export(Loader("embedded"), file)
    temperature.store(file, Calibrated.at(1.7, exported_file.read_card(file).preprocessing, "fp32"))
    (code,) = re.findall(r"```python\n(import json\n.*?)```", README, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    (expected,) = Loader(str(file), engine="auto").load().probabilities(expand(["samples/coffee.jpg"]))
    assert isinstance(expected, np.ndarray)
    assert np.abs(names["probabilities"] - expected).max() < 1e-5
    # Without it the first class has 95.46 %.
    assert capsys.readouterr().out == f"espresso {expected.max():.2%}\n"
    assert expected.max() < 0.9
