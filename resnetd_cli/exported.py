"""Exported models: one ONNX file that says in its metadata all that running it takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from resnetd_cli.card import Card
from resnetd_cli.errors import ModelError, UnknownModel, first_line
from resnetd_cli.onnx_file import UnsafeGraphError, read_metadata

SUFFIX = ".onnx"
METADATA_KEY = "resnetd"
"""The entry of the file's metadata that holds the card, as JSON."""


def is_exported(model: str) -> bool:
    """Tell whether a MODEL names an exported file."""
    return model.lower().endswith(SUFFIX)


def write_file(graph: Path, card: Card, stream: IO[bytes]) -> None:
    """Write a graph and its card as one file."""
    import onnx

    model = onnx.load(str(graph))
    model.producer_name, model.producer_version = METADATA_KEY, card.versions["resnetd"]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(card.to_json())})
    stream.write(model.SerializeToString())


def read_card(path: Path) -> Card:
    """Return what an exported file says of itself.

    Raises:
        UnknownModel: there is no such file.
        ModelError: it is not one that `resnetd export` wrote, or asks for what none of those needs.
    """
    if not os.path.isfile(path):
        raise UnknownModel(f"no model file {path}", hint="resnetd export MODEL -o FILE.onnx writes one")
    try:
        text = read_metadata(path).get(METADATA_KEY)
    except UnsafeGraphError as error:
        hint = "exported models are complete in themselves: export it again"
        raise ModelError(f"{path} is refused: {error}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not an ONNX file that can be loaded", hint="export it again") from error
    if text is None:
        raise ModelError(
            f"{path} is not resnetd's: it does not say how to prepare images, nor what its classes are called",
            hint="resnetd export MODEL -o FILE.onnx writes files that do",
        )
    try:
        return Card.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(
            f"{path} was written by another version of resnetd, or damaged: it has {_reason(error)}",
            hint="export it again",
        ) from error


def _reason(error: Exception) -> str:
    """Return what is wrong with a card, in words."""
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return first_line(error)
    return "no card that can be read"
