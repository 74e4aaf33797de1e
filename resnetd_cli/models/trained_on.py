"""The images that a model was trained on, kept beside it as the marks of their contents; see `content`.

They are stored beside `config.json`, sorted, as a numpy array: uint8, shape (N, 16).
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
"""Of more images no marks are kept: 32 MiB of them, and 43 as text in an exported file."""
DIGEST = "trained_on"
"""In the metadata of a run's weights, the `digest` of their marks; empty if there are too many to keep."""
RUN = "run.json"
"""What a run leaves beside its model."""
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


def unpack(data: bytes) -> NDArray[np.uint8]:
    """Return the marks in some bytes, one after the other: uint8, shape (N, 16).

    Raises:
        ValueError: they are no whole number of marks, or more than `MOST`.
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
    """Keep marks beside a model.

    Args:
        folder: of its `config.json`.
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
        folder: of its `config.json`.

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


class Known(NamedTuple):
    """What is known of the images that a model was trained on.

    Attributes:
        model: what the user calls the model, or its weights.
        marks: of the images: uint8, shape (N, 16); None: they are not known.
        is_run: the model is from a run of `finetune` or `train`, which keeps marks as a rule.
    """

    model: str
    marks: NDArray[np.uint8] | None
    is_run: bool = False


def known(choice: ModelChoice) -> Known:
    """Look up which images a model in a folder was trained on; with other weights, which these were trained on.

    Marks beside weights that name other marks do not count.

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
    """Return the SHA-256 of marks, whatever their order, in hexadecimal."""
    return hashlib.sha256(together(marks).tobytes()).hexdigest()


def _weights_file(choice: ModelChoice) -> Path | None:
    """Return the file of a model's weights; None if loading the model will report what is wrong."""
    if choice.weights is not None:
        return choice.weights
    path = choice.model.path
    if path is None or path.is_file():
        return path
    with suppress(ResnetdError):
        return checkpoints.find(path)
    return None


def _named_in(weights: Path | None) -> str | None:
    """Return the digest that a file of weights holds; None where it holds none."""
    from safetensors import SafetensorError, safe_open

    if weights is None or weights.suffix != ".safetensors":
        return None
    with suppress(OSError, SafetensorError), safe_open(weights, "np") as file:
        named: str | None = (file.metadata() or {}).get(DIGEST)
        return named
    return None


def home(choice: ModelChoice) -> Path | None:
    """Return the folder that keeps a model's marks: beside its weights; None if it is no model folder."""
    return choice.model.folder if choice.weights is None else beside(choice.weights.absolute())


def beside(weights: Path) -> Path:
    """Return the folder of a weight file's marks: its own, or the run's whose checkpoint it is."""
    return weights.parent.parent if weights.parent.name == CHECKPOINTS else weights.parent
