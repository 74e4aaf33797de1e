"""Runs from end to end, in this process: what they leave behind, and how they go on."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from helpers.marks import mark_of_file
from helpers.training_data import COLOURS, NETWORK, QUICK, Log, carry_out, change, make_plan, write_colours
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from resnetd_cli.datasets.open_dataset import open_dataset
from resnetd_cli.errors import DataError, ModelError, OutputExists, UsageError
from resnetd_cli.loading import load
from resnetd_cli.pipeline.options import Runtime
from resnetd_cli.results import Classified
from resnetd_cli.training import augmentation, checkpoint, dataset, loop, network, randomness, recipe, run_record
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.learner import Learner
from resnetd_cli.training.plan import NetworkChoice, Plan
from resnetd_cli.training.run import execute
from resnetd_cli.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread", "short_dry_runs")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("colours")
    write_colours(top / "train", 14, seed=1)
    write_colours(top / "val", 4, seed=2)
    write_colours(top / "test", 5, seed=3)
    return top


@pytest.fixture
def plan(data: Path, tmp_path: Path) -> Plan:
    return make_plan(
        "train",
        str(data),
        tmp_path / "run",
        model=NETWORK,
        image_size="32",
        changes=QUICK,
        workers=0,
        device="cpu",
    )


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learnt the colours."""
    run = tmp_path_factory.mktemp("finished") / "run"
    changes = {**QUICK, "epochs": 12, "mixup": 0, "ema_decay": None}
    carry_out(
        make_plan("train", str(data), run, NETWORK, image_size="32", changes=changes, workers=0, device="cpu")
    )
    return run


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_run_learns_and_writes_its_figures(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["images"] == {"train": 42, "val": 12, "test": 15}
    assert summary["classes"] == ["blue", "green", "red"]
    assert (summary["epochs"], summary["steps"]) == (12, 48)  # 42 images in steps of 11, 11, 10 and 10
    assert summary["val"]["top1"] == 1.0 and summary["test"]["top1"] >= 0.9
    rows = rows_of(finished)
    assert [row["epoch"] for row in rows] == [str(number) for number in range(1, 13)]
    best = rows[summary["best_epoch"] - 1]
    assert float(best["val_top1"]) == max(float(row["val_top1"]) for row in rows)
    assert float(best["val_loss"]) == summary["val"]["loss"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert (finished / "curves.png").read_text() == "curves of 12 epochs"
    assert yaml.safe_load((finished / "recipe.yaml").read_text())["epochs"] == 12


def marks_in(folder: Path) -> set[bytes]:
    return {mark_of_file(path.read_bytes()) for path in folder.rglob("*.png")}


def kept_marks(run: Path) -> set[bytes]:
    return {mark.tobytes() for mark in np.load(run / "trained-on.npy")}


@pytest.mark.slow
def test_a_run_keeps_the_marks_of_what_it_was_trained_on(finished: Path, data: Path) -> None:
    marks = marks_in(data / "train")
    assert kept_marks(finished) == marks
    assert len(marks) == 42
    with safe_open(finished / "model.safetensors", "np") as file:
        digest = hashlib.sha256(b"".join(sorted(marks))).hexdigest()
        assert file.metadata() == {"trained_on": digest}, "the weights name their marks"


@pytest.mark.slow
def test_the_split_is_a_table_of_all_images_in_order(finished: Path, data: Path) -> None:
    with (finished / "split.csv").open(newline="") as file:
        assert file.readline() == "path,class,split,content\r\n"
        rows = list(csv.reader(file))
    expected = [
        [str(path), path.parent.name, split, mark_of_file(path.read_bytes()).hex()]
        for split in ("train", "val", "test")
        for path in sorted((data / split).rglob("*.png"))
    ]
    assert rows == expected


def started(plan: Plan, note: Callable[[str], None] = lambda _: None) -> Path:
    """Begin a run, and stop it after its first step."""
    assert carry_out(plan, Log(stop_after=1), note) is None
    return plan.output.folder


@pytest.mark.slow
def test_marks_of_the_starting_model_are_kept_as_well(finished: Path, tmp_path: Path) -> None:
    more = write_colours(tmp_path / "more", 10, seed=9)
    table = make_plan("finetune", str(more), tmp_path / "again", str(finished), workers=0, device="cpu")
    again = started(table)
    with (again / "split.csv").open(newline="") as file:
        learnt = {bytes.fromhex(row["content"]) for row in csv.DictReader(file) if row["split"] == "train"}
    assert len(learnt) == 24
    assert kept_marks(again) == kept_marks(finished) | learnt
    weights = change(table, folder=tmp_path / "weights", model=NETWORK, weights=finished / "checkpoints/best.pth")
    assert kept_marks(started(weights)) == kept_marks(again)
    taught = change(table, folder=tmp_path / "taught", model=NETWORK, command="train")
    assert kept_marks(started(taught)) == learnt


@pytest.mark.slow
def test_a_starting_model_without_marks_is_reported(finished: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "old")
    (tmp_path / "old" / "trained-on.npy").unlink()
    notes: list[str] = []
    run = make_plan("finetune", str(data), tmp_path / "run", str(tmp_path / "old"), workers=0, device="cpu")
    assert kept_marks(started(run, notes.append)) == marks_in(data / "train")
    assert f"{tmp_path / 'old'} does not say which images it was trained on: they will count as new" in notes


@pytest.mark.slow
def test_marks_of_too_many_images_are_not_kept(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetd_cli.models.trained_on.MOST", 41)
    notes: list[str] = []
    run = started(plan, notes.append)
    assert not (run / "trained-on.npy").exists()
    assert notes[-1].startswith(
        "42 images are trained on, and marks of 41 are kept at the most: the model will not"
    )
    monkeypatch.undo()
    started(change(plan, overwrite=True))
    assert len(kept_marks(run)) == 42


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True])
def test_a_split_is_the_same_when_it_is_read_again(data: Path, plan: Plan, tmp_path: Path, given: bool) -> None:
    first = started(plan if given else change(plan, data=str(data / "train")))
    second = started(change(plan, data=str(first / "split.csv"), folder=tmp_path / "second"))
    assert (second / "split.csv").read_bytes() == (first / "split.csv").read_bytes()
    assert (second / "trained-on.npy").read_bytes() == (first / "trained-on.npy").read_bytes()


@pytest.mark.slow
def test_a_run_of_an_older_version_gets_marks_when_it_is_resumed(data: Path, plan: Plan) -> None:
    run = started(plan)
    (run / "trained-on.npy").unlink()
    (run / "split.csv").unlink()
    assert carry_out(change(plan, resume=True), Log(stop_after=2)) is None
    assert kept_marks(run) == marks_in(data / "train")
    assert (run / "split.csv").exists()


@pytest.mark.slow
def test_groups_are_kept_by_a_run_and_asked_for_again_when_it_is_resumed(data: Path, plan: Plan) -> None:
    plan = change(plan, data=str(data / "train"), group_by="0([0-9])[0-9].png")
    run = started(plan)
    with (run / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sides = {split: {row["group"] for row in rows if row["split"] == split} for split in ("train", "val")}
    assert (sides["train"], sides["val"]) in (({"0"}, {"1"}), ({"1"}, {"0"}))
    assert json.loads((run / "run.json").read_text())["group_by"] == plan.data.group_by
    with pytest.raises(UsageError, match="group_by"):
        carry_out(change(plan, resume=True, group_by="[0-9]"), Log(stop_after=2))
    assert carry_out(change(plan, resume=True, group_by=None), Log(stop_after=2)) is None


def test_summary_has_the_figures_of_the_kept_model(finished: Path, data: Path) -> None:
    model = timm.create_model(f"local-dir:{finished}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    losses, right = [], 0
    for index, name in enumerate(COLOURS):
        for path in sorted((data / "test" / name).iterdir()):
            with Image.open(path) as image, torch.inference_mode():
                logits = model(transform(image.convert("RGB"))[None])
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([index])).item())
            right += int(logits.argmax().item() == index)
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["test"]["top1"] == pytest.approx(right / 15)
    assert summary["test"]["loss"] == pytest.approx(sum(losses) / 15, rel=1e-3)


def test_timm_loads_the_model_with_its_names(finished: Path) -> None:
    model = timm.create_model(f"local-dir:{finished}", pretrained=True)
    assert model.num_classes == 3
    assert model.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 32, 32)
    saved = load_file(finished / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_predict_takes_a_run(finished: Path, data: Path) -> None:
    classifier = load(str(finished), runtime=Runtime("torch"))
    for name in COLOURS:
        (result,) = classifier.predict(data / "test" / name / "000.png")
        assert isinstance(result, Classified)
        assert result.predictions[0].label == name and len(result.predictions) == 3


def test_a_checkpoint_is_weights_too(finished: Path, data: Path) -> None:
    image = data / "test" / "red" / "001.png"
    (run,) = load(str(finished), runtime=Runtime("torch")).predict(image)
    best = finished / "checkpoints" / "best.pth"
    (weights,) = load(NETWORK, weights=best, image_size="32", runtime=Runtime("torch")).predict(image)
    assert isinstance(run, Classified) and isinstance(weights, Classified)
    assert [item.index for item in run.predictions] == [item.index for item in weights.predictions]


@pytest.mark.slow
def test_the_rate_warms_up_and_falls_like_a_cosine(plan: Plan) -> None:
    log = Log()
    carry_out(plan, log)
    peak = 0.05 * 11 / 256
    # Four steps of warm-up, then half a cosine over twelve.
    expected = [peak * (step + 1) / 5 for step in range(4)]
    expected += [peak * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    assert [lr for _, lr in log.steps] == pytest.approx(expected, abs=1e-9)
    assert [step for step, _ in log.steps] == list(range(1, 17))
    rates = [float(row["lr"]) for row in rows_of(plan.output.folder)]
    assert rates == pytest.approx(expected[3::4], abs=1e-9)  # of the last step of each epoch


@pytest.mark.slow
def test_reported_rate_is_the_one_the_optimiser_used(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    used, original = [], torch.optim.SGD.step

    def step(self: torch.optim.SGD, *args: Any, **kwargs: Any) -> Any:
        used.append([group["lr"] for group in self.param_groups])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    log = Log()
    carry_out(change(plan, changes={**QUICK, "epochs": 2, "schedule": "step", "backbone_lr": 0.5}), log)
    told = [lr for _, lr in log.steps]
    assert [max(rates) for rates in used] == told and len(told) == 8
    assert [min(rates) for rates in used] == pytest.approx([lr / 2 for lr in told])


@pytest.mark.slow
def test_every_image_is_trained_on_as_often_as_the_summary_says(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    original = dataset.ImageDataset.__getitem__

    def getitem(self: dataset.ImageDataset, key: tuple[int, int]) -> Any:
        if not isinstance(self.transform, augmentation.EvaluationTransform):
            seen.append(key)
        return original(self, key)

    monkeypatch.setattr(dataset.ImageDataset, "__getitem__", getitem)
    summary = carry_out(change(plan, changes={**QUICK, "batch_size": 32, "epochs": 2}))
    assert sorted(seen) == [(epoch, position) for epoch in range(2) for position in range(42)]
    assert (summary["images_trained"], summary["images_seen"]) == (42, 2 * 42)
    assert summary["steps"] == 2 * 2
    assert run_record.read(RunFolder(plan.output.folder)).recipe.batch_size == 21


@pytest.mark.slow
def test_batch_size_changed_to_spread_images_evenly_is_noted(plan: Plan) -> None:
    notes: list[str] = []
    carry_out(change(plan, changes={**QUICK, "batch_size": 32, "epochs": 1}), note=notes.append)
    assert "42 images, spread evenly, make 2 steps of at most 21 per epoch" in notes


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_weights_are_those_of_a_plain_loop_over_all_images(plan: Plan, micro_batch: int | None) -> None:
    """Steps of 9, 9, 8, 8 and 8 images, and parts of 3 and 2, give each image the same say in its step."""
    settings = {"batch_size": 9, "epochs": 1, "warmup_epochs": 0, "mixup": 0, "schedule": "poly", "lr_batch": None}
    settings |= {"micro_batch": micro_batch, "batch_norm": "freeze", "lr": 0.01, "label_smoothing": 0}
    carry_out(change(plan, changes=settings))
    used = recipe.load_recipe("bag-of-tricks").replace(settings)

    start = network.untrained(NetworkChoice(NETWORK, image_size="32"), 3, used)
    module = start.module.train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    train = open_dataset(plan.data.location).splits["train"]
    images = dataset.ImageDataset(train, augmentation.training_transform(used, start.preprocessing), seed=0)
    decayed = [each for each in module.parameters() if each.ndim > 1]
    others = [each for each in module.parameters() if each.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(randomness.mixed_seed(0, 0))).tolist()
    at = 0
    for step, size in enumerate((9, 9, 8, 8, 8)):
        items = [images[(0, position)] for position in order[at : at + size]]
        at += size
        logits = module(torch.stack([image for image, _ in items]))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([target for _, target in items]))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, tensor in load_file(plan.output.folder / "model.safetensors").items():
        assert torch.allclose(tensor, module.state_dict()[name], atol=1e-5), name


@pytest.mark.slow
def test_top5_of_five_classes_or_fewer_is_none_everywhere(plan: Plan, tmp_path: Path) -> None:
    few = carry_out(change(plan, changes={**QUICK, "epochs": 1}))
    assert few["val"]["top5"] is None and few["test"]["top5"] is None
    assert [row["val_top5"] for row in rows_of(plan.output.folder)] == [""]
    for split in ("train", "val"):
        for half in ("a", "b"):
            folder = write_colours(tmp_path / "six" / split / half, 4, seed=ord(half) + len(split))
            for name in COLOURS:
                (folder / name).rename(tmp_path / "six" / split / f"{name} {half}")
            folder.rmdir()
    run = tmp_path / "of six"
    many = carry_out(change(plan, data=str(tmp_path / "six"), folder=run, changes={**QUICK, "epochs": 1}))
    assert many["val"]["top5"] == float(rows_of(run)[0]["val_top5"]) > 0


@pytest.mark.slow
def test_seconds_are_wall_time_over_all_resumptions(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    now, original = 1000.0, Learner.measure

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    def measure(*args: Any) -> Any:
        pass_by(10)
        return original(*args)

    def callbacks(log: Log) -> Callbacks:
        return Callbacks(log, lambda _: None, log.should_stop, surveyed=lambda *_: pass_by(3), began=now)

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(Learner, "measure", measure)
    short = change(plan, changes={**QUICK, "epochs": 2})
    assert execute(short, callbacks(Log(stop_after=5))) is None
    kept = checkpoint.load(RunFolder(plan.output.folder).last)
    assert kept is not None and kept[0].seconds == 3 + 10  # the first epoch is measured
    pass_by(500)  # between the two processes
    summary = execute(change(short, resume=True), callbacks(Log()))
    assert summary is not None and summary["seconds"] == 13 + 3 + 10 + 10  # the test split is measured last
    assert [float(row["seconds"]) for row in rows_of(plan.output.folder)] == [13, 26]


@pytest.mark.slow
def test_checkpoint_of_another_version_is_an_error(plan: Plan) -> None:
    carry_out(plan, Log(stop_after=1))
    last = RunFolder(plan.output.folder).last
    content = torch.load(last, weights_only=True)
    torch.save({**content, "format": 1}, last)
    with pytest.raises(UsageError, match=r"last\.pth was written by another version of resnetd"):
        carry_out(change(plan, resume=True))


@pytest.mark.slow
def test_resume_after_stop_gives_identical_weights(plan: Plan, tmp_path: Path) -> None:
    """At the ends of epochs and within them, with everything random in use."""
    changes = {
        **QUICK,
        "epochs": 2,
        "micro_batch": 5,
        "drop_path": 0.2,
        "random_erasing": 0.3,
        "color_jitter": 0.4,
    }
    whole = change(plan, changes=changes)
    summary = carry_out(whole)
    parted = change(whole, folder=tmp_path / "parted", resume=True)
    for stop_after in (1, 3, 4, 6):  # of 4 steps in each epoch
        assert carry_out(parted, Log(stop_after)) is None
    again = carry_out(parted)
    first, second = (load_file(run.output.folder / "model.safetensors") for run in (whole, parted))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    timeless = [[{**row, "seconds": ""} for row in rows_of(run.output.folder)] for run in (whole, parted)]
    assert timeless[0] == timeless[1]
    assert again["resumed"] == 4 and summary["resumed"] == 0
    assert again["test"] == summary["test"]


def test_resume_of_a_finished_run_changes_nothing(finished: Path, data: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    log = Log()
    summary = carry_out(make_plan("train", str(data), finished, workers=0, device="cpu", resume=True), log)
    assert log.steps == [] and summary["steps"] == 48
    assert (finished / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_same_seed_gives_identical_weights_and_another_seed_does_not(plan: Plan, tmp_path: Path) -> None:
    short = change(plan, changes={**QUICK, "epochs": 1})
    same = change(short, folder=tmp_path / "same", workers=2)
    other = change(short, folder=tmp_path / "other", changes={**short.recipe.changes, "seed": 1})
    for run in (short, same, other):
        carry_out(run)
    bytes_of = [(run.output.folder / "model.safetensors").read_bytes() for run in (short, same, other)]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


@pytest.mark.slow
def test_resume_with_other_settings_or_images_is_an_error(plan: Plan, data: Path, tmp_path: Path) -> None:
    carry_out(plan, Log(stop_after=2))
    for changes, difference in (({"epochs": 9}, "epochs 4, not 9"), ({"lr": 0.1}, "lr 0.05, not 0.1")):
        with pytest.raises(UsageError, match=f"was started with {difference}"):
            carry_out(change(plan, resume=True, changes={**QUICK, **changes}))
    with pytest.raises(UsageError, match="was started with model test_resnet, not resnet18d"):
        carry_out(change(plan, resume=True, model="resnet18d"))
    extra = data / "train" / "red" / "extra.png"
    extra.write_bytes((data / "train" / "blue" / "000.png").read_bytes() + b"more")
    try:
        with pytest.raises(DataError, match="are not those that the run started with"):
            carry_out(change(plan, resume=True))
    finally:
        extra.unlink()


@pytest.mark.slow
def test_resume_with_the_same_command_accepts_adapted_settings(plan: Plan) -> None:
    large = change(plan, changes={**QUICK, "epochs": 2, "batch_size": 64, "scale": [0.5, 1]})
    assert carry_out(large, Log(stop_after=1)) is None
    assert run_record.read(RunFolder(plan.output.folder)).recipe.batch_size == 42
    assert carry_out(change(large, resume=True))["steps"] == 2


@pytest.mark.slow
def test_a_folder_that_is_in_use_is_left_alone(plan: Plan, tmp_path: Path) -> None:
    carry_out(plan, Log(stop_after=1))
    with pytest.raises(OutputExists, match="holds a run"):
        carry_out(plan)
    with (
        RunFolder(plan.output.folder).claimed(),
        pytest.raises(UsageError, match="is written to by another process"),
    ):
        carry_out(change(plan, resume=True))
    other = tmp_path / "photos"
    other.mkdir()
    (other / "mine.txt").write_text("keep")
    with pytest.raises(OutputExists, match="is not a run"):
        carry_out(change(plan, folder=other, overwrite=True))
    assert (other / "mine.txt").read_text() == "keep"


@pytest.mark.slow
def test_a_run_is_replaced_only_when_asked(plan: Plan) -> None:
    short = change(plan, changes={**QUICK, "epochs": 1})
    carry_out(short, Log(stop_after=2))
    summary = carry_out(change(short, overwrite=True))
    assert summary["resumed"] == 0 and summary["steps"] == 4


@pytest.mark.slow
def test_damaged_checkpoint_is_an_error(plan: Plan) -> None:
    carry_out(plan, Log(stop_after=1))
    (plan.output.folder / "checkpoints" / "last.pth").write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match=r"last\.pth is damaged"):
        carry_out(change(plan, resume=True))


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run(plan: Plan) -> None:
    with pytest.raises(ModelError, match="the loss is no longer a number"):
        carry_out(change(plan, changes={**QUICK, "lr": 1000, "lr_batch": None, "mixup": 0}))


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after the first pass"])
def test_damaged_images_are_reported_and_left_out(plan: Plan, tmp_path: Path, when: str) -> None:
    damaged = write_colours(tmp_path / "data" / "train", 12) / "red" / "003.png"
    told: list[str] = []
    looked_at: list[tuple[int, int]] = []

    def damage(*_: object) -> None:
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[: len(whole) // 2])  # its header is right

    if when == "before":
        damage()
    around = Callbacks(
        monitor=Log(),
        note=lambda _: None,
        should_stop=lambda: False,
        survey_progress=lambda done, total: looked_at.append((done, total)),
        unreadable=lambda failure: told.append(failure.input),
        surveyed=damage if when != "before" else lambda found, divided: None,
    )
    summary = execute(
        change(plan, data=str(tmp_path / "data"), changes={**QUICK, "epochs": 1, "batch_size": 6}), around
    )
    assert summary is not None
    assert list(summary["unreadable"]) == [str(damaged)]
    assert looked_at[-1] == (36, 36)
    assert told == ([str(damaged)] if when == "before" else [])


@pytest.mark.slow
def test_unknown_optimiser_or_policy_is_an_error(plan: Plan) -> None:
    for changes, message in (
        ({"optimizer": "sgdx"}, "timm has no optimiser 'sgdx' that could be used"),
        ({"auto_augment": "magic"}, "timm has no policy 'magic'"),
    ):
        with pytest.raises(UsageError, match=message):
            carry_out(change(plan, changes={**QUICK, **changes}))
        assert not (plan.output.folder / "run.json").exists()


@pytest.mark.slow
def test_a_teacher_may_order_and_spell_its_classes_differently(finished: Path, plan: Plan, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    order, names = [2, 0, 1], ["Red", "BLUE", "green"]
    config = json.loads((finished / "config.json").read_text())
    config["label_names"] = names
    (twin / "config.json").write_text(json.dumps(config))
    weights = load_file(finished / "model.safetensors")
    for part in ("fc.weight", "fc.bias"):
        weights[part] = weights[part][order].contiguous()
    save_file(weights, twin / "model.safetensors")
    learnt = []
    for teacher in (finished, twin):
        run = tmp_path / f"student of {teacher.name}"
        carry_out(change(plan, folder=run, teacher=str(teacher), changes={**QUICK, "epochs": 1}))
        learnt.append(load_file(run / "model.safetensors"))
    assert all(torch.equal(learnt[0][name], learnt[1][name]) for name in learnt[0])
    config["label_names"] = ["Red", "BLUE", "yellow"]
    (twin / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="does not have the same classes"):
        carry_out(change(plan, folder=tmp_path / "no", teacher=str(twin)))


@pytest.mark.parametrize(
    "fields", [{"model": "run"}, {"model": "embedded", "teacher": "local-dir:run"}, {"weights": "best.pth"}]
)
def test_run_does_not_replace_what_it_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.make(resume=False, overwrite=False)
    for file in (folder.path / "run.json", folder.path / "model.safetensors", folder.best):
        file.write_text("{}", encoding="utf-8")
    if "weights" in fields:
        fields = {"weights": folder.best}
    with pytest.raises(UsageError, match="would replace what it starts from"):
        carry_out(make_plan("finetune", "data", Path("run"), overwrite=True, device="cpu", **fields))
    assert (folder.path / "model.safetensors").read_text(encoding="utf-8") == "{}"


def test_partial_files_of_a_killed_run_are_removed_and_others_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.make(resume=False, overwrite=False)
    left = ["recipe.yaml.partial", "model.safetensors.2.partial", "checkpoints/last.pth.partial"]
    kept = ["answers.csv.partial", "summary.json.mine.partial"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    with folder.claimed():
        assert [name for name in (*left, *kept) if (tmp_path / name).exists()] == kept
