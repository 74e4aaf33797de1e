"""Read ahead: fetch several URLs at once before their turn, as most of that time is spent waiting."""

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
    """Reads remote sources early, in order, but a busy host's sources after those of other hosts.

    It uses its own threads, which wait only for servers, so they all end.

    Args:
        connections: the number of sources to read at once.
        host_connections: the number of these from one host.
        held_bytes: the bytes to hold for later. Beyond that, only sources whose turn has come are started.
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
        """Yield the sources in order; reading of the remote ones has started, or is queued."""
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
        """Start no more reads, and cancel those who wait for one."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, reading: _Reading) -> bytes:
        with self._changed:
            if reading.is_taken:  # its bytes are gone: read it again
                return reading.source.read()
            reading.is_wanted = True
            self._start()
            if not (self._lacks_threads and reading in self._waiting):
                return self._outcome(reading)
            self._waiting.remove(reading)
        return reading.source.read()

    def _outcome(self, reading: _Reading) -> bytes:
        """Wait for a thread to finish, and return its bytes or raise its error. Waiting releases the lock."""
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
        """Start every waiting read that the limits allow. The caller holds the lock."""
        for reading in tuple(self._waiting):
            if self._closed or self._running.total() >= self._connections:
                break
            has_room = reading.is_wanted or self._held < self._held_bytes
            if has_room and self._running[reading.host] < self._host_connections:
                try:
                    threading.Thread(target=self._read, args=(reading,), name="resnetd-fetch", daemon=True).start()
                except RuntimeError:  # no more threads: it is read when its turn comes
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
        self._running += Counter()  # drops the zeros
        self._changed.notify_all()


@dataclass(eq=False)
class _Reading:
    source: Source
    host: str
    is_wanted: bool = False
    is_done: bool = False
    is_taken: bool = False
    outcome: bytes | BaseException = b""
