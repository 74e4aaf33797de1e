"""Names of files and classes are chosen by others: a terminal shows them, and never acts on them."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from helpers.loaders import loader_for
from helpers.paths import COFFEE, ROOT
from helpers.program import Cli, Resnetd
from helpers.tsv import tsv_text

from resnetd_cli.cli import app
from resnetd_cli.cli.console import Terminal
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, ResnetdError
from resnetd_cli.pipeline.sinks.arrays import open_array_sink
from resnetd_cli.pipeline.sinks.base import open_sink
from resnetd_cli.results import Classified, Failure, Prediction
from resnetd_cli.system.escaping import csv_line, printable, shell_word, tsv_line, without_formulas
from resnetd_cli.views.listing import write_facts, write_rows

pytestmark = pytest.mark.usefixtures("compiled")

NASTY = {
    "colour": "\x1b[31mred",
    "cursor": "\x1b[2J\x1b[H",
    "link": "\x1b]8;;http://evil/\x07click\x1b]8;;\x07",
    "clipboard": "\x1b]52;c;cm0=\x07",
    "title": "\x1b]0;title\x07",
    "c1": "\x9b31mred",
    "bell and delete": "\x07\x08\x7f",
    "bidi": "\u202egpj.exe\u202c",
    "isolates": "\u2066a\u2069",
    "zero width": "a\u200bb\u200dc\ufeff",
    "lines": "a\u2028b\u2029c\x85d\x0b\x0c\x1c",
    "tag": "a\U000e0041",
    "fillers": "a\u3164\u115f\u034f",
    "selectors": "a\ufe0f\U000e0100",
    "not utf-8": "\udc9b31m\udcff",
}
MARKUP = ("[red]x[/red]", "[/]", "[link=http://evil]x[/link]", ":smile:", "[bold", "\\[red]")
FORMATS = ("table", "tsv", "csv", "json", "jsonl")
STYLES = re.compile(r"\x1b\[[0-9;]*m")
"""What Rich sends on its own account."""


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def acted_on(text: str) -> set[str]:
    """Return the characters that a terminal would act on, or not show."""
    unsafe = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    unsafe |= set("\u034f\u115f\u3164\ufe0f\U000e0100").intersection(text)  # nothing is drawn for them
    return unsafe - {"\n", "\t"}


def record(text: str) -> Classified:
    return Classified(text, text, (Prediction(1, 7, text, text, 0.5),))


def failure(text: str) -> Failure:
    return Failure(text, text, ErrorKind.UNREADABLE, text, text)


def written(format_name: str, stream: io.StringIO, text: str) -> str:
    sink = open_sink(format_name, stream)
    sink.write(record(text))
    sink.write(failure(text))
    sink.close()
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("format_name", [*FORMATS, "overview"])
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_no_format_writes_control_characters_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, format_name: str, text: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = STYLES.sub("", written(format_name, Screen(), text))
    assert acted_on(shown) == set()
    assert shown.count("\\") >= 3, "the name, the label, the message"


@pytest.mark.parametrize("format_name", ["table", "tsv", "json", "jsonl"])
@pytest.mark.parametrize("text", [text for name, text in NASTY.items() if name != "not utf-8"])
def test_some_formats_escape_control_characters_in_files_too(format_name: str, text: str) -> None:
    assert acted_on(written(format_name, io.StringIO(), text)) == set()


@pytest.mark.parametrize("text", MARKUP)
def test_rich_markup_and_emoji_codes_are_literal(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = STYLES.sub("", written("table", Screen(), text))
    assert shown.count(text) == 5, "name, class and id; name and message"
    shown = STYLES.sub("", written("overview", Screen(), text))
    assert shown.count(text) == 7, "name and class; name and message; class, name and hint in the summary"


@pytest.mark.parametrize("format_name", FORMATS)
def test_listings_escape_control_characters(monkeypatch: pytest.MonkeyPatch, format_name: str) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    for text in NASTY.values():
        stream = Screen()
        write_rows([{"a": text, "b": [text]}], stream, format_name, columns={"a": "a", "b": "b"})
        write_facts({"a": text}, stream, format_name, shown={"a": text})
        assert acted_on(STYLES.sub("", stream.getvalue())) == set()
    if format_name == "table":
        stream = Screen()
        write_rows([{"a": "[red]x"}], stream, format_name, columns={"a": "a"})
        assert "[red]x" in stream.getvalue()


def test_wide_characters_count_as_two_columns() -> None:
    # Eight columns as Han characters, four as letters: the second column has no room beside it.
    stream = io.StringIO()
    rows = [{"a": "猫" * 20, "b": "x"}]
    os.environ["COLUMNS"], before = "40", os.environ.get("COLUMNS")
    try:
        write_rows(rows, stream, "table", columns={"a": "a", "b": "b"})
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    assert "x" not in stream.getvalue()


@pytest.mark.parametrize("stream_kind", [Screen, io.StringIO])
def test_notes_errors_and_tracebacks_are_escaped(
    monkeypatch: pytest.MonkeyPatch, stream_kind: type[io.StringIO]
) -> None:
    stream = stream_kind()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    for text in (*NASTY.values(), *MARKUP):
        terminal.note(text)
        terminal.error(ResnetdError(text, hint=text), about=text)
        terminal.lines(f"Traceback\n  {text.splitlines()[0]}\n")
    shown = STYLES.sub("", stream.getvalue())
    assert acted_on(shown) == set()
    for text in MARKUP:
        assert f"error: {text}: {text}\n" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["predict", "x", "--{}"], 2),
        (["predict", "x", "-f", "{}"], 2),
        (["predict", "x", "-k", "{}"], 2),
        (["predict", "x", "-m", "{}"], 2),
        (["predict", "x", "--device", "{}"], 2),
        (["predict", "x", "--image-size", "{}"], 2),
        (["predict", "x", "-o", "{}/x.csv"], 1),
        (["predict", "x", "-o", "x.{}"], 2),
        (["predict", "x", "--labels", "{}"], 1),
        (["predict", "--files-from", "{}"], 2),
        (["features", "x", "-o", "{}.npy/x.npy"], 1),
        (["info", "./{}"], 2),
        (["labels", "{}"], 2),
        (["labels", "--set", "{}"], 1),
        (["list-models", "{}"], 2),
        (["{}"], 2),
    ],
)
def test_usage_error_escapes_the_argument(cli: Cli, arguments: list[str], code: int) -> None:
    for text in ("\x1b]52;c;cm0=\x07\x9b31m", "\u202e\u2028:smile:[red]"):
        ended = cli(*(argument.format(text) for argument in arguments))
        assert ended.code == code
        assert [line.partition(" ")[0] for line in ended.stderr.splitlines()] == ["error:", "hint:"]
        assert acted_on(ended.stderr) == set()
        assert ended.stdout == ""


def test_verbose_traceback_is_escaped(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("\x1b[31m\nsecond line")

    monkeypatch.setattr(app, "_invoke", fail)
    app.terminal.setup(verbose=True)
    monkeypatch.setattr(app.terminal, "setup", lambda **_: None)
    ended = cli("list-models")
    assert "Traceback" in ended.stderr
    assert "ValueError: \\x1b[31m" in ended.stderr
    assert acted_on(ended.stderr) == set()


# --- what undoes it ---


def test_tsv_escapes_can_be_decoded() -> None:
    assert tsv_line(["a\tb\nc\rd\\e", "\x1b\x7f\x9b", "\u202e\u2028", "\U000e0041", None, 1]) == (
        "a\\tb\\nc\\rd\\\\e\t\\x1b\\x7f\\x9b\t\\u202e\\u2028\t\\U000e0041\t\t1\n"
    )
    for text in (*NASTY.values(), *MARKUP, "\\x1b", "\\\\x1b", "C:\\new\\x41", "\ud800"):
        for terminal in (False, True):
            line = tsv_line([text], terminal=terminal).encode("utf-8", "surrogateescape")
            assert tsv_text(line.decode("utf-8", "surrogateescape")[:-1]) == text


def test_non_utf_8_names_keep_their_bytes_in_tsv_and_csv() -> None:
    for line in (tsv_line, csv_line):
        assert line(["caf\udce9"]).encode("utf-8", "surrogateescape") == b"caf\xe9\n"
        assert line(["caf\udce9"], terminal=True) == "caf\\udce9\n"


def test_lone_surrogates_are_escaped() -> None:
    assert csv_line(["\ud800", "\ud800\udcff"]) == "\\ud800,\\ud800\\udcff\n"
    assert tsv_line(["\ud800"]) == "\\ud800\n"
    assert json.loads(written("jsonl", io.StringIO(), "\ud800").splitlines()[0])["input"] == "\ud800"


def test_name_undecoded_by_the_locale_is_read_as_utf_8() -> None:
    name = "é 猫"
    undecoded = name.encode().decode("ascii", "surrogateescape")
    assert printable(undecoded) == name
    assert tsv_line([undecoded]) == csv_line([undecoded]) == f"{name}\n"
    assert json.loads(written("jsonl", io.StringIO(), undecoded).splitlines()[0])["input"] == name


def test_printable_unicode_is_not_escaped() -> None:
    for text in ("猫 é ß שלום.jpg", "a b c", "naïve — “quotes” …"):
        assert printable(text) == text
        assert tsv_line([text]) == csv_line([text]) == f"{text}\n"
        assert json.dumps(text, ensure_ascii=False) in written("jsonl", io.StringIO(), text)


def test_csv_in_a_file_keeps_control_characters() -> None:
    assert csv_line(["\x1b[31m\u202e"]) == "\x1b[31m\u202e\n"


# --- commands to paste ---


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_path_in_a_hint_can_be_pasted_into_a_shell() -> None:
    names = [
        "a b",
        "$(touch x)",
        "`x`",
        "'",
        '"',
        "; rm x",
        "é 猫",
        "*",
        "~",
        "!x",
        "a\nb",
        *NASTY.values(),
        *MARKUP,
    ]
    words = [shell_word(name) for name in names]
    assert all(word.isprintable() for word in words)
    finished = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {' '.join(words)}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    assert [os.fsdecode(name) for name in finished.stdout.split(b"\0")[:-1]] == names


def test_shell_word_of_a_path_like_an_option_starts_with_dot_slash() -> None:
    assert shell_word("-rf") == "./-rf"


@pytest.mark.slow
def test_hints_quote_paths_for_the_shell(cli: Cli) -> None:
    assert "mkdir -p 'a; rm b'\n" in cli("predict", "x", "-o", "a; rm b/x.csv").stderr
    Path("$(x).jpg").mkdir()
    Path("in").mkdir()
    (Path("in") / "$(x).jpg").symlink_to("$(x).jpg")
    assert "ls -l 'in/$(x).jpg'\n" in cli("predict", "in", "--engine", "torch").stderr
    assert "resnetd pull '$(x)' --weights '; b'" in str(hint_of(_no_int8("$(x)", Path("; b"))))


def _no_int8(model: str, weights: Path) -> ResnetdError:
    return loader_for(model, weights=weights)._no_int8()


# --- formulas ---


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-rf.jpg",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\tx",
        ' "=1',
        "'=1",
        "  =1",
        "＝1",
        "-1",
        "''@",
        "\ufeff=1",
        "\u200b=1",
        "\u200d\u2060@x",
        "\u00ad-1",
        "\u00a0=1",
        "\u3000\u2009=1",
        "\u2028=1",
        "\u3164=1",
        "\u2800=1",
        "\u2800 \u2800+1",
        "\U0001d159@x",
        "\ufe0f=1",
        "\x00=1",
        "\u202e=1",
        '\ufeff "\u200b＝1',
        "\udcff=1",
        "\udcef\udcbc\udc9d1",  # a full-width sign, as Python reads it in the C locale
        "﹦1",
        "﹢1",
        "﹣1",
        "﹫x",
        "⁼1",
        "−1",
    ],
)
def test_formula_cells_get_an_apostrophe(text: str) -> None:
    (cell,) = without_formulas([text])
    assert cell == f"'{text}"
    assert cell.startswith("'")


def test_other_cells_and_numbers_are_unchanged() -> None:
    cells = [
        "x.jpg",
        "a=1",
        "",
        None,
        -1,
        1e-5,
        -0.5,
        "'quoted'",
        "a\tb",
        "\ufeffa=1",
        "é=1",
        "\u200b",
        "\u2800",
        "\u2801=1",
        "≠1",
        "—1",
    ]
    assert without_formulas(cells) == cells


def test_escape_formulas_applies_to_every_csv_writer(tmp_path: Path) -> None:
    for format_name, separator in (("csv", ","), ("tsv", "\t")):
        streams = [io.StringIO(), io.StringIO()]
        for stream, wanted in zip(streams, (False, True), strict=True):
            sink = open_sink(format_name, stream, header=False, escape_formulas=wanted)
            sink.write(record("=1"))
            sink.write(failure("@x"))
        plain, escaped = (stream.getvalue() for stream in streams)
        assert plain.splitlines()[0].split(separator)[0] == "=1"
        assert escaped.splitlines()[0].split(separator) == ["'=1", "ok", "1", "7", "'=1", "'=1", "0.5", ""]
        assert escaped.splitlines()[1].startswith(f"'@x{separator}error")
    with open_array_sink(tmp_path / "x.npy", escape_formulas=True) as arrays:
        arrays.write(Classified("-rf", "m", (), np.zeros(1, np.float32)))
        arrays.write(failure("=1"))
    index = (tmp_path / "x.npy.index.csv").read_text(encoding="utf-8").splitlines()
    assert index[1:] == ["0,'-rf,ok,", ",'=1,error,unreadable: =1"]


def test_predict_and_features_have_escape_formulas(cli: Cli) -> None:
    ended = cli("predict", "=1+1.jpg", "-f", "csv", "--no-header", "--escape-formulas")
    assert ended.stdout == "'=1+1.jpg,error,,,,,,not_found: no such file or folder\n"
    assert cli("features", "=1.jpg", "-o", "x.npy", "--escape-formulas").code == 3
    assert Path("x.npy.index.csv").read_text(encoding="utf-8").splitlines()[1].startswith(",'=1.jpg,error")


# --- the whole program, on a terminal ---


def on_a_terminal(home: Path, folder: Path, *arguments: str, **variables: str) -> str:
    """Run the program with a terminal for stdout and stderr; return all that it was sent."""
    ours, theirs = pty.openpty()
    environment = Resnetd(home).env(
        RESNETD_MODEL="embedded", PYTHONPATH=str(ROOT), TERM="xterm", COLUMNS="300", **variables
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "resnetd_cli", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    sent = b""
    with os.fdopen(ours, "rb", buffering=0) as stream:
        sent = b"".join(iter(lambda: _read(stream), b""))
    assert process.wait(60) == 3
    return sent.decode("utf-8", "surrogateescape")


def _read(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(65536)
    except OSError:  # how Linux tells that nobody has the other side any more
        return b""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="terminals and names of POSIX")
@pytest.mark.parametrize("format_name", FORMATS)
def test_terminal_receives_no_control_characters_from_names(
    tmp_path: Path, without_torch: dict[str, str], format_name: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    try:
        for text in (*NASTY.values(), *MARKUP):
            name = text.replace("/", "%")
            shutil.copy(COFFEE, photos / f"{name}.jpg")
            (photos / f"{name}-broken.jpg").write_bytes(b"\x1b]0;x\x07")
    except OSError:
        pytest.skip("this file system does not take such names")
    labels = tmp_path / "labels.json"
    texts = [*NASTY.values(), *MARKUP]
    names = {
        index: [texts[index % len(texts)] * 2, f"{texts[index % len(texts)]}{index}"] for index in range(1000)
    }
    labels.write_text(json.dumps(names), encoding="utf-8")
    sent = on_a_terminal(
        tmp_path,
        tmp_path,
        "predict",
        "photos",
        "-f",
        format_name,
        "-k",
        "20",
        "--labels",
        "labels.json",
        "--no-progress",
        **without_torch,
    )
    assert len(re.findall("error: .*not an image", sent)) == len(texts)
    # A terminal driver makes \r\n of \n.
    assert acted_on(STYLES.sub("", sent.replace("\r\n", "\n"))) == set()
