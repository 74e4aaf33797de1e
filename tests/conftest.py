"""Fixtures for the whole suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hub import Hub, timm_files
from numpy.typing import NDArray

from resnetd_cli.pipeline.engines.base import Outputs

ROOT = Path(__file__).resolve().parent.parent
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

# One thread for each worker of the suite: the networks of tests are too small for more. numpy and torch read it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run files named on the command line in this process; the whole suite runs on every processor."""
    return None if config.args == config.getini("testpaths") else 0


@pytest.fixture(scope="session", autouse=True)
def cache_and_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled models out of the user's cache, and take the torch engine unless a test asks for another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RESNETD_ENGINE", "torch")
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Let children heed Ctrl-C also where the suite itself runs as a shell's background job, which does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Train in one thread: the networks of tests are too small for more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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

    def start(self, *args: str | Path, endpoint: str = NOWHERE, **env: str) -> subprocess.Popen[str]:
        """Start it; what still runs at the end of the test is killed."""
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "resnetd_cli", *map(str, args)],
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


@pytest.fixture
def run_resnetd(tmp_path: Path) -> Iterator[Resnetd]:
    """`run_resnetd("predict", "dog.jpg", endpoint=hub.endpoint)` gives the finished process."""
    resnetd = Resnetd(tmp_path / "home")
    yield resnetd
    resnetd.close()


@pytest.fixture(scope="session")
def resnet18d_files() -> dict[str, bytes]:
    """`config.json` and `model.safetensors` of a resnet18d with seeded weights."""
    return timm_files("resnet18d.ra2_in1k", seed=0)


@pytest.fixture
def hub(resnet18d_files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub that has `timm/resnet18d.ra2_in1k`."""
    with Hub() as hub:
        hub.add("timm/resnet18d.ra2_in1k", resnet18d_files)
        yield hub


class FakeEngine:
    """Tells images of one colour apart by how blue they are: 0 to 255 is the class, and the feature.

    Args:
        seconds: how long a call takes, by the class of its first image.
        broken: the class on which the engine itself fails.
    """

    classes = 256

    def __init__(self, seconds: Callable[[int], float] = lambda _: 0.0, *, broken: int | None = None) -> None:
        self.seconds = seconds
        self.broken = broken
        self.batches: list[list[int]] = []

    def run(self, images: NDArray[np.float32]) -> Outputs:
        assert images.dtype == np.float32
        blue = [int(value) for value in np.rint(images[:, 2, 0, 0] * 255)]
        self.batches.append(blue)
        if self.broken in blue:
            raise RuntimeError("the engine broke")
        time.sleep(self.seconds(blue[0]))
        features = np.array(blue, np.float32)[:, None]
        return Outputs(-np.abs(np.arange(self.classes, dtype=np.float32) - features), features)
