"""Resolve host names (DNS), and tell public IP addresses from private ones."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from functools import lru_cache

_SPECIAL_V4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # shared by a provider's customers (carrier-grade NAT)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local, and the metadata services of clouds
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments; its anycast addresses reach the nearest router
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # 6to4 relays, abandoned
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
)
_SPECIAL_V6 = (
    "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
    "2001:db8::/32",  # documentation
    "3fff::/20",  # documentation
)
"""Networks that are not public: IANA's special-purpose registries as of 2025-10-09, multicast and reserved ranges.

https://www.iana.org/assignments/iana-ipv4-special-registry/ and .../iana-ipv6-special-registry/. This is our own
copy because the one in `ipaddress` is only as recent as the Python release.
"""
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
"""IANA allocates public addresses only from this range."""
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""The prefix of IPv4 addresses translated by a NAT64 gateway."""
_ISATAP = (0x5EFE, 0x02005EFE)
"""The 32 bits before the IPv4 address in an ISATAP interface identifier."""
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet: not private, loopback, multicast or reserved.

    An IPv6 address that embeds an IPv4 address is public only if the embedded address is.

    Raises:
        ValueError: it is not an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return not _is_in(ip, _SPECIAL_V4)
    inner = _inner(ip)
    if inner is not None and not is_public(str(inner)):
        return False
    if ip.ipv4_mapped or ip in _TRANSLATED:
        return True
    return ip in _UNICAST_V6 and not _is_in(ip, _SPECIAL_V6)


def is_local_name(host: str) -> bool:
    """Return whether a name always means the local machine, such as `localhost`."""
    name = host.lower().rstrip(".")
    return name in _LOCAL_NAMES or name.endswith(".localhost")


def bare(host: str) -> str:
    """Return a URL's host without brackets, zone and trailing dots, none of which change what it refers to."""
    return host.strip("[]").partition("%")[0].rstrip(".")


def look_up(host: str, seconds: float) -> list[str]:
    """Return the IP addresses of a host, in the order to try them.

    Args:
        host: a name, or an address in any spelling the system accepts.
        seconds: the longest time to wait.

    Raises:
        OSError: the name does not exist, or there was no answer in time (TimeoutError).
        UnicodeError: it is not a valid host name.
    """
    try:
        return _addresses(host, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # a name
    # In a separate thread, because getaddrinfo takes no timeout.
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


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address embedded in an IPv6 address: mapped, 6to4, NAT64 or ISATAP."""
    if found := ip.ipv4_mapped or ip.sixtofour:
        return found
    if ip in _TRANSLATED or int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def _is_in(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: tuple[str, ...]) -> bool:
    return any(ip in network for network in _parsed(networks))


@lru_cache
def _parsed(networks: tuple[str, ...]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(network) for network in networks]


def _addresses(host: str, flags: int = 0) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
