"""Raise the limit on open files (`ulimit -n`) if it is too low."""

from __future__ import annotations

from contextlib import suppress

from resnetd_cli.errors import ResnetdError

_OPEN_FILES = 64
_LEAST_OPEN_FILES = 16
"""With fewer, libraries fail in the middle of their imports, with long tracebacks."""


def check() -> None:
    """Make sure that enough files can be open at once, by raising the limit if necessary.

    Raises:
        ResnetdError: the system does not allow that.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= _OPEN_FILES:
        return
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        allowed = wanted
    if allowed < _LEAST_OPEN_FILES:
        message = f"only {allowed} files may be open at once, but {_LEAST_OPEN_FILES} are needed"
        raise ResnetdError(message, hint="ulimit -n 1024 allows more")
