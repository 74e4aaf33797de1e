"""A thread pool that works with fewer threads if the system refuses more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class Pool(ThreadPoolExecutor):
    """Makes do with the threads it gets. `submit` raises RuntimeError only if there are none."""

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # "can't start new thread": a limit on processes, threads or memory is reached
            if not self._threads:
                raise
