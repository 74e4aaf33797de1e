"""Exported models: one ONNX file that says in its metadata all that running it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from resnetd_cli.card import Card
from resnetd_cli.engines.onnx import read_metadata
from resnetd_cli.errors import ModelError, UnknownModel

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
        ModelError: it is not one that `resnetd export` wrote.
    """
    if not path.is_file():
        raise UnknownModel(f"no model file {path}", hint="resnetd export MODEL -o FILE.onnx writes one")
    try:
        text = read_metadata(path).get(METADATA_KEY)
    except Exception as error:  # of whatever kind ONNX Runtime raises
        raise ModelError(f"{path} is not an ONNX file that can be loaded", hint="export it again") from error
    if text is None:
        raise ModelError(
            f"{path} does not say how it wants its images and what its classes are called",
            hint="resnetd export MODEL -o FILE.onnx writes files that do",
        )
    try:
        return Card.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} was written by another version of resnetd, or damaged", hint="export it again"
        ) from error
