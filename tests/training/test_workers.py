"""The processes that load images: what they die of ends the run in one line, and soon."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ResnetdError
from resnetd_cli.results import Failure
from resnetd_cli.training import workers
from resnetd_cli.training.dataset import ImageDataset
from resnetd_cli.training.loader import evaluation_loader
from resnetd_cli.training.workers import Batches, Workers, free_shared_memory, watched

# What a test's processes leave open when they are killed.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def quick_collection() -> Iterator[None]:
    """Let the collections of garbage between the tests look at what the tests made, not at all of torch."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch watch its processes in each test as in the first."""
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    yield
    gc.collect()
    if before is not None:
        signal.signal(signal.SIGCHLD, before)


class Doomed(ImageDataset):
    """Images of which one does something else."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __len__(self) -> int:
        return 40

    def __getitem__(self, key: tuple[int, int]) -> Any:
        if key[1] == 17:
            self.act()
        return torch.full((3, 4, 4), key[1]), key[1]


def die(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def fail(error: Exception) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no such signals")
@pytest.mark.parametrize(
    ("act", "message", "hint"),
    [
        (die(9), "a process that loads images died: killed", "--resume"),
        (die(11), "a process that loads images died: segmentation fault", "--resume"),
        (die(7), "a process that loads images died: bus error", "--workers 0"),
        (die(6), "a process that loads images died: aborted", "--resume"),
        (lambda: os._exit(3), "a process that loads images died: it gave no reason", "--resume"),
        (lambda: os._exit(71), "a process that loads images could not send a batch", "--workers 0"),
        (fail(MemoryError()), "a process that loads images ran out of memory", "fewer --workers"),
        (fail(KeyError("x\ny")), "a process that loads images failed: KeyError", "-v shows where"),
    ],
)
def test_death_of_a_worker_is_reported_in_one_line(act: Callable[[], object], message: str, hint: str) -> None:
    began = time.monotonic()
    with pytest.raises(ResnetdError) as caught, watched():
        list(evaluation_loader(Doomed(act), 4, Workers(2)))
    assert caught.value.message.startswith(message) and "\n" not in caught.value.message
    assert hint_of(caught.value) and hint in hint_of(caught.value)
    assert time.monotonic() - began < 30


def test_a_batch_that_cannot_be_sent_ends_the_run() -> None:
    class Unsendable(Doomed):
        def __getitem__(self, key: tuple[int, int]) -> Any:
            return Failure("x", "", "unreadable", lambda: None) if key[1] == 17 else super().__getitem__(key)  # type: ignore[arg-type]

    with pytest.raises(ResnetdError, match="could not send a batch"), watched():
        list(evaluation_loader(Unsendable(lambda: None), 4, Workers(2)))


def test_death_of_a_worker_outside_the_loader_is_reported() -> None:
    with pytest.raises(ResnetdError, match="died: killed"), watched():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(RuntimeError, match="something else"), watched():
        raise RuntimeError("something else")


def test_signals_for_the_whole_group_are_left_to_the_process_that_trains() -> None:
    group = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def send() -> None:
        for number in group:
            os.kill(os.getpid(), number)

    batches = list(evaluation_loader(Doomed(send), 4, Workers(2)))
    assert [int(number) for batch in batches for number in batch.targets] == [*range(40)]


def test_workers_that_cannot_be_started_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        num_workers = 2

        def __iter__(self) -> Any:
            raise OSError(errno.ENOSYS, "Function not implemented")

    with pytest.raises(ResnetdError, match="cannot be started: function not implemented") as caught:
        list(Batches(Loader()))  # type: ignore[arg-type]
    assert hint_of(caught.value) == "--workers 0 loads images without them"


@pytest.mark.parametrize(
    ("free", "count", "batch", "processes", "by_pipe"),
    [
        (64 * MIB, 2, 19 * MIB, 1, True),  # Docker's default; batches of 32 images of 224 pixels
        (64 * MIB, 2, 4 * MIB, 1, False),
        (64 * MIB, 2, 4 * MIB, 4, True),
        (24_000 * MIB, 8, 154 * MIB, 1, False),
        (0, 1, 1, 1, True),
        (float("inf"), 64, 2000 * MIB, 8, False),
    ],
)
def test_shared_memory_is_used_where_there_is_enough_of_it(
    monkeypatch: pytest.MonkeyPatch, free: float, count: int, batch: int, processes: int, by_pipe: bool
) -> None:
    monkeypatch.setattr(workers, "free_shared_memory", lambda: free)
    assert Workers.fitting(count, [batch, batch], processes) == Workers(count, by_pipe)


@pytest.mark.parametrize(("files", "by_pipe"), [(64, True), (1024, False), (float("inf"), False)])
def test_shared_memory_is_used_where_enough_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, files: float, by_pipe: bool
) -> None:
    monkeypatch.setattr(workers, "open_files", lambda: files)
    assert Workers.fitting(8, [1, 1], 1) == Workers(8, by_pipe)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has such a folder")
def test_a_system_without_shared_memory_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert free_shared_memory() > 0
    monkeypatch.setattr(workers, "_SHARED_MEMORY", tmp_path / "none")
    assert free_shared_memory() == 0


def test_batches_by_pipe_take_no_shared_memory() -> None:
    (batch,) = evaluation_loader(Doomed(lambda: None), 40, Workers(1, by_pipe=True))
    assert not batch.images.is_shared()
    assert np.array_equal(batch.images[:, 0, 0, 0].numpy(), np.arange(40))
