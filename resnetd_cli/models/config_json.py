"""Read and check the `config.json` of a model folder or hub repository, and store temperatures in it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

from resnetd_cli.class_names.shipped import INDEX
from resnetd_cli.errors import ModelError, Reason, first_line
from resnetd_cli.results import FittedTemperature, check_temperature, with_temperature
from resnetd_cli.system.escaping import printable
from resnetd_cli.system.files import write_atomic
from resnetd_cli.system.wording import shortened

NAME = "config.json"
_TEMPERATURES = "temperatures"
_TEMPERATURE = "temperature"
"""The key of earlier versions: a single number, for the training size in fp32."""
_MOST_TEMPERATURES = 1000
_MAX_BYTES = 2**24
_MOST_CLASSES = 2**20
_ARCHITECTURE = re.compile(r"\w{1,100}(\.\w{1,100})?", re.ASCII)
_FILE = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
_PLACEHOLDER = re.compile(r"LABEL_[0-9]+")
_BY_NAME = ("label2id", "class_to_idx")
_MAY_BE_NULL = ("model_args", "label_names", "label_descriptions", "num_classes")
_OTHERS = {
    "_diffusers_version": "diffusers",
    "keras_version": "Keras",
    "peft_type": "PEFT",
    "model_cfg": "open_clip",
    "model_type": "Hugging Face's transformers",
    "transformers_version": "Hugging Face's transformers",
    "architectures": "Hugging Face's transformers",
}
"""Keys that identify other libraries' configurations. timm's have an `architecture`."""
# A configuration may not decide where weights come from or how they are read.
_PLACES = ("source", "file", "hf_hub_id", "url", "state_dict", "custom_load")
_ON_TOP = ("num_classes", "label_names", "label_descriptions")
"""Keys beside `pretrained_cfg` that replace those in it."""
_WITHOUT_EFFECT = ("num_classes", "drop_rate", "drop_path_rate")
"""Arguments that do not change what a network with trained weights answers."""
_USUAL = {"in_chans": 3, "global_pool": "avg"}
"""Arguments that timm stores with their usual values."""
_PLAIN_KEYS = frozenset(
    {
        "url",
        "file",
        "state_dict",
        "hf_hub_id",
        "hf_hub_filename",
        "source",
        "architecture",
        "tag",
        "custom_load",
        "input_size",
        "test_input_size",
        "min_input_size",
        "fixed_input_size",
        "interpolation",
        "crop_pct",
        "test_crop_pct",
        "crop_mode",
        "mean",
        "std",
        "num_classes",
        "label_offset",
        "label_names",
        "label_descriptions",
        "pool_size",
        "test_pool_size",
        "first_conv",
        "classifier",
        "license",
        "description",
        "origin_url",
        "paper_name",
        "paper_ids",
        "notes",
    }
)
"""The keys of timm's pretrained configurations."""
_RESERVED = (
    "pretrained_strict",
    "pretrained_filter_fn",
    "features_only",
    "feature_cfg",
    "feature_cls",
    "kwargs_filter",
)


def read(owner: str, folder: Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return timm's pretrained configuration, the architecture, and the arguments to build it with.

    Args:
        owner: what to call the model in errors.
        folder: the folder of its `config.json`.

    Raises:
        ModelError: timm cannot read it, or it holds settings that no model needs.
    """
    from timm.models._hub import _parse_model_cfg

    try:
        content = _content(folder)
        if "architecture" not in content:
            _refuse_others(owner, content)
        config, architecture, arguments = _parse_model_cfg(_as_timm_writes(content), {})
        config = {key: value for key, value in config.items() if key not in _PLACES}
        _check_architecture(architecture)
        _check_arguments(arguments)
        _check_config(config)
    except ValueError as error:
        raise _bad(owner, "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)) from error
    except RecursionError as error:
        raise _bad(owner, "it is nested too deep") from error
    except (KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise _bad(owner, "its parts are not of the types that timm writes") from error
    return config, architecture, arguments


def read_plain(folder: Path, architectures: Container[str]) -> tuple[dict[str, Any], str]:
    """Return what `read` does without timm, for a configuration without anything unusual.

    Args:
        folder: the folder of its `config.json`.
        architectures: the known architectures.

    Raises:
        NeedsTorchError: it has another architecture, arguments to build it with, or something only timm can judge.
    """
    from resnetd_cli.models.plain_tensors import NeedsTorchError

    try:
        content = _as_timm_writes(_content(folder))
        config, arguments = dict(content["pretrained_cfg"]), dict(content.get("model_args", {}))
        config |= {key: content[key] for key in _ON_TOP if key in content}
        unusual = (
            content["architecture"] not in architectures,
            any(key not in _WITHOUT_EFFECT and value != _USUAL.get(key) for key, value in arguments.items()),
            not {*config} <= _PLAIN_KEYS,
            any(config.get(key) for key in ("fixed_input_size", "label_offset")),
            any(config[key][0] != 3 for key in ("input_size", "test_input_size") if config.get(key)),
        )
        if any(unusual):
            raise NeedsTorchError("its config.json has unusual settings")
        _check_values(config)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise NeedsTorchError("its config.json is not as timm writes it") from error
    return {key: value for key, value in config.items() if key not in _PLACES}, content["architecture"]


def _content(folder: Path) -> dict[str, Any]:
    if (folder / NAME).stat().st_size > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
    content = json.loads((folder / NAME).read_bytes())
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    return content


def _refuse_others(owner: str, content: Mapping[str, Any]) -> None:
    """Reject another library's configuration, and name the library.

    Raises:
        ModelError: it is another library's.
    """
    for mark, library in _OTHERS.items():
        if mark in content:
            classes = content.get("architectures")
            kind = classes[0] if isinstance(classes, list) and classes else content.get("model_type")
            which = f" ({printable(kind)[:80]})" if isinstance(kind, str) else ""
            message = f"{owner} is a model of {library}{which}, not of timm"
            raise ModelError(message, reason=Reason.NOT_OF_TIMM)


def _as_timm_writes(content: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in timm's form, from what transformers' timm wrapper or people wrote."""
    content = {key: value for key, value in content.items() if value is not None or key not in _MAY_BE_NULL}
    ids: dict[str, Any] = {
        key: content.pop(key) for key in ("id2label", "label2id", "class_to_idx") if key in content
    }
    inner = content.get("pretrained_cfg", {})
    names = content.get("label_names") or content.get("labels") or inner.get("label_names")
    key = next(iter(ids), "")
    names = _by_index(names, by_name=False) if names else _by_index(ids.get(key), by_name=key in _BY_NAME)
    if names is not None:
        content.pop("labels", None)
        content["label_names"] = [] if _are_placeholders(names) else names
    return content


def _by_index(names: Any, *, by_name: bool) -> Any:
    """Return a map of names to indices inverted; anything else unchanged.

    Args:
        names: the names as written in the file.
        by_name: the map's key says that names come first; without it, a map of digits to digits is ambiguous.
    """
    if not isinstance(names, dict) or not names:
        return names
    are_texts = all(isinstance(value, str) and INDEX.fullmatch(value) for value in names.values())
    are_counts = all(_is_count(value, _MOST_CLASSES) for value in names.values())
    if not are_counts and not (are_texts and (by_name or not all(map(INDEX.fullmatch, names)))):
        return names
    turned = {str(int(index)): name for name, index in names.items()}
    return turned if len(turned) == len(names) else names


def _are_placeholders(names: Any) -> bool:
    """Return whether the names are transformers' placeholders for unnamed classes: `LABEL_7`."""
    values = names.values() if isinstance(names, dict) else names if isinstance(names, list) else ()
    return bool(values) and all(isinstance(name, str) and _PLACEHOLDER.fullmatch(name) for name in values)


def read_temperatures(owner: str, folder: Path) -> tuple[FittedTemperature, ...]:
    """Return the temperatures that `evaluate --fit-temperature` wrote into a folder's `config.json`.

    Raises:
        ModelError: they are invalid, or the file cannot be read.
    """
    try:
        content = _content(folder)
        # In timm's older layout all keys are timm's.
        return _stored(content) if "pretrained_cfg" in content else ()
    except (OSError, ValueError, RecursionError, TypeError) as error:
        message = f"{owner}: config.json has {first_line(error)}"
        raise ModelError(message, hint="remove it from config.json", reason=Reason.BAD_TEMPERATURE) from error


def _stored(content: Mapping[str, Any]) -> tuple[FittedTemperature, ...]:
    alone = [FittedTemperature(check_temperature(content[_TEMPERATURE]))] if _TEMPERATURE in content else []
    others = content.get(_TEMPERATURES, [])
    if not isinstance(others, list) or len(others) > _MOST_TEMPERATURES:
        raise ValueError("temperatures that are no list, or a very long one")
    return (*alone, *map(FittedTemperature.of, others))


def keeps_temperature(folder: Path) -> bool:
    """Return whether a folder's `config.json` can hold a temperature: timm's older layout cannot."""
    try:
        content = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):  # loading the model reports it
        return False
    return isinstance(content, dict) and "pretrained_cfg" in content


def write_temperature(folder: Path, new: FittedTemperature) -> None:
    """Write a temperature into a folder's `config.json`; it replaces one for the same size and precision.

    The file keeps its indentation, and is replaced atomically.

    Raises:
        OutputError: it cannot be written.
    """
    data = (folder / NAME).read_bytes()
    text = data.decode(json.detect_encoding(data))
    content = json.loads(text)
    stored = with_temperature(_stored(content), new)
    content.pop(_TEMPERATURE, None)
    content[_TEMPERATURES] = [each.record() for each in stored]
    first_indent = re.search(r"\n([ \t]+)", text)
    indent = first_indent[1] if first_indent else None
    end = text[len(text.rstrip()) :]
    written = json.dumps(content, indent=indent, ensure_ascii=text.isascii())
    write_atomic(folder / NAME, f"{written}{end}".encode())


def _bad(owner: str, reason: str) -> ModelError:
    reason = shortened(reason)
    return ModelError(f"{owner}: config.json is not a timm model's: {reason}", hint="check that timm wrote it")


def _check_architecture(architecture: object) -> None:
    import timm

    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        raise ValueError(f"its architecture is {architecture!r}")
    if not timm.is_model(architecture):
        raise ValueError(f"timm has no architecture {architecture!r}")


def _check_arguments(arguments: object) -> None:
    """Reject arguments that are not for the network but change where timm loads weights from, or how."""
    import timm

    if not isinstance(arguments, Mapping):
        raise ValueError(f"its model_args are {arguments!r}")
    reserved = {*inspect.signature(timm.create_model).parameters, *_RESERVED}
    if found := reserved.intersection(arguments):
        raise ValueError(f"its model_args have {', '.join(sorted(found))}")


def _check_config(config: Mapping[str, Any]) -> None:
    from timm.models import PretrainedCfg

    known = {field.name for field in dataclasses.fields(PretrainedCfg)}
    if strangers := set(config) - known:
        raise ValueError(f"it has {min(strangers)!r}")
    _check_values(config)


def _check_values(config: Mapping[str, Any]) -> None:
    checks: dict[str, Callable[[Any], object]] = {
        "num_classes": lambda value: _is_count(value, _MOST_CLASSES),
        "label_offset": lambda value: value is False or _is_count(value, _MOST_CLASSES),
        "classifier": _are_names,
        "first_conv": _are_names,
        "hf_hub_filename": lambda value: isinstance(value, str) and _FILE.fullmatch(value),
    }
    for key, is_right in checks.items():
        value = config.get(key)
        if value is not None and not is_right(value):
            raise ValueError(f"its {key} is {value!r}")


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _are_names(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(name, str) for name in value)
    return isinstance(value, str)
