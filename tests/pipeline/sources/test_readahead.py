"""Reading ahead: order, bounds, and that nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from helpers.fake_pipeline import FakeEngine, answers, picture, pipeline, source

from resnetd_cli.errors import ErrorKind, InputError
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.pipeline.sources.readahead import ReadAhead
from resnetd_cli.results import Failure

PATIENCE = 10.0


class Servers:
    """Hosts whose pictures come when they are let go; by name, or all at once."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.under_way = self.most = 0
        self._free: set[str] = set()
        self._changed = threading.Condition()

    def read(self, name: str, data: bytes) -> bytes:
        with self._changed:
            self.started.append(name)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: {name, "all"} & self._free, PATIENCE), f"{name} was not let go"
            self.under_way -= 1
        return data

    def source(self, name: str, data: bytes = b"x") -> Source:
        return Source(name, lambda: self.read(name, data), is_remote=True)

    def let_go(self, *names: str) -> None:
        with self._changed:
            self._free.update(names)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, PATIENCE)


@pytest.fixture
def servers() -> Iterable[Servers]:
    servers = Servers()
    yield servers
    servers.let_go("all")


def urls(host: str, count: int) -> list[str]:
    return [f"http://{host}/{number}.png" for number in range(count)]


def settled(value: Callable[[], int]) -> int:
    time.sleep(0.1)
    return value()


def test_what_is_read_is_that_of_the_source(servers: Servers) -> None:
    servers.let_go("all")
    ahead = ReadAhead(3)
    begun = list(ahead.begin(servers.source(name, name.encode()) for name in urls("h", 20)))
    assert [item.name for item in begun] == urls("h", 20)
    assert [item.read() for item in begun] == [name.encode() for name in urls("h", 20)]
    assert sorted(servers.started) == sorted(urls("h", 20))


def test_local_sources_are_left_to_their_turn() -> None:
    local = source(1)
    assert list(ReadAhead(2).begin([local])) == [local]


def test_so_many_are_read_at_once_and_no_more(servers: Servers) -> None:
    ahead = ReadAhead(3, host_connections=9)
    list(ahead.begin(servers.source(name) for name in urls("h", 9)))
    assert servers.wait_for(lambda: servers.under_way == 3)
    assert settled(lambda: servers.most) == 3
    servers.let_go("all")
    assert servers.wait_for(lambda: len(servers.started) == 9)
    assert servers.most == 3


def test_one_that_is_asked_for_does_not_break_the_bound(servers: Servers) -> None:
    ahead = ReadAhead(1)
    first, second = ahead.begin(servers.source(name) for name in urls("h", 2))
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(second.read), pool.submit(first.read)]
        assert servers.wait_for(lambda: servers.under_way == 1)
        assert settled(lambda: servers.most) == 1
        servers.let_go("all")
        assert [result.result(PATIENCE) for result in results] == [b"x", b"x"]
    assert servers.most == 1


def test_slow_host_does_not_hold_up_others(servers: Servers) -> None:
    servers.let_go(*urls("quick", 20))
    ahead = ReadAhead(4, host_connections=2)
    begun = list(ahead.begin(servers.source(name) for name in [*urls("slow", 5), *urls("quick", 20)]))
    # All of the quick one's, while the slow one has as many as it may have.
    assert servers.wait_for(lambda: len(servers.started) == 22)
    assert servers.started[:2] == urls("slow", 2)
    assert settled(lambda: len(servers.started)) == 22
    servers.let_go("all")
    assert [item.read() for item in begun] == [b"x"] * 25


def test_no_more_than_so_many_bytes_are_held(servers: Servers) -> None:
    servers.let_go("all")
    ahead = ReadAhead(1, held_bytes=250)
    begun = list(ahead.begin(servers.source(name, bytes(100)) for name in urls("h", 10)))
    assert servers.wait_for(lambda: len(servers.started) == 3)
    assert settled(lambda: len(servers.started)) == 3
    begun[0].read()
    assert servers.wait_for(lambda: len(servers.started) == 4)
    assert settled(lambda: len(servers.started)) == 4
    assert [len(item.read()) for item in begun[1:]] == [100] * 9


def test_one_that_is_asked_for_is_read_even_if_too_much_is_held(servers: Servers) -> None:
    servers.let_go(*urls("quick", 3))
    ahead = ReadAhead(2, host_connections=1, held_bytes=250)
    names = [*urls("slow", 2), *urls("quick", 3)]
    begun = list(ahead.begin(servers.source(name, bytes(100)) for name in names))
    assert servers.wait_for(lambda: len(servers.started) == 4)
    assert settled(lambda: servers.under_way) == 1
    servers.let_go("all")
    # Those of the quick host fill the room, and it is the slow one's turn.
    assert [len(item.read()) for item in begun] == [100] * 5


def test_error_is_raised_where_it_is_asked_for() -> None:
    def fail() -> bytes:
        raise InputError(ErrorKind.TIMEOUT, "too long", hint="again")

    (item,) = ReadAhead(1).begin([Source("http://h/", fail, is_remote=True)])
    with pytest.raises(InputError, match="too long"):
        item.read()


def test_second_read_reads_again(servers: Servers) -> None:
    servers.let_go("all")
    (item,) = ReadAhead(1).begin([servers.source("http://h/")])
    assert [item.read(), item.read()] == [b"x", b"x"]
    assert len(servers.started) == 2


def test_close_lets_go_of_those_who_wait_and_begins_no_more(servers: Servers) -> None:
    threads = threading.active_count()
    ahead = ReadAhead(1)
    begun = list(ahead.begin(servers.source(name) for name in urls("h", 3)))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(item.read) for item in begun[:2]]
        assert servers.wait_for(lambda: servers.under_way == 1)
        ahead.close()
        for result in waiting:
            assert isinstance(result.exception(PATIENCE), CancelledError)
    servers.let_go("all")
    end = time.monotonic() + PATIENCE
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    assert servers.started == urls("h", 1)


def test_threads_do_not_keep_the_process() -> None:
    go_on = threading.Event()
    list(ReadAhead(1).begin([Source("http://h/", lambda: b"x" * go_on.wait(PATIENCE), is_remote=True)]))
    fetching = [thread for thread in threading.enumerate() if thread.name == "resnetd-fetch"]
    assert fetching
    assert all(thread.daemon for thread in fetching)
    go_on.set()


def test_without_a_thread_each_is_read_in_its_turn(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        first, second = ReadAhead(1).begin(servers.source(name) for name in urls("h", 2))
        servers.let_go("all")
        assert first.read() == b"x"
        assert second.read() == b"x"
    assert servers.most == 1


# --- in the pipeline ---


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 20])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("connections", [1, 2, 8])
def test_every_source_gets_its_result_in_order(workers: int, batch_size: int, connections: int) -> None:
    def remote(number: int) -> Source:
        def read() -> bytes:
            time.sleep(number % 3 * 0.002)
            if number % 7 == 6:
                raise InputError(ErrorKind.TIMEOUT, f"no {number}", hint="again")
            return picture(number)

        return Source(f"http://{number % 3}.example/{number}.png", read, is_remote=number % 5 != 4)

    run = pipeline(FakeEngine(), workers=workers, batch_size=batch_size, connections=connections)
    results = list(run.run(remote(number) for number in range(40)))
    for number, result in enumerate(results):
        name = f"http://{number % 3}.example/{number}.png"
        if number % 7 == 6:
            assert isinstance(result, Failure)
            assert (result.input, result.message) == (name, f"no {number}")
        else:
            assert result == (name, *answers([number])[0][1:])
    assert len(results) == 40


def test_run_that_is_closed_while_it_waits_leaves_no_thread(servers: Servers) -> None:
    threads = threading.active_count()
    servers.let_go("http://a/0.png")
    names = ["http://a/0.png", *urls("b", 50)]
    run = pipeline(FakeEngine(), workers=2, batch_size=1, connections=2).run(
        servers.source(name, picture(1)) for name in names
    )
    next(run)
    assert servers.wait_for(lambda: servers.under_way == 2)
    run.close()  # type: ignore[attr-defined]
    # The two that are under way end with their servers, the others at once.
    end = time.monotonic() + PATIENCE
    while threading.active_count() > threads + 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= threads + 2
    servers.let_go("all")
    assert len(servers.started) == 3
