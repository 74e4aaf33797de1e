"""Walks through folders: what is an image, what is skipped, and what is said of it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError, Reason
from resnetd_cli.pipeline.sources.companions import is_companion
from resnetd_cli.pipeline.sources.expand import expand
from resnetd_cli.pipeline.sources.folders import Note, Skipped, Walker, image_extensions, kind_of

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX names and links")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*names: str, data: bytes = b"x") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


def walk(folder: str, **options: bool) -> tuple[list[str], Skipped]:
    walker = Walker(**options)
    return [found.path for found in walker.images(folder)], walker.skipped


def notes(folder: str, **options: bool) -> list[Note]:
    walker = Walker(**options)
    list(walker.images(folder))
    return list(walker.notes())


def of_format(name: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB" if name != "XBM" else "1", (9, 7)).save(stream, name)
    return stream.getvalue()


# --- hidden and companion files ---

COMPANIONS = [
    "._dog.jpg",
    ".DS_Store",
    ".thumbnails",
    ".ipynb_checkpoints",
    ".AppleDouble",
    ".#dog.jpg",
    ".syncthing.dog.jpg.tmp",
    ".~lock.dog.jpg#",
    "__MACOSX",
    "Icon\r",
    "Thumbs.db",
    "thumbs.DB",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    "@eaDir",
    "#recycle",
    "~$dog.jpg",
    "~syncthing~dog.jpg",
    "#dog.jpg#",
    "dog.jpg~",
    "lost+found",
]


@pytest.mark.parametrize("name", COMPANIONS)
def test_hidden_and_companion_files_are_skipped_and_taken_when_named(name: str) -> None:
    assert is_companion(name)
    make(f"p/{name}/inside.jpg", "p/a.jpg")
    found, skipped = walk("p")
    assert found == ["p/a.jpg"]
    assert skipped == Skipped(hidden=1)
    assert walk(f"p/{name}")[0] == [f"p/{name}/inside.jpg"]
    make(f"q/{name}")
    assert walk("q") == ([], Skipped(hidden=1))
    assert [source.read() for source in expand([f"q/{name}"])] == [b"x"]


@pytest.mark.parametrize(
    "name",
    [
        "dog.jpg",
        "_dog.jpg",
        "#1.jpg",
        "$5.jpg",
        "@home.jpg",
        "~dog.jpg",
        "dog (conflicted copy).jpg",
        "dog.sync-conflict-20240101-120000-ABCDEFG.jpg",
        "Thumbs.jpg",
        "desktop.png",
        "System",
        ".",
        "..",
    ],
)
def test_files_that_people_made_are_no_companions(name: str) -> None:
    assert not is_companion(name)


# --- what is skipped, in words ---


def test_skipped_files_are_counted_by_kind() -> None:
    make("p/a.CR2", "p/b.cr2", "p/q/c.cr2", "p/d.mp4", "p/q/e.MP4", "p/README", "p/q/photo", "p/x.jpg")
    found, skipped = walk("p")
    assert found == ["p/x.jpg"]
    assert skipped.files == {"cr2": 3, "mp4": 2, "": 2}
    text = "skipped 7 files: 3 cr2, 2 mp4, 2 without extension"
    assert notes("p") == [(text, Reason.NOT_NAMED_LIKE_IMAGES)]


def test_notes_carry_the_reason_unless_all_files_are_looked_at() -> None:
    make("p/a.txt")
    assert notes("p") == [("skipped 1 file: 1 txt", Reason.NOT_NAMED_LIKE_IMAGES)]
    assert notes("p", all_files=True) == [("skipped 1 file: 1 txt", None)]


def test_a_folder_of_images_alone_needs_no_note() -> None:
    make("p/a.jpg", "p/.hidden", "p/Thumbs.db")
    assert notes("p") == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.CR2", "cr2"),
        ("photo", ""),
        ("a.", ""),
        ("x.jpg.1", "jpg.1"),
        ("x.1", "1"),
        ("x.jpg.part", "part"),
        ("x.something rather long", "with a long extension"),
    ],
)
def test_the_kind_of_a_file(name: str, kind: str) -> None:
    assert kind_of(f"a.b/{name}") == kind


@posix
def test_names_of_kinds_are_printable_and_few() -> None:
    make(*(f"p/a.x{number}{'y' * (number < 2)}" for number in range(9)), "p/a.\x1b[1m", "p/b.\x1b[1m")
    (note,) = notes("p")
    assert note.text.startswith("skipped 11 files: 2 \\x1b[1m, 1 ")
    assert note.text.endswith(", 4 others")


# --- bytes instead of names ---


@pytest.mark.parametrize(
    "name", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "XBM", "JPEG2000", "ICO", "PCX"]
)
def test_all_files_finds_an_image_by_its_bytes(name: str) -> None:
    make("p/photo", "p/photo.jpg.1", "p/photo.bin", data=of_format(name))
    assert walk("p")[0] == []
    found, skipped = walk("p", all_files=True)
    assert found == ["p/photo", "p/photo.bin", "p/photo.jpg.1"]
    assert skipped == Skipped()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P",
        b"Python is a language",
        b"P.S.: see below",
        b"#define MAX 3\n#define X_width",
        b"%!PS-Adobe-3.0",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
        b"\0\0\0\x18ftypmp42" + bytes(100),
        b"%PDF-1.7",
        b"<svg xmlns=",
        bytes(100),
        b"\x1aE\xdf\xa3" + bytes(60),
    ],
    ids=["empty", "P", "text", "letter", "C", "PostScript", "Office", "mp4", "PDF", "SVG", "zeros", "mkv"],
)
def test_all_files_skips_what_is_no_image(data: bytes) -> None:
    make("p/file", data=data)
    found, skipped = walk("p", all_files=True)
    assert found == []
    assert skipped.files == {"": 1}


def test_all_files_takes_a_heic_photo_so_that_it_has_a_row() -> None:
    make("p/photo", data=b"\0\0\0\x18ftypheic" + bytes(100))
    assert walk("p", all_files=True)[0] == ["p/photo"]


def test_all_files_loses_nothing_that_is_named_like_an_image() -> None:
    make("p/page.jpg", data=b"<html>")
    assert walk("p", all_files=True)[0] == ["p/page.jpg"]


@posix
def test_all_files_waits_for_no_pipe_and_needs_no_permission_to_go_on() -> None:
    make("p/a", data=of_format("PNG"))
    os.mkfifo("p/pipe")
    Path("p/dangling").symlink_to("gone")
    found, skipped = walk("p", all_files=True)
    assert found == ["p/a"]
    assert skipped.files == {"": 2}


# --- links ---


@posix
def test_links_to_folders_are_counted_and_links_to_files_taken() -> None:
    make("real/a.jpg", "other/b.jpg")
    Path("p").mkdir()
    Path("p/album").symlink_to("../real")
    Path("p/odd.jpg").symlink_to("../other")
    Path("p/c.jpg").symlink_to("../other/b.jpg")
    assert walk("p") == (["p/c.jpg"], Skipped(links=2))
    assert notes("p") == [("skipped 2 links to folders", Reason.LINKS_SKIPPED)]


@posix
def test_follow_goes_through_links_and_visits_each_folder_once() -> None:
    make("real/a.jpg", "real/deep/b.jpg", "p/q/c.jpg")
    for link, target in {"p/album": "../real", "p/again": "../real", "p/up": "..", "real/back": "../p"}.items():
        Path(link).symlink_to(target)
    found, skipped = walk("p", follow=True)
    assert found == ["p/again/a.jpg", "p/again/deep/b.jpg", "p/q/c.jpg"]
    assert skipped.links == 0


@posix
def test_a_folder_of_links_alone_does_not_claim_to_hold_no_images() -> None:
    make("real/a.jpg")
    Path("p").mkdir()
    Path("p/album").symlink_to("../real")
    (source,) = expand(["p"], walker=Walker())
    with pytest.raises(InputError) as caught:
        source.read()
    assert caught.value.kind is ErrorKind.EMPTY
    assert caught.value.message == "the folder holds 1 link to a folder, not followed, and no other images"
    assert hint_of(caught.value) == "--follow follows links"
    assert [each.name for each in expand(["p"], walker=Walker(follow=True))] == ["p/album/a.jpg"]


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ([], "it is empty"),
        (
            ["p/a.nef", "p/b.nef", "p/c"],
            "it holds 3 files: 2 nef, 1 without extension; --all-files detects images by content",
        ),
        (["p/.a.jpg", "p/Thumbs.db"], "its files are hidden: name them to read them"),
    ],
)
def test_a_folder_without_images_says_what_it_holds(files: list[str], hint: str) -> None:
    Path("p").mkdir()
    make("before/x.txt", *files)
    walker = Walker()
    list(walker.images("before"))
    (source,) = expand(["p"], walker=walker)
    with pytest.raises(InputError, match="no images in the folder") as caught:
        source.read()
    assert hint_of(caught.value) == hint


@pytest.mark.slow
@posix
def test_folders_may_be_nested_deeper_than_python_s_stack() -> None:
    folders = ["p" + "/d" * depth for depth in range(1500)]
    for folder in folders:
        Path(folder).mkdir()
    make(f"{folders[-1]}/a.jpg")
    try:
        assert walk("p")[0] == [f"{folders[-1]}/a.jpg"]
        assert [source.name for source in expand(["p/**/*.jpg"])] == [f"{folders[-1]}/a.jpg"]
    finally:  # what empties temporary folders goes no deeper than the stack
        Path(folders[-1], "a.jpg").unlink()
        for folder in reversed(folders):
            Path(folder).rmdir()


def test_every_image_extension_is_one_that_pillow_opens() -> None:
    extensions = image_extensions()
    assert {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".ico"} <= extensions
    assert not extensions & {".pdf", ".txt", ".h5", ".mpg", ".mp4", ".html", ".svg"}
    assert all(extension == extension.lower() and extension[0] == "." for extension in extensions)
