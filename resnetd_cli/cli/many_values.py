"""Options that take several values, as the shell's globs give them: `--verify a.jpg b.jpg`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from typer.core import TyperCommand


class ManyValuesCommand(TyperCommand):
    """A command whose list options take all the words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        options = {name for parameter in self.params if parameter.multiple for name in parameter.opts}
        return super().parse_args(ctx, list(_repeat(args, options)))


def _repeat(words: Iterable[str], options: Collection[str]) -> Iterator[str]:
    """Put its option before each value: `--verify a b` becomes `--verify a --verify b`."""
    option: str | None = None
    has_value = True
    for word in words:
        if not word.startswith("-") or word == "-":
            if option:
                yield option
                has_value = True
            yield word
            continue
        if option and not has_value:
            yield option  # without any: the parser says so
        option, has_value = (word, False) if word in options else (None, True)
        if option is None:
            yield word
    if option and not has_value:
        yield option
