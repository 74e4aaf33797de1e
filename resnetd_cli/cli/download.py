"""Downloads as Rich progress bars: huggingface_hub reports to a tqdm class."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from tqdm import tqdm


def rich_bar(console: Console) -> type[Any]:
    """Return a tqdm class whose bars are drawn by Rich on the console, and vanish when done."""

    class RichBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # huggingface_hub's own bars have one, tqdm's have not
            # `gui` keeps tqdm from drawing the bar itself.
            super().__init__(*args, **{**kwargs, "gui": True, "disable": False})
            columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
            self._progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._progress.add_task(self.desc or "", total=self.total, completed=int(self.n))
            self._progress.start()

        def display(self, *args: Any, **kwargs: Any) -> None:
            if hasattr(self, "_task"):
                self._progress.update(self._task, completed=self.n, total=self.total, description=self.desc)

        def clear(self, *args: Any, **kwargs: Any) -> None:
            pass

        def close(self) -> None:
            self.display()
            super().close()
            if hasattr(self, "_progress"):
                self._progress.stop()

    return RichBar
