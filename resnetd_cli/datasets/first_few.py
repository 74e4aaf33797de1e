"""Lists of names in one line, for messages: the first few, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from resnetd_cli.system.escaping import printable

_SHOWN = 3


@dataclass
class Few:
    """The first of many names, and how many there are."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str) -> None:
        """Count a name."""
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(name)

    def __str__(self) -> str:
        return shown(self.first, self.count)


def shown(names: Iterable[str], count: int | None = None) -> str:
    """Return the first few of some names, in one line. `count`: how many there are, if not all are given."""
    names = iter(names)
    first = list(islice(names, _SHOWN))
    total = len(first) + sum(1 for _ in names) if count is None else count
    text = ", ".join(printable(name) for name in first)
    return f"{text}, ... ({total:,} in all)" if total > len(first) else text
