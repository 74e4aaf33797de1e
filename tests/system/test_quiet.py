"""Only this program's own lines reach stderr; with `-v`, those of libraries too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CHATTER = """
import ctypes, logging, os, subprocess, sys, threading, warnings
from resnetd_cli.system import quiet

quiet.own_stderr(sys.argv)
if "-v" in sys.argv:
    quiet.share_stderr()
os.write(2, b"native\\n")
warnings.warn("warned")
logging.getLogger("a.library").warning("logged")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('child\\\\n')"])
sys.stderr.write("ours\\u2713\\n")
print("data")
"""


def chatter(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([sys.executable, "-c", CHATTER, *arguments], capture_output=True, env=env, check=False)


def test_library_output_does_not_reach_stderr() -> None:
    finished = chatter()
    assert finished.stdout.split() == [b"data"]
    assert finished.stderr.decode() == "ours\u2713\n"


def test_verbose_lets_library_output_through() -> None:
    text = chatter("-v").stderr.decode()
    for words in ("native", "warned", "logged", "ZeroDivisionError", "child", "ours\u2713"):
        assert words in text


def test_dev_stderr_as_a_file_is_not_redirected() -> None:
    assert b"native" in chatter("-o", "/dev/stderr").stderr


@pytest.mark.skipif(sys.platform == "win32", reason="closing it takes a shell")
def test_closed_stderr_is_not_reused_by_the_next_file(tmp_path: Path) -> None:
    """Writes to descriptor 2 must not end up in the file that is opened next."""
    program, output = tmp_path / "chatter.py", tmp_path / "output"
    lines = CHATTER.replace("sys.stderr.write", "str").splitlines()
    program.write_text("\n".join([*lines[:7], f"file = open({str(output)!r}, 'w')", *lines[7:]]))
    command = f"{sys.executable} {program} 2>&-"
    finished = subprocess.run(command, shell=True, capture_output=True, check=False)
    assert (finished.returncode, finished.stdout.split()) == (0, [b"data"])
    assert output.read_text() == ""
