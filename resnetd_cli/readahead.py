"""Reading inputs from servers before their turn, a few at once: most of that time is waiting."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from resnetd_cli.sources import Source
from resnetd_cli.threads import Pool


class ReadAhead:
    """Reads remote sources early, in order.

    Args:
        connections: how many may be under way, or read and not yet taken: more would fill the memory.
    """

    def __init__(self, connections: int) -> None:
        self._free = connections
        self._waiting: deque[_Reading] = deque()
        self._lock = threading.Lock()
        self._pool = Pool(connections, thread_name_prefix="resnetd-fetch")

    def begin(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the sources as they come, those that are remote with their reading begun, or soon to begin."""
        for source in sources:
            if not source.is_remote:
                yield source
                continue
            reading = _Reading(source, Future())
            with self._lock:
                self._waiting.append(reading)
                self._start_next()
            yield replace(source, read=partial(self._take, reading))

    def close(self) -> None:
        """Begin no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, reading: _Reading) -> bytes:
        with self._lock:
            is_waiting = reading in self._waiting
            if is_waiting:
                self._waiting.remove(reading)
        if is_waiting:  # its turn came before its place: nobody else will read it
            return reading.source.read()
        try:
            return reading.result.result()
        finally:
            with self._lock:
                self._free += 1
                self._start_next()

    def _start_next(self) -> None:
        if self._free and self._waiting:
            # With no thread to be had, it is read when its turn comes.
            with suppress(RuntimeError):
                self._pool.submit(self._waiting[0].run)
                self._free -= 1
                self._waiting.popleft()


@dataclass(frozen=True, eq=False)
class _Reading:
    source: Source
    result: Future[bytes]

    def run(self) -> None:
        try:
            self.result.set_result(self.source.read())
        except BaseException as error:
            self.result.set_exception(error)
