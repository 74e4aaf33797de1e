"""Command lines that the parser alone would misread, and the locale they are read in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.program import Resnetd
from typer.core import TyperGroup
from typer.main import get_command

from resnetd_cli import __main__ as program
from resnetd_cli.cli.app import app
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.cli.mistyped import understood
from resnetd_cli.cli.multi_value_options import _repeat
from resnetd_cli.errors import UsageError

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX names")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dog.jpg", "two words.jpg", "-kitten.jpg", "photos/a.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"x")


def read(*arguments: str) -> list[str]:
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    return understood(list(arguments), command.commands)


def refusal(*arguments: str) -> tuple[str, str | None]:
    with pytest.raises(UsageError) as caught:
        read(*arguments)
    return caught.value.message, hint_of(caught.value)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["help"], ["--help"]),
        (["help", "predict"], ["predict", "--help"]),
        (["help", "labels", "terrier"], ["labels", "--help"]),
    ],
)
def test_help_works_as_a_command(arguments: list[str], meant: list[str]) -> None:
    assert read(*arguments) == meant


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        ["predict", "dog.jpg", "-k", "3", "--model=embedded"],
        ["predict", "-", "--", "-kitten.jpg"],
        ["predict", "-k3", "./-kitten.jpg"],
        ["train", "photos", "--lr", "-1", "--set", "scale=[0.6,1]"],
        ["export", "embedded", "-o", "x.onnx", "--verify", "photos"],
    ],
)
def test_valid_command_line_is_unchanged(arguments: list[str]) -> None:
    assert read(*arguments) == arguments


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["dog.jpg"], "resnetd predict dog.jpg"),
        (["photos"], "resnetd predict photos"),
        (["two words.jpg", "-k", "3"], "resnetd predict 'two words.jpg' -k 3"),
        (["*.{jpg,png}"], "resnetd predict '*.{jpg,png}'"),
        (["https://host/a.jpg"], "resnetd predict https://host/a.jpg"),
        (["file:///a.jpg"], "resnetd predict file:///a.jpg"),
        (["-"], "resnetd predict -"),
        (["dog.jpg"] * 5, "resnetd predict dog.jpg dog.jpg dog.jpg dog.jpg ..."),
        (["predcit", "dog.jpg"], "resnetd predict dog.jpg"),
        (["help", "features!"], "resnetd features --help"),
        (["bogus"], "resnetd --help lists the commands"),
        (["*.gif"], "resnetd --help lists the commands"),
    ],
)
def test_image_in_place_of_a_command_suggests_predict(arguments: list[str], hint: str) -> None:
    message, given = refusal(*arguments)
    first = arguments[1] if arguments[0] == "help" else arguments[0]
    assert (message, given) == (f"no command called '{first}'", hint)


def test_options_and_an_image_without_command_are_an_error() -> None:
    assert refusal("-k", "3", "dog.jpg") == ("no command", "resnetd predict -k 3 dog.jpg")


@posix
@pytest.mark.parametrize(
    ("word", "shown"),
    [("-kitten.jpg", "./-kitten.jpg"), ("-*.jpg", "'./-*.jpg'"), ("-k{itten,}.jpg", "'./-k{itten,}.jpg'")],
)
def test_file_name_like_an_option_is_refused(word: str, shown: str) -> None:
    hint = f"write {shown}, or put -- before the names"
    for command in ("predict", "features", "pull"):
        message = f"{word} is a file, but looks like an option"
        assert refusal(command, "--quiet", word, "dog.jpg") == (message, hint)


@posix
def test_option_beats_a_file_of_the_same_name() -> None:
    Path("-v").touch()
    Path("--model=embedded").touch()
    arguments = ["predict", "-v", "--model=embedded", "dog.jpg"]
    assert read(*arguments) == arguments


def test_equals_sign_passes_a_single_value() -> None:
    words = ["x", "--verify=a", "b", "--calibrate", "c", "d", "-o", "e", "--", "--verify"]
    assert list(_repeat(words[:-2], ["--verify", "--calibrate"])) == (
        ["x", "--verify=a", "b", "--calibrate", "c", "--calibrate", "d", "-o", "e"]
    )


# --- locales ---


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "euc_jp"])
def test_non_utf_8_locale_restarts_the_program(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "resnetd_cli", "predict", "x"])
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append((path, arguments)))
    monkeypatch.setenv("PYTHONUTF8", "0")
    program._start_in_utf8()
    assert started == [(sys.executable, [sys.executable, "-X", "utf8", "-m", "resnetd_cli", "predict", "x"])]
    assert os.environ["PYTHONUTF8"] == "1"


def test_utf_8_locale_does_not_restart_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started again"))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "utf-8")
    program._start_in_utf8()


@posix
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("localedef") is None, reason="no locale can be made")
def test_file_names_keep_their_bytes_in_a_latin_1_locale(
    run_resnetd: Resnetd, tmp_path: Path, without_torch: dict[str, str]
) -> None:
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / "en_US.ISO-8859-1"]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode > 1:  # 1: with warnings
        pytest.skip("no locale can be made")
    names = [b"caf\xc3\xa9.jpg", b"lat\xe9.jpg"]
    for name in names:
        shutil.copy(ROOT / "samples" / "coffee.jpg", tmp_path / os.fsdecode(name))
    paths = [os.fsencode(tmp_path) + b"/" + name for name in names]
    (tmp_path / "list").write_bytes(b"\n".join(paths))
    env = {"LC_ALL": "en_US.ISO-8859-1", "LOCPATH": str(tmp_path), "PYTHONUTF8": "0"}
    arguments = ["--files-from", tmp_path / "list", "-m", "embedded", "-o", tmp_path / "f.npy"]
    ended = run_resnetd("features", *arguments, **env, **without_torch)
    assert ended.returncode == 0, ended.stderr
    rows = (tmp_path / "f.npy.index.csv").read_bytes().splitlines()[1:]
    assert [row.split(b",")[1] for row in rows] == paths
