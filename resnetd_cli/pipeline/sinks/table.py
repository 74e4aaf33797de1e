"""The `table` format, for people: one Rich table per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

from rich import box
from rich.console import Group
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from resnetd_cli.pipeline.sinks.base import Listing
from resnetd_cli.pipeline.sinks.screen import bar, open_console
from resnetd_cli.results import Classified, Failure
from resnetd_cli.system.escaping import printable

_BAR = 20
"""Width of a full probability bar, in characters."""
_DROPPED = ("bar", "index", "id", "rank", "header")
"""The parts that are dropped on a narrow terminal, in this order."""
_UNBOUNDED = 10_000
"""Columns."""


class TableSink:
    """A Rich table per image; a failed input is one line.

    Args:
        stream: the output.
        failures: print failed inputs; False if stderr reports them on the same terminal.
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
            answer = Text("  abstained: no class reaches the minimum probability\n", style="yellow")
        else:
            answer = self._table(result)
        # In one call, so that an interrupt cannot separate the name from its table.
        self._console.print(Group(name, answer))

    def close(self) -> None:
        """Do nothing: the format has no end."""

    @staticmethod
    def write_listing(listing: Listing, stream: IO[str], **_: bool) -> None:
        """Print the listing for people."""
        listing.draw(stream)

    def _table(self, result: Classified) -> Table:
        """Return the table with as many parts as fit the terminal without breaking words."""
        options = self._console.options.update(max_width=_UNBOUNDED)
        for count in range(len(_DROPPED) + 1):
            table = self._table_without(_DROPPED[:count], result)
            if Measurement.get(self._console, options, table).minimum <= self._console.width:
                break
        return table

    def _table_without(self, dropped: Sequence[str], result: Classified) -> Table:
        with_id = any(item.id for item in result.predictions)
        columns = {
            "rank": Column("#", justify="right", style="dim"),
            "class": Column("class", overflow="fold"),
            "index": Column("index", justify="right", style="dim", no_wrap=True),
            "id": Column("id", style="dim", no_wrap=True),
            "probability": Column("probability", justify="right", no_wrap=True),
            "bar": Column("", no_wrap=True),
        }
        keys = [key for key in columns if key not in dropped and (with_id or key != "id")]
        shown = (columns[key] for key in keys)
        table = Table(*shown, box=box.SIMPLE_HEAD, pad_edge=False, show_header="header" not in dropped)
        for item in result.predictions:
            cells: dict[str, str | Text] = {
                "rank": str(item.rank),
                "class": Text(printable(item.title)),
                "index": str(item.index),
                "id": Text(printable(item.id or "")),
                "probability": f"{item.probability:.2%}",
                "bar": Text(bar(item.probability, _BAR, self._console), style="green"),
            }
            table.add_row(*(cells[key] for key in keys))
        return table
