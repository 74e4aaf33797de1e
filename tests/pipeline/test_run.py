"""The pipeline: one result per input, in order, with bounded read-ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from helpers.fake_pipeline import FakeEngine, answers, failing, finish, jitter, picture, pipeline, source
from PIL import Image

from resnetd_cli.errors import ErrorKind
from resnetd_cli.pipeline.decode.image import DecodeOptions
from resnetd_cli.pipeline.engines.base import Outputs
from resnetd_cli.pipeline.run import Pipeline
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.results import Failure, Preprocessing

# --- order and completeness ---


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", range(1, 8))
@pytest.mark.parametrize("workers", range(1, 5))
def test_every_source_gets_its_result_in_order(workers: int, batch_size: int) -> None:
    engine = FakeEngine(jitter(workers * 10 + batch_size))
    run = pipeline(engine, workers=workers, batch_size=batch_size).run(source(n) for n in range(40))
    assert list(run) == answers(range(40))
    assert sorted(n for batch in engine.batches for n in batch) == list(range(40))
    assert max(map(len, engine.batches)) == batch_size


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
@pytest.mark.parametrize("workers", [1, 3])
def test_failures_are_in_order_among_the_results(workers: int, batch_size: int) -> None:
    bad = {0, 1, 5, 6, 7, 8, 13, 29}
    sources = [
        (failing(n) if n % 2 else source(n, lambda: b"not an image")) if n in bad else source(n) for n in range(30)
    ]
    run = pipeline(FakeEngine(jitter(1)), workers=workers, batch_size=batch_size).run(sources)
    for number, result in enumerate(run):
        if number in bad:
            assert isinstance(result, Failure)
            assert result.kind is (ErrorKind.NOT_FOUND if number % 2 else ErrorKind.UNDECODABLE)
            assert (result.input, result.model) == (f"{number}.png", "fake")
        else:
            assert result == answers([number])[0]
    assert number == 29


def test_failure_carries_the_error_of_its_source() -> None:
    (failure,) = pipeline(FakeEngine()).run([failing(3, ErrorKind.HTTP_STATUS)])
    assert failure == Failure("3.png", "fake", ErrorKind.HTTP_STATUS, "no 3", "look for it")


def test_batch_of_failures_does_not_reach_the_engine() -> None:
    engine = FakeEngine()
    results = list(pipeline(engine, batch_size=4).run(failing(n) for n in range(6)))
    assert [type(result) for result in results] == [Failure] * 6
    assert engine.batches == []


def test_no_sources_yield_no_results() -> None:
    assert list(pipeline(FakeEngine(), workers=2).run([])) == []


def test_max_pixels_applies_in_the_pipeline() -> None:
    options = DecodeOptions(max_pixels=16)
    small, large = source(1), source(2, lambda: picture(2, (5, 4)))
    first, second = pipeline(FakeEngine(), decoding=options).run([small, large])
    assert first == answers([1])[0]
    assert isinstance(second, Failure)
    assert second.kind is ErrorKind.TOO_LARGE


def test_image_too_thin_to_resize_gets_the_result_of_its_border() -> None:
    """In `border` mode 1000 x 1 shrinks to 4 x 0 pixels."""
    bordered = Preprocessing((3, 4, 4), 1.0, "border", "bilinear", (0.0,) * 3, (1.0,) * 3)
    run = Pipeline(FakeEngine(), bordered, finish, "fake").run(
        [source(1), source(2, lambda: picture(2, (1000, 1))), source(3)]
    )
    first, second, third = run
    assert (first, third) == tuple(answers([1, 3]))
    assert second == ("2.png", 0, 0.0)  # what is left is the border


def test_image_too_large_for_memory_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture of 1 x 60,000 pixels is resized to 256 x 15,360,000: 15 GB for a file of a few bytes."""
    resize = Image.Image.resize

    def limited(self: Image.Image, size: tuple[int, int], *args: object, **kwargs: object) -> Image.Image:
        if size[0] * size[1] > 10_000:
            raise MemoryError
        return resize(self, size, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", limited)
    thin = source(2, lambda: picture(2, (60_000, 1)))
    first, second, third = pipeline(FakeEngine()).run([source(1), thin, source(3)])
    assert (first, third) == tuple(answers([1, 3]))
    assert isinstance(second, Failure)
    assert second.kind is ErrorKind.TOO_LARGE


@pytest.mark.parametrize("error", [AssertionError(), RecursionError("too deep"), KeyError("x")])
def test_any_exception_while_reading_is_a_failure_of_the_input(error: Exception) -> None:
    def trip() -> bytes:
        raise error

    first, second, third = pipeline(FakeEngine()).run([source(1), source(2, trip), source(3)])
    assert (first, third) == tuple(answers([1, 3]))
    assert isinstance(second, Failure)
    assert second.kind is ErrorKind.UNREADABLE
    assert type(error).__name__ in second.message


def test_any_exception_while_decoding_is_a_failure_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def trip(*_: object) -> None:
        raise IndexError("no such row")

    monkeypatch.setattr("resnetd_cli.pipeline.run.normalise", trip)
    (only,) = pipeline(FakeEngine()).run([source(1)])
    assert isinstance(only, Failure)
    assert only.kind is ErrorKind.UNDECODABLE
    assert only.message == "decoding it failed: IndexError: no such row"


# --- errors outside the inputs ---


@pytest.mark.parametrize("workers", [1, 3])
def test_engine_exception_is_raised_after_earlier_results(workers: int) -> None:
    run = pipeline(FakeEngine(broken=5), workers=workers).run(source(n) for n in range(20))
    got: list[object] = []
    with pytest.raises(RuntimeError, match="the engine broke"):
        for result in run:
            got.append(result)
    assert got == answers(range(5))


@pytest.mark.parametrize("error", [OSError("the list broke"), KeyboardInterrupt()])
def test_source_exception_is_raised_after_earlier_results(error: BaseException) -> None:
    def sources() -> Iterator[Source]:
        yield source(0)
        yield source(1)
        raise error

    got: list[object] = []
    with pytest.raises(type(error)) as caught:
        for result in pipeline(FakeEngine(), workers=2).run(sources()):
            got.append(result)
    assert caught.value is error
    assert got == answers(range(2))


# --- laziness ---


class Counted:
    """Sources that count how many of them were asked for, and how many were read."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.pulled = self.read = 0
        self.stopped = threading.Event()
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Source]:
        for number in range(self.total):
            self.pulled = number + 1
            yield source(number % 256, lambda blue=number % 256: self._read(blue))  # type: ignore[misc]
        self.stopped.set()

    def _read(self, blue: int) -> bytes:
        with self._lock:
            self.read += 1
        return picture(blue)


def settled(value: Callable[[], int]) -> int:
    """Return a counter's value once it has stopped moving."""
    last, since, end = value(), time.monotonic(), time.monotonic() + 10
    while time.monotonic() < min(since + 0.15, end):
        time.sleep(0.005)
        if value() != last:
            last, since = value(), time.monotonic()
    return last


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (2, 1), (2, 5)])
def test_no_more_than_a_window_is_read_ahead(workers: int, batch_size: int) -> None:
    counted = Counted(1000)
    run = pipeline(FakeEngine(), workers=workers, batch_size=batch_size, connections=1).run(counted)
    # Four chunks under way for each worker, one more in the reader's hand, one in the consumer's.
    window = (4 * workers + 2) * batch_size
    for taken in range(1, 40):
        next(run)
        if taken in (1, 20, 39):
            ahead = settled(lambda: counted.pulled) - taken
            assert 0 < ahead <= window
            assert counted.read <= counted.pulled
    run.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_early_stops_reading(workers: int) -> None:
    counted = Counted(100_000)
    threads = threading.active_count()
    run = pipeline(FakeEngine(), workers=workers).run(counted)
    assert [next(run) for _ in range(3)] == answers(range(3))
    run.close()  # type: ignore[attr-defined]
    assert settled(lambda: counted.pulled) < 50
    assert settled(threading.active_count) <= threads


def test_nothing_is_read_before_the_first_result_is_asked_for() -> None:
    counted = Counted(10)
    pipeline(FakeEngine()).run(counted)
    time.sleep(0.02)
    assert counted.pulled == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_slow_sources_do_not_delay_earlier_results(workers: int) -> None:
    go_on = threading.Event()

    def sources() -> Iterator[Source]:
        yield source(0)
        yield source(1)
        assert go_on.wait(10)
        yield source(2)

    run = pipeline(FakeEngine(), workers=workers).run(sources())
    # The third source comes only after these: a pipeline that waits for it never gets here.
    assert [next(run), next(run)] == answers(range(2))
    go_on.set()
    assert list(run) == answers([2])


def test_workers_run_in_parallel() -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(_: int) -> float:
        both.wait()
        return 0.0

    assert list(pipeline(FakeEngine(meet), workers=2).run(source(n) for n in range(2))) == answers(range(2))


def test_pipeline_can_run_twice() -> None:
    again = pipeline(FakeEngine(), workers=2, batch_size=2)
    for _ in range(2):
        assert list(again.run(source(n) for n in range(5))) == answers(range(5))


def test_engine_out_of_memory_is_a_failure_of_each_image() -> None:
    class Full(FakeEngine):
        def run(self, images: np.ndarray) -> Outputs:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory")

    failures = list(pipeline(Full()).run([source(1), source(2)]))
    assert [failure.input for failure in failures if isinstance(failure, Failure)] == ["1.png", "2.png"]
    assert {failure.kind.value for failure in failures if isinstance(failure, Failure)} == {"too_large"}
