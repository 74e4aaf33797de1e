"""Progress bars of downloads: a tqdm class for huggingface_hub that Rich draws."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from tqdm import tqdm

from resnetd_cli.system.escaping import printable


def rich_bar(console: Console) -> type[Any]:
    """Return a tqdm class whose bars Rich draws on the console, one below another; they vanish when done."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)

    class RichBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # an argument of huggingface_hub's own bars that tqdm does not have
            # `gui` keeps tqdm from drawing the bar itself.
            super().__init__(*args, **{**kwargs, "gui": True, "disable": False})
            self._task = progress.add_task(printable(self.desc or ""), total=self.total, completed=int(self.n))
            progress.start()

        def display(self, *args: Any, **kwargs: Any) -> None:
            if hasattr(self, "_task"):
                progress.update(
                    self._task, completed=self.n, total=self.total, description=printable(self.desc or "")
                )

        def clear(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing: tqdm has drawn nothing."""

        def close(self) -> None:
            super().close()
            if hasattr(self, "_task") and self._task in progress.task_ids:
                progress.remove_task(self._task)
                if not progress.task_ids:
                    progress.stop()

    return RichBar
