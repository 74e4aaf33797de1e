"""Hints name only options that the running command has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from resnetd_cli.cli import console
from resnetd_cli.cli.app import app
from resnetd_cli.cli.hints import HINTS, hint_for, hint_of, options_in
from resnetd_cli.cli.result_loop import report_failure, with_hint
from resnetd_cli.errors import ErrorKind, InputError, OutputExists, Reason, UsageError
from resnetd_cli.results import Failure

PACKAGE = Path(__file__).parents[2] / "resnetd_cli"
DETAILS = ("A", "B")
Assigned = dict[str, list[ast.expr]]


def _commands() -> dict[str, frozenset[str]]:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return {
        name: frozenset(option for parameter in command.params for option in parameter.opts)
        for name, command in group.commands.items()
    }


COMMANDS = _commands()
SHARED = {
    "evaluation.py": ("evaluate",),
    "training_run.py": ("finetune", "train"),
    "input_arguments.py": ("predict", "features", "bench"),
    "record_output.py": ("predict", "features"),
}
"""Modules of the command line whose hints are for some commands only."""


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _texts(
    node: ast.AST, assigned: dict[str, list[ast.expr]], seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield the texts in an expression, and in what is assigned to the names in it."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name) and node.id not in seen:
        for value in assigned.get(node.id, ()):
            yield from _texts(value, assigned, seen | {node.id})
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return  # what a function makes of its arguments
    elif not isinstance(node, ast.Attribute | ast.Subscript):
        for child in ast.iter_child_nodes(node):
            yield from _texts(child, assigned, seen)


def _assigned(tree: ast.Module) -> Assigned:
    found: Assigned = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        found.setdefault(name.id, []).append(node.value)
    return found


def _hints(path: Path) -> set[str]:
    """Return the texts that a module's errors have as hints."""
    tree = _parsed(path)
    assigned = _assigned(tree)
    return {
        text
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "hint"
        for text in _texts(keyword.value, assigned)
        if not text.startswith("pip install ")
    }


def test_every_reason_has_a_hint() -> None:
    assert set(HINTS) == set(Reason)
    assert all(texts for texts in HINTS.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_hints_name_only_options_of_their_command(command: str) -> None:
    for reason in Reason:
        hint = hint_for(reason, COMMANDS[command], DETAILS)
        for named, options in options_in(hint or "").items():
            assert options <= COMMANDS[named or command], hint


def test_every_hint_fits_a_command() -> None:
    """An entry whose options no command has would never be shown."""
    for reason, texts in HINTS.items():
        shown = {hint_for(reason, options, DETAILS) for options in COMMANDS.values()}
        assert {text.format(*DETAILS) for text in texts} <= shown


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("--max-pixels raises the limit", {None: {"--max-pixels"}}),
        ("choose another place with -o", {None: {"-o"}}),
        ("fewer --workers or a lower --batch-size", {None: {"--workers", "--batch-size"}}),
        ("resnetd pull M --weights W --precision int8", {None: set(), "pull": {"--weights", "--precision"}}),
        ("evaluate --fit-temperature fits one", {None: set(), "evaluate": {"--fit-temperature"}}),
        ("leave it out, or predict --features -f jsonl", {None: set(), "predict": {"--features", "-f"}}),
        ("predict gives it; --top-k K more", {None: {"--top-k"}, "predict": set()}),
        ("in Docker, --shm-size=1g; ulimit -n 1024", {None: set()}),
    ],
)
def test_options_in_text(text: str, options: dict[str | None, set[str]]) -> None:
    assert options_in(text) == options


@pytest.mark.slow
def test_library_hints_name_no_options() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if (PACKAGE / "cli") not in path.parents]
    found = {path.name: hint for path in modules for hint in _hints(path) if any(options_in(hint).values())}
    assert len(modules) > 80
    assert found == {}


def _texts_that_name_options(path: Path) -> list[str]:
    """Return the texts of a module, without docstrings, that contain an option."""
    tree = _parsed(path)
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docstrings)
    return [node.value for node in constants if re.search(r"(?<![\w-])--[a-z]", str(node.value))]


@pytest.mark.slow
def test_library_messages_name_no_options() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if (PACKAGE / "cli") not in path.parents]
    found = {path.relative_to(PACKAGE).as_posix() for path in modules if _texts_that_name_options(path)}
    to_paste = {
        "loading.py",
        "models/embedded.py",
        "views/bench.py",
    }  # commands of evaluate and pip; the fastest options
    assert found == to_paste


@pytest.mark.slow
def test_hints_of_the_command_line_name_options_of_their_commands() -> None:
    checked = 0
    for path in (PACKAGE / "cli").rglob("*.py"):
        own = path.stem.replace("_", "-")
        commands = (own,) if path.parent.name == "commands" else SHARED.get(path.name, tuple(COMMANDS))
        for hint in _hints(path):
            for named, options in options_in(hint).items():
                for command in (named,) if named else commands:
                    assert options - {"--help"} <= COMMANDS[command], f"{path.name}: {hint}"
                    checked += bool(options)
    assert checked > 10


def test_hint_follows_what_the_error_says_itself() -> None:
    error = UsageError("no", hint="put them back", reason=Reason.OUTPUT_EXISTS)
    assert hint_of(error) == "put them back; --overwrite replaces it"
    assert hint_of(error, ["-o"]) == "put them back"
    assert hint_of(OutputExists("no", reason=Reason.OUTPUT_EXISTS), ["-o"]) is None


def test_hint_falls_back_to_one_without_the_missing_option() -> None:
    error = InputError(ErrorKind.HTTP_STATUS, "busy", reason=Reason.SERVER_BUSY)
    assert hint_of(error, COMMANDS["predict"]) == "try again later, or with a longer --timeout"
    assert hint_of(error, COMMANDS["bench"]) == "try again later"


@pytest.mark.parametrize(("command", "told"), [("predict", True), ("evaluate", True), ("finetune", False)])
def test_failed_input_is_printed_with_a_hint_of_the_command(
    command: str, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console.terminal, "options", COMMANDS[command])
    monkeypatch.setattr(console.terminal, "_hints", set())
    failure = Failure("a.png", "m", ErrorKind.TOO_LARGE, "9 pixels, more than 8", reason=Reason.TOO_MANY_PIXELS)
    report_failure(failure)
    hint = "hint: --max-pixels raises the limit\n" if told else ""
    assert capsys.readouterr().err == f"error: a.png: 9 pixels, more than 8\n{hint}"
    assert with_hint(failure).hint == ("--max-pixels raises the limit" if told else None)


@pytest.mark.parametrize("command", ["predict", "features", "bench"])
def test_out_of_memory_hint_fits_each_command(command: str) -> None:
    hint = hint_for(Reason.NO_MEMORY, COMMANDS[command])
    assert hint == (
        "use a lower --batch-size" if command == "bench" else "use fewer --workers or a lower --batch-size"
    )


def test_reason_and_details_survive_another_process() -> None:
    import pickle

    error = UsageError("no", reason=Reason.SIZE_NOT_TAKEN, details=(224,))
    again = pickle.loads(pickle.dumps(error))
    assert hint_of(again) == "--image-size 224 works"
