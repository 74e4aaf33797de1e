"""Checkpoint files: where in a folder they lie, what is in them, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnetd_cli.errors import WeightsError, first_line

_HINT = "name the architecture it was trained with: --model NAME"


def find(folder: Path) -> Path:
    """Return the checkpoint in a model folder, chosen as timm's `local-dir:` does.

    The usual names come first, then the first file of each extension.

    Raises:
        WeightsError: there is none.
    """
    named = [
        folder / name for name in ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
    ]
    for path in named + [
        path for suffix in ("safetensors", "pth", "bin") for path in sorted(folder.glob(f"*.{suffix}"))
    ]:
        if path.is_file():
            return path
    raise WeightsError(f"no weights in {folder}", hint="model.safetensors belongs beside config.json")


def read(file: Path) -> dict[str, Any]:
    """Return a checkpoint's tensors by name. Pickles are read with `weights_only=True` or not at all.

    Raises:
        WeightsError: it is damaged, not a checkpoint, or holds more than weights.
    """
    from timm.models import load_state_dict

    try:
        return load_state_dict(str(file))  # type: ignore[no-any-return]
    except Exception as error:
        raise _unreadable(file, error) from error


def class_count(file: Path, config: Mapping[str, Any]) -> int | None:
    """Return the number of classes a checkpoint was trained for, by its classifier's shape.

    0 means that it has no classifier; None, that this cannot be told.
    """
    classifier = config.get("classifier")
    if not classifier or file.suffix == ".npz":
        return None
    name = classifier if isinstance(classifier, str) else classifier[0]
    tensors = read(file)
    tensor = tensors.get(f"{name}.bias", tensors.get(f"{name}.weight"))
    if tensor is None:
        return 0
    # Some published checkpoints have a background class in front, which timm cuts off.
    return int(tensor.shape[0]) - (config.get("label_offset") or 0)


def _unreadable(file: Path, error: Exception) -> WeightsError:
    text = str(error)
    if _is_pickle(file) and ("weights_only" in text.lower() or "Unsupported global" in text):
        return WeightsError(
            f"{file} holds more than weights: loading it could run code, so it is refused",
            hint="save the state dict alone, best as .safetensors",
        )
    return WeightsError(f"{file} is not a weights file, or a damaged one", hint="a .safetensors or .pth is wanted")


def _is_pickle(file: Path) -> bool:
    """Tell a file that `torch.save` may have written: a zip archive, or a bare pickle."""
    with file.open("rb") as opened:
        return opened.read(4).startswith((b"PK\x03\x04", b"\x80"))


def does_not_fit(architecture: str, file: Path, error: Exception) -> WeightsError:
    """Return what to tell of a checkpoint that timm could not load into the architecture.

    Raises:
        WeightsError: the file itself cannot be read.
    """
    text = str(error)
    if "loading state_dict" not in text:
        read(file)  # raises where the file itself is at fault
        reason = first_line(error)
        return WeightsError(f"{file} cannot be loaded into {architecture}: {reason}", hint=_HINT)
    tensors = [f"{_count(text, 'Missing')} missing", f"{_count(text, 'Unexpected')} unexpected"]
    tensors.append(f"{text.count('size mismatch')} of another shape")
    return WeightsError(
        f"{file} does not fit {architecture}: of its tensors {', '.join(tensors)}",
        hint=_HINT,
    )


def _count(text: str, what: str) -> int:
    match = re.search(rf"{what} key\(s\) in state_dict: (.*)", text)
    return len(match[1].split(", ")) if match else 0
