"""Mistyped command lines: `help` for `--help`, a missing command, a file name such as `-kitten.jpg`."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.sources.expand import names_input
from resnetd_cli.system.escaping import printable, shell_word

_HELP = ("--help", "-h")
_WORDS_SHOWN = 4


def understood(arguments: list[str], commands: Mapping[str, Any]) -> list[str]:
    """Return the command line as intended: `help predict` becomes `predict --help`.

    Raises:
        UsageError: it does not begin with a command, or the name of a file looks like an option.
    """
    first, *others = arguments or [""]
    if first == "help":
        return understood([*others[:1], "--help"], commands)
    if first in commands:
        _refuse_files_like_options(others, _names_of_options(commands[first]))
    elif first and (first == "-" or not first.startswith("-")):
        raise UsageError(f"no command called '{printable(first)}'", hint=_hint(first, arguments, commands))
    elif any(map(names_input, arguments)):
        raise UsageError("no command", hint=_with_inputs("predict", arguments))
    return arguments


def _hint(first: str, arguments: list[str], commands: Collection[str]) -> str:
    if names_input(first):
        return _with_inputs("predict", arguments)
    if near := get_close_matches(first, commands, n=1):
        return _with_inputs(near[0], arguments[1:])
    return "resnetd --help lists the commands"


def _with_inputs(command: str, arguments: list[str]) -> str:
    """Return a command line that can be pasted into a shell; only its first words if it is long."""
    words = [_pasted(word) for word in arguments[:_WORDS_SHOWN]]
    return " ".join(["resnetd", command, *words, *(["..."] if len(arguments) > _WORDS_SHOWN else [])])


def _pasted(word: str) -> str:
    return shell_word(word) if word != "-" and names_input(word) else shlex.quote(word)


def _refuse_files_like_options(words: Iterable[str], options: Collection[str]) -> None:
    """Refuse file names, as a shell's glob yields them, that would be parsed as options.

    Raises:
        UsageError: a word names an existing file, starts with a dash, and is not an option.
    """
    for word in words:
        if word == "--":
            return
        if word.startswith("-") and word != "-" and word.partition("=")[0] not in options and names_input(word):
            hint = f"write {shell_word(word)}, or put -- before the names"
            raise UsageError(f"{printable(word)} is a file, but looks like an option", hint=hint)


def _names_of_options(command: Any) -> frozenset[str]:
    names = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    return frozenset([*_HELP, *names])
