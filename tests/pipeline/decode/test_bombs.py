"""Decompression bombs of every format: refused, and before the memory is taken."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import bombs

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode import isolated
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode

MEGABYTE = 2**20
ALLOWED = 100 * MEGABYTE
# What is read of them is sound: the rest of the stream, or texts and profiles, are left unread.
SOUND = {"png, texts", "png, more rows", "tiff, strip", "tiff, rows a strip"}
# Pillow warns of formats that it will drop, and of damage.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return bombs.all_bombs()


@pytest.fixture
def reset_peak() -> Iterator[None]:
    """Let the system measure this process's peak anew, and start with no other."""
    isolated.close()
    Path("/proc/self/clear_refs").write_text("5")
    yield
    isolated.close()


def peak(pid: int | str = "self") -> int:
    """Return the most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.slow
@linux
@pytest.mark.parametrize("name", list(bombs.BOMBS))
def test_a_bomb_takes_no_memory(name: str, made: dict[str, bytes], reset_peak: None) -> None:
    before = peak()
    try:
        assert decode(made[name]).size == (64, 64)
        assert name in SOUND
    except InputError as error:
        assert error.kind in (ErrorKind.TOO_LARGE, ErrorKind.UNDECODABLE)
        assert name not in SOUND
    assert peak() - before < ALLOWED / 2
    for child in isolated._idle:
        assert peak(child.pid) < ALLOWED


def test_most_bombs_are_refused_for_their_size(made: dict[str, bytes]) -> None:
    refused = []
    for name, data in made.items():
        try:
            decode(data)
        except InputError as error:
            refused += [name] * (error.kind is ErrorKind.TOO_LARGE)
    assert len(refused) >= 35


@pytest.mark.slow
def test_decoding_ends_in_time_where_each_byte_takes_long() -> None:
    """By itself, in the process: the block after which the clock is looked at is small."""
    with pytest.raises(InputError) as caught:
        decode(bombs.slow_jpeg(4000, 3000), DecodeOptions(timeout=0.5))
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert caught.value.message == "not decoded in 0.5 seconds"
    assert decode(bombs.slow_jpeg(80, 3)).size == (80, 80)
