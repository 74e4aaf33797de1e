"""Wrong usage and bad inputs: one `error:` line, one `hint:` line, and the exit code of the contract."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers.paths import CAT, COFFEE, ROOT
from helpers.program import Cli, is_one_error

pytestmark = pytest.mark.usefixtures("compiled")

FORMATS = ("table", "tsv", "csv", "json", "jsonl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        pytest.param(["predict", "x.jpg", "-k", "0"], 2, "'--top-k' / '-k'", id="top-k-0"),
        pytest.param(["predict", "x.jpg", "-k", "many"], 2, "'--top-k' / '-k'", id="top-k-word"),
        pytest.param(["predict", "x.jpg", "-b", "0"], 2, "'--batch-size' / '-b'", id="batch-size-0"),
        pytest.param(["predict", "x.jpg", "--max-pixels", "0"], 2, "'--max-pixels'", id="max-pixels-0"),
        pytest.param(["predict", "x.jpg", "--min-probability", "1.5"], 2, "'--min-probability'", id="p-1.5"),
        pytest.param(["predict", "x.jpg", "--min-probability", "nan"], 2, "'--min-probability'", id="p-nan"),
        pytest.param(["predict", "x.jpg", "--colour"], 2, "--colour", id="unknown-option"),
        pytest.param(["predict", "x.jpg", "-m"], 2, "-m", id="option-without-value"),
        pytest.param(["--colour"], 2, "--colour", id="unknown-option-before-the-command"),
        pytest.param(["classify", "x.jpg"], 2, "'classify'", id="unknown-command"),
        pytest.param(["predict"], 2, "no input", id="no-input"),
        pytest.param(["features", "--out", "x.npy"], 2, "no input", id="no-input-for-features"),
        pytest.param(["predict", "-", "-"], 2, "standard input can be read only once", id="stdin-twice"),
        pytest.param(
            ["predict", "-", "--files-from", "-"],
            2,
            "standard input can be read only once",
            id="stdin-as-image-and-list",
        ),
        pytest.param(["predict", "x.jpg", "--null"], 2, "--null requires --files-from", id="null-alone"),
        pytest.param(
            ["predict", "--files-from", "no.txt"],
            2,
            "cannot read the list no.txt: no such file or directory",
            id="list-missing",
        ),
        pytest.param(
            ["predict", "--files-from", "."], 2, "cannot read the list .: is a directory", id="list-is-a-folder"
        ),
        pytest.param(["predict", "x.jpg", "-o", "no/x.csv"], 1, "no is not a folder", id="output-folder-missing"),
        pytest.param(["predict", "x.jpg", "-o", "."], 1, ". is a folder", id="output-is-a-folder"),
        pytest.param(["predict", "x.jpg", "-f", "xml"], 2, "'--format' / '-f'", id="unknown-format"),
        pytest.param(
            ["predict", "x.jpg", "-o", "x.xml"],
            2,
            "x.xml: the format is not clear from the name",
            id="unknown-suffix",
        ),
        *(
            pytest.param(
                ["predict", "x.jpg", "--features", "-f", name],
                2,
                f"--features cannot be written as {name}",
                id=f"features-with-{name}",
            )
            for name in ("csv", "tsv", "table")
        ),
        pytest.param(["predict", "x.jpg", "--features"], 2, "cannot be written as tsv", id="features-in-a-pipe"),
        pytest.param(["features", "x.jpg"], 2, "features go to a file", id="features-without-out"),
        pytest.param(
            ["features", "x.jpg", "-o", "x.txt"],
            2,
            "x.txt: the format is not clear from the name",
            id="features-to-txt",
        ),
        pytest.param(
            ["predict", "x.jpg", "--features-out", "x.csv"],
            2,
            "x.csv: the format is not clear from the name",
            id="features-out-to-csv",
        ),
        pytest.param(["features", "x.jpg", "-o", "no/x.npy"], 1, "no is not a folder", id="array-folder-missing"),
        pytest.param(["list-models", "nothing*"], 2, "no model matches 'nothing*'", id="list-models-no-match"),
        pytest.param(["labels", "zzz"], 2, "no class of imagenet-1k matches 'zzz'", id="labels-no-match"),
        pytest.param(["labels", "--set", "coco"], 1, "no class names called 'coco'", id="labels-unknown-set"),
        pytest.param(["info"], 2, "MODEL", id="info-of-nothing"),
    ],
)
def test_usage_error_is_raised_before_loading(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, error: str
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # importing it fails
    ended = cli(*arguments)
    assert is_one_error(ended, code)
    assert error in ended.errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        pytest.param(
            ["finetune", "--print-recipe", "--lr", "1", "--set", "lr=2"],
            2,
            "lr is set to 2",
            "leave one of them out",
            id="a-setting-twice",
        ),
        pytest.param(
            ["train", "--print-recipe", "--set", "seed=1", "--set", "seed=2"],
            2,
            "seed is set to 1 and to 2",
            "leave one of them out",
            id="a-setting-set-twice",
        ),
        pytest.param(
            ["predict", COFFEE, "-m", "resnet50dd"], 2, "unknown model 'resnet50dd'", "resnet50d", id="near-name"
        ),
        pytest.param(
            ["predict", COFFEE, "-m", "embeded"], 2, "unknown model 'embeded'", "embedded", id="near-embedded"
        ),
        pytest.param(["info", "resnet50d.ra3_in1k"], 2, "unknown model", "resnet50d.ra2_in1k", id="near-weights"),
        pytest.param(
            ["features", COFFEE, "-o", "x.npy", "-m", "qqqqqq"],
            2,
            "unknown model 'qqqqqq'",
            "resnetd list-models --all",
            id="no-near-name",
        ),
        pytest.param(
            ["predict", COFFEE, "-m", "./no"], 2, "no model folder ./no", "check the path", id="no-folder"
        ),
        pytest.param(
            ["predict", COFFEE, "-m", "no/no"], 2, "no model folder no/no", "hf-hub:no/no", id="hub-name"
        ),
        pytest.param(
            ["predict", COFFEE, "-m", str(ROOT / "samples")],
            2,
            "no config.json",
            "a folder that",
            id="other-folder",
        ),
        pytest.param(
            ["predict", COFFEE, "-m", "hf-hub:no"], 2, "'no' is not a hub", "hf-hub:OWNER/NAME", id="no-hub"
        ),
        pytest.param(
            ["predict", COFFEE, "--device", "toaster"],
            2,
            "no device called 'toaster'",
            "cuda:N",
            id="device",
        ),
        *(
            pytest.param(
                ["predict", COFFEE, "--image-size", size],
                2,
                f"'{size}' is not an image size",
                "train, test, or pixels",
                id=f"image-size-{size}",
            )
            for size in ("0", "abc", "-1", "9999999", "1.5", "²")
        ),
        pytest.param(
            ["predict", COFFEE, "--weights", "no.pth"],
            1,
            "no weights file no.pth",
            ".safetensors",
            id="no-weights",
        ),
        pytest.param(
            ["predict", COFFEE, "--weights", COFFEE],
            1,
            "is not a weights file",
            ".safetensors",
            id="image-as-weights",
        ),
        pytest.param(
            ["predict", COFFEE, "--labels", "no.txt"], 1, "no.txt: no such file", "file or an http", id="no-labels"
        ),
        pytest.param(
            ["features", COFFEE, "-o", "x.npy", "--layer", "layer9"],
            2,
            "no layer called 'layer9'",
            "pooled, logits, blocks.0",
            id="no-layer",
        ),
    ],
)
def test_model_without_the_asked_part_is_one_line_error(
    cli: Cli, tmp_path: Path, arguments: list[str | Path], code: int, error: str, hint: str
) -> None:
    ended = cli(*arguments)
    assert is_one_error(ended, code)
    assert error in ended.errors[0]
    assert hint in ended.hints[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
def test_missing_device_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    ended = cli("predict", COFFEE, "--device", device)
    assert is_one_error(ended, 2)
    assert ended.errors == [f"error: the device {device} is not on this machine"]
    assert ended.hints == ["hint: available: cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [999, 1001, 0])
def test_labels_with_wrong_count_are_an_error(cli: Cli, tmp_path: Path, count: int) -> None:
    Path("names.txt").write_text("".join(f"class {i}\n" for i in range(count)), encoding="utf-8")
    ended = cli("predict", COFFEE, "--labels", "names.txt")
    assert is_one_error(ended, 1)
    assert ended.errors == [f"error: names.txt has {count} class names, but the model has 1000 classes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.csv", "out.json", "out"])
def test_existing_output_is_kept(cli: Cli, name: str) -> None:
    Path(name).write_text("mine", encoding="utf-8")
    ended = cli("predict", COFFEE, "-o", name)
    assert is_one_error(ended, 2)
    assert ended.errors == [f"error: {name} exists"]
    assert ended.hints == ["hint: --overwrite replaces it"]
    assert Path(name).read_text(encoding="utf-8") == "mine"


def test_overwrite_replaces_existing_output(cli: Cli) -> None:
    Path("out.jsonl").write_text("mine", encoding="utf-8")
    ended = cli("predict", COFFEE, "-o", "out.jsonl", "--overwrite")
    assert ended == (0, "", "out.jsonl: 1 input\n")
    assert json.loads(Path("out.jsonl").read_text(encoding="utf-8"))["predictions"][0]["label"] == "espresso"


@pytest.mark.parametrize("there", ["x.npy", "x.npy.index.csv"])
@pytest.mark.parametrize(
    "command", [["features", "-o"], ["predict", "--features-out"]], ids=lambda words: words[0]
)
def test_existing_array_or_index_is_kept(cli: Cli, command: list[str], there: str) -> None:
    Path(there).write_text("mine", encoding="utf-8")
    ended = cli(*command, "x.npy", COFFEE)
    assert is_one_error(ended, 2)
    assert ended.errors == [f"error: {there} exists"]
    assert [path.name for path in Path().iterdir()] == [there]


@pytest.mark.parametrize("output", ["x.npy", "x.npy.index.csv"])
def test_two_outputs_to_one_file_are_an_error(cli: Cli, output: str) -> None:
    ended = cli("predict", COFFEE, "-f", "csv", "-o", output, "--features-out", "x.npy")
    assert is_one_error(ended, 2)
    assert list(Path().iterdir()) == []


def test_bibtex_refuses_an_output_file(cli: Cli) -> None:
    assert is_one_error(cli("info", "resnet50d", "--bibtex", "-o", "cite.bib"), 2)
    assert not Path("cite.bib").exists()


def test_verbose_prints_the_traceback(cli: Cli) -> None:
    ended = cli("predict", COFFEE, "-v", "-m", "resnet50dd")
    assert ended.code == 2
    assert len(ended.errors) == len(ended.hints) == 1
    assert "Traceback (most recent call last):" in ended.stderr
    assert ended.stderr.rstrip().endswith("UnknownModel: unknown model 'resnet50dd'")


def test_unexpected_error_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nnothing")

    monkeypatch.setattr("resnetd_cli.about.describe", broken)
    ended = cli("info", "resnet50d")
    assert ended == (
        1,
        "",
        "error: unexpected ZeroDivisionError: by nothing\nhint: -v shows where; please report it\n",
    )


# --- inputs that fail: a row each, and the run goes on ---


@pytest.fixture
def bad(tmp_path: Path) -> list[tuple[str, str]]:
    """Inputs, good ones among them, and the kind of error of each row they give; `ok` for none."""
    Path("text.jpg").write_text("not a picture", encoding="utf-8")
    Path("page.png").write_text("<!DOCTYPE html><title>404</title>", encoding="utf-8")
    Path("zero.png").write_bytes(b"")
    Path("cut.jpg").write_bytes(COFFEE.read_bytes()[:20_000])
    Path("empty").mkdir()
    Path("mixed").mkdir()
    shutil.copy(COFFEE, "mixed/a.jpg")
    Path("mixed/b.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    shutil.copy(CAT, "mixed/c.jpg")
    Path("mixed/notes.txt").write_text("no picture, by its name", encoding="utf-8")
    return [
        ("missing.jpg", "not_found"),
        (str(COFFEE), "ok"),
        ("empty", "empty"),
        ("no-*.jpg", "not_found"),
        ("ftp://127.0.0.1/x.jpg", "blocked"),
        ("http://", "blocked"),
        ("http://[::1/x.jpg", "blocked"),
        ("http://127.0.0.1:9/x.jpg", "connection"),
        ("text.jpg", "undecodable"),
        ("page.png", "undecodable"),
        ("zero.png", "empty"),
        ("cut.jpg", "undecodable"),
        (str(CAT), "ok"),
        ("mixed/a.jpg", "ok"),
        ("mixed/b.jpg", "undecodable"),
        ("mixed/c.jpg", "ok"),
        ("text.jpg/x.jpg", "not_found"),
    ]


def as_arguments(inputs: list[tuple[str, str]]) -> list[str]:
    """Name the folder `mixed` where its files are expected."""
    return list(dict.fromkeys("mixed" if name.startswith("mixed/") else name for name, _ in inputs))


def read_rows(text: str, format_name: str) -> list[tuple[str, str]]:
    """Return the input and the kind of error, or `ok`, of each row of `-k 1`."""
    if format_name in ("json", "jsonl"):
        records = json.loads(text) if format_name == "json" else [json.loads(line) for line in text.splitlines()]
        return [
            (record["input"], record["error"]["kind"] if record["status"] == "error" else record["status"])
            for record in records
        ]
    if format_name == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
    else:
        header, *lines = [line.split("\t") for line in text.splitlines()]
        rows = [dict(zip(header, line, strict=True)) for line in lines]
    for row in rows:
        assert row["status"] in ("ok", "error")
        assert (row["status"] == "error") == (row["label"] == "") == bool(row["error"])
    return [(row["input"], row["error"].partition(": ")[0] or "ok") for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["tsv", "csv", "json", "jsonl"])
def test_each_bad_input_is_one_row_in_order(cli: Cli, bad: list[tuple[str, str]], format_name: str) -> None:
    ended = cli("predict", *as_arguments(bad), "-f", format_name, "-k", "1")
    assert ended.code == 3
    assert read_rows(ended.stdout, format_name) == bad
    failed = [name for name, kind in bad if kind != "ok"]
    assert [line.removeprefix("error: ").partition(": ")[0] for line in ended.errors] == failed
    assert len(ended.hints) == len(set(ended.hints))
    assert ended.stderr.splitlines()[-1] == f"{len(failed)} of {len(bad)} inputs failed"
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_each_bad_input_is_in_the_table_in_order(
    cli: Cli, bad: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    ended = cli("predict", *as_arguments(bad), "-f", "table", "-k", "1")
    assert ended.code == 3
    lines = [line.rstrip() for line in ended.stdout.splitlines()]
    places = [lines.index(name) for name, _ in bad]
    assert places == sorted(places)
    for place, (_, kind) in zip(places, bad, strict=True):
        assert lines[place + 1].startswith(f"  {kind}: ") == (kind != "ok")


@pytest.mark.parametrize("others", [[], [str(CAT)]], ids=["alone", "among others"])
def test_too_long_file_name_is_one_row(cli: Cli, others: list[str]) -> None:
    name = "x" * 300 + ".jpg"
    ended = cli("predict", name, *others, "-f", "tsv", "-k", "1")
    assert ended.code == 3
    assert read_rows(ended.stdout, "tsv") == [(name, "not_found"), *((other, "ok") for other in others)]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("others", [[], [str(CAT)]], ids=["alone", "among others"])
def test_file_in_an_unreadable_folder_is_one_row(cli: Cli, others: list[str]) -> None:
    Path("locked").mkdir()
    shutil.copy(CAT, "locked/a.jpg")
    Path("locked").chmod(0)
    try:
        ended = cli("predict", "locked/a.jpg", "locked", *others, "-f", "tsv", "-k", "1")
    finally:
        Path("locked").chmod(0o700)
    assert ended.code == 3
    expected = [("locked/a.jpg", "unreadable"), ("locked", "unreadable"), *((other, "ok") for other in others)]
    assert read_rows(ended.stdout, "tsv") == expected


@pytest.mark.parametrize("format_name", FORMATS)
def test_failed_input_has_a_row_in_files_and_pipes(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes Rich take a pipe for a terminal
    ended = cli("predict", "missing.jpg", "-f", format_name)
    assert ended.code == 3
    assert "missing.jpg" in ended.stdout
    assert "not_found" in ended.stdout


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/x.jpg", "http://127.0.0.1:port/x.jpg", "gopher://x/y.jpg"]
)
def test_malformed_or_unsupported_url_is_a_blocked_row(cli: Cli, url: str) -> None:
    ended = cli("predict", url, "-f", "jsonl")
    assert ended.code == 3
    assert json.loads(ended.stdout)["error"]["kind"] == "blocked"


def test_single_failed_input_prints_no_count(cli: Cli) -> None:
    ended = cli("predict", "missing.jpg", "--no-header")
    assert ended == (
        3,
        "missing.jpg\terror\t\t\t\t\t\tnot_found: no such file or folder\n",
        f"error: missing.jpg: no such file or folder\nhint: the folder is {Path.cwd()}\n",
    )


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", "\x1b[31mred.jpg", "bell\x07.jpg", "\udcff.jpg"])
def test_error_is_one_line_of_plain_text_for_any_file_name(cli: Cli, name: str) -> None:
    ended = cli("predict", name, "-f", "json")
    assert ended.code == 3
    assert json.loads(ended.stdout)[0]["input"] == name
    assert len(ended.stderr.splitlines()) == 2
    assert all(line.isprintable() for line in ended.stderr.split("\n"))


@pytest.mark.parametrize("format_name", ["tsv", "csv", "json", "jsonl"])
def test_fail_fast_stops_at_the_first_failure(cli: Cli, format_name: str) -> None:
    ended = cli("predict", COFFEE, "missing.jpg", CAT, "--fail-fast", "-f", format_name, "-k", "1")
    assert ended.code == 1
    assert read_rows(ended.stdout, format_name) == [(str(COFFEE), "ok"), ("missing.jpg", "not_found")]
    assert [line.split(":")[1] for line in ended.errors] == [" missing.jpg"]


def test_fail_fast_without_failure_processes_all_inputs(cli: Cli) -> None:
    ended = cli("predict", COFFEE, CAT, "--fail-fast", "-f", "tsv", "-k", "1")
    assert (ended.code, ended.stderr) == (0, "")
    assert read_rows(ended.stdout, "tsv") == [(str(COFFEE), "ok"), (str(CAT), "ok")]


@pytest.mark.parametrize(
    "output", [["predict", "-o", "x.csv"], ["features", "-o", "x.npy"], ["predict", "--features-out", "x.npy"]]
)
def test_fail_fast_leaves_no_complete_output(cli: Cli, output: list[str]) -> None:
    ended = cli(*output, CAT, "missing.jpg", COFFEE, "--fail-fast")
    assert ended.code == 1
    assert list(Path().iterdir()) == []


def test_image_over_a_limit_is_a_too_large_row(cli: Cli) -> None:
    ended = cli("predict", COFFEE, CAT, "--max-pixels", str(451 * 300), "-f", "jsonl", "-k", "1")
    first, second = map(json.loads, ended.stdout.splitlines())
    assert ended.code == 3
    assert first["error"] == {"kind": "too_large", "message": "240,000 pixels, more than 135,300"}
    assert second["predictions"][0]["label"] == "tiger cat"


def test_hint_mentions_only_options_of_the_command(cli: Cli) -> None:
    Path("cut.jpg").write_bytes(COFFEE.read_bytes()[:20_000])
    with_it, without = cli("predict", "cut.jpg"), cli("bench", "cut.jpg", "-m", "embedded")
    assert with_it.hints == ["hint: --allow-truncated classifies what could be read"]
    assert without.hints == ["hint: fetch or export it again"]
    for ended in (with_it, without):
        assert "image file is truncated: rows are missing" in ended.stderr


def test_truncated_image_needs_allow_truncated(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    Path("cut.jpg").write_bytes(COFFEE.read_bytes()[:60_000])
    ended = cli("predict", "cut.jpg", "-f", "jsonl")
    assert ended.code == 3
    assert "truncated" in json.loads(ended.stdout)["error"]["message"]
    assert ended.hints == ["hint: --allow-truncated classifies what could be read"]
    ended = cli("predict", "cut.jpg", "-f", "jsonl", "--allow-truncated")
    assert (ended.code, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["predictions"][0]["label"] == "espresso"


def test_quiet_still_prints_errors(cli: Cli) -> None:
    ended = cli("predict", "missing.jpg", "missing.jpg", "-q")
    assert ended.code == 3
    assert ended.errors == ["error: missing.jpg: no such file or folder"] * 2
    assert "failed" not in ended.stderr


def test_empty_list_is_not_a_failure(cli: Cli) -> None:
    Path("list.txt").write_text("\n\n", encoding="utf-8")
    ended = cli("predict", "--files-from", "list.txt", "-f", "json")
    assert (ended.code, json.loads(ended.stdout), ended.stderr) == (0, [], "no inputs\n")
