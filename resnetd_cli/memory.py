"""How this process hands memory back to the system."""

from __future__ import annotations

import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers of them, in malloc.h
_LARGE = 4 * 2**20
_KEPT = 64 * 2**20


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
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
