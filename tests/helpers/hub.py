"""A small Hugging Face hub on loopback, so that downloads are tested over real sockets and without a network.

    with Hub() as hub:
        hub.add_timm_model("resnet18d.ra2_in1k")
        hub.fail("*.safetensors", cut_at=1000, times=1)
        ...  # HF_ENDPOINT=hub.endpoint
        assert [request.range for request in hub.requests] == [...]

It speaks what `huggingface_hub.hf_hub_download` needs of the real protocol: small files come straight from
`/{repo}/resolve/{revision}/{filename}` with a git blob hash as ETag; weights are LFS files, so that address
answers with a redirect to a CDN on another origin and carries the sha256 in `X-Linked-Etag`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property, lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

LFS_SUFFIXES = (".safetensors", ".bin", ".pth")
RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<filename>.+)")
CHUNK = 1 << 18
OWN_CLASSES = ("red", "green", "blue")  # of the `own` fixture's model


class Request(NamedTuple):
    """One line of the log.

    `name` is the `OWNER/NAME/FILENAME` asked for, where there is one; `status` is None for a request that was
    never answered.
    """

    method: str
    path: str
    range: str | None
    status: int | None
    name: str


@dataclass
class Fault:
    """What goes wrong with the files whose `OWNER/NAME/FILENAME` matches `pattern`.

    `at` limits it to requests at the "hub" (resolve addresses) or at the "cdn". `times` counts down; None is
    for ever. `cut_at` and `stall_at` are offsets in the file, not in the response: none gets past them,
    resumed or not. `wait` is the seconds before the answer. `stall` takes the request and never answers; the hub's
    end cuts the connection.
    """

    pattern: str
    at: str = "any"
    times: int | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    stall: bool = False
    stall_at: int | None = None
    cut_at: int | None = None
    corrupt: bool = False
    bytes_per_second: int | None = None
    wait: float = 0

    def strikes(self, name: str, at: str, span: tuple[int, int] | None, size: int) -> bool:
        """Whether a request for a file at a place meets the fault; `span` is what it gets of the content."""
        if self.times == 0 or self.at not in ("any", at) or not fnmatch(name, self.pattern):
            return False
        before_content = self.status is not None or self.stall or self.wait > 0
        if span is None or before_content:
            return span is None and before_content
        first, stop = span
        offsets = [offset for offset in (self.cut_at, self.stall_at) if offset is not None]
        return (
            any(offset < stop for offset in offsets)
            or (self.corrupt and first <= size // 2 < stop)
            or self.bytes_per_second is not None
        )


@dataclass(frozen=True)
class HubFile:
    repo: str
    filename: str
    content: bytes

    @property
    def name(self) -> str:
        return f"{self.repo}/{self.filename}"

    @property
    def is_lfs(self) -> bool:
        return self.filename.endswith(LFS_SUFFIXES)

    @cached_property
    def etag(self) -> str:
        """The cache names its blob after this: sha256 for LFS files, git's blob hash for the others."""
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


class Hub:
    """The server; a context manager. Faults and files may change while it runs."""

    def __init__(self) -> None:
        self._repos: dict[str, dict[str, HubFile]] = {}
        self._faults: list[Fault] = []
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        self.refuses_tokens = False
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._server.errors and error is None:
            raise self._server.errors[0]

    def close(self) -> None:
        """Stop at once: waiting and half-sent answers are cut. May be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.stop()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        # Another host name makes it another origin, as the real one is: clients do not follow it in a HEAD.
        return f"http://localhost:{self.port}/cdn"

    @property
    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._requests)

    def body_requests(self, filename: str) -> list[Request]:
        """The requests that were answered with content of this file, resumed ones included."""
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.status in (200, 206) and request.name.endswith(f"/{filename}")
        ]

    def forget_requests(self) -> None:
        with self._lock:
            self._requests.clear()

    def add(self, repo: str, files: dict[str, bytes]) -> None:
        """Add files to a repository, or replace them; either is a new commit."""
        with self._lock:
            repo_files = self._repos.setdefault(repo, {})
            repo_files.update({name: HubFile(repo, name, content) for name, content in files.items()})

    def add_timm_model(self, name: str, seed: int = 0, *, repo: str | None = None, **options: Any) -> None:
        """Add a timm architecture with random weights, under the id that timm's own weights have."""
        self.add(repo or f"timm/{name}", timm_files(name, seed, **options))

    def fail(self, pattern: str, **fault: Any) -> None:
        """Make something go wrong with the files that match; see `Fault`."""
        with self._lock:
            self._faults.append(Fault(pattern, **fault))

    def gate(self, repo: str) -> None:
        """Ask for a token that nobody has."""
        headers = (
            ("X-Error-Code", "GatedRepo"),
            ("X-Error-Message", f"Access to model {repo} is restricted."),
        )
        self.fail(f"{repo}/*", status=401, headers=headers)

    def heal(self) -> None:
        """Take all faults away."""
        with self._lock:
            self._faults.clear()

    def etag(self, repo: str, filename: str) -> str:
        """Return what the cache names the blob of this file after."""
        return self._repos[repo][filename].etag

    # What the request handler asks:

    def files(self, repo: str) -> dict[str, HubFile] | None:
        with self._lock:
            return dict(self._repos[repo]) if repo in self._repos else None

    def lfs_file(self, sha256: str) -> HubFile | None:
        with self._lock:
            files = [file for files in self._repos.values() for file in files.values()]
        return next((file for file in files if file.is_lfs and file.etag == sha256), None)

    def take_fault(self, name: str, at: str, span: tuple[int, int] | None = None, size: int = 0) -> Fault | None:
        """Return the first fault that the request meets, and count it."""
        with self._lock:
            for fault in self._faults:
                if fault.strikes(name, at, span, size):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def log(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() joins them: no thread outlives the hub
    request_queue_size = 32

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.closing = threading.Event()
        self.errors: list[BaseException] = []
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def stop(self) -> None:
        self.closing.set()
        # A client may keep its connection open for ever; the thread that reads from it must still end.
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # closed meanwhile
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        # Clients that go away are what the tests are about; anything else is a fault of this file.
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.name = ""
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/cdn/"):
            self._cdn(path.removeprefix("/cdn/"))
        elif match := RESOLVE.fullmatch(path):
            self._resolve(match["repo"], match["revision"], match["filename"])
        else:
            self._reply(404, [("X-Error-Code", "RepoNotFound")])

    def _cdn(self, sha256: str) -> None:
        file = self.server.hub.lfs_file(sha256)
        if file is None:
            self._reply(404)
            return
        self.name = file.name
        if not self._fails("cdn"):
            self._send_file(file, [], "cdn")

    def _resolve(self, repo: str, revision: str, filename: str) -> None:
        hub = self.server.hub
        self.name = f"{repo}/{filename}"
        if self._fails("hub"):
            return
        if hub.refuses_tokens and self.headers.get("Authorization"):
            self._reply(401, [("X-Error-Message", "Invalid credentials in Authorization header")])
            return
        files = hub.files(repo)
        if files is None:
            # The real hub does not tell a missing repository from a private one.
            self._reply(
                401, [("X-Error-Code", "RepoNotFound"), ("X-Error-Message", "Invalid username or password.")]
            )
            return
        commit = _commit(files)
        headers = [("X-Repo-Commit", commit)]
        file = files.get(filename)
        if revision not in ("main", commit):
            self._reply(404, [("X-Error-Code", "RevisionNotFound")])
        elif file is None:
            self._reply(404, [*headers, ("X-Error-Code", "EntryNotFound"), ("X-Error-Message", "Entry not found")])
        elif file.is_lfs:
            headers += [("X-Linked-Etag", f'"{file.etag}"'), ("X-Linked-Size", str(len(file.content)))]
            self._reply(302, [*headers, ("Location", f"{hub.cdn}/{file.etag}")])
        else:
            self._send_file(file, headers, "hub")

    def _fails(self, at: str) -> bool:
        """Do what keeps the file from being served at all, if there is such a fault."""
        fault = self.server.hub.take_fault(self.name, at)
        if fault is None:
            return False
        if fault.wait:
            self.server.closing.wait(fault.wait)
            return False
        if fault.status is not None:
            self._reply(fault.status, list(fault.headers))
        else:
            self._log(None)
            self._stall()
        return True

    def _stall(self) -> None:
        self.server.closing.wait()
        self.close_connection = True

    def _send_file(self, file: HubFile, headers: list[tuple[str, str]], at: str) -> None:
        size = len(file.content)
        first, last = 0, size - 1
        status = 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first = int(wanted[1])
            last = min(int(wanted[2] or last), last)
            if first > last:
                self._reply(416, [("Content-Range", f"bytes */{size}")])
                return
            status = 206
            headers = [*headers, ("Content-Range", f"bytes {first}-{last}/{size}")]
        headers = [*headers, ("ETag", f'"{file.etag}"'), ("Accept-Ranges", "bytes")]
        self._reply(status, headers, length=last - first + 1)
        if self.command == "GET":
            fault = self.server.hub.take_fault(file.name, at, (first, last + 1), size)
            self._send_body(file.content, first, last + 1, fault or Fault("*"))

    def _send_body(self, content: bytes, first: int, stop: int, fault: Fault) -> None:
        if fault.corrupt:
            # One bit, in the middle: the file stays a well-formed one.
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        end = min([stop, *(offset for offset in (fault.cut_at, fault.stall_at) if offset is not None)])
        rate = fault.bytes_per_second
        chunk = max(1, rate // 20) if rate else CHUNK
        for start in range(first, end, chunk):
            self.wfile.write(content[start : min(start + chunk, end)])
            if self.server.closing.wait(0.05 if rate else 0):
                break
        if end < stop and fault.stall_at is not None:
            self._stall()
        # Short of the promised length the connection is of no more use.
        self.close_connection = self.close_connection or end < stop or self.server.closing.is_set()

    def _reply(self, status: int, headers: list[tuple[str, str]] | None = None, length: int = 0) -> None:
        self._log(status)
        self.send_response(status)
        for name, value in headers or []:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _log(self, status: int | None) -> None:
        self.server.hub.log(Request(self.command, self.path, self.headers.get("Range"), status, self.name))


@contextlib.contextmanager
def use_hub(endpoint: str, cache: Path) -> Iterator[None]:
    """Make huggingface_hub in this process use this hub and this cache."""
    import huggingface_hub
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", endpoint)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.close_session()
        yield
        huggingface_hub.close_session()


@lru_cache(maxsize=8)
def timm_files(
    name: str,
    seed: int = 0,
    *,
    num_classes: int | None = None,
    label_names: tuple[str, ...] | None = None,
) -> dict[str, bytes]:
    """Return `config.json` and `model.safetensors` of a timm model with random weights, as timm saves them.

    A fresh network is a poor test: its residual branches are switched off, its answers all alike. So the
    batch norms get random values, and the logits a spread like that of a trained network.
    """
    import timm
    import torch
    from timm.models import save_for_hf

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, **({"num_classes": num_classes} if num_classes else {}))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.0)
                torch.nn.init.uniform_(module.bias, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.0)
        size = model.pretrained_cfg["input_size"]
        model.eval()
        with torch.no_grad():
            logits = model(torch.randn(2, *size))
            model.get_classifier().weight.mul_(3 / logits.std(dim=1).mean())
    with tempfile.TemporaryDirectory() as folder:
        config = {"label_names": list(label_names)} if label_names else None
        save_for_hf(model, folder, model_config=config, safe_serialization=True)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def write_model(folder: Path, name: str, classes: Sequence[str]) -> None:
    """Write a model folder with random weights."""
    folder.mkdir()
    for file, data in timm_files(name, num_classes=len(classes), label_names=tuple(classes)).items():
        (folder / file).write_bytes(data)


def _commit(files: dict[str, HubFile]) -> str:
    """Return a hash that changes with the files, as a commit's does."""
    listing = "\n".join(f"{file.etag} {name}" for name, file in sorted(files.items()))
    return hashlib.sha1(listing.encode()).hexdigest()
