"""`finetune` and `train` as users run them."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.program import Resnetd
from helpers.training_data import NETWORK, write_colours
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from resnetd_cli.cli.app import app
from resnetd_cli.errors import ResnetdError, UsageError
from resnetd_cli.training import recipe

pytestmark = pytest.mark.slow

BASE = ("--model", NETWORK, "--image-size", "32", "--workers", "1", "--threads", "1", "--device", "cpu")
SMALL = (*BASE, "--epochs", "4", "--batch-size", "12", "--lr", "0.05", "--set", "warmup_epochs=1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_colours(tmp_path / "data" / "train", 14, seed=1)
    write_colours(tmp_path / "data" / "val", 4, seed=2)
    return tmp_path / "data"


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
    run_resnetd: Resnetd, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trained = run_resnetd(
        "finetune", data, "-o", run, "--model", "embedded", "--image-size", "64", "--epochs", "2"
    )
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    assert ["all", "3", "classes", "42", "12"] in [line.split() for line in trained.stderr.splitlines()]
    assert f"resnetd predict IMAGE --model {run}" in trained.stderr
    assert json.loads((run / "summary.json").read_text())["val"]["top1"] >= 0.9
    image = data / "val" / "red" / "000.png"
    for engine in ("torch", "onnx"):
        answer = run_resnetd("predict", image, "--model", run, "-f", "jsonl", "-k", "1", RESNETD_ENGINE=engine)
        assert json.loads(answer.stdout)["predictions"][0]["label"] == "red", answer.stderr
    exported = tmp_path / "mine.onnx"
    assert run_resnetd("export", run, "-o", exported).returncode == 0
    answer = run_resnetd("predict", image, "--model", exported, "-f", "jsonl", "-k", "1", RESNETD_ENGINE="onnx")
    assert json.loads(answer.stdout)["predictions"][0]["label"] == "red"
    assert run_resnetd("pull", run).returncode == 0
    features = run_resnetd("features", image, "--model", run, "-o", tmp_path / "features.npy")
    assert features.returncode == 0


def test_resume_after_kill_gives_identical_weights(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    options = (*SMALL, "--save-seconds", "0", "--set", "ema_decay=0.9", "--set", "drop_path=0.1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = run_resnetd("train", data, "-o", whole, *options)
    assert finished.returncode == 0, finished.stderr
    moments = random.Random(0)
    for _ in range(4):
        process = run_resnetd.start("train", data, "-o", killed, *options, "--resume")
        time.sleep(moments.uniform(0.3, 1.1) * finished.elapsed)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert run_resnetd("train", data, "-o", killed, *options, "--resume").returncode == 0
    assert same(whole, killed)
    rows = [rows_of(run) for run in (whole, killed)]
    for one, other in zip(*rows, strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}


def test_interrupted_run_saves_and_prints_the_resume_command(
    run_resnetd: Resnetd, data: Path, tmp_path: Path
) -> None:
    run, whole = tmp_path / "my run", tmp_path / "whole"
    many = (*SMALL, "--epochs", "40", "--save-seconds", "1000")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = run_resnetd.start("train", data, "-o", run, *many, "--resume")
        deadline = time.monotonic() + 90
        before = rows_in(run)
        while rows_in(run) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, number)
        stopped = run_resnetd.finish(process)
        assert stopped.returncode == code, stopped.stderr
        assert f"saved; to go on: resnetd train {data} -o '{run}' {shlex.join(many)} --resume" in stopped.stderr
        assert "Traceback" not in stopped.stderr
    ended = run_resnetd(
        "train", data, "-o", run, "--resume", "--workers", "1", "--threads", "1", "--device", "cpu"
    )
    assert ended.returncode == 0, ended.stderr
    assert run_resnetd("train", data, "-o", whole, *many).returncode == 0
    assert same(run, whole)


def rows_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def rows_in(run: Path) -> int:
    file = run / "metrics.csv"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_two_processes_give_the_weights_of_one(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    options = (*SMALL, "--set", "batch_norm=freeze", "--set", "mixup=0")
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_resnetd("train", data, "-o", one, *options).returncode == 0
    finished = run_resnetd("train", data, "-o", two, *options, "--processes", "2")
    assert finished.returncode == 0, finished.stderr
    first, second = weights_of(one), weights_of(two)
    for name, tensor in first.items():
        assert torch.allclose(tensor.float(), second[name].float(), atol=1e-4), name
    assert json.loads((two / "summary.json").read_text())["processes"] == 2
    assert "Warning" not in finished.stderr


def test_torchrun_launches_training(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "resnetd_cli"]
    finished = subprocess.run(
        [sys.executable, *launch, "train", str(data), "-o", str(run), *SMALL],
        env=run_resnetd.env(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert json.loads((run / "summary.json").read_text())["processes"] == 2


def test_a_student_learns_from_a_teacher_of_the_same_classes(
    run_resnetd: Resnetd, data: Path, tmp_path: Path
) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert run_resnetd("train", data, "-o", teacher, *SMALL).returncode == 0
    finished = run_resnetd("train", data, "-o", student, *SMALL, "--teacher", teacher)
    assert finished.returncode == 0, finished.stderr
    assert not same(teacher, student)
    assert yaml.safe_load((student / "recipe.yaml").read_text())["teacher_temperature"] == 20
    stranger = run_resnetd("train", data, "-o", tmp_path / "no", *SMALL, "--teacher", "embedded")
    assert stranger.returncode == 2
    assert "embedded does not tell the same classes apart" in stranger.stderr


def test_a_frozen_backbone_stays_as_it_is(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    assert run_resnetd("train", data, "-o", teacher, *SMALL).returncode == 0
    options = ("--freeze", "--image-size", "32", "--epochs", "2", "--threads", "1", "--set", "ema_decay=null")
    finished = run_resnetd("finetune", data, "-o", run, "--model", teacher, *options)
    assert finished.returncode == 0, finished.stderr
    before, after = weights_of(teacher), weights_of(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_tensorboard_has_a_point_for_each_epoch(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert run_resnetd("train", data, "-o", run, *SMALL, "--tensorboard").returncode == 0
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()
    rows = rows_of(run)
    points = log.Scalars("val/top1")
    assert [point.step for point in points] == [int(row["step"]) for row in rows]
    assert [point.value for point in points] == pytest.approx([float(row["val_top1"]) for row in rows])


def test_full_disk_keeps_the_previous_checkpoint(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_resnetd("train", data, "-o", run, *SMALL, "--epochs", "2").returncode == 0
    kept = (run / "checkpoints" / "last.pth").read_bytes()
    again = tmp_path / "again"
    program = (
        "import resource, sys; from resnetd_cli.__main__ import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(kept) // 2}, {len(kept) // 2})); main()"
    )
    arguments = ["train", str(data), "-o", str(again), *SMALL]
    refused = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=run_resnetd.env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode == 1, refused.stderr
    assert "cannot write" in refused.stderr and "Traceback" not in refused.stderr
    assert sorted(path.name for path in (again / "checkpoints").iterdir()) == []
    # And one that is there already stays, and is gone on with.
    process = run_resnetd.start("train", data, "-o", again, *SMALL, "--epochs", "40", "--overwrite")
    while not (again / "checkpoints" / "last.pth").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = (again / "checkpoints" / "last.pth").read_bytes()
    refused = subprocess.run(
        [sys.executable, "-c", program, *arguments[:4], "--resume"],
        env=run_resnetd.env(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode == 1
    assert (again / "checkpoints" / "last.pth").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune"], "no data"),
        (["finetune", "DATA"], "nowhere to write to"),
        (["train", "no-such-folder", "-o", "RUN"], "no-such-folder"),
        (["train", "DATA", "-o", "RUN", "--recipe", "nonsense"], "no recipe nonsense"),
        (["train", "DATA", "-o", "RUN", "--set", "epoch=3"], "recipes have no 'epoch'"),
        (["train", "DATA", "-o", "RUN", "--set", "epochs=many"], "--set epochs is 'many'"),
        (["train", "DATA", "-o", "RUN", "--model", "nonsense"], "unknown model 'nonsense'"),
        (
            ["train", "DATA", "-o", "RUN", "--batch-size", "1", "--processes", "2"],
            "1 image in a step for 2 processes",
        ),
        (["train", "DATA", "-o", "RUN", "--image-size", "7"], "--image-size 7: not a size"),
        (["train", "DATA", "-o", "RUN", "--device", "tpu"], "--device tpu: no such device"),
        (["train", "DATA", "-o", "README.md"], "README.md"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    run_resnetd: Resnetd, data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    places = {"DATA": str(data), "RUN": str(tmp_path / "run")}
    finished = run_resnetd(*(places.get(word, word) for word in arguments), "-q")
    assert finished.returncode in (1, 2), finished.stderr
    assert message in finished.stderr.splitlines()[0]
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_is_measured_on_the_images_that_it_did_not_learn_from(
    run_resnetd: Resnetd, data: Path, tmp_path: Path
) -> None:
    run, images = tmp_path / "run", data / "train"
    assert run_resnetd("train", images, "-o", run, *SMALL, "--val-share", "0.3", "--seed", "5").returncode == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["images"] == {"train": 30, "val": 12}
    measured = run_resnetd("evaluate", images, "--model", run, "-f", "json")
    report = json.loads(measured.stdout)
    assert (report["split"], report["models"][0]["images"]) == ("all", 12)
    assert report["models"][0]["top1"] == pytest.approx(summary["val"]["top1"])
    assert report["models"][0]["loss"] == pytest.approx(summary["val"]["loss"], rel=1e-4)
    whole = run_resnetd("evaluate", images, "--model", run, "-f", "json", "--include-training-images")
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
    assert "saved; to go on:" in stopped.stderr and "Traceback" not in stopped.stderr
    assert (run / "checkpoints" / "last.pth").is_file()


def test_an_image_that_one_of_several_processes_cannot_read_is_left_out(
    run_resnetd: Resnetd, data: Path, tmp_path: Path
) -> None:
    damaged = data / "train" / "red" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:1500])
    options = (*SMALL, "--batch-size", "6", "--epochs", "1", "--processes", "2", "--set", "batch_norm=freeze")
    finished = run_resnetd("train", data, "-o", tmp_path / "run", *options)
    assert finished.returncode == 0, finished.stderr
    assert "1 of 42 images in train cannot be read: train/red/003.png (damaged image: " in finished.stderr
    assert [*json.loads((tmp_path / "run" / "summary.json").read_text())["unreadable"]] == [str(damaged)]


def test_resume_needs_no_starting_model(run_resnetd: Resnetd, data: Path, tmp_path: Path) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    assert run_resnetd("train", data, "-o", base, *SMALL).returncode == 0
    options = ("--model", base, "--epochs", "60", "--threads", "1", "--workers", "1", "--set", "drop_path=0.1")
    process = run_resnetd.start("finetune", data, "-o", run, *options)
    while rows_in(run) < 3 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    base.rename(tmp_path / "elsewhere")
    finished = run_resnetd("finetune", data, "-o", run, "--resume", "--threads", "1", "--workers", "1")
    assert finished.returncode == 0, finished.stderr
    assert json.loads((run / "summary.json").read_text())["resumed"] == 1


def test_existing_run_is_replaced_only_when_the_new_one_starts(
    run_resnetd: Resnetd, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert run_resnetd("train", data, "-o", run, *SMALL).returncode == 0
    before = (run / "model.safetensors").read_bytes()
    for wrong in (("no-such-folder",), (data, "--model", "no_such_model"), (data, "--set", "optimizer=none")):
        refused = run_resnetd("train", wrong[0], "-o", run, *SMALL, *wrong[1:], "--overwrite")
        assert refused.returncode in (1, 2) and "Traceback" not in refused.stderr
        assert (run / "model.safetensors").read_bytes() == before and (run / "summary.json").is_file()
    # Killed at its very beginning, a run can be gone on with and replaced.
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").write_text("epochs: 3\n")
    assert run_resnetd("train", data, "-o", tmp_path / "begun", *SMALL, "--resume").returncode == 0


def test_resnet18d_learns_to_read_digits(run_resnetd: Resnetd, tmp_path: Path) -> None:
    """A shorter run than that of `docs/training.md`, which ends above 99 %."""
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = tmp_path / "digits" / ("test" if number % 5 == 0 else "train") / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{number}.png")
    run = tmp_path / "run"
    options = ("--image-size", "32", "--batch-size", "64", "--epochs", "4", "--set", "warmup_epochs=1")
    finished = run_resnetd(
        *("train", tmp_path / "digits", "-o", run, "--model", "resnet18d"),
        *(*options, "--set", "hflip=0", "--set", "scale=[0.6,1]", "--set", "mixup=0"),
        timeout=500,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads((run / "summary.json").read_text())["test"]["top1"] >= 0.9
