"""Checkpoint files: where in a folder they lie, what is in them, and what is wrong with them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import IO, Any

from resnetd_cli.errors import ResnetdError, WeightsError, first_line
from resnetd_cli.escaping import printable
from resnetd_cli.memory import is_shortage, limited

NUMPY = ".npz"
_HINT = "name the architecture it was trained with: --model NAME"
_WANTED = "a .safetensors or .pth is wanted"
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model")
"""What training scripts keep a network's tensors under, best first: averaged copies before the others."""
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""What torch's wrappers of layers add to the names of the layers' tensors."""
_DEEPEST, _MOST = 5, 1000
_READING_BYTES = 2**29
BUILDING_BYTES = 2**30
"""Memory that reading a file, and building a network for it, may take beside its tensors."""
_NUMPY_RATIO = 20
_OPCODES = 2**20
_LONGEST_REASON = 160
_LONGEST_NAME = 1000
_FAMILIAR = ("torch.", "collections.", "_codecs.", "argparse.", "builtins.bytearray", "builtins.set")
"""What the pickles of state dicts ask for."""


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, as a training script saved them.

    Attributes:
        path: the names that lead to them in the file, joined by dots; empty where the file is nothing else.
        tensors: by name, without torch's wrappers.
    """

    path: str
    tensors: dict[str, Any]

    @property
    def rank(self) -> int:
        """How likely it is the network that was trained, by what it is called: 0 is best."""
        name = self.path.rpartition(".")[2]
        return _KEYS.index(name) if name in _KEYS else len(_KEYS)


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


def read(file: Path) -> list[StateDict]:
    """Return what tensors a checkpoint holds, best first. Pickles are read with `weights_only=True` or not at all.

    The memory that this takes is bounded by the file's size, whatever the file claims to hold.

    Raises:
        WeightsError: it is damaged, not a checkpoint, or holds more than weights.
    """
    import safetensors.torch
    import torch  # noqa: F401  before the limit

    try:
        size = file.stat().st_size
        with limited(2 * size + _READING_BYTES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            is_safe = _is_safetensors(file)
            content = safetensors.torch.load_file(str(file)) if is_safe else _load_pickle(file)
            found = _state_dicts(content)
            _check_sizes(found, size)
            return found
    except ResnetdError:
        raise
    except Exception as error:  # of whatever kind the libraries raise on a file that they do not read
        raise _unreadable(file, error) from error


def class_count(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    """Return the number of classes a checkpoint was trained for, by its classifier's shape.

    0 means that it has no classifier; None, that this cannot be told.
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
    """Return how much memory building the network of a checkpoint, and filling it, may take."""
    return 4 * file.stat().st_size + BUILDING_BYTES


def check_numpy(file: Path) -> None:
    """Make sure of a NumPy archive that it holds about as much as its size tells, before timm reads it.

    Raises:
        WeightsError: it does not, or is none.
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
    """Return what to tell of a checkpoint that timm could not load into the architecture."""
    text = str(error)
    if is_shortage(error):
        reason = "building the network takes more memory than there is, or than its weights explain"
    elif "loading state_dict" not in text:
        reason = _short(error)
    else:
        message = f"{file} does not fit {architecture}: {_differences(text)}"
        return WeightsError(message, hint=_HINT)
    return WeightsError(f"{file} cannot be loaded into {architecture}: {reason}", hint=_HINT)


def _load_pickle(file: Path) -> Any:
    """Return what `torch.save` wrote: a zip archive, or in older files pickles one after the other.

    An archive is mapped into memory, not read: then no tensor reaches beyond the file.
    """
    import argparse

    import torch

    is_archive = _starts_with(file, _ZIP)
    if is_archive:
        _check_archive(file)
    if any(len(name) > _LONGEST_NAME for name in _globals(file)):  # torch would search it for hours
        raise ValueError("it asks for something with an endless name")
    # timm's training script keeps its arguments in a Namespace, which holds values and runs nothing.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)


def _check_archive(file: Path) -> None:
    import zipfile

    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise WeightsError(f"{file} is a TorchScript program, not weights alone", hint=_WANTED)
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        message = f"{file} is a compressed archive, which torch.save never writes"
        raise WeightsError(message, hint="save it again with torch, best as .safetensors")


def _is_safetensors(file: Path) -> bool:
    """Tell by the name, or else by the content: the length of a JSON object, in eight bytes, and the object."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        start = opened.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size


def _state_dicts(content: object) -> list[StateDict]:
    """Return all tensors by name that are in what a training script saved, best first."""
    import torch

    found: list[StateDict] = []
    seen: set[int] = set()

    def visit(value: object, path: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping) or id(value) in seen or len(path) > _DEEPEST or len(found) > _MOST:
            return
        seen.add(id(value))
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        tensors = {key: item for key, item in named.items() if isinstance(item, torch.Tensor)}
        if any(tensor.ndim for tensor in tensors.values()):
            found.append(StateDict(".".join(path), _without_wrappers(tensors)))
        for key, item in named.items():
            visit(item, (*path, key))

    visit(content, ())
    if not found:
        raise ValueError("it holds no tensors by name")
    return sorted(found, key=lambda each: (each.rank, -len(each.tensors)))


def _without_wrappers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Take the names of torch's wrappers out of the tensors' names, unless two of them then have one name."""
    plain = {".".join(part for part in key.split(".") if part not in _WRAPPERS): key for key in tensors}
    if len(plain) < len(tensors):
        return dict(tensors)
    return {name: tensors[key] for name, key in plain.items()}


def _check_sizes(state_dicts: Sequence[StateDict], size: int) -> None:
    """Refuse tensors that are larger than their file: ones that repeat a value, or have none at all."""
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
    if "weights_only" not in text and "Unsupported" not in text:
        return WeightsError(f"{file} is not a weights file, or a damaged one: {_short(error)}", hint=_WANTED)
    # What torch says goes on with how to load it nevertheless.
    if not _starts_with(file, _ZIP, _PICKLE):
        return WeightsError(f"{file} is not a weights file, or a damaged one", hint=_WANTED)
    name = _asked_for(file, text)
    if name is None and "Unsupported operand" in text:
        message = f"{file} is damaged, or a pickle of a newer protocol than torch.save's own, which is not read"
        return WeightsError(message, hint="save it again with torch, best as .safetensors")
    asks = f", it asks for {shorten(printable(name), 80, placeholder='...')}" if name else ""
    return WeightsError(
        f"{file} holds more than weights{asks}: loading it could run code, so it is refused",
        hint="save the state dict alone, best as .safetensors",
    )


def _starts_with(file: Path, *magic: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(4).startswith(magic)


def _asked_for(file: Path, text: str) -> str | None:
    """Return what a refused pickle asks for: torch names it, but not in pickles of newer protocols."""
    match = re.search(r"GLOBAL (\S+) was not an allowed global", text)
    if match:
        return match[1]
    return next((name for name in _globals(file) if not name.startswith(_FAMILIAR)), None)


def _globals(file: Path) -> Iterator[str]:
    """Yield the names of what a file's pickles ask for, without running them."""
    import zipfile

    try:
        if not _starts_with(file, _ZIP):
            with file.open("rb") as stream:
                while True:
                    yield from _globals_of(stream)
        with zipfile.ZipFile(file) as archive:
            for record in archive.namelist():
                if record.endswith(".pkl"):
                    with archive.open(record) as stream:
                        yield from _globals_of(stream)
    except Exception:  # where a pickle is damaged, or ends
        return


def _globals_of(stream: IO[bytes]) -> Iterator[str]:
    import pickletools

    texts: list[str] = []
    for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if code.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif code.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif "UNICODE" in code.name:
            texts = [*texts[-1:], str(argument)]
        if count > _OPCODES:
            return


def _differences(text: str) -> str:
    """Return how a state dict differs from a network, in words: how many tensors, and the first of each kind."""
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
    return f"of its tensors {', '.join(counted)}" if counted else "its tensors are others"


def _name(text: str) -> str:
    return shorten(printable(text.strip('". ')), 60, placeholder="...")


def _shape(text: str) -> str:
    return text.replace(", ", " x ") or "a number"


def _short(error: Exception) -> str:
    return shorten(printable(first_line(error)), _LONGEST_REASON, placeholder=" ...")
