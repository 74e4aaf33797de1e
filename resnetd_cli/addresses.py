"""Where a host's name leads, and whether that is the public internet."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as a NAT64 gateway takes them."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet: not of a private network, this host or a group.

    Raises:
        ValueError: it is not an IP address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def look_up(host: str, seconds: float) -> list[str]:
    """Return the IP addresses of a host, in the order in which to try them.

    Args:
        host: a name, or an address in any spelling that the system takes.
        seconds: how long it may take.

    Raises:
        OSError: there is no such name, or no answer in time (TimeoutError).
        UnicodeError: it cannot be a name.
    """
    try:
        return _addresses(host, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # a name
    # In a thread of its own: nothing else ends a look-up before the system gives it up.
    answer: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(_addresses(host))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, name="resnetd-lookup", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"the look-up of {host} took too long") from None
    if isinstance(found, Exception):
        raise found
    return found


def _addresses(host: str, flags: int = 0) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
