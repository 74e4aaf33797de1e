"""Run the program: as a child process (`Resnetd`), or in this process (`Cli`, `ResnetdHere`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.hub import use_hub
from helpers.paths import ROOT

# Nothing listens there: a test that forgets to name its hub fails instead of reaching the real one.
NOWHERE = "http://127.0.0.1:9"
# What a child needs to start at all, on any platform; everything else could change what it does.
INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "PYTHONPATH",
    "RESNETD_ENGINE",
    "COVERAGE_PROCESS_START",
)


ENDLESS_COMPILATION = """
import time
from resnetd_cli.compiled import bundles
write = bundles.write
def begin(key, make):
    def make_forever(folder):
        (folder / "part").touch()
        time.sleep(600)
    return write(key, make_forever)
bundles.write = begin
from resnetd_cli.__main__ import main
main()
"""
"""The program, but compiling never ends."""


class Finished(subprocess.CompletedProcess[str]):
    """A process that ended, and the seconds it took."""

    def __init__(self, args: list[str], returncode: int, stdout: str, stderr: str, elapsed: float) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.elapsed = elapsed


class Resnetd:
    """Runs `python -m resnetd_cli` with all its caches in one folder, from the top of the project."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.hub_cache = home / "hf" / "hub"
        self._began: dict[subprocess.Popen[str], float] = {}

    def env(self, endpoint: str = NOWHERE, **changes: str) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "HOME": str(self.home),
            "USERPROFILE": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TORCH_HOME": str(self.home / "torch"),
            "RESNETD_CACHE": str(self.home / "resnetd"),
            "NO_PROXY": "127.0.0.1,localhost",
            **changes,
        }

    def start(
        self,
        *args: str | Path,
        endpoint: str = NOWHERE,
        program: Sequence[str] = ("-m", "resnetd_cli"),
        **env: str,
    ) -> subprocess.Popen[str]:
        """Start it; what still runs at the end of the test is killed. `program`: Python's own arguments."""
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, args)],
            cwd=ROOT,
            env=self.env(endpoint, **env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._began[process] = began
        return process

    def finish(self, process: subprocess.Popen[str], timeout: float = 120) -> Finished:
        """Wait for a started process."""
        stdout, stderr = process.communicate(timeout=timeout)
        elapsed = time.perf_counter() - self._began[process]
        return Finished(list(process.args), process.returncode, stdout, stderr, elapsed)

    def __call__(self, *args: str | Path, endpoint: str = NOWHERE, timeout: float = 120, **env: str) -> Finished:
        """Run it to its end. Keywords are environment variables."""
        return self.finish(self.start(*args, endpoint=endpoint, **env), timeout)

    def close(self) -> None:
        for process in self._began:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Ended(NamedTuple):
    """What a command line left: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]

    @property
    def hints(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("hint: ")]


Cli = Callable[..., Ended]


class ResnetdHere:
    """As `Resnetd`, with the same caches, but in this process: quicker where no process is the subject."""

    def __init__(self, home: Path, cli: Cli) -> None:
        self.home = home
        self.hub_cache = home / "hf" / "hub"
        self._cli = cli

    def __call__(self, *args: str | Path, endpoint: str = NOWHERE, **env: str) -> Finished:
        """Run it to its end. Keywords are environment variables."""
        from huggingface_hub import constants

        began = time.perf_counter()
        with use_hub(endpoint, self.hub_cache), pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            patch.delenv("RESNETD_MODEL", raising=False)
            patch.setenv("RESNETD_CACHE", str(self.home / "resnetd"))
            for name, value in env.items():
                patch.setenv(name, value)
                if name.startswith("HF_HUB_"):  # which huggingface_hub reads once
                    patch.setattr(constants, name, int(value))
            ended = self._cli(*args)
        return Finished([*map(str, args)], *ended, time.perf_counter() - began)


def is_one_error(ended: Ended, code: int) -> bool:
    """Assert one error line, one hint line and nothing else."""
    lines = ended.stderr.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["error:", "hint:"], ended.stderr
    assert all(len(line) > len("error: ") for line in lines)
    assert "unexpected" not in ended.stderr
    assert ended.stdout == ""
    assert ended.code == code
    return True


def only(ended: Ended, code: int = 0) -> dict[str, Any]:
    """Return the record of the only model that `evaluate --format json` measured."""
    assert ended.code == code, ended.stderr
    record: dict[str, Any] = json.loads(ended.stdout)["models"][0]
    return record
