"""Raise the limit on open files (`ulimit -n`) if it is too low."""

from __future__ import annotations

from contextlib import suppress

from resnetd_cli.errors import ResnetdError

_OPEN_FILES = 64
_LEAST_OPEN_FILES = 16
"""With fewer, libraries fail in the middle of their own start, and say so in many words."""


def check() -> None:
    """Make sure that enough files may be open at once, raising the bound if that is allowed.

    Raises:
        ResnetdError: it is not.
    """
    try:
        import resource
    except ImportError:  # Windows has no such bound
        return
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= _OPEN_FILES:
        return
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        allowed = wanted
    if allowed < _LEAST_OPEN_FILES:
        message = f"only {allowed} files may be open at once, {_LEAST_OPEN_FILES} are the least"
        raise ResnetdError(message, hint="ulimit -n 1024 allows more")
