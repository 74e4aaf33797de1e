"""From what the user names to the inputs: every one of them, in order, and lazily."""

from __future__ import annotations

import glob
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ErrorKind, InputError, UsageError
from resnetd_cli.pipeline.sources import patterns
from resnetd_cli.pipeline.sources.expand import Source, expand, expand_list, is_single
from resnetd_cli.pipeline.sources.folders import Walker
from resnetd_cli.pipeline.sources.reading import open_file, read_file

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files and names")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*names: str) -> None:
    """Make files, each with its own name for content."""
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def names(inputs: Iterator[Source]) -> list[str]:
    return [source.name for source in inputs]


def expanded(*inputs: str) -> list[str]:
    return names(expand(inputs))


def under(folder: str, *paths: str) -> list[str]:
    return [str(Path(folder, path)) for path in paths]


def why(source: Source) -> InputError:
    with pytest.raises(InputError) as caught:
        source.read()
    return caught.value


def only(inputs: Iterator[Source]) -> Source:
    (source,) = inputs
    return source


class Stdin:
    """Standard input as programs see it, made of the reading end of a pipe, or of bytes."""

    def __init__(self, buffer: io.BufferedIOBase) -> None:
        self.buffer = buffer


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of a pipe whose other end is standard input."""
    reading, writing = os.pipe()
    stream = os.fdopen(reading, "rb")
    monkeypatch.setattr(sys, "stdin", Stdin(stream))
    yield writing
    stream.close()


# --- files ---


def test_a_file_is_itself_under_the_name_it_was_given() -> None:
    make("a/dog.jpg")
    for name in ("a/dog.jpg", "./a/dog.jpg", "a/../a/dog.jpg", str(Path("a/dog.jpg").resolve())):
        source = only(expand([name]))
        assert (source.name, source.read()) == (name, b"a/dog.jpg")


def test_a_file_needs_no_image_extension() -> None:
    make("picture", "notes.txt")
    assert expanded("picture", "notes.txt") == ["picture", "notes.txt"]


def test_inputs_keep_their_order_and_their_repetitions() -> None:
    make("b.jpg", "a.jpg", "folder/c.jpg")
    expected = ["b.jpg", *under("folder", "c.jpg"), "a.jpg", "b.jpg"]
    assert expanded("b.jpg", "folder", "a.jpg", "b.jpg") == expected


@pytest.mark.parametrize("name", ["gone.jpg", "gone/dog.jpg", "", "gone.jpg\n", "nul\0.jpg"], ids=ascii)
def test_what_is_missing_is_an_input_all_the_same(name: str) -> None:
    make("other.jpg")  # which an empty name, as of an unset shell variable, does not stand for
    source = only(expand([name]))
    assert source.name == name
    assert why(source).kind is ErrorKind.NOT_FOUND


def test_a_file_taken_for_a_folder_is_not_found() -> None:
    make("dog.jpg")
    assert why(only(expand(["dog.jpg/x.jpg"]))).kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize(
    "name",
    ["n" * 300 + ".jpg", "folder/" * 800 + "dog.jpg", "x" * 300 + "*.jpg"],
    ids=["name", "path", "pattern"],
)
def test_a_name_longer_than_any_file_has_is_not_found(name: str) -> None:
    source = only(expand([name]))
    assert source.name == name
    assert why(source).kind is ErrorKind.NOT_FOUND


def test_input_of_zero_bytes_is_empty() -> None:
    Path("dog.jpg").touch()
    assert why(only(expand(["dog.jpg"]))).kind is ErrorKind.EMPTY


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="permissions do not bind root")
def test_a_file_without_permission_is_unreadable() -> None:
    make("dog.jpg", "locked/cat.jpg")
    Path("dog.jpg").chmod(0)
    Path("locked").chmod(0)
    try:
        assert why(only(expand(["dog.jpg"]))).kind is ErrorKind.UNREADABLE
        assert why(only(expand(["locked"]))).kind is ErrorKind.UNREADABLE
        assert why(only(expand(["locked/cat.jpg"]))).kind is ErrorKind.UNREADABLE
    finally:
        Path("locked").chmod(0o755)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "Permission denied"), ErrorKind.UNREADABLE),
        (OSError(5, "Input/output error"), ErrorKind.UNREADABLE),
        (FileNotFoundError(2, "No such file or directory"), ErrorKind.NOT_FOUND),
    ],
)
def test_what_the_system_says_on_reading_becomes_the_kind(
    error: OSError, kind: ErrorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("dog.jpg")
    source = only(expand(["dog.jpg"]))

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("os.open", refuse)
    assert why(source).kind is kind


def test_what_the_system_says_on_looking_is_one_input_s_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder above that may not be searched: `stat` itself is refused."""
    make("a.jpg", "locked/b.jpg", "c.jpg")
    stat = os.stat

    def refuse(path: object, *args: object, **kwargs: object) -> os.stat_result:
        if "locked" in os.fspath(path):  # type: ignore[call-overload]
            raise PermissionError(13, "Permission denied", path)
        return stat(path, *args, **kwargs)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", refuse)
    assert expanded("a.jpg", "locked/b.jpg", "c.jpg") == ["a.jpg", "locked/b.jpg", "c.jpg"]


def test_a_folder_that_became_one_after_it_was_listed_is_unreadable() -> None:
    source = only(expand(["later"]))
    Path("later").mkdir()
    assert why(source).kind is ErrorKind.UNREADABLE


@posix
def test_a_loop_of_links_is_unreadable() -> None:
    Path("dog.jpg").symlink_to("dog.jpg")
    assert why(only(expand(["dog.jpg"]))).kind is ErrorKind.UNREADABLE


@posix
def test_a_named_pipe_is_read_to_its_end() -> None:
    os.mkfifo("pipe")
    source = only(expand(["pipe"]))
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(b"x" * 100_000))
    writer.start()
    assert source.read() == b"x" * 100_000
    writer.join()


@posix
def test_a_closed_process_substitution_is_empty() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    assert why(only(expand([f"/dev/fd/{reading}"]))).kind is ErrorKind.EMPTY
    os.close(reading)


# --- folders ---


def test_a_folder_gives_its_images_recursively_in_sorted_order() -> None:
    make("p/b.jpg", "p/a.png", "p/sub/z.jpg", "p/sub/deep/y.gif", "p/Sub2/x.webp", "p/c.jpeg")
    expected = under("p", "Sub2/x.webp", "a.png", "b.jpg", "c.jpeg", "sub/deep/y.gif", "sub/z.jpg")
    assert expanded("p") == expected
    assert [source.read() for source in expand(["p"])] == [os.fsencode(name) for name in expanded("p")]


def test_a_folder_s_files_are_chosen_by_extension_whatever_its_case() -> None:
    images = ["A.JPG", "b.Jpeg", "c.tiff", "d.TIF", "e.bmp", "f.webp", "g.jp2", "h.ppm", "i.ico", "j.avif"]
    others = ["notes.txt", "movie.mp4", "jpg", "page.html", "archive.jpg.zip", ".DS_Store", "k.pdf", "l.h5"]
    make(*(f"p/{name}" for name in images + others))
    assert expanded("p") == under("p", *images)


@pytest.mark.parametrize("folder", ["p", "p/", "./p"])
def test_a_folder_without_images_is_one_empty_input(folder: str) -> None:
    make("p/notes.txt", "p/sub/readme")
    source = only(expand([folder]))
    assert source.name == folder
    assert why(source).kind is ErrorKind.EMPTY


@posix
def test_links_to_folders_are_followed_at_the_top_and_not_below() -> None:
    make("real/a.jpg")
    Path("real/back").symlink_to("..")
    Path("link").symlink_to("real")
    walker = Walker()
    assert names(expand(["link"], walker=walker)) == ["link/a.jpg"]
    assert walker.skipped.links == 1


@posix
def test_a_dangling_link_in_a_folder_has_a_row_of_its_own() -> None:
    make("p/a.jpg")
    Path("p/b.jpg").symlink_to("gone.jpg")
    first, second = expand(["p"])
    assert first.read() == b"p/a.jpg"
    assert (second.name, why(second).kind) == ("p/b.jpg", ErrorKind.NOT_FOUND)


def test_a_subfolder_that_cannot_be_listed_has_a_row_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    make("p/a.jpg", "p/locked/b.jpg", "p/z.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listed = list(expand(["p"]))
    assert names(iter(listed)) == under("p", "a.jpg", "locked", "z.jpg")
    assert why(listed[1]).kind is ErrorKind.UNREADABLE


def test_a_folder_s_content_is_listed_when_its_turn_comes() -> None:
    make("first.jpg", "p/a.jpg")
    stream = expand(["first.jpg", "p"])
    assert next(stream).name == "first.jpg"
    make("p/b.jpg")
    assert names(stream) == under("p", "a.jpg", "b.jpg")


# --- globs ---


def test_a_glob_gives_its_matches_sorted() -> None:
    make("b1.jpg", "a1.jpg", "a2.jpg", "a3.png", "d/a4.jpg")
    assert expanded("*.jpg") == ["a1.jpg", "a2.jpg", "b1.jpg"]
    assert expanded("a?.*") == ["a1.jpg", "a2.jpg", "a3.png"]
    assert expanded("[ab]1.jpg") == ["a1.jpg", "b1.jpg"]


def test_two_stars_go_through_folders_and_count_each_file_once() -> None:
    make("a.jpg", "d/b.jpg", "d/e/c.jpg", "d/e/n.txt", "d/odd.jpg/x.jpg")
    assert sorted(expanded("**/*.jpg")) == ["a.jpg", *under("d", "b.jpg", "e/c.jpg", "odd.jpg/x.jpg")]
    assert sorted(expanded("d/**")) == under("d", "b.jpg", "e/c.jpg", "e/n.txt", "odd.jpg/x.jpg")


def test_a_folder_that_matches_a_glob_gives_its_images() -> None:
    make("2023/a.jpg", "2024/b.jpg", "2024/n.txt")
    assert expanded("202?") == under("2023", "a.jpg") + under("2024", "b.jpg")


@pytest.mark.parametrize("pattern", ["*.jpg", "gone/*", "[xyz].png", "**/*.jpg"])
def test_a_glob_that_matches_nothing_is_not_found(pattern: str) -> None:
    make("notes.txt")
    source = only(expand([pattern]))
    assert source.name == pattern
    assert why(source).kind is ErrorKind.NOT_FOUND


def test_a_glob_that_matches_only_an_empty_folder_is_that_folder() -> None:
    Path("p/sub").mkdir(parents=True)
    source = only(expand(["p/**"]))
    assert source.name == "p/"
    assert why(source).kind is ErrorKind.EMPTY


def test_a_recursive_glob_of_folders_gives_their_images_once() -> None:
    make("p/a/sub/1.jpg", "p/b/sub/2.jpg", "p/b/sub/sub/3.jpg")
    assert expanded("p/**/sub") == ["p/a/sub/1.jpg", "p/b/sub/2.jpg", "p/b/sub/sub/3.jpg"]


@posix
def test_a_recursive_glob_does_not_go_in_circles() -> None:
    """With two links back, what follows them finds each file more often than there are stars."""
    make("p/a/b/1.jpg", "q/2.jpg")
    for link, target in {"p/a/up": "..", "p/a/b/up": "../..", "p/a/aside": "../../q"}.items():
        Path(link).symlink_to(target)
    assert expanded("**/*.jpg") == ["p/a/b/1.jpg", "q/2.jpg"]
    assert expanded("p/**") == ["p/a/b/1.jpg"]
    assert expanded("p/*/aside/**/*.jpg") == ["p/a/aside/2.jpg"]


@posix
@pytest.mark.parametrize(
    "pattern",
    [
        "**",
        "**/*.jpg",
        "p/**",
        "p/**/",
        "*/**/e",
        "**/e/**/*.jpg",
        "./**/*.jpg",
        "**/**/1.jpg",
        "p**/*",
        "[p]/**/d*",
    ],
)
def test_a_recursive_glob_matches_what_python_s_does(pattern: str) -> None:
    make(
        "p/1.jpg",
        "p/e/1.jpg",
        "p/e/d.png",
        "p/.hidden/1.jpg",
        "p/d/e/.1.jpg",
        "p/d/e/3.jpg",
        "q/[e]/1.jpg",
        "0.jpg",
    )
    expected = {match.rstrip("/") for match in glob.iglob(pattern, recursive=True)}
    assert {match.rstrip("/") for match in patterns._matches(pattern)} == expected
    assert expected


@posix
def test_a_file_whose_name_is_a_pattern_is_that_file() -> None:
    make("img[1].jpg", "img1.jpg", "what?.jpg", "*")
    assert expanded("img[1].jpg", "what?.jpg", "*") == ["img[1].jpg", "what?.jpg", "*"]
    assert only(expand(["img[1].jpg"])).read() == b"img[1].jpg"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.{jpg,png}", ["p/1.jpg", "p/2.png"]),
        ("{p,q}/*.jpg", ["p/1.jpg", "q/1.jpg"]),
        ("{p,q}/**/*.{j*,webp}", ["p/1.jpg", "p/e/3.webp", "q/1.jpg"]),
        ("p/{1,2}.{jpg,png}", ["p/1.jpg", "p/1.png", "p/2.jpg", "p/2.png"]),
        ("p/{1..3}.jpg", ["p/1.jpg", "p/2.jpg", "p/3.jpg"]),
        ("p/{e/{3,4},1}.webp", ["p/1.webp", "p/e/3.webp", "p/e/4.webp"]),
    ],
)
def test_braces_in_a_glob_stand_for_each_of_their_parts(pattern: str, expected: list[str]) -> None:
    """Those without wildcards name their files, which may be missing, as in a shell."""
    make("p/1.jpg", "p/2.png", "p/n.txt", "p/e/3.webp", "q/1.jpg")
    assert expanded(pattern) == expected


@posix
@pytest.mark.parametrize("name", ["a{1}.jpg", "{x,y}.jpg", "{.jpg", "}{.jpg"])
def test_a_file_whose_name_has_braces_is_that_file(name: str) -> None:
    make(name)
    assert only(expand([name])).read() == name.encode()


@pytest.mark.parametrize("name", ["a{1}.jpg", "{.jpg", "{}"])
def test_braces_without_alternatives_are_themselves(name: str) -> None:
    source = only(expand([name]))
    assert (source.name, why(source).message) == (name, "no such file or folder")


@pytest.mark.slow
def test_braces_for_too_many_names_are_refused() -> None:
    with pytest.raises(UsageError, match=r"stands for 1,000,000,000,000 names"):
        expanded("{0..999999}{0..999999}")


def test_a_wildcard_matches_no_companion_files() -> None:
    make("p/a.jpg", "p/@eaDir/a.jpg", "p/Thumbs.db", "p/.b.jpg", "p/~$c.jpg", "p/q/d.jpg")
    assert expanded("p/*") == ["p/a.jpg", "p/q/d.jpg"]
    assert expanded("p/*/*") == ["p/q/d.jpg"]
    assert sorted(expanded("p/**/*.jpg")) == ["p/a.jpg", "p/q/d.jpg"]
    assert expanded("p/@ea*/*.jpg") == ["p/@eaDir/a.jpg"]
    assert expanded("p/~$*") == ["p/~$c.jpg"]
    assert expanded("p/.*.jpg") == ["p/.b.jpg"]


# --- other spellings of names ---

COMPOSED, DECOMPOSED = "caf\u00e9/\u00fc.jpg", "cafe\u0301/u\u0308.jpg"


@posix
@pytest.mark.parametrize(("there", "asked"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_name_in_the_other_unicode_composition_reaches_its_file(there: str, asked: str) -> None:
    make(there)
    mixed = asked.split("/", maxsplit=1)[0] + "/" + there.split("/")[1]
    assert expanded(asked, mixed, str(Path(asked).absolute())) == [there, there, str(Path(there).absolute())]
    assert expanded(str(Path(asked).parent)) == [there]
    assert expanded(asked[:-3] + "*") == [there]
    assert listed(f"{asked}\n".encode()) == [there]
    assert listed(f"{asked}\0".encode(), null=True) == [there]


@posix
def test_a_file_is_read_under_either_unicode_composition() -> None:
    make(DECOMPOSED)
    assert read_file(COMPOSED) == DECOMPOSED.encode()
    with open_file(COMPOSED) as file:
        assert file.read() == DECOMPOSED.encode()
    with pytest.raises(InputError, match="no such file"):
        read_file("gone/\u00e9.jpg")


@posix
def test_a_name_that_exists_as_written_wins_over_its_other_composition() -> None:
    make("\u00e9.jpg", "e\u0301.jpg")
    assert [source.read().decode() for source in expand(["e\u0301.jpg", "\u00e9.jpg"])] == [
        "e\u0301.jpg",
        "\u00e9.jpg",
    ]


@posix
@pytest.mark.parametrize("name", ["a.jpg ", " a.jpg", "a.jpg\r", '"a.jpg"', "p\\a.jpg", "*.jpg", "a\rb.jpg"])
def test_a_line_of_a_list_that_exists_as_written_wins(name: str) -> None:
    make("a.jpg", "p/a.jpg", "b.jpg", name)
    assert listed(f"{name}\n".encode()) == [name]
    assert only(expand_list("list")).read() == name.encode()
    assert listed(f"{name}\r\n".encode()) == [name]


@pytest.mark.parametrize("line", ["p/a.jpg ", "\tp/a.jpg", '"p/a.jpg"', "'p/a.jpg'", "p\\a.jpg", '"p\\a.jpg"\r'])
def test_a_line_of_a_list_as_other_programs_write_it_reaches_its_file(line: str) -> None:
    make("p/a.jpg")
    Path("list").write_bytes(f"{line}\n".encode())
    source = only(expand_list("list"))
    assert (Path(source.name), source.read()) == (Path("p/a.jpg"), b"p/a.jpg")


@posix
@pytest.mark.parametrize("page", ["cp1252", "cp850"])
def test_a_list_in_a_code_page_of_windows_reaches_its_files(page: str) -> None:
    make("p/\u00e9t\u00e9.jpg")
    assert listed("p\\\u00e9t\u00e9.jpg\r\n".encode(page)) == ["p/\u00e9t\u00e9.jpg"]


@pytest.mark.parametrize("line", ["\\", " / ", "'.'", "..\\", " . "])
def test_a_line_that_is_not_a_folder_as_written_goes_through_no_disk(line: str) -> None:
    make("a.jpg")
    assert listed(f"{line}\n".encode()) == [line]


def test_entries_between_nul_are_only_themselves() -> None:
    make("a.jpg")
    assert listed(b"a.jpg \0'a.jpg'\0a.jpg\r\0", null=True) == ["a.jpg ", "'a.jpg'", "a.jpg\r"]


@pytest.mark.slow
def test_a_list_whose_lines_end_with_carriage_returns_alone() -> None:
    make("a.jpg")
    assert listed(b"a.jpg\rb c.jpg\r") == ["a.jpg", "b c.jpg"]
    many = [f"{number:05d}.jpg" for number in range(30_000)]
    assert listed("\r".join(many).encode()) == many


# --- URLs and standard input ---


@pytest.mark.parametrize(
    "url", ["http://host/a.jpg", "HTTPS://host/a?b=[1]&c=*", "s3://bucket/*.jpg", "file:///x"]
)
def test_a_url_is_one_input_and_not_a_pattern(url: str) -> None:
    assert expanded(url) == [url]


@pytest.mark.parametrize("around", [" {}", "{} ", "\t{}\r\n", "\ufeff{}", "{}\u200b", "\u00a0{}", '"{}"'])
def test_what_stands_around_a_url_is_no_part_of_it(around: str) -> None:
    url = "https://host/a%20b.jpg"
    assert expanded(around.format(url)) == [url]
    assert listed(around.format(url).strip("\n").encode()) == [url]
    assert is_single([around.format(url)])


@posix
@pytest.mark.parametrize("form", ["file://{}", "FILE://{}", "file://localhost{}", "file:{}"])
def test_a_file_url_is_the_file_that_its_decoded_path_names(form: str) -> None:
    make("p q/\u00e9#1?.jpg")
    url = form.format(quote(str(Path("p q/\u00e9#1?.jpg").absolute())))
    assert is_single([url])
    Path("list").write_text(url, encoding="utf-8")
    for source in (*expand([url, f" {url}"]), *expand_list("list")):
        assert (source.name, source.read().decode()) == (url, "p q/\u00e9#1?.jpg")


@posix
def test_a_file_url_of_a_folder_gives_its_images() -> None:
    make("p q/a.jpg", "p q/n.txt")
    folder = Path("p q").absolute()
    assert not is_single([folder.as_uri()])
    assert expanded(folder.as_uri()) == [f"{folder}/a.jpg"]


@posix
def test_a_file_url_with_bytes_that_are_not_utf_8() -> None:
    source = only(expand([f"file://{Path.cwd()}/%E9.jpg"]))
    Path(os.fsdecode(b"\xe9.jpg")).write_bytes(b"found")
    assert source.read() == b"found"


def test_a_file_url_of_another_machine_is_blocked() -> None:
    error = why(only(expand(["file://elsewhere/a.jpg"])))
    assert (error.kind, error.message) == (ErrorKind.BLOCKED, "a file on another machine")
    assert "three slashes" in (hint_of(error) or "")


@posix
def test_a_file_wins_over_the_url_that_its_name_looks_like() -> None:
    make("http:/host/a.jpg", "https:/b.jpg ")
    assert only(expand(["http://host/a.jpg"])).read() == b"http:/host/a.jpg"
    assert only(expand(["https://b.jpg "])).read() == b"https:/b.jpg "


def test_a_url_is_fetched_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetd_cli.net.fetch.fetch", lambda url, **_: f"body of {url}".encode())
    assert only(expand(["http://host/a.jpg"])).read() == b"body of http://host/a.jpg"


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(b"an image")))  # type: ignore[arg-type]
    source = only(expand(["-"]))
    assert (source.name, source.read()) == ("-", b"an image")
    assert why(source).kind is ErrorKind.EMPTY  # it was read to its end


def test_is_single_tells_one_image_from_many() -> None:
    make("dog.jpg", "cat.jpg", "p/a.jpg")
    assert is_single(["dog.jpg"])
    assert is_single(["-"])
    assert is_single(["https://host/dog.jpg"])
    assert not is_single(["p"])
    assert not is_single(["*.jpg"])
    assert not is_single(["dog.jpg", "cat.jpg"])
    assert not is_single([])


def test_is_single_lives_with_any_name() -> None:
    assert is_single(["n" * 300]) in (True, False)
    assert is_single(["a\0b"]) in (True, False)


# --- lists ---


def listed(content: bytes, *, null: bool = False) -> list[str]:
    Path("list").write_bytes(content)
    return names(expand_list("list", null=null))


@pytest.mark.parametrize(
    "content",
    [
        b"a.jpg\nb c.jpg\n",
        b"a.jpg\nb c.jpg",
        b"a.jpg\r\nb c.jpg\r\n",
        b"\n\na.jpg\n\r\n\nb c.jpg\n\n",
    ],
    ids=["lines", "no last newline", "CRLF", "blank lines"],
)
def test_a_list_has_one_input_a_line(content: bytes) -> None:
    assert listed(content) == ["a.jpg", "b c.jpg"]


@pytest.mark.parametrize("content", [b"a.jpg\0b\nc.jpg\0", b"a.jpg\0b\nc.jpg", b"\0\0a.jpg\0\0b\nc.jpg\0\0"])
def test_a_list_separated_by_nul_may_name_files_with_newlines(content: bytes) -> None:
    assert listed(content, null=True) == ["a.jpg", "b\nc.jpg"]


@pytest.mark.slow
def test_names_across_the_blocks_a_nul_list_is_read_in_stay_whole() -> None:
    wanted = [f"{number:05d}-{'n' * 40}.jpg" for number in range(5000)]
    assert listed("\0".join(wanted).encode(), null=True) == wanted


def test_names_in_a_list_keep_their_spaces_and_other_characters() -> None:
    wanted = [" leading.jpg", "trailing.jpg ", "tab\tin.jpg", "é ü 猫.jpg", "quo'te\".jpg", "# not a comment"]
    assert listed("\n".join(wanted).encode()) == wanted


@posix
def test_a_name_that_is_not_utf_8_reaches_its_file() -> None:
    path = b"caf\xe9.jpg"
    try:
        Path(os.fsdecode(path)).write_bytes(b"found")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    Path("list").write_bytes(path + b"\n")
    source = only(expand_list("list"))
    assert os.fsencode(source.name) == path
    assert source.read() == b"found"


@posix
def test_a_name_with_a_newline_reaches_its_file() -> None:
    make("new\nline.jpg")
    Path("list").write_bytes(b"new\nline.jpg\0")
    assert only(expand_list("list", null=True)).read() == b"new\nline.jpg"


@posix
def test_entries_of_a_list_are_literal() -> None:
    make("a[1].jpg", "a1.jpg", "-")
    assert listed(b"a[1].jpg\na?.jpg\n-\n") == ["a[1].jpg", "a?.jpg", "-"]
    first, second, third = expand_list("list")
    assert (first.read(), third.read()) == (b"a[1].jpg", b"-")
    assert why(second).kind is ErrorKind.NOT_FOUND


def test_a_list_may_name_folders_and_urls() -> None:
    make("p/b.jpg", "p/a.jpg")
    expected = [*under("p", "a.jpg", "b.jpg"), "http://host/c.jpg"]
    assert listed(b"p\nhttp://host/c.jpg\n") == expected


def test_a_list_read_with_the_wrong_separator_gives_rows_and_no_crash() -> None:
    lines = "".join(f"photos/{number:04d}.jpg\n" for number in range(300))
    (name,) = listed(lines.encode(), null=True)
    assert name == lines
    assert why(only(expand_list("list", null=True))).kind is ErrorKind.NOT_FOUND
    (name,) = listed(b"a.jpg\0b.jpg\0")
    assert name == "a.jpg\0b.jpg\0"
    assert why(only(expand_list("list"))).kind is ErrorKind.NOT_FOUND


def test_an_empty_list_gives_nothing() -> None:
    assert listed(b"") == listed(b"\n\n") == listed(b"\0", null=True) == []


@pytest.mark.parametrize("location", ["gone.txt", "folder"])
def test_a_list_that_cannot_be_read_is_told_at_once(location: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(UsageError, match=f"cannot read the list {location}"):
        expand_list(location)


def test_a_list_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO(b"a.jpg\nb.jpg\n")
    monkeypatch.setattr(sys, "stdin", Stdin(buffer))  # type: ignore[arg-type]
    assert names(expand_list("-")) == ["a.jpg", "b.jpg"]
    assert not buffer.closed


@pytest.mark.parametrize(("separator", "null"), [(b"\n", False), (b"\0", True)])
def test_an_entry_is_there_as_soon_as_it_is_written(pipe: int, separator: bytes, null: bool) -> None:
    entries = expand_list("-", null=null)
    for number in range(3):
        os.write(pipe, b"%d.jpg" % number + separator)
        assert next(entries).name == f"{number}.jpg"  # would wait for ever if it read ahead
    os.close(pipe)
    assert list(entries) == []


def test_the_list_s_file_is_closed_at_the_end_and_when_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list").write_bytes(b"a.jpg\nb.jpg\n")
    opened: list[io.BufferedReader] = []
    open_file = Path.open

    def spy(self: Path, *args: object, **kwargs: object) -> object:
        stream = open_file(self, *args, **kwargs)  # type: ignore[call-overload]
        opened.append(stream)
        return stream

    monkeypatch.setattr(Path, "open", spy)
    names(expand_list("list"))
    given_up = expand_list("list")
    next(given_up)
    given_up.close()  # type: ignore[attr-defined]
    assert [stream.closed for stream in opened] == [True, True]
