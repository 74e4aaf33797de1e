"""Out of memory, threads, files or disk space, odd environments, signals: one error, an exit code, no debris."""

from __future__ import annotations

import errno
import itertools
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.fake_pipeline import FakeEngine, answers, jitter, pipeline, source
from helpers.limits import largest_file
from helpers.paths import COFFEE, ROOT
from helpers.program import ENDLESS_COMPILATION, Cli, Resnetd, is_one_error

from resnetd_cli.cli import app, open_file_limit, signals
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import ResnetdError
from resnetd_cli.pipeline.decode.image import decode
from resnetd_cli.pipeline.sources.expand import Source
from resnetd_cli.pipeline.sources.readahead import ReadAhead
from resnetd_cli.system import files

if os.name != "posix":
    pytest.skip("limits and signals of POSIX", allow_module_level=True)

BASH = shutil.which("bash")
PYTHON = shlex.quote(sys.executable)
needs_bash = pytest.mark.skipif(BASH is None, reason="needs bash")


class Ended(NamedTuple):
    """How a process ended, and what it left in its folder."""

    code: int
    stdout: str
    stderr: str
    left: list[str]

    def is_one_error(self, code: int = 1) -> bool:
        lines = self.stderr.splitlines()
        assert [line.partition(" ")[0] for line in lines] == ["error:", "hint:"], self.stderr
        assert "unexpected" not in lines[0]
        assert self.code == code
        return True


class Machine:
    """A home with the embedded model compiled, in which lines are run by bash in an empty folder."""

    def __init__(self, home: Path, without_torch: dict[str, str]) -> None:
        self.home = home
        self.environment = Resnetd(home).env(
            **{**without_torch, "RESNETD_ENGINE": "auto"},
            RESNETD_MODEL="embedded",
            PYTHONPATH=str(ROOT),
            COFFEE=str(COFFEE),
            PYTHONDONTWRITEBYTECODE="1",  # Python 3.11 keeps the half of a file that `ulimit -f` leaves it
        )
        (home / "bin").mkdir(parents=True)
        command = home / "bin" / "resnetd"
        command.write_text(f'#!/bin/sh\nexec {PYTHON} -m resnetd_cli "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        self.environment["PATH"] = f"{home / 'bin'}{os.pathsep}{self.environment['PATH']}"
        self._runs = 0

    def folder(self) -> Path:
        self._runs += 1
        folder = self.home / str(self._runs)
        folder.mkdir()
        return folder

    def run(self, line: str, **changes: str) -> Ended:
        """Run a line to its end."""
        folder = self.folder()
        finished = subprocess.run(
            [str(BASH), "-c", line],
            cwd=folder,
            env=self.environment | changes,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        texts = [text.decode("utf-8", "surrogateescape") for text in (finished.stdout, finished.stderr)]
        return Ended(finished.returncode, *texts, left_in(folder))

    def stop(
        self,
        arguments: list[str],
        number: signal.Signals,
        wait: Callable[[subprocess.Popen[bytes], Path], None],
        *,
        times: int = 1,
        **changes: str,
    ) -> Ended:
        """Start the program, wait, and send it a signal. `wait` gets the process and its folder."""
        folder = self.folder()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=self.environment | changes,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            wait(process, folder)
            for _ in range(times):
                process.send_signal(number)
            # Its input is still open: it must end before the list does.
            process.wait(timeout=30)
        finally:
            process.kill()
            out, err = process.communicate()
        return Ended(process.returncode, out.decode(), err.decode(), left_in(folder))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def until(process: subprocess.Popen[bytes], is_so: Callable[[], object]) -> None:
    """Wait until something is so, or the process ends."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not is_so():
        time.sleep(0.01)
    assert process.poll() is None, "it ended before"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, without_torch: dict[str, str]) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "home", without_torch)


def told(error: Exception) -> str:
    known = app._as_resnetd_error(error)
    assert "unexpected" not in known.message
    assert "\n" not in known.message
    return f"{known.message}; {hint_of(known)}"


# --- out of memory, threads, files or space ---


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("bad allocation"), "not enough memory"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (ImportError("libx.so: failed to map segment from shared object"), "libx.so: failed to map"),
        (OSError(errno.EMFILE, "Too many open files", "/x/y.py"), "/x/y.py: too many open files; ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write the output: no space left on device"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "/x: permission denied"),
    ],
)
def test_shortage_of_memory_threads_files_or_space_is_named(error: Exception, said: str) -> None:
    assert said in told(error)


def test_library_that_cannot_be_loaded_shows_the_innermost_reason() -> None:
    try:
        try:
            raise ImportError("libopenblas.so: failed to map segment")
        except ImportError as error:
            raise ImportError("\n\nIMPORTANT: PLEASE READ THIS\n\nmany lines") from error
    except ImportError as error:
        assert "libopenblas.so" in told(error)


def test_out_of_memory_in_a_decoder_is_not_a_damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    def short(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", short)
    with pytest.raises(MemoryError):
        decode(COFFEE.read_bytes())


def test_without_a_home_folder_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("RESNETD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(OSError, match="Not a directory"):
        files.cache_dir().mkdir(parents=True)


def test_tilde_of_an_unknown_user_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETD_CACHE", "~nobody-of-this-name/x")
    assert files.cache_dir() == Path("~nobody-of-this-name/x")


# --- threads ---


@pytest.mark.parametrize("threads", [2, 3])
def test_run_succeeds_with_fewer_threads_than_asked_for(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """One thread reads the inputs; the rest do the work of the eight that are wanted."""
    start, started = threading.Thread.start, itertools.count()

    def short(self: threading.Thread) -> None:
        if next(started) >= threads:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", short)
    run = pipeline(FakeEngine(jitter(1)), workers=8).run(source(n) for n in range(40))
    assert list(run) == answers(range(40))


def test_url_is_read_in_turn_when_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    ahead = ReadAhead(2)
    given = [Source(f"http://{n}", lambda n=n: bytes([n]), is_remote=True) for n in range(5)]  # type: ignore[misc]
    assert [one.read() for one in ahead.begin(given)] == [bytes([n]) for n in range(5)]
    ahead.close()


# --- files ---


def test_too_low_open_file_limit_names_the_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 12))
    wanted: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, bounds: wanted.append(bounds))
    with pytest.raises(ResnetdError, match="only 12 files") as caught:
        open_file_limit.check()
    assert "ulimit -n" in str(hint_of(caught.value))
    assert wanted == [(12, 12)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 4096))
    open_file_limit.check()
    assert wanted[-1] == (64, 4096)


@needs_bash
@pytest.mark.slow
def test_sixteen_open_files_are_enough(machine: Machine) -> None:
    line = (
        "ulimit -n 16; resnetd predict $COFFEE missing.jpg $COFFEE -k 1 --features-out x.npy -o x.jsonl -q; "
        "echo $?; wc -l < x.jsonl"
    )
    ended = machine.run(line)
    assert ended.stdout.split() == ["3", "3"]
    assert ended.left == ["x.jsonl", "x.npy", "x.npy.index.csv"]
    assert machine.run(f"ulimit -n 10; {PYTHON} -m resnetd_cli predict $COFFEE").is_one_error()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        f"predict {COFFEE} -k 1000 -o x.csv",
        f"predict {COFFEE} -k 1000 -o x.jsonl",
        f"features {COFFEE} {COFFEE} {COFFEE} -o x.npy",
        f"features {COFFEE} -o x.npz",
        f"features {COFFEE} -o x.safetensors",
        "labels -f json -o x.json",
        "export embedded -o x.onnx",
    ],
)
def test_full_disk_leaves_no_output_behind(
    cli: Cli, compiled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    # Python 3.11 would keep the half of a module that the limit leaves it.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with largest_file(4096):
        ended = cli(*shlex.split(arguments))
    assert is_one_error(ended, 1)
    assert "cannot write x." in ended.stderr
    assert "file too large" in ended.stderr
    assert left_in(tmp_path) == []


@needs_bash
@pytest.mark.slow
def test_unwritable_cache_does_not_fail_predict(
    machine: Machine, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cache in ("/dev/null", "/dev/null/x", "~nobody-of-this-name/x/../../dev/null"):
        monkeypatch.setenv("RESNETD_CACHE", cache)
        answered = cli("predict", COFFEE, "-k", "1", "--no-header", "--engine", "auto")
        assert (answered.code, answered.stdout.split("\t")[5]) == (0, "espresso"), answered.stderr
    ended = machine.run(
        "ulimit -f 4; resnetd predict $COFFEE -k 1 --no-header; find cache -type f", RESNETD_CACHE="cache"
    )
    assert ended.stdout.count("espresso") == ended.stdout.count("\n") == 1
    assert "the compiled model cannot be kept" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.csv", "x.npy"])
def test_output_folder_removed_during_the_run_is_one_error(machine: Machine, name: str) -> None:
    command = "predict" if name.endswith("csv") else "features"
    folder = machine.folder()
    target = folder / "out"
    target.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "resnetd_cli", command, "--files-from", "-", "-o", str(target / name), "-q"],
        env=machine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(process, lambda: left_in(target))
    shutil.rmtree(target)
    out, err = process.communicate(f"{COFFEE}\n".encode(), timeout=60)
    assert Ended(process.returncode, out.decode(), err.decode(), left_in(folder)).is_one_error()
    assert f"cannot write {target / name}" in err.decode()
    assert left_in(folder) == []


# --- missing or odd environment variables ---

PREDICT = "resnetd predict $COFFEE missing.jpg -k 1 -f tsv"
ROWS = (
    "input\tstatus\trank\tindex\tid\tlabel\tprobability\terror\n"
    f"{COFFEE}\tok\t1\t967\tn07920052\tespresso\t0.954636\t\n"
    "missing.jpg\terror\t\t\t\t\t\tnot_found: no such file or folder\n"
)


@needs_bash
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        "env -u HOME",
        "env HOME=/dev/null",
        "env -u TERM -u LANG -u LC_ALL",
        "env TMPDIR=/nowhere",
        "env PYTHONWARNINGS=error",
        "env PYTHONIOENCODING=ascii",
        "env PYTHONIOENCODING=utf-16",
        "env LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
        "env COLUMNS=0 LINES=nonsense",
        "env HF_HOME=/dev/null",
    ],
)
def test_predictions_do_not_depend_on_the_environment(machine: Machine, settings: str) -> None:
    ended = machine.run(f"{settings} {PREDICT} -q 2> /dev/null")
    assert ended.code == 3
    assert ended.stdout == ROWS


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide", "9" * 20])
def test_table_is_readable_with_nonsense_in_columns(
    cli: Cli, compiled: None, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words, shown in ((("predict", COFFEE, "-k", "1"), "espresso"), (("list-models",), "resnet101d.ra2_in1k")):
        ended = cli(*words, "-f", "table")
        assert (ended.code, ended.stderr) == (0, "")
        assert shown in ended.stdout


@needs_bash
@pytest.mark.slow
def test_closed_standard_streams_do_not_crash(machine: Machine) -> None:
    ended = machine.run(
        "resnetd predict $COFFEE -o x.csv -k 1 <&- >&- 2>&-; echo $?; wc -l < x.csv; "
        "resnetd predict $COFFEE <&- >&- 2>&-; echo $?; resnetd --help <&- >&- 2>&-; echo $?"
    )
    assert ended.stdout.split()[:3] == ["0", "2", "1"]
    assert ended.stderr == ""


@needs_bash
@pytest.mark.slow
def test_removed_current_folder_is_one_error(machine: Machine) -> None:
    gone = "mkdir gone; cd gone; rmdir ../gone; "
    ended = machine.run(f"{gone} {PREDICT} -q 2> /dev/null")
    assert (ended.code, ended.stdout) == (3, ROWS)
    for arguments in ("predict $COFFEE -o x.csv", "features $COFFEE -o x.npy", "predict $COFFEE --engine torch"):
        ended = machine.run(f"{gone} {PYTHON} -m resnetd_cli {arguments}")
        assert ended.is_one_error()
        assert "the current folder is gone" in ended.stderr


@needs_bash
@pytest.mark.slow
def test_only_caches_are_written_to_the_home_folder(machine: Machine) -> None:
    """ONNX Runtime would keep an identifier of the device there, and send measurements home."""
    ended = machine.run('mkdir home; HOME="$PWD/home" resnetd predict $COFFEE -k 1 -q > /dev/null; find home')
    assert (ended.stdout, ended.stderr) == ("home\n", "")


# --- SIGTERM, SIGHUP ---

SIGNALS = [(signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")]
with_each_signal = pytest.mark.parametrize(("number", "code", "note"), SIGNALS, ids=["SIGTERM", "SIGHUP"])
RESNETD = ["-m", "resnetd_cli"]
# Sends itself a signal when a module is first imported.
IN_IMPORT = """
import signal, sys
wanted, number = sys.argv.pop(1), int(sys.argv.pop(1))
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            signal.raise_signal(number)
sys.meta_path.insert(0, Finder())
from resnetd_cli.__main__ import main
main()
"""


def give_names(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Give it a list that has no end yet, and wait until a file is being written."""
    assert process.stdin
    process.stdin.write(f"{COFFEE}\n".encode() * 200)
    process.stdin.flush()
    until(process, lambda: any(path.stat().st_size > 8000 for path in folder.iterdir()))


@pytest.mark.slow
@with_each_signal
@pytest.mark.parametrize("target", ["predict x.csv", "features x.npy"])
def test_signal_keeps_the_records_so_far_in_a_partial_file(
    machine: Machine, number: signal.Signals, code: int, note: str, target: str
) -> None:
    command, name = target.split()
    arguments = [*RESNETD, command, "--files-from", "-", "-o", name]
    # Twice, as `timeout` and shells send it to a process and to its group.
    for times in (1, 2):
        ended = machine.stop(arguments, number, give_names, times=times)
        assert (ended.code, ended.stdout) == (code, "")
        told, said = ended.stderr.splitlines()
        assert told.startswith(f"the run ended early: {name}.partial ")
        assert said == note
        assert ended.left == sorted(
            {f"{name}.partial", "x.npy.index.csv.partial" if "npy" in name else "x.csv.partial"}
        )


@pytest.mark.slow
@with_each_signal
def test_signal_during_compilation_leaves_nothing_behind(
    machine: Machine, number: signal.Signals, code: int, note: str
) -> None:
    cache = machine.home / f"cache-{note}"

    def compiling(process: subprocess.Popen[bytes], _: Path) -> None:
        until(process, lambda: list(cache.rglob(".making-*/*")))

    program = ["-c", ENDLESS_COMPILATION, "pull", "embedded", "-q"]
    ended = machine.stop(program, number, compiling, RESNETD_CACHE=str(cache))
    assert ended == (code, "", "", [])
    assert [path for path in cache.rglob("*") if path.name != "bundles"] == []


@pytest.mark.slow
@with_each_signal
def test_signal_ends_the_wait_for_a_silent_server(
    machine: Machine, number: signal.Signals, code: int, note: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def asked(process: subprocess.Popen[bytes], _: Path) -> None:
            server.settimeout(60)
            connection, _address = server.accept()
            kept.append(connection)

        kept: list[socket.socket] = []
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.jpg"
        ended = machine.stop([*RESNETD, "predict", url, "-f", "jsonl", "-o", "x.jsonl"], number, asked)
        kept[0].close()
    assert ended == (code, "", f"{note}\n", [])


@pytest.mark.slow
@with_each_signal
@pytest.mark.parametrize(
    "module", ["typer", "resnetd_cli.cli.commands.predict", "numpy", "numpy.linalg", "onnxruntime", "PIL.Image"]
)
def test_signal_during_an_import_ends_the_process(
    machine: Machine, number: signal.Signals, code: int, note: str, module: str
) -> None:
    folder = machine.folder()
    finished = subprocess.run(
        [sys.executable, "-c", IN_IMPORT, module, str(int(number)), "predict", str(COFFEE), "-o", "x.csv"],
        cwd=folder,
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (code, "")
    assert finished.stderr in (f"{note}\n", "")
    assert left_in(folder) == []


@needs_bash
@pytest.mark.slow
def test_nohup_ignores_sighup(machine: Machine) -> None:
    ended = machine.run(
        "mkfifo names; nohup resnetd predict --files-from names -k 1 -o x.tsv 2> /dev/null & "
        'exec 3> names; echo "$COFFEE" >&3; '
        "for i in $(seq 600); do ls -A | grep -q '[.]partial$' && break; sleep 0.1; done; "
        "kill -HUP $!; exec 3>&-; wait $!; echo $?; wc -l < x.tsv"
    )
    assert ended.stdout.split() == ["0", "2"]


def test_signals_in_quick_succession_count_as_one() -> None:
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals.install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with pytest.raises(signals.Stopped) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert (caught.value.exit_code, caught.value.note) == (143, "terminated")
        signal.raise_signal(signal.SIGTERM)  # ignored, so that the cleaning up is not interrupted
        assert signals.raised.pop() is caught.value
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def test_signal_swallowed_by_a_library_still_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose(_: object) -> int:
        signals.raised.append(signals.Stopped(signal.SIGTERM))
        raise ImportError("import numpy failed")

    monkeypatch.setattr(app, "_invoke", lose)
    monkeypatch.setattr(signals, "raised", [])
    assert app.run(["list-models"]) == 143
    assert capsys.readouterr().err == "terminated\n"
