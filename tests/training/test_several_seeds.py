"""Runs of several seeds: what they have in common, what is reported of them, and which model is kept."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.program import Cli, Resnetd, ResnetdHere
from helpers.training_data import NETWORK, QUICK, Log, carry_out, change, make_plan, write_colours

from resnetd_cli.errors import DataError, OutputExists, UsageError
from resnetd_cli.training import recipe_choice, run_record, several_seeds
from resnetd_cli.training.best_epoch import best_run
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.plan import Plan
from resnetd_cli.training.run_folder import RunFolder

SHORT = {**QUICK, "epochs": 2, "mixup": 0, "ema_decay": None}


pytestmark = pytest.mark.usefixtures("one_thread", "short_dry_runs")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without a split of their own."""
    return write_colours(tmp_path_factory.mktemp("colours"), 12, seed=1)


def plan_for(data: Path, folder: Path, count: int | None = 3) -> Plan:
    return make_plan(
        "train", str(data), folder, NETWORK, image_size="32", changes=SHORT, workers=0, device="cpu", seeds=count
    )


@pytest.fixture
def plan(data: Path, tmp_path: Path) -> Plan:
    return plan_for(data, tmp_path / "run")


def carry_out_all(plan: Plan, log: Log | None = None, note: Callable[[str], None] = lambda _: None) -> Any:
    log = log or Log()
    return several_seeds.carry_out(plan, lambda _: Callbacks(monitor=log, note=note, should_stop=log.should_stop))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the seeds 0, 1 and 2."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    carry_out_all(plan_for(data, folder))
    return folder


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_mean_and_standard_deviation_are_those_of_the_summaries(finished: Path) -> None:
    record = read(finished / "seeds.json")
    summaries = [read(finished / "seeds" / str(seed) / "summary.json") for seed in (0, 1, 2)]
    assert record["seeds"] == [0, 1, 2] and record["figures"]["test"] is None
    for name in ("top1", "loss"):
        values = np.array([summary["val"][name] for summary in summaries])
        found = record["figures"]["val"][name]
        assert found["mean"] == pytest.approx(values.mean(), abs=1e-12)
        assert found["sd"] == pytest.approx(values.std(ddof=1), abs=1e-12)
        assert (found["min"], found["max"]) == (values.min(), values.max())
    assert record["figures"]["val"]["loss"]["sd"] > 0
    for run, summary in zip(record["runs"], summaries, strict=True):
        assert all(run[key] == summary[key] for key in ("val", "test", "best_epoch", "seconds"))


@pytest.mark.slow
def test_best_run_by_val_becomes_the_model(finished: Path) -> None:
    runs = read(finished / "seeds.json")["runs"]
    expected = sorted(runs, key=lambda run: (-run["val"]["top1"], run["val"]["loss"]))[0]["seed"]
    assert read(finished / "seeds.json")["best"] == expected
    best = finished / "seeds" / str(expected)
    names = {path.name for path in best.iterdir()} - {".lock", "checkpoints"}
    assert {"config.json", "model.safetensors", "split.csv", "trained-on.npy", "recipe.yaml", "run.json"} < names
    assert names == {path.name for path in finished.iterdir()} - {".lock", "checkpoints", "seeds", "seeds.json"}
    for name in names - {"summary.json"}:
        assert (finished / name).read_bytes() == (best / name).read_bytes(), name
    assert read(finished / "summary.json") == {**read(best / "summary.json"), "seeds": [0, 1, 2]}
    assert run_record.read(RunFolder(finished)).recipe.seed == expected


@pytest.mark.slow
def test_only_the_best_runs_checkpoints_are_kept(finished: Path) -> None:
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["best.pth", "last.pth"]
    assert list(finished.glob("seeds/*/checkpoints/*")) == []
    content = torch.load(finished / "checkpoints" / "best.pth", weights_only=True)
    kept = torch.load(finished / "checkpoints" / "last.pth", weights_only=True)
    assert content.keys() == kept.keys()


def test_all_seeds_have_one_split_and_differ_otherwise(finished: Path) -> None:
    runs = [finished / "seeds" / str(seed) for seed in (0, 1, 2)]
    assert len({(run / "split.csv").read_bytes() for run in runs}) == 1
    assert len({(run / "trained-on.npy").read_bytes() for run in runs}) == 1
    assert [read(run / "run.json")["split_seed"] for run in runs] == [0, 0, 0]
    assert len({weights(run) for run in runs}) == 3


@pytest.mark.slow
def test_each_run_is_what_a_single_one_of_its_seed_is(finished: Path, data: Path, tmp_path: Path) -> None:
    for seed in (0, 2):
        alone = change(plan_for(data, tmp_path / f"alone{seed}", None), split_seed=0)
        carry_out(change(alone, changes={**SHORT, "seed": seed}))
        assert weights(alone.output.folder) == weights(finished / "seeds" / str(seed))


@pytest.mark.slow
def test_resume_after_stop_gives_identical_seeds_and_weights(finished: Path, plan: Plan) -> None:
    notes: list[str] = []
    for stop_after in (1, 3):
        log = Log(stop_after)
        assert carry_out_all(change(plan, resume=True), log) is None
    # Stopped within the second run: what was asked for need not be repeated.
    log = _StopsInRun(2, 2)
    short = make_plan("train", plan.data.location, plan.output.folder, workers=0, device="cpu", resume=True)
    assert carry_out_all(short, log) is None
    assert not (plan.output.folder / "model.safetensors").exists()
    record = carry_out_all(short, note=notes.append)
    assert [note for note in notes if note.startswith("run ")] == ["run 2 of 3: seed 1", "run 3 of 3: seed 2"]
    expected = read(finished / "seeds.json")
    assert record["best"] == expected["best"] and record["figures"] == expected["figures"]
    assert weights(plan.output.folder) == weights(finished)
    assert carry_out_all(short, note=notes.append)["best"] == record["best"]
    assert notes[-1] == "these runs have already ended; overwrite them to start anew"


@pytest.mark.slow
def test_resumed_runs_share_the_recipe_adapted_for_the_first(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_choice, "_STEPS", ((1000, 12),))  # instead of so many that a run takes seconds
    fitted = change(plan, recipe="finetune", changes={"precision": "fp32"}, seeds=2)
    assert carry_out_all(fitted, Log(stop_after=1)) is None
    again = make_plan("train", plan.data.location, plan.output.folder, workers=0, device="cpu", resume=True)
    assert carry_out_all(again, _StopsInRun(2, 1)) is None
    recipes = [run_record.read(RunFolder(plan.output.folder / "seeds" / seed)).recipe for seed in ("0", "1")]
    assert recipes[0].epochs > 1 and recipes[1] == recipes[0].replace({"seed": 1})
    facts = [read(plan.output.folder / "seeds" / seed / "run.json") for seed in ("0", "1")]
    assert [one["recipe"] for one in facts] == ["finetune", "finetune"]
    assert [one["changes"] for one in facts] == [
        {"precision": "fp32", "seed": 0},
        {"precision": "fp32", "seed": 1},
    ]


class _StopsInRun(Log):
    """Stops after a step of one of the runs that it is told of."""

    def __init__(self, run: int, step: int) -> None:
        super().__init__(step)
        self.run, self.runs = run, 0

    def begin(self, *_: Any) -> None:
        self.runs += 1

    def should_stop(self) -> bool:
        return self.runs == self.run and super().should_stop()


@pytest.mark.slow
def test_resumption_of_something_else_is_refused(finished: Path, data: Path, plan: Plan, tmp_path: Path) -> None:
    for count, shown in ((2, "0 to 1"), (5, "0 to 4"), (1, "0 to 0")):
        with pytest.raises(UsageError, match=f"holds runs of the seeds 0 to 2, not {shown}"):
            carry_out_all(change(plan_for(data, finished, count), resume=True))
    with pytest.raises(UsageError, match=r"was started with lr 0\.05, not 0\.1"):
        carry_out_all(change(plan_for(data, finished), changes={**SHORT, "lr": 0.1}, resume=True))
    with pytest.raises(OutputExists, match="holds a run"):
        carry_out_all(plan_for(data, finished))
    carry_out(change(plan, seeds=None), Log(stop_after=1))
    with pytest.raises(UsageError, match="holds a run of one seed"):
        carry_out_all(change(plan, resume=True))


def test_seeds_beyond_the_largest_are_refused(plan: Plan) -> None:
    with pytest.raises(UsageError, match="3 seeds: the last one would be 2147483648"):
        carry_out_all(change(plan, changes={**SHORT, "seed": 2**31 - 2}))
    assert not plan.output.folder.exists()


@pytest.mark.slow
def test_one_seed_is_an_ordinary_run(plan: Plan) -> None:
    summary = carry_out_all(change(plan, seeds=1, changes={**SHORT, "epochs": 1}))
    assert "figures" not in summary and not (plan.output.folder / "seeds").exists()


@pytest.mark.slow
def test_runs_are_replaced_only_by_runs_that_start(plan: Plan) -> None:
    once = {**SHORT, "epochs": 1}
    carry_out_all(change(plan, changes=once))
    before = weights(plan.output.folder)
    for wrong in (
        {"data": "no-such-folder"},
        {"model": "no_such_model"},
        {"changes": {**once, "optimizer": "none"}},
    ):
        with pytest.raises((UsageError, DataError)):
            carry_out_all(change(plan, overwrite=True, **wrong))
        assert (
            weights(plan.output.folder) == before
            and (plan.output.folder / "seeds" / "2" / "summary.json").is_file()
        )
    assert carry_out_all(change(plan, overwrite=True, seeds=2, changes=once), Log(stop_after=1)) is None
    assert sorted(path.name for path in (plan.output.folder / "seeds").iterdir()) == ["0", "1"]
    assert not (plan.output.folder / "model.safetensors").exists()
    assert not (plan.output.folder / "seeds" / "1" / "run.json").exists()
    carry_out(change(plan, overwrite=True, seeds=None, changes=once))
    assert not (plan.output.folder / "seeds").exists() and not (plan.output.folder / "seeds.json").exists()
    assert (plan.output.folder / "model.safetensors").is_file()


def test_runs_do_not_replace_the_model_that_they_start_from(finished: Path, data: Path) -> None:
    before = weights(finished)
    with pytest.raises(UsageError, match="would replace what it starts from"):
        carry_out_all(change(plan_for(data, finished), command="finetune", model=str(finished), overwrite=True))
    assert weights(finished) == before


@pytest.mark.slow
def test_without_val_the_first_seeds_model_is_kept(plan: Plan, tmp_path: Path) -> None:
    write_colours(tmp_path / "parts" / "train", 8, seed=1)
    write_colours(tmp_path / "parts" / "test", 4, seed=2)
    notes: list[str] = []
    own = change(plan, data=str(tmp_path / "parts"), changes={**SHORT, "epochs": 1, "seed": 7}, seeds=2)
    record = carry_out_all(own, note=notes.append)
    assert record["best"] == 7 and record["figures"]["val"] is None
    assert notes[-1] == "there is no val split to choose by: the first seed's model is kept"
    tested = np.array(
        [read(plan.output.folder / "seeds" / seed / "summary.json")["test"]["loss"] for seed in ("7", "8")]
    )
    assert record["figures"]["test"]["loss"]["mean"] == pytest.approx(tested.mean(), abs=1e-12)
    assert record["figures"]["test"]["loss"]["sd"] == pytest.approx(tested.std(ddof=1), abs=1e-12)


def test_spread_is_that_of_numpy() -> None:
    runs = [{"loss": 0.5, "top1": 0.895, "top5": None}, {"loss": 0.25, "top1": 0.92, "top5": 1.0}]
    runs.append({"loss": 0.3, "top1": 0.925, "top5": 1.0})
    found = several_seeds.spread(runs)
    assert found is not None and found.keys() == {"loss", "top1"}  # not of a figure that some lack
    for name in ("loss", "top1"):
        values = [run[name] for run in runs]
        assert found[name]["mean"] == pytest.approx(np.mean(values))
        assert found[name]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert several_seeds.spread([None, None]) is None
    assert several_seeds.spread([runs[0]])["loss"]["sd"] is None


def test_equal_accuracy_is_decided_by_loss_and_then_by_order() -> None:
    def best(*figures: tuple[float, float]) -> int:
        runs = [{"seed": number, "val": {"top1": a, "loss": b}} for number, (a, b) in enumerate(figures)]
        return int(best_run(runs)["seed"])

    assert best((0.8, 0.1), (0.9, 0.5), (0.9, 0.4)) == 2
    assert best((0.9, 0.4), (0.9, 0.4)) == 0


SMALL = ("--model", NETWORK, "--image-size", "32", "--workers", "0", "--threads", "1", "--device", "cpu")
SMALL = (*SMALL, "--batch-size", "12", "--lr", "0.05", "--set", "warmup_epochs=1")


@pytest.mark.slow
def test_two_processes_train_with_two_seeds(
    run_resnetd: Resnetd, run_here: ResnetdHere, data: Path, tmp_path: Path
) -> None:
    options = (*SMALL, "--epochs", "2", "--set", "batch_norm=freeze", "--set", "mixup=0", "--seeds", "2")
    losses = []
    for processes, resnetd in (("1", run_here), ("2", run_resnetd)):
        run = tmp_path / processes
        ended = resnetd("train", data, "-o", run, *options, "--processes", processes)
        assert ended.returncode == 0, ended.stderr
        losses.append([entry["val"]["loss"] for entry in read(run / "seeds.json")["runs"]])
        val = next(line for line in ended.stderr.splitlines() if line.startswith("val: top-1"))
        assert re.search(r"\+/- [\d.]+% \([\d.]+% to [\d.]+%\), loss [\d.]+ \+/- [\d.]+ over 2 seeds", val)
        assert ended.stderr.count("all 3 classes") == 1  # the images are looked at once
        assert f"resnetd predict IMAGE --model {run}" in ended.stderr
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_interrupted_runs_of_several_seeds_say_how_to_go_on(
    run_here: ResnetdHere, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    arguments = ("train", str(data), "-o", str(run), *SMALL, "--epochs", "3", "--seeds", "2")
    monkeypatch.setattr(sys, "argv", ["resnetd", *arguments])
    original = RunFolder.write_metrics

    def write_metrics(self: RunFolder, rows: Any) -> None:
        original(self, rows)
        if self.path == run / "seeds" / "1" and len(rows) == 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_metrics", write_metrics)
        stopped = run_here(*arguments)
    assert stopped.returncode == 130, stopped.stderr
    assert f"saved; to continue: resnetd train {data} -o {run}" in stopped.stderr
    assert "--seeds 2 --resume" in stopped.stderr and "Traceback" not in stopped.stderr
    assert read(run / "seeds.json")["best"] is None and len(read(run / "seeds.json")["runs"]) == 1
    ended = run_here("train", data, "-o", run, "--resume", "--workers", "0", "--threads", "1")
    assert ended.returncode == 0, ended.stderr
    runs = read(run / "seeds.json")["runs"]
    best = min(runs, key=lambda run: (-run["val"]["top1"], run["val"]["loss"]))["seed"]
    assert read(run / "seeds.json")["best"] == best
    assert (run / "model.safetensors").read_bytes() == (
        run / "seeds" / str(best) / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("count", ["0", "-1", "two", "1.5"])
def test_seeds_option_that_is_not_a_positive_number_is_refused(cli: Cli, tmp_path: Path, count: str) -> None:
    refused = cli("finetune", "DATA", "-o", tmp_path / "run", "--seeds", count)
    assert refused.code == 2 and "--seeds" in refused.stderr.splitlines()[0]
    assert not (tmp_path / "run").exists()
