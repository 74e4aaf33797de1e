"""The record of a model's training images (`trained-on.npy`), so that `evaluate` can leave them out.

It holds the marks (content hashes, see `content`) of the images, sorted, as a numpy array: uint8, shape (N, 16).
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resnetd_cli.errors import ModelError, ResnetdError
from resnetd_cli.models import checkpoints
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.pipeline.decode.content import MARK_BYTES, numbered
from resnetd_cli.system.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "trained-on.npy"
MOST = 2**21
"""Most marks to keep: 32 MiB, or 43 MiB as text in an exported file. For more images none are kept."""
DIGEST = "trained_on"
"""Metadata key in a run's weights: the `digest` of their marks; empty if there are too many to keep."""
RUN = "run.json"
"""The file that a training run writes beside its model."""
CHECKPOINTS = "checkpoints"
_HEADER_BYTES = 4096


def together(*parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return marks sorted and without duplicates.

    Args:
        parts: uint8, shape (N, 16) each.
    """
    import numpy as np

    every = np.concatenate([np.zeros((0, MARK_BYTES), np.uint8), *parts])
    _, first = np.unique(numbered(every), return_index=True)
    return every[first]


def unpack(data: bytes) -> NDArray[np.uint8]:
    """Return the marks that are concatenated in bytes: uint8, shape (N, 16).

    Raises:
        ValueError: the length is not a multiple of a mark's, or there are more than `MOST`.
    """
    import numpy as np

    if len(data) > MOST * MARK_BYTES:
        raise ValueError("too many")
    return np.frombuffer(data, np.uint8).reshape(len(data) // MARK_BYTES, MARK_BYTES)


def contains(known: NDArray[np.uint8], marks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of N marks are among the known ones: shape (N,)."""
    import numpy as np

    numbers = numbered(np.concatenate([known, marks]))
    return np.isin(numbers[len(known) :], numbers[: len(known)])


def write(folder: Path, marks: NDArray[np.uint8]) -> None:
    """Write marks beside a model.

    Args:
        folder: the folder of its `config.json`.
        marks: the marks of all its training images, at most `MOST`.

    Raises:
        OutputError: they cannot be written.
    """
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, together(marks), allow_pickle=False)
    write_atomic(folder / NAME, stream.getvalue())


def read(folder: Path) -> NDArray[np.uint8] | None:
    """Return the marks beside a model: uint8, shape (N, 16); None if there are none.

    Args:
        folder: the folder of its `config.json`.

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
            f"{path} is damaged: it does not say what the model was trained on",
            hint="put it back from a copy, or train again",
        ) from error
    return marks


class Known(NamedTuple):
    """What is known about a model's training images.

    Attributes:
        model: the MODEL, or the weights file, as the user wrote it.
        marks: the marks of the images: uint8, shape (N, 16); None if unknown.
        is_run: the model comes from `finetune` or `train`, which normally keep marks.
    """

    model: str
    marks: NDArray[np.uint8] | None
    is_run: bool = False


def known(choice: ModelChoice) -> Known:
    """Look up the training images of a model in a folder, or of the weights that replace its own.

    Marks whose digest differs from the one in the weights are ignored.

    Raises:
        ModelError: the marks are damaged.
    """
    name = str(choice.weights or choice.model)
    folder = home(choice)
    if folder is None:
        return Known(name, None)
    marks, named = read(folder), _named_in(_weights_file(choice))
    if named is not None and marks is not None and digest(marks) != named:
        marks = None
    own = choice.model.folder
    is_run = named is not None or any((each / RUN).is_file() for each in (folder, own) if each)
    return Known(name, marks, is_run)


def digest(marks: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of marks, in hexadecimal, regardless of their order."""
    return hashlib.sha256(together(marks).tobytes()).hexdigest()


def _weights_file(choice: ModelChoice) -> Path | None:
    """Return a model's weights file; None if it is unclear, which loading the model will report."""
    if choice.weights is not None:
        return choice.weights
    path = choice.model.path
    if path is None or path.is_file():
        return path
    with suppress(ResnetdError):
        return checkpoints.find(path)
    return None


def _named_in(weights: Path | None) -> str | None:
    """Return the digest in a weights file's metadata; None if there is none."""
    from safetensors import SafetensorError, safe_open

    if weights is None or weights.suffix != ".safetensors":
        return None
    with suppress(OSError, SafetensorError), safe_open(weights, "np") as file:
        named: str | None = (file.metadata() or {}).get(DIGEST)
        return named
    return None


def home(choice: ModelChoice) -> Path | None:
    """Return the folder of a model's marks, beside its weights; None if the model is not a folder."""
    return choice.model.folder if choice.weights is None else beside(choice.weights.absolute())


def beside(weights: Path) -> Path:
    """Return the folder of a weights file's marks: its own folder, or its run if it is a checkpoint."""
    return weights.parent.parent if weights.parent.name == CHECKPOINTS else weights.parent
