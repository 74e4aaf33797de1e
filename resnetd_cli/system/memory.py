"""Limit this process's memory (RLIMIT_DATA), recognise out-of-memory errors, and return freed memory."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnetd_cli.system import cgroups

_STATUS = Path("/proc/self/statm")
_DATA = 5
_CONTAINER_LIMITS = ("memory.max", "memory.limit_in_bytes")
_THREAD_BYTES = 2**24
"""Extra bytes for each thread that a library starts, mostly its stack."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from glibc's malloc.h
_LARGE_BLOCK = 4 * 2**20
_KEPT = 64 * 2**20
_lock = threading.RLock()


@contextmanager
def limited(extra: int) -> Iterator[None]:
    """Limit the whole process to this many more bytes of memory; allocations beyond that fail.

    They raise MemoryError, or an error of the library's: see `is_shortage`. Import libraries before. Only Linux
    has this limit.
    """
    taken = _taken()
    if taken is None:
        yield
        return
    import resource

    wanted = taken + extra + (os.cpu_count() or 1) * _THREAD_BYTES
    with _lock:  # otherwise a second thread would save, and restore, the first one's limit
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        _limit_data(wanted, soft, hard)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def limit(extra: int) -> None:
    """Limit the whole process to this many more bytes than it has now, until the next call."""
    taken = _taken()
    if taken is not None:
        import resource

        _limit_data(taken + extra, resource.getrlimit(resource.RLIMIT_DATA)[1])


def return_large_blocks() -> None:
    """Make glibc return each large block to the system when it is freed.

    By default, glibc raises its threshold after the first large image and keeps such blocks. They fragment, and
    the process would grow over a long run with images of many sizes.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means out of memory; torch and ONNX Runtime say so only in the message."""
    text = str(error)
    return isinstance(error, MemoryError) or bool(
        re.search(r"(?i)alloc\b|allocat|out of memory|available memory of \d+ is smaller", text)
    )


def usable() -> int | None:
    """Return the most bytes of memory this process may have (physical memory, cgroup limits); None if unknown."""
    try:
        sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):
        return None
    for name in _CONTAINER_LIMITS:
        for text in cgroups.read("memory", name):
            with suppress(ValueError):  # "max"
                sizes.append(int(text))
    return min(sizes)


def _taken() -> int | None:
    """Return the bytes this process has, as RLIMIT_DATA counts them; None if unknown."""
    try:
        import resource

        return int(_STATUS.read_text(encoding="ascii").split()[_DATA]) * resource.getpagesize()
    except (ImportError, OSError):
        return None


def _limit_data(wanted: int, *limits: int) -> None:
    """Set RLIMIT_DATA to the lowest of these; the last of `limits` is the hard limit."""
    import resource

    finite = [bound for bound in limits if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *finite]), limits[-1]))
