"""`finetune` and `train` as users run them."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.limits import largest_file
from helpers.program import Cli, Resnetd
from helpers.training_data import NETWORK, Log, carry_out, make_plan, write_colours
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from resnetd_cli.cli.app import app, run
from resnetd_cli.errors import ResnetdError, UsageError
from resnetd_cli.training import recipe

pytestmark = pytest.mark.slow

BASE = ("--model", NETWORK, "--image-size", "32", "--workers", "0", "--threads", "1", "--device", "cpu")
SMALL = (*BASE, "--epochs", "4", "--batch-size", "12", "--lr", "0.05", "--set", "warmup_epochs=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders of three classes. Every test reads them, none changes them."""
    folder = tmp_path_factory.mktemp("colours")
    write_colours(folder / "train", 14, seed=1)
    write_colours(folder / "val", 4, seed=2)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Every test reads it, none changes it."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert run(["train", str(data), "-o", str(folder), *SMALL, "-q"]) == 0
    return folder


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights_of(one), weights_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("command", ["finetune", "train"])
def test_print_recipe_prints_what_recipe_takes(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, "--print-recipe", "--epochs", "7", "--set", "lr=1e-2"])
    assert result.exit_code == 0
    printed = recipe.parse(result.stdout)
    assert (printed.epochs, printed.lr) == (7, 0.01)
    file = tmp_path / "mine.yaml"
    file.write_text(result.stdout)
    again = CliRunner().invoke(app, [command, "--print-recipe", "--recipe", str(file)])
    assert again.stdout == result.stdout


def test_print_recipe_draws_the_rates_into_a_new_png(tmp_path: Path) -> None:
    file = tmp_path / "rate.png"
    drawing = ["train", "--print-recipe", "--set", "schedule=step", "--plot"]
    assert CliRunner().invoke(app, [*drawing, str(file)]).exit_code == 0
    with Image.open(file) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    for name, message in (
        (file, "exists, and images are never replaced"),
        (tmp_path / "rate.pdf", "not the name of a PNG file"),
        (tmp_path / "no" / "rate.png", "no such folder"),
    ):
        refused = CliRunner().invoke(app, [*drawing, str(name), "--overwrite"])
        assert isinstance(refused.exception, ResnetdError) and message in refused.exception.message
    alone = CliRunner().invoke(app, ["train", "--plot", str(tmp_path / "other.png")])
    assert isinstance(alone.exception, UsageError) and "add --print-recipe" in str(alone.exception.hint)


def test_finetuned_model_predicts_exports_and_gives_features(
    cli: Cli, data: Path, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    taught = cli("finetune", data, "-o", run, *BASE[2:], "--model", trained, "--epochs", "2", "--lr", "0.01")
    assert taught.code == 0, taught.stderr
    assert taught.stdout == ""
    assert ["all", "3", "classes", "42", "12"] in [line.split() for line in taught.stderr.splitlines()]
    assert f"resnetd predict IMAGE --model {run}" in taught.stderr
    assert json.loads((run / "summary.json").read_text())["val"]["top1"] >= 0.9
    image = data / "val" / "red" / "000.png"
    for engine in ("torch", "onnx"):
        answer = cli("predict", image, "--model", run, "-f", "jsonl", "-k", "1", "--engine", engine)
        assert json.loads(answer.stdout)["predictions"][0]["label"] == "red", answer.stderr
    exported = tmp_path / "mine.onnx"
    assert cli("export", run, "-o", exported).code == 0
    answer = cli("predict", image, "--model", exported, "-f", "jsonl", "-k", "1", "--engine", "onnx")
    assert json.loads(answer.stdout)["predictions"][0]["label"] == "red"
    assert cli("pull", run).code == 0
    features = cli("features", image, "--model", run, "-o", tmp_path / "features.npy")
    assert features.code == 0


PAUSING = """
import sys, time
rows, heeds_signals = int(sys.argv.pop(1)), int(sys.argv.pop(1))
from resnetd_cli.cli import signals
from resnetd_cli.training.saving import Saver
write = Saver.write_rows
def write_and_wait(self, progress):
    write(self, progress)
    while len(progress.rows) == rows and not (heeds_signals and signals.stops):
        time.sleep(0.01)
Saver.write_rows = write_and_wait
from resnetd_cli.__main__ import main
main()
"""
"""The program, but training waits for a signal once `metrics.csv` has so many rows."""


def test_resume_after_kills_and_signals_gives_identical_weights(
    run_resnetd: Resnetd, cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESNETD_MODEL")  # the run remembers its model
    run, whole = tmp_path / "my run", tmp_path / "whole"
    options = (*SMALL, "--epochs", "5", "--workers", "1", "--set", "ema_decay=0.9", "--set", "drop_path=0.1")
    assert cli("train", data, "-o", whole, *options, "--workers", "0").code == 0

    def start(pause_at: int, save_seconds: str, *, heeds_signals: bool) -> subprocess.Popen[str]:
        """Start or resume the run; return when it waits for a signal, or trains in the epoch before."""
        program = ("-c", PAUSING, str(pause_at), str(int(heeds_signals)))
        words = ("train", data, "-o", run, *options, "--save-seconds", save_seconds, "--resume")
        process = run_resnetd.start(*words, program=program)
        while not (run / "metrics.csv").exists() or rows_in(run) < pause_at - 1 + heeds_signals:
            assert process.poll() is None
            time.sleep(0.01)
        return process

    moments = random.Random(0)
    for rows in (1, 2):
        process = start(rows, "0", heeds_signals=False)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for rows, number, code in ((3, signal.SIGINT, 130), (4, signal.SIGTERM, 143)):
        process = start(rows, "1000", heeds_signals=True)
        os.kill(process.pid, number)
        stopped = run_resnetd.finish(process)
        assert stopped.returncode == code, stopped.stderr
        again = shlex.join((*options, "--save-seconds", "1000"))
        assert f"saved; to continue: resnetd train {data} -o '{run}' {again} --resume" in stopped.stderr
        assert "Traceback" not in stopped.stderr
    ended = cli("train", data, "-o", run, "--resume", "--workers", "0", "--threads", "1", "--device", "cpu")
    assert ended.code == 0, ended.stderr
    assert json.loads((run / "summary.json").read_text())["resumed"] == 4
    assert same(run, whole)
    for one, other in zip(rows_of(whole), rows_of(run), strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}


def rows_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def rows_in(run: Path) -> int:
    """Return how many epochs `metrics.csv` has."""
    return len(rows_of(run)) if (run / "metrics.csv").exists() else 0


def test_two_processes_leave_out_an_unreadable_image_and_give_the_weights_of_one(
    run_resnetd: Resnetd, cli: Cli, data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data, tmp_path / "data")
    damaged = data / "train" / "red" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:1500])
    options = (*SMALL, "--set", "batch_norm=freeze", "--set", "mixup=0", "--epochs", "2")
    one, two = tmp_path / "one", tmp_path / "two"
    assert cli("train", data, "-o", one, *options).code == 0
    finished = run_resnetd("train", data, "-o", two, *options, "--processes", "2")
    assert finished.returncode == 0, finished.stderr
    first, second = weights_of(one), weights_of(two)
    for name, tensor in first.items():
        assert torch.allclose(tensor.float(), second[name].float(), atol=1e-4), name
    summary = json.loads((two / "summary.json").read_text())
    assert summary["processes"] == 2
    assert "1 of 42 images in train cannot be read: train/red/003.png (damaged image: " in finished.stderr
    assert [*summary["unreadable"]] == [str(damaged)]
    assert "Warning" not in finished.stderr


def test_torchrun_launches_training(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "resnetd_cli"]
    finished = subprocess.run(
        [sys.executable, *launch, "train", str(data), "-o", str(run), *SMALL, "--epochs", "2"],
        env=run_resnetd.env(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert json.loads((run / "summary.json").read_text())["processes"] == 2


def test_a_student_learns_from_a_teacher_of_the_same_classes(
    cli: Cli, data: Path, trained: Path, tmp_path: Path
) -> None:
    student = tmp_path / "student"
    finished = cli("train", data, "-o", student, *SMALL, "--teacher", trained)
    assert finished.code == 0, finished.stderr
    assert not same(trained, student)
    assert yaml.safe_load((student / "recipe.yaml").read_text())["teacher_temperature"] == 20
    stranger = cli("train", data, "-o", tmp_path / "no", *SMALL, "--teacher", "embedded")
    assert stranger.code == 2
    assert "embedded does not have the same classes" in stranger.stderr


def test_a_frozen_backbone_stays_as_it_is(cli: Cli, data: Path, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--freeze", "--image-size", "32", "--epochs", "2", "--threads", "1", "--set", "ema_decay=null")
    finished = cli("finetune", data, "-o", run, "--model", trained, *options)
    assert finished.code == 0, finished.stderr
    before, after = weights_of(trained), weights_of(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_tensorboard_has_a_point_for_each_epoch(cli: Cli, data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert cli("train", data, "-o", run, *SMALL, "--tensorboard").code == 0
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    rows = rows_of(run)
    points = log.Scalars("val/top1")
    assert [point.step for point in points] == [int(row["step"]) for row in rows]
    assert [point.value for point in points] == pytest.approx([float(row["val_top1"]) for row in rows])


def stop_in_the_second_epoch(command: str, data: Path, run: Path, model: str | Path, **options: Any) -> None:
    """Train in this process until the run is asked to stop, and saves itself."""
    changes = {"epochs": 3, "batch_size": 12, "lr": 0.05, "warmup_epochs": 1}
    plan = make_plan(command, str(data), run, str(model), changes=changes, workers=0, device="cpu", **options)
    assert carry_out(plan, Log(stop_after=5)) is None
    assert rows_in(run) == 1


def test_full_disk_keeps_the_previous_checkpoint(
    cli: Cli, data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESNETD_MODEL")  # the run remembers its model
    full = (trained / "checkpoints" / "last.pth").stat().st_size // 2
    again = tmp_path / "again"
    with largest_file(full):
        refused = cli("train", data, "-o", again, *SMALL)
    assert refused.code == 1, refused.stderr
    assert "cannot write" in refused.stderr and "Traceback" not in refused.stderr
    assert sorted(path.name for path in (again / "checkpoints").iterdir()) == []
    # And one that exists stays, and the run resumes from it.
    stop_in_the_second_epoch("train", data, again, NETWORK, overwrite=True, image_size="32")
    kept = (again / "checkpoints" / "last.pth").read_bytes()
    with largest_file(full):
        refused = cli("train", data, "-o", again, "--resume", "--workers", "0", "--threads", "1")
    assert refused.code == 1
    assert (again / "checkpoints" / "last.pth").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["finetune"], 2, "no data"),
        (["finetune", "DATA"], 2, "no output folder"),
        (["train", "no-such-folder", "-o", "RUN"], 1, "no-such-folder"),
        (["train", "DATA", "-o", "RUN", "--recipe", "nonsense"], 2, "no recipe nonsense"),
        (["train", "DATA", "-o", "RUN", "--set", "epoch=3"], 2, "recipes have no 'epoch'"),
        (["train", "DATA", "-o", "RUN", "--set", "epochs=many"], 2, "--set epochs is 'many'"),
        (["train", "DATA", "-o", "RUN", "--model", "nonsense"], 2, "unknown model 'nonsense'"),
        (
            ["train", "DATA", "-o", "RUN", "--batch-size", "1", "--processes", "2"],
            2,
            "1 image in a step for 2 processes",
        ),
        (["train", "DATA", "-o", "RUN", "--image-size", "7"], 2, "'7' is not an image size"),
        (["train", "DATA", "-o", "RUN", "--device", "tpu"], 2, "no device called 'tpu'"),
        (["train", "DATA", "-o", "README.md"], 1, "README.md: not a directory"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    cli: Cli, data: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    places = {"DATA": str(data), "RUN": str(tmp_path / "run")}
    (tmp_path / "README.md").touch()
    finished = cli(*(places.get(word, word) for word in arguments), "-q")
    assert finished.code == code, finished.stderr
    assert message in finished.stderr.splitlines()[0]
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_is_measured_on_the_images_that_it_did_not_learn_from(cli: Cli, data: Path, tmp_path: Path) -> None:
    run, images = tmp_path / "run", data / "train"
    assert cli("train", images, "-o", run, *SMALL, "--val-share", "0.3", "--seed", "5").code == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["images"] == {"train": 30, "val": 12}
    measured = cli("evaluate", images, "--model", run, "-f", "json")
    report = json.loads(measured.stdout)
    assert (report["split"], report["models"][0]["images"]) == ("all", 12)
    assert report["models"][0]["top1"] == pytest.approx(summary["val"]["top1"])
    assert report["models"][0]["loss"] == pytest.approx(summary["val"]["loss"], rel=1e-4)
    whole = cli("evaluate", images, "--model", run, "-f", "json", "--include-training-images")
    assert json.loads(whole.stdout)["models"][0]["images"] == 42


def test_signal_to_several_processes_saves_a_checkpoint(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    many = (*SMALL, "--epochs", "400", "--processes", "2")
    process = run_resnetd.start("train", data, "-o", run, *many)
    deadline = time.monotonic() + 120
    while rows_in(run) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    stopped = run_resnetd.finish(process)
    assert stopped.returncode == 143, stopped.stderr
    assert "saved; to continue:" in stopped.stderr and "Traceback" not in stopped.stderr
    assert (run / "checkpoints" / "last.pth").is_file()


def test_resume_needs_no_starting_model(
    cli: Cli, data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESNETD_MODEL")  # the run remembers its model
    base, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(trained, base)
    stop_in_the_second_epoch("finetune", data, run, base)
    base.rename(tmp_path / "elsewhere")
    finished = cli("finetune", data, "-o", run, "--resume", "--threads", "1", "--workers", "0")
    assert finished.code == 0, finished.stderr
    assert json.loads((run / "summary.json").read_text())["resumed"] == 1


def test_existing_run_is_replaced_only_when_the_new_one_starts(
    cli: Cli, data: Path, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = (run / "model.safetensors").read_bytes()
    for code, *wrong in (
        (1, "no-such-folder"),
        (2, data, "--model", "no_such_model"),
        (2, data, "--set", "optimizer=none"),
    ):
        refused = cli("train", wrong[0], "-o", run, *SMALL, *wrong[1:], "--overwrite")
        assert refused.code == code and "Traceback" not in refused.stderr
        assert (run / "model.safetensors").read_bytes() == before and (run / "summary.json").is_file()
    # A run that was killed as it started can be resumed.
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "recipe.yaml").write_text("epochs: 3\n")
    assert cli("train", data, "-o", tmp_path / "started", *SMALL, "--resume").code == 0


def test_resnet18d_learns_to_read_digits(cli: Cli, tmp_path: Path) -> None:
    """A shorter run with fewer images than that of `docs/training.md`, which ends above 99 %."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images[:400], digits.target[:400], strict=True)):
        folder = tmp_path / "digits" / ("test" if number % 5 == 0 else "train") / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{number}.png")
    run = tmp_path / "run"
    options = (
        "--image-size",
        "32",
        "--batch-size",
        "16",
        "--epochs",
        "3",
        "--set",
        "warmup_epochs=1",
        "--lr",
        "0.3",
    )
    finished = cli(
        *("train", tmp_path / "digits", "-o", run, "--model", "resnet18d", "--workers", "0", "--threads", "1"),
        *(*options, "--set", "hflip=0", "--set", "scale=[0.6,1]", "--set", "mixup=0"),
    )
    assert finished.code == 0, finished.stderr
    assert json.loads((run / "summary.json").read_text())["test"]["top1"] >= 0.85
