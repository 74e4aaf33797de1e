"""Downloads from the hub: content, cache, and errors."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.hub import Hub, Request, timm_files
from helpers.paths import ROOT
from helpers.program import NOWHERE, Finished, Resnetd, ResnetdHere

from resnetd_cli.models import hub as hub_module

REPO = "timm/resnet18d.ra2_in1k"
WEIGHTS = "model.safetensors"


def resumed_at(request: Request) -> int:
    """Return the offset N in `Range: bytes=N-`."""
    match = re.fullmatch(r"bytes=(\d+)-", request.range or "")
    assert match, request
    return int(match[1])


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
PHOTO = "samples/coffee.jpg"
PREDICT = ("predict", PHOTO, "--model", "resnet18d", "--format", "jsonl")
# An error about the hub names alternatives: a model that needs no download, a local file, and a mirror.
WAYS_OUT = ("--model embedded", "--weights", "HF_ENDPOINT")


def recipe(files: dict[str, bytes], name: str, **options: int) -> list[float]:
    """Return the photo's probabilities according to plain timm, in class order."""
    import safetensors.torch
    import timm
    import torch
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    model = timm.create_model(name, pretrained=False, **options).eval()
    model.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
    transform = create_transform(**resolve_data_config({}, model=model))
    with Image.open(ROOT / PHOTO) as image, torch.inference_mode():
        pixels = transform(image.convert("RGB")).unsqueeze(0)
        return model(pixels).softmax(dim=1)[0].tolist()


@pytest.fixture(scope="session")
def expected(resnet18d_files: dict[str, bytes]) -> list[float]:
    probabilities = recipe(resnet18d_files, "resnet18d.ra2_in1k")
    assert (
        max(probabilities) > 0.02
    )  # an untrained network gives 0.001 to every class: a test against it could not fail
    return probabilities


def assert_answers(run: Finished, expected: list[float]) -> list[dict[str, Any]]:
    """Check that the run predicted like plain timm; return its predictions."""
    assert run.returncode == 0, run.stderr
    (record,) = [json.loads(line) for line in run.stdout.splitlines()]
    assert (record["input"], record["status"]) == (PHOTO, "ok")
    predictions = record["predictions"]
    ranking = sorted(range(len(expected)), key=expected.__getitem__, reverse=True)[:5]
    assert [prediction["index"] for prediction in predictions] == ranking
    assert [prediction["rank"] for prediction in predictions] == list(range(1, len(ranking) + 1))
    probabilities = [prediction["probability"] for prediction in predictions]
    assert probabilities == pytest.approx([expected[index] for index in ranking], abs=1e-5, rel=0)
    return predictions


def assert_fails_well(run: Finished, *says: str, ways_out: tuple[str, ...] = WAYS_OUT, within: float = 15) -> None:
    """Check that the run failed quickly, with one line that says why and a hint."""
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) == 2, run.stderr
    for text in (*says, *ways_out):
        assert text in run.stderr
    assert run.elapsed < within


def transfers(hub: Hub) -> list[Request]:
    """Return the downloads of the weights, without requests for the first byte."""
    return [request for request in hub.body_requests(WEIGHTS) if request.range != "bytes=0-0"]


def assert_no_weights(run: Resnetd | ResnetdHere) -> None:
    """Check that nothing in the cache could be mistaken for the weights."""
    files = [path for path in run.hub_cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path for path in files if path.stat().st_size > 10_000] == []
    assert list(run.hub_cache.rglob(WEIGHTS)) == []


@pytest.fixture
def filled(hub: Hub, run_here: ResnetdHere, expected: list[float]) -> ResnetdHere:
    """`run_here` after a first run has cached the weights; the hub's log is cleared."""
    assert_answers(run_here(*PREDICT, endpoint=hub.endpoint), expected)
    hub.forget_requests()
    return run_here


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub try again at once where it would wait for a second."""
    from huggingface_hub import file_download

    impatient = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    monkeypatch.setattr(file_download, "time", impatient)


@pytest.mark.slow
def test_first_use_downloads_and_predicts_like_plain_timm(hub: Hub, run_here: ResnetdHere, expected: list[float]):
    run = run_here(*PREDICT, endpoint=hub.endpoint)
    assert_answers(run, expected)
    assert json.loads(run.stdout)["model"] == "resnet18d.ra2_in1k"
    assert [request.range for request in transfers(hub)] == [None]


@pytest.mark.slow
def test_cached_model_needs_no_hub(hub: Hub, filled: ResnetdHere, expected: list[float]):
    assert_answers(filled(*PREDICT, "--offline", endpoint=hub.endpoint), expected)
    # It does not even ask for a newer version, so a slow hub costs nothing.
    hub.fail("*", stall=True)
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint), expected)
    assert hub.requests == []
    hub.close()
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
def test_blob_linked_to_shared_store_is_checked_by_its_own_name(
    hub: Hub, filled: ResnetdHere, expected: list[float]
):
    # huggingface_hub 2 keeps what it downloads through Xet once for all repositories: the blob is a link to a
    # file named by its Xet hash, which looks like a sha256 and is not the content's.
    (blob,) = filled.hub_cache.glob(f"*/blobs/{hub.etag(REPO, WEIGHTS)}")
    xet_hash = "ab" + "0" * 62
    shared = filled.hub_cache / "blobs" / xet_hash[:2] / xet_hash
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(Path("../../blobs") / xet_hash[:2] / xet_hash)
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint), expected)
    assert hub.requests == []
    assert shared.is_file()


@pytest.mark.slow
def test_damaged_file_in_cache_is_downloaded_again(hub: Hub, filled: ResnetdHere, expected: list[float]):
    (blob,) = filled.hub_cache.glob(f"*/blobs/{hub.etag(REPO, WEIGHTS)}")
    with blob.open("r+b") as file:
        file.seek(23_000_000)
        file.write(b"damage")
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint), expected)
    assert len(transfers(hub)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "env"), [(["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"})])
def test_offline_without_weights_fails_without_request(
    hub: Hub, run_here: ResnetdHere, flags: list[str], env: dict[str, str]
):
    assert_fails_well(run_here(*PREDICT, *flags, endpoint=hub.endpoint, **env), "offline", ways_out=WAYS_OUT[:2])
    assert hub.requests == []


@pytest.mark.slow
def test_download_cut_once_is_resumed(hub: Hub, run_here: ResnetdHere, expected: list[float]):
    hub.fail(f"*/{WEIGHTS}", cut_at=30_000_000, times=1)
    assert_answers(run_here(*PREDICT, endpoint=hub.endpoint), expected)
    first, second = transfers(hub)
    assert (first.range, first.status, second.status) == (None, 200, 206)
    assert resumed_at(second) > 0


@pytest.mark.slow
def test_download_cut_every_time_fails_and_leaves_nothing(
    hub: Hub, run_here: ResnetdHere, expected: list[float], no_pauses: None
):
    hub.fail(f"*/{WEIGHTS}", cut_at=30_000_000)
    assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint), within=30)
    assert_no_weights(run_here)
    hub.heal()
    assert_answers(run_here(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
def test_download_with_wrong_hash_is_an_error_and_removed(hub: Hub, run_here: ResnetdHere, expected: list[float]):
    hub.fail(f"*/{WEIGHTS}", corrupt=True)
    assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint), "sha256")
    assert_no_weights(run_here)
    hub.heal()
    assert_answers(run_here(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_hub_error_is_reported_with_alternatives(hub: Hub, run_here: ResnetdHere, status: int):
    hub.fail("*", status=status)
    assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint), str(status))
    assert_no_weights(run_here)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "cdn"])
def test_rate_limited_request_fails_within_time(hub: Hub, run_here: ResnetdHere, at: str):
    # People are waiting here, so minutes of silence are not acceptable.
    hub.fail("*", status=429, headers=(("Retry-After", "300"),), at=at)
    assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint), "429")


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "cdn"])
def test_hub_overloaded_once_is_asked_again(hub: Hub, run_here: ResnetdHere, expected: list[float], at: str):
    hub.fail("*", status=503, times=1, at=at)
    assert_answers(run_here(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
def test_missing_repository_is_an_error(run_here: ResnetdHere):
    with Hub() as hub:
        assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint), REPO)


@pytest.mark.slow
def test_repository_without_weights_is_an_error(run_here: ResnetdHere, resnet18d_files: dict[str, bytes]):
    with Hub() as hub:
        hub.add(REPO, {"config.json": resnet18d_files["config.json"]})
        assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint), REPO)


@pytest.mark.slow
def test_gated_repository_is_an_error(hub: Hub, run_here: ResnetdHere):
    hub.gate(REPO)
    assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint), REPO)


@pytest.mark.slow
def test_unreachable_hub_is_an_error(run_here: ResnetdHere):
    assert_fails_well(run_here(*PREDICT, endpoint=NOWHERE))


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "cdn"])
def test_silent_hub_fails_within_time(hub: Hub, run_here: ResnetdHere, at: str, monkeypatch: pytest.MonkeyPatch):
    assert hub_module._PROBE_SECONDS <= 7
    monkeypatch.setattr(hub_module, "_PROBE_SECONDS", 0.5)
    hub.fail("*", stall=True, at=at)
    assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint))
    assert [request for request in hub.requests if request.status is None]


@pytest.mark.slow
def test_stalled_download_fails_within_time(hub: Hub, run_here: ResnetdHere, no_pauses: None):
    hub.fail(f"*/{WEIGHTS}", stall_at=30_000_000)
    # The download has started, so huggingface_hub retries for a while; this setting limits each attempt.
    assert_fails_well(run_here(*PREDICT, endpoint=hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT="1"), within=30)
    assert_no_weights(run_here)


def stop_in_download(hub: Hub, run_resnetd: Resnetd, how: signal.Signals) -> Finished:
    """Start a run and stop it when part of the weights has arrived."""
    process = run_resnetd.start(*PREDICT, endpoint=hub.endpoint)
    deadline = time.monotonic() + 60
    while not (transfers(hub) and list(run_resnetd.hub_cache.rglob("*.incomplete"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    return run_resnetd.finish(process, timeout=20)


@pytest.mark.slow
@posix
def test_ctrl_c_in_a_download_leaves_nothing(hub: Hub, run_resnetd: Resnetd):
    hub.fail(f"*/{WEIGHTS}", bytes_per_second=5_000_000)
    stopped = stop_in_download(hub, run_resnetd, signal.SIGINT)
    assert (stopped.returncode, stopped.stdout) == (130, "")
    assert "Traceback" not in stopped.stderr
    assert_no_weights(run_resnetd)


@pytest.mark.slow
@posix
def test_run_killed_during_download_does_not_affect_later_run(
    hub: Hub, run_resnetd: Resnetd, run_here: ResnetdHere, expected: list[float]
):
    hub.fail(f"*/{WEIGHTS}", bytes_per_second=5_000_000)
    killed = stop_in_download(hub, run_resnetd, signal.SIGKILL)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")
    hub.heal()
    assert_answers(run_here(*PREDICT, endpoint=hub.endpoint), expected)


FETCH = "import sys; from resnetd_cli.models import hub; print(hub.fetch(sys.argv[1]))"


@pytest.mark.slow
def test_two_processes_download_at_once_and_a_later_one_needs_no_hub(
    hub: Hub, run_resnetd: Resnetd, run_here: ResnetdHere, expected: list[float]
):
    hub.fail(f"*/{WEIGHTS}", bytes_per_second=40_000_000)
    both = [run_resnetd.start(REPO, program=("-c", FETCH), endpoint=hub.endpoint) for _ in range(2)]
    for process in both:
        finished = run_resnetd.finish(process)
        assert finished.returncode == 0, finished.stderr
        assert Path(finished.stdout.strip()).name == WEIGHTS
    (blob,) = [path for path in run_resnetd.hub_cache.glob("*/blobs/*") if path.stat().st_size > 10_000]
    assert blob.name == hub.etag(REPO, WEIGHTS)
    hub.forget_requests()
    assert_answers(run_here(*PREDICT, endpoint=hub.endpoint, HF_HUB_OFFLINE="1"), expected)
    assert hub.requests == []


@pytest.mark.slow
def test_user_checkpoint_predicts_its_own_class_names(hub: Hub, run_here: ResnetdHere):
    names = ("espresso", "flat white", "lungo", "ristretto", "tea", "water")
    files = timm_files("resnet18d", 7, num_classes=len(names), label_names=names)
    hub.add("me/drinks", files)
    command = ("predict", PHOTO, "--model", "hf-hub:me/drinks", "--format", "jsonl")
    run = run_here(*command, endpoint=hub.endpoint)
    predictions = assert_answers(run, recipe(files, "resnet18d", num_classes=len(names)))
    assert [prediction["label"] for prediction in predictions] == [
        names[prediction["index"]] for prediction in predictions
    ]
    assert json.loads(run.stdout)["model"] == "hf-hub:me/drinks"
    hub.close()
    again = run_here(*command, endpoint=hub.endpoint)
    assert (again.returncode, again.stdout) == (0, run.stdout), again.stderr
