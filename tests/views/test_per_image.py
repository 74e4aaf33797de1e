"""`evaluate --per-image`: what a model says of each image; and what is particular about the images."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.hub import write_model
from helpers.program import Cli, only
from helpers.scripted_model import ACTUAL, LOGITS, PETS, draw, model
from numpy.typing import NDArray
from PIL import Image

from resnetd_cli.errors import UsageError
from resnetd_cli.evaluation import evaluate
from resnetd_cli.evaluation.image_rows import ImageRow, PredictedClass, TrueClass
from resnetd_cli.evaluation.images import open_images
from resnetd_cli.loading import load
from resnetd_cli.pipeline.decode.exif_orientation import TURNED
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.pipeline.options import Runtime
from resnetd_cli.views.per_image import COLUMNS, RowOptions, check_name, open_rows


def expected(
    logits: NDArray[np.float32], actual: NDArray[np.int64], temperature: float = 1.0
) -> list[dict[str, Any]]:
    """Return the figures of each image, worked out with numpy."""
    powers = np.exp(logits.astype(np.float64) / temperature)
    shares = powers / powers.sum(axis=1, keepdims=True)
    rows = []
    for row, label in zip(shares, actual.tolist(), strict=True):
        others = np.delete(row, label)
        rows.append(
            {
                "prediction_index": int(row.argmax()),
                "probability": pytest.approx(row.max(), abs=1e-6),
                "truth_probability": pytest.approx(row[label], abs=1e-6),
                "loss": pytest.approx(-np.log(row[label]), abs=1e-5),
                "margin": pytest.approx(row[label] - others.max(), abs=1e-6),
                "correct": bool(row.argmax() == label),
            }
        )
    return rows


def figures(row: ImageRow) -> dict[str, Any]:
    names = ("prediction_index", "probability", "truth_probability", "loss", "margin", "correct")
    record = row.record()
    return {name: record[name] for name in names}


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_each_image_has_a_row_in_order(pets: Path, temperature: float) -> None:
    rows: list[ImageRow] = []
    images = open_images(str(pets))
    report = evaluate.evaluate(model(temperature=temperature), images, on_row=rows.append).report
    assert [figures(row) for row in rows] == expected(LOGITS, ACTUAL, temperature)
    assert [row.path for row in rows] == list(images.names())
    assert [(row.truth.index, row.truth.name) for row in rows if row.truth] == [
        (label, PETS.names[label]) for label in ACTUAL
    ]
    assert [row.prediction.name for row in rows if row.prediction] == [
        PETS.names[label] for label in LOGITS.argmax(axis=1)
    ]
    assert {(row.model, row.error) for row in rows} == {("scripted", None)}
    losses = [row.truth.loss for row in rows if row.truth and row.truth.loss is not None]
    assert len(losses) == 8 and np.mean(losses) == pytest.approx(report.scores.loss, abs=1e-12)
    assert [row.correct for row in rows].count(True) / 8 == report.scores.top1


def test_rows_are_those_of_the_fitted_temperature(pets: Path) -> None:
    rows: list[ImageRow] = []
    (pets / "cat" / "0.png").write_bytes(b"no image")
    report = evaluate.evaluate(model(), open_images(str(pets)), fit=True, on_row=rows.append).report
    assert report.model.temperature != 1
    assert [figures(row) for row in rows[1:]] == expected(LOGITS[1:], ACTUAL[1:], report.model.temperature)
    assert (rows[0].error, rows[0].prediction) == ("undecodable: not an image", None)
    np.testing.assert_array_equal([row.logits for row in rows[1:]], LOGITS[1:])


def test_the_keys_of_a_row_are_the_columns_of_the_files() -> None:
    names = "model path truth_index truth prediction_index prediction probability truth_probability loss margin"
    assert list(ROWS[0].record()) == list(COLUMNS) == [*names.split(), "correct", "error"]


def test_an_image_that_cannot_be_read_has_its_row(pets: Path) -> None:
    (pets / "dog" / "3.png").write_bytes(b"no image")
    rows: list[ImageRow] = []
    evaluate.evaluate(model(), open_images(str(pets)), on_row=rows.append)
    assert len(rows) == 8
    path = str(pets / "dog" / "3.png")
    assert rows[3] == ImageRow("scripted", path, TrueClass(1, "dog"), error="undecodable: not an image")


def test_an_image_without_a_label_is_judged_by_its_real_labels(tmp_path: Path) -> None:
    from helpers.scripted_model import imagenet_model

    for blue, number in enumerate([1, 2, 3]):  # the first has none, the others [970, 795] and [230, 231]
        draw(tmp_path / f"ILSVRC2012_val_{number:08}.png", blue)
    rows: list[ImageRow] = []
    images = open_images(str(tmp_path), real=True)
    evaluate.evaluate(imagenet_model(1, 795, 5), images, real=True, on_row=rows.append)
    assert [(row.prediction.index, row.correct) for row in rows if row.prediction] == [
        (1, None),
        (795, True),
        (5, False),
    ]
    assert [row.truth for row in rows] == [None] * 3


# --- files ---

ROWS = [
    ImageRow(
        "m",
        "a,b.png",
        TrueClass(0, "=cat", 0.75, 1.5, -0.5),
        PredictedClass(1, "dog", 0.25),
        correct=False,
        logits=np.array([1, 2.1], np.float32),
    ),
    ImageRow("m", "bad\udcff.png", TrueClass(0, "=cat"), error="empty: zero bytes"),
]


def write(path: Path, **options: Any) -> Path:
    with open_rows(path, RowOptions(**options)) as on_row:
        for row in ROWS:
            on_row(row)
    return path


def test_csv_round_trips_the_rows(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.csv", logits=True).read_bytes()
    first, second = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape")))
    assert tuple(first) == (*COLUMNS, "logits")
    assert (first["path"], first["truth"], first["correct"], first["margin"]) == (
        "a,b.png",
        "=cat",
        "false",
        "-0.5",
    )
    assert json.loads(first["logits"]) == [1.0, 2.1]
    assert (second["path"], second["correct"], second["logits"]) == ("bad\udcff.png", "", "")
    assert second["error"] == "empty: zero bytes"


def test_csv_escapes_formulas_and_leaves_out_its_header_on_request(tmp_path: Path) -> None:
    text = write(tmp_path / "rows.csv", escape_formulas=True, header=False).read_bytes().decode("utf-8", "replace")
    assert text.startswith('m,"a,b.png",0,\'=cat,1,dog,0.25,0.75,1.5,-0.5,false,\n')


def test_json_lines_round_trip_the_rows(tmp_path: Path) -> None:
    first, second = map(json.loads, write(tmp_path / "rows.jsonl", logits=True).read_text().splitlines())
    assert tuple(first) == (*COLUMNS, "logits")
    assert (first["correct"], first["logits"], second["path"]) == (False, [1.0, 2.1], "bad\udcff.png")
    assert "logits" not in json.loads(write(tmp_path / "fewer.jsonl").read_text().splitlines()[0])


def test_parquet_round_trips_the_rows_with_their_types(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path / "rows.parquet", logits=True))
    assert table.column_names == [*COLUMNS, "logits"]
    assert str(table.schema.field("logits").type) == "list<element: float>"
    assert [str(table.schema.field(name).type) for name in ("path", "truth_index", "loss", "correct")] == [
        "string",
        "int32",
        "double",
        "bool",
    ]
    first, second = table.to_pylist()
    assert (first["correct"], first["logits"]) == (False, [1.0, np.float32(2.1)])
    assert (second["path"], second["probability"], second["logits"]) == ("bad\\udcff.png", None, None)


def test_parquet_is_written_in_groups(tmp_path: Path) -> None:
    with open_rows(tmp_path / "many.parquet", RowOptions()) as on_row:
        for number in range(3000):
            on_row(ImageRow("m", str(number), TrueClass(0, "cat", loss=number / 7)))
    file = pq.ParquetFile(tmp_path / "many.parquet")
    assert file.metadata.num_row_groups == 3
    assert file.read().column("loss").to_pylist() == [number / 7 for number in range(3000)]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_file_appears_only_when_it_is_whole(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError), open_rows(tmp_path / name, RowOptions()) as on_row:
        on_row(ROWS[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["rows", "rows.tsv", "rows.csv.gz", "-"])
def test_a_suffix_of_another_format_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="the format is not clear from the name"):
        check_name(Path(name))
    check_name(Path("ROWS.CSV"))


# --- the command ---


@pytest.mark.slow
def test_rows_of_a_network_are_those_of_its_logits(cli: Cli, own: tuple[Path, Path]) -> None:
    folder, data = own
    ended = cli("evaluate", data, "-m", folder, "--per-image", "rows.parquet", "--with-logits", "-f", "json")
    assert ended.code == 0
    rows = pq.read_table("rows.parquet").to_pylist()
    classifier = load(str(folder), runtime=Runtime("torch"))
    logits = np.array(list(classifier.logits([row["path"] for row in rows])))
    np.testing.assert_allclose([row["logits"] for row in rows], logits, atol=1e-5)
    actual = np.array([classifier.class_names.names.index(Path(row["path"]).parent.name) for row in rows])
    assert [
        {name: row[name] for name in each} for row, each in zip(rows, expected(logits, actual), strict=True)
    ] == (expected(logits, actual))
    assert np.mean([row["loss"] for row in rows]) == pytest.approx(only(ended)["loss"], abs=1e-9)


@pytest.mark.slow
def test_two_models_have_their_rows_one_after_the_other(cli: Cli, photos: Path) -> None:
    other = photos.parent / "other"
    write_model(other, "test_resnet", ("espresso", "Egyptian cat", "Samoyed"))
    (photos / "espresso" / "broken.jpg").write_bytes(b"no image")
    ended = cli("evaluate", photos, "-m", "embedded", "-m", other, "--per-image", "rows.jsonl", "-f", "json")
    assert ended.code == 3
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == ["embedded"] * 3 + [str(other)] * 3
    assert [row["error"] for row in rows] == [None, "undecodable: not an image", None] * 2
    assert [row["path"] for row in rows[:3]] == [row["path"] for row in rows[3:]]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--per-image", "rows.txt"], 2, "rows.txt: the format is not clear from the name"),
        (["--with-logits"], 2, "--with-logits requires --per-image"),
        (["--per-image", "there.csv"], 2, "there.csv exists"),
        (["--per-image", "table.csv", "--overwrite"], 2, "table.csv is one of the inputs"),
        (["--per-image", "same.csv", "-o", "same.csv"], 2, "two outputs would be written to same.csv"),
    ],
)
def test_a_per_image_file_that_cannot_be_written_is_an_error_before_the_work(
    cli: Cli,
    photos: Path,
    words: list[str],
    code: int,
    message: str,
) -> None:
    Path("there.csv").write_text("mine")
    Path("table.csv").write_text(f"path,label\n{photos}/espresso/coffee.jpg,espresso\n")
    ended = cli("evaluate", "table.csv", *words)
    assert (ended.code, ended.stdout, Path("there.csv").read_text()) == (code, "", "mine")
    assert message in ended.stderr


# --- what is particular about the images ---


def oriented(path: Path, orientation: int, format: str = "PNG") -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (0, 0, 3)).save(path, format, exif=exif)
    return path


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])  # the last two are decoded in another process
@pytest.mark.parametrize("orientation", range(10))
def test_an_image_knows_whether_exif_turned_it(tmp_path: Path, format: str, orientation: int) -> None:
    data = oriented(tmp_path / "image", orientation, format).read_bytes()
    turns = 2 <= orientation <= 8
    if format == "TIFF":  # Pillow itself turns it, for everyone who opens it: that is not counted
        assert decode(data).info[TURNED] is False
        return
    assert decode(data).info[TURNED] is turns
    assert decode(data).size == ((6, 8) if orientation >= 5 and turns else (8, 6))
    assert decode(data, DecodeOptions(guard="all")).info[TURNED] is turns
    assert decode(data, DecodeOptions(ignore_exif=True)).info[TURNED] is False


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16"])
def test_an_image_of_any_mode_knows_whether_exif_turned_it(mode: str) -> None:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new(mode, (8, 6)).save(stream, "PNG", exif=exif)
    image = decode(stream.getvalue())
    assert (image.info[TURNED], image.size, image.mode) == (True, (6, 8), "RGB")


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_images_turned_by_exif_are_counted(cli: Cli, photos: Path) -> None:
    for number, orientation in enumerate([1, 3, 6, 9]):
        oriented(photos / "espresso" / f"{number}.png", orientation)
    ended = cli("evaluate", photos, "-f", "json")
    assert (only(ended)["images"], only(ended)["turned"]) == (6, 2)
    told = "2 images were turned upright by EXIF orientation, which timm ignores"
    assert f"{told}: ignoring EXIF would leave them as stored" in ended.stderr
    assert "turned by EXIF" in cli("evaluate", photos, "-f", "table").stdout
    ended = cli("evaluate", photos, "-f", "json", "--ignore-exif")
    assert (only(ended)["turned"], "EXIF" in ended.stderr) == (0, False)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_rows_of_one_image_are_counted_and_noted(cli: Cli, photos: Path) -> None:
    line = f"{photos}/espresso/coffee.jpg,espresso\n"
    Path("table.csv").write_text(f"path,label\n{line}{line}{photos}/Egyptian_cat/cat.jpg,Egyptian cat\n")
    ended = cli("evaluate", "table.csv", "-f", "json")
    assert (only(ended)["images"], only(ended)["repeated"], only(ended)["top1"]) == (3, 1, pytest.approx(2 / 3))
    assert "1 image is a byte-for-byte copy of another, and counts as well\n" in ended.stderr
