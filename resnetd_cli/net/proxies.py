"""Proxies (`HTTPS_PROXY`, `NO_PROXY`, ...) and certificates (`REQUESTS_CA_BUNDLE`, ...) from the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from resnetd_cli.errors import UsageError
from resnetd_cli.net.addresses import bare

_SCHEMES = {"http": "http", "https": "https", "socks": "socks5", "socks5": "socks5", "socks5h": "socks5h"}
"""The protocol of a proxy, by the scheme that people write."""
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and where it is configured.

    Attributes:
        scheme: http, https, socks5 or socks5h.
        authority: its host and port, after a user name and password if it has them.
        variable: the environment variable that sets it; "" if it comes from the system's settings.
    """

    scheme: str
    authority: str
    variable: str

    @property
    def url(self) -> str:
        """Its URL, including the password."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, not HTTP."""
        return self.scheme.startswith("socks")

    def hint(self, reason: str) -> str:
        """Return what to try if the proxy did not answer for this reason."""
        variable = self.variable or "the settings of the system"
        if self.scheme == "https" and "SSL" in reason:
            return f"if the proxy itself does not use TLS, write {variable}=http://HOST:PORT"
        return f"look at {variable} and NO_PROXY"

    def __str__(self) -> str:
        shown = f"{self.scheme}://{self.authority.rpartition('@')[2]}"
        return f"the proxy {shown} ({self.variable or 'of the system'})"


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy to use for a URL, or None.

    Variables are read as in curl and most libraries: lower case wins over upper case, and `ALL_PROXY` applies to
    schemes without a specific proxy. `NO_PROXY` lists names, addresses and networks; `no_proxy` adds to it.

    Raises:
        UsageError: the environment's proxy is malformed or not supported.
    """
    parts = urlsplit(url)
    host = bare(parts.hostname or "").lower()
    port = parts.port or _PORTS.get(parts.scheme)
    exceptions = " ".join(os.environ.get(name, "").strip("'\"") for name in ("no_proxy", "NO_PROXY"))
    if _is_excepted(host, port, exceptions):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        variable, value = _value(name)
        if value:
            return _parse(variable, value)
    system = _of_the_system(parts.scheme, host)
    return _parse("", system) if system else None


def certificates() -> tuple[str, str] | None:
    """Return the variable that names the certificates to trust, and its value; None if none is set.

    Raises:
        UsageError: the file or folder does not exist.
    """
    for variable in _CERTIFICATES:
        value = os.environ.get(variable)
        if not value:
            continue
        if not os.path.exists(value):
            hint = f"name a file of certificates (PEM), or unset {variable}"
            raise UsageError(f"{variable}={value}: no such file or folder", hint=hint)
        return variable, value
    return None


def certificates_hint() -> str:
    """Return what to try when a server's certificate cannot be verified."""
    try:
        named = certificates()
    except UsageError as error:
        return error.message
    if named:
        return f"the certificates are those of {named[0]}={named[1]}"
    return "behind a proxy that opens https, name its certificates: REQUESTS_CA_BUNDLE=FILE"


def _value(name: str) -> tuple[str, str]:
    """Return the variable that is set, lower case first, and its value."""
    spellings = [name, name.upper()]
    if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
        spellings.pop()  # in a CGI script, HTTP_PROXY is the client's `Proxy:` header (httpoxy)
    for spelling in spellings:
        if spelling in os.environ:
            return spelling, os.environ[spelling].strip().strip("'\"")
    return name, ""


def _of_the_system(scheme: str, host: str) -> str | None:
    if sys.platform not in ("darwin", "win32"):
        return None
    from urllib.request import getproxies, proxy_bypass

    return None if proxy_bypass(host) else getproxies().get(scheme)


def _parse(variable: str, value: str) -> Proxy:
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value.lstrip("/")
    named = variable or "the system's proxy"
    if scheme.lower() not in _SCHEMES:
        hint = "http://HOST:PORT, https://HOST:PORT and socks5://HOST:PORT are supported"
        raise UsageError(f"{named}: {scheme}:// proxies are not supported", hint=hint)
    scheme = _SCHEMES[scheme.lower()]
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname, parts.port or _PORTS[scheme]
    except ValueError:
        host, port = None, 0
    # An unescaped # or / in a password ends the authority too early.
    if not host or "@" in parts.path + parts.query + parts.fragment:
        hint = "write it as http://HOST:PORT; in a password, %23 stands for #, %2F for / and %40 for @"
        raise UsageError(f"{named} is malformed", hint=hint)
    name, at, _ = parts.netloc.rpartition("@")
    return Proxy(scheme, f"{name}{at}{f'[{host}]' if ':' in host else host}:{port}", variable)


def _is_excepted(host: str, port: int | None, exceptions: str) -> bool:
    return any(_matches(entry.lower(), host, port) for entry in re.split(r"[,;\s]+", exceptions) if entry)


def _matches(entry: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY matches a host."""
    entry = entry.rpartition("://")[2]
    if entry.startswith("["):
        entry, _, rest = entry[1:].partition("]")
        length, _, wanted = rest.partition(":")
        entry += length
    else:
        wanted = ""
        if entry.count(":") == 1:
            entry, _, wanted = entry.partition(":")
    if wanted and wanted != str(port):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass  # one of them is a name
    name = entry.rstrip(".")
    if name.startswith(("*.", ".")):
        name = name.lstrip("*.")
    return bool(name) and (host == name or host.endswith(f".{name}") or fnmatchcase(host, name))
