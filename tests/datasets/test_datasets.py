"""Labelled images: folders and tables, their first pass, and their splits."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import bombs
from helpers.marks import mark_of_file
from PIL import Image

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.datasets import parquet_tables, tables
from resnetd_cli.datasets.class_labels import Labeller
from resnetd_cli.datasets.examples import Dataset, Examples
from resnetd_cli.datasets.first_few import shown
from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.datasets.packed_texts import TextsBuilder
from resnetd_cli.datasets.scan import Scan, Sharing, scan_images
from resnetd_cli.datasets.splits import split_dataset
from resnetd_cli.datasets.survey import Survey, survey
from resnetd_cli.errors import DataError, ErrorKind, InputError
from resnetd_cli.system.threads import Pool
from resnetd_cli.views.counts import write_counts

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files and names")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


_painted = iter(range(1, 2**24))


def paint(*names: str, like: str | None = None) -> None:
    """Make images, each of a colour of its own, or all the same as another file."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if like is not None:
            path.write_bytes(Path(like).read_bytes())
        else:
            colour = next(_painted)
            Image.new("RGB", (8, 8), (colour >> 16, colour >> 8 & 255, colour & 255)).save(path, "PNG")


def write(name: str, content: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def touch(*names: str) -> None:
    """Make files that nobody reads."""
    for name in names:
        write(name, b"x")


def listing(examples: Examples | None) -> list[tuple[str, str]]:
    assert examples is not None
    return [(Path(examples.name(at)).as_posix(), examples.class_name(at)) for at in range(len(examples))]


def marks(examples: Examples) -> list[bytes]:
    return [mark.tobytes() for mark in examples.known_marks()]


def listings(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    return {split: listing(examples) for split, examples in dataset.splits.items()}


def refusal(location: str) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(location)
    assert hint_of(caught.value)
    assert "\n" not in caught.value.message
    return caught.value


# --- folders ---


def test_folder_of_classes() -> None:
    paint("d/cat/2.png", "d/cat/1.JPG", "d/dog/deep/er/3.png", "d/Ant/4.webp", "d/.hidden/5.png", "d/cat/.6.png")
    dataset = open_dataset("d")
    assert dataset.classes == ("Ant", "cat", "dog")
    assert listings(dataset) == {
        "all": [
            ("d/Ant/4.webp", "Ant"),
            ("d/cat/1.JPG", "cat"),
            ("d/cat/2.png", "cat"),
            ("d/dog/deep/er/3.png", "dog"),
        ]
    }
    assert dataset.splits["all"].counts().tolist() == [1, 2, 1]
    assert dataset.splits["all"].read(3) == Path("d/dog/deep/er/3.png").read_bytes()
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "val", "test"], ["train", "val", "test"]),
        (["Training", "VALID"], ["train", "val"]),
        (["train", "validation"], ["train", "val"]),
        (["train"], ["train"]),
        (["val"], ["val"]),
        (["TEST"], ["test"]),
    ],
)
def test_folders_of_splits(folders: list[str], splits: list[str]) -> None:
    paint(*(f"d/{folder}/{name}/{folder}.png" for folder in folders for name in ("cat", "dog")))
    found = listings(open_dataset("d"))
    assert list(found) == splits
    for folder, split in zip(folders, splits, strict=True):
        assert found[split] == [(f"d/{folder}/{name}/{folder}.png", name) for name in ("cat", "dog")]


def test_classes_are_those_of_all_splits() -> None:
    paint("d/train/cat/1.png", "d/train/dog/2.png", "d/test/bee/3.png", "d/test/dog/4.png")
    dataset = open_dataset("d")
    assert dataset.classes == ("bee", "cat", "dog")
    assert dataset.splits["test"].labels.tolist() == [0, 2]
    assert dataset.splits["train"].labels.tolist() == [1, 2]


def test_a_class_may_be_called_train() -> None:
    paint("d/car/1.png", "d/train/2.png", "d/test/3.png")
    assert listings(open_dataset("d")) == {
        "all": [("d/car/1.png", "car"), ("d/test/3.png", "test"), ("d/train/2.png", "train")]
    }


def test_two_folders_of_one_split_are_refused() -> None:
    paint("d/train/cat/1.png", "d/val/cat/2.png", "d/validation/cat/3.png")
    assert refusal("d").message == "val, validation are folders of the same split"


def test_a_run_among_the_classes_is_not_one_of_them() -> None:
    paint("cat/1.png", "dog/1.png", "mine/curves.png", "run.json/recipe.yaml/1.png", "several/seeds/7/curves.png")
    write("several/seeds.json", "{}")  # of several seeds, the first of which is under way
    write("mine/run.json", "{}")
    write("mine/recipe.yaml", "epochs: 1")
    dataset = open_dataset(".")
    assert dataset.classes == ("cat", "dog", "run.json")
    assert "folders of training runs are left out: mine, several" in dataset.notes


def test_a_run_within_a_class_is_not_of_it() -> None:
    paint("d/cat/1.png", "d/dog/1.png", "d/dog/more/2.png", "d/dog/more/run/curves.png", "d/dog/run/curves.png")
    for run in ("d/dog/more/run", "d/dog/run"):
        write(f"{run}/run.json", "{}")
        write(f"{run}/recipe.yaml", "epochs: 1")
    dataset = open_dataset("d")
    assert [Path(name).as_posix() for name, _ in listings(dataset)["all"]] == [
        "d/cat/1.png",
        "d/dog/1.png",
        "d/dog/more/2.png",
    ]
    assert dataset.notes[0] == "folders of training runs are left out: dog/more/run, dog/run"


def test_classes_beside_a_test_folder_are_refused() -> None:
    paint("d/cat/1.png", "d/dog/1.png", "d/test/cat/2.png")
    error = refusal("d")
    assert error.message == "folders of splits (test) and of classes (cat, dog) lie side by side"
    assert hint_of(error) == "move the classes into a folder train"


def test_skipped_files_are_reported() -> None:
    paint("d/train/cat/1.png", "d/train/dog/2.png", "d/train/loose.png", "d/extra/3.png", "d/top.png")
    write("d/train/cat/notes.txt", "x")
    Path("d/train/empty").mkdir()
    Path("d/train/cat/link").symlink_to("../dog", target_is_directory=True)
    assert open_dataset("d").notes == (
        "folders beside the splits are left out: extra",
        "folders without images: train/empty",
        "images in no class folder are left out: top.png, train/loose.png",
        "files whose names do not end like an image's are left out: train/cat/notes.txt",
        "links to folders below the classes are not followed: train/cat/link",
    )


@posix
def test_links_to_files_and_to_classes_are_followed() -> None:
    paint("far/1.png", "disk/dog/2.png")
    Path("d/cat").mkdir(parents=True)
    Path("d/cat/1.png").symlink_to("../../far/1.png")
    Path("d/dog").symlink_to("../disk/dog", target_is_directory=True)
    assert listings(open_dataset("d")) == {"all": [("d/cat/1.png", "cat"), ("d/dog/2.png", "dog")]}


@posix
def test_links_in_circles_end() -> None:
    paint("d/cat/1.png", "d/dog/2.png")
    Path("d/cat/round").symlink_to("..", target_is_directory=True)
    Path("d/cat/self.png").symlink_to("self.png")
    dataset = open_dataset("d")
    assert [name for name, _ in listings(dataset)["all"]] == ["d/cat/1.png", "d/cat/self.png", "d/dog/2.png"]
    with pytest.raises(InputError) as caught:
        dataset.splits["all"].read(1)
    assert caught.value.kind == ErrorKind.UNREADABLE


@posix
@pytest.mark.parametrize("name", ["-x", "a\nb", "🐈", "a b", "$(x)", "\udcff\udcc3z", "é", "e\u0301"])
def test_odd_names_of_classes_and_images(name: str) -> None:
    paint(f"d/{name}/{name}.png", "d/zz/z.png")
    dataset = open_dataset("d")
    examples = dataset.splits["all"]
    assert set(dataset.classes) == {name, "zz"}
    at = [examples.class_name(position) for position in range(2)].index(name)
    assert examples.name(at) == os.path.join("d", name, f"{name}.png")
    assert examples.read(at) == Path(f"d/{name}/{name}.png").read_bytes()
    assert len(survey(dataset).fingerprint) == 64


@posix
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    paint("d/cat/1.png", "d/dog/2.png")
    Path("d/dog").chmod(0)
    tmp_path.chmod(0o755)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        error = refusal("d")
    finally:
        os.seteuid(was)
        Path("d/dog").chmod(0o755)
    assert error.message == "cannot read the folder d/dog: permission denied"
    assert hint_of(error) == "look at it: ls -ld d/dog"


@pytest.mark.parametrize("make", [[], ["d/1.png"], ["d/.git/1.png"], ["d/train/1.txt"]])
def test_folders_without_classes_are_refused(make: list[str]) -> None:
    Path("d").mkdir()
    for name in make:
        write(name, b"x")
    assert refusal("d").message == "d has no folders with images in them"


def test_missing_or_unknown_location_is_refused() -> None:
    write("x.bin", "x")
    write("x.xlsx", "x")
    assert refusal("nowhere").message == "no folder or file nowhere"
    assert refusal("x.bin").message == "x.bin is not labelled images"
    assert refusal("x.xlsx").message == "x.xlsx is a workbook, not a table in a text file"
    assert refusal("http://host/d.csv").message == "http://host/d.csv is a URL"


def test_a_folder_called_like_an_image() -> None:
    paint("d/cat/x.jpg/1.png", "d/dog/2.png")
    assert [name for name, _ in listings(open_dataset("d"))["all"]] == ["d/cat/x.jpg/1.png", "d/dog/2.png"]


# --- spellings ---


def test_classes_of_val_get_trains_spelling() -> None:
    paint("d/train/hot dog/1.png", "d/train/Cafe\u0301/2.png", "d/val/Hot_Dog/3.png", "d/val/caf\u00e9/4.png")
    dataset = open_dataset("d")
    assert dataset.classes == ("Cafe\u0301", "hot dog")
    assert listings(dataset)["val"] == [
        ("d/val/Hot_Dog/3.png", "hot dog"),
        ("d/val/caf\u00e9/4.png", "Cafe\u0301"),
    ]
    assert listings(dataset)["train"] == [
        ("d/train/Cafe\u0301/2.png", "Cafe\u0301"),
        ("d/train/hot dog/1.png", "hot dog"),
    ]
    assert dataset.notes == (
        "classes that are spelled differently in train: Hot_Dog is hot dog, caf\u00e9 is Cafe\u0301",
    )


def test_classes_that_train_has_as_written_stay_apart() -> None:
    paint("d/train/Cat/1.png", "d/train/cat/2.png", "d/val/cat/3.png", "d/val/Cat/4.png", "d/val/CAT/5.png")
    found = surveyed()
    assert found.dataset.classes == ("CAT", "Cat", "cat")
    assert [label for _, label in listings(found.dataset)["val"]] == ["CAT", "Cat", "cat"]
    assert "different classes whose names differ in spelling only: CAT and Cat and cat" in found.notes


# --- tables ---


def test_csv() -> None:
    touch("x/3.png", "d/a,1.png")
    write(
        "d/t.csv",
        "\ufeffFile, Label ,width\nb/2.png,dog,3\n\n"
        f'"a,1.png","big ""cat""",4\n{Path("x/3.png").absolute()},dog,5\n',
    )
    paint("d/b/2.png")
    dataset = open_dataset("d/t.csv")
    assert dataset.classes == ('big "cat"', "dog")
    assert listings(dataset) == {
        "all": [
            ("d/b/2.png", "dog"),
            ("d/a,1.png", 'big "cat"'),
            (Path("x/3.png").absolute().as_posix(), "dog"),
        ]
    }
    assert dataset.splits["all"].read(0) == Path("d/b/2.png").read_bytes()
    Path("d/a,1.png").unlink()
    with pytest.raises(InputError) as caught:
        dataset.splits["all"].read(1)
    assert caught.value.kind == ErrorKind.NOT_FOUND


def test_tsv_with_splits() -> None:
    touch("1.png", "2.png", "3.png", "4.png")
    write("t.tsv", "path\tclass\tsplit\n1.png\tb\ttrain\n2.png\ta\tVal\n3.png\ta\ttraining\n4.png\tb\ttest\n")
    assert listings(open_dataset("t.tsv")) == {
        "train": [("1.png", "b"), ("3.png", "a")],
        "val": [("2.png", "a")],
        "test": [("4.png", "b")],
    }


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0")])
def test_column_is_valid_gives_train_and_val(yes: str, no: str) -> None:
    touch("1.png", "2.png", "3.png")
    write("t.csv", f"file,label,is_valid\n1.png,a,{no}\n2.png,b,{yes}\n3.png,b,{no}\n")
    assert listings(open_dataset("t.csv")) == {"train": [("1.png", "a"), ("3.png", "b")], "val": [("2.png", "b")]}


def test_is_valid_of_a_parquet_table_may_be_a_boolean() -> None:
    touch("1.png", "2.png")
    columns = {"path": ["1.png", "2.png"], "label": ["a", "a"], "is_valid": [False, True]}
    pq.write_table(pa.table(columns), "t.parquet")
    assert listings(open_dataset("t.parquet")) == {"train": [("1.png", "a")], "val": [("2.png", "a")]}


def test_numbers_are_ordered_as_numbers() -> None:
    touch("1.png", "2.png", "3.png")
    write("t.csv", "image,target\n1.png,10\n2.png,9\n3.png,0\n")
    dataset = open_dataset("t.csv")
    assert dataset.classes == ("0", "9", "10")
    assert dataset.splits["all"].labels.tolist() == [2, 1, 0]


def test_classes_that_only_look_like_missing_values_are_classes() -> None:
    touch("1.png", "2.png", "3.png", "4.png")
    write("t.csv", "path,label\n1.png,none\n2.png,NA\n3.png,naan\n4.png,nan bread\n")
    assert open_dataset("t.csv").classes == ("NA", "naan", "nan bread", "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,cat\n ,dog\n", "t.csv, line 3: no path"),
        ("path,label\na.png,cat\n\nb.png,\n", "t.csv, line 4: no label"),
        ("path,label\nb.png\n", "t.csv, line 2: 1 cell, but the header has 2"),
        ("path,label\nhttps://h/a.png,cat\n", "t.csv, line 2: https://h/a.png is a URL, not a file"),
        ("path,label,split\na.png,cat,dev\n", "t.csv, line 2: no split is called 'dev'"),
        ("a.png,cat\nb.png,dog\n", "t.csv has no header: it begins with a.png, cat"),
        ("path,name\na.png,cat\n", "t.csv has no column of labels, only path, name"),
        ("path,label\n", "t.csv lists no images"),
        ("", "t.csv is empty"),
        ("\n\n", "t.csv is empty"),
        ("path,label\n.,cat\n", "t.csv, line 2: . is a folder, not an image"),
        (b"path,label\na.png,caf\xe9\n", "t.csv, line 2: the label is not UTF-8"),
        ("path,label\n" + "x" * 200_000 + ",cat\n", "t.csv, line 2: field larger than field limit (131072)"),
    ],
)
def test_bad_tables_are_refused(text: str | bytes, message: str) -> None:
    write("t.csv", text)
    assert refusal("t.csv").message.startswith(message)


GOOD_TABLES: dict[str, tuple[str, str | bytes]] = {
    "plain": ("t.csv", "path,label\n1.png,cat\nd/2.png,dog\n"),
    "excel, german": ("t.csv", "path;label\r\n1.png;cat\r\nd/2.png;dog\r\n"),
    "excel, with its first line": ("t.csv", "sep=;\r\npath;label\r\n1.png;cat\r\nd/2.png;dog\r\n"),
    "excel, with a strange delimiter": ("t.csv", "sep=^\npath^label\n1.png^cat\nd/2.png^dog\n"),
    "excel, UTF-8": ("t.csv", "path,label\r\n1.png,cat\r\nd/2.png,dog\r\n".encode("utf-8-sig")),
    "excel, Unicode text": ("t.txt", "path\tlabel\r\n1.png\tcat\r\nd/2.png\tdog\r\n".encode("utf-16")),
    "excel, Unicode text of a Mac": (
        "t.csv",
        b"\xfe\xff" + "path\tlabel\r1.png\tcat\rd/2.png\tdog".encode("utf-16-be"),
    ),
    "UTF-16 without a mark": ("t.tsv", "path\tlabel\n1.png\tcat\nd/2.png\tdog\n".encode("utf-16-le")),
    "UTF-32": ("t.csv", "path,label\n1.png,cat\nd/2.png,dog\n".encode("utf-32")),
    "an old Mac's": ("t.csv", "path,label\r1.png,cat\rd/2.png,dog\r"),
    "commas in a .tsv": ("t.tsv", "path,label\n1.png,cat\nd/2.png,dog\n"),
    "bars": ("t.csv", "path|label\n1.png|cat\nd/2.png|dog\n"),
    "spaces": ("t.csv", "label , path \n cat, 1.png\ndog ,  d/2.png \n"),
    "spaces before quotes": ("t.csv", '"path", "label"\n"1.png", "cat"\n"d/2.png", "dog"\n'),
    "windows": ("t.csv", "path,label\r\n.\\1.png,cat\r\nd\\2.png,dog\r\n"),
    "trailing delimiters": ("t.csv", "path,label,,\n1.png,cat,,\nd/2.png,dog,,\n"),
    "trailing delimiters of rows": ("t.csv", "path,label\n1.png,cat,\nd/2.png,dog,,\n"),
    "empty lines": ("t.csv", "path,label\n\n1.png,cat\n,\n   \nd/2.png,dog\n,,\n\n"),
    "an index of pandas": ("t.csv", ",path,label\n0,1.png,cat\n1,d/2.png,dog\n"),
    "an index of pandas read again": ("t.csv", "Unnamed: 0,path,label\n0,1.png,cat\n1,d/2.png,dog\n"),
    "other headers": ("t.csv", "Image Path,CLASS_NAME\n1.png,cat\nd/2.png,dog\n"),
    "file URLs": ("t.csv", "path,label\n1.png,cat\nfile://{here}/d/2.png,dog\n"),
    "a column for each class": ("t.csv", "filename, cat, dog\n1.png, 1, 0\nd/2.png, 0, 1\n"),
    "a column of floats for each class": (
        "t.csv",
        "image,split,cat,dog\n1.png,train,1.0,0.0\nd/2.png,train,0.0,1.0\n",
    ),
    "two columns that agree": ("t.csv", "path,label,category\n1.png,cat,3\nd/2.png,dog,7\n"),
}


@pytest.mark.parametrize(("name", "content"), GOOD_TABLES.values(), ids=GOOD_TABLES)
def test_tables_as_people_write_them(name: str, content: str | bytes) -> None:
    touch("1.png", "d/2.png")
    here = Path.cwd().as_posix()
    write(name, content.replace("{here}", here) if isinstance(content, str) else content)
    (found,) = listings(open_dataset(name)).values()
    assert [(Path(path).absolute().relative_to(here).as_posix(), label) for path, label in found] == [
        ("1.png", "cat"),
        ("d/2.png", "dog"),
    ]


@posix
def test_a_path_as_it_is_written_wins_over_other_readings() -> None:
    touch("d\\1.png", "d/1.png", '"a.png', "Cafe\u0301.png", "B.PNG")
    write("t.csv", "path,label\nd\\1.png,a\nd/1.png,b\nCaf\u00e9.png,c\n")
    assert [path for path, _ in listings(open_dataset("t.csv"))["all"]] == [
        "d\\1.png",
        "d/1.png",
        "Cafe\u0301.png",
    ]


@posix
def test_a_code_page_is_taken_for_a_path_that_is_there_and_refused_for_a_label() -> None:
    touch("caf\u00e9.png")
    write("t.csv", "path,label\ncaf\u00e9.png,cat\n".encode("cp1252"))
    assert listings(open_dataset("t.csv"))["all"] == [("caf\u00e9.png", "cat")]
    write("t.csv", "path,label\ncaf\u00e9.png,caf\u00e9\n".encode("cp1252"))
    error = refusal("t.csv")
    assert error.message == "t.csv, line 2: the label is not UTF-8, but perhaps Windows-1252 (caf\u00e9)"
    assert hint_of(error) == 'save the table as "CSV UTF-8"'


def test_labels_that_a_data_frame_made_floats_are_integers() -> None:
    touch(*(f"{number}.png" for number in range(4)))
    write("t.csv", "path,label\n0.png,10.0\n1.png,2.0\n2.png,2\n3.png,0.0\n")
    dataset = open_dataset("t.csv")
    assert dataset.classes == ("0", "2", "10")
    assert dataset.splits["all"].labels.tolist() == [2, 1, 1, 0]
    write("t.csv", "path,label\n0.png,1.0\n1.png,2.5\n")
    assert open_dataset("t.csv").classes == ("1.0", "2.5")


REFUSED_TABLES: dict[str, tuple[str | bytes, str, str]] = {
    "an unquoted comma": (
        "path,label\n1.png,crane, bird\n",
        "t.csv, line 2: 3 cells, but the header has 2",
        'a cell with a delimiter in it needs quotes: "crane, bird"',
    ),
    "an unquoted comma in a last row": (
        "path,label\n1.png,coot\n\n2.png,crane, bird\n",
        "t.csv, line 4: 3 cells, but the header has 2",
        "quotes",
    ),
    "a missing cell": ("path,label\n1.png,cat\n2.png\n", "t.csv, line 3: 1 cell, but the header has 2", "header"),
    "a missing cell of three": (
        "path,label,width\n1.png,200\n",
        "t.csv, line 2: 2 cells, but the header has 3",
        "as many cells",
    ),
    "another delimiter in the rows": (
        "path,label\n1.png;cat\n",
        "t.csv, line 2: 1 cell, but",
        "the same delimiter",
    ),
    "names of rows without a title": (
        "path,label\n1,1.png,cat\n",
        "t.csv, line 2: 3 cells, but the header has 2",
        "",
    ),
    "no header": ("1.png;cat\n2.png;dog\n", "t.csv has no header: it begins with 1.png, cat", "path,label"),
    "two columns of one name": ("path,label,Label\n1.png,a,b\n", "t.csv has two columns label", "leave one"),
    "two columns that differ": (
        "path,label,category\n1.png,cat,pet\n2.png,dog,pet\n1.png,cat,wild\n",
        "t.csv, line 4: the columns label, category disagree about the classes",
        "leave out",
    ),
    "an error of a spreadsheet": ("path,label\n1.png,#N/A\n", "t.csv, line 2: the label is #N/A", "one label"),
    "a list": (
        "path,label\n1.png,\"['cat', 'dog']\"\n",
        "t.csv, line 2: the label is ['cat', 'dog']",
        "one label",
    ),
    "several labels": (
        "path,label\n1.png,cat\n2.png,cat|dog\n",
        "t.csv, line 3: 'cat|dog' is several labels",
        "one label",
    ),
    "several labels with commas": (
        'path,label\n1.png,cat\n2.png,dog\n3.png,"cat, dog"\n',
        "t.csv, line 4: 'cat, dog' is several labels",
        "one label",
    ),
    "several labels with spaces": (
        "path,label\n1.png,scab\n2.png,rust\n3.png,scab rust\n",
        "t.csv, line 4: 'scab rust' is several labels",
        "hot_dog",
    ),
    "no header, and spaces": ("img/1.png 0\nimg/2.png 1\n", "t.csv has no header: it begins with img/1.png 0", ""),
    "several classes that are 1": (
        "filename,cat,dog\n1.png,1,0\n2.png,1,1\n",
        "t.csv, line 3: several classes are 1: cat, dog",
        "one class",
    ),
    "no class that is 1": ("filename,cat,dog\n1.png,0,0\n", "t.csv, line 2: no class is 1", "one class"),
    "columns of numbers": ("filename,width,height\n1.png,8,8\n", "t.csv has no column of labels", "path,label"),
    "a missing number": (
        "path,label\n1.png,1.0\n2.png,nan\n",
        "t.csv, line 3: the label is nan, which stands for a missing value",
        "one label",
    ),
    "a missing text": (
        "path,label\n1.png,cat\n2.png,NaN\n3.png,dog\n",
        "t.csv, line 3: the label is NaN, which stands for a missing value",
        "one label",
    ),
    "a missing value of a database": (
        "path,label\n1.png,NULL\n2.png,dog\n",
        "t.csv, line 2: the label is NULL, which stands for a missing value",
        "one label",
    ),
    "a missing value of pandas": (
        "path,label\n1.png,cat\n2.png,<NA>\n",
        "t.csv, line 3: the label is <NA>, which stands for a missing value",
        "one label",
    ),
    "a file of two classes": (
        "path,label\n1.png,cat\n2.png,dog\n1.png,dog\n",
        "t.csv, line 4: 1.png is dog, but cat in line 2",
        "one label",
    ),
    "a quotation mark that is not closed": (
        'path,label\n1.png,"cat\n2.png,dog\n',
        "t.csv, line 3: unexpected end",
        "closed",
    ),
    "a quotation mark in the middle": (
        'path,label\n1.png,"cat"fish\n',
        "t.csv, line 2: ',' expected after",
        "closed",
    ),
    "a label of two lines": (
        'path,label\n1.png,"cat\n2.png,dog"\n',
        "t.csv, line 3: the label is of several lines",
        "",
    ),
    "a long label": (
        "path,label\n1.png," + "x" * 1001,
        "t.csv, line 2: the label has more than 1,000 char",
        "one",
    ),
    "a long line": ("path,label\n" + "x" * (2**20 + 1), "t.csv, line 2: more than 1,048,576 characters", "line"),
    "a workbook": (
        b"PK\x03\x04\x14\0\6\0",
        "t.csv is an Excel workbook (.xlsx) or another zip archive",
        "CSV UTF-8",
    ),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "t.csv is an Excel workbook (.xls)", "CSV UTF-8"),
    "a Parquet file": (
        b"PAR1\x15\x04",
        "t.csv is a Parquet file, not a table in a text file",
        "mv t.csv t.parquet",
    ),
    "a web page": ("<html><table>", "t.csv is a web page, not a table", "CSV UTF-8"),
    "zeros": (b"path,label\n\0\0\0\0\n", "t.csv is no text, not a table", "CSV UTF-8"),
    "half of UTF-16": ("path\tlabel\n".encode("utf-16") + b"x", "t.csv is not valid UTF-16", "CSV UTF-8"),
    "a drive": (
        "path,label\nC:\\img\\1.png,cat\n",
        "t.csv, line 2: no file C:\\img\\1.png in ",
        "Windows drives",
    ),
}


@posix
@pytest.mark.parametrize(("content", "message", "hint"), REFUSED_TABLES.values(), ids=REFUSED_TABLES)
def test_tables_with_no_certain_reading_are_refused(content: str | bytes, message: str, hint: str) -> None:
    touch("1.png", "2.png", "3.png")
    write("t.csv", content)
    error = refusal("t.csv")
    assert error.message.startswith(message)
    assert hint in (hint_of(error) or "")


def test_missing_files_in_a_table_are_an_error() -> None:
    touch("d/img/1.jpg", "img/2.jpg", "d/img/3.JPG", "d/img/4.jpg")
    write("d/t.csv", "path,label\nimg/1.jpg,a\nimg/2.jpg,b\nimg/5.jpg,b\n")
    error = refusal("d/t.csv")
    assert error.message == f"d/t.csv, line 3: no file img/2.jpg in {Path('d').absolute()}, and 1 more"
    assert hint_of(error) == "paths are relative to the table's folder, not to the current one: move the table"
    for written, hint in (
        ("img/3.jpg", "did you mean 3.JPG?"),
        ("img/4", "did you mean 4.jpg?"),
        ("img/5.jpg", "paths are relative to the table's folder"),
        ("no/5.jpg", "paths are relative to the table's folder"),
    ):
        write("d/t.csv", f"path,label\n{written},a\n")
        error = refusal("d/t.csv")
        assert error.message == f"d/t.csv, line 2: no file {written} in {Path('d').absolute()}"
        assert hint_of(error) == hint


def test_a_file_that_is_listed_twice_counts_twice() -> None:
    touch("1.png", "2.png")
    write("t.csv", "path,label\n1.png,cat\n2.png,dog\n1.png,cat\n")
    assert open_dataset("t.csv").splits["all"].counts().tolist() == [2, 1]


def allow_rows(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for module in (tables, parquet_tables):
        monkeypatch.setattr(module, "MAX_ROWS", count)


def test_tables_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(f"{number}.png" for number in range(4)))
    rows = [(f"{number}.png", "cat") for number in range(4)]
    write("t.csv", "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    pq.write_table(
        pa.table({"path": [path for path, _ in rows], "label": [label for _, label in rows]}), "t.parquet"
    )
    for name in ("t.csv", "t.parquet"):
        allow_rows(monkeypatch, 4)
        assert len(open_dataset(name).splits["all"]) == 4
        allow_rows(monkeypatch, 3)
        assert refusal(name).message == f"{name} has more than 3 rows"
    allow_rows(monkeypatch, 4)
    monkeypatch.setattr(tables, "MAX_PATHS", 19)
    assert refusal("t.csv").message == "t.csv has more than 19 characters of paths"
    monkeypatch.setattr(parquet_tables, "_MAX_COLUMN", 3)
    assert refusal("t.parquet").message.startswith("t.parquet: the column path has ")


@pytest.mark.slow
def test_many_rows_of_one_long_text_take_little_memory() -> None:
    touch("1.png")
    rows = pa.array([0] * 20_000, pa.int32())
    long = pa.DictionaryArray.from_arrays(rows, pa.array(["x" * 900]))
    path = pa.DictionaryArray.from_arrays(rows, pa.array(["./" * 400 + "1.png"]))
    pq.write_table(pa.table({"path": path, "label": long}), "t.parquet")
    assert Path("t.parquet").stat().st_size < 50_000
    assert open_dataset("t.parquet").classes == ("x" * 900,)
    labels = [label for _, _, label, _, _ in parquet_tables.parquet_cells(Path("t.parquet"))]
    assert len(labels) == 20_000
    assert len({id(label) for label in labels}) == 2, "one text in each batch of 10,000 rows"


def write_parquet(columns: Mapping[str, Any], name: str = "t.parquet") -> str:
    pq.write_table(pa.table(dict(columns)), name)
    return name


def test_parquet() -> None:
    touch("1.png", "2.png", "3.png")
    labels = pa.array(["dog", "cat", "dog"]).dictionary_encode()
    write_parquet(
        {"n": [1, 2, 3], "path": ["1.png", "2.png", "3.png"], "label": labels, "split": ["train", "test", "train"]}
    )
    assert listings(open_dataset("t.parquet")) == {
        "train": [("1.png", "dog"), ("3.png", "dog")],
        "test": [("2.png", "cat")],
    }


def test_parquet_of_numbers() -> None:
    touch("1.png", "2.png")
    write_parquet({"path": ["1.png", "2.png"], "label": [3.0, 20.0]})
    assert open_dataset("t.parquet").classes == ("3", "20")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["1.png", None], "label": ["a", "b"]}, "t.parquet, row 2: no path"),
        ({"path": ["1.png", "2.png"], "label": ["a", None]}, "t.parquet, row 2: no label"),
        ({"path": ["1.png"], "label": [0.5]}, "t.parquet, row 1: the label is 0.5"),
        ({"path": ["1.png"], "label": [["a", "b"]]}, "t.parquet: the column label holds list<element: string>"),
        ({"path": ["1.png"], "label": ["a"], "split": [None]}, "t.parquet, row 1: no split is called ''"),
        (
            {"image": [{"bytes": b"x", "path": "1.png"}], "label": [1]},
            "t.parquet holds the images themselves in its column image",
        ),
    ],
)
def test_bad_parquet_tables_are_refused(columns: Mapping[str, Any], message: str) -> None:
    write_parquet(columns)
    assert refusal("t.parquet").message == message


def test_a_damaged_parquet_file_is_refused() -> None:
    name = write_parquet({"path": ["1.png"], "label": ["a"]})
    data = Path(name).read_bytes()
    for damaged in (b"", b"text", data[:-9], data[:4] + b"\xff" * (len(data) - 8) + data[-4:]):
        Path(name).write_bytes(damaged)
        assert refusal(name).message.startswith("t.parquet is not a Parquet file, or damaged: ")


# --- the types ---


def test_examples_can_be_sent_to_other_processes() -> None:
    paint("d/cat/1.png", "d/dog/2.png")
    sent: Examples = pickle.loads(pickle.dumps(open_dataset("d").splits["all"]))
    assert listing(sent) == [("d/cat/1.png", "cat"), ("d/dog/2.png", "dog")]
    assert sent.read(1) == Path("d/dog/2.png").read_bytes()


def test_a_million_images_take_little_memory() -> None:
    folder = "train/n01440764/n01440764_"
    paths = TextsBuilder()
    paths.extend(f"{folder}{number}.JPEG" for number in range(10_000))
    built = paths.build()
    assert built[9_999] == f"{folder}9999.JPEG"
    assert [built[0], *built][:2] == [f"{folder}0.JPEG"] * 2
    assert len(built.data) + built.ends.nbytes < 10_000 * 50


def test_labels_and_limits() -> None:
    labeller = Labeller()
    for name in ("b", "a", "c", "a"):
        labeller.append(name)
    labels, names = labeller.build()
    assert (labels.tolist(), names) == ([1, 0, 2, 0], ("a", "b", "c"))
    marks = np.arange(64, dtype=np.uint8).reshape(4, 16)
    examples = Examples(store(), np.array([5, 6, 7, 8]), labels, names, marks=marks)
    limited = examples.limited_to(("c", "a"))
    assert limited.classes == ("c", "a")
    assert (limited.rows.tolist(), limited.labels.tolist()) == ([6, 7, 8], [1, 0, 1])
    assert limited.marks is not None
    assert limited.marks.tolist() == marks[1:].tolist()


def store() -> Any:
    return None  # nothing is read from it


def test_lists_of_names_are_short() -> None:
    assert shown(["a", "b\n"]) == "a, b\\n"
    assert shown(map(str, range(1200))) == "0, 1, 2, ... (1,200 in all)"
    assert shown(["a", "b"], 2) == "a, b"


# --- the first pass ---


def surveyed(location: str = "d", **options: Any) -> Survey:
    return survey(open_dataset(location), **options)


def notes(found: Survey) -> Iterator[str]:
    assert all("\n" not in note for note in found.notes)
    return iter(found.notes)


def many(folder: str, count: int = 40) -> list[str]:
    """Make as many images that one unreadable among them is no reason to refuse."""
    names = [f"{folder}/{number:03}.png" for number in range(count)]
    paint(*names)
    return names


def test_nothing_is_wrong() -> None:
    paint(
        "d/train/cat/1.png",
        "d/train/cat/2.png",
        "d/train/dog/3.png",
        "d/train/dog/4.png",
        "d/val/cat/5.png",
        "d/val/dog/6.png",
    )
    told = []
    found = surveyed(progress=lambda done, total: told.append((done, total)))
    assert (found.notes, found.unreadable) == ((), ())
    counts = {split: part.counts().tolist() for split, part in found.dataset.splits.items()}
    assert counts == {"train": [2, 2], "val": [1, 1]}
    assert told[-1] == (6, 6)


def test_unreadable_images_are_left_out() -> None:
    names = [*many("d/cat"), *many("d/dog")]
    write("d/cat/x0.png", b"")
    write("d/cat/x1.jpg", b"\xff\xd8\xff\xe0 and no more")
    write("d/dog/x2.jpg", b"<!DOCTYPE html><html>")
    found = surveyed()
    assert [(Path(failure.input).as_posix(), failure.kind, failure.message) for failure in found.unreadable] == [
        ("d/cat/x0.png", ErrorKind.EMPTY, "zero bytes"),
        ("d/cat/x1.jpg", ErrorKind.UNDECODABLE, "damaged image: Truncated File Read"),
        ("d/dog/x2.jpg", ErrorKind.UNDECODABLE, "not an image but a web page"),
    ]
    assert [name for name, _ in listings(found.dataset)["all"]] == names
    assert found.dataset.splits["all"].counts().tolist() == [40, 40]
    (note,) = notes(found)
    assert note.startswith("3 of 83 images cannot be read: cat/x0.png (zero bytes), cat/x1.jpg (damaged image: ")


def test_an_image_whose_body_is_damaged_is_left_out_in_the_first_pass() -> None:
    many("d/cat")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    jpeg, png = io.BytesIO(), io.BytesIO()
    noise.save(jpeg, "JPEG")
    noise.save(png, "PNG", compress_level=0)
    write("d/cat/cut.jpg", jpeg.getvalue()[:-500])
    data = bytearray(png.getvalue())
    data[data.index(b"IDAT") + 8] ^= 255  # the length of a block that is stored
    write("d/cat/flipped.png", bytes(data))
    told: list[str] = []
    found = surveyed(tell=lambda failure: told.append(failure.input))
    assert [Path(name).name for name in told] == ["cut.jpg", "flipped.png"]
    assert [failure.message for failure in found.unreadable] == [
        "damaged image: image file is truncated: rows are missing",
        "damaged image: broken data stream when reading image file",
    ]
    assert len(found.dataset.splits["all"]) == 40


@pytest.mark.slow
def test_processes_that_share_the_first_pass_all_find_what_one_would(tmp_path: Path) -> None:
    many("d/train/cat", 45)
    many("d/train/dog", 40)
    paint("d/val/cat/x.png", like="d/train/cat/003.png")
    write("d/train/dog/y.png", b"x")
    write("d/train/dog/z.png", b"x")
    alone = surveyed()
    met, shared = Barrier(3), {}

    def gather(index: int) -> Callable[[Scan], list[Scan]]:
        def of_all(own: Scan) -> list[Scan]:
            shared[index] = pickle.loads(pickle.dumps(own))
            met.wait()
            found = [shared[each] for each in range(3)]
            met.wait()
            return found

        return of_all

    def run(index: int) -> tuple[Survey, list[str], tuple[int, int]]:
        told: list[str] = []
        done: list[tuple[int, int]] = []
        sharing = Sharing(index, 3, gather(index))
        found = surveyed(
            sharing=sharing,
            tell=lambda failure: told.append(failure.input),
            progress=lambda count, total: done.append((count, total)),
        )
        return found, told, done[-1]

    with ThreadPoolExecutor(3) as processes:
        for found, told, last in processes.map(run, range(3)):
            assert (found.fingerprint, found.notes, found.unreadable) == (
                alone.fingerprint,
                alone.notes,
                alone.unreadable,
            )
            assert told == ["d/train/dog/y.png", "d/train/dog/z.png"]
            assert last == (88, 88)


def test_scan_returns_marks_and_failures_by_position() -> None:
    names = many("d/cat", 20)
    write("d/cat/010.png", b"x")
    write("d/cat/019.png", b"")
    counts: list[int] = []
    with Pool(2) as pool:
        looks = scan_images(open_dataset("d").splits["all"], pool, looked=counts.append)
    assert sorted(looks.failures) == [10, 19]
    assert (looks.failures[19].message, looks.marks[19].tolist()) == ("zero bytes", [0] * 16)
    assert looks.marks[11].tobytes() == mark_of_file(Path(names[11]).read_bytes())
    assert sum(counts) == 20


@pytest.mark.slow
def test_too_many_unreadable_images_are_refused() -> None:
    many("d/train/cat", 38)
    many("d/val/cat", 100)
    write("d/train/dog/x1.jpg", b"x")
    write("d/train/dog/x2.jpg", b"x")
    surveyed()  # 2 of 40 are just 5 %
    write("d/train/dog/x3.jpg", b"x")
    with pytest.raises(DataError) as caught:
        surveyed()
    assert caught.value.message.startswith(
        "3 of 41 images in train cannot be read: train/dog/x1.jpg (not an image), "
    )
    assert hint_of(caught.value) == "repair or remove them: up to 5% of a split is left out"


def test_images_of_too_many_pixels_are_left_out() -> None:
    many("d/cat")
    write("d/cat/large.png", bombs.png(20_000, 20_000))
    write("d/cat/large.tif", bombs.BOMBS["tiff"]())
    assert [(failure.kind, failure.message) for failure in surveyed().unreadable] == [
        (ErrorKind.TOO_LARGE, "400,000,000 pixels, more than 200,000,000"),
        (ErrorKind.TOO_LARGE, "3,600,000,000 pixels, more than 200,000,000"),
    ]


@posix
def test_pipes_and_broken_links_are_left_out() -> None:
    many("d/cat")
    os.mkfifo("d/cat/pipe.png")
    Path("d/cat/gone.png").symlink_to("nowhere")
    assert [failure.kind for failure in surveyed().unreadable] == [ErrorKind.NOT_FOUND, ErrorKind.UNREADABLE]


def test_rare_formats_are_read_too() -> None:
    paint("d/cat/1.png", "d/dog/2.png")
    for name in ("cat/3.webp", "dog/4.tif"):
        Image.new("RGB", (9, 9), "red").save(f"d/{name}")
    found = surveyed()
    assert found.dataset.splits["all"].counts().tolist() == [2, 2]
    assert found.unreadable == ()


def test_copies_across_splits_are_left_out_of_the_earlier() -> None:
    paint(
        "d/test/cat/t.png",
        "d/val/cat/v.png",
        "d/train/cat/1.png",
        "d/train/dog/2.png",
        "d/test/dog/o.png",
        "d/val/dog/p.png",
    )
    paint("d/train/cat/copy1.png", "d/val/cat/copy2.png", like="d/test/cat/t.png")
    paint("d/train/cat/copy3.png", like="d/val/cat/v.png")
    found = surveyed()
    assert listings(found.dataset) == {
        "train": [("d/train/cat/1.png", "cat"), ("d/train/dog/2.png", "dog")],
        "val": [("d/val/cat/v.png", "cat"), ("d/val/dog/p.png", "dog")],
        "test": [("d/test/cat/t.png", "cat"), ("d/test/dog/o.png", "dog")],
    }
    told = notes(found)
    assert (
        next(told)
        == "images of train that are also in val or test are left out: train/cat/copy1.png, train/cat/copy3.png"
    )
    assert next(told) == "images of val that are also in test are left out: val/cat/copy2.png"


def test_copies_within_a_split_are_reported() -> None:
    paint("d/cat/1.png", "d/cat/2.png", "d/dog/3.png", "d/dog/4.png")
    paint("d/cat/5.png", "d/cat/6.png", like="d/cat/2.png")
    found = surveyed()
    assert list(notes(found)) == ["copies of other images, which count several times: cat/5.png, cat/6.png"]
    assert found.dataset.splits["all"].counts().tolist() == [4, 2]
    names = [name for name, _ in listings(found.dataset)["all"]]
    assert marks(found.dataset.splits["all"]) == [mark_of_file(Path(name).read_bytes()) for name in names]
    assert len({*marks(found.dataset.splits["all"])}) == 4


@pytest.mark.parametrize(
    ("ending", "options"), [("bmp", {}), ("png", {"optimize": True}), ("webp", {"lossless": True})]
)
def test_the_same_picture_in_another_file_is_a_copy(ending: str, options: dict[str, Any]) -> None:
    paint("d/train/cat/1.png", "d/train/cat/2.png", "d/train/dog/3.png", "d/test/dog/4.png")
    Image.open("d/test/dog/4.png").save(f"d/train/dog/5.{ending}", **options)
    assert (
        next(notes(surveyed()))
        == f"images of train that are also in val or test are left out: train/dog/5.{ending}"
    )


def test_files_that_differ_only_at_their_ends_are_no_copies() -> None:
    paint("d/cat/1.bmp", "d/dog/2.bmp", "d/dog/5.bmp")
    for name, pixel in (("cat/3", 1), ("cat/4", 2)):
        image = Image.new("RGB", (200, 200))
        image.putpixel((0, 0), (pixel, 0, 0))
        image.save(f"d/{name}.bmp")
    assert surveyed().notes == ()


def test_image_in_two_classes_is_reported() -> None:
    paint("d/cat/1.png", "d/cat/2.png", "d/dog/3.png", "d/dog/4.png")
    paint("d/dog/5.png", like="d/cat/1.png")
    found = surveyed()
    assert next(notes(found)) == "the same image is in two classes: cat/1.png = dog/5.png"


def test_classes_with_few_images_are_reported() -> None:
    paint("d/train/cat/1.png", "d/train/cat/2.png", "d/train/dog/3.png", "d/train/dog/4.png", "d/train/one/5.png")
    paint("d/val/cat/6.png", "d/val/new/7.png")
    assert list(notes(surveyed())) == [
        "classes with a single image in train, too few to learn from: one",
        "classes of val that train lacks: new",
        "classes without an image in val: dog, one",
    ]


def test_different_data_sets_have_different_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("d/cat/1.png", "d/cat/2.png", "d/dog/3.png")
    first = surveyed().fingerprint
    assert surveyed(str(tmp_path / "d")).fingerprint == first
    assert surveyed("./d/").fingerprint == first
    Path("d").rename("e")
    assert surveyed("e").fingerprint == first
    monkeypatch.chdir("e")
    assert surveyed(".").fingerprint == first
    Path("cat/1.png").rename("cat/4.png")
    assert surveyed(".").fingerprint != first
    Path("cat/4.png").rename("cat/1.png")
    assert surveyed(".").fingerprint == first
    Path("cat/2.png").rename("dog/2.png")
    assert surveyed(".").fingerprint != first
    Path("dog/2.png").rename("cat/2.png")
    data = Path("cat/2.png").read_bytes()
    Image.open(io.BytesIO(data)).save("cat/2.png", compress_level=0)
    assert surveyed(".").fingerprint == first, "another file, the same picture"
    changed = Image.open(io.BytesIO(data))
    red, green, blue = changed.getpixel((3, 3))  # type: ignore[misc]
    changed.putpixel((3, 3), (red, green, blue ^ 1))
    changed.save("cat/2.png")
    assert surveyed(".").fingerprint != first, "another picture under the same name"


@pytest.mark.slow
def test_workers_find_the_same() -> None:
    many("d/cat", 150)
    many("d/dog", 150)
    paint("d/dog/x.png", like="d/cat/000.png")
    write("d/dog/y.png", b"x")
    one, four = surveyed(workers=1), surveyed(workers=4)
    assert one.fingerprint == four.fingerprint
    assert (one.notes, one.unreadable) == (four.notes, four.unreadable)


# --- splits ---


def test_given_splits_are_kept() -> None:
    paint(*(f"d/{split}/{name}/{split}.png" for split in ("train", "val", "test") for name in ("cat", "dog")))
    dataset = open_dataset("d")
    divided = split_dataset(dataset)
    assert listing(divided.train) == listing(dataset.splits["train"])
    assert listing(divided.val) == listing(dataset.splits["val"])
    assert listing(divided.test) == listing(dataset.splits["test"])


def test_a_test_set_chooses_nothing() -> None:
    paint(*(f"d/{split}/{name}/{split}.png" for split in ("train", "test") for name in ("cat", "dog")))
    divided = split_dataset(open_dataset("d"))
    assert divided.val is None
    assert listing(divided.test) == [("d/test/cat/test.png", "cat"), ("d/test/dog/test.png", "dog")]
    assert len(divided.train) == 2


@pytest.mark.parametrize("folder", ["d", "d/train"])
def test_a_whole_is_split_by_class(folder: str) -> None:
    for name, count in {"many": 50, "few": 7, "two": 2, "one": 1}.items():
        many(f"{folder}/{name}", count)
    divided = split_dataset(open_dataset("d"), fraction=0.2)
    assert divided.val is not None
    assert divided.test is None
    assert divided.train.classes == ("few", "many", "one", "two")
    assert divided.train.counts().tolist() == [6, 40, 1, 1]
    assert divided.val.counts().tolist() == [1, 10, 0, 1]
    assert not {*listing(divided.train)} & {*listing(divided.val)}
    assert {*listing(divided.train)} | {*listing(divided.val)} == {
        *listing(next(iter(open_dataset("d").splits.values())))
    }


@pytest.mark.slow
def test_a_split_depends_on_names_and_seed_alone() -> None:
    names = [*many("cat"), *many("dog")]
    rows = [(name, name.split("/")[0]) for name in names]

    def validation(seed: int = 0, *, order: int = 1) -> set[tuple[str, str]]:
        with open("t.csv", "w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *rows[::order]])
        return {*listing(split_dataset(survey(open_dataset("t.csv")).dataset, seed=seed).val)}

    assert len(validation()) == 16
    assert validation() == validation(order=-1)
    assert validation() != validation(seed=1)


def test_copies_stay_on_one_side() -> None:
    for number in range(30):
        paint(f"d/{'cat' if number % 2 else 'dog'}/{number}.png")
        paint(
            *(f"d/{'cat' if number % 2 else 'dog'}/{number}-{copy}.png" for copy in "abc"),
            like=f"d/{'cat' if number % 2 else 'dog'}/{number}.png",
        )
    divided = split_dataset(surveyed().dataset)
    assert divided.val is not None
    assert not {*marks(divided.train)} & {*marks(divided.val)}
    assert divided.val.counts().tolist() == [12, 12]


def test_classes_that_train_lacks_are_left_out() -> None:
    paint("d/train/cat/1.png", "d/train/dog/2.png", "d/val/ant/3.png", "d/val/dog/4.png", "d/test/bee/5.png")
    divided = split_dataset(open_dataset("d"))
    assert divided.train.classes == ("cat", "dog")
    assert divided.train.labels.tolist() == [0, 1]
    assert divided.val is not None
    assert (divided.val.classes, divided.val.labels.tolist()) == (("cat", "dog"), [1])
    assert divided.test is None
    assert divided.notes == (
        "images of val that are left out, as train lacks their classes: 1",
        "images of test that are left out, as train lacks their classes: 1",
    )


def test_one_class_is_refused() -> None:
    paint("d/train/cat/1.png", "d/train/cat/2.png", "d/val/dog/3.png")
    with pytest.raises(DataError, match=r"^d has images of cat alone$"):
        split_dataset(open_dataset("d"))


def test_no_train_is_refused() -> None:
    paint("d/val/cat/1.png", "d/test/dog/2.png")
    with pytest.raises(DataError, match=r"^d has no images to train on, only val, test$"):
        split_dataset(open_dataset("d"))


# --- the table of classes ---


def counted(classes: int, format_name: str = "table") -> str:
    rows = [f"{number}.png,c{number:02},{split}" for number in range(classes) for split in ("train", "test")]
    touch("x.png", *(row.partition(",")[0] for row in rows))
    write("t.csv", "\n".join(["path,label,split", *rows, "x.png,c00,train"]))
    dataset = open_dataset("t.csv")
    counts = {split: examples.counts() for split, examples in dataset.splits.items()}
    stream = io.StringIO()
    write_counts(dataset.classes, counts, stream, format_name)
    return stream.getvalue()


def test_table_of_few_classes() -> None:
    lines = [line.split() for line in counted(2).splitlines()]
    assert ["class", "train", "test"] in lines
    assert lines[-4:] == [["c00", "2", "1"], ["c01", "1", "1"], ["all", "2", "classes", "3", "2"], []]


def test_table_of_many_classes_is_short() -> None:
    lines = [line.split() for line in counted(25).splitlines()]
    assert lines[-4:] == [
        ["c19", "1", "1"],
        ["5", "more", "classes", "5", "5"],
        ["all", "25", "classes", "26", "25"],
        [],
    ]


def test_data_formats_have_every_class_and_no_sums() -> None:
    rows = json.loads(counted(25, "json"))
    assert rows[0] == {"class": "c00", "train": 2, "test": 1}
    assert [row["class"] for row in rows] == [f"c{number:02}" for number in range(25)]


@pytest.mark.slow
def test_other_processes_read_the_same() -> None:
    names = [*many("d/cat", 10), *many("d/dog", 10)]
    examples = open_dataset("d").splits["all"]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(examples.read, range(20))) == [Path(name).read_bytes() for name in names]
