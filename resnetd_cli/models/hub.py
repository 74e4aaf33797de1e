"""Download weights from the Hugging Face hub, check their hashes, and find them in its local cache.

The cache is the one that timm and every other user of huggingface_hub shares (`HF_HOME`), so nothing is downloaded
twice. Cached files are used without a request. For any other file, one short request checks that the hub answers
before huggingface_hub starts its own long retries.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from resnetd_cli.errors import Advice, HubError, Reason, ResnetdError, UsageError, innermost
from resnetd_cli.models import hub_environment
from resnetd_cli.system.files import hash_file, sha256

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

    from resnetd_cli.net.proxies import Proxy

CONFIG = ("config.json",)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""File names of weights in a hub repository, best first."""

_PROBE_SECONDS = 7.0
"""Time limit for the request that looks up a file, with DNS and retries, unless `HF_HUB_*` variables set one."""
_RETRY_PAUSE = 1.0
_REFUSED = (401, 403)
_PROXY_WANTS_PASSWORD = 407
_MAIN = "main"
_SHA1, _SHA256 = 40, 64
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
"""A clone without Git LFS has small pointer files in place of large files; this is their largest size."""
T = TypeVar("T")


@dataclass(frozen=True)
class Downloads:
    """Whether files may be downloaded, and with which progress bar.

    Attributes:
        offline: use only files on this machine, as `HF_HUB_OFFLINE` does.
        progress: returns a tqdm class for progress bars; None for no bars.
    """

    offline: bool = False
    progress: Callable[[], type[Any] | None] = lambda: None


def cached(repo: str, filenames: Sequence[str] = WEIGHTS) -> Path | None:
    """Return a repository's file in the local cache: the first of the names that exists."""
    if snapshot := _snapshot(repo):
        for filename in filenames:
            if (snapshot / filename).is_file():
                return snapshot / filename
    return None


def fetch(repo: str, filenames: Sequence[str] = WEIGHTS, downloads: Downloads = Downloads()) -> Path:
    """Return a repository's file from the cache, or else download it. Its hash is checked.

    Args:
        repo: OWNER/NAME, or OWNER/NAME@REVISION.
        filenames: the file's possible names, best first.
        downloads: whether it may be downloaded.

    Raises:
        HubError: there is no such file, the hub cannot be reached, or the content does not match its hash.
    """
    path = cached(repo, filenames)
    if path and _is_intact(path, _etags(path)):
        return path
    hub_environment.check()
    from huggingface_hub import constants

    if downloads.offline or constants.HF_HUB_OFFLINE:
        raise HubError(
            f"{_state(repo, filenames, path)}, and this is an offline run",
            reason=Reason.HUB,
            details=("run it online once, or ", ""),
        )
    hub_environment.connect()
    if path:
        _discard(path)
    return _download(repo, filenames, downloads.progress())


def _download(repo: str, filenames: Sequence[str], progress: type[Any] | None) -> Path:
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    refused = False
    try:
        try:
            return _transfer(repo, filenames, progress)
        except HfHubHTTPError as error:
            refused = error.response.status_code in _REFUSED and not isinstance(error, GatedRepoError)
            if not (refused and get_token()):
                refused = False
                raise
        # With an expired token even public files are refused, so try without.
        return _transfer(repo, filenames, progress, token=False)
    except HubError:
        raise
    # The type of the error depends on huggingface_hub's HTTP library.
    except Exception as error:
        raise _hub_error(repo, filenames, error, refused=refused) from error


def _transfer(
    repo: str, filenames: Sequence[str], progress: type[Any] | None, token: Literal[False] | None = None
) -> Path:
    from huggingface_hub import constants, hf_hub_download

    name, revision = _split(repo)
    bar = _silent_bar() if progress is None or constants.HF_HUB_DISABLE_PROGRESS_BARS else progress
    given = hub_environment.timeouts()
    waits, seconds = (given, sum(given)) if given else ((_PROBE_SECONDS, _PROBE_SECONDS), _PROBE_SECONDS)
    filename, etag = _within(seconds, lambda: _find(name, revision, filenames, waits, token))
    path = Path(hf_hub_download(name, filename, revision=revision, tqdm_class=bar, token=token))
    if not _is_intact(path, {etag} if etag else set()):
        _discard(path)
        raise HubError(f"{repo}: the file's sha256 is not the one the hub names; it was deleted", **_ways_out())
    return path


def _find(
    name: str,
    revision: str | None,
    filenames: Sequence[str],
    waits: tuple[float, float],
    token: Literal[False] | None,
) -> tuple[str, str | None]:
    """Return the first of the names that the hub has, and its ETag. A 5xx answer is retried once."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    missing: Exception | None = None
    for filename in filenames:
        url = hf_hub_url(name, filename, revision=revision)
        try:
            try:
                return filename, _probe(url, waits, token)
            except HfHubHTTPError as error:
                if error.response.status_code < 500:
                    raise
                time.sleep(_RETRY_PAUSE)
                return filename, _probe(url, waits, token)
        except EntryNotFoundError as error:
            missing = error
    assert missing is not None
    raise missing


def _probe(url: str, waits: tuple[float, float], token: Literal[False] | None) -> str | None:
    """Request a file's ETag, and its first byte, because a different server holds the content."""
    from huggingface_hub import get_hf_file_metadata, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    metadata = get_hf_file_metadata(url, timeout=waits[0], token=token)
    if metadata.xet_file_data is None:
        headers = {**build_hf_headers(token=token), "Range": "bytes=0-0"}
        with get_session().stream("GET", url, headers=headers, timeout=waits[1]) as response:
            hf_raise_for_status(response)
    return metadata.etag


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the call's result, or raise `TimeoutError`: DNS look-ups have no time-out themselves."""
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


def _hub_error(repo: str, filenames: Sequence[str], error: Exception, *, refused: bool) -> ResnetdError:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    from resnetd_cli.net.proxies import proxy_for

    if isinstance(error, UsageError):  # about the proxy or certificates for a host that the hub redirected to
        return error
    if isinstance(error, HfHubHTTPError):
        message, cure = _answer(repo, filenames, error)
        if refused:
            message = f"{message}; the token ({_token_source()}) is not valid there"
            return HubError(message, **_ways_out(cure, hint="renew or unset it"))
        return HubError(message, **_ways_out(cure))
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        folder, hint = constants.HF_HUB_CACHE, "HF_HOME=FOLDER names another place for it"
        if folder.startswith(os.devnull):
            return HubError(f"there is no home folder to keep {repo} in", hint=hint)
        return HubError(f"cannot keep {repo} in {folder}: {error.strerror}", hint=hint)
    cause = innermost(error)
    reason = " ".join(str(cause).split()) or type(cause).__name__
    way = proxy_for(constants.ENDPOINT)
    through = f" through {way}" if way else ""
    message = f"cannot get {repo} from {hub_environment.shown()}{through}: {reason}"
    return HubError(message, **_ways_out(_cure(error, cause, way)))


def _answer(repo: str, filenames: Sequence[str], error: HfHubHTTPError) -> tuple[str, str]:
    """Return a message for the hub's HTTP error, and what to try first, if anything."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from resnetd_cli.net.proxies import proxy_for

    endpoint, status = hub_environment.shown(), error.response.status_code
    messages: dict[type[Exception], tuple[str, str]] = {
        GatedRepoError: (f"{repo} is gated on {endpoint}", "request access, then set HF_TOKEN"),
        RepositoryNotFoundError: (
            f"{repo} is not on {endpoint}, or is private",
            "check the name, or set HF_TOKEN",
        ),
        RevisionNotFoundError: (f"{repo}: {endpoint} has no such revision", "check the revision after the @"),
        EntryNotFoundError: (f"{repo} on {endpoint} has no {' or '.join(filenames)}", "timm reads no other files"),
    }
    for kind, (message, hint) in messages.items():
        if isinstance(error, kind):
            return message, hint
    if status == _PROXY_WANTS_PASSWORD and (way := proxy_for(constants.ENDPOINT)):
        return f"{way} asks for a name and a password (407)", "http://NAME:PASSWORD@HOST:PORT"
    return f"{endpoint} answered {status} for {repo}", ""


def _cure(error: Exception, cause: BaseException, way: Proxy | None) -> str:
    """Return the setting that may help if the hub did not answer; an empty text if none does."""
    import ssl

    from resnetd_cli.net.proxies import certificates_hint

    if isinstance(cause, TimeoutError) or "Timeout" in type(error).__name__:
        return f"{hub_environment.ETAG_TIMEOUT}=60 and {hub_environment.DOWNLOAD_TIMEOUT}=60 wait longer"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return certificates_hint()
    return way.hint(str(cause)) if way else ""


def _ways_out(cure: str = "", hint: str | None = None) -> Advice:
    """Return hints: what to try first, and alternatives to the hub that failed."""
    is_mirror = bool(os.environ.get("HF_ENDPOINT"))
    mirror = "correct or unset HF_ENDPOINT" if is_mirror else "name a mirror: HF_ENDPOINT=https://HOST"
    return {"hint": hint, "reason": Reason.HUB, "details": (cure and f"{cure}; or ", f", or {mirror}")}


def _token_source() -> str:
    """Return the variable or file from which huggingface_hub reads its token."""
    from huggingface_hub import constants

    for variable in (hub_environment.TOKEN, "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable):
            return variable
    return constants.HF_TOKEN_PATH


def _state(repo: str, filenames: Sequence[str], path: Path | None) -> str:
    """Return a message that says why the file in the cache is missing or unusable."""
    if path:
        what = "a Git LFS pointer, not the file" if _is_pointer(path) else "damaged"
        return f"{repo} is {what} on this machine ({path})"
    folder = _folder(repo)
    snapshots = _snapshots(folder)
    snapshot = _snapshot(repo)
    if snapshot is None and len(snapshots) > 1:
        return f"{folder} has {len(snapshots)} snapshots, and {_split(repo)[1] or 'refs/main'} names none of them"
    for link in [snapshot / name for name in filenames] if snapshot else []:
        if link.is_symlink():
            return f"{link} is a broken link: the cache was copied without its blobs"
    if (folder.parents[1] / folder.name).is_dir():
        return f"{repo} is in {folder.parents[1]}, which HF_HUB_CACHE may name; HF_HOME is the folder above"
    return f"{repo} is not on this machine ({folder.parent})"


def _folder(repo: str) -> Path:
    """Return the folder of a repository in huggingface_hub's cache."""
    hub_environment.put_in_order()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, "--".join(["models", *_split(repo)[0].split("/")]))


def _snapshot(repo: str) -> Path | None:
    """Return the folder of a repository's revision, or None. Caches that were copied by hand work too.

    It is the snapshot that `refs` names, with or without a line break; or whose name is, or starts with, the
    revision; or the only one, if `refs` was not copied.
    """
    folder, revision = _folder(repo), _split(repo)[1] or _MAIN
    reference = folder / "refs" / revision
    try:
        name = reference.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        name = revision
    if (folder / "snapshots" / name).is_dir():
        return folder / "snapshots" / name
    if reference.exists():
        return None
    is_commit = re.fullmatch(r"[0-9a-f]{5,40}", name)
    fitting = [path for path in _snapshots(folder) if name == _MAIN or (is_commit and path.name.startswith(name))]
    return fitting[0] if len(fitting) == 1 else None


def _snapshots(folder: Path) -> list[Path]:
    try:
        return [path for path in (folder / "snapshots").iterdir() if path.is_dir()]
    except OSError:
        return []


def _etags(path: Path) -> set[str]:
    """Return the possible ETags of a cached file. The cache names its blobs by ETag and links to them.

    Only one link is followed, because a blob may itself link to a file that several repositories share. A file
    that was copied in place of a link must equal a blob of the same size, if there is one.
    """
    if path.is_symlink():
        return {path.readlink().name}
    if path.parent.parent.name != "snapshots":
        return set()
    size = path.stat().st_size
    blobs = (path.parents[2] / "blobs").glob("*")
    return {
        blob.name
        for blob in blobs
        if _ETAG.fullmatch(blob.name) and blob.is_file() and blob.stat().st_size == size
    }


def _is_intact(path: Path, etags: set[str]) -> bool:
    """Return whether a file's hash is one of these ETags.

    The ETag of a large file is its SHA-256, that of a small one git's blob id (SHA-1 of a header and the content).
    Without an ETag, as in a cache without links, any file passes except a Git LFS pointer.
    """
    known = {etag for etag in etags if _ETAG.fullmatch(etag)}
    if not known:
        return not _is_pointer(path)
    return (_SHA256 in map(len, known) and sha256(path) in known) or (
        _SHA1 in map(len, known) and _git_id(path) in known
    )


def _git_id(path: Path) -> str:
    header = f"blob {path.stat().st_size}\0".encode()
    return hash_file(path, hashlib.sha1(header, usedforsecurity=False))


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return path.stat().st_size <= _POINTER_BYTES and file.read(len(_POINTER)) == _POINTER


def _discard(path: Path) -> None:
    """Delete a damaged file from the cache: the link in the snapshot, and its target.

    Raises:
        HubError: the cache is not writable.
    """
    try:
        while path.is_symlink():
            target = path.parent / path.readlink()
            path.unlink()
            path = target
        path.unlink(missing_ok=True)
    except OSError as error:
        message = f"{path} is damaged, and cannot be removed: {error.strerror}"
        raise HubError(message, hint="remove it, or name another cache: HF_HOME=FOLDER") from error


def _split(repo: str) -> tuple[str, str | None]:
    name, _, revision = repo.partition("@")
    return name, revision or None


def _silent_bar() -> type[Any]:
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # an argument of huggingface_hub's bars that tqdm lacks
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent
