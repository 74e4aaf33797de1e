"""Resolve a MODEL from the command line: a timm name, a hub repository, a folder or a file."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from resnetd_cli.errors import Reason, UnknownModel
from resnetd_cli.models import other_tools
from resnetd_cli.models.table import TableEntry, entries, find_entry
from resnetd_cli.system.distribution import how_to_install, is_installed
from resnetd_cli.system.escaping import shell_word
from resnetd_cli.system.files import expand_user

DEFAULT_MODEL = "resnet50d"
EMBEDDED = "embedded"
EXPORTED_SUFFIX = ".onnx"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@\w[\w./-]*)?", re.ASCII)
_HUB_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+)/([\w.-]+)(?:/(?:tree|blob|resolve)/([\w.-]+).*)?/?$",
    re.ASCII,
)
_URL = re.compile(r"[a-z][a-z0-9+]*://", re.IGNORECASE)
_FOLDER_SCHEME = "local-dir:"
_TIMM_OWNER = "timm/"
_TIMM_NAME = re.compile(r"timm/\w+(\.\w+)?", re.ASCII)
_CACHED = "models--"
"""How the hub's cache names a repository's folder: `models--OWNER--NAME`."""
_CONFIG = "config.json"
_REPLACED = {
    "ig_resnext101_32x16d": "resnext101_32x16d.fb_wsl_ig1b_ft_in1k",
    "ig_resnext101_32x32d": "resnext101_32x32d.fb_wsl_ig1b_ft_in1k",
    "ig_resnext101_32x48d": "resnext101_32x48d.fb_wsl_ig1b_ft_in1k",
    "mixer_b16_224_in21k": "mixer_b16_224.goog_in21k",
    "mixer_l16_224_in21k": "mixer_l16_224.goog_in21k",
    "resmlp_12_224_dino": "resmlp_12_224.fb_dino",
    "resmlp_24_224_dino": "resmlp_24_224.fb_dino",
}
"""Deprecated names that timm's own table maps to different weights."""
_ALSO = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "maxvit_t": "maxvit_tiny_tf_224",
}
"""timm's names for torchvision's models, where the spellings are too different to be found by similarity."""


class Kind(Enum):
    """Where a model's definition comes from."""

    TIMM = "timm"
    HUB = "hub"
    FOLDER = "folder"
    EMBEDDED = "embedded"
    EXPORTED = "exported"


@dataclass(frozen=True)
class ResolvedModel:
    """What a MODEL stands for.

    Attributes:
        name: the model's name in records.
        kind: where its definition comes from.
        location: timm's name, with the tag of its weights if it has any; the hub's OWNER/NAME; the folder; or the
            exported file.
        file: the weights file in the folder, if the MODEL names one.
        former: the MODEL, if it is a name from an older version of timm.
    """

    name: str
    kind: Kind
    location: str
    file: Path | None = None
    former: str | None = None

    @property
    def entry(self) -> TableEntry | None:
        """Its row of the ResNet-D table; None for a model outside the table."""
        return find_entry(self.name) if self.kind is Kind.TIMM else None


@dataclass(frozen=True)
class ModelRef:
    """A MODEL as the user wrote it.

    It is resolved on first use, and the result is kept. Only `resolved` may import timm, so that a compiled model
    runs without it.
    """

    text: str

    def __str__(self) -> str:
        """Return the text that the user wrote."""
        return self.text

    @property
    def is_exported(self) -> bool:
        """Whether it is an exported `.onnx` file, judged by its extension."""
        return is_exported(self.text)

    @cached_property
    def resolved(self) -> ResolvedModel:
        """What it stands for.

        Raises:
            UnknownModel: no model has this name; the hint lists similar ones.
        """
        return resolve(self.text)

    @cached_property
    def path(self) -> Path | None:
        """The absolute path of the folder or file that it names; None if it is not a path."""
        if self.text == EMBEDDED or find_entry(self.text):
            return None
        path = expand_user(self.text.removeprefix(_FOLDER_SCHEME))
        return path.absolute() if os.path.exists(path) else None

    @cached_property
    def folder(self) -> Path | None:
        """The absolute path of the model folder that it names, or that contains the file it names; else None."""
        path = self.path
        return path if path is None or path.is_dir() else _home(path)


@dataclass(frozen=True)
class ModelChoice:
    """The network to load.

    Attributes:
        model: the MODEL.
        weights: a checkpoint to load in place of the model's own.
        image_size: `train` or `test` for the configuration's sizes, or the side in pixels.
    """

    model: ModelRef
    weights: Path | None = None
    image_size: str = "train"

    @classmethod
    def of(
        cls, model: str | ModelRef, weights: str | Path | None = None, image_size: str | int = "train"
    ) -> ModelChoice:
        """Return the choice that the user's texts describe; `~` in a path is the home folder."""
        return cls(
            model if isinstance(model, ModelRef) else ModelRef(model),
            None if weights is None else expand_user(weights),
            str(image_size),
        )


def resolve(model: str) -> ResolvedModel:
    """Find out what a MODEL stands for. timm is imported only for names outside the table.

    Raises:
        UnknownModel: it is neither a timm name nor a model folder; the hint lists similar names.
    """
    if is_exported(model):
        return ResolvedModel(model, Kind.EXPORTED, str(expand_user(model)))
    if model == EMBEDDED:
        return ResolvedModel(EMBEDDED, Kind.EMBEDDED, "tf_efficientnet_lite0.in1k")
    if entry := find_entry(model):
        return ResolvedModel(entry.name, Kind.TIMM, entry.name)
    if (location := _hub_location(model)) is not None:
        return ResolvedModel(f"hf-hub:{location}", Kind.HUB, _hub_id(location))
    return _at_path(model) if _is_path(model) else _named(model)


def is_exported(name: str) -> bool:
    """Return whether a file has the extension of an exported model."""
    return name.lower().endswith(EXPORTED_SUFFIX)


def timm_names(pattern: str = "*") -> list[str]:
    """Return the names of all matching timm models, one for each set of trained weights.

    Architectures without weights in timm are listed by their bare name.
    """
    import timm

    trained = timm.list_pretrained()
    with_weights = {name.partition(".")[0] for name in trained}
    names = trained + [name for name in timm.list_models() if name not in with_weights]
    return sorted(name for name in names if matches(name, pattern))


def timm_configs(pattern: str) -> Iterator[tuple[str, Any]]:
    """Yield the name of each matching timm model with its pretrained configuration, or None."""
    import timm

    for name in timm_names(pattern):
        yield name, timm.get_pretrained_cfg(name)


def matches(name: str, pattern: str) -> bool:
    """Return whether a model's name matches a PATTERN: a glob, or part of the name."""
    return fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"*{pattern}*")


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


def _hub_location(model: str) -> str | None:
    """Return OWNER/NAME or OWNER/NAME@REVISION if a MODEL names a hub repository, else None."""
    if match := _HUB_PAGE.match(model):
        owner, name, revision = match.groups()
        return f"{owner}/{name}" + (f"@{revision}" if revision and revision != "main" else "")
    scheme, _, location = model.partition(":")
    return location if scheme in ("hf-hub", "hf_hub") else None


def _is_path(model: str) -> bool:
    """Return whether a MODEL looks like a path, which no timm name does."""
    has_suffix = other_tools.is_weights(model) or other_tools.tool_of_file(model) is not None
    return has_suffix or "/" in model or "\\" in model or model.startswith((".", "~", _FOLDER_SCHEME))


def _at_path(model: str) -> ResolvedModel:
    location = model.removeprefix(_FOLDER_SCHEME)
    path = expand_user(location)
    if os.path.isdir(path):
        return _folder(location, path)
    if _TIMM_NAME.fullmatch(model) and not os.path.exists(path):  # timm accepts this form too
        return resolve(model.removeprefix(_TIMM_OWNER))
    return _file(location, path)


def _named(model: str) -> ResolvedModel:
    if os.path.isfile(os.path.join(model, _CONFIG)) and not _may_be_timms(model):
        return _folder(model, Path(model))
    has_timm = is_installed("timm")
    if has_timm and (ref := _timm(model)):
        return ref
    if os.path.isdir(model):
        return _folder(model, Path(model))
    if os.path.isfile(model):
        return _file(model, Path(model))
    raise _unknown(model) if has_timm else _unknown_without_timm(model)


def _may_be_timms(name: str) -> bool:
    """Return whether timm may have a model of this name, judging by its source code: an import takes seconds."""
    from importlib.util import find_spec

    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return False
    architecture = name.partition(".")[0].encode()
    places = [form % architecture for form in (b"def %s(", b"'%s'", b'"%s"')]
    sources = Path(spec.origin).parent.joinpath("models").glob("*.py")
    return any(place in source for source in map(Path.read_bytes, sources) for place in places)


def _folder(location: str, path: Path) -> ResolvedModel:
    """Resolve an existing folder.

    Raises:
        UnknownModel: it is not a model folder; the hint names a model nearby, if there is one.
    """
    if (path / _CONFIG).is_file():
        return ResolvedModel(location, Kind.FOLDER, str(path))
    if snapshot := _snapshot(path):
        return ResolvedModel(location, Kind.FOLDER, str(snapshot))
    names = _names_in(path)
    if tool := other_tools.tool_of_folder(names):
        raise UnknownModel(
            f"{location} holds a model of {tool}, which timm does not read", reason=Reason.MODEL_OF_ANOTHER_TOOL
        )
    weights = sorted(name for name in names if other_tools.is_weights(name))
    message, near = f"{location} has no {_CONFIG}", _near_folder(location, path, names)
    if weights and not near:
        details = (shell_word(os.path.join(location, weights[0])),)
        raise UnknownModel(message, reason=Reason.WEIGHTS_AS_MODEL, details=details)
    raise UnknownModel(message, hint=near or "name a folder that timm or a fine-tuning run wrote")


def _snapshot(path: Path) -> Path | None:
    """Return the snapshot of the main revision, or the only one, in a repository's folder of the hub's cache."""
    if not path.name.startswith(_CACHED):
        return None
    snapshots = [config.parent for config in sorted(path.glob(f"snapshots/*/{_CONFIG}"))]
    with suppress(OSError, UnicodeDecodeError):
        main = (path / "refs" / "main").read_text(encoding="utf-8").strip()
        snapshots = [snapshot for snapshot in snapshots if snapshot.name == main] or snapshots
    return snapshots[0] if len(snapshots) == 1 else None


def _near_folder(location: str, path: Path, names: set[str]) -> str | None:
    """Return a hint to the model that was probably meant by a folder that is none, if there is one."""
    cached = next((part for part in path.absolute().parts if part.startswith(_CACHED)), None)
    if cached and (repo := cached.removeprefix(_CACHED).replace("--", "/")).count("/") == 1:
        return f"the hub's cache holds {repo} there: the model is hf-hub:{repo}"
    for name in sorted(names):
        if (path / name / _CONFIG).is_file():
            return f"{os.path.join(location, name)} has one"
    return None


def _names_in(path: Path) -> set[str]:
    with suppress(OSError):
        return {entry.name for entry in path.iterdir()}
    return set()


def _file(location: str, path: Path) -> ResolvedModel:
    """Resolve a file, or a path that does not exist.

    Raises:
        UnknownModel: it is not a weights file in a model folder.
    """
    is_there = os.path.isfile(path)
    if is_there and other_tools.is_weights(path.name) and (home := _home(path)):
        return ResolvedModel(location, Kind.FOLDER, str(home), file=path)
    if tool := other_tools.tool_of_model(location) or other_tools.tool_of_file(path.name):
        raise UnknownModel(
            f"{location} is a model of {tool}, which timm does not read", reason=Reason.MODEL_OF_ANOTHER_TOOL
        )
    if _URL.match(location):
        raise UnknownModel(
            f"{location} is a URL, and models come from the hub or from this machine",
            hint="download it, name its architecture as the model",
            reason=Reason.MODEL_AT_URL,
        )
    if is_there:
        what = "a weights file" if other_tools.is_weights(path.name) else "a file"
        home = _home(path)
        message = f"{location} is {what}, not a model"
        if home:
            raise UnknownModel(message, hint=f"name its folder as the model: {shell_word(home)}")
        raise UnknownModel(message, reason=Reason.WEIGHTS_AS_MODEL, details=(shell_word(location),))
    if other_tools.is_weights(path.name):
        raise UnknownModel(f"no file {location}", hint="check the path", reason=Reason.NO_WEIGHTS_FILE)
    looks_like_hub = _HUB_ID.fullmatch(location) and not location.startswith(".")
    hint = f"a repository on the hub is hf-hub:{location}" if looks_like_hub else "check the path"
    raise UnknownModel(f"no model folder {location}", hint=hint)


def _home(file: Path) -> Path | None:
    """Return the model folder of a weights file: the one that contains it, or the run of its `checkpoints`."""
    folders = [file.parent, *([file.parent.parent] if file.parent.name == "checkpoints" else [])]
    return next((folder for folder in folders if (folder / _CONFIG).is_file()), None)


def _timm(model: str) -> ResolvedModel | None:
    """Resolve a timm name, with the tag of its default weights if it has any; None if timm does not know it."""
    import timm

    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        return None
    current = _REPLACED.get(model) or timm.models.get_deprecated_models().get(model)
    if current and (ref := _timm(current)):
        return replace(ref, former=model)
    name = model
    if tag:
        return ResolvedModel(name, Kind.TIMM, name) if timm.is_model_pretrained(model) else None
    if config := timm.get_pretrained_cfg(architecture):
        name = f"{architecture}.{config.tag}"
    elif model in timm.models.get_deprecated_models():
        return None
    name = name if timm.is_model_pretrained(name) else architecture
    return ResolvedModel(name, Kind.TIMM, name)


def _unknown(model: str) -> UnknownModel:
    import timm

    tool = other_tools.tool_of_model(model)
    message = f"unknown model {model!r}" + (f", a name of {tool}" if tool else "")
    tagged = timm.list_pretrained(model.partition(".")[0])
    if tagged:
        return UnknownModel(message, hint=f"available weights: {', '.join(tagged[:8])}")
    names = dict.fromkeys(
        [EMBEDDED, *(entry.name for entry in entries()), *timm.list_models(), *timm.list_pretrained()]
    )
    folded = {_folded(name): name for name in reversed(names)}
    near = difflib.get_close_matches(_folded(_ALSO.get(model, model)), folded, n=4, cutoff=0.8 if tool else 0.7)
    if near:
        return UnknownModel(message, hint=f"similar names: {', '.join(folded[name] for name in near)}")
    return UnknownModel(message, reason=Reason.MODEL_OF_ANOTHER_TOOL if tool else Reason.UNKNOWN_MODEL)


def _unknown_without_timm(model: str) -> UnknownModel:
    message = f"{model!r} is not a ResNet-D model, and the package timm, which has others, is not installed"
    return UnknownModel(message, hint=f"{how_to_install()}; resnetd list-models shows what runs without")


def _folded(name: str) -> str:
    """Return a model's name in the form used to find similar ones: `ResNet-50_D` resembles `resnet50d`."""
    return re.sub(r"[-_ ]", "", name.lower())
