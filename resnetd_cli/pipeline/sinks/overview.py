"""The overview of many images on a terminal: one line per image, and a summary at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from rich.table import Table
from rich.text import Text

from resnetd_cli.pipeline.sinks.screen import bar, columns, fit, fit_name, open_console
from resnetd_cli.results import Classified, Failure
from resnetd_cli.system.escaping import printable

_GAP = 2
_NAME, _CLASS, _PERCENT = 60, 30, 6
"""Maximum widths of a name, a class, and a percentage such as `100.0%`."""
_PERCENT_FROM, _BAR_FROM, _LONG_BAR_FROM = 36, 72, 100
"""The terminal widths from which these parts are shown."""
_CLASSES = 10
"""The number of classes in a summary."""
_NAMES = 3
"""The number of failed inputs of each kind in a summary."""


@dataclass(frozen=True)
class _Parts:
    """The width of each part of a line, in characters; 0 if there is no room for it."""

    name: int
    label: int
    percent: int
    bar: int


def _parts(width: int, longest_name: int) -> _Parts:
    percent = _PERCENT if width >= _PERCENT_FROM else 0
    bar = 0 if width < _BAR_FROM else 10 if width < _LONG_BAR_FROM else 20
    rest = width - sum(_GAP + part for part in (percent, bar) if part) - _GAP
    label = min(_CLASS, max(rest // 2, rest - longest_name))
    return _Parts(min(_NAME, rest - label, longest_name), label, percent, bar)


class OverviewSink:
    """One line per image with its most probable class or its error, and a summary at the end.

    Args:
        stream: the output.
        names: the names of the first images, which set the width of the name column.
        summary: end with the number of images of each class, and the failures.
    """

    def __init__(self, stream: IO[str], *, names: list[str] | None = None, summary: bool = True, **_: Any) -> None:
        self._console = open_console(stream)
        self._longest_name = max((columns(printable(name)) for name in names or []), default=_NAME)
        self._summary = summary
        self._began = time.monotonic()
        self._classes: Counter[tuple[int, str]] = Counter()
        self._abstained = 0
        self._failures: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._hints: dict[str, None] = {}

    def write(self, result: Classified | Failure) -> None:
        """Print the line of one result."""
        parts = _parts(self._console.width, self._longest_name)
        line = Text(fit_name(printable(result.input), parts.name))
        line.append(" " * _GAP)
        if isinstance(result, Failure):
            self._count_failure(result)
            line.append(self._rest(f"error: {result.message}", parts), style="red")
        elif result.abstained:
            self._abstained += 1
            line.append(self._rest("abstained", parts), style="yellow")
        else:
            best = result.predictions[0]
            self._classes[best.index, best.title] += 1
            line.append(fit(printable(best.title), parts.label))
            if parts.percent:
                line.append(f"{best.probability:{_GAP + parts.percent}.1%}")
            if parts.bar:
                line.append(" " * _GAP)
                line.append(bar(best.probability, parts.bar, self._console), style="green")
        self._print(line)

    def close(self) -> None:
        """Print the summary, and hints for the failures."""
        if not self._summary:
            return
        named = self._classes.total()
        failed = sum(count for count, _ in self._failures.values())
        if named + self._abstained + failed > 1:
            self._print_summary(named, failed)
        for hint in self._hints:
            self._print(Text(f"hint: {printable(hint)}", style="dim"))

    def _print_summary(self, named: int, failed: int) -> None:
        total = named + self._abstained + failed
        seconds = time.monotonic() - self._began
        parts = [f"{named:,} classified", f"{self._abstained:,} abstained", f"{failed:,} failed"]
        ends = ", ".join(part for part in parts if not part.startswith("0 "))
        self._print(Text())
        self._print(Text(f"{total:,} images in {seconds:.1f} s: {ends}", style="bold"))
        counts = Table.grid("", "", padding=(0, _GAP))
        counts.columns[0].justify = "right"
        for count, words, style in (*self._class_counts(named), *self._failure_counts()):
            counts.add_row(Text(f"  {count:,}"), Text(words, style=style, overflow="fold"))
        self._console.print(counts)

    def _class_counts(self, named: int) -> Iterator[tuple[int, str, str]]:
        shown = self._classes.most_common(_CLASSES)
        for (_, title), count in shown:
            yield count, printable(title), ""
        others = len(self._classes) - len(shown)
        if others:
            rest = named - sum(count for _, count in shown)
            yield rest, f"in {others:,} other {'class' if others == 1 else 'classes'}", "dim"

    def _failure_counts(self) -> Iterator[tuple[int, str, str]]:
        for kind, (count, names) in self._failures.items():
            others = count - len(names)
            yield count, f"{kind}: {', '.join(names)}{f' and {others:,} more' if others else ''}", "red"

    def _count_failure(self, failure: Failure) -> None:
        count, names = self._failures.get(failure.kind.value, (0, ()))
        names += (printable(failure.input),) if count < _NAMES else ()
        self._failures[failure.kind.value] = count + 1, names
        if failure.hint and len(self._hints) < _NAMES:
            self._hints[failure.hint] = None

    def _rest(self, text: str, parts: _Parts) -> str:
        """Return a text cut to the width left beside the name."""
        width = self._console.width - parts.name - _GAP
        return fit(printable(text), width, keep_left=1).rstrip()

    def _print(self, line: Text) -> None:
        line.rstrip()
        self._console.print(line)
