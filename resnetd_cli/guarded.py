"""The child's side of `guard`: reads files from standard input, writes their pixels to standard output.

Each question is a line of JSON and the file's bytes; each answer is a line of JSON and the pixels.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import IO, Any

from resnetd_cli.decode import DecodeOptions, decode_here
from resnetd_cli.errors import ErrorKind, InputError

_ROOM = 80 * 2**20
"""Bytes beyond those of the file and its pixels; importing numpy, for deep greys, takes half of them."""
_BYTES_A_PIXEL = 32
"""The most that a pixel takes while it is decoded: several copies as RGBA, or one in double precision."""
_COPIES = 4
"""How often a file's bytes may be held."""


def serve() -> None:
    """Answer until the input ends."""
    # What a library prints goes nowhere: descriptor 1 is for answers alone.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while line := sys.stdin.buffer.readline():
        question = json.loads(line)
        _answer(sys.stdin.buffer.read(question["bytes"]), DecodeOptions(**question["options"]), answers)
        answers.flush()


def _answer(data: bytes, options: DecodeOptions, stream: IO[bytes]) -> None:
    _alarm(options.timeout)
    _limit_memory(_COPIES * len(data))
    try:
        image = decode_here(
            data, options, on_size=lambda pixels: _limit_memory(_COPIES * len(data) + pixels * _BYTES_A_PIXEL)
        )
        pixels = image.tobytes()
    except MemoryError:
        message = "it takes more memory than an image of its size may"
        _send({"kind": ErrorKind.TOO_LARGE, "message": message, "hint": "convert it to JPEG or PNG"}, stream)
    except InputError as error:
        _send({"kind": error.kind, "message": error.message, "hint": error.hint}, stream)
    else:
        _send({"size": image.size, "bytes": len(pixels)}, stream)
        stream.write(pixels)
    finally:
        _alarm(0)


def _send(answer: dict[str, Any], stream: IO[bytes]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")


def _alarm(seconds: float) -> None:
    """Have the system end this process by then: its parent may be gone. 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(room: int) -> None:
    """Let this process take so many bytes more than it has, where the system can tell."""
    taken = _private_bytes()
    if taken is None:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = taken + _ROOM + room
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def _private_bytes() -> int | None:
    """Return what this process has allocated, as RLIMIT_DATA counts it; None where that cannot be told."""
    try:
        found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
