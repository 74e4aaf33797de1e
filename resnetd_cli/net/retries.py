"""Retry requests: after which answers, how often, and how long to wait (`Retry-After`)."""

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
"""How often an address is asked in all."""
FIRST_PAUSE = 0.5
"""Seconds before the second try; each pause is twice the one before."""
STATUSES = frozenset({429, 500, 502, 503, 504})
"""Answers that another try may better."""
_resting: dict[str, Deadline] = {}
"""Hosts that asked to be left alone, and until when."""


def ask(send: Callable[[], Response], host: str, deadline: Deadline) -> Response:
    """Return the answer of a host, the last one if each is an error.

    Args:
        send: asks once.
        host: that is asked. While it wants to be left alone, it is.
        deadline: until when that may take. A try that would come after it is not waited for.

    Raises:
        InputError: of kind `http_status`: the host wants to be left alone for longer than is left.
        requests.RequestException: there was no answer.
    """
    import requests

    for tries in range(1, TRIES + 1):
        _wait(rest_left(host), deadline, "the server")
        wait = _pause(tries)
        is_last = tries == TRIES or wait >= deadline.left
        try:
            response = send()
        except requests.ConnectionError as error:
            if is_last or not _is_broken(error):
                raise
        else:
            asked = _retry_after(response) if response.status_code in STATUSES else 0.0
            _leave_alone(host, asked)
            if asked and asked >= deadline.left:
                response.close()
                _wait(asked, deadline, f"the server answered {status_of(response)} and")
            if is_last or response.status_code not in STATUSES:
                return response
            response.close()
            wait = max(wait, asked)
        time.sleep(min(wait, deadline.left))
    raise AssertionError("the last try returns or raises")


def rest_left(host: str) -> float:
    """Return the seconds for which a host is still to be left alone."""
    rest = _resting.get(host)
    return rest.left if rest else 0.0


def status_of(response: Response) -> str:
    """Return an answer's status as it is shown: `404 Not Found`."""
    return " ".join(f"{response.status_code} {response.reason or ''}".split())


def _wait(seconds: float, deadline: Deadline, who: str) -> None:
    if seconds and seconds >= deadline.left:
        raise InputError(
            ErrorKind.HTTP_STATUS,
            f"{who} asks to be left alone for {seconds:,.0f} s, longer than is left",
            reason=Reason.SERVER_BUSY,
        )
    time.sleep(seconds)


def _is_broken(error: Exception) -> bool:
    """Tell whether the connection was refused, or broke before the answer."""
    return isinstance(innermost(error), ConnectionError)


def _pause(tries: int) -> float:
    # Not all the same, so that those who failed together do not come back together.
    return FIRST_PAUSE * 2.0 ** (tries - 1) * random.uniform(1.0, 1.25)  # noqa: S311


def _retry_after(response: Response) -> float:
    """Return the seconds for which a server asks to be left alone; 0 if it does not."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return float(Retry().parse_retry_after(response.headers.get("Retry-After", "0")))
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _leave_alone(host: str, seconds: float) -> None:
    if seconds > rest_left(host):
        _resting[host] = Deadline(seconds)
