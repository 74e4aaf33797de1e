"""Write record and array files atomically: they get their name when complete; an aborted run keeps `.partial`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from resnetd_cli.cli.console import is_tty, terminal
from resnetd_cli.cli.outputs import open_binary_stdout, open_text
from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.sinks.arrays import ArraySink, ArrayStream, index_path, open_array_sink
from resnetd_cli.pipeline.sinks.base import open_sink
from resnetd_cli.results import Classified, Failure
from resnetd_cli.system.files import TEXT, OutputFile, is_stream, open_stream

Arrays = ArraySink | ArrayStream


class Records:
    """Writes records one by one to a file or to standard output.

    A file gets its name at the end. If the run ends early, the records so far, if any, are kept in a partial
    file, and a note says so.

    Args:
        path: the file; None for standard output.
        format_name: as in `sinks.base.open_sink`.
        overwrite: replace an existing file.
        keep: keep the records so far if an error ends the run. After an interrupt they are always kept.
        options: the sink's options.
    """

    def __init__(
        self, path: Path | None, format_name: str, *, overwrite: bool, keep: bool, **options: Any
    ) -> None:
        self._path = path
        self._format = format_name
        self._overwrite = overwrite
        self._keep = keep
        self._options = options
        self._file: OutputFile | None = None
        self._count = self._failed = 0

    def __enter__(self) -> Records:
        with ExitStack() as stack:
            if self._path is None or is_stream(self._path):
                self._stream = stack.enter_context(open_text(self._path, overwrite=self._overwrite))
            else:
                self._file = OutputFile(self._path, overwrite=self._overwrite)
                stack.callback(self._file.discard)
                self._stream = self._file.open("w", **TEXT)
            self._sink = open_sink(self._format, self._stream, **self._options)
            if self._file:
                self._file.mark(0)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            if self._file is None:
                self._sink.close()
            elif kind is None:
                self._publish(self._file)
            elif self._keep or not issubclass(kind, Exception):
                self._keep_partial(self._file)
        if kind is None and self._file:
            failed = f", {self._failed:,} of them failed" if self._failed else ""
            terminal.note(f"{self._path}: {_inputs(self._count)}{failed}")

    def write(self, result: Classified | Failure) -> None:
        """Write one record."""
        with self._file.reporting() if self._file else nullcontext():
            self._sink.write(result)
            self._stream.flush()
        self._count += 1
        self._failed += isinstance(result, Failure)
        if self._file:
            self._file.mark(self._count)

    def _publish(self, file: OutputFile) -> None:
        try:
            with file.reporting():
                self._sink.close()
            file.publish()
        except BaseException:
            self._keep_partial(file)
            raise

    def _keep_partial(self, file: OutputFile) -> None:
        if file.is_settled or not file.records:
            return
        file.rewind()
        with suppress(OSError):
            self._sink.close()
        if file.keep():
            terminal.note(f"the run ended early: {file.partial} holds the first {_inputs(file.records)}")


def _inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count:,} inputs"


@contextmanager
def open_arrays(sink: Arrays) -> Iterator[Arrays]:
    """Open an array sink, and print a note if only a part of the array was kept."""
    try:
        with sink:
            yield sink
    finally:
        if sink.kept:
            rows = "1 row" if sink.rows == 1 else f"{sink.rows:,} rows"
            terminal.note(f"the run ended early: {sink.kept} and its index hold the first {rows}")


def array_sink(path: Path | None, *, overwrite: bool, keep: bool, escape_formulas: bool) -> Arrays:
    """Return the sink for an array: a file with an index, or standard output, a pipe or a device without one.

    Raises:
        UsageError: the file's suffix stands for no format, or standard output is a terminal.
    """
    if path is None:
        if is_tty(sys.stdout):
            raise UsageError("an array cannot be shown on a terminal", hint="-o feats.npy, or | another program")
        return ArrayStream(open_binary_stdout)
    if is_stream(path):
        return ArrayStream(partial(open_stream, path))
    return open_array_sink(path, overwrite=overwrite, keep=keep, escape_formulas=escape_formulas)


def array_paths(path: Path | None) -> list[Path | None]:
    """Return the files to which an array and its index are written."""
    return [path] if path is None or is_stream(path) else [path, index_path(path)]
