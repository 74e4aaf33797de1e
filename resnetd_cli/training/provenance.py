"""Where a run comes from: the files whose weights it starts with, and what each of its starts ran on."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetd_cli import __version__
from resnetd_cli.errors import ResnetdError, UsageError
from resnetd_cli.models import checkpoints, configs, names, network
from resnetd_cli.models.names import Kind
from resnetd_cli.system.cpus import processor
from resnetd_cli.system.files import sha256

if TYPE_CHECKING:
    from accelerate import Accelerator

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "pillow", "numpy")

Origin = Sequence[Mapping[str, str]]
"""The files that a model was loaded from: `file`, its absolute path, and `sha256`, of its content.

A `config.json` has `settings_sha256`, too, over what timm reads of it: `evaluate --calibrate` may add to the file.
"""
_SETTINGS = "settings_sha256"


def origin(model: str, *, weights: Path | None = None, offline: bool = False) -> Origin:
    """Return the files that a MODEL is loaded from: its weights, and the `config.json` of a folder or a hub's.

    Args:
        model: the MODEL, which was loaded before: nothing is downloaded.
        weights: a checkpoint in place of its own.
        offline: as it was loaded.

    Raises:
        ResnetdError: see `factory.define` and `factory.find_weights`.
    """
    ref = names.resolve(model)
    definition = network.define(ref, offline=offline)
    file = network.find_weights(definition, file=weights, offline=offline)
    files = [file.absolute()]
    if ref.kind is Kind.FOLDER:
        files.append(Path(ref.location).absolute() / configs.NAME)
    elif ref.kind is Kind.HUB and weights is None:
        files.append(file.absolute().parent / configs.NAME)
    return [{"file": str(path), **_hashes(path)} for path in files]


def check(what: str, before: Origin, now: Origin | None = None) -> None:
    """Refuse a model that is no longer what a run started with.

    Args:
        what: what to call it in errors.
        before: its files at the start.
        now: those that it was loaded from now; None where it was not: then files that are gone are not missed.

    Raises:
        UsageError: a file has changed.
    """
    if now is None:
        now = [_now(entry) for entry in before]
    for one, other in zip(before, now, strict=False):
        key = _SETTINGS if _SETTINGS in one else "sha256"
        if one[key] != other[key]:
            message = f"{other['file']} has changed since the run started: {what} is not the same"
            raise UsageError(message, hint="put it back, or start anew with --overwrite")


def start(accelerator: Accelerator, *, began: float, step: int, workers: int, arguments: Sequence[str]) -> Any:
    """Return what a run's start, or its resumption, ran on, as JSON's types. None of it stops a resumption.

    Args:
        accelerator: devices, precision, processes.
        began: when it started, by `time.monotonic`.
        step: updates of the weights before it.
        workers: processes that load images, for each that trains.
        arguments: the command line.
    """
    import torch

    device = accelerator.device
    at = datetime.fromtimestamp(time.time() - time.monotonic() + began, timezone.utc)
    return {
        "time": at.isoformat(timespec="seconds"),
        "step": step,
        "arguments": list(arguments),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "precision": {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "workers": workers,
        "platform": platform.platform(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of what a result may depend on."""
    found = {"resnetd": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _hashes(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, and of a `config.json` that of its settings, in hexadecimal."""
    if path.name != configs.NAME:
        return {"sha256": sha256(*checkpoints.parts(path))}
    settings = json.dumps(configs.read(str(path.parent), path.parent), sort_keys=True)
    return {"sha256": sha256(path), _SETTINGS: hashlib.sha256(settings.encode()).hexdigest()}


def _now(entry: Mapping[str, str]) -> Mapping[str, str]:
    """Return a file's entry as it would be now; as it was, where it cannot be read any more."""
    path = Path(entry["file"])
    if not path.is_file():
        return entry
    try:
        return {**entry, **_hashes(path)}
    except OSError:
        return entry
    except ResnetdError:  # it is damaged
        return dict.fromkeys(entry, "") | {"file": entry["file"]}


def _processor() -> str:
    """Return the processor's name."""
    named = (line.partition(":") for line in processor().splitlines() if line.startswith("model name"))
    return next((name.strip() for _, _, name in named), platform.processor() or platform.machine())
