"""Match globs as a shell does: `*`, `?`, `[abc]`, `**` for folders, and braces such as `{jpg,png}`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import product

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.sources.companions import is_companion
from resnetd_cli.system.escaping import printable

MAX_ALTERNATIVES = 1_000_000
"""The most names that the braces of one pattern may expand to."""
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_LONGEST_RANGE = 7
"""Digits."""


def is_pattern(text: str) -> bool:
    """Return whether a text has wildcards or braces."""
    return glob.has_magic(text) or "{" in text


def alternatives(text: str) -> list[str]:
    """Return what braces expand to, in order: `{a,b}.tar` and `part-{000..123}.tar`, also nested.

    Braces without a comma or a range are literal, as in bash.

    Raises:
        UsageError: there are more than `MAX_ALTERNATIVES`.
    """
    choices = [_choices(part) for part in _parts(text)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_ALTERNATIVES:
        message = f"{printable(text)} stands for {count:,} names"
        raise UsageError(message, hint="name the folder they are in, or use * instead of braces")
    return ["".join(chosen) for chosen in product(*choices)]


def matches(pattern: str) -> list[str]:
    """Return the existing paths that match a pattern without braces, sorted, without duplicates.

    Wildcards match no hidden and companion files unless the pattern spells out the start of the name: `.*`, `~$*`.
    `**` does not follow links, which may form cycles. It returns folders only if it matches no files.
    """
    found = sorted(set(_matches(pattern)))
    if "**" not in pattern:
        return found
    # `**` matches folders and the files in them: nothing may be counted twice.
    return [match for match in found if not os.path.isdir(match)] or _outermost(found)


def _parts(text: str) -> list[str]:
    """Split a text at its outermost pairs of braces, keeping the braces."""
    parts, start, at = [], 0, 0
    while (opening := text.find("{", at)) >= 0:
        closing = _closing(text, opening)
        if closing is None:
            at = opening + 1
            continue
        parts += [text[start:opening], text[opening : closing + 1]]
        start = at = closing + 1
    return [*parts, text[start:]]


def _closing(text: str, opening: int) -> int | None:
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return at
    return None


def _choices(part: str) -> list[str]:
    if not part.startswith("{") or not part.endswith("}"):
        return [part]
    inside = part[1:-1]
    if (numbers := _RANGE.fullmatch(inside)) and len(inside) <= 2 * _LONGEST_RANGE + 2:
        first, last = numbers.groups()
        step = 1 if int(first) <= int(last) else -1
        return [str(number).zfill(len(first)) for number in range(int(first), int(last) + step, step)]
    choices = _split(inside)
    if len(choices) == 1:
        return ["{" + inner + "}" for inner in alternatives(inside)]
    return [each for choice in choices for each in alternatives(choice)]


def _split(inside: str) -> list[str]:
    """Split at commas outside nested braces."""
    choices, depth = [""], 0
    for char in inside:
        depth += (char == "{") - (char == "}")
        if char == "," and not depth:
            choices.append("")
        else:
            choices[-1] += char
    return choices


def _matches(pattern: str) -> Iterator[str]:
    """Yield what a pattern matches, as `glob.iglob` does, except companion files, and links below `**`."""
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        yield from (match for match in glob.iglob(pattern) if not _matches_companion(parts, match))
        return
    at = parts.index("**")
    before, after = os.sep.join([*parts[:at], ""]), os.sep.join(parts[at + 1 :])
    for top in glob.iglob(before) if at else [""]:
        for folder in _folders(top):
            if not after and folder:
                yield folder
            if after or at == len(parts) - 1:
                yield from _matches(os.path.join(glob.escape(folder), after or "*"))


def _matches_companion(parts: list[str], match: str) -> bool:
    """Return whether a part of the pattern that begins with a wildcard matches a companion file."""
    names = filter(None, match.split(os.sep))
    return any(
        part[0] in "*?[" and is_companion(name) for part, name in zip(filter(None, parts), names, strict=False)
    )


def _folders(top: str) -> Iterator[str]:
    """Yield a folder and its subfolders, without hidden folders, companions and links."""
    levels = [iter([top])]
    while levels:
        folder = next(levels[-1], None)
        if folder is None:
            levels.pop()
            continue
        yield folder
        with suppress(OSError), os.scandir(folder or os.curdir) as entries:
            levels.append(
                iter(
                    [
                        os.path.join(folder, entry.name)
                        for entry in entries
                        if not is_companion(entry.name) and entry.is_dir(follow_symlinks=False)
                    ]
                )
            )


def _outermost(folders: list[str]) -> list[str]:
    """Return the folders that are not inside another one of them."""
    inside = [folder.rstrip(os.sep) + os.sep for folder in folders]
    return [
        folder for folder in folders if not any(folder.startswith(outer) for outer in inside if outer != folder)
    ]
