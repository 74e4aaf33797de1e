"""Retry HTTP requests: after which responses, how often, and how long to wait (backoff, `Retry-After`)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from resnetd_cli.errors import ErrorKind, InputError, Reason, innermost
from resnetd_cli.system.deadline import Deadline

if TYPE_CHECKING:
    from requests import Response

TRIES = 3
"""Requests for one URL, retries included."""
FIRST_PAUSE = 0.5
"""Seconds before the first retry; each pause is twice as long as the one before."""
STATUSES = frozenset({429, 500, 502, 503, 504})
"""Responses that are worth a retry."""
_retry_after_ends: dict[str, Deadline] = {}
"""Hosts that sent `Retry-After`, and until when they are not to be asked."""


def send_with_retries(send: Callable[[], Response], host: str, deadline: Deadline) -> Response:
    """Send a request, with retries, and return the response; if all tries fail with a status, the last one.

    Args:
        send: sends the request once.
        host: the host it goes to. Nothing is sent until the host's `Retry-After` is over.
        deadline: when to give up. There is no retry that could only start after it.

    Raises:
        InputError: of kind `http_status`: the host's `Retry-After` is later than the deadline.
        requests.RequestException: there was no response.
    """
    import requests

    for tries in range(1, TRIES + 1):
        _wait(retry_after_left(host), deadline, "the server")
        wait = _pause(tries)
        is_last = tries == TRIES or wait >= deadline.left
        try:
            response = send()
        except requests.ConnectionError as error:
            if is_last or not _is_broken(error):
                raise
        else:
            asked = _retry_after(response) if response.status_code in STATUSES else 0.0
            _note_retry_after(host, asked)
            if asked and asked >= deadline.left:
                response.close()
                _wait(asked, deadline, f"the server answered {status_of(response)} and")
            if is_last or response.status_code not in STATUSES:
                return response
            response.close()
            wait = max(wait, asked)
        time.sleep(min(wait, deadline.left))
    raise AssertionError("the last try returns or raises")


def retry_after_left(host: str) -> float:
    """Return the seconds left of a host's `Retry-After`."""
    end = _retry_after_ends.get(host)
    return end.left if end else 0.0


def status_of(response: Response) -> str:
    """Return a response's status for messages: `404 Not Found`."""
    return " ".join(f"{response.status_code} {response.reason or ''}".split())


def _wait(seconds: float, deadline: Deadline, who: str) -> None:
    if seconds and seconds >= deadline.left:
        raise InputError(
            ErrorKind.HTTP_STATUS,
            f"{who} asks for a wait of {seconds:,.0f} s, longer than the time left",
            reason=Reason.SERVER_BUSY,
        )
    time.sleep(seconds)


def _is_broken(error: Exception) -> bool:
    """Return whether the connection was refused, or broke before the response."""
    return isinstance(innermost(error), ConnectionError)


def _pause(tries: int) -> float:
    # With jitter, so that requests that failed together are not retried together.
    return FIRST_PAUSE * 2.0 ** (tries - 1) * random.uniform(1.0, 1.25)  # noqa: S311


def _retry_after(response: Response) -> float:
    """Return the seconds in a response's `Retry-After`; 0 without one."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return float(Retry().parse_retry_after(response.headers.get("Retry-After", "0")))
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _note_retry_after(host: str, seconds: float) -> None:
    if seconds > retry_after_left(host):
        _retry_after_ends[host] = Deadline(seconds)
