"""A command's outputs (`-o`, `-f`, standard output): checked before the work, opened after it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from resnetd_cli.cli.console import is_tty
from resnetd_cli.cli.protected_files import Named, check_name, check_protected
from resnetd_cli.errors import OutputError, UsageError
from resnetd_cli.pipeline.sinks.base import choose_format
from resnetd_cli.system.files import check_writable, descriptor_of, open_atomic_text

_STDOUT = 1


@dataclass(frozen=True)
class TextOutput:
    """Where a command writes its records, and in which format.

    Attributes:
        path: a file; None for standard output.
        format: `table`, `tsv`, `csv`, `json`, `jsonl`, or for the facts of one thing `pairs`.
        overwrite: replace an existing file.
    """

    path: Path | None
    format: str
    overwrite: bool = False

    @classmethod
    def choose(
        cls,
        format_name: str,
        output: Path | None,
        *,
        overwrite: bool,
        elsewhere: str = "tsv",
        reads: Iterable[Named] = (),
    ) -> TextOutput:
        """Resolve the options, and check that the output can be written.

        Args:
            format_name: the format the user asked for.
            output: the output; None and `-` for standard output.
            overwrite: replace an existing file.
            elsewhere: as in `choose_format`.
            reads: as in `check_outputs`.

        Raises:
            UsageError, OutputError: it cannot be written, or its suffix stands for no format.
        """
        path = as_path(output)
        check_outputs(path, overwrite=overwrite, reads=reads)
        terminal = is_tty(sys.stdout)
        format_name = choose_format(format_name, path, terminal=terminal, elsewhere=elsewhere)
        return cls(path, format_name, overwrite)

    def open(self) -> AbstractContextManager[IO[str]]:
        """Open the output for text."""
        return open_text(self.path, overwrite=self.overwrite)


def as_path(output: Path | None) -> Path | None:
    """Return the path to write to; None for standard output, including `-o -` and `-o /dev/stdout`."""
    if output is None or str(output) == "-" or descriptor_of(output) == _STDOUT:
        return None
    return output


@contextmanager
def open_text(output: Path | None, *, overwrite: bool = False) -> Iterator[IO[str]]:
    """Open the output, or standard output, for UTF-8 text; bytes of names that are not UTF-8 pass through."""
    if output is None:
        stdout = _stdout()
        if hasattr(stdout, "reconfigure"):
            stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
        yield stdout
    else:
        with open_atomic_text(output, overwrite=overwrite) as file:
            yield file


@contextmanager
def open_binary_stdout() -> Iterator[IO[bytes]]:
    """Open standard output for bytes."""
    yield _stdout().buffer


def _stdout() -> TextIO:
    if sys.stdout is None:
        raise OutputError("standard output is closed", hint="-o FILE writes to a file")
    return sys.stdout


def check_outputs(*paths: Path | None, overwrite: bool, reads: Iterable[Named] = ()) -> None:
    """Check before any work that outputs can be written, and would not replace an input or an image.

    Args:
        paths: the outputs; None is standard output.
        overwrite: replace existing files.
        reads: the files that the command reads, as far as they are known; `-` and None are allowed.

    Raises:
        UsageError, OutputError: see `check_writable`; two outputs are one file; or one is an input, or an image.
    """
    wanted = [path for path in paths if path is not None]
    for position, path in enumerate(wanted):
        if path.absolute() in map(Path.absolute, wanted[:position]):
            raise UsageError(f"two outputs would be written to {path}", hint="give each its own name")
    check_protected(*paths, reads=reads)
    for path in wanted:
        check_writable(path, overwrite=overwrite)
        check_name(path)
