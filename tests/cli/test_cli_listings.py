"""The commands `list-models`, `info` and `labels`: facts, patterns, formats, and downloading class names."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT
from helpers.program import Cli, Ended

from resnetd_cli.class_names import shipped

NAMES = "".join(f"{name}\n" for name in shipped.imagenet().names).encode()
PAGES = {
    "/names.txt": NAMES,
    "/short.txt": NAMES[: NAMES.rindex(b"\n", 0, -1) + 1],
    "/page.html": b"<!DOCTYPE html>\n" + b"<p>\n" * 999,
    "/binary": b"\xff\xff\x01" * 1000,
    "/empty": b"",
    "/cut.txt": NAMES,
}


@pytest.fixture
def cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command line in this process, without a default model and with an empty cache."""
    monkeypatch.delenv("RESNETD_MODEL")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RESNETD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "200")
    return cli


def json_of(ended: Ended) -> Any:
    assert (ended.code, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


# --- list-models ---


def test_list_models_shows_resnet_d_family(cli: Cli) -> None:
    models = {row["name"]: row for row in json_of(cli("list-models", "-f", "json"))}
    assert len(models) == 15
    assert sum(row["default"] for row in models.values()) == 7
    assert {name.partition(".")[0] for name in models} == {
        f"resnet{depth}d" for depth in (18, 26, 34, 50, 101, 152, 200)
    }
    row = models["resnet101d.ra2_in1k"]
    assert (row["train_size"], row["train_crop"]) == (256, 0.95)
    assert (row["test_size"], row["test_crop"]) == (320, 1.0)
    assert row["params_m"] == 44.57
    assert row["hub_id"] == "timm/resnet101d.ra2_in1k"
    assert row["interpolation"] == "bicubic"
    assert (row["mean"], row["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert row["top1_train"] < row["top1_test"] < row["top5_test"] < 100
    assert not any(row["on_this_machine"] for row in models.values())


def test_weights_on_this_machine_are_marked(cli: Cli, tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--timm--resnet26d.bt_in1k"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    (repo / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repo / "snapshots" / ("0" * 40) / "model.safetensors").write_bytes(b"weights")
    here = [row["name"] for row in json_of(cli("list-models", "-f", "json")) if row["on_this_machine"]]
    assert here == ["resnet26d.bt_in1k"]
    rows = cli("list-models", "resnet26d", "-f", "tsv", "--no-header").stdout.splitlines()
    assert rows[0].split("\t")[-1] == "yes"
    facts = json_of(cli("info", "resnet26d", "-f", "json"))
    assert facts["weights"] == str(repo / "snapshots" / ("0" * 40) / "model.safetensors")


@pytest.mark.parametrize("format_name", ["csv", "tsv", "jsonl"])
def test_every_format_lists_same_models(cli: Cli, format_name: str) -> None:
    expected = [(row["name"], row["params_m"]) for row in json_of(cli("list-models", "-f", "json"))]
    text = cli("list-models", "-f", format_name).stdout
    if format_name == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(io.StringIO(text), delimiter={"csv": ",", "tsv": "\t"}[format_name]))
    assert [(row["name"], float(row["params_m"])) for row in rows] == expected


def test_no_header(cli: Cli) -> None:
    assert cli("list-models", "-f", "tsv", "--no-header").stdout.count("\n") == 15
    assert cli("list-models", "-f", "tsv").stdout.startswith("name\tdefault\tparams_m\t")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("resnet101d*", ["resnet101d.gluon_in1k", "resnet101d.ra2_in1k"]),
        ("101", ["resnet101d.gluon_in1k", "resnet101d.ra2_in1k"]),
        ("resnet?00d*", ["resnet200d.ra2_in1k"]),
        ("resnet18d", ["resnet18d.ra2_in1k", "resnet18d.ra4_e3600_r224_in1k"]),
        ("1[05][12]d.gluon", ["resnet101d.gluon_in1k", "resnet152d.gluon_in1k"]),
    ],
)
def test_pattern_matches_as_glob_or_part(cli: Cli, pattern: str, expected: list[str]) -> None:
    found = [row["name"] for row in json_of(cli("list-models", pattern, "-f", "json"))]
    assert sorted(found) == expected


def test_pattern_without_match_is_an_error(cli: Cli) -> None:
    assert cli("list-models", "vit_*") == (
        2,
        "",
        "error: no model matches 'vit_*'\nhint: resnetd list-models --all searches all timm models\n",
    )


def test_all_lists_timm_models(cli: Cli) -> None:
    rows = json_of(cli("list-models", "resnet50d*", "--all", "-f", "json"))
    row = next(row for row in rows if row["name"] == "resnet50d.ra2_in1k")
    assert (row["input_size"], row["classes"]) == (224, 1000)
    assert all("resnet50d" in row["name"] for row in rows)
    assert cli("list-models", "no-such-*", "--all").code == 2


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_narrow_table_shows_fewer_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ended = cli("list-models", "-f", "table")
    assert max(map(len, ended.stdout.splitlines())) <= columns
    assert ended.stdout.count("_in1k") == 15
    assert "resnet18d.ra4_e3600_r224_in1k" in ended.stdout


# --- info ---


def test_info_describes_resnet_d_model(cli: Cli) -> None:
    facts = json_of(cli("info", "resnet50d", "-f", "json"))
    assert facts["model"] == "resnet50d.ra2_in1k"
    assert "3 + 4 + 6 + 3" in facts["architecture"]
    assert (facts["params_m"], facts["classes"]) == (25.58, 1000)
    assert (facts["input_size"], facts["crop_pct"]) == (224, 0.875)
    assert (facts["test_size"], facts["test_crop_pct"]) == (288, 0.95)
    assert facts["gflops"] == pytest.approx(2 * facts["gmacs"])
    assert facts["weights"] is None
    shown = cli("info", "resnet50d", "-f", "table").stdout
    for words in ("resnet50d.ra2_in1k", "25.58 million", "224 x 224, bicubic, center crop 0.875", "288 x 288"):
        assert words in shown
    assert "not on this machine; the first predict fetches them" in shown


@pytest.mark.slow
def test_info_describes_embedded_model(cli: Cli) -> None:
    facts = json_of(cli("info", "embedded", "-f", "json"))
    assert (facts["model"], facts["params_m"], facts["classes"]) == ("embedded", 4.65, 1000)
    assert (facts["input_size"], facts["crop_pct"], facts["interpolation"]) == (224, 0.875, "bicubic")
    assert facts["hub_id"] is None
    assert Path(facts["weights"]).stat().st_size == pytest.approx(facts["file_mb"] * 1e6, rel=0.01)
    assert "tf_efficientnet_lite0" in facts["architecture"]


@pytest.mark.parametrize(("suffix", "start"), [("json", "{"), ("tsv", "model\t"), ("txt", "model ")])
def test_info_file_has_format_of_its_extension(cli: Cli, suffix: str, start: str) -> None:
    assert cli("info", "resnet18d", "-o", f"x.{suffix}") == (0, "", "")
    assert Path(f"x.{suffix}").read_text(encoding="utf-8").startswith(start)


@pytest.mark.slow
def test_info_in_pipe_has_one_line_per_key(cli: Cli) -> None:
    facts = json_of(cli("info", "embedded", "-f", "json"))
    lines = [line.split("\t") for line in cli("info", "embedded").stdout.splitlines()]
    assert [key for key, _ in lines] == list(facts)
    shown = dict(lines)
    assert (shown["model"], shown["classes"], shown["mean"], shown["hub_id"]) == (
        "embedded",
        "1000",
        "0.5, 0.5, 0.5",
        "",
    )


@pytest.mark.slow
def test_info_as_tsv_is_one_row(cli: Cli) -> None:
    header, record = cli("info", "embedded", "-f", "tsv").stdout.splitlines()
    facts = json_of(cli("info", "embedded", "-f", "json"))
    assert header.split("\t") == list(facts)
    assert record.split("\t")[0] == "embedded"


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("resnet50d", ["he2019bag", "wightman2019timm"]),
        ("resnet200d.ra2_in1k", ["he2019bag", "wightman2019timm"]),
        ("embedded", ["tan2019efficientnet", "wightman2019timm"]),
    ],
)
def test_bibtex_has_entries_for_model(cli: Cli, model: str, keys: list[str]) -> None:
    ended = cli("info", model, "--bibtex")
    assert (ended.code, ended.stderr) == (0, "")
    found = [line.partition("{")[2].rstrip(",") for line in ended.stdout.splitlines() if line.startswith("@")]
    assert found == keys
    assert ended.stdout.count("{") == ended.stdout.count("}")


# --- labels ---


def test_labels_lists_matching_classes(cli: Cli) -> None:
    rows = json_of(cli("labels", "terrier", "-f", "json"))
    assert all("terrier" in " ".join([row["name"], *row["synonyms"], row["definition"]]) for row in rows)
    found = {row["index"]: (row["id"], row["name"]) for row in rows}
    assert found[199] == ("n02097298", "Scotch terrier")
    assert rows[0]["name"] == "toy terrier"
    assert len(found) == len(rows) > 20


@pytest.mark.slow
@pytest.mark.parametrize("query", ["967", "n07920052", "espresso", "ESPRESSO"])
def test_class_is_found_by_index_id_or_name(cli: Cli, query: str) -> None:
    rows = json_of(cli("labels", query, "-f", "json"))
    assert (967, "n07920052", "espresso") in [(row["index"], row["id"], row["name"]) for row in rows]


def test_labels_table_distinguishes_classes_with_same_name(cli: Cli) -> None:
    ended = cli("labels", "crane", "-f", "table")
    shown = [line.split(maxsplit=2) for line in ended.stdout.splitlines() if "crane (" in line]
    assert [(index, title.partition("  ")[0]) for index, _, title in shown] == [
        ("134", "crane (bird)"),
        ("517", "crane (machine)"),
    ]
    assert [row["name"] for row in json_of(cli("labels", "crane", "-f", "json"))] == ["crane", "crane"]


@pytest.mark.slow
def test_labels_with_several_words_or_none(cli: Cli) -> None:
    assert [row["name"] for row in json_of(cli("labels", "tiger", "cat", "-f", "json"))] == ["tiger cat"]
    assert len(json_of(cli("labels", "-f", "json"))) == 1000
    assert len(json_of(cli("labels", "-f", "json", "--set", "imagenet-12k"))) == 11821


@pytest.mark.slow
def test_labels_tsv_is_unquoted_like_predict_tsv(cli: Cli) -> None:
    fabrics = ("labels", "fabric", "--set", "imagenet-22k", "-f")
    rows = json_of(cli(*fabrics, "json"))
    quoted = [row["name"] for row in rows if '"' in row["definition"]]
    assert quoted == ["worsted"]
    header, *lines = cli(*fabrics, "tsv").stdout.splitlines()
    cells = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert [cell["definition"] for cell in cells] == [row["definition"] for row in rows]


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = PAGES.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write((body or b"")[: 500 if self.path == "/cut.txt" else None])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_labels_download_prints_path_of_thousand_names(cli: Cli, server: str, tmp_path: Path) -> None:
    ended = cli("labels", "--download", "--url", f"{server}/names.txt")
    path = tmp_path / "cache" / "imagenet_classes.txt"
    assert ended == (0, f"{path}\n", "")
    assert path.read_bytes() == NAMES
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1000
    assert list((tmp_path / "cache").iterdir()) == [path]


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("/short.txt", "has 999 class names, not one on each of 1000 lines"),
        ("/page.html", "is a web page, not a list of class names"),
        ("/binary", "is not UTF-8 text"),
        ("/empty", "the server sent zero bytes"),
        ("/cut.txt", "127.0.0.1 ended the answer early: 500 of "),
        ("/none", "the server answered 404"),
    ],
)
def test_failed_labels_download_leaves_nothing(
    cli: Cli, server: str, tmp_path: Path, page: str, error: str
) -> None:
    ended = cli("labels", "--download", "--url", server + page)
    assert (ended.code, ended.stdout) == (1, "")
    first, second = ended.stderr.splitlines()
    assert first.startswith(f"error: {server}{page}")
    assert error in first
    assert second.startswith("hint: ")
    assert list(tmp_path.iterdir()) == []


def test_failed_labels_download_keeps_existing_file(cli: Cli, server: str, tmp_path: Path) -> None:
    assert cli("labels", "--download", "--url", f"{server}/names.txt").code == 0
    assert cli("labels", "--download", "--url", f"{server}/short.txt").code == 1
    assert (tmp_path / "cache" / "imagenet_classes.txt").read_bytes() == NAMES


@pytest.mark.slow
def test_downloaded_labels_work_in_predict(cli: Cli, server: str, tmp_path: Path) -> None:
    path = cli("labels", "--download", "--url", f"{server}/names.txt").stdout.strip()
    coffee = ROOT / "samples" / "coffee.jpg"
    ended = cli("predict", str(coffee), "-m", "embedded", "--labels", path, "-f", "jsonl", "-k", "1")
    assert json_of(ended)["predictions"][0]["label"] == "espresso"


@pytest.mark.slow
def test_quiet_is_offered_only_by_commands_that_write_notes(cli: Cli) -> None:
    commands = ["predict", "features", "finetune", "train", "evaluate", "bench", "pull", "export"]
    silent = ["list-models", "info", "labels"]
    offers = {command: "--quiet" in cli(command, "--help").stdout for command in [*commands, *silent]}
    assert offers == {**dict.fromkeys(commands, True), **dict.fromkeys(silent, False)}
    assert cli("labels", "terrier", "-q").code == 0  # still accepted
