"""Ctrl-C at any moment: exit code 130, soon, and complete output so far."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.paths import COFFEE, ROOT
from helpers.program import Resnetd

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals")]

FORMATS = ("tsv", "csv", "json", "jsonl", "table")
INPUTS = 500
LINES = 40
"""Lines of output after which the signal comes."""
ENOUGH = 8000
"""Bytes of a file after which it comes."""
# Seconds that Ctrl-C may take: usually a tenth; a busy machine may need more.
PATIENCE = 15.0

# Sends itself a signal when a module is first imported.
IN_IMPORT = """
import signal, sys
wanted = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from resnetd_cli.__main__ import main
main()
"""
# Reports when the interpreter has started: before that, no program can handle a signal.
READY = """
import sys
from resnetd_cli.__main__ import main
print("ready", file=sys.stderr, flush=True)
main()
"""


class Ended(NamedTuple):
    """How an interrupted process ended; the seconds are those from the signal to the end."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    left: list[str]


Interrupted = Callable[[str], Ended]


def interrupt(
    arguments: list[str],
    home: Path,
    wait: Callable[[subprocess.Popen[bytes], Path], None],
    changes: dict[str, str],
) -> Ended:
    """Start the program in an empty folder, wait, and send it what Ctrl-C sends.

    `wait` gets the process and the folder that has its output, in `stdout` and `stderr`, and its working folder.
    """
    folder = home / "work"
    folder.mkdir(parents=True)
    with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=Resnetd(home).env(RESNETD_MODEL="embedded", PYTHONPATH=str(ROOT), **changes),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        wait(process, home)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        # Its input is still open: it must end before the list does.
        try:
            code: int | None = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            code = None  # it continues as if nothing had happened
        seconds = time.monotonic() - began
    finally:
        process.kill()
        process.communicate()
    texts = [(home / name).read_bytes().decode() for name in ("stdout", "stderr")]
    return Ended(code, *texts, seconds, sorted(path.name for path in folder.iterdir()))


def give_inputs(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.write(f"{COFFEE}\n".encode() * INPUTS)
    process.stdin.flush()


def poll(process: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    """Wait until something is so, or the process ends."""
    deadline = time.monotonic() + 180  # a machine may be busy
    while process.poll() is None and time.monotonic() < deadline and not is_so():
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it was interrupted"


def until_it_answers(process: subprocess.Popen[bytes], home: Path) -> None:
    """Wait until forty lines are there."""
    give_inputs(process)
    poll(process, lambda: (home / "stdout").read_bytes().count(b"\n") >= LINES)


def until_it_writes(process: subprocess.Popen[bytes], home: Path) -> None:
    """Wait until some answers are in a file in the working folder."""
    give_inputs(process)
    poll(process, lambda: any(path.stat().st_size > ENOUGH for path in (home / "work").iterdir()))


def until_ready(seconds: float) -> Callable[[subprocess.Popen[bytes], Path], None]:
    """Wait until the interpreter is up, and so many seconds longer."""

    def wait(process: subprocess.Popen[bytes], home: Path) -> None:
        poll(process, lambda: (home / "stderr").read_bytes() == b"ready\n")
        time.sleep(seconds)

    return wait


PREDICT = ["-m", "resnetd_cli", "predict", "--files-from", "-", "--no-progress"]
FEATURES = ["-m", "resnetd_cli", "features", "--files-from", "-", "--no-progress"]
INTO_FILES = {
    "out.csv": [*PREDICT, "-o", "out.csv"],
    "out.json": [*PREDICT, "-o", "out.json"],
    "x.npy": [*FEATURES, "-o", "x.npy"],
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, without_torch: dict[str, str]) -> Iterator[Interrupted]:
    """Give how a run ended, by its format or its file. They all start at the first question, two at a time."""
    folder = tmp_path_factory.mktemp("interrupted")
    with ThreadPoolExecutor(2) as pool:
        futures = {
            name: pool.submit(interrupt, [*PREDICT, "-f", name], folder / name, until_it_answers, without_torch)
            for name in FORMATS
        } | {
            name: pool.submit(interrupt, arguments, folder / name, until_it_writes, without_torch)
            for name, arguments in INTO_FILES.items()
        }
        yield lambda name: futures[name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", FORMATS)
def test_ctrl_c_exits_with_130_and_no_traceback(interrupted: Interrupted, name: str) -> None:
    ended = interrupted(name)
    assert (ended.code, ended.stderr) == (130, "interrupted\n")
    assert ended.seconds < PATIENCE
    assert ended.left == []


def test_ctrl_c_leaves_complete_json_lines(interrupted: Interrupted) -> None:
    text = interrupted("jsonl").stdout
    assert text.endswith("}\n")
    records = [json.loads(line) for line in text.splitlines()]
    assert LINES <= len(records) < INPUTS
    assert {record["predictions"][0]["label"] for record in records} == {"espresso"}
    assert {len(record["predictions"]) for record in records} == {5}


def test_ctrl_c_leaves_a_complete_json_array(interrupted: Interrupted) -> None:
    records = json.loads(interrupted("json").stdout)
    assert LINES - 2 <= len(records) < INPUTS
    assert {record["predictions"][0]["label"] for record in records} == {"espresso"}


@pytest.mark.parametrize(("name", "separator"), [("csv", ","), ("tsv", "\t")])
def test_ctrl_c_leaves_complete_rows(interrupted: Interrupted, name: str, separator: str) -> None:
    text = interrupted(name).stdout
    assert text.endswith("\n")
    header, *rows = csv.reader(io.StringIO(text), delimiter=separator)
    assert header == ["input", "status", "rank", "index", "id", "label", "probability", "error"]
    assert {len(row) for row in rows} == {8}
    assert [row[2] for row in rows] == ["1", "2", "3", "4", "5"] * (len(rows) // 5)
    assert LINES - 5 <= len(rows) < 5 * INPUTS


def test_ctrl_c_leaves_complete_tables(interrupted: Interrupted) -> None:
    text = interrupted("table").stdout
    assert text.count(str(COFFEE)) == text.count("espresso") == text.count("coffee mug") >= 4


@pytest.mark.parametrize("name", INTO_FILES)
def test_signal_keeps_the_records_so_far_in_a_partial_file(interrupted: Interrupted, name: str) -> None:
    ended = interrupted(name)
    told, said = ended.stderr.splitlines()
    assert (ended.code, ended.stdout, said) == (130, "", "interrupted")
    assert re.fullmatch(rf"the run ended early: {name}\.partial (and its index )?holds? the first \d+ \w+", told)
    assert ended.seconds < PATIENCE
    assert f"{name}.partial" in ended.left
    assert all(left.endswith(".partial") for left in ended.left)


# --- while it starts ---


@pytest.fixture(scope="module")
def starting(
    tmp_path_factory: pytest.TempPathFactory, without_torch: dict[str, str]
) -> Iterator[Callable[[float | str], Ended]]:
    """Give how a process ended that was interrupted so many seconds after its start, or in importing a module."""
    folder = tmp_path_factory.mktemp("starting")

    def after(seconds: float) -> Ended:
        arguments = ["-c", READY, "predict", "-", "-k", "1"]
        ended = interrupt(arguments, folder / str(seconds), until_ready(seconds), {})
        return ended._replace(stderr=ended.stderr.removeprefix("ready\n"))

    def importing(module: str) -> Ended:
        began = time.monotonic()
        finished = subprocess.run(
            [sys.executable, "-c", IN_IMPORT, module, "predict", str(COFFEE), "-k", "1"],
            cwd=ROOT,
            env=Resnetd(folder).env(RESNETD_MODEL="embedded", **({} if module in OF_TORCH else without_torch)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return Ended(finished.returncode, finished.stdout, finished.stderr, time.monotonic() - began, [])

    with ThreadPoolExecutor(2) as pool:
        futures = {seconds: pool.submit(after, seconds) for seconds in DELAYS}
        modules = {module: pool.submit(importing, module) for module in MODULES}
        yield lambda moment: (futures | modules)[moment].result()
        pool.shutdown(cancel_futures=True)


DELAYS = (0.0, 0.2, 0.6, 1.5)
OF_TORCH = ("torch", "torch.nn", "timm", "timm.models", "torchvision")
MODULES = (
    "typer",
    "resnetd_cli.cli.commands.predict",
    "resnetd_cli.classifier",
    "numpy",
    "numpy.linalg",
    "numpy._typing",
    "PIL.Image",
    *OF_TORCH,
)


@pytest.mark.parametrize("seconds", DELAYS)
def test_ctrl_c_during_startup_exits_soon(starting: Callable[[float | str], Ended], seconds: float) -> None:
    ended = starting(seconds)
    assert (ended.code, ended.stdout) == (130, "")
    assert ended.stderr in ("interrupted\n", "")
    assert ended.seconds < PATIENCE


@pytest.mark.parametrize("module", MODULES)
def test_ctrl_c_during_an_import_exits_soon(starting: Callable[[float | str], Ended], module: str) -> None:
    ended = starting(module)
    assert (ended.code, ended.stdout) == (130, "")
    assert ended.stderr in ("interrupted\n", "")
