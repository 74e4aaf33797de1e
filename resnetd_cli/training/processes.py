"""Several processes on this machine that train one network together."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from typing import Any

from resnetd_cli.loading import usable_cpus

Outcome = tuple[int, Any]
"""The number of a process, and what it returned."""


def run(function: Callable[..., Any], arguments: tuple[Any, ...], count: int) -> Any:
    """Call a function in several processes at once, and return what it returned in the first.

    They find each other as torch.distributed's do, by the environment. One that ends by an error ends the others.

    Raises:
        RuntimeError: one of them did not return.
    """
    from torch.multiprocessing import get_context
    from torch.multiprocessing.spawn import start_processes

    outcomes = get_context("spawn").SimpleQueue()
    context = start_processes(  # type: ignore[no-untyped-call]
        _call, (function, arguments, count, _free_port(), outcomes), count, join=False, start_method="spawn"
    )
    while not context.join():
        pass
    returned = dict(outcomes.get() for _ in range(count))
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
    # Of convolutions over one pixel, whose weights have the same layout by two names.
    warnings.filterwarnings("ignore", "Grad strides do not match")
    outcomes.put((number, function(*arguments)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
