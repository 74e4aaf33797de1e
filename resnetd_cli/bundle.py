"""The compiled model on disk: written whole or not at all, checked before it is used, rebuilt when in doubt.

A bundle is a folder in the cache:

    model.onnx          input `images`; outputs `logits` and `features`; any batch size
    bundle.json         what it is, how it wants its images, what its classes are called, and what it came from
    optimised-KEY.onnx  the same graph optimised for this processor and this ONNX Runtime, which loads quicker
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from resnetd_cli import __version__
from resnetd_cli.files import cache_dir, umask, write_atomic
from resnetd_cli.labels import ClassNames
from resnetd_cli.models import find_card
from resnetd_cli.results import Preprocessing

FORMAT = 1
GRAPH = "model.onnx"
_CARD = "bundle.json"


@dataclass(frozen=True)
class Request:
    """What a bundle is compiled from: the MODEL, the weights and the size that the user asked for."""

    model: str
    weights: Path | None
    image_size: str

    def folder(self) -> Path:
        """Return where its bundle lies, whether it is there or not."""
        card = find_card(self.model)
        name = card.name if card else self.model
        weights = str(self.weights.absolute()) if self.weights else None
        place = str(Path(name).absolute()) if Path(name).is_dir() else name
        key = hashlib.sha256(json.dumps([place, weights, self.image_size]).encode()).hexdigest()[:12]
        return cache_dir() / "bundles" / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)[-60:]}-{key}"


@dataclass(frozen=True)
class Bundle:
    """A compiled model.

    Attributes:
        folder: where it lies.
        name: the model's name, as the records carry it.
        preprocessing: how it wants its images.
        class_names: the names of its classes; empty for a model without a classifier.
        parameters: how many numbers it has learnt.
        weights_sha256: of the file it came from.
        graph_sha256: of `model.onnx`.
        versions: of resnetd, timm and torch when it was compiled.
        sources: the files it came from, with their size in bytes and time of change in nanoseconds.
        failure: why it could not be compiled, where it could not: then the torch engine runs it.
    """

    folder: Path
    name: str
    preprocessing: Preprocessing
    class_names: ClassNames
    parameters: int
    weights_sha256: str
    graph_sha256: str
    versions: dict[str, str]
    sources: dict[str, tuple[int, int]]
    failure: str | None = None

    @property
    def graph(self) -> Path:
        """The graph that runs on any machine."""
        return self.folder / GRAPH

    @property
    def optimised(self) -> Path:
        """The graph for this machine alone."""
        return self.folder / f"optimised-{machine_key()}.onnx"


def find(request: Request) -> Bundle | None:
    """Return the bundle of a request, if there is one that is still right. Its graph is not read yet."""
    folder = request.folder()
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if card.pop("format") != FORMAT:
            return None
        bundle = _from_card(folder, card)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return bundle if _is_current(bundle) else None


def write(request: Request, make: Callable[[Path], Bundle]) -> Bundle:
    """Make a bundle in a folder of its own and give it its name when it is whole.

    Args:
        request: what it is made from.
        make: fills an empty folder with the graph and returns the bundle that describes it.

    Raises:
        OSError: the cache cannot be written.
    """
    target = request.folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        temporary.chmod(0o777 & ~umask())
        bundle = make(temporary)
        write_atomic(temporary / _CARD, json.dumps(_to_card(bundle)).encode())
        if target.exists():  # out of date, damaged, or another process was quicker: ours is as good
            target.rename(Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent)) / "bundle")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for old in target.parent.glob(".old-*"):
            shutil.rmtree(old, ignore_errors=True)
    return Bundle(**{**_fields(bundle), "folder": target})


def discard(bundle: Bundle) -> None:
    """Remove a bundle that turned out to be damaged."""
    shutil.rmtree(bundle.folder, ignore_errors=True)


def current_versions() -> dict[str, str]:
    """Return the versions of what compiles models, of those that are installed."""
    versions = {"resnetd": __version__}
    for package in ("timm", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def stamp(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and time of change in nanoseconds, which change when it does."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def machine_key() -> str:
    """Return what an optimised graph depends on: the processor and the version of ONNX Runtime."""
    facts = [platform.machine(), _processor(), metadata.version("onnxruntime")]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _processor() -> str:
    """Return the processor's model and abilities. `platform.processor` is empty or vague on Linux."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            first = file.read(8192).partition("\n\n")[0]
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(wanted))


def _is_current(bundle: Bundle) -> bool:
    # A package that is not installed any more cannot have changed what the bundle holds.
    if any(bundle.versions.get(package) != version for package, version in current_versions().items()):
        return False
    for path, then in bundle.sources.items():
        with suppress(FileNotFoundError):  # the graph holds all there was in it
            if stamp(Path(path)) != tuple(then):
                return False
    return bundle.failure is not None or bundle.graph.is_file()


def _fields(bundle: Bundle) -> dict[str, Any]:
    return {name: getattr(bundle, name) for name in Bundle.__dataclass_fields__}


def _to_card(bundle: Bundle) -> dict[str, Any]:
    card = {"format": FORMAT, **asdict(bundle)}
    del card["folder"]
    return card


def _from_card(folder: Path, card: dict[str, Any]) -> Bundle:
    how, names = card.pop("preprocessing"), card.pop("class_names")
    return Bundle(
        folder=folder,
        preprocessing=Preprocessing(**{key: _tuple(value) for key, value in how.items()}),
        class_names=ClassNames(tuple(names["names"]), tuple(names["ids"]), names["source"]),
        **card,
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
