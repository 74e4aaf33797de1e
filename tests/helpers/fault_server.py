"""A web server on loopback with a path for each thing that can go wrong; it is an HTTP proxy, too."""

from __future__ import annotations

import gzip
import select
import socket
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

BODY = bytes(range(256)) * 1000
CERTIFICATE = Path(__file__).parent / "localhost.pem"
"""For localhost and 127.0.0.1, with its key."""
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
BOMB_SIZE = 2**27
LARGE_SIZE = 2**24
PATIENCE = 20.0
"""Seconds after which a server gives up a client that should have been gone."""


class Request(NamedTuple):
    """What a client asked."""

    path: str
    headers: dict[str, str]
    client: tuple[str, int]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(Request(self.path, dict(self.headers), self.client_address[:2]))
        path = urlsplit(self.path).path if self.path.startswith("http://") else self.path.partition("?")[0]
        with server.changed:
            server.under_way += 1
            server.most = max(server.most, server.under_way)
            server.seen[path] += 1
            server.changed.notify_all()
        try:
            server.answers[path](self)
        except OSError:
            self.close_connection = True
            server.gone.set()
        finally:
            with server.changed:
                server.under_way -= 1

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        """Lead to the server behind the proxy, whatever it is called."""
        self.server.requests.append(Request(self.path, dict(self.headers), self.client_address[:2]))
        assert self.server.behind
        with socket.create_connection(self.server.behind) as other:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: other, other: self.connection}
            while ready := select.select(list(ends), [], [], PATIENCE)[0]:
                for end in ready:
                    if not (data := end.recv(2**16)):
                        self.close_connection = True
                        return
                    ends[end].sendall(data)

    def log_message(self, *_: object) -> None:
        pass


Answer = Callable[[Handler], None]


def answer(status: int, body: bytes | None = b"", *, length: object = None, **headers: str) -> Answer:
    """Answer with these, None for the server's own body; `length` is announced in place of the body's."""

    def send(handler: Handler) -> None:
        data = handler.server.body if body is None else body
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection |= length is not None

    return send


OK = answer(200, None)


def at_first(times: int, fault: Answer, then: Answer = OK) -> Answer:
    """Fail so often, and then answer."""

    def send(handler: Handler) -> None:
        (fault if handler.server.seen[handler.path] <= times else then)(handler)

    return send


def raw(*parts: bytes) -> Answer:
    """Say this, in place of HTTP or of a correct one."""

    def send(handler: Handler) -> None:
        handler.wfile.write(b"".join(parts))
        handler.close_connection = True

    return send


def without_length(handler: Handler) -> None:
    handler.close_connection = True
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(handler.server.body)


def chunked(*, ends: bool = True, size: bytes = b"%x") -> Answer:
    def send(handler: Handler) -> None:
        body = handler.server.body
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        line = size % len(body) if b"%" in size else size
        handler.wfile.write(line + b"\r\n" + body + b"\r\n" + (b"0\r\n\r\n" if ends else b""))
        handler.close_connection |= not ends

    return send


def hang_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def wait(handler: Handler) -> None:
    """Say nothing until the client is gone."""
    for _ in pauses(handler):
        if select.select([handler.connection], [], [], 0)[0]:
            raise ConnectionResetError


def wait_in_the_body(handler: Handler) -> None:
    answer(200, b"x" * 1000, length=BOMB_SIZE // 100)(handler)
    wait(handler)


def drip(first: bytes, drop: bytes) -> Answer:
    """Say little, again and again."""

    def send(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(first)
        for _ in pauses(handler):
            handler.wfile.write(drop)

    return send


def flood(handler: Handler) -> None:
    """Send zeros without end."""
    handler.close_connection = True
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.closing.is_set():
        handler.wfile.write(bytes(2**16))


def in_blocks(handler: Handler) -> None:
    """Send some zeros that the server never has all at once."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(LARGE_SIZE))
    handler.end_headers()
    for _ in range(LARGE_SIZE // 2**16):
        handler.wfile.write(bytes(2**16))


def pauses(handler: Handler, seconds: float = 0.05) -> Iterator[None]:
    for _ in range(int(PATIENCE / seconds)):
        if handler.server.closing.wait(seconds):
            return
        yield


def gather(number: int) -> Answer:
    """Answer when so many requests are under way at once, or never were."""

    def send(handler: Handler) -> None:
        server = handler.server
        with server.changed:
            server.changed.wait_for(lambda: server.most >= number, 10)
        OK(handler)

    return send


def in_a_moment(handler: Handler) -> None:
    handler.server.closing.wait(0.2)
    OK(handler)


def limited(seconds: float, *, as_date: bool = False) -> Answer:
    def send(handler: Handler) -> None:
        after = formatdate(time() + seconds, usegmt=True) if as_date else str(int(seconds))
        answer(429, b"slower", Retry_After=after)(handler)

    return send


def to(location: str, status: int = 302) -> Answer:
    return answer(status, Location=location)


def redirect_to_self_by_name(handler: Handler) -> None:
    to(f"http://localhost:{handler.server.server_port}/ok")(handler)


def redirect_slowly(handler: Handler) -> None:
    handler.server.closing.wait(0.2)
    to("/slow-round")(handler)


def redirect_with_password(handler: Handler) -> None:
    """Ask for a password, and lead on to the same server, in full and without it."""
    if "Authorization" not in handler.headers:
        answer(401)(handler)
    elif handler.path == "/locked":
        to(f"http://{handler.headers['Host']}/locked-too")(handler)
    else:
        OK(handler)


def packed(data: bytes | Callable[[], bytes], coding: str) -> Answer:
    """Answer with compressed data, or with what a function returns at the request: bombs take a while to make."""

    def send(handler: Handler) -> None:
        answer(200, data if isinstance(data, bytes) else data(), Content_Encoding=coding)(handler)

    return send


_RAW_DEFLATE = zlib.compressobj(9, zlib.DEFLATED, -15)
_EMPTY_MEMBERS = gzip.compress(b"") * 2**16
_ENDLESS_NAME = b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 2**21  # in a gzip header, before anything comes of it


@cache
def bomb(layers: int) -> bytes:
    """Return zeros, compressed so many times."""
    return gzip.compress(bomb(layers - 1) if layers > 1 else bytes(BOMB_SIZE), 9)


@cache
def _endless_members() -> bytes:
    return gzip.compress(gzip.compress(_EMPTY_MEMBERS * 64))


_START = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, Answer] = {
    # What goes well, by a detour or not.
    "/ok": OK,
    "/no-length": without_length,
    "/chunked": chunked(),
    "/gzip": lambda handler: answer(200, gzip.compress(handler.server.body), Content_Encoding="gzip")(handler),
    "/gzip-in-two-members": packed(gzip.compress(BODY[:1000]) + gzip.compress(BODY[1000:]), "x-gzip"),
    "/gzip-and-more": packed(gzip.compress(BODY) + b"\0" * 100, "gzip"),
    "/gzip-twice": packed(gzip.compress(gzip.compress(BODY)), "gzip, GZIP"),
    "/deflate": packed(zlib.compress(BODY), "deflate"),
    "/raw-deflate": packed(_RAW_DEFLATE.compress(BODY) + _RAW_DEFLATE.flush(), "deflate"),
    "/odd-encoding": packed(BODY, "image/jpeg, none"),
    "/moved-to-spaces": to(" /a b.jpg "),
    "/a%20b.jpg": OK,
    "/%C3%A9%20cat.jpg": OK,
    "/b%C3%A4r%2Fcat%231.jpg": OK,
    "/short-length": answer(200, None, length=1000),
    "/bad-length": answer(200, None, length="many"),
    "/negative-length": answer(200, None, length=-5),
    "/superscript-length": answer(200, None, length="\xb2"),
    "/moved": to("/ok"),
    "/moved-twice": to("/moved", 301),
    "/moved-in-full": redirect_to_self_by_name,
    "/locked": redirect_with_password,
    "/locked-too": redirect_with_password,
    "/busy-at-first": at_first(2, answer(503)),
    "/broken-at-first": at_first(1, answer(500)),
    "/limited-at-first": at_first(1, limited(1)),
    "/limited-by-date-at-first": at_first(1, limited(2, as_date=True)),
    "/odd-limit-at-first": at_first(1, answer(429, Retry_After="when it suits")),
    "/hangs-up-at-first": at_first(1, hang_up),
    "/large": in_blocks,
    "/in-a-moment": in_a_moment,
    "/at-once-4": gather(4),
    # http_status
    "/missing": answer(404, HTML),
    "/forbidden": answer(403),
    "/broken": answer(500, b"oops"),
    "/busy": answer(503),
    "/limited": limited(3600),
    "/limited-by-date": limited(3600, as_date=True),
    "/moved-away": to("/missing"),
    # connection
    "/cut": answer(200, b"x" * 1000, length=2000),
    "/chunked-cut": chunked(ends=False),
    "/bad-chunk": chunked(size=b"zz"),
    "/two-lengths": answer(200, None, length="7, 8"),
    "/hang-up": hang_up,
    "/babble": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "/bad-gzip": answer(200, b"\x1f\x8b, not really", Content_Encoding="gzip"),
    "/gzip-cut": packed(gzip.compress(BODY)[:-10], "gzip"),
    "/brotli": packed(BODY, "br"),
    "/empty-members": packed(gzip.compress(_EMPTY_MEMBERS), "gzip, gzip"),
    "/gzip-thrice": packed(_endless_members, "gzip, gzip, gzip"),
    "/many-encodings": packed(partial(bomb, 1), ", ".join(["gzip"] * 100)),
    "/many-headers": raw(_START, b"X-Header: y\r\n" * 1000, b"\r\n"),
    "/long-header": raw(_START, b"X-Header: ", b"y" * 2**17, b"\r\n\r\n"),
    "/round": to("/round"),
    # timeout
    "/slow-round": redirect_slowly,
    "/wait": wait,
    "/wait-in-the-body": wait_in_the_body,
    "/drip": drip(_START + b"\r\n", b"x"),
    "/drip-status": drip(b"HTTP/1.1 200 ", b"O"),
    "/drip-headers": drip(_START + b"X: ", b"y"),
    "/drip-chunks": drip(_START + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "/drip-continue": drip(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    # too_large
    "/flood": flood,
    "/announced": wait_in_the_body,
    "/bomb": packed(partial(bomb, 1), "gzip"),
    "/large-inner-layer": packed(gzip.compress(_ENDLESS_NAME), "gzip, gzip"),
    "/layered-bomb": packed(partial(bomb, 2), "gzip, gzip"),
    # empty, undecodable
    "/empty": answer(200),
    "/no-content": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/page": answer(200, HTML, Content_Type="image/jpeg"),
    # blocked
    "/to-file": to("file:///etc/hostname"),
    "/to-ftp": to("ftp://127.0.0.1/dog.jpg"),
    "/to-data": to("data:image/png;base64,iVBORw0KGgo="),
    "/to-nowhere": to("http://["),
    "/to-private": to("http://10.0.0.1/dog.jpg"),
    "/to-metadata": to("//169.254.169.254/latest/meta-data/"),
}


class FaultServer(ThreadingHTTPServer):
    """Serves while the context is open.

    Args:
        host: the loopback address, IPv6 ones too.
        body: what it serves where nothing is wrong.
        tls: speak https.
        port: to listen on; any that is free if 0.

    Attributes:
        requests: what was asked, in order.
        most: how many requests were under way at once.
        gone: set when a client closed the connection before it had all.
        behind: the address to which the proxy leads all tunnels.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str = "127.0.0.1", body: bytes = BODY, *, tls: bool = False, port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.body = body
        self.answers = dict(ANSWERS)
        self.requests: list[Request] = []
        self.seen: Counter[str] = Counter()
        self.changed = threading.Condition()
        self.under_way = self.most = 0
        self.gone = threading.Event()
        self.closing = threading.Event()
        self.behind: tuple[str, int] | None = None
        name = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{name}:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def forget(self) -> None:
        """Start to count anew."""
        self.requests.clear()
        self.seen.clear()
        self.most = 0
        self.gone.clear()

    def __enter__(self) -> FaultServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        with suppress(OSError):
            self.server_close()

    def handle_error(self, *_: object) -> None:
        pass
