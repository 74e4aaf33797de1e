"""Connect through a SOCKS 5 proxy (RFC 1928 and RFC 1929)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import unquote

from resnetd_cli.net.proxies import Proxy

_VERSION, _LOGIN_VERSION = 5, 1
_NO_LOGIN, _LOGIN = 0, 2
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_LENGTHS = {_IPV4: 4, _IPV6: 16}
_LONGEST = 255
_REFUSALS = {
    1: "it failed",
    2: "it does not allow the connection",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the connection was refused",
    6: "it took too long",
}


def connect(
    proxy: Proxy, host: str, port: int, send: Callable[[bytes], object], receive: Callable[[int], bytes]
) -> None:
    """Ask a proxy to connect to a host: whatever is sent afterwards reaches that host.

    Args:
        proxy: the proxy, with user name and password if it has them.
        host: a name or an IP address.
        port: the host's port.
        send: sends bytes to the proxy.
        receive: returns exactly this many bytes from the proxy.

    Raises:
        OSError: the proxy refuses or does not speak SOCKS 5.
    """
    name, _, password = (unquote(part) for part in proxy.authority.rpartition("@")[0].partition(":"))
    methods = [_NO_LOGIN, _LOGIN] if name else [_NO_LOGIN]
    send(bytes([_VERSION, len(methods), *methods]))
    version, method = receive(2)
    if version != _VERSION:
        raise OSError("it does not answer in SOCKS 5")
    if method == _LOGIN and name:
        send(bytes([_LOGIN_VERSION]) + _counted(name.encode()) + _counted(password.encode()))
        if receive(2)[1]:
            raise OSError("it does not know the name and password")
    elif method != _NO_LOGIN:
        raise OSError("it asks for a name and a password")
    send(bytes([_VERSION, _CONNECT, 0]) + _address(host) + port.to_bytes(2, "big"))
    _, refusal, _, kind = receive(4)
    if refusal:
        raise OSError(_REFUSALS.get(refusal, f"it answered {refusal}"))
    receive((_LENGTHS.get(kind) or receive(1)[0]) + 2)  # the address that the proxy connects from


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes([_NAME]) + _counted(host.encode())
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _counted(text: bytes) -> bytes:
    if len(text) > _LONGEST:
        raise OSError(f"names of more than {_LONGEST} bytes cannot be sent to it")
    return bytes([len(text)]) + text
