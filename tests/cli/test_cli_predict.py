"""`resnetd predict` on the sample photographs, with the embedded model."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.program import Cli
from helpers.tsv import tsv_text

from resnetd_cli.class_names import shipped
from resnetd_cli.cli.app import run

pytestmark = pytest.mark.usefixtures("compiled")

SAMPLES = ROOT / "samples"
COFFEE = SAMPLES / "coffee.jpg"
CAT = SAMPLES / "cat.jpg"
BOTH = [str(CAT), str(COFFEE)]
COLUMNS = ["input", "status", "rank", "index", "id", "label", "probability", "error"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The output for the two samples in each format, by extension."""
    folder = tmp_path_factory.mktemp("written")
    texts = {}
    for suffix in ("tsv", "csv", "json", "jsonl", "ndjson", "txt"):
        path = folder / f"out.{suffix}"
        assert run(["predict", *BOTH, "-m", "embedded", "-o", str(path)]) == 0
        texts[suffix] = path.read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"out.{suffix}" for suffix in texts)
    return texts


@pytest.fixture(scope="module")
def records(written: dict[str, str]) -> list[dict[str, Any]]:
    """The records of the two samples."""
    return [json.loads(line) for line in written["jsonl"].splitlines()]


def tsv_rows(text: str) -> list[dict[str, str]]:
    """Read TSV as `docs/formats.md` describes it."""
    header, *lines = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    return [dict(zip(header, map(tsv_text, line), strict=True)) for line in lines]


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def as_rows(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return one tuple per prediction."""
    return [
        (record["input"], record["status"], *(item[key] for key in COLUMNS[2:6]), item["probability"])
        for record in records
        for item in record["predictions"]
    ]


def typed(rows: list[dict[str, str]]) -> list[tuple[Any, ...]]:
    """Return rows of text in the form of `as_rows`."""
    return [
        (
            row["input"],
            row["status"],
            int(row["rank"]),
            int(row["index"]),
            row["id"],
            row["label"],
            float(row["probability"]),
        )
        for row in rows
    ]


def assert_same(rows: list[tuple[Any, ...]], others: list[tuple[Any, ...]], *, within: float = 1e-6) -> None:
    """Assert equal predictions; the last digits of a probability may differ between runs."""
    assert [row[:-1] for row in rows] == [row[:-1] for row in others]
    assert [row[-1] for row in rows] == pytest.approx([row[-1] for row in others], abs=within)


# --- predictions ---


@pytest.mark.slow
def test_predictions_are_right(records: list[dict[str, Any]]) -> None:
    cat, coffee = records
    assert (cat["input"], coffee["input"]) == (str(CAT), str(COFFEE))
    assert {record["model"] for record in records} == {"embedded"}
    first = coffee["predictions"][0]
    assert (first["label"], first["index"], first["id"]) == ("espresso", 967, "n07920052")
    assert 0.9 < first["probability"] < 1
    assert {item["label"] for item in cat["predictions"][:3]} == {"tabby", "tiger cat", "Egyptian cat"}


@pytest.mark.slow
def test_record_has_documented_fields(records: list[dict[str, Any]]) -> None:
    for record in records:
        assert list(record) == ["input", "status", "model", "predictions"]
        assert record["status"] == "ok"
        assert [list(item) for item in record["predictions"]] == [COLUMNS[2:7]] * 5
        assert [item["rank"] for item in record["predictions"]] == [1, 2, 3, 4, 5]
        probabilities = [item["probability"] for item in record["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(0 < probability < 1 for probability in probabilities)


@pytest.mark.slow
def test_index_id_and_label_belong_together(records: list[dict[str, Any]]) -> None:
    names = shipped.imagenet()
    for *_, index, id, label, _ in as_rows(records):
        assert (names.ids[index], names.names[index]) == (id, label)


# --- formats ---


def test_jsonl_ndjson_and_json_hold_same_records(written: dict[str, str], records: list[dict[str, Any]]) -> None:
    assert_same(as_rows([json.loads(line) for line in written["ndjson"].splitlines()]), as_rows(records))
    assert_same(as_rows(json.loads(written["json"])), as_rows(records))


def test_tsv_holds_same_records(written: dict[str, str], records: list[dict[str, Any]]) -> None:
    assert written["tsv"].partition("\n")[0].split("\t") == COLUMNS
    rows = tsv_rows(written["tsv"])
    assert {row["error"] for row in rows} == {""}
    assert_same(typed(rows), as_rows(records), within=1e-6)


def test_csv_holds_same_records(written: dict[str, str], records: list[dict[str, Any]]) -> None:
    assert written["csv"].partition("\n")[0].split(",") == COLUMNS
    rows = csv_rows(written["csv"])
    assert {row["error"] for row in rows} == {""}
    assert_same(typed(rows), as_rows(records), within=1e-6)


def test_table_shows_same_records(written: dict[str, str], records: list[dict[str, Any]]) -> None:
    lines = [line.rstrip() for line in written["txt"].splitlines()]
    for record in records:
        place = lines.index(record["input"])
        for item, line in zip(record["predictions"], lines[place + 4 : place + 9], strict=True):
            columns = [cell for cell in line.split("  ") if cell.strip()]
            shown = [cell.strip() for cell in columns[:5]]
            percent = float(shown.pop().removesuffix("%"))
            assert shown == [str(item["rank"]), item["label"], str(item["index"]), item["id"]]
            assert percent == pytest.approx(100 * item["probability"], abs=0.006)
            assert line.count("━") == pytest.approx(20 * item["probability"], abs=0.51)


@pytest.mark.slow
def test_file_has_same_text_as_standard_output(cli: Cli, written: dict[str, str]) -> None:
    for arguments in ([], ["-o", "-"]):
        ended = cli("predict", *BOTH, *arguments)
        assert (ended.code, ended.stderr) == (0, "")
        assert_same(typed(tsv_rows(ended.stdout)), typed(tsv_rows(written["tsv"])), within=1e-6)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "start"),
    [
        ("out.CSV", [], "input,status,"),
        ("out", [], "input\tstatus\t"),
        ("out.dat", ["-f", "json"], "[\n{"),
        ("out.csv", ["-f", "jsonl"], '{"input": '),
    ],
)
def test_format_follows_option_or_extension(cli: Cli, name: str, arguments: list[str], start: str) -> None:
    assert cli("predict", COFFEE, "-o", name, *arguments) == (0, "", f"{name}: 1 input\n")
    assert Path(name).read_text(encoding="utf-8").startswith(start)
    assert Path(name).stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(("format_name", "separator"), [("tsv", "\t"), ("csv", ",")])
def test_no_header(cli: Cli, format_name: str, separator: str) -> None:
    ended = cli("predict", COFFEE, "--no-header", "-k", "2", "-f", format_name)
    assert [line.split(separator)[:4] for line in ended.stdout.splitlines()] == [
        [str(COFFEE), "ok", "1", "967"],
        [str(COFFEE), "ok", "2", "968"],
    ]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_table_in_a_pipe_has_no_escape_codes(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = cli("predict", COFFEE, "missing.jpg", "-f", "table")
    assert "espresso" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 60, 70, 71, 80, 200])
def test_table_fits_terminal_width(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "very-long-name-" * 15 + ".jpg"
    shutil.copy(COFFEE, name)
    ended = cli("predict", name, "-f", "table")
    lines = ended.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert name in "".join(line.rstrip() for line in lines)
    assert ("━" in ended.stdout) == (columns >= 71), "where it needs no word to be broken"
    assert "95.46%" in ended.stdout


# --- --top-k and --min-probability ---


@pytest.mark.parametrize(("k", "count"), [(1, 1), (3, 3), (1000, 1000), (2000, 1000)])
def test_top_k_limits_number_of_classes(cli: Cli, k: int, count: int) -> None:
    ended = cli("predict", COFFEE, "-k", str(k), "-f", "jsonl")
    predictions = json.loads(ended.stdout)["predictions"]
    assert [item["rank"] for item in predictions] == list(range(1, count + 1))
    assert len({item["index"] for item in predictions}) == count
    if count == 1000:
        assert math.fsum(item["probability"] for item in predictions) == pytest.approx(1, abs=1e-5)


def test_min_probability_leaves_out_classes_below_it(cli: Cli) -> None:
    ended = cli("predict", *BOTH, "--min-probability", "0.1", "-f", "jsonl", "-k", "1000")
    shown = [record["predictions"] for record in map(json.loads, ended.stdout.splitlines())]
    assert [[item["label"] for item in items] for items in shown] == [
        ["tiger cat", "Egyptian cat", "tabby"],
        ["espresso"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["tsv", "csv", "json", "jsonl", "table"])
def test_image_without_class_above_min_probability_keeps_its_record(cli: Cli, format_name: str) -> None:
    ended = cli("predict", *BOTH, "--min-probability", "0.9", "-f", format_name)
    assert (ended.code, ended.stderr) == (0, "")
    assert str(CAT) in ended.stdout
    if format_name == "tsv":
        assert [row["label"] for row in tsv_rows(ended.stdout)] == ["", "espresso"]
        assert [row["status"] for row in tsv_rows(ended.stdout)] == ["abstained", "ok"]


# --- labels, features, models ---


@pytest.mark.slow
def test_labels_are_read_from_file(cli: Cli, records: list[dict[str, Any]]) -> None:
    Path("names.txt").write_text("".join(f"thing {i}\n" for i in range(1000)), encoding="utf-8")
    ended = cli("predict", COFFEE, "--labels", "names.txt", "-f", "jsonl")
    shown = [(item["index"], item["id"], item["label"]) for item in json.loads(ended.stdout)["predictions"]]
    assert shown == [(item["index"], None, f"thing {item['index']}") for item in records[1]["predictions"]]


@pytest.mark.slow
def test_predict_features_equal_features_command(cli: Cli, records: list[dict[str, Any]]) -> None:
    inputs = [str(CAT), "missing.jpg", str(COFFEE)]
    ended = cli("predict", *inputs, "--features", "--features-out", "beside.npy", "-f", "jsonl", "-q")
    assert ended.code == 3
    embeddings = [json.loads(line).get("embedding") for line in ended.stdout.splitlines()]
    assert embeddings[1] is None
    assert [len(embeddings[0]), len(embeddings[2])] == [1280, 1280]
    assert cli("features", *inputs, "-o", "alone.npy", "-q").code == 3
    beside, alone = np.load("beside.npy"), np.load("alone.npy")
    assert beside.dtype == np.float32
    assert beside.shape == (2, 1280)
    assert np.ptp(beside) > 0.5
    np.testing.assert_array_equal(np.array([embeddings[0], embeddings[2]], np.float32), beside)
    np.testing.assert_allclose(alone, beside, atol=1e-5)
    assert Path("beside.npy.index.csv").read_bytes() == Path("alone.npy.index.csv").read_bytes()
    # Adding features leaves the predictions unchanged.
    answers = [record for record in map(json.loads, ended.stdout.splitlines()) if record["status"] == "ok"]
    assert_same(as_rows(answers), as_rows(records))


def test_features_out_leaves_records_unchanged(cli: Cli, records: list[dict[str, Any]]) -> None:
    ended = cli("predict", *BOTH, "--features-out", "x.npz", "-f", "jsonl")
    assert [list(json.loads(line)) for line in ended.stdout.splitlines()] == [list(records[0])] * 2


@pytest.mark.slow
def test_model_comes_from_environment_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETD_MODEL", "no-such-model")
    assert "unknown model 'no-such-model'" in cli("predict", COFFEE).stderr
    ended = cli("predict", COFFEE, "-m", "embedded", "-f", "jsonl")
    assert (ended.code, json.loads(ended.stdout)["model"]) == (0, "embedded")
    monkeypatch.setenv("RESNETD_MODEL", "embedded")
    assert "unknown model 'other'" in cli("predict", COFFEE, "-m", "other").stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "top"),
    [(["--image-size", "test"], "espresso"), (["--image-size", "320"], "espresso"), (["-b", "2"], "espresso")],
)
def test_other_image_or_batch_size_gives_same_class(cli: Cli, arguments: list[str], top: str) -> None:
    ended = cli("predict", *BOTH, *arguments, "--engine", "torch", "-f", "jsonl", "-k", "1")
    assert (ended.code, ended.stderr) == (0, "")
    assert json.loads(ended.stdout.splitlines()[1])["predictions"][0]["label"] == top


# --- file names, order ---

STRANGE = (
    "tab\there.jpg",
    "new\nline.jpg",
    "car\rriage.jpg",
    'quo"ted".jpg',
    "com,ma; 'single'.jpg",
    "back\\slash\\n.jpg",
    "日本 ☕ é.jpg",
    " spaces .jpg",
    "=1+1.jpg",
    "[abc]*.jpg",
    "\udcff\udcfe bytes.jpg",
    "\x1b[31mred.jpg",
)


@pytest.fixture
def strange(cli: Cli) -> list[str]:
    """Files with every odd name that this file system allows, a missing file, and a normal one."""
    names = []
    for name in STRANGE:
        try:
            shutil.copy(COFFEE, name)
        except (OSError, UnicodeError):
            continue
        names.append(name)
    return [*names, 'missing\t\n".jpg', str(CAT)]


READERS: dict[str, Callable[[str], list[str]]] = {
    "tsv": lambda text: [row["input"] for row in tsv_rows(text)],
    "csv": lambda text: [row["input"] for row in csv_rows(text)],
    "json": lambda text: [record["input"] for record in json.loads(text)],
    "jsonl": lambda text: [json.loads(line)["input"] for line in text.removesuffix("\n").split("\n")],
}


@pytest.mark.slow
@pytest.mark.parametrize("format_name", READERS)
def test_odd_file_names_are_unchanged_in_output(cli: Cli, strange: list[str], format_name: str) -> None:
    ended = cli("predict", *strange, "-f", format_name, "-k", "1")
    assert ended.code == 3
    assert READERS[format_name](ended.stdout) == strange


@pytest.mark.slow
@pytest.mark.parametrize("format_name", READERS)
def test_odd_file_names_are_unchanged_in_files_and_lists(cli: Cli, strange: list[str], format_name: str) -> None:
    Path("list").write_bytes(b"".join(os.fsencode(name) + b"\0" for name in strange))
    ended = cli("predict", "--files-from", "list", "-0", "-f", format_name, "-k", "1", "-o", "out")
    assert ended.code == 3
    with Path("out").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert READERS[format_name](file.read()) == strange


@pytest.mark.slow
def test_table_escapes_control_characters_in_file_names(cli: Cli, strange: list[str]) -> None:
    ended = cli("predict", *strange, "-f", "table", "-k", "1")
    assert all(line.isprintable() for line in ended.stdout.splitlines())
    for name in ("tab\\there.jpg", "new\\nline.jpg", "\\x1b[31mred.jpg", "[abc]*.jpg"):
        assert name in ended.stdout


@pytest.mark.slow
def test_many_inputs_keep_order_and_duplicates(cli: Cli) -> None:
    # Alternate large and small, good and bad inputs, so that threads overtake each other.
    from PIL import Image

    with Image.open(COFFEE) as image:
        image.resize((2400, 1600)).save("large.png", compress_level=1)
        image.resize((60, 40)).save("small.jpg")
    Path("bad.jpg").write_text("no", encoding="utf-8")
    inputs = ["large.png", "small.jpg", "bad.jpg", "small.jpg", str(CAT), "missing.jpg"] * 8
    ended = cli("predict", *inputs, "-f", "jsonl", "-k", "1", "-q")
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.code == 3
    assert [record["input"] for record in records] == inputs
    expected = {"large.png": {"espresso"}, str(CAT): {"tiger cat", "Egyptian cat", "tabby"}}
    for record in records:
        if record["input"] in expected:
            assert record["predictions"][0]["label"] in expected[record["input"]]
        assert (record["status"] == "error") == (record["input"] in ("bad.jpg", "missing.jpg"))
    answers = {(record["input"], json.dumps(record.get("predictions"))) for record in records}
    assert len(answers) == 5, "the same image, the same answer"


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_prediction_does_not_depend_on_other_inputs(
    cli: Cli, records: list[dict[str, Any]], batch_size: int
) -> None:
    inputs = [str(CAT), "missing.jpg", str(COFFEE), str(COFFEE), str(CAT)]
    ended = cli("predict", *inputs, "-f", "jsonl", "-b", str(batch_size))
    shown = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [record["input"] for record in shown] == inputs
    cat, coffee = records
    good = [record for record in shown if record["status"] == "ok"]
    assert_same(as_rows(good), as_rows([cat, coffee, coffee, cat]))


@pytest.mark.slow
def test_folders_globs_and_lists_give_same_files_in_same_order(cli: Cli) -> None:
    Path("d/sub").mkdir(parents=True)
    for name in ("b.jpg", "a.JPG", "sub/c.jpeg"):
        shutil.copy(COFFEE, f"d/{name}")
    Path("d/notes.txt").write_text("not an image by its name", encoding="utf-8")
    shutil.copy(COFFEE, "d/no-extension")
    files = ["d/a.JPG", "d/b.jpg", "d/sub/c.jpeg"]
    Path("list.txt").write_text("\n".join([*files, ""]), encoding="utf-8")
    Path("crlf.txt").write_bytes(b"\r\n".join(map(os.fsencode, files)))
    for inputs in (["d"], ["d/**/*.[jJ]*"], files, ["--files-from", "list.txt"], ["--files-from", "crlf.txt"]):
        ended = cli("predict", *inputs, "-k", "1", "-f", "tsv")
        assert ended.code == 0, inputs
        assert [row["input"] for row in tsv_rows(ended.stdout)] == files
    ended = cli("predict", "d/no-extension", "--files-from", "list.txt", "-k", "1", "-f", "tsv")
    assert [row["input"] for row in tsv_rows(ended.stdout)] == ["d/no-extension", *files]


def test_verbose_run_says_which_limit_on_processors_was_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert "\nprocessors: affinity or a cpuset leave 1 of 64\n" in cli("predict", COFFEE, "-v").stderr
    assert "processors" not in cli("predict", COFFEE).stderr
