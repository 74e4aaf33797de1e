"""Read checkpoint files safely (.safetensors, .pth): find them in a folder, load tensors, explain errors."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from resnetd_cli.errors import Reason, ResnetdError, WeightsError
from resnetd_cli.models import other_tools, pickles
from resnetd_cli.system.escaping import printable, shell_word
from resnetd_cli.system.memory import is_shortage, limited
from resnetd_cli.system.wording import short_reason

NUMPY = ".npz"
_HINT = "name the architecture it was trained with as MODEL"
_WANTED = "give a .safetensors or .pth file"
_SAVE_ALONE = "where it was trained, save the state dict alone: torch.save(model.state_dict(), 'weights.pth')"
_PAGE = ("a web page", "download the file itself, not the page that shows it")
_NO_WEIGHTS = {
    b"version https://git-lfs": ("what Git LFS left in place of a file", "fetch the file itself: git lfs pull"),
    b"<!DOCTYPE": _PAGE,
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"GGUF": ("a model of llama.cpp (GGUF)", _WANTED),
    b"\x89HDF\r\n\x1a\n": ("a model of Keras (HDF5)", _WANTED),
}
"""First bytes of files that are often mistaken for weights: what they are, and a hint."""
_PICKLE = b"\x80"
_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model")
"""Keys under which training scripts save a network, best first: averaged copies before the others."""
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Parts that torch's layer wrappers add to tensor names."""
_DEEPEST, _MOST = 5, 1000
_ARCHITECTURE_KEYS = ("arch", "architecture", "model_name", "backbone", "model")
_ARCHITECTURE = re.compile(r"[\w.-]{3,80}", re.ASCII)
_READING_BYTES = 2**29
BUILDING_BYTES = 2**30
"""Memory that reading a file, and building its network, may take in addition to the tensors."""
_INDEX = ".index.json"
_MAX_INDEX_BYTES = 2**24
_PART = re.compile(r"[\w-][\w.-]*\.(safetensors|bin)", re.ASCII)
_BESIDE = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args|random_states)", re.IGNORECASE)
"""Files that Hugging Face's Trainer and accelerate write beside the weights."""
_MOST_NAMED = 5
_NUMPY_RATIO = 20
_FAMILIAR = ("torch.", "collections.", "_codecs.", "argparse.", "builtins.bytearray", "builtins.set")
"""Names that the pickles of ordinary state dicts import."""


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, as a training script saved them.

    Attributes:
        path: the keys that lead to it in the file, joined by dots; empty at the top level.
        tensors: by name, without the parts that torch's wrappers add.
        architecture: the architecture that the file names, if any.
    """

    path: str
    tensors: dict[str, Any]
    architecture: str | None = None

    @property
    def rank(self) -> int:
        """How likely its key is to hold the trained network: 0 is best."""
        name = self.path.rpartition(".")[2]
        return _KEYS.index(name) if name in _KEYS else len(_KEYS)


def find(folder: Path) -> Path:
    """Return the checkpoint in a model folder, chosen as timm's `local-dir:` does.

    The usual names come first, including indices of sharded checkpoints, then the only file with an extension.

    Raises:
        WeightsError: there is none, or several could be meant.
    """
    named = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")
    for path in (folder / name for name in (*named, "pytorch_model.pth", "model.pth")):
        if path.is_file():
            return path
    for suffix in ("safetensors", "pth", "bin", "pt", "ckpt", "tar"):
        found = [
            path for path in sorted(folder.glob(f"*.{suffix}")) if path.is_file() and not _BESIDE.match(path.name)
        ]
        if len(found) > 1:
            names = ", ".join(printable(path.name) for path in found[:_MOST_NAMED])
            message = f"{folder} has {len(found)} weights files: {names}"
            raise WeightsError(message, reason=Reason.SEVERAL_WEIGHTS, details=(shell_word(found[0]),))
        if found:
            return found[0]
    raise WeightsError(f"no weights in {folder}", hint="model.safetensors belongs beside config.json")


def parts(file: Path) -> list[Path]:
    """Return the files of a checkpoint: the file itself, or an index and the shards that it names.

    Raises:
        WeightsError: the index is damaged, or names no shards, or shards in other folders.
    """
    if not file.name.endswith(_INDEX):
        return [file]
    try:
        if file.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError("too long")
        names = sorted(set(json.loads(file.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{file} is not an index of weights, or a damaged one", hint=_WANTED) from error
    if not names or not all(_PART.fullmatch(name) for name in names):
        raise WeightsError(f"{file} names no weights files beside it", hint=_WANTED)
    for name in names:
        if not (file.parent / name).is_file():
            raise WeightsError(f"{file} names {name}, which is missing", hint="copy all files of the model")
    return [file, *(file.parent / name for name in names)]


def read(file: Path) -> list[StateDict]:
    """Return the state dicts in a checkpoint, best first. Pickles are only read with `weights_only=True`.

    The file's size bounds the memory used, whatever the file claims to hold.

    Raises:
        WeightsError: it is damaged, not a checkpoint, or holds more than weights.
    """
    import safetensors.torch
    import torch  # before the limit

    if len(files := parts(file)) > 1:
        tensors = {name: each for part in files[1:] for name, each in read(part)[0].tensors.items()}
        return [StateDict("", tensors)]
    try:
        size = file.stat().st_size
        with limited(2 * size + _READING_BYTES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            is_safe = _is_safetensors(file)
            content = safetensors.torch.load_file(str(file)) if is_safe else _load_pickle(file)
            found = _state_dicts(content, torch.Tensor)
            _check_sizes(found, size)
            return found
    except ResnetdError:
        raise
    except Exception as error:  # the libraries raise many types
        raise _unreadable(file, error) from error


def read_plain(file: Path) -> list[StateDict]:
    """Return what `read` does without torch: the tensors are `PlainTensor`s, mapped from the file.

    Raises:
        NeedsTorchError: it is not a checkpoint, or one that only torch can read or judge.
        WeightsError: it is an index without its shards.
    """
    from resnetd_cli.models import torch_files
    from resnetd_cli.models.plain_tensors import NeedsTorchError, PlainTensor, read_safetensors

    if len(files := parts(file)) > 1:
        tensors = {name: each for part in files[1:] for name, each in read_plain(part)[0].tensors.items()}
        return [StateDict("", tensors)]
    try:
        found = _state_dicts(
            read_safetensors(file) if _is_safetensors(file) else torch_files.read(file), PlainTensor
        )
    except ValueError as error:
        raise NeedsTorchError from error
    return found


def class_count(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    """Return the number of classes a checkpoint was trained for, from the shape of its classifier.

    0 means that it has no classifier; None, that the number is unknown.
    """
    classifier = config.get("classifier")
    if not classifier:
        return None
    name = classifier if isinstance(classifier, str) else classifier[0]
    tensor = tensors.get(f"{name}.bias", tensors.get(f"{name}.weight"))
    if tensor is None or not tensor.ndim:
        return 0
    # Some published checkpoints have a background class in front, which timm cuts off.
    return int(tensor.shape[0]) - (config.get("label_offset") or 0)


def building_bytes(file: Path) -> int:
    """Return the most memory that building and loading a checkpoint's network may take."""
    return 4 * sum(part.stat().st_size for part in parts(file)) + BUILDING_BYTES


def check_numpy(file: Path) -> None:
    """Check that a NumPy archive does not unpack to far more than its size, before timm reads it.

    Raises:
        WeightsError: it does, or it is not an archive.
    """
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            claimed = sum(record.file_size for record in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise _unreadable(file, error) from error
    if claimed > _NUMPY_RATIO * file.stat().st_size:
        raise WeightsError(f"{file} unpacks to {claimed:,} bytes, far beyond its size", hint=_WANTED)


def does_not_fit(architecture: str, file: Path, error: Exception) -> WeightsError:
    """Return the error for a checkpoint that timm could not load into the architecture."""
    text = str(error)
    if is_shortage(error):
        reason = "building the network takes more memory than there is, or than its weights explain"
    elif "loading state_dict" not in text:
        reason = short_reason(error)
    else:
        message = f"{file} does not fit {architecture}: {_differences(text)}"
        return WeightsError(message, hint=_origin(file))
    return WeightsError(f"{file} cannot be loaded into {architecture}: {reason}", hint=_HINT)


def _origin(file: Path) -> str:
    """Return a hint about the origin of a checkpoint that does not fit, from its metadata or tensor names."""
    with suppress(WeightsError):
        found = read(file)
        if architecture := found[0].architecture:
            return f"the file says that it is a {architecture}: name that as MODEL"
        if tool := other_tools.tool_of_tensors(found[0].tensors):
            return f"its tensors are named as in {tool}; {_HINT}"
    return _HINT


def _load_pickle(file: Path) -> Any:
    """Load a file written by `torch.save`: a zip archive, or consecutive pickles in older files.

    Archives are memory-mapped, so no tensor can extend beyond the file.
    """
    import argparse

    import torch

    is_archive = _starts_with(file, pickles.ZIP)
    if is_archive:
        _check_archive(file)
    pickles.check(file)
    # timm's training script saves its arguments as a Namespace, which holds values and runs no code.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)


def _check_archive(file: Path) -> None:
    import zipfile

    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise WeightsError(
            f"{file} is a TorchScript program, not weights alone",
            hint=_SAVE_ALONE,
        )
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        message = f"{file} is a compressed archive, which torch.save never writes"
        raise WeightsError(message, hint="save it again with torch, best as .safetensors")


def _is_safetensors(file: Path) -> bool:
    """Return whether a file is safetensors, by its extension or else by its header: a length and a JSON object."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        start = opened.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size


def _state_dicts(content: object, kind: type[Any]) -> list[StateDict]:
    """Return every state dict in the content of a checkpoint, best first.

    Args:
        content: what the file holds.
        kind: the type of its tensors.
    """
    architecture = _architecture(content)
    found: list[StateDict] = []
    seen: set[int] = set()

    def visit(value: object, path: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping) or id(value) in seen or len(path) > _DEEPEST or len(found) > _MOST:
            return
        seen.add(id(value))
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        tensors = {key: item for key, item in named.items() if isinstance(item, kind)}
        if any(tensor.ndim for tensor in tensors.values()):
            found.append(StateDict(".".join(path), _without_wrappers(tensors), architecture))
        for key, item in named.items():
            visit(item, (*path, key))

    visit(content, ())
    if not found:
        raise ValueError("it holds no tensors by name")
    return sorted(found, key=lambda each: (each.rank, -len(each.tensors)))


def _architecture(content: object) -> str | None:
    """Return the architecture that a checkpoint of PyTorch's examples (`arch`), timm or Lightning names."""
    if not isinstance(content, Mapping):
        return None
    args = content.get("args")
    places = (content, content.get("hyper_parameters"), getattr(args, "__dict__", args))
    values = (place.get(key) for place in places if isinstance(place, Mapping) for key in _ARCHITECTURE_KEYS)
    return next((value for value in values if isinstance(value, str) and _ARCHITECTURE.fullmatch(value)), None)


def _without_wrappers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the parts that torch's wrappers add to tensor names, unless two names would become equal."""
    plain = {".".join(part for part in key.split(".") if part not in _WRAPPERS): key for key in tensors}
    if len(plain) < len(tensors):
        return dict(tensors)
    return {name: tensors[key] for name, key in plain.items()}


def _check_sizes(state_dicts: Sequence[StateDict], size: int) -> None:
    """Reject tensors that are larger than their file, because they repeat values or have no values."""
    import torch

    found = {id(tensor): tensor for each in state_dicts for tensor in each.tensors.values()}.values()
    if any(tensor.layout != torch.strided or tensor.device.type != "cpu" for tensor in found):
        raise ValueError("it holds tensors without plain values")
    # Layers may share their weights.
    if sum(tensor.numel() * tensor.element_size() for tensor in found) > 4 * size + 2**20:
        raise ValueError("its tensors are larger than the file")


def _unreadable(file: Path, error: Exception) -> WeightsError:
    text = str(error)
    if is_shortage(error):
        message = f"{file} takes more memory to read than there is, or than its size explains"
        return WeightsError(message, hint=_WANTED)
    if other := _something_else(file):
        return other
    if "weights_only" not in text and "Unsupported" not in text:
        return WeightsError(f"{file} is not a weights file, or a damaged one: {short_reason(error)}", hint=_WANTED)
    # torch's message explains how to load the file anyway, so it is not shown.
    if not _starts_with(file, pickles.ZIP, _PICKLE):
        return WeightsError(f"{file} is not a weights file, or a damaged one", hint=_WANTED)
    name = _asked_for(file, text)
    if name is None and "Unsupported operand" in text:
        message = f"{file} is damaged, or a pickle of a newer protocol than torch.save's own, which is not read"
        return WeightsError(message, hint="save it again with torch, best as .safetensors")
    asks = f", it asks for {shorten(printable(name), 80, placeholder='...')}" if name else ""
    if tool := other_tools.tool_of_pickle(name or ""):
        asks += f" of {tool}"
    return WeightsError(
        f"{file} holds more than weights{asks}: loading it could run code, so it is refused",
        hint=f"{_SAVE_ALONE}, or as .safetensors",
    )


def _something_else(file: Path) -> WeightsError | None:
    """Return the error for a file whose content or name shows that it is not a checkpoint."""
    for start, (what, hint) in _NO_WEIGHTS.items():
        if _starts_with(file, start):
            return WeightsError(f"{file} is {what}, not a weights file", hint=hint)
    if (tool := other_tools.tool_of_file(file.name)) and not _starts_with(file, pickles.ZIP, _PICKLE):
        return WeightsError(f"{file} is a model of {tool}, not a weights file of torch's", hint=_WANTED)
    return None


def _starts_with(file: Path, *magic: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(max(map(len, magic))).startswith(magic)


def _asked_for(file: Path, text: str) -> str | None:
    """Return the name that a refused pickle imports; torch reports it only for older pickle protocols."""
    match = re.search(r"GLOBAL (\S+) was not an allowed global", text)
    if match:
        return match[1]
    return next((name for name in pickles.names(file) if not name.startswith(_FAMILIAR)), None)


def _differences(text: str) -> str:
    """Describe how a state dict differs from a network: numbers of tensors, and the first of each kind."""
    counted = []
    for what, word in (("Missing", "missing"), ("Unexpected", "unexpected")):
        if match := re.search(rf"{what} key\(s\) in state_dict: (.*)", text):
            names = match[1].split(", ")
            counted.append(f"{len(names)} {word} ({_name(names[0])}{', ...' if len(names) > 1 else ''})")
    shapes = re.findall(r"size mismatch for (\S+): .*?torch.Size\(\[(.*?)\]\).*?torch.Size\(\[(.*?)\]\)", text)
    if shapes:
        name, there, here = shapes[0]
        counted.append(
            f"{len(shapes)} of another shape ({_name(name)}: {_shape(there)} in the file, {_shape(here)} wanted)"
        )
    return f"of its tensors {', '.join(counted)}" if counted else "its tensors differ"


def _name(text: str) -> str:
    return shorten(printable(text.strip('". ')), 60, placeholder="...")


def _shape(text: str) -> str:
    return text.replace(", ", " x ") or "a number"
