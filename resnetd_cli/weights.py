"""Where weights come from: the Hugging Face hub and its cache.

Files lie where timm and every other user of huggingface_hub keeps them (`HF_HOME`), so nothing is fetched
twice. A file that is in the cache is used without asking the hub; one that is not is asked for once, briefly,
before huggingface_hub starts its own patient retries.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from resnetd_cli.errors import HubError, innermost
from resnetd_cli.files import hash_file, sha256

CONFIG = ("config.json",)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names a hub repository may have its weights under, best first."""

_PROBE_SECONDS = 4.0
"""How long the hub may take to say where a file is, name look-up, retries and all."""
_RETRY_PAUSE = 1.0
_WAYS_OUT = (
    "try --model embedded (it comes with the install), --weights FILE, or a mirror: HF_ENDPOINT=https://HOST"
)
T = TypeVar("T")


def cached(repo: str, filenames: Sequence[str] = WEIGHTS) -> Path | None:
    """Return a repository's file in the local cache, the first of the names that is there."""
    from huggingface_hub import try_to_load_from_cache

    name, revision = _split(repo)
    for filename in filenames:
        path = try_to_load_from_cache(name, filename, revision=revision)
        if isinstance(path, str):
            return Path(path)
    return None


def fetch(
    repo: str, filenames: Sequence[str] = WEIGHTS, *, offline: bool = False, progress: type[Any] | None = None
) -> Path:
    """Return a repository's file, checked against its hash, from the cache or else from the hub.

    Args:
        repo: OWNER/NAME, with @REVISION where it is not the main one.
        filenames: the names it may have, best first.
        offline: never ask the hub (`HF_HUB_OFFLINE` says the same).
        progress: a tqdm class for the download's bar; None for no bar.

    Raises:
        HubError: there is no such file, no way to it, or what came is not what the hub says it is.
    """
    from huggingface_hub import constants

    path = cached(repo, filenames)
    if path and _is_intact(path, _etag(path)):
        return path
    if offline or constants.HF_HUB_OFFLINE:
        state = "damaged" if path else "not"
        raise HubError(
            f"{repo} is {state} on this machine, and this is an offline run",
            hint=f"run it online once, or {_WAYS_OUT}",
        )
    if path:
        _discard(path)
    return _download(repo, filenames, progress)


def _download(repo: str, filenames: Sequence[str], progress: type[Any] | None) -> Path:
    from huggingface_hub import hf_hub_download

    name, revision = _split(repo)
    try:
        filename, etag = _within(_PROBE_SECONDS, lambda: _find(name, revision, filenames))
        path = Path(hf_hub_download(name, filename, revision=revision, tqdm_class=progress or _silent_bar()))
    # What a failed transfer raises depends on huggingface_hub's HTTP library.
    except Exception as error:
        raise _hub_error(repo, filenames, error) from error
    if not _is_intact(path, etag):
        _discard(path)
        raise HubError(f"{repo}: the file's sha256 is not the one the hub names; it was deleted", hint=_WAYS_OUT)
    return path


def _find(name: str, revision: str | None, filenames: Sequence[str]) -> tuple[str, str | None]:
    """Return the first of the names that the hub has, and its ETag. A busy hub gets one quick second try."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    missing: Exception | None = None
    for filename in filenames:
        url = hf_hub_url(name, filename, revision=revision)
        try:
            try:
                return filename, _probe(url)
            except HfHubHTTPError as error:
                if error.response.status_code < 500:
                    raise
                time.sleep(_RETRY_PAUSE)
                return filename, _probe(url)
        except EntryNotFoundError as error:
            missing = error
    assert missing is not None
    raise missing


def _probe(url: str) -> str | None:
    """Ask for a file's ETag, and for its first byte: the content lies on another server than its name does."""
    from huggingface_hub import get_hf_file_metadata, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    metadata = get_hf_file_metadata(url, timeout=_PROBE_SECONDS)
    if metadata.xet_file_data is None:
        headers = {**build_hf_headers(), "Range": "bytes=0-0"}
        with get_session().stream("GET", url, headers=headers, timeout=_PROBE_SECONDS) as response:
            hf_raise_for_status(response)
    return metadata.etag


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the call's result, or give up on it: looking up a name has no time-out of its own."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"no answer in {seconds:.0f} seconds")
    return outcome[0]


def _hub_error(repo: str, filenames: Sequence[str], error: Exception) -> HubError:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = constants.ENDPOINT
    messages: dict[type[Exception], tuple[str, str]] = {
        GatedRepoError: (f"{repo} is gated on {hub}", "ask for access, then set HF_TOKEN"),
        RepositoryNotFoundError: (f"{repo} is not on {hub}, or is private", "check the name, or set HF_TOKEN"),
        RevisionNotFoundError: (f"{repo}: {hub} has no such revision", "check what stands behind the @"),
        EntryNotFoundError: (f"{repo} on {hub} has no {' or '.join(filenames)}", "timm reads no other files"),
    }
    for kind, (message, hint) in messages.items():
        if isinstance(error, kind) and isinstance(error, HfHubHTTPError):
            return HubError(message, hint=f"{hint}; or {_WAYS_OUT}")
    if isinstance(error, HfHubHTTPError):
        return HubError(f"{hub} answered {error.response.status_code} for {repo}", hint=_WAYS_OUT)
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return HubError(
            f"cannot keep {repo} in {constants.HF_HUB_CACHE}: {error.strerror}", hint="HF_HOME moves it"
        )
    cause = innermost(error)
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return HubError(f"cannot get {repo} from {hub}: {reason}", hint=_WAYS_OUT)


def _etag(path: Path) -> str:
    """Return the hub's ETag of a cached file: the cache names its blobs by it, and links to them.

    One link is followed, no more: a blob may itself be a link, to a file that many repositories share.
    """
    return path.readlink().name if path.is_symlink() else path.name


def _is_intact(path: Path, etag: str | None) -> bool:
    """Compare a file with its ETag.

    Large files have their SHA-256 for an ETag, small ones git's blob id (SHA-1 of a header and the content).
    Where neither is known, as in a cache without links, the file is taken as it is.
    """
    if etag and re.fullmatch(r"[0-9a-f]{64}", etag):
        return sha256(path) == etag
    if etag and re.fullmatch(r"[0-9a-f]{40}", etag):
        header = f"blob {path.stat().st_size}\0".encode()
        return hash_file(path, hashlib.sha1(header, usedforsecurity=False)) == etag
    return True


def _discard(path: Path) -> None:
    """Remove a bad file from the cache: the link in the snapshot, and what it leads to."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


def _split(repo: str) -> tuple[str, str | None]:
    name, _, revision = repo.partition("@")
    return name, revision or None


def _silent_bar() -> type[Any]:
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # huggingface_hub's own bars have one, tqdm's have not
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent
