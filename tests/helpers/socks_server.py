"""A SOCKS 5 proxy on loopback that leads everything to one address."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import TracebackType

PATIENCE = 20.0


class _Handler(StreamRequestHandler):
    server: SocksServer

    def handle(self) -> None:
        with suppress(OSError, IndexError):
            if self._greets():
                self._leads()

    def _greets(self) -> bool:
        methods = self.rfile.read(self.rfile.read(2)[1])
        if self.server.login is None:
            self.wfile.write(b"\5\0")
            return True
        if 2 not in methods:
            self.wfile.write(b"\5\xff")
            return False
        self.wfile.write(b"\5\2")
        self.rfile.read(1)
        given = tuple(self.rfile.read(self.rfile.read(1)[0]).decode() for _ in range(2))
        self.wfile.write(b"\1\0" if given == self.server.login else b"\1\1")
        return given == self.server.login

    def _leads(self) -> None:
        kind = self.rfile.read(4)[3]
        host = self.rfile.read({1: 4, 4: 16}.get(kind) or self.rfile.read(1)[0])
        family = {1: socket.AF_INET, 4: socket.AF_INET6}.get(kind)
        name = socket.inet_ntop(family, host) if family else host.decode()
        self.server.requests.append((name, int.from_bytes(self.rfile.read(2), "big")))
        if self.server.refusal:
            self.wfile.write(bytes([5, self.server.refusal, 0, 1]) + bytes(6))
            return
        with socket.create_connection(self.server.behind) as other:
            self.wfile.write(b"\5\0\0\1" + bytes(6))
            ends = {self.connection: other, other: self.connection}
            while ready := select.select(list(ends), [], [], PATIENCE)[0]:
                for end in ready:
                    if not (data := end.recv(2**16)):
                        return
                    ends[end].sendall(data)


class SocksServer(ThreadingTCPServer):
    """Serves while the context is open.

    Args:
        port: where everything leads to, on loopback.
        login: the name and password it asks for.

    Attributes:
        requests: the hosts and ports that were asked for.
        refusal: what it answers in place of leading anywhere.
    """

    daemon_threads = True

    def __init__(self, port: int, login: tuple[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = ("127.0.0.1", port)
        self.login = login
        self.refusal = 0
        self.requests: list[tuple[str, int]] = []
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> SocksServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
