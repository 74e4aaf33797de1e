"""Fetching a URL into memory, within bounds."""

from __future__ import annotations

from urllib.parse import urlsplit

from resnetd_cli.errors import ErrorKind, InputError

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection."""
READ_TIMEOUT = 20.0
"""Seconds to wait for the next bytes."""
MAX_BYTES = 256 * 2**20
_CHUNK = 2**16


def is_url(text: str) -> bool:
    """Tell whether the text is meant as a URL, of whatever scheme."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.replace("+", "").isalnum()


def fetch(url: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the body of an http(s) URL.

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
    except requests.Timeout as error:
        raise InputError(ErrorKind.TIMEOUT, "the server did not answer in time", hint="try again") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise InputError(
            ErrorKind.BLOCKED, f"malformed URL: {error}", hint="write it as https://HOST/PATH"
        ) from error
    except (requests.RequestException, OSError) as error:
        raise InputError(
            ErrorKind.CONNECTION,
            f"no answer from {parts.hostname}: {_reason(error)}",
            hint="check the address and the network",
        ) from error
    if not body:
        raise InputError(ErrorKind.EMPTY, "the server sent zero bytes", hint="open it in a browser")
    return body


def _read(response: object, max_bytes: int) -> bytes:
    """Read the body up to the bound; a body shorter than announced is a broken connection."""
    import requests

    assert isinstance(response, requests.Response)
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise InputError(ErrorKind.TOO_LARGE, f"{int(announced):,} bytes, more than {max_bytes:,}")
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise InputError(ErrorKind.TOO_LARGE, f"more than {max_bytes:,} bytes")
    return bytes(body)


def _reason(error: BaseException) -> str:
    """Return the innermost cause in a few words: requests wraps it in a page of text."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(reason.split())
