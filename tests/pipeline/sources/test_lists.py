"""Lists of inputs in every encoding they come in, and their bounds."""

from __future__ import annotations

import codecs
import io
import os
import sys
from pathlib import Path

import pytest

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.sources.lists import MAX_ENTRY, read_list

ENTRIES = ["a.jpg", "p/é ü.jpg", "猫.jpg", "😀 b.jpg"]
WIDE = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(content: bytes, *, null: bool = False) -> list[bytes]:
    Path("list").write_bytes(content)
    return list(read_list("list", null=null))


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", *WIDE])
def test_a_byte_order_mark_is_dropped_and_names_become_utf_8(encoding: str, null: bool) -> None:
    text = "\ufeff" + "".join(entry + ("\0" if null else "\n") for entry in ENTRIES)
    assert read(text.encode(encoding), null=null) == [entry.encode() for entry in ENTRIES]


def test_a_mark_and_nothing_else_is_an_empty_list() -> None:
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE):
        assert read(mark) == []


def test_a_mark_further_on_belongs_to_a_name() -> None:
    assert read("a\n\ufeffb\n".encode()) == [b"a", "\ufeffb".encode()]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["a.jpg\r\nb.jpg\r\n", "a.jpg\nb.jpg", "猫.jpg\né\n", "a\n"])
def test_utf_16_without_a_mark_is_known_by_its_zeros(encoding: str, text: str) -> None:
    assert read(text.encode(encoding)) == [line.encode() for line in text.split("\n") if line]


@pytest.mark.parametrize("content", [b"a.jpg\0b.jpg\0", b"a\0b\0c\0", b"a\0\nb\0\n\0", b"\0\0\n\0", b"\0\n\0"])
def test_what_is_not_certainly_utf_16_stays_as_it_is(content: bytes) -> None:
    assert b"\n".join(read(content)) == content.strip(b"\n")


def test_names_that_are_not_utf_8_stay_bytes() -> None:
    assert read(b"caf\xe9.jpg\n\xff\xfa\n") == [b"caf\xe9.jpg", b"\xff\xfa"]


def test_carriage_returns_are_left_to_the_reader_of_names() -> None:
    assert read(b"a.jpg\r\nb.jpg\r\n") == [b"a.jpg\r", b"b.jpg\r"]


@pytest.mark.parametrize("content", ["\ufeffa.jpg\n".encode("utf-16-le") + b"x", b"\xff\xfea\0\n\0\x00\xd8x\0"])
def test_damaged_utf_16_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match=r"^list: not valid UTF-16"):
        read(content)


def test_an_entry_as_long_as_the_bound_is_read_and_a_longer_one_refused() -> None:
    assert read(b"a\n" + b"x" * MAX_ENTRY + b"\nb\n") == [b"a", b"x" * MAX_ENTRY, b"b"]
    for end in (b"\n", b""):
        with pytest.raises(UsageError, match=r"^list, entry 2: longer than 65,536 bytes$"):
            read(b"a\n" + b"x" * (MAX_ENTRY + 1) + end)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
@pytest.mark.parametrize("null", [False, True])
def test_a_list_without_end_is_refused(null: bool) -> None:
    with pytest.raises(UsageError, match=r"^/dev/zero(: more than 1,048,576 empty|, entry 1: longer)"):
        list(read_list("/dev/zero", null=null))


def test_an_image_taken_for_a_list_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^list is an image, not a list of names$"):
        read(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(100))


@pytest.mark.parametrize(
    ("content", "what"), [(b"PK\x03\x04\x14\0", "an Excel workbook"), (b"PAR1\x15\0", "a Parquet file")]
)
def test_what_is_no_text_is_refused_by_its_name(content: bytes, what: str) -> None:
    with pytest.raises(UsageError, match=rf"^list is {what}.*, not a list of names$"):
        read(content)


@pytest.mark.parametrize("name", [b"%PDF.jpg", b"PK\x03\x04", b"SQLite format 3", b"<html>"])
def test_names_may_begin_as_other_files_do(name: bytes) -> None:
    assert read(name + b"\n") == [name]


def test_names_that_are_not_utf_8_may_follow_a_mark() -> None:
    assert read(codecs.BOM_UTF8 + b"caf\xe9.jpg\n") == [b"caf\xe9.jpg"]


def test_a_mark_that_comes_in_pieces_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trickle(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read1(1)

    class Stdin:
        buffer = Trickle("\ufeffa.jpg\né.jpg\n".encode("utf-16-be"))

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert list(read_list("-")) == [b"a.jpg", "é.jpg".encode()]


@pytest.mark.parametrize(("entry", "null"), [(b"a\n", False), (b"a\0", True), ("a\n".encode("utf-16-le"), False)])
def test_the_first_entry_is_there_before_the_second_is_written(entry: bytes, null: bool) -> None:
    reading, writing = os.pipe()
    os.write(writing, entry)
    entries = read_list(f"/dev/fd/{reading}", null=null)
    assert next(entries) == b"a"
    os.close(writing)
    assert list(entries) == []
    os.close(reading)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_list_that_is_never_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"a.jpg\n")

    def is_open() -> bool:
        return str(path) in {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}

    entries = read_list(str(path))
    assert is_open()
    del entries
    assert not is_open()
