"""Lists and facts, as `list-models`, `labels`, `pull` and `info` print them, in every record format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from resnetd_cli.pipeline.sinks.base import Listing, write_listing
from resnetd_cli.system.escaping import printable

if TYPE_CHECKING:
    from rich.table import Table

ListingRow = Mapping[str, Any]
"""The cells of a row by key; a key may be missing."""
_PROSE = 20
_MARGIN = 3


def write_rows(
    rows: Sequence[ListingRow],
    stream: IO[str],
    format_name: str,
    *,
    header: bool = True,
    columns: Mapping[str, str],
    essential: str | None = None,
) -> None:
    """Write rows that have the same keys.

    Args:
        rows: the rows; the data formats write all their keys.
        stream: the output.
        format_name: `table`, `tsv`, `csv`, `json` or `jsonl`.
        header: start tsv and csv with the keys.
        columns: the keys that a table shows, with their headings.
        essential: the column that stays on the narrowest terminal; the first by default.
    """

    def draw(stream: IO[str]) -> None:
        _draw_table(rows, stream, columns, essential or next(iter(columns)))

    keys = list(rows[0]) if rows else []
    listing = Listing(list(rows), keys, (list(map(_cell, row.values())) for row in rows), draw)
    write_listing(listing, stream, format_name, header=header)


def write_facts(facts: Mapping[str, Any], stream: IO[str], format_name: str, *, shown: Mapping[str, str]) -> None:
    """Write the facts of one thing: a table of two columns, or one record.

    Args:
        facts: all facts; the data formats write them.
        stream: the output.
        format_name: as in `write_rows`, or `pairs`: lines of a key, a tab and a value, escaped as in tsv.
        shown: the headings and texts of a table.
    """
    row = list(map(_cell, facts.values()))
    listing = Listing(facts, list(facts), [row], lambda stream: draw_facts(shown, stream))
    write_listing(listing, stream, format_name)


def draw_facts(shown: Mapping[str, str], stream: IO[str]) -> None:
    """Print headings and texts as a table of two columns, or below each other where the terminal is narrow."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from resnetd_cli.pipeline.sinks.screen import open_console

    console = open_console(stream)
    beside = console.width - max(map(len, shown), default=0) >= _PROSE
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=beside, overflow="fold")
    if beside:
        table.add_column(overflow="fold")
    for heading, text in shown.items():
        value = Text(printable(text))
        if beside:
            table.add_row(heading, value)
        else:
            table.add_row(heading)
            table.add_row(Padding(value, (0, 0, 0, 2)), style="not bold")
    console.print(table)


def _draw_table(rows: Sequence[ListingRow], stream: IO[str], columns: Mapping[str, str], essential: str) -> None:
    """Print a table with the columns that fit the terminal, dropping those at the right first."""
    from resnetd_cli.pipeline.sinks.screen import open_console

    console = open_console(stream)
    keys = list(columns)
    while len(keys) > 1 and sum(_least_width(rows, key, columns[key]) for key in keys) > console.width:
        keys.remove([key for key in keys if key != essential][-1])
    console.print(_table(rows, keys, columns))


def _least_width(rows: Sequence[ListingRow], key: str, heading: str) -> int:
    """Return the width that a column needs, with its margins; prose may wrap to a few words a line."""
    from rich.cells import cell_len

    texts = [heading, *(printable(_cell(row[key])) for row in rows)]
    widest = max(map(cell_len, texts))
    return _MARGIN + (min(widest, _PROSE) if any(" " in text for text in texts[1:]) else widest)


def _table(rows: Sequence[ListingRow], keys: Sequence[str], columns: Mapping[str, str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key in keys:
        is_text = any(isinstance(row[key], str) for row in rows)
        table.add_column(
            columns[key], justify="left" if is_text else "right", no_wrap=key == keys[0] or not is_text
        )
    for row in rows:
        table.add_row(*(Text(printable(_cell(row[key]))) for key in keys))
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_cell(item)}" for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_cell, value))
    return str(value)
