"""The outputs of a command: checked before the work, opened after it."""

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
    """Where a command's records go, and in which format.

    Attributes:
        path: a file; None for standard output.
        format: `table`, `tsv`, `csv`, `json`, `jsonl`, or for the facts of one thing `pairs`.
        overwrite: replace a file that is there.
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
        """Find out what the options mean, and that it can be written.

        Args:
            format_name: what the user asked for.
            output: where to; None and `-` for standard output.
            overwrite: it may be there already.
            elsewhere: as in `choose_format`.
            reads: as in `check_outputs`.

        Raises:
            UsageError, OutputError: it cannot, or the file's name does not tell the format.
        """
        path = as_path(output)
        check_outputs(path, overwrite=overwrite, reads=reads)
        terminal = is_tty(sys.stdout)
        format_name = choose_format(format_name, path, terminal=terminal, elsewhere=elsewhere)
        return cls(path, format_name, overwrite)

    def open(self) -> AbstractContextManager[IO[str]]:
        """Open it."""
        return open_text(self.path, overwrite=self.overwrite)


def as_path(output: Path | None) -> Path | None:
    """Return where to write, None for standard output, which `-o -` and `-o /dev/stdout` mean too."""
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
    """Find out before any work that a result could not be written, or would replace what is not to be lost.

    Args:
        paths: the outputs; None is standard output.
        overwrite: replace files that are there.
        reads: the files that the command reads, in so far as they are known, `-` and None among them.

    Raises:
        UsageError, OutputError: see `check_writable`; two outputs are one file; or one is an input, or an image.
    """
    wanted = [path for path in paths if path is not None]
    for position, path in enumerate(wanted):
        if path.absolute() in map(Path.absolute, wanted[:position]):
            raise UsageError(f"two outputs would be written to {path}", hint="give each a name of its own")
    check_protected(*paths, reads=reads)
    for path in wanted:
        check_writable(path, overwrite=overwrite)
        check_name(path)
