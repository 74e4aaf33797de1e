"""Limit the memory of the decoding process, and return freed memory to the system."""

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
"""What a library may take for each thread that it starts: a stack, mostly."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers of them, in malloc.h
_LARGE_BLOCK = 4 * 2**20
_KEPT = 64 * 2**20
_lock = threading.RLock()


@contextmanager
def limited(extra: int) -> Iterator[None]:
    """Let the whole process take so many more bytes of memory, and no more: beyond them allocations fail.

    What fails raises MemoryError, or whatever a library makes of it: see `is_shortage`. Libraries that are needed
    must be imported before. Where the system has no such limit (it is Linux's), there is none.
    """
    taken = _taken()
    if taken is None:
        yield
        return
    import resource

    wanted = taken + extra + (os.cpu_count() or 1) * _THREAD_BYTES
    with _lock:  # of two at once, the second would keep the first one's limit for good
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        _limit_data(wanted, soft, hard)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def limit(extra: int) -> None:
    """Let the whole process take so many more bytes than it has now, from now on: until the next call of this."""
    taken = _taken()
    if taken is not None:
        import resource

        _limit_data(taken + extra, resource.getrlimit(resource.RLIMIT_DATA)[1])


def return_large_blocks() -> None:
    """Have each large block go back to the system when it is freed, where the C library is glibc.

    By default it learns from the first large image to keep such blocks, and what lies between them holds them
    there: over a long run with images of many sizes the process would grow.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)


def is_shortage(error: BaseException) -> bool:
    """Tell a lack of memory, by its words too: torch and ONNX Runtime have no error of their own for it."""
    text = str(error)
    return isinstance(error, MemoryError) or bool(
        re.search(r"(?i)alloc\b|allocat|out of memory|available memory of \d+ is smaller", text)
    )


def usable() -> int | None:
    """Return how many bytes of memory this process may have at the most; None where that is not known."""
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
    """Return the bytes that this process has, as RLIMIT_DATA counts them; None where that cannot be told."""
    try:
        import resource

        return int(_STATUS.read_text(encoding="ascii").split()[_DATA]) * resource.getpagesize()
    except (ImportError, OSError):
        return None


def _limit_data(wanted: int, *limits: int) -> None:
    """Set the limit, unless one of the others, the last of them the hard one, is lower."""
    import resource

    finite = [bound for bound in limits if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *finite]), limits[-1]))
