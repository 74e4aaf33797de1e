"""Tables for people: one for each image."""

from __future__ import annotations

from typing import IO, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from resnetd_cli.escaping import printable
from resnetd_cli.results import Classified, Failure
from resnetd_cli.sinks.screen import bar, open_console

_BAR = 20
"""Width of a full probability bar, in characters."""
_BAR_FROM = 78
"""Narrower terminals show no bars."""


class TableSink:
    """A Rich table for each image; a failed input is a line.

    Args:
        stream: where to.
        failures: print failed inputs; not wanted where stderr, which tells of them, goes to the same terminal.
    """

    def __init__(self, stream: IO[str], *, failures: bool = True, **_: Any) -> None:
        self._console = open_console(stream)
        self._failures = failures

    def write(self, result: Classified | Failure) -> None:
        """Print one result."""
        if isinstance(result, Failure) and not self._failures:
            return
        name = Text(printable(result.input), style="bold", overflow="fold")
        if isinstance(result, Failure):
            answer: Text | Table = Text(f"  {result.kind.value}: {printable(result.message)}\n", style="red")
        elif result.abstained:
            answer = Text("  abstained: no class is as probable as asked for\n", style="yellow")
        else:
            answer = self._table(result)
        # In one go: an interrupt leaves no name without its answer.
        self._console.print(Group(name, answer))

    def close(self) -> None:
        """Nothing belongs at the end."""

    def _table(self, result: Classified) -> Table:
        with_bar = self._console.width >= _BAR_FROM
        with_id = any(item.id for item in result.predictions)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("#", justify="right", style="dim")
        table.add_column("class", overflow="fold")
        table.add_column("index", justify="right", style="dim")
        if with_id:
            table.add_column("id", style="dim", no_wrap=True)
        table.add_column("probability", justify="right", no_wrap=True)
        if with_bar:
            table.add_column("", no_wrap=True)
        for item in result.predictions:
            cells: list[str | Text] = [str(item.rank), Text(printable(item.title)), str(item.index)]
            cells += [Text(printable(item.id or ""))] if with_id else []
            cells += [f"{item.probability:.2%}"]
            cells += [Text(bar(item.probability, _BAR, self._console), style="green")] if with_bar else []
            table.add_row(*cells)
        return table
