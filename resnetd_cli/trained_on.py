"""The images that a model was trained on, kept beside it as the marks of their contents; see `content`.

They lie beside `config.json`, sorted, as numpy's uint8 of shape (N, 16).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from resnetd_cli.content import MARK_BYTES, numbered
from resnetd_cli.errors import ModelError
from resnetd_cli.files import expand_user, write_atomic
from resnetd_cli.models import local_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "trained-on.npy"
MOST = 2**21
"""Of more images no marks are kept: 32 MiB of them, and 43 as text in an exported file."""
CHECKPOINTS = "checkpoints"
_HEADER_BYTES = 4096


def together(*parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return marks sorted, each once.

    Args:
        parts: uint8, shape (N, 16) each.
    """
    import numpy as np

    every = np.concatenate([np.zeros((0, MARK_BYTES), np.uint8), *parts])
    _, first = np.unique(numbered(every), return_index=True)
    return every[first]


def from_marks(marks: list[bytes]) -> NDArray[np.uint8]:
    """Return marks as an array, in their order: uint8, shape (N, 16)."""
    import numpy as np

    return np.frombuffer(b"".join(marks), np.uint8).reshape(-1, MARK_BYTES)


def unpack(data: bytes) -> NDArray[np.uint8]:
    """Return the marks that lie one after the other in some bytes: uint8, shape (N, 16).

    Raises:
        ValueError: they are no whole number of marks, or more than `MOST`.
    """
    import numpy as np

    if len(data) > MOST * MARK_BYTES:
        raise ValueError("too many")
    return np.frombuffer(data, np.uint8).reshape(len(data) // MARK_BYTES, MARK_BYTES)


def contains(known: NDArray[np.uint8], marks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell of each of N marks whether it is among the known ones: shape (N,)."""
    import numpy as np

    numbers = numbered(np.concatenate([known, marks]))
    return np.isin(numbers[len(known) :], numbers[: len(known)])


def write(folder: Path, marks: NDArray[np.uint8]) -> None:
    """Keep marks beside a model.

    Args:
        folder: where its `config.json` lies.
        marks: those of all the images it was trained on; see `MOST`.

    Raises:
        OutputError: they cannot be written.
    """
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, together(marks), allow_pickle=False)
    write_atomic(folder / NAME, stream.getvalue())


def read(folder: Path) -> NDArray[np.uint8] | None:
    """Return the marks beside a model: uint8, shape (N, 16); None where none were kept.

    Args:
        folder: where its `config.json` lies.

    Raises:
        ModelError: they are damaged.
    """
    import numpy as np

    path = folder / NAME
    try:
        if path.stat().st_size > MOST * MARK_BYTES + _HEADER_BYTES:
            raise ValueError("too many")
        marks: NDArray[np.uint8] = np.load(path, allow_pickle=False)
        if marks.dtype != np.uint8 or marks.ndim != 2 or marks.shape[1] != MARK_BYTES:
            raise ValueError("other numbers")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(
            f"{path} is damaged: it does not tell what the model was trained on",
            hint="put it back from a copy, or train again",
        ) from error
    return marks


def home(model: str, weights: Path | None = None) -> Path | None:
    """Return the folder where a MODEL's marks would be kept; None where it is no folder, nor a file in one.

    Args:
        model: a MODEL.
        weights: a checkpoint in place of its own; then the marks are those beside it.
    """
    return local_folder(model) if weights is None else beside(expand_user(weights).absolute())


def beside(weights: Path) -> Path:
    """Return the folder of a weight file's marks: its own, or the run's whose checkpoint it is."""
    return weights.parent.parent if weights.parent.name == CHECKPOINTS else weights.parent
