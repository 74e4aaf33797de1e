"""The compiled model on disk: written whole or not at all, checked before it is used, rebuilt when in doubt.

A bundle is a folder in the cache:

    model.onnx          input `images`; outputs `logits` and `features`; any batch size
    bundle.json         what it is, how it wants its images, what its classes are called, and what it came from
    optimised-KEY.onnx  the same graph optimised for this processor and this ONNX Runtime, which loads quicker
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
from resnetd_cli.models.names import ModelChoice, find_card
from resnetd_cli.system.cpus import processor
from resnetd_cli.system.files import cache_dir, has_cache, sha256, umask, write_atomic

GRAPH = "model.onnx"
_CARD = "bundle.json"
_TRIES = 100
_ABANDONED = 24 * 3600
"""Seconds after which an unfinished bundle is nobody's any more."""


@dataclass(frozen=True)
class BundleKey:
    """What a bundle is compiled from and for: what the user asked for.

    Attributes:
        choice: the network.
        precision: `fp32` or `int8`.
    """

    choice: ModelChoice
    precision: str = "fp32"

    def folder(self) -> Path:
        """Return where its bundle lies, whether it is there or not."""
        model, weights = self.choice.model, self.choice.weights
        card, path = find_card(model.text), model.path
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
    """A file as it was: its size in bytes, time of change in nanoseconds, and SHA-256 in hexadecimal.

    The time tells quickly that nothing has changed. Where it differs the content decides: archives and the layers
    of container images keep whole seconds, and copies have times of their own.
    """

    size: int
    changed: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A compiled model.

    Attributes:
        folder: where it lies.
        card: what it is.
        graph_sha256: of the graph.
        sources: the files it came from, as they were.
        failure: why it could not be compiled, where it could not: then the torch engine runs it.
        exported: the graph is this file, which `export` wrote, and not one in the folder.
    """

    folder: Path
    card: Card
    graph_sha256: str
    sources: dict[str, Stamp]
    failure: str | None = None
    exported: str | None = None

    @property
    def graph(self) -> Path:
        """The graph that runs on any machine."""
        return Path(self.exported) if self.exported else self.folder / GRAPH

    @property
    def optimised(self) -> Path:
        """The graph for this machine alone."""
        return self.folder / f"optimised-{machine_key()}.onnx"

    def is_from(self, file: Path) -> bool:
        """Tell whether it was made from a file, however the file is spelled."""
        return any(_is_same(path, file) for path in self.sources)


def find(key: BundleKey) -> Bundle | None:
    """Return the bundle of a key, if there is one that is still right. Its graph is not read yet."""
    bundle = _read(key.folder())
    return bundle if bundle and _is_for(bundle, key) else None


def made_from(file: Path) -> list[Bundle]:
    """Return the bundles in the cache that came from a file and are still right."""
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
    """Make a bundle in a folder of its own and give it its name when it is whole.

    Args:
        key: what it is made from.
        make: fills an empty folder with the graph and returns the bundle that describes it.

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
    """Rename a folder to a name that may be taken, now and again: another process may do the same meanwhile."""
    for _ in range(_TRIES):
        try:
            folder.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        # What is there is out of date or damaged, or another process was quicker: ours is as good.
        aside = Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent))
        with suppress(FileNotFoundError):
            target.rename(aside / "bundle")
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(errno.EEXIST, f"{target} is written by too many at once")


def check_cache() -> None:
    """Find out before the work, not after it, that the cache cannot be written.

    Raises:
        CacheError: it cannot.
    """
    with writing_cache():
        folder = cache_dir() / "bundles"
        folder.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=".making-", dir=folder)).rmdir()


@contextmanager
def writing_cache() -> Iterator[None]:
    """Turn every refusal to write into `CacheError`."""
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
        card: the card.
        changed: a file it came from that has changed since, in nothing but what the card now says.

    Raises:
        CacheError: the cache cannot be written.
    """
    with writing_cache():
        same = [path for path in bundle.sources if changed and _is_same(path, changed)]
        sources = bundle.sources | {path: stamp(Path(path)) for path in same}
        _write_card(replace(bundle, card=card, sources=sources))


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


def stamp(path: Path) -> Stamp:
    """Return a file's stamp."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, sha256(path))


def _restamp(path: Path, then: Stamp) -> Stamp | None:
    """Return the stamp of a file with the content that it had then; None where it has changed.

    Raises:
        OSError: it is not there.
    """
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (then.size, then.changed):
        return then
    if status.st_size != then.size or sha256(path) != then.sha256:
        return None
    return then._replace(changed=status.st_mtime_ns)


@lru_cache
def machine_key() -> str:
    """Return what an optimised graph depends on: the processor and the version of ONNX Runtime."""
    facts = [platform.machine(), processor(), metadata.version("onnxruntime")]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _is_for(bundle: Bundle, key: BundleKey) -> bool:
    """Tell whether a bundle is of what was asked for: a graph outside of its folder is the file that was named."""
    return bundle.exported is None or Path(bundle.exported) == key.choice.model.path


def _current(bundle: Bundle) -> Bundle | None:
    """Return a bundle if it is still right, with the times that its files have now."""
    if bundle.card.temperature != 1 and not bundle.exported:  # an earlier version's: of any size and precision
        return None
    built_with = bundle.card.origin.versions
    # A package that is not installed any more cannot have changed what the bundle holds.
    if not bundle.exported and any(built_with.get(package) != now for package, now in current_versions().items()):
        return None
    if not (bundle.failure is not None or bundle.graph.is_file()):
        return None
    sources = dict(bundle.sources)
    for path, then in bundle.sources.items():
        with suppress(FileNotFoundError, NotADirectoryError):  # the graph holds all there was in it
            now = _restamp(Path(path), then)
            if now is None:
                return None
            sources[path] = now
    if sources == bundle.sources:
        return bundle
    current = replace(bundle, sources=sources)
    with suppress(OSError, OutputError):  # a cache that is only read
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
    """Remove what compilations left there that were killed."""
    for left in (*folder.glob(".making-*"), *folder.glob(".old-*")):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
