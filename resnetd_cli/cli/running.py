"""What the commands that go through images share: outputs, and the loop from results to sinks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from resnetd_cli.classifier import Classifier
from resnetd_cli.cli.console import is_tty, terminal
from resnetd_cli.cli.inputs import Inputs
from resnetd_cli.errors import ExitCode, InputError, OutputError, ResnetdError, UsageError
from resnetd_cli.files import check_writable, open_atomic_text
from resnetd_cli.results import Failure


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


def tell_engine(classifier: Classifier) -> None:
    """With `-v`, say what runs the model and why."""
    if terminal.verbose:
        terminal.note(f"{classifier.name} runs on {classifier.engine.name}: {classifier.why}")


def tell_failure(failure: Failure) -> None:
    """Tell of an input that has no answer."""
    terminal.error(InputError(failure.kind, failure.message, hint=failure.hint), about=failure.input)


def finish(classifier: Classifier) -> None:
    """Do what was put off until the answers were given."""
    if classifier.afterwards:
        sys.stdout.flush()
        classifier.afterwards()


def drain(results: Iterable[Any], write: Callable[[Any], None], inputs: Inputs, *, fail_fast: bool) -> ExitCode:
    """Write each result as it comes and tell of each failure; return how it all ended."""
    total = failed = 0
    stdout_is_terminal = is_tty(sys.stdout)
    with terminal.tracking(inputs.count, wanted=not inputs.single) as track:
        for result in track(results):
            with terminal.print_through() if stdout_is_terminal else nullcontext():
                write(result)
            total += 1
            if isinstance(result, Failure):
                failed += 1
                if fail_fast:
                    raise ResnetdError(f"{result.input}: {result.message}", hint=result.hint)
                tell_failure(result)
    if not total:
        terminal.note("no inputs")
    elif failed and total > 1:
        terminal.note(f"{failed} of {total} inputs failed")
    return ExitCode.PARTIAL if failed else ExitCode.OK
