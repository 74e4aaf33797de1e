"""Fetching a URL into memory, within bounds."""

from __future__ import annotations

from urllib.parse import urlsplit

from resnetd_cli.errors import ErrorKind, InputError, innermost

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection."""
READ_TIMEOUT = 20.0
"""Seconds to wait for the next bytes."""
MAX_BYTES = 256 * 2**20
TIMEOUT = 60.0
"""Seconds that one input may take."""
CONNECTIONS = 8
"""URLs fetched at once."""
_CHUNK = 2**16


def is_url(text: str) -> bool:
    """Tell whether the text is meant as a URL, of whatever scheme."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum()


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    typed: bool = True,
    allow_private_hosts: bool = False,
) -> bytes:
    """Return the body of an http(s) URL.

    Args:
        url: what to fetch.
        max_bytes: beyond which it is `too_large`.
        timeout: seconds that it may take in all.
        typed: the user wrote the URL, so that it may lead to a private address; a redirect may not.
        allow_private_hosts: URLs of others and redirects may, too.

    Raises:
        InputError: of kind `blocked` (not http(s), or malformed), `connection`, `timeout`, `http_status`,
            `too_large` or `empty`.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https"):
            raise InputError(
                ErrorKind.BLOCKED, f"{parts.scheme}:// is not fetched", hint="http:// and https:// are"
            )
        if not parts.hostname:
            raise InputError(ErrorKind.BLOCKED, "the URL names no host", hint="write it as https://HOST/PATH")
    except ValueError as error:
        raise InputError(
            ErrorKind.BLOCKED, f"malformed URL: {error}", hint="write it as https://HOST/PATH"
        ) from error

    import requests

    try:
        with requests.get(
            url,
            stream=True,
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            headers={"User-Agent": "resnetd", "Accept-Encoding": "identity"},
        ) as response:
            if response.status_code >= 400:
                status = f"{response.status_code} {response.reason or ''}".rstrip()
                raise InputError(
                    ErrorKind.HTTP_STATUS, f"the server answered {status}", hint="open it in a browser"
                )
            body = _read(response, max_bytes)
    except (requests.RequestException, OSError, ValueError) as error:
        raise _input_error(error, parts.hostname) from error
    if not body:
        raise InputError(ErrorKind.EMPTY, "the server sent zero bytes", hint="open it in a browser")
    return body


def too_many_bytes(bound: int, size: int | None = None) -> InputError:
    """Return the error of an input of more bytes than the bound: of so many, or of some number beyond it."""
    message = f"more than {bound:,} bytes" if size is None else f"{size:,} bytes, more than {bound:,}"
    return InputError(ErrorKind.TOO_LARGE, message, hint="--max-bytes raises the bound")


def _read(response: object, max_bytes: int) -> bytes:
    """Read the body up to the bound; a body shorter than announced is a broken connection."""
    import requests

    assert isinstance(response, requests.Response)
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_many_bytes(max_bytes, int(announced))
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise too_many_bytes(max_bytes)
    return bytes(body)


def _input_error(error: Exception, host: str) -> InputError:
    import requests

    cause = innermost(error)
    if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        return InputError(ErrorKind.TIMEOUT, "the server did not answer in time", hint="try again")
    if isinstance(error, ValueError):  # InvalidURL and its like, of requests and of urllib3
        return InputError(ErrorKind.BLOCKED, f"malformed URL: {error}", hint="write it as https://HOST/PATH")
    reason = " ".join(str(getattr(cause, "strerror", None) or cause or type(cause).__name__).split())
    hint = "check the address and the network"
    return InputError(ErrorKind.CONNECTION, f"no answer from {host}: {reason}", hint=hint)
