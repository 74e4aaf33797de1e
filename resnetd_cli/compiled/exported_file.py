"""An exported file: one `.onnx` for use elsewhere, with preprocessing and class names in its metadata."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from resnetd_cli.compiled.card import Card
from resnetd_cli.compiled.onnx_check import UnsafeGraphError, property_field, read_metadata, sha256_without
from resnetd_cli.errors import ModelError, Reason, UnknownModel, first_line
from resnetd_cli.models import trained_on

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METADATA_KEY = "resnetd"
"""The key of the metadata that holds the card, as JSON."""
TRAINED_ON_KEY = "resnetd-trained-on"
"""The key of the marks of the images that the model was trained on, concatenated, as Base64."""
SHA256_KEY = "resnetd-sha256"
"""The key of the SHA-256 of the file without this entry, in hexadecimal."""


def write_file(graph: Path, card: Card, stream: IO[bytes], marks: NDArray[np.uint8] | None = None) -> None:
    """Write a graph and its card as one file.

    Args:
        graph: the graph, which may be an exported file.
        card: the card to put into it.
        stream: the output.
        marks: those of the images that the model was trained on: uint8, shape (N, 16); None if unknown.
    """
    import onnx

    model = onnx.load(str(graph))
    model.producer_name, model.producer_version = METADATA_KEY, card.origin.versions["resnetd"]
    texts = {METADATA_KEY: json.dumps(card.to_json())}
    if marks is not None:
        texts[TRAINED_ON_KEY] = base64.b64encode(trained_on.together(marks).tobytes()).decode("ascii")
    onnx.helper.set_model_props(model, texts)
    content = model.SerializeToString()
    stream.write(content)
    stream.write(property_field(SHA256_KEY, hashlib.sha256(content).hexdigest()))


class ExportedFile(NamedTuple):
    """The content of an exported file beside the graph.

    Attributes:
        card: all that running it takes.
        marks: those of the images that the model was trained on: uint8, shape (N, 16); None if unknown.
    """

    card: Card
    marks: NDArray[np.uint8] | None


def read_file(path: Path) -> ExportedFile:
    """Return the card and the marks in an exported file.

    Raises:
        UnknownModel: there is no such file.
        ModelError: `resnetd export` did not write it, it is damaged, or it is unsafe (see `onnx_check`).
    """
    texts = _read_texts(path)
    return ExportedFile(_card_in(texts, path), _marks_in(texts, path))


def read_card(path: Path) -> Card:
    """Return the card in an exported file; raises what `read_file` does."""
    return _card_in(_read_texts(path), path)


def read_trained_on(path: Path) -> NDArray[np.uint8] | None:
    """Return the marks in an exported file; raises what `read_file` does."""
    return _marks_in(_read_texts(path), path)


def _card_in(texts: Mapping[str, str], path: Path) -> Card:
    text = texts.get(METADATA_KEY)
    if text is None:
        raise ModelError(
            f"{path} is not resnetd's: it does not say how to prepare images, nor what its classes are called",
            reason=Reason.NOT_EXPORTED,
        )
    try:
        return Card.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(
            f"{path} was written by another version of resnetd, or damaged: it has {_reason(error)}",
            hint="export it again",
        ) from error


def _marks_in(texts: Mapping[str, str], path: Path) -> NDArray[np.uint8] | None:
    text = texts.get(TRAINED_ON_KEY)
    if text is None:
        return None
    try:
        return trained_on.unpack(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise ModelError(
            f"{path} is damaged: it does not say what the model was trained on", hint="export it again"
        ) from error


def _read_texts(path: Path) -> dict[str, str]:
    """Return the metadata of an exported file, after checking the whole file and its hash."""
    if not os.path.isfile(path):
        raise UnknownModel(f"no model file {path}", reason=Reason.NO_EXPORTED_FILE)
    try:
        texts = read_metadata(path)
        # Files of earlier versions have no hash.
        is_intact = SHA256_KEY not in texts or texts[SHA256_KEY] == sha256_without(path, SHA256_KEY)
    except UnsafeGraphError as error:
        hint = "exported models are self-contained: export it again"
        raise ModelError(f"{path} is refused: {error}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not an ONNX file that can be loaded", hint="export it again") from error
    if not is_intact:
        message = f"{path} is damaged, or was changed by another program: its content does not match its hash"
        raise ModelError(message, hint="export it again")
    return texts


def _reason(error: Exception) -> str:
    """Return what is wrong with a card."""
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return first_line(error)
    return "no card that can be read"
