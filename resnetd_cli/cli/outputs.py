"""Where a command writes: checked before the work, opened after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from resnetd_cli import sinks
from resnetd_cli.cli.console import is_tty
from resnetd_cli.errors import OutputError, UsageError
from resnetd_cli.files import check_writable, open_atomic_text


@dataclass(frozen=True)
class TextOutput:
    """Where a command's records go, and in which format.

    Attributes:
        path: a file; None for standard output.
        format: `table`, `tsv`, `csv`, `json` or `jsonl`.
    """

    path: Path | None
    format: str

    @classmethod
    def choose(cls, format_name: str, output: Path | None, *, overwrite: bool) -> TextOutput:
        """Find out what the options mean, and that it can be written.

        Raises:
            UsageError, OutputError: it cannot, or the file's name does not tell the format.
        """
        path = as_path(output)
        check_outputs(path, overwrite=overwrite)
        return cls(path, sinks.choose_format(format_name, path, terminal=is_tty(sys.stdout)))

    def open(self) -> AbstractContextManager[IO[str]]:
        """Open it."""
        return open_text(self.path)


def as_path(output: Path | None) -> Path | None:
    """Return where to write, None for standard output, which `-o -` means too."""
    return None if output is None or str(output) == "-" else output


@contextmanager
def open_text(output: Path | None) -> Iterator[IO[str]]:
    """Open the output, or standard output, for UTF-8 text; bytes of names that are not UTF-8 pass through."""
    if output is None:
        if sys.stdout is None:
            raise OutputError("standard output is closed", hint="-o FILE writes to a file")
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
        yield sys.stdout
    else:
        with open_atomic_text(output) as file:
            yield file


def check_outputs(*paths: Path | None, overwrite: bool) -> None:
    """Find out before any work that a result could not be written.

    Raises:
        UsageError, OutputError: see `check_writable`; or two outputs are one file.
    """
    wanted = [path for path in paths if path is not None]
    for position, path in enumerate(wanted):
        if path.absolute() in map(Path.absolute, wanted[:position]):
            raise UsageError(f"two outputs would be written to {path}", hint="give each a name of its own")
        check_writable(path, overwrite=overwrite)
