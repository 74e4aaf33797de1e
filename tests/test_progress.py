"""The progress bar of images: what it says at each width, and where it is not wanted."""

from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from resnetd_cli.cli.console import Terminal, is_pipe
from resnetd_cli.cli.progress import image_progress, in_words

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
def test_numbers_have_their_units_and_the_least_needed_goes_first(
    done: int, total: int | None, seconds: float, width: int, words: str
) -> None:
    (task,) = progress_after(done, total, seconds).tasks
    assert in_words(task, width) == words


@pytest.mark.parametrize(("width", "has_bar"), [(20, False), (69, False), (70, True), (120, True)])
def test_a_narrow_terminal_has_the_words_without_the_bar(width: int, *, has_bar: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    with image_progress(console) as progress:
        progress.add_task("", total=4, completed=2)
        progress.refresh()
    assert "2/4 images" in screen.getvalue()
    assert ("━" in screen.getvalue()) == has_bar


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_no_bar_when_answers_go_into_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
def test_what_is_a_pipe(tmp_path: Path) -> None:
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
