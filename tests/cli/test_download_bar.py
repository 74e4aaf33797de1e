"""The progress bar of downloads, drawn on a terminal of our own."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from resnetd_cli.cli.download_bar import rich_bar


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def bar_class(screen: io.StringIO) -> type:
    return rich_bar(Console(file=screen, force_terminal=True, width=100, color_system=None))


def test_bar_shows_name_and_bytes(bar_class: type, screen: io.StringIO) -> None:
    with bar_class(total=100_000_000, desc="model.safetensors", unit="B", unit_scale=True, name="hub") as bar:
        bar.update(60_000_000)
        bar.refresh()
        deadline = time.monotonic() + 20
        while "60.0/100.0 MB" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)  # Rich draws ten times a second
        assert bar.n == 60_000_000
    shown = screen.getvalue()
    assert "model.safetensors" in shown
    assert "60.0/100.0 MB" in shown


def test_two_bars_are_drawn_at_once(bar_class: type, screen: io.StringIO) -> None:
    first = bar_class(total=10, desc="downloading")
    second = bar_class(total=10, desc="writing")
    first.update(5)
    second.update(3)
    first.close()
    second.set_postfix_str("1 MB/s", refresh=False)
    second.refresh()
    second.close()
    second.close()
    assert "downloading" in screen.getvalue()
    assert "writing" in screen.getvalue()


def test_resumed_download_starts_at_its_offset(bar_class: type) -> None:
    with bar_class(total=10, initial=4, desc="x") as bar:
        bar.update(6)
        assert bar.n == 10
