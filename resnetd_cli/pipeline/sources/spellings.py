"""Find files whose names differ on disk: Unicode composition, backslashes, code pages, `file:` URLs.

The exact spelling is always tried first.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote_to_bytes

_CODE_PAGES = ("cp1252", "cp850", "cp437")
"""The code pages of Western Windows and its console."""
_FILE_URL = re.compile(r"file:(?://([^/]*))?(/.*)", re.IGNORECASE | re.DOTALL)


def on_disk(path: str) -> str | None:
    """Return a path as it exists on disk: as written, or in the other Unicode composition; None if neither exists.

    macOS stores `é` as two characters, other systems as one; archives and copies contain both.
    """
    if os.path.lexists(path):
        return path
    if path.isascii():
        return None
    found = ""
    for part in re.split(rf"([{re.escape(os.sep)}]+)", path):
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        there = next((found + form for form in forms if os.path.lexists(found + form)), None)
        if there is None and part.strip(os.sep):
            return None
        found = there or found + part
    return found


def of_list(line: str, folder: str = "") -> str | None:
    """Return the existing path that an entry of a list refers to, in any spelling; None if there is none.

    Entries are relative to the folder. Tried in order: as written; without a trailing carriage return; without
    surrounding white space; without quotation marks; with slashes for backslashes; decoded from a Windows code
    page.
    """
    forms = (os.path.join(folder, form) for form in dict.fromkeys(_forms(line)))
    return next(filter(None, map(on_disk, forms)), None)


def path_of_url(text: str) -> str | None:
    """Return the path in a `file:` URL of this machine; None for any other text."""
    url = _FILE_URL.fullmatch(text)
    if url is None:
        return None
    host, path = url.groups()
    if host and host.lower() not in ("localhost", _this_machine()):
        return None
    with suppress(ValueError):
        text = os.fsdecode(unquote_to_bytes(os.fsencode(path)))
        return text[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", text) else text
    return None


def _forms(line: str) -> Iterator[str]:
    bare = line.rstrip("\r")
    trimmed = bare.strip()
    unquoted = trimmed[1:-1] if len(trimmed) > 2 and trimmed[0] == trimmed[-1] in "\"'" else trimmed
    yield from (line, line.removesuffix("\r"), bare)
    if not unquoted.strip("./\\"):  # the whole disk, or what lies around: not by mistake
        return
    yield from (trimmed, unquoted)
    if os.sep == "/" and "\\" in unquoted:
        yield unquoted.replace("\\", "/")
    data = os.fsencode(unquoted)
    with suppress(UnicodeDecodeError):
        data.decode()
        return
    for page in _CODE_PAGES:
        with suppress(UnicodeDecodeError):
            text = data.decode(page)
            yield from (text, text.replace("\\", "/"))


def _this_machine() -> str:
    import socket

    return socket.gethostname().lower()
