"""What a run records of where it came from, and that it is not resumed from anything else."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub import timm_files
from helpers.training_data import NETWORK, QUICK, Log, carry_out, change, make_plan, write_colours
from PIL import Image

from resnetd_cli import __version__
from resnetd_cli.cli.hints import hint_of
from resnetd_cli.errors import DataError, UsageError
from resnetd_cli.models.config_json import write_temperature
from resnetd_cli.results import FittedTemperature
from resnetd_cli.training import head, network, recipe
from resnetd_cli.training.callbacks import Callbacks
from resnetd_cli.training.plan import NetworkChoice, Plan
from resnetd_cli.training.run import execute

SHORT = {**QUICK, "epochs": 2, "mixup": 0, "head": "zero"}


pytestmark = pytest.mark.usefixtures("one_thread", "short_dry_runs")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return timm_files("test_resnet.r160_in1k", seed=0)


def write_model(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def base(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return write_model(tmp_path / "base", files)


@pytest.fixture
def plan(base: Path, tmp_path: Path) -> Plan:
    write_colours(tmp_path / "data" / "train", 12, seed=1)
    write_colours(tmp_path / "data" / "val", 3, seed=2)
    return make_plan(
        "finetune",
        str(tmp_path / "data"),
        tmp_path / "run",
        model=str(base),
        image_size="32",
        changes=SHORT,
        workers=0,
        device="cpu",
        arguments=("finetune", "data", "--model", "base"),
    )


@pytest.fixture
def teacher(plan: Plan, tmp_path: Path) -> Path:
    carry_out(change(plan, folder=tmp_path / "teacher", changes={**SHORT, "epochs": 1}))
    return tmp_path / "teacher"


def facts_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "run.json").read_text())
    return content


@pytest.mark.slow
def test_random_classifier_derives_from_the_seed(base: Path) -> None:
    def weight(seed: int) -> torch.Tensor:
        settings = recipe.load_recipe("finetune").replace({"head": "random", "seed": seed})
        torch.seed()
        module = network.pretrained(NetworkChoice(str(base)), 3, settings).module
        return head.classifier_of(module).weight  # type: ignore[return-value]

    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))


@pytest.mark.slow
def test_run_records_its_files_by_their_sha256(plan: Plan, base: Path, teacher: Path) -> None:
    began = datetime.now(timezone.utc).replace(microsecond=0)
    summary = carry_out(change(plan, teacher=str(teacher)))
    facts = facts_of(plan.output.folder)
    for key, folder in (("model_files", base), ("teacher_files", teacher)):
        weights, config = facts[key]
        assert weights["file"] == str(folder / "model.safetensors")
        assert weights["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert config["file"] == str(folder / "config.json") and len(config["settings_sha256"]) == 64
        assert config["sha256"] == hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
        assert summary[key] == facts[key]
    assert summary["data_sha256"] == facts["data_sha256"] and len(facts["data_sha256"]) == 64
    (start,) = facts["starts"]
    assert began <= datetime.fromisoformat(start["time"]) <= datetime.now(timezone.utc) + timedelta(seconds=1)
    assert start["time"].endswith("+00:00")
    assert start["arguments"] == ["finetune", "data", "--model", "base"]
    keys = ("step", "device", "precision", "processes", "threads", "workers", "platform")
    assert [start[key] for key in keys] == [0, "cpu", "fp32", 1, 1, 0, platform.platform()]
    expected = {name: metadata.version(name) for name in ("torch", "timm", "pillow", "numpy", "torchvision")}
    expected |= {"resnetd": __version__, "python": platform.python_version()}
    assert expected.items() <= start["versions"].items()
    assert summary["versions"] == start["versions"]


@pytest.mark.slow
def test_weights_given_by_hand_are_recorded(plan: Plan, base: Path) -> None:
    carry_out(change(plan, model=NETWORK, weights=base / "model.safetensors"), Log(stop_after=1))
    (weights,) = facts_of(plan.output.folder)["model_files"]
    assert weights["file"] == str(base / "model.safetensors")
    assert weights["sha256"] == hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_training_from_scratch_starts_with_no_files(plan: Plan) -> None:
    carry_out(change(plan, command="train", model=NETWORK), Log(stop_after=1))
    facts = facts_of(plan.output.folder)
    assert facts["model_files"] is None and facts["teacher_files"] is None


@pytest.mark.slow
@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_resume_with_a_changed_starting_model_is_an_error(
    plan: Plan, base: Path, files: dict[str, bytes], has_checkpoint: bool
) -> None:
    carry_out(plan, Log(stop_after=2))
    if not has_checkpoint:
        (plan.output.folder / "checkpoints" / "last.pth").unlink()
    weights = base / "model.safetensors"
    damaged = bytearray(files["model.safetensors"])
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(UsageError) as raised:
        carry_out(change(plan, resume=True))
    assert raised.value.message.startswith(f"{weights} has changed since the run started")
    assert hint_of(raised.value) == "put it back, or start anew with --overwrite"
    weights.write_bytes(files["model.safetensors"])
    assert carry_out(change(plan, resume=True))["steps"] == 6


@pytest.mark.slow
def test_resume_from_a_checkpoint_needs_no_starting_model(plan: Plan, base: Path) -> None:
    carry_out(plan, Log(stop_after=2))
    base.rename(base.with_name("elsewhere"))
    summary = carry_out(change(plan, resume=True))
    assert summary["steps"] == 6 and summary["model_files"][0]["file"] == str(base / "model.safetensors")


@pytest.mark.slow
def test_resume_with_a_changed_teacher_is_an_error(
    plan: Plan, teacher: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    taught = change(plan, teacher=str(teacher))
    carry_out(taught, Log(stop_after=2))
    weights, config = teacher / "model.safetensors", teacher / "config.json"
    for file, damage in ((weights, lambda old: old[:-1] + bytes([old[-1] ^ 1])), (config, _in_other_order)):
        before = file.read_bytes()
        file.write_bytes(damage(before))
        with pytest.raises(UsageError) as raised:
            carry_out(change(taught, resume=True))
        assert raised.value.message.startswith(f"{file} has changed since the run started: its teacher")
        file.write_bytes(before)
    write_temperature(teacher, FittedTemperature(1.5))  # nothing is learnt from it
    assert carry_out(change(taught, resume=True))["steps"] == 6


def _in_other_order(content: bytes) -> bytes:
    config = json.loads(content)
    config["label_names"] = config["label_names"][::-1]
    return json.dumps(config).encode()


@pytest.mark.slow
def test_other_threads_and_versions_are_recorded_and_do_not_stop_a_resumption(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(plan, Log(stop_after=2))
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr("resnetd_cli.training.provenance.__version__", "99.0")
        again = change(plan, resume=True, arguments=("finetune", "--resume"))
        assert carry_out(again, Log(stop_after=5)) is None
        monkeypatch.undo()
    finally:
        torch.set_num_threads(1)
    carry_out(change(plan, resume=True))
    starts = facts_of(plan.output.folder)["starts"]
    assert [start["step"] for start in starts] == [0, 2, 5]
    assert [start["threads"] for start in starts] == [1, 2, 1]
    assert [start["versions"]["resnetd"] for start in starts] == [__version__, "99.0", __version__]
    assert starts[1]["arguments"] == ["finetune", "--resume"]
    carry_out(change(plan, resume=True))  # it has ended: nothing starts
    assert facts_of(plan.output.folder)["starts"] == starts


@pytest.mark.slow
def test_run_of_an_older_version_is_resumed(plan: Plan) -> None:
    carry_out(plan, Log(stop_after=2))
    facts = facts_of(plan.output.folder)
    for key in ("model_files", "teacher_files", "data_sha256", "split_seed", "starts"):
        del facts[key]
    (plan.output.folder / "run.json").write_text(json.dumps({**facts, "fingerprint": "0" * 64}))
    notes: list[str] = []
    summary = carry_out(change(plan, resume=True), note=notes.append)
    assert summary["steps"] == 6 and summary["model_files"] is None
    assert any("its images cannot be checked for changes" in note for note in notes)
    assert [start["step"] for start in facts_of(plan.output.folder)["starts"]] == [2]


@pytest.mark.slow
def test_resume_with_other_images_is_an_error(plan: Plan, tmp_path: Path) -> None:
    carry_out(plan, Log(stop_after=2))
    path = tmp_path / "data" / "train" / "red" / "000.png"
    with Image.open(path) as image:
        image.load()
    image.putpixel((5, 7), (1, 2, 3))
    image.save(path)
    with pytest.raises(DataError, match="are not those that the run started with"):
        carry_out(change(plan, resume=True))


@pytest.mark.slow
def test_split_seed_holds_back_the_same_images_whatever_the_seed(plan: Plan, tmp_path: Path) -> None:
    whole = change(plan, data=str(tmp_path / "data" / "train"), changes={**SHORT, "epochs": 1})
    held_back = []
    for number, (seed, split_seed) in enumerate(((5, None), (6, 5), (6, None))):
        run = change(whole, folder=tmp_path / f"run{number}", split_seed=split_seed)
        run = change(run, changes={**run.recipe.changes, "seed": seed})
        execute(run, Callbacks(Log(), lambda _: None, lambda: False, surveyed=_remembering(held_back)))
        assert facts_of(run.output.folder)["split_seed"] == (seed if split_seed is None else split_seed)
    assert held_back[0] == held_back[1] != held_back[2]


@pytest.mark.slow
def test_split_seed_is_refused_where_it_would_have_no_effect(plan: Plan) -> None:
    with pytest.raises(UsageError, match=r"a seed for the split would have no effect: .* has val of its own"):
        carry_out(change(plan, split_seed=1))
    carry_out(plan, Log(stop_after=1))
    assert facts_of(plan.output.folder)["split_seed"] is None
    assert carry_out(change(plan, resume=True)) is not None


def _remembering(held_back: list[list[str]]) -> Any:
    return lambda _, divided: held_back.append([divided.val.name(number) for number in range(len(divided.val))])


@pytest.mark.slow
def test_seconds_are_those_that_pass_from_the_start_to_the_end(plan: Plan) -> None:
    began = time.monotonic()
    log = Log()
    slow = Callbacks(log, lambda _: None, log.should_stop, surveyed=lambda *_: time.sleep(1))
    summary = execute(plan, slow)
    elapsed = time.monotonic() - began
    assert summary is not None and max(1, 0.75 * elapsed) <= summary["seconds"] <= elapsed + 0.05
