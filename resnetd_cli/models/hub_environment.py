"""Environment settings for the Hugging Face hub: `HF_*` variables, time-outs, proxies, certificates.

huggingface_hub reads its variables on import and fails on some common spellings, so they are normalised first.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from resnetd_cli.errors import UsageError
from resnetd_cli.system.distribution import how_to_install
from resnetd_cli.system.files import cache_dir

if TYPE_CHECKING:
    import httpx

    from resnetd_cli.net.proxies import Proxy

ENDPOINT, TOKEN = "HF_ENDPOINT", "HF_TOKEN"
ETAG_TIMEOUT, DOWNLOAD_TIMEOUT = "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"
CACHE = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
_ON, _OFF = ("1", "on", "yes", "true", "y", "t"), ("0", "off", "no", "false", "n", "f")
_found: dict[str, UsageError] = {}
"""Errors of the variables that were unset because they are invalid."""


def put_in_order() -> None:
    """Normalise the hub's variables for huggingface_hub, and unset those that are invalid.

    Call it before anything imports huggingface_hub, as timm does. `check` reports what was invalid.
    """
    readers: dict[str, Callable[[str, str], str]] = {
        ENDPOINT: _endpoint,
        ETAG_TIMEOUT: _seconds,
        DOWNLOAD_TIMEOUT: _seconds,
        TOKEN: _token,
        **dict.fromkeys(_SWITCHES, _switch),
        **dict.fromkeys(CACHE, lambda _, value: value),
    }
    for variable, read in readers.items():
        value = os.environ.get(variable)
        if value is None:
            continue
        _found.pop(variable, None)
        value = value.strip()
        try:
            value = value and read(variable, value)
        except UsageError as error:
            _found[variable] = error
            value = ""
        if value:
            os.environ[variable] = value
        else:  # empty, which some libraries take for the current folder
            del os.environ[variable]
    if os.path.expanduser("~") == "~" and not any(name in os.environ for name in CACHE):  # noqa: PTH111
        os.environ["HF_HOME"] = str(cache_dir() / "huggingface")  # not a folder named ~


def check() -> None:
    """Check the hub's variables.

    Raises:
        UsageError: one is invalid.
    """
    put_in_order()
    for error in _found.values():
        raise error


def connect() -> None:
    """Make huggingface_hub use the proxy and certificates of the environment, whichever HTTP library it uses.

    Raises:
        UsageError: a setting in the environment is invalid.
    """
    check()
    _use_our_client()
    from huggingface_hub import constants

    from resnetd_cli.net.proxies import certificates, proxy_for

    way = proxy_for(constants.ENDPOINT)
    if way and way.is_socks:
        _need_socks(way)
    if constants.ENDPOINT.startswith("https:"):
        certificates()


def shown() -> str:
    """Return the hub's address for error messages, with the variable that sets it, if any."""
    from huggingface_hub import constants

    endpoint = without_password(constants.ENDPOINT)
    return f"{endpoint} ({ENDPOINT})" if os.environ.get(ENDPOINT) else endpoint


def timeouts() -> tuple[float, float] | None:
    """Return the time-outs for a file's metadata and for its next bytes, in seconds.

    None if neither variable is set; if only one is, the other has huggingface_hub's default.
    """
    put_in_order()
    given = os.environ.get(ETAG_TIMEOUT), os.environ.get(DOWNLOAD_TIMEOUT)
    if not any(given):
        return None
    from huggingface_hub import constants

    defaults = constants.DEFAULT_ETAG_TIMEOUT, constants.DEFAULT_DOWNLOAD_TIMEOUT
    return float(given[0] or defaults[0]), float(given[1] or defaults[1])


@cache
def _use_our_client() -> None:
    from huggingface_hub import set_client_factory

    set_client_factory(_client)


def _client() -> httpx.Client:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils._http import hf_request_event_hook

    from resnetd_cli.net.proxies import proxy_for

    # The HTTP library of this huggingface_hub: httpx, or a successor.
    base = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    library: Any = importlib.import_module(base.__module__.partition(".")[0])

    class Transport(library.BaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self._kept: dict[tuple[Proxy | None, bool], Any] = {}

        def handle_request(self, request: Any) -> Any:
            key = proxy_for(str(request.url)), request.url.scheme == "https"
            if key not in self._kept:
                self._kept[key] = _transport(library, *key)
            return self._kept[key].handle_request(request)

        def close(self) -> None:
            for transport in self._kept.values():
                transport.close()

    client: httpx.Client = library.Client(
        event_hooks={"request": [hf_request_event_hook]},
        follow_redirects=True,
        timeout=None,
        transport=Transport(),
        trust_env=False,
    )
    return client


def _transport(library: Any, proxy: Proxy | None, is_secure: bool) -> Any:
    import ssl

    from resnetd_cli.net.proxies import certificates

    trust: ssl.SSLContext | bool = True
    named = certificates() if is_secure or (proxy and proxy.scheme == "https") else None
    if named:
        variable, path = named
        try:
            is_folder = os.path.isdir(path)
            trust = ssl.create_default_context(
                cafile=None if is_folder else path, capath=path if is_folder else None
            )
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"{variable}={path}: {error.strerror or error}", hint="it takes a PEM file"
            ) from error
    way = None
    if proxy:
        if proxy.is_socks:
            _need_socks(proxy)
        way = library.Proxy(proxy.url, ssl_context=trust if named and proxy.scheme == "https" else None)
    return library.HTTPTransport(verify=trust, trust_env=False, proxy=way)


def _need_socks(proxy: Proxy) -> None:
    try:
        importlib.import_module("socksio")
    except ImportError as error:
        hint = how_to_install("socks")
        raise UsageError(f"{proxy} uses SOCKS, which needs another package for the hub", hint=hint) from error


def _endpoint(variable: str, value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator:
        rest = value.lstrip("/")
        scheme = "http" if _is_loopback(rest) else "https"
    url = f"{scheme.lower()}://{rest}"
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and parts.port != 0 and not {*" \t<>\"'{}|\\^`"}.intersection(rest)
    except ValueError:
        is_good = False
    if not is_good or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        shown = without_password(value)
        raise UsageError(f"{variable}={shown}: not the address of a hub", hint="write it as https://HOST")
    return url.rstrip("/")


def without_password(url: str) -> str:
    """Return a URL, malformed or not, without its user name and password."""
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _is_loopback(authority: str) -> bool:
    host = urlsplit(f"//{authority}").hostname if authority.count("[") == authority.count("]") else None
    return host in ("localhost", "::1") or (host or "").startswith("127.")


def _seconds(variable: str, value: str) -> str:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e6:
        raise UsageError(f"{variable}={value}: not a number of seconds", hint=f"for example {variable}=60")
    return str(math.ceil(seconds)) if seconds else ""  # huggingface_hub treats 0 as its default


def _switch(variable: str, value: str) -> str:
    word = value.lower()
    if word not in _ON + _OFF:
        raise UsageError(f"{variable}={value}: neither yes nor no", hint=f"{variable}=1, or unset it")
    return "1" if word in _ON else "0"


def _token(variable: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UsageError(
            f"{variable} holds characters that cannot be part of a token", hint="copy the token again, or unset it"
        )
    return value
