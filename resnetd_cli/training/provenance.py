"""Where a run comes from: hashes of the files it starts from, and the machine and versions that it ran on."""

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
from resnetd_cli.errors import Reason, ResnetdError, UsageError
from resnetd_cli.models import checkpoints, config_json
from resnetd_cli.models.names import Kind
from resnetd_cli.system.cpus import processor
from resnetd_cli.system.files import sha256

if TYPE_CHECKING:
    from accelerate import Accelerator

    from resnetd_cli.models.network import Network

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "pillow", "numpy")

Origin = Sequence[Mapping[str, str]]
"""The files that a model was loaded from: `file`, the absolute path, and `sha256`, of the content.

A `config.json` also has `settings_sha256`, over what timm reads of it: `evaluate --fit-temperature` adds to it.
"""
_SETTINGS = "settings_sha256"


def origin(network: Network, *, own_weights: bool = False) -> Origin:
    """Return the files that a network was loaded from: weights, and the `config.json` of a folder or the hub.

    Args:
        network: the network.
        own_weights: its weights are the user's checkpoint, not the MODEL's own.
    """
    ref, weights = network.definition.ref, network.file.absolute()
    files = [weights]
    if ref.kind is Kind.FOLDER:
        files.append(Path(ref.location).absolute() / config_json.NAME)
    elif ref.kind is Kind.HUB and not own_weights:
        files.append(weights.parent / config_json.NAME)
    return [{"file": str(path), **_hashes(path)} for path in files]


def check(what: str, before: Origin, now: Origin | None = None) -> None:
    """Refuse a model that has changed since the run started.

    Args:
        what: what to call the model in errors.
        before: its files at the start.
        now: the files that it was loaded from now; None: it was not loaded, and its files may be gone.

    Raises:
        UsageError: a file has changed.
    """
    if now is None:
        now = [_now(entry) for entry in before]
    for one, other in zip(before, now, strict=False):
        key = _SETTINGS if _SETTINGS in one else "sha256"
        if one[key] != other[key]:
            message = f"{other['file']} has changed since the run started: {what} is not the same"
            raise UsageError(message, reason=Reason.FILE_CHANGED)


def describe_start(
    accelerator: Accelerator, *, began: float, step: int, workers: int, arguments: Sequence[str]
) -> Any:
    """Return what a start of a run, the first or a resumption, runs on, as JSON's types.

    It is recorded; none of it prevents a resumption.

    Args:
        accelerator: devices, precision, processes.
        began: when the command started, by `time.monotonic`.
        step: number of updates of the weights before.
        workers: processes that load images, for each training process.
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
    """Return the versions of Python and of the packages that a result may depend on."""
    found = {"resnetd": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _hashes(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, and for a `config.json` that of its settings, in hexadecimal."""
    if path.name != config_json.NAME:
        return {"sha256": sha256(*checkpoints.parts(path))}
    settings = json.dumps(config_json.read(str(path.parent), path.parent), sort_keys=True)
    return {"sha256": sha256(path), _SETTINGS: hashlib.sha256(settings.encode()).hexdigest()}


def _now(entry: Mapping[str, str]) -> Mapping[str, str]:
    """Return a file's present entry; the old one if it can no longer be read."""
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
