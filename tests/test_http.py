"""Fetching over real sockets: what comes, what does not, and which kind of failure it is."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from resnetd_cli import http
from resnetd_cli.errors import ErrorKind, InputError

BODY = bytes(range(256)) * 1000
Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> Answer:
    """Answer with these; `length` is announced in place of the body's own."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def without_length(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(BODY)


def chunked(*, ends: bool) -> Answer:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(BODY), BODY) + (b"0\r\n\r\n" if ends else b""))

    return send


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def babble(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def wait(handler: BaseHTTPRequestHandler) -> None:
    handler.server.closing.wait(10)  # type: ignore[attr-defined]


def wait_in_the_body(handler: BaseHTTPRequestHandler) -> None:
    answer(200, BODY[:1000], length=len(BODY))(handler)
    wait(handler)


ANSWERS: dict[str, Answer] = {
    "/ok": answer(200, BODY),
    "/no-length": without_length,
    "/chunked": chunked(ends=True),
    "/chunked-cut": chunked(ends=False),
    "/gzip": answer(200, gzip.compress(BODY), Content_Encoding="gzip"),
    "/bad-gzip": answer(200, b"\x1f\x8b, not really", Content_Encoding="gzip"),
    "/missing": answer(404, b"<html>not here</html>"),
    "/forbidden": answer(403),
    "/broken": answer(500, b"oops"),
    "/busy": answer(503),
    "/moved": answer(302, Location="/ok"),
    "/moved-twice": answer(301, Location="/moved"),
    "/moved-away": answer(302, Location="/missing"),
    "/round": answer(302, Location="/round"),
    "/to-file": answer(302, Location="file:///etc/hostname"),
    "/%C3%A9%20cat.jpg": answer(200, BODY),
    "/empty": answer(200),
    "/no-content": answer(204),
    "/cut": answer(200, BODY[:1000], length=len(BODY)),
    "/hang-up": hang_up,
    "/babble": babble,
    "/wait": wait,
    "/wait-in-the-body": wait_in_the_body,
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))  # type: ignore[attr-defined]
        ANSWERS[self.path](self)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.closing = threading.Event()
        self.requests: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


def failure(url: str, **options: int) -> InputError:
    with pytest.raises(InputError) as caught:
        http.fetch(url, **options)
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("path", ["/ok", "/no-length", "/chunked", "/gzip", "/moved", "/moved-twice"])
def test_body_comes_whole(server: Server, path: str) -> None:
    assert http.fetch(server.url + path) == BODY


def test_scheme_may_be_written_in_capitals(server: Server) -> None:
    assert http.fetch(server.url.replace("http", "HTTP") + "/ok") == BODY


def test_request_says_who_asks_and_wants_the_bytes_as_they_are(server: Server) -> None:
    http.fetch(server.url + "/ok")
    assert server.requests[-1]["User-Agent"].startswith("resnetd")
    assert server.requests[-1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/missing", "404"), ("/forbidden", "403"), ("/broken", "500"), ("/busy", "503"), ("/moved-away", "404")],
)
def test_error_status_is_named(server: Server, path: str, status: str) -> None:
    error = failure(server.url + path)
    assert error.kind is ErrorKind.HTTP_STATUS
    assert status in error.message


@pytest.mark.parametrize("path", ["/empty", "/no-content"])
def test_zero_bytes_are_empty(server: Server, path: str) -> None:
    assert failure(server.url + path).kind is ErrorKind.EMPTY


@pytest.mark.parametrize("path", ["/cut", "/chunked-cut", "/hang-up", "/babble", "/bad-gzip", "/round"])
def test_connection_that_breaks_is_told(server: Server, path: str) -> None:
    assert failure(server.url + path).kind is ErrorKind.CONNECTION


@pytest.mark.parametrize("path", ["/ok", "/no-length", "/chunked", "/gzip"])
def test_more_bytes_than_allowed_are_too_large(server: Server, path: str) -> None:
    assert failure(server.url + path, max_bytes=len(BODY) - 1).kind is ErrorKind.TOO_LARGE
    assert http.fetch(server.url + path, max_bytes=len(BODY)) == BODY


def test_announced_size_is_enough_to_refuse(server: Server) -> None:
    # The server stalls in this body: only the header can have told.
    began = time.monotonic()
    assert failure(server.url + "/wait-in-the-body", max_bytes=2000).kind is ErrorKind.TOO_LARGE
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/wait", "/wait-in-the-body"])
def test_server_that_does_not_go_on_in_time(server: Server, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.1)
    assert failure(server.url + path).kind is ErrorKind.TIMEOUT


def test_no_server_is_a_connection_failure_that_names_the_host() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = failure(f"http://127.0.0.1:{port}/dog.jpg")
    assert error.kind is ErrorKind.CONNECTION
    assert "127.0.0.1" in error.message
    assert "refused" in error.message.lower()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/dog.jpg",
        "file:///etc/hostname",
        "s3://bucket/dog.jpg",
        "gopher://127.0.0.1/",
        "data://text",
        "://127.0.0.1/",
    ],
)
def test_only_http_is_fetched(url: str) -> None:
    assert failure(url).kind is ErrorKind.BLOCKED


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///dog.jpg",
        "http://user:secret@/dog.jpg",
        "http://[::1",
        "http://[not-an-address]/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://two words/",
        "http://*/",
        "http://.host/",
        "http://nul\0.host/",
        "http://a..host/",
        f"http://{'label' * 20}.host/dog.jpg",
        "http://%zz/",
    ],
    ids=ascii,
)
def test_malformed_url_is_blocked(url: str) -> None:
    assert failure(url).kind is ErrorKind.BLOCKED


def test_redirect_does_not_lead_out_of_http(server: Server) -> None:
    assert failure(server.url + "/to-file").kind is ErrorKind.BLOCKED


def test_path_outside_ascii_is_sent_escaped(server: Server) -> None:
    assert http.fetch(server.url + "/é cat.jpg") == BODY


def test_url_that_is_not_utf_8_is_one_failure(server: Server) -> None:
    assert failure("http://127.0.0.1:9/caf\udce9.jpg").kind in (ErrorKind.BLOCKED, ErrorKind.CONNECTION)
    assert failure("http://caf\udce9.host/").kind is ErrorKind.BLOCKED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host/a.jpg", True),
        ("HTTPS://host", True),
        ("s3://bucket/key", True),
        ("git+https://host", True),
        ("dog.jpg", False),
        ("http:/host", False),
        ("C:\\photos\\dog.jpg", False),
        ("photos//dog.jpg", False),
        ("a b://c", False),
        ("://c", False),
        ("", False),
    ],
)
def test_is_url_knows_a_url_from_a_path(text: str, expected: bool) -> None:
    assert http.is_url(text) is expected
