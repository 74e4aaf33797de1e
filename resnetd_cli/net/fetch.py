"""Fetch a URL into memory: redirects, limits on bytes and time, and error messages."""

from __future__ import annotations

import io
import re
import string
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from resnetd_cli.errors import ErrorKind, InputError, Reason, first_line, innermost
from resnetd_cli.net.inflating import codings, inflate
from resnetd_cli.system.deadline import Deadline

if TYPE_CHECKING:
    from requests import Response

    from resnetd_cli.net.connections import RequestLimits

MAX_BYTES = 256 * 2**20
TIMEOUT = 60.0
"""Seconds to spend on one input."""
CONNECTIONS = 8
"""URLs fetched at once."""
HOST_CONNECTIONS = 4
"""URLs fetched at once from one host."""
MAX_REDIRECTS = 10
AROUND_URLS = string.whitespace + "\u00a0\u200b\ufeff\"'"
"""Characters often copied along with a URL, or found around URLs in lists."""
_CHUNK = 2**16
_HEADERS = {"User-Agent": "resnetd", "Accept-Encoding": "identity"}
_NOT_IN_HOSTS = frozenset(' "#%/<>?@[\\]^`{|}') | frozenset(map(chr, range(0x20))) | {"\x7f"}
_PROXY_WANTS_PASSWORD = 407
_OF_CERTIFICATES = re.compile(r"CERTIFICATE|X509|PEM")
_FORM = "write it as https://HOST/PATH"


def is_url(text: str) -> bool:
    """Return whether the text looks like a URL, with any scheme."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum()


def bare_url(text: str) -> str:
    """Return a URL without surrounding white space and quotation marks; any other text unchanged."""
    bare = text.strip(AROUND_URLS)
    return bare if is_url(bare) else text


def host_of(url: str) -> str:
    """Return the host in a URL, "" if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def without_secrets(url: str) -> str:
    """Return a URL without user name and password, so that errors can show it."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return scheme + separator + authority.rpartition("@")[2] + slash + path


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    typed: bool = True,
    allow_private_hosts: bool = False,
) -> bytes:
    """Return the body of an http(s) URL.

    Requests are retried a few times if the server is busy or drops the connection. Redirects are followed.

    Args:
        url: what to fetch.
        max_bytes: the most bytes to accept; more are `too_large`.
        timeout: the total time allowed, in seconds.
        typed: the user typed this URL, so it may point to a private address. Its redirects may not.
        allow_private_hosts: redirects and URLs from lists may point to private addresses, too.

    Raises:
        InputError: of kind `blocked` (not http(s), malformed, or private), `connection`, `timeout`,
            `http_status`, `too_large` or `empty`.
    """
    _check(url)

    from resnetd_cli.net.connections import RequestLimits

    deadline = Deadline(timeout)
    limits = RequestLimits(deadline, typed or allow_private_hosts)
    visit = _Visit()
    for _ in range(MAX_REDIRECTS + 1):
        try:
            with closing(limits), visit.get(url, limits) as response:
                target = visit.target(response)
                if target is None:
                    return _body(response, max_bytes, deadline)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # from requests, urllib3, the standard library or the system
            raise _input_error(error, url, deadline) from error
        url, limits = target, RequestLimits(deadline, allow_private_hosts)
        _check(url)
    raise InputError(ErrorKind.CONNECTION, f"more than {MAX_REDIRECTS} redirects", hint="open it in a browser")


def too_many_bytes(bound: int, size: int | None = None) -> InputError:
    """Return the error for an input larger than the bound. `size`: its bytes, if known."""
    message = f"more than {bound:,} bytes" if size is None else f"{size:,} bytes, more than {bound:,}"
    return InputError(ErrorKind.TOO_LARGE, message, reason=Reason.TOO_MANY_BYTES)


class _Visit:
    """The requests of one fetch: the first one and its redirects, which share a session."""

    def __init__(self) -> None:
        import requests

        # Only for cookies and redirects. Its own `send` would read whole redirect bodies and consult ~/.netrc.
        self._session = requests.Session()
        self._auth: tuple[bytes, bytes] | None = None

    def get(self, url: str, limits: RequestLimits) -> Response:
        """Request one URL and return the response with its body unread.

        Raises:
            InputError: see `fetch`.
            Exception: whatever requests and urllib3 raise.
        """
        import requests
        from requests.utils import get_auth_from_url

        from resnetd_cli.net.connections import send
        from resnetd_cli.net.retries import send_with_retries

        name, password = get_auth_from_url(url)
        if name or password:
            self._auth = name.encode(), password.encode()
        cookies = self._session.cookies
        request = requests.Request("GET", url, headers=_HEADERS, cookies=cookies, auth=self._auth).prepare()
        host = host_of(str(request.url))
        response = send_with_retries(lambda: send(request, limits), host, limits.deadline)
        cookies.update(response.cookies)
        return response

    def target(self, response: Response) -> str | None:
        """Return where a response redirects to, or None; a redirect to another site drops the password."""
        location = self._session.get_redirect_target(response)
        if location is None:
            return None
        target = urljoin(response.url, location.strip())
        if self._session.should_strip_auth(response.url, target):  # type: ignore[no-untyped-call]
            self._auth = None
        return target


def _check(url: str) -> None:
    """Check the form of a URL before anything is looked up or sent."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _malformed(error, url) from error
    if parts.scheme.lower() not in ("http", "https"):
        raise InputError(
            ErrorKind.BLOCKED, f"{parts.scheme}: URLs are not fetched", hint="http:// and https:// are"
        )
    if not parts.hostname:
        raise InputError(ErrorKind.BLOCKED, "the URL names no host", hint=_FORM)
    # Libraries disagree on these characters, and some crash on them.
    if ":" not in parts.hostname and (odd := sorted(_NOT_IN_HOSTS.intersection(parts.hostname))):
        raise InputError(ErrorKind.BLOCKED, f"malformed URL: {odd[0]!r} in the name of the host", hint=_FORM)


def _body(response: Response, max_bytes: int, deadline: Deadline) -> bytes:
    if response.status_code >= 400:
        from resnetd_cli.net.proxies import proxy_for
        from resnetd_cli.net.retries import status_of

        proxy = proxy_for(response.url) if response.status_code == _PROXY_WANTS_PASSWORD else None
        who, hint = (proxy, "http://NAME:PASSWORD@HOST:PORT") if proxy else ("the server", "open it in a browser")
        raise InputError(ErrorKind.HTTP_STATUS, f"{who} answered {status_of(response)}", hint=hint)
    announced = response.raw.length_remaining
    if announced is not None and announced > max_bytes:
        raise too_many_bytes(max_bytes, announced)
    body = io.BytesIO()  # grows and returns its bytes without a second copy
    for chunk in _chunks(response, max_bytes, deadline):
        if body.tell() + len(chunk) > max_bytes:
            raise too_many_bytes(max_bytes)
        body.write(chunk)
    if not body.tell():
        raise InputError(ErrorKind.EMPTY, "the server sent zero bytes", hint="open it in a browser")
    return body.getvalue()


def _chunks(response: Response, max_bytes: int, deadline: Deadline) -> Iterator[bytes]:
    """Yield the bytes of a body, decompressed; `max_bytes` bounds each layer of compression."""
    chunks: Iterator[bytes] = response.raw.stream(_CHUNK, decode_content=False)
    for coding in codings(response.headers.get("Content-Encoding", "")):
        chunks = inflate(chunks, coding, _meter(max_bytes, deadline))
    return chunks


def _meter(max_bytes: int, deadline: Deadline) -> Callable[[int], None]:
    total = 0

    def tick(count: int) -> None:
        nonlocal total
        total += count
        if total > max_bytes:
            raise too_many_bytes(max_bytes)
        if deadline.passed:
            raise TimeoutError("the deadline has passed")

    return tick


def _input_error(error: Exception, url: str, deadline: Deadline) -> InputError:
    import ssl

    import requests

    from resnetd_cli.net.proxies import certificates_hint, proxy_for

    cause = innermost(error)
    if deadline.passed:
        return InputError(ErrorKind.TIMEOUT, f"it took longer than {deadline.seconds:g} s", reason=Reason.TOO_SLOW)
    if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        return InputError(ErrorKind.TIMEOUT, "the server did not answer in time", reason=Reason.SERVER_TOO_SLOW)
    # InvalidURL and similar errors of requests and urllib3, and failed assertions of http.client.
    if isinstance(error, (ValueError, AssertionError)) and not isinstance(
        error, requests.exceptions.InvalidHeader
    ):
        return _malformed(error, url)
    if broken := _broken_body(error):
        return InputError(ErrorKind.CONNECTION, f"{host_of(url)} {broken}", hint="try again")
    reason = " ".join(str(getattr(cause, "strerror", None) or cause or type(cause).__name__).split())
    who, hint = host_of(url), "check the address and the network"
    if isinstance(error, requests.exceptions.ProxyError) and (proxy := proxy_for(url)):
        who, hint = str(proxy), proxy.hint(reason)
    elif isinstance(cause, ssl.SSLError) and _OF_CERTIFICATES.search(str(cause)):
        hint = certificates_hint()
    return InputError(ErrorKind.CONNECTION, f"no answer from {who}: {reason}", hint=hint)


def _broken_body(error: Exception) -> str | None:
    """Return in words how a server broke off its response; None for other errors."""
    from http.client import IncompleteRead

    from urllib3.exceptions import InvalidChunkLength, ProtocolError

    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, InvalidChunkLength) for cause in causes):
        return "sent invalid HTTP: a chunk without a valid length"
    broken = next((cause for cause in causes if isinstance(cause, IncompleteRead)), None)
    # urllib3 counts the bytes of the whole body; the standard library knows only those of one chunk.
    if broken and isinstance(broken.partial, int) and broken.expected is not None:
        return f"ended the answer early: {broken.partial:,} of {broken.partial + broken.expected:,} bytes came"
    if broken or (isinstance(error, ProtocolError) and isinstance(error.__context__, ValueError)):
        return "ended the answer early"
    return None


def _malformed(error: Exception, url: str) -> InputError:
    # These messages repeat the URL, which may contain a password.
    detail = "" if "@" in url else f": {first_line(error)}"
    return InputError(ErrorKind.BLOCKED, f"malformed URL{detail}", hint=_FORM)
