"""Where results go: the protocol, and the one table of formats."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from resnetd_cli.errors import UsageError

if TYPE_CHECKING:
    from resnetd_cli.pipeline.sinks.arrays import ArraySink
    from resnetd_cli.results import Classified, Failure


class Sink(Protocol):
    """Takes results one by one. `close` makes what was written complete."""

    def write(self, result: Classified | Failure) -> None:
        """Write one result."""
        ...

    def close(self) -> None:
        """Write what belongs at the end."""
        ...


RECORD_FORMATS = {
    "table": "resnetd_cli.pipeline.sinks.table:TableSink",
    "tsv": "resnetd_cli.pipeline.sinks.text:TsvSink",
    "csv": "resnetd_cli.pipeline.sinks.text:CsvSink",
    "json": "resnetd_cli.pipeline.sinks.text:JsonSink",
    "jsonl": "resnetd_cli.pipeline.sinks.text:JsonLinesSink",
}
_VIEWS = {
    "lines": "resnetd_cli.pipeline.sinks.lines:LinesSink",
}
"""What only `auto` stands for."""
ARRAY_FORMATS = {
    ".npy": "resnetd_cli.pipeline.sinks.arrays:npy",
    ".npz": "resnetd_cli.pipeline.sinks.arrays:npz",
    ".safetensors": "resnetd_cli.pipeline.sinks.arrays:safetensors",
}
_SUFFIXES = {
    ".txt": "table",
    ".tsv": "tsv",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def choose_format(
    wanted: str, output: Path | None, *, terminal: bool, on_terminal: str = "table", elsewhere: str = "tsv"
) -> str:
    """Return the record format that `auto` stands for; any other stands for itself.

    Args:
        wanted: what the user asked for.
        output: a file, whose suffix tells; None for standard output.
        terminal: standard output is one.
        on_terminal: the format there: `table`, or `lines`.
        elsewhere: the format in a pipe, and in a file without a suffix: `tsv`, or `pairs`.

    Raises:
        UsageError: the output's suffix does not tell.
    """
    if wanted != "auto":
        return wanted
    if output is None:
        return on_terminal if terminal else elsewhere
    if not output.suffix:
        return elsewhere
    try:
        return _SUFFIXES[output.suffix.lower()]
    except KeyError:
        names = ", ".join(RECORD_FORMATS)
        raise UsageError(f"{output}: the name does not tell the format", hint=f"-f chooses it: {names}") from None


def open_sink(format_name: str, stream: IO[str], **options: Any) -> Sink:
    """Return the sink of a record format, writing to the stream."""
    sink: Sink = _load((RECORD_FORMATS | _VIEWS)[format_name])(stream, **options)
    return sink


def open_array_sink(path: Path, **options: Any) -> ArraySink:
    """Return the sink of an array file, by its suffix.

    Raises:
        UsageError: the suffix is not one of them.
    """
    try:
        target = ARRAY_FORMATS[path.suffix.lower()]
    except KeyError:
        endings = ", ".join(ARRAY_FORMATS)
        raise UsageError(f"{path}: not a name for features", hint=f"end it in one of {endings}") from None
    sink: ArraySink = _load(target)(path, **options)
    return sink


def index_path(path: Path) -> Path:
    """Return the name of the index that lies beside an array file."""
    return path.with_name(f"{path.name}.index.csv")


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
