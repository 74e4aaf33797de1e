"""Refuse outputs that would replace an image or a file that the command reads, even with `--overwrite`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.errors import UsageError
from resnetd_cli.pipeline.sources.spellings import path_of_url
from resnetd_cli.system.files import is_stream

if TYPE_CHECKING:
    from resnetd_cli.models.names import ModelRef
    from resnetd_cli.pipeline.sources.expand import Source

Named = str | Path | None
_STDIN, _STDOUT = 0, 1
_MODEL_FILES = ("config.json", "*.safetensors", "*.pth", "*.pt", "*.bin", "*.ckpt", "*.onnx")
# Raw photographs that Pillow does not recognise, and films.
_CAMERA = re.compile(rb"FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|FOVb|\0MRM|....ftyp", re.DOTALL)
_PLAIN = re.compile(rb"[\t\n\r -~]*")
_TEXTUAL = ("PPM", "XBM", "XPM", "FITS", "IM")
_HEAD = 64
_HINT = "name a new file; a shell's pattern may have named this one"


def check_protected(*paths: Path | None, reads: Iterable[Named] = ()) -> None:
    """Refuse outputs that would replace an image or a file that the command reads.

    Args:
        paths: the outputs; None is standard output, which a shell may append to a file.
        reads: the files known to be read; `-` is standard input, None is ignored.

    Raises:
        UsageError: an output is such a file.
    """
    there = {identity: path for path in paths if (identity := _identity(_STDOUT if path is None else path))}
    for read in reads if there else ():
        if read is not None and (identity := _identity(_STDIN if str(read) == "-" else read)) in there:
            raise _is_input(there[identity])
    for path in paths:
        if path is not None and not is_stream(path) and is_image(path):
            raise UsageError(f"{path} is an image, and images are never replaced", hint=_HINT)


def check_name(path: Path) -> None:
    """Refuse an output with the extension of an image.

    Raises:
        UsageError: it has one.
    """
    from resnetd_cli.pipeline.sources.folders import is_named_like_image

    if not is_stream(path) and is_named_like_image(path.name):
        raise UsageError(f"{path} is named like an image", hint="choose another name: it would be taken for one")


def checked_inputs(sources: Iterator[Source], *paths: Path | None) -> Iterator[Source]:
    """Yield the inputs, and fail if one of them is an output.

    Raises:
        UsageError: an input is an output.
    """
    there = {identity: path for path in paths if path and (identity := _identity(path))}
    return _checked_inputs(sources, there) if there else sources


def _checked_inputs(sources: Iterator[Source], there: Mapping[tuple[int, int], Path]) -> Iterator[Source]:
    for source in sources:
        identity = None if source.is_remote else _identity(path_of_url(source.name) or source.name)
        if identity and identity in there:
            raise _is_input(there[identity])
        yield source


def model_files(*models: ModelRef) -> Iterator[Path]:
    """Yield the files of the models that are local files or folders."""
    for path in filter(None, (model.path for model in models)):
        yield path
        for pattern in _MODEL_FILES if path.is_dir() else ():
            yield from path.glob(pattern)


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its bytes or its name: even a damaged image may be the only copy."""
    if not path.is_file() or not path.stat().st_size:
        return False
    from resnetd_cli.pipeline.sources.folders import begins_like_image, is_named_like_image

    if is_named_like_image(path.name):
        return True
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD)
        if _CAMERA.match(head):
            return True
        if _PLAIN.fullmatch(head):  # a text may begin with an image's magic bytes, such as P1 or BM
            return _is_textual_image(path)
        return begins_like_image(str(path))
    return False


def _is_textual_image(path: Path) -> bool:
    from PIL import Image

    Image.init()
    with suppress(Exception), Image.open(path, formats=_TEXTUAL):
        return True
    return False


def _is_input(path: Path | None) -> UsageError:
    return UsageError(f"{path or 'standard output'} is one of the inputs", hint=_HINT)


def _identity(file: str | Path | int) -> tuple[int, int] | None:
    """Return what identifies a regular file under any name, device and inode; None for anything else."""
    try:
        status = os.stat(file)  # noqa: PTH116  (descriptors too)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
