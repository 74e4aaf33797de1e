"""Options that take several values, such as the matches of a shell's glob: `--verify a.jpg b.jpg`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import zip_longest
from typing import Any

from typer.core import TyperCommand

from resnetd_cli.errors import UsageError


class ManyValuesCommand(TyperCommand):
    """A command whose options with a metavar ending in `...` take all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        many = (parameter for parameter in self.params if (parameter.metavar or "").endswith("..."))
        options = {name for parameter in many for name in parameter.opts if name.startswith("-")}
        return super().parse_args(ctx, list(_repeat(args, options)))


def _repeat(words: list[str], options: Collection[str]) -> Iterator[str]:
    """Repeat the option before each value: `--verify a b` becomes `--verify a --verify b`."""
    option: str | None = None
    for word, following in zip_longest(words, words[1:]):
        if not _is_option(word):
            yield from [option, word] if option else [word]
        elif word not in options:
            option = None
            yield word
        elif following is None or _is_option(following):
            raise UsageError(f"{word} requires an argument", hint=f"{word} INPUT...")
        else:
            option = word


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"
