"""Count the processors this process may use (affinity, cgroup quotas), and find out what they support."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from resnetd_cli.system import cgroups

_X86 = ("x86_64", "amd64", "i686", "i386")


def usable_cpus() -> int:
    """Return how many processors this process may use: fewer than exist under taskset or in a container.

    A quota of one and a half processors counts as two.
    """
    return max(1, min([_allowed(), *map(math.ceil, _quotas())]))


def limited_cpus() -> int | None:
    """Return `usable_cpus` if that is fewer than exist; None if libraries may use their own default."""
    usable = usable_cpus()
    return usable if usable < (os.cpu_count() or 1) else None


def cpu_limit() -> str | None:
    """Return why this process may use fewer processors than exist, in words; None if it may use all of them."""
    existing, quota = os.cpu_count() or 1, min(_quotas(), default=math.inf)
    if usable_cpus() >= existing:
        return None
    if quota <= _allowed() - 1:  # rounded up, fewer
        return f"the control group's quota is {quota:g} of {existing}"
    return f"affinity or a cpuset leave {_allowed()} of {existing}"


def processor() -> str:
    """Return the processor's model and features. `platform.processor` is empty or vague on Linux."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            first = file.read(8192).partition("\n\n")[0]
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(wanted))


def multiplies_bytes() -> bool:
    """Return whether sums of int8 products cannot overflow: on x86 only with VNNI, elsewhere always."""
    return platform.machine().lower() not in _X86 or "vnni" in processor()


def multiplies_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 numbers itself: on x86 with AVX512_BF16 or AMX."""
    return any(feature in processor().split() for feature in ("avx512_bf16", "amx_bf16"))


def _allowed() -> int:
    """Return how many processors the process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        with suppress(OSError):
            return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Yield each control group's CPU quota, in processors."""
    shares = [text.split() for text in cgroups.read("cpu", "cpu.max")]
    quotas, periods = (cgroups.read("cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    for quota, period in (*(pair for pair in shares if len(pair) == 2), *zip(quotas, periods, strict=False)):
        with suppress(ValueError, ZeroDivisionError):  # "max"; -1 in version 1
            if float(quota) > 0:
                yield float(quota) / float(period)
