"""Labelled images in tar files, and in data sets of Hugging Face's `datasets`."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import shutil
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.datasets import webdataset
from resnetd_cli.datasets.examples import Dataset, Examples
from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.datasets.splits import split_dataset
from resnetd_cli.datasets.survey import survey
from resnetd_cli.errors import DataError, ErrorKind, InputError

CLASSES = ("bee", "cat", "dog")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def png(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(data, "PNG")
    return data.getvalue()


def write_tar(path: str, members: dict[str, bytes], *, mode: str = "w", **options: Any) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, **options) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def samples(count: int, start: int = 0) -> dict[str, bytes]:
    """Return images and their labels, which are their numbers modulo 3."""
    members = {}
    for number in range(start, start + count):
        members[f"{number:04}.png"] = png(number)
        members[f"{number:04}.cls"] = str(number % 3).encode()
    return members


def listing(examples: Examples) -> list[tuple[str, str]]:
    return [(Path(examples.name(at)).as_posix(), examples.class_name(at)) for at in range(len(examples))]


def listings(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    return {split: listing(examples) for split, examples in dataset.splits.items()}


def refusal(location: str, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(location, **options)
    assert hint_of(caught.value)
    assert "\n" not in caught.value.message
    return caught.value


# --- tar files ---


def test_splits_by_the_names_of_shards() -> None:
    write_tar("w/birds-train-0000.tar", samples(3))
    write_tar("w/birds-train-0001.tar", samples(3, start=3))
    write_tar("w/birds-validation-0000.tar", samples(2, start=6))
    dataset = open_dataset("wds/w")
    assert listings(dataset) == {
        "train": [
            *[(f"w/birds-train-0000.tar/000{number}.png", str(number % 3)) for number in (0, 1, 2)],
            *[(f"w/birds-train-0001.tar/000{number}.png", str(number % 3)) for number in (3, 4, 5)],
        ],
        "val": [(f"w/birds-validation-0000.tar/000{number}.png", str(number % 3)) for number in (6, 7)],
    }
    for examples, start in ((dataset.splits["train"], 0), (dataset.splits["val"], 6)):
        assert [examples.read(at) for at in range(len(examples))] == [
            png(start + at) for at in range(len(examples))
        ]


@pytest.mark.parametrize(
    "place", ["w/part-{000..002}.tar", "w/part-{000,001,002}.tar", "w", "{v,w}/part-00{0..2}.tar"]
)
def test_braces(place: str) -> None:
    for number in range(3):
        write_tar(f"w/part-{number:03}.tar", samples(1, start=number))
        write_tar(f"v/part-{number:03}.tar", samples(1, start=number))
    expected = [(f"w/part-{number:03}.tar/{number:04}.png", str(number)) for number in range(3)]
    if place.startswith("{"):
        expected = [(name.replace("w/", "v/"), label) for name, label in expected] + expected
    assert listings(open_dataset(f"WDS/{place}")) == {"all": expected}


def test_info_file_gives_splits_and_classes() -> None:
    write_tar("w/a.tar", samples(3))
    write_tar("w/b.tar", samples(2, start=3))
    write_tar("w/unlisted.tar", samples(2, start=5))
    splits = {
        "validation": {"name": "validation", "filenames": ["b.tar"], "shard_lengths": [2], "num_samples": 2},
        "train": {"name": "train", "filenames": ["a.tar"], "shard_lengths": [3], "num_samples": 3},
    }
    Path("w/_info.json").write_text(json.dumps({"splits": splits, "class_names": [*CLASSES, "eel"]}))
    dataset = open_dataset("wds/w")
    assert dataset.classes == (*CLASSES, "eel")
    assert {split: [label for _, label in found] for split, found in listings(dataset).items()} == {
        "train": ["bee", "cat", "dog"],
        "val": ["bee", "cat"],
    }


def test_class_names_beside_the_shards() -> None:
    write_tar("w/x.tar", samples(3))
    Path("w/classnames.txt").write_text("bee\ncat\ndog\n")
    assert open_dataset("wds/w").classes == CLASSES
    Path("w/classnames.txt").write_text("bee\ncat\n")
    assert refusal("wds/w").message == "labels for which 2 class names have no place: 2"


def test_labels_of_all_kinds() -> None:
    members = {
        "a/1.JPG": png(1),
        "a/1.cls": b" dog\n",
        "a/2.webp": png(2),
        "a/2.json": json.dumps({"label": "cat", "width": 8}).encode(),
        "a/2.txt": b"a caption",
        "b/2.jpeg": png(3),
        "b/2.json": b'{"label": "dog"}',
        "b/2.seg.png": png(4),
        "b/2.notes.json": b"{",
        "./e/7.tiff": png(5),
        "./e/7.cls": b"cat",
        "._c/5.png": png(6),
        "c/._5.png": png(6),
    }
    write_tar("x.tar", members)
    dataset = open_dataset("wds/x.tar")
    assert listings(dataset) == {
        "all": [
            ("x.tar/a/1.JPG", "dog"),
            ("x.tar/a/2.webp", "cat"),
            ("x.tar/b/2.jpeg", "dog"),
            ("x.tar/e/7.tiff", "cat"),
        ]
    }
    assert [dataset.splits["all"].read(at) for at in range(3)] == [png(1), png(2), png(3)]
    assert dataset.notes == ()


def test_names_with_dots_belong_together_up_to_the_last() -> None:
    write_tar(
        "x.tar", {"IMG.1.jpg": png(1), "IMG.1.cls": b"a", "IMG.2.jpg": png(2), "IMG.2.json": b'{"label": "b"}'}
    )
    assert listings(open_dataset("wds/x.tar")) == {"all": [("x.tar/IMG.1.jpg", "a"), ("x.tar/IMG.2.jpg", "b")]}
    write_tar("x.tar", {"1.cls": b"a", "1.rgb.jpg": png(1), "2.cls": b"b", "2.depth.png": png(3), "2.jpg": png(2)})
    assert listings(open_dataset("wds/x.tar")) == {"all": [("x.tar/1.rgb.jpg", "a"), ("x.tar/2.jpg", "b")]}
    write_tar(
        "x.tar", {"1.cls": b"a", "1.jpg": png(0), "2.cls": b"a", "2.left.jpg": png(1), "2.right.jpg": png(2)}
    )
    assert refusal("wds/x.tar").message == (
        "images without a label beside others with labels: x.tar/2.left.jpg, x.tar/2.right.jpg"
    )


def test_images_or_labels_alone_stop_the_run() -> None:
    write_tar("x.tar", {"1.jpg": png(1), "1.cls": b"a", "2.jpg": png(2), "3.jpg": png(3), "3.json": b'{"x": 1}'})
    assert refusal("wds/x.tar").message == (
        "images without a label beside others with labels: x.tar/2.jpg, x.tar/3.jpg"
    )
    write_tar("x.tar", {"1.jpg": png(1), "1.cls": b"a", "2.cls": b"b", "2.npy": b"x"})
    assert refusal("wds/x.tar").message == "x.tar: a label without an image: 2.cls, 2.npy"


def test_a_split_without_labels_is_left_out() -> None:
    write_tar("w/train-0.tar", samples(3))
    write_tar("w/test-0.tar", {"1.jpg": png(1), "2.jpg": png(2)})
    dataset = open_dataset("wds/w")
    assert [*dataset.splits] == ["train"]
    assert dataset.notes == ("test is left out: its 2 images have no labels",)
    assert refusal("wds/w/test-0.tar").message == "wds/w/test-0.tar has no labelled images"


def test_names_of_classes_are_labels_too() -> None:
    write_tar("w/x.tar", {"1.jpg": png(1), "1.cls": b"dog", "2.jpg": png(2), "2.cls": b"bee"})
    Path("w/classnames.txt").write_text("bee\ncat\ndog\n")
    assert [label for _, label in listings(open_dataset("wds/w"))["all"]] == ["dog", "bee"]
    write_tar("w/x.tar", {"1.jpg": png(1), "1.cls": b"1", "2.jpg": png(2), "2.cls": b"2"})
    Path("w/classnames.txt").write_text("1\n2\n3\n")
    assert refusal("wds/w").message == "labels that are both names of classes and numbers of others: 1, 2"
    Path("w/classnames.txt").write_text("0\n1\n2\n")
    assert [label for _, label in listings(open_dataset("wds/w"))["all"]] == ["1", "2"]


def test_descriptions_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar("w/x.tar", {"1.jpg": png(1), "1.json": b"[" * 200_000})
    assert refusal("wds/w").message == "w/x.tar/1.json: nested too deep"
    write_tar("w/x.tar", {"1.jpg": png(1), "1.json": b" " * (2**20 + 1)})
    assert refusal("wds/w").message == "w/x.tar/1.json: more than 1,048,576 bytes for a label"
    write_tar("w/x.tar", {"1.jpg": png(1), "1.cls": b"x" * 1001})
    assert refusal("wds/w").message == "w/x.tar/1.cls: the label has more than 1,000 characters"
    Path("w/_info.json").write_text("[" * 200_000)
    assert refusal("wds/w").message == "cannot read w/_info.json: nested too deep"
    monkeypatch.setattr(webdataset, "_MAX_INFO", 9)
    assert refusal("wds/w").message == "cannot read w/_info.json: more than 9 bytes"


@pytest.mark.parametrize(
    ("name", "label", "reason"),
    [
        ("1.json", b'{"label": [1, 2]}', "the label is [1, 2]"),
        ("1.json", b'{"label": "a\\nb"}', "the label is of several lines"),
        ("1.json", b'{"label": true}', "the label is True"),
        ("1.json", b"{", "Expecting property name"),
        ("1.cls", b" ", "no label"),
        ("1.cls", b"\xff\xfe", "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_bad_labels_are_refused(name: str, label: bytes, reason: str) -> None:
    write_tar("x.tar", {"1.png": png(1), name: label})
    assert refusal("wds/x.tar").message.startswith(f"x.tar/{name}: {reason}")


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_kind_of_tar(format_: int) -> None:
    key = "/".join(["long" * 10] * 3)
    write_tar("x.tar", {f"{key}.png": png(7), f"{key}.cls": b"1"}, format=format_)
    examples = open_dataset("wds/x.tar").splits["all"]
    assert listing(examples) == [(f"x.tar/{key}.png", "1")]
    assert examples.read(0) == png(7)


def damaged(data: bytes) -> dict[str, bytes]:
    header = data.index(b"0002.png")
    return {
        "cut in an image": data[: header + 512 + 20],
        "cut in a header": data[: header + 100],
        "cut at a header": data[:header],
        "a damaged header": data[: header + 20] + b"\xff" * 20 + data[header + 40 :],
        "nothing": b"",
        "text": b"no tar" * 1000,
        "an impossible size": data[: header + 124] + b"77777777777\0" + data[header + 136 :],
    }


@pytest.mark.parametrize("how", list(damaged(b"0002.png")))
def test_damaged_tars_are_refused(how: str) -> None:
    path = Path(write_tar("x.tar", samples(5)))
    path.write_bytes(damaged(path.read_bytes())[how])
    assert refusal("wds/x.tar").message.startswith("x.tar is not an uncompressed tar file, or damaged: ")


def test_compressed_tars_are_refused() -> None:
    write_tar("x.tar", samples(5), mode="w:gz")
    assert refusal("wds/x.tar").message.startswith("x.tar is not an uncompressed tar file, or damaged: ")


def test_no_shards() -> None:
    Path("w").mkdir()
    assert refusal("wds/w").message == "no tar files in w"
    assert refusal("wds/none.tar").message == "cannot read none.tar: no such file or directory"
    write_tar("w/x.tar", {"1.txt": b"x"})
    assert refusal("wds/w").message == "wds/w has no labelled images"
    assert refusal("wds/w/{0..99999}{0..99999}.tar").message.endswith("stands for 10,000,000,000 files")
    write_tar("w/train.tar", samples(1))
    assert refusal("wds/w").message == "tar files with and without a split in their names: w/x.tar"
    Path("w/_info.json").write_text('{"splits": {"train": 3}}')
    assert refusal("wds/w").message == "w/_info.json does not tell the tar files of each split"
    Path("w/_info.json").write_text("{")
    assert refusal("wds/w").message.startswith("cannot read w/_info.json: ")


def test_a_shard_that_shrank_costs_its_images_alone() -> None:
    path = Path(write_tar("x.tar", samples(5)))
    examples = open_dataset("wds/x.tar").splits["all"]
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"0003.png")])
    assert examples.read(2) == png(2)
    with pytest.raises(InputError) as caught:
        examples.read(3)
    assert (caught.value.kind, caught.value.message) == (ErrorKind.UNREADABLE, "the tar file ends early")
    path.unlink()
    with pytest.raises(InputError) as caught:
        examples.read(0)
    assert caught.value.kind == ErrorKind.NOT_FOUND


def test_empty_images_are_left_out_by_the_first_pass() -> None:
    write_tar("x.tar", {**samples(60), "0100.png": b"", "0100.cls": b"0", "0101.png": b"no", "0101.cls": b"1"})
    found = survey(open_dataset("wds/x.tar"))
    assert [(failure.input, failure.kind) for failure in found.unreadable] == [
        ("x.tar/0100.png", ErrorKind.EMPTY),
        ("x.tar/0101.png", ErrorKind.UNDECODABLE),
    ]
    divided = split_dataset(found.dataset)
    assert divided.val is not None
    assert (divided.train.counts().tolist(), divided.val.counts().tolist()) == ([16] * 3, [4] * 3)


def test_many_threads_and_processes_read_the_same() -> None:
    write_tar("x.tar", samples(100))
    examples: Examples = pickle.loads(pickle.dumps(open_dataset("wds/x.tar").splits["all"]))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(examples.read, [*range(100)] * 5)) == [png(number) for number in range(100)] * 5


@pytest.mark.slow
def test_an_index_of_many_images_takes_little_memory() -> None:
    write_tar(
        "x.tar", {f"n01440764/{number:08}.{ending}": b"1" for number in range(5_000) for ending in ("jpg", "cls")}
    )
    open_dataset("wds/x.tar")  # imports
    tracemalloc.start()
    dataset = open_dataset("wds/x.tar")
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset.splits["all"]) == 5_000
    assert kept < 5_000 * 120
    assert most < 5_000 * 400


def test_shards_of_the_webdataset_package() -> None:
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter("w-train-%04d.tar", maxcount=3, verbose=0) as writer:
        for number in range(8):
            writer.write({"__key__": f"k/{number}", "png": png(number), "cls": number % 3})
    assert sorted(Path().glob("*.tar")) == [Path(f"w-train-000{shard}.tar") for shard in range(3)]
    examples = open_dataset("wds/w-train-{0000..0002}.tar").splits["train"]
    assert [examples.class_name(at) for at in range(8)] == [str(number % 3) for number in range(8)]
    assert [examples.read(at) for at in range(8)] == [png(number) for number in range(8)]


# --- Hugging Face's datasets ---


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, with its cache in a folder of its own, and no hub."""
    module = pytest.importorskip("datasets")
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    return module


def make_folder(*names: str) -> dict[str, bytes]:
    made = {}
    for number, name in enumerate(names):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
        made[str(path.absolute())] = png(number)
    return made


def examples_of(datasets: Any, labels: list[Any], kind: Any, start: int = 0) -> Any:
    images = [{"bytes": png(start + number), "path": f"{start + number}.png"} for number in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.mark.slow
def test_a_folder_that_datasets_reads(datasets: Any) -> None:
    made = make_folder("d/train/dog/1.png", "d/train/cat/2.png", "d/validation/cat/3.png", "d/test/dog/4.png")
    dataset = open_dataset("hfds/d")
    top = Path("d").absolute().as_posix()
    assert listings(dataset) == {
        "train": [(f"{top}/train/cat/2.png", "cat"), (f"{top}/train/dog/1.png", "dog")],
        "val": [(f"{top}/validation/cat/3.png", "cat")],
        "test": [(f"{top}/test/dog/4.png", "dog")],
    }
    for examples in dataset.splits.values():
        for at in range(len(examples)):
            assert examples.read(at) == made[examples.name(at)]
    assert survey(dataset).dataset.splits["train"].counts().tolist() == [1, 1]


@pytest.mark.slow
def test_parquet_with_images(datasets: Any) -> None:
    kind = datasets.ClassLabel(names=list(CLASSES))
    Path("d").mkdir()
    examples_of(datasets, [2, 0, 1], kind).to_parquet("d/train-00000-of-00001.parquet")
    examples_of(datasets, [1, 1], kind, start=3).to_parquet("d/test-00000-of-00001.parquet")
    dataset = open_dataset("HFDS/d")
    assert dataset.classes == CLASSES
    assert listings(dataset) == {
        "train": [
            ("HFDS/d/train/0/0.png", "dog"),
            ("HFDS/d/train/1/1.png", "bee"),
            ("HFDS/d/train/2/2.png", "cat"),
        ],
        "test": [("HFDS/d/test/0/3.png", "cat"), ("HFDS/d/test/1/4.png", "cat")],
    }
    assert [dataset.splits["test"].read(at) for at in range(2)] == [png(3), png(4)]
    alone = open_dataset("hfds/d/test-00000-of-00001.parquet")
    assert [label for _, label in listings(alone)["train"]] == ["cat", "cat"]


@pytest.mark.slow
def test_what_save_to_disk_writes(datasets: Any) -> None:
    kind = datasets.ClassLabel(names=list(CLASSES))
    parts = {
        "train": examples_of(datasets, [2, 0, 1], kind),
        "unsupervised": examples_of(datasets, [0], kind),
        "test": examples_of(datasets, [2, 1], kind, start=3),
        "validation": examples_of(datasets, [-1, -1], kind, start=5),
    }
    datasets.DatasetDict(parts).save_to_disk("d")
    dataset = open_dataset("hfds/d")
    assert {split: [label for _, label in found] for split, found in listings(dataset).items()} == {
        "train": ["dog", "bee", "cat"],
        "test": ["dog", "cat"],
    }
    assert dataset.splits["test"].read(1) == png(4)
    assert dataset.notes == (
        "val is left out: its 2 images have no labels",
        "other splits are left out: unsupervised",
    )
    parts["train"].shuffle(seed=3).save_to_disk("one")
    one = open_dataset("hfds/one").splits["train"]
    assert sorted((one.read(at), one.class_name(at)) for at in range(3)) == sorted(
        [(png(0), "dog"), (png(1), "bee"), (png(2), "cat")]
    )


def test_labels_that_are_texts_or_numbers(datasets: Any) -> None:
    texts, numbers = datasets.Value("string"), datasets.Value("int64")
    parts = {
        "train": examples_of(datasets, [" dog", "bee"], texts),
        "test": examples_of(datasets, ["cat", "bee"], texts, start=3),
    }
    datasets.DatasetDict(parts).save_to_disk("texts")
    dataset = open_dataset("hfds/texts")
    assert dataset.classes == CLASSES
    assert {split: examples.labels.tolist() for split, examples in dataset.splits.items()} == {
        "train": [2, 0],
        "test": [1, 0],
    }
    for labels, reason in (
        (["dog", None, "bee"], ", train, row 2: no label"),
        (["dog", ""], ", column label: no label"),
    ):
        examples_of(datasets, labels, texts).save_to_disk("lost")
        assert refusal("hfds/lost").message == f"hfds/lost{reason}"
        shutil.rmtree("lost")
    examples_of(datasets, [10, 9, 10], numbers).save_to_disk("numbers")
    assert open_dataset("hfds/numbers").classes == ("9", "10")


@pytest.mark.slow
def test_data_sets_that_do_not_fit_are_refused(datasets: Any) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}).save_to_disk("no_images")
    assert refusal("hfds/no_images").message == "hfds/no_images has no column of images, only text, label"
    examples_of(datasets, [0], datasets.Value("int64")).remove_columns("label").save_to_disk("no_labels")
    assert refusal("hfds/no_labels").message == "hfds/no_labels has no column of labels, only image"
    examples_of(datasets, [[0]], datasets.List(datasets.Value("int64"))).save_to_disk("lists")
    assert refusal("hfds/lists").message == "hfds/lists, column label: the label is [0]"
    one = examples_of(datasets, [0], datasets.ClassLabel(names=["a"]))
    datasets.DatasetDict({"other": one}).save_to_disk("other")
    assert refusal("hfds/other").message == "hfds/other has no split train, val or test, only other"
    two = examples_of(datasets, [0], datasets.ClassLabel(names=["b"]))
    datasets.DatasetDict({"train": one, "test": two}).save_to_disk("two")
    assert refusal("hfds/two").message == "hfds/two, column label: the splits do not have the same classes"


def test_data_set_that_cannot_be_loaded_is_an_error(datasets: Any) -> None:
    assert refusal("hfds/no/such").message.startswith("cannot load the data set no/such: ")
    Path("empty").mkdir()
    assert refusal("hfds/empty").message.startswith("cannot load the data set empty: ")


def test_hugging_face_images_can_be_sent_to_other_processes(datasets: Any) -> None:
    examples_of(datasets, [0, 1], datasets.ClassLabel(names=["a", "b"])).save_to_disk("d")
    sent: Examples = pickle.loads(pickle.dumps(open_dataset("hfds/d").splits["train"]))
    assert (sent.read(1), listing(sent)) == (
        png(1),
        [("hfds/d/train/0/0.png", "a"), ("hfds/d/train/1/1.png", "b")],
    )


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    error = refusal("hfds/d")
    assert (error.message, hint_of(error)) == ("hfds/d needs another package", "pip install 'resnetd[hfds]'")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize(
    ("pipe", "named", "message"),
    [
        ("t.csv", "t.csv", "is a pipe or a device"),
        ("t.parquet", "t.parquet", "is a pipe or a device"),
        ("a.tar", "wds/{}", "a.tar: not a file"),
        ("_info.json", "wds/{}", "not a file"),
    ],
)
def test_a_pipe_in_place_of_a_table_or_a_shard_is_not_waited_for(
    pipe: str, named: str, message: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / pipe)
    location = named.format(tmp_path) if "{}" in named else str(tmp_path / named)
    with pytest.raises(DataError, match=message):
        open_dataset(location)
