"""Weights from the hub: what arrives, what is kept, and what is said when it does not come."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from helpers.hub import Hub, Request, timm_files
from helpers.paths import ROOT
from helpers.program import NOWHERE, Finished, Resnetd
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPO = "timm/resnet18d.ra2_in1k"
WEIGHTS = "model.safetensors"

# --- the hub itself: huggingface_hub's own client takes it for a real one ---


class Client:
    """`hf_hub_download` with a cache of its own."""

    def __init__(self, hub: Hub, cache: Path) -> None:
        self.hub = hub
        self.cache = cache

    def __call__(self, filename: str, repo: str = REPO, **options: str) -> bytes:
        path = huggingface_hub.hf_hub_download(
            repo, filename, cache_dir=self.cache, endpoint=self.hub.endpoint, token=False, **options
        )
        return Path(path).read_bytes()


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield Client(hub, tmp_path / "cache")
    huggingface_hub.close_session()


def blobs(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("models--*/blobs/*"))


def resumed_at(request: Request) -> int:
    """Return the offset that a `Range: bytes=N-` asks for."""
    match = re.fullmatch(r"bytes=(\d+)-", request.range or "")
    assert match, request
    return int(match[1])


def test_hub_serves_small_files_and_weights(hub: Hub, client: Client, resnet18d_files: dict[str, bytes]):
    content = resnet18d_files[WEIGHTS]
    assert client("config.json") == resnet18d_files["config.json"]
    assert client(WEIGHTS) == content
    # Blobs are named after the ETags: git's hash of the small file, the sha256 of the large one.
    assert hashlib.sha256(content).hexdigest() in blobs(client.cache)
    assert blobs(client.cache) == sorted([hub.etag(REPO, "config.json"), hub.etag(REPO, WEIGHTS)])
    assert [(request.method, request.status) for request in hub.requests] == [
        ("HEAD", 200),  # config.json
        ("GET", 200),
        ("HEAD", 302),  # the weights: the redirect carries the metadata
        ("GET", 200),
    ]
    assert hub.requests[-1].path == f"/cdn/{hub.etag(REPO, WEIGHTS)}"


def test_hub_redirects_a_plain_get_to_the_cdn(hub: Hub, client: Client, resnet18d_files: dict[str, bytes]):
    url = huggingface_hub.hf_hub_url(REPO, WEIGHTS, endpoint=hub.endpoint)
    response = huggingface_hub.get_session().get(url, headers={"Range": "bytes=10-19"}, follow_redirects=True)
    assert response.status_code == 206
    assert response.content == resnet18d_files[WEIGHTS][10:20]
    assert response.headers["Content-Range"] == f"bytes 10-19/{len(resnet18d_files[WEIGHTS])}"
    assert [request.status for request in hub.requests] == [302, 206]


def test_hub_cuts_once_and_the_client_resumes(hub: Hub, client: Client, resnet18d_files: dict[str, bytes]):
    hub.fail(f"*/{WEIGHTS}", cut_at=20_000_000, times=1)
    assert client(WEIGHTS) == resnet18d_files[WEIGHTS]
    assert [request.status for request in hub.body_requests(WEIGHTS)] == [200, 206]
    assert 0 < resumed_at(hub.body_requests(WEIGHTS)[1]) <= 20_000_000


def test_hub_corrupts_one_bit(hub: Hub, client: Client, resnet18d_files: dict[str, bytes]):
    hub.fail(f"*/{WEIGHTS}", corrupt=True, times=1)
    content, good = client(WEIGHTS), resnet18d_files[WEIGHTS]
    difference = int.from_bytes(content, "big") ^ int.from_bytes(good, "big")
    assert len(content) == len(good)
    assert difference.bit_count() == 1


def test_hub_drips(hub: Hub, client: Client):
    hub.add("me/slow", {"config.json": bytes(3000)})
    hub.fail("me/slow/*", bytes_per_second=10_000)
    thread = threading.Thread(target=client, args=("config.json", "me/slow"))
    thread.start()
    thread.join(0.15)
    assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    assert blobs(client.cache) == [hub.etag("me/slow", "config.json")]


@pytest.mark.parametrize(
    ("repo", "filename", "revision", "error"),
    [
        ("timm/nothing", "config.json", "main", RepositoryNotFoundError),
        (REPO, "nothing.json", "main", RemoteEntryNotFoundError),
        (REPO, "config.json", "v9", RevisionNotFoundError),
    ],
)
def test_hub_names_what_is_missing(
    client: Client, repo: str, filename: str, revision: str, error: type[Exception]
):
    with pytest.raises(error):
        client(filename, repo, revision=revision)


def test_hub_gates(hub: Hub, client: Client):
    hub.gate(REPO)
    with pytest.raises(GatedRepoError):
        client(WEIGHTS)


def test_hub_answers_with_a_status_as_often_as_told(hub: Hub, client: Client):
    hub.fail(f"{REPO}/*", status=418, times=1)
    with pytest.raises(LocalEntryNotFoundError) as caught:
        client("config.json")
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert caught.value.__cause__.response.status_code == 418
    assert b'"architecture"' in client("config.json")
    assert [request.status for request in hub.requests] == [418, 200, 200]


def test_hub_ends_while_a_client_waits(tmp_path: Path):
    threads = threading.active_count()
    with Hub() as hub:
        hub.add("me/stalled", {"config.json": b"{}"})
        hub.fail("me/stalled/*", stall=True)
        session = huggingface_hub.get_session()
        failures: list[Exception] = []

        def ask() -> None:
            try:
                session.get(f"{hub.endpoint}/me/stalled/resolve/main/config.json", timeout=30)
            except Exception as error:
                failures.append(error)

        client = threading.Thread(target=ask)
        client.start()
        client.join(0.3)
        assert client.is_alive()
        assert [request.status for request in hub.requests] == [None]
    client.join(5)
    huggingface_hub.close_session()
    assert [type(failure).__name__ for failure in failures] == ["RemoteProtocolError"]
    assert threading.active_count() == threads


def test_hub_has_models_whose_probabilities_differ(resnet18d_files: dict[str, bytes]):
    # A fresh network answers 0.001 to everything, and a test against it could not fail.
    import safetensors.torch
    import timm
    import torch

    model = timm.create_model("resnet18d.ra2_in1k", pretrained=False).eval()
    model.load_state_dict(safetensors.torch.load(resnet18d_files[WEIGHTS]))
    with torch.inference_mode():
        probabilities = model(torch.randn(2, 3, 224, 224)).softmax(dim=1)
    assert probabilities.max() > 0.02
    assert (probabilities[0] - probabilities[1]).abs().max() > 1e-3


# --- the program against it ---


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
PHOTO = "samples/coffee.jpg"
PREDICT = ("predict", PHOTO, "--model", "resnet18d", "--format", "jsonl")
# An error about the hub names the ways out: a model that needs no download, a file at hand, and a mirror.
WAYS_OUT = ("--model embedded", "--weights", "HF_ENDPOINT")


def recipe(files: dict[str, bytes], name: str, **options: int) -> list[float]:
    """Return the probabilities of the photo by the plain timm recipe, in class order."""
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
    return recipe(resnet18d_files, "resnet18d.ra2_in1k")


def assert_answers(run: Finished, expected: list[float]) -> list[dict[str, Any]]:
    """Check that the run gave the recipe's answer; return its predictions."""
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
    """Check that the run failed in good time, with a line that says why and a hint that says what to do."""
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) == 2, run.stderr
    for text in (*says, *ways_out):
        assert text in run.stderr
    assert run.elapsed < within


def transfers(hub: Hub) -> list[Request]:
    """The downloads of the weights; a look at the first byte is none."""
    return [request for request in hub.body_requests(WEIGHTS) if request.range != "bytes=0-0"]


def assert_no_weights(run_resnetd: Resnetd) -> None:
    """Check that nothing in the cache could be taken for the weights."""
    files = [path for path in run_resnetd.hub_cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path for path in files if path.stat().st_size > 10_000] == []
    assert list(run_resnetd.hub_cache.rglob(WEIGHTS)) == []


@pytest.fixture
def filled(hub: Hub, run_resnetd: Resnetd, expected: list[float]) -> Resnetd:
    """`run_resnetd` with the weights in its cache, by a first run; the hub's log begins anew."""
    assert_answers(run_resnetd(*PREDICT, endpoint=hub.endpoint), expected)
    hub.forget_requests()
    return run_resnetd


@pytest.mark.slow
def test_first_use_downloads_and_gives_the_answer_of_the_recipe(
    hub: Hub, run_resnetd: Resnetd, expected: list[float]
):
    run = run_resnetd(*PREDICT, endpoint=hub.endpoint)
    assert_answers(run, expected)
    assert json.loads(run.stdout)["model"] == "resnet18d.ra2_in1k"
    assert [request.range for request in transfers(hub)] == [None]


@pytest.mark.slow
def test_a_model_in_the_cache_needs_no_hub(hub: Hub, filled: Resnetd, expected: list[float]):
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint, HF_HUB_OFFLINE="1"), expected)
    assert_answers(filled(*PREDICT, "--offline", endpoint=hub.endpoint), expected)
    # Not even a question whether there is something newer: a hub that takes a minute to answer costs nothing.
    hub.fail("*", stall=True)
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint), expected)
    assert hub.requests == []
    hub.close()
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
def test_a_blob_in_the_shared_store_is_known_by_its_own_name(hub: Hub, filled: Resnetd, expected: list[float]):
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
def test_a_file_damaged_in_the_cache_is_fetched_anew(hub: Hub, filled: Resnetd, expected: list[float]):
    (blob,) = filled.hub_cache.glob(f"*/blobs/{hub.etag(REPO, WEIGHTS)}")
    with blob.open("r+b") as file:
        file.seek(23_000_000)
        file.write(b"damage")
    assert_answers(filled(*PREDICT, endpoint=hub.endpoint), expected)
    assert len(transfers(hub)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "env"), [(["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"})])
def test_offline_without_weights_asks_nobody(
    hub: Hub, run_resnetd: Resnetd, flags: list[str], env: dict[str, str]
):
    assert_fails_well(
        run_resnetd(*PREDICT, *flags, endpoint=hub.endpoint, **env), "offline", ways_out=WAYS_OUT[:2]
    )
    assert hub.requests == []


@pytest.mark.slow
def test_a_download_cut_once_is_resumed(hub: Hub, run_resnetd: Resnetd, expected: list[float]):
    hub.fail(f"*/{WEIGHTS}", cut_at=30_000_000, times=1)
    assert_answers(run_resnetd(*PREDICT, endpoint=hub.endpoint), expected)
    first, second = transfers(hub)
    assert (first.range, first.status, second.status) == (None, 200, 206)
    assert resumed_at(second) > 0


@pytest.mark.slow
def test_a_download_cut_always_fails_and_leaves_nothing(hub: Hub, run_resnetd: Resnetd, expected: list[float]):
    hub.fail(f"*/{WEIGHTS}", cut_at=30_000_000)
    assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint), within=30)
    assert_no_weights(run_resnetd)
    hub.heal()
    assert_answers(run_resnetd(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
def test_wrong_bytes_are_refused_and_removed(hub: Hub, run_resnetd: Resnetd, expected: list[float]):
    hub.fail(f"*/{WEIGHTS}", corrupt=True)
    assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint), "sha256")
    assert_no_weights(run_resnetd)
    hub.heal()
    assert_answers(run_resnetd(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_a_hub_that_answers_with_an_error(hub: Hub, run_resnetd: Resnetd, status: int):
    hub.fail("*", status=status)
    assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint), str(status))
    assert_no_weights(run_resnetd)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "cdn"])
def test_a_hub_that_wants_to_be_left_alone(hub: Hub, run_resnetd: Resnetd, at: str):
    # People wait for an answer here; minutes of silence are none.
    hub.fail("*", status=429, headers=(("Retry-After", "300"),), at=at)
    assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint), "429")


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "cdn"])
def test_a_hub_that_is_overloaded_once(hub: Hub, run_resnetd: Resnetd, expected: list[float], at: str):
    hub.fail("*", status=503, times=1, at=at)
    assert_answers(run_resnetd(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
def test_a_repository_that_is_not_there(run_resnetd: Resnetd):
    with Hub() as hub:
        assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint), REPO)


@pytest.mark.slow
def test_a_repository_without_weights(run_resnetd: Resnetd, resnet18d_files: dict[str, bytes]):
    with Hub() as hub:
        hub.add(REPO, {"config.json": resnet18d_files["config.json"]})
        assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint), REPO)


@pytest.mark.slow
def test_a_gated_repository(hub: Hub, run_resnetd: Resnetd):
    hub.gate(REPO)
    assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint), REPO)


@pytest.mark.slow
def test_no_hub_at_all(run_resnetd: Resnetd):
    assert_fails_well(run_resnetd(*PREDICT, endpoint=NOWHERE))


@pytest.mark.slow
@pytest.mark.parametrize("at", ["hub", "cdn"])
def test_a_hub_that_never_answers(hub: Hub, run_resnetd: Resnetd, at: str):
    hub.fail("*", stall=True, at=at)
    assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint))
    assert [request for request in hub.requests if request.status is None]


@pytest.mark.slow
def test_a_download_that_comes_to_a_halt(hub: Hub, run_resnetd: Resnetd):
    hub.fail(f"*/{WEIGHTS}", stall_at=30_000_000)
    # It has begun well, so huggingface_hub tries on for a while; this setting bounds each try.
    assert_fails_well(run_resnetd(*PREDICT, endpoint=hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT="1"), within=30)
    assert_no_weights(run_resnetd)


def stop_in_download(hub: Hub, run_resnetd: Resnetd, how: signal.Signals) -> Finished:
    """Start a run and end it when a part of the weights has arrived."""
    process = run_resnetd.start(*PREDICT, endpoint=hub.endpoint)
    deadline = time.monotonic() + 60
    while not transfers(hub):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
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
def test_a_run_killed_in_its_download_harms_no_later_one(hub: Hub, run_resnetd: Resnetd, expected: list[float]):
    hub.fail(f"*/{WEIGHTS}", bytes_per_second=5_000_000)
    killed = stop_in_download(hub, run_resnetd, signal.SIGKILL)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")
    hub.heal()
    assert_answers(run_resnetd(*PREDICT, endpoint=hub.endpoint), expected)


@pytest.mark.slow
def test_two_processes_download_at_once(hub: Hub, run_resnetd: Resnetd, expected: list[float]):
    hub.fail(f"*/{WEIGHTS}", bytes_per_second=40_000_000)
    both = [run_resnetd.start(*PREDICT, endpoint=hub.endpoint) for _ in range(2)]
    for process in both:
        assert_answers(run_resnetd.finish(process), expected)
    (blob,) = [path for path in run_resnetd.hub_cache.glob("*/blobs/*") if path.stat().st_size > 10_000]
    assert blob.name == hub.etag(REPO, WEIGHTS)


@pytest.mark.slow
def test_a_checkpoint_of_ones_own_answers_with_its_own_names(hub: Hub, run_resnetd: Resnetd):
    names = ("espresso", "flat white", "lungo", "ristretto", "tea", "water")
    files = timm_files("resnet18d", 7, num_classes=len(names), label_names=names)
    hub.add("me/drinks", files)
    command = ("predict", PHOTO, "--model", "hf-hub:me/drinks", "--format", "jsonl")
    run = run_resnetd(*command, endpoint=hub.endpoint)
    predictions = assert_answers(run, recipe(files, "resnet18d", num_classes=len(names)))
    assert [prediction["label"] for prediction in predictions] == [
        names[prediction["index"]] for prediction in predictions
    ]
    assert json.loads(run.stdout)["model"] == "hf-hub:me/drinks"
    hub.close()
    again = run_resnetd(*command, endpoint=hub.endpoint)
    assert (again.returncode, again.stdout) == (0, run.stdout), again.stderr
