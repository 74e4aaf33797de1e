"""Bundles: compiled models in the cache, found by key, written atomically, and invalid once a source changed.

A bundle is a folder:

    model.onnx          input `images`; outputs `logits` and `features`; any batch size
    bundle.json         its card: preprocessing, class names, origin; and the stamps of the files it came from
    optimised-KEY.onnx  the same graph optimised for this processor and this ONNX Runtime, which loads faster
    optimised-KEY.bin   its weights, mapped into memory
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from resnetd_cli import __version__
from resnetd_cli.compiled.card import Card
from resnetd_cli.errors import CacheError, OutputError
from resnetd_cli.models.names import ModelChoice
from resnetd_cli.models.table import find_entry
from resnetd_cli.system.cpus import processor
from resnetd_cli.system.files import cache_dir, has_cache, sha256, umask, write_atomic

GRAPH = "model.onnx"
_CARD = "bundle.json"
_TRIES = 100
_ABANDONED = 24 * 3600
"""Seconds after which an unfinished bundle counts as abandoned."""


@dataclass(frozen=True)
class BundleKey:
    """What a bundle is compiled from, which finds it in the cache.

    Attributes:
        choice: the network.
        precision: `fp32` or `int8`.
    """

    choice: ModelChoice
    precision: str = "fp32"

    def folder(self) -> Path:
        """Return the folder of its bundle, whether it exists or not."""
        model, weights = self.choice.model, self.choice.weights
        card, path = find_entry(model.text), model.path
        name = path.name if path else card.name if card else model.text
        asked = [
            str(path or name),
            str(weights.absolute()) if weights else None,
            self.choice.image_size,
            self.precision,
        ]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
        return cache_dir() / "bundles" / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)[-60:]}-{self.precision}-{key}"


class Stamp(NamedTuple):
    """A file at the time of compiling: size in bytes, modification time in nanoseconds, SHA-256 in hexadecimal.

    If size and time are the same, the file is unchanged. If only the time differs the hash decides: archives and
    container images keep whole seconds, and copies have new times.
    """

    size: int
    changed: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A compiled model.

    Attributes:
        folder: its folder in the cache.
        card: its card.
        graph_sha256: the hash of the graph.
        sources: the stamps of the files it came from.
        failure: why it could not be compiled, if so; the torch engine then runs the model.
        exported: the path of the graph, if it is an exported file and not in the folder.
    """

    folder: Path
    card: Card
    graph_sha256: str
    sources: dict[str, Stamp]
    failure: str | None = None
    exported: str | None = None

    @property
    def graph(self) -> Path:
        """The graph for any machine."""
        return Path(self.exported) if self.exported else self.folder / GRAPH

    @property
    def optimised(self) -> Path:
        """The graph optimised for this machine."""
        return optimised_in(self.folder)

    def is_from(self, file: Path) -> bool:
        """Return whether it was made from a file, under any path."""
        return any(_is_same(path, file) for path in self.sources)


def optimised_in(folder: Path) -> Path:
    """Return the graph in a bundle's folder that is optimised for this machine."""
    return folder / f"optimised-{machine_key()}.onnx"


def find(key: BundleKey) -> Bundle | None:
    """Return the bundle of a key, if there is a valid one. Its graph is not read yet."""
    bundle = _read(key.folder())
    return bundle if bundle and _is_for(bundle, key) else None


def made_from(file: Path) -> list[Bundle]:
    """Return the valid bundles in the cache that came from a file."""
    with suppress(OSError):
        bundles = [_read(folder) for folder in (cache_dir() / "bundles").iterdir()]
        return [bundle for bundle in bundles if bundle and bundle.is_from(file)]
    return []


def _is_same(path: str | Path, other: Path) -> bool:
    with suppress(OSError):
        return other.samefile(path)
    return False


def _read(folder: Path) -> Bundle | None:
    try:
        content = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        fields = content["bundle"]
        if content["sha256"] != _digest(fields):
            return None
        sources = {path: Stamp(*then) for path, then in fields.pop("sources").items()}
        bundle = Bundle(folder=folder, card=Card.from_json(fields.pop("card")), sources=sources, **fields)
        is_sound = all(isinstance(text, (str, type(None))) for text in (bundle.failure, bundle.exported))
        return _current(bundle) if is_sound else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None


def write(key: BundleKey, make: Callable[[Path], Bundle]) -> Bundle:
    """Make a bundle in a temporary folder, and rename it when it is complete.

    Args:
        key: the key of the bundle.
        make: writes the graph into an empty folder, and returns the bundle.

    Raises:
        CacheError: the cache cannot be written.
    """
    with writing_cache():
        return _write(key.folder(), make)


def _write(target: Path, make: Callable[[Path], Bundle]) -> Bundle:
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        temporary.chmod(0o777 & ~umask())
        bundle = make(temporary)
        _write_card(bundle)
        _take_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(bundle, folder=target)


def _take_place(folder: Path, target: Path) -> None:
    """Rename a folder to a name that may be taken; another process may do the same at any time."""
    for _ in range(_TRIES):
        try:
            folder.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        # The existing bundle is stale or damaged, or another process was faster: ours is as good.
        aside = Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent))
        with suppress(FileNotFoundError):
            target.rename(aside / "bundle")
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(errno.EEXIST, f"{target} is being written by too many processes")


def check_cache() -> None:
    """Check before the work that the cache can be written.

    Raises:
        CacheError: it cannot.
    """
    with writing_cache():
        folder = cache_dir() / "bundles"
        folder.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=".making-", dir=folder)).rmdir()


@contextmanager
def writing_cache() -> Iterator[None]:
    """Turn every failure to write into a `CacheError`."""
    try:
        yield
    except (OSError, OutputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        if not has_cache():
            reason = "this user has no home folder"
        raise CacheError(
            f"the compiled model cannot be kept: {reason or error}", hint="RESNETD_CACHE names another folder"
        ) from error


def describe_anew(bundle: Bundle, card: Card, changed: Path | None = None) -> None:
    """Give a bundle another card.

    Args:
        bundle: the bundle.
        card: the new card.
        changed: a source that changed, but only in what the new card says.

    Raises:
        CacheError: the cache cannot be written.
    """
    with writing_cache():
        same = [path for path in bundle.sources if changed and _is_same(path, changed)]
        sources = bundle.sources | {path: stamp(Path(path)) for path in same}
        _write_card(replace(bundle, card=card, sources=sources))


def discard(bundle: Bundle) -> None:
    """Remove a damaged bundle."""
    shutil.rmtree(bundle.folder, ignore_errors=True)


def current_versions() -> dict[str, str]:
    """Return the versions of the packages that compile models, if installed."""
    versions = {"resnetd": __version__}
    for package in ("timm", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def stamp(path: Path) -> Stamp:
    """Return a file's stamp."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, sha256(path))


def _restamp(path: Path, then: Stamp) -> Stamp | None:
    """Return the new stamp of a file whose content is the same; None if it has changed.

    Raises:
        OSError: it does not exist.
    """
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (then.size, then.changed):
        return then
    if status.st_size != then.size or sha256(path) != then.sha256:
        return None
    return then._replace(changed=status.st_mtime_ns)


@lru_cache
def machine_key() -> str:
    """Return a hash of what an optimised graph depends on: the processor and the version of ONNX Runtime."""
    facts = [platform.machine(), processor(), metadata.version("onnxruntime")]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _is_for(bundle: Bundle, key: BundleKey) -> bool:
    """Return whether a bundle is that of the key: a graph outside the folder must be the named file."""
    return bundle.exported is None or Path(bundle.exported) == key.choice.model.path


def _current(bundle: Bundle) -> Bundle | None:
    """Return a bundle if it is valid, with the current times of its sources."""
    if (
        bundle.card.temperature != 1 and not bundle.exported
    ):  # stored by an earlier version, for any size and precision
        return None
    built_with = bundle.card.origin.versions
    # A package that is no longer installed does not invalidate the bundle.
    if not bundle.exported and any(built_with.get(package) != now for package, now in current_versions().items()):
        return None
    if not (bundle.failure is not None or bundle.graph.is_file()):
        return None
    sources = dict(bundle.sources)
    for path, then in bundle.sources.items():
        with suppress(FileNotFoundError, NotADirectoryError):  # a deleted source does not invalidate it
            now = _restamp(Path(path), then)
            if now is None:
                return None
            sources[path] = now
    if sources == bundle.sources:
        return bundle
    current = replace(bundle, sources=sources)
    with suppress(OSError, OutputError):  # a read-only cache
        _write_card(current)
    return current


def _write_card(bundle: Bundle) -> None:
    fields = {field.name: getattr(bundle, field.name) for field in dataclasses.fields(bundle)}
    del fields["folder"]
    fields["card"] = bundle.card.to_json()
    content = {"sha256": _digest(fields), "bundle": fields}
    write_atomic(bundle.folder / _CARD, json.dumps(content).encode())


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def sweep(folder: Path) -> None:
    """Remove what killed compilations left behind."""
    for left in (*folder.glob(".making-*"), *folder.glob(".old-*")):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
