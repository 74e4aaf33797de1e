"""The terminal: one object writes notes, errors, hints and progress bars to stderr; stdout is only for data."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from resnetd_cli.cli.hints import Advised, hint_of
from resnetd_cli.errors import ResnetdError
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.quiet import share_stderr

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from resnetd_cli.cli.progress import ImageBar
    from resnetd_cli.models.hub import Downloads

T = TypeVar("T")


class Terminal:
    """Notes, errors and progress bars, on stderr."""

    def __init__(self) -> None:
        self.quiet = False
        self.verbose = False
        self.progress_wanted = True
        self.options: frozenset[str] | None = None
        """The options of the running command; None before it is known."""
        self._into_pipe = False
        self._live: Progress | ImageBar | None = None
        self._hints: set[str] = set()

    def setup(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        no_progress: bool = False,
        output: Path | None = None,
    ) -> None:
        """Apply a command's options. Without `output`, or with `-`, results go to standard output."""
        self.quiet, self.verbose = quiet, verbose
        if verbose:
            share_stderr()
        self.progress_wanted = not (quiet or no_progress)
        self._into_pipe = is_pipe(sys.stdout if output is None or str(output) == "-" else output)
        self._hints.clear()

    def note(self, message: str) -> None:
        """Print a message that is not an error."""
        if not self.quiet:
            self._print(message, style="dim")

    def notes(self, messages: Iterable[str]) -> None:
        """Print several notes."""
        for message in messages:
            self.note(message)

    def error(self, error: ResnetdError, *, about: str | None = None) -> None:
        """Print an error on one line and its hint on a second; the same hint is not printed twice."""
        where = f"{about}: " if about else ""
        self._print(f"error: {where}{error.message}", style="red")
        if (hint := self.hint(error)) and hint not in self._hints:
            self._hints.add(hint)
            self._print(f"hint: {hint}", style="dim")

    def hint(self, error: Advised) -> str | None:
        """Return the hint for an error, worded for the running command's options."""
        return hint_of(error, self.options)

    def lines(self, text: str) -> None:
        """Print several lines, such as a traceback."""
        for line in text.splitlines():
            self._print(line, style="dim")

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars are wanted, and no other program writes to the terminal.

        A program that reads the results from a pipe, such as `less`, often writes to the same terminal.
        """
        can_show = is_tty(sys.stderr) and os.environ.get("TERM") != "dumb"
        return self.progress_wanted and can_show and not self._into_pipe

    @contextmanager
    def tracking(
        self, count: Callable[[], int | None], *, wanted: bool
    ) -> Iterator[Callable[[Iterable[T]], Iterator[T]]]:
        """Yield a function that counts the items passing through it on a progress bar.

        Args:
            count: returns the number of items. It runs in the background, as it may walk a large folder.
            wanted: show a bar if possible.
        """
        with self.counting(count, wanted=wanted) as counted:

            def track(items: Iterable[T]) -> Iterator[T]:
                for item in items:
                    yield item
                    counted(1)

            yield track

    @contextmanager
    def counting(
        self, count: Callable[[], int | None], *, wanted: bool = True
    ) -> Iterator[Callable[[int], object]]:
        """Yield a function that advances a progress bar by a number of images.

        Args:
            count: as in `tracking`.
            wanted: show a bar if possible.
        """
        if not (wanted and self.shows_progress):
            yield lambda images: None
            return
        from resnetd_cli.cli.progress import ImageBar

        bar = ImageBar(_stderr())
        threading.Thread(target=lambda: bar.set_total(count()), daemon=True).start()
        with bar:
            self._live = bar
            try:
                yield bar.advance
            finally:
                self._live = None

    def training_bar(self, steps: int, done: int) -> tuple[Progress, TaskID]:
        """Show a bar for a training run, until `close_bar`. Its fields are `words` and `speed`."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.fields[words]}"), BarColumn(bar_width=10), TextColumn("{task.fields[speed]}")
        self._live = bar = Progress(*columns, TimeRemainingColumn(), console=_stderr(), transient=True)
        task = bar.add_task("", total=steps, completed=done, words="", speed="")
        bar.start()
        return bar, task

    def close_bar(self) -> None:
        """Remove a training run's bar."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def download_bar(self) -> type[Any] | None:
        """Return a tqdm class that shows downloads as Rich progress bars; None if bars are not wanted."""
        if not self.shows_progress:
            return None
        from resnetd_cli.cli.download_bar import rich_bar

        return rich_bar(_stderr())

    def downloads(self, *, offline: bool) -> Downloads:
        """Return whether files may be downloaded, and with which progress bar."""
        from resnetd_cli.models.hub import Downloads

        return Downloads(offline, self.download_bar)

    @contextmanager
    def print_through(self) -> Iterator[None]:
        """Hide the progress bar while something else prints to the terminal."""
        live = self._live
        if live is None:
            yield
            return
        live.stop()
        try:
            yield
        finally:
            live.start()

    def _print(self, text: str, *, style: str) -> None:
        message = printable(text)
        if sys.stderr is None:  # started with it closed
            return
        with suppress(OSError):  # stderr is gone
            if is_tty(sys.stderr):
                with suppress(ImportError, MemoryError):  # the error may be that no file or memory is left
                    self._print_styled(message, style)
                    return
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    def _print_styled(self, message: str, style: str) -> None:
        from rich.text import Text

        with self.print_through():
            # As Text, because Rich turns `:smile:` in a plain string into an emoji.
            _stderr().print(Text(message, style=style), soft_wrap=True)


def is_tty(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; a closed one is not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def is_pipe(target: Path | TextIO | None) -> bool:
    """Return whether a file or stream is a pipe to another program."""
    if target is None:
        return False
    try:
        mode = (target.stat() if isinstance(target, Path) else os.fstat(target.fileno())).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _stderr() -> Console:
    from resnetd_cli.pipeline.sinks.screen import open_console

    return open_console(sys.stderr)


terminal = Terminal()
