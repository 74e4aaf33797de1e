"""The loop that writes results to a sink, reports failed inputs and decides the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from resnetd_cli.classifier import Classifier
from resnetd_cli.cli.console import is_tty, terminal
from resnetd_cli.cli.input_arguments import InputArguments
from resnetd_cli.errors import ExitCode, InputError, ResnetdError
from resnetd_cli.pipeline.engines.base import FP32
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Failure
from resnetd_cli.system.cpus import cpu_limit
from resnetd_cli.system.memory import return_large_blocks

_FIRST = 200
"""The number of inputs whose names are known before the first result."""


def report_engine(classifier: Classifier) -> None:
    """With `-v`, print which engine runs the model, and why; and which limit on processors was found."""
    if terminal.verbose:
        precision = "" if classifier.precision == FP32 else f" in {classifier.precision}"
        terminal.note(f"{classifier.name} runs on {classifier.engine.name}{precision}: {classifier.why}")
        if limit := cpu_limit():
            terminal.note(f"processors: {limit}")


def report_failure(failure: Failure) -> None:
    """Print the error of a failed input."""
    terminal.error(InputError(failure.kind, failure.message, **failure.advice), about=failure.input)


def with_hint(failure: Failure) -> Failure:
    """Return a failure with its hint worded for the running command's options."""
    return replace(failure, hint=terminal.hint(failure), reason=None)


class Failures:
    """Reports failed inputs, and sets the exit code if there were any."""

    def __init__(self) -> None:
        self.exit_code = ExitCode.OK
        self._reported: set[str] = set()

    def report_once(self, failure: Failure) -> None:
        """Report a failed input, unless it was reported before: several models may fail on it."""
        if failure.input not in self._reported:
            self._reported.add(failure.input)
            self.report(failure)

    def report(self, failure: Failure) -> None:
        """Report a failed input."""
        self.exit_code = ExitCode.PARTIAL
        report_failure(failure)


def look_ahead(sources: Iterator[Source]) -> tuple[list[Source], Iterator[Source]]:
    """Return the first sources, and an iterator over all of them; none has been read yet."""
    first = list(islice(sources, _FIRST))
    return first, chain(first, sources)


def drain(
    results: Iterable[Any],
    write: Callable[[Any], None],
    inputs: InputArguments,
    *,
    fail_fast: bool,
    reported: bool = False,
) -> ExitCode:
    """Write each result as it arrives, report each failure, and return the exit code.

    Args:
        results: the results of the inputs.
        write: writes one result.
        inputs: the inputs.
        fail_fast: raise at the first failure.
        reported: `write` already shows failures on the same terminal as stderr, and a summary of them follows.
    """
    return_large_blocks()
    total = failed = 0
    stdout_is_terminal = is_tty(sys.stdout)
    with terminal.tracking(inputs.count, wanted=not (inputs.single or inputs.typed)) as track:
        for answer in track(results):
            result = with_hint(answer) if isinstance(answer, Failure) else answer
            with terminal.print_through() if stdout_is_terminal else nullcontext():
                write(result)
            total += 1
            if isinstance(result, Failure):
                failed += 1
                if fail_fast:
                    raise ResnetdError(f"{result.input}: {result.message}", **result.advice)
                if not reported:
                    report_failure(result)
    if not reported:
        inputs.report_skipped()
    if not total:
        terminal.note("no inputs")
    elif failed and total > 1 and not reported:
        terminal.note(f"{failed} of {total} inputs failed")
    return ExitCode.PARTIAL if failed else ExitCode.OK
