"""The Markdown pages: their links lead somewhere, and the files, options and names in them exist."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import documents
from helpers.documents import DOCS, PAGES, ROOT
from typer.main import get_command

from resnetd_cli.cli.app import app
from resnetd_cli.errors import ErrorKind, ExitCode
from resnetd_cli.models.table import entries
from resnetd_cli.pipeline.sinks.arrays import ARRAY_FORMATS
from resnetd_cli.pipeline.sinks.base import RECORD_FORMATS

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
CODE = sorted((ROOT / "resnetd_cli").rglob("*.py"))
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


# --- links and names ---


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_existing_pages_and_headings(name: str) -> None:
    for link in documents.links(name):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), link
        if anchor:
            target = path.resolve().relative_to(ROOT.resolve()).as_posix()
            assert anchor in documents.anchors(target), link


def test_index_lists_every_page() -> None:
    pages = {name.removeprefix("docs/") for name in DOCS if name.startswith("docs/")} - {"README.md"}
    assert pages == {link for link in documents.links("docs/README.md") if "/" not in link}


def test_readme_has_at_most_200_lines() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 200


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_named_options_exist(name: str) -> None:
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
def test_named_files_and_modules_exist(name: str) -> None:
    text = PAGES[name]
    folders = "|".join(path.name for path in ROOT.glob("[!.]*/"))
    files = set(re.findall(r"`([\w/-]+\.py)`", text)) | set(re.findall(rf"`((?:{folders})/[\w/.-]*)`", text))
    beside = (ROOT / name).parent
    missing = {file for file in files if not exists(file) and not (beside / file).exists()}
    assert {file for file in missing if "/NAME." not in file} == set()
    for module in re.findall(r"`(resnetd_cli(?:\.\w+)+)`", text):
        assert importlib.util.find_spec(module), module


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_named_variables_are_read_by_the_program(name: str) -> None:
    read = "".join(path.read_text(encoding="utf-8") for path in CODE)
    for variable in re.findall(r"\b(?:RESNETD|HF|HUGGINGFACE)_[A-Z_]+\b", PAGES[name]):
        assert re.search(rf"\b{variable}\b", read), variable


def test_glossary_is_short_and_agrees_with_the_code() -> None:
    glossary = PAGES["CONTRIBUTING.md"].partition("## Glossary")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w -]+) \| (.+) \| `([\w/.]+)` \|$", glossary, flags=re.MULTILINE)
    assert 15 < len(rows) <= 25
    for _, meaning, file in rows:
        code = (ROOT / "resnetd_cli" / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", meaning):
            assert re.search(rf"^class {name}\b", code, flags=re.MULTILINE), name


def test_files_named_in_docstrings_and_comments_exist() -> None:
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


@pytest.mark.slow
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
def test_readme_has_an_example_of_every_command(command: str) -> None:
    assert any(line.startswith(f"resnetd {command}") for line in documents.command_lines("README.md"))


def test_resnetd_family_is_documented() -> None:
    row = next(line for line in PAGES["docs/models.md"].splitlines() if line.startswith("| `resnet18d`"))
    depths = {entry.architecture.removeprefix("resnet") for entry in entries()}
    assert {name.removeprefix("resnet") for name in re.findall(r"`([^`]+)`", row)} - {"resnet50d"} == depths


def test_speed_figures_of_the_readme_are_those_of_the_speed_page() -> None:
    rows = [line for line in PAGES["README.md"].splitlines() if re.match(r"\| .* to [\d.]+ \|$", line)]
    assert len(rows) >= 3
    assert set(rows) <= set(PAGES["docs/speed.md"].splitlines())


# --- troubleshooting ---

NOT_IN_ONE_PIECE = re.compile(r".*certificate verify failed|cannot get REPO from ")
"""Messages of libraries, or put together from short pieces."""
LONG_ENOUGH = 12
"""Characters that do not agree by chance."""


def words_of_the_program() -> str:
    """Return every text in the code but the docstrings."""
    texts: dict[str, None] = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body = getattr(node, "body", None)
            first = body[0] if isinstance(body, list) and body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value = ast.Constant(None)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts[node.value] = None
    return "\0".join(texts)


def share_found(message: str, text: str) -> float:
    """Return the share of a message's letters that stand in a text, placeholders aside."""
    found: set[int] = set()
    for start in range(len(message) - LONG_ENOUGH + 1):
        stop = start + LONG_ENOUGH
        while stop <= len(message) and message[start:stop] in text:
            found.update(range(start, stop))
            stop += 1
    fixed = re.sub(r"'[^']*'|\S*[A-Z0-9/=.:]\S*", lambda match: " " * len(match[0]), message)
    letters = {place for place, letter in enumerate(fixed) if letter.isalpha()}
    return len(letters & found) / len(letters) if len(letters) >= 24 else 1.0


@pytest.mark.slow
def test_messages_of_troubleshooting_are_in_the_code() -> None:
    text = words_of_the_program()
    rows = [line for line in PAGES["docs/troubleshooting.md"].splitlines() if line.startswith("| `")]
    messages = {
        message.replace("\\|", "|")
        for row in rows
        for message in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", row)[1])
    }
    assert len(messages) > 100
    stale = {message for message in messages if share_found(message, text) < 0.35}
    assert {message for message in stale if not NOT_IN_ONE_PIECE.match(message)} == set()
    assert share_found("pictures without captions vanish quietly from every album", text) < 0.35
