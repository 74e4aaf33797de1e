"""The child process that `isolated` starts: decodes files from standard input, writes pixels to standard output.

A request is a line of JSON and the file's bytes; an answer is a line of JSON and the pixels.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import IO, Any

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.decode.exif_orientation import TURNED
from resnetd_cli.pipeline.decode.image import DecodeOptions, crop, decode_here
from resnetd_cli.pipeline.preprocess import LARGEST_RESIZE
from resnetd_cli.results import Preprocessing
from resnetd_cli.system.deadline import FOREVER
from resnetd_cli.system.memory import limit

_ROOM = 80 * 2**20
"""Bytes of memory besides the file and its pixels; importing numpy, for 16-bit greys, takes half of them."""
_BYTES_A_PIXEL = 32
"""The most bytes per pixel while decoding: several copies in RGBA, or one in double precision."""
_RESIZING = 12 * LARGEST_RESIZE
"""Bytes of memory to resize the decoded image in: three images of 4 bytes per pixel."""
_COPIES = 4
"""The number of copies of the file to allow for."""


def serve() -> None:
    """Answer requests until standard input ends."""
    # Descriptor 1 is reserved for answers; whatever libraries print is dropped.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while line := sys.stdin.buffer.readline():
        question = json.loads(line)
        data, options = sys.stdin.buffer.read(question["bytes"]), DecodeOptions(**question["options"])
        crop_for = Preprocessing.of(question["crop_for"]) if question["crop_for"] else None
        _answer(data, options, crop_for, answers)
        answers.flush()


def _answer(data: bytes, options: DecodeOptions, crop_for: Preprocessing | None, stream: IO[bytes]) -> None:
    room = _ROOM + _COPIES * len(data)
    _alarm(min(options.timeout, FOREVER))
    limit(room)
    try:
        image = decode_here(data, options, on_size=lambda pixels: limit(room + pixels * _BYTES_A_PIXEL))
        if crop_for:
            limit(_RESIZING)
            image = crop(image, crop_for)
        size, pixels, turned = image.size, image.tobytes(), image.info[TURNED]
    except MemoryError:
        message = "it takes more memory than an image of its size may"
        _refuse(InputError(ErrorKind.TOO_LARGE, message, hint="convert it to JPEG or PNG"), stream)
    except InputError as error:
        _refuse(error, stream)
    else:
        _send({"size": size, "turned": turned}, stream)
        stream.write(pixels)
    finally:
        _alarm(0)


def _refuse(error: InputError, stream: IO[bytes]) -> None:
    reason = error.reason and error.reason.name
    _send({"kind": error.kind, "message": error.message, "hint": error.hint, "reason": reason}, stream)


def _send(answer: dict[str, Any], stream: IO[bytes]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")


def _alarm(seconds: float) -> None:
    """Have the system kill this process after some seconds, as its parent may be gone; 0 cancels that."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
