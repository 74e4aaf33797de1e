"""Fetch URLs ahead of their turn, a few at once: most of that time is spent waiting."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial

from resnetd_cli.net.fetch import HOST_CONNECTIONS, host_of
from resnetd_cli.pipeline.sources.expand import Source

_HELD_BYTES = 2**26


class ReadAhead:
    """Reads remote sources early, in order, but those of a host that has enough to do after those of others.

    Threads of its own do it. None of them waits for anything but a server, so that all come to an end.

    Args:
        connections: how many are read at once.
        host_connections: how many of these from one host.
        held_bytes: how much may be read and not yet taken. Beyond it, only what is asked for is begun.
    """

    def __init__(
        self,
        connections: int,
        host_connections: int = HOST_CONNECTIONS,
        held_bytes: int = _HELD_BYTES,
    ) -> None:
        self._connections = connections
        self._host_connections = host_connections
        self._held_bytes = held_bytes
        self._waiting: list[_Reading] = []
        self._running: Counter[str] = Counter()
        self._held = 0
        self._closed = False
        self._lacks_threads = False
        self._changed = threading.Condition()

    def begin(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the sources as they come, those that are remote with their reading begun, or soon to begin."""
        for source in sources:
            if not source.is_remote:
                yield source
                continue
            reading = _Reading(source, host_of(source.name))
            with self._changed:
                self._waiting.append(reading)
                self._start()
            yield replace(source, read=partial(self._take, reading))

    def close(self) -> None:
        """Begin no more, and let nobody wait for what will not come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, reading: _Reading) -> bytes:
        with self._changed:
            if reading.is_taken:  # not kept for a second time
                return reading.source.read()
            reading.is_wanted = True
            self._start()
            if not (self._lacks_threads and reading in self._waiting):
                return self._outcome(reading)
            self._waiting.remove(reading)
        return reading.source.read()

    def _outcome(self, reading: _Reading) -> bytes:
        """Wait for what a thread has read, or raise what it met. The lock is held, but not while waiting."""
        self._changed.wait_for(lambda: reading.is_done or self._closed)
        if not reading.is_done:
            raise CancelledError
        outcome, reading.outcome, reading.is_taken = reading.outcome, b"", True
        if isinstance(outcome, BaseException):
            raise outcome
        self._held -= len(outcome)
        self._start()
        return outcome

    def _start(self) -> None:
        """Begin what may begin. The lock is held."""
        for reading in tuple(self._waiting):
            if self._closed or self._running.total() >= self._connections:
                break
            has_room = reading.is_wanted or self._held < self._held_bytes
            if has_room and self._running[reading.host] < self._host_connections:
                try:
                    threading.Thread(target=self._read, args=(reading,), name="resnetd-fetch", daemon=True).start()
                except RuntimeError:  # the system has no more: it is read when its turn comes
                    self._lacks_threads = True
                    break
                self._waiting.remove(reading)
                self._running[reading.host] += 1

    def _read(self, reading: _Reading) -> None:
        outcome: bytes | BaseException
        try:
            outcome = reading.source.read()
        except BaseException as error:
            outcome = error
        with self._changed:
            self._end(reading, outcome)
            self._start()

    def _end(self, reading: _Reading, outcome: bytes | BaseException) -> None:
        reading.outcome, reading.is_done = outcome, True
        self._held += 0 if isinstance(outcome, BaseException) else len(outcome)
        self._running[reading.host] -= 1
        self._running += Counter()  # leaves out those at zero
        self._changed.notify_all()


@dataclass(eq=False)
class _Reading:
    source: Source
    host: str
    is_wanted: bool = False
    is_done: bool = False
    is_taken: bool = False
    outcome: bytes | BaseException = b""
