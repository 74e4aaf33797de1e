"""INPUT arguments and `--files-from`: check them and turn them into sources."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from resnetd_cli.cli.console import is_tty, terminal
from resnetd_cli.cli.hints import hint_for
from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.sources.expand import Source, expand, expand_list, is_single
from resnetd_cli.pipeline.sources.folders import Skipped, Walker
from resnetd_cli.pipeline.sources.lists import STDIN
from resnetd_cli.pipeline.sources.reading import DEFAULT_READING, ReadOptions


def images_of(option: str, texts: list[str] | None) -> list[Source] | None:
    """Return the images that an option names, and note what was skipped; None if it is not given.

    Raises:
        UsageError: there are no images, or standard input, which cannot be read twice, is among them.
    """
    if not texts:
        return None
    if STDIN in texts:
        raise UsageError(f"{option} does not read standard input", hint="name files, folders or globs")
    walker = Walker()
    images = list(expand(texts, walker=walker))
    for note in walker.notes():
        terminal.note(f"{option}: {note.text}")
    return images


@dataclass(frozen=True)
class InputArguments:
    """The inputs that the user named: INPUT arguments, or a list.

    Attributes:
        texts: INPUTs.
        files_from: a list of inputs, `-` for standard input.
        null: its entries end with NUL.
        all_files: see `Walker`.
        follow: see `Walker`.

    Raises:
        UsageError: there are no inputs, or standard input would be read twice.
    """

    texts: list[str]
    files_from: str | None = None
    null: bool = False
    all_files: bool = False
    follow: bool = False

    def __post_init__(self) -> None:
        if self.null and self.files_from is None:
            raise UsageError(
                "--null requires --files-from", hint="find . -print0 | resnetd ... --files-from - --null"
            )
        if not self.texts and self.files_from is None:
            raise UsageError("no input", hint="name a file, a folder, a glob, a URL, or - for standard input")
        if [*self.texts, self.files_from].count(STDIN) > 1:
            raise UsageError("standard input can be read only once", hint="give - only once")

    @property
    def single(self) -> bool:
        """Whether there is exactly one image, as far as is known without reading anything."""
        return self.files_from is None and is_single(self.texts)

    @property
    def typed(self) -> bool:
        """Whether the inputs are typed on a terminal while the command runs."""
        return self.files_from == STDIN and is_tty(sys.stdin)

    def sources(self, options: ReadOptions = DEFAULT_READING) -> Iterator[Source]:
        """Yield the inputs in order: first the arguments, then the list.

        Raises:
            UsageError: the list cannot be read.
        """
        listed = (
            iter(())
            if self.files_from is None
            else expand_list(self.files_from, null=self.null, options=options, walker=self._walker)
        )
        return self._chain(listed, options)

    def _chain(self, listed: Iterator[Source], options: ReadOptions) -> Iterator[Source]:
        yield from expand(self.texts, options, self._walker)
        yield from listed

    def count(self) -> int | None:
        """Return the number of inputs; None for a list, which may still be growing."""
        if self.files_from is not None:
            return None
        return sum(1 for _ in expand(self.texts, walker=self._new_walker()))

    @property
    def skipped(self) -> Skipped:
        """The counts of what was skipped in folders so far."""
        return self._walker.skipped

    def report_skipped(self) -> None:
        """Note what was skipped in folders."""
        for text, reason in self._walker.notes():
            hint = hint_for(reason, terminal.options)
            terminal.note(f"{text} ({hint})" if hint else text)

    @cached_property
    def _walker(self) -> Walker:
        return self._new_walker()

    def _new_walker(self) -> Walker:
        return Walker(all_files=self.all_files, follow=self.follow)
