"""Detect the encoding of a text (byte-order mark, UTF-16 by its zeros), and recognise files that are not text."""

from __future__ import annotations

import codecs

# The longer ones first: UTF-32's begins like UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook (.xlsx) or another zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "compressed (gzip)",
    b"{\\rtf": "a document (RTF)",
    b"%PDF": "a document (PDF)",
    b"SQLite format 3": "a database (SQLite)",
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"\x7fELF": "a program",
}
_PAGES = (b"<!doctype html", b"<html")


def marked(head: bytes) -> str | None:
    """Return the encoding of a byte-order mark, None without one. The decoder drops the mark."""
    return next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None)


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text by its first bytes: that of its byte-order mark, else UTF-16 or UTF-8.

    Without a mark, a text is UTF-16 if every other byte is zero, as for the ASCII characters of a header.
    """
    if encoding := marked(head):
        return encoding
    even, odd = head[: len(head) // 2 * 2 : 2], head[1::2]
    if even and b"\0" not in even and not any(odd):
        return "utf-16-le"
    if odd and b"\0" not in odd and not any(even):
        return "utf-16-be"
    return "utf-8"


def non_text_kind(head: bytes) -> str | None:
    """Return what a file is by its first bytes if it is certainly not a plain text; web pages count as not."""
    if head.lstrip().lower().startswith(_PAGES):
        return "a web page"
    found = next((what for signature, what in _OTHERS.items() if head.startswith(signature)), None)
    return found or ("no text" if encoding_of(head) == "utf-8" and b"\0" in head else None)
