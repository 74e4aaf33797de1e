"""Command lines as users type them, through bash: pipes, redirections, process substitution, closed streams."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.program import Resnetd

BASH = shutil.which("bash")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix" or BASH is None, reason="needs bash"),
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full"),
]
Finished = subprocess.CompletedProcess[str]
Shell = Callable[[str], Finished]

TSV_HEADER = "input\tstatus\trank\tindex\tid\tlabel\tprobability\terror"
READER = "import json, sys; [print(json.loads(line)['predictions'][0]['label']) for line in sys.stdin]"
FIND = (
    "find photos -name '*.jpg' -print0 | resnetd predict --files-from - -0 -f jsonl | "
    f"{shlex.quote(sys.executable)} -c {shlex.quote(READER)}"
)
ONE_IMAGE = {
    "cat coffee.jpg | resnetd predict - -f jsonl -k 1": "-",
    "resnetd predict <(cat coffee.jpg) -f jsonl -k 1": "/dev/fd/",
    "resnetd predict coffee.jpg -f jsonl -k 1 <&-": "coffee.jpg",
    "resnetd predict coffee.jpg -f jsonl -k 1 -o >(cat)": "coffee.jpg",
}
ENOUGH = {
    "resnetd predict 'photos/*.jpg' | head -1": f"{TSV_HEADER}\n",
    "resnetd predict photos/b* -f jsonl -k 1000 | true": "",
    "resnetd list-models -f tsv --no-header | head -1 | cut -f 1": "resnet18d.ra2_in1k\n",
    "resnetd labels -f tsv --no-header --set imagenet-22k | head -1 | cut -f 1": "0\n",
    "resnetd labels -f json --set imagenet-22k | true": "",
    "resnetd --help | head -1": "Usage: resnetd [OPTIONS] COMMAND [ARGS]...\n",
}
FULL = (
    "resnetd predict photos -f json > /dev/full",
    "resnetd labels -f csv -o /dev/full",
    "resnetd list-models -f table > /dev/full",
    "resnetd info resnet50d > /dev/full",
    "resnetd info resnet50d --bibtex > /dev/full",
    "resnetd --help > /dev/full",
)
PARTIAL = "resnetd predict photos missing.jpg -f jsonl -k 1 2> notes; echo $?; cat notes >&2"
# The list's writer continues only after it has seen the first result.
SLOW_LIST = (
    "mkfifo names; resnetd predict --files-from names -f tsv --no-header -k 1 > out & "
    "exec 3> names; echo coffee.jpg >&3; "
    "for i in $(seq 600); do [ -s out ] && break; sleep 0.1; done; "
    "cut -f 6 out; echo photos/a.jpg >&3; exec 3>&-; wait $!; echo $?; wc -l < out"
)
NO_STDIN = "resnetd predict - -f jsonl <&-"
NO_STDIN_LIST = "resnetd predict --files-from - -f jsonl <&-"
NO_STDOUT = (
    "resnetd predict coffee.jpg >&-",
    "resnetd list-models >&-",
    "resnetd info resnet50d >&-",
    "resnetd info resnet50d --bibtex >&-",
)
NO_STDOUT_NEEDED = "resnetd predict coffee.jpg -k 1 -o out.jsonl >&-; echo $?; cat out.jsonl"
NO_STDERR = {
    "resnetd predict coffee.jpg missing.jpg -k 1 --no-header 2>&-": (3, 2),
    "resnetd list-models --no-header 2>&-": (0, 15),
    "resnetd list-models nothing 2>&-": (2, 0),
    "resnetd 2>&-": (2, 0),
}
ASCII = (
    "cp coffee.jpg 'é ☕.jpg'; "
    "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=ascii resnetd predict 'é ☕.jpg' -f tsv -k 1"
)
BYTES = (
    r"cp coffee.jpg $'\xff.jpg' 2> /dev/null || { echo skip; exit; }; "
    r"find . -maxdepth 1 -name $'\xff*' -print0 | resnetd predict --files-from - -0 -f tsv -k 1 --no-header | "
    r"cut -f 1 | tr -d '\n' | xargs -0 basename | od -An -tx1"
)
LINES = (
    FIND,
    *ONE_IMAGE,
    *ENOUGH,
    *FULL,
    PARTIAL,
    SLOW_LIST,
    NO_STDIN,
    NO_STDIN_LIST,
    *NO_STDOUT,
    NO_STDOUT_NEEDED,
    *NO_STDERR,
    ASCII,
    BYTES,
)


def run_line(line: str, home: Path, changes: dict[str, str]) -> Finished:
    """Run a line in bash, where `resnetd` is a command, in a folder of its own with `coffee.jpg` and `photos/`."""
    (home / "bin").mkdir(parents=True)
    command = home / "bin" / "resnetd"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m resnetd_cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    folder = home / "work"
    (folder / "photos").mkdir(parents=True)
    for name in ("coffee.jpg", "photos/a.jpg", "photos/b c.jpg", "photos/d.jpg"):
        shutil.copy(ROOT / "samples" / "coffee.jpg", folder / name)
    environment = Resnetd(home).env(RESNETD_MODEL="embedded", PYTHONPATH=str(ROOT), **changes)
    environment["PATH"] = f"{home / 'bin'}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        [str(BASH), "-o", "pipefail", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, without_torch: dict[str, str]) -> Iterator[Shell]:
    """Give what a line of `LINES` did. They all start at the first question, two at a time."""
    folder = tmp_path_factory.mktemp("shell")
    with ThreadPoolExecutor(2) as pool:
        futures = {
            line: pool.submit(run_line, line, folder / str(place), without_torch)
            for place, line in enumerate(LINES)
        }
        yield lambda line: futures[line].result()
        pool.shutdown(cancel_futures=True)


def is_one_error(finished: Finished, code: int) -> bool:
    """Assert one error line that somebody thought of, and its hint."""
    lines = finished.stderr.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["error:", "hint:"], finished.stderr
    assert "unexpected" not in lines[0]
    assert finished.returncode == code
    return True


def test_find_print0_to_jsonl_to_a_program(shell: Shell) -> None:
    finished = shell(FIND)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "espresso\n" * 3, "")


@pytest.mark.parametrize(("line", "name"), ONE_IMAGE.items())
def test_image_from_stdin_is_classified(shell: Shell, line: str, name: str) -> None:
    finished = shell(line)
    assert (finished.returncode, finished.stderr) == (0, "")
    record = json.loads(finished.stdout)
    assert record["input"].startswith(name)
    assert [item["label"] for item in record["predictions"]] == ["espresso"]


@pytest.mark.parametrize(("line", "shown"), ENOUGH.items())
def test_closed_pipe_is_not_an_error(shell: Shell, line: str, shown: str) -> None:
    finished = shell(line)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, shown, "")


@pytest.mark.parametrize("line", FULL)
def test_full_disk_is_one_error(shell: Shell, line: str) -> None:
    finished = shell(line)
    assert is_one_error(finished, 1)
    assert "no space left on device" in finished.stderr


def test_stdout_has_only_data(shell: Shell) -> None:
    finished = shell(PARTIAL)
    *lines, code = finished.stdout.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["ok", "ok", "ok", "error"]
    assert code == "3"
    error, hint, count = finished.stderr.splitlines()
    assert error == "error: missing.jpg: no such file or folder"
    assert hint.startswith("hint: ")
    assert count == "1 of 4 inputs failed"


def test_results_do_not_wait_for_the_end_of_the_list(shell: Shell) -> None:
    assert shell(SLOW_LIST).stdout.split() == ["espresso", "0", "2"]


# --- streams that are closed ---


def test_closed_stdin_is_a_failed_input(shell: Shell) -> None:
    finished = shell(NO_STDIN)
    assert is_one_error(finished, 3)
    record = json.loads(finished.stdout)
    assert (record["input"], record["status"]) == ("-", "error")
    assert record["error"]["kind"] == "empty"


def test_closed_stdin_is_an_unreadable_list(shell: Shell) -> None:
    finished = shell(NO_STDIN_LIST)
    assert is_one_error(finished, 2)
    assert finished.stdout == ""


@pytest.mark.parametrize("line", NO_STDOUT)
def test_closed_stdout_is_one_error(shell: Shell, line: str) -> None:
    assert is_one_error(shell(line), 1)


def test_closed_stdout_does_not_affect_an_output_file(shell: Shell) -> None:
    finished = shell(NO_STDOUT_NEEDED)
    code, record = finished.stdout.splitlines()
    assert (code, finished.stderr) == ("0", "out.jsonl: 1 input\n")
    assert json.loads(record)["predictions"][0]["label"] == "espresso"


@pytest.mark.parametrize(("line", "expected"), NO_STDERR.items())
def test_closed_stderr_changes_nothing_else(shell: Shell, line: str, expected: tuple[int, int]) -> None:
    finished = shell(line)
    assert (finished.returncode, len(finished.stdout.splitlines())) == expected


# --- text ---


def test_output_is_utf_8_in_any_locale(shell: Shell) -> None:
    finished = shell(ASCII)
    assert finished.returncode == 0
    assert finished.stdout.splitlines()[1].split("\t")[:2] == ["é ☕.jpg", "ok"]


def test_non_utf_8_names_survive_a_pipeline(shell: Shell) -> None:
    finished = shell(BYTES)
    if finished.stdout == "skip\n":
        pytest.skip("this file system takes only UTF-8")
    assert finished.stdout.split() == ["ff", "2e", "6a", "70", "67", "0a"]
