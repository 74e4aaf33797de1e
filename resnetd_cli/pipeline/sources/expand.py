"""Expand INPUT arguments (files, folders, globs, URLs, lists) into a lazy stream of sources."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from resnetd_cli.errors import ErrorKind, InputError, Reason
from resnetd_cli.net import fetch
from resnetd_cli.pipeline.sources import patterns, spellings
from resnetd_cli.pipeline.sources.folders import Skipped, Walker
from resnetd_cli.pipeline.sources.lists import STDIN, read_list
from resnetd_cli.pipeline.sources.reading import (
    DEFAULT_READING,
    ReadOptions,
    folder_hint,
    read_file,
    read_stdin,
    read_url,
)
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.files import too_many_files_hint
from resnetd_cli.system.wording import system_reason


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name: the name to show, as the user wrote it.
        read: returns its bytes or raises `InputError`.
        is_remote: it comes from a server, so reading ahead saves time.
    """

    name: str
    read: Callable[[], bytes]
    is_remote: bool = False


def expand(
    inputs: Iterable[str], options: ReadOptions = DEFAULT_READING, walker: Walker | None = None
) -> Iterator[Source]:
    """Turn command-line INPUTs into sources, in order.

    An INPUT is `-`, an http(s) or `file:` URL, a file, a folder (its images, recursively, in sorted order) or a
    glob. A path that exists exactly as written takes precedence. An input that does not exist is a source too:
    its `read` raises.

    Args:
        inputs: the arguments as typed.
        options: limits on reading one input.
        walker: walks through folders and counts what it skips.
    """
    walker = walker or Walker()
    for text in inputs:
        name = _meant(text)
        if name == STDIN:
            yield Source(STDIN, partial(read_stdin, options))
        elif patterns.is_pattern(name) and not _is_url(name) and not os.path.lexists(name):
            yield from _expand_pattern(name, options, walker)
        else:
            yield from _expand_literal(name, options, walker)


def expand_list(
    location: str, *, null: bool = False, options: ReadOptions = DEFAULT_READING, walker: Walker | None = None
) -> Iterator[Source]:
    """Turn a list of inputs into sources while it is read: one per line, or NUL-separated.

    Args:
        location: a file, or `-` for standard input. Entries are literal: no globs, no `-`.
        null: entries end with NUL instead of a newline.
        options: limits on reading one input.
        walker: walks through folders and counts what it skips.

    Raises:
        UsageError: see `read_list`.
    """
    return _expand_entries(read_list(location, null=null), options, walker or Walker(), null=null)


def is_single(inputs: list[str]) -> bool:
    """Return, without reading anything, whether these INPUTs are exactly one image."""
    if len(inputs) != 1:
        return False
    name = _meant(inputs[0])
    path = spellings.path_of_url(name) or name
    return name == STDIN or os.path.isfile(path) or (path == name and fetch.is_url(name))


def names_input(text: str) -> bool:
    """Return whether a text names an existing input: a file, a folder, a URL, or a glob that matches something."""
    name = _meant(text)
    if name == STDIN or _is_url(name) or os.path.lexists(name):
        return True
    each = patterns.alternatives(name) if patterns.is_pattern(name) else []
    return any(_matches(one) if glob.has_magic(one) else os.path.lexists(one) for one in each)


def _meant(text: str) -> str:
    """Return the file or URL that a text refers to; the text itself if it exists, or refers to nothing."""
    if os.path.lexists(text):
        return text
    return _url_in(text) or spellings.on_disk(text) or text


def _url_in(text: str) -> str | None:
    """Return a text as a URL without surrounding white space and quotation marks; None if it is not one."""
    trimmed = text.strip(fetch.AROUND_URLS)
    return trimmed if _is_url(trimmed) else None


def _is_url(text: str) -> bool:
    return fetch.is_url(text) or spellings.path_of_url(text) is not None


def _expand_literal(text: str, options: ReadOptions, walker: Walker, *, typed: bool = True) -> Iterator[Source]:
    path = text if os.path.lexists(text) else spellings.path_of_url(text)
    if path is None and fetch.is_url(text):
        yield _of_url(text, options, typed=typed)
    elif os.path.isdir(path or text):
        yield from _expand_folder(path or text, options, walker)
    else:
        yield Source(text, partial(read_file, path or text, options))


def _of_url(url: str, options: ReadOptions, *, typed: bool) -> Source:
    if url.lower().startswith("file:"):
        hint = "file:///PATH, with three slashes, is a file on this machine"
        return _failing(url, InputError(ErrorKind.BLOCKED, "a file on another machine", hint=hint))
    return Source(url, partial(read_url, url, options, typed=typed), is_remote=True)


def _expand_pattern(pattern: str, options: ReadOptions, walker: Walker) -> Iterator[Source]:
    each = patterns.alternatives(pattern)
    # Braces without wildcards abbreviate a list of names; each is an input, even if it does not exist.
    found = {name for one in each for name in (_matches(one) if glob.has_magic(one) else [_meant(one)])}
    if not found:
        yield _failing(pattern, InputError(ErrorKind.NOT_FOUND, "the pattern matches nothing", hint=folder_hint()))
    for name in sorted(found):
        yield from _expand_literal(name, options, walker)


def _matches(pattern: str) -> list[str]:
    """Return the paths that match a pattern as written, or else in another Unicode composition."""
    forms = dict.fromkeys((pattern, unicodedata.normalize("NFC", pattern), unicodedata.normalize("NFD", pattern)))
    return next(filter(None, map(patterns.matches, forms)), [])


def _expand_folder(folder: str, options: ReadOptions, walker: Walker) -> Iterator[Source]:
    before = walker.skipped.copy()
    is_empty = True
    for path, error in walker.images(folder):
        is_empty = False
        if error is None:
            yield Source(path, partial(read_file, path, options))
        else:
            hint = too_many_files_hint(error) or f"look at it: ls -ld {shell_word(path)}"
            yield _failing(path, InputError(ErrorKind.UNREADABLE, system_reason(error), hint=hint))
    if is_empty:
        yield _empty(folder, walker.skipped.since(before), walker)


def _empty(folder: str, skipped: Skipped, walker: Walker) -> Source:
    message = "no images in the folder"
    if skipped.links:
        message = f"the folder holds {skipped.links_in_words}, not followed, and no other images"
        error = InputError(ErrorKind.EMPTY, message, reason=Reason.ONLY_LINKS)
    elif skipped.files:
        reason = None if walker.all_files else Reason.NOT_NAMED_LIKE_IMAGES
        error = InputError(ErrorKind.EMPTY, message, hint=f"it holds {skipped.files_in_words}", reason=reason)
    else:
        hint = "its files are hidden: name them to read them" if skipped.hidden else "it is empty"
        error = InputError(ErrorKind.EMPTY, message, hint=hint)
    return _failing(folder, error)


def _expand_entries(
    entries: Iterable[bytes], options: ReadOptions, walker: Walker, *, null: bool
) -> Iterator[Source]:
    for entry in entries:
        text = os.fsdecode(entry)
        for name in [_meant(text)] if null else _listed(text):
            yield from _expand_literal(name, options, walker, typed=False)


def _listed(line: str) -> list[str]:
    """Return the file or URL in a line of a list; several if lines end in carriage returns only."""
    if name := spellings.of_list(line):
        return [name]
    lines = [text for text in line.split("\r") if text.strip()]
    if len(lines) > 1:
        return [name for text in lines for name in _listed(text)]
    return [_url_in(text) or text for text in lines]


def _failing(name: str, error: InputError) -> Source:
    def read() -> bytes:
        raise InputError(error.kind, error.message, **error.advice)

    return Source(name, read)
