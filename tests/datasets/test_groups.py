"""Groups: images that stay on one side of every split, and the splits that this makes."""

from __future__ import annotations

import csv
import hashlib
import pickle
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.pictures import photograph
from PIL import Image

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.datasets.examples import Dataset, Examples
from resnetd_cli.datasets.groups import grouped_by, united
from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.datasets.split_table import write_split
from resnetd_cli.datasets.splits import TrainValTest, split_dataset
from resnetd_cli.datasets.survey import Survey, survey
from resnetd_cli.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Names:
    """Images that have names alone."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def name(self, row: int) -> str:
        return self._names[row]

    def read(self, row: int, options: object = None) -> bytes:
        raise NotImplementedError

    open = read


def images(classes: dict[str, list[str]], order: int = 1) -> Dataset:
    """Return a data set of images `CLASS/NAME`."""
    names = tuple(sorted(classes))
    every = [(f"{name}/{image}", index) for index, name in enumerate(names) for image in classes[name]][::order]
    labels = np.array([label for _, label in every], np.int64)
    examples = Examples(Names([name for name, _ in every]), np.arange(len(every)), labels, names)  # type: ignore[arg-type]
    return Dataset("d", {"all": examples})


def in_clusters(dataset: Dataset, pattern: str) -> Dataset:
    """Return the data set with its groups as clusters, as a survey would leave it."""
    grouped = grouped_by(dataset, pattern).splits["all"]
    assert grouped.groups is not None
    clusters = united(len(grouped), np.zeros((0, 2), np.int64), [grouped.groups])
    return replace(dataset, splits={"all": replace(grouped, clusters=clusters)})


def names_of(examples: Examples | None) -> set[str]:
    assert examples is not None
    return {examples.name(position) for position in range(len(examples))}


def groups_of(examples: Examples | None) -> set[str | None]:
    assert examples is not None
    return {examples.group_name(position) for position in range(len(examples))}


# --- the split without groups ---


def former_split(classes: dict[str, list[str]], fraction: float, seed: int) -> set[str]:
    """Return the images of val by the rule where there are no groups: the first of each class by hash."""
    held = set()
    for name, images in classes.items():

        def key(image: str, name: str = name) -> int:
            digest = hashlib.blake2b(f"{seed}\0{name}/{image}".encode(), digest_size=8).digest()
            return int.from_bytes(digest, "little", signed=True)

        count = min(len(images) - 1, max(1, round(fraction * len(images))))
        held |= {f"{name}/{image}" for image in sorted(images, key=key)[:count]}
    return held


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_groups_the_first_by_hash_of_each_class_are_held_out(fraction: float, seed: int) -> None:
    sizes = [*np.random.default_rng(seed).integers(1, 60, 20).tolist(), 1, 2, 3]
    classes = {f"c{index:02}": [f"{image}.png" for image in range(size)] for index, size in enumerate(sizes)}
    expected = former_split(classes, fraction, seed)
    for order in (1, -1):
        divided = split_dataset(images(classes, order), fraction=fraction, seed=seed)
        assert names_of(divided.val) == expected
        assert divided.notes == ()


# --- the split with groups ---

PEOPLE = {
    f"c{index}": [f"p{person:02}_{index}{shot}.png" for person in range(20) for shot in range(person % 4 + 1)]
    for index in range(3)
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_groups_over_several_classes_stay_together_and_shares_are_kept(seed: int, fraction: float) -> None:
    divided = split_dataset(in_clusters(images(PEOPLE), "(p[0-9]+)_"), fraction=fraction, seed=seed)
    assert divided.val is not None
    assert not groups_of(divided.train) & groups_of(divided.val)
    for held in divided.val.counts().tolist():
        assert held == pytest.approx(fraction * 50, abs=2)
    again = split_dataset(in_clusters(images(PEOPLE, -1), "(p[0-9]+)_"), fraction=fraction, seed=seed)
    assert names_of(again.val) == names_of(divided.val)


def test_another_seed_holds_out_other_groups() -> None:
    dataset = in_clusters(images(PEOPLE), "(p[0-9]+)_")
    assert len({frozenset(groups_of(split_dataset(dataset, seed=seed).val)) for seed in range(10)}) > 5


def test_large_groups_do_not_exceed_the_share_if_there_are_smaller_ones() -> None:
    sizes = {"big": 60, "a": 10, "b": 10, "c": 10, "d": 10}
    names = [f"{group}_{number}.png" for group, size in sizes.items() for number in range(size)]
    for seed in range(10):
        divided = split_dataset(in_clusters(images({"x": names, "y": ["1.png", "2.png"]}), "([a-z]+)_"), seed=seed)
        assert divided.val is not None
        assert divided.val.counts().tolist() == [20, 1]


def test_of_two_large_groups_one_is_held_out() -> None:
    names = [f"{group}_{number}.png" for group in "ab" for number in range(50)]
    divided = split_dataset(in_clusters(images({"x": names, "y": ["1.png", "2.png"]}), "([ab])_"))
    assert divided.val is not None
    assert divided.val.counts().tolist() == [50, 1]
    assert divided.train.counts().tolist() == [50, 1]


def test_a_class_of_a_single_group_stays_in_train_and_is_reported() -> None:
    classes = {
        "x": [f"a_{number}.png" for number in range(9)],
        "y": [f"{n}.png" for n in range(10)],
        "z": ["1.png"],
    }
    divided = split_dataset(in_clusters(images(classes), "([a-z])_"))
    assert divided.val is not None
    assert divided.train.counts().tolist() == [9, 8, 1]
    assert divided.val.counts().tolist() == [0, 2, 0]
    assert divided.notes == ("classes without an image in val, as their images are one group or near copies: x",)


def test_no_class_is_held_out_as_a_whole() -> None:
    # Both classes are of the same two people, who cannot both be held out.
    classes = {name: [f"a_{name}.png", f"b_{name}.png"] for name in "xy"}
    for seed in range(5):
        divided = split_dataset(in_clusters(images(classes), "(.)_"), fraction=0.9, seed=seed)
        assert divided.train.counts().tolist() == [1, 1]
        assert divided.val is not None and divided.val.counts().tolist() == [1, 1]


def test_linked_items_have_the_same_number() -> None:
    pairs = np.array([[0, 1], [5, 4], [4, 3], [3, 2]])
    assert united(8, pairs).tolist() == [0, 0, 2, 2, 2, 2, 6, 7]
    numbers = [np.array([-1, 9, -1, -1, -1, 9, -1, 3])]
    assert united(8, pairs, numbers).tolist() == [0, 0, 0, 0, 0, 0, 6, 7]
    assert united(3, np.zeros((0, 2), np.int64)).tolist() == [0, 1, 2]
    chain = np.random.default_rng(0).permutation(10_000)
    assert {*united(10_000, np.stack([chain[1:], chain[:-1]], axis=1)).tolist()} == {0}


# --- groups by name ---


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("(p[0-9])_", ["p1", "p2", None]),
        ("p[0-9]", ["p1", "p2", None]),
        ("(?:p([0-9])|$)_", ["1", "2", None]),
        ("^c/(.)", ["p", "p", "q"]),
        ("(x)?_", [None, None, None]),
    ],
)
def test_group_is_the_first_parentheses_or_the_whole_match(pattern: str, expected: list[str | None]) -> None:
    dataset = images({"c": ["p1_a.png", "p2_b.png", "q.png"]})
    if not any(expected):
        with pytest.raises(DataError):
            grouped_by(dataset, pattern)
        return
    examples = grouped_by(dataset, pattern).splits["all"]
    assert [examples.group_name(position) for position in range(3)] == expected


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(a", UsageError, "the group pattern (a is not a regular expression: missing ), unterminated subpattern"),
        ("zebra", DataError, "the group pattern zebra matches no image name"),
        ("c/", DataError, "the group pattern c/ finds the same text, c/, in all image names"),
        (
            ".*",
            DataError,
            "the group pattern .* finds a different text in each image name, so none belong together",
        ),
        ("", UsageError, "the group pattern is empty"),
    ],
)
def test_a_pattern_that_makes_no_groups_is_an_error(pattern: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        grouped_by(images({"c": ["1.png", "2.png"]}), pattern)
    assert str(caught.value).startswith(message)
    assert hint_of(caught.value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("top", "name", "place"),
    [
        ("d", "d/a/1.png", "a/1.png"),
        (".", "./a/1.png", "a/1.png"),
        ("d", "/elsewhere/1.png", "/elsewhere/1.png"),
        ("/d", "/d/a/1.png", "a/1.png"),
        ("", "a/1.png", "a/1.png"),
    ],
)
def test_a_place_is_a_name_without_its_data_set(top: str, name: str, place: str) -> None:
    assert Dataset("d", {}, top=top).place(name) == place


# --- groups of files ---


def paint(*names: str) -> None:
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        photograph(zlib.crc32(name.encode()) + number, (64, 48)).save(name)


def surveyed(location: str, pattern: str | None = None) -> Survey:
    dataset = open_dataset(location)
    return survey(grouped_by(dataset, pattern) if pattern else dataset)


def table(rows: list[tuple[Any, ...]], header: str, name: str = "t.csv") -> str:
    columns = header.split(",")
    if name.endswith(".parquet"):
        pq.write_table(pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))), name)
    else:
        with open(name, "w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    return name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_column_group_keeps_images_together(name: str) -> None:
    rows = [(f"{number}.png", "ab"[number % 2], f"person {number // 4}") for number in range(40)]
    rows[39] = ("39.png", "b", "")
    paint(*(row[0] for row in rows))
    found = surveyed(table(rows, "path,label,Group", name))
    group = {path: group for path, _, group in rows}
    for seed in range(5):
        divided = split_dataset(found.dataset, seed=seed)
        learnt, held = (
            {group[Path(path).name] for path in names_of(part)} for part in (divided.train, divided.val)
        )
        assert not learnt & held
        assert divided.val is not None and divided.val.counts().tolist() == [4, 4]


def test_a_group_of_numbers_or_of_nothing() -> None:
    paint("1.png", "2.png", "3.png")
    rows = [("1.png", "a", 7), ("2.png", "a", 7), ("3.png", "b", None)]
    examples = open_dataset(table(rows, "path,label,group", "t.parquet")).splits["all"]
    assert [examples.group_name(at) for at in range(3)] == ["7", "7", None]
    without = open_dataset(
        table(
            [(*row[:2], nothing) for row, nothing in zip(rows, ("", "NaN", "<NA>"), strict=True)],
            "path,label,group",
        )
    ).splits["all"]
    assert without.groups is None


def test_examples_to_read_carry_no_groups() -> None:
    names = [f"burst {number}.png" for number in range(10_000)]
    examples = grouped_by(images({"a": names}), "[0-9]{1,3}").splits["all"]
    # The names, and the row and the label of each: eight bytes of both.
    needed = len(pickle.dumps(examples.store)) + 2 * 8 * len(names)
    assert len(pickle.dumps(examples.to_read())) < needed + 1_000
    assert examples.to_read().name(7) == "a/burst 7.png"


@pytest.mark.slow
def test_near_copies_stay_together_and_are_reported() -> None:
    names = [f"d/{'ab'[number % 2]}/{number:02}.png" for number in range(30)]
    paint(*names)
    for name in names:
        Image.open(name).resize((32, 24)).save(name.replace(".png", "-small.jpg"), quality=80)
    found = surveyed("d")
    expected = "near copies, which count as one group: a/00-small.jpg = a/00.png, "
    assert next(note for note in found.notes if "near copies" in note).startswith(expected)
    assert found.notes[-1].endswith("(30 in all)")
    for seed in range(5):
        divided = split_dataset(found.dataset, seed=seed)
        sides = [
            {name.replace("-small.jpg", ".png") for name in names_of(part)} for part in divided.parts.values()
        ]
        assert not sides[0] & sides[1]
        assert divided.val is not None and divided.val.counts().tolist() == [6, 6]


def test_near_copies_across_given_splits_are_reported_and_kept() -> None:
    paint("d/train/a/p1_1.png", "d/train/b/p2_1.png", "d/val/a/p1_2.png", "d/val/b/p3_1.png", "d/test/b/p2_2.png")
    Image.open("d/train/b/p2_1.png").save("d/val/b/again.jpg", quality=70)
    found = surveyed("d")
    assert found.notes[0] == (
        "near copies in different splits, which may inflate figures: train/b/p2_1.png = val/b/again.jpg"
    )
    assert {split: len(part) for split, part in found.dataset.splits.items()} == {"train": 2, "val": 3, "test": 1}


def test_images_of_a_group_that_a_later_split_has_are_left_out() -> None:
    paint(
        "d/train/a/p1_1.png", "d/train/b/p2_1.png", "d/train/b/p4_1.png", "d/train/a/p5_1.png", "d/train/a/x.png"
    )
    paint("d/val/a/p1_2.png", "d/val/b/p2_3.png", "d/val/b/p3_1.png", "d/val/b/y.png", "d/test/b/p2_2.png")
    found = surveyed("d", "(p[0-9])_")
    assert list(found.notes)[:2] == [
        "images of train whose group is also in val or test are left out: train/a/p1_1.png, train/b/p2_1.png",
        "images of val whose group is also in test are left out: val/b/p2_3.png",
    ]
    parts = {split: sorted(names_of(part)) for split, part in found.dataset.splits.items()}
    assert parts == {
        "train": ["d/train/a/p5_1.png", "d/train/a/x.png", "d/train/b/p4_1.png"],
        "val": ["d/val/a/p1_2.png", "d/val/b/p3_1.png", "d/val/b/y.png"],
        "test": ["d/test/b/p2_2.png"],
    }


def test_the_fingerprint_is_over_groups_too() -> None:
    paint("d/a/p1_1.png", "d/a/p1_2.png", "d/b/p2_1.png")
    prints = {surveyed("d", pattern).fingerprint for pattern in (None, "(p.)_", "p._")}
    assert len(prints) == 3


@pytest.mark.slow
def test_the_table_of_a_split_with_groups_gives_the_same_split_again() -> None:
    names = [f"d/{'ab'[number % 2]}/p{number // 3}_{number}.png" for number in range(24)]
    paint(*names)
    Path("run").mkdir()

    def written(divided: TrainValTest, name: str) -> str:
        with open(name, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            write_split(divided, file)
        return Path(name).read_text()

    divided = split_dataset(surveyed("d", "(p[0-9]+)_").dataset, seed=3)
    text = written(divided, "run/split.csv")
    rows = list(csv.DictReader(text.splitlines()))
    assert [*rows[0]] == ["path", "class", "split", "content", "group"]
    assert {(Path(row["path"]).name.partition("_")[0] == row["group"]) for row in rows} == {True}
    assert written(split_dataset(surveyed("run/split.csv").dataset), "run/again.csv") == text
