"""Fixtures for the whole suite."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.hub import OWN_CLASSES, Hub, timm_files, write_model
from helpers.paths import CAT, COFFEE
from helpers.program import Cli, Ended, Resnetd, ResnetdHere

if TYPE_CHECKING:
    from torch import nn

# One thread for each worker of the suite: the networks of tests are too small for more. numpy and torch read it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run files named on the command line in this process, and the whole suite on every processor.

    Slow tests wait for servers, terminals and children, so with them there is one worker more than processors.
    """
    if config.args != config.getini("testpaths"):
        return 0
    return (os.cpu_count() or 1) + (0 if config.option.markexpr else 1)


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


@pytest.fixture(scope="session", autouse=True)
def curves_not_drawn() -> Iterator[None]:
    """Spare each training run the half second that its curves take; tests of their own draw them."""
    from resnetd_cli.training import curves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            curves, "draw", lambda rows, rates, file: file.write(f"curves of {len(rows)} epochs".encode())
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def one_processor_each() -> Iterator[None]:
    """Use one processor for each worker of the suite where the program would use all: threads that wait, spin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resnetd_cli.training.accelerator.cpus_per_process", lambda: 1)
        patch.setattr("resnetd_cli.pipeline.engines.onnx.limited_cpus", lambda: 1)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Train in one thread: the networks of tests are too small for more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def short_dry_runs() -> Iterator[None]:
    """Try each network with each size and batch once: its dry runs are half of what a run of a few steps takes."""
    from resnetd_cli.models import dry_run

    original, known = dry_run._runs, dict[object, bool]()

    def remembered(build: Callable[[], nn.Module], size: tuple[int, int], images: int = 1) -> bool:
        try:
            module = build()
        except Exception:  # networks raise many types
            return False
        shapes = tuple((name, tensor.shape) for name, tensor in module.state_dict().items())
        key = (str(module), shapes, tuple(each.training for each in module.modules()), size, images)
        if key not in known:
            known[key] = original(lambda: module, size, images)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dry_run, "_runs", remembered)
        yield


@pytest.fixture
def run_resnetd(tmp_path: Path) -> Iterator[Resnetd]:
    """`run_resnetd("predict", "dog.jpg", endpoint=hub.endpoint)` gives the finished process."""
    resnetd = Resnetd(tmp_path / "home")
    yield resnetd
    resnetd.close()


@pytest.fixture
def cli(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cli]:
    """Run a command line in this process, in an empty folder, with the embedded model for a default."""
    from resnetd_cli.cli.app import run
    from resnetd_cli.cli.console import terminal

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNETD_MODEL", "embedded")

    def _cli(*arguments: str | Path) -> Ended:
        terminal.setup()  # as in a new process
        assert isinstance(sys.stderr, io.TextIOWrapper)
        sys.stderr.reconfigure(errors="backslashreplace")  # as the interpreter's own
        code = run([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return Ended(code, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape"))

    yield _cli
    terminal.setup()  # an option such as --quiet must not reach the next test


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a child that starts without torch: its cache holds the compiled embedded model."""
    from helpers.loaders import loader_for

    cache = str(tmp_path_factory.mktemp("compiled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETD_CACHE", cache)
        loader_for("embedded").compile()
    return {"RESNETD_CACHE": cache, "RESNETD_ENGINE": "onnx"}


@pytest.fixture
def compiled(without_torch: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer with the compiled embedded model, which starts in a tenth of the time that torch takes."""
    monkeypatch.setenv("RESNETD_CACHE", without_torch["RESNETD_CACHE"])
    monkeypatch.setenv("RESNETD_ENGINE", "auto")


@pytest.fixture
def run_here(cli: Cli, tmp_path: Path) -> ResnetdHere:
    """As `run_resnetd`, and with its caches, but in this process."""
    return ResnetdHere(tmp_path / "home", cli)


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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs, of which the embedded model takes one for something else."""
    for name, source in (("espresso", COFFEE), ("Egyptian_cat", CAT)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        shutil.copy(source, tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    from helpers.scripted_model import ACTUAL, FOLDERS, draw

    for blue, label in enumerate(ACTUAL):
        draw(tmp_path / "pets" / FOLDERS[label] / f"{blue}.png", blue)
    return tmp_path / "pets"


@pytest.fixture(scope="session")
def own_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `own` copies."""
    import numpy as np
    from PIL import Image

    from resnetd_cli.loading import load
    from resnetd_cli.pipeline.options import Runtime

    top = tmp_path_factory.mktemp("own")
    write_model(top / "run", "test_resnet", OWN_CLASSES)
    random = np.random.default_rng(0)
    found = []
    for number in range(12):
        path = top / f"{number}.png"
        low = random.integers(0, 200, 3)
        Image.fromarray(random.integers(low, low + 56, (160, 160, 3)).astype(np.uint8)).save(path)
        found.append(path)
    answers = list(load(str(top / "run"), runtime=Runtime("torch")).predict(found, top_k=1))
    for number, (path, answer) in enumerate(zip(found, answers, strict=True)):
        right = answer.predictions[0].index  # type: ignore[union-attr]
        name = OWN_CLASSES[(right + (number % 4 == 0)) % 3]
        (top / "data" / name).mkdir(parents=True, exist_ok=True)
        path.rename(top / "data" / name / path.name)
    return top


@pytest.fixture
def own(own_original: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A model folder, and images in folders of classes of which it has most right."""
    for name in ("run", "data"):
        shutil.copytree(own_original / name, tmp_path / name)
    return tmp_path / "run", tmp_path / "data"
