"""The loop that writes results to a sink, prints failures and decides the exit code."""

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
from resnetd_cli.system.memory import return_large_blocks

_FIRST = 200
"""InputArguments whose names are looked at before the first answer."""


def tell_engine(classifier: Classifier) -> None:
    """With `-v`, say what runs the model and why."""
    if terminal.verbose:
        precision = "" if classifier.precision == FP32 else f" in {classifier.precision}"
        terminal.note(f"{classifier.name} runs on {classifier.engine.name}{precision}: {classifier.why}")


def tell_failure(failure: Failure) -> None:
    """Tell of an input that has no answer."""
    terminal.error(InputError(failure.kind, failure.message, **failure.advice), about=failure.input)


def with_hint(failure: Failure) -> Failure:
    """Return a failure with its hint in the words of the running command's options."""
    return replace(failure, hint=terminal.hint(failure), reason=None)


class Failures:
    """Tells of inputs that have no answer, and remembers that there were some."""

    def __init__(self) -> None:
        self.exit_code = ExitCode.OK
        self._told: set[str] = set()

    def tell_once(self, failure: Failure) -> None:
        """Tell of one, unless an input of this name was told of before: another model may have failed on it."""
        if failure.input not in self._told:
            self._told.add(failure.input)
            self.tell(failure)

    def tell(self, failure: Failure) -> None:
        """Tell of one."""
        self.exit_code = ExitCode.PARTIAL
        tell_failure(failure)


def look_ahead(sources: Iterator[Source]) -> tuple[list[Source], Iterator[Source]]:
    """Return the first sources, and all of them, of which none has been read."""
    first = list(islice(sources, _FIRST))
    return first, chain(first, sources)


def drain(
    results: Iterable[Any],
    write: Callable[[Any], None],
    inputs: InputArguments,
    *,
    fail_fast: bool,
    told: bool = False,
) -> ExitCode:
    """Write each result as it comes and tell of each failure; return how it all ended.

    Args:
        results: what comes of the inputs.
        write: takes each.
        inputs: what they are of.
        fail_fast: raise at the first failure.
        told: `write` shows failures where stderr goes, too, and a summary with what was skipped follows.
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
                if not told:
                    tell_failure(result)
    if not told:
        inputs.tell_skipped()
    if not total:
        terminal.note("no inputs")
    elif failed and total > 1 and not told:
        terminal.note(f"{failed} of {total} inputs failed")
    return ExitCode.PARTIAL if failed else ExitCode.OK
