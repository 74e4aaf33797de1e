"""`resnetd features`: arrays, the index beside them, and runs that stop early."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import CAT, COFFEE, ROOT
from helpers.program import Cli, Resnetd
from safetensors.numpy import load_file

pytestmark = pytest.mark.usefixtures("compiled")


def there() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def read_index(path: str) -> list[list[str]]:
    with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_every_array_format_holds_same_values(cli: Cli) -> None:
    Path("bad.jpg").write_text("no", encoding="utf-8")
    inputs = (CAT, "bad.jpg", COFFEE)
    for name in ("x.npy", "x.npz", "x.safetensors"):
        assert cli("features", *inputs, "-o", name).code == 3
    npy = np.load("x.npy")
    with np.load("x.npz") as archive:
        assert archive.files == ["features"]
        npz = archive["features"]
    tensors = load_file("x.safetensors")
    assert list(tensors) == ["features"]
    for array in (npy, npz, tensors["features"]):
        assert (array.dtype, array.shape) == (np.dtype("<f4"), (2, 1280))
        np.testing.assert_allclose(array, npy, atol=1e-6)
    assert np.isfinite(npy).all()
    assert (npy >= 0).all(), "the average of what came out of a ReLU6"
    assert 0.1 < npy.max() <= 6
    assert np.abs(npy[0] - npy[1]).max() > 0.1
    assert Path("x.npy.index.csv").read_bytes() == Path("x.npz.index.csv").read_bytes()
    files = [f"x{suffix}{extra}" for suffix in (".npy", ".npz", ".safetensors") for extra in ("", ".index.csv")]
    assert there() == sorted(["bad.jpg", *files])


@pytest.mark.slow
def test_index_lists_every_input_with_its_row(cli: Cli) -> None:
    Path("bad.jpg").write_text("no", encoding="utf-8")
    Path("empty").mkdir()
    ended = cli("features", "missing.jpg", CAT, "bad.jpg", "empty", COFFEE, CAT, "-o", "x.npy")
    assert ended.code == 3
    assert ended.stdout == ""
    assert Path("x.npy.index.csv").read_text(encoding="utf-8") == (
        "row,input,status,error\n"
        ",missing.jpg,error,not_found: no such file or folder\n"
        f"0,{CAT},ok,\n"
        ",bad.jpg,error,undecodable: not an image\n"
        ",empty,error,empty: no images in the folder\n"
        f"1,{COFFEE},ok,\n"
        f"2,{CAT},ok,\n"
    )
    assert ended.stderr.splitlines()[-2:] == [
        "3 of 6 inputs failed",
        "x.npy: 3 x 1280 float32; its index: x.npy.index.csv",
    ]
    array = np.load("x.npy")
    assert array.shape == (3, 1280)
    np.testing.assert_array_equal(array[0], array[2])
    alone = cli("features", COFFEE, "-o", "alone.npy")
    assert alone.code == 0
    np.testing.assert_allclose(np.load("alone.npy"), array[1:2], atol=1e-5)


@pytest.mark.slow
def test_odd_file_names_are_unchanged_in_index(cli: Cli) -> None:
    names = ["a\tb.jpg", "a\nb.jpg", "a\rb.jpg", 'a"b,c.jpg', "é.jpg", "\udcff.jpg"]
    kept = []
    for name in names:
        try:
            shutil.copy(COFFEE, name)
        except (OSError, UnicodeError):
            continue
        kept.append(name)
    assert cli("features", *kept, "-o", "x.npy").code == 0
    assert read_index("x.npy.index.csv") == [
        ["row", "input", "status", "error"],
        *([str(row), name, "ok", ""] for row, name in enumerate(kept)),
    ]


def test_array_is_empty_if_no_input_succeeds(cli: Cli) -> None:
    assert cli("features", "missing.jpg", "-o", "x.npy").code == 3
    array = np.load("x.npy")
    assert len(array) == 0
    assert array.dtype == np.float32
    assert read_index("x.npy.index.csv")[1:] == [["", "missing.jpg", "error", "not_found: no such file or folder"]]


@pytest.mark.slow
def test_softmax_of_logits_equals_predict_probabilities(cli: Cli) -> None:
    assert cli("features", CAT, COFFEE, "-o", "x.npy", "--layer", "logits").code == 0
    logits = np.load("x.npy").astype(np.float64)
    assert logits.shape == (2, 1000)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    ended = cli("predict", CAT, COFFEE, "-k", "1000", "-f", "jsonl")
    predicted = np.zeros((2, 1000))
    for row, line in enumerate(ended.stdout.splitlines()):
        for item in json.loads(line)["predictions"]:
            predicted[row, item["index"]] = item["probability"]
    np.testing.assert_allclose(predicted, probabilities, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "width"), [("blocks.0", 16), ("blocks.4", 112), ("pooled", 1280)])
def test_layer_has_its_width_in_network(cli: Cli, layer: str, width: int) -> None:
    ended = cli("features", COFFEE, "-o", "x.npy", "--layer", layer)
    assert (ended.code, ended.stdout) == (0, "")
    array = np.load("x.npy")
    assert array.shape == (1, width)
    assert np.ptp(array) > 0.01


@pytest.mark.slow
def test_stage_feature_is_mean_of_its_maps(cli: Cli) -> None:
    import torch
    from PIL import Image

    from resnetd_cli import loading
    from resnetd_cli.pipeline.options import Runtime
    from resnetd_cli.pipeline.preprocess import preprocess

    assert cli("features", COFFEE, "-o", "x.npy", "--layer", "blocks.2").code == 0
    loaded = loading.load("embedded", runtime=Runtime("torch"))
    network: Any = getattr(loaded.engine, "network")  # noqa: B009  (of the torch engine alone)
    seen: list[torch.Tensor] = []
    network.blocks[2].register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    with Image.open(COFFEE) as image, torch.inference_mode():
        network(torch.from_numpy(preprocess(image.convert("RGB"), loaded.preprocessing))[None])
    np.testing.assert_allclose(np.load("x.npy")[0], seen[0].mean(dim=(2, 3))[0].numpy(), atol=1e-4)


def test_overwrite_replaces_array_and_index(cli: Cli) -> None:
    Path("x.npy").write_text("old", encoding="utf-8")
    Path("x.npy.index.csv").write_text("old", encoding="utf-8")
    assert cli("features", COFFEE, "-o", "x.npy", "--overwrite").code == 0
    assert np.load("x.npy").shape == (1, 1280)
    assert read_index("x.npy.index.csv")[1:] == [["0", str(COFFEE), "ok", ""]]
    assert there() == ["x.npy", "x.npy.index.csv"]


def test_failed_save_keeps_rows(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    ended = cli("features", COFFEE, "-o", "x.npz")
    assert ended.code == 1
    assert ended.stderr.splitlines() == [
        "the run ended early: x.npz.npy.partial and its index hold the first 1 row",
        "error: cannot write x.npz: no space left on device",
        "hint: choose another place with -o",
    ]
    assert there() == ["x.npz.index.csv.partial", "x.npz.npy.partial"]
    assert np.load("x.npz.npy.partial").shape == (1, 1280)


@pytest.mark.slow
def test_engine_failure_keeps_rows_so_far(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetd_cli.pipeline.engines.pytorch import TorchEngine

    calls = itertools.count(1)
    original = TorchEngine.run

    def breaks(self: TorchEngine, images: Any) -> Any:
        if next(calls) > 3:
            raise RuntimeError("the device is gone")
        return original(self, images)

    monkeypatch.setattr(TorchEngine, "run", breaks)
    Path("x.npy").write_text("old", encoding="utf-8")
    ended = cli("features", *[COFFEE] * 6, "-o", "x.npy", "--overwrite", "--workers", "1", "--engine", "torch")
    assert ended.code == 1
    assert "error: unexpected RuntimeError: the device is gone" in ended.stderr.splitlines()
    assert there() == ["x.npy", "x.npy.index.csv.partial", "x.npy.partial"]
    assert np.load("x.npy.partial").shape == (3, 1280)
    assert Path("x.npy").read_text(encoding="utf-8") == "old", "whole or not at all: the old one stays"


@pytest.fixture
def fed(
    run_resnetd: Resnetd, without_torch: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the program with its list of inputs on a pipe that stays open."""
    started: list[subprocess.Popen[bytes]] = []

    def _fed(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "resnetd_cli", *arguments, "-m", "embedded", "--files-from", "-"],
            cwd=tmp_path,
            env={**run_resnetd.env(), "PYTHONPATH": str(ROOT), **without_torch},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield _fed
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_stopped_run_keeps_rows_so_far(
    fed: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, stop: signal.Signals
) -> None:
    process = fed("predict", "-f", "jsonl", "--features-out", "x.npy", "--no-progress")
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{COFFEE}\n".encode() * 20)
    process.stdin.flush()
    assert b'"ok"' in process.stdout.readline()
    process.send_signal(stop)
    # Its list is still open: it must end before the list does.
    assert process.wait(timeout=60) == {signal.SIGINT: 130, signal.SIGTERM: 143}[stop]
    err = process.communicate()[1]
    assert b"Traceback" not in err
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != "home")
    assert left == ["x.npy.index.csv.partial", "x.npy.partial"]
    rows = np.load(tmp_path / "x.npy.partial")
    index = read_index(str(tmp_path / "x.npy.index.csv.partial"))
    assert [row[0] for row in index[1:]] == [str(number) for number in range(len(rows))]
    assert f"hold the first {len(rows)} row".encode() in err
