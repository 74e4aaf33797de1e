"""Start threads even where the system grants fewer than asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class Pool(ThreadPoolExecutor):
    """Does with the threads that it gets. `submit` raises RuntimeError only where there is not even one."""

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except (
            RuntimeError
        ):  # "can't start new thread": of processes and threads, or of memory, there are too many
            if not self._threads:
                raise
