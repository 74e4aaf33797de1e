"""The fuzzers, in short seeded runs; what longer ones found is kept here, and in the tests of what was mended."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import mutations

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


TARGETS = ("decode", "labels", "card", "config", "model", "weights")
# Fuzzes each target in a copy of one process, as importing them takes ten seconds.
FUZZ_EACH = """
import os, sys
from fuzz.__main__ import load_targets, main

folder, *targets = sys.argv[1:]
load_targets()
for target in targets:
    os.mkdir(f"{folder}/{target}")
    if not os.fork():
        os.dup2(os.open(f"{folder}/{target}.err", os.O_WRONLY | os.O_CREAT), 2)
        main([target, "-seed=1", "-runs=3000", f"-artifact_prefix={folder}/{target}/"])
    with open(f"{folder}/{target}.code", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(os.wait()[1])))
"""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each target printed, its exit code, and a folder of the inputs that failed."""
    pytest.importorskip("atheris")
    folder = tmp_path_factory.mktemp("fuzzed")
    subprocess.run([sys.executable, "-c", FUZZ_EACH, folder, *TARGETS], cwd=ROOT, timeout=600, check=True)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing(fuzzed: Path, target: str) -> None:
    stderr = (fuzzed / f"{target}.err").read_text(errors="replace")
    assert (fuzzed / f"{target}.code").read_text() == "0", stderr[-3000:]
    done = re.search(r"Done (\d+) runs", stderr)
    assert done and int(done[1]) >= 3000  # it ends with the mutations of an input
    assert list((fuzzed / target).iterdir()) == []


@pytest.mark.usefixtures("compiled")
def test_damaged_files_have_a_row_each(tmp_path: Path) -> None:
    names = mutations.make(tmp_path, 300, seed=1)
    figures = mutations.run(tmp_path, names, [])
    assert figures["files"] == 300
    assert figures["exit_code"] == 3
    rows = figures["rows"]
    assert isinstance(rows, dict)
    assert set(rows) <= {"ok", "undecodable", "too_large", "empty"}
    assert min(rows["ok"], rows["undecodable"]) > 30


def test_damage_is_the_same_for_the_same_seed() -> None:
    data = bytes(range(256)) * 10
    assert mutations.damage(data, random.Random(3)) == mutations.damage(data, random.Random(3))
    assert mutations.damage(data, random.Random(3)) != mutations.damage(data, random.Random(4)) != data
