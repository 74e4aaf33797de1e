"""The pipeline: sources -> decode -> preprocess -> engine -> postprocess, as one generator.

Each worker thread takes a chunk of inputs through all stages, so that decoding overlaps with inference, and only a
limited window of images is in memory. Results come in input order, one for each source.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

from resnetd_cli.errors import ErrorKind, InputError, Reason, first_line
from resnetd_cli.pipeline.decode.image import DecodeOptions, decode
from resnetd_cli.pipeline.engines.base import Engine
from resnetd_cli.pipeline.options import InputOptions, Parallelism
from resnetd_cli.pipeline.preprocess import normalise
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.pipeline.sources.readahead import ReadAhead
from resnetd_cli.results import Failure, Preprocessing
from resnetd_cli.system.memory import is_shortage
from resnetd_cli.system.threads import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

R = TypeVar("R")
T = TypeVar("T")
_WINDOW = 4
"""Chunks in flight per worker: enough to keep it busy while the consumer handles results."""


@dataclass(frozen=True)
class Pipeline(Generic[R]):
    """The stages and their options.

    Attributes:
        engine: runs the network.
        preprocessing: how images are prepared for the network.
        finish: makes the result of one image from the input's name, its logits (C,) and its features (D,).
        model: the model's name, for failures.
        inputs: how inputs are read and decoded.
        parallelism: how much runs at once.
        decoded: called with the part of each image that the model sees, by the thread that decoded it.
    """

    engine: Engine
    preprocessing: Preprocessing
    finish: Callable[[str, NDArray[np.float32] | None, NDArray[np.float32] | None], R]
    model: str
    inputs: InputOptions = InputOptions()
    parallelism: Parallelism = Parallelism()
    decoded: Callable[[Image.Image], object] = lambda image: None

    def run(self, sources: Iterable[Source]) -> Iterator[R | Failure]:
        """Yield one result for each source, in order."""
        connections, workers = self.inputs.reading.connections, self.parallelism.workers
        ahead = ReadAhead(connections)
        chunks = _chunks(ahead.begin(sources), self.parallelism.batch_size)
        window = max(workers, connections) * _WINDOW
        try:
            for results in _map_ordered(self._process, chunks, workers, window):
                yield from results
        finally:
            ahead.close()

    def _process(self, chunk: list[Source]) -> list[R | Failure]:
        results: dict[int, R | Failure] = {}
        images: dict[int, NDArray[np.float32]] = {}
        for position, source in enumerate(chunk):
            try:
                images[position] = prepare(
                    source, self.inputs.decoding_for(self.preprocessing), self.preprocessing, self.decoded
                )
            except InputError as error:
                results[position] = Failure.of(source.name, self.model, error)
        if images:
            try:
                results.update(self._infer(chunk, images))
            except Exception as error:
                if not is_shortage(error):
                    raise
                lost = _no_memory()
                results.update((at, Failure.of(chunk[at].name, self.model, lost)) for at in images)
        return [results[position] for position in range(len(chunk))]

    def _infer(self, chunk: list[Source], images: dict[int, NDArray[np.float32]]) -> Iterator[tuple[int, R]]:
        import numpy as np

        outputs = self.engine.run(np.stack(list(images.values())))
        for row, position in enumerate(images):
            logits = None if outputs.logits is None else outputs.logits[row]
            features = None if outputs.features is None else outputs.features[row]
            yield position, self.finish(chunk[position].name, logits, features)


def prepare(
    source: Source,
    decoding: DecodeOptions,
    how: Preprocessing,
    decoded: Callable[[Image.Image], object] = lambda image: None,
) -> NDArray[np.float32]:
    """Read, decode and preprocess an input: float32, shape (3, H, W).

    Args:
        source: the input.
        decoding: limits and rules of decoding.
        how: how images are prepared for the model.
        decoded: called with the part of the image that the model sees.

    Raises:
        InputError: it cannot be read or decoded, or there is not enough memory for it.
    """
    with _as_failure(ErrorKind.UNREADABLE, "reading"):
        data = source.read()
    with _as_failure(ErrorKind.UNDECODABLE, "decoding"):
        image = decode(data, decoding, crop_for=how)
        decoded(image)
        return normalise(image, how)


@contextmanager
def _as_failure(kind: ErrorKind, doing: str) -> Iterator[None]:
    """Turn any error that a library raises for one input into an `InputError`."""
    try:
        yield
    except (InputError, CancelledError):
        raise
    except MemoryError as error:
        raise _no_memory() from error
    except Exception as error:
        message = f"{doing} it failed: {type(error).__name__}: {first_line(error)}"
        raise InputError(kind, message, hint="please report it, with the input") from error


def _no_memory() -> InputError:
    return InputError(ErrorKind.TOO_LARGE, "not enough memory for it", reason=Reason.NO_MEMORY_FOR_IMAGE)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _map_ordered(function: Callable[[T], R], items: Iterable[T], workers: int, window: int) -> Iterator[R]:
    """Yield `function(item)` for each item in order, computed by threads, at most a window ahead.

    A separate thread reads the items, so that results do not wait for the next item if items come slowly.
    """
    pending: queue.Queue[Future[R] | BaseException | None] = queue.Queue(maxsize=window)
    stopped = threading.Event()
    pool = Pool(workers, thread_name_prefix="resnetd")

    def put(entry: Future[R] | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                pending.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def feed() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                if stopped.is_set() or not put(pool.submit(function, item)):
                    return
        except BaseException as error:
            end = error
        put(end)

    threading.Thread(target=feed, name="resnetd-sources", daemon=True).start()
    try:
        while (entry := pending.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry.result()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
