"""The ResNet-D family's table, and what a MODEL on the command line means."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import os
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from resnetd_cli.errors import UnknownModel
from resnetd_cli.files import expand_user

DEFAULT_MODEL = "resnet50d"
EMBEDDED = "embedded"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@\w[\w./-]*)?", re.ASCII)
_FOLDER_SCHEME = "local-dir:"
_TABLE = Path(__file__).parent / "data" / "resnetd-models.csv"


@dataclass(frozen=True)
class ModelCard:
    """The facts of one set of trained weights.

    Attributes:
        name: architecture and weights, as timm writes it: `resnet50d.ra2_in1k`.
        default: these are the weights that the bare architecture's name stands for.
        params_m: parameters, in millions.
        train_size, test_size: side of the square input, in pixels.
        train_crop, test_crop: `crop_pct` at that size.
        gmacs_train, gmacs_test: multiply-adds of one image at that size, in thousands of millions.
        top1_train, top5_train, top1_test, top5_test: ImageNet-1k accuracy at that size, in percent.
        hub_id: repository on the Hugging Face hub.
    """

    name: str
    default: bool
    params_m: float
    train_size: int
    train_crop: float
    gmacs_train: float
    top1_train: float
    top5_train: float
    test_size: int
    test_crop: float
    gmacs_test: float
    top1_test: float
    top5_test: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    license: str
    hub_id: str

    @property
    def architecture(self) -> str:
        """The name without its weights: `resnet50d`."""
        return self.name.partition(".")[0]


class Kind(Enum):
    """Where a model's definition comes from."""

    TIMM = "timm"
    HUB = "hub"
    FOLDER = "folder"
    EMBEDDED = "embedded"


@dataclass(frozen=True)
class ModelRef:
    """What a MODEL stands for.

    Attributes:
        name: as the records carry it.
        kind: where its definition comes from.
        location: timm's name, with the tag of its weights if it has any; the hub's OWNER/NAME; or the folder.
    """

    name: str
    kind: Kind
    location: str


@lru_cache
def cards() -> tuple[ModelCard, ...]:
    """Return the ResNet-D table: seven models, fifteen sets of weights."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(_card(row) for row in csv.DictReader(file))


def find_card(name: str) -> ModelCard | None:
    """Return the table's row for a full name or a bare architecture."""
    return next(
        (card for card in cards() if name in (card.name, card.architecture) and _stands_for(name, card)), None
    )


def resolve(model: str) -> ModelRef:
    """Find out what a MODEL means, with timm imported only for names outside the table.

    Raises:
        UnknownModel: neither a timm name nor a model folder; the hint names near ones.
    """
    if model == EMBEDDED:
        return ModelRef(EMBEDDED, Kind.EMBEDDED, "tf_efficientnet_lite0.in1k")
    if card := find_card(model):
        return ModelRef(card.name, Kind.TIMM, card.name)
    scheme, _, location = model.partition(":")
    if scheme in ("hf-hub", "hf_hub"):
        return ModelRef(f"hf-hub:{location}", Kind.HUB, _hub_id(location))
    looks_like_path = "/" in model or "\\" in model or model.startswith((".", "~"))
    if model.startswith(_FOLDER_SCHEME) or looks_like_path:
        return _folder(model.removeprefix(_FOLDER_SCHEME))
    if name := _timm_name(model):
        return ModelRef(name, Kind.TIMM, name)
    if os.path.isdir(model):
        return _folder(model)
    raise UnknownModel(f"unknown model {model!r}", hint=_near_names(model))


def local_path(model: str) -> Path | None:
    """Return the folder or file that a MODEL names, absolute; None where it is a name."""
    if model == EMBEDDED or find_card(model):
        return None
    path = expand_user(model.removeprefix(_FOLDER_SCHEME))
    return path.absolute() if os.path.exists(path) else None


def timm_names(pattern: str = "*") -> list[str]:
    """Return the names of every timm model that matches, each set of trained weights on its own.

    Architectures that timm has no weights for are there by their bare name.
    """
    import timm

    trained = timm.list_pretrained()
    with_weights = {name.partition(".")[0] for name in trained}
    names = trained + [name for name in timm.list_models() if name not in with_weights]
    return sorted(name for name in names if matches(name, pattern))


def matches(name: str, pattern: str) -> bool:
    """Tell whether a model's name fits a PATTERN: a glob, or a part of the name."""
    return fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"*{pattern}*")


def _card(row: dict[str, str]) -> ModelCard:
    convert: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": "True".__eq__}
    convert["tuple[float, ...]"] = lambda text: tuple(float(part) for part in text.split("/"))
    types = ModelCard.__annotations__
    row["name"] = row.pop("model")
    return ModelCard(**{key: convert[types[key]](text) for key, text in row.items()})


def _stands_for(name: str, card: ModelCard) -> bool:
    return name == card.name or card.default


def _hub_id(location: str) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(location.partition("@")[0])
        is_valid = _HUB_ID.fullmatch(location) and ".." not in location
    except HFValidationError:
        is_valid = None
    if not is_valid:
        hint = "write it as hf-hub:OWNER/NAME, or hf-hub:OWNER/NAME@REVISION"
        raise UnknownModel(f"{location!r} is not a hub repository", hint=hint)
    return location


def _folder(location: str) -> ModelRef:
    path = expand_user(location)
    if not os.path.isdir(path):
        looks_like_hub = _HUB_ID.fullmatch(location) and not location.startswith(".")
        hint = f"a repository on the hub is hf-hub:{location}" if looks_like_hub else "check the path"
        raise UnknownModel(f"no model folder {location}", hint=hint)
    if not (path / "config.json").is_file():
        raise UnknownModel(
            f"{location} has no config.json", hint="name a folder that timm or a fine-tuning run wrote"
        )
    return ModelRef(location, Kind.FOLDER, str(path))


def _timm_name(model: str) -> str | None:
    """Return timm's full name of a model, with the tag of its default weights where it has any."""
    import timm

    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        return None
    if tag:
        return model if timm.is_model_pretrained(model) else None
    config = timm.get_pretrained_cfg(architecture)
    name = f"{architecture}.{config.tag}" if config else architecture
    return name if timm.is_model_pretrained(name) else architecture


def _near_names(model: str) -> str:
    import timm

    names = [card.name for card in cards()] + [EMBEDDED, *timm.list_models(), *timm.list_pretrained()]
    tagged = timm.list_pretrained(model.partition(".")[0])
    if tagged:
        return f"its weights are: {', '.join(tagged[:8])}"
    near = difflib.get_close_matches(model.lower(), dict.fromkeys(names), n=4, cutoff=0.6)
    if near:
        return f"near names: {', '.join(near)}"
    return "resnetd list-models --all shows every name"
