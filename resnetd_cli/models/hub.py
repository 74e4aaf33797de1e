"""Where weights come from: the Hugging Face hub and its cache.

Files lie where timm and every other user of huggingface_hub keeps them (`HF_HOME`), so nothing is fetched
twice. A file that is in the cache is used without asking the hub; one that is not is asked for once, briefly,
before huggingface_hub starts its own patient retries.
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
"""Names a hub repository may have its weights under, best first."""

_PROBE_SECONDS = 7.0
"""How long the hub may take to say where a file is, name look-up, retries and all, unless its variables say."""
_RETRY_PAUSE = 1.0
_REFUSED = (401, 403)
_PROXY_WANTS_PASSWORD = 407
_MAIN = "main"
_SHA1, _SHA256 = 40, 64
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
"""What a clone without Git LFS has in place of a large file, and how long that is at most."""
T = TypeVar("T")


@dataclass(frozen=True)
class Downloads:
    """Whether files may be downloaded, and how that shows.

    Attributes:
        offline: use only files on this machine (`HF_HUB_OFFLINE` says the same).
        progress: returns a tqdm class for progress bars; None for no bars.
    """

    offline: bool = False
    progress: Callable[[], type[Any] | None] = lambda: None


def cached(repo: str, filenames: Sequence[str] = WEIGHTS) -> Path | None:
    """Return a repository's file in the local cache, the first of the names that is there."""
    if snapshot := _snapshot(repo):
        for filename in filenames:
            if (snapshot / filename).is_file():
                return snapshot / filename
    return None


def fetch(repo: str, filenames: Sequence[str] = WEIGHTS, downloads: Downloads = Downloads()) -> Path:
    """Return a repository's file, checked against its hash, from the cache or else from the hub.

    Args:
        repo: OWNER/NAME, with @REVISION where it is not the main one.
        filenames: the names it may have, best first.
        downloads: whether the hub may be asked.

    Raises:
        HubError: there is no such file, no way to it, or what came is not what the hub says it is.
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
        # A token that is out of date opens less than none.
        return _transfer(repo, filenames, progress, token=False)
    except HubError:
        raise
    # What a failed transfer raises depends on huggingface_hub's HTTP library.
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
    """Return the first of the names that the hub has, and its ETag. A busy hub gets one quick second try."""
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
    """Ask for a file's ETag, and for its first byte: the content lies on another server than its name does."""
    from huggingface_hub import get_hf_file_metadata, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    metadata = get_hf_file_metadata(url, timeout=waits[0], token=token)
    if metadata.xet_file_data is None:
        headers = {**build_hf_headers(token=token), "Range": "bytes=0-0"}
        with get_session().stream("GET", url, headers=headers, timeout=waits[1]) as response:
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


def _hub_error(repo: str, filenames: Sequence[str], error: Exception, *, refused: bool) -> ResnetdError:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    from resnetd_cli.net.proxies import proxy_for

    if isinstance(error, UsageError):  # of the way to another host, to which the hub led
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
    """Return what the hub's answer means, and what to try first, if anything."""
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
        GatedRepoError: (f"{repo} is gated on {endpoint}", "ask for access, then set HF_TOKEN"),
        RepositoryNotFoundError: (
            f"{repo} is not on {endpoint}, or is private",
            "check the name, or set HF_TOKEN",
        ),
        RevisionNotFoundError: (f"{repo}: {endpoint} has no such revision", "check what stands behind the @"),
        EntryNotFoundError: (f"{repo} on {endpoint} has no {' or '.join(filenames)}", "timm reads no other files"),
    }
    for kind, (message, hint) in messages.items():
        if isinstance(error, kind):
            return message, hint
    if status == _PROXY_WANTS_PASSWORD and (way := proxy_for(constants.ENDPOINT)):
        return f"{way} asks for a name and a password (407)", "http://NAME:PASSWORD@HOST:PORT"
    return f"{endpoint} answered {status} for {repo}", ""


def _cure(error: Exception, cause: BaseException, way: Proxy | None) -> str:
    """Return the setting that may have to do with it where no answer came; an empty text where none has."""
    import ssl

    from resnetd_cli.net.proxies import certificates_hint

    if isinstance(cause, TimeoutError) or "Timeout" in type(error).__name__:
        return f"{hub_environment.ETAG_TIMEOUT}=60 and {hub_environment.DOWNLOAD_TIMEOUT}=60 wait longer"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return certificates_hint()
    return way.hint(str(cause)) if way else ""


def _ways_out(cure: str = "", hint: str | None = None) -> Advice:
    """Return what to try first, and how to do without the hub that failed."""
    is_mirror = bool(os.environ.get("HF_ENDPOINT"))
    mirror = "correct or unset HF_ENDPOINT" if is_mirror else "name a mirror: HF_ENDPOINT=https://HOST"
    return {"hint": hint, "reason": Reason.HUB, "details": (cure and f"{cure}; or ", f", or {mirror}")}


def _token_source() -> str:
    """Return where huggingface_hub has its token from."""
    from huggingface_hub import constants

    for variable in (hub_environment.TOKEN, "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable):
            return variable
    return constants.HF_TOKEN_PATH


def _state(repo: str, filenames: Sequence[str], path: Path | None) -> str:
    """Return in words why the cache does not do."""
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
    """Return where huggingface_hub keeps a repository."""
    hub_environment.put_in_order()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, "--".join(["models", *_split(repo)[0].split("/")]))


def _snapshot(repo: str) -> Path | None:
    """Return the folder of a repository's revision, as far as the cache tells: many are staged by hand.

    It is the one that `refs` names, with or without a line break; or has the name of the revision, or starts with
    it; or is the only one, where `refs` was not copied.
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
    """Return those of the hub's ETags that a cached file may have: the cache names its blobs by them.

    It links to them, too. One link is followed, no more: a blob may itself be a link, to a file that many
    repositories share. What was copied in place of a link must equal a blob of its size, if there is one.
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
    """Compare a file with the ETags of which it has one.

    Large files have their SHA-256 for an ETag, small ones git's blob id (SHA-1 of a header and the content).
    Where neither is known, as in a cache without links, the file is taken as it is, unless it only points to one.
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
    """Remove a bad file from the cache: the link in the snapshot, and what it leads to.

    Raises:
        HubError: the cache may not be written to.
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
            kwargs.pop("name", None)  # huggingface_hub's own bars have one, tqdm's have not
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent
