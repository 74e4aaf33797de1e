"""The progress bar of images: what it says at each width, and where it is not wanted."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from resnetd_cli.cli import training_run
from resnetd_cli.cli.console import Terminal, is_pipe
from resnetd_cli.cli.progress import ImageBar, in_words
from resnetd_cli.cli.training_run import Launch
from resnetd_cli.training import several_seeds
from resnetd_cli.training.callbacks import Callbacks

ERASED = "\r\x1b[2K"
needs_fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")


class Clock:
    """Time as a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def progress_after(done: int, total: int | None, seconds: float) -> Progress:
    """Return a bar on which so many images took so many seconds, at an even rate."""
    clock = Clock()
    progress = Progress(get_time=clock)
    task = progress.add_task("", total=total)
    for _ in range(done):
        clock.now += seconds / done
        progress.advance(task)
    return progress


@pytest.mark.parametrize(
    ("done", "total", "seconds", "width", "words"),
    [
        (120, 530, 10, 200, "120/530 images  12.0 images/s  0:00:35 left"),
        (120, 530, 10, 43, "120/530 images  12.0 images/s  0:00:35 left"),
        (120, 530, 10, 42, "120/530 images  0:00:35 left"),
        (120, 530, 10, 27, "120/530 images"),
        (120, 530, 10, 10, "120/530 images"),
        (120, None, 10, 200, "120 images  12.0 images/s  0:00:10 elapsed"),
        (4, 40_000, 20, 200, "4/40,000 images  0.2 images/s  2 days, 7:33:00 left"),
        (500, 900, 2, 200, "500/900 images  250 images/s  0:00:02 left"),
        (0, 540, 0, 200, "0/540 images"),
        (0, None, 0, 200, "0 images  0:00:00 elapsed"),
    ],
)
def test_narrow_width_drops_the_least_important_numbers_first(
    done: int, total: int | None, seconds: float, width: int, words: str
) -> None:
    (task,) = progress_after(done, total, seconds).tasks
    assert in_words(task, width) == words


@pytest.mark.parametrize(("width", "has_bar"), [(20, False), (70, False), (71, True), (120, True)])
def test_narrow_terminal_shows_words_without_bar(width: int, *, has_bar: bool) -> None:
    screen = io.StringIO()
    with ImageBar(Console(file=screen, force_terminal=True, width=width, color_system=None)) as bar:
        bar.set_total(4)
        bar.advance()
        wait_for(screen, "1/4 images")
    assert ("━" in screen.getvalue()) == has_bar


def test_output_is_above_the_bar_and_the_bar_is_erased() -> None:
    screen = io.StringIO()
    with ImageBar(Console(file=screen, force_terminal=True, width=60, color_system=None)) as bar:
        for number in range(3):
            bar.stop()
            screen.write(f"line {number}\n")
            bar.start()
            bar.advance()
        wait_for(screen, "3 images")
    lines = [line.rpartition(ERASED)[2] for line in screen.getvalue().split("\n")]
    assert lines == ["line 0", "line 1", "line 2", ""]
    assert "\x1b[?25" not in screen.getvalue(), "the cursor is left alone"


def test_bar_survives_an_error_while_hidden() -> None:
    terminal = Terminal()
    terminal._live = ImageBar(Console(file=io.StringIO(), force_terminal=True, width=60))
    with pytest.raises(KeyboardInterrupt), terminal.print_through():
        raise KeyboardInterrupt
    threads = [threading.Thread(target=terminal._live.stop, daemon=True) for _ in range(1)]
    threads[0].start()
    threads[0].join(10)
    assert not threads[0].is_alive(), "the lock is free"


@pytest.mark.slow
def test_bar_refreshes_without_new_results() -> None:
    screen = io.StringIO()
    with ImageBar(Console(file=screen, force_terminal=True, width=60, color_system=None)):
        wait_for(screen, "0:00:01 elapsed")


def wait_for(screen: io.StringIO, text: str) -> None:
    """Wait until the bar's thread has written something."""
    deadline = time.monotonic() + 20
    while text not in screen.getvalue():
        assert time.monotonic() < deadline, screen.getvalue()
        time.sleep(0.02)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_no_bar_if_results_go_into_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    shown = {}
    with os.fdopen(reading), os.fdopen(writing, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        patch.setattr(sys, "stderr", Screen())
        patch.setenv("TERM", "xterm")
        terminal = Terminal()
        for output in (None, Path("-"), tmp_path / "out.tsv"):
            terminal.setup(output=output)
            shown[output] = terminal.shows_progress
    assert shown == {None: False, Path("-"): False, tmp_path / "out.tsv": True}


@needs_fifos
def test_is_pipe_recognises_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    assert is_pipe(tmp_path / "fifo")
    assert not is_pipe(tmp_path / "file")
    assert not is_pipe(tmp_path / "missing")
    assert not is_pipe(io.StringIO())
    assert not is_pipe(None)
    one, other = socket.socketpair()
    with one, other, one.makefile("w") as stream:
        assert is_pipe(stream)


class _Shown:
    """A terminal that remembers the bars of training and what they say."""

    shows_progress = True

    def __init__(self) -> None:
        self.said: list[Any] = []

    def training_bar(self, steps: int, done: int) -> tuple[_Shown, int]:
        self.said.append(("bar", steps, done))
        return self, 0

    def update(self, _: int, *, completed: int, words: str, speed: str) -> None:
        self.said.append((completed, words))

    def close_bar(self) -> None:
        self.said.append("closed")

    def note(self, text: str) -> None:
        self.said.append(text)

    def download_bar(self) -> None:
        return None


@pytest.mark.usefixtures("one_thread")
def test_first_pass_of_training_has_a_bar_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_pass(_: object, callbacks_for: Callable[[Path], Callbacks]) -> None:
        for done in (0, 16, 2000):
            callbacks_for(Path("run")).survey_progress(done, 2000)

    monkeypatch.setattr("resnetd_cli.cli.training_progress._REFRESH_SECONDS", 0)
    shown = _Shown()
    monkeypatch.setattr(training_run, "terminal", shown)
    monkeypatch.setattr(several_seeds, "carry_out", first_pass)
    training_run._train(None, Launch(threads=1))  # type: ignore[arg-type]
    assert shown.said == [
        ("bar", 2000, 0),
        (0, "first pass: 0 of 2,000 images"),
        (16, "first pass: 16 of 2,000 images"),
        "closed",
    ]
