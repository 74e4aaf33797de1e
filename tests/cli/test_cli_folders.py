"""Folders on the command line: which files are read, and what is reported as skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import CAT, COFFEE
from helpers.program import Cli

pytestmark = pytest.mark.usefixtures("compiled")

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX links")


@pytest.fixture(autouse=True)
def photos(cli: Cli) -> None:
    """A folder with files of a camera, a browser and a Mac; `cli` changes to an empty folder first."""
    for folder in ("p/raw", "p/.thumbnails", "real"):
        Path(folder).mkdir(parents=True)
    shutil.copy(COFFEE, "p/coffee.jpg")
    shutil.copy(CAT, "p/photo")
    shutil.copy(CAT, "p/.thumbnails/coffee.jpg")
    shutil.copy(CAT, "real/cat.jpg")
    Path("p/._coffee.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    for name in ("p/raw/1.CR2", "p/raw/2.cr2", "p/film.mp4"):
        Path(name).write_bytes(b"x")
    if os.name != "nt":
        Path("p/album").symlink_to("../real")


def names(stdout: str) -> list[str]:
    return [line.split("\t")[0] for line in stdout.splitlines()[1:]]


@pytest.mark.slow
@posix
def test_predict_reports_skipped_files_and_links(cli: Cli) -> None:
    ended = cli("predict", "p", "-k", "1")
    assert (ended.code, names(ended.stdout)) == (0, ["p/coffee.jpg"])
    assert ended.stderr.splitlines() == [
        "skipped 4 files: 2 cr2, 1 mp4, 1 without extension (--all-files detects images by content)",
        "skipped 1 link to a folder (--follow follows links)",
    ]
    assert cli("predict", "p", "-k", "1", "-q").stderr == ""


@posix
def test_all_files_and_follow_find_skipped_images(cli: Cli) -> None:
    ended = cli("predict", "p", "-k", "1", "--all-files", "--follow")
    assert (ended.code, names(ended.stdout)) == (0, ["p/album/cat.jpg", "p/coffee.jpg", "p/photo"])
    assert ended.stderr.splitlines() == ["skipped 3 files: 2 cr2, 1 mp4"]


@pytest.mark.slow
@posix
def test_features_has_all_files_and_follow(cli: Cli) -> None:
    ended = cli("features", "p", "-o", "f.npy")
    assert (ended.code, np.load("f.npy").shape) == (0, (1, 1280))
    assert ended.stderr.splitlines()[0].startswith("skipped 4 files: 2 cr2, 1 mp4, 1 without extension")
    assert cli("features", "p", "-o", "g.npy", "--all-files", "--follow").code == 0
    assert np.load("g.npy").shape == (3, 1280)


@posix
def test_skipped_files_in_listed_folders_are_reported(cli: Cli) -> None:
    Path("list").write_text("p\nreal\n", encoding="utf-8")
    ended = cli("predict", "--files-from", "list", "-k", "1")
    assert names(ended.stdout) == ["p/coffee.jpg", "real/cat.jpg"]
    assert ended.stderr.startswith("skipped 4 files: ")


def test_hidden_files_are_read_if_named(cli: Cli) -> None:
    ended = cli("predict", "p/.thumbnails", "p/._coffee.jpg", "-k", "1")
    assert (ended.code, names(ended.stdout)) == (3, ["p/.thumbnails/coffee.jpg", "p/._coffee.jpg"])
    assert ended.errors == ["error: p/._coffee.jpg: not an image, but metadata that macOS keeps beside a file"]
    assert ended.hints == ["hint: the image is the file without ._"]


def test_list_with_endless_line_is_usage_error(cli: Cli) -> None:
    Path("list").write_bytes(b"p/coffee.jpg\n" + b"x" * 70_000)
    ended = cli("predict", "--files-from", "list", "-k", "1")
    assert (ended.code, names(ended.stdout)) == (2, ["p/coffee.jpg"])
    assert ended.errors == ["error: list, entry 2: longer than 65,536 bytes"]


def test_file_named_like_option_is_usage_error_and_writes_nothing(cli: Cli) -> None:
    shutil.copy(COFFEE, "-overview.png")
    ended = cli("predict", "-overview.png")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.hints == ["hint: write ./-overview.png, or put -- before the names"]
    assert not Path("verview.png").exists()
    assert names(cli("predict", "-k", "1", "--", "-overview.png").stdout) == ["-overview.png"]
