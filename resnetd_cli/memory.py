"""Bounds on the memory that reading what strangers wrote may take."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS = Path("/proc/self/statm")
_DATA = 5
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_THREAD_BYTES = 2**24
"""What a library may take for each thread that it starts: a stack, mostly."""
_lock = threading.RLock()


@contextmanager
def limited(extra: int) -> Iterator[None]:
    """Let the whole process take so many more bytes of memory, and no more: beyond them allocations fail.

    What fails raises MemoryError, or whatever a library makes of it: see `is_shortage`. Libraries that are needed
    must be imported before. Where the system has no such limit (it is Linux's), there is none.
    """
    try:
        import resource

        taken = int(_STATUS.read_text(encoding="ascii").split()[_DATA]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    wanted = taken + extra + (os.cpu_count() or 1) * _THREAD_BYTES
    with _lock:  # of two at once, the second would keep the first one's limit for good
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *limits]), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


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
    for path in _CONTAINER_LIMITS:
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii")))
    return min(sizes)
