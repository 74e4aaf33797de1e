"""Train in several processes (`--processes N`): start them, and tell them apart (`RANK`, `WORLD_SIZE`)."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from resnetd_cli.errors import Reason, ResnetdError
from resnetd_cli.system.cpus import usable_cpus
from resnetd_cli.system.quiet import sharing_stderr

_POLL_SECONDS = 0.2


def is_main() -> bool:
    """Return whether this is the first of the training processes, which shows and writes for all."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """Return the number of training processes, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def cpus_per_process() -> int:
    """Return how many processors each training process on this machine may use."""
    return max(1, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def run(function: Callable[..., Any], arguments: tuple[Any, ...], count: int, signals: Sequence[int] = ()) -> Any:
    """Call a function in several processes at once, and return the result of the first.

    They find each other through the environment, as torch.distributed's do. If one fails, the others are ended.

    Args:
        function: can be pickled, as can its arguments and its result.
        arguments: of each call.
        count: number of processes.
        signals: received by this process; each is passed on as it is added.

    Raises:
        ResnetdError: one of them raised it, or died.
    """
    from torch.multiprocessing import get_context
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # says which processes it ends
    outcomes = get_context("spawn").SimpleQueue()
    with sharing_stderr():
        context = start_processes(  # type: ignore[no-untyped-call]
            _call, (function, arguments, count, _free_port(), outcomes), count, join=False, start_method="spawn"
        )
    died: Exception | None = None
    passed_on = 0
    try:
        while not context.join(_POLL_SECONDS):
            for number in signals[passed_on:]:
                passed_on += 1
                for pid in context.pids():
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
    except (ProcessExitedException, ProcessRaisedException) as error:
        died = error
    returned = {}
    while not outcomes.empty():
        number, outcome = outcomes.get()
        returned[number] = outcome
    # A process that fails makes the others fail, with errors that say less.
    for number in sorted(returned):
        if isinstance(returned[number], ResnetdError):
            raise returned[number]
    if died is not None or 0 not in returned:
        message = (
            f"one of the {count} processes died: {str(died).strip().splitlines()[-1] if died else 'no answer'}"
        )
        raise ResnetdError(message, reason=Reason.PROCESS_DIED)
    return returned[0]


def _call(
    number: int, function: Callable[..., Any], arguments: tuple[Any, ...], count: int, port: int, outcomes: Any
) -> None:
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // count)))
    # Convolutions over one pixel: two names for the same layout of their weights.
    warnings.filterwarnings("ignore", "Grad strides do not match")
    try:
        outcomes.put((number, function(*arguments)))
    except ResnetdError as error:
        outcomes.put((number, error))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
