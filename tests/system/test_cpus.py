"""Usable processors and memory under affinity and cgroup limits, versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resnetd_cli.system import cgroups, cpus, memory
from resnetd_cli.system.cpus import cpu_limit, limited_cpus, multiplies_bf16, multiplies_bytes, usable_cpus


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 processors, whose control groups are in a folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "_MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def write(machine: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = machine / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"cgroup/cpu.max": "max 100000"}, 8),
        ({"cgroup/cpu.max": "100000 100000"}, 1),
        ({"cgroup/cpu.max": "150000 100000"}, 2),
        ({"cgroup/cpu.max": "5000 100000"}, 1),
        ({"cgroup/cpu.max": "9000000 100000"}, 8),
        ({"cgroup/cpu.max": "100000 0"}, 8),
        ({"cgroup/cpu.max": "nonsense"}, 8),
        ({"cgroup/cpu.max": ""}, 8),
        # A service: its own group, in one with a tighter bound.
        (
            {
                "membership": "0::/user.slice/job.service",
                "cgroup/user.slice/cpu.max": "200000 100000",
                "cgroup/user.slice/job.service/cpu.max": "400000 100000",
            },
            2,
        ),
        ({"membership": "0::/a:b c", "cgroup/a:b c/cpu.max": "300000 100000"}, 3),
        ({"membership": "0::/../other", "other/cpu.max": "100000 100000"}, 8),
        # Version 1, seen from inside of a container, whose path is the host's.
        (
            {
                "membership": "4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n0::/docker/abc",
                "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
                "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            {
                "membership": "4:cpu,cpuacct:/docker/abc",
                "cgroup/cpu/cpu.cfs_quota_us": "-1",
                "cgroup/cpu/cpu.cfs_period_us": "100000",
                "cgroup/cpu/docker/abc/cpu.cfs_quota_us": "250000",
                "cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
            },
            3,
        ),
    ],
)
def test_cgroup_quota_limits_usable_cpus(machine: Path, files: dict[str, str], cpus: int) -> None:
    write(machine, files)
    assert usable_cpus() == cpus
    assert limited_cpus() == (None if cpus == 8 else cpus)


def test_affinity_limits_usable_cpus(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert (usable_cpus(), limited_cpus()) == (3, 3)
    assert cpu_limit() == "affinity or a cpuset leave 3 of 8"
    write(machine, {"cgroup/cpu.max": "150000 100000"})
    assert usable_cpus() == 2
    assert cpu_limit() == "the control group's quota is 1.5 of 8"


def test_without_affinity_and_cgroups_all_cpus_are_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> set[int]:
        raise OSError

    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    assert (usable_cpus(), limited_cpus(), cpu_limit()) == (8, None, None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == 1


def test_memory_limit_of_a_parent_cgroup_applies(machine: Path) -> None:
    write(
        machine,
        {
            "membership": "0::/user.slice/job.service",
            "cgroup/memory.max": "max",
            "cgroup/user.slice/memory.max": "1000000",
            "cgroup/user.slice/job.service/memory.max": "2000000",
        },
    )
    assert memory.usable() == 1_000_000


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : avx2 avx512f avx512_vnni", False),
        ("flags : avx512f avx512_bf16 avx512_vnni", True),
        ("flags : avx512f amx_bf16", True),
        ("", False),
    ],
)
def test_bf16_needs_instructions_for_it(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    monkeypatch.setattr(cpus, "processor", lambda: flags)
    assert multiplies_bf16() is expected


@pytest.mark.parametrize(
    ("machine_name", "flags", "expected"),
    [
        ("x86_64", "flags : avx2 fma", False),
        ("AMD64", "", False),
        ("x86_64", "flags : avx2 avx_vnni", True),
        ("x86_64", "flags : avx512f avx512_vnni", True),
        ("aarch64", "Features : asimd", True),
    ],
)
def test_int8_overflows_only_on_x86_without_vnni(
    monkeypatch: pytest.MonkeyPatch, machine_name: str, flags: str, expected: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine_name)
    monkeypatch.setattr(cpus, "processor", lambda: flags)
    assert multiplies_bytes() is expected
