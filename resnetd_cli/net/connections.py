"""HTTP connections that refuse private IP addresses before sending anything, and that stop at a deadline."""

from __future__ import annotations

import http.client
import io
import socket
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ProxyError
from urllib3.util.connection import create_connection

from resnetd_cli.errors import ErrorKind, InputError, Reason, UsageError
from resnetd_cli.net.addresses import bare, is_local_name, is_public, look_up
from resnetd_cli.net.proxies import Proxy, certificates, proxy_for
from resnetd_cli.net.socks import connect
from resnetd_cli.system.deadline import Deadline

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection; longer if the deadline is far away."""
READ_TIMEOUT = 20.0
"""Seconds to wait for the next bytes, or for a DNS answer; longer if the deadline is far away."""
_CONNECT_SHARE, _READ_SHARE = 1 / 12, 1 / 3
"""The share of the total time that a single wait may take."""
_HOSTS, _KEPT = 16, 8
"""The number of hosts to keep connections to, and of connections to keep for each."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits on the requests for one URL: how long they may take, and which addresses they may reach.

    Attributes:
        deadline: when they must be finished.
        allow_private: whether they may reach addresses that are not public.
    """

    deadline: Deadline
    allow_private: bool
    _readers: list[io.BufferedReader] = field(default_factory=list)

    def check(self, host: str, address: str) -> None:
        """Check one address of a host.

        Raises:
            InputError: of kind `blocked`: the address is private, and that is not allowed.
        """
        if self.allow_private or is_public(address):
            return
        where = "is a private address" if host == address else f"leads to a private address, {address}"
        raise _private(f"{host} {where}")

    def seconds(self, limit: float) -> float:
        """Return how long a single wait may take: `limit`, or the time left if that is shorter.

        Raises:
            TimeoutError: the deadline has passed.
        """
        if self.deadline.passed:
            raise TimeoutError("the deadline has passed")
        return min(limit, self.deadline.left)

    @property
    def connect_seconds(self) -> float:
        """How long to wait for a connection."""
        return self.seconds(max(CONNECT_TIMEOUT, self.deadline.seconds * _CONNECT_SHARE))

    @property
    def read_seconds(self) -> float:
        """How long to wait for the next bytes."""
        return self.seconds(max(READ_TIMEOUT, self.deadline.seconds * _READ_SHARE))

    def watch(self, reader: io.BufferedReader) -> io.BufferedReader:
        """Remember the reader of a connection, so that `close` can close it."""
        self._readers.append(reader)
        return reader

    def close(self) -> None:
        """Close all readers: after a broken response, the socket would stay open until garbage collection."""
        for reader in self._readers:
            reader.close()


def _private(message: str) -> InputError:
    return InputError(ErrorKind.BLOCKED, message, reason=Reason.PRIVATE_HOST)


_limits: ContextVar[RequestLimits] = ContextVar("limits")


def send(request: PreparedRequest, limits: RequestLimits) -> Response:
    """Send a request, reusing a connection if possible, and return the response with its body unread.

    Args:
        request: the request to send.
        limits: its limits, which also apply while the body is read.

    Raises:
        InputError: of kind `blocked`, or `connection` (the proxy set in the environment cannot be used).
        Exception: whatever requests and urllib3 raise.
    """
    url = str(request.url)
    try:
        proxy = proxy_for(url)
        trusted = certificates() if url.startswith("https:") else None
    except UsageError as error:
        raise InputError(ErrorKind.CONNECTION, error.message, **error.advice) from error
    if proxy:
        _check_behind_proxy(urlsplit(url).hostname or "", limits)
    timeout = (limits.connect_seconds, limits.read_seconds)
    token = _limits.set(limits)
    try:
        return _adapter().send(
            request,
            stream=True,
            timeout=timeout,
            verify=trusted[1] if trusted else True,
            proxies={urlsplit(url).scheme: proxy.url} if proxy else {},
        )
    finally:
        _limits.reset(token)


@lru_cache
def _adapter() -> HTTPAdapter:
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            _use_checked(self.poolmanager)

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            if proxy.startswith("socks"):
                if proxy not in self.proxy_manager:
                    self.proxy_manager[proxy] = _socks_manager(proxy, _HOSTS, _KEPT)
                return self.proxy_manager[proxy]
            manager = super().proxy_manager_for(proxy, **kwargs)
            _use_checked(manager)
            return manager

    return Adapter(_HOSTS, _KEPT)


def _use_checked(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def _check_behind_proxy(host: str, limits: RequestLimits) -> None:
    """Check a host that is reached through a proxy, as far as its name can be resolved here."""
    if limits.allow_private:
        return
    if is_local_name(host):
        raise _private(f"{host} is this machine, which is private")
    host = bare(host)
    _allowed(host, _addresses_here(host, limits.connect_seconds), limits)


@lru_cache(1024)
def _addresses_here(host: str, seconds: float) -> list[str]:
    try:
        return look_up(host, seconds)
    except (OSError, UnicodeError):
        return []  # only the proxy can resolve it


class _Reader(io.RawIOBase):
    """Reads a socket, with a timeout of the time left: a server that drips bytes would reset a fixed timeout."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limits: RequestLimits) -> None:
        self._raw, self._socket, self._limits = raw, sock, limits
        self._limit = sock.gettimeout() or READ_TIMEOUT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._limits.seconds(self._limit))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        limits = _limits.get()
        self.fp = limits.watch(io.BufferedReader(_Reader(self.fp.detach(), sock, limits)))


class _Connection(HTTPConnection):
    response_class = _Response
    _peer = ""

    def _new_conn(self) -> socket.socket:
        limits = _limits.get()
        host = self._dns_host.strip("[]")
        addresses = look_up(host, limits.read_seconds)
        if not self.proxy:  # the user chose the proxy, so its address is not checked
            addresses = _allowed(host, addresses, limits)
        return self._open(host, self.port, addresses, limits)

    def _open(self, host: str, port: int, addresses: list[str], limits: RequestLimits) -> socket.socket:
        limit = float(self.timeout or CONNECT_TIMEOUT)
        failure: OSError | None = None
        for address in addresses:
            try:
                sock = create_connection(
                    (address, port), limits.seconds(limit), socket_options=self.socket_options
                )
            except OSError as error:
                failure = error
                continue
            try:
                self._peer = str(sock.getpeername()[0])
                self._check_peer(limits)
                sock.settimeout(limits.seconds(limit))
            except BaseException:
                sock.close()
                raise
            return sock
        raise failure or OSError(f"{host} has no address")

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # a reused connection, perhaps opened under other limits
            self._check_peer(_limits.get())
        super().request(*args, **kwargs)

    def _check_peer(self, limits: RequestLimits) -> None:
        if not self.proxy:
            limits.check(self.host.strip("[]"), self._peer)


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _SocksConnection(_Connection):
    socks: ClassVar[Proxy]

    def _new_conn(self) -> socket.socket:
        limits = _limits.get()
        proxy = urlsplit(self.socks.url)
        assert proxy.hostname and proxy.port
        try:
            addresses = look_up(proxy.hostname, limits.read_seconds)
            sock = self._open(proxy.hostname, proxy.port, addresses, limits)
            try:
                connect(self.socks, self._target(limits), self.port, sock.sendall, partial(_receive, sock, limits))
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise ProxyError("it cannot be used", error) from error
        return sock

    def _target(self, limits: RequestLimits) -> str:
        """Return what to ask the proxy for: an address with socks5://, the host name with socks5h://."""
        host = self._dns_host.strip("[]")
        found = [] if self.socks.scheme == "socks5h" else _addresses_here(host, limits.connect_seconds)
        return next(iter(_allowed(host, found, limits)), host)

    def _check_peer(self, limits: RequestLimits) -> None:
        """Check nothing: the peer is the proxy, which the user chose."""


def _receive(sock: socket.socket, limits: RequestLimits, size: int) -> bytes:
    data = b""
    while len(data) < size:
        sock.settimeout(limits.read_seconds)
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError("it closed the connection")
        data += more
    return data


def _socks_manager(url: str, connections: int, kept: int) -> PoolManager:
    """Return the pool of connections through a SOCKS proxy."""
    scheme, _, authority = url.partition("://")

    class Connection(_SocksConnection):
        socks = Proxy(scheme, authority, "")

    class SecureConnection(Connection, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    manager = PoolManager(connections, maxsize=kept)
    manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
    return manager


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _allowed(host: str, addresses: list[str], limits: RequestLimits) -> list[str]:
    """Return the addresses of a host that the limits allow.

    Raises:
        InputError: of kind `blocked`: none of its addresses is allowed.
    """
    allowed = [address for address in addresses if limits.allow_private or is_public(address)]
    if addresses and not allowed:
        limits.check(host, addresses[0])
    return allowed
