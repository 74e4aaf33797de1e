"""The INPUTs of one command line, checked, and as sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resnetd_cli import sources as library
from resnetd_cli.errors import UsageError
from resnetd_cli.reading import DEFAULT_READING, ReadOptions


def images_of(option: str, texts: list[str] | None) -> list[library.Source] | None:
    """Return the images that an option names; None where it is not given.

    Raises:
        UsageError: there is none, or standard input, which cannot be read twice, is among them.
    """
    if not texts:
        return None
    if library.STDIN in texts:
        raise UsageError(f"{option} does not read standard input", hint="name files, folders or globs")
    return list(library.expand(texts))


@dataclass(frozen=True)
class Inputs:
    """What the user named: INPUTs, or a list of them.

    Raises:
        UsageError: there is nothing, or standard input is wanted twice.
    """

    texts: list[str]
    files_from: str | None = None
    null: bool = False

    def __post_init__(self) -> None:
        if self.null and self.files_from is None:
            raise UsageError(
                "--null goes with --files-from", hint="find . -print0 | resnetd ... --files-from - --null"
            )
        if not self.texts and self.files_from is None:
            raise UsageError("no input", hint="name a file, a folder, a glob, a URL, or - for standard input")
        if [*self.texts, self.files_from].count(library.STDIN) > 1:
            raise UsageError("standard input can be read only once", hint="write - in one place")

    @property
    def single(self) -> bool:
        """Whether there is exactly one image, as far as can be told without reading anything."""
        return self.files_from is None and library.is_single(self.texts)

    def sources(self, options: ReadOptions = DEFAULT_READING) -> Iterator[library.Source]:
        """Yield the inputs, in order: first those named, then those of the list.

        Raises:
            UsageError: the list cannot be read.
        """
        listed = (
            iter(())
            if self.files_from is None
            else library.expand_list(self.files_from, null=self.null, options=options)
        )
        return self._chain(listed, options)

    def _chain(self, listed: Iterator[library.Source], options: ReadOptions) -> Iterator[library.Source]:
        yield from library.expand(self.texts, options)
        yield from listed

    def count(self) -> int | None:
        """Return how many inputs there are; None for a list, which may not have ended."""
        return None if self.files_from is not None else sum(1 for _ in library.expand(self.texts))
