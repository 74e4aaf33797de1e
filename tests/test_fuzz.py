"""The fuzzers, in short seeded runs; what longer ones found is kept here, and in the tests of what was mended."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import mutations

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", ["decode", "labels", "card", "config", "model"])
def test_a_short_run_finds_nothing(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", target, "-seed=1", "-runs=3000", f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 3000 runs" in done.stderr
    assert list(tmp_path.iterdir()) == []


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
